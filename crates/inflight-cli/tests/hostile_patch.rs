//! Patches that lie: every checksum is right, what they say is not. None of it may name a place
//! outside the tree, be taken for something else, or take memory that its size does not justify.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at the file system from outside the engine"
)]

mod support;

use std::fs;
use std::path::PathBuf;

use inflight_patch::format::testing::{assemble, seal_block};
use support::{Place, file, left_over, run};

const STAGES: u8 = 1;
const NEW_MANIFEST: u8 = 2;
const OLD_MANIFEST: u8 = 3;
const INSTRUCTIONS: u8 = 5;
const LITERALS: u8 = 6;
const NEW_DIGESTS: u8 = 7;
const INDEX: u8 = 8;
const MORE_INSTRUCTIONS: u8 = 9;
const KEPT_DIGESTS: u8 = 16;

const HEADER_BYTES: usize = 40;
const BLOCK_HEADER_BYTES: usize = 24;
const TRAILER_BYTES: usize = 40;

fn number_64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn number_32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// Where the index of a patch starts.
fn index_of(patch: &[u8]) -> usize {
    number_64(patch, patch.len() - TRAILER_BYTES) as usize
}

/// A block of a patch, unsealed.
#[derive(Debug, Clone)]
struct Block {
    kind: u8,
    stage: u8,
    raw_bytes: u32,
    payload: Vec<u8>,
}

impl Block {
    /// A block that is stored as it is.
    fn stored(kind: u8, payload: &[u8]) -> Block {
        Block { kind, stage: 0, raw_bytes: payload.len() as u32, payload: payload.to_vec() }
    }
}

/// A patch taken apart, to be put together otherwise.
#[derive(Debug, Clone)]
struct Forgery {
    old_bytes: u64,
    new_bytes: u64,
    blocks: Vec<Block>,
}

impl Forgery {
    fn of(patch: &[u8]) -> Forgery {
        let mut blocks = Vec::new();
        let (mut at, end) = (HEADER_BYTES, index_of(patch));
        while at < end {
            let payload_at = at + BLOCK_HEADER_BYTES;
            let payload_end = payload_at + number_32(patch, at + 8) as usize;
            blocks.push(Block {
                kind: patch[at],
                stage: patch[at + 1],
                raw_bytes: number_32(patch, at + 4),
                payload: patch[payload_at..payload_end].to_vec(),
            });
            at = payload_end;
        }
        Forgery { old_bytes: number_64(patch, 16), new_bytes: number_64(patch, 24), blocks }
    }

    /// The payload of the block of a kind.
    fn payload(&self, kind: u8) -> Vec<u8> {
        let block = self.blocks.iter().find(|block| block.kind == kind);
        block.expect("the patch has one of each").payload.clone()
    }

    /// The same with another block of a kind.
    fn with_block(&self, kind: u8, other: Block) -> Forgery {
        let mut forgery = self.clone();
        for block in &mut forgery.blocks {
            if block.kind == kind {
                *block = other.clone();
            }
        }
        forgery
    }

    /// The same with another payload in the block of a kind.
    fn with(&self, kind: u8, payload: &[u8]) -> Forgery {
        self.with_block(kind, Block::stored(kind, payload))
    }

    /// The same without the blocks of a kind.
    fn without(&self, kind: u8) -> Forgery {
        let mut forgery = self.clone();
        forgery.blocks.retain(|block| block.kind != kind);
        forgery
    }

    /// The same with the blocks of a kind as those of another.
    fn renumbered(&self, kind: u8, other: u8) -> Forgery {
        let mut forgery = self.clone();
        forgery.blocks.iter_mut().filter(|b| b.kind == kind).for_each(|b| b.kind = other);
        forgery
    }

    /// The same with two blocks in each other's place.
    fn swapped(&self, one: usize, other: usize) -> Forgery {
        let mut forgery = self.clone();
        forgery.blocks.swap(one, other);
        forgery
    }

    fn seal(&self) -> Vec<u8> {
        let mut sealed = Vec::new();
        for block in &self.blocks {
            sealed.push(seal_block(block.kind, block.stage, block.raw_bytes, &block.payload));
        }
        assemble(self.old_bytes, self.new_bytes, &sealed)
    }
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

fn signed(value: i64) -> Vec<u8> {
    number(((value << 1) ^ (value >> 63)) as u64)
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [number(bytes.len() as u64), bytes.to_vec()].concat()
}

/// What an entry adds to each column of a manifest.
type Entry = [Vec<u8>; COLUMNS];

const COLUMNS: usize = 15;
const MODES: usize = 3;
const SIZES: usize = 4;
const HOLES: usize = 7;
const LINKS: usize = 8;
const KEPT: usize = 14;

/// An entry of a manifest, up to its path.
fn entry(kind: u8, path: &[u8]) -> Entry {
    let mut entry = Entry::default();
    entry[..3].clone_from_slice(&[vec![kind], vec![0], [path, &[0]].concat()]);
    entry
}

/// The same with more in one column.
fn with(mut entry: Entry, column: usize, more: Vec<u8>) -> Entry {
    entry[column].extend(more);
    entry
}

fn directory_entry(path: &[u8]) -> Entry {
    with(entry(0, path), MODES, number(0o755))
}

/// A file's entry, up to its holes.
fn file_start(path: &[u8], mode: u64, bytes: u64) -> Entry {
    let start = with(entry(1, path), MODES, number(mode));
    let low = with(with(start, SIZES, vec![bytes as u8]), SIZES + 1, vec![(bytes >> 8) as u8]);
    with(low, SIZES + 2, number(bytes >> 16))
}

fn file_entry(path: &[u8], bytes: u64) -> Entry {
    with(file_start(path, 0o644, bytes), HOLES, number(0))
}

/// A kept file's entry, the last of a stretch.
fn kept_entry(path: &[u8], stretch_bytes: u64) -> Entry {
    with(with(entry(4, path), MODES, number(0o644)), KEPT, number(stretch_bytes))
}

fn link_entry(path: &[u8], target: &[u8]) -> Entry {
    with(entry(2, path), LINKS, text(target))
}

fn hard_link_entry(path: &[u8], original: u64) -> Entry {
    with(entry(3, path), LINKS, number(original))
}

fn manifest(entries: &[Entry]) -> Vec<u8> {
    let column = |number: usize| {
        text(&entries.iter().flat_map(|entry| entry[number].clone()).collect::<Vec<u8>>())
    };
    [vec![0], number(entries.len() as u64), (0..COLUMNS).flat_map(column).collect()].concat()
}

/// A manifest of a directory with these in it.
fn rooted(entries: &[Entry]) -> Vec<u8> {
    let mut all = vec![directory_entry(b"")];
    all.extend_from_slice(entries);
    manifest(&all)
}

/// Instructions from the start of the image: lengths with kinds, then what they need.
fn instructions(words: &[(u64, u64)], places: &[u8]) -> Vec<u8> {
    let mut out = [number(0), number(words.len() as u64)].concat();
    for (length, kind) in words {
        out.extend(number(length << 2 | kind));
    }
    out.extend_from_slice(places);
    out
}

const COPY: u64 = 0;
const LITERAL: u64 = 1;
const RUN: u64 = 2;

/// Two trees and their patch: a file `a` of 4 bytes that stays, and a file `b` of 4 new bytes.
fn place_with_patch() -> (Place, Forgery) {
    let place = Place::with_trees();
    file(&place.old, "a", "abcd");
    file(&place.new, "a", "abcd");
    file(&place.new, "b", "wxyz");
    place.diff(&[]).succeeded();
    let patch = fs::read(&place.patch).expect("there is a patch");
    (place, Forgery::of(&patch))
}

/// Applying `patch` is refused with a sentence that says `why`, nothing comes of it, and no other
/// command stumbles over it.
#[track_caller]
fn is_refused(place: &Place, patch: &[u8], why: &str) {
    fs::write(&place.patch, patch).expect("there is room");
    place.unchanged_by(|| {
        for ran in [
            run(&[&"info", &place.patch]),
            place.verify(&place.new, &[]),
            place.verify(&place.old, &["--old"]),
        ] {
            assert!(matches!(ran.code, Some(0 | 1)), "{why}: {ran:?}");
            assert!(!ran.err.contains("panicked"), "{why}: {ran:?}");
        }
        place.apply(&["--no-sync"]).refused(why);
    });
    assert_eq!(left_over(place.root()), Vec::<PathBuf>::new());
}

#[test]
fn a_forgery_that_changes_nothing_is_the_patch() {
    let (place, forgery) = place_with_patch();
    assert!(forgery.seal() == fs::read(&place.patch).expect("there is a patch"));
    fs::write(&place.patch, forgery.seal()).expect("there is room");
    place.apply(&[]).succeeded();
}

#[test]
fn paths_that_could_lead_out_of_the_tree_are_refused() {
    let (place, forgery) = place_with_patch();
    let too_long = [b'x'; 1025];
    let paths: [&[u8]; 11] = [
        b"../x",
        b"..",
        b".",
        b"./x",
        b"/x",
        b"//",
        b"a/../../x",
        b"a/..",
        b"a//b",
        b"a/",
        &too_long,
    ];
    for path in paths {
        for (kind, bytes) in [(NEW_MANIFEST, 8), (OLD_MANIFEST, 4)] {
            let mut entries = vec![file_entry(path, bytes)];
            if path.starts_with(b"a/") {
                entries.insert(0, directory_entry(b"a"));
            }
            let forged = forgery.with(kind, &rooted(&entries));
            is_refused(&place, &forged.seal(), " has a");
        }
    }
}

#[test]
fn manifests_that_are_no_trees_are_refused() {
    let (place, forgery) = place_with_patch();
    let twice = "is listed twice or out of order";
    let homeless = "is in no listed directory";
    let no_link = "is a link to no earlier file";
    let (a, b) = (file_entry(b"a", 8), file_entry(b"b", 0));
    let cases: [(Vec<u8>, &str); 17] = [
        (rooted(&[file_entry(b"a", 4), file_entry(b"a", 4)]), twice),
        (rooted(&[b, a.clone()]), twice),
        (rooted(&[link_entry(b"a", b"/tmp"), file_entry(b"a/b", 8)]), homeless),
        (rooted(&[a.clone(), file_entry(b"a/b", 0)]), homeless),
        (rooted(&[file_entry(b"a/b", 8)]), homeless),
        (rooted(&[a.clone(), hard_link_entry(b"b", 7)]), no_link),
        (rooted(&[a.clone(), hard_link_entry(b"b", 2)]), no_link),
        (rooted(&[a.clone(), hard_link_entry(b"b", 0)]), no_link),
        (rooted(&[link_entry(b"a", b"x"), hard_link_entry(b"b", 1)]), no_link),
        (rooted(&[link_entry(b"l", b"")]), "is no valid link"),
        (rooted(&[link_entry(b"l", b"x\0")]), "is no valid link"),
        (rooted(&[link_entry(b"l", &[b'x'; 4097])]), "is no valid link"),
        (rooted(&[with(file_start(b"a", 0o10644, 8), HOLES, number(0))]), "are no permissions"),
        // A zero ends a path: what follows is the next one's.
        (rooted(&[file_entry(b"a\0b", 8)]), "bytes too many"),
        (manifest(std::slice::from_ref(&a)), "does not start with its root"),
        (manifest(&[]), "does not start with its root"),
        ([rooted(&[a]), b"x".to_vec()].concat(), "bytes too many"),
    ];
    for (payload, why) in cases {
        is_refused(&place, &forgery.with(NEW_MANIFEST, &payload).seal(), why);
    }
    let through_link = rooted(&[link_entry(b"l", b"/etc"), file_entry(b"l/x", 4)]);
    is_refused(&place, &forgery.with(OLD_MANIFEST, &through_link).seal(), homeless);
}

#[test]
fn huge_counts_and_lengths_are_refused() {
    let (place, forgery) = place_with_patch();
    let with_holes = |rest: Vec<u8>| {
        let start = file_start(b"a", 0o644, 100);
        (NEW_MANIFEST, rooted(&[with(start, HOLES, rest)]))
    };
    let sizes = [file_entry(b"a", 1 << 62), file_entry(b"b", 1 << 62)];
    let mut shares_nine = file_entry(b"a", 8);
    shares_nine[1] = vec![9];
    let mut two_of_one = manifest(&[directory_entry(b"")]);
    two_of_one[1] = 2;
    let hole_starts_late = [number(1), number(4), number(u64::MAX)].concat();
    let holes_that_touch = [number(2), number(0), number(46), number(0), number(46)].concat();
    let cases: [((u8, Vec<u8>), &str); 12] = [
        ((NEW_MANIFEST, [vec![0], number(1 << 60)].concat()), "is more than there is"),
        ((NEW_MANIFEST, two_of_one), "is cut off"),
        ((NEW_MANIFEST, rooted(&[file_entry(b"a", 1 << 63)])), "more than 8 EiB"),
        ((NEW_MANIFEST, rooted(&sizes)), "more than 8 EiB"),
        ((NEW_MANIFEST, [vec![0], number(1), number(1 << 40)].concat()), "more than there is"),
        ((NEW_MANIFEST, rooted(&[shares_nine])), "shares more than there is"),
        (with_holes(number(1 << 50)), "is more than there is"),
        (with_holes(hole_starts_late), "a hole reaches past its file"),
        (with_holes(holes_that_touch), "holes touch or are empty"),
        ((STAGES, number(1 << 62)), "is more than there is"),
        ((INSTRUCTIONS, [number(0), number(1 << 61)].concat()), "is more than there is"),
        ((INSTRUCTIONS, instructions(&[(1 << 61, LITERAL)], b"")), "makes nothing or too much"),
    ];
    for ((kind, payload), why) in cases {
        is_refused(&place, &forgery.with(kind, &payload).seal(), why);
    }
    for (old_bytes, new_bytes) in [(u64::MAX, 8), (4, 1 << 63)] {
        let forged = Forgery { old_bytes, new_bytes, ..forgery.clone() };
        is_refused(&place, &forged.seal(), "the header claims more than");
    }
}

#[test]
fn instructions_that_do_not_make_the_new_tree_are_refused() {
    let (place, forgery) = place_with_patch();
    let starts_late =
        [number(1), number(2), number(3 << 2 | COPY), number(4 << 2 | LITERAL)].concat();
    let cases: [(Vec<u8>, &str); 8] = [
        (instructions(&[(8, COPY)], &signed(0)), "a copy reaches outside the old tree"),
        (instructions(&[(4, COPY), (4, LITERAL)], &signed(-1)), "a copy reaches outside"),
        (instructions(&[(4, COPY), (4, LITERAL)], &signed(i64::MIN)), "a copy reaches outside"),
        (instructions(&[(0, RUN)], b"q"), "makes nothing or too much"),
        ([starts_late, signed(-1)].concat(), "a group starts at 1 in place of 0"),
        (instructions(&[(8, LITERAL)], b""), "do not use up its literals"),
        (instructions(&[(8, RUN)], b"q"), "do not use up its literals"),
        (instructions(&[(4, COPY), (4, LITERAL)], b"\0zzz"), "bytes too many"),
    ];
    for (payload, why) in cases {
        is_refused(&place, &forgery.with(INSTRUCTIONS, &payload).seal(), why);
    }
    let short = forgery.with(INSTRUCTIONS, &instructions(&[(4, LITERAL)], b""));
    is_refused(&place, &short.seal(), "the instructions end before the new tree does");
}

#[test]
fn contents_that_have_another_digest_are_refused() {
    let (place, forgery) = place_with_patch();
    let other = forgery.with(LITERALS, b"wxyZ");
    is_refused(&place, &other.seal(), "b came out wrong when it was built");
    let mut digests = forgery.payload(NEW_DIGESTS);
    *digests.last_mut().expect("it is not empty") ^= 1;
    is_refused(&place, &forgery.with(NEW_DIGESTS, &digests).seal(), "b came out wrong");
    let mut digests = forgery.payload(KEPT_DIGESTS);
    *digests.last_mut().expect("it is not empty") ^= 1;
    let forged = forgery.with(KEPT_DIGESTS, &digests);
    is_refused(&place, &forged.seal(), "old/a is not what the patch was made from");
}

/// Another payload for the block of a kind.
type Forged = (u8, Vec<u8>);

#[test]
fn kept_files_that_are_not_the_same_in_both_trees_are_refused() {
    let (place, forgery) = place_with_patch();
    let (old, new) = (OLD_MANIFEST, NEW_MANIFEST);
    let b = || file_entry(b"b", 4);
    let cases: [(&[Forged], &str); 6] = [
        (&[(old, rooted(&[file_entry(b"a", 4)]))], "do not keep the same files"),
        (&[(old, rooted(&[kept_entry(b"c", 4)]))], "do not keep the same files"),
        (&[(old, rooted(&[kept_entry(b"a", 3)]))], "different amounts of data"),
        (&[(new, rooted(&[kept_entry(b"a", 3), b()]))], "different amounts of data"),
        (&[(new, rooted(&[kept_entry(b"a", 0), b()]))], "less than a byte each"),
        (
            &[(old, rooted(&[file_entry(b"a", 4)])), (new, rooted(&[file_entry(b"a", 4), b()]))],
            "not one digest for each file",
        ),
    ];
    for (blocks, why) in cases {
        let forged = blocks
            .iter()
            .fold(forgery.clone(), |forged, (kind, payload)| forged.with(*kind, payload));
        is_refused(&place, &forged.seal(), why);
    }
    // What the old tree has now counts.
    fs::write(place.old.join("a"), "abc").expect("there is room");
    is_refused(&place, &forgery.seal(), "old/a is not what the patch was made from");
    fs::write(place.old.join("a"), "abcde").expect("there is room");
    is_refused(&place, &forgery.seal(), "it has 5 bytes in place of at most 4");
    fs::write(place.old.join("a"), "").expect("there is room");
    is_refused(&place, &forgery.seal(), "it is empty");
}

#[test]
fn numbers_of_digests_and_bytes_must_agree_with_the_manifests() {
    let (place, forgery) = place_with_patch();
    for kind in [KEPT_DIGESTS, NEW_DIGESTS] {
        let digests = forgery.payload(kind);
        for payload in [Vec::new(), digests[..5].to_vec(), [&digests[..], &digests[..]].concat()] {
            is_refused(&place, &forgery.with(kind, &payload).seal(), "is damaged");
        }
        is_refused(&place, &forgery.without(kind).seal(), "is damaged");
    }
    for (old_bytes, new_bytes) in [(5, 8), (3, 8), (4, 9), (4, 7), (0, 0)] {
        let forged = Forgery { old_bytes, new_bytes, ..forgery.clone() };
        is_refused(&place, &forged.seal(), "speak of different amounts of data");
    }
}

#[test]
fn blocks_that_cannot_be_are_refused() {
    let (place, forgery) = place_with_patch();
    let literals = |stage: u8, raw_bytes: u32| {
        let payload = b"wxyz".to_vec();
        let block = Block { kind: LITERALS, stage, raw_bytes, payload };
        forgery.with_block(LITERALS, block).seal()
    };
    is_refused(&place, &literals(0, 100), "two lengths differ");
    is_refused(&place, &literals(0, 3), "lists a block that cannot be");
    is_refused(&place, &literals(0, u32::MAX), "lists a block that cannot be");
    is_refused(&place, &literals(1, 100), "does not decode");
    is_refused(&place, &literals(7, 4), "stage 7 is not in the patch's table");
    is_refused(&place, &forgery.swapped(1, 2).seal(), "wrong order");
    is_refused(&place, &forgery.swapped(4, 5).seal(), "wrong order");
    let stray = forgery.renumbered(INSTRUCTIONS, MORE_INSTRUCTIONS);
    is_refused(&place, &stray.seal(), "wrong order");
    for kind in [NEW_MANIFEST, OLD_MANIFEST, INSTRUCTIONS] {
        is_refused(&place, &forgery.without(kind).seal(), "wrong order");
    }
    is_refused(&place, &forgery.without(LITERALS).seal(), "do not use up its literals");
    is_refused(&place, &forgery.without(STAGES).seal(), "the index does not cover the patch");
    is_refused(&place, &assemble(4, 8, &[]), "the index does not cover the patch");
}

#[test]
fn what_this_version_does_not_know_is_named() {
    let (place, forgery) = place_with_patch();
    let unknown_entry = rooted(&[file_entry(b"a", 8), entry(9, b"b")]);
    // Whichever stage a block uses is not known.
    let stages = |name: &[u8], version: u64| {
        [number(4), [text(name), number(version)].concat().repeat(4)].concat()
    };
    let (unknown_stage, newer_stage) = (stages(b"brotli", 1), stages(b"zstd", 9));
    for (kind, payload, what) in [
        (NEW_MANIFEST, unknown_entry, "entries of kind 9"),
        (NEW_MANIFEST, vec![0x80, 1, 0, 0, 0, 0], "preserved properties 0x80"),
        (STAGES, unknown_stage, "the stage \"brotli\" version 1"),
        (STAGES, newer_stage, "the stage \"zstd\" version 9"),
        (INSTRUCTIONS, instructions(&[(8, 3)], b""), "instructions of kind 3"),
    ] {
        let sentence = format!("needs {what}, which this version does not know; update inflight");
        is_refused(&place, &forgery.with(kind, &payload).seal(), &sentence);
    }
    let patch = forgery.seal();
    let (start, end) = (index_of(&patch), patch.len() - TRAILER_BYTES);
    assert_eq!(patch[start..start + 2], [INDEX, 0], "a short index is stored as it is");
    let mut payload = patch[start + BLOCK_HEADER_BYTES..end].to_vec();
    payload[1] = 77;
    let index = seal_block(INDEX, 0, payload.len() as u32, &payload);
    let patch = [&patch[..start], &index[..], &patch[end..]].concat();
    is_refused(&place, &patch, "needs blocks of kind 77, which");
}

#[test]
fn patches_of_another_version_are_refused_by_their_version() {
    let (place, forgery) = place_with_patch();
    // Version and flags, with the checksum of a header that says 0 bytes of data.
    for (version, flags, checksum, what) in [
        (1, 0, *b"\xef\x75\x4e\x7f\x79\x14\xee\x15", "format version 1"),
        (3, 0, *b"\x40\x2e\x69\x74\x0e\xf3\xc4\xda", "format version 3"),
        (4, 1, *b"\xaa\x53\x0f\xdd\x69\xb9\xe6\xff", "a feature flagged in the header"),
    ] {
        let mut patch = forgery.seal();
        patch[8..HEADER_BYTES].fill(0);
        (patch[8], patch[10]) = (version, flags);
        patch[32..HEADER_BYTES].copy_from_slice(&checksum);
        let sentence = format!("needs {what}, which this version does not know; update inflight");
        is_refused(&place, &patch, &sentence);
    }
}
