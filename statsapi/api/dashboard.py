"""The live page at /dashboard: files of the package, in the folder `statsapi/dashboard/`. They hold no data, so they
need no key. The page asks its user for a key where the service needs one.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from flask import Response, request
from werkzeug.exceptions import NotFound

_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# Only scripts, styles and requests of this origin: code in the name of a series can never run.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class _File(NamedTuple):
    body: bytes
    packed: bytes
    etag: str
    media_type: str


@cache
def _files() -> dict[str, _File]:
    """The page's files by name, packed once for each process."""
    files = {}
    for held in resources.files("statsapi").joinpath("dashboard").iterdir():
        body = held.read_bytes()
        etag = hashlib.blake2b(body, digest_size=12).hexdigest()
        media_type = _MEDIA_TYPES[held.name.rpartition(".")[2]]
        files[held.name] = _File(body, gzip.compress(body, mtime=0), etag, media_type)
    return files


def get_page() -> Response:
    response = _serve("index.html")
    response.headers["Content-Security-Policy"] = POLICY
    return response


def get_file(name: str) -> Response:
    """A script, style or picture of the page."""
    if name == "index.html" or name not in _files():
        raise NotFound("The page has no such file.")
    return _serve(name)


def _serve(name: str) -> Response:
    """A file with an ETag. Browsers cache it and revalidate it each time (304), so that a new version shows at once."""
    file = _files()[name]
    packed = request.accept_encodings["gzip"] > 0
    response = Response(file.packed if packed else file.body, content_type=file.media_type)
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(file.etag + ("-gzip" if packed else ""))
    response.make_conditional(request)  # changes it
    return response
