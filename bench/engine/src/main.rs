use std::time::Instant;
use inflight::{Engine, DriverChoice};

fn bare(depth: u32, total: u64) -> f64 {
    let mut ring: io_uring::IoUring = io_uring::IoUring::builder().setup_cqsize(depth.max(64)*2).setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(depth.max(8)).unwrap();
    let entry = io_uring::opcode::Nop::new().build();
    let begin = Instant::now();
    let (mut started, mut ended) = (0u64, 0u64);
    while started < depth as u64 { unsafe { ring.submission().push(&entry).unwrap() }; started += 1; }
    while ended < total {
        ring.submit_and_wait(1).unwrap();
        let mut n = 0;
        for c in ring.completion() { std::hint::black_box(c.user_data()); n += 1; }
        ended += n;
        let mut sq = ring.submission();
        for _ in 0..n { unsafe { sq.push(&entry).unwrap() }; started += 1; }
    }
    ended as f64 / begin.elapsed().as_secs_f64()
}

fn ours(depth: u64, total: u64, driver: DriverChoice) -> f64 {
    let engine = Engine::builder().driver(driver).workers(1).build().unwrap();
    let begin = Instant::now();
    let each = total / depth;
    engine.block_on(async {
        let tasks: Vec<_> = (0..depth).map(|_| { let h = engine.handle().clone(); engine.spawn(async move { for _ in 0..each { h.nop().await.unwrap(); } }) }).collect();
        for t in tasks { t.await; }
    });
    (each * depth) as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("ours") { let depth: u64 = std::env::args().nth(2).unwrap().parse().unwrap(); println!("{}", ours(depth, if depth == 1 { 6_000_000 } else { 30_000_000 }, DriverChoice::Uring)); return; }
    for depth in [1u64, 32, 128] {
        let total = 3_000_000 / if depth == 1 { 4 } else { 1 };
        for _ in 0..3 {
            let b = bare(depth as u32, total);
            let o = ours(depth, total, DriverChoice::Uring);
            println!("depth {depth}: bare {:.2} M/s, ours {:.2} M/s, {:.2}", b / 1e6, o / 1e6, o / b);
        }
    }
}
