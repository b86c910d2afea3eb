//! What the tests share.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;

use inflight::{Buffer, Builder, DriverChoice, Engine, Faults, SimulatedDisk};

/// An engine on each driver that the system allows.
pub fn engines(settings: impl Fn(Builder) -> Builder) -> impl Iterator<Item = Engine> {
    let drivers = [DriverChoice::Uring, DriverChoice::Threads];
    drivers.into_iter().filter_map(move |driver| {
        // Where the system forbids io_uring there is one driver to test; where it does not, no
        // setting may make it fail.
        if driver == DriverChoice::Uring
            && let Err(error) = Engine::builder().driver(driver).build()
        {
            eprintln!("not run on io_uring: {error}");
            return None;
        }
        let engine = settings(Engine::builder().driver(driver)).build().expect("an engine");
        assert_eq!(engine.driver(), driver);
        Some(engine)
    })
}

/// Runs a test once on each driver of the system's, in a directory of its own.
pub fn on_each_driver(test: impl Fn(&Engine, &Path)) {
    for engine in engines(|builder| builder.workers(2)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        test(&engine, directory.path());
    }
}

/// The same, and on simulated disks: a good one, and one where what may happen does.
pub fn on_each_disk(test: impl Fn(&Engine, &Path)) {
    let faults = Faults { short_once_in: 3, interrupted_once_in: 3, ..Faults::default() };
    on_each_driver(&test);
    on_simulated_disks(&[Faults::default(), faults, faults], test);
}

/// Runs a test once on each driver of the system's, and on simulated machines: a good one, and one
/// where operations are interrupted.
pub fn on_each_machine(test: impl Fn(&Engine, &Path)) {
    let faults = Faults { interrupted_once_in: 3, ..Faults::default() };
    on_each_driver(&test);
    on_simulated_disks(&[Faults::default(), faults], test);
}

fn on_simulated_disks(all_faults: &[Faults], test: impl Fn(&Engine, &Path)) {
    for (seed, faults) in (1..).zip(all_faults) {
        let disk = SimulatedDisk::new(seed);
        let engine = Engine::builder().simulated(&disk);
        let directory = Path::new("/directory");
        engine.block_on(engine.create_directory(directory, 0o755)).expect("made");
        disk.set_faults(*faults);
        test(&engine, directory);
    }
}

/// An engine on each driver that the system allows, and one on a simulated machine.
pub fn all_engines(settings: impl Fn(Builder) -> Builder + Copy) -> impl Iterator<Item = Engine> {
    let simulated = settings(Engine::builder()).simulated(&SimulatedDisk::new(7));
    engines(settings).chain([simulated])
}

/// A buffer of these bytes.
pub fn bytes(engine: &Engine, content: &[u8]) -> Buffer {
    let mut buffer = engine.pool().try_get(content.len()).expect("within the budget");
    buffer.extend_from_slice(content);
    buffer
}

/// Content that differs at every position, for noticing what is in the wrong place.
pub fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}
