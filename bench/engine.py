#!/usr/bin/env python3
"""The engine against its peers and against the bare system calls: reads, empty operations, streams, TCP echo.

Every row is measured in rounds, all engines in turn in each, and its medians are compared. Needs fio (apt) for the
rows that have it. Writes runs/engine-DATE.csv and .md.

    bench/engine.py [--rounds 5] [--seconds 1] [--file /tmp/engine.data] [--bytes 4G] [--only nop,random,hot,stream,echo,tokio]
"""

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "engine" / "target"))
PROGRAM = TARGET / "release" / "engine-bench"
PEERS = ["inflight", "compio", "monoio", "glommio", "tokio", "threads"]
TICKS = os.sysconf("SC_CLK_TCK")


def run(*arguments):
    """(operations a second, processor seconds an operation) of one run of the program."""
    command = [str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        print(f"  {' '.join(command[1:])}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    operations, seconds, cpu = map(float, done.stdout.split())
    return operations / seconds, cpu / max(operations, 1)


def fio(file, *options):
    """The same of fio, which does nothing but this."""
    command = ["fio", "--name=x", f"--filename={file}", "--ioengine=io_uring", "--output-format=json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    reads, seconds = job["read"]["total_ios"], job["read"]["runtime"] / 1000
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds
    return reads / seconds, cpu / max(reads, 1), job["read"]["bw_bytes"]


def drop_cache(file):
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(file):
    with open(file, "rb", buffering=0) as opened:
        while opened.read(16 << 20):
            pass


def cpu_of(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def echo(engine, connections, seconds):
    """Messages a second that came back, and the server's processor seconds for each."""
    server = subprocess.Popen([str(PROGRAM), "serve", engine], stdout=subprocess.PIPE, text=True)
    try:
        port = server.stdout.readline().strip()
        before = cpu_of(server)
        # The load's own figures: its seconds include connecting, which counts for none of them.
        done = subprocess.run(
            [str(PROGRAM), "load", port, str(connections), str(seconds)],
            capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            print(f"  echo {engine} {connections}: {done.stderr.strip()[-200:]}", file=sys.stderr)
            return None
        messages = float(done.stdout.split()[0])
        return messages / seconds, (cpu_of(server) - before) / max(messages, 1)
    finally:
        server.kill()
        server.wait()


class Rows:
    def __init__(self, rounds):
        self.rounds, self.rows = rounds, []

    def measure(self, row, engines):
        """`engines`: name to a function that gives (rate, cpu) or None."""
        samples = {name: [] for name in engines}
        for _ in range(self.rounds):
            for name, measured in engines.items():
                sample = measured()
                if sample:
                    samples[name].append(sample)
        print(f"{row}:")
        for name, found in samples.items():
            if not found:
                continue
            rates = sorted(sample[0] for sample in found)
            cpus = sorted(sample[1] for sample in found)
            rate, cpu = statistics.median(rates), statistics.median(cpus)
            self.rows.append([row, name, rate, rates[0], rates[-1], cpu])
            print(f"  {name:10} {rate:14,.0f} /s   {cpu * 1e6:8.3f} us of processor time each", flush=True)

    def write(self, arguments):
        stamp = datetime.date.today().isoformat()
        base = HERE / "runs" / f"engine-{stamp}"
        with open(f"{base}.csv", "w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["row", "engine", "per_second", "least", "most", "cpu_us_each"])
            for row, name, rate, least, most, cpu in self.rows:
                writer.writerow([row, name, f"{rate:.1f}", f"{least:.1f}", f"{most:.1f}", f"{cpu * 1e6:.4f}"])
        cpu_name = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line)
        text = [
            f"# The engine and its peers, {stamp}", "",
            f"`bench/engine.py {' '.join(arguments)}`; {os.cpu_count()} cores of {cpu_name}, Linux {platform.release()}.",
            f"Medians of {self.rounds} rounds, all engines in turn in each; in brackets the share of the first in the row.",
        ]
        last = None
        for row, name, rate, least, most, cpu in self.rows:
            if row != last:
                text += ["", f"## {row}", "", "| | per second | | processor time each |", "|---|---:|---:|---:|"]
                first, last = rate, row
            text.append(f"| {name} | {rate:,.0f} | {rate / first:.2f} | {cpu * 1e6:.3f} us |")
        Path(f"{base}.md").write_text("\n".join(text) + "\n")
        print(f"written: {base}.csv, .md")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--file", default="/tmp/engine.data")
    parser.add_argument("--bytes", default="4G")
    parser.add_argument("--only", default="nop,random,hot,stream,echo,tokio")
    arguments = parser.parse_args()
    only, seconds, file = arguments.only.split(","), arguments.seconds, arguments.file
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(HERE / "engine" / "Cargo.toml")],
                   check=True, env={**os.environ, "CARGO_TARGET_DIR": str(TARGET)})
    size = int(arguments.bytes[:-1]) << {"M": 20, "G": 30}[arguments.bytes[-1]]
    if not os.path.exists(file) or os.path.getsize(file) != size:
        subprocess.run(["dd", "if=/dev/urandom", f"of={file}", "bs=1M", f"count={size >> 20}", "status=none"], check=True)
    rows = Rows(arguments.rounds)

    if "nop" in only:
        for depth in [1, 32, 128]:
            rows.measure(f"empty operations, depth {depth}", {
                name: (lambda name=name: run("nop", name, depth, seconds)) for name in ["bare", "in order", "inflight"]})
    for kind in ["random", "hot"]:
        if kind not in only:
            continue
        mode, direct = ("direct", 1) if kind == "random" else ("hot", 0)
        target, what = (file, "direct") if direct else (file + ".hot", "from the page cache")
        if not direct:
            # Small enough to stay there.
            subprocess.run(["dd", f"if={file}", f"of={target}", "bs=1M", "count=512", "status=none"], check=True)
            warm(target)
        for depth in [1, 32, 128]:
            engines = {"fio": lambda: fio(
                target, "--rw=randread", "--bs=4k", f"--direct={direct}", f"--iodepth={depth}", f"--runtime={seconds}",
                "--time_based", "--norandommap", "--invalidate=0")[:2]}
            ours = ["inflight", "registered"] if direct else ["inflight"]
            engines.update({name: (lambda name=name: run("random", name, depth, seconds, target, mode)) for name in ours + PEERS[1:]})
            rows.measure(f"reads of 4 KiB {what}, depth {depth}", engines)
    if "stream" in only:
        # The best settings of fio first, then both with those of their own that were best.
        settings = [(request, depth) for request in [256 << 10, 1 << 20, 4 << 20] for depth in [2, 4, 8]]

        def of_fio(request, depth):
            drop_cache(file)
            _, _, rate = fio(file, "--rw=read", f"--bs={request}", "--direct=1", f"--iodepth={depth}")
            return rate, 0

        def of_us(request, depth):
            drop_cache(file)
            return run("stream", "inflight", depth, request, file)

        best_fio = max(settings, key=lambda setting: of_fio(*setting)[0])
        best_us = max(settings, key=lambda setting: of_us(*setting)[0])
        # One sample may mislead: both are measured with both.
        both = {
            f"{name} {request >> 10}K x{depth}": (lambda of=of, request=request, depth=depth: of(request, depth))
            for request, depth in dict.fromkeys([best_fio, best_us])
            for name, of in [("fio", of_fio), ("inflight", of_us)]}
        rows.measure("bytes of a cold file front to back", both)
    if "echo" in only:
        for connections in [1, 100, 10_000]:
            # Ten thousand threads are no server anybody runs.
            engines = [name for name in PEERS if name != "threads" or connections < 10_000]
            rows.measure(f"TCP echoes of 64 bytes, {connections} connections", {
                name: (lambda name=name: echo(name, connections, seconds)) for name in engines})
    if "tokio" in only:
        target = file + ".hot"
        if not os.path.exists(target):
            subprocess.run(["dd", f"if={file}", f"of={target}", "bs=1M", "count=512", "status=none"], check=True)
        warm(target)
        for depth in [1, 8]:
            rows.measure(f"reads of 1 MiB from a tokio program, hot, depth {depth}", {
                name: (lambda name=name: run("tokio", name, depth, seconds, target)) for name in ["inflight", "tokio"]})
    rows.write(sys.argv[1:])


if __name__ == "__main__":
    main()
