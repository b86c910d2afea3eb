//! A measurement from its beginning to its report.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use inflight::{Builder, DriverChoice, Engine, FileKind, Progress};

use crate::advice;
use crate::error::{Error, Result};
use crate::plan::{Scope, plan};
use crate::report::{Place, REPORT_VERSION, Report, Run};
use crate::rounds::Rounds;
use crate::scratch::{SPACE_BYTES_MIN, Scratch};
use crate::setting::Setting;

/// What a measurement may take.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time in all, from [`TIME_MIN`] to a day; a little more where the device is slow.
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
const TIME_MAX: Duration = Duration::from_secs(86_400);

const SPACE_BYTES_DEFAULT: u64 = 3 << 29;
/// Parts of the time: for making the files, and for the best ones at the end.
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

/// Measures what is best at a path: a directory, in which files are made and removed again, or a file, which
/// is only read. The builder says how the engines are to be.
///
/// # Errors
/// The system's; when the place is not fit, or there was no time for anything; and when it was told to stop.
pub fn measure(
    builder: &Builder,
    progress: &Progress,
    path: &Path,
    options: Options,
) -> Result<Report> {
    let begin = Instant::now();
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = options.time.clamp(TIME_MIN, TIME_MAX);
    let engines = engines(builder)?;
    let first = &engines[0].1;
    let mut place = about_machine(path, first);
    place.is_on(&first.block_on(first.device(path))?);
    let space = match first.block_on(first.metadata(path, true))?.kind {
        FileKind::Directory => space(path, options.space)?,
        _ => 0,
    };

    progress.enter("preparing");
    let preparing = time.mul_f64(PREPARING_PART);
    let scratch = first.block_on(Scratch::prepare(first, progress, path, space, preparing))?;
    let preparing = begin.elapsed();
    let mut run = Run {
        inflight_version: env!("CARGO_PKG_VERSION").into(),
        began: began.as_secs(),
        seconds: 0.0,
        preparing_seconds: preparing.as_secs_f64(),
        sample_seconds: 0.0,
        rounds: 0,
        final_rounds: 0,
        unmeasured: 0,
        cold_bytes: scratch.cold.bytes,
        cached_bytes: scratch.hot.bytes,
        small_files: scratch.small.as_ref().map_or(0, |small| small.count),
        written_bytes: scratch.made_bytes(),
        forgets: scratch.forgets,
    };
    let left = time.saturating_sub(preparing);
    let (mut settings, window) = choose(scope(&scratch, &engines), left);
    let seed = began.as_nanos() as u64;
    let mut rounds = Rounds::new(&engines, &scratch, progress, window, seed);
    let end = begin + time;
    let outcome = rounds.run(&mut settings, end - left.mul_f64(FINAL_PART), end);
    let (measured, unsupported) = (rounds.measured(), std::mem::take(&mut rounds.unsupported));
    run.written_bytes += rounds.written_bytes;
    (run.rounds, run.final_rounds) = (rounds.rounds, rounds.final_rounds);
    progress.enter("removing");
    if let Err(error) = outcome {
        return Err(first.block_on(scratch.remove_after(error)));
    }
    let mut warnings = Vec::new();
    // What was measured is not lost for that.
    if let Err(error) = first.block_on(scratch.remove()) {
        warnings.push(format!("the files that were measured with could not be removed: {error}"));
    }
    if measured.is_empty() {
        let text = "there was no time to measure anything: give more by --time".into();
        return Err(Error::Place(text));
    }
    run.sample_seconds = window.as_secs_f64();
    run.unmeasured = settings.len().saturating_sub(measured.len());
    run.seconds = begin.elapsed().as_secs_f64();
    let mut report = Report {
        report_version: REPORT_VERSION,
        place,
        run,
        advice: Vec::new(),
        settings: None,
        measured,
        unsupported,
        warnings,
    };
    report.advice = advice::advise(&report);
    report.settings = advice::kept(&report);
    Ok(report)
}

/// One with one thread, and where there are several cores one with as many.
fn engines(builder: &Builder) -> Result<Vec<(usize, Engine)>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = vec![1, cores];
    threads.dedup();
    let engine = |threads: usize| -> Result<(usize, Engine)> {
        // Requests are cut by nobody.
        let builder = builder.clone().workers(threads).request_bytes_max(64 << 20);
        Ok((threads, builder.build()?))
    };
    threads.into_iter().map(engine).collect()
}

fn scope(scratch: &Scratch, engines: &[(usize, Engine)]) -> Scope {
    let most = engines.last().map_or(1, |(threads, _)| *threads);
    Scope {
        write: scratch.small.is_some(),
        map: scratch.is_own(),
        cold: scratch.forgets,
        threads: most,
        // What prepares samples needs some, too.
        memory_bytes: engines[0].1.pool().budget().limit() / 2,
        coarse: false,
    }
}

/// What is measured in so much time, and how long each sample is.
fn choose(scope: Scope, time: Duration) -> (Vec<Setting>, Duration) {
    let sweep = time.as_secs_f64() * (1.0 - FINAL_PART);
    let each =
        |settings: &[Setting]| sweep / f64::from(ROUNDS) / settings.len() as f64 - BETWEEN_SAMPLES;
    let mut settings = plan(scope);
    if each(&settings) < COARSE_BELOW {
        settings = plan(Scope { coarse: true, ..scope });
    }
    let window = Duration::from_secs_f64(each(&settings).max(0.0)).clamp(WINDOW.0, WINDOW.1);
    (settings, window)
}

fn about_machine(path: &Path, engine: &Engine) -> Place {
    let system = rustix::system::uname();
    Place {
        // So that it says something elsewhere, too.
        path: std::path::absolute(path).unwrap_or_else(|_| path.into()).display().to_string(),
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
        cores: std::thread::available_parallelism().map_or(1, usize::from),
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
    space_of(free, wanted).map_err(|why| Error::Place(format!("{}: {why}", path.display())))
}

fn space_of(free: u64, wanted: Option<u64>) -> Result<u64, String> {
    let (least, mib) = (SPACE_BYTES_MIN >> 20, free >> 20);
    match wanted {
        Some(wanted) if wanted < SPACE_BYTES_MIN => {
            Err(format!("files of {} MiB tell nothing; give {least} MiB or more", wanted >> 20))
        }
        Some(wanted) if wanted > free => {
            Err(format!("{mib} MiB are free, not {} MiB: give less by --space", wanted >> 20))
        }
        Some(wanted) => Ok(wanted),
        None if free / 10 < SPACE_BYTES_MIN => Err(format!(
            "{mib} MiB are free, and a tenth of that tells nothing: allow more by --space {least}MiB, or \
             name another directory"
        )),
        None => Ok((free / 10).min(SPACE_BYTES_DEFAULT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_take_a_tenth_of_what_is_free_unless_more_is_allowed() {
        const MIB: u64 = 1 << 20;
        assert_eq!(space_of(2000 * MIB, None), Ok(200 * MIB));
        assert_eq!(space_of(u64::MAX, None), Ok(SPACE_BYTES_DEFAULT));
        assert_eq!(space_of(300 * MIB, Some(200 * MIB)), Ok(200 * MIB));
        for (free, wanted, why) in [
            (300 * MIB, None, "allow more by --space 128MiB"),
            (0, None, "0 MiB are free"),
            (u64::MAX, Some(MIB), "give 128 MiB or more"),
            (130 * MIB, Some(131 * MIB), "130 MiB are free, not 131 MiB"),
        ] {
            assert!(space_of(free, wanted).expect_err("refused").contains(why), "{why}");
        }
    }
}
