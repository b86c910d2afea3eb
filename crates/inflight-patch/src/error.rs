//! What can go wrong: what, where, and what to do.

use std::path::PathBuf;

use crate::damage::Damage;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job failed. Inputs are as they were; nothing half-done is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error(transparent)]
    Io(#[from] inflight::Error),

    /// The patch file is not what its checksums and bounds say.
    #[error("the patch {path} is damaged: {damage}; get the patch again")]
    Damaged {
        /// The patch.
        path: PathBuf,
        /// What is wrong and where.
        damage: Damage,
    },

    /// The file is no patch.
    #[error("{path} is not an Inflight patch: it does not start like one; check the path")]
    NotAPatch {
        /// The file.
        path: PathBuf,
    },

    /// The patch needs something that this version does not know.
    #[error("the patch {path} needs {what}, which this version does not know; update inflight")]
    Unsupported {
        /// The patch.
        path: PathBuf,
        /// What it needs, by name.
        what: String,
    },

    /// The old tree is not the one that the patch was made from.
    #[error(
        "{path} is not what the patch was made from: {how}; \
         apply the patch to the version it was made from"
    )]
    OldDiffers {
        /// The file that differs.
        path: PathBuf,
        /// How.
        how: String,
    },

    /// A built file does not have the contents it must have, though its sources seem right.
    #[error(
        "{path}{} came out wrong when it was built; check the disk and memory of this machine",
        or_others(*.others)
    )]
    BuiltWrong {
        /// The file, as named in the new tree.
        path: PathBuf,
        /// How many files behind it may be meant in its place: 0 where it is known which one.
        others: usize,
    },

    /// A file changed while it was read.
    #[error(
        "{path} changed while it was read ({how}); make sure nothing writes to it and try again"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// How it was noticed.
        how: &'static str,
    },

    /// The paths of a job do not go together.
    #[error("{0}")]
    Paths(String),

    /// The memory allowed is not enough.
    #[error(
        "this job needs at least {needed_mib} MiB of memory and may use {given_mib}; \
         allow it more (--memory {needed_mib}MiB)"
    )]
    Memory {
        /// The least that would do, in MiB.
        needed_mib: u64,
        /// What was given, in MiB.
        given_mib: u64,
    },

    /// The job was told to stop.
    #[error("stopped on request; nothing was left behind")]
    Cancelled,

    /// A part of a tree cannot be represented.
    #[error("{path} {what}")]
    Tree {
        /// Where.
        path: PathBuf,
        /// What is the matter, and what to do.
        what: String,
    },
}

/// Words for a file that may be meant, or one of those beside it.
pub(crate) fn or_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => ", or the file beside it,".into(),
        others => format!(", or one of the {others} files beside it,"),
    }
}
