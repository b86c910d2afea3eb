//! Two reports side by side.

use serde::Serialize;

use crate::report::{Report, Spread};
use crate::setting::Setting;

/// Differences below this are none, whatever the samples say; and where these are few.
const DIFFERENCE_MIN: f64 = 0.05;
const DIFFERENCE_MIN_OF_FEW: f64 = 0.25;
const FEW_SAMPLES: usize = 5;

/// One setting in two reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What was measured in both.
    #[serde(flatten)]
    pub setting: Setting,
    /// In the first one.
    pub before: Spread,
    /// In the second one.
    pub after: Spread,
    /// The second by the first: above 1 is faster.
    pub ratio: f64,
    /// Whether that is more than the samples lie apart.
    pub differs: bool,
}

/// What both reports have measured, by how much it changed, what became slower first.
#[must_use]
pub fn compare(before: &Report, after: &Report) -> Vec<Comparison> {
    let both = before.measured.iter().filter_map(|old| Some((old, after.find(&old.setting)?)));
    let mut all: Vec<Comparison> = both
        .map(|(old, new)| {
            let (before, after) = (old.rate, new.rate);
            let ratio = match before.median == after.median {
                true => 1.0,
                false => after.median / before.median.max(f64::MIN_POSITIVE),
            };
            // Three quarters of the one beyond three quarters of the other.
            let is_apart = after.low > before.high || after.high < before.low;
            // As a factor, so that half as fast is as far away as twice.
            let factor = ratio.max(1.0 / ratio.max(f64::MIN_POSITIVE));
            let is_of_few = before.samples.min(after.samples) < FEW_SAMPLES;
            let least = if is_of_few { DIFFERENCE_MIN_OF_FEW } else { DIFFERENCE_MIN };
            let differs = is_apart && factor - 1.0 >= least;
            Comparison { setting: old.setting, before, after, ratio, differs }
        })
        .collect();
    all.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;
    use crate::setting::{Mode, Work};

    #[test]
    fn what_lies_within_the_samples_is_no_difference() {
        let setting = |depth| Setting {
            work: Work::ReadCold,
            mode: Mode::Direct,
            request_bytes: 1 << 20,
            depth,
            threads: 1,
        };
        let before =
            report(&[(setting(1), 1e9, 0.0), (setting(2), 1e9, 0.0), (setting(4), 1e9, 0.0)]);
        let after =
            report(&[(setting(1), 1.05e9, 0.0), (setting(2), 0.5e9, 0.0), (setting(8), 1e9, 0.0)]);
        let told = |before: &Report, after: &Report| -> Vec<(usize, bool)> {
            compare(before, after).iter().map(|one| (one.setting.depth, one.differs)).collect()
        };
        assert_eq!(told(&before, &after), [(2, true), (1, false)]);
        // A difference of a sixth, of which three samples say nothing, and nine do.
        let mut before = report(&[(setting(1), 1e9, 0.0)]);
        let mut after = report(&[(setting(1), 1.17e9, 0.0)]);
        assert_eq!(told(&before, &after), [(1, false)]);
        (before.measured[0].rate.samples, after.measured[0].rate.samples) = (9, 9);
        assert_eq!(told(&before, &after), [(1, true)]);
    }
}
