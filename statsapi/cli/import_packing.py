"""Files that may be packed: gzip and Zstandard are told by their first bytes and unpacked while they are read."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import shlex
import sys
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final

import click

_GZIP_BEGINS: Final = b"\x1f\x8b"
_ZSTD_BEGINS: Final = b"\x28\xb5\x2f\xfd"
_ZSTD: Final = ("compression.zstd", "backports.zstd")  # Python's own from 3.14 on


@contextlib.contextmanager
def opened(file: str) -> Iterator[IO[bytes]]:
    """The content of a file, or of standard input for `-`, unpacked. UsageError without the library that unpacks it."""
    with contextlib.ExitStack() as stack:
        raw: Any = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
        head = raw.peek(4)
        unpacked: Any = raw
        if head.startswith(_GZIP_BEGINS):
            unpacked = gzip.GzipFile(fileobj=raw)
        elif head.startswith(_ZSTD_BEGINS):
            unpacked = io.BufferedReader(_zstd(file).ZstdFile(raw))
        yield unpacked


def packing_of(content: IO[bytes]) -> str:
    """How the file is packed whose content `opened` returned, gzip or zstd: for messages about packed files."""
    return "zstd" if isinstance(content, io.BufferedReader) else "gzip"


def packing_errors() -> tuple[type[Exception], ...]:
    """The exceptions that reading a damaged packed file raises, of the libraries that are loaded."""
    loaded = [sys.modules[name] for name in _ZSTD if name in sys.modules]
    return (gzip.BadGzipFile, EOFError, zlib.error, *(library.ZstdError for library in loaded))


def _zstd(file: str) -> Any:
    """The library for Zstandard."""
    for name in _ZSTD:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    shown = shlex.quote(file)
    raise click.UsageError(
        f"{file}: is packed with Zstandard, which takes the package backports.zstd (pip install 'statsapi[zstd]'); or "
        f"unpack it before: zstdcat {shown} | statsapi import - --form csv (or ndjson, json, lines)"
    )
