//! Which instructions the vectorised kernels use: the best that the processor has, or what
//! `INFLIGHT_INSTRUCTIONS` says. Results are the same with all of them.

use std::sync::LazyLock;

/// A set of instructions, each with all that those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Instructions {
    /// Nothing but what every processor has.
    Portable,
    /// AVX2 with carry-less multiplication and what counts bits.
    Avx2,
    /// AVX-512 with carry-less multiplication of whole vectors.
    Avx512,
}

impl Instructions {
    /// All that this processor has, the best last.
    pub(crate) fn available() -> &'static [Instructions] {
        use Instructions::{Avx2, Avx512, Portable};
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("bmi1") && has!("popcnt") && has!("pclmulqdq") {
                let wide = has!("avx512f") && has!("avx512bw") && has!("vpclmulqdq");
                return if wide { &[Portable, Avx2, Avx512] } else { &[Portable, Avx2] };
            }
        }
        let _ = (Avx2, Avx512);
        &[Portable]
    }

    /// What is used.
    #[inline]
    pub(crate) fn used() -> Instructions {
        *USED
    }
}

static USED: LazyLock<Instructions> = LazyLock::new(|| {
    let wish = std::env::var("INFLIGHT_INSTRUCTIONS").ok();
    choose(Instructions::available(), wish.as_deref())
});

/// What was wished for, or the best where that is not there or is nothing that is known.
fn choose(available: &[Instructions], wish: Option<&str>) -> Instructions {
    let wish = match wish {
        Some("portable") => Some(Instructions::Portable),
        Some("avx2") => Some(Instructions::Avx2),
        Some("avx512") => Some(Instructions::Avx512),
        _ => None,
    };
    let best = available[available.len() - 1];
    wish.filter(|wish| available.contains(wish)).unwrap_or(best)
}

/// How many places [`list_bits`] writes at a time: a list needs room for so many more.
#[cfg(target_arch = "x86_64")]
pub(crate) const BITS_MORE: usize = 4;

/// Lists where the bits of a mask are, counted from `at`, behind the `found` places of a list; gives how
/// many there are then. It writes several at a time, whether or not there are so many: no processor
/// foresees how many bits there are.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "bmi1,popcnt")]
pub(crate) fn list_bits(mut mask: u32, at: usize, list: &mut [u8], mut found: usize) -> usize {
    let behind = found + mask.count_ones() as usize;
    loop {
        for place in &mut list[found..found + BITS_MORE] {
            *place = (at as u32 + mask.trailing_zeros()) as u8;
            mask &= mask.wrapping_sub(1);
        }
        if mask == 0 {
            return behind;
        }
        found += BITS_MORE;
    }
}

#[cfg(test)]
mod tests {
    use super::Instructions::{Avx2, Avx512, Portable};
    use super::*;

    #[test]
    fn what_is_wished_for_is_used_where_it_is_there() {
        let all = [Portable, Avx2, Avx512];
        for (wish, chosen) in [("portable", Portable), ("avx2", Avx2), ("avx512", Avx512)] {
            assert_eq!(choose(&all, Some(wish)), chosen);
        }
        assert_eq!(choose(&all, None), Avx512);
        assert_eq!(choose(&all, Some("mmx")), Avx512);
        assert_eq!(choose(&[Portable], Some("avx2")), Portable);
    }
}
