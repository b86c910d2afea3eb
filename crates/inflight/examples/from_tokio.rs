//! Uses the engine from a tokio program: its futures are ready for any executor, and wake it from
//! the engine's own threads.
//!
//!     cargo run -p inflight --example from_tokio -- Cargo.toml README.md

use inflight::{Engine, Handle, OpenOptions};

async fn size_and_sum(handle: Handle, path: String) -> inflight::Result<(String, u64, u64)> {
    let file = handle.open(&path, OpenOptions::reading()).await?;
    let length = file.metadata().await?.size;
    // Waits while the engine's memory is in use elsewhere: thousands of these may run at once.
    let buffer = handle.buffer(length as usize).await;
    let buffer = file.read_full(buffer, length as usize, 0).await?;
    let sum = buffer.iter().map(|byte| u64::from(*byte)).sum();
    Ok((path, length, sum))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Made once, kept for as long as the program does I/O; its handles go wherever they are needed.
    let engine = Engine::new()?;
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let jobs: Vec<_> = paths
        .into_iter()
        .map(|path| tokio::spawn(size_and_sum(engine.handle().clone(), path)))
        .collect();
    for job in jobs {
        let (path, length, sum) = job.await??;
        println!("{path}: {length} bytes, sum {sum}");
    }
    Ok(())
}
