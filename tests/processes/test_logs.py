"""Log lines of real servers: plain or JSON, Gunicorn's own in the same form."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from pathlib import Path

from tests.servers import Server, gunicorn_server, start_gunicorn, stop, wait_until


def request_with(server: Server, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = server.connect()
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_every_line_of_a_server_is_json(tmp_path: Path) -> None:
    """Gunicorn's, the service's and the requests': start, a killed worker, a reload, and the end."""
    env = {"STATSAPI_LOG_FORMAT": "json", "STATSAPI_ACCESS_LOG": "on"}
    with gunicorn_server(tmp_path, env=env, args=["--log-level", "warning"], bind=f"unix:{tmp_path}/s") as server:
        assert request_with(server, "/healthz", {"X-Request-ID": "quiet"}).headers["X-Request-ID"] == "quiet"
        wait_until(lambda: '"quiet"' in server.log, "the request's line, whatever --log-level says")
    with gunicorn_server(tmp_path, env=env, workers=2) as server:
        server.wait_for_journals(2)
        os.kill(min(server.workers()), signal.SIGKILL)
        server.wait_for_journals(3)
        server.signal(signal.SIGHUP)
        server.wait_for_journals(5)
        assert request_with(server, "/series?prefix=x", {"X-Request-ID": "r3"}).status == 200
        server.wait_for_log('"r3"')
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert {"gunicorn.error", "statsapi", "statsapi.access"} <= {line["logger"] for line in lines}
    assert all({"time", "level", "pid", "message"} <= line.keys() for line in lines)
    (line,) = [line for line in lines if line.get("request_id") == "r3"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/series", 200)


def test_plain_is_gunicorns_form(tmp_path: Path) -> None:
    """Requests stand in the same form as Gunicorn's own lines, with the same time and pid in front."""
    with gunicorn_server(tmp_path, workers=1, env={"STATSAPI_ACCESS_LOG": "on"}) as server:
        request_with(server, "/healthz", {"X-Request-ID": "r4"})
        server.wait_for_log("request_id=r4")
    heads = {re.sub(r"\d+", "0", line.split("] ")[0]) for line in server.log.splitlines()}
    assert len(heads) == 1, heads


def test_a_form_nobody_knows_is_refused(tmp_path: Path) -> None:
    """With the other faults, at start."""
    server = start_gunicorn(tmp_path, env={"STATSAPI_LOG_FORMAT": "xml", "STATSAPI_ACCESS_LOG": "perhaps"})
    try:
        assert server.process.wait(30) == os.EX_CONFIG
    finally:
        stop(server)
    assert "STATSAPI_LOG_FORMAT='xml'" in server.log
    assert "STATSAPI_ACCESS_LOG='perhaps'" in server.log
