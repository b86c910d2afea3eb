//! What can go wrong with a job as a whole: what, where, and what to do.

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job did not begin, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error(transparent)]
    Io(#[from] inflight::Error),

    /// The paths of a job do not go together.
    #[error("{0}")]
    Paths(String),

    /// The job was told to stop.
    #[error("stopped on request")]
    Cancelled,
}

/// Something that went wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What, where, and what to do.
    pub text: String,
}
