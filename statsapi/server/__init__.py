"""Gunicorn's side: its configuration, the worker class, the hooks, the logger. It decides about processes, cores and
connections; what a request means is decided elsewhere. Of statsapi only `statsapi serve` and `config` import its
modules; Gunicorn does by its configuration. The host and the port at which the service listens unless told otherwise
(HOST, PORT) stand in this file alone: the commands that ask it take them from here.

Imports point down this list, never up.

gunicorn_app    Gunicorn as `statsapi serve` runs it, and its refusals in one line
gunicorn_conf   the packaged configuration: workers, threads, timeouts
hooks           what is done at each stage of Gunicorn's life: checks, slots and cores, start, end
worker          the worker class: who accepts a connection, how it stops, what it refuses before the application
checks          what is wrong with settings, workers and threads, before anything is opened
descriptors     how many connections the limit of open files allows
board           how many connections each worker has, in shared memory
pinning         which core a worker runs on
interpreter     garbage collection, switching of threads and freed memory of a worker
addresses       why an address cannot be listened at
logger          one form for Gunicorn's log lines and ours
"""

from typing import Final

# Loopback: whoever opens the service to a network does it on purpose.
HOST: Final = "127.0.0.1"
PORT: Final = 8000
