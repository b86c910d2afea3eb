//! Copying between files through the page cache, inside the kernel: by way of a pipe that pages go through.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, Result, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// Bytes that a pipe holds if nobody asks for more. What is written at once gets memory in one piece: longer ones
/// are not what was just given back, but what nobody used for longest, which the host of a virtual machine may
/// have taken away.
const PIPE_BYTES: usize = 1 << 16;

/// Copies up to `length` bytes. What was copied before something went wrong is a success.
pub(super) fn copy(
    (from, from_offset): (BorrowedFd<'_>, u64),
    (to, to_offset): (BorrowedFd<'_>, u64),
    length: usize,
) -> Result<u64> {
    let (exit, entrance) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut copied = 0;
    let mut some = || {
        let (mut read_from, mut write_to) = (from_offset + copied, to_offset + copied);
        let wanted = (length - copied as usize).min(PIPE_BYTES);
        let flags = SpliceFlags::MOVE;
        let taken =
            retry_on_intr(|| splice(from, Some(&mut read_from), &entrance, None, wanted, flags))?;
        let mut left = taken;
        while left > 0 {
            let given =
                retry_on_intr(|| splice(&exit, None, to, Some(&mut write_to), left, flags))?;
            if given == 0 {
                return Err(Errno::IO);
            }
            left -= given;
        }
        copied += taken as u64;
        Ok(taken > 0 && (copied as usize) < length)
    };
    loop {
        match some() {
            Ok(true) => {}
            Err(error) if copied == 0 => return Err(error),
            _ => return Ok(copied),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn any_range_is_copied() {
        let source = tempfile::tempfile().expect("a file");
        let bytes: Vec<u8> = (0..3_000_001u32).map(|number| (number / 7) as u8).collect();
        source.write_all_at(&bytes, 0).expect("written");
        for (from, to, length) in [
            (0, 0, 3_000_001),
            (1, 4097, 2_500_000),
            (2_999_999, 5, 100),
            (3_000_001, 0, 7),
            (3, 3, 0),
        ] {
            let target = tempfile::tempfile().expect("a file");
            let copied =
                copy((source.as_fd(), from as u64), (target.as_fd(), to), length).expect("copied");
            let wanted = &bytes[from..bytes.len().min(from + length)];
            assert_eq!(copied as usize, wanted.len());
            let mut there = vec![0; wanted.len()];
            target.read_exact_at(&mut there, to).expect("there");
            assert!(there == wanted, "from {from} to {to}, {length} bytes");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().write_all_at(b"text", 0).expect("written");
        let (flags, mode) = (rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        let reading = rustix::fs::open(file.path(), flags, mode).expect("opened");
        let outcome = copy((file.as_fd(), 0), (reading.as_fd(), 0), 4);
        assert_eq!(outcome, Err(Errno::BADF));
    }
}
