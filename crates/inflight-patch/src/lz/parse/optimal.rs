//! The cheapest of all ways to say some bytes.
//!
//! The idea is the "optimal parsing" of LZMA: as long as repeats overlap, the cheapest way to each
//! byte is kept, in prices that the models make at this moment, or made not long ago.

use super::super::find::{Find, Found, LONG_ENOUGH, Repeat};
use super::super::grammar::{
    Command, DISTANCE_LENGTHS, History, Kind, LONG_FROM, Models, REPEAT_MAX, REPEAT_MIN, RUN_MAX,
    RUN_PART, Settings,
};
use super::super::price::price;
use super::super::tariff::Tariff;
use super::{Parse, Step, agree, before, expected};

/// The most bytes over which ways are compared before one is taken: prices get old.
const BYTES_MAX: usize = 2048;

/// What every way has cost before its first step: more than what a run costs less with a literal more.
const PRICE_START: u32 = 1 << 16;

/// Nobody has come there yet.
const FAR: u32 = u32::MAX;

/// Where a way has come to, and what it has cost.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    position: usize,
    price: u32,
    past: Past,
}

/// What is past there.
#[derive(Debug, Clone, Copy)]
struct Past {
    history: History,
    /// Literals since the last command.
    run: usize,
}

impl Past {
    fn literal(self) -> Past {
        Past { run: (self.run + 1) % RUN_MAX, ..self }
    }

    fn command(self, command: Command) -> Past {
        Past { history: self.history.after(self.run, command), run: 0 }
    }

    fn way(self, way: Way) -> Past {
        match way {
            Way::One(Step::Literal) => self.literal(),
            Way::One(Step::Command(command)) => self.command(command),
            Way::LiteralThenRecent(length) => self.literal().command(recent(length)),
            Way::CommandThenRecent(command, length) => {
                self.command(command).literal().command(recent(length))
            }
        }
    }
}

fn recent(length: usize) -> Command {
    Command::Recent { place: 0, length }
}

impl Cursor {
    /// One literal on. What a run costs that ends here is in the price at each byte.
    fn literal(&self, models: &mut Models, tariff: &Tariff, bytes: &[u8]) -> Cursor {
        let Cursor { position, past: Past { history, run }, .. } = *self;
        let (byte, before) = (bytes[position], before(bytes, position));
        let expected = expected(bytes, position, history.distances[0]).filter(|_| run == 0);
        let literal = price(|price| {
            match expected {
                Some(expected) => models.broken(price, position, before[0], expected, byte),
                None => models.literal(price, position, before, byte),
            };
        });
        // The last part of the run becomes longer. Behind a full one there is one more, and where the
        // run is full, a new one.
        let (start, before, last) = (position - run, run / RUN_PART, run % RUN_PART);
        let parts = tariff.run_part(start, &history, before);
        let (now, mut then) = (u32::from(parts[last]), u32::from(parts[last + 1]));
        if last + 1 == RUN_PART {
            let parts = match (run + 1) % RUN_MAX {
                0 => tariff.run_part(position + 1, &history, 0),
                _ => tariff.run_part(start, &history, before + 1),
            };
            then += u32::from(parts[0]);
        }
        Cursor {
            position: position + 1,
            price: self.price + literal + then - now,
            past: self.past.literal(),
        }
    }
}

/// How many places models can tell apart.
const PLACES: usize = 4;

/// What commands of one kind cost that start at one place.
struct Commands<'a> {
    tariff: &'a Tariff,
    symbols: &'a [u16; 16],
    /// The price so far, and what it costs on top that no literal follows, by the place behind.
    behind: [u32; PLACES],
    position: usize,
}

impl<'a> Commands<'a> {
    #[inline(always)]
    fn at(tariff: &'a Tariff, settings: Settings, cursor: &Cursor, kind: Kind) -> Commands<'a> {
        let Cursor { position, price, past: Past { history, run } } = *cursor;
        let behind = history.behind(run, kind);
        let no_run = |place| price + u32::from(tariff.run_part(place, &behind, 0)[0]);
        Commands {
            tariff,
            symbols: tariff.command(position, &history, run),
            behind: match settings.bits_of_place {
                0 => [no_run(0); PLACES],
                bits => std::array::from_fn(|place| no_run(place % (1 << bits))),
            },
            position,
        }
    }

    /// The price behind a command, without that of its distance.
    #[inline(always)]
    fn price(&self, command: &Command) -> u32 {
        let length =
            command.told_length().map_or(0, |(kind, number)| self.tariff.lengths(kind)[number]);
        self.behind(command.length()) + self.symbol(command) + u32::from(length)
    }

    #[inline(always)]
    fn symbol(&self, command: &Command) -> u32 {
        u32::from(self.symbols[command.symbol() & 15])
    }

    #[inline(always)]
    fn behind(&self, length: usize) -> u32 {
        self.behind[(self.position + length) % PLACES]
    }
}

/// What leads from one byte to another.
#[derive(Debug, Clone, Copy)]
enum Way {
    One(Step),
    /// A literal, and what the last repeat goes on with behind it.
    LiteralThenRecent(usize),
    /// A command, and the same behind that.
    CommandThenRecent(Command, usize),
}

impl Way {
    #[inline(always)]
    fn length(&self) -> usize {
        match self {
            Way::One(step) => step.length(),
            Way::LiteralThenRecent(length) => 1 + length,
            Way::CommandThenRecent(command, length) => command.length() + 1 + length,
        }
    }

    /// Its steps, the last one first.
    fn back(&self, steps: &mut Vec<Step>) {
        match *self {
            Way::One(step) => steps.push(step),
            Way::LiteralThenRecent(length) => {
                steps.extend([Step::Command(recent(length)), Step::Literal]);
            }
            Way::CommandThenRecent(command, length) => {
                let steps_back =
                    [Step::Command(recent(length)), Step::Literal, Step::Command(command)];
                steps.extend(steps_back);
            }
        }
    }
}

/// How far ways may lead.
const REACH_MAX: usize = BYTES_MAX + 2 * LONG_ENOUGH + 1;

/// The cheapest ways to the next bytes.
#[derive(Debug)]
struct Ways {
    prices: Vec<u32>,
    /// The last part of each.
    last: Vec<Way>,
    /// The farthest byte that there is a way to.
    reached: usize,
}

impl Ways {
    fn new() -> Ways {
        Ways {
            prices: vec![FAR; REACH_MAX + 1],
            last: vec![Way::One(Step::Literal); REACH_MAX + 1],
            reached: 0,
        }
    }

    /// Keeps a way from one byte to another, if it is cheaper than what was known.
    #[inline(always)]
    fn reach(&mut self, from: usize, way: Way, price: u32) {
        let to = from + way.length();
        if price < self.prices[to] {
            self.prices[to] = price;
            self.last[to] = way;
            self.reached = self.reached.max(to);
        }
    }

    /// The same with all commands of these lengths, which must be told, and have a symbol in common. `price` is
    /// what all of them have in common.
    #[inline(always)]
    fn reach_all(
        &mut self,
        from: usize,
        commands: &Commands,
        lengths: std::ops::RangeInclusive<usize>,
        price: u32,
        command: impl Fn(usize) -> Command,
    ) {
        let (first, last) = lengths.into_inner();
        let Some((kind, number)) = command(first).told_length() else { return };
        let told = &commands.tariff.lengths(kind)[number..=number + last - first];
        let prices = &mut self.prices[from + first..=from + last];
        let ways = &mut self.last[from + first..=from + last];
        for (place, ((known, way), told)) in prices.iter_mut().zip(ways).zip(told).enumerate() {
            let length = first + place;
            let price = price + commands.behind(length) + u32::from(*told);
            if price < *known {
                *known = price;
                *way = Way::One(Step::Command(command(length)));
                self.reached = self.reached.max(from + length);
            }
        }
    }
}

/// Chooses steps.
#[derive(Debug)]
pub(crate) struct Optimal<'a, F> {
    bytes: &'a [u8],
    find: F,
    /// A byte that costs only so much more than the one before is inside of something: what starts
    /// there is not looked for.
    inside: u32,
    position: usize,
    settings: Settings,
    tariff: Tariff,
    ways: Ways,
    pasts: Vec<Past>,
    found: Found,
}

impl<'a, F: Find<'a>> Parse for Optimal<'a, F> {
    fn next(&mut self, models: &mut Models, history: &History, run: usize, steps: &mut Vec<Step>) {
        steps.clear();
        let start = self.position;
        self.tariff.renew(models, start);
        self.ways.prices[0] = PRICE_START;
        self.ways.reached = 0;
        let mut past = Past { history: *history, run };
        let mut here = 0;
        let long = loop {
            let is_alone = here > 0 && (here == self.ways.reached || here >= BYTES_MAX);
            if is_alone || start + here == self.bytes.len() {
                break None;
            }
            if here > 0 {
                past = match self.ways.last[here] {
                    Way::One(Step::Literal) => past.literal(),
                    way => self.pasts[here - way.length()].way(way),
                };
            }
            self.pasts[here] = past;
            let (price, next) = (self.ways.prices[here], self.ways.prices[here + 1]);
            if next.saturating_sub(self.inside) <= price {
                self.find.skip(1);
            } else {
                let cursor = Cursor { position: start + here, price, past };
                self.find.next(&mut self.found);
                let long = self.look(models, here, &cursor);
                if long.is_some() {
                    break long;
                }
            }
            here += 1;
        };
        self.position = start + here;
        let mut place = here;
        while place > 0 {
            let way = self.ways.last[place];
            way.back(steps);
            place -= way.length();
        }
        steps.reverse();
        self.ways.prices[1..=self.ways.reached].fill(FAR);
        if let Some(command) = long {
            steps.push(Step::Command(command));
            self.find.skip(command.length() - 1);
            self.position += command.length();
        }
    }
}

impl<'a, F: Find<'a>> Optimal<'a, F> {
    pub(crate) fn new(bytes: &'a [u8], settings: Settings, inside: u32) -> Optimal<'a, F> {
        Optimal {
            bytes,
            find: F::new(bytes),
            inside,
            position: 0,
            settings,
            tariff: Tariff::new(settings),
            ways: Ways::new(),
            pasts: vec![Past { history: History::NEW, run: 0 }; REACH_MAX + 1],
            found: Found::NONE,
        }
    }

    /// Looks where ways lead from a byte; gives what is so long that nothing else is worth a look.
    fn look(&mut self, models: &mut Models, here: usize, cursor: &Cursor) -> Option<Command> {
        let (bytes, settings) = (self.bytes, self.settings);
        let distances = cursor.past.history.distances;
        let recent = distances.map(|distance| agree(bytes, cursor.position, distance, LONG_ENOUGH));
        let is_long = |length: usize| length >= LONG_ENOUGH;
        if recent.into_iter().any(is_long) {
            let lengths =
                distances.map(|distance| agree(bytes, cursor.position, distance, REPEAT_MAX));
            let place = (0..4).max_by_key(|place| (lengths[*place], 3 - place)).expect("of four");
            return Some(Command::Recent { place, length: lengths[place] });
        }
        if let Some(Repeat { distance, .. }) =
            self.found.iter().last().filter(|found| is_long(found.length))
        {
            let length = agree(bytes, cursor.position, *distance, REPEAT_MAX);
            return Some(Command::Repeat { distance: *distance, length });
        }
        let Optimal { tariff, ways, found, .. } = self;
        let literal = cursor.literal(models, tariff, bytes);
        ways.reach(here, Way::One(Step::Literal), literal.price);
        let mut on = GoesOn { bytes, settings, tariff, models, here, cursor };
        if recent[0] == 0 {
            on.literal(ways, &literal, Way::LiteralThenRecent);
        } else {
            let price = Commands::at(tariff, settings, cursor, Kind::Again).price(&Command::Again);
            ways.reach(here, Way::One(Step::Command(Command::Again)), price);
        }
        if recent.iter().any(|length| *length >= REPEAT_MIN) {
            let commands = Commands::at(tariff, settings, cursor, Kind::Recent);
            for (place, longest) in recent.into_iter().enumerate() {
                if longest >= REPEAT_MIN {
                    let command = |length| Command::Recent { place, length };
                    let price = commands.symbol(&command(longest));
                    ways.reach_all(here, &commands, REPEAT_MIN..=longest, price, command);
                    on.command(ways, command(longest), || commands.price(&command(longest)));
                }
            }
        }
        if found.iter().len() == 0 {
            return None;
        }
        let commands = Commands::at(tariff, settings, cursor, Kind::Repeat);
        let mut length = REPEAT_MIN;
        for Repeat { length: longest, distance } in found.iter().copied() {
            let command = |length| Command::Repeat { distance, length };
            let far = |length: usize| tariff.distance(length - REPEAT_MIN, distance - 1);
            // Distances of the shortest have models of their own, and short lengths symbols.
            let mut price_far = far(length);
            while length <= longest.min(LONG_FROM - 1) {
                if length < REPEAT_MIN + DISTANCE_LENGTHS {
                    price_far = far(length);
                }
                let price = commands.price(&command(length)) + price_far;
                ways.reach(here, Way::One(Step::Command(command(length))), price);
                length += 1;
            }
            if length <= longest {
                let price = commands.symbol(&command(longest)) + price_far;
                ways.reach_all(here, &commands, length..=longest, price, command);
            }
            on.command(ways, command(longest), || commands.price(&command(longest)) + price_far);
            length = longest + 1;
        }
        None
    }
}

/// Looks where it leads that the last repeat goes on behind a literal. Another way may reach that
/// literal for less and have forgotten the repeat.
struct GoesOn<'a> {
    bytes: &'a [u8],
    settings: Settings,
    tariff: &'a Tariff,
    models: &'a mut Models,
    here: usize,
    cursor: &'a Cursor,
}

impl GoesOn<'_> {
    /// The literal is the one that a command breaks at.
    #[inline(always)]
    fn command(&mut self, ways: &mut Ways, command: Command, price: impl FnOnce() -> u32) {
        let GoesOn { bytes, cursor, .. } = *self;
        let position = cursor.position + command.length();
        let distance = match command {
            Command::Repeat { distance, .. } => distance,
            Command::Recent { place, .. } => cursor.past.history.distances[place],
            Command::Again => return,
        };
        let (behind, from) = (position + 1, position + 1 - distance as usize);
        let is_like = bytes
            .get(behind..behind + REPEAT_MIN)
            .is_some_and(|bytes_behind| bytes_behind == &bytes[from..from + REPEAT_MIN]);
        if is_like {
            let behind = Cursor { position, price: price(), past: cursor.past.command(command) };
            let literal = behind.literal(self.models, self.tariff, bytes);
            self.literal(ways, &literal, |recent| Way::CommandThenRecent(command, recent));
        }
    }

    fn literal(&mut self, ways: &mut Ways, literal: &Cursor, way: impl Fn(usize) -> Way) {
        let distance = literal.past.history.distances[0];
        let length = agree(self.bytes, literal.position, distance, LONG_ENOUGH);
        if length >= REPEAT_MIN {
            let commands = Commands::at(self.tariff, self.settings, literal, Kind::Recent);
            ways.reach(self.here, way(length), commands.price(&recent(length)));
        }
    }
}
