//! Serves the files of a directory over HTTP: the kernel sends them without a copy through us, and
//! no path leads out of the directory.
//!
//!     cargo run -p inflight --example static_files -- DIRECTORY 127.0.0.1:8000

use std::net::SocketAddr;
use std::path::Path;

use inflight::{Connection, Directory, Engine, FileKind, OpenOptions};

/// Bytes of a request's head at most.
const HEAD_BYTES_MAX: usize = 8 << 10;

async fn serve(connection: Connection, root: Directory) -> inflight::Result<()> {
    let mut head = Vec::new();
    loop {
        // As many requests as the client likes, one after the other.
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            let part = connection.receive_pooled().await?;
            if part.is_empty() || head.len() + part.len() > HEAD_BYTES_MAX {
                return Ok(());
            }
            head.extend_from_slice(&part);
        }
        let end = head.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0) + 4;
        let request: Vec<u8> = head.drain(..end).collect();
        answer(&connection, &root, &request).await?;
    }
}

async fn answer(connection: &Connection, root: &Directory, request: &[u8]) -> inflight::Result<()> {
    let line = String::from_utf8_lossy(request.split(|byte| *byte == b'\r').next().unwrap_or(b""));
    let mut words = line.split(' ');
    let (Some("GET"), Some(path)) = (words.next(), words.next()) else {
        return head(connection, "405 Method Not Allowed", 0).await;
    };
    // `beneath` refuses `..`, absolute paths and symbolic links: the kernel does it, not we.
    let path = Path::new(path.trim_start_matches('/'));
    let Ok(file) = root.open(path, OpenOptions::reading().beneath()).await else {
        return head(connection, "404 Not Found", 0).await;
    };
    let metadata = file.metadata().await?;
    if metadata.kind != FileKind::File {
        return head(connection, "404 Not Found", 0).await;
    }
    head(connection, "200 OK", metadata.size).await?;
    connection.send_file(&file, 0, metadata.size).await?;
    Ok(())
}

async fn head(connection: &Connection, status: &str, length: u64) -> inflight::Result<()> {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
    let mut buffer = connection.handle().buffer(text.len()).await;
    buffer.extend_from_slice(text.as_bytes());
    connection.send_full(buffer).await?;
    Ok(())
}

fn main() -> inflight::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".into());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".into());
    let address: SocketAddr = address.parse().expect("an address such as 127.0.0.1:8000");
    let engine = Engine::new()?;
    engine.block_on(async {
        let root = engine.open_directory(&directory).await?;
        let listener = engine.listen(address).await?;
        println!("serving {directory} on http://{}", listener.address().await?);
        loop {
            let (connection, peer) = listener.accept().await?;
            let root = root.clone();
            let serve = async move {
                if let Err(error) = serve(connection, root).await {
                    eprintln!("{peer}: {error}");
                }
            };
            engine.spawn(serve).detach();
        }
    })
}
