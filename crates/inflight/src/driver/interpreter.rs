//! What every driver is.

/// Which interpreter of operations runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverChoice {
    /// Linux's io_uring.
    Uring,
    /// System calls on a pool of threads.
    Threads,
    /// A [`SimulatedDisk`](crate::SimulatedDisk).
    Simulated,
}

impl DriverChoice {
    /// The name, as the environment variable `INFLIGHT_DRIVER` takes those of the system's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DriverChoice::Uring => "uring",
            DriverChoice::Threads => "threads",
            DriverChoice::Simulated => "simulated",
        }
    }
}

/// An interpreter of operations, owned by one worker and used by its thread alone.
pub(crate) trait Driver: Send {
    /// So many operations are going to be submitted before the next turn.
    fn expect(&mut self, operations: usize) {
        let _ = operations;
    }
    /// Accepts the operation in a slot.
    fn submit(&mut self, index: u32);
    /// Tries to end an operation early.
    fn cancel(&mut self, name: u64);
    /// Passes on what was accepted and reports what has ended. With `wait`, returns only after
    /// something ended or the alarm rang.
    fn turn(&mut self, wait: bool);
}
