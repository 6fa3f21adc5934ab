# ruff: noqa: E501 (a line a body)
"""What the dearest known bodies of each form cost a real worker.

    python -m benchmarks.hostile [words of the names and queries to run]

For each: the processor's time it took, the worker's peak memory as a multiple of the body's size (unpacked), how long
/healthz waited at the longest meanwhile, the answer's status and size. Within the limits no body may take 1 s, 8 times
its size (32 MiB for those below 4 MiB; some that name 100,000 series take more), 50 ms of the interpreter, or bring
back 1 MiB. The peak has in it what stays held afterwards, some 180 bytes for each new series. By that much
(`statsapi_store_bytes`) it may exceed the bound: it is data. A question about 100,000 series may take more (docs/api.md
says how much). The wait is longer than the interpreter lock is held: it includes both requests' own processing, and
other users of the machine. What the requests for /healthz took of the processor's time (a tenth of it) is not in it:
that is measured alone first.
"""

from __future__ import annotations

import gzip
import http.client
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from tests.servers import Server, gunicorn_server

MIB: Final = 1 << 20
MOST: Final = 16 * MIB
JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"

EVENT: Final = b'{"timestamp":"2025-11-21T07:45:00Z","value":1.5}'
TAGS: Final = b'{%%s,"tags":{%s}}' % b",".join(b'"k%d":"v"' % i for i in range(200_000))


class Hostile(NamedTuple):
    name: str
    body: Callable[[], bytes]
    media_type: str = JSON
    path: str = "/events"
    packed: bool = False
    anew: bool = False  # it brings many new series: sent to a worker that holds none yet
    again: bool = False  # measured when it is sent a second time, with all series known


def full(piece: bytes, *, head: bytes = b"", tail: bytes = b"", size: int = MOST) -> Callable[[], bytes]:
    """The piece as often as it fits."""
    return lambda: head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


def joined(item: bytes, count: int, *, head: bytes = b"[", tail: bytes = b"]", by: bytes = b",") -> Callable[[], bytes]:
    return lambda: (head + by.join([item] * count) + tail)[:MOST]


def numbered(form: str, count: int, *, head: str = "[", tail: str = "]", by: str = ",") -> Callable[[], bytes]:
    """Items that differ, so that nothing made of them can be shared."""
    return lambda: (head + by.join(form % i for i in range(count)) + tail).encode()


def columns(times: bytes, values: bytes, count: int) -> Callable[[], bytes]:
    return lambda: b'{"timestamp":[%s],"value":[%s]}' % (b",".join([times] * count), b",".join([values] * count))


N: Final = 100_000

MARKS: Final = "\u0327\u0301"  # combining marks; in this order normalizing has to sort them
LETTER: Final = "a" + MARKS * 15  # with the most marks that a name may have behind one letter
_TAGS_20: Final = b"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,x"
PUSH: Final = "/metrics/job/x"
TEXT, OPENMETRICS = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"

BODIES: Final = (
    # one event
    Hostile("one event of 16 MiB", numbered('"%07x":1', 1_500_000, head="{", tail="}"), path="/event"),
    Hostile("one event of 64 KiB of keys", numbered('"%x":0', 7_000, head="{", tail="}"), path="/event"),
    Hostile("one event of 64 KiB of lists", joined(b"[]", 21_000, head=b'{"value":[', tail=b"]}"), path="/event"),
    Hostile("one event, a value of 64 KiB", full(b"1", head=b'{"value":"', tail=b'"}', size=65_000), path="/event"),
    Hostile("one event, a time of 64 KiB", full(b"1", head=b'{"timestamp":"', tail=b'"}', size=65_000), path="/event"),
    Hostile("one event, a bomb", full(b" "), path="/event", packed=True),
    # JSON arrays
    Hostile("array of empty lists", full(b"[],", head=b"[", tail=b"1]")),
    Hostile("array of empty objects", full(b"{},", head=b"[", tail=b"1]")),
    Hostile("array of 100,000 empty lists", joined(b"[]", N)),
    Hostile("array of 100,000 empty objects", joined(b"{}", N)),
    Hostile("array of 100,000 events without a value", joined(b'{"timestamp":1}', N)),
    Hostile("array of commas", full(b",", head=b"[", tail=b"]")),
    Hostile("array of digits", full(b"1", head=b"[", tail=b"]")),
    Hostile("array of brackets", full(b"[")),
    Hostile("array of quotes", full(b'"', head=b"[", tail=b"]")),
    Hostile("array of backslashes", full(b"\\", head=b'["', tail=b'"]')),
    Hostile("array of blanks", full(b" ", head=b"[", tail=b"]")),
    Hostile("array of 256 objects of 64 KiB", joined(b'{"a":0,%s}' % b",".join(b'"%x":0' % i for i in range(7_000)), 250)),
    Hostile("array of 256 lists of 64 KiB", joined(b"[%s]" % b",".join([b"[]"] * 21_000), 250)),
    Hostile("array of 100,000 objects of 160 bytes", joined(b'{"timestamp":1,"value":{%s}}' % b",".join(b'"%02x":[]' % i for i in range(14)), N)),
    Hostile("array of events with keys in escapes", joined(b'{"\\u0074\\u0069\\u006d\\u0065\\u0073\\u0074\\u0061\\u006d\\u0070":1,"value":1,"a":1}', N)),
    Hostile("array of events with a key often", joined(b'{%s"value":[]}' % (b'"timestamp":1,' * 10), N)),
    Hostile("array of 100,000 times that are none", joined(b'{"timestamp":"2025-11-21T07:45:00 at the latest","value":1}', N)),
    Hostile("array of 100,000 times of 150 letters", joined(b'{"timestamp":"%s","value":1}' % (b"2025-11-21T07:45:00." + b"1" * 110), N)),
    Hostile("array of 100,000 RFC 2822 times", joined(b'{"timestamp":"Fri, 21 Nov 2025 07:45:00 +0100","value":1}', N)),
    Hostile("array of 100,000 week dates", joined(b'{"timestamp":"2025-W47-5T07:45:00.123","value":1}', N)),
    Hostile("array of 100,000 different week dates", numbered('{"timestamp":"2025-W47-5T07:45:00.%06d","value":1}', N)),
    Hostile("array of 100,000 different wrong times", numbered('{"timestamp":"%06d o\'clock on 2025-11-21","value":1}', N)),
    Hostile("array of 100,000 different RFC 2822 times", numbered('{"timestamp":"Fri, 21 Nov 2025 07:45:00 +0%03d","value":1}', N)),
    Hostile("array of 100,000 different times with zones", numbered('{"timestamp":"2025-11-21T07:45:00.%06d+01:00[Europe/Paris]","value":1}', N)),
    Hostile("array of 99,000 times as Go prints them", numbered('{"timestamp":"2025-11-21 07:45:00.%09d +0100 CET m=+0.1","value":"  1_1"}', 99_000)),
    Hostile("array of 99,000 of Go's times, the same", numbered('{"timestamp":"2025-11-21 07:45:00.111111111 +0100 CET m=+0.1","value":"  1_%d"}', 99_000)),
    Hostile("array of 99,000 new series beyond ASCII", numbered('{"timestamp":1,"value":1,"series":"n%06d' + "\\u00e9" * 15 + '"}', 99_000), anew=True),
    Hostile("array of 99,000 new series of 30 emoji", numbered('{"timestamp":1,"value":1,"series":"%d' + "\U0001f600" * 30 + '"}', 99_000), anew=True),
    Hostile("array of 90,000 new series with dedup", lambda: numbered(f'{{"timestamp":{time.time():.0f},"value":1,"series":"d%d"}}', 90_000)(), path="/events?dedup=true", anew=True),
    Hostile("array of 90,000 known series", lambda: numbered(f'{{"timestamp":{time.time():.0f},"value":1,"series":"d%d"}}', 90_000)(), anew=True, again=True),
    Hostile("array of 90,000 known series with dedup", lambda: numbered(f'{{"timestamp":{time.time():.0f},"value":1,"series":"d%d"}}', 90_000)(), path="/events?dedup=true", anew=True, again=True),
    Hostile("array of 50,000 new series of two events with dedup", lambda: ("[" + ",".join(f'{{"timestamp":{int(time.time())},"value":{k},"series":"d{i}"}}' for i in range(50_000) for k in (1, 2)) + "]").encode(), path="/events?dedup=true", anew=True),
    Hostile("array of 33,000 new series of 6 tags", numbered('{"timestamp":1,"value":1,"series":"m","tags":{"\u00e4":%d,"\u00f6":"\u0344","b":true,"d":"y","e":"z","f":1}}', 33_000), anew=True),
    Hostile("array of 100,000 times as text of digits", numbered('{"timestamp":"17637111%05d","value":1}', N)),
    Hostile("array of values of 16,000 digits", joined(b'{"timestamp":1,"value":"%s"}' % (b"1" * 16_000), 1040)),
    Hostile("array of 100,000 values in words", joined(b'{"timestamp":1,"value":"a value of one hundred and twenty letters, which is not a number, however long one looks at it, it is not"}', N)),
    Hostile("array of names beyond ASCII", joined('{"timestamp":1,"value":1,"series":"{}"}'.replace("{}", "\U0001f600" * 30).encode(), N)),
    Hostile("array of 100,000 series", numbered('{"timestamp":1,"value":1,"series":"a%d"}', N), anew=True),
    Hostile("array of 100,001 events", joined(EVENT, N + 1)),
    Hostile("array of 100,000 events", joined(EVENT, N)),
    Hostile("array of 670,000 events", joined(b'{"timestamp":1,"value":1}', 640_000)),
    Hostile("array of events whose values are NaN", joined(b'{"timestamp":1,"value":NaN}', N)),
    Hostile("array of events, one NaN at the end", joined(b'{"timestamp":1,"value":1}', N - 1, tail=b',{"timestamp":1,"value":NaN}]')),
    Hostile("array of 100,000 values given twice", numbered('{"value":null,"timestamp":1,"value":1,"series":"a%d"}', N)),
    Hostile("array of 100,000 values given twice, and none", joined(b'{"value":null,"timestamp":1,"value":"none"}', N)),
    Hostile("array of 60,000 values given twice", joined(b'{"timestamp":1,"value":1,"value":1}', 60_000)),
    Hostile("array of 100,000 names in escapes, with commas", joined(b'{"\\u0074imestamp":1,"value":1,"series":"\\u002c,"}', N)),
    Hostile("array of 100,000 values with commas", joined(b'{"timestamp":1,"value":"1,5"}', N)),
    Hostile("array of 20,000 times with zones", numbered('{"timestamp":"2025-11-21T07:45:00.%06d+01:00[Europe/Paris]","value":1}', 20_000)),
    Hostile("array of 20,000 wrong times", numbered('{"timestamp":"2025-11-21T07:45:00.%06d at the latest","value":1}', 20_000)),
    # documents
    Hostile("object of 1.5 million keys", numbered('"%07x":1', 1_500_000, head="{", tail="}")),
    Hostile("object of 10,000 keys of 1.6 KB", numbered('"%01600d":1', 9_900, head="{", tail="}")),
    Hostile("object with a key of 16 MiB", full(b"k", head=b'{"', tail=b'":1}')),
    Hostile("events of empty lists", full(b"[],", head=b'{"events":[', tail=b"1]}")),
    Hostile("columns of ones", columns(b"1", b"1", 4 * MIB)),
    Hostile("columns of 100,000 lists", columns(b"[]", b"{}", N)),
    Hostile("columns of 100,000 words", columns(b'"soon"', b'"later"', N)),
    Hostile("columns of nested lists", lambda: b'{"timestamp":[%s],"value":[1]}' % (b"[" * 90 + b"]" * 90)),
    Hostile("columns, one list of 16 MiB in them", full(b"[],", head=b'{"value":[1],"timestamp":[[', tail=b"1]]}")),
    Hostile("columns with a series of 60 KiB", lambda: b'{"timestamp":[%s],"value":[%s],"series":"%s"}' % (b",".join([b"[]"] * N), b",".join([b"1"] * N), b"s" * 60_000)),
    Hostile("columns of 200,000 tags", lambda: TAGS % b'"timestamp":[1],"value":[1]'),
    Hostile("columns of 16 MiB of tags", full(b"k", head=b'{"timestamp":[1],"value":[1],"tags":{"a":"', tail=b'"}}')),
    Hostile("tags: one event of 200,000", lambda: TAGS % b'"timestamp":1,"value":1', path="/event"),
    Hostile("tags: array, one event of 200,000", lambda: b"[%s]" % (TAGS % b'"timestamp":1,"value":1')),
    Hostile("tags: array, one event of 200,000 among others", lambda: b"[%s,%s]" % (EVENT, TAGS % b'"timestamp":1,"value":1')),
    Hostile("tags: array, 280 events of 64 KiB", joined(b'{"timestamp":1,"value":1,"tags":{%s}}' % b",".join(b'"%x":1' % i for i in range(6_800)), 280)),
    Hostile("tags: events, one of 200,000", lambda: b'{"events":[%s]}' % (TAGS % b'"timestamp":1,"value":1')),
    Hostile("tags: NDJSON, one line of 200,000", lambda: TAGS % b'"timestamp":1,"value":1' + b"\n", NDJSON),
    Hostile("tags: NDJSON, 280 lines of 64 KiB", joined(b'{"timestamp":1,"value":1,"tags":{%s}}' % b",".join(b'"%x":1' % i for i in range(6_800)), 280, head=b"", tail=b"", by=b"\n"), NDJSON),
    Hostile("tags: mapped NDJSON, one line of 200,000", lambda: TAGS % b'"t":1,"v":1' + b"\n", NDJSON, path="/events?timestamp=t&value=v&tags=tags"),
    Hostile("tags: mapped NDJSON, 280 lines of 64 KiB", joined(b'{"t":1,"v":1,"tags":{%s}}' % b",".join(b'"%x":1' % i for i in range(6_800)), 280, head=b"", tail=b"", by=b"\n"), NDJSON, path="/events?timestamp=t&value=v&tags=tags"),
    Hostile("depth", full(b'{"a":')),
    # NDJSON
    Hostile("NDJSON: one line of empty lists", full(b"[],", head=b"[", tail=b"1]"), NDJSON),
    Hostile("NDJSON: lines of 64 KiB of empty lists", joined(b"[%s]" % b",".join([b"[]"] * 21_000), 250, head=b"", tail=b"", by=b"\n"), NDJSON),
    Hostile("NDJSON: 16 MiB of newlines", full(b"\n"), NDJSON),
    Hostile("NDJSON: 200,000 lines of blanks", joined(b" " * 80, 199_000, head=b"", tail=b"", by=b"\n"), NDJSON),
    Hostile("NDJSON: 100,000 lines that are no JSON", joined(b"no JSON", N, head=b"", tail=b"", by=b"\n"), NDJSON),
    Hostile("NDJSON: 100,000 lines of 160 bytes", joined(b'{"timestamp":1,"value":{%s}}' % b",".join(b'"%02x":[]' % i for i in range(14)), N, head=b"", tail=b"", by=b"\n"), NDJSON),
    Hostile("NDJSON: many events in a line", joined(b"{%s}" % (b'"timestamp":1,"value":1}{' * 2000 + b'"timestamp":1,"value":1'), 300, head=b"", tail=b"", by=b"\n"), NDJSON),
    Hostile("NDJSON: a key 4,000 times in a line", joined(b'{%s"value":1}' % (b'"timestamp":1,' * 4000), 290, head=b"", tail=b"", by=b"\n"), NDJSON),
    Hostile("NDJSON, mapped: 60,000 values given twice", joined(b'{"t":1,"v":1,"v":1}', 60_000, head=b"", tail=b"", by=b"\n"), NDJSON, path="/events?timestamp=t&value=v"),
    Hostile("NDJSON, mapped: 100,000 lines of escapes", joined(b'{"t":1,"v":1,"x":"\\u00e4"}\n{"t":1,"v":1}', N // 2, head=b"", tail=b"", by=b"\n"), NDJSON, path="/events?timestamp=t&value=v"),
    # CSV
    Hostile("CSV: a row of 8 million columns", full(b"1,", head=b"timestamp,value\n"), CSV),
    Hostile("CSV: a header of 16 MiB", full(b"timestamp,"), CSV),
    Hostile("CSV: a header of 64 KiB", full(b"a,", tail=b"\n1,2\n", size=65_000), CSV),
    Hostile("CSV: a header of 64 KiB of value", full(b"value,", tail=b"\n1,2\n", size=65_000), CSV),
    Hostile("CSV: quotes", full(b'"', head=b"timestamp,value\n"), CSV),
    Hostile("CSV: lines of quotes", full(b'""\n', head=b"timestamp,value\n"), CSV),
    Hostile("CSV: 200,000 lines of quotes", joined(b'""' * 40, 195_000, head=b"timestamp,value\n", tail=b"", by=b"\n"), CSV),
    Hostile("CSV: a quoted field of lines", full(b"a\n", head=b'timestamp,value\n"'), CSV),
    Hostile("CSV: 16 MiB of newlines", full(b"\n"), CSV),
    Hostile("CSV: 16 MiB of carriage returns", full(b"\r"), CSV),
    Hostile("CSV: a row of digits", full(b"1", head=b"timestamp,value\n1,"), CSV),
    Hostile("CSV: 100,000 short rows", joined(b"1,2", N, head=b"timestamp,value\n", tail=b"", by=b"\n"), CSV),
    Hostile("CSV: 100,000 ragged rows", joined(b"1,2,3" * 20, N, head=b"timestamp,value\n", tail=b"", by=b"\n"), CSV),
    Hostile("CSV: 99,999 series of 16 tags", lambda: b"timestamp,value,series\n" + b"".join(b"1,1,m;z=%d;y=%d;b=3;a=4;c=5;d=6;e=7;f=8;g=9;h=10;i=11;j=12;k=13;l=14;n=15\n" % (i, i) for i in range(99_999)), CSV),
    Hostile("CSV: 256 rows of 30,000 columns", joined(b"1," * 30_000, 270, head=b"timestamp,value\n", tail=b"", by=b"\n"), CSV),
    Hostile("CSV: 256 quoted rows of 30,000 columns", joined(b'"1",' * 15_000, 270, head=b"timestamp,value\n", tail=b"", by=b"\n"), CSV),
    Hostile("CSV: 100,000 rows beyond ASCII", joined(b"1,2," + "\U0001f600".encode() + b"a" * 150, N, head=b"timestamp,value,series\n", tail=b"", by=b"\n"), CSV),
    Hostile("CSV: 1,000,000 short rows", joined(b"1,2", 1_000_000, head=b"timestamp,value\n", tail=b"", by=b"\n"), CSV),
    Hostile("CSV: not UTF-8 at the end", full(b"1,2\n", head=b"timestamp,value\n", tail=b"\xff"), CSV),
    # Influx line protocol
    Hostile("lines: 16 MiB of newlines", full(b"\n"), path="/write"),
    Hostile("lines: 16 MiB of blanks", full(b" "), path="/write"),
    Hostile("lines: 16 MiB of backslashes", full(b"\\"), path="/write"),
    Hostile("lines: 16 MiB of equals", full(b"="), path="/write"),
    Hostile("lines: 16 MiB of a string", full(b"\n", head=b'm s="', tail=b'"'), path="/write"),
    Hostile("lines: 16 MiB of fields", full(b"a=1,", head=b"m "), path="/write"),
    Hostile("lines: 250 of 64 KiB of fields", joined(b"m %s" % b",".join(b"%x=1" % i for i in range(9_000)), 250, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 250 of 64 KiB of strings", joined(b'm %s,f=1' % b",".join(b'%x=""' % i for i in range(7_500)), 250, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 250 of 64 KiB of tags", joined(b"m,%s f=1" % b",".join(b"%x=1" % i for i in range(9_000)), 250, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 250 of 64 KiB of escapes", joined(b"m%s f=1" % (b"\\ " * 32_000), 250, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 250 values of 64 KiB of digits", joined(b"m f=" + b"1" * 65_000, 250, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 250 strings of line ends", joined(b'm f=1,s="' + b"\n" * 760 + b'"', 250, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 200,000 comments", joined(b"#" * 80, 199_000, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,000 points", joined(b"m,a=1 f=1 1763711100000000000", N, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,000 points of 100,000 series", numbered("m,a=%d f=1", N, head="", tail="", by="\n"), path="/write", anew=True),
    Hostile("lines: 100,000 points of 100,000 known series", numbered("m,a=%d f=1", N, head="", tail="", by="\n"), path="/write", anew=True, again=True),
    Hostile("lines: 100,000 points of 100,000 fields", numbered("m f%d=1", N, head="", tail="", by="\n"), path="/write", anew=True),
    Hostile("lines: 90,000 new series beyond ASCII", numbered("m\u00e9,a=\u00fc%d f=1", 90_000, head="", tail="", by="\n"), path="/write", anew=True),
    Hostile("lines: 100,000 known series beyond ASCII", numbered("m\u00e9,a=\u00fc%d f=1", N, head="", tail="", by="\n"), path="/write", anew=True, again=True),
    Hostile("lines: 100,000 known series beyond the BMP", numbered("m,a=\U0001f600%d f=1", N, head="", tail="", by="\n"), path="/write", anew=True, again=True),
    Hostile("lines: 50,000 heads, marks apart, two fields", lambda: "\n".join(f"e\u0301,e\u0301a=e\u0301{i},e\u0301b=e\u0301{i} e\u0301f=1,e\u0301g=2" for i in range(50_000)).encode(), path="/write", anew=True),
    Hostile("lines: 99,999 with tabs", joined(b"m\tf=1", N - 1, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 99,999 strings without an end", joined(b'm f="a', N - 1, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,000 times before 1", numbered("m f=1 -1%018d", N, head="", tail="", by="\n"), path="/write?precision=s"),
    Hostile("lines: 33,000 of nan, inf and hex", joined(b"m f=nan,g=inf,h=0x1p3", 33_000, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,000 escaped points", numbered("m\\ m,a=%d f=1", N, head="", tail="", by="\n"), path="/write"),
    Hostile("lines: 100,000 with a string", joined(b'm,a=1 f=1,s="x" 1763711100000000000', N, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,000 that are no points", joined(b"no point", N, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,000 booleans", joined(b"m f=true", N, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,000 tags twice", numbered("m,a=%d,a=x f=1", N, head="", tail="", by="\n"), path="/write"),
    Hostile("lines: 33,300 series of 6 tags, thrice", lambda: b"\n".join(b"\xc3\xa9,%s f=1" % b",".join(b"k%d=v%d" % (k, i % 33_300) for k in range(6)) for i in range(N)), path="/write", anew=True),
    Hostile("lines: 33,300 fields with 6 tags, thrice", lambda: b"\n".join(b"e\xcc\x81,k0=%d,k1=v,k2=v,k3=v,k4=v,k5=v " % (i % 1282) + b",".join(b"f%d=1" % k for k in range(26)) for i in range(3846)), path="/write", anew=True),
    Hostile("lines: 100,000 names too long", joined(b"m,a=" + b"x" * 150 + b",b=" + b"y" * 50 + b" f=1", 77_000, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,000 beyond ASCII", joined("m,a={} f=1".replace("{}", "\U0001f600" * 30).encode(), N, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: 100,001 points", joined(b"m f=1", N + 1, head=b"", tail=b"", by=b"\n"), path="/write"),
    Hostile("lines: not UTF-8 at the end", full(b"m f=1\n", tail=b"\xff", size=1_000_000), path="/write"),
    # names with combining marks
    Hostile("marks: one event, a name of 64 KiB", lambda: f'{{"timestamp":1,"value":1,"series":"a{MARKS * 16_000}"}}'.encode(), path="/event"),
    Hostile("marks: one event, a tag of 64 KiB", lambda: f'{{"timestamp":1,"value":1,"tags":{{"a":"{MARKS * 16_000}"}}}}'.encode(), path="/event"),
    Hostile("marks: one event, a tag's key of 64 KiB", lambda: f'{{"timestamp":1,"value":1,"tags":{{"{MARKS * 16_000}":"a"}}}}'.encode(), path="/event"),
    Hostile("marks: columns, a series of 64 KiB", lambda: f'{{"timestamp":[1],"value":[1],"series":"a{MARKS * 16_000}"}}'.encode()),
    Hostile("marks: NDJSON, 250 lines of 64 KiB", lambda: "".join(f'{{"timestamp":1,"value":1,"series":"{i}a{MARKS * 16_000}"}}\n' for i in range(250)).encode(), NDJSON),
    Hostile("marks: CSV, 250 rows of 64 KiB", lambda: ("timestamp,value,series\n" + "".join(f"1,1,{i}a{MARKS * 16_000}\n" for i in range(250))).encode(), CSV),
    Hostile("marks: lines, 3,300 tags of 2,400", lambda: "".join(f"m,a={MARKS * 1199}{i} f=1\n" for i in range(3300)).encode(), path="/write"),
    Hostile("marks: 100,000 names of 31 characters", numbered('{"timestamp":1,"value":1,"series":"' + LETTER + '%d"}', N), anew=True),
    Hostile("marks: 35,000 names of 190 characters", numbered('{"timestamp":1,"value":1,"series":"' + LETTER * 6 + '%d"}', 35_000), anew=True),
    Hostile("marks: 10,000 names of 780 characters", numbered('{"timestamp":1,"value":1,"series":"' + LETTER * 25 + '%d"}', 10_000)),
    Hostile("marks: 10,000 names of 800 that become 200", numbered('{"timestamp":1,"value":1,"series":"' + "\u03b1\u0345\u0300\u0313" * 195 + '%d"}', 10_000)),
    Hostile("marks: 10,000 names of 780 with one beyond the BMP", numbered('{"timestamp":1,"value":1,"series":"\U0001f600' + LETTER * 25 + '%d"}', 10_000)),
    Hostile("marks: push of 280 labels of 1,800", numbered('m{a="b' + MARKS * 900 + '%d"} 1', 280, head="", tail="\n", by="\n"), TEXT, PUSH),
    Hostile("marks: push of 9,000 labels of 31", numbered('m{a="b' + LETTER + '%d"} 1', 9_000, head="", tail="\n", by="\n"), TEXT, PUSH),
    # Prometheus' formats, pushed
    Hostile("push: 50,000 samples", numbered('m{a="%d"} 1', 50_000, head="", tail="\n", by="\n"), TEXT, PUSH),
    Hostile("push: 50,000 samples of OpenMetrics", numbered('m{a="%d"} 1', 50_000, head="", tail="\n# EOF\n", by="\n"), OPENMETRICS, PUSH),
    Hostile("push: 15,000 samples of a label, the most", numbered('m{a="%d"} 1', 15_000, head="", tail="\n", by="\n"), TEXT, PUSH),
    Hostile("push: 15,000 samples of OpenMetrics", numbered('m{a="%d"} 1', 15_000, head="", tail="\n# EOF\n", by="\n"), OPENMETRICS, PUSH),
    Hostile("push: 30,000 samples, the most", numbered("m%d 1", 30_000, head="", tail="\n", by="\n"), TEXT, PUSH),
    Hostile("push: 30,000 samples, one without an end", numbered("m%d 1", 29_999, head="", tail="\nx{\n", by="\n"), TEXT, PUSH),
    Hostile("push: 30,000 types", numbered("# TYPE m%d gauge", 30_000, head="", tail="\n", by="\n"), TEXT, PUSH),
    Hostile("push: 55,000 types", numbered("# TYPE m%d gauge", 55_000, head="", tail="\n", by="\n"), TEXT, PUSH),
    Hostile("push: 55,000 types of OpenMetrics", numbered("# TYPE m%d gauge", 55_000, head="", tail="\n# EOF\n", by="\n"), OPENMETRICS, PUSH),
    Hostile("push: 340 lines of 250 labels", lambda: b"".join(b"m{%s} 1\n" % b",".join(b'l%d="%d"' % (i, j) for i in range(250)) for j in range(340)), TEXT, PUSH),
    Hostile("push: escapes", lambda: b'm{a="%s"} 1\n' % (b"\\n" * 2000) * 250, TEXT, PUSH),
    Hostile("push: brackets", full(b"{", head=b"m", size=MIB), TEXT, PUSH),
    Hostile("push: comments", full(b"# HELP a b\n", size=MIB), TEXT, PUSH),
    # tables with a mapping
    Hostile("table: 100,000 days of a zone", lambda: b"t,v\n" + b"".join(b"%04d-%02d-%02d 02:30,1\n" % (i // 360 % 9000 + 1, i % 12 + 1, i // 12 % 28 + 1) for i in range(99_999)), CSV, "/events?timestamp=t&value=v&timezone=Europe/Berlin"),
    Hostile("table: 40,000 days of a zone with fold=later", lambda: b"t,v\n" + b"".join(b"%04d-%02d-%02d 02:30,1\n" % (i // 360 % 9000 + 1, i % 12 + 1, i // 12 % 28 + 1) for i in range(39_999)), CSV, "/events?timestamp=t&value=v&timezone=Europe/Berlin&fold=later"),
    Hostile("table: 100,000 different times in a format", lambda: b"t,v\n" + b"".join(b"21.%02d.2025 07:%02d:%02d.%06d,1\n" % (i % 12 + 1, i % 60, i % 59, i) for i in range(99_999)), CSV, "/events?timestamp=t&value=v&time_format=%25d.%25m.%25Y+%25H:%25M:%25S.%25f"),
    Hostile("table: 99,000 rows of 20 short tags", lambda: b"t,v,%s\n" % _TAGS_20 + b"".join(b"1,1,%s\n" % b",".join(b"%d" % (i * j % 99) for j in range(20)) for i in range(99_000)), CSV, "/events?timestamp=t&value=v&tags=" + _TAGS_20.decode()),
    Hostile("table: 99,000 rows of 20 different tags", lambda: b"t,v,%s\n" % _TAGS_20 + b"".join(b"1,1,%s\n" % b",".join(b"%d" % (i * j) for j in range(20)) for i in range(99_000)), CSV, "/events?timestamp=t&value=v&tags=" + _TAGS_20.decode()),
    Hostile("table: 99,000 rows of 20 short tags in quotes", lambda: b'"t",v,%s\n' % _TAGS_20 + b"".join(b"1,1,%s\n" % b",".join(b"%d" % (i * j % 99) for j in range(20)) for i in range(99_000)), CSV, "/events?timestamp=t&value=v&tags=" + _TAGS_20.decode()),
    Hostile("table: NDJSON, 60,000 lines of 20 tags", lambda: b"".join(b'{"t":1,"v":1,%s}\n' % b",".join(b'"%s":"%d"' % (a, i * j % 99) for j, a in enumerate(_TAGS_20.split(b","))) for i in range(60_000)), NDJSON, "/events?timestamp=t&value=v&tags=" + _TAGS_20.decode()),
    # gzip
    Hostile("gzip: 33 MB of a field name", full(b"k", head=b'[{"', tail=b'":1}]'), packed=True),
    Hostile("gzip: empty lists", full(b"[],", head=b"[", tail=b"1]"), packed=True),
    Hostile("gzip: a bomb of 1 GiB", lambda: gzip.compress(bytes(64 * MIB)) * 16, path="/events", packed=False),
)  # fmt: skip

QUERIES: Final = (
    "/statistics?percentiles=" + ",".join(f"{i / 100:.2f}" for i in range(1200)),
    "/statistics?" + "&".join(f"{i}" for i in range(1600)),
    "/statistics?series=" + "a" * 8000,
    "/statistics?start=" + "9" * 8000,
    "/statistics?windows=" + "1m," * 2600,
    "/events?cursor=" + "A" * 8000,
    "/" + "%2e/" * 2000,
    "/statistics?match=*" + "e*" * 90,
    "/statistics?match=*&by=series&order=-last&stats=all&limit=10",
    "/statistics?match=*&by=a&order=-p99.9&stats=all&limit=10",
    "/check?match=*&by=series&require=" + ",".join(["count>0"] * 50),
    "/tags/a?limit=10000",
)


# One body of 100,000 series is not refused, and does not find the series of others: the cyclic collector looks through
# these too.
ENV: Final = {"STATSAPI_JOURNAL": "memory://", "STATSAPI_MAX_SERIES": "100001"}


class Meter:
    """Asks /healthz every few ms on a connection of its own, and knows the longest wait."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self.longest_s = 0.0
        self.asked = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._server.client() as client:
            while not self._stop.is_set():
                began = time.perf_counter()
                client.request("GET", "/healthz")
                self.asked += 1
                self.longest_s = max(self.longest_s, time.perf_counter() - began)
                self._stop.wait(0.002)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def peak_bytes(pid: int, *, reset: bool = False) -> int:
    """The most memory that the process has held since the last reset."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def send(server: Server, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, int]:
    """The status and size of the answer."""
    sock = server.connect(120)
    with sock:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with suppress(OSError):  # refused before it was read
            sock.sendall(head.encode() + b"\r\n" + body)
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.status, len(response.read())


def cost_of_asking(server: Server) -> float:
    """Seconds of the processor's time that the Meter costs each time it asks."""
    before_s = server.cpu_seconds()
    with Meter(server) as meter:
        time.sleep(2)
    return (server.cpu_seconds() - before_s) / meter.asked


def data_bytes(server: Server) -> int:
    """What the worker's store says that its events and series take."""
    with server.connect() as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        response = http.client.HTTPResponse(sock)
        response.begin()
        lines = response.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("statsapi_store_bytes"))


def measure(server: Server, asking_s: float, name: str, size: int, act: Callable[[], tuple[int, int]]) -> None:
    (pid,) = server.workers()
    before_data_bytes = data_bytes(server)
    before_bytes = peak_bytes(pid, reset=True)
    before_s = server.cpu_seconds()
    with Meter(server) as meter:
        began = time.perf_counter()
        status, answered = act()
        took_s = time.perf_counter() - began
    cpu_s = server.cpu_seconds() - before_s - asking_s * meter.asked
    held = peak_bytes(pid) - before_bytes
    new_data_bytes = data_bytes(server) - before_data_bytes
    dear = cpu_s > 1 or held - new_data_bytes > max(8 * size, 32 * MIB) or answered > MIB or server.workers() != {pid}
    print(
        f"{name:46} {size / MIB:6.2f} {took_s:7.2f} {cpu_s:6.2f} {held / MIB:7.1f} {held / max(size, 1):6.1f} "
        f"{meter.longest_s * 1e3:7.0f} {status} {answered:8}{'  <-- beyond the bounds' if dear else ''}",
        flush=True,
    )


def cases(wanted: list[str]) -> Iterator[Hostile]:
    return (hostile for hostile in BODIES if not wanted or any(word in hostile.name for word in wanted))


@contextmanager
def worker() -> Iterator[tuple[Server, float]]:
    """A server with one worker that has seen each form, and what asking it for /healthz costs."""
    with (
        tempfile.TemporaryDirectory() as directory,
        gunicorn_server(Path(directory), workers=1, env=ENV) as server,
    ):
        server.request("POST", "/events", [{"timestamp": 1, "value": 1}])
        send(server, "POST", "/write", b"default value=1", {})
        yield server, cost_of_asking(server)


def measure_body(server: Server, asking_s: float, hostile: Hostile) -> None:
    body = hostile.body()
    headers = {"Content-Type": hostile.media_type}
    size = len(body)
    if hostile.again:
        send(server, "POST", hostile.path, body, headers)
    if hostile.packed or body[:2] == b"\x1f\x8b":
        body = gzip.compress(body) if hostile.packed else body
        headers["Content-Encoding"] = "gzip"
    measure(server, asking_s, hostile.name, size, lambda: send(server, "POST", hostile.path, body, headers))


def main(wanted: list[str]) -> None:
    print(f"{'':46} {'MiB':>6} {'s':>7} {'CPU s':>6} {'peak':>7} {'times':>6} {'/healthz ms':>7} {'':3} answer")
    some = list(cases(wanted))
    if shared := [hostile for hostile in some if not hostile.anew]:
        with worker() as (server, asking_s):
            for hostile in shared:
                measure_body(server, asking_s, hostile)
    for hostile in some:
        if hostile.anew:
            with worker() as (server, asking_s):
                measure_body(server, asking_s, hostile)
    if queries := [path for path in QUERIES if not wanted or any(word in path for word in wanted)]:
        with worker() as (server, asking_s):
            now_s = int(time.time())
            rows = "".join(f"{now_s - i % 1000},{i % 977},s{i:06};a={i % 50_000}\n" for i in range(99_000))
            body = f"timestamp,value,series\n{rows}".encode()
            for _ in range(3):
                send(server, "POST", "/events", body, {"Content-Type": CSV})
            for path in queries:
                measure(server, asking_s, path[:40] + "…", len(path), lambda: send(server, "GET", path, b"", {}))  # noqa: B023


if __name__ == "__main__":
    main(sys.argv[1:])
