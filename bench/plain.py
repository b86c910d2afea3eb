#!/usr/bin/env python3
"""Compare applying a patch with reading the old tree and writing the new one, and nothing else.

    bench/plain.py OLD NEW [--preset NAME] [--rounds N] [--work DIR]

The plain job reads every file of OLD and copies every file of NEW (which stands for writing it:
its bytes come from the page cache), each with requests of 1 MiB, in one process and in two at
once. They are running already: no start of a program counts. Rounds take turns; medians count.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

MIB = 1 << 20
INFLIGHT = Path(__file__).resolve().parent.parent / "target" / "release" / "inflight"


def files(tree):
    """All regular files below `tree`, the largest first."""
    found = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(found, key=lambda path: -path.stat().st_size)


def pieces(paths):
    """The paths cut into ranges of 16 MiB, so that one large file is work for two."""
    for path in paths:
        size = path.stat().st_size
        for start in range(0, max(size, 1), 16 * MIB):
            yield path, start, min(16 * MIB, size - start)


def read(piece):
    path, start, length = piece
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while length > 0 and (count := file.readinto(memoryview(buffer)[: min(MIB, length)])):
            length -= count


def write(work):
    (path, start, length), target = work
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT, 0o644)
        file.seek(start)
        while length > 0 and (count := file.readinto(memoryview(buffer)[: min(MIB, length)])):
            os.pwrite(handle, memoryview(buffer)[:count], start)
            start, length = start + count, length - count
        os.close(handle)


def plain(pool, old, new, out):
    """Seconds for reading all of `old` and writing all of `new`."""
    reads = list(pieces(files(old)))
    writes = [(piece, out / piece[0].relative_to(new)) for piece in pieces(files(new))]
    folders = {target.parent for _, target in writes}
    start = time.perf_counter()
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    chunk = max(1, len(reads) // 64)
    list(pool.map(read, reads, chunksize=chunk))
    list(pool.map(write, writes, chunksize=chunk))
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work")
    arguments = parser.parse_args()
    old, new = arguments.old, arguments.new
    with (
        tempfile.TemporaryDirectory(dir=arguments.work) as folder,
        ProcessPoolExecutor(1) as one,
        ProcessPoolExecutor(2) as two,
    ):
        work = Path(folder)
        patch, out = work / "patch", work / "out"
        command = [INFLIGHT, "diff", old, new, "-o", patch, "--preset", arguments.preset]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        pools = {"plain, one process": one, "plain, two processes": two}
        samples = {name: [] for name in ("apply", "apply --no-sync", *pools)}
        for _ in range(arguments.rounds + 1):
            for name, options in (("apply", []), ("apply --no-sync", ["--no-sync"])):
                os.sync()
                start = time.perf_counter()
                command = [INFLIGHT, "apply", patch, old, out, *options]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                samples[name].append(time.perf_counter() - start)
                shutil.rmtree(out)
            for name, pool in pools.items():
                os.sync()
                samples[name].append(plain(pool, old, new, out))
                shutil.rmtree(out)
    # The first round warms up.
    medians = {name: statistics.median(seconds[1:]) for name, seconds in samples.items()}
    print(f"| {old.parent.name}, {arguments.preset} | median s | ÷ one | ÷ two |")
    print("| --- | --- | --- | --- |")
    for name, median in medians.items():
        ratios = (f"{median / medians[base]:.2f}" for base in pools)
        print(f"| {name} | {median:.3f} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    sys.exit(main())
