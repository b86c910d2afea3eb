//! Patches of executables, from outside: the same bytes whatever the machine, and none of them may
//! be damaged.
#![allow(clippy::disallowed_methods, reason = "looks at trees from outside the engine")]

#[path = "../../inflight-patch/tests/support/program.rs"]
mod program;
mod support;

use std::fs;

use program::{Function, program};
use support::{Place, file, finish, inflight, noise};

/// Trees with a program, some text, and so many MiB of data that moved.
fn place(data_mib: usize) -> Place {
    let place = Place::with_trees();
    let old: Vec<Function> = (0..4_000u32).map(|n| n.wrapping_mul(0x9e37_79b1)).collect();
    let new = [&old[..700], &[7, 8, 9], &old[700..3_000], &old[3_001..]].concat();
    // What follows a program makes it long: it has units of its own.
    let tail = noise(3 << 20, 5);
    file(&place.old, "bin", [program(&old), tail.clone()].concat());
    file(&place.new, "bin", [program(&new), tail].concat());
    let data = noise(data_mib << 20, 6);
    file(&place.old, "data", &data);
    file(&place.new, "data", [&data[1 << 20..], b"fresh", &data[..3 << 20]].concat());
    for number in 0..200u32 {
        let text = |word: &str| format!("{number} {word} {}", number * number).repeat(20);
        file(&place.old, format!("text/{number}"), text("old"));
        file(
            &place.new,
            format!("text/{number}"),
            text(if number % 3 == 0 { "new" } else { "old" }),
        );
    }
    place
}

#[test]
fn the_same_patch_on_every_machine() {
    let place = place(60);
    // Both trees are held in memory, and then they do not fit: 120 MiB are more than is left of 140.
    for memory in ["2GiB", "140MiB"] {
        let mut expected: Option<Vec<u8>> = None;
        for instructions in ["portable", "avx2", "avx512"] {
            for (driver, threads, request) in
                [("uring", "1", "64KiB"), ("threads", "2", "16MiB"), ("uring", "8", "1MiB")]
            {
                let _ = fs::remove_file(&place.patch);
                let mut command = inflight();
                command.env("INFLIGHT_INSTRUCTIONS", instructions);
                match driver {
                    // The best that there is: not every machine has io_uring.
                    "uring" => command.env_remove("INFLIGHT_DRIVER"),
                    driver => command.env("INFLIGHT_DRIVER", driver),
                };
                command.arg("diff").args([&place.old, &place.new]).arg("-o").arg(&place.patch);
                command.args(["--memory", memory, "--threads", threads, "--request", request]);
                finish(&mut command).succeeded();
                let patch = fs::read(&place.patch).expect("there is a patch");
                let same = expected.as_ref().is_none_or(|expected| *expected == patch);
                let case = format!("{memory}, {instructions}, {driver}, {threads} threads");
                assert!(same, "{case}, requests of {request}");
                expected = Some(patch);
            }
        }
        assert!(expected.is_some_and(|patch| patch.len() < 200_000), "it was predicted");
    }
}

#[test]
fn a_patch_with_any_block_damaged_is_refused_by_its_checksum() {
    let place = place(9);
    place.diff(&[]).succeeded();
    let patch = fs::read(&place.patch).expect("there is a patch");
    let trailer = patch.len() - 40;
    let index_at: [u8; 8] = patch[trailer..trailer + 8].try_into().expect("8 bytes");
    let (mut start, mut kinds) = (40, Vec::new());
    while start < u64::from_le_bytes(index_at) as usize {
        let stored: [u8; 4] = patch[start + 8..start + 12].try_into().expect("4 bytes");
        let stored = u32::from_le_bytes(stored) as usize;
        kinds.push(patch[start]);
        for inside in [0, stored / 2, stored - 1] {
            let mut damaged = patch.clone();
            damaged[start + 24 + inside] ^= 0x10;
            fs::write(&place.patch, &damaged).expect("there is room");
            place.unchanged_by(|| place.apply(&[]).refused("checksum does not match"));
        }
        start += 24 + stored;
    }
    for kind in [10, 5, 6, 11, 12, 13, 14] {
        assert!(kinds.contains(&kind), "a block of kind {kind} among {kinds:?}");
    }
}
