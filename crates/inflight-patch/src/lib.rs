//! Diff, apply and verify whole directory trees.
//!
//! [`diff`] turns two versions of a tree into a patch; [`apply`] turns the old version and the
//! patch into the new one, identical in content, names, kinds, permissions, links and holes;
//! [`verify`] says whether a tree is the one a patch speaks of; [`info`] tells what is in a patch.
//! All of them run on a [`Job`]: an [`inflight`] engine, threads for processor work, and a bound
//! on memory.
//!
//! ```no_run
//! use inflight::Engine;
//! use inflight_patch::{ApplyOptions, DiffOptions, Job, apply, diff};
//!
//! # fn main() -> Result<(), inflight_patch::Error> {
//! let engine = Engine::builder().memory_bytes_max(1 << 30).build()?;
//! let job = Job::new(engine.handle(), 2)?;
//! let (old, new, patch) = ("v1".as_ref(), "v2".as_ref(), "v1-v2.patch".as_ref());
//! engine.block_on(diff(&job, old, new, patch, DiffOptions::default()))?;
//! engine.block_on(apply(&job, patch, old, "v2-built".as_ref(), ApplyOptions::default()))?;
//! # Ok(())
//! # }
//! ```

pub(crate) mod align;
mod apply;
mod crew;
mod damage;
mod diff;
mod digest;
mod error;
pub mod format;
mod image;
mod info;
mod instructions;
mod job;
#[cfg(feature = "kernels")]
#[doc(hidden)]
pub mod kernels;
mod layout;
mod lz;
mod manifest;
mod paths;
mod prefetch;
mod preset;
mod pump;
pub(crate) mod transform;
mod tree;
mod verify;

pub use apply::{ApplyOptions, ApplyReport, apply};
pub use damage::{Damage, DamageKind};
pub use diff::{DiffOptions, DiffReport, diff};
pub use error::{Error, Result};
pub use info::{EntryInfo, PatchInfo, TreeInfo, info};
pub use job::Job;
pub use manifest::{Digest, Entry, EntryKind, Manifest, Preserve, Preserved};
pub use preset::Preset;
pub use verify::{Difference, Side, VerifyReport, verify};
