#!/usr/bin/env python3
"""Measure how much memory a diff takes with several bounds, and what they cost in size.

Usage: bench/memory.py PAIR|OLD:NEW... [--bounds 256MiB,1GiB,4GiB] [--preset default] [--program PATH]

Prints a table: peak of resident memory and size of the patch, of one run each. More is held of large files that the
page cache does not have, as it costs something to read them again.
Exits with 1 if a peak is more than a bound and 64 MiB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = 1 << 20
UNITS = {"MiB": MIB, "GiB": MIB << 10}
# What may be resident beside what was allowed: the program itself, and stacks.
BESIDE = 64 * MIB


def bound(text):
    """A bound as the program takes it, and its bytes."""
    number, unit = text[:-3], text[-3:]
    if unit not in UNITS or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is no bound such as 256MiB or 4GiB")
    return text, int(number) * UNITS[unit]


def trees(pair, corpora):
    """The two trees of a pair, which is a name or OLD:NEW."""
    if ":" in pair:
        return [Path(path) for path in pair.split(":")]
    return [corpora / pair / side for side in ("old", "new")]


def run(command, patch):
    """Peak in bytes and size of the patch, of one diff."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"memory.py: failed: {' '.join(map(str, command))}")
    size = patch.stat().st_size
    patch.unlink()
    return usage.ru_maxrss << 10, size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pairs", nargs="+")
    parser.add_argument(
        "--bounds",
        type=lambda text: [bound(one) for one in text.split(",")],
        default="256MiB,1GiB,4GiB",
        help="with commas between (default: %(default)s)",
    )
    parser.add_argument("--preset", default="default")
    parser.add_argument("--program", type=Path, default=Path("target/release/inflight"))
    default = os.environ.get("INFLIGHT_CORPORA", Path(tempfile.gettempdir()) / "corpora")
    parser.add_argument("--corpora", type=Path, default=default)
    arguments = parser.parse_args()
    bounds = [*arguments.bounds, ("default", None)]
    print("| pair |", " | ".join(name for name, _ in bounds), "|")
    print("| --- |", " ---: |" * len(bounds), sep="")
    over = False
    with tempfile.TemporaryDirectory() as directory:
        patch = Path(directory) / "patch"
        for pair in arguments.pairs:
            old, new = trees(pair, arguments.corpora)
            cells = []
            for name, most in bounds:
                command = [arguments.program, "diff", old, new, "-o", patch, "--preset", arguments.preset]
                command += ["--memory", name] if most else []
                peak, size = run(command, patch)
                cells.append(f"{peak / MIB:.0f} MiB, {size / 1e6:.2f} MB")
                if most and peak > most + BESIDE:
                    over = True
                    cells[-1] += " **over**"
            print(f"| {pair} |", " | ".join(cells), "|", flush=True)
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
