#!/usr/bin/env python3
"""Make two large files that share most bytes, at shifted offsets.

Usage: bench/shifted.py DIR [--size BYTES] [--shared PERCENT] [--seed N]

DIR/old is random. DIR/new is cut from it in segments of 64 KiB to 32 MiB, in order; between them
stand random bytes, a different number each time, so that no segment keeps its offset.
"""

import argparse
import random
from pathlib import Path

MIB = 1 << 20


def write_random(path, size, rng):
    """Fill a file with size random bytes."""
    with open(path, "wb") as file:
        while size > 0:
            step = min(size, 16 * MIB)
            file.write(rng.randbytes(step))
            size -= step


def write_shifted(old, new, size, shared, rng):
    """Write size bytes: segments of old and fresh bytes, in the ratio shared : 1 - shared."""
    with open(old, "rb") as source, open(new, "wb") as target:
        while target.tell() < size:
            segment = int(2 ** rng.uniform(16, 25))
            fresh = int(segment * (1 - shared) / shared) | 1
            target.write(rng.randbytes(fresh))
            target.write(source.read(segment))
            source.seek(fresh, 1)
        target.truncate(size)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", type=int, default=5 << 30)
    parser.add_argument("--shared", type=float, default=95)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    old, new = arguments.directory / "old", arguments.directory / "new"
    write_random(old, arguments.size, rng)
    write_shifted(old, new, arguments.size, arguments.shared / 100, rng)


if __name__ == "__main__":
    main()
