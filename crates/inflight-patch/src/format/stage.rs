//! Stages: the named, versioned transformations that turn a block's payload into its raw bytes.
//!
//! A patch lists the stages it uses, by name and version; its blocks refer to them by number. A
//! reader that does not know one says its name and goes no further. New stages come as new names:
//! nothing else in the format changes for them.

use zstd::zstd_safe::CParameter;

use super::block::BlockKind;
use super::wire::{Cursor, put_bytes, put_varint};
use crate::damage::Damage;
use crate::lz::{self, Search, Settings};
use crate::preset::{Compression, SHORT_BYTES};

/// The payload is the raw bytes.
pub(crate) const STORED: u8 = 0;
/// The payload is one zstd frame.
pub(crate) const ZSTD: u8 = 1;
/// The payload is one zstd frame that goes on behind the new manifest. For the old manifest only.
pub(crate) const ZSTD_BESIDE: u8 = 2;
/// The payload is what [`crate::lz`] makes.
pub(crate) const LZ: u8 = 3;

/// What this version writes and reads; a stage's number is its place.
const KNOWN: [(&str, u64); 4] = [("stored", 1), ("zstd", 1), ("zstd-beside", 1), ("lz-rans", 1)];

/// The payload of the block that lists the stages.
pub(super) fn encode_table() -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, KNOWN.len() as u64);
    for (name, version) in KNOWN {
        put_bytes(&mut out, name.as_bytes());
        put_varint(&mut out, version);
    }
    out
}

/// The stages of a patch, as this version numbers them.
#[derive(Debug, Clone, Default)]
pub(crate) struct StageTable {
    /// Our number of each, or the name of one that we do not know.
    stages: Vec<Result<u8, String>>,
}

impl StageTable {
    pub(super) fn decode(payload: &[u8]) -> Result<StageTable, Damage> {
        let mut cursor = Cursor::new(payload);
        let count = cursor.count("the number of stages")?;
        // A block's stage is a byte.
        if count > 256 {
            return Err(Damage::new(0, format!("a table of {count} stages")));
        }
        let mut stages = Vec::with_capacity(count);
        for _ in 0..count {
            let name = String::from_utf8_lossy(cursor.bytes("a stage's name")?).into_owned();
            let version = cursor.varint("a stage's version")?;
            let known = KNOWN.iter().position(|known| *known == (&*name, version));
            let stage = known.map(|stage| stage as u8);
            stages.push(stage.ok_or_else(|| format!("the stage {name:?} version {version}")));
        }
        cursor.finish("the table of stages")?;
        Ok(StageTable { stages })
    }

    /// Our number for a block's stage.
    pub(super) fn resolve(&self, number: u8) -> Result<u8, Damage> {
        match self.stages.get(usize::from(number)) {
            Some(Ok(stage)) => Ok(*stage),
            // Only one that is used stands in the way.
            Some(Err(name)) => Err(Damage::unknown(0, name.clone())),
            None => Err(Damage::new(0, format!("stage {number} is not in the patch's table"))),
        }
    }
}

/// Compresses the raw bytes of a block; gives its stage and payload. `beside` is the new manifest,
/// for what may be compressed beside it. The payload may be longer than the raw bytes. Out of
/// memory, the only thing that can fail here, means to store what could not be compressed.
pub(crate) fn encode(
    kind: BlockKind,
    raw: &[u8],
    compression: Compression,
    beside: Option<&[u8]>,
) -> Option<(u8, Vec<u8>)> {
    // Whoever opens a patch needs the index before the table of stages.
    let search = compression.lz(raw.len()).filter(|search| is_for_lz(kind, *search));
    let looks_random = raw.len() > SHORT_BYTES && looks_random(raw);
    let level = compression.zstd_level();
    let zstd_alone = match search {
        Some(_) if looks_random => zstd(raw, 1, true, None),
        Some(_) if raw.len() > SHORT_BYTES => None,
        _ => zstd(raw, level, false, None),
    };
    // What was compressed already: nothing gets it smaller, however long it searches.
    let saved = zstd_alone.as_ref().map_or(0, |payload| raw.len().saturating_sub(payload.len()));
    let search = search.filter(|_| !looks_random || saved >= raw.len() / WORTHWHILE);
    let lz_alone = search.map(|search| lz(kind, raw, search));
    let beside = beside.and_then(|beside| zstd(raw, level, false, Some(beside)));
    let ways = [(ZSTD, zstd_alone), (LZ, lz_alone), (ZSTD_BESIDE, beside)];
    let ways = ways.into_iter().filter_map(|(stage, payload)| Some((stage, payload?)));
    ways.min_by_key(|(_, payload)| payload.len())
}

/// Whether it is worth to compress a kind with a search of ours. A lazy one finds no more than zstd where
/// copies differ in single bytes and references in few, and zstd is decoded faster.
fn is_for_lz(kind: BlockKind, search: Search) -> bool {
    use BlockKind::{Differences, Index, Mismatches, Misses};
    kind != Index && (search != Search::Lazy || !matches!(kind, Mismatches | Differences | Misses))
}

/// Of what looks random, one byte in so many must be saved by zstd for a search of ours.
const WORTHWHILE: usize = 64;

/// Whether all bytes are about as likely, by a sample: what is compressed or encrypted already. The
/// chance that two bytes are the same is 1 in 256 for those; in what is left of code or text, 1 in 13 to 17.
fn looks_random(raw: &[u8]) -> bool {
    const SAMPLE_BYTES: usize = 1 << 10;
    const SAMPLES: usize = 64;
    let samples =
        raw.chunks(raw.len().div_ceil(SAMPLES)).filter_map(|part| part.get(..SAMPLE_BYTES));
    let (mut counts, mut total) = ([0u64; 256], 0u64);
    for byte in samples.flatten() {
        counts[usize::from(*byte)] += 1;
        total += 1;
    }
    let same: u64 = counts.iter().map(|count| count * count).sum();
    2 * 256 * same <= 3 * total * total
}

/// One frame of zstd. From far away: long repeats are found wherever they are.
fn zstd(raw: &[u8], level: i32, from_far_away: bool, beside: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut compressor = match beside {
        Some(beside) => zstd::bulk::Compressor::with_dictionary(level, beside),
        None => zstd::bulk::Compressor::new(level),
    }
    .ok()?;
    if from_far_away {
        compressor.set_parameter(CParameter::EnableLongDistanceMatching(true)).ok()?;
        compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
    }
    // Our own checksum is behind every block already.
    compressor.include_checksum(false).ok()?;
    compressor.include_contentsize(false).ok()?;
    compressor.include_dictid(false).ok()?;
    compressor.compress(raw).ok()
}

/// Bits of the window of long blocks: as long as most are.
const WINDOW_LOG: u32 = 23;

fn lz(kind: BlockKind, raw: &[u8], search: Search) -> Vec<u8> {
    // Of numbers little else tells than whether they go on, or which byte of them it is.
    let (bits_before, bits_of_place, farther) = match kind {
        // A short block does not fill the models for all bits of the byte before.
        BlockKind::Literals if raw.len() <= SHORT_BYTES => (4, 0, true),
        BlockKind::Literals => (8, 0, true),
        BlockKind::Corrections => (0, 2, false),
        _ => (1, 0, false),
    };
    lz::compress(raw, Settings { bits_before, bits_of_place, farther }, search)
}

/// Turns a payload into exactly `raw_length` bytes. The caller has bounded that length. `beside` is
/// the new manifest, for what is compressed beside it.
pub(crate) fn decode(
    stage: u8,
    payload: &[u8],
    raw_length: usize,
    beside: Option<&[u8]>,
) -> Result<Vec<u8>, Damage> {
    if stage == STORED {
        return match payload.len() == raw_length {
            true => Ok(payload.to_vec()),
            false => Err(Damage::new(0, "a stored block's two lengths differ")),
        };
    }
    let wrong =
        |what: String| Damage::new(0, format!("a compressed block does not decode: {what}"));
    if stage == LZ {
        return lz::decompress(payload, raw_length).map_err(|damage| wrong(damage.what));
    }
    let raw = match (stage, beside) {
        (ZSTD_BESIDE, Some(beside)) => zstd::bulk::Decompressor::with_dictionary(beside)
            .and_then(|mut decompressor| decompressor.decompress(payload, raw_length)),
        (ZSTD_BESIDE, None) => {
            return Err(Damage::new(
                0,
                "only an old manifest can be compressed beside the new one",
            ));
        }
        _ => zstd::bulk::decompress(payload, raw_length),
    };
    let raw = raw.map_err(|error| wrong(error.to_string()))?;
    match raw.len() == raw_length {
        true => Ok(raw),
        false => Err(wrong(format!("{} bytes in place of {raw_length}", raw.len()))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lz::tests::noise;

    /// Bytes that repeat themselves.
    fn raw() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec((any::<u8>(), 1usize..2000, any::<bool>()), 0..40).prop_map(|parts| {
            let mut raw = Vec::new();
            for (byte, length, again) in parts {
                let from = raw.len().saturating_sub(length * 3);
                match again {
                    true => raw.extend_from_within(from..raw.len().min(from + length)),
                    false => raw.extend((0..length % 50).map(|n| byte.wrapping_mul(n as u8))),
                }
            }
            raw
        })
    }

    proptest! {
        #[test]
        fn every_compression_round_trips(raw in raw(), beside in raw()) {
            let ours = [Search::Lazy, Search::Quick, Search::Thorough].map(Compression::Lz);
            for compression in ours.into_iter().chain([Compression::Zstd(3)]) {
                for kind in [BlockKind::Literals, BlockKind::Instructions, BlockKind::Index] {
                    let (stage, payload) = encode(kind, &raw, compression, None).unwrap();
                    prop_assert_eq!(&decode(stage, &payload, raw.len(), None).unwrap(), &raw);
                    prop_assert!(decode(stage, &payload, raw.len() + 1, None).is_err());
                    prop_assert!(kind != BlockKind::Index || stage <= ZSTD);
                }
                let kind = BlockKind::OldManifest;
                let (stage, payload) = encode(kind, &raw, compression, Some(&beside)).unwrap();
                prop_assert_eq!(&decode(stage, &payload, raw.len(), Some(&beside)).unwrap(), &raw);
            }
        }
    }

    #[test]
    fn long_blocks_round_trip_with_every_search() {
        let words = noise(300_000);
        let raw: Vec<u8> = words.iter().flat_map(|byte| [byte & 7, byte & 31, 0]).collect();
        assert!(raw.len() > SHORT_BYTES && !looks_random(&raw));
        for kind in [BlockKind::Literals, BlockKind::Instructions, BlockKind::Corrections] {
            let sizes = [Search::Lazy, Search::Quick, Search::Thorough].map(|search| {
                let (stage, payload) = encode(kind, &raw, Compression::Lz(search), None).unwrap();
                assert_eq!(stage, LZ);
                assert_eq!(decode(stage, &payload, raw.len(), None).unwrap(), raw);
                payload.len()
            });
            assert!(sizes[0] > sizes[1] && sizes[1] >= sizes[2], "{sizes:?}");
        }
    }

    #[test]
    fn what_is_compressed_already_is_not_searched() {
        let ours = Compression::Lz(Search::Thorough);
        let encode = |raw: &[u8]| encode(BlockKind::Literals, raw, ours, None).unwrap();
        let picture = noise(1 << 20);
        assert!(looks_random(&picture));
        let (stage, payload) = encode(&picture);
        assert!(stage == ZSTD && payload.len() < picture.len() + 1000);
        // Twice the same one, and some text.
        let text =
            b"It is the same picture as before, which is what somebody has to see. ".repeat(200);
        let raw = [&picture[..], &text, &picture].concat();
        assert!(looks_random(&raw));
        let (stage, payload) = encode(&raw);
        assert!(payload.len() < picture.len() + 2000, "{} bytes", payload.len());
        assert_eq!(decode(stage, &payload, raw.len(), None).unwrap(), raw);
    }

    #[test]
    fn text_and_code_do_not_look_random() {
        assert!(!looks_random(&include_bytes!("stage.rs").repeat(10)));
        let numbers: Vec<u8> = (0..100_000u32).flat_map(|n| (n * 3).to_le_bytes()).collect();
        assert!(!looks_random(&numbers));
    }

    #[test]
    fn what_is_wrong_with_a_payload_is_told() {
        let raw: Vec<u8> = (0..5000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let (stage, payload) =
            encode(BlockKind::Literals, &raw, Compression::Lz(Search::Thorough), None).unwrap();
        assert!(payload.len() < raw.len() / 4 && stage == LZ);
        let error = decode(LZ, &[&payload[..], b"x"].concat(), raw.len(), None).unwrap_err();
        assert_eq!(error.what, "a compressed block does not decode: it goes on behind its end");
        assert!(decode(ZSTD, &payload, raw.len(), None).is_err());
    }

    #[test]
    fn what_is_compressed_beside_needs_what_it_was_beside() {
        let beside: Vec<u8> =
            (0..4000u32).flat_map(|n| n.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
        let raw = [&beside[2000..9000], b"and something new"].concat();
        let mut compressor = zstd::bulk::Compressor::with_dictionary(3, &beside).unwrap();
        compressor.include_contentsize(false).unwrap();
        let payload = compressor.compress(&raw).unwrap();
        assert!(payload.len() < 100, "{} bytes", payload.len());
        let decode = |beside| decode(ZSTD_BESIDE, &payload, raw.len(), beside);
        assert_eq!(decode(Some(&beside)).unwrap(), raw);
        assert!(decode(None).unwrap_err().what.contains("only an old manifest"));
        assert!(decode(Some(&beside[..3000])).is_err(), "with something else beside it");
        assert!(super::decode(ZSTD, &payload, raw.len(), Some(&beside)).is_err());
    }
}
