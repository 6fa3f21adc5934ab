"""Line protocol for `statsapi import`: splits a file into points, and reads the service's answer to a piece of them.

Pieces go to the endpoint of InfluxDB 3, as its answer lists each refused line in JSON. It stores the other lines, and
gives the same answer again under the same Idempotency-Key.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from statsapi.cli import failures

if TYPE_CHECKING:
    from statsapi.client import Client

_TYPE: Final = "text/plain"
_STRING_BYTES: Final = 64 * 1024  # the longest event that the service takes
_NAMED_MAX: Final = 100  # the service names this many refused lines

_SERIES: Final = re.compile(rb"(?:\\.|[^ \t\\])*", re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\.", re.DOTALL)
_OF_THE_PIECE: Final = re.compile(r"^Line \d+ of the body ")
_MORE: Final = re.compile(r"\nand (\d+) more lines\Z")


class Open(bytes):
    """A row whose string or quote is still open where the file ends: more may come."""


def points(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The points: a string may join several lines into one. A string that is never closed spoils its own line only."""
    ahead: deque[bytes] = deque()
    source = iter(lines)

    def following() -> bytes:
        return ahead.popleft() if ahead else next(source, b"")

    while line := following():
        if b'"' not in line or line.lstrip().startswith(b"#"):
            yield line
            continue
        series = _SERIES.match(line)
        is_open = _toggles(line[series.end() :] if series else line)
        row, size = [line], len(line)
        while is_open and size <= _STRING_BYTES and (more := following()):
            row.append(more)
            size += len(more)
            is_open ^= _toggles(more)
        if is_open:
            ahead.extendleft(reversed(row[1:]))
            yield line if size > _STRING_BYTES else Open(line)
        else:
            yield b"".join(row)


def _toggles(text: bytes) -> bool:
    """Whether the text holds an odd number of quotes, so that it opens a string or closes an open one."""
    return b'"' in text and _ESCAPED.sub(b"", text).count(b'"') % 2 == 1


def post(client: Client, body: bytes, key: str | None, dedup: dict[str, str]) -> dict[str, Any]:
    """Record a piece. The answer is as that of POST /events: `stored`, `duplicates`, `rejected` and `errors`, by line.

    Raises Refused with status 400 where the piece as a whole cannot be read, and with 413 where it is too much.
    """
    from statsapi.client import Refused

    try:
        reply = client.exchange(
            "/api/v3/write_lp", body, _TYPE, idempotency_key=key, db="import", precision="ns", **dedup
        )
    except Refused as error:
        told = _told(error.body)
        if error.status != 400 or "data" not in told:
            if "error" in told and error.status not in (400, 413):
                raise failures.Failed(str(told["error"])) from None
            raise
        headers = error.headers
        errors = [{"line": bad["line_number"], "reason": bad["error_message"]} for bad in told["data"]]
        rejected = len({each["line"] for each in errors})
        if rejected >= _NAMED_MAX:
            rejected += _refused_besides(client, body)
    else:
        headers, errors, rejected = reply.headers, [], 0
    return {
        "stored": int(headers.get("X-Statsapi-Stored", 0)),
        "duplicates": int(headers.get("X-Statsapi-Duplicates", 0)),
        "rejected": rejected,
        "errors": errors,
        "message": headers.get("X-Statsapi-Message", ""),
        "replayed": "Idempotent-Replayed" in headers,
    }


def reason_of(error: Exception) -> str:
    """Why a piece of one line cannot be read, without the line's number in the piece."""
    said = _told(getattr(error, "body", b"")).get("error") or str(error)
    return _OF_THE_PIECE.sub("", str(said))


def _refused_besides(client: Client, body: bytes) -> int:
    """How many refused lines an answer does not list. It asks for all or nothing, which records nothing here, as some
    lines are faulty.
    """
    from statsapi.client import Refused

    try:
        client.exchange("/write", body, _TYPE, precision="ns", accept_partial="false")
    except Refused as error:
        if (more := _MORE.search(str(_told(error.body).get("error", "")))) is not None:
            return int(more[1])
    return 0


def _told(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
