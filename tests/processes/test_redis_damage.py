"""Damage in a Redis journal: flipped bits, zeroed bytes, lost fields are refused with one line, or change nothing."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis

from statsapi.errors import JournalDamaged, JournalRefused, StatsError
from statsapi.journal import (
    START,
    Checkpoint,
    HistoryChanged,
    IdempotencyKey,
    Journal,
    Proposal,
    engine_of,
    open_journal,
)
from statsapi.model import EventBatch, Part
from tests.journal_engines import event, events_of, segments, shared_redis, use_key, values
from tests.programs import redis_binary

RECORDS = 40


@pytest.fixture
def raw() -> Iterator[redis.Redis]:
    """The server, past the journal."""
    client = redis.Redis(port=shared_redis(redis_binary()).port)
    yield client
    client.close()


@pytest.fixture
def name() -> str:
    return "{" + secrets.token_hex(4) + "}"


def open_as(name: str) -> Journal:
    return open_journal(shared_redis(redis_binary()).journal_url(name.strip("{}")))


@pytest.fixture
def journal(name: str) -> Iterator[Journal]:
    journal = open_as(name)
    yield journal
    journal.close()


def flipped(content: bytes, chance: random.Random) -> bytes:
    """One bit flipped, or some bytes zeroed."""
    changed = bytearray(content)
    at = chance.randrange(len(changed))
    if chance.random() < 0.8:
        changed[at] ^= 1 << chance.randrange(8)
    else:
        changed[at : at + 64] = bytes(len(changed[at : at + 64]))
    return bytes(changed)


def rewrite(raw: Any, name: str, entries: list[tuple[bytes, bytes, bytes]]) -> None:
    """Put these entries in the stream's place."""
    raw.delete(name)
    for at, head, payload in entries:
        raw.execute_command("XADD", name, at, head, payload)


def entries_of(raw: Any, name: str) -> list[tuple[bytes, bytes, bytes]]:
    return [(at, *next(iter(fields.items()))) for at, fields in raw.xrange(name)]


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_record_is_never_counted(raw: Any, name: str, journal: Journal, seed: int) -> None:
    """A bit flipped or bytes zeroed in head or payload, at an entry's place or in the meta hash: the values as they
    were, or a refusal in one line; the records before it, read one by one, are right.
    """
    chance = random.Random(seed)
    for number in range(RECORDS // 4):
        journal.append(event(float(number)))
    journal.append(Proposal(EventBatch((Part("batch", np.arange(5000), np.arange(5000) / 8),))))
    right = values(journal)
    entries = entries_of(raw, name)
    at = chance.randrange(len(entries))
    what = chance.choice(["head", "payload", "meta"])
    if what == "meta":
        field = chance.choice(["position", "id", "us", "schema", "born"])
        raw.hset(f"{name}:meta", field, flipped(raw.hget(f"{name}:meta", field), chance))
    else:
        place, head, payload = entries[at]
        entries[at] = (
            (place, flipped(head, chance), payload) if what == "head" else (place, head, flipped(payload, chance))
        )
        rewrite(raw, name, entries)
    reader = open_as(name) if what != "meta" else journal
    expected = right["default"] + right["batch"]
    for _ in range(3):  # nor does it go round in circles
        found, error = read_all(reader)
        assert found == expected[: len(found)]
        if error is None:
            assert found == expected
        else:
            assert "\n" not in str(error)
            if what != "meta":
                assert isinstance(error, JournalDamaged)
                # The one after it names it.
                assert any(f"record {number} at" in str(error) for number in (at + 1, at + 2)), error
    reader.close()


def read_all(reader: Journal) -> tuple[list[float], StatsError | None]:
    """The values record by record, and what ended it."""
    found: list[float] = []
    mark = START
    try:
        while (segment := reader.read(mark, limit_records=1)).records:
            for change in events_of(segment):
                found += change.values.tolist()
            mark = segment.mark
    except StatsError as error:
        return found, error
    return found, None


def test_records_of_different_sizes_are_checked_alike(raw: Any, name: str, journal: Journal) -> None:
    """Few and many in one read, and the one that is named is the one that is wrong."""
    for number in range(RECORDS):
        journal.append(event(float(number)))
    entries = entries_of(raw, name)
    for at in (0, 1, RECORDS // 2, RECORDS - 1):
        place, head, payload = entries[at]
        wrong = list(entries)
        wrong[at] = (place, head, payload[:-1] + bytes([payload[-1] ^ 1]))
        rewrite(raw, name, wrong)
        for limit in (1, 3, RECORDS):
            with pytest.raises(JournalDamaged, match=rf"record {at + 1} at .* \(its checksum does not match\)"):
                segments(open_as(name), limit_records=limit)
    rewrite(raw, name, entries)
    assert values(journal)["default"] == [float(number) for number in range(RECORDS)]


def test_records_that_changed_places_are_noticed(raw: Any, name: str, journal: Journal) -> None:
    """Whole entries, each right in itself: exchanged, or one put in another's place."""
    for number in range(RECORDS):
        journal.append(event(float(number)))
    entries = entries_of(raw, name)
    for first, second in ((3, 4), (0, RECORDS - 1)):
        wrong = list(entries)
        wrong[first] = (entries[first][0], *entries[second][1:])
        for third in (entries[second], (entries[second][0], *entries[first][1:])):
            wrong[second] = third
            rewrite(raw, name, wrong)
            with pytest.raises(
                JournalDamaged, match=r"\((it (does not follow the one before|is not the one)|its checksum)"
            ):
                segments(open_as(name))


def test_records_of_an_older_version_are_read(raw: Any, name: str, journal: Journal) -> None:
    """They have no checksums: among others that have, few and many."""
    for records in (3, RECORDS):
        for number in range(records):
            journal.append(event(float(number)))
        entries = entries_of(raw, name)
        old = [(at, head[:36] if number % 3 else head, payload) for number, (at, head, payload) in enumerate(entries)]
        right = values(journal)
        rewrite(raw, name, old)
        assert values(open_as(name)) == right
        rewrite(raw, name, [(at, head[:36], payload) for at, head, payload in entries])
        assert values(open_as(name)) == right


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_checkpoint_is_refused(raw: Any, name: str, journal: Journal, seed: int) -> None:
    """Its state, a piece, a piece's name, a piece that is missing or added, or its mark in the meta hash."""
    chance = random.Random(seed)
    mark = [journal.append(event(float(number))).mark for number in range(4)][1]
    assert mark is not None
    pieces = {number: secrets.token_bytes(100) for number in range(5)}
    right = Checkpoint(b"c" * 16, mark, 0, secrets.token_bytes(200))
    assert journal.replace_prefix(None, right, pieces)
    names = raw.zrange(f"{name}:pieces", 0, -1)
    whole = journal.read_checkpoint()
    what = chance.choice(["state", "piece", "name", "missing", "added", "cp", "cp_id", "cp_us", "cp_check"])
    if what in ("state", "piece"):
        key = (
            f"{name}:state:{right.id.hex()}".encode()
            if what == "state"
            else name.encode() + b":piece:" + chance.choice(names)
        )
        raw.lset(key, 0, flipped(raw.lindex(key, 0), chance))
    elif what == "name":
        old = chance.choice(names)
        new = old[:-1] + str((int(old[-1:]) + 1) % 10).encode()
        raw.zadd(f"{name}:pieces", {new: raw.zscore(f"{name}:pieces", old)})
        raw.zrem(f"{name}:pieces", old)
    elif what == "missing":
        raw.zrem(f"{name}:pieces", chance.choice(names))
    elif what == "added":
        raw.zadd(f"{name}:pieces", {b"9:00:1:1": 9})
    else:
        raw.hset(f"{name}:meta", what, flipped(raw.hget(f"{name}:meta", what), chance))
    with pytest.raises((JournalRefused, HistoryChanged)) as caught:
        read_checkpoint(name, whole, pieces)
    assert "\n" not in str(caught.value)


def read_checkpoint(name: str, whole: Checkpoint | None, pieces: dict[int, bytes]) -> None:
    with contextlib.closing(open_as(name)) as reader:
        assert reader.read_checkpoint() == whole
        assert dict(reader.read_pieces(b"c" * 16, 0, 9)) == pieces


def test_a_damaged_answer_is_not_given(raw: Any, name: str, journal: Journal) -> None:
    """What is kept under an Idempotency-Key: whichever bit was flipped, no retry is answered wrongly, nor recorded."""
    key = IdempotencyKey(b"name", b"digest", 3_600_000_000)
    journal.append(event()._replace(answer=b"the first answer"), key=key)
    kept = raw.get(f"{name}:key:name")
    for bit in range(8 * len(kept)):
        changed = bytearray(kept)
        changed[bit // 8] ^= 1 << bit % 8
        raw.set(f"{name}:key:name", bytes(changed))
        for call in (lambda: journal.find_answer(key), lambda: journal.append(event(2.0), key=key)):
            with pytest.raises(JournalRefused):
                call()
    raw.set(f"{name}:key:name", kept)
    assert journal.append(event(2.0), key=key).answer == b"the first answer"
    assert values(journal) == {"default": [1.0]}
    old: Any = kept[:8] + len(key.digest).to_bytes(4, "little") + kept[24:]  # as an older version kept it
    raw.set(f"{name}:key:name", old)
    assert journal.find_answer(key) == b"the first answer"


@pytest.mark.parametrize("keyed", ["find", "append", "decide"])
def test_a_key_that_went_missing_is_noticed(raw: Any, name: str, journal: Journal, keyed: str) -> None:
    """Its name stands among those by expiry too: a retry under it is refused, and not recorded again."""
    key = IdempotencyKey(b"k1", b"d", 10**12)
    journal.append(event()._replace(answer=b"first"), key=key)
    url = shared_redis(redis_binary()).journal_url(name.strip("{}"))
    assert list(engine_of(url).find_damage()) == []
    raw.rename(f"{name}:key:k1", f"{name}:key:k0")
    with pytest.raises(JournalDamaged):
        use_key(journal, key, keyed)
    assert len(values(journal)["default"]) == 1
    assert len(list(engine_of(url).find_damage())) == 1


def test_the_check_finds_damaged_answers(raw: Any, name: str, journal: Journal) -> None:
    """`statsapi journal check` reads all kept answers: any flipped bit of any shows."""
    for number in range(5):
        journal.append(event()._replace(answer=b"first"), key=IdempotencyKey(b"k%d" % number, b"d", 10**12))
    url = shared_redis(redis_binary()).journal_url(name.strip("{}"))
    whole = raw.get(f"{name}:key:k3")
    chance = random.Random(3)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << chance.randrange(7)  # the highest bit of the length says that there is a checksum
        raw.set(f"{name}:key:k3", bytes(changed))
        assert len(list(engine_of(url).find_damage())) == 1, at
    raw.set(f"{name}:key:k3", whole)
    assert list(engine_of(url).find_damage()) == []


def test_a_key_beside_a_damaged_one_is_taken(raw: Any, name: str, journal: Journal) -> None:
    """Only what was recorded under the damaged key is refused, whether its answer or its name was changed."""
    keys = [IdempotencyKey(b"k%d" % number, b"d", 10**12) for number in range(4)]
    for key in keys[:2]:
        use_key(journal, key, "append")
    whole = raw.get(f"{name}:key:k0")
    raw.set(f"{name}:key:k0", whole[:-1] + bytes([whole[-1] ^ 1]))
    raw.rename(f"{name}:key:k1", f"{name}:key:k5")
    for key in keys[2:] * 2:
        use_key(journal, key, "append")
    for key in keys[:2]:
        with pytest.raises(JournalDamaged):
            use_key(journal, key, "append")
    assert len(values(journal)["default"]) == 4


def test_a_key_is_not_forgotten_by_a_changed_list(raw: Any, name: str, journal: Journal) -> None:
    """Where the list by expiry and what stands beside the answer disagree, the latter is proven by its checksum."""
    key = IdempotencyKey(b"k", b"d", 10**12)
    done = journal.append(event()._replace(answer=b"first"), key=key)
    right = raw.zscore(f"{name}:keys", "k")
    raw.zadd(f"{name}:keys", {"k": 5})
    journal.maintain()
    assert journal.find_answer(key) == b"first"
    assert raw.zscore(f"{name}:keys", "k") == right
    journal.settled_us = lambda: done.appended_us + 2 * 10**12
    journal.maintain()
    assert raw.exists(f"{name}:key:k", f"{name}:keys") == 0
