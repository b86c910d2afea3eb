//! Whole files that are read at the same time, on each device: so that a slow one holds up nobody else, a
//! rotational one reads one after the other, and no device has more to choose from than helps.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::budget::Budget;

/// Files at a time, where the device can do several things at once.
const AT_ONCE: u64 = 16;

/// The turns of each device that was met.
#[derive(Default)]
pub(crate) struct DeviceTurns {
    /// By device number.
    devices: Mutex<HashMap<u64, Budget>>,
}

impl DeviceTurns {
    fn devices(&self) -> MutexGuard<'_, HashMap<u64, Budget>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turns of the device of this number, if it was met before: a reservation of one is one.
    pub(crate) fn of(&self, device: u64) -> Option<Budget> {
        self.devices().get(&device).cloned()
    }

    /// The turns of a device, of which it is known now what it is.
    pub(crate) fn learn(&self, device: u64, is_rotational: bool) -> Budget {
        let at_once = if is_rotational { 1 } else { AT_ONCE };
        self.devices().entry(device).or_insert_with(|| Budget::new(at_once)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_turns_of_its_own() {
        let turns = DeviceTurns::default();
        assert!(turns.of(7).is_none());
        let (rotational, other) = (turns.learn(7, true), turns.learn(8, false));
        let first = rotational.try_reserve(1).expect("free");
        assert!(turns.of(7).expect("met").try_reserve(1).is_none(), "one at a time");
        let held: Vec<_> = (0..AT_ONCE).map(|_| other.try_reserve(1)).collect();
        assert!(held.iter().all(Option::is_some) && other.try_reserve(1).is_none());
        drop(first);
        assert!(turns.learn(7, false).try_reserve(1).is_some(), "what was learnt first stays");
        assert_eq!(turns.learn(7, false).limit(), 1);
    }
}
