//! Building the new tree from the old one and a patch.
//!
//! ```text
//! patch ─► packs ─► groups: instructions, literals ─► units of the new image ─► digests ─► files
//! old tree ─► ranges that are copied ────────┘
//! ```
//!
//! Everything is built in a directory of its own beside the target, which gets its final name when
//! it is whole: every file's digest was compared, and what was written is durable. Whatever goes
//! wrong before leaves no trace.

mod build;
mod finish;
mod groups;
mod inputs;
mod outline;
mod packs;
mod piece;
mod staging;

use std::path::Path;

use inflight::{Directory, SyncScope};

use crate::error::{Error, Result};
use crate::format::PatchFile;
use crate::job::{Job, Phase};
use crate::paths::check_output;
use crate::tree::Tree;
use inputs::Inputs;
use staging::Staging;

/// What an apply may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Whether to wait until the new tree is durable before it gets its name. Without this, a
    /// power failure soon afterwards may leave a tree of that name with files that are not whole.
    pub sync: bool,
}

impl Default for ApplyOptions {
    fn default() -> ApplyOptions {
        ApplyOptions { sync: true }
    }
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ApplyReport {
    /// Entries in the new tree.
    pub entries: u64,
    /// Bytes of data in the new tree.
    pub bytes: u64,
    /// Bytes of the patch.
    pub patch_bytes: u64,
}

/// Builds the tree that `patch` makes of `old`, and gives it the name `new`, of which nothing may
/// exist, once it is whole.
///
/// # Errors
/// See [`crate::Error`]; then there is nothing of the name `new`, but for one case: if the last step
/// fails, the sync of the directory that `new` is in, the whole tree is there, and may lose its name
/// if the power fails.
pub async fn apply(
    job: &Job,
    patch: &Path,
    old: &Path,
    new: &Path,
    options: ApplyOptions,
) -> Result<ApplyReport> {
    let handle = &job.handle;
    job.enter(Phase::Scan);
    let patch = PatchFile::open(handle, patch).await?;
    let old_tree = Tree::open(handle, old).await?;
    check_target(job, new).await?;
    check_output(handle, new, &old_tree, old).await?;
    let inputs = Inputs::read(job, &patch, old_tree).await?;
    inputs.check_memory(job)?;
    let report = ApplyReport {
        entries: inputs.new.entries.len() as u64,
        bytes: patch.image_bytes().1,
        patch_bytes: patch.length(),
    };
    job.progress.expect(report.bytes);

    let staging = Staging::create(handle, new, &inputs.new).await?;
    let above = match build_and_name(job, &inputs, &staging, new, options).await {
        Ok(above) => above,
        Err(error) => {
            staging.remove(&inputs.new).await;
            return Err(inputs.explain(job, error).await);
        }
    };
    if options.sync {
        // The tree is in its place by now, and stays there whatever comes of this.
        above.sync(SyncScope::All).await?;
    }
    Ok(report)
}

async fn build_and_name(
    job: &Job,
    inputs: &Inputs,
    staging: &Staging,
    new: &Path,
    options: ApplyOptions,
) -> Result<Directory> {
    staging.create_directories(&inputs.new).await?;
    job.enter(Phase::Build);
    build::build(job, inputs, staging).await?;
    job.enter(Phase::Finish);
    finish::finish(job, inputs, staging).await?;
    job.check()?;
    finish::set_directories(inputs, staging).await?;
    if options.sync {
        staging.sync().await?;
    }
    staging.publish(new).await
}

/// `new` must not exist; a dangling link of that name counts.
async fn check_target(job: &Job, new: &Path) -> Result<()> {
    match job.handle.metadata(new, false).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            let text = format!("{} exists already; remove it or choose another", new.display());
            Err(Error::Paths(text))
        }
    }
}
