//! An operation as the ring takes it, and what it means when the ring is done with it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use io_uring::types::{Fd, FsyncFlags, OpenHow, Timespec};
use io_uring::{cqueue, opcode, squeue};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketType};

use super::provided::{GROUP, Provided};
use super::registered::{self, Registered};
use crate::address::Address;
use crate::class::Class;
use crate::descriptor::{Descriptor, Sort};
use crate::driver::syscall::{self, socket};
use crate::operation::{At, Create, Operation, SyncScope};
use crate::slot::{Arguments, Outcome};

/// How an operation is carried out.
pub(super) enum Plan {
    /// By the ring.
    Ring(squeue::Entry),
    /// By the ring, in two steps of which the second, [`second_step`], waits for the first.
    Linked(squeue::Entry),
    /// By a thread of the pool: the ring would hand it to a kernel thread.
    Pool,
    /// It was, at once.
    Done(Outcome),
}

/// What a completion means.
pub(super) enum Meaning {
    /// The operation has ended.
    Ended(Outcome),
    /// It is to be begun again.
    Again,
    /// The same, in another way, as the system did not want the best.
    OtherWay,
    /// It is the pool's from here on.
    Pool,
    /// Another completion will come.
    More,
    /// The same, and that shall be the last.
    Stop,
}

/// What the kernel can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abilities {
    /// Take buffers by itself.
    pub(super) provided: bool,
    /// Accept again and again.
    pub(super) multishot: bool,
}

/// What the kernel is told of a message, and where it puts the address of a sender.
#[derive(Clone, Copy)]
struct MessageRoom {
    header: libc::msghdr,
    vector: libc::iovec,
    storage: MaybeUninit<libc::sockaddr_storage>,
}

/// The first of two results of one operation.
#[derive(Clone, Copy)]
struct FirstResult(Option<i32>);

/// The system's I/O priority for what has time: the idle class.
const IDLE_PRIORITY: u16 = 3 << 13;

fn errno(error: Errno) -> i32 {
    error.raw_os_error()
}

fn raw(descriptor: &impl AsFd) -> Fd {
    Fd(descriptor.as_fd().as_raw_fd())
}

fn directory(at: &At) -> Fd {
    at.directory.as_ref().map_or(Fd(CWD.as_raw_fd()), raw)
}

fn priority(class: Class) -> u16 {
    match class {
        Class::Foreground => 0,
        Class::Background => IDLE_PRIORITY,
    }
}

/// How a file's reads and writes are done.
fn flags(file: &Descriptor) -> i32 {
    match file.sort() {
        Sort::UncachedFile => syscall::DROP_BEHIND.bits() as i32,
        _ => 0,
    }
}

/// The commonest operations, which the ring carries out as they are: their entry goes straight into
/// the ring, through `push`, in place of being carried there. Says whether it was one.
#[inline(always)]
pub(super) fn push_plain(
    operation: &Operation,
    class: Class,
    registered: Registered,
    mut push: impl FnMut(&squeue::Entry),
    name: u64,
) -> bool {
    match operation {
        Operation::Read { file, buffer, length, offset } => {
            let (flags, file, place) = (flags(file), raw(file), buffer.spare_ptr());
            let (length, priority) = (syscall::read_length(buffer, *length), priority(class));
            if registered.has(place) {
                let read = opcode::ReadFixed::new(file, place, length as u32, registered::NUMBER);
                let read = read.offset(*offset).ioprio(priority).rw_flags(flags);
                push(&read.build().user_data(name));
            } else {
                let read = opcode::Read::new(file, place, length as u32);
                let read = read.offset(*offset).ioprio(priority).rw_flags(flags);
                push(&read.build().user_data(name));
            }
        }
        Operation::Write { file, buffer, start, length, offset } => {
            let bytes = syscall::write_range(buffer, *start, *length);
            let (flags, file) = (flags(file), raw(file));
            let (place, length) = (bytes.as_ptr(), bytes.len() as u32);
            let priority = priority(class);
            if registered.has(place) {
                let write = opcode::WriteFixed::new(file, place, length, registered::NUMBER);
                let write = write.offset(*offset).ioprio(priority).rw_flags(flags);
                push(&write.build().user_data(name));
            } else {
                let write = opcode::Write::new(file, place, length);
                let write = write.offset(*offset).ioprio(priority).rw_flags(flags);
                push(&write.build().user_data(name));
            }
        }
        Operation::Nop => push(&opcode::Nop::new().build().user_data(name)),
        _ => return false,
    }
    true
}

/// What to do with any other operation. `arguments` hold what the kernel finds by address.
#[inline(always)]
pub(super) fn plan(
    operation: &mut Operation,
    arguments: &mut Arguments,
    class: Class,
    abilities: Abilities,
) -> Plan {
    let priority = priority(class);
    Plan::Ring(match operation {
        Operation::Open { at, options, .. } if options.create == Create::Never => {
            let (flags, mode, resolve) = syscall::open_arguments(*options);
            let how = OpenHow::new()
                .flags(u64::from(flags.bits()))
                .mode(u64::from(mode.bits()))
                .resolve(resolve.bits());
            let how = arguments.place(how);
            opcode::OpenAt2::new(directory(at), at.path.as_ptr(), how).build()
        }
        Operation::Close { descriptor } => opcode::Close::new(raw(descriptor)).build(),
        Operation::ReadVectored { file, buffers, offset } => {
            let vectors = buffers.spare_vectors();
            let (pointer, count) = (vectors.as_ptr().cast(), vectors.len() as u32);
            opcode::Readv::new(raw(file), pointer, count).offset(*offset).ioprio(priority).build()
        }
        Operation::WriteVectored { file, buffers, offset } => {
            let vectors = buffers.filled_vectors();
            let (pointer, count) = (vectors.as_ptr().cast(), vectors.len() as u32);
            opcode::Writev::new(raw(file), pointer, count).offset(*offset).ioprio(priority).build()
        }
        Operation::WriteSync { scope: SyncScope::FileSystem, .. } => return Plan::Pool,
        Operation::WriteSync { file, buffer, start, length, offset, .. } => {
            let bytes = syscall::write_range(buffer, *start, *length);
            let write = opcode::Write::new(raw(file), bytes.as_ptr(), bytes.len() as u32);
            arguments.place(FirstResult(None));
            let write = write.offset(*offset).build().flags(squeue::Flags::IO_LINK);
            return Plan::Linked(write);
        }
        Operation::Sleep { duration } => {
            let time = Timespec::new().sec(duration.as_secs()).nsec(duration.subsec_nanos());
            opcode::Timeout::new(arguments.place(time)).build()
        }
        _ => return plan_socket(operation, arguments, abilities),
    })
}

/// What follows the first step of an operation of two.
pub(super) fn second_step(operation: &Operation) -> squeue::Entry {
    match operation {
        Operation::WriteSync { file, scope, .. } => {
            let mut flags = FsyncFlags::empty();
            flags.set(FsyncFlags::DATASYNC, *scope == SyncScope::Data);
            opcode::Fsync::new(raw(file)).flags(flags).build()
        }
        other => unreachable!("{other:?} has one step"),
    }
}

fn plan_socket(operation: &mut Operation, arguments: &mut Arguments, abilities: Abilities) -> Plan {
    Plan::Ring(match operation {
        Operation::Receive { socket, buffer, length } => {
            let length = syscall::read_length(buffer, *length);
            opcode::Recv::new(raw(socket), buffer.spare_ptr(), length as u32).build()
        }
        Operation::ReceivePooled { socket, .. } if abilities.provided => {
            let receive = opcode::Recv::new(raw(socket), std::ptr::null_mut(), 0).buf_group(GROUP);
            receive.build().flags(squeue::Flags::BUFFER_SELECT)
        }
        Operation::ReceivePooled { socket, .. } => {
            opcode::PollAdd::new(raw(socket), libc::POLLIN as u32).build()
        }
        Operation::Send { socket, buffer, start, length, zero_copy: false } => {
            let bytes = syscall::write_range(buffer, *start, *length);
            let send = opcode::Send::new(raw(socket), bytes.as_ptr(), bytes.len() as u32);
            send.flags(libc::MSG_NOSIGNAL).build()
        }
        Operation::Send { socket, buffer, start, length, zero_copy: true } => {
            let bytes = syscall::write_range(buffer, *start, *length);
            arguments.place(FirstResult(None));
            let send = opcode::SendZc::new(raw(socket), bytes.as_ptr(), bytes.len() as u32);
            send.flags(libc::MSG_NOSIGNAL).build()
        }
        Operation::SendFile { socket, .. } => {
            opcode::PollAdd::new(raw(socket), libc::POLLOUT as u32).build()
        }
        Operation::Accept { listener, .. } => {
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let (listener, nowhere) = (raw(listener), std::ptr::null_mut());
            match abilities.multishot {
                true => opcode::AcceptMulti::new(listener).flags(flags).build(),
                false => {
                    let accept = opcode::Accept::new(listener, nowhere, std::ptr::null_mut());
                    accept.flags(flags).build()
                }
            }
        }
        Operation::Connect { address, descriptor } => {
            let begun = socket::new_socket(address, SocketType::STREAM)
                .and_then(|socket| Ok((socket, socket::any(address)?)));
            let (socket, address) = match begun {
                Ok(begun) => begun,
                Err(error) => return Plan::Done(Err(errno(error))),
            };
            let length = address.addr_len();
            let address: *mut SocketAddrAny = arguments.place(address);
            let descriptor = descriptor.insert(socket.into());
            // SAFETY: the address was just placed there.
            let address = unsafe { (*address).as_ptr() }.cast();
            opcode::Connect::new(raw(descriptor), address, length).build()
        }
        _ => return plan_message(operation, arguments),
    })
}

fn plan_message(operation: &mut Operation, arguments: &mut Arguments) -> Plan {
    if syscall::is_instant(operation) {
        return Plan::Done(socket::perform(operation).map_err(errno));
    }
    let (socket, vectors, count, address) = match operation {
        Operation::ReceiveVectored { socket, buffers } => {
            let vectors = buffers.spare_vectors();
            (raw(socket), vectors.as_mut_ptr().cast(), vectors.len(), None)
        }
        Operation::SendVectored { socket, buffers } => {
            let vectors = buffers.filled_vectors();
            (raw(socket), vectors.as_ptr().cast_mut().cast(), vectors.len(), None)
        }
        Operation::ReceiveFrom { socket, .. } => (raw(socket), std::ptr::null_mut(), 1, None),
        Operation::SendTo { socket, address, .. } => match socket::any(address) {
            Ok(address) => (raw(socket), std::ptr::null_mut(), 1, Some(address)),
            Err(error) => return Plan::Done(Err(errno(error))),
        },
        _ => return Plan::Pool,
    };
    // SAFETY: all zeros is what an empty header is.
    let header: libc::msghdr = unsafe { std::mem::zeroed() };
    let vector = match operation {
        Operation::ReceiveFrom { buffer, .. } => {
            libc::iovec { iov_base: buffer.spare_ptr().cast(), iov_len: buffer.spare() }
        }
        Operation::SendTo { buffer, .. } => {
            let start = buffer.filled_ptr().cast_mut().cast();
            libc::iovec { iov_base: start, iov_len: buffer.len() }
        }
        _ => libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
    };
    let room = MessageRoom { header, vector, storage: MaybeUninit::uninit() };
    let room: *mut MessageRoom = arguments.place(room);
    // SAFETY: the room was just placed there, where it stays; nobody else uses it yet.
    let room = unsafe { &mut *room };
    let own: *mut libc::iovec = &raw mut room.vector;
    let vectors: *mut libc::iovec = vectors;
    room.header.msg_iov = if vectors.is_null() { own } else { vectors };
    room.header.msg_iovlen = count;
    if let Some(address) = address {
        // SAFETY: an address is never longer than the storage for any.
        unsafe {
            let bytes = address.as_ptr().cast::<u8>();
            let length = address.addr_len() as usize;
            room.storage.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes, length);
        }
        room.header.msg_name = room.storage.as_mut_ptr().cast();
        room.header.msg_namelen = address.addr_len();
    } else if matches!(operation, Operation::ReceiveFrom { .. }) {
        room.header.msg_name = room.storage.as_mut_ptr().cast();
        room.header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    }
    let header: *mut libc::msghdr = &raw mut room.header;
    Plan::Ring(match operation {
        Operation::ReceiveVectored { .. } | Operation::ReceiveFrom { .. } => {
            opcode::RecvMsg::new(socket, header).build()
        }
        _ => opcode::SendMsg::new(socket, header).flags(libc::MSG_NOSIGNAL as u32).build(),
    })
}

/// What the ring's result means for the operation, into which it is worked.
#[inline]
pub(super) fn meaning(
    operation: &mut Operation,
    arguments: &mut Arguments,
    provided: &mut Option<Provided>,
    (result, flags): (i32, u32),
) -> Meaning {
    let failed = |error: Errno| result == -errno(error);
    match operation {
        Operation::Close { .. } => {
            // Cancelled before it began, the descriptor is still ours, and dropping it closes it.
            // Whatever else the kernel reports, the number is free again: never repeat a close.
            if !failed(Errno::CANCELED)
                && let Operation::Close { descriptor } =
                    std::mem::replace(operation, Operation::Nop)
            {
                let _ = descriptor.into_system().map(OwnedFd::into_raw_fd);
            }
            return Meaning::Ended(Ok(0));
        }
        Operation::WriteSync { .. } => return second_of(arguments, result, flags, false),
        Operation::Send { zero_copy, .. } if *zero_copy => {
            // A socket that cannot is sent to as always.
            let meaning = second_of(arguments, result, flags, true);
            if matches!(meaning, Meaning::Ended(Err(error)) if error == errno(Errno::OPNOTSUPP)) {
                *zero_copy = false;
                return Meaning::OtherWay;
            }
            return meaning;
        }
        Operation::Sleep { .. } if failed(Errno::TIME) => return Meaning::Ended(Ok(0)),
        Operation::Connect { descriptor, .. } if result < 0 => *descriptor = None,
        _ => {}
    }
    if failed(Errno::INTR) || failed(Errno::AGAIN) {
        return Meaning::Again;
    }
    if result < 0 {
        return Meaning::Ended(Err(-result));
    }
    succeeded(operation, arguments, provided, (result, flags))
}

/// Two completions make one result.
fn second_of(arguments: &mut Arguments, result: i32, flags: u32, zero_copy: bool) -> Meaning {
    // SAFETY: placed when the operation was planned.
    let FirstResult(first) = unsafe { arguments.placed() };
    match first {
        None if zero_copy && !cqueue::more(flags) => {
            Meaning::Ended(if result < 0 { Err(-result) } else { Ok(result as u64) })
        }
        None => {
            arguments.place(FirstResult(Some(result)));
            Meaning::More
        }
        Some(first) if first < 0 => Meaning::Ended(Err(-first)),
        // A short write breaks the link; that is not the sync's failure.
        Some(first) if zero_copy || result == -errno(Errno::CANCELED) => {
            Meaning::Ended(Ok(first as u64))
        }
        Some(_) if result < 0 => Meaning::Ended(Err(-result)),
        Some(first) => Meaning::Ended(Ok(first as u64)),
    }
}

fn succeeded(
    operation: &mut Operation,
    arguments: &mut Arguments,
    provided: &mut Option<Provided>,
    (result, flags): (i32, u32),
) -> Meaning {
    let bytes = result as usize;
    // SAFETY: a successful open or accept gives a descriptor that nobody else has, once.
    let owned = || unsafe { OwnedFd::from_raw_fd(result) }.into();
    match operation {
        Operation::Read { buffer, .. } | Operation::Receive { buffer, .. } => {
            // SAFETY: the kernel reports that many bytes written into the room it was given.
            unsafe { buffer.assume_filled(bytes) };
        }
        Operation::ReadVectored { buffers, .. } | Operation::ReceiveVectored { buffers, .. } => {
            // SAFETY: as above, in order.
            unsafe { buffers.assume_filled(bytes) };
        }
        Operation::ReceiveFrom { buffer, peer, .. } => {
            // SAFETY: placed when the operation was planned.
            let room: MessageRoom = unsafe { arguments.placed() };
            // SAFETY: the kernel wrote that many bytes of an address there.
            *peer = unsafe { address(&room.storage, room.header.msg_namelen) };
            // SAFETY: as above; a datagram that was cut counts for what was written.
            unsafe { buffer.assume_filled(bytes.min(buffer.spare())) };
        }
        Operation::Open { descriptor, .. } => {
            *descriptor = Some(owned());
            return Meaning::Ended(Ok(0));
        }
        Operation::Accept { arrivals, .. } => {
            return match (arrivals.push(owned()), cqueue::more(flags)) {
                (true, true) => Meaning::More,
                (true, false) => Meaning::Again,
                (false, true) => Meaning::Stop,
                (false, false) => Meaning::Ended(Ok(0)),
            };
        }
        Operation::ReceivePooled { socket, buffer } => {
            let Some(provided) = provided else {
                return Meaning::Ended(Err(errno(Errno::NOBUFS)));
            };
            match cqueue::buffer_select(flags) {
                Some(number) => *buffer = provided.take(number, bytes),
                // The end of the stream takes no buffer. Nor does finding it readable.
                None if !provided.in_ring() => {
                    return match socket::receive_pooled(socket, buffer, provided.pool()) {
                        Err(Errno::AGAIN) => Meaning::Again,
                        other => Meaning::Ended(other.map_err(errno)),
                    };
                }
                None => {}
            }
        }
        Operation::SendFile { .. } => return Meaning::Pool,
        _ => {}
    }
    Meaning::Ended(Ok(result as u64))
}

/// # Safety
/// The kernel wrote an address of `length` bytes there.
unsafe fn address(
    storage: &MaybeUninit<libc::sockaddr_storage>,
    length: libc::socklen_t,
) -> Address {
    if (length as usize) < size_of::<libc::sa_family_t>() {
        return Address::Unnamed;
    }
    // SAFETY: as the caller promises, and it is long enough to say of which kind it is.
    socket::address_of(&unsafe { SocketAddrAny::read(storage.as_ptr().cast(), length) })
}
