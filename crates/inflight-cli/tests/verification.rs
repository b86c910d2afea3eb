//! Verification says what differs and where, and tells the trees of a patch apart.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at the file system from outside the engine"
)]

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::{
    Place, at, directory, fifo, file, hard_link, left_over, link, mode, noise, picture, run, shown,
    socket, sparse,
};

const MIB: u64 = 1 << 20;

#[test]
fn special_files_are_left_out_with_a_warning_that_names_them() {
    let place = Place::with_trees();
    file(&place.old, "a", "a");
    file(&place.new, "a", "a");
    let old_pipe = fifo(&place.old, "old-pipe");
    let new_pipe = fifo(&place.new, "new-pipe");
    let new_socket = socket(&place.new, "new-socket");
    let ran = place.diff(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for (path, kind) in [(&old_pipe, "fifo"), (&new_pipe, "fifo"), (&new_socket, "socket")] {
        let warning = format!("warning: {} is a {kind}; left out", shown(path));
        assert!(ran.err.lines().any(|line| line == warning), "{warning:?} is not in {ran:?}");
    }
    place.apply(&[]).succeeded();
    place.verify(&place.new, &[]).succeeded();
    place.verify(&place.built, &[]).succeeded();
    let built: Vec<PathBuf> = picture(&place.built).into_keys().collect();
    assert_eq!(built, [Path::new(""), Path::new("a")]);
    assert_eq!(left_over(place.root()), Vec::<PathBuf>::new());
}

/// A tree with one of each thing that can differ.
fn tree_to_differ_from(root: &Path) {
    for name in ["content", "kind", "length", "missing", "permissions", "directory/kept"] {
        file(root, name, "abc");
    }
    mode(&at(root, "permissions"), 0o644);
    hard_link(root, "content", "second-name");
    link(root, "link", "content");
    directory(root, "no-directory");
    sparse(root, "hole", 8 * MIB, &[(0, &[1; 4096][..])]);
}

/// Changes each of them.
fn make_differ(root: &Path) {
    for name in ["second-name", "kind", "missing", "link"] {
        fs::remove_file(at(root, name)).expect("it is there");
    }
    fs::remove_dir(at(root, "no-directory")).expect("it is there");
    file(root, "second-name", "abc");
    file(root, "content", "abd");
    file(root, "length", "abcd");
    file(root, "directory/one-more", "x");
    mode(&at(root, "permissions"), 0o600);
    directory(root, "kind");
    link(root, "link", "elsewhere");
    let hole = OpenOptions::new().write(true).open(at(root, "hole")).expect("it is there");
    hole.write_all_at(b"x", 4 * MIB).expect("there is room");
}

#[test]
fn verification_lists_each_difference() {
    let place = Place::with_trees();
    tree_to_differ_from(&place.new);
    tree_to_differ_from(&place.built);
    place.diff(&[]).succeeded();
    place.verify(&place.built, &[]).succeeded();
    make_differ(&place.built);
    let ran = place.verify(&place.built, &[]).differed();
    let mut lines = ran.out.lines();
    for expected in [
        "content: its contents differ",
        "directory/one-more: the file should not be there",
        "hole: its contents differ",
        "kind: it is a directory in place of a file",
        "length: it has 4 bytes in place of 3",
        "link: the link points elsewhere",
        "missing: the file is missing",
        "no-directory: the directory is missing",
        "permissions: its permissions are 0600 in place of 0644",
        "second-name: it is no hard link to content",
    ] {
        assert_eq!(lines.next(), Some(expected), "{ran:?}");
    }
    let sum = format!("{} is not the new tree: 10 differences", shown(&place.built));
    assert_eq!(lines.next(), Some(&*sum), "{ran:?}");
}

/// The sizes of files that both trees have are not in a patch.
#[test]
fn kept_files_of_another_size_are_named() {
    let place = Place::with_trees();
    for number in 0..300 {
        let name = format!("{number:03}");
        for root in [&place.old, &place.new, &place.built] {
            file(root, &name, noise(100 + number, number as u64));
        }
    }
    file(&place.new, "changes", "it does");
    file(&place.built, "changes", "it does");
    place.diff(&[]).succeeded();
    place.verify(&place.built, &[]).succeeded();
    place.verify(&place.old, &["--old"]).succeeded();
    let differs = |name: &str, content: &[u8], how: &str| {
        let before = fs::read(at(&place.built, name)).expect("it is there");
        file(&place.built, name, content);
        file(&place.old, name, content);
        let ran = place.verify(&place.built, &[]).differed();
        assert!(ran.out.starts_with(&format!("{name}: {how}")), "{ran:?}");
        assert!(ran.out.contains(": 1 differences\n"), "{ran:?}");
        place.verify(&place.old, &["--old"]).differed();
        file(&place.built, name, &before);
        // A tree that differs is not built on.
        let to = at(place.root(), "again");
        let ran = run(&[&"apply", &place.patch, &place.old, &to]);
        ran.refused(&format!("{} is not what the patch was made from: {how}", name));
        assert!(!to.exists());
        file(&place.old, name, &before);
    };
    differs("007", b"shorter", "its contents differ");
    differs("150", &noise(251, 1), "its contents differ");
    differs("299", b"", "it is empty");
    let long = noise(1 << 20, 1);
    differs("000", &long, "it has 1048576 bytes in place of at most");
    fs::remove_file(at(&place.built, "100")).expect("it is there");
    let ran = place.verify(&place.built, &[]).differed();
    assert!(ran.out.starts_with("100: the file is missing\n"), "{ran:?}");
    assert!(ran.out.contains(": 1 differences\n"), "{ran:?}");
    place.verify(&place.new, &[]).succeeded();
}

/// Sizes that are in no patch decide where the new tree is cut into units: a wrong old tree is no
/// damage of the patch.
#[test]
fn an_old_tree_of_the_same_bytes_in_files_of_other_sizes_is_named() {
    let place = Place::with_trees();
    let (a, b, mut c) = (noise(1_500_000, 1), noise(900_000, 2), noise(500_000, 3));
    for root in [&place.old, &place.new] {
        file(root, "a", &a);
        file(root, "b", &b);
        file(root, "between", noise(300_000, 5));
        file(root, "c", &c);
        file(root, "d", noise(1_900_000, 4));
    }
    for at in (5_000..500_000).step_by(9_973) {
        c[at] ^= 1;
    }
    file(&place.new, "c", &c);
    place.diff(&[]).succeeded();
    file(&place.old, "a", &b);
    file(&place.old, "b", &a);
    place.apply(&[]).refused("is not what the patch was made from");
    let ran = place.verify(&place.old, &["--old"]).differed();
    for name in ["a", "b"] {
        assert!(ran.out.contains(&format!("{name}: its contents differ\n")), "{ran:?}");
    }
}

#[test]
fn verification_looks_at_the_root_itself() {
    let place = Place::with_trees();
    file(&place.new, "a", "a");
    mode(&place.new, 0o755);
    place.diff(&[]).succeeded();
    mode(&place.new, 0o700);
    let ran = place.verify(&place.new, &[]).differed();
    let expected = format!("{}: its permissions are 0700 in place of 0755\n", shown(&place.new));
    assert!(ran.out.starts_with(&expected), "{ran:?}");
    let ran = place.verify(&at(&place.new, "a"), &[]).differed();
    assert!(ran.out.contains(": it is a file in place of a directory\n"), "{ran:?}");
}

#[test]
fn verification_finds_one_changed_byte_anywhere_in_a_large_file() {
    let place = Place::with_trees();
    let path = file(&place.new, "large", noise(5 * MIB as usize + 3, 1));
    place.diff(&[]).succeeded();
    let content = fs::read(&path).expect("it is there");
    for place_of_change in [0, 2 * MIB - 1, 2 * MIB, 4 * MIB, 5 * MIB + 2] {
        let mut changed = content.clone();
        changed[place_of_change as usize] ^= 0x10;
        file(&place.new, "large", &changed);
        let ran = place.verify(&place.new, &[]).differed();
        assert!(
            ran.out.starts_with("large: its contents differ\n"),
            "byte {place_of_change}: {ran:?}"
        );
    }
    file(&place.new, "large", &content);
    place.verify(&place.new, &[]).succeeded();
}

#[test]
fn verification_tells_the_two_trees_of_a_patch_apart() {
    let place = Place::with_trees();
    file(&place.old, "a", "old");
    file(&place.new, "a", "new");
    place.diff(&[]).succeeded();
    place.verify(&place.old, &["--old"]).succeeded();
    place.verify(&place.new, &[]).succeeded();
    let old_as_new = place.verify(&place.old, &[]).differed();
    let new_as_old = place.verify(&place.new, &["--old"]).differed();
    for ran in [old_as_new, new_as_old] {
        assert!(ran.out.starts_with("a: its contents differ\n"), "{ran:?}");
    }
}
