//! `bench` as people use it. Nothing here depends on how fast anything is.
#![allow(clippy::disallowed_methods, reason = "looks at files from outside the engine")]

mod support;

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{
    PROGRAM, Place, directory, fifo, file, finish, inflight, link, mode, noise, run, shown,
};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_bench_tells_draws_keeps_and_leaves_nothing() {
    let place = Place::bare();
    let (bench, configuration) = (directory(place.root(), "bench"), place.path("configuration"));
    let page = place.path("page.html");
    // Somebody was killed here before.
    file(&bench, ".inflight-bench/small/7", "left over");
    let mut command = inflight();
    command.env("XDG_CONFIG_HOME", &configuration).arg("bench").arg(&bench).arg("-o").arg(&page);
    command.args(["--time", "6s", "--space", "128MiB", "--json", "--save"]);
    let ran = finish(&mut command);
    assert_eq!(fs::read_dir(&bench).expect("it is there").count(), 0, "{ran:?}");
    if ran.err.contains("no time to measure anything") {
        return;
    }
    let report = parse(&ran.out);
    let html = fs::read_to_string(&page).expect("the page");
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    assert!(html.contains("What is the fastest way to read and write at"));
    if ran.code != Some(0) {
        // Where it is too slow to measure anything, that is what it says.
        assert!(ran.err.contains("nothing is saved"), "{ran:?}");
        return;
    }
    assert_eq!((&report["command"], &report["ok"]), (&"bench".into(), &true.into()));
    let measured = report["measured"].as_array().expect("a list");
    assert!(measured.iter().all(|one| one["rate"]["median"].as_f64() > Some(0.0)));
    assert!(measured.iter().any(|one| one["work"] == "write"));
    let advice = report["advice"].as_array().expect("a list");
    for one in advice {
        let best = measured.iter().find(|measured| {
            ["work", "mode", "request_bytes", "depth", "threads"]
                .iter()
                .all(|part| measured[part] == one["setting"][part])
        });
        assert_eq!(best.expect("what is advised was measured")["rate"]["median"], one["rate"]);
        assert!(html.contains(one["what"].as_str().expect("text")), "{one}");
    }

    // Kept, it goes for this device.
    let told = |with: bool| {
        let mut command = inflight();
        let configuration = if with { configuration.clone() } else { place.path("none") };
        command.env("XDG_CONFIG_HOME", configuration).arg("device").arg(&bench).arg("--json");
        parse(&finish(&mut command).succeeded().out)["devices"][0]["settings"].clone()
    };
    for way in ["read", "write"] {
        assert_eq!(told(true)[way], report["settings"][way]);
    }
    assert_eq!((&told(true)["measured"], &told(false)["measured"]), (&true.into(), &false.into()));
    let (from, to) = (file(place.root(), "from", noise(9_000_000, 1)), place.path("to"));
    let mut command = inflight();
    command.env("XDG_CONFIG_HOME", &configuration).arg("copy").arg(&from).arg(&to);
    finish(&mut command).succeeded();
    assert!(fs::read(&from).expect("read") == fs::read(&to).expect("read"));

    compares(&place, &ran.out);
}

/// The same report again is no difference; one that is half as fast is.
fn compares(place: &Place, text: &str) {
    let mut slower = parse(text);
    for one in slower["measured"].as_array_mut().expect("a list") {
        for part in ["median", "low", "high"] {
            one["rate"][part] = (one["rate"][part].as_f64().expect("a number") / 1000.0).into();
        }
    }
    let count = slower["measured"].as_array().expect("a list").len();
    let before = file(place.root(), "before.json", text);
    let after = file(place.root(), "after.json", slower.to_string());
    let same = run(&[&"bench", &"--compare", &before, &before]).succeeded();
    assert!(
        same.out.starts_with(&format!("{count} settings in both: 0 slower, 0 faster")),
        "{same:?}"
    );
    let ran = run(&[&"bench", &"--compare", &before, &after]).succeeded();
    assert!(ran.out.starts_with(&format!("{count} settings in both: {count} slower")), "{ran:?}");
    let ran = run(&[&"bench", &"--compare", &before, &after, &"--json"]).succeeded();
    let compared = parse(&ran.out)["compared"].clone();
    assert!(compared.as_array().expect("a list").iter().all(|one| one["differs"] == true));
    let ran = run(&[&"bench", &"--compare", &before, &place.path("none")]);
    ran.refused(&shown(&place.path("none")));
    let wrong = file(place.root(), "wrong.json", "{}");
    run(&[&"bench", &"--compare", &wrong, &before]).refused("no report of inflight bench");
}

#[test]
fn a_file_is_only_read() {
    let place = Place::bare();
    let content = noise(40 << 20, 3);
    let path = file(place.root(), "file", &content);
    let ran = run(&[&"bench", &path, &"--time", &"5s", &"--json"]).succeeded();
    let report = parse(&ran.out);
    let measured = report["measured"].as_array().expect("a list");
    for one in measured {
        assert!(one["work"].as_str().expect("text").starts_with("read-"), "{one}");
        assert!(!one["mode"].as_str().expect("text").contains("map"), "{one}");
    }
    assert_eq!(report["run"]["written_bytes"], 0);
    assert!(fs::read(&path).expect("read") == content);
    assert_eq!(fs::read_dir(place.root()).expect("it is there").count(), 1);
}

/// A child that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(bench: &std::path::Path) -> Child {
    let mut command = Command::new(PROGRAM);
    command.arg("bench").arg(bench).args(["--time", "1h", "--space", "128MiB"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

#[test]
fn it_stops_when_told_and_lets_nobody_else_in() {
    let place = Place::bare();
    let bench = directory(place.root(), "bench");
    let child = start(&bench);
    let mut child = Ended(child);
    while !bench.join(".inflight-bench/read").exists() {
        assert!(child.0.try_wait().expect("it is our child").is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    run(&[&"bench", &bench]).refused("another inflight bench is at work");
    assert!(bench.join(".inflight-bench/read").exists(), "the other one's files are left alone");
    kill_process(Pid::from_child(&child.0), Signal::TERM).expect("it is our child");
    let status = child.0.wait().expect("it ends");
    let mut told = String::new();
    child.0.stderr.take().expect("piped").read_to_string(&mut told).expect("read");
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("stopped on request"), "{told}");
    assert_eq!(fs::read_dir(&bench).expect("it is there").count(), 0);
}

#[test]
fn what_cannot_be_is_said_before_anything_is_measured() {
    let place = Place::bare();
    let small = file(place.root(), "small", "too small");
    run(&[&"bench", &small]).refused("too small to tell anything");
    run(&[&"bench", &fifo(place.root(), "fifo")]).refused("is a fifo; name a directory");
    run(&[&"bench", &place.path("none")]).refused(&shown(&place.path("none")));
    let root = place.root().to_path_buf();
    run(&[&"bench", &root, &"--space", &"1MiB"]).refused("1 MiB tell nothing; give 128 MiB");
    run(&[&"bench", &root, &"--request", &"1MiB"]).refused("leave out --request");
    let file_of_noise = file(place.root(), "noise", noise(40 << 20, 1));
    run(&[&"bench", &file_of_noise, &"--save"]).refused("name a directory");
    fs::remove_file(file_of_noise).expect("removed");
    run(&[&"bench", &root, &"--space", &"1000000GiB"]).refused("give less by --space");
    let nowhere = place.path("none/page.html");
    run(&[&"bench", &root, &"-o", &nowhere]).refused(&shown(&place.path("none")));
    run(&[&"bench", &root, &"-o", &root]).refused("give the name of a file");
    for wrong in [
        &["bench", "--time", "1s"][..],
        &["bench", "--time", "soon"],
        &["bench", "--compare", "a"],
        &["bench", "here", "--compare", "a", "b"],
        &["bench", "--compare", "a", "b", "--save"],
    ] {
        let mut command = inflight();
        assert_eq!(finish(command.args(wrong)).code, Some(2), "{wrong:?}");
    }
    assert_eq!(fs::read_dir(place.root()).expect("it is there").count(), 2, "nothing is left");
    let own = file(place.root(), ".inflight-bench/small/thesis.txt", "years of work");
    run(&[&"bench", &root]).refused("small/thesis.txt, which inflight bench did not make");
    assert_eq!(fs::read_to_string(&own).expect("it is there"), "years of work");
}

#[test]
fn little_memory_is_enough() {
    let place = Place::bare();
    let bench = directory(place.root(), "bench");
    let options = ["--memory", "16MiB", "--time", "5s", "--space", "128MiB"];
    let mut command = inflight();
    finish(command.arg("bench").arg(&bench).args(options)).succeeded();
}

#[test]
fn what_is_in_the_way_is_told_and_left_alone() {
    let place = Place::bare();
    let root = place.root().to_path_buf();
    let elsewhere = file(place.root(), "elsewhere/read", "precious");
    link(place.root(), ".inflight-bench", "elsewhere");
    run(&[&"bench", &root]).refused("is no directory, and in the way: move it");
    fs::remove_file(place.path(".inflight-bench")).expect("removed");
    mode(&directory(place.root(), ".inflight-bench"), 0o777);
    run(&[&"bench", &root]).refused("may be written by others: move it");
    assert_eq!(fs::read_to_string(elsewhere).expect("it is there"), "precious");
    // A configuration that leads nowhere is said before anything is measured.
    link(place.root(), "dangling", "nowhere");
    let mut command = inflight();
    command.env("XDG_CONFIG_HOME", place.path("dangling")).args(["bench", "--save"]);
    finish(command.arg(directory(place.root(), "bench"))).refused("dangling/inflight");
}

#[test]
fn what_is_kept_and_broken_is_not_used_and_said() {
    let place = Place::bare();
    let configuration = place.path("configuration");
    file(place.root(), "configuration/inflight/devices.json", "{\"version\": 1, \"devices\": [7]}");
    let mut command = inflight();
    command.env("XDG_CONFIG_HOME", &configuration).arg("device").arg(place.root()).arg("--json");
    let ran = finish(&mut command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("devices.json does not hold what bench --save wrote"), "{ran:?}");
    assert_eq!(parse(&ran.out)["devices"][0]["settings"]["measured"], false);
}
