//! The old image, to compare with: all of it where memory allows, else the units in use.
//!
//! Where it does not fit, units come and go, least recently used first. A unit that is asked for at
//! one place is not read as a whole at once: only where a match goes on, or after some such slices,
//! is that done, and the one behind it is then fetched ahead, because such matches go on along the
//! old image.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use inflight::{ArenaBytes, Buffer, DriverChoice, Handle, block_on};

use crate::error::Result;
use crate::image::Image;

/// The longest old image that the fine grain can name places in.
pub(crate) const IMAGE_BYTES_MAX: usize = u32::MAX as usize;

/// The old image in memory, wholly or in parts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct OldImage {
    image: Image,
    held: Held,
}

#[derive(Debug, Clone)]
enum Held {
    Whole(Arc<ArenaBytes>),
    Units(Arc<Units>),
}

/// Units that come and go.
#[derive(Debug)]
struct Units {
    image: Image,
    handle: Handle,
    units: Vec<Range<u64>>,
    state: Mutex<State>,
    /// Wakes those who wait for a unit that another reads.
    loaded: Condvar,
}

/// Units by which more are held when one that was given up is asked for again, and the page cache
/// does not have it: where it does, reading again costs less than memory that nobody touched yet.
const GROWTH: usize = 4;

/// Bytes read where one place of a unit is asked for, and how many of them lie before it, about.
const SLICE_BYTES: u64 = 16 << 10;
const SLICE_BEFORE: u64 = 4 << 10;
/// How much longer the next slice is where a match goes on at the end of one, and how long at most:
/// then the unit is read.
const SLICE_GROWTH: u64 = 8;
const SLICE_BYTES_MAX: u64 = 128 << 10;
/// Slices after which a unit is read as a whole.
const SLICES_MAX: u32 = 32;

#[derive(Debug, Default)]
struct State {
    held: HashMap<usize, HeldUnit>,
    /// How many units are held for now: more only once that is seen to pay.
    capacity: usize,
    /// How many units may be held.
    most: usize,
    /// Whether units are asked for in another order than they are read.
    is_in_disorder: bool,
    /// Units that were given up.
    gone: HashSet<usize>,
    /// How many slices were read of units that are not held.
    slices: HashMap<usize, u32>,
    clock: u64,
    /// Units that are being read as a whole, and whether one of them is fetched ahead.
    loading: HashSet<usize>,
    is_ahead: bool,
}

impl State {
    /// A unit that is held.
    fn held(&mut self, unit: usize) -> Option<Arc<Buffer>> {
        self.clock += 1;
        let held = self.held.get_mut(&unit)?;
        held.used = self.clock;
        Some(held.bytes.clone())
    }

    /// Gives up what is more than may be held, least recently used first.
    fn shrink(&mut self) {
        while self.held.len() > self.capacity {
            let oldest = self.held.iter().min_by_key(|(_, held)| held.used).map(|(unit, _)| *unit);
            let Some(oldest) = oldest else { break };
            self.held.remove(&oldest);
            self.gone.insert(oldest);
        }
    }
}

/// That a unit is being read: those who wait for it look again when this is gone, however it ended.
#[derive(Debug)]
struct Loading {
    units: Arc<Units>,
    unit: usize,
    is_ahead: bool,
}

impl Drop for Loading {
    fn drop(&mut self) {
        let mut state = self.units.state();
        state.loading.remove(&self.unit);
        state.is_ahead &= !self.is_ahead;
        drop(state);
        self.units.loaded.notify_all();
    }
}

#[derive(Debug)]
struct HeldUnit {
    bytes: Arc<Buffer>,
    used: u64,
}

impl OldImage {
    /// An image that is in memory.
    pub(crate) fn whole(image: Image, bytes: ArenaBytes) -> OldImage {
        OldImage { image, held: Held::Whole(Arc::new(bytes)) }
    }

    /// An image of which `first` units are in memory, and at most `most` when units that were given
    /// up are asked for again.
    pub(crate) fn in_units(image: Image, handle: Handle, first: usize, most: usize) -> OldImage {
        let units = image.layout.units().collect();
        let state = Mutex::new(State { capacity: first.min(most), most, ..State::default() });
        let shared = Units { image: image.clone(), handle, units, state, loaded: Condvar::new() };
        OldImage { image, held: Held::Units(Arc::new(shared)) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.image.layout.bytes
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// All of its bytes, if they are in memory.
    pub(crate) fn whole_bytes(&self) -> Option<&[u8]> {
        match &self.held {
            Held::Whole(bytes) => Some(bytes),
            Held::Units(_) => None,
        }
    }

    /// All of its bytes to work on, if they are in memory and nobody else has them.
    pub(crate) fn whole_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.held {
            Held::Whole(bytes) => Arc::get_mut(bytes).map(|bytes| &mut bytes[..]),
            Held::Units(_) => None,
        }
    }

    /// Holds a unit that was just read.
    pub(crate) fn hold(&self, unit: usize, bytes: Buffer) {
        if let Held::Units(units) = &self.held {
            let mut state = units.state();
            if state.is_in_disorder && self.image.is_around_cache(units.units[unit].start) {
                state.capacity = state.most;
            }
            drop(state);
            units.insert(unit, Arc::new(bytes));
        }
    }

    /// From now on `first` units are held, and at most `most`, as for a new image in units.
    pub(crate) fn hold_at_most(&self, (first, most): (usize, usize)) {
        if let Held::Units(units) = &self.held {
            let mut state = units.state();
            (state.capacity, state.most) = (first.min(most), most);
            state.shrink();
        }
    }

    /// It will be asked for in another order than it is read: what is read around the page cache from now
    /// on is held, as much of it as may be.
    pub(crate) fn expect_disorder(&self) {
        if let Held::Units(units) = &self.held {
            units.state().is_in_disorder = true;
        }
    }

    /// Gives up the units that are held.
    pub(crate) fn forget(&self) {
        if let Held::Units(units) = &self.held {
            units.state().held.clear();
        }
    }

    /// A view for one piece of work.
    pub(crate) fn view(&self) -> OldView {
        OldView { old: self.clone(), recent: [None, None] }
    }
}

impl Units {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of the unit around `place`, or some of them, and where they are: read if they are not
    /// here. So many bytes, on one side of it, were looked at before. May block: only for threads of
    /// the crew.
    fn around(self: &Arc<Units>, place: u64, before: u64) -> Result<(Range<u64>, Arc<Buffer>)> {
        let number = self.units.partition_point(|range| range.end <= place);
        let unit = self.units[number].clone();
        let length = SLICE_BYTES.max(before * SLICE_GROWTH);
        let goes_on = length > SLICE_BYTES_MAX;
        let held = self.state().held(number);
        if goes_on {
            self.fetch_ahead(number + 1);
        }
        if let Some(bytes) = held {
            return Ok((unit, bytes));
        }
        if goes_on || !self.is_sliced(number) {
            return Ok((unit, self.unit(number)?));
        }
        let start = place.saturating_sub(length / SLICE_BYTES * SLICE_BEFORE);
        let start = (start / SLICE_BEFORE * SLICE_BEFORE).max(unit.start);
        let slice = start..unit.end.min(start + length);
        Ok((slice.clone(), Arc::new(block_on(self.load(slice))?)))
    }

    /// Whether a slice of a unit is read rather than all of it; takes note of that.
    fn is_sliced(&self, unit: usize) -> bool {
        let mut state = self.state();
        let slices = state.slices.entry(unit).or_default();
        *slices += 1;
        let sliced = *slices <= SLICES_MAX;
        if !sliced {
            state.slices.remove(&unit);
        }
        sliced
    }

    /// All bytes of a unit.
    fn unit(self: &Arc<Units>, unit: usize) -> Result<Arc<Buffer>> {
        match self.take(unit) {
            Ok(bytes) => Ok(bytes),
            Err(_loading) => {
                let bytes = Arc::new(block_on(self.load(self.units[unit].clone()))?);
                self.insert(unit, bytes.clone());
                Ok(bytes)
            }
        }
    }

    /// A unit that is held, or that another thread reads. Else the caller has to read it.
    fn take(self: &Arc<Units>, unit: usize) -> std::result::Result<Arc<Buffer>, Loading> {
        let mut state = self.state();
        loop {
            if let Some(bytes) = state.held(unit) {
                return Ok(bytes);
            }
            // Where all happens on one thread, whoever waited would wait for itself.
            if state.loading.insert(unit) || self.is_on_one_thread() {
                break;
            }
            state = self.loaded.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.gone.remove(&unit) && self.image.is_around_cache(self.units[unit].start) {
            state.capacity = (state.capacity + GROWTH).min(state.most);
        }
        Err(Loading { units: self.clone(), unit, is_ahead: false })
    }

    fn is_on_one_thread(&self) -> bool {
        self.handle.driver() == DriverChoice::Simulated
    }

    async fn load(&self, range: Range<u64>) -> Result<Buffer> {
        let buffer = self.handle.buffer((range.end - range.start) as usize).await;
        self.image.read(range, buffer).await
    }

    fn insert(&self, unit: usize, bytes: Arc<Buffer>) {
        let mut state = self.state();
        state.clock += 1;
        let used = state.clock;
        state.held.insert(unit, HeldUnit { bytes, used });
        state.shrink();
    }

    /// Starts reading a unit that will probably be asked for next; one at a time.
    fn fetch_ahead(self: &Arc<Units>, unit: usize) {
        let mut state = self.state();
        if unit >= self.units.len()
            || state.is_ahead
            || state.held.contains_key(&unit)
            || !state.loading.insert(unit)
        {
            return;
        }
        state.is_ahead = true;
        drop(state);
        let loading = Loading { units: self.clone(), unit, is_ahead: true };
        let task = async move {
            let Loading { units, .. } = &loading;
            // An error shows again, with its place, when the unit is really needed.
            if let Ok(bytes) = units.load(units.units[unit].clone()).await {
                units.insert(unit, Arc::new(bytes));
            }
        };
        self.handle.spawn(task).detach();
    }
}

/// Reads the old image at any place; holds the two units, or slices of them, that it used last.
#[derive(Debug)]
pub(crate) struct OldView {
    old: OldImage,
    recent: [Option<(Range<u64>, Arc<Buffer>)>; 2],
}

impl OldView {
    /// The bytes that `place` lies among, and where they are. `place` must lie in the image.
    fn around(&mut self, place: u64) -> Result<(Range<u64>, &[u8])> {
        let units = match &self.old.held {
            Held::Whole(bytes) => return Ok((0..bytes.len() as u64, bytes)),
            Held::Units(units) => units,
        };
        let holds = |slot: &Option<(Range<u64>, Arc<Buffer>)>| {
            slot.as_ref().is_some_and(|(range, _)| range.contains(&place))
        };
        if !holds(&self.recent[0]) {
            self.recent.swap(0, 1);
        }
        if !holds(&self.recent[0]) {
            let is_beside = |range: &Range<u64>| range.end == place || range.start == place + 1;
            let beside = self.recent.iter().flatten().find(|(range, _)| is_beside(range));
            let before = beside.map_or(0, |(range, _)| range.end - range.start);
            // Let go of the older one first: what is held has a bound.
            self.recent[0] = None;
            self.recent[0] = Some(units.around(place, before)?);
        }
        let (range, bytes) = self.recent[0].as_ref().expect("just put there");
        Ok((range.clone(), bytes))
    }

    /// How many bytes at the start of `new` are equal to the old image from `place` on.
    pub(crate) fn equal_ahead(&mut self, new: &[u8], place: u64) -> Result<usize> {
        let mut equal = 0;
        while equal < new.len() && place + (equal as u64) < self.old.bytes() {
            let at = place + equal as u64;
            let (range, bytes) = self.around(at)?;
            let here = &bytes[(at - range.start) as usize..];
            let count = common_prefix(&new[equal..], here);
            equal += count;
            if count < here.len() {
                break;
            }
        }
        Ok(equal)
    }

    /// How many bytes at the end of `new` are equal to the old image before `place`.
    pub(crate) fn equal_behind(&mut self, new: &[u8], place: u64) -> Result<usize> {
        let mut equal = 0;
        while equal < new.len() && (equal as u64) < place {
            let end = place - equal as u64;
            let (range, bytes) = self.around(end - 1)?;
            let here = &bytes[..(end - range.start) as usize];
            let count = common_suffix(&new[..new.len() - equal], here);
            equal += count;
            if count < here.len() {
                break;
            }
        }
        Ok(equal)
    }

    /// Bytes of the old image.
    pub(crate) fn length(&self) -> u64 {
        self.old.bytes()
    }

    /// All of the old image, if it is in memory.
    pub(crate) fn whole_range(&self) -> Option<Range<u64>> {
        self.old.whole_bytes().map(|bytes| 0..bytes.len() as u64)
    }

    /// Gives `work` a range of the old image in one piece.
    pub(crate) fn with_bytes<T>(
        &mut self,
        range: Range<u64>,
        work: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        if let Some(whole) = self.old.whole_bytes() {
            return Ok(work(&whole[range.start as usize..range.end as usize]));
        }
        let (around, bytes) = self.around(range.start)?;
        if range.end <= around.end {
            let start = (range.start - around.start) as usize;
            return Ok(work(&bytes[start..start + (range.end - range.start) as usize]));
        }
        let mut joined = Vec::with_capacity((range.end - range.start) as usize);
        while joined.len() < joined.capacity() {
            let at = range.start + joined.len() as u64;
            let missing = (range.end - at) as usize;
            joined.extend_from_slice(self.bytes_at(at, missing)?);
        }
        Ok(work(&joined))
    }

    /// The old bytes at `place`, at most `length`: as many as are at hand in one piece.
    fn bytes_at(&mut self, place: u64, length: usize) -> Result<&[u8]> {
        let (range, bytes) = self.around(place)?;
        let here = &bytes[(place - range.start) as usize..];
        Ok(&here[..here.len().min(length)])
    }
}

/// How many bytes at the start of both are equal.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK));
    let equal = blocks.take_while(|(a, b)| a == b).count() * BLOCK;
    equal + a[equal..].iter().zip(&b[equal..]).take_while(|(a, b)| a == b).count()
}

/// How many bytes at the end of both are equal.
pub(crate) fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let blocks = a.rchunks_exact(BLOCK).zip(b.rchunks_exact(BLOCK));
    let equal = blocks.take_while(|(a, b)| a == b).count() * BLOCK;
    let (a, b) = (&a[..a.len() - equal], &b[..b.len() - equal]);
    equal + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "changes files behind the engine's back")]
mod tests {
    use std::path::Path;

    use inflight::Engine;
    use proptest::prelude::*;

    use super::*;
    use crate::image::Mismatch;
    use crate::layout::UNIT_BYTES;
    use crate::manifest::Preserve;
    use crate::tree::{Tree, scan};

    /// The image of a file, of which so many units are held.
    fn in_units(engine: &Engine, file: &Path, units: usize) -> OldImage {
        let scanned = engine.block_on(async {
            let tree = Tree::open(engine, file).await.expect("there");
            scan(tree, Preserve::default()).await.expect("listed")
        });
        let image = Image::new(scanned.tree, Arc::new(scanned.manifest), Mismatch::Changed);
        OldImage::in_units(image, engine.handle().clone(), units, units)
    }

    #[test]
    fn who_asks_for_what_another_reads_waits_for_it() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let bytes: Vec<u8> = (0..16 * UNIT_BYTES).map(|at| ((at * at) >> 13) as u8).collect();
        let file = place.path().join("old");
        std::fs::write(&file, &bytes).expect("written");
        let engine = Engine::new().expect("an engine");
        let old = in_units(&engine, &file, 16);
        let before = engine.metrics().bytes_read;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (mut view, bytes) = (old.view(), &bytes);
                scope.spawn(move || assert_eq!(view.equal_ahead(bytes, 0).unwrap(), bytes.len()));
            }
        });
        let read = engine.metrics().bytes_read - before;
        assert!(read < 18 * UNIT_BYTES, "{read} bytes of {}", bytes.len());
    }

    #[test]
    fn what_cannot_be_read_leaves_nobody_waiting() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let file = place.path().join("old");
        std::fs::write(&file, vec![7; 4 * UNIT_BYTES as usize]).expect("written");
        let engine = Engine::new().expect("an engine");
        let old = in_units(&engine, &file, 4);
        // Slices of the second unit can be read, but not all of it.
        std::fs::write(&file, vec![7; UNIT_BYTES as usize + (200 << 10)]).expect("written");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut view = old.view();
                scope.spawn(move || {
                    let same = vec![7; 3 * UNIT_BYTES as usize];
                    assert!(view.equal_ahead(&same, UNIT_BYTES).is_err(), "it is shorter by now");
                });
            }
        });
    }

    proptest! {
        #[test]
        fn common_parts_are_exact(
            shared in prop::collection::vec(0u8..3, 0..300),
            a in prop::collection::vec(0u8..3, 0..100),
            b in prop::collection::vec(0u8..3, 0..100),
        ) {
            let count = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            let (x, y) = ([&shared[..], &a].concat(), [&shared[..], &b].concat());
            prop_assert_eq!(common_prefix(&x, &y), shared.len() + count);
            let count = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
            let (x, y) = ([&a[..], &shared].concat(), [&b[..], &shared].concat());
            prop_assert_eq!(common_suffix(&x, &y), shared.len() + count);
        }
    }
}
