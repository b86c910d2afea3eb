//! Picks a driver. Each one interprets [`crate::Operation`]; they have the same shape and pass the
//! same conformance suite.

mod pool;
mod syscall;
mod threads;
#[cfg(target_os = "linux")]
mod uring;

use std::sync::Arc;

use crate::engine::DriverChoice;
use crate::inbox::InboxRef;

pub(crate) use pool::SyscallPool;

/// An interpreter of operations, owned by one worker and used by its thread alone.
pub(crate) trait Driver {
    /// Accepts the operation in a slot.
    fn submit(&mut self, index: u32);
    /// Tries to end an operation early.
    fn cancel(&mut self, name: u64);
    /// Passes on what was accepted and reports what has ended. With `wait`, returns only after
    /// something ended or the alarm rang.
    fn turn(&mut self, wait: bool);
}

/// Makes the driver of one worker, on that worker's thread.
pub(crate) fn open(
    choice: DriverChoice,
    inbox: InboxRef,
    pool: Arc<SyscallPool>,
) -> Box<dyn Driver> {
    #[cfg(target_os = "linux")]
    if choice == DriverChoice::Uring
        && let Ok(driver) = uring::Uring::open(inbox, pool.clone())
    {
        return Box::new(driver);
    }
    let _ = choice;
    Box::new(threads::Threads::open(inbox, pool))
}

/// Why io_uring cannot be used here; `Ok` if it can.
pub(crate) fn probe_uring() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    return uring::probe();
    #[cfg(not(target_os = "linux"))]
    Err(std::io::ErrorKind::Unsupported.into())
}
