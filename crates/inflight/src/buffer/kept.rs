//! Blocks that wait for their next use, in classes of a power of two.
//!
//! Small blocks are cut from slabs: memory of one huge page, so that many of them share one entry
//! of the processor's table and lie in one piece, which is also what a device likes. A slab's blocks
//! are all of one class. What is kept counts in bytes of memory taken: a slab's blocks do so from its
//! making on, until they are cooled, which gives their memory back while the rest of the slab is in
//! use; the system takes it when it is short, at the latest.
//!
//! Some memory may be set aside that the kernel knows in advance. It is cut into slabs like any other,
//! goes out before any other, and is never given up: so it is counted nowhere here.

use super::block::{BLOCK_BYTES, Block, HUGE_PAGE_BYTES};

/// Classes hold blocks of 4 KiB, 8 KiB, … 2 GiB.
pub(super) const CLASSES: usize = 20;
/// A slab is worth its memory once a class has so many bytes in blocks of their own.
const ALONE_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Kept {
    classes: [Class; CLASSES],
    slabs: Vec<Option<Slab>>,
    /// Of memory, in all that is kept, but for what is set aside.
    bytes: u64,
    set_aside: Option<SetAside>,
    /// The system does not take parts of slabs back: there are no more of them.
    keeps_all: bool,
    /// The node whose memory it is, if there are several.
    node: Option<u32>,
}

/// Memory that the kernel knows.
struct SetAside {
    memory: Block,
    /// Where in it slabs can be made.
    free: Vec<usize>,
}

#[derive(Default)]
struct Class {
    /// The last one used goes out first: the processor may still have it.
    blocks: Vec<Block>,
    /// The same of what is set aside.
    registered: Vec<Block>,
    /// How many blocks with memory of their own there are, lent ones among them.
    alone: usize,
}

struct Slab {
    memory: Memory,
    class: usize,
    lent: usize,
}

enum Memory {
    Own(Block),
    /// From a place on of what is set aside.
    SetAside(usize),
}

/// The class that holds blocks of at least `bytes`.
pub(super) fn class_of(bytes: usize) -> usize {
    let pages = bytes.div_ceil(BLOCK_BYTES).max(1);
    pages.next_power_of_two().trailing_zeros() as usize
}

pub(super) fn class_bytes(class: usize) -> usize {
    BLOCK_BYTES << class
}

impl Kept {
    /// Of the memory of one node, if there are several.
    pub(super) fn on(node: Option<u32>) -> Kept {
        Kept { node, ..Kept::default() }
    }

    /// With so many bytes set aside, in whole slabs.
    pub(super) fn with_set_aside(node: Option<u32>, bytes: usize) -> Kept {
        let bytes = bytes - bytes % HUGE_PAGE_BYTES;
        if bytes == 0 {
            return Kept::on(node);
        }
        let free = (0..bytes).step_by(HUGE_PAGE_BYTES).rev().collect();
        let memory = Block::allocate_on(bytes, node);
        Kept { set_aside: Some(SetAside { memory, free }), ..Kept::on(node) }
    }

    /// Where the memory is that the kernel may know.
    pub(super) fn set_aside(&self) -> Option<(*mut u8, usize)> {
        let memory = &self.set_aside.as_ref()?.memory;
        Some((memory.as_ptr(), memory.bytes()))
    }

    /// A block of a class, and what is to be freed so that at most `room` bytes are kept.
    pub(super) fn take(&mut self, class: usize, room: u64) -> (Block, Vec<Block>) {
        let mut found = self.pop(class, true);
        if found.is_none() && self.add_registered_slab(class) {
            found = self.pop(class, true);
        }
        found = found.or_else(|| self.pop(class, false));
        let freed = self.shrink_to(room);
        if found.is_none() && self.is_worth_a_slab(class, room) {
            self.add_slab(class);
            found = self.pop(class, false);
        }
        let block = found.unwrap_or_else(|| {
            self.classes[class].alone += 1;
            Block::allocate_on(class_bytes(class), self.node)
        });
        (block, freed)
    }

    /// Takes a block back.
    pub(super) fn give(&mut self, block: Block) {
        if let Some(slab) = block.slab() {
            self.slab(slab).lent -= 1;
        }
        let class = &mut self.classes[class_of(block.bytes())];
        if block.is_registered() {
            return class.registered.push(block);
        }
        self.bytes += block.bytes() as u64;
        class.blocks.push(block);
    }

    fn pop(&mut self, class: usize, registered: bool) -> Option<Block> {
        let kept = &mut self.classes[class];
        let mut block = match registered {
            true => kept.registered.pop()?,
            false => kept.blocks.pop()?,
        };
        if let Some(slab) = block.slab() {
            self.slab(slab).lent += 1;
        }
        if !block.is_registered() && !block.warm_up() {
            self.bytes -= block.bytes() as u64;
        }
        Some(block)
    }

    fn slab(&mut self, number: u32) -> &mut Slab {
        self.slabs[number as usize].as_mut().expect("a slab outlives its blocks")
    }

    fn is_worth_a_slab(&self, class: usize, room: u64) -> bool {
        let bytes = class_bytes(class);
        cfg!(target_os = "linux")
            && !self.keeps_all
            && bytes < HUGE_PAGE_BYTES
            && (self.classes[class].alone + 1) * bytes >= ALONE_BYTES
            && self.bytes + (HUGE_PAGE_BYTES - bytes) as u64 <= room
    }

    /// Makes a slab of what is set aside, if there is still a place for one, or one of another class
    /// of which nothing is lent.
    fn add_registered_slab(&mut self, class: usize) -> bool {
        let Some(set_aside) = &mut self.set_aside else { return false };
        if class_bytes(class) > HUGE_PAGE_BYTES {
            return false;
        }
        let start = set_aside.free.pop().or_else(|| {
            let unused =
                |slab: &mut Slab| slab.lent == 0 && matches!(slab.memory, Memory::SetAside(_));
            let mut slabs = self.slabs.iter_mut().enumerate();
            let (number, slab) =
                slabs.find_map(|(number, slab)| Some((number, slab.take_if(unused)?)))?;
            let other = |block: &Block| block.slab() != Some(number as u32);
            self.classes[slab.class].registered.retain(other);
            match slab.memory {
                Memory::SetAside(start) => Some(start),
                Memory::Own(_) => None,
            }
        });
        let Some(start) = start else { return false };
        let place = self.free_place();
        let (memory, bytes) = (&self.set_aside, class_bytes(class));
        let Some(SetAside { memory, .. }) = memory else { return false };
        for within in (0..HUGE_PAGE_BYTES).step_by(bytes).rev() {
            // SAFETY: the pieces do not overlap, nor do slabs, and what is set aside is freed last.
            let block = unsafe { memory.part(start + within, bytes, place as u32) };
            self.classes[class].registered.push(block.registered());
        }
        self.slabs[place] = Some(Slab { memory: Memory::SetAside(start), class, lent: 0 });
        true
    }

    /// A place for another slab.
    fn free_place(&mut self) -> usize {
        let place = self.slabs.iter().position(Option::is_none).unwrap_or(self.slabs.len());
        if place == self.slabs.len() {
            self.slabs.push(None);
        }
        place
    }

    fn add_slab(&mut self, class: usize) {
        let place = self.free_place();
        let memory = Block::allocate_on(HUGE_PAGE_BYTES, self.node);
        // From its end on: what is taken first lies in front.
        for start in (0..HUGE_PAGE_BYTES).step_by(class_bytes(class)).rev() {
            // SAFETY: the pieces do not overlap, and the slab is freed only when it has them all.
            let block = unsafe { memory.part(start, class_bytes(class), place as u32) };
            self.classes[class].blocks.push(block);
        }
        self.bytes += HUGE_PAGE_BYTES as u64;
        self.slabs[place] = Some(Slab { memory: Memory::Own(memory), class, lent: 0 });
    }

    /// Gives memory up until at most `bytes` are kept: blocks of their own, the largest first, then
    /// slabs of which nothing is lent, then the free parts of the others. What it returns is to be
    /// freed, outside of the lock.
    pub(super) fn shrink_to(&mut self, bytes: u64) -> Vec<Block> {
        let mut freed = Vec::new();
        if self.bytes <= bytes {
            return freed;
        }
        for class in self.classes.iter_mut().rev() {
            let mut place = class.blocks.len();
            while self.bytes > bytes && place > 0 {
                place -= 1;
                if class.blocks[place].slab().is_none() {
                    let block = class.blocks.remove(place);
                    self.bytes -= block.bytes() as u64;
                    class.alone -= 1;
                    freed.push(block);
                }
            }
        }
        for (number, place) in self.slabs.iter_mut().enumerate() {
            if self.bytes > bytes
                && let Some(Slab { memory: Memory::Own(memory), class, .. }) =
                    place.take_if(|slab| slab.lent == 0 && matches!(slab.memory, Memory::Own(_)))
            {
                self.classes[class].blocks.retain(|block| {
                    let other = block.slab() != Some(number as u32);
                    self.bytes -= if other || block.is_cold() { 0 } else { block.bytes() as u64 };
                    other
                });
                freed.push(memory);
            }
        }
        for block in self.classes.iter_mut().rev().flat_map(|class| &mut class.blocks) {
            if self.keeps_all || self.bytes <= bytes {
                break;
            }
            let Some(slab) = block.slab().filter(|_| !block.is_cold()) else { continue };
            // Else the system might fill up the page again.
            if let Some(Slab { memory: Memory::Own(memory), .. }) = &self.slabs[slab as usize] {
                memory.forbid_huge_pages();
            }
            match block.cool() {
                true => self.bytes -= block.bytes() as u64,
                // So it is with memory that a process locks.
                false => self.keeps_all = true,
            }
        }
        freed
    }

    /// Bytes of memory, but for what is set aside.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANY: u64 = 1 << 30;

    #[test]
    #[cfg(target_os = "linux")]
    fn many_small_blocks_lie_in_one_slab() {
        let mut kept = Kept::default();
        let class = class_of(4096);
        let mut blocks: Vec<Block> = (0..15).map(|_| kept.take(class, MANY).0).collect();
        assert!(blocks.iter().all(|block| block.slab().is_none()), "a few do not pay");
        assert!(kept.slabs.is_empty());
        blocks.extend((0..512).map(|_| kept.take(class, MANY).0));
        let first = blocks[15].as_ptr() as usize;
        assert_eq!(first % HUGE_PAGE_BYTES, 0);
        let places = blocks[15..].iter().map(|block| block.as_ptr() as usize);
        assert!(places.eq((first..first + HUGE_PAGE_BYTES).step_by(4096)));
        assert_eq!(kept.bytes, 0);
        assert!(kept.take(class, 0).0.slab().is_none(), "no room for another slab");
        assert!(kept.take(class_of(256 << 10), MANY).0.slab().is_some(), "a large one does pay");
        assert_eq!(kept.bytes, 7 * (256 << 10));
        assert!(kept.take(class_of(2 << 20), MANY).0.slab().is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_slab_in_use_gives_back_what_is_free_of_it() {
        let mut kept = Kept::default();
        let class = class_of(512 << 10);
        let (held, _) = kept.take(class, MANY);
        let (other, _) = kept.take(class, MANY);
        // SAFETY: the blocks are ours, and that long.
        unsafe {
            held.as_ptr().write_bytes(7, held.bytes());
            other.as_ptr().write_bytes(8, other.bytes());
        }
        let place = other.as_ptr();
        kept.give(other);
        assert_eq!(kept.bytes, 3 * (512 << 10));
        assert!(kept.shrink_to(0).is_empty(), "the slab is in use");
        assert_eq!(kept.bytes, 0);
        // SAFETY: as above; the second is kept.
        unsafe {
            assert_eq!((held.as_ptr().read(), place.read()), (7, 0), "the page is a new one");
        }
        let (again, _) = kept.take(class, 0);
        assert_eq!(again.slab(), held.slab(), "cold blocks are used again");
        kept.give(again);
        kept.give(held);
        assert_eq!(kept.shrink_to(0).len(), 1, "nothing of it is lent");
        assert!(kept.classes.iter().all(|class| class.blocks.is_empty()));
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn what_is_set_aside_goes_out_first_and_serves_all_sizes() {
        let mut kept = Kept::with_set_aside(None, 5 << 20);
        let (start, bytes) = kept.set_aside().expect("two slabs");
        assert_eq!(bytes, 4 << 20);
        let inside = |block: &Block| {
            let place = (block.as_ptr() as usize).checked_sub(start as usize);
            place.is_some_and(|place| place + block.bytes() <= bytes)
        };
        for class in [0, class_of(1 << 20), class_of(2 << 20)] {
            let count = bytes / class_bytes(class);
            let blocks: Vec<Block> = (0..count).map(|_| kept.take(class, 0).0).collect();
            assert!(blocks.iter().all(|block| inside(block) && block.is_registered()));
            let other = kept.take(class, 0).0;
            assert!(!inside(&other) && !other.is_registered());
            kept.give(other);
            assert!(!kept.take(class_of(4 << 20), 0).0.is_registered());
            blocks.into_iter().for_each(|block| kept.give(block));
            kept.shrink_to(0);
            assert_eq!(kept.bytes, 0);
        }
    }

    proptest! {
        /// Whatever comes and goes: no two lent blocks overlap, no more is kept than may be, and at
        /// the end all of it can be given up.
        #[test]
        fn nothing_is_lost_or_lent_twice(
            steps in prop::collection::vec((any::<bool>(), 0usize..11, 0u64..8), 1..200),
            set_aside in 0usize..3,
        ) {
            let mut kept = Kept::with_set_aside(None, set_aside * HUGE_PAGE_BYTES);
            let mut lent: Vec<Block> = Vec::new();
            for (take, class, room) in steps {
                if take || lent.is_empty() {
                    let (block, freed) = kept.take(class, room << 20);
                    prop_assert_eq!(block.bytes(), class_bytes(class));
                    prop_assert!(kept.bytes <= room << 20);
                    let range = |block: &Block| {
                        let start = block.as_ptr() as usize;
                        start..start + block.bytes()
                    };
                    for other in lent.iter().chain(&freed) {
                        let (a, b) = (range(&block), range(other));
                        prop_assert!(a.end <= b.start || b.end <= a.start);
                    }
                    lent.push(block);
                } else {
                    kept.give(lent.swap_remove(class % lent.len()));
                }
            }
            lent.into_iter().for_each(|block| kept.give(block));
            let freed = kept.shrink_to(0);
            prop_assert_eq!(kept.bytes, 0);
            prop_assert!(freed.iter().all(|block| block.slab().is_none()));
            let own = |slab: &Slab| matches!(slab.memory, Memory::Own(_));
            prop_assert!(!kept.slabs.iter().flatten().any(own));
            let left = kept.classes.iter().map(|class| class.blocks.len() + class.alone);
            prop_assert_eq!(left.sum::<usize>(), 0);
        }
    }
}
