//! Counters anyone can read: what went through the engine, how long it took, and how long the engine
//! was busy.
//!
//! Each worker counts by itself, so that counting costs no exchange between them; what the threads of
//! the pool finish is counted beside.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::operation::Direction;

/// A reading of the engine's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Operations completed.
    pub operations: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Of these, how many were system calls on a thread of the pool: all that are no sockets, with
    /// the `threads` driver; with `uring` those that the kernel would hand to a thread of its own.
    pub on_pool: u64,
    /// Operations that a driver holds now.
    pub in_flight: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// How long at least one read or write was in flight. Divided by the time a job took, it is
    /// the share of the I/O limit the job reached: at 1, the job was as fast as its I/O.
    pub busy: Duration,
}

/// How long operations took, from their driver's hands to their ends: of one in so many, so that
/// looking at the clock costs nothing. Waits for the world outside (sockets, timers) are not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    buckets: Vec<u64>,
}

impl Latency {
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

/// What one worker counts.
#[derive(Debug)]
pub(crate) struct Tally {
    /// By the worker alone.
    own: Counts,
    /// By the threads of the pool.
    elsewhere: Counts,
    latency: Box<[AtomicU64]>,
}

#[derive(Debug, Default)]
struct Counts {
    operations: AtomicU64,
    failed: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let latency = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Tally { own: Counts::default(), elsewhere: Counts::default(), latency }
    }

    /// Counts an end that the worker learned of.
    #[inline]
    pub(crate) fn end(&self, direction: Direction, outcome: Result<u64, i32>) {
        self.own.add(direction, outcome, |count, number| {
            count.store(count.load(Relaxed) + number, Relaxed);
        });
    }

    /// Counts an end that a thread of the pool learned of.
    pub(crate) fn end_elsewhere(&self, direction: Direction, outcome: Result<u64, i32>) {
        self.elsewhere.add(direction, outcome, |count, number| {
            count.fetch_add(number, Relaxed);
        });
    }

    /// Counts how long an operation took.
    pub(crate) fn time(&self, taken: Duration) {
        let ns = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX);
        self.latency[bucket_of(ns)].fetch_add(1, Relaxed);
    }

    pub(crate) fn add_to(&self, metrics: &mut Metrics) {
        for counts in [&self.own, &self.elsewhere] {
            metrics.operations += counts.operations.load(Relaxed);
            metrics.failed += counts.failed.load(Relaxed);
            metrics.bytes_read += counts.bytes_read.load(Relaxed);
            metrics.bytes_written += counts.bytes_written.load(Relaxed);
        }
        metrics.on_pool += self.elsewhere.operations.load(Relaxed);
    }

    pub(crate) fn latency<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Latency {
        let mut buckets = vec![0; BUCKETS];
        for tally in tallies {
            let counts = tally.latency.iter().map(|count| count.load(Relaxed));
            buckets.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        Latency { buckets }
    }
}

impl Counts {
    #[inline]
    fn add(&self, direction: Direction, outcome: Result<u64, i32>, add: impl Fn(&AtomicU64, u64)) {
        add(&self.operations, 1);
        let bytes = match outcome {
            Ok(bytes) => bytes,
            Err(_) => return add(&self.failed, 1),
        };
        if matches!(direction, Direction::Read | Direction::Both) {
            add(&self.bytes_read, bytes);
        }
        if matches!(direction, Direction::Write | Direction::Both) {
            add(&self.bytes_written, bytes);
        }
    }
}

/// How long at least one transfer of an engine was in flight.
#[derive(Debug)]
pub(crate) struct BusyTime {
    epoch: Instant,
    /// Transfers in flight (upper 22 bits) and since when (lower 42, microseconds).
    in_flight: AtomicU64,
    busy_us: AtomicU64,
}

const SINCE_BITS: u32 = 42;
const ONE: u64 = 1 << SINCE_BITS;
const SINCE: u64 = ONE - 1;

impl BusyTime {
    pub(crate) fn new() -> BusyTime {
        BusyTime { epoch: Instant::now(), in_flight: AtomicU64::new(0), busy_us: AtomicU64::new(0) }
    }

    fn now_us(&self) -> u64 {
        // 42 bits of microseconds are fifty days; after that one interval is miscounted.
        self.epoch.elapsed().as_micros() as u64 & SINCE
    }

    #[inline]
    pub(crate) fn start(&self, direction: Direction) {
        if direction == Direction::None {
            return;
        }
        let mut current = self.in_flight.load(Relaxed);
        loop {
            let since = if current < ONE { self.now_us() } else { current & SINCE };
            let next = (current & !SINCE) + ONE + since;
            match self.in_flight.compare_exchange_weak(current, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => current = seen,
            }
        }
    }

    #[inline]
    pub(crate) fn finish(&self, direction: Direction) {
        if direction == Direction::None {
            return;
        }
        let before = self.in_flight.fetch_sub(ONE, Relaxed);
        if before < 2 * ONE {
            // Ours was the last one. A start in between reads the clock anew, so at worst the
            // moment between the two is counted twice.
            let busy = self.now_us().saturating_sub(before & SINCE);
            self.busy_us.fetch_add(busy, Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Duration {
        let current = self.in_flight.load(Relaxed);
        let running = if current < ONE { 0 } else { self.now_us().saturating_sub(current & SINCE) };
        Duration::from_micros(self.busy_us.load(Relaxed) + running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_the_union_of_transfers() {
        let busy = BusyTime::new();
        busy.start(Direction::Read);
        busy.start(Direction::Write);
        busy.finish(Direction::Read);
        assert!(busy.in_flight.load(Relaxed) >= ONE, "one is left");
        busy.finish(Direction::Write);
        assert!(busy.in_flight.load(Relaxed) < ONE);
        assert!(busy.read() <= busy.epoch.elapsed());
    }

    #[test]
    fn what_worker_and_pool_count_is_added_up() {
        let tally = Tally::new();
        tally.end(Direction::Read, Ok(10));
        tally.end_elsewhere(Direction::Write, Ok(5));
        tally.end_elsewhere(Direction::None, Err(2));
        let mut metrics = Metrics::default();
        tally.add_to(&mut metrics);
        assert_eq!((metrics.operations, metrics.failed, metrics.on_pool), (3, 1, 2));
        assert_eq!((metrics.bytes_read, metrics.bytes_written), (10, 5));
    }

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(next), bucket, "{next} ns");
            assert_eq!(bucket_of(bucket_end(bucket)), bucket);
            next = bucket_end(bucket) + 1;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        let tally = Tally::new();
        (1..=1000).for_each(|us| tally.time(Duration::from_micros(us)));
        let latency = Tally::latency([&tally].into_iter());
        assert_eq!(latency.count(), 1000);
        for (part, us) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = latency.quantile(part).as_nanos() as f64 / 1000.0;
            assert!((us..us * 1.126).contains(&found), "{part}: {found} for {us}");
        }
    }
}
