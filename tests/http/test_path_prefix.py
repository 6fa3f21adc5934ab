"""The service below a path of a proxy's: by a setting, or by the word of a proxy that is trusted."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import urljoin

import pytest
from flask import Flask
from flask.testing import FlaskClient

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import ConfigError
from statsapi.routes import Route, served

SETTINGS = Settings(journal="memory://")


@cache  # none of these tests records anything
def client_of(path_prefix: str | None = None, trusted: int = 0) -> FlaskClient:
    return app_of(path_prefix, trusted).test_client()


def app_of(path_prefix: str | None = None, trusted: int = 0) -> Flask:
    settings = Settings(journal="memory://", path_prefix=path_prefix, trusted_proxies=trusted)
    return create_app(settings, background=False)


@pytest.mark.parametrize("route", served(SETTINGS), ids=lambda route: f"{route.method} {route.rule}")
@pytest.mark.parametrize("way", ["setting", "header"])
def test_each_endpoint_answers_below_the_prefix_as_it_does_without(way: str, route: Route) -> None:
    """With the prefix left on or taken off, by the setting and by a trusted proxy's header: the same status."""
    method, rule = route.method, route.rule
    path = re.sub("<.*?>", "index.html" if "dashboard" in rule or "docs" in rule else "some", rule)
    plain = client_of().open(path, method=method)
    expected = plain.status_code, plain.mimetype, plain.headers.get("Location")
    plain.close()
    client = client_of("/a/stats") if way == "setting" else client_of(trusted=1)
    headers = {"X-Forwarded-Prefix": "/a/stats/"} if way == "header" else {}
    for asked in (path, "/a/stats" + path):
        with client.open(asked, method=method, headers=headers) as answer:
            assert (answer.status_code, answer.mimetype, answer.headers.get("Location")) == expected


def test_all_links_lead_below_the_prefix() -> None:
    """Those of the page, of the description's pages, of a redirect, and the servers of the description."""
    client = client_of("/stats")
    for page in ("/stats/dashboard", "/stats/docs/"):
        links = re.findall(r'(?:src|href)="([^"#]+)"', client.get(page).text)
        assert len(links) > 4
        for link in links:
            target = urljoin(f"http://here{page}", link)
            assert target.startswith("http://here/stats/")
            with client.get(target.removeprefix("http://here")) as answer:
                assert answer.status_code == 200, link
    assert urljoin("http://here/stats/docs", client.get("/stats/docs").headers["Location"]) == "http://here/stats/docs/"
    assert client.get("/stats/openapi.json").json["servers"] == [{"url": "/stats"}]
    assert client_of().get("/openapi.json").json["servers"] == [{"url": "/"}]


def test_a_path_that_only_begins_alike_is_not_below_the_prefix() -> None:
    """/statsevent is no /event; the prefix itself is the index."""
    client = client_of("/stats")
    assert client.get("/statshealthz").status_code == 404
    assert client.get("/stats").json["message"] == "Event Statistics API is running"
    assert client.get("/stats/stats/healthz").status_code == 404


@pytest.mark.parametrize(
    "sent",
    ["//evil.example", "https://evil.example", "/a/../..", "/..", "/a b", "/a\\b", "/é", "/stats;x", "evil", "/a//b",
     "/.", "/" + "a" * 5000 + "!", "/stats, //evil.example"],
)  # fmt: skip
def test_a_prefix_that_is_no_path_is_not_believed(sent: str) -> None:
    """A trusted proxy that hands on what a client wrote: such a prefix changes nothing."""
    app = app_of(trusted=1)
    for path, found in (("/healthz", 200), ("/docs", 308), ("/evil.example/healthz", 404)):
        with app.test_client().get(path, headers={"X-Forwarded-Prefix": sent}) as answer:
            assert answer.status_code == found
            assert "evil" not in str(answer.headers)


def test_nobodys_prefix_is_believed_without_a_trusted_proxy() -> None:
    """Neither the header nor anything else names another path."""
    for client in (client_of(), client_of("/stats")):
        headers = {"X-Forwarded-Prefix": "/a", "Script-Name": "/a"}
        assert client.get("/a/healthz", headers=headers).status_code == 404
        assert client.get("/healthz", headers=headers).status_code == 200


@pytest.mark.parametrize("trusted", [1, 2])
def test_the_last_proxys_prefix_counts(trusted: int) -> None:
    """The client's own header is not believed; one of several trusted proxies has to name the prefix."""
    client = client_of(trusted=trusted)
    assert client.get("/a/healthz", headers={"X-Forwarded-Prefix": "/a"}).status_code == 200
    headers = {"X-Forwarded-Prefix": "/clients, /proxys"}
    assert client.get("/proxys/healthz", headers=headers).status_code == 200
    assert client.get("/clients/healthz", headers=headers).status_code == 404


@pytest.mark.parametrize("path_prefix", ["/event", "/statistics/of", "/dashboard"])
def test_a_prefix_that_begins_as_an_endpoint_is_refused(path_prefix: str) -> None:
    """A request could mean two things. In a header it takes nothing off."""
    with pytest.raises(ConfigError, match=r"begins like an endpoint.* choose another"):
        app_of(path_prefix)
    assert client_of(trusted=1).get("/event/healthz", headers={"X-Forwarded-Prefix": "/event"}).status_code == 404


@pytest.mark.parametrize(("given", "meant"), [("/stats/", "/stats"), ("/", ""), ("", None), ("/a.b/~c", "/a.b/~c")])
def test_the_setting_needs_no_last_slash(given: str, meant: str | None) -> None:
    """One is taken off."""
    assert Settings.from_env({"STATSAPI_PATH_PREFIX": given}).path_prefix == meant


@pytest.mark.parametrize("given", ["stats", "//stats", "/a/../b", "/a?b", "https://example.org/stats"])
def test_a_setting_that_is_no_path_is_refused(given: str) -> None:
    """By its name, with how to write one."""
    with pytest.raises(ConfigError, match=r"STATSAPI_PATH_PREFIX.*must be a path like /stats"):
        Settings.from_env({"STATSAPI_PATH_PREFIX": given})
