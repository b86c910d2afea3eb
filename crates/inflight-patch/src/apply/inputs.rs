//! What an apply works from, decoded, and checked as far as that goes before anything is built.

use std::path::Path;
use std::sync::Arc;

use inflight::FileKind;
use inflight::stream::walk;

use super::packs;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::format::{BlockKind, Digests, PatchFile, entry_footprint};
use crate::image::{Image, Mismatch};
use crate::job::Job;
use crate::layout::{Layout, UNIT_BYTES};
use crate::manifest::{EntryKind, Manifest};
use crate::tree::Tree;
use crate::verify::wrong_files;

/// Everything an apply works from, decoded and checked.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) patch: PatchFile,
    pub(super) old: Image,
    pub(super) old_digests: Arc<Digests>,
    pub(super) new: Arc<Manifest>,
    /// Of the new files that have data, in order.
    pub(super) new_digests: Arc<Digests>,
}

impl Inputs {
    pub(super) async fn read(patch: &PatchFile, old_tree: Tree) -> Result<Inputs> {
        let new = Arc::new(patch.manifest(BlockKind::NewManifest).await?);
        let old = Arc::new(patch.manifest(BlockKind::OldManifest).await?);
        let old_digests = patch.digests(BlockKind::OldDigests, &Digests::default()).await?;
        let new_digests = patch.digests(BlockKind::NewDigests, &old_digests).await?;
        let (old_digests, new_digests) = (Arc::new(old_digests), Arc::new(new_digests));
        let old = Image::new(old_tree, old, Mismatch::OtherTree);
        let patch = patch.clone();
        let inputs = Inputs { patch, old, old_digests, new, new_digests };
        inputs.check_sums()?;
        Ok(inputs)
    }

    /// Manifests, digests and header speak of the same trees.
    fn check_sums(&self) -> Result<()> {
        let new = Layout::new(&self.new);
        let with_data = |layout: &Layout| layout.files_with_data().count();
        let (old_bytes, new_bytes) = self.patch.image_bytes();
        let wrong = if (self.old.layout.bytes, new.bytes) != (old_bytes, new_bytes) {
            "header and manifests speak of different amounts of data"
        } else if with_data(&self.old.layout) != self.old_digests.files()
            || with_data(&new) != self.new_digests.files()
        {
            "there is not one digest for each file"
        } else {
            return Ok(());
        };
        Err(self.patch.damaged(Damage::new(0, wrong)))
    }

    /// The old tree has the files that the patch was made from, as far as names and sizes tell.
    pub(super) async fn check_old(&self) -> Result<()> {
        let tree = self.old.tree();
        let root = &self.old.manifest.entries[0].kind;
        if tree.is_single() != matches!(root, EntryKind::File { .. }) {
            let path = tree.display_path(Path::new(""));
            return Err(Error::OldDiffers { path, how: format!("that was a {}", root.name()) });
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
            return Err(Error::OldDiffers { path: tree.display_path(&entry.path), how });
        }
        Ok(())
    }

    /// Whether units, groups and manifests fit into the memory allowed.
    pub(super) fn check_memory(&self, job: &Job) -> Result<()> {
        let limit = job.handle.pool().budget().limit();
        // Two buffers for a unit that mixes copies with literals.
        let units = job.depth() as u64 * 2 * UNIT_BYTES;
        let groups = packs::bytes_at_once(&self.patch);
        let manifest =
            |manifest: &Manifest| -> u64 { manifest.entries.iter().map(entry_footprint).sum() };
        let manifests = manifest(&self.old.manifest) + manifest(&self.new);
        let needed = units + groups + manifests + (8 << 20);
        match needed <= limit {
            true => Ok(()),
            false => {
                let (needed_mib, given_mib) = (needed.div_ceil(1 << 20), limit >> 20);
                Err(Error::Memory { needed_mib, given_mib })
            }
        }
    }

    /// A file came out wrong: finds the old file that is to blame.
    pub(super) async fn explain(&self, job: &Job, error: Error) -> Error {
        if !matches!(error, Error::BuiltWrong { .. }) {
            return error;
        }
        let mut first = None;
        let found = wrong_files(job, &self.old, &self.old_digests, |file, how| {
            first = Some((file, how));
            false
        });
        match found.await {
            Ok(()) => match first {
                Some((file, how)) => Error::OldDiffers { path: self.old.display_path(file), how },
                None => error,
            },
            Err(other) => other,
        }
    }
}
