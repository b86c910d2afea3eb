//! Sends back whatever arrives. Connections that are silent hold no buffer.
//!
//!     cargo run -p inflight --example tcp_echo -- 127.0.0.1:7000

use std::net::SocketAddr;

use inflight::{Connection, Engine};

async fn echo(connection: Connection) -> inflight::Result<()> {
    loop {
        let buffer = connection.receive_pooled().await?;
        if buffer.is_empty() {
            return Ok(());
        }
        connection.send_full(buffer).await?;
    }
}

fn main() -> inflight::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let address: SocketAddr = address.parse().expect("an address such as 127.0.0.1:7000");
    let engine = Engine::new()?;
    engine.block_on(async {
        let listener = engine.listen(address).await?;
        println!("listening on {}", listener.address().await?);
        loop {
            let (connection, peer) = listener.accept().await?;
            let serve = async move {
                if let Err(error) = echo(connection).await {
                    eprintln!("{peer}: {error}");
                }
            };
            engine.spawn(serve).detach();
        }
    })
}
