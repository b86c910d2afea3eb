//! Building the new tree from the old one and a patch.
//!
//! ```text
//! patch ─► groups: instructions, literals ─► units of the new image ─► digests ─► files
//! old tree ─► ranges that are copied ────────┘
//! ```
//!
//! Everything is built in a directory of its own beside the target, which gets its final name when
//! it is whole: every file's digest was compared, and what was written is durable. Whatever goes
//! wrong before leaves no trace.

mod build;
mod finish;
mod groups;
mod staging;

use std::path::Path;
use std::sync::Arc;

use inflight::FileKind;
use inflight::stream::walk;

use crate::error::{Error, Result};
use crate::format::{BlockKind, PatchFile};
use crate::image::{Image, Mismatch};
use crate::job::{Job, Phase};
use crate::layout::UNIT_BYTES;
use crate::manifest::{Digest, EntryKind, Manifest};
use crate::paths::check_output;
use crate::tree::Tree;
use crate::verify::first_wrong_file;
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
/// See [`crate::Error`]; then there is nothing of the name `new`.
pub async fn apply(
    job: &Job,
    patch: &Path,
    old: &Path,
    new: &Path,
    options: ApplyOptions,
) -> Result<ApplyReport> {
    let handle = &job.handle;
    job.progress.enter(Phase::Scan);
    let patch = PatchFile::open(handle, patch).await?;
    let old_tree = Tree::open(handle, old).await?;
    check_target(job, new).await?;
    check_output(handle, new, &old_tree, old).await?;
    let inputs = Inputs::read(&patch, old_tree).await?;
    inputs.check_old().await?;
    inputs.check_memory(job)?;
    let report = ApplyReport {
        entries: inputs.new.entries.len() as u64,
        bytes: patch.image_bytes().1,
        patch_bytes: patch.length(),
    };
    job.progress.expect(report.bytes);

    let staging = Staging::create(handle, new, &inputs.new).await?;
    let built = build_and_name(job, &inputs, &staging, new, options).await;
    if let Err(error) = built {
        staging.remove(&inputs.new).await;
        return Err(inputs.explain(job, error).await);
    }
    Ok(report)
}

async fn build_and_name(
    job: &Job,
    inputs: &Inputs,
    staging: &Staging,
    new: &Path,
    options: ApplyOptions,
) -> Result<()> {
    staging.create_directories(&inputs.new).await?;
    job.progress.enter(Phase::Build);
    build::build(job, inputs, staging).await?;
    job.progress.enter(Phase::Finish);
    finish::finish(job, inputs, staging).await?;
    job.progress.check()?;
    staging.publish(&inputs.new, new, options.sync).await
}

/// `new` must not exist; a dangling link of that name counts.
async fn check_target(job: &Job, new: &Path) -> Result<()> {
    match job.handle.metadata(new, false).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            let text = format!(
                "{} exists already; remove it or choose another",
                new.display()
            );
            Err(Error::Paths(text))
        }
    }
}

/// Everything an apply works from, decoded and checked.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) patch: PatchFile,
    pub(crate) old: Image,
    pub(crate) old_digests: Vec<Digest>,
    pub(crate) new: Arc<Manifest>,
    /// Of the new files that have data, in order.
    pub(crate) new_digests: Vec<Digest>,
}

impl Inputs {
    async fn read(patch: &PatchFile, old_tree: Tree) -> Result<Inputs> {
        let new = Arc::new(patch.manifest(BlockKind::NewManifest).await?);
        let old = Arc::new(patch.manifest(BlockKind::OldManifest).await?);
        let old_digests = patch.digests(BlockKind::OldDigests, &[]).await?;
        let new_digests = patch.digests(BlockKind::NewDigests, &old_digests).await?;
        let old = Image::new(old_tree, old, Mismatch::OtherTree);
        let inputs = Inputs {
            patch: patch.clone(),
            old,
            old_digests,
            new,
            new_digests,
        };
        inputs.check_sums()?;
        Ok(inputs)
    }

    /// Manifests, digests and header speak of the same trees.
    fn check_sums(&self) -> Result<()> {
        let new = crate::layout::Layout::new(&self.new);
        let with_data = |layout: &crate::layout::Layout| {
            layout
                .files
                .iter()
                .filter(|file| !file.image.is_empty())
                .count()
        };
        let (old_bytes, new_bytes) = self.patch.image_bytes();
        let wrong = if (self.old.layout.bytes, new.bytes) != (old_bytes, new_bytes) {
            "header and manifests speak of different amounts of data"
        } else if with_data(&self.old.layout) != self.old_digests.len()
            || with_data(&new) != self.new_digests.len()
        {
            "there is not one digest for each file"
        } else {
            return Ok(());
        };
        Err(self.patch.damaged(crate::format::Damage::new(0, wrong)))
    }

    /// The old tree has the files that the patch was made from, as far as names and sizes tell.
    async fn check_old(&self) -> Result<()> {
        let tree = self.old.tree();
        let root = &self.old.manifest.entries[0].kind;
        if tree.is_single() != matches!(root, EntryKind::File { .. }) {
            let path = tree.display_path(Path::new(""));
            return Err(Error::OldDiffers {
                path,
                how: format!("that was a {}", root.name()),
            });
        }
        let found = match tree.is_single() {
            true => Vec::new(),
            false => walk(tree.directory()).await?,
        };
        for entry in &self.old.manifest.entries {
            let EntryKind::File { size, .. } = entry.kind else {
                continue;
            };
            let metadata = match tree.is_single() {
                true => Some(tree.metadata()),
                false => {
                    let place = found.binary_search_by(|other| other.path.cmp(&entry.path));
                    place.ok().map(|place| &found[place].metadata)
                }
            };
            let how = match metadata {
                None => "it is missing".into(),
                Some(found) if found.kind != FileKind::File => {
                    format!("it is a {}", found.kind.name())
                }
                Some(found) if found.size != size => {
                    format!("it has {} bytes in place of {size}", found.size)
                }
                Some(_) => continue,
            };
            return Err(Error::OldDiffers {
                path: tree.display_path(&entry.path),
                how,
            });
        }
        Ok(())
    }

    /// Whether units, groups and manifests fit into the memory allowed.
    fn check_memory(&self, job: &Job) -> Result<()> {
        let limit = job.handle.pool().budget().limit();
        // Two buffers for a unit that mixes copies with literals.
        let units = build::depth(job) as u64 * 2 * UNIT_BYTES;
        let groups = groups::bytes_at_once(&self.patch);
        let needed = units + groups + (16 << 20);
        match needed <= limit {
            true => Ok(()),
            false => {
                let (needed_mib, given_mib) = (needed.div_ceil(1 << 20), limit >> 20);
                Err(Error::Memory {
                    needed_mib,
                    given_mib,
                })
            }
        }
    }

    /// A file came out wrong: finds the old file that is to blame.
    async fn explain(&self, job: &Job, error: Error) -> Error {
        if !matches!(error, Error::BuiltWrong { .. }) {
            return error;
        }
        match first_wrong_file(job, &self.old, &self.old_digests).await {
            Ok(Some(file)) => Error::OldDiffers {
                path: self.old.display_path(file),
                how: "its contents differ".into(),
            },
            Ok(None) => error,
            Err(other) => other,
        }
    }
}
