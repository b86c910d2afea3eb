//! The worker of an engine on a simulated disk: it has no thread of its own but runs on the one that
//! waits, so that everything happens in one order.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::buffer::Pool;
use crate::driver::{SimulatedDisk, open_simulated};
use crate::inbox::{InboxRef, Stage};
use crate::local;
use crate::worker::{Worker, run_tasks};

pub(crate) struct Simulation {
    inbox: InboxRef,
    worker: Mutex<Option<Worker>>,
}

impl Simulation {
    pub(crate) fn new(inbox: InboxRef, disk: &SimulatedDisk, buffers: Pool) -> Simulation {
        let worker = Worker::new(inbox, open_simulated(inbox, disk, buffers));
        Simulation { inbox, worker: Mutex::new(Some(worker)) }
    }

    fn worker(&self) -> MutexGuard<'_, Option<Worker>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the calling thread the worker while `f` runs; what waits inside it turns the worker.
    pub(crate) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        if self.inbox.is_worker_here() {
            return f();
        }
        self.inbox.enter();
        let address = std::ptr::from_ref(self) as usize;
        let before = local::set_turning(Some((Simulation::turn_at, address)));
        let leave = Leave { inbox: self.inbox, before };
        let result = f();
        drop(leave);
        result
    }

    fn turn_at(address: usize) {
        // SAFETY: `enter` set the address of the simulation that it borrows, and takes it away
        // before that borrow ends.
        unsafe { &*(address as *const Simulation) }.turn();
    }

    /// Once around: whoever is ready goes on; if nobody is, the next operation takes effect.
    fn turn(&self) {
        if run_tasks(self.inbox) {
            // One of them may be what the caller waits for.
            return self.inbox.note_progress();
        }
        let mut worker = self.worker();
        let Some(worker) = &mut *worker else { panic!("the engine has ended") };
        if self.inbox.is_idle() && self.inbox.in_flight() == 0 && !worker.holds_back() {
            return self.inbox.wait_for_outside();
        }
        worker.work(true);
    }

    /// The engine ends.
    pub(crate) fn end(&self, stage: Stage) {
        self.inbox.set_stage(stage);
        self.enter(|| {
            let Some(mut worker) = self.worker().take() else { return };
            while worker.wind_down() {}
            drop(worker);
            self.inbox.end();
        });
    }
}

/// Ends what `enter` began.
struct Leave {
    inbox: InboxRef,
    before: Option<local::Turning>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        local::set_turning(self.before);
        self.inbox.leave();
    }
}
