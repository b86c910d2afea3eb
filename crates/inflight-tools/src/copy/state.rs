//! What all tasks of a copy share: its options, its counters, and what went wrong.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inflight::{Budget, Handle, Metadata, Progress};

use super::CopyOptions;
use super::keep::Keep;
use super::tally::{CopyReport, Stopped, Tally};
use crate::error::{Error, Trouble};

/// So many troubles are listed; all are counted.
const TROUBLES_MAX: usize = 10_000;

/// Memory for which there is one comparison at a time.
const COMPARISON_BYTES: u64 = 8 << 20;

fn memory_bytes(handle: &Handle) -> u64 {
    handle.pool().budget().limit()
}

/// What all tasks of a copy share.
pub(crate) struct State {
    pub(crate) handle: Handle,
    pub(crate) progress: Arc<Progress>,
    pub(crate) options: CopyOptions,
    pub(crate) tally: Tally,
    pub(crate) keep: Keep,
    /// Pairs of files that are compared at a time: a reservation of one is one.
    pub(super) comparisons: Budget,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    troubles: Vec<Trouble>,
    trouble_count: u64,
    full: Option<String>,
    kept: Vec<PathBuf>,
}

impl State {
    pub(super) fn new(handle: &Handle, progress: &Arc<Progress>, options: CopyOptions) -> State {
        State {
            handle: handle.clone(),
            progress: progress.clone(),
            options,
            tally: Tally::default(),
            keep: Keep::of_process(handle),
            comparisons: Budget::new((memory_bytes(handle) / COMPARISON_BYTES).clamp(1, 16)),
            notes: Mutex::default(),
        }
    }

    /// Bytes of a request of one that is compared: two of them always fit.
    pub(super) fn comparison_bytes(&self) -> usize {
        (memory_bytes(&self.handle) / 8).clamp(4 << 10, 1 << 20) as usize
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something went wrong; the copy goes on, unless nothing more can be written.
    pub(super) fn trouble(&self, error: Error) {
        let text = error.to_string();
        let full = matches!(&error, Error::Io(error) if is_full(error));
        let mut notes = self.notes();
        if full && notes.full.is_none() {
            notes.full = Some(text.clone());
        }
        notes.trouble_count += 1;
        if notes.troubles.len() < TROUBLES_MAX {
            notes.troubles.push(Trouble { text });
        }
    }

    /// The same, of something that is no error of the system's.
    pub(super) fn trouble_with(&self, path: &Path, what: &str) {
        self.trouble(Error::Paths(format!("{} {what}", path.display())));
    }

    /// A small file was copied.
    pub(super) fn count_file(&self, source: &Metadata) {
        self.keep.note_owner(source);
        self.tally.files.add(1);
        self.tally.bytes.add(source.size);
        self.progress.advance(source.size);
    }

    /// What is not finished was left there.
    pub(super) fn kept(&self, place: PathBuf) {
        self.notes().kept.push(place);
    }

    /// Whether nothing more is to be begun.
    pub(super) fn is_stopped(&self) -> bool {
        self.progress.is_cancelled() || self.notes().full.is_some()
    }

    pub(super) fn report(&self) -> CopyReport {
        let mut report = self.tally.report();
        let mut notes = self.notes();
        report.troubles = std::mem::take(&mut notes.troubles);
        report.trouble_count = notes.trouble_count;
        report.kept = std::mem::take(&mut notes.kept);
        report.warnings = self.keep.warnings();
        report.stopped = match notes.full.take() {
            Some(text) => Some(Stopped::TargetFull(text)),
            None => self.progress.is_cancelled().then_some(Stopped::OnRequest),
        };
        report
    }
}

/// Whether all that follows would fail in the same way.
fn is_full(error: &inflight::Error) -> bool {
    use ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}
