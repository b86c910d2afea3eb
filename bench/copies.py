#!/usr/bin/env python3
"""Copies a tree, hot and cold, and a large cold file, beside other tools, and walks the hot tree beside
others; writes the table to bench/runs.

    bench/copies.py TREE PLACE [--rounds 3] [--peers DIRECTORY] [--only large,cold,hot]

PLACE is a directory on the disk that is measured, with 12 GiB free. A tree's copy goes into a new file
system (ext4, in a file there) each time: ext4 looks at every inode that was deleted in the last minutes
before it takes one, so that a copy where another was just removed measures that. Needs root, to mount and
to drop the page cache; cp, rsync, find; fio for the limits of the disk; and takes fcp, xcp and cpz from
PEERS (`cargo install --root PEERS fcp xcp cpz`), fd and bfs where they are installed.
"""

import argparse
import datetime
import os
import random
import resource
import shutil
import subprocess
import time

from table import table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LARGE_BYTES = 2 << 30


def run(command):
    """Seconds, and seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def warm(tree):
    subprocess.run(f"find {tree} -type f -print0 | xargs -0 cat > /dev/null", shell=True, check=True)


class FreshDisk:
    """A new file system in a file."""

    def __init__(self, place):
        self.image, self.mounted = f"{place}/disk.img", f"{place}/mounted"

    def __enter__(self):
        os.makedirs(self.mounted, exist_ok=True)
        with open(self.image, "wb") as file:
            file.truncate(10 << 30)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.mounted], check=True)
        return self.mounted

    def __exit__(self, *_):
        subprocess.run(["umount", self.mounted], check=True)
        os.remove(self.image)


def tools(peers):
    found = {
        "inflight copy": [f"{ROOT}/target/release/inflight", "copy"],
        "cp -a": ["cp", "-a"],
        "rsync -a": ["rsync", "-a"],
    }
    for name, options in [("fcp", []), ("xcp", ["-r"]), ("cpz", [])]:
        path = shutil.which(name, path=f"{peers}/bin:{os.environ['PATH']}") if peers else None
        if path:
            found[name] = [path, *options]
    return found


def copy_tree(arguments, is_hot):
    times = {}
    found = list(tools(arguments.peers).items())
    for _ in range(arguments.rounds):
        # Which memory is free, and whether the host of a virtual machine took it back, is what whoever came before
        # leaves behind: so that is not always the same one.
        for name, command in random.sample(found, len(found)):
            with FreshDisk(arguments.place) as disk:
                drop_caches()
                if is_hot:
                    warm(arguments.tree)
                times.setdefault(name, []).append(run([*command, arguments.tree, f"{disk}/copy"]))
    return times


def fio(place, name, direction):
    path = f"{place}/{name}"
    command = ["fio", "--name=x", f"--filename={path}", f"--rw={direction}", "--bs=1M",
               "--iodepth=4", "--ioengine=io_uring", "--direct=1", f"--size={LARGE_BYTES}",
               "--fallocate=posix", "--minimal"]
    fields = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(";")
    kibibytes = float(fields[6] if direction == "read" else fields[47])
    return LARGE_BYTES / 1024 / kibibytes


def copy_large(arguments):
    place = arguments.place
    source, target = f"{place}/large", f"{place}/copy"
    with open(source, "wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    times = {}
    for _ in range(2 * arguments.rounds + 1):
        for name, command in [("inflight copy", tools(None)["inflight copy"]), ("cp", ["cp"])]:
            drop_caches()
            times.setdefault(name, []).append(run([*command, source, target]))
            os.remove(target)
        drop_caches()
        times.setdefault("read alone (fio)", []).append((fio(place, "large", "read"), 0))
        times.setdefault("write alone (fio)", []).append((fio(place, "written", "write"), 0))
        os.remove(f"{place}/written")
    os.remove(source)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tree")
    parser.add_argument("place")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers")
    parser.add_argument("--only", default="large,cold,hot")
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "-p", "inflight-cli"], cwd=ROOT, check=True)
    os.makedirs(arguments.place, exist_ok=True)
    processor = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line)
    lines = [
        f"# Copies, {datetime.date.today()}",
        "",
        f"{os.cpu_count()} cores, {processor}, Linux {os.uname().release}; `bench/copies.py`, "
        f"{arguments.rounds} rounds in turn. A tree is copied to a new ext4 each time.",
    ]
    parts = {
        "large": ("2 GiB, cold", lambda: copy_large(arguments)),
        "cold": ("Tree, cold", lambda: copy_tree(arguments, False)),
        "hot": ("Tree, hot", lambda: copy_tree(arguments, True)),
    }
    for part in arguments.only.split(","):
        title, measure = parts[part]
        lines += table(title, measure(), "inflight copy", 2)
    path = f"{ROOT}/bench/runs/copy-{datetime.date.today()}.md"
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
