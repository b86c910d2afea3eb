//! Inflight: a completion-based I/O engine that keeps the disk busy.
//!
//! Every operation is asynchronous and owns what it needs, so futures can be dropped at any
//! moment, and polled by any executor on any thread. On Linux operations go through io_uring;
//! where that is forbidden, through a pool of threads, with the same results.
//!
//! ```
//! use inflight::{Engine, OpenOptions};
//!
//! # fn main() -> inflight::Result<()> {
//! let engine = Engine::new()?;
//! let text = engine.block_on(async {
//!     let file = engine.open("Cargo.toml".as_ref(), OpenOptions::reading()).await?;
//!     let size = file.metadata().await?.size as usize;
//!     let buffer = engine.buffer(size).await;
//!     file.read_full(buffer, size, 0).await
//! })?;
//! assert!(text.starts_with(b"[package]"));
//! # Ok(())
//! # }
//! ```
//!
//! Start reading at [`Operation`], which lists what can be asked, then [`Handle`], through which
//! it is asked, and [`Pending`], which says what dropping does.

mod alarm;
mod block_on;
mod budget;
mod buffer;
mod class;
mod completion;
mod descriptor;
mod directory;
mod driver;
mod engine;
mod error;
mod file;
mod flight;
mod handle;
mod inbox;
mod links;
mod local;
mod metadata;
mod metrics;
mod operation;
mod pending;
mod shared;
mod simulation;
mod slot;
mod socket;
pub mod stream;
mod sync;
mod task;
mod timer;
mod wait_list;
mod worker;

pub use block_on::block_on;
pub use budget::{Budget, Reservation, Reserve};
pub use buffer::{
    AlignedBuffer, AlignedOffset, Arena, ArenaBytes, BLOCK_BYTES, Buffer, BufferList, Pool,
};
pub use class::Class;
pub use completion::Completer;
pub use descriptor::{Descriptor, OwnedDescriptor};
pub use directory::Directory;
pub use driver::{DriverChoice, Faults, SimulatedDisk};
pub use engine::{Builder, DRIVER_VARIABLE, Engine};
pub use error::{Error, Result};
pub use file::{DirectFile, File};
pub use handle::Handle;
pub use inbox::CutShort;
pub use metadata::{
    DirectoryBatch, DirectoryEntry, FileKind, Metadata, Owner, SetTimes, Timestamp,
};
pub use metrics::Metrics;
pub use operation::{
    Address, Advice, At, FilePiece, NewFile, OpenOptions, Operation, RemoveKind, Shutdown,
    SocketOption, SyncScope, TRANSFER_BYTES_MAX,
};
pub use pending::Pending;
pub use socket::{Connection, Datagrams, Listener};
pub use task::Task;
pub use timer::Elapsed;
