//! Turns patches into seeds: `seeds PATCH… DIRECTORY` writes one file for each patch.

fn main() {
    let mut paths: Vec<std::path::PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let directory = paths.pop().expect("usage: seeds PATCH... DIRECTORY");
    for (number, path) in paths.iter().enumerate() {
        let patch = std::fs::read(path).expect("a readable patch");
        let seed = inflight_fuzz::explode(&patch).expect("a whole patch");
        std::fs::write(directory.join(format!("seed-{number}")), seed).expect("a place to write");
    }
}
