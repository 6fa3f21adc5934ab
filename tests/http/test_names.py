"""Names and tags over HTTP: in every form, everywhere a name is given, one series for one set of tags."""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import unicodedata
from collections import Counter
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.model import EventBatch
from statsapi.times import parse_timestamp_us
from tests.calls import assert_problem, post
from tests.fakes import NOW, FakeClock

NAMES = [
    "/api/users",
    "GET /users",
    "Länge",
    "a;b=c d",
    "a//b/",
    "..",
    ".",
    "a/../b",
    "/",
    "50%",
    "%2F",
    "a+b",
    "a + b",
    "a&b=c",
    "a?b#c",
    'say "hi", please',
    "it's",
    "back\\slash",
    "🚀 launch",
    "سرعة",
    "q\u0301",  # no single character is this one
    "温度;ort=東京",
    "{name}",
    "<b>",
    "a, b",
    "default",
    "x" * 200,
]

# What is no name, and a word that the refusal must hold.
NO_NAMES = [
    ("x" * 201, "201 characters"),
    ("é" * 201, "201 characters"),
    ("", "is empty"),
    (" a", "blank at an end"),
    ("a ", "blank at an end"),
    ("=1", "begins with ="),
    ("+1", "begins with +"),
    ("-1", "begins with -"),
    ("@a", "begins with @"),
    ("a\x07b", "U+0007"),
    ("a\x7f", "U+007F"),
    ("a\u202eb", "U+202E"),
    ("a\u00a0b", "U+00A0"),
    ("a;", "behind a semicolon"),
    ("a;b", "'b' behind a semicolon"),
    ("a;b=", "'b' without a value"),
    ("a;=c", "without a key"),
    (";b=c", "empty before its tags"),
    ("a;b=1;b=2", "twice"),
]


def forms(series: Any, tags: Any = None) -> list[tuple[str, str, str]]:
    """One event of that series in every form that takes it: what it is called, body, media type."""
    event = {"timestamp": NOW, "value": 1.0, "series": series} | ({} if tags is None else {"tags": tags})
    columns = {**event, "timestamp": [NOW], "value": [1.0]}
    sent = [
        ("single", json.dumps(event), "application/json"),
        ("list", json.dumps([event]), "application/json"),
        ("list, not ASCII", json.dumps([event], ensure_ascii=False), "application/json"),
        ("object", json.dumps({"events": [event]}), "application/json"),
        ("columns", json.dumps(columns), "application/json"),
        ("NDJSON", json.dumps(event) + "\n", "application/x-ndjson"),
        ("NDJSON of two lines", "\n" + json.dumps(event) + "\r\n", "application/x-ndjson"),
        (
            "item read by itself",
            json.dumps([event | {"timestamp": format_datetime(datetime.fromisoformat(NOW))}]).replace(
                '"value"', r'"\u0076alue"'
            ),
            "application/json",
        ),
    ]
    if tags is None and isinstance(series, str) and series:
        text = io.StringIO()
        csv.writer(text).writerows([["timestamp", "value", "series"], [NOW, "1.0", series]])
        sent.append(("CSV", text.getvalue(), "text/csv"))
    try:
        return [(called, body, media_type) for called, body, media_type in sent if body.encode() is not None]
    except UnicodeEncodeError:
        return sent[:2]


def record(client: FlaskClient, called: str, body: str, media_type: str) -> Any:
    path = "/event" if called == "single" else "/events"
    return client.post(path, data=body.encode(), content_type=media_type)


MANY_MARKS = "a" + "\u0327\u0301" * 2500  # below 64 KiB in escapes too


@pytest.mark.parametrize(
    ("called", "body", "media_type", "path"),
    [
        *((called, body, media_type, "") for called, body, media_type in forms(MANY_MARKS)),
        *((f"tag in {called}", body, media_type, "") for called, body, media_type in forms("a", {"k": MANY_MARKS})),
        *((f"key in {called}", body, media_type, "") for called, body, media_type in forms("a", {MANY_MARKS: "v"})),
        ("mapped CSV", f"t,v,s\n1,1,{MANY_MARKS}\n", "text/csv", "/events?timestamp=t&value=v&series=s"),
        ("column of mapped CSV", f"t,{MANY_MARKS},w\n1,1,1\n", "text/csv", "/events?timestamp=t"),
        ("tag of mapped CSV", f"t,v,s\n1,1,{MANY_MARKS}\n", "text/csv", "/events?timestamp=t&value=v&tags=s"),
        ("measurement", f"{MANY_MARKS} f=1", "", "/write"),
        ("field", f"m {MANY_MARKS[:2000]}=1", "", "/write"),
        ("tag of a line", f"m,k={MANY_MARKS[:2000]} f=1", "", "/write"),
        ("key of a line", f"m,{MANY_MARKS[:2000]}=v f=1", "", "/write"),
        ("label", f'm{{a="{MANY_MARKS[:2000]}"}} 1\n', "text/plain", "/metrics/job/x"),
    ],
)
def test_no_body_makes_the_service_normalize_what_cannot_be_a_name(
    client: FlaskClient, normalized_texts: list[str], called: str, body: str, media_type: str, path: str
) -> None:
    """Wherever a name, a tag or its key stands, it is refused before its 5,000 combining marks are sorted."""
    if path:
        answer = client.post(path, data=body.encode(), content_type=media_type)
    else:
        answer = record(client, called, body, media_type)
    assert answer.status_code in (400, 413, 422)
    assert len(answer.data) < 5000
    assert max(map(len, normalized_texts), default=0) <= 30


@pytest.mark.parametrize(
    "path",
    [
        "/statistics?series={}",
        "/statistics?match={}",
        "/statistics?match=*{}*",
        "/statistics?where={}=a",
        "/statistics?where=a={}",
        "/statistics?by={}",
        "/series?prefix={}",
        "/tags/{}",
    ],
)
def test_no_query_makes_the_service_normalize_what_cannot_be_a_name(
    shared_client: FlaskClient, normalized_texts: list[str], path: str
) -> None:
    """Wherever a name, a pattern or a key stands: 600 marks, which still fit in a URL, are not sorted."""
    assert_problem(shared_client.get(path.format(quote(MANY_MARKS[:600]))), 422, "validation")
    assert max(map(len, normalized_texts), default=0) <= 30


def names_held(client: FlaskClient) -> list[str]:
    body: Any = client.get("/series").json
    return [row["name"] for row in body["series"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_works_in_every_form_and_question(client: FlaskClient, name: str) -> None:
    """Recorded in each form it is one series, which every endpoint finds, and deletes by path and by query."""
    sent = forms(name)
    for called, body, media_type in sent:
        assert record(client, called, body, media_type).status_code == 200, called
    assert names_held(client) == [name]
    query = urlencode({"series": name})
    assert client.get(f"/statistics?{query}").json["count"] == len(sent)
    assert client.get(f"/statistics?series={quote(name, safe='')}&window=1h").json["series"] == name
    assert client.get(f"/statistics/timeline?{query}&window=1m&step=1m").json["series"] == name
    assert client.get(f"/debug/events?{query}").json["total_events"] == len(sent)
    exported: Any = client.get(f"/events?{query}").json
    assert {event["series"] for event in exported["events"]} == {name}
    for form, media_type in (("csv", "text/csv"), ("ndjson", "application/x-ndjson"), ("json", "application/json")):
        body = client.get(f"/events?{query}&format={form}").text
        assert client.delete(f"/series?{query}").json == {"status": "success", "series": name, "deleted": len(sent)}
        assert names_held(client) == []
        assert client.post("/events", data=body.encode(), content_type=media_type).json["stored"] == len(sent)
        assert names_held(client) == [name]
    assert client.delete(f"/series/{quote(name, safe='')}").json["deleted"] == len(sent)
    assert names_held(client) == []


@pytest.mark.parametrize(("name", "why"), NO_NAMES)
def test_what_is_no_name_is_refused_everywhere(client: FlaskClient, name: str, why: str) -> None:
    """With a 422 that names the field and the cure, in every form and question; nothing is recorded."""
    for called, body, media_type in forms(name):
        problem = assert_problem(record(client, called, body, media_type), 422, "validation")
        assert [error["field"] for error in problem["errors"]] == ["series"], called
        assert why in problem["errors"][0]["reason"], called
    query = urlencode({"series": name})
    questions = [
        client.get(f"/statistics?{query}"),
        client.get(f"/statistics/timeline?{query}&step=1m"),
        client.get(f"/events?{query}"),
        client.get(f"/debug/events?{query}"),
        client.delete(f"/series?{query}"),
    ]
    if name:
        questions.append(client.delete(f"/series/{quote(name, safe='')}"))
    for response in questions:
        problem = assert_problem(response, 422, "validation")
        assert why in problem["errors"][0]["reason"]
    assert names_held(client) == []


def test_half_a_surrogate_is_no_name(client: FlaskClient) -> None:
    """JSON may spell one, UTF-8 not: it is refused, not a fault."""
    for series, tags in (("a\ud800", None), ("a", {"k": "\ud800"}), ("a", {"\udc00": "v"})):
        for called, body, media_type in forms(series, tags):
            if "not ASCII" not in called:
                problem = assert_problem(record(client, called, body, media_type), 422, "validation")
                assert "U+D" in problem["errors"][0]["reason"]


def test_bytes_that_are_no_text_are_no_name(client: FlaskClient) -> None:
    """Percent signs in front of what is no UTF-8 delete nothing."""
    post(client, NOW, 1.0, series="\ufffd")
    broken = client.delete("/series/x", environ_overrides={"PATH_INFO": "/series/\xff"})
    assert_problem(broken, 422, "validation")
    assert names_held(client) == ["\ufffd"]


@pytest.mark.parametrize(
    "query", ["series=%ff", "series=L%E4nge", "match=%C3", "by=%ff", "series=a&where=%80=a", "%ff=1"]
)
def test_a_query_that_is_no_text_is_refused(client: FlaskClient, query: str) -> None:
    """By each endpoint that reads one: `%FF` as it stands would be another series."""
    post(client, NOW, 1.0, series="%FF")
    for method, path in (
        ("DELETE", "/series"),
        ("GET", "/statistics"),
        ("GET", "/statistics/timeline"),
        ("GET", "/statistics/histogram"),
        ("GET", "/events"),
        ("GET", "/series"),
        ("GET", "/check"),
        ("GET", "/debug/events"),
    ):
        problem = assert_problem(client.open(f"{path}?{query}", method=method), 422, "validation")
        assert "UTF-8" in problem["errors"][0]["reason"]
    raw = client.get("/statistics", environ_overrides={"QUERY_STRING": "series=\xe4"})
    assert_problem(raw, 422, "validation")
    assert names_held(client) == ["%FF"]


def test_a_deletion_by_query_needs_the_name(client: FlaskClient) -> None:
    """Without it nothing is deleted, `default` neither."""
    post(client, NOW, 1.0)
    problem = assert_problem(client.delete("/series"), 422, "validation")
    assert problem["errors"] == [{"field": "series", "reason": "is missing: say which, as series=NAME"}]
    assert_problem(client.delete("/series?series=a&series=b"), 422, "validation")
    assert names_held(client) == ["default"]


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ("a=b", "must be an object"),
        (7, "must be an object"),
        ({"k": None}, "'k' that is null"),
        ({"k": 1.5}, "a number with decimals"),
        ({"k": {}}, "not one value"),
        ({"k": ""}, "without a value"),
        ({"": "v"}, "without a key"),
        ({"k": "a;b"}, "holds a semicolon"),
        ({"k=": "v"}, "holds = or ;"),
        ({" k": "v"}, "must not begin or end"),
        ({"k": "v "}, "must not begin or end"),
        ({"k": "a\nb"}, "U+000A"),
        ({"k": "v" * 200}, "200 at most"),
        ({"held": "other"}, "twice"),
    ],
)
def test_tags_that_make_no_name_are_refused(client: FlaskClient, tags: Any, why: str) -> None:
    """With a 422 that names `tags` and the cure, in every form that has them."""
    for called, body, media_type in forms("a;held=1", tags if tags is not None else []):
        if tags is None:
            body = body.replace('"tags": []', '"tags": null')
        problem = assert_problem(record(client, called, body, media_type), 422, "validation")
        assert [error["field"] for error in problem["errors"]] == ["tags"], called
        reason = problem["errors"][0]["reason"]
        assert why in reason, called
        assert reason.startswith(("must be an object", "the series' name with these tags h")), called
    assert names_held(client) == []


def test_columns_have_one_set_of_tags(client: FlaskClient) -> None:
    """A column of a tag's values is refused with what to send instead; `tags` beside `events` is not known."""
    columns = {"series": "a", "tags": {"host": ["x", "y"]}, "timestamp": [NOW, NOW], "value": [1, 2]}
    problem = assert_problem(client.post("/events", json=columns), 422, "validation")
    assert problem["errors"][0]["field"] == "tags"
    assert "array of events" in problem["errors"][0]["reason"]
    events = {"events": [{"timestamp": NOW, "value": 1}], "tags": {"a": "b"}}
    assert assert_problem(client.post("/events", json=events), 422, "validation")["errors"][0]["field"] == "tags"


def test_a_bad_name_among_good_ones_is_named_alone(client: FlaskClient) -> None:
    """With partial=true the others are stored: tagged, plain, in other forms, and odd ones beside them."""
    events = [
        {"timestamp": NOW, "value": 1, "series": "a"},
        {"timestamp": NOW, "value": 2, "series": "a", "tags": {"y": 1, "x": True}},
        {"timestamp": NOW, "value": 3, "series": "a;y=1;x=true"},
        {"timestamp": NOW, "value": 4, "series": "a", "tags": {"x": ""}},
        {"timestamp": NOW, "value": 5, "series": "a;"},
        {"timestamp": NOW, "value": None, "series": "a"},
        {"timestamp": NOW, "value": "6", "series": "a", "tags": {}},
        {"timestamp": NOW, "value": 7, "series": "La\u0308nge"},
        {"timestamp": NOW, "value": 8, "series": "Länge"},
    ]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    for at, (body, media_type) in enumerate(
        ((json.dumps(events), "application/json"), (lines, "application/x-ndjson"))
    ):
        answer: Any = client.post("/events?partial=true", data=body, content_type=media_type).json
        number, first = (("index", 0), ("line", 1))[at]
        assert [(error[number] - first, error["field"]) for error in answer["errors"]] == [
            (3, "tags"),
            (4, "series"),
            (5, "value"),
        ]
        counts: Any = client.get("/series").json
        assert {row["name"]: row["count"] for row in counts["series"]} == {
            "a": 2 * (at + 1),
            "a;x=true;y=1": 2 * (at + 1),
            "Länge": 2 * (at + 1),
        }


def test_two_events_in_a_line_are_not_taken_for_two_lines(client: FlaskClient) -> None:
    """Tags are objects, so a line may begin with a { inside an event: such a body is read line by line."""
    event = json.dumps({"timestamp": NOW, "value": 1})
    broken = f'{event}{event[:-1]}, "tags":\n{{"a": "b"}}}}\n'
    answer = client.post("/events", data=broken, content_type="application/x-ndjson")
    assert {error["line"] for error in assert_problem(answer, 422, "validation")["errors"]} == {1, 2}


def test_tags_that_hold_no_text_break_the_body(client: FlaskClient) -> None:
    """Bytes in tags that are not UTF-8 are refused as elsewhere, and so is an integer of 5,000 digits."""
    event = b'{"timestamp": "%s", "value": 1, "tags": {"a": %%s}}' % NOW.encode()
    for media_type, open_, close in (("application/json", b"[", b"]"), ("application/x-ndjson", b"", b"")):
        for value in (b'"\xff"', b"9" * 5000, b"[" * 5000 + b"]" * 5000, b"NaN", b"01"):
            body = open_ + event % value + close
            assert client.post("/events", data=body, content_type=media_type).status_code in (400, 422)
        assert client.post("/event", data=event % value).status_code in (400, 422)


def test_pages_go_on_in_names_with_blanks(client: FlaskClient) -> None:
    """A cursor and `after` hold any name."""
    for name in NAMES:
        post(client, NOW, 1.0, series=name)
        post(client, NOW, 2.0, series=name)
    found: list[tuple[str, float]] = []
    cursor = ""
    while cursor is not None:
        page: Any = client.get(f"/events?limit=1&cursor={quote(cursor)}").json
        found += [(event["series"], event["value"]) for event in page["events"]]
        cursor = page["next"]
    assert found == [(name, value) for name in sorted(NAMES) for value in (1.0, 2.0)]
    listed: list[str] = []
    after = ""
    while after is not None:
        page = client.get(f"/series?limit=3&{urlencode({'after': after})}").json
        listed += [row["name"] for row in page["series"]]
        after = page["next"]
    assert listed == sorted(NAMES)


def test_metrics_escape_names() -> None:
    """Quotes and backslashes in a label are escaped, as Prometheus reads them."""
    shown = ['say "hi"', "back\\slash", "Länge;ort=a b"]
    app = create_app(Settings(journal="memory://", metrics_series=tuple(shown)), clock_us=FakeClock(), background=False)
    text = app.test_client().get("/metrics").text
    for label in (r'series="say \"hi\""', r'series="back\\slash"', 'series="Länge;ort=a b"'):
        assert f"statsapi_window_events{{{label},window=" in text


words = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" ", exclude_characters=';=,"'),
    min_size=1,
    max_size=6,
).filter(lambda s: s == s.strip() and s[0] not in "=+-@" and unicodedata.normalize("NFC", s)[0] not in "=+-@")


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("a", {"k": "v"}, None)
@given(words, st.dictionaries(words, words | st.integers(-9, 999) | st.booleans(), max_size=4), st.randoms())
def test_a_set_of_tags_is_one_series(base: str, tags: dict[str, Any], dice: Any) -> None:
    """In any order, composed or not, in the name or beside it, in each form: the series that a naive sort gives."""

    def text(value: Any) -> str:
        return json.dumps(value) if isinstance(value, bool) else str(value)

    def nfc(written: str) -> str:
        return unicodedata.normalize("NFC", written)

    naive: dict[str, str] = {}
    for key, value in tags.items():
        if naive.setdefault(nfc(key), nfc(text(value))) != nfc(text(value)):
            return  # two keys that are one in NFC
    name = ";".join([nfc(base), *(f"{key}={naive[key]}" for key in sorted(naive))])
    client = create_app(Settings(journal="memory://"), clock_us=FakeClock(), background=False).test_client()
    count = 0
    for form in ("NFC", "NFD"):
        items = [(unicodedata.normalize(form, key), value) for key, value in tags.items()]
        if dice is not None:
            dice.shuffle(items)
        head, tail = items[: len(items) // 2], items[len(items) // 2 :]
        written = unicodedata.normalize(form, base)
        in_name = ";".join([written, *(f"{key}={text(value)}" for key, value in items)])
        half = ";".join([written, *(f"{key}={text(value)}" for key, value in head)])
        for called, body, media_type in [*forms(in_name), *forms(written, dict(items)), *forms(half, dict(tail))]:
            answer = record(client, called, body, media_type)
            assert answer.status_code == 200, (called, answer.text)
            count += 1
    listed: Any = client.get("/series").json
    assert [(row["name"], row["count"]) for row in listed["series"]] == [(name, count)]


def pages(client: FlaskClient, path: str, of: str) -> list[Any]:
    """All rows, two at a time."""
    rows: list[Any] = []
    after = ""
    while after is not None:
        page: Any = client.get(f"{path}{'&' if '?' in path else '?'}{urlencode({'limit': 2, 'after': after})}").json
        assert len(page[of]) <= 2
        rows += page[of]
        after = page["next"]
    return rows


@given(
    st.dictionaries(
        st.sampled_from(["web", "web.a", "Länge", "GET /users"]).flatmap(
            lambda base: st.dictionaries(
                st.sampled_from(["host", "route", "status", "ö"]),
                st.sampled_from(["a", "/users", "200", "5x", "é", "b=c"]),
            ).map(lambda tags: ";".join([base, *(f"{key}={tags[key]}" for key in sorted(tags))]))
        ),
        st.booleans(),
        max_size=8,
    ),
    st.sampled_from(
        ["", "match=web*", "match=*;*&match=G?T*", "where=status=*0*", "where=host=*&where=route=/*", "series=web"]
    ),
)
def test_lists_are_those_of_a_naive_twin(series: dict[str, bool], question: str) -> None:
    """Series with their tags, keys and values with their counts, page by page, also where all has been rolled up."""
    clock = FakeClock()
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    client = app.test_client()
    for name, old in series.items():
        post(client, "2025-11-21T02:00:00Z" if old else NOW, 1.0, series=name)
    app.extensions["statsapi"].keep_house()
    asked = [part.partition("=")[::2] for part in question.split("&") if part]
    held = {name: dict(tag.partition("=")[::2] for tag in name.split(";")[1:]) for name in sorted(series)}

    def fits(text: str | None, pattern: str) -> bool:
        return text is not None and fnmatch.fnmatchcase(text, pattern)

    chosen = {
        name: tags
        for name, tags in held.items()
        if all(
            fits(tags.get(rule.partition("=")[0]), rule.partition("=")[2]) for kind, rule in asked if kind == "where"
        )
        and (
            not [kind for kind, _ in asked if kind != "where"]
            or any(name == rule if kind == "series" else fits(name, rule) for kind, rule in asked if kind != "where")
        )
    }
    listed = pages(client, f"/series?{question}", "series")
    assert [(row["name"], row["tags"]) for row in listed] == list(chosen.items())
    raw = pages(client, f"/series?raw=true&{question}", "series")
    assert [row["name"] for row in raw] == [name for name in chosen if not series[name]]
    keys = sorted({key for tags in chosen.values() for key in tags})
    assert pages(client, f"/tags?{question}", "tags") == [
        {"key": key, "series": sum(key in tags for tags in chosen.values())} for key in keys
    ]
    for key in ["host", "route", "status", "o\u0308", "none"]:
        canonical = unicodedata.normalize("NFC", key)
        counted = Counter(tags[canonical] for tags in chosen.values() if canonical in tags)
        assert pages(client, f"/tags/{quote(key)}?{question}", "values") == [
            {"value": value, "series": counted[value]} for value in sorted(counted)
        ]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/tags?where=status", "where"),
        ("/tags?match=", "match"),
        ("/tags?prefix=a", "prefix"),
        ("/tags/a?limit=0", "limit"),
        ("/tags/a?limit=10001", "limit"),
        ("/tags/a%3Bb", "key"),
        ("/tags/a%3Db", "key"),
        ("/tags/%20a", "key"),
        ("/tags/a%0A", "key"),
        ("/series?where=a;b=c", "where"),
        ("/series?series=-a", "series"),
    ],
)
def test_lists_that_make_no_sense_are_refused(client: FlaskClient, path: str, field: str) -> None:
    """With a 422 that names the parameter."""
    problem = assert_problem(client.get(path), 422, "validation")
    assert [error["field"] for error in problem["errors"]] == [field]


def test_a_name_that_is_none_today_can_be_seen_and_deleted(app: Flask, client: FlaskClient) -> None:
    """Whatever an old or foreign journal holds is listed, exported page by page and deleted, by path and by query."""
    odd = ["a;k", " a", "=1", "a;z=1;b=2", "La\u0308nge", ";=", "x;"]
    service = app.extensions["statsapi"]
    for name in odd:
        for value in (1.0, 2.0):
            service.record(EventBatch.single(name, parse_timestamp_us(NOW), value))
    assert names_held(client) == sorted(odd)
    assert client.get("/tags").status_code == client.get("/tags/k").status_code == 200
    events: list[str] = []
    cursor = ""
    while cursor is not None:
        page: Any = client.get(f"/events?limit=1&cursor={quote(cursor)}").json
        events += [event["series"] for event in page["events"]]
        cursor = page["next"]
    assert events == [name for name in sorted(odd) for _ in range(2)]
    for at, name in enumerate(odd):
        path = f"/series/{quote(name, safe='')}" if at % 2 else f"/series?{urlencode({'series': name})}"
        assert client.delete(path).json == {"status": "success", "series": name, "deleted": 2}
    assert names_held(client) == []


def test_tags_of_many_different_series_are_bounded(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each different set of tags costs time; equal ones cost nothing. In every form that has tags."""
    monkeypatch.setattr("statsapi.api.decoding.rows.TAGS_MAX", 30)
    moment = NOW
    for different, status in ((10, 200), (11, 413)):
        sets = [{key: str(at % different) for key in "abc"} for at in range(different * 3)]
        rows = [{"timestamp": moment, "value": 1, "series": f"x{different}", "tags": each} for each in sets]
        table = "t,v,a,b,c\n" + "".join(f"{moment},1,{','.join(each.values())}\n" for each in sets)
        lines = "".join(f"y{different},{','.join(f'{k}={v}' for k, v in each.items())} v=1\n" for each in sets)
        ndjson = "".join(json.dumps(row) + "\n" for row in rows)
        for path, body, media_type in (
            ("/events", json.dumps(rows), "application/json"),
            ("/events", ndjson, "application/x-ndjson"),
            ("/events?timestamp=t&value=v&tags=a,b,c", table, "text/csv"),
            ("/api/v2/write", lines, "text/plain"),
        ):
            answer = client.post(path, data=body, content_type=media_type)
            assert answer.status_code in (status, 204 if status == 200 else status), (path, answer.data)


def test_only_a_plus_that_was_sent_is_a_plus(client: FlaskClient, app: Flask, clock: FakeClock) -> None:
    """In a query, where only the name with it is held: a %20 never is, nor beside one."""
    for name in ("pl+us", "a+b c"):
        app.extensions["statsapi"].record(EventBatch.single(name, clock.now_us, 1.0))
    queries = {"pl+us": 1, "pl%2Bus": 1, "pl%2bus": 1, "pl%20us": 0, "a+b+c": 0, "a+b%20c": 1, "a%20b%20c": 0}
    for query, count in queries.items():
        assert client.get(f"/statistics?window=1m&series={query}").json["count"] == count, query
