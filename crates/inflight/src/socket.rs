//! Connections, listeners and datagrams.
//!
//! One kind of each for TCP and for Unix sockets: the address tells. Buffers move into an operation
//! and come back with its result, as for files. A connection that waits for something to arrive
//! need not hold a buffer meanwhile: see [`Connection::receive_pooled`].

use std::fmt;
use std::io;
use std::mem::take;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use crate::address::Address;
use crate::arrivals::{Arrival, Arrivals};
use crate::buffer::{Buffer, BufferList};
use crate::descriptor::{Descriptor, Label, OwnedDescriptor, Sort};
use crate::driver::{adopt, peer_of};
use crate::error::{Error, Result};
use crate::file::File;
use crate::handle::Handle;
use crate::operation::{Operation, Shutdown, SocketOption};
use crate::pending::Pending;
use crate::wait_list::Ticket;

/// How many connections may wait to be accepted, if the program does not say.
const BACKLOG: u32 = 1024;

/// A socket that accepts connections. Closed when the last of its clones is dropped.
///
/// From the first [`Listener::accept`] on, one accept is under way for all of them and goes on.
#[derive(Clone)]
pub struct Listener(Arc<Listening>);

struct Listening {
    descriptor: Descriptor,
    handle: Handle,
    arrivals: Arc<Arrivals>,
    /// The accept that was begun last.
    accept: Mutex<Option<Pending<()>>>,
}

/// One end of a stream of bytes to another process. Closed when dropped.
///
/// Its clones are the same connection: one may receive while another sends.
#[derive(Clone)]
pub struct Connection {
    descriptor: Descriptor,
    handle: Handle,
}

/// A socket that sends and receives datagrams. Closed when dropped.
#[derive(Clone)]
pub struct Datagrams {
    descriptor: Descriptor,
    handle: Handle,
}

impl Handle {
    /// Listens for connections at an address; of an IP address with port 0 the system chooses the
    /// port: see [`Listener::address`].
    ///
    /// # Errors
    /// The system's: the address is in use, or not ours.
    pub async fn listen(&self, address: impl Into<Address>) -> Result<Listener> {
        let (address, backlog) = (address.into(), BACKLOG);
        let operation = Operation::Listen { address, backlog, descriptor: None };
        let descriptor = self.open_socket(operation).await?;
        Ok(Listener::new(descriptor, self))
    }

    /// Connects to an address.
    ///
    /// # Errors
    /// The system's: nobody listens there, or it cannot be reached.
    pub async fn connect(&self, address: impl Into<Address>) -> Result<Connection> {
        let operation = Operation::Connect { address: address.into(), descriptor: None };
        let descriptor = self.open_socket(operation).await?;
        Ok(Connection { descriptor, handle: self.clone() })
    }

    /// Makes a socket for datagrams that receives at an address.
    ///
    /// # Errors
    /// As for [`Handle::listen`].
    pub async fn bind(&self, address: impl Into<Address>) -> Result<Datagrams> {
        let operation = Operation::Bind { address: address.into(), descriptor: None };
        let descriptor = self.open_socket(operation).await?;
        Ok(Datagrams { descriptor, handle: self.clone() })
    }

    /// Takes over a connected socket that was made elsewhere.
    ///
    /// # Errors
    /// The system's, where it is no socket.
    pub fn adopt_connection(&self, socket: impl Into<OwnedFd>) -> Result<Connection> {
        let descriptor = self.adopt(socket.into())?;
        Ok(Connection { descriptor, handle: self.clone() })
    }

    /// Takes over a listening socket that was made elsewhere.
    ///
    /// # Errors
    /// The system's, where it is no socket.
    pub fn adopt_listener(&self, socket: impl Into<OwnedFd>) -> Result<Listener> {
        let descriptor = self.adopt(socket.into())?;
        Ok(Listener::new(descriptor, self))
    }

    fn adopt(&self, socket: OwnedFd) -> Result<Descriptor> {
        if let Err(error) = adopt(&socket) {
            return Err(Error::new("take over a socket", None, error.into()));
        }
        Ok(self.socket(socket.into(), Address::Unnamed))
    }

    fn socket(&self, socket: OwnedDescriptor, address: Address) -> Descriptor {
        Descriptor::new(socket, Label::Address(address), Sort::Other, 0, self.shared.clone())
    }

    async fn open_socket(&self, operation: Operation) -> Result<Descriptor> {
        match self.submit(operation).await?.0 {
            Operation::Listen { descriptor: Some(socket), address, .. }
            | Operation::Connect { descriptor: Some(socket), address }
            | Operation::Bind { descriptor: Some(socket), address } => {
                Ok(self.socket(socket, address))
            }
            other => unreachable!("{other:?} came back for a socket"),
        }
    }

    async fn address_of(&self, socket: &Descriptor, peer: bool) -> Result<Address> {
        let (socket, address) = (socket.clone(), Address::Unnamed);
        match self.submit(Operation::SocketAddress { socket, peer, address }).await?.0 {
            Operation::SocketAddress { address, .. } => Ok(address),
            other => unreachable!("{other:?} came back for an address"),
        }
    }
}

impl Listener {
    fn new(descriptor: Descriptor, handle: &Handle) -> Listener {
        Listener(Arc::new(Listening {
            descriptor,
            handle: handle.clone(),
            arrivals: Arc::new(Arrivals::new()),
            accept: Mutex::new(None),
        }))
    }

    /// The engine it belongs to.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// The next connection, and where it comes from. Whoever gives up waiting loses none: the next
    /// one who waits gets it.
    ///
    /// # Errors
    /// The system's. Too many open files is one that passes: try again later.
    pub async fn accept(&self) -> Result<(Connection, Address)> {
        let mut place = Place { arrivals: &self.0.arrivals, ticket: None };
        loop {
            let next = |context: &mut Context<'_>| place.arrivals.poll(&mut place.ticket, context);
            match std::future::poll_fn(next).await {
                Arrival::Connection(socket) => {
                    let peer = socket.foreign_peer().unwrap_or_else(|| peer_of(&socket));
                    let descriptor = self.0.handle.socket(socket, peer.clone());
                    return Ok((Connection { descriptor, handle: self.0.handle.clone() }, peer));
                }
                Arrival::Failed(code) => return Err(self.error(code)),
                Arrival::NotRunning => self.begin(),
            }
        }
    }

    /// Begins the accept that goes on. Its slot stays its own until the next one, or the end of the
    /// listener, which cancels it.
    fn begin(&self) {
        let (listener, arrivals) = (self.0.descriptor.clone(), self.0.arrivals.clone());
        let begun = self.0.handle.run(Operation::Accept { listener, arrivals });
        let mut accept = self.0.accept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = accept.replace(begun);
        drop(accept);
        drop(before);
    }

    fn error(&self, code: i32) -> Error {
        let label = self.0.descriptor.label().into_owned();
        Error::new("accept a connection on", Some(label), io::Error::from_raw_os_error(code))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub async fn address(&self) -> Result<Address> {
        self.0.handle.address_of(&self.0.descriptor, false).await
    }

    /// This socket for an [`Operation`].
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.0.descriptor
    }
}

/// The place of somebody who waits for a connection, given up when dropped.
struct Place<'a> {
    arrivals: &'a Arrivals,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.arrivals.leave(&mut self.ticket);
    }
}

impl Connection {
    /// The engine it belongs to.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Appends up to `length` bytes that arrive to `buffer`. None only at the end of the stream.
    ///
    /// Bytes that arrive just when this is dropped before it was ready are lost. Whoever wants to
    /// give up and go on with the stream later asks for that with [`Pending::cancel`], and waits for
    /// what comes of it.
    pub fn receive(&self, buffer: Buffer, length: usize) -> Pending<Buffer> {
        let socket = self.descriptor.clone();
        self.handle.start(
            || Operation::Receive { socket, buffer, length },
            |operation, _| match operation {
                Operation::Receive { buffer, .. } => take(buffer),
                other => unreachable!("{other:?} came back for a receive"),
            },
        )
    }

    /// What arrives next, at most 16 KiB, in a buffer that is taken from the pool only once there is
    /// something: thousands of connections may wait and hold none. Empty at the end of the stream.
    ///
    /// # Errors
    /// The system's.
    pub async fn receive_pooled(&self) -> Result<Buffer> {
        let operation =
            Operation::ReceivePooled { socket: self.descriptor.clone(), buffer: Buffer::default() };
        let received = self.handle.start(
            || operation,
            |operation, _| match operation {
                Operation::ReceivePooled { buffer, .. } => take(buffer),
                other => unreachable!("{other:?} came back for a receive"),
            },
        );
        match received.await {
            // There is something, but no memory for it: now is the time to wait for some.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                let buffer = self.handle.buffer(POOLED_BYTES).await;
                self.receive(buffer, POOLED_BYTES).await
            }
            other => other,
        }
    }

    /// Fills the spare room of each buffer in turn. The result counts the bytes.
    pub fn receive_vectored(&self, buffers: BufferList) -> Pending<(BufferList, usize)> {
        let socket = self.descriptor.clone();
        self.handle.start(
            || Operation::ReceiveVectored { socket, buffers },
            |operation, bytes| match operation {
                Operation::ReceiveVectored { buffers, .. } => (take(buffers), bytes as usize),
                other => unreachable!("{other:?} came back for a receive"),
            },
        )
    }

    /// Sends `buffer[start..start + length]`. Fewer bytes may be sent: the count says.
    ///
    /// # Panics
    /// When the range lies outside the filled part of the buffer.
    pub fn send(&self, buffer: Buffer, start: usize, length: usize) -> Pending<(Buffer, usize)> {
        self.start_send(buffer, start, length, false)
    }

    /// The same without a copy, where the network can: it ends only when the network is done with
    /// the buffer. Pays from some ten KiB on, and not within one machine.
    ///
    /// # Panics
    /// As for [`Connection::send`].
    pub fn send_zero_copy(
        &self,
        buffer: Buffer,
        start: usize,
        length: usize,
    ) -> Pending<(Buffer, usize)> {
        self.start_send(buffer, start, length, true)
    }

    fn start_send(
        &self,
        buffer: Buffer,
        start: usize,
        length: usize,
        zero_copy: bool,
    ) -> Pending<(Buffer, usize)> {
        let end = start.checked_add(length);
        assert!(end.is_some_and(|end| end <= buffer.len()), "what is sent must lie in its buffer");
        let socket = self.descriptor.clone();
        self.handle.start(
            || Operation::Send { socket, buffer, start, length, zero_copy },
            |operation, bytes| match operation {
                Operation::Send { buffer, .. } => (take(buffer), bytes as usize),
                other => unreachable!("{other:?} came back for a send"),
            },
        )
    }

    /// Sends all of `buffer`, in as many sends as it takes.
    ///
    /// # Errors
    /// The system's.
    pub async fn send_full(&self, buffer: Buffer) -> Result<Buffer> {
        let (mut buffer, mut done) = (buffer, 0);
        while done < buffer.len() {
            let left = buffer.len() - done;
            let (back, sent) = self.send(buffer, done, left).await?;
            if sent == 0 {
                return Err(self.error("send to", io::ErrorKind::WriteZero));
            }
            (buffer, done) = (back, done + sent);
        }
        Ok(buffer)
    }

    /// Sends the filled part of each buffer in turn. The result counts the bytes.
    pub fn send_vectored(&self, buffers: BufferList) -> Pending<(BufferList, usize)> {
        let socket = self.descriptor.clone();
        self.handle.start(
            || Operation::SendVectored { socket, buffers },
            |operation, bytes| match operation {
                Operation::SendVectored { buffers, .. } => (take(buffers), bytes as usize),
                other => unreachable!("{other:?} came back for a send"),
            },
        )
    }

    /// Sends bytes `offset..offset + length` of a file, without a copy through us. The result counts
    /// them; fewer only where the file ends before.
    ///
    /// # Errors
    /// The system's.
    pub async fn send_file(&self, file: &File, offset: u64, length: u64) -> Result<u64> {
        let mut done = 0;
        while done < length {
            let operation = Operation::SendFile {
                file: file.descriptor().clone(),
                offset: offset + done,
                socket: self.descriptor.clone(),
                length: length - done,
            };
            match self.handle.start(|| operation, |_, bytes| bytes).await? {
                0 => break,
                bytes => done += bytes,
            }
        }
        Ok(done)
    }

    /// Ends one or both directions.
    pub fn shut_down(&self, how: Shutdown) -> Pending<()> {
        self.handle.run(Operation::Shutdown { socket: self.descriptor.clone(), how })
    }

    /// Changes a setting.
    pub fn set_option(&self, option: SocketOption) -> Pending<()> {
        self.handle.run(Operation::SetSocketOption { socket: self.descriptor.clone(), option })
    }

    /// Our end's address.
    ///
    /// # Errors
    /// The system's.
    pub async fn address(&self) -> Result<Address> {
        self.handle.address_of(&self.descriptor, false).await
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The system's.
    pub async fn peer_address(&self) -> Result<Address> {
        self.handle.address_of(&self.descriptor, true).await
    }

    /// Closes it and waits for that, unless operations on it are still in flight: then the last
    /// one's end closes it.
    ///
    /// # Errors
    /// The system's.
    pub async fn close(self) -> Result<()> {
        match self.descriptor.into_owned() {
            Some(descriptor) => self.handle.run(Operation::Close { descriptor }).await,
            None => Ok(()),
        }
    }

    /// This socket for an [`Operation`].
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn error(&self, operation: &'static str, kind: io::ErrorKind) -> Error {
        Error::new(operation, Some(self.descriptor.label().into_owned()), kind.into())
    }
}

/// Bytes that [`Connection::receive_pooled`] receives at most.
const POOLED_BYTES: usize = crate::driver::RECEIVE_BYTES;

impl Datagrams {
    /// Appends one datagram to `buffer`; tells where it comes from. What does not fit is lost.
    pub fn receive_from(&self, buffer: Buffer) -> Pending<(Buffer, Address)> {
        let socket = self.descriptor.clone();
        self.handle.start(
            || Operation::ReceiveFrom { socket, buffer, peer: Address::Unnamed },
            |operation, _| match operation {
                Operation::ReceiveFrom { buffer, peer, .. } => (take(buffer), take(peer)),
                other => unreachable!("{other:?} came back for a receive"),
            },
        )
    }

    /// Sends one datagram, the filled part of `buffer`.
    pub fn send_to(&self, buffer: Buffer, address: impl Into<Address>) -> Pending<Buffer> {
        let (socket, address) = (self.descriptor.clone(), address.into());
        self.handle.start(
            || Operation::SendTo { socket, buffer, address },
            |operation, _| match operation {
                Operation::SendTo { buffer, .. } => take(buffer),
                other => unreachable!("{other:?} came back for a send"),
            },
        )
    }

    /// Where it receives.
    ///
    /// # Errors
    /// The system's.
    pub async fn address(&self) -> Result<Address> {
        self.handle.address_of(&self.descriptor, false).await
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.descriptor().label()).finish()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.descriptor.label()).finish()
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Datagrams").field(&self.descriptor.label()).finish()
    }
}
