//! Executables: what moves in them costs next to nothing, whatever they are in, and nothing that is
//! odd about one costs more than a larger patch.
#![allow(clippy::disallowed_methods, reason = "looks at trees from outside the engine")]

mod support {
    pub mod program;
    pub mod tar;
}

use std::path::Path;

use inflight::{DriverChoice, Engine};
use inflight_patch::{ApplyOptions, DiffOptions, Job, Preset, apply, diff};
use proptest::prelude::*;
use support::program::{Function, arm_program, mac_program, program, universal, windows_program};
use support::tar::tar;

/// Makes a program in a container, for a machine.
type Linker = fn(&[Function]) -> Vec<u8>;
/// All that are known.
const PROGRAMS: [Linker; 5] =
    [program, windows_program, arm_program, mac_program, universal_program];

/// One image that is as it was, and one that is not.
fn universal_program(functions: &[Function]) -> Vec<u8> {
    universal(&[&mac_program(&self::functions(50)), &mac_program(functions)])
}

/// Makes and applies a patch of two files with the threads given; gives the patch.
fn patch_with(
    old: &[u8],
    new: &[u8],
    driver: Option<DriverChoice>,
    threads: usize,
    preset: Preset,
) -> Vec<u8> {
    let place = tempfile::tempdir().expect("a temporary directory");
    let paths = ["old", "new", "patch", "built"].map(|name| place.path().join(name));
    std::fs::write(&paths[0], old).expect("written");
    std::fs::write(&paths[1], new).expect("written");
    let builder = Engine::builder().memory_bytes_max(512 << 20);
    let builder = driver.map_or(builder.clone(), |driver| builder.driver(driver));
    let engine = builder.build().expect("an engine");
    let job = Job::new(engine.handle(), threads).expect("a job");
    let options = DiffOptions { preset, ..DiffOptions::default() };
    let [old, new, patch, built] = paths.each_ref().map(|path| -> &Path { path });
    engine.block_on(async {
        diff(&job, old, new, patch, options).await.expect("made");
        apply(&job, patch, old, built, ApplyOptions { sync: false }).await.expect("applied");
    });
    assert!(std::fs::read(built).unwrap() == std::fs::read(new).unwrap(), "the same bytes");
    std::fs::read(patch).unwrap()
}

fn patch(old: &[u8], new: &[u8]) -> Vec<u8> {
    patch_with(old, new, None, 2, Preset::Default)
}

fn functions(count: u32) -> Vec<Function> {
    (0..count).map(|number| number.wrapping_mul(0x9e37_79b1)).collect()
}

/// A program, and the same with some functions more and some less.
fn versions(count: u32) -> (Vec<u8>, Vec<u8>) {
    versions_as(program, count)
}

fn versions_as(program: Linker, count: u32) -> (Vec<u8>, Vec<u8>) {
    let old = functions(count);
    let mut new = old.clone();
    for at in [3, count as usize / 3, count as usize / 2] {
        new.insert(at, 0x1234_0000 + at as u32);
    }
    new.remove(count as usize / 4);
    (program(&old), program(&new))
}

/// The same bytes, but nothing that is known as an executable.
fn disguised(image: &[u8]) -> Vec<u8> {
    [b"data", &image[4..]].concat()
}

#[test]
fn what_moves_in_an_executable_costs_next_to_nothing() {
    for program in PROGRAMS {
        let (old, new) = versions_as(program, 8_000);
        let predicted = patch(&old, &new).len();
        let not = patch(&disguised(&old), &disguised(&new)).len();
        assert!(predicted * 20 < not, "{predicted} bytes, and {not} without predictions");
        assert!(predicted < 2_500, "{predicted} bytes for three new functions");
    }
}

#[test]
fn calls_of_new_functions_say_where_they_lead() {
    // New functions, many of them calling the same few.
    let old = functions(300);
    let new: Vec<Function> = (0..6_000u32).map(|number| 0x7000_0000 + number).collect();
    let bytes = patch(&program(&old), &program(&[&old[..], &new].concat())).len();
    // As distances, which differ from call to call, they took 710,587.
    assert!(bytes < 620_000, "{bytes} bytes");
}

#[test]
fn executables_inside_a_tar_are_found() {
    for program in PROGRAMS {
        let (old, new) = versions_as(program, 5_000);
        let pack = |program: &[u8], text: &str| {
            tar(&[("readme", text.as_bytes()), ("bin/program", program), ("last", b"the end")])
        };
        let (old_tar, new_tar) =
            (pack(&old, "version one"), pack(&new, &"version two ".repeat(999)));
        let inside = patch(&old_tar, &new_tar).len();
        let alone = patch(&old, &new).len();
        assert!(inside < alone + 1000, "{inside} bytes in a tar, {alone} alone");
        assert!(inside * 50 < old_tar.len(), "{inside} bytes for {}", old_tar.len());
    }
}

#[test]
fn the_same_patch_on_both_drivers_and_any_number_of_threads() {
    let (old, new) = versions(8_000);
    let expected = patch(&old, &new);
    for (driver, threads) in [(None, 1), (Some(DriverChoice::Threads), 2), (None, 8)] {
        let other = patch_with(&old, &new, driver, threads, Preset::Default);
        assert!(other == expected, "{driver:?} with {threads} threads");
    }
}

#[test]
fn every_preset_makes_executables() {
    let (old, new) = versions(3_000);
    let sizes = [Preset::Fast, Preset::Default, Preset::Small]
        .map(|preset| patch_with(&old, &new, None, 2, preset).len());
    assert!(sizes.iter().all(|size| *size < old.len() / 50), "{sizes:?}");
}

#[test]
fn an_executable_with_more_new_bytes_than_a_block_holds_is_made_in_several_groups() {
    let (old, new) = versions(20_000);
    let mut state = 7u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let noise = noise.take(66 << 17).collect::<Vec<_>>();
    let longer = [&new[..], noise.as_flattened()].concat();
    let bytes = patch_with(&old, &longer, None, 2, Preset::Fast).len();
    assert!(bytes > 66 << 20, "noise stays as long as it is");
    let around = bytes - (66 << 20);
    assert!(around < 20_000, "{around} bytes besides: its references are predicted as ever");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_program_becomes_any_other(
        old in prop::collection::btree_set(0u32..400, 1..300),
        new in prop::collection::btree_set(0u32..400, 1..300),
        program in prop::sample::select(&PROGRAMS[..]),
    ) {
        let of = |functions: &std::collections::BTreeSet<u32>| {
            let functions: Vec<Function> =
                functions.iter().map(|number| number.wrapping_mul(0x9e37_79b1)).collect();
            program(&functions)
        };
        patch(&of(&old), &of(&new));
    }

    #[test]
    fn damaged_executables_are_patched_all_the_same(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        head in prop::collection::vec((0usize..64, any::<u8>()), 0..3),
        tables in prop::collection::vec((0usize..512, any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        program in prop::sample::select(&PROGRAMS[..]),
    ) {
        let (old, new) = versions_as(program, 300);
        let is_elf = old.starts_with(b"\x7fELF");
        let ruin = |image: &[u8]| {
            let mut image = image.to_vec();
            let length = image.len();
            damage.iter().for_each(|(at, byte)| image[at.index(length)] = *byte);
            head.iter().for_each(|(at, byte)| image[*at] = *byte);
            // The section table is at the end of ELF images, and near the start of others.
            let table = if is_elf { length - 512 } else { 0x80 };
            tables.iter().for_each(|(at, byte)| image[table + at] = *byte);
            if let Some(cut) = cut {
                image.truncate(cut.index(length));
            }
            image
        };
        patch(&ruin(&old), &new);
        patch(&old, &ruin(&new));
        patch(&ruin(&old), &ruin(&new));
    }
}
