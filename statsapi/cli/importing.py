"""`statsapi import`: files of events, as they are, and each row once.

The service reads the files: what it cannot read it refuses, and proposes the columns and forms that it can. That is
asked for by a dry run of the file's beginning; no second guesser is here.

A file goes in pieces that end where a row does. The Idempotency-Key of a piece is made of how it is read, its place and
what it holds: so the same import again sends the same pieces under the same keys, and none counts twice for as long as
the service remembers them (STATSAPI_IDEMPOTENCY_TTL, a day).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

import click

from statsapi.cli import failures, import_lines, output
from statsapi.cli.connection import Service, asks_service

if TYPE_CHECKING:
    from statsapi.client import Client

_PIECE_ROWS: Final = 20_000
_PIECE_BYTES: Final = 2 << 20
_HEAD_ROWS: Final = 1_000
_UNREADABLE_MAX: Final = 1_000  # lines that had to be found by halving; a file of another kind has nothing else
_DOCUMENT_BYTES: Final = 16 << 20  # a JSON document goes as one: STATSAPI_MAX_BODY_BYTES unless it is raised
_TOLD_EVERY_S: Final = 5.0
_ADVICE: Final = re.compile(r"\((its times [^)]*)\)")
_PROPOSED: Final = re.compile(r"as it is, this goes to POST ('/events\?[^']*'(?: or '/events\?[^']*')*)")
_QUERY: Final = re.compile(r"'/events\?([^']*)'")
_GROUPED: Final = re.compile(
    r"\((\S+) is read as (\S+) then, with three decimals; where (\S+) is meant, (take [^)]*) first\)"
)

_TYPES: Final = {"csv": "text/csv", "ndjson": "application/x-ndjson", "json": "application/json", "lines": "text/plain"}
_ENDINGS: Final = {
    "csv": (".csv", ".tsv", ".txt"),
    "ndjson": (".ndjson", ".jsonl"),
    "json": (".json",),
    "lines": (".lp", ".influx"),
}


# What of a proposal an option that was given stands in place of.
_INSTEAD_OF: Final = {
    "timestamp": ("date", "time"),
    "date": ("timestamp",),
    "time": ("timestamp",),
    "series": ("into",),
    "into": ("series",),
}


class Piece(NamedTuple):
    """The lines of a file from first_line on, 1 being its first. `header`: what each piece begins with, for CSV."""

    first_line: int
    rows: int
    header: bytes
    body: bytes

    @property
    def lines(self) -> int:
        """How many of the file's."""
        return self.body.count(b"\n") + (self.body[-1:] not in (b"", b"\n"))

    def halves(self, form: str) -> list[Piece]:
        """Of whole rows; none where it is a single one."""
        lines = _points(io.BytesIO(self.body), form)
        for most in (self.rows // 2, 1):
            first = list(_rows(lines, form, max(1, most), len(self.body)))
            if rest := list(lines):
                one = Piece(self.first_line, len(first), self.header, b"".join(first))
                return [one, Piece(self.first_line + one.lines, len(rest), self.header, b"".join(rest))]
            lines = iter(first)
        return []


class Sums(NamedTuple):
    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    expired: int = 0
    rejected: int = 0

    def plus(self, rows: int, answer: dict[str, Any]) -> Sums:
        names = ("stored", "duplicates", "expired", "rejected")
        return Sums(self.rows + rows, *(getattr(self, name) + answer.get(name, 0) for name in names))


_MAPPING: Final = (
    ("timestamp", "COLUMN", "Where the times are."),
    ("date", "COLUMN", "Where the dates are, with --time."),
    ("time", "COLUMN", "Where the times of day are."),
    ("value", "COLUMN,…", "Where the values are; several make several series."),
    ("series", "COLUMN", "Where the names of series are."),
    ("tags", "COLUMN,…", "Columns that become tags."),
    ("into", "NAME", "The series."),
    ("delimiter", "SIGN", "What separates columns."),
    ("decimal", "SIGN", "The decimal sign."),
    ("time_format", "FORMAT", "As strptime has it: %d.%m.%Y %H:%M"),
    ("timezone", "ZONE", "Of times without one: Europe/Berlin"),
    ("fold", "WHICH", "earlier or later: of an hour that is there twice."),
    ("skip", "N", "Lines before the header."),
)


def _with_mapping(command: Any) -> Any:
    for name, shown, text in reversed(_MAPPING):
        command = click.option(f"--{name.replace('_', '-')}", name, metavar=shown, help=text)(command)
    return click.option("--no-header", is_flag=True, help="The first line is a row; columns go by number.")(command)


@click.command(
    "import",
    short_help="Record files: CSV, NDJSON, JSON, line protocol.",
    epilog="Example: statsapi import measured.csv --timezone Europe/Berlin",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE… | -")
@click.option("--form", type=click.Choice(list(_TYPES)), help="Of the files; by their names unless given.")
@click.option("--dry-run", is_flag=True, help="Read the beginning, say what would become of it, and record nothing.")
@click.option("--yes", is_flag=True, help="Do not ask whether a guess is right.")
@click.option("--dedup", is_flag=True, help="Leave out events that are held already.")
@_with_mapping
@asks_service
def import_files(service: Service, files: tuple[str, ...], no_header: bool, form: str | None, dry_run: bool, yes: bool,
                 dedup: bool, **mapping: str | None) -> int:  # fmt: skip
    """Record the events of FILEs (gzipped or not), or of standard input.

    Columns, delimiter and forms that are not given are proposed by the service and shown; on a terminal it asks whether
    they are right, else --yes is needed. An import that broke off is simply started again: what was recorded counts
    once. Rows that are refused go into FILE.refused.ndjson, with the reason, and the exit status is 1.
    """
    given = {name: value for name, value in mapping.items() if value is not None}
    if no_header:
        given["header"] = "false"
    refused = 0
    with service.client(give_up_after_s=60.0) as client, failures.of_arguments():
        for file in files:
            with _opened(file) as content:
                one = _Import(client, file, content, form or _form_of(file), given, dedup=dedup)
                sums = one.run(dry_run=dry_run, yes=yes)
            refused += sums.rejected
            if service.as_json:
                output.show_json({"file": file, **sums._asdict(), "read_as": one.query})
            else:
                _show_sums(file, sums, dry_run=dry_run)
    return failures.NOT_DONE if refused else 0


def _show_sums(file: str, sums: Sums, *, dry_run: bool) -> None:
    told = [f"{sums.stored:,} {'would be recorded' if dry_run else 'recorded'}"]
    told += [f"{count:,} {name}" for name, count in sums._asdict().items() if count and name not in ("rows", "stored")]
    click.echo(f"{file}: {sums.rows:,} rows{' looked at' if dry_run else ''}: {', '.join(told)}")


def _form_of(file: str) -> str:
    endings = [ending.lower() for ending in Path(file).suffixes]
    if endings and endings[-1] == ".gz":
        endings.pop()
    for form, known in _ENDINGS.items():
        if file != "-" and endings and endings[-1] in known:
            return form
    raise click.UsageError(f"{file}: give --form csv, ndjson, json or lines, as its name does not tell")


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file != "-" and file.endswith(".zst"):
        raise click.UsageError(f"{file}: zstdcat {file} | statsapi import - --form …")
    try:
        with contextlib.ExitStack() as stack:
            raw: Any = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            unzipped: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
            yield unzipped
    except (gzip.BadGzipFile, EOFError) as error:
        raise failures.Failed(f"{file}: is no whole gzip file: {error}") from None


class _Import:
    """One file into the service. `query` is how it is read."""

    def __init__(
        self, client: Client, file: str, content: IO[bytes], form: str, given: dict[str, str], *, dedup: bool
    ) -> None:
        if given and form not in ("csv", "ndjson"):
            raise click.UsageError(f"{file}: columns are for CSV and NDJSON, not for {form}")
        self._client = client
        self._file = file
        self._form = form
        self._content = content
        self._dedup = {"dedup": "true"} if dedup else {}
        self.query = urlencode(given)
        self._refused: IO[str] | None = None
        self._unreadable = 0

    def run(self, *, dry_run: bool, yes: bool) -> Sums:
        lines: Iterator[bytes] = iter(())
        if self._form == "json":
            head = [self._content.read(_DOCUMENT_BYTES + 1)]
            if len(head[0]) > _DOCUMENT_BYTES:
                raise failures.Failed(f"{self._file}: more than 16 MiB of JSON: jq -c '.[]' makes NDJSON of an array")
        else:
            lines = _points(self._content, self._form)
            head = list(_rows(lines, self._form, _HEAD_ROWS))
        if not b"".join(head).strip():
            return Sums()
        if self._form != "lines":
            seen = self._look(b"".join(head), yes=yes or dry_run)
            if dry_run:
                return Sums().plus(seen.get("rows", 0), seen)
        elif dry_run:
            raise click.UsageError("--dry-run is for CSV, NDJSON and JSON")
        try:
            return self._send(_pieces(itertools.chain(head, lines), self._form, dict(parse_qsl(self.query))))
        finally:
            if self._refused is not None:
                self._refused.close()

    def _look(self, head: bytes, *, yes: bool) -> dict[str, Any]:
        """A dry run of the beginning; where the service proposes how to read it, that is taken if the user agrees."""
        from statsapi.client import Refused

        try:
            seen = self._post(head, None, dry_run="true", partial="true")
        except Refused as error:
            proposed = _PROPOSED.search(str(error))
            if proposed is None:
                raise
            self._choose(_QUERY.findall(proposed[1]), _GROUPED.search(str(error)))
            advice = _ADVICE.search(str(error))
            seen = self._post(head, None, dry_run="true", partial="true")
            self._show_guess(seen, "" if advice is None else advice[1])
            if not yes:
                self._ask()
        return seen

    def _choose(self, proposed: list[str], grouped: re.Match[str] | None) -> None:
        """The reading that is proposed, with what was given. Where there are two, nobody but the user can say which."""
        readings = list(dict.fromkeys(map(self._with_given, proposed)))
        if len(readings) > 1:
            each = "; or ".join(map(_options, readings))
            raise click.UsageError(f"{self._file}: has {len(readings)} readings, give the options of one: {each}")
        if grouped is not None and "decimal" not in dict(parse_qsl(self.query)):
            number, small, large, cure = grouped.groups()
            mark = "," if "," in number else "."
            raise click.UsageError(
                f"{self._file}: {number} has two readings: for {small} give --decimal {mark}, for {large} {cure}"
            )
        self.query = readings[0]

    def _with_given(self, proposed: str) -> str:
        given = dict(parse_qsl(self.query))
        found = dict(parse_qsl(proposed))
        found.pop("partial", None)  # an import always keeps the good rows
        for name, others in _INSTEAD_OF.items():
            if name in given:
                found = {other: value for other, value in found.items() if other not in others}
        return urlencode(found | given)

    def _show_guess(self, seen: dict[str, Any], advice: str) -> None:
        failures.say(f"{self._file}: read with {_options(self.query)}")
        for each in seen["series"][:5]:
            failures.say(f"  {each['name']}: {each['events']:,} events, {each['first']} to {each['last']}")
        if advice:
            failures.say(f"  {advice.replace('&timezone=', '--timezone ')}")

    def _ask(self) -> None:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{self._file}: how it is read was guessed: add --yes, or the options above")
        click.confirm("Is that right?", abort=True, err=True)

    def _send(self, pieces: Iterator[Piece]) -> Sums:
        sums, told_s, began_s = Sums(), time.monotonic(), time.monotonic()
        told_expired = False
        size = os.path.getsize(self._file) if self._file != "-" else 0
        with _progress(self._file, size) as advance:
            for piece, answer in itertools.chain.from_iterable(map(self._recorded, pieces)):
                sums = sums.plus(piece.rows, answer)
                self._keep_refused(piece, answer.get("errors", []), answer.get("rejected", 0))
                if not told_expired and "(expired)" in (message := answer.get("message", "")):
                    told_expired = True
                    failures.say(f"{self._file}: {message}")
                advance(self._content, sums.rows)
                if time.monotonic() - told_s > _TOLD_EVERY_S and not sys.stderr.isatty():
                    told_s = time.monotonic()
                    failures.say(f"{self._file}: {sums.rows:,} rows, {sums.rows / (told_s - began_s):,.0f} a second")
        return sums

    def _recorded(self, piece: Piece) -> Iterator[tuple[Piece, dict[str, Any]]]:
        """The piece with what became of it. What is too much at once goes in halves, and so does line protocol that
        cannot be read as a whole, until the line at fault stands alone. Of such a piece nothing was recorded.
        """
        from statsapi.client import Refused

        try:
            answer = self._post(piece.header + piece.body, self._key(piece), partial="true")
        except Refused as error:
            unreadable = self._form == "lines" and error.status == 400
            halves = piece.halves(self._form) if unreadable or error.status == 413 else []
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
                f"{self._file}: more than {_UNREADABLE_MAX:,} lines up to line {piece.first_line:,} cannot be read: "
                "is it line protocol, in UTF-8?"
            )

    def _post(self, body: bytes, key: str | None, **query: str) -> dict[str, Any]:
        if self._form == "lines":
            return import_lines.post(self._client, body, key, self._dedup)
        asked = dict(parse_qsl(self.query)) | self._dedup | query
        return self._client.post("/events", body, _TYPES[self._form], idempotency_key=key, **asked)

    def _key(self, piece: Piece) -> str:
        made = hashlib.sha256(f"{self._form}\0{self.query}\0{self._dedup}\0{piece.first_line}\0".encode())
        made.update(piece.header)
        made.update(piece.body)
        return f"import-{made.hexdigest()[:48]}"

    def _keep_refused(self, piece: Piece, errors: list[dict[str, Any]], rejected: int) -> None:
        if not rejected:
            return
        if self._refused is None:
            place = "standard-input" if self._file == "-" else self._file
            self._refused = open(f"{place}.refused.ndjson", "w")  # noqa: SIM115 (closed by `run`)
            failures.say(f"{self._file}: rows are refused, see {place}.refused.ndjson")
        rows = piece.body.split(b"\n")
        for error in errors:
            at = error.get("line", 1) - 1 - piece.header.count(b"\n")
            row = rows[at].decode(errors="replace").rstrip("\r") if 0 <= at < len(rows) else ""
            self._refused.write(json.dumps({**error, "line": piece.first_line + at, "row": row}) + "\n")
        if rejected > len(errors):
            last = piece.first_line + piece.lines - 1
            more = f"{rejected - len(errors):,} more rows of lines {piece.first_line} to {last} are refused"
            self._refused.write(json.dumps({"reason": more}) + "\n")


def _options(query: str) -> str:
    return " ".join(
        "--no-header" if name == "header" else f"--{name.replace('_', '-')} {json.dumps(value, ensure_ascii=False)}"
        for name, value in parse_qsl(query)
    )


@contextlib.contextmanager
def _progress(file: str, size: int) -> Iterator[Any]:
    """Gives what to call with the file and the rows so far; a bar on a terminal."""
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


def _rows(lines: Iterable[bytes], form: str, most: int, most_bytes: int = _PIECE_BYTES) -> Iterator[bytes]:
    """Whole rows, up to so many or so many bytes: a line's end within quotes of CSV is no row's."""
    rows, size, quotes = 0, 0, 0
    for line in lines:
        yield line
        size += len(line)
        quotes += line.count(b'"') if form == "csv" else 0
        if quotes % 2 == 0:
            rows += 1
            if rows >= most or size >= most_bytes:
                return
        elif size > _DOCUMENT_BYTES:
            raise failures.Failed(f"{line[:40]!r} and the 16 MiB before it hold a quote that is never closed")


def _pieces(lines: Iterator[bytes], form: str, query: dict[str, str]) -> Iterator[Piece]:
    """The file in pieces of whole rows, each with the header. Bounded memory, but for a JSON document."""
    if form == "json":
        yield Piece(1, 1, b"", b"".join(lines))
        return
    headers = int(query.get("skip", 0)) + (query.get("header") != "false") if form == "csv" else 0
    header = b"".join(itertools.islice(lines, headers))
    first_line = 1 + headers
    while body := list(_rows(lines, form, _PIECE_ROWS)):
        piece = Piece(first_line, len(body), header, b"".join(body))
        yield piece
        first_line += piece.lines


def _points(lines: Iterable[bytes], form: str) -> Iterator[bytes]:
    return import_lines.points(lines) if form == "lines" else iter(lines)
