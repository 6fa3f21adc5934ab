"""deploy/nginx.conf, that very file, in a real nginx in front of a real Gunicorn on a Unix socket."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.keys import new_key
from tests.programs import nginx_with, require_binary
from tests.servers import ROOT, Server, free_port, gunicorn_server, stop, wait_until

PROBE = "tests.servers:app"

TLS_LINE = re.compile(r"^    # (?=listen 443 |listen \[::\]:443 |ssl_|add_header Strict|if \(\$scheme)", re.MULTILINE)


class Tls(NamedTuple):
    """Where nginx serves HTTPS, and with what."""

    port: int
    certificate: Path
    key: Path


@contextmanager
def nginx(directory: Path, socket_path: Path, header_timeout: str = "15s", tls: Tls | None = None) -> Iterator[int]:
    """nginx with the deployment's file, whose socket, port, log and patience alone are exchanged; gives the port.

    With `tls` the file's TLS lines are no comments any more, and their port and files are exchanged too.
    """
    port = free_port()
    site = (ROOT / "deploy" / "nginx.conf").read_text()
    exchanged = [
        ("unix:/run/statsapi/gunicorn.sock", f"unix:{socket_path}", 2),
        ("listen 80;", f"listen 127.0.0.1:{port};", 1),
        ("listen [::]:80;", f"listen [::1]:{port};", 1),
        ("/var/log/nginx/access.log", f"{directory}/access.log", 1),
        ("client_header_timeout 15s;", f"client_header_timeout {header_timeout};", 1),
    ]
    if tls is not None:
        site, uncommented = TLS_LINE.subn("    ", site)
        assert uncommented == 7
        exchanged += [
            ("listen 443 ssl;", f"listen 127.0.0.1:{tls.port} ssl;", 1),
            ("listen [::]:443 ssl;", f"listen [::1]:{tls.port} ssl;", 1),
            ("/etc/ssl/statsapi.pem", str(tls.certificate), 1),
            ("/etc/ssl/statsapi.key", str(tls.key), 1),
        ]
    for old, new, times in exchanged:
        assert site.count(old) == times
        site = site.replace(old, new)
    with nginx_with(directory, site, port):
        yield port


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, response.getheader("Content-Type", ""), json.loads(text)


def test_nginx_listens_to_ipv6_as_well(tmp_path: Path) -> None:
    """The same answers at ::1; a client of IPv6 alone would otherwise meet nobody, or nginx's own page."""
    socket_path = tmp_path / "gunicorn.sock"
    with (
        gunicorn_server(tmp_path / "app", workers=1, bind=f"unix:{socket_path}"),
        nginx(tmp_path, socket_path) as port,
    ):
        for host in ("127.0.0.1", "::1"):
            connection = http.client.HTTPConnection(host, port, timeout=30)
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
            connection.close()


@pytest.mark.parametrize("removed", [False, True])
def test_debians_own_site_wins_until_it_is_removed(tmp_path: Path, removed: bool) -> None:
    """What the file's head says: a site with default_server takes every request, unless ours has a name to ask for."""
    socket_path = tmp_path / "gunicorn.sock"
    port = free_port()
    ours = (ROOT / "deploy" / "nginx.conf").read_text()
    head = ours[: ours.index("\nupstream")]
    assert "rm /etc/nginx/sites-enabled/default" in head
    for old, new in {
        "unix:/run/statsapi/gunicorn.sock": f"unix:{socket_path}",
        "listen 80;": f"listen 127.0.0.1:{port};" + ("" if removed else " server_name stats.example;"),
        "listen [::]:80;": f"listen [::1]:{port};",
        "/var/log/nginx/access.log": f"{tmp_path}/access.log",
    }.items():
        ours = ours.replace(old, new)
    debians = f"server {{ listen 127.0.0.1:{port} default_server; server_name _; return 200 'Welcome to nginx!'; }}\n"
    with (
        gunicorn_server(tmp_path / "app", workers=1, bind=f"unix:{socket_path}"),
        nginx_with(tmp_path, ours if removed else ours + debians, port),
    ):
        answered = {}
        for name in ("localhost", "stats.example"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/healthz", headers={"Host": name})
            answered[name] = connection.getresponse().read().decode()
            connection.close()
    assert ("Welcome" in answered["localhost"]) is not removed
    assert '"ok"' in answered["stats.example"]


def test_the_service_behind_nginx(tmp_path: Path) -> None:
    """Requests, large bodies and refusals go through nginx; what nginx itself refuses looks like our problems."""
    directory = tmp_path
    socket_path = directory / "gunicorn.sock"
    with (
        gunicorn_server(directory / "app", workers=2, bind=f"unix:{socket_path}") as server,
        nginx(directory, socket_path) as port,
    ):
        event = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 42.5}).encode()
        for expected in range(1, 51):
            assert ask(port, "POST", "/event", event)[0] == 200
            assert ask(port, "GET", "/statistics")[2]["count"] == expected
        assert ask(port, "GET", "/nowhere")[:2] == (404, "application/problem+json")

        padded = b"[" + event + b"]" + b" " * (15 << 20)  # fits, and does not fit in nginx's buffer
        assert ask(port, "POST", "/events", padded)[0] == 200
        too_large = event + b" " * (17 << 20)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.putrequest("POST", "/events")
        connection.putheader("Content-Length", str(len(too_large)))
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, response.getheader("Content-Type")) == (413, "application/problem+json")
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Cache-Control") == "no-store"
        assert json.loads(response.read())["status"] == 413
        connection.close()

        stop(server)
        status, content_type, problem = ask(port, "GET", "/statistics")
        assert (status, content_type) == (503, "application/problem+json")
        assert problem["type"] == "urn:statsapi:problem:unavailable"


def test_any_name_goes_through_nginx(tmp_path: Path) -> None:
    """A percent-encoded path reaches the service as it was sent, slashes and dots too, and breaks no line of a log."""
    names = ["/api/users", "GET /users", "Länge", "a//b/", "..", ".", "a/../b", "50%", "%2F", 'say "hi"', "a?b#c", "🚀",
             "a;b=c d", "back\\slash", "سرعة"]  # fmt: skip
    with behind_nginx(tmp_path, workers=2, env={"STATSAPI_ACCESS_LOG": "on"}) as (_, port):
        for name in names:
            event = {"timestamp": "2100-01-01T00:00:00Z", "value": 1, "series": name}
            encoded = quote(name, safe="")
            assert ask(port, "POST", "/event", json.dumps(event).encode())[0] == 200
            assert ask(port, "GET", f"/statistics?series={encoded}")[2]["count"] == 1
            told = {"status": "success", "series": name, "deleted": 1}
            assert ask(port, "DELETE", f"/series/{encoded}")[2] == told
            assert ask(port, "POST", "/event", json.dumps(event).encode())[0] == 200
            assert ask(port, "DELETE", f"/series?series={encoded}")[2] == told
        assert ask(port, "DELETE", "/series/%FF")[0] == 422
        assert ask(port, "GET", "/series")[2]["series"] == []
        log = tmp_path / "access.log"
        wait_until(lambda: log.read_text().count('"GET /series HTTP/1.1" 200') == 1, "the requests in nginx's log")
        lines = log.read_text().splitlines()
    assert all(re.search(r" request_id=[0-9a-f]{32}\Z", line) for line in lines)
    assert sum('"DELETE /' in line for line in lines) == 2 * len(names) + 1


@contextmanager
def behind_nginx(directory: Path, **options: Any) -> Iterator[tuple[Server, int]]:
    """The server and nginx's port."""
    socket_path = directory / "gunicorn.sock"
    with (
        gunicorn_server(directory / "app", bind=f"unix:{socket_path}", **options) as server,
        nginx(directory, socket_path, header_timeout="600s") as port,
    ):
        yield server, port


def test_the_clients_address_is_nginxs_word(tmp_path: Path) -> None:
    """Behind nginx limits go by the address that nginx saw, whatever the client claims to be."""
    env = {"STATSAPI_TRUSTED_PROXIES": "1", "STATSAPI_RATE_LIMIT": "30/minute"}
    with behind_nginx(tmp_path, env=env) as (_, port):
        statuses = []
        for number in range(40):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/series", headers={"X-Forwarded-For": f"10.0.0.{number}"})
            response = connection.getresponse()
            statuses.append(response.status)
            response.read()
            connection.close()
        assert statuses == [200] * 30 + [429] * 10


UNREADABLE = {
    "line": f"GET /{'a' * 9000} HTTP/1.1\r\nHost: a",
    "header": f"GET / HTTP/1.1\r\nHost: a\r\nX: {'a' * 9000}",
    "nonsense": "NONSENSE",
    "no host": "GET / HTTP/1.1",
}


@pytest.mark.parametrize("head", UNREADABLE.values(), ids=UNREADABLE)
def test_what_nginx_cannot_read_is_a_problem_too(tmp_path: Path, head: str) -> None:
    """A line or header that is too long, nonsense, no Host: a 400 with our body, though nginx knows no path yet."""
    with nginx(tmp_path, tmp_path / "nobody") as port, socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(head.encode() + b"\r\n\r\n")
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert (response.status, response.getheader("Content-Type")) == (400, "application/problem+json")
        assert json.loads(response.read())["type"] == "urn:statsapi:problem:bad-request"
        assert response.getheader("X-Request-ID")


def exchange(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def told(connection: http.client.HTTPConnection, headers: dict[str, str]) -> dict[str, str | None]:
    """What the application is told of scheme and path: the probe's word, as our answers show neither."""
    return json.loads(exchange(connection, "/told", headers)[1])


LIES = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Protocol": "ssl",
    "X-Forwarded-Ssl": "on",
    "Forwarded": "proto=https",
    "SCRIPT_NAME": "/elsewhere",
}


def test_the_scheme_is_nginxs_word(tmp_path: Path) -> None:
    """Over plain HTTP it is http, whatever the client claims, and a header of its own names no other path."""
    with behind_nginx(tmp_path, workers=1, app=PROBE) as (_, port):
        for headers in ({}, LIES):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            assert told(connection, headers) == {"forwarded": "http", "scheme": "http", "prefix": ""}


@pytest.mark.parametrize("unix", [True, False])
def test_without_a_trusted_proxy_no_scheme_is_believed(tmp_path: Path, unix: bool) -> None:
    """Gunicorn passes nothing off as true: neither on loopback nor on a Unix socket, where it would by itself."""
    bind = f"unix:{tmp_path}/s" if unix else "127.0.0.1:0"
    with gunicorn_server(tmp_path / "app", workers=1, bind=bind, app=PROBE) as server:
        for headers in ({}, LIES):
            connection = http.client.HTTPConnection("localhost")
            connection.sock = server.connect()
            found = told(connection, headers)
            assert (found["scheme"], found["prefix"]) == ("http", "")


@pytest.mark.parametrize(("trusted", "scheme"), [(0, "http"), (1, "https")])
def test_a_trusted_proxys_scheme_is_believed(trusted: int, scheme: str) -> None:
    """STATSAPI_TRUSTED_PROXIES counts the last ones only: what a client wrote before them is not believed."""
    app = create_app(Settings(journal="memory://", trusted_proxies=trusted), background=False)
    headers = {"X-Forwarded-Proto": "gopher, https", "X-Forwarded-Prefix": "/elsewhere", "X-Forwarded-Host": "evil"}
    environ = EnvironBuilder("/healthz", headers=Headers(headers)).get_environ()

    def start_response(*_: Any) -> Any:
        pass

    app.wsgi_app(environ, start_response)
    assert environ["wsgi.url_scheme"] == scheme
    assert environ["SCRIPT_NAME"] == ("/elsewhere" if trusted else "")
    assert environ["HTTP_HOST"] == "localhost"


PREFIXED = """
server {{
    listen 127.0.0.1:{port};
    location = / {{ return 204; }}
    {block}
}}
"""


@contextmanager
def below_stats(directory: Path, env: dict[str, str]) -> Iterator[tuple[Server, int]]:
    """A server that nginx shows below /stats/ with the block of docs/deploying.md, and nginx's port."""
    page = (ROOT / "docs" / "deploying.md").read_text()
    (block,) = re.findall(r"```nginx\n(location /stats/ \{.*?\n\})\n```", page, re.DOTALL)
    socket_path, port = directory / "gunicorn.sock", free_port()
    assert "unix:/run/statsapi/gunicorn.sock" in block
    site = PREFIXED.format(port=port, block=block.replace("/run/statsapi/gunicorn.sock", str(socket_path)))
    with (
        gunicorn_server(directory / "app", bind=f"unix:{socket_path}", env=env) as server,
        nginx_with(directory, site, port),
    ):
        yield server, port


@pytest.mark.parametrize("variable", ["STATSAPI_PATH_PREFIX", "SCRIPT_NAME"])
def test_below_a_path_of_nginxs(tmp_path: Path, variable: str) -> None:
    """Events are recorded and asked for, any name is safe, a client's own prefix is not believed, and who reaches the
    service directly needs no prefix.
    """
    env = {variable: "/stats", "STATSAPI_TRUSTED_PROXIES": "1"}
    with below_stats(tmp_path, env) as (server, port):
        for name in ("a//b/", "%2F", "..", "web"):
            event = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 1, "series": name}).encode()
            assert ask(port, "POST", "/stats/event", event)[0] == 200
            assert ask(port, "GET", f"/stats/statistics?series={quote(name, safe='')}")[2]["count"] == 1
            assert ask(port, "DELETE", f"/stats/series/{quote(name, safe='')}")[2]["deleted"] == 1
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        response, _ = exchange(connection, "/evil/healthz", {"X-Forwarded-Prefix": "/evil"})
        assert response.status == 404  # nginx's own
        response, _ = exchange(connection, "/stats/evil/healthz", {"X-Forwarded-Prefix": "/stats/evil"})
        assert (response.status, response.getheader("Content-Type")) == (404, "application/problem+json")
        response, _ = exchange(connection, "/stats/docs", {})
        assert (response.status, response.getheader("Location")) == (308, "docs/")
        assert server.request("GET", "/healthz")[0] == 200


def test_the_pages_work_below_a_path(tmp_path: Path) -> None:
    """In a browser: the dashboard shows the figures, and a request that is tried out of /docs/ goes below the path."""
    playwright_api = pytest.importorskip("playwright.sync_api")
    binary = require_binary("chromium", "chromium-browser", "google-chrome")
    with (
        below_stats(tmp_path, {"STATSAPI_PATH_PREFIX": "/stats"}) as (_, port),
        playwright_api.sync_playwright() as run,
    ):
        now = json.dumps([{"timestamp": "2100-01-01T00:00:00Z", "value": 42.5}]).encode()
        assert ask(port, "POST", "/stats/events", now)[0] == 200
        page = run.chromium.launch(executable_path=binary, args=["--no-sandbox"]).new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/stats/dashboard")
        # A function would be evaluated in the page, which its policy forbids.
        playwright_api.expect(page.locator("body")).to_contain_text("42.5")
        page.goto(f"http://127.0.0.1:{port}/stats/docs/#/The%20service%20itself/get-healthz")
        page.get_by_role("button", name="Try it out").first.click()
        page.get_by_role("button", name="Execute").first.click()
        page.wait_for_selector(".live-responses-table")
        assert f"http://127.0.0.1:{port}/stats/healthz" in asked
        assert all(url.startswith((f"http://127.0.0.1:{port}/stats/", "data:")) for url in asked)


def test_https_with_the_files_own_lines(tmp_path: Path) -> None:
    """The TLS lines of the file serve HTTPS, the service knows it, and plain HTTP is sent there with its method."""
    openssl = require_binary("openssl")
    tls = Tls(free_port(), tmp_path / "certificate.pem", tmp_path / "key.pem")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", tls.key, "-out", tls.certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=tls.certificate)
    socket_path = tmp_path / "gunicorn.sock"
    with (
        gunicorn_server(tmp_path / "app", workers=1, bind=f"unix:{socket_path}", app=PROBE),
        nginx(tmp_path, socket_path, tls=tls) as port,
    ):
        for headers in ({}, {"X-Forwarded-Proto": "http"}):
            secure = http.client.HTTPSConnection("localhost", tls.port, timeout=30, context=context)
            assert told(secure, headers)["forwarded"] == "https"
        response, _ = exchange(
            http.client.HTTPSConnection("localhost", tls.port, timeout=30, context=context), "/statistics", {}
        )
        assert response.status == 200
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
        response, _ = exchange(http.client.HTTPConnection("127.0.0.1", port), "/events?a=b", {"Host": "api.example"})
        assert (response.status, response.headers["Location"]) == (308, "https://api.example/events?a=b")


def test_one_request_id_in_both_logs_and_the_answer(tmp_path: Path) -> None:
    """The client's where it is usable, else nginx's own; also where nginx alone answers."""
    with behind_nginx(tmp_path, workers=1, env={"STATSAPI_ACCESS_LOG": "on"}) as (server, port):

        def ask_with(given: str | None, path: str = "/series") -> str:
            headers = {} if given is None else {"X-Request-ID": given}
            response, _ = exchange(http.client.HTTPConnection("127.0.0.1", port, timeout=30), path, headers)
            (request_id,) = response.headers.get_all("X-Request-ID", [])
            return request_id

        log = tmp_path / "access.log"
        made = [ask_with(None), ask_with(None), ask_with("a b"), ask_with("x" * 129)]
        assert len(set(made)) == 4
        assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in made)
        assert ask_with("01JD-trace/span:7") == "01JD-trace/span:7"
        for request_id in (*made, "01JD-trace/span:7"):
            server.wait_for_log(f"request_id={request_id} ")
        lines = [f" request_id={request_id}\n" for request_id in (*made, "01JD-trace/span:7")]
        wait_until(lambda: all(line in log.read_text() for line in lines), "nginx's lines")
        stop(server)
        assert ask_with("gone") == "gone"


def test_nginxs_log_holds_no_secret(tmp_path: Path) -> None:
    """No query, no Referer, and no key that a client wrote into the path, encoded or not."""
    key, _ = new_key(["read"])
    with behind_nginx(tmp_path, workers=1) as (_, port):
        for path in (f"/statistics?api_key={key}", f"/{key}", f"/a/%73{key[1:]}/b", "/series?prefix=statsapi_window"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            exchange(connection, path, {"Referer": f"http://a/?{key}"})
        log = tmp_path / "access.log"
        wait_until(lambda: log.read_text().count("\n") >= 4, "the requests in nginx's log")
        lines = [line for line in log.read_text().splitlines() if '"GET / ' not in line]
    assert [re.findall(r'"GET (.+) HTTP/1.1" (\d+) ', line)[0] for line in lines] == [
        ("/statistics", "422"),
        ("(a path with an API key)", "404"),
        ("(a path with an API key)", "404"),
        ("/series", "200"),
    ]
    assert key not in "".join(lines)
    assert key not in (tmp_path / "error.log").read_text()


def test_answers_are_compressed_for_those_who_ask(tmp_path: Path) -> None:
    """A long answer goes gzipped over the wire and is the same."""
    with behind_nginx(tmp_path, workers=1) as (_, port):
        batch = [{"timestamp": "2100-01-01T00:00:00Z", "value": number} for number in range(500)]
        assert ask(port, "POST", "/events", json.dumps(batch).encode())[2]["stored"] == 500
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/events?format=csv", headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        assert response.getheader("Content-Encoding") == "gzip"
        assert gzip.decompress(response.read()).count(b"\n") == 501
        connection.close()


def test_slow_clients_do_not_stop_others(tmp_path: Path) -> None:
    """With 200 connections that never finish their head or body, a normal client is served as ever."""
    with behind_nginx(tmp_path, workers=1) as (_, port), ExitStack() as slow:
        for number in range(200):
            sock = slow.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            head = b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 60\r\n"
            sock.sendall(head + (b"\r\n{" if number % 2 else b"X"))
        event = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 1}).encode()
        for expected in range(1, 51):
            assert ask(port, "POST", "/event", event)[0] == 200
            assert ask(port, "GET", "/statistics")[2]["count"] == expected


def test_a_slow_body_arrives_whole(tmp_path: Path) -> None:
    """A body that comes in many small pieces is one request."""
    with behind_nginx(tmp_path, workers=1) as (_, port):
        body = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 1}).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(b"POST /event HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
            sock.sendall(b"Content-Length: %d\r\n\r\n" % len(body))
            for byte in body:
                sock.sendall(bytes((byte,)))
            response = http.client.HTTPResponse(sock)
            response.begin()
            assert response.status == 200
        assert ask(port, "GET", "/statistics")[2]["count"] == 1


def replaced(server: Server, old: set[int]) -> set[int]:
    """The two workers, when none of the old ones is left."""
    now = server.workers()
    return now if len(now) == 2 and now.isdisjoint(old) else set()


def test_a_rolling_restart_under_load_fails_nothing(tmp_path: Path) -> None:
    """Four HUPs while clients write and read through nginx: no request fails, and every event counts once."""
    with behind_nginx(tmp_path, workers=2) as (server, port):
        stop_asking = threading.Event()
        stored = Counter[str]()
        failures: list[Any] = []

        def client(name: str) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            body = json.dumps({"timestamp": "2100-01-01T00:00:00Z", "value": 1, "series": name})
            headers = {"Content-Type": "application/json"}
            while not stop_asking.is_set():
                if name == "keyed":
                    headers["Idempotency-Key"] = str(stored[name])
                connection.request("POST", "/event", body, headers)
                response = connection.getresponse()
                answer = response.read()
                if response.status == 200:
                    stored[name] += 1
                else:
                    failures.append((response.status, answer))
            connection.close()

        threads = [threading.Thread(target=client, args=(name,)) for name in ("a", "b", "c", "keyed")]
        for thread in threads:
            thread.start()
        workers = server.workers()

        def new_workers(old: set[int]) -> set[int]:
            return wait_until(lambda: len(now := server.workers()) == 2 and not now & old and now, "new workers")

        for _ in range(4):
            server.signal(signal.SIGHUP)
            workers = new_workers(workers)
        stop_asking.set()
        for thread in threads:
            thread.join()
        assert failures == []
        for name, count in stored.items():
            assert ask(port, "GET", f"/statistics?series={name}")[2]["count"] == count > 0
