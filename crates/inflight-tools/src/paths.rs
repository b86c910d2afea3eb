//! Paths as people give them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The directory that holds a path's last name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// Whether the path asks for what a link at its end points to, as `link/` does.
pub(crate) fn is_looked_through(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || means_contents(path) || bytes == b"."
}

/// Whether the path asks for what is inside a directory, as `directory/.` does.
pub(crate) fn means_contents(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/.")
}

/// Whether the path can be nothing but a directory's.
pub(crate) fn names_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/")
        || [&b"."[..], b".."].contains(&bytes.rsplit(|b| *b == b'/').next().unwrap_or(b""))
}

/// `.NAME.inflight-copy`, of a name that may be too long for that.
pub(crate) fn work_name(name: &Path) -> OsString {
    /// Bytes of the longest name.
    const NAME_BYTES_MAX: usize = 255;
    const END: &str = ".inflight-copy";
    let mut work = OsString::from(".");
    let name = name.as_os_str().as_bytes();
    let room = NAME_BYTES_MAX - 1 - END.len();
    if name.len() <= room {
        work.push(std::ffi::OsStr::from_bytes(name));
    } else {
        // What is cut off still tells names apart.
        let digest = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
            (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let end = format!("~{digest:016x}");
        work.push(std::ffi::OsStr::from_bytes(&name[..room - end.len()]));
        work.push(end);
    }
    work.push(END);
    work
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_names_fit_and_differ() {
        assert_eq!(work_name("a".as_ref()), ".a.inflight-copy");
        let long = |last: &str| format!("{}{last}", "x".repeat(254));
        let (a, b) = (work_name(long("a").as_ref()), work_name(long("b").as_ref()));
        assert!(a != b && a.len() == 255 && b.len() == 255);
    }

    #[test]
    fn ends_of_paths_have_a_meaning() {
        assert!(is_looked_through("link/".as_ref()) && !is_looked_through("link".as_ref()));
        let directories = ["a/", "/", ".", "..", "a/.."];
        assert!(directories.iter().all(|path| names_directory(path.as_ref())));
        assert!(!names_directory("a/b".as_ref()) && !names_directory("a..".as_ref()));
        assert!(means_contents("a/.".as_ref()) && !means_contents("a/b.".as_ref()));
        assert_eq!(parent("a".as_ref()), Path::new("."));
        assert_eq!(parent("/".as_ref()), Path::new("/"));
    }
}
