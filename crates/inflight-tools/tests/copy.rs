//! What a copy keeps, what it refuses, and how it goes on.

mod support;

use std::path::{Path, PathBuf};

use inflight::{Engine, FileKind, OpenOptions, SimulatedDisk};
use inflight_tools::{CopyOptions, CopyReport, Stopped};
use support::{
    assert_same, bytes, engines, everywhere, look, make_tree, noise, run, set_time, simulated,
    write,
};

const PLAIN: CopyOptions =
    CopyOptions { resume: false, verify: false, dry_run: false, sync: false };
const RESUME: CopyOptions = CopyOptions { resume: true, ..PLAIN };
const VERIFY: CopyOptions = CopyOptions { verify: true, ..PLAIN };
const DRY: CopyOptions = CopyOptions { dry_run: true, ..PLAIN };

async fn copied(engine: &Engine, from: &Path, to: &Path, options: CopyOptions) -> CopyReport {
    let report = run(engine, &[from.into()], to, options).await.expect("it begins");
    assert!(report.is_whole(), "{report:?}");
    report
}

async fn names(engine: &Engine, path: &Path) -> Vec<String> {
    let directory = engine.open_directory(path).await.expect("there");
    let entries = inflight::stream::walk(&directory).await.expect("walked");
    let top = entries.iter().filter(|entry| entry.path.components().count() == 1);
    top.map(|entry| entry.path.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_tree_is_copied_with_all_that_belongs_to_it() {
    everywhere(|engine, place| {
        engine.block_on(async {
            let (from, to) = (place.join("from"), place.join("to"));
            make_tree(engine, &from).await;
            let before = look(engine, &from).await;
            let report = copied(engine, &from, &to, VERIFY).await;
            assert_same(&before, &look(engine, &to).await);
            assert_same(&before, &look(engine, &from).await);
            assert_eq!((report.symlinks, report.hard_links, report.nodes), (2, 2, 1), "{report:?}");
            let files = before.values().filter(|known| known.kind == FileKind::File).count() as u64;
            assert_eq!(report.files + report.hard_links, files);
            assert!(report.hole_bytes > 2 << 20, "{report:?}");
            assert!(report.compared_bytes > 5 << 20, "{report:?}");
            assert_eq!(names(engine, place).await, ["from", "to"], "nothing else is left");
        });
    });
}

/// Each operation costs two changes of threads.
#[test]
fn a_directory_of_small_files_takes_few_operations() {
    const DIRECTORIES: u64 = 100;
    let engine = simulated(&SimulatedDisk::new(4));
    engine.block_on(async {
        engine.create_directory("/from", 0o755).await.expect("made");
        // One in the other: after the first file it is known that none can be cloned.
        let mut directory = PathBuf::from("/from");
        for number in 0..DIRECTORIES {
            directory.push("d");
            engine.create_directory(&directory, 0o755).await.expect("made");
            for name in ["a", "b", "c"] {
                write(&engine, &directory.join(name), &noise(number, 300)).await;
            }
        }
        let before = engine.metrics().operations;
        let report = copied(&engine, Path::new("/from"), Path::new("/to"), PLAIN).await;
        assert_eq!(report.files, 3 * DIRECTORIES);
        let operations = engine.metrics().operations - before;
        assert!(operations < 12 * DIRECTORIES, "{operations} operations");
    });
}

#[test]
fn what_the_page_cache_has_is_copied_inside_the_kernel() {
    let operations = |is_cached: bool| {
        let disk = SimulatedDisk::new(5);
        disk.set_cached(is_cached);
        let engine = simulated(&disk);
        engine.block_on(async {
            let whole = noise(6, 7 << 20);
            write(&engine, Path::new("/from"), &whole).await;
            let before = engine.metrics().operations;
            copied(&engine, Path::new("/from"), Path::new("/to"), PLAIN).await;
            let operations = engine.metrics().operations - before;
            let there = engine.open("/to", OpenOptions::reading()).await.expect("opened");
            let room = engine.buffer(whole.len()).await;
            assert!(*there.read_full(room, whole.len(), 0).await.expect("read") == whole);
            operations
        })
    };
    // One operation in place of its reads and writes.
    let (cached, not) = (operations(true), operations(false));
    assert!(cached + 10 < not, "{cached} operations, and {not} where it is not cached");
}

#[test]
fn where_the_disk_can_files_share_their_contents() {
    let disk = SimulatedDisk::new(3);
    disk.set_can_clone(true);
    let engine = simulated(&disk);
    engine.block_on(async {
        make_tree(&engine, Path::new("/from")).await;
        let report = copied(&engine, Path::new("/from"), Path::new("/to"), PLAIN).await;
        assert!(report.cloned_bytes > 5 << 20, "{report:?}");
        let (mut from, mut to) =
            (look(&engine, Path::new("/from")).await, look(&engine, Path::new("/to")).await);
        // The simulated disk fills holes when it clones.
        for tree in [&mut from, &mut to] {
            tree.values_mut().for_each(|known| known.holes.clear());
        }
        assert_same(&from, &to);
    });
}

#[test]
fn fifos_and_large_holes_are_kept_where_they_are_real() {
    for engine in engines() {
        let place = tempfile::tempdir().expect("a temporary directory");
        engine.block_on(async {
            let (from, to) = (place.path().join("from"), place.path().join("to"));
            engine.create_directory(&from, 0o755).await.expect("made");
            let directory = engine.open_directory(&from).await.expect("there");
            directory.create_node("fifo", FileKind::Fifo, 0o620, 0).await.expect("made");
            let file = directory.open("hole", OpenOptions::creating(0o600)).await.expect("made");
            file.truncate(1 << 40).await.expect("grown");
            file.write_all(bytes(&engine, b"end"), (1 << 40) - 3).await.expect("written");
            let report = copied(&engine, &from, &to, PLAIN).await;
            assert_eq!((report.nodes, report.bytes), (1, 1 << 40));
            let there = engine.metadata(to.join("hole"), true).await.expect("there");
            assert!(there.size == 1 << 40 && there.allocated < 1 << 20, "{there:?}");
            let fifo = engine.metadata(to.join("fifo"), false).await.expect("there");
            assert_eq!((fifo.kind, fifo.mode), (FileKind::Fifo, 0o620 & fifo.mode));
        });
    }
}

#[test]
fn targets_are_found_as_people_expect() {
    everywhere(|engine, place| {
        engine.block_on(async {
            let path = |name: &str| place.join(name);
            make_tree(engine, &path("tree")).await;
            write(engine, &path("file"), b"content").await;
            engine.create_directory(path("into"), 0o755).await.expect("made");
            let into = path("into");
            let slashed = path("into/");
            let sources = [path("tree"), path("file")];
            let report = run(engine, &sources, &into, PLAIN).await.expect("it begins");
            assert!(report.is_whole(), "{report:?}");
            assert_eq!(names(engine, &into).await, ["file", "tree"]);
            let tree = look(engine, &path("tree")).await;
            assert_same(&tree, &look(engine, &path("into/tree")).await);
            copied(engine, &path("file"), &path("file-2"), PLAIN).await;
            copied(engine, &path("tree/link"), &path("link-2"), PLAIN).await;
            let link = engine.metadata(path("link-2"), false).await.expect("there");
            assert_eq!(link.kind, FileKind::Symlink, "a link stays one");
            // What is inside, into a directory that is there.
            engine.create_directory(path("contents"), 0o755).await.expect("made");
            copied(engine, &path("tree/."), &path("contents/"), RESUME).await;
            assert_same(&tree, &look(engine, &path("contents")).await);
            copied(engine, &path("file-2"), &slashed, PLAIN).await;
            assert_eq!(names(engine, &into).await, ["file", "file-2", "tree"]);
        });
    });
}

#[test]
fn what_cannot_be_meant_is_refused_and_costs_nothing() {
    everywhere(|engine, place| {
        engine.block_on(async {
            let path = |name: &str| place.join(name);
            make_tree(engine, &path("tree")).await;
            write(engine, &path("file"), b"content").await;
            copied(engine, &path("file"), &path("taken"), PLAIN).await;
            let before = look(engine, place).await;
            let refused = async |sources: &[&str], target: &str, options, why: &str| {
                let sources: Vec<PathBuf> = sources.iter().map(|source| path(source)).collect();
                let error = run(engine, &sources, &path(target), options).await.unwrap_err();
                assert!(error.to_string().contains(why), "{error}");
            };
            refused(&["missing"], "x", PLAIN, "check the path").await;
            refused(&["tree"], "tree", PLAIN, "are the same").await;
            refused(&["tree"], "tree/inner/", PLAIN, "lies inside").await;
            refused(&["tree"], "tree/inner/x", PLAIN, "lies inside").await;
            refused(&["file"], "file", RESUME, "are the same").await;
            refused(&["file"], "taken", PLAIN, "--resume").await;
            refused(&["tree"], "taken", RESUME, "something else").await;
            refused(&["file"], "tree", RESUME, "tree/ to copy into it").await;
            refused(&["tree"], "file/", PLAIN, "no directory").await;
            refused(&["file", "tree"], "x", PLAIN, "no directory").await;
            refused(&["file", "tree/../file"], "tree/empty/", PLAIN, "both become").await;
            refused(&["file"], "no/such/place", PLAIN, "check the path").await;
            assert_same(&before, &look(engine, place).await);
        });
    });
}

#[test]
fn an_update_copies_what_differs_and_nothing_else() {
    everywhere(|engine, place| {
        engine.block_on(async {
            let (from, to) = (place.join("from"), place.join("to"));
            make_tree(engine, &from).await;
            copied(engine, &from, &to, PLAIN).await;
            let again = copied(engine, &from, &to, RESUME).await;
            assert_eq!((again.files, again.symlinks, again.bytes), (0, 0, 0), "{again:?}");
            // Another content, another time; another mode only; a new one; one that became a link.
            let directory = engine.open_directory(&from).await.expect("there");
            let file = directory.open("large", OpenOptions::writing()).await.expect("opened");
            file.write_all(bytes(engine, b"changed"), 12_345).await.expect("written");
            directory.set_mode("medium", 0o711).await.expect("set");
            write(engine, &from.join("inner/new"), b"new").await;
            directory.remove("nothing", inflight::RemoveKind::File).await.expect("removed");
            directory.create_symlink("a", "nothing").await.expect("made");
            set_time(engine, &from, 700_000_000).await;
            // What only the copy has stays.
            write(engine, &to.join("own"), b"of the copy").await;
            let report = copied(engine, &from, &to, RESUME).await;
            assert_eq!((report.files, report.symlinks), (2, 1), "{report:?}");
            let mut there = look(engine, &to).await;
            assert!(there.remove(Path::new("own")).is_some());
            assert_same(&look(engine, &from).await, &there);
        });
    });
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    everywhere(|engine, place| {
        engine.block_on(async {
            let (from, to) = (place.join("from"), place.join("to"));
            make_tree(engine, &from).await;
            let would = copied(engine, &from, &to, DRY).await;
            assert_eq!(names(engine, place).await, ["from"]);
            let did = copied(engine, &from, &to, PLAIN).await;
            let counts = |report: &CopyReport| {
                let CopyReport { files, directories, symlinks, hard_links, nodes, bytes, .. } =
                    *report;
                (files, directories, symlinks, hard_links, nodes, bytes)
            };
            assert_eq!(counts(&would), counts(&did));
            let before = look(engine, place).await;
            write(engine, &from.join("new"), b"12345").await;
            let resume = CopyOptions { resume: true, ..DRY };
            let would = copied(engine, &from, &to, resume).await;
            assert_eq!((would.files, would.bytes, would.hard_links), (1, 5, 0), "{would:?}");
            assert_eq!(before.len() + 1, look(engine, place).await.len());
        });
    });
}

#[test]
fn what_goes_wrong_with_one_file_does_not_stop_the_others() {
    for engine in engines() {
        let place = tempfile::tempdir().expect("a temporary directory");
        engine.block_on(async {
            let (from, to) = (place.path().join("from"), place.path().join("to"));
            make_tree(&engine, &from).await;
            copied(&engine, &from, &to, PLAIN).await;
            // A directory is in the way of a file, and a file in that of a directory.
            let copy = engine.open_directory(&to).await.expect("there");
            copy.remove("a", inflight::RemoveKind::File).await.expect("removed");
            copy.create_directory("a", 0o755).await.expect("made");
            copy.remove("empty", inflight::RemoveKind::Directory).await.expect("removed");
            write(&engine, &to.join("empty"), b"in the way").await;
            write(&engine, &from.join("inner/new"), b"new").await;
            let report =
                run(&engine, std::slice::from_ref(&from), &to, RESUME).await.expect("it begins");
            assert_eq!((report.trouble_count, report.files), (2, 1), "{report:?}");
            let texts: Vec<&str> = report.troubles.iter().map(|t| t.text.as_str()).collect();
            assert!(texts.iter().any(|text| text.contains("to/a is a directory")), "{texts:?}");
            assert!(texts.iter().any(|text| text.contains("to/empty is a file")), "{texts:?}");
            assert!(!report.is_whole());
        });
    }
}

#[test]
fn verify_finds_what_differs() {
    let disk = SimulatedDisk::new(5);
    let engine = simulated(&disk);
    engine.block_on(async {
        let (from, to) = (Path::new("/from"), Path::new("/to"));
        make_tree(&engine, from).await;
        copied(&engine, from, to, PLAIN).await;
        // The same size and time, but not the same bytes: only a comparison sees that.
        let modified = engine.metadata("/to/large", true).await.expect("there").modified;
        let file = engine.open("/to/large", OpenOptions::writing()).await.expect("opened");
        file.write_all(bytes(&engine, b"flipped"), 4_000_000).await.expect("written");
        let times = inflight::SetTimes { accessed: None, modified: Some(modified) };
        file.set_times(times).await.expect("set");
        let without = copied(&engine, from, to, RESUME).await;
        assert_eq!(without.files, 0);
        let options = CopyOptions { verify: true, ..RESUME };
        let report = run(&engine, &[from.into()], to, options).await.expect("it begins");
        assert_eq!(report.trouble_count, 1, "{report:?}");
        assert!(report.troubles[0].text.contains("/to/large differs"), "{report:?}");
    });
}

#[test]
fn a_full_disk_stops_the_copy_and_keeps_what_is_done() {
    let disk = SimulatedDisk::new(6);
    let engine = simulated(&disk);
    engine.block_on(async {
        let (from, to) = (Path::new("/from"), Path::new("/to"));
        make_tree(&engine, from).await;
        disk.set_capacity(12 << 20);
        let report = run(&engine, &[from.into()], to, PLAIN).await.expect("it begins");
        assert!(matches!(report.stopped, Some(Stopped::TargetFull(_))), "{report:?}");
        assert_eq!(report.kept, [Path::new("/.to.inflight-copy")]);
        assert_eq!(names(&engine, Path::new("/")).await, [".to.inflight-copy", "from"]);
        let error = run(&engine, &[from.into()], to, PLAIN).await.unwrap_err();
        assert!(error.to_string().contains("--resume"), "{error}");
        disk.set_capacity(1 << 30);
        copied(&engine, from, to, RESUME).await;
        assert_same(&look(&engine, from).await, &look(&engine, to).await);
        assert_eq!(names(&engine, Path::new("/")).await, ["from", "to"]);
    });
}

#[test]
fn a_request_to_stop_is_heard_and_the_rest_can_follow() {
    everywhere(|engine, place| {
        let progress = std::sync::Arc::new(inflight::Progress::default());
        engine.block_on(async {
            let (from, to) = (place.join("from"), place.join("to"));
            make_tree(engine, &from).await;
            progress.cancel();
            let sources = [from.clone()];
            let report = inflight_tools::copy(engine, &progress, &sources, &to, PLAIN)
                .await
                .expect("begins");
            assert_eq!(report.stopped, Some(Stopped::OnRequest));
            assert_eq!(report.kept.len(), 1);
            copied(engine, &from, &to, RESUME).await;
            assert_same(&look(engine, &from).await, &look(engine, &to).await);
        });
    });
}

#[test]
fn two_copies_of_one_name_do_not_meet() {
    everywhere(|engine, place| {
        engine.block_on(async {
            let (from, to) = (place.join("from"), place.join("to"));
            make_tree(engine, &from).await;
            // As one does that is at work.
            let work = place.join(".to.inflight-copy");
            engine.create_directory(&work, 0o700).await.expect("made");
            let held = engine.open_directory(&work).await.expect("there");
            held.lock().await.expect("nobody has it");
            let report =
                run(engine, std::slice::from_ref(&from), &to, RESUME).await.expect("it begins");
            assert_eq!(report.trouble_count, 1, "{report:?}");
            assert!(report.troubles[0].text.contains("another copy is at work"), "{report:?}");
            held.unlock().await.expect("it was held");
            copied(engine, &from, &to, RESUME).await;
            assert_same(&look(engine, &from).await, &look(engine, &to).await);
        });
    });
}

#[test]
fn little_memory_is_enough() {
    for memory in [64 << 10, 1 << 20, 3 << 20] {
        for driver in [inflight::DriverChoice::Uring, inflight::DriverChoice::Threads] {
            let builder = Engine::builder().driver(driver).memory_bytes_max(memory);
            let Ok(engine) = builder.build() else { continue };
            let place = tempfile::tempdir().expect("a temporary directory");
            let (from, to) = (place.path().join("from"), place.path().join("to"));
            // What makes the tree may have more.
            let maker = support::engines().swap_remove(0);
            maker.block_on(make_tree(&maker, &from));
            engine.block_on(copied(&engine, &from, &to, VERIFY));
            maker.block_on(async {
                assert_same(&look(&maker, &from).await, &look(&maker, &to).await);
            });
        }
    }
}

#[test]
fn names_that_hardly_fit_are_copied() {
    everywhere(|engine, place| {
        engine.block_on(async {
            let long = "n".repeat(255);
            engine.create_directory(place.join("from"), 0o755).await.expect("made");
            write(engine, &place.join("from").join(&long), &noise(1, 100)).await;
            copied(engine, &place.join("from"), &place.join(&long), PLAIN).await;
            let a = look(engine, &place.join("from")).await;
            let b = look(engine, &place.join(&long)).await;
            assert_same(&a, &b);
        });
    });
}
