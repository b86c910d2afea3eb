//! A disk that is slow does not slow copies on another one: on the simulated machine, by its clock.

mod support;

use std::path::Path;
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
        for directory in ["/one", "/two", "/slow"] {
            engine.create_directory(directory, 0o755).await.expect("made");
        }
        for directory in ["/one", "/two"] {
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
