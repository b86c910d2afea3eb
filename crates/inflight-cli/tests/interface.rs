//! What people and programs get to see: help, scripts, figures, JSON and exit status.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at the file system from outside the engine"
)]

mod support;

use std::ffi::OsStr;
use std::fs;

use serde_json::Value;
use support::{Place, Ran, directory, fifo, file, finish, inflight, noise, run, shown};

const COMMANDS: [&str; 11] = [
    "diff",
    "apply",
    "verify",
    "info",
    "demo",
    "copy",
    "warm",
    "device",
    "bench",
    "completions",
    "man",
];

/// Two small trees with something to copy and something new, and their patch.
fn place_with_patch() -> Place {
    let place = Place::with_trees();
    let content = noise(5000, 1);
    file(&place.old, "a", &content);
    file(&place.new, "a", &content);
    file(&place.new, "sub/b", noise(100, 2));
    place.diff(&[]).succeeded();
    place
}

#[test]
fn help_lists_every_command_and_shows_examples_of_each() {
    let overview = run(&[&"--help"]).succeeded();
    for command in COMMANDS {
        assert!(overview.out.contains(&format!("\n  {command} ")), "{overview:?}");
        for option in ["--help", "-h"] {
            let help = run(&[&command, &option]).succeeded();
            let example = format!("  inflight {command}");
            assert!(help.out.contains("Example"), "{help:?}");
            assert!(help.out.lines().any(|line| line.starts_with(&example)), "{help:?}");
        }
    }
    assert!(overview.out.contains("Exit status"), "{overview:?}");
    assert!(overview.out.contains("INFLIGHT_DRIVER"), "{overview:?}");
}

#[test]
fn the_version_is_that_of_the_package() {
    let ran = run(&[&"--version"]).succeeded();
    assert_eq!(ran.out, format!("inflight {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_every_command() {
    for (shell, start) in
        [("bash", "_inflight() {"), ("zsh", "#compdef inflight"), ("fish", "# Print an optspec")]
    {
        let ran = run(&[&"completions", &shell]).succeeded();
        assert!(ran.out.starts_with(start), "{shell}: {ran:?}");
        for command in COMMANDS {
            assert!(ran.out.contains(command), "{shell}: no {command} in {ran:?}");
        }
        assert!(ran.out.contains("preserve"), "{shell}: {ran:?}");
    }
}

#[test]
fn the_man_page_has_a_section_for_every_command() {
    let ran = run(&[&"man"]).succeeded();
    assert!(ran.out.contains(".TH inflight 1 "), "{ran:?}");
    for command in COMMANDS {
        let section = format!(".SH \"INFLIGHT {}\"", command.to_uppercase());
        assert!(ran.out.lines().any(|line| line == section), "no {section} in {ran:?}");
    }
}

/// The last line says what went through the engine, and standard error stays empty, as nobody
/// looks at a bar there.
#[track_caller]
fn ends_with_figures(ran: &Ran) {
    assert_eq!(ran.err, "", "{ran:?}");
    assert!(!ran.out.contains(['\r', '\x1b']), "{ran:?}");
    let last = ran.out.lines().last().expect("there is a last line");
    let rest = last.strip_prefix("read ").unwrap_or_else(|| panic!("{last}"));
    let (_, rest) = rest.split_once(", wrote ").unwrap_or_else(|| panic!("{last}"));
    let (_, rest) = rest.split_once(" in ").unwrap_or_else(|| panic!("{last}"));
    let (seconds, rest) = rest.split_once(" s; I/O in flight ").unwrap_or_else(|| panic!("{last}"));
    assert!(seconds.parse::<f64>().is_ok(), "{last}");
    let (share, rest) = rest.split_once(" % of the time (").unwrap_or_else(|| panic!("{last}"));
    assert!(share.parse::<u8>().is_ok_and(|share| share <= 100), "{last}");
    assert!(["uring)", "threads)"].contains(&rest), "{last}");
}

#[test]
fn every_job_ends_with_its_figures_and_draws_no_bar_outside_a_terminal() {
    let place = place_with_patch();
    ends_with_figures(&place.diff(&[]).succeeded());
    ends_with_figures(&place.apply(&[]).succeeded());
    ends_with_figures(&place.verify(&place.built, &[]).succeeded());
    ends_with_figures(&place.verify(&place.old, &[]).differed());
    ends_with_figures(&run(&[&"info", &place.patch]).succeeded());
    ends_with_figures(&run(&[&"demo", &place.old, &place.new]).succeeded());
}

/// The one object on standard output.
#[track_caller]
fn object(ran: &Ran) -> Value {
    assert_eq!(ran.out.lines().count(), 1, "{ran:?}");
    let value: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    assert!(value.is_object(), "{ran:?}");
    value
}

/// Runs a job with `--json`; checks what all of them print, and that it has these keys on top.
#[track_caller]
fn json(arguments: &[&dyn AsRef<OsStr>], code: i32, keys: &[&str]) -> Value {
    let ran = finish(inflight().args(arguments).arg("--json"));
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.err, "", "{ran:?}");
    let value = object(&ran);
    let command = arguments[0].as_ref().to_str().expect("a command");
    assert_eq!(value["command"], command, "{ran:?}");
    assert_eq!(value["ok"], code == 0, "{ran:?}");
    for key in keys {
        assert!(!value[*key].is_null(), "no {key} in {ran:?}");
    }
    for key in ["bytes_read", "bytes_written", "operations"] {
        assert!(value["io"][key].is_u64(), "no {key} in {ran:?}");
    }
    for key in ["seconds", "io_share"] {
        assert!(value["io"][key].is_f64(), "no {key} in {ran:?}");
    }
    assert!(value["io"]["driver"].is_string(), "{ran:?}");
    value
}

#[test]
fn diff_and_apply_print_one_object() {
    let place = place_with_patch();
    let keys = ["patch", "old_entries", "copied_bytes", "literal_bytes", "chunk_bytes", "warnings"];
    let value = json(&[&"diff", &place.old, &place.new, &"-o", &place.patch], 0, &keys);
    assert_eq!(value["patch_bytes"], place.patch_bytes());
    assert_eq!(value["old_bytes"], 5000);
    assert_eq!(value["new_bytes"], 5100);
    assert_eq!(value["copied_bytes"], 5000);
    assert_eq!(value["literal_bytes"], 100);
    assert_eq!(value["new_entries"], 4);
    let value = json(&[&"apply", &place.patch, &place.old, &place.built], 0, &["new"]);
    assert_eq!(value["entries"], 4);
    assert_eq!(value["bytes"], 5100);
    assert_eq!(value["patch_bytes"], place.patch_bytes());
}

#[test]
fn verify_prints_one_object_whatever_it_finds() {
    let place = place_with_patch();
    let keys = ["tree", "side", "entries", "bytes", "differences"];
    let value = json(&[&"verify", &place.patch, &place.new], 0, &keys);
    assert_eq!(value["differences"], Value::Array(Vec::new()));
    assert_eq!(value["side"], "new");
    let value = json(&[&"verify", &place.patch, &place.new, &"--old"], 1, &keys);
    assert_eq!(value["side"], "old");
    assert_eq!(value["differences"].as_array().expect("a list").len(), 2);
    assert_eq!(value["differences"][0]["path"], "sub");
    assert_eq!(value["differences"][1]["path"], "sub/b");
    assert_eq!(value["differences"][1]["what"], "the file should not be there");
}

#[test]
fn info_prints_one_object_with_what_is_in_the_patch() {
    let place = place_with_patch();
    let keys = ["patch", "preserve", "instructions", "run_bytes", "blocks"];
    let value = json(&[&"info", &place.patch], 0, &keys);
    assert_eq!(value["format_version"], 4);
    assert_eq!(value["patch_bytes"], place.patch_bytes());
    assert_eq!(value["old"]["bytes"], 5000);
    assert_eq!(value["new"]["files"], 2);
    assert_eq!(value["new"]["directories"], 2);
    assert_eq!(value["copied_bytes"], 5000);
    assert_eq!(value["literal_bytes"], 100);
    assert_eq!(value["largest"].as_array().expect("a list").len(), 1);
    assert_eq!(value["largest"][0]["path"], "sub/b");
    for block in ["stages", "new_manifest", "old_manifest", "instructions", "literals"] {
        assert_eq!(value["blocks"][block]["count"], 1, "{block} in {value}");
    }
    let value = json(&[&"info", &place.patch, &"--largest", &"0"], 0, &[]);
    assert_eq!(value["largest"], Value::Array(Vec::new()));
}

#[test]
fn failures_print_one_object_too() {
    let place = place_with_patch();
    let text = file(place.root(), "text", "no patch");
    let none = place.path("none");
    let failing: [&[&dyn AsRef<OsStr>]; 6] = [
        &[&"diff", &place.old, &place.old, &"-o", &none],
        &[&"diff", &place.old, &place.new, &"-o", &none, &"--memory", &"1MiB"],
        &[&"apply", &place.patch, &place.old, &place.new],
        &[&"verify", &place.patch, &none],
        &[&"info", &text],
        &[&"demo", &place.old, &none],
    ];
    for arguments in failing {
        let ran = finish(inflight().args(arguments).arg("--json")).refused("");
        let value = object(&ran);
        let command = arguments[0].as_ref().to_str().expect("a command");
        assert_eq!(value["command"], command, "{ran:?}");
        assert_eq!(value["ok"], false, "{ran:?}");
        let error = value["error"].as_str().expect("a sentence");
        assert_eq!(ran.err, format!("inflight: {error}\n"));
    }
}

#[test]
fn wrong_usage_has_a_status_of_its_own() {
    let place = place_with_patch();
    let (old, new, patch) = (&place.old, &place.new, &place.patch);
    let wrong: [&[&dyn AsRef<OsStr>]; 14] = [
        &[],
        &[&"frobnicate"],
        &[&"--frobnicate"],
        &[&"diff", old, new],
        &[&"diff", old, &"-o", patch],
        &[&"apply", patch, old],
        &[&"apply", patch, old, &""],
        &[&"info", patch, patch],
        &[&"diff", old, new, &"-o", patch, &"--preset", &"best"],
        &[&"diff", old, new, &"-o", patch, &"--preserve", &"acls"],
        &[&"info", patch, &"--threads", &"0"],
        &[&"info", patch, &"--threads", &"many"],
        &[&"demo", old],
        &[&"completions", &"noshell"],
    ];
    for arguments in wrong {
        place.unchanged_by(|| {
            let ran = run(arguments);
            assert_eq!(ran.code, Some(2), "{ran:?}");
            assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
        });
    }
}

#[test]
fn sizes_that_are_none_are_wrong_usage() {
    let place = place_with_patch();
    for size in ["", "0", "5x", "GiB", "1e9", "1.2.3G", "99999999999GiB", "512 M B"] {
        let ran = run(&[&"info", &place.patch, &"--memory", &size]);
        assert_eq!(ran.code, Some(2), "{size:?}: {ran:?}");
        assert!(ran.err.contains(&format!("{size:?} is no size")), "{size:?}: {ran:?}");
    }
    for size in ["512MiB", "1GiB", "1.5G", "600m", "1073741824"] {
        run(&[&"info", &place.patch, &"--memory", &size]).succeeded();
    }
}

#[test]
fn an_unknown_driver_is_refused_by_name() {
    let place = place_with_patch();
    let mut command = inflight();
    command.env("INFLIGHT_DRIVER", "telepathy").arg("info").arg(&place.patch);
    finish(&mut command).refused("\"telepathy\"");
}

#[test]
fn verbose_tells_what_an_error_was_caused_by() {
    let place = Place::bare();
    let ran = run(&[&"info", &place.patch, &"--verbose"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "an error is not its own cause: {ran:?}");
    assert!(lines[1].starts_with("  caused by: No such file or directory"), "{ran:?}");
}

#[test]
fn the_demo_does_the_whole_job_and_cleans_up() {
    let place = Place::bare();
    let temporary = directory(place.root(), "temporary");
    let mut command = inflight();
    let ran = finish(command.env("TMPDIR", &temporary).arg("demo")).succeeded();
    for step in ["diff ", "apply ", "verify "] {
        assert!(ran.out.lines().any(|line| line.starts_with(step)), "{ran:?}");
    }
    assert!(ran.out.lines().any(|line| line.ends_with("  identical")), "{ran:?}");
    assert_eq!(fs::read_dir(&temporary).expect("it is there").count(), 0);

    let value = json(&[&"demo"], 0, &["old", "new", "diff", "apply"]);
    assert_eq!(value["verify"]["result"], "identical");
    for step in ["diff", "apply", "verify"] {
        assert!(value[step]["seconds"].is_f64(), "{value}");
    }
}

#[test]
fn a_demo_that_fails_cleans_up_too() {
    let place = place_with_patch();
    let temporary = directory(place.root(), "temporary");
    let none = place.path("none");
    let mut command = inflight();
    command.env("TMPDIR", &temporary).arg("demo").arg(&place.old).arg(&none);
    finish(&mut command).refused(&shown(&none));
    assert_eq!(fs::read_dir(&temporary).expect("it is there").count(), 0);
}

#[test]
fn a_device_is_told_with_how_it_was_found() {
    let place = Place::with_trees();
    let told = run(&[&"device", &place.old, &"/proc"]).succeeded();
    for part in ["kind      ", "reads     ", "writes    ", "driver    ", "on        proc"] {
        assert!(told.out.contains(part), "no {part:?} in {told:?}");
    }
    let told = run(&[&"device", &place.old, &"--json"]).succeeded();
    let object: Value = serde_json::from_str(&told.out).unwrap();
    let device = &object["devices"][0];
    let kinds = ["memory", "solid", "virtual", "network", "rotational", "unknown"];
    assert!(kinds.contains(&device["kind"].as_str().unwrap()), "{device}");
    assert!(!device["found_by"].as_str().unwrap().is_empty());
    for way in ["read", "write"] {
        assert!(device["settings"][way]["request_bytes"].as_u64().unwrap() >= 4096);
    }
    assert!(!object["driver_reason"].as_str().unwrap().is_empty());
    // Nobody writes into it, and nobody is waited for.
    run(&[&"device", &fifo(place.root(), "fifo")]).succeeded();
    let failed = run(&[&"device", &place.old.join("nothing")]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.contains("nothing: No such file"), "{failed:?}");
}
