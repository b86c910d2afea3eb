//! Whether a tree is the new (or the old) tree of a patch, and what differs.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::stream::{WalkEntry, walk};
use inflight::{Buffer, FileKind};

use crate::digest::{self, UnitDigest};
use crate::error::{Error, Result};
use crate::format::{BlockKind, Checked, DigestCheck, Listing, PatchFile, TreeDigests};
use crate::image::{Image, Mismatch};
use crate::job::{Job, Phase};
use crate::layout::Layout;
use crate::manifest::{Digest, Entry, EntryKind, Manifest, Preserve};
use crate::pump::pump_image;
use crate::tree::Tree;

/// Which of a patch's two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one it is applied to.
    Old,
    /// The one it makes.
    New,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Path below the tree's root; empty for the root.
    pub path: PathBuf,
    /// What differs, in words.
    pub what: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Entries that were compared.
    pub entries: u64,
    /// Bytes that were compared.
    pub bytes: u64,
    /// All differences, in the order of paths.
    pub differences: Vec<Difference>,
}

/// Compares the tree at `path` with one of a patch's two trees.
///
/// # Errors
/// See [`crate::Error`]. That the tree differs is no error: the report says so.
pub async fn verify(job: &Job, patch: &Path, path: &Path, side: Side) -> Result<VerifyReport> {
    job.enter(Phase::Scan);
    let patch = PatchFile::open(&job.handle, patch).await?;
    let tree = Tree::open(&job.handle, path).await?;
    let (old, new) = patch.listings().await?;
    let (listing, digests) = match side {
        Side::Old => (old, BlockKind::OldDigests),
        Side::New => (new, BlockKind::NewDigests),
    };
    let [digests] = patch.digests([(digests, &listing)]).await?;
    let mut found = vec![WalkEntry { path: PathBuf::new(), metadata: *tree.metadata() }];
    if !tree.is_single() {
        found.extend(walk(tree.directory()).await?);
    }
    let mut comparison = Comparison {
        tree: &tree,
        manifest: listing.manifest(),
        found: &found,
        differences: Vec::new(),
        sizes: KeptSizes::new(&listing),
        readable: HashSet::new(),
        names: HashMap::new(),
    };
    comparison.compare().await?;
    let (mut differences, readable, sizes) = comparison.finish();
    let manifest = listing.with_sizes(&sizes).ok_or_else(|| Error::Tree {
        path: tree.display_path(Path::new("")),
        what: "has more bytes than can be counted".into(),
    })?;

    let (image, places) = readable_image(&tree, &manifest, &readable);
    job.enter(Phase::Verify);
    job.progress.expect(image.layout.bytes);
    // Those that cannot be read count as different already.
    let paths: Vec<&Path> = {
        let layout = Layout::new(&manifest);
        let entry = |file| layout.files[file as usize].entry as usize;
        layout.files_with_data().map(|file| &*manifest.entries[entry(file)].path).collect()
    };
    let mut comparing = Comparing::new(&digests);
    each_digest(job, &image, |file, digest| {
        if let Some(place) = places[file as usize] {
            comparing.add(place, digest);
        }
        true
    })
    .await?;
    let wrong = comparing.finish();
    let wrong: HashMap<&Path, String> =
        wrong.into_iter().map(|(file, what)| (paths[file], what)).collect();
    for entry in &image.manifest.entries {
        let what = match wrong.get(&*entry.path) {
            Some(what) => what.clone(),
            None if holes_are_empty(&tree, entry).await? => continue,
            None => CONTENTS_DIFFER.into(),
        };
        differences.push(Difference { path: entry.path.clone(), what });
    }
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    let entries = manifest.entries.len() as u64;
    Ok(VerifyReport { entries, bytes: image.layout.bytes, differences })
}

/// Compares everything but contents.
struct Comparison<'a> {
    tree: &'a Tree,
    manifest: &'a Manifest,
    found: &'a [WalkEntry],
    differences: Vec<Difference>,
    sizes: KeptSizes<'a>,
    /// Files whose contents are worth reading, by index of their entries.
    readable: HashSet<usize>,
    /// The path of each file that the manifest lists by itself, by device and inode.
    names: HashMap<(u64, u64), PathBuf>,
}

impl Comparison<'_> {
    /// What differs, which files' contents are worth reading, and the sizes of kept files.
    fn finish(self) -> (Vec<Difference>, HashSet<usize>, Vec<u64>) {
        (self.differences, self.readable, self.sizes.sizes)
    }

    async fn compare(&mut self) -> Result<()> {
        for (index, entry) in self.manifest.entries.iter().enumerate() {
            let is_kept = self.sizes.begin(entry);
            match self.find(&entry.path) {
                None => self.differs(&entry.path, format!("the {} is missing", entry.kind.name())),
                Some(found) => self.compare_entry(index, entry, is_kept, found).await?,
            }
        }
        let expected: HashSet<&Path> =
            self.manifest.entries.iter().map(|entry| entry.path.as_path()).collect();
        for found in self.found.iter().filter(|found| !expected.contains(&*found.path)) {
            // What a patch never holds is no difference.
            let kind = found.metadata.kind;
            if matches!(kind, FileKind::File | FileKind::Directory | FileKind::Symlink) {
                self.differs(&found.path, format!("the {} should not be there", kind.name()));
            }
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> Option<WalkEntry> {
        let place = self.found.binary_search_by(|found| found.path.as_path().cmp(path)).ok()?;
        Some(self.found[place].clone())
    }

    fn differs(&mut self, path: &Path, what: impl Into<String>) {
        self.differences.push(Difference { path: path.into(), what: what.into() });
    }

    async fn compare_entry(
        &mut self,
        index: usize,
        entry: &Entry,
        is_kept: bool,
        found: WalkEntry,
    ) -> Result<()> {
        let metadata = &found.metadata;
        let kind = match &entry.kind {
            EntryKind::Directory => FileKind::Directory,
            EntryKind::File { .. } | EntryKind::HardLink { .. } => FileKind::File,
            EntryKind::Symlink { .. } => FileKind::Symlink,
        };
        if metadata.kind != kind {
            let (is, should) = (metadata.kind.name(), kind.name());
            self.differs(&entry.path, format!("it is a {is} in place of a {should}"));
            return Ok(());
        }
        match &entry.kind {
            EntryKind::File { .. } if is_kept && let Err(what) = self.sizes.take(metadata.size) => {
                self.differs(&entry.path, what);
            }
            EntryKind::File { size, .. } if !is_kept && metadata.size != *size => {
                let what = format!("it has {} bytes in place of {size}", metadata.size);
                self.differs(&entry.path, what);
            }
            EntryKind::File { .. } => {
                self.readable.insert(index);
                let identity = (metadata.device, metadata.inode);
                if let Some(other) = self.names.insert(identity, entry.path.clone()) {
                    let what = format!("it is a hard link to {}", other.display());
                    self.differs(&entry.path, what);
                }
            }
            EntryKind::HardLink { original } => {
                let path = &self.manifest.entries[*original as usize].path;
                let original = self.find(path);
                if !original.is_some_and(|other| other.metadata.same_file(metadata)) {
                    let what = format!("it is no hard link to {}", path.display());
                    self.differs(&entry.path, what);
                }
            }
            EntryKind::Symlink { target } => {
                let place = self.tree.locate(&entry.path);
                if self.tree.directory().read_link(place).await? != *target {
                    self.differs(&entry.path, "the link points elsewhere");
                }
            }
            EntryKind::Directory => {}
        }
        let with_mode = matches!(entry.kind, EntryKind::Directory | EntryKind::File { .. });
        if with_mode && metadata.mode != entry.mode {
            let what =
                format!("its permissions are {:04o} in place of {:04o}", metadata.mode, entry.mode);
            self.differs(&entry.path, what);
        }
        self.compare_preserved(entry, &found).await
    }

    async fn compare_preserved(&mut self, entry: &Entry, found: &WalkEntry) -> Result<()> {
        let (preserve, metadata) = (self.manifest.preserve, &found.metadata);
        let Some(preserved) = &entry.preserved else {
            return Ok(());
        };
        if preserve.has(Preserve::TIMES) && metadata.modified != preserved.modified {
            self.differs(&entry.path, "its modification time differs");
        }
        if preserve.has(Preserve::OWNER) && metadata.owner != preserved.owner {
            self.differs(&entry.path, "its owner differs");
        }
        if preserve.has(Preserve::XATTRS) {
            let place = self.tree.locate(&entry.path);
            if self.tree.directory().attributes(place).await? != preserved.attributes {
                self.differs(&entry.path, "its extended attributes differ");
            }
        }
        Ok(())
    }
}

/// The sizes of kept files as they are found: one byte, where one has none that it could have.
struct KeptSizes<'a> {
    listing: &'a Listing,
    /// The entries of kept files that are still to come.
    next: std::iter::Peekable<Box<dyn Iterator<Item = &'a Path> + 'a>>,
    sizes: Vec<u64>,
}

impl<'a> KeptSizes<'a> {
    fn new(listing: &'a Listing) -> KeptSizes<'a> {
        let next: Box<dyn Iterator<Item = &Path>> = Box::new(listing.kept());
        KeptSizes { listing, next: next.peekable(), sizes: Vec::new() }
    }

    /// Goes on to an entry; whether it is a kept file.
    fn begin(&mut self, entry: &Entry) -> bool {
        let is_kept = self.next.next_if_eq(&&*entry.path).is_some();
        if is_kept {
            self.sizes.push(1);
        }
        is_kept
    }

    /// Takes the size of the file begun, if it can have it.
    fn take(&mut self, size: u64) -> Result<(), String> {
        let number = self.sizes.len() - 1;
        match self.listing.check_size(number, size) {
            Some(what) => Err(what),
            None => {
                self.sizes[number] = size;
                Ok(())
            }
        }
    }
}

const CONTENTS_DIFFER: &str = "its contents differ";

/// The part of a tree whose contents can be compared, and for each file in it its number among
/// those with data.
fn readable_image(
    tree: &Tree,
    manifest: &Manifest,
    readable: &HashSet<usize>,
) -> (Image, Vec<Option<usize>>) {
    let layout = Layout::new(manifest);
    let (mut entries, mut places) = (Vec::new(), Vec::new());
    let mut with_data = 0;
    for file in &layout.files {
        let place = (!file.image.is_empty()).then_some(with_data);
        with_data += usize::from(place.is_some());
        if readable.contains(&(file.entry as usize)) {
            entries.push(manifest.entries[file.entry as usize].clone());
            places.push(place);
        }
    }
    let manifest = Manifest { preserve: manifest.preserve, entries };
    (Image::new(tree.clone(), Arc::new(manifest), Mismatch::OtherTree), places)
}

/// Compares the digests of the files that can be read.
struct Comparing {
    files: usize,
    check: DigestCheck,
    /// The number of the next file.
    next: usize,
    /// Files that are wrong or may be, and how.
    wrong: Vec<(usize, String)>,
}

impl Comparing {
    fn new(digests: &TreeDigests) -> Comparing {
        let (files, check) = (digests.files(), DigestCheck::new(digests));
        Comparing { files, check, next: 0, wrong: Vec::new() }
    }

    /// Takes the digest of a file behind the last one.
    fn add(&mut self, file: usize, digest: Digest) {
        self.pass_until(file);
        self.step(Some(digest));
    }

    fn pass_until(&mut self, file: usize) {
        while self.next < file {
            self.step(None);
        }
    }

    fn step(&mut self, digest: Option<Digest>) {
        self.next += 1;
        let Checked { wrong, doubtful, unknown } = self.check.next(digest).unwrap_or_default();
        let may = match doubtful.len() {
            0 => String::new(),
            count => format!("its contents may differ: those of some of {count} files do"),
        };
        let cannot = "its contents cannot be checked, as files beside it are missing";
        self.wrong.extend(wrong.into_iter().map(|file| (file, CONTENTS_DIFFER.into())));
        self.wrong.extend(doubtful.into_iter().map(|file| (file, may.clone())));
        self.wrong.extend(unknown.into_iter().map(|file| (file, cannot.into())));
    }

    fn finish(mut self) -> Vec<(usize, String)> {
        self.pass_until(self.files);
        self.wrong
    }
}

/// Bytes of a unit, and the digests of the files in it.
type Hashed = (u64, Vec<(u32, UnitDigest)>);

/// Reads an image once and tells `each` the digest of every file with data, in order, until it
/// says to stop.
async fn each_digest(
    job: &Job,
    image: &Image,
    mut each: impl FnMut(u32, Digest) -> bool,
) -> Result<()> {
    let mut open: Vec<UnitDigest> = Vec::new();
    let mut go_on = true;
    let layout = image.layout.clone();
    let work = move |range, buffer: Buffer| {
        let digests = digest::unit_of_image(&layout, &range, &buffer);
        Ok((buffer.len() as u64, digests))
    };
    let finish = async |(bytes, digests): Hashed| {
        for (file, digest) in digests {
            open.push(digest);
            let span = &image.layout.files[file as usize];
            if open.len() as u64 == span.units() {
                go_on = go_on && each(file, digest::whole(&open, span.bytes()));
                open.clear();
            }
        }
        job.progress.advance(bytes);
        Ok(())
    };
    pump_image(job, image, job.depth(), None, work, finish).await
}

/// Tells `each` the files of an image whose contents do not have the digests they should have, and
/// how they differ, until it says to stop.
pub(crate) async fn wrong_files(
    job: &Job,
    image: &Image,
    digests: &TreeDigests,
    mut each: impl FnMut(u32, String) -> bool,
) -> Result<()> {
    let with_data: Vec<u32> = image.layout.files_with_data().collect();
    let mut comparing = Comparing::new(digests);
    let mut next = 0;
    each_digest(job, image, |_, digest| {
        comparing.add(next, digest);
        next += 1;
        let mut wrong = comparing.wrong.drain(..);
        wrong.all(|(file, what)| each(with_data[file], what))
    })
    .await
}

/// Whether a file has nothing but zeros where its manifest says that holes are.
async fn holes_are_empty(tree: &Tree, entry: &Entry) -> Result<bool> {
    let EntryKind::File { holes, .. } = &entry.kind else {
        return Ok(true);
    };
    if holes.is_empty() {
        return Ok(true);
    }
    let file = tree.directory().open(tree.locate(&entry.path), tree.reading_beneath()).await?;
    for (hole, length) in holes {
        let (mut position, end) = (*hole, hole + length);
        while let Some((data, data_end)) = file.find_data(position).await? {
            if data >= end {
                break;
            }
            let stop = data_end.min(end);
            let mut at = data.max(position);
            while at < stop {
                let part = (stop - at).min(1 << 20) as usize;
                let buffer = file.handle().buffer(part).await;
                let buffer = file.read_full(buffer, part, at).await?;
                if buffer.len() < part || buffer.iter().any(|byte| *byte != 0) {
                    return Ok(false);
                }
                at += part as u64;
            }
            position = stop;
        }
    }
    Ok(true)
}
