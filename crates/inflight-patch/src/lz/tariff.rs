//! What the parts of commands cost, written down once in a while: models change slowly, and a way is
//! weighed many times before it is taken.

use super::find::LONG_ENOUGH;
use super::grammar::{DISTANCE_LENGTHS, Distance, History, LENGTH_KINDS, Models, Settings};
use super::price::{BIT, price, prices_of};

/// Bytes after which all is written down anew.
const EVERY: usize = 1024;

/// What each symbol of a model costs.
type Prices = [u16; 16];

/// Prices of all but literals.
#[derive(Debug)]
pub(super) struct Tariff {
    settings: Settings,
    /// Where it is written anew.
    until: usize,
    runs: Vec<Prices>,
    commands: Vec<Prices>,
    lengths: [[u16; LONG_ENOUGH]; LENGTH_KINDS],
    scales: [Prices; DISTANCE_LENGTHS],
    leading: [[Prices; 16]; 2],
    trailing: [Prices; 5],
}

impl Tariff {
    /// Nothing is known before it was renewed.
    pub(super) fn new(settings: Settings) -> Tariff {
        Tariff {
            settings,
            until: 0,
            runs: Vec::new(),
            commands: Vec::new(),
            lengths: [[0; LONG_ENOUGH]; LENGTH_KINDS],
            scales: [[0; 16]; DISTANCE_LENGTHS],
            leading: [[[0; 16]; 16]; 2],
            trailing: [[0; 16]; 5],
        }
    }

    /// Writes it down anew, if it is time.
    pub(super) fn renew(&mut self, models: &mut Models, position: usize) {
        if position < self.until {
            return;
        }
        self.until = position + EVERY;
        let all = |prices: &mut Vec<Prices>, models: &[_]| {
            prices.clear();
            prices.extend(models.iter().map(prices_of));
        };
        all(&mut self.runs, &models.runs);
        all(&mut self.commands, &models.commands);
        for (prices, lengths) in self.lengths.iter_mut().zip(&mut models.lengths) {
            for (number, length) in prices.iter_mut().enumerate() {
                *length = price(|price| _ = lengths.code(price, number)) as u16;
            }
        }
        self.scales = models.scales.each_ref().map(prices_of);
        self.leading = models.leading.each_ref().map(|of| of.each_ref().map(prices_of));
        self.trailing = models.trailing.each_ref().map(prices_of);
    }

    /// What a part of a run costs that starts at `position`, by how many parts are before it.
    #[inline(always)]
    pub(super) fn run_part(&self, position: usize, history: &History, before: usize) -> &Prices {
        &self.runs[self.settings.run_context(position, history, before)]
    }

    /// What it costs to tell which command it is, by its symbol.
    #[inline(always)]
    pub(super) fn command(&self, position: usize, history: &History, run: usize) -> &Prices {
        &self.commands[self.settings.command_context(position, history, run)]
    }

    /// What lengths cost, below [`LONG_ENOUGH`].
    #[inline(always)]
    pub(super) fn lengths(&self, kind: usize) -> &[u16; LONG_ENOUGH] {
        &self.lengths[kind]
    }

    /// What a distance costs, less one, of a repeat of this length.
    #[inline(always)]
    pub(super) fn distance(&self, length: usize, distance: u32) -> u32 {
        let parts = Distance::of(distance);
        let scale = (parts.slot >> 2) as usize & 15;
        let leading = ((parts.slot & 3) << 2 | parts.leading) as usize & 15;
        let sum = u32::from(self.scales[length.min(DISTANCE_LENGTHS - 1)][scale])
            + u32::from(self.leading[usize::from(length > 1)][scale][leading]);
        match parts.rest_bits() {
            None | Some(0) => sum,
            Some(count) => {
                let modelled = count.min(4);
                let trailing = (parts.rest & ((1 << modelled) - 1)) as usize & 15;
                let trailing = self.trailing[modelled as usize][trailing];
                sum + (count - modelled) * BIT + u32::from(trailing)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::coder::Encoder;
    use super::super::grammar::Command;
    use super::*;

    proptest! {
        #[test]
        fn prices_are_what_models_would_take(
            learnt in prop::collection::vec(
                (0usize..40, any::<bool>(), 0u32..32, any::<u32>(), 2usize..80), 0..60),
            bits_of_place in 0u32..=2,
        ) {
            let settings = Settings { bits_before: 1, bits_of_place, farther: false };
            let (mut models, mut encoder) = (Models::new(settings), Encoder::default());
            let (mut history, mut position, mut last_run) = (History::NEW, 0, 0);
            for (run, is_recent, shift, distance, length) in learnt {
                let command = match is_recent {
                    true => Command::Recent { place: run % 4, length },
                    false => Command::Repeat { distance: (distance >> shift).max(1), length },
                };
                models.run(&mut encoder, position, &history, run);
                models.command(&mut encoder, position, &history, run, command);
                (history, last_run) = (history.after(run, command), run);
                position += run + command.length();
            }
            let mut tariff = Tariff::new(settings);
            tariff.renew(&mut models, position);
            for shift in 0..32 {
                let distance = 0xdead_beef_u32 >> shift;
                for length in 0..LONG_ENOUGH {
                    let real = price(|price| _ = models.distance(price, length, distance));
                    prop_assert_eq!(tariff.distance(length, distance), real);
                }
            }
            for run in 0..15 {
                let real = price(|price| _ = models.run(price, position, &history, run));
                prop_assert_eq!(u32::from(tariff.run_part(position, &history, 0)[run]), real);
            }
            let again = Command::Again;
            let real = price(|price| _ = models.command(price, position, &history, last_run, again));
            prop_assert_eq!(u32::from(tariff.command(position, &history, last_run)[0]), real);
            let recent = Command::Recent { place: 2, length: 30 };
            let real = price(|price| _ = models.command(price, position, &history, last_run, recent));
            let ours = tariff.command(position, &history, last_run)[recent.symbol()];
            let (kind, number) = recent.told_length().expect("it is told");
            prop_assert_eq!(u32::from(ours) + u32::from(tariff.lengths(kind)[number]), real);
        }
    }
}
