"""statsapi: exact rolling-window statistics over timestamped events.

api/        Flask blueprints and marshmallow schemas: JSON <-> model
service     record / query / expire: the order of steps
journal/    the durable order of records: the truth
store       all timelines behind one threading.Lock: a view of the journal
timeline    one series: time-sorted numpy columns in chunks
summary     the mergeable exact aggregate;  exact: its integer sums
model, errors are leaves; config is read by app, which wires everything; serving is Gunicorn's side.
"""

__version__ = "0.1.0"
