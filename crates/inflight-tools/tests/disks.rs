//! A disk that is slow does not slow copies on another one: on the simulated machine, by its clock.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inflight::{Engine, Progress, SimulatedDisk};
use inflight_tools::{CopyOptions, copy};
use support::{assert_same, look, noise, write};

const SLOWER: u32 = 300;

/// Two trees on the first disk, and a directory that is another, slow one.
fn prepared() -> SimulatedDisk {
    let disk = SimulatedDisk::new(0);
    let engine = Engine::builder().simulated(&disk);
    engine.block_on(async {
        for directory in ["/one", "/two", "/slow", "/slow/three", "/into"] {
            engine.create_directory(directory, 0o755).await.expect("made");
        }
        for directory in ["/one", "/two", "/slow/three"] {
            let place = Path::new(directory);
            for number in 0..40 {
                let content = noise(number, 20_000);
                write(&engine, &place.join(number.to_string()), &content).await;
            }
            for number in 0..4 {
                let content = noise(number, (6 << 20) + 5);
                write(&engine, &place.join(format!("large{number}")), &content).await;
            }
        }
    });
    drop(engine);
    disk.set_other_disk("/slow", SLOWER).expect("there");
    disk
}

/// How long a copy of one tree takes within the first disk, and one of the other tree to the slow one, if
/// that is to run beside it.
fn times(disk: &SimulatedDisk, memory: u64, beside: bool) -> (Duration, Option<Duration>) {
    let disk = disk.fork(7);
    let engine = Engine::builder().memory_bytes_max(memory).simulated(&disk);
    let start = |from: &'static str, to: &'static str| {
        let (handle, disk) = (engine.handle().clone(), disk.clone());
        engine.spawn(async move {
            let (progress, begin) = (Arc::new(Progress::default()), disk.now());
            let options = CopyOptions::default();
            let report = copy(&handle, &progress, &[from.into()], Path::new(to), options).await;
            assert!(report.expect("copied").is_whole());
            disk.now() - begin
        })
    };
    engine.block_on(async {
        let slow = beside.then(|| start("/two", "/slow/copy"));
        let fast = start("/one", "/copy").await;
        let slow = match slow {
            Some(slow) => Some(slow.await),
            None => None,
        };
        assert_same(
            &look(&engine, Path::new("/one")).await,
            &look(&engine, Path::new("/copy")).await,
        );
        if beside {
            let copied = look(&engine, Path::new("/slow/copy")).await;
            assert_same(&look(&engine, Path::new("/two")).await, &copied);
        }
        (fast, slow)
    })
}

#[test]
fn a_slow_disk_does_not_slow_a_copy_on_another_one() {
    let disk = prepared();
    for memory in [256 << 20, 48 << 20] {
        let (alone, _) = times(&disk, memory, false);
        let (beside, slow) = times(&disk, memory, true);
        let slow = slow.expect("it ran");
        assert!(slow > alone * 20, "{slow:?} is not slow beside {alone:?}");
        assert!(beside < alone * 3 / 2, "{memory} bytes: {beside:?} beside it, {alone:?} alone");
    }
}

/// How long it takes until the tree of the first disk has its name, in one copy together with others, from when
/// it is begun: before that, all sources are looked at, on whatever they are. And how long all of it takes.
fn time_to_name(disk: &SimulatedDisk, sources: &[&str]) -> (Duration, Duration) {
    let disk = disk.fork(7);
    let engine = Engine::builder().simulated(&disk);
    let sources: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
    let (handle, count) = (engine.handle().clone(), sources.len());
    let begin = disk.now();
    engine.block_on(async {
        let all = engine.spawn(async move {
            let progress = Arc::new(Progress::default());
            let options = CopyOptions::default();
            let report = copy(&handle, &progress, &sources, Path::new("/into/"), options).await;
            let report = report.expect("copied");
            assert!(report.is_whole() && report.files == 44 * count as u64, "{report:?}");
        });
        let appears = async |path: &str| {
            while engine.metadata(path, false).await.is_err() {
                engine.sleep(Duration::from_millis(1)).await.expect("slept");
            }
            disk.now()
        };
        let begun = appears("/into/.one.inflight-copy").await;
        let named = appears("/into/one").await;
        all.await;
        (named - begun, disk.now() - begin)
    })
}

#[test]
fn one_copy_from_two_disks_has_each_done_in_its_own_time() {
    let disk = prepared();
    let (alone, _) = time_to_name(&disk, &["/one"]);
    for sources in [["/one", "/slow/three"], ["/slow/three", "/one"]] {
        let (beside, all) = time_to_name(&disk, &sources);
        assert!(all > alone * 20, "{all:?} is not slow beside {alone:?}");
        assert!(beside < alone * 3 / 2, "{sources:?}: {beside:?} beside it, {alone:?} alone");
    }
}

#[test]
fn nothing_goes_from_disk_to_disk_but_by_copies() {
    let disk = prepared();
    let engine = Engine::builder().simulated(&disk);
    engine.block_on(async {
        let other = engine.metadata("/slow", true).await.expect("there");
        assert_ne!(other.device, engine.metadata("/one", true).await.expect("there").device);
        let renamed = engine.rename("/one/1", "/slow/1", true).await.expect_err("two disks");
        assert_eq!(renamed.kind(), std::io::ErrorKind::CrossesDevices);
        let root = engine.open_directory("/").await.expect("there");
        let linked = root.create_hard_link("one/1", "slow/1").await.expect_err("two disks");
        assert_eq!(linked.kind(), std::io::ErrorKind::CrossesDevices);
    });
}
