//! The end of the page: what the ways are, how it was measured, and all figures.

use std::fmt::Write;

use super::chart::escape;
use crate::report::{Measured, Report};
use crate::setting::{Mode, Setting};
use crate::terminal::{how, kept};
use crate::words;

pub(super) fn words_explained(out: &mut String, report: &Report) {
    out.push_str("<h2>The ways, in a few words</h2>\n<dl>\n");
    for mode in Mode::ALL {
        let missing: Vec<&str> = report
            .unsupported
            .iter()
            .filter(|unsupported| unsupported.mode == mode)
            .map(|unsupported| &*unsupported.why)
            .collect();
        let is_there = report.measured.iter().any(|measured| measured.setting.mode == mode);
        if !is_there && missing.is_empty() {
            continue;
        }
        let missing = match missing.first() {
            Some(why) => format!(" Cannot be done here: {}.", escape(why)),
            None => String::new(),
        };
        let _ = writeln!(out, "<dt>{}</dt><dd>{}.{missing}</dd>", mode.name(), mode.meaning());
    }
    out.push_str(
        "<dt>under way</dt><dd>how many requests the device has at once (the queue depth): with one, it \
         waits while the program deals with the last answer.</dd>\n</dl>\n",
    );
}

pub(super) fn about(out: &mut String, report: &Report) {
    let (place, run) = (&report.place, &report.run);
    let _ = write!(out, "<h2>How it was measured</h2>\n<p>{}.</p>\n<dl>\n", escape(&how(report)));
    let mut fact = |name: &str, text: String| {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&text));
    };
    fact(
        "file system",
        format!("{}, {} mounted at {}", place.file_system, place.source, place.mounted_at),
    );
    fact("device", format!("{}: {}", place.device_kind, place.found_by));
    fact("machine", format!("{}, {} cores", place.kernel, place.cores));
    fact("driver", format!("{}: {}", place.driver, place.driver_reason));
    if let Some(kept) = kept(report) {
        fact("with --save", kept);
    }
    let first = match run.forgets {
        true => format!(
            "a file of {}; before each sample the page cache forgets it",
            words::bytes(run.cold_bytes)
        ),
        false => "not measured: the page cache does not forget what is here".into(),
    };
    fact("first reads", first);
    fact("reads again", format!("a file of {}", words::bytes(run.cached_bytes)));
    if run.small_files > 0 {
        fact("small files", format!("{} of 8 KiB", words::count(run.small_files as f64)));
        fact("writes", "over what is there, then made durable; nothing grows".into());
    }
    fact(
        "processor",
        "all threads of this process; what the kernel writes behind its back is not seen".into(),
    );
    out.push_str("</dl>\n<details><summary>All figures</summary>\n<div class=\"scroll\"><table>\n");
    out.push_str(
        "<tr><th>work</th><th>way</th><th>request</th><th>under way</th><th>threads</th><th>median</th>\
         <th>half lie within</th><th>samples</th><th>p50</th><th>p99</th></tr>\n",
    );
    for measured in &report.measured {
        row(out, measured);
    }
    out.push_str("</table></div></details>\n");
}

fn row(out: &mut String, measured: &Measured) {
    let Setting { work, mode, request_bytes, depth, threads } = measured.setting;
    let figure = |value: f64| match work.counts_operations() {
        true => format!("{}/s", words::count(value)),
        false => words::throughput(value),
    };
    let latency = |of: fn(&crate::report::Percentiles) -> f64| {
        measured.latency_us.as_ref().map_or(String::new(), |latency| words::duration(of(latency)))
    };
    let size = if request_bytes > 0 { words::bytes(request_bytes) } else { String::new() };
    let _ = writeln!(
        out,
        "<tr><td>{}</td><td>{}</td><td>{size}</td><td>{depth}</td><td>{threads}</td><td>{}</td>\
         <td>{} – {}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        work.title(),
        mode.name(),
        figure(measured.rate.median),
        figure(measured.rate.low),
        figure(measured.rate.high),
        measured.rate.samples,
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
    );
}

/// A day, of seconds since 1970. (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".)
pub(super) fn date(seconds: u64) -> String {
    let days = (seconds / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        let days = [0, 951_782_400, 951_868_800, 1_700_000_000, 4_107_542_399].map(date);
        let wanted = ["1970-01-01", "2000-02-29", "2000-03-01", "2023-11-14", "2100-02-28"];
        assert_eq!(days, wanted);
    }
}
