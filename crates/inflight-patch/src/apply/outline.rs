//! What a group looks like, without its bytes.

use std::sync::Arc;

use super::piece::Relocation;
use crate::damage::Damage;
use crate::format::{Executable, GroupInstructions, PayloadLengths};
use crate::transform::references::{Relocator, copy_parts};

/// What a group looks like.
#[derive(Debug)]
pub(super) struct Outline {
    /// Where the pack's first block is in the patch, for messages.
    pub(super) at: u64,
    /// Whether it goes on with the executable of the group before.
    pub(super) goes_on: bool,
    pub(super) executable: Vec<u8>,
    pub(super) instructions: Vec<u8>,
    /// The instructions of the groups that go on with its executable.
    pub(super) more: Vec<Vec<u8>>,
    /// How long each of its payloads is.
    pub(super) lengths: PayloadLengths,
}

/// A group as far as it was decoded from its outline.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) at: u64,
    pub(super) instructions: GroupInstructions,
    /// What corrects its copies, if an executable begins in it.
    pub(super) relocation: Option<Relocation>,
    /// Whether it goes on with the executable of the group before.
    pub(super) goes_on: bool,
}

impl Outline {
    /// Makes of it what it stands for. Work for the crew.
    pub(super) fn decode(self, image_bytes: (u64, u64)) -> Result<Decoded, Damage> {
        let at = self.at;
        decode(self, image_bytes).map_err(|damage| damage.inside(at))
    }
}

fn decode(outline: Outline, (old_bytes, new_bytes): (u64, u64)) -> Result<Decoded, Damage> {
    let Outline { at, goes_on, executable, instructions, more, lengths } = outline;
    let [_, _, literals, _, _, misses, _] = lengths;
    let instructions = GroupInstructions::decode(&instructions, old_bytes, new_bytes)?;
    let executable = match executable.is_empty() {
        true => None,
        false => Some(Executable::decode(&executable, old_bytes)?),
    };
    if instructions.literal_bytes() != literals as u64 {
        return Err(Damage::new(0, "a group's instructions do not use up its literals"));
    }
    if executable.is_none() && !goes_on && misses > 0 {
        return Err(Damage::new(0, "misses in a group that is no executable"));
    }
    let mut relocation = None;
    if let Some(executable) = executable {
        let more = more.iter().map(|raw| GroupInstructions::decode(raw, old_bytes, new_bytes));
        let more = more.collect::<Result<Vec<GroupInstructions>, Damage>>()?;
        let all = || std::iter::once(&instructions).chain(&more);
        let length = all().map(GroupInstructions::length).fold(0, u64::saturating_add);
        if u64::from(executable.space.length()) != length {
            return Err(Damage::new(0, "an executable is not as long as its instructions say"));
        }
        let copies = copy_parts(all().flat_map(|group| &group.list));
        let mut relocator = Relocator::new(Arc::new(executable.old), executable.space, copies);
        for told in executable.told {
            relocator.tell(told.space, told.target, told.change);
        }
        let (start, relocator) = (instructions.start, Arc::new(relocator));
        relocation = Some(Relocation { start, relocator });
    }
    Ok(Decoded { at, instructions, relocation, goes_on })
}
