//! Walks of whole trees, on every disk.

mod support;

use std::io::ErrorKind;
use std::path::Path;

use inflight::stream::{walk, walk_names};
use inflight::{Engine, Faults, RemoveKind, SimulatedDisk};

use support::on_each_disk;

#[test]
fn walking_lists_a_tree_in_order() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            for path in ["b", "a", "a.d", "a/b", "a/z"] {
                root.create_directory(path, 0o755).await.unwrap();
            }
            root.create_symlink("..", "a/z/up").await.unwrap();
            let found: Vec<_> = walk(&root).await.unwrap().into_iter().map(|e| e.path).collect();
            let expected = ["a", "a/b", "a/z", "a/z/up", "a.d", "b"];
            assert_eq!(found, expected.map(Path::new));
        });
    });
}

#[test]
fn a_walk_of_names_finds_the_same() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            // Names that come between a directory's and what is in it, as bytes.
            for number in 0..40u8 {
                let name = format!("d{number}");
                root.create_directory(&name, 0o755).await.unwrap();
                for inside in ["", ".x", "-x"].iter().take(usize::from(number % 4)) {
                    let path = format!("{name}/{number}{inside}");
                    root.create_directory(&path, 0o755).await.unwrap();
                    root.create_symlink("..", format!("{path}/up")).await.unwrap();
                }
                root.create_symlink("x", format!("{name}.link")).await.unwrap();
            }
            let all = walk(&root).await.unwrap();
            let names = walk_names(&root).await.unwrap();
            assert!(
                all.iter()
                    .map(|e| (&e.path, e.metadata.kind))
                    .eq(names.iter().map(|e| (&e.path, e.kind)))
            );
            assert!(names.is_sorted_by(|a, b| a.path < b.path) && names.len() == 200);
        });
    });
}

#[test]
fn directories_are_listed_together() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            for path in ["empty", "few", "few/b", "few/a", "many"] {
                root.create_directory(path, 0o755).await.unwrap();
            }
            // More than one listing brings.
            for number in 0..2000 {
                let path = format!("many/{number:04}-a-name-of-some-length");
                root.create_symlink("nowhere", path).await.unwrap();
            }
            root.create_symlink("few", "link").await.unwrap();
            let paths = ["few", "gone", "many", "few/gone/too", "empty"];
            for metadata in [false, true] {
                let listed = root.list(&paths, metadata).await.unwrap();
                let mut found = Vec::new();
                for listed in listed {
                    let Some(listed) = listed else {
                        found.push(None);
                        continue;
                    };
                    let (mut batch, mut names) = (listed.batch, Vec::new());
                    loop {
                        for entry in batch.iter() {
                            assert_eq!(entry.metadata.is_some(), metadata);
                            names.push(entry.name.to_str().unwrap().to_owned());
                        }
                        let Some(rest) = listed.rest.as_ref().filter(|_| !batch.is_last()) else {
                            break;
                        };
                        batch = rest.read(batch, metadata).await.unwrap();
                        if batch.is_empty() {
                            break;
                        }
                    }
                    names.sort();
                    found.push(Some(names));
                }
                assert_eq!(found[0].as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
                assert_eq!((&found[1], &found[3]), (&None, &None));
                let many = found[2].as_ref().unwrap();
                assert!(many.len() == 2000 && many.is_sorted_by(|a, b| a < b));
                assert_eq!(found[4].as_deref(), Some(&[][..]));
            }
        });
    });
}

#[test]
fn what_cannot_be_listed_is_named() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let root = engine.open_directory(directory).await.unwrap();
            root.create_directory("there", 0o755).await.unwrap();
            root.create_symlink("there", "link").await.unwrap();
            let error = root.list(&["there", "link", "there"], false).await.unwrap_err();
            assert_eq!(error.path(), Some(&*directory.join("link")), "{error}");
            let error = root.list(&["there", "../up"], false).await.unwrap_err();
            assert!(error.path().is_some_and(|path| path.ends_with("../up")), "{error}");
            let error = root.list(&["there", "a\0b"], false).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(root.list(&[""; 0], true).await.unwrap().is_empty());
        });
    });
}

#[test]
fn a_root_that_is_gone_is_no_empty_tree() {
    on_each_disk(|engine, directory| {
        engine.block_on(async {
            let above = engine.open_directory(directory).await.unwrap();
            above.create_directory("gone", 0o755).await.unwrap();
            let root = engine.open_directory(directory.join("gone")).await.unwrap();
            above.remove("gone", RemoveKind::Directory).await.unwrap();
            let error = walk(&root).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert_eq!(error.path(), Some(root.path()));
            assert!(root.list(&["."], true).await.unwrap()[0].is_none());
            let missing = above.list(&["gone"], false).await.unwrap();
            assert!(missing[0].is_none());
        });
    });
}

#[test]
fn a_fault_at_any_operation_is_an_error_or_the_whole_tree() {
    let prepared = SimulatedDisk::new(0);
    let make = async |engine: &Engine| {
        let root = engine.open_directory("/").await.unwrap();
        for number in 0..12 {
            root.create_directory(format!("{number}"), 0o755).await.unwrap();
            for inside in 0..number {
                root.create_directory(format!("{number}/{inside}"), 0o755).await.unwrap();
            }
        }
    };
    let engine = Engine::builder().simulated(&prepared);
    engine.block_on(make(&engine));
    drop(engine);
    let walk_on = |disk: &SimulatedDisk| {
        let engine = Engine::builder().simulated(disk);
        engine.block_on(async { walk_names(&engine.open_directory("/").await?).await })
    };
    let disk = prepared.fork(1);
    let whole = walk_on(&disk).expect("no fault");
    assert_eq!(whole.len(), 12 + 66);
    let mut failed = 0;
    for at in 1..=disk.operations() {
        let disk = prepared.fork(1);
        disk.set_faults(Faults { failed_at: at, ..Faults::default() });
        match walk_on(&disk) {
            Ok(found) => assert_eq!(found, whole, "after a fault at operation {at}"),
            Err(_) => failed += 1,
        }
    }
    assert!(failed > 12, "{failed} failed");
}
