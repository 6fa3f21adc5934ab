"""Gunicorn's side: the worker class, and the hooks that gunicorn.conf.py names. It decides about processes, cores and
connections; what a request means is decided elsewhere, and nothing else imports this.
"""

from typing import Final

# Where the service listens unless told otherwise. Loopback: whoever opens it to a network does it on purpose.
HOST: Final = "127.0.0.1"
PORT: Final = 8000
