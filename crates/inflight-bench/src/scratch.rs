//! What is read and written: files of our own in a directory, removed at the end, or a file of the user's,
//! which is only read.

use std::path::{Path, PathBuf};
use std::time::Instant;

use inflight::stream::{Ordered, Reader, Writer, walk_names};
use inflight::{
    Advice, Directory, FileKind, Handle, NewFile, OpenOptions, Progress, RemoveKind, SyncScope,
};

use crate::error::{Error, Result};
use crate::plan::{BATCH_FILES, SMALL_FILE_BYTES};

/// The directory that holds all of it.
const NAME: &str = ".inflight-bench";
/// What is in it.
const CACHED: &str = "cached";
const WRITTEN: &str = "written";
const READ: &str = "read";
const SMALL: &str = "small";
/// Offsets at which samples may start, and what sizes are multiples of: the longest request.
pub(crate) const UNIT_BYTES: u64 = 16 << 20;
/// Less than this tells nothing.
pub(crate) const SPACE_BYTES_MIN: u64 = 128 << 20;
/// Bytes of the user's file that count as cached, once read.
const HOT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one write while the files are made, and how many are under way.
const REQUEST: (usize, usize) = (1 << 20, 4);

/// A file, as far as it is used.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Small files of [`SMALL_FILE_BYTES`] each, named by their numbers.
#[derive(Debug, Clone)]
pub(crate) struct SmallFiles {
    pub(crate) directory: Directory,
    pub(crate) count: u64,
}

#[derive(Debug)]
pub(crate) struct Scratch {
    /// Read for the first time, again and again.
    pub(crate) cold: Target,
    /// Stays in the page cache.
    pub(crate) hot: Target,
    /// Only in a directory of ours.
    pub(crate) write: Option<Target>,
    pub(crate) small: Option<SmallFiles>,
    /// Whether the page cache forgets the file when it is told to.
    pub(crate) forgets: bool,
    /// Where all of it is, if it is ours; locked.
    work: Option<(Directory, PathBuf)>,
}

impl Scratch {
    /// Finds or makes the files, within so many bytes; writing stops early at `until`, with what is there.
    pub(crate) async fn prepare(
        handle: &Handle,
        progress: &Progress,
        path: &Path,
        space: u64,
        until: Instant,
    ) -> Result<Scratch> {
        let about = handle.metadata(path, true).await?;
        let mut scratch = match about.kind {
            FileKind::File => Scratch::of_file(path, about.size)?,
            FileKind::Directory => {
                let (work, place) = open_work(handle, path).await?;
                match Scratch::fill(handle, progress, (work.clone(), place), space, until).await {
                    Ok(scratch) => scratch,
                    Err(error) => {
                        // The first error tells more than that of cleaning up.
                        let _ = remove_work(&work, &path.join(NAME)).await;
                        return Err(error);
                    }
                }
            }
            other => {
                let (path, kind) = (path.display(), other.name());
                let text = format!("{path} is a {kind}; name a directory, or a file to read");
                return Err(Error::Place(text));
            }
        };
        scratch.forgets = scratch.forget(handle).await? <= scratch.cold.bytes / 2;
        Ok(scratch)
    }

    fn of_file(path: &Path, size: u64) -> Result<Scratch> {
        let bytes = size - size % UNIT_BYTES;
        if bytes < 2 * UNIT_BYTES {
            let (path, least) = (path.display(), (2 * UNIT_BYTES) >> 20);
            return Err(Error::Place(format!(
                "{path} is too small to tell anything: name one of {least} MiB or more, or a directory"
            )));
        }
        let cold = Target { path: path.into(), bytes };
        let hot = Target { path: path.into(), bytes: bytes.min(HOT_BYTES_MAX) };
        Ok(Scratch { cold, hot, write: None, small: None, forgets: false, work: None })
    }

    async fn fill(
        handle: &Handle,
        progress: &Progress,
        work: (Directory, PathBuf),
        space: u64,
        until: Instant,
    ) -> Result<Scratch> {
        let place = &work.1;
        let whole = |bytes: u64, least: u64, most: u64| {
            let bytes = bytes.clamp(least, most);
            bytes - bytes % UNIT_BYTES
        };
        let count = (space / 64 / SMALL_FILE_BYTES).clamp(256, 4096) / BATCH_FILES * BATCH_FILES;
        let hot = whole(space / 16, UNIT_BYTES, HOT_BYTES_MAX);
        let write = whole(space / 6, UNIT_BYTES, 256 << 20);
        let rest = space - hot - write - count * SMALL_FILE_BYTES;
        let cold = whole(rest, 2 * UNIT_BYTES, u64::MAX);
        let small = small_files(handle, &work.0, count).await?;
        let hot = file(handle, progress, place.join(CACHED), hot, None).await?;
        let write = file(handle, progress, place.join(WRITTEN), write, None).await?;
        let cold = file(handle, progress, place.join(READ), cold, Some(until)).await?;
        work.0.sync(SyncScope::FileSystem).await?;
        let (write, small) = (Some(write), Some(small));
        Ok(Scratch { cold, hot, write, small, forgets: false, work: Some(work) })
    }

    /// Makes the page cache forget the cold file, as far as it does: how many bytes are there still.
    pub(crate) async fn forget(&self, handle: &Handle) -> Result<u64> {
        let file = handle.open(&self.cold.path, OpenOptions::reading()).await?;
        file.advise(0, self.cold.bytes, Advice::DontNeed).await?;
        Ok(file.cached_bytes(self.cold.bytes).await?)
    }

    /// Makes it forget the small files.
    pub(crate) async fn forget_small(&self) -> Result<()> {
        /// Files under way.
        const DEPTH: usize = 32;
        let Some(small) = &self.small else { return Ok(()) };
        let mut under_way = Ordered::new(DEPTH);
        for number in 0..small.count {
            let directory = small.directory.clone();
            under_way.push(small.directory.handle().spawn(async move {
                let file = directory.open(number.to_string(), OpenOptions::reading()).await?;
                file.advise(0, SMALL_FILE_BYTES, Advice::DontNeed).await
            }));
            if !under_way.has_room()
                && let Some(done) = under_way.next().await
            {
                done?;
            }
        }
        while let Some(done) = under_way.next().await {
            done?;
        }
        Ok(())
    }

    /// Makes it forget what was written.
    pub(crate) async fn forget_written(&self, handle: &Handle) -> Result<()> {
        let Some(write) = &self.write else { return Ok(()) };
        let file = handle.open(&write.path, OpenOptions::reading()).await?;
        Ok(file.advise(0, write.bytes, Advice::DontNeed).await?)
    }

    /// Brings the hot file there, where it is not.
    pub(crate) async fn warm(&self, handle: &Handle) -> Result<()> {
        let file = handle.open(&self.hot.path, OpenOptions::reading()).await?;
        if file.cached_bytes(self.hot.bytes).await? < self.hot.bytes {
            let mut reader = Reader::new(file, 0..self.hot.bytes).requests(REQUEST.0, REQUEST.1);
            while reader.next().await?.is_some() {}
        }
        Ok(())
    }

    /// Removes what is ours.
    pub(crate) async fn remove(self) -> Result<()> {
        match self.work {
            Some((work, place)) => remove_work(&work, &place).await,
            None => Ok(()),
        }
    }

    /// Whether the files are ours, so that nobody else cuts them short.
    pub(crate) fn is_own(&self) -> bool {
        self.work.is_some()
    }
}

/// Makes the directory, or takes one that somebody left who is gone.
async fn open_work(handle: &Handle, path: &Path) -> Result<(Directory, PathBuf)> {
    let place = path.join(NAME);
    match handle.create_directory(&place, 0o700).await {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let options = OpenOptions::directory().no_follow();
    let work = handle.open_directory(path).await?.open_directory(NAME, options).await?;
    match work.lock().await {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let place = place.display();
            let text =
                format!("another inflight bench is at work in {place}; wait for it or end it");
            return Err(Error::Place(text));
        }
        // Where there are no locks nobody else is looked for.
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
        other => other?,
    }
    empty(&work).await?;
    Ok((work, place))
}

/// Whether we made a thing of that path below the directory.
fn is_ours(path: &Path) -> bool {
    let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap_or_default()).collect();
    match names[..] {
        [CACHED | WRITTEN | READ | SMALL] => true,
        [SMALL, number] => !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

/// Removes what is in it, if all of that is ours.
async fn empty(work: &Directory) -> Result<()> {
    let entries = walk_names(work).await?;
    if let Some(other) = entries.iter().find(|entry| !is_ours(&entry.path)) {
        let (place, other) = (work.path().display(), other.path.display());
        let text =
            format!("{place} holds {other}, which inflight bench did not make: move it away");
        return Err(Error::Place(text));
    }
    // Deepest first.
    for entry in entries.into_iter().rev() {
        let kind = match entry.kind {
            FileKind::Directory => RemoveKind::Directory,
            _ => RemoveKind::File,
        };
        work.remove(&entry.path, kind).await?;
    }
    Ok(())
}

async fn remove_work(work: &Directory, place: &Path) -> Result<()> {
    empty(work).await?;
    Ok(work.handle().remove(place, RemoveKind::Directory).await?)
}

/// Numbers that look like chance.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Bytes that no device can make smaller.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(count).collect()
    }
}

/// A file of chance, of so many bytes, or of what was written by `until` and tells enough.
async fn file(
    handle: &Handle,
    progress: &Progress,
    path: PathBuf,
    bytes: u64,
    until: Option<Instant>,
) -> Result<Target> {
    let file = handle.open(&path, OpenOptions::creating(0o600)).await?;
    let mut chance = Chance::new(bytes);
    let mut block = chance.bytes(REQUEST.0);
    let mut writer = Writer::new(file, Some(bytes)).await?.requests(REQUEST.0, REQUEST.1);
    while writer.position() < bytes {
        if progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let position = writer.position();
        let is_enough = position % UNIT_BYTES == 0 && position >= 4 * UNIT_BYTES;
        if is_enough && until.is_some_and(|until| Instant::now() > until) {
            break;
        }
        // Each block is another one, down to the smallest that devices look at.
        for word in block.chunks_exact_mut(512) {
            word[..8].copy_from_slice(&chance.next().to_le_bytes());
        }
        writer.write(&block).await?;
    }
    let bytes = writer.position();
    let file = writer.finish().await?;
    file.truncate(bytes).await?;
    file.sync(SyncScope::Data).await?;
    Ok(Target { path, bytes })
}

async fn small_files(handle: &Handle, work: &Directory, count: u64) -> Result<SmallFiles> {
    work.create_directory(SMALL, 0o700).await?;
    let directory = work.open_directory(SMALL, OpenOptions::directory()).await?;
    let bytes = SMALL_FILE_BYTES as usize;
    let content = Chance::new(count).bytes(bytes * BATCH_FILES as usize);
    for first in (0..count).step_by(BATCH_FILES as usize) {
        let mut buffer = handle.buffer(content.len()).await;
        buffer.extend_from_slice(&content);
        let file = |at: u64| {
            let name = (first + at).to_string();
            NewFile::new(name.as_ref(), 0o600, at as usize * bytes, bytes)
        };
        let files: std::io::Result<Vec<NewFile>> = (0..BATCH_FILES).map(file).collect();
        let files = files.expect("digits are names");
        directory.write_files(files, buffer).await?;
    }
    Ok(SmallFiles { directory, count })
}
