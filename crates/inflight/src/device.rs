//! What lies under a path: the kind of device, how that was found, its limits, and the settings that
//! suit it.
//!
//! The kernel tells in three places: the table of mounts (`proc_pid_mountinfo(5)`) says which file
//! system a path is on and from which device; `/sys/dev/block` and `/sys/class/block` say what a
//! device is made of (`Documentation/ABI/stable/sysfs-block`), through partitions, device mapper, md
//! and loop devices down to the ones that hold the data. All of it is read through the engine.

mod block;
pub(crate) mod facts;
mod mounts;

use std::path::Path;

use self::block::Sources;
pub use self::facts::{Device, DeviceKind, DeviceLimits, DeviceSettings, TransferSettings};
use crate::error::Result;
use crate::handle::Handle;

impl Handle {
    /// Finds what lies under a path, which must exist.
    ///
    /// # Errors
    /// The system's, for the path; where the system says nothing about the device, it is
    /// [`DeviceKind::Unknown`].
    pub async fn device(&self, path: impl AsRef<Path>) -> Result<Device> {
        let mut device = Sources::of_system(self).device_of(path.as_ref()).await?;
        let known = self.shared.measured.iter().find(|known| known.is_same(&device));
        device.measured = known.and_then(|known| known.measured);
        Ok(device)
    }
}
