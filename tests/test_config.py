"""Settings: one list, checked as a whole, and the README tells the truth about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from statsapi.config import Settings, env_names, settings_table, unknown_names
from statsapi.errors import ConfigError
from statsapi.times import DAY_US, HOUR_US, MINUTE_US

ROOT = Path(__file__).parent.parent


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


def test_the_readme_lists_every_setting() -> None:
    """The README's table is the one that the code gives."""
    readme = (ROOT / "README.md").read_text()
    table = readme.split("by a test -->\n", 1)[1].split("<!-- end of settings -->", 1)[0]
    assert table == settings_table()
    assert all(name in table for name in env_names().values())
