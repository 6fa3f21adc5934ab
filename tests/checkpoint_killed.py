"""A process that compacts, and dies at a chosen instant: `python -m tests.checkpoint_killed PATH NOW_US AT`.

Before and after each statement that SQLite is given is an instant, and so is each row of several; SIGKILL comes at the
AT-th of them. When compaction comes to its end before, it says how many there were.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from typing import Any

from statsapi.config import Settings
from statsapi.journal import open_journal
from statsapi.service.service import Service
from tests.fakes import FakeClock


class Counting(sqlite3.Connection):
    left = 0

    def _instant(self) -> None:
        Counting.left -= 1
        if Counting.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self._instant()
        cursor = super().execute(*arguments)
        self._instant()
        return cursor

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        def each() -> Any:
            for row in rows:
                self._instant()
                yield row

        self._instant()
        cursor = super().executemany(sql, each())
        self._instant()
        return cursor


def main(path: str, now_us: str, at: str) -> None:
    clock = FakeClock(int(now_us))
    connect = sqlite3.connect
    sqlite3.connect = lambda *given, **options: connect(*given, factory=Counting, **options)  # type: ignore[assignment]
    journal = open_journal(f"sqlite:///{path}", clock_us=clock, create=False)
    service = Service(Settings(journal=f"sqlite:///{path}"), lambda: journal, clock, background=False)
    service.ask()
    Counting.left = int(at)
    service.view().compact()
    os.write(1, b"%d" % (int(at) - Counting.left))


if __name__ == "__main__":
    main(*sys.argv[1:])
