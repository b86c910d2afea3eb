//! One workload on one engine, measured from inside: prints operations, seconds, and seconds of
//! processor time. `bench/engine.py` runs all of them in turn and compares.
//!
//! ```text
//! engine-bench nop     (bare|inflight|"in order") DEPTH SECONDS    a task for each, or one for all
//! engine-bench random  ENGINE DEPTH SECONDS FILE (direct|hot)
//! engine-bench stream  ENGINE DEPTH BYTES FILE        1 MiB and larger reads, front to back, direct
//! engine-bench (read|write) (direct|buffered) DEPTH BYTES FILE    all of a file, front to back
//! engine-bench tokio   ENGINE DEPTH SECONDS FILE      1 MiB reads submitted from a tokio program
//! engine-bench serve   ENGINE                         TCP echo; prints its port, runs until killed
//! engine-bench load    PORT CONNECTIONS SECONDS       sends 64 bytes and waits for them, on each
//! engine-bench idle    CONNECTIONS                    what a connection that waits costs
//! engine-bench costs                                  what single things cost
//! engine-bench objects (inflight|tokio|mmap) PATH     a file, or all of a directory, into memory
//! engine-bench walk    PATH [names]                   all names below, with what is known of each, or without
//! engine-bench background FILE SECONDS REQUEST        what background work costs those who wait
//! ```

mod background;
mod bare;
mod costs;
mod echo;
mod memory;
mod objects;
mod random;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Seconds of processor time that this process has used.
fn cpu_seconds() -> f64 {
    // SAFETY: the structure is plain numbers, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// A flag that is set after so many seconds.
pub fn stop_after(seconds: f64) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        flag.store(true, Relaxed);
    });
    stop
}

/// Numbers that look like chance, the same for every engine.
pub struct Places(u64);

impl Places {
    pub fn new(seed: u64) -> Places {
        Places(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self, blocks: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % blocks
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |at: usize| arguments.get(at).map_or("", String::as_str);
    let number = |at: usize| text(at).parse::<f64>().unwrap_or_else(|_| panic!("number {at}?"));
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let operations = match text(0) {
        "nop" => bare::nop(text(1), number(2) as u64, number(3)),
        "random" => random::run(text(1), number(2) as usize, number(3), text(4), text(5)),
        "stream" => stream::run(text(1), number(2) as usize, number(3) as usize, text(4)),
        "read" | "write" => {
            stream::transfer(text(0), text(1), number(2) as usize, number(3) as usize, text(4))
        }
        "tokio" => stream::from_tokio(text(1), number(2) as usize, number(3), text(4)),
        "serve" => return echo::serve(text(1)),
        "load" => echo::load(number(1) as u16, number(2) as usize, number(3)),
        "walk" => objects::walk(text(1), text(2)),
        "objects" => objects::run(text(1), text(2)),
        "costs" => return costs::print(),
        "background" => return background::print(text(1), number(2), number(3) as usize),
        "idle" => return memory::idle(number(1) as usize),
        other => panic!("no workload {other:?}: see the first lines of src/main.rs"),
    };
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!("{operations} {seconds:.6} {cpu:.6}");
}
