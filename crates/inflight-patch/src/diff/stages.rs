//! The stages of a diff, each by itself, on two versions of one executable.

use std::sync::Arc;

use inflight::{Budget, Pool};

use super::chunk::ChunkSizes;
use super::effort::Effort;
use super::index::{Index, Signature};
use super::matching::signatures;
use super::near::NearIndex;
use crate::align::anchor::AnchorIndex;
use crate::align::find::{FindOptions, find};
use crate::align::refine::{bridge, refine};
use crate::align::{Copy, extend::Scoring};
use crate::digest::{self, UnitDigest};
use crate::format::{BlockKind, GroupInstructions, Instruction, decode_stage, encode_stage};
use crate::layout::UNIT_BYTES;
use crate::lz::Search;
use crate::preset::{Compression, Preset};
use crate::transform::container;
use crate::transform::references::scan::scan;
use crate::transform::references::space::{OldExecutable, Space};
use crate::transform::references::{CopyPart, Relocator, Scratch};

/// Bytes that are compressed.
const LITERAL_BYTES: usize = 1 << 20;

/// A stage that is ready to run, and how many bytes it works on.
pub struct Stage<'a> {
    /// What it does, in a few words.
    pub name: &'static str,
    /// Bytes that it works on.
    pub bytes: u64,
    /// Runs it; gives something that depends on the result.
    pub run: Box<dyn Fn() -> u64 + 'a>,
}

/// Two versions of an executable, and what the later stages need of the earlier ones.
pub struct Versions {
    old: Vec<u8>,
    new: Vec<u8>,
    old_space: Space,
    new_space: Space,
    /// The same without references in their code.
    old_normal: Vec<u8>,
    new_normal: Vec<u8>,
    pool: Pool,
    effort: Effort,
    signatures: [Vec<Signature>; 2],
    index: Index,
    anchors: AnchorIndex,
    /// What anchors found in code, and the same with what is in the gaps.
    found: Vec<Copy>,
    copies: Vec<Copy>,
    relocator: Relocator,
    instructions: GroupInstructions,
    literals: Vec<u8>,
}

impl Versions {
    /// Prepares two versions of an executable; nothing if one of them is none, or has no code.
    #[must_use]
    pub fn new(old: Vec<u8>, new: Vec<u8>) -> Option<Versions> {
        let (old_space, new_space) = (container::parse(&old)?, container::parse(&new)?);
        let pool = Pool::new(Budget::new(4 << 30));
        let effort = Effort::of(Preset::Default);
        let sizes = ChunkSizes::around(1 << 10);
        let signatures = [&old, &new].map(|bytes| {
            let mut out = Vec::new();
            signatures(bytes, 0, sizes, &mut out);
            out
        });
        let index = Index::new(signatures[0].len() as u64);
        index.insert(&signatures[0]);
        let (mut old_normal, mut new_normal) = (old.clone(), new.clone());
        zero(&old_space, &mut old_normal);
        zero(&new_space, &mut new_normal);
        let code = code(&old_space)?;
        let anchors = AnchorIndex::of(&pool, &old_normal, &[code], effort.code)?;
        let mut found = Vec::new();
        let options = find_options();
        find(&new_normal, self::code(&new_space)?, &old_normal, &anchors, &options, &mut found);
        let range = self::code(&new_space)?;
        let refined = refine(&new_normal, range.clone(), &old_normal, &found, &effort.refine);
        let copies = bridge(&new_normal, &old_normal, &refined);
        let executables = vec![OldExecutable { start: 0, space: old_space.clone() }];
        let parts = copies.iter().copied().map(part);
        let relocator = Relocator::new(Arc::new(executables), new_space.clone(), parts);
        let instructions = made_up(old.len() as u64);
        // Code that was not found is like code.
        let literals = new[range].iter().copied().take(LITERAL_BYTES).collect();
        Some(Versions {
            old,
            new,
            old_space,
            new_space,
            old_normal,
            new_normal,
            pool,
            effort,
            signatures,
            index,
            anchors,
            found,
            copies,
            relocator,
            instructions,
            literals,
        })
    }

    /// All stages, in the order in which data meets them.
    #[must_use]
    pub fn stages(&self) -> Vec<Stage<'_>> {
        let new_code = code(&self.new_space).expect("it has code");
        let (new_bytes, code_bytes) = (self.new.len() as u64, new_code.len() as u64);
        let copied: u64 = self.copies.iter().map(|copy| u64::from(copy.length)).sum();
        let unit = |bytes: &[u8]| bytes.len().min(UNIT_BYTES as usize);
        let payload = self.instructions.encode();
        let payload_bytes = payload.len() as u64;
        let literal_bytes = self.literals.len() as u64;
        let ends = (self.old.len() as u64, self.instructions.length());
        let near_bytes = unit(&self.new) as u64;
        let mut stages = vec![
            Stage::new("digest (BLAKE3)", new_bytes, || self.digest()),
            Stage::new("chunk and hash", new_bytes, || self.chunk()),
            Stage::new("index chunks", new_bytes, || self.fill_index()),
            Stage::new("look up chunks", new_bytes, || self.look_up()),
            Stage::new("near agreements, a unit", near_bytes, move || {
                let index = NearIndex::new(&self.old[..unit(&self.old)]);
                index.agreements(&self.new[..unit(&self.new)]).len() as u64
            }),
            Stage::new("scan code for references", code_bytes, || {
                references(&self.new_space, &self.new)
            }),
            Stage::new("index anchors of code", code_bytes, || self.index_anchors()),
            Stage::new("find by anchors", code_bytes, || self.find_copies()),
            Stage::new("refine gaps", code_bytes, || self.refine_gaps()),
            Stage::new("map old spots to new", copied, || self.map()),
            Stage::new("predict references", copied, || self.predict()),
            Stage::new("encode instructions", payload_bytes, || {
                self.instructions.encode().len() as u64
            }),
            Stage::new("decode instructions", payload_bytes, move || {
                GroupInstructions::decode(&payload, ends.0, ends.1)
                    .map_or(0, |group| group.length())
            }),
        ];
        let [lazy, quick, thorough] =
            [Search::Lazy, Search::Quick, Search::Thorough].map(Compression::Lz);
        let ways = [
            ("compress literals, zstd 3", "decompress literals, zstd", Compression::Zstd(3)),
            ("compress literals, lazy", "", lazy),
            ("compress literals, quick", "", quick),
            ("compress literals, thorough", "decompress literals, LZ and rANS", thorough),
        ];
        for (name, back, compression) in ways {
            stages.push(Stage::new(name, literal_bytes, move || {
                self.compress(compression).map_or(0, |(_, payload)| payload.len() as u64)
            }));
            let compressed = self.compress(compression);
            if let Some((stage, payload)) = compressed.filter(|_| !back.is_empty()) {
                stages.push(Stage::new(back, literal_bytes, move || {
                    let raw = decode_stage(stage, &payload, self.literals.len(), None);
                    raw.map_or(0, |raw| raw.len() as u64)
                }));
            }
        }
        stages
    }

    fn digest(&self) -> u64 {
        let units = self.new.chunks(UNIT_BYTES as usize).enumerate();
        let length = self.new.len() as u64;
        let byte = |(number, unit)| match digest::unit(unit, number as u64 * UNIT_BYTES, length) {
            UnitDigest::Whole(digest) | UnitDigest::Part(digest) => u64::from(digest[0]),
        };
        units.map(byte).sum()
    }

    fn chunk(&self) -> u64 {
        let mut out = Vec::with_capacity(self.signatures[1].len());
        signatures(&self.new, 0, ChunkSizes::around(1 << 10), &mut out);
        out.len() as u64
    }

    fn fill_index(&self) -> u64 {
        let index = Index::new(self.signatures[0].len() as u64);
        index.insert(&self.signatures[0]);
        index.find(self.signatures[0][0].hash, u64::MAX).unwrap_or(0)
    }

    fn look_up(&self) -> u64 {
        let found = |signature: &&Signature| self.index.find(signature.hash, u64::MAX).is_some();
        self.signatures[1].iter().filter(found).count() as u64
    }

    fn index_anchors(&self) -> u64 {
        let code = code(&self.old_space).expect("it has code");
        let index = AnchorIndex::of(&self.pool, &self.old_normal, &[code], self.effort.code);
        u64::from(index.is_some())
    }

    fn find_copies(&self) -> u64 {
        let code = code(&self.new_space).expect("it has code");
        let (mut found, options) = (Vec::new(), find_options());
        find(&self.new_normal, code, &self.old_normal, &self.anchors, &options, &mut found);
        found.len() as u64
    }

    fn refine_gaps(&self) -> u64 {
        let code = code(&self.new_space).expect("it has code");
        let (new, old) = (&self.new_normal, &self.old_normal);
        bridge(new, old, &refine(new, code, old, &self.found, &self.effort.refine)).len() as u64
    }

    fn map(&self) -> u64 {
        let old = vec![OldExecutable { start: 0, space: self.old_space.clone() }];
        let parts = self.copies.iter().copied().map(part);
        let relocator = Relocator::new(Arc::new(old), self.new_space.clone(), parts);
        u64::from(relocator.predict(0, 4096))
    }

    fn predict(&self) -> u64 {
        let (mut bytes, mut scratch, mut missed) = (Vec::new(), Scratch::default(), 0);
        for part in self.copies.iter().copied().map(part) {
            let old = part.old as usize..part.old as usize + part.length as usize;
            let real = &self.new[part.new as usize..][..part.length as usize];
            bytes.clear();
            bytes.extend_from_slice(&self.old[old]);
            self.relocator.relocate(part, &mut bytes, &mut scratch, |predicted| {
                let value = predicted.real(real);
                missed += u64::from(predicted.miss(value) != 0);
                value
            });
        }
        missed
    }

    fn compress(&self, compression: Compression) -> Option<(u8, Vec<u8>)> {
        encode_stage(BlockKind::Literals, &self.literals, compression, None)
    }
}

impl<'a> Stage<'a> {
    fn new(name: &'static str, bytes: u64, run: impl Fn() -> u64 + 'a) -> Stage<'a> {
        Stage { name, bytes, run: Box::new(run) }
    }
}

fn find_options() -> FindOptions {
    FindOptions { scoring: Scoring { mismatch: 2, drop: 32 }, score_min: 32 }
}

fn part(copy: Copy) -> CopyPart {
    CopyPart { old: copy.old.into(), new: copy.new, length: copy.length }
}

/// The longest region of code.
fn code(space: &Space) -> Option<std::ops::Range<usize>> {
    let code = space.regions.iter().filter(|region| region.kind.is_code());
    let longest = code.max_by_key(|region| region.length)?;
    Some(longest.start as usize..longest.end() as usize)
}

/// How many references there are in code.
fn references(space: &Space, bytes: &[u8]) -> u64 {
    let mut count = 0;
    for region in space.regions.iter().filter(|region| region.kind.is_code()) {
        let bytes = &bytes[region.start as usize..region.end() as usize];
        scan(space, region, 0, bytes, |_| count += 1);
    }
    count
}

/// Zeroes all references in code.
fn zero(space: &Space, bytes: &mut [u8]) {
    for region in space.regions.iter().filter(|region| region.kind.is_code()) {
        let bytes = &mut bytes[region.start as usize..region.end() as usize];
        let mut words = Vec::new();
        scan(space, region, 0, bytes, |it| words.extend(it.field.words(it.at)));
        for (at, mask) in words {
            let field = &mut bytes[at..at + 4];
            let word = u32::from_le_bytes((&*field).try_into().expect("4 bytes"));
            field.copy_from_slice(&(word & !mask).to_le_bytes());
        }
    }
}

/// Instructions like those of a program that changed in many places.
fn made_up(old_bytes: u64) -> GroupInstructions {
    let list = (0..40_000u64).map(|number| match number % 2 {
        0 => {
            let length = 1 + number * 7919 % 500;
            let old =
                (number * 60 + number * number % 97) % old_bytes.saturating_sub(length).max(1);
            Instruction::Copy { old, length }
        }
        _ => Instruction::Literal { length: 1 + number * 31 % 40 },
    });
    GroupInstructions { start: 0, list: list.collect() }
}
