//! The table of mounts: `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mount {
    /// Of the block device; major 0 where there is none.
    pub(super) device: (u32, u32),
    pub(super) place: PathBuf,
    pub(super) file_system: String,
    pub(super) source: String,
    /// Of the file system itself.
    pub(super) options: String,
}

/// The mount that a path without detours is on: the deepest, and of those at one place the last.
pub(super) fn find(table: &[u8], path: &Path) -> Option<Mount> {
    let mounts = table.split(|byte| *byte == b'\n').filter_map(parse);
    mounts
        .filter(|mount| path.starts_with(&mount.place))
        .max_by_key(|mount| mount.place.components().count())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let (major, minor) =
        text(fields.get(2)?).split_once(':').map(|(a, b)| (a.parse(), b.parse()))?;
    let rest = fields.iter().position(|field| field == b"-")?;
    Some(Mount {
        device: (major.ok()?, minor.ok()?),
        place: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        file_system: text(fields.get(rest + 1)?),
        source: text(&unescape(fields.get(rest + 2)?)),
        options: text(&unescape(fields.get(rest + 3)?)),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Spaces and the like stand there as `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let code =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = &behind[3..];
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw - proc proc rw
30 21 0:44 / /mnt/with\\040space rw,nosuid shared:9 master:2 - nfs4 host:/export rw,vers=4.2
31 21 8:17 /sub /mnt rw - xfs /dev/sdb1 rw
32 21 8:33 / /mnt rw - xfs /dev/sdc1 rw
nonsense
33 x 8:z / /bad rw - a b c
34 21 8:1 / /short rw
";

    #[test]
    fn a_path_is_on_the_deepest_and_last_mount() {
        let source = |path: &str| find(TABLE, Path::new(path)).map(|mount| mount.source);
        assert_eq!(source("/home/x").as_deref(), Some("/dev/sda1"));
        assert_eq!(source("/mnt").as_deref(), Some("/dev/sdc1"));
        assert_eq!(source("/mntx").as_deref(), Some("/dev/sda1"));
        assert_eq!(source("/mnt/with space/file").as_deref(), Some("host:/export"));
        assert_eq!(source("/bad/x").as_deref(), Some("/dev/sda1"), "a line that says nothing");
        assert_eq!(find(b"", Path::new("/")), None);
        let mount = find(TABLE, Path::new("/mnt/with space")).expect("there");
        assert_eq!((mount.device, &*mount.file_system), ((0, 44), "nfs4"));
        assert_eq!(mount.options, "rw,vers=4.2");
    }

    #[test]
    fn what_is_escaped_is_what_it_was() {
        assert_eq!(unescape(b"a\\040b\\134\\9\\04"), b"a b\\\\9\\04");
    }
}
