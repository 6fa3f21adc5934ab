"""`python -m statsapi.healthcheck [ADDRESS]`: exit 0 when the service answers GET /, else 1 with the reason.

For containers without curl. ADDRESS is what Gunicorn binds: host:port (127.0.0.1:8000 unless given) or unix:/path.
"""

from __future__ import annotations

import http.client
import socket
import sys

TIMEOUT_S = 2.0


def check(address: str) -> int:
    """The status of GET / at `address`; OSError or HTTPException when there is no answer."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    if address.startswith("unix:"):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        connection.sock = socket.create_connection((host, int(port)), TIMEOUT_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    address = arguments[0] if arguments else "127.0.0.1:8000"
    try:
        status = check(address)
    except (OSError, http.client.HTTPException) as error:
        print(f"{address} does not answer: {error}", file=sys.stderr)
        return 1
    if status != 200:
        print(f"{address} answered {status}", file=sys.stderr)
    return int(status != 200)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
