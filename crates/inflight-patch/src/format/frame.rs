//! What frames a patch: the fixed parts of header and trailer.

/// The first bytes of every patch: not text, and broken by anything that converts line ends.
pub(crate) const MAGIC: [u8; 8] = *b"\x89INFL\r\n\x1a";
/// What stands near the end of every whole patch.
pub(crate) const MAGIC_END: [u8; 8] = *b"INFLend\n";
/// The version that this module reads and writes.
pub const VERSION: u16 = 4;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 40;
/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize = 40;

/// The checksum of blocks, header and trailer: XXH3, 64 bits.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}
