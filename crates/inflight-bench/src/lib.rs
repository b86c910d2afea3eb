//! Which request size, number under way and mode is best on a device: measured, told in plain words, drawn
//! as a page, kept for other programs.
//!
//! ```no_run
//! use inflight::{Engine, Progress};
//! use inflight_bench::{Options, measure, page};
//!
//! # fn main() -> Result<(), inflight_bench::Error> {
//! let progress = Progress::default();
//! let report = measure(&Engine::builder(), &progress, "/srv".as_ref(), Options::default())?;
//! for advice in &report.advice {
//!     println!("{}: {}", advice.work.title(), advice.what);
//! }
//! let html = page(&report);
//! # drop(html);
//! # Ok(())
//! # }
//! ```

mod advice;
mod compare;
mod error;
mod page;
mod plan;
mod report;
mod rounds;
mod run;
mod sample;
mod scratch;
mod setting;
mod terminal;
pub mod words;

pub use compare::{Comparison, compare};
pub use error::{Error, Result};
pub use page::page;
pub use report::{
    Advice, Kept, KeptTransfer, Measured, Percentiles, Place, REPORT_VERSION, Report, Run, Spread,
    Unsupported,
};
pub use rounds::WRITTEN_BYTES_MAX;
pub use run::{Options, TIME_MIN, measure};
pub use setting::{Mode, Setting, Work};
pub use terminal::summary;
