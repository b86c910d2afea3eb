//! Cuts with AVX2 and carry-less multiplication: 32 places at a time.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_clmulepi64_si128, _mm_set1_epi64x, _mm256_add_epi8, _mm256_alignr_epi8,
    _mm256_and_si256, _mm256_castsi256_si128, _mm256_cmpeq_epi8, _mm256_extracti128_si256,
    _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_permute2x128_si256,
    _mm256_set_m128i, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use super::{CANDIDATE, ChunkSizes, MIXED_BACK, MULTIPLIER, first_cut};

const WIDTH: usize = 32;

#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn cut(sizes: ChunkSizes, bytes: &[u8]) -> usize {
    first_cut!(sizes, bytes, Lanes::new(), WIDTH)
}

/// What the next places depend on.
struct Lanes {
    /// The upper halves of the last products.
    upper: __m256i,
    hashes: __m256i,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new() -> Lanes {
        let zero = _mm256_setzero_si256();
        Lanes { upper: zero, hashes: zero }
    }

    /// The next block's candidates with ranks up to `bound`, a bit for each.
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq")]
    fn step(&mut self, block: &[u8; MIXED_BACK + WIDTH], bound: u8) -> u64 {
        // SAFETY: the block has 32 bytes from either place on.
        let (bytes, back) = unsafe {
            let start = block.as_ptr();
            (_mm256_loadu_si256(start.add(MIXED_BACK).cast()), _mm256_loadu_si256(start.cast()))
        };
        let mixed = _mm256_add_epi8(bytes, back);
        let (low, high) = (products::<0>(mixed), products::<1>(mixed));
        let lower = _mm256_unpacklo_epi64(low, high);
        let upper = _mm256_unpackhi_epi64(low, high);
        // The upper half of a product belongs to the next word.
        let carried = _mm256_alignr_epi8::<8>(upper, behind(self.upper, upper));
        self.upper = upper;
        let hashes = _mm256_xor_si256(lower, carried);
        let before = behind(self.hashes, hashes);
        self.hashes = hashes;
        let sums = _mm256_add_epi8(hashes, _mm256_alignr_epi8::<11>(hashes, before));
        let ranks = _mm256_xor_si256(before, _mm256_alignr_epi8::<6>(hashes, before));
        let equal = _mm256_cmpeq_epi8(sums, _mm256_set1_epi8(CANDIDATE as i8));
        let bounded = _mm256_min_epu8(ranks, _mm256_set1_epi8(bound as i8));
        let passed = _mm256_and_si256(equal, _mm256_cmpeq_epi8(bounded, ranks));
        u64::from(_mm256_movemask_epi8(passed) as u32)
    }
}

/// The bytes 16 places before those of `now`.
#[inline]
#[target_feature(enable = "avx2")]
fn behind(last: __m256i, now: __m256i) -> __m256i {
    _mm256_permute2x128_si256::<0x21>(last, now)
}

/// Carry-less products of the even words, or the odd ones, with the multiplier.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn products<const ODD: i32>(words: __m256i) -> __m256i {
    let multiplier: __m128i = _mm_set1_epi64x(MULTIPLIER as i64);
    let low = _mm_clmulepi64_si128::<ODD>(_mm256_castsi256_si128(words), multiplier);
    let high = _mm_clmulepi64_si128::<ODD>(_mm256_extracti128_si256::<1>(words), multiplier);
    _mm256_set_m128i(high, low)
}
