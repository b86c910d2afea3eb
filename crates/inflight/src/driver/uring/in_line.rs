//! When to read from the page cache at once, in place of asking the ring: alone, a plain call takes
//! less than the ring; many are cheaper through that. A call in vain costs something too, so the next
//! ones are left out then: one, two, four, up to 64.

/// Operations that come together at most for one of them to be done by a plain call.
const IN_LINE_MAX: usize = 2;

#[derive(Default)]
pub(super) struct InLine {
    /// Few operations come together: the ring would serve them no cheaper than plain calls.
    alone: bool,
    left_out: u32,
    /// How many are left out after the next call in vain, as a power of two.
    exponent: u32,
}

impl InLine {
    /// So many operations come together.
    pub(super) fn expect(&mut self, operations: usize) {
        self.alone = operations <= IN_LINE_MAX;
    }

    const EXPONENT_MAX: u32 = 6;

    /// Whether the next read is to be tried at once.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        if !self.alone {
            return false;
        }
        let due = self.left_out == 0;
        self.left_out = self.left_out.saturating_sub(1);
        due
    }

    /// Whether that was answered.
    pub(super) fn note(&mut self, answered: bool) {
        if answered {
            self.exponent = 0;
        } else {
            self.left_out = 1 << self.exponent;
            self.exponent = (self.exponent + 1).min(InLine::EXPONENT_MAX);
        }
    }
}
