//! Trees larger than the memory allowed: the same patch, within the bound, or a clear refusal.
#![allow(clippy::disallowed_methods, reason = "looks at trees from outside the engine")]

mod support {
    pub mod noise;
    pub mod program;
}

use std::path::Path;

use inflight::{Engine, OpenOptions, SimulatedDisk};
use inflight_patch::{ApplyOptions, DiffOptions, Error, Job, apply, diff};
use support::noise::noise;
use support::program::{Function, program};

const MIB: usize = 1 << 20;

/// Old: noise. New: its segments at shifted offsets and in another order, with fresh bytes between.
fn build_pair(place: &Path) {
    let old = noise(96 * MIB, 1);
    let mut new = Vec::new();
    for (number, segment) in old.chunks(7 * MIB + 12_345).enumerate() {
        let at = if number % 4 == 3 { new.len() / 2 } else { new.len() };
        let fresh = noise(1000 * number + 77, 100 + number as u64);
        new.splice(at..at, [&fresh[..], segment].concat());
    }
    std::fs::write(place.join("old"), old).expect("written");
    std::fs::write(place.join("new"), new).expect("written");
}

/// Makes and applies a patch; gives the patch and the most memory that was reserved at once.
fn round_trip(place: &Path, memory: usize) -> (Vec<u8>, u64) {
    let engine = Engine::builder().memory_bytes_max(memory as u64).build().expect("an engine");
    let job = Job::new(engine.handle(), 2).expect("a job");
    let paths = ["old", "new", "patch", "built"].map(|name| place.join(name));
    let [old, new, patch, built] = &paths;
    engine.block_on(async {
        diff(&job, old, new, patch, DiffOptions::default()).await.expect("made");
        let options = ApplyOptions { sync: false };
        apply(&job, patch, old, built, options).await.expect("applied");
    });
    assert!(std::fs::read(built).unwrap() == std::fs::read(new).unwrap(), "the same bytes");
    std::fs::remove_file(built).unwrap();
    (std::fs::read(patch).unwrap(), engine.pool().budget().peak())
}

#[test]
fn an_old_tree_that_does_not_fit_makes_the_same_patch() {
    let place = tempfile::tempdir().expect("a temporary directory");
    build_pair(place.path());
    let (roomy, roomy_peak) = round_trip(place.path(), 1024 * MIB);
    let (tight, tight_peak) = round_trip(place.path(), 150 * MIB);
    assert!(roomy_peak > 150 * MIB as u64, "with room, the old tree is held whole");
    assert!(tight_peak <= 150 * MIB as u64, "{tight_peak} bytes reserved");
    assert!(roomy == tight, "memory changes the way, not the result");
    assert!(roomy.len() < MIB, "{} bytes for some fresh hundred KB", roomy.len());
}

#[test]
fn much_that_is_new_is_read_again_where_it_does_not_fit() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let old = noise(96 * MIB, 1);
    // Every other stretch is new: more than can be kept until all of the old file was read.
    let stretch = |(number, old): (usize, &[u8])| match number % 2 {
        0 => old.to_vec(),
        _ => noise(old.len() + 4_321, 50 + number as u64),
    };
    let new: Vec<u8> = old.chunks(2 * MIB - 99).enumerate().flat_map(stretch).collect();
    std::fs::write(place.path().join("old"), &old).expect("written");
    std::fs::write(place.path().join("new"), &new).expect("written");
    let (roomy, _) = round_trip(place.path(), 1024 * MIB);
    let (tight, peak) = round_trip(place.path(), 130 * MIB);
    assert!(peak <= 130 * MIB as u64, "{peak} bytes reserved");
    assert!(roomy == tight, "memory changes the way, not the result");
    assert!(roomy.len() < 49 * MIB, "{} bytes for 48 MiB that are new", roomy.len());
}

#[test]
fn what_moved_among_much_that_is_alike_is_found_whole_and_new_mixtures_are_found_in_pieces() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let block = noise(MIB, 1);
    let mixture = |pieces: usize, seed: u64| {
        let numbers = noise(8 * pieces, seed);
        let piece = |number: &[u8]| {
            let number = u64::from_le_bytes(number.try_into().expect("8 bytes"));
            let at = (number % (MIB as u64 - 4096)) as usize;
            &block[at..at + 100 + (number >> 40) as usize % 3900]
        };
        numbers.chunks(8).flat_map(piece).copied().collect::<Vec<u8>>()
    };
    let old: Vec<Vec<u8>> = (0..48).map(|seed| mixture(1000, 101 + 2 * seed)).collect();
    let new: Vec<u8> = old.iter().rev().flatten().copied().chain(mixture(500, 7)).collect();
    std::fs::write(place.path().join("old"), old.concat()).expect("written");
    std::fs::write(place.path().join("new"), new).expect("written");
    for memory in [1024 * MIB, 300 * MIB] {
        let (patch, peak) = round_trip(place.path(), memory);
        assert!(peak <= memory as u64, "{peak} bytes reserved");
        // A few bytes for each of 500 pieces and of 48 members: 5.5 KB, and 6.5 with the old image
        // indexed in place of what is left.
        assert!(patch.len() < 6_000, "{} bytes", patch.len());
    }
    asks_for_enough(place.path(), 150, 10);
}

/// Makes a patch with 150 MiB: bytes read, and those of the patch.
fn cost(old: &Path, new: &Path) -> (u64, u64) {
    let engine = Engine::builder().memory_bytes_max(150 << 20).build().expect("an engine");
    let job = Job::new(engine.handle(), 2).expect("a job");
    let patch = old.with_extension("patch");
    let made = engine.block_on(diff(&job, old, new, &patch, DiffOptions::default()));
    (engine.metrics().bytes_read, made.expect("made").patch_bytes)
}

#[test]
fn what_moved_is_read_once_and_the_old_file_twice_at_most() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let [old, new] = ["old", "new"].map(|name| place.path().join(name));
    std::fs::create_dir(&old).expect("made");
    std::fs::create_dir(&new).expect("made");
    // The last members first: most of the old file is behind what is read in step with it. It is 1,103 to
    // 1,117 MiB, as who comes first decides a little; where nothing waits it is 1,264 at least.
    let bytes = noise(320 * MIB, 5);
    let members = bytes.rchunks(9 * MIB + 321).collect::<Vec<_>>().concat();
    std::fs::write(old.join("1.pack"), &bytes).expect("written");
    std::fs::write(new.join("1.pack"), &members).expect("written");
    let (read, patch) = cost(&old, &new);
    assert!(read < 1190 * MIB as u64, "{read} bytes of 640 MiB in both");
    assert!(patch < 40 << 10, "{patch} bytes for 36 members");
    // Under another name there is nothing to read it in step with.
    std::fs::rename(new.join("1.pack"), new.join("0.pack")).expect("renamed");
    let (read, renamed) = cost(&old, &new);
    assert!(read < 1150 * MIB as u64, "{read} bytes of 640 MiB in both");
    assert!(renamed.abs_diff(patch) < 1 << 10, "{renamed} bytes, as good as {patch}");
}

#[test]
fn what_moved_is_found_where_all_happens_on_one_thread() {
    let disk = SimulatedDisk::new(7);
    let engine = Engine::builder().memory_bytes_max(100 << 20).simulated(&disk);
    let old = noise(32 * MIB, 6);
    let new = old.rchunks(5 * MIB + 77).collect::<Vec<_>>().concat();
    let report = engine.block_on(async {
        engine.create_directory("/work", 0o755).await.expect("made");
        for (name, content) in [("/work/old", &old), ("/work/new", &new)] {
            let file = engine.open(name, OpenOptions::creating(0o644)).await.expect("opened");
            for (number, part) in content.chunks(MIB).enumerate() {
                let mut buffer = engine.buffer(MIB).await;
                buffer.extend_from_slice(part);
                file.write_all(buffer, (number * MIB) as u64).await.expect("written");
            }
            file.close().await.expect("closed");
        }
        let job = Job::new(&engine, 1).expect("a job");
        let [old, new, patch] = ["/work/old", "/work/new", "/work/patch"].map(Path::new);
        diff(&job, old, new, patch, DiffOptions::default()).await.expect("made")
    });
    assert!(report.patch_bytes < 8 << 10, "{} bytes for 7 members", report.patch_bytes);
}

/// Has the page cache give up a file, and says whether it did.
fn is_cold(engine: &Engine, path: &Path) -> bool {
    let file = std::fs::File::open(path).expect("opened");
    file.sync_all().expect("written");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advised");
    cached(engine, path) == 0
}

/// Bytes of a file that the page cache has.
fn cached(engine: &Engine, path: &Path) -> u64 {
    engine.block_on(async {
        let file = engine.open(path, inflight::OpenOptions::reading()).await.expect("opened");
        let length = file.metadata().await.expect("there").size;
        file.cached_bytes(length).await.expect("asked")
    })
}

#[test]
fn cold_files_larger_than_memory_are_read_around_the_cache_with_the_same_result() {
    let place = tempfile::tempdir().expect("a temporary directory");
    build_pair(place.path());
    let [old, new] = ["old", "new"].map(|name| place.path().join(name));
    let engine = Engine::builder().memory_bytes_max(150 << 20).build().expect("an engine");
    let (hot, _) = round_trip(place.path(), 150 * MIB);
    let are_cold = is_cold(&engine, &old) & is_cold(&engine, &new);
    let job = Job::new(engine.handle(), 2).expect("a job");
    let patch = place.path().join("cold");
    engine.block_on(diff(&job, &old, &new, &patch, DiffOptions::default())).expect("made");
    assert!(std::fs::read(&patch).unwrap() == hot, "the same patch");
    // Where files were not given up (in memory, say) there is no other way to read them.
    let has_direct = engine.block_on(engine.open_direct(&old, inflight::OpenOptions::reading()));
    if are_cold && has_direct.is_ok() {
        let (cached, size) = (cached(&engine, &old), std::fs::metadata(&old).unwrap().len());
        assert!(cached < size / 2, "{cached} of {size} bytes were read into the cache");
    }
}

#[test]
fn a_job_that_cannot_fit_says_so_before_it_starts() {
    let place = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(place.path().join("old"), [1; 5000]).expect("written");
    std::fs::write(place.path().join("new"), [2; 5000]).expect("written");
    let engine = Engine::builder().memory_bytes_max(20 << 20).build().expect("an engine");
    let job = Job::new(engine.handle(), 2).expect("a job");
    let [old, new, patch] = ["old", "new", "patch"].map(|name| place.path().join(name));
    let error = engine.block_on(diff(&job, &old, &new, &patch, DiffOptions::default()));
    let error = error.expect_err("too little");
    let Error::Memory { needed_mib, given_mib: 20 } = error else { panic!("{error}") };
    assert!(error.to_string().contains(&format!("--memory {needed_mib}MiB")), "{error}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2, "nothing was made");

    // What it asks for is enough.
    let engine = Engine::builder().memory_bytes_max(needed_mib << 20).build().expect("an engine");
    let job = Job::new(engine.handle(), 2).expect("a job");
    engine.block_on(diff(&job, &old, &new, &patch, DiffOptions::default())).expect("made");
}

#[test]
fn the_memory_that_a_diff_asks_for_is_enough() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let functions: Vec<Function> = (0..5_000u32).map(|n| n.wrapping_mul(0x9e37_79b1)).collect();
    let new = [&functions[..1000], &[7, 8, 9], &functions[1000..]].concat();
    // What follows a program makes it long.
    let long = |functions: &[Function]| [program(functions), noise(60 * MIB, 3)].concat();
    std::fs::write(place.path().join("old"), long(&functions)).expect("written");
    std::fs::write(place.path().join("new"), long(&new)).expect("written");
    asks_for_enough(place.path(), 90, 5);
}

/// Makes a patch with too little memory, and one with as much as was asked for then, which is so many
/// times smaller.
fn asks_for_enough(place: &Path, mib: u64, times: u64) {
    let made = |memory: u64| {
        let engine = Engine::builder().memory_bytes_max(memory).build().expect("an engine");
        let job = Job::new(engine.handle(), 2).expect("a job");
        let paths = ["old", "new", "patch"].map(|name| place.join(name));
        let [old, new, patch] = &paths;
        let made = engine.block_on(diff(&job, old, new, patch, DiffOptions::default()));
        made.expect("made")
    };
    let tight = made(mib << 20);
    let asked = tight.better_memory_bytes;
    assert!(asked > mib << 20, "{asked} bytes");
    let enough = made(asked.next_multiple_of(1 << 20));
    assert_eq!(enough.better_memory_bytes, 0, "{asked} bytes are enough");
    assert!(enough.patch_bytes * times < tight.patch_bytes, "{enough:?} {tight:?}");
}

/// The same text in two versions: every fifth line was edited.
fn text(lines: u32, edited: bool) -> Vec<u8> {
    let line = |number: u32| match edited && number.is_multiple_of(5) {
        true => format!("{number}: quite another line, of {}\n", number.wrapping_mul(40_503) % 977),
        false => format!("{number}: what stood there, and {}\n", number.wrapping_mul(7_919) % 983),
    };
    (0..lines).flat_map(|number| line(number).into_bytes()).collect()
}

#[test]
fn edited_text_is_found_between_the_edits_in_small_files_and_in_large_ones() {
    for lines in [3_000, 120_000] {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (old, new) = (text(lines, false), text(lines, true));
        std::fs::write(place.path().join("old"), &old).expect("written");
        std::fs::write(place.path().join("new"), &new).expect("written");
        let (patch, _) = round_trip(place.path(), 512 * MIB);
        // No line between two edits is as long as a chunk.
        assert!(patch.len() * 12 < new.len(), "{} of {} bytes", patch.len(), new.len());
    }
}

#[test]
fn a_long_stretch_of_edits_is_found_near_where_it_stood() {
    let place = tempfile::tempdir().expect("a temporary directory");
    // So little beside the rest that no search through all of the old file is worth it.
    let line = |number: u64, edited: bool| {
        let words = noise(48, 1000 + number);
        let middle: &[u8] = if edited { b"edited" } else { b"as it was" };
        [&words[..], middle, b"\n"].concat()
    };
    let version = |edited: bool| {
        let lines = (0..800).flat_map(|number| line(number, edited));
        [noise(48 * MIB, 1), lines.collect(), noise(MIB, 2)].concat()
    };
    std::fs::write(place.path().join("old"), version(false)).expect("written");
    std::fs::write(place.path().join("new"), version(true)).expect("written");
    let (patch, _) = round_trip(place.path(), 1024 * MIB);
    // Where only the start of the stretch is compared, it takes 25 KB.
    assert!(patch.len() < 2_000, "{} bytes", patch.len());
}
