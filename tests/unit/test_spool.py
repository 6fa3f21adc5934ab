"""The spool: what a directory is worth that processes share."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from statsapi.client import SpoolError
from statsapi.client.spool import Spool
from statsapi.client.spool_file import SpoolBatch
from statsapi.client.spool_format import encode_head

KEY = "0123456789abcdef0123456789abcdef"


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """It is reported, and neither sent nor removed. Its lock stays free for a version that can read it."""
    owner = f"{1:020d}-0123abcd"
    path = tmp_path / f"{owner}-00000001-{KEY}.events"
    path.write_bytes(encode_head(2) + b"whatever\n")
    spool = Spool(tmp_path, 5)
    assert (spool.adopted, spool.head()) == (0, None)
    ((said, lost),) = spool.damaged
    assert "is left where it is: it is of version 2, and this client reads 1" in said
    assert lost == 0
    spool.close()
    assert path.read_bytes().endswith(b"whatever\n")
    assert {each.name for each in tmp_path.iterdir()} == {path.name, f"{owner}.lock"}


def lines_of(batch: SpoolBatch | None) -> list[bytes]:
    assert batch is not None
    return batch.lines()


def add(spool: Spool, *texts: str) -> None:
    spool.sync(spool.add(texts, 1))


def test_a_directory_is_shared(tmp_path: Path) -> None:
    """Two senders at once see only their own; what one leaves, the other takes over when it looks."""
    one, other = Spool(tmp_path, 1), Spool(tmp_path, 2)
    add(one, "1", "2")
    add(other, "3")
    assert (one.adopt(), other.adopt()) == (0, 0)
    one.close()
    assert other.adopt() == 2
    assert lines_of(other.head()) == [b"1", b"2"]
    other.close()
    third = Spool(tmp_path, 3)
    assert third.adopted == 3
    for _ in range(2):
        batch = third.head()
        assert batch is not None
        third.begin(batch, 9)
        third.finish(batch)
    third.close()
    assert list(tmp_path.iterdir()) == []


def test_an_attempt_of_unknown_outcome_is_remembered(tmp_path: Path) -> None:
    """The sender that takes the file over knows of the attempt. An attempt that recorded nothing is forgotten; that a
    piece was halved is not.
    """
    spool = Spool(tmp_path, 1)
    add(spool, "1", "2")
    spool.seal()
    batch = spool.head()
    assert batch is not None
    spool.begin(batch, 77)
    spool.split(batch, "")
    spool.close()
    spool = Spool(tmp_path, 2)
    batch = spool.head()
    assert batch is not None
    assert (batch.tried_us, batch.split, batch.key) == (77, frozenset({""}), batch.path.name[39:71])
    spool.clear(batch)
    spool.close()
    batch = (spool := Spool(tmp_path, 3)).head()
    assert batch is not None
    assert (batch.tried_us, batch.split) == (None, frozenset({""}))
    spool.close()


def test_a_damaged_file_is_sent_and_kept_to_be_looked_at(tmp_path: Path) -> None:
    """With what is wrong beside it; what was written behind the damage is read."""
    spool = Spool(tmp_path, 1)
    for text in ("1", "2", "3"):
        add(spool, text)
    spool.close()
    (path,) = tmp_path.glob("*.events")
    content = path.read_bytes()
    second = content.splitlines(keepends=True)[2]
    path.write_bytes(content.replace(second, b"#" + second[1:])[:-1])
    spool = Spool(tmp_path, 2)
    ((said, lost),) = spool.damaged
    assert "1 of its lines is not what was written, and 1 events of 3 cannot be read" in said
    assert lost == 1
    batch = spool.head()
    assert lines_of(batch) == [b"1", b"3"]
    assert batch is not None
    spool.begin(batch, 5)  # writes behind what is there
    assert lines_of(batch) == [b"1", b"3"]
    spool.finish(batch)
    spool.close()
    aside = sorted(each.name for each in (tmp_path / "aside").iterdir())
    assert aside == [path.name, f"{path.name}.why.json"]


@pytest.mark.parametrize("call", ["write", "fdatasync", "open"])
def test_a_full_disk_takes_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The event is refused as not taken; those before it are there, and once there is room it goes on."""
    spool = Spool(tmp_path, 1)
    add(spool, "1")
    if call == "open":
        spool.seal()
    real = getattr(os, call)

    def full(*args: Any) -> Any:
        if call == "write" and args[1].startswith(b"statsapi-spool"):
            return real(*args)
        if call == "write":
            real(args[0], args[1][: len(args[1]) // 2])  # a piece of it got there
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(SpoolError, match=r"cannot be written, the event was not taken: .*No space left"):
            add(spool, "2")
    add(spool, "3")
    spool.seal()
    seen: list[bytes] = []
    while (batch := spool.head()) is not None:
        spool.begin(batch, 5)
        seen += batch.lines()
        spool.finish(batch)
    assert seen == [b"1", b"3"]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_is_said(tmp_path: Path) -> None:
    """A file in its place, and one that cannot be listed."""
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="cannot be used"):
        Spool(tmp_path / "file", 1)
    spool = Spool(tmp_path / "made", 1)
    (tmp_path / "made").rename(tmp_path / "elsewhere")
    with pytest.raises(SpoolError, match="cannot be read"):
        spool.adopt()
    spool.close()
