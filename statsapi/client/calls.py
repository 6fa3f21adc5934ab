"""Calls of the service: each is one question or one recording, tried again until it is settled or its time is up.

Every attempt of a recording has the same Idempotency-Key, so that it counts once.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeVar

from urllib3.exceptions import HTTPError

from statsapi.client.errors import Unavailable
from statsapi.client.events import query_of
from statsapi.client.http import Reply, Transport, decode, pause_s, recorded, squeezed

Answer = dict[str, Any]
_T = TypeVar("_T")


class Calls:
    """Calls over one transport. `give_up_after_s` after its beginning a call raises its last error.

    Any number of threads may use it at once.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        give_up_after_s: float,
        clock_s: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.transport = transport
        self._give_up_after_s = give_up_after_s
        self._clock_s = clock_s
        self._sleep = sleep

    def ask(self, path: str, question: Mapping[str, Any], *holds: str) -> Answer:
        """The answer. Raises Unavailable for one without all names in `holds`: another server gave it."""
        query = query_of(question)
        url = self.transport.url
        answer = self._until_settled(lambda: decode(url, self.transport.send("GET", path, query)))
        if not isinstance(answer, dict) or not answer.keys() >= set(holds):
            raise Unavailable(f"{url} gave a strange answer to GET {path}, so this is not statsapi", status=200)
        return answer

    def record(self, path: str, media_type: str, body: bytes, key: str) -> Answer:
        """Record events. An Unavailable error has the key, under which the same request may be sent again."""
        headers = {"Content-Type": media_type, "Idempotency-Key": key}

        def attempt() -> Answer:
            return recorded(self.transport.url, self.transport.send("POST", path, "", body, headers))

        try:
            return self._until_settled(attempt)
        except Unavailable as error:
            error.idempotency_key = key
            raise

    def post(self, path: str, body: bytes, media_type: str, key: str | None, parameters: Mapping[str, Any]) -> Answer:
        """The object in the answer; {} for an empty one. Raises Unavailable for other JSON: that is not statsapi's."""

        def read(reply: Reply) -> Answer:
            answer = decode(self.transport.url, reply) if reply.body else {}
            if not isinstance(answer, dict):
                raise Unavailable(
                    f"{self.transport.url} gave a strange answer to POST {path}, so this is not statsapi", status=200
                )
            return answer

        return self._post(path, body, media_type, key, parameters, read)

    def exchange(
        self, path: str, body: bytes, media_type: str, key: str | None, parameters: Mapping[str, Any]
    ) -> Reply:
        """As `post`, but with the raw answer."""
        return self._post(path, body, media_type, key, parameters, lambda reply: reply)

    def _post(
        self,
        path: str,
        body: bytes,
        media_type: str,
        key: str | None,
        parameters: Mapping[str, Any],
        read: Callable[[Reply], _T],
    ) -> _T:
        """The result of `read` for the answer. If `read` raises Unavailable, the request is tried again too."""
        headers = {"Content-Type": media_type, "Idempotency-Key": key or new_key()}
        sent, encoding = squeezed(body)
        query = query_of(parameters)
        return self._until_settled(lambda: read(self.transport.send("POST", path, query, sent, headers | encoding)))

    def export(self, query: str, media_type: str, out: BinaryIO) -> int:
        """Write the stream of GET /events to `out` as it comes. Returns how many bytes that were. Raises Unavailable if
        the stream breaks off or has another media type.
        """
        response = self._until_settled(lambda: self.transport.open("GET", "/events", query))
        written = 0
        try:
            if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != media_type:
                raise Unavailable(
                    f"{self.transport.url} gave a strange answer to GET /events, so this is not statsapi", status=200
                )
            for piece in response.stream(1 << 16):
                written += out.write(piece)
        except HTTPError as error:
            raise Unavailable(f"the export broke off after {written} bytes") from error
        finally:
            response.release_conn()
        return written

    def _until_settled(self, attempt: Callable[[], _T]) -> _T:
        """The attempt's result, or its last error. Once an outcome was unknown, it stays so: that a later attempt was
        not recorded says nothing about the first.
        """
        end_s = self._clock_s() + self._give_up_after_s
        failures, unknown = 0, False
        while True:
            try:
                return attempt()
            except Unavailable as error:
                unknown = unknown or error.outcome == "unknown"
                failures += 1
                pause = pause_s(failures, error.retry_after_s, random.random())  # noqa: S311 - no secret
                if self._clock_s() + pause >= end_s:
                    error.outcome = "unknown" if unknown else "not recorded"
                    raise
            self._sleep(pause)


def new_key() -> str:
    return uuid.uuid4().hex
