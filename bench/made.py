"""Pairs that are made, not fetched: the same bytes on every machine, from a fixed seed.

What each is like stands with the function that makes it.
"""

import io
import random
import sqlite3
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Made:
    """A pair made by a function, which puts the trees `old` and `new` into a folder."""

    make: Callable[[Path, random.Random], None]

    def recipe(self):
        return (self.make.__doc__ or "").splitlines()[0]

    def fetch(self, folder):
        for side in ("old", "new"):
            (folder / side).mkdir()
        self.make(folder, random.Random(1))
        return f"{self.make.__name__}, old state", "new state"


WORDS = [
    "".join(random.Random(number).choices("eeeaaaoiutnsrhldcmfpgwybvk", k=2 + number % 9))
    for number in range(4000)
]


def text(rng, length):
    """So many characters of words, the first ones of the list more often than the last."""
    words, size = [], 0
    while size < length:
        words.append(WORDS[int(len(WORDS) * rng.random() ** 3)])
        size += len(words[-1]) + 1
    return " ".join(words)[:length]


def database(folder, rng):
    """Two states of a SQLite database of 116 and 120 MB, the second one after a day of work.

    Table `entry` has 300,000 rows (a name, a number, two times, 60 to 500 characters of text) and
    two indexes. Between the states 3 % of the rows are changed (number and time; of a third of
    them the text as well), 1 % are deleted, 2 % are added, each in random order. No VACUUM: pages
    stay where they are, rows move within and between them.
    """
    old, new = folder / "old" / "data.db", folder / "new" / "data.db"
    connection = sqlite3.connect(old)
    connection.execute("PRAGMA page_size = 4096")
    connection.execute(
        "CREATE TABLE entry (id INTEGER PRIMARY KEY, name TEXT, amount INTEGER,"
        " created REAL, changed REAL, body TEXT)"
    )
    connection.execute("CREATE INDEX by_name ON entry (name)")
    connection.execute("CREATE INDEX by_changed ON entry (changed)")
    insert = "INSERT INTO entry (name, amount, created, changed, body) VALUES (?, ?, ?, ?, ?)"

    def row(now):
        name = f"{rng.choice(WORDS)}.{rng.choice(WORDS)}"
        created = now - rng.random() * 1e6
        return name, rng.randrange(10**6), created, created, text(rng, rng.randrange(60, 500))

    count, now = 300_000, 1.7e9
    connection.executemany(insert, (row(now) for _ in range(count)))
    connection.commit()
    with sqlite3.connect(new) as other:
        connection.backup(other)
    connection.close()
    with sqlite3.connect(new) as connection:
        now += 86_400
        for number in rng.sample(range(1, count + 1), count * 3 // 100):
            changed = "UPDATE entry SET amount = ?, changed = ? WHERE id = ?"
            connection.execute(changed, (rng.randrange(10**6), now + rng.random(), number))
            if number % 3 == 0:
                body = text(rng, rng.randrange(60, 500))
                connection.execute("UPDATE entry SET body = ? WHERE id = ?", (body, number))
        for number in rng.sample(range(1, count + 1), count // 100):
            connection.execute("DELETE FROM entry WHERE id = ?", (number,))
        connection.executemany(insert, (row(now) for _ in range(count * 2 // 100)))


def add(archive, name, content, time):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(content), time
    archive.addfile(entry, io.BytesIO(content))


def tars(folder, rng):
    """Two uncompressed tars of 30,000 small text files, 133 and 134 MB.

    Files have 200 bytes to 16 KiB, most of them few. Between the two 5 % are edited (one to four
    places, at each some words are replaced by others), 1 % are gone, 2 % are new, and those that
    are edited or new have another time in their headers.
    """
    files = {}
    for number in range(30_000):
        directory = f"{WORDS[number % 50]}/{WORDS[number // 50 % 100]}"
        size = int(2 ** rng.uniform(7.6, 14))
        files[f"{directory}/{WORDS[number % 3989]}-{number}.txt"] = (text(rng, size), 1.7e9)

    def write(path):
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            for name, (content, time) in sorted(files.items()):
                add(archive, name, content.encode(), time)

    write(folder / "old" / "files.tar")
    names = list(files)
    for name in rng.sample(names, len(names) // 20):
        content, _ = files[name]
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(content))
            content = content[:at] + text(rng, rng.randrange(5, 200)) + content[at + 100 :]
        files[name] = (content, 1.71e9)
    for name in rng.sample(names, len(names) // 100):
        del files[name]
    for number in range(len(names) // 50):
        name = f"{WORDS[number % 50]}/added/{number}.txt"
        files[name] = (text(rng, int(2 ** rng.uniform(7.6, 14))), 1.71e9)
    write(folder / "new" / "files.tar")


def archive(folder, rng):
    """Two tars of 2 GiB of large members, reordered and partly changed.

    Members have 1 to 64 MiB; two thirds are incompressible, as media and compressed archives are,
    the others text. The second tar has them in another order; a third of them are changed (at one
    to 20 places up to 4 KiB are replaced by up to 4 KiB of other bytes), 2 % are gone, 2 % new.
    """
    block = text(rng, 4 * MIB).encode()

    def content(size):
        if rng.random() < 2 / 3:
            return rng.randbytes(size)
        pieces = []
        while size > 0:
            length = min(size, rng.randrange(200, 20_000))
            at = rng.randrange(len(block) - length)
            pieces.append(block[at : at + length])
            size -= length
        return b"".join(pieces)

    names = []
    total = 0
    old = folder / "old" / "archive.tar"
    places = {}
    with tarfile.open(old, "w", format=tarfile.GNU_FORMAT) as target:
        while total < 2 * GIB:
            size = int(2 ** rng.uniform(20, 26))
            name = f"{WORDS[len(names)]}.bin"
            add(target, name, content(size), 1.7e9)
            places[name] = (target.offset - -(-size // 512) * 512, size)
            names.append(name)
            total += size
    few = max(1, len(names) // 50)
    gone = set(rng.sample(names, few))
    names = [name for name in names if name not in gone]
    rng.shuffle(names)
    changed = set(rng.sample(names, len(names) // 3))
    with (
        open(old, "rb") as source,
        tarfile.open(folder / "new" / "archive.tar", "w", format=tarfile.GNU_FORMAT) as target,
    ):
        for name in names:
            start, size = places[name]
            source.seek(start)
            data = bytearray(source.read(size))
            if name in changed:
                for _ in range(rng.randrange(1, 21)):
                    at = rng.randrange(len(data))
                    fresh = rng.randbytes(rng.randrange(1, 4 * KIB))
                    data[at : at + rng.randrange(4 * KIB)] = fresh
            add(target, name, bytes(data), 1.71e9 if name in changed else 1.7e9)
        for number in range(few):
            add(target, f"new-{number}.bin", content(int(2 ** rng.uniform(20, 26))), 1.71e9)


PAIRS = {"database": Made(database), "tars": Made(tars), "archive": Made(archive)}
