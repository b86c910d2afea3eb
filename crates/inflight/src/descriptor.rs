//! A share of an open descriptor.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Closes descriptors that nobody waits for. The engine does it without blocking whoever drops.
pub(crate) trait Closer: Send + Sync {
    fn close(&self, descriptor: OwnedFd);
}

/// A share of an open file or directory. Every operation in flight holds one, so the count of
/// shares *is* the count of operations in flight, and the number can never be closed (and given
/// to another file) under an operation. The last share closes it, through the engine.
#[derive(Clone)]
pub struct Descriptor(Arc<Inner>);

struct Inner {
    /// `Some` until the drop.
    descriptor: Option<OwnedFd>,
    path: Box<Path>,
    closer: Arc<dyn Closer>,
}

impl Descriptor {
    pub(crate) fn new(descriptor: OwnedFd, path: &Path, closer: Arc<dyn Closer>) -> Descriptor {
        Descriptor(Arc::new(Inner { descriptor: Some(descriptor), path: path.into(), closer }))
    }

    /// The path it was opened by, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Takes the descriptor out if this is the only share.
    pub(crate) fn into_owned(self) -> Option<OwnedFd> {
        Arc::into_inner(self.0)?.descriptor.take()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_ref().expect("open until the last share is dropped").as_fd()
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Descriptor").field(&self.path()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            self.closer.close(descriptor);
        }
    }
}
