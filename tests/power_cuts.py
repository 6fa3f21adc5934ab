"""Power cuts of a real process: its writes and fsyncs are traced, and replayed with any subset of what was not synced.

    python -m tests.power_cuts FOLDER FSYNC     the process that is cut: appends, keeps house, compacts, backs up

It says on its standard output, which the trace holds as well, what it was acknowledged and what was made safe.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from statsapi.journal import START, Checkpoint, Proposal
from statsapi.journal.sqlite import SqliteJournal
from statsapi.model import EventBatch, Part
from tests.journal_engines import events_of
from tests.servers import ROOT

SECTOR_BYTES = 512


def work(folder: str, fsync: str) -> None:
    """Rising values, one or many a record, so that what is left can be told from them."""
    path = f"{folder}/events.db"
    journal = SqliteJournal(path, fsync="always" if fsync == "always" else "interval")
    count, previous, reader = 0, None, None
    say("opened")
    for step in range(150):
        events = 700 if step % 11 == 5 else 1
        values = np.arange(count, count + events, dtype=np.float64)
        journal.append(Proposal(EventBatch((Part("default", values.astype(np.int64), values),))))
        count += events
        say(f"acknowledged {count}")
        if step % 7 == 6:
            journal.maintain()
            say(f"kept {count}")
        if step in (40, 80):  # somebody reads an older state: nothing can be moved past it
            reader = sqlite3.connect(path)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM records").fetchall()
        if step in (60, 110) and reader is not None:
            reader.close()
        if step in (50, 90, 130):
            mark = segment.mark if (segment := journal.read(START if previous is None else previous.mark)) else START
            state = int(events_of(segment)[-1].values[-1] + 1).to_bytes(8, "little")
            checkpoint = Checkpoint(os.urandom(16), mark, 0, state)
            pieces = {step + number: os.urandom(900) for number in range(20)}
            assert journal.replace_prefix(previous.id if previous else None, checkpoint, pieces)
            previous = checkpoint
            journal.maintain()
            say(f"kept {count}")
        if step in (30, 100):
            journal.backup(f"{folder}/backup.db", overwrite=True)
            say(f"backed {count}")
    journal.close()
    say("closed")


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


class Call(NamedTuple):
    name: str
    path: str
    data: bytes = b""
    offset: int = 0


_CALL = re.compile(
    r"^(?P<name>pwrite64|write|ftruncate|fsync|fdatasync|openat|unlink|rename)\((?P<rest>.*)\) += (?P<result>-?\d+)"
)
_PATH = re.compile(r"^\d+<(?P<path>[^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def trace(folder: Path, fsync: str, strace: str) -> list[Call]:
    """Run the work, and give what it did to its folder, in order, with what it said in between."""
    output = folder.parent / f"{folder.name}.trace"
    calls = "trace=pwrite64,write,ftruncate,fsync,fdatasync,openat,unlink,rename"
    command = [strace, "-y", "-xx", "-s", "9999999", "-e", calls, "-o", str(output)]
    subprocess.run(
        [*command, sys.executable, "-m", "tests.power_cuts", str(folder), fsync],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    found = []
    with output.open() as lines:
        for line in lines:
            if (match := _CALL.match(line)) is not None and not match["result"].startswith("-"):
                call = _parse(match["name"], match["rest"], int(match["result"]))
                if call is not None and (call.name == "say" or call.path.startswith(str(folder))):
                    found.append(call)
    output.unlink()
    return found


def _parse(name: str, rest: str, result: int) -> Call | None:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(rest)]
    if name == "openat":
        path = texts[0].decode()
        return Call("create", path) if "O_CREAT" in rest else None
    if name in ("unlink", "rename"):
        return Call(name, texts[0].decode(), texts[-1])
    opened = _PATH.match(rest)
    if opened is None:
        return None
    # -xx writes paths in hex too.
    path = re.sub(r"\\x([0-9a-f]{2})", lambda byte: chr(int(byte[1], 16)), opened["path"])
    if name == "write":
        return Call("say", "", texts[0]) if rest.startswith("1<") else Call("write", path, texts[0], -1)
    if name == "pwrite64":
        return Call("write", path, texts[0][:result], int(rest.rsplit(", ", 1)[1]))
    if name == "ftruncate":
        return Call("truncate", path, b"", int(rest.rsplit(", ", 1)[1]))
    return Call("sync", path)


class _File:
    """An inode: what is on the disk of it, and what was done to it since."""

    def __init__(self) -> None:
        self.synced = bytearray()
        self.pending: list[Call] = []

    def sync(self) -> None:
        for call in self.pending:
            _do(self.synced, call)
        self.pending = []

    def after_cut(self, random: Random) -> bytes:
        """With some of what was not synced: none, all, a prefix, any subset, or any subset of sectors."""
        left, kind = bytearray(self.synced), random.randrange(5)
        for number, call in enumerate(self.pending):
            if kind == 0 or (kind == 2 and number > len(self.pending) // 2) or (kind == 3 and random.random() < 0.5):
                continue
            if kind == 4 and call.name == "write":
                for at in range(0, len(call.data), SECTOR_BYTES):
                    if random.random() < 0.7:
                        _do(left, Call("write", "", call.data[at : at + SECTOR_BYTES], call.offset + at))
            else:
                _do(left, call)
        return bytes(left)


def _do(data: bytearray, call: Call) -> None:
    if call.name == "truncate":
        data[call.offset :] = bytes(max(0, call.offset - len(data)))
    else:
        offset = len(data) if call.offset < 0 else call.offset
        data.extend(bytes(max(0, offset + len(call.data) - len(data))))
        data[offset : offset + len(call.data)] = call.data


class Disk:
    """The folder as the traced process sees it, and as it may be found after a power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._names: dict[str, _File] = {}
        self._kept: dict[str, _File] = {}  # the folder's entries on the disk
        self._changes: list[tuple[str, _File | None]] = []  # since the folder was last synced, in order

    def do(self, call: Call) -> None:
        if call.name == "create":
            if call.path not in self._names:
                self._enter(call.path, _File())
        elif call.name == "unlink":
            self._enter(call.path, None)
        elif call.name == "rename":
            file = self._names[call.path]
            self._enter(call.data.decode(), file)
            self._enter(call.path, None)
        elif call.name == "sync" and call.path == self._folder:
            self._kept = dict(self._names)
            self._changes = []
        elif (file_ := self._names.get(call.path)) is not None:
            if call.name == "sync":
                file_.sync()
            else:
                file_.pending.append(call)

    def _enter(self, path: str, file: _File | None) -> None:
        self._changes.append((path, file))
        _set(self._names, path, file)

    def cut(self, to: Path, random: Random) -> None:
        """Make in the folder `to` what a power cut now would leave. Entries change in order, as file systems ensure."""
        names = dict(self._kept)
        for path, file in self._changes[: random.randint(0, len(self._changes))]:
            _set(names, path, file)
        to.mkdir()
        for path, file in names.items():
            if not path.endswith("-shm"):
                (to / Path(path).name).write_bytes(file.after_cut(random))


def _set(names: dict[str, _File], path: str, file: _File | None) -> None:
    if file is None:
        names.pop(path, None)
    else:
        names[path] = file


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2])
