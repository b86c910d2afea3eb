//! Any two files that look like executables make a patch that makes the new one of the old one.
#![no_main]

use std::sync::LazyLock;

use inflight::{DriverChoice, Engine};
use inflight_patch::{ApplyOptions, DiffOptions, Job, Preset, apply, diff};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/inflight-patch/tests/support/program.rs"]
mod program;

/// Made once: an engine, a job on it, a place for files, and two versions of a program.
struct Ground {
    engine: Engine,
    job: Job,
    place: tempfile::TempDir,
    /// In each container, for each machine.
    versions: [[Vec<u8>; 2]; 4],
}

static GROUND: LazyLock<Ground> = LazyLock::new(|| {
    let builder = Engine::builder().driver(DriverChoice::Threads).workers(1).threads_max(2);
    let engine = builder.memory_bytes_max(256 << 20).build().expect("an engine");
    let job = Job::new(engine.handle(), 1).expect("a job");
    let functions: Vec<u32> = (0..60).map(|number: u32| number.wrapping_mul(0x9e37_79b1)).collect();
    let versions =
        [program::program, program::windows_program, program::arm_program, program::mac_program]
            .map(|program| [program(&functions[..50]), program(&functions[7..])]);
    Ground { engine, job, place: tempfile::tempdir().expect("a temporary directory"), versions }
});

/// A version with bytes changed: each five of the input are a place, a count and what goes there.
fn changed(version: &[u8], input: &[u8]) -> Vec<u8> {
    let mut out = version.to_vec();
    for change in input.chunks_exact(5) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % out.len();
        // The last places are the section table of ELF images, and the first ones are the headers of
        // others: changed more often than by chance.
        let place = match change[2] & 3 {
            0 | 1 => place,
            2 => out.len() - 1 - place % 600,
            _ => place % 600,
        };
        for (at, byte) in out[place..].iter_mut().take(1 + usize::from(change[2] >> 5)).enumerate()
        {
            *byte = change[3 + at % 2];
        }
    }
    out
}

fuzz_target!(|input: &[u8]| {
    let ground = &*GROUND;
    let Some((container, input)) = input.split_first() else { return };
    let versions = &ground.versions[usize::from(container & 3)];
    let (first, second) = input.split_at(input.len() / 2);
    let old_bytes = changed(&versions[0], first);
    let new_bytes = changed(&versions[1], second);
    let paths = ["old", "new", "patch", "built"].map(|name| ground.place.path().join(name));
    let [old, new, patch, built] = &paths;
    std::fs::write(old, old_bytes).expect("written");
    std::fs::write(new, &new_bytes).expect("written");
    let options = DiffOptions { preset: Preset::Fast, ..DiffOptions::default() };
    ground.engine.block_on(async {
        diff(&ground.job, old, new, patch, options).await.expect("made");
        let options = ApplyOptions { sync: false };
        apply(&ground.job, patch, old, built, options).await.expect("applied");
    });
    assert!(std::fs::read(built).expect("built") == new_bytes, "the same bytes");
    std::fs::remove_file(built).expect("removed");
});
