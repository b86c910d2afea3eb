//! Comparing a copy with its source: names, kinds, what is kept of them, and every byte.
//!
//! The copy is read around the page cache where that can be, or after its pages were dropped, so that
//! what is compared is what the disk has.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::stream::{AnyFile, Reader};
use inflight::{
    Advice, Buffer, Directory, DirectoryBatch, FileKind, Metadata, OpenOptions, RemoveKind,
    SyncScope,
};

use super::directory::{below, names_in};
use super::item::path_of;
use super::queue::{Queue, Work};
use super::route::Root;
use crate::error::Result;

/// A directory to be compared.
pub(super) struct Listing {
    root: Arc<Root>,
    path: PathBuf,
}

/// Puts the comparison of a whole tree into the queue.
pub(super) async fn begin(queue: &Queue, root: &Arc<Root>) {
    // What is not written yet cannot be read around the page cache.
    if let Err(error) = root.target().sync(SyncScope::FileSystem).await {
        return queue.state.trouble(error.into());
    }
    let listing = Listing { root: root.clone(), path: PathBuf::new() };
    queue.push(Work::Compare(listing));
}

pub(super) async fn compare(queue: &Queue, listing: Listing) {
    if let Err(error) = compare_directory(queue, listing).await {
        queue.state.trouble(error);
    }
}

async fn compare_directory(queue: &Queue, listing: Listing) -> Result<()> {
    let Listing { root, path } = listing;
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
        let listing = Listing { root: root.clone(), path: path.join(name) };
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
            if about.size != made.size || !same_contents(from.into(), to, advance).await? {
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
    let mode = state.keep.mode_of(about);
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

/// Whether two files have the same bytes. `advance` hears of those compared.
pub(super) async fn same_contents(
    a: AnyFile,
    b: AnyFile,
    mut advance: impl FnMut(u64),
) -> Result<bool> {
    let (mut a, mut b) = (Reader::whole(a).await?, Reader::whole(b).await?);
    let (mut of_a, mut of_b): (Option<Rest>, Option<Rest>) = (None, None);
    loop {
        if of_a.is_none() {
            of_a = a.next().await?.map(Rest::of);
        }
        if of_b.is_none() {
            of_b = b.next().await?.map(Rest::of);
        }
        let (Some(left), Some(right)) = (&mut of_a, &mut of_b) else {
            return Ok(of_a.is_none() && of_b.is_none());
        };
        let length = left.bytes().len().min(right.bytes().len());
        if left.bytes()[..length] != right.bytes()[..length] {
            return Ok(false);
        }
        advance(length as u64);
        of_a = of_a.and_then(|rest| rest.behind(length));
        of_b = of_b.and_then(|rest| rest.behind(length));
    }
}

/// What is left of a buffer.
struct Rest {
    buffer: Buffer,
    from: usize,
}

impl Rest {
    fn of((_, buffer): (u64, Buffer)) -> Rest {
        Rest { buffer, from: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..]
    }

    fn behind(self, length: usize) -> Option<Rest> {
        let from = self.from + length;
        (from < self.buffer.len()).then_some(Rest { from, ..self })
    }
}
