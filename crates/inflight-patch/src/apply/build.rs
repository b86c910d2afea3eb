//! Making the new tree's files, unit by unit.
//!
//! A small file is written at once, with its permissions; the units of a large file, and of one
//! with holes, go into a file opened before. Digests are compared run by run, as the last file of
//! each is there.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use inflight::stream::Ordered;
use inflight::{Buffer, File, NewFile, OpenOptions, Task};

use super::groups::Pieces;
use super::inputs::Inputs;
use super::piece::{Piece, Source};
use super::staging::Staging;
use crate::crew::Hand;
use crate::digest::{self, UnitDigest};
use crate::error::{Error, Result};
use crate::format::{DigestCheck, PatchFile};
use crate::image::Image;
use crate::job::Job;
use crate::layout::Layout;
use crate::manifest::{Entry, EntryKind, Manifest};
use crate::pump::pump;

/// Files written in parts that are made before they are needed.
const FILES_AHEAD: usize = 4;
/// Empty files made by one operation.
const EMPTY_FILES_AT_ONCE: usize = 256;

/// The tree being built, as units see it. Cheap to clone.
#[derive(Clone)]
struct Target {
    manifest: Arc<Manifest>,
    layout: Arc<Layout>,
    staging: Staging,
}

impl Target {
    fn new(inputs: &Inputs, staging: &Staging) -> Target {
        Target {
            manifest: inputs.new.clone(),
            layout: Arc::new(Layout::new(&inputs.new)),
            staging: staging.clone(),
        }
    }

    fn entry(&self, file: u32) -> &Entry {
        &self.manifest.entries[self.layout.files[file as usize].entry as usize]
    }

    /// Where a file is built.
    fn place(&self, file: u32) -> &Path {
        self.staging.locate(&self.entry(file).path)
    }

    /// Whether a file is written by one operation: all its data in one unit, without holes.
    fn is_simple(&self, file: u32) -> bool {
        let span = &self.layout.files[file as usize];
        !span.is_large() && span.bytes() == span.size
    }
}

/// Makes all regular files.
pub(super) async fn build(job: &Job, inputs: &Inputs, staging: &Staging) -> Result<()> {
    let target = Target::new(inputs, staging);
    let mut made = MadeAhead::new(job, &target);
    let built = build_all(job, inputs, &target, &mut made).await;
    // Whoever cleans up is alone.
    made.finish().await;
    built
}

async fn build_all(
    job: &Job,
    inputs: &Inputs,
    target: &Target,
    made: &mut MadeAhead<'_>,
) -> Result<()> {
    make_files_without_data(job, target).await?;
    let mut pieces = Pieces::new(job, &inputs.patch);
    let mut open = OpenFiles::new(target, inputs);
    let files = std::cell::RefCell::new(&mut open);
    let start = async |range: Range<u64>| -> Result<Task<Result<Built>>> {
        job.check()?;
        let made_from = pieces.take(range.end - range.start).await?;
        let mut opened = Vec::new();
        for (file, _) in target.layout.files_in(range.clone()) {
            if target.is_simple(file) {
                continue;
            }
            let known = files.borrow().open.get(&file).cloned();
            let handle = match known {
                Some(handle) => handle,
                None => {
                    let handle = made.next().await?;
                    files.borrow_mut().open.insert(file, handle.clone());
                    handle
                }
            };
            opened.push((file, handle));
        }
        let gathered = Gathering::start(job, inputs, range.clone(), made_from).await;
        let work = UnitWork { target: target.clone(), hand: job.crew.hand(), range, opened };
        Ok(job.handle.spawn(async move { work.run(gathered.finish().await?).await }))
    };
    let finish = async |built: Built| {
        job.progress.advance(built.bytes);
        let complete = files.borrow_mut().add(built)?;
        for (file, handle) in complete {
            let entry = target.entry(file);
            handle.set_mode(entry.mode).await?;
            handle.close().await?;
        }
        Ok(())
    };
    pump(target.layout.units(), job.depth(), start, finish).await?;
    pieces.finish().await
}

/// Files that are written in parts, made in order and ahead: to reserve the space of a large one takes
/// longer than it takes to open it.
struct MadeAhead<'a> {
    job: &'a Job,
    target: &'a Target,
    waiting: std::vec::IntoIter<u32>,
    ahead: Ordered<Task<Result<File>>>,
}

impl<'a> MadeAhead<'a> {
    fn new(job: &'a Job, target: &'a Target) -> MadeAhead<'a> {
        let files = target.layout.files_with_data().filter(|file| !target.is_simple(*file));
        let waiting = files.collect::<Vec<u32>>().into_iter();
        let mut made = MadeAhead { job, target, waiting, ahead: Ordered::new(FILES_AHEAD) };
        made.make();
        made
    }

    fn make(&mut self) {
        while self.ahead.has_room()
            && let Some(file) = self.waiting.next()
        {
            let target = self.target.clone();
            let span = &target.layout.files[file as usize];
            let is_whole = span.bytes() == span.size;
            let make = async move { create(&target, file, is_whole).await };
            self.ahead.push(self.job.handle.spawn(make));
        }
    }

    /// The next file.
    async fn next(&mut self) -> Result<File> {
        let made = self.ahead.next().await.expect("one for each that is asked for");
        self.make();
        made
    }

    /// Waits for those that nobody asked for.
    async fn finish(mut self) {
        while self.ahead.next().await.is_some() {}
    }
}

/// Makes the files that have no data: empty ones, and those that are one hole.
async fn make_files_without_data(job: &Job, target: &Target) -> Result<()> {
    let mut empty = Vec::new();
    for (file, span) in target.layout.files.iter().enumerate() {
        let file = file as u32;
        if !span.image.is_empty() {
            continue;
        }
        let (place, mode) = (target.place(file), target.entry(file).mode);
        if span.size > 0 {
            let handle = create(target, file, false).await?;
            handle.set_mode(mode).await?;
            handle.close().await?;
        } else {
            empty.push(new_file(place, mode, 0, 0)?);
        }
        if empty.len() == EMPTY_FILES_AT_ONCE {
            write_empty(job, target, std::mem::take(&mut empty)).await?;
        }
    }
    write_empty(job, target, empty).await
}

async fn write_empty(job: &Job, target: &Target, files: Vec<NewFile>) -> Result<()> {
    if !files.is_empty() {
        let buffer = job.handle.buffer(1).await;
        target.staging.directory().write_files(files, buffer).await?;
    }
    Ok(())
}

fn new_file(path: &Path, mode: u32, start: usize, length: usize) -> Result<NewFile> {
    NewFile::new(path, mode, start, length)
        .map_err(|error| inflight::Error::new("write", Some(path.into()), error).into())
}

/// Makes a file that will be written in parts, with space for all of it or, where it has holes,
/// with its size only.
async fn create(target: &Target, file: u32, allocate: bool) -> Result<File> {
    let options = OpenOptions::creating(0o600);
    let handle = target.staging.directory().open(target.place(file), options).await?;
    let size = target.layout.files[file as usize].size;
    if !allocate {
        handle.truncate(size).await?;
        return Ok(handle);
    }
    match handle.allocate(0, size).await {
        // A file system that cannot reserve space can still be written.
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
        other => other?,
    }
    Ok(handle)
}

/// Old bytes between two ranges that are read along, as one long read is faster than two.
const READ_GAP_MAX: u64 = 16 << 10;

/// The parts of a unit: what was read of the old tree, and how to put it together.
struct Gathering {
    patch: PatchFile,
    old: Image,
    pieces: Vec<Piece>,
    /// What is read: ranges of the old image, apart from each other and in order.
    reads: Vec<Range<u64>>,
    read: Buffer,
    /// Where the unit is put together; not needed where it is one range as it is.
    assembled: Option<Buffer>,
}

impl Gathering {
    /// Takes the memory, in the order of the units.
    async fn start(job: &Job, inputs: &Inputs, range: Range<u64>, pieces: Vec<Piece>) -> Gathering {
        let mut copies: Vec<Range<u64>> = Vec::new();
        for source in pieces.iter().flat_map(|piece| &piece.sources) {
            if let Source::Copy(old) = source {
                copies.push(old.clone());
            }
        }
        let as_it_is = copies.len() == 1 && pieces.iter().all(Piece::is_plain_copy);
        let reads = merged(copies, range.end - range.start);
        let read_bytes: u64 = reads.iter().map(|range| range.end - range.start).sum();
        let read = job.handle.buffer((read_bytes as usize).max(1)).await;
        let assembled = match as_it_is {
            true => None,
            false => Some(job.handle.buffer((range.end - range.start) as usize).await),
        };
        let (patch, old) = (inputs.patch.clone(), inputs.old.clone());
        Gathering { patch, old, pieces, reads, read, assembled }
    }

    async fn finish(mut self) -> Result<Gathering> {
        self.read = self.old.read_ranges(&self.reads, self.read).await?;
        Ok(self)
    }

    /// The unit's bytes. Work for the crew.
    fn assemble(self) -> Result<Buffer> {
        let Some(mut out) = self.assembled else {
            return Ok(self.read);
        };
        // Where each range starts in what was read.
        let mut starts = Vec::with_capacity(self.reads.len());
        let mut position = 0;
        for range in &self.reads {
            starts.push(position);
            position += (range.end - range.start) as usize;
        }
        let copy = |range: Range<u64>, out: &mut Buffer| {
            let number = self.reads.partition_point(|read| read.end <= range.start);
            let at = starts[number] + (range.start - self.reads[number].start) as usize;
            out.extend_from_slice(&self.read[at..at + (range.end - range.start) as usize]);
        };
        for piece in &self.pieces {
            let made = piece.assemble(&mut out, copy);
            made.map_err(|damage| self.patch.damaged(damage))?;
        }
        Ok(out)
    }
}

/// Sorts ranges and joins those that overlap or are near each other, as long as what is read stays
/// in proportion to the unit.
fn merged(mut ranges: Vec<Range<u64>>, unit_bytes: u64) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    let mut spare = unit_bytes;
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(last) if range.start - last.end <= READ_GAP_MAX.min(spare) => {
                spare -= range.start - last.end;
                last.end = range.end;
            }
            _ => out.push(range),
        }
    }
    out
}

/// A unit to be made.
struct UnitWork {
    target: Target,
    hand: Hand,
    range: Range<u64>,
    /// The files of it that are not simple.
    opened: Vec<(u32, File)>,
}

/// A unit that was written.
struct Built {
    bytes: u64,
    digests: Vec<(u32, UnitDigest)>,
}

impl UnitWork {
    async fn run(self, gathered: Gathering) -> Result<Built> {
        let (target, range) = (self.target.clone(), self.range.clone());
        let work = move || -> Result<(Buffer, Vec<(u32, UnitDigest)>)> {
            let buffer = gathered.assemble()?;
            let digests = digest::unit_of_image(&target.layout, &range, &buffer);
            Ok((buffer, digests))
        };
        let (buffer, digests) = self.hand.run(work).await?;
        let bytes = buffer.len() as u64;
        self.write(buffer).await?;
        Ok(Built { bytes, digests })
    }

    async fn write(&self, mut buffer: Buffer) -> Result<()> {
        let (target, start) = (&self.target, self.range.start);
        for piece in target.layout.pieces(self.range.clone()) {
            let opened = self.opened.iter().find(|(file, _)| *file == piece.file);
            let Some((_, handle)) = opened else { continue };
            let (at, length) = (piece.image.start - start, piece.image.end - piece.image.start);
            buffer = handle.write_full(buffer, at as usize, length as usize, piece.offset).await?;
        }
        let mut simple = Vec::new();
        for (file, span) in target.layout.files_in(self.range.clone()) {
            if target.is_simple(file) {
                let at = (span.image.start - start) as usize;
                let (place, mode) = (target.place(file), target.entry(file).mode);
                simple.push(new_file(place, mode, at, span.bytes() as usize)?);
            }
        }
        if !simple.is_empty() {
            target.staging.directory().write_files(simple, buffer).await?;
        }
        Ok(())
    }
}

/// Files that are written in parts, and the comparison of all.
struct OpenFiles {
    target: Target,
    open: HashMap<u32, File>,
    /// The units so far of the file under way.
    units: Vec<UnitDigest>,
    check: DigestCheck,
    /// The files with data, in order.
    with_data: Vec<u32>,
}

impl OpenFiles {
    fn new(target: &Target, inputs: &Inputs) -> OpenFiles {
        OpenFiles {
            target: target.clone(),
            open: HashMap::new(),
            units: Vec::new(),
            check: DigestCheck::new(&inputs.new_digests),
            with_data: target.layout.files_with_data().collect(),
        }
    }

    /// Takes note of a written unit; hands out the files written in parts that are complete.
    fn add(&mut self, built: Built) -> Result<Vec<(u32, File)>> {
        let mut complete = Vec::new();
        for (file, digest) in built.digests {
            let span = &self.target.layout.files[file as usize];
            self.units.push(digest);
            if (self.units.len() as u64) < span.units() {
                continue;
            }
            let digest = digest::whole(&self.units, span.bytes());
            self.units.clear();
            let checked = self.check.next(Some(digest)).unwrap_or_default();
            if let Some((number, others)) = checked.first() {
                let path = self.target.entry(self.with_data[number]).path.clone();
                return Err(Error::BuiltWrong { path, others });
            }
            debug_assert!(matches!(self.target.entry(file).kind, EntryKind::File { .. }));
            complete.extend(self.open.remove(&file).map(|handle| (file, handle)));
        }
        Ok(complete)
    }
}
