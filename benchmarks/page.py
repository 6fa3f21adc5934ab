"""The live page in Chromium: when it shows its figures and its course, and what a refresh costs the service.

    python -m benchmarks.page [--loads 15] [--seconds 60]

One service with two workers and a million events of the last 50 minutes. A load is a new browser context (nothing
cached) and then the same page again in it. The cost is processor time of the workers, from /proc: that of an open page
while one event a second comes in, less that of the same without the page; next to that of as many GET /statistics.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.service import MILLION, preload
from tests.servers import Server, gunicorn_server

ROUND_S = 2.0  # how often the page asks (main.js)

# When the figures and the course are there, in ms since the navigation began.
WATCH = """
window.shown = {};
const looked = new MutationObserver(() => {
  const now = performance.now();
  if (!shown.figures && document.getElementById("tile-count")?.textContent) shown.figures = now;
  if (!shown.course && document.querySelector("#chart svg path, #chart svg rect")) shown.course = now;
});
looked.observe(document, { childList: true, subtree: true });
"""


def shown_ms(page: Page, address: str) -> tuple[float, float]:
    page.goto(address)
    while not (shown := page.evaluate("window.shown")).get("course"):  # the page's policy forbids to wait inside of it
        time.sleep(0.1)
    return shown["figures"], shown["course"]


def first_paints(browser: Browser, address: str, loads: int) -> None:
    for kind in ("new context", "again"):
        found = []
        for _ in range(loads):
            context = browser.new_context()
            context.add_init_script(WATCH)
            page = context.new_page()
            found.append(shown_ms(page, address))
            if kind == "again":
                found[-1] = shown_ms(page, address)
            context.close()
        for name, times in zip(("figures", "course"), zip(*found, strict=True), strict=True):
            print(f"{kind}: {name} after {statistics.median(times):.0f} ms (of {min(times):.0f} to {max(times):.0f})")


def cpu_s(server: Server) -> float:
    """What the workers' threads have used, by the scheduler's clock: ticks are too coarse."""
    ns = 0
    for pid in server.workers():
        for task in Path(f"/proc/{pid}/task").iterdir():
            ns += int((task / "schedstat").read_text().split()[0])
    return ns / 1e9


def used_s(server: Server, seconds: float, each_s: Callable[[], None] | None = None) -> float:
    """Processor time while one event a second comes in, and `each_s` is called after each two."""
    began = cpu_s(server)
    end_s = time.monotonic() + seconds
    at = 0
    while (left := end_s - time.monotonic()) > 0:
        server.request("POST", "/event", {"timestamp": time.time(), "value": at % 7})
        if each_s is not None and at % ROUND_S == 0:
            each_s()
        at += 1
        time.sleep(min(1.0, left))
    return cpu_s(server) - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loads", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        directory = Path(folder) / "service"
        preload(directory, MILLION)
        with gunicorn_server(directory, workers=2) as server:
            server.wait_for_journals(2)
            browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
            address = f"{server.target}/dashboard"
            first_paints(browser, address, options.loads)
            idle_s = used_s(server, options.seconds)
            asked_s = used_s(server, options.seconds, lambda: _ask(server)) - idle_s
            page = browser.new_page()
            page.goto(address)
            page.wait_for_selector("#tile-count")
            time.sleep(5)
            opened_s = used_s(server, options.seconds) - idle_s
            print(
                f"an open page: {opened_s / options.seconds * ROUND_S * 1e3:.2f} ms of processor a round, "
                f"{opened_s / asked_s:.2f} times GET /statistics"
            )
            browser.close()


def _ask(server: Server) -> None:
    status, answer = server.request("GET", "/statistics")
    if status != 200:
        raise SystemExit(f"GET /statistics: {status} {answer}")


if __name__ == "__main__":
    main()
