//! Everything in rounds, each in another order, so that a device that gets faster or slower meanwhile tells on
//! all alike; then the best ones against each other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use inflight::{Engine, Latency, Progress};

use crate::advice;
use crate::error::{Error, Result};
use crate::report::{Measured, Percentiles, Spread, Unsupported};
use crate::sample::{SAMPLE_WRITTEN_BYTES_MAX, Sample, sample};
use crate::scratch::{Chance, Scratch};
use crate::setting::{Mode, Setting, Work};

/// Bytes that samples write in all at most: devices wear. Half of it is for the end.
pub const WRITTEN_BYTES_MAX: u64 = 10 << 30;
/// How many of each kind of work are measured again at the end: of all, and of the ways that commands know.
const FINALISTS: [(Work, usize, usize); 7] = [
    (Work::ReadCold, 3, 5),
    (Work::Write, 2, 4),
    (Work::ReadCached, 3, 0),
    (Work::ReadRandom, 2, 0),
    (Work::FilesCold, 2, 0),
    (Work::FilesCached, 2, 0),
    (Work::FilesStat, 2, 0),
];

/// Samples of one setting.
#[derive(Default)]
struct Samples {
    rates: Vec<f64>,
    cpu_seconds: Vec<f64>,
    latency: Latency,
    compared: bool,
}

impl Samples {
    fn add(&mut self, sample: &Sample) {
        self.rates.push(sample.rate);
        self.cpu_seconds.push(sample.cpu_seconds);
        self.latency.merge(&sample.latency);
    }

    fn merge(&mut self, other: Samples) {
        self.rates.extend(other.rates);
        self.cpu_seconds.extend(other.cpu_seconds);
        self.latency.merge(&other.latency);
    }

    fn measured(&self, setting: Setting) -> Measured {
        let us = |part: f64| self.latency.quantile(part).as_nanos() as f64 / 1000.0;
        let has_requests = !matches!(setting.mode, Mode::Mapped | Mode::Populated);
        let percentiles = Percentiles { p50: us(0.5), p90: us(0.9), p99: us(0.99), max: us(1.0) };
        Measured {
            setting,
            compared: self.compared,
            rate: Spread::of(&self.rates),
            cpu_seconds: Spread::of(&self.cpu_seconds).median,
            latency_us: has_requests.then_some(percentiles),
        }
    }
}

/// The measurement.
pub(crate) struct Rounds<'a> {
    /// One with one thread, and where there are several cores one with as many.
    engines: &'a [(usize, Engine)],
    scratch: &'a Scratch,
    progress: &'a Progress,
    window: Duration,
    samples: HashMap<Setting, Samples>,
    chance: Chance,
    written_bytes_max: u64,
    pub(crate) unsupported: Vec<Unsupported>,
    pub(crate) written_bytes: u64,
    /// Times that everything was measured, and the best ones again.
    pub(crate) rounds: usize,
    pub(crate) final_rounds: usize,
}

impl<'a> Rounds<'a> {
    pub(crate) fn new(
        engines: &'a [(usize, Engine)],
        scratch: &'a Scratch,
        progress: &'a Progress,
        window: Duration,
        seed: u64,
    ) -> Rounds<'a> {
        Rounds {
            engines,
            scratch,
            progress,
            window,
            samples: HashMap::new(),
            chance: Chance::new(seed),
            written_bytes_max: WRITTEN_BYTES_MAX / 2,
            unsupported: Vec::new(),
            written_bytes: 0,
            rounds: 0,
            final_rounds: 0,
        }
    }

    /// What was measured of each setting.
    pub(crate) fn measured(&self) -> Vec<Measured> {
        let all = self.samples.iter();
        let mut measured: Vec<Measured> =
            all.map(|(setting, samples)| samples.measured(*setting)).collect();
        measured.sort_by_key(|measured| measured.setting);
        measured
    }

    /// Rounds until `sweep_end`, at least one if that can be by `end`; then the best ones.
    pub(crate) fn run(
        &mut self,
        settings: &mut Vec<Setting>,
        sweep_end: Instant,
        end: Instant,
    ) -> Result<()> {
        let total = end.saturating_duration_since(Instant::now());
        self.progress.enter("measuring");
        self.progress.expect(total.as_millis() as u64);
        while Instant::now() < sweep_end && !settings.is_empty() {
            // The first one is to be whole.
            let until = if self.rounds == 0 { end } else { sweep_end };
            self.rounds += usize::from(self.round(settings, self.window, until)?);
        }
        self.progress.enter("comparing");
        self.written_bytes_max = WRITTEN_BYTES_MAX;
        let mut finalists = self.finalists();
        // What was measured before chose them, so of these it counts no more.
        let before = std::mem::take(&mut self.samples);
        while Instant::now() < end && !finalists.is_empty() {
            self.final_rounds += usize::from(self.round(&mut finalists, self.window * 2, end)?);
        }
        // Unless there was no time to compare all of them.
        let has_compared = self.final_rounds > 0;
        self.samples.values_mut().for_each(|samples| samples.compared = has_compared);
        for (setting, samples) in before {
            match self.samples.get_mut(&setting) {
                Some(_) if has_compared => {}
                Some(later) => later.merge(samples),
                None => drop(self.samples.insert(setting, samples)),
            }
        }
        Ok(())
    }

    /// Measures each once, in an order by chance; says whether there was time for all.
    fn round(
        &mut self,
        settings: &mut Vec<Setting>,
        window: Duration,
        until: Instant,
    ) -> Result<bool> {
        for at in (1..settings.len()).rev() {
            settings.swap(at, self.chance.below(at as u64 + 1) as usize);
        }
        for setting in settings.clone() {
            let begin = Instant::now();
            if begin >= until {
                return Ok(false);
            }
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.one(setting, window)?;
            self.progress.advance(begin.elapsed().as_millis() as u64);
        }
        let unsupported = &self.unsupported;
        settings.retain(|setting| !is_unsupported(unsupported, setting));
        Ok(true)
    }

    fn one(&mut self, setting: Setting, window: Duration) -> Result<()> {
        let after = self.written_bytes + SAMPLE_WRITTEN_BYTES_MAX;
        let is_enough = setting.work == Work::Write && after > self.written_bytes_max;
        if is_enough || is_unsupported(&self.unsupported, &setting) {
            return Ok(());
        }
        let engine = self.engines.iter().find(|(threads, _)| *threads == setting.threads);
        let engine = &engine.expect("settings are planned for the engines that there are").1;
        let seed = self.chance.next();
        match engine.block_on(sample(engine, self.scratch, setting, window, seed)) {
            Ok(sample) => {
                self.written_bytes += sample.written_bytes;
                // Nothing was done where the file is too small for it.
                if sample.rate > 0.0 {
                    self.samples.entry(setting).or_default().add(&sample);
                }
                Ok(())
            }
            Err(Error::Io(error)) if cannot(&error, setting.mode) => {
                let (work, mode) = (setting.work, setting.mode);
                self.unsupported.push(Unsupported { work, mode, why: error.to_string() });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The fastest ones of each kind of work.
    fn finalists(&self) -> Vec<Setting> {
        let mut finalists = Vec::new();
        for (work, of_all, of_known) in FINALISTS {
            let of_work = self.samples.iter().filter(|(setting, _)| setting.work == work);
            let mut rates: Vec<(f64, Setting)> = of_work
                .map(|(setting, samples)| (Spread::of(&samples.rates).median, *setting))
                .collect();
            rates.sort_by(|a, b| b.0.total_cmp(&a.0));
            let of_known =
                rates.iter().filter(|(_, setting)| advice::is_known_way(setting)).take(of_known);
            let mut chosen: Vec<Setting> =
                rates.iter().take(of_all).chain(of_known).map(|(_, setting)| *setting).collect();
            chosen.sort();
            chosen.dedup();
            finalists.extend(chosen);
        }
        finalists
    }
}

/// Whether the error says that this way is none here: some file systems say so only when they are to do it.
fn cannot(error: &inflight::Error, mode: Mode) -> bool {
    let is_wrong = error.kind() == std::io::ErrorKind::InvalidInput;
    error.kind() == std::io::ErrorKind::Unsupported || (is_wrong && mode != Mode::Buffered)
}

fn is_unsupported(unsupported: &[Unsupported], setting: &Setting) -> bool {
    unsupported.iter().any(|one| one.work == setting.work && one.mode == setting.mode)
}
