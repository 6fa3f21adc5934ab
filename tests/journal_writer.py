"""A process that appends: `python -m tests.journal_writer URL FSYNC SERIES COUNT`.

Says "ready", waits for a line, then appends the numbers 0, 1, 2 ... and says each once it was acknowledged.
"""

from __future__ import annotations

import os
import sys

from statsapi.journal import open_journal
from tests.journal_engines import event


def main(url: str, fsync: str, series: str, count: str) -> None:
    journal = open_journal(url, fsync=fsync)
    os.write(1, b"ready\n")
    sys.stdin.readline()
    for number in range(int(count)):
        journal.append(event(float(number), series))
        os.write(1, b"%d\n" % number)
    journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
