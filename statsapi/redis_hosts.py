"""Hosts, databases and certificates of a Redis. The URL of a journal names them, and so does that of a Redis in which
rate limits are counted: both refuse the same ones, in the same words.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Final

DATABASE_MAX: Final = 2**31 - 1  # the largest number that Redis reads; how many databases it has is its setting
_CERTIFICATE_KINDS: Final = ("none", "optional", "required")


def is_host(host: str) -> bool:
    """Whether a connection could look this name up: Python's own encoding refuses a label of 64 characters or more."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def why_no_certificates(options: Mapping[str, str]) -> str | None:
    """Why TLS cannot be had with these options of a URL; None where it can."""
    if (kind := options.get("ssl_cert_reqs", "required")) not in _CERTIFICATE_KINDS:
        return f"ssl_cert_reqs={kind[:40]} is none of {', '.join(_CERTIFICATE_KINDS)}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folder = options.get("ssl_ca_certs"), options.get("ssl_ca_path")
    if folder is not None and not os.path.isdir(folder):
        return f"ssl_ca_path={folder} is no folder"
    if file is not None:
        try:
            context.load_verify_locations(file)
        except (OSError, ValueError) as error:
            return f"ssl_ca_certs={file} is not a file of certificates ({_reason(error)})"
    own, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if own is None and key is not None:
        return "ssl_keyfile is the key of ssl_certfile, which it lacks"
    if own is not None:
        try:
            context.load_cert_chain(own, key, password="")
        except (OSError, ValueError) as error:
            named = f"ssl_certfile={own}" + ("" if key is None else f" and ssl_keyfile={key}")
            return f"{named} are no certificate with its key ({_reason(error)})"
    return None


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
