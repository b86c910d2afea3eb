//! Stages: the named, versioned transformations that turn a block's payload into its raw bytes.
//!
//! A patch lists the stages it uses, by name and version; its blocks refer to them by number. A
//! reader that does not know one says its name and goes no further. New stages come as new names:
//! nothing else in the format changes for them.

use super::wire::{Cursor, put_bytes, put_varint};
use crate::damage::Damage;

/// The payload is the raw bytes.
pub(crate) const STORED: u8 = 0;
/// The payload is one zstd frame.
pub(crate) const ZSTD: u8 = 1;
/// The payload is one zstd frame that goes on behind the new manifest. For the old manifest only.
pub(crate) const ZSTD_BESIDE: u8 = 2;

/// What this version writes and reads; a stage's number is its place.
const KNOWN: [(&str, u64); 3] = [("stored", 1), ("zstd", 1), ("zstd-beside", 1)];

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

/// Turns a payload into exactly `raw_length` bytes. The caller has bounded that length. `beside` is
/// the new manifest, for what is compressed beside it.
pub(super) fn decode(
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
    use super::*;

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
