//! What single things cost, in microseconds: the figures of the crate's page on costs.

use std::os::unix::fs::FileExt;
use std::time::Instant;

use inflight::{Engine, OpenOptions};

/// The median of so many runs, in microseconds.
fn median(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

pub fn print() {
    let path = std::env::temp_dir().join(format!("engine-costs-{}", std::process::id()));
    std::fs::write(&path, vec![7; 4096]).expect("written");
    println!("start and end of an engine       {:8.1} us", median(50, || drop(Engine::new())));
    let engine = Engine::new().expect("an engine");
    let read = median(2000, || drop(std::fs::read(&path).expect("read")));
    println!("std::fs::read of 4 KiB           {read:8.1} us");
    let ours = || {
        engine.block_on(async {
            let file = engine.open(&path, OpenOptions::reading()).await.expect("opened");
            let buffer = file.read(engine.buffer(4096).await, 4096, 0).await.expect("read");
            assert_eq!(buffer.len(), 4096);
        });
    };
    println!("the same, block_on               {:8.1} us", median(2000, ours));
    let task = || {
        let (handle, path) = (engine.handle().clone(), path.clone());
        let task = engine.spawn(async move {
            for _ in 0..100 {
                let file = handle.open(&path, OpenOptions::reading()).await.expect("opened");
                drop(file.read(handle.buffer(4096).await, 4096, 0).await.expect("read"));
            }
        });
        engine.block_on(task);
    };
    println!("the same, in a task              {:8.1} us", median(50, task) / 100.0);
    let file = std::fs::File::open(&path).expect("opened");
    let mut bytes = vec![0; 4096];
    let pread = median(5000, || file.read_exact_at(&mut bytes, 0).expect("read"));
    println!("pread of 4 KiB                   {pread:8.2} us");
    engine.block_on(async {
        let file = engine.open(&path, OpenOptions::reading()).await.expect("opened");
        let mut times = Vec::new();
        let mut buffer = engine.buffer(4096).await;
        for _ in 0..5000 {
            buffer.clear();
            let begin = Instant::now();
            buffer = file.read(buffer, 4096, 0).await.expect("read");
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        println!("a read, from another thread      {:8.2} us", times[times.len() / 2]);
        let task = engine.spawn(async move {
            let begin = Instant::now();
            for _ in 0..5000 {
                buffer.clear();
                buffer = file.read(buffer, 4096, 0).await.expect("read");
            }
            begin.elapsed().as_secs_f64() * 1e6 / 5000.0
        });
        println!("a read, in a task                {:8.2} us", task.await);
    });
    std::fs::remove_file(&path).expect("removed");
}
