//! What a user trades: time against size.

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
            Preset::Default => Compression::Zstd(9),
            Preset::Small => Compression::Lz,
        }
    }

    /// The same, where so many bytes to compress make so many of the new image: where they are few,
    /// time spent on them is little beside that for all of it.
    pub(crate) const fn compression_of(self, packed_bytes: u64, new_bytes: u64) -> Compression {
        match self {
            Preset::Default if packed_bytes <= new_bytes / LITTLE => Compression::ZstdOptimal,
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
    /// zstd with the search of its levels from 16 on, which weighs what things cost: 5 to 10 %
    /// smaller than level 9, and ten times as long to make.
    ZstdOptimal,
    /// Our own: a tenth smaller than the highest of those, and several times as long to decode.
    Lz,
}

/// Blocks so short are compressed in more than one way, but by `fast`: it takes hardly any time then.
const SHORT_BYTES: usize = 64 << 10;

impl Compression {
    /// Whether so many bytes are compressed with zstd.
    pub(crate) const fn tries_zstd(self, length: usize) -> bool {
        !matches!(self, Compression::Lz) || length <= SHORT_BYTES
    }

    /// Whether so many bytes are compressed with our own.
    pub(crate) const fn tries_lz(self, length: usize) -> bool {
        match self {
            Compression::Zstd(level) => level > FAST_LEVEL && length <= SHORT_BYTES,
            Compression::ZstdOptimal => length <= SHORT_BYTES,
            Compression::Lz => true,
        }
    }
}
