//! What `bench --save` found out about devices, for the commands that come after it: a file of JSON in the
//! user's configuration.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use inflight::{
    Device, DeviceKind, DeviceLimits, DeviceSettings, Handle, OpenOptions, RemoveKind, SyncScope,
    TransferSettings,
};
use serde_json::{Value, json};

use crate::report::{limits_json, transfer_json};

/// The version of the file.
const VERSION: u64 = 1;

/// Where it is.
pub fn place() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = of("XDG_CONFIG_HOME").filter(|base| base.is_absolute());
    let base = base.or_else(|| Some(of("HOME")?.join(".config")))?;
    Some(base.join("inflight").join("devices.json"))
}

/// All devices that something is known of.
pub fn devices() -> Vec<Device> {
    let Some(place) = place() else { return Vec::new() };
    match read(&place) {
        Ok(devices) => devices,
        Err(error) => {
            eprintln!(
                "warning: {error:#}; it is not used: remove it, and measure anew by bench --save"
            );
            Vec::new()
        }
    }
}

/// The longest request that is best on any of them, if it is longer than what an engine makes unasked.
pub fn longest_request(devices: &[Device]) -> Option<usize> {
    const UNASKED: usize = 2 << 20;
    let settings = devices.iter().filter_map(|device| device.measured);
    let longest = settings.map(|one| one.read.request_bytes.max(one.write.request_bytes)).max();
    longest.filter(|bytes| *bytes > UNASKED)
}

#[allow(clippy::disallowed_methods, reason = "asked before there is an engine")]
fn read(place: &Path) -> Result<Vec<Device>> {
    let text = match std::fs::read_to_string(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("cannot read {}", place.display()))?,
    };
    parse(&text).ok_or_else(|| anyhow!("{} does not hold what bench --save wrote", place.display()))
}

fn parse(text: &str) -> Option<Vec<Device>> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value["version"] != VERSION {
        return None;
    }
    value["devices"].as_array()?.iter().map(device_of).collect()
}

fn device_of(value: &Value) -> Option<Device> {
    let text = |name: &str| value[name].as_str().map(String::from);
    let number = |name: &str| value["limits"][name].as_u64();
    let mut device = Device::default();
    device.kind = DeviceKind::ALL.into_iter().find(|kind| value["kind"] == kind.name())?;
    device.file_system = text("file_system")?;
    device.mounted_at = text("mounted_at")?.into();
    device.source = text("source")?;
    let layers = value["layers"].as_array()?.iter();
    device.layers = layers.map(|layer| layer.as_str().map(String::from)).collect::<Option<_>>()?;
    let mut limits = DeviceLimits::default();
    limits.logical_block_bytes = number("logical_block_bytes")?;
    limits.physical_block_bytes = number("physical_block_bytes")?;
    limits.request_bytes_max = number("request_bytes_max")?;
    limits.request_bytes_best = number("request_bytes_best")?;
    limits.queue_depth = number("queue_depth")?;
    device.limits = limits;
    let (read, write) = (transfer_of(&value["read"])?, transfer_of(&value["write"])?);
    let streams = bounded(&value["streams"], 1..=1024)?;
    device.measured = Some(DeviceSettings { read, write, streams });
    Some(device)
}

/// Whoever edits the file shall not make a command take all memory.
fn bounded(value: &Value, range: std::ops::RangeInclusive<u64>) -> Option<usize> {
    value.as_u64().filter(|number| range.contains(number)).map(|number| number as usize)
}

fn transfer_of(value: &Value) -> Option<TransferSettings> {
    Some(TransferSettings {
        request_bytes: bounded(&value["request_bytes"], 4096..=1 << 30)?,
        depth: bounded(&value["depth"], 1..=4096)?,
        direct: value["direct"].as_bool()?,
    })
}

fn json_of(device: &Device, settings: DeviceSettings) -> Value {
    json!({
        "kind": device.kind.name(),
        "file_system": device.file_system,
        "mounted_at": device.mounted_at.display().to_string(),
        "source": device.source,
        "layers": device.layers,
        "limits": limits_json(&device.limits),
        "read": transfer_json(settings.read),
        "write": transfer_json(settings.write),
        "streams": settings.streams,
    })
}

/// Makes the folder that the file is in, if it is not there.
pub async fn make_folder(handle: &Handle) -> Result<()> {
    let place =
        place().ok_or_else(|| anyhow!("neither XDG_CONFIG_HOME nor HOME says where to save"))?;
    create_all(handle, place.parent().expect("it lies in a folder of ours")).await
}

/// Keeps the settings of a device, in place of earlier ones of the same. Tells where.
pub async fn save(handle: &Handle, device: &Device, settings: DeviceSettings) -> Result<PathBuf> {
    let place =
        place().ok_or_else(|| anyhow!("neither XDG_CONFIG_HOME nor HOME says where to save"))?;
    // What somebody else wrote there is not lost.
    let mut known = read(&place)?;
    known.retain(|one| !one.is_same(device));
    let mut all: Vec<Value> =
        known.iter().filter_map(|one| Some(json_of(one, one.measured?))).collect();
    all.push(json_of(device, settings));
    let text = format!("{:#}\n", json!({ "version": VERSION, "devices": all }));
    make_folder(handle).await?;
    replace(handle, &place, text.as_bytes()).await?;
    Ok(place)
}

/// Makes a directory, and those above it that are not there.
async fn create_all(handle: &Handle, folder: &Path) -> Result<()> {
    let mut all: Vec<&Path> = folder.ancestors().collect();
    while let Some(folder) = all.pop() {
        match handle.create_directory(folder, 0o755).await {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            // Above what is there already, less may be allowed.
            Err(_) if handle.metadata(folder, true).await.is_ok() => {}
            other => other?,
        }
    }
    Ok(())
}

/// Whether it can be kept: says what is in the way, before anything is measured.
pub async fn can_save(handle: &Handle) -> Result<()> {
    make_folder(handle).await?;
    let place = place().context("known, as the folder was made")?;
    read(&place).context("it would be lost: move it away")?;
    try_out(handle, &place).await
}

/// The name of a file that is going to be `place`.
fn beside(place: &Path) -> Result<PathBuf> {
    let mut name = place.file_name().context("a file needs a name")?.to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    Ok(place.with_file_name(name))
}

/// Whether [`replace`] could write there.
pub async fn try_out(handle: &Handle, place: &Path) -> Result<()> {
    let new = beside(place)?;
    handle.open(&new, OpenOptions::creating(0o644)).await?;
    Ok(handle.remove(&new, RemoveKind::File).await?)
}

/// Writes a file that is whole, or as it was, whatever happens meanwhile.
pub async fn replace(handle: &Handle, place: &Path, bytes: &[u8]) -> Result<()> {
    let new = beside(place)?;
    // What is there already is nobody's but ours to remove.
    let file = handle.open(&new, OpenOptions::creating(0o644)).await?;
    let written = async {
        let mut buffer = handle.buffer(bytes.len().max(1)).await;
        buffer.extend_from_slice(bytes);
        file.write_all(buffer, 0).await?;
        file.sync(SyncScope::Data).await?;
        file.close().await?;
        handle.rename(&new, place, true).await
    };
    let written = written.await;
    if written.is_err() {
        // What went wrong first is told.
        let _ = handle.remove(&new, RemoveKind::File).await;
    }
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back() {
        let transfer = TransferSettings { request_bytes: 1 << 20, depth: 4, direct: true };
        let settings = DeviceSettings {
            read: transfer,
            write: TransferSettings { direct: false, ..transfer },
            streams: 3,
        };
        let mut device = Device::default();
        device.kind = DeviceKind::Rotational;
        device.layers = vec!["sda".into()];
        device.limits.queue_depth = 64;
        let text = json!({ "version": 1, "devices": [json_of(&device, settings)] }).to_string();
        let read = parse(&text).expect("as it was written");
        assert!(read.len() == 1 && read[0].is_same(&device));
        assert_eq!(read[0].measured, Some(settings));
    }

    #[test]
    fn what_was_not_written_by_us_is_refused() {
        let transfer = TransferSettings { request_bytes: 1 << 20, depth: 4, direct: true };
        let settings = DeviceSettings { read: transfer, write: transfer, streams: 3 };
        let good =
            json!({ "version": 1, "devices": [json_of(&Device::default(), settings)] }).to_string();
        assert!(parse(&good).is_some());
        for (part, other) in [
            (r#""version":1"#, r#""version":2"#),
            (r#""depth":4"#, r#""depth":0"#),
            (r#""request_bytes":1048576"#, r#""request_bytes":99999999999"#),
            (r#""kind":"unknown""#, r#""kind":"odd""#),
            (r#""streams":3"#, r#""streams":"3""#),
            ("{", ""),
        ] {
            assert!(good.contains(part), "{part}");
            assert!(parse(&good.replacen(part, other, 1)).is_none(), "{other}");
        }
    }
}
