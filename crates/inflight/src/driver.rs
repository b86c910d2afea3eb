//! Picks a driver. Each one interprets [`crate::Operation`]; they have the same shape and pass the
//! same conformance suite.

mod interpreter;
mod pool;
mod simulated;
mod syscall;
mod threads;
#[cfg(target_os = "linux")]
mod uring;

use std::sync::Arc;

use crate::buffer::Pool;
use crate::inbox::InboxRef;

pub(crate) use interpreter::Driver;
pub use interpreter::DriverChoice;
pub(crate) use pool::SyscallPool;
pub use simulated::{Faults, SimulatedDisk};
pub(crate) use syscall::socket::{adopt, peer_of};

/// Bytes of a buffer that is taken when something arrives.
pub(crate) const RECEIVE_BYTES: usize = 16 << 10;

/// Makes the driver of one worker, on that worker's thread.
///
/// # Errors
/// When the system has no room for another ring.
pub(crate) fn open(
    choice: DriverChoice,
    inbox: InboxRef,
    pool: Arc<SyscallPool>,
    buffers: Pool,
) -> std::io::Result<Box<dyn Driver>> {
    match choice {
        #[cfg(target_os = "linux")]
        DriverChoice::Uring => Ok(Box::new(uring::Uring::open(inbox, pool, buffers)?)),
        _ => Ok(Box::new(threads::Threads::open(inbox, pool, buffers)?)),
    }
}

/// Makes the driver of the one worker of an engine on a simulated disk.
pub(crate) fn open_simulated(
    inbox: InboxRef,
    disk: &SimulatedDisk,
    buffers: Pool,
) -> Box<dyn Driver> {
    Box::new(simulated::Simulated::open(inbox, disk, buffers))
}

/// Why io_uring cannot be used here; `Ok` if it can.
pub(crate) fn probe_uring() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    return uring::probe();
    #[cfg(not(target_os = "linux"))]
    Err(std::io::ErrorKind::Unsupported.into())
}
