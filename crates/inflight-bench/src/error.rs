//! What can go wrong: what, where, and what to do.

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why nothing was measured, or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error(transparent)]
    Io(#[from] inflight::Error),

    /// It cannot be measured there.
    #[error("{0}")]
    Place(String),

    /// What should be a report is none.
    #[error("{path} is no report of inflight bench: {why}; make one by inflight bench --json")]
    Report {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },

    /// It was told to stop.
    #[error("stopped on request")]
    Cancelled,
}
