"""The page of docs/from-a-web-page.md in a real browser: its beacons arrive, those of another origin do not."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from statsapi.client import Client
from tests.programs import require_binary
from tests.servers import ROOT, gunicorn_server, wait_until

LIBRARY = "https://unpkg.com/web-vitals@5?module"

# In place of the library, which is on the web: calls back as it does, with these values.
VITALS = """
const given = (name, value) => (tell) => tell({ name, value });
export const onCLS = given("CLS", 0.25), onINP = given("INP", 64), onLCP = given("LCP", 1250);
"""


@contextmanager
def site(placed: list[str]) -> Iterator[str]:
    """The only page of the list at every path of an origin of its own, which is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_script = self.path.endswith(".js")
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript" if is_script else "text/html")
            self.end_headers()
            self.wfile.write((VITALS if is_script else placed[0]).encode())

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_the_page_of_the_docs_sends_its_figures(tmp_path: Path) -> None:
    """When it is left; a page of another origin is refused."""
    playwright_api = pytest.importorskip("playwright.sync_api")
    binary = require_binary("chromium", "chromium-browser", "google-chrome")
    text = (ROOT / "docs" / "from-a-web-page.md").read_text()
    (page_text,) = re.findall(r"```html\n(.*?)```", text, re.DOTALL)
    assert LIBRARY in page_text
    page_text = "<!doctype html>" + page_text.replace(LIBRARY, "/vitals.js")
    with ExitStack() as stack:
        placed: list[str] = [page_text]
        # The service must know the origin before it starts, and the page the service's port.
        ours, other = (stack.enter_context(site(placed)) for _ in range(2))
        env = {"STATSAPI_BEACON_ORIGINS": ours, "STATSAPI_ACCESS_LOG": "on"}
        server = stack.enter_context(gunicorn_server(tmp_path, workers=1, env=env))
        placed[0] = page_text.replace("http://127.0.0.1:8000", server.target)
        run = stack.enter_context(playwright_api.sync_playwright())
        browser = run.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        page = browser.new_page()
        for origin in (other, ours):
            page.goto(f"{origin}/cart")
            page.wait_for_load_state("networkidle")
            page.goto("about:blank")
        client = Client(server.target)
        wait_until(lambda: client.statistics(match="vitals*")["count"] >= 3, "the figures")
        server.wait_for_log("method=POST path=/events status=415")
        assert {event.series: event.value for event in client.export(match="vitals*")} == {
            "vitals;name=CLS;page=/cart": 0.25,
            "vitals;name=INP;page=/cart": 64.0,
            "vitals;name=LCP;page=/cart": 1250.0,
        }
        assert client.statistics(match="vitals*")["count"] == 3
        browser.close()
