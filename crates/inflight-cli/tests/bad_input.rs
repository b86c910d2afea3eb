//! Whatever is wrong, the command says so in one sentence, and changes and leaves behind nothing.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at the file system from outside the engine"
)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use support::{
    Place, Ran, assert_same, directory, fifo, file, finish, inflight_as_ordinary_user, insert,
    left_over, link, mode, noise, picture, run, shown,
};

/// Two small trees and their patch, which copies from every old file.
fn place_with_patch() -> Place {
    let place = Place::with_trees();
    let (mut a, mut b) = (noise(5000, 1), noise(9000, 2));
    file(&place.old, "a", &a);
    file(&place.old, "sub/b", &b);
    insert(&mut a, 5000, b"at the end");
    insert(&mut b, 4000, b"in the middle");
    file(&place.new, "a", &a);
    file(&place.new, "sub/b", &b);
    place.diff(&[]).succeeded();
    place
}

/// Nothing but the trees and the patch is there.
#[track_caller]
fn assert_nothing_came_of_it(place: &Place) {
    assert!(fs::symlink_metadata(&place.built).is_err(), "something was built");
    assert_eq!(left_over(place.root()), Vec::<PathBuf>::new());
}

/// These arguments are refused with a sentence about a path, and change nothing.
#[track_caller]
fn is_refused(place: &Place, arguments: &[&dyn AsRef<OsStr>], about: &Path) {
    place.unchanged_by(|| run(arguments).refused(&shown(about)));
}

/// After `change`, the old tree is refused with a sentence about `name`.
#[track_caller]
fn other_old_tree_is_refused(change: impl FnOnce(&Place), name: &str, how: &str) {
    let place = place_with_patch();
    change(&place);
    let ran = place.unchanged_by(|| place.apply(&[]));
    let ran = ran.refused(&shown(&place.old.join(name)));
    assert!(ran.err.contains(how), "{ran:?}");
    assert_nothing_came_of_it(&place);
}

#[test]
fn an_old_file_with_one_other_byte_is_refused() {
    let change = |place: &Place| {
        let mut content = fs::read(place.old.join("sub/b")).expect("it is there");
        content[100] ^= 1;
        file(&place.old, "sub/b", content);
    };
    other_old_tree_is_refused(change, "sub/b", "its contents differ");
}

#[test]
fn an_old_file_of_another_length_is_refused() {
    for bytes in [0u64, 4999, 5001] {
        let change = |place: &Place| {
            let opened = fs::OpenOptions::new().write(true).open(place.old.join("a"));
            opened.expect("it is there").set_len(bytes).expect("there is room");
        };
        let how = format!("it has {bytes} bytes in place of 5000");
        other_old_tree_is_refused(change, "a", &how);
    }
}

#[test]
fn a_missing_old_file_is_refused() {
    let change = |place: &Place| fs::remove_file(place.old.join("sub/b")).expect("it is there");
    other_old_tree_is_refused(change, "sub/b", "it is missing");
    let change = |place: &Place| fs::remove_dir_all(place.old.join("sub")).expect("it is there");
    other_old_tree_is_refused(change, "sub/b", "it is missing");
}

#[test]
fn something_else_in_place_of_an_old_file_is_refused() {
    let change = |place: &Place| {
        fs::remove_file(place.old.join("a")).expect("it is there");
        directory(&place.old, "a");
    };
    other_old_tree_is_refused(change, "a", "it is a directory");
    let change = |place: &Place| {
        fs::remove_file(place.old.join("a")).expect("it is there");
        fifo(&place.old, "a");
    };
    other_old_tree_is_refused(change, "a", "it is a fifo");
}

#[test]
fn links_out_of_the_old_tree_are_not_followed() {
    let change = |place: &Place| {
        fs::rename(place.old.join("a"), place.path("outside")).expect("it is there");
        link(&place.old, "a", "../outside");
    };
    other_old_tree_is_refused(change, "a", "it is a symbolic link");
    let change = |place: &Place| {
        fs::rename(place.old.join("sub"), place.path("outside")).expect("it is there");
        link(&place.old, "sub", "../outside");
    };
    other_old_tree_is_refused(change, "sub/b", "it is missing");
}

#[test]
fn a_file_in_place_of_a_tree_is_refused_and_the_other_way_round() {
    let place = place_with_patch();
    let (old_file, new_file) = (place.old.join("a"), place.new.join("a"));
    is_refused(&place, &[&"apply", &place.patch, &old_file, &place.built], &old_file);
    run(&[&"diff", &old_file, &new_file, &"-o", &place.patch]).succeeded();
    place.unchanged_by(|| place.apply(&[]).refused(&shown(&place.old)));
}

/// Two trees whose patch is a few hundred bytes long.
fn place_with_tiny_patch() -> (Place, Vec<u8>) {
    let place = Place::with_trees();
    let content = noise(300, 1);
    file(&place.old, "a", &content);
    file(&place.new, "a", [&content[..], &b"more"[..]].concat());
    file(&place.new, "b", "new");
    link(&place.new, "link", "a");
    place.diff(&[]).succeeded();
    let patch = fs::read(&place.patch).expect("there is a patch");
    assert!((200..2000).contains(&patch.len()), "{} bytes", patch.len());
    (place, patch)
}

#[test]
fn patches_cut_off_anywhere_are_refused() {
    let (place, whole) = place_with_tiny_patch();
    let name = shown(&place.patch);
    for length in 0..whole.len() {
        fs::write(&place.patch, &whole[..length]).expect("there is room");
        run(&[&"info", &place.patch]).refused(&name);
        if length % 7 == 0 {
            place.apply(&["--no-sync"]).refused(&name);
            place.verify(&place.new, &[]).refused(&name);
            assert_nothing_came_of_it(&place);
        }
    }
    fs::write(&place.patch, &whole).expect("there is room");
    place.apply(&["--no-sync"]).succeeded();
}

#[test]
fn patches_with_one_other_bit_anywhere_are_refused() {
    let (place, whole) = place_with_tiny_patch();
    let name = shown(&place.patch);
    for position in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[position] ^= 1 << (position % 8);
        fs::write(&place.patch, &damaged).expect("there is room");
        place.apply(&["--no-sync"]).refused(&name);
    }
    assert_nothing_came_of_it(&place);
    fs::write(&place.patch, &whole).expect("there is room");
    place.apply(&["--no-sync"]).succeeded();
}

#[test]
fn patches_with_something_behind_or_before_are_refused() {
    let (place, whole) = place_with_tiny_patch();
    let trailer = &whole[whole.len() - 40..];
    let wrong = [
        [&whole[..], &b"x"[..]].concat(),
        [&whole[..], &[0u8; 40][..]].concat(),
        [&whole[..], trailer].concat(),
        [&whole[..], &whole[..]].concat(),
        [&b"x"[..], &whole[..]].concat(),
    ];
    for patch in wrong {
        fs::write(&place.patch, &patch).expect("there is room");
        place.unchanged_by(|| place.apply(&["--no-sync"]).refused(&shown(&place.patch)));
    }
}

#[test]
fn what_is_no_patch_is_refused_as_such() {
    let place = place_with_patch();
    let text = file(place.root(), "text", "hello world\n".repeat(100));
    let wrong = [
        text,
        file(place.root(), "empty", ""),
        file(place.root(), "byte", b"\x89"),
        directory(place.root(), "directory"),
    ];
    for path in &wrong {
        let refused = |ran: Ran| {
            let ran = ran.refused(&shown(path));
            assert!(ran.err.contains("is not an Inflight patch"), "{ran:?}");
        };
        place.unchanged_by(|| {
            refused(run(&[&"info", path]));
            refused(run(&[&"apply", path, &place.old, &place.built]));
            refused(run(&[&"verify", path, &place.new]));
        });
    }
}

#[test]
fn trees_that_are_not_apart_are_refused() {
    let place = place_with_patch();
    let old = place.old.clone();
    let (alias, sub, a) = (link(place.root(), "alias", "old"), old.join("sub"), old.join("a"));
    let dotted = old.join("sub/..");
    let output = place.path("output");
    for (first, second) in [
        (&old, &old),
        (&old, &alias),
        (&old, &dotted),
        (&a, &a),
        (&old, &sub),
        (&sub, &old),
        (&sub, &alias),
        (&a, &old),
        (&old, &a),
    ] {
        is_refused(&place, &[&"diff", first, second, &"-o", &output], first);
    }
}

#[test]
fn outputs_inside_an_input_are_refused() {
    let place = place_with_patch();
    let alias = link(place.root(), "alias", "old");
    for output in [
        place.old.join("x"),
        place.old.join("sub/x"),
        place.new.join("x"),
        alias.join("x"),
        alias.join("sub/x"),
        place.old.clone(),
    ] {
        place.unchanged_by(|| {
            let ran = run(&[&"diff", &place.old, &place.new, &"-o", &output]);
            ran.refused(&format!("{} lies inside the input", output.display()));
        });
    }
    for output in [place.old.join("x"), place.old.join("sub/x"), alias.join("x")] {
        place.unchanged_by(|| {
            let ran = run(&[&"apply", &place.patch, &place.old, &output]);
            ran.refused(&format!("{} lies inside the input", output.display()));
        });
    }
    let (old, new) = (place.old.join("a"), place.new.join("a"));
    is_refused(&place, &[&"diff", &old, &new, &"-o", &new], &new);
}

#[test]
fn nothing_that_exists_is_replaced_by_a_tree() {
    let place = place_with_patch();
    let taken = [
        file(place.root(), "file", "precious"),
        directory(place.root(), "directory"),
        link(place.root(), "dangling", "nowhere"),
        place.patch.clone(),
        place.new.clone(),
        place.old.clone(),
    ];
    for path in &taken {
        place.unchanged_by(|| {
            let ran = run(&[&"apply", &place.patch, &place.old, path]);
            ran.refused(&format!("{} exists already", path.display()));
        });
    }
}

#[test]
fn paths_that_lead_nowhere_are_named() {
    let place = place_with_patch();
    let (none, dangling) = (place.path("none"), link(place.root(), "dangling", "nowhere"));
    let (inside_none, output) = (none.join("x"), place.path("output"));
    is_refused(&place, &[&"info", &none], &none);
    is_refused(&place, &[&"apply", &none, &place.old, &place.built], &none);
    is_refused(&place, &[&"apply", &place.patch, &none, &place.built], &none);
    is_refused(&place, &[&"apply", &place.patch, &place.old, &inside_none], &none);
    is_refused(&place, &[&"verify", &place.patch, &none], &none);
    is_refused(&place, &[&"diff", &none, &place.new, &"-o", &output], &none);
    is_refused(&place, &[&"diff", &place.old, &none, &"-o", &output], &none);
    is_refused(&place, &[&"diff", &dangling, &place.new, &"-o", &output], &dangling);
    is_refused(&place, &[&"diff", &place.old, &place.new, &"-o", &inside_none], &none);
    let inside_file = place.patch.join("x");
    is_refused(&place, &[&"apply", &place.patch, &place.old, &inside_file], &place.patch);
    is_refused(&place, &[&"diff", &place.old, &place.new, &"-o", &inside_file], &place.patch);
}

#[test]
fn special_files_are_no_trees() {
    let place = place_with_patch();
    let (pipe, output) = (fifo(place.root(), "pipe"), place.path("output"));
    is_refused(&place, &[&"diff", &pipe, &place.new, &"-o", &output], &pipe);
    is_refused(&place, &[&"apply", &place.patch, &pipe, &place.built], &pipe);
    is_refused(&place, &[&"verify", &place.patch, &pipe], &pipe);
}

#[test]
fn too_little_memory_is_refused_with_how_much_it_takes() {
    let place = place_with_patch();
    place.unchanged_by(|| {
        for ran in [place.apply(&["--memory", "1MiB"]), place.diff(&["--memory", "1MiB"])] {
            let ran = ran.refused("this job needs at least ");
            assert!(ran.err.contains("may use 1; allow it more (--memory "), "{ran:?}");
        }
    });
}

/// How much memory an error says to allow.
fn told(err: &str) -> String {
    let (_, rest) = err.split_once("(--memory ").unwrap_or_else(|| panic!("{err}"));
    rest.split_once(')').unwrap_or_else(|| panic!("{err}")).0.to_string()
}

#[test]
fn as_much_memory_as_the_error_says_is_enough() {
    let place = Place::with_trees();
    file(&place.old, "a", noise(40 << 20, 1));
    file(&place.new, "a", noise(40 << 20, 2));
    for threads in ["1", "2", "8"] {
        let too_little = ["--threads", threads, "--memory", "1MiB"];
        let told_by_diff = told(&place.diff(&too_little).refused("--memory").err);
        place.diff(&["--threads", threads, "--memory", &told_by_diff]).succeeded();
        let told_by_apply = told(&place.apply(&too_little).refused("--memory").err);
        place.apply(&["--threads", threads, "--memory", &told_by_apply, "--no-sync"]).succeeded();
        assert_same(&picture(&place.new), &picture(&place.built));
        fs::remove_dir_all(&place.built).expect("what was built can be removed");
    }
}

/// Runs the command as somebody who may not read everything.
fn run_as_ordinary_user(arguments: &[&dyn AsRef<OsStr>]) -> Option<Ran> {
    inflight_as_ordinary_user().map(|mut command| finish(command.args(arguments)))
}

/// Lets everybody in, as far as the test does not say otherwise.
fn open_up(place: &Place) {
    mode(place.root(), 0o777);
    for path in [&place.old, &place.new, &place.old.join("sub"), &place.new.join("sub")] {
        mode(path, 0o755);
    }
    for name in ["old/a", "old/sub/b", "new/a", "new/sub/b", "patch"] {
        mode(&place.path(name), 0o644);
    }
}

#[test]
fn what_may_not_be_read_is_named() {
    for name in ["old/a", "old/sub", "new/sub/b", "new/sub"] {
        let place = place_with_patch();
        open_up(&place);
        let (closed, output) = (place.path(name), place.path("output"));
        mode(&closed, 0);
        let ran = run_as_ordinary_user(&[&"diff", &place.old, &place.new, &"-o", &output]);
        mode(&closed, 0o755);
        let Some(ran) = ran else { return };
        ran.refused(&shown(&closed));
        assert!(!output.exists());
        assert_nothing_came_of_it(&place);
    }
}

#[test]
fn an_apply_that_may_not_read_or_write_leaves_nothing_behind() {
    for (name, bits) in [("patch", 0), ("old/a", 0), ("old/sub", 0), ("", 0o555)] {
        let place = place_with_patch();
        open_up(&place);
        let closed = place.root().join(name);
        mode(&closed, bits);
        let ran = run_as_ordinary_user(&[&"apply", &place.patch, &place.old, &place.built]);
        mode(&closed, 0o755);
        let Some(ran) = ran else { return };
        ran.refused(closed.to_string_lossy().trim_end_matches('/'));
        assert_nothing_came_of_it(&place);
    }
}
