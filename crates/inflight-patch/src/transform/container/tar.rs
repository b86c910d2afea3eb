//! Tars, among whose members executables may be.

use std::ops::Range;

/// Members start at multiples of this.
pub(crate) const BLOCK: usize = 512;

/// Whether bytes start like a tar, or a member of one.
pub(crate) fn starts_like_one(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Where the members of a tar are that its headers tell of. What is no header is passed over.
pub(crate) fn members(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut members = Vec::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + BLOCK) {
        let start = at + BLOCK;
        let end = size(header).and_then(|size| start.checked_add(size));
        at = start;
        if let Some(end) = end.filter(|end| *end <= bytes.len()) {
            members.push(start..end);
            at = end.next_multiple_of(BLOCK);
        }
    }
    members
}

/// The size that a header tells: octal, or in binary behind a byte of 128.
fn size(header: &[u8]) -> Option<usize> {
    if !starts_like_one(header) {
        return None;
    }
    let field = &header[124..136];
    if field[0] == 0x80 {
        let (zeros, number) = field[1..].split_at(3);
        let number = u64::from_be_bytes(number.try_into().ok()?);
        return usize::try_from(number).ok().filter(|_| zeros == [0; 3]);
    }
    let digits = field.split(|byte| matches!(byte, 0 | b' ')).find(|digits| !digits.is_empty())?;
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header for so many bytes, as its field has it, and the member.
    fn member(size: &[u8], bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0; BLOCK];
        out[124..124 + size.len()].copy_from_slice(size);
        out[257..262].copy_from_slice(b"ustar");
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    #[test]
    fn members_are_found_by_their_headers() {
        let (octal, spaces) = (b"00000001750\0", b"        12 \0");
        let binary = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1];
        let tar = [
            member(octal, &[7; 1000]),
            member(spaces, &[8; 10]),
            vec![0; 2 * BLOCK],
            member(&binary, &[9; 513]),
            member(b"0", &[]),
        ];
        let tar = tar.concat();
        assert!(starts_like_one(&tar));
        assert_eq!(members(&tar), [512..1512, 2048..2058, 4096..4609, 5632..5632]);
    }

    #[test]
    fn what_is_no_header_is_passed_over() {
        let wrong: [&[u8]; 5] =
            [b"77777777777", b"9", b"-1", &[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], &[0xff; 12]];
        for size in wrong {
            let tar = [member(size, &[]), member(b"5", b"bytes"), member(b"0", &[])].concat();
            assert_eq!(members(&tar), [1024..1029, 2048..2048], "{size:?}");
        }
        assert_eq!(members(&member(b"5", b"bytes")[..515]), [], "cut off");
    }
}
