//! The sockets of a simulated machine. They reach each other and nothing else.
//!
//! A stream's bytes lie at the end that is to receive them, up to a bound, as in the system's buffers.
//! An end that is closed with bytes unread breaks the other, as TCP does.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::{Errno, Result};

use super::tree::Inode;
use crate::address::Address;

/// Bytes that wait at one end of a stream at most.
const UNREAD_MAX: usize = 64 << 10;
/// Datagrams that wait at a socket at most; further ones are lost.
const DATAGRAMS_MAX: usize = 256;
/// The first port that is given to who asks for any.
const FIRST_PORT: u16 = 32768;

#[derive(Default)]
pub(super) struct Network {
    sockets: BTreeMap<u64, Socket>,
    ports_given: u16,
    /// Goes up with all that somebody may wait for.
    changes: u64,
}

enum Socket {
    Listener(Listener),
    Stream(Stream),
    Datagrams(Datagrams),
}

struct Listener {
    place: Place,
    backlog: usize,
    /// Their numbers.
    not_accepted: VecDeque<u64>,
}

struct Stream {
    address: Address,
    peer_address: Address,
    /// The other end's number.
    peer: u64,
    unread: VecDeque<u8>,
    /// Nothing will come any more.
    ended: bool,
    /// This end may send.
    sends: bool,
    broken: bool,
}

struct Datagrams {
    place: Place,
    unread: VecDeque<(Box<[u8]>, Address)>,
}

/// Where a socket is found.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Ip(SocketAddr),
    /// The node, and what it was called.
    Node(Inode, Address),
    Name(Box<[u8]>),
}

impl Place {
    fn address(&self) -> Address {
        match self {
            Place::Ip(address) => Address::Ip(*address),
            Place::Node(_, address) => address.clone(),
            Place::Name(name) => Address::Abstract(name.clone()),
        }
    }

    /// Whether no other socket can be at `other`.
    fn is_in_the_way_of(&self, other: &Place) -> bool {
        self.is_reached_by(other) || other.is_reached_by(self)
    }

    /// Whether what is sent to `to` comes here.
    fn is_reached_by(&self, to: &Place) -> bool {
        match (self, to) {
            (Place::Ip(here), Place::Ip(to)) => {
                here.port() == to.port() && (here.ip() == to.ip() || here.ip().is_unspecified())
            }
            (Place::Node(here, _), Place::Node(to, _)) => here == to,
            (Place::Name(here), Place::Name(to)) => here == to,
            _ => false,
        }
    }
}

impl Network {
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The machine lost its power: nothing is open any more, and all who wait are to learn of it.
    pub(super) fn lose_power(&mut self) {
        *self = Network { changes: self.changes + 1, ..Network::default() };
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    fn listener_at(&mut self, to: &Place) -> Option<(&u64, &mut Listener)> {
        self.sockets.iter_mut().find_map(|(number, socket)| match socket {
            Socket::Listener(listener) if listener.place.is_reached_by(to) => {
                Some((number, listener))
            }
            _ => None,
        })
    }

    fn stream(&self, number: u64) -> Result<&Stream> {
        match self.sockets.get(&number) {
            Some(Socket::Stream(stream)) => Ok(stream),
            Some(_) => Err(Errno::NOTCONN),
            None => Err(Errno::BADF),
        }
    }

    fn stream_mut(&mut self, number: u64) -> Result<&mut Stream> {
        match self.sockets.get_mut(&number) {
            Some(Socket::Stream(stream)) => Ok(stream),
            Some(_) => Err(Errno::NOTCONN),
            None => Err(Errno::BADF),
        }
    }

    /// A port that nobody has.
    fn some_port(&mut self) -> u16 {
        loop {
            self.ports_given = (self.ports_given + 1) % (u16::MAX - FIRST_PORT);
            let port = FIRST_PORT + self.ports_given;
            let mut addresses = self.sockets.values().filter_map(|socket| match socket {
                Socket::Stream(stream) => stream.address.ip(),
                Socket::Listener(Listener { place, .. })
                | Socket::Datagrams(Datagrams { place, .. }) => place.address().ip(),
            });
            if !addresses.any(|address| address.port() == port) {
                return port;
            }
        }
    }

    /// A place with a port, of one that asked for any.
    fn with_port(&mut self, place: Place) -> Place {
        match place {
            Place::Ip(mut address) if address.port() == 0 => {
                address.set_port(self.some_port());
                Place::Ip(address)
            }
            place => place,
        }
    }

    pub(super) fn listen(&mut self, number: u64, place: Place, backlog: u32) -> Result<()> {
        let place = self.with_port(place);
        let in_use = self.sockets.values().any(|socket| match socket {
            Socket::Listener(listener) => listener.place.is_in_the_way_of(&place),
            _ => false,
        });
        if in_use {
            return Err(Errno::ADDRINUSE);
        }
        let (backlog, not_accepted) = (backlog.max(1) as usize, VecDeque::new());
        self.sockets.insert(number, Socket::Listener(Listener { place, backlog, not_accepted }));
        Ok(())
    }

    pub(super) fn bind(&mut self, number: u64, place: Place) -> Result<()> {
        let place = self.with_port(place);
        let in_use = self.sockets.values().any(|socket| match socket {
            Socket::Datagrams(datagrams) => datagrams.place.is_in_the_way_of(&place),
            _ => false,
        });
        if in_use {
            return Err(Errno::ADDRINUSE);
        }
        self.sockets
            .insert(number, Socket::Datagrams(Datagrams { place, unread: VecDeque::new() }));
        Ok(())
    }

    /// Whether as many connections wait to be accepted there as may.
    pub(super) fn is_full(&mut self, to: &Place) -> bool {
        self.listener_at(to)
            .is_some_and(|(_, listener)| listener.not_accepted.len() >= listener.backlog)
    }

    /// Makes both ends of a connection: the caller's, and the one that waits to be accepted.
    pub(super) fn connect(&mut self, near: u64, far: u64, to: &Place) -> Result<()> {
        let Some((_, listener)) = self.listener_at(to) else { return Err(Errno::CONNREFUSED) };
        listener.not_accepted.push_back(far);
        let far_address = match (listener.place.address(), to) {
            // Whoever listens everywhere is reached where it was looked for.
            (Address::Ip(_), Place::Ip(to)) => Address::Ip(*to),
            (address, _) => address,
        };
        let near_address = match to {
            Place::Ip(to) => {
                let ip = match to.ip() {
                    ip if !ip.is_unspecified() => ip,
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                };
                Address::Ip(SocketAddr::new(ip, self.some_port()))
            }
            _ => Address::Unnamed,
        };
        self.add_end(near, far, near_address.clone(), far_address.clone());
        self.add_end(far, near, far_address, near_address);
        self.changes += 1;
        Ok(())
    }

    fn add_end(&mut self, number: u64, peer: u64, address: Address, peer_address: Address) {
        let end = Stream {
            address,
            peer_address,
            peer,
            unread: VecDeque::new(),
            ended: false,
            sends: true,
            broken: false,
        };
        self.sockets.insert(number, Socket::Stream(end));
    }

    /// Whether a connection waits there.
    pub(super) fn has_arrival(&self, listener: u64) -> Result<bool> {
        match self.sockets.get(&listener) {
            Some(Socket::Listener(listener)) => Ok(!listener.not_accepted.is_empty()),
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::BADF),
        }
    }

    /// The next connection that waits there.
    pub(super) fn accept(&mut self, listener: u64) -> Result<u64> {
        match self.sockets.get_mut(&listener) {
            Some(Socket::Listener(listener)) => {
                let next = listener.not_accepted.pop_front().ok_or(Errno::AGAIN)?;
                self.changes += 1;
                Ok(next)
            }
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::BADF),
        }
    }

    /// How many bytes can be received now; 0 at the end.
    pub(super) fn unread(&self, number: u64) -> Result<usize> {
        let stream = self.stream(number)?;
        match stream.unread.len() {
            0 if stream.broken => Err(Errno::CONNRESET),
            0 if !stream.ended => Err(Errno::AGAIN),
            bytes => Ok(bytes),
        }
    }

    pub(super) fn receive(&mut self, number: u64, length: usize) -> Result<Vec<u8>> {
        let length = length.min(self.unread(number)?);
        self.changes += 1;
        Ok(self.stream_mut(number)?.unread.drain(..length).collect())
    }

    /// How many bytes can be sent now.
    pub(super) fn room(&self, number: u64) -> Result<usize> {
        let stream = self.stream(number)?;
        if stream.broken || !stream.sends {
            return Err(if stream.sends { Errno::CONNRESET } else { Errno::PIPE });
        }
        // The other end is gone.
        let peer = self.stream(stream.peer).map_err(|_| Errno::PIPE)?;
        match UNREAD_MAX - peer.unread.len() {
            // It wants nothing any more: what is sent is lost.
            _ if peer.ended => Ok(UNREAD_MAX),
            0 => Err(Errno::AGAIN),
            room => Ok(room),
        }
    }

    pub(super) fn send(&mut self, number: u64, bytes: &[u8]) -> Result<usize> {
        let length = bytes.len().min(self.room(number)?);
        let peer = self.stream(number)?.peer;
        let peer = self.stream_mut(peer)?;
        if !peer.ended {
            peer.unread.extend(&bytes[..length]);
        }
        self.changes += 1;
        Ok(length)
    }

    /// This end sends no more, or wants no more.
    pub(super) fn shut_down(&mut self, number: u64, receive: bool, send: bool) -> Result<()> {
        let stream = self.stream_mut(number)?;
        stream.ended |= receive;
        let peer = stream.peer;
        if send {
            stream.sends = false;
            if let Ok(peer) = self.stream_mut(peer) {
                peer.ended = true;
            }
        }
        self.changes += 1;
        Ok(())
    }

    /// The connection breaks, at both ends.
    pub(super) fn break_off(&mut self, number: u64) {
        let Ok(peer) = self.stream(number).map(|stream| stream.peer) else { return };
        for end in [number, peer] {
            if let Ok(stream) = self.stream_mut(end) {
                stream.broken = true;
                stream.unread.clear();
            }
        }
        self.changes += 1;
    }

    fn datagrams_at(&mut self, to: &Place) -> Option<&mut Datagrams> {
        self.sockets.values_mut().find_map(|socket| match socket {
            Socket::Datagrams(datagrams) if datagrams.place.is_reached_by(to) => Some(datagrams),
            _ => None,
        })
    }

    fn datagrams(&mut self, number: u64) -> Result<&mut Datagrams> {
        match self.sockets.get_mut(&number) {
            Some(Socket::Datagrams(datagrams)) => Ok(datagrams),
            Some(_) => Err(Errno::OPNOTSUPP),
            None => Err(Errno::BADF),
        }
    }

    pub(super) fn has_datagram(&mut self, number: u64) -> Result<bool> {
        self.datagrams(number).map(|socket| !socket.unread.is_empty())
    }

    pub(super) fn receive_from(&mut self, number: u64) -> Result<(Box<[u8]>, Address)> {
        self.datagrams(number)?.unread.pop_front().ok_or(Errno::AGAIN)
    }

    /// Sends a datagram, which may be `lost`.
    pub(super) fn send_to(
        &mut self,
        number: u64,
        bytes: &[u8],
        to: &Place,
        lost: bool,
    ) -> Result<()> {
        let from = self.datagrams(number)?.place.address();
        match self.datagrams_at(to) {
            Some(socket) if !lost && socket.unread.len() < DATAGRAMS_MAX => {
                socket.unread.push_back((bytes.into(), from));
                self.changes += 1;
            }
            None if !matches!(to, Place::Ip(_)) => return Err(Errno::CONNREFUSED),
            _ => {}
        }
        Ok(())
    }

    /// The address of a socket, or of its other end.
    pub(super) fn address(&self, number: u64, peer: bool) -> Result<Address> {
        match (self.sockets.get(&number).ok_or(Errno::BADF)?, peer) {
            (Socket::Stream(stream), false) => Ok(stream.address.clone()),
            (Socket::Stream(stream), true) => Ok(stream.peer_address.clone()),
            (_, true) => Err(Errno::NOTCONN),
            (Socket::Listener(Listener { place, .. }), false)
            | (Socket::Datagrams(Datagrams { place, .. }), false) => Ok(place.address()),
        }
    }

    pub(super) fn close(&mut self, number: u64) {
        let Some(socket) = self.sockets.remove(&number) else { return };
        self.changes += 1;
        match socket {
            Socket::Listener(listener) => {
                for end in listener.not_accepted {
                    self.break_off(end);
                    self.sockets.remove(&end);
                }
            }
            Socket::Stream(stream) => {
                if let Ok(peer) = self.stream_mut(stream.peer) {
                    peer.ended = true;
                    peer.broken |= !stream.unread.is_empty();
                }
            }
            Socket::Datagrams(_) => {}
        }
    }
}
