"""The tools that compare.py measures: which commands make a patch and apply it.

Commands are templates, run without a shell. They are split into words first, then each word is
formatted, so paths may hold spaces. Every template may name

    {old} {new}     the two versions: directory trees or tars of them, as the tool takes
    {patch}         the patch, a file or a folder; its size is what counts as patch bytes
    {out}           where the result of applying goes
    {scratch}       a folder for anything else

and what constants() gives.
"""

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Tool:
    """One row of the table: a program with settings, as the commands of its two phases.

    `takes` is what it works on, "tree" or "tar". `between` is untimed work after the diff, given
    the old tree and the scratch folder. Tars of more than `limit` bytes are too slow for it.
    """

    name: str
    program: str
    settings: str
    takes: str
    diff: tuple[str, ...]
    apply: tuple[str, ...]
    version: str
    between: Callable[[Path, Path], None] | None = None
    limit: int | None = None

    def programs(self):
        """The programs to be started, as templates."""
        return {shlex.split(command)[0] for command in self.diff + self.apply}


def words(template, values):
    """Turn a command template into a command: a list of words."""
    return [word.format(**values) for word in shlex.split(template)]


def copy_old_tree(old, scratch):
    """For a tool that updates in place: give it a copy of the old tree to update."""
    subprocess.run(["cp", "-a", old, scratch / "out"], check=True)


def keep_missing_chunks(_old, scratch):
    """Turn two casync stores into a patch: the new index, and the chunks the old store lacks."""
    old_store, new_store = scratch / "old.castr", scratch / "new.castr"
    patch_store = scratch / "patch" / "store.castr"
    patch_store.mkdir(parents=True)
    (scratch / "new.caidx").rename(scratch / "patch" / "new.caidx")
    for chunk in new_store.rglob("*.cacnk"):
        path = chunk.relative_to(new_store)
        if not (old_store / path).exists():
            (patch_store / path).parent.mkdir(exist_ok=True)
            chunk.rename(patch_store / path)


def inflight(preset):
    return Tool(
        name=f"inflight-{preset}",
        program="inflight",
        settings=f"--preset {preset}",
        takes="tree",
        diff=("{inflight} diff {old} {new} -o {patch} --preset " + preset,),
        apply=("{inflight} apply {patch} {old} {out}",),
        version="{inflight} --version",
    )


def zstd(level, limit=None):
    return Tool(
        name=f"zstd-{level}",
        program="zstd",
        settings=f"-{level} --long={{window_log}} --patch-from",
        takes="tar",
        diff=(f"zstd -q -{level} --long={{window_log}} --patch-from={{old}} {{new}} -o {{patch}}",),
        apply=("zstd -q -d --long={window_log} --patch-from={old} {patch} -o {out}",),
        version="zstd --version",
        limit=limit,
    )


def rsync(name, options):
    return Tool(
        name=name,
        program="rsync",
        settings=f"{options} --only-write-batch",
        takes="tree",
        diff=(
            f"rsync {options} --no-whole-file --delete"
            " --only-write-batch={patch} {new}/ {old}/",
        ),
        between=copy_old_tree,
        apply=(f"rsync {options} --delete --read-batch={{patch}} {{out}}/",),
        version="rsync --version",
    )


# Times are left out, as in the tars: a chunk that holds some is rarely found again. They are named
# one by one because --without=all overrides every --with, and symbolic links would be lost.
CASYNC_MAKE = (
    "casync make --with=unix"
    " --without=sec-time --without=usec-time --without=nsec-time --without=2sec-time"
)

CASYNC = Tool(
    name="casync",
    program="casync",
    settings="--with=unix, without times",
    takes="tree",
    diff=(
        CASYNC_MAKE + " --store={scratch}/old.castr {scratch}/old.caidx {old}",
        CASYNC_MAKE + " --store={scratch}/new.castr {scratch}/new.caidx {new}",
    ),
    between=keep_missing_chunks,
    apply=("casync extract --store={patch}/store.castr --seed={old} {patch}/new.caidx {out}",),
    version="casync --version",
)


HDIFFZ = Tool(
    name="hdiffz",
    program="hdiffz",
    settings="-m -c-zstd",
    takes="tree",
    diff=("hdiffz -m -c-zstd -d -f {old} {new} {patch}",),
    apply=("hpatchz -f {old} {patch} {out}",),
    version="hdiffz -v",
)

XDELTA3 = Tool(
    name="xdelta3",
    program="xdelta3",
    settings="-B {window}",
    takes="tar",
    diff=("xdelta3 -e -B {window} -s {old} {new} {patch}",),
    apply=("xdelta3 -d -B {window} -s {old} {patch} {out}",),
    version="xdelta3 -V",
)

BSDIFF = Tool(
    name="bsdiff",
    program="bsdiff",
    settings="(none)",
    takes="tar",
    diff=("bsdiff {old} {new} {patch}",),
    apply=("bspatch {old} {out} {patch}",),
    version="dpkg-query --show bsdiff",
    limit=128 * MIB,
)

RDIFF = Tool(
    name="rdiff",
    program="rdiff",
    settings="signature + delta",
    takes="tar",
    diff=(
        "rdiff signature {old} {scratch}/signature",
        "rdiff delta {scratch}/signature {new} {patch}",
    ),
    apply=("rdiff patch {old} {patch} {out}",),
    version="rdiff --version",
)

# In the order of the table.
TOOLS = (
    inflight("fast"),
    inflight("default"),
    inflight("small"),
    zstd(3),
    zstd(19, limit=256 * MIB),
    XDELTA3,
    BSDIFF,
    RDIFF,
    # Without --checksum rsync skips files of equal size and equal mtime in whole seconds.
    rsync("rsync", "-aH --checksum"),
    # Batch files know no newer compression than zlib.
    rsync("rsync-zlib", "-aH --checksum --compress --compress-choice=zlib"),
    CASYNC,
    HDIFFZ,
)


def constants(inflight_path, tar_bytes):
    """What templates may name that is the same for all measurements.

    {window} (bytes) and {window_log} let xdelta3 and zstd see the whole old tar; `tar_bytes` is
    the size of the larger tar.
    """
    power_of_two = 1 << max(tar_bytes - 1, 0).bit_length()
    return {
        "inflight": inflight_path,
        "window": min(max(power_of_two, MIB), 2 * GIB),
        "window_log": 30 if tar_bytes <= GIB else 31,
    }
