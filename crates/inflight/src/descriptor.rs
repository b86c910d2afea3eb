//! What is open, owned or shared.

use std::borrow::Cow;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::address::Address;

/// Something open, owned by one holder; closed when it is dropped.
#[derive(Debug)]
pub struct OwnedDescriptor(Kind);

#[derive(Debug)]
enum Kind {
    System(OwnedFd),
    Foreign(Box<dyn Foreign>),
}

/// Something open that the system does not know of: it is a driver's own.
pub(crate) trait Foreign: fmt::Debug + Send + Sync {
    /// What the driver knows it by.
    fn number(&self) -> u64;

    /// What it lies on, as in its metadata.
    fn device(&self) -> u64;

    /// Of a connection, where its other end is.
    fn peer_address(&self) -> Address;
}

impl OwnedDescriptor {
    pub(crate) fn foreign(descriptor: impl Foreign + 'static) -> OwnedDescriptor {
        OwnedDescriptor(Kind::Foreign(Box::new(descriptor)))
    }

    /// The system's descriptor, unless it is on a simulated disk.
    ///
    /// # Errors
    /// Gives itself back in that case.
    pub fn into_system(self) -> Result<OwnedFd, OwnedDescriptor> {
        match self.0 {
            Kind::System(descriptor) => Ok(descriptor),
            kind => Err(OwnedDescriptor(kind)),
        }
    }

    /// What the driver knows it by, if the system does not know it.
    pub(crate) fn foreign_number(&self) -> Option<u64> {
        match &self.0 {
            Kind::System(_) => None,
            Kind::Foreign(foreign) => Some(foreign.number()),
        }
    }

    /// Of a connection that the system does not know, where its other end is.
    pub(crate) fn foreign_peer(&self) -> Option<Address> {
        match &self.0 {
            Kind::System(_) => None,
            Kind::Foreign(foreign) => Some(foreign.peer_address()),
        }
    }

    /// The number of the device that it lies on, as far as the system says so at once.
    pub(crate) fn device_number(&self) -> Option<u64> {
        match &self.0 {
            Kind::System(descriptor) => device_of(descriptor),
            Kind::Foreign(foreign) => Some(foreign.device()),
        }
    }

    /// The system's descriptor. Only for operations that are [the system's](crate::Operation::is_for_system).
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::System(descriptor) => descriptor.as_fd(),
            Kind::Foreign(foreign) => unreachable!("{foreign:?} in a driver of the system's"),
        }
    }
}

impl From<OwnedFd> for OwnedDescriptor {
    fn from(descriptor: OwnedFd) -> OwnedDescriptor {
        OwnedDescriptor(Kind::System(descriptor))
    }
}

/// The device of something open, from what the system knows without asking anybody.
#[cfg(target_os = "linux")]
fn device_of(descriptor: &OwnedFd) -> Option<u64> {
    use rustix::fs::{AtFlags, StatxFlags, makedev, statx};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(descriptor, c"", flags, StatxFlags::empty()).ok()?;
    Some(makedev(found.stx_dev_major, found.stx_dev_minor))
}

#[cfg(not(target_os = "linux"))]
fn device_of(descriptor: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(descriptor).ok().map(|stat| stat.st_dev as u64)
}

/// Closes descriptors that nobody waits for. The engine does it without blocking whoever drops.
pub(crate) trait Closer: Send + Sync {
    fn close(&self, descriptor: OwnedDescriptor);
}

/// What something open is called in messages.
#[derive(Debug, Clone)]
pub(crate) enum Label {
    Path(Box<Path>),
    Address(Address),
}

/// A share of an open file, directory or socket. Every operation in flight holds one, so the count
/// of shares *is* the count of operations in flight, and the number can never be closed (and given
/// to another file) under an operation. The last share closes it, through the engine.
#[derive(Clone)]
pub struct Descriptor(Arc<Inner>);

/// A device that an engine has met, by when it did: 0 for none.
pub(crate) type DeviceIndex = u8;

/// What matters to a driver of what is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Reads and writes go to the device itself.
    DirectFile,
    /// Reads may be answered from the page cache at once.
    CachedFile,
    /// Reads and writes go through the page cache and leave nothing there.
    UncachedFile,
    /// A directory, or a socket.
    Other,
}

struct Inner {
    /// `Some` until the drop.
    descriptor: Option<OwnedDescriptor>,
    label: Label,
    sort: Sort,
    device: DeviceIndex,
    closer: Arc<dyn Closer>,
}

impl Descriptor {
    pub(crate) fn new(
        descriptor: OwnedDescriptor,
        label: Label,
        sort: Sort,
        device: DeviceIndex,
        closer: Arc<dyn Closer>,
    ) -> Descriptor {
        Descriptor(Arc::new(Inner { descriptor: Some(descriptor), label, sort, device, closer }))
    }

    /// The device that it lies on.
    #[inline]
    pub(crate) fn device(&self) -> DeviceIndex {
        self.0.device
    }

    pub(crate) fn sort(&self) -> Sort {
        self.0.sort
    }

    /// The path it was opened by; empty for a socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.0.label {
            Label::Path(path) => path,
            Label::Address(_) => Path::new(""),
        }
    }

    /// What it is called in messages: its path, or a socket's address.
    #[must_use]
    pub fn label(&self) -> Cow<'_, Path> {
        match &self.0.label {
            Label::Path(path) => Cow::Borrowed(path),
            Label::Address(address) => Cow::Owned(PathBuf::from(address.to_string())),
        }
    }

    fn owned(&self) -> &OwnedDescriptor {
        self.0.descriptor.as_ref().expect("open until the last share is dropped")
    }

    /// What the driver knows it by, if the system does not know it.
    pub(crate) fn foreign_number(&self) -> Option<u64> {
        self.owned().foreign_number()
    }

    /// Takes the descriptor out if this is the only share.
    pub(crate) fn into_owned(self) -> Option<OwnedDescriptor> {
        Arc::into_inner(self.0)?.descriptor.take()
    }
}

/// # Panics
/// Where it is on a simulated disk: the system knows nothing of that.
impl AsFd for OwnedDescriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

/// # Panics
/// Where it is on a simulated disk: the system knows nothing of that.
impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owned().fd()
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Descriptor").field(&self.label()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            self.closer.close(descriptor);
        }
    }
}
