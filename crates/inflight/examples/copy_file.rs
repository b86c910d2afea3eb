//! Copies a file: reading and writing at once, several requests of each under way.
//!
//!     cargo run -p inflight --example copy_file -- FROM TO

use inflight::stream::{Reader, Writer};
use inflight::{Engine, OpenOptions, SyncScope};

fn main() -> inflight::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: copy_file FROM TO");
        std::process::exit(2);
    };
    let engine = Engine::new()?;
    let copied = engine.block_on(async {
        let source = engine.open(from, OpenOptions::reading()).await?;
        let metadata = source.metadata().await?;
        // Refuses to write over something.
        let target = engine.open(to, OpenOptions::creating(metadata.mode)).await?;
        let mut reader = Reader::whole(source).await?;
        let mut writer = Writer::new(target, Some(metadata.size)).await?;
        while let Some((_, buffer)) = reader.next().await? {
            writer.write_buffer(buffer).await?;
        }
        let target = writer.finish().await?;
        target.sync(SyncScope::Data).await?;
        inflight::Result::Ok(metadata.size)
    })?;
    println!("{copied} bytes copied");
    Ok(())
}
