//! Packing groups: small ones next to each other are compressed together, as what repeats in one
//! often repeats in the next, and blocks cost something.

use std::borrow::Cow;
use std::cmp::Reverse;

use rayon::prelude::*;

use super::group::Group;
use crate::format::{
    BlockKind, EncodedBlock, PACK_GROUPS_MAX, PAYLOAD_KINDS, encode_block, encode_pack,
};
use crate::preset::Compression;

/// Gathers groups until they fill a pack.
#[derive(Debug)]
pub(super) struct PackBuilder {
    bytes_max: usize,
    bytes: usize,
    groups: Vec<Group>,
}

/// Groups whose payloads are stored together.
#[derive(Debug)]
pub(super) struct Pack {
    groups: Vec<Group>,
}

impl PackBuilder {
    /// Packs hold about `bytes_max` bytes, or one group.
    pub(super) fn new(bytes_max: usize) -> PackBuilder {
        PackBuilder { bytes_max, bytes: 0, groups: Vec::new() }
    }

    /// Adds a group; hands out a pack if it found no room there. A part of an executable has a pack
    /// for itself: take what was gathered before and behind it.
    pub(super) fn add(&mut self, group: Group) -> Option<Pack> {
        let bytes = group.bytes();
        let is_full = self.bytes + bytes > self.bytes_max || self.groups.len() == PACK_GROUPS_MAX;
        let full = match is_full {
            true => self.take(),
            false => None,
        };
        self.bytes += bytes;
        self.groups.push(group);
        full
    }

    /// What was gathered, if there is something.
    pub(super) fn take(&mut self) -> Option<Pack> {
        self.bytes = 0;
        let groups = std::mem::take(&mut self.groups);
        (!groups.is_empty()).then_some(Pack { groups })
    }
}

impl Pack {
    /// Bytes of the new image that it makes.
    pub(super) fn new_bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.range().end - group.range().start).sum()
    }

    /// Bytes of its payloads.
    pub(super) fn bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.bytes() as u64).sum()
    }

    /// The pack's blocks. Work for the crew.
    pub(super) fn encode(&self, compression: Compression) -> Vec<EncodedBlock> {
        let payloads: Vec<[Cow<'_, [u8]>; 7]> = self.groups.iter().map(Group::payloads).collect();
        let table = match &payloads[..] {
            [_] => Vec::new(),
            several => {
                let lengths: Vec<_> =
                    several.iter().map(|group| group.each_ref().map(|kind| kind.len())).collect();
                encode_pack(&lengths)
            }
        };
        let mut kinds = PAYLOAD_KINDS;
        if self.groups[0].goes_on() {
            kinds[1] = BlockKind::MoreInstructions;
        }
        let payload = |number: usize| match &payloads[..] {
            [only] => Cow::Borrowed(&only[number][..]),
            several => several.iter().flat_map(|group| &group[number][..]).copied().collect(),
        };
        let groups = std::iter::once((BlockKind::Groups, Cow::Borrowed(&table[..])));
        let kinds = kinds.into_iter().enumerate().map(|(number, kind)| (kind, payload(number)));
        let blocks: Vec<(BlockKind, Cow<'_, [u8]>)> =
            groups.chain(kinds).filter(|(_, raw)| !raw.is_empty()).collect();
        // What takes longest begins first.
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|number| Reverse(blocks[*number].1.len()));
        let encode = |number: usize| {
            let (kind, raw) = &blocks[number];
            (number, encode_block(*kind, raw, compression))
        };
        let mut encoded: Vec<(usize, EncodedBlock)> =
            order.into_par_iter().with_max_len(1).map(encode).collect();
        encoded.sort_by_key(|(number, _)| *number);
        encoded.into_iter().map(|(_, block)| block).collect()
    }
}
