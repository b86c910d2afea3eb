//! Streams: many operations in flight behind a simple face.
//!
//! [`Reader`] keeps reads ahead of its user, [`Writer`] keeps writes behind, [`walk`] lists a tree
//! with many directories at once, and [`Ordered`] is the pattern under all of them: a bounded
//! number of futures at work, their results in order.

mod ordered;
mod reader;
mod walk;
mod writer;

pub use ordered::Ordered;
pub use reader::Reader;
pub use walk::{WalkEntry, walk};
pub use writer::Writer;
