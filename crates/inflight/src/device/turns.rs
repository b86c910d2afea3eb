//! Whole files that are read at the same time, on each device: so that a slow one holds up nobody else, a
//! rotational one reads one after the other, and no device has more to choose from than helps.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::DeviceKind;
use crate::budget::Budget;
use crate::handle::Handle;

/// Files at a time, where the device can do several things at once.
const AT_ONCE: u64 = 16;

/// The turns of each device that was met.
#[derive(Default)]
pub(crate) struct DeviceTurns {
    /// By device number.
    devices: Mutex<HashMap<u64, Budget>>,
}

impl DeviceTurns {
    /// The turns of the device of this number, which `path` is on: a reservation of one is one. May take
    /// memory while it looks, so whoever holds some asks before.
    pub(crate) async fn of(&self, handle: &Handle, path: &Path, device: u64) -> Budget {
        if let Some(turns) = self.known(device) {
            return turns;
        }
        let found = handle.device(path).await;
        let is_rotational = found.is_ok_and(|found| found.kind == DeviceKind::Rotational);
        self.learn(device, if is_rotational { 1 } else { AT_ONCE })
    }

    fn known(&self, device: u64) -> Option<Budget> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).get(&device).cloned()
    }

    fn learn(&self, device: u64, at_once: u64) -> Budget {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.entry(device).or_insert_with(|| Budget::new(at_once)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::SimulatedDisk;
    use crate::engine::Engine;

    #[test]
    fn each_device_has_turns_of_its_own() {
        let engine = Engine::builder().simulated(&SimulatedDisk::new(1));
        let turns = DeviceTurns::default();
        turns.learn(7, 1);
        engine.block_on(async {
            let one = turns.of(&engine, Path::new("/"), 7).await;
            let first = one.reserve(1).await;
            let other = turns.of(&engine, Path::new("/"), 8).await;
            let held: Vec<_> = (0..AT_ONCE).map(|_| other.try_reserve(1)).collect();
            assert!(held.iter().all(Option::is_some) && other.try_reserve(1).is_none());
            assert!(one.try_reserve(1).is_none(), "one at a time");
            drop(first);
            assert!(turns.of(&engine, Path::new("/"), 7).await.try_reserve(1).is_some());
        });
    }
}
