//! Faults that were found once and shall not come back.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at the file system from outside the engine"
)]

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use inflight_patch::format::testing::{assemble, seal_block};
use support::{
    PROGRAM, Place, assert_same, at, directory, fifo, file, finish, hard_link, inflight,
    inflight_as_ordinary_user, left_over, mode, noise, picture, run, set_attribute, shown, stat,
};

/// Far longer than any of these takes if it does not hang.
const SOON: Duration = Duration::from_secs(120);

/// Two small trees and their patch.
fn place_with_patch() -> Place {
    let place = Place::with_trees();
    file(&place.old, "a", "old");
    file(&place.new, "a", "new");
    place.diff(&[]).succeeded();
    place
}

/// A shell that sets something up and then becomes the command.
fn after(setup: &str) -> assert_cmd::Command {
    let script = format!("{setup}; exec \"$@\"");
    let mut shell = assert_cmd::Command::new("sh");
    shell.args(["-c", script.as_str(), "sh", PROGRAM]).timeout(SOON);
    shell
}

fn number(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A patch of a few hundred bytes whose new tree is a file of `bytes` zero bytes; its old tree is
/// empty.
fn patch_that_claims(bytes: u64) -> Vec<u8> {
    let stored = |kind: u8, payload: &[u8]| seal_block(kind, 0, payload.len() as u32, payload);
    // A directory and, in the new tree, a file in it: eight columns with something, seven without.
    let mode = number(0o755);
    let column = |bytes: Vec<u8>| [number(bytes.len() as u64), bytes].concat();
    let manifest = |count: u8, columns: [Vec<u8>; 8]| {
        [vec![0, count], columns.map(column).concat(), vec![0; 7]].concat()
    };
    let empty = Vec::new;
    let root = [vec![0], vec![0], vec![0], mode.clone(), empty(), empty(), empty(), empty()];
    let old = manifest(1, root);
    let (names, sizes) = (b"\0z\0".to_vec(), number(bytes >> 16));
    let both = [vec![0, 1], vec![0, 0], names, mode.repeat(2), vec![0], vec![0], sizes, vec![0]];
    let new = manifest(2, both);
    let place = Place::with_trees();
    file(&place.new, "a", "a");
    place.diff(&[]).succeeded();
    let real = fs::read(&place.patch).expect("there is a patch");
    // The stages and the digests are those of a real patch.
    let trailer = real.len() - 40;
    let index_at: [u8; 8] = real[trailer..trailer + 8].try_into().expect("8 bytes");
    let (mut blocks, mut start) = (Vec::new(), 40);
    while start < u64::from_le_bytes(index_at) as usize {
        let stored_bytes: [u8; 4] = real[start + 8..start + 12].try_into().expect("4 bytes");
        let end = start + 24 + u32::from_le_bytes(stored_bytes) as usize;
        let block = match real[start] {
            2 => stored(2, &new),
            3 => stored(3, &old),
            5 => stored(5, &[vec![0, 1], number(bytes << 2 | 2), vec![0]].concat()),
            // The literals, which are not used any more.
            6 => Vec::new(),
            _ => real[start..end].to_vec(),
        };
        blocks.push(block);
        start = end;
    }
    assemble(0, bytes, &blocks)
}

#[test]
fn a_patch_that_claims_a_huge_file_is_refused_without_the_memory_for_it() {
    let place = place_with_patch();
    fs::remove_file(at(&place.old, "a")).expect("it is there");
    for bytes in [1 << 50, 1 << 60] {
        fs::write(&place.patch, patch_that_claims(bytes)).expect("there is room");
        run(&[&"info", &place.patch]).succeeded();
        place.unchanged_by(|| {
            // In KiB, so that a failure takes 4 GiB and not the machine.
            let mut command = after("ulimit -v 4194304");
            command.args(["--memory", "256MiB", "--threads", "1", "apply"]);
            command.arg(&place.patch).arg(&place.old).arg(&place.built);
            finish(&mut command).refused("");
        });
    }
}

#[test]
fn standard_output_that_cannot_be_written_is_an_error_and_no_panic() {
    let place = place_with_patch();
    for format in [None, Some("--json")] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has one");
        let mut command = Command::new(PROGRAM);
        command.arg("info").arg(&place.patch).args(format);
        let output = command.stdout(full).stderr(Stdio::piped()).output().expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(!err.contains("panicked"), "{err}");
    }
}

#[test]
fn a_patch_replaces_nothing_but_a_file() {
    let place = place_with_patch();
    let pipe = fifo(place.root(), "pipe");
    let ran = run(&[&"diff", &place.old, &place.new, &"-o", &pipe]);
    assert!(stat(&pipe).file_type().is_fifo(), "it might have been /dev/null");
    ran.refused(&shown(&pipe));
}

#[test]
fn an_output_that_is_a_directory_is_named_as_the_user_did() {
    let place = place_with_patch();
    let output = directory(place.root(), "output");
    let ran = run(&[&"diff", &place.old, &place.new, &"-o", &output]).refused(&shown(&output));
    assert!(!ran.err.contains(".inflight-"), "{ran:?}");
}

#[test]
fn verification_notices_files_that_are_one_and_should_be_two() {
    let place = Place::with_trees();
    for tree in [&place.new, &place.built] {
        file(tree, "a", "same");
    }
    file(&place.new, "b", "same");
    hard_link(&place.built, "a", "b");
    place.diff(&[]).succeeded();
    let ran = place.verify(&place.built, &[]).differed();
    assert!(ran.out.contains("hard link"), "{ran:?}");
}

#[test]
fn very_little_memory_is_refused_or_enough_but_never_a_hang() {
    let place = Place::with_trees();
    file(&place.new, "large", noise(20 << 20, 1));
    place.diff(&[]).succeeded();
    for memory in ["1", "8KiB", "1MiB"] {
        for (command, tree) in [("info", None), ("verify", Some(&place.new))] {
            let mut running = inflight();
            running.timeout(SOON).args([command, "--memory", memory]).arg(&place.patch).args(tree);
            let ran = finish(&mut running);
            assert!(matches!(ran.code, Some(0 | 1)), "{command} {memory}: {ran:?}");
        }
        let mut running = inflight();
        running.timeout(SOON).args(["apply", "--memory", memory]);
        running.arg(&place.patch).arg(&place.old).arg(&place.built);
        finish(&mut running).refused("--memory");
    }
}

#[test]
fn many_cores_do_not_make_small_trees_need_much_memory() {
    let place = place_with_patch();
    place.diff(&["--preset", "small", "--threads", "32", "--memory", "2GiB"]).succeeded();
    place.diff(&["--preset", "default", "--threads", "256", "--memory", "2GiB"]).succeeded();
    place.diff(&[]).succeeded();
    place.apply(&["--threads", "512", "--memory", "2GiB"]).succeeded();
}

#[test]
fn attributes_of_read_only_files_are_preserved_for_ordinary_users() {
    let Some(mut command) = inflight_as_ordinary_user() else { return };
    let place = place_with_patch();
    mode(place.root(), 0o777);
    for path in [&place.old, &place.new] {
        mode(path, 0o755);
        mode(&at(path, "a"), 0o444);
    }
    mode(&at(&place.new, "a"), 0o644);
    if !set_attribute(&at(&place.new, "a"), "user.name", b"value") {
        eprintln!("skipped: no extended attributes on this file system");
        return;
    }
    mode(&at(&place.new, "a"), 0o444);
    place.diff(&["--preserve", "xattrs"]).succeeded();
    mode(&place.patch, 0o644);
    command.arg("apply").arg(&place.patch).arg(&place.old).arg(&place.built);
    finish(&mut command).succeeded();
    place.verify(&place.built, &[]).succeeded();
}

#[test]
fn permissions_do_not_depend_on_the_mask_of_whoever_applies() {
    let place = place_with_patch();
    mode(&at(&place.new, "a"), 0o600);
    mode(&file(&place.new, "empty", ""), 0o600);
    place.diff(&[]).succeeded();
    let mut command = after("umask 0377");
    command.arg("apply").arg(&place.patch).arg(&place.old).arg(&place.built);
    finish(&mut command).succeeded();
    assert_same(&picture(&place.new), &picture(&place.built));
    assert_eq!(stat(&at(&place.built, "a")).mode() & 0o777, 0o600);
}

#[test]
fn a_directory_that_cannot_be_entered_is_not_left_behind() {
    let Some(command) = inflight_as_ordinary_user() else { return };
    let place = place_with_patch();
    mode(place.root(), 0o777);
    mode(&place.patch, 0o644);
    mode(&place.old, 0o755);
    mode(&at(&place.old, "a"), 0o644);
    let mut shell = assert_cmd::Command::new("sh");
    shell.args(["-c", "umask 0777; exec \"$@\"", "sh"]).timeout(SOON);
    shell.arg(command.get_program()).args(command.get_args());
    shell.arg("apply").arg(&place.patch).arg(&place.old).arg(&place.built);
    // Whether it works is another question.
    finish(&mut shell);
    assert_eq!(left_over(place.root()), Vec::<PathBuf>::new());
}

#[test]
fn a_named_pipe_is_no_patch_with_any_driver() {
    let place = place_with_patch();
    let pipe = fifo(place.root(), "pipe");
    for driver in [None, Some("threads")] {
        let mut command = inflight();
        command.timeout(SOON).arg("info").arg(&pipe).env_remove("INFLIGHT_DRIVER");
        if let Some(driver) = driver {
            command.env("INFLIGHT_DRIVER", driver);
        }
        finish(&mut command).refused("is not an Inflight patch");
    }
}

#[test]
fn names_cannot_forge_lines_or_control_the_terminal() {
    let place = place_with_patch();
    file(&place.new, b"\x1b[31mred\nforged: line", "x");
    place.diff(&[]).succeeded();
    let info = run(&[&"info", &place.patch]).succeeded();
    let verified = place.verify(&place.old, &[]).differed();
    for ran in [info, verified] {
        assert!(!ran.out.contains('\x1b'), "{ran:?}");
        assert!(!ran.out.contains("\nforged"), "{ran:?}");
    }
}

#[test]
fn a_demo_without_a_temporary_directory_says_where_it_looked() {
    let place = Place::bare();
    let none = place.path("none");
    let mut command = inflight();
    command.env("TMPDIR", &none).arg("demo");
    finish(&mut command).refused(&shown(&none));
}
