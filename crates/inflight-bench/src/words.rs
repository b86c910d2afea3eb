//! Figures as people read them.

/// Bytes, as `64 KiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Three digits of a figure, which are what it is good for.
fn three_digits(figure: f64) -> String {
    match figure {
        ..10.0 => format!("{figure:.2}"),
        ..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// Bytes a second, as `1.93 GB/s`.
#[must_use]
pub fn throughput(rate: f64) -> String {
    match rate {
        1e9.. => format!("{} GB/s", three_digits(rate / 1e9)),
        1e6.. => format!("{} MB/s", three_digits(rate / 1e6)),
        _ => format!("{} kB/s", three_digits(rate / 1e3)),
    }
}

/// So many a second, as `21,400`.
#[must_use]
pub fn count(figure: f64) -> String {
    // No more digits than it is good for.
    let digits = figure.max(1.0).log10().floor() as i32 - 2;
    let unit = 10f64.powi(digits.max(0));
    let plain = format!("{:.0}", (figure / unit).round() * unit);
    let mut grouped = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Microseconds, as `85 µs` or `1.2 ms`.
#[must_use]
pub fn duration(us: f64) -> String {
    match us {
        1e6.. => format!("{} s", three_digits(us / 1e6)),
        1e3.. => format!("{} ms", three_digits(us / 1e3)),
        10.0.. => format!("{us:.0} µs"),
        _ => format!("{us:.1} µs"),
    }
}

/// How many times as much, as `2.1 times`.
#[must_use]
pub fn times(ratio: f64) -> String {
    match ratio {
        10.0.. => format!("{ratio:.0} times"),
        _ => format!("{ratio:.1} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_as_many_digits_as_they_are_good_for() {
        assert_eq!(
            [4096, 1 << 20, 3 << 29, 100].map(bytes),
            ["4 KiB", "1 MiB", "1.5 GiB", "100 B"]
        );
        let rates = [1.934e9, 21.37e9, 456.7e6, 9.87e6, 12_345.0];
        let found = ["1.93 GB/s", "21.4 GB/s", "457 MB/s", "9.87 MB/s", "12.3 kB/s"];
        assert_eq!(rates.map(throughput), found);
        assert_eq!(
            [21_437.0, 999.6, 7.0, 1_234_567.0].map(count),
            ["21,400", "1,000", "7", "1,230,000"]
        );
        assert_eq!(
            [3.21, 85.4, 1234.0, 2.5e6].map(duration),
            ["3.2 µs", "85 µs", "1.23 ms", "2.50 s"]
        );
        assert_eq!([1.26, 14.4].map(times), ["1.3 times", "14 times"]);
    }
}
