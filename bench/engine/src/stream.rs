//! Large reads: a file front to back, and reads that a tokio program submits.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use inflight::stream::{AnyFile, Reader, Writer};
use inflight::{AlignedOffset, Engine, OpenOptions, SyncScope};

use crate::{Places, stop_after};

/// Reads all of a file around the page cache, in order; gives its bytes.
pub fn run(engine: &str, depth: usize, request: usize, path: &str) -> u64 {
    let registered = match engine {
        "inflight" => 0,
        "registered" => 32 << 20,
        _ => panic!("the others have no such thing: fio is what it is compared with"),
    };
    let engine = Engine::builder().workers(1).registered_bytes(registered);
    let engine = engine.build().expect("an engine");
    engine.block_on(async {
        let file = engine.open_direct(path, OpenOptions::reading()).await.expect("opened");
        let length = file.metadata().await.expect("looked at").size;
        let mut reader = Reader::direct(file, AlignedOffset::ZERO, length).requests(request, depth);
        let mut bytes = 0;
        while let Some((_, buffer)) = reader.next().await.expect("read") {
            bytes += buffer.len() as u64;
        }
        bytes
    })
}

/// Reads or writes all of a file that is there, front to back, so many requests of that size under way; what is
/// written is durable at the end. Gives its bytes.
pub fn transfer(work: &str, mode: &str, depth: usize, request: usize, path: &str) -> u64 {
    let engine = Engine::builder().workers(1).request_bytes_max(64 << 20);
    let engine = engine.build().expect("an engine");
    engine.block_on(async {
        let options = match work {
            "read" => OpenOptions::reading(),
            "write" => OpenOptions::writing(),
            other => panic!("{other:?} is neither read nor write"),
        };
        let (file, length): (AnyFile, u64) = match mode {
            "direct" => {
                let file = engine.open_direct(path, options).await.expect("opened");
                let length = file.metadata().await.expect("looked at").size;
                (file.into(), length)
            }
            "buffered" => {
                let file = engine.open(path, options).await.expect("opened");
                let length = file.metadata().await.expect("looked at").size;
                (file.into(), length)
            }
            other => panic!("{other:?} is neither direct nor buffered"),
        };
        if work == "read" {
            let reader = Reader::whole(file).await.expect("opened");
            let mut reader = reader.requests(request, depth);
            while reader.next().await.expect("read").is_some() {}
        } else {
            let mut writer = Writer::new(file, None).await.expect("begun").requests(request, depth);
            while writer.position() < length {
                let mut buffer = engine.buffer(request).await;
                buffer.extend_fill(7, request.min((length - writer.position()) as usize));
                writer.write_buffer(buffer).await.expect("written");
            }
            writer.finish().await.expect("written").sync(SyncScope::Data).await.expect("durable");
        }
        length
    })
}

const REQUEST: usize = 1 << 20;

/// Reads of 1 MiB at random places of a hot file, from tasks of a tokio program.
pub fn from_tokio(engine: &str, depth: usize, seconds: f64, path: &str) -> u64 {
    let blocks = std::fs::metadata(path).expect("the file").len() / REQUEST as u64;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let inflight = engine == "inflight";
    let engine = Engine::builder().workers(1).build().expect("an engine");
    let stop = stop_after(seconds);
    runtime.block_on(async {
        let mut tasks = Vec::new();
        let ours = engine.open(path, OpenOptions::reading()).await.expect("opened");
        let theirs = Arc::new(std::fs::File::open(path).expect("opened"));
        for number in 0..depth {
            let (stop, ours, theirs) = (stop.clone(), ours.clone(), theirs.clone());
            let mut buffer = engine.buffer(REQUEST).await;
            tasks.push(tokio::spawn(async move {
                let (mut places, mut count) = (Places::new(number as u64), 0u64);
                let mut memory = vec![0; REQUEST];
                while !stop.load(Relaxed) {
                    let offset = places.next(blocks) * REQUEST as u64;
                    if inflight {
                        buffer.clear();
                        buffer = ours.read_full(buffer, REQUEST, offset).await.expect("read");
                    } else {
                        let file = theirs.clone();
                        memory = tokio::task::spawn_blocking(move || {
                            file.read_exact_at(&mut memory, offset).expect("read");
                            memory
                        })
                        .await
                        .expect("it ended");
                    }
                    count += 1;
                }
                count
            }));
        }
        let mut count = 0;
        for task in tasks {
            count += task.await.expect("it ended");
        }
        count
    })
}
