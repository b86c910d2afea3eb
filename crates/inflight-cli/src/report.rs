//! What a command tells when it is done: lines for people, or one object for programs.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{BinaryBytes, HumanCount};
use inflight::{Device, DeviceLimits, Engine, Metrics, TransferSettings};
use inflight_patch::{DiffReport, PatchInfo, TreeInfo, VerifyReport};
use inflight_tools::{CopyOptions, CopyReport, Stopped, WarmReport};
use serde_json::{Map, Value, json};

/// What went through the engine, and how long it took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub metrics: Metrics,
    pub elapsed: Duration,
}

impl Cost {
    /// The share of the I/O limit: how much of the time a read or write was in flight. At 1 the
    /// job went as fast as its I/O.
    pub fn io_share(&self) -> f64 {
        (self.metrics.busy.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)).min(1.0)
    }

    /// The last line for people.
    pub fn line(&self, engine: &Engine) -> String {
        format!(
            "read {}, wrote {} in {:.2} s; I/O in flight {:.0} % of the time ({})",
            BinaryBytes(self.metrics.bytes_read),
            BinaryBytes(self.metrics.bytes_written),
            self.elapsed.as_secs_f64(),
            self.io_share() * 100.0,
            engine.driver().name(),
        )
    }

    fn json(&self, engine: &Engine) -> Value {
        json!({
            "bytes_read": self.metrics.bytes_read,
            "bytes_written": self.metrics.bytes_written,
            "operations": self.metrics.operations,
            "seconds": self.elapsed.as_secs_f64(),
            "io_share": self.io_share(),
            "driver": engine.driver().name(),
        })
    }
}

/// A command's outcome, in both forms.
#[derive(Debug)]
pub struct Outcome {
    /// Whether the answer is yes: nothing failed, nothing differs.
    pub ok: bool,
    /// For standard error.
    pub warnings: Vec<String>,
    pub lines: Vec<String>,
    pub fields: Value,
}

impl Outcome {
    /// Prints it on standard output.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(self, command: &str, json: bool, cost: &Cost, engine: &Engine) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !json {
            for warning in &self.warnings {
                eprintln!("warning: {}", printable(warning));
            }
            for line in &self.lines {
                writeln!(out, "{}", printable(line))?;
            }
            writeln!(out, "{}", cost.line(engine))?;
            return out.flush();
        }
        let mut object = Map::new();
        object.insert("command".into(), command.into());
        object.insert("ok".into(), self.ok.into());
        if let Value::Object(fields) = self.fields {
            object.extend(fields);
        }
        object.insert("io".into(), cost.json(engine));
        writeln!(out, "{}", Value::Object(object))?;
        out.flush()
    }
}

/// Names come from trees and patches that others made: what would command a terminal is spelled
/// out.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_control() {
            true => out.extend(char.escape_default()),
            false => out.push(char),
        }
    }
    out
}

/// Prints a failure as an object on standard output.
pub fn print_json_error(command: &str, error: &str) {
    let object = json!({ "command": command, "ok": false, "error": error });
    // Where that cannot be written either, the exit status still tells.
    let _ = writeln!(io::stdout(), "{object}");
}

pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

pub fn diff(report: &DiffReport, patch: &Path) -> Outcome {
    let (old, new) = report.bytes;
    let mut lines = Vec::new();
    lines.push(format!(
        "{}: {} for {} of new data ({:.2} %)",
        patch.display(),
        BinaryBytes(report.patch_bytes),
        BinaryBytes(new),
        percent(report.patch_bytes, new),
    ));
    lines.push(format!(
        "{} entries; {} copied from old, {} new before compression",
        HumanCount(report.entries.1),
        BinaryBytes(report.copied_bytes),
        BinaryBytes(report.literal_bytes),
    ));
    if report.better_memory_bytes > 0 {
        lines.push(format!(
            "memory was short for {}: --memory {}MiB makes a smaller patch",
            match report.chunk_bytes {
                ..=1024 => "a part of the search".into(),
                coarser => format!("chunks finer than {}", BinaryBytes(coarser)),
            },
            report.better_memory_bytes.div_ceil(1 << 20),
        ));
    }
    let fields = json!({
        "patch": patch.display().to_string(),
        "patch_bytes": report.patch_bytes,
        "old_bytes": old,
        "new_bytes": new,
        "old_entries": report.entries.0,
        "new_entries": report.entries.1,
        "copied_bytes": report.copied_bytes,
        "literal_bytes": report.literal_bytes,
        "chunk_bytes": report.chunk_bytes,
        "better_memory_bytes": report.better_memory_bytes,
        "warnings": report.warnings,
    });
    Outcome { ok: true, warnings: report.warnings.clone(), lines, fields }
}

pub fn verify(report: &VerifyReport, tree: &Path, side: &str) -> Outcome {
    let ok = report.differences.is_empty();
    let shown = |path: &Path| match path.as_os_str().is_empty() {
        true => tree.display().to_string(),
        false => path.display().to_string(),
    };
    let mut lines: Vec<String> = report
        .differences
        .iter()
        .map(|difference| format!("{}: {}", shown(&difference.path), difference.what))
        .collect();
    lines.push(match ok {
        true => format!(
            "{} is the {side} tree: {} entries, {}",
            tree.display(),
            HumanCount(report.entries),
            BinaryBytes(report.bytes)
        ),
        false => format!(
            "{} is not the {side} tree: {} differences",
            tree.display(),
            HumanCount(report.differences.len() as u64)
        ),
    });
    let differences: Vec<Value> = report
        .differences
        .iter()
        .map(|d| json!({ "path": d.path.display().to_string(), "what": d.what }))
        .collect();
    let fields = json!({
        "tree": tree.display().to_string(),
        "side": side,
        "entries": report.entries,
        "bytes": report.bytes,
        "differences": differences,
    });
    Outcome { ok, warnings: Vec::new(), lines, fields }
}

fn tree_line(name: &str, tree: &TreeInfo) -> String {
    format!(
        "{name}: {} in {} files, {} directories, {} symbolic and {} hard links",
        BinaryBytes(tree.bytes),
        HumanCount(tree.files),
        HumanCount(tree.directories),
        HumanCount(tree.symlinks),
        HumanCount(tree.hard_links),
    )
}

fn tree_json(tree: &TreeInfo) -> Value {
    json!({
        "bytes": tree.bytes,
        "files": tree.files,
        "directories": tree.directories,
        "symlinks": tree.symlinks,
        "hard_links": tree.hard_links,
    })
}

pub fn info(info: &PatchInfo, patch: &Path) -> Outcome {
    let preserved = match info.preserve.names() {
        names if names.is_empty() => "contents, names, kinds, permissions".to_string(),
        names => format!("contents, names, kinds, permissions, {}", names.join(", ")),
    };
    let mut lines = vec![
        format!("{}: format {}, {}", patch.display(), info.version, BinaryBytes(info.patch_bytes)),
        tree_line("old", &info.old),
        tree_line("new", &info.new),
        format!("keeps {preserved}"),
        format!(
            "{} instructions: {} copied, {} literal, {} runs",
            HumanCount(info.instructions),
            BinaryBytes(info.copied_bytes),
            BinaryBytes(info.literal_bytes),
            BinaryBytes(info.run_bytes),
        ),
    ];
    for (kind, (count, stored, raw)) in &info.blocks {
        lines.push(format!(
            "  {:14} {:>7} blocks  {:>12} stored  {:>12} decoded",
            kind.name(),
            HumanCount(*count),
            BinaryBytes(*stored).to_string(),
            BinaryBytes(*raw).to_string(),
        ));
    }
    if !info.largest.is_empty() {
        lines.push("files that take most of it (before compression):".into());
    }
    for entry in &info.largest {
        let path = match entry.path.as_os_str().is_empty() {
            true => "(the file itself)".into(),
            false => entry.path.display().to_string(),
        };
        lines.push(format!(
            "  {:>12} of {:>12}  {path}",
            BinaryBytes(entry.literal_bytes).to_string(),
            BinaryBytes(entry.bytes).to_string(),
        ));
    }
    let blocks: Map<String, Value> = info
        .blocks
        .iter()
        .map(|(kind, (count, stored, raw))| {
            let sums = json!({ "count": count, "stored_bytes": stored, "raw_bytes": raw });
            (kind.name().replace(' ', "_"), sums)
        })
        .collect();
    let largest: Vec<Value> = info
        .largest
        .iter()
        .map(|entry| {
            json!({
                "path": entry.path.display().to_string(),
                "bytes": entry.bytes,
                "literal_bytes": entry.literal_bytes,
            })
        })
        .collect();
    let fields = json!({
        "patch": patch.display().to_string(),
        "format_version": info.version,
        "patch_bytes": info.patch_bytes,
        "old": tree_json(&info.old),
        "new": tree_json(&info.new),
        "preserve": info.preserve.names(),
        "instructions": info.instructions,
        "copied_bytes": info.copied_bytes,
        "literal_bytes": info.literal_bytes,
        "run_bytes": info.run_bytes,
        "blocks": blocks,
        "largest": largest,
    });
    Outcome { ok: true, warnings: Vec::new(), lines, fields }
}

/// So many of something.
fn count(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{} {many}", HumanCount(number)),
    }
}

/// What a copy did.
pub fn copy(report: &CopyReport, target: &Path, options: CopyOptions) -> Outcome {
    let done = if options.dry_run { "would copy" } else { "copied" };
    let things: Vec<String> = [
        (report.files, "file", "files"),
        (report.directories, "directory", "directories"),
        (report.symlinks, "symbolic link", "symbolic links"),
        (report.hard_links, "hard link", "hard links"),
        (report.nodes, "special file", "special files"),
    ]
    .into_iter()
    .filter(|(number, ..)| *number > 0)
    .map(|(number, one, many)| count(number, one, many))
    .collect();
    let things = if things.is_empty() { "nothing".into() } else { things.join(", ") };
    let mut lines =
        vec![format!("{}: {done} {things}; {}", target.display(), BinaryBytes(report.bytes))];
    let ways: Vec<String> = [
        (report.cloned_bytes, "shared with the source (reflink)"),
        (report.kernel_bytes, "copied by the file server"),
        (report.direct_bytes, "read around the page cache"),
        (report.hole_bytes, "left as holes"),
    ]
    .into_iter()
    .filter(|(bytes, _)| *bytes > 0)
    .map(|(bytes, how)| format!("{} {how}", BinaryBytes(bytes)))
    .collect();
    if !ways.is_empty() {
        lines.push(format!("of these {}", ways.join(", ")));
    }
    if report.unchanged > 0 {
        lines.push(format!(
            "{}, {}, there already",
            count(report.unchanged, "file or link", "files and links"),
            BinaryBytes(report.unchanged_bytes)
        ));
    }
    if report.compared_bytes > 0 {
        lines.push(format!("{} compared with the source", BinaryBytes(report.compared_bytes)));
    }
    lines.extend(copy_troubles(report));
    let fields = json!({
        "target": target.display().to_string(),
        "dry_run": options.dry_run,
        "files": report.files,
        "directories": report.directories,
        "symlinks": report.symlinks,
        "hard_links": report.hard_links,
        "special_files": report.nodes,
        "bytes": report.bytes,
        "hole_bytes": report.hole_bytes,
        "reflinked_bytes": report.cloned_bytes,
        "server_copied_bytes": report.kernel_bytes,
        "direct_bytes": report.direct_bytes,
        "unchanged": report.unchanged,
        "unchanged_bytes": report.unchanged_bytes,
        "compared_bytes": report.compared_bytes,
        "errors": report.troubles.iter().map(|trouble| trouble.text.as_str()).collect::<Vec<_>>(),
        "error_count": report.trouble_count,
        "stopped": stopped(report),
        "kept": report.kept.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "warnings": report.warnings,
    });
    Outcome { ok: report.is_whole(), warnings: report.warnings.clone(), lines, fields }
}

fn stopped(report: &CopyReport) -> Option<String> {
    report.stopped.as_ref().map(|stopped| match stopped {
        Stopped::OnRequest => "on request".into(),
        Stopped::TargetFull(error) => error.clone(),
    })
}

/// What went wrong, at the end, where it is seen.
fn copy_troubles(report: &CopyReport) -> Vec<String> {
    let mut lines: Vec<String> =
        report.troubles.iter().map(|trouble| format!("error: {}", trouble.text)).collect();
    let unlisted = report.trouble_count - report.troubles.len() as u64;
    if unlisted > 0 {
        lines.push(format!("and {} more", count(unlisted, "error", "errors")));
    }
    if report.trouble_count > 0 {
        lines.push(format!(
            "{}; all else is done, and --resume tries again what is not",
            count(report.trouble_count, "error", "errors")
        ));
    }
    if let Some(why) = stopped(report) {
        lines.push(format!("stopped {why}"));
    }
    for place in &report.kept {
        lines.push(format!(
            "what is done is kept in {}: go on by --resume, or remove that",
            place.display()
        ));
    }
    lines
}

/// What warming did.
pub fn warm(report: &WarmReport, limit: u64) -> Outcome {
    let mut lines = vec![format!(
        "{} in {}: {} ({:.0} %) in the page cache before, {} read",
        BinaryBytes(report.bytes),
        count(report.files, "file", "files"),
        BinaryBytes(report.cached_bytes),
        percent(report.cached_bytes, report.bytes),
        BinaryBytes(report.read_bytes),
    )];
    if report.left_bytes > 0 {
        lines.push(format!(
            "{} left out, as they go beyond the limit of {}: allow more by --limit",
            BinaryBytes(report.left_bytes),
            BinaryBytes(limit),
        ));
    }
    lines.extend(report.troubles.iter().map(|trouble| format!("error: {}", trouble.text)));
    if report.trouble_count > 0 {
        lines.push(count(report.trouble_count, "error", "errors"));
    }
    let fields = json!({
        "files": report.files,
        "bytes": report.bytes,
        "cached_bytes": report.cached_bytes,
        "read_bytes": report.read_bytes,
        "left_bytes": report.left_bytes,
        "limit_bytes": limit,
        "errors": report.troubles.iter().map(|trouble| trouble.text.as_str()).collect::<Vec<_>>(),
        "error_count": report.trouble_count,
    });
    Outcome { ok: report.trouble_count == 0, warnings: Vec::new(), lines, fields }
}

/// What some paths are on.
pub fn devices(devices: &[(&Path, Device)], engine: &Engine) -> Outcome {
    let (driver, reason) = (engine.driver().name(), engine.driver_reason());
    let mut lines = Vec::new();
    for (path, device) in devices {
        lines.extend(device_lines(path, device));
        lines.push(String::new());
    }
    lines.push(format!("driver    {driver}: {reason}"));
    let found: Vec<Value> =
        devices.iter().map(|(path, device)| device_json(path, device)).collect();
    let fields = json!({ "devices": found, "driver_reason": reason });
    Outcome { ok: true, warnings: Vec::new(), lines, fields }
}

fn device_lines(path: &Path, device: &Device) -> Vec<String> {
    let mut lines = vec![path.display().to_string()];
    if !device.file_system.is_empty() {
        let Device { file_system, source, mounted_at, .. } = device;
        lines
            .push(format!("on        {file_system}, {source} mounted at {}", mounted_at.display()));
    }
    if !device.layers.is_empty() {
        lines.push(format!("through   {}", device.layers.join(", ")));
    }
    lines.push(format!("kind      {}: {}", device.kind, device.found_by));
    let limits = &device.limits;
    if limits.queue_depth > 0 {
        lines.push(format!(
            "limits    blocks of {} (written in {}), requests of {}, {} queued",
            BinaryBytes(limits.logical_block_bytes),
            BinaryBytes(limits.physical_block_bytes),
            BinaryBytes(limits.request_bytes_max),
            limits.queue_depth,
        ));
    }
    let settings = device.settings();
    let transfer = |settings: TransferSettings| {
        format!(
            "{} at a time, {} under way, {} the page cache",
            BinaryBytes(settings.request_bytes as u64),
            settings.depth,
            if settings.direct { "around" } else { "through" },
        )
    };
    lines.push(format!("reads     {}", transfer(settings.read)));
    lines.push(format!("writes    {}", transfer(settings.write)));
    lines.push(format!("files     {} large ones at once", settings.streams));
    lines.push(match device.measured {
        Some(_) => "settings  measured here, and saved".into(),
        None => "settings  those for its kind; inflight bench --save measures what is best".into(),
    });
    lines
}

fn device_json(path: &Path, device: &Device) -> Value {
    let settings = device.settings();
    json!({
        "path": path.display().to_string(),
        "kind": device.kind.name(),
        "found_by": device.found_by,
        "file_system": device.file_system,
        "mounted_at": device.mounted_at.display().to_string(),
        "source": device.source,
        "layers": device.layers,
        "limits": limits_json(&device.limits),
        "settings": {
            "read": transfer_json(settings.read),
            "write": transfer_json(settings.write),
            "streams": settings.streams,
            "measured": device.measured.is_some(),
        },
    })
}

/// As `device` tells and `bench --save` keeps them.
pub fn limits_json(limits: &DeviceLimits) -> Value {
    json!({
        "logical_block_bytes": limits.logical_block_bytes,
        "physical_block_bytes": limits.physical_block_bytes,
        "request_bytes_max": limits.request_bytes_max,
        "request_bytes_best": limits.request_bytes_best,
        "queue_depth": limits.queue_depth,
    })
}

/// The same.
pub fn transfer_json(settings: TransferSettings) -> Value {
    json!({
        "request_bytes": settings.request_bytes,
        "depth": settings.depth,
        "direct": settings.direct,
    })
}
