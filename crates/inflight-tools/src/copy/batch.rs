//! Small files, many in one operation: one reads them into a buffer, one makes their copies of it.
//!
//! Whatever goes wrong in it, the operation says with which file; that one is then tried by itself, and
//! the rest again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::{Buffer, FilePiece, NewFile, OpenOptions, SyncScope};

use super::directory::{Dir, Pair};
use super::file::copy_one;
use super::item::Item;
use super::keep::{Attributes, Keep};
use super::queue::Queue;
use crate::error::Result;

/// Files that were read.
struct Read {
    buffer: Buffer,
    /// Each with its place in the buffer.
    files: Vec<(Item, usize, Attributes)>,
}

/// Copies small files of one directory.
pub(super) async fn copy(queue: &Queue, dir: &Arc<Dir>, pair: &Arc<Pair>, items: Vec<Item>) {
    let mut items = items;
    while !items.is_empty() && !queue.state.is_stopped() {
        let (read, alone, rest) = read(queue, pair, items).await;
        if let Some(read) = read {
            write(queue, dir, pair, read).await;
        }
        if let Some(item) = alone {
            copy_one(queue, dir, pair, item).await;
        }
        items = rest;
    }
}

/// Reads files up to one that is not as it was listed, or cannot be read: gives that too, and those
/// behind it.
async fn read(
    queue: &Queue,
    pair: &Pair,
    mut items: Vec<Item>,
) -> (Option<Read>, Option<Item>, Vec<Item>) {
    let bytes: usize = items.iter().map(|item| item.metadata.size as usize).sum();
    let piece = |item: &Item| {
        let piece = FilePiece::new(&item.name, 0, item.metadata.size as usize);
        let piece = piece.expect("a listed name holds no NUL");
        FilePiece { expect_end: true, attributes: Some(Vec::new()), ..piece }
    };
    let pieces = items.iter().map(piece).collect();
    let buffer = queue.state.handle.buffer(bytes.max(1)).await;
    let options = OpenOptions::reading().no_follow();
    let (pieces, buffer) = match pair.source.read_files(pieces, options, buffer).await {
        Ok(read) => read,
        Err(error) => {
            // Alone, it fails again, or it was chance. What was read before it is read again.
            let at = place_of(&error, items.iter().map(|item| item.name.as_path()));
            let alone = items.remove(at.unwrap_or(0));
            return (None, Some(alone), items);
        }
    };
    let mut files = Vec::with_capacity(items.len());
    let mut start = 0;
    let mut items = items.into_iter();
    for (piece, item) in pieces.into_iter().zip(items.by_ref()) {
        if piece.read < piece.length || piece.goes_on {
            let read = (!files.is_empty()).then_some(Read { buffer, files });
            return (read, Some(item), items.collect());
        }
        files.push((item, start, piece.attributes.unwrap_or_default()));
        start += piece.length;
    }
    (Some(Read { buffer, files }), None, Vec::new())
}

/// Which of these names an error is about.
fn place_of<'a>(
    error: &inflight::Error,
    mut names: impl Iterator<Item = &'a Path>,
) -> Option<usize> {
    let name = Path::new(error.path()?.file_name()?);
    names.position(|other| other == name)
}

/// Makes the copies. One that cannot be made with the others is tried by itself.
async fn write(queue: &Queue, dir: &Arc<Dir>, pair: &Arc<Pair>, read: Read) {
    let Read { buffer, mut files } = read;
    // Each with where it is made, if that is elsewhere.
    let elsewhere: Vec<_> = files.iter().filter_map(|_| dir.root.elsewhere()).collect();
    let names: Vec<PathBuf> = match elsewhere.is_empty() {
        true => files.iter().map(|(item, ..)| item.name.clone()).collect(),
        false => elsewhere.iter().map(|(_, name)| name.clone()).collect(),
    };
    let new = files.iter().zip(&names).map(|((item, start, attributes), name)| {
        new_file(queue, dir, item, name, *start, attributes)
    });
    let work = elsewhere.first().map(|(work, _)| (work, names.as_slice()));
    let place = work.map_or(pair.target(), |(work, _)| work);
    let failed = place.write_files(new.collect(), buffer).await.err();
    let made = match &failed {
        None => files.len(),
        Some(error) => place_of(error, names.iter().map(PathBuf::as_path)).unwrap_or(0),
    };
    let rest = files.split_off(made);
    settle(queue, dir, pair, &files, work).await;
    let Some(error) = failed else { return };
    queue.state.keep.gives_up_owners(&error);
    // The bytes went with the operation that failed: those behind are read again.
    let mut rest = rest.into_iter().map(|(item, ..)| item);
    if let Some(item) = rest.next() {
        copy_one(queue, dir, pair, item).await;
    }
    let rest: Vec<Item> = rest.collect();
    if !rest.is_empty() {
        Box::pin(copy(queue, dir, pair, rest)).await;
    }
}

fn new_file(
    queue: &Queue,
    dir: &Dir,
    item: &Item,
    name: &Path,
    start: usize,
    attributes: &Attributes,
) -> NewFile {
    let keep = &queue.state.keep;
    let length = item.metadata.size as usize;
    let new = NewFile::new(name, keep.mode_of(&item.metadata), start, length);
    NewFile {
        owner: keep.owner_of(&item.metadata, dir.holder),
        times: Some(Keep::times_of(&item.metadata)),
        attributes: attributes.clone(),
        ..new.expect("a listed name holds no NUL")
    }
}

/// Gives files that were made their names, where those are others, and counts them.
async fn settle(
    queue: &Queue,
    dir: &Dir,
    pair: &Pair,
    files: &[(Item, usize, Attributes)],
    elsewhere: Option<(&inflight::Directory, &[PathBuf])>,
) {
    let state = &queue.state;
    if let Some((work, _)) = elsewhere
        && state.options.sync
        && let Err(error) = work.sync(SyncScope::FileSystem).await
    {
        return state.trouble(error.into());
    }
    for (number, (item, ..)) in files.iter().enumerate() {
        if let Some((work, names)) = elsewhere
            && let Err(error) = name_it(pair, work, &names[number], dir, item).await
        {
            state.trouble(error);
            continue;
        }
        state.keep.note_owner(&item.metadata);
        state.tally.files.add(1);
        state.tally.bytes.add(item.metadata.size);
        state.progress.advance(item.metadata.size);
    }
}

/// Renames what was made in a work directory to what it is to be.
pub(super) async fn name_it(
    pair: &Pair,
    work: &inflight::Directory,
    made: &Path,
    dir: &Dir,
    item: &Item,
) -> Result<()> {
    use inflight::{At, Error, Operation};
    let at = |directory: &inflight::Directory, path: &Path| {
        At::new(Some(directory.descriptor()), path)
            .map_err(|error| Error::new("rename", Some(path.into()), error))
    };
    let (from, to) = (at(work, made)?, at(pair.target(), dir.root.target_name(&item.name))?);
    let replace = item.existing.is_some();
    work.handle().submit(Operation::Rename { from, to, replace }).await?;
    Ok(())
}
