//! Digests of files: those of a run of files are hashed together, and a hint for each file tells
//! which one of a run is wrong.
//!
//! A digest of 32 bytes for each file would be most of the patch of a tree of small files. A run
//! has one, over the digests of its files: no file of it can differ unnoticed.

use std::ops::Range;
use std::sync::Arc;

use super::wire::{Cursor, put_varint, signed_of, unsigned_of};
use crate::damage::Damage;
use crate::manifest::Digest;

/// Files of a run.
pub(crate) const RUN_FILES: usize = 256;

/// The first byte of a file's digest.
type Hint = u8;

/// One file's digest, to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileDigest {
    pub(crate) digest: Digest,
    /// The old tree's file that it was taken over from, counting files with data.
    pub(crate) old: Option<u32>,
}

/// What stands for a hint that is spelled out.
const HERE: u64 = 0;

fn hint(digest: &Digest) -> Hint {
    digest[0]
}

fn run_digest(digests: impl Iterator<Item = Digest>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    digests.for_each(|digest| {
        hasher.update(&digest);
    });
    *hasher.finalize().as_bytes()
}

/// The payload: the number of files, for each of them a zero or a reference to an old file, counted
/// from the file behind the last one referred to; then the hints of those with a zero, then the
/// digests of runs.
pub(crate) fn encode(entries: &[FileDigest]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, entries.len() as u64);
    let mut expected = 0;
    for entry in entries {
        let Some(number) = entry.old else {
            put_varint(&mut out, HERE);
            continue;
        };
        put_varint(&mut out, unsigned_of(i64::from(number) - expected) + 1);
        expected = i64::from(number) + 1;
    }
    for entry in entries.iter().filter(|entry| entry.old.is_none()) {
        out.push(hint(&entry.digest));
    }
    for run in entries.chunks(RUN_FILES) {
        out.extend_from_slice(&run_digest(run.iter().map(|entry| entry.digest)));
    }
    out
}

/// What a patch tells of the digests of a tree's files with data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Digests {
    hints: Vec<Hint>,
    runs: Vec<Run>,
}

/// Files one behind the other, up to a number.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    end: usize,
    digest: Digest,
}

impl Digests {
    /// How many files they are of.
    pub(crate) fn files(&self) -> usize {
        self.hints.len()
    }

    /// Appends those of one block, which may refer to those of `old` files.
    pub(crate) fn add(&mut self, payload: &[u8], old: &Digests) -> Result<(), Damage> {
        let mut cursor = Cursor::new(payload);
        let count = cursor.count("the number of digests")?;
        if count == 0 {
            return Err(Damage::new(0, "a block of no digests"));
        }
        let start = self.hints.len();
        let mut expected = 0i64;
        let mut here = Vec::new();
        for _ in 0..count {
            let word = cursor.varint("a digest's reference")?;
            if word == HERE {
                here.push(self.hints.len());
                self.hints.push(Hint::default());
                continue;
            }
            let number = expected.wrapping_add(signed_of(word - 1));
            let hint = usize::try_from(number).ok().and_then(|number| old.hints.get(number));
            let hint = hint.ok_or_else(|| Damage::new(0, "a digest refers to no old file"))?;
            self.hints.push(*hint);
            expected = number.wrapping_add(1);
        }
        for place in here {
            self.hints[place] = cursor.byte("a hint")?;
        }
        let mut end = start;
        while end < self.hints.len() {
            end = (end + RUN_FILES).min(self.hints.len());
            let digest = cursor.take(32, "a digest")?.try_into().expect("32 bytes");
            self.runs.push(Run { end, digest });
        }
        cursor.finish("a block of digests")
    }
}

/// Compares the digests of files, given in order, run by run.
#[derive(Debug)]
pub(crate) struct RunCheck {
    digests: Arc<Digests>,
    /// The run under way, and the digests of its files so far.
    run: usize,
    seen: Vec<Option<Digest>>,
}

/// What a run turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checked {
    /// All of its files are right.
    Right,
    /// These files are wrong, by their hints.
    Wrong(Vec<usize>),
    /// One of these files is wrong, or several, and hints do not tell which.
    WrongAmong(Range<usize>),
}

impl RunCheck {
    pub(crate) fn new(digests: Arc<Digests>) -> RunCheck {
        RunCheck { digests, run: 0, seen: Vec::with_capacity(RUN_FILES) }
    }

    /// Takes the next file's digest, which is none if it cannot be read; at the end of a run says
    /// what that is.
    pub(crate) fn next(&mut self, digest: Option<Digest>) -> Option<Checked> {
        let run = self.digests.runs.get(self.run)?;
        self.seen.push(digest);
        let start = match self.run {
            0 => 0,
            number => self.digests.runs[number - 1].end,
        };
        if start + self.seen.len() < run.end {
            return None;
        }
        self.run += 1;
        let seen = std::mem::replace(&mut self.seen, Vec::with_capacity(RUN_FILES));
        let complete = seen.iter().all(Option::is_some);
        if complete && run_digest(seen.iter().copied().flatten()) == run.digest {
            return Some(Checked::Right);
        }
        let hints = &self.digests.hints[start..run.end];
        let is_wrong = |(digest, expected): (&Option<Digest>, &Hint)| {
            digest.is_some_and(|digest| hint(&digest) != *expected)
        };
        let wrong: Vec<usize> = seen
            .iter()
            .zip(hints)
            .enumerate()
            .filter(|(_, pair)| is_wrong(*pair))
            .map(|(number, _)| start + number)
            .collect();
        Some(match (wrong.is_empty(), complete) {
            (true, true) => Checked::WrongAmong(start..run.end),
            // What cannot be read is known to differ: the rest is as it should be, by its hints.
            (true, false) => Checked::Right,
            (false, _) => Checked::Wrong(wrong),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> Digest {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    fn here(number: u32) -> FileDigest {
        FileDigest { digest: digest(number), old: None }
    }

    fn digests(blocks: &[&[FileDigest]], old: &Digests) -> Digests {
        let mut all = Digests::default();
        blocks.iter().for_each(|block| all.add(&encode(block), old).expect("sound"));
        all
    }

    fn check(digests: &Arc<Digests>, files: impl Iterator<Item = Option<Digest>>) -> Vec<Checked> {
        let mut check = RunCheck::new(digests.clone());
        files.filter_map(|digest| check.next(digest)).collect()
    }

    #[test]
    fn runs_are_right_only_with_every_digest() {
        let old: Vec<FileDigest> = (0..300).map(here).collect();
        let old = digests(&[&old], &Digests::default());
        let taken = |number: u32| FileDigest { digest: digest(number), old: Some(number) };
        let (first, second): (Vec<FileDigest>, Vec<FileDigest>) =
            ((0..260).map(taken).collect(), (500..503).map(here).collect());
        let new = Arc::new(digests(&[&first, &second], &old));
        assert_eq!(new.files(), 263);
        let all: Vec<u32> = (0..260).chain(500..503).collect();
        let right = check(&new, all.iter().map(|number| Some(digest(*number))));
        assert_eq!(right, [Checked::Right, Checked::Right, Checked::Right]);
        for wrong in 0..263 {
            let other = all.iter().enumerate().map(|(at, number)| {
                let mut digest = digest(*number);
                digest[0] ^= u8::from(at == wrong);
                Some(digest)
            });
            let run = match wrong {
                0..256 => 0,
                256..260 => 1,
                _ => 2,
            };
            let found = check(&new, other);
            assert_eq!(found[run], Checked::Wrong(vec![wrong]));
            assert_eq!(found.iter().filter(|found| **found == Checked::Right).count(), 2);
        }
    }

    #[test]
    fn what_hints_do_not_tell_is_found_all_the_same() {
        let files: Vec<FileDigest> = (0..5).map(here).collect();
        let known = Arc::new(digests(&[&files], &Digests::default()));
        let mut twin = digest(3);
        twin[31] ^= 1;
        let of = |number: u32| Some(if number == 3 { twin } else { digest(number) });
        assert_eq!(check(&known, (0..5).map(of)), [Checked::WrongAmong(0..5)]);
        let missing = |number: u32| (number != 2).then(|| digest(number));
        assert_eq!(check(&known, (0..5).map(missing)), [Checked::Right], "as far as is there");
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let old = digests(&[&[here(1)]], &Digests::default());
        let refers = FileDigest { digest: digest(2), old: Some(1) };
        let mut all = Digests::default();
        assert!(all.add(&encode(&[refers]), &old).is_err(), "refers to nothing");
        let payload = encode(&[here(1), here(2)]);
        for end in 0..payload.len() {
            assert!(Digests::default().add(&payload[..end], &old).is_err(), "cut at {end}");
        }
        let longer = [&payload[..], &[0]].concat();
        assert!(Digests::default().add(&longer, &old).is_err());
        assert!(Digests::default().add(&encode(&[]), &old).is_err());
    }
}
