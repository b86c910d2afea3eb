//! How likely each of sixteen symbols is, learnt as they come.
//!
//! The idea is that of "LZNA" (Charles Bloom and Fabian Giesen, 2015): how likely all symbols before
//! one are, for sixteen symbols, fits into two vectors. One comparison finds a symbol, and one step
//! moves all of them towards what was seen.

use std::hint::select_unpredictable;

/// Bits of a likelihood.
pub(super) const BITS: u32 = 15;

/// All that is likely, together.
const WHOLE: u32 = 1 << BITS;

/// What each symbol that never comes keeps of it.
const LEAST: u16 = 32;

/// A model of symbols from 0 to 15.
///
/// The element of a symbol is how likely all those before it are, of [`WHOLE`]. That of symbol 0
/// would be 0. In its place is how much was learnt, which moves towards `WHOLE` as the others move, less
/// `WHOLE`: as a signed number it is below every place, as 0 would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(32))]
pub(super) struct Model([u16; 16]);

/// Where the elements move to when a symbol was seen.
static TARGETS: [Model; 16] = {
    let mut targets = [Model([0; 16]); 16];
    let mut seen = 0;
    while seen < 16 {
        targets[seen].0[0] = NOTHING + (WHOLE - 1) as u16;
        let mut symbol = 1;
        while symbol < 16 {
            targets[seen].0[symbol] = match symbol <= seen {
                true => symbol as u16 * LEAST,
                false => WHOLE as u16 - (16 - symbol as u16) * LEAST,
            };
            symbol += 1;
        }
        seen += 1;
    }
    targets
};

/// How slowly models learn in the end: by how many bits the way to a target is shortened.
pub(super) const RATE_MAX: u8 = 7;

/// By how many bits the way to a target is shortened, by the highest bits of what was learnt: an
/// eighth of the way at first, in the end a 128th.
static RATES: [u8; 1 << RATE_BITS] = {
    let mut rates = [0; 1 << RATE_BITS];
    let mut learnt = 0;
    while learnt < rates.len() {
        let left = rates.len() - 1 - learnt;
        rates[learnt] =
            [RATE_MAX, 7, 6, 6, 5, 5, 4, 4, 3][(usize::BITS - left.leading_zeros()) as usize];
        learnt += 1;
    }
    rates
};
const RATE_BITS: u32 = 8;

/// What stands where nothing was learnt.
const NOTHING: u16 = 1 << 15;

/// A model that learnt less is young: what it expects counts for little.
const GROWN: u16 = NOTHING + (30 << 10);

impl Model {
    /// All symbols are as likely, and nothing was learnt.
    pub(super) const NEW: Model = {
        let mut model = [NOTHING; 16];
        let mut symbol = 1;
        while symbol < 16 {
            model[symbol] = (symbol as u32 * WHOLE / 16) as u16;
            symbol += 1;
        }
        Model(model)
    };

    /// How likely the symbols before this one are, and how likely it is.
    #[inline(always)]
    pub(super) fn range(&self, symbol: usize) -> (u32, u32) {
        // No branches: no processor could foresee which symbol comes.
        let symbol = symbol & 15;
        let start = select_unpredictable(symbol == 0, 0, u32::from(self.0[symbol]));
        let end = u32::from(self.0[(symbol + 1) & 15]);
        let end = select_unpredictable(symbol == 15, WHOLE, end);
        (start, end - start)
    }

    /// The same, as two models expect it together: see [`Model::with`].
    #[inline(always)]
    pub(super) fn range_with(&self, richer: &Model, symbol: usize) -> (u32, u32) {
        let trusted = self.trusted(richer);
        let mean = |one: u16, two: u16| (u32::from(one) + u32::from(two)).div_ceil(2) as u16;
        let element = |symbol: usize| {
            let both = mean(self.0[symbol], richer.0[symbol]);
            u32::from(mean(both, trusted.0[symbol]))
        };
        let symbol = symbol & 15;
        let start = select_unpredictable(symbol == 0, 0, element(symbol));
        let end = select_unpredictable(symbol == 15, WHOLE, element((symbol + 1) & 15));
        (start, end - start)
    }

    /// The symbol in whose range `place`, below 2^[`BITS`], is.
    #[inline(always)]
    pub(super) fn symbol_at(&self, place: u32) -> usize {
        let above = self.elements_above(place as i16) | 1 << 16;
        above.trailing_zeros() as usize - 1
    }

    /// Learns that this symbol came, at least so fast: `rate_max` is the most bits by which the way
    /// is shortened.
    #[inline(always)]
    pub(super) fn learn(&mut self, symbol: usize, rate_max: u8) {
        // Every likelihood stays above zero: two elements never come closer than they are, or than
        // their targets are, as all of them are rounded down.
        let rate = RATES[usize::from(self.0[0] >> (BITS - RATE_BITS)) & (RATES.len() - 1)];
        *self = self.moved(&TARGETS[symbol & 15], rate.min(rate_max));
    }

    /// What two models expect together: the second knows more about the place, so it counts for
    /// three quarters, but for one quarter as long as it is young.
    #[inline(always)]
    pub(super) fn with(&self, richer: &Model) -> Model {
        self.between(richer).between(self.trusted(richer))
    }

    #[inline(always)]
    fn trusted<'a>(&'a self, richer: &'a Model) -> &'a Model {
        if richer.0[0] < GROWN { self } else { richer }
    }
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi16, _mm_avg_epu16, _mm_cmpgt_epi16, _mm_cvtsi32_si128,
        _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16, _mm_sra_epi16, _mm_sub_epi16,
    };

    use super::Model;

    /// With vectors of SSE2, which every x86-64 processor has. The portable ways give the same.
    impl Model {
        #[inline(always)]
        fn vectors(&self) -> [__m128i; 2] {
            // SAFETY: a model is as long as two vectors and aligned to more, and any bits are one.
            unsafe { *(&raw const self.0).cast() }
        }

        #[inline(always)]
        fn of(vectors: [__m128i; 2]) -> Model {
            // SAFETY: they are as long as a model's elements, and any bits are elements.
            Model(unsafe { std::mem::transmute::<[__m128i; 2], [u16; 16]>(vectors) })
        }

        /// A bit for each element that is above `place`.
        #[inline(always)]
        pub(super) fn elements_above(&self, place: i16) -> u32 {
            let [low, high] = self.vectors();
            // SAFETY: the processor has SSE2.
            unsafe {
                let place = _mm_set1_epi16(place);
                let (low, high) = (_mm_cmpgt_epi16(low, place), _mm_cmpgt_epi16(high, place));
                _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u32
            }
        }

        /// The model with every element nearer to a target by `way >> rate`, rounded down.
        #[inline(always)]
        pub(super) fn moved(&self, target: &Model, rate: u8) -> Model {
            let (here, target) = (self.vectors(), target.vectors());
            // SAFETY: the processor has SSE2.
            unsafe {
                let rate = _mm_cvtsi32_si128(i32::from(rate));
                let low = _mm_sra_epi16(_mm_sub_epi16(target[0], here[0]), rate);
                let high = _mm_sra_epi16(_mm_sub_epi16(target[1], here[1]), rate);
                Model::of([_mm_add_epi16(here[0], low), _mm_add_epi16(here[1], high)])
            }
        }

        /// The mean of two models, rounded up.
        #[inline(always)]
        pub(super) fn between(&self, other: &Model) -> Model {
            let (one, two) = (self.vectors(), other.vectors());
            // SAFETY: the processor has SSE2.
            unsafe { Model::of([_mm_avg_epu16(one[0], two[0]), _mm_avg_epu16(one[1], two[1])]) }
        }
    }
}

/// The same, element by element.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::Model;

    #[inline(always)]
    pub(super) fn elements_above(model: &Model, place: i16) -> u32 {
        let bit = |(symbol, element): (usize, &u16)| u32::from(*element as i16 > place) << symbol;
        model.0.iter().enumerate().map(bit).sum()
    }

    #[inline(always)]
    pub(super) fn moved(model: &Model, target: &Model, rate: u8) -> Model {
        Model(std::array::from_fn(|symbol| {
            let (here, target) = (model.0[symbol] as i16, target.0[symbol] as i16);
            (here + ((target - here) >> rate)) as u16
        }))
    }

    #[inline(always)]
    pub(super) fn between(one: &Model, two: &Model) -> Model {
        Model(std::array::from_fn(|symbol| {
            (u32::from(one.0[symbol]) + u32::from(two.0[symbol])).div_ceil(2) as u16
        }))
    }

    #[cfg(not(target_arch = "x86_64"))]
    impl Model {
        #[inline(always)]
        pub(super) fn elements_above(&self, place: i16) -> u32 {
            elements_above(self, place)
        }

        #[inline(always)]
        pub(super) fn moved(&self, target: &Model, rate: u8) -> Model {
            moved(self, target, rate)
        }

        #[inline(always)]
        pub(super) fn between(&self, other: &Model) -> Model {
            between(self, other)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A model that learnt some symbols, each many times in a row.
    fn learnt() -> impl Strategy<Value = Model> {
        prop::collection::vec((0usize..16, 1usize..400, 3u8..9), 0..12).prop_map(|symbols| {
            let mut model = Model::NEW;
            for (symbol, times, rate_max) in symbols {
                (0..times).for_each(|_| model.learn(symbol, rate_max));
            }
            model
        })
    }

    proptest! {
        #[test]
        fn ranges_are_the_whole_whatever_was_learnt(one in learnt(), two in learnt()) {
            for model in [one, two, one.with(&two)] {
                let mut end = 0;
                for symbol in 0..16 {
                    let (start, length) = model.range(symbol);
                    prop_assert!(start == end && length > 0, "{model:?}");
                    end = start + length;
                    prop_assert_eq!(model.symbol_at(start), symbol);
                    prop_assert_eq!(model.symbol_at(end - 1), symbol);
                }
                prop_assert_eq!(end, WHOLE);
            }
        }

        #[test]
        fn one_range_of_two_models_is_as_in_all(one in learnt(), two in learnt()) {
            for symbol in 0..16 {
                prop_assert_eq!(one.range_with(&two, symbol), one.with(&two).range(symbol));
            }
        }

        #[test]
        fn vectors_do_what_elements_do(
            one in learnt(),
            two in learnt(),
            seen in 0usize..16,
            rate in 0u8..9,
            place in 0i16..=i16::MAX,
        ) {
            prop_assert_eq!(one.elements_above(place), portable::elements_above(&one, place));
            prop_assert_eq!(one.between(&two), portable::between(&one, &two));
            let target = &TARGETS[seen];
            prop_assert_eq!(one.moved(target, rate), portable::moved(&one, target, rate));
        }
    }

    #[test]
    fn what_comes_often_becomes_likely() {
        let mut model = Model::NEW;
        let mut before = model.range(5).1;
        for times in 0..300 {
            model.learn(5, 7);
            let likely = model.range(5).1;
            assert!(likely >= before, "after {times}");
            before = likely;
        }
        assert!(before > WHOLE * 95 / 100, "{before}");
        model.learn(9, 7);
        assert!((200..500).contains(&model.range(9).1), "it still learns: {model:?}");
    }

    #[test]
    fn a_young_model_counts_for_little() {
        let (mut grown, mut young) = (Model::NEW, Model::NEW);
        (0..300).for_each(|_| grown.learn(3, 7));
        young.learn(8, 7);
        let likely = |model: Model| model.range(3).1;
        assert!(likely(grown.with(&young)) > WHOLE * 7 / 10);
        (0..300).for_each(|_| young.learn(8, 7));
        assert!(likely(grown.with(&young)) < WHOLE * 3 / 10);
    }
}
