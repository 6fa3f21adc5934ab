"""The way to the one Redis or Valkey server that takes writes now: its connections, and the outcome of each call.

The official client finds the primary (Sentinel, Cluster), connects, logs in and speaks the protocol. Its retries are
switched off: by itself it sends a command up to ten times, and an append must never be sent twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import Connection, ConnectionPool, SSLConnection
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from statsapi.errors import JournalDamaged, JournalRefused, JournalUnavailable
from statsapi.journal.redis_url import SENTINEL_OPTIONS, TLS_OPTIONS, Address

# There is no file to check or to salvage from.
DAMAGE_ADVICE: Final = "restore a copy of the server's own: a replica, its AOF or its RDB file"

# Timeout of each connect, send and receive; a server that takes longer counts as away. Appends are answered in 0.1 ms.
# The longest pause of a sound server is the fork for its own snapshot, 10 to 20 ms a GB.
CONNECT_TIMEOUT_S: Final = 1.0
TIMEOUT_S: Final = 2.0


# Segments and checkpoints come in megabytes: 8 MB took 250 reads at the client's own 32 KB.
_READ_BYTES: Final = 256 << 10


# Error answers of a server that is not the primary now. It has done nothing, and another one may be the primary.
_ELSEWHERE: Final = (
    exceptions.ReadOnlyError,
    exceptions.AskError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
)
_ELSEWHERE_WORDS: Final = ("MOVED ", "ASK ", "READONLY ", "CLUSTERDOWN ", "TRYAGAIN ", "MASTERDOWN ", "UNBLOCKED ")
# What the server adds to an error in a script: another text for each script and line.
_IN_A_SCRIPT: Final = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.$")
_SAID: Final = {
    "MISCONF": "cannot save to its disk and takes no writes",
    "NOREPLICAS": "misses the replicas that it must have (min-replicas-to-write) and takes no writes",
    "BUSY": "is held up by somebody's script",
    "STAGED": "has forgotten a checkpoint that was on its way there",
}


# What the client raises where it cannot find its way in a Cluster: RedisClusterException is no RedisError, and where no
# server has the slots, or those that had them are gone, its tables are empty.
_NO_WAY: Final = (exceptions.RedisClusterException, exceptions.RedisError, OSError, LookupError)


class Script:
    """A Lua script: sent by its hash, and in full to a server that does not know it yet."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Call:
    """One command."""

    __slots__ = ("_arguments", "_script")

    def __init__(self, *arguments: Any, script: Script | None = None) -> None:
        self._arguments = arguments
        self._script = script

    @classmethod
    def of(cls, script: Script, keys: Sequence[str | bytes], arguments: Iterable[Any]) -> Call:
        return cls(len(keys), *keys, *arguments, script=script)

    def words(self, *, whole: bool) -> tuple[Any, ...]:
        """The words to send; `whole`: with a script's text instead of its hash."""
        if self._script is None:
            return self._arguments
        return (
            ("EVAL", self._script.text, *self._arguments) if whole else ("EVALSHA", self._script.sha, *self._arguments)
        )


class Unanswered(JournalUnavailable):
    """A call without an answer. With outcome_unknown the server may have got all of it. `timed_out`: a second try would
    take as long.
    """

    def __init__(self, detail: str, cause: Exception | None = None, *, outcome_unknown: bool = False) -> None:
        super().__init__(f"{detail}: {cause}" if cause else detail, outcome_unknown=outcome_unknown)
        self.timed_out = isinstance(cause, exceptions.TimeoutError)


class Primary:
    """Sends calls to the server that takes writes now. Any thread may call; each call has a connection to itself."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._slot = key_slot(f"{{{address.stream}}}".encode())
        self._lock = threading.Lock()
        self._closed = False
        self._pool: ConnectionPool | None = None  # single and Sentinel
        # Idle connections, each with its pool. Taking one from the pool and giving it back costs a quarter of a call,
        # mostly for telemetry.
        self._idle: list[tuple[ConnectionPool, Any]] = []
        self._sentinel: Sentinel | None = None
        self._cluster: RedisCluster | None = None

    def check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("the journal is closed")

    def calls(
        self,
        calls: Sequence[Call],
        *,
        resend: bool = True,
        timeout_s: float | None = None,
        then: Callable[[list[Any]], Sequence[Call]] | None = None,
    ) -> list[Any]:
        """The answers of calls that are sent together, in one round trip.

        `then` takes the answers and gives further calls, which go out on the same connection; their answers are
        returned. The first calls must then change nothing.

        Calls that surely were not carried out are sent once more, to the server that is the primary by then. With
        `resend` (for calls that change nothing) unanswered calls are sent again too. Otherwise JournalUnavailable, with
        `outcome_unknown` where the server may have carried out a change; JournalRefused where waiting will not help.
        `timeout_s` (by default TIMEOUT_S) is for each answer.
        """
        for last in (False, True):
            self.check_open()
            try:
                return self._send(calls, timeout_s, then)
            except Unanswered as error:
                if last or error.timed_out or (error.outcome_unknown and not resend):
                    error.outcome_unknown = error.outcome_unknown and not resend
                    raise
        raise AssertionError  # for the type checker

    def close(self) -> None:
        with self._lock:
            self._closed = True
            pool, sentinel, cluster = self._pool, self._sentinel, self._cluster
            self._idle.clear()
        for found in (pool, sentinel, cluster):
            if found is not None:
                found.close()

    def _send(
        self,
        calls: Sequence[Call],
        timeout_s: float | None,
        then: Callable[[list[Any]], Sequence[Call]] | None,
    ) -> list[Any]:
        pool, node = self._find()
        try:
            connection = self._take(pool)
        except exceptions.AuthenticationError as error:
            raise JournalRefused(f"{self._address} refuses the login: {error}") from error
        except (exceptions.RedisError, OSError) as error:
            self._look_again(node)
            if str(error).startswith("DB index is out of range"):
                number = self._address.db
                raise JournalRefused(f"{self._address} has no database {number}: its `databases` are fewer") from error
            raise Unanswered(f"{self._address} cannot be reached", error) from error
        whole = False  # whether the connection can be used again
        begun = then is None  # whether what is being sent changes anything
        try:
            replies = _exchange(connection, calls, timeout_s, whole=False)
            if any(isinstance(reply, exceptions.NoScriptError) for reply in replies):  # that one did nothing
                replies = _exchange(connection, calls, timeout_s, whole=True)
            if then is not None and not any(isinstance(reply, exceptions.ResponseError) for reply in replies):
                begun = True
                replies = _exchange(connection, then(replies), timeout_s, whole=False)
        except _NotSent as error:
            self._look_again(node)
            raise Unanswered(f"{self._address} cannot be reached", error) from error
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            self._look_again(node)
            if isinstance(error, exceptions.AuthenticationError):
                raise JournalRefused(f"{self._address} refuses the login: {error}") from error
            # READONLY as Sentinel's connection raises it, or a server that is still loading: it has done nothing.
            idle = isinstance(error, exceptions.BusyLoadingError) or isinstance(
                error.__context__, exceptions.ReadOnlyError
            )
            raise Unanswered(f"{self._address} did not answer", error, outcome_unknown=begun and not idle) from error
        except BaseException:
            connection.disconnect()
            raise
        else:
            whole = connection.is_connected
        finally:
            if whole:
                self._idle.append((pool, connection))
            else:
                pool.release(connection)
        for reply in replies:
            if isinstance(reply, exceptions.ResponseError):
                raise self._refusal(reply, node) from reply
        return replies

    def _take(self, pool: ConnectionPool) -> Any:
        """A connection of this pool that is connected, as far as this side can tell."""
        while True:
            try:
                came_from, connection = self._idle.pop()
            except IndexError:
                return pool.get_connection()
            # Anything to read before a question was sent means that the server closed the connection.
            if came_from is pool and connection.is_connected and not connection.can_read():
                return connection
            connection.disconnect()
            came_from.release(connection)

    def _refusal(self, error: exceptions.ResponseError, node: ClusterNode | None) -> Exception:
        """The exception for an error answer. The call was not carried out: scripts fail before they write."""
        cluster = self._cluster  # another thread may begin again meanwhile
        if isinstance(error, exceptions.MovedError) and cluster is not None:
            with contextlib.suppress(LookupError):  # another thread has found that slot without a server
                cluster.nodes_manager.move_slot(error)
            return Unanswered(f"{self._address} has moved the stream: {error}")
        if isinstance(error, _ELSEWHERE) or str(error).startswith(_ELSEWHERE_WORDS):
            self._look_again(node)
            return Unanswered(f"{self._address} has no primary for the stream now: {error}")
        said = _IN_A_SCRIPT.sub("", str(error))
        word = said.partition(" ")[0]
        if isinstance(error, exceptions.OutOfMemoryError) or word == "OOM":
            return JournalUnavailable(f"the memory of {self._address} is full ({said}): raise its maxmemory")
        if word in _SAID:
            return JournalUnavailable(f"{self._address} {_SAID[word]} ({said})")
        if word == "DAMAGED":
            return JournalDamaged(f"the journal at {self._address}", said.partition(" ")[2], advice=DAMAGE_ADVICE)
        return JournalRefused(f"{self._address} refuses: {said}")

    def _find(self) -> tuple[ConnectionPool, ClusterNode | None]:
        """The connections to the primary as last known; for a Cluster also its node."""
        if self._address.kind != "cluster":
            if self._pool is None:
                with self._lock:
                    self.check_open()
                    if self._pool is None:
                        self._pool = self._make_pool()
            return self._pool, None
        try:
            with self._lock:
                self.check_open()
                if self._cluster is None:
                    self._cluster = self._make_cluster()
                cluster = self._cluster
            node = cluster.nodes_manager.get_node_from_slot(self._slot)
            return cluster.get_redis_connection(node).connection_pool, node
        except _NO_WAY as error:
            self._look_again(None)
            raise Unanswered(f"{self._address} cannot be reached", error) from error

    def _look_again(self, node: ClusterNode | None) -> None:
        """The primary may be another one: let the next call find out."""
        while self._idle:
            with contextlib.suppress(IndexError):
                pool, connection = self._idle.pop()
                connection.disconnect()
                pool.release(connection)
        if self._pool is not None:
            self._pool.disconnect(inuse_connections=False)  # Sentinel is asked for each new connection
        cluster = self._cluster
        if cluster is None:
            return
        try:
            cluster.nodes_manager.initialize(last_failed_node_name=None if node is None else node.name)
        except _NO_WAY:
            with self._lock:  # none of the known nodes answers: begin again with the hosts of the URL
                self._cluster = None
            cluster.close()

    def _options(self) -> dict[str, Any]:
        address = self._address
        options: dict[str, Any] = {name: text for name, text in address.options.items() if name in TLS_OPTIONS}
        return options | {
            "username": address.username,
            "password": address.password,
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_read_size": _READ_BYTES,
            "protocol": 2,  # version 3 has nothing that is needed, and costs a connection more round trips
        }

    def _make_pool(self) -> ConnectionPool:
        address, options = self._address, self._options()
        options |= {"db": address.db, "retry": Retry(NoBackoff(), 0)}
        if address.kind == "single":
            kind = SSLConnection if address.tls else Connection
            (host, port), *_ = address.hosts
            return ConnectionPool(kind, host=host, port=port, **options)
        sentinels = {
            name: options[name] for name in options if name.startswith(("socket_", "ssl_", "retry", "protocol"))
        }
        sentinels |= {
            name.removeprefix("sentinel_"): text for name, text in address.options.items() if name in SENTINEL_OPTIONS
        }
        sentinels |= {"ssl": address.tls}
        self._sentinel = Sentinel(list(address.hosts), sentinel_kwargs=sentinels)  # type: ignore[no-untyped-call]
        return SentinelConnectionPool(  # type: ignore[no-untyped-call]
            address.service, self._sentinel, ssl=address.tls, **options
        )

    def _make_cluster(self) -> RedisCluster:
        nodes = [ClusterNode(host, port) for host, port in self._address.hosts]  # type: ignore[no-untyped-call]
        return RedisCluster(
            startup_nodes=nodes,
            retry=Retry(NoBackoff(), 0),
            require_full_coverage=False,  # one slot is all we need
            ssl=self._address.tls,
            **self._options(),
        )


class _NotSent(Exception):
    """The server has surely not received the whole command."""


def _exchange(connection: Any, calls: Sequence[Call], timeout_s: float | None, *, whole: bool) -> list[Any]:
    """The answers, including error answers. Raises an error of the connection itself."""
    packed = connection.pack_commands([call.words(whole=whole) for call in calls])
    try:
        connection.send_packed_command(packed, check_health=False)
    except (exceptions.RedisError, OSError) as error:
        if len(calls) == 1:
            raise _NotSent(str(error)) from error
        raise
    patience = {} if timeout_s is None else {"timeout": timeout_s}  # setting it costs two system calls
    replies: list[Any] = []
    for _ in calls:
        try:
            replies.append(connection.read_response(**patience))
        except exceptions.ResponseError as error:
            replies.append(error)
    return replies
