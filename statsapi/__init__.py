"""statsapi: exact rolling-window statistics over timestamped events. Imports point down this list, never up.

cli/            what people type: `statsapi serve`, `stats`, `journal` …;  the health check of containers
client/         what other programs import to record and ask; it needs nothing below
server/         Gunicorn's side: its configuration, the worker class, the hooks
app             create_app(): the wiring
api/            Flask blueprints and marshmallow schemas: HTTP <-> model;  decoding/: bodies -> columns of events
shortcuts/      where a request goes a shorter way than Gunicorn, Flask and Werkzeug take
service/        record, ask, keep house: the order of steps;  the view that follows the journal
exposition      what Prometheus scrapes
metrics         counters that all workers of a machine share
routes          the one table of endpoints
tokens          JSON Web Tokens
keys            API keys
config          every setting
setting_kinds   the kinds of values that settings have
engine/         numbers and state: exact sums, summaries, sketches, timelines, the store behind its one lock
journal/        the durable order of records: the truth;  SQLite, Redis, PostgreSQL, memory
clocks          which time to believe
times           timestamps and durations as people write them
naming/         names of series, their tags, and patterns that choose some
machine         cores and memory
model           the values that pass between all of these
errors          what can go wrong, and what is told of it

dashboard/ holds the files of the live page; nothing is imported from it.
"""

__version__ = "0.1.0"
