//! Counts heap allocations: none per operation in the steady state, on either driver.
//!
//! One test in a file of its own, as the counter sees all threads of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inflight::{
    Advice, BufferList, Connection, DirectoryBatch, DriverChoice, Engine, OpenOptions, Operation,
    SetTimes, SocketOption, SyncScope,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes everything on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn anywhere() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

async fn pair(engine: &Engine) -> (Connection, Connection) {
    let listener = engine.listen(anywhere()).await.expect("listens");
    let client = engine.connect(listener.address().await.expect("has one")).await;
    (client.expect("connects"), listener.accept().await.expect("accepts").0)
}

#[test]
fn no_operation_allocates_in_the_steady_state() {
    for driver in [DriverChoice::Uring, DriverChoice::Threads] {
        let built = Engine::builder().driver(driver).workers(1).threads_max(1).build();
        let engine = match built {
            Ok(engine) => engine,
            // Where the system forbids io_uring there is only one driver to count on.
            Err(_) if driver == DriverChoice::Uring => continue,
            Err(error) => panic!("{error}"),
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        engine.block_on(async {
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.path().join("file"), options).await.expect("made");
            let mut buffer = engine.buffer(4096).await;
            buffer.extend_zeros(4096);
            let mut list = BufferList::new();
            list.push(engine.buffer(4096).await);
            list.push(engine.buffer(4096).await);
            let mut counted = 0;
            for round in 0..600u64 {
                if round == 100 {
                    // Threads, queues and wakers have been made by now.
                    counted = ALLOCATIONS.load(Relaxed);
                }
                (buffer, _) = file.write(buffer, 0, 4096, round * 64).await.expect("written");
                buffer.clear();
                buffer = file.read(buffer, 4096, round * 64).await.expect("read");
                list.buffers_mut().iter_mut().for_each(inflight::Buffer::clear);
                (list, _) = file.read_vectored(list, 0).await.expect("read");
                (list, _) = file.write_vectored(list, 0).await.expect("written");
                engine.submit(Operation::Nop).await.expect("nothing to fail");
                file.truncate(1 << 20).await.expect("truncated");
                file.metadata().await.expect("looked at");
            }
            let allocations = ALLOCATIONS.load(Relaxed) - counted;
            assert_eq!(allocations, 0, "in 500 rounds of 7 operations on {driver:?}");

            // The same for what is done to files beside reading and writing.
            let other = engine.open(directory.path().join("other"), options).await.expect("made");
            let root = engine.open_directory(directory.path()).await.expect("there");
            let mut batch = DirectoryBatch::default();
            // However many of the dropped writes below are under way at once, there are buffers for the next.
            let mut spare = Vec::new();
            for _ in 0..200 {
                spare.push(engine.buffer(4096).await);
            }
            drop(spare);
            for round in 0..600u64 {
                if round == 100 {
                    counted = ALLOCATIONS.load(Relaxed);
                }
                buffer.clear();
                buffer.extend_zeros(4096);
                let written = other.write_sync(buffer, 0, 4096, 0, SyncScope::Data);
                // To wait for the device each time would take long.
                buffer = match round % 50 {
                    0 => written.await.expect("written").0,
                    _ => {
                        drop(written);
                        engine.buffer(4096).await
                    }
                };
                file.sync_range(0, 4096, false).await.expect("begun");
                file.advise(0, 4096, Advice::Normal).await.expect("taken");
                file.allocate(0, 4096).await.expect("allocated");
                file.punch_hole(0, 4096).await.expect("a hole");
                file.find_data(0).await.expect("looked for");
                file.cached_bytes(4096).await.expect("looked for");
                file.set_mode(0o600).await.expect("set");
                file.set_times(SetTimes { accessed: None, modified: None }).await.expect("set");
                file.copy_range_to(0, &other, 0, 4096).await.expect("copied");
                batch = root.read(batch, true).await.expect("listed");
            }
            let allocations = ALLOCATIONS.load(Relaxed) - counted;
            assert_eq!(allocations, 0, "in 500 rounds of 11 operations on {driver:?}");

            // The same for sockets, timers and completions.
            let (client, server) = pair(&engine).await;
            let one = engine.bind(anywhere()).await.expect("bound");
            let to = one.address().await.expect("has one");
            for connection in [&client, &server] {
                connection.set_option(SocketOption::NoDelay(true)).await.expect("set");
            }
            let mut datagram = engine.buffer(4096).await;
            for round in 0..600u64 {
                if round == 100 {
                    counted = ALLOCATIONS.load(Relaxed);
                }
                buffer.clear();
                buffer.extend_zeros(100);
                (buffer, _) = client.send(buffer, 0, 100).await.expect("sent");
                buffer.clear();
                buffer = server.receive(buffer, 100).await.expect("received");
                // One that waits first.
                let waiting = client.receive_pooled();
                let mut waiting = std::pin::pin!(waiting);
                let noop = std::task::Waker::noop();
                let _ = waiting.as_mut().poll(&mut std::task::Context::from_waker(noop));
                // Without a copy, the buffer comes back when the other end's system says so, which
                // may take 40 ms.
                (buffer, _) = match round % 20 {
                    0 => server.send_zero_copy(buffer, 0, 100).await.expect("sent"),
                    _ => server.send(buffer, 0, 100).await.expect("sent"),
                };
                drop(waiting.await.expect("received"));
                list.buffers_mut()[0].clear();
                list.buffers_mut()[0].extend_zeros(10);
                list.buffers_mut()[1].clear();
                (list, _) = client.send_vectored(list).await.expect("sent");
                list.buffers_mut().iter_mut().for_each(inflight::Buffer::clear);
                (list, _) = server.receive_vectored(list).await.expect("received");
                datagram.clear();
                datagram.extend_zeros(10);
                datagram = one.send_to(datagram, to.clone()).await.expect("sent");
                datagram.clear();
                (datagram, _) = one.receive_from(datagram).await.expect("received");
                assert_eq!(client.send_file(&file, 0, 50).await.expect("sent"), 50);
                buffer.clear();
                buffer = server.receive(buffer, 50).await.expect("received");
                client.address().await.expect("has one");
                engine.sleep(std::time::Duration::ZERO).await.expect("slept");
                drop(engine.sleep(std::time::Duration::from_secs(3600)));
                let (completer, posted) = engine.completion().expect("a slot is free");
                completer.complete(round, inflight::Buffer::default());
                posted.await.expect("posted");
            }
            let allocations = ALLOCATIONS.load(Relaxed) - counted;
            assert_eq!(allocations, 0, "in 500 rounds of 15 operations on {driver:?}");
        });
    }
}
