//! Instructions: how a stretch of the new image is made from old image and literals.

use super::wire::{Cursor, put_signed, put_varint};
use crate::damage::Damage;

/// What makes the next bytes of the new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// Bytes of the old image.
    Copy { old: u64, length: u64 },
    /// The next bytes of the group's literals.
    Literal { length: u64 },
    /// One byte, repeated.
    Run { byte: u8, length: u64 },
}

impl Instruction {
    pub(crate) fn length(self) -> u64 {
        match self {
            Instruction::Copy { length, .. }
            | Instruction::Literal { length }
            | Instruction::Run { length, .. } => length,
        }
    }

    /// What makes its first `now` bytes, or all if they are fewer, and what makes the rest.
    pub(crate) fn split(self, now: u64) -> (Instruction, Option<Instruction>) {
        let with = |skipped: u64, length: u64| match self {
            Instruction::Copy { old, .. } => Instruction::Copy { old: old + skipped, length },
            Instruction::Literal { .. } => Instruction::Literal { length },
            Instruction::Run { byte, .. } => Instruction::Run { byte, length },
        };
        let now = now.min(self.length());
        let rest = self.length() - now;
        (with(0, now), (rest > 0).then(|| with(now, rest)))
    }
}

/// The instructions of a group: a stretch of the new image that can be made by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GroupInstructions {
    /// Where the stretch starts in the new image.
    pub(crate) start: u64,
    pub(crate) list: Vec<Instruction>,
}

/// The most instructions of a group: what a reader may have to hold at once.
pub(crate) const INSTRUCTIONS_MAX: usize = 1 << 20;

const COPY: u64 = 0;
const LITERAL: u64 = 1;
const RUN: u64 = 2;

impl GroupInstructions {
    /// Bytes of the new image that the group makes.
    pub(crate) fn length(&self) -> u64 {
        self.list.iter().map(|instruction| instruction.length()).sum()
    }

    /// Bytes that it takes from its literals.
    pub(crate) fn literal_bytes(&self) -> u64 {
        let literal = |instruction: &Instruction| match instruction {
            Instruction::Literal { length } => *length,
            _ => 0,
        };
        self.list.iter().map(literal).sum()
    }

    /// The payload: start, then lengths with kinds, then places. A copy's place is the distance
    /// from where the last copy would have gone on: small where the trees run in parallel.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.list.len() * 6 + 16);
        put_varint(&mut out, self.start);
        put_varint(&mut out, self.list.len() as u64);
        let (mut position, mut diagonal) = (self.start, 0i64);
        let mut places = Vec::with_capacity(self.list.len() * 4);
        for instruction in &self.list {
            let kind = match *instruction {
                Instruction::Copy { old, .. } => {
                    let here = (old as i64).wrapping_sub(position as i64);
                    put_signed(&mut places, here.wrapping_sub(diagonal));
                    diagonal = here;
                    COPY
                }
                Instruction::Literal { .. } => LITERAL,
                Instruction::Run { byte, .. } => {
                    places.push(byte);
                    RUN
                }
            };
            // Lengths are below 2^62, as images are below 2^63 bytes and this is checked.
            put_varint(&mut out, instruction.length() << 2 | kind);
            position += instruction.length();
        }
        out.extend_from_slice(&places);
        out
    }

    /// Reads instructions that make bytes of a new image of `new_bytes`, and copy from an old one
    /// of `old_bytes`.
    pub(crate) fn decode(
        payload: &[u8],
        old_bytes: u64,
        new_bytes: u64,
    ) -> Result<GroupInstructions, Damage> {
        let mut cursor = Cursor::new(payload);
        let start = cursor.varint("a group's start")?;
        if start > new_bytes {
            return Err(Damage::new(0, "a group starts behind the new tree"));
        }
        let count = cursor.count("the number of instructions")?;
        if count == 0 || count > INSTRUCTIONS_MAX {
            return Err(Damage::new(0, format!("a group of {count} instructions")));
        }
        let mut list = Vec::with_capacity(count);
        let mut position = start;
        for _ in 0..count {
            let word = cursor.varint("an instruction")?;
            let length = word >> 2;
            if length == 0 || length > new_bytes - position {
                return Err(Damage::new(0, "an instruction makes nothing or too much"));
            }
            list.push(match word & 3 {
                COPY => Instruction::Copy { old: 0, length },
                LITERAL => Instruction::Literal { length },
                RUN => Instruction::Run { byte: 0, length },
                _ => return Err(Damage::unknown(0, "instructions of kind 3")),
            });
            position += length;
        }
        let (mut position, mut diagonal) = (start, 0i64);
        for instruction in &mut list {
            match instruction {
                Instruction::Copy { old, length } => {
                    diagonal = diagonal.wrapping_add(cursor.signed("a copy's place")?);
                    *old = (position as i64).wrapping_add(diagonal) as u64;
                    let end = old.checked_add(*length);
                    if end.is_none_or(|end| end > old_bytes) {
                        return Err(Damage::new(0, "a copy reaches outside the old tree"));
                    }
                }
                Instruction::Run { byte, .. } => *byte = cursor.byte("a run's byte")?,
                Instruction::Literal { .. } => {}
            }
            position += instruction.length();
        }
        cursor.finish("a group's instructions")?;
        Ok(GroupInstructions { start, list })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instruction() -> impl Strategy<Value = Instruction> {
        prop_oneof![
            (0u64..1 << 40, 1u64..1 << 40)
                .prop_map(|(old, length)| Instruction::Copy { old, length }),
            (1u64..1 << 20).prop_map(|length| Instruction::Literal { length }),
            (any::<u8>(), 1u64..1 << 40)
                .prop_map(|(byte, length)| Instruction::Run { byte, length }),
        ]
    }

    proptest! {
        #[test]
        fn instructions_round_trip(
            start in 0u64..1 << 50,
            list in prop::collection::vec(instruction(), 1..50),
        ) {
            let group = GroupInstructions { start, list };
            let encoded = group.encode();
            let new_bytes = start + group.length();
            let decoded = GroupInstructions::decode(&encoded, 1 << 41, new_bytes).unwrap();
            prop_assert_eq!(&decoded, &group);
            {
                let short = GroupInstructions::decode(&encoded, 1 << 41, new_bytes - 1);
                prop_assert!(short.is_err(), "more than the new tree holds");
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            let _ = GroupInstructions::decode(&bytes, 1000, 1000);
        }
    }
}
