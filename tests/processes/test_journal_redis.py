"""What is special about the Redis journal: its URLs, its server's settings, and what others may do to its stream."""

from __future__ import annotations

import logging
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import ConfigError, JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal import START, Checkpoint, HistoryChanged, IdempotencyKey, Journal, Mark, Proposal, open_journal
from statsapi.journal.checksums import piece_checksum
from statsapi.journal.redis_checkpoint import PART_BYTES
from statsapi.journal.redis_scripts import LEASE_US
from statsapi.journal.redis_streams import NEAR_RECORDS
from statsapi.journal.redis_url import Address
from statsapi.model import Deletion, EventBatch, Part
from tests.journal_engines import TICK, event, events_of, segments, shared_redis, values
from tests.programs import redis_binary, require_binary
from tests.servers import ROOT, RedisServer, free_port, redis_server

LARGE = Proposal(EventBatch((Part("default", np.arange(10_000), np.arange(10_000) / 8),)))


@pytest.fixture
def server() -> RedisServer:
    return shared_redis(redis_binary())


@pytest.fixture
def stream() -> str:
    return secrets.token_hex(4)


@pytest.fixture
def journal(server: RedisServer, stream: str) -> Iterator[Journal]:
    journal = open_journal(server.journal_url(stream))
    yield journal
    journal.close()


# URLs


def test_urls_are_read() -> None:
    """Hosts, database, stream, login and TLS of each of the three kinds."""
    single = Address.parse("redis://ada:p%40ss@host:7000/3?stream=events")
    assert (single.kind, single.tls, single.hosts, single.db) == ("single", False, (("host", 7000),), 3)
    assert (single.stream, single.username, single.password) == ("events", "ada", "p@ss")
    assert Address.parse("redis://host").hosts == (("host", 6379),)
    assert Address.parse("redis://[::1]:7000?stream=a").hosts == (("::1", 7000),)
    sentinel = Address.parse("rediss+sentinel://:secret@a,b:27000/mymaster/1?stream=s&ssl_ca_certs=/ca.pem")
    assert sentinel.hosts == (("a", 26379), ("b", 27000))
    assert (sentinel.kind, sentinel.tls, sentinel.service, sentinel.db) == ("sentinel", True, "mymaster", 1)
    assert (sentinel.username, sentinel.password, sentinel.options) == (None, "secret", {"ssl_ca_certs": "/ca.pem"})
    cluster = Address.parse("redis+cluster://a:7000,b:7001?stream=s")
    assert (cluster.kind, cluster.hosts) == ("cluster", (("a", 7000), ("b", 7001)))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://", "host"),
        ("redis://:secret@host:port", "host"),
        ("redis://host:70000", "host"),
        ("redis://a,b", "several hosts"),
        ("redis://host/zero", "database"),
        ("redis://host/0/1", "database"),
        ("redis+cluster://host/1", "no databases"),
        ("redis+sentinel://host", "/mymaster"),
        ("redis://host?stream=a%20b", "stream="),
        ("redis://host?stream={a}", "stream="),
        ("redis://:secret@host?retries=3", "'retries' is no option"),
        ("redis://host?ssl_ca_certs=/ca.pem", "'ssl_ca_certs' is no option"),
        ("redis://" + "h" * 64 + ":1/0", "its host is not one"),
        ("redis+cluster://a," + "h" * 300 + ".x", "its host is not one"),
        ("redis://a..b/0", "its host is not one"),
        ("redis://ada:secret/0", "behind a password and @"),
        ("redis+sentinel://ada:secret/mymaster", "behind a password and @"),
        ("redis://ada:1?secret=x@host/0", "%3F"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_to_fix(url: str, said: str) -> None:
    """Each fault by name, and never the password."""
    with pytest.raises(ConfigError, match=said) as caught:
        open_journal(url)
    assert "secret" not in str(caught.value)


def test_a_password_is_never_told(server: RedisServer, stream: str) -> None:
    """Neither by an address that is shown nor by a login that is refused, which waiting does not mend."""
    url = server.journal_url(stream).replace("redis://", "redis://ada:secret@")
    assert "secret" not in str(Address.parse(url))
    assert "ada" not in str(Address.parse(url))
    with pytest.raises(JournalRefused, match="refuses the login") as caught:
        open_journal(url)
    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_there_is_refused(server: RedisServer, stream: str) -> None:
    """Redis has 16 unless told otherwise, and waiting makes no more of them."""
    with pytest.raises(JournalRefused, match="has no database 99"):
        open_journal(server.journal_url(stream).replace("/0?", "/99?"))


def test_what_a_script_fails_by_is_told_without_the_script(server: RedisServer, stream: str) -> None:
    """Its checksum and line mean nothing to a reader, and the log would hold a line for each script."""
    with closing(open_journal(server.journal_url(stream))) as journal:
        journal.append(Proposal(EventBatch.single("default", 1, 1.0)))
        server.send("SET", f"{{{stream}}}", "another's")
        with pytest.raises(JournalRefused, match=r"refuses: WRONGTYPE .* kind of value$"):
            journal.append(Proposal(EventBatch.single("default", 1, 1.0)))


def test_replicas_are_for_redis_only() -> None:
    """Another engine has none to wait for."""
    with pytest.raises(ConfigError, match="STATSAPI_REDIS_WAIT_REPLICAS"):
        open_journal("memory://", wait_replicas=1)


# The server and its settings


def test_a_server_that_is_away_is_not_a_refusal() -> None:
    """It may come: the outcome of nothing is in doubt."""
    with pytest.raises(JournalUnavailable, match="cannot be reached") as caught:
        open_journal(f"redis://127.0.0.1:{free_port()}")
    assert not caught.value.outcome_unknown


def test_what_the_settings_do_not_keep_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No log on the disk, eviction, missing replicas: a warning each; fsync=always is refused where it cannot hold."""
    caplog.set_level(logging.WARNING, "statsapi")
    server = RedisServer(redis_binary(), tmp_path, appendonly="no", maxmemory_policy="allkeys-lru").start()
    try:
        open_journal(server.journal_url("s"), wait_replicas=2).close()
        for said in ("set appendonly yes", "set maxmemory-policy noeviction", "0 of the 2 replicas"):
            assert said in caplog.text
        with pytest.raises(JournalRefused, match="appendonly no"):
            open_journal(server.journal_url("s"), fsync="always")
        server.send("CONFIG", "SET", "appendonly", "yes")
        with pytest.raises(JournalRefused, match="appendfsync everysec"):
            open_journal(server.journal_url("s"), fsync="always")
        server.send("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.send("CONFIG", "SET", "appendfsync", "always")
        caplog.clear()
        journal = open_journal(server.journal_url("s"), fsync="always")
        assert "appendfsync always" in journal.promise
        journal.close()
        assert caplog.text == ""
        server.send("CONFIG", "SET", "appendfsync", "no")
        open_journal(server.journal_url("s")).close()
        assert "set appendfsync everysec" in caplog.text
        server.send("ACL", "SETUSER", "managed", "on", "nopass", "~*", "+@all", "-config")
        open_journal(server.journal_url("s").replace("redis://", "redis://managed:x@")).close()
        assert "could not be checked" in caplog.text
    finally:
        server.kill()


def test_a_user_with_the_documented_rights_is_enough(tmp_path: Path) -> None:
    """docs/several-machines.md names them: the keys of one stream, and no dangerous command but two that only ask."""
    rights = re.search(r"`(~\{NAME\}\* [^`]*)`", (ROOT / "docs" / "several-machines.md").read_text())
    assert rights
    server = RedisServer(redis_binary(), tmp_path).start()
    try:
        server.send("ACL", "SETUSER", "statsapi", "on", ">secret", *rights[1].replace("NAME", "s").split())
        journal = open_journal(server.journal_url("s").replace("redis://", "redis://statsapi:secret@"))
        mark = journal.append(event(), key=IdempotencyKey(b"k", b"d", 1_000_000)).mark
        assert journal.find_answer(IdempotencyKey(b"k", b"d", 1_000_000)) == b""
        journal.append(LARGE)
        journal.append(lambda: event(2.0))
        assert journal.replace_prefix(None, Checkpoint(b"c", mark, 0, b"state"), {1: b"piece"})
        journal.maintain()
        journal.check_writable()
        assert journal.info().records == 2
        assert journal.read_pieces(b"c", 0, 2) == [(1, b"piece")]
        assert journal.read_checkpoint().state == b"state"
        journal.close()
        with pytest.raises(JournalRefused, match="permission"):
            open_journal(server.journal_url("other").replace("redis://", "redis://statsapi:secret@"))
    finally:
        server.kill()


def test_a_cluster_by_a_plain_url_and_the_other_way_round(server: RedisServer) -> None:
    """Each says which URL to write, or that there is no Cluster."""
    cluster = shared_redis(redis_binary(), cluster=True)
    with pytest.raises(JournalRefused, match=r"redis\+cluster://"):
        open_journal(cluster.journal_url("s"))
    with pytest.raises(JournalUnavailable, match="Cluster"):
        open_journal(f"redis+cluster://127.0.0.1:{server.port}?stream=s")


def test_a_cluster_without_slots_is_waited_for(tmp_path: Path) -> None:
    """Its nodes answer before the slots are shared out, and where no node has any left."""
    with redis_server(redis_binary(), tmp_path, cluster_enabled="yes") as node:
        url = f"redis+cluster://127.0.0.1:{node.port}?stream=s"
        with pytest.raises(JournalUnavailable, match="cannot be reached"):
            open_journal(url)
        node.send("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        with pytest.raises(JournalUnavailable, match="has no primary for the stream now"):
            open_journal(url)  # it takes two seconds to begin


def test_too_few_replicas_leave_the_outcome_unknown(server: RedisServer, stream: str) -> None:
    """WAIT comes back with fewer: the event is there, and a retry under its key does not count twice."""
    journal = open_journal(server.journal_url(stream), wait_replicas=1)
    with pytest.raises(JournalUnavailable, match="0 of 1 replicas") as caught:
        journal.append(event())
    assert caught.value.outcome_unknown
    assert values(journal) == {"default": [1.0]}
    journal.close()


def test_memory_that_is_full_refuses_writes_only(tmp_path: Path) -> None:
    """Events are refused and surely not recorded; reads go on, and so does all that makes room again."""
    server = RedisServer(redis_binary(), tmp_path, appendonly="no").start()
    try:
        journal = open_journal(server.journal_url("s"))
        journal.append(event())
        server.send("CONFIG", "SET", "maxmemory", "1mb")
        for call in (lambda: journal.append(event()), journal.check_writable):
            with pytest.raises(JournalUnavailable, match="memory") as caught:
                call()
            assert not caught.value.outcome_unknown
        assert values(journal) == {"default": [1.0]}
        tick = journal.append(lambda: TICK).mark
        journal.append(lambda: Proposal(Deletion("default")))
        assert journal.replace_prefix(None, Checkpoint(b"c", tick, 0, b"state"))
        journal.maintain()
        assert values(journal, tick) == {"default": [None]}
        server.send("CONFIG", "SET", "maxmemory", "0")
        journal.append(event(2.0))
        assert values(journal, tick) == {"default": [None, 2.0]}
        journal.close()
    finally:
        server.kill()


def test_tls_is_checked(tmp_path: Path) -> None:
    """rediss:// takes the authority that ssl_ca_certs names, and no server that it does not vouch for; so it is where
    requests are counted.
    """
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([require_binary("openssl"), "req", "-x509", *named, *made], check=True, capture_output=True)
    port = free_port()
    files: dict[str, Any] = {"tls_cert_file": certificate, "tls_key_file": key, "tls_ca_cert_file": certificate}
    server = RedisServer(redis_binary(), tmp_path, tls_port=port, tls_auth_clients="no", **files)
    try:
        server.start()
    except AssertionError as error:
        if "tls-port" not in str(error):
            raise
        pytest.skip("this redis-server was built without TLS")
    try:
        journal = open_journal(f"rediss://127.0.0.1:{port}?stream=s&ssl_ca_certs={certificate}")
        journal.append(event())
        assert values(journal) == {"default": [1.0]}
        journal.close()
        with pytest.raises(JournalUnavailable, match="certificate verify failed"):
            open_journal(f"rediss://127.0.0.1:{port}?stream=s")
        url = f"rediss://127.0.0.1:{port}?stream=s&ssl_ca_certs={certificate}"
        app = create_app(Settings(journal=url, rate_limit="2/minute"), background=False)
        assert [app.test_client().get("/series").status_code for _ in range(3)] == [200, 200, 429]
        app.extensions["statsapi"].close()
    finally:
        server.kill()


# What others may do


def time_us(server: RedisServer) -> int:
    seconds, micros = server.send("TIME").split("\r\n")[2::2][:2]
    return int(seconds) * 1_000_000 + int(micros)


def fill(journal: Journal, records: int) -> list[Mark]:
    return [journal.append(event(float(number))).mark for number in range(records)]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("XTRIM", "{}", "MINID", "4-0"), [3.0, 4.0, 5.0, 6.0, 7.0]),
        (("XDEL", "{}", "3-0", "6-0"), [0.0, 1.0, 3.0, 4.0, 6.0, 7.0]),
        (("XDEL", "{}", "8-0"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        (("DEL", "{}"), []),
    ],
)
def test_records_that_somebody_took_out_are_noticed_by_all(
    server: RedisServer, stream: str, words: tuple[str, ...], left: list[float]
) -> None:
    """Wherever in the stream: every view starts afresh, agrees with the others on what is left, and goes on."""
    one, other = open_journal(server.journal_url(stream)), open_journal(server.journal_url(stream))
    marks = fill(one, 8)
    assert values(other, marks[-1]) == {}
    server.send(*(word.replace("{}", f"{{{stream}}}") for word in words))
    for journal in (other, one):
        for mark in (marks[1], marks[5], marks[7]):
            with pytest.raises(HistoryChanged):
                journal.read(mark)
        for limit in (10_000, 1):
            found = segments(journal, limit_records=limit)
            assert values(journal, limit_records=limit) == ({"default": left} if left else {})
    last = found[-1].mark if found else START
    added = one.append(event(9.0)).mark
    assert values(other, last) == {"default": [9.0]}
    assert other.replace_prefix(None, Checkpoint(b"c", added, 0, b"state"))
    other.maintain()
    assert other.read_checkpoint().mark == added
    assert values(one, added) == {}
    assert one.info().records == 0
    one.close()
    other.close()


def test_a_flush_and_an_older_copy_are_another_history(server: RedisServer, stream: str, journal: Journal) -> None:
    """The same positions with other records are not the view's."""
    marks = fill(journal, 5)
    copy = server.send("DUMP", f"{{{stream}}}")  # only to see that there is something
    assert copy
    server.send("DEL", f"{{{stream}}}", f"{{{stream}}}:meta")
    with pytest.raises(HistoryChanged):
        journal.read(marks[-1])
    assert values(journal) == {}
    again = fill(journal, 6)
    for mark in marks:
        with pytest.raises(HistoryChanged):
            journal.read(mark)
    assert values(journal, again[3]) == {"default": [4.0, 5.0]}


def test_a_stream_that_is_not_ours_is_refused(server: RedisServer, stream: str, journal: Journal) -> None:
    """Neither read nor written: without its meta hash, or with entries of another kind."""
    journal.append(event())
    server.send("DEL", f"{{{stream}}}:meta")
    for call in (lambda: journal.append(event()), lambda: journal.read(START)):
        with pytest.raises(JournalRefused, match="without its meta hash"):
            call()
    server.send("DEL", f"{{{stream}}}")
    journal.append(event())
    server.send("XADD", f"{{{stream}}}", "*", "temperature", "20")
    with pytest.raises(JournalDamaged, match="did not write them"):
        journal.read(START)
    server.send("XDEL", f"{{{stream}}}", "1-0")
    with pytest.raises(JournalRefused, match="an entry that statsapi did not write"):
        journal.read(START)


def test_a_newer_schema_is_refused(server: RedisServer, stream: str, journal: Journal) -> None:
    """A later statsapi may lay things out in another way."""
    journal.append(event())
    server.send("HSET", f"{{{stream}}}:meta", "schema", "3")
    with pytest.raises(JournalRefused, match="newer"):
        open_journal(server.journal_url(stream))


def test_create_off_wants_a_journal_that_is_there(server: RedisServer, stream: str, journal: Journal) -> None:
    """The operator's commands do not make one by mistake."""
    with pytest.raises(JournalRefused, match="nothing was ever recorded"):
        open_journal(server.journal_url(stream), create=False)
    journal.append(event())
    open_journal(server.journal_url(stream), create=False).close()


# Size


def test_a_large_state_travels_in_parts(journal: Journal, server: RedisServer, stream: str) -> None:
    """It comes back to the byte, and the one before it goes; one that was not finished goes by itself."""
    marks = fill(journal, 3)
    state = secrets.token_bytes(1 << 20) * (2 * PART_BYTES // (1 << 20)) + b"the end"
    assert journal.replace_prefix(None, Checkpoint(b"first", marks[0], 0, state))
    assert journal.read_checkpoint().state == state
    assert journal.replace_prefix(b"first", Checkpoint(b"second", marks[1], 0, b""))
    assert journal.read_checkpoint().state == b""
    assert server.send("EXISTS", f"{{{stream}}}:state:{b'first'.hex()}").startswith(":0")
    assert not journal.replace_prefix(b"first", Checkpoint(b"third", marks[2], 0, state))
    assert server.send("EXISTS", f"{{{stream}}}:state:{b'third'.hex()}").startswith(":0")


def test_pieces_leave_nothing_behind(journal: Journal, server: RedisServer, stream: str) -> None:
    """Pieces that were replaced, dropped or too late are gone from the server and from the journal's size."""
    marks = fill(journal, 4)
    large = secrets.token_bytes(PART_BYTES + 1)

    def pieces_there() -> int:
        return server.send("KEYS", f"{{{stream}}}:piece:*").count(":piece:")

    empty_bytes = journal.size_bytes()
    assert journal.replace_prefix(None, Checkpoint(b"first", marks[0], 0, b""), {1: large, 2: b"two", 70: b"x"})
    assert journal.read_pieces(b"first", 0, 100) == [(1, large), (2, b"two"), (70, b"x")]
    assert 0 <= journal.size_bytes() - empty_bytes - len(large) < 2_000
    assert not journal.replace_prefix(b"other", Checkpoint(b"lost", marks[1], 0, b""), {3: b"lost"})
    with pytest.raises(HistoryChanged):
        journal.replace_prefix(b"first", Checkpoint(b"lost", Mark(marks[1].position, bytes(16)), 0, b""), {3: b"lost"})
    assert pieces_there() == 3
    second = Checkpoint(b"second", marks[1], 0, b"")
    assert journal.replace_prefix(b"first", second, {1: b"one", 70: None}, drop_pieces_before=1)
    assert journal.read_pieces(b"second", 0, 100) == [(1, b"one"), (2, b"two")]
    assert pieces_there() == 2
    assert journal.size_bytes() - empty_bytes < 2_000
    assert journal.replace_prefix(b"second", Checkpoint(b"third", marks[2], 0, b""), drop_pieces_before=71)
    assert pieces_there() == 0
    assert server.send("HGET", f"{{{stream}}}:meta", "piece_bytes") == "$1\r\n0\r\n"


def test_a_piece_that_somebody_else_took_is_said(journal: Journal, server: RedisServer, stream: str) -> None:
    """It is not skipped: a window without it would be wrong."""
    (mark,) = fill(journal, 1)
    assert journal.replace_prefix(None, Checkpoint(b"first", mark, 0, b""), {1: b"one", 2: b"two"})
    server.send("DEL", f"{{{stream}}}:piece:2:{b'first'.hex()}:3:{piece_checksum(2, b'two')}")
    assert journal.read_pieces(b"first", 0, 2) == [(1, b"one")]
    with pytest.raises(JournalDamaged, match=r"the checkpoint's piece 2 .* is damaged \(it is missing\)"):
        journal.read_pieces(b"first", 0, 3)


def test_a_reader_that_is_overtaken_reads_the_newest_checkpoint(
    journal: Journal, server: RedisServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often another takes a checkpoint's place before its state is fetched; a state that is missing is told."""
    (mark,) = fill(journal, 1)
    assert journal.replace_prefix(None, Checkpoint(b"0", mark, 0, b"state 0"))
    checkpoints: Any = journal._checkpoints  # type: ignore[attr-defined]
    fetch = checkpoints._fetch_state

    def fetch_late(name: bytes) -> bytes | None:
        if (number := int(name)) < 7:
            following = b"%d" % (number + 1)
            assert journal.replace_prefix(name, Checkpoint(following, mark, 0, b"state " + following))
        fetched: bytes | None = fetch(name)
        return fetched

    monkeypatch.setattr(checkpoints, "_fetch_state", fetch_late)
    found = journal.read_checkpoint()
    assert found is not None
    assert (found.id, found.state) == (b"7", b"state 7")
    server.send("DEL", checkpoints._server.state_key(b"7"))
    with pytest.raises(JournalDamaged, match="its state is missing"):
        journal.read_checkpoint()


def test_a_checkpoint_whose_parts_the_server_forgot_is_not_made(
    journal: Journal, server: RedisServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it restarts without its log in between, or ten minutes have passed."""
    (mark,) = fill(journal, 1)
    checkpoints: Any = journal._checkpoints  # type: ignore[attr-defined]
    stage = checkpoints._stage

    def stage_and_forget(key: str, content: bytes) -> None:
        stage(key, content)
        if ":piece:" in key:
            server.send("DEL", key)

    monkeypatch.setattr(checkpoints, "_stage", stage_and_forget)
    with pytest.raises(JournalUnavailable, match="forgotten a checkpoint") as caught:
        journal.replace_prefix(None, Checkpoint(b"first", mark, 0, b"state"), {1: b"one"})
    assert not caught.value.outcome_unknown
    monkeypatch.undo()
    assert journal.read_checkpoint() is None
    assert journal.replace_prefix(None, Checkpoint(b"second", mark, 0, b"state"), {1: b"one"})
    assert journal.read_pieces(b"second", 0, 9) == [(1, b"one")]


def test_an_older_copy_that_grows_in_the_middle_of_a_read_is_noticed(
    journal: Journal, server: RedisServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark's record is lost, and between the two calls of one read others are appended in its place."""
    fill(journal, 2)
    keys = [f"{{{stream}}}", f"{{{stream}}}:meta"]
    for key in keys:
        server.send("COPY", key, f"{key}:older")
    (mark,) = fill(journal, 1)
    journal.read(mark)
    for key in keys:
        server.send("RENAME", f"{key}:older", key)
    redis: Any = journal._server  # type: ignore[attr-defined]
    calls = redis.calls

    def one_by_one(asked: list[Any], **options: Any) -> list[Any]:
        first = calls(asked[:1], **options)
        if len(asked) == 2:
            fill(other, 2)
        return first + (calls(asked[1:], **options) if asked[1:] else [])

    other = open_journal(server.journal_url(stream))
    monkeypatch.setattr(redis, "calls", one_by_one)
    with pytest.raises(HistoryChanged):
        journal.read(mark)
    other.close()


def test_near_and_far_readers_read_the_same(journal: Journal, server: RedisServer, stream: str) -> None:
    """One that lies far behind reads by a script, one that follows by XRANGE: both see every record once."""
    records = 2 * NEAR_RECORDS + 10
    far = open_journal(server.journal_url(stream))
    followed: list[float] = []
    mark = START
    for number in range(records):
        journal.append(Proposal(EventBatch.single("default", 0, float(number))))
        if number % 97 == 0:
            for segment in segments(journal, mark):
                followed += events_of(segment)[0].values.tolist()
                mark = segment.mark
    expected = [float(number) for number in range(records)]
    assert values(far)["default"] == expected
    assert followed + values(journal, mark).get("default", []) == expected
    cut = segments(open_far(server, stream), limit_bytes=40 * 100)
    assert {segment.records for segment in cut[:-1]} == {100}
    far.close()


def open_far(server: RedisServer, stream: str) -> Journal:
    return open_journal(server.journal_url(stream))


def test_a_read_with_nothing_new_is_one_round_trip(journal: Journal, server: RedisServer) -> None:
    """Counted by the server: one script, and beside it the XRANGE that goes along; no payload comes back."""
    mark = journal.append(event()).mark
    journal.read(mark)
    server.send("CONFIG", "RESETSTAT")
    for _ in range(10):
        assert journal.read(mark).records == 0
    stats = server.send("INFO", "commandstats")
    assert "cmdstat_evalsha:calls=10," in stats
    assert "cmdstat_xrange:calls=10," in stats
    net = dict(line.split(":") for line in server.send("INFO", "stats").splitlines() if line.count(":") == 1)
    assert int(net["total_net_output_bytes"]) < 10 * 200 + 5000


# Large batches, which go another way


def test_large_batches_stand_in_the_same_order(server: RedisServer, stream: str) -> None:
    """By the script or by MULTI, from two openings at once: positions, times and ids chain as ever."""
    journals = [open_journal(server.journal_url(stream)) for _ in range(2)]
    server.send("CONFIG", "RESETSTAT")

    def append(journal: Journal) -> None:
        for number in range(40):
            journal.append(LARGE if number % 2 else event(-1.0))

    threads = [threading.Thread(target=append, args=(journal,)) for journal in journals for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "cmdstat_exec:" in server.send("INFO", "commandstats")
    found = [segment for journal in journals for segment in segments(journal, limit_records=1)]
    assert sum(segment.records for segment in found) == 2 * 160
    stamps = [segment.appended_us for segment in found[:160]]
    assert stamps == sorted(stamps)
    counts = [len(events_of(segment)[0].values) for segment in found[:160]]
    assert (counts.count(1), counts.count(10_000)) == (80, 80)
    for journal in journals:
        journal.close()


def test_a_large_batch_that_meets_a_lease_or_full_memory(server: RedisServer, stream: str, journal: Journal) -> None:
    """It waits for a lease, and is refused for want of memory, as any append."""
    journal.append(LARGE)
    until_us = time_us(server) + 100_000
    server.send("HSET", f"{{{stream}}}:meta", "lease", "dead", "lease_us", str(until_us))
    assert journal.append(LARGE).appended_us >= until_us
    assert server.send("HEXISTS", f"{{{stream}}}:meta", "lease").startswith(":0")
    server.send("CONFIG", "SET", "maxmemory", "1mb")
    try:
        with pytest.raises(JournalUnavailable, match="memory") as caught:
            journal.append(LARGE)
    finally:
        server.send("CONFIG", "SET", "maxmemory", "0")
    assert not caught.value.outcome_unknown
    assert journal.append(LARGE).mark.position == 3


# Decisions against others


def test_a_decision_comes_through_against_busy_appenders(server: RedisServer, stream: str) -> None:
    """While two other openings append without a pause, decisions are made, each on the newest state."""
    done = threading.Event()
    counts: list[int] = []

    def append_on(at: int) -> None:
        other = open_journal(server.journal_url(stream))
        while not done.is_set():
            other.append(event(0.0, "other"))
        other.close()

    threads = [threading.Thread(target=append_on, args=(at,)) for at in range(2)]
    journal = open_journal(server.journal_url(stream))
    mark, seen = START, 0
    runs = 0

    def decide() -> Proposal:
        nonlocal mark, seen, runs
        runs += 1
        for segment in segments(journal, mark):
            mark = segment.mark
            seen += segment.records
        return event(float(seen), "decided")

    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            appended = journal.append(decide)
            assert appended.mark.position == seen + 1
            counts.append(runs)
            runs = 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert max(counts) <= 10, counts
    journal.close()


def test_a_lease_whose_holder_died_runs_out(server: RedisServer, stream: str, journal: Journal) -> None:
    """Others wait until it runs out, and go on. They wait for no lease longer than one can be, as there may be after
    the clock was put back.
    """
    journal.append(event())
    until_us = time_us(server) + 100_000
    server.send("HSET", f"{{{stream}}}:meta", "lease", "dead", "lease_us", str(until_us))
    assert journal.append(event(2.0)).appended_us >= until_us
    server.send("HSET", f"{{{stream}}}:meta", "lease", "dead", "lease_us", str(until_us + 3_600_000_000))
    journal.append(event(2.5))
    server.send("HSET", f"{{{stream}}}:meta", "lease", "dead", "lease_us", str(time_us(server) + LEASE_US))
    hasty: Any = journal
    hasty._appends.group._wait_limit_s = 0.05
    with pytest.raises(JournalUnavailable, match="another writer") as caught:
        journal.append(event(3.0))
    assert not caught.value.outcome_unknown
    assert values(journal) == {"default": [1.0, 2.0, 2.5]}
