//! Trees come back identical, whatever is in them and whatever changed.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at the file system from outside the engine"
)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::{
    Place, allocated, assert_same, at, directory, file, finish, hard_link,
    inflight_as_ordinary_user, insert, is_root, link, mode, noise, picture, run, sparse, stat,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The permission bits of a path.
fn mode_of(path: &Path) -> u32 {
    stat(path).mode() & 0o7777
}

#[test]
fn names_of_any_bytes_come_back() {
    let place = Place::with_trees();
    file(&place.old, b"\xff\xfe", "old");
    let longest = [b'x'; 255];
    let names: [&[u8]; 12] = [
        b"\xff\xfe",
        b"new\nline",
        b"q\"uo'te",
        b"back\\slash",
        b" ",
        b"-o",
        b"...",
        b"\x01\x1b[0m",
        b"\xc3\xa9",
        b"*?",
        b"dir\xff/\xfe/f",
        &longest,
    ];
    for name in names {
        file(&place.new, name, name);
    }
    link(&place.new, b"\xfd", b"\xff\xfe");
    place.round_trip(&[]);
}

#[test]
fn new_tree_and_patch_may_have_the_longest_names() {
    let mut place = Place::with_trees();
    file(&place.new, "a", "a");
    place.patch = at(place.root(), [b'p'; 255]);
    place.built = at(place.root(), "\u{1f980}".repeat(63));
    place.round_trip(&[]);
}

#[test]
fn symbolic_links_come_back() {
    let place = Place::with_trees();
    file(&place.new, "file", "x");
    directory(&place.new, "directory");
    for (name, target) in [
        ("relative", "file"),
        ("absolute", "/etc/passwd"),
        ("dangling", "nothing/here"),
        ("to-directory", "directory"),
        ("up", "../.."),
        ("loop", "loop"),
        ("loop-1", "loop-2"),
        ("loop-2", "loop-1"),
    ] {
        link(&place.new, name, target);
    }
    link(&place.new, "long", "x".repeat(4000));
    link(&place.old, "relative", "elsewhere");
    place.round_trip(&[]);
}

#[test]
fn hard_links_come_back_across_directories() {
    let place = Place::with_trees();
    file(&place.new, "m", noise(3 * MIB, 1));
    directory(&place.new, "a/b");
    directory(&place.new, "z");
    for name in ["a/b/first", "n", "z/last"] {
        hard_link(&place.new, "m", name);
    }
    file(&place.new, "empty", "");
    hard_link(&place.new, "empty", "z/empty");
    file(&place.new, "same-content-1", "same");
    file(&place.new, "same-content-2", "same");
    place.round_trip(&[]);
    assert_eq!(stat(&at(&place.built, "m")).nlink(), 4);
    assert_eq!(stat(&at(&place.built, "same-content-1")).nlink(), 1);
}

#[test]
fn hard_links_may_come_apart_and_together() {
    let place = Place::with_trees();
    file(&place.old, "a", "together");
    hard_link(&place.old, "a", "b");
    file(&place.old, "c", "apart");
    file(&place.old, "d", "apart");
    file(&place.new, "a", "together");
    file(&place.new, "b", "together");
    file(&place.new, "c", "apart");
    hard_link(&place.new, "c", "d");
    place.round_trip(&[]);
}

#[test]
fn empty_files_and_directories_come_back() {
    let place = Place::with_trees();
    file(&place.old, "was-empty", "");
    file(&place.old, "becomes-empty", "x");
    file(&place.new, "was-empty", "x");
    file(&place.new, "becomes-empty", "");
    directory(&place.new, "empty/nested");
    // More than are made by one operation.
    for number in 0..600 {
        file(&place.new, format!("many/{number}"), "");
    }
    place.round_trip(&[]);
}

#[test]
fn permissions_come_back() {
    let place = Place::with_trees();
    for bits in [0o400, 0o644, 0o755, 0o777, 0o4755, 0o1644, 0o6711] {
        mode(&file(&place.new, format!("file-{bits:o}"), "x"), bits);
        mode(&file(&place.new, format!("empty-{bits:o}"), ""), bits);
    }
    for bits in [0o500, 0o755, 0o777, 0o1777] {
        mode(&directory(&place.new, format!("directory-{bits:o}")), bits);
    }
    mode(&file(&place.new, "large", noise(3 * MIB, 1)), 0o4750);
    mode(&file(&place.old, "file-777", "x"), 0o600);
    mode(&place.new, 0o1777);
    place.round_trip(&[]);
    assert_eq!(mode_of(&at(&place.built, "file-4755")), 0o4755);
    assert_eq!(mode_of(&place.built), 0o1777);
}

#[test]
fn permissions_that_shut_everybody_out_come_back() {
    if !is_root() {
        eprintln!("skipped: only root can look into such trees");
        return;
    }
    let place = Place::with_trees();
    file(&place.old, "a", "x");
    mode(&file(&place.new, "file", "x"), 0);
    let inner = directory(&place.new, "closed/inner");
    mode(&file(&inner, "file", "x"), 0);
    mode(&inner, 0);
    mode(&at(&place.new, "closed"), 0);
    mode(&place.new, 0);
    place.round_trip(&[]);
    assert_eq!(mode_of(&at(&place.built, "closed/inner/file")), 0);
    assert_eq!(mode_of(&place.built), 0);
}

#[test]
fn an_ordinary_user_gets_directories_that_forbid_writing() {
    let Some(mut command) = inflight_as_ordinary_user() else { return };
    let place = Place::with_trees();
    mode(&file(&place.old, "a", "1"), 0o644);
    mode(&place.old, 0o755);
    mode(&file(&place.new, "read-only/inner/a", "2"), 0o400);
    mode(&at(&place.new, "read-only/inner"), 0o555);
    mode(&at(&place.new, "read-only"), 0o500);
    mode(&place.new, 0o555);
    place.diff(&[]).succeeded();
    mode(&place.patch, 0o644);
    mode(place.root(), 0o777);
    command.arg("apply").arg(&place.patch).arg(&place.old).arg(&place.built);
    let ran = finish(&mut command);
    let same = ran.code == Some(0) && picture(&place.new) == picture(&place.built);
    // Without this an ordinary user could not clean up.
    for root in [&place.new, &place.built] {
        for name in ["", "read-only", "read-only/inner"] {
            if root.join(name).exists() {
                mode(&root.join(name), 0o755);
            }
        }
    }
    ran.succeeded();
    assert!(same);
}

#[test]
fn holes_come_back_as_holes() {
    let place = Place::with_trees();
    let mib = MIB as u64;
    let (one, two) = (noise(MIB, 1), noise(MIB, 2));
    sparse(&place.new, "start", 8 * mib, &[(7 * mib, &one[..])]);
    sparse(&place.new, "middle", 8 * mib, &[(0, &one[..]), (7 * mib, &two[..])]);
    sparse(&place.new, "end", 8 * mib, &[(0, &two[..])]);
    sparse(&place.new, "nothing-else", 64 * mib, &[]);
    sparse(&place.new, "odd", 8 * mib + 123, &[(3 * mib + 1, &b"x"[..])]);
    let long = noise(5 * MIB, 3);
    sparse(&place.new, "long", 32 * mib, &[(mib, &long[..]), (20 * mib, &long[..])]);
    file(&place.old, "start", &one);
    file(&place.old, "long", &long);
    place.round_trip(&[]);
    for name in ["start", "middle", "end", "nothing-else", "odd", "long"] {
        let bytes = stat(&at(&place.new, name)).len();
        let (before, after) =
            (allocated(&at(&place.new, name)), allocated(&at(&place.built, name)));
        if before > bytes / 2 {
            eprintln!("skipped: no holes on this file system");
            return;
        }
        assert!(after <= before + 64 * KIB as u64, "{name}: {after} bytes in place of {before}");
    }
}

#[test]
fn old_trees_with_holes_are_copied_from() {
    let place = Place::with_trees();
    let (mib, data) = (MIB as u64, noise(2 * MIB, 1));
    sparse(&place.old, "sparse", 16 * mib, &[(5 * mib, &data[..])]);
    file(&place.new, "dense", &data);
    sparse(&place.new, "moved", 32 * mib, &[(20 * mib, &data[..])]);
    let patch_bytes = place.round_trip(&[]);
    assert!(patch_bytes < 4 * KIB as u64, "{patch_bytes}");
}

#[test]
fn kinds_may_change() {
    let place = Place::with_trees();
    let (old, new) = (&place.old, &place.new);
    file(old, "file-to-directory", "x");
    file(new, "file-to-directory/inside", "y");
    file(old, "directory-to-file/inside", "x");
    file(new, "directory-to-file", "y");
    file(old, "file-to-link", "x");
    link(new, "file-to-link", "directory-to-file");
    link(old, "link-to-file", "file-to-directory");
    file(new, "link-to-file", "y");
    file(old, "directory-to-link/inside", "x");
    link(new, "directory-to-link", ".");
    link(old, "link-to-directory", ".");
    file(new, "link-to-directory/inside", "y");
    place.round_trip(&[]);
}

#[test]
fn names_may_change_in_case_only() {
    let place = Place::with_trees();
    let content = noise(MIB, 1);
    file(&place.old, "Name", &content);
    file(&place.old, "DIRECTORY/a", "a");
    file(&place.new, "name", &content);
    file(&place.new, "directory/a", "a");
    let patch_bytes = place.round_trip(&[]);
    assert!(patch_bytes < 4 * KIB as u64, "{patch_bytes}");
}

#[test]
fn moved_and_duplicated_files_cost_next_to_nothing() {
    let place = Place::with_trees();
    let content = noise(MIB, 1);
    file(&place.old, "a/b", &content);
    for name in ["c/d/e", "copy-1", "copy-2"] {
        file(&place.new, name, &content);
    }
    let patch_bytes = place.round_trip(&[]);
    assert!(patch_bytes < 4 * KIB as u64, "{patch_bytes}");
}

#[test]
fn small_changes_cost_little_at_any_size_of_file() {
    let place = Place::with_trees();
    for bytes in [2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 4 * MIB, 5 * MIB + 3] {
        let mut content = noise(bytes, bytes as u64);
        file(&place.old, format!("changed-{bytes}"), &content);
        file(&place.old, format!("longer-{bytes}"), &content);
        content[bytes / 2] ^= 1;
        file(&place.new, format!("changed-{bytes}"), &content);
        insert(&mut content, bytes / 3, b"inserted");
        file(&place.new, format!("longer-{bytes}"), &content);
    }
    let patch_bytes = place.round_trip(&[]);
    assert!(patch_bytes < 64 * KIB as u64, "{patch_bytes}");
}

#[test]
fn new_files_of_sizes_around_the_unit_come_back() {
    let place = Place::with_trees();
    for bytes in [1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 4 * MIB, 5 * MIB + 3] {
        file(&place.new, format!("{bytes}"), noise(bytes, bytes as u64));
    }
    place.round_trip(&[]);
}

#[test]
fn long_runs_of_one_byte_cost_next_to_nothing() {
    let place = Place::with_trees();
    file(&place.new, "zeros", vec![0; 20 * MIB]);
    file(&place.new, "ones", vec![0xff; 5 * MIB + 3]);
    let island = [vec![0; 3 * MIB], b"island".to_vec(), vec![0; 5 * MIB]].concat();
    file(&place.new, "island", island);
    let patch_bytes = place.round_trip(&[]);
    assert!(patch_bytes < 4 * KIB as u64, "{patch_bytes}");
}

#[test]
fn empty_trees_are_trees() {
    for (old_has_a_file, new_has_a_file) in [(false, false), (false, true), (true, false)] {
        let place = Place::with_trees();
        if old_has_a_file {
            file(&place.old, "a", "a");
        }
        if new_has_a_file {
            file(&place.new, "a", "a");
        }
        place.round_trip(&[]);
    }
}

#[test]
fn single_files_are_trees() {
    for (old, new) in [(300_000, 300_000), (5 * MIB, 3 * MIB), (0, 0), (0, 10), (10, 0)] {
        let place = Place::bare();
        mode(&file(place.root(), "old", noise(old, 1)), 0o755);
        mode(&file(place.root(), "new", noise(new, 1)), 0o640);
        place.round_trip(&[]);
    }
}

#[test]
fn single_files_may_be_named_through_links() {
    let place = Place::bare();
    file(place.root(), "old", noise(MIB, 1));
    file(place.root(), "new", noise(MIB + 1, 1));
    let (old, new) = (link(place.root(), "l1", "old"), link(place.root(), "l2", "new"));
    run(&[&"diff", &old, &new, &"-o", &place.patch]).succeeded();
    run(&[&"apply", &place.patch, &old, &place.built]).succeeded();
    run(&[&"verify", &place.patch, &new]).succeeded();
    assert_same(&picture(&place.new), &picture(&place.built));
}

#[test]
fn a_file_may_become_a_tree_and_a_tree_a_file() {
    let place = Place::bare();
    file(place.root(), "old", "a file");
    file(place.root(), "new/a", "in a tree");
    place.round_trip(&[]);
    let back = Place::bare();
    file(back.root(), "old/a", "in a tree");
    file(back.root(), "new", "a file");
    back.round_trip(&[]);
}

#[test]
fn very_deep_paths_come_back() {
    let place = Place::with_trees();
    let few_long_names = vec!["d".repeat(200); 19].join("/");
    file(&place.new, format!("{few_long_names}/file"), "deep");
    let many_short_names = vec!["d"; 200].join("/");
    file(&place.new, format!("{many_short_names}/file"), "deep");
    file(&place.old, format!("{many_short_names}/d/file"), "deeper");
    place.round_trip(&[]);
}
