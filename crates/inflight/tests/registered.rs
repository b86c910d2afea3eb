//! Buffers that the kernel knows in advance, and what becomes of them where it does not want to.
//!
//! A test binary of its own: the filters stay on their threads.

mod support;

use std::collections::BTreeMap;

use inflight::{
    AlignedBuffer, AlignedOffset, DriverChoice, Engine, OpenOptions, RemoveKind, SyncScope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use support::{content, engines};

/// `io_uring_register`, the same number on every architecture, and two of what it is asked for.
const IO_URING_REGISTER: i64 = 427;
const REGISTER_BUFFERS: u64 = 0;
const REGISTER_BUFFER_RING: u64 = 22;

/// Writes and reads with buffers of all sizes, in all ways.
fn use_buffers(engine: &Engine) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    engine.block_on(async {
        for bytes in [1, 4096, 5000, 64 << 10, 1 << 20, 2 << 20, 3 << 20] {
            let whole = content(bytes);
            let file = engine.open(&path, OpenOptions::creating(0o600).read_write()).await;
            let file = file.expect("made");
            // More of them than fit into what is set aside.
            let mut all = Vec::new();
            for _ in 0..6 {
                let mut buffer = engine.buffer(bytes).await;
                buffer.extend_from_slice(&whole);
                all.push(buffer);
            }
            for mut buffer in all {
                buffer = file.write_all(buffer, 0).await.expect("written");
                let (length, capacity) = (buffer.len(), buffer.capacity());
                let (back, _) = file.write(buffer, length, 0, 7).await.expect("nothing to write");
                buffer = back;
                buffer.clear();
                buffer = file.read(buffer, 0, 0).await.expect("nothing to read");
                assert!(buffer.is_empty());
                buffer = file.read_full(buffer, bytes, 0).await.expect("read");
                assert!(*buffer == whole, "{bytes}");
                buffer.extend_zeros(capacity - bytes);
            }
            file.sync(SyncScope::Data).await.expect("synced");
            if let Ok(file) = engine.open_direct(&path, OpenOptions::reading().read_write()).await {
                let buffer = engine.buffer(bytes).await;
                let mut buffer = file.read(buffer, AlignedOffset::ZERO).await.expect("read");
                assert!(*buffer == whole, "{bytes}");
                buffer.as_mut_slice().reverse();
                let buffer = AlignedBuffer::padded(buffer);
                file.write(buffer, AlignedOffset::ZERO).await.expect("written");
                let read = file.read(engine.buffer(bytes).await, AlignedOffset::ZERO).await;
                assert!(read.expect("read")[..bytes].iter().eq(whole.iter().rev()), "{bytes}");
            }
            engine.remove(&path, RemoveKind::File).await.expect("removed");
        }
    });
    assert_eq!(engine.pool().budget().used(), 0);
}

#[test]
fn registered_buffers_are_like_any_other() {
    for engine in engines(|builder| builder.workers(2).registered_bytes(5 << 20)) {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        let allowed = rustix::process::getuid().is_root() || limit.is_none_or(|l| l >= 16 << 20);
        let registered = engine.registered_bytes();
        match engine.driver() {
            DriverChoice::Uring if allowed => assert_eq!(registered, 2 * (4 << 20)),
            DriverChoice::Uring => assert_eq!(registered % (4 << 20), 0),
            _ => assert_eq!(registered, 0),
        }
        use_buffers(&engine);
    }
}

/// What runs in a thread in which the system refuses one kind of registration.
fn without(registration: u64, test: fn(&Engine)) {
    let denied = std::thread::spawn(move || {
        let asked =
            SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, registration);
        let rule = SeccompRule::new(vec![asked.expect("a valid condition")]).expect("a valid rule");
        let filter = SeccompFilter::new(
            BTreeMap::from([(IO_URING_REGISTER, vec![rule])]),
            SeccompAction::Allow,
            SeccompAction::Errno(12), // ENOMEM, as where the limit on locked memory is reached.
            TargetArch::try_from(std::env::consts::ARCH).expect("an architecture it knows"),
        )
        .expect("a valid filter");
        let program: BpfProgram = filter.try_into().expect("a valid program");
        seccompiler::apply_filter(&program).expect("allowed for oneself");
        engines(|builder| builder.workers(2).registered_bytes(4 << 20)).for_each(|e| test(&e));
    });
    denied.join().expect("the test passed");
}

#[test]
fn without_leave_to_register_nobody_notices() {
    without(REGISTER_BUFFERS, |engine| {
        assert_eq!(engine.registered_bytes(), 0);
        let refused = if engine.driver() == DriverChoice::Uring { 2 } else { 0 };
        assert_eq!(engine.metrics().fallbacks, refused, "one for each worker");
        use_buffers(engine);
    });
}

#[test]
fn without_rings_of_buffers_connections_wait_all_the_same() {
    without(REGISTER_BUFFER_RING, |engine| {
        engine.block_on(async {
            let address: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
            let listener = engine.listen(address).await.expect("listens");
            let client = engine.connect(listener.address().await.expect("has one")).await;
            let client = client.expect("connects");
            let (server, _) = listener.accept().await.expect("accepts");
            for round in 0..10 {
                let handle = engine.handle().clone();
                let waiting = engine.spawn({
                    let server = server.clone();
                    async move { server.receive_pooled().await.expect("received") }
                });
                handle.nop().await.expect("nothing to fail");
                let mut buffer = handle.buffer(4096).await;
                buffer.extend_fill(round, 100);
                client.send_full(buffer).await.expect("sent");
                assert_eq!(&*waiting.await, [round; 100]);
            }
            let fallbacks = engine.metrics().fallbacks;
            assert!(fallbacks >= 10 || engine.driver() != DriverChoice::Uring, "{fallbacks}");
        });
    });
}
