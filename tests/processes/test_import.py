"""`statsapi import` into a real service: files as people have them, each row once, whatever breaks off."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from statsapi.client import Client
from tests.servers import ROOT, Server, gunicorn_server, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with gunicorn_server(tmp_path / "server", workers=1) as running:
        running.wait_for_journals(1)
        yield running


def command_of(server: Server, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "statsapi", "import", "--url", server.target, *map(str, arguments)]


def run(server: Server, *arguments: str | Path, given: bytes = b"", folder: Path = ROOT) -> tuple[int, str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command_of(server, *arguments), cwd=folder, env=env, input=given, capture_output=True, timeout=120, check=False
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def values(server: Server, match: str = "*") -> Counter[tuple[str, float]]:
    with Client(server.target) as client:
        return Counter((event.series, event.value) for event in client.export(match=match))


def stamp(seconds_ago: float = 60.0, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return time.strftime(form, time.gmtime(time.time() - seconds_ago))


def numbered(path: Path, rows: int, header: str = "timestamp,value\n") -> Path:
    path.write_text(header + "".join(f"{stamp()},{number}\n" for number in range(rows)))
    return path


@pytest.mark.parametrize("header", ["timestamp,value\n", ""], ids=["header", "no header"])
@pytest.mark.parametrize("zipped", [False, True])
def test_each_row_counts_once_however_often(server: Server, tmp_path: Path, header: str, zipped: bool) -> None:
    """A file of several pieces, again, under another name, and longer by some rows: each row once."""
    file = numbered(tmp_path / "data.csv", 50_000, header)
    if zipped:
        file = tmp_path / "data.csv.gz"
        file.write_bytes(gzip.compress((tmp_path / "data.csv").read_bytes()))
    status, told, _ = run(server, "--yes", file)
    assert (status, told) == (0, f"{file}: 50,000 rows: 50,000 recorded\n")
    expected = Counter(("default", float(number)) for number in range(50_000))
    assert values(server) == expected
    renamed = file.rename(tmp_path / f"again-{file.name}")
    assert run(server, "--yes", renamed)[0] == 0
    assert values(server) == expected


def test_an_import_that_was_killed_goes_on(server: Server, tmp_path: Path) -> None:
    """SIGKILL in the middle, and once more from the start: the count is exact."""
    file = numbered(tmp_path / "data.csv", 400_000)
    process = subprocess.Popen(command_of(server, file), cwd=ROOT)
    with Client(server.target) as client:
        wait_until(lambda: client.statistics()["count"] > 0, "the first piece")
        process.kill()
        process.wait()
        assert client.statistics()["count"] < 400_000
        assert run(server, file)[0] == 0
        answer = client.statistics(stats=["count", "sum"])
    assert answer == {"count": 400_000, "sum": sum(range(400_000))}


def test_what_was_guessed_is_shown_and_asked_for(server: Server, tmp_path: Path) -> None:
    """A German spreadsheet's file: without --yes nothing is recorded and the options are named; these work as well."""
    file = tmp_path / "messung.csv"
    file.write_text("".join(["Zeit;Wert\r\n", *(f"{stamp(60 + n, '%d.%m.%Y %H:%M:%S')};{n},25\r\n" for n in range(3))]))
    status, _, said = run(server, file)
    assert status == 2
    options = '--timestamp "Zeit" --value "Wert" --delimiter ";" --decimal "," --time-format "%d.%m.%Y %H:%M:%S"'
    assert options in said
    assert "add --yes, or the options above" in said
    assert "--timezone Europe/Berlin" in said
    assert not values(server)
    status, told, said = run(server, "--dry-run", file)
    assert (status, told) == (0, f"{file}: 3 rows looked at: 3 would be recorded\n")
    assert not values(server)
    named = ["--timestamp", "Zeit", "--value", "Wert", "--delimiter", ";", "--decimal", ",", "--into", "hall"]
    status, told, said = run(server, *named, "--time-format", "%d.%m.%Y %H:%M:%S", "--timezone", "UTC", file)
    assert (status, said) == (0, "")
    assert values(server) == Counter([("hall", 0.25), ("hall", 1.25), ("hall", 2.25)])
    assert run(server, "--yes", file)[0] == 0
    assert sum(values(server, "default").values()) == 3


def test_refused_rows_are_kept_beside(server: Server, tmp_path: Path) -> None:
    """With their number in the file and the reason, also behind the first piece; all others are recorded."""
    lines = [f"{stamp()},{number}" for number in range(25_000)]
    lines[2], lines[23_000] = "not a time,2", f"{stamp()},x"
    file = tmp_path / "data.csv"
    file.write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    status, told, said = run(server, file)
    assert (status, told) == (1, f"{file}: 25,000 rows: 24,998 recorded, 2 rejected\n")
    assert said.count(f"{file}.refused.ndjson") == 1
    kept = [json.loads(line) for line in Path(f"{file}.refused.ndjson").read_text().splitlines()]
    assert [(each["line"], each["row"], each["field"]) for each in kept] == [
        (4, "not a time,2", "timestamp"),
        (23_002, lines[23_000], "value"),
    ]
    assert sum(values(server).values()) == 24_998


def test_rows_with_line_ends_within_quotes_stay_whole(server: Server, tmp_path: Path) -> None:
    """Where a piece ends as well."""
    rows = 45_000
    file = tmp_path / "data.csv"
    file.write_text("at,v,note\n" + "".join(f'{stamp()},{n},"one\ntwo, ""three"""\n' for n in range(rows)))
    assert run(server, "--timestamp", "at", "--value", "v", file)[0] == 0
    assert values(server) == Counter(("default", float(number)) for number in range(rows))


@pytest.mark.parametrize("name", ["data.ndjson", "data.json", "data.lp"])
def test_the_other_forms(server: Server, tmp_path: Path, name: str) -> None:
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
    assert run(server, file)[0] == 0
    form = {"ndjson": "ndjson", "json": "json", "lp": "lines"}[name.rpartition(".")[2]]
    assert run(server, "--form", form, "-", given=text.encode())[0] == 0
    assert values(server) == Counter(("a b", float(number)) for number in range(5))


@pytest.mark.parametrize(
    ("name", "content", "arguments", "status", "said"),
    [
        ("data.xlsx", b"", [], 2, "give --form csv, ndjson, json or lines"),
        ("missing.csv", None, [], 1, "No such file or directory"),
        ("cut.csv.gz", gzip.compress(b"timestamp,value\n" * 9000)[:-20], [], 1, "no whole gzip file"),
        ("data.csv.zst", b"", [], 2, "zstdcat"),
        ("data.csv", "timestamp,value\n".encode("utf-16"), [], 1, "iconv -f UTF-16"),
        ("data.json", b"[{]", [], 1, "JSON"),
        ("data.json", b"[]", ["--value", "x"], 2, "columns are for CSV and NDJSON"),
        ("data.csv", b"timestamp,value\n", ["--timezone", "Mars/Base"], 1, "timezone"),
        ("data.csv", b"timestamp,value\n", ["--skip", "x"], 1, "skip"),
        ("data.lp", b"cpu value=1\n", ["--dry-run"], 2, "--dry-run is for"),
    ],
)
def test_files_that_cannot_be_read(
    server: Server, tmp_path: Path, name: str, content: bytes | None, arguments: list[str], status: int, said: str
) -> None:
    """One line with the cure; nothing is recorded."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found, _, errors = run(server, *arguments, tmp_path / name)
    assert found == status, errors
    assert said in errors
    assert not values(server)


def test_a_quote_that_is_never_closed_fills_no_memory(server: Server, tmp_path: Path) -> None:
    """It is told, and nothing is recorded; what stands before in other pieces stays."""
    file = tmp_path / "data.csv"
    file.write_text(
        "timestamp,value,note\n" + f'{stamp()},1,5" pipe\n' + f"{stamp()},1,aaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" * 400_000
    )
    status, _, said = run(server, "--timestamp", "timestamp", "--value", "value", file)
    assert status == 1
    assert "hold a quote that is never closed" in said
    assert not values(server)


def test_a_guess_without_a_header_says_so(server: Server, tmp_path: Path) -> None:
    """The options that are shown work as they are."""
    file = tmp_path / "data.csv"
    file.write_text("".join(f"{stamp()},{number}\n" for number in range(3)))
    status, _, said = run(server, file)
    assert status == 2
    assert '--timestamp "1" --value "2" --no-header' in said
    assert run(server, "--timestamp", "1", "--value", "2", "--no-header", file)[0] == 0
    assert sum(values(server).values()) == 3


def test_an_empty_file_is_nothing(server: Server, tmp_path: Path) -> None:
    """0 rows, and no error."""
    (tmp_path / "data.csv").touch()
    assert run(server, tmp_path / "data.csv")[:2] == (0, f"{tmp_path}/data.csv: 0 rows: 0 recorded\n")


@pytest.mark.parametrize("form", ["csv", "ndjson", "influx"])
def test_an_export_comes_back(server: Server, tmp_path: Path, form: str) -> None:
    """To a file and to standard output: what is imported of it elsewhere is the same; a file is whole or as it was."""
    with Client(server.target) as client:
        client.record_many(
            [{"value": number / 7, "series": f"s {number % 2}", "tags": {"a": "b,c"}} for number in range(9)]
        )
    held = values(server)
    command = [sys.executable, "-m", "statsapi", "export", "--url", server.target, "--form", form]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    file = tmp_path / f"events.{'lp' if form == 'influx' else form}"
    told = subprocess.run([*command, "-o", str(file)], cwd=ROOT, capture_output=True, check=True)
    assert file.read_bytes() == done.stdout
    assert told.stderr.decode() == f"{file}: {len(done.stdout):,} bytes\n"
    with gunicorn_server(tmp_path / "other", workers=1) as other:
        assert run(other, file)[0] == 0
        assert values(other) == held
    refused = subprocess.run(
        [*command, "-o", str(file), "--start", "whenever"], cwd=ROOT, capture_output=True, check=False
    )
    assert refused.returncode == 1
    assert b"start" in refused.stderr
    assert file.read_bytes() == done.stdout
