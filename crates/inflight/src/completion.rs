//! Completions that the program posts itself, with a payload: how work, results and orders reach a
//! future without an operation of the system.

use std::fmt;
use std::io;
use std::mem::take;
use std::sync::Arc;

use rustix::io::Errno;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::inbox::InboxRef;
use crate::operation::Operation;
use crate::pending::Pending;
use crate::route::acquire;
use crate::shared::Shared;

/// The other end of a posted completion. Dropping it without completing makes its future fail.
pub struct Completer {
    inbox: InboxRef,
    index: u32,
    /// Keeps the engine's memory until the completion is posted.
    _alive: Arc<Shared>,
}

impl Handle {
    /// A future, and what makes it ready: from any thread, once. Like an operation it takes a slot
    /// and allocates nothing.
    ///
    /// # Errors
    /// `WouldBlock` when all slots are out.
    pub fn completion(&self) -> Result<(Completer, Pending<(u64, Buffer)>)> {
        let Ok((inbox, index)) = acquire(&self.shared.inboxes) else {
            let error = io::ErrorKind::WouldBlock.into();
            return Err(Error::new("make a completion", None, error));
        };
        inbox.slots.put(index, || Operation::Post { buffer: Buffer::default() }, false);
        let pending = Pending::in_slot(inbox, index, |operation, value| match operation {
            Operation::Post { buffer } => (value, take(buffer)),
            other => unreachable!("{other:?} came back for a posted completion"),
        });
        inbox.add_completer();
        Ok((Completer { inbox, index, _alive: self.shared.clone() }, pending))
    }
}

impl Completer {
    /// Makes the future ready with a number and a buffer; [`Buffer::default`] where there is none.
    pub fn complete(self, value: u64, buffer: Buffer) {
        // SAFETY: the completer is to this slot what a driver is to others, and this is its end.
        let operation = unsafe { self.inbox.slots.operation(self.index) };
        if let Operation::Post { buffer: place } = operation {
            *place = buffer;
        }
        self.inbox.post(self.index, Ok(value));
        self.inbox.remove_completer();
        // The drop would post again.
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: read once, as `this` is never dropped.
        drop(unsafe { std::ptr::read(&this._alive) });
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.inbox.post(self.index, Err(Errno::CANCELED.raw_os_error()));
        self.inbox.remove_completer();
    }
}

impl fmt::Debug for Completer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completer")
    }
}
