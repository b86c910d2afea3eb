//! What a connection that waits costs: bytes of this process's memory for each.

use std::net::TcpStream;

use inflight::Engine;

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

/// Prints resident bytes for each of so many connections, all of which have a receive under way.
/// Both ends are in this process; the other end is a bare descriptor.
pub fn idle(connections: usize) {
    let engine = Engine::builder().workers(1).queue_depth(32_768).build().expect("an engine");
    let mut clients: Vec<TcpStream> = Vec::with_capacity(connections);
    let (before, tasks) = engine.block_on(async {
        let address: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let listener = engine.listen(address).await.expect("listens");
        let address = listener.address().await.expect("has one").ip().expect("an IP address");
        let mut tasks = Vec::with_capacity(connections);
        let mut before = 0;
        for number in 0..connections + 100 {
            if number == 100 {
                // Threads, the ring of buffers and the first pages are there by now.
                before = resident();
            }
            clients.push(TcpStream::connect(address).expect("connected"));
            let (connection, _) = listener.accept().await.expect("accepted");
            tasks.push(engine.spawn(async move { connection.receive_pooled().await.map(|_| ()) }));
        }
        engine.nop().await.expect("nothing to fail");
        (before, tasks)
    });
    let each = (resident() - before) as f64 / connections as f64;
    println!("{connections} {each:.0}");
    drop(tasks);
}
