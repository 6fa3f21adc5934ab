"""The service that a command speaks to: --url, --key and so on, from the command line, variables, or a file.

The file is $STATSAPI_CONFIG, or statsapi.toml in $XDG_CONFIG_HOME (~/.config):

    url = "https://stats.example.com"
    key = "statsapi_…"
    ca_file = "/etc/ssl/our-ca.pem"
    timeout = 10

The file's key is sent to the file's URL only: `--url` with another one must not give it to another server.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from statsapi.cli import failures
from statsapi.server import HOST, PORT

if TYPE_CHECKING:
    from statsapi.client import Client

DEFAULT_URL: Final = f"http://{HOST}:{PORT}"
DEFAULT_TIMEOUT_S: Final = 10.0
FILE_VARIABLE: Final = "STATSAPI_CONFIG"
VARIABLES: Final = {"url": "STATSAPI_URL", "key": "STATSAPI_API_KEY", "ca_file": "STATSAPI_CA_FILE"}
_KINDS: Final[dict[str, tuple[type, ...]]] = {"url": (str,), "key": (str,), "ca_file": (str,), "timeout": (int, float)}


class Chosen(NamedTuple):
    """A value, and its source in words."""

    value: Any
    source: str


@dataclass(frozen=True)
class Connection:
    """The service that a command speaks to. as_json: whether the user wants JSON."""

    url: str
    key: str | None
    ca_file: str | None
    timeout_s: float
    as_json: bool
    sources: Mapping[str, str]

    def client(self, *, give_up_after_s: float = 0.0, **options: Any) -> Client:
        """A client of the service. By default it does not retry, so that a person sees at once that it is away."""
        from statsapi.client import Client

        if self.ca_file is not None:
            self._check_ca_file(self.ca_file)
        try:
            return Client(
                self.url,
                self.key,
                timeout_s=self.timeout_s,
                ca_file=self.ca_file,
                give_up_after_s=give_up_after_s,
                **options,
            )
        except ValueError as error:
            name = "key" if "API key" in str(error) and "URL" not in str(error) else "url"
            raise self._wrong(name, str(error)) from error

    def _check_ca_file(self, path: str) -> None:
        """Fail for a missing CA file. A connection would report it as a fault of the server."""
        import ssl

        try:
            ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            raise self._wrong("ca_file", f"{path} holds no certificates in PEM form") from None
        except OSError as error:
            raise self._wrong("ca_file", f"{path}: {error.strerror}") from None

    def _wrong(self, name: str, why: str) -> failures.Failed:
        source = self.sources[name]
        status = failures.USAGE if source.startswith("--") else failures.CONFIG
        return failures.Failed(f"{why} (it came from {source})", status)


def asks_service(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command --url, --key, --ca-file, --timeout and --json, and a `Connection` before its own arguments."""

    @may_ask_service
    def run(find: Callable[..., Connection], **own: Any) -> Any:
        return command(find(), **own)

    return update_wrapper(run, command)


def may_ask_service(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command that continues with wrong settings, or takes a URL itself. It gets a function that finds
    the `Connection` (for that `url`).
    """

    def run(**given: Any) -> Any:
        asked = {name: given.pop(f"service_{name}") for name in _KINDS}
        as_json = given.pop("as_json")

        def find(url: str | None = None) -> Connection:
            return service_of({**asked, **({} if url is None else {"url": url})}, as_json=as_json)

        return command(find, **given)

    run = update_wrapper(run, command)
    for option in reversed(_OPTIONS):
        run = option(run)
    return run


_OPTIONS: Final = (
    click.option(
        "--url", "service_url", metavar="URL", help=f"Ask the service at URL (default STATSAPI_URL, or {DEFAULT_URL})."
    ),
    click.option(
        "--key",
        "service_key",
        metavar="KEY",
        help="Send this API key (default STATSAPI_API_KEY, or that of the file). Other users of this machine can see a "
        "command line: prefer the defaults.",
    ),
    click.option(
        "--ca-file",
        "service_ca_file",
        metavar="FILE",
        help="Trust these certificates instead of the system's (default STATSAPI_CA_FILE).",
    ),
    click.option(
        "--timeout",
        "service_timeout",
        type=click.FloatRange(min=0, min_open=True, max=3600),
        metavar="SECONDS",
        help=f"Wait this long for an answer (default {DEFAULT_TIMEOUT_S:.0f}).",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)


def service_of(given: Mapping[str, Any], *, as_json: bool = False) -> Connection:
    """The connection by the command line, else the variables, else the file, else the defaults."""
    found = settings_of(given)
    return Connection(
        found["url"].value,
        found["key"].value,
        found["ca_file"].value,
        float(found["timeout"].value),
        as_json,
        {name: each.source for name, each in found.items()},
    )


def settings_of(given: Mapping[str, Any]) -> dict[str, Chosen]:
    """Each client setting with its source."""
    path = file_path()
    held = read_file(path)
    found: dict[str, Chosen] = {}
    for name in _KINDS:
        option = f"--{name.replace('_', '-')}"
        variable = VARIABLES.get(name, "")
        if given.get(name) is not None:
            found[name] = Chosen(given[name], option)
        elif variable and os.environ.get(variable, "").strip():
            found[name] = Chosen(os.environ[variable].strip(), variable)
        elif name in held:
            found[name] = Chosen(held[name], str(path))
        else:
            default = {"url": DEFAULT_URL, "timeout": DEFAULT_TIMEOUT_S}.get(name)
            found[name] = Chosen(default, "the default" if default is not None else "not given")
    its_url = str(held.get("url", DEFAULT_URL)).rstrip("/")
    if found["key"].source == str(path) and str(found["url"].value).rstrip("/") != its_url:
        found["key"] = Chosen(None, f"not given (the key in {path} is for the url there)")
    return found


def file_path() -> Path:
    if named := os.environ.get(FILE_VARIABLE, "").strip():
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "statsapi.toml"


def read_file(path: Path) -> dict[str, Any]:
    """The file's settings; {} without a file, unless STATSAPI_CONFIG names it. Failed for a faulty file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(1 << 16)
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get(FILE_VARIABLE, "").strip():
            raise failures.Failed(f"{FILE_VARIABLE} names {path}, which is not there", failures.CONFIG) from None
        return {}
    except OSError as error:
        raise failures.Failed(f"{failures.of_os(error)} (the configuration file)", failures.CONFIG) from None
    import tomllib

    try:
        held = tomllib.loads(content.decode())
    except ValueError as error:
        raise failures.Failed(f"{path}: {error}", failures.CONFIG) from None
    for name, value in held.items():
        if name not in _KINDS:
            raise failures.Failed(f"{path}: {name} is no setting; there are {', '.join(_KINDS)}", failures.CONFIG)
        right = isinstance(value, _KINDS[name]) and not isinstance(value, bool)
        if not right or (name == "timeout" and not 0 < value <= 3600):
            what = "a number of seconds, 3600 at most" if name == "timeout" else 'text in quotes: "…"'
            raise failures.Failed(f"{path}: {name} must be {what}", failures.CONFIG)
    if "key" in held and stat.S_IMODE(mode) & 0o077:
        failures.say(f"statsapi: warning: other users may read the key in {path}: chmod 600 {path}")
    return held
