//! Running the commands: an engine, a job on it, and what came out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use indicatif::{BinaryBytes, HumanCount};
use inflight::{Engine, Metrics, Progress};
use inflight_patch::{ApplyOptions, DiffOptions, Job, Side};
use inflight_tools::CopyOptions;
use serde_json::json;

use crate::arguments::{
    ApplyArguments, Command, Common, CopyArguments, DemoArguments, DeviceArguments, DiffArguments,
    InfoArguments, VerifyArguments, WarmArguments, preserve,
};
use crate::known;
use crate::progress::{Bar, Unit};
use crate::report::{self, Cost, Outcome};
use crate::size::{default_memory_bytes, free_memory_bytes};

/// The trees that `demo` works on if none are given.
const BUNDLED: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tzdata-2024.1"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tzdata-2025.2"),
];

/// Threads for system calls while a tree is copied.
const COPY_THREADS: usize = 64;

/// Runs a command that works on trees. Says whether the answer is yes.
pub fn run(command: &Command, common: &Common) -> Result<bool> {
    raise_file_limit();
    let memory = common.memory.unwrap_or_else(default_memory_bytes);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = common.threads.map_or(cores, usize::from);
    let mut builder = Engine::builder().memory_bytes_max(memory);
    if matches!(command, Command::Copy(_) | Command::Device(_)) {
        let devices = known::devices();
        if let Some(bytes) = known::longest_request(&devices) {
            builder = builder.request_bytes_max(bytes);
        }
        builder = builder.measured(devices);
    }
    if let Some(bytes) = common.request {
        builder = builder.request_bytes_max(bytes);
    }
    if let Command::Copy(_) = command {
        // Each waits for the disk, mostly, while it reads what is small.
        builder = builder.threads_max(COPY_THREADS);
    }
    let engine = builder.build()?;
    let progress = Arc::new(Progress::default());
    let job =
        || -> Result<Job> { Ok(Job::new(engine.handle(), threads)?.with_progress(&progress)) };
    stop_on_signal(&progress)?;
    let bar = Bar::start(&progress, Unit::Bytes, !common.json);
    let (start, before) = (Instant::now(), engine.metrics());
    let outcome = engine.block_on(async {
        match command {
            Command::Diff(arguments) => run_diff(&job()?, arguments).await,
            Command::Apply(arguments) => run_apply(&job()?, arguments).await,
            Command::Verify(arguments) => run_verify(&job()?, arguments).await,
            Command::Info(arguments) => run_info(&job()?, arguments).await,
            Command::Demo(arguments) => run_demo(&engine, &job()?, arguments).await,
            Command::Copy(arguments) => run_copy(&engine, &progress, arguments).await,
            Command::Warm(arguments) => run_warm(&engine, &progress, arguments).await,
            Command::Device(arguments) => run_device(&engine, arguments).await,
            Command::Bench(_) | Command::Completions { .. } | Command::Man => {
                unreachable!("done without this engine")
            }
        }
    });
    drop(bar);
    let outcome = outcome?;
    let cost = cost_since(start, before, &engine);
    let ok = outcome.ok;
    let printed = outcome.print(name(command), common.json, &cost, &engine);
    printed.context("the job is done, but standard output cannot be written")?;
    Ok(ok)
}

/// The command's name.
pub fn name(command: &Command) -> &'static str {
    match command {
        Command::Diff(_) => "diff",
        Command::Apply(_) => "apply",
        Command::Verify(_) => "verify",
        Command::Info(_) => "info",
        Command::Demo(_) => "demo",
        Command::Copy(_) => "copy",
        Command::Warm(_) => "warm",
        Command::Device(_) => "device",
        Command::Bench(_) => "bench",
        Command::Completions { .. } => "completions",
        Command::Man => "man",
    }
}

/// As many open files as the system lets the user have: what it gives at first is for programs that
/// cannot count further.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it stays as it was, fewer files are under way.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Ctrl-C and termination end the job at its next step; it cleans up after itself. The second one
/// ends the process at once.
pub fn stop_on_signal(progress: &Arc<Progress>) -> Result<()> {
    let progress = progress.clone();
    let stop = move || {
        if progress.is_cancelled() {
            // Asked again: whoever asks does not want to wait for the cleaning up.
            std::process::exit(1);
        }
        progress.cancel();
    };
    ctrlc::set_handler(stop).context("cannot watch for Ctrl-C")
}

fn cost_since(start: Instant, before: Metrics, engine: &Engine) -> Cost {
    let mut metrics = engine.metrics();
    metrics.operations -= before.operations;
    metrics.bytes_read -= before.bytes_read;
    metrics.bytes_written -= before.bytes_written;
    metrics.busy = metrics.busy.saturating_sub(before.busy);
    Cost { metrics, elapsed: start.elapsed() }
}

async fn run_diff(job: &Job, arguments: &DiffArguments) -> Result<Outcome> {
    let options =
        DiffOptions { preset: arguments.preset.into(), preserve: preserve(&arguments.preserve) };
    let DiffArguments { old, new, output, .. } = arguments;
    let report = inflight_patch::diff(job, old, new, output, options).await?;
    Ok(report::diff(&report, output))
}

async fn run_apply(job: &Job, arguments: &ApplyArguments) -> Result<Outcome> {
    let ApplyArguments { patch, old, new, no_sync } = arguments;
    let options = ApplyOptions { sync: !no_sync };
    let report = inflight_patch::apply(job, patch, old, new, options).await?;
    let line = format!(
        "{}: {} entries, {}, every file's digest compared",
        new.display(),
        HumanCount(report.entries),
        BinaryBytes(report.bytes)
    );
    let fields = json!({
        "new": new.display().to_string(),
        "entries": report.entries,
        "bytes": report.bytes,
        "patch_bytes": report.patch_bytes,
    });
    Ok(Outcome { ok: true, warnings: Vec::new(), lines: vec![line], fields })
}

async fn run_verify(job: &Job, arguments: &VerifyArguments) -> Result<Outcome> {
    let (side, name) = match arguments.old {
        true => (Side::Old, "old"),
        false => (Side::New, "new"),
    };
    let VerifyArguments { patch, tree, .. } = arguments;
    let report = inflight_patch::verify(job, patch, tree, side).await?;
    Ok(report::verify(&report, tree, name))
}

async fn run_info(job: &Job, arguments: &InfoArguments) -> Result<Outcome> {
    let info = inflight_patch::info(job, &arguments.patch, arguments.largest).await?;
    Ok(report::info(&info, &arguments.patch))
}

async fn run_copy(
    engine: &Engine,
    progress: &Arc<Progress>,
    arguments: &CopyArguments,
) -> Result<Outcome> {
    let CopyArguments { resume, verify, dry_run, sync, background, .. } = *arguments;
    let options = CopyOptions { resume, verify, dry_run, sync };
    let handle = if background { engine.background() } else { engine.handle().clone() };
    let CopyArguments { sources, target, .. } = arguments;
    let report = inflight_tools::copy(&handle, progress, sources, target, options).await?;
    Ok(report::copy(&report, target, options))
}

async fn run_warm(
    engine: &Engine,
    progress: &Arc<Progress>,
    arguments: &WarmArguments,
) -> Result<Outcome> {
    let limit = arguments.limit.unwrap_or_else(|| free_memory_bytes().map_or(u64::MAX, |b| b / 2));
    let report = inflight_tools::warm(engine, progress, &arguments.paths, limit).await?;
    if progress.is_cancelled() {
        return Err(inflight_tools::Error::Cancelled.into());
    }
    Ok(report::warm(&report, limit))
}

async fn run_device(engine: &Engine, arguments: &DeviceArguments) -> Result<Outcome> {
    let mut devices = Vec::new();
    for path in &arguments.paths {
        devices.push((path.as_path(), engine.device(path).await?));
    }
    Ok(report::devices(&devices, engine))
}

/// One line of the demo's table.
struct Step {
    name: &'static str,
    cost: Cost,
    result: String,
}

async fn run_demo(engine: &Engine, job: &Job, arguments: &DemoArguments) -> Result<Outcome> {
    let [old, new] = match (&arguments.old, &arguments.new) {
        (Some(old), Some(new)) => [old.clone(), new.clone()],
        _ => BUNDLED.map(PathBuf::from),
    };
    let place = tempfile::Builder::new().prefix("inflight-demo-").tempdir().map_err(|error| {
        let place = std::env::temp_dir();
        anyhow!("cannot work in {}: {error}; set TMPDIR to another place", place.display())
    })?;
    let (patch, built) = (place.path().join("patch"), place.path().join("new"));
    let options = DiffOptions { preset: arguments.preset.into(), ..DiffOptions::default() };
    let mut steps = Vec::new();

    let (start, before) = (Instant::now(), engine.metrics());
    let diff = inflight_patch::diff(job, &old, &new, &patch, options).await?;
    let cost = cost_since(start, before, engine);
    let result = format!(
        "{} patch ({:.2} % of new)",
        BinaryBytes(diff.patch_bytes),
        report::percent(diff.patch_bytes, diff.bytes.1)
    );
    steps.push(Step { name: "diff", cost, result });

    let (start, before) = (Instant::now(), engine.metrics());
    let applied = inflight_patch::apply(job, &patch, &old, &built, ApplyOptions::default()).await?;
    let cost = cost_since(start, before, engine);
    let result = format!("{} entries built", HumanCount(applied.entries));
    steps.push(Step { name: "apply", cost, result });

    let (start, before) = (Instant::now(), engine.metrics());
    let verified = inflight_patch::verify(job, &patch, &built, Side::New).await?;
    let cost = cost_since(start, before, engine);
    let ok = verified.differences.is_empty();
    let result = match ok {
        true => "identical".into(),
        false => format!("{} differences", verified.differences.len()),
    };
    steps.push(Step { name: "verify", cost, result });
    Ok(demo_outcome(ok, &old, &new, &steps))
}

fn demo_outcome(ok: bool, old: &Path, new: &Path, steps: &[Step]) -> Outcome {
    let mut lines = vec![
        format!("{} -> {}", tidy(old).display(), tidy(new).display()),
        String::new(),
        "step      seconds         read      written   I/O share  result".into(),
    ];
    let mut fields = json!({ "old": old.display().to_string(), "new": new.display().to_string() });
    for Step { name, cost, result } in steps {
        lines.push(format!(
            "{name:8} {:>8.3} {:>12} {:>12} {:>9.0} %  {result}",
            cost.elapsed.as_secs_f64(),
            BinaryBytes(cost.metrics.bytes_read).to_string(),
            BinaryBytes(cost.metrics.bytes_written).to_string(),
            cost.io_share() * 100.0,
        ));
        fields[*name] = json!({ "seconds": cost.elapsed.as_secs_f64(), "result": result });
    }
    lines.push(String::new());
    Outcome { ok, warnings: Vec::new(), lines, fields }
}

/// A path without the detours of where it was put together.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir if tidy.file_name().is_some() => drop(tidy.pop()),
            other => tidy.push(other),
        }
    }
    tidy
}
