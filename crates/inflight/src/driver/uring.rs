//! The io_uring driver: one ring per worker, submitted and reaped in batches by its thread.
//!
//! What the kernel does asynchronously goes through the ring: opening what exists, reads, writes,
//! closing. What it would hand to one of its own threads (measured: creation, metadata, renames,
//! allocation, sync) goes to our small pool of threads, where a batch costs a third.
//!
//! Setup: SINGLE_ISSUER and DEFER_TASKRUN, so completions are processed when this thread looks
//! for them and never interrupt it; older kernels get a plain ring.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::types::{Fd, OpenHow};
use io_uring::{IoUring, opcode, squeue};
use rustix::event::EventfdFlags;
use rustix::fs::CWD;

use super::interpreter::Driver;
use super::pool::SyscallPool;
use super::syscall;
use crate::alarm::Bell;
use crate::inbox::InboxRef;
use crate::operation::{At, Create, Operation};
use crate::slot::Arguments;

/// Entries of the submission queue; a fuller batch is passed on in several calls.
const SUBMISSIONS: u32 = 256;
/// Entries of the completion queue; the kernel keeps those for which there is no room.
const COMPLETIONS: u32 = 4096;
/// Completions are looked for at every call, also at one that waits for none.
const ENTER_GETEVENTS: u32 = 1;
/// User data of the read on the alarm's event: no slot has this name.
const ALARM: u64 = u64::MAX;
/// User data of cancels, whose own results are of no interest.
const CANCEL: u64 = u64::MAX - 1;

pub(super) struct Uring {
    ring: IoUring,
    inbox: InboxRef,
    pool: Arc<SyscallPool>,
    /// Accepted, for the pool.
    accepted: Vec<u32>,
    /// Where the kernel puts the alarm's count.
    alarm_count: Box<u64>,
    alarm_armed: bool,
}

fn setup(completions: u32) -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_clamp()
        .setup_cqsize(completions)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(SUBMISSIONS);
    match deferred {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            IoUring::builder().setup_clamp().setup_cqsize(completions).build(SUBMISSIONS)
        }
        other => other,
    }
}

/// Whether the kernel lets us have a ring with the operations this driver needs.
pub(super) fn probe() -> io::Result<()> {
    let ring = IoUring::new(2)?;
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::OpenAt2::CODE,
        opcode::Close::CODE,
        opcode::AsyncCancel::CODE,
    ];
    if !ring.params().is_feature_nodrop() || !ring.params().is_feature_submit_stable() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is too old"));
    }
    match needed.iter().all(|code| probe.is_supported(*code)) {
        true => Ok(()),
        false => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring lacks an operation we need"))
        }
    }
}

impl Uring {
    pub(super) fn open(inbox: InboxRef, pool: Arc<SyscallPool>) -> io::Result<Uring> {
        let ring = setup(COMPLETIONS)?;
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        inbox.alarm.set(Bell::Event(event));
        Ok(Uring {
            ring,
            inbox,
            pool,
            accepted: Vec::new(),
            alarm_count: Box::new(0),
            alarm_armed: false,
        })
    }

    /// Puts an entry into the submission queue, passing on what is there when it is full.
    #[inline]
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what the entry points to (the slot's operation and arguments, the alarm's
            // count) stays where it is until its completion is reaped: slots keep both until
            // then, and the count lives as long as the ring.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.enter(0);
        }
    }

    /// One system call: passes on what is queued and waits for `want` completions.
    fn enter(&mut self, want: usize) {
        let queued = self.ring.submission().len() as u32;
        let want = want as u32;
        // SAFETY: no argument is passed that would have to be valid.
        match unsafe { self.ring.submitter().enter::<()>(queued, want, ENTER_GETEVENTS, None) } {
            Ok(_) => {}
            Err(error) => match rustix::io::Errno::from_io_error(&error) {
                // A signal; or the completion queue wants to be emptied first.
                Some(
                    rustix::io::Errno::INTR | rustix::io::Errno::BUSY | rustix::io::Errno::AGAIN,
                ) => {}
                _ => panic!("io_uring_enter failed in a way its manual rules out: {error}"),
            },
        }
    }

    fn arm_alarm(&mut self) {
        if self.alarm_armed {
            return;
        }
        let Some(Bell::Event(event)) = self.inbox.alarm.bell() else {
            return;
        };
        let count: *mut u64 = &raw mut *self.alarm_count;
        let entry =
            opcode::Read::new(Fd(event.as_raw_fd()), count.cast(), 8).build().user_data(ALARM);
        self.push(&entry);
        self.alarm_armed = true;
    }

    fn reap(&mut self) {
        // One at a time: finishing one may wake a task that submits. Not more than there are now, as
        // what finishes may put new ones in line.
        let ended = self.ring.completion().len();
        for _ in 0..ended {
            let Some(entry) = self.ring.completion().next() else { return };
            match entry.user_data() {
                ALARM => self.alarm_armed = false,
                CANCEL => {}
                name => self.finish(name as u32, entry.result()),
            }
        }
    }

    fn finish(&mut self, index: u32, result: i32) {
        let inbox = self.inbox;
        // SAFETY: the completion was reaped and not reported, so the slot is this driver's.
        let (operation, arguments) = unsafe { inbox.slots.operation_and_arguments(index) };
        if matches!(operation, Operation::Close { .. }) {
            // Cancelled before it began, the descriptor is still ours, and dropping it closes it.
            // Whatever else the kernel reports, the number is free again: never repeat a close.
            if result != -rustix::io::Errno::CANCELED.raw_os_error() {
                release_closed(operation);
            }
            self.inbox.finish(index, Ok(0));
            return;
        }
        let retry = [rustix::io::Errno::INTR, rustix::io::Errno::AGAIN];
        if retry.iter().any(|errno| errno.raw_os_error() == -result) {
            let entry = self.entry(index, operation, arguments).expect("it was an entry before");
            self.push(&entry);
            return;
        }
        if result < 0 {
            self.inbox.finish(index, Err(-result));
            return;
        }
        // SAFETY: the kernel reported that many bytes written into the spare room it was given.
        unsafe { syscall::settle(operation, result as usize) };
        self.inbox.finish(index, Ok(result as u64));
    }

    /// The ring's form of an operation, if it goes through the ring.
    #[inline(always)]
    fn entry(
        &self,
        index: u32,
        operation: &mut Operation,
        arguments: &mut Arguments,
    ) -> Option<squeue::Entry> {
        let entry = match operation {
            Operation::Nop => opcode::Nop::new().build(),
            Operation::Open { at, options, .. } if options.create == Create::Never => {
                let (flags, mode, resolve) = syscall::open_arguments(*options);
                let how = OpenHow::new()
                    .flags(u64::from(flags.bits()))
                    .mode(u64::from(mode.bits()))
                    .resolve(resolve.bits());
                let how = arguments.place(how);
                opcode::OpenAt2::new(directory(at), at.path.as_ptr(), how).build()
            }
            Operation::Close { descriptor } => {
                opcode::Close::new(Fd(descriptor.as_raw_fd())).build()
            }
            Operation::Read { file, buffer, length, offset } => {
                let length = syscall::read_length(buffer, *length);
                opcode::Read::new(raw(file), buffer.spare_ptr(), length as u32)
                    .offset(*offset)
                    .build()
            }
            Operation::Write { file, buffer, start, length, offset } => {
                let bytes = syscall::write_range(buffer, *start, *length);
                opcode::Write::new(raw(file), bytes.as_ptr(), bytes.len() as u32)
                    .offset(*offset)
                    .build()
            }
            Operation::ReadVectored { file, buffers, offset } => {
                let file = raw(file);
                let vectors = buffers.spare_vectors();
                opcode::Readv::new(file, vectors.as_ptr().cast(), vectors.len() as u32)
                    .offset(*offset)
                    .build()
            }
            Operation::WriteVectored { file, buffers, offset } => {
                let file = raw(file);
                let vectors = buffers.filled_vectors();
                opcode::Writev::new(file, vectors.as_ptr().cast(), vectors.len() as u32)
                    .offset(*offset)
                    .build()
            }
            _ => return None,
        };
        Some(entry.user_data(self.inbox.slots.name(index)))
    }
}

fn raw(descriptor: &impl AsFd) -> Fd {
    Fd(descriptor.as_fd().as_raw_fd())
}

fn directory(at: &At) -> Fd {
    at.directory.as_ref().map_or(Fd(CWD.as_raw_fd()), raw)
}

/// The kernel closed the descriptor: ours must not close the number again.
fn release_closed(operation: &mut Operation) {
    if let Operation::Close { descriptor } = std::mem::replace(operation, Operation::Nop) {
        let _: RawFd = std::os::fd::IntoRawFd::into_raw_fd(descriptor);
    }
}

impl Driver for Uring {
    fn submit(&mut self, index: u32) {
        self.inbox.start(index);
        let inbox = self.inbox;
        // SAFETY: the slot was just handed to this driver.
        let (operation, arguments) = unsafe { inbox.slots.operation_and_arguments(index) };
        if !operation.is_valid() {
            return inbox.finish(index, Err(rustix::io::Errno::INVAL.raw_os_error()));
        }
        match self.entry(index, operation, arguments) {
            Some(entry) => self.push(&entry),
            None => self.accepted.push(index),
        }
    }

    fn cancel(&mut self, name: u64) {
        if !self.inbox.slots.is_current(name) {
            return;
        }
        self.pool.cancel(self.inbox, name);
        self.push(&opcode::AsyncCancel::new(name).build().user_data(CANCEL));
    }

    fn turn(&mut self, wait: bool) {
        self.pool.submit(self.inbox, &mut self.accepted);
        self.arm_alarm();
        self.enter(usize::from(wait));
        // Awake: what reaping wakes need not ring the alarm.
        self.inbox.alarm.wake_up();
        self.reap();
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The alarm's read points into `alarm_count`: end it before that memory goes.
        if !self.alarm_armed {
            return;
        }
        self.push(&opcode::AsyncCancel::new(ALARM).build().user_data(CANCEL));
        while self.alarm_armed {
            self.enter(1);
            self.reap();
        }
    }
}
