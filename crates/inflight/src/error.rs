//! The one error of the engine: which operation failed, on what, where, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::operation::Operation;

/// The result of the engine's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. One pointer wide; built only on failure.
pub struct Error(Box<Inner>);

struct Inner {
    operation: &'static str,
    path: Option<PathBuf>,
    offset: Option<u64>,
    source: io::Error,
}

impl Error {
    pub(crate) fn of(operation: &Operation, source: io::Error) -> Error {
        Error(Box::new(Inner {
            operation: operation.name(),
            path: operation.path(),
            offset: operation.offset(),
            source,
        }))
    }

    /// An error about `path` that no single operation stands for. `operation` completes the sentence
    /// "cannot … PATH"; `source` is a [`std::io::Error`].
    #[must_use]
    pub fn new(operation: &'static str, path: Option<PathBuf>, source: io::Error) -> Error {
        Error(Box::new(Inner { operation, path, offset: None, source }))
    }

    /// What was tried, as a verb.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// What it was tried on.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The system's error behind it, or what stands for one.
    #[must_use]
    pub fn io_error(&self) -> &io::Error {
        &self.0.source
    }

    /// The byte position it was tried at.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.0.source.kind()
    }

    /// The system's number for the failure, if it is the system's.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.source.raw_os_error()
    }

    /// Whether the path leads to nothing, or to something that is not what was asked for: a
    /// directory in place of a file, a link where none may be.
    #[must_use]
    pub fn is_not_there(&self) -> bool {
        use io::ErrorKind::{CrossesDevices, IsADirectory, NotADirectory, NotFound};
        matches!(self.kind(), NotFound | NotADirectory | IsADirectory | CrossesDevices)
            || self.0.source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
    }

    /// What a user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        Some(match self.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => {
                "check the permissions, or run as a user who may do this"
            }
            io::ErrorKind::StorageFull => "free some space or choose another disk",
            io::ErrorKind::QuotaExceeded => "free some of the quota or choose another disk",
            io::ErrorKind::ReadOnlyFilesystem => "choose a place that can be written",
            io::ErrorKind::AlreadyExists => "remove it or choose another name",
            io::ErrorKind::CrossesDevices => "keep both on one file system",
            io::ErrorKind::IsADirectory => "name a file",
            io::ErrorKind::Unsupported => "do it another way: the file system or the device cannot",
            io::ErrorKind::InvalidFilename => "the file system cannot hold this name",
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.0.operation)?;
        if let Some(path) = &self.0.path {
            write!(f, " {}", path.display())?;
        }
        if let Some(offset) = self.0.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.0.source)?;
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("operation", &self.0.operation)
            .field("path", &self.0.path)
            .field("offset", &self.0.offset)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.source)
    }
}

/// Keeps the kind; the text is the whole message.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}
