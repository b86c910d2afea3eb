//! How far a long job is, for others to watch and to stop it by.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// How far a job is. Written by the job, read by anyone; [`Progress::cancel`] asks the job to stop at
/// its next step.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<&'static str>,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// What the job is doing, in a word or two.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes worked through and bytes in all, over the whole job; a total of 0 is not known yet.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.done_bytes.load(Relaxed), self.total_bytes.load(Relaxed))
    }

    /// Asks the job to stop and clean up after itself.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// The job begins another phase.
    pub fn enter(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// The job has learnt of so many bytes more that it is to work through.
    pub fn expect(&self, bytes: u64) {
        self.total_bytes.fetch_add(bytes, Relaxed);
    }

    /// The job has worked through so many bytes more.
    pub fn advance(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Relaxed);
    }
}
