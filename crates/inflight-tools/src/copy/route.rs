//! What goes where, and whether it may.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use inflight::{FileKind, Handle, Metadata};

use super::CopyOptions;
use crate::error::{Error, Result};
use crate::paths::{is_looked_through, means_contents, names_directory, parent, work_name};

/// The tree that grows in a work directory.
pub(super) const TREE: &str = "tree";

/// One source and its target.
pub(super) struct Route {
    pub(super) source: PathBuf,
    pub(super) metadata: Metadata,
    pub(super) target: PathBuf,
    /// What is there, links looked through.
    pub(super) existing: Option<Metadata>,
    /// The directory that the target is in.
    above: Metadata,
}

impl Route {
    /// The devices that are read and written.
    pub(super) fn devices(&self) -> (u64, u64) {
        (self.metadata.device, self.above.device)
    }

    pub(super) fn is_tree(&self) -> bool {
        self.metadata.kind == FileKind::Directory
    }

    /// Where it grows, if nothing of the target's name is there.
    pub(super) fn work_path(&self) -> PathBuf {
        let name = self.target.file_name().map_or_else(|| Path::new("tree"), Path::new);
        parent(&self.target).join(work_name(name))
    }
}

/// What cannot be meant.
pub(super) fn refuse<T>(text: String) -> Result<T> {
    Err(Error::Paths(text))
}

/// What there is, or nothing.
pub(super) async fn look(handle: &Handle, path: &Path, follow: bool) -> Result<Option<Metadata>> {
    match handle.metadata(path, follow).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds the target of each source, and refuses what cannot be meant.
pub(super) async fn find(
    handle: &Handle,
    sources: &[PathBuf],
    target: &Path,
    options: CopyOptions,
) -> Result<Vec<Route>> {
    let there = look(handle, target, true).await?;
    let is_directory = there.is_some_and(|there| there.kind == FileKind::Directory);
    // By how it is spelled, not by what is there: so the same words mean the same the next time.
    let into = names_directory(target) || sources.len() > 1;
    if into && !is_directory {
        let target = target.display();
        return refuse(format!("{target} is no directory to copy into; make it first"));
    }
    let mut routes: Vec<Route> = Vec::new();
    for source in sources {
        let metadata = handle.metadata(source, is_looked_through(source)).await?;
        let target = match (into && !means_contents(source), source.file_name()) {
            (true, Some(name)) => target.join(name),
            (true, None) => {
                let source = source.display();
                return refuse(format!(
                    "{source} has no name to be copied under; say {source}/. to copy what is in it"
                ));
            }
            (false, _) => target.to_path_buf(),
        };
        let route = check(handle, source, metadata, target, options).await?;
        if let Some(other) = routes.iter().find(|other| other.target == route.target) {
            let (a, b, target) = (other.source.display(), source.display(), route.target.display());
            return refuse(format!("{a} and {b} would both become {target}"));
        }
        routes.push(route);
    }
    Ok(routes)
}

async fn check(
    handle: &Handle,
    source: &Path,
    metadata: Metadata,
    target: PathBuf,
    options: CopyOptions,
) -> Result<Route> {
    let existing = look(handle, &target, true).await?;
    let above = handle.open_directory(parent(&target)).await?;
    let above_metadata = above.metadata("", true).await?;
    let mut around = above.ancestors().await?;
    around.push(above_metadata);
    around.extend(existing);
    let from = source.display();
    let shown = target.display();
    if let Some(there) = existing
        && there.same_file(&metadata)
    {
        return refuse(format!("{from} and {shown} are the same; name another target"));
    }
    if metadata.kind == FileKind::Directory && around.iter().any(|a| a.same_file(&metadata)) {
        return refuse(format!("{shown} lies inside {from}; choose a target outside"));
    }
    let above = above_metadata;
    let route = Route { source: source.into(), metadata, target, existing, above };
    // A link that leads nowhere is in the way, too.
    let taken = look(handle, &route.target, false).await?.is_some();
    let shown = route.target.display();
    let there_is_directory = existing.is_some_and(|there| there.kind == FileKind::Directory);
    if there_is_directory && !(route.is_tree() && options.resume) {
        return refuse(format!(
            "{shown} is a directory; say {shown}/ to copy into it{}",
            if route.is_tree() { ", or --resume to bring it up to date" } else { "" }
        ));
    }
    if taken && !options.resume {
        return refuse(format!(
            "{shown} exists already; --resume copies into it what is missing or differs, or choose \
             another target"
        ));
    }
    let in_the_way = match existing {
        Some(there) => (there.kind == FileKind::Directory) != route.is_tree(),
        None => taken && route.is_tree(),
    };
    if in_the_way {
        let kind = route.metadata.kind.name();
        return refuse(format!(
            "{shown} is there and is something else than a {kind}; remove it or choose another target"
        ));
    }
    let work = route.work_path();
    if existing.is_some() && look(handle, &work.join(TREE), false).await?.is_some() {
        let work = work.display();
        return refuse(format!(
            "{shown} is there, and so is {work}, which an unfinished copy of that name left; remove one"
        ));
    }
    if !options.resume && !options.dry_run && look(handle, &work, false).await?.is_some() {
        let work = work.display();
        return refuse(format!(
            "{work} is what an unfinished copy left; go on with it by --resume, or remove it"
        ));
    }
    Ok(route)
}
