//! What people run every day on the [`inflight`] engine: copying trees, and warming the page cache.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use inflight::{Engine, Progress};
//! use inflight_tools::{CopyOptions, copy};
//!
//! # fn main() -> Result<(), inflight_tools::Error> {
//! let engine = Engine::new()?;
//! let progress = Arc::new(Progress::default());
//! let sources = ["photos".into()];
//! let options = CopyOptions::default();
//! let report = engine.block_on(copy(&engine, &progress, &sources, "/backup".as_ref(), options))?;
//! assert!(report.is_whole());
//! # Ok(())
//! # }
//! ```

mod copy;
mod error;
mod paths;
mod warm;

pub use copy::{CopyOptions, CopyReport, Stopped, copy};
pub use error::{Error, Result, Trouble};
pub use warm::{WarmReport, warm};
