//! Where sockets are.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// The address of a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A path in the file system (Unix sockets).
    Path(Box<Path>),
    /// A name that is in no file system (Unix sockets on Linux), without the NUL in front.
    Abstract(Box<[u8]>),
    /// None: the other end of most Unix sockets, or not known.
    #[default]
    Unnamed,
}

impl Address {
    /// The IP address and port, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Address {
        Address::Path(path.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Path(path) => path.display().fmt(f),
            Address::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            Address::Unnamed => f.write_str("an unnamed socket"),
        }
    }
}
