//! Raw page-aligned memory: the only place that allocates and frees it.
//!
//! A [`Block`] comes from the allocator and is meant to be reused; a [`Region`] comes from the
//! system, is as long as one likes, zero, and takes no memory until it is touched.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// What memory and direct I/O are aligned to, in bytes: a page, and the largest block of a device
/// in common use.
pub const BLOCK_BYTES: usize = 4096;
/// From here on memory is aligned to, and asks for, huge pages.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A piece of memory, page-aligned, of a size that is a whole number of pages.
pub(super) struct Block {
    memory: NonNull<u8>,
    bytes: usize,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Alone,
    /// Cut from a larger block of this number, which frees the memory.
    Slab(u32),
    /// The same; the system has taken the memory itself back, and gives new one at the next touch.
    ColdSlab(u32),
    /// The same, of memory that the kernel knows.
    Registered(u32),
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

    /// The same, from the memory of one node if there are several.
    pub(super) fn allocate_on(bytes: usize, node: Option<u32>) -> Block {
        let block = Block::allocate(bytes);
        if let Some(node) = node {
            block.prefer(node);
        }
        block
    }

    #[cfg(target_os = "linux")]
    fn prefer(&self, node: u32) {
        const MPOL_PREFERRED: libc::c_int = 1;
        let mask = 1u64.checked_shl(node).unwrap_or(0);
        // SAFETY: whole pages of memory that is ours alone; the call reads one word of a mask, and
        // changes where the pages come from, never what they hold. Where it is refused, pages come
        // from the node that touches them first.
        unsafe {
            let memory = self.memory.as_ptr();
            libc::syscall(libc::SYS_mbind, memory, self.bytes, MPOL_PREFERRED, &mask, 64, 0);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn prefer(&self, _: u32) {}

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
        Block { memory, bytes, origin: Origin::Alone }
    }

    /// A part of this block, as a part of the slab `slab`.
    ///
    /// # Safety
    /// No part overlaps another, and none is used once this block is gone.
    pub(super) unsafe fn part(&self, start: usize, bytes: usize, slab: u32) -> Block {
        assert!(start.is_multiple_of(BLOCK_BYTES) && start + bytes <= self.bytes);
        // SAFETY: the place lies inside this block.
        let memory = unsafe { self.memory.add(start) };
        Block { memory, bytes, origin: Origin::Slab(slab) }
    }

    /// The same part, as one that the kernel knows.
    pub(super) fn registered(mut self) -> Block {
        if let Origin::Slab(slab) = self.origin {
            self.origin = Origin::Registered(slab);
        }
        self
    }

    pub(super) fn is_registered(&self) -> bool {
        matches!(self.origin, Origin::Registered(_))
    }

    /// The slab that it is a part of.
    pub(super) fn slab(&self) -> Option<u32> {
        match self.origin {
            Origin::Alone => None,
            Origin::Slab(slab) | Origin::ColdSlab(slab) | Origin::Registered(slab) => Some(slab),
        }
    }

    /// Gives the memory of a slab's part back to the system until it is touched; says whether it did.
    pub(super) fn cool(&mut self) -> bool {
        let Origin::Slab(slab) = self.origin else { return false };
        #[cfg(target_os = "linux")]
        {
            use rustix::mm::{Advice, madvise};
            // SAFETY: whole pages of anonymous memory that is ours alone, of which nobody expects
            // that it keeps what it holds.
            let cooled = unsafe {
                madvise(self.memory.as_ptr().cast(), self.bytes, Advice::LinuxDontNeed).is_ok()
            };
            if cooled {
                self.origin = Origin::ColdSlab(slab);
            }
            cooled
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = slab;
            false
        }
    }

    /// From now on its memory is to come page by page.
    pub(super) fn forbid_huge_pages(&self) {
        #[cfg(target_os = "linux")]
        {
            use rustix::mm::{Advice, madvise};
            let advice = Advice::LinuxNoHugepage;
            // SAFETY: whole pages that are ours; the advice never changes what they hold.
            let _ = unsafe { madvise(self.memory.as_ptr().cast(), self.bytes, advice) };
        }
    }

    pub(super) fn is_cold(&self) -> bool {
        matches!(self.origin, Origin::ColdSlab(_))
    }

    /// It is going to be touched; says whether it was cold.
    pub(super) fn warm_up(&mut self) -> bool {
        let Origin::ColdSlab(slab) = self.origin else { return false };
        self.origin = Origin::Slab(slab);
        true
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
        if self.origin == Origin::Alone {
            // SAFETY: allocated in `allocate` with the same layout, and freed only here.
            unsafe { dealloc(self.memory.as_ptr(), Block::layout(self.bytes)) }
        }
    }
}

/// A long piece of zeroed memory that is taken page by page as it is touched; or a file's, which nobody writes to.
pub(super) struct Region {
    memory: NonNull<u8>,
    bytes: usize,
    is_file: bool,
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
        Some(Region { memory, bytes, is_file: false })
    }

    /// The first `bytes` bytes of a file, at least one, as the page cache has them.
    ///
    /// # Safety
    /// As long as anybody looks at them, nobody changes or shortens the file.
    pub(super) unsafe fn map(
        file: std::os::fd::BorrowedFd<'_>,
        bytes: usize,
    ) -> std::io::Result<Region> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        // No slice may be longer.
        isize::try_from(bytes).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let (access, flags) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory of ours.
        let memory = unsafe { mmap(std::ptr::null_mut(), bytes, access, flags, file, 0) }?;
        let memory = NonNull::new(memory.cast::<u8>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Region { memory, bytes, is_file: true })
    }

    /// Has the system give the memory of a range now, as if each page of it was touched. Where it does not know
    /// how, or has none, that is left to the touch.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn populate(&self, start: usize, bytes: usize) -> std::io::Result<()> {
        use rustix::mm::{Advice, madvise};
        let start = start.min(self.bytes) / BLOCK_BYTES * BLOCK_BYTES;
        let bytes = bytes.min(self.bytes - start);
        let first = self.memory.as_ptr().wrapping_add(start);
        let how = match self.is_file {
            true => Advice::LinuxPopulateRead,
            false => Advice::LinuxPopulateWrite,
        };
        // SAFETY: the range lies in the mapping, which is ours, and what it holds stays as it is.
        Ok(unsafe { madvise(first.cast(), bytes, how) }?)
    }

    fn free(&mut self) {
        // SAFETY: mapped in `allocate` or `map` with this length, and unmapped only here.
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
        Some(Region { memory, bytes, is_file: false })
    }

    /// Allocators of other systems are not asked ahead.
    pub(super) fn populate(&self, _: usize, _: usize) -> std::io::Result<()> {
        Ok(())
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

    pub(super) fn is_file(&self) -> bool {
        self.is_file
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
