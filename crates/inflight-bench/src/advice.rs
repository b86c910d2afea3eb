//! What is best here, and why, in plain words.
//!
//! Of what is as fast as the fastest, the way that takes the least processor time, and of these the one that
//! needs the least memory.

use crate::report::{Advice, Kept, KeptTransfer, Measured, Report};
use crate::setting::{Mode, Setting, Work};
use crate::words;

/// As fast as the fastest: what is within so much of it.
const AS_FAST: f64 = 0.97;
/// Within so much for what needs fewer requests under way.
const ENOUGH: f64 = 0.9;
/// Processor time that differs by less is the same: a part, and for what moves bytes also seconds for each.
const SAME_CPU: f64 = 1.15;
const SAME_CPU_SECONDS: f64 = 15e-12;
/// Memory for what is under way of one file, in commands.
const KNOWN_BYTES_MAX: u64 = 16 << 20;
/// What most programs do: requests of this size, one at a time, through the page cache.
const USUAL_BYTES: u64 = 64 << 10;

/// One for each kind of work that was measured.
pub(crate) fn advise(report: &Report) -> Vec<Advice> {
    let all = Work::ALL.into_iter();
    all.filter_map(|work| {
        let best = best(report, work, |_| true)?;
        let why = match work {
            Work::ReadCold | Work::ReadCached | Work::Write => why_of_transfer(report, best),
            Work::ReadRandom => why_of_random(report, best),
            Work::FilesCold | Work::FilesCached | Work::FilesStat => why_of_files(report, best),
        };
        let what = what(best);
        Some(Advice { work, setting: best.setting, rate: best.rate.median, what, why })
    })
    .collect()
}

/// What is best of the ways that commands know, where both directions were measured.
pub(crate) fn kept(report: &Report) -> Option<Kept> {
    // Of some that chance chose, the best need not be good.
    if report.run.rounds == 0 {
        return None;
    }
    let transfer = |work| -> Option<KeptTransfer> {
        let best = best(report, work, is_known_way)?.setting;
        Some(KeptTransfer {
            request_bytes: best.request_bytes as usize,
            depth: best.depth,
            direct: best.mode == Mode::Direct,
        })
    };
    // Where nothing can be read for the first time, nothing is gained by going around the cache.
    let read = transfer(Work::ReadCold).or_else(|| transfer(Work::ReadCached))?;
    Some(Kept { read, write: transfer(Work::Write)? })
}

/// Whether commands move large files in such a way: on one thread, with something under way all the time, and
/// in so much memory that several files at once have theirs.
pub(crate) fn is_known_way(setting: &Setting) -> bool {
    matches!(setting.mode, Mode::Direct | Mode::Buffered)
        && setting.threads == 1
        && setting.memory_bytes() <= KNOWN_BYTES_MAX
        && (setting.depth > 1 || setting.mode == Mode::Buffered)
}

/// The best of those that a condition holds for.
fn best(report: &Report, work: Work, which: impl Fn(&Setting) -> bool) -> Option<&Measured> {
    let of_work = || report.of(work).filter(|measured| which(&measured.setting));
    // Those that were compared at the end count, where there are such.
    let was_compared = of_work().any(|measured| measured.compared);
    let candidates = || of_work().filter(|measured| measured.compared || !was_compared);
    let fastest = candidates().map(|measured| measured.rate.median).fold(0.0, f64::max);
    let enough = match work.counts_operations() {
        true => ENOUGH,
        false => AS_FAST,
    };
    let as_fast = || candidates().filter(|measured| measured.rate.median >= fastest * enough);
    let least = as_fast().map(|measured| measured.cpu_seconds).fold(f64::INFINITY, f64::min);
    let same = if work.counts_operations() { 0.0 } else { SAME_CPU_SECONDS };
    let is_least = |measured: &&Measured| measured.cpu_seconds <= least * SAME_CPU + same;
    as_fast().filter(is_least).min_by_key(|measured| {
        let setting = &measured.setting;
        // With one at a time the device waits whenever a program has something else to do.
        let is_alone = setting.depth == 1 && !work.counts_operations();
        (setting.threads, is_alone, setting.memory_bytes(), setting.depth, setting.mode)
    })
}

fn what(best: &Measured) -> String {
    let Setting { work, mode, request_bytes, depth, threads } = best.setting;
    let under_way = match depth {
        1 => "one after the other".into(),
        _ => format!("{depth} under way at once"),
    };
    let on = if threads > 1 { format!(", on {threads} threads") } else { String::new() };
    let size = words::bytes(request_bytes);
    let each = match mode {
        Mode::Mapped => format!("map the file ({depth} parts at once)"),
        Mode::Populated => format!("map the file and populate {size} at a time, {under_way}"),
        Mode::Direct => {
            format!("go around the page cache (direct I/O), {size} at a time, {under_way}")
        }
        Mode::Buffered => format!("go through the page cache, {size} at a time, {under_way}"),
        Mode::Sequential => format!(
            "go through the page cache with the sequential hint, {size} at a time, {under_way}"
        ),
        Mode::Uncached => {
            format!("go through the page cache with DONTCACHE, {size} at a time, {under_way}")
        }
        Mode::Batch => format!("take many in one operation, {under_way}"),
    };
    let files = match mode {
        Mode::Batch => each.clone(),
        _ => format!("have {}", if depth == 1 { "one at a time".into() } else { under_way }),
    };
    let rate = best.rate.median;
    match work {
        Work::ReadCold | Work::ReadCached | Work::Write => format!(
            "{}{on}: {}, at {:.0} ms of processor time for each GB.",
            capital(&each),
            words::throughput(rate),
            best.cpu_seconds * 1e12,
        ),
        Work::ReadRandom => format!(
            "Have {depth} reads of {size} under way: {} a second, half of them within {}.",
            words::count(rate),
            words::duration(best.latency_us.map_or(0.0, |latency| latency.p50)),
        ),
        Work::FilesCold | Work::FilesCached | Work::FilesStat => {
            format!("{}{on}: {} files a second.", capital(&files), words::count(rate))
        }
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn why_of_transfer(report: &Report, best: &Measured) -> Vec<String> {
    let (work, chosen, rate) = (best.setting.work, best.setting, best.rate.median);
    let mut why = Vec::new();
    let usual =
        Setting { work, mode: Mode::Buffered, request_bytes: USUAL_BYTES, depth: 1, threads: 1 };
    if let Some(usual) = report.find(&usual).filter(|usual| usual.rate.median < rate * AS_FAST) {
        why.push(format!(
            "What most programs do ({} at a time through the page cache, one after the other) reaches {}: \
             this is {} as fast.",
            words::bytes(USUAL_BYTES),
            words::throughput(usual.rate.median),
            words::times(rate / usual.rate.median),
        ));
    }
    for mode in [Mode::Direct, Mode::Buffered] {
        let other = report.fastest(work, |setting| setting.mode == mode && mode != chosen.mode);
        if let Some(other) = other {
            let name = if mode == Mode::Direct { "around" } else { "through" };
            why.push(format!(
                "The best {name} the page cache is {}, at {:.0} ms of processor time for each GB.",
                words::throughput(other.rate.median),
                other.cpu_seconds * 1e12,
            ));
        }
    }
    let alike =
        |setting: &Setting| setting.mode == chosen.mode && setting.threads == chosen.threads;
    if let Some(small) = report.fastest(work, |setting| {
        alike(setting)
            && setting.request_bytes > 0
            && setting.request_bytes * 4 <= chosen.request_bytes
    }) {
        let share = small.rate.median / rate;
        why.push(match share {
            AS_FAST.. => format!(
                "Smaller requests can be as fast ({}), for more processor time or more of them under way.",
                words::bytes(small.setting.request_bytes)
            ),
            _ => format!("Smaller requests reach {:.0} % of it at most.", share * 100.0),
        });
    }
    let of_depth = |depth: usize| report.find(&Setting { depth, ..chosen });
    if chosen.depth > 1
        && let Some(one) = of_depth(1)
    {
        why.push(format!(
            "One after the other, they reach {:.0} % of it.",
            one.rate.median / rate * 100.0
        ));
    }
    let more = report.fastest(work, |setting| {
        alike(setting)
            && setting.request_bytes == chosen.request_bytes
            && setting.depth > chosen.depth
    });
    if let Some(more) = more.filter(|more| more.rate.median < rate * (2.0 - AS_FAST)) {
        let most = report.fastest(work, |_| true).map_or(rate, |most| most.rate.median);
        let limit = match work {
            // That is a matter of the processor.
            Work::ReadCached => ".".into(),
            _ => format!(": the device's limit seems to be about {}.", words::throughput(most)),
        };
        let tried = more.setting.depth;
        why.push(format!("More under way brings no more ({tried} were tried){limit}"));
    }
    why
}

fn why_of_random(report: &Report, best: &Measured) -> Vec<String> {
    let mut why = Vec::new();
    let one = Setting { depth: 1, ..best.setting };
    if let Some(one) = report.find(&one).filter(|_| best.setting.depth > 1) {
        let half = one.latency_us.map_or(0.0, |latency| latency.p50);
        why.push(format!(
            "One after the other it is {} a second, half of them within {}.",
            words::count(one.rate.median),
            words::duration(half)
        ));
    }
    let size = best.setting.request_bytes;
    let fastest = report.fastest(Work::ReadRandom, |setting| setting.request_bytes == size);
    if let Some(fastest) = fastest.filter(|fastest| fastest.setting.depth > best.setting.depth) {
        why.push(format!(
            "With {} it is {} a second, but each waits longer: one of a hundred beyond {}.",
            fastest.setting.depth,
            words::count(fastest.rate.median),
            words::duration(fastest.latency_us.map_or(0.0, |latency| latency.p99)),
        ));
    }
    why
}

fn why_of_files(report: &Report, best: &Measured) -> Vec<String> {
    let one = Setting { mode: Mode::Buffered, depth: 1, ..best.setting };
    let one = report.find(&one).filter(|one| one.setting != best.setting);
    one.map(|one| {
        let (rate, ratio) = (one.rate.median, best.rate.median / one.rate.median);
        format!("One after the other: {}; this is {}.", words::count(rate), words::times(ratio))
    })
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use inflight::{DeviceSettings, TransferSettings};

    use super::*;
    use crate::report::tests::report;

    const DIRECT: Setting = Setting {
        work: Work::ReadCold,
        mode: Mode::Direct,
        request_bytes: 1 << 20,
        depth: 4,
        threads: 1,
    };

    #[test]
    fn of_the_fastest_the_one_that_costs_least_is_best() {
        let mapped = Setting { mode: Mode::Mapped, request_bytes: 0, ..DIRECT };
        let buffered = Setting { mode: Mode::Buffered, ..DIRECT };
        let large = Setting { request_bytes: 16 << 20, ..DIRECT };
        let report = report(&[
            (DIRECT, 1.96e9, 0.05e-9),
            (large, 1.97e9, 0.048e-9),
            (Setting { depth: 16, ..DIRECT }, 1.97e9, 0.048e-9),
            (Setting { depth: 1, ..DIRECT }, 1e9, 0.02e-9),
            (buffered, 2e9, 0.3e-9),
            (Setting { request_bytes: USUAL_BYTES, depth: 1, ..buffered }, 1e9, 0.3e-9),
            (mapped, 1.5e9, 0.01e-9),
        ]);
        let advice = advise(&report);
        assert_eq!(advice.len(), 1);
        assert_eq!(advice[0].setting, DIRECT);
        assert_eq!(
            advice[0].what,
            "Go around the page cache (direct I/O), 1 MiB at a time, 4 under way at once: 1.96 GB/s, \
             at 50 ms of processor time for each GB."
        );
        let why = advice[0].why.join(" ");
        for part in [
            "2.0 times as fast",
            "through the page cache is 2.00",
            "51 %",
            "no more (16 were tried): the device's limit seems to be about 2.00 GB/s",
        ] {
            assert!(why.contains(part), "{part} in {why}");
        }
    }

    #[test]
    fn settings_are_of_a_way_that_commands_know() {
        let mapped = Setting { mode: Mode::Mapped, request_bytes: 0, ..DIRECT };
        let write = Setting { work: Work::Write, mode: Mode::Buffered, ..DIRECT };
        let transfer = TransferSettings { request_bytes: 4096, depth: 1, direct: false };
        let others = DeviceSettings { read: transfer, write: transfer, streams: 7 };
        let measured = [(DIRECT, 1e9, 1e-9), (mapped, 2e9, 1e-9), (write, 1e9, 1e-9)];
        let settings = kept(&report(&measured)).expect("both are there").settings(others);
        let read = TransferSettings { request_bytes: 1 << 20, depth: 4, direct: true };
        assert_eq!(settings.read, read);
        assert_eq!(settings.write, TransferSettings { direct: false, ..read });
        assert_eq!(settings.streams, 7);
        assert_eq!(kept(&report(&measured[..2])), None);
    }
}
