//! What the tests share: trees to work on, pictures of them to compare, and the command itself.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use tempfile::TempDir;

/// The command under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_inflight");

/// A run that takes longer hangs: it is ended and counts as ended by a signal.
const PATIENCE: Duration = Duration::from_secs(600);

/// The command, without arguments yet.
pub fn inflight() -> Command {
    let mut command = Command::new(PROGRAM);
    command.timeout(PATIENCE);
    command
}

/// The command, run by a user without special rights. `None`, with a note, where that is no
/// option.
pub fn inflight_as_ordinary_user() -> Option<Command> {
    if !is_root() {
        return Some(inflight());
    }
    let arguments = ["--reuid=65534", "--regid=65534", "--clear-groups", PROGRAM];
    let mut probe = Command::new("setpriv");
    let probed = probe.args(arguments).arg("--version").output();
    if !probed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: setpriv cannot run the command as another user here");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(arguments).timeout(PATIENCE);
    Some(command)
}

/// Whether permissions mean nothing to this process.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs the command with these arguments.
pub fn run(arguments: &[&dyn AsRef<OsStr>]) -> Ran {
    finish(inflight().args(arguments))
}

/// Runs a command that has all its arguments.
pub fn finish(command: &mut Command) -> Ran {
    let output = command.output().expect("the command can be started");
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ran {
    /// It did what it was told, without a word on standard error.
    #[track_caller]
    pub fn succeeded(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.err, "", "{self:?}");
        self
    }

    /// It failed as a command should: status 1, and one sentence that mentions `what`.
    #[track_caller]
    pub fn refused(self, what: &str) -> Ran {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.err.starts_with("inflight: "), "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        assert!(self.err.contains(what), "no word about {what:?} in {self:?}");
        self
    }

    /// It found differences: status 1, and nothing on standard error.
    #[track_caller]
    pub fn differed(self) -> Ran {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.err, "", "{self:?}");
        self
    }
}

/// A directory for one test, with places for trees and a patch; removed at the end.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    /// Where the old tree goes.
    pub old: PathBuf,
    /// Where the new tree goes.
    pub new: PathBuf,
    /// Where the patch goes.
    pub patch: PathBuf,
    /// Where the tree that is built goes.
    pub built: PathBuf,
}

impl Place {
    /// A place with nothing in it.
    pub fn bare() -> Place {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [old, new, patch, built] =
            ["old", "new", "patch", "built"].map(|name| directory.path().join(name));
        Place { directory, old, new, patch, built }
    }

    /// A place with an old and a new directory, both empty.
    pub fn with_trees() -> Place {
        let place = Place::bare();
        fs::create_dir(&place.old).expect("an old tree");
        fs::create_dir(&place.new).expect("a new tree");
        place
    }

    /// All of it.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// A path of this name in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Makes the patch.
    pub fn diff(&self, options: &[&str]) -> Ran {
        let mut command = inflight();
        command.arg("diff").arg(&self.old).arg(&self.new).arg("-o").arg(&self.patch);
        finish(command.args(options))
    }

    /// Applies it.
    pub fn apply(&self, options: &[&str]) -> Ran {
        let mut command = inflight();
        command.arg("apply").arg(&self.patch).arg(&self.old).arg(&self.built);
        finish(command.args(options))
    }

    /// Compares a tree with it.
    pub fn verify(&self, tree: &Path, options: &[&str]) -> Ran {
        let mut command = inflight();
        command.arg("verify").arg(&self.patch).arg(tree);
        finish(command.args(options))
    }

    /// Makes the patch with these options and applies it; checks that the new tree came back,
    /// that verification agrees, and that nothing was touched or left behind. Returns the bytes
    /// of the patch.
    #[track_caller]
    pub fn round_trip(&self, options: &[&str]) -> u64 {
        let (old, new) = (picture_with_stamps(&self.old), picture_with_stamps(&self.new));
        self.diff(options).succeeded();
        self.apply(&[]).succeeded();
        assert_same(&picture(&self.new), &picture(&self.built));
        self.verify(&self.built, &[]).succeeded();
        self.verify(&self.new, &[]).succeeded();
        self.verify(&self.old, &["--old"]).succeeded();
        assert_same(&old, &picture_with_stamps(&self.old));
        assert_same(&new, &picture_with_stamps(&self.new));
        assert_eq!(left_over(self.root()), Vec::<PathBuf>::new());
        self.patch_bytes()
    }

    /// Does something that must change nothing in here: neither the inputs, nor by leaving
    /// anything behind.
    #[track_caller]
    pub fn unchanged_by<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = self.stamped();
        let result = act();
        assert_same(&before, &self.stamped());
        result
    }

    fn stamped(&self) -> Picture {
        let mut picture = picture_with_stamps(self.root());
        // Something may have come and gone.
        if let Some(root) = picture.get_mut(Path::new("")) {
            root.stamps = None;
        }
        picture
    }

    /// The bytes of the patch.
    pub fn patch_bytes(&self) -> u64 {
        fs::metadata(&self.patch).expect("there is a patch").len()
    }
}

/// A path for a message's text.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The path of this name, which need not be UTF-8, below `root`.
pub fn at(root: &Path, name: impl AsRef<[u8]>) -> PathBuf {
    root.join(OsStr::from_bytes(name.as_ref()))
}

/// Makes a file, and the directories it lies in.
pub fn file(root: &Path, name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = at(root, name);
    fs::create_dir_all(path.parent().expect("it lies in a tree")).expect("its directories");
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    path
}

/// Makes a directory, and those it lies in.
pub fn directory(root: &Path, name: impl AsRef<[u8]>) -> PathBuf {
    let path = at(root, name);
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    path
}

/// Makes a symbolic link that says `target`.
pub fn link(root: &Path, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> PathBuf {
    let path = at(root, name);
    std::os::unix::fs::symlink(OsStr::from_bytes(target.as_ref()), &path)
        .unwrap_or_else(|error| panic!("{path:?}: {error}"));
    path
}

/// Makes a second name for a file.
pub fn hard_link(root: &Path, original: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> PathBuf {
    let path = at(root, name);
    fs::hard_link(at(root, original), &path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    path
}

/// Makes a named pipe.
pub fn fifo(root: &Path, name: impl AsRef<[u8]>) -> PathBuf {
    let path = at(root, name);
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .unwrap_or_else(|error| panic!("{path:?}: {error}"));
    path
}

/// Makes a socket.
pub fn socket(root: &Path, name: impl AsRef<[u8]>) -> PathBuf {
    let path = at(root, name);
    drop(UnixListener::bind(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")));
    path
}

/// Makes a file of `bytes` bytes that has data in these places only.
pub fn sparse(root: &Path, name: &str, bytes: u64, data: &[(u64, &[u8])]) -> PathBuf {
    let path = at(root, name);
    let file = File::create(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    file.set_len(bytes).expect("a file system with room for holes");
    for (offset, part) in data {
        file.write_all_at(part, *offset).expect("room on the disk");
    }
    path
}

/// Sets permissions.
pub fn mode(path: &Path, bits: u32) {
    let permissions = Permissions::from_mode(bits);
    fs::set_permissions(path, permissions).unwrap_or_else(|error| panic!("{path:?}: {error}"));
}

/// Sets the modification time, of a symbolic link itself.
pub fn set_modified(path: &Path, seconds: i64, nanoseconds: u32) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|error| panic!("{path:?}: {error}"));
}

/// Sets an extended attribute; says whether the file system has such a thing.
pub fn set_attribute(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).is_ok()
}

/// An extended attribute of at most 256 bytes.
pub fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0u8; 256];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

/// Bytes of the disk that a file takes.
pub fn allocated(path: &Path) -> u64 {
    stat(path).blocks() * 512
}

/// What the system knows about a path, of a symbolic link itself.
pub fn stat(path: &Path) -> Metadata {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// Bytes without a pattern, the same for the same seed.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Puts bytes into others.
pub fn insert(content: &mut Vec<u8>, place: usize, bytes: &[u8]) {
    let behind = content.split_off(place);
    content.extend_from_slice(bytes);
    content.extend_from_slice(&behind);
}

/// A tree as it looks, by paths below its root.
pub type Picture = BTreeMap<PathBuf, Drawn>;

/// One entry of a tree as it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    kind: Kind,
    mode: u32,
    /// The first of the names of a file that has several; else its only one.
    first_name: PathBuf,
    stamps: Option<Stamps>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    File { bytes: u64, hash: u64 },
    Symlink { target: PathBuf },
    Special,
}

/// What changes whenever somebody touches an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamps {
    modified: (i64, i64),
    changed: (i64, i64),
    owner: (u32, u32),
    inode: u64,
}

/// Names, kinds, permissions, contents and links of a tree.
pub fn picture(root: &Path) -> Picture {
    draw(root, false)
}

/// The same with times, owners and inodes: what must not change in a tree that is only read.
pub fn picture_with_stamps(root: &Path) -> Picture {
    draw(root, true)
}

fn draw(root: &Path, stamps: bool) -> Picture {
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut picture = Picture::new();
    for (path, metadata) in list(root) {
        let identity = (metadata.dev(), metadata.ino());
        let first_name = first_names.entry(identity).or_insert_with(|| path.clone()).clone();
        let is_link = metadata.file_type().is_symlink();
        let drawn = Drawn {
            kind: kind(&below(root, &path), &metadata),
            mode: if is_link { 0 } else { metadata.mode() & 0o7777 },
            first_name,
            stamps: stamps.then(|| Stamps {
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
                owner: (metadata.uid(), metadata.gid()),
                inode: metadata.ino(),
            }),
        };
        picture.insert(path, drawn);
    }
    picture
}

/// All paths below a root and the root itself, in order.
fn list(root: &Path) -> BTreeMap<PathBuf, Metadata> {
    let mut listed = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let here = below(root, &path);
        let metadata = stat(&here);
        if metadata.is_dir() {
            let entries = fs::read_dir(&here).unwrap_or_else(|error| panic!("{here:?}: {error}"));
            for entry in entries {
                waiting.push(path.join(entry.expect("an entry").file_name()));
            }
        }
        listed.insert(path, metadata);
    }
    listed
}

fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(path) }
}

fn kind(path: &Path, metadata: &Metadata) -> Kind {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_file() {
        Kind::File { bytes: metadata.len(), hash: hash_of(path) }
    } else if file_type.is_symlink() {
        Kind::Symlink { target: fs::read_link(path).expect("a link says something") }
    } else {
        Kind::Special
    }
}

fn hash_of(path: &Path) -> u64 {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        if count == 0 {
            return hasher.finish();
        }
        hasher.write(&buffer[..count]);
    }
}

/// Two trees look the same.
#[track_caller]
pub fn assert_same(expected: &Picture, found: &Picture) {
    let paths: BTreeSet<&PathBuf> = expected.keys().chain(found.keys()).collect();
    let mut differing = Vec::new();
    for path in paths {
        let (should, is) = (expected.get(path), found.get(path));
        if should != is {
            differing.push(format!("{path:?}: {is:?} in place of {should:?}"));
        }
    }
    assert!(differing.is_empty(), "the trees differ:\n{}", differing.join("\n"));
}

/// Everything below a directory that looks unfinished by its name.
pub fn left_over(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(here) = waiting.pop() {
        // What is closed to the test cannot have been made by it.
        let Ok(entries) = fs::read_dir(&here) else { continue };
        for entry in entries {
            let entry = entry.expect("an entry");
            if entry.file_name().to_string_lossy().contains(".inflight-") {
                found.push(entry.path());
            }
            if entry.file_type().expect("its kind").is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    found
}
