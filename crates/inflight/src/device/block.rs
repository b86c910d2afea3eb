//! Block devices, and what they are made of.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount};
use super::{Device, DeviceKind, DeviceLimits};
use crate::directory::Directory;
use crate::error::Result;
use crate::handle::{Handle, at};
use crate::metadata::DirectoryBatch;
use crate::operation::{OpenOptions, Operation};
use crate::stream::Reader;

/// Devices looked at on the way down at most: no tower of them is as high.
const LAYERS_MAX: usize = 64;
/// File systems upon files upon file systems.
const NESTED_MAX: usize = 8;

const IN_MEMORY: [&str; 4] = ["tmpfs", "ramfs", "devtmpfs", "hugetlbfs"];
const ON_NETWORK: [&str; 14] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "afs",
    "lustre",
    "glusterfs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.rclone",
    "ocfs2",
];
const BY_HYPERVISOR: [&str; 3] = ["9p", "virtiofs", "vboxsf"];

/// Where the system tells about devices.
pub(super) struct Sources {
    handle: Handle,
    mounts: PathBuf,
    sys: PathBuf,
}

/// A device that holds data, as far as it says what it is.
#[derive(Debug, Default)]
struct Leaf {
    name: String,
    driver: String,
    model: String,
    rotational: Option<bool>,
}

impl Sources {
    pub(super) fn of_system(handle: &Handle) -> Sources {
        Sources {
            handle: handle.clone(),
            mounts: "/proc/self/mountinfo".into(),
            sys: "/sys".into(),
        }
    }

    pub(super) async fn device_of(&self, path: &Path) -> Result<Device> {
        let file = self.handle.open(path, OpenOptions::reading().no_wait()).await?;
        if file.descriptor().foreign_number().is_some() {
            let (kind, found_by) = (DeviceKind::Memory, "it is a simulated disk".into());
            return Ok(Device { kind, found_by, ..Device::default() });
        }
        // The path without detours, as the system knows it.
        let own = format!("/proc/self/fd/{}", file.descriptor().as_fd().as_raw_fd());
        let mut path = self.link(Path::new(&own)).await.unwrap_or_else(|| path.into());
        drop(file);
        let mut outer = Device::default();
        for _ in 0..NESTED_MAX {
            let Some(table) = self.bytes(&self.mounts).await else { break };
            let Some(mount) = mounts::find(&table, &path) else { break };
            let (device, beneath) = self.of_mount(mount).await;
            outer = outer.on(device);
            match beneath {
                Some(beneath) => path = beneath,
                None => return Ok(outer),
            }
        }
        if outer.found_by.is_empty() {
            outer.found_by = "the system does not say what it is on".into();
        }
        Ok(outer)
    }

    /// What a file system is on; and the path of what that is in turn, if it is a file or a directory.
    async fn of_mount(&self, mount: Mount) -> (Device, Option<PathBuf>) {
        let mut device = Device {
            file_system: mount.file_system.clone(),
            mounted_at: mount.place,
            source: mount.source.clone(),
            ..Device::default()
        };
        let kind = match &*mount.file_system {
            name if IN_MEMORY.contains(&name) => Some(DeviceKind::Memory),
            name if ON_NETWORK.contains(&name) => Some(DeviceKind::Network),
            name if BY_HYPERVISOR.contains(&name) => Some(DeviceKind::Virtual),
            _ => None,
        };
        if let Some(kind) = kind {
            device.kind = kind;
            device.found_by = format!("the file system is {}", mount.file_system);
            return (device, None);
        }
        if mount.file_system == "overlay" {
            let mut options = mount.options.split(',');
            // What is new is written to the upper directory; without one, all is in the lower ones.
            let upper = options.clone().find_map(|option| option.strip_prefix("upperdir="));
            let lower = options.find_map(|option| option.strip_prefix("lowerdir="));
            let beneath = upper.or_else(|| lower?.split(':').next()).map(PathBuf::from);
            return (device, beneath);
        }
        let first = match mount.device {
            // Without a number of its own, as btrfs: by the name of what it is mounted from.
            (0, _) => self.by_name(&mount.source).await,
            (major, minor) => {
                let place = self.sys.join(format!("dev/block/{major}:{minor}"));
                self.link(&place).await.map(|link| name_of(&link))
            }
        };
        match first {
            Some(first) => self.of_block(device, first).await,
            None => {
                let about = format!("nothing is known of {}", mount.source);
                device.found_by = about;
                (device, None)
            }
        }
    }

    /// The name of a block device such as `/dev/mapper/root`.
    async fn by_name(&self, source: &str) -> Option<String> {
        let path = Path::new(source);
        path.strip_prefix("/dev").ok()?;
        let link = self.link(path).await;
        Some(name_of(&link.unwrap_or_else(|| path.into())))
    }

    /// What a block device is made of, and the file behind it if it is a loop device.
    async fn of_block(&self, mut device: Device, first: String) -> (Device, Option<PathBuf>) {
        let mut waiting = VecDeque::from([first]);
        let mut beneath = None;
        while let Some(name) = waiting.pop_front() {
            if device.layers.contains(&name) || device.layers.len() == LAYERS_MAX {
                continue;
            }
            let mut place = self.sys.join("class/block").join(&name);
            device.layers.push(name.clone());
            if self.bytes(&place.join("partition")).await.is_some() {
                // A partition has the queue of its disk, in whose directory it is.
                let Some(link) = self.link(&place).await else { continue };
                let Some(disk) = link.parent().map(name_of) else { continue };
                place = self.sys.join("class/block").join(&disk);
                device.layers.push(disk);
            }
            if device.limits == DeviceLimits::default() {
                device.limits = self.limits(&place.join("queue")).await;
            }
            let slaves = self.names(&place.join("slaves")).await;
            if !slaves.is_empty() {
                waiting.extend(slaves);
                continue;
            }
            if let Some(file) = self.bytes(&place.join("loop/backing_file")).await {
                let file = file.strip_suffix(b"\n").unwrap_or(&file);
                beneath = Some(PathBuf::from(OsStr::from_bytes(file)));
                continue;
            }
            let (kind, found_by) = self.leaf(&place).await.kind();
            if device.found_by.is_empty() || kind > device.kind {
                (device.kind, device.found_by) = (kind, found_by);
            }
        }
        (device, beneath)
    }

    async fn leaf(&self, place: &Path) -> Leaf {
        let text = async |name: &str| self.text(&place.join(name)).await.unwrap_or_default();
        let driver = self.link(&place.join("device/driver")).await;
        Leaf {
            name: name_of(place),
            driver: driver.map(|link| name_of(&link)).unwrap_or_default(),
            model: format!("{} {}", text("device/vendor").await, text("device/model").await),
            rotational: match &*text("queue/rotational").await {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            },
        }
    }

    async fn limits(&self, queue: &Path) -> DeviceLimits {
        let number = async |name: &str| {
            let text = self.text(&queue.join(name)).await;
            text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        DeviceLimits {
            logical_block_bytes: number("logical_block_size").await,
            physical_block_bytes: number("physical_block_size").await,
            request_bytes_max: number("max_sectors_kb").await.saturating_mul(1024),
            request_bytes_best: number("optimal_io_size").await,
            queue_depth: number("nr_requests").await,
        }
    }

    async fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.handle.open(path, OpenOptions::reading()).await.ok()?;
        let mut reader = Reader::whole(file).await.ok()?.requests(64 << 10, 1);
        let mut bytes = Vec::new();
        while let Some((_, buffer)) = reader.next().await.ok()? {
            bytes.extend_from_slice(&buffer);
        }
        Some(bytes)
    }

    async fn text(&self, path: &Path) -> Option<String> {
        let bytes = self.bytes(path).await?;
        Some(String::from_utf8_lossy(&bytes).trim().to_string())
    }

    /// What a symbolic link says.
    async fn link(&self, path: &Path) -> Option<PathBuf> {
        let at = at("read symbolic link", None, path).ok()?;
        match self.handle.submit(Operation::ReadLink { at, target: Vec::new() }).await {
            Ok((Operation::ReadLink { target, .. }, _)) => {
                Some(std::ffi::OsString::from_vec(target).into())
            }
            _ => None,
        }
    }

    /// The names in a directory, sorted.
    async fn names(&self, path: &Path) -> Vec<String> {
        let Ok(directory) = self.handle.open_directory(path).await else { return Vec::new() };
        let mut names = all_names(&directory).await.unwrap_or_default();
        names.sort_unstable();
        names
    }
}

async fn all_names(directory: &Directory) -> Result<Vec<String>> {
    let (mut names, mut batch) = (Vec::new(), DirectoryBatch::default());
    loop {
        batch = directory.read(batch, false).await?;
        if batch.is_empty() {
            return Ok(names);
        }
        names.extend(batch.iter().map(|entry| entry.name.to_string_lossy().into_owned()));
    }
}

impl Device {
    /// This, on what was found beneath it.
    fn on(mut self, beneath: Device) -> Device {
        if self.file_system.is_empty() {
            return beneath;
        }
        self.layers.extend(beneath.layers);
        if beneath.kind > self.kind || self.found_by.is_empty() {
            self.found_by = beneath.found_by;
            self.kind = beneath.kind;
        }
        if self.limits == DeviceLimits::default() {
            self.limits = beneath.limits;
        }
        self
    }
}

impl Leaf {
    /// What it is, and how that was found.
    fn kind(&self) -> (DeviceKind, String) {
        let Leaf { name, driver, model, rotational } = self;
        let begins = |names: &[&str]| names.iter().any(|begin| name.starts_with(begin));
        if begins(&["ram", "zram", "pmem"]) {
            return (DeviceKind::Memory, format!("{name} is memory"));
        }
        if begins(&["nbd", "rbd", "drbd"]) {
            return (DeviceKind::Network, format!("{name} is on another machine"));
        }
        let hypervisors = ["QEMU", "VBOX", "VMware", "Msft", "Google", "Amazon Elastic"];
        if let Some(by) = hypervisors.iter().find(|by| model.contains(**by)) {
            return (DeviceKind::Virtual, format!("{name} is made by {by}"));
        }
        if begins(&["vd", "xvd"]) || driver.starts_with("virtio") || driver == "vbd" {
            let by = if driver.is_empty() { "its name" } else { driver };
            return (DeviceKind::Virtual, format!("{name} is a hypervisor's, by {by}"));
        }
        match rotational {
            Some(true) => (DeviceKind::Rotational, format!("{name} says that it rotates")),
            Some(false) => (DeviceKind::Solid, format!("{name} says that it does not rotate")),
            None => (DeviceKind::Unknown, format!("{name} says nothing of itself")),
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "makes what sysfs would show")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::Engine;

    /// A made-up machine: what its kernel would show.
    struct Machine {
        engine: Engine,
        root: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Machine {
            let engine = Engine::builder().workers(1).build().expect("an engine");
            let root = tempfile::tempdir().expect("a temporary directory");
            fs::create_dir_all(root.path().join("sys/class/block")).expect("made");
            fs::create_dir_all(root.path().join("sys/dev/block")).expect("made");
            Machine { engine, root }
        }

        fn write(&self, path: &str, text: &str) -> &Machine {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
            self
        }

        /// A device of the kernel's tree, with what it says of itself.
        fn device(&self, place: &str, number: &str, says: &[(&str, &str)]) -> &Machine {
            let path = self.root.path().join("sys/devices").join(place);
            fs::create_dir_all(&path).expect("made");
            for (name, text) in says {
                self.write(&format!("sys/devices/{place}/{name}"), text);
            }
            let class = self.root.path().join("sys/class/block").join(name_of(&path));
            symlink(&path, class).expect("made");
            symlink(&path, self.root.path().join("sys/dev/block").join(number)).expect("made");
            self
        }

        fn slaves(&self, place: &str, names: &[&str]) -> &Machine {
            for name in names {
                self.write(&format!("sys/devices/{place}/slaves/{name}"), "");
            }
            self
        }

        /// What is under the machine's own root, if the root is mounted like this.
        fn device_at_root(&self, mount: &str) -> Device {
            self.write("mounts", &format!("{mount}\n"));
            let sources = Sources {
                handle: self.engine.handle().clone(),
                mounts: self.root.path().join("mounts"),
                sys: self.root.path().join("sys"),
            };
            self.engine.block_on(sources.device_of(Path::new("/"))).expect("it is there")
        }
    }

    #[test]
    fn a_partition_is_on_its_disk() {
        let machine = Machine::new();
        let queue = [
            ("queue/rotational", "1\n"),
            ("queue/logical_block_size", "512\n"),
            ("queue/physical_block_size", "4096\n"),
            ("queue/max_sectors_kb", "1280\n"),
            ("queue/optimal_io_size", "0\n"),
            ("queue/nr_requests", "64\n"),
        ];
        machine.device("sda", "8:0", &queue).device("sda/sda2", "8:2", &[("partition", "2\n")]);
        let device = machine.device_at_root("1 0 8:2 / / rw - ext4 /dev/sda2 rw");
        assert_eq!((device.kind, &*device.file_system), (DeviceKind::Rotational, "ext4"));
        assert_eq!(device.layers, ["sda2", "sda"]);
        assert_eq!(device.found_by, "sda says that it rotates");
        assert_eq!(device.limits.request_bytes_max, 1280 << 10);
        assert_eq!((device.limits.physical_block_bytes, device.limits.queue_depth), (4096, 64));
        assert_eq!(device.settings().streams, 1);
    }

    #[test]
    fn towers_are_climbed_down_to_what_is_slowest() {
        let machine = Machine::new();
        machine
            .device("nvme0n1", "259:0", &[("queue/rotational", "0")])
            .device("sdb", "8:16", &[("queue/rotational", "1")])
            .device("md0", "9:0", &[])
            .slaves("md0", &["nvme0n1", "sdb"])
            .device("dm-0", "253:0", &[])
            .slaves("dm-0", &["md0"]);
        let device = machine.device_at_root("1 0 253:0 / / rw - xfs /dev/mapper/root rw");
        assert_eq!(device.kind, DeviceKind::Rotational);
        assert_eq!(device.layers, ["dm-0", "md0", "nvme0n1", "sdb"]);
        // A tower that stands on itself comes to an end.
        let machine = Machine::new();
        machine.device("dm-1", "253:1", &[]).slaves("dm-1", &["dm-1"]);
        let device = machine.device_at_root("1 0 253:1 / / rw - xfs /dev/dm-1 rw");
        assert_eq!((device.kind, device.layers), (DeviceKind::Unknown, vec!["dm-1".to_string()]));
    }

    #[test]
    fn a_loop_device_is_on_the_device_of_its_file() {
        let machine = Machine::new();
        let file = machine.root.path().join("image");
        let backing = format!("{}\n", file.display());
        machine
            .device("loop3", "7:3", &[("loop/backing_file", &backing), ("queue/rotational", "1")])
            .device("vda", "254:0", &[("queue/rotational", "1")]);
        let inner = format!("2 1 254:0 / {} rw - ext4 /dev/vda rw", machine.root.path().display());
        let device =
            machine.device_at_root(&format!("1 0 7:3 / / rw - squashfs /dev/loop3 ro\n{inner}"));
        assert_eq!((device.kind, &*device.file_system), (DeviceKind::Virtual, "squashfs"));
        assert_eq!(device.layers, ["loop3", "vda"]);
        assert_eq!(device.found_by, "vda is a hypervisor's, by its name");
    }

    #[test]
    fn file_systems_without_a_device_say_it_themselves() {
        let machine = Machine::new();
        let kind = |mount: &str| machine.device_at_root(mount).kind;
        assert_eq!(kind("1 0 0:5 / / rw - tmpfs tmpfs rw"), DeviceKind::Memory);
        assert_eq!(kind("1 0 0:6 / / rw - nfs4 host:/x rw"), DeviceKind::Network);
        assert_eq!(kind("1 0 0:7 / / rw - virtiofs share rw"), DeviceKind::Virtual);
        assert_eq!(kind("1 0 0:8 / / rw - fuse.strange x rw"), DeviceKind::Unknown);
        assert_eq!(kind("1 0 77:8 / / rw - ext4 /dev/gone rw"), DeviceKind::Unknown);
        assert_eq!(kind("nothing of use"), DeviceKind::Unknown);
        machine.device("nvme1n1", "259:9", &[("queue/rotational", "0")]);
        assert_eq!(kind("1 0 0:9 / / rw - btrfs /dev/nvme1n1 rw"), DeviceKind::Solid);
        let upper = machine.root.path().join("upper");
        let overlay = format!(
            "1 0 0:9 / / rw - overlay overlay rw,lowerdir=/a:/b,upperdir={0}\n\
             2 1 259:9 / {0} rw - ext4 /dev/nvme1n1 rw",
            upper.display()
        );
        let device = machine.device_at_root(&overlay);
        assert_eq!((device.kind, &*device.file_system), (DeviceKind::Solid, "overlay"));
    }

    #[test]
    fn devices_are_what_they_say_or_who_made_them() {
        let leaf = |name: &str, driver: &str, model: &str, rotational| {
            let (name, driver, model) = (name.into(), driver.into(), model.into());
            Leaf { name, driver, model, rotational }.kind().0
        };
        assert_eq!(leaf("vda", "virtio_blk", " ", Some(true)), DeviceKind::Virtual);
        assert_eq!(leaf("sda", "sd", "QEMU QEMU HARDDISK", Some(true)), DeviceKind::Virtual);
        assert_eq!(
            leaf("nvme0n1", "nvme", " Amazon Elastic Block Store", Some(false)),
            DeviceKind::Virtual
        );
        assert_eq!(leaf("nvme0n1", "nvme", " Samsung", Some(false)), DeviceKind::Solid);
        assert_eq!(leaf("sda", "sd", "ATA WDC", Some(true)), DeviceKind::Rotational);
        assert_eq!(leaf("nbd0", "", " ", Some(false)), DeviceKind::Network);
        assert_eq!(leaf("zram0", "", " ", Some(false)), DeviceKind::Memory);
        assert_eq!(leaf("strange", "", " ", None), DeviceKind::Unknown);
    }

    #[test]
    fn what_is_really_here_is_found() {
        let engine = Engine::builder().workers(1).build().expect("an engine");
        let device = engine.block_on(engine.device("/")).expect("there");
        assert!(!device.found_by.is_empty());
        let device = engine.block_on(engine.device("/proc")).expect("there");
        assert_eq!(device.file_system, "proc");
        let missing = engine.block_on(engine.device("/nowhere/at/all")).expect_err("missing");
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        let disk = crate::SimulatedDisk::new(1);
        let engine = Engine::builder().simulated(&disk);
        let device = engine.block_on(engine.device("/")).expect("there");
        assert_eq!(device.kind, DeviceKind::Memory);
    }
}
