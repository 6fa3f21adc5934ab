"""Settings: one list, checked as a whole, and the docs tell the truth about it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from marshmallow.fields import Field

from statsapi.config import Settings, env_names, read_one, settings_table, unknown_names
from statsapi.errors import ConfigError, JournalRefused
from statsapi.journal import open_journal
from statsapi.keys import Keys
from statsapi.model import DAY_US, HOUR_US, MINUTE_US
from statsapi.setting_kinds import Choice, Switch
from tests.servers import ROOT


def test_defaults() -> None:
    """An empty environment gives the defaults; a variable set to nothing counts as unset."""
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"STATSAPI_WINDOW": "", "STATSAPI_JOURNAL": " "}) == Settings()


def test_values_are_read_with_their_units() -> None:
    """Durations and numbers become microseconds and bytes."""
    settings = Settings.from_env(
        {
            "STATSAPI_JOURNAL": "memory://",
            "STATSAPI_WINDOW": "15m",
            "STATSAPI_RETENTION": "P1D",
            "STATSAPI_MAX_FUTURE_SKEW": "90",
            "STATSAPI_MAX_BODY_BYTES": "2048",
        }
    )
    assert settings.journal == "memory://"
    assert settings.window_us == 15 * MINUTE_US
    assert settings.retention_us == DAY_US
    assert settings.max_future_skew_us == 90_000_000
    assert settings.max_body_bytes == 2048


def test_every_fault_is_reported_at_once() -> None:
    """A start with several faults names them all, with the variable and what was found in it."""
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(
            {
                "STATSAPI_FSYNC": "sometimes",
                "STATSAPI_MAX_BODY_BYTES": "many",
                "STATSAPI_MAX_FUTURE_SKEW": "soon",
                "STATSAPI_RETENTION": "30m",
                "STATSAPI_WINDOW": "1h",
            }
        )
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 4
    for said in ("STATSAPI_FSYNC='sometimes'", "STATSAPI_MAX_BODY_BYTES='many'", "STATSAPI_MAX_FUTURE_SKEW='soon'"):
        assert said in faults
    assert "STATSAPI_RETENTION (30m) must not be shorter than STATSAPI_WINDOW (1h)" in faults


def test_retention_may_not_be_shorter_than_the_window() -> None:
    """Also where settings are constructed by hand."""
    with pytest.raises(ConfigError, match="RETENTION"):
        Settings(window_us=2 * HOUR_US)


def test_unknown_names_are_pointed_out() -> None:
    """A misspelt variable is found; Kubernetes' own with the same prefix do not stop the start."""
    environ = {"STATSAPI_WINDWO": "1h", "STATSAPI_PORT_8000_TCP": "tcp://10.0.0.1:8000", "PATH": "/bin"}
    assert unknown_names(environ) == ["STATSAPI_PORT_8000_TCP", "STATSAPI_WINDWO"]
    Settings.from_env(environ)


def test_the_docs_list_every_setting() -> None:
    """The table of docs/configuration.md is the one that the code gives."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    table = page.split("by a test -->\n", 1)[1].split("<!-- end of settings -->", 1)[0]
    assert table == settings_table()
    assert all(name in table for name in env_names().values())


# Values that mean nothing are refused at start, each with its reason

# fmt: off
NO_NUMBERS = ["-1", "+1", "1.0", "1e3", "0x10", "1_000", "1,000", "\u0661\u0662", "ten", "16MB", "16 777", "NaN", "inf",
              "None", "--", "9" * 30, "'5'", "true", "5%", "1/2", ";"]
NO_CHOICES = ["yes please", "ON!", "0.5", "-1", "none", "null", "auto,on", "'on'", "2", "maybe", "*", "//", "{}", "[]",
              "always ever", "enabled?", "served", "plaintext", "xml", "offf"]
NO_DURATIONS = ["0s", "0m", "PT0S", "P", "PT", "-1h", "+1h", "1e3", "soon", "1 fortnight", "h", "1hh", "1.5.5s", "nan",
                "inf", "36501d", "9" * 18 + "d", "1y", "1:30", "m5", "'1h'"]
NO_LIMITS = ["0/minute", "0/second,5/minute", "5/0 minute", "5 per 0 day", "-5/minute", "5", "/minute", "5/",
             "1.5/minute", "5/fortnight", "1e3/hour", "5/minute garbage", "5/minute,,", "9" * 20 + "/second",
             "5/99999999 year", "5/minute,5/minute", "5/minute,9/60 second", "5//minute", "per minute", "unlimited",
             "5/min"]
NO_STORAGES = ["redis", "redis://", "redis:///0", "redis://host:port/0", "redis://host:99999/0", "redis://host/zero",
               "redis://a b:6379/0", "redis+unix://", "redis+unix://socket", "http://host", "memcached://host",
               "host:6379", "memory://", "redis+cluster://host", "mongodb://host", "://", "redis:/host",
               "rediss://:6379/0", "redis://[::1/0", "redis://host:6379/0/1", "redis://host/99999999999999999999",
               "rediss://host/0?ssl_ca_certs=/nope"]
NO_SERIES = [",", ", ,", "-a", "=a", "@a", "a\tb", "a;b", "a;k=", "a;=v", "a;k=1;k=2", "a;k", ";k=v", "a;;b=c",
             "a ;k=v", "a\u200db", "a\ud800", "a" * 201, "default,+", "a,,b", "a,", ",a", "a, ,b",
             ",".join(f"s{at}" for at in range(1001))]
NO_WINDOWS = [",", ",,", "5m,300s", "1h,PT1H", "60m,1h", "5,5s", "0", "0s", "-5m", "5m,0s", "soon", "5m;1h", "5m,soon",
              "36501d", "5m 1h", "25h", "2d,1h", "5m,,1h", "5m,", "9" * 18 + "w", "[5m]", "5m,*"]
NO_ORIGINS = [",", "example.com", "https://", "https://a/", "https://a/path", "https://a:0", "https://a:99999",
              "https://a:443", "http://a:80", "https://a,b", "https://.*", "ftp://a", "null", "https://*.a",
              "https://a b", "https://u:p@a", "https://a?x", "https://a#x", "https://a,,https://b", "https://a,",
              "HTTPS//a", "https://[::1"]
NO_JOURNALS = ["sqlite:///:memory:", "sqlite://:memory:", "sqlite:///", "sqlite://", "sqlite:", "sqlite:////",
               "sqlite:///a/", "sqlite:///x.db?mode=ro", "sqlite:///file:x.db", "sqlite:///file:x.db?mode=memory",
               "sqlite:///~/x.db", "sqlite:///$HOME/x.db", "sqlite:///x\n.db", "sqlite:///.", "sqlite:///..",
               "sqlite:////tmp", "sqlite:////dev/null", "sqlite:////etc/passwd/x.db", "sqlite:////proc/x.db",
               "sqlite:///" + "a" * 300, "sqlite:////" + "d/" * 3000 + "x", "sqlite:///" + "\u00e9" * 120,
               "sqlite:////tmp/" + "/".join(["b" * 99] * 5), "sqlite:///\udc80.db", "memory:", "memory://x", "memory:///",
               "memory", "data/events.db", "mysql://h/db", "redis://", "redis:///0", "redis://h:99999", "redis://h/x",
               f"redis://{'h' * 64}/0", "'memory://'", f"redis://h/{2**31}", f"redis://h/{'9' * 20}",
               "rediss://h/0?ssl_ca_certs=/nope", "rediss://h/0?ssl_ca_certs=/tmp", "rediss://h/0?ssl_ca_path=/nope",
               "rediss://h/0?ssl_certfile=/nope", "rediss://h/0?ssl_keyfile=/nope", "rediss://h/0?ssl_cert_reqs=maybe",
               f"rediss://h/0?ssl_ca_certs={__file__}", f"rediss+cluster://h?ssl_certfile={__file__}"]
# fmt: on


def of_kind(*kinds: type[Field[Any]]) -> dict[str, str]:
    """The settings of these kinds, field -> variable: a new one is covered by the tests below without a line of its
    own.
    """
    return {
        field.name: env_names()[field.name]
        for field in dataclasses.fields(Settings)
        if isinstance(field.metadata["field"], kinds)
    }


SWITCHES, CHOICES = of_kind(Switch), of_kind(Choice)
CAN_BE_OFF = {field.name: env_names()[field.name] for field in dataclasses.fields(Settings) if "off" in field.metadata}

SILLY = {
    **{variable.removeprefix("STATSAPI_"): NO_CHOICES for variable in (SWITCHES | CHOICES).values()},
    "REDIS_WAIT_REPLICAS": [*NO_NUMBERS, "11"],
    "TRUSTED_PROXIES": [*NO_NUMBERS, "11"],
    "PATH_PREFIX": [
        *(
            "stats",
            "stats/",
            "//stats",
            "/a//b",
            "/..",
            "/a/../b",
            "/.",
            "/./a",
            "/a?b",
            "/a#b",
            "/a b",
            "/a/.",
            "/a%20b",
        ),
        *("/ä", "/a\\b", "https://example.org/stats", "/a;b", "/{a}", "/a\tb", "off", "~", ".."),
    ],
    "MAX_BODY_BYTES": [*NO_NUMBERS, "0", "1023", str(2**30 + 1)],
    "MAX_BATCH_EVENTS": [*NO_NUMBERS, "0", "10000001"],
    "MAX_SERIES": [*NO_NUMBERS, "0", "100000001"],
    "MAX_QUERY_SERIES": [*NO_NUMBERS, "0", "100000001"],
    "MAX_EVENTS": [*NO_NUMBERS, "1000000000001"],
    "WINDOW": [*NO_DURATIONS, "0", "2h"],  # longer than the retention
    "RETENTION": [*NO_DURATIONS, "0", "59m"],
    "ROLLUP_RETENTION": NO_DURATIONS,
    "MAX_FUTURE_SKEW": [*NO_DURATIONS, "0"],
    "IDEMPOTENCY_TTL": [*NO_DURATIONS, "0"],
    "RATE_LIMIT": NO_LIMITS,
    "RATE_LIMIT_STORAGE": NO_STORAGES,
    "METRICS_SERIES": NO_SERIES,
    "METRICS_WINDOWS": NO_WINDOWS,
    "CORS_ORIGINS": NO_ORIGINS,
    "BEACON_ORIGINS": [*NO_ORIGINS, "*", "https://a.example, *"],
}


@pytest.mark.parametrize("name", SILLY)
def test_a_value_that_means_nothing_is_refused_with_its_reason(name: str) -> None:
    """Twenty such values for each setting: one fault that names the variable and says what to write."""
    values = SILLY[name]
    assert len(set(values)) >= 19
    for value in values:
        with pytest.raises(ConfigError) as caught:
            print(name, value, Settings.from_env({f"STATSAPI_{name}": value}))
        (fault,) = caught.value.faults
        assert f"STATSAPI_{name}" in fault
        assert len(fault) > len(f"STATSAPI_{name}=''") + 15 + min(len(value), 100)


def test_every_setting_has_values_that_mean_nothing() -> None:
    """A new setting needs a list above, or a test of its own: the journal and the keys have one below, those of tokens
    in tests/http/test_tokens.py.
    """
    elsewhere = {"JOURNAL", "API_KEYS", "API_KEYS_FILE", "JWT_KEY", "JWT_JWKS_FILE", "JWT_ISSUER", "JWT_AUDIENCE"}
    assert {f"STATSAPI_{name}" for name in {*SILLY, *elsewhere}} == set(env_names().values())


@pytest.mark.parametrize("names", [("JWT_ISSUER",), ("JWT_AUDIENCE",), ("JWT_ISSUER", "JWT_AUDIENCE")])
def test_whom_tokens_are_of_means_nothing_without_a_key(names: tuple[str, ...]) -> None:
    """Whoever sets an issuer or an audience believes that tokens are checked: a fault says that the key is missing."""
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({f"STATSAPI_{name}": "x" for name in names})
    (fault,) = caught.value.faults
    assert f"STATSAPI_{names[0]} does nothing without a key" in fault


def test_sensible_values_are_taken() -> None:
    """What stands near the refused values and means something."""
    given = {
        "RATE_LIMIT": ["1/minute", "10/second,1000/hour", "5/2 minutes", "5 per day", "100/minute;5/second", "1/year"],
        "RATE_LIMIT_STORAGE": [
            "redis://h",
            "redis://:p%2F@h:6379/1",
            "rediss://u:p@[::1]:6380",
            "redis+unix:///run/r.sock",
        ],
        "METRICS_SERIES": ["default", "a, b", "a/b", "cpu.load:1m", "_x"],
        "METRICS_WINDOWS": ["5m", "5m, 1h", "PT15M,90,24h"],
        "CORS_ORIGINS": ["*", "https://a.example", "http://localhost:3000, http://[::1]:3000", "http://my_host:8080"],
        "MAX_BODY_BYTES": ["1024", "1073741824"],
        "ROLLUP_RETENTION": ["0", "365d"],
    }
    for name, values in given.items():
        for value in values:
            Settings.from_env({f"STATSAPI_{name}": value})


@pytest.mark.parametrize("url", NO_JOURNALS)
def test_a_journal_that_cannot_be_meant_is_refused_and_makes_no_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason in one sentence, neither a traceback nor a file of a strange name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        open_journal(url)
    assert len(caught.value.faults) == 1
    assert len(caught.value.faults[0]) < 500
    assert list(tmp_path.iterdir()) == []


def test_a_journal_in_memory_is_named_to_who_asks_sqlite_for_one() -> None:
    """sqlite:///:memory: is what SQLAlchemy calls it; here it would be a file of that name."""
    with pytest.raises(ConfigError, match="memory://"):
        open_journal("sqlite:///:memory:")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_journal_without_permission_is_refused(tmp_path: Path) -> None:
    """A folder that may not be written or looked into, a file that may not be read."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (tmp_path / "file.db").touch(mode=0o000)
    for mode in (0o000, 0o500):
        closed.chmod(mode)
        for path in (closed / "x.db", closed / "deeper" / "x.db", tmp_path / "file.db"):
            with pytest.raises(JournalRefused):
                open_journal(f"sqlite:///{path}")
    closed.chmod(0o700)


def test_keys_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    """No file, a folder, an empty file, no text, and lines that are no keys."""
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for name in ("absent", "", "empty", "binary", "absent/x", "x" * 300):
        with pytest.raises(ConfigError):
            Keys(str(tmp_path / name), None)
    for entries in (
        ";",
        " ; ",
        "#",
        "x",
        "x y",
        "x read",
        "x read blake2b:",
        "x read blake2b:zz",
        "x write sha1:00",
        "read",
    ):
        with pytest.raises(ConfigError):
            Keys(None, entries)


ON_WORDS = ("on", "On", "oN", "ON", "true", "True", "TRUE", "yes", "Yes", "YES", "1")
OFF_WORDS = ("off", "Off", "oFF", "OFF", "false", "False", "FALSE", "no", "No", "NO", "0")


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_takes_the_same_words_in_any_case(name: str) -> None:
    """on, true, yes and 1; off, false, no and 0; anything else is refused with the words. `auto` where there is one."""
    variable, automatic = SWITCHES[name], getattr(Settings(), name) == "auto"
    on, off = ("on", "off") if automatic else (True, False)
    for words, meant in ((ON_WORDS, on), (OFF_WORDS, off), (("auto", "Auto", "AUTO") if automatic else (), "auto")):
        for word in words:
            assert getattr(Settings.from_env({variable: word}), name) == meant
            assert read_one(name, {variable: word}) == meant
    for word in ("perhaps", "onn", "offf", "t", "y", "00", "-1", "ja") + (() if automatic else ("auto",)):
        with pytest.raises(
            ConfigError, match=f"{variable}='{word}': must be .*on or off .or true, false, yes, no, 1, 0"
        ):
            Settings.from_env({variable: word})


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_takes_its_words_in_any_case(name: str) -> None:
    """A refusal names the words that there are, and each of them is taken in lower, upper and mixed case."""
    variable = CHOICES[name]
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({variable: "perhaps"})
    words = caught.value.faults[0].partition(": must be ")[2].split(" or ")
    assert len(words) >= 2
    for word in words:
        for written in (word, word.upper(), word.title()):
            assert getattr(Settings.from_env({variable: written}), name) == word
            assert read_one(name, {variable: written}) == word


@pytest.mark.parametrize("name", CAN_BE_OFF)
def test_what_switches_a_switch_off_means_none_elsewhere(name: str) -> None:
    """Each word for off, in any case, also turns off roll-ups, the limit on future times, rate limits and origins. Only
    a bare 0 is refused as the skew, with what to write. The words for on are no value of these settings.
    """
    variable = CAN_BE_OFF[name]
    for word in OFF_WORDS:
        if (name, word) == ("max_future_skew_us", "0"):
            with pytest.raises(ConfigError, match=r"MAX_FUTURE_SKEW='0': must be longer than 0 .*, or off$"):
                Settings.from_env({variable: word})
        else:
            assert not getattr(Settings.from_env({variable: word}), name)
            assert not read_one(name, {variable: word})
    for word in ("on", "true", "yes"):
        with pytest.raises(ConfigError, match=f"{variable}="):
            Settings.from_env({variable: word})


def test_a_limit_of_none_in_a_period_is_refused() -> None:
    """RATE_LIMIT=0 is off like everywhere; 0/minute would refuse every request, and is refused itself."""
    assert Settings.from_env({"STATSAPI_RATE_LIMIT": "0"}).rate_limit is None
    with pytest.raises(ConfigError, match="unset it for no limit"):
        Settings.from_env({"STATSAPI_RATE_LIMIT": "0/minute"})


def test_off_is_none_also_beside_a_fault() -> None:
    """A setting that is switched off is no fault, and is compared with the others even if one of them has a fault."""
    given = dict.fromkeys(CAN_BE_OFF.values(), "off")
    assert Settings.from_env(given) == Settings(rollup_retention_us=0)
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(given | {"STATSAPI_RATE_LIMIT_STORAGE": "memory://", "STATSAPI_MAX_SERIES": "off"})
    assert [fault.partition("=")[0] for fault in caught.value.faults] == [
        "STATSAPI_MAX_SERIES",
        "STATSAPI_RATE_LIMIT_STORAGE",
    ]


def test_one_setting_is_read_whatever_is_wrong_with_the_others() -> None:
    """It has its default if it is faulty itself."""
    environ = {"STATSAPI_LOG_FORMAT": " json ", "STATSAPI_FSYNC": "perhaps", "STATSAPI_MAX_SERIES": "none"}
    assert read_one("log_format", environ) == "json"
    assert read_one("fsync", environ) == "interval"
    assert read_one("journal", environ) == Settings().journal
    assert read_one("rollup_retention_us", {"STATSAPI_ROLLUP_RETENTION": "off"}) == 0
