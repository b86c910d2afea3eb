//! What stands in a stream: runs of literals, and repeats between them. Each function here is both
//! how something is written and how it is read.

use super::coder::{BITS_MAX, Coder};
use super::model::Model;

/// The shortest repeat, but for one byte from where the last one came.
pub(super) const REPEAT_MIN: usize = 2;

/// Literals after which a new run starts: a run is told in parts of up to 15.
pub(super) const RUN_MAX: usize = 273 * RUN_PART;
pub(super) const RUN_PART: usize = 15;

/// The longest repeat.
pub(super) const REPEAT_MAX: usize = REPEAT_MIN + LENGTH_FROM[4] - 1;

/// What is known about the bytes, told to who reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How many bits of the byte before, the high ones, tell what a literal may be: up to 8.
    pub(crate) bits_before: u32,
    /// How many bits of the place do, the low ones: up to 2.
    pub(crate) bits_of_place: u32,
    /// Whether the byte before that one tells as well.
    pub(crate) farther: bool,
}

impl Settings {
    pub(super) fn to_byte(self) -> u8 {
        let farther = u32::from(self.farther);
        (self.bits_before + 9 * (self.bits_of_place + 3 * farther)) as u8
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Settings> {
        let byte = u32::from(byte);
        (byte < 54).then_some(Settings {
            bits_before: byte % 9,
            bits_of_place: byte / 9 % 3,
            farther: byte >= 27,
        })
    }

    fn place(self, position: usize) -> usize {
        position & ((1 << self.bits_of_place) - 1)
    }

    /// The number of that of [`Models::run_part`].
    #[inline(always)]
    pub(super) fn run_context(self, position: usize, history: &History, before: usize) -> usize {
        let context = match before {
            0 => 16 * history.last as usize + usize::from(history.run),
            _ => 16 * KINDS,
        };
        self.place(position) * RUN_MODELS + context
    }

    /// The number of that of [`Models::kinds`].
    #[inline(always)]
    pub(super) fn command_context(self, position: usize, history: &History, run: usize) -> usize {
        let kinds = history.older as usize * KINDS + history.last as usize;
        let past = (run.min(5) * KINDS * KINDS + kinds) * 2 + usize::from(history.was_long);
        self.place(position) * COMMAND_MODELS + past
    }

    fn places(self) -> usize {
        1 << self.bits_of_place
    }
}

/// What a run of literals is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// The byte that lies where the last repeat would go on.
    Again,
    /// A repeat from as far as one of the last four came from.
    Recent { place: usize, length: usize },
    /// A repeat from so many bytes before.
    Repeat { distance: u32, length: usize },
}

impl Command {
    /// What tells its kind, and its length if that is short.
    #[inline(always)]
    pub(super) fn symbol(&self) -> usize {
        match self {
            Command::Again => 0,
            Command::Recent { place, .. } => 1 + place,
            Command::Repeat { length, .. } => LENGTHS_FROM + (length - REPEAT_MIN).min(LONG),
        }
    }

    /// Bytes that it makes.
    #[inline(always)]
    pub(super) fn length(&self) -> usize {
        match self {
            Command::Again => 1,
            Command::Recent { length, .. } | Command::Repeat { length, .. } => *length,
        }
    }

    /// Which lengths tell its length, and the number there; none if its symbol does.
    #[inline(always)]
    pub(super) fn told_length(&self) -> Option<(usize, usize)> {
        match self {
            Command::Again => None,
            Command::Recent { place, length } => Some(((*place).min(1), length - REPEAT_MIN)),
            Command::Repeat { length, .. } => {
                (length - REPEAT_MIN).checked_sub(LONG).map(|number| (LONGER, number))
            }
        }
    }
}

/// What was last: the nearest past tells what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct History {
    /// How far the last repeats came from, the last one first.
    pub(super) distances: [u32; 4],
    /// The last command and the one before.
    pub(super) last: Kind,
    pub(super) older: Kind,
    /// Whether the last one made more than 8 bytes.
    pub(super) was_long: bool,
    /// Literals before it, up to 15.
    pub(super) run: u8,
}

/// The kinds of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Again,
    Recent,
    Repeat,
}

/// How many kinds there are.
const KINDS: usize = 3;

impl History {
    pub(super) const NEW: History = History {
        distances: [1; 4],
        last: Kind::Repeat,
        older: Kind::Repeat,
        was_long: false,
        run: 0,
    };

    /// What a run behind so many literals and a command of this kind is expected by.
    #[inline(always)]
    pub(super) fn behind(mut self, run: usize, kind: Kind) -> History {
        self.run = run.min(RUN_PART) as u8;
        self.last = kind;
        self
    }

    /// What is past after so many literals and this command.
    #[inline(always)]
    pub(super) fn after(mut self, run: usize, command: Command) -> History {
        self.run = run.min(RUN_PART) as u8;
        self.older = self.last;
        self.was_long = command.length() > 8;
        match command {
            Command::Again => self.last = Kind::Again,
            Command::Recent { place, .. } => {
                let [last, second, third, fourth] = self.distances;
                self.distances = match place {
                    0 => self.distances,
                    1 => [second, last, third, fourth],
                    2 => [third, last, second, fourth],
                    _ => [fourth, last, second, third],
                };
                self.last = Kind::Recent;
            }
            Command::Repeat { distance, .. } => {
                let [last, second, third, _] = self.distances;
                self.distances = [distance, last, second, third];
                self.last = Kind::Repeat;
            }
        }
        self
    }
}

/// All models of a stream.
#[derive(Debug)]
pub(super) struct Models {
    pub(super) settings: Settings,
    /// The halves of literals by what is before them.
    high: Vec<Model>,
    low: Vec<Model>,
    /// The same by the byte before that one.
    high_farther: Vec<Model>,
    low_farther: Vec<Model>,
    /// The same for the first literal of a run, by what it differs from.
    high_broken: [Model; 16],
    low_broken: Vec<Model>,
    /// Parts of runs, by what was last, and those that go on.
    pub(super) runs: Vec<Model>,
    /// What a command is.
    pub(super) commands: Vec<Model>,
    pub(super) lengths: [Lengths; LENGTH_KINDS],
    /// Distances: how many bits, by the repeat's length; the highest ones; and the lowest, by how
    /// many those are.
    pub(super) scales: [Model; DISTANCE_LENGTHS],
    pub(super) leading: [[Model; 16]; 2],
    pub(super) trailing: [Model; 5],
}

/// Models of runs for each place, and of commands.
const RUN_MODELS: usize = (KINDS + 1) * 16;
const COMMAND_MODELS: usize = 6 * KINDS * KINDS * 2;

impl Models {
    pub(super) fn new(settings: Settings) -> Models {
        let new = |count: usize| vec![Model::NEW; count];
        let contexts = settings.places() << settings.bits_before;
        let farther = if settings.farther { 256 } else { 0 };
        Models {
            settings,
            high: new(contexts),
            low: new(contexts * 16),
            high_farther: new(farther),
            low_farther: new(farther),
            high_broken: [Model::NEW; 16],
            low_broken: new(256),
            runs: new(settings.places() * RUN_MODELS),
            commands: new(settings.places() * COMMAND_MODELS),
            lengths: [Lengths::NEW; LENGTH_KINDS],
            scales: [Model::NEW; DISTANCE_LENGTHS],
            leading: [[Model::NEW; 16]; 2],
            trailing: [Model::NEW; 5],
        }
    }

    /// How many literals are next.
    #[inline(always)]
    pub(super) fn run<C: Coder>(
        &mut self,
        coder: &mut C,
        position: usize,
        history: &History,
        length: usize,
    ) -> usize {
        let (mut left, mut total) = (length, 0);
        loop {
            let model = self.run_part(position, history, total / RUN_PART);
            let part = coder.symbol(model, left.min(RUN_PART));
            total += part;
            if part < RUN_PART || total == RUN_MAX {
                return total;
            }
            left = left.wrapping_sub(RUN_PART);
        }
    }

    /// The model of a part of a run that starts at `position`, by how many parts are before it.
    #[inline(always)]
    fn run_part(&mut self, position: usize, history: &History, before: usize) -> &mut Model {
        &mut self.runs[self.settings.run_context(position, history, before)]
    }

    /// A literal behind these two bytes, the nearest first: its high half, then its low one.
    #[inline(always)]
    pub(super) fn literal<C: Coder>(
        &mut self,
        coder: &mut C,
        position: usize,
        before: [u8; 2],
        byte: u8,
    ) -> u8 {
        let context = self.context(position, before[0]);
        let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
        if !self.settings.farther {
            let high = coder.symbol(&mut self.high[context], high);
            let low = coder.symbol(&mut self.low[context * 16 + high], low);
            return (high << 4 | low) as u8;
        }
        let farther = usize::from(before[1]);
        let one = &mut self.high[context];
        let high = coder.symbol_of_two(one, &mut self.high_farther[farther], high);
        let one = &mut self.low[context * 16 + high];
        let richer = &mut self.low_farther[(farther & 0xf0) + high];
        let low = coder.symbol_of_two(one, richer, low);
        (high << 4 | low) as u8
    }

    /// The first literal behind a repeat: the repeat would have gone on with `expected`.
    #[inline(always)]
    pub(super) fn broken<C: Coder>(
        &mut self,
        coder: &mut C,
        position: usize,
        before: u8,
        expected: u8,
        byte: u8,
    ) -> u8 {
        let context = self.context(position, before);
        let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
        let expected_high = usize::from(expected >> 4);
        let one = &mut self.high[context];
        let high = coder.symbol_of_two(one, &mut self.high_broken[expected_high], high);
        let one = &mut self.low[context * 16 + high];
        let low = match high == expected_high {
            true => coder.symbol_of_two(one, &mut self.low_broken[usize::from(expected)], low),
            false => coder.symbol(one, low),
        };
        (high << 4 | low) as u8
    }

    #[inline(always)]
    fn context(&self, position: usize, before: u8) -> usize {
        let Settings { bits_before, .. } = self.settings;
        self.settings.place(position) << bits_before | usize::from(before) >> (8 - bits_before)
    }

    /// What comes after a run of so many literals.
    #[inline(always)]
    pub(super) fn command<C: Coder>(
        &mut self,
        coder: &mut C,
        position: usize,
        history: &History,
        run: usize,
        command: Command,
    ) -> Command {
        let symbol = coder.symbol(self.kinds(position, history, run), command.symbol());
        if symbol == 0 {
            return Command::Again;
        }
        let number = command.told_length().map_or(0, |(_, number)| number);
        if symbol < LENGTHS_FROM {
            let place = symbol - 1;
            let length = REPEAT_MIN + self.lengths[place.min(1)].code(coder, number);
            return Command::Recent { place, length };
        }
        let length = match symbol - LENGTHS_FROM {
            LONG => LONG + self.lengths[LONGER].code(coder, number),
            short => short,
        };
        let distance = match command {
            Command::Repeat { distance, .. } => distance,
            _ => 1,
        };
        let distance = self.distance(coder, length, distance - 1).wrapping_add(1);
        Command::Repeat { distance, length: REPEAT_MIN + length }
    }

    /// The model of what a command is, by what was last.
    #[inline(always)]
    fn kinds(&mut self, position: usize, history: &History, run: usize) -> &mut Model {
        &mut self.commands[self.settings.command_context(position, history, run)]
    }

    /// How far before a repeat of this length comes from, less one: its highest bits and how many
    /// there are, then what is left of them, the last four with a model.
    #[inline(always)]
    pub(super) fn distance<C: Coder>(
        &mut self,
        coder: &mut C,
        length: usize,
        distance: u32,
    ) -> u32 {
        let parts = Distance::of(distance);
        let scale = coder
            .symbol(&mut self.scales[length.min(DISTANCE_LENGTHS - 1)], (parts.slot >> 2) as usize);
        let leading = &mut self.leading[usize::from(length > 1)][scale];
        let symbol = coder.symbol(leading, ((parts.slot & 3) << 2 | parts.leading) as usize) as u32;
        let parts = Distance {
            slot: (scale as u32) << 2 | symbol >> 2,
            leading: symbol & 3,
            rest: parts.rest,
        };
        let Some(count) = parts.rest_bits() else { return parts.whole() };
        let mut rest = 0;
        let modelled = count.min(4);
        let mut plain = count - modelled;
        while plain > 0 {
            let some = plain.min(BITS_MAX);
            plain -= some;
            let shift = modelled + plain;
            rest |= coder.bits(some, parts.rest >> shift & ((1 << some) - 1)) << shift;
        }
        if modelled > 0 {
            let (model, mask) = (&mut self.trailing[modelled as usize], (1 << modelled) - 1);
            rest |= coder.symbol(model, (parts.rest & mask) as usize) as u32 & mask;
        }
        Distance { rest, ..parts }.whole()
    }
}

/// The first symbol of a command that is for a repeat with its distance, and how many lengths have
/// a symbol of their own.
const LENGTHS_FROM: usize = 5;
const LONG: usize = 10;

/// Repeats with their distance from this length on have the same symbol.
pub(super) const LONG_FROM: usize = REPEAT_MIN + LONG;

/// The lengths that are told of repeats with a distance; those of recent ones come first.
pub(super) const LONGER: usize = 2;

/// Distances have models by so many lengths, the last for all that are longer.
pub(super) const DISTANCE_LENGTHS: usize = 4;

/// How many kinds of lengths there are.
pub(super) const LENGTH_KINDS: usize = 3;

/// A distance in parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distance {
    /// How many bits there are, and the second of them.
    pub(super) slot: u32,
    /// The two after these.
    pub(super) leading: u32,
    /// All others.
    pub(super) rest: u32,
}

impl Distance {
    #[inline(always)]
    pub(super) fn of(distance: u32) -> Distance {
        if distance < 4 {
            return Distance { slot: distance, leading: 0, rest: 0 };
        }
        let bits = 31 - distance.leading_zeros();
        let slot = 2 * bits + (distance >> (bits - 1) & 1);
        let below = distance & ((1 << (bits - 1)) - 1);
        match (bits - 1).checked_sub(2) {
            Some(rest) => {
                Distance { slot, leading: below >> rest, rest: below & ((1 << rest) - 1) }
            }
            None => Distance { slot, leading: below << 1, rest: 0 },
        }
    }

    /// How many bits the rest has.
    #[inline(always)]
    pub(super) fn rest_bits(&self) -> Option<u32> {
        (self.slot / 2).checked_sub(3)
    }

    #[inline(always)]
    fn whole(&self) -> u32 {
        match self.slot {
            0..4 => self.slot,
            4..6 => (2 | self.slot & 1) << 1 | self.leading >> 1,
            _ => {
                let rest = self.slot / 2 - 3;
                (2 | self.slot & 1) << (rest + 2) | self.leading << rest | self.rest
            }
        }
    }
}

/// Numbers that are small mostly: a symbol, and one to four more where they are not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    first: Model,
    more: [[Model; 4]; 4],
}

/// The first number that takes one symbol more, two, three and four; and the first that cannot be told.
const LENGTH_FROM: [usize; 5] = [12, 28, 284, 4380, 69916];

impl Lengths {
    const NEW: Lengths = Lengths { first: Model::NEW, more: [[Model::NEW; 4]; 4] };

    #[inline(always)]
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, number: usize) -> usize {
        let symbol = match number < LENGTH_FROM[0] {
            true => number,
            false => {
                LENGTH_FROM[0] + LENGTH_FROM[1..4].iter().filter(|from| number >= **from).count()
            }
        };
        let symbol = coder.symbol(&mut self.first, symbol);
        let Some(more) = symbol.checked_sub(LENGTH_FROM[0]) else { return symbol };
        let rest = number.wrapping_sub(LENGTH_FROM[more]);
        let mut sum = 0;
        for (place, model) in self.more[more][..=more].iter_mut().enumerate() {
            sum = sum << 4 | coder.symbol(model, rest >> (4 * (more - place)) & 15);
        }
        LENGTH_FROM[more] + sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::coder::{Decoder, Encoder};
    use super::*;

    proptest! {
        #[test]
        fn commands_are_read_as_they_were_written(
            commands in prop::collection::vec(
                (0usize..3, 0usize..4, 2usize..=REPEAT_MAX, any::<u32>(), 0u32..32, 0usize..=RUN_MAX),
                0..60,
            ),
            bits_of_place in 0u32..3,
        ) {
            let settings = Settings { bits_before: 1, bits_of_place, farther: false };
            let commands: Vec<(usize, Command)> = commands
                .into_iter()
                .map(|(kind, place, length, distance, bits, run)| {
                    // Of all sizes.
                    let length = (length >> (bits % 17)).max(2);
                    let command = match kind {
                        0 => Command::Again,
                        1 => Command::Recent { place, length },
                        _ => Command::Repeat { distance: (distance >> bits).max(1), length },
                    };
                    (run >> (bits % 13), command)
                })
                .collect();
            let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
            let (mut models, mut history) = (Models::new(settings), History::NEW);
            for (number, (run, command)) in commands.iter().enumerate() {
                models.run(&mut encoder, number, &history, *run);
                models.command(&mut encoder, number, &history, *run, *command);
                history = history.after(*run, *command);
            }
            encoder.finish(&mut bytes);
            let mut decoder = Decoder::new(&bytes);
            let (mut models, mut history) = (Models::new(settings), History::NEW);
            decoder.start();
            for (number, (run, command)) in commands.iter().enumerate() {
                prop_assert_eq!(models.run(&mut decoder, number, &history, 0), *run);
                let read = models.command(&mut decoder, number, &history, *run, Command::Again);
                prop_assert_eq!(read, *command);
                history = history.after(*run, read);
            }
            prop_assert!(decoder.is_at_end_of_segment() && decoder.left() == 0);
        }

        #[test]
        fn distances_are_the_whole_of_their_parts(distance: u32, bits in 0u32..32) {
            let distance = distance >> bits;
            prop_assert_eq!(Distance::of(distance).whole(), distance);
        }
    }

    #[test]
    fn settings_are_a_byte() {
        for byte in 0..=255 {
            match Settings::from_byte(byte) {
                Some(settings) => assert_eq!(settings.to_byte(), byte),
                None => assert!(byte >= 54),
            }
        }
    }
}
