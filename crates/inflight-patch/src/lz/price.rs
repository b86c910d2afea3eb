//! What symbols would cost.

use super::coder::{BITS_MAX, Coder};
use super::model::{BITS, Model};

/// Parts of a bit in which prices are counted.
pub(super) const BIT: u32 = 64;

/// What a likelihood costs, by its highest bits.
static PRICES: [u16; 1 << PRICE_BITS] = {
    let mut prices = [0; 1 << PRICE_BITS];
    let mut place = 0;
    while place < prices.len() {
        prices[place] = price_of(place as u64);
        place += 1;
    }
    prices
};
const PRICE_BITS: u32 = 11;

/// What is unlikely by now may become likely when it is used. If it cost as much as it costs now, it
/// never would be, and what happened to come first would stay: so all is taken for a little more
/// likely than it is.
const HOPE: u64 = 64;

/// The logarithm of a likelihood, of `1 << PRICE_BITS`.
const fn price_of(likely: u64) -> u16 {
    // Of the middle of those that share the place, in halves.
    let likely = 2 * (likely + HOPE) + 1;
    let whole = 2 << PRICE_BITS;
    let mut number = if likely < whole { likely } else { whole - 1 };
    let log = number.ilog2();
    let mut sum = log * BIT;
    // The bits behind the point: a number from 1 on and below 2 is squared, and again.
    number <<= 31 - log;
    let mut bit = BIT / 2;
    while bit > 0 {
        number = (number * number) >> 31;
        let is_two = (number >> 32) as u32;
        sum += is_two * bit;
        number >>= is_two;
        bit /= 2;
    }
    ((PRICE_BITS + 1) * BIT - sum) as u16
}

/// Adds up what symbols would cost; learns nothing.
#[derive(Debug, Default)]
pub(super) struct Price(u32);

impl Price {
    #[inline(always)]
    fn add(&mut self, (_, length): (u32, u32)) {
        self.0 += u32::from(PRICES[(length >> (BITS - PRICE_BITS)) as usize]);
    }
}

impl Coder for Price {
    fn symbol(&mut self, model: &mut Model, symbol: usize) -> usize {
        self.add(model.range(symbol));
        symbol
    }

    fn symbol_of_two(&mut self, one: &mut Model, richer: &mut Model, symbol: usize) -> usize {
        self.add(one.range_with(richer, symbol));
        symbol
    }

    fn bits(&mut self, count: u32, value: u32) -> u32 {
        debug_assert!(count <= BITS_MAX);
        self.0 += count * BIT;
        value
    }
}

/// What each symbol of a model costs.
pub(super) fn prices_of(model: &Model) -> [u16; 16] {
    std::array::from_fn(|symbol| {
        let mut price = Price::default();
        price.add(model.range(symbol));
        price.0 as u16
    })
}

/// What some code costs.
pub(super) fn price(code: impl FnOnce(&mut Price)) -> u32 {
    let mut price = Price::default();
    code(&mut price);
    price.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_logarithms() {
        for (place, price) in PRICES.iter().enumerate() {
            let likely = (place as f64 + HOPE as f64 + 0.5) / f64::from(1 << PRICE_BITS);
            let bits = -likely.min(1.0).log2() * f64::from(BIT);
            assert!((f64::from(*price) - bits).abs() <= 1.5, "{place}: {price} for {bits}");
        }
    }
}
