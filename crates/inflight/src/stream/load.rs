//! A file in memory, filling in the background from the moment it is asked for.
//!
//! What is large and not in the page cache is read around it, straight into its place, with several
//! requests under way; what is there is copied from there. Memory counts against the engine's budget:
//! loads wait until there is room, in the order in which they were asked for, so any number of them can
//! be asked for at once by whoever uses and drops them in that order. Where one takes its time to be opened,
//! on a disk that is slow, others go before it, into a part of the memory that is never needed to bring it
//! to its turn. Of those that have room, some at a time read from one device, and one where that is rotational.
//!
//! Files are mapped only where somebody gave their word for them ([`LoadOptions`]): a slice of a mapped file changes
//! when the file does, and ends the process when the file is cut short.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use super::any_file::AnyFile;
use super::ordered::Ordered;
use super::reader::Reader;
use super::{DEPTH, REQUEST_BYTES};
use crate::budget::{Budget, Reservation, Reserve};
use crate::buffer::{Arena, ArenaView, BLOCK_BYTES, Buffer};
use crate::device::DeviceKind;
use crate::error::{Error, Result};
use crate::file::File;
use crate::handle::Handle;
use crate::metadata::FileKind;
use crate::operation::OpenOptions;
use crate::pending::Pending;
use crate::task::Task;

/// Files below this are read through the page cache.
const DIRECT_BYTES_MIN: u64 = 1 << 20;
/// Of a budget of so many bytes, those that loads may take before their turn. None of one that has little more
/// than what reading a single file takes.
pub(crate) const fn bytes_ahead(limit: u64) -> u64 {
    const PART: u64 = 8;
    const LIMIT_MIN: u64 = 4 * REQUEST_BYTES as u64;
    if limit < LIMIT_MIN { 0 } else { limit / PART }
}
/// Memory that is made ready by one operation.
const POPULATED_BYTES: usize = 4 << 20;
/// Below so many of these a read is what makes it ready.
const POPULATED_STEPS_MIN: usize = 4;
/// Of a mapped file, what is brought by one operation.
const MAPPED_BYTES: usize = 64 << 20;
/// How often a direct read may end inside a block before that is an error.
const READS_IN_VAIN_MAX: u32 = 16;

/// A file that is being read into memory, as a whole.
///
/// ```
/// # use inflight::Engine;
/// # fn main() -> inflight::Result<()> {
/// # let engine = Engine::new()?;
/// # engine.block_on(async {
/// let mut load = engine.load("Cargo.toml"); // it begins here
/// let soon = load.filled().len(); // what is there so far, from the front
/// let bytes = load.ready().await?;
/// assert!(bytes.starts_with(b"[package]") && bytes.len() >= soon);
/// # inflight::Result::Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
///
/// One that takes more than seven eighths of the budget counts as these, and the engine takes so much more.
///
/// Dropping it at any time stops it and frees its memory as soon as the system is done with that. A file
/// has the size that it has when it is opened: what is appended later is not read, and one that is cut
/// short ends where it ends, or has zeros behind that where the cut met a read. What has no size
/// (`/proc`) is read to its end.
pub struct Load {
    path: PathBuf,
    shared: Arc<Shared>,
    /// Until its end was seen.
    task: Option<Task<Result<()>>>,
    failed: bool,
}

/// How files are loaded: they are read, if nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    mapping: Mapping,
}

/// Which files are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mapping {
    #[default]
    None,
    /// Those from [`DIRECT_BYTES_MIN`] on that the page cache has.
    WhereCached,
    All,
}

impl LoadOptions {
    /// Files are read.
    #[must_use]
    pub const fn new() -> LoadOptions {
        LoadOptions { mapping: Mapping::None }
    }

    /// What is better is done for each file: those from 1 MiB on that the page cache has as a whole are mapped, which
    /// copies nothing and takes none of the engine's memory; others are read.
    ///
    /// # Safety
    /// As long as a [`Load`] of any file that these options were ever used for lives, nobody changes or shortens that
    /// file: its bytes would change while they are borrowed, and to look at some that are cut off ends the process.
    /// So does looking at some that the page cache gave up, where the disk fails to bring them again.
    #[must_use]
    pub const unsafe fn mapping_what_is_cached(self) -> LoadOptions {
        LoadOptions { mapping: Mapping::WhereCached }
    }

    /// All files are mapped that can be, whatever they are, and brought into the page cache.
    ///
    /// # Safety
    /// As for [`LoadOptions::mapping_what_is_cached`].
    #[must_use]
    pub const unsafe fn mapping(self) -> LoadOptions {
        LoadOptions { mapping: Mapping::All }
    }
}

/// What the task tells.
#[derive(Default)]
struct Shared {
    /// Set once there is memory for it.
    view: OnceLock<ArenaView>,
    /// Set at the end; whether that was a good one.
    whole: OnceLock<bool>,
    /// What it holds of the memory for those that go before their turn, if it did.
    ahead: OnceLock<Reservation>,
    is_mapped: AtomicBool,
}

impl Handle {
    /// Begins to read a file into memory, as a whole.
    pub fn load(&self, path: impl AsRef<Path>) -> Load {
        self.load_with(path, LoadOptions::new())
    }

    /// The same, as told.
    pub fn load_with(&self, path: impl AsRef<Path>, options: LoadOptions) -> Load {
        let (path, shared) = (path.as_ref().to_path_buf(), Arc::<Shared>::default());
        let (handle, name, seen) = (self.clone(), path.clone(), shared.clone());
        // Its place in the line for memory is that of its making.
        let mut turn = self.shared.loads.reserve(1);
        turn.take_place();
        let task = self.spawn(async move {
            let outcome = load(&handle, &name, options, turn, &seen).await;
            let _ = seen.whole.set(outcome.is_ok());
            outcome
        });
        Load { path, shared, task: Some(task), failed: false }
    }
}

impl Load {
    /// The path it is read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has ended, well or not.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.whole.get().is_some()
    }

    /// Whether it is mapped, as far as that is known.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.shared.is_mapped.load(Relaxed)
    }

    /// What is there so far, from the front.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.shared.view.get().map_or(&[], |view| view)
    }

    /// All of it, if it has ended well.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        (self.shared.whole.get() == Some(&true)).then(|| self.filled())
    }

    /// All of it, once it is there.
    ///
    /// # Errors
    /// The system's; `OutOfMemory` where the system has no memory; `IsADirectory` for a directory.
    pub async fn ready(&mut self) -> Result<&[u8]> {
        if let Some(task) = &mut self.task {
            let outcome = task.await;
            self.task = None;
            self.failed = outcome.is_err();
            outcome?;
        }
        if self.failed {
            let error = io::Error::other("it failed before; the first call said why");
            return Err(Error::new("load", Some(self.path.clone()), error));
        }
        Ok(self.filled())
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("path", &self.path)
            .field("filled", &self.filled().len())
            .field("whole", &self.shared.whole.get())
            .finish()
    }
}

async fn load(
    handle: &Handle,
    path: &Path,
    options: LoadOptions,
    turn: Reserve,
    shared: &Shared,
) -> Result<()> {
    let file = handle.open(path, OpenOptions::reading()).await?;
    let metadata = file.metadata().await?;
    if metadata.kind == FileKind::Directory {
        return Err(failed(path, ErrorKind::IsADirectory.into()));
    }
    let size = usize::try_from(metadata.size)
        .ok()
        .filter(|size| *size <= isize::MAX as usize - BLOCK_BYTES)
        .ok_or_else(|| failed(path, ErrorKind::OutOfMemory.into()))?;
    if size == 0 {
        return load_without_size(handle, file, turn, shared).await;
    }
    let turn = match options.mapping {
        Mapping::None => turn,
        _ => match map(handle, &file, (size, metadata.device), options, turn, shared).await? {
            Some(turn) => turn,
            None => return Ok(()),
        },
    };
    let device = turns_of(handle, path, metadata.device).await;
    // The memory first: who waits for it holds up nobody's device.
    let room = room(handle, turn, size.next_multiple_of(BLOCK_BYTES), shared).await;
    let mut arena = room.map_err(|error| failed(path, error))?;
    let _ = shared.view.set(arena.view());
    let _turn = device.reserve(1).await;
    let _ahead = populate_ahead(handle, &arena, size);
    let source = best_source(handle, path, file, metadata.size).await?;
    let mut parts = Ordered::new(DEPTH);
    let (mut begun, mut done) = (0, 0);
    loop {
        while parts.has_room() && begun < size {
            let length = (size - begun).min(REQUEST_BYTES);
            let buffer = arena.buffer(length.next_multiple_of(BLOCK_BYTES));
            parts.push(read(&source, buffer, length, begun));
            begun += length;
        }
        let Some(part) = parts.next().await else { return Ok(()) };
        let length = (size - done).min(REQUEST_BYTES);
        let part = complete(&source, part?, length, done).await?;
        let is_short = part.len() < length;
        arena.settle(part);
        if is_short {
            return Ok(());
        }
        done += length;
    }
}

/// Maps a file that is to be, and has all of it brought. Gives its turn back where it is to be read, as the system
/// does not do that.
async fn map(
    handle: &Handle,
    file: &File,
    (size, device): (usize, u64),
    options: LoadOptions,
    turn: Reserve,
    shared: &Shared,
) -> Result<Option<Reserve>> {
    let path = file.path();
    let mut turn_of_device = None;
    if options.mapping == Mapping::WhereCached {
        let bytes = size as u64;
        if bytes < DIRECT_BYTES_MIN || file.cached_bytes(bytes).await? < bytes {
            return Ok(Some(turn));
        }
    } else {
        // It may have to be read.
        turn_of_device = Some(turns_of(handle, path, device).await.reserve(1).await);
    }
    // SAFETY: whoever made such options gave their word.
    let Ok(mapped) = (unsafe { file.map(size) }).await else { return Ok(Some(turn)) };
    let arena = mapped.into_arena(handle.pool());
    // It takes none of the memory that others wait for.
    let mut turn = Some(turn);
    for start in (0..size).step_by(MAPPED_BYTES) {
        let bytes = MAPPED_BYTES.min(size - start);
        match handle.populate(arena.range(start, bytes)).await {
            Ok(()) => arena.settle_mapped(bytes),
            Err(_) if start == 0 => return Ok(turn),
            // Shorter than it was, whatever was promised.
            Err(error) => return Err(failed(path, io::Error::new(error.kind(), error))),
        }
        turn = None;
        shared.is_mapped.store(true, Relaxed);
        let _ = shared.view.set(arena.view());
    }
    drop(turn_of_device);
    Ok(None)
}

/// Has the memory of a large one made ready while the first of it is read: on a fast disk that takes as long
/// as to read it.
fn populate_ahead(handle: &Handle, arena: &Arena, size: usize) -> Option<Task<()>> {
    let step = |start| arena.range(start, POPULATED_BYTES.min(size - start));
    let mut ranges = (0..size).step_by(POPULATED_BYTES).map(step).collect::<Vec<_>>().into_iter();
    (ranges.len() >= POPULATED_STEPS_MIN).then(|| {
        let handle = handle.clone();
        handle.clone().spawn(async move {
            // Without it, a read is what makes it ready.
            while let Some(range) = ranges.next()
                && handle.populate(range).await.is_ok()
            {}
        })
    })
}

/// Memory for it, in its turn; or before, as long as that one before is not ready for its own.
async fn room(
    handle: &Handle,
    mut turn: Reserve,
    bytes: usize,
    shared: &Shared,
) -> io::Result<Arena> {
    let (pool, all_ahead) = (handle.pool(), &handle.shared.loads_ahead);
    let mut ahead = (bytes as u64 <= all_ahead.limit()).then(|| all_ahead.reserve(bytes as u64));
    let before_its_turn = poll_fn(|context| {
        if let Poll::Ready(turn) = Pin::new(&mut turn).poll(context) {
            return Poll::Ready(Err(turn));
        }
        if let Some(reserve) = &mut ahead
            && let Poll::Ready(held) = Pin::new(reserve).poll(context)
        {
            ahead = None;
            // Where there is none to spare it goes to those whose turn it is.
            if let Some(arena) = pool.try_arena(bytes) {
                let _ = shared.ahead.set(held);
                return Poll::Ready(Ok(arena));
            }
        }
        Poll::Pending
    });
    match before_its_turn.await {
        Ok(arena) => Ok(arena),
        Err(turn) => {
            let arena = arena_in_turn(handle, bytes).await;
            drop(turn);
            arena
        }
    }
}

/// Memory for one whose turn it is. Those that went before may hold their part for as long as they like, so
/// no more is asked for than there is beside it, however much it is.
async fn arena_in_turn(handle: &Handle, bytes: usize) -> io::Result<Arena> {
    let most = handle.pool().budget().limit() - handle.shared.loads_ahead.limit();
    handle.pool().arena_counting(bytes, most.min(bytes as u64)).await
}

/// The turns of a file's device. Looking what that is takes memory: whoever holds some asks before.
async fn turns_of(handle: &Handle, path: &Path, device: u64) -> Budget {
    let turns = &handle.shared.device_turns;
    if let Some(known) = turns.of(device) {
        return known;
    }
    let found = handle.device(path).await;
    turns.learn(device, found.is_ok_and(|found| found.kind == DeviceKind::Rotational))
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::new("load", Some(path.into()), error)
}

fn read(source: &AnyFile, buffer: Buffer, length: usize, offset: usize) -> Pending<Buffer> {
    let length = match source {
        AnyFile::Cached(_) => length,
        // Whole blocks, for which there is room.
        AnyFile::Direct(_) => buffer.spare(),
    };
    source.file().read(buffer, length, offset as u64)
}

/// Reads what a short read left out; less only where the file ends before.
async fn complete(
    source: &AnyFile,
    mut part: Buffer,
    length: usize,
    offset: usize,
) -> Result<Buffer> {
    let mut in_vain = 0;
    while part.len() < length {
        let before = part.len();
        if let AnyFile::Direct(_) = source {
            // That block once more.
            part.truncate(before - before % BLOCK_BYTES);
        }
        let from = part.len();
        part = read(source, part, length - from, offset + from).await?;
        // A direct read ends inside a block where the file does, or by chance, but not for ever.
        in_vain = if part.len() > before { 0 } else { in_vain + 1 };
        let at_end = part.len() == from
            || (part.len() == before
                && source.file().metadata().await?.size <= (offset + before) as u64);
        if at_end {
            break;
        }
        if in_vain == READS_IN_VAIN_MAX {
            return Err(failed(source.file().path(), ErrorKind::UnexpectedEof.into()));
        }
    }
    part.truncate(length);
    Ok(part)
}

/// The file, around the page cache if it is large and that does not have it.
async fn best_source(handle: &Handle, path: &Path, file: File, size: u64) -> Result<AnyFile> {
    if size < DIRECT_BYTES_MIN || file.cached_bytes(size).await? > size / 2 {
        return Ok(file.into());
    }
    let direct = match handle.open_direct(path, OpenOptions::reading()).await {
        Ok(direct) => direct,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(file.into()),
        Err(error) => return Err(error),
    };
    // Another file may have got the name.
    match direct.metadata().await?.same_file(&file.metadata().await?) {
        true => Ok(direct.into()),
        false => Ok(file.into()),
    }
}

/// What has no size is read to its end before there is a place for it.
async fn load_without_size(
    handle: &Handle,
    file: File,
    turn: Reserve,
    shared: &Shared,
) -> Result<()> {
    let path = file.path().to_path_buf();
    let mut reader = Reader::whole(file).await?;
    let mut all = Vec::new();
    while let Some((_, buffer)) = reader.next().await? {
        all.extend_from_slice(&buffer);
    }
    let turn = turn.await;
    let arena = arena_in_turn(handle, all.len()).await;
    drop(turn);
    let mut arena = arena.map_err(|error| failed(&path, error))?;
    let mut part = arena.buffer(all.len());
    part.extend_from_slice(&all);
    arena.settle(part);
    let _ = shared.view.set(arena.view());
    Ok(())
}
