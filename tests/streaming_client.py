"""A program that records without a pause until it is killed: `URL SPOOL FIRST ACKNOWLEDGED`.

It records FIRST, FIRST + 1, … by a sender with a spool, and writes each number to the file ACKNOWLEDGED once record()
has returned.
"""

from __future__ import annotations

import itertools
import os
import sys

from statsapi.client import Client

if __name__ == "__main__":
    url, spool, first, path = sys.argv[1:]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sender = Client(url).buffered(spool=spool, flush_s=0.02, batch_events=50, on_problem=print)
    for number in itertools.count(int(first)):
        sender.record(number)
        os.write(file, b"%d\n" % number)
