//! What a user trades: time against size.

use crate::lz::Search;

/// How hard to look for a smaller patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// Little time, for a patch that is a little larger.
    Fast,
    /// For everyday use.
    #[default]
    Default,
    /// The smallest patch, for several times the time.
    Small,
}

impl Preset {
    pub(crate) const fn compression(self) -> Compression {
        match self {
            Preset::Fast => Compression::Zstd(FAST_LEVEL),
            Preset::Default => Compression::Lz(Search::Lazy),
            Preset::Small => Compression::Lz(Search::Thorough),
        }
    }

    /// The same, where so many bytes to compress make so many of the new image: where they are few,
    /// time spent on them is little beside that for all of it.
    pub(crate) const fn compression_of(self, packed_bytes: u64, new_bytes: u64) -> Compression {
        match self {
            Preset::Default if packed_bytes <= new_bytes / LITTLE => Compression::Lz(Search::Quick),
            _ => self.compression(),
        }
    }

    /// Bytes of literals that are compressed together.
    pub(crate) const fn literal_bytes(self) -> usize {
        match self {
            Preset::Fast | Preset::Default => 4 << 20,
            Preset::Small => 8 << 20,
        }
    }

    /// Bytes that compressing one group takes besides its literals, about.
    pub(crate) const fn compressor_bytes(self) -> u64 {
        match self {
            Preset::Fast => 4 << 20,
            Preset::Default => 8 << 20,
            Preset::Small => 96 << 20,
        }
    }
}

/// The level of `fast`.
const FAST_LEVEL: i32 = 3;

/// What is packed is little where it is one byte of so many of the new image.
const LITTLE: u64 = 32;

/// How what is written is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// zstd at a level.
    Zstd(i32),
    /// Our own, several times as long to decode. A lazy search makes it 8 % smaller than level 9 of zstd
    /// in little more than twice the time, a quick one another 4 % in three times that, a thorough one
    /// another percent or two in twice that.
    Lz(Search),
}

/// Blocks so short are compressed in more than one way, but by `fast`: it takes hardly any time then.
pub(crate) const SHORT_BYTES: usize = 64 << 10;

impl Compression {
    /// The level of zstd, where that is tried.
    pub(crate) const fn zstd_level(self) -> i32 {
        match self {
            Compression::Zstd(level) => level,
            Compression::Lz(Search::Lazy) => 9,
            Compression::Lz(Search::Quick) => 16,
            Compression::Lz(Search::Thorough) => 19,
        }
    }

    /// How so many bytes are compressed with our own, if they are.
    pub(crate) const fn lz(self, length: usize) -> Option<Search> {
        let is_short = length <= SHORT_BYTES;
        match self {
            Compression::Zstd(_) => None,
            Compression::Lz(_) if is_short => Some(Search::Thorough),
            Compression::Lz(search) => Some(search),
        }
    }
}
