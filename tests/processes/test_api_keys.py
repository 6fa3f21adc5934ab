"""API keys of real servers: rotation without a restart, and what they say and do not say of keys."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import jwt
import pytest

from statsapi.keys import new_key
from tests.servers import Server, gunicorn_server, start_gunicorn, stop, wait_until


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rotation_on_a_running_server(tmp_path: Path) -> None:
    """By a change of the file, and by SIGHUP; a broken file stops nothing, not even at SIGHUP; no key is logged."""
    (old, held_old), (new, held_new), (late, held_late) = (new_key(["write", "admin"], "a") for _ in range(3))
    file = tmp_path / "keys"

    def store(content: str) -> None:
        (tmp_path / "new").write_text(content)
        (tmp_path / "new").replace(file)

    def status(server: Server, key: str) -> int:
        return server.request("GET", "/debug/events", headers={"Authorization": f"Bearer {key}"})[0]

    def settle(server: Server, *, good: str, bad: str) -> None:
        """Until both workers say so: a change is seen by each for itself, when a request comes."""
        wait_until(
            lambda: {status(server, good) for _ in range(12)} == {200} and status(server, bad) == 401, "the new keys"
        )

    store(held_old.line())
    options: dict[str, Any] = {
        "env": {"STATSAPI_API_KEYS_FILE": str(file)},
        "args": ["--log-level", "debug", "--access-logfile", "-"],
    }
    with gunicorn_server(tmp_path / "server", workers=2, **options) as server:
        server.wait_for_journals(2)
        assert (status(server, old), status(server, new)) == (200, 401)
        store(f"{held_old.line()}\n{held_new.line()}\n")
        settle(server, good=new, bad=late)
        assert status(server, old) == 200
        store(held_new.line())
        settle(server, good=new, bad=old)

        store(f"a admin {new}")
        before = server.workers()
        server.signal(signal.SIGHUP)
        server.wait_until(
            lambda: len(server.workers()) == 2 and server.workers().isdisjoint(before), "the workers to be replaced"
        )
        assert server.process.poll() is None
        assert "line 1: the hash must be" in server.log
        # What the other workers read last, not what the arbiter read at its last fork, when `old` was there still.
        assert {(status(server, new), status(server, old)) for _ in range(6)} == {(200, 401)}

        store(held_late.line())
        before = server.workers()
        server.signal(signal.SIGHUP)
        server.wait_until(
            lambda: len(server.workers()) == 2 and server.workers().isdisjoint(before), "the workers to be replaced"
        )
        settle(server, good=late, bad=old)

        unreadable = f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization Bearer {late}\r\n\r\n"
        with server.connect() as sock:
            sock.sendall(unreadable.encode())
            assert sock.recv(65_536).startswith(b"HTTP/1.1 400")
        server.wait_for_log("statsapi_…")
        for key in (old, new, late):
            assert key not in server.log


def test_keys_for_tokens_are_changed_while_serving(tmp_path: Path) -> None:
    """A changed key set counts on both workers; while the file is broken new workers have what the others have, and a
    start is refused.
    """
    secrets = {name: name.encode() * 32 for name in ("a", "b")}

    def store(*names: str) -> None:
        keys = [{"kty": "oct", "kid": name, "k": urlsafe_b64encode(secrets[name]).decode()} for name in names]
        (tmp_path / "new").write_text(json.dumps({"keys": keys}))
        os.replace(tmp_path / "new", file)

    def status(server: Server, name: str) -> int:
        claims = {"iss": "me", "aud": "you", "sub": "ada", "scope": "read", "exp": time.time() + 300}
        token = jwt.encode(claims, secrets[name], headers={"kid": name})
        return server.request("GET", "/statistics", headers={"Authorization": f"Bearer {token}"})[0]

    file = tmp_path / "jwks.json"
    env = {"STATSAPI_JWT_JWKS_FILE": str(file), "STATSAPI_JWT_ISSUER": "me", "STATSAPI_JWT_AUDIENCE": "you"}
    store("a")
    with gunicorn_server(tmp_path / "server", workers=2, env=env) as server:
        server.wait_for_journals(2)
        assert (status(server, "a"), status(server, "b")) == (200, 401)
        store("b")
        wait_until(
            lambda: {status(server, "b") for _ in range(12)} == {200} and status(server, "a") == 401, "the new keys"
        )
        file.write_text("{")
        before = server.workers()
        server.signal(signal.SIGHUP)
        server.wait_until(
            lambda: len(server.workers()) == 2 and server.workers().isdisjoint(before), "the workers to be replaced"
        )
        assert {(status(server, "b"), status(server, "a")) for _ in range(6)} == {(200, 401)}
    refused = start_gunicorn(tmp_path / "refused", env=env)
    try:
        assert refused.process.wait(30) == 78
        assert f"STATSAPI_JWT_JWKS_FILE={file} is not a key set" in refused.log
        assert "Traceback" not in refused.log
    finally:
        stop(refused)


@pytest.mark.parametrize("form", ["plain", "json"])
def test_a_key_in_a_url_is_not_logged(tmp_path: Path, form: str) -> None:
    """Written by mistake into a path, a query, a request id or a broken request line: no log has it, no answer."""
    key, held = new_key(["read"], "a")
    options: dict[str, Any] = {
        "env": {"STATSAPI_API_KEYS": held.line(), "STATSAPI_ACCESS_LOG": "on", "STATSAPI_LOG_FORMAT": form},
        "args": ["--log-level", "debug", "--access-logfile", "-"],
    }
    bearer = f"X-API-Key: {key}\r\n"
    with gunicorn_server(tmp_path, workers=1, **options) as server:
        for line, headers, status in (
            (f"GET /statistics?api_key={key} HTTP/1.1", "", 401),
            (f"GET /statistics?{key}=1 HTTP/1.1", bearer, 422),
            (f"GET /statistics?series=%20{key} HTTP/1.1", bearer, 422),
            (f"GET /{key} HTTP/1.1", "", 404),
            (f"GET /series/{key} HTTP/1.1", bearer, 405),
            (f"GET /%73{key[1:]}/{key}?{key} HTTP/1.1", f"Referer: http://a/{key}\r\n", 404),
            ("GET / HTTP/1.1", f"X-Request-ID: {key}\r\nUser-Agent: {key}\r\n", 200),
            (f"GET /{key} {key} HTTP/1.1", "", 400),
            (f"GET {key} HTTP/1.1", "", 400),
        ):
            with server.connect() as sock:
                sock.sendall(f"{line}\r\nHost: a\r\n{headers}Connection: close\r\n\r\n".encode())
                answer = b""
                while piece := sock.recv(65_536):
                    answer += piece
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (line, answer)
            assert key.encode() not in answer.partition(b"\r\n\r\n")[2]
        server.wait_for_log("statsapi_…")
    assert key not in server.log
    assert server.log.count("statsapi_…") >= 9
    assert "Traceback" not in server.log


def test_a_server_does_not_start_with_broken_keys(tmp_path: Path) -> None:
    """All faults are told, each on a line, beside those of the settings; exit status 78."""
    key, _ = new_key(["read"])
    file = tmp_path / "keys"
    file.write_text(f"{key}\na read {key}\n")
    env = {"STATSAPI_API_KEYS_FILE": str(file), "STATSAPI_WINDOW": "soon"}
    server = start_gunicorn(tmp_path / "server", workers=1, env=env)
    assert server.process.wait(30) == os.EX_CONFIG
    assert server.log.count("Refusing to start: ") == 3
    assert "line 1" in server.log
    assert "line 2" in server.log
    assert key not in server.log


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"KEY": "hunter2", "ISSUER": "me", "AUDIENCE": "you"}, "STATSAPI_JWT_KEY is too short a secret"),
        ({"KEY": "s" * 32}, "STATSAPI_JWT_ISSUER and STATSAPI_JWT_AUDIENCE"),
        ({"JWKS_FILE": "/nowhere", "KEY": "s" * 32, "ISSUER": "me", "AUDIENCE": "you"}, "are both set"),
    ],
)
def test_a_server_does_not_start_with_tokens_it_cannot_check(tmp_path: Path, given: dict[str, str], said: str) -> None:
    """Told beside the faults of other settings; exit status 78, and none of the key in the log."""
    env = {"STATSAPI_WINDOW": "soon"} | {f"STATSAPI_JWT_{name}": value for name, value in given.items()}
    server = start_gunicorn(tmp_path / "server", workers=1, env=env)
    assert server.process.wait(30) == os.EX_CONFIG
    assert "STATSAPI_WINDOW='soon'" in server.log
    assert said in server.log
    assert "Traceback" not in server.log
    assert given["KEY"] not in server.log


def test_the_server_names_no_version(tmp_path: Path) -> None:
    """Server is Gunicorn's bare name, or not there; what Gunicorn itself refuses is marked as all answers are."""
    with gunicorn_server(tmp_path, workers=1) as server:
        for path, status in (("/", 200), ("/" + "a" * 9000, 414)):
            with server.connect() as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                answer = http.client.HTTPResponse(sock)
                answer.begin()
                json.loads(answer.read())
            assert answer.status == status
            assert answer.headers["Server"] in ("gunicorn", None)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
