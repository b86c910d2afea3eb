#!/usr/bin/env python3
"""Loads a file, cold and hot, and many cold objects at once of which half are dropped, into memory:
Handle::load beside tokio::fs::read and a mapping that is touched, and the disk's own limit by fio.

    bench/load.py PLACE [--rounds 5]

PLACE is a directory on the disk that is measured, with 3 GiB free. Needs root, to drop the page cache, and
fio. Writes the table to bench/runs.
"""

import argparse
import datetime
import os
import random
import shutil
import subprocess

from table import table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BENCH = f"{ROOT}/bench/engine"


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def fio(path, size):
    best = None
    for request, depth in [("1M", 4), ("1M", 8), ("256k", 8)]:
        drop_caches()
        command = ["fio", "--name=x", f"--filename={path}", "--rw=read", f"--bs={request}",
                   f"--iodepth={depth}", "--ioengine=io_uring", "--direct=1", f"--size={size}", "--minimal"]
        fields = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(";")
        seconds = size / 1024 / float(fields[6])
        best = min(best or seconds, seconds)
    return best, 0.0


def measure(binary, engine, path, is_hot=False):
    if not is_hot:
        drop_caches()
    output = subprocess.run([binary, "objects", engine, path], check=True, capture_output=True, text=True)
    _, seconds, used = output.stdout.split()
    return float(seconds), float(used)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("place")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release"], cwd=BENCH, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", f"{BENCH}/target")
    binary = f"{target}/release/engine-bench"
    large, objects = f"{arguments.place}/large", f"{arguments.place}/objects"
    os.makedirs(objects, exist_ok=True)
    with open(large, "wb") as file:
        for _ in range(1024):
            file.write(os.urandom(1 << 20))
    for number in range(2000):
        with open(f"{objects}/{number:04}", "wb") as file:
            file.write(os.urandom(1 << 20))
    engines = [("inflight", "Handle::load"), ("tokio", "tokio::fs::read"), ("mmap", "mmap, touched")]
    mapping = ("inflight-mapping", "Handle::load_with, mapping what is cached")
    one, many, hot = {}, {}, {}
    for _ in range(arguments.rounds):
        # Which memory is free is what whoever came before leaves behind.
        for engine, name in random.sample(engines, 3):
            one.setdefault(name, []).append(measure(binary, engine, large))
            many.setdefault(name, []).append(measure(binary, engine, objects))
        one.setdefault("the disk's limit (fio, best of three)", []).append(fio(large, 1 << 30))
        with open(large, "rb") as file:
            while file.read(1 << 20):
                pass
        for engine, name in random.sample([*engines, mapping], 4):
            hot.setdefault(name, []).append(measure(binary, engine, large, is_hot=True))
    processor = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line)
    lines = [
        f"# Files into memory, {datetime.date.today()}",
        "",
        f"{os.cpu_count()} cores, {processor}, Linux {os.uname().release}; `bench/load.py`, {arguments.rounds} "
        "rounds in turn, the page cache dropped before each that is cold.",
    ]
    lines += table("1 GiB, cold", one, "Handle::load", 3)
    lines += table("1 GiB, hot", hot, "Handle::load", 3)
    lines += table("2,000 objects of 1 MiB at once, cold, half of them dropped at random", many, "Handle::load", 3)
    with open(f"{ROOT}/bench/runs/load-{datetime.date.today()}.md", "w") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    shutil.rmtree(objects)
    os.remove(large)


if __name__ == "__main__":
    main()
