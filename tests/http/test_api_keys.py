"""API keys: what is stored, who may call what, rotation without a restart, and the headers of every answer."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, g
from flask.testing import FlaskClient

from statsapi import keys
from statsapi.api import observing
from statsapi.api.logs import JsonFormatter, PlainFormatter
from statsapi.app import create_app
from statsapi.cli.main import main
from statsapi.config import Settings
from statsapi.errors import ConfigError
from statsapi.keys import Keys, new_key
from statsapi.routes import ROUTES
from tests.calls import CALLS
from tests.fakes import NOW, FakeClock
from tests.servers import ROOT

EVENT = {"timestamp": NOW, "value": 42.5}


@contextmanager
def app_of(clock: FakeClock, **settings: Any) -> Iterator[Flask]:
    app = create_app(Settings(journal="memory://", **settings), clock_us=clock, background=False)
    with closing(app.extensions["statsapi"]):
        yield app


@pytest.fixture(scope="module")
def holders() -> dict[str, tuple[str, keys.ApiKey]]:
    """One key for each scope, by the scope's name."""
    return {scope: new_key([scope], f"{scope}-er") for scope in keys.SCOPES}


@pytest.fixture
def keyed(clock: FakeClock, holders: dict[str, tuple[str, keys.ApiKey]]) -> Iterator[Flask]:
    with app_of(clock, api_keys=";".join(held.line() for _, held in holders.values())) as app:
        yield app


@pytest.fixture
def client(keyed: Flask) -> FlaskClient:
    return keyed.test_client()


@pytest.fixture
def bearer(holders: dict[str, tuple[str, keys.ApiKey]]) -> Callable[[str], dict[str, str]]:
    return lambda scope: {"Authorization": f"Bearer {holders[scope][0]}"}


def call(client: FlaskClient, method: str, path: str, headers: dict[str, str] | None = None) -> Any:
    body = ([EVENT] if path == "/events" else EVENT) if method == "POST" else None
    return client.open(path, method=method, headers=headers, json=body)


# Who may call what


@pytest.mark.parametrize(("method", "path", "needed"), CALLS)
@pytest.mark.parametrize("scope", keys.SCOPES)
def test_each_call_needs_its_scope(
    client: FlaskClient, bearer: Callable[[str], dict[str, str]], method: str, path: str, needed: str, scope: str
) -> None:
    """A key with the scope, or admin, is let through; another gets a 403 that names what is missing."""
    answer = call(client, method, path, bearer(scope))
    if scope in (needed, "admin"):
        assert answer.status_code == 200
        return
    assert answer.status_code == 403
    assert answer.mimetype == "application/problem+json"
    assert answer.json["type"] == "urn:statsapi:problem:forbidden"
    assert answer.json["detail"] == f"This needs the scope {needed}, which key {scope}-er does not have."
    assert f'error="insufficient_scope", scope="{needed}"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(("method", "path", "needed"), CALLS)
def test_without_a_key_nothing_but_health_and_description_answers(
    client: FlaskClient, method: str, path: str, needed: str
) -> None:
    """No key is a 401 that says how to send one; what tells no event stays open."""
    answer = call(client, method, path)
    assert answer.status_code == 401
    assert answer.json["type"] == "urn:statsapi:problem:unauthorized"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="statsapi"'
    for path in ("/", "/healthz", "/readyz", "/openapi.json", "/docs/"):
        assert client.get(path).status_code == 200


def test_a_refused_event_is_not_recorded(client: FlaskClient, bearer: Callable[[str], dict[str, str]]) -> None:
    """Neither without a key nor with one that may only read."""
    assert call(client, "POST", "/event").status_code == 401
    assert call(client, "POST", "/event", bearer("read")).status_code == 403
    assert client.get("/statistics", headers=bearer("read")).json["count"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "bearer " + keys.KEY_PREFIX + "A" * 43},
        {"X-API-Key": "ключ".encode().decode("latin-1")},
        {"X-API-Key": "first-of-two, second-of-two"},
    ],
)
def test_an_unknown_key_is_not_told_back(client: FlaskClient, headers: dict[str, str]) -> None:
    """It is a 401 with error="invalid_token", in which the key does not appear."""
    answer = client.get("/statistics", headers=headers)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert next(iter(headers.values())).split()[-1] not in answer.text + str(answer.headers)


def test_both_headers_carry_a_key(client: FlaskClient, holders: dict[str, tuple[str, keys.ApiKey]]) -> None:
    """Authorization, however the scheme is written, or X-API-Key, also beside a proxy's Basic."""
    key = holders["read"][0]
    for headers in (
        {"Authorization": f"bearer  {key} "},
        {"X-API-Key": key},
        {"X-API-Key": key, "Authorization": "Basic dTpw"},
    ):
        assert client.get("/statistics", headers=headers).status_code == 200
    for headers in ({"Authorization": "Basic dTpw"}, {"Authorization": "Bearer "}, {"X-API-Key": ""}):
        assert client.get("/statistics", headers=headers).status_code == 401
    assert client.get(f"/statistics?api_key={key}").status_code == 401  # a URL ends up in logs


def test_head_is_guarded_as_get_and_unknown_paths_stay_404(client: FlaskClient) -> None:
    """A path that does not exist needs no key, and no method gets around a key."""
    assert client.head("/statistics").status_code == 401
    assert client.get("/nothing").status_code == 404
    assert client.put("/statistics").status_code == 405
    assert client.options("/statistics").status_code == 200


def test_an_endpoint_without_a_line_needs_admin(
    keyed: Flask, client: FlaskClient, bearer: Callable[[str], dict[str, str]]
) -> None:
    """A forgotten line locks a door, it does not open one."""
    keyed.add_url_rule("/forgotten", "forgotten", view_func=lambda: "in")
    assert [client.get("/forgotten", headers=bearer(scope)).status_code for scope in keys.SCOPES] == [403, 403, 200]


def test_without_keys_nothing_is_asked(app: Flask) -> None:
    """Until keys are configured every call is open, and a key that is sent is not looked at."""
    client = app.test_client()
    for method, path, _ in CALLS:
        assert call(client, method, path).status_code == 200
    assert client.get("/statistics", headers={"Authorization": "Bearer whatever"}).status_code == 200


def test_the_key_id_is_known_to_what_follows(
    keyed: Flask, client: FlaskClient, bearer: Callable[[str], dict[str, str]]
) -> None:
    """Logs and limits find it as g.key_id, on a 403 too; without a known key there is none."""
    seen = []

    @keyed.after_request
    def look(response: Response) -> Response:
        seen.append(g.get("key_id"))
        return response

    client.get("/statistics", headers=bearer("read"))
    client.get("/debug/events", headers=bearer("read"))
    client.get("/statistics", headers={"X-API-Key": "unknown"})
    client.get("/", headers=bearer("read"))
    assert seen == ["read-er", "read-er", None, None]


def test_an_idempotency_key_belongs_to_the_api_key(clock: FakeClock) -> None:
    """Two clients may use the same one; a client's old and new key, which share an id, are one client."""
    (old, held_old), (new, held_new), (other, held_other) = (new_key(["write"], name) for name in ("a", "a", "b"))
    with app_of(clock, api_keys=";".join(held.line() for held in (held_old, held_new, held_other))) as app:
        client = app.test_client()

        def post(key: str, value: float) -> Any:
            headers = {"X-API-Key": key, "Idempotency-Key": "1"}
            return client.post("/event", json=EVENT | {"value": value}, headers=headers)

        assert "Idempotent-Replayed" not in post(old, 1).headers
        assert "Idempotent-Replayed" not in post(other, 2).headers
        assert post(new, 1).headers["Idempotent-Replayed"] == "true"
        assert post(other, 2).headers["Idempotent-Replayed"] == "true"
        assert post(other, 1).status_code == 422


def test_a_rate_limit_is_the_keys_own(clock: FakeClock) -> None:
    """Two clients at one address do not use each other's up; a 403 counts for its key, as any other answer does."""
    (first, held_first), (second, held_second) = new_key(["read"], "a"), new_key(["read"], "b")
    entries = f"{held_first.line()};{held_second.line()}"
    with app_of(clock, api_keys=entries, rate_limit="2/day") as app:
        client = app.test_client()
        sent = [first, first, first, "unknown", second]
        statuses = [client.get("/series", headers={"X-API-Key": key}).status_code for key in sent]
        refused = [client.delete("/series/x", headers={"X-API-Key": second}) for _ in range(2)]
    assert statuses == [200, 200, 429, 401, 200]
    assert [answer.status_code for answer in refused] == [403, 429]
    assert "r=0" in refused[0].headers["RateLimit"]


def test_guessing_keys_uses_up_the_addresss_limit(clock: FakeClock) -> None:
    """A wrong key and a missing one count for the address: 429 instead of 401 then. A valid key has its own limit."""
    key, held = new_key(["read"], "a")
    with app_of(clock, api_keys=held.line(), rate_limit="3/day", trusted_proxies=1) as app:
        client = app.test_client()

        def ask(address: str, sent: str | None) -> Any:
            headers = {"X-Forwarded-For": address} | ({} if sent is None else {"X-API-Key": sent})
            return client.get("/series", headers=headers)

        guesses = [ask("10.0.0.1", sent) for sent in ("a", None, "b", "c", None)]
        assert [answer.status_code for answer in guesses] == [401, 401, 401, 429, 429]
        assert guesses[0].headers["RateLimit"].startswith('"default";r=2;')
        assert guesses[3].json["type"] == "urn:statsapi:problem:too-many-requests"
        assert "Retry-After" in guesses[3].headers
        assert "WWW-Authenticate" not in guesses[3].headers
        assert ask("10.0.0.1", key).status_code == 200
        assert ask("10.0.0.2", "a").status_code == 401


# What is stored


def test_a_line_is_id_scopes_and_hash(tmp_path: Path) -> None:
    """The documented form; comments and empty lines are passed over, and any tool can make the hash."""
    file = tmp_path / "keys"
    file.write_text(f"# who\n\n  a \t write,read blake2b:{blake2b(b'k', digest_size=32).hexdigest().upper()} # why\r\n")
    held = Keys(str(file), None).find("k")
    assert held is not None
    assert (held.id, held.may("write"), held.may("read"), held.may("admin")) == ("a", True, True, False)
    assert Keys(str(file), None).find("K") is None


def test_all_faults_are_told_and_none_tells_a_key(tmp_path: Path) -> None:
    """Each by its place: what stands there could be the key itself, pasted for the line."""
    file = tmp_path / "keys"
    key, held = new_key(["read"], "fine")
    lines = [held.line(), key, f"x read {key}", f"x write,root {'blake2b:' + '0' * 64}", f"-x read {key}", held.line()]
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        Keys(str(file), f"{held.line()};{key}")
    places = [fault.removeprefix(f"STATSAPI_API_KEYS_FILE={file}, ").partition(":")[0] for fault in caught.value.faults]
    inline = ["STATSAPI_API_KEYS, entry 1", "STATSAPI_API_KEYS, entry 2"]
    assert places == ["line 2", "line 3", "line 4", "line 5", "line 6", *inline]
    assert key not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"# none yet\n", b"\xff\xfe", b"a read x " * 100_000])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty one too: it must neither open the service nor lock everybody out."""
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="STATSAPI_API_KEYS_FILE"):
        Keys(str(file), None)


def test_the_app_refuses_keys_that_cannot_work(tmp_path: Path, clock: FakeClock) -> None:
    """A file that is not there, a directory, an entry that is no line."""
    for settings in ({"api_keys_file": f"{tmp_path}/none"}, {"api_keys_file": str(tmp_path)}, {"api_keys": "x"}):
        with pytest.raises(ConfigError, match="STATSAPI_API_KEYS"), app_of(clock, **settings):
            pass


def test_settings_do_not_show_the_entries() -> None:
    """Their repr, which may be logged, leaves out what could hold a key by mistake."""
    assert "secret" not in repr(Settings(api_keys="secret"))


# Rotation


class Seconds:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_changed_file_is_noticed_within_a_second(tmp_path: Path) -> None:
    """New keys work and old ones stop, even when size and mtime are those of before; not before a second is over."""
    (old, held_old), (new, held_new) = new_key(["read"], "a"), new_key(["read"], "a")
    file, clock_s = tmp_path / "keys", Seconds()
    file.write_text(held_old.line())
    os.utime(file, (1, 1))
    ring = Keys(str(file), None, clock_s=clock_s)
    file.write_text(held_new.line())
    os.utime(file, (1, 1))
    clock_s.now_s += 0.99
    assert ring.find(old)
    assert not ring.find(new)
    clock_s.now_s += 0.02
    assert ring.find(new)
    assert not ring.find(old)


def test_a_broken_file_keeps_the_keys_and_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also one that is gone or emptied; when it is good again its keys are taken."""
    caplog.set_level(logging.INFO, "statsapi")
    (old, held_old), (new, held_new) = new_key(["read"], "a"), new_key(["read"], "b")
    file, clock_s = tmp_path / "keys", Seconds()
    file.write_text(held_old.line())
    ring = Keys(str(file), None, clock_s=clock_s)

    def find(key: str) -> bool:
        clock_s.now_s += 2
        return ring.find(key) is not None

    for content, said in (("", "holds no key"), (f"{new} read", "line 1: must have 3 words"), (None, "cannot be read")):
        caplog.clear()
        file.unlink()
        if content is not None:
            file.write_text(content)
        assert all(find(old) for _ in range(3))
        (message,) = caplog.messages
        assert message.startswith("The API keys stay as they were: ")
        assert said in message
        assert new not in message
    caplog.clear()
    file.write_text(held_old.line())
    assert find(old)
    file.write_text(f"{held_old.line()}\n{held_new.line()}\n")
    assert find(old)
    assert find(new)
    assert caplog.messages == [
        "The API keys can be read again and have not changed",
        "The API keys changed: 2 keys now, with the ids a, b",
    ]


@pytest.mark.processes
def test_keys_that_start_on_a_broken_file_are_those_read_last(tmp_path: Path) -> None:
    """In one process and what it forks: a worker that is replaced meanwhile serves. Elsewhere it is refused."""
    key, held = new_key(["read"], "a")
    file = tmp_path / "keys"
    file.write_text(held.line())
    Keys(str(file), None)
    file.write_text("broken")
    assert Keys(str(file), None).find(key)
    code = f"from statsapi.keys import Keys; Keys({str(file)!r}, None)"
    elsewhere = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ConfigError" in elsewhere.stderr


def test_redaction_takes_keys_out_of_logs() -> None:
    """Wherever in the message they come from, and out of tracebacks; what is not a key stays."""
    key, _ = new_key(["read"])
    fault = ValueError, ValueError(key), None
    record = logging.LogRecord("x", logging.INFO, "x", 1, "got %s and %s", (key, "statsapi_window"), fault)
    plain = PlainFormatter(logging.Formatter("[x] %(message)s")).format(record)
    assert plain.startswith("[x] got statsapi_… and statsapi_window\n")
    assert plain.endswith("ValueError: statsapi_…")
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "got statsapi_… and statsapi_window"
    assert line["exception"].endswith("ValueError: statsapi_…")


# The command


@pytest.mark.processes
def test_the_command_makes_a_key_that_works(clock: FakeClock) -> None:
    """`python -m statsapi keys new` prints the key and the line to store, and the two fit."""
    command = [sys.executable, "-m", "statsapi", "keys", "new", "--scope", "write", "--scope", "read", "--id", "ingest"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    match = re.fullmatch(r"key:  (statsapi_[\w-]{43})\nline: (ingest write,read blake2b:[0-9a-f]{64})\n", printed)
    assert match, printed
    with app_of(clock, api_keys=match[2]) as app:
        assert app.test_client().get("/statistics", headers={"X-API-Key": match[1]}).json["count"] == 0


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An id with a space, an unknown scope, no scope, no command; `keys check` names the faults of the file that it was
    given, and no setting, or says that there is none.
    """
    assert main(["keys", "new", "--scope", "read", "--id", "a b"]) == 2
    for arguments in (["keys", "new", "--scope", "root"], ["keys", "new"], ["keys"], []):
        assert main(arguments) == 2
    file = tmp_path / "keys"
    file.write_text("a b")
    capsys.readouterr()
    assert main(["keys", "check", str(file)]) == os.EX_CONFIG
    assert capsys.readouterr().err.startswith(f"statsapi: {file}, line 1: must have 3 words")
    file.write_text("# none yet\n")
    assert main(["keys", "check", str(file)]) == os.EX_CONFIG
    assert capsys.readouterr().err.startswith(f"statsapi: {file} holds no key")
    lines = [new_key(["read"])[1].line() for _ in range(2)]
    for many, said in ((1, "1 key"), (2, "2 keys")):
        file.write_text("# ours\n" + "\n".join(lines[:many]))
        assert main(["keys", "check", str(file)]) == 0
        assert capsys.readouterr().out == f"{file}: {said}, no faults\n"


# The debug endpoint


def test_the_debug_endpoint_can_be_removed(clock: FakeClock) -> None:
    """STATSAPI_DEBUG_ENDPOINT=off: a 404 as for any unknown path, and GET / does not list it."""
    settings = Settings.from_env({"STATSAPI_DEBUG_ENDPOINT": "off"})
    with app_of(clock, debug_endpoint=settings.debug_endpoint) as app:
        client = app.test_client()
        assert client.get("/debug/events").status_code == 404
        assert client.get("/debug/events").json["type"] == "urn:statsapi:problem:not-found"
        assert "GET /debug/events" not in client.get("/").json["endpoints"]
        assert "GET /statistics" in client.get("/").json["endpoints"]
        assert "/debug/events" not in client.get("/openapi.json").json["paths"]
        assert "/statistics" in client.get("/openapi.json").json["paths"]


# Headers


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for method, path, _ in CALLS] + [("GET", "/nothing"), ("PUT", "/event")]
)
def test_every_answer_is_marked(app: Flask, method: str, path: str) -> None:
    """nosniff and no-store once each, on errors and streams too, and no header says what serves or who may read."""
    client = app.test_client()
    for headers in ({}, {"Accept": "text/csv"}, {"Origin": "https://elsewhere.example"}):
        answer = call(client, method, path, headers)
        assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]
        assert answer.headers.getlist("Cache-Control") == ["no-store"]
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control-") or name == "Server"]


def test_pages_have_a_policy_and_may_have_their_own(app: Flask) -> None:
    """HTML may load nothing unless the page's own answer says otherwise; a static file may be cached."""
    own = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "max-age=60"}
    app.add_url_rule("/strict", "strict", view_func=lambda: "<p>")
    app.add_url_rule("/own", "own", view_func=lambda: ("<p>", own))
    client = app.test_client()
    assert client.get("/strict").headers["Content-Security-Policy"] == observing.HTML_POLICY
    assert client.get("/strict").headers["Referrer-Policy"] == "no-referrer"
    answer = client.get("/own")
    assert {name: answer.headers.getlist(name) for name in own} == {name: [value] for name, value in own.items()}
    assert "Content-Security-Policy" not in client.get("/").headers


def test_a_job_gives_its_key_as_the_password(clock: FakeClock) -> None:
    """Prometheus' client has basic_auth_handler: for a push, and for the DELETE with which a job ends."""
    key, held = new_key(["write"])
    with app_of(clock, api_keys=held.line()) as app:
        client = app.test_client()
        for method, status in (("PUT", 200), ("POST", 200), ("DELETE", 202)):
            for password, expected in ((key, status), ("wrong", 401)):
                answer = client.open("/metrics/job/backup", method=method, auth=("any", password))
                assert answer.status_code == expected, method


# CORS


@pytest.mark.parametrize("origin", ["https://app.example.com", "*"])
def test_a_preflight_needs_no_key_and_the_call_does(clock: FakeClock, origin: str) -> None:
    """A configured origin may send keys and read what comes, refusals too, so that its script can tell why."""
    key, held = new_key(["write"])
    settings = Settings.from_env({"STATSAPI_CORS_ORIGINS": f" {origin} , http://localhost:3000 "})
    with app_of(clock, api_keys=held.line(), cors_origins=settings.cors_origins) as app:
        client = app.test_client()
        asked = {
            "Origin": "https://app.example.com",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
        }
        preflight = client.options("/event", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == (asked["Origin"] if origin != "*" else "*")
        assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, content-type, idempotency-key"
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "Access-Control-Allow-Credentials" not in preflight.headers
        sent = {"Origin": asked["Origin"]}
        for headers, status in ((sent, 401), (sent | {"X-API-Key": key}, 200)):
            answer = call(client, "POST", "/event", headers)
            assert answer.status_code == status
            assert "Access-Control-Allow-Origin" in answer.headers
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


def test_a_page_may_use_every_endpoint_and_read_every_header(clock: FakeClock) -> None:
    """Each method of the table of routes passes the preflight, and each header that the description names is shown,
    but for those that only caches and InfluxDB's clients read.
    """
    origin = {"Origin": "https://app.example.com"}
    with app_of(clock, cors_origins=(origin["Origin"],)) as app:
        client = app.test_client()
        for route in ROUTES:
            asked = origin | {"Access-Control-Request-Method": route.method}
            allowed = client.options(route.path, headers=asked).headers["Access-Control-Allow-Methods"]
            assert route.method in allowed.split(", "), route
        shown = client.get("/", headers=origin).headers["Access-Control-Expose-Headers"].split(", ")
        description: Any = client.get("/openapi.json").json
        operations = [each for path in description["paths"].values() for each in path.values()]
        answers = [*(answer for each in operations for answer in each["responses"].values())]
        answers += description["components"]["responses"].values()
        told = {name for answer in answers for name in answer.get("headers", {})}
        assert "X-Statsapi-Step" in told
        assert told - {"Vary", "X-Influxdb-Version", "X-Influxdb-Build"} <= set(shown)


def test_other_origins_get_nothing(clock: FakeClock) -> None:
    """An origin is matched whole, and neither as a pattern nor as a part; without Origin there is no header at all."""
    with app_of(clock, cors_origins=("https://app.example.com",)) as app:
        client = app.test_client()
        for origin in ("https://appXexample.com", "https://app.example.com.evil", "http://app.example.com", "null"):
            for answer in (
                client.get("/statistics", headers={"Origin": origin}),
                client.options("/event", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}),
            ):
                assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
        assert not [name for name, _ in client.get("/").headers if name.startswith("Access-Control-")]


@pytest.mark.parametrize("origin", ["app.example.com", "https://a/b", "https://.*", "null", "ftp://a", "https://a,b"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    """A path, a pattern, a bare name: it would silently match nothing, or too much."""
    with pytest.raises(ConfigError, match="is not an origin"):
        Settings.from_env({"STATSAPI_CORS_ORIGINS": origin})
