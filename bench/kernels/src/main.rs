//! Cycles per byte of the inner loops, beside those of their peers, on one core; and of the stages
//! of a diff, each by itself.
//!
//! Usage: `kernels [FILE] [ROUNDS]`, `kernels --stages OLD NEW [ROUNDS]` or `kernels --once NAME OLD NEW`
//!
//! The first works on the first 256 MiB of FILE, or on as many random bytes; the second on two
//! versions of an executable. Rounds take turns and medians count, as the clock of a shared machine
//! drifts; a loop of known length tells how long a cycle is. The third runs one stage once, in a
//! function named `measured`, for tools that count instructions: `bench/callgrind.py`.

use std::hint::black_box;
use std::io::Read;
use std::time::Instant;

use inflight_patch::kernels::{self, Versions};

const BYTES: usize = 256 << 20;
/// Additions in the loop that measures the clock, each of which waits for the one before.
const ADDITIONS: u64 = 200_000_000;

type Run<'a> = Box<dyn Fn(&[u8]) -> u64 + 'a>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let versions = |old: &str, new: &str| {
        let versions = Versions::new(read(old), read(new));
        versions.unwrap_or_else(|| panic!("{old} and {new} are to be ELF executables for x86-64"))
    };
    match &words[..] {
        ["--stages", old, new, rest @ ..] => {
            let rounds = rest.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(7);
            let versions = versions(old, new);
            let stages = versions.stages();
            let row = |stage: &'_ kernels::Stage<'_>| (stage.name.to_owned(), stage.bytes);
            let rows: Vec<(String, u64)> = stages.iter().map(row).collect();
            let runs: Vec<&dyn Fn() -> u64> = stages.iter().map(|stage| &*stage.run as _).collect();
            print(&rows, &measure(&rows, &runs, rounds));
        }
        ["--once", name, old, new] => {
            // Everything on this thread: the others are not looked at.
            let here = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
            here.build_global().expect("the first pool");
            let versions = versions(old, new);
            let stages = versions.stages();
            let stage = stages.iter().find(|stage| stage.name == *name);
            let stage = stage.unwrap_or_else(|| panic!("there is no stage {name:?}"));
            black_box(measured(&*stage.run));
            println!("{}", stage.bytes);
        }
        ["--names", old, new] => {
            versions(old, new).stages().iter().for_each(|stage| println!("{}", stage.name));
        }
        _ => loops(&arguments),
    }
}

/// What tools that count instructions look at.
#[inline(never)]
fn measured(run: &dyn Fn() -> u64) -> u64 {
    black_box(run())
}

/// The inner loops beside their peers.
fn loops(arguments: &[String]) {
    let mut arguments = arguments.iter();
    let bytes = arguments.next().map_or_else(noise, |path| read(path));
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(7);
    let mut rows: Vec<(String, Run<'_>)> = vec![
        ("a plain read of memory".into(), Box::new(sum)),
        ("XXH3, whole buffer (xxhash-rust)".into(), Box::new(xxhash_rust::xxh3::xxh3_64)),
        ("XXH3, whole buffer (twox-hash)".into(), Box::new(twox_hash::XxHash3_64::oneshot)),
        ("BLAKE3, units of 2 MiB".into(), Box::new(blake3)),
        ("fastcdc, cut".into(), Box::new(|bytes| fastcdc(bytes, false))),
        ("fastcdc, cut and XXH3".into(), Box::new(|bytes| fastcdc(bytes, true))),
    ];
    for set in kernels::instruction_sets() {
        rows.push((format!("Inflight, cut, {set}"), Box::new(move |bytes| cut(set, bytes, false))));
    }
    for set in kernels::instruction_sets() {
        let run = move |bytes: &[u8]| cut(set, bytes, true);
        rows.push((format!("Inflight, cut and hash, {set}"), Box::new(run)));
    }
    let bytes = &bytes[..];
    let calls: Vec<Box<dyn Fn() -> u64 + '_>> = rows
        .iter()
        .map(|(_, run)| Box::new(move || run(black_box(bytes))) as Box<dyn Fn() -> u64 + '_>)
        .collect();
    let named: Vec<(String, u64)> =
        rows.iter().map(|(name, _)| (name.clone(), bytes.len() as u64)).collect();
    let runs: Vec<&dyn Fn() -> u64> = calls.iter().map(|call| &**call as _).collect();
    print(&named, &measure(&named, &runs, rounds));
}

/// Cycles a byte of each run in each round, sorted. Rounds take turns.
fn measure(rows: &[(String, u64)], runs: &[&dyn Fn() -> u64], rounds: usize) -> Vec<Vec<f64>> {
    let mut samples = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        for (((_, bytes), run), samples) in rows.iter().zip(runs).zip(&mut samples) {
            let cycle = cycle_seconds();
            let start = Instant::now();
            black_box(run());
            samples.push(start.elapsed().as_secs_f64() / cycle / *bytes as f64);
        }
    }
    samples.iter_mut().for_each(|samples| samples.sort_by(f64::total_cmp));
    samples
}

fn print(rows: &[(String, u64)], samples: &[Vec<f64>]) {
    println!("| {} rounds | bytes | cycles/byte | spread |", samples[0].len());
    println!("| --- | ---: | ---: | --- |");
    for ((name, bytes), samples) in rows.iter().zip(samples) {
        let (least, most) = (samples[0], samples[samples.len() - 1]);
        let median = samples[samples.len() / 2];
        println!("| {name} | {bytes} | {median:.3} | {least:.3} to {most:.3} |");
    }
}

fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(BYTES);
    while bytes.len() < BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

#[allow(clippy::disallowed_methods, reason = "reads its input before anything is measured")]
fn read(path: &str) -> Vec<u8> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut bytes = Vec::new();
    file.take(BYTES as u64)
        .read_to_end(&mut bytes)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    bytes
}

/// Seconds of one cycle, now.
fn cycle_seconds() -> f64 {
    let start = Instant::now();
    let mut value = 0u64;
    for number in 0..ADDITIONS {
        value = black_box_register(value.wrapping_add(number));
    }
    black_box(value);
    start.elapsed().as_secs_f64() / ADDITIONS as f64
}

/// Keeps an optimiser from knowing a value, without a way through memory.
#[inline]
fn black_box_register(mut value: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: no instruction at all, which only claims to change the value.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) value, options(nomem, nostack, pure));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        value = black_box(value);
    }
    value
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8")));
    words.fold(0, u64::wrapping_add)
}

fn blake3(bytes: &[u8]) -> u64 {
    bytes.chunks(2 << 20).map(|unit| u64::from(blake3::hash(unit).as_bytes()[0])).sum()
}

fn fastcdc(bytes: &[u8], with_hash: bool) -> u64 {
    let mut result = 0u64;
    for chunk in fastcdc::v2020::FastCDC::new(bytes, 256, 1024, 4096) {
        let chunk = &bytes[chunk.offset..chunk.offset + chunk.length];
        let hash = if with_hash { xxhash_rust::xxh3::xxh3_64(chunk) } else { chunk.len() as u64 };
        result = result.wrapping_add(hash);
    }
    result
}

fn cut(set: &str, bytes: &[u8], with_hash: bool) -> u64 {
    let mut result = 0u64;
    kernels::cut(set, bytes, |chunk| {
        let hash = if with_hash { kernels::hash(chunk) } else { chunk.len() as u64 };
        result = result.wrapping_add(hash);
    });
    result
}
