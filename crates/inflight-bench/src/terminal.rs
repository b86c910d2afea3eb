//! The summary for a terminal: what is best, and a small chart of each way by the size of its requests.

use std::collections::BTreeSet;

use crate::report::{KeptTransfer, Measured, Report};
use crate::setting::{Mode, Setting, Work};
use crate::words;

/// Characters of a line.
const WIDTH: usize = 96;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Lines that tell what is best here.
#[must_use]
pub fn summary(report: &Report) -> Vec<String> {
    let place = &report.place;
    let mut lines = vec![format!(
        "{} is on {} ({}), {}; driver {}",
        place.path, place.file_system, place.source, place.device_kind, place.driver
    )];
    if !report.run.forgets {
        lines.push(
            "the page cache keeps what it is told to forget: no first reads were measured".into(),
        );
    }
    for advice in &report.advice {
        lines.push(String::new());
        lines.push(advice.work.title().into());
        lines.extend(charts(report, advice.work));
        lines.extend(wrapped(&advice.what));
        lines.extend(advice.why.iter().flat_map(|why| wrapped(why)));
    }
    lines.push(String::new());
    lines.extend(kept(report));
    for unsupported in &report.unsupported {
        let title = unsupported.work.title().to_lowercase();
        lines.push(format!(
            "{title}: {} cannot be done: {}",
            unsupported.mode.name(),
            unsupported.why
        ));
    }
    lines.extend(wrapped(&format!("{}.", how(report))).iter().map(|line| line.trim().into()));
    lines
}

/// What copies do with it, once it is saved.
pub(crate) fn kept(report: &Report) -> Option<String> {
    let shown = |transfer: KeptTransfer| {
        let way = if transfer.direct { "direct" } else { "buffered" };
        format!("{way}, {} × {}", words::bytes(transfer.request_bytes as u64), transfer.depth)
    };
    let kept = report.settings?;
    Some(format!("for copies: read {}; write {}", shown(kept.read), shown(kept.write)))
}

/// A sentence on lines that a terminal has room for: the first a little, the others a little more to the
/// right.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::from(" ")];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("    {word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}

/// How it was measured, in a sentence without its end.
pub(crate) fn how(report: &Report) -> String {
    let run = &report.run;
    let mut text = format!(
        "{} settings measured in {:.0} s: {} rounds of {:.0} ms each in orders by chance, the best {} \
         times more against each other; {} written",
        report.measured.len(),
        run.seconds,
        run.rounds,
        run.sample_seconds * 1000.0,
        run.final_rounds,
        words::bytes(run.written_bytes),
    );
    if run.unmeasured > 0 {
        text.push_str(&format!("; there was no time for {} more", run.unmeasured));
    }
    text
}

/// The rate of a measured setting, with its unit.
pub(crate) fn rate(measured: &Measured) -> String {
    match measured.setting.work.counts_operations() {
        true => format!("{}/s", words::count(measured.rate.median)),
        false => words::throughput(measured.rate.median),
    }
}

/// What was asked for, as `1 MiB × 4`.
pub(crate) fn shape(setting: &Setting) -> String {
    let threads = match setting.threads {
        1 => String::new(),
        threads => format!(", {threads} threads"),
    };
    match setting.request_bytes {
        0 => format!("× {}{threads}", setting.depth),
        size => format!("{} × {}{threads}", words::bytes(size), setting.depth),
    }
}

/// A line for each mode: by the size of requests, or by how many are under way where that is what varies.
fn charts(report: &Report, work: Work) -> Vec<String> {
    let by_size = !work.counts_operations();
    let key = |setting: &Setting| match by_size {
        true => setting.request_bytes,
        false => setting.depth as u64,
    };
    // Of random reads, only the smallest blocks.
    let least = report.of(work).map(|measured| measured.setting.request_bytes).min().unwrap_or(0);
    let is_shown = |setting: &Setting| work != Work::ReadRandom || setting.request_bytes == least;
    let keys: BTreeSet<u64> = report
        .of(work)
        .filter(|measured| is_shown(&measured.setting))
        .map(|measured| key(&measured.setting))
        .filter(|key| *key > 0)
        .collect();
    let Some(most) = report.fastest(work, is_shown).map(|fastest| fastest.rate.median) else {
        return Vec::new();
    };
    let bar = |rate: f64| BARS[((rate / most * 8.0).ceil() as usize).clamp(1, 8) - 1];
    let mut lines = Vec::new();
    for mode in Mode::ALL {
        let of_mode = |setting: &Setting| setting.mode == mode && is_shown(setting);
        let Some(best) = report.fastest(work, of_mode) else { continue };
        let chart: String = keys
            .iter()
            .map(|wanted| {
                // What has no size is the same for all.
                let at = |setting: &Setting| {
                    of_mode(setting) && (key(setting) == *wanted || key(setting) == 0)
                };
                report.fastest(work, at).map_or(' ', |at| bar(at.rate.median))
            })
            .collect();
        let (name, rate, shape) = (mode.name(), rate(best), shape(&best.setting));
        lines.push(format!("  {name:<16} {chart}  {rate:>11}  {shape}"));
    }
    if let (Some(first), Some(last)) = (keys.first(), keys.last())
        && first != last
    {
        let name =
            |key: &u64| if by_size { words::bytes(*key) } else { format!("{key} under way") };
        lines.push(format!("  {:<16} {} to {}", "", name(first), name(last)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn sentences_are_wrapped_between_words() {
        let text = "word ".repeat(50);
        let lines = wrapped(text.trim());
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
        let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        assert_eq!(words.len(), 50);
    }

    #[test]
    fn charts_show_the_best_of_each_size() {
        let setting = |mode, request_bytes, depth| Setting {
            work: Work::ReadCold,
            mode,
            request_bytes,
            depth,
            threads: 1,
        };
        let report = report(&[
            (setting(Mode::Direct, 4096, 1), 0.1e9, 0.0),
            (setting(Mode::Direct, 4096, 4), 0.25e9, 0.0),
            (setting(Mode::Direct, 1 << 20, 4), 2e9, 0.0),
            (setting(Mode::Mapped, 0, 1), 1e9, 0.0),
        ]);
        let lines = charts(&report, Work::ReadCold);
        assert_eq!(lines[0], "  direct           ▁█    2.00 GB/s  1 MiB × 4");
        assert_eq!(lines[1], "  map              ▄▄    1.00 GB/s  × 1");
        assert_eq!(lines[2], "                   4 KiB to 1 MiB");
    }
}
