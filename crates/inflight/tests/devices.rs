//! Ways to read and write that a device may have or not, and what is known of a device.

mod support;

use std::io::ErrorKind;

use inflight::{DeviceSettings, DriverChoice, Engine, OpenOptions, TransferSettings};

use support::{bytes, content, on_each_disk, on_each_driver};

#[test]
fn what_goes_through_the_page_cache_and_out_again_is_the_same() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            let written = content(50_000);
            let options = OpenOptions::creating(0o600).uncached();
            let file = engine.open(&path, options).await.expect("opened");
            match file.write_all(bytes(engine, &written), 0).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    return eprintln!("not run: {error}");
                }
                other => drop(other.expect("written")),
            }
            let file = engine.open(&path, OpenOptions::reading().uncached()).await.expect("opened");
            let buffer = file.read_full(engine.buffer(65_536).await, 60_000, 0).await;
            assert!(*buffer.expect("read") == written);
            let buffer = file.read_full(engine.buffer(65_536).await, 100, 49_950).await;
            assert!(*buffer.expect("read") == written[49_950..]);
        });
    });
}

#[test]
fn a_read_leaves_nothing_in_the_page_cache() {
    on_each_driver(|engine, directory| {
        engine.block_on(async {
            const BYTES: usize = 4 << 20;
            let path = directory.join("file");
            let file = engine.open(&path, OpenOptions::creating(0o600)).await.expect("opened");
            file.write_all(bytes(engine, &content(BYTES)), 0).await.expect("written");
            file.sync(inflight::SyncScope::Data).await.expect("synced");
            file.advise(0, BYTES as u64, inflight::Advice::DontNeed).await.expect("advised");
            if file.cached_bytes(BYTES as u64).await.expect("counted") > 0 {
                return eprintln!("not run: this file system does not forget");
            }
            let file = engine.open(&path, OpenOptions::reading().uncached()).await.expect("opened");
            match file.read_full(engine.buffer(BYTES).await, BYTES, 0).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    return eprintln!("not run: {error}");
                }
                other => assert!(*other.expect("read") == content(BYTES)),
            }
            let left = file.cached_bytes(BYTES as u64).await.expect("counted");
            assert!(left < BYTES as u64 / 4, "{left} bytes are still there");
        });
    });
}

#[test]
fn mapped_files_are_looked_at_to_their_ends() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            let file = engine.open(&path, OpenOptions::creating(0o600)).await.expect("opened");
            file.write_all(bytes(engine, &content(50_000)), 0).await.expect("written");
            let file = engine.open(&path, OpenOptions::reading()).await.expect("opened");
            for step in [0, 4096, 1 << 20] {
                assert_eq!(file.touch_mapped(0, 1 << 20, step).await.expect("mapped"), 50_000);
                assert_eq!(file.touch_mapped(40_960, 4096, step).await.expect("mapped"), 4096);
                assert_eq!(file.touch_mapped(1 << 20, 4096, step).await.expect("mapped"), 0);
                let error = file.touch_mapped(1, 4096, step).await.expect_err("no whole page");
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
            }
        });
    });
}

#[test]
fn what_was_measured_goes_for_the_same_device_only() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let device_of = |engine: &Engine| engine.block_on(engine.device(directory.path()));
    let builder = || Engine::builder().driver(DriverChoice::Threads);
    let mut device = device_of(&builder().build().expect("an engine")).expect("found");
    assert_eq!((device.measured, device.settings()), (None, device.settings_of_kind()));
    let transfer = TransferSettings { request_bytes: 12_288, depth: 7, direct: false };
    let settings = DeviceSettings { read: transfer, write: transfer, streams: 5 };
    device.measured = Some(settings);
    let knowing = builder().measured(vec![device.clone()]).build().expect("an engine");
    assert_eq!(device_of(&knowing).expect("found").settings(), settings);
    // Another disk has come in its place.
    device.limits.queue_depth += 1;
    let knowing = builder().measured(vec![device]).build().expect("an engine");
    assert_eq!(device_of(&knowing).expect("found").measured, None);
}
