//! What a copy leaves behind when the disk fails or loses its power at any operation. Runs on the
//! simulated disk; a failing run prints its seed, which repeats it.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inflight::{Engine, Faults, FileKind, RemoveKind, SimulatedDisk, SyncScope};
use inflight_tools::{CopyOptions, CopyReport};
use support::{Known, assert_same, bytes, look, run, set_time, simulated, write};

const FROM: &str = "/from";
const TO: &str = "/to";

/// A small tree with each way of copying in it, durable.
fn prepared() -> SimulatedDisk {
    let disk = SimulatedDisk::new(0);
    let engine = simulated(&disk);
    engine.block_on(async {
        engine.create_directory(FROM, 0o755).await.expect("made");
        let directory = engine.open_directory(FROM).await.expect("there");
        for inner in ["inner", "inner/deep", "empty"] {
            directory.create_directory(inner, 0o755).await.expect("made");
        }
        let place = |name: &str| Path::new(FROM).join(name);
        write(&engine, &place("a"), b"small").await;
        write(&engine, &place("b"), b"another small one").await;
        write(&engine, &place("inner/deep/c"), &support::noise(1, 5000)).await;
        write(&engine, &place("inner/large"), &support::noise(2, (4 << 20) + 1)).await;
        let options = inflight::OpenOptions::creating(0o600);
        let sparse = directory.open("sparse", options).await.expect("made");
        sparse.truncate(1 << 20).await.expect("grown");
        sparse.write_all(bytes(&engine, b"data"), 512 << 10).await.expect("written");
        directory.create_symlink("a", "link").await.expect("made");
        directory.create_hard_link("b", "inner/b").await.expect("made");
        directory.set_attribute("a", b"user.color", b"blue".to_vec()).await.expect("set");
        for (number, name) in ["a", "b", "inner/large", "inner", "empty"].iter().enumerate() {
            set_time(&engine, &place(name), 1_000_000_000 + number as i64).await;
        }
        directory.sync(SyncScope::FileSystem).await.expect("synced");
    });
    drop(engine);
    disk
}

fn copy_on(disk: &SimulatedDisk, options: CopyOptions) -> inflight_tools::Result<CopyReport> {
    let engine = simulated(disk);
    engine.block_on(run(&engine, &[FROM.into()], Path::new(TO), options))
}

fn on<T>(disk: &SimulatedDisk, look: impl AsyncFnOnce(&Engine) -> T) -> T {
    let engine = simulated(disk);
    engine.block_on(look(&engine))
}

async fn target(engine: &Engine) -> Option<BTreeMap<PathBuf, Known>> {
    engine.metadata(TO, false).await.ok()?;
    Some(look(engine, Path::new(TO)).await)
}

/// Nothing that is there under a final name is half or wrong.
fn assert_nothing_half(disk: &SimulatedDisk, what: &str) {
    on(disk, async |engine| {
        let source = look(engine, Path::new(FROM)).await;
        for (path, known) in target(engine).await.unwrap_or_default() {
            let right = &source[&path];
            let whole = known.kind == right.kind
                && (known.kind == FileKind::Directory || known.content == right.content);
            assert!(whole, "{what}: {} is not whole on {disk:?}", path.display());
        }
    });
}

fn assert_is_copy(disk: &SimulatedDisk, what: &str) {
    on(disk, async |engine| {
        let copy = target(engine).await.unwrap_or_else(|| panic!("{what}: no copy on {disk:?}"));
        assert_same(&look(engine, Path::new(FROM)).await, &copy);
        let root = engine.open_directory("/").await.expect("there");
        let names = inflight::stream::walk(&root).await.expect("walked");
        let left = names.iter().find(|e| e.path.to_string_lossy().contains("inflight-copy"));
        assert!(left.is_none(), "{what}: {left:?} is left");
    });
}

const RESUME: CopyOptions =
    CopyOptions { resume: true, verify: false, dry_run: false, sync: false };

fn operations(prepared: &SimulatedDisk, options: CopyOptions) -> u64 {
    let disk = prepared.fork(0);
    let report = copy_on(&disk, options).expect("it begins");
    assert!(report.is_whole(), "{report:?}");
    let count = disk.operations();
    assert_is_copy(&disk, "without a fault");
    assert!(count > 80, "{count} operations");
    count
}

#[test]
fn a_fault_at_any_operation_is_told_or_does_not_matter() {
    let prepared = prepared();
    for options in [CopyOptions::default(), CopyOptions { verify: true, ..CopyOptions::default() }]
    {
        let (mut told, mut harmless) = (0, 0);
        for at in 1..=operations(&prepared, options) {
            let disk = prepared.fork(at);
            disk.set_faults(Faults { failed_at: at, ..Faults::default() });
            let outcome = copy_on(&disk, options);
            assert!(disk.operations() >= at, "the fault was met");
            disk.set_faults(Faults::default());
            assert_nothing_half(&disk, &format!("operation {at} failed"));
            match outcome {
                Ok(report) if report.is_whole() => {
                    harmless += 1;
                    assert_is_copy(&disk, &format!("operation {at} failed, unnoticed"));
                }
                _ => told += 1,
            }
            let report = copy_on(&disk, RESUME).expect("it begins");
            assert!(report.is_whole(), "after operation {at}: {report:?}");
            assert_is_copy(&disk, &format!("resumed after operation {at} failed"));
        }
        assert!(told > 50 && harmless < told, "{told} told, {harmless} harmless");
    }
}

#[test]
fn short_and_interrupted_operations_change_nothing() {
    let prepared = prepared();
    for seed in 0..30 {
        let disk = prepared.fork(seed);
        let faults = Faults { short_once_in: 3, interrupted_once_in: 3, ..Faults::default() };
        disk.set_faults(faults);
        let report = copy_on(&disk, CopyOptions::default()).expect("it begins");
        disk.set_faults(Faults::default());
        assert!(report.is_whole(), "{report:?} on {disk:?}");
        assert_is_copy(&disk, "with short reads and writes");
    }
}

#[test]
fn many_faults_at_once_leave_nothing_half() {
    let prepared = prepared();
    for seed in 0..60 {
        let disk = prepared.fork(seed);
        disk.set_faults(Faults { failed_once_in: 8, short_once_in: 5, ..Faults::default() });
        let outcome = copy_on(&disk, CopyOptions::default());
        disk.set_faults(Faults::default());
        assert_nothing_half(&disk, "many faults");
        if outcome.is_ok_and(|report| report.is_whole()) {
            assert_is_copy(&disk, "many faults, none told");
        }
        let report = copy_on(&disk, RESUME).expect("it begins");
        assert!(report.is_whole(), "{report:?} on {disk:?}");
        assert_is_copy(&disk, "resumed after many faults");
    }
}

#[test]
fn after_a_crash_at_any_operation_nothing_half_has_a_final_name() {
    let prepared = prepared();
    let options = CopyOptions { sync: true, ..CopyOptions::default() };
    let (mut missing, mut whole) = (0, 0);
    for at in 1..=operations(&prepared, options) {
        let disk = prepared.fork(at);
        disk.crash_at(at);
        // The operation at which it crashes may be the last, whose failure nobody minds.
        let _ = copy_on(&disk, options);
        assert!(disk.has_crashed(), "at operation {at}");
        disk.restart();
        match on(&disk, target) {
            None => missing += 1,
            Some(_) => {
                whole += 1;
                assert_nothing_half(&disk, &format!("a crash at operation {at}"));
            }
        }
        let report = copy_on(&disk, CopyOptions { sync: true, ..RESUME }).expect("it begins");
        assert!(report.is_whole(), "after a crash at operation {at}: {report:?} on {disk:?}");
        assert_is_copy(&disk, &format!("resumed after a crash at operation {at}"));
        // And that is durable.
        disk.restart();
        assert_is_copy(&disk, &format!("durable after a crash at operation {at}"));
    }
    assert!(missing > 0 && whole > 0, "{missing} missing, {whole} whole");
}

#[test]
fn the_sweep_notices_when_nothing_is_synced() {
    let prepared = prepared();
    let broken = (0..60).any(|seed| {
        let disk = prepared.fork(seed);
        copy_on(&disk, CopyOptions::default()).expect("nothing goes wrong");
        disk.restart();
        on(&disk, async |engine| {
            let source = look(engine, Path::new(FROM)).await;
            let copy = target(engine).await.unwrap_or_default();
            copy.iter().any(|(path, known)| known.content != source[path].content)
        })
    });
    assert!(broken, "without a sync, a crash must be able to tear the copy");
}

#[test]
fn updates_survive_a_crash_at_any_operation() {
    let prepared = prepared();
    copy_on(&prepared, CopyOptions { sync: true, ..CopyOptions::default() }).expect("copied");
    on(&prepared, async |engine| {
        let from = engine.open_directory(FROM).await.expect("there");
        from.remove("a", RemoveKind::File).await.expect("removed");
        write(engine, Path::new("/from/a"), b"changed").await;
        write(engine, Path::new("/from/inner/new"), b"new").await;
        from.sync(SyncScope::FileSystem).await.expect("synced");
    });
    let options = CopyOptions { sync: true, ..RESUME };
    let before = on(&prepared, target).expect("there");
    let after = on(&prepared, async |engine| look(engine, Path::new(FROM)).await);
    let count = {
        let disk = prepared.fork(0);
        assert!(copy_on(&disk, options).expect("it begins").is_whole());
        disk.operations()
    };
    for at in 1..=count {
        let disk = prepared.fork(at);
        disk.crash_at(at);
        let _ = copy_on(&disk, options);
        disk.restart();
        let there = on(&disk, target).expect("there");
        for (path, known) in &there {
            if path.starts_with(".inflight-copy") {
                continue;
            }
            let old = before.get(path).is_some_and(|old| old.content == known.content);
            let new = after.get(path).is_some_and(|new| new.content == known.content);
            assert!(old || new, "{}: half after a crash at {at} on {disk:?}", path.display());
        }
        let report = copy_on(&disk, options).expect("it begins");
        assert!(report.is_whole(), "after a crash at operation {at}: {report:?} on {disk:?}");
        assert_is_copy(&disk, &format!("updated after a crash at operation {at}"));
    }
}
