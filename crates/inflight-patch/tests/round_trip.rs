//! Any tree against any other: what is applied is what was meant, on both drivers, whatever the
//! threads, and verify agrees.
#![allow(clippy::disallowed_methods, reason = "looks at trees from outside the engine")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use inflight::{DriverChoice, Engine};
use inflight_patch::{ApplyOptions, DiffOptions, Job, Preset, Side, apply, diff, verify};
use proptest::prelude::*;

/// What a name in a model tree is.
#[derive(Debug, Clone)]
enum Node {
    File(Content, u32),
    Directory(Vec<(Name, Node)>),
    Symlink(Name),
}

type Name = Vec<u8>;

/// File contents as pieces that the other tree is likely to have as well.
#[derive(Debug, Clone)]
struct Content(Vec<(u8, u32, u32)>);

impl Content {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, start, length) in &self.0 {
            let length = *length as usize;
            match kind {
                0 => out.resize(out.len() + length, *start as u8),
                _ => out.extend((0..length).map(|i| noise(*start as usize + i))),
            }
        }
        out
    }
}

/// One endless sequence that all files are cut from.
fn noise(position: usize) -> u8 {
    let mut z = (position as u64 / 8).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> (8 * (position % 8))) as u8
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c", "A", "a.b", "a-b"]).prop_map(|s| s.into()),
        1 => prop::collection::vec(any::<u8>(), 1..12).prop_map(|mut name| {
            name.iter_mut().for_each(|byte| if matches!(byte, 0 | b'/') { *byte = 0xff });
            if name.iter().all(|byte| *byte == b'.') { name = b"dots".to_vec() }
            name
        }),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let piece = (0u8..4, 0u32..200_000, prop_oneof![0u32..2_000, 0u32..40_000]);
    prop::collection::vec(piece, 0..5).prop_map(Content)
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        4 => (content(), prop::sample::select(vec![0o644, 0o755, 0o600, 0o4711, 0o000]))
            .prop_map(|(content, mode)| Node::File(content, mode)),
        1 => name().prop_map(Node::Symlink),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop::collection::vec((name(), inner), 0..6).prop_map(Node::Directory)
    })
}

fn tree() -> impl Strategy<Value = Node> {
    prop::collection::vec((name(), node()), 0..7).prop_map(Node::Directory)
}

/// Puts a model on disk. Of two nodes of one name the first counts.
fn build(node: &Node, path: &Path) {
    match node {
        Node::File(content, mode) => {
            std::fs::write(path, content.bytes()).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(*mode)).unwrap();
        }
        Node::Symlink(target) => {
            std::os::unix::fs::symlink(OsString::from_vec(target.clone()), path).unwrap();
        }
        Node::Directory(children) => {
            std::fs::create_dir(path).unwrap();
            for (name, child) in children {
                let path = path.join(OsString::from_vec(name.clone()));
                if path.symlink_metadata().is_err() {
                    build(child, &path);
                }
            }
        }
    }
}

/// Everything that must come back: kind, permissions, contents or target.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (char, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let full = root.join(&path);
        let metadata = full.symlink_metadata().unwrap();
        let entry = if metadata.is_symlink() {
            ('l', 0, std::fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec())
        } else if metadata.is_dir() {
            for child in std::fs::read_dir(&full).unwrap() {
                waiting.push(path.join(child.unwrap().file_name()));
            }
            ('d', metadata.mode() & 0o7777, Vec::new())
        } else {
            ('f', metadata.mode() & 0o7777, std::fs::read(&full).unwrap())
        };
        found.insert(path, entry);
    }
    found
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_becomes_any_other(old in tree(), new in tree(), preset in 0..3u8) {
        let place = tempfile::tempdir().unwrap();
        let [old_path, new_path] = ["old", "new"].map(|name| place.path().join(name));
        build(&old, &old_path);
        build(&new, &new_path);
        // Files that nobody may read are for the superuser only.
        prop_assume!(is_root() || !has_unreadable(&old) && !has_unreadable(&new));
        let expected = snapshot(&new_path);
        let before = snapshot(&old_path);
        let preset = [Preset::Fast, Preset::Default, Preset::Small][usize::from(preset)];
        let options = DiffOptions { preset, ..DiffOptions::default() };
        let mut patches = Vec::new();
        for (driver, threads) in [(DriverChoice::Uring, 1), (DriverChoice::Threads, 3)] {
            let engine = Engine::builder().driver(driver).memory_bytes_max(1 << 30).build();
            let engine = match engine {
                Ok(engine) => engine,
                // Where the system forbids io_uring there is only one driver to test.
                Err(_) if driver == DriverChoice::Uring => continue,
                Err(error) => panic!("{error}"),
            };
            let job = Job::new(engine.handle(), threads).unwrap();
            let patch = place.path().join(format!("patch-{threads}"));
            let built = place.path().join(format!("built-{threads}"));
            engine.block_on(async {
                diff(&job, &old_path, &new_path, &patch, options).await.unwrap();
                let options = ApplyOptions { sync: false };
                apply(&job, &patch, &old_path, &built, options).await.unwrap();
                for (side, tree) in [(Side::New, &built), (Side::Old, &old_path)] {
                    let report = verify(&job, &patch, tree, side).await.unwrap();
                    assert_eq!(report.differences, []);
                }
            });
            prop_assert_eq!(snapshot(&built), expected.clone());
            patches.push(std::fs::read(&patch).unwrap());
        }
        prop_assert_eq!(snapshot(&old_path), before, "the old tree is only read");
        prop_assert!(patches.windows(2).all(|pair| pair[0] == pair[1]), "the same patch");
    }
}

fn has_unreadable(node: &Node) -> bool {
    match node {
        Node::File(_, mode) => mode & 0o400 == 0,
        Node::Directory(children) => children.iter().any(|(_, child)| has_unreadable(child)),
        Node::Symlink(_) => false,
    }
}
