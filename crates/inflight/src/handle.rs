//! Submitting from any thread, in any executor.
//!
//! On a worker's own thread an operation goes straight into that worker's queue; from elsewhere
//! through its inbox, with one wake-up if it sleeps. Handles are cheap to clone; operations do not
//! clone them.

use std::ffi::CString;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block_on::block_on;
use crate::buffer::{ArenaRange, Buffer, Pool};
use crate::class::Class;
use crate::descriptor::{Descriptor, Label, OwnedDescriptor, Sort};
use crate::driver::DriverChoice;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::metrics::{DeviceMetrics, Latency, Metrics, Tally};
use crate::operation::{At, OpenOptions, Operation, RemoveKind};
use crate::pending::Pending;
use crate::shared::Shared;
use crate::task::Task;

/// The way into an engine. All that can be opened starts here.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    class: Class,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared, class: Class::Foreground }
    }

    /// A handle to the same engine, through which everything (operations, tasks, and those of the
    /// files and sockets it opens) is of the background: see [`Class::Background`].
    #[must_use]
    pub fn background(&self) -> Handle {
        Handle { shared: self.shared.clone(), class: Class::Background }
    }

    /// The class of what is done through this handle.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Submits any operation. The result is the operation (with what it owns) and its number.
    #[inline]
    pub fn submit(&self, operation: Operation) -> Pending<(Operation, u64)> {
        self.start(
            || operation,
            |operation, value| (std::mem::replace(operation, Operation::Nop), value),
        )
    }

    /// Does nothing: measures the way there and back.
    #[inline]
    pub fn nop(&self) -> Pending<()> {
        self.start(|| Operation::Nop, |_, _| ())
    }

    /// Submits an operation of which only success matters.
    pub(crate) fn run(&self, operation: Operation) -> Pending<()> {
        self.start(|| operation, |_, _| ())
    }

    /// Submits the operation that `make` makes; `finish` makes the result of what comes back.
    #[inline]
    pub(crate) fn start<T>(
        &self,
        make: impl FnOnce() -> Operation,
        finish: fn(&mut Operation, u64) -> T,
    ) -> Pending<T> {
        Pending::start(make, self.class, &self.shared, finish)
    }

    /// Has the system give the memory of a place in an [`Arena`](crate::Arena) before it is needed:
    /// see [`Operation::Populate`].
    pub fn populate(&self, range: ArenaRange) -> Pending<()> {
        self.run(Operation::Populate { range })
    }

    /// Runs a future on one of the workers. Dropping the [`Task`] cancels it.
    ///
    /// Workers are there for what waits. Processor work of more than some hundred microseconds at a
    /// time belongs elsewhere, on threads of your own (rayon, `spawn_blocking`), and comes back with a
    /// [`Completer`](crate::Completer) or whatever channel you use.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task::spawn(self.shared.clone(), self.class, future)
    }

    /// Runs a future on the calling thread, which sleeps while the future waits.
    ///
    /// # Panics
    /// When called on a worker of an engine: it would wait for itself.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.shared.simulation {
            Some(simulation) => simulation.enter(|| block_on(future)),
            None => block_on(future),
        }
    }

    /// Which driver the engine has.
    #[must_use]
    pub fn driver(&self) -> DriverChoice {
        self.shared.driver
    }

    /// The pool that all of the engine's buffers come from.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// An empty buffer with room for `capacity` bytes, once the memory budget has them.
    ///
    /// # Panics
    /// When `capacity` is above 2 GiB: read what is larger in parts, as [`Reader`](crate::stream::Reader) does.
    pub async fn buffer(&self, capacity: usize) -> Buffer {
        self.shared.pool.get(capacity).await
    }

    /// Bytes of one request at most, where the engine cuts what it is asked for.
    #[must_use]
    pub fn request_bytes_max(&self) -> usize {
        self.shared.request_bytes_max
    }

    /// A reading of the engine's counters.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics { busy: self.shared.busy.read(), ..Metrics::default() };
        for inbox in &self.shared.inboxes {
            inbox.tally.add_to(&mut metrics);
            metrics.in_flight += inbox.in_flight() as u64;
        }
        metrics
    }

    /// The same for each device of which something is or was open, and first for what concerns none.
    #[must_use]
    pub fn device_metrics(&self) -> Vec<DeviceMetrics> {
        self.shared.devices.read(self.shared.inboxes.iter().map(|inbox| &inbox.tally))
    }

    /// How long operations took.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Tally::latency(self.shared.inboxes.iter().map(|inbox| &inbox.tally))
    }

    /// What the system knows about a path.
    ///
    /// # Errors
    /// As for [`Handle::open`].
    pub async fn metadata(&self, path: impl AsRef<Path>, follow: bool) -> Result<Metadata> {
        let at = at("look at", None, path.as_ref())?;
        metadata_at(self, at, follow).await
    }

    /// Renames within one file system.
    ///
    /// # Errors
    /// As for [`Handle::open`]; `AlreadyExists` if the new name exists and `replace` is off.
    pub async fn rename(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        replace: bool,
    ) -> Result<()> {
        let (from, to) = (at("rename", None, from.as_ref())?, at("rename", None, to.as_ref())?);
        self.run(Operation::Rename { from, to, replace }).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As for [`Handle::open`].
    pub async fn create_directory(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let at = at("create directory", None, path.as_ref())?;
        self.run(Operation::CreateDirectory { at, mode }).await
    }

    /// Removes a name.
    ///
    /// # Errors
    /// As for [`Handle::open`].
    pub async fn remove(&self, path: impl AsRef<Path>, kind: RemoveKind) -> Result<()> {
        let at = at("remove", None, path.as_ref())?;
        self.run(Operation::Remove { at, kind }).await
    }

    pub(crate) async fn open_at(
        &self,
        directory: Option<&Descriptor>,
        path: &Path,
        options: OpenOptions,
    ) -> Result<Descriptor> {
        let at = at("open", directory, path)?;
        let opened = self.submit(Operation::Open { at, options, descriptor: None }).await?.0;
        let path = opened.path().unwrap_or_default();
        match opened {
            Operation::Open { descriptor: Some(descriptor), options, .. } => {
                let sort = match options {
                    OpenOptions { direct: true, .. } => Sort::DirectFile,
                    OpenOptions { directory: true, .. } => Sort::Other,
                    OpenOptions { uncached: true, .. } => Sort::UncachedFile,
                    _ => Sort::CachedFile,
                };
                Ok(self.share(descriptor, path, sort))
            }
            other => unreachable!("{other:?} came back for an open"),
        }
    }

    /// Something that was opened, to be shared.
    pub(crate) fn share(&self, opened: OwnedDescriptor, path: PathBuf, sort: Sort) -> Descriptor {
        let (label, closer) = (Label::Path(path.into()), self.shared.clone());
        let device = self.shared.devices.index_of(opened.device_number());
        Descriptor::new(opened, label, sort, device, closer)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("driver", &self.shared.driver).finish_non_exhaustive()
    }
}

/// A path for an operation, or the error that says why it cannot be one.
pub(crate) fn at(
    operation: &'static str,
    directory: Option<&Descriptor>,
    path: &Path,
) -> Result<At> {
    At::new(directory, path).map_err(|error| Error::new(operation, Some(path.into()), error))
}

pub(crate) async fn metadata_at(handle: &Handle, at: At, follow: bool) -> Result<Metadata> {
    let operation = Operation::Metadata { at, follow, metadata: Metadata::default() };
    match handle.submit(operation).await? {
        (Operation::Metadata { metadata, .. }, _) => Ok(metadata),
        (other, _) => unreachable!("{other:?} came back for a metadata operation"),
    }
}

/// A symbolic link's text or an attribute's name for an operation.
pub(crate) fn text(operation: &'static str, path: &Path, bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|error| Error::new(operation, Some(path.into()), error.into()))
}
