//! `inflight bench`: measures, prints, draws, keeps, compares.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use inflight::{Engine, FileKind, Handle, Progress};
use inflight_bench::{
    Comparison, Options, Report, Setting, compare, measure, page, summary, words,
};
use serde_json::{Value, json};

use crate::arguments::{BenchArguments, Common};
use crate::commands::stop_on_signal;
use crate::known;
use crate::progress::{Bar, Unit};
use crate::report::printable;

/// Runs it.
pub fn run(arguments: &BenchArguments, common: &Common) -> Result<bool> {
    if common.request.is_some() || common.threads.is_some() {
        return Err(anyhow!(
            "bench tries all sizes and numbers of threads: leave out --request and --threads"
        ));
    }
    let mut builder = Engine::builder();
    if let Some(memory) = common.memory {
        builder = builder.memory_bytes_max(memory);
    }
    if let Some(reports) = &arguments.compare {
        let engine = builder.build()?;
        return run_compare(&engine, reports, common);
    }
    let engine = builder.clone().workers(1).build()?;
    // Better now than when all is measured.
    engine.block_on(can_write(&engine, arguments))?;
    let progress = Arc::new(Progress::default());
    stop_on_signal(&progress)?;
    let bar = Bar::start(&progress, Unit::Time, !common.json);
    let options = Options { time: arguments.time, space: arguments.space };
    let report = measure(&builder, &progress, &arguments.path, options);
    drop(bar);
    let report = report?;
    let (mut notes, mut failures) = (Vec::new(), Vec::new());
    let mut sort = |outcome: Result<String>| match outcome {
        Ok(note) => notes.push(note),
        Err(error) => failures.push(format!("{error:#}")),
    };
    if let Some(output) = &arguments.output {
        let html = page(&report);
        let written = engine.block_on(known::replace(&engine, output, html.as_bytes()));
        sort(written.map(|()| format!("the page is {}", output.display())));
    }
    if arguments.save {
        sort(engine.block_on(save(&engine, &arguments.path, &report)));
    }
    print(&report, &notes, &failures, common)?;
    Ok(failures.is_empty())
}

/// Whether what is asked for can be written where it is to be.
async fn can_write(handle: &Handle, arguments: &BenchArguments) -> Result<()> {
    if let Some(output) = &arguments.output {
        let about = handle.metadata(output, true).await;
        if about.is_ok_and(|about| about.kind != FileKind::File) || output.file_name().is_none() {
            return Err(anyhow!("{} cannot be a page: give the name of a file", output.display()));
        }
        known::try_out(handle, output).await?;
    }
    if arguments.save {
        if handle.metadata(&arguments.path, true).await?.kind != FileKind::Directory {
            let path = arguments.path.display();
            return Err(anyhow!(
                "{path} is only read, so what to save of writing? name a directory"
            ));
        }
        known::can_save(handle).await?;
    }
    Ok(())
}

async fn save(handle: &Handle, path: &Path, report: &Report) -> Result<String> {
    let device = handle.device(path).await?;
    let kept = report.settings.ok_or_else(|| {
        anyhow!(
            "nothing is saved: there was no time to measure everything once; give more by --time"
        )
    })?;
    let place = known::save(handle, &device, kept.settings(device.settings_of_kind())).await?;
    Ok(format!("saved in {}: copies use it on this device", place.display()))
}

fn print(report: &Report, notes: &[String], failures: &[String], common: &Common) -> Result<()> {
    for warning in &report.warnings {
        eprintln!("warning: {}", printable(warning));
    }
    let mut out = std::io::stdout().lock();
    let written = if common.json {
        let mut object = serde_json::Map::new();
        object.insert("command".into(), "bench".into());
        object.insert("ok".into(), failures.is_empty().into());
        if let Value::Object(fields) = serde_json::to_value(report)? {
            object.extend(fields);
        }
        object.insert("notes".into(), json!(notes));
        if !failures.is_empty() {
            object.insert("error".into(), failures.join("; ").into());
        }
        writeln!(out, "{}", Value::Object(object))
    } else {
        let lines = summary(report);
        let mut lines = lines.iter().chain(notes);
        lines.try_for_each(|line| writeln!(out, "{}", printable(line)))
    };
    for failure in failures {
        eprintln!("inflight: {}", printable(failure));
    }
    written
        .and_then(|()| out.flush())
        .context("it is measured, but standard output cannot be written")
}

fn run_compare(engine: &Engine, reports: &[PathBuf], common: &Common) -> Result<bool> {
    let read = |path: &Path| -> Result<Report> {
        let mut load = engine.load(path);
        let bytes = engine.block_on(load.ready())?;
        let name = path.display().to_string();
        Ok(Report::read(&String::from_utf8_lossy(bytes), &name)?)
    };
    let (before, after) = (read(&reports[0])?, read(&reports[1])?);
    let all = compare(&before, &after);
    if all.is_empty() {
        return Err(anyhow!("the two reports have no setting in common"));
    }
    let mut lines = Vec::new();
    if common.json {
        lines.push(json!({ "command": "bench", "ok": true, "compared": all }).to_string());
    } else {
        if (&before.place.source, &before.place.path) != (&after.place.source, &after.place.path) {
            let of = |report: &Report| format!("{} ({})", report.place.path, report.place.source);
            lines.push(printable(&format!("{} against {}", of(&before), of(&after))));
        }
        lines.extend(comparison_lines(&all));
    }
    let mut out = std::io::stdout().lock();
    let written =
        lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    written.context("they are compared, but standard output cannot be written")?;
    Ok(true)
}

fn comparison_lines(all: &[Comparison]) -> Vec<String> {
    let (changed, same): (Vec<&Comparison>, Vec<&Comparison>) =
        all.iter().partition(|one| one.differs);
    let mut lines = vec![format!(
        "{} settings in both: {} slower, {} faster, {} the same, as far as the samples tell",
        all.len(),
        changed.iter().filter(|one| one.ratio < 1.0).count(),
        changed.iter().filter(|one| one.ratio > 1.0).count(),
        same.len(),
    )];
    for one in changed {
        let Setting { work, mode, request_bytes, depth, threads } = one.setting;
        let figure = |rate: f64| match work.counts_operations() {
            true => format!("{}/s", words::count(rate)),
            false => words::throughput(rate),
        };
        let size = if request_bytes > 0 { words::bytes(request_bytes) } else { String::new() };
        let threads = if threads > 1 { format!(", {threads} threads") } else { String::new() };
        lines.push(format!(
            "{:>5.2}  {:>11} -> {:<11}  {}: {}, {size} × {depth}{threads}",
            one.ratio,
            figure(one.before.median),
            figure(one.after.median),
            work.title(),
            mode.name(),
        ));
    }
    lines
}
