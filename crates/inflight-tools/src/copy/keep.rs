//! What is kept of a file beside its contents: owner, permissions, extended attributes, times.
//!
//! Owners can be given away by the superuser alone, and some attributes by nobody: what the system
//! refuses to keep is left out from then on, and said once. Set-user bits are never kept without their
//! owner.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use inflight::{Directory, DriverChoice, File, FileKind, Handle, Metadata, Owner, SetTimes};

use crate::error::Result;

/// Set-user and set-group.
const SET_ID: u32 = 0o6000;

/// Name and value of each extended attribute.
pub(super) type Attributes = Vec<(CString, Vec<u8>)>;

/// What can be kept.
pub(crate) struct Keep {
    /// Whom new files belong to.
    own: Owner,
    owners: AtomicBool,
    owners_lost: AtomicU64,
    attributes_lost: AtomicU64,
}

/// What something is set on.
pub(super) enum On<'a> {
    File(&'a File),
    /// A name in a directory, or with the empty name the directory itself.
    Name(&'a Directory, &'a std::path::Path),
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

    /// Whom what is made in a directory belongs to: a set-group directory passes its group on.
    pub(super) fn holder_in(&self, directory: &Metadata) -> Owner {
        const SET_GROUP: u32 = 0o2000;
        match directory.mode & SET_GROUP {
            0 => self.own,
            _ => Owner { group: directory.owner.group, ..self.own },
        }
    }

    /// To whom a file is given that belongs to `made` when it is made; nobody, if that is right.
    pub(super) fn owner_of(&self, source: &Metadata, made: Owner) -> Option<Owner> {
        (source.owner != made && self.owners.load(Relaxed)).then_some(source.owner)
    }

    /// The permission bits that go with the owner that is kept.
    pub(super) fn mode_of(&self, source: &Metadata) -> u32 {
        match source.owner == self.own || self.owners.load(Relaxed) {
            true => source.mode,
            false => source.mode & !SET_ID,
        }
    }

    pub(super) fn times_of(source: &Metadata) -> SetTimes {
        SetTimes { accessed: Some(source.accessed), modified: Some(source.modified) }
    }

    /// Whether the error says that an owner cannot be kept; from then on none is.
    pub(super) fn gives_up_owners(&self, error: &inflight::Error) -> bool {
        let refused = error.operation() == "set the owner of"
            && matches!(
                error.kind(),
                std::io::ErrorKind::PermissionDenied
                    | std::io::ErrorKind::InvalidInput
                    | std::io::ErrorKind::Unsupported
            );
        if refused {
            self.owners.store(false, Relaxed);
        }
        refused
    }

    /// A file whose owner is not kept.
    pub(super) fn note_owner(&self, source: &Metadata) {
        if source.owner != self.own && !self.owners.load(Relaxed) {
            self.owners_lost.fetch_add(1, Relaxed);
        }
    }

    /// Sets all that is kept: the owner first, as changing it takes set-user bits away; the times
    /// last, as everything else changes them, and they say that the file is whole.
    pub(super) async fn set(
        &self,
        on: On<'_>,
        source: &Metadata,
        made: Owner,
        attributes: Attributes,
    ) -> Result<()> {
        if let Some(owner) = self.owner_of(source, made) {
            let set = match &on {
                On::File(file) => file.set_owner(owner).await,
                On::Name(directory, name) => directory.set_owner(name, owner).await,
            };
            match set {
                Err(error) if self.gives_up_owners(&error) => {}
                other => other?,
            }
        }
        self.note_owner(source);
        for (name, value) in attributes {
            let set = match &on {
                On::File(file) => file.set_attribute(&name, value).await,
                On::Name(directory, path) => {
                    directory.set_attribute(path, name.as_bytes(), value).await
                }
            };
            if let Err(error) = set {
                self.lose_attribute(error)?;
            }
        }
        if source.kind != FileKind::Symlink {
            let mode = self.mode_of(source);
            match &on {
                On::File(file) => file.set_mode(mode).await?,
                On::Name(directory, name) => directory.set_mode(name, mode).await?,
            }
        }
        let times = Keep::times_of(source);
        match &on {
            On::File(file) => file.set_times(times).await?,
            On::Name(directory, name) => directory.set_times(name, times).await?,
        }
        Ok(())
    }

    /// An attribute that the target cannot have is counted; any other error is one.
    pub(super) fn lose_attribute(&self, error: inflight::Error) -> Result<()> {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::Unsupported
            | std::io::ErrorKind::InvalidInput => {
                self.attributes_lost.fetch_add(1, Relaxed);
                Ok(())
            }
            _ => Err(error.into()),
        }
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
