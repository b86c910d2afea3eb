//! What the tests share: a tree with something of everything, and a look at a tree that compares.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::stream::{Reader, walk};
use inflight::{
    Buffer, DriverChoice, Engine, FileKind, NewFile, OpenOptions, Owner, Progress, SetMetadata,
    SetTimes, SimulatedDisk, Timestamp,
};
use inflight_tools::{CopyOptions, CopyReport, copy};

/// An engine on each driver that the system allows.
pub fn engines() -> Vec<Engine> {
    let drivers = [DriverChoice::Uring, DriverChoice::Threads];
    let build = |driver| Engine::builder().driver(driver).memory_bytes_max(64 << 20).build();
    let engines: Vec<Engine> =
        drivers.into_iter().filter_map(|driver| build(driver).ok()).collect();
    assert!(!engines.is_empty(), "threads work everywhere");
    engines
}

pub fn simulated(disk: &SimulatedDisk) -> Engine {
    Engine::builder().memory_bytes_max(64 << 20).simulated(disk)
}

/// Runs a test on each driver of the system's, in a directory of its own, and on a simulated disk.
pub fn everywhere(test: impl Fn(&Engine, &Path)) {
    for engine in engines() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        test(&engine, directory.path());
    }
    let engine = simulated(&SimulatedDisk::new(1));
    engine.block_on(engine.create_directory("/place", 0o755)).expect("made");
    test(&engine, Path::new("/place"));
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub fn bytes(engine: &Engine, content: &[u8]) -> Buffer {
    let mut buffer = engine.pool().try_get(content.len().max(1)).expect("within the budget");
    buffer.extend_from_slice(content);
    buffer
}

pub async fn write(engine: &Engine, path: &Path, content: &[u8]) {
    let above = engine.open_directory(path.parent().expect("a parent")).await.expect("there");
    let name = Path::new(path.file_name().expect("a name"));
    let file = NewFile::new(name, 0o640, 0, content.len()).expect("a name");
    above.write_files(vec![file], bytes(engine, content)).await.expect("written");
}

pub async fn set_time(engine: &Engine, path: &Path, seconds: i64) {
    let above = engine.open_directory(path.parent().expect("a parent")).await.expect("there");
    let time = Some(Timestamp { seconds, nanoseconds: 123_456_789 });
    let times = SetTimes { accessed: time, modified: time };
    above.set_times(path.file_name().expect("a name"), times).await.expect("set");
}

/// Makes a tree with something of everything at `root`.
pub async fn make_tree(engine: &Engine, root: &Path) {
    engine.create_directory(root, 0o755).await.expect("made");
    let directory = engine.open_directory(root).await.expect("there");
    for inner in ["empty", "inner", "inner/deep", "inner/deep/er", "many", "tight"] {
        directory.create_directory(inner, 0o755).await.expect("made");
    }
    let files: Vec<(String, Vec<u8>)> = vec![
        ("a".into(), b"a small file".to_vec()),
        ("nothing".into(), Vec::new()),
        ("block".into(), noise(1, 4096)),
        ("inner/odd".into(), noise(2, 4097)),
        ("inner/deep/er/far".into(), noise(3, 70_000)),
        ("large".into(), noise(4, (5 << 20) + 17)),
        ("medium".into(), noise(5, 1_500_000)),
        ("tight/inside".into(), b"of one that nobody may write to".to_vec()),
        ("new\nline \u{fc}\u{1F980}".into(), b"an odd name".to_vec()),
    ];
    for (name, content) in &files {
        write(engine, &root.join(name), content).await;
    }
    for number in 0..150 {
        let content = noise(100 + number, (number as usize * 37) % 3000);
        write(engine, &root.join(format!("many/{number}")), &content).await;
    }
    // Half of it holes.
    let sparse = directory.open("sparse", OpenOptions::creating(0o600)).await.expect("made");
    sparse.truncate(3 << 20).await.expect("grown");
    sparse.write_all(bytes(engine, &noise(6, 8192)), 1 << 20).await.expect("written");
    sparse.write_all(bytes(engine, b"unaligned"), (2 << 20) + 5000).await.expect("written");
    // The same, of a size that is read around the page cache.
    let sparse = directory.open("sparse-large", OpenOptions::creating(0o600)).await.expect("made");
    sparse.truncate(5_000_001).await.expect("grown");
    sparse.write_all(bytes(engine, &noise(7, 9000)), 2_000_000).await.expect("written");
    directory.create_symlink("inner/odd", "link").await.expect("made");
    directory.create_symlink("nowhere at all", "inner/dangling").await.expect("made");
    directory.create_hard_link("block", "inner/second").await.expect("made");
    directory.create_hard_link("block", "third").await.expect("made");
    directory.create_node("socket", FileKind::Socket, 0o644, 0).await.expect("made");
    directory.set_mode("a", 0o4751).await.expect("set");
    directory.set_mode("inner/odd", 0o400).await.expect("set");
    directory.set_attribute("medium", b"user.color", b"blue".to_vec()).await.expect("set");
    directory.set_attribute("inner", b"user.of", b"a directory".to_vec()).await.expect("set");
    for (number, name) in ["a", "link", "inner/odd", "large", "sparse", "many/7"].iter().enumerate()
    {
        set_time(engine, &root.join(name), 1_000_000_000 + number as i64).await;
    }
    directory.set_mode("tight", 0o555).await.expect("set");
    for (number, name) in ["empty", "inner/deep", "inner", "tight"].iter().enumerate() {
        set_time(engine, &root.join(name), 900_000_000 + number as i64).await;
    }
    set_time(engine, root, 800_000_000).await;
}

/// All that is known about a thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub kind: FileKind,
    pub mode: u32,
    pub owner: Owner,
    pub modified: Timestamp,
    pub size: u64,
    pub links: u32,
    pub content: Vec<u8>,
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub holes: Vec<(u64, u64)>,
    /// The first name of the same file.
    pub first: PathBuf,
}

/// Everything in a tree, with its contents.
pub async fn look(engine: &Engine, root: &Path) -> BTreeMap<PathBuf, Known> {
    let directory = engine.open_directory(root).await.expect("there");
    let mut known = BTreeMap::new();
    let mut firsts: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut entries = walk(&directory).await.expect("walked");
    let metadata = directory.metadata("", true).await.expect("there");
    entries.push(inflight::stream::WalkEntry { path: PathBuf::from("."), metadata });
    for entry in entries {
        let (path, metadata) = (entry.path, entry.metadata);
        let first = firsts.entry(metadata.inode).or_insert_with(|| path.clone()).clone();
        let is_directory = metadata.kind == FileKind::Directory;
        let (mut content, mut holes) = (Vec::new(), Vec::new());
        match metadata.kind {
            FileKind::File => {
                let options = OpenOptions::reading();
                let file = directory.open(&path, options).await.expect("opened");
                let mut at = 0;
                while let Some((start, end)) = file.find_data(at).await.expect("found") {
                    holes.push((start, end));
                    at = end;
                }
                let mut reader = Reader::whole(file).await.expect("a file");
                while let Some((_, buffer)) = reader.next().await.expect("read") {
                    content.extend_from_slice(&buffer);
                }
            }
            FileKind::Symlink => content = directory.read_link(&path).await.expect("read"),
            _ => {}
        }
        let attributes = directory.attributes(&path).await.expect("read");
        let attributes = attributes.into_iter().map(|(n, v)| (n.into_bytes(), v)).collect();
        let about = Known {
            kind: metadata.kind,
            mode: metadata.mode,
            owner: metadata.owner,
            modified: metadata.modified,
            size: if is_directory { 0 } else { metadata.size },
            links: if is_directory { 0 } else { metadata.links },
            content,
            attributes,
            holes,
            first,
        };
        known.insert(path, about);
    }
    known
}

/// Says where two trees differ.
pub fn assert_same(a: &BTreeMap<PathBuf, Known>, b: &BTreeMap<PathBuf, Known>) {
    let names = |tree: &BTreeMap<PathBuf, Known>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for (path, known) in a {
        let other = &b[path];
        assert!(known.content == other.content, "{}: other contents", path.display());
        let bare = |known: &Known| Known { content: Vec::new(), ..known.clone() };
        assert_eq!(bare(known), bare(other), "{}", path.display());
    }
}

pub async fn run(
    engine: &Engine,
    sources: &[PathBuf],
    target: &Path,
    options: CopyOptions,
) -> inflight_tools::Result<CopyReport> {
    copy(engine, &Arc::new(Progress::default()), sources, target, options).await
}

/// Everything of `SetMetadata` for tests that change one thing.
pub fn nothing() -> SetMetadata {
    SetMetadata::default()
}
