//! Comparing a copy with its source: names, kinds, permissions, times, and every byte.
//!
//! The copy is read around the page cache where that can be, or after its pages were dropped, so that
//! what is compared is what the disk has.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::stream::AnyFile;
use inflight::{
    Advice, Directory, DirectoryBatch, FileKind, Metadata, OpenOptions, RemoveKind, SyncScope,
};

use super::contents::same_contents;
use super::directory::{below, names_in};
use super::item::path_of;
use super::queue::Queue;
use super::root::Root;
use super::work::{Comparison, Work};
use crate::error::Result;

/// Puts the comparison of a whole tree into the queue.
pub(super) async fn begin(queue: &Queue, root: &Arc<Root>) {
    // What is not written yet cannot be read around the page cache.
    if let Err(error) = root.target().sync(SyncScope::FileSystem).await {
        return queue.state.trouble(error.into());
    }
    let listing = Comparison { root: root.clone(), path: PathBuf::new() };
    queue.push(Work::Compare(listing));
}

pub(super) async fn compare(queue: &Queue, listing: Comparison) {
    if let Err(error) = compare_directory(queue, listing).await {
        queue.state.trouble(error);
    }
}

async fn compare_directory(queue: &Queue, listing: Comparison) -> Result<()> {
    let Comparison { root, path } = listing;
    let source = below(root.source(), &path).await?;
    let target = below(root.target(), &path).await?;
    if let Some((name, made)) = root.single_names() {
        let about = source.metadata(name, false).await?;
        let there = target.metadata(made, false).await?;
        return compare_one(queue, &root, (&source, name, &about), (&target, made, &there)).await;
    }
    let mut there = names_in(&target).await?;
    let listed = source.open_directory(".", OpenOptions::directory()).await?;
    let mut batch = listed.read(DirectoryBatch::default(), true).await?;
    while !batch.is_empty() {
        for entry in batch.iter() {
            let Some(about) = entry.metadata else { continue };
            let name = path_of(entry.name);
            if path.as_os_str().is_empty() && root.is_reserved(&name) {
                continue;
            }
            compare_entry(queue, &root, &path, (&source, &target), (&name, about), &mut there)
                .await;
        }
        batch = listed.read(batch, true).await?;
    }
    Ok(())
}

async fn compare_entry(
    queue: &Queue,
    root: &Arc<Root>,
    path: &Path,
    (source, target): (&Directory, &Directory),
    (name, about): (&Path, &Metadata),
    there: &mut HashMap<PathBuf, Metadata>,
) {
    let state = &queue.state;
    let Some(made) = there.remove(name) else {
        return state.trouble_with(&target.path().join(name), "is missing in the copy");
    };
    if made.kind == FileKind::Directory && about.kind == FileKind::Directory {
        let listing = Comparison { root: root.clone(), path: path.join(name) };
        return queue.push(Work::Compare(listing));
    }
    let compared = compare_one(queue, root, (source, name, about), (target, name, &made)).await;
    if let Err(error) = compared {
        state.trouble(error);
    }
}

/// A name in a directory, and what it is.
type Place<'a> = (&'a Directory, &'a Path, &'a Metadata);

async fn compare_one(
    queue: &Queue,
    root: &Root,
    source: Place<'_>,
    target: Place<'_>,
) -> Result<()> {
    let state = &queue.state;
    let (about, made) = (source.2, target.2);
    let differs = |what: &str| state.trouble_with(&target.0.path().join(target.1), what);
    if about.kind != made.kind {
        differs("is another kind of thing than its source; --resume copies it again");
        return Ok(());
    }
    match about.kind {
        FileKind::File => {
            let read = OpenOptions::reading().no_follow();
            let from = source.0.open(source.1, read).await?;
            let to = on_disk(target.0, target.1).await?;
            let advance = |bytes| state.tally.compared_bytes.add(bytes);
            if about.size != made.size || !same_contents(state, from.into(), to, advance).await? {
                differs("differs from its source; check the disks, and the source for changes");
                if root.is_grown() {
                    // It must not be taken for right the next time.
                    target.0.remove(target.1, RemoveKind::File).await?;
                    return Ok(());
                }
            }
        }
        FileKind::Symlink
            if source.0.read_link(source.1).await? != target.0.read_link(target.1).await? =>
        {
            differs("points elsewhere than its source");
        }
        _ if about.node != made.node => differs("stands for another device than its source"),
        _ => {}
    }
    let mode = state.keep.kept().mode_of(about);
    if about.kind != FileKind::Symlink && made.mode != mode {
        differs("has other permissions than its source");
    }
    if made.modified != about.modified {
        differs("has another time than its source: one of them changed meanwhile");
    }
    Ok(())
}

/// A file as the disk has it.
async fn on_disk(directory: &Directory, name: &Path) -> Result<AnyFile> {
    let options = OpenOptions::reading().no_follow();
    match directory.open_direct(name, options).await {
        Ok(file) => Ok(file.into()),
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            let file = directory.open(name, options).await?;
            file.advise(0, 0, Advice::DontNeed).await?;
            Ok(file.into())
        }
        Err(error) => Err(error.into()),
    }
}
