//! What background work at full load costs short reads in the foreground: percentiles of 4 KiB
//! direct reads, alone, beside background reads and writes, and beside the same in the foreground.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use inflight::{AlignedOffset, Engine, Handle, OpenOptions};

use crate::{Places, stop_after};

/// How many requests of the load are submitted at once.
const LOAD_DEPTH: usize = 16;
/// Reads of the foreground, with a pause after each: the device is not saturated by them.
const PAUSE: Duration = Duration::from_micros(500);

pub fn print(path: &str, seconds: f64, load_bytes: usize) {
    let engine = Engine::builder().build().expect("an engine");
    // Taken in turn, so that drift of the device cannot decide.
    let mut samples: [Vec<f64>; 3] = Default::default();
    let mut loads = [0u64; 3];
    for _ in 0..5 {
        for (kind, samples) in samples.iter_mut().enumerate() {
            let (times, load) = run(&engine, path, kind, seconds, load_bytes);
            samples.extend(times);
            loads[kind] += load;
        }
    }
    let names = ["alone", "beside the background", "beside the foreground"];
    for ((name, samples), load) in names.iter().zip(&mut samples).zip(loads) {
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize];
        println!(
            "{name:22} median {:7.0} us, 99th {:7.0} us; the load moved {:6.0} MB/s",
            at(0.5),
            at(0.99),
            load as f64 / (5.0 * seconds) / 1e6
        );
    }
}

fn run(
    engine: &Engine,
    path: &str,
    kind: usize,
    seconds: f64,
    load_bytes: usize,
) -> (Vec<f64>, u64) {
    let stop = stop_after(seconds);
    let moved = Arc::new(AtomicU64::new(0));
    engine.block_on(async {
        let handle = match kind {
            1 => Some(engine.background()),
            2 => Some(engine.handle().clone()),
            _ => None,
        };
        let mut load = Vec::new();
        if let Some(handle) = handle {
            for number in 0..LOAD_DEPTH {
                let (stop, moved) = (stop.clone(), moved.clone());
                let places = Places::new(number as u64);
                let reading =
                    read_all(handle.clone(), path.into(), places, load_bytes, stop, moved);
                load.push(handle.spawn(reading));
            }
        }
        let file = engine.open_direct(path, OpenOptions::reading()).await.expect("opened");
        let blocks = file.metadata().await.expect("looked at").size / 4096;
        let (mut places, mut times) = (Places::new(99), Vec::new());
        let mut buffer = engine.buffer(4096).await;
        while !stop.load(Relaxed) {
            engine.sleep(PAUSE).await.expect("slept");
            let begin = Instant::now();
            let offset = AlignedOffset::ZERO.plus_blocks(places.next(blocks));
            buffer = file.read(buffer, offset).await.expect("read");
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        for task in load {
            task.await;
        }
        (times, moved.load(Relaxed))
    })
}

async fn read_all(
    handle: Handle,
    path: String,
    mut places: Places,
    load_bytes: usize,
    stop: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
) {
    let file = handle.open_direct(path, OpenOptions::reading()).await.expect("opened");
    let size = file.metadata().await.expect("looked at").size;
    let mut buffer = handle.buffer(load_bytes).await;
    while !stop.load(Relaxed) {
        let block = places.next(size / load_bytes as u64) * (load_bytes / 4096) as u64;
        buffer = file.read(buffer, AlignedOffset::ZERO.plus_blocks(block)).await.expect("read");
        moved.fetch_add(buffer.len() as u64, Relaxed);
    }
}
