//! Digests of files. Those of new files that are whole copies of old ones are references.

use super::wire::{Cursor, put_varint, signed_of, unsigned_of};
use crate::damage::Damage;
use crate::manifest::Digest;

/// One file's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigestEntry {
    /// Spelled out.
    Here(Digest),
    /// That of the old tree's file of this number, counting files with data.
    Old(u32),
}

/// What stands before a digest that is spelled out.
const HERE: u64 = 0;

/// The payload: for each file a zero and its digest, or a reference, counted from the file behind
/// the last one referred to.
pub(crate) fn encode(entries: &[DigestEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut expected = 0;
    for entry in entries {
        match entry {
            DigestEntry::Here(digest) => {
                put_varint(&mut out, HERE);
                out.extend_from_slice(digest);
            }
            DigestEntry::Old(number) => {
                put_varint(&mut out, unsigned_of(i64::from(*number) - expected) + 1);
                expected = i64::from(*number) + 1;
            }
        }
    }
    out
}

/// Appends the digests of one block.
pub(crate) fn decode(
    payload: &[u8],
    old: &[Digest],
    digests: &mut Vec<Digest>,
) -> Result<(), Damage> {
    let mut cursor = Cursor::new(payload);
    let mut expected = 0i64;
    while !cursor.is_empty() {
        let word = cursor.varint("a digest's reference")?;
        if word == HERE {
            let digest = cursor.take(32, "a digest")?;
            digests.push(digest.try_into().expect("32 bytes"));
            continue;
        }
        let number = expected.wrapping_add(signed_of(word - 1));
        let digest = usize::try_from(number).ok().and_then(|number| old.get(number));
        let digest = digest.ok_or_else(|| Damage::new(0, "a digest refers to no old file"))?;
        digests.push(*digest);
        expected = number.wrapping_add(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip() {
        let old: Vec<Digest> = (0..10).map(|n| [n; 32]).collect();
        let entries = [
            DigestEntry::Old(0),
            DigestEntry::Old(1),
            DigestEntry::Here([99; 32]),
            DigestEntry::Old(9),
            DigestEntry::Old(2),
        ];
        let mut decoded = Vec::new();
        decode(&encode(&entries), &old, &mut decoded).unwrap();
        assert_eq!(decoded, [[0; 32], [1; 32], [99; 32], [9; 32], [2; 32]]);
        assert!(decode(&encode(&[DigestEntry::Old(10)]), &old, &mut decoded).is_err());
        let cut = &encode(&entries)[..30];
        assert!(decode(cut, &old, &mut decoded).is_err(), "cut inside a digest");
    }
}
