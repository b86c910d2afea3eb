//! What every driver must do with files and directories, run over each of them.

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use inflight::stream::walk;
use inflight::{
    Advice, AlignedBuffer, AlignedOffset, Buffer, BufferList, DirectoryBatch, DriverChoice, Engine,
    File, FileKind, FilePiece, NewFile, OpenOptions, Owner, RemoveKind, SetTimes, SyncScope,
    Timestamp,
};

use support::{bytes, content, on_each_disk, on_each_driver};

#[test]
fn a_file_is_written_and_read_back() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            let file = engine.open(&path, OpenOptions::creating(0o640)).await.unwrap();
            let written = content(10_000);
            let buffer = bytes(engine, &written);
            let buffer = file.write_full(buffer, 0, 10_000, 0).await.unwrap();
            drop(file.write_full(buffer, 100, 50, 20_000).await.unwrap());
            file.sync(SyncScope::Data).await.unwrap();
            file.close().await.unwrap();

            let file = engine.open(&path, OpenOptions::reading()).await.unwrap();
            let metadata = file.metadata().await.unwrap();
            assert_eq!((metadata.size, metadata.kind), (20_050, FileKind::File));
            let buffer = file.read_full(engine.buffer(32_768).await, 32_768, 0).await.unwrap();
            assert_eq!(buffer.len(), 20_050);
            assert_eq!(buffer[..10_000], written);
            assert!(buffer[10_000..20_000].iter().all(|byte| *byte == 0));
            assert_eq!(buffer[20_000..], written[100..150]);
            let mut buffer = buffer;
            buffer.clear();
            let buffer = file.read(buffer, 10, 20_050).await.unwrap();
            assert!(buffer.is_empty(), "nothing behind the end");
        });
    });
}

#[test]
fn reads_append_behind_what_is_there() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            drop(write_whole(engine, directory, "file", b"0123456789").await);
            let file = engine.open(&path, OpenOptions::reading()).await.unwrap();
            let buffer = file.read(bytes(engine, b"ab"), 3, 4).await.unwrap();
            assert_eq!(&*buffer, b"ab456");
        });
    });
}

async fn write_whole(engine: &Engine, directory: &Path, name: &str, content: &[u8]) -> Buffer {
    let root = engine.open_directory(directory).await.unwrap();
    let file = NewFile::new(name.as_ref(), 0o644, 0, content.len()).unwrap();
    root.write_files(vec![file], bytes(engine, content)).await.unwrap()
}

#[test]
fn many_small_files_take_one_operation_each_way() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            let buffer = bytes(engine, b"__content__");
            let before = engine.metrics().operations;
            let new = |name: &str, mode, start, length| {
                NewFile::new(name.as_ref(), mode, start, length).unwrap()
            };
            let files = vec![new("a", 0o4751, 2, 7), new("b", 0o600, 0, 0)];
            let mut buffer = root.write_files(files, buffer).await.unwrap();
            buffer.clear();
            let piece = |name: &str, offset, length, expect_end| {
                let piece = FilePiece::new(name.as_ref(), offset, length).unwrap();
                FilePiece { expect_end, ..piece }
            };
            let pieces = vec![
                piece("a", 3, 2, true),
                piece("a", 0, 7, true),
                piece("b", 0, 0, true),
                piece("a", 5, 10, true),
                piece("a", 0, 1, true),
            ];
            let read = root.read_files(pieces, OpenOptions::reading(), buffer);
            let (pieces, buffer) = read.await.unwrap();
            assert_eq!(engine.metrics().operations - before, 2);
            assert_eq!(&*buffer, b"tecontentnt");
            let seen: Vec<_> = pieces.iter().map(|p| (p.read, p.goes_on)).collect();
            let expected = [(2, true), (7, false), (0, false), (2, false), (0, false)];
            assert_eq!(seen, expected, "it stops behind the short piece");
            let metadata = root.metadata("a", false).await.unwrap();
            assert_eq!(metadata.mode, 0o4751, "the process's mask does not apply");
            let files = vec![new("c", 0o600, 0, 1), new("a", 0o600, 0, 1)];
            let error = root.write_files(files, buffer).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
            assert_eq!(error.path(), Some(&*directory.join("a")), "the file it is about");
        });
    });
}

#[test]
fn vectored_operations_spread_over_their_buffers() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.join("file"), options).await.unwrap();
            let mut list = BufferList::new();
            let written = content(9000);
            list.push(bytes(engine, &written[..5000]));
            list.push(bytes(engine, &written[5000..]));
            let (_, count) = file.write_vectored(list, 7).await.unwrap();
            assert_eq!(count, 9000);
            let mut list = BufferList::new();
            list.push(engine.buffer(4096).await);
            list.push(engine.buffer(8192).await);
            let (mut list, count) = file.read_vectored(list, 7).await.unwrap();
            assert_eq!(count, 9000);
            assert_eq!(list.buffers()[0][..], written[..4096]);
            assert_eq!(list.pop().unwrap()[..], written[4096..]);
        });
    });
}

#[test]
fn direct_io_reads_and_writes_whole_blocks() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            let options = OpenOptions::creating(0o600).read_write();
            let file = match engine.open_direct(&path, options).await {
                Ok(file) => file,
                Err(error) => return eprintln!("no direct I/O here: {error}"),
            };
            let written = content(5000);
            let buffer = AlignedBuffer::padded(bytes(engine, &written));
            let buffer = file.write(buffer, AlignedOffset::ZERO).await.unwrap();
            assert_eq!(&*buffer.into_inner(), &written[..]);
            file.truncate(5000).await.unwrap();
            let buffer = file.read(engine.buffer(8192).await, AlignedOffset::ZERO).await.unwrap();
            assert_eq!(&*buffer, &written[..]);
            let second = AlignedOffset::ZERO.plus_blocks(1);
            let buffer = file.read(buffer, second).await.unwrap();
            assert_eq!(&*buffer, &written[4096..]);
        });
    });
}

#[test]
fn names_are_made_changed_and_removed() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            let odd = Path::new(OsStr::from_bytes(b"odd \xff name"));
            root.create_directory(odd, 0o755).await.unwrap();
            let inner = root.open_directory(odd, OpenOptions::directory()).await.unwrap();
            inner.create_symlink("../nowhere", "link").await.unwrap();
            assert_eq!(inner.read_link("link").await.unwrap(), b"../nowhere");
            let link = inner.metadata("link", false).await.unwrap();
            assert_eq!(link.kind, FileKind::Symlink);
            let error = inner.metadata("link", true).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            assert!(error.to_string().contains("link"), "{error}");

            drop(write_whole(engine, directory, "one", b"1").await);
            root.create_hard_link("one", "two").await.unwrap();
            let one = root.metadata("one", false).await.unwrap();
            let two = root.metadata("two", false).await.unwrap();
            assert!(one.same_file(&two) && one.links == 2);
            let error = root.rename("one", odd, false).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
            root.rename("one", "three", false).await.unwrap();
            root.remove("two", RemoveKind::File).await.unwrap();
            let error = root.remove(odd, RemoveKind::Directory).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty);
            inner.remove("link", RemoveKind::File).await.unwrap();
            root.remove(odd, RemoveKind::Directory).await.unwrap();
            let left = walk(&root).await.unwrap();
            assert_eq!(left.len(), 1);
            assert_eq!(left[0].path, Path::new("three"));
        });
    });
}

#[test]
fn modes_times_and_attributes_stick() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            drop(write_whole(engine, directory, "file", b"x").await);
            let (name, time) =
                (Path::new("file"), Timestamp { seconds: -5, nanoseconds: 123_456_789 });
            root.set_mode(name, 0o1604).await.unwrap();
            let times = SetTimes { accessed: None, modified: Some(time) };
            root.set_times(name, times).await.unwrap();
            let metadata = root.metadata(name, false).await.unwrap();
            assert_eq!((metadata.mode, metadata.modified), (0o1604, time));
            root.set_owner(name, metadata.owner).await.unwrap();
            assert_eq!(root.metadata(name, false).await.unwrap().owner, metadata.owner);
            let _: Owner = metadata.owner;

            root.create_symlink("file", "link").await.unwrap();
            root.set_times("link", times).await.unwrap();
            let link = root.metadata("link", false).await.unwrap();
            assert_eq!(link.modified, time, "a link's own times are set");

            if root.set_attribute(name, b"user.test", b"v\0".to_vec()).await.is_ok() {
                let attributes = root.attributes(name).await.unwrap();
                assert_eq!(attributes, [(c"user.test".into(), b"v\0".to_vec())]);
            }
            assert_eq!(root.attributes("link").await.unwrap(), []);
        });
    });
}

#[test]
fn what_is_written_and_synced_in_one_go_is_there() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.join("file"), options).await.unwrap();
            for (scope, start) in
                [(SyncScope::Data, 0), (SyncScope::All, 1000), (SyncScope::FileSystem, 2000)]
            {
                let (mut buffer, mut done) = (bytes(engine, &content(3000)[..]), 0);
                while done < 1000 {
                    let (from, left) = (start + done, 1000 - done);
                    let write = file.write_sync(buffer, from, left, from as u64, scope);
                    let (back, written) = write.await.unwrap();
                    (buffer, done) = (back, done + written);
                }
                assert_eq!((buffer.len(), done), (3000, 1000));
            }
            let buffer = file.read_full(engine.buffer(4096).await, 4096, 0).await.unwrap();
            assert_eq!(&*buffer, &content(3000)[..]);
            file.sync_range(0, 0, true).await.unwrap();
            file.sync_range(1000, 1000, false).await.unwrap();
            let reading = engine.open(file.path(), OpenOptions::reading()).await.unwrap();
            let write = reading.write_sync(buffer, 0, 10, 0, SyncScope::Data);
            let error = write.await.map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("cannot write and sync"), "{error}");
        });
    });
}

#[test]
fn advice_is_taken_and_holes_are_made() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.join("file"), options).await.unwrap();
            drop(file.write_full(bytes(engine, &[7; 65536]), 0, 65536, 0).await.unwrap());
            for advice in [
                Advice::Normal,
                Advice::Sequential,
                Advice::Random,
                Advice::WillNeed,
                Advice::DontNeed,
            ] {
                file.advise(0, 0, advice).await.unwrap();
            }
            file.punch_hole(16384, 16384).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().size, 65536);
            let buffer = file.read_full(engine.buffer(65536).await, 65536, 0).await.unwrap();
            let hole = |at: usize| (16384..32768).contains(&at);
            let right = |(at, byte): (usize, &u8)| *byte == if hole(at) { 0 } else { 7 };
            assert!(buffer.iter().enumerate().all(right));
            assert_eq!(file.find_data(16384).await.unwrap(), Some((32768, 65536)));
        });
    });
}

/// Whether the file system knows reads that must not wait.
fn answers_at_once(file: &File) -> bool {
    let (mut bytes, flags) = ([0; 16], rustix::io::ReadWriteFlags::NOWAIT);
    let slices = &mut [std::io::IoSliceMut::new(&mut bytes)];
    rustix::io::preadv2(file.descriptor(), slices, 0, flags).is_ok()
}

#[test]
fn metrics_tell_what_went_through() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let before = engine.metrics();
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.join("file"), options).await.unwrap();
            let mut buffer = bytes(engine, &[7; 4096]);
            for _ in 0..200 {
                buffer = file.write_full(buffer, 0, 4096, 0).await.unwrap();
                buffer.clear();
                buffer = file.read_full(buffer, 4096, 0).await.unwrap();
            }
            engine.metadata(&directory.join("none"), true).await.unwrap_err();
            // A worker counts after it told us, and may be held up in between.
            for _ in 0..10_000 {
                let now = engine.metrics();
                let bytes =
                    now.bytes_written - before.bytes_written + now.bytes_read - before.bytes_read;
                if now.failed > before.failed && bytes >= 2 * 200 * 4096 {
                    break;
                }
                engine.nop().await.unwrap();
            }
            let after = engine.metrics();
            assert_eq!(after.bytes_written - before.bytes_written, 200 * 4096);
            assert_eq!(after.bytes_read - before.bytes_read, 200 * 4096);
            assert_eq!(after.failed - before.failed, 1);
            assert!(after.operations - before.operations >= 402);
            assert!(after.busy <= before.busy + std::time::Duration::from_secs(60));
            let latency = engine.latency();
            assert!(latency.count() > 0 && latency.quantile(0.5) <= latency.quantile(1.0));
            let device = Some(file.metadata().await.unwrap().device);
            let metrics = engine.device_metrics();
            let ours = metrics.iter().find(|metrics| metrics.device == device).unwrap();
            assert_eq!((ours.bytes_written, ours.bytes_read), (200 * 4096, 200 * 4096));
            assert!(ours.operations >= 400 && ours.failed == 0 && ours.in_flight == 0);
            assert!(ours.latency.count() > 0 && ours.latency.count() <= latency.count());
            let all: u64 = metrics.iter().map(|metrics| metrics.operations).sum();
            assert!(all >= after.operations, "each operation counts for one of them");
            // Reads of a file that was just written, one at a time: where the file system can say that
            // it would have to wait, none of them needs the ring.
            let in_line = engine.metrics().in_line;
            match engine.driver() {
                DriverChoice::Uring => assert_eq!(in_line > 0, answers_at_once(&file), "{in_line}"),
                _ => assert_eq!(in_line, 0),
            }
        });
    });
}

#[test]
fn what_was_just_written_is_in_the_page_cache() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.join("file"), options).await.unwrap();
            drop(file.write_full(bytes(engine, &[1; 9000]), 0, 9000, 0).await.unwrap());
            for length in [0, 1, 4096, 9000] {
                assert_eq!(file.cached_bytes(length).await.unwrap(), length);
            }
        });
    });
}

#[test]
fn space_sizes_and_holes_are_managed() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let options = OpenOptions::creating(0o600).read_write();
            let file = engine.open(&directory.join("file"), options).await.unwrap();
            file.truncate(1 << 20).await.unwrap();
            assert_eq!(file.find_data(0).await.unwrap(), None, "all hole");
            drop(file.write_full(bytes(engine, &[1; 4096]), 0, 4096, 65536).await.unwrap());
            assert_eq!(file.find_data(0).await.unwrap(), Some((65536, 69632)));
            assert_eq!(file.find_data(69632).await.unwrap(), None);
            file.allocate(0, 2 << 20).await.unwrap();
            let metadata = file.metadata().await.unwrap();
            assert_eq!(metadata.size, 2 << 20);
            assert!(metadata.allocated >= 2 << 20);

            let target = engine
                .open(&directory.join("copy"), OpenOptions::creating(0o600).read_write())
                .await
                .unwrap();
            let copied = file.copy_range_to(65536, &target, 10, 4096).await.unwrap();
            let buffer = target.read_full(engine.buffer(8192).await, 8192, 0).await.unwrap();
            assert_eq!(buffer.len() as u64, copied + 10);
            assert!(buffer[10..].iter().all(|byte| *byte == 1));
        });
    });
}

#[test]
fn directories_are_listed_in_batches_with_metadata() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            for number in 0..1500 {
                let name = format!("a-rather-long-name-that-fills-batches-{number:05}");
                root.create_directory(name, 0o700).await.unwrap();
            }
            let (mut batch, mut names, mut batches) = (DirectoryBatch::default(), 0, 0);
            loop {
                batch = root.read(batch, true).await.unwrap();
                if batch.is_empty() {
                    break;
                }
                batches += 1;
                for entry in batch.iter() {
                    assert_eq!(entry.kind, FileKind::Directory);
                    assert_eq!(entry.metadata.unwrap().mode, 0o700);
                    names += 1;
                }
            }
            assert_eq!(names, 1500);
            assert!(batches > 1, "more than one call's worth");
        });
    });
}

#[test]
fn beneath_refuses_to_leave_the_directory() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            drop(write_whole(engine, directory, "secret", b"s").await);
            let root = engine.open_directory(directory).await.unwrap();
            root.create_directory("in", 0o700).await.unwrap();
            let inner = root.open_directory("in", OpenOptions::directory()).await.unwrap();
            inner.create_symlink("..", "up").await.unwrap();
            for path in ["../secret", "up/secret", "up"] {
                let options = OpenOptions::reading().beneath();
                assert!(inner.open(path, options).await.is_err(), "{path}");
            }
            inner.open("up/secret", OpenOptions::reading()).await.unwrap();
        });
    });
}

#[test]
fn a_file_that_is_there_is_kept_where_that_is_asked_for() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("file");
            for round in 0..3 {
                let options = OpenOptions::keeping(0o600).read_write();
                let file = engine.open(&path, options).await.unwrap();
                assert_eq!(file.metadata().await.unwrap().size, round * 10);
                file.write_all(bytes(engine, &content(10)), round * 10).await.unwrap();
            }
        });
    });
}

#[test]
fn making_a_file_never_goes_through_a_planted_link() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            drop(write_whole(engine, directory, "precious", b"data").await);
            let root = engine.open_directory(directory).await.unwrap();
            for target in ["precious", "not there"] {
                root.create_symlink(target, "planted").await.unwrap();
                let file = NewFile::new("planted".as_ref(), 0o644, 0, 3).unwrap();
                let written = root.write_files(vec![file], bytes(engine, b"bad")).await;
                assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
                let opened = root.open("planted", OpenOptions::creating(0o600)).await;
                assert_eq!(opened.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
                root.remove("planted", RemoveKind::File).await.unwrap();
            }
            assert_eq!(walk(&root).await.unwrap().len(), 1, "nothing was made");
            let file = root.open("precious", OpenOptions::reading()).await.unwrap();
            assert_eq!(&*file.read_full(engine.buffer(10).await, 10, 0).await.unwrap(), b"data");
        });
    });
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let path = directory.join("not there");
            let error = engine.open(&path, OpenOptions::reading()).await.unwrap_err();
            assert_eq!(error.path(), Some(&*path));
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            let text = error.to_string();
            for part in ["cannot open", "not there", "check the path"] {
                assert!(text.contains(part), "{text}");
            }
            let nul = Path::new("a\0b");
            let error = engine.open(nul, OpenOptions::reading()).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        });
    });
}

#[test]
fn more_operations_than_slots_wait_their_turn() {
    for driver in [DriverChoice::Uring, DriverChoice::Threads] {
        let builder = Engine::builder().driver(driver).workers(1).queue_depth(4);
        let engine = match builder.build() {
            Ok(engine) => engine,
            Err(error) => {
                let usual = Engine::builder().driver(driver).build();
                assert!(usual.is_err(), "only the shallow queue fails: {error}");
                assert_eq!(driver, DriverChoice::Uring, "{error}");
                continue;
            }
        };
        let directory = tempfile::tempdir().unwrap();
        engine.block_on(async {
            drop(write_whole(&engine, directory.path(), "file", &content(100_000)).await);
            let path = directory.path().join("file");
            let file = engine.open(&path, OpenOptions::reading()).await.unwrap();
            let reads: Vec<_> = (0..200)
                .map(|number| {
                    let buffer = engine.pool().try_get(256).unwrap();
                    file.read(buffer, 256, number * 256)
                })
                .collect();
            let whole = content(100_000);
            for (number, read) in reads.into_iter().enumerate() {
                let buffer = read.await.unwrap();
                assert_eq!(buffer[..], whole[number * 256..][..256]);
            }
        });
    }
}

#[test]
fn tasks_run_panic_and_are_cancelled() {
    on_each_disk(|engine, directory| {
        let handle = engine.handle().clone();
        let path = directory.to_path_buf();
        let task = engine.spawn(async move {
            let inner = handle.spawn(async { 20 });
            handle.metadata(&path, true).await.unwrap();
            inner.await + 1
        });
        assert_eq!(engine.block_on(task), 21);
        let task = engine.spawn(async { panic!("on purpose") });
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            engine.block_on(task);
        }));
        assert!(caught.is_err(), "the panic reaches whoever awaits the task");
        let value = std::sync::Arc::new(());
        let held = value.clone();
        let task = engine.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        drop(task);
        // The worker drops the cancelled future when it next looks; a task behind it shows when.
        while std::sync::Arc::strong_count(&value) > 1 {
            engine.block_on(engine.spawn(async {}));
        }
    });
}

#[test]
fn an_engine_ends_under_tasks_that_never_would() {
    on_each_driver(|engine, directory| {
        let other = Engine::builder().driver(engine.driver()).build().unwrap();
        let (handle, path) = (other.handle().clone(), directory.to_path_buf());
        for _ in 0..8 {
            let (handle, path) = (handle.clone(), path.clone());
            other
                .spawn(async move { while handle.metadata(&path, true).await.is_ok() {} })
                .detach();
        }
        other.block_on(handle.metadata(&path, true)).unwrap();
        drop(other);
    });
}

#[test]
fn handles_outlive_their_engine_and_say_so() {
    on_each_driver(|engine, directory| {
        let other = Engine::builder().driver(engine.driver()).build().unwrap();
        let handle = other.handle().clone();
        let path = directory.to_path_buf();
        let file = handle.block_on(async {
            drop(write_whole(&other, &path, "file", b"x").await);
            handle.open(&path.join("file"), OpenOptions::reading()).await.unwrap()
        });
        drop(other);
        let error = handle.block_on(handle.metadata(&path, true)).unwrap_err();
        assert_eq!(error.kind(), std::io::Error::from_raw_os_error(108).kind(), "{error}");
        drop(file);
    });
}
