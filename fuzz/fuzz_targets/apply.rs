//! No patch makes apply panic, touch anything but its target, or leave a part of one behind.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use inflight::{DriverChoice, Engine};
use inflight_patch::{ApplyOptions, Job, Side, apply, verify};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/inflight-patch/tests/support/program.rs"]
mod program;

/// Made once: an engine, a job on it, and a place with an old tree.
struct Ground {
    engine: Engine,
    job: Job,
    place: tempfile::TempDir,
}

static GROUND: LazyLock<Ground> = LazyLock::new(|| {
    let builder = Engine::builder().driver(DriverChoice::Threads).workers(1).threads_max(2);
    let engine = builder.memory_bytes_max(256 << 20).build().expect("an engine");
    let job = Job::new(engine.handle(), 1).expect("a job");
    let place = tempfile::tempdir().expect("a temporary directory");
    let old = place.path().join("ground/old");
    std::fs::create_dir_all(old.join("directory")).expect("made");
    for (name, length) in [("a", 3000), ("directory/b", 10), ("empty", 0)] {
        let bytes: Vec<u8> = (0..length).map(|i: u32| (i * 7 >> 3) as u8).collect();
        std::fs::write(old.join(name), bytes).expect("written");
    }
    let functions: Vec<u32> = (0..40).map(|number: u32| number.wrapping_mul(0x9e37_79b1)).collect();
    std::fs::write(old.join("program"), program::program(&functions)).expect("written");
    std::fs::write(old.join("windows"), program::windows_program(&functions)).expect("written");
    std::fs::write(old.join("arm"), program::arm_program(&functions)).expect("written");
    std::fs::write(old.join("mac"), program::mac_program(&functions)).expect("written");
    std::os::unix::fs::symlink("a", old.join("link")).expect("made");
    Ground { engine, job, place }
});

/// Everything below a directory, with sizes.
fn listing(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let metadata = entry.path().symlink_metadata().expect("it is there");
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
            found.push((entry.path(), if metadata.is_dir() { 0 } else { metadata.len() }));
        }
    }
    found.sort();
    found
}

fuzz_target!(|input: &[u8]| {
    let ground = &*GROUND;
    let inside = ground.place.path().join("ground");
    let (patch, new) = (ground.place.path().join("patch"), inside.join("new"));
    // A tree of some TB that a few bytes ask for is legal, and of no use here.
    let patch_bytes = inflight_fuzz::implode(input);
    let sizes = inflight_patch::format::testing::raw_blocks(&patch_bytes);
    if sizes.is_ok_and(|(_, new_bytes, _)| new_bytes > 8 << 20) {
        return;
    }
    std::fs::write(&patch, patch_bytes).expect("written");
    let before = listing(&inside);
    let old = inside.join("old");
    let applied = ground.engine.block_on(async {
        apply(&ground.job, &patch, &old, &new, ApplyOptions { sync: false }).await
    });
    match applied {
        Ok(_) => {
            let verified = ground.engine.block_on(verify(&ground.job, &patch, &new, Side::New));
            let report = verified.expect("what was applied can be verified");
            // A file system may clamp times that it cannot hold; nothing else may differ.
            let clamped = |what: &str| what == "its modification time differs";
            let wrong: Vec<_> =
                report.differences.iter().filter(|found| !clamped(&found.what)).collect();
            assert!(wrong.is_empty(), "{wrong:?}");
            if new.symlink_metadata().expect("it was built").is_dir() {
                let _ =
                    std::process::Command::new("chmod").arg("-R").arg("u+rwx").arg(&new).status();
                std::fs::remove_dir_all(&new).expect("removed");
            } else {
                std::fs::remove_file(&new).expect("removed");
            }
            assert_eq!(listing(&inside), before, "only the target was touched");
        }
        Err(_) => assert_eq!(listing(&inside), before, "nothing was left behind"),
    }
});
