//! What diff and apply leave behind when the disk fails or loses its power at any operation. Runs on
//! the simulated disk; a failing run prints its seed, which repeats it.

use std::path::Path;

use inflight::stream::walk;
use inflight::{Buffer, Engine, Faults, FileKind, NewFile, OpenOptions, SimulatedDisk, SyncScope};
use inflight_patch::{ApplyOptions, DiffOptions, Error, Job, Side, apply, diff, verify};

const OLD: &str = "/work/old";
const NEW: &str = "/work/new";
const PATCH: &str = "/work/patch";
const BUILT: &str = "/work/built";

fn engine(disk: &SimulatedDisk) -> Engine {
    Engine::builder().memory_bytes_max(128 << 20).simulated(disk)
}

/// A buffer of these bytes.
fn bytes(engine: &Engine, content: &[u8]) -> Buffer {
    let mut buffer = engine.pool().try_get(content.len()).expect("within the budget");
    buffer.extend_from_slice(content);
    buffer
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The files of the old tree and the new one: small ones and one of several units, some the same,
/// some changed, some moved, some gone, some new.
fn trees() -> [Vec<(&'static str, Vec<u8>)>; 2] {
    let large = noise(1, 5 << 20);
    let mut changed = large.clone();
    changed.drain(1000..2000);
    changed[3 << 20..(3 << 20) + 5000].copy_from_slice(&noise(2, 5000));
    let old = vec![
        ("a", b"a small file".to_vec()),
        ("b", noise(3, 10_000)),
        ("inner/c", noise(4, 3000)),
        ("inner/deep/empty", Vec::new()),
        ("large", large),
    ];
    let new = vec![
        ("a", b"a small file that changed".to_vec()),
        ("inner/c", noise(4, 3000)),
        ("inner/new", noise(5, 20_000)),
        ("large", changed),
        ("other/b", noise(3, 10_000)),
    ];
    [old, new]
}

/// A disk with both trees and the patch between them, all of it durable.
fn prepared() -> SimulatedDisk {
    let disk = SimulatedDisk::new(0);
    let engine = engine(&disk);
    engine.block_on(async {
        engine.create_directory("/work", 0o755).await.expect("made");
        for (root, files) in [OLD, NEW].into_iter().zip(trees()) {
            engine.create_directory(root, 0o755).await.expect("made");
            let directory = engine.open_directory(root).await.expect("there");
            for inner in ["inner", "inner/deep", "other"] {
                directory.create_directory(inner, 0o755).await.expect("made");
            }
            for (name, content) in files {
                let file = NewFile::new(name.as_ref(), 0o644, 0, content.len()).expect("a name");
                directory.write_files(vec![file], bytes(&engine, &content)).await.expect("written");
            }
            directory.create_symlink("inner/c", "link").await.expect("made");
        }
        let job = Job::new(&engine, 1).expect("a crew");
        let options = DiffOptions::default();
        diff(&job, OLD.as_ref(), NEW.as_ref(), PATCH.as_ref(), options).await.expect("diffed");
        let work = engine.open_directory("/work").await.expect("there");
        work.sync(SyncScope::FileSystem).await.expect("synced");
    });
    drop(engine);
    disk
}

fn run_apply(disk: &SimulatedDisk, sync: bool) -> Result<(), Error> {
    let engine = engine(disk);
    engine.block_on(async {
        let job = Job::new(&engine, 1)?;
        let (patch, old, built) = (PATCH.as_ref(), OLD.as_ref(), BUILT.as_ref());
        apply(&job, patch, old, built, ApplyOptions { sync }).await.map(|_| ())
    })
}

/// What there is of the target.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Missing,
    Whole,
    Broken,
}

fn target(disk: &SimulatedDisk) -> Target {
    let engine = engine(disk);
    engine.block_on(async {
        if engine.metadata(BUILT, false).await.is_err() {
            return Target::Missing;
        }
        let job = Job::new(&engine, 1).expect("a crew");
        match verify(&job, PATCH.as_ref(), BUILT.as_ref(), Side::New).await {
            Ok(report) if report.differences.is_empty() => Target::Whole,
            _ => Target::Broken,
        }
    })
}

/// What was there before is as it was.
fn inputs_are_whole(disk: &SimulatedDisk) -> bool {
    let engine = engine(disk);
    engine.block_on(async {
        let job = Job::new(&engine, 1).expect("a crew");
        let old = verify(&job, PATCH.as_ref(), OLD.as_ref(), Side::Old).await;
        old.is_ok_and(|report| report.differences.is_empty())
    })
}

fn names(disk: &SimulatedDisk) -> Vec<String> {
    let engine = engine(disk);
    engine.block_on(async {
        let work = engine.open_directory("/work").await.expect("there");
        let entries = walk(&work).await.expect("walked");
        let top = entries.iter().filter(|entry| entry.path.components().count() == 1);
        top.map(|entry| entry.path.to_string_lossy().into_owned()).collect()
    })
}

fn operations_of_apply(prepared: &SimulatedDisk) -> u64 {
    let disk = prepared.fork(0);
    run_apply(&disk, true).expect("nothing goes wrong");
    let count = disk.operations();
    assert_eq!(target(&disk), Target::Whole);
    assert!(count > 50, "{count} operations");
    count
}

#[test]
fn after_a_crash_at_any_operation_of_apply_the_target_is_missing_or_whole() {
    let prepared = prepared();
    let (mut missing, mut whole) = (0, 0);
    let operations = operations_of_apply(&prepared);
    // Whether a name that is not synced survives is left to chance: that is tried more often.
    let last = std::iter::repeat_n(operations, 16);
    for (seed, at) in (1..).zip((1..=operations).chain(last)) {
        let disk = prepared.fork(seed);
        disk.crash_at(at);
        // The operation at which it crashes may be the last, whose failure nobody minds.
        let _ = run_apply(&disk, true);
        assert!(disk.has_crashed(), "at operation {at}");
        disk.restart();
        match target(&disk) {
            Target::Missing => missing += 1,
            Target::Whole => whole += 1,
            Target::Broken => panic!("a broken target after a crash at operation {at} on {disk:?}"),
        }
        assert!(inputs_are_whole(&disk), "after a crash at operation {at} on {disk:?}");
        if target(&disk) == Target::Missing {
            // What was left behind is in nobody's way.
            run_apply(&disk, true).expect("the next time nothing goes wrong");
            assert_eq!(target(&disk), Target::Whole);
        }
    }
    assert!(missing > 0 && whole > 0, "{missing} missing, {whole} whole");
}

#[test]
fn what_apply_reports_done_survives() {
    let prepared = prepared();
    for seed in 0..40 {
        let disk = prepared.fork(seed);
        run_apply(&disk, true).expect("nothing goes wrong");
        disk.restart();
        assert_eq!(target(&disk), Target::Whole, "on {disk:?}");
    }
}

#[test]
fn the_same_seed_does_the_same_again() {
    let prepared = prepared();
    let run = |seed| {
        let disk = prepared.fork(seed);
        disk.set_faults(Faults { short_once_in: 4, interrupted_once_in: 4, ..Faults::default() });
        run_apply(&disk, true).expect("nothing goes wrong");
        (disk.operations(), disk.history())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1, "another seed, another order");
}

#[test]
fn the_sweep_notices_when_nothing_is_synced() {
    let prepared = prepared();
    let count = operations_of_apply(&prepared);
    let broken = (1..=40).any(|seed| {
        let disk = prepared.fork(seed);
        let _ = run_apply(&disk, false);
        disk.restart();
        target(&disk) == Target::Broken
    });
    assert!(broken, "{count} operations without a sync, and all was there in 40 crashes");
}

#[test]
fn an_error_at_any_operation_of_apply_leaves_no_trace() {
    let prepared = prepared();
    let (mut failed, mut survived) = (0, 0);
    for at in 1..=operations_of_apply(&prepared) {
        let disk = prepared.fork(at);
        disk.set_faults(Faults { failed_at: at, ..Faults::default() });
        let result = run_apply(&disk, true);
        disk.set_faults(Faults::default());
        match (result, target(&disk)) {
            (Ok(()), Target::Whole) => survived += 1,
            (Err(_), Target::Missing) => {
                failed += 1;
                assert_eq!(names(&disk), ["new", "old", "patch"], "at operation {at} on {disk:?}");
            }
            // It had its name when its directory could not be synced.
            (Err(error), Target::Whole) if error.to_string().contains("sync") => failed += 1,
            (result, target) => {
                panic!("{result:?} and {target:?} at operation {at} on {disk:?}")
            }
        }
        assert!(inputs_are_whole(&disk), "at operation {at} on {disk:?}");
    }
    assert!(failed > 50, "{failed} failed, {survived} survived");
}

#[test]
fn a_disk_that_fills_up_anywhere_leaves_no_trace() {
    let prepared = prepared();
    let (mut full, mut enough) = (0, 0);
    for blocks in 0..80 {
        let disk = prepared.fork(blocks);
        // The inputs take some 10 MiB.
        disk.set_capacity((10 << 20) + blocks * (100 << 10));
        match run_apply(&disk, true) {
            Ok(()) => {
                assert_eq!(target(&disk), Target::Whole);
                enough += 1;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("free some space"), "{text}");
                assert_eq!(names(&disk), ["new", "old", "patch"], "{text}");
                full += 1;
            }
        }
    }
    assert!(full > 20 && enough > 5, "{full} full, {enough} enough");
}

#[test]
fn short_and_interrupted_requests_change_nothing() {
    let prepared = prepared();
    let expected = patch_bytes(&prepared);
    for seed in 0..10 {
        let disk = prepared.fork(seed);
        let often = Faults { short_once_in: 2, interrupted_once_in: 3, ..Faults::default() };
        disk.set_faults(often);
        run_apply(&disk, true).expect("nothing goes wrong");
        assert_eq!(target(&disk), Target::Whole);
        let engine = engine(&disk);
        engine.block_on(async {
            let job = Job::new(&engine, 1).expect("a crew");
            let options = DiffOptions::default();
            let (old, new, again) = (OLD.as_ref(), NEW.as_ref(), "/work/again".as_ref());
            diff(&job, old, new, again, options).await.expect("diffed");
            engine.rename(again, PATCH, true).await.expect("renamed");
        });
        drop(engine);
        assert!(patch_bytes(&disk) == expected, "another patch on {disk:?}");
    }
}

#[test]
fn an_error_at_any_operation_of_diff_leaves_no_patch() {
    let prepared = prepared();
    let again = Path::new("/work/again");
    let run = |disk: &SimulatedDisk| {
        let engine = engine(disk);
        engine.block_on(async {
            let job = Job::new(&engine, 1)?;
            let options = DiffOptions::default();
            diff(&job, OLD.as_ref(), NEW.as_ref(), again, options).await.map(|_| ())
        })
    };
    let disk = prepared.fork(0);
    run(&disk).expect("nothing goes wrong");
    for at in 1..=disk.operations() {
        let disk = prepared.fork(at);
        disk.set_faults(Faults { failed_at: at, ..Faults::default() });
        let result = run(&disk);
        disk.set_faults(Faults::default());
        let made = names(&disk).contains(&"again".to_string());
        assert_eq!(result.is_ok(), made, "at operation {at} on {disk:?}: {result:?}");
        let others = names(&disk).iter().filter(|name| name.starts_with('.')).count();
        assert_eq!(others, 0, "something was left behind at operation {at} on {disk:?}");
    }
}

fn patch_bytes(disk: &SimulatedDisk) -> Vec<u8> {
    let engine = engine(disk);
    engine.block_on(async {
        let file = engine.open(PATCH, OpenOptions::reading()).await.expect("there");
        let metadata = file.metadata().await.expect("there");
        assert_eq!(metadata.kind, FileKind::File);
        let length = metadata.size as usize;
        file.read_full(engine.buffer(length).await, length, 0).await.expect("read").to_vec()
    })
}
