//! Raw page-aligned memory: the only place that allocates and frees it.
//!
//! A [`Block`] comes from the allocator and is meant to be reused; a [`Region`] comes from the
//! system, is as long as one likes, zero, and takes no memory until it is touched.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::budget::Reservation;

/// What memory and direct I/O are aligned to, in bytes: a page, and the largest block of a device
/// in common use.
pub const BLOCK_BYTES: usize = 4096;
/// From here on memory is aligned to, and asks for, huge pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A piece of memory, page-aligned, of a size that is a whole number of pages.
pub(super) struct Block {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block is plain memory with one owner; nothing about it belongs to a thread.
unsafe impl Send for Block {}
// SAFETY: through `&Block` only the address and the size can be read.
unsafe impl Sync for Block {}

impl Block {
    fn layout(bytes: usize) -> Layout {
        let align = if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { BLOCK_BYTES };
        Layout::from_size_align(bytes, align).expect("a block is far below isize::MAX bytes")
    }

    /// Memory of `bytes` bytes; its contents are not initialised.
    pub(super) fn allocate(bytes: usize) -> Block {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES), "blocks are whole pages");
        let layout = Block::layout(bytes);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE_BYTES {
            // SAFETY: the range was just allocated, is page-aligned and ours alone; the advice
            // changes how it is backed, never what it holds. It may be refused: nothing depends
            // on it.
            let _ = unsafe {
                rustix::mm::madvise(
                    memory.as_ptr().cast(),
                    bytes,
                    rustix::mm::Advice::LinuxHugepage,
                )
            };
        }
        Block { memory, bytes }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `allocate` with the same layout, and freed only here.
        unsafe { dealloc(self.memory.as_ptr(), Block::layout(self.bytes)) }
    }
}

/// A long piece of zeroed memory that is taken page by page as it is touched.
pub(super) struct Region {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a region is plain memory with one owner; nothing about it belongs to a thread.
unsafe impl Send for Region {}
// SAFETY: through `&Region` only the address and the size can be read.
unsafe impl Sync for Region {}

#[cfg(target_os = "linux")]
impl Region {
    /// Memory of `bytes` bytes, at least one; `None` when the system has no room for it.
    pub(super) fn allocate(bytes: usize) -> Option<Region> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        // No slice may be longer.
        isize::try_from(bytes).ok()?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory of ours.
        let memory = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)
        };
        let memory = NonNull::new(memory.ok()?.cast::<u8>())?;
        // SAFETY: the range was just mapped and is ours alone; the advice changes how it is
        // backed, never what it holds, and may be refused.
        let _ = unsafe { madvise(memory.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        Some(Region { memory, bytes })
    }

    fn free(&mut self) {
        // SAFETY: mapped in `allocate` with this length, and unmapped only here.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(not(target_os = "linux"))]
impl Region {
    /// Memory of `bytes` bytes, at least one; `None` when the system has no room for it.
    pub(super) fn allocate(bytes: usize) -> Option<Region> {
        let layout = Layout::from_size_align(bytes, BLOCK_BYTES).ok()?;
        // SAFETY: the layout's size is not zero.
        let memory = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
        Some(Region { memory, bytes })
    }

    fn free(&mut self) {
        let layout = Layout::from_size_align(self.bytes, BLOCK_BYTES).expect("as in `allocate`");
        // SAFETY: allocated in `allocate` with the same layout, and freed only here.
        unsafe { dealloc(self.memory.as_ptr(), layout) }
    }
}

impl Region {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.free();
    }
}

/// What an arena and its buffers share: a region, and its share of the budget.
pub(super) struct ArenaMemory {
    pub(super) region: Region,
    _reservation: Reservation,
}

impl ArenaMemory {
    pub(super) fn new(region: Region, reservation: Reservation) -> ArenaMemory {
        ArenaMemory { region, _reservation: reservation }
    }
}
