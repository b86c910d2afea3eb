//! Faults that were found once and shall not come back, by the property they broke.

mod support;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use inflight::stream::{Reader, Writer};
use inflight::{Buffer, Builder, Engine, OpenOptions, Operation};
use support::engines;

fn on_each_driver(settings: impl Fn(Builder) -> Builder, test: impl Fn(Engine, &Path)) {
    for engine in engines(settings) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        test(engine, directory.path());
    }
}

fn filled(engine: &Engine, length: usize) -> Buffer {
    let mut buffer = engine.pool().try_get(length).expect("within the budget");
    buffer.extend_fill(7, length);
    buffer
}

#[test]
fn an_engine_may_be_dropped_by_one_of_its_own_tasks() {
    on_each_driver(
        |builder| builder,
        |engine, directory| {
            let (handle, path) = (engine.handle().clone(), directory.to_path_buf());
            let (told, done) = std::sync::mpsc::channel();
            handle
                .spawn(async move {
                    engine.metadata(&path, true).await.expect("it is there");
                    drop(engine);
                    told.send(()).expect("the test waits");
                })
                .detach();
            drop(handle);
            done.recv().expect("the task came to its end");
        },
    );
}

#[test]
fn operations_that_cannot_be_are_refused() {
    on_each_driver(
        |builder| builder,
        |engine, directory| {
            engine.block_on(async {
                let options = OpenOptions::creating(0o600).read_write();
                let file = engine.open(&directory.join("file"), options).await.expect("made");
                let file = file.descriptor().clone();
                let operations = [
                    Operation::Write {
                        file: file.clone(),
                        buffer: filled(&engine, 5),
                        start: 100,
                        length: 10,
                        offset: 0,
                    },
                    Operation::Read {
                        file,
                        buffer: filled(&engine, 5),
                        length: 10,
                        offset: u64::MAX - 3,
                    },
                ];
                for operation in operations {
                    let error = engine.submit(operation).await.expect_err("refused");
                    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
                }
                engine.submit(Operation::Nop).await.expect("the engine goes on");
            });
        },
    );
}

#[test]
fn an_operation_that_nobody_polls_holds_nobody_up() {
    on_each_driver(
        |builder| builder.workers(1).queue_depth(2),
        |engine, directory| {
            engine.block_on(async {
                let first = engine.submit(Operation::Nop);
                let second = engine.submit(Operation::Nop);
                let mut forgotten = engine.submit(Operation::Nop);
                let _ = Pin::new(&mut forgotten).poll(&mut Context::from_waker(Waker::noop()));
                first.await.expect("nothing to fail");
                second.await.expect("nothing to fail");
                engine.metadata(directory, true).await.expect("it is there");
                std::mem::forget(forgotten);
            });
            // The slot of what was forgotten is lost; the engine still ends.
            drop(engine);
        },
    );
}

#[test]
fn streams_deeper_than_the_memory_go_on() {
    on_each_driver(
        |builder| builder.memory_bytes_max(1 << 20),
        |engine, directory| {
            engine.block_on(async {
                let path = directory.join("file");
                let file = engine.open(&path, OpenOptions::creating(0o600)).await.expect("made");
                let mut writer =
                    Writer::new(file, None).await.expect("begun").requests(1 << 18, 16);
                for _ in 0..40 {
                    writer.write(&[9; 100_000]).await.expect("written");
                }
                writer.finish().await.expect("finished");
                let file = engine.open(&path, OpenOptions::reading()).await.expect("there");
                let mut reader = Reader::new(file, 0..4_000_000).requests(1 << 18, 16);
                let mut total = 0;
                while let Some((at, buffer)) = reader.next().await.expect("read") {
                    assert_eq!(at, total);
                    assert!(buffer.iter().all(|byte| *byte == 9));
                    total += buffer.len() as u64;
                }
                assert_eq!(total, 4_000_000);
            });
        },
    );
}

#[test]
fn a_writer_cuts_what_was_there_before() {
    on_each_driver(
        |builder| builder,
        |engine, directory| {
            engine.block_on(async {
                let options = OpenOptions::creating(0o600).read_write();
                let file = engine.open(&directory.join("file"), options).await.expect("made");
                let buffer = filled(&engine, 5000);
                drop(file.write_full(buffer, 0, 5000, 0).await.expect("written"));
                let mut writer = Writer::new(file, Some(3)).await.expect("begun").requests(4096, 2);
                writer.write(b"abc").await.expect("written");
                let file = writer.finish().await.expect("finished");
                assert_eq!(file.metadata().await.expect("there").size, 3);
            });
        },
    );
}

#[test]
fn a_shallow_queue_still_uses_the_driver_it_says() {
    for queue_depth in [1, 8, 32, 33] {
        on_each_driver(
            |builder| builder.queue_depth(queue_depth),
            |engine, directory| {
                let metadata = engine.block_on(engine.metadata(directory, true));
                metadata.expect("it is there");
            },
        );
    }
}

#[test]
fn one_full_worker_does_not_hold_up_the_others() {
    for engine in engines(|builder| builder.workers(2).queue_depth(4)) {
        // From outside, each goes to the worker that went to sleep last.
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(engine.sleep(Duration::from_secs(3600)));
            std::thread::sleep(Duration::from_millis(5));
        }
        let nop = engine.nop();
        inflight::block_on(nop).expect("there are slots left");
    }
}

#[test]
fn what_comes_back_can_be_submitted_again() {
    let disk = inflight::SimulatedDisk::new(1);
    let engine = Engine::builder().simulated(&disk);
    engine.block_on(async {
        let at = inflight::At::new(None, Path::new("/")).expect("a path");
        let options = OpenOptions::directory();
        let open = Operation::Open { at, options, descriptor: None };
        let (opened, _) = engine.submit(open).await.expect("there");
        let (opened, _) = engine.submit(opened).await.expect("still there");
        assert_eq!(disk.opened(), 1, "the first was closed");
        drop(opened);
    });
}
