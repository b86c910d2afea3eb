//! Whether the paths of a job go together, by what they are, not by how they are spelled.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use inflight::{FileKind, Handle, Metadata};

use crate::error::{Error, Result};
use crate::tree::{Tree, parent};

/// Refuses two trees that are the same, or one inside the other.
pub(crate) async fn check_apart(old: (&Tree, &Path), new: (&Tree, &Path)) -> Result<()> {
    if old.0.metadata().same_file(new.0.metadata()) {
        let (a, b) = (old.1.display(), new.1.display());
        return Err(Error::Paths(format!("{a} and {b} are the same; give two different trees")));
    }
    for (inner, outer) in [(old, new), (new, old)] {
        let ancestors = ancestors(inner.0).await?;
        if ancestors.iter().any(|ancestor| ancestor.same_file(outer.0.metadata())) {
            let (inner, outer) = (inner.1.display(), outer.1.display());
            let text = format!("{inner} lies inside {outer}; give trees that are apart");
            return Err(Error::Paths(text));
        }
    }
    Ok(())
}

/// Refuses an output that lies inside an input, or is one.
pub(crate) async fn check_output(
    handle: &Handle,
    output: &Path,
    tree: &Tree,
    path: &Path,
) -> Result<()> {
    if output.file_name().is_none() {
        let text = format!("{} names nothing that could be made", output.display());
        return Err(Error::Paths(text));
    }
    let place = Tree::open(handle, parent(output)).await?;
    let mut above = ancestors(&place).await?;
    above.push(*place.metadata());
    // An output that is there already must not be an input under another name.
    if let Ok(there) = handle.metadata(output, true).await {
        above.push(there);
    }
    match above.iter().any(|ancestor| ancestor.same_file(tree.metadata())) {
        true => {
            let (output, path) = (output.display(), path.display());
            let text = format!("{output} lies inside the input {path}; choose a place outside");
            Err(Error::Paths(text))
        }
        false => Ok(()),
    }
}

/// Refuses to replace anything but a file.
pub(crate) async fn check_replaceable(handle: &Handle, output: &Path) -> Result<()> {
    if output.as_os_str().as_bytes().ends_with(b"/") {
        let text = format!("{} is no name for a file; leave out the slash", output.display());
        return Err(Error::Paths(text));
    }
    match handle.metadata(output, false).await {
        Ok(there) if there.kind != FileKind::File => {
            let (output, kind) = (output.display(), there.kind.name());
            Err(Error::Paths(format!("{output} is a {kind}; choose another name")))
        }
        _ => Ok(()),
    }
}

/// The directories above a tree, up to the root of the file system.
async fn ancestors(tree: &Tree) -> Result<Vec<Metadata>> {
    let mut above = tree.directory().ancestors().await?;
    if tree.is_single() {
        above.push(tree.directory().metadata("", true).await?);
    }
    Ok(above)
}

/// A name beside `path` that nothing else has: for what is not finished yet.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let number = RandomState::new().build_hasher().finish();
    let mut name = OsString::from(".");
    // Long names leave no room for more: the start is enough to recognise it by.
    let start = path.file_name().unwrap_or_default().to_string_lossy();
    name.push(start.chars().take(40).collect::<String>());
    name.push(format!(".inflight-{number:016x}"));
    parent(path).join(name)
}
