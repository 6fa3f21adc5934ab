"""Gunicorn's side: its configuration, the worker class, the hooks, the logger. It decides about processes, cores and
connections; what a request means is decided elsewhere. Only `statsapi serve` and Gunicorn import it.
"""

from typing import Final

# Where the service listens unless told otherwise. Loopback: whoever opens it to a network does it on purpose.
HOST: Final = "127.0.0.1"
PORT: Final = 8000
