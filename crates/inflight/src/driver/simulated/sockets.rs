//! One operation on a socket of a simulated machine.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use rustix::io::{Errno, Result};

use super::disk::{SimulatedDisk, State};
use super::network::Place;
use super::path::Way;
use super::tree::{Content, ROOT};
use crate::address::Address;
use crate::buffer::{Buffer, BufferList, Pool};
use crate::descriptor::Descriptor;
use crate::driver::RECEIVE_BYTES;
use crate::metadata::FileKind;
use crate::operation::{Operation, Shutdown};

/// The longest piece of a file that is sent at once.
const PIECE_BYTES: u64 = 64 << 10;

fn number(socket: &Descriptor) -> Result<u64> {
    socket.foreign_number().ok_or(Errno::BADF)
}

impl State {
    /// Whether the operation is about a socket that is not ready for it: it is asked again when
    /// something has changed.
    pub(super) fn must_wait(&mut self, operation: &Operation) -> bool {
        let again = |ready: Result<usize>| ready == Err(Errno::AGAIN);
        match operation {
            Operation::Connect { address, .. } => {
                self.place_of(address).is_ok_and(|place| self.network.is_full(&place))
            }
            Operation::Accept { listener, .. } => {
                number(listener).and_then(|number| self.network.has_arrival(number)) == Ok(false)
            }
            Operation::Receive { socket, .. }
            | Operation::ReceivePooled { socket, .. }
            | Operation::ReceiveVectored { socket, .. } => {
                again(number(socket).and_then(|number| self.network.unread(number)))
            }
            Operation::Send { socket, .. }
            | Operation::SendVectored { socket, .. }
            | Operation::SendFile { socket, .. } => {
                again(number(socket).and_then(|number| self.network.room(number)))
            }
            Operation::ReceiveFrom { socket, .. } => {
                number(socket).and_then(|number| self.network.has_datagram(number)) == Ok(false)
            }
            _ => false,
        }
    }

    /// Performs it; `None` if it is not about a socket.
    pub(super) fn perform_on_socket(
        &mut self,
        disk: &SimulatedDisk,
        pool: &Pool,
        operation: &mut Operation,
    ) -> Option<Result<u64>> {
        Some(match operation {
            Operation::Listen { address, backlog, descriptor } => {
                let listen = self.new_place(address).and_then(|place| {
                    let number = self.next_number();
                    self.network.listen(number, place, *backlog).map(|()| number)
                });
                listen.map(|number| {
                    *descriptor = Some(disk.descriptor(number));
                    0
                })
            }
            Operation::Bind { address, descriptor } => {
                let bind = self.new_place(address).and_then(|place| {
                    let number = self.next_number();
                    self.network.bind(number, place).map(|()| number)
                });
                bind.map(|number| {
                    *descriptor = Some(disk.descriptor(number));
                    0
                })
            }
            Operation::Connect { address, descriptor } => {
                let connect = self.place_of(address).and_then(|place| {
                    let (near, far) = (self.next_number(), self.next_number());
                    self.network.connect(near, far, &place).map(|()| near)
                });
                connect.map(|number| {
                    *descriptor = Some(disk.descriptor(number));
                    0
                })
            }
            Operation::SendFile { file, offset, socket, length } => {
                let piece = self.readable(file, *offset, *length).and_then(|inode| {
                    self.bytes(inode, *offset, (*length).min(PIECE_BYTES)).map(<[u8]>::to_vec)
                });
                piece.and_then(|bytes| match bytes.is_empty() {
                    true => Ok(0),
                    false => self.send(socket, &bytes),
                })
            }
            Operation::Send { .. }
            | Operation::SendVectored { .. }
            | Operation::SendTo { .. }
            | Operation::Receive { .. }
            | Operation::ReceivePooled { .. }
            | Operation::ReceiveVectored { .. }
            | Operation::ReceiveFrom { .. } => self.transfer(pool, operation),
            Operation::Shutdown { socket, how } => number(socket).and_then(|number| {
                let (receive, send) = match how {
                    Shutdown::Receive => (true, false),
                    Shutdown::Send => (false, true),
                    Shutdown::Both => (true, true),
                };
                self.network.shut_down(number, receive, send).map(|()| 0)
            }),
            // None of them changes what can be seen from here.
            Operation::SetSocketOption { socket, .. } => {
                number(socket).and_then(|number| self.network.address(number, false)).map(|_| 0)
            }
            Operation::SocketAddress { socket, peer, address } => {
                number(socket).and_then(|number| self.network.address(number, *peer)).map(|found| {
                    *address = found;
                    0
                })
            }
            _ => return None,
        })
    }

    fn transfer(&mut self, pool: &Pool, operation: &mut Operation) -> Result<u64> {
        match operation {
            Operation::Send { socket, buffer, start, length, .. } => {
                self.send(socket, &buffer[*start..*start + *length])
            }
            Operation::SendVectored { socket, buffers } => {
                let all: Vec<u8> = buffers.buffers().iter().flat_map(|b| b.to_vec()).collect();
                self.send(socket, &all)
            }
            Operation::Receive { socket, buffer, length } => {
                let bytes = self.receive(socket, (*length).min(buffer.spare()))?;
                buffer.extend_from_slice(&bytes);
                Ok(bytes.len() as u64)
            }
            Operation::ReceivePooled { socket, buffer } => {
                let mut taken = pool.try_get(RECEIVE_BYTES).ok_or(Errno::NOBUFS)?;
                let bytes = self.receive(socket, RECEIVE_BYTES)?;
                taken.extend_from_slice(&bytes);
                *buffer = taken;
                Ok(bytes.len() as u64)
            }
            Operation::ReceiveVectored { socket, buffers } => {
                let bytes = self.receive(socket, spare_of(buffers))?;
                let mut rest = &bytes[..];
                for buffer in buffers.buffers_mut() {
                    let (now, later) = rest.split_at(rest.len().min(buffer.spare()));
                    buffer.extend_from_slice(now);
                    rest = later;
                }
                Ok(bytes.len() as u64)
            }
            Operation::ReceiveFrom { socket, buffer, peer } => {
                let (bytes, from) = self.network.receive_from(number(socket)?)?;
                let fits = bytes.len().min(buffer.spare());
                buffer.extend_from_slice(&bytes[..fits]);
                *peer = from;
                Ok(fits as u64)
            }
            Operation::SendTo { socket, buffer, address } => {
                let (number, to) = (number(socket)?, self.place_of(address)?);
                let lost = self.chance.once_in(self.faults.lost_once_in);
                self.network.send_to(number, buffer, &to, lost)?;
                Ok(buffer.len() as u64)
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn send(&mut self, socket: &Descriptor, bytes: &[u8]) -> Result<u64> {
        let number = number(socket)?;
        self.maybe_break_off(number)?;
        let most = bytes.len().min(self.network.room(number)?);
        let length = self.maybe_short(most);
        self.network.send(number, &bytes[..length]).map(|sent| sent as u64)
    }

    fn receive(&mut self, socket: &Descriptor, length: usize) -> Result<Vec<u8>> {
        let number = number(socket)?;
        self.maybe_break_off(number)?;
        let most = length.min(self.network.unread(number)?);
        let length = self.maybe_short(most);
        self.network.receive(number, length)
    }

    fn maybe_break_off(&mut self, number: u64) -> Result<()> {
        if self.chance.once_in(self.faults.reset_once_in) {
            self.network.break_off(number);
            return Err(Errno::CONNRESET);
        }
        Ok(())
    }

    /// Where something is to be reached from now on.
    fn new_place(&mut self, address: &Address) -> Result<Place> {
        Ok(match address {
            Address::Ip(address) => Place::Ip(*address),
            Address::Abstract(name) => Place::Name(name.clone()),
            Address::Path(path) => {
                let place = self.locate_from(ROOT, path.as_os_str().as_bytes(), Way::Keep)?;
                if place.inode.is_some() {
                    return Err(Errno::ADDRINUSE);
                }
                let (directory, name): (_, CString) = place.name()?;
                let inode = self.tree.create(directory, name, Content::Socket, 0o755)?;
                Place::Node(inode, address.clone())
            }
            Address::Unnamed => return Err(Errno::INVAL),
        })
    }

    /// Where something is looked for.
    fn place_of(&self, address: &Address) -> Result<Place> {
        Ok(match address {
            Address::Ip(address) => Place::Ip(*address),
            Address::Abstract(name) => Place::Name(name.clone()),
            Address::Path(path) => {
                let place = self.locate_from(ROOT, path.as_os_str().as_bytes(), Way::Follow)?;
                let inode = place.existing()?;
                if self.tree.kind(inode)? != FileKind::Socket {
                    return Err(Errno::CONNREFUSED);
                }
                Place::Node(inode, address.clone())
            }
            Address::Unnamed => return Err(Errno::INVAL),
        })
    }
}

fn spare_of(buffers: &BufferList) -> usize {
    buffers.buffers().iter().map(Buffer::spare).sum()
}
