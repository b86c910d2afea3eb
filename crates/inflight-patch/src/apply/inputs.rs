//! What an apply works from, decoded, and checked as far as that goes before anything is built.

use std::path::Path;
use std::sync::Arc;

use inflight::FileKind;
use inflight::stream::{WalkEntry, walk};

use super::packs;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::format::{BlockKind, Listing, PatchFile, TreeDigests, entry_footprint};
use crate::image::{Image, Mismatch};
use crate::job::Job;
use crate::layout::UNIT_BYTES;
use crate::manifest::{EntryKind, Manifest};
use crate::tree::Tree;
use crate::verify::wrong_files;

/// Everything an apply works from, decoded and checked.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) patch: PatchFile,
    pub(super) old: Image,
    pub(super) old_digests: TreeDigests,
    pub(super) new: Arc<Manifest>,
    pub(super) new_digests: TreeDigests,
}

impl Inputs {
    /// Reads what `patch` says of both trees. The old one has the files that it was made from, as far
    /// as names and sizes tell.
    pub(super) async fn read(job: &Job, patch: &PatchFile, old_tree: Tree) -> Result<Inputs> {
        let (old, new) = patch.listings().await?;
        let sizes = kept_sizes(&old_tree, &old).await?;
        let trees = [(BlockKind::OldDigests, &old), (BlockKind::NewDigests, &new)];
        let [old_digests, new_digests] = patch.digests(trees).await?;
        let add_up = old.add_up(&sizes) && new.add_up(&sizes);
        let (Some(old), Some(new)) = (old.with_sizes(&sizes), new.with_sizes(&sizes)) else {
            let path = old_tree.display_path(Path::new(""));
            let how = "its files have more bytes together than can be counted".into();
            return Err(Error::OldDiffers { path, how });
        };
        let old = Image::new(old_tree, Arc::new(old), Mismatch::OtherTree);
        let patch = patch.clone();
        let inputs = Inputs { patch, old, old_digests, new: Arc::new(new), new_digests };
        match add_up {
            true => Ok(inputs),
            false => Err(inputs.explain_sizes(job).await),
        }
    }

    /// The sizes of kept files are not those that they had: finds the file.
    async fn explain_sizes(&self, job: &Job) -> Error {
        match self.wrong_old_file(job).await {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => {
                let what = "the bytes of kept files do not add up";
                self.patch.damaged(Damage::new(0, what))
            }
        }
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

    /// A file came out wrong, or nothing could be made of the patch, as is so where the old files that are kept have
    /// other sizes: finds the old file that is to blame.
    pub(super) async fn explain(&self, job: &Job, error: Error) -> Error {
        if !matches!(error, Error::BuiltWrong { .. } | Error::Damaged { .. }) {
            return error;
        }
        match self.wrong_old_file(job).await {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => error,
        }
    }

    /// The first old file whose contents are not those that the patch was made from, as an error.
    async fn wrong_old_file(&self, job: &Job) -> Result<Option<Error>> {
        let mut first = None;
        wrong_files(job, &self.old, &self.old_digests, |file, how| {
            first = Some((file, how));
            false
        })
        .await?;
        let error = |(file, how)| Error::OldDiffers { path: self.old.display_path(file), how };
        Ok(first.map(error))
    }
}

/// Compares names, kinds and sizes of the old tree's files with its listing; gives the sizes of
/// kept files, in order.
async fn kept_sizes(tree: &Tree, listing: &Listing) -> Result<Vec<u64>> {
    let root = &listing.manifest().entries[0].kind;
    if tree.is_single() != matches!(root, EntryKind::File { .. }) {
        let path = tree.display_path(Path::new(""));
        return Err(Error::OldDiffers { path, how: format!("that was a {}", root.name()) });
    }
    let found = match tree.is_single() {
        true => vec![WalkEntry { path: Path::new("").into(), metadata: *tree.metadata() }],
        false => walk(tree.directory()).await?,
    };
    let mut sizes = Vec::with_capacity(listing.kept().len());
    let mut kept = listing.kept().peekable();
    for entry in &listing.manifest().entries {
        let EntryKind::File { size, .. } = entry.kind else {
            continue;
        };
        let is_kept = kept.next_if_eq(&&*entry.path).is_some();
        let place = found.binary_search_by(|other| other.path.cmp(&entry.path));
        let how = match place.ok().map(|place| &found[place].metadata) {
            None => "it is missing".into(),
            Some(found) if found.kind != FileKind::File => format!("it is a {}", found.kind.name()),
            Some(found) if is_kept => match listing.check_size(sizes.len(), found.size) {
                None => {
                    sizes.push(found.size);
                    continue;
                }
                Some(how) => how,
            },
            Some(found) if found.size != size => {
                format!("it has {} bytes in place of {size}", found.size)
            }
            Some(_) => continue,
        };
        return Err(Error::OldDiffers { path: tree.display_path(&entry.path), how });
    }
    Ok(sizes)
}
