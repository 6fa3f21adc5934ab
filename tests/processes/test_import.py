"""`statsapi import` into a real service: files as people have them, each row once, whatever breaks off."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest
from backports import zstd

from statsapi.cli import import_ends, import_packing
from statsapi.client import Client
from statsapi.config import Settings
from tests.servers import ROOT, served_here, wait_until

STATE = tempfile.TemporaryDirectory()  # where the command remembers how files ended


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served_here(Settings(journal=f"sqlite:///{tmp_path}/events.db")) as served:
        yield served


def command_of(url: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "statsapi", "import", "--url", url, *map(str, arguments)]


def run(url: str, *arguments: str | Path, given: bytes = b"", folder: Path = ROOT) -> tuple[int, str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(STATE.name)}
    done = subprocess.run(
        command_of(url, *arguments), cwd=folder, env=env, input=given, capture_output=True, timeout=120, check=False
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def values(url: str, match: str = "*") -> Counter[tuple[str, float]]:
    with Client(url) as client:
        return Counter((event.series, event.value) for event in client.export(match=match))


KNOWN = "had been recorded before (--run NAME records them again)"


def stamp(seconds_ago: float = 60.0, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return time.strftime(form, time.gmtime(time.time() - seconds_ago))


def numbered(path: Path, rows: int, header: str = "timestamp,value\n") -> Path:
    path.write_text(header + "".join(f"{stamp()},{number}\n" for number in range(rows)))
    return path


@pytest.mark.parametrize("header", ["timestamp,value\n", ""], ids=["header", "no header"])
@pytest.mark.parametrize("zipped", [False, True])
def test_each_row_counts_once_however_often(url: str, tmp_path: Path, header: str, zipped: bool) -> None:
    """A file of several pieces, again, under another name, and longer by some rows: each row once."""
    file = numbered(tmp_path / "data.csv", 50_000, header)
    if zipped:
        file = tmp_path / "data.csv.gz"
        file.write_bytes(gzip.compress((tmp_path / "data.csv").read_bytes()))
    status, told, _ = run(url, "--yes", file)
    assert (status, told) == (0, f"{file}: 50,000 rows: 50,000 recorded\n")
    expected = Counter(("default", float(number)) for number in range(50_000))
    assert values(url) == expected
    renamed = file.rename(tmp_path / f"again-{file.name}")
    assert run(url, "--yes", renamed)[0] == 0
    assert values(url) == expected


def test_an_import_that_was_killed_goes_on(url: str, tmp_path: Path) -> None:
    """SIGKILL in the middle, and once more from the start: the count is exact."""
    file = numbered(tmp_path / "data.csv", 400_000)
    process = subprocess.Popen(command_of(url, file), cwd=ROOT)
    with Client(url) as client:
        wait_until(lambda: client.statistics()["count"] > 0, "the first piece")
        process.kill()
        process.wait()
        assert client.statistics()["count"] < 400_000
        assert run(url, file)[0] == 0
        answer = client.statistics(stats=["count", "sum"])
    assert answer == {"count": 400_000, "sum": sum(range(400_000))}


def test_what_was_guessed_is_shown_and_asked_for(url: str, tmp_path: Path) -> None:
    """A German spreadsheet's file: without --yes nothing is recorded and the options are named; these work as well."""
    file = tmp_path / "messung.csv"
    file.write_text("".join(["Zeit;Wert\r\n", *(f"{stamp(60 + n, '%d.%m.%Y %H:%M:%S')};{n},25\r\n" for n in range(3))]))
    status, _, said = run(url, file)
    assert status == 2
    options = '--timestamp "Zeit" --value "Wert" --delimiter ";" --decimal "," --time-format "%d.%m.%Y %H:%M:%S"'
    assert options in said
    assert "add --yes, or the options above" in said
    assert "--timezone Europe/Berlin" in said
    assert not values(url)
    status, told, said = run(url, "--dry-run", file)
    assert (status, told) == (0, f"{file}: 3 rows looked at: 3 would be recorded, less what had been before\n")
    assert not values(url)
    named = ["--timestamp", "Zeit", "--value", "Wert", "--delimiter", ";", "--decimal", ",", "--into", "hall"]
    status, told, said = run(url, *named, "--time-format", "%d.%m.%Y %H:%M:%S", "--timezone", "UTC", file)
    assert (status, said) == (0, "")
    assert values(url) == Counter([("hall", 0.25), ("hall", 1.25), ("hall", 2.25)])
    assert run(url, "--yes", file)[0] == 0
    assert sum(values(url, "default").values()) == 3


@pytest.mark.parametrize(
    ("header", "form", "rest", "options"),
    [
        ("Zeit;Wert", "%d.%m.%Y %H:%M", ";1.052", ["--decimal", "."]),
        ("time,value", "%Y-%m-%d %H:%M", ',"1,052"', ["--decimal", ","]),
        ("opened,closed,n", "%Y-%m-%d %H:%M", ",2026-11-20 07:45,1.052", ["--timestamp", "opened"]),
    ],
)
@pytest.mark.parametrize("first", ["--yes", "--dry-run"])
def test_nothing_is_chosen_between_two_readings(
    url: str, tmp_path: Path, header: str, form: str, rest: str, options: list[str], first: str
) -> None:
    """Not by --yes either: it says what to give, and that works."""
    file = tmp_path / "data.csv"
    file.write_text(f"{header}\n{stamp(60, form)}{rest}\n")
    status, _, said = run(url, first, file)
    assert (status, values(url)) == (2, Counter())
    assert " ".join(options[:2]) in said.replace('"', "")
    status, _, said = run(url, *options, "--yes", file)
    assert (status, values(url)) == (0, Counter([("default", 1.052)])), said


def test_gaps_in_the_first_rows_are_no_hindrance(url: str, tmp_path: Path) -> None:
    """Rows without a value are kept beside the file; what has to be mended is told, and nothing of it recorded."""
    file = tmp_path / "data.csv"
    file.write_text(f"time,cpu\n{stamp()},N/A\n{stamp()},1\n")
    status, told, said = run(url, "--yes", file)
    assert (status, told) == (1, f"{file}: 2 rows: 1 recorded, 1 rejected\n"), said
    assert "--partial" not in said
    assert [line for line, _ in kept_of(file)] == [2]
    file.write_text(f"time,load\n{stamp()},5%\n{stamp()},6%\n")
    status, _, said = run(url, "--yes", file)
    assert status == 1
    assert "line 2, load: is '5%'" in said
    assert sum(values(url).values()) == 1


def test_refused_rows_are_kept_beside(url: str, tmp_path: Path) -> None:
    """With their number in the file and the reason, also behind the first piece; all others are recorded."""
    lines = [f"{stamp()},{number}" for number in range(25_000)]
    lines[2], lines[23_000] = "not a time,2", f"{stamp()},x"
    file = tmp_path / "data.csv"
    file.write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    status, told, said = run(url, file)
    assert (status, told) == (1, f"{file}: 25,000 rows: 24,998 recorded, 2 rejected\n")
    assert said.count(f"{file}.refused.ndjson") == 1
    kept = [json.loads(line) for line in Path(f"{file}.refused.ndjson").read_text().splitlines()]
    assert [(each["line"], each["row"], each["field"]) for each in kept] == [
        (4, "not a time,2", "timestamp"),
        (23_002, lines[23_000], "value"),
    ]
    assert sum(values(url).values()) == 24_998


def kept_of(file: Path | str) -> list[tuple[int, str]]:
    """The line and the text of each row that was refused."""
    kept = [json.loads(line) for line in Path(f"{file}.refused.ndjson").read_text().splitlines()]
    assert all(each["reason"] for each in kept)
    return [(each["line"], each["row"]) for each in kept]


@pytest.mark.parametrize("zipped", [False, True])
def test_lines_that_are_refused_hold_up_no_others(url: str, tmp_path: Path, zipped: bool) -> None:
    """Line protocol of three pieces: a bad value in the first, none, a bad time in the third; and all of it again, from
    the file and from standard input: no point twice, and the same end.
    """
    stamp_ns = time.time_ns() - 60 * 10**9
    lines = [f"m,host=a cpu={number},mem={number}i {stamp_ns + number}" for number in range(45_000)]
    lines[10], lines[11] = f"m v=bad {stamp_ns}", "# a comment"
    lines[44_000] = "m v=1 yesterday"
    file = tmp_path / ("data.lp.gz" if zipped else "data.lp")
    content = "\n".join(lines).encode() + b"\n"
    file.write_bytes(gzip.compress(content) if zipped else content)
    events = 2 * (45_000 - 3)
    again = f"0 recorded, 2 rejected, 44,998 {KNOWN}"
    for expected in (f"{events:,} recorded, 2 rejected", again):
        status, told, said = run(url, file)
        assert (status, told) == (1, f"{file}: 45,000 rows: {expected}\n"), said
        assert said.count(f"{file}.refused.ndjson") == 1
        assert kept_of(file) == [(11, lines[10]), (44_001, lines[44_000])]
        assert "bad" in Path(f"{file}.refused.ndjson").read_text()
    status, told, _ = run(url, "--form", "lines", "-", given=content, folder=tmp_path)
    assert (status, told) == (1, f"-: 45,000 rows: {again}\n")
    assert kept_of(tmp_path / "standard-input") == kept_of(file)
    assert sum(values(url).values()) == events


def test_lines_that_break_a_piece_are_found(url: str, tmp_path: Path) -> None:
    """A string that is never closed, and bytes that are no UTF-8, make all behind them unreadable: they alone are
    refused, and a string over several lines stays whole, also where a tag holds a quote.
    """
    stamp_ns = time.time_ns() - 60 * 10**9
    lines = [b"m v=%d %d" % (number, stamp_ns + number) for number in range(25_000)]
    lines[5] = b'm v=1,text="one\ntwo\\"\nthree" %d' % stamp_ns
    lines[6] = b'm,size=5" v=1 %d' % stamp_ns
    lines[100] = b"m,host=\xff v=1 %d" % stamp_ns
    lines[23_000] = b'm v=1,text="open %d' % stamp_ns
    file = tmp_path / "data.lp"
    file.write_bytes(b"\n".join(lines))
    for expected in ("24,998 recorded, 2 rejected", f"0 recorded, 2 rejected, 24,998 {KNOWN}"):
        status, told, said = run(url, file)
        assert (status, told) == (1, f"{file}: 25,000 rows: {expected}\n"), said
        assert [line for line, _ in kept_of(file)] == [103, 23_003]
    assert sum(values(url).values()) == 24_998


def test_old_lines_are_told(url: str, tmp_path: Path) -> None:
    """As old rows of CSV are: with the setting that would keep them; and --dedup is heard."""
    line = f"m v=1 {time.time_ns() - 4000 * 86_400 * 10**9}\nm v=1 {time.time_ns()}\n"
    (tmp_path / "data.lp").write_text(line)
    status, _, said = run(url, tmp_path / "data.lp")
    assert status == 0
    assert "STATSAPI_ROLLUP_RETENTION" in said
    status, told, _ = run(url, "--dedup", tmp_path / "data.lp")
    assert "1 duplicates" in told


@pytest.mark.parametrize("bad", [100, 101, 20_000])
def test_many_refused_lines_are_counted(url: str, tmp_path: Path, bad: int) -> None:
    """The first 100 of a piece are named, and how many more there are is told."""
    file = tmp_path / "data.lp"
    file.write_text("m v=bad\n" * bad + f"m v=1 {time.time_ns()}\n")
    status, told, said = run(url, file)
    assert (status, told) == (1, f"{file}: {bad + 1:,} rows: 1 recorded, {bad:,} rejected\n"), said
    kept = [json.loads(line) for line in Path(f"{file}.refused.ndjson").read_text().splitlines()]
    assert [each["line"] for each in kept[:100]] == list(range(1, 101))
    assert sum("more rows of lines" in each["reason"] for each in kept[100:]) == (bad > 100)
    assert sum(values(url).values()) == 1


@pytest.mark.parametrize("name", ["data.lp", "data.csv", "data.ndjson"])
def test_a_piece_of_too_many_events_goes_in_parts(url: str, tmp_path: Path, name: str) -> None:
    """Rows of six values: 20,000 of them are more events than a request may hold."""
    columns = "abcdef"
    row = dict.fromkeys(columns, 1)
    if name == "data.lp":
        text = "".join(f"m {','.join(f'{name}=1' for name in columns)} {time.time_ns()}\n" for _ in range(21_000))
    elif name == "data.csv":
        text = f"t,{','.join(columns)}\n" + f"{stamp()},1,1,1,1,1,1\n" * 21_000
    else:
        text = f"{json.dumps({'t': stamp()} | row)}\n" * 21_000
    file = tmp_path / name
    file.write_text(text)
    options = [] if name == "data.lp" else ["--timestamp", "t", "--value", ",".join(columns)]
    for expected in ("126,000 recorded", f"0 recorded, 21,000 {KNOWN}"):
        status, told, said = run(url, *options, file)
        assert (status, told) == (0, f"{file}: 21,000 rows: {expected}\n"), said
    assert sum(values(url).values()) == 126_000


def test_a_file_that_is_no_line_protocol_ends_soon(url: str, tmp_path: Path) -> None:
    """Latin-1: no line of it can be read."""
    (tmp_path / "data.lp").write_bytes(b"m,ort=Z\xfcrich v=1\n" * 3_000)
    status, _, said = run(url, tmp_path / "data.lp")
    assert status == 1
    assert "in UTF-8?" in said
    assert not values(url)


def test_rows_with_line_ends_within_quotes_stay_whole(url: str, tmp_path: Path) -> None:
    """Rows with line ends within quotes stay whole, also at the end of a piece."""
    rows = 45_000
    file = tmp_path / "data.csv"
    file.write_text("at,v,note\n" + "".join(f'{stamp()},{n},"one\ntwo, ""three"""\n' for n in range(rows)))
    assert run(url, "--timestamp", "at", "--value", "v", file)[0] == 0
    assert values(url) == Counter(("default", float(number)) for number in range(rows))


@pytest.mark.parametrize("name", ["data.ndjson", "data.json", "data.lp"])
def test_the_other_forms(url: str, tmp_path: Path, name: str) -> None:
    """NDJSON, a JSON array, line protocol: from a file and from standard input, each once."""
    events = [{"timestamp": stamp(), "value": number, "series": "a b"} for number in range(5)]
    if name.endswith(".ndjson"):
        text = "".join(json.dumps(event) + "\n" for event in events)
    elif name.endswith(".json"):
        text = json.dumps(events)
    else:
        text = "".join(f"a\\ b value={number} {time.time_ns() - number}\n" for number in range(5))
    file = tmp_path / name
    file.write_text(text)
    assert run(url, file)[0] == 0
    form = {"ndjson": "ndjson", "json": "json", "lp": "lines"}[name.rpartition(".")[2]]
    assert run(url, "--form", form, "-", given=text.encode())[0] == 0
    assert values(url) == Counter(("a b", float(number)) for number in range(5))


@pytest.mark.parametrize(
    ("name", "content", "arguments", "status", "said"),
    [
        ("data.xlsx", b"", [], 2, "give --form csv, ndjson, json or lines"),
        ("missing.csv", None, [], 1, "No such file or directory"),
        ("cut.csv.gz", gzip.compress(b"timestamp,value\n" * 9000)[:-20], [], 1, "no whole gzip file"),
        ("data.csv", "timestamp,value\n".encode("utf-16"), [], 1, "iconv -f UTF-16"),
        ("data.json", b"[{]", [], 1, "JSON"),
        ("data.json", b"[]", ["--value", "x"], 2, "columns are for CSV and NDJSON"),
        ("data.csv", b"timestamp,value\n", ["--timezone", "Mars/Base"], 1, "timezone"),
        ("data.csv", b"timestamp,value\n", ["--skip", "x"], 1, "skip"),
        ("data.lp", b"cpu value=1\n", ["--dry-run"], 2, "--dry-run is for"),
        ("data.txt", b"cpu value=1\n", [], 1, "looks like InfluxDB's line protocol: give --form lines"),
        (".", None, [], 2, "is a folder: name its files, as"),
    ],
)
def test_files_that_cannot_be_read(
    url: str, tmp_path: Path, name: str, content: bytes | None, arguments: list[str], status: int, said: str
) -> None:
    """One line with the cure; nothing is recorded."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found, _, errors = run(url, *arguments, tmp_path / name)
    assert found == status, errors
    assert said in errors
    assert not values(url)


def test_a_quote_that_is_never_closed_fills_no_memory(url: str, tmp_path: Path) -> None:
    """It is told, and nothing is recorded; what stands before in other pieces stays."""
    file = tmp_path / "data.csv"
    file.write_text(
        "timestamp,value,note\n" + f'{stamp()},1,"5 pipe\n' + f"{stamp()},1,aaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" * 400_000
    )
    status, _, said = run(url, "--timestamp", "timestamp", "--value", "value", file)
    assert status == 1
    assert "hold a quote that is never closed" in said
    assert not values(url)


def test_a_guess_without_a_header_says_so(url: str, tmp_path: Path) -> None:
    """The options that are shown work as they are."""
    file = tmp_path / "data.csv"
    file.write_text("".join(f"{stamp()},{number}\n" for number in range(3)))
    status, _, said = run(url, file)
    assert status == 2
    assert '--timestamp "1" --value "2" --no-header' in said
    assert run(url, "--timestamp", "1", "--value", "2", "--no-header", file)[0] == 0
    assert sum(values(url).values()) == 3


def test_separators_of_thousands_are_named(url: str, tmp_path: Path) -> None:
    """With what to write, in our options; a column is not told to be missing."""
    file = tmp_path / "a.csv"
    file.write_text("Zeit;Wert\n" + "".join(f"{stamp(60, '%d.%m.%Y %H:%M:%S')};7{n}.650,00\n" for n in range(3)))
    status, _, said = run(url, file, "--timezone", "UTC")
    assert status == 1
    assert "--timestamp is not given: name the column that holds the time" in said
    assert "is '70.650,00', which holds a point, but --decimal , was asked for: write 70650,00" in said
    named = ["--timestamp", "Zeit", "--value", "Wert", "--delimiter", ";", "--decimal", ",", "--timezone", "UTC"]
    assert run(url, file, *named, "--time-format", "%d.%m.%Y %H:%M:%S")[0] == 1
    assert "but --decimal , was asked for: write 70650,00" in Path(f"{file}.refused.ndjson").read_text()


def test_a_file_that_has_become_shorter_is_told(url: str, tmp_path: Path) -> None:
    """Its rows count again, as a changed piece is another one."""
    assert "may count again" not in run(url, numbered(tmp_path / "a.csv", 30))[2]
    assert "may count again" not in run(url, numbered(tmp_path / "a.csv", 30))[2]
    said = run(url, numbered(tmp_path / "a.csv", 20))[2]
    assert (
        "at an earlier import it had 30 rows, and now 20: if it was cut or changed, rows of it may count again" in said
    )


def test_times_without_a_zone_are_told_with_the_option(url: str, tmp_path: Path) -> None:
    """Not with the query of POST /events."""
    file = tmp_path / "a.csv"
    file.write_text(f"timestamp,value\n{stamp(7_200, '%Y-%m-%dT%H:%M:%S')},1\n")
    said = run(url, file)[2]
    assert "(such as +02:00), or give --timezone Europe/Berlin, or your zone." in said


@pytest.mark.parametrize(("name", "row"), [("a.csv", "{0},1"), ("a.ndjson", '{{"timestamp": "{0}", "value": 1}}')])
def test_blank_lines_are_no_rows(url: str, tmp_path: Path, name: str, row: str) -> None:
    """What is told to be a row has become something."""
    file = tmp_path / name
    rows = [row.format(stamp(60 + number)) for number in range(3)]
    file.write_text(("timestamp,value\n" if name == "a.csv" else "") + "\n\n \n".join(rows) + "\n\n\r\n")
    assert run(url, "--yes", file)[:2] == (0, f"{file}: 3 rows: 3 recorded\n")
    assert run(url, "--yes", file)[:2] == (0, f"{file}: 3 rows: 0 recorded, 3 {KNOWN}\n")


def test_a_guess_says_that_it_is_of_the_first_rows(url: str, tmp_path: Path) -> None:
    """The proposal says that it is a guess from the first rows if a file has more."""
    assert " events in the first rows, " in run(url, "--yes", numbered(tmp_path / "a.csv", 3_000, "Zeit,Wert\n"))[2]
    assert "  default: 30 events, " in run(url, "--yes", numbered(tmp_path / "b.csv", 30, "Zeit,Wert\n"))[2]


def test_an_empty_file_is_nothing(url: str, tmp_path: Path) -> None:
    """0 rows, and no error."""
    (tmp_path / "data.csv").touch()
    assert run(url, tmp_path / "data.csv")[:2] == (0, f"{tmp_path}/data.csv: 0 rows: 0 recorded\n")


@pytest.mark.parametrize("form", ["csv", "ndjson", "influx"])
def test_an_export_comes_back(url: str, tmp_path: Path, form: str) -> None:
    """To a file and to standard output: what is imported of it elsewhere is the same; a file is whole or as it was."""
    with Client(url) as client:
        client.record_many(
            [{"value": number / 7, "series": f"s {number % 2}", "tags": {"a": "b,c"}} for number in range(9)]
        )
    held = values(url)
    command = [sys.executable, "-m", "statsapi", "export", "--url", url, "--form", form]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    file = tmp_path / f"events.{'lp' if form == 'influx' else form}"
    told = subprocess.run([*command, "-o", str(file)], cwd=ROOT, capture_output=True, check=True)
    assert file.read_bytes() == done.stdout
    assert told.stderr.decode() == f"{file}: {len(done.stdout):,} bytes\n"
    with served_here(Settings(journal=f"sqlite:///{tmp_path}/other.db")) as other:
        assert run(other, file)[0] == 0
        assert values(other) == held
    refused = subprocess.run(
        [*command, "-o", str(file), "--start", "whenever"], cwd=ROOT, capture_output=True, check=False
    )
    assert refused.returncode == 1
    assert b"start" in refused.stderr
    assert file.read_bytes() == done.stdout


@pytest.mark.parametrize("name", ["data.csv", "data.ndjson", "data.lp", "data.csv.gz"])
def test_a_file_that_grows_counts_its_new_rows(url: str, tmp_path: Path, name: str) -> None:
    """By some rows, over a piece's end, by none: each row counts once, and the old ones are told."""
    moment_ns = time.time_ns() - 60 * 10**9
    row = {
        "csv": f"{stamp()},%d\n",
        "ndjson": f'{{"timestamp": "{stamp()}", "value": %d}}\n',
        "lp": f"m v=%d {moment_ns}\n",
    }[name.split(".")[1]]
    file, before = tmp_path / name, 0
    for rows in (10, 11, 11, 500, 19_990, 20_010, 45_000, 45_001):
        text = ("timestamp,value\n" if "csv" in name else "") + "".join(row % number for number in range(rows))
        file.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        status, told, said = run(url, "--yes", file)
        known = f", {before:,} {KNOWN}" if before else ""
        assert (status, told) == (0, f"{file}: {rows:,} rows: {rows - before:,} recorded{known}\n"), said
        before = rows
    assert {value: count for (_, value), count in values(url).items()} == {float(at): 1 for at in range(45_001)}


def test_rows_can_be_recorded_again(url: str, tmp_path: Path) -> None:
    """Equal files are one import; after a deletion, or on purpose, --run makes it another one."""
    one, other = numbered(tmp_path / "a.csv", 3), numbered(tmp_path / "b.csv", 3)
    other.write_bytes(one.read_bytes())
    status, told, _ = run(url, one, other)
    assert (status, told) == (0, f"{one}: 3 rows: 3 recorded\n{other}: 3 rows: 0 recorded, 3 {KNOWN}\n")
    for _ in range(2):
        assert run(url, "--run", "second", other)[0] == 0
    assert set(values(url).values()) == {2}
    (told_json,) = [json.loads(run(url, "--json", one)[1])]
    assert (told_json["stored"], told_json["known"]) == (0, 3)


def test_quotes_within_a_field_open_nothing(url: str, tmp_path: Path) -> None:
    """5" in a field without quotes, and a quoted field over lines with the delimiter in it; of many pieces."""
    file = tmp_path / "disks.csv"
    rows = [f'{stamp()};{number};5" disk' for number in range(45_000)]
    rows[7] = f'{stamp()};7;"two\nlines; and ""quotes"""'
    file.write_text("t;v;note\n" + "\n".join(rows) + "\n")
    status, told, said = run(url, "--timestamp", "t", "--value", "v", "--delimiter", ";", file)
    assert (status, told) == (0, f"{file}: 45,000 rows: 45,000 recorded\n"), said


def test_old_line_ends_are_line_ends(url: str, tmp_path: Path) -> None:
    """Carriage returns alone, as old Macs wrote them."""
    file = tmp_path / "mac.csv"
    file.write_bytes(f"timestamp,value\r{stamp()},1\r{stamp()},2\r".encode())
    assert run(url, file)[:2] == (0, f"{file}: 2 rows: 2 recorded\n")


def test_an_index_without_a_name_is_a_column(url: str, tmp_path: Path) -> None:
    """As pandas writes it: guessed, and given."""
    file = tmp_path / "frame.csv"
    file.write_text(f",value\n{stamp()},1\n")
    assert run(url, "--yes", file)[:2] == (0, f"{file}: 1 row: 1 recorded\n")
    assert run(url, "--timestamp", "", "--value", "value", "--run", "again", file)[0] == 0
    assert list(values(url).values()) == [2]


def test_damaged_gzip_is_told(url: str, tmp_path: Path) -> None:
    """Wherever it is damaged: with how much was recorded before."""
    packed = bytearray(gzip.compress(numbered(tmp_path / "data.csv", 120_000).read_bytes()))
    for at in (30, len(packed) // 2, len(packed) - 20):
        damaged = packed.copy()
        damaged[at : at + 30] = os.urandom(len(damaged[at : at + 30]))
        file = tmp_path / "data.csv.gz"
        file.write_bytes(damaged)
        for options in ((), ("--rebase",)):
            status, _, said = run(url, "--timestamp", "timestamp", "--value", "value", *options, file)
            assert status == 1
            assert f"{file}: is no whole gzip file" in said


def test_what_is_remembered_of_many_files_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports of other files, however many, and of the same file take nothing from each other."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    files = [str(tmp_path / f"{number}.csv") for number in range(1200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: import_ends.remember(file, 7), files))
        list(pool.map(lambda rows: import_ends.remember(files[0], rows), range(100, 200)))
    assert import_ends.remembered(files[0]) == [7, *range(100, 200)]
    assert all(import_ends.remembered(file) == [7] for file in files[1:])


def test_what_cannot_be_remembered_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The import goes on; what it costs is told, once for each file."""
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nope")
    for rows in (1, 2):
        import_ends.remember(str(tmp_path / "a.csv"), rows)
    said = capsys.readouterr().err
    assert said.count("cannot be written") == 1
    assert "will count twice" in said


def test_without_a_home_nothing_is_written_into_a_folder_named_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container's user may have neither HOME nor a name: one line says what to set, and the current folder stays as
    it is.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does then
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    for rows in (1, 2):
        import_ends.remember("b.csv", rows)
    (line,) = capsys.readouterr().err.splitlines()
    assert "b.csv: there is no home directory to remember it in: set HOME or XDG_STATE_HOME" in line
    assert list(tmp_path.iterdir()) == []


def test_pandas_records(url: str, tmp_path: Path) -> None:
    """A JSON array with columns of other names: its refusals are short, and NDJSON is named as the way."""
    file = tmp_path / "records.json"
    file.write_text(json.dumps([{"Zeit": 1_795_766_400_000 + row, "Wert": row} for row in range(2500)]))
    status, _, said = run(url, file, folder=tmp_path)
    assert status == 1
    assert f"jq -c '.[]' {file} makes NDJSON" in said
    assert (tmp_path / "records.json.refused.ndjson").stat().st_size < 50_000


def test_zstandard(url: str, tmp_path: Path) -> None:
    """A packed file is read as the same one unpacked; where it is cut, that is told."""
    content = numbered(tmp_path / "data.csv", 30_000).read_bytes()
    file = tmp_path / "data.csv.zst"
    file.write_bytes(zstd.compress(content))
    asked = "--timestamp", "timestamp", "--value", "value"
    assert run(url, *asked, file)[:2] == (0, f"{file}: 30,000 rows: 30,000 recorded\n")
    assert run(url, *asked, tmp_path / "data.csv")[0] == 0
    assert sum(values(url).values()) == 30_000, "the same rows count once"
    file.write_bytes(zstd.compress(content)[:-100])
    status, _, said = run(url, *asked, "--run", "cut", file)
    assert status == 1
    assert f"{file}: is no whole zstd file" in said


def test_zstandard_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what to install, or how to unpack it."""
    file = tmp_path / "my data.csv.zst"
    file.write_bytes(zstd.compress(b"timestamp,value\n"))
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(click.UsageError, match="zstd") as refused, import_packing.opened(str(file)):
        pass
    assert "pip install 'statsapi[zstd]'" in refused.value.message
    assert f"zstdcat '{file}' | statsapi import -" in refused.value.message


def test_a_line_without_an_end_fills_no_memory(url: str, tmp_path: Path) -> None:
    """It is told after 16 MiB."""
    file = tmp_path / "data.ndjson"
    file.write_bytes(b"x" * (40 << 20))
    status, _, said = run(url, file)
    assert status == 1
    assert "longer than 16 MiB" in said


def test_without_a_service_it_ends_at_once(tmp_path: Path) -> None:
    """As other commands do: nothing was begun that it could wait for."""
    file = numbered(tmp_path / "data.csv", 3)
    command = [sys.executable, "-m", "statsapi", "import", "--url", "http://127.0.0.1:1", str(file)]
    began_s = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (69, b"")
    assert time.monotonic() - began_s < 15


def test_refusals_name_the_file_and_the_option(url: str, tmp_path: Path) -> None:
    """Also among several files; what the service calls a parameter is an option here."""
    file = tmp_path / "odd\nname.csv"
    file.write_text("when,value\n2026-10-25 02:30,1\n")
    options = ("--timestamp", "when", "--value", "value", "--timezone", "Europe/Berlin")
    status, _, said = run(url, *options, file)
    kept = json.loads(Path(f"{file}.refused.ndjson").read_text())
    assert status == 1
    assert "odd\\nname.csv" in said
    assert "fold" in kept["reason"]
    status, _, said = run(url, "--timestamp", "nowhere", "--value", "value", file)
    assert status == 1
    assert "odd\\nname.csv" in said


def test_a_file_of_years_ago_is_moved_to_now(url: str, tmp_path: Path) -> None:
    """The last event is now, the others as far before it as they were; again it is the same import. Local times, rows
    in any order and many pieces as well.
    """
    rows = [f"2019-03-05 {10 + at // 3600:02}:{at // 60 % 60:02}:{at % 60:02},{at}" for at in range(3_000)]
    rows = rows[1_500:] + rows[:1_500]
    file = tmp_path / "old.csv"
    file.write_text("t,v\n" + "\n".join(rows * 9) + "\n")
    options = ("--timestamp", "t", "--value", "v", "--timezone", "Europe/Berlin", "--rebase", "--into", "old")
    before_s = time.time()
    assert run(url, *options, file)[:2] == (0, f"{file}: 27,000 rows: 27,000 recorded\n")
    after_s = time.time()
    assert run(url, *options, file)[:2] == (0, f"{file}: 27,000 rows: 0 recorded, 27,000 {KNOWN}\n")
    with Client(url) as client:
        moments = {event.value: event.timestamp.timestamp() for event in client.export(series="old")}
    assert before_s - 1 <= moments[2999.0] <= after_s
    assert all(abs(moments[2999.0] - moment - (2999 - value)) < 1e-3 for value, moment in moments.items())
    assert run(url, "--rebase", "--form", "csv", "-", given=b"timestamp,value\n1,1\n")[0] == 2


ROWS = {
    "csv": f"{stamp()},%d",
    "ndjson": f'{{"timestamp": "{stamp()}", "value": %d}}',
    "lp": f"m v=%d {time.time_ns() - 60 * 10**9}",
}


@pytest.mark.parametrize("form", ["csv", "ndjson", "lp"])
@pytest.mark.parametrize("rows", [1, 11, 20_001, 45_000])
def test_a_line_end_that_comes_later_is_no_other_row(url: str, tmp_path: Path, form: str, rows: int) -> None:
    """The last line without its end, with half of CRLF, with the end, and with rows behind it: each row counts once."""
    file = tmp_path / f"data.{form}"
    lines = [ROWS[form] % number for number in range(rows + 2)]
    header = "timestamp,value\r\n" if form == "csv" else ""
    before = 0
    for count, end in ((rows, ""), (rows, "\r"), (rows, "\r\n"), (rows + 1, ""), (rows + 2, "\r\n")):
        file.write_bytes((header + "\r\n".join(lines[:count]) + end).encode())
        status, told, said = run(url, "--yes", file)
        known = f", {before:,} {KNOWN}" if before else ""
        assert (status, told) == (
            0,
            f"{file}: {count:,} row{'s' * (count > 1)}: {count - before:,} recorded{known}\n",
        ), said
        before = count
    assert {value: count for (_, value), count in values(url).items()} == {float(at): 1 for at in range(before)}


@pytest.mark.parametrize(
    ("form", "half", "whole"),
    [
        ("csv", ROWS["csv"][:12], ROWS["csv"] % 10),
        ("ndjson", ROWS["ndjson"][:30], ROWS["ndjson"] % 10),
        ("lp", ROWS["lp"][:3], ROWS["lp"] % 10),
        ("lp", (ROWS["lp"] % 10)[:12], ROWS["lp"] % 10),
        ("lp", 'm v=10,text="one\n', f'm v=10,text="one\ntwo" {time.time_ns()}'),
    ],
    ids=["csv", "ndjson", "lp", "lp time", "lp string"],
)
def test_half_a_row_counts_when_it_is_whole(url: str, tmp_path: Path, form: str, half: str, whole: str) -> None:
    """Half a row becomes an event at the next import, once it is whole, and no row before it counts again."""
    file = tmp_path / f"data.{form}"
    lines = [ROWS[form] % number for number in range(10)]
    header = "timestamp,value\n" if form == "csv" else ""
    file.write_text(header + "".join(f"{line}\n" for line in lines) + half)
    _, told, said = run(url, file)
    assert "10 recorded" in told, said
    lines += [whole, ROWS[form] % 11]
    file.write_text(header + "".join(f"{line}\n" for line in lines))
    status, told, said = run(url, file)
    assert (status, f"2 recorded, 10 {KNOWN}" in told) == (0, True), told + said
    assert set(values(url).values()) == {1}


@pytest.mark.parametrize("form", ["csv", "csv.gz"])
def test_a_row_that_goes_on_after_it_was_recorded_is_told(url: str, tmp_path: Path, form: str) -> None:
    """…,4 and then …,42 is one row: it is refused by its line for as long as it stands there, and counts once."""
    file = tmp_path / f"data.{form}"
    pack = gzip.compress if form.endswith("gz") else bytes
    text = "timestamp,value\n" + "".join(f"{stamp()},{number}\n" for number in range(100, 110)) + f"{stamp()},4"
    file.write_bytes(pack(text.encode()))
    assert run(url, "--yes", file)[:2] == (0, f"{file}: 11 rows: 11 recorded\n")
    for known, more in ((10, f"2\n{stamp()},7"), (11, f"2\n{stamp()},7\n{stamp()},8\n")):
        file.write_bytes(pack((text + more).encode()))
        status, told, said = run(url, "--yes", file)
        assert (status, told) == (1, f"{file}: {known + 2} rows: 1 recorded, 1 rejected, {known} {KNOWN}\n"), said
        ((line, row),) = kept_of(file)
        assert (line, row.endswith(",42")) == (12, True)
        assert "--growing" in Path(f"{file}.refused.ndjson").read_text()
    held = {value: count for (_, value), count in values(url).items()}
    assert held == {float(each): 1 for each in (*range(100, 110), 4, 7, 8)}
    status, told, _ = run(url, "--run", "anew", "--yes", file)
    assert (status, told) == (0, f"{file}: 13 rows: 13 recorded\n")


@pytest.mark.parametrize("form", ["csv", "ndjson", "lp"])
def test_a_file_that_is_being_written_keeps_its_last_line(url: str, tmp_path: Path, form: str) -> None:
    """With --growing a line without an end is left for the next import, also where it is the only one."""
    file = tmp_path / f"data.{form}"
    header = "timestamp,value\n" if form == "csv" else ""
    file.write_text(header + ROWS[form] % 4)
    _, told, _ = run(url, "--growing", "--yes", file)
    assert told == f"{file}: 0 rows: 0 recorded\n"
    file.write_text(header + ROWS[form] % 42 + "\n" + ROWS[form] % 7)
    status, told, said = run(url, "--growing", "--yes", file)
    assert (status, told) == (0, f"{file}: 1 row: 1 recorded\n")
    assert "is not finished, and left for the next time" in said
    assert [value for _, value in values(url)] == [42.0]


@pytest.mark.parametrize("rows", [2, 1_500])
def test_a_field_that_is_being_written_is_left_too(url: str, tmp_path: Path, rows: int) -> None:
    """Its line has an end, and its quote is open: without --growing that is told, and no row counts twice."""
    file = tmp_path / "data.csv"
    lines = "".join(f"{stamp()},{number},\n" for number in range(rows))
    file.write_text(f'timestamp,value,note\n{lines}{stamp()},1500,"one\n')
    options = ("--timestamp", "timestamp", "--value", "value")
    status, told, said = run(url, *options, file)
    assert (status, told) == (1, f"{file}: {rows + 1:,} rows: {rows:,} recorded, 1 rejected\n"), said
    assert [line for line, _ in kept_of(file)] == [rows + 2]
    status, told, _ = run(url, *options, "--growing", file)
    assert (status, told) == (0, f"{file}: {rows:,} rows: 0 recorded, {rows:,} {KNOWN}\n")
    with file.open("a") as more:
        more.write('two"\n')
    status, told, _ = run(url, *options, "--growing", file)
    assert (status, told) == (0, f"{file}: {rows + 1:,} rows: 1 recorded, {rows:,} {KNOWN}\n")


def test_a_file_that_was_moved_to_now_may_grow(url: str, tmp_path: Path) -> None:
    """--rebase moves new rows as it moved the old ones, and none counts twice; another --run moves all to now."""
    file = tmp_path / "old.csv"
    rows = [f"2019-03-05 10:00:{at:02},{at}" for at in range(12)]
    options = ("--timestamp", "t", "--value", "v", "--rebase", "--yes")
    for dry in ("--dry-run",), ():
        file.write_text("t,v\n" + "\n".join(rows[:10]))
        began_s = time.time()
        status, told, said = run(url, *options, *dry, file)
        assert (status, "10 " in told) == (0, True), said
    file.write_text("t,v\n" + "\n".join(rows) + "\n")
    status, told, said = run(url, *options, file)
    assert (status, told) == (0, f"{file}: 12 rows: 2 recorded, 10 {KNOWN}\n"), said
    assert "moved as at its first import (--run NAME: to now)" in said
    with Client(url) as client:
        moments = {event.value: event.timestamp.timestamp() for event in client.export()}
    assert len(moments) == 12
    assert began_s - 1 <= moments[9.0] <= time.time()
    assert moments[11.0] - moments[0.0] == pytest.approx(11)
    assert run(url, *options, "--run", "anew", file)[:2] == (0, f"{file}: 12 rows: 12 recorded\n")


def test_items_of_json_are_rows(url: str, tmp_path: Path) -> None:
    """The items of an array are rows, each once when the file comes again; another end of its last line makes no other
    file.
    """
    file = tmp_path / "data.json"
    text = json.dumps([{"timestamp": stamp(), "value": number} for number in range(200)])
    for end, told in (("", "200 recorded"), ("\n", f"0 recorded, 200 {KNOWN}")):
        file.write_text(text + end)
        assert run(url, file)[:2] == (0, f"{file}: 200 rows: {told}\n")


def test_rows_that_expired_are_no_recorded_ones(url: str, tmp_path: Path) -> None:
    """Also when they are sent again."""
    file = tmp_path / "data.csv"
    file.write_text(f"timestamp,value\n2001-01-01,1\n2001-01-01,2\n{stamp()},3\n")
    assert run(url, file)[1] == f"{file}: 3 rows: 1 recorded, 2 expired\n"
    assert run(url, file)[1] == f"{file}: 3 rows: 0 recorded, 2 expired, 1 {KNOWN}\n"


@pytest.mark.parametrize("names", ["Zeit;Größe", "the time;$HOME `id` \\"])
def test_options_that_are_shown_can_be_pasted(url: str, tmp_path: Path, names: str) -> None:
    """As a shell takes them, whatever the columns are called: of a refusal, and of one that asks to mend cells."""
    file = tmp_path / "data.csv"
    form = "%d.%m.%Y %H:%M:%S"
    file.write_text(f"{names}\n{stamp(60, form)};1,5\n")
    _, _, said = run(url, "--value", "Nope", "--yes", file)
    assert "'/events" not in said
    (shown,) = re.findall(r"as it is, this goes with (.*) \(its times are UTC then", said)
    shell = subprocess.run(["sh", "-c", f"printf '%s\\n' {shown}"], capture_output=True, text=True, check=True)
    assert shell.stdout.splitlines() == shlex.split(shown)
    status, told, said = run(url, *shell.stdout.splitlines(), "--timezone", "UTC", file)
    assert (status, told) == (0, f"{file}: 1 row: 1 recorded\n"), said
    file.write_text("time,load\n" + f"{stamp()},5%\n" * 5)
    _, _, said = run(url, "--yes", file)
    assert 'with all such cells mended this goes with --timestamp "time" --value "load"' in said


@pytest.mark.parametrize("given", [(), ("--timestamp", "time"), ("--timestamp", "time", "--value", "cpu")])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_both_readings_of_a_date_are_named(
    url: str, tmp_path: Path, given: tuple[str, ...], dry: tuple[str, ...]
) -> None:
    """Also if the columns are clear and only the form of the dates is open: no row is refused for it."""
    file = tmp_path / "us.csv"
    file.write_text("time,cpu\n11/12/2026 10:00,1\n11/11/2026 10:00,2\n")
    status, told, said = run(url, "--yes", *given, *dry, file)
    assert (status, told) == (2, "")
    assert all(f'--time-format "{form} %H:%M"' in said for form in ("%d/%m/%Y", "%m/%d/%Y"))
    assert not Path(f"{file}.refused.ndjson").exists()
    _, told, _ = run(url, *given, "--time-format", "%m/%d/%Y %H:%M", "--yes", file)
    assert "rejected" not in told


def test_a_dry_run_tells_the_reasons(url: str, tmp_path: Path) -> None:
    """Of the first rows that would be refused; it leaves no file."""
    file = tmp_path / "data.csv"
    file.write_text(f"timestamp,value\n{stamp()},x\n{stamp()},1\n")
    status, _, said = run(url, "--dry-run", file)
    assert (status, f"{file}: line 2, value: is 'x'" in said) == (1, True), said
    assert list(tmp_path.glob("*.refused.ndjson")) == []


def test_rows_that_are_no_longer_refused_are_not_kept(url: str, tmp_path: Path) -> None:
    """A file left by an earlier import is removed once all rows are recorded."""
    file = tmp_path / "data.csv"
    beside = Path(f"{file}.refused.ndjson")
    for text, status in ((f"{stamp()},x\n", 1), (f"{stamp()},1\n", 0)):
        file.write_text(f"timestamp,value\n{text}")
        assert run(url, "--dry-run", file)[0] == status
        assert beside.exists() == (status == 0)
        assert run(url, file)[0] == status
        assert beside.exists() == (status == 1)


def test_each_file_is_tried(url: str, tmp_path: Path) -> None:
    """A file that cannot be read holds up no other. A fault that all files would meet ends it and says what is left."""
    one, two = numbered(tmp_path / "one.csv", 1), numbered(tmp_path / "two.csv", 2)
    status, told, said = run(url, one, tmp_path / "no.csv", tmp_path, two)
    assert (status, told) == (1, f"{one}: 1 row: 1 recorded\n{two}: 2 rows: 2 recorded\n")
    assert f"statsapi: {tmp_path}/no.csv: No such file or directory" in said
    assert f"{tmp_path}: is a folder" in said
    os.mkfifo(tmp_path / "pipe.csv")
    process = subprocess.Popen(
        command_of(url, tmp_path / "pipe.csv", one, two), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with (tmp_path / "pipe.csv").open("wb"):  # it reads there now
        process.send_signal(signal.SIGINT)
        _, said_bytes = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"not tried: {one}, {two}" in said_bytes.decode()
