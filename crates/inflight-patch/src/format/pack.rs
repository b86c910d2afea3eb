//! Packs: groups next to each other whose payloads of a kind stand together in one block.

use std::ops::Range;

use super::block::{BLOCK_BYTES_MAX, BlockKind};
use super::wire::{Cursor, put_varint};
use crate::damage::Damage;

/// The kinds of a group's payloads, in order. `MoreInstructions` takes the place of the second.
pub(crate) const PAYLOAD_KINDS: [BlockKind; 7] = [
    BlockKind::Executable,
    BlockKind::Instructions,
    BlockKind::Literals,
    BlockKind::Mismatches,
    BlockKind::Differences,
    BlockKind::Misses,
    BlockKind::Corrections,
];

/// The most groups of a pack.
pub(crate) const GROUPS_MAX: usize = 1 << 12;

/// How long a group's payload of each kind is, in bytes.
pub(crate) type PayloadLengths = [usize; PAYLOAD_KINDS.len()];

/// A group's payloads, decoded; those that are not there are empty.
pub(crate) type Payloads = [Vec<u8>; PAYLOAD_KINDS.len()];

/// Which of a patch's blocks, which have these kinds, make a pack each.
pub(crate) fn packs(kinds: impl Iterator<Item = BlockKind>) -> Vec<Range<usize>> {
    let mut packs: Vec<Range<usize>> = Vec::new();
    let mut last = None;
    for (number, kind) in kinds.enumerate().filter(|(_, kind)| kind.is_of_pack()) {
        let begins = match kind {
            BlockKind::Groups | BlockKind::MoreInstructions => true,
            BlockKind::Executable => last != Some(BlockKind::Groups),
            BlockKind::Instructions => {
                !matches!(last, Some(BlockKind::Groups | BlockKind::Executable))
            }
            _ => false,
        };
        last = Some(kind);
        match packs.last_mut() {
            Some(pack) if !begins => pack.end = number + 1,
            _ => packs.push(number..number + 1),
        }
    }
    packs
}

/// The place of a kind of block among a group's payloads.
fn payload(kind: BlockKind) -> Option<usize> {
    match kind {
        BlockKind::MoreInstructions => Some(1),
        _ => PAYLOAD_KINDS.into_iter().position(|payload| payload == kind),
    }
}

/// How long each group's payloads are in a pack whose blocks are so long. `table` is what its block
/// of groups holds, if it has one.
pub(crate) fn groups_of_pack(
    table: Option<&[u8]>,
    blocks: impl Iterator<Item = (BlockKind, usize)>,
) -> Result<Vec<PayloadLengths>, Damage> {
    let mut lengths = PayloadLengths::default();
    for (kind, length) in blocks {
        if let Some(payload) = payload(kind) {
            lengths[payload] = length;
        }
    }
    match table {
        Some(table) => decode_pack(table, lengths),
        None => Ok(vec![lengths]),
    }
}

/// The groups of a pack whose blocks hold this.
pub(crate) fn split_pack(blocks: Vec<(BlockKind, Vec<u8>)>) -> Result<Vec<Payloads>, Damage> {
    let table = blocks.iter().find(|(kind, _)| *kind == BlockKind::Groups);
    let table = table.map(|(_, raw)| &raw[..]);
    let groups = groups_of_pack(table, blocks.iter().map(|(kind, raw)| (*kind, raw.len())))?;
    Ok(split_blocks(&groups, blocks))
}

/// Gives each of a pack's groups its part of these blocks of the pack.
pub(crate) fn split_blocks(
    groups: &[PayloadLengths],
    blocks: Vec<(BlockKind, Vec<u8>)>,
) -> Vec<Payloads> {
    let mut split: Vec<Payloads> = groups.iter().map(|_| Payloads::default()).collect();
    for (kind, raw) in blocks {
        let Some(payload) = payload(kind) else { continue };
        if let [only] = &mut split[..] {
            only[payload] = raw;
            continue;
        }
        let mut rest = &raw[..];
        for (group, lengths) in split.iter_mut().zip(groups) {
            let (its, behind) = rest.split_at(lengths[payload]);
            group[payload].extend_from_slice(its);
            rest = behind;
        }
    }
    split
}

/// The raw bytes of the block in front of a pack of several groups.
pub(crate) fn encode_pack(groups: &[PayloadLengths]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, groups.len() as u64);
    for kind in 0..PAYLOAD_KINDS.len() {
        groups.iter().for_each(|lengths| put_varint(&mut out, lengths[kind] as u64));
    }
    out
}

/// The groups of a pack whose blocks, other than the one that says so, have these lengths.
fn decode_pack(payload: &[u8], blocks: PayloadLengths) -> Result<Vec<PayloadLengths>, Damage> {
    let mut cursor = Cursor::new(payload);
    let count = cursor.count("the number of groups")?;
    if count == 0 || count > GROUPS_MAX {
        return Err(Damage::new(0, format!("a pack of {count} groups")));
    }
    let mut groups = vec![[0; PAYLOAD_KINDS.len()]; count];
    for (number, kind) in PAYLOAD_KINDS.into_iter().enumerate() {
        let mut left = blocks[number];
        for lengths in &mut groups {
            let length = cursor.varint("the length of a payload")?;
            if length > left.min(BLOCK_BYTES_MAX) as u64 {
                let what = format!("the groups of a pack have more {} than there are", kind.name());
                return Err(Damage::new(0, what));
            }
            lengths[number] = length as usize;
            left -= length as usize;
        }
        if left > 0 {
            let what = format!("the groups of a pack do not use up its {}", kind.name());
            return Err(Damage::new(0, what));
        }
    }
    cursor.finish("the groups of a pack")?;
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packs_round_trip(
            groups in prop::collection::vec(prop::array::uniform7(0usize..1 << 20), 1..20),
        ) {
            let mut blocks = [0; 7];
            for (sum, kind) in blocks.iter_mut().zip(0..) {
                *sum = groups.iter().map(|lengths| lengths[kind]).sum();
            }
            let payload = encode_pack(&groups);
            prop_assert_eq!(&decode_pack(&payload, blocks).unwrap(), &groups);
            for kind in 0..7 {
                let mut other = blocks;
                other[kind] += 1;
                prop_assert!(decode_pack(&payload, other).unwrap_err().what.contains("use up"));
                other[kind] = blocks[kind].saturating_sub(1);
                prop_assert!(decode_pack(&payload, other).is_err() || blocks[kind] == 0);
            }
            prop_assert!(decode_pack(&payload[..payload.len() - 1], blocks).is_err());
        }

        #[test]
        fn any_bytes_are_a_pack_or_refused(payload: Vec<u8>, blocks: [u8; 7]) {
            let blocks = blocks.map(usize::from);
            if let Ok(groups) = decode_pack(&payload, blocks) {
                prop_assert!(groups.len() <= payload.len());
            }
        }
    }
}
