//! Counters anyone can read: what went through the engine, to which device, how long it took, and how
//! long the engine was busy.
//!
//! Each worker counts by itself, so that counting costs no exchange between them; what the threads of
//! the pool finish is counted beside.

mod busy;
mod latency;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::descriptor::DeviceIndex;
use crate::operation::Direction;

pub(crate) use self::busy::{BusyTime, Transfers};
pub use self::latency::Latency;
pub(crate) use self::latency::TIMED_ONE_IN;
use self::latency::Times;

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
    /// Of these, how many reads were answered from the page cache by a plain call, as the ring would
    /// have taken longer.
    pub in_line: u64,
    /// How often something was done in a second-best way, as the system did not want the best: a
    /// worker's buffers that could not be registered, a connection that waits without a ring of
    /// buffers, a zero-copy send that was a copy.
    pub fallbacks: u64,
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

/// A reading of what concerns the open files and directories of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeviceMetrics {
    /// Which device: its number, as in [`Metadata::device`](crate::Metadata::device). `None` for all
    /// that concerns no open file, or one of a device beyond the fifteenth.
    pub device: Option<u64>,
    /// Operations completed.
    pub operations: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Operations that a driver holds now: the depth of the device's queue, as far as it is ours.
    pub in_flight: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// How long operations took.
    pub latency: Latency,
}

/// Devices that are told apart, the first of which stands for what is not.
const DEVICES: usize = 16;

/// The devices that an engine has met.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// Their numbers, from index 1 on.
    known: Mutex<Vec<u64>>,
}

impl Devices {
    pub(crate) fn index_of(&self, device: Option<u64>) -> DeviceIndex {
        let Some(device) = device else { return 0 };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.iter().position(|known| *known == device) {
            return place as DeviceIndex + 1;
        }
        if known.len() + 1 == DEVICES {
            return 0;
        }
        known.push(device);
        known.len() as DeviceIndex
    }

    /// What all workers count, device by device.
    pub(crate) fn read<'a>(
        &self,
        tallies: impl Iterator<Item = &'a Tally> + Clone,
    ) -> Vec<DeviceMetrics> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let devices = [None].into_iter().chain(known.into_iter().map(Some)).enumerate();
        let metrics = devices.map(|(index, device)| {
            let mut metrics = DeviceMetrics { device, ..DeviceMetrics::default() };
            tallies.clone().for_each(|tally| tally.add_device_to(index, &mut metrics));
            metrics
        });
        metrics.collect()
    }
}

/// What one worker counts.
#[derive(Debug)]
pub(crate) struct Tally {
    /// By the worker alone.
    own: [Counts; DEVICES],
    /// By the threads of the pool.
    elsewhere: [Counts; DEVICES],
    times: [OnceLock<Times>; DEVICES],
    in_line: AtomicU64,
    fallbacks: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    /// By the worker alone.
    begun: AtomicU64,
    /// Ended, to be begun again.
    handed_back: AtomicU64,
    operations: AtomicU64,
    failed: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

/// Adds to what nobody else writes.
fn add_alone(count: &AtomicU64, number: u64) {
    count.store(count.load(Relaxed) + number, Relaxed);
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            own: Default::default(),
            elsewhere: Default::default(),
            times: Default::default(),
            in_line: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
        }
    }

    /// Counts what the worker, our caller, gives to its driver.
    #[inline]
    pub(crate) fn begin(&self, device: DeviceIndex) {
        add_alone(&self.own[device as usize].begun, 1);
    }

    /// Counts an end that the worker learned of.
    #[inline]
    pub(crate) fn end(&self, device: DeviceIndex, direction: Direction, outcome: Result<u64, i32>) {
        self.own[device as usize].add(direction, outcome, add_alone);
    }

    /// Counts an end that a thread of the pool learned of.
    pub(crate) fn end_elsewhere(
        &self,
        device: DeviceIndex,
        direction: Direction,
        outcome: Result<u64, i32>,
    ) {
        self.elsewhere[device as usize].add(direction, outcome, |count, number| {
            count.fetch_add(number, Relaxed);
        });
    }

    /// Counts what a thread of the pool gives back, to be begun again.
    pub(crate) fn hand_back(&self, device: DeviceIndex) {
        self.elsewhere[device as usize].handed_back.fetch_add(1, Relaxed);
    }

    /// Counts a read that the worker, our caller, had answered by a plain call.
    #[inline]
    pub(crate) fn in_line(&self) {
        add_alone(&self.in_line, 1);
    }

    /// Counts something that was done in a second-best way.
    pub(crate) fn fall_back(&self) {
        self.fallbacks.fetch_add(1, Relaxed);
    }

    /// Counts how long an operation took.
    pub(crate) fn time(&self, device: DeviceIndex, taken: Duration) {
        self.times[device as usize].get_or_init(Times::new).add(taken);
    }

    pub(crate) fn add_to(&self, metrics: &mut Metrics) {
        for counts in self.own.iter().chain(&self.elsewhere) {
            metrics.operations += counts.operations.load(Relaxed);
            metrics.failed += counts.failed.load(Relaxed);
            metrics.bytes_read += counts.bytes_read.load(Relaxed);
            metrics.bytes_written += counts.bytes_written.load(Relaxed);
        }
        let on_pool = self.elsewhere.iter().map(|counts| counts.operations.load(Relaxed));
        metrics.on_pool += on_pool.sum::<u64>();
        metrics.in_line += self.in_line.load(Relaxed);
        metrics.fallbacks += self.fallbacks.load(Relaxed);
    }

    fn add_device_to(&self, index: usize, metrics: &mut DeviceMetrics) {
        let (own, elsewhere) = (&self.own[index], &self.elsewhere[index]);
        // What ended first, so that what is begun meanwhile does not make it look as if more had.
        let handed_back = elsewhere.handed_back.load(Relaxed);
        let mut ended = handed_back;
        for counts in [own, elsewhere] {
            let operations = counts.operations.load(Relaxed);
            ended += operations;
            metrics.operations += operations;
            metrics.failed += counts.failed.load(Relaxed);
            metrics.bytes_read += counts.bytes_read.load(Relaxed);
            metrics.bytes_written += counts.bytes_written.load(Relaxed);
        }
        metrics.in_flight += own.begun.load(Relaxed).saturating_sub(ended);
        if let Some(times) = self.times[index].get() {
            times.add_to(&mut metrics.latency);
        }
    }

    pub(crate) fn latency<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Latency {
        let mut latency = Latency::default();
        for times in tallies.flat_map(|tally| &tally.times).filter_map(OnceLock::get) {
            times.add_to(&mut latency);
        }
        latency
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_worker_and_pool_count_is_added_up() {
        let (tally, devices) = (Tally::new(), Devices::default());
        let (one, two) = (devices.index_of(Some(7)), devices.index_of(Some(9)));
        assert_eq!((one, devices.index_of(Some(7)), devices.index_of(None)), (1, 1, 0));
        (0..5).for_each(|_| tally.begin(one));
        tally.begin(two);
        tally.end(one, Direction::Read, Ok(10));
        tally.end_elsewhere(one, Direction::Write, Ok(5));
        tally.end_elsewhere(two, Direction::None, Err(2));
        tally.hand_back(one);
        tally.in_line();
        tally.fall_back();
        tally.time(two, Duration::from_millis(1));
        let mut metrics = Metrics::default();
        tally.add_to(&mut metrics);
        assert_eq!((metrics.operations, metrics.failed, metrics.on_pool), (3, 1, 2));
        assert_eq!((metrics.bytes_read, metrics.bytes_written), (10, 5));
        assert_eq!((metrics.in_line, metrics.fallbacks), (1, 1));
        let all = devices.read([&tally].into_iter());
        assert_eq!(all.iter().map(|one| one.device).collect::<Vec<_>>(), [None, Some(7), Some(9)]);
        assert_eq!((all[1].operations, all[1].in_flight, all[1].bytes_written), (2, 2, 5));
        assert_eq!((all[2].operations, all[2].failed, all[2].in_flight), (1, 1, 0));
        assert_eq!((all[1].latency.count(), all[2].latency.count()), (0, 1));
        assert_eq!(Tally::latency([&tally].into_iter()).count(), 1);
    }

    #[test]
    fn more_devices_than_are_told_apart_count_together() {
        let devices = Devices::default();
        let met: Vec<DeviceIndex> = (0..20).map(|device| devices.index_of(Some(device))).collect();
        assert_eq!(met[..15], (1..16).collect::<Vec<_>>());
        assert_eq!(met[15..], [0; 5]);
    }
}
