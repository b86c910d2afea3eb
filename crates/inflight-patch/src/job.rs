//! What a job runs on: the engine, the crew of processor threads, its memory bound, and the
//! progress that others watch and stop it by.

use std::sync::Arc;

use inflight::{DriverChoice, Handle, Progress};

use crate::crew::Crew;
use crate::error::{Error, Result};

/// Memory for which there is one thread at most.
const THREAD_BYTES: u64 = 64 << 20;

/// Everything a job runs on.
#[derive(Debug)]
pub struct Job {
    pub(crate) handle: Handle,
    pub(crate) crew: Crew,
    pub(crate) progress: Arc<Progress>,
}

impl Job {
    /// A job on an engine, with `threads` threads for processor work, or one for each 64 MiB of
    /// memory if that is less. Its memory bound is that of
    /// the engine's buffer pool: whatever is large counts against it.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(handle: &Handle, threads: usize) -> Result<Job> {
        let limit = handle.pool().budget().limit();
        // Every thread works on buffers of its own: more of them than memory serves would wait.
        let threads = threads.min((limit / THREAD_BYTES) as usize).max(1);
        let crew = match handle.driver() {
            // Everything happens in one order there.
            DriverChoice::Simulated => Crew::of_caller(),
            _ => Crew::new(threads).map_err(|error| {
                Error::Io(inflight::Error::new("start the processor threads", None, error))
            })?,
        };
        Ok(Job { handle: handle.clone(), crew, progress: Arc::default() })
    }

    /// The same job, watched and stopped by what somebody has already.
    #[must_use]
    pub fn with_progress(self, progress: &Arc<Progress>) -> Job {
        Job { progress: progress.clone(), ..self }
    }

    /// What others watch and stop the job by.
    #[must_use]
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.progress.enter(phase.name());
    }

    /// Fails where somebody asked the job to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.progress.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// How many units of work are under way at once.
    pub(crate) fn depth(&self) -> usize {
        2 * self.crew.threads() + 4
    }
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Listing trees.
    Scan,
    /// Reading the old tree.
    ReadOld,
    /// Reading the new tree.
    ReadNew,
    /// Reading both trees in step.
    ReadBoth,
    /// Matching the new tree, and reading it where it does not fit into memory.
    Match,
    /// Building the new tree.
    Build,
    /// Comparing contents.
    Verify,
    /// Making what was written durable and giving it its name.
    Finish,
}

impl Phase {
    /// A few words for people.
    const fn name(self) -> &'static str {
        match self {
            Phase::Scan => "listing",
            Phase::ReadOld => "reading old",
            Phase::ReadNew => "reading new",
            Phase::ReadBoth => "reading",
            Phase::Match => "matching new",
            Phase::Build => "building",
            Phase::Verify => "verifying",
            Phase::Finish => "finishing",
        }
    }
}
