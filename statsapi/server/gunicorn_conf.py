"""Gunicorn's configuration for statsapi. `statsapi serve` and a checkout's gunicorn.conf.py read it, from any folder.

The command line and GUNICORN_CMD_ARGS override every line here. The code is in statsapi.server.hooks.
"""

import os

from statsapi.server import HOST, PORT, hooks

wsgi_app = "statsapi.app:create_app()"

# --bind opens the service to a network; the container image and nginx's unit do.
bind = f"{HOST}:{PORT}"

# The threads of one process share one interpreter lock, so only more processes use more cores. Platforms set
# WEB_CONCURRENCY. `gunicorn` reads it before this file, and a value that is not a number ends in a traceback;
# `statsapi serve` refuses it in one line.
workers = int(os.environ.get("WEB_CONCURRENCY") or hooks.default_workers())
worker_class = hooks.worker_class()

# Threads overlap the waits for the journal. More than four only add thread switches (benchmarks/README.md).
threads = 4

# Longer than nginx keeps its idle connections (60 s): the side that reuses a connection must be the one to close it,
# or a request meets a connection that is just being closed and fails with 502.
keepalive = 75

# A stopping worker has this long to finish its requests; they take milliseconds, a full batch over a slow line seconds.
graceful_timeout = 30

# A worker whose poll loop stood still for this long is replaced. Requests run in threads and do not count.
timeout = 30

# Heartbeats touch a file; on a disk that can block for seconds.
if os.path.isdir("/dev/shm"):  # noqa: S108
    worker_tmp_dir = "/dev/shm"  # noqa: S108

# Gunicorn 27 opens a control socket in the home directory, through which the workers can be changed; not asked for.
control_socket_disable = True

# nginx logs the requests. STATSAPI_ACCESS_LOG=on writes our own access log; Gunicorn's lacks request and key ids.
accesslog = None
logger_class = "statsapi.server.logger.Logger"

# The longest requests have a list of series in the query. nginx's header buffers have 8 KiB too.
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190

# By default Gunicorn trusts the headers X-Forwarded-Proto, SCRIPT_NAME and PATH_INFO from loopback and any Unix socket,
# which includes clients without a proxy in between. Only STATSAPI_TRUSTED_PROXIES says which proxies are trusted.
# SCRIPT_NAME of the environment becomes STATSAPI_PATH_PREFIX, as Gunicorn would answer 500 to every path outside of it,
# health checks included.
os.environ.setdefault("STATSAPI_PATH_PREFIX", os.environ.pop("SCRIPT_NAME", ""))
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

on_starting = hooks.on_starting
nworkers_changed = hooks.nworkers_changed
on_reload = hooks.on_reload
pre_fork = hooks.pre_fork
post_fork = hooks.post_fork
post_worker_init = hooks.post_worker_init
worker_exit = hooks.worker_exit
child_exit = hooks.child_exit
on_exit = hooks.on_exit
