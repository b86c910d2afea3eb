//! What is read and written: files of our own in a directory, removed at the end, or a file of the user's,
//! which is only read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inflight::stream::{Ordered, Reader, Writer, walk_names};
use inflight::{
    Advice, DirectFile, Directory, File, FileKind, FilePiece, Handle, Metadata, NewFile,
    OpenOptions, Progress, RemoveKind, SyncScope,
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
const WRITE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one write while the files are made, and how many are under way.
const REQUEST: (usize, usize) = (1 << 20, 4);

/// A file, as far as it is used.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Below the directory of ours, where there is one.
    path: PathBuf,
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
    /// Where all of it is, if it is ours.
    work: Option<Work>,
}

impl Scratch {
    /// Finds or makes the files, within so many bytes and about so much time.
    pub(crate) async fn prepare(
        handle: &Handle,
        progress: &Progress,
        path: &Path,
        space: u64,
        time: Duration,
    ) -> Result<Scratch> {
        let about = handle.metadata(path, true).await?;
        let mut scratch = match about.kind {
            FileKind::File => Scratch::of_file(path, about.size)?,
            FileKind::Directory => {
                let work = Work::open(handle, path).await?;
                match Scratch::fill(handle, progress, work.clone(), space, time).await {
                    Ok(scratch) => scratch,
                    Err(error) => return Err(work.remove_after(error).await),
                }
            }
            other => {
                let (path, kind) = (path.display(), other.name());
                let text = format!("{path} is a {kind}; name a directory, or a file to read");
                return Err(Error::Place(text));
            }
        };
        match scratch.forget(handle).await {
            Ok(left) => scratch.forgets = left <= scratch.cold.bytes / 2,
            Err(error) => return Err(scratch.remove_after(error).await),
        }
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
        let (write, small, work) = (None, None, None);
        Ok(Scratch { cold, hot, write, small, forgets: false, work })
    }

    async fn fill(
        handle: &Handle,
        progress: &Progress,
        work: Work,
        space: u64,
        time: Duration,
    ) -> Result<Scratch> {
        let begin = Instant::now();
        let Sizes { count, hot, write, cold } = Sizes::within(space);
        let small = small_files(handle, &work.directory, count).await?;
        let file = async |name: &str, bytes, part: f64| {
            let until = begin + time.mul_f64(part);
            file(progress, &work.directory, name, bytes, until).await
        };
        let hot = file(CACHED, hot, 0.1).await?;
        let write = file(WRITTEN, write, 0.4).await?;
        let cold = file(READ, cold, 1.0).await?;
        work.directory.sync(SyncScope::FileSystem).await?;
        let (write, small) = (Some(write), Some(small));
        Ok(Scratch { cold, hot, write, small, forgets: false, work: Some(work) })
    }

    /// Bytes of the files that were made.
    pub(crate) fn made_bytes(&self) -> u64 {
        let small = self.small.as_ref().map_or(0, |small| small.count * SMALL_FILE_BYTES);
        match (&self.work, &self.write) {
            (Some(_), Some(write)) => self.cold.bytes + self.hot.bytes + write.bytes + small,
            _ => 0,
        }
    }

    /// Opens one of the files, for whichever engine.
    pub(crate) async fn open(
        &self,
        handle: &Handle,
        target: &Target,
        options: OpenOptions,
    ) -> Result<File> {
        Ok(match &self.work {
            Some(work) => work.on(handle).await?.open(&target.path, options.no_follow()).await?,
            None => handle.open(&target.path, options).await?,
        })
    }

    /// The same, around the page cache.
    pub(crate) async fn open_direct(
        &self,
        handle: &Handle,
        target: &Target,
        options: OpenOptions,
    ) -> Result<DirectFile> {
        Ok(match &self.work {
            Some(work) => {
                let directory = work.on(handle).await?;
                directory.open_direct(&target.path, options.no_follow()).await?
            }
            None => handle.open_direct(&target.path, options).await?,
        })
    }

    /// Makes the page cache forget the cold file, as far as it does: how many bytes are there still.
    pub(crate) async fn forget(&self, handle: &Handle) -> Result<u64> {
        let file = self.open(handle, &self.cold, OpenOptions::reading()).await?;
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

    /// Brings the small files there.
    pub(crate) async fn warm_small(&self) -> Result<()> {
        let Some(small) = &self.small else { return Ok(()) };
        let directory = &small.directory;
        let mut buffer = directory.handle().buffer((SMALL_FILE_BYTES * BATCH_FILES) as usize).await;
        for first in (0..small.count).step_by(BATCH_FILES as usize) {
            buffer.clear();
            let read = directory.read_files(batch(first), OpenOptions::reading(), buffer).await?;
            buffer = read.1;
        }
        Ok(())
    }

    /// Makes it forget what was written.
    pub(crate) async fn forget_written(&self, handle: &Handle) -> Result<()> {
        let Some(write) = &self.write else { return Ok(()) };
        let file = self.open(handle, write, OpenOptions::reading()).await?;
        Ok(file.advise(0, write.bytes, Advice::DontNeed).await?)
    }

    /// Brings the hot file there, where it is not.
    pub(crate) async fn warm(&self, handle: &Handle) -> Result<()> {
        let file = self.open(handle, &self.hot, OpenOptions::reading()).await?;
        if file.cached_bytes(self.hot.bytes).await? < self.hot.bytes {
            let mut reader = Reader::new(file, 0..self.hot.bytes).requests(REQUEST.0, REQUEST.1);
            while reader.next().await?.is_some() {}
        }
        Ok(())
    }

    /// Removes what is ours.
    pub(crate) async fn remove(self) -> Result<()> {
        match self.work {
            Some(work) => work.remove().await,
            None => Ok(()),
        }
    }

    /// The same, because of an error, to which what is left behind is added.
    pub(crate) async fn remove_after(self, error: Error) -> Error {
        match self.work {
            Some(work) => work.remove_after(error).await,
            None => error,
        }
    }

    /// Whether the files are ours, so that nobody else cuts them short.
    pub(crate) fn is_own(&self) -> bool {
        self.work.is_some()
    }
}

/// What reads [`BATCH_FILES`] small files at once, from that number on.
pub(crate) fn batch(first: u64) -> Vec<FilePiece> {
    let length = SMALL_FILE_BYTES as usize;
    let piece = |number: u64| FilePiece::new(number.to_string().as_ref(), 0, length);
    let pieces: std::io::Result<Vec<_>> = (first..first + BATCH_FILES).map(piece).collect();
    pieces.expect("digits are names")
}

/// Bytes of the files, and how many small ones.
#[derive(Debug, PartialEq, Eq)]
struct Sizes {
    count: u64,
    hot: u64,
    write: u64,
    cold: u64,
}

impl Sizes {
    fn within(space: u64) -> Sizes {
        let space = space.max(SPACE_BYTES_MIN);
        let whole = |bytes: u64, most: u64| {
            let bytes = bytes.clamp(UNIT_BYTES, most);
            bytes - bytes % UNIT_BYTES
        };
        let count = (space / 64 / SMALL_FILE_BYTES).clamp(256, 4096) / BATCH_FILES * BATCH_FILES;
        let (hot, write) = (whole(space / 16, HOT_BYTES_MAX), whole(space / 6, WRITE_BYTES_MAX));
        let cold = whole(space - hot - write - count * SMALL_FILE_BYTES, u64::MAX);
        Sizes { count, hot, write, cold }
    }
}

/// The directory that holds all of it, locked.
#[derive(Debug, Clone)]
struct Work {
    directory: Directory,
    place: PathBuf,
    about: Metadata,
}

impl Work {
    /// Makes the directory, or takes one that we left when we were killed.
    async fn open(handle: &Handle, path: &Path) -> Result<Work> {
        let place = path.join(NAME);
        let is_new = match handle.create_directory(&place, 0o700).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            other => other.map(|()| true)?,
        };
        let opened = Work::take(handle, path, &place).await;
        if opened.is_err() && is_new {
            // It is empty; what went wrong is told.
            let _ = handle.remove(&place, RemoveKind::Directory).await;
        }
        opened
    }

    async fn take(handle: &Handle, path: &Path, place: &Path) -> Result<Work> {
        let refuse = |why: &str| Err(Error::Place(format!("{} {why}", place.display())));
        let options = OpenOptions::directory().no_follow();
        let directory = match handle.open_directory(path).await?.open_directory(NAME, options).await
        {
            Err(error) if is_no_directory(&error) => {
                return refuse("is no directory, and in the way: move it");
            }
            other => other?,
        };
        let about = directory.metadata(".", false).await?;
        // Whoever else may write there could put something in our way.
        if about.owner.user != rustix::process::geteuid().as_raw() || about.mode & 0o022 != 0 {
            return refuse("is somebody else's, or may be written by others: move it");
        }
        match directory.lock().await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return refuse(
                    "is in use: another inflight bench is at work there; wait for it or end it",
                );
            }
            // Where there are no locks nobody else is looked for.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            other => other?,
        }
        empty(&directory).await?;
        Ok(Work { directory, place: place.into(), about })
    }

    /// The directory for another engine.
    async fn on(&self, handle: &Handle) -> Result<Directory> {
        let directory = handle.open_directory(&self.place).await?;
        match directory.metadata(".", false).await?.same_file(&self.about) {
            true => Ok(directory),
            false => {
                let text = format!("{} was moved meanwhile: leave it alone", self.place.display());
                Err(Error::Place(text))
            }
        }
    }

    async fn remove(&self) -> Result<()> {
        empty(&self.directory).await?;
        Ok(self.directory.handle().remove(&self.place, RemoveKind::Directory).await?)
    }

    /// The error, to which what is left behind is added.
    async fn remove_after(&self, error: Error) -> Error {
        match self.remove().await {
            Ok(()) => error,
            Err(also) => Error::Place(format!(
                "{error}; and {} stays behind, remove it: {also}",
                self.place.display()
            )),
        }
    }
}

/// Whether the error says that there is something else, or a link.
fn is_no_directory(error: &inflight::Error) -> bool {
    let link = rustix::io::Errno::LOOP.raw_os_error();
    error.kind() == ErrorKind::NotADirectory || error.raw_os_error() == Some(link)
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

/// A file of chance, of so many bytes, or of what is durable by `until`.
async fn file(
    progress: &Progress,
    directory: &Directory,
    name: &str,
    bytes: u64,
    until: Instant,
) -> Result<Target> {
    let file = directory.open(name, OpenOptions::creating(0o600)).await?;
    let mut chance = Chance::new(bytes);
    let mut block = chance.bytes(REQUEST.0);
    let mut writer = Writer::new(file.clone(), Some(bytes)).await?.requests(REQUEST.0, REQUEST.1);
    while writer.position() < bytes {
        if progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        // Each block is another one, down to the smallest that devices look at.
        for word in block.chunks_exact_mut(512) {
            word[..8].copy_from_slice(&chance.next().to_le_bytes());
        }
        writer.write(&block).await?;
        if writer.position().is_multiple_of(UNIT_BYTES) {
            // The page cache takes everything at once; what it still has to write shows only now.
            file.sync(SyncScope::Data).await?;
            if Instant::now() > until {
                break;
            }
        }
    }
    let bytes = writer.position();
    writer.finish().await?.sync(SyncScope::Data).await?;
    Ok(Target { path: name.into(), bytes })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_fit_into_the_space() {
        for mib in [0, 1, 128, 129, 200, 1000, 1536, 4096, 1 << 20] {
            let space = (mib << 20).max(SPACE_BYTES_MIN);
            let Sizes { count, hot, write, cold } = Sizes::within(mib << 20);
            assert!(count * SMALL_FILE_BYTES + hot + write + cold <= space, "{mib} MiB");
            assert!(cold >= 2 * UNIT_BYTES && hot >= UNIT_BYTES && write >= UNIT_BYTES);
            assert!([hot, write, cold].iter().all(|bytes| bytes.is_multiple_of(UNIT_BYTES)));
            assert!(count.is_multiple_of(BATCH_FILES) && count > 0);
        }
    }

    #[test]
    fn only_what_we_made_is_ours() {
        for ours in ["read", "cached", "written", "small", "small/0", "small/4095"] {
            assert!(is_ours(ours.as_ref()), "{ours}");
        }
        for other in ["reads", "small/a", "small/1/2", "read/1", "small/", "notes.txt", ".DS_Store"]
        {
            assert_eq!(is_ours(other.as_ref()), other == "small/", "{other}");
        }
    }
}
