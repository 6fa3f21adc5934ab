"""The live page in a real Chromium: figures, states, keys, safety, and what a screen reader and a keyboard get."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

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
    expect(page.locator("#notice h2")).to_have_text("No such series: live")
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


def test_a_service_that_hangs(browser: Browser, tmp_path: Path) -> None:
    """After some seconds without an answer the page says so, and how old its figures are; then it goes on."""
    with gunicorn_server(tmp_path, workers=1) as server:
        watched = Watched(browser, server.target)
        _record(server, "default", [time.time()], [3.0])
        page = watched.open()
        expect(page.locator("#status")).to_contain_text("As of", timeout=10_000)
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            expect(page.locator("#status")).to_have_text(
                re.compile(r"No answer for \d+ s\. What is shown is \d+ s old\."), timeout=15_000
            )
        finally:
            os.kill(worker, signal.SIGCONT)
        expect(page.locator("#status")).to_contain_text("As of", timeout=10_000)
        watched.check()
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


def test_a_key_that_cannot_be_right(browser: Browser, tmp_path: Path) -> None:
    """Characters that no header can carry, a key that may not read, one that is revoked: the page says so and asks for
    another, after a reload too. A refusal is never saved as the table.
    """
    writing, write_held = new_key(["write"], "sensor")
    reading, read_held = new_key(["read"], "page")
    keys = tmp_path / "keys"
    keys.write_text(f"{write_held.line()}\n{read_held.line()}\n")
    with gunicorn_server(tmp_path, workers=1, env={"STATSAPI_API_KEYS_FILE": str(keys)}) as server:
        watched = Watched(browser, server.target)
        page = watched.open()
        box = page.get_by_label("API key")
        for key, reason in (("ключ…", "characters that no key has"), ("sk é", "characters"), (writing, "scope read")):
            box.fill(key)
            page.keyboard.press("Enter")
            for _ in range(2):
                expect(page.locator("#notice h2")).to_have_text("Another key is needed")
                expect(page.locator("#notice p")).to_contain_text(reason)
                expect(box).to_be_visible()
                page.reload()
        box.fill(reading)
        page.keyboard.press("Enter")
        expect(page.locator("#tile-count")).to_have_text("0")
        expect(page.locator("#notice pre")).to_contain_text("Authorization: Bearer $STATSAPI_API_KEY")
        page.get_by_label("Live").uncheck()
        downloads: list[Any] = []
        page.on("download", lambda one: downloads.append(one))
        page.route("**/timeline?**", lambda route: route.fulfill(status=401, json={"detail": "This key is revoked."}))
        page.get_by_role("link", name="Download CSV").click()
        expect(page.locator("#notice p")).to_have_text("This key is revoked.")
        expect(box).to_be_visible()
        assert downloads == []
        watched.check("status of 401", "status of 403")
        watched.context.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": 429, "headers": {"Retry-After": "30"}, "json": {"detail": "Too many."}}, "Too many."),
        ({"status": 503, "json": {"detail": "The journal is away."}}, "The journal is away."),
        ({"status": 500, "body": "oops"}, "cannot answer now (500)"),
        ({"status": 200, "content_type": "text/html", "body": "<html>Log in</html>"}, "Something else answers"),
    ],
)
def test_what_passes_by_itself(watched: Watched, answer: Any, reason: str) -> None:
    """After such a fault the old figures stay, with their age, and the question is asked again, no earlier than the
    answer says.
    """
    page = watched.open("?match=web*")
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    asked: list[float] = []

    def fulfill(route: Route) -> None:
        asked.append(time.monotonic())
        route.fulfill(**answer)

    page.route("**/statistics?**", fulfill)
    expect(page.locator("#status")).to_contain_text(reason, timeout=10_000)
    expect(page.locator("#status")).to_contain_text(" old. Trying again")
    expect(page.locator("#tile-count")).to_have_text("200")
    expect(page.locator("#tile-count")).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()
    page.wait_for_timeout(4000)
    assert len(asked) == (1 if answer["status"] == 429 else 2)
    page.unroute("**/statistics?**")
    if answer["status"] != 429:
        expect(page.locator("#status")).to_contain_text("As of", timeout=10_000)
        expect(page.locator("main")).not_to_have_class("old")
    watched.said = [text for text in watched.said if "Failed to load resource" not in text]


def test_figures_of_another_question_do_not_stay(watched: Watched) -> None:
    """While the service is away, a new choice is not shown with the figures of the old one."""
    page = watched.open("?match=web*")
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    page.route("**/statistics?**", lambda route: route.abort())
    page.locator("#window").select_option("15m")
    expect(page.locator("#notice h2")).to_have_text("The service is away")
    expect(page.locator("#tiles")).to_be_hidden()
    page.unroute("**/statistics?**")
    expect(page.locator("#tile-count")).to_be_visible(timeout=10_000)
    watched.said = [text for text in watched.said if "Failed to load resource" not in text]


def test_a_window_of_all_that_is_kept(browser: Browser, tmp_path: Path) -> None:
    """With steps between round moments it would begin before what is kept; it is answered all the same. Longer windows
    are not offered, and finding that out takes no question that is refused.
    """
    # Ten minutes after a quarter of an hour began: further than the five minutes of grace.
    minutes = 24 * 60 + int((time.time() - 600) % 900) // 60
    env = {"STATSAPI_ROLLUP_RETENTION": f"{minutes}m"}
    with gunicorn_server(tmp_path, workers=1, env=env) as server:
        now_s = time.time()
        _record(server, "default", [now_s - 23 * 3600, now_s], [1.0, 2.0])
        watched = Watched(browser, server.target)
        page = watched.open(f"?window={minutes}m")
        expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
        expect(page.locator("#tile-count")).to_have_text("2")
        expect(page.locator("#chart .counts rect")).to_have_count(2)
        expect(page.locator("#course-note")).to_be_empty()
        options = page.locator("#window option:not([hidden])")
        offered = options.evaluate_all("all => all.filter(one => !one.disabled).map(one => one.value)")
        assert offered == ["5m", "15m", "1h", "6h", "24h", f"{minutes}m"]
        assert "what is kept" in (page.locator("#window option[value='7d']").get_attribute("title") or "")
        watched.check()
        watched.context.close()


def test_what_is_refused_of_a_part_hides_nothing_else(watched: Watched) -> None:
    """A course or distribution that the service refuses is told in its own place."""
    refusal = {"status": 422, "json": {"detail": "step: is too short"}}
    for part in ("timeline", "histogram"):
        watched.page.route(f"**/statistics/{part}?**", lambda route: route.fulfill(**refusal))
    page = watched.open("?match=web*&by=route")
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#tile-count")).to_have_text("200")
    expect(page.locator("#course-note")).to_have_text("step: is too short")
    expect(page.locator("#histogram-note")).to_have_text("step: is too short")
    expect(page.locator("#group-rows tbody tr")).to_have_count(2)
    expect(page.locator("#notice")).to_be_hidden()
    watched.said = [text for text in watched.said if "422" not in text]


def test_late_arrivals(watched: Watched, server: Server) -> None:
    """An event whose minute has been rolled up counts in longer windows, and the page says so; one that is older than
    everything kept counts nowhere.
    """
    now_s = time.time()
    _record(server, "lateok", [now_s - 3 * 3600], [5.0])
    server.request("POST", "/events", {"series": "lateok", "timestamp": [now_s - 30 * 3600], "value": [6.0]})
    page = watched.open("?series=lateok&window=6h")
    expect(page.locator("#tile-count")).to_have_text("1")
    expect(page.locator("#late tbody tr").nth(0)).to_contain_text("in longer windows")
    expect(page.locator("#late tbody tr").nth(1)).to_contain_text("nowhere")
    expect(page.locator("#late-note")).not_to_contain_text("nowhere")
    page.locator("#window").select_option("1h")
    expect(page.locator("#notice p")).to_contain_text("Its newest event is of")


@pytest.mark.parametrize("window", ["1h", "24h", "1h30m", "PT15M", "5400"])
@pytest.mark.parametrize("ahead_s", [0, -86_400, 3_600])
def test_as_of(browser: Browser, server: Server, window: str, ahead_s: int) -> None:
    """The moment of the figures by the service's clock: of any window, on a machine with any clock."""
    watched = Watched(browser, server.target, timezone_id="UTC")
    watched.context.add_init_script(
        f"const Real = Date, ahead = {1000 * ahead_s};"
        " globalThis.Date = class extends Real { constructor(...given) {"
        " if (given.length) super(...given); else super(Real.now() + ahead); }"
        " static now() { return Real.now() + ahead; } };"
    )
    page = watched.open(f"?series=web;route=/users&window={window}")
    expect(page.locator("#tile-count")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("As of")
    shown = re.search(r"As of (\S+ \S+) UTC", page.locator("#status").inner_text())
    assert shown
    told_s = datetime.strptime(shown[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    assert -4 < told_s - time.time() < 2
    watched.check()
    watched.context.close()


def test_what_is_not_exact_is_marked(watched: Watched, server: Server) -> None:
    """Percentiles of roll-ups carry a sign, and say in words how far they may be off, to screen readers too."""
    now_s = time.time()
    _record(server, "rolled", [now_s - 60 * n for n in range(300)], [float(n + 1) for n in range(300)])
    page = watched.open("?series=rolled&window=6h&by=series")
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#tile-50")).to_have_text(re.compile("^≈ 1"))
    expect(page.locator("#tile-50")).to_have_attribute("title", re.compile(r"^1\d\d\.\d+, approximate to ±1 %"))
    expect(page.locator("#tiles dt").nth(5)).to_contain_text("approximate to ±1 %")
    expect(page.locator("#tile-mean")).to_have_text("150.5")
    expect(page.locator("#course-bound")).to_contain_text("±1 %")
    expect(page.locator("#groups-note")).to_contain_text("±1 %")
    page.locator("#chart svg").focus()
    page.keyboard.press("Home")
    while "events, mean" not in page.locator("#reading").inner_text():
        page.keyboard.press("ArrowRight")
    expect(page.locator("#reading")).to_contain_text("p50 to p99: ≈ ")
    page.locator("#window").select_option("15m")
    expect(page.locator("#tile-50")).not_to_contain_text("≈")
    expect(page.locator("#course-bound")).to_be_empty()


def test_what_is_picked_is_a_name(watched: Watched, server: Server) -> None:
    """Whatever it holds: wildcards, what stands between two series in the box, blanks in a tag's value."""
    names = ["what?", "whatX", "st*r", "stair", "a + b", "a", "b"]
    names += ["req;host=*", "req;host=b", "req;host=web 1", "req"]
    now_s = time.time()
    for n, name in enumerate(names):
        _record(server, name, [now_s] * (n + 1), [1.0] * (n + 1))
    page = watched.open()
    box = page.get_by_role("combobox", name="Series or pattern")
    for name in ("what?", "st*r", "a + b", "req;host=*"):
        box.fill(name)
        found = page.locator("#found [role=option]")
        found.filter(has_text=re.compile(f"^{re.escape(name)}[0-9]+$")).click()
        expect(page.locator("#tile-count")).to_have_text(str(names.index(name) + 1))
        assert parse_qs(urlsplit(page.url).query) == {"series": [name]}
        box.focus()
        page.keyboard.press("Tab")
        assert parse_qs(urlsplit(page.url).query) == {"series": [name]}
    page.goto(f"{watched.base}/dashboard?series=a+%2B+b&series=what?&match=st*")
    box.focus()
    page.keyboard.press("End")
    page.keyboard.type(" + req")
    page.keyboard.press("Tab")
    assert parse_qs(urlsplit(page.url).query) == {"series": ["a + b", "what?", "req"], "match": ["st*"]}

    page.goto(f"{watched.base}/dashboard?match=a+%2B+*")
    expect(page.locator("#tile-count")).to_have_text("5")
    box.focus()
    page.keyboard.press("Tab")
    page.locator("#where").fill("x=y")
    page.keyboard.press("Tab")
    expect(page).to_have_url(re.compile("where"))
    assert parse_qs(urlsplit(page.url).query) == {"match": ["a + *"], "where": ["x=y"]}

    for value, count in (("*", 8), ("web 1", 10), ("b", 9)):
        page.goto(f"{watched.base}/dashboard?match=req*&by=host")
        page.locator("#group-rows").get_by_role("button", name=value, exact=True).click()
        expect(page.locator("#tile-count")).to_have_text(str(count))
    page.goto(f"{watched.base}/dashboard?match=req*&where=host%3Dweb 1")
    page.locator("#where").press("End")
    page.keyboard.type(" host=w*")
    page.keyboard.press("Tab")
    expect(page).to_have_url(re.compile("where=host%3Dweb\\+1&where=host%3Dw"))
    expect(page.locator("#tile-count")).to_have_text("10")


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("start=now-1h", "200"),
        ("start=now-2h&end=now-1h", "0"),
        ("start={ago}", "200"),
        ("start={ago}&end=now%2B1m", "200"),
        ("start=garbage&end=x", "start: is not an ISO 8601 date"),
        ("start=now-1h&end=now-2h", "end"),
        ("end=now", "end: needs a start"),
    ],
)
def test_links_with_a_range(watched: Watched, query: str, shown: str) -> None:
    """Whatever the service takes: relative edges and open ends. What it does not take is told in its words."""
    ago = datetime.fromtimestamp(time.time() - 3000, UTC).isoformat()[:19] + "Z"
    page = watched.open(f"?match=web*&{query.format(ago=ago)}")
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    if shown.isdigit():
        expect(page.locator("#tile-count")).to_have_text(shown)
        expect(page.locator("#chart .counts rect")).to_have_count(0) if shown == "0" else expect(
            page.locator("#chart .counts rect").first
        ).to_be_visible()
    else:
        expect(page.locator("#notice h2")).to_have_text("The service refused this question")
        expect(page.locator("#notice p")).to_contain_text(shown)
    expect(page.locator("#window")).to_have_value("range")
    page.get_by_role("button", name="Back to the window").click()
    expect(page.locator("#tile-count")).to_have_text("200")
    watched.said = [text for text in watched.said if "422" not in text]


def test_one_question_at_a_time(watched: Watched, server: Server) -> None:
    """At load and in every round, the dear ones too, the next question waits for the answer of the one before."""
    flying: set[Request] = set()
    most = 0

    def begun(request: Request) -> None:
        nonlocal most
        if "/dashboard" not in request.url:
            flying.add(request)
            most = max(most, len(flying))

    page = watched.page
    page.on("request", begun)
    page.on("requestfinished", lambda request: flying.discard(request))
    page.on("requestfailed", lambda request: flying.discard(request))
    page.clock.install()
    watched.open("?series=paced&by=series")
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    dear = ("histogram", "by=series", "late=true")
    for n in range(100):  # the dear ones are asked in every thirtieth
        _record(server, "paced", [time.time()], [float(n)])
        page.clock.run_for(2000)
        page.wait_for_timeout(50)
        if all(sum(part in one.url for one in watched.asked) >= 3 for part in dear):
            break
    assert all(sum(part in one.url for one in watched.asked) >= 3 for part in dear)
    assert most == 1


def test_nothing_is_cut_off(browser: Browser, server: Server) -> None:
    """Long numbers fit their tiles and axes, on a phone too."""
    now_s = time.time()
    _record(server, "vast", [now_s - 5, now_s - 400, now_s - 500], [9.007199254740993e15, -9.0071e299, -0.000212345])
    _record(server, "narrow", [now_s - 5, now_s - 400], [1e15 + 1, 1e15 + 4])
    for width in (320, 390, 769, 1240):
        watched = Watched(browser, server.target, viewport={"width": width, "height": 900})
        for query in ("?series=vast", "?series=narrow", "?series=vast&unit=s&window=6h"):
            page = watched.open(query)
            expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
            cut = page.evaluate(
                "[...document.querySelectorAll('.figure')].filter(one => one.scrollWidth > one.clientWidth"
                " || one.offsetHeight > 60).map(one => one.textContent)"
            )
            assert cut == []
            assert (
                page.evaluate(
                    "[...document.querySelectorAll('#course svg text, #spread svg text')].filter(one => {"
                    " const text = one.getBoundingClientRect(), all = one.ownerSVGElement.getBoundingClientRect();"
                    " return text.left < all.left - 1 || text.right > all.right + 1; }).map(one => one.textContent)"
                )
                == []
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            labels = page.locator("#chart .axis").first.locator("text").all_text_contents()
            assert len(set(labels)) == len(labels)
        watched.check()
        watched.context.close()


def test_the_keyboard_goes_on(watched: Watched, server: Server) -> None:
    """Tab leads from the search box to the next field, though a list is open; what leads nowhere is no button."""
    long = "x" * 200
    now_s = time.time()
    for name in [long, "plain", "plain;kind=a", *(f"many{n}" for n in range(60))]:
        _record(server, name, [now_s], [1.0])
    page = watched.open("?match=*")
    box = page.get_by_role("combobox", name="Series or pattern")
    box.focus()
    box.fill("many")
    expect(page.locator("#found [role=option]")).to_have_count(50)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "where"
    page.goto(f"{watched.base}/dashboard?match=plain*&by=kind")
    expect(page.locator("#group-rows tbody tr")).to_have_count(2)
    assert page.locator("#group-rows tbody button").all_inner_texts() == ["a"]
    expect(page.locator("#group-rows tbody")).to_contain_text("(without)")
    page.goto(f"{watched.base}/dashboard?series={long}")
    box.focus()
    expect(page.locator("#found [role=option]")).to_have_count(1)
    box.fill("x" * 250)
    expect(page.locator("#found")).to_be_hidden()
    box.fill("x" * 199)
    expect(page.locator("#found [role=option]")).to_have_count(1)


def test_nothing_to_show(watched: Watched, server: Server) -> None:
    """No such series is told from no events, with the names that may be meant; only what has a name can be recorded."""
    now_s = time.time()
    for name in ("lat;route=/u", "lat;route=/o", "latency"):
        _record(server, name, [now_s], [1.0])
    _record(server, "old", [now_s - 1800], [1.0])
    page = watched.open("?series=old&window=5m")
    heading, line, hints = page.locator("#notice h2"), page.locator("#notice pre"), page.locator("#hints button")
    expect(heading).to_have_text("No events in this window")
    expect(line).to_contain_text('"series":"old"')
    page.goto(f"{watched.base}/dashboard?series=lat")
    expect(heading).to_have_text("No such series: lat")
    expect(hints).to_have_text(["lat;*", "lat;route=/o", "lat;route=/u"])
    hints.first.click()
    expect(page.locator("#tile-count")).to_have_text("2")
    page.goto(f"{watched.base}/dashboard?series=laten")
    expect(hints).to_have_text(["latency"])
    hints.first.click()
    expect(page.locator("#tile-count")).to_have_text("1")
    page.goto(f"{watched.base}/dashboard?match=nobody*")
    expect(heading).to_have_text("No such series")
    expect(line).to_be_hidden()
    page.goto(f"{watched.base}/dashboard?match=old*&window=5m")
    expect(heading).to_have_text("No events in this window")
    expect(line).to_be_hidden()
    page.goto(f"{watched.base}/dashboard")
    expect(heading).to_have_text(re.compile("^No events"))
    expect(line).to_contain_text('"value":1}')


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
    # The page, its style and its seven scripts; some tell that they have come only after the tiles are there.
    for _ in range(100):
        if len(sizes) >= 9:
            break
        page.wait_for_timeout(50)
    assert len(sizes) >= 9
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
    assert page.evaluate(SCALES, [["ticks", 0, 1, 4, 1], ["ticks", 0, 3, 4, 1]]) == [[0, 1], [0, 1, 2, 3]]
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
        ("count", 1e-9): "1e-9",
        ("count", -9.0071e15): "-9.007e15",
        ("value", 9.0071e15, "", 17): "9.0071e15",
        ("value", -9.0071e299, "s"): "-1.042e295 d",
        ("value", 9.0072e15, "s"): "1.043e11 d",
        ("value", 8.64e9 - 1, "s"): "1e5 d",
        ("value", 8.6e9, "s"): "99540 d",
        ("value", 1e-12, "s"): "0.001 ns",
        ("ago", 98_400): "1 min 38 s",
        ("ago", 7_860_000): "2 h 11 min",
        ("ago", 60_000): "1 min",
        ("ago", 400): "less than a second",
        ("ago", 90_000_000): "1 d 1 h",
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
