//! Cuts with AVX-512 and carry-less multiplication of whole vectors: 64 places at a time.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi8, _mm512_alignr_epi8, _mm512_alignr_epi64, _mm512_clmulepi64_epi128,
    _mm512_cmpeq_epi8_mask, _mm512_loadu_si512, _mm512_mask_cmple_epu8_mask, _mm512_set1_epi8,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
    _mm512_xor_si512,
};

use super::{CANDIDATE, ChunkSizes, MIXED_BACK, MULTIPLIER, first_cut};

const WIDTH: usize = 64;

#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
pub(super) fn cut(sizes: ChunkSizes, bytes: &[u8]) -> usize {
    first_cut!(sizes, bytes, Lanes::new(), WIDTH)
}

/// What the next places depend on.
struct Lanes {
    /// The upper halves of the last products.
    upper: __m512i,
    hashes: __m512i,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new() -> Lanes {
        let zero = _mm512_setzero_si512();
        Lanes { upper: zero, hashes: zero }
    }

    /// The next block's candidates with ranks up to `bound`, a bit for each.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    fn step(&mut self, block: &[u8; MIXED_BACK + WIDTH], bound: u8) -> u64 {
        // SAFETY: the block has 64 bytes from either place on.
        let (bytes, back) = unsafe {
            let start = block.as_ptr();
            (_mm512_loadu_si512(start.add(MIXED_BACK).cast()), _mm512_loadu_si512(start.cast()))
        };
        let mixed = _mm512_add_epi8(bytes, back);
        let multiplier = _mm512_set1_epi64(MULTIPLIER as i64);
        let low = _mm512_clmulepi64_epi128::<0>(mixed, multiplier);
        let high = _mm512_clmulepi64_epi128::<1>(mixed, multiplier);
        let lower = _mm512_unpacklo_epi64(low, high);
        let upper = _mm512_unpackhi_epi64(low, high);
        // The upper half of a product belongs to the next word.
        let carried = _mm512_alignr_epi64::<7>(upper, self.upper);
        self.upper = upper;
        let hashes = _mm512_xor_si512(lower, carried);
        let before = behind(self.hashes, hashes);
        self.hashes = hashes;
        let sums = _mm512_add_epi8(hashes, _mm512_alignr_epi8::<11>(hashes, before));
        let ranks = _mm512_xor_si512(before, _mm512_alignr_epi8::<6>(hashes, before));
        let equal = _mm512_cmpeq_epi8_mask(sums, _mm512_set1_epi8(CANDIDATE as i8));
        _mm512_mask_cmple_epu8_mask(equal, ranks, _mm512_set1_epi8(bound as i8))
    }
}

/// The bytes 16 places before those of `now`.
#[inline]
#[target_feature(enable = "avx512f")]
fn behind(last: __m512i, now: __m512i) -> __m512i {
    _mm512_alignr_epi64::<6>(now, last)
}
