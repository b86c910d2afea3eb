//! What comes after the contents: links, and what was preserved on top.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use inflight::SetTimes;

use super::inputs::Inputs;
use super::staging::Staging;
use crate::error::Result;
use crate::job::Job;
use crate::manifest::{Entry, EntryKind, Manifest, Preserve, Preserved};
use crate::pump::pump;

/// Names worked on at once.
const NAMES_AT_ONCE: usize = 64;

/// Makes links, and sets what was preserved of everything but directories, which come last.
pub(super) async fn finish(job: &Job, inputs: &Inputs, staging: &Staging) -> Result<()> {
    let wanted = |entry: &Entry| match entry.kind {
        EntryKind::Directory => false,
        EntryKind::File { .. } => entry.preserved.is_some(),
        EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => true,
    };
    let entries = &inputs.new.entries;
    let indices = (0..entries.len()).filter(|at| wanted(&entries[*at]));
    let start = async |index: usize| {
        job.check()?;
        let (manifest, staging) = (inputs.new.clone(), staging.clone());
        Ok(job.handle.spawn(async move { finish_entry(&staging, &manifest, index).await }))
    };
    pump(indices, NAMES_AT_ONCE, start, async |()| Ok(())).await
}

async fn finish_entry(staging: &Staging, manifest: &Manifest, index: usize) -> Result<()> {
    let entry = &manifest.entries[index];
    let (directory, place) = (staging.directory(), staging.locate(&entry.path));
    match &entry.kind {
        EntryKind::Symlink { target } => {
            let target = Path::new(OsStr::from_bytes(target));
            directory.create_symlink(target, place).await?;
        }
        EntryKind::HardLink { original } => {
            let original = &manifest.entries[*original as usize].path;
            directory.create_hard_link(staging.locate(original), place).await?;
        }
        EntryKind::Directory | EntryKind::File { .. } => {}
    }
    match &entry.preserved {
        Some(preserved) => restore(staging, entry, manifest.preserve, preserved).await,
        None => Ok(()),
    }
}

/// Gives directories their permissions and what was preserved of them, innermost first. Everything
/// in them is done.
pub(super) async fn set_directories(inputs: &Inputs, staging: &Staging) -> Result<()> {
    let manifest = &inputs.new;
    for entry in manifest.entries.iter().rev() {
        match (&entry.kind, &entry.preserved) {
            (EntryKind::Directory, Some(preserved)) => {
                restore(staging, entry, manifest.preserve, preserved).await?;
            }
            (EntryKind::Directory, None) => {
                let place = staging.locate(&entry.path);
                staging.directory().set_mode(place, entry.mode).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets what was preserved: the owner first, as changing it takes set-user bits away; the times
/// last, as everything else changes them.
async fn restore(
    staging: &Staging,
    entry: &Entry,
    preserve: Preserve,
    preserved: &Preserved,
) -> Result<()> {
    let (directory, place) = (staging.directory(), staging.locate(&entry.path));
    if preserve.has(Preserve::OWNER) {
        directory.set_owner(place, preserved.owner).await?;
    }
    let link = matches!(entry.kind, EntryKind::Symlink { .. });
    if !link && !preserved.attributes.is_empty() {
        // Whoever owns a file may set attributes only while it can be written.
        directory.set_mode(place, entry.mode | 0o200).await?;
    }
    for (name, value) in &preserved.attributes {
        directory.set_attribute(place, name.as_bytes(), value.clone()).await?;
    }
    if !link {
        directory.set_mode(place, entry.mode).await?;
    }
    if preserve.has(Preserve::TIMES) {
        let times = SetTimes { accessed: None, modified: Some(preserved.modified) };
        directory.set_times(place, times).await?;
    }
    Ok(())
}
