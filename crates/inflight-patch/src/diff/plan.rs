//! How a diff spends its memory: decided before it starts.
//!
//! What every diff needs comes first (units under way, groups being compressed, manifests). Of the
//! rest, the index of the old tree takes up to a half, with chunks as fine as that allows. Small trees
//! are then held as a whole. Of large ones, a window of the old tree is held, and what was made of
//! the new one; what is left is for predicting executables.

use inflight::Reservation;

use super::chunk::ChunkSizes;
use super::counterparts::Counterparts;
use super::effort::Effort;
use super::index::Index;
use crate::error::{Error, Result};
use crate::format::entry_footprint;
use crate::image::Image;
use crate::job::Job;
use crate::layout::UNIT_BYTES;
use crate::manifest::Manifest;
use crate::preset::Preset;

/// Bytes of one write to the patch.
pub(super) const WRITE_BYTES: usize = 1 << 20;
/// Writes behind.
pub(super) const WRITE_DEPTH: usize = 4;
/// Target length of chunks when memory is no matter.
const CHUNK_BYTES: usize = 1 << 10;
/// Target length at most: coarser chunks find too little.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Units of the old tree held at least.
const HELD_UNITS_MIN: usize = 4;
/// Trees are held in memory as a whole up to this: reading in step takes less.
const HELD_BYTES_MAX: u64 = 1 << 30;
/// Units of the old tree held at first, in bytes, and at most, when what was given up is asked for
/// again and again.
const WINDOW_BYTES: u64 = 256 << 20;
const WINDOW_BYTES_MAX: u64 = 2 << 30;
/// What the allocator, stacks and small things take.
const OVERHEAD_BYTES: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Plan {
    /// Units under way at once.
    pub(super) depth: usize,
    /// Groups being compressed at once.
    pub(super) groups: usize,
    pub(super) sizes: ChunkSizes,
    /// How many chunks the index has room for.
    pub(super) index_chunks: u64,
    /// Memory with which chunks were as fine as they get, if they are not.
    pub(super) better_bytes: u64,
    /// What the same plan would take on top, had it all the memory it could use.
    pub(super) growth_bytes: u64,
    /// Whether both trees are held in memory as a whole.
    pub(super) is_held: bool,
    /// How many units of the old image are held at first, and at most, where not all of it is.
    pub(super) old_units: (usize, usize),
    /// Memory for what is left to be searched for: of that of old units, where those are held.
    pub(super) search_bytes: u64,
    /// What had to be there on top before a third of more memory were for old units.
    waiting_bytes: u64,
    /// Bytes that what was made of the new image may take until all of the old one was read.
    pub(super) drafts_bytes: u64,
    /// Memory that is not buffers, held while the job runs.
    _reserved: Reservation,
}

impl Plan {
    /// Plans a diff, and takes the memory that is not buffers.
    pub(super) fn new(job: &Job, old: &Image, new: &Image, preset: Preset) -> Result<Plan> {
        let budget = job.handle.pool().budget();
        let limit = budget.limit();
        let each = group_bytes(preset);
        // As many groups at once as there are threads, or as half of the memory allows, but not at
        // the cost of a tree that would be held.
        let most = (limit / 2 / each).clamp(1, job.crew.threads() as u64 + 1);
        let mut chosen = Sketch::new(job, old, new, preset, 1)?;
        for groups in 2..=most {
            match Sketch::new(job, old, new, preset, groups) {
                Ok(more) if more.is_held == chosen.is_held => chosen = more,
                _ => break,
            }
        }
        let reserved = job.handle.pool().try_reserve(chosen.reserved).ok_or(Error::Memory {
            needed_mib: (chosen.least + budget.used()).div_ceil(1 << 20),
            given_mib: limit >> 20,
        })?;
        let more_groups = (job.crew.threads() as u64 + 1).saturating_sub(chosen.groups);
        let more_units = job.depth().saturating_sub(chosen.depth) as u64;
        Ok(Plan {
            depth: chosen.depth,
            growth_bytes: more_groups * each + more_units * UNIT_BYTES,
            groups: chosen.groups as usize,
            sizes: ChunkSizes::around(chosen.target),
            index_chunks: chunks(old.layout.bytes, chosen.target),
            better_bytes: chosen.better,
            is_held: chosen.is_held,
            old_units: chosen.old_units,
            search_bytes: chosen.search,
            waiting_bytes: chosen.waiting,
            drafts_bytes: chosen.drafts,
            _reserved: reserved,
        })
    }

    /// More memory with which so much would be there for a search, if that is more than there is and
    /// if memory can help.
    pub(super) fn more_for_search(&self, needed: u64) -> Option<u64> {
        let short = needed.checked_sub(self.search_bytes).filter(|short| *short > 0)?;
        match self.is_held {
            true => Some(short + self.growth_bytes),
            // Of further memory a third holds old units, and half of that is for the search.
            false if needed < WINDOW_BYTES_MAX / 2 => {
                Some(6 * (short + UNIT_BYTES) + self.waiting_bytes + self.growth_bytes)
            }
            false => None,
        }
    }
}

/// Memory of a group while it is gathered and compressed, about.
fn group_bytes(preset: Preset) -> u64 {
    2 * preset.literal_bytes() as u64 + preset.compressor_bytes()
}

/// What a diff would do with its memory, if so many groups were compressed at once. In bytes.
struct Sketch {
    groups: u64,
    depth: usize,
    /// Target length of chunks.
    target: usize,
    is_held: bool,
    old_units: (usize, usize),
    search: u64,
    waiting: u64,
    drafts: u64,
    /// What is not buffers.
    reserved: u64,
    /// What is needed before anything is held.
    least: u64,
    better: u64,
}

impl Sketch {
    fn new(job: &Job, old: &Image, new: &Image, preset: Preset, groups: u64) -> Result<Sketch> {
        let limit = job.handle.pool().budget().limit();
        let threads = job.crew.threads();
        let manifests = footprint(&old.manifest)
            + footprint(&new.manifest)
            + Counterparts::bytes(new.layout.files.len());
        // One group more is being gathered, and packed ones wait for more.
        let encoding = groups * group_bytes(preset) + 3 * preset.literal_bytes() as u64;
        let reserved = manifests + encoding + OVERHEAD_BYTES;
        let writer = ((WRITE_DEPTH + 1) * WRITE_BYTES) as u64;
        // Where the trees do not fit: each thread may hold two units that were given up meanwhile
        // and wait for a third, one is fetched ahead, and new units wait to be matched.
        let transient_units = 4 * threads + 2;
        let old_bytes = old.layout.bytes;
        let units = old.layout.units().count();
        let least_units = (transient_units + HELD_UNITS_MIN).min(units) as u64 * UNIT_BYTES;
        let least_depth = threads + 1;
        let least = reserved + writer + least_depth as u64 * UNIT_BYTES + least_units;
        let index_least = Index::bytes(chunks(old_bytes, CHUNK_BYTES_MAX));
        if least + index_least > limit {
            let (needed_mib, given_mib) = ((least + index_least).div_ceil(1 << 20), limit >> 20);
            return Err(Error::Memory { needed_mib, given_mib });
        }
        // More units in flight where there is room, but not at the cost of everything else.
        let room = ((limit - least - index_least) / 4 / UNIT_BYTES) as usize;
        let depth = least_depth + room.min(job.depth().saturating_sub(least_depth));
        let fixed = least + (depth - least_depth) as u64 * UNIT_BYTES;
        let mut target = CHUNK_BYTES;
        while target < CHUNK_BYTES_MAX
            && Index::bytes(chunks(old_bytes, target)) > (limit - fixed) / 2
        {
            target *= 2;
        }
        let index_bytes = Index::bytes(chunks(old_bytes, target));
        let rest = limit - fixed - index_bytes + least_units;
        let fine = Effort::of(preset).bytes(old_bytes, new.layout.bytes);
        let is_held = old_bytes + new.layout.bytes + fine <= rest.min(HELD_BYTES_MAX);
        // The index gets half of what is left at most.
        let finest = Index::bytes(chunks(old_bytes, CHUNK_BYTES));
        let better = if target > CHUNK_BYTES { fixed + 2 * finest } else { 0 };
        let window = (rest / 3).clamp(least_units, WINDOW_BYTES_MAX.max(least_units));
        let held = |window: u64| {
            ((window / UNIT_BYTES) as usize).saturating_sub(transient_units).min(units)
        };
        let old_units = (held(window.min(WINDOW_BYTES.max(least_units))), held(window));
        let waiting = (3 * window).saturating_sub(rest);
        let (drafts, search) = match is_held {
            // Executables are done with what they take by then.
            true => {
                let (images, drafts) = (old_bytes + new.layout.bytes, fine / 4);
                (drafts, rest - images - drafts)
            }
            false => {
                let (_, most) = old_units;
                ((rest - window) / 2, (most - most / 2) as u64 * UNIT_BYTES)
            }
        };
        let (reserved, least) = (reserved + index_bytes, fixed + index_bytes);
        Ok(Sketch {
            groups,
            depth,
            target,
            is_held,
            old_units,
            search,
            waiting,
            drafts,
            reserved,
            least,
            better,
        })
    }
}

/// How many chunks an image has, with room for chance.
fn chunks(bytes: u64, target: usize) -> u64 {
    bytes / target as u64 * 5 / 4 + 1024
}

/// Memory that a manifest and its layout take, and its encoded form while it is written.
fn footprint(manifest: &Manifest) -> u64 {
    let entries = manifest.entries.iter();
    entries.map(|entry| entry_footprint(entry) + entry.path.as_os_str().len() as u64).sum()
}
