//! Streams, on every driver and on simulated disks.

mod support;

use std::path::Path;
use std::time::Duration;

use inflight::stream::{AnyFile, Copy, Reader, Writer};
use inflight::{AlignedOffset, Buffer, Engine, FileKind, OpenOptions};
use support::{bytes, content, engines, on_each_disk, on_each_driver};

async fn write_file(engine: &Engine, path: &Path, content: &[u8]) {
    let file = engine.open(path, OpenOptions::replacing(0o600)).await.expect("made");
    file.write_all(bytes(engine, content), 0).await.expect("written");
}

async fn rest_of(mut reader: Reader) -> inflight::Result<Vec<u8>> {
    let mut read = Vec::new();
    while let Some((offset, buffer)) = reader.next().await? {
        assert_eq!(offset, read.len() as u64);
        read.extend_from_slice(&buffer);
    }
    Ok(read)
}

#[test]
fn streams_copy_any_length_exactly() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            for (number, length) in [0usize, 1, 4095, 4096, 65536, 300_001].into_iter().enumerate()
            {
                let whole = content(length);
                let path = directory.join(format!("buffered-{number}"));
                let file = engine.open(&path, OpenOptions::creating(0o600)).await.unwrap();
                let mut writer =
                    Writer::new(file, Some(length as u64)).await.unwrap().requests(16384, 3);
                for piece in whole.chunks(7777) {
                    writer.write(piece).await.unwrap();
                }
                writer.finish().await.unwrap().close().await.unwrap();

                let direct = directory.join(format!("direct-{number}"));
                let options = OpenOptions::creating(0o600);
                let Ok(file) = engine.open_direct(&direct, options).await else {
                    return;
                };
                let mut writer = Writer::new(file, None).await.unwrap().requests(16384, 3);
                let source = engine.open(&path, OpenOptions::reading()).await.unwrap();
                let mut reader = Reader::new(source, 0..length as u64).requests(8192, 4);
                while let Some((_, buffer)) = reader.next().await.unwrap() {
                    writer.write(&buffer).await.unwrap();
                }
                writer.finish().await.unwrap();

                let file = engine.open_direct(&direct, OpenOptions::reading()).await.unwrap();
                assert_eq!(file.metadata().await.unwrap().size, length as u64);
                let start = AlignedOffset::at_or_before(length as u64 / 2);
                let mut reader = Reader::direct(file, start, length as u64).requests(4096, 4);
                let mut read = Vec::new();
                while let Some((offset, buffer)) = reader.next().await.unwrap() {
                    assert_eq!(offset as usize, start.bytes() as usize + read.len());
                    read.extend_from_slice(&buffer);
                }
                assert_eq!(read, whole[start.bytes() as usize..]);
            }
        });
    });
}

#[test]
fn a_reader_notices_that_its_file_shrank() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            write_file(engine, &directory.join("file"), &content(10_000)).await;
            let file = engine.open(&directory.join("file"), OpenOptions::reading()).await.unwrap();
            let mut reader = Reader::new(file, 0..20_000).requests(4096, 2);
            let error = loop {
                match reader.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the range's end was never reached"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        });
    });
}

#[test]
fn a_whole_file_is_read_to_where_it_ends() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            for length in [0, 1, 4096, 5000, 40_000] {
                write_file(engine, &path, &content(length)).await;
                let file = engine.open(&path, OpenOptions::reading()).await.unwrap();
                let reader = Reader::whole(file).await.unwrap().requests(4096, 3);
                // It grows after its size was looked at.
                write_file(engine, &path, &content(length + 9000)).await;
                assert!(rest_of(reader).await.unwrap() == content(length + 9000), "{length}");
                let Ok(file) = engine.open_direct(&path, OpenOptions::reading()).await else {
                    continue;
                };
                let reader = Reader::whole(file).await.unwrap().requests(4096, 3);
                write_file(engine, &path, &content(length + 30_000)).await;
                assert!(rest_of(reader).await.unwrap() == content(length + 30_000), "{length}");
            }
            let root = engine.open(directory, OpenOptions::reading()).await.unwrap();
            let error = Reader::whole(root).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::IsADirectory);
        });
    });
}

#[test]
fn what_has_no_size_is_read_all_the_same() {
    on_each_driver(|engine, _| {
        engine.block_on(async {
            let file = engine.open("/proc/self/status", OpenOptions::reading()).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().size, 0);
            let text = rest_of(Reader::whole(file).await.unwrap()).await.unwrap();
            assert!(text.starts_with(b"Name:"));
            // One that says it has 4096 bytes, and has not.
            let path = "/sys/kernel/mm/transparent_hugepage/enabled";
            let Ok(file) = engine.open(path, OpenOptions::reading()).await else { return };
            let text = rest_of(Reader::whole(file).await.unwrap()).await.unwrap();
            assert!(text.ends_with(b"\n") && text.len() < 100);
        });
    });
}

#[test]
fn what_is_no_file_of_a_disk_cannot_be_read_around_the_page_cache() {
    on_each_driver(|engine, directory| {
        engine.block_on(async {
            let open = async |path: &Path| {
                engine.open_direct(path, OpenOptions::reading()).await.unwrap_err().kind()
            };
            assert_eq!(open(Path::new("/proc/self/status")).await, std::io::ErrorKind::Unsupported);
            assert_eq!(open(Path::new("/dev/null")).await, std::io::ErrorKind::Unsupported);
            let kind = open(directory).await;
            let kinds = [std::io::ErrorKind::IsADirectory, std::io::ErrorKind::Unsupported];
            assert!(kinds.contains(&kind), "{kind}");
            let metadata = engine.metadata(directory, true).await.unwrap();
            assert_eq!(metadata.kind, FileKind::Directory);
        });
    });
}

/// Copies a file and compares, passing buffers on or copying their bytes.
async fn copy(engine: &Engine, from: &Path, to: &Path, pass_on: bool, direct: bool) {
    let source = engine.open(from, OpenOptions::reading()).await.unwrap();
    let target: AnyFile = match direct {
        true => engine.open_direct(to, OpenOptions::creating(0o600)).await.unwrap().into(),
        false => engine.open(to, OpenOptions::creating(0o600)).await.unwrap().into(),
    };
    let mut reader = Reader::whole(source).await.unwrap().requests(64 << 10, 8);
    let mut writer = Writer::new(target, None).await.unwrap().requests(64 << 10, 8);
    while let Some((_, buffer)) = reader.next().await.unwrap() {
        match pass_on {
            true => writer.write_buffer(buffer).await.unwrap(),
            false => {
                let bytes = buffer.to_vec();
                drop(buffer);
                writer.write(&bytes).await.unwrap();
            }
        }
    }
    writer.finish().await.unwrap();
}

#[test]
fn streams_come_to_their_ends_however_little_memory_there_is() {
    // Two requests: of eight copies that pass their buffers on, each has its turn.
    let little = |builder: inflight::Builder| builder.workers(2).memory_bytes_max(128 << 10);
    for engine in engines(little) {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        engine.block_on(async {
            let file = engine.open(&from, OpenOptions::creating(0o600)).await.unwrap();
            let mut writer = Writer::new(file, None).await.unwrap().requests(64 << 10, 8);
            writer.write(&content(3_000_001)).await.unwrap();
            writer.finish().await.unwrap();
        });
        let tried = engine.block_on(engine.open_direct(&from, OpenOptions::reading()));
        for round in 0..3 {
            if round == 2 && tried.is_err() {
                continue;
            }
            std::thread::scope(|scope| {
                // Of those that copy bytes, each holds one buffer while it waits for another.
                for number in 0..if round == 1 { 1 } else { 8 } {
                    let (engine, from) = (&engine, &from);
                    let to = directory.path().join(format!("{round}-{number}"));
                    scope.spawn(move || {
                        engine.block_on(copy(engine, from, &to, round != 1, round == 2));
                        let copied = engine.block_on(async {
                            let file = engine.open(to, OpenOptions::reading()).await.unwrap();
                            let whole = Reader::whole(file).await.unwrap();
                            rest_of(whole.requests(64 << 10, 1)).await.unwrap()
                        });
                        assert!(copied == content(3_000_001));
                    });
                }
            });
        }
        assert_eq!(engine.pool().budget().used(), 0);
    }
}

#[test]
fn buffers_of_any_length_are_passed_on() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let lengths = [4096, 0, 100, 8192, 4096, 4097, 16384, 1, 4096];
            let buffers = || {
                lengths.iter().scan(0, |from, length| {
                    *from += length;
                    Some(bytes(engine, &content(*from)[*from - length..]))
                })
            };
            let whole = content(lengths.iter().sum());
            let path = directory.join("cached");
            let file = engine.open(&path, OpenOptions::creating(0o600)).await.unwrap();
            let write = async |mut writer: Writer, buffers: Vec<Buffer>| {
                for buffer in buffers {
                    writer.write_buffer(buffer).await.unwrap();
                }
                writer.finish().await.unwrap();
            };
            write(Writer::new(file, None).await.unwrap().requests(8192, 2), buffers().collect())
                .await;
            let direct = directory.join("direct");
            if let Ok(file) = engine.open_direct(&direct, OpenOptions::creating(0o600)).await {
                let writer = Writer::new(file, None).await.unwrap().requests(8192, 2);
                write(writer, buffers().collect()).await;
                let file = engine.open(&direct, OpenOptions::reading()).await.unwrap();
                assert!(rest_of(Reader::whole(file).await.unwrap()).await.unwrap() == whole);
            }
            let file = engine.open(&path, OpenOptions::reading()).await.unwrap();
            assert!(rest_of(Reader::whole(file).await.unwrap()).await.unwrap() == whole);
        });
    });
}

#[test]
fn a_stream_that_is_always_ready_lets_a_time_limit_through() {
    on_each_driver(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            write_file(engine, &path, &content(1 << 20)).await;
            let file = engine.open(&path, OpenOptions::reading()).await.unwrap();
            // Every read is over by the time it is asked for.
            let endless = async {
                loop {
                    let mut reader = Reader::new(file.clone(), 0..1 << 20).requests(4096, 16);
                    while reader.next().await.unwrap().is_some() {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
            };
            let limited = engine.timeout(Duration::from_millis(20), endless).await;
            assert!(limited.is_err());
        });
    });
}

#[test]
fn errors_become_those_of_the_standard_library() {
    on_each_disk(|engine, directory| {
        let open = || -> std::io::Result<()> {
            let path = directory.join("missing");
            drop(engine.block_on(engine.open(path, OpenOptions::reading()))?);
            Ok(())
        };
        let error = open().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert!(error.to_string().ends_with("; check the path"), "{error}");
    });
}

#[test]
#[should_panic(expected = "a read needs room in its buffer")]
fn a_full_buffer_is_not_taken_for_the_end_of_a_file() {
    let engine = Engine::new().unwrap();
    engine.block_on(async {
        let file = engine.open("Cargo.toml", OpenOptions::reading()).await.unwrap();
        let mut buffer = engine.buffer(4096).await;
        buffer.extend_zeros(4096);
        drop(file.read(buffer, 4096, 0).await);
    });
}

/// A file of `length` bytes that has data at these places only.
async fn write_sparse(engine: &Engine, path: &Path, length: u64, data: &[(u64, usize)]) {
    let file = engine.open(path, OpenOptions::replacing(0o600)).await.expect("made");
    file.truncate(length).await.expect("grown");
    for (offset, bytes_there) in data {
        file.write_all(bytes(engine, &content(*bytes_there)), *offset).await.expect("written");
    }
}

#[test]
fn copies_are_exact_with_their_holes_through_and_around_the_cache() {
    on_each_disk(|engine, directory| {
        let shapes: [(u64, &[(u64, usize)]); 7] = [
            (0, &[]),
            (100_001, &[(0, 100_001)]),
            (1 << 20, &[]),
            (5_000_000, &[(2_000_000, 4)]),
            (700_001, &[(0, 5000), (300_000, 70_000), (700_000, 1)]),
            (65_536, &[(0, 1)]),
            (1_000_003, &[(999_000, 1003)]),
        ];
        engine.block_on(async {
            let (from, to) = (directory.join("from"), directory.join("to"));
            for (length, data) in shapes {
                write_sparse(engine, &from, length, data).await;
                let source = engine.open(&from, OpenOptions::reading()).await.unwrap();
                let whole = rest_of(Reader::whole(source).await.unwrap()).await.unwrap();
                for kind in 0..4 {
                    let source = engine.open(&from, OpenOptions::reading()).await.unwrap();
                    let target = engine.open(&to, OpenOptions::replacing(0o600)).await.unwrap();
                    let direct_source = engine.open_direct(&from, OpenOptions::reading()).await;
                    let direct_target = engine.open_direct(&to, OpenOptions::writing()).await;
                    let source: AnyFile = match (kind & 1, direct_source) {
                        (1, Ok(direct)) => direct.into(),
                        _ => source.into(),
                    };
                    let target: AnyFile = match (kind & 2, direct_target) {
                        (2, Ok(direct)) => direct.into(),
                        _ => target.into(),
                    };
                    let mut copy = Copy::new(source, target).await.unwrap().requests(16_384, 3);
                    let mut copied = 0;
                    while let Some(bytes) = copy.step().await.unwrap() {
                        copied += bytes;
                    }
                    let holes = copy.hole_bytes();
                    let target = copy.finish().await.unwrap();
                    assert_eq!(copied, length, "{kind}: {data:?}");
                    let about = target.metadata().await.unwrap();
                    assert_eq!(about.size, length, "{kind}: {data:?}");
                    let there = engine.open(&to, OpenOptions::reading()).await.unwrap();
                    let there = rest_of(Reader::whole(there).await.unwrap()).await.unwrap();
                    assert!(there == whole, "{kind}: {data:?}");
                    assert!(holes == 0 || about.allocated < length, "{kind}: {data:?}");
                }
            }
        });
    });
}
