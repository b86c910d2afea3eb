//! What was seen of a piece of an executable: what differs, and the references whose prediction
//! rests on the map.

use crate::format::GapList;
use crate::transform::references::Predicted;

/// An old executable and a spot in it.
pub(super) type Target = (u16, u32);

/// What was seen of one piece.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) mismatches: GapList,
    pub(super) differences: Vec<u8>,
    /// Bytes that no copy makes, as the patch has them.
    pub(super) literals: Vec<u8>,
    /// References that are not as predicted.
    pub(super) missed: Vec<Missed>,
    /// References that are, where telling another place would change that.
    pub(super) right: Vec<Open>,
}

/// A reference whose prediction rests on the map.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// Its number in the piece.
    pub(super) ordinal: u32,
    target: u32,
    space: u16,
    /// Its width in bytes, negative if its value grows as its target goes back.
    width: i8,
}

impl Open {
    pub(super) fn target(&self) -> Target {
        (self.space, self.target)
    }
}

/// A reference that is not as predicted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missed {
    pub(super) open: Open,
    /// Whether the copy moved the target along: then nothing that is told changes it.
    pub(super) along: bool,
    pub(super) miss: i64,
}

impl Missed {
    /// How far the target is from the predicted place.
    pub(super) fn change(&self) -> i64 {
        if self.open.width < 0 { self.miss.wrapping_neg() } else { self.miss }
    }

    /// The same once a change of its target was told.
    pub(super) fn after(self, change: i64) -> Missed {
        let change = if self.open.width < 0 { change.wrapping_neg() } else { change };
        let miss = self.miss.wrapping_sub(change);
        let miss = if self.open.width.abs() == 4 { i64::from(miss as i32) } else { miss };
        Missed { miss, ..self }
    }
}

impl Seen {
    #[inline]
    /// Takes note of a reference.
    pub(super) fn note(&mut self, ordinal: u32, predicted: &Predicted, miss: i64) {
        let Predicted { space, target, along, backwards, .. } = *predicted;
        let width = predicted.field.bytes() as i8;
        let width = if backwards { -width } else { width };
        let open = Open { ordinal, target, space: space as u16, width };
        match miss {
            0 if along => {}
            0 => self.right.push(open),
            _ => self.missed.push(Missed { open, along, miss }),
        }
    }
}
