//! Executables: the address spaces of old and new ones, which references are predicted by.

use super::wire::{Cursor, put_signed, put_varint};
use crate::damage::Damage;
use crate::transform::references::space::{
    OldExecutable, Region, RegionKind, SPOT_MAX, Space, spots_max,
};

/// The most old executables that one new one is made from.
pub(crate) const OLD_EXECUTABLES_MAX: usize = 1 << 16;

/// A place that is told, as copies predict another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// The number of the old executable.
    pub(crate) space: u32,
    /// The old spot.
    pub(crate) target: u32,
    /// How far the new spot is from the predicted one.
    pub(crate) change: i64,
}

/// What stands before the instructions of a new executable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Executable {
    /// The old executables that it is made from, in the order of the image.
    pub(crate) old: Vec<OldExecutable>,
    pub(crate) space: Space,
    /// Sorted by executable and target.
    pub(crate) told: Vec<Told>,
}

impl Executable {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.old.len() as u64);
        let mut position = 0;
        for executable in &self.old {
            put_varint(&mut out, executable.start - position);
            put_space(&mut out, &executable.space);
            position = executable.end();
        }
        put_space(&mut out, &self.space);
        put_varint(&mut out, self.told.len() as u64);
        let (mut space, mut target) = (0, 0);
        for told in &self.told {
            put_varint(&mut out, u64::from(told.space - space));
            if told.space != space {
                (space, target) = (told.space, 0);
            }
            put_varint(&mut out, u64::from(told.target - target));
            target = told.target;
        }
        for told in &self.told {
            put_signed(&mut out, told.change);
        }
        out
    }

    /// Reads one that is made from an old image of `old_bytes`.
    pub(crate) fn decode(payload: &[u8], old_bytes: u64) -> Result<Executable, Damage> {
        let mut cursor = Cursor::new(payload);
        let old = old_executables(&mut cursor, old_bytes)?;
        let space = space(&mut cursor)?;
        let told = places_told(&mut cursor, &old)?;
        cursor.finish("an executable")?;
        Ok(Executable { old, space, told })
    }
}

fn old_executables(cursor: &mut Cursor<'_>, old_bytes: u64) -> Result<Vec<OldExecutable>, Damage> {
    let count = cursor.count("the number of old executables")?;
    if count > OLD_EXECUTABLES_MAX {
        return Err(Damage::new(0, format!("an executable made from {count} old ones")));
    }
    let mut list = Vec::new();
    let mut position = 0u64;
    for _ in 0..count {
        let gap = cursor.varint("an executable's place")?;
        let space = space(cursor)?;
        let start = position.checked_add(gap);
        let end = start.and_then(|start| start.checked_add(space.length().into()));
        match (start, end) {
            (Some(start), Some(end)) if end <= old_bytes => {
                list.push(OldExecutable { start, space });
                position = end;
            }
            _ => return Err(Damage::new(0, "an executable reaches outside the old tree")),
        }
    }
    Ok(list)
}

fn places_told(cursor: &mut Cursor<'_>, old: &[OldExecutable]) -> Result<Vec<Told>, Damage> {
    let count = cursor.count("the number of places told")?;
    let mut told = Vec::with_capacity(count.min(cursor.remaining() / 3));
    let (mut number, mut target) = (0u64, 0u64);
    for _ in 0..count {
        let step = cursor.varint("an executable's number")?;
        if step > 0 {
            (number, target) = (number.saturating_add(step), 0);
        }
        target = target.saturating_add(cursor.varint("a target")?);
        let again = told.last().is_some_and(|last: &Told| {
            (u64::from(last.space), u64::from(last.target)) == (number, target)
        });
        // What is kept for an executable is in proportion to its file.
        let executable = usize::try_from(number).ok().and_then(|number| old.get(number));
        let is_spot =
            |executable: &OldExecutable| target < spots_max(executable.space.length().into());
        if !executable.is_some_and(is_spot) || again {
            return Err(Damage::new(0, "a place is told of nothing"));
        }
        told.push(Told { space: number as u32, target: target as u32, change: 0 });
    }
    for told in &mut told {
        told.change = cursor.signed("a place")?;
    }
    Ok(told)
}

fn put_space(out: &mut Vec<u8>, space: &Space) {
    put_varint(out, space.base);
    put_varint(out, space.loaded.into());
    put_varint(out, space.code.start.into());
    put_varint(out, u64::from(space.code.end - space.code.start));
    put_varint(out, space.regions.len() as u64);
    let mut expected = 0;
    for region in &space.regions {
        out.push(region.kind as u8);
        put_varint(out, region.length.into());
        put_signed(out, i64::from(region.spot) - expected);
        expected = i64::from(region.spot) + i64::from(region.length);
        if region.kind.has_names() {
            put_varint(out, region.link.into());
        }
    }
}

fn space(cursor: &mut Cursor<'_>) -> Result<Space, Damage> {
    let base = cursor.varint("an executable's base")?;
    let loaded = cursor.varint("an executable's size in memory")?;
    let code_start = cursor.varint("where code starts")?;
    let code_length = cursor.varint("how long code is")?;
    let count = cursor.count("the number of regions")?;
    let code_end = code_start.checked_add(code_length).filter(|end| *end <= SPOT_MAX);
    let (Some(code_end), true) = (code_end, loaded <= SPOT_MAX) else {
        return Err(Damage::new(0, "an executable larger than 4 GiB"));
    };
    let mut space = Space {
        regions: Vec::with_capacity(count.min(cursor.remaining() / 3)),
        base,
        loaded: loaded as u32,
        code: code_start as u32..code_end as u32,
    };
    let (mut expected, mut start) = (0i64, 0u64);
    for _ in 0..count {
        let kind = cursor.byte("a region's kind")?;
        let kind = RegionKind::from_number(kind)
            .ok_or_else(|| Damage::unknown(0, format!("regions of kind {kind}")))?;
        let length = cursor.varint("a region's length")?;
        let spot = expected.checked_add(cursor.signed("a region's spot")?);
        let link = match kind.has_names() {
            true => cursor.varint("a region's link")?,
            false => 0,
        };
        let end = start.checked_add(length).filter(|end| *end <= SPOT_MAX);
        let spot = spot.and_then(|spot| u64::try_from(spot).ok());
        let spot_end = spot.and_then(|spot| spot.checked_add(length));
        let (Some(end), Some(spot), Some(spot_end)) = (end, spot, spot_end) else {
            return Err(Damage::new(0, "a region lies nowhere"));
        };
        if length == 0 || spot_end > SPOT_MAX || link >= count as u64 {
            return Err(Damage::new(0, "a region that cannot be"));
        }
        let (length, spot, link) = (length as u32, spot as u32, link as u32);
        space.regions.push(Region { kind, start: start as u32, length, spot, link });
        expected = spot_end as i64;
        start = end;
    }
    let spots = |region: &Region| u64::from(region.spot) + u64::from(region.length);
    let most = space.regions.iter().map(spots).max().unwrap_or(0).max(loaded).max(code_end);
    match most <= spots_max(start) {
        true => Ok(space),
        false => Err(Damage::new(0, "an executable that is far larger in memory than its file")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_space()(
            base: u64,
            loaded in 0u32..1 << 20,
            code in 0u32..1 << 19,
            shapes in prop::collection::vec((0u8..16, 1u32..1 << 20, 0u32..1 << 19), 1..20),
            link in 0u32..20,
        ) -> Space {
            let mut start = 0;
            let count = shapes.len() as u32;
            let mut regions = Vec::new();
            for (kind, length, offset) in shapes {
                let spot = start + offset;
                let kind = RegionKind::from_number(kind).expect("a known number");
                let link = if kind.has_names() { link % count } else { 0 };
                regions.push(Region { kind, start, length, spot, link });
                start += length;
            }
            Space { regions, base, loaded, code: code..code * 2 }
        }
    }

    proptest! {
        #[test]
        fn executables_round_trip(
            spaces in prop::collection::vec((0u64..1 << 40, any_space()), 1..4),
            told in prop::collection::btree_set((0u32..3, 0u32..1 << 20), 0..20),
            change: i64,
        ) {
            let mut position = 0;
            let mut old = Vec::new();
            for (gap, space) in spaces {
                old.push(OldExecutable { start: position + gap, space });
                position = old.last().expect("pushed").end();
            }
            let told: Vec<Told> = told
                .into_iter()
                .map(|(space, target)| Told { space, target, change })
                .collect();
            let told = told.into_iter().filter(|told| (told.space as usize) < old.len()).collect();
            let executable = Executable { space: old[0].space.clone(), old, told };
            let encoded = executable.encode();
            prop_assert_eq!(&Executable::decode(&encoded, position).unwrap(), &executable);
            prop_assert!(Executable::decode(&encoded, position - 1).is_err());
        }

        #[test]
        fn what_is_told_is_a_spot_of_an_old_executable(mut space in any_space(), far in 0u32..2) {
            space.loaded = 0;
            let target = spots_max(space.length().into()) as u32 - 1 + far;
            let old = vec![OldExecutable { start: 0, space: space.clone() }];
            let told = vec![Told { space: 0, target, change: 0 }];
            let encoded = Executable { space, old, told }.encode();
            prop_assert_eq!(Executable::decode(&encoded, 1 << 40).is_ok(), far == 0);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            let _ = Executable::decode(&bytes, 1 << 30);
        }
    }
}
