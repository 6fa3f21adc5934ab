"""`python -m statsapi.cli.healthcheck [ADDRESS [PATH]]`: exit 0 when GET PATH is answered with 200, else 1 and why.

For containers without curl. ADDRESS is what Gunicorn binds: host:port (127.0.0.1:8000 unless given), [ipv6]:port, or
unix:/path. PATH is /healthz (the process answers) unless given; /readyz also wants the journal and the replay.
"""

from __future__ import annotations

import http.client
import socket
import sys

from statsapi.server import HOST, PORT

TIMEOUT_S = 2.0


def check(address: str, path: str = "/healthz") -> tuple[int, str]:
    """The status and text of the answer to GET `path` at `address`; OSError or HTTPException without an answer.

    ValueError for a port that is none.
    """
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    if address.startswith("unix:"):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        if not 0 < int(port) < 65_536:  # the system would take the rest of a division
            raise ValueError(port)
        connection.sock = socket.create_connection((host.removeprefix("[").removesuffix("]"), int(port)), TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace").strip()
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    address = arguments[0] if arguments else f"{HOST}:{PORT}"
    try:
        status, said = check(address, *arguments[1:2])
    except (OSError, http.client.HTTPException) as error:
        print(f"{address} does not answer: {error}", file=sys.stderr)
        return 1
    except ValueError:
        print(f"{address} is no address: write HOST:PORT, [IPV6]:PORT or unix:/path", file=sys.stderr)
        return 1
    if status != 200:
        print(f"{address} answered {status}: {said}", file=sys.stderr)
    return int(status != 200)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
