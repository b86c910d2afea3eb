#!/usr/bin/env python3
"""Is what `inflight bench` recommends as fast as the best that fio finds on the same device?

    bench/advice.py DIRECTORY [--time 60s] [--rounds 40] [--json REPORT]

Measures with `inflight bench`, then sweeps size, depth and way with fio over a file of 1 GiB in the same
directory, and then does what was recommended (what --save keeps), by Inflight and by fio, and what fio's own
sweep found best (the three fastest), in turn. So that fio's buffers lie in huge pages, as Inflight's do (its reads are twice as fast then), the
system gives these to all programs meanwhile: run it as root. Needs fio, the release build, and that of bench/engine.
"""
import argparse, json, os, statistics, subprocess, sys

GIB = 1 << 30
HUGE = "/sys/kernel/mm/transparent_hugepage/enabled"
SIZES = [16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20]
DEPTHS = [1, 2, 4, 8, 16, 32]


def fio(directory, work, way):
    """Bytes a second of one pass; a write counts until it is durable."""
    mode, size, depth, jobs = way
    each = GIB // jobs if work == "read" else (GIB // 2) // jobs
    command = ["fio", "--name=x", f"--filename={directory}/fio.data", f"--rw={work}", f"--bs={size}",
               f"--size={each}", f"--offset_increment={each}", f"--numjobs={jobs}", "--group_reporting",
               "--output-format=json", "--iomem_align=2m", "--overwrite=1", "--refill_buffers=0", "--invalidate=1", "--thread"]
    if work == "write":
        command.append("--end_fsync=1")
    if mode == "direct":
        command += ["--direct=1", "--ioengine=io_uring", f"--iodepth={depth}"]
    elif mode.startswith("map"):
        command += ["--ioengine=mmap"]
    else:
        command += ["--ioengine=psync" if depth == 1 else "--ioengine=io_uring", f"--iodepth={depth}"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    job = told["jobs"][0]
    return each * jobs / (job["job_runtime"] / jobs / 1000)


def inflight(binary, directory, work, way):
    """The same by Inflight itself, on one thread."""
    mode, size, depth, _ = way
    path = f"{directory}/inflight.data"
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [binary, work, mode, str(depth), str(size), path]
    count, seconds, _ = subprocess.run(command, check=True, capture_output=True).stdout.split()
    return int(count) / float(seconds)


def ways(work):
    for size in SIZES:
        for depth in DEPTHS:
            if size * depth <= 64 << 20:
                yield ("direct", size, depth, 1)
        yield ("buffered", size, 1, 1)
        if work == "read":
            yield ("direct", size, max(1, min(4, (64 << 20) // size) // 2), 2)
    if work == "read":
        yield ("map", 1 << 20, 1, 1)


def shown(way):
    mode, size, depth, jobs = way
    return f"{mode} {size >> 10} KiB x {depth}" + (f" on {jobs} threads" if jobs > 1 else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--time", default="60s")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--target", default="bench/engine/target", help="where engine-bench was built")
    parser.add_argument("--json", help="a report that is there already")
    options = parser.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    tool = os.path.join(here, "..", "target", "release", "inflight")
    if options.json:
        report = json.load(open(options.json))
    else:
        command = [tool, "bench", options.directory, "--time", options.time, "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    with open(HUGE) as file:
        before = file.read().split("[")[1].split("]")[0]
    try:
        with open(HUGE, "w") as file:
            file.write("always")
        fio(options.directory, "write", ("direct", 1 << 20, 4, 1))
        fio(options.directory, "write", ("direct", 1 << 20, 4, 2))
        with open(f"{options.directory}/inflight.data", "wb") as file:
            for _ in range(1024):
                file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
        print("| work | what | GB/s (median) | of the best |\n|---|---|---:|---:|")
        for work in ["read", "write"]:
            compare(options, work, settings(report, work))
    finally:
        with open(HUGE, "w") as file:
            file.write(before)
        for name in ["fio.data", "inflight.data"]:
            if os.path.exists(os.path.join(options.directory, name)):
                os.unlink(os.path.join(options.directory, name))


def settings(report, work):
    """What --save keeps."""
    saved = report["settings"][work]
    return ("direct" if saved["direct"] else "buffered", saved["request_bytes"], saved["depth"], 1)


def compare(options, work, recommended):
    binary = os.path.join(options.target, "release", "engine-bench")
    found = {way: [] for way in ways(work)}
    for _ in range(3):
        for way in found:
            found[way].append(fio(options.directory, work, way))
    best = sorted(found, key=lambda way: -statistics.median(found[way]))[:3]
    lines = {"recommended, by inflight: " + shown(recommended): lambda: inflight(binary, options.directory, work, recommended),
             "recommended, by fio: " + shown(recommended): lambda: fio(options.directory, work, recommended)}
    for way in best:
        lines["best of fio's sweep: " + shown(way)] = lambda way=way: fio(options.directory, work, way)
    rates = {line: [] for line in lines}
    for number in range(options.rounds):
        # Each in another place: the one before leaves something behind.
        order = list(lines)[number % len(lines):] + list(lines)[:number % len(lines)]
        for line in order:
            rates[line].append(lines[line]())
    medians = {line: statistics.median(rates[line]) for line in rates}
    most = max(median for line, median in medians.items() if line.startswith("best"))
    for line in rates:
        print(f"| {work} | {line} | {medians[line] / 1e9:.2f} | {medians[line] / most:.2f} |")
    sys.stdout.flush()


main()
