//! How long an engine was busy.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::operation::Direction;

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
        let before = busy.read();
        busy.start(Direction::Read);
        std::thread::sleep(Duration::from_millis(5));
        assert!(busy.read() >= before + Duration::from_millis(4), "also while it goes on");
        busy.finish(Direction::Read);
        assert!(busy.read() >= before + Duration::from_millis(4));
    }
}
