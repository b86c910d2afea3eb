//! Small files, many in one operation.
//!
//! Whatever goes wrong in it, the operation says with which file; that one is then tried by itself, and
//! those behind it together again.

use std::borrow::Cow;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::{CopiedFile, Directory, Error, SyncScope};

use super::directory::{Dir, Pair, name_it};
use super::file::copy_one;
use super::item::Item;
use super::queue::Queue;

/// Copies small files of one directory.
pub(super) async fn copy(queue: &Queue, dir: &Arc<Dir>, pair: &Arc<Pair>, items: Vec<Item>) {
    let mut items = items;
    while !items.is_empty() && !queue.state.is_stopped() {
        let batch = Batch::new(queue, dir, pair, items);
        let (alone, rest) = batch.copy().await;
        for item in alone {
            copy_one(queue, dir, pair, item).await;
        }
        items = rest;
    }
}

struct Batch<'a> {
    queue: &'a Queue,
    dir: &'a Arc<Dir>,
    pair: &'a Arc<Pair>,
    items: Vec<Item>,
    /// Where they are made, if that is elsewhere, and under which names.
    elsewhere: Option<(Directory, Vec<PathBuf>)>,
}

impl<'a> Batch<'a> {
    fn new(
        queue: &'a Queue,
        dir: &'a Arc<Dir>,
        pair: &'a Arc<Pair>,
        items: Vec<Item>,
    ) -> Batch<'a> {
        let (works, names): (Vec<_>, Vec<_>) =
            items.iter().filter_map(|_| dir.root.elsewhere()).unzip();
        let elsewhere = works.into_iter().next().map(|work| (work, names));
        Batch { queue, dir, pair, items, elsewhere }
    }

    /// Gives those that are to be tried alone, and those to be tried again together.
    async fn copy(mut self) -> (Vec<Item>, Vec<Item>) {
        let state = &self.queue.state;
        let longest = self.items.iter().map(|item| item.metadata.size).max().unwrap_or(0);
        let buffer = state.handle.buffer(longest as usize + 1).await;
        let files = (0..self.items.len()).map(|number| self.file(number)).collect();
        let to = self.elsewhere.as_ref().map_or(self.pair.target(), |(work, _)| work);
        match self.pair.source.copy_files(to, files, buffer).await {
            Ok(files) => {
                let lost = files.iter().map(|file| file.attributes_lost).sum();
                state.keep.lose_attributes(lost);
                let copied: Vec<bool> = files.iter().map(|file| file.copied).collect();
                self.settle(&copied).await;
                let mut copied = copied.into_iter();
                self.items.retain(|_| !copied.next().unwrap_or(false));
                (self.items, Vec::new())
            }
            Err(error) => {
                let at = self.place_of(&error).unwrap_or(0);
                self.settle(&vec![true; at]).await;
                let rest = self.items.split_off(at + 1);
                (self.items.split_off(at), rest)
            }
        }
    }

    fn file(&self, number: usize) -> CopiedFile {
        let Item { name, metadata, .. } = &self.items[number];
        let kept = self.queue.state.keep.metadata_of(metadata);
        let file = CopiedFile::new(name, metadata.size as usize, kept);
        let file = file.expect("a listed name holds no NUL");
        let target = self.elsewhere.as_ref().map(|(_, names)| {
            let name = CString::new(names[number].as_os_str().as_bytes());
            Cow::Owned(name.expect("a number holds no NUL"))
        });
        CopiedFile { target, ..file }
    }

    /// Which file an error is about.
    fn place_of(&self, error: &Error) -> Option<usize> {
        let name = Path::new(error.path()?.file_name()?);
        match (&self.elsewhere, error.operation()) {
            (Some((_, names)), "write") => names.iter().position(|other| other == name),
            _ => self.items.iter().position(|item| item.name == name),
        }
    }

    /// Gives files that were copied their names, where those are others, and counts them.
    async fn settle(&self, copied: &[bool]) {
        let state = &self.queue.state;
        if let Some((work, _)) = &self.elsewhere
            && state.options.sync
            && let Err(error) = work.sync(SyncScope::FileSystem).await
        {
            return state.trouble(error.into());
        }
        for (number, item) in self.items.iter().enumerate() {
            if !copied.get(number).copied().unwrap_or(false) {
                continue;
            }
            if let Some((work, names)) = &self.elsewhere
                && let Err(error) = name_it(self.pair, work, &names[number], self.dir, item).await
            {
                state.trouble(error);
                continue;
            }
            state.count_file(&item.metadata);
        }
    }
}
