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
    /// zstd's level.
    pub(crate) const fn level(self) -> i32 {
        match self {
            Preset::Fast => 3,
            Preset::Default => 9,
            Preset::Small => 19,
        }
    }

    /// Bytes of literals that are compressed together.
    pub(crate) const fn literal_bytes(self) -> usize {
        match self {
            Preset::Fast | Preset::Default => 4 << 20,
            Preset::Small => 16 << 20,
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
