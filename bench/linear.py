#!/usr/bin/env python3
"""Measure what a diff costs a byte as files get larger.

Usage: bench/linear.py [--work DIR] [--memory SIZE] [--rounds N] [--sizes GIB,GIB]

Makes pairs with shifted.py (95 % shared), and runs `inflight diff --preset fast` on each in turn, with the
page cache empty of them. Prints medians. A byte is one of the two files together.
"""

import argparse
import os
import random
import statistics
import subprocess
import time
from pathlib import Path

from shifted import write_random, write_shifted

GIB = 1 << 30


def pair(work, size):
    """A pair of that size, made where it is not there yet."""
    directory = work / f"shifted-{size}"
    if not (directory / "done").exists():
        directory.mkdir(parents=True, exist_ok=True)
        rng = random.Random(1)
        write_random(directory / "old", size, rng)
        write_shifted(directory / "old", directory / "new", size, 0.95, rng)
        (directory / "done").touch()
    return directory


def forget(*paths):
    """Write what is to be written, and have the page cache give the files up."""
    os.sync()
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(program, directory, memory):
    """Wall clock and user time in seconds, peak in MiB and size of the patch, of one diff."""
    old, new, patch = (directory / name for name in ("old", "new", "patch"))
    patch.unlink(missing_ok=True)
    forget(old, new)
    command = [program, "diff", old, new, "-o", patch, "--preset", "fast", "--memory", memory]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"linear.py: the diff of {directory} failed")
    seconds = time.perf_counter() - start
    sizes = patch.stat().st_size, old.stat().st_size + new.stat().st_size
    return seconds, usage.ru_utime, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, *sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--program", type=Path, default=Path("target/release/inflight"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/inflight-cold"))
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="1,4,16", help="in GiB a side")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    pairs = {size: pair(arguments.work, size * GIB) for size in sizes}
    samples = {size: [] for size in sizes}
    for _ in range(arguments.rounds):
        for size in sizes:
            samples[size].append(run(arguments.program, pairs[size], arguments.memory))
    print("| a side | wall s | wall ns/byte | user ns/byte | CPU ns/byte | peak MiB | patch MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in sizes:
        wall, user, cpu, peak, patch, both = (statistics.median(v) for v in zip(*samples[size]))
        ns = " | ".join(f"{seconds / both * 1e9:.2f}" for seconds in (wall, user, cpu))
        print(f"| {size} GiB | {wall:.2f} | {ns} | {peak:.0f} | {patch / (1 << 20):.1f} |")


if __name__ == "__main__":
    main()
