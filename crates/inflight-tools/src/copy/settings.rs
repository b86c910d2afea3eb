//! How much is under way at once.

use inflight::Device;

/// Bytes of one large file that are read, and that are written, at once.
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
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
    /// Everything else.
    pub(super) tasks: usize,
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
            tasks: 16,
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
        let (from, to) = (from.settings(), to.settings());
        let (read, write, streams) = (from.read, to.write, from.streams.min(to.streams));
        // One buffer is read and written, so both have the same size.
        let request_bytes = read.request_bytes.max(write.request_bytes);
        let most = (IN_FLIGHT_BYTES_MAX / request_bytes).max(DEPTH_MIN);
        Settings {
            request_bytes,
            depth: read.depth.max(write.depth).min(most),
            streams,
            tasks: 8 * streams,
            direct_read: read.direct,
            direct_write: write.direct,
        }
    }
}
