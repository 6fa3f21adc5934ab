"""statsapi: exact rolling-window statistics over timestamped events. Imports point down this list, never up. Each
folder says at its top what each of its files is.

cli/            what people type: `statsapi serve`, `stats`, `journal` …;  the health check of containers
client/         what other programs import to record and ask; it needs nothing below
server/         Gunicorn's side: its configuration, the worker class, the hooks, which core a worker runs on
app             create_app(): the wiring
api/            HTTP: routes, what they take and answer, every error;  decoding/: bodies -> columns of events
shortcuts/      where a request goes a shorter way than Gunicorn, Flask and Werkzeug take
service/        record, ask, keep house: the order of steps;  the view that follows the journal
exposition      what Prometheus scrapes: names of the metrics of what is held
metrics         counters that all workers of a machine share: names of the metrics of what is done
routes          the one table of endpoints
tokens          JSON Web Tokens
keys            API keys
config          every setting: name, default, meaning
setting_kinds   the kinds of values that settings have, and why one is refused
clocks          which time to believe
engine/         numbers and state: exact sums, summaries, sketches, timelines, the store behind its one lock
journal/        the durable order of records: the truth;  SQLite, Redis, PostgreSQL, memory
times           timestamps as people write them: which are read, why one is refused
naming/         names of series and tags: which are taken;  patterns that choose some
machine         cores and memory
durations       durations as people write them: which are read, why one is refused
redis_hosts     hosts, databases and certificates of a Redis, as URLs name them
model           the values that pass between all of these
errors          what can go wrong, and what is told of it

dashboard/ holds the files of the live page; nothing is imported from it.
"""

__version__ = "0.1.0"
