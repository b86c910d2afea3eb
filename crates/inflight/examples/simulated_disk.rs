//! Tests a program against a disk that loses its power: the program saves a file by writing another
//! one and renaming it. Without a sync, chance finds the crash that leaves an empty file; with it,
//! none does.
//!
//!     cargo run -p inflight --example simulated_disk

use std::path::Path;

use inflight::{Engine, Handle, OpenOptions, SimulatedDisk, SyncScope};

/// What is tested. It runs on a real disk just the same.
async fn save(handle: &Handle, text: &str, with_sync: bool) -> inflight::Result<()> {
    let (new, name) = (Path::new("/settings.new"), Path::new("/settings"));
    let file = handle.open(new, OpenOptions::replacing(0o600)).await?;
    let mut buffer = handle.buffer(text.len()).await;
    buffer.extend_from_slice(text.as_bytes());
    file.write_full(buffer, 0, text.len(), 0).await?;
    if with_sync {
        file.sync(SyncScope::All).await?;
    }
    handle.rename(new, name, true).await
}

async fn load(handle: &Handle) -> inflight::Result<String> {
    let file = handle.open("/settings", OpenOptions::reading()).await?;
    let length = file.metadata().await?.size as usize;
    let buffer = file.read_full(handle.buffer(length.max(1)).await, length, 0).await?;
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// The seed of the first disk, and the operation at which its power failed, that leave something
/// that was never saved.
fn find_fault(with_sync: bool) -> Option<(u64, u64)> {
    for seed in 0..100 {
        for crash_at in 1..10 {
            let disk = SimulatedDisk::new(seed);
            let engine = Engine::builder().simulated(&disk);
            engine.block_on(async {
                save(&engine, "first", true).await.expect("nothing goes wrong yet");
                let root = engine.open_directory("/").await.expect("there");
                root.sync(SyncScope::All).await.expect("nothing goes wrong yet");
            });
            disk.crash_at(disk.operations() + crash_at);
            // Fails from the crash on.
            let _ = engine.block_on(save(&engine, "second", with_sync));
            drop(engine);
            disk.restart();
            let engine = Engine::builder().simulated(&disk);
            let found = engine.block_on(load(&engine));
            if !matches!(found.as_deref(), Ok("first" | "second")) {
                return Some((seed, crash_at));
            }
        }
    }
    None
}

fn main() {
    match find_fault(false) {
        Some((seed, crash_at)) => {
            println!("without a sync: broken with seed {seed}, crashed at operation {crash_at}");
        }
        None => println!("without a sync: no fault found"),
    }
    match find_fault(true) {
        Some((seed, crash_at)) => {
            println!("with a sync: broken with seed {seed}, crashed at operation {crash_at}");
        }
        None => println!("with a sync: no fault found"),
    }
}
