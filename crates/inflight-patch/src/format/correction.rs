//! Corrections: what is added to references that are not as predicted.
//!
//! What moved one reference often moves the next ones, so a correction is one of the last that
//! were used, or a new number. New numbers have a fixed width and their high bytes first: what
//! repeats in them is found by compression, and bytes stand in places where it expects their like.

use crate::damage::Damage;

/// Numbers that a correction may repeat.
const RECENT: usize = 32;
/// Stands for a new number of four bytes; 1 to [`RECENT`] stand for recent ones.
const NEW: u8 = 0;
/// Stands for a new number of eight bytes.
const NEW_WIDE: u8 = RECENT as u8 + 1;

/// The last numbers that differ, the latest first.
#[derive(Debug, Clone, Default)]
struct Recent([i64; RECENT]);

impl Recent {
    /// Puts the number at this place to the front.
    fn again(&mut self, place: usize) -> i64 {
        self.0[..=place].rotate_right(1);
        self.0[0]
    }

    fn add(&mut self, number: i64) {
        self.0.rotate_right(1);
        self.0[0] = number;
    }
}

/// The payload that holds these numbers: how many there are, a byte for each, zeros up to a multiple
/// of four bytes, and the new numbers, 2·n or for negative ones −2·n−1, high bytes first.
pub(crate) fn encode(numbers: &[i64]) -> Vec<u8> {
    if numbers.is_empty() {
        return Vec::new();
    }
    let mut out = (numbers.len() as u32).to_le_bytes().to_vec();
    let (mut recent, mut new) = (Recent::default(), Vec::new());
    for &number in numbers {
        if let Some(place) = recent.0.iter().position(|earlier| *earlier == number) {
            recent.again(place);
            out.push(place as u8 + 1);
            continue;
        }
        recent.add(number);
        let folded = ((number << 1) ^ (number >> 63)) as u64;
        match u32::try_from(folded) {
            Ok(narrow) => {
                out.push(NEW);
                new.extend_from_slice(&narrow.to_be_bytes());
            }
            Err(_) => {
                out.push(NEW_WIDE);
                new.extend_from_slice(&folded.to_be_bytes());
            }
        }
    }
    out.resize(out.len().next_multiple_of(4), 0);
    out.append(&mut new);
    out
}

/// Reads a payload of corrections front to back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Corrections {
    /// Where the byte of the next correction is, and where those bytes end.
    next: usize,
    end: usize,
    /// Where the next new number is.
    new: usize,
    recent: Recent,
}

impl Corrections {
    /// The start of a payload; an empty one holds none.
    pub(crate) fn of(payload: &[u8]) -> Result<Corrections, Damage> {
        let Some(count) = payload.first_chunk::<4>() else {
            return match payload.is_empty() {
                true => Ok(Corrections::default()),
                false => Err(Damage::new(0, "corrections without a count")),
            };
        };
        let count = u32::from_le_bytes(*count) as usize;
        if count > payload.len() - 4 {
            return Err(Damage::new(0, format!("{count} corrections are more than there are")));
        }
        let (end, recent) = (4 + count, Recent::default());
        Ok(Corrections { next: 4, end, new: end.next_multiple_of(4), recent })
    }

    /// The next `count` corrections of the payload.
    pub(crate) fn take(&mut self, payload: &[u8], count: usize) -> Result<Vec<i64>, Damage> {
        if count > self.end - self.next {
            return Err(Damage::new(0, "there are fewer corrections than misses"));
        }
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            let token = payload[self.next];
            self.next += 1;
            numbers.push(match token {
                NEW | NEW_WIDE => {
                    let width = if token == NEW { 4 } else { 8 };
                    let bytes = payload.get(self.new..self.new + width);
                    let bytes =
                        bytes.ok_or_else(|| Damage::new(0, "a correction's number is cut off"))?;
                    self.new += width;
                    let folded = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
                    let number = (folded >> 1) as i64 ^ -((folded & 1) as i64);
                    self.recent.add(number);
                    number
                }
                _ if usize::from(token) <= RECENT => self.recent.again(usize::from(token) - 1),
                _ => return Err(Damage::unknown(0, format!("corrections of kind {token}"))),
            });
        }
        Ok(numbers)
    }

    /// Whether nothing of the payload is left.
    pub(crate) fn is_done(&self, payload: &[u8]) -> bool {
        self.next == self.end && self.new == payload.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => -20i64..20,
            2 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
            1 => prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 31, -(1 << 31), 1 << 32]),
        ]
    }

    proptest! {
        #[test]
        fn corrections_round_trip(
            pieces in prop::collection::vec(prop::collection::vec(number(), 0..100), 0..5),
        ) {
            let payload = encode(&pieces.concat());
            let mut read = Corrections::of(&payload).unwrap();
            for piece in &pieces {
                prop_assert!(piece.is_empty() || !read.is_done(&payload));
                prop_assert_eq!(&read.take(&payload, piece.len()).unwrap(), piece);
            }
            prop_assert!(read.is_done(&payload));
            prop_assert!(read.take(&payload, 1).is_err());
        }

        #[test]
        fn any_bytes_are_corrections_or_refused(payload: Vec<u8>, count in 0u8..10) {
            let small = [&[count, 0, 0, 0], &payload[..]].concat();
            for payload in [payload, small] {
                let Ok(mut read) = Corrections::of(&payload) else { continue };
                let _ = read.take(&payload, usize::from(count));
                let _ = read.is_done(&payload);
            }
        }
    }

    #[test]
    fn what_repeats_takes_a_byte() {
        assert_eq!(encode(&[5, 7, 5, 5]), [4, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 10, 0, 0, 0, 14]);
        assert_eq!(encode(&[-1 << 40])[4..], [33, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255]);
        assert!(encode(&[]).is_empty());
    }
}
