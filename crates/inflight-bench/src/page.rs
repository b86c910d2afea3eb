//! The report as one page that needs nothing else: no script, no file, no network.
//!
//! What is best comes first, in words; then what it was chosen from, drawn; then all figures, and how they
//! were measured.

mod about;
mod chart;

use std::collections::BTreeSet;
use std::fmt::Write;

use self::about::{about, date, words_explained};
use self::chart::{Chart, Point, Series, escape};
use crate::report::{Advice, Measured, Report};
use crate::setting::{Mode, Setting, Work};
use crate::terminal::{rate, shape};
use crate::words;

const STYLE: &str = include_str!("page/style.css");

/// The report as HTML.
#[must_use]
pub fn page(report: &Report) -> String {
    let place = &report.place;
    let mut out = String::new();
    let path = escape(&place.path);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>I/O at {path}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>What is the fastest way to read and write at {path}?</h1>\n\
         <p class=\"soft\">{}, on a {} device ({}), measured by Inflight {} on {}.</p>\n",
        escape(&place.file_system),
        escape(&place.device_kind),
        escape(&if place.layers.is_empty() {
            place.source.clone()
        } else {
            place.layers.join(", ")
        }),
        escape(&report.run.inflight_version),
        date(report.run.began),
    );
    best(&mut out, report);
    large(&mut out, report, Work::ReadCold, READ_COLD);
    large(&mut out, report, Work::Write, WRITE);
    large(&mut out, report, Work::ReadCached, READ_CACHED);
    random(&mut out, report);
    small(&mut out, report);
    words_explained(&mut out, report);
    about(&mut out, report);
    out.push_str(
        "<footer>Made by <code>inflight bench</code>. Other programs on the same device share its speed: \
         measure when it is quiet, and compare runs by <code>inflight bench --compare</code>.</footer>\n\
         </main>\n</body>\n</html>\n",
    );
    out
}

const READ_COLD: &str = "The file is not in memory, so all of it comes from the device. Small requests \
    spend their time on the way there and back; from some size on, the device is the limit.";
const WRITE: &str = "Counted until the data is durable: until the device has said that it would survive \
    a power failure.";
const READ_CACHED: &str = "The system still has the file in memory, in its page cache. This is a matter \
    of the processor: the device does nothing.";

fn best(out: &mut String, report: &Report) {
    let groups = [false, true].map(|counts| {
        let all = report.advice.iter();
        all.filter(move |advice| advice.work.counts_operations() == counts)
    });
    for group in groups {
        out.push_str("<section class=\"best\" aria-label=\"What is best here\">\n");
        group.for_each(|advice| best_of(out, advice));
        out.push_str("</section>\n");
    }
    if report.advice.is_empty() {
        out.push_str(
            "<p>There was no time to measure anything: give more by <code>--time</code>.</p>\n",
        );
    }
}

fn best_of(out: &mut String, advice: &Advice) {
    let Advice { work, rate, what, why, .. } = advice;
    let figure = match (work, work.counts_operations()) {
        (Work::ReadRandom, _) => format!("{} reads/s", words::count(*rate)),
        (_, true) => format!("{} files/s", words::count(*rate)),
        (_, false) => words::throughput(*rate),
    };
    let figure = figure.replacen(' ', " <small>", 1) + "</small>";
    let _ = write!(
        out,
        "<article><h3>{}</h3><div class=\"figure\">{figure}</div><p class=\"what\">{}</p>",
        work.title(),
        escape(what)
    );
    if !why.is_empty() {
        let items: String = why.iter().map(|why| format!("<li>{}</li>", escape(why))).collect();
        let _ = write!(out, "<ul>{items}</ul>");
    }
    out.push_str("</article>\n");
}

/// Charts of what moves large files: rate by size, processor time, and size by depth.
fn large(out: &mut String, report: &Report, work: Work, text: &str) {
    if report.of(work).next().is_none() {
        return;
    }
    let _ = write!(out, "<h2>{}</h2>\n<p>{text}</p>\n<div class=\"charts\">\n", work.title());
    let chart = rate_by_size(report, work);
    card(
        out,
        "Speed, by the size of one request",
        "Each way with the best number of requests under way. The thin lines show where half of the \
         samples lay.",
        &format!("{}{}", chart.legend(), chart.svg()),
    );
    if let Some(advice) = report.advice.iter().find(|advice| advice.work == work) {
        heat(out, report, advice);
    }
    cpu_bars(out, report, work);
    if let Some(chart) = latency_by_size(report, work) {
        card(
            out,
            "How long one request takes",
            "Of the best way, with one request at a time: half are done within the lower line, 99 of 100 \
             within the upper one.",
            &format!("{}{}", chart.legend(), chart.svg()),
        );
    }
    out.push_str("</div>\n");
}

fn card(out: &mut String, title: &str, text: &str, content: &str) {
    let _ = writeln!(
        out,
        "<div class=\"card\"><h3>{}</h3><p>{}</p>{content}</div>",
        escape(title),
        escape(text)
    );
}

/// The names of sizes and numbers below charts.
fn sizes_of(report: &Report, work: Work) -> Vec<u64> {
    let sizes: BTreeSet<u64> = report
        .of(work)
        .map(|measured| measured.setting.request_bytes)
        .filter(|size| *size > 0)
        .collect();
    sizes.into_iter().collect()
}

fn note(measured: &Measured) -> String {
    format!("{}, {}: {}", measured.setting.mode.name(), shape(&measured.setting), rate(measured))
}

fn point(at: usize, measured: &Measured) -> Point {
    let spread = (measured.rate.samples > 1).then_some((measured.rate.low, measured.rate.high));
    Point { at, value: measured.rate.median, spread, note: note(measured) }
}

fn rate_by_size(report: &Report, work: Work) -> Chart {
    let sizes = sizes_of(report, work);
    let mut series = Vec::new();
    for (color, mode) in Mode::ALL.into_iter().enumerate() {
        let is_level = mode == Mode::Mapped;
        let wanted: Vec<u64> = if is_level { vec![0] } else { sizes.clone() };
        let points: Vec<Point> = wanted
            .iter()
            .enumerate()
            .filter_map(|(at, size)| {
                let alike = |s: &Setting| s.mode == mode && s.request_bytes == *size;
                Some(point(at, report.fastest(work, alike)?))
            })
            .collect();
        if !points.is_empty() {
            series.push(Series { name: mode.name().into(), color, points, is_level });
        }
    }
    let limit =
        (work != Work::ReadCached).then(|| report.fastest(work, |_| true)).flatten().map(|most| {
            let rate = words::throughput(most.rate.median);
            (most.rate.median, format!("the most that any way reached: {rate}"))
        });
    Chart {
        title: format!("{}: speed by the size of one request", work.title()),
        ticks: sizes.iter().map(|size| short(*size)).collect(),
        axis: "bytes of one request",
        series,
        is_logarithmic: false,
        label: short_rate,
        limit,
    }
}

/// Of the best way: by the size of one request, and how many are under way.
fn heat(out: &mut String, report: &Report, advice: &Advice) {
    let best = advice.setting;
    let alike = |setting: &Setting| {
        (setting.work, setting.mode, setting.threads) == (best.work, best.mode, 1)
    };
    let all: Vec<&Measured> = report.of(best.work).filter(|m| alike(&m.setting)).collect();
    let sizes: BTreeSet<u64> = all.iter().map(|measured| measured.setting.request_bytes).collect();
    let depths: BTreeSet<usize> = all.iter().map(|measured| measured.setting.depth).collect();
    if sizes.len() < 2 || depths.len() < 2 {
        return;
    }
    let most = all.iter().map(|measured| measured.rate.median).fold(0.0, f64::max);
    let (unit, name) = if most >= 1e9 { (1e9, "GB/s") } else { (1e6, "MB/s") };
    let mut table = String::from("<div class=\"scroll\"><table class=\"heat\"><tr><th></th>");
    for depth in &depths {
        let _ = write!(table, "<th>{depth}</th>");
    }
    table.push_str("</tr>");
    for size in sizes {
        let _ = write!(table, "<tr><th>{}</th>", words::bytes(size));
        for depth in &depths {
            let setting = Setting { request_bytes: size, depth: *depth, threads: 1, ..best };
            let Some(measured) = report.find(&setting) else {
                table.push_str("<td></td>");
                continue;
            };
            let share = measured.rate.median / most;
            let class = if setting == best { " class=\"best-cell\"" } else { "" };
            let _ = write!(
                table,
                "<td{class} style=\"background:rgba(var(--heat),{:.2})\" title=\"{}\">{}</td>",
                share * share * 0.55,
                escape(&note(measured)),
                in_unit(measured.rate.median / unit)
            );
        }
        table.push_str("</tr>");
    }
    table.push_str("</table></div>");
    let last = if best.threads == 1 { "Framed: what is best." } else { "On one thread." };
    let text = format!(
        "{name}. Down, the size of one request; across, how many are under way at once. {last}"
    );
    card(out, &format!("Size and number of requests: {}", best.mode.name()), &text, &table);
}

/// Processor time of each way at its fastest.
fn cpu_bars(out: &mut String, report: &Report, work: Work) {
    let mut bars = Vec::new();
    for (color, mode) in Mode::ALL.into_iter().enumerate() {
        if let Some(fastest) = report.fastest(work, |setting| setting.mode == mode) {
            let label = format!("{:.0} ms", fastest.cpu_seconds * 1e12);
            bars.push((color, mode.name(), fastest.cpu_seconds, label, note(fastest)));
        }
    }
    card(
        out,
        "Processor time for each GB",
        "Of each way at its fastest: what it takes away from whatever else the processor has to do.",
        &bar_list(&bars),
    );
}

fn bar_list(bars: &[(usize, &str, f64, String, String)]) -> String {
    let most = bars.iter().map(|bar| bar.2).fold(f64::MIN_POSITIVE, f64::max);
    let mut out = String::from("<div class=\"bars\">");
    for (color, name, value, label, note) in bars {
        let _ = write!(
            out,
            "<span>{}</span><span title=\"{}\"><i class=\"b{color}\" style=\"width:{:.1}%\"></i></span>\
             <span>{}</span>",
            escape(name),
            escape(note),
            value / most * 100.0,
            escape(label)
        );
    }
    out.push_str("</div>");
    out
}

fn latency_series(points: &[(usize, &Measured)]) -> Vec<Series> {
    let part = |name: &str, color: usize, of: fn(&crate::report::Percentiles) -> f64| Series {
        name: name.into(),
        color,
        is_level: false,
        points: points
            .iter()
            .filter_map(|(at, measured)| {
                let value = of(measured.latency_us.as_ref()?);
                let note = format!(
                    "{}, {}: {name} within {}",
                    measured.setting.mode.name(),
                    shape(&measured.setting),
                    words::duration(value)
                );
                Some(Point { at: *at, value, spread: None, note })
            })
            .collect(),
    };
    vec![
        part("99 of 100", 1, |latency| latency.p99),
        part("9 of 10", 2, |latency| latency.p90),
        part("half", 0, |latency| latency.p50),
    ]
}

fn latency_by_size(report: &Report, work: Work) -> Option<Chart> {
    let best = report.advice.iter().find(|advice| advice.work == work)?.setting;
    let sizes = sizes_of(report, work);
    let points: Vec<(usize, &Measured)> = sizes
        .iter()
        .enumerate()
        .filter_map(|(at, size)| {
            let setting = Setting { request_bytes: *size, depth: 1, threads: 1, ..best };
            report.find(&setting).filter(|measured| measured.latency_us.is_some()).map(|m| (at, m))
        })
        .collect();
    (points.len() > 1).then(|| Chart {
        title: format!("{}: time of one request", work.title()),
        ticks: sizes.iter().map(|size| short(*size)).collect(),
        axis: "bytes of one request",
        series: latency_series(&points),
        is_logarithmic: true,
        label: words::duration,
        limit: None,
    })
}

fn random(out: &mut String, report: &Report) {
    let work = Work::ReadRandom;
    let sizes = sizes_of(report, work);
    let depths: BTreeSet<usize> = report.of(work).map(|measured| measured.setting.depth).collect();
    if depths.len() < 2 {
        return;
    }
    let _ = write!(
        out,
        "<h2>{}</h2>\n<p>What databases do: small blocks here and there, around the page cache. A device \
         serves many at once, so more under way means more in all, until each only waits longer.</p>\n\
         <div class=\"charts\">\n",
        work.title()
    );
    let ticks: Vec<String> = depths.iter().map(ToString::to_string).collect();
    let of_size = |size: u64| -> Vec<(usize, &Measured)> {
        let alike = move |m: &&Measured| m.setting.request_bytes == size;
        let mut all: Vec<&Measured> = report.of(work).filter(alike).collect();
        all.sort_by_key(|measured| measured.setting.depth);
        let at = |depth: usize| depths.iter().position(|one| *one == depth).unwrap_or(0);
        all.into_iter().map(|measured| (at(measured.setting.depth), measured)).collect()
    };
    let series = sizes.iter().enumerate().map(|(color, size)| Series {
        name: format!("blocks of {}", words::bytes(*size)),
        color,
        is_level: false,
        points: of_size(*size).into_iter().map(|(at, measured)| point(at, measured)).collect(),
    });
    let chart = Chart {
        title: "Random reads a second, by how many are under way".into(),
        ticks: ticks.clone(),
        axis: "reads under way",
        series: series.collect(),
        is_logarithmic: false,
        label: words::count,
        limit: None,
    };
    let content = format!("{}{}", chart.legend(), chart.svg());
    card(out, "Reads a second", "By how many are under way at once.", &content);
    if let Some(size) = sizes.first() {
        let chart = Chart {
            title: "Time of one random read, by how many are under way".into(),
            ticks,
            axis: "reads under way",
            series: latency_series(&of_size(*size)),
            is_logarithmic: true,
            label: words::duration,
            limit: None,
        };
        let content = format!("{}{}", chart.legend(), chart.svg());
        let title = format!("How long one read of {} takes", words::bytes(*size));
        card(out, &title, "From asking to having it, waiting in line included.", &content);
    }
    out.push_str("</div>\n");
}

fn small(out: &mut String, report: &Report) {
    let works = [Work::FilesCold, Work::FilesCached, Work::FilesStat];
    let works: Vec<Work> = works.into_iter().filter(|w| report.of(*w).next().is_some()).collect();
    if works.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Small files</h2>\n<p>Of 8 KiB each, in one directory whose names the system knows already. \
         Here the way to each file takes longer than its bytes.</p>\n<div class=\"charts\">\n",
    );
    for work in works {
        let mut all: Vec<&Measured> = report.of(work).collect();
        all.sort_by_key(|measured| (measured.setting.mode, measured.setting.depth));
        let names: Vec<String> = all
            .iter()
            .map(|measured| match (measured.setting.mode, measured.setting.depth) {
                (Mode::Batch, depth) => format!("64 in one, {depth} under way"),
                (_, 1) => "one after the other".into(),
                (_, depth) => format!("{depth} under way"),
            })
            .collect();
        let bars: Vec<_> = all
            .iter()
            .zip(&names)
            .map(|(measured, name)| {
                let color = if measured.setting.mode == Mode::Batch { 3 } else { 0 };
                (color, &**name, measured.rate.median, rate(measured), note(measured))
            })
            .collect();
        let text = match work {
            Work::FilesCold => "Opened, read and closed; contents from the device. Files a second.",
            Work::FilesCached => "Opened, read and closed; contents from memory. Files a second.",
            _ => "Size, times and permissions only (stat). Files a second.",
        };
        card(out, work.title(), text, &bar_list(&bars));
    }
    out.push_str("</div>\n");
}

/// Bytes as short as they go, for axes: `4K`, `1M`.
fn short(bytes: u64) -> String {
    words::bytes(bytes).replace(" KiB", "K").replace(" MiB", "M").replace(" GiB", "G")
}

/// A figure in a table whose unit stands above it.
fn in_unit(figure: f64) -> String {
    match figure {
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// Bytes a second, for axes.
fn short_rate(rate: f64) -> String {
    match rate {
        0.0 => "0".into(),
        10e9.. => format!("{:.0} GB/s", rate / 1e9),
        1e9.. => format!("{:.1} GB/s", rate / 1e9),
        10e6.. => format!("{:.0} MB/s", rate / 1e6),
        _ => format!("{:.1} MB/s", rate / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::advise;
    use crate::report::tests::report;

    #[test]
    fn a_page_shows_what_was_measured_and_needs_nothing_else() {
        let setting = Setting {
            work: Work::ReadCold,
            mode: Mode::Direct,
            request_bytes: 1 << 20,
            depth: 4,
            threads: 1,
        };
        let mut report = report(&[
            (setting, 1.5e9, 0.03e-9),
            (Setting { depth: 1, ..setting }, 0.9e9, 0.03e-9),
            (Setting { request_bytes: 4096, ..setting }, 0.1e9, 0.3e-9),
            (Setting { mode: Mode::Mapped, request_bytes: 0, ..setting }, 0.5e9, 0.1e-9),
        ]);
        report.place.path = "/srv/<b>&\"x\"".into();
        report.advice = advise(&report);
        let page = page(&report);
        for part in [
            "1.50 <small>GB/s</small>",
            "best-cell",
            "&lt;b&gt;&amp;",
            "prefers-color-scheme",
            "0.1e9",
        ] {
            assert_eq!(page.contains(part), part != "0.1e9", "{part}");
        }
        for outside in ["http", "<script", "src=", "url(", "<b>"] {
            assert!(!page.contains(outside), "{outside}");
        }
        // Every element is closed.
        for tag in ["div", "article", "table", "tr", "svg", "ul", "li", "span", "dl", "section"] {
            let (open, closed) = (format!("<{tag}"), format!("</{tag}>"));
            let opened = page.matches(&format!("{open}>")).count()
                + page.matches(&format!("{open} ")).count();
            assert_eq!(opened, page.matches(&closed).count(), "{tag}");
        }
    }
}
