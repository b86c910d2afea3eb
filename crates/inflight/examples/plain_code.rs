//! Uses the engine from code that knows nothing of futures: many files are looked at together, and
//! the caller waits for all of them once.
//!
//!     cargo run -p inflight --example plain_code -- PATH...

use std::path::PathBuf;

use inflight::{Engine, Metadata};

/// A plain function. It could be called from anywhere but the engine's own tasks.
fn look_at_all(engine: &Engine, paths: &[PathBuf]) -> Vec<inflight::Result<Metadata>> {
    engine.block_on(async {
        let ask = |path: &PathBuf| {
            let (handle, path) = (engine.handle().clone(), path.clone());
            // A task begins at once, whether anybody waits for it or not.
            engine.spawn(async move { handle.metadata(&path, true).await })
        };
        let asked: Vec<_> = paths.iter().map(ask).collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await);
        }
        answers
    })
}

fn main() -> inflight::Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let engine = Engine::new()?;
    for (path, answer) in paths.iter().zip(look_at_all(&engine, &paths)) {
        match answer {
            Ok(metadata) => println!("{}: {} bytes", path.display(), metadata.size),
            // The error says what, where, and what to do.
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
