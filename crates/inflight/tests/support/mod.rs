//! What the tests share.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;

use inflight::{Buffer, Builder, DriverChoice, Engine};

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
        assert_eq!(engine.driver().0, driver);
        Some(engine)
    })
}

/// Runs a test once on each driver, in a directory of its own.
pub fn on_each_driver(test: impl Fn(&Engine, &Path)) {
    for engine in engines(|builder| builder.workers(2)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        test(&engine, directory.path());
    }
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
