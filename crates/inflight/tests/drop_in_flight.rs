//! Dropping futures at any moment: no descriptor leaks, no buffer is lost or freed early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use inflight::{DriverChoice, Engine, OpenOptions, Operation};

fn engines() -> impl Iterator<Item = Engine> {
    let uring = Engine::builder().driver(DriverChoice::Uring).build().ok();
    let threads = Engine::builder().driver(DriverChoice::Threads).build().expect("an engine");
    uring.into_iter().chain([threads])
}

#[allow(clippy::disallowed_methods, reason = "looks at the process from outside the engine")]
fn open_descriptors(of: &std::path::Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let points_there = |entry: std::io::Result<std::fs::DirEntry>| {
        let target = entry.ok().and_then(|entry| std::fs::read_link(entry.path()).ok());
        target.is_some_and(|target| target.starts_with(of))
    };
    links.map(points_there).filter(|there| *there).count()
}

/// Waits until every operation that was dropped has ended: the engine's own end waits for that.
fn settle(engine: Engine) {
    drop(engine);
}

#[test]
fn dropped_opens_leak_no_descriptor() {
    for engine in engines() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        engine.block_on(async {
            drop(engine.open(&path, OpenOptions::creating(0o600)).await.expect("made"));
            for round in 0..500 {
                let handle = engine.handle().clone();
                let path = path.clone();
                let mut open =
                    Box::pin(async move { handle.open(&path, OpenOptions::reading()).await });
                let mut context = Context::from_waker(Waker::noop());
                let _ = open.as_mut().poll(&mut context);
                if round % 3 == 0 {
                    // Sometimes let it end first, so that the drop meets a finished operation.
                    engine.submit(Operation::Nop).await.expect("nothing to fail");
                }
                drop(open);
            }
        });
        settle(engine);
        assert_eq!(open_descriptors(directory.path()), 0);
    }
}

#[test]
fn dropped_reads_and_writes_give_their_buffers_back() {
    for engine in engines() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pool = engine.pool().clone();
        engine.block_on(async {
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.path().join("file"), options).await.expect("made");
            for round in 0..300u64 {
                let mut buffer = engine.buffer(1 << 16).await;
                buffer.extend_fill(round as u8, 1 << 16);
                let mut write = file.write(buffer, 0, 1 << 16, round << 16);
                let read = file.read(engine.buffer(1 << 16).await, 1 << 16, 0);
                if round % 2 == 0 {
                    let _ = Pin::new(&mut write).poll(&mut Context::from_waker(Waker::noop()));
                }
                drop(write);
                drop(read);
            }
            // The file is dropped with operations in flight: the last of them closes it.
        });
        settle(engine);
        assert_eq!(pool.budget().used(), 0, "every buffer came home");
        assert_eq!(open_descriptors(directory.path()), 0, "the file was closed");
    }
}
