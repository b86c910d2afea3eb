//! Which of all ways to say some bytes is the cheapest.
//!
//! The idea is the "optimal parsing" of LZMA: as long as repeats overlap, the cheapest way to each
//! byte is kept, in prices that the models make at this moment.

use super::grammar::{
    Command, DISTANCE_LENGTHS, History, Kind, LENGTH_KINDS, Models, REPEAT_MAX, REPEAT_MIN,
    RUN_MAX, RUN_PART,
};
use super::matches::{LONG_ENOUGH, Matches, Repeat, common};
use super::model::Model;
use super::price::price;

/// The most bytes over which ways are compared before one is taken: prices get old.
const BYTES_MAX: usize = 2048;

/// One step of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Literal,
    Command(Command),
}

impl Step {
    pub(super) fn length(&self) -> usize {
        match self {
            Step::Literal => 1,
            Step::Command(command) => command.length(),
        }
    }
}

/// How many places models can tell apart.
const PLACES: usize = 4;

/// What commands of one kind cost at one place, but for distances and lengths.
struct Commands {
    kinds: Model,
    /// The price so far, and what it costs on top that no literal follows, by the place behind.
    prices: [u32; PLACES],
}

impl Commands {
    #[inline(always)]
    fn at(models: &mut Models, cursor: &Cursor, last: Kind) -> Commands {
        let Cursor { position, price: before, history, run } = *cursor;
        let kinds = *models.kinds(position, &history, run);
        let behind = history.behind(run, last);
        let bits_of_place = models.settings.bits_of_place;
        let mut no_run = |place| price(|price| _ = models.run(price, place, &behind, 0));
        let prices = match bits_of_place {
            0 => [no_run(0); PLACES],
            bits => std::array::from_fn(|place| no_run(place % (1 << bits))),
        };
        Commands { kinds, prices: prices.map(|no_run| before + no_run) }
    }

    /// The price behind a command, without that of its distance.
    #[inline(always)]
    fn price(&self, cursor: &Cursor, lengths: &LengthPrices, command: &Command) -> u32 {
        let length = command.told_length().map_or(0, |(kind, number)| lengths[kind][number]);
        let kind = price(|price| price.add(&self.kinds, command.symbol()));
        self.prices[(cursor.position + command.length()) % PLACES] + u32::from(length) + kind
    }
}

/// What every way has cost before its first step: more than what a run costs less with a literal more.
const PRICE_START: u32 = 1 << 16;

/// What lengths cost. They change slowly, and are made anew once in a while.
type LengthPrices = [[u16; LONG_ENOUGH]; LENGTH_KINDS];

/// Bytes after which they are made anew.
const LENGTHS_EVERY: usize = 256;

/// Where a way has come to, and what it has cost.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    position: usize,
    price: u32,
    history: History,
    /// Literals since the last command.
    run: usize,
}

impl Cursor {
    /// How many bytes from here on are like those so far before, of so many at most.
    fn agree(&self, bytes: &[u8], distance: u32, limit: usize) -> usize {
        let limit = limit.min(bytes.len() - self.position);
        match self.position.checked_sub(distance as usize) {
            Some(place) => common(&bytes[place..], &bytes[self.position..], 0, limit),
            None => 0,
        }
    }

    /// One literal on. What a run costs that ends here is in the price at each byte.
    fn literal(&self, models: &mut Models, bytes: &[u8]) -> Cursor {
        let Cursor { position, history, run, .. } = *self;
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
        let part = |model: &Model, part| price(|price| price.add(model, part));
        let model = models.run_part(start, &history, before);
        let (now, mut then) = (part(model, last), part(model, last + 1));
        let longer = (run + 1) % RUN_MAX;
        if last + 1 == RUN_PART {
            let model = match longer {
                0 => models.run_part(position + 1, &history, 0),
                _ => models.run_part(start, &history, before + 1),
            };
            then += part(model, 0);
        }
        Cursor {
            position: position + 1,
            price: self.price + literal + then - now,
            history,
            run: longer,
        }
    }

    /// One command on, for that price.
    fn command(&self, command: Command, price: u32) -> Cursor {
        Cursor {
            position: self.position + command.length(),
            price,
            history: self.history.after(self.run, command),
            run: 0,
        }
    }
}

/// What leads from one node to another.
#[derive(Debug, Clone, Copy)]
enum Way {
    One(Step),
    /// A literal, and what the last repeat goes on with behind it.
    LiteralThenRecent(usize),
    /// A command, and the same behind that.
    CommandThenRecent(Command, usize),
}

impl Way {
    fn length(&self) -> usize {
        match self {
            Way::One(step) => step.length(),
            Way::LiteralThenRecent(length) => 1 + length,
            Way::CommandThenRecent(command, length) => command.length() + 1 + length,
        }
    }

    /// Its steps, the last one first.
    fn back(&self, steps: &mut Vec<Step>) {
        let recent = |length: usize| Step::Command(Command::Recent { place: 0, length });
        match *self {
            Way::One(step) => steps.push(step),
            Way::LiteralThenRecent(length) => steps.extend([recent(length), Step::Literal]),
            Way::CommandThenRecent(command, length) => {
                steps.extend([recent(length), Step::Literal, Step::Command(command)]);
            }
        }
    }
}

/// The cheapest way to a byte.
#[derive(Debug, Clone, Copy)]
struct Node {
    way: Way,
    cursor: Cursor,
}

const FAR: Node = Node {
    way: Way::One(Step::Literal),
    cursor: Cursor { position: 0, price: u32::MAX, history: History::NEW, run: 0 },
};

/// Chooses steps.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    matches: Matches<'a>,
    position: usize,
    nodes: Vec<Node>,
    /// The farthest node that there is a way to.
    reached: usize,
    found: Vec<Repeat>,
    lengths: Box<LengthPrices>,
    /// Where they are made anew.
    lengths_until: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Parser<'a> {
        Parser {
            bytes,
            matches: Matches::new(bytes),
            position: 0,
            nodes: vec![FAR; BYTES_MAX + 2 * LONG_ENOUGH + 1],
            reached: 0,
            found: Vec::new(),
            lengths: Box::new([[0; LONG_ENOUGH]; LENGTH_KINDS]),
            lengths_until: 0,
        }
    }

    /// The next steps, at least one, after this past and a run of literals.
    pub(super) fn next(
        &mut self,
        models: &mut Models,
        history: &History,
        run: usize,
        steps: &mut Vec<Step>,
    ) {
        steps.clear();
        let start = self.position;
        if start >= self.lengths_until {
            self.lengths_until = start + LENGTHS_EVERY;
            for (prices, lengths) in self.lengths.iter_mut().zip(&mut models.lengths) {
                for (number, length) in prices.iter_mut().enumerate() {
                    *length = price(|price| _ = lengths.code(price, number)) as u16;
                }
            }
        }
        let cursor = Cursor { position: start, price: PRICE_START, history: *history, run };
        self.nodes[0] = Node { way: Way::One(Step::Literal), cursor };
        self.reached = 0;
        let mut here = 0;
        let long = loop {
            let is_alone = here > 0 && (here == self.reached || here >= BYTES_MAX);
            if is_alone || start + here == self.bytes.len() {
                break None;
            }
            let mut found = std::mem::take(&mut self.found);
            self.matches.next(&mut found);
            let long = self.look(models, here, &found);
            self.found = found;
            if long.is_some() {
                break long;
            }
            here += 1;
        };
        self.position = start + here;
        let mut place = here;
        while place > 0 {
            let way = self.nodes[place].way;
            way.back(steps);
            place -= way.length();
        }
        steps.reverse();
        self.nodes[1..=self.reached].fill(FAR);
        if let Some(command) = long {
            let step = Step::Command(command);
            steps.push(step);
            self.matches.skip(step.length() - 1);
            self.position += step.length();
        }
    }

    /// Looks where a node leads; gives what is so long that nothing else is worth a look.
    fn look(&mut self, models: &mut Models, here: usize, found: &[Repeat]) -> Option<Command> {
        let (bytes, cursor) = (self.bytes, self.nodes[here].cursor);
        let distances = cursor.history.distances;
        let recent: [usize; 4] = std::array::from_fn(|place| {
            let is_first = !distances[..place].contains(&distances[place]);
            if is_first { cursor.agree(bytes, distances[place], REPEAT_MAX) } else { 0 }
        });
        let longest = (0..4).max_by_key(|place| (recent[*place], 3 - place)).expect("of four");
        if recent[longest] >= LONG_ENOUGH {
            return Some(Command::Recent { place: longest, length: recent[longest] });
        }
        if let Some(Repeat { distance, .. }) =
            found.last().filter(|repeat| repeat.length >= LONG_ENOUGH)
        {
            let length = cursor.agree(bytes, *distance, REPEAT_MAX);
            return Some(Command::Repeat { distance: *distance, length });
        }
        let literal = cursor.literal(models, bytes);
        self.reach(here, Way::One(Step::Literal), literal.price, || literal);
        if recent[0] == 0 {
            self.goes_on(models, here, &literal, Way::LiteralThenRecent);
        } else {
            let commands = Commands::at(models, &cursor, Kind::Again);
            self.take(here, &commands, Command::Again, 0);
        }
        if recent.iter().any(|length| *length >= REPEAT_MIN) {
            let commands = Commands::at(models, &cursor, Kind::Recent);
            for (place, longest) in recent.into_iter().enumerate() {
                for length in REPEAT_MIN..=longest {
                    self.take(here, &commands, Command::Recent { place, length }, 0);
                }
                if longest >= REPEAT_MIN {
                    let command = Command::Recent { place, length: longest };
                    self.breaks(models, here, &commands, command, 0);
                }
            }
        }
        if found.is_empty() {
            return None;
        }
        let commands = Commands::at(models, &cursor, Kind::Repeat);
        let mut shortest = REPEAT_MIN;
        for Repeat { length: longest, distance } in found.iter().copied() {
            let mut far = 0;
            for length in shortest..=longest {
                // Distances of short repeats have models of their own.
                if length == shortest || length < REPEAT_MIN + DISTANCE_LENGTHS {
                    let number = length - REPEAT_MIN;
                    far = price(|price| _ = models.distance(price, number, distance - 1));
                }
                self.take(here, &commands, Command::Repeat { distance, length }, far);
            }
            shortest = longest + 1;
            let command = Command::Repeat { distance, length: longest };
            self.breaks(models, here, &commands, command, far);
        }
        None
    }

    /// Looks where a command leads.
    #[inline(always)]
    fn take(&mut self, here: usize, commands: &Commands, command: Command, far: u32) {
        let from = &self.nodes[here].cursor;
        let price = commands.price(from, &self.lengths, &command) + far;
        let place = here + command.length();
        if price < self.nodes[place].cursor.price {
            let cursor = from.command(command, price);
            self.nodes[place] = Node { way: Way::One(Step::Command(command)), cursor };
            self.reached = self.reached.max(place);
        }
    }

    /// Looks where a command leads with the literal that it breaks at, if it goes on behind that.
    fn breaks(
        &mut self,
        models: &mut Models,
        here: usize,
        commands: &Commands,
        command: Command,
        far: u32,
    ) {
        let from = self.nodes[here].cursor;
        let price = commands.price(&from, &self.lengths, &command) + far;
        let behind = from.command(command, price);
        if behind.position + REPEAT_MIN < self.bytes.len() {
            let on = Cursor { position: behind.position + 1, ..behind };
            if on.agree(self.bytes, behind.history.distances[0], REPEAT_MIN) == REPEAT_MIN {
                let literal = behind.literal(models, self.bytes);
                let way = |recent| Way::CommandThenRecent(command, recent);
                self.goes_on(models, here, &literal, way);
            }
        }
    }

    /// Looks where it leads that the last repeat goes on behind a literal. Another way may reach that
    /// literal for less and have forgotten the repeat.
    fn goes_on(
        &mut self,
        models: &mut Models,
        here: usize,
        literal: &Cursor,
        way: impl Fn(usize) -> Way,
    ) {
        let distance = literal.history.distances[0];
        let length = literal.agree(self.bytes, distance, LONG_ENOUGH);
        if length >= REPEAT_MIN {
            let recent = Command::Recent { place: 0, length };
            let commands = Commands::at(models, literal, Kind::Recent);
            let price = commands.price(literal, &self.lengths, &recent);
            self.reach(here, way(length), price, || literal.command(recent, price));
        }
    }

    #[inline(always)]
    fn reach(&mut self, here: usize, way: Way, price: u32, cursor: impl FnOnce() -> Cursor) {
        let place = here + way.length();
        let node = &mut self.nodes[place];
        if price < node.cursor.price {
            *node = Node { way, cursor: cursor() };
            self.reached = self.reached.max(place);
        }
    }
}

/// The two bytes before a position, the nearest first; zeros where there is nothing.
pub(super) fn before(bytes: &[u8], position: usize) -> [u8; 2] {
    [1, 2].map(|back| position.checked_sub(back).map_or(0, |place| bytes[place]))
}

/// The byte that a repeat would have gone on with.
pub(super) fn expected(bytes: &[u8], position: usize, distance: u32) -> Option<u8> {
    position.checked_sub(distance as usize).map(|place| bytes[place])
}
