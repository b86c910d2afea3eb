//! A manifest as a patch has it: without the sizes of files that both trees have.
//!
//! The sizes of thousands of small files do not compress, and most files of a new version are those
//! of the old one. Whoever applies a patch or compares a tree has them at hand.

use std::path::Path;

use crate::manifest::{EntryKind, Manifest};

/// A manifest in which the sizes of kept files are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The size of kept files is zero here.
    manifest: Manifest,
    /// The entries of kept files, in order.
    kept: Vec<u32>,
    stretches: Vec<Stretch>,
}

/// Kept files without another file between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// How many kept files there are up to its end.
    pub(crate) end: usize,
    /// Bytes of its files together.
    pub(crate) bytes: u64,
}

impl Listing {
    /// All entries must be checked by now; each stretch has at least a byte for each of its files.
    pub(super) fn new(manifest: Manifest, kept: Vec<u32>, stretches: Vec<Stretch>) -> Listing {
        debug_assert_eq!(stretches.last().map_or(0, |last| last.end), kept.len());
        Listing { manifest, kept, stretches }
    }

    /// The manifest, with a size of zero for kept files.
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The paths of kept files, in order.
    pub(crate) fn kept(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.kept.iter().map(|entry| &*self.manifest.entries[*entry as usize].path)
    }

    /// The entries of kept files, in order.
    pub(crate) fn kept_entries(&self) -> &[u32] {
        &self.kept
    }

    /// Whether each file with data is kept, in order.
    pub(crate) fn is_kept(&self) -> Vec<bool> {
        let mut kept = self.kept.iter().copied().peekable();
        let mut all = Vec::new();
        for (number, entry) in (0u32..).zip(&self.manifest.entries) {
            let EntryKind::File { size, holes } = &entry.kind else {
                continue;
            };
            let is_kept = kept.next_if_eq(&number).is_some();
            let holes: u64 = holes.iter().map(|(_, length)| length).sum();
            if is_kept || *size > holes {
                all.push(is_kept);
            }
        }
        all
    }

    /// Bytes of data in all.
    pub(crate) fn bytes(&self) -> u64 {
        let kept: u64 = self.stretches.iter().map(|stretch| stretch.bytes).sum();
        crate::layout::Layout::new(&self.manifest).bytes + kept
    }

    /// What is wrong with a size that the kept file of a number among them cannot have.
    pub(crate) fn check_size(&self, kept: usize, size: u64) -> Option<String> {
        let stretch = self.stretches.partition_point(|stretch| stretch.end <= kept);
        let most = self.stretches[stretch].bytes;
        match size {
            0 => Some("it is empty".into()),
            _ if size > most => Some(format!("it has {size} bytes in place of at most {most}")),
            _ => None,
        }
    }

    /// Whether files of these sizes have as many bytes together, wherever they are side by side, as
    /// the kept ones.
    pub(crate) fn add_up(&self, sizes: &[u64]) -> bool {
        let mut start = 0;
        self.stretches.iter().all(|stretch| {
            let sizes = &sizes[std::mem::replace(&mut start, stretch.end)..stretch.end];
            sizes.iter().map(|size| u128::from(*size)).sum::<u128>() == stretch.bytes.into()
        })
    }

    /// The manifest with the sizes of kept files, in order; none if there is more than can be
    /// counted.
    pub(crate) fn with_sizes(mut self, sizes: &[u64]) -> Option<Manifest> {
        for (entry, bytes) in self.kept.iter().zip(sizes) {
            if let EntryKind::File { size, .. } = &mut self.manifest.entries[*entry as usize].kind {
                *size = *bytes;
            }
        }
        let sizes = self.manifest.entries.iter().map(|entry| match entry.kind {
            EntryKind::File { size, .. } => u128::from(size),
            _ => 0,
        });
        (sizes.sum::<u128>() <= i64::MAX as u128).then_some(self.manifest)
    }

    /// A manifest in which all bytes of a stretch are those of its first file: what is not kept
    /// lies where it should.
    pub(crate) fn with_stand_ins(self) -> Manifest {
        let mut sizes = vec![0; self.kept.len()];
        let mut start = 0;
        for stretch in &self.stretches {
            sizes[std::mem::replace(&mut start, stretch.end)] = stretch.bytes;
        }
        self.with_sizes(&sizes).expect("the sum was checked")
    }
}
