//! The engine: builder, workers, shutdown.
//!
//! An engine owns no global state, so several live in one process. Dropping it cancels its tasks at
//! their next wait, cancels what waits for sockets and timers, and waits for the other operations in
//! flight; those submitted through a handle after that fail with a clear error.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::alarm::Sleeps;
use crate::budget::Budget;
use crate::buffer::Pool;
use crate::class::GiveWay;
use crate::device::Device;
use crate::device_turns::DeviceTurns;
use crate::driver::{self, DriverChoice, SimulatedDisk, SyscallPool};
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::inbox::{CutShort, Inbox, Stage};
use crate::local::is_engine_thread;
use crate::metrics::{BusyTime, Devices};
use crate::numa::Nodes;
use crate::shared::Shared;
use crate::simulation::Simulation;
use crate::stream::bytes_ahead;
use crate::worker;

/// Names the driver to use: `uring` or `threads`.
pub const DRIVER_VARIABLE: &str = "INFLIGHT_DRIVER";

/// Settings of an [`Engine`].
///
/// ```
/// # fn main() -> inflight::Result<()> {
/// let engine = inflight::Engine::builder()
///     .workers(1)                 // most programs keep one busy only in part
///     .memory_bytes_max(64 << 20) // whoever asks for more buffers waits
///     .build()?;
/// println!("{}: {}", engine.driver().name(), engine.driver_reason());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    driver: Option<DriverChoice>,
    workers: usize,
    queue_depth: usize,
    threads_max: Option<usize>,
    memory_bytes_max: u64,
    request_bytes_max: usize,
    registered_bytes: usize,
    numa: bool,
    measured: Vec<Device>,
}

impl Default for Builder {
    fn default() -> Builder {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Builder {
            driver: None,
            workers: cores,
            queue_depth: 1024,
            threads_max: None,
            memory_bytes_max: 256 << 20,
            request_bytes_max: 2 << 20,
            registered_bytes: 0,
            numa: false,
            measured: Vec::new(),
        }
    }
}

impl Builder {
    /// Forces a driver. Without this the environment variable [`DRIVER_VARIABLE`] decides, and
    /// without that the best one that works.
    #[must_use]
    pub fn driver(mut self, driver: DriverChoice) -> Builder {
        self.driver = Some(driver);
        self
    }

    /// Worker threads, one for each core if not set.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = workers.clamp(1, 1024);
        self
    }

    /// Operations in flight for each worker at most; further ones wait their turn. 1024 if not set.
    #[must_use]
    pub fn queue_depth(mut self, operations: usize) -> Builder {
        self.queue_depth = operations.clamp(1, 1 << 15);
        self
    }

    /// Threads for system calls at most. If not set: four for each core with the `threads` driver,
    /// two with `uring`, which needs them for metadata only.
    #[must_use]
    pub fn threads_max(mut self, threads: usize) -> Builder {
        self.threads_max = Some(threads.clamp(1, 1024));
        self
    }

    /// Bytes of buffers at most; whoever asks for more waits. 256 MiB if not set.
    #[must_use]
    pub fn memory_bytes_max(mut self, bytes: u64) -> Builder {
        self.memory_bytes_max = bytes;
        self
    }

    /// Bytes of one request at most, where the engine itself cuts what it is asked for: in
    /// [`File::read_full`](crate::File::read_full) and
    /// [`File::write_full`](crate::File::write_full). 4 KiB to 1 GiB; 2 MiB if not set.
    #[must_use]
    pub fn request_bytes_max(mut self, bytes: usize) -> Builder {
        self.request_bytes_max = bytes.clamp(4 << 10, 1 << 30);
        self
    }

    /// Sets memory aside that the kernel knows in advance, so that it need not look up the pages of
    /// each request: with `uring`, many small reads around the page cache take up to a tenth less
    /// processor time; large ones gain nothing, as their buffers lie in huge pages anyway. Buffers of 2 MiB and less come from there as long as some of it is left. It
    /// is there beside [`Builder::memory_bytes_max`], from the start to the end of the engine, in
    /// whole 2 MiB, at most 1 GiB; none if not set, or less than 2 MiB. With [`Builder::numa`] it is
    /// memory of the first node, for those who ask there.
    ///
    /// Where the system's limit on locked memory (often 8 MiB for ordinary users, for all workers
    /// together) does not allow it, these are buffers like any other: see
    /// [`Engine::registered_bytes`].
    #[must_use]
    pub fn registered_bytes(mut self, bytes: usize) -> Builder {
        self.registered_bytes = bytes.min(1 << 30);
        self
    }

    /// Devices as [`Handle::device`] found them, with the settings that were measured to be best there. On
    /// each that is still the same, these go in place of what suits its kind.
    #[must_use]
    pub fn measured(mut self, devices: Vec<Device>) -> Builder {
        self.measured = devices;
        self
    }

    /// On a machine whose processors have memory of their own (NUMA), keeps each worker on the
    /// processors of one node, in turn, and gives out buffers from the memory of the node where they
    /// are asked for. Changes nothing on machines of one node; off if not set.
    #[must_use]
    pub fn numa(mut self, on: bool) -> Builder {
        self.numa = on;
        self
    }

    /// Starts an engine on a simulated disk. It has one worker, which runs on whatever thread is in
    /// [`Handle::block_on`]; nothing goes on while none is. From outside, only a
    /// [`Completer`](crate::Completer) may wake what runs there: where everybody waits and there is
    /// none, it panics rather than wait for ever.
    #[must_use]
    pub fn simulated(self, disk: &SimulatedDisk) -> Engine {
        let busy = Arc::new(BusyTime::new());
        let inbox = Inbox::open(
            0,
            self.queue_depth,
            busy.clone(),
            Arc::new(GiveWay::new()),
            Sleeps::default(),
        );
        let pool = Pool::simulated(Budget::new(self.memory_bytes_max));
        let shared = Shared {
            inboxes: Box::new([inbox]),
            simulation: Some(Simulation::new(inbox, disk, pool.clone())),
            pool,
            busy,
            devices: Devices::default(),
            loads: Budget::new(1),
            loads_ahead: Budget::new(bytes_ahead(self.memory_bytes_max)),
            device_turns: DeviceTurns::default(),
            measured: self.measured,
            driver: DriverChoice::Simulated,
            reason: "asked for by the program".into(),
            request_bytes_max: self.request_bytes_max,
        };
        let handle = Handle::new(Arc::new(shared));
        Engine { handle, pool: None, workers: Vec::new() }
    }

    /// Starts the engine.
    ///
    /// # Errors
    /// When a thread cannot be started, a forced driver does not work here, or the environment
    /// variable names none.
    pub fn build(self) -> Result<Engine> {
        let (driver, reason) = choose(self.driver)?;
        let threads_max = self.threads_max.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let each = if driver == DriverChoice::Threads { 4 } else { 2 };
            (each * cores).clamp(4, 64)
        });
        let failed = |error| Error::new("start the I/O engine", None, error);
        let pool = SyscallPool::new(threads_max).map_err(failed)?;
        let busy = Arc::new(BusyTime::new());
        let give_way = Arc::new(GiveWay::new());
        let sleeps = Sleeps::default();
        let inboxes = (0..self.workers)
            .map(|number| {
                let (busy, give_way) = (busy.clone(), give_way.clone());
                Inbox::open(number, self.queue_depth, busy, give_way, sleeps.clone())
            })
            .collect();
        let budget = Budget::new(self.memory_bytes_max);
        let nodes = if self.numa { Nodes::of_system() } else { Nodes::one() };
        let buffers = Pool::with_set_aside(budget, nodes.clone(), self.registered_bytes);
        let request_bytes_max = self.request_bytes_max;
        let simulation = None;
        let devices = Devices::default();
        let shared = Shared {
            inboxes,
            pool: buffers,
            simulation,
            busy,
            devices,
            loads: Budget::new(1),
            loads_ahead: Budget::new(bytes_ahead(self.memory_bytes_max)),
            device_turns: DeviceTurns::default(),
            measured: self.measured,
            driver,
            reason,
            request_bytes_max,
        };
        let shared = Arc::new(shared);
        let handle = Handle::new(shared.clone());
        let mut engine = Engine { handle, pool: Some(pool.clone()), workers: Vec::new() };
        let (opened, results) = channel();
        for (number, inbox) in shared.inboxes.iter().copied().enumerate() {
            let (pool, opened) = (pool.clone(), opened.clone());
            let (buffers, nodes) = (shared.pool.clone(), nodes.clone());
            let thread = std::thread::Builder::new()
                .name(format!("inflight-worker-{number}"))
                .spawn(move || {
                    nodes.settle(number);
                    worker::run(inbox, driver, pool, buffers, &opened);
                })
                .map_err(failed)?;
            engine.workers.push(thread);
        }
        for result in results.iter().take(self.workers) {
            result.map_err(failed)?;
        }
        Ok(engine)
    }
}

/// The driver to use and why.
fn choose(forced: Option<DriverChoice>) -> Result<(DriverChoice, String)> {
    let named = std::env::var(DRIVER_VARIABLE).ok();
    let by_name = match named.as_deref() {
        None | Some("") => None,
        Some("uring") => Some(DriverChoice::Uring),
        Some("threads") => Some(DriverChoice::Threads),
        Some(other) => {
            let text = format!("{DRIVER_VARIABLE} is {other:?}; it takes uring or threads");
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(Error::new("start the I/O engine", None, error));
        }
    };
    let (wanted, by) = match (forced, by_name) {
        (Some(driver), _) => (Some(driver), "asked for by the program"),
        (None, Some(driver)) => (Some(driver), "asked for by the environment"),
        (None, None) => (None, ""),
    };
    if wanted == Some(DriverChoice::Simulated) {
        let text = "an engine on a simulated disk is made with Builder::simulated";
        let error = io::Error::new(io::ErrorKind::InvalidInput, text);
        return Err(Error::new("start the I/O engine", None, error));
    }
    if wanted == Some(DriverChoice::Threads) {
        return Ok((DriverChoice::Threads, by.into()));
    }
    match (driver::probe_uring(), wanted) {
        (Ok(()), None) => Ok((DriverChoice::Uring, "the best one that works here".into())),
        (Ok(()), Some(_)) => Ok((DriverChoice::Uring, by.into())),
        (Err(error), None) => {
            Ok((DriverChoice::Threads, format!("io_uring cannot be used here: {error}")))
        }
        (Err(error), Some(_)) => {
            let text = format!("io_uring was {by} but cannot be used here: {error}");
            let error = io::Error::new(error.kind(), text);
            Err(Error::new("start the I/O engine", None, error))
        }
    }
}

/// A running engine. Dereferences to its [`Handle`].
///
/// Dropping it ends it: see the tasks of [`Handle::spawn`] to their ends before. That waits for reads
/// and writes under way, so inside another executor do it where a thread may wait: at the end of
/// `main`, outside of its `block_on`, or in tokio's `spawn_blocking`.
pub struct Engine {
    handle: Handle,
    pool: Option<Arc<SyscallPool>>,
    workers: Vec<JoinHandle<()>>,
}

impl Engine {
    /// An engine with the default settings.
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn new() -> Result<Engine> {
        Builder::default().build()
    }

    /// Settings, to change and build.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The way into this engine, for other threads and tasks.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the engine. Nothing new begins; what is in flight has until `deadline` to come to its
    /// end, and is cancelled then, as far as it can be: a system call under way on a disk cannot.
    /// Tells what was cut short; its futures get an error.
    ///
    /// Dropping the engine is different: what waits for the world outside (sockets, timers) is
    /// cancelled at once, and reads and writes are waited for, however long they take.
    #[must_use = "it says what was cut short"]
    pub fn shut_down(mut self, deadline: Duration) -> Vec<CutShort> {
        self.set_stage(Stage::Draining);
        let until = Instant::now() + deadline;
        let shared = self.handle.shared.clone();
        let ended = || self.workers.iter().all(JoinHandle::is_finished);
        // The workers tell nobody when they end; looking at them now and then costs nothing.
        while !ended() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1).min(until - Instant::now()));
        }
        self.set_stage(Stage::CancelAll);
        self.end();
        shared.inboxes.iter().flat_map(|inbox| inbox.take_cut_short()).collect()
    }

    fn set_stage(&self, stage: Stage) {
        if let Some(simulation) = &self.handle.shared.simulation {
            return simulation.end(stage);
        }
        self.handle.shared.inboxes.iter().for_each(|inbox| inbox.set_stage(stage));
    }

    /// Waits for the workers, who were told to end, and for the pool.
    fn end(&mut self) {
        let workers = std::mem::take(&mut self.workers);
        let (pool, shared) = (self.pool.clone(), self.handle.shared.clone());
        let end = move || {
            for worker in workers {
                // A worker that panicked has ended the process; nothing else can go wrong here.
                let _ = worker.join();
            }
            if let Some(pool) = pool {
                pool.shut_down();
            }
            drop(shared);
        };
        if !is_engine_thread() {
            return end();
        }
        // One of the engine's own threads cannot wait for itself: another one does. What is shared
        // must outlive them all; without another thread it is never freed.
        let alive = self.handle.shared.clone();
        if std::thread::Builder::new().spawn(end).is_err() {
            std::mem::forget(alive);
        }
    }

    /// Bytes of buffers that the kernel knows in advance, for all workers that got the system's leave
    /// for that: what [`Builder::registered_bytes`] asked for, times the workers, or less.
    #[must_use]
    pub fn registered_bytes(&self) -> u64 {
        self.handle.shared.inboxes.iter().map(|inbox| inbox.registered_bytes()).sum()
    }

    /// Why the driver runs that [`Handle::driver`] names.
    #[must_use]
    pub fn driver_reason(&self) -> &str {
        &self.handle.shared.reason
    }
}

impl Deref for Engine {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("driver", &self.handle.shared.driver)
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.set_stage(Stage::CancelWaits);
        self.end();
    }
}
