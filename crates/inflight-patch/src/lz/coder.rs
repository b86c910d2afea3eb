//! Symbols to bytes and back: range asymmetric numeral systems, with two states in turn.
//!
//! The coder is Jarek Duda's ("Asymmetric numeral systems", 2013). That states take turns is Fabian
//! Giesen's idea ("Interleaved entropy coders", 2014): while one waits for its multiplication, the
//! other finds its symbol.

use std::hint::select_unpredictable;

use super::model::{BITS, Model, RATE_MAX};

/// What writes symbols, reads them, or weighs what they would cost. Whoever reads passes anything
/// for a symbol, and gets what it is.
pub(super) trait Coder {
    /// A symbol as this model expects it. The model learns it.
    fn symbol(&mut self, model: &mut Model, symbol: usize) -> usize;

    /// A symbol as two models expect it together. Both learn it.
    fn symbol_of_two(&mut self, one: &mut Model, richer: &mut Model, symbol: usize) -> usize;

    /// A number of so many bits, at most [`BITS_MAX`], of which nothing is known.
    fn bits(&mut self, count: u32, value: u32) -> u32;
}

/// The most bits that are coded at once without a model.
pub(super) const BITS_MAX: u32 = 15;

/// A state is never below that between symbols where it was written, and so below 2^63. What is read may
/// be anything: the product of a length below 2^15 and the rest of a state never overflows.
const STATE_MIN: u64 = 1 << 31;

/// How slowly models learn in the end that know more about the place: they have met less.
const RICHER_RATE_MAX: u8 = RATE_MAX - 1;

fn learn_both(one: &mut Model, richer: &mut Model, symbol: usize) {
    one.learn(symbol, RATE_MAX);
    richer.learn(symbol, RICHER_RATE_MAX);
}

/// Keeps the symbols of a segment until all are there: they are written from the last to the first.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    symbols: Vec<Kept>,
}

/// Where a range starts and how long it is, of 2^[`BITS`]; or, marked, bits and how many they are.
#[derive(Debug, Clone, Copy)]
struct Kept {
    start: u16,
    length: u16,
}

/// Marks the length of bits. That of a range has fewer.
const PLAIN: u16 = 1 << 15;

impl Encoder {
    /// With room for what segments of so many bytes take, if each is a literal.
    pub(super) fn for_bytes(count: usize) -> Encoder {
        Encoder { symbols: Vec::with_capacity(2 * count + count / 8) }
    }

    /// Writes the segment: both states, then the words that they take in as they are read.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let (mut states, mut words) = ([STATE_MIN; 2], Vec::new());
        for (number, kept) in self.symbols.iter().enumerate().rev() {
            let state = &mut states[number % 2];
            let (length, scale) = match kept.length & PLAIN != 0 {
                true => (1, u32::from(kept.length & !PLAIN)),
                false => (u64::from(kept.length), BITS),
            };
            // It must fit when it has grown.
            if *state >= length << (63 - scale) {
                words.push(*state as u32);
                *state >>= 32;
            }
            *state = ((*state / length) << scale) + *state % length + u64::from(kept.start);
        }
        self.symbols.clear();
        states.iter().for_each(|state| out.extend_from_slice(&state.to_le_bytes()));
        words.iter().rev().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    fn keep(&mut self, (start, length): (u32, u32)) {
        self.symbols.push(Kept { start: start as u16, length: length as u16 });
    }
}

impl Coder for Encoder {
    fn symbol(&mut self, model: &mut Model, symbol: usize) -> usize {
        self.keep(model.range(symbol));
        model.learn(symbol, RATE_MAX);
        symbol
    }

    fn symbol_of_two(&mut self, one: &mut Model, richer: &mut Model, symbol: usize) -> usize {
        self.keep(one.range_with(richer, symbol));
        learn_both(one, richer, symbol);
        symbol
    }

    fn bits(&mut self, count: u32, value: u32) -> u32 {
        self.symbols.push(Kept { start: value as u16, length: PLAIN | count as u16 });
        value
    }
}

/// Reads symbols. Past the end of its bytes it reads zeros: who reads asks at the end.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    /// The state that is next, and the one after it.
    states: [u64; 2],
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { states: [STATE_MIN; 2], bytes, at: 0 }
    }

    /// Starts with the next segment.
    pub(super) fn start(&mut self) {
        for state in &mut self.states {
            let bytes = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>);
            *state = bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
            self.at += 8;
        }
    }

    /// Whether the states are what whoever wrote them started with: then all of a segment was read
    /// as it was written. They may have changed places.
    pub(super) fn is_at_end_of_segment(&self) -> bool {
        self.states == [STATE_MIN; 2] && self.at <= self.bytes.len()
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// Takes a word into a state if it needs one, and gives the other one the turn.
    #[inline(always)]
    fn next(&mut self, state: u64) {
        let bytes = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<4>);
        let word = bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
        // One in ten does: too seldom to read ahead, too often to be told beforehand.
        let needed = state < STATE_MIN;
        self.at += select_unpredictable(needed, 4, 0);
        let state = select_unpredictable(needed, state << 32 | word, state);
        self.states = [self.states[1], state];
    }

    #[inline(always)]
    fn take(&mut self, model: &Model) -> usize {
        let state = self.states[0];
        let place = state as u32 & ((1 << BITS) - 1);
        let symbol = model.symbol_at(place);
        let (start, length) = model.range(symbol);
        self.next(u64::from(length) * (state >> BITS) + u64::from(place - start));
        symbol
    }
}

impl Coder for Decoder<'_> {
    #[inline(always)]
    fn symbol(&mut self, model: &mut Model, _: usize) -> usize {
        let symbol = self.take(model);
        model.learn(symbol, RATE_MAX);
        symbol
    }

    #[inline(always)]
    fn symbol_of_two(&mut self, one: &mut Model, richer: &mut Model, _: usize) -> usize {
        let symbol = self.take(&one.with(richer));
        learn_both(one, richer, symbol);
        symbol
    }

    #[inline(always)]
    fn bits(&mut self, count: u32, _: u32) -> u32 {
        let state = self.states[0];
        self.next(state >> count);
        state as u32 & ((1 << count) - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is coded: a symbol of one model, of two, or bits and how many they are.
    #[derive(Debug, Clone, Copy)]
    enum Item {
        One(usize, usize),
        Two(usize, usize),
        Bits(u32, u32),
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            (0usize..4, 0usize..16).prop_map(|(model, symbol)| Item::One(model, symbol)),
            (0usize..3, 0usize..3).prop_map(|(model, symbol)| Item::Two(model, symbol)),
            (0..=BITS_MAX, any::<u32>())
                .prop_map(|(count, value)| Item::Bits(count, value & ((1 << count) - 1))),
        ]
    }

    fn code<C: Coder>(coder: &mut C, models: &mut [Model; 4], item: Item) -> Item {
        match item {
            Item::One(model, symbol) => Item::One(model, coder.symbol(&mut models[model], symbol)),
            Item::Two(model, symbol) => {
                let (one, richer) = models.split_at_mut(model + 1);
                Item::Two(model, coder.symbol_of_two(&mut one[model], &mut richer[0], symbol))
            }
            Item::Bits(count, value) => Item::Bits(count, coder.bits(count, value)),
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            segments in prop::collection::vec(prop::collection::vec(item(), 0..300), 1..4),
            behind in 0usize..9,
        ) {
            let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
            let mut models = [Model::NEW; 4];
            for segment in &segments {
                for item in segment {
                    code(&mut encoder, &mut models, *item);
                }
                encoder.finish(&mut bytes);
            }
            bytes.resize(bytes.len() + behind, 7);
            let (mut decoder, mut models) = (Decoder::new(&bytes), [Model::NEW; 4]);
            for segment in &segments {
                decoder.start();
                for item in segment {
                    // Whoever reads does not know which symbol it is.
                    let unknown = match *item {
                        Item::One(model, _) => Item::One(model, 0),
                        Item::Two(model, _) => Item::Two(model, 0),
                        Item::Bits(count, _) => Item::Bits(count, 0),
                    };
                    let read = code(&mut decoder, &mut models, unknown);
                    prop_assert_eq!(format!("{read:?}"), format!("{item:?}"));
                }
                prop_assert!(decoder.is_at_end_of_segment());
            }
            prop_assert_eq!(decoder.left(), behind);
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>, items in prop::collection::vec(item(), 0..300)) {
            let (mut decoder, mut models) = (Decoder::new(&bytes), [Model::NEW; 4]);
            decoder.start();
            for item in items {
                code(&mut decoder, &mut models, item);
            }
        }
    }
}
