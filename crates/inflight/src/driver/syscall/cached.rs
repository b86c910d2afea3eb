//! How much of a file the page cache has.
//!
//! Asking must not change the answer: a read that may not wait does, it starts the read ahead.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of a file that are looked at through one mapping.
const MAPPED_BYTES: u64 = 1 << 30;
const PAGE_BYTES: u64 = 4096;

/// Bytes of the first `length` that are in the page cache; all of them where the system cannot say.
pub(super) fn count(file: BorrowedFd<'_>, length: u64) -> Result<u64> {
    if length == 0 {
        return Ok(0);
    }
    match by_cachestat(file, length) {
        Err(Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP | Errno::BADF) => {
            // Where there is no mapping either, nothing is known.
            Ok(by_mincore(file, length).unwrap_or(length))
        }
        other => other,
    }
}

/// Linux 6.5 and later.
fn by_cachestat(file: BorrowedFd<'_>, length: u64) -> Result<u64> {
    /// The same on all architectures.
    const SYS_CACHESTAT: libc::c_long = 451;
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Counts {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let (range, mut counts) = (Range { offset: 0, length }, Counts::default());
    // SAFETY: the call reads one structure and writes the other, both laid out as it expects.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &range, &mut counts, 0) };
    match result {
        0 => Ok((counts.cached * PAGE_BYTES).min(length)),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn by_mincore(file: BorrowedFd<'_>, length: u64) -> Result<u64> {
    let (mut pages, mut offset) = (0, 0);
    while offset < length {
        let bytes = (length - offset).min(MAPPED_BYTES) as usize;
        pages += resident_pages(file, offset, bytes)?;
        offset += bytes as u64;
    }
    Ok((pages * PAGE_BYTES).min(length))
}

fn resident_pages(file: BorrowedFd<'_>, offset: u64, bytes: usize) -> Result<u64> {
    // SAFETY: a new mapping at a place that the kernel chooses; nobody looks into it.
    let mapped = unsafe {
        mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, offset)
    }?;
    let mut resident = vec![0u8; bytes.div_ceil(PAGE_BYTES as usize)];
    // SAFETY: the range is what was just mapped, and there is a byte for each of its pages.
    let asked = unsafe { libc::mincore(mapped, bytes, resident.as_mut_ptr().cast()) };
    let error = std::io::Error::last_os_error();
    // SAFETY: mapped above, and used no more.
    unsafe { munmap(mapped, bytes) }?;
    match asked {
        0 => Ok(resident.iter().filter(|page| **page & 1 == 1).count() as u64),
        _ => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn both_ways_count_the_same() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[1; 20_000], 0).expect("written");
        let length = 20_000;
        assert_eq!(count(file.as_fd(), length), Ok(length));
        assert_eq!(by_mincore(file.as_fd(), length), Ok(length));
        if let Ok(counted) = by_cachestat(file.as_fd(), length) {
            assert_eq!(counted, length);
        }
        file.set_len(200_000).expect("grown");
        let hole = count(file.as_fd(), 200_000).expect("counted");
        assert!(hole < 200_000, "what nobody read is not there: {hole}");
        assert_eq!(by_mincore(file.as_fd(), 200_000), Ok(hole));
        assert_eq!(count(file.as_fd(), 0), Ok(0));
    }
}
