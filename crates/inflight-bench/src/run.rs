//! Measuring: everything in rounds, each in another order, so that a device that gets faster or slower
//! meanwhile tells on all alike; then the best ones against each other.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use inflight::{Builder, DriverChoice, Engine, Latency, Progress};

use crate::advice;
use crate::error::{Error, Result};
use crate::plan::{Scope, plan};
use crate::report::{
    Measured, Percentiles, Place, REPORT_VERSION, Report, Run, Spread, Unsupported,
};
use crate::sample::{SAMPLE_WRITTEN_BYTES_MAX, Sample, sample};
use crate::scratch::{Chance, SPACE_BYTES_MIN, Scratch};
use crate::setting::{Mode, Setting, Work};

/// What a measurement may take.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time in all; a little more where the device is slow.
    pub time: Duration,
    /// Bytes of files; if not set, a tenth of what is free, at most 1.5 GiB.
    pub space: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options { time: Duration::from_secs(60), space: None }
    }
}

/// The least time that tells anything.
pub const TIME_MIN: Duration = Duration::from_secs(5);

const SPACE_BYTES_DEFAULT: u64 = 3 << 29;
/// Parts of the time: for making the files at most, and for the best ones at the end.
const PREPARING_PART: f64 = 0.15;
const FINAL_PART: f64 = 0.4;
/// Rounds that are to fit into the time.
const ROUNDS: u32 = 3;
/// Seconds that come to each sample for preparing it, roughly.
const BETWEEN_SAMPLES: f64 = 0.02;
/// How long a sample is.
const WINDOW: (Duration, Duration) = (Duration::from_millis(15), Duration::from_millis(400));
/// Shorter samples than this, and fewer settings are measured instead.
const COARSE_BELOW: f64 = 0.02;
/// Bytes written in all at most: devices wear. Half of it is for the end.
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

struct Bench<'a> {
    /// One with one thread, and where there are several cores one with as many.
    engines: Vec<(usize, Engine)>,
    scratch: &'a Scratch,
    progress: &'a Progress,
    window: Duration,
    samples: HashMap<Setting, Samples>,
    unsupported: Vec<Unsupported>,
    written_bytes: u64,
    written_bytes_max: u64,
    chance: Chance,
}

/// Measures what is best at a path: a directory, in which files are made and removed again, or a file, which
/// is only read. The builder says how the engines are to be.
///
/// # Errors
/// The system's; when the place is not fit, and when it was told to stop.
pub fn measure(
    builder: &Builder,
    progress: &Progress,
    path: &Path,
    options: Options,
) -> Result<Report> {
    let begin = Instant::now();
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let space = space(path, options.space)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let engine = |threads: usize| -> Result<(usize, Engine)> {
        let builder = builder.clone().workers(threads).request_bytes_max(64 << 20);
        Ok((threads, builder.build()?))
    };
    let mut engines = vec![engine(1)?];
    if cores > 1 {
        engines.push(engine(cores)?);
    }
    let first = &engines[0].1;
    let mut place = about_machine(path, first, cores);
    place.is_on(&first.block_on(first.device(path))?);

    progress.enter("preparing");
    let until = begin + options.time.mul_f64(PREPARING_PART);
    let prepare = Scratch::prepare(first, progress, path, space, until);
    let scratch = first.block_on(prepare)?;
    let preparing = begin.elapsed();
    let left = options.time.saturating_sub(preparing).as_secs_f64();
    let whole = Scope {
        write: scratch.small.is_some(),
        map: scratch.is_own(),
        cold: scratch.forgets,
        threads: cores,
        coarse: false,
    };
    let sweep = left * (1.0 - FINAL_PART);
    let each =
        |settings: &[Setting]| sweep / f64::from(ROUNDS) / settings.len() as f64 - BETWEEN_SAMPLES;
    let mut settings = plan(whole);
    if each(&settings) < COARSE_BELOW {
        settings = plan(Scope { coarse: true, ..whole });
    }
    let window = Duration::from_secs_f64(each(&settings).max(0.0)).clamp(WINDOW.0, WINDOW.1);
    let mut bench = Bench {
        engines,
        scratch: &scratch,
        progress,
        window,
        samples: HashMap::new(),
        unsupported: Vec::new(),
        written_bytes: 0,
        written_bytes_max: WRITTEN_BYTES_MAX / 2,
        chance: Chance::new(began.as_nanos() as u64),
    };
    let end = begin + options.time;
    let outcome =
        bench.sweep_and_final(&mut settings, end - Duration::from_secs_f64(left * FINAL_PART), end);
    let Bench { samples, unsupported, written_bytes, engines, .. } = bench;
    let run = Run {
        inflight_version: env!("CARGO_PKG_VERSION").into(),
        began: began.as_secs(),
        seconds: 0.0,
        preparing_seconds: preparing.as_secs_f64(),
        sample_seconds: window.as_secs_f64(),
        rounds: 0,
        final_rounds: 0,
        unmeasured: settings.iter().filter(|setting| !samples.contains_key(setting)).count(),
        cold_bytes: scratch.cold.bytes,
        cached_bytes: scratch.hot.bytes,
        small_files: scratch.small.as_ref().map_or(0, |small| small.count),
        written_bytes,
        forgets: scratch.forgets,
    };
    progress.enter("removing");
    let removed = engines[0].1.block_on(scratch.remove());
    let (rounds, final_rounds) = outcome?;
    removed?;
    let mut measured: Vec<Measured> =
        samples.iter().map(|(setting, samples)| samples.measured(*setting)).collect();
    measured.sort_by_key(|measured| measured.setting);
    let run = Run { rounds, final_rounds, seconds: begin.elapsed().as_secs_f64(), ..run };
    let mut report = Report {
        report_version: REPORT_VERSION,
        place,
        run,
        advice: Vec::new(),
        settings: None,
        measured,
        unsupported,
    };
    report.advice = advice::advise(&report);
    report.settings = advice::kept(&report);
    Ok(report)
}

fn about_machine(path: &Path, engine: &Engine, cores: usize) -> Place {
    let system = rustix::system::uname();
    Place {
        path: path.display().to_string(),
        file_system: String::new(),
        source: String::new(),
        mounted_at: String::new(),
        device_kind: String::new(),
        found_by: String::new(),
        layers: Vec::new(),
        kernel: format!(
            "{} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy()
        ),
        cores,
        driver: match engine.driver() {
            DriverChoice::Uring => "uring".into(),
            other => other.name().into(),
        },
        driver_reason: engine.driver_reason().into(),
    }
}

/// How much room the files may take.
fn space(path: &Path, wanted: Option<u64>) -> Result<u64> {
    let about = rustix::fs::statvfs(path).map_err(|error| {
        let (path, error) = (path.display(), std::io::Error::from(error));
        Error::Place(format!("cannot look at {path}: {error}"))
    })?;
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let space = wanted.unwrap_or((free / 10).min(SPACE_BYTES_DEFAULT));
    let (path, mib) = (path.display(), |bytes: u64| bytes >> 20);
    if wanted.is_some_and(|wanted| wanted < SPACE_BYTES_MIN) {
        let (given, least) = (mib(space), mib(SPACE_BYTES_MIN));
        return Err(Error::Place(format!("{given} MiB tell nothing; give {least} MiB or more")));
    }
    if wanted.is_some_and(|wanted| wanted > free) {
        let (free, wanted) = (mib(free), mib(space));
        let text = format!("{path} has {free} MiB free, not {wanted} MiB: give less by --space");
        return Err(Error::Place(text));
    }
    Ok(space)
}

impl Bench<'_> {
    /// Rounds until `sweep_end`, at least one if that can be by `end`; then the best ones.
    fn sweep_and_final(
        &mut self,
        settings: &mut Vec<Setting>,
        sweep_end: Instant,
        end: Instant,
    ) -> Result<(usize, usize)> {
        let total = end.saturating_duration_since(Instant::now());
        self.progress.enter("measuring");
        self.progress.expect(total.as_millis() as u64);
        let mut rounds = 0;
        while Instant::now() < sweep_end {
            // The first one is to be whole.
            let until = if rounds == 0 { end } else { sweep_end };
            if self.round(settings, self.window, until)? {
                rounds += 1;
            }
        }
        self.progress.enter("comparing");
        self.written_bytes_max = WRITTEN_BYTES_MAX;
        let mut finalists = self.finalists();
        // What was measured before chose them, so it counts no more.
        let chosen: HashMap<Setting, Samples> = std::mem::take(&mut self.samples);
        let mut final_rounds = 0;
        while Instant::now() < end && !finalists.is_empty() {
            if self.round(&mut finalists, self.window * 2, end)? {
                final_rounds += 1;
            }
        }
        self.samples.values_mut().for_each(|samples| samples.compared = true);
        for (setting, samples) in chosen {
            match self.samples.get_mut(&setting) {
                Some(later) if later.rates.len() >= ROUNDS as usize => {}
                Some(later) => {
                    later.rates.extend(&samples.rates);
                    later.cpu_seconds.extend(&samples.cpu_seconds);
                    later.latency.merge(&samples.latency);
                }
                None => drop(self.samples.insert(setting, samples)),
            }
        }
        Ok((rounds, final_rounds))
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
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
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

fn is_unsupported(unsupported: &[Unsupported], setting: &Setting) -> bool {
    unsupported.iter().any(|one| one.work == setting.work && one.mode == setting.mode)
}
