//! Reads a file and prints how many bytes and lines it has.
//!
//!     cargo run -p inflight --example read_file -- Cargo.toml

use inflight::stream::Reader;
use inflight::{Engine, OpenOptions};

fn main() -> inflight::Result<()> {
    let path = std::env::args_os().nth(1).unwrap_or_else(|| "Cargo.toml".into());
    let engine = Engine::new()?;
    let (bytes, lines) = engine.block_on(async {
        let file = engine.open(path, OpenOptions::reading()).await?;
        // Up to four requests of 1 MiB are under way while we count.
        let mut reader = Reader::whole(file).await?;
        let (mut bytes, mut lines) = (0, 0);
        while let Some((_, buffer)) = reader.next().await? {
            bytes += buffer.len();
            lines += buffer.iter().filter(|byte| **byte == b'\n').count();
            // Its memory is used for the next request.
        }
        inflight::Result::Ok((bytes, lines))
    })?;
    println!("{bytes} bytes, {lines} lines");
    Ok(())
}
