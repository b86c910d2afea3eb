//! An empty operation, through a bare ring and through the engine.

use std::sync::atomic::Ordering::Relaxed;

use inflight::stream::Ordered;
use inflight::{DriverChoice, Engine};
use io_uring::{IoUring, opcode};

use crate::stop_after;

pub fn nop(engine: &str, depth: u64, seconds: f64) -> u64 {
    match engine {
        "bare" => bare(depth, seconds),
        "inflight" => inflight(depth, seconds),
        "in order" => in_order(depth, seconds),
        other => panic!("no engine {other:?} for this"),
    }
}

/// The shortest loop there is: everything that has ended is begun again.
fn bare(depth: u64, seconds: f64) -> u64 {
    let mut ring: IoUring = IoUring::builder()
        .setup_cqsize(4096)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(256)
        .expect("a ring");
    let entry = opcode::Nop::new().build();
    let stop = stop_after(seconds);
    for _ in 0..depth {
        // SAFETY: it points to nothing.
        unsafe { ring.submission().push(&entry) }.expect("room");
    }
    let mut ended = 0;
    while !stop.load(Relaxed) {
        ring.submit_and_wait(1).expect("submitted");
        let now = ring.completion().map(|entry| std::hint::black_box(entry.user_data())).count();
        ended += now as u64;
        let mut queue = ring.submission();
        for _ in 0..now {
            // SAFETY: as above.
            unsafe { queue.push(&entry) }.expect("room");
        }
    }
    ended
}

/// One task that keeps so many in flight, and takes them in order.
fn in_order(depth: u64, seconds: f64) -> u64 {
    let engine =
        Engine::builder().driver(DriverChoice::Uring).workers(1).build().expect("an engine");
    let (handle, stop) = (engine.handle().clone(), stop_after(seconds));
    engine.block_on(engine.spawn(async move {
        let (mut operations, mut ended) = (Ordered::new(depth as usize), 0);
        while !stop.load(Relaxed) {
            while operations.has_room() {
                operations.push(handle.nop());
            }
            operations.next().await.expect("some are in flight").expect("nothing to fail");
            ended += 1;
        }
        while operations.next().await.is_some() {}
        ended
    }))
}

/// A task for each.
fn inflight(depth: u64, seconds: f64) -> u64 {
    let engine =
        Engine::builder().driver(DriverChoice::Uring).workers(1).build().expect("an engine");
    let stop = stop_after(seconds);
    engine.block_on(async {
        let tasks: Vec<_> = (0..depth)
            .map(|_| {
                let (handle, stop) = (engine.handle().clone(), stop.clone());
                engine.spawn(async move {
                    let mut ended = 0;
                    while !stop.load(Relaxed) {
                        handle.nop().await.expect("nothing to fail");
                        ended += 1;
                    }
                    ended
                })
            })
            .collect();
        let mut ended = 0;
        for task in tasks {
            ended += task.await;
        }
        ended
    })
}
