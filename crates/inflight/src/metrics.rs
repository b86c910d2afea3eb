//! Counters anyone can read: what went through the engine and how long it was busy.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::operation::Direction;

/// A reading of the engine's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Operations completed.
    pub operations: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// How long at least one read or write was in flight. Divided by the time a job took, it is
    /// the share of the I/O limit the job reached: at 1, the job was as fast as its I/O.
    pub busy: Duration,
}

/// The counters behind [`Metrics`].
#[derive(Debug)]
pub(crate) struct Counters {
    epoch: Instant,
    operations: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    /// Transfers in flight (upper 22 bits) and since when (lower 42, microseconds).
    in_flight: AtomicU64,
    busy_us: AtomicU64,
}

const SINCE_BITS: u32 = 42;
const ONE: u64 = 1 << SINCE_BITS;
const SINCE: u64 = ONE - 1;

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            epoch: Instant::now(),
            operations: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
        }
    }

    fn now_us(&self) -> u64 {
        // 42 bits of microseconds are fifty days; after that one interval is miscounted.
        self.epoch.elapsed().as_micros() as u64 & SINCE
    }

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

    pub(crate) fn finish(&self, direction: Direction, bytes: u64) {
        self.operations.fetch_add(1, Relaxed);
        if direction == Direction::None {
            return;
        }
        if matches!(direction, Direction::Read | Direction::Both) {
            self.bytes_read.fetch_add(bytes, Relaxed);
        }
        if matches!(direction, Direction::Write | Direction::Both) {
            self.bytes_written.fetch_add(bytes, Relaxed);
        }
        let before = self.in_flight.fetch_sub(ONE, Relaxed);
        if before < 2 * ONE {
            // Ours was the last one. A start in between reads the clock anew, so at worst the
            // moment between the two is counted twice.
            let busy = self.now_us().saturating_sub(before & SINCE);
            self.busy_us.fetch_add(busy, Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Metrics {
        let current = self.in_flight.load(Relaxed);
        let running = if current < ONE { 0 } else { self.now_us().saturating_sub(current & SINCE) };
        Metrics {
            operations: self.operations.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            busy: Duration::from_micros(self.busy_us.load(Relaxed) + running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_the_union_of_transfers() {
        let counters = Counters::new();
        counters.start(Direction::Read);
        counters.start(Direction::Write);
        counters.finish(Direction::Read, 10);
        assert!(counters.in_flight.load(Relaxed) >= ONE, "one is left");
        counters.finish(Direction::Write, 5);
        assert!(counters.in_flight.load(Relaxed) < ONE);
        let read = counters.read();
        assert_eq!((read.operations, read.bytes_read, read.bytes_written), (2, 10, 5));
        assert!(read.busy <= counters.epoch.elapsed());
    }
}
