//! Background work gives way, and gets its turn.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inflight::{Class, Engine, OpenOptions, SimulatedDisk};
use support::{bytes, engines};

#[test]
fn background_operations_end_beside_others() {
    // Again and again: once in eight times, all slept while background operations were held back.
    let rounds = (0..15).flat_map(|_| engines(|builder| builder.workers(1)));
    for engine in rounds {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        engine.block_on(async {
            let file = engine.open(&path, OpenOptions::creating(0o600)).await.expect("made");
            drop(file.write_full(bytes(&engine, &[7; 65536]), 0, 65536, 0).await.expect("written"));
            let background = engine.background();
            assert_eq!(background.class(), Class::Background);
            assert_eq!(engine.class(), Class::Foreground);
            let theirs = background.open(&path, OpenOptions::reading()).await.expect("there");
            assert_eq!(theirs.handle().class(), Class::Background);
            let ours = engine.open(&path, OpenOptions::reading()).await.expect("there");
            // Far more than may be under way, and all of them end.
            let mut waiting = Vec::new();
            for number in 0..500u64 {
                let buffer = engine.buffer(4096).await;
                waiting.push(theirs.read(buffer, 4096, number % 16 * 4096));
            }
            for _ in 0..100 {
                let read = ours.read(engine.buffer(4096).await, 4096, 0).await.expect("read");
                assert_eq!(read.len(), 4096);
            }
            // Some are dropped before they begin.
            waiting.truncate(400);
            for read in waiting {
                assert_eq!(read.await.expect("read").len(), 4096);
            }
        });
        drop(engine);
    }
}

/// On a simulated disk, where operations take effect one at a time: what is under way can be counted.
#[test]
fn few_background_operations_are_under_way_beside_others() {
    let disk = SimulatedDisk::new(1);
    let engine = Engine::builder().queue_depth(4096).simulated(&disk);
    engine.block_on(async {
        let path = "/file";
        let options = OpenOptions::creating(0o600).read_write();
        let file = engine.open(path, options).await.expect("made");
        drop(file.write_full(bytes(&engine, &[7; 4096]), 0, 4096, 0).await.expect("written"));
        let theirs = engine.background().open(path, OpenOptions::reading()).await.expect("there");
        let mut waiting = Vec::new();
        for _ in 0..3000 {
            waiting.push(theirs.read(engine.buffer(4096).await, 4096, 0));
        }
        let mut least = u64::MAX;
        for round in 0..300 {
            drop(file.read(engine.buffer(4096).await, 4096, 0).await.expect("read"));
            if round >= 200 {
                least = least.min(engine.metrics().in_flight);
            }
        }
        assert!(least <= 2, "{least} operations under way");
        // They were not done by then, and all of them end.
        let before = engine.metrics().operations;
        for read in waiting {
            assert_eq!(read.await.expect("read").len(), 4096);
        }
        assert!(engine.metrics().operations > before + 100);
    });
}

#[test]
fn background_tasks_run_while_foreground_tasks_never_rest() {
    for engine in engines(|builder| builder.workers(1)) {
        let turns = Arc::new(AtomicU64::new(0));
        let busy = engine.spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.fetch_add(1, Relaxed);
                    let mut yielded = false;
                    std::future::poll_fn(|context| {
                        if std::mem::replace(&mut yielded, true) {
                            return std::task::Poll::Ready(());
                        }
                        context.waker().wake_by_ref();
                        std::task::Poll::Pending
                    })
                    .await;
                }
            }
        });
        let task = engine.background().spawn(async { 7 });
        assert_eq!(engine.block_on(task), 7);
        assert!(turns.load(Relaxed) > 0);
        drop(busy);
    }
}

#[test]
fn an_engine_ends_with_background_operations_that_never_began() {
    for engine in engines(|builder| builder.workers(1)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pool = engine.pool().clone();
        let waiting = engine.block_on(async {
            let path = directory.path().join("file");
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.background().open(&path, options).await.expect("made");
            let buffer = |_| engine.pool().try_get(4096).expect("within the budget");
            (0..300).map(buffer).map(|buffer| file.read(buffer, 4096, 0)).collect::<Vec<_>>()
        });
        drop(engine);
        for read in waiting {
            // Each of them has ended, one way or the other.
            let _ = inflight::block_on(read);
        }
        assert_eq!(pool.budget().used(), 0);
    }
}
