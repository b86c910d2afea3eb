//! Compression of what is left when all that is known was taken out: repeats as in LZ77, and models
//! that learn sixteen symbols at a time.
//!
//! With a thorough search within a percent of LZMA's size, and decoded in half of its time: a literal is two symbols in place
//! of eight, and none of them is a branch that nobody foresees. A stage of the format is made of it;
//! it knows nothing of patches.

mod coder;
mod find;
mod grammar;
mod model;
mod parse;
mod price;
mod tariff;

pub(crate) use grammar::Settings;

use coder::{Decoder, Encoder};
use find::{Buckets, Trees};
use grammar::{Command, History, Models, RUN_MAX};
use parse::{Lazy, Optimal, Parse, Step, before, expected};
use price::BIT;

use crate::damage::Damage;

/// Bytes after which symbols are written: so many are kept until then.
const SEGMENT_BYTES: usize = 1 << 20;

/// How hard to look for a cheaper way to say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// The best of the latest repeats, unless the next byte has a better one.
    Lazy,
    /// The cheapest of all ways with the latest repeats; where a way has come to the middle of something
    /// cheap, it is not left.
    Quick,
    /// The cheapest of all ways with the longest repeats.
    Thorough,
}

/// Compresses bytes, fewer than 2^32.
pub(crate) fn compress(bytes: &[u8], settings: Settings, search: Search) -> Vec<u8> {
    match search {
        Search::Lazy => write(bytes, settings, Lazy::new(bytes)),
        Search::Quick => write(bytes, settings, Optimal::<Buckets>::new(bytes, settings, BIT / 2)),
        Search::Thorough => write(bytes, settings, Optimal::<Trees>::new(bytes, settings, 0)),
    }
}

fn write(bytes: &[u8], settings: Settings, mut parse: impl Parse) -> Vec<u8> {
    let mut models = Models::new(settings);
    let mut writer = Writer {
        bytes,
        position: 0,
        history: History::NEW,
        encoder: Encoder::for_bytes(bytes.len().min(SEGMENT_BYTES)),
        segment: SEGMENT_BYTES,
        out: vec![settings.to_byte()],
    };
    let (mut steps, mut run) = (Vec::new(), 0);
    while writer.position + run < bytes.len() {
        parse.next(&mut models, &writer.history, run, &mut steps);
        for step in &steps {
            match step {
                Step::Literal if run + 1 < RUN_MAX => run += 1,
                Step::Literal => {
                    writer.write(&mut models, run + 1, None);
                    run = 0;
                }
                Step::Command(command) => {
                    writer.write(&mut models, run, Some(*command));
                    run = 0;
                }
            }
        }
    }
    if run > 0 {
        writer.write(&mut models, run, None);
    }
    writer.encoder.finish(&mut writer.out);
    writer.out
}

/// Writes runs of literals, each with the command behind it.
struct Writer<'a> {
    bytes: &'a [u8],
    position: usize,
    history: History,
    encoder: Encoder,
    /// Where the next segment starts, or the first run behind that place.
    segment: usize,
    out: Vec<u8>,
}

impl Writer<'_> {
    fn write(&mut self, models: &mut Models, run: usize, command: Option<Command>) {
        if self.position >= self.segment {
            self.encoder.finish(&mut self.out);
            self.segment = self.position + SEGMENT_BYTES;
        }
        let Writer { bytes, position, history, encoder, .. } = self;
        models.run(encoder, *position, history, run);
        for number in 0..run {
            let (byte, before) = (bytes[*position], before(bytes, *position));
            match expected(bytes, *position, history.distances[0]).filter(|_| number == 0) {
                Some(expected) => {
                    models.broken(encoder, *position, before[0], expected, byte);
                }
                None => _ = models.literal(encoder, *position, before, byte),
            }
            *position += 1;
        }
        if let Some(command) = command {
            models.command(encoder, *position, history, run, command);
            *history = history.after(run, command);
            *position += command.length();
        }
    }
}

/// Turns what was compressed into exactly `length` bytes.
pub(crate) fn decompress(payload: &[u8], length: usize) -> Result<Vec<u8>, Damage> {
    let wrong = |what: &str| Damage::new(0, what);
    let (settings, stream) = payload.split_first().ok_or_else(|| wrong("it is empty"))?;
    let settings = Settings::from_byte(*settings).ok_or_else(|| wrong("no such settings"))?;
    let mut models = Models::new(settings);
    let mut decoder = Decoder::new(stream);
    let mut out = vec![0; length];
    let mut history = History::NEW;
    let (mut position, mut segment) = (0, SEGMENT_BYTES);
    decoder.start();
    while position < length {
        if position >= segment {
            if !decoder.is_at_end_of_segment() {
                return Err(wrong("a segment does not end as it must"));
            }
            decoder.start();
            segment = position + SEGMENT_BYTES;
        }
        let run = models.run(&mut decoder, position, &history, 0);
        let Some(made) = out.get_mut(..position + run) else {
            return Err(wrong("literals reach past the end"));
        };
        let mut last = before(made, position);
        if position < made.len()
            && let Some(expected) = expected(made, position, history.distances[0])
        {
            let byte = models.broken(&mut decoder, position, last[0], expected, 0);
            made[position] = byte;
            last = [byte, last[0]];
            position += 1;
        }
        for place in &mut made[position..] {
            *place = models.literal(&mut decoder, position, last, 0);
            last = [*place, last[0]];
            position += 1;
        }
        if run == RUN_MAX || position == length {
            continue;
        }
        let command = models.command(&mut decoder, position, &history, run, Command::Again);
        history = history.after(run, command);
        let (distance, count) = (history.distances[0] as usize, command.length());
        if distance == 0 || distance > position {
            return Err(wrong("a repeat of what is before the start"));
        }
        if count > length - position {
            return Err(wrong("a repeat reaches past the end"));
        }
        repeat(&mut out, position, distance, count);
        position += count;
    }
    match (decoder.is_at_end_of_segment(), decoder.left()) {
        (true, 0) => Ok(out),
        (true, _) => Err(wrong("it goes on behind its end")),
        (false, _) => Err(wrong("it does not end as it must")),
    }
}

/// Repeats bytes from so far before; where that overlaps, what was repeated is repeated.
#[inline(always)]
fn repeat(out: &mut [u8], position: usize, distance: usize, count: usize) {
    /// So many are copied whatever the count, where there is room: most repeats are shorter.
    const SHORT: usize = 16;
    let from = position - distance;
    if count <= SHORT && distance >= SHORT && position + SHORT <= out.len() {
        let bytes: [u8; SHORT] = out[from..from + SHORT].try_into().expect("so many bytes");
        out[position..position + SHORT].copy_from_slice(&bytes);
    } else if distance >= count {
        out.copy_within(from..from + count, position);
    } else {
        (0..count).for_each(|place| out[position + place] = out[from + place]);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> impl Strategy<Value = Settings> {
        (0u32..=8, 0u32..=2, any::<bool>()).prop_map(|(bits_before, bits_of_place, farther)| {
            Settings { bits_before, bits_of_place, farther }
        })
    }

    const SEARCHES: [Search; 3] = [Search::Lazy, Search::Quick, Search::Thorough];

    fn search() -> impl Strategy<Value = Search> {
        prop::sample::select(&SEARCHES[..])
    }

    /// Bytes that are new, that repeat what is before, or that nearly do.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let part = (0usize..4, any::<u16>(), 1usize..300, any::<u8>());
        prop::collection::vec(part, 0..60).prop_map(|parts| {
            let mut bytes: Vec<u8> = Vec::new();
            for (kind, far, length, byte) in parts {
                let from = bytes.len().saturating_sub(1 + usize::from(far) % 3000);
                let to = bytes.len().min(from + length);
                match kind {
                    0 => bytes.extend((0..length % 40).map(|n| byte.wrapping_mul(n as u8 | 1))),
                    1 => bytes.extend(std::iter::repeat_n(byte, length)),
                    2 => bytes.extend_from_within(from..to),
                    _ => {
                        let start = bytes.len();
                        bytes.extend_from_within(from..to);
                        bytes[start..].iter_mut().skip(3).step_by(7).for_each(|b| *b ^= byte);
                    }
                }
            }
            bytes
        })
    }

    /// Numbers in which nobody sees an order.
    pub(crate) fn noise(count: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    fn numbers() -> Settings {
        Settings { bits_before: 1, bits_of_place: 0, farther: false }
    }

    proptest! {
        #[test]
        fn what_was_compressed_decompresses(
            bytes in bytes(),
            settings in settings(),
            search in search(),
        ) {
            let payload = compress(&bytes, settings, search);
            prop_assert_eq!(&decompress(&payload, bytes.len()).unwrap(), &bytes);
            for length in [bytes.len() + 1, bytes.len().saturating_sub(1)] {
                if length != bytes.len() {
                    prop_assert!(decompress(&payload, length).is_err());
                }
            }
        }

        #[test]
        fn any_bytes_decompress_or_are_refused(
            mut payload: Vec<u8>,
            settings in settings(),
            length in 0usize..5000,
        ) {
            payload.insert(0, settings.to_byte());
            if let Ok(bytes) = decompress(&payload, length) {
                prop_assert_eq!(bytes.len(), length);
            }
        }

        #[test]
        fn what_was_damaged_is_refused_or_as_long(
            bytes in bytes(),
            settings in settings(),
            search in search(),
            place: prop::sample::Index,
            change in 1u8..=255,
        ) {
            let mut payload = compress(&bytes, settings, search);
            let place = place.index(payload.len());
            payload[place] ^= change;
            // Some damage makes other bytes, or even the same: checksums are in front of this.
            if let Ok(other) = decompress(&payload, bytes.len()) {
                prop_assert_eq!(other.len(), bytes.len());
            }
        }
    }

    #[test]
    fn segments_follow_each_other() {
        let part = noise(50_000);
        let bytes: Vec<u8> = part.iter().copied().cycle().take(3 * SEGMENT_BYTES + 17).collect();
        for search in SEARCHES {
            let payload = compress(&bytes, numbers(), search);
            assert!(payload.len() < part.len() + part.len() / 50, "{search:?}: {}", payload.len());
            assert_eq!(decompress(&payload, bytes.len()).unwrap(), bytes);
        }
        // The first literals fill runs that no command is behind.
        const { assert!(50_000 > 2 * RUN_MAX) };
    }

    #[test]
    fn bytes_without_order_grow_by_little() {
        let bytes = noise(300_000);
        for search in SEARCHES {
            let payload = compress(&bytes, numbers(), search);
            assert!(
                payload.len() < bytes.len() + bytes.len() / 50,
                "{search:?}: {}",
                payload.len()
            );
            assert_eq!(decompress(&payload, bytes.len()).unwrap(), bytes);
        }
    }

    #[test]
    fn records_are_smaller_than_with_lzma() {
        // A counter, a kind that fills the rest, and a byte that nobody foresees: LZMA makes 108,246
        // bytes of them (`xz` 5.4, preset 9, lc 0, lp 2, pb 2), zstd -19 131,823.
        let noise = noise(40_000);
        let record = |number: usize| {
            let mut record = [noise[number] % 5; 12];
            record[..4].copy_from_slice(&(number as u32 * 3).to_le_bytes());
            record[8] = noise[number];
            record
        };
        let bytes: Vec<u8> = (0..noise.len()).flat_map(record).collect();
        let settings = Settings { bits_before: 0, bits_of_place: 2, farther: false };
        let payload = compress(&bytes, settings, Search::Thorough);
        assert_eq!(decompress(&payload, bytes.len()).unwrap(), bytes);
        assert!(payload.len() < 100_000, "{} bytes", payload.len());
    }

    #[test]
    fn long_repeats_are_one_command() {
        // Longer than one command may be, of one byte and of many.
        let part = noise(100_000);
        for bytes in [vec![7; 200_000], [&part[..], &part].concat()] {
            for search in SEARCHES {
                let payload = compress(&bytes, numbers(), search);
                let most = if bytes[0] == bytes[1] { 60 } else { part.len() + part.len() / 50 };
                assert!(payload.len() < most, "{search:?}: {} bytes", payload.len());
                assert_eq!(decompress(&payload, bytes.len()).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        let bytes: Vec<u8> = (0..5000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let payload = compress(&bytes, numbers(), Search::Thorough);
        assert!(payload.len() < bytes.len() / 4);
        let what = |payload: &[u8]| decompress(payload, bytes.len()).unwrap_err().what;
        for cut in 0..payload.len() {
            what(&payload[..cut]);
        }
        assert!(what(&[&payload[..], b"x"].concat()).contains("behind its end"));
        assert!(what(&[&[54], &payload[1..]].concat()).contains("no such settings"));
        assert!(what(&[]).contains("empty"));
    }
}
