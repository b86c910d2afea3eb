//! Tars, among whose members executables may be.

/// Members start at multiples of this.
pub(crate) const BLOCK: usize = 512;

/// Whether bytes start like a tar.
pub(crate) fn starts_like_one(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}
