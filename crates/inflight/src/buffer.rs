//! Owned, page-aligned, pooled memory for I/O.
//!
//! A [`Buffer`] is memory the kernel may read or write while nobody else holds it: it moves into
//! an operation and comes back with the result. All buffers of an engine come from one [`Pool`],
//! are aligned to a page (so that direct I/O takes them as they are) and count against one
//! [`crate::Budget`]. Only the buffers of an [`Arena`] start anywhere, as they lie end to end.

mod aligned;
mod arena;
mod arena_memory;
mod block;
mod kept;
mod list;
mod pool;
mod release;

pub use aligned::{AlignedBuffer, AlignedOffset};
pub use arena::{Arena, ArenaBytes, ArenaRange, ArenaView, MappedBytes};
pub use block::BLOCK_BYTES;
pub use list::BufferList;
pub use pool::{Buffer, Pool};
