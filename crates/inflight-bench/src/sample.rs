//! One sample: one setting for a short time.
//!
//! Every request is timed. The rate is taken from completions only, leaving out the first ones, so that
//! neither start nor end of the sample tells on it; what is written counts until it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use inflight::{
    Advice, AlignedBuffer, AlignedOffset, Buffer, DirectFile, Engine, File, Latency, OpenOptions,
    SyncScope,
};
use rustix::time::{ClockId, clock_gettime};

use crate::error::Result;
use crate::plan::{BATCH_FILES, SMALL_FILE_BYTES};
use crate::scratch::{Chance, Scratch, SmallFiles, Target, UNIT_BYTES, batch};
use crate::setting::{Mode, Setting, Work};

/// A sample may take so many times the time it is to take, until it has enough requests.
const LONGER_MAX: u32 = 4;
/// Bytes that one sample writes at most.
pub(crate) const SAMPLE_WRITTEN_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Sample {
    /// Bytes a second; or requests, where these count.
    pub(crate) rate: f64,
    /// Seconds of processor time for each of them.
    pub(crate) cpu_seconds: f64,
    pub(crate) written_bytes: u64,
    pub(crate) latency: Latency,
}

/// One request that ended: when, and how long it took.
type Completion = (Instant, Duration);

/// Gives out the work until the time is over.
struct Clock {
    deadline: Instant,
    /// Even with too few requests.
    last: Instant,
    /// What is given out next, and what in all.
    next: AtomicU64,
    limit: u64,
    /// So much is to be done even beyond the deadline.
    least: u64,
}

impl Clock {
    fn take(&self, step: u64) -> Option<u64> {
        let now = Instant::now();
        if now >= self.last || (now >= self.deadline && self.next.load(Relaxed) >= self.least) {
            return None;
        }
        let at = self.next.fetch_add(step, Relaxed);
        (at < self.limit).then_some(at)
    }
}

/// What a task works on.
#[derive(Clone)]
enum Source {
    Cached(File),
    Direct(DirectFile),
    Small(SmallFiles),
}

#[derive(Clone)]
struct Job {
    setting: Setting,
    source: Source,
    clock: Arc<Clock>,
    /// Bytes of the file, and where in it the sample starts.
    bytes: u64,
    start: u64,
    /// One that a request counts for.
    step: u64,
}

pub(crate) async fn sample(
    engine: &Engine,
    scratch: &Scratch,
    setting: Setting,
    window: Duration,
    seed: u64,
) -> Result<Sample> {
    prepare(engine, scratch, setting.work).await?;
    let mut chance = Chance::new(seed);
    let (source, bytes) = open(engine, scratch, setting).await?;
    let step = match (setting.work, setting.mode) {
        (_, Mode::Batch) => BATCH_FILES,
        (Work::FilesCold | Work::FilesCached | Work::FilesStat, _) => 1,
        (_, Mode::Mapped | Mode::Populated) => UNIT_BYTES,
        _ => setting.request_bytes,
    };
    let limit = match setting.work {
        // Over and over.
        Work::ReadRandom | Work::ReadCached | Work::FilesCached | Work::FilesStat => u64::MAX,
        Work::Write => bytes.min(SAMPLE_WRITTEN_BYTES_MAX),
        Work::ReadCold | Work::FilesCold => bytes,
    };
    let start = match setting.work {
        Work::ReadCold | Work::Write => chance.below(bytes / UNIT_BYTES) * UNIT_BYTES,
        _ => 0,
    };
    let block = Chance::new(seed).bytes(1 << 20);
    let mut buffers = Vec::new();
    for _ in 0..setting.depth {
        let capacity = match setting.mode {
            Mode::Mapped | Mode::Populated => 1,
            Mode::Batch => setting.request_bytes * BATCH_FILES,
            _ => setting.request_bytes.max(1),
        };
        let mut buffer = engine.buffer(capacity as usize).await;
        // The system gives memory where it is written first, which is not what is measured.
        while buffer.spare() > 0 {
            let count = buffer.spare().min(block.len());
            buffer.extend_from_slice(&block[..count]);
        }
        buffers.push(buffer);
    }
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let least = 3 * setting.depth as u64 * step;
    let (deadline, last) = (begin + window, begin + window * LONGER_MAX);
    let clock = Arc::new(Clock { deadline, last, next: AtomicU64::new(0), limit, least });
    let job = Job { setting, source: source.clone(), clock, bytes, start, step };
    let tasks: Vec<_> = buffers
        .into_iter()
        .map(|buffer| {
            let (job, chance) = (job.clone(), Chance::new(chance.next()));
            engine.spawn(job.run(buffer, chance))
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await?);
    }
    if setting.work == Work::Write {
        match &source {
            Source::Cached(file) => file.sync(SyncScope::Data).await?,
            Source::Direct(file) => file.sync(SyncScope::Data).await?,
            Source::Small(_) => {}
        }
    }
    let (elapsed, cpu) = (begin.elapsed(), cpu_seconds() - cpu);
    if setting.work == Work::Write {
        scratch.forget_written(engine).await?;
    }
    Ok(evaluate(&setting, step, begin, done, elapsed, cpu))
}

/// Makes the page cache hold what it is to hold.
async fn prepare(engine: &Engine, scratch: &Scratch, work: Work) -> Result<()> {
    match work {
        Work::ReadCold => drop(scratch.forget(engine).await?),
        Work::ReadCached => scratch.warm(engine).await?,
        Work::FilesCold => scratch.forget_small().await?,
        Work::FilesCached => scratch.warm_small().await?,
        _ => {}
    }
    Ok(())
}

async fn open(engine: &Engine, scratch: &Scratch, setting: Setting) -> Result<(Source, u64)> {
    let none = || crate::error::Error::Place("there is nothing to work on".into());
    let target: &Target = match setting.work {
        Work::ReadCold | Work::ReadRandom => &scratch.cold,
        Work::ReadCached => &scratch.hot,
        Work::Write => scratch.write.as_ref().ok_or_else(none)?,
        Work::FilesCold | Work::FilesCached | Work::FilesStat => {
            let small = scratch.small.clone().ok_or_else(none)?;
            let count = small.count;
            return Ok((Source::Small(small), count));
        }
    };
    let mut options = match setting.work {
        Work::Write => OpenOptions::writing(),
        _ => OpenOptions::reading(),
    };
    if setting.mode == Mode::Uncached {
        options = options.uncached();
    }
    let source = match setting.mode {
        Mode::Direct => Source::Direct(scratch.open_direct(engine, target, options).await?),
        _ => Source::Cached(scratch.open(engine, target, options).await?),
    };
    if let (Mode::Sequential, Source::Cached(file)) = (setting.mode, &source) {
        file.advise(0, target.bytes, Advice::Sequential).await?;
    }
    Ok((source, target.bytes))
}

impl Job {
    async fn run(self, mut buffer: Buffer, mut chance: Chance) -> Result<Vec<Completion>> {
        let mut done = Vec::new();
        while let Some(at) = self.clock.take(self.step) {
            let begin = Instant::now();
            buffer = match (&self.source, self.setting.work) {
                (Source::Small(small), work) => {
                    self.small(small, work, buffer, at % small.count).await?
                }
                (source, Work::Write) => self.write(source, buffer, self.place(at)).await?,
                (source, Work::ReadRandom) => {
                    let blocks = self.bytes / self.step;
                    let at = chance.below(blocks) * self.step;
                    self.read(source, buffer, at).await?
                }
                (source, _) => self.read(source, buffer, self.place(at)).await?,
            };
            let end = Instant::now();
            done.push((end, end - begin));
        }
        Ok(done)
    }

    fn place(&self, at: u64) -> u64 {
        (self.start + at % self.bytes) % self.bytes
    }

    async fn read(&self, source: &Source, mut buffer: Buffer, at: u64) -> Result<Buffer> {
        let length = self.setting.request_bytes as usize;
        Ok(match (source, self.setting.mode) {
            (Source::Direct(file), _) => file.read(buffer, AlignedOffset::at_or_before(at)).await?,
            (Source::Cached(file), Mode::Mapped | Mode::Populated) => {
                file.touch_mapped(at, self.step as usize, length).await?;
                buffer
            }
            (Source::Cached(file), _) => {
                buffer.clear();
                file.read_full(buffer, length, at).await?
            }
            (Source::Small(_), _) => buffer,
        })
    }

    async fn write(&self, source: &Source, buffer: Buffer, at: u64) -> Result<Buffer> {
        Ok(match source {
            Source::Direct(file) => {
                let buffer = AlignedBuffer::padded(buffer);
                file.write(buffer, AlignedOffset::at_or_before(at)).await?.into_inner()
            }
            Source::Cached(file) => file.write_all(buffer, at).await?,
            Source::Small(_) => buffer,
        })
    }

    async fn small(
        &self,
        small: &SmallFiles,
        work: Work,
        mut buffer: Buffer,
        at: u64,
    ) -> Result<Buffer> {
        let directory = &small.directory;
        if work == Work::FilesStat {
            directory.metadata(at.to_string(), true).await?;
            return Ok(buffer);
        }
        buffer.clear();
        let length = SMALL_FILE_BYTES as usize;
        if self.setting.mode == Mode::Batch {
            let read = directory.read_files(batch(at), OpenOptions::reading(), buffer).await?;
            return Ok(read.1);
        }
        let file = directory.open(at.to_string(), OpenOptions::reading()).await?;
        let buffer = file.read_full(buffer, length, 0).await?;
        file.close().await?;
        Ok(buffer)
    }
}

/// Seconds of processor time that this process has used.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn evaluate(
    setting: &Setting,
    step: u64,
    begin: Instant,
    mut done: Vec<Completion>,
    elapsed: Duration,
    cpu: f64,
) -> Sample {
    done.sort_unstable_by_key(|(end, _)| *end);
    let mut latency = Latency::default();
    done.iter().for_each(|(_, taken)| latency.record(*taken));
    // A random read counts as one, whatever its size.
    let step = if setting.work == Work::ReadRandom { 1 } else { step };
    let units = done.len() as u64 * step;
    let rate = match setting.work {
        Work::Write => units as f64 / elapsed.as_secs_f64(),
        _ => step as f64 * rate(begin, &done, setting.depth),
    };
    let written_bytes = if setting.work == Work::Write { units } else { 0 };
    Sample { rate, cpu_seconds: cpu / units.max(1) as f64, written_bytes, latency }
}

/// Requests a second, from the end of one to the end of the last one; the first `depth` are left out where
/// more are there.
fn rate(begin: Instant, done: &[Completion], depth: usize) -> f64 {
    let Some((last, _)) = done.last() else { return 0.0 };
    let skipped = if done.len() >= 2 * depth { depth } else { 0 };
    let from = match skipped {
        0 => begin,
        _ => done[skipped - 1].0,
    };
    (done.len() - skipped) as f64 / (*last - from).as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_and_end_of_a_sample_do_not_tell_on_its_rate() {
        let begin = Instant::now();
        let ms = Duration::from_millis;
        // A second until the first two end, then two every 10 ms.
        let done: Vec<Completion> =
            (0..40).map(|n| (begin + ms(1000) + ms(10) * (n / 2), ms(10))).collect();
        let found = rate(begin, &done, 2);
        assert!((found - 200.0).abs() < 0.1, "{found}");
        // Few are all counted.
        assert!((rate(begin, &done[..2], 2) - 2.0).abs() < 0.1);
        assert_eq!(rate(begin, &[], 2), 0.0);
    }

    #[test]
    fn work_is_given_out_until_the_time_is_over() {
        let now = Instant::now();
        let clock = |deadline, last, limit, least| Clock {
            deadline,
            last,
            next: AtomicU64::new(0),
            limit,
            least,
        };
        let hour = Duration::from_secs(3600);
        let endless = clock(now + hour, now + hour, 10, 0);
        assert_eq!([5, 5, 5].map(|step| endless.take(step)), [Some(0), Some(5), None]);
        let late = clock(now, now + hour, 100, 10);
        assert_eq!([5, 5, 5].map(|step| late.take(step)), [Some(0), Some(5), None]);
        assert_eq!(clock(now, now, 100, 10).take(5), None);
    }
}
