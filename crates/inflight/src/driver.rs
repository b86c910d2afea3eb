//! Picks a driver. Each one interprets [`crate::Operation`]; they have the same shape and pass the
//! same conformance suite.

mod interpreter;
mod pool;
mod syscall;
mod threads;
#[cfg(target_os = "linux")]
mod uring;

use std::sync::Arc;

use crate::inbox::InboxRef;

pub(crate) use interpreter::Driver;
pub use interpreter::DriverChoice;
pub(crate) use pool::SyscallPool;

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
