"""One attempt to deliver a batch."""

from __future__ import annotations

from typing import Any

from statsapi.client.errors import Refused
from statsapi.client.http import NDJSON, Transport, recorded, squeezed
from statsapi.client.outbox import Batch, Outbox


class Attempt:
    """One sending of a batch, and its outcome.

    was_tried: the outcome of an earlier attempt is unknown. sent: how many events were acknowledged. expired: how many
    of these count nowhere, as they are older than everything kept. rejected: how many events the service refused.
    refused: the rejected events that it named.
    """

    def __init__(self, transport: Transport, box: Outbox[Any], batch: Batch) -> None:
        self.was_tried = batch.tried_us is not None
        self.sent = 0
        self.expired = 0
        self.rejected = 0
        self.refused: list[dict[str, Any]] = []
        self._transport = transport
        self._box = box
        self._batch = batch

    def send(self) -> None:
        """Send the batch. Raises the first Refused, Conflict or Unavailable; the counts include pieces sent before."""
        if self._batch.events:
            self._send(self._batch.lines(), "")

    def _send(self, lines: list[bytes], piece: str) -> None:
        """Send a piece of the batch. If it is too large, send its halves, each under a key of its own."""
        key = self._batch.key
        if piece not in self._batch.split:
            try:
                self._post(f"{key}.{piece}" if piece else key, lines)
            except Refused as error:
                # If an earlier attempt may have been recorded whole, its halves would count twice.
                if error.status != 413 or self.was_tried:
                    raise
                if len(lines) < 2:
                    self.refused.append({"event": lines[0].decode(), "field": "", "reason": str(error)})
                    self.rejected += 1
                    return
                self._box.split(self._batch, piece)
            else:
                return
        middle = len(lines) // 2
        self._send(lines[:middle], piece + "0")
        self._send(lines[middle:], piece + "1")

    def _post(self, key: str, lines: list[bytes]) -> None:
        body = b"\n".join(lines) + b"\n"
        body, encoding = squeezed(body)
        headers = {"Content-Type": NDJSON, "Idempotency-Key": key, **encoding}
        # A key stands for the whole request, with its query: the query must stay the same for ever.
        answer = recorded(self._transport.url, self._transport.send("POST", "/events", "partial=true", body, headers))
        for error in answer.get("errors", ()):
            at = error.get("index", error.get("line", 1) - 1)
            self.refused.append({"event": lines[at].decode(), "field": error["field"], "reason": error["reason"]})
        self.sent += len(lines) - answer["rejected"]
        self.expired += answer["expired"]
        self.rejected += answer["rejected"]
