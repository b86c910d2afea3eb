//! Reading a file by mapping it, to compare that with reads.

use std::os::fd::BorrowedFd;

use rustix::fs::fstat;
use rustix::io::{Errno, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

const PAGE_BYTES: usize = 4096;
/// One byte of each of these is looked at, which brings all of it to the processor, as a read does.
const LINE_BYTES: usize = 64;

/// A mapping of a file, while it is looked at.
struct Mapping {
    place: *mut std::ffi::c_void,
    length: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `touch`, and nothing refers to it any more. It cannot fail for a mapping.
        let _ = unsafe { munmap(self.place, self.length) };
    }
}

/// Looks at all of a range; how many bytes of it the file has.
pub(super) fn touch(file: BorrowedFd<'_>, offset: u64, length: usize, step: usize) -> Result<u64> {
    let size = fstat(file)?.st_size as u64;
    let length = size.saturating_sub(offset).min(length as u64) as usize;
    if length == 0 {
        return Ok(0);
    }
    if !offset.is_multiple_of(PAGE_BYTES as u64) || !step.is_multiple_of(PAGE_BYTES) {
        return Err(Errno::INVAL);
    }
    let (access, flags) = (ProtFlags::READ, MapFlags::SHARED);
    // SAFETY: a new mapping at a place that the kernel chooses.
    let mapped = unsafe { mmap(std::ptr::null_mut(), length, access, flags, file, offset) };
    let place = mapped.map_err(|error| cannot(error, Errno::NODEV))?;
    let mapping = Mapping { place, length };
    let mut start = 0;
    while start < length {
        let bytes = if step == 0 { length } else { step.min(length - start) };
        let first = mapping.place.cast::<u8>().wrapping_add(start);
        if step > 0 {
            // SAFETY: the range lies in the mapping, and the advice changes no contents.
            let populated = unsafe { madvise(first.cast(), bytes, Advice::LinuxPopulateRead) };
            populated.map_err(|error| cannot(error, Errno::INVAL))?;
        }
        for line in (0..bytes).step_by(LINE_BYTES) {
            // SAFETY: the byte lies in the mapping. Others may change it meanwhile, so it is looked at
            // once, as it is, and nothing follows from it.
            unsafe { first.add(line).read_volatile() };
        }
        start += bytes;
    }
    Ok(length as u64)
}

/// How systems say that they cannot, in the word for that: file systems without maps, and Linux before 5.14.
fn cannot(error: Errno, said: Errno) -> Errno {
    if error == said { Errno::OPNOTSUPP } else { error }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn pages_are_counted_to_the_end_of_the_file() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[1; 20_000], 0).expect("written");
        let touch = |offset, length, step| touch(file.as_fd(), offset, length, step);
        for step in [0, 4096, 8192, 1 << 20] {
            assert_eq!(touch(0, 20_000, step), Ok(20_000));
            assert_eq!(touch(4096, 1 << 20, step), Ok(15_904));
            assert_eq!(touch(8192, 4096, step), Ok(4096));
            assert_eq!(touch(1 << 20, 4096, step), Ok(0));
        }
        assert_eq!(touch(1, 4096, 0), Err(Errno::INVAL));
        assert_eq!(touch(0, 4096, 100), Err(Errno::INVAL));
    }
}
