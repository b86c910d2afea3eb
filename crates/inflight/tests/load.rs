//! Files loaded into memory: on every driver, on disks that fail, dropped at any time.

mod support;

use std::path::Path;

use inflight::stream::{Load, LoadOptions};
use inflight::{Engine, Faults, NewFile, OpenOptions, SimulatedDisk};
use support::{content, engines, on_each_disk, on_each_driver};

async fn write_file(engine: &Engine, path: &Path, content: &[u8]) {
    let above = engine.open_directory(path.parent().expect("a parent")).await.expect("there");
    let name = path.file_name().expect("a name").as_ref();
    let file = NewFile::new(name, 0o600, 0, content.len()).expect("a name");
    let mut buffer = engine.buffer(content.len().max(1)).await;
    buffer.extend_from_slice(content);
    above.write_files(vec![file], buffer).await.expect("written");
}

/// What is there of it is right at any time, and in the end it is all.
async fn fills(engine: &Engine, load: &mut Load, whole: &[u8]) {
    let mut seen = 0;
    while !load.is_ready() {
        let front = load.filled();
        assert!(front.len() >= seen && *front == whole[..front.len()]);
        seen = front.len();
        engine.nop().await.expect("done");
    }
    assert!(load.ready().await.expect("loaded") == whole);
}

#[test]
fn files_of_any_length_are_loaded_exactly() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let lengths = [0usize, 1, 4095, 4096, 65_537, (1 << 20) - 1, 1 << 20, 5_000_001];
            for (number, length) in lengths.into_iter().enumerate() {
                let path = directory.join(number.to_string());
                let whole = content(length);
                write_file(engine, &path, &whole).await;
                let mut load = engine.load(&path);
                let loaded = load.ready().await.expect("loaded");
                assert!(loaded == whole, "{length} bytes");
                assert!(load.is_ready());
                assert_eq!(load.bytes().map(<[u8]>::len), Some(length));
                assert_eq!(load.ready().await.expect("still").len(), length);
            }
        });
        assert_eq!(engine.pool().budget().used(), 0, "nothing is held any more");
    });
}

#[test]
fn files_are_mapped_as_told() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            for (number, length) in [0usize, 1, 4096, 65_537, 1 << 20, 5_000_001].iter().enumerate()
            {
                let path = directory.join(number.to_string());
                let whole = content(*length);
                write_file(engine, &path, &whole).await;
                let file = engine.open(&path, OpenOptions::reading()).await.expect("opened");
                let cached = file.cached_bytes(*length as u64).await.expect("asked");
                let is_cached = *length >= 1 << 20 && cached >= *length as u64;
                // SAFETY: nobody changes the files.
                let [where_cached, all] = unsafe {
                    [LoadOptions::new().mapping_what_is_cached(), LoadOptions::new().mapping()]
                };
                let none = LoadOptions::new();
                for (options, is_mapped) in
                    [(none, false), (where_cached, is_cached), (all, *length > 0)]
                {
                    let before = engine.pool().budget().used();
                    let mut load = engine.load_with(&path, options);
                    assert!(load.ready().await.expect("loaded") == whole, "{length} bytes");
                    assert_eq!(load.is_mapped(), is_mapped, "{length} bytes, {options:?}");
                    assert_eq!(load.bytes().map(<[u8]>::len), Some(*length));
                    let used = engine.pool().budget().used() - before;
                    assert!(!is_mapped || used == 0, "a mapping takes {used} bytes of the budget");
                }
            }
        });
    });
}

#[test]
fn a_cold_file_is_brought_by_its_mapping() {
    on_each_driver(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            let whole = content((70 << 20) + 5);
            let mut buffer = engine.buffer(whole.len()).await;
            buffer.extend_from_slice(&whole);
            let file = engine.open(&path, OpenOptions::creating(0o600)).await.expect("made");
            file.write_all(buffer, 0).await.expect("written");
            file.sync(inflight::SyncScope::All).await.expect("synced");
            file.advise(0, 0, inflight::Advice::DontNeed).await.expect("dropped");
            // SAFETY: nobody changes the file.
            let options = unsafe { LoadOptions::new().mapping() };
            let mut load = engine.load_with(&path, options);
            fills(engine, &mut load, &whole).await;
            let size = whole.len() as u64;
            assert_eq!(file.cached_bytes(size).await.expect("asked"), size);
            assert!(load.is_mapped());
        });
    });
}

#[test]
fn cold_files_are_loaded_around_the_page_cache() {
    for engine in engines(|builder| builder.workers(1)) {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let path = directory.path().join("file");
        let whole = content((5 << 20) + 123);
        engine.block_on(async {
            write_file(&engine, &path, &whole).await;
            let file = engine.open(&path, OpenOptions::reading()).await.expect("opened");
            file.sync(inflight::SyncScope::All).await.expect("synced");
            file.advise(0, 0, inflight::Advice::DontNeed).await.expect("dropped");
            let size = whole.len() as u64;
            let before = file.cached_bytes(size).await.expect("asked");
            assert!(*engine.load(&path).ready().await.expect("loaded") == whole);
            let after = file.cached_bytes(size).await.expect("asked");
            // Where the system drops what it is told to, and the disk can.
            let can =
                before == 0 && engine.open_direct(&path, OpenOptions::reading()).await.is_ok();
            assert!(!can || after == 0, "{after} bytes are in the page cache");
        });
    }
}

#[test]
fn the_front_can_be_used_while_the_rest_fills() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            let whole = content(9_000_000);
            write_file(engine, &path, &whole).await;
            let mut load = engine.load(&path);
            fills(engine, &mut load, &whole).await;
        });
    });
}

#[test]
fn what_has_no_size_is_loaded_too() {
    on_each_driver(|engine, _| {
        engine.block_on(async {
            let mut load = engine.load("/proc/self/status");
            let text = load.ready().await.expect("loaded");
            assert!(text.starts_with(b"Name:"), "{:?}", String::from_utf8_lossy(text));
        });
    });
}

#[test]
fn what_cannot_be_loaded_is_said() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let mut load = engine.load(directory.join("missing"));
            let error = load.ready().await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            assert!(load.is_ready() && load.bytes().is_none() && load.filled().is_empty());
            assert!(load.ready().await.unwrap_err().to_string().contains("failed before"));
            let error = engine.load(directory).ready().await.map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::IsADirectory, "{error}");
        });
    });
}

#[test]
fn many_at_once_half_of_them_dropped_stay_within_the_budget() {
    const LIMIT: u64 = 24 << 20;
    for engine in engines(|builder| builder.memory_bytes_max(LIMIT)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let of = |number: usize| {
            let mut whole = content(1 << 20);
            whole[..8].copy_from_slice(&number.to_le_bytes());
            whole
        };
        engine.block_on(async {
            for number in 0..8 {
                let path = directory.path().join(number.to_string());
                write_file(&engine, &path, &of(number)).await;
            }
            let mut chance = 1u64;
            let mut next = move || {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                chance >> 33
            };
            let path = |number: usize| directory.path().join((number % 8).to_string());
            let loads: Vec<Load> = (0..400).map(|number| engine.load(path(number))).collect();
            let mut kept: Vec<(usize, Load)> = Vec::new();
            for (number, load) in loads.into_iter().enumerate() {
                match next() % 2 {
                    0 => drop(load),
                    _ => kept.push((number, load)),
                }
                if next() % 4 == 0 {
                    engine.nop().await.expect("done");
                }
            }
            for (number, mut load) in kept {
                assert!(*load.ready().await.expect("loaded") == of(number % 8));
            }
        });
        assert!(engine.pool().budget().peak() <= LIMIT, "{:?}", engine.pool().budget());
        // What was dropped while a read was under way is free once that has ended.
        engine.handle().block_on(async {
            while engine.pool().budget().used() > 0 {
                engine.nop().await.expect("done");
            }
        });
    }
}

#[test]
fn a_file_that_is_cut_short_ends_where_it_ends() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            let whole = content(3_000_000);
            write_file(engine, &path, &whole).await;
            let mut load = engine.load(&path);
            let file = engine.open(&path, OpenOptions::writing()).await.expect("opened");
            file.truncate(1_500_000).await.expect("cut");
            let loaded = load.ready().await.expect("loaded");
            let (stays, cut) = loaded.split_at(1_500_000);
            assert!(*stays == whole[..1_500_000]);
            // What is cut off while it is read may be zeros: systems clear memory before they give it back.
            let is_old_or_zero = |(new, old): (&u8, &u8)| new == old || *new == 0;
            assert!(cut.iter().zip(&whole[1_500_000..]).all(is_old_or_zero));
        });
    });
}

#[test]
fn a_fault_at_any_operation_is_an_error_and_never_wrong_bytes() {
    let (failed, harmless) = faults_at_any_operation(2_500_000, LoadOptions::new());
    assert!(failed > 4, "{failed} failed, {harmless} did not matter");
}

#[test]
fn the_same_of_one_whose_memory_is_made_ready_ahead() {
    let (failed, harmless) = faults_at_any_operation(17 << 20, LoadOptions::new());
    assert!(failed > 4, "{failed} failed, {harmless} did not matter");
    assert!(harmless >= 4, "what failed ahead of the reads matters to none: {harmless}");
}

#[test]
fn the_same_of_one_that_is_mapped() {
    // SAFETY: nobody changes the file.
    let options = unsafe { LoadOptions::new().mapping() };
    let (failed, harmless) = faults_at_any_operation(70 << 20, options);
    // To open it, to look at it, and to bring its second part; without a mapping it is read.
    assert!(failed >= 3 && harmless >= 2, "{failed} failed, {harmless} did not matter");
}

/// Loads a file on disks that fail once each. Gives how many of these loads failed, and for how many that did not
/// matter.
fn faults_at_any_operation(length: usize, options: LoadOptions) -> (u32, u32) {
    let prepared = SimulatedDisk::new(0);
    let whole = content(length);
    {
        let engine = Engine::builder().simulated(&prepared);
        engine.block_on(write_file(&engine, Path::new("/file"), &whole));
    }
    let load_on = |disk: &SimulatedDisk| {
        let engine = Engine::builder().simulated(disk);
        let outcome = engine.block_on(async {
            let mut load = engine.load_with("/file", options);
            load.ready().await.map(<[u8]>::to_vec)
        });
        engine.block_on(async {
            while engine.pool().budget().used() > 0 {
                engine.nop().await.expect("done");
            }
        });
        outcome
    };
    let disk = prepared.fork(1);
    assert!(load_on(&disk).expect("no fault") == whole);
    let (mut failed, mut harmless) = (0, 0);
    for at in 1..=disk.operations() {
        let disk = prepared.fork(at);
        disk.set_faults(Faults { failed_at: at, short_once_in: 3, ..Faults::default() });
        match load_on(&disk) {
            Ok(loaded) => {
                assert!(loaded == whole, "after a fault at operation {at}");
                harmless += 1;
            }
            Err(_) => failed += 1,
        }
    }
    (failed, harmless)
}

#[test]
fn memory_is_made_ready_while_it_is_read_into() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            let whole = content(100_000);
            write_file(engine, &path, &whole).await;
            let file = engine.open(&path, OpenOptions::reading()).await.expect("opened");
            let mut arena = engine.pool().arena(200_000).await.expect("memory");
            let first = file.read(arena.buffer(100_000), 100_000, 0);
            let ready = engine.populate(arena.range(5, 199_995));
            let first = first.await.expect("read");
            ready.await.expect("made ready");
            assert_eq!(*first, whole[..first.len()]);
            // And of what is there already nothing is lost.
            engine.populate(arena.range(0, 200_000)).await.expect("made ready");
            assert_eq!(*first, whole[..first.len()]);
        });
    });
}

#[test]
#[should_panic(expected = "a place in the arena")]
fn only_memory_of_the_arena_is_made_ready() {
    let pool = inflight::Pool::new(inflight::Budget::new(1 << 20));
    let _ = pool.try_arena(5000).expect("fits").range(1, 5000);
}

#[test]
fn one_that_waits_for_memory_gets_it_in_its_turn() {
    for engine in engines(|builder| builder.memory_bytes_max(2 << 20)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        engine.block_on(async {
            let path = directory.path().join("file");
            write_file(&engine, &path, &content(1_500_000)).await;
            let mut first = engine.load(&path);
            first.ready().await.expect("loaded");
            let mut second = engine.load(&path);
            // Operations go on meanwhile; memory is given first come, first served.
            for _ in 0..100 {
                engine.nop().await.expect("done");
            }
            assert!(!second.is_ready(), "there is no room for both");
            drop(first);
            assert_eq!(second.ready().await.expect("loaded").len(), 1_500_000);
        });
    }
}

#[test]
fn loads_from_a_slow_disk_do_not_hold_up_those_from_another() {
    let prepared = SimulatedDisk::new(0);
    {
        let engine = Engine::builder().simulated(&prepared);
        engine.block_on(async {
            for directory in ["/fast", "/slow"] {
                engine.create_directory(directory, 0o755).await.expect("made");
                for number in 0..40 {
                    let path = Path::new(directory).join(number.to_string());
                    write_file(&engine, &path, &content(100_000)).await;
                }
            }
        });
    }
    prepared.set_other_disk("/slow", 300).expect("there");
    let time = |beside: usize| {
        let disk = prepared.fork(5);
        let engine = Engine::builder().simulated(&disk);
        let begin = disk.now();
        engine.block_on(async {
            let load = |directory: &str, number: usize| {
                engine.load(Path::new(directory).join(number.to_string()))
            };
            let slow: Vec<Load> = (0..beside).map(|number| load("/slow", number)).collect();
            let fast: Vec<Load> = (0..40).map(|number| load("/fast", number)).collect();
            for mut load in fast {
                assert!(*load.ready().await.expect("loaded") == content(100_000));
            }
            let taken = disk.now() - begin;
            for mut load in slow {
                assert!(*load.ready().await.expect("loaded") == content(100_000));
            }
            (taken, disk.now() - begin)
        })
    };
    let (alone, _) = time(0);
    let (beside, all) = time(40);
    assert!(all > alone * 20, "{all:?} is not slow beside {alone:?}");
    assert!(beside < alone * 3 / 2, "{beside:?} beside them, {alone:?} alone");
}

#[test]
fn what_went_before_its_turn_does_not_keep_out_whose_turn_it_was() {
    const LIMIT: u64 = 16 << 20;
    let disk = SimulatedDisk::new(3);
    let engine = Engine::builder().memory_bytes_max(LIMIT).simulated(&disk);
    let large = content(LIMIT as usize - (1 << 20));
    engine.block_on(async {
        for directory in ["/fast", "/slow"] {
            engine.create_directory(directory, 0o755).await.expect("made");
        }
        write_file(&engine, Path::new("/slow/large"), &large).await;
        write_file(&engine, Path::new("/fast/small"), &content(200_000)).await;
        disk.set_other_disk("/slow", 300).expect("there");
        // It is used first, so the others keep what they have until then.
        let mut first = engine.load("/slow/large");
        let mut others: Vec<Load> = (0..40).map(|_| engine.load("/fast/small")).collect();
        assert!(*first.ready().await.expect("loaded") == large);
        assert!(others.iter().any(Load::is_ready), "some went before it");
        drop(first);
        for load in &mut others {
            assert!(*load.ready().await.expect("loaded") == content(200_000));
        }
    });
}

#[test]
#[allow(clippy::disallowed_methods, reason = "looks from outside the engine")]
fn what_has_no_size_and_takes_nearly_all_comes_to_its_turn_too() {
    const PATH: &str = "/proc/kallsyms";
    let Ok(all) = std::fs::read(PATH) else { return eprintln!("not run: no {PATH}") };
    let limit = all.len() as u64 + (1 << 20);
    if limit < 5 << 20 {
        return eprintln!("not run: {PATH} is small here");
    }
    for engine in engines(|builder| builder.memory_bytes_max(limit)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let small = directory.path().join("small");
        engine.block_on(async {
            write_file(&engine, &small, &content(200_000)).await;
            // It is used first, so the others keep what they have until then.
            let mut first = engine.load(PATH);
            let others: Vec<Load> = (0..40).map(|_| engine.load(&small)).collect();
            assert!(first.ready().await.expect("loaded").len() >= all.len() / 2);
            drop(first);
            for mut load in others {
                assert!(*load.ready().await.expect("loaded") == content(200_000));
            }
        });
    }
}
