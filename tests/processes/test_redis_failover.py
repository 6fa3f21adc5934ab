"""Another server takes over: Sentinel promotes a replica, a Cluster elects one. Real processes, killed and stopped."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from statsapi.app import create_app
from statsapi.config import Settings
from statsapi.errors import JournalUnavailable
from statsapi.journal import START, Journal, open_journal
from tests.journal_engines import event, segments, values
from tests.programs import redis_binary
from tests.redis_load import body, posting
from tests.servers import RedisServer, gunicorn_server, wait_until

SENTINELS = 3


class Watched:
    """A primary, a replica, and three Sentinels that promote it after half a second."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        binary = redis_binary()
        self.first = RedisServer(binary, directory / "first", repl_diskless_sync_delay=0)
        follows = f"127.0.0.1 {self.first.port}"
        self.second = RedisServer(binary, directory / "second", replicaof=follows, repl_diskless_sync_delay=0)
        for server in (self.first, self.second):
            stack.callback(server.kill)
            server.start()
        wait_until(lambda: "slave0:" in self.first.send("INFO", "replication"), "the replica to be there")
        wait_until(lambda: "state=online" in self.first.send("INFO", "replication"), "the replica to be in step")
        self.sentinels = []
        for at in range(SENTINELS):
            sentinel = RedisServer(binary, directory / f"sentinel-{at}")
            sentinel.options = {
                "sentinel": [
                    f"monitor mymaster 127.0.0.1 {self.first.port} 2",
                    "down-after-milliseconds mymaster 500",
                    "failover-timeout mymaster 3000",
                ]
            }
            self.sentinels.append(sentinel)
            stack.callback(sentinel.kill)
            sentinel.start(sentinel=True)
        for sentinel in self.sentinels:  # they find each other and the replica through the primary
            wait_until(partial(_knows, sentinel, "slaves", 1), "Sentinel to know the replica")
            wait_until(partial(_knows, sentinel, "sentinels", 2), "Sentinel to know the others")

    def url(self, stream: str) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/mymaster/0?stream={stream}"

    def primary_port(self) -> int:
        answer = self.sentinels[0].send("SENTINEL", "get-master-addr-by-name", "mymaster")
        return int(answer.split("\r\n")[4])


def _says(node: RedisServer, asked: str, text: str) -> bool:
    """Whether this stands in what the node of a Cluster answers."""
    return text in node.send("CLUSTER", asked)


def _knows(sentinel: RedisServer, whom: str, count: int) -> bool:
    master = sentinel.send("INFO", "sentinel")
    found = dict(
        part.split("=") for part in master.strip().splitlines()[-1].partition(":")[2].split(",") if "=" in part
    )
    return int(found.get(whom, 0)) >= count + (whom == "sentinels")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(tmp_path, stack)


def test_sentinel_promotes_a_replica_and_nothing_acknowledged_is_lost(tmp_path: Path, watched: Watched) -> None:
    """Two machines under load, the primary killed, the replica promoted, the old one back as its replica: with
    STATSAPI_REDIS_WAIT_REPLICAS=1 each acknowledged event is there exactly once, and all goes on by itself.
    """
    env = {"STATSAPI_JOURNAL": watched.url("s"), "STATSAPI_REDIS_WAIT_REPLICAS": "1"}
    with (
        gunicorn_server(tmp_path / "one", workers=1, env=env) as one,
        gunicorn_server(tmp_path / "two", workers=1, env=env) as two,
        posting(one, two) as load,
    ):
        load.wait_for(200)
        watched.first.kill()
        wait_until(lambda: watched.primary_port() == watched.second.port, "the replica to be promoted")
        watched.first.start()
        # Sentinel does this by itself after ten seconds.
        watched.first.send("REPLICAOF", "127.0.0.1", str(watched.second.port))
        load.wait_for(200)
        load.stop()
        for service in (one, two):
            assert service.request("GET", "/statistics")[1]["count"] == len(load.acknowledged)
    journal = open_journal(watched.url("s"))
    assert sorted(values(journal)["default"]) == sorted(load.acknowledged)
    journal.close()


def test_a_failover_to_an_older_copy_makes_every_view_start_afresh(watched: Watched) -> None:
    """Records that the replica had not got leave all answers, and later ones count, at the same positions."""
    app = create_app(Settings(journal=watched.url("s")), background=False)
    client = app.test_client()
    for value in range(3):
        assert client.post("/event", json=body(value)).status_code == 200
    wait_until(lambda: _stream_length(watched.second) == 3, "the replica to follow")
    watched.second.signal(signal.SIGSTOP)
    watched.first.send("CLIENT", "KILL", "TYPE", "replica")  # or it would find in its socket what it has missed
    for value in (10, 11):
        assert client.post("/event", json=body(value)).status_code == 200
    assert client.get("/statistics").json["count"] == 5
    watched.first.kill()
    watched.second.signal(signal.SIGCONT)
    stale = client.get("/statistics")
    assert "Age" in stale.headers
    assert stale.json["count"] == 5
    wait_until(lambda: client.post("/event", json=body(20)).status_code == 200, "the replica to take writes")
    assert client.post("/event", json=body(21)).status_code == 200
    fresh = client.get("/statistics")
    assert "Age" not in fresh.headers
    assert (fresh.json["count"], fresh.json["max"]) == (5, 21.0)
    app.extensions["statsapi"].close()


def _stream_length(server: RedisServer) -> int:
    return int(server.send("XLEN", "{s}")[1:])


@pytest.mark.usefixtures("impatient")
def test_a_primary_that_wakes_up_again_is_not_read(watched: Watched) -> None:
    """Paused, replaced, and awake again: it still believes to be the primary for a moment, and holds an append that
    nobody was told of. Reads never come from it, and the append is nowhere.
    """
    journal = open_journal(watched.url("s"))
    mark = journal.append(event(1.0)).mark
    wait_until(lambda: _stream_length(watched.second) == 1, "the replica to follow")
    watched.first.signal(signal.SIGSTOP)
    with pytest.raises(JournalUnavailable) as caught:
        journal.append(event(2.0))
    assert caught.value.outcome_unknown
    wait_until(lambda: appended(journal, 3.0), "the replica to take writes")
    watched.first.signal(signal.SIGCONT)
    for number in range(200):
        journal.append(event(10.0 + number))
        assert values(journal, mark)["default"][-1] == 10.0 + number
    assert values(journal)["default"][:3] == [1.0, 3.0, 10.0]
    journal.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statsapi.journal.redis_primary.TIMEOUT_S", 0.5)


def appended(journal: Journal, value: float) -> bool:
    try:
        journal.append(event(value))
    except JournalUnavailable:
        return False
    return True


def test_a_demoted_server_is_refused(tmp_path: Path) -> None:
    """A replica takes no writes, and its reads are not passed off as the truth."""
    server = RedisServer(redis_binary(), tmp_path).start()
    try:
        journal = open_journal(server.journal_url("s"))
        mark = journal.append(event()).mark
        server.send("REPLICAOF", "127.0.0.1", "1")
        calls = (lambda: journal.append(event()), lambda: journal.read(mark), lambda: journal.read(START))
        for call in (*calls, journal.read_checkpoint, journal.check_writable):
            with pytest.raises(JournalUnavailable, match="no primary") as caught:
                call()
            assert not caught.value.outcome_unknown
        server.send("REPLICAOF", "NO", "ONE")
        assert values(journal) == {"default": [1.0]}
        # A primary that has lost its replicas may have been replaced without knowing.
        server.send("CONFIG", "SET", "min-replicas-to-write", "1")
        for call in (*calls, journal.check_writable):
            with pytest.raises(JournalUnavailable, match="min-replicas-to-write"):
                call()
        journal.close()
    finally:
        server.kill()


# Cluster


@contextmanager
def cluster(directory: Path) -> Iterator[list[RedisServer]]:
    """Three primaries that share the slots, and a replica of the first."""
    binary = redis_binary()
    with ExitStack() as stack:
        nodes = [
            RedisServer(
                binary,
                directory / f"node-{at}",
                cluster_enabled="yes",
                cluster_node_timeout=1000,
                repl_diskless_sync_delay=0,
            )
            for at in range(4)
        ]
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        edges = (0, 5461, 10923, 16384)
        for node, low, high in zip(nodes, edges, edges[1:], strict=False):
            node.send("CLUSTER", "ADDSLOTSRANGE", str(low), str(high - 1))
        for at, node in enumerate(nodes):
            node.send("CLUSTER", "SET-CONFIG-EPOCH", str(at + 1))
        for node in nodes[1:]:
            bus = str(node.options["cluster-port"])
            nodes[0].send("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus)
        for node in nodes:
            wait_until(partial(_says, node, "INFO", "cluster_known_nodes:4"), "the nodes to meet")
        first = nodes[0].send("CLUSTER", "MYID").split("\r\n")[1]
        wait_until(lambda: nodes[3].send("CLUSTER", "REPLICATE", first).startswith("+OK"), "a replica")
        for node in nodes:
            wait_until(partial(_says, node, "INFO", "cluster_state:ok"), "the Cluster to be whole")
        wait_until(lambda: "state=online" in nodes[0].send("INFO", "replication"), "the replica to be in step")
        for node in nodes:
            wait_until(partial(_says, node, "NODES", "slave"), "all to know the replica")
        yield nodes


def stream_on(node: RedisServer, low: int, high: int) -> str:
    """The name of a stream whose slot lies in this range."""
    while True:
        name = secrets.token_hex(4)
        if low <= int(node.send("CLUSTER", "KEYSLOT", f"{{{name}}}")[1:]) < high:
            return name


def test_a_cluster_elects_a_primary_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The node that holds the stream is killed under load: its replica takes over, and each event is there once."""
    with cluster(tmp_path / "cluster") as nodes:
        stream = stream_on(nodes[0], 0, 5461)
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:3])
        url = f"redis+cluster://{hosts}?stream={stream}"
        env = {"STATSAPI_JOURNAL": url, "STATSAPI_REDIS_WAIT_REPLICAS": "1"}
        with gunicorn_server(tmp_path / "service", workers=2, env=env) as service, posting(service) as load:
            load.wait_for(200)
            nodes[0].kill()
            wait_until(lambda: "role:master" in nodes[3].send("INFO", "replication"), "the replica to be elected")
            nodes[0].start()
            load.wait_for(200)
            load.stop()
            assert service.request("GET", "/statistics")[1]["count"] == len(load.acknowledged)
        journal = open_journal(url)
        assert sorted(values(journal)["default"]) == sorted(load.acknowledged)
        # A slot that moves to another node under a client that does not know yet.
        mark = segments(journal)[-1].mark
        nodes[0].send("CLUSTER", "FAILOVER")
        wait_until(lambda: "role:master" in nodes[0].send("INFO", "replication"), "the first to be primary again")
        wait_until(lambda: appended(journal, -1.0), "the journal to find it")
        assert values(journal, mark)["default"][-1] == -1.0
        journal.close()
