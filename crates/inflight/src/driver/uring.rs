//! The io_uring driver: one ring per worker, submitted and reaped in batches by its thread.
//!
//! What the kernel does asynchronously goes through the ring: opening what exists, reads, writes,
//! closing. What it would hand to one of its own threads (measured: creation, metadata, renames,
//! allocation, sync) goes to our small pool of threads, where a batch costs a third.
//!
//! Setup: SINGLE_ISSUER and DEFER_TASKRUN, so completions are processed when this thread looks
//! for them and never interrupt it; older kernels get a plain ring.

mod entry;
mod in_line;
mod pace;
mod provided;
mod registered;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use rustix::event::EventfdFlags;

use self::entry::{Abilities, Meaning, Plan};
use self::in_line::InLine;
use self::pace::Pace;
use self::provided::Provided;
use self::registered::Registered;
use super::interpreter::Driver;
use super::pool::SyscallPool;
use super::syscall;
use crate::alarm::Bell;
use crate::buffer::Pool;
use crate::descriptor::Sort;
use crate::inbox::{InboxRef, Stage};
use crate::operation::Operation;

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
    /// First, so that it is gone before the memory it knows of.
    ring: IoUring,
    inbox: InboxRef,
    pool: Arc<SyscallPool>,
    /// Accepted, for the pool.
    accepted: Vec<u32>,
    buffers: Pool,
    registered: Registered,
    /// What the kernel receives into by itself, once somebody asked for that.
    provided: Option<Provided>,
    /// Whether the kernel accepts again and again.
    multishot: bool,
    in_line: InLine,
    pace: Pace,
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
        opcode::Fsync::CODE,
        opcode::Accept::CODE,
        opcode::Connect::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::RecvMsg::CODE,
        opcode::SendMsg::CODE,
        opcode::PollAdd::CODE,
        opcode::Timeout::CODE,
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
    pub(super) fn open(
        inbox: InboxRef,
        pool: Arc<SyscallPool>,
        buffers: Pool,
    ) -> io::Result<Uring> {
        let ring = setup(COMPLETIONS)?;
        let mut probe = io_uring::Probe::new();
        // It cannot be asked for by itself: it came a little before zero-copy sends.
        let multishot = ring.submitter().register_probe(&mut probe).is_ok()
            && probe.is_supported(opcode::SendZc::CODE);
        let registered = Registered::open(&ring.submitter(), &buffers);
        inbox.set_registered_bytes(registered.bytes());
        if registered.bytes() == 0 && buffers.set_aside().is_some() {
            inbox.tally.fall_back();
        }
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        inbox.alarm.set(Bell::Event(event));
        Ok(Uring {
            ring,
            inbox,
            pool,
            accepted: Vec::new(),
            buffers,
            registered,
            provided: None,
            multishot,
            in_line: InLine::default(),
            pace: Pace::default(),
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

    /// Sees to it that so many entries can be pushed without a system call between them.
    fn make_room(&mut self, entries: usize) {
        let queue = self.ring.submission();
        let room = queue.capacity() - queue.len();
        drop(queue);
        if room < entries {
            self.enter(0);
        }
    }

    /// One system call: passes on what is queued and waits for `want` completions.
    fn enter(&mut self, want: usize) {
        let queued = self.ring.submission().len() as u32;
        let want = want as u32;
        self.pace.passed_on();
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

    /// Whether the kernel has something to do for us, or to tell.
    fn must_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        if !queue.is_empty() || queue.taskrun() || queue.cq_overflow() {
            return true;
        }
        drop(queue);
        // Without the flag, what has ended shows in the queue by itself.
        !self.ring.completion().is_empty()
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
                name => self.complete(name as u32, entry.result(), entry.flags()),
            }
        }
    }

    /// Works a completion into its operation, and reports that if it was the last.
    #[inline]
    fn complete(&mut self, index: u32, result: i32, flags: u32) {
        let inbox = self.inbox;
        // SAFETY: the completion was reaped and not reported, so the slot is this driver's.
        let (operation, arguments) = unsafe { inbox.slots.operation_and_arguments(index) };
        if operation.is_for_device() {
            self.pace.end();
        }
        match entry::meaning(operation, arguments, &mut self.provided, (result, flags)) {
            Meaning::Ended(outcome) => inbox.finish(index, outcome),
            // A cancel may show as an interruption.
            Meaning::Again | Meaning::OtherWay
                if inbox.slots.is_cancelled(index) || inbox.stage() > Stage::Draining =>
            {
                inbox.finish(index, Err(rustix::io::Errno::CANCELED.raw_os_error()));
            }
            Meaning::Again => self.begin(index),
            Meaning::OtherWay => {
                inbox.tally.fall_back();
                self.begin(index);
            }
            Meaning::Pool => self.accepted.push(index),
            Meaning::More => {}
            Meaning::Stop => {
                let name = inbox.slots.name(index);
                self.push(&opcode::AsyncCancel::new(name).build().user_data(CANCEL));
            }
        }
    }

    /// Sends an operation on its way.
    #[inline]
    fn begin(&mut self, index: u32) {
        let inbox = self.inbox;
        // SAFETY: the slot is this driver's, and nothing of it is on its way.
        let operation = unsafe { inbox.slots.operation(index) };
        let (name, class) = (inbox.slots.name(index), inbox.slots.class(index));
        if matches!(&*operation, Operation::Read { file, .. } if file.sort() == Sort::CachedFile)
            && self.in_line.is_due()
        {
            let read = syscall::read_cached(operation);
            self.in_line.note(read.is_ok());
            if let Ok(bytes) = read {
                inbox.tally.in_line();
                return inbox.finish(index, Ok(bytes));
            }
        }
        let (for_device, registered) = (operation.is_for_device(), self.registered);
        let push = |entry: &squeue::Entry| self.push(entry);
        if !entry::push_plain(operation, class, registered, push, name) {
            self.begin_other(index);
        }
        if for_device && self.pace.queue() {
            self.enter(0);
        }
    }

    /// The same, of those that are not the commonest.
    fn begin_other(&mut self, index: u32) {
        let inbox = self.inbox;
        // SAFETY: as above.
        let (operation, arguments) = unsafe { inbox.slots.operation_and_arguments(index) };
        if matches!(operation, Operation::ReceivePooled { .. }) && self.provided.is_none() {
            let submitter = self.ring.submitter();
            self.provided = Some(Provided::open(&submitter, &self.buffers));
        }
        let provided = self.provided.as_ref().is_some_and(Provided::in_ring);
        if matches!(operation, Operation::ReceivePooled { .. }) && !provided {
            inbox.tally.fall_back();
        }
        let abilities = Abilities { provided, multishot: self.multishot };
        let (name, class) = (inbox.slots.name(index), inbox.slots.class(index));
        match entry::plan(operation, arguments, class, abilities) {
            Plan::Ring(entry) => self.push(&entry.user_data(name)),
            Plan::Linked(first) => {
                let second = entry::second_step(operation);
                // Both in one call, or the kernel does not see the link.
                self.make_room(2);
                self.push(&first.user_data(name));
                self.push(&second.user_data(name));
            }
            Plan::Pool => self.accepted.push(index),
            Plan::Done(outcome) => inbox.finish(index, outcome),
        }
    }
}

impl Driver for Uring {
    fn expect(&mut self, operations: usize) {
        self.in_line.expect(operations);
        self.pace.expect(operations);
    }

    #[inline]
    fn submit(&mut self, index: u32) {
        self.pace.arrived();
        self.inbox.start(index);
        let inbox = self.inbox;
        // SAFETY: the slot was just handed to this driver.
        let operation = unsafe { inbox.slots.operation(index) };
        if !operation.is_valid() || !operation.is_for_system() {
            return inbox.finish(index, Err(rustix::io::Errno::INVAL.raw_os_error()));
        }
        self.begin(index);
    }

    fn cancel(&mut self, name: u64) {
        if !self.inbox.slots.is_current(name) {
            return;
        }
        self.pool.cancel(self.inbox, name);
        self.push(&opcode::AsyncCancel::new(name).build().user_data(CANCEL));
    }

    fn turn(&mut self, wait: bool) {
        self.pace.expect(0);
        self.pool.submit(self.inbox, &mut self.accepted);
        self.arm_alarm();
        if !wait && !self.must_enter() {
            return;
        }
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
