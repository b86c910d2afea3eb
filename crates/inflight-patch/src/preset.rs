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
            Preset::Fast => Compression::Zstd(3),
            Preset::Default => Compression::Zstd(9),
            Preset::Small => Compression::Lzma,
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
            Preset::Small => 112 << 20,
        }
    }
}

/// How what is written is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// zstd at a level.
    Zstd(i32),
    /// A tenth smaller than the highest of those, and several times as long to decode.
    Lzma,
}
