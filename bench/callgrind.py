#!/usr/bin/env python3
"""Count the instructions of each stage of a diff, a byte of its input, with callgrind.

    bench/callgrind.py OLD NEW

OLD and NEW are two versions of an executable (ELF, x86-64). Counts do not depend on how busy the
machine is. Valgrind knows no AVX-512, so this is AVX2 code.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "target" / "release" / "kernels"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    arguments = parser.parse_args()
    files = [arguments.old, arguments.new]
    names = subprocess.run([KERNELS, "--names", *files], stdout=subprocess.PIPE, text=True, check=True)
    print("| stage | bytes | instructions | a byte |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        # A name that stands twice is that of the same work.
        for name in dict.fromkeys(names.stdout.splitlines()):
            command = ["valgrind", "--tool=callgrind", "--toggle-collect=*measured*"]
            command += [f"--callgrind-out-file={folder}/out", KERNELS, "--once", name, *files]
            done = subprocess.run(command, capture_output=True, text=True)
            counted = re.search(r"Collected : (\d+)", done.stderr)
            if done.returncode != 0 or not counted:
                sys.exit(f"callgrind.py: {name}: {done.stderr[-500:]}")
            size, count = int(done.stdout.split()[-1]), int(counted.group(1))
            print(f"| {name} | {size} | {count} | {count / size:.2f} |", flush=True)


if __name__ == "__main__":
    main()
