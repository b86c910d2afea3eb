//! Digests of files: those of a run of files are hashed together, and a few hints tell which one of
//! a run is wrong.
//!
//! A digest of 32 bytes for each file would be most of the patch of a tree of small files, and even
//! a byte for each is more than the names of many take. So a run has one digest, over the digests of
//! its files: no file of it can differ unnoticed. And its files stand in rows and columns, each of
//! which has a byte: the wrong file is where a wrong row and a wrong column meet.

use std::sync::Arc;

use super::wire::{Cursor, put_varint};
use crate::damage::Damage;
use crate::manifest::Digest;

/// Files of a row of a run.
const ROW_FILES: usize = 16;
/// Files of a run.
pub(crate) const RUN_FILES: usize = ROW_FILES * ROW_FILES;

/// The first byte of the digest of a row or a column.
type Hint = u8;

fn joined(digests: impl Iterator<Item = Digest>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    digests.for_each(|digest| {
        hasher.update(&digest);
    });
    *hasher.finalize().as_bytes()
}

/// How many rows and columns a run of so many files has.
fn shape(files: usize) -> (usize, usize) {
    (files.div_ceil(ROW_FILES), files.min(ROW_FILES))
}

/// The hints of a run's rows and of its columns. What is unknown stays so; a single row says nothing
/// that the run does not.
fn hints(digests: &[Option<Digest>]) -> (Vec<Option<Hint>>, Vec<Option<Hint>>) {
    let hint = |digests: &mut dyn Iterator<Item = &Option<Digest>>| {
        let known: Option<Vec<Digest>> = digests.copied().collect();
        known.map(|known| joined(known.into_iter())[0])
    };
    let (rows, columns) = shape(digests.len());
    let row = |row: usize| hint(&mut digests.iter().skip(row * ROW_FILES).take(ROW_FILES));
    let column = |column: usize| hint(&mut digests.iter().skip(column).step_by(ROW_FILES));
    let rows = if rows > 1 { (0..rows).map(row).collect() } else { Vec::new() };
    (rows, (0..columns).map(column).collect())
}

/// The payload: the number of files, the hints of their runs, the runs.
pub(crate) fn encode(digests: &[Digest]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, digests.len() as u64);
    for run in digests.chunks(RUN_FILES) {
        let known: Vec<Option<Digest>> = run.iter().copied().map(Some).collect();
        let (rows, columns) = hints(&known);
        out.extend(rows.into_iter().chain(columns).flatten());
    }
    for run in digests.chunks(RUN_FILES) {
        out.extend_from_slice(&joined(run.iter().copied()));
    }
    out
}

/// What a patch tells of the digests of files, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Digests {
    runs: Vec<Run>,
}

/// Files one behind the other, up to a number.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    end: usize,
    digest: Digest,
    /// Those of its rows, if it has several, and then of its columns.
    hints: Vec<Hint>,
}

impl Digests {
    /// How many files they are of.
    pub(crate) fn files(&self) -> usize {
        self.runs.last().map_or(0, |run| run.end)
    }

    /// Appends those of one block.
    pub(crate) fn add(&mut self, payload: &[u8]) -> Result<(), Damage> {
        let mut cursor = Cursor::new(payload);
        let count = cursor.varint("the number of digests")?;
        // Each run of files has a digest.
        let most = (payload.len() / size_of::<Digest>()) as u64;
        if count == 0 || count.div_ceil(RUN_FILES as u64) > most {
            return Err(Damage::new(0, format!("a block of {count} digests")));
        }
        let (first, start) = (self.runs.len(), self.files());
        let end = start + count as usize;
        let mut from = start;
        while from < end {
            let files = (end - from).min(RUN_FILES);
            from += files;
            let (rows, columns) = shape(files);
            let rows = if rows > 1 { rows } else { 0 };
            let hints = cursor.take(rows + columns, "a hint")?.to_vec();
            self.runs.push(Run { end: from, digest: Digest::default(), hints });
        }
        for run in &mut self.runs[first..] {
            run.digest = cursor.take(32, "a digest")?.try_into().expect("32 bytes");
        }
        cursor.finish("a block of digests")
    }
}

/// What a run turned out to be: all of its files are right but these, by their numbers. If any is wrong, some are
/// named; a hint of a byte is right by chance once in 256 times, and then others may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checked {
    /// These are wrong.
    pub(crate) wrong: Vec<usize>,
    /// Some of these are wrong as well.
    pub(crate) doubtful: Vec<usize>,
    /// Nothing is known of these, as others of their run cannot be read.
    pub(crate) unknown: Vec<usize>,
}

impl Checked {
    /// The first file that is wrong, and how many others may be meant in its place.
    pub(crate) fn first(&self) -> Option<(usize, usize)> {
        let wrong = self.wrong.first().map(|file| (*file, 0));
        wrong.or_else(|| self.doubtful.first().map(|file| (*file, self.doubtful.len() - 1)))
    }
}

/// What the hint of a row or a column says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Right,
    Wrong,
    /// A file of it cannot be read, or it tells nothing.
    Unknown,
}

/// Finds the wrong files of a run that is not right, by the rows and columns that they stand in.
fn find_wrong(run: &Run, start: usize, seen: &[Option<Digest>]) -> Checked {
    let is_complete = seen.iter().all(Option::is_some);
    let (rows, columns) = hints(seen);
    let (expected_rows, expected_columns) = run.hints.split_at(rows.len());
    let lines = |found: &[Option<Hint>], expected: &[Hint]| -> Vec<Line> {
        let line = |(found, expected): (&Option<Hint>, &Hint)| match found {
            None => Line::Unknown,
            Some(found) if found == expected => Line::Right,
            Some(_) => Line::Wrong,
        };
        let lines: Vec<Line> = found.iter().zip(expected).map(line).collect();
        // All may look right, and one is not: a hint is only a byte.
        match is_complete && !lines.contains(&Line::Wrong) {
            true => vec![Line::Unknown; lines.len()],
            false => lines,
        }
    };
    let mut rows = lines(&rows, expected_rows);
    if rows.is_empty() {
        let row = if is_complete { Line::Wrong } else { Line::Unknown };
        rows.push(row);
    }
    let columns = lines(&columns, expected_columns);
    let place = |file: usize| (file / ROW_FILES, file % ROW_FILES);
    let suspects: Vec<usize> = (0..seen.len())
        .filter(|file| {
            let (row, column) = place(*file);
            seen[*file].is_some() && rows[row] != Line::Right && columns[column] != Line::Right
        })
        .collect();
    let mut checked = Checked::default();
    for file in &suspects {
        let (row, column) = place(*file);
        let is_only = |same: &dyn Fn((usize, usize)) -> bool| {
            suspects.iter().filter(|other| same(place(**other))).count() == 1
        };
        let wrong = (rows[row] == Line::Wrong && is_only(&|other| other.0 == row))
            || (columns[column] == Line::Wrong && is_only(&|other| other.1 == column));
        let touched = rows[row] == Line::Wrong || columns[column] == Line::Wrong;
        let list = match (wrong, is_complete || touched) {
            (true, _) => &mut checked.wrong,
            (false, true) => &mut checked.doubtful,
            (false, false) => &mut checked.unknown,
        };
        list.push(start + file);
    }
    checked
}

/// Compares the digests of files, given in order, run by run.
#[derive(Debug)]
struct RunCheck {
    digests: Arc<Digests>,
    /// The run under way, and the digests of its files so far.
    run: usize,
    seen: Vec<Option<Digest>>,
}

impl RunCheck {
    fn new(digests: Arc<Digests>) -> RunCheck {
        RunCheck { digests, run: 0, seen: Vec::with_capacity(RUN_FILES) }
    }

    /// Takes the next file's digest, which is none if it cannot be read; at the end of a run says
    /// what that is.
    fn next(&mut self, digest: Option<Digest>) -> Option<Checked> {
        let run = self.digests.runs.get(self.run)?;
        self.seen.push(digest);
        let start = match self.run {
            0 => 0,
            number => self.digests.runs[number - 1].end,
        };
        if start + self.seen.len() < run.end {
            return None;
        }
        self.run += 1;
        let seen = std::mem::replace(&mut self.seen, Vec::with_capacity(RUN_FILES));
        let known: Option<Vec<Digest>> = seen.iter().copied().collect();
        let is_right = known.is_some_and(|known| joined(known.into_iter()) == run.digest);
        Some(if is_right { Checked::default() } else { find_wrong(run, start, &seen) })
    }
}

/// The digests of all files with data of one tree: of those that both trees have, and of the others.
#[derive(Debug, Clone)]
pub(crate) struct TreeDigests {
    kept: Arc<Digests>,
    others: Arc<Digests>,
    /// The numbers of each among the tree's files with data.
    kept_files: Arc<[u32]>,
    other_files: Arc<[u32]>,
}

impl TreeDigests {
    /// Of files with data that are kept or not, in order; none if that are not as many as there
    /// are digests.
    pub(crate) fn new(
        kept: Arc<Digests>,
        others: Arc<Digests>,
        is_kept: &[bool],
    ) -> Option<TreeDigests> {
        let numbers = |wanted: bool| -> Arc<[u32]> {
            let numbered = (0u32..).zip(is_kept);
            numbered.filter(|(_, kept)| **kept == wanted).map(|(number, _)| number).collect()
        };
        let (kept_files, other_files) = (numbers(true), numbers(false));
        let is_of_each = kept_files.len() == kept.files() && other_files.len() == others.files();
        is_of_each.then_some(TreeDigests { kept, others, kept_files, other_files })
    }

    /// How many files they are of.
    pub(crate) fn files(&self) -> usize {
        self.kept_files.len() + self.other_files.len()
    }
}

/// Compares the digests of a tree's files with data, given in order.
#[derive(Debug)]
pub(crate) struct DigestCheck {
    digests: TreeDigests,
    /// Of those that are kept, and of the others.
    checks: [RunCheck; 2],
    /// The number of the next file, and how many before it are kept.
    next: usize,
    kept: usize,
}

impl DigestCheck {
    pub(crate) fn new(digests: &TreeDigests) -> DigestCheck {
        let checks = [RunCheck::new(digests.kept.clone()), RunCheck::new(digests.others.clone())];
        DigestCheck { digests: digests.clone(), checks, next: 0, kept: 0 }
    }

    /// Takes the next file's digest, which is none if it cannot be read; at the end of a run says
    /// what that is.
    pub(crate) fn next(&mut self, digest: Option<Digest>) -> Option<Checked> {
        let kept_files = &self.digests.kept_files;
        let is_kept = kept_files.get(self.kept).is_some_and(|file| *file as usize == self.next);
        self.next += 1;
        self.kept += usize::from(is_kept);
        let [kept, others] = &mut self.checks;
        let (check, files) =
            if is_kept { (kept, kept_files) } else { (others, &self.digests.other_files) };
        let mut checked = check.next(digest)?;
        let Checked { wrong, doubtful, unknown } = &mut checked;
        for list in [wrong, doubtful, unknown] {
            list.iter_mut().for_each(|file| *file = files[*file] as usize);
        }
        Some(checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> Digest {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    /// Of files up to each of these numbers, a block for each.
    fn digests(ends: &[usize]) -> Arc<Digests> {
        let mut all = Digests::default();
        for end in ends {
            let digests: Vec<Digest> = (all.files()..*end).map(digest).collect();
            all.add(&encode(&digests)).expect("sound");
        }
        Arc::new(all)
    }

    /// What is said of each run, where some files are wrong and some cannot be read.
    fn check(known: &Arc<Digests>, wrong: &[usize], missing: &[usize]) -> Vec<Checked> {
        let mut check = RunCheck::new(known.clone());
        let file = |number: usize| match (wrong.contains(&number), missing.contains(&number)) {
            (_, true) => None,
            (true, false) => Some(digest(usize::MAX - number)),
            (false, false) => Some(digest(number)),
        };
        (0..known.files()).filter_map(|number| check.next(file(number))).collect()
    }

    fn wrong(files: &[usize]) -> Checked {
        Checked { wrong: files.to_vec(), ..Checked::default() }
    }

    #[test]
    fn one_wrong_file_is_found_wherever_it_is() {
        let known = digests(&[300, 303]);
        assert_eq!(known.files(), 303);
        assert_eq!(check(&known, &[], &[]), vec![Checked::default(); 3]);
        for file in 0..303 {
            let run = if file < 256 { 0 } else { 1 + usize::from(file >= 300) };
            let found = check(&known, &[file], &[]);
            // A byte looks right once in 256 times: then some more files may be meant.
            let Checked { wrong, doubtful, unknown } = &found[run];
            let meant = if doubtful.is_empty() { wrong } else { doubtful };
            assert!(meant.contains(&file) && unknown.is_empty(), "{file}: {:?}", found[run]);
            assert!(wrong.iter().all(|wrong| *wrong == file), "{file}: {:?}", found[run]);
            assert_eq!(found.iter().filter(|found| **found == Checked::default()).count(), 2);
        }
        let exact = (0..303).filter(|file| check(&known, &[*file], &[]).contains(&wrong(&[*file])));
        assert!(exact.count() > 290);
    }

    #[test]
    fn several_wrong_files_are_found_as_far_as_rows_and_columns_tell() {
        let known = digests(&[256]);
        assert_eq!(check(&known, &[17, 20, 30], &[]), [wrong(&[17, 20, 30])], "one row");
        assert_eq!(check(&known, &[5, 21, 37], &[]), [wrong(&[5, 21, 37])], "one column");
        let crossed = Checked { doubtful: vec![17, 20, 33, 36], ..Checked::default() };
        assert_eq!(check(&known, &[17, 36], &[]), [crossed]);
    }

    #[test]
    fn what_hints_do_not_tell_is_found_all_the_same() {
        let mut known = digests(&[5]);
        let run = &mut Arc::get_mut(&mut known).expect("only here").runs[0];
        run.digest[31] ^= 1;
        let all = Checked { doubtful: (0..5).collect(), ..Checked::default() };
        assert_eq!(check(&known, &[], &[]), [all]);
    }

    #[test]
    fn files_beside_missing_ones_are_compared_as_far_as_can_be() {
        let known = digests(&[256]);
        assert_eq!(check(&known, &[], &[40]), [Checked::default()], "one is missing");
        // One that is in its row and one in its column could look like that together.
        let likely = Checked { doubtful: vec![36, 100, 104], ..Checked::default() };
        assert_eq!(check(&known, &[100], &[40]), [likely]);
        // Beside one that is missing, in its row: the column tells.
        assert_eq!(check(&known, &[41], &[40]), [wrong(&[41])]);
        // Where the rows and columns of two that are missing meet, nothing is known.
        let meet = Checked { unknown: vec![20, 33], ..Checked::default() };
        assert_eq!(check(&known, &[], &[17, 36]), [meet]);
    }

    #[test]
    fn kept_files_and_others_have_their_own_runs() {
        let is_kept: Vec<bool> = (0..600).map(|number| number % 3 != 0).collect();
        let of = |wanted: bool| {
            let numbers = (0..600).filter(|number| is_kept[*number] == wanted);
            let digests: Vec<Digest> = numbers.map(digest).collect();
            let mut all = Digests::default();
            all.add(&encode(&digests)).expect("sound");
            Arc::new(all)
        };
        let all = TreeDigests::new(of(true), of(false), &is_kept).expect("one for each");
        assert_eq!(all.files(), 600);
        for bad in [0, 1, 299, 300, 599] {
            let mut check = DigestCheck::new(&all);
            let file = |number| digest(if number == bad { usize::MAX } else { number });
            let said: Vec<Checked> =
                (0..600).filter_map(|number| check.next(Some(file(number)))).collect();
            assert_eq!(said.len(), 3);
            let said: Vec<Checked> =
                said.into_iter().filter(|said| *said != Checked::default()).collect();
            assert_eq!(said, [wrong(&[bad])]);
        }
        assert!(TreeDigests::new(of(true), of(false), &is_kept[1..]).is_none());
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let payload = encode(&(0..260).map(digest).collect::<Vec<_>>());
        for end in 0..payload.len() {
            assert!(Digests::default().add(&payload[..end]).is_err(), "cut at {end}");
        }
        assert!(Digests::default().add(&[&payload[..], &[0]].concat()).is_err());
        assert!(Digests::default().add(&encode(&[])).is_err());
        let mut huge = Vec::new();
        put_varint(&mut huge, u64::MAX);
        assert!(Digests::default().add(&huge).is_err());
    }
}
