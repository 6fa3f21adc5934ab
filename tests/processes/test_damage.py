"""Damage in a journal: it is right, or refused with one line that names it; never a wrong answer, never a traceback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import Appended, HistoryChanged, IdempotencyKey, Mark, Proposal, engine_of, open_journal
from statsapi.journal.checksums import (
    RESIDUE,
    SEAL_BYTES,
    Sealed,
    answer_checksum,
    check_sealed,
    checkpoint_checksum,
    piece_checksum,
    pieces_checksum,
    seal,
)
from statsapi.journal.sqlite import SqliteJournal
from statsapi.journal.sqlite_tables import NOT_BESIDE_SEAL, read_answer
from statsapi.model import EventBatch
from tests.journal_sample import KEYS, answers, contents, history
from tests.servers import ROOT, gunicorn_server

I64 = st.integers(-(1 << 63), (1 << 63) - 1)
U32 = st.integers(0, (1 << 32) - 1)

# Checksums


@given(I64, st.binary(min_size=16, max_size=16), I64, st.binary(min_size=8, max_size=60))
def test_a_sealed_record_proves_itself(position: int, record_id: bytes, appended_us: int, payload: bytes) -> None:
    """Its CRC-32 is the same for all, and its seal gives back what was sealed."""
    sealed = seal(position, record_id, appended_us, payload)
    assert crc32(sealed) == RESIDUE
    assert sealed[:-SEAL_BYTES] == payload
    assert check_sealed(position, sealed) == Sealed(record_id, position, appended_us)
    with pytest.raises(JournalDamaged, match="checksum"):
        check_sealed(position, sealed[:-9] + bytes([sealed[-9] ^ 1]) + sealed[-8:])


def test_a_key_is_not_forgotten_by_a_changed_expiry(tmp_path: Path) -> None:
    """Housekeeping leaves what is damaged; what is whole goes when it is due."""
    path, hour_us = tmp_path / "events.db", 3_600_000_000
    with closing(open_journal(f"sqlite:///{path}")) as journal:
        done = [
            journal.append(Proposal(EventBatch(()), b"first"), key=IdempotencyKey(name, b"d", hour_us))
            for name in (b"a", b"b")
        ]
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE keys SET expires_us = 5 WHERE name = ?", (b"a",))
        journal.maintain()
        with pytest.raises(JournalDamaged):
            journal.find_answer(IdempotencyKey(b"a", b"d", hour_us))
        journal.settled_us = lambda: done[-1].appended_us + 2 * hour_us
        journal.maintain()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT name FROM keys").fetchall() == [(b"a",)]


@pytest.mark.parametrize("column", ["name", "digest", "answer", "expires_us", "checksum"])
def test_a_key_beside_a_damaged_one_is_taken(tmp_path: Path, column: str) -> None:
    """Only a request under the damaged key is refused, whatever part of it was changed; the check names the key."""
    path, hour_us = tmp_path / "events.db", 3_600_000_000

    def record(name: bytes) -> Appended:
        return journal.append(Proposal(EventBatch(()), name), key=IdempotencyKey(name, b"d", hour_us))

    with closing(open_journal(f"sqlite:///{path}")) as journal:
        record(b"mm")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            ((right,),) = connection.execute(f"SELECT {column} FROM keys").fetchall()
            connection.execute(f"UPDATE keys SET {column} = ?", (flipped(right, 8),))
        with pytest.raises(JournalDamaged):
            record(b"mm")
        for name in (b"aa", b"zz"):
            assert not record(name).replayed
            assert record(name).replayed
        with pytest.raises(JournalDamaged):
            record(b"mm")
    assert len(list(engine_of(f"sqlite:///{path}").find_damage())) == 1


@pytest.mark.parametrize("at", [2, 13, 20, 31], ids="from byte {} on".format)
def test_a_key_is_not_forgotten_by_damage_to_its_name_and_more(tmp_path: Path, at: int) -> None:
    """Where name and digest are overwritten from some byte of the name on, what was recorded under it is refused."""
    path = tmp_path / "events.db"
    key = IdempotencyKey(Random(at).randbytes(32), b"digest" * 5, 3_600_000_000)
    with closing(open_journal(f"sqlite:///{path}")) as journal:
        journal.append(Proposal(EventBatch(()), b"first"), key=key)
        for number in range(40):
            name = Random(1000 + number).randbytes(32)
            journal.append(Proposal(EventBatch(()), b"other"), key=IdempotencyKey(name, b"d", 3_600_000_000))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            wrong = (key.name[:at] + b"\xff" * (32 - at), b"\xff" * 4 + key.digest[4:], key.name)
            connection.execute("UPDATE keys SET name = ?, digest = ? WHERE name = ?", wrong)
        with pytest.raises(JournalDamaged):
            journal.find_answer(key)
        with pytest.raises(JournalDamaged):
            journal.append(Proposal(EventBatch(()), b"again"), key=key)


def make_keys(path: Path, count: int) -> dict[bytes, bytes]:
    """A closed journal with that many keys: the answer under each name."""
    kept = {Random(number).randbytes(32): b"answer %d" % number for number in range(count)}
    with closing(open_journal(f"sqlite:///{path}")) as journal:
        for name, answer in kept.items():
            journal.append(Proposal(EventBatch(()), answer), key=IdempotencyKey(name, b"digest" * 5, 3_600_000_000))
    return kept


def pages_of_keys(path: Path) -> tuple[int, list[int]]:
    """By SQLite's file format: the root of the table `keys`, which has one level of pages below it, and those pages."""
    with closing(sqlite3.connect(path)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'keys'").fetchall()
    data = path.read_bytes()
    start = (root - 1) * 4096
    count = int.from_bytes(data[start + 3 : start + 5], "big")
    cells = [int.from_bytes(data[start + 12 + 2 * k : start + 14 + 2 * k], "big") for k in range(count)]
    children = [int.from_bytes(data[start + at : start + at + 4], "big") for at in (*cells, 8)]
    assert data[start] == 2
    assert all(data[(page - 1) * 4096] == 10 for page in children)
    return root, children


def test_a_key_that_a_damaged_page_hides_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """A page of keys that counts fewer rows, one with another in its place, and a changed pointer to one, while the
    service runs: a retry gets its answer or is told of the damage. It was recorded again, and counted twice.
    """
    whole, path = tmp_path / "whole.db", tmp_path / "events.db"
    kept = make_keys(whole, 400)
    root, leaves = pages_of_keys(whole)
    data = whole.read_bytes()
    page_of = {page: data[(page - 1) * 4096 : page * 4096] for page in leaves}
    damages = [((page - 1) * 4096 + 3 + bit // 8, bytes([bit])) for page in (root, *leaves) for bit in range(16)]
    damages += [((page - 1) * 4096, page_of[other]) for page in leaves for other in leaves if other != page]
    pointers = [data.index(page.to_bytes(4, "big"), (root - 1) * 4096 + 8) for page in leaves]
    damages += [(at, other.to_bytes(4, "big")) for at in pointers for other in leaves]
    seen: Counter[str] = Counter()
    for at, change in damages:
        damaged = bytearray(data)
        if len(change) == 1:
            damaged[at] ^= 1 << change[0] % 8
        else:
            damaged[at : at + len(change)] = change
        path.write_bytes(damaged)
        with closing(sqlite3.connect(path)) as connection:  # not as a start reads it: that refuses most of these
            for name, answer in kept.items():
                try:
                    found = read_answer(connection, name, 0)
                except (JournalDamaged, sqlite3.DatabaseError) as error:
                    seen["not found" if "not found" in str(error) else "refused"] += 1
                    continue
                assert found == (b"digest" * 5, answer)
                seen["right"] += 1
    assert set(seen) == {"right", "refused", "not found"}
    assert seen["not found"] > 1_000


def test_a_retry_under_a_key_that_damage_hides_is_refused_while_the_service_runs(tmp_path: Path) -> None:
    """By lookup and by append, on a journal that was open before the damage; other keys go on."""
    path = tmp_path / "events.db"
    kept = make_keys(path, 400)
    _, leaves = pages_of_keys(path)
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM keys ORDER BY name")]
    with closing(open_journal(f"sqlite:///{path}")) as journal:
        with path.open("r+b") as file:  # the first page counts its first row alone
            file.seek((leaves[0] - 1) * 4096 + 3)
            file.write((1).to_bytes(2, "big"))
        hidden, other = (IdempotencyKey(name, b"digest" * 5, 3_600_000_000) for name in (names[2], names[-1]))
        for ask in (journal.find_answer, lambda key: journal.append(Proposal(EventBatch(()), b"again"), key=key)):
            with pytest.raises(JournalDamaged, match="one is not found where it must be"):
                ask(hidden)
        assert journal.find_answer(other) == kept[other.name]
        assert not journal.append(Proposal(EventBatch(()), b"new"), key=IdempotencyKey(b"\xff" * 32, b"d", 1)).replayed
    with pytest.raises(JournalDamaged):
        SqliteJournal(str(path))


@pytest.mark.parametrize("target", ["the root of keys", "the first page below it"])
def test_a_page_of_the_index_among_the_keys_does_not_spread(target: str, tmp_path: Path) -> None:
    """New keys that were searched through it were written into the index's pages below it. What these hid was in
    neither place then, and was recorded again: 327 of 3,300 keys.
    """
    path = tmp_path / "events.db"
    kept = make_keys(path, 3_000)
    with closing(sqlite3.connect(path)) as connection:
        places = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
    data = path.read_bytes()
    root = (places["keys"] - 1) * 4096
    below = root + int.from_bytes(data[root + 12 : root + 14], "big")
    page = int.from_bytes(data[below : below + 4], "big") if target == "the first page below it" else places["keys"]
    assert data[(page - 1) * 4096] == 2, "no leaf"
    with closing(open_journal(f"sqlite:///{path}")) as journal:

        def is_recorded(name: bytes) -> bool:
            key = IdempotencyKey(name, b"digest" * 5, 3_600_000_000)
            try:
                return not journal.append(Proposal(EventBatch(()), b"again"), key=key).replayed
            except JournalDamaged:
                return False

        with path.open("r+b") as file:
            at = places["keys_by_name"] - 1
            file.seek((page - 1) * 4096)
            file.write(data[at * 4096 : (at + 1) * 4096])
        recorded = [
            name for name in (Random(number).randbytes(32) for number in range(10_000, 10_600)) if is_recorded(name)
        ]
        assert bool(recorded) == (page != places["keys"])
        assert not [name for name in (*kept, *recorded) if is_recorded(name)]
    with pytest.raises(JournalDamaged):
        SqliteJournal(str(path))


def seal_checksum(position: int, record_id: bytes, appended_us: int, payload: bytes) -> bytes:
    """The checksum in a sealed record."""
    return seal(position, record_id, appended_us, payload)[-8:]


def flipped(value: int | bytes, bit: int) -> int | bytes:
    """The value with one bit of it flipped; an integer is one of 64 bits, or 32 where it must be positive."""
    if isinstance(value, int):
        return value ^ (1 << bit % 32)
    changed = bytearray(value)
    changed[bit // 8 % len(value)] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        (seal_checksum, (7, b"i" * 16, 1_764_000_000_000_000, b"payload.")),
        (piece_checksum, (29_000_000, b"a piece")),
        (checkpoint_checksum, (b"c" * 16, 7, b"i" * 16, 1_764_000_000_000_000, 123, 456)),
        (answer_checksum, (b"name", b"digest", b"answer", 1_764_000_000_000_000)),
    ],
)
def test_a_flipped_bit_in_any_field_changes_the_checksum(function: object, fields: tuple[int | bytes, ...]) -> None:
    """Every field counts."""
    assert callable(function)
    right = function(*fields)
    for at, field in enumerate(fields):
        for bit in range(32 if isinstance(field, int) else 8 * len(field)):
            assert function(*fields[:at], flipped(field, bit), *fields[at + 1 :]) != right


def test_a_missing_piece_changes_the_checksum_of_all() -> None:
    """Which pieces there are counts, and what each is."""
    keys, each = list(range(20)), [Random(7).getrandbits(32) for _ in range(20)]
    right = pieces_checksum(keys, each)
    for at in range(20):
        assert pieces_checksum(keys[:at] + keys[at + 1 :], each[:at] + each[at + 1 :]) != right
        assert pieces_checksum(keys, [*each[:at], each[at] ^ 1, *each[at + 1 :]]) != right
    assert pieces_checksum([], []) == 0


# A damaged file


class Sample(NamedTuple):
    """A folder with a journal, and what it holds. `histories`: now, and just before its last checkpoint if that is in
    the -wal. `records`: the id and payload of each record of both, by its position.
    """

    folder: Path
    contents: list[object]
    answers: list[bytes | None]
    histories: list[list[object]]
    records: dict[int, tuple[bytes, bytes]]


@pytest.fixture(scope="module", params=[False, True], ids=["file", "wal"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A journal that was closed, or one whose process was killed with a -wal."""
    folder = tmp_path_factory.mktemp("sample")
    path = folder / "events.db"
    command = [sys.executable, "-m", "tests.journal_sample", str(path), "1" if request.param else "0"]
    subprocess.run(command, check=True, cwd=ROOT)
    assert (folder / "events.db-wal").exists() == request.param
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(folder, copy)
    with closing(SqliteJournal(str(copy / "events.db"))) as journal:
        assert journal.lost is None
        first = KEYS if request.param else 0
        found = Sample(folder, contents(journal), answers(journal, first) + answers(journal, 0), [history(journal)], {})
    found.records.update(records_of(copy / "events.db"))
    if request.param:
        add_the_time_before(found, tmp_path_factory.mktemp("before") / "data")
    return found


def add_the_time_before(sample: Sample, copy: Path) -> None:
    """Cut the -wal after the last commit before its checkpoint. The place is found by halving."""
    wal = (sample.folder / "events.db-wal").read_bytes()
    commits = [end for end in range(32 + 4120, len(wal) + 1, 4120) if any(wal[end - 4116 : end - 4112])]
    after = sample.histories[0][0]

    def at(commit: int) -> list[object]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(sample.folder, copy)
        os.truncate(copy / "events.db-wal", commits[commit])
        with closing(SqliteJournal(str(copy / "events.db"))) as journal:
            return history(journal)

    last = bisect_left(range(len(commits)), True, key=lambda commit: at(commit)[0] == after) - 1
    sample.histories.append(at(last))
    sample.records.update(records_of(copy / "events.db"))


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a journal that was closed. To be copied."""
    path = tmp_path_factory.mktemp("closed") / "events.db"
    subprocess.run([sys.executable, "-m", "tests.journal_sample", str(path), "0"], check=True, cwd=ROOT)
    return path


def flip(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at] ^= 1 << random.randrange(8)


def flip_in_a_head(data: bytearray, random: Random) -> None:
    """Flip a bit in the bytes that SQLite relies on: the first of the file, of a page, or of its last page."""
    page = random.choice([0, random.randrange(len(data) // 4096), len(data) // 4096 - 1])
    at = min(len(data) - 1, page * 4096 + random.randrange(100))
    data[at] ^= 1 << random.randrange(8)


def zero_a_sector(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data)) // 512 * 512
    data[at : at + 512] = bytes(len(data[at : at + 512]))


def tear_a_page(data: bytearray, random: Random) -> None:
    """The first half of a page is another one's."""
    one, other = (random.randrange(max(1, len(data) // 4096)) * 4096 for _ in range(2))
    data[one : one + 2048] = data[other : other + 2048]


def swap_pages(data: bytearray, random: Random) -> None:
    one, other = (random.randrange(max(1, len(data) // 4096)) * 4096 for _ in range(2))
    data[one : one + 4096], data[other : other + 4096] = data[other : other + 4096], data[one : one + 4096]


def cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def fill_with_ones(data: bytearray, random: Random) -> None:
    """Numbers of SQLite's become huge, and text no text."""
    at = random.randrange(len(data))
    data[at : at + 16] = b"\xff" * len(data[at : at + 16])


def overwrite(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at : at + 64] = random.randbytes(len(data[at : at + 64]))


DAMAGES = [flip, flip, flip_in_a_head, flip_in_a_head, zero_a_sector, tear_a_page, swap_pages, cut, overwrite]
DAMAGES += [fill_with_ones, fill_with_ones]


def outcome_of(folder: Path, sample: Sample, first: int) -> str:
    """The service's verdict: right, told (a loss) or refused; an AssertionError for a wrong answer."""
    path = str(folder / "events.db")
    said = []
    lost = False
    try:
        with closing(SqliteJournal(path, wait_limit_s=0.5)) as journal:
            lost = journal.lost is not None
            for look, expected in (
                (lambda: contents(journal), sample.contents),
                (lambda: answers(journal, first) + answers(journal, 0), sample.answers),
            ):
                try:
                    found = look()
                except (JournalRefused, JournalUnavailable) as error:
                    said.append(error)
                    continue
                if found != expected:
                    assert lost, "a wrong answer"
                    assert is_earlier(found, expected, journal, sample), "another answer than before the loss"
            for act in (lambda: journal.append(Proposal(EventBatch.single("default", 1, 1.0))), journal.maintain):
                try:
                    act()
                except (JournalRefused, JournalUnavailable) as error:
                    said.append(error)
    except (JournalRefused, JournalUnavailable) as error:
        said.append(error)
    for refusal in said:
        assert "\n" not in str(refusal)
    return "refused" if said else "told" if lost else "right"


def is_earlier(found: list[Any], expected: list[Any], journal: SqliteJournal, sample: Sample) -> bool:
    """Whether the sample held this at some time: its contents, or its answers (the last KEYS of them came last)."""
    if expected is sample.contents:
        held = history(journal)
        return any(held == past[: len(held)] for past in sample.histories)
    kept = next((at for at, answer in enumerate(found[:KEYS]) if answer is None), KEYS)
    return found == expected[:kept] + [None] * (KEYS - kept) + expected[KEYS:]


def check_what_is_left(folder: Path, sample: Sample) -> None:
    """The check and the salvage end without a traceback. What is saved was recorded, and what is not is named."""
    path, new = folder / "events.db", folder / "new.db"
    lines, refusal = None, ""
    try:
        lines = list(engine_of(f"sqlite:///{path}").find_damage())
        engine_of(f"sqlite:///{path}").salvage(str(new))
    except JournalRefused as error:
        refusal = str(error)
    assert refusal.isprintable()
    if not new.exists():
        return
    assert list(engine_of(f"sqlite:///{new}").find_damage()) == []
    of_id = {record_id: (position, payload) for position, (record_id, payload) in sample.records.items()}
    saved = set()
    for record_id, payload in records_of(new).values():
        position, recorded = of_id[record_id]
        assert payload == recorded
        saved.add(position)
    with closing(SqliteJournal(str(new))) as journal:
        checkpoint = journal.read_checkpoint()
        contents(journal)
    if lines is None:  # it does not even look like a journal of ours
        return
    assert all(line.isprintable() for line in lines)
    base = checkpoint.mark.position if checkpoint else 0
    missing = {position for position in sample.records if position > base} - saved
    # What stands beside a seal may be damaged: the check says so, and the seal saves the record.
    beside = set(told_missing([line for line in lines if line.endswith(NOT_BESIDE_SEAL)]))
    assert beside <= saved
    told = set(told_missing(lines)) - beside
    if checkpoint is None:  # where the records begin is not known, and the first may have been folded into it
        assert any("checkpoint" in line or "table meta" in line for line in lines)
        missing = {position for position in missing if position > min(saved, default=max(sample.records))}
        told = {position for position in told if position > min(saved, default=max(sample.records))}
    if unknown := [line for line in lines if re.search(r"records from (\d+) on: ", line)]:
        end = int(re.findall(r"records from (\d+) on: ", unknown[0])[0])
        missing = {position for position in missing if position < end}
    assert told == missing


DAMAGED = int(os.environ.get("STATSAPI_STRESS_DAMAGES", "100"))
SEED = int(os.environ.get("STATSAPI_STRESS_SEED", "1"))


def test_a_damaged_journal_is_right_or_refused(sample: Sample, tmp_path: Path) -> None:
    """Flips, zeroed and torn pages, cuts: never a wrong answer, and an error of one line; losses are told."""
    first = KEYS if (sample.folder / "events.db-wal").exists() else 0
    seen: Counter[str] = Counter()
    for seed in range(1_000_000 * SEED, 1_000_000 * SEED + DAMAGED):
        random = Random(seed)
        folder = tmp_path / str(seed)
        shutil.copytree(sample.folder, folder)
        file = folder / ("events.db-wal" if first and seed % 3 else "events.db")
        data = bytearray(file.read_bytes())
        damage = random.choice(DAMAGES)
        damage(data, random)
        file.write_bytes(data)
        try:
            if seed % 5 == 0:
                shutil.copytree(folder, left := tmp_path / "left")
                check_what_is_left(left, sample)
                shutil.rmtree(left)
            seen[outcome_of(folder, sample, first)] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}: {damage.__name__} in {file.name}")
            raise
        shutil.rmtree(folder)
    assert set(seen) >= {"right", "refused"}
    if first:
        assert seen["told"]


def test_a_page_that_counts_its_rows_wrong_is_no_other_history(closed: Path, tmp_path: Path) -> None:
    """Each bit of the count of each page of records. A search by number then misses rows that are there, so a view that
    stands on one was told to begin afresh, and came to the same place, without end. From each record on the journal is
    right, or damaged.
    """
    folder = tmp_path / "data"
    shutil.copytree(closed.parent, folder)
    path = folder / "events.db"
    whole = closed.read_bytes()
    with closing(sqlite3.connect(closed)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records'").fetchall()
    held = {position: record_id for position, (record_id, _) in records_of(closed).items()}
    leaves = {pages[-1] for pages in map(sorted, pages_of_records(whole, root).values()) if len(pages) == 2}
    seen: Counter[str] = Counter()
    for page in sorted(leaves | {root}):
        for bit in range(16):
            shutil.copy(closed.with_name("events.db-mark"), folder)
            data = bytearray(whole)
            data[(page - 1) * 4096 + 3 + bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            try:
                with closing(SqliteJournal(str(path))) as journal:
                    gone: list[int] = []
                    for position, record_id in held.items():
                        try:
                            segment = journal.read(Mark(position, record_id), limit_records=1)
                        except JournalDamaged:
                            seen["damaged"] += 1
                            continue
                        except HistoryChanged:  # the end is out of sight, and beginning afresh tells that it is lost
                            gone.append(position)
                            continue
                        after = position + segment.records
                        assert segment.mark == Mark(after, held[after])
                        assert segment.records or position == max(held) or journal.lost is not None
                        seen["right"] += 1
                    assert gone == list(held)[len(held) - len(gone) :]
                    if gone:
                        assert journal.lost is not None
                        seen["told"] += 1
            except JournalDamaged:
                seen["refused"] += 1
    assert set(seen) == {"damaged", "right", "refused", "told"}


def statsapi(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "statsapi", "journal", *arguments]
    env = {**os.environ, "STATSAPI_JOURNAL": f"sqlite:///{path}"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_check_and_salvage_say_what_is_left(sample: Sample, tmp_path: Path) -> None:
    """A whole journal is whole, and its salvage is the same; of a damaged one all but what is named is saved."""
    folder, new = tmp_path / "data", tmp_path / "new.db"
    shutil.copytree(sample.folder, folder)
    path = folder / "events.db"
    done = statsapi(path, "check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "everything is what was written\n", "")
    assert statsapi(path, "salvage", str(new)).stdout.endswith("missing is:\nnothing\n")
    with closing(SqliteJournal(str(new))) as journal:
        assert contents(journal) == sample.contents
    with closing(SqliteJournal(str(path))) as journal:
        info = journal.info()
        assert info.first_position is not None
        journal.maintain()
        at = info.first_position + 9
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE records SET record = zeroblob(88) WHERE seq = ?", (at,))
            connection.execute("DELETE FROM records WHERE seq = ?", (at + 2,))
        with pytest.raises(JournalRefused, match=f"record {at} is damaged"):
            contents(journal)
        with pytest.raises(JournalRefused, match=f"record {at} is damaged"):
            journal.backup(str(tmp_path / "backup.db"))
        with pytest.raises(JournalDamaged, match="they are not all of"):
            journal.info()
        assert not (tmp_path / "backup.db").exists()
    done = statsapi(path, "check")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"the journal's record {at}: its checksum does not match",
        f"the journal's record {at + 2}: it is missing",
    ]
    assert "journal salvage NEW" in done.stderr
    assert statsapi(path, "salvage", str(new)).returncode == 1  # it is there
    new.unlink()
    done = statsapi(path, "salvage", str(new))
    assert done.returncode == 0
    assert done.stdout.startswith(f"{new} holds {info.records - 2:,} records, the checkpoint with")
    with closing(SqliteJournal(str(new))) as journal:
        assert journal.info().records == info.records - 2
        contents(journal)


def test_salvage_reads_around_what_sqlite_cannot(sample: Sample, tmp_path: Path) -> None:
    """Of 60 files with two zeroed sectors nearly all is saved wherever the file can be opened at all, and what is saved
    is right.
    """
    saved, said = 0, []
    for seed in range(60):
        random, folder = Random(seed), tmp_path / str(seed)
        shutil.copytree(sample.folder, folder)
        data = bytearray((folder / "events.db").read_bytes())
        for _ in range(2):
            zero_a_sector(data, random)
        (folder / "events.db").write_bytes(data)
        new = folder / "new.db"
        try:
            engine_of(f"sqlite:///{folder}/events.db").salvage(str(new))
        except JournalRefused as error:
            said.append(str(error))
            continue
        saved += 1
        assert list(engine_of(f"sqlite:///{new}").find_damage()) == []
        with closing(SqliteJournal(str(new))) as journal:
            contents(journal)
    assert not any("\n" in line for line in said)
    assert saved > 40


def pages_of_records(data: bytes, root: int) -> dict[int, set[int]]:
    """By SQLite's file format: which pages lead to each row of the table at `root`, and hold it."""

    def varint(at: int) -> tuple[int, int]:
        value = 0
        while True:
            value = value << 7 | data[at] & 0x7F
            at += 1
            if data[at - 1] < 0x80:
                return value, at

    def u16(at: int) -> int:
        return int.from_bytes(data[at : at + 2], "big")

    def u32(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "big")

    found: dict[int, set[int]] = {}
    path = [(root, frozenset[int]())]
    while path:
        page, above = path.pop()
        start, pages = (page - 1) * 4096, above | {page}
        if data[start] == 5:
            cells = [start + u16(start + 12 + 2 * number) for number in range(u16(start + 3))]
            path += [(u32(at), pages) for at in (*cells, start + 8)]
            continue
        assert data[start] == 13
        for number in range(u16(start + 3)):
            size, at = varint(start + u16(start + 8 + 2 * number))
            key, at = varint(at)
            mine = set(pages)
            if size > 4061:
                least = (4096 - 12) * 32 // 255 - 23
                local = least + (size - least) % 4092
                more = u32(at + (local if local <= 4061 else least))
                while more:
                    mine.add(more)
                    more = u32((more - 1) * 4096)
            found[key] = mine
    return found


def told_missing(lines: list[str]) -> list[int]:
    """The positions that `journal check` names."""
    found: list[int] = []
    for line in lines:
        if named := re.match(r"the journal's records? (\d+)(?: to (\d+))?: ", line):
            found.extend(range(int(named[1]), int(named[2] or named[1]) + 1))
    return found


def records_of(path: Path) -> dict[int, tuple[bytes, bytes]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT seq, id, record FROM records ORDER BY seq").fetchall()
    return {seq: (record_id, record[:-SEAL_BYTES]) for seq, record_id, record in rows}


@pytest.mark.parametrize("marked", [True, False], ids=["with its mark", "without its mark"])
def test_salvage_saves_every_record_whose_pages_are_whole(tmp_path: Path, marked: bool) -> None:
    """Cut files and zeroed pages: all others are in the new file, and exactly what is not is named."""
    path, new = tmp_path / "events.db", tmp_path / "new.db"
    subprocess.run([sys.executable, "-m", "tests.journal_sample", str(path), "0"], check=True, cwd=ROOT)
    whole = path.read_bytes()
    if not marked:
        (tmp_path / "events.db-mark").unlink()
    held = records_of(path)
    with closing(sqlite3.connect(path)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records'").fetchall()
    pages = pages_of_records(whole, root)
    assert pages.keys() == held.keys()
    last_page = len(whole) // 4096
    leaves = sorted({page for each in pages.values() for page in each if page != root})
    some = [*leaves[:2], *Random(9).sample(leaves[2:-2], 20), *leaves[-2:]]
    damages = [(number, {page}) for number, page in enumerate(some)]
    for seed in range(24):
        random = Random(seed)
        if seed % 2:
            first = random.randrange(min(leaves), last_page + 1)  # the small tables stand before
            damages.append((-seed, set(range(first, last_page + 1))))
        else:
            damages.append((seed + 1000, set(random.sample(leaves, 3))))
    for seed, gone in damages:
        data = bytearray(whole)
        if seed < 0:  # in the middle of the first page that is gone, or before it
            del data[(min(gone) - 1) * 4096 + (Random(seed).randrange(4096) if seed % 3 else 0) :]
        else:
            for page in gone:
                data[(page - 1) * 4096 : page * 4096] = bytes(4096)
        path.write_bytes(data)
        began = time.monotonic()
        engine_of(f"sqlite:///{path}").salvage(str(new))
        assert time.monotonic() - began < 5
        assert path.read_bytes() == data
        saved = list(records_of(new).values())
        expected = [held[seq] for seq in held if not pages[seq] & gone]
        if seed < 0:  # the page that is cut in its middle may still hold some
            assert [each for each in saved if each in set(expected)] == expected
            assert [each for each in held.values() if each in set(saved)] == saved
        else:
            assert saved == expected
        assert list(engine_of(f"sqlite:///{new}").find_damage()) == []
        new.unlink()
        lines = list(engine_of(f"sqlite:///{path}").find_damage())
        missing = [seq for seq, each in held.items() if each not in set(saved)]
        told = told_missing(lines)
        if marked or max(held) not in missing:
            assert told == missing
        else:  # how far it went is known to nobody
            assert told == [seq for seq in missing if seq <= max(told, default=0)]
            assert told == missing or any("how many is not known" in line for line in lines)
        assert len(lines) == len(set(lines))


@pytest.mark.parametrize("kind", ["empty", "another program's"])
def test_salvage_of_no_journal_says_so_and_makes_nothing(kind: str, tmp_path: Path) -> None:
    """A file that was emptied, or another program's database: one line, and NEW is not there."""
    path, new = tmp_path / "events.db", tmp_path / "new.db"
    path.touch()
    if kind != "empty":
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE notes (text)")
    done = statsapi(path, "salvage", str(new))
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].endswith("holds none of a journal's tables: there is nothing to save")
    assert not new.exists()


def test_salvage_into_a_folder_that_is_not_there(sample: Sample, tmp_path: Path) -> None:
    """The one of the two files that is at fault is named, and how."""
    new = tmp_path / "none" / "new.db"
    done = statsapi(sample.folder / "events.db", "salvage", str(new))
    said = f"statsapi: {new} cannot be written, as its folder is not there: name another file\n"
    assert (done.returncode, done.stderr) == (1, said)


def of_definitions(data: bytearray, damage: str) -> None:
    """Damage the first page of a journal, where the definitions of its tables are."""
    at = data.index(b"CREATE TABLE records")
    if damage == "no text":
        data[at + 9 : at + 25] = b"\xff" * 16
    elif damage == "line end in an error":
        blob = data.index(b"record BLOB", at)
        data[blob + 6] = ord('"')
    elif damage == "a place":  # records and meta change theirs: the byte before the text is where a table begins
        other = data.index(b"CREATE TABLE meta")
        data[at - 1], data[other - 1] = data[other - 1], data[at - 1]
    elif damage == "a lost sector":
        data[at // 512 * 512 : at // 512 * 512 + 512] = bytes(512)
    elif damage == "a cut first page":
        data[3000:4096] = bytes(1096)
    else:
        data[:100] = bytes(100)


@pytest.mark.parametrize("compacted", [False, True], ids=["as made", "compacted"])
@pytest.mark.parametrize(
    "damage", ["no text", "line end in an error", "a place", "a lost sector", "a cut first page", "no header"]
)
def test_salvage_saves_all_where_only_definitions_are_damaged(
    damage: str, compacted: bool, closed: Path, tmp_path: Path
) -> None:
    """The journal is refused in one line, the check names the definitions alone, and the new file holds everything."""
    path, new = tmp_path / "events.db", tmp_path / "new.db"
    shutil.copy(closed, path)
    if compacted:
        engine_of(f"sqlite:///{path}").compact()
    with closing(SqliteJournal(str(path))) as journal:
        expected, expected_answers = contents(journal), answers(journal, 0)
    data = bytearray(path.read_bytes())
    of_definitions(data, damage)
    path.write_bytes(data)
    with pytest.raises(JournalRefused) as refused:
        SqliteJournal(str(path))
    assert str(refused.value).isprintable()
    (line,) = engine_of(f"sqlite:///{path}").find_damage()
    assert line.isprintable()
    engine_of(f"sqlite:///{path}").salvage(str(new))
    assert path.read_bytes() == data
    assert sorted(each.name for each in tmp_path.iterdir() if each.name not in ("events.db-wal", "events.db-shm")) == [
        "events.db",
        "events.db-mark",
        "new.db",
    ]
    with closing(SqliteJournal(str(new))) as journal:
        assert contents(journal) == expected
        assert answers(journal, 0) == expected_answers


@pytest.mark.parametrize(("at", "byte"), [(61, 64), (60, 1), (63, 2), (63, 3), (63, 0), (69, 117), (71, 0)])
def test_a_damaged_header_is_no_newer_version_and_no_other_programs(
    at: int, byte: int, closed: Path, tmp_path: Path
) -> None:
    """A bit of the schema's version or of the application's id: whoever starts is told of damage, not to use a newer
    statsapi or another file. The check says so and reads on; the salvage saves all and ends well.
    """
    path, new = tmp_path / "events.db", tmp_path / "new.db"
    shutil.copy(closed, path)
    with closing(SqliteJournal(str(path))) as journal:
        expected = contents(journal)
    data = bytearray(path.read_bytes())
    data[at] = byte
    path.write_bytes(data)
    with pytest.raises(JournalDamaged, match="its header is not that of a journal"):
        SqliteJournal(str(path))
    checked = statsapi(path, "check")
    assert (checked.returncode, checked.stdout) == (
        1,
        f"{path}: its header is not that of a journal, and its tables are\n",
    )
    saved = statsapi(path, "salvage", str(new))
    assert saved.returncode == 0, saved.stderr
    with closing(SqliteJournal(str(new))) as journal:
        assert contents(journal) == expected


def claim_4_gib(path: Path) -> int:
    """Make a record in the middle of a page claim a length of 4 GiB, and a head that is longer than its page, so that
    SQLite follows pages that are not there. Gives its number.
    """
    data = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records'").fetchall()
    pages = pages_of_records(bytes(data), root)
    number = 4 + next(seq for seq in sorted(pages) if pages[seq] == pages[seq + 8])
    start = (max(pages[number] - {root}) - 1) * 4096
    before = sum(pages[seq] == pages[number] for seq in pages if seq < number)
    at = start + int.from_bytes(data[start + 8 + 2 * before : start + 10 + 2 * before], "big")
    key = bytes([number]) if number < 128 else bytes([0x80 | number >> 7, number & 0x7F])
    cell = b"\xff" * 9 + key + b"\x83\xff\x7f"
    data[at : at + len(cell)] = cell
    path.write_bytes(data)
    return number


def test_a_record_that_claims_4_gib_is_damage(closed: Path, tmp_path: Path) -> None:
    """SQLite reports a lack of memory for it. The journal is refused as damaged, and check and salvage name that record
    alone.
    """
    path, new = tmp_path / "events.db", tmp_path / "new.db"
    shutil.copy(closed, path)
    held = records_of(path)
    number = claim_4_gib(path)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(MemoryError):
        connection.execute("SELECT record FROM records").fetchall()
    with closing(SqliteJournal(str(path))) as journal:
        for look in (lambda: contents(journal), lambda: journal.backup(str(tmp_path / "copy.db"))):
            with pytest.raises(JournalDamaged):
                look()
    with pytest.raises(JournalDamaged):
        engine_of(f"sqlite:///{path}").compact()
    assert told_missing(list(engine_of(f"sqlite:///{path}").find_damage())) == [number]
    engine_of(f"sqlite:///{path}").salvage(str(new))
    assert list(records_of(new).values()) == [record for seq, record in held.items() if seq != number]


def test_a_server_on_a_record_that_claims_4_gib_says_that_it_is_damaged(tmp_path: Path) -> None:
    """Every answer is 503 journal-damaged in one line, none a lack of memory, and the log has no traceback."""
    path = tmp_path / "events.db"
    with closing(SqliteJournal(str(path))) as journal:
        for number in range(120):
            journal.append(Proposal(EventBatch.single("default", number, 1.0)))
    claim_4_gib(path)
    with gunicorn_server(tmp_path, workers=1, env={"STATSAPI_JOURNAL": f"sqlite:///{path}"}) as server:
        for method, target, body in (
            ("GET", "/statistics", None),
            ("GET", "/readyz", None),
            ("POST", "/event", {"timestamp": time.time(), "value": 1}),
        ):
            status, problem = server.request(method, target, body)
            assert (status, problem["type"]) == (503, "urn:statsapi:problem:journal-damaged")
            assert problem["detail"].isprintable()
        assert "Traceback" not in server.log
        assert "out of memory" not in server.log


def test_a_journal_whose_definitions_are_no_text_is_refused_by_every_command(closed: Path, tmp_path: Path) -> None:
    """`serve` and `info` end with one line and status 78, `check` with 1: none with a traceback."""
    path = tmp_path / "events.db"
    data = bytearray(closed.read_bytes())
    of_definitions(data, "no text")
    path.write_bytes(data)
    env = {**os.environ, "STATSAPI_JOURNAL": f"sqlite:///{path}"}
    for command, status in ((["serve", "--port", "0"], 78), (["journal", "info"], 78), (["journal", "check"], 1)):
        done = subprocess.run(
            [sys.executable, "-m", "statsapi", *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        assert (done.stdout + done.stderr).count("malformed database schema") == 1


def test_a_lack_of_memory_is_no_damage(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file that is whole, a MemoryError stays a MemoryError, at work and in a salvage."""
    folder = tmp_path / "data"
    shutil.copytree(sample.folder, folder)

    def fail(*_: object) -> None:
        raise MemoryError

    with closing(SqliteJournal(str(folder / "events.db"))) as journal:
        with monkeypatch.context() as patch:
            patch.setattr("statsapi.journal.sqlite_tables.crc32", fail)
            with pytest.raises(MemoryError):
                journal.read_checkpoint()
        assert journal.read_checkpoint() == sample.contents[0]
    monkeypatch.setattr("statsapi.journal.sqlite_tables.read_state", fail)
    with pytest.raises(MemoryError):
        engine_of(f"sqlite:///{folder}/events.db").salvage(str(tmp_path / "new.db"))
    assert not (tmp_path / "new.db").exists()


def test_salvage_saves_the_rest_where_a_table_is_gone(sample: Sample, tmp_path: Path) -> None:
    """Without the table of answers the records are saved all the same."""
    folder, new = tmp_path / "data", tmp_path / "new.db"
    shutil.copytree(sample.folder, folder)
    with closing(sqlite3.connect(folder / "events.db")) as connection, connection:
        connection.execute("PRAGMA secure_delete=ON")  # or what is left of the table would be found
        connection.execute("DROP TABLE keys")
    whole = engine_of(f"sqlite:///{sample.folder}/events.db").salvage(str(tmp_path / "whole.db"))
    said = engine_of(f"sqlite:///{folder}/events.db").salvage(str(new))
    assert said.split(", ")[:2] == whole.split(", ")[:2]
    assert said.endswith(" 0 answers kept under an Idempotency-Key")


# A lost end


def test_a_lost_end_is_told_once(tmp_path: Path) -> None:
    """One opener of the journal is told of acknowledged records that are gone, how many and since when."""
    path = str(tmp_path / "events.db")
    with closing(SqliteJournal(path)) as journal:
        for number in range(3):
            kept = journal.append(Proposal(EventBatch.single("default", number, 1.0)))
        journal.backup(str(tmp_path / "older.db"))
        for number in range(4):
            journal.append(Proposal(EventBatch.single("default", number, 1.0)))
    with closing(SqliteJournal(path)) as journal:
        assert journal.lost is None
    os.replace(tmp_path / "older.db", path)
    for _ in range(2):  # and who looks, neither
        done = statsapi(Path(path), "check")
        assert done.returncode == 1
        assert done.stdout.splitlines() == [
            "the journal's records 4 to 7: acknowledged, and no longer at the end of the file and its -wal"
        ]
    new = tmp_path / "new.db"
    assert statsapi(Path(path), "salvage", str(new)).stdout.splitlines()[1:] == done.stdout.splitlines()
    assert "records 4 to 7" not in statsapi(new, "check").stdout
    SqliteJournal(path).close()  # who does not ask takes nothing away from who does
    with closing(SqliteJournal(path)) as one, closing(SqliteJournal(path)) as other:
        lost = one.lost
        assert lost is not None
        assert (lost.records, lost.since_us) == (4, kept.appended_us)
        assert "an older or another file was put in its place" in lost.how
        assert one.lost == lost
        assert other.lost is None
        one.append(Proposal(EventBatch.single("default", 9, 1.0)))
        other.append(Proposal(EventBatch.single("default", 9, 1.0)))
    with closing(SqliteJournal(path)) as journal:
        assert journal.lost is None
    assert statsapi(Path(path), "check").returncode == 0  # it was told


def test_a_mark_that_is_missing_damaged_or_behind_raises_no_alarm(tmp_path: Path) -> None:
    """No loss is reported without a mark, with a flipped bit in it, after a move to another place, or with an older
    mark.
    """
    path, mark = str(tmp_path / "events.db"), tmp_path / "events.db-mark"

    def grow() -> None:
        with closing(SqliteJournal(path)) as journal:
            assert journal.lost is None
            journal.append(Proposal(EventBatch.single("default", 1, 1.0)))

    grow()
    early = mark.read_bytes()
    grow()
    mark.write_bytes(early)
    grow()
    random = Random(1)
    for _ in range(30):
        data = bytearray(mark.read_bytes())
        flip(data, random)
        mark.write_bytes(data)
        grow()
    mark.write_bytes(mark.read_bytes()[:100])
    grow()
    mark.unlink()
    grow()
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in tmp_path.glob("events.db*"):
        shutil.copy(file, moved)
    path = str(moved / "events.db")
    grow()


def test_a_mark_that_cannot_be_made_costs_nothing(tmp_path: Path) -> None:
    """The journal works without its mark if a folder has that name."""
    (tmp_path / "events.db-mark").mkdir()
    with closing(SqliteJournal(str(tmp_path / "events.db"))) as journal:
        journal.append(Proposal(EventBatch.single("default", 1, 1.0)))
        assert journal.lost is None


# The whole service


@pytest.mark.parametrize("start", [bytes(4096), b"%PDF-1.7\n" + bytes(4000)], ids=["zeroed", "another file"])
def test_a_file_that_cannot_be_opened_any_more_ends_no_worker(start: bytes, tmp_path: Path) -> None:
    """A worker that starts then says so to everybody who asks it; the others answer as before, and the server stays."""
    path = tmp_path / "events.db"
    with gunicorn_server(tmp_path, workers=2, env={"STATSAPI_JOURNAL": f"sqlite:///{path}"}) as server:
        for value in range(20):
            assert server.request("POST", "/event", {"timestamp": time.time(), "value": value})[0] == 200
        server.wait_for_journals(2)
        before = server.workers()
        for _ in range(20):
            assert server.request("GET", "/statistics")[1]["count"] == 20
        with path.open("r+b") as file:
            file.write(start)
        os.kill(min(before), signal.SIGKILL)
        server.wait_for_log("Starting without the journal")
        seen = set()

        def both_answer() -> bool:
            status, told = server.request("GET", "/statistics")
            assert told["count"] == 20 if status == 200 else "journal" in told["type"]
            seen.add(status)
            return seen == {200, 503}

        server.wait_until(both_answer, "an answer of each worker")
        assert len(server.workers()) == 2
        assert "Traceback" not in server.log
        assert "failed to boot" not in server.log


def test_a_pipe_in_the_marks_place_holds_nobody(tmp_path: Path) -> None:
    """Nothing is compared and nothing noted, and the journal works."""
    path = tmp_path / "events.db"
    os.mkfifo(f"{path}-mark")
    journal = SqliteJournal(str(path))
    journal.append(Proposal(EventBatch.single("default", 1, 1.0)))
    assert journal.lost is None
    journal.close()


def test_a_link_in_the_marks_place_is_not_followed(tmp_path: Path) -> None:
    """Nothing is compared and nothing noted, and what it leads to is left alone: a file, or none yet."""
    path, other = tmp_path / "events.db", tmp_path / "other"
    os.symlink(other, f"{path}-mark")
    for content in (None, b"somebody's\n"):
        if content is not None:
            other.write_bytes(content)
        with closing(SqliteJournal(str(path))) as journal:
            journal.append(Proposal(EventBatch.single("default", 1, 1.0)))
            assert journal.lost is None
        assert (other.read_bytes() if other.exists() else None) == content
    assert list(engine_of(f"sqlite:///{path}").find_damage()) == []


def test_a_file_of_two_names_is_refused(tmp_path: Path) -> None:
    """Two users of them would each have a -wal and a -shm of their own, and undo each other's records. Who has it open
    goes on, and what only reads reads it. With one name it can be opened again.
    """
    path, other = tmp_path / "events.db", tmp_path / "other.db"
    with closing(SqliteJournal(str(path))) as journal:
        os.link(path, other)
        journal.append(Proposal(EventBatch.single("default", 1, 1.0)))
        for name in (path, other):
            with pytest.raises(JournalRefused, match=r"has another name as well \(a hard link\)"):
                SqliteJournal(str(name))
        assert journal.read(Mark(0, b"")).records == 1
        assert list(engine_of(f"sqlite:///{path}").find_damage()) == []
    other.unlink()
    SqliteJournal(str(path)).close()


def test_a_wal_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The journal and its folder are as they should be, so what is said names the -wal too."""
    path = tmp_path / "events.db"
    SqliteJournal(str(path)).close()
    Path(f"{path}-wal").mkdir()
    with pytest.raises(JournalRefused, match=r"read and write it, its -wal and -shm, and its folder"):
        SqliteJournal(str(path))


def test_a_server_says_what_is_damaged(tmp_path: Path) -> None:
    """Workers that applied the record before it was damaged go on; a server that starts names it, in one line, to
    everybody who asks, and neither ends nor logs a traceback.
    """
    path = tmp_path / "events.db"
    env = {"STATSAPI_JOURNAL": f"sqlite:///{path}"}
    batch = [{"timestamp": "now", "value": value} for value in range(3)]
    with gunicorn_server(tmp_path, workers=1, env=env) as server:
        for _ in range(4):
            assert server.request("POST", "/events", [{**event, "timestamp": time.time()} for event in batch])[0] == 200
        assert server.request("GET", "/statistics")[1]["count"] == 12
        with closing(sqlite3.connect(path)) as other:  # as if the disk had changed it
            other.execute("UPDATE records SET record = zeroblob(length(record)) WHERE seq = 2")
            other.commit()
        assert server.request("POST", "/event", {"timestamp": time.time(), "value": 1})[0] == 200
        assert server.request("GET", "/statistics")[1]["count"] == 13
    with gunicorn_server(tmp_path, workers=1, env=env) as server:
        for method, target, body in (
            ("GET", "/statistics", None),
            ("GET", "/readyz", None),
            ("GET", "/statistics", None),
            ("POST", "/event", {"timestamp": time.time(), "value": 1}),
        ):
            status, problem = server.request(method, target, body)
            assert status == 503
            assert problem["type"] == "urn:statsapi:problem:journal-damaged"
            assert "record 2 is damaged" in problem["detail"]
            assert "journal check" in problem["detail"]
        assert "Traceback" not in server.log
        assert server.request("GET", "/healthz")[0] == 200
