#![doc = include_str!("../docs/tutorial.md")]

mod address;
mod alarm;
mod arrivals;
mod block_on;
mod budget;
mod buffer;
mod class;
mod completion;
mod descriptor;
mod device;
mod device_turns;
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
#[cfg(all(test, loom))]
mod models;
mod numa;
mod operation;
mod parallel;
mod pending;
mod progress;
mod route;
mod shared;
mod simulation;
mod slot;
mod socket;
pub mod stream;
mod sync;
mod task;
mod timer;
mod trace;
mod wait_list;
mod worker;

#[doc = include_str!("../docs/migration.md")]
pub mod migration {}

#[doc = include_str!("../docs/costs.md")]
pub mod costs {}

/// The examples of the repository, each a whole program: `cargo run -p inflight --example NAME`.
///
/// # read_file
///
/// ```no_run
#[doc = include_str!("../examples/read_file.rs")]
/// ```
///
/// # copy_file
///
/// ```no_run
#[doc = include_str!("../examples/copy_file.rs")]
/// ```
///
/// # from_tokio
///
/// ```no_run
#[doc = include_str!("../examples/from_tokio.rs")]
/// ```
///
/// # plain_code
///
/// ```no_run
#[doc = include_str!("../examples/plain_code.rs")]
/// ```
///
/// # tcp_echo
///
/// ```no_run
#[doc = include_str!("../examples/tcp_echo.rs")]
/// ```
///
/// # static_files
///
/// ```no_run
#[doc = include_str!("../examples/static_files.rs")]
/// ```
///
/// # background
///
/// ```no_run
#[doc = include_str!("../examples/background.rs")]
/// ```
///
/// # simulated_disk
///
/// ```no_run
#[doc = include_str!("../examples/simulated_disk.rs")]
/// ```
pub mod examples {}

pub use address::Address;
pub use arrivals::Arrivals;
pub use block_on::block_on;
pub use budget::{Budget, Reservation, Reserve};
pub use buffer::{
    AlignedBuffer, AlignedOffset, Arena, ArenaBytes, ArenaRange, ArenaView, BLOCK_BYTES, Buffer,
    BufferList, MappedBytes, Pool,
};
pub use class::Class;
pub use completion::Completer;
pub use descriptor::{Descriptor, OwnedDescriptor};
pub use device::{Device, DeviceKind, DeviceLimits, DeviceSettings, TransferSettings};
pub use directory::{CopiedDirectory, Directory, ListedDirectory};
pub use driver::{DriverChoice, Faults, SimulatedDisk};
pub use engine::{Builder, DRIVER_VARIABLE, Engine};
pub use error::{Error, Result};
pub use file::{DirectFile, File};
pub use handle::Handle;
pub use inbox::CutShort;
pub use metadata::{
    DirectoryBatch, DirectoryEntry, FileKind, Metadata, Owner, SetTimes, Timestamp,
};
pub use metrics::{DeviceMetrics, Latency, Metrics};
pub use operation::{
    Advice, At, CopiedFile, DirectoryCopy, DirectoryListing, FilePiece, Kept, NewFile, OpenOptions,
    Operation, RemoveKind, SetMetadata, Shutdown, SocketOption, SyncScope, TRANSFER_BYTES_MAX,
};
pub use pending::Pending;
pub use progress::Progress;
pub use socket::{Connection, Datagrams, Listener};
pub use task::Task;
pub use timer::Elapsed;
