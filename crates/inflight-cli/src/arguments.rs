//! The command line: one definition from which parsing, help, man page and completions come.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use inflight_patch::{Preserve, Preset};

use crate::size::{parse_request, parse_size, parse_time};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold());

/// Patches for whole directory trees, and copies, at the speed of the disk.
///
/// Makes a small patch from two versions of a tree (or of a file), and turns the old version and
/// the patch into the new one: contents, names, kinds, permissions, links and holes alike. Copies
/// trees with all that belongs to them.
#[derive(Debug, Parser)]
#[command(
    name = "inflight",
    version,
    styles = STYLES,
    max_term_width = 100,
    after_help = EXIT_STATUS
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// What goes for every command.
    #[command(flatten)]
    pub common: Common,
}

const EXIT_STATUS: &str = "\
Exit status: 0 done, 1 failed or differs, 2 wrong usage.
Environment: INFLIGHT_DRIVER=uring|threads forces how I/O is done; by default io_uring where the
system allows it, else threads. INFLIGHT_INSTRUCTIONS=portable|avx2|avx512 chooses the vector
instructions; by default the widest that the processor has. Results do not depend on either.";

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long, global = true)]
    pub json: bool,

    /// Memory to use at most, as 512MiB or 2GiB [default: 4GiB or half of what is free, whichever
    /// is less]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,

    /// Threads for the processor work of diff, apply, verify and demo [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// The longest read or write of a large file, 4KiB to 1GiB [default: 2MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_request)]
    pub request: Option<usize>,

    /// Show what an error was caused by
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a patch that turns OLD into NEW
    #[command(after_help = "\
Examples:
  inflight diff game-1.0 game-1.1 -o 1.0-1.1.patch
  inflight diff old.img new.img -o img.patch --preset small
  inflight diff v1 v2 -o p --memory 512MiB --preserve times,owner")]
    Diff(DiffArguments),

    /// Build NEW from OLD and a patch
    ///
    /// NEW is built beside its final place and gets its name only when it is whole: every file's
    /// digest was compared, and all of it is on the disk. OLD is only read.
    #[command(after_help = "\
Examples:
  inflight apply 1.0-1.1.patch game-1.0 game-1.1
  inflight apply p v1 v2 --no-sync")]
    Apply(ApplyArguments),

    /// Say whether TREE is the new tree of a patch, and list what differs
    #[command(after_help = "\
Examples:
  inflight verify 1.0-1.1.patch game-1.1
  inflight verify 1.0-1.1.patch game-1.0 --old")]
    Verify(VerifyArguments),

    /// Tell what is inside a patch
    #[command(after_help = "\
Examples:
  inflight info 1.0-1.1.patch
  inflight info 1.0-1.1.patch --largest 50 --json")]
    Info(InfoArguments),

    /// Do the whole job, on the bundled trees or on two given ones, and show the figures
    ///
    /// Makes a patch, applies it and verifies the result in a temporary directory, which is
    /// removed again.
    #[command(after_help = "\
Examples:
  inflight demo
  inflight demo game-1.0 game-1.1 --preset small")]
    Demo(DemoArguments),

    /// Copy files and trees, with all that `cp -a` keeps
    ///
    /// A TARGET with a slash at its end is a directory, into which the sources go under their names (of
    /// SOURCE/., what is inside goes there), and so it is for several sources; else TARGET is the new
    /// name of the one source. A new tree grows in a
    /// hidden directory beside its final place and gets its name when it is whole; in a tree that is
    /// there already each file is replaced as a whole. What goes wrong with one file does not stop the
    /// others: it is listed at the end.
    #[command(after_help = "\
Examples:
  inflight copy photos /mnt/backup/photos
  inflight copy photos music /mnt/backup/
  inflight copy disk.img disk-copy.img --verify
  inflight copy photos /mnt/backup/photos --resume")]
    Copy(CopyArguments),

    /// Bring files into the page cache
    ///
    /// What is there already is counted, not read. Nothing is locked in memory: the system drops it
    /// again when it needs the room.
    #[command(after_help = "\
Examples:
  inflight warm /srv/database
  inflight warm model.safetensors --limit 8GiB")]
    Warm(WarmArguments),

    /// Tell what a path is on, how data is moved there, and which settings suit it
    #[command(after_help = "\
Examples:
  inflight device /srv/builds
  inflight device / /tmp --json")]
    Device(DeviceArguments),

    /// Measure which way to read and write is best at a path
    ///
    /// Tries sizes of requests, numbers of them under way, and ways (buffered, direct, mapped, ...), each in
    /// rounds and in an order by chance, and tells in plain words what is best there and why. In a directory,
    /// files are made for that and removed again; of a file, only reading is measured.
    #[command(after_help = "\
Examples:
  inflight bench /srv -o srv.html
  inflight bench /mnt/usb --time 3m --save
  inflight bench . --json > before.json
  inflight bench --compare before.json after.json")]
    Bench(BenchArguments),

    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  inflight completions bash > \
        ~/.local/share/bash-completion/completions/inflight")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },

    /// Print the man page
    #[command(after_help = "Example:\n  inflight man | man -l -")]
    Man,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The old version: a directory or a file
    pub old: PathBuf,
    /// The new version
    pub new: PathBuf,
    /// The patch to write; replaced if it exists
    #[arg(short, long, value_name = "PATCH")]
    pub output: PathBuf,
    /// Time against size
    #[arg(long, value_enum, default_value_t = PresetName::Default)]
    pub preset: PresetName,
    /// What to keep besides contents, names, kinds and permissions
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub preserve: Vec<PreserveName>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// The patch
    pub patch: PathBuf,
    /// The tree it was made from; only read
    pub old: PathBuf,
    /// The tree to build; nothing may exist there
    pub new: PathBuf,
    /// Do not wait until the new tree is durable: faster, but a power failure soon afterwards may
    /// leave it damaged
    #[arg(long)]
    pub no_sync: bool,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The patch
    pub patch: PathBuf,
    /// The tree to compare
    pub tree: PathBuf,
    /// Compare with the patch's old tree instead
    #[arg(long)]
    pub old: bool,
}

/// Arguments of `info`.
#[derive(Debug, Args)]
pub struct InfoArguments {
    /// The patch
    pub patch: PathBuf,
    /// How many of the files that take most of the patch to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub largest: usize,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// The old version [default: the time zone database of 2024]
    #[arg(requires = "new")]
    pub old: Option<PathBuf>,
    /// The new version [default: that of 2025]
    pub new: Option<PathBuf>,
    /// Time against size
    #[arg(long, value_enum, default_value_t = PresetName::Default)]
    pub preset: PresetName,
}

/// Arguments of `copy`.
#[derive(Debug, Args)]
pub struct CopyArguments {
    /// What to copy: files, directories, links
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Where to: a new name, or with a slash at its end a directory that is there
    pub target: PathBuf,
    /// Go on with a copy that was interrupted, or bring one up to date: keep what is there whole, copy
    /// what is missing or differs in size, time or kind; nothing is removed
    #[arg(long, visible_alias = "update")]
    pub resume: bool,
    /// Read everything again afterwards, from the disk where that can be, and compare
    #[arg(long, conflicts_with = "dry_run")]
    pub verify: bool,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Wait until everything is durable before it gets its name: without this, a power failure soon
    /// afterwards may leave files that are not whole
    #[arg(long)]
    pub sync: bool,
    /// Give way to everything else that uses the disk
    #[arg(long)]
    pub background: bool,
}

/// Arguments of `warm`.
#[derive(Debug, Args)]
pub struct WarmArguments {
    /// What to warm: files, and directories with all that is in them
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Read at most so much; files that would go beyond are left out [default: half of the memory
    /// that is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub limit: Option<u64>,
}

/// Arguments of `device`.
#[derive(Debug, Args)]
pub struct DeviceArguments {
    /// What to look under: files or directories
    #[arg(default_value = ".", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// Where to measure: a directory, or a file to read
    #[arg(default_value = ".", value_name = "PATH")]
    pub path: PathBuf,
    /// Write the report as a page to look at in a browser; replaced if it exists
    #[arg(short, long, value_name = "PAGE")]
    pub output: Option<PathBuf>,
    /// How long it may take, as 90s or 3m: 5s or more
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub time: Duration,
    /// Room for files, 128MiB or more [default: a tenth of what is free, at most 1.5GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub space: Option<u64>,
    /// Keep what is best: copies use it on this device from now on
    #[arg(long)]
    pub save: bool,
    /// Measure nothing; compare two reports that --json printed
    #[arg(
        long,
        num_args = 2,
        value_names = ["BEFORE", "AFTER"],
        conflicts_with_all = ["path", "output", "time", "space", "save"]
    )]
    pub compare: Option<Vec<PathBuf>>,
}

/// A [`Preset`] by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PresetName {
    /// Little time, for a patch that is a little larger
    Fast,
    /// For everyday use
    Default,
    /// The smallest patch, for several times the time
    Small,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Preset {
        match name {
            PresetName::Fast => Preset::Fast,
            PresetName::Default => Preset::Default,
            PresetName::Small => Preset::Small,
        }
    }
}

/// A member of [`Preserve`] by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PreserveName {
    /// Modification times
    Times,
    /// User and group, by number
    Owner,
    /// Extended attributes
    Xattrs,
}

/// The set of the names given.
pub fn preserve(names: &[PreserveName]) -> Preserve {
    names.iter().fold(Preserve::NONE, |set, name| {
        set | match name {
            PreserveName::Times => Preserve::TIMES,
            PreserveName::Owner => Preserve::OWNER,
            PreserveName::Xattrs => Preserve::XATTRS,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
