//! Warming: what it counts and reads, its limit, and what it does when the disk fails.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::{Advice, Engine, Faults, OpenOptions, Progress, SimulatedDisk, SyncScope};
use inflight_tools::{WarmReport, warm};
use support::{engines, everywhere, make_tree, noise, simulated, write};

async fn warmed(engine: &Engine, path: &Path, limit: u64) -> WarmReport {
    let paths = [path.to_path_buf()];
    warm(engine, &Arc::new(Progress::default()), &paths, limit).await.expect("it begins")
}

/// Has the page cache give up a file; says whether it did.
async fn cool(engine: &Engine, path: &Path) -> bool {
    let file = engine.open(path, OpenOptions::reading()).await.expect("opened");
    file.sync(SyncScope::All).await.expect("synced");
    file.advise(0, 0, Advice::DontNeed).await.expect("given up");
    let size = file.metadata().await.expect("there").size;
    file.cached_bytes(size).await.expect("counted") == 0
}

#[test]
fn what_is_there_is_counted_and_the_rest_read() {
    for engine in engines() {
        // Memory is no disk: below the build directory there mostly is one.
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        engine.block_on(async {
            let path = place.path().join("file");
            write(&engine, &path, &noise(1, (3 << 20) + 5)).await;
            let size = (3 << 20) + 5;
            let hot = warmed(&engine, place.path(), u64::MAX).await;
            assert_eq!(
                (hot.files, hot.bytes, hot.cached_bytes, hot.read_bytes),
                (1, size, size, 0)
            );
            if !cool(&engine, &path).await {
                return;
            }
            let limited = warmed(&engine, place.path(), size - 1).await;
            assert_eq!((limited.read_bytes, limited.left_bytes), (0, size));
            let cold = warmed(&engine, &path, size).await;
            assert_eq!((cold.cached_bytes, cold.read_bytes, cold.left_bytes), (0, size, 0));
            let file = engine.open(&path, OpenOptions::reading()).await.expect("opened");
            assert_eq!(file.cached_bytes(size).await.expect("counted"), size);
        });
    }
}

#[test]
fn a_whole_tree_is_gone_through() {
    everywhere(|engine, place| {
        engine.block_on(async {
            let root = place.join("tree");
            make_tree(engine, &root).await;
            let report = warmed(engine, &root, u64::MAX).await;
            assert!(report.files > 160 && report.trouble_count == 0, "{report:?}");
            // Each but once, however often it is named.
            let twice = [root.clone(), root.join("a"), root.clone()];
            let progress = Arc::new(Progress::default());
            let again = warm(engine, &progress, &twice, u64::MAX).await.expect("it begins");
            assert_eq!((again.files, again.bytes), (report.files, report.bytes));
            let socket = [root.join("socket")];
            let error = warm(engine, &progress, &socket, 1).await.unwrap_err();
            assert!(error.to_string().contains("is a socket"), "{error}");
            let missing = [PathBuf::from("/no/such/file")];
            let progress = Arc::new(Progress::default());
            let error = warm(engine, &progress, &missing, 1).await.unwrap_err();
            assert!(error.to_string().contains("check the path"), "{error}");
        });
    });
}

#[test]
fn a_fault_at_any_operation_is_told() {
    let prepared = SimulatedDisk::new(0);
    prepared.set_cached(false);
    {
        let engine = simulated(&prepared);
        engine.block_on(async {
            engine.create_directory("/tree", 0o755).await.expect("made");
            for number in 0..3 {
                let path = PathBuf::from(format!("/tree/{number}"));
                write(&engine, &path, &noise(number, 2_000_000)).await;
            }
        });
    }
    let on = |disk: &SimulatedDisk| {
        let engine = simulated(disk);
        let paths = [PathBuf::from("/tree")];
        engine.block_on(warm(&engine, &Arc::new(Progress::default()), &paths, u64::MAX))
    };
    let disk = prepared.fork(1);
    let report = on(&disk).expect("no fault");
    assert_eq!((report.read_bytes, report.trouble_count), (6_000_000, 0), "{report:?}");
    let mut told = 0;
    for at in 1..=disk.operations() {
        let disk = prepared.fork(at);
        disk.set_faults(Faults { failed_at: at, short_once_in: 4, ..Faults::default() });
        match on(&disk) {
            Ok(report) if report.trouble_count == 0 => {
                assert_eq!(report.read_bytes, 6_000_000, "a fault at {at} was hidden");
            }
            _ => told += 1,
        }
    }
    assert!(told > 10, "{told} told");
}
