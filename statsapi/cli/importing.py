"""`statsapi import`: records files of events as they are, and each row once.

A dry run of the file's beginning finds out how to read it (import_mapping.py). The file is sent in pieces
(import_pieces.py), and the rows that the service refuses are kept in another (import_refused.py).

The Idempotency-Key of a piece is made from how it is read, its place and its content. So the same import again sends
the same pieces under the same keys, and none counts twice while the service remembers the keys
(STATSAPI_IDEMPOTENCY_TTL, a day). Pieces that it had recorded before are reported as such.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import click

from statsapi.cli import failures, import_ends, import_lines, output
from statsapi.cli.connection import Connection, asks_service
from statsapi.cli.import_mapping import Mapping, takes_mapping, with_options
from statsapi.cli.import_packing import opened, packing_errors, packing_of
from statsapi.cli.import_pieces import LINE_BYTES, PIECE_BYTES, PIECE_ROWS, Cutter, Piece, is_finished, lines_of
from statsapi.cli.import_refused import RefusedRows

if TYPE_CHECKING:
    from statsapi.client import Client

_HEAD_ROWS: Final = 1_000
_UNREADABLE_MAX: Final = 1_000  # unreadable lines found by halving; in a file of another kind every line is unreadable
_TOLD_EVERY_S: Final = 5.0
_REASONS_SHOWN: Final = 5  # of a dry run

_TYPES: Final = {"csv": "text/csv", "ndjson": "application/x-ndjson", "json": "application/json", "lines": "text/plain"}
_ENDINGS: Final = {
    "csv": (".csv", ".tsv", ".txt"),
    "ndjson": (".ndjson", ".jsonl"),
    "json": (".json",),
    "lines": (".lp", ".influx"),
}


class Sums(NamedTuple):
    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    expired: int = 0
    rejected: int = 0
    known: int = 0  # rows of pieces that had been recorded before

    def plus(self, rows: int, answer: dict[str, Any]) -> Sums:
        if answer.get("replayed"):
            rejected = answer.get("rejected", 0)
            expired = answer.get("expired", 0)
            kept = answer.get("stored", 0) + answer.get("duplicates", 0)
            known = rows - rejected  # in rows, which may hold several events each
            if expired:
                known = known * kept // (kept + expired)
            return self._replace(
                rows=self.rows + rows,
                rejected=self.rejected + rejected,
                expired=self.expired + expired,
                known=self.known + known,
            )
        names = ("stored", "duplicates", "expired", "rejected")
        counts = {name: getattr(self, name) + answer.get(name, 0) for name in names}
        return self._replace(rows=self.rows + rows, **counts)


@click.command(
    "import",
    short_help="Record files: CSV, NDJSON, JSON, line protocol.",
    epilog="Example: statsapi import measured.csv --timezone Europe/Berlin",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE… | -")
@click.option("--form", type=click.Choice(list(_TYPES)), help="Read files in this form (default: by their names).")
@click.option("--dry-run", is_flag=True, help="Read the beginning, show how it would be read, and record nothing.")
@click.option("--yes", is_flag=True, help="Accept the service's proposal without asking.")
@click.option("--rebase", is_flag=True, help="Move all times by the same amount, so that the last event is now.")
@click.option("--growing", is_flag=True, help="Leave an unfinished last line to the next import.")
@click.option("--dedup", is_flag=True, help="Leave out events that the service already holds.")
@click.option(
    "--run",
    metavar="NAME",
    default="",
    help="Name this import. Under a new name, rows recorded before are recorded again.",
)
@takes_mapping
@asks_service
def import_files(service: Connection, files: tuple[str, ...], no_header: bool, form: str | None, dry_run: bool,
                 yes: bool, rebase: bool, growing: bool, dedup: bool, run: str,
                 **mapping: str | None) -> int:  # fmt: skip
    """Record the events of FILEs, packed (gzip, zstd) or not, or of standard input.

    Columns, delimiter and forms that are not given are proposed by the service and shown; on a terminal it asks whether
    they are right, else --yes is needed. An import that broke off, or whose file has grown, is simply started again:
    what was recorded counts once. Rows that are refused go into FILE.refused.ndjson, with the reason, and the exit
    status is 1.
    """
    given = {name: value for name, value in mapping.items() if value is not None}
    if no_header:
        given["header"] = "false"
    with service.client() as client:
        client.ask("/")  # is anybody there? Later it is waited for
    with service.client(give_up_after_s=60.0) as client:

        def import_one(file: str) -> int:
            make = partial(_Import, client, file, form=_form_of(file, form), given=given, dedup=dedup,
                           growing=growing, run=run)  # fmt: skip
            shift_us = 0
            if rebase:
                with _named(file), opened(file) as content:
                    shift_us = make(content).shift_to_now_us(yes=yes, dry_run=dry_run)
            with _named(file), opened(file) as content:
                one = make(content, shift_us=shift_us)
                sums = one.run(dry_run=dry_run, yes=yes)
            if service.as_json:
                output.show_json({"file": file, **sums._asdict(), "read_as": one.mapping.query})
            else:
                _show_sums(file, sums, dry_run=dry_run)
            return failures.NOT_DONE if sums.rejected else 0

        return import_one(files[0]) if len(files) == 1 else _each(files, import_one)


def _each(files: tuple[str, ...], import_one: Callable[[str], int]) -> int:
    """Import each file. A fault of one file is reported, and the others go on. A fault that all files would have ends
    the import, with the names of the files that were not tried.
    """
    status = 0
    for number, file in enumerate(files, 1):
        try:
            found = import_one(file)
        except BaseException as error:
            if isinstance(error, click.UsageError) and error.ctx is None:
                error.ctx = click.get_current_context()
            told = failures.told(error) if isinstance(error, Exception) else None
            if isinstance(error, OSError) and error.filename == file:
                told = failures.Told(failures.NOT_DONE, [f"statsapi: {failures.of_os(error)}"])
            if told is None or told.status not in (failures.NOT_DONE, failures.USAGE):
                if left := files[number:]:
                    failures.say(f"statsapi: not tried: {', '.join(map(_shown, left))}")
                raise
            for line in told.lines:
                failures.say(line)
            found = told.status
        status = status or found
    return status


def _show_sums(file: str, sums: Sums, *, dry_run: bool) -> None:
    told = [f"{sums.stored:,} {'would be recorded, less what had been before' if dry_run else 'recorded'}"]
    names = ("duplicates", "expired", "rejected")
    told += [f"{count:,} {name}" for name, count in sums._asdict().items() if count and name in names]
    if sums.known:
        told.append(f"{sums.known:,} had been recorded before (--run NAME records them again)")
    rows = f"{sums.rows:,} row{'' if sums.rows == 1 else 's'}{' looked at' if dry_run else ''}"
    click.echo(f"{_shown(file)}: {rows}: {', '.join(told)}")


def _shown(file: str) -> str:
    """The name without terminal control codes."""
    return file if file.isprintable() else repr(file)


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """Report refusals with the file's name, and with our options instead of the service's parameters."""
    from statsapi.client import Refused

    try:
        with failures.of_arguments():
            yield
    except Refused as error:
        told = failures.told(error)
        if told is None:
            raise
        line = told.lines[0].removeprefix("statsapi: ")
        raise failures.Failed(f"{_shown(file)}: {with_options(line)}", told.status) from None


def _form_of(file: str, given: str | None) -> str:
    if os.path.isdir(file):
        raise click.UsageError(f"{file}: is a folder: name its files, as {os.path.join(file, '*.csv')}")
    if given is not None:
        return given
    endings = [ending.lower() for ending in Path(file).suffixes]
    if endings and endings[-1] in (".gz", ".zst"):
        endings.pop()
    for form, known in _ENDINGS.items():
        if file != "-" and endings and endings[-1] in known:
            return form
    raise click.UsageError(f"{file}: give --form csv, ndjson, json or lines, as its name does not tell")


class _Import:
    """The import of one file. `mapping` says how it is read, `sums` counts its rows so far."""

    def __init__(
        self,
        client: Client,
        file: str,
        content: IO[bytes],
        *,
        form: str,
        given: dict[str, str],
        growing: bool,
        dedup: bool,
        run: str,
        shift_us: int = 0,
    ) -> None:
        if given and form not in ("csv", "ndjson"):
            raise click.UsageError(f"{file}: columns are for CSV and NDJSON, not for {form}")
        self._client = client
        self._file = file
        self._name = _shown(file)
        self._form = form
        self._run = run
        self._is_growing = growing
        self._remembers = file != "-" and form != "json"
        self.sums = Sums()
        self._content = content
        self._beside = {"dedup": "true"} if dedup else {}  # parameters that say nothing of how the file is read
        if shift_us:
            self._beside["shift"] = f"{shift_us}us"
        self.mapping = Mapping(self._name, given)
        self._refused = RefusedRows(file, self._name, is_json=form == "json")
        self._unreadable = 0
        self._is_head_all = True  # whether the rows that are looked at first are all there are

    def shift_to_now_us(self, *, yes: bool, dry_run: bool) -> int:
        """By how much the file's last event lies before now, or lay at its first import. The service reads the whole
        file for it, and records nothing.
        """
        if self._file == "-" or self._form == "lines":
            raise click.UsageError("--rebase reads a file twice, and is for CSV, NDJSON and JSON")
        now, last, begin = datetime.now(UTC), "", b""
        with self._whole():
            for piece in self._begin(yes=yes or dry_run)[1]:
                if not begin:
                    begin = piece.header + (
                        piece.body if self._form == "json" else piece.body.split(b"\n", 1)[0].rstrip(b"\r")
                    )
                    which = f"{self._which()}\0{hashlib.sha256(begin).hexdigest()}"
                    if (shift_us := import_ends.moved_by_us(self._file, which)) is not None:
                        failures.say(f"{self._name}: its times are moved as at its first import (--run NAME: to now)")
                        return shift_us
                seen = self._post(piece.header + piece.body, None, dry_run="true", partial="true")
                last = max(last, seen["last"] or "")
        if not last:
            return 0
        shift_us = (now - datetime.fromisoformat(last)) // timedelta(microseconds=1)
        if not dry_run:
            import_ends.remember_move(self._file, which, shift_us)
        return shift_us

    def run(self, *, dry_run: bool, yes: bool) -> Sums:
        """Record the file, or with `dry_run` look at its beginning."""
        if dry_run and self._form == "lines":
            raise click.UsageError("--dry-run is for CSV, NDJSON and JSON")
        try:
            with self._whole():
                seen, pieces = self._begin(yes=yes or dry_run)
                if dry_run:
                    for error in seen.get("errors", [])[:_REASONS_SHOWN]:
                        failures.say(f"{self._name}: {_place(error)}{with_options(error['reason'])}")
                    return Sums().plus(seen.get("rows", 0), seen)
                sums = self._send(pieces)
                self._refused.remove_old()
                return sums
        finally:
            self._refused.close()

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except packing_errors() as error:
            raise failures.Failed(
                f"{self._name}: is no whole {packing_of(self._content)} file: {error}; what came before was recorded, "
                f"{self.sums.stored:,} events"
            ) from None

    def _begin(self, *, yes: bool) -> tuple[dict[str, Any], Iterator[Piece]]:
        lines: Iterator[bytes] = iter(())
        if self._form == "json":
            head = rows = [self._content.read(LINE_BYTES + 1)]
            if len(head[0]) > LINE_BYTES:
                raise failures.Failed(f"{self._name}: more than 16 MiB of JSON: jq -c '.[]' makes NDJSON of an array")
        else:
            # The delimiter is not known yet. Once it is, the file is cut again.
            first = Cutter(self._form)
            lines = first.points(lines_of(self._name, self._content))
            head = []
            rows = list(first.rows(_noted(lines, head), _HEAD_ROWS))
            self._is_head_all = len(rows) < _HEAD_ROWS and sum(map(len, rows)) < PIECE_BYTES
            if (
                rows
                and not is_finished(rows[-1])
                and (self._is_growing or (rows[-1].endswith(b"\n") and len(rows) > 2))
            ):
                rows.pop()  # the last row goes on behind what has been read, or its end has not been written yet
        begin = b"".join(rows)
        if not begin.strip():
            return {}, iter(())
        seen: dict[str, Any] = {}
        if self._form != "lines":
            seen = self._look(begin, yes=yes)
        query = self.mapping.parameters()
        delimiter = query.get("delimiter", ",")
        self._cutter = Cutter(self._form, {"tab": "\t", "space": " "}.get(delimiter, delimiter))
        headers = int(query.get("skip", 0)) + (query.get("header") != "false") if self._form == "csv" else 0
        self._unfinished = import_ends.UnfinishedRows(self._file, f"{self._which()}\0{self._beside}")
        ends = import_ends.remembered(self._file) if self._remembers else []
        return seen, self._cutter.pieces(itertools.chain(head, lines), headers, ends)

    def _look(self, head: bytes, *, yes: bool) -> dict[str, Any]:
        """Do a dry run of the beginning. Where the service proposes how to read it, use that if the user agrees."""
        from statsapi.client import Refused

        refused: Refused | None = None
        try:
            seen = self._post(head, None, dry_run="true", partial="true")
            refusal = _why_none_is_read(seen)
        except Refused as error:
            refused, refusal = error, str(error)
        advice = self.mapping.complete(refusal)
        if advice is not None:
            seen = self._post(head, None, dry_run="true", partial="true")
            self._show_guess(seen, advice)
            if not yes:
                self._confirm()
        elif refused is not None:
            raise refused
        return seen

    def _show_guess(self, seen: dict[str, Any], advice: str) -> None:
        failures.say(f"{self._name}: read with {self.mapping.options()}")
        where = "" if self._is_head_all else " in the first rows"
        for each in seen["series"][:5]:
            failures.say(f"  {each['name']}: {each['events']:,} events{where}, {each['first']} to {each['last']}")
        if advice:
            failures.say(f"  {advice.replace('&timezone=', '--timezone ')}")

    def _confirm(self) -> None:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{self._name}: how it is read was guessed: add --yes, or the options above")
        click.confirm("Is that right?", abort=True, err=True)

    def _send(self, pieces: Iterator[Piece]) -> Sums:
        told_s, began_s = time.monotonic(), time.monotonic()
        told = set[str]()
        size = os.path.getsize(self._file) if self._file != "-" else 0
        with _progress(self._file, size) as advance:
            for piece, answer in itertools.chain.from_iterable(
                itertools.starmap(self._taken, self._remembered(pieces))
            ):
                before = self.sums.rows
                sums = self.sums = self.sums.plus(self._rows_of(piece, answer), answer)
                self._refused.add(piece, answer.get("errors", []), answer.get("rejected", 0))
                self._tell(answer.get("message", ""), told, before, sums.rows)
                advance(self._content, sums.rows)
                if time.monotonic() - told_s > _TOLD_EVERY_S and not sys.stderr.isatty():
                    told_s = time.monotonic()
                    failures.say(f"{self._name}: {sums.rows:,} rows, {sums.rows / (told_s - began_s):,.0f} a second")
        return self.sums

    def _remembered(self, pieces: Iterator[Piece]) -> Iterator[tuple[int, Piece]]:
        """The pieces, each with the number of rows up to its end. Where the file ends now is remembered before they are
        sent.
        """
        rows = 0
        ends = import_ends.remembered(self._file) if self._remembers else []
        for piece in pieces:
            if self._is_growing and not piece.is_finished:
                failures.say(f"{self._name}: line {piece.first_line:,} is not finished, and left for the next time")
                return
            rows += piece.rows
            if self._remembers and piece.rows < PIECE_ROWS and len(piece.body) < PIECE_BYTES:
                import_ends.remember(self._file, rows)
            yield rows, piece
        if ends and rows < ends[-1]:
            failures.say(
                f"{self._name}: at an earlier import it had {ends[-1]:,} rows, and now {rows:,}: if it was cut or "
                "changed, rows of it may count again"
            )

    def _rows_of(self, piece: Piece, answer: dict[str, Any]) -> int:
        """The number of rows in a piece; for JSON only the service knows it."""
        names = ("stored", "duplicates", "expired", "rejected")
        return piece.rows - piece.blank if self._form != "json" else sum(answer.get(name, 0) for name in names)

    def _tell(self, message: str, told: set[str], before: int, rows: int) -> None:
        """Show the service's notes about the events of a piece: each kind (outside the window, expired) once."""
        kind = "expired" if "(expired)" in message else "elsewhere"
        if message and kind not in told:
            told.add(kind)
            failures.say(f"{self._name}: rows {before + 1:,} to {rows:,}: {with_options(message)}")

    def _taken(self, row: int, piece: Piece) -> Iterator[tuple[Piece, dict[str, Any]]]:
        """The piece with what became of it. row: the number of its last row. A row that an earlier import found without
        its end, and that has become longer, is refused: recorded once more it would count twice.
        """
        if piece.rows == 1 and self._remembers and self._unfinished.have_begun(row, piece.body):
            reason = (
                "was recorded as it was when an import found it without a line end, and has become longer: it is not "
                "recorded once more. --growing leaves such a line for the next import; to have this one right, delete "
                "the series and import the file with --run NAME"
            )
            yield piece, {"rejected": 1, "errors": [{"line": 1 + piece.header.count(b"\n"), "reason": reason}]}
            return
        if piece.is_finished or not self._remembers:
            yield from self._recorded(piece)
            return
        self._unfinished.add(row, piece.body)
        for part, answer in self._recorded(piece):
            if not answer.get("stored") and not answer.get("duplicates"):
                self._unfinished.remove(row)
            yield part, answer

    def _recorded(self, piece: Piece) -> Iterator[tuple[Piece, dict[str, Any]]]:
        """The piece with what became of it. A piece that is too large goes in halves, and so does line protocol that
        cannot be read as a whole, until the line at fault is alone. Of a piece that is halved nothing was recorded.
        """
        from statsapi.client import Refused

        try:
            answer = self._post(piece.header + piece.body, self._key(piece), partial="true")
        except Refused as error:
            unreadable = self._form == "lines" and error.status == 400
            halves = piece.halves(self._cutter) if unreadable or error.status == 413 else []
            if self._form == "csv" and not piece.is_finished and error.status in (400, 422):
                reason = "has a quote that is never closed"
                yield piece, {"rejected": 1, "errors": [{"line": 1 + piece.header.count(b"\n"), "reason": reason}]}
                return
            if not halves and not unreadable:
                raise
            if not halves:
                self._count_unreadable(piece)
                refused = {"line": 1, "reason": import_lines.reason_of(error)}
                yield piece, {"rejected": 1, "errors": [refused]}
        else:
            yield piece, answer
            return
        for half in halves:
            yield from self._recorded(half)

    def _count_unreadable(self, piece: Piece) -> None:
        self._unreadable += 1
        if self._unreadable > _UNREADABLE_MAX:
            raise failures.Failed(
                f"{self._name}: more than {_UNREADABLE_MAX:,} lines up to line {piece.first_line:,} cannot be read: "
                "is it line protocol, in UTF-8?"
            )

    def _post(self, body: bytes, key: str | None, **query: str) -> dict[str, Any]:
        from statsapi.client.http import decode

        if self._form == "lines":
            return import_lines.post(self._client, body, key, self._beside)
        asked = self.mapping.parameters() | self._beside | query
        reply = self._client.exchange("/events", body, _TYPES[self._form], idempotency_key=key, **asked)
        return {**decode(self._client.url, reply), "replayed": "Idempotent-Replayed" in reply.headers}

    def _which(self) -> str:
        """The text that tells one import of the same file from another."""
        run = f"{self._run}\0" if self._run else ""
        return f"{run}{self._form}\0{self.mapping.query}"

    def _key(self, piece: Piece) -> str:
        made = hashlib.sha256(f"{self._which()}\0{self._beside}\0{piece.first_line}\0".encode())
        made.update(piece.header)
        made.update(piece.body)
        return f"import-{made.hexdigest()[:48]}"


def _why_none_is_read(seen: dict[str, Any]) -> str:
    """The service's reason in a dry run that refused all rows."""
    if not seen["rejected"] or seen["rejected"] < seen["rows"]:
        return ""
    return "; ".join(f"{_place(error)}{error['reason']}" for error in seen["errors"])


def _place(error: dict[str, Any]) -> str:
    """The place of a fault."""
    line = f"line {error['line']}, " if "line" in error else f"item {error['index']}, " if "index" in error else ""
    return f"{line}{error['field']}: " if error.get("field") else line


@contextlib.contextmanager
def _progress(file: str, size: int) -> Iterator[Any]:
    """Yield a function to call with the file and the rows so far; it shows a bar on a terminal."""
    if not sys.stderr.isatty() or not size:
        yield lambda content, rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file, total=size, rows=0)

        def advance(content: Any, rows: int) -> None:
            raw = getattr(content, "fileobj", None) or content
            bar.update(task, completed=raw.tell(), rows=rows)

        yield advance


def _noted(lines: Iterator[bytes], seen: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        seen.append(line)
        yield line
