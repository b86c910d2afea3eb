//! `copy` and `warm` as people use them.
#![allow(clippy::disallowed_methods, reason = "looks at trees from outside the engine")]

mod support;

use support::{
    Place, assert_same, directory, fifo, file, hard_link, left_over, link, mode, noise, picture,
    run, set_modified, shown, sparse, stat,
};

/// A tree with something of everything.
fn tree() -> Place {
    let place = Place::bare();
    let root = directory(place.root(), "tree");
    file(&root, "small", "content");
    file(&root, "sub/large", noise(3_000_000, 1));
    file(&root, "sub/empty", "");
    directory(&root, "nothing");
    link(&root, "link", "sub/large");
    hard_link(&root, "small", "sub/other");
    fifo(&root, "fifo");
    sparse(&root, "holes", 5_000_000, &[(2_000_000, b"data")]);
    mode(&root.join("small"), 0o640);
    set_modified(&root.join("sub/large"), 1_234_567_890, 5);
    set_modified(&root.join("sub"), 1_000_000_000, 0);
    place
}

#[test]
fn a_copy_tells_what_it_did() {
    let place = tree();
    let (from, to) = (place.path("tree"), place.path("copy"));
    let ran = run(&[&"copy", &from, &to, &"--verify"]).succeeded();
    assert!(ran.out.contains("copied 4 files, 3 directories, 1 symbolic link"), "{ran:?}");
    assert!(ran.out.contains("1 hard link, 1 special file"), "{ran:?}");
    assert!(ran.out.contains("compared with the source"), "{ran:?}");
    assert_same(&picture(&from), &picture(&to));
    assert!(left_over(place.root()).is_empty());
    for name in ["small", "sub/large", "sub", "nothing"] {
        let (a, b) = (stat(&from.join(name)), stat(&to.join(name)));
        assert_eq!(a.modified().unwrap(), b.modified().unwrap(), "{name}");
        assert_eq!(a.permissions(), b.permissions(), "{name}");
    }
    let again = run(&[&"copy", &from, &to, &"--resume", &"--json"]).succeeded();
    let report: serde_json::Value = serde_json::from_str(&again.out).expect("JSON");
    assert_eq!((&report["files"], &report["ok"]), (&0.into(), &true.into()), "{report}");
    assert_eq!(report["unchanged"], 7, "{report}");
}

#[test]
fn in_the_background_with_one_thread_and_little_memory_it_is_the_same() {
    let place = tree();
    let (from, to) = (place.path("tree"), place.path("copy"));
    let options = ["--background", "--sync", "--memory", "16MiB", "--request", "64KiB"];
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"copy", &from, &to];
    arguments.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
    run(&arguments).succeeded();
    assert_same(&picture(&from), &picture(&to));
}

#[test]
fn what_is_in_the_way_is_left_alone() {
    let place = tree();
    let (from, to) = (place.path("tree"), place.path("copy"));
    place.unchanged_by(|| {
        run(&[&"copy", &from, &from]).refused("are the same");
        run(&[&"copy", &from, &from.join("sub/")]).refused("tree/sub/tree lies inside");
        run(&[&"copy", &place.path("missing"), &to]).refused("check the path");
        run(&[&"copy", &from, &from.join("small"), &to]).refused("is no directory to copy into");
        run(&[&"copy", &from, &to, &"--dry-run"]).succeeded();
    });
    run(&[&"copy", &from.join("small"), &to]).succeeded();
    place.unchanged_by(|| {
        run(&[&"copy", &from.join("holes"), &to]).refused("--resume");
        run(&[&"copy", &from, &to, &"--resume"]).refused("something else than a directory");
    });
}

#[test]
fn errors_are_listed_at_the_end_and_the_rest_is_done() {
    let place = tree();
    let (from, to) = (place.path("tree"), place.path("copy"));
    run(&[&"copy", &from, &to]).succeeded();
    std::fs::remove_file(to.join("small")).unwrap();
    directory(&to, "small");
    file(&from, "new", "new");
    let ran = run(&[&"copy", &from, &to, &"--resume"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let text = format!("error: {} is a directory in place of a file", shown(&to.join("small")));
    assert!(ran.out.contains(&text), "{ran:?}");
    assert!(ran.out.contains("1 error; all else is done"), "{ran:?}");
    assert_eq!(std::fs::read(to.join("new")).unwrap(), b"new");
}

#[test]
fn warming_tells_what_was_there() {
    let place = tree();
    let ran = run(&[&"warm", &place.path("tree"), &"--json"]).succeeded();
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((&report["files"], &report["error_count"]), (&4.into(), &0.into()), "{report}");
    assert!(report["bytes"].as_u64() > Some(8_000_000), "{report}");
    let text = run(&[&"warm", &place.path("tree/sub/large"), &"--limit", &"1GiB"]).succeeded();
    assert!(text.out.contains("in 1 file:") && text.out.contains("page cache"), "{text:?}");
    run(&[&"warm", &place.path("missing")]).refused("check the path");
}
