//! Which settings are measured.
//!
//! Not all that can be combined: requests that need much memory together are left out, and threads vary
//! where they can matter. With little time, every second size and depth.

use crate::setting::{Mode, Setting, Work};

/// Bytes of requests: powers of four.
const SIZES: [u64; 7] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];
/// Bytes under way at once at most.
pub(crate) const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a small file.
pub(crate) const SMALL_FILE_BYTES: u64 = 8 << 10;
/// Small files in one operation of [`Mode::Batch`].
pub(crate) const BATCH_FILES: u64 = 64;

/// What can be measured here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    /// Whether there are files to write.
    pub(crate) write: bool,
    /// Whether files may be mapped: nobody else cuts them.
    pub(crate) map: bool,
    /// Whether the page cache can be made to forget a file.
    pub(crate) cold: bool,
    /// Threads of the engine with several.
    pub(crate) threads: usize,
    /// Bytes that may be under way at once, of the engine's memory.
    pub(crate) memory_bytes: u64,
    /// Fewer settings.
    pub(crate) coarse: bool,
}

/// All settings to be measured.
pub(crate) fn plan(scope: Scope) -> Vec<Setting> {
    let mut plan = Plan { scope, settings: Vec::new() };
    if scope.cold {
        plan.reads(Work::ReadCold, Mode::Direct, &[1, 2, 4, 8, 16, 32]);
        plan.reads(Work::ReadCold, Mode::Buffered, &[1, 4, 16]);
        plan.reads(Work::ReadCold, Mode::Sequential, &[1, 4]);
        plan.reads(Work::ReadCold, Mode::Uncached, &[1, 4, 16]);
        plan.on_threads(Work::ReadCold, Mode::Direct, &[4, 16]);
        plan.on_threads(Work::ReadCold, Mode::Buffered, &[4]);
        for size in [4 << 10, 64 << 10] {
            for depth in plan.some(&[1, 2, 4, 8, 16, 32, 64, 128]) {
                plan.add(Work::ReadRandom, Mode::Direct, size, depth, 1);
            }
        }
    }
    plan.reads(Work::ReadCached, Mode::Buffered, &[1, 4]);
    plan.on_threads(Work::ReadCached, Mode::Buffered, &[scope.threads]);
    if scope.map {
        let works = [Some(Work::ReadCached), scope.cold.then_some(Work::ReadCold)];
        for work in works.into_iter().flatten() {
            plan.reads(work, Mode::Populated, &[1, 4]);
            for depth in [1, 4] {
                plan.add(work, Mode::Mapped, 0, depth, 1);
            }
        }
    }
    if scope.write {
        plan.reads(Work::Write, Mode::Direct, &[1, 4, 16]);
        plan.reads(Work::Write, Mode::Buffered, &[1]);
        plan.reads(Work::Write, Mode::Uncached, &[1]);
        for depth in [1, 4, 16, 64] {
            let reads = [Some(Work::FilesCached), scope.cold.then_some(Work::FilesCold)];
            for work in reads.into_iter().flatten() {
                plan.add(work, Mode::Buffered, SMALL_FILE_BYTES, depth, 1);
            }
            plan.add(Work::FilesStat, Mode::Buffered, 0, depth, 1);
        }
        for depth in [1, 4, 16] {
            let reads = [Some(Work::FilesCached), scope.cold.then_some(Work::FilesCold)];
            for work in reads.into_iter().flatten() {
                plan.add(work, Mode::Batch, SMALL_FILE_BYTES, depth, 1);
            }
        }
    }
    plan.settings
}

struct Plan {
    scope: Scope,
    settings: Vec<Setting>,
}

impl Plan {
    fn add(&mut self, work: Work, mode: Mode, request_bytes: u64, depth: usize, threads: usize) {
        let setting = Setting { work, mode, request_bytes, depth, threads };
        let files = if mode == Mode::Batch { BATCH_FILES } else { 1 };
        if setting.memory_bytes() * files <= self.scope.memory_bytes.min(IN_FLIGHT_BYTES_MAX) {
            self.settings.push(setting);
        }
    }

    /// All of them, or with little time the first and every second one.
    fn some<T: Copy>(&self, all: &[T]) -> Vec<T> {
        let step = if self.scope.coarse { 2 } else { 1 };
        all.iter().copied().step_by(step).collect()
    }

    fn reads(&mut self, work: Work, mode: Mode, depths: &[usize]) {
        for size in self.some(&SIZES) {
            for depth in self.some(depths) {
                self.add(work, mode, size, depth, 1);
            }
        }
    }

    /// The same on several threads, where there are any.
    fn on_threads(&mut self, work: Work, mode: Mode, depths: &[usize]) {
        let threads = self.scope.threads;
        if threads > 1 && !self.scope.coarse {
            for size in SIZES {
                for depth in depths {
                    self.add(work, mode, size, *depth, threads);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ALL: Scope = Scope {
        write: true,
        map: true,
        cold: true,
        threads: 2,
        memory_bytes: 1 << 30,
        coarse: false,
    };

    #[test]
    fn nothing_is_planned_twice_or_beyond_the_memory() {
        for scope in [ALL, Scope { coarse: true, ..ALL }, Scope { threads: 64, ..ALL }] {
            let settings = plan(scope);
            let different: HashSet<Setting> = settings.iter().copied().collect();
            assert_eq!(different.len(), settings.len());
            assert!(settings.iter().all(|s| s.memory_bytes() <= IN_FLIGHT_BYTES_MAX));
            for mode in Mode::ALL {
                assert!(settings.iter().any(|s| s.mode == mode), "{mode:?}");
            }
            for work in Work::ALL {
                assert!(settings.iter().any(|s| s.work == work), "{work:?}");
            }
        }
        assert!(plan(Scope { coarse: true, ..ALL }).len() * 2 < plan(ALL).len());
        let little = plan(Scope { memory_bytes: 1 << 20, ..ALL });
        assert!(!little.is_empty() && little.iter().all(|s| s.memory_bytes() <= 1 << 20));
        let batches = little.iter().filter(|s| s.mode == Mode::Batch);
        assert!(batches.map(|s| s.memory_bytes() * BATCH_FILES).max() <= Some(1 << 20));
    }

    #[test]
    fn what_cannot_be_is_not_planned() {
        let settings = plan(Scope { write: false, map: false, ..ALL });
        let is_written = |s: &Setting| s.work == Work::Write || s.work == Work::FilesCold;
        let is_mapped = |s: &Setting| matches!(s.mode, Mode::Mapped | Mode::Populated);
        assert!(!settings.iter().any(|s| is_written(s) || is_mapped(s)));
        let settings = plan(Scope { cold: false, ..ALL });
        let is_cold =
            |s: &Setting| matches!(s.work, Work::ReadCold | Work::FilesCold | Work::ReadRandom);
        assert!(!settings.iter().any(is_cold) && settings.iter().any(is_written));
    }
}
