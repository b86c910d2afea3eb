#!/usr/bin/env python3
"""Measure Inflight and its peers on two versions of a directory tree.

    bench/compare.py PAIR [--corpora DIR] [--rounds N] [--only NAME,NAME] ...

Every installed tool makes a patch and applies it, in turn, for several rounds.
Each result is compared with the new version. The medians come out as a
Markdown table, all samples as a CSV file. README.md says how to read them.
"""

import argparse
import contextlib
import csv
import datetime
import os
import platform
import select
import shlex
import shutil
import signal
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import corpora
import peers
from peers import GIB, MIB, TOOLS, words

HERE = Path(__file__).resolve().parent
BASELINE = "inflight-default"


# Inputs


class Inputs(NamedTuple):
    """The two versions as trees, and as tars of them if a tool takes tars.

    `tar_bytes` is the size of the larger tar.
    """

    trees: tuple[Path, Path]
    tars: tuple[Path, ...] = ()
    tar_bytes: int = 0


def make_tars(trees, work):
    """Archive both trees such that equal trees give equal bytes."""
    tars = work / "old.tar", work / "new.tar"
    for tree, tar in zip(trees, tars, strict=True):
        say(f"archiving {tree}")
        subprocess.run(
            ["tar", "--format=gnu", "--sort=name", "--mtime=@0", "--owner=0", "--group=0"]
            + ["--numeric-owner", "-cf", tar, "-C", tree, "."],
            check=True,
        )
    return Inputs(trees, tars, max(tar.stat().st_size for tar in tars))


def read_once(*roots):
    """Read every file below `roots`, to have it in the page cache. Return (files, bytes)."""
    files, total, buffer = 0, 0, bytearray(MIB)
    for root in roots:
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                files += 1
                with open(path, "rb", buffering=0) as file:
                    while count := file.readinto(buffer):
                        total += count
    return files, total


# Which tools run


def reason_to_skip(tool, inputs, values, slow):
    """Say why `tool` cannot or should not run on `inputs`, or None."""
    for program in sorted(template.format(**values) for template in tool.programs()):
        if not shutil.which(program):
            return f"{program} is not installed"
    if tool.limit and inputs.tar_bytes > tool.limit and not slow:
        return f"a tar has more than {tool.limit // MIB} MiB (--slow runs it all the same)"
    return None


def query(command):
    """Return all that a command prints, or None when it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def version_of(tool, values):
    """The line in which the tool says its version."""
    lines = (query(words(tool.version, values)) or "unknown").splitlines()
    return next((line.strip() for line in lines if any(c.isdigit() for c in line)), "unknown")


# Measuring


class Usage(NamedTuple):
    """What a phase cost: wall clock and CPU time in seconds, peak resident memory in KiB."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_kib: int = 0

    def then(self, other):
        """The cost of this and, after it, the other."""
        return Usage(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_kib, other.peak_kib),
        )


class Sample(NamedTuple):
    """One phase of one tool in one round. `status` is "ok", "timeout" or "exit N"."""

    tool: str
    settings: str
    round: int
    phase: str
    seconds: float
    cpu_seconds: float
    peak_kib: int
    patch_bytes: int | None
    identical: str | None
    status: str


def run(command, scratch, timeout):
    """Run `command` to its end or for `timeout` seconds. Return its Usage and its status.

    The kernel counts the CPU time of the child and of the descendants it waited for, and as peak
    the largest single process among them: peaks of concurrent processes are not summed.
    """
    stderr = scratch / "stderr"
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(scratch)}
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, environment, file_actions=files, setpgroup=0)
    handle, exited = os.pidfd_open(pid), []
    try:
        exited, _, _ = select.select([handle], [], [], timeout)
    finally:
        if not exited:
            os.killpg(pid, signal.SIGKILL)
        _, wait_status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - started
        os.close(handle)
    code = os.waitstatus_to_exitcode(wait_status)
    status = "timeout" if not exited else "ok" if code == 0 else f"exit {code}"
    if status != "ok":
        complaint = stderr.read_text(errors="replace")[-2000:]
        say(f"{status}: {shlex.join(command)}\n{complaint}".rstrip())
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss), status


def run_phase(templates, values, scratch, timeout):
    """Run the commands of a phase one after the other, up to the first that fails."""
    os.sync()  # so that the phase does not pay for what the previous one left to be written
    total, status = Usage(), "ok"
    for template in templates:
        usage, status = run(words(template, values), scratch, max(0.0, timeout - total.seconds))
        total = total.then(usage)
        if status != "ok":
            break
    return total, status


def measure(tool, inputs, values, round_number, timeout, scratch):
    """Diff and apply once, in a new folder `scratch`. Yield a Sample for each phase begun."""
    old, new = inputs.trees if tool.takes == "tree" else inputs.tars
    patch, out = scratch / "patch", scratch / "out"
    values = {**values, "old": old, "new": new, "patch": patch, "out": out, "scratch": scratch}
    row = tool.program, tool.settings.format(**values), round_number

    usage, status = run_phase(tool.diff, values, scratch, timeout)
    if status != "ok":
        yield Sample(*row, "diff", *usage, None, None, status)
        return
    if tool.between:
        tool.between(old, scratch)
    _, patch_bytes = read_once(patch)
    yield Sample(*row, "diff", *usage, patch_bytes, None, status)

    usage, status = run_phase(tool.apply, values, scratch, timeout)
    same = ("yes" if identical(out, new) else "NO") if status == "ok" else None
    yield Sample(*row, "apply", *usage, None, same, status)


def identical(out, new):
    """Whether two files, or two trees with their contents and symbolic links, are the same."""
    compare = ["diff", "-r", "-q", "--no-dereference"] if new.is_dir() else ["cmp"]
    done = subprocess.run([*compare, out, new], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        say("\n".join(["the result differs from new:", *done.stdout.splitlines()[:10]]))
    return done.returncode == 0


def empty_files(folder):
    """Free the space and the memory of a measurement's files, without deleting them.

    Deleting them would slow down whoever creates files next: ext4 without a journal searches for
    inodes past all those that were freed in the last minutes, which took eight times as long as
    creating the files. A file with several names is left alone: another name may be in an input.
    """
    for parent, _, names in os.walk(folder, followlinks=False):
        for path in (os.path.join(parent, name) for name in names):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                with contextlib.suppress(PermissionError):
                    os.truncate(path, 0)


def run_rounds(tools, inputs, values, args, work):
    """Run all tools in turn, each round starting with another one. Return Samples by tool name.

    A tool that failed or took too long is not tried again.
    """
    samples = {tool.name: [] for tool in tools}
    for number in range(1, args.rounds + 1):
        first = (number - 1) % len(tools)
        for tool in tools[first:] + tools[:first]:
            done = samples[tool.name]
            if done and done[-1].status != "ok":
                continue
            scratch = work / f"{tool.name}-{number}"
            scratch.mkdir()
            for sample in measure(tool, inputs, values, number, args.timeout, scratch):
                done.append(sample)
                say(
                    f"round {number}/{args.rounds}: {tool.name} {sample.phase} {sample.status}, "
                    f"{sample.seconds:.3f} s"
                )
            empty_files(scratch)
    return samples


# Reporting


def describe_pair(pair, origin, trees):
    """Name the pair and its size, as (key, value) pairs. Reads the trees, which warms the cache."""
    note = [("pair", f"{pair} ({origin})" if origin else pair)]
    for side, tree in zip(("old", "new"), trees, strict=True):
        files, size = read_once(tree)
        note.append((side, f"{files} files, {size} bytes"))
    return note


def describe_machine(work):
    """What the machine is and how busy it is just now, as (key, value) pairs."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    file_system = query(["df", "--output=fstype", work]) or "unknown"
    return [
        ("date", datetime.datetime.now().astimezone().isoformat(timespec="seconds")),
        ("CPU", cpu[0].split(":")[1].strip() if cpu else platform.machine()),
        ("cores", os.cpu_count()),
        ("memory", f"{memory / GIB:.1f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("file system", file_system.split()[-1]),
        ("load before the first round", f"{os.getloadavg()[0]:.2f}"),
    ]


def describe_run(tools, values, args):
    """How the measurements are made and of what, as (key, value) pairs."""
    versions = {tool.program: version_of(tool, values) for tool in tools}
    return [
        ("cache", "hot: all inputs were read once before the first round"),
        ("rounds", args.rounds),
        ("timeout", f"{args.timeout:g} s for each phase"),
        *((f"version of {program}", version) for program, version in versions.items()),
    ]


def memory_floor():
    """The least peak, in KiB, that can be measured: a child starts out in this process's memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def table(samples, floor):
    """The medians as a Markdown table; `floor` in KiB as from memory_floor()."""
    heads = "tool | settings | diff s | diff CPU s | diff peak MiB | patch bytes | apply s"
    heads += " | apply CPU s | apply peak MiB | identical | diff time ÷ Inflight default's"
    heads = heads.split(" | ")
    rows = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    baseline = median_seconds(samples.get(BASELINE, []), "diff")
    for of_tool in samples.values():
        diff_seconds = median_seconds(of_tool, "diff")
        ratio = f"{diff_seconds / baseline:.2f}" if baseline and diff_seconds else "–"
        verdicts = {sample.identical for sample in of_tool if sample.identical}
        verdict = "**NO**" if "NO" in verdicts else "yes" if verdicts else "–"
        sizes = [sample.patch_bytes for sample in of_tool if sample.patch_bytes is not None]
        size = f"{statistics.median(sizes):.0f}" if sizes else "–"
        diff, apply = (usage_cells(of_tool, phase, floor) for phase in ("diff", "apply"))
        rows.append([of_tool[0].tool, of_tool[0].settings, *diff, size, *apply, verdict, ratio])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def median_seconds(samples, phase):
    seconds = [s.seconds for s in samples if s.phase == phase and s.status == "ok"]
    return statistics.median(seconds) if seconds else None


def usage_cells(samples, phase, floor):
    """Three cells: seconds, CPU seconds, peak MiB; a failure or timeout in any round shows."""
    of_phase = [sample for sample in samples if sample.phase == phase]
    if not of_phase or of_phase[-1].status != "ok":
        return [of_phase[-1].status if of_phase else "–", "–", "–"]
    seconds, cpu, peak = (
        statistics.median(getattr(sample, field) for sample in of_phase)
        for field in ("seconds", "cpu_seconds", "peak_kib")
    )
    mebibytes = f"≤ {floor / 1024:.0f}" if peak <= floor else f"{peak / 1024:.0f}"
    return [f"{seconds:.3f}", f"{cpu:.3f}", mebibytes]


def write_csv(path, note, samples):
    with open(path, "w", newline="") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in note)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Sample._fields)
        for of_tool in samples.values():
            for sample in of_tool:
                times = f"{sample.seconds:.4f}", f"{sample.cpu_seconds:.4f}"
                writer.writerow(sample._replace(seconds=times[0], cpu_seconds=times[1]))


def write_report(folder, stem, note, samples):
    """Write the CSV and the Markdown file as `folder`/`stem`.*, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    floor = memory_floor()
    note = [*note, ("least peak that shows", f"{floor / 1024:.0f} MiB")]
    medians = table(samples, floor)
    facts = "".join(f"- {key}: {value}\n" for key, value in note)
    write_csv(folder / f"{stem}.csv", note, samples)
    (folder / f"{stem}.md").write_text(f"# {stem}\n\n{medians}\n{facts}")
    print(medians, end="")


# The command line


def say(message):
    print(f"compare.py: {message}", file=sys.stderr)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Measure Inflight and its peers on two trees.")
    add = parser.add_argument
    add("pair", metavar="PAIR", help=f"{', '.join(corpora.PAIRS)}, or two paths OLD:NEW")
    add(
        "--corpora",
        metavar="DIR",
        type=Path,
        default=corpora.default_folder(),
        help="where the pairs are, or go when fetched (default: $INFLIGHT_CORPORA or %(default)s)",
    )
    add("--rounds", metavar="N", type=int, default=5)
    add(
        "--only",
        metavar="NAME,NAME",
        help=f"run these: {', '.join(tool.name for tool in TOOLS)}; or a program with all settings",
    )
    add("--out", metavar="DIR", type=Path, default=HERE / "runs", help="where the reports go")
    add("--work", metavar="DIR", help="where to make tars, patches and results")
    add("--timeout", metavar="SECONDS", type=float, default=900, help="for each diff and apply")
    add("--slow", action="store_true", help="also run slow tools on large inputs")
    add("--inflight", metavar="PATH", default=HERE.parent / "target" / "release" / "inflight")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds takes 1 or more")
    return args


def find_pair(args):
    """Return the pair's name, its two trees, and where they are from if that is known."""
    if ":" in args.pair:
        old, new = (Path(part).resolve() for part in args.pair.split(":", 1))
        if not (old.is_dir() and new.is_dir()):
            sys.exit("compare.py: OLD:NEW takes two directories")
        return f"{old.name}-{new.name}", (old, new), None
    try:
        old, new = corpora.ensure(args.pair, args.corpora.resolve())
    except corpora.CorpusError as error:
        sys.exit(f"compare.py: {error}")
    origin = old.parent / "origin.txt"
    return args.pair, (old, new), origin.read_text().strip() if origin.exists() else None


def chosen_tools(only):
    """The tools that --only names, by name or by program; all of them without --only."""
    names = set(only.split(",")) if only else {tool.name for tool in TOOLS}
    unknown = names - {tool.name for tool in TOOLS} - {tool.program for tool in TOOLS}
    if unknown:
        sys.exit(f"compare.py: no tool named {', '.join(sorted(unknown))}; see --help")
    return [tool for tool in TOOLS if names & {tool.name, tool.program}]


def installed_tools(tools, inputs, values, slow):
    """Leave out the tools that cannot run, saying so; Inflight has to be there if it was chosen."""
    reasons = {tool.name: reason_to_skip(tool, inputs, values, slow) for tool in tools}
    for tool in tools:
        if reason := reasons[tool.name]:
            if tool.program == "inflight":
                sys.exit(f"compare.py: {reason}; run `cargo build --release` or give --inflight")
            say(f"skipping {tool.name}: {reason}")
    return [tool for tool in tools if not reasons[tool.name]]


def main():
    args = parse_arguments()
    chosen = chosen_tools(args.only)
    pair, trees, origin = find_pair(args)
    stem = f"{pair}-{datetime.date.today().isoformat()}"
    with tempfile.TemporaryDirectory(dir=args.work, prefix="inflight-compare-") as folder:
        work = Path(folder).resolve()
        note = describe_pair(pair, origin, trees)
        inputs = Inputs(trees)
        if any(tool.takes == "tar" for tool in chosen):
            inputs = make_tars(trees, work)
            read_once(*inputs.tars)
        values = peers.constants(args.inflight, inputs.tar_bytes)
        tools = installed_tools(chosen, inputs, values, args.slow)
        if not tools:
            sys.exit("compare.py: none of these tools can run")
        note += describe_machine(work) + describe_run(tools, values, args)
        samples = run_rounds(tools, inputs, values, args, work)
    write_report(args.out, stem, note, samples)
    every = [sample for of_tool in samples.values() for sample in of_tool]
    if any(s.identical == "NO" or s.status.startswith("exit") for s in every):
        sys.exit("compare.py: a tool failed, or its result is not identical to new")


if __name__ == "__main__":
    main()
