#!/usr/bin/env python3
"""Says whether a slow disk holds up copies from another: copies a large file from a fast one alone, and in
the same command with a file from a disk of 5 MB/s, in turn.

    bench/slow_disk.py PLACE [--rounds 5]

PLACE is a directory on the fast disk, with 6 GiB free. The slow one is a loop device that the block I/O
controller of a control group (version 1) holds back; needs root for that.
"""

import argparse
import os
import signal
import statistics
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GROUP = "/sys/fs/cgroup/blkio/inflight-slow"
SLOW_BYTES_PER_SECOND = 5 << 20


def fill(path, mebibytes):
    with open(path, "wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(1 << 20))


def join_group():
    with open(f"{GROUP}/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))


def copy(inflight, sources, place):
    """Seconds until the large file has its name."""
    into = f"{place}/into"
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    start = time.monotonic()
    process = subprocess.Popen([inflight, "copy", *sources, f"{into}/"], preexec_fn=join_group,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.exists(f"{into}/large"):
        if process.poll() not in (None, 0):
            raise SystemExit("the copy failed")
        time.sleep(0.002)
    seconds = time.monotonic() - start
    was_alone = process.poll() is not None
    process.send_signal(signal.SIGINT)
    process.wait()
    subprocess.run(["rm", "-rf", into], check=True)
    os.mkdir(into)
    return seconds, was_alone


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("place")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "-p", "inflight-cli"], cwd=ROOT, check=True)
    inflight, place = f"{ROOT}/target/release/inflight", arguments.place
    os.makedirs(f"{place}/into", exist_ok=True)
    os.makedirs(f"{place}/slow", exist_ok=True)
    os.makedirs(GROUP, exist_ok=True)
    with open(f"{place}/slow.img", "wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", f"{place}/slow.img"], check=True)
    subprocess.run(["mount", "-o", "loop", f"{place}/slow.img", f"{place}/slow"], check=True)
    try:
        fill(f"{place}/slow/file", 300)
        fill(f"{place}/large", 2048)
        number = os.stat(f"{place}/slow").st_dev
        with open(f"{GROUP}/blkio.throttle.read_bps_device", "w") as file:
            file.write(f"{os.major(number)}:{os.minor(number)} {SLOW_BYTES_PER_SECOND}")
        alone, beside = [], []
        for _ in range(arguments.rounds):
            alone.append(copy(inflight, [f"{place}/large"], place)[0])
            seconds, slow_ended = copy(inflight, [f"{place}/slow/file", f"{place}/large"], place)
            if slow_ended:
                raise SystemExit("the slow disk is not slow: nothing was measured")
            beside.append(seconds)
    finally:
        subprocess.run(["umount", f"{place}/slow"], check=True)
        os.rmdir(GROUP)
        os.remove(f"{place}/slow.img")
    os.remove(f"{place}/large")
    shown = lambda all: ", ".join(f"{seconds:.2f}" for seconds in sorted(all))
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"2 GiB alone: {shown(alone)} s; beside a copy from a disk of 5 MB/s: {shown(beside)} s; {ratio:.2f}")


if __name__ == "__main__":
    main()
