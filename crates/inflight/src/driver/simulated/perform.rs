//! One operation on a simulated disk. What it answers is what the system would.

use std::ffi::CString;
use std::hash::{Hash, Hasher};

use rustix::io::{Errno, Result};

use super::disk::{Fate, Open, SimulatedDisk, State};
use super::file_bytes::{BLOCK_BYTES, FileBytes};
use super::path::Way;
use super::tree::{Content, Inode, ROOT};
use crate::arrivals::Arrivals;
use crate::buffer::{Buffer, BufferList, MappedBytes, Pool};
use crate::descriptor::Descriptor;
use crate::metadata::{DirectoryBatch, FileKind, Metadata};
use crate::operation::{At, Create, OpenOptions, Operation, RemoveKind, SetMetadata};

/// What direct I/O is aligned to.
const DIRECT_BYTES: u64 = 512;
/// Names given by one listing at most.
const BATCH_MAX: u64 = 100;
/// Bytes of the longest file.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// Performs the operation, unless fate has something else in mind. `EAGAIN`: not yet, or not to its
/// end; it is to be tried again when something about the sockets has changed.
pub(super) fn perform(disk: &SimulatedDisk, pool: &Pool, operation: &mut Operation) -> Result<u64> {
    if let Operation::Nop | Operation::Sleep { .. } = operation {
        return Ok(0);
    }
    if let Operation::Close { .. } = operation {
        // The descriptor closes itself; it must not do so while the disk is locked.
        *operation = Operation::Nop;
        return Ok(0);
    }
    // What a program left in it closes itself.
    drop_opened(operation);
    let mut state = disk.state();
    // It is an operation only once it does something.
    if !state.crashed && state.must_wait(operation) {
        return Err(Errno::AGAIN);
    }
    let what = (operation.name(), operation.offset());
    let mut hasher = std::hash::DefaultHasher::new();
    (state.history, what).hash(&mut hasher);
    state.history = hasher.finish();
    match state.fate() {
        Fate::Performed => {
            if let Operation::Accept { listener, arrivals } = operation {
                drop(state);
                return accept(disk, listener, arrivals);
            }
            state.perform(disk, pool, operation)
        }
        Fate::LastOfAll => {
            // Its effect may be there; what it would have answered is not.
            let _ = state.perform(disk, pool, operation);
            drop(state);
            drop_opened(operation);
            Err(Errno::IO)
        }
        Fate::Failed(error) => Err(error),
    }
}

/// Accepts what waits. Whom that wakes may have things to close: the disk is not locked meanwhile.
fn accept(disk: &SimulatedDisk, listener: &Descriptor, arrivals: &Arrivals) -> Result<u64> {
    let listener = listener.foreign_number().ok_or(Errno::BADF)?;
    loop {
        let connection = disk.state().network.accept(listener)?;
        if !arrivals.push(disk.descriptor(connection)) {
            return Ok(0);
        }
    }
}

fn drop_opened(operation: &mut Operation) {
    if let Operation::Open { descriptor, .. }
    | Operation::Listen { descriptor, .. }
    | Operation::Bind { descriptor, .. }
    | Operation::Connect { descriptor, .. } = operation
    {
        *descriptor = None;
    }
    if let Operation::CopyDirectory { copy, .. } = operation {
        copy.top.close();
    }
    if let Operation::ListDirectories { listings, .. } = operation {
        listings.iter_mut().for_each(|listing| listing.rest = None);
    }
}

impl State {
    fn perform(
        &mut self,
        disk: &SimulatedDisk,
        pool: &Pool,
        operation: &mut Operation,
    ) -> Result<u64> {
        if let Some(outcome) = self.perform_on_socket(disk, pool, operation) {
            return outcome;
        }
        match operation {
            Operation::Open { at, options, descriptor } => {
                let inode = self.open(at, *options)?;
                *descriptor = Some(disk.descriptor(self.add_open(inode, *options)));
                Ok(0)
            }
            Operation::Read { file, buffer, length, offset } => {
                let inode = self.readable(file, *offset, *length as u64)?;
                let length = self.maybe_short((*length).min(buffer.spare()));
                self.read_into(inode, *offset, buffer, length)
            }
            Operation::Write { file, buffer, start, length, offset } => {
                let inode = self.writable(file, *offset, *length as u64)?;
                let length = self.maybe_short(*length);
                self.write_from(inode, *offset, &buffer[*start..*start + length])
            }
            Operation::WriteSync { file, buffer, start, length, offset, .. } => {
                let inode = self.writable(file, *offset, *length as u64)?;
                let wanted = *length;
                let length = self.maybe_short(wanted);
                self.write_from(inode, *offset, &buffer[*start..*start + length])?;
                if length == wanted {
                    self.next_part()?;
                    self.tree.sync(inode)?;
                }
                Ok(length as u64)
            }
            Operation::ReadVectored { file, buffers, offset } => {
                self.read_vectored(file, buffers, *offset)
            }
            Operation::WriteVectored { file, buffers, offset } => {
                self.write_vectored(file, buffers, *offset)
            }
            Operation::ReadFiles { directory, options, pieces, current, buffer } => {
                self.read_files(directory.as_ref(), *options, pieces, current, buffer)
            }
            Operation::WriteFiles { directory, files, current, buffer } => {
                self.write_files(directory.as_ref(), files, current, buffer)
            }
            Operation::Sync { file, scope } => {
                let inode = self.inode_of(file)?;
                match scope {
                    crate::operation::SyncScope::FileSystem => self.tree.sync_all(),
                    _ => self.tree.sync(inode)?,
                }
                Ok(0)
            }
            // None of these promises anything about what survives.
            Operation::SyncRange { file, .. } | Operation::Advise { file, .. } => {
                self.inode_of(file).map(|_| 0)
            }
            Operation::Allocate { file, offset, length } => {
                let inode = self.writable(file, 0, 0)?;
                done(self.tree.allocate(inode, *offset..end_of(*offset, *length)?))
            }
            Operation::PunchHole { file, offset, length } => {
                let inode = self.writable(file, 0, 0)?;
                done(self.tree.punch(inode, *offset..end_of(*offset, *length)?))
            }
            Operation::Truncate { file, length } => {
                let inode = self.writable(file, 0, 0)?;
                done(self.tree.resize(inode, end_of(0, *length)?))
            }
            Operation::CopyRange { from, from_offset, to, to_offset, length }
            | Operation::Splice { from, from_offset, to, to_offset, length } => {
                let source = self.readable(from, 0, 0)?;
                let target = self.writable(to, 0, 0)?;
                let bytes = self.bytes(source, *from_offset, *length)?.to_vec();
                let bytes = &bytes[..self.maybe_short(bytes.len())];
                self.write_from(target, *to_offset, bytes)
            }
            Operation::CloneFile { from, to } => {
                let source = self.readable(from, 0, 0)?;
                let target = self.writable(to, 0, 0)?;
                self.on_one_device(source, target)?;
                if !self.can_clone {
                    return Err(Errno::OPNOTSUPP);
                }
                let bytes = self.tree.file(source)?.bytes.clone();
                self.tree.resize(target, 0)?;
                self.write_from(target, 0, &bytes)
            }
            Operation::CopyFiles { from, to, files, current, reading, .. } => {
                self.copy_files((from, to), files, current, reading)
            }
            Operation::CopyDirectory { from, to, reading, copy } => {
                self.copy_directory(disk, (from, to), reading, copy)
            }
            Operation::FindData { file, offset, data } => {
                let inode = self.inode_of(file)?;
                *data = find_data(self.tree.file(inode)?, *offset);
                Ok(0)
            }
            Operation::Lock { file, held } => {
                let (inode, _) = self.opened(file)?;
                let number = file.foreign_number().ok_or(Errno::BADF)?;
                let taken = |(other, open): (&u64, &Open)| {
                    *other != number && open.inode == inode && open.is_locked
                };
                if *held && self.opens.iter().any(taken) {
                    return Err(Errno::WOULDBLOCK);
                }
                self.opens.get_mut(&number).ok_or(Errno::BADF)?.is_locked = *held;
                Ok(0)
            }
            Operation::CountCached { file, length } => {
                let inode = self.inode_of(file)?;
                let bytes = (*length).min(self.tree.file(inode)?.bytes.len() as u64);
                Ok(if self.is_cached { bytes } else { 0 })
            }
            Operation::TouchMapped { file, offset, length, step } => {
                if !offset.is_multiple_of(BLOCK_BYTES)
                    || !(*step as u64).is_multiple_of(BLOCK_BYTES)
                {
                    return Err(Errno::INVAL);
                }
                let inode = self.readable(file, *offset, *length as u64)?;
                let size = self.tree.file(inode)?.bytes.len() as u64;
                Ok(size.saturating_sub(*offset).min(*length as u64))
            }
            // A look at what is there now.
            Operation::Map { file, length, mapped } => {
                let inode = self.readable(file, 0, *length as u64)?;
                let bytes = self.bytes(inode, 0, *length as u64)?;
                *mapped = Some(MappedBytes::copied(bytes, *length).ok_or(Errno::NOMEM)?);
                Ok(0)
            }
            // Memory is as real here as anywhere, though some systems do not know how to ask for it.
            Operation::Populate { range } => {
                let _ = range.populate();
                Ok(0)
            }
            Operation::ReadDirectory { directory, metadata, batch } => {
                let number = directory.foreign_number().ok_or(Errno::BADF)?;
                self.read_directory(number, *metadata, batch)
            }
            Operation::ListDirectories { directory, metadata, listings, current } => {
                self.list_directories(disk, directory.as_ref(), *metadata, listings, current)
            }
            _ => self.perform_on_path(operation),
        }
    }

    fn perform_on_path(&mut self, operation: &mut Operation) -> Result<u64> {
        match operation {
            Operation::Metadata { at, follow, metadata } => {
                let way = if *follow { Way::Follow } else { Way::Keep };
                *metadata = self.metadata(self.locate(at, way)?.existing()?)?;
                Ok(0)
            }
            Operation::CopyMetadata { from, to, metadata } => {
                let source = self.locate(from, Way::Keep)?.existing()?;
                let target = self.locate(to, Way::Keep)?.existing()?;
                let extended = self.tree.node(source)?.attributes.extended.clone();
                self.tree.set_attributes(target, |about| about.extended.extend(extended))?;
                done(self.set_metadata(target, **metadata))
            }
            Operation::SetMetadata { at, metadata } => {
                let inode = self.locate(at, Way::Keep)?.existing()?;
                done(self.set_metadata(inode, *metadata))
            }
            Operation::SetMode { at, mode } => {
                let inode = self.locate(at, Way::Follow)?.existing()?;
                done(self.tree.set_attributes(inode, |attributes| attributes.mode = *mode & 0o7777))
            }
            Operation::SetTimes { at, times } => {
                let inode = self.locate(at, Way::Keep)?.existing()?;
                done(self.tree.set_attributes(inode, |attributes| {
                    attributes.modified = times.modified.unwrap_or(attributes.modified);
                }))
            }
            Operation::SetOwner { at, owner } => {
                let inode = self.locate(at, Way::Keep)?.existing()?;
                done(self.tree.set_attributes(inode, |attributes| attributes.owner = *owner))
            }
            Operation::Rename { from, to, replace } => {
                let from = self.locate(from, Way::Keep)?;
                from.existing()?;
                let to = self.locate(to, Way::Keep)?.name()?;
                self.on_one_device(from.directory, to.0)?;
                self.tree.rename(from.name()?, to, *replace)?;
                self.forget_unnamed();
                Ok(0)
            }
            Operation::Remove { at, kind } => {
                let (directory, name) = self.locate(at, Way::Keep)?.name()?;
                let kind = match kind {
                    RemoveKind::File => FileKind::File,
                    RemoveKind::Directory => FileKind::Directory,
                };
                self.tree.remove(directory, name, kind)?;
                self.forget_unnamed();
                Ok(0)
            }
            Operation::CreateDirectory { at, mode } => {
                let content = Content::Directory(Default::default());
                self.create(at, content, *mode & !0o022)
            }
            Operation::CreateSymlink { target, at } => {
                self.create(at, Content::Symlink(target.clone()), 0o777)
            }
            Operation::CreateNode { at, kind: FileKind::Socket, mode, .. } => {
                self.create(at, Content::Socket, *mode & !0o022)
            }
            Operation::CreateNode { .. } => Err(Errno::PERM),
            Operation::CreateHardLink { original, at } => {
                let inode = self.locate(original, Way::Keep)?.existing()?;
                let (directory, name) = self.locate(at, Way::Keep)?.name()?;
                self.on_one_device(inode, directory)?;
                done(self.tree.link(inode, directory, name))
            }
            Operation::ReadLink { at, target } => {
                let inode = self.locate(at, Way::Keep)?.existing()?;
                let Content::Symlink(text) = &self.tree.node(inode)?.content else {
                    return Err(Errno::INVAL);
                };
                target.extend_from_slice(text.to_bytes());
                Ok(text.to_bytes().len() as u64)
            }
            Operation::ReadAttributes { at, attributes } => {
                let inode = self.locate(at, Way::Keep)?.existing()?;
                let extended = &self.tree.node(inode)?.attributes.extended;
                *attributes = extended.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                Ok(attributes.len() as u64)
            }
            Operation::WriteAttribute { at, name, value } => {
                let inode = self.locate(at, Way::Keep)?.existing()?;
                done(self.tree.set_attributes(inode, |attributes| {
                    attributes.extended.insert(name.clone(), value.clone());
                }))
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn create(&mut self, at: &At, content: Content, mode: u32) -> Result<u64> {
        let place = self.locate(at, Way::Keep)?;
        if place.inode.is_some() {
            return Err(Errno::EXIST);
        }
        let (directory, name) = place.name()?;
        done(self.tree.create(directory, name, content, mode & 0o7777).map(|_| ()))
    }

    pub(super) fn open(&mut self, at: &At, options: OpenOptions) -> Result<Inode> {
        let start = match &at.directory {
            Some(directory) => self.inode_of(directory)?,
            None => ROOT,
        };
        self.open_from(start, at.path.to_bytes(), options)
    }

    pub(super) fn open_from(
        &mut self,
        start: Inode,
        path: &[u8],
        options: OpenOptions,
    ) -> Result<Inode> {
        let way = match (options.beneath, options.follow) {
            (true, _) => Way::Beneath,
            (false, true) => Way::Follow,
            (false, false) => Way::Keep,
        };
        let place = self.locate_from(start, path, way)?;
        let Some(inode) = place.inode else {
            if options.create == Create::Never {
                return Err(Errno::NOENT);
            }
            let (directory, name) = place.name()?;
            let content = match options.directory {
                true => Content::Directory(Default::default()),
                false => Content::File(FileBytes::default()),
            };
            return self.tree.create(
                directory,
                name,
                content,
                u32::from(options.mode) & 0o7777 & !0o022,
            );
        };
        if options.create == Create::Exclusive {
            return Err(Errno::EXIST);
        }
        match self.tree.kind(inode)? {
            FileKind::Symlink => return Err(Errno::LOOP),
            FileKind::Socket => return Err(Errno::NXIO),
            FileKind::Directory if options.write => return Err(Errno::ISDIR),
            kind if options.directory && kind != FileKind::Directory => return Err(Errno::NOTDIR),
            _ => {}
        }
        if options.truncate && options.write {
            self.tree.resize(inode, 0)?;
        }
        Ok(inode)
    }

    fn opened(&self, file: &Descriptor) -> Result<(Inode, OpenOptions)> {
        let number = file.foreign_number().ok_or(Errno::BADF)?;
        let open = self.opens.get(&number).ok_or(Errno::BADF)?;
        Ok((open.inode, open.options))
    }

    pub(super) fn readable(&self, file: &Descriptor, offset: u64, length: u64) -> Result<Inode> {
        let (inode, options) = self.opened(file)?;
        if !options.read {
            return Err(Errno::BADF);
        }
        check_direct(options, offset, length)?;
        self.tree.file(inode).map(|_| inode)
    }

    fn writable(&self, file: &Descriptor, offset: u64, length: u64) -> Result<Inode> {
        let (inode, options) = self.opened(file)?;
        if !options.write {
            return Err(Errno::BADF);
        }
        check_direct(options, offset, length)?;
        end_of(offset, length)?;
        self.tree.file(inode).map(|_| inode)
    }

    /// `length`, or, if chance wills it, less; but not nothing.
    pub(super) fn maybe_short(&mut self, length: usize) -> usize {
        let once_in = self.faults.short_once_in;
        if length > 1 && self.chance.once_in(once_in) {
            // Whole sectors, where there are some: direct I/O is never cut inside one.
            let short = 1 + self.chance.below(length as u64 - 1) as usize;
            let whole = short - short % DIRECT_BYTES as usize;
            return if whole > 0 { whole } else { short };
        }
        length
    }

    pub(super) fn bytes(&self, inode: Inode, offset: u64, length: u64) -> Result<&[u8]> {
        let bytes = &self.tree.file(inode)?.bytes;
        let start = offset.min(bytes.len() as u64);
        let end = offset.saturating_add(length).min(bytes.len() as u64);
        Ok(&bytes[start as usize..end as usize])
    }

    pub(super) fn read_into(
        &self,
        inode: Inode,
        offset: u64,
        buffer: &mut Buffer,
        length: usize,
    ) -> Result<u64> {
        let bytes = self.bytes(inode, offset, length as u64)?;
        buffer.extend_from_slice(bytes);
        Ok(bytes.len() as u64)
    }

    pub(super) fn write_from(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> Result<u64> {
        end_of(offset, bytes.len() as u64)?;
        self.tree.write(inode, offset, bytes)?;
        Ok(bytes.len() as u64)
    }

    fn read_vectored(
        &mut self,
        file: &Descriptor,
        buffers: &mut BufferList,
        offset: u64,
    ) -> Result<u64> {
        let inode = self.readable(file, offset, 0)?;
        let room = buffers.buffers().iter().map(Buffer::spare).sum();
        let mut left = self.maybe_short(room);
        let mut done = 0;
        for buffer in buffers.buffers_mut() {
            let length = buffer.spare().min(left);
            let read = self.read_into(inode, offset + done, buffer, length)?;
            done += read;
            left -= length;
            if (read as usize) < length {
                break;
            }
        }
        Ok(done)
    }

    fn write_vectored(
        &mut self,
        file: &Descriptor,
        buffers: &BufferList,
        offset: u64,
    ) -> Result<u64> {
        let inode = self.writable(file, offset, 0)?;
        let all: Vec<u8> = buffers.buffers().iter().flat_map(|buffer| buffer.to_vec()).collect();
        let length = self.maybe_short(all.len());
        self.write_from(inode, offset, &all[..length])
    }

    pub(super) fn set_metadata(&mut self, inode: Inode, metadata: SetMetadata) -> Result<()> {
        let is_link = self.tree.kind(inode)? == FileKind::Symlink;
        self.tree.set_attributes(inode, |attributes| {
            attributes.owner = metadata.owner.unwrap_or(attributes.owner);
            let mode = metadata.mode.filter(|_| !is_link);
            attributes.mode = mode.map_or(attributes.mode, |mode| mode & 0o7777);
            let modified = metadata.times.and_then(|times| times.modified);
            attributes.modified = modified.unwrap_or(attributes.modified);
        })
    }

    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        let node = self.tree.node(inode)?;
        let (size, blocks) = match &node.content {
            Content::File(file) => (file.bytes.len() as u64, file.allocated.len() as u64),
            Content::Directory(_) => (BLOCK_BYTES, 1),
            Content::Symlink(target) => (target.to_bytes().len() as u64, 0),
            Content::Socket => (0, 0),
        };
        Ok(Metadata {
            kind: self.tree.kind(inode)?,
            mode: node.attributes.mode,
            size,
            allocated: blocks * BLOCK_BYTES,
            accessed: node.attributes.modified,
            modified: node.attributes.modified,
            owner: node.attributes.owner,
            node: 0,
            device: self.device_of(inode),
            inode,
            links: self.tree.links(inode),
            direct_alignment: DIRECT_BYTES as u16,
        })
    }

    pub(super) fn read_directory(
        &mut self,
        number: u64,
        metadata: bool,
        batch: &mut DirectoryBatch,
    ) -> Result<u64> {
        batch.clear();
        let inode = self.opens.get(&number).ok_or(Errno::BADF)?.inode;
        let names: Vec<CString> = self.tree.directory(inode)?.keys().rev().cloned().collect();
        // One that was removed is not listed any more.
        if names.is_empty() && !self.tree.is_named(inode) {
            return Err(Errno::NOENT);
        }
        let most = 1 + self.chance.below(BATCH_MAX);
        let open = self.opens.get_mut(&number).ok_or(Errno::BADF)?;
        let listing = open.listing.get_or_insert(names);
        let given = listing.split_off(listing.len().saturating_sub(most as usize));
        // It need not be known that there is nothing behind: here it is of every second directory.
        if listing.is_empty() && inode.is_multiple_of(2) {
            batch.set_last();
        }
        let names = self.tree.directory(inode)?;
        for name in given.into_iter().rev() {
            // Removed since it was listed: as if it had never been there.
            let Some(inside) = names.get(&name).copied() else { continue };
            batch.push(&name, self.tree.kind(inside)?, inside);
        }
        batch.sort();
        if metadata {
            batch.look_at_each(|name| names.get(name).map(|i| self.metadata(*i)).transpose())?;
        }
        Ok(batch.len() as u64)
    }
}

fn done(result: Result<()>) -> Result<u64> {
    result.map(|()| 0)
}

fn end_of(offset: u64, length: u64) -> Result<u64> {
    offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Errno::FBIG)
}

fn check_direct(options: OpenOptions, offset: u64, length: u64) -> Result<()> {
    let aligned = offset.is_multiple_of(DIRECT_BYTES) && length.is_multiple_of(DIRECT_BYTES);
    if options.direct && !aligned { Err(Errno::INVAL) } else { Ok(()) }
}

fn find_data(file: &FileBytes, offset: u64) -> Option<(u64, u64)> {
    let length = file.bytes.len() as u64;
    let end_of_block = |block: u64| (block + 1) * BLOCK_BYTES;
    let first =
        file.allocated.range(offset / BLOCK_BYTES..).find(|b| **b * BLOCK_BYTES < length)?;
    let start = offset.max(first * BLOCK_BYTES);
    if start >= length {
        return None;
    }
    let mut last = *first;
    while file.allocated.contains(&(last + 1)) {
        last += 1;
    }
    Some((start, end_of_block(last).min(length)))
}
