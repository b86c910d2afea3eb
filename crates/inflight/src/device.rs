//! What lies under a path: the kind of device, how that was found, its limits, and the settings that
//! suit it.
//!
//! The kernel tells in three places: the table of mounts (`proc_pid_mountinfo(5)`) says which file
//! system a path is on and from which device; `/sys/dev/block` and `/sys/class/block` say what a
//! device is made of (`Documentation/ABI/stable/sysfs-block`), through partitions, device mapper, md
//! and loop devices down to the ones that hold the data. All of it is read through the engine.

mod block;
mod mounts;

use std::fmt;
use std::path::{Path, PathBuf};

use self::block::Sources;
use crate::error::Result;
use crate::handle::Handle;

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

/// How to read and write large files on a device, until measuring says better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Bytes of one request.
    pub request_bytes: usize,
    /// Requests of one stream under way.
    pub depth: usize,
    /// Streams at once.
    pub streams: usize,
    /// Whether to go around the page cache what is read or written once and not there yet.
    pub direct: bool,
}

impl Device {
    /// The settings that suit the device's kind.
    #[must_use]
    pub fn settings(&self) -> DeviceSettings {
        let (request_bytes, depth, streams, direct) = match self.kind {
            DeviceKind::Memory => (256 << 10, 2, 4, false),
            DeviceKind::Solid | DeviceKind::Virtual => (1 << 20, 4, 3, true),
            DeviceKind::Network => (4 << 20, 8, 8, false),
            DeviceKind::Rotational => (4 << 20, 2, 1, true),
            DeviceKind::Unknown => (1 << 20, 4, 2, false),
        };
        DeviceSettings { request_bytes, depth, streams, direct }
    }
}

impl Handle {
    /// Finds what lies under a path, which must exist.
    ///
    /// # Errors
    /// The system's, for the path; where the system says nothing about the device, it is
    /// [`DeviceKind::Unknown`].
    pub async fn device(&self, path: impl AsRef<Path>) -> Result<Device> {
        Sources::of_system(self).device_of(path.as_ref()).await
    }
}
