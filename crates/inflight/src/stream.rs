//! Streams: many operations in flight behind a simple face.
//!
//! [`Reader`] keeps reads ahead of its user, [`Writer`] keeps writes behind, [`Copy`](struct@Copy) is one on the
//! other, [`walk`] lists a tree with many directories at once, and [`Ordered`] is the pattern under all
//! of them: a bounded number of futures at work, their results in order.
//!
//! # Sizes of requests
//!
//! Without further word a stream has [`DEPTH`] requests of [`REQUEST_BYTES`] under way, which was the
//! fastest of those tried on one virtual solid disk: cold direct reads, 3.0 GB/s; 2.9 with eight of
//! 256 KiB, 2.7 with two of 4 MiB. Where it matters, measure your own ([`Reader::requests`]), or let the
//! number under way follow what it brings ([`Depth`]).
//!
//! # Memory, and who may wait for it
//!
//! A stream holds one buffer and takes more only where there is memory to spare, so any number of
//! them come to their ends, each in its turn. One thing can still wait for ever, here as anywhere: many
//! tasks that all hold a buffer *while* they wait for another, when the budget has no more than the
//! first for each. So drop a buffer before you ask for the next, or pass it on:
//! [`Writer::write_buffer`] takes what [`Reader::next`] gave, and neither copies nor asks for more.

mod any_file;
mod copy;
mod depth;
mod load;
mod ordered;
mod reader;
mod turns;
mod walk;
mod writer;

pub use any_file::AnyFile;
pub use copy::Copy;
pub use depth::Depth;
pub(crate) use load::bytes_ahead;
pub use load::{Load, LoadOptions};
pub use ordered::Ordered;
pub use reader::Reader;
pub use walk::{WalkEntry, WalkName, walk, walk_names};
pub use writer::Writer;

/// Bytes of a stream's request.
pub const REQUEST_BYTES: usize = 1 << 20;
/// Requests that a stream has under way at most.
pub const DEPTH: usize = 4;
