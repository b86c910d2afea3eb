//! Cycles of opening, reading, mapping, connecting, and dropping all of it half-way: what the process
//! holds stays the same. 2,000 cycles on each driver, or as many as `INFLIGHT_SOAK_CYCLES` says.
//!
//! One test in a file of its own, as it looks at the whole process.
#![allow(clippy::disallowed_methods, reason = "looks at the process from outside the engine")]

mod support;

use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use inflight::{Engine, Listener, OpenOptions, SimulatedDisk};
use support::{bytes, engines};

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    maps: usize,
    descriptors: usize,
    resident_bytes: u64,
}

fn held() -> Held {
    let lines = |path| std::fs::read_to_string(path).expect("Linux").lines().count();
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    Held { maps: lines("/proc/self/maps"), descriptors, resident_bytes: pages * 4096 }
}

fn cycles() -> u64 {
    let asked = std::env::var("INFLIGHT_SOAK_CYCLES").ok();
    asked.map_or(2000, |text| text.parse().expect("a number of cycles"))
}

/// Numbers that look like chance.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Polls a future a few times, giving the engine's threads time now and then, and drops it.
fn drop_half_way(future: impl Future, polls: u64) {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    for poll in 0..polls {
        if future.as_mut().poll(&mut context).is_ready() {
            return;
        }
        if poll % 2 == 1 {
            std::thread::yield_now();
        }
    }
}

/// One connection's life: echo a little, and go.
async fn talk(engine: &Engine, listener: &Listener) -> inflight::Result<()> {
    let address = listener.address().await?;
    let client = engine.connect(address).await?;
    let (server, _) = listener.accept().await?;
    client.send_full(bytes(engine, b"soak")).await?;
    let received = server.receive_pooled().await?;
    server.send_full(received).await?;
    client.receive(engine.buffer(16).await, 16).await?;
    Ok(())
}

async fn read(engine: &Engine, path: &std::path::Path) -> inflight::Result<()> {
    let file = engine.open(path, OpenOptions::reading()).await?;
    let buffer = file.read_full(engine.buffer(16 << 10).await, 16 << 10, 100).await?;
    let metadata = file.metadata().await?;
    let mut arena = engine.pool().try_arena(64 << 10).expect("within the budget");
    let mapped = file.read(arena.buffer(32 << 10), 32 << 10, 0).await?;
    drop((buffer, metadata, mapped));
    file.close().await
}

async fn cycle(
    engine: &Engine,
    [listener, victim]: [&Listener; 2],
    path: &std::path::Path,
    state: &mut u64,
) {
    match next(state) % 6 {
        0 => read(engine, path).await.expect("read"),
        1 => talk(engine, listener).await.expect("talked"),
        2 => drop_half_way(read(engine, path), next(state) % 12),
        3 => {
            // Not more than the listener's backlog holds: what nobody accepts is dropped there.
            drop_half_way(talk(engine, victim), next(state) % 12);
        }
        4 => {
            drop_half_way(engine.sleep(Duration::from_secs(3600)), 1);
            drop_half_way(victim.accept(), next(state) % 3);
        }
        _ => {
            let (completer, posted) = engine.completion().expect("a slot is free");
            if next(state).is_multiple_of(2) {
                drop(posted);
                completer.complete(1, bytes(engine, b"soak"));
            } else {
                drop_half_way(posted, 1);
            }
        }
    }
}

/// Takes what connections that were dropped half-way left in the backlog.
async fn drain(engine: &Engine, listener: &Listener) {
    while engine.timeout(Duration::from_millis(20), listener.accept()).await.is_ok() {}
}

#[test]
fn what_the_process_holds_stays_the_same() {
    for engine in engines(|builder| builder.workers(1).threads_max(2)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, vec![7; 100_000]).expect("written");
        let address: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
        engine.block_on(async {
            // The second listener is for what is dropped half-way: what comes of it is another's.
            let listener = engine.listen(address).await.expect("listens");
            let victim = engine.listen(address).await.expect("listens");
            let (mut state, mut before) = (0x9e37_79b9_7f4a_7c15, None);
            let warm_up = (cycles() / 10).clamp(1000, 20_000);
            for number in 0..cycles() + warm_up {
                if number == warm_up {
                    drain(&engine, &victim).await;
                    before = Some(held());
                }
                if number % 100 == 99 {
                    drain(&engine, &victim).await;
                }
                cycle(&engine, [&listener, &victim], &path, &mut state).await;
            }
            drain(&engine, &victim).await;
            // What was dropped half-way ends now.
            engine.sleep(Duration::from_millis(50)).await.expect("slept");
            let (before, after) = (before.expect("warmed up"), held());
            let told = format!("{before:?} before, {after:?} after, on {:?}", engine.driver());
            println!("{} cycles: {told}", cycles());
            assert!(after.descriptors <= before.descriptors, "{told}");
            assert!(after.maps <= before.maps + 4, "{told}");
            assert!(after.resident_bytes <= before.resident_bytes + (2 << 20), "{told}");
        });
    }
}

#[test]
fn the_simulated_disk_forgets_what_is_gone() {
    let disk = SimulatedDisk::new(1);
    let engine = Engine::builder().simulated(&disk);
    engine.block_on(async {
        for number in 0..500 {
            let path = "/file";
            let file = engine.open(path, OpenOptions::replacing(0o600)).await.expect("made");
            drop(file.write_full(bytes(&engine, &[7; 5000]), 0, 5000, 0).await.expect("written"));
            if number % 7 == 0 {
                file.sync(inflight::SyncScope::All).await.expect("synced");
            }
            drop_half_way(file.read(engine.buffer(100).await, 100, 0), number % 3);
            engine.remove(path, inflight::RemoveKind::File).await.expect("removed");
        }
        let root = engine.open_directory("/").await.expect("there");
        root.sync(inflight::SyncScope::FileSystem).await.expect("synced");
    });
    drop(engine);
    // A megabyte for all that is left.
    disk.set_capacity(1 << 20);
    let engine = Engine::builder().simulated(&disk);
    engine.block_on(async {
        let file = engine.open("/file", OpenOptions::replacing(0o600)).await;
        let buffer = bytes(&engine, &vec![7; 900 << 10]);
        file.expect("made").write_full(buffer, 0, 900 << 10, 0).await.expect("there is room");
    });
}
