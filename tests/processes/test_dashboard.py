"""The live page in a real Chromium: figures, states, keys, safety, and what a screen reader and a keyboard get."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from statsapi.keys import new_key
from tests.programs import nginx_with, require_binary
from tests.servers import Server, free_port, gunicorn_server, stop

ODD = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    binary = require_binary("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page and everything that must not happen on it: console messages, errors, requests to elsewhere."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.base = address
        self.said: list[str] = []
        self.asked: list[Request] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request))

    def open(self, query: str = "") -> Page:
        self.page.goto(f"{self.base}/dashboard{query}")
        return self.page

    def check(self, *allowed: str) -> None:
        """Nothing was said but what these patterns allow, and nobody else was asked."""
        assert [text for text in self.said if not any(re.search(pattern, text) for pattern in allowed)] == []
        assert [one.url for one in self.asked if not one.url.startswith((self.base, "blob:"))] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker, and three series with events of the last half hour."""
    with gunicorn_server(tmp_path_factory.mktemp("page"), workers=1) as server:
        now_s = time.time()
        for route, factor in (("/users", 1.0), ("/orders", 2.0)):
            stamps = [now_s - 1700 + 17 * n for n in range(100)]
            values = [factor * (n % 10 + 1) / 8 for n in range(100)]
            name = f"web;route={route}"
            assert _record(server, name, stamps, values) == 100
        assert _record(server, ODD, [now_s - 5], [7.0]) == 1
        yield server


def _record(server: Server, series: str, stamps: list[float], values: list[float]) -> int:
    status, body = server.request("POST", "/events", {"series": series, "timestamp": stamps, "value": values})
    assert status == 200, body
    stored: int = body["stored"]
    return stored


@pytest.fixture
def watched(browser: Browser, server: Server) -> Iterator[Watched]:
    watched = Watched(browser, server.target)
    yield watched
    watched.check()
    watched.context.close()


def test_what_is_recorded_while_the_page_is_open_appears(watched: Watched, server: Server) -> None:
    """Exact figures, without a reload; one question of a kind at a time."""
    page = watched.open("?series=live")
    expect(page.locator("#notice h2")).to_have_text("No events in this window")
    values = [1.5, 2.25, 100.125]
    for n, value in enumerate(values, 1):
        _record(server, "live", [time.time()], [value])
        expect(page.locator("#tile-count")).to_have_attribute("title", str(n), timeout=10_000)
    expect(page.locator("#tile-mean")).to_have_attribute("title", repr(statistics.mean(values)))
    expect(page.locator("#tile-max")).to_have_text("100.1")
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#chart .counts rect")).not_to_have_count(0, timeout=20_000)
    page.locator("#chart svg").focus()
    page.keyboard.press("End")
    for _ in range(5):  # the newest step may have begun after the last event
        if "events, mean" in page.locator("#reading").inner_text():
            break
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#reading")).to_contain_text("events, mean")


def test_a_group_of_series(watched: Watched) -> None:
    """A pattern: the union's figures, a row for each value of a tag, sorted by what is clicked, and a link for each."""
    page = watched.open("?match=web*&by=route")
    expect(page.locator("#tile-count")).to_have_text("200")
    rows = page.locator("#group-rows tbody th")
    by_mean = page.get_by_role("button", name="mean", exact=True)
    by_mean.click()
    expect(rows).to_have_text(["/orders", "/users"])
    expect(page).to_have_url(re.compile("order=-mean"))
    by_mean.click()
    expect(rows).to_have_text(["/users", "/orders"])
    expect(page).to_have_url(re.compile("order=mean"))
    by_mean.evaluate("button => { button.click(); button.click(); }")  # before an answer is there: down, and up again
    expect(page).to_have_url(re.compile("order=mean"))
    expect(rows).to_have_text(["/users", "/orders"])
    page.get_by_role("button", name="/users").click()
    expect(page.locator("#tile-count")).to_have_text("100")
    assert "where=route%3D%2Fusers" in page.url
    page.go_back()
    expect(page.locator("#tile-count")).to_have_text("200")


def test_searching_by_keyboard(watched: Watched) -> None:
    """Typing finds series, the arrow keys choose one; a name is text, never markup."""
    page = watched.open()
    box = page.get_by_role("combobox", name="Series or pattern")
    box.focus()
    box.fill("onerror")
    option = page.locator("#found [role=option]")
    expect(option).to_have_count(1)
    expect(option).to_contain_text(ODD)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#tile-count")).to_have_text("1")
    assert "series=%3Cimg" in page.url
    assert page.locator("img").count() == 0
    expect(page.locator("#events tbody td").nth(1)).to_have_text("7")


def test_dragging_over_the_chart_zooms(watched: Watched) -> None:
    """The stretch becomes the range in the address; a button leads back. Enter does the same from the keyboard."""
    page = watched.open("?match=web*")
    chart = page.locator("#chart svg")
    expect(page.locator("#chart .mean")).to_be_visible()
    box = chart.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile("start=.*end="))
    expect(page.locator("#window")).to_have_value("range")
    page.get_by_role("button", name="Back to the window").click()
    expect(page.locator("#tile-count")).to_have_text("200")
    chart.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("start=.*end="))


def test_refusals_and_an_absent_service(browser: Browser, tmp_path: Path) -> None:
    """What the service refuses is told in its words. When it is away, the page says how old it is and goes on by
    itself when it is back.
    """
    port = free_port()
    with gunicorn_server(tmp_path, workers=1, bind=f"127.0.0.1:{port}") as server:
        watched = Watched(browser, server.target)
        _record(server, "default", [time.time()], [3.0])
        page = watched.open("?window=9999999d")
        expect(page.locator("#notice h2")).to_have_text("The service refused this question")
        page.locator("#window").select_option("1h")
        expect(page.locator("#tile-count")).to_have_text("1")
        stop(server)
        expect(page.locator("#status")).to_contain_text("s old. Trying again.", timeout=15_000)
        expect(page.locator("main")).to_have_class("old")
        with gunicorn_server(tmp_path, workers=1, bind=f"127.0.0.1:{port}") as again:
            _record(again, "default", [time.time()], [3.0])
            expect(page.locator("#tile-count")).to_have_text("2", timeout=15_000)
            expect(page.locator("main")).not_to_have_class("old")
        watched.check("status of 422", "ERR_CONNECTION", "ERR_EMPTY_RESPONSE")
        watched.context.close()


def test_a_key_is_asked_for_and_kept_in_the_tab_only(browser: Browser, tmp_path: Path) -> None:
    """Without a key nothing is shown; with one everything is, also the download; another tab is asked again."""
    key, held = new_key(["read"], "page")
    env = {"STATSAPI_API_KEYS": held.line()}
    with gunicorn_server(tmp_path, workers=1, env=env) as server:
        watched = Watched(browser, server.target)
        page = watched.open()
        expect(page.locator("#notice h2")).to_have_text("A key is needed")
        expect(page.locator("#course")).to_be_hidden()
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#notice p")).to_contain_text("not known")
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("#tile-count")).to_have_text("0")
        expect(page.locator("#newest-note")).to_have_text("This needs a key with the scope admin.")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download CSV").click()
        assert download.value.path().read_text().startswith("series,from,to,count,")
        assert key not in page.url
        assert watched.context.storage_state()["origins"] == []
        other = watched.context.new_page()
        other.goto(page.url)
        expect(other.locator("#notice h2")).to_have_text("A key is needed")
        watched.check("status of 401", "status of 403")
        watched.context.close()


def test_a_hidden_tab_asks_nothing(watched: Watched) -> None:
    """While nobody looks no question is sent; it goes on at once when somebody does."""
    page = watched.open("?match=web*")
    expect(page.locator("#tile-count")).to_have_text("200")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true}); "
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(2500)  # whatever was on its way
    before = len(watched.asked)
    page.wait_for_timeout(4500)
    assert len(watched.asked) == before
    with page.expect_request("**/statistics?**"):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("query", ["?match=web*&by=route", "?series=none", "?window=9999999d"])
def test_everybody_can_use_it(browser: Browser, server: Server, scheme: Any, query: str) -> None:
    """axe finds nothing wrong: contrast, names, roles, order; in both colour schemes and on a phone."""
    for width in (1280, 390):
        watched = Watched(
            browser, server.target, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
        )
        page = watched.open(query)
        expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
        for summary in page.locator("summary").all():
            if summary.is_visible():
                summary.click()
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        watched.check("status of 422")
        watched.context.close()


def test_policy_and_weight(browser: Browser, server: Server) -> None:
    """Scripts and styles from the page's own files alone, by policy; all of it packed is less than 80 KB."""
    watched = Watched(browser, server.target)
    sizes: list[int] = []
    policies: list[str] = []
    watched.page.on("response", lambda response: policies.append(response.headers.get("content-security-policy", "")))
    watched.page.on(
        "requestfinished",
        lambda request: sizes.append(request.sizes()["responseBodySize"]) if "/dashboard" in request.url else None,
    )
    page = watched.open()
    expect(page.locator("#tiles dt").first).to_be_visible()
    policy = policies[0]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert 5_000 < sum(sizes) < 80_000
    assert re.search(r"<script(?![^>]* src=)|\sstyle=|\son\w+=", page.content()) is None
    refused = page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.ran = true'; "
        "document.body.append(script); return window.ran === undefined; }"
    )
    assert refused
    watched.check("Content Security Policy")
    watched.context.close()


def test_behind_a_path_prefix(browser: Browser, server: Server, tmp_path: Path) -> None:
    """Everything is asked for relative to the page: nginx may serve it below /stats/."""
    port = free_port()
    site = f"server {{ listen 127.0.0.1:{port}; location /stats/ {{ proxy_pass {server.target}/; }} }}"
    with nginx_with(tmp_path, site, port):
        watched = Watched(browser, f"http://127.0.0.1:{port}/stats")
        page = watched.open("?match=web*")
        expect(page.locator("#tile-count")).to_have_text("200")
        watched.check()
        watched.context.close()


def test_it_can_be_removed(tmp_path: Path) -> None:
    """STATSAPI_DASHBOARD=off: no page, no files, and no line of it in the index."""
    with gunicorn_server(tmp_path, workers=1, env={"STATSAPI_DASHBOARD": "off"}) as server:
        assert server.request("GET", "/dashboard")[0] == 404
        assert server.request("GET", "/dashboard/main.js")[0] == 404
        assert "dashboard" not in json.dumps(server.request("GET", "/")[1])


SCALES = """async (cases) => {
    const scales = await import(new URL('dashboard/scales.js', location.href));
    return cases.map(([name, ...given]) => scales[name](...given));
}"""


def test_scales(watched: Watched) -> None:
    """Ticks cover their span with round steps, also for spans that are tiny, huge, negative or of no length."""
    page = watched.open()
    spans = [
        (0, 1),
        (0.1, 0.3),
        (-5, 17),
        (1e-300, 3e-300),
        (-1e300, 1e300),
        (3, 3),
        (0, 0),
        (-2, -2),
        (1e15, 1e15 + 4),
    ]
    found = page.evaluate(SCALES, [["ticks", low, high, 4] for low, high in spans])
    for (low, high), ticks in zip(spans, found, strict=True):
        assert ticks == sorted(set(ticks)), (low, high)
        assert 2 <= len(ticks) <= 9, (low, high, ticks)
        if low < high:
            assert ticks[0] <= low, (low, high, ticks)
            assert high <= ticks[-1], (low, high, ticks)
    hour, start = 3_600_000, 1_764_147_600_123
    moments, lone, steps = page.evaluate(
        SCALES, [["timeTicks", start, start + hour, 8, 0], ["extent", [None, 3, None]], ["stepSeconds", hour, 120]]
    )
    assert all(at % 600_000 == 0 for at in moments)
    assert 5 <= len(moments) <= 8
    assert lone == [3, 3]
    assert steps == 30


FORMATS = """async (cases) => {
    const format = await import(new URL('dashboard/format.js', location.href));
    return cases.map(([name, ...given]) => format[name](...given));
}"""


def test_numbers_are_readable(watched: Watched) -> None:
    """Short where they are long, in the unit that was named, and never rounded to another power."""
    page = watched.open()
    shown = {
        ("count", 1_234_567): "1.235 M",
        ("count", 999_950): "1 M",
        ("whole", 89_980): "89\u202f980",
        ("count", 0): "0",
        ("count", 1e-9): "1.000e-9",
        ("value", 0.000431, "s"): "431 µs",
        ("value", 90, "s"): "1.5 min",
        ("value", 1500, "ms"): "1.5 s",
        ("value", -0.002, "s"): "-2 ms",
        ("value", 1536, "B"): "1.5 KiB",
        ("value", 42.5, ""): "42.5",
        ("change", 0.1234): "+12 %",
        ("change", -0.0123): "−1.2 %",
        ("value", None, "s"): "–",
    }
    assert page.evaluate(FORMATS, [list(case) for case in shown]) == list(shown.values())
