//! Large tars in trees that do not fit into memory: whether executables are in them is seen while they
//! are read.
#![allow(clippy::disallowed_methods, reason = "looks at trees from outside the engine")]

mod support {
    pub mod noise;
    pub mod program;
    pub mod tar;
}

use std::path::Path;

use inflight::{DriverChoice, Engine};
use inflight_patch::{ApplyOptions, DiffOptions, DiffReport, Job, apply, diff};
use support::noise::noise;
use support::program::{Function, program};
use support::tar::tar;

const MIB: usize = 1 << 20;

fn write(place: &Path, name: &str, bytes: &[u8]) {
    let path = place.join(name);
    std::fs::create_dir_all(path.parent().expect("inside")).expect("made");
    std::fs::write(path, bytes).expect("written");
}

/// Makes and applies a patch with so much memory, and says what came of it. It is the same for all
/// threads and drivers.
fn round_trip(place: &Path, mib: u64, file: &str) -> DiffReport {
    let mut made = Vec::new();
    for (driver, threads) in [(None, 2), (None, 1), (Some(DriverChoice::Threads), 3)] {
        let builder = Engine::builder().memory_bytes_max(mib << 20);
        let builder = driver.map_or(builder.clone(), |driver| builder.driver(driver));
        let engine = builder.build().expect("an engine");
        let job = Job::new(engine.handle(), threads).expect("a job");
        let [old, new, patch, built] =
            ["old", "new", "patch", "built"].map(|name| place.join(name));
        let report = engine.block_on(async {
            let options = DiffOptions::default();
            let report = diff(&job, &old, &new, &patch, options).await.expect("made");
            apply(&job, &patch, &old, &built, ApplyOptions { sync: false }).await.expect("applied");
            report
        });
        let [built_file, new_file] = [&built, &new].map(|tree| std::fs::read(tree.join(file)));
        assert!(built_file.expect("built") == new_file.expect("there"), "the same bytes");
        std::fs::remove_dir_all(&built).expect("removed");
        made.push((std::fs::read(&patch).expect("there"), report));
    }
    assert!(made.iter().all(|(patch, _)| *patch == made[0].0), "the same patch");
    made.swap_remove(0).1
}

fn versions() -> (Vec<u8>, Vec<u8>) {
    let functions: Vec<Function> = (0..20_000u32).map(|n| n.wrapping_mul(0x9e37_79b1)).collect();
    let new = [&functions[..1000], &[7, 8, 9], &functions[1000..]].concat();
    (program(&functions), program(&new))
}

#[test]
fn a_tar_moved_to_the_name_of_another_is_made_from_itself() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (program, _) = versions();
    let moved = tar(&[("program", &program), ("data", &noise(8 * MIB, 1))]);
    // Only the very end of the tar whose next version it seems to be tells that it holds executables.
    let other = tar(&[("data", &noise(110 * MIB, 2)), ("program", &program)]);
    write(place.path(), "old/A/x.tar", &moved);
    write(place.path(), "old/a/lib-1.tar", &other);
    write(place.path(), "new/a/lib-2.tar", &moved);
    let report = round_trip(place.path(), 150, "a/lib-2.tar");
    assert!(report.patch_bytes < 2000, "{report:?}");
}

#[test]
fn executables_in_a_large_tar_are_predicted() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (old, new) = versions();
    let data = noise(40 * MIB, 3);
    write(place.path(), "old/x.tar", &tar(&[("data", &data), ("bin/program", &old)]));
    write(place.path(), "new/x.tar", &tar(&[("data", &data), ("bin/program", &new)]));
    write(place.path(), "old/more", &noise(150 * MIB, 4));
    write(place.path(), "new/more", &noise(150 * MIB, 4));
    let report = round_trip(place.path(), 300, "x.tar");
    assert_eq!(report.better_memory_bytes, 0);
    assert!(report.patch_bytes * 50 < new.len() as u64, "{report:?}");
}

#[test]
fn a_tar_without_executables_is_no_more_than_its_bytes() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let members: Vec<Vec<u8>> = (0..40).map(|seed| noise(3 * MIB - 77, 10 + seed)).collect();
    let pack = |members: &mut dyn Iterator<Item = &Vec<u8>>| {
        let files: Vec<(&str, &[u8])> = members.map(|member| ("member", &member[..])).collect();
        tar(&files)
    };
    write(place.path(), "old/x.tar", &pack(&mut members.iter()));
    write(place.path(), "new/x.tar", &pack(&mut members.iter().rev()));
    let report = round_trip(place.path(), 150, "x.tar");
    // The two do not fit into memory together, which they need not.
    assert_eq!(report.better_memory_bytes, 0);
    assert!(report.patch_bytes < 10_000, "{report:?}");
}
