//! What is kept of a file beside its contents: owner, permissions, extended attributes, times.
//!
//! Owners can be given away by the superuser alone, and some attributes by nobody: what the system
//! refuses to keep is left out from then on, and said once. Set-user bits are never kept without their
//! owner. The times come last, as everything else changes them, and they say that a file is whole.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use inflight::{Directory, DriverChoice, File, Handle, Kept, Metadata, Owner, SetMetadata};

use crate::error::Result;

/// What can be kept.
pub(crate) struct Keep {
    /// Whom new files belong to.
    own: Owner,
    owners: AtomicBool,
    owners_lost: AtomicU64,
    attributes_lost: AtomicU64,
}

/// A thing and its copy: both are open, or names in directories, of which the empty ones are the
/// directories themselves.
pub(super) enum Both<'a> {
    Files(&'a File, &'a File),
    Names((&'a Directory, &'a Path), (&'a Directory, &'a Path)),
}

impl Both<'_> {
    async fn keep(&self, metadata: SetMetadata) -> inflight::Result<u64> {
        match self {
            Both::Files(source, copy) => copy.copy_metadata(source, metadata).await,
            Both::Names(source, (directory, name)) => {
                directory.copy_metadata(name, *source, metadata).await
            }
        }
    }
}

/// Whether the system refuses, for good.
fn is_refusal(error: &inflight::Error) -> bool {
    use ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported)
}

impl Keep {
    pub(super) fn of_process(handle: &Handle) -> Keep {
        let own = match handle.driver() {
            DriverChoice::Simulated => Owner::default(),
            _ => Owner {
                user: rustix::process::geteuid().as_raw(),
                group: rustix::process::getegid().as_raw(),
            },
        };
        Keep {
            own,
            owners: AtomicBool::new(true),
            owners_lost: AtomicU64::new(0),
            attributes_lost: AtomicU64::new(0),
        }
    }

    /// What a copy gets.
    pub(super) fn metadata_of(&self, source: &Metadata) -> SetMetadata {
        self.kept().of(source)
    }

    /// What copies get.
    pub(super) fn kept(&self) -> Kept {
        Kept { owners: self.owners.load(Relaxed), own: self.own }
    }

    /// Gives a copy all that is kept. Where that is refused because of the owner, no owner is kept from
    /// then on.
    pub(super) async fn set(&self, both: Both<'_>, source: &Metadata) -> Result<()> {
        let metadata = self.metadata_of(source);
        let lost = match both.keep(metadata).await {
            Err(error) if metadata.owner.is_some() && is_refusal(&error) => {
                let kept = Kept { owners: false, ..self.kept() };
                let lost = both.keep(kept.of(source)).await?;
                self.owners.store(false, Relaxed);
                lost
            }
            other => other?,
        };
        self.lose_attributes(lost as u32);
        self.note_owner(source);
        Ok(())
    }

    /// A file is there; its owner may not be kept.
    pub(super) fn note_owner(&self, source: &Metadata) {
        if source.owner != self.own && !self.owners.load(Relaxed) {
            self.owners_lost.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn lose_attributes(&self, count: u32) {
        self.attributes_lost.fetch_add(count.into(), Relaxed);
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let owners = self.owners_lost.load(Relaxed);
        let attributes = self.attributes_lost.load(Relaxed);
        let mut warnings = Vec::new();
        if owners > 0 {
            warnings.push(format!(
                "owners were not kept: {owners} files and directories of others belong to you now; \
                 run as the superuser to keep them"
            ));
        }
        if attributes > 0 {
            warnings.push(format!(
                "{attributes} extended attributes were not kept: the target or your rights do not \
                 allow them"
            ));
        }
        warnings
    }
}
