"""FILE.refused.ndjson: the rows of a file that were refused, each with its line and the reason."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from typing import IO, Any

from statsapi.cli import failures
from statsapi.cli.import_mapping import with_options
from statsapi.cli.import_pieces import Piece


class RefusedRows:
    """The refused rows of one import. The file is made when there is a first one, and close() ends it."""

    def __init__(self, file: str, name: str, *, is_json: bool) -> None:
        """name: how messages call the file. is_json: whether it is one document, whose items have no lines."""
        self._file = file
        self._name = name
        self._is_json = is_json
        self._place = f"{'standard-input' if file == '-' else file}.refused.ndjson"
        self._written: IO[str] | None = None

    def add(self, piece: Piece, errors: list[dict[str, Any]], rejected: int) -> None:
        """Write down the `rejected` rows of a piece, of which the service named those in `errors`."""
        if not rejected:
            return
        if self._written is None:
            self._written = open(self._place, "w")  # noqa: SIM115 (closed by `close`)
            columns = f"; jq -c '.[]' {shlex.quote(self._file)} makes NDJSON, whose columns can be named by options"
            failures.say(f"{self._name}: rows are refused, see {self._place}{columns if self._is_json else ''}")
        rows = piece.body.split(b"\n")
        for error in ({**each, "reason": with_options(each["reason"])} for each in errors):
            if self._is_json:
                self._written.write(json.dumps(error) + "\n")
                continue
            at = error.get("line", 1) - 1 - piece.header.count(b"\n")
            row = rows[at].decode(errors="replace").rstrip("\r") if 0 <= at < len(rows) else ""
            self._written.write(json.dumps({**error, "line": piece.first_line + at, "row": row}) + "\n")
        if rejected > len(errors):
            last = piece.first_line + piece.lines - 1
            more = f"{rejected - len(errors):,} more rows of lines {piece.first_line} to {last} are refused"
            self._written.write(json.dumps({"reason": more}) + "\n")

    def remove_old(self) -> None:
        """Remove the file of an earlier import, unless this one has refused rows of its own."""
        if self._written is None:
            with contextlib.suppress(OSError):
                os.unlink(self._place)

    def close(self) -> None:
        """End the file, where there is one."""
        if self._written is not None:
            self._written.close()
