//! Which instructions the vectorised kernels use: the best that the processor has, or what
//! `INFLIGHT_INSTRUCTIONS` says. Results are the same with all of them.

use std::sync::LazyLock;

/// A set of instructions, each with all that those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Instructions {
    /// Nothing but what every processor has.
    Portable,
    /// AVX2 with carry-less multiplication.
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
            if has!("avx2") && has!("pclmulqdq") {
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

/// Chosen once. A wish that the processor cannot fulfil, or that is none, leaves the choice as it is.
static USED: LazyLock<Instructions> = LazyLock::new(|| {
    let available = Instructions::available();
    let wish = std::env::var("INFLIGHT_INSTRUCTIONS").ok();
    let named = |wanted: &Instructions| match wish.as_deref() {
        Some("portable") => *wanted == Instructions::Portable,
        Some("avx2") => *wanted == Instructions::Avx2,
        Some("avx512") => *wanted == Instructions::Avx512,
        _ => false,
    };
    let best = available[available.len() - 1];
    available.iter().copied().find(named).unwrap_or(best)
});
