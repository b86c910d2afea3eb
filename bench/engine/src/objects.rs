//! Whole files into memory: `Handle::load` beside what one would use instead; and a walk of a tree.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use inflight::stream::{Load, LoadOptions};

use crate::Places;

/// Loads one file, or many of a directory at once of which chance drops half, and touches every page. Gives
/// the bytes that were loaded.
pub fn run(engine: &str, path: &str) -> u64 {
    let path = Path::new(path);
    let mut files = match path.is_dir() {
        true => std::fs::read_dir(path).expect("a directory").map(|e| e.unwrap().path()).collect(),
        false => vec![path.to_path_buf()],
    };
    files.sort();
    match engine {
        "inflight" => with_inflight(&files, LoadOptions::new()),
        // SAFETY: nobody changes the files.
        "inflight-mapping" => {
            with_inflight(&files, unsafe { LoadOptions::new().mapping_what_is_cached() })
        }
        "tokio" => with_tokio(&files),
        "mmap" => files
            .iter()
            .enumerate()
            .filter(|(at, _)| is_kept(&files, *at))
            .map(|(_, f)| mapped(f))
            .sum(),
        other => panic!("no engine {other:?}"),
    }
}

/// Everything below a directory, with its metadata or names only. Gives how much there is.
pub fn walk(path: &str, what: &str) -> u64 {
    let engine = inflight::Engine::new().expect("an engine");
    engine.block_on(async {
        let root = engine.open_directory(path).await.expect("a directory");
        match what {
            "" => inflight::stream::walk(&root).await.expect("walked").len() as u64,
            "names" => inflight::stream::walk_names(&root).await.expect("walked").len() as u64,
            other => panic!("{other:?} is not names"),
        }
    })
}

/// Whether a file is used; of several, half of them are dropped before they are there.
fn is_kept(files: &[PathBuf], at: usize) -> bool {
    files.len() == 1 || Places::new(at as u64 + 1).next(2) == 0
}

/// Reads a byte of every page.
fn touch(bytes: &[u8]) -> u64 {
    black_box(bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
    bytes.len() as u64
}

fn with_inflight(files: &[PathBuf], options: LoadOptions) -> u64 {
    let engine = inflight::Engine::builder().memory_bytes_max(2 << 30).build().expect("an engine");
    engine.block_on(async {
        let loads: Vec<Load> = files.iter().map(|file| engine.load_with(file, options)).collect();
        let mut kept = Vec::new();
        for (at, load) in loads.into_iter().enumerate() {
            match is_kept(files, at) {
                true => kept.push(load),
                false => drop(load),
            }
        }
        let mut bytes = 0;
        for mut load in kept {
            bytes += touch(load.ready().await.expect("loaded"));
        }
        bytes
    })
}

fn with_tokio(files: &[PathBuf]) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    runtime.block_on(async {
        let tasks: Vec<_> = files
            .iter()
            .map(|file| {
                let file = file.clone();
                tokio::spawn(async move { tokio::fs::read(file).await.expect("read") })
            })
            .collect();
        let mut kept = Vec::new();
        for (at, task) in tasks.into_iter().enumerate() {
            match is_kept(files, at) {
                true => kept.push(task),
                false => task.abort(),
            }
        }
        let mut bytes = 0;
        for task in kept {
            bytes += touch(&task.await.expect("a task"));
        }
        bytes
    })
}

/// A shared mapping, every page of it touched.
fn mapped(path: &Path) -> u64 {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(path).expect("opened");
    let length = file.metadata().expect("there").len() as usize;
    // SAFETY: a new mapping of a file that nobody changes, unmapped behind its last use.
    unsafe {
        let memory = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        assert_ne!(memory, libc::MAP_FAILED);
        libc::madvise(memory, length, libc::MADV_SEQUENTIAL);
        let bytes = touch(std::slice::from_raw_parts(memory.cast::<u8>(), length));
        libc::munmap(memory, length);
        bytes
    }
}
