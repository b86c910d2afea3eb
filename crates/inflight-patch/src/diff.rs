//! Making a patch: list both trees, read the old one into an index, match the new one with it.
//!
//! ```text
//! old tree ─► units ─► chunks, digests ─► index ──┐
//! new tree ─► units ─────────────► matching ◄─────┘─► groups ─► compression ─► patch file
//! ```
//!
//! Trees that fit into memory are read one after the other ([`held`]), larger ones in step
//! ([`step`]). Several units are read at once, while the crew works on earlier ones and finished
//! groups are compressed and written behind. What comes out depends on the trees and the settings
//! alone.

pub(crate) mod chunk;
mod counterparts;
mod digests;
mod drafts;
mod effort;
mod executables;
mod far;
mod gaps;
mod group;
mod held;
mod index;
mod known;
mod left;
mod matching;
mod near;
mod old;
mod output;
mod pack;
mod pairs;
mod patchwork;
mod piece;
mod plan;
#[cfg(feature = "kernels")]
pub(crate) mod stages;
mod step;
mod unit;

use std::path::Path;
use std::sync::Arc;

use inflight::stream::Writer;
use inflight::{OpenOptions, RemoveKind};

use crate::error::Result;
use crate::format::PatchWriter;
use crate::image::{Image, Mismatch};
use crate::job::{Job, Phase};
use crate::manifest::Preserve;
use crate::paths::{check_apart, check_output, check_replaceable, temporary_beside};
use crate::preset::Preset;
use crate::tree::{Tree, scan};
use effort::Effort;
use output::Output;
use plan::{Plan, WRITE_BYTES, WRITE_DEPTH};

/// What a diff may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiffOptions {
    /// Time against size.
    pub preset: Preset,
    /// What to keep of each entry besides contents, kind, name and permissions.
    pub preserve: Preserve,
}

/// What a diff did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DiffReport {
    /// Entries in the old tree and in the new one.
    pub entries: (u64, u64),
    /// Bytes of data in the old tree and in the new one.
    pub bytes: (u64, u64),
    /// Bytes of the new tree that the patch copies from the old one.
    pub copied_bytes: u64,
    /// Bytes of the new tree that are in the patch, before compression.
    pub literal_bytes: u64,
    /// Bytes of the patch.
    pub patch_bytes: u64,
    /// Bytes around which chunks of the old tree were cut: more than 1 KiB when memory was short.
    pub chunk_bytes: u64,
    /// Memory in bytes with which the patch would be smaller: 0 if there was enough for chunks to be
    /// fine, for every executable together with its old version, and for all that was left to be
    /// searched for.
    pub better_memory_bytes: u64,
    /// What was left out, a sentence each.
    pub warnings: Vec<String>,
}

impl DiffReport {
    /// Takes note of the memory that a search for what is left would take.
    fn note_search(&mut self, job: &Job, plan: &Plan, needed: u64) {
        if let Some(more) = plan.more_for_search(needed) {
            let better = job.handle.pool().budget().limit() + more;
            self.better_memory_bytes = self.better_memory_bytes.max(better);
        }
    }
}

/// Makes the patch that turns the tree at `old` into the tree at `new`, and gives it the name
/// `patch` once it is whole. Both may be single files.
///
/// # Errors
/// See [`crate::Error`]; then nothing has the name `patch` that had not before.
pub async fn diff(
    job: &Job,
    old: &Path,
    new: &Path,
    patch: &Path,
    options: DiffOptions,
) -> Result<DiffReport> {
    let handle = &job.handle;
    job.enter(Phase::Scan);
    let (old_tree, new_tree) = (Tree::open(handle, old).await?, Tree::open(handle, new).await?);
    check_apart((&old_tree, old), (&new_tree, new)).await?;
    check_output(handle, patch, &old_tree, old).await?;
    check_output(handle, patch, &new_tree, new).await?;
    check_replaceable(handle, patch).await?;
    let old = scan(old_tree, options.preserve).await?;
    let new = scan(new_tree, options.preserve).await?;
    let mut report = DiffReport {
        entries: (old.manifest.entries.len() as u64, new.manifest.entries.len() as u64),
        warnings: [old.warnings, new.warnings].concat(),
        ..DiffReport::default()
    };
    let old = Image::new(old.tree, Arc::new(old.manifest), Mismatch::Changed);
    let new = Image::new(new.tree, Arc::new(new.manifest), Mismatch::Changed);
    report.bytes = (old.layout.bytes, new.layout.bytes);
    job.progress.expect(old.layout.bytes + new.layout.bytes);

    let unfinished = temporary_beside(patch);
    let made = make(job, old, new, (&unfinished, patch), options, &mut report).await;
    let named = match made {
        Ok(()) => handle.rename(&unfinished, patch, true).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    if named.is_err() {
        // The first error is the one to tell; without a file there is nothing to remove.
        let _ = handle.remove(&unfinished, RemoveKind::File).await;
    }
    named.map(|()| report)
}

/// Writes the whole patch to `path`, which must not exist, and which will become `target`.
async fn make(
    job: &Job,
    old: Image,
    new: Image,
    (path, target): (&Path, &Path),
    options: DiffOptions,
    report: &mut DiffReport,
) -> Result<()> {
    let plan = Plan::new(job, &old, &new, options.preset)?;
    report.chunk_bytes = plan.sizes.target() as u64;
    report.better_memory_bytes = plan.better_bytes;
    let file = job.handle.open(path, OpenOptions::creating(0o666)).await?;
    let writer = Writer::new(file, None).await?.requests(WRITE_BYTES, WRITE_DEPTH);
    let patch = PatchWriter::start(writer, old.layout.bytes, new.layout.bytes).await?;
    let output = Output::new(job, patch, &plan, options.preset);
    let effort = Effort::of(options.preset);
    let patch = match plan.is_held {
        true => held::run(job, old, new, effort, &plan, output, report).await?,
        false => {
            let (old, new) = (old.for_one_pass(), new.for_one_pass());
            step::run(job, old, new, effort, &plan, output, report).await?
        }
    };
    job.enter(Phase::Finish);
    // What it replaces must not be lost to a power failure.
    let replaces = job.handle.metadata(target, true).await.is_ok();
    report.patch_bytes = patch.finish(replaces).await?;
    Ok(())
}
