"""From the bytes of a body to columns of events: one reader for each form, the fast paths, and the schema that they
agree with. It refuses with a reason and a cure; what becomes of the events is decided elsewhere.

Five forms carry the same items: a JSON array, `{"events": […]}`, JSON columns, NDJSON and CSV. What a single event may
say is EventSchema's to decide, here too, but at 5-8 µs an item it would cost thirty times more than all the rest. So:

    body ── reader ──> Rows, columns as written ── numpy ──> columns ──> parts by series
                                   │                            ▲
                                   └── rows in doubt ── EventSchema, one by one: accepted, or named

A body whose rows are all written alike, as programs write them, is read from its bytes without an object for any row
(`plain`, `words`); where it is not wholly that, the readers above begin anew.

The fast way accepts only what the schema accepts, and yields the same bits. Whatever it is unsure of (a `24:00:00`, a
null, a name out of the alphabet) goes to the schema, row by row, so one odd row does not slow its ten thousand
neighbours. tests/unit/test_batches.py and test_plain.py hold them against each other; benchmarks/decoding.py measures
them.

forms                 the table of forms: decode, in any of them
judging               what all share: the schema for rows in doubt, parts by series
rows                  columns as they were written, and the limits of a body (items, lines, brackets)
json_reader           JSON: an array, {"events": […]}, columns
ndjson_reader         NDJSON
csv_reader            CSV: its columns, quotes and separators
plain                 bodies whose rows are all written alike
elements              where the elements of a JSON array lie
words                 numbers out of bytes
timestamps            a column of timestamps -> microseconds
mapping               which columns of a table make the events (the query of POST /events)
mapped                their events
local_times           times as a file has them
time_formats          in it: by a format
time_zones            in it: by the clock of a place
proposals             the mappings that a refusal proposes
guessed_columns       in it: which columns hold what
guessed_formats       in it: how times are written
table_head            in it: the first rows
cells                 in it: what a cell holds
line_protocol         Influx line protocol: plain lines by columns, the others one by one
line_columns          in it: plain lines -> columns
line_scanner          in it: any line -> its point, or why it holds none
line_series           in it: names of series
line_words            in it: timestamps and numbers, and what a precision means
exposition            Prometheus' formats, pushed
exposition_protobuf   the same in protobuf

A new form is one more reader, `read(body, max_events) -> Rows`, and one more line in `FORMS` (forms.py). Influx line
protocol has endpoints of its own, as the unit of its timestamps stands in the query: `decode_lines`.

Tables as people have them, CSV and NDJSON with other columns, decimal commas and local times, go another way: a
reader's `read_mapped` takes the columns that a ColumnMapping names (`mapping`), and `mapped` makes events of them.
"""

from __future__ import annotations

from statsapi.api.decoding.forms import (
    CSV_TYPE,
    JSON_TYPE,
    NDJSON_TYPES,
    Lines,
    decode,
    decode_lines,
    decode_one,
    proposed,
    with_query,
)
from statsapi.api.decoding.judging import Decoded, Sent

__all__ = [
    "CSV_TYPE",
    "JSON_TYPE",
    "NDJSON_TYPES",
    "Decoded",
    "Lines",
    "Sent",
    "decode",
    "decode_lines",
    "decode_one",
    "proposed",
    "with_query",
]
