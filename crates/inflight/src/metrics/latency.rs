//! How long operations took, in buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long operations took, from their driver's hands to their ends: of one in so many, so that
/// looking at the clock costs nothing. Waits for the world outside (sockets, timers) are not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    buckets: Vec<u64>,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { buckets: vec![0; BUCKETS] }
    }
}

impl Latency {
    /// Counts one more.
    pub fn record(&mut self, taken: Duration) {
        let ns = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)] += 1;
    }

    /// Counts those of another one as well.
    pub fn merge(&mut self, other: &Latency) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, count)| *sum += count);
    }

    /// How many operations were timed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time that a part of the operations did not exceed: 0.5 for the median, 0.99 for the 99th
    /// percentile; rounded up by at most an eighth. Zero if none was timed.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return Duration::from_nanos(bucket_end(bucket));
            }
        }
        Duration::ZERO
    }
}

/// Each power of two of nanoseconds is cut into so many buckets.
const BUCKETS_OF_OCTAVE: usize = 8;
/// Up to about an hour.
const BUCKETS: usize = 42 * BUCKETS_OF_OCTAVE;
/// One operation in so many is timed.
pub(crate) const TIMED_ONE_IN: u32 = 32;

fn bucket_of(ns: u64) -> usize {
    let octaves = BUCKETS_OF_OCTAVE.ilog2();
    if ns < BUCKETS_OF_OCTAVE as u64 {
        return ns as usize;
    }
    let octave = ns.ilog2() - octaves;
    let within = (ns >> octave) as usize - BUCKETS_OF_OCTAVE;
    ((octave as usize + 1) * BUCKETS_OF_OCTAVE + within).min(BUCKETS - 1)
}

/// The longest time that a bucket holds.
fn bucket_end(bucket: usize) -> u64 {
    if bucket < BUCKETS_OF_OCTAVE {
        return bucket as u64;
    }
    let octave = bucket / BUCKETS_OF_OCTAVE - 1;
    let within = (bucket % BUCKETS_OF_OCTAVE + BUCKETS_OF_OCTAVE) as u64;
    ((within + 1) << octave) - 1
}

/// Times that are counted by several at once.
#[derive(Debug)]
pub(super) struct Times(Box<[AtomicU64]>);

impl Times {
    pub(super) fn new() -> Times {
        Times((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn add(&self, taken: Duration) {
        let ns = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX);
        self.0[bucket_of(ns)].fetch_add(1, Relaxed);
    }

    pub(super) fn add_to(&self, latency: &mut Latency) {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        latency.buckets.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(next), bucket, "{next} ns");
            assert_eq!(bucket_of(bucket_end(bucket)), bucket);
            next = bucket_end(bucket) + 1;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        let times = Times::new();
        (1..=1000).for_each(|us| times.add(Duration::from_micros(us)));
        let mut latency = Latency::default();
        times.add_to(&mut latency);
        assert_eq!(latency.count(), 1000);
        for (part, us) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = latency.quantile(part).as_nanos() as f64 / 1000.0;
            assert!((us..us * 1.126).contains(&found), "{part}: {found} for {us}");
        }
    }
}
