//! Work that has time: a file is read again and again in the background while somebody waits for
//! short reads in the foreground.
//!
//!     cargo run --release -p inflight --example background -- FILE

use std::time::{Duration, Instant};

use inflight::{Engine, OpenOptions};

fn main() -> inflight::Result<()> {
    let path = std::env::args_os().nth(1).unwrap_or_else(|| "Cargo.toml".into());
    let engine = Engine::new()?;
    engine.block_on(async {
        // All that is opened and spawned through this handle gives way to the rest.
        let background = engine.background();
        let theirs = background.open(&path, OpenOptions::reading()).await?;
        let length = theirs.metadata().await?.size as usize;
        let busy = background.spawn({
            let handle = background.clone();
            async move {
                let mut buffer = handle.buffer(length).await;
                loop {
                    buffer.clear();
                    buffer = match theirs.read_full(buffer, length, 0).await {
                        Ok(buffer) => buffer,
                        Err(_) => return,
                    };
                }
            }
        });
        let ours = engine.open(path, OpenOptions::reading()).await?;
        let (mut worst, mut buffer) = (Duration::ZERO, engine.buffer(4096).await);
        for _ in 0..1000 {
            buffer.clear();
            let begin = Instant::now();
            buffer = ours.read(buffer, 4096, 0).await?;
            worst = worst.max(begin.elapsed());
        }
        // Dropping a task ends it at its next wait.
        drop(busy);
        println!("the slowest of 1000 short reads took {worst:?}");
        Ok(())
    })
}
