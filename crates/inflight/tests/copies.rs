//! The operations that copies are made of, over each driver.

mod support;

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use inflight::{
    CopiedDirectory, CopiedFile, Directory, DirectoryCopy, Engine, FileKind, Kept, Metadata,
    NewFile, OpenOptions, Owner, SetMetadata, SetTimes, Timestamp,
};

use support::{bytes, content, on_each_disk, on_each_driver};

#[test]
fn a_lock_is_taken_by_one_and_given_back() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let first = engine.open_directory(directory).await.unwrap();
            let second = engine.open_directory(directory).await.unwrap();
            first.lock().await.unwrap();
            first.lock().await.unwrap();
            let error = second.lock().await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
            first.unlock().await.unwrap();
            second.lock().await.unwrap();
            assert!(first.lock().await.is_err(), "the other one has it");
            drop(second);
            while first.lock().await.is_err() {}
        });
    });
}

#[test]
fn small_files_are_copied_many_at_once_with_what_belongs_to_them() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            for name in ["from", "to"] {
                engine.create_directory(directory.join(name), 0o755).await.unwrap();
            }
            let from = engine.open_directory(directory.join("from")).await.unwrap();
            let to = engine.open_directory(directory.join("to")).await.unwrap();
            let contents = [content(0), content(1), content(4096), content(5000)];
            for (number, content) in contents.iter().enumerate() {
                let name = number.to_string();
                let new = NewFile::new(name.as_ref(), 0o600, 0, content.len()).unwrap();
                from.write_files(vec![new], bytes(engine, content)).await.unwrap();
            }
            from.set_attribute("3", b"user.color", b"blue".to_vec()).await.unwrap();
            let time = Timestamp { seconds: 1_000_000_000, nanoseconds: 7 };
            let kept = SetMetadata {
                mode: Some(0o2640),
                times: Some(SetTimes { accessed: None, modified: Some(time) }),
                ..SetMetadata::default()
            };
            let file = |number: usize| {
                let length = contents[number].len();
                CopiedFile::new(number.to_string().as_ref(), length, kept).unwrap()
            };
            let room = || engine.pool().try_get(5001).unwrap();
            // One is longer than it was said to be.
            let short = CopiedFile { length: 4095, ..file(2) };
            let files = vec![file(0), file(1), short, file(3)];
            let files = from.copy_files(&to, files, room()).await.unwrap();
            let copied: Vec<bool> = files.iter().map(|file| file.copied).collect();
            assert_eq!(copied, [true, true, false, true]);
            for number in [0, 1, 3] {
                let name = number.to_string();
                let about = to.metadata(&name, false).await.unwrap();
                assert_eq!((about.mode, about.modified), (0o2640, time));
                assert_eq!(about.size, contents[number].len() as u64);
                let there = to.open(&name, OpenOptions::reading()).await.unwrap();
                let buffer = there.read_full(room(), 5001, 0).await.unwrap();
                assert!(*buffer == contents[number][..]);
            }
            let attributes = to.attributes("3").await.unwrap();
            assert_eq!(attributes, [(c"user.color".into(), b"blue".to_vec())]);
            // The error says which; what comes before is whole, and of that one nothing was made.
            let missing = CopiedFile::new("missing".as_ref(), 1, kept).unwrap();
            let error = from.copy_files(&to, vec![file(2), missing], room()).await.unwrap_err();
            assert!(error.path().unwrap().ends_with("from/missing"), "{error}");
            assert_eq!(to.metadata("2", false).await.unwrap().size, 4096);
            let error = from.copy_files(&to, vec![file(3)], room()).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
            assert!(error.path().unwrap().ends_with("to/3"), "{error}");
            assert_eq!(to.metadata("3", false).await.unwrap().size, 5000);
        });
    });
}

/// A directory `from` with small files in it, and an empty one to copy it into.
async fn directory_of_small_files(engine: &Engine, directory: &Path) -> Directory {
    let top = engine.open_directory(directory).await.unwrap();
    top.create_directory("from", 0o755).await.unwrap();
    let from = top.open_directory("from", OpenOptions::directory()).await.unwrap();
    for (name, length) in [("empty", 0), ("small", 700), ("fits", 999), ("large", 1000)] {
        let new = NewFile::new(name.as_ref(), 0o600, 0, length).unwrap();
        from.write_files(vec![new], bytes(engine, &content(length))).await.unwrap();
    }
    top
}

#[test]
fn a_directory_is_copied_with_what_is_small_in_it() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let top = directory_of_small_files(engine, directory).await;
            let about = Metadata { mode: 0o571, ..Metadata::default() };
            let copy = async |from: &str, to: &str| {
                let room = engine.pool().try_get(1000).unwrap();
                // Pools may give more room than was asked for.
                let most = room.capacity();
                let copy = DirectoryCopy::new(&about, Kept::default(), room);
                (top.copy_directory(from, (&top, to), copy).await, most)
            };
            let (outcome, most) = copy("from", "to").await;
            let done = outcome.unwrap();
            assert!(done.is_listed);
            let made = top.open_directory("to", OpenOptions::directory()).await.unwrap();
            for (entry, copied) in done.batch.iter().zip(&done.copied) {
                let size = entry.metadata.unwrap().size;
                assert_eq!(*copied, size < most as u64, "{:?}", entry.name);
                let name = Path::new(OsStr::from_bytes(entry.name.to_bytes()));
                match made.open(name, OpenOptions::reading()).await {
                    Ok(file) => {
                        assert!(copied);
                        let room = engine.pool().try_get(1000).unwrap();
                        let there = file.read_full(room, 1000, 0).await.unwrap();
                        assert!(*there == content(size as usize)[..]);
                        let source = top.metadata(Path::new("from").join(name), false).await;
                        let (source, there) = (source.unwrap(), file.metadata().await.unwrap());
                        assert_eq!((there.mode, there.modified), (source.mode, source.modified));
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                        assert!(!copied, "{name:?}");
                    }
                }
            }
            let all = done.batch.is_last()
                && done.copied.len() == done.batch.len()
                && done.copied.iter().all(|copied| *copied);
            assert_eq!(done.opened.is_none(), all);
            let mode = made.metadata("", false).await.unwrap().mode;
            assert_eq!(mode, if all { 0o571 } else { 0o751 });
            if let Some((source, made)) = done.opened {
                assert!(source.path().ends_with("from") && made.path().ends_with("to"));
            }
            // What is there already is in nobody's way, and nothing comes of it.
            let error = copy("from", "to").await.0.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
            assert!(error.path().unwrap().ends_with("to"), "{error}");
            let error = copy("missing", "never").await.0.unwrap_err();
            assert!(error.path().unwrap().ends_with("missing"), "{error}");
            assert!(top.metadata("never", false).await.is_err(), "nothing is made");
        });
    });
}

/// Whether a directory's copy is as was told, in all directories that were begun: what was not copied is not
/// there, and what was is alike. Gives the number of files and directories copied.
async fn check_copy(from: &Directory, to: &Directory, told: &CopiedDirectory) -> (usize, usize) {
    let mut count = (0, 1);
    let mut inside = told.inside.iter().peekable();
    for (place, entry) in told.batch.iter().enumerate() {
        let name = Path::new(OsStr::from_bytes(entry.name.to_bytes()));
        let (source, copied) = (entry.metadata.unwrap(), told.copied.get(place) == Some(&true));
        let there = to.metadata(name, false).await;
        if let Some((_, told)) = inside.next_if(|(number, _)| *number == place) {
            assert_eq!(source.kind, FileKind::Directory);
            assert_eq!(told.opened.is_none(), copied, "{name:?}");
            let options = OpenOptions::directory();
            let from = from.open_directory(name, options).await.unwrap();
            let to = to.open_directory(name, options).await.unwrap();
            if copied {
                let there = there.unwrap();
                assert_eq!(
                    (there.mode, there.modified),
                    (source.mode, source.modified),
                    "{name:?}"
                );
            }
            let below = Box::pin(check_copy(&from, &to, told)).await;
            count = (count.0 + below.0, count.1 + below.1);
            continue;
        }
        match there {
            Ok(there) => {
                let about = |it: &Metadata| (it.kind, it.size, it.mode, it.modified);
                assert_eq!(about(&there), about(source), "{name:?}");
                assert!(copied, "{name:?} is there");
                count.0 += 1;
            }
            Err(_) => assert!(!copied, "{name:?} is not there"),
        }
    }
    count
}
/// How many directories were handed out open.
fn open_in(told: &CopiedDirectory) -> usize {
    let inside = told.inside.iter().map(|(_, inside)| open_in(inside));
    usize::from(told.opened.is_some()) + inside.sum::<usize>()
}

#[test]
fn directories_inside_are_copied_along() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let top = engine.open_directory(directory).await.unwrap();
            let (mut path, mut all) = (Path::new("from").to_owned(), (0, 0));
            // Deeper, and with more files, than one operation goes.
            for depth in 0..12 {
                top.create_directory(&path, 0o700).await.unwrap();
                all.1 += 1;
                let inside = path.join("leaf");
                top.create_directory(&inside, 0o750).await.unwrap();
                all.1 += 1;
                let (count, length) = (if depth == 3 { 700 } else { 70 }, 10 * depth);
                let names: Vec<String> = (0..count).map(|number| format!("file{number}")).collect();
                for names in names.chunks(100) {
                    let new = |name: &String| {
                        NewFile::new(inside.join(name).as_ref(), 0o640, 0, length).unwrap()
                    };
                    let new = names.iter().map(new).collect();
                    top.write_files(new, bytes(engine, &content(length.max(1)))).await.unwrap();
                    all.0 += names.len();
                }
                if depth == 5 {
                    top.create_symlink("leaf", path.join("link")).await.unwrap();
                }
                path.push("deeper");
            }
            let about = top.metadata("from", false).await.unwrap();
            let copy = async |from: &str, to: &str, few: bool| {
                let room = engine.pool().try_get(1000).unwrap();
                let copy = DirectoryCopy::new(&about, Kept::default(), room);
                let copy = if few { copy.of_few() } else { copy };
                let told = top.copy_directory(from, (&top, to), copy).await.unwrap();
                let open = async |name: &str| {
                    top.open_directory(name, OpenOptions::directory()).await.unwrap()
                };
                let count = check_copy(&open(from).await, &open(to).await, &told).await;
                (told, count)
            };
            let (told, (files, directories)) = copy("from", "to", false).await;
            assert!(told.opened.is_some(), "a link is nothing that is copied along");
            assert!(files > 70 && files <= 1024 && files < all.0, "{files} files of {all:?}");
            assert!(directories > 3 && directories < all.1, "{directories} of {all:?}");
            let (told, count) = copy("from/deeper/deeper/leaf", "whole", false).await;
            assert_eq!(count, (told.batch.len(), 1));
            assert_eq!(told.opened.is_none(), told.batch.is_last() && told.batch.len() == 70);
            let (told, count) = copy("from/deeper/deeper/leaf", "part", true).await;
            assert!(told.opened.is_some());
            assert_eq!(count, (told.batch.len().min(64), 1));
            // What stays open is bounded, however many are not done, in each other or side by side.
            top.create_directory("links", 0o700).await.unwrap();
            for number in 0..40 {
                let path = Path::new("links").join(number.to_string());
                top.create_directory(&path, 0o700).await.unwrap();
                top.create_symlink("x", path.join("link")).await.unwrap();
            }
            for from in ["from", "links"] {
                let (told, _) = copy(from, &format!("{from} again"), false).await;
                assert!((2..=9).contains(&open_in(&told)), "{} are open", open_in(&told));
            }
            let (told, _) = copy("from", "top", true).await;
            assert!(told.inside.is_empty() && told.copied.iter().all(|copied| !copied));
        });
    });
}

#[test]
fn files_of_one_operation_may_go_into_directories_of_other_groups() {
    on_each_driver(|engine, directory| {
        engine.block_on(async {
            let top = engine.open_directory(directory).await.unwrap();
            for name in ["plain", "of-group"] {
                top.create_directory(name, 0o755).await.unwrap();
            }
            let own = top.metadata("plain", false).await.unwrap().owner;
            let other = Owner { group: own.group + 1, ..own };
            let metadata =
                SetMetadata { owner: Some(other), mode: Some(0o2755), ..SetMetadata::default() };
            if top.set_metadata("of-group", metadata).await.is_err() {
                // Only the superuser may, or who is in both groups.
                return;
            }
            let new = NewFile::new("source".as_ref(), 0o644, 0, 5).unwrap();
            top.write_files(vec![new], bytes(engine, b"bytes")).await.unwrap();
            let metadata =
                SetMetadata { owner: Some(own), mode: Some(0o644), ..SetMetadata::default() };
            let file = |target: &str| {
                let file = CopiedFile::new("source".as_ref(), 5, metadata).unwrap();
                let target = CString::new(target).unwrap();
                CopiedFile { target: Some(target.into()), ..file }
            };
            let files = vec![file("plain/copy"), file("of-group/copy"), file("plain/again")];
            let room = engine.buffer(6).await;
            let copied = top.copy_files(&top, files, room).await.unwrap();
            assert!(copied.iter().all(|file| file.copied));
            for path in ["plain/copy", "of-group/copy", "plain/again"] {
                assert_eq!(top.metadata(path, false).await.unwrap().owner, own, "{path}");
            }
        });
    });
}

#[test]
fn a_directory_is_made_and_opened_in_one() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            let options = OpenOptions::creating_directory(0o750);
            let made = root.open_directory("made", options).await.unwrap();
            made.create_symlink("x", "inside").await.unwrap();
            assert_eq!(root.metadata("made", false).await.unwrap().mode, 0o750);
            let error = root.open_directory("made", options).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
            let nothing = root.metadata("made/inside", true).await.unwrap_err();
            assert_eq!(nothing.kind(), std::io::ErrorKind::NotFound);
        });
    });
}

#[test]
fn the_kernel_copies_from_any_place_to_any_other() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let whole = content(2_500_000);
            let options = OpenOptions::creating(0o600);
            let source = engine.open(directory.join("from"), options).await.unwrap();
            source.write_all(bytes(engine, &whole), 0).await.unwrap();
            let source = engine.open(directory.join("from"), OpenOptions::reading()).await.unwrap();
            let target = engine.open(directory.join("to"), options).await.unwrap();
            for (from, to, length) in [(0, 0, 3_000_000), (100, 5000, 70_000), (2_400_000, 1, 100)]
            {
                let mut done = 0;
                while done < length {
                    let copied = source.splice_to(from + done, &target, to + done, length - done);
                    match copied.await.unwrap() {
                        0 => break,
                        copied => done += copied,
                    }
                }
                let (begin, end) = (from as usize, whole.len().min((from + length) as usize));
                assert_eq!(done as usize, end - begin);
            }
            let mut expected = whole.clone();
            expected[5000..75_000].copy_from_slice(&whole[100..70_100]);
            expected[1..101].copy_from_slice(&whole[2_400_000..2_400_100]);
            let there = engine.open(directory.join("to"), OpenOptions::reading()).await.unwrap();
            let room = engine.pool().try_get(3_000_000).unwrap();
            assert!(*there.read_full(room, 3_000_000, 0).await.unwrap() == expected);
            let error = source.splice_to(0, &source, 0, 10).await.unwrap_err();
            assert!(error.to_string().contains("from"), "{error}");
            let error = source.splice_to(0, &target, 0, u64::MAX).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        });
    });
}
