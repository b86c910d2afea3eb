//! Walks of whole trees, on every disk.

mod support;

use std::path::Path;

use inflight::stream::{walk, walk_names};

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
