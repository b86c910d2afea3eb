#!/usr/bin/env python3
"""Compare a cold `inflight diff --preset fast` of two large files with reading both and writing the patch alone.

Usage: bench/cold.py [--size BYTES] [--rounds N] [--work DIR] [--memory SIZE]...

Makes two pairs under --work: one that shares 95 % at shifted offsets, one that is 98 % alike in place.
Rounds take turns; before each run the page cache gives up the files. "plain" reads old and new, both at once,
and writes a patch of the same length. How it reads (length of requests, how many in flight on each file,
buffered or direct) is what was fastest of twelve ways, tried first. Prints a table of medians; figures of one
machine compare within a run only.
"""

import argparse
import mmap
import os
import random
import statistics
import subprocess
import threading
import time
from pathlib import Path

from shifted import MIB, write_random, write_shifted

# What a plain read may look like: length of requests, how many in flight on each file, flags of open.
SHAPES = [
    (request, in_flight, flags)
    for request in (MIB, 4 * MIB)
    for in_flight in (2, 4, 8)
    for flags in (0, os.O_DIRECT)
]


def write_in_place(old, new, share, rng):
    """Copy old to new, but for stretches of 4 to 64 KiB that are fresh: a share of all bytes."""
    size = old.stat().st_size
    with open(old, "rb") as source, open(new, "wb") as target:
        while target.tell() < size:
            fresh = rng.randrange(4 << 10, 64 << 10)
            source.seek(fresh, 1)
            target.write(rng.randbytes(fresh))
            left = int(fresh * (1 - share) / share)
            while left > 0 and target.tell() < size:
                part = source.read(min(left, MIB, size - target.tell()))
                left -= len(part)
                if not part:
                    break
                target.write(part)
        target.truncate(size)


def make_pairs(work, size):
    """The pairs, made where they are not there yet."""
    rng = random.Random(1)
    for name in ("shifted", "in-place"):
        directory = work / f"{name}-{size}"
        if not (directory / "done").exists():
            directory.mkdir(parents=True, exist_ok=True)
            old, new = directory / "old", directory / "new"
            write_random(old, size, rng)
            if name == "shifted":
                write_shifted(old, new, size, 0.95, rng)
            else:
                write_in_place(old, new, 0.02, rng)
            (directory / "done").touch()
        yield name, directory


def forget(*paths):
    """Make the page cache give up files, once nothing is being written any more."""
    os.sync()
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_all(paths, shape):
    """Read files at once, several requests in flight on each."""
    request, in_flight, flags = shape

    def work(handle, size, number):
        buffer = mmap.mmap(-1, request)
        for offset in range(number * request, size, in_flight * request):
            os.preadv(handle, [buffer], offset)

    handles = [os.open(path, os.O_RDONLY | flags) for path in paths]
    threads = []
    for path, handle in zip(paths, handles):
        for number in range(in_flight):
            threads.append(threading.Thread(target=work, args=(handle, path.stat().st_size, number)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for handle in handles:
        os.close(handle)


def plain(directory, shape, patch_bytes):
    """Seconds of reading both files and writing the patch alone."""
    paths = [directory / "old", directory / "new"]
    forget(*paths)
    start = time.monotonic()
    read_all(paths, shape)
    with open(directory / "plain", "wb") as file:
        left = patch_bytes
        block = bytes(MIB)
        while left > 0:
            left -= file.write(block[: min(left, MIB)])
    return time.monotonic() - start


def fastest(directory, patch_bytes):
    """The shape of the fastest plain job: the best two of one round are compared in two more."""
    once = {shape: plain(directory, shape, patch_bytes) for shape in SHAPES}
    best = sorted(SHAPES, key=once.get)[:2]
    again = {shape: statistics.median([once[shape], *(plain(directory, shape, patch_bytes) for _ in range(2))])
             for shape in best}
    return min(best, key=again.get)


def describe(shape):
    request, in_flight, flags = shape
    return f"{in_flight} × {request // MIB} MiB {'direct' if flags else 'buffered'}"


def diff(program, directory, arguments):
    """Seconds, bytes of the patch and peak memory in MiB of one diff."""
    patch = directory / "patch"
    patch.unlink(missing_ok=True)
    forget(directory / "old", directory / "new")
    command = [program, "diff", directory / "old", directory / "new", "-o", patch, "--preset", "fast"]
    start = time.monotonic()
    child = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise SystemExit(f"inflight ended with {status}")
    return seconds, patch.stat().st_size, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--program", type=Path, default=Path("target/release/inflight"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/inflight-cold"))
    parser.add_argument("--size", type=int, default=4 << 30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="append", help="also with this bound; may be given several times")
    arguments = parser.parse_args()
    settings = [[]] + [["--memory", memory] for memory in arguments.memory or []]
    print("| pair | memory | plain | plain s | diff s | rate to plain | patch MiB | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, directory in make_pairs(arguments.work, arguments.size):
        _, patch_bytes, _ = diff(arguments.program, directory, [])
        shape = fastest(directory, patch_bytes)
        times, runs = [], [[] for _ in settings]
        for number in range(arguments.rounds):
            times.append(plain(directory, shape, patch_bytes))
            turns = list(zip(settings, runs))
            for setting, run in turns if number % 2 else reversed(turns):
                run.append(diff(arguments.program, directory, setting))
        alone = statistics.median(times)
        for setting, run in zip(settings, runs):
            seconds = statistics.median(seconds for seconds, _, _ in run)
            memory = setting[1] if setting else "default"
            peak = max(peak for _, _, peak in run)
            patch_mib = run[0][1] / MIB
            row = f"{alone:.2f} | {seconds:.2f} | {alone / seconds:.2f} | {patch_mib:.1f} | {peak:.0f}"
            print(f"| {name} | {memory} | {describe(shape)} | {row} |", flush=True)


if __name__ == "__main__":
    main()
