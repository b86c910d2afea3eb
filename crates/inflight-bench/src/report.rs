//! What was measured, as it is kept and compared: JSON that says its version.

use inflight::{Device, DeviceSettings, TransferSettings};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::setting::{Mode, Setting, Work};

/// The version of reports that this one writes and reads.
pub const REPORT_VERSION: u32 = 1;

/// All that was measured, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub report_version: u32,
    /// Where it was measured.
    pub place: Place,
    /// How it was measured.
    pub run: Run,
    /// What is best here.
    pub advice: Vec<Advice>,
    /// What is best of the ways that commands know, for keeping; where both directions were measured.
    pub settings: Option<Kept>,
    /// One for each setting.
    pub measured: Vec<Measured>,
    /// What cannot be done here.
    pub unsupported: Vec<Unsupported>,
    /// What went wrong without harm to the figures.
    pub warnings: Vec<String>,
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The path that was asked about.
    pub path: String,
    /// The file system.
    pub file_system: String,
    /// What it is mounted from.
    pub source: String,
    /// Where it is mounted.
    pub mounted_at: String,
    /// The kind of device.
    pub device_kind: String,
    /// How that was found.
    pub found_by: String,
    /// The block devices beneath.
    pub layers: Vec<String>,
    /// The kernel.
    pub kernel: String,
    /// Cores of the machine that may be used.
    pub cores: usize,
    /// The engine's driver.
    pub driver: String,
    /// Why that one.
    pub driver_reason: String,
}

/// How it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The version of Inflight.
    pub inflight_version: String,
    /// When it began: seconds since 1970.
    pub began: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Of these, making the files.
    pub preparing_seconds: f64,
    /// Seconds of one sample.
    pub sample_seconds: f64,
    /// Times that everything was measured.
    pub rounds: usize,
    /// Times that the best were measured again.
    pub final_rounds: usize,
    /// Settings for which there was no time.
    pub unmeasured: usize,
    /// Bytes of the file that is read for the first time.
    pub cold_bytes: u64,
    /// Bytes of the file that is read again.
    pub cached_bytes: u64,
    /// Small files.
    pub small_files: u64,
    /// Bytes written in all, the files that were made among them.
    pub written_bytes: u64,
    /// Whether the page cache forgets what it is told to.
    pub forgets: bool,
}

/// What was measured of one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was done, and how.
    #[serde(flatten)]
    pub setting: Setting,
    /// Whether it was among the best ones, which were compared at the end.
    pub compared: bool,
    /// Bytes a second; or, where these count, operations.
    pub rate: Spread,
    /// Seconds of processor time for each byte, or operation: the median.
    pub cpu_seconds: f64,
    /// What requests took; not where there are none.
    pub latency_us: Option<Percentiles>,
}

/// A median, and how far the samples lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Samples.
    pub samples: usize,
    /// The middle one.
    pub median: f64,
    /// A quarter is below.
    pub low: f64,
    /// A quarter is above.
    pub high: f64,
}

/// Microseconds that a part of the requests did not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of them.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// All.
    pub max: f64,
}

/// What is best for one kind of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// The work.
    pub work: Work,
    /// How to do it.
    pub setting: Setting,
    /// Bytes, or operations, a second.
    pub rate: f64,
    /// What to do.
    pub what: String,
    /// Why.
    pub why: Vec<String>,
}

/// What is best of the ways that commands know, for keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Reading large files.
    pub read: KeptTransfer,
    /// Writing them.
    pub write: KeptTransfer,
}

/// How to move the data of one large file, on one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTransfer {
    /// Bytes of one request.
    pub request_bytes: usize,
    /// Requests under way.
    pub depth: usize,
    /// Whether to go around the page cache.
    pub direct: bool,
}

impl KeptTransfer {
    const fn settings(self) -> TransferSettings {
        let KeptTransfer { request_bytes, depth, direct } = self;
        TransferSettings { request_bytes, depth, direct }
    }
}

impl Kept {
    /// As settings of a device, with the number of files at once of others.
    #[must_use]
    pub const fn settings(self, others: DeviceSettings) -> DeviceSettings {
        DeviceSettings { read: self.read.settings(), write: self.write.settings(), ..others }
    }
}

/// What cannot be done here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsupported {
    /// What.
    pub work: Work,
    /// How.
    pub mode: Mode,
    /// Why not.
    pub why: String,
}

impl Spread {
    /// Of samples, of which there is one or more.
    pub(crate) fn of(samples: &[f64]) -> Spread {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            // Between the two that are nearest.
            let place = part * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Spread { samples: samples.len(), median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

impl Place {
    pub(crate) fn is_on(&mut self, device: &Device) {
        self.file_system.clone_from(&device.file_system);
        self.source.clone_from(&device.source);
        self.mounted_at = device.mounted_at.display().to_string();
        self.device_kind = device.kind.name().into();
        self.found_by.clone_from(&device.found_by);
        self.layers.clone_from(&device.layers);
    }
}

impl Report {
    /// Reads a report: what `inflight bench --json` printed, alone or with what stands around it.
    ///
    /// # Errors
    /// When it is none, or of another version; `path` is for the message.
    pub fn read(text: &str, path: &str) -> Result<Report> {
        let wrong = |why: String| Error::Report { path: path.into(), why };
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match value.get("report_version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(REPORT_VERSION) => {}
            Some(version) => {
                return Err(wrong(format!("its version is {version}, not {REPORT_VERSION}")));
            }
            None => return Err(wrong("it has no report_version".into())),
        }
        serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
    }

    /// What was measured of one kind of work.
    pub fn of(&self, work: Work) -> impl Iterator<Item = &Measured> {
        self.measured.iter().filter(move |measured| measured.setting.work == work)
    }

    /// The figures of one setting.
    #[must_use]
    pub fn find(&self, setting: &Setting) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.setting == *setting)
    }

    /// The fastest of those that a condition holds for.
    pub fn fastest(&self, work: Work, which: impl Fn(&Setting) -> bool) -> Option<&Measured> {
        self.of(work)
            .filter(|measured| which(&measured.setting))
            .max_by(|a, b| a.rate.median.total_cmp(&b.rate.median))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of settings with their rates and processor times.
    pub(crate) fn report(measured: &[(Setting, f64, f64)]) -> Report {
        let measured = measured.iter().map(|(setting, rate, cpu_seconds)| Measured {
            setting: *setting,
            compared: false,
            rate: Spread { samples: 3, median: *rate, low: rate * 0.95, high: rate * 1.05 },
            cpu_seconds: *cpu_seconds,
            latency_us: Some(Percentiles { p50: 100.0, p90: 150.0, p99: 300.0, max: 1000.0 }),
        });
        let text = String::from("somewhere");
        let place = Place {
            path: text.clone(),
            file_system: "ext4".into(),
            source: "/dev/sda1".into(),
            mounted_at: "/".into(),
            device_kind: "solid".into(),
            found_by: text.clone(),
            layers: vec!["sda".into()],
            kernel: "Linux 6.18".into(),
            cores: 2,
            driver: "uring".into(),
            driver_reason: text,
        };
        let run = Run {
            inflight_version: "0.1.0".into(),
            began: 1_700_000_000,
            seconds: 60.0,
            preparing_seconds: 2.0,
            sample_seconds: 0.05,
            rounds: 3,
            final_rounds: 5,
            unmeasured: 0,
            cold_bytes: 1 << 30,
            cached_bytes: 64 << 20,
            small_files: 4096,
            written_bytes: 1 << 30,
            forgets: true,
        };
        Report {
            report_version: REPORT_VERSION,
            place,
            run,
            advice: Vec::new(),
            settings: None,
            measured: measured.collect(),
            unsupported: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn spreads_are_quartiles() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!((spread.low, spread.median, spread.high, spread.samples), (2.0, 3.0, 4.0, 5));
        assert_eq!(Spread::of(&[1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of(&[7.0]), Spread { samples: 1, median: 7.0, low: 7.0, high: 7.0 });
    }

    #[test]
    fn what_is_no_report_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "EOF"),
            ("[1]", "report_version"),
            (r#"{"report_version": 99}"#, "99, not 1"),
            (r#"{"report_version": 1}"#, "missing field"),
        ] {
            let error = Report::read(text, "a.json").expect_err("none").to_string();
            assert!(error.starts_with("a.json is no report") && error.contains(why), "{error}");
        }
    }
}
