//! What every driver must do with sockets, timers and posted completions.

mod support;

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use inflight::{
    Address, Buffer, BufferList, Connection, DriverChoice, Engine, Listener, NewFile, OpenOptions,
    Shutdown, SimulatedDisk, SocketOption,
};
use support::{all_engines, bytes, content, engines, on_each_driver, on_each_machine};

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

async fn pair(engine: &Engine) -> (Connection, Connection) {
    let listener = engine.listen(anywhere()).await.expect("listens");
    let address = listener.address().await.expect("has one");
    let client = engine.connect(address).await.expect("connects");
    let (server, peer) = listener.accept().await.expect("accepts");
    assert_eq!(peer, client.address().await.expect("has one"));
    (client, server)
}

/// Everything until the other end is shut down.
async fn receive_all(connection: &Connection, engine: &Engine) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), engine.buffer(1 << 16).await);
    loop {
        buffer.clear();
        buffer = connection.receive(buffer, 1 << 16).await.expect("received");
        if buffer.is_empty() {
            return all;
        }
        all.extend_from_slice(&buffer);
    }
}

/// Polls once, with a waker that does nothing.
fn poll_once<F: Future>(future: Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn bytes_go_both_ways() {
    on_each_machine(|engine, _| {
        engine.block_on(async {
            let (client, server) = pair(engine).await;
            client.set_option(SocketOption::NoDelay(true)).await.expect("set");
            let (_, sent) = client.send(bytes(engine, b"__ping"), 2, 4).await.expect("sent");
            assert_eq!(sent, 4);
            let received = server.receive(bytes(engine, b"got "), 100).await.expect("received");
            assert_eq!(&*received, b"got ping");
            server.send_full(bytes(engine, b"pong")).await.expect("sent");
            server.shut_down(Shutdown::Send).await.expect("shut down");
            assert_eq!(receive_all(&client, engine).await, b"pong");
            let peer = client.peer_address().await.expect("has one");
            assert_eq!(peer, server.address().await.expect("has one"));
            client.close().await.expect("closed");
            let end = server.receive(engine.buffer(10).await, 10).await.expect("received");
            assert!(end.is_empty());
        });
    });
}

#[test]
fn more_than_a_socket_takes_is_sent_in_parts() {
    on_each_machine(|engine, directory| {
        engine.block_on(async {
            let (client, server) = pair(engine).await;
            let all = content(5 << 20);
            let (sender, buffer) = (client.clone(), bytes(engine, &all));
            let sending = engine.spawn(async move {
                sender.send_full(buffer).await.expect("sent");
                sender.shut_down(Shutdown::Send).await.expect("shut down");
            });
            assert_eq!(receive_all(&server, engine).await, all);
            sending.await;

            let root = engine.open_directory(directory).await.expect("there");
            let file = NewFile::new("file".as_ref(), 0o600, 0, all.len()).expect("a name");
            root.write_files(vec![file], bytes(engine, &all)).await.expect("written");
            let file = root.open("file", OpenOptions::reading()).await.expect("there");
            let sender = server.clone();
            let sending = engine.spawn(async move {
                let sent = sender.send_file(&file, 1000, 1 << 40).await.expect("sent");
                sender.shut_down(Shutdown::Send).await.expect("shut down");
                sent
            });
            assert_eq!(receive_all(&client, engine).await, all[1000..]);
            assert_eq!(sending.await, (5 << 20) - 1000);
        });
    });
}

#[test]
fn nothing_is_copied_where_that_is_asked_for() {
    on_each_machine(|engine, directory| {
        engine.block_on(async {
            let unix = Address::from(&*directory.join("socket"));
            for address in [Address::from(anywhere()), unix] {
                let listener = engine.listen(address).await.expect("listens");
                let address = listener.address().await.expect("has one");
                let client = engine.connect(address).await.expect("connects");
                let (server, _) = listener.accept().await.expect("accepts");
                let all = content(100_000);
                let mut buffer = bytes(engine, &all);
                let receiving = engine.spawn({
                    let (server, pool) = (server.clone(), engine.handle().clone());
                    async move {
                        let mut all = Vec::new();
                        while all.len() < 100_000 {
                            let buffer = pool.buffer(1 << 16).await;
                            let buffer = server.receive(buffer, 1 << 16).await.expect("received");
                            all.extend_from_slice(&buffer);
                        }
                        all
                    }
                });
                let mut done = 0;
                while done < all.len() {
                    let (back, sent) = client
                        .send_zero_copy(buffer, done, all.len() - done)
                        .await
                        .expect("sent, also where the socket cannot do without a copy");
                    (buffer, done) = (back, done + sent);
                }
                assert_eq!(receiving.await, all);
            }
            // A Unix socket takes a copy.
            let fallbacks = engine.metrics().fallbacks;
            assert_eq!(fallbacks > 0, engine.driver() == DriverChoice::Uring, "{fallbacks}");
        });
    });
}

#[test]
fn vectors_are_sent_and_received() {
    on_each_machine(|engine, _| {
        engine.block_on(async {
            let (client, server) = pair(engine).await;
            let all = content(9000);
            let mut list = BufferList::new();
            list.push(bytes(engine, &all[..5000]));
            list.push(bytes(engine, &all[5000..]));
            let (_, sent) = client.send_vectored(list).await.expect("sent");
            assert_eq!(sent, 9000);
            let (mut received, mut list) = (Vec::new(), BufferList::new());
            list.push(engine.buffer(4096).await);
            list.push(engine.buffer(4096).await);
            while received.len() < 9000 {
                list.buffers_mut().iter_mut().for_each(Buffer::clear);
                let (back, bytes) = server.receive_vectored(list).await.expect("received");
                let before = received.len();
                back.buffers().iter().for_each(|buffer| received.extend_from_slice(buffer));
                assert_eq!(received.len() - before, bytes);
                list = back;
            }
            assert_eq!(received, all);
        });
    });
}

#[test]
fn unix_sockets_have_paths() {
    on_each_machine(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("socket");
            let listener = engine.listen(&*path).await.expect("listens");
            assert_eq!(listener.address().await.expect("has one"), Address::from(&*path));
            let client = engine.connect(&*path).await.expect("connects");
            let (server, peer) = listener.accept().await.expect("accepts");
            assert_eq!(peer, Address::Unnamed);
            client.send_full(bytes(engine, b"hello")).await.expect("sent");
            let received = server.receive_pooled().await.expect("received");
            assert_eq!(&*received, b"hello");
            let error = engine.listen(&*path).await.expect_err("in use");
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.to_string().contains("socket"), "{error}");
        });
    });
}

#[test]
fn datagrams_tell_where_they_come_from() {
    on_each_machine(|engine, _| {
        engine.block_on(async {
            let one = engine.bind(anywhere()).await.expect("bound");
            let two = engine.bind(anywhere()).await.expect("bound");
            let to = two.address().await.expect("has one");
            let receiving = two.receive_from(engine.buffer(4096).await);
            one.send_to(bytes(engine, b"datagram"), to).await.expect("sent");
            let (received, from) = receiving.await.expect("received");
            assert_eq!(&*received, b"datagram");
            assert_eq!(from, one.address().await.expect("has one"));
        });
    });
}

#[test]
fn nobody_there_is_an_error_that_says_where() {
    on_each_machine(|engine, directory| {
        engine.block_on(async {
            let listener = engine.listen(anywhere()).await.expect("listens");
            let address = listener.address().await.expect("has one");
            drop(listener);
            // The listener is closed in the background.
            engine.nop().await.expect("nothing to fail");
            let refused = async {
                loop {
                    match engine.connect(address.clone()).await {
                        Ok(_) => continue,
                        // The listener was closed just then.
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
                        Err(error) => return error,
                    }
                }
            };
            let error = refused.await;
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(error.to_string().contains(&address.to_string()), "{error}");
            let error = engine.connect(&*directory.join("none")).await.expect_err("nothing there");
            assert_eq!(error.kind(), ErrorKind::NotFound);
        });
    });
}

#[test]
fn waiting_connections_hold_no_buffer() {
    for engine in all_engines(|builder| builder.workers(1).memory_bytes_max(4 << 20)) {
        engine.block_on(async {
            let mut servers = Vec::new();
            let mut clients = Vec::new();
            for _ in 0..400 {
                let (client, server) = pair(&engine).await;
                clients.push(client);
                servers.push(server);
            }
            let mut waiting: Vec<_> =
                servers.iter().map(|server| Box::pin(server.receive_pooled())).collect();
            waiting.iter_mut().for_each(|receive| poll_once(receive.as_mut()));
            engine.nop().await.expect("nothing to fail");
            let used = engine.pool().budget().used();
            assert!(used <= 1 << 20, "{used} bytes for 400 that wait");
            // All memory is gone: what arrives waits for some, and then comes.
            let mut hoard = Vec::new();
            while let Some(buffer) = engine.pool().try_get(1 << 16) {
                hoard.push(buffer);
            }
            for (number, client) in clients.iter().enumerate() {
                let mut buffer = hoard.pop().expect("there was some");
                buffer.clear();
                buffer.extend_from_slice(&(number as u64).to_le_bytes());
                client.send_full(buffer).await.expect("sent");
                let received = waiting.remove(0).await.expect("received");
                assert_eq!(&*received, (number as u64).to_le_bytes());
                drop(received);
                while let Some(buffer) = engine.pool().try_get(1 << 16) {
                    hoard.push(buffer);
                }
            }
        });
    }
}

#[allow(clippy::disallowed_methods, reason = "looks at the process from outside the engine")]
fn sockets_open(of: &Path) -> usize {
    // Every Unix socket of this process that has or had this path.
    let table = std::fs::read_to_string("/proc/self/net/unix").expect("Linux");
    table.lines().filter(|line| line.ends_with(&*of.to_string_lossy())).count()
}

/// Begins and drops what waits for a socket, again and again.
fn drop_what_waits(engine: &Engine, path: &Path) {
    engine.block_on(async {
        let listener = engine.listen(&*path).await.expect("listens");
        for round in 0..200 {
            let mut accept = Box::pin(listener.accept());
            let _ = accept.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let mut connect = Box::pin(engine.connect(&*path));
            let _ = connect.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if round % 3 == 0 {
                engine.nop().await.expect("nothing to fail");
            }
            drop(accept);
            drop(connect);
        }
        // Whatever connected meanwhile waits in the backlog: take it all.
        let drain = async {
            while engine.timeout(Duration::from_millis(50), listener.accept()).await.is_ok() {}
        };
        drain.await;
        let client = engine.connect(&*path).await.expect("connects");
        let (server, _) = listener.accept().await.expect("accepts");
        for _ in 0..50 {
            let receive = server.receive(engine.buffer(4096).await, 4096);
            drop(receive);
            poll_once(pin!(server.receive_pooled()));
        }
        client.send_full(bytes(engine, b"x")).await.expect("sent");
        let received = server.receive(engine.buffer(16).await, 16).await.expect("received");
        assert_eq!(&*received, b"x", "no receive that was dropped took it");
    });
}

#[test]
fn what_is_dropped_while_it_waits_leaks_nothing() {
    for engine in engines(|builder| builder.workers(1)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("socket");
        drop_what_waits(&engine, &path);
        let pool = engine.pool().clone();
        drop(engine);
        assert_eq!(pool.budget().used(), 0, "every buffer came home");
        assert_eq!(sockets_open(&path), 0, "every socket was closed");
    }
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let engine = Engine::builder().simulated(&disk);
        let pool = engine.pool().clone();
        drop_what_waits(&engine, Path::new("/socket"));
        drop(engine);
        assert_eq!(pool.budget().used(), 0, "every buffer came home, seed {seed}");
        assert_eq!(disk.opened(), 0, "every socket was closed, seed {seed}");
    }
}

#[test]
fn giving_up_an_accept_loses_no_connection() {
    on_each_machine(|engine, _| {
        engine.block_on(async {
            let listener = engine.listen(anywhere()).await.expect("listens");
            let address = listener.address().await.expect("has one");
            for round in 0..300 {
                // Some give up before anything arrives, some when it just may.
                let mut accept = Box::pin(listener.accept());
                poll_once(accept.as_mut());
                let connecting = engine.connect(address.clone());
                let client = match round % 2 {
                    0 => {
                        drop(accept);
                        connecting.await.expect("connects")
                    }
                    _ => {
                        let client = connecting.await.expect("connects");
                        drop(accept);
                        client
                    }
                };
                let (server, peer) = listener.accept().await.expect("accepts");
                assert_eq!(peer, client.address().await.expect("has one"));
                client.send_full(bytes(engine, b"here")).await.expect("sent");
                assert_eq!(&*server.receive_pooled().await.expect("received"), b"here");
            }
        });
    });
}

#[test]
fn more_connections_than_anybody_takes_wait_in_line() {
    on_each_machine(|engine, _| {
        engine.block_on(async {
            let listener = engine.listen(anywhere()).await.expect("listens");
            let address = listener.address().await.expect("has one");
            poll_once(pin!(listener.accept()));
            let mut clients = Vec::new();
            for number in 0..700u32 {
                let client = engine.connect(address.clone()).await.expect("connects");
                client.send_full(bytes(engine, &number.to_le_bytes())).await.expect("sent");
                clients.push(client);
            }
            let mut servers = Vec::new();
            for number in 0..700u32 {
                let (server, _) = listener.accept().await.expect("accepts");
                let received = server.receive_pooled().await.expect("received");
                assert_eq!(&*received, number.to_le_bytes(), "in the order in which they came");
                servers.push(server);
            }
            // Several wait at once, and each gets one.
            let waiting: Vec<_> = (0..5)
                .map(|_| {
                    let listener = listener.clone();
                    engine.spawn(async move { listener.accept().await.map(|_| ()) })
                })
                .collect();
            for _ in 0..5 {
                clients.push(engine.connect(address.clone()).await.expect("connects"));
            }
            for accepted in waiting {
                accepted.await.expect("accepts");
            }
        });
    });
}

#[test]
fn a_wait_can_be_cancelled() {
    on_each_machine(|engine, _| {
        engine.block_on(async {
            let (client, server) = pair(engine).await;
            let receive = server.receive(engine.buffer(16).await, 16);
            receive.cancel();
            let error = receive.await.expect_err("cancelled");
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED), "{error}");
            let sleep = engine.sleep(Duration::from_secs(3600));
            sleep.cancel();
            sleep.await.expect_err("cancelled");
            client.send_full(bytes(engine, b"x")).await.expect("sent");
            let received = server.receive(engine.buffer(16).await, 16).await.expect("received");
            assert_eq!(&*received, b"x");
        });
    });
}

#[test]
fn time_passes() {
    on_each_machine(|engine, _| {
        engine.block_on(async {
            let begin = Instant::now();
            let (short, long) = (Duration::from_millis(20), Duration::from_millis(60));
            let late = engine.sleep(long);
            engine.sleep(short).await.expect("slept");
            // A simulated clock is not that of the wall.
            let wall = engine.driver() != DriverChoice::Simulated;
            assert!(!wall || begin.elapsed() >= short);
            late.await.expect("slept");
            assert!(!wall || begin.elapsed() >= long);
            engine.sleep(Duration::ZERO).await.expect("slept");

            let never = std::future::pending::<()>();
            engine.timeout(short, never).await.expect_err("never ends");
            assert_eq!(engine.timeout(long, async { 7 }).await, Ok(7));
            for _ in 0..500 {
                // Cancelled timers go away.
                drop(engine.sleep(Duration::from_secs(3600)));
            }
            engine.sleep(short).await.expect("slept");
        });
    });
}

#[test]
fn completions_are_posted_from_any_thread() {
    on_each_machine(|engine, _| {
        engine.block_on(async {
            let (completer, posted) = engine.completion().expect("a slot is free");
            let buffer = bytes(engine, b"payload");
            let poster = std::thread::spawn(move || completer.complete(7, buffer));
            let (value, buffer) = posted.await.expect("posted");
            assert_eq!((value, &*buffer), (7, &b"payload"[..]));
            poster.join().expect("it posted");

            let (completer, posted) = engine.completion().expect("a slot is free");
            drop(completer);
            let error = posted.await.expect_err("nobody posted");
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));

            let (completer, posted) = engine.completion().expect("a slot is free");
            drop(posted);
            completer.complete(1, bytes(engine, b"nobody waits"));
        });
    });
}

#[test]
fn a_completion_outlives_its_engine() {
    for engine in all_engines(|builder| builder.workers(1)) {
        let (completer, posted) = engine.completion().expect("a slot is free");
        drop(engine);
        completer.complete(3, Buffer::default());
        assert_eq!(inflight::block_on(posted).expect("posted").0, 3);
    }
}

#[test]
fn the_end_of_the_engine_ends_what_waits() {
    for engine in all_engines(|builder| builder.workers(2)) {
        let (client, receive, accept, sleep) = engine.block_on(async {
            let listener: Listener = engine.listen(anywhere()).await.expect("listens");
            let (client, server) = pair(&engine).await;
            let receive = server.receive(engine.buffer(16).await, 16);
            let accept = engine.spawn(async move { listener.accept().await.map(|_| ()) });
            let sleep = engine.sleep(Duration::from_secs(3600));
            engine.nop().await.expect("nothing to fail");
            (client, receive, accept, sleep)
        });
        accept.detach();
        drop(engine);
        for error in [
            inflight::block_on(receive).map(|_| ()).expect_err("cut short"),
            inflight::block_on(sleep).expect_err("cut short"),
            inflight::block_on(client.shut_down(Shutdown::Both)).expect_err("too late"),
        ] {
            let code = error.raw_os_error();
            assert!(matches!(code, Some(libc::ECANCELED | libc::ESHUTDOWN)), "{error}");
        }
    }
}

#[test]
fn a_deadline_is_given_and_what_missed_it_is_told() {
    for engine in all_engines(|builder| builder.workers(1)) {
        let (client, server, receive, sleep) = engine.block_on(async {
            let (client, server) = pair(&engine).await;
            let receive = server.receive(engine.buffer(16).await, 16);
            let sleep = engine.sleep(Duration::from_millis(30));
            // The listener is gone by then.
            engine.sleep(Duration::from_millis(5)).await.expect("slept");
            (client, server, receive, sleep)
        });
        let cut_short = engine.shut_down(Duration::from_millis(300));
        inflight::block_on(sleep).expect("it had the time");
        inflight::block_on(receive).map(|_| ()).expect_err("cut short");
        assert_eq!(cut_short.len(), 1, "{cut_short:?}");
        assert_eq!(cut_short[0].operation, "receive from");
        drop((client, server));
    }
}

#[test]
fn sockets_made_elsewhere_are_taken_over() {
    on_each_driver(|engine, _| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("has one");
        let theirs = std::net::TcpStream::connect(address).expect("connected");
        engine.block_on(async {
            let listener = engine.adopt_listener(listener).expect("a socket");
            let (server, _) = listener.accept().await.expect("accepts");
            let client = engine.adopt_connection(theirs).expect("a socket");
            let receiving = client.receive(engine.buffer(16).await, 16);
            server.send_full(bytes(engine, b"moved")).await.expect("sent");
            assert_eq!(&*receiving.await.expect("received"), b"moved");
        });
    });
}
