//! What is preserved, and how the job is done: the tree and the patch do not depend on the latter.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at the file system from outside the engine"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown};

use support::{
    Place, assert_same, at, attribute, directory, file, finish, inflight, insert, is_root, link,
    mode, noise, picture, set_attribute, set_modified, stat,
};

const MIB: usize = 1 << 20;

#[test]
fn times_are_preserved_where_asked_for() {
    let place = Place::with_trees();
    set_modified(&file(&place.new, "directory/a", "a"), 1_000_000_000, 123_456_789);
    set_modified(&file(&place.new, "before-1970", noise(3 * MIB, 1)), -2, 500_000_000);
    set_modified(&link(&place.new, "link", "a"), 2_000_000_000, 1);
    set_modified(&at(&place.new, "directory"), 77, 0);
    set_modified(&place.new, 99, 1);
    place.round_trip(&["--preserve", "times"]);
    for name in ["", "directory", "directory/a", "before-1970", "link"] {
        let (made, built) = (stat(&place.new.join(name)), stat(&place.built.join(name)));
        let times = [&made, &built].map(|found| (found.mtime(), found.mtime_nsec()));
        assert_eq!(times[0], times[1], "{name:?}");
    }
    set_modified(&at(&place.built, "directory/a"), 1_000_000_001, 123_456_789);
    let ran = place.verify(&place.built, &[]).differed();
    assert!(ran.out.starts_with("directory/a: its modification time differs\n"), "{ran:?}");
}

#[test]
fn owners_are_preserved_where_asked_for() {
    let place = Place::with_trees();
    let program = file(&place.new, "program", "x");
    if !is_root() || chown(&program, Some(1234), Some(5678)).is_err() {
        eprintln!("skipped: this user cannot give files away");
        return;
    }
    mode(&program, 0o4755);
    chown(directory(&place.new, "directory"), Some(7), Some(8)).expect("it worked before");
    lchown(link(&place.new, "link", "program"), Some(9), Some(10)).expect("it worked before");
    place.round_trip(&["--preserve", "owner"]);
    for (name, owner) in [("program", (1234, 5678)), ("directory", (7, 8)), ("link", (9, 10))] {
        let built = stat(&at(&place.built, name));
        assert_eq!((built.uid(), built.gid()), owner, "{name}");
    }
    chown(at(&place.built, "directory"), Some(70), None).expect("it worked before");
    let ran = place.verify(&place.built, &[]).differed();
    assert!(ran.out.starts_with("directory: its owner differs\n"), "{ran:?}");
}

#[test]
fn extended_attributes_are_preserved_where_asked_for() {
    let place = Place::with_trees();
    let path = file(&place.new, "file", "x");
    if !set_attribute(&path, "user.name", b"val\0ue\xff") {
        eprintln!("skipped: no extended attributes on this file system");
        return;
    }
    set_attribute(&path, "user.empty", b"");
    set_attribute(&place.new, "user.root", b"of the tree");
    place.round_trip(&["--preserve", "xattrs"]);
    let built = at(&place.built, "file");
    assert_eq!(attribute(&built, "user.name").as_deref(), Some(&b"val\0ue\xff"[..]));
    assert_eq!(attribute(&built, "user.empty").as_deref(), Some(&b""[..]));
    assert_eq!(attribute(&place.built, "user.root").as_deref(), Some(&b"of the tree"[..]));
    set_attribute(&built, "user.more", b"1");
    let ran = place.verify(&place.built, &[]).differed();
    assert!(ran.out.starts_with("file: its extended attributes differ\n"), "{ran:?}");
}

#[test]
fn what_is_not_preserved_is_not_compared() {
    let place = Place::with_trees();
    set_modified(&file(&place.new, "a", "a"), 1_000_000_000, 0);
    place.round_trip(&[]);
    assert_ne!(stat(&at(&place.built, "a")).mtime(), 1_000_000_000);
}

/// Two versions of a tree with files of many sizes, changed, moved, grown and new.
fn mixed_trees(place: &Place) {
    for number in 0..40u64 {
        let mut content = noise(50_000 + 999 * number as usize, number);
        file(&place.old, format!("{number}"), &content);
        insert(&mut content, 5000, &noise(100, number + 1000));
        file(&place.new, format!("{}", number * 7 % 40), &content);
    }
    let mut large = noise(9 * MIB, 500);
    file(&place.old, "large", &large);
    insert(&mut large, 3 * MIB, b"inserted");
    file(&place.new, "large", &large);
    file(&place.new, "new", noise(6 * MIB, 600));
    file(&place.new, "text", "all work and no play makes jack a dull boy\n".repeat(20_000));
}

#[test]
fn every_preset_gives_the_same_tree() {
    let place = Place::with_trees();
    mixed_trees(&place);
    for preset in ["fast", "default", "small"] {
        let options = ["--preset", preset, "--threads", "2", "--memory", "1GiB"];
        let patch_bytes = place.round_trip(&options);
        assert!(patch_bytes < 7 * MIB as u64, "{preset}: {patch_bytes}");
        fs::remove_dir_all(&place.built).expect("what was built can be removed");
    }
}

#[test]
fn the_patch_depends_on_neither_threads_nor_driver() {
    let place = Place::with_trees();
    mixed_trees(&place);
    let mut first: Option<Vec<u8>> = None;
    for threads in ["1", "8"] {
        for driver in [None, Some("threads")] {
            let mut command = inflight();
            command.env_remove("INFLIGHT_DRIVER");
            if let Some(driver) = driver {
                command.env("INFLIGHT_DRIVER", driver);
            }
            command.arg("diff").arg(&place.old).arg(&place.new).arg("-o").arg(&place.patch);
            finish(command.args(["--threads", threads, "--memory", "1GiB"])).succeeded();
            let patch = fs::read(&place.patch).expect("there is a patch");
            let expected = first.get_or_insert_with(|| patch.clone());
            assert!(*expected == patch, "{threads} threads, driver {driver:?}");
        }
    }
}

#[test]
fn requests_are_as_long_as_they_may_be() {
    let place = Place::with_trees();
    let large = noise(32 * MIB, 1);
    file(&place.old, "large", &large);
    file(&place.new, "large", [&large[..], b"more"].concat());
    let operations = |request: &[&str]| {
        let mut command = inflight();
        command.args(["--json", "diff"]).arg(&place.old).arg(&place.new);
        let ran = finish(command.arg("-o").arg(&place.patch).args(request)).succeeded();
        let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        report["io"]["operations"].as_u64().expect("a number")
    };
    let usual = operations(&[]);
    // Two files of 32 MiB: 1024 requests in place of 32, or a few.
    assert!(operations(&["--request", "64KiB"]) > usual + 900);
    assert!(operations(&["--request", "16MiB"]) < usual);
}

#[test]
fn every_driver_and_any_number_of_threads_builds_the_same_tree() {
    let place = Place::with_trees();
    mixed_trees(&place);
    place.diff(&[]).succeeded();
    for (driver, threads) in [(None, "1"), (None, "8"), (Some("threads"), "1")] {
        let mut command = inflight();
        command.env_remove("INFLIGHT_DRIVER");
        if let Some(driver) = driver {
            command.env("INFLIGHT_DRIVER", driver);
        }
        command.arg("apply").arg(&place.patch).arg(&place.old).arg(&place.built);
        finish(command.args(["--threads", threads, "--no-sync"])).succeeded();
        assert_same(&picture(&place.new), &picture(&place.built));
        fs::remove_dir_all(&place.built).expect("what was built can be removed");
    }
}

#[test]
fn trees_may_be_larger_than_the_memory_allowed() {
    let place = Place::with_trees();
    for number in 0..8u64 {
        let mut content = noise(12 * MIB, number);
        file(&place.old, format!("{number}"), &content);
        insert(&mut content, 5 * MIB, b"inserted");
        file(&place.new, format!("moved-{}", 7 - number), &content);
    }
    let patch_bytes = place.round_trip(&["--memory", "96MiB", "--threads", "1"]);
    assert!(patch_bytes < MIB as u64, "{patch_bytes}");
}
