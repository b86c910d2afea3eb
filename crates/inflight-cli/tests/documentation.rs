//! The worked example of docs/FORMAT.md is what the command writes, byte by byte.
#![allow(clippy::disallowed_methods, reason = "looks at trees from outside the engine")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use assert_cmd::Command;

/// The trees that the page's commands make.
fn build_trees(root: &Path) {
    let directory = |name: &str| {
        fs::create_dir(root.join(name)).expect("made");
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).expect("set");
    };
    let file = |name: &str, bytes: &[u8]| {
        fs::write(root.join(name), bytes).expect("written");
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o644)).expect("set");
    };
    ["old", "new", "new/docs"].into_iter().for_each(directory);
    let keep = b"Names are bytes. Numbers are little-endian.\n";
    let note = |word: &str| {
        let text = "The quick brown fox jumps over the lazy dog, WORD.\n\
                    Then it rests for the remainder of the day.\n";
        text.replace("WORD", word)
    };
    file("old/keep.txt", keep);
    file("old/license.txt", b"Do as you like.\n");
    file("old/note.txt", note("once").as_bytes());
    file("new/docs/keep.txt", keep);
    file("new/hello.txt", b"hello\n");
    file("new/license.txt", b"Do as you like.\n");
    file("new/note.txt", note("soon").as_bytes());
    fs::hard_link(root.join("new/note.txt"), root.join("new/same.txt")).expect("linked");
    file("new/sparse.img", b"");
    let sparse = fs::OpenOptions::new().write(true).open(root.join("new/sparse.img"));
    sparse.expect("opened").set_len(8192).expect("set");
    file("new/zeros.bin", &[0; 200]);
    symlink("docs/keep.txt", root.join("new/zlink")).expect("linked");
}

/// The bytes that the page shows, each with its place.
fn shown(page: &str) -> Vec<(usize, u8)> {
    let example = page.split_once("## A worked example").expect("the page has an example").1;
    let mut bytes = Vec::new();
    // What is shown of decoded blocks has places of its own.
    for block in example.split("\n**") {
        let block = block.split("Its raw bytes").next().unwrap_or(block);
        for line in block.lines() {
            let mut words = line.split_whitespace();
            let Some(Ok(place)) = words.next().map(str::parse::<usize>) else { continue };
            let hexadecimal = |word: &&str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
            let row = line.get(8..57.min(line.len())).unwrap_or("");
            for (at, word) in row.split_whitespace().take_while(hexadecimal).enumerate() {
                bytes.push((place + at, u8::from_str_radix(word, 16).expect("just looked at")));
            }
        }
    }
    bytes
}

#[test]
fn the_worked_example_is_what_is_written() {
    let place = tempfile::tempdir().expect("a temporary directory");
    build_trees(place.path());
    let mut command = Command::cargo_bin("inflight").expect("built");
    command.current_dir(place.path()).args(["diff", "old", "new", "-o", "tiny.patch"]);
    command.assert().success();
    let patch = fs::read(place.path().join("tiny.patch")).expect("written");
    let page = include_str!("../../../docs/FORMAT.md");
    let shown = shown(page);
    for (place, byte) in &shown {
        assert_eq!(patch.get(*place), Some(byte), "byte {place} of the example");
    }
    let mut places: Vec<usize> = shown.iter().map(|(place, _)| *place).collect();
    places.sort_unstable();
    places.dedup();
    assert!(places.iter().copied().eq(0..patch.len()), "all {} bytes are shown", patch.len());
}
