"""`statsapi doctor`, `config` and `tail`: five planted faults and more, with real servers and a real nginx."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from statsapi import __version__
from statsapi.keys import new_key
from tests.command_line import COMMAND, forget_surroundings, run
from tests.programs import nginx_with, require_binary
from tests.servers import DEADLINE_S, ROOT, Server, free_port, statsapi_serve, wait_until


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_surroundings(monkeypatch, tmp_path)


@contextmanager
def served(folder: Path, *, planted: str = "", **options: Any) -> Iterator[Server]:
    """`statsapi serve` with a line of Python run before it, which plants a fault."""
    folder.mkdir()
    code = f"import sys, time, statsapi\n{planted}\nfrom statsapi.cli.main import main\nsys.exit(main())"
    command = [sys.executable, "-c", code]
    at = ("--port", "0", "--workers", "1", "--journal", "memory://")
    with statsapi_serve(folder, *at, command=command, **options) as server:
        yield server


def findings(*arguments: str, faults: int, **options: Any) -> dict[str, dict[str, str]]:
    """The faults that the doctor finds, by what it looked at; the others must be well."""
    done = run("doctor", *arguments, "--json", **options)
    told = done.json
    assert (done.status, done.err, told["faults"]) == (int(faults > 0), "", faults), told
    return {each["check"]: each for each in told["findings"] if each["state"] == "fault"}


# doctor


def test_nothing_is_wrong(tmp_path: Path) -> None:
    """All is looked at, in lines of ok; a key is told what it may."""
    key, held = new_key(["admin"], "a")
    with served(tmp_path / "s", env={"STATSAPI_API_KEYS": held.line()}) as server:
        done = run("doctor", server.target, "--key", key)
    assert (done.status, done.err) == (0, "")
    states = [line.split()[:2] for line in done.out.splitlines()]
    looked_at = ("address", "version", "clock", "journal", "proxies", "key")
    assert states == [*(["ok", f"{each}:"] for each in looked_at), ["nothing", "is"]]
    assert done.out.splitlines()[-2].endswith("it may read and admin")
    with served(tmp_path / "open") as server:
        assert "asks for no key" in run("doctor", server.target, "--key", key).out


@pytest.mark.parametrize(
    ("seconds", "said"), [(-3600, "60.0 min behind"), (90, "ahead of"), (-9 * 86400, "9.0 d behind")]
)
def test_a_skewed_clock_is_found(tmp_path: Path, seconds: int, said: str) -> None:
    """By how much, in which direction, and that NTP is the cure."""
    planted = f"real = time.time_ns; time.time_ns = lambda: real() + {seconds} * 10**9"
    with served(tmp_path / "s", planted=planted) as server:
        found = findings(server.target, faults=1)["clock"]
    assert said in found["said"]
    assert "NTP" in found["cure"]


def test_a_wrong_key_is_found(tmp_path: Path) -> None:
    """None, an unknown one, one that lost its end, and where it came from; one that only records is told as such."""
    (reader, reads), (writer, writes) = new_key(["read"], "r"), new_key(["write"], "w")
    with served(tmp_path / "s", env={"STATSAPI_API_KEYS": f"{reads.line()};{writes.line()}"}) as server:
        assert "there is none" in findings(server.target, faults=1)["key"]["said"]
        found = findings(server.target, "--key", reader[:-1], faults=1)["key"]
        assert "does not know this key (--key)" in found["said"]
        assert "keys new" in found["cure"]
        found = findings(server.target, faults=1, env={"STATSAPI_API_KEY": "statsapi_other"})["key"]
        assert "(STATSAPI_API_KEY)" in found["said"]
        assert findings(server.target, "--key", reader, faults=0) == {}
        assert "one for recording" in run("doctor", server.target, "--key", writer).out


def test_an_old_version_is_found(tmp_path: Path) -> None:
    """Of the service, or of this command."""
    for version, cure in (("0.0.9", "upgrade the service"), ("99.1", "upgrade this command")):
        with served(tmp_path / version, planted=f"statsapi.__version__ = {version!r}") as server:
            found = findings(server.target, faults=1)["version"]
        assert version in found["said"]
        assert __version__ in found["said"]
        assert cure in found["cure"]


class Front(NamedTuple):
    """Where an nginx listens: `redirecting` sends to `tls`."""

    plain: int
    tls: int
    redirecting: int
    certificate: str


@contextmanager
def behind_nginx(folder: Path, server: Server) -> Iterator[Front]:
    openssl = require_binary("openssl")
    folder.mkdir()
    front = Front(free_port(), free_port(), free_port(), str(folder / "certificate.pem"))
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", folder / "key.pem", "-out", front.certificate),
        ],
        check=True,
        capture_output=True,
    )
    location = f"""location / {{
        proxy_pass {server.target};
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }}"""
    site = f"""
    server {{ listen 127.0.0.1:{front.plain}; {location} }}
    server {{
        listen 127.0.0.1:{front.tls} ssl;
        ssl_certificate {front.certificate}; ssl_certificate_key {folder}/key.pem;
        {location}
    }}
    server {{ listen 127.0.0.1:{front.redirecting}; return 308 https://localhost:{front.tls}$request_uri; }}
    """
    with nginx_with(folder, site, front.plain):
        yield front


def test_http_for_https_is_found(tmp_path: Path) -> None:
    """A port that speaks TLS, one that redirects there, the reverse, and a certificate that nobody trusts."""
    env = {"STATSAPI_TRUSTED_PROXIES": "1"}
    with served(tmp_path / "s", env=env) as server, behind_nginx(tmp_path / "n", server) as front:
        trusting = ("--ca-file", front.certificate)
        assert findings(f"https://localhost:{front.tls}", *trusting, faults=0) == {}
        found = findings(f"http://localhost:{front.tls}", faults=1)["address"]
        assert "speaks TLS" in found["said"]
        assert "https://" in found["cure"]
        found = findings(f"http://localhost:{front.redirecting}", faults=1)["address"]
        assert f"redirects to https://localhost:{front.tls}/" in found["said"]
        assert "https://" in found["cure"]
        found = findings(f"https://localhost:{front.plain}", faults=1)["address"]
        assert "does not speak TLS" in found["said"]
        assert "http://" in found["cure"]
        found = findings(f"https://localhost:{front.tls}", faults=1)["address"]
        assert "is not trusted (self-signed certificate)" in found["said"]
        assert "--ca-file" in found["cure"]


def test_a_proxy_that_is_not_trusted_is_found(tmp_path: Path) -> None:
    """STATSAPI_TRUSTED_PROXIES of 0 and 2 behind one nginx; 1 is right; and without nginx there is nothing to say."""
    for trusted, faults in (("0", 1), ("1", 0), ("2", 1)):
        env = {"STATSAPI_TRUSTED_PROXIES": trusted}
        with served(tmp_path / f"s{trusted}", env=env) as server, behind_nginx(tmp_path / trusted, server) as front:
            found = findings(f"http://127.0.0.1:{front.plain}", faults=faults)
            assert findings(server.target, faults=0) == {}
        if faults:
            assert f"STATSAPI_TRUSTED_PROXIES={trusted}" in found["proxies"]["said"]
            assert "how many proxies" in found["proxies"]["cure"]


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    """Nothing listens, a name that nobody has, a proxy without a service."""
    env = {"STATSAPI_TRUSTED_PROXIES": "1"}
    with served(tmp_path / "s", env=env) as server, behind_nginx(tmp_path / "n", server) as front:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(DEADLINE_S)
        found = findings(f"http://127.0.0.1:{front.plain}", faults=1)["address"]
        assert "502" in found["said"]
    for url in (f"http://127.0.0.1:{free_port()}", "http://no.such.host.invalid"):
        assert findings(url, faults=1)["address"]["cure"]
    assert run("doctor", "nonsense").status == 2


# config


def test_config_tells_where_each_came_from_and_no_secrets(tmp_path: Path) -> None:
    """Options, variables, the file, defaults; passwords and keys are nowhere in it."""
    key, held = new_key(["read"], "r")
    file = tmp_path / "file.toml"
    file.write_text(f'url = "http://stats:8000"\nkey = "{key}"\n')
    file.chmod(0o600)
    env = {
        "STATSAPI_CONFIG": str(file),
        "STATSAPI_CA_FILE": "/ca.pem",
        "STATSAPI_JOURNAL": "redis://u:hidden@h:6379/0?stream=x",
        "STATSAPI_RATE_LIMIT_STORAGE": "redis://:hidden@h:6379/1",
        "STATSAPI_API_KEYS": held.line(),
        "STATSAPI_WINDOW": "30m",
        "STATSAPI_WINDOWS": "x",
        "WEB_CONCURRENCY": "3",
    }
    done = run("config", "--json", "--timeout", "3", env=env)
    told = done.json
    assert done.status == 0
    assert told["client"] == {
        "url": {"value": "http://stats:8000", "source": str(file)},
        "key": {"value": "(not shown)", "source": str(file)},
        "ca_file": {"value": "/ca.pem", "source": "STATSAPI_CA_FILE"},
        "timeout": {"value": "3", "source": "--timeout"},
    }
    assert told["serve"]["STATSAPI_JOURNAL"] == {"value": "redis://…@h:6379/0?stream=x", "source": "environment"}
    assert told["serve"]["STATSAPI_WINDOW"] == {"value": "30m", "source": "environment"}
    assert told["serve"]["STATSAPI_RETENTION"] == {"value": "1h", "source": "default"}
    assert told["serve"]["WEB_CONCURRENCY"]["value"] == "3"
    assert (told["ignored"], told["faults"]) == (["STATSAPI_WINDOWS"], [])
    assert done.err == "statsapi: warning: STATSAPI_WINDOWS is not a setting and is ignored\n"
    for arguments in ([], ["--changed"], ["--json"]):
        done = run("config", *arguments, env=env)
        assert "hidden" not in done.out + done.err
        assert held.digest.hex() not in done.out + done.err
        assert key not in done.out + done.err
    assert "STATSAPI_RETENTION" not in run("config", "--changed", env=env).out


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:hidden/db",
        "postgresql://ada:hid/hidden@h/db",
        "redis://ada:hidden/0",
        "redis://h:1,ada:hidden",
        "http://ada:hidden/",
        "http://ada:hidden@h/",
    ],
)
def test_a_password_without_its_place_in_a_url_is_not_told(url: str) -> None:
    """Its @host was forgotten, or a / in it was not written as %2F: neither settings nor faults show it."""
    env = dict.fromkeys(("STATSAPI_URL", "STATSAPI_JOURNAL", "STATSAPI_RATE_LIMIT_STORAGE"), url)
    for arguments in (["config"], ["config", "--json"], ["journal", "info"], ["doctor"]):
        done = run(*arguments, env=env)
        assert done.status
        assert "hidden" not in done.out + done.err


def test_doctor_of_a_page_that_is_not_ours(tmp_path: Path) -> None:
    """The page's own semicolons (its styles) are no cure."""
    html = "<html><style> body { width: 35em; margin: 0 auto; } </style><h1>Welcome to nginx!</h1></html>"
    port = free_port()
    site = f"server {{ listen 127.0.0.1:{port}; default_type text/html; location / {{ return 200 '{html}'; }} }}"
    with nginx_with(tmp_path, site, port):
        found = findings(f"http://127.0.0.1:{port}", faults=1)["address"]
    assert "35em" not in found["cure"]
    assert "--url" in found["cure"]


def test_config_names_what_is_wrong() -> None:
    """Status 78, each fault in a line, and the settings all the same; faulty keys too. Defaults are none."""
    assert run("config")[::2] == (0, "")
    assert "must have 3 words" in run("config", env={"STATSAPI_API_KEYS": "x"}).err
    done = run("config", env={"STATSAPI_WINDOW": "soon", "STATSAPI_FSYNC": "perhaps"})
    assert (done.status, done.err.count("\n")) == (78, 2)
    assert "STATSAPI_WINDOW   " in done.out
    tokens = {"STATSAPI_JWT_KEY": "short", "STATSAPI_JWT_ISSUER": "me", "STATSAPI_JWT_AUDIENCE": "you"}
    done = run("config", env=tokens)
    assert (done.status, done.err.count("\n")) == (78, 1)
    assert "STATSAPI_JWT_KEY is too short" in done.err
    assert "STATSAPI_JWT_ISSUER" in run("config", env={"STATSAPI_JWT_KEY": "s" * 32}).err
    for name, value, said in (
        ("PATH_PREFIX", "/events", "begins like an endpoint"),
        ("JOURNAL", "rediss://h?ssl_ca_certs=/nope", "ssl_ca_certs=/nope is not a file of certificates"),
        ("JOURNAL", "redis://h/99999999999999999999", "the last database that there can be is"),
        ("JWT_AUDIENCE", "x", "does nothing without a key"),
        ("METRICS_SERIES", "a,,b", "has an empty item before, after or between commas"),
    ):
        done = run("config", env={f"STATSAPI_{name}": value})
        assert (done.status, done.err.count("\n")) == (78, 1)
        assert said in done.err


# tail


class Tail:
    """A running `statsapi tail --json`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._out, self._err = folder / "tail.out", folder / "tail.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*COMMAND, "tail", "--json", "--interval", "0.1", *arguments],
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    @property
    def values(self) -> Counter[float]:
        lines = self._out.read_text().rpartition("\n")[0].splitlines()
        return Counter(json.loads(line)["value"] for line in lines)

    @property
    def said(self) -> str:
        return self._err.read_text()

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(DEADLINE_S) == 130, self.said


def record(server: Server, *values: float, ago_s: float = 0.0, series: str = "a") -> None:
    moment = time.time() - ago_s
    for value in values:
        event = {"value": value, "timestamp": moment, "series": series}
        assert server.request("POST", "/event", event)[0] == 200


def test_tail_shows_each_event_once(tmp_path: Path) -> None:
    """Equal ones as often as they came, late ones, ones ahead of the clock; across a time when the service is away."""
    folder = tmp_path / "s"
    folder.mkdir()
    at = ("--port", str(free_port()), "--workers", "1")
    expected: Counter[float] = Counter()

    def expect(*values: float) -> None:
        expected.update(values)
        wait_until(lambda: tail.values == expected, f"{expected}; it shows {tail.values}: {tail.said}")

    with statsapi_serve(folder, *at) as server:
        record(server, 1, 2, 3)
        record(server, 100, series="b")
        tail = Tail(tmp_path, "a", "--last", "2", "--url", server.target)
        try:
            expect(2, 3)
            record(server, 4, 4, 4)  # at one instant
            expect(4, 4, 4)
            record(server, 5, ago_s=120)
            expect(5)
            record(server, 5, 6, ago_s=120)
            record(server, 7, ago_s=-30)
            record(server, 8, ago_s=1200)  # beyond --late
            record(server, 9)
            expect(5, 6, 7, 9)
        except BaseException:
            tail.close()
            raise
    try:
        wait_until(lambda: "going on when it is back" in tail.said, "the news")
        with statsapi_serve(folder, *at) as server:
            record(server, 10, 10)
            record(server, 11, ago_s=100)
            expect(10, 10, 11)
            record(server, 12)
            expect(12)
            tail.close()
    except BaseException:
        tail._process.kill()
        raise
    assert tail.said.strip().count("\n") == 0


def test_tail_of_a_service_that_keeps_less(tmp_path: Path) -> None:
    """A retention shorter than --late is no error; a refusal is, and ends it."""
    env = {"STATSAPI_WINDOW": "1m", "STATSAPI_RETENTION": "1m"}
    with served(tmp_path / "s", env=env) as server:
        record(server, 1)
        tail = Tail(tmp_path, "--url", server.target, "--late", "86400")
        wait_until(lambda: tail.values == Counter([1]), "the first")
        record(server, 2)
        wait_until(lambda: tail.values == Counter([1, 2]), "the second")
        tail.close()
        done = run("tail", "--where", "nonsense", "--url", server.target)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
