//! How much is under way at once.

use inflight::{Device, DeviceKind};

/// Bytes of one large file that are read, and that are written, at once.
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Files below this are copied together with others.
pub(super) const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Files from here on go before the others, as they take longest. Those that are smaller go in between, for
/// where all is in memory, large ones side by side wait for that.
const LARGE_BYTES_MIN: u64 = 8 << 20;
/// With one, either device waits.
const DEPTH_MIN: usize = 2;

/// How much is under way at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Bytes of a large file's request.
    pub(super) request_bytes: usize,
    /// Reads, and writes, of one large file.
    pub(super) depth: usize,
    /// Large files.
    pub(super) streams: usize,
    /// What is a large file. Where one stream is as much as there may be, the others would be further streams.
    pub(super) large_bytes_min: u64,
    /// Everything else.
    pub(super) tasks: usize,
    /// Whether each call waits for something far away, so that little is to be done by one operation.
    pub(super) is_far: bool,
    /// Whether large files that the page cache does not have are read around it.
    pub(super) direct_read: bool,
    /// Whether large files are written around it.
    pub(super) direct_write: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            request_bytes: 1 << 20,
            depth: 4,
            streams: 2,
            large_bytes_min: LARGE_BYTES_MIN,
            tasks: 16,
            is_far: false,
            direct_read: false,
            direct_write: false,
        }
    }
}

impl Settings {
    /// With no longer requests than the engine is to make.
    pub(super) fn within(self, request_bytes_max: usize) -> Settings {
        Settings { request_bytes: self.request_bytes.min(request_bytes_max), ..self }
    }

    pub(super) fn of(from: &Device, to: &Device) -> Settings {
        let is_far = [from, to].iter().any(|device| device.kind == DeviceKind::Network);
        let (from, to) = (from.settings(), to.settings());
        let (read, write, streams) = (from.read, to.write, from.streams.min(to.streams));
        // One buffer is read and written, so both have the same size.
        let request_bytes = read.request_bytes.max(write.request_bytes);
        let most = (IN_FLIGHT_BYTES_MAX / request_bytes).max(DEPTH_MIN);
        Settings {
            request_bytes,
            depth: read.depth.max(write.depth).min(most),
            streams,
            large_bytes_min: if streams > 1 { LARGE_BYTES_MIN } else { SMALL_BYTES_MAX },
            tasks: 8 * streams,
            is_far,
            direct_read: read.direct,
            direct_write: write.direct,
        }
    }
}

#[cfg(test)]
mod tests {
    use inflight::{DeviceSettings, TransferSettings};

    use super::*;

    #[test]
    fn what_was_measured_goes_before_what_suits_the_kind() {
        let transfer =
            |request_bytes, depth, direct| TransferSettings { request_bytes, depth, direct };
        let (mut from, mut to) = (Device::default(), Device::default());
        (from.kind, to.kind) = (DeviceKind::Solid, DeviceKind::Solid);
        let unmeasured = Settings::of(&from, &to);
        assert!(unmeasured.direct_read && unmeasured.direct_write && !unmeasured.is_far);
        let mut far = Device::default();
        far.kind = DeviceKind::Network;
        assert!(Settings::of(&far, &to).is_far && Settings::of(&from, &far).is_far);
        let settings = DeviceSettings {
            read: transfer(256 << 10, 16, false),
            write: transfer(4 << 20, 2, true),
            streams: 3,
        };
        from.measured = Some(settings);
        to.measured = Some(settings);
        let Settings { request_bytes, depth, streams, direct_read, direct_write, .. } =
            Settings::of(&from, &to);
        assert_eq!((request_bytes, streams, direct_read, direct_write), (4 << 20, 3, false, true));
        // 16 of 4 MiB would be more than the bound.
        assert_eq!((depth, depth * request_bytes), (8, IN_FLIGHT_BYTES_MAX));
    }
}
