"""statsapi: exact rolling-window statistics over timestamped events. Imports point down this list, never up.

cli/        what people type: `statsapi serve`, `stats`, `journal` …;  the health check of containers
client/     what other programs import to record and ask; it needs nothing below
server/     Gunicorn's side: its configuration, the worker class, the hooks
app         create_app(): the wiring
api/        Flask blueprints and marshmallow schemas: HTTP <-> model;  decoding/: bodies -> columns of events
service/    record, ask, keep house: the order of steps;  the view that follows the journal
metrics     counters that all workers of a machine share
engine/     numbers and state: exact sums, summaries, sketches, timelines, the store behind its one lock
journal/    the durable order of records: the truth;  SQLite, Redis, memory
routes      the one table of endpoints
config      every setting;  keys: API keys;  clocks: which time to believe
naming/     names of series, their tags, and patterns that choose some
times       what reads a timestamp;  machine: cores and memory;  model, errors: what all share
"""

__version__ = "0.1.0"
