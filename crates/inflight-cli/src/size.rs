//! Sizes as people write them, and how much memory to use when nobody says.

use std::time::Duration;

use inflight_bench::TIME_MIN;

/// The longest time that a measurement may take.
const TIME_MAX: Duration = Duration::from_secs(86_400);

/// Reads `512MiB`, `2GiB`, `1.5G`, `4096` and the like. Letters without `i` mean the same powers
/// of 1024, as memory is never counted otherwise.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write it as 512MiB or 2GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor).ok_or_else(wrong)?,
        Err(_) => {
            let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
            if bytes < u64::MAX as f64 {
                bytes as u64
            } else {
                return Err(wrong());
            }
        }
    };
    if bytes == 0 { Err(wrong()) } else { Ok(bytes) }
}

/// Reads the size of a request.
pub fn parse_request(text: &str) -> Result<usize, String> {
    match parse_size(text)? {
        bytes @ 0x1000..=0x4000_0000 => Ok(bytes as usize),
        _ => Err(format!("a request of {text} is not between 4KiB and 1GiB")),
    }
}

/// Reads `90`, `90s` and `3m`, of 5 seconds to a day.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write it as 90s or 3m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match Duration::from_secs(seconds.ok_or_else(wrong)?) {
        time if time < TIME_MIN => Err(format!(
            "{text} is too short to tell anything: give {}s or more",
            TIME_MIN.as_secs()
        )),
        time if time > TIME_MAX => Err(format!("{text} is more than a day")),
        time => Ok(time),
    }
}

/// The smaller of 4 GiB and half of what is free.
pub fn default_memory_bytes() -> u64 {
    const MOST: u64 = 4 << 30;
    free_memory_bytes().map_or(MOST, |free| (free / 2).min(MOST))
}

/// Memory that could be used without swapping: the system's estimate, or what is left of the
/// control group's limit, if that is less.
#[allow(clippy::disallowed_methods, reason = "asked before there is an engine")]
pub fn free_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let number = |path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|limit| limit.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    Some((kibibytes << 10).min(group.unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_bounds() {
        assert_eq!(parse_request("64KiB"), Ok(65_536));
        assert_eq!((parse_request("4096"), parse_request("1GiB")), (Ok(4096), Ok(1 << 30)));
        assert!(parse_request("4095").unwrap_err().contains("between"));
        assert!(parse_request("2GiB").is_err() && parse_request("much").is_err());
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("2GiB", 2 << 30),
            ("2 gb", 2 << 30),
            ("1.5G", 3 << 29),
            ("64k", 64 << 10),
            ("4096", 4096),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "GiB", "-1", "5x", "1e9", "99999999999GiB", "1.2.3G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("3m", 180), ("2 min", 120), ("1h", 3600)]
        {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "1.5m", "-5", "5d", "4s", "25h", "99999999999999999999s"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_default_is_sane() {
        let bytes = default_memory_bytes();
        assert!(bytes > 0 && bytes <= 4 << 30);
    }
}
