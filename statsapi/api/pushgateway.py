"""The Pushgateway's endpoints, for Prometheus' batch jobs: /metrics/job/JOB/LABEL/VALUE…

A Pushgateway keeps the last value of each series until it is deleted. Here each pushed sample is an event, and all of
them count. So PUT, which replaces a group there, and POST, which adds to it, do the same here. DELETE, which jobs send
when they end, deletes nothing.
"""

from __future__ import annotations

import base64
import binascii

from flask import Response, request
from marshmallow import ValidationError

from statsapi.api.decoding.exposition import OPENMETRICS, PUSH_MAX_BYTES, decode_push
from statsapi.api.decoding.exposition_protobuf import MEDIA_TYPE as PROTOBUF
from statsapi.api.events import recording
from statsapi.api.incoming import load_query, require_utf8, service
from statsapi.api.refusals import UnsupportedForm
from statsapi.api.schemas import StrictSchema
from statsapi.errors import echo
from statsapi.model import IdempotencyKey
from statsapi.service.service import Reply

_TEXT_TYPES = ("text/plain", OPENMETRICS, "application/x-www-form-urlencoded", "")
_QUERY = StrictSchema()


def _answer(reply: Reply) -> Response:
    """200 without a body, as a Pushgateway answers."""
    return Response(status=200, content_type="text/plain; charset=utf-8")


@recording(alone=0, most_bytes=PUSH_MAX_BYTES, answer=_answer)
def push(body: bytes, key: IdempotencyKey | None, group: str) -> Reply:
    """PUT or POST of a job's samples: all of them are recorded as of now, or none."""
    load_query(_QUERY)
    require_utf8("path")
    labels = read_group(group)
    media_type = request.mimetype
    delimited = request.mimetype_params.get("encoding", "delimited") == "delimited"
    if media_type not in _TEXT_TYPES and not (media_type == PROTOBUF and delimited):
        raise UnsupportedForm(
            "Push Prometheus' text format (text/plain; version=0.0.4), or its protobuf with encoding=delimited, not "
            f"{echo(request.content_type)}."
        )
    recorder = service()
    batch = decode_push(
        body,
        labels,
        media_type,
        now_us=recorder.now_us(),
        max_events=recorder.settings.max_batch_events,
    )
    return recorder.record(batch, key=key)


def forget(group: str) -> Response:
    """DELETE of a group: 202 as from a Pushgateway, and nothing is deleted."""
    load_query(_QUERY)
    require_utf8("path")
    read_group(group)
    told = "Nothing was deleted: what was pushed are events. DELETE /series?series=NAME forgets a series.\n"
    return Response(told, 202, content_type="text/plain; charset=utf-8")


def read_group(path: str) -> dict[str, str]:
    """The labels of `job/JOB/LABEL/VALUE…`. A value that holds a slash or nothing comes in URL-safe base64, and its
    label's name says so: `path@base64`.
    """
    parts = path.split("/")
    if len(parts) % 2 or parts[0].removesuffix("@base64") != "job":
        raise ValidationError(
            {"path": ["must be /metrics/job/JOB, or /metrics/job/JOB/LABEL/VALUE with more such pairs"]}
        )
    group: dict[str, str] = {}
    for name, value in zip(parts[::2], parts[1::2], strict=True):
        label = name.removesuffix("@base64")
        if label != name:
            try:
                value = base64.b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), b"-_", True).decode()
            except (binascii.Error, ValueError):
                raise ValidationError({label: [f"is not base64 of UTF-8 text: {echo(value)!r}"]}) from None
        if label == "__name__":
            raise ValidationError({label: ["is the name of a metric, which each sample has: leave it out of the path"]})
        if label in group:
            raise ValidationError({label: ["appears twice in the path"]})
        group[label] = value
    if not group["job"]:
        raise ValidationError({"job": ["is empty: push to /metrics/job/JOB"]})
    return group
