#!/usr/bin/env python3
"""Loads a cold file, and many cold objects at once of which half are dropped, into memory: Handle::load
beside tokio::fs::read and a mapping that is touched, and the disk's own limit by fio.

    bench/load.py PLACE [--rounds 5]

PLACE is a directory on the disk that is measured, with 3 GiB free. Needs root, to drop the page cache, and
fio. Writes the table to bench/runs.
"""

import argparse
import datetime
import os
import shutil
import statistics
import subprocess

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


def measure(binary, engine, path):
    drop_caches()
    output = subprocess.run([binary, "objects", engine, path], check=True, capture_output=True, text=True)
    _, seconds, used = output.stdout.split()
    return float(seconds), float(used)


def table(title, times):
    first = statistics.median(seconds for seconds, _ in times["Handle::load"])
    lines = [f"\n{title}\n", "| | median | all | processor | to inflight |", "|---|---|---|---|---|"]
    for name, values in times.items():
        seconds = [value for value, _ in values]
        median, used = statistics.median(seconds), statistics.median(used for _, used in values)
        each = ", ".join(f"{value:.3f}" for value in sorted(seconds))
        lines.append(f"| {name} | {median:.3f} s | {each} | {used:.2f} s | {median / first:.2f} |")
    return lines


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
    one, many = {}, {}
    for round in range(arguments.rounds):
        for engine, name in engines[round % 3:] + engines[:round % 3]:
            one.setdefault(name, []).append(measure(binary, engine, large))
            many.setdefault(name, []).append(measure(binary, engine, objects))
        one.setdefault("the disk's limit (fio, best of three)", []).append(fio(large, 1 << 30))
    processor = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line)
    lines = [
        f"# Files into memory, {datetime.date.today()}",
        "",
        f"{os.cpu_count()} cores, {processor}, Linux {os.uname().release}; `bench/load.py`, {arguments.rounds} "
        "rounds in turn, the page cache dropped before each.",
    ]
    lines += table("1 GiB, cold", one)
    lines += table("2,000 objects of 1 MiB at once, cold, half of them dropped at random", many)
    with open(f"{ROOT}/bench/runs/load-{datetime.date.today()}.md", "w") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    shutil.rmtree(objects)
    os.remove(large)


if __name__ == "__main__":
    main()
