"""The one list of settings: name, default, unit, meaning. They are read from the environment and checked at start.

The field `window_us` is set by `STATSAPI_WINDOW`. docs/configuration.md has the same table; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from marshmallow import Schema, ValidationError, fields

from statsapi.durations import format_duration, parse_duration_us
from statsapi.errors import ConfigError
from statsapi.journal import Engine, engine_of
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, Retention
from statsapi.setting_kinds import (
    AutoSwitch,
    Choice,
    Duration,
    Durations,
    NamedOrigins,
    NamesOrPatterns,
    Number,
    OptionalDuration,
    Origins,
    PathPrefix,
    Switch,
    read_switch,
    valid_rate_limit,
    valid_rate_limit_storage,
)

PREFIX: Final = "STATSAPI_"

# Raw events are kept this much longer than the retention. So machines whose clocks differ a little answer from the same
# raw events, and /debug/events shows events that have just left the window.
GRACE_US: Final = 5 * MINUTE_US

_METRICS_WINDOWS: Final = ("5m", "1h", "24h")

# The secret parts of a URL: user and password; passwords in its query; and the whole rest of it where it has no @ and
# its port is not a number, as a password may stand there by mistake.
_HOST = r"(?:\[[^\]\s]*\]|[^\s,:/?#\[\]]*)(?::[0-9]{0,5})?"
_SECRET = re.compile(
    rf"(?<=://)\S*(?=@)|(?<=://)(?!(?:{_HOST},)*{_HOST}(?:[/?#\s]|\Z))\S*|(?<=password=)[^&\s]*", re.IGNORECASE
)

_NO_OFF: Final = object()


def _setting(
    kind: Callable[..., fields.Field[Any]],
    default: Any,
    meaning: str,
    *,
    shown: bool = True,
    off: Any = _NO_OFF,
    zero_is_off: bool = True,
    **options: Any,
) -> Any:
    """One setting. off: the value that a switch's words for off mean, for a setting that can be switched off;
    zero_is_off: whether `0` is one of these words here.
    """
    metadata = {"field": kind(load_default=default, **options), "meaning": meaning}
    if off is not _NO_OFF:
        metadata |= {"off": off, "zero_is_off": zero_is_off}
    return dataclasses.field(default=default, repr=shown, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The typed settings. Construct it directly in tests; `Settings.from_env()` for a process."""

    journal: str = _setting(
        fields.String,
        "sqlite:///data/events.db",
        "where events are kept: `sqlite:///relative/path`, `sqlite:////absolute/path`, `memory://` (one worker, "
        "nothing survives a restart), or for several machines `redis://host:port/db?stream=NAME` "
        "(docs/several-machines.md) or `postgresql://user@host/db?stream=NAME` (docs/postgresql.md)",
        shown=False,  # a server's URL may hold a password
    )
    fsync: str = _setting(
        Choice,
        "interval",
        "what a 2xx means: `interval` survives the death of every process (a power cut loses at most the last "
        "second), `always` survives a power cut",
        words=("interval", "always"),
    )
    redis_wait_replicas: int = _setting(
        Number,
        0,
        "a 2xx means that this many replicas of the Redis journal have the event as well; where fewer confirm it "
        "within a second, the answer is a 503 whose outcome is unknown",
        least=0,
        most=10,
    )
    stale_reads: str = _setting(
        Choice,
        "serve",
        "while a journal in Redis or PostgreSQL cannot be reached: `serve` answers reads from what the worker holds "
        "and says how old that is (`Age`, `Warning: 110`), `refuse` answers 503",
        words=("serve", "refuse"),
    )
    window_us: int = _setting(Duration, HOUR_US, "the window of a question that names none")
    retention_us: int = _setting(
        Duration,
        HOUR_US,
        "how long raw events are kept, at least the window (5 minutes of grace are added)",
    )
    rollup_retention_us: int = _setting(
        OptionalDuration,
        DAY_US,
        "how long roll-ups are kept, for windows longer than the retention; they hold a minute each, after two days an "
        "hour; `0` or `off` keeps none",
        off=0,
    )
    max_future_skew_us: int | None = _setting(
        OptionalDuration,
        None,
        "refuse events stamped further ahead of the server's clock than this; unset or `off` accepts all. A bare `0` "
        "is refused, as it could mean no skew or no limit",
        off=None,
        zero_is_off=False,
    )
    max_body_bytes: int = _setting(Number, 16 * 1024 * 1024, "largest request body, in bytes", least=1024, most=1 << 30)
    max_batch_events: int = _setting(Number, 100_000, "most events in one request", least=1, most=10_000_000)
    max_series: int = _setting(
        Number,
        100_000,
        "most series at one time; events that would add another are refused (507)",
        least=1,
        most=100_000_000,
    )
    max_query_series: int = _setting(
        Number,
        100_000,
        "most series that one question may choose; a question that chooses more is refused (422)",
        least=1,
        most=100_000_000,
    )
    max_events: int = _setting(
        Number,
        0,
        "most raw events held at one time, each 24 bytes of roll-ups counting as one; more are refused (507). 0: as "
        "many as half the memory holds, divided by the number of workers",
        least=0,
        most=1_000_000_000_000,
    )
    share_events: bool = _setting(
        Switch,
        True,
        "the workers of an SQLite journal share most events in files beside it, which all of them map and a restart "
        "begins with (20 bytes an event on the disk); `off`: each worker holds all events in its own memory",
    )
    idempotency_ttl_us: int = _setting(Duration, DAY_US, "how long an Idempotency-Key is remembered")
    dedup: bool = _setting(
        Switch, False, "drop an event that equals one held (series, timestamp, value); `?dedup=` overrides it"
    )
    rate_limit: str | None = _setting(
        fields.String,
        None,
        "most requests per API key, or per address: `100/minute`, or several with commas; unset or `off` is no limit",
        off=None,
        validate=valid_rate_limit,
    )
    rate_limit_storage: str | None = _setting(
        fields.String,
        None,
        "where requests are counted: `redis://host:port/db`. Unset: in the journal's own Redis, in a file beside an "
        "SQLite journal, or with PostgreSQL in each worker separately",
        validate=valid_rate_limit_storage,
        shown=False,  # it may hold a password
    )
    trusted_proxies: int = _setting(
        Number,
        0,
        "how many proxies in front set `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Prefix`; with 0 these "
        "headers are ignored",
        least=0,
        most=10,
    )
    path_prefix: str | None = _setting(
        PathPrefix,
        None,
        "the path under which a proxy publishes the service, like `/stats`, whether the proxy strips it or not. "
        "`X-Forwarded-Prefix` of a trusted proxy overrides it. Gunicorn's `SCRIPT_NAME` sets it too",
    )
    pin_workers: str = _setting(
        AutoSwitch,
        "auto",
        "keep each worker on one core, the one with the fewest workers: `auto` (unless a quota limits the CPU time), "
        "`on`, `off`",
    )
    metrics_series: tuple[str, ...] = _setting(
        NamesOrPatterns,
        ("default",),
        "the series whose rolling statistics `/metrics` shows, separated by commas; `web.*` or `host-?` shows all that "
        "match, 1,000 at most",
    )
    metrics_windows: tuple[str, ...] = _setting(
        Durations,
        _METRICS_WINDOWS,
        "the windows that `/metrics` shows of them; windows of the default that are longer than what is kept are left "
        "out",
    )
    api_keys_file: str | None = _setting(
        fields.String, None, "a file of API keys, one line each (docs/access.md); changes are noticed within a second"
    )
    api_keys: str | None = _setting(
        fields.String,
        None,
        "API keys beside or instead of the file: the same lines, separated by `;`. Without either no key is needed",
        shown=False,  # hashes, but somebody may put the key itself here by mistake
    )
    jwt_key: str | None = _setting(
        fields.String,
        None,
        "the key that JSON Web Tokens are checked with, beside API keys: a secret of 32 bytes or more, or a public key "
        "as PEM",
        shown=False,
    )
    jwt_jwks_file: str | None = _setting(
        fields.String, None, "a file of such keys (JWKS) instead; changes are noticed within a second"
    )
    jwt_issuer: str | None = _setting(fields.String, None, "the issuer (`iss`) that tokens must name")
    jwt_audience: str | None = _setting(fields.String, None, "the audience (`aud`) that tokens must name")
    debug_endpoint: bool = _setting(Switch, True, "`off` removes `GET /debug/events`")
    dashboard: bool = _setting(Switch, True, "`off` removes the page at `/dashboard`")
    cors_origins: tuple[str, ...] | None = _setting(
        Origins,
        None,
        "web origins whose scripts may call the service (`https://app.example.com`), separated by commas, or `*`; "
        "unset or `off`: none",
        off=None,
    )
    beacon_origins: tuple[str, ...] | None = _setting(
        NamedOrigins,
        None,
        "web origins whose pages may record by `navigator.sendBeacon` without a key, separated by commas; unset or "
        "`off`: none",
        off=None,
    )
    log_format: str = _setting(
        Choice,
        "plain",
        "the format of log lines, Gunicorn's included: `plain`, or `json` (one object a line)",
        words=("plain", "json"),
    )
    access_log: bool = _setting(
        Switch, False, "`on` logs a line for each request; `off` leaves that to the proxy in front"
    )

    shortcuts: bool = _setting(
        Switch,
        True,
        "`off`: each request passes through all of Gunicorn, Flask and Werkzeug; the answers are the same, and take "
        "longer. With `on`, shortcuts are not taken where they could change behaviour: with a `pre_request` hook, a "
        "worker class with its own `handle_request`, `finish_request` or `get_thread_pool`, a secret key, a session "
        "interface, or methods of the application that are replaced before its second request",
    )

    def __post_init__(self) -> None:
        faults = _contradictions({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        if faults:
            raise ConfigError(*faults)

    def longest_window_us(self) -> int:
        return max(self.retention_us, self.rollup_retention_us)

    def retention(self) -> Retention:
        """How long events and roll-ups are kept, grace included. No roll-ups are kept where raw events outlive them."""
        rolled_up = self.rollup_retention_us > self.retention_us
        return Retention(self.retention_us + GRACE_US, self.rollup_retention_us + GRACE_US if rolled_up else 0)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of this process; raises one ConfigError that names every fault.

        A variable set to nothing counts as unset, as compose files write it.
        """
        environ = os.environ if environ is None else environ
        given = {name: environ[name].strip() for name in env_names().values() if environ.get(name, "").strip()}
        switched_off = _switched_off(given)
        try:
            loaded: dict[str, Any] = _schema().load(
                {name: text for name, text in given.items() if name not in switched_off.values()}
            )
        except ValidationError as error:
            faults = [
                f"{name}={without_secrets(given.get(name, ''))!r}: {' '.join(reasons)}"
                for name, reasons in sorted(error.messages_dict.items())
            ]
            fine: Any = error.valid_data
            fine |= {field: _off(field) for field in switched_off}
            raise ConfigError(*faults, *_contradictions(fine)) from None
        return cls(**(loaded | {field: _off(field) for field in switched_off}))


def read_one(name: str, environ: Mapping[str, str] | None = None) -> Any:
    """One setting of this process, even if others are faulty; its default where it is faulty itself.

    For steps that come before `Settings.from_env` can report faults.
    """
    variable = env_names()[name]
    text = (os.environ if environ is None else environ).get(variable, "").strip()
    if _switches_off(name, text):
        return _off(name)
    try:
        return _schema().load({variable: text} if text else {})[name]
    except ValidationError:
        return next(field.default for field in dataclasses.fields(Settings) if field.name == name)


def _switched_off(given: Mapping[str, str]) -> dict[str, str]:
    """The settings, field -> variable, that can be switched off and have a word for off as their value."""
    return {field: name for field, name in env_names().items() if _switches_off(field, given.get(name, ""))}


def _switches_off(name: str, text: str) -> bool:
    metadata = _metadata(name)
    return read_switch(text) is False and "off" in metadata and (text != "0" or metadata["zero_is_off"])


def _off(name: str) -> Any:
    return _metadata(name)["off"]


def _metadata(name: str) -> Mapping[Any, Any]:
    return next(field.metadata for field in dataclasses.fields(Settings) if field.name == name)


def _contradictions(given: Mapping[str, Any]) -> list[str]:
    """Why these settings cannot be combined. `given` lacks those that are faulty by themselves."""
    faults = []
    if {"window_us", "retention_us", "rollup_retention_us"} <= given.keys():
        window_us, retention_us = given["window_us"], given["retention_us"]
        if window_us > retention_us:
            faults.append(_too_short("RETENTION", retention_us, "WINDOW", format_duration(window_us)))
        metrics_windows = given.get("metrics_windows", _METRICS_WINDOWS)
        if metrics_windows != _METRICS_WINDOWS:  # a shorter retention must not conflict with the default
            rollups_us = given["rollup_retention_us"]
            name, kept_us = max((retention_us, "RETENTION"), (rollups_us, "ROLLUP_RETENTION"))[::-1]
            faults += [
                _too_short(name, kept_us, "METRICS_WINDOWS", text)
                for text in metrics_windows
                if parse_duration_us(text) > kept_us
            ]
    if "jwt_key" in given and "jwt_jwks_file" in given and not (given["jwt_key"] or given["jwt_jwks_file"]):
        faults += [
            f"{PREFIX}{name.upper()} does nothing without a key to check tokens with: set {PREFIX}JWT_KEY or "
            f"{PREFIX}JWT_JWKS_FILE as well, or unset it"
            for name in ("jwt_issuer", "jwt_audience")
            if given.get(name)
        ][:1]
    if given.get("jwt_key") or given.get("jwt_jwks_file"):
        if any(name in given and not given[name] for name in ("jwt_issuer", "jwt_audience")):
            faults.append(f"{PREFIX}JWT_ISSUER and {PREFIX}JWT_AUDIENCE are needed to check tokens: set both")
        if given.get("jwt_key") and given.get("jwt_jwks_file"):
            faults.append(f"{PREFIX}JWT_KEY and {PREFIX}JWT_JWKS_FILE are both set: unset one of them")
    storage = given.get("rate_limit_storage") or ""
    engine = _engine(given.get("journal"))
    if storage.startswith("memory:") and engine is not None and not engine.single_process:
        faults.append(
            f"{PREFIX}RATE_LIMIT_STORAGE=memory:// would count in each worker separately: leave it unset, or name a "
            "Redis"
        )
    counts = given.get("rate_limit") and given.get("rate_limit_storage", "faulty") is None
    if counts and engine is not None and engine.shares_limits() is None:
        faults.append(
            f"{PREFIX}RATE_LIMIT cannot count beside this journal (in Redis: behind Sentinel or in a Cluster): name a "
            f"single Redis with {PREFIX}RATE_LIMIT_STORAGE=redis://host:port/db"
        )
    return faults


def _engine(url: str | None) -> Engine | None:
    """The journal's engine, to ask it what it can do; None for an unknown URL, which is refused at the opening."""
    try:
        return None if url is None else engine_of(url)
    except ConfigError:
        return None


def _too_short(name: str, kept_us: int, longer: str, text: str) -> str:
    kept = format_duration(kept_us)
    what = f"a window of {PREFIX}{longer}" if longer == "METRICS_WINDOWS" else PREFIX + longer
    return f"{PREFIX}{name} ({kept}) must not be shorter than {what} ({text})"


# Variables of the command line as a client (statsapi/cli/connection.py). They are no settings, but they are known.
CLIENT_NAMES: Final = ("STATSAPI_URL", "STATSAPI_API_KEY", "STATSAPI_CA_FILE", "STATSAPI_CONFIG")


def env_names() -> dict[str, str]:
    """Field name -> environment variable, in the order of the table."""
    return {field.name: PREFIX + field.name.removesuffix("_us").upper() for field in dataclasses.fields(Settings)}


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that are not settings. They get a warning only, as Kubernetes sets some by itself."""
    known = {*env_names().values(), *CLIENT_NAMES}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def without_secrets(text: str) -> str:
    """A setting's value, with whatever may be a user or a password in its URLs replaced by `…`."""
    return _SECRET.sub("…", text)


class Effective(NamedTuple):
    """A setting as it may be shown: secrets are left out."""

    variable: str
    value: str
    source: str  # environment, default


def effective(environ: Mapping[str, str]) -> list[Effective]:
    """Every setting of a process with this environment, and where it came from, in the order of the table.

    A value is shown as it was written, valid or not.
    """
    names = env_names()
    rows = []
    for field in dataclasses.fields(Settings):
        name = names[field.name]
        if text := environ.get(name, "").strip():
            value = without_secrets(text) if field.repr or "://" in text else "(not shown)"
            rows.append(Effective(name, value, "environment"))
        else:
            rows.append(Effective(name, _default_text(field) or "unset", "default"))
    return rows


def settings_table() -> str:
    """The table of settings in docs/configuration.md, in Markdown."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    names = env_names()
    for field in dataclasses.fields(Settings):
        default = _default_text(field)
        shown = "unset" if default is None else f"`{default}`"
        rows.append(f"| `{names[field.name]}` | {shown} | {field.metadata['meaning']} |")
    return "\n".join(rows) + "\n"


def _default_text(field: dataclasses.Field[Any]) -> str | None:
    default: Any = field.default
    if default is not None and isinstance(field.metadata["field"], Duration):
        return format_duration(default)
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, bool):
        return "on" if default else "off"
    return None if default is None else str(default)


def _schema() -> Schema:
    names = env_names()
    loaders: dict[str, fields.Field[Any]] = {}
    for field in dataclasses.fields(Settings):
        loader = field.metadata["field"]
        loader.data_key = names[field.name]
        loaders[field.name] = loader
    return Schema.from_dict(loaders)()
