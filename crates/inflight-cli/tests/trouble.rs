//! Trouble on the way, a full disk or Ctrl-C: the command says what happened and cleans up.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at the file system from outside the engine"
)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{PROGRAM, Place, file, left_over, noise, run, shown, sparse};

const MIB: usize = 1 << 20;

/// A disk of 2 MiB, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with a note, where none can be mounted.
    fn mount(place: &Place) -> Option<SmallDisk> {
        let path = place.path("disk");
        fs::create_dir(&path).expect("a place to mount at");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "inflight-test"]).arg(&path);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(path));
        }
        eprintln!("skipped: this user cannot mount a small disk");
        None
    }

    /// The names on it.
    fn names(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).expect("it is mounted");
        entries.map(|entry| entry.expect("an entry").file_name().into()).collect()
    }

    /// These arguments are refused for want of space, and nothing but `names` is on the disk.
    #[track_caller]
    fn is_too_small(&self, arguments: &[&dyn AsRef<OsStr>], names: &[&str]) {
        let ran = run(arguments).refused(&shown(&self.0));
        assert!(ran.err.contains("free some space or choose another disk"), "{ran:?}");
        assert_eq!(self.names(), names.iter().map(PathBuf::from).collect::<Vec<_>>());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nothing can be done about a disk that stays.
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_patch_that_does_not_fit_on_the_disk_leaves_no_trace() {
    let place = Place::with_trees();
    let Some(disk) = SmallDisk::mount(&place) else { return };
    file(&place.new, "small", "x");
    let patch = disk.0.join("patch");
    run(&[&"diff", &place.old, &place.new, &"-o", &patch]).succeeded();
    let before = fs::read(&patch).expect("there is a patch");
    file(&place.new, "large", noise(8 * MIB, 1));
    let output = disk.0.join("output");
    disk.is_too_small(&[&"diff", &place.old, &place.new, &"-o", &output], &["patch"]);
    disk.is_too_small(&[&"diff", &place.old, &place.new, &"-o", &patch], &["patch"]);
    assert!(fs::read(&patch).expect("there still is a patch") == before);
}

#[test]
fn a_tree_that_does_not_fit_on_the_disk_leaves_no_trace() {
    let place = Place::with_trees();
    let Some(disk) = SmallDisk::mount(&place) else { return };
    let built = disk.0.join("built");
    let apply: [&dyn AsRef<OsStr>; 4] = [&"apply", &place.patch, &place.old, &built];

    for number in 0..100u64 {
        file(&place.new, format!("many/{number}"), noise(50_000, number));
    }
    place.diff(&[]).succeeded();
    disk.is_too_small(&apply, &[]);

    file(&place.new, "large", noise(8 * MIB, 1));
    place.diff(&[]).succeeded();
    disk.is_too_small(&apply, &[]);

    let (mib, data) = (MIB as u64, noise(3 * MIB, 2));
    fs::remove_dir_all(place.new.join("many")).expect("it is there");
    fs::remove_file(place.new.join("large")).expect("it is there");
    sparse(&place.new, "sparse", 64 * mib, &[(mib, &data[..]), (32 * mib, &data[..])]);
    place.diff(&[]).succeeded();
    disk.is_too_small(&apply, &[]);

    fs::remove_file(place.new.join("sparse")).expect("it is there");
    file(&place.new, "small", "fits");
    place.diff(&[]).succeeded();
    run(&apply).succeeded();
}

/// Whether something unfinished lies in a directory.
fn is_at_work(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).expect("it can be listed");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    entries.map(name).any(|name| name.to_string_lossy().contains(".inflight-"))
}

/// Starts the command, waits until it is at work in `place`, and sends it a signal. `None` if it
/// was done before.
fn interrupt(place: &Place, arguments: &[&dyn AsRef<OsStr>], signal: Signal) -> Option<Output> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command can be started");
    while !is_at_work(place.root()) {
        if child.try_wait().expect("it is our child").is_some() {
            return None;
        }
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), signal).expect("it is our child");
    let output = child.wait_with_output().expect("it is our child");
    (!output.status.success()).then_some(output)
}

/// Interrupts a run that takes a while, and checks how it ends.
#[track_caller]
fn ends_cleanly_when_interrupted(
    place: &Place,
    arguments: &[&dyn AsRef<OsStr>],
    signal: Signal,
    made: &Path,
) {
    for _ in 0..20 {
        let Some(output) = interrupt(place, arguments, signal) else {
            // It was faster than the signal: once more.
            if made.is_dir() {
                fs::remove_dir_all(made).expect("what was made can be removed");
            } else {
                fs::remove_file(made).expect("what was made can be removed");
            }
            continue;
        };
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(err, "inflight: stopped on request; nothing was left behind\n");
        assert!(fs::symlink_metadata(made).is_err(), "{made:?} was made");
        assert_eq!(left_over(place.root()), Vec::<PathBuf>::new());
        return;
    }
    panic!("every run was done before the signal came");
}

/// A tree that takes a while to write.
fn place_with_much() -> Place {
    let place = Place::with_trees();
    file(&place.old, "a", "a");
    let content = noise(64 * MIB, 1);
    for name in ["1", "2", "3"] {
        file(&place.new, name, &content);
    }
    for number in 0..1000 {
        file(&place.new, format!("many/{number}"), format!("{number}").repeat(50));
    }
    place
}

#[test]
fn an_interrupted_apply_leaves_nothing_behind() {
    let place = place_with_much();
    place.diff(&["--preset", "fast"]).succeeded();
    let apply: [&dyn AsRef<OsStr>; 4] = [&"apply", &place.patch, &place.old, &place.built];
    for signal in [Signal::INT, Signal::TERM] {
        place.unchanged_by(|| ends_cleanly_when_interrupted(&place, &apply, signal, &place.built));
    }
}

#[test]
fn an_interrupted_diff_leaves_nothing_behind() {
    let place = place_with_much();
    let forth: [&dyn AsRef<OsStr>; 5] = [&"diff", &place.old, &place.new, &"-o", &place.patch];
    let back: [&dyn AsRef<OsStr>; 5] = [&"diff", &place.new, &place.old, &"-o", &place.patch];
    for (arguments, signal) in [(&forth, Signal::INT), (&back, Signal::TERM)] {
        place.unchanged_by(|| {
            ends_cleanly_when_interrupted(&place, arguments, signal, &place.patch);
        });
    }
}
