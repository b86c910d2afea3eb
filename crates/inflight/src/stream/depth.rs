//! How many requests are under way, by what that brings.
//!
//! Throughput drifts, on shared disks by a factor of two, so what is measured now says little about what
//! was measured before. A step is therefore tried between two times without it: taken if it beats both,
//! left if not. More has to bring more; fewer are better when they bring as much. After steps in both
//! directions that brought nothing, the next ones wait, each time twice as long: so it comes to rest.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More under way has to bring so many times as much.
const GAIN_MIN: f64 = 1.05;
/// Fewer may bring so little less.
const LOSS_MAX: f64 = 0.98;
/// Two times with the same number that lie further apart say nothing about what was between them.
const DRIFT_MAX: f64 = 1.1;
/// A window is at least so long, and has so many times as many requests as are under way.
const WINDOW_MIN: Duration = Duration::from_millis(20);
const WINDOW_REQUESTS: usize = 8;
/// The most that any bound can be.
const DEPTH_MAX: usize = 1 << 16;
/// Windows that pass after two steps in vain: at first, and at most.
const REST_WINDOWS: (u32, u32) = (4, 256);

/// How many requests are under way, following what that brings. Clones are the same: streams on one device
/// share one.
///
/// ```
/// # use inflight::{Engine, OpenOptions, stream::{Depth, Reader}};
/// # fn main() -> inflight::Result<()> {
/// # let engine = Engine::new()?;
/// # engine.block_on(async {
/// let depth = Depth::new(4, 1..=16);
/// let file = engine.open("Cargo.toml", OpenOptions::reading()).await?;
/// let mut reader = Reader::whole(file).await?.following(&depth);
/// while reader.next().await?.is_some() {}
/// assert!((1..=16).contains(&depth.now()));
/// # inflight::Result::Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Depth(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    now: AtomicUsize,
    bounds: RangeInclusive<usize>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What it is when nothing is tried.
    base: usize,
    window: Window,
    trial: Trial,
    goes_up: bool,
    /// Steps in vain since the last one that was taken.
    in_vain: u32,
    /// Windows that pass before the next step is tried, and after the next two in vain.
    rest: u32,
    next_rest: u32,
}

/// A time in which the number stays.
#[derive(Debug)]
struct Window {
    /// Set by the first request after those that were under way before.
    begin: Option<Instant>,
    left_out: usize,
    requests: usize,
    bytes: u64,
}

/// A step that is tried: bytes a second before it and with it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trial {
    None,
    With { before: f64 },
    After { before: f64, with: f64 },
}

impl Depth {
    /// Begins with `start`, and stays within bounds: from 1 on, to 65,536.
    #[must_use]
    pub fn new(start: usize, bounds: RangeInclusive<usize>) -> Depth {
        let least = (*bounds.start()).clamp(1, DEPTH_MAX);
        let bounds = least..=(*bounds.end()).clamp(least, DEPTH_MAX);
        let start = start.clamp(*bounds.start(), *bounds.end());
        let state = State {
            base: start,
            window: Window::begin(start),
            trial: Trial::None,
            goes_up: true,
            in_vain: 0,
            rest: 0,
            next_rest: REST_WINDOWS.0,
        };
        let (now, state) = (AtomicUsize::new(start), Mutex::new(state));
        Depth(Arc::new(Shared { now, bounds, state }))
    }

    /// So many, and always so many.
    #[must_use]
    pub fn fixed(depth: usize) -> Depth {
        Depth::new(depth, depth..=depth)
    }

    /// The most that it may become.
    pub(crate) fn most(&self) -> usize {
        *self.0.bounds.end()
    }

    /// Requests to have under way now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.0.now.load(Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain numbers: a panic elsewhere cannot leave them half-changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of so many bytes has come to its end.
    pub(crate) fn note(&self, bytes: u64) {
        if bytes > 0 && self.0.bounds.start() < self.0.bounds.end() {
            self.note_at(bytes, Instant::now());
        }
    }

    fn note_at(&self, bytes: u64, now: Instant) {
        let mut state = self.state();
        let depth = self.now();
        if let Some(rate) = state.window.note(bytes, now, depth) {
            let next = state.decide(rate, &self.0.bounds);
            state.window = Window::begin(if next == depth { 0 } else { next.max(depth) });
            self.0.now.store(next, Relaxed);
        }
    }
}

impl Window {
    fn begin(left_out: usize) -> Window {
        Window { begin: None, left_out, requests: 0, bytes: 0 }
    }

    /// Bytes a second, once it is over.
    fn note(&mut self, bytes: u64, now: Instant, depth: usize) -> Option<f64> {
        if self.left_out > 0 {
            self.left_out -= 1;
            return None;
        }
        let Some(begin) = self.begin else {
            self.begin = Some(now);
            return None;
        };
        self.requests += 1;
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(begin);
        let is_over = elapsed >= WINDOW_MIN && self.requests >= WINDOW_REQUESTS * depth;
        is_over.then(|| self.bytes as f64 / elapsed.as_secs_f64())
    }
}

impl State {
    /// A window with so many bytes a second is over: how many requests there are in the next one.
    fn decide(&mut self, rate: f64, bounds: &RangeInclusive<usize>) -> usize {
        match self.trial {
            Trial::None if self.rest > 0 => {
                self.rest -= 1;
                self.base
            }
            Trial::None => self.try_step(rate, bounds),
            Trial::With { before } => {
                self.trial = Trial::After { before, with: rate };
                self.base
            }
            Trial::After { before, with } => {
                self.judge(before, with, rate, bounds);
                self.base
            }
        }
    }

    /// The number that a step leads to; the same at a bound.
    fn step(&self, bounds: &RangeInclusive<usize>) -> usize {
        let to = if self.goes_up { self.base * 2 } else { self.base / 2 };
        to.clamp(*bounds.start(), *bounds.end())
    }

    fn try_step(&mut self, before: f64, bounds: &RangeInclusive<usize>) -> usize {
        if self.step(bounds) == self.base {
            self.goes_up = !self.goes_up;
        }
        self.trial = Trial::With { before };
        self.step(bounds)
    }

    fn judge(&mut self, before: f64, with: f64, after: f64, bounds: &RangeInclusive<usize>) {
        self.trial = Trial::None;
        let (least, most) = (before.min(after), before.max(after));
        let is_steady = most <= least * DRIFT_MAX;
        let is_better = match self.goes_up {
            true => with >= most * GAIN_MIN,
            false => with >= (before + after) / 2.0 * LOSS_MAX,
        };
        if is_steady && is_better {
            self.base = self.step(bounds);
            (self.in_vain, self.next_rest) = (0, REST_WINDOWS.0);
            return;
        }
        self.goes_up = !self.goes_up;
        self.in_vain += 1;
        if self.in_vain.is_multiple_of(2) {
            self.rest = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(REST_WINDOWS.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that is busy with `enough` requests under way, and a share slower or faster by chance.
    struct Device {
        enough: usize,
        /// What more than enough costs: 1.0 for nothing.
        beyond: f64,
        noise: f64,
        chance: u64,
        /// Where its time begins, and seconds since.
        begin: Instant,
        at: f64,
    }

    impl Device {
        fn new(enough: usize, noise: f64, chance: u64) -> Device {
            Device { enough, beyond: 1.0, noise, chance, begin: Instant::now(), at: 0.0 }
        }

        fn chance(&mut self) -> f64 {
            self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.chance >> 33) as f64 / (1u64 << 31) as f64
        }

        /// Runs for so many seconds; the share of the time that each number had, and how often it changed.
        fn run(&mut self, depth: &Depth, seconds: f64) -> (Vec<f64>, usize) {
            const BYTES: u64 = 1 << 20;
            const BYTES_A_SECOND: f64 = 1e9;
            let end = self.at + seconds;
            let (mut times, mut changes) = (vec![0.0; 65], 0);
            let mut noise = 1.0;
            let mut requests = 0;
            while self.at < end {
                let now = depth.now();
                // Noise lasts, as other users of a disk do.
                if requests % 32 == 0 {
                    noise = 1.0 + (self.chance() * 2.0 - 1.0) * self.noise;
                }
                requests += 1;
                let used = now.min(self.enough) as f64 / self.enough as f64;
                let over = self.beyond.powi((now.max(self.enough) / self.enough) as i32 - 1);
                let taken = BYTES as f64 / (BYTES_A_SECOND * used * over * noise);
                self.at += taken;
                times[now] += taken / seconds;
                depth.note_at(BYTES, self.begin + Duration::from_secs_f64(self.at));
                changes += usize::from(depth.now() != now);
            }
            (times, changes)
        }
    }

    #[test]
    fn it_comes_to_what_is_enough_and_rests_there() {
        for (enough, start) in [(1, 4), (2, 4), (4, 4), (8, 4), (16, 4), (8, 32), (1, 32)] {
            for seed in 0..8 {
                let depth = Depth::new(start, 1..=32);
                let mut device = Device::new(enough, 0.02, seed);
                device.run(&depth, 10.0);
                let (times, changes) = device.run(&depth, 60.0);
                let near: f64 = times[enough..=enough * 2].iter().sum();
                assert!(near > 0.8, "{enough} from {start}, seed {seed}: {near} of the time");
                assert!(changes < 400, "{enough} from {start}, seed {seed}: {changes} changes");
            }
        }
    }

    #[test]
    fn noise_and_drift_do_not_carry_it_away() {
        for seed in 0..8 {
            let depth = Depth::new(4, 1..=32);
            let mut device = Device::new(4, 0.3, seed);
            device.run(&depth, 10.0);
            let (times, _) = device.run(&depth, 120.0);
            // Less than enough is what costs.
            let starved: f64 = times[..4].iter().sum();
            assert!(starved < 0.35, "seed {seed}: {starved} of the time with too few");
        }
    }

    #[test]
    fn what_harms_is_left() {
        let depth = Depth::new(32, 1..=32);
        let mut device = Device { beyond: 0.95, ..Device::new(2, 0.02, 1) };
        device.run(&depth, 10.0);
        let (times, _) = device.run(&depth, 30.0);
        assert!(times[..=4].iter().sum::<f64>() > 0.9, "{times:?}");
    }

    #[test]
    fn it_follows_a_device_that_changes() {
        let depth = Depth::new(4, 1..=32);
        let mut device = Device::new(2, 0.02, 1);
        device.run(&depth, 20.0);
        assert!(depth.now() <= 4, "{}", depth.now());
        device.enough = 16;
        // It may have just begun to rest for as long as it ever does.
        device.run(&depth, 60.0);
        let (times, _) = device.run(&depth, 20.0);
        assert!(times[16..].iter().sum::<f64>() > 0.8, "{times:?}");
    }

    /// What a depth was told, after a file was read that follows it.
    fn told(engine: &crate::Engine, path: &std::path::Path) -> bool {
        let depth = Depth::new(2, 1..=4);
        engine.block_on(async {
            let buffer = engine.buffer(1 << 20).await;
            let file =
                engine.open(path, crate::OpenOptions::replacing(0o600)).await.expect("opened");
            let mut buffer = buffer;
            buffer.extend_zeros(1 << 20);
            file.write_all(buffer, 0).await.expect("written");
            let file = engine.open(path, crate::OpenOptions::reading()).await.expect("opened");
            let reader = crate::stream::Reader::whole(file).await.expect("opened");
            let mut reader = reader.requests(4096, 1).following(&depth);
            while reader.next().await.expect("read").is_some() {}
        });
        let state = depth.state();
        state.window.begin.is_some() || state.trial != Trial::None
    }

    #[test]
    fn a_reader_tells_what_it_read_but_not_on_a_simulated_disk() {
        let place = tempfile::tempdir().expect("a temporary directory");
        assert!(told(&crate::Engine::new().expect("an engine"), &place.path().join("file")));
        let disk = crate::SimulatedDisk::new(1);
        assert!(!told(&crate::Engine::builder().simulated(&disk), "/file".as_ref()));
    }

    #[test]
    fn as_many_are_under_way_as_it_says_at_the_time() {
        let depth = Depth::new(2, 1..=4);
        let mut ordered = crate::stream::Ordered::following(&depth);
        ordered.push(std::future::ready(()));
        ordered.push(std::future::ready(()));
        assert!(!ordered.has_room());
        depth.0.now.store(3, Relaxed);
        assert!(ordered.has_room());
        depth.0.now.store(1, Relaxed);
        assert!(!ordered.has_room());
    }

    #[test]
    fn bounds_hold_and_what_is_fixed_stays() {
        let depth = Depth::new(100, 2..=8);
        assert_eq!(depth.now(), 8);
        let mut device = Device::new(1, 0.5, 3);
        let (times, _) = device.run(&depth, 20.0);
        assert!(times[2..=8].iter().sum::<f64>() > 0.999);
        let fixed = Depth::fixed(3);
        (0..10_000).for_each(|_| fixed.note(1));
        assert_eq!((fixed.now(), Depth::fixed(0).now()), (3, 1));
    }
}
