"""API keys: who may write, read and administer. Only hashes are kept, and they can be replaced while serving.

A line of the file, or an entry of the environment variable, looks like this:

    ingest write blake2b:928b20366943e2afd11ebc0eae2e53a93bf177a4fcf35bcc64d503704e65e202

It has the key id, the scopes separated by commas, and the hash; `#` begins a comment. Several lines may share an id:
they are the old and the new key of one client, so that its logs and Idempotency-Keys continue across a rotation.

The hash is one plain BLAKE2b of 256 bits, as `printf %s KEY | b2sum -l 256` gives it. Slow, salted hashes protect
passwords, which can be guessed. A key has 256 random bits and cannot be guessed, and it is hashed for every request.
SHA-256 was refused, as OpenSSL takes 1 µs to set it up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import logging
import mmap
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from statsapi.config import env_names
from statsapi.errors import ConfigError

logger = logging.getLogger("statsapi")

WRITE: Final = "write"
READ: Final = "read"
ADMIN: Final = "admin"  # holds the other two
SCOPES: Final = (WRITE, READ, ADMIN)

FILE_VARIABLE: Final = env_names()["api_keys_file"]
ENTRIES_VARIABLE: Final = env_names()["api_keys"]

# How often the file is read while requests come: a removed key works for at most this long.
LOOK_EVERY_S: Final = 1.0

# Enough for some 2,000 keys. A path that names another file by mistake must not fill the memory.
FILE_MAX_BYTES: Final = 256 * 1024

# Secret scanners find keys that leaked into a repository by this prefix.
KEY_PREFIX: Final = "statsapi_"
# The password in a query, as clients of InfluxDB 1.x send it.
_PASSWORD = re.compile(r"([?&]p=)[^&\s\"']+")
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)  # a JSON Web Token
_KEY = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]{20,}", re.ASCII)

KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
KEY_ID_RULE: Final = "1 to 64 of A-Z a-z 0-9 _ . -, beginning with a letter or digit"
_HASH = re.compile(r"blake2b:([0-9a-f]{64})", re.ASCII | re.IGNORECASE)


class LastGood:
    """The last faultless content of a file, in memory that the arbiter shares with all its workers.

    A worker that starts while the file is broken uses the keys of the other workers, instead of stopping the server. A
    copy made at the fork was refused: it could bring back a key that was removed since. There is no lock: if two
    workers write at once, the record does not match its digest, and is written again within LOOK_EVERY_S.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, hashlib.blake2b.MAX_DIGEST_SIZE + 4 + FILE_MAX_BYTES)

    def remember(self, file: str, content: bytes) -> None:
        record = _record(file, content)
        self._memory[: len(record)] = record

    def recall(self, file: str) -> bytes | None:
        at = hashlib.blake2b.MAX_DIGEST_SIZE
        content = self._memory[at + 4 : at + 4 + int.from_bytes(self._memory[at : at + 4])]
        record = _record(file, content)
        return content if self._memory[: len(record)] == record else None


_last_good = LastGood()


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """The client of a request, and what it may do."""

    id: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        return scope in self.scopes or ADMIN in self.scopes


@dataclasses.dataclass(frozen=True, slots=True)
class ApiKey(Caller):
    digest: bytes = dataclasses.field(repr=False)

    def line(self) -> str:
        """The line to store."""
        return f"{self.id} {','.join(scope for scope in SCOPES if scope in self.scopes)} blake2b:{self.digest.hex()}"


def new_key(scopes: Iterable[str], key_id: str | None = None) -> tuple[str, ApiKey]:
    """A fresh key, and its entry to store; ValueError for an invalid id."""
    if key_id is None:
        key_id = f"key-{secrets.token_hex(4)}"
    if not KEY_ID.fullmatch(key_id):
        raise ValueError(f"the id must be {KEY_ID_RULE}")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, ApiKey(key_id, frozenset(scopes), _digest(key))


def check(file: str) -> int:
    """How many keys a file holds. ConfigError with all its faults."""
    return len(_table_of(_lines_of(file, read_file(file, file)), file))


def revoke(file: str, which: str) -> int:
    """Remove the lines of a key id, or the line of one key, from a file, and return how many were removed.

    The file is replaced atomically and keeps its owner and mode. ConfigError where the file has faults, or where no key
    would be left: the service ignores such a file and would go on accepting the revoked key.
    """
    path = os.path.realpath(file)
    content = read_file(file, path)
    _table_of(_lines_of(file, content), file)
    digest = _digest(which) if which.startswith(KEY_PREFIX) else None
    kept, taken, left = [], 0, 0
    for line in content.decode("utf-8", "surrogateescape").splitlines(keepends=True):
        stated = line.partition("#")[0].split()
        entry = _parse_line(stated) if stated else None
        if entry is not None and (entry.digest == digest if digest else entry.id == which):
            taken += 1
        else:
            kept.append(line)
            left += entry is not None
    if not taken:
        return 0
    if not left:
        raise ConfigError(
            f"{file}: this is the last key, and a service whose file holds no key goes on with the keys it has: add "
            f"another key first, or unset {FILE_VARIABLE} and restart the service to need no keys"
        )
    state = os.stat(path)
    new = f"{path}.{secrets.token_hex(4)}"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write("".join(kept).encode("utf-8", "surrogateescape"))
            out.flush()
            os.fsync(out.fileno())
        os.chmod(new, state.st_mode & 0o7777)
        if (state.st_uid, state.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(new, state.st_uid, state.st_gid)
        os.replace(new, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
    return taken


def redact(text: str) -> str:
    """The text with keys, tokens and passwords shortened to `…`: clients write them into paths and queries too."""
    if KEY_PREFIX in text:
        text = _KEY.sub(KEY_PREFIX + "…", text)
    if "eyJ" in text:
        text = _TOKEN.sub("eyJ…", text)
    return _PASSWORD.sub(r"\1…", text) if "p=" in text else text


class Keys:
    """The keys of one process, from a file, from given entries, or from both. Every request looks one up.

    The constructor raises ConfigError with all faults. Later, a faulty or missing file is logged, once for each fault,
    and the keys stay as they were. Thread-safe: a table is never changed, only replaced.
    """

    def __init__(self, file: str | None, entries: str | None, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._entries = entries or ""
        self._clock_s = clock_s
        self._looking = threading.Lock()
        self._faults: tuple[str, ...] = ()
        inherited = _last_good.recall(file) if file else None
        self._content = inherited if inherited is not None else self._read()
        self._table = self._parse(self._content)
        self._look_at_s = clock_s() + LOOK_EVERY_S if file else float("inf")
        if inherited is not None:
            self.refresh()
        elif file:
            _last_good.remember(file, self._content)

    def find(self, key: str) -> ApiKey | None:
        """The entry of this key, None for an unknown one. Costs 2 µs, and once a second 20 µs more."""
        if self._clock_s() >= self._look_at_s and self._looking.acquire(blocking=False):
            try:
                self._look_at_s = self._clock_s() + LOOK_EVERY_S
                self.refresh()
            finally:
                self._looking.release()
        digest = _digest(key)
        # The look-up's timing depends on the digest only, which a caller cannot choose; the final comparison takes
        # constant time.
        held = self._table.get(digest)
        return held if held is not None and hmac.compare_digest(held.digest, digest) else None

    def refresh(self) -> None:
        """Read the file again.

        The whole file is compared instead of its mtime. It is small, and so a clock's granularity, a restored mtime or
        a symbolic link that now leads elsewhere cannot hide a change.
        """
        try:
            content = self._read()
            if content == self._content:
                if self._faults:
                    logger.info("The API keys can be read again and have not changed")
                    self._faults = ()
                return
            table = self._parse(content)
        except ConfigError as error:
            if error.faults != self._faults:
                self._faults = error.faults
                for fault in error.faults:
                    logger.error("The API keys stay as they were: %s", fault)  # noqa: TRY400 (the text is enough)
            return
        self._table, self._content, self._faults = table, content, ()
        if self._file:
            _last_good.remember(self._file, content)
        ids = sorted({held.id for held in table.values()})
        logger.info("The API keys changed: %d keys now, with the ids %s", len(table), ", ".join(ids))

    def _read(self) -> bytes:
        return read_file(f"{FILE_VARIABLE}={self._file}", self._file) if self._file else b""

    def _parse(self, content: bytes) -> dict[bytes, ApiKey]:
        entries = [
            (f"{ENTRIES_VARIABLE}, entry {number}", line)
            for number, line in enumerate(re.split(r"[;\n]", self._entries), 1)
        ]
        if not self._file:
            return _table_of(entries, ENTRIES_VARIABLE)
        called = f"{FILE_VARIABLE}={self._file}"
        return _table_of(_lines_of(called, content) + entries, called)


def _lines_of(called: str, content: bytes) -> list[tuple[str, str]]:
    """The lines of a file, each behind its place, for messages."""
    lines = content.decode("utf-8", "replace").splitlines()
    return [(f"{called}, line {number}", line) for number, line in enumerate(lines, 1)]


def _table_of(lines: Iterable[tuple[str, str]], called: str) -> dict[bytes, ApiKey]:
    """Every key by its digest. ConfigError names the place of each fault, not its text, which could be a key."""
    table: dict[bytes, ApiKey] = {}
    faults = []
    for place, line in lines:
        stated = line.partition("#")[0].split()
        if not stated:
            continue
        try:
            held = _parse_line(stated)
        except ValueError as error:
            faults.append(f"{place}: {error}")
            continue
        if held.digest in table:
            faults.append(f"{place}: its hash stands in an earlier line too; remove one of them")
        table[held.digest] = held
    if not table and not faults:
        # A file that was emptied must not open the service to all, and a file that is being written must not lock all
        # clients out.
        faults.append(f"{called} holds no key; `statsapi keys new --scope write` makes one")
    if faults:
        raise ConfigError(*faults)
    return table


def read_file(called: str, file: str) -> bytes:
    """The content of a file of keys. ConfigError where it cannot be one; `called` is what the error calls it."""
    try:
        with open(file, "rb") as stream:
            content = stream.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{called} cannot be read: {error.strerror}") from None
    if len(content) > FILE_MAX_BYTES:
        raise ConfigError(f"{called} has more than {FILE_MAX_BYTES} bytes: it cannot be a file of keys")
    return content


def _parse_line(stated: list[str]) -> ApiKey:
    if len(stated) != 3:
        raise ValueError(f"must have 3 words (key id, scopes and blake2b:hash), not {len(stated)}")
    key_id, scopes, stored = stated
    named = scopes.split(",")
    match = _HASH.fullmatch(stored)
    wrong = []
    if not KEY_ID.fullmatch(key_id):
        wrong.append(f"the key id must be {KEY_ID_RULE}")
    if not set(named) <= set(SCOPES):
        wrong.append(f"the scopes must be from {', '.join(SCOPES)}, separated by commas without spaces")
    if match is None:
        wrong.append("the hash must be blake2b: and 64 hexadecimal digits")
    if wrong or match is None:
        raise ValueError("; ".join(wrong))
    return ApiKey(key_id, frozenset(named), bytes.fromhex(match[1]))


def _record(file: str, content: bytes) -> bytes:
    digest = hashlib.blake2b(b"\0".join((os.fsencode(file), content))).digest()
    return digest + len(content).to_bytes(4) + content


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=32).digest()
