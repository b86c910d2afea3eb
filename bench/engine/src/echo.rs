//! TCP echo: one thread that serves, on each engine, and a load that none of them has a part in.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use inflight::Engine;

use crate::stop_after;

const MESSAGE: usize = 64;
const ROOM: usize = 4096;

pub fn serve(engine: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    // The library's own backlog is 128: ten thousand connections come at once.
    // SAFETY: a system call on an open descriptor.
    unsafe { libc::listen(listener.as_raw_fd(), 16_384) };
    println!("{}", listener.local_addr().expect("an address").port());
    match engine {
        "inflight" => inflight(listener),
        "compio" => compio(listener),
        "monoio" => monoio(listener),
        "glommio" => glommio(listener),
        "tokio" => tokio(listener),
        "threads" => threads(listener),
        other => panic!("no engine {other:?} for this"),
    }
}

fn inflight(listener: TcpListener) {
    let builder = Engine::builder().workers(1).queue_depth(32_768);
    let engine = builder.build().expect("an engine");
    let server = engine.spawn({
        let handle = engine.handle().clone();
        async move {
            let listener = handle.adopt_listener(listener).expect("a socket");
            loop {
                let (connection, _) = listener.accept().await.expect("accepted");
                let serve = async move {
                    while let Ok(buffer) = connection.receive_pooled().await {
                        if buffer.is_empty() || connection.send_full(buffer).await.is_err() {
                            return;
                        }
                    }
                };
                handle.spawn(serve).detach();
            }
        }
    });
    engine.block_on(server)
}

fn compio(listener: TcpListener) {
    use compio::io::{AsyncRead, AsyncWriteExt};
    compio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let listener = compio::net::TcpListener::from_std(listener).expect("a socket");
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            compio::runtime::spawn(async move {
                let mut buffer = Vec::with_capacity(ROOM);
                loop {
                    buffer.clear();
                    let result = stream.read(buffer).await;
                    match result.0 {
                        Ok(bytes) if bytes > 0 => {}
                        _ => return,
                    }
                    let result = stream.write_all(result.1).await;
                    if result.0.is_err() {
                        return;
                    }
                    buffer = result.1;
                }
            })
            .detach();
        }
    })
}

fn monoio(listener: TcpListener) {
    use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(32_768);
    builder.build().expect("a runtime").block_on(async {
        let listener = monoio::net::TcpListener::from_std(listener).expect("a socket");
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            monoio::spawn(async move {
                let mut buffer = Vec::with_capacity(ROOM);
                loop {
                    buffer.clear();
                    let result = stream.read(buffer).await;
                    match result.0 {
                        Ok(bytes) if bytes > 0 => {}
                        _ => return,
                    }
                    let result = stream.write_all(result.1).await;
                    if result.0.is_err() {
                        return;
                    }
                    buffer = result.1;
                }
            });
        }
    })
}

fn glommio(listener: TcpListener) {
    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    use std::os::fd::{FromRawFd, IntoRawFd};
    let executor = glommio::LocalExecutorBuilder::default().spawn(|| async move {
        // SAFETY: the listener gives its descriptor up.
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            let mut stream = listener.accept().await.expect("accepted");
            glommio::spawn_local(async move {
                let mut buffer = vec![0; ROOM];
                while let Ok(bytes) = stream.read(&mut buffer).await {
                    if bytes == 0 || stream.write_all(&buffer[..bytes]).await.is_err() {
                        return;
                    }
                }
            })
            .detach();
        }
    });
    executor.expect("an executor").join().expect("it ended")
}

fn tokio(listener: TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
    builder.expect("a runtime").block_on(async {
        listener.set_nonblocking(true).expect("set");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            tokio::spawn(async move {
                let mut buffer = vec![0; ROOM];
                while let Ok(bytes) = stream.read(&mut buffer).await {
                    if bytes == 0 || stream.write_all(&buffer[..bytes]).await.is_err() {
                        return;
                    }
                }
            });
        }
    })
}

fn threads(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.expect("accepted");
        let serve = move || {
            let mut buffer = [0; ROOM];
            while let Ok(bytes) = stream.read(&mut buffer) {
                if bytes == 0 || stream.write_all(&buffer[..bytes]).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().stack_size(64 << 10).spawn(serve).expect("a thread");
    }
}

/// Sends a message on each connection and again whenever it came back; gives how often it did.
pub fn load(port: u16, connections: usize, seconds: f64) -> u64 {
    // SAFETY: plain system calls on descriptors that are open.
    let queue = unsafe { libc::epoll_create1(0) };
    let mut streams = HashMap::new();
    for number in 0..connections {
        // Loopback addresses of their own give room for more than one port range.
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.set_nodelay(true).expect("set");
        stream.set_nonblocking(true).expect("set");
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number as u64 };
        // SAFETY: as above.
        let added =
            unsafe { libc::epoll_ctl(queue, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &mut event) };
        assert_eq!(added, 0);
        streams.insert(number as u64, (stream, 0));
    }
    let stop = stop_after(seconds);
    for (stream, _) in streams.values_mut() {
        stream.write_all(&[7; MESSAGE]).expect("sent");
    }
    let (mut echoed, mut buffer) = (0, [0; MESSAGE]);
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
    while !stop.load(Relaxed) {
        // SAFETY: as above; the array has room for as many events.
        let ready = unsafe { libc::epoll_wait(queue, events.as_mut_ptr(), 1024, 100) };
        for event in &events[..ready.max(0) as usize] {
            let (stream, got) = streams.get_mut(&{ event.u64 }).expect("one of them");
            match stream.read(&mut buffer[*got..]) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(bytes) => *got += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            }
            if *got == MESSAGE {
                *got = 0;
                echoed += 1;
                stream.write_all(&[7; MESSAGE]).expect("sent");
            }
        }
    }
    echoed
}
