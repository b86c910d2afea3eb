//! Every example runs, and does what it says.
#![allow(clippy::disallowed_methods, reason = "looks at the examples from outside the engine")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn example(name: &str) -> Command {
    // Beside the directory that this test is in.
    let test = std::env::current_exe().expect("a path");
    let target = test.parent().and_then(Path::parent).expect("it is in deps");
    let path: PathBuf = target.join("examples").join(name);
    assert!(path.exists(), "{} is missing: build the examples first", path.display());
    Command::new(path)
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A server that told where it is; ended when dropped.
struct Server(Child, String);

impl Server {
    fn start(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it is");
        let address = line.trim().rsplit([' ', '/']).next().unwrap_or_default().to_string();
        Server(child, address)
    }

    fn ask(&self, question: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.1).expect("it listens");
        stream.write_all(question).expect("sent");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("received");
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn read_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    std::fs::write(&path, "two\nlines\n").expect("written");
    assert_eq!(output(example("read_file").arg(&path)), "10 bytes, 2 lines\n");
}

#[test]
fn copy_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let bytes: Vec<u8> =
        (0..5_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    std::fs::write(&from, &bytes).expect("written");
    assert_eq!(output(example("copy_file").arg(&from).arg(&to)), "5000001 bytes copied\n");
    assert!(std::fs::read(&to).expect("there") == bytes);
    let again = example("copy_file").arg(&from).arg(&to).output().expect("it runs");
    assert!(!again.status.success(), "it does not write over something");
}

#[test]
fn tcp_echo() {
    let server = Server::start(&mut example("tcp_echo"));
    assert_eq!(server.ask(b"hello"), b"hello");
    let long = vec![7; 300_000];
    assert!(server.ask(&long) == long);
}

#[test]
fn static_files() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("root");
    std::fs::create_dir(&root).expect("made");
    let large = vec![b'x'; 3_000_000];
    std::fs::write(root.join("large"), &large).expect("written");
    std::fs::write(root.join("small"), "small").expect("written");
    std::fs::write(directory.path().join("secret"), "secret").expect("written");
    let server = Server::start(example("static_files").arg(&root));
    let answer = server.ask(b"GET /small HTTP/1.1\r\n\r\nGET /large HTTP/1.1\r\n\r\n");
    let expected = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec(),
        large,
    ];
    assert!(answer == expected.concat());
    let refused = server.ask(b"GET /../secret HTTP/1.1\r\n\r\n");
    assert_eq!(refused, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn from_tokio() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    std::fs::write(&path, [1, 2, 3]).expect("written");
    let expected = format!("{}: 3 bytes, sum 6\n", path.display());
    assert_eq!(output(example("from_tokio").arg(&path)), expected);
}

#[test]
fn plain_code() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, missing) = (directory.path().join("file"), directory.path().join("missing"));
    std::fs::write(&path, [1, 2, 3]).expect("written");
    let text = output(example("plain_code").arg(&path).arg(&missing));
    assert!(text.starts_with(&format!("{}: 3 bytes\ncannot look at ", path.display())), "{text}");
}

#[test]
fn background() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    std::fs::write(&path, vec![1; 1 << 20]).expect("written");
    let text = output(example("background").arg(&path));
    assert!(text.starts_with("the slowest of 1000 short reads took "), "{text}");
}

#[test]
fn simulated_disk() {
    let text = output(&mut example("simulated_disk"));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("without a sync: broken with seed "), "{text}");
    assert_eq!(lines[1], "with a sync: no fault found");
}
