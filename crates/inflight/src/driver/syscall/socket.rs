//! Operations on sockets as system calls. None of them waits: a socket that is not ready answers
//! `EAGAIN`, and the driver asks again when it is.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result, ioctl_fionbio, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags,
    SocketType, addr::SocketAddrArg, sockopt,
};

use super::{assume_read, done};
use crate::address::Address;
use crate::buffer::{Buffer, Pool};
use crate::driver::RECEIVE_BYTES;
use crate::operation::{Operation, Shutdown, SocketOption, TRANSFER_BYTES_MAX};

/// What a socket must become for an operation to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::driver) enum Readiness {
    Readable,
    Writable,
}

/// What the operation waits for when the system answers `EAGAIN`; `None` for those that do not
/// concern a socket, or never wait.
pub(in crate::driver) fn readiness(operation: &Operation) -> Option<Readiness> {
    match operation {
        Operation::Accept { .. }
        | Operation::Receive { .. }
        | Operation::ReceivePooled { .. }
        | Operation::ReceiveVectored { .. }
        | Operation::ReceiveFrom { .. } => Some(Readiness::Readable),
        Operation::Connect { .. }
        | Operation::Send { .. }
        | Operation::SendVectored { .. }
        | Operation::SendTo { .. }
        | Operation::SendFile { .. } => Some(Readiness::Writable),
        _ => None,
    }
}

/// The socket that the operation waits for when it is not ready, and what that must become.
pub(in crate::driver) fn waits_for(operation: &Operation) -> Option<(BorrowedFd<'_>, Readiness)> {
    let socket = match operation {
        Operation::Connect { descriptor, .. } => descriptor.as_ref()?.as_fd(),
        Operation::Accept { listener: socket, .. }
        | Operation::Receive { socket, .. }
        | Operation::ReceivePooled { socket, .. }
        | Operation::ReceiveVectored { socket, .. }
        | Operation::ReceiveFrom { socket, .. }
        | Operation::Send { socket, .. }
        | Operation::SendVectored { socket, .. }
        | Operation::SendTo { socket, .. }
        | Operation::SendFile { socket, .. } => socket.as_fd(),
        _ => return None,
    };
    Some((socket, readiness(operation)?))
}

/// Performs an operation on a socket.
pub(in crate::driver) fn perform(operation: &mut Operation) -> Result<u64> {
    match operation {
        Operation::Listen { address, backlog, descriptor } => {
            let socket = listen(address, *backlog)?;
            *descriptor = Some(socket.into());
            Ok(0)
        }
        Operation::Bind { address, descriptor } => {
            let socket = new_socket(address, SocketType::DGRAM)?;
            net::bind(&socket, &any(address)?)?;
            *descriptor = Some(socket.into());
            Ok(0)
        }
        Operation::Accept { listener, arrivals } => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            loop {
                match retry_on_intr(|| net::accept_with(&*listener, flags)) {
                    Ok(socket) => {
                        if !arrivals.push(socket.into()) {
                            return Ok(0);
                        }
                    }
                    // Gone before we looked.
                    Err(Errno::CONNABORTED) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Operation::Connect { address, descriptor } => connect(address, descriptor),
        Operation::Receive { socket, buffer, length } => {
            let length = super::read_length(buffer, *length);
            receive(socket, buffer, length)
        }
        Operation::ReceiveFrom { socket, buffer, peer } => {
            let length = super::read_length(buffer, usize::MAX);
            // SAFETY: the spare room is `length` bytes and ours alone; it is only written to.
            let spare = unsafe { spare(buffer, length) };
            let flags = RecvFlags::DONTWAIT;
            let (bytes, from) = retry_on_intr(|| {
                let ((filled, _), _, from) = net::recvfrom(&*socket, &mut *spare, flags)?;
                Ok((filled.len(), from))
            })?;
            *peer = from.map_or(Address::Unnamed, |from| address_of(&from));
            Ok(assume_read(buffer, bytes))
        }
        Operation::Send { socket, buffer, start, length, .. } => {
            send(socket, super::write_range(buffer, *start, *length))
        }
        Operation::SendTo { socket, buffer, address } => {
            let (address, flags) = (any(address)?, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            retry_on_intr(|| net::sendto(&*socket, buffer, flags, &address)).map(|n| n as u64)
        }
        Operation::ReceiveVectored { .. } | Operation::SendVectored { .. } => vectored(operation),
        Operation::SendFile { file, offset, socket, length } => {
            let length = (*length).min(TRANSFER_BYTES_MAX as u64) as usize;
            let mut at = *offset;
            retry_on_intr(|| rustix::fs::sendfile(&*socket, &*file, Some(&mut at), length))
                .map(|n| n as u64)
        }
        Operation::Shutdown { socket, how } => done(net::shutdown(
            &*socket,
            match how {
                Shutdown::Receive => net::Shutdown::Read,
                Shutdown::Send => net::Shutdown::Write,
                Shutdown::Both => net::Shutdown::Both,
            },
        )),
        Operation::SetSocketOption { socket, option } => done(set_option(socket, *option)),
        Operation::SocketAddress { socket, peer, address } => {
            *address = match peer {
                true => net::getpeername(&*socket)?.as_ref().map_or(Address::Unnamed, address_of),
                false => address_of(&net::getsockname(&*socket)?),
            };
            Ok(0)
        }
        _ => Err(Errno::NOSYS),
    }
}

/// A socket that does not block whoever uses it.
pub(in crate::driver) fn new_socket(address: &Address, kind: SocketType) -> Result<OwnedFd> {
    let family = match address {
        Address::Ip(address) if address.is_ipv4() => AddressFamily::INET,
        Address::Ip(_) => AddressFamily::INET6,
        _ => AddressFamily::UNIX,
    };
    net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn listen(address: &Address, backlog: u32) -> Result<OwnedFd> {
    let socket = new_socket(address, SocketType::STREAM)?;
    if let Address::Ip(_) = address {
        // A server that is started again need not wait until its old connections are forgotten.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &any(address)?)?;
    net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// Begins to connect, or, called again, looks how that went.
fn connect(
    address: &Address,
    descriptor: &mut Option<crate::descriptor::OwnedDescriptor>,
) -> Result<u64> {
    if let Some(socket) = descriptor {
        let outcome = sockopt::socket_error(socket.as_fd())?;
        let connected = outcome.and_then(|()| match net::getpeername(socket.as_fd()) {
            Err(Errno::NOTCONN) => Err(Errno::AGAIN),
            other => other.map(|_| ()),
        });
        if connected.is_err_and(|error| error != Errno::AGAIN) {
            *descriptor = None;
        }
        return done(connected);
    }
    let socket = new_socket(address, SocketType::STREAM)?;
    let begun = net::connect(&socket, &any(address)?);
    match begun {
        // Unix sockets answer EAGAIN where the backlog is full, and know no way to wait for that.
        Err(Errno::AGAIN) => Err(Errno::CONNREFUSED),
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {
            *descriptor = Some(socket.into());
            if begun.is_ok() { Ok(0) } else { Err(Errno::AGAIN) }
        }
        Err(error) => Err(error),
    }
}

/// # Safety
/// The kernel only writes to what this gives, and nobody else uses it meanwhile.
unsafe fn spare(buffer: &mut Buffer, length: usize) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the caller asks for no more than the spare room, which is the buffer's alone.
    unsafe { std::slice::from_raw_parts_mut(buffer.spare_ptr().cast(), length) }
}

/// One receive into the spare room.
pub(in crate::driver) fn receive(
    socket: &impl AsFd,
    buffer: &mut Buffer,
    length: usize,
) -> Result<u64> {
    // SAFETY: the spare room is `length` bytes or more and ours alone; it is only written to.
    let spare = unsafe { spare(buffer, length) };
    let receive = || Ok(net::recv(socket, &mut *spare, RecvFlags::DONTWAIT)?.0.0.len());
    let bytes = retry_on_intr(receive)?;
    Ok(assume_read(buffer, bytes))
}

/// Receives what a socket has into a buffer taken now.
pub(in crate::driver) fn receive_pooled(
    socket: &impl AsFd,
    buffer: &mut Buffer,
    pool: &Pool,
) -> Result<u64> {
    let mut taken = pool.try_get(RECEIVE_BYTES).ok_or(Errno::NOBUFS)?;
    let received = receive(socket, &mut taken, RECEIVE_BYTES)?;
    *buffer = taken;
    Ok(received)
}

fn send(socket: &impl AsFd, bytes: &[u8]) -> Result<u64> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry_on_intr(|| net::send(socket, bytes, flags)).map(|n| n as u64)
}

fn vectored(operation: &mut Operation) -> Result<u64> {
    match operation {
        Operation::ReceiveVectored { socket, buffers } => {
            let vectors = buffers.spare_vectors();
            // SAFETY: as for files: the layout is that of `IoSliceMut`, and the kernel only writes.
            let slices = unsafe {
                std::slice::from_raw_parts_mut(
                    vectors.as_mut_ptr().cast::<IoSliceMut<'_>>(),
                    vectors.len(),
                )
            };
            let mut control = net::RecvAncillaryBuffer::default();
            let received = retry_on_intr(|| {
                net::recvmsg(&*socket, slices, &mut control, RecvFlags::DONTWAIT)
            })?;
            // SAFETY: the kernel just wrote that many bytes there, in order.
            unsafe { buffers.assume_filled(received.bytes) };
            Ok(received.bytes as u64)
        }
        Operation::SendVectored { socket, buffers } => {
            let vectors = buffers.filled_vectors();
            // SAFETY: as for files: the layout is that of `IoSlice`.
            let slices = unsafe {
                std::slice::from_raw_parts(vectors.as_ptr().cast::<IoSlice<'_>>(), vectors.len())
            };
            let mut control = net::SendAncillaryBuffer::default();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            retry_on_intr(|| net::sendmsg(&*socket, slices, &mut control, flags)).map(|n| n as u64)
        }
        _ => Err(Errno::NOSYS),
    }
}

fn set_option(socket: &impl AsFd, option: SocketOption) -> Result<()> {
    match option {
        SocketOption::NoDelay(on) => sockopt::set_tcp_nodelay(socket, on),
        SocketOption::KeepAlive(on) => sockopt::set_socket_keepalive(socket, on),
        SocketOption::Linger(time) => sockopt::set_socket_linger(socket, time),
        SocketOption::ReceiveBuffer(bytes) => sockopt::set_socket_recv_buffer_size(socket, bytes),
        SocketOption::SendBuffer(bytes) => sockopt::set_socket_send_buffer_size(socket, bytes),
    }
}

/// Where the other end of a connection is.
pub(crate) fn peer_of(socket: &impl AsFd) -> Address {
    let peer = net::getpeername(socket).ok().flatten();
    peer.as_ref().map_or(Address::Unnamed, address_of)
}

/// A socket that the program made becomes one that does not block whoever uses it.
pub(crate) fn adopt(socket: &impl AsFd) -> Result<()> {
    ioctl_fionbio(socket, true)
}

/// The system's form of an address.
pub(in crate::driver) fn any(address: &Address) -> Result<SocketAddrAny> {
    Ok(match address {
        Address::Ip(address) => address.as_any(),
        Address::Path(path) => SocketAddrUnix::new(&**path)?.as_any(),
        Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?.as_any(),
        Address::Unnamed => SocketAddrUnix::new_unnamed().as_any(),
    })
}

/// Our form of an address.
pub(in crate::driver) fn address_of(any: &SocketAddrAny) -> Address {
    if let Ok(address) = std::net::SocketAddr::try_from(any.clone()) {
        return Address::Ip(address);
    }
    let Ok(unix) = SocketAddrUnix::try_from(any.clone()) else { return Address::Unnamed };
    if let Some(name) = unix.abstract_name() {
        let unnamed = name.is_empty();
        return if unnamed { Address::Unnamed } else { Address::Abstract(name.into()) };
    }
    match unix.path() {
        Some(path) => {
            use std::os::unix::ffi::OsStrExt;
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
            Address::Path(path.into())
        }
        None => Address::Unnamed,
    }
}
