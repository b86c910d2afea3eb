//! How long an engine was busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::operation::Direction;

/// How long at least one transfer of an engine was in flight.
#[derive(Debug)]
pub(crate) struct BusyTime {
    epoch: Instant,
    /// Workers with transfers in flight (upper 22 bits) and since when (lower 42, microseconds).
    in_flight: AtomicU64,
    busy_us: AtomicU64,
}

const SINCE_BITS: u32 = 42;
const ONE: u64 = 1 << SINCE_BITS;
const SINCE: u64 = ONE - 1;

/// The transfers of one worker. Only its first and its last one are the engine's business, so that
/// workers do not share what each of their operations writes.
#[derive(Debug)]
pub(crate) struct Transfers {
    in_flight: AtomicUsize,
    engine: Arc<BusyTime>,
}

impl Transfers {
    pub(crate) fn new(engine: Arc<BusyTime>) -> Transfers {
        Transfers { in_flight: AtomicUsize::new(0), engine }
    }

    #[inline]
    pub(crate) fn start(&self, direction: Direction) {
        if direction != Direction::None && self.in_flight.fetch_add(1, Relaxed) == 0 {
            self.engine.start();
        }
    }

    #[inline]
    pub(crate) fn finish(&self, direction: Direction) {
        if direction != Direction::None && self.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.engine.finish();
        }
    }
}

impl BusyTime {
    pub(crate) fn new() -> BusyTime {
        BusyTime { epoch: Instant::now(), in_flight: AtomicU64::new(0), busy_us: AtomicU64::new(0) }
    }

    fn now_us(&self) -> u64 {
        // 42 bits of microseconds are fifty days; after that one interval is miscounted.
        self.epoch.elapsed().as_micros() as u64 & SINCE
    }

    /// A worker has its first transfer.
    fn start(&self) {
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

    /// A worker has had its last one.
    fn finish(&self) {
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
        let busy = Arc::new(BusyTime::new());
        let (one, two) = (Transfers::new(busy.clone()), Transfers::new(busy.clone()));
        let workers = || busy.in_flight.load(Relaxed) / ONE;
        one.start(Direction::Read);
        one.start(Direction::Write);
        two.start(Direction::Both);
        two.start(Direction::None);
        assert_eq!(workers(), 2);
        one.finish(Direction::Read);
        two.finish(Direction::Both);
        assert_eq!(workers(), 1, "one transfer is left");
        one.finish(Direction::Write);
        assert_eq!(workers(), 0);
        assert!(busy.read() <= busy.epoch.elapsed());
        let before = busy.read();
        one.start(Direction::Read);
        std::thread::sleep(Duration::from_millis(5));
        assert!(busy.read() >= before + Duration::from_millis(4), "also while it goes on");
        one.finish(Direction::Read);
        assert!(busy.read() >= before + Duration::from_millis(4));
    }
}
