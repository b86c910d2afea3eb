#!/usr/bin/env python3
"""Fetch or make the pairs of directory trees that compare.py measures on.

    bench/corpora.py PAIR [--corpora DIR]

A pair is the folder DIR/PAIR with the trees `old` and `new` in it and a file
`origin.txt` that says which releases they are. Packages come through the
ordinary clients (pip, apt-get), from whatever index those are configured for.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import made


class CorpusError(Exception):
    """A pair is unknown or cannot be fetched; the message says what to do."""


@dataclass(frozen=True)
class Wheels:
    """Two releases of one Python package, unpacked from their wheels.

    `platforms` pins the wheel, so that every machine gets the same bytes;
    empty for a pure Python package.
    """

    package: str
    old: str
    new: str
    platforms: tuple[str, ...] = ()

    def recipe(self):
        return f"wheels of {self.package} {self.old} and {self.new}: pip download, then unzip"

    def fetch(self, folder):
        """Put the trees `old` and `new` into `folder`; return their release names."""
        for side, version in (("old", self.old), ("new", self.new)):
            with tempfile.TemporaryDirectory(dir=folder) as download:
                command(
                    *(sys.executable, "-m", "pip", "download", "--quiet"),
                    *("--no-deps", "--only-binary", ":all:", *self.target()),
                    *("--dest", download, f"{self.package}=={version}"),
                )
                (wheel,) = Path(download).glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(folder / side)
        return f"{self.package} {self.old}", f"{self.package} {self.new}"

    def target(self):
        if not self.platforms:
            return []
        platforms = [f"--platform={platform}" for platform in self.platforms]
        return [*platforms, "--implementation=cp", "--python-version=3.11"]


@dataclass(frozen=True)
class DebianSource:
    """The oldest and the newest version of a Debian source tarball package that apt knows."""

    package: str

    def recipe(self):
        return (
            f"oldest and newest {self.package} that apt offers: "
            "apt-get download, dpkg-deb --extract, untar usr/src/*.tar.xz"
        )

    def fetch(self, folder):
        """Put the trees `old` and `new` into `folder`; return their release names."""
        versions = self.versions()
        for side, version in (("old", versions[-1]), ("new", versions[0])):
            with tempfile.TemporaryDirectory(dir=folder) as download:
                command("apt-get", "download", f"{self.package}={version}", cwd=download)
                (package,) = Path(download).glob("*.deb")
                command("dpkg-deb", "--extract", package, download)
                (tarball,) = Path(download).glob("usr/src/*.tar.xz")
                tree = folder / side
                tree.mkdir()
                command("tar", "--strip-components=1", "-xf", tarball, "-C", tree)
        return f"{self.package} {versions[-1]}", f"{self.package} {versions[0]}"

    def versions(self):
        """All versions on offer, newest first: the order in which apt lists them."""
        listing = command("apt-cache", "madison", self.package)
        versions = [line.split("|")[1].strip() for line in listing.splitlines()]
        if len(set(versions)) < 2:
            raise CorpusError(
                f"apt offers fewer than two versions of {self.package}; "
                "this pair needs Debian 12 with its security updates (after `apt-get update`)"
            )
        return versions


PAIRS = {
    "tzdata": Wheels("tzdata", "2024.1", "2025.2"),
    "polars": Wheels("polars", "1.20.0", "1.21.0", ("manylinux2014_x86_64",)),
    "pyarrow": Wheels("pyarrow", "18.0.0", "18.1.0", ("manylinux_2_28_x86_64",)),
    "linux": DebianSource("linux-source-6.1"),
    # Releases that changed much: nothing was made with these in mind.
    "duckdb": Wheels("duckdb", "1.1.3", "1.2.0", ("manylinux2014_x86_64",)),
    "scipy": Wheels("scipy", "1.14.1", "1.15.0", ("manylinux2014_x86_64",)),
    "node": Wheels("nodejs-bin", "16.15.1a4", "18.4.0a4", ("manylinux_2_12_x86_64",)),
    "llvmlite": Wheels("llvmlite", "0.43.0", "0.44.0", ("manylinux2014_x86_64",)),
    "qt": Wheels("PySide6-Essentials", "6.7.3", "6.8.0", ("manylinux_2_28_x86_64",)),
    "tensorflow": Wheels("tensorflow-cpu", "2.18.0", "2.19.0", ("manylinux2014_x86_64",)),
    # Images for other systems.
    "polars-windows": Wheels("polars", "1.20.0", "1.21.0", ("win_amd64",)),
    "polars-arm": Wheels("polars", "1.20.0", "1.21.0", ("manylinux_2_24_aarch64",)),
    "polars-mac": Wheels("polars", "1.20.0", "1.21.0", ("macosx_11_0_arm64",)),
    "scipy-windows": Wheels("scipy", "1.14.1", "1.15.0", ("win_amd64",)),
    **made.PAIRS,
}


def default_folder():
    """Where the pairs live unless told otherwise."""
    return Path(os.environ.get("INFLIGHT_CORPORA") or Path(tempfile.gettempdir()) / "corpora")


def ensure(pair, corpora):
    """Return the paths of the old and the new tree of `pair`, fetching them if they are missing."""
    if pair not in PAIRS:
        raise CorpusError(f"no pair named {pair!r}: it is one of {', '.join(PAIRS)}, or OLD:NEW")
    home = corpora / pair
    old, new = home / "old", home / "new"
    if old.is_dir() and new.is_dir():
        return old, new
    if home.exists():
        raise CorpusError(f"{home} lacks old/ or new/; remove it to have the pair fetched again")
    print(f"{home} is missing; making it from {PAIRS[pair].recipe()}", file=sys.stderr)
    fetch(PAIRS[pair], home)
    return old, new


def fetch(recipe, home):
    """Make a pair beside its final place, then move it there, so that no pair is ever half made."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f"{home.name}-") as partial:
        folder = Path(partial) / home.name
        folder.mkdir()
        old, new = recipe.fetch(folder)
        (folder / "origin.txt").write_text(f"{old} -> {new}\n")
        folder.rename(home)


def command(*words, cwd=None):
    """Run a command and return its standard output; its standard error goes to ours."""
    try:
        done = subprocess.run(words, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True)
    except FileNotFoundError:
        raise CorpusError(f"{words[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        line = " ".join(str(word) for word in words)
        raise CorpusError(f"exit status {error.returncode} from: {line}") from None
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description="Fetch a pair of trees for compare.py.")
    parser.add_argument("pair", metavar="PAIR", choices=PAIRS, help=", ".join(PAIRS))
    parser.add_argument("--corpora", metavar="DIR", type=Path, default=default_folder())
    args = parser.parse_args()
    try:
        for tree in ensure(args.pair, args.corpora):
            print(tree)
    except CorpusError as error:
        sys.exit(f"corpora.py: {error}")


if __name__ == "__main__":
    main()
