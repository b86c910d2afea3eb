#!/usr/bin/env python3
"""Kills a copy of a tree at a random moment, lets it go on with --resume, and compares the copy with its
source by rsync, many times.

    bench/kill_copy.py TREE PLACE [--rounds 50] [--seed 1]

PLACE is a directory with room for the copy. Needs rsync. Exits with 1 at the first difference.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tree")
    parser.add_argument("place")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "-p", "inflight-cli"], cwd=ROOT, check=True)
    inflight = os.path.join(ROOT, "target/release/inflight")
    chance = random.Random(arguments.seed)
    target = os.path.join(arguments.place, "copy")
    start = time.monotonic()
    subprocess.run([inflight, "copy", arguments.tree, target], check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - start
    kills = kept = 0
    for round in range(arguments.rounds):
        shutil.rmtree(target)
        command = [inflight, "copy", arguments.tree, target]
        # Some are killed more than once.
        for attempt in range(chance.choice([1, 1, 2, 3])):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Before it is done, mostly.
            time.sleep(chance.uniform(0, 0.6 * whole))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            command = [inflight, "copy", arguments.tree, target, "--resume"]
        done = subprocess.run(command + ["--json"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"round {round}: the copy could not go on: {done.stdout}{done.stderr}")
        kept += '"unchanged":0,' not in done.stdout
        left = [name for name in os.listdir(arguments.place) if name != "copy"]
        if left:
            sys.exit(f"round {round}: {left} is left")
        compare = ["rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes"]
        different = subprocess.run(
            compare + [arguments.tree.rstrip("/") + "/", target + "/"],
            check=True, capture_output=True, text=True).stdout
        if different:
            sys.exit(f"round {round}: differs:\n{different[:2000]}")
        print(f"round {round + 1}: identical", flush=True)
    print(f"{arguments.rounds} rounds, {kills} kills, {kept} resumed with something kept: identical")
    shutil.rmtree(target)


if __name__ == "__main__":
    main()
