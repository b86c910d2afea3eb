//! What can be said of a device.

use std::fmt;
use std::path::PathBuf;

/// What kind of thing holds the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum DeviceKind {
    /// No device: it is all in memory.
    Memory,
    /// Solid state, in this machine.
    Solid,
    /// A disk that a hypervisor provides: whatever it really is. Taken for solid; such disks often say
    /// wrongly that they rotate.
    Virtual,
    /// On another machine.
    Network,
    /// A disk that rotates: one place at a time.
    Rotational,
    /// The system does not say.
    #[default]
    Unknown,
}

impl DeviceKind {
    /// All of them.
    pub const ALL: [DeviceKind; 6] = [
        DeviceKind::Memory,
        DeviceKind::Solid,
        DeviceKind::Virtual,
        DeviceKind::Network,
        DeviceKind::Rotational,
        DeviceKind::Unknown,
    ];

    /// The name for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DeviceKind::Memory => "memory",
            DeviceKind::Solid => "solid",
            DeviceKind::Virtual => "virtual",
            DeviceKind::Network => "network",
            DeviceKind::Rotational => "rotational",
            DeviceKind::Unknown => "unknown",
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What lies under a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Device {
    /// The kind. Of several devices under one file system, that of the one with the most to mind, in
    /// the order of [`DeviceKind`].
    pub kind: DeviceKind,
    /// How the kind was found, in a few words.
    pub found_by: String,
    /// The file system, as `ext4`; empty where the system does not say.
    pub file_system: String,
    /// Where that is mounted.
    pub mounted_at: PathBuf,
    /// What it is mounted from, as `/dev/vda1`.
    pub source: String,
    /// The block devices from there down to those that hold the data, as `dm-0`, `sda`, `sdb`.
    pub layers: Vec<String>,
    /// The device's limits, where it has any.
    pub limits: DeviceLimits,
    /// The settings that were measured to be best on it, if [`Builder::measured`](crate::Builder::measured)
    /// was told.
    pub measured: Option<DeviceSettings>,
}

/// What a block device says of itself. 0 where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeviceLimits {
    /// Bytes of the smallest piece it can address.
    pub logical_block_bytes: u64,
    /// Bytes of the smallest piece it can write without reading.
    pub physical_block_bytes: u64,
    /// Bytes of the longest request; the kernel cuts longer ones.
    pub request_bytes_max: u64,
    /// Bytes of a request that suits it best.
    pub request_bytes_best: u64,
    /// Requests that the kernel queues for it.
    pub queue_depth: u64,
}

/// How to read and write large files on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Reading what the page cache does not have.
    pub read: TransferSettings,
    /// Writing.
    pub write: TransferSettings,
    /// Files at once.
    pub streams: usize,
}

/// How to move the data of one large file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferSettings {
    /// Bytes of one request.
    pub request_bytes: usize,
    /// Requests under way.
    pub depth: usize,
    /// Whether to go around the page cache.
    pub direct: bool,
}

impl Device {
    /// The settings that were measured for it, else those that suit its kind.
    #[must_use]
    pub fn settings(&self) -> DeviceSettings {
        self.measured.unwrap_or_else(|| self.settings_of_kind())
    }

    /// Whether both are the same, as far as can be told: what is found under a path is compared, all but
    /// what was measured.
    #[must_use]
    pub fn is_same(&self, other: &Device) -> bool {
        let Device {
            kind,
            found_by: _,
            file_system,
            mounted_at,
            source,
            layers,
            limits,
            measured: _,
        } = self;
        (kind, file_system, mounted_at, source, layers, limits)
            == (
                &other.kind,
                &other.file_system,
                &other.mounted_at,
                &other.source,
                &other.layers,
                &other.limits,
            )
    }

    /// The settings that suit the device's kind.
    #[must_use]
    pub fn settings_of_kind(&self) -> DeviceSettings {
        let (request_bytes, depth, streams, direct) = match self.kind {
            DeviceKind::Memory => (256 << 10, 2, 4, false),
            DeviceKind::Solid | DeviceKind::Virtual => (1 << 20, 4, 3, true),
            DeviceKind::Network => (4 << 20, 8, 8, false),
            DeviceKind::Rotational => (4 << 20, 2, 1, true),
            DeviceKind::Unknown => (1 << 20, 4, 2, false),
        };
        let transfer = TransferSettings { request_bytes, depth, direct };
        DeviceSettings { read: transfer, write: transfer, streams }
    }
}
