"""Everything statsapi refuses, as one tree. Each error carries a stable `code` and data; its text is for people.

    StatsError
    ├── ConfigError            settings that cannot work, or a journal that cannot be used: raised at start
    │   └── JournalRefused     another program's file, a newer format, a directory that cannot be written
    │       ├── CopyRefused     the file that was named for a copy of it cannot be written
    │       └── JournalDamaged  its content is not what was written: a flipped bit, a lost sector, a missing record
    ├── InvalidRequest         the request breaks a rule; nothing was recorded
    ├── JournalUnavailable     the journal failed now: nothing was recorded, or (`outcome_unknown`) it may have been
    ├── OutOfMemory            this worker has too little memory for the request
    ├── ShuttingDown           this worker takes no new work
    ├── ViewNotReady           the replay had not caught up within the time that a reader waits
    │   └── ViewBroken         an exception in the middle of applying a record: the view starts afresh
    ├── StoreFull              a limit on what is kept was reached; nothing was recorded
    └── IdempotencyConflict    the key was used before with another request

HTTP status codes are not known here: `api/problems.py` maps each class to one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final

DAMAGE_ADVICE: Final = (
    "`statsapi journal check` says what can still be read; restore a backup, or copy the undamaged part with "
    "`statsapi journal salvage NEW`"
)


# This many characters of a client's name or value are repeated in an answer. Without a limit 16 KiB of gzip made an
# answer of 33 MB.
ECHO_MAX = 200


def echo(text: str) -> str:
    """A client's text as an answer may repeat it: cut at ECHO_MAX. Half a surrogate pair, which JSON can hold and UTF-8
    cannot, becomes its escape.
    """
    if len(text) > ECHO_MAX:
        text = text[:ECHO_MAX] + "…"
    return text.encode("utf-8", "backslashreplace").decode()


# Control characters, and marks that turn the direction of writing.
_CONTROL: Final = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "?"),
    ord("\t"): " ",
}


def one_line(text: str) -> str:
    """The text as one line that does nothing to a terminal or a log: a line end becomes a blank, any other control
    character a question mark. What a server or SQLite says may repeat what a damaged file holds. 0.1 µs where there is
    none.
    """
    if text.isprintable():
        return text
    return " ".join(line.strip() for line in text.splitlines()).translate(_CONTROL)


def why_repeated(words: Sequence[str], meanings: Sequence[Hashable]) -> str | None:
    """The reason why a list is refused in which two words mean the same, with the word to leave out; None where no two
    do. meanings: what each word stands for.
    """
    first: dict[Hashable, str] = {}
    for word, meaning in zip(words, meanings, strict=True):
        if meaning in first:
            same = "is given twice" if word == first[meaning] else f"is the same as {echo(first[meaning])!r}"
            return f"{echo(word)!r} {same}: leave one out"
        first[meaning] = word
    return None


class StatsError(Exception):
    """The root. `code` is stable: it is the last part of the problem's `type`. Its text is always one line."""

    code = "internal"

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(StatsError):
    """Settings that cannot work. `faults` holds one sentence for each fault."""

    code = "config"

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(map(one_line, faults))


class JournalRefused(ConfigError):
    """The journal that the settings name cannot be used as it is, and waiting will not help."""

    code = "journal-refused"
    retry_after_s = 60  # somebody has to see to it first


class CopyRefused(JournalRefused):
    """The file that was named for a copy of the journal cannot be written. The journal itself is as it was."""


class JournalDamaged(JournalRefused):
    """`what` is missing or is not what was written. No answer is given from it, nor from the rest without it.

    Waiting does not help; `advice` says what does, and engines without a file have their own. The call that met the
    damage recorded nothing, unless `outcome_unknown`.
    """

    code = "journal-damaged"

    def __init__(self, what: str, why: str, *, advice: str = DAMAGE_ADVICE, outcome_unknown: bool = False) -> None:
        super().__init__(f"{what} is damaged ({why}): {advice}")
        self.what = one_line(what)
        self.why = one_line(why)
        self.advice = advice
        self.outcome_unknown = outcome_unknown


class OutOfMemory(StatsError):
    """This worker has too little memory for the request. Whether it recorded anything is unknown."""

    code = "out-of-memory"
    retry_after_s = 1
    outcome_unknown = True


class InvalidRequest(StatsError):
    """The content of the request is refused. `items` name each fault: {"index"?, "field", "reason"}."""

    code = "validation"

    def __init__(self, items: list[dict[str, Any]], *, rejected: int | None = None) -> None:
        super().__init__(f"{len(items)} invalid")
        self.items = items
        self.rejected = rejected  # of a batch: how many events are faulty, as `items` name the first ones only


class JournalUnavailable(StatsError):
    """The journal failed now. With `outcome_unknown` the append may have happened: retry with the same key."""

    code = "journal-unavailable"

    def __init__(self, detail: str, *, outcome_unknown: bool = False, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.outcome_unknown = outcome_unknown
        self.retry_after_s = retry_after_s


class ShuttingDown(StatsError):
    """This worker is about to end: ask another one."""

    code = "shutting-down"
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("this worker is shutting down")


class ViewNotReady(StatsError):
    """This worker is still replaying the journal. A recording or deletion that needs the view has not happened."""

    code = "view-not-ready"
    outcome_unknown = False

    def __init__(self, waited_s: float, *, retry_after_s: int = 5) -> None:
        super().__init__(f"this worker is still replaying the journal (waited {waited_s:.0f} s)")
        self.retry_after_s = retry_after_s


class ViewBroken(ViewNotReady):
    """An exception came in the middle of a change to this worker's view. The view starts afresh: ask again."""

    def __init__(self) -> None:
        StatsError.__init__(self, "this worker's view is broken and starts afresh: ask again")
        self.retry_after_s = 1


class StoreFull(StatsError):
    """Recording would exceed `limit` `things` (events or series). Everything stored stays and can be read."""

    code = "store-full"

    def __init__(
        self,
        things: str,
        held: int,
        limit: int,
        *,
        adding: int,
        setting: str,
        names: Sequence[str] = (),
        retry_after_s: int = 60,
    ) -> None:
        some = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
        super().__init__(
            f"the store holds {held} {things}, this request adds {adding}{some}, and the limit is {limit} "
            f"({setting}); nothing was recorded"
        )
        self.retry_after_s = retry_after_s


class IdempotencyConflict(StatsError):
    """The same Idempotency-Key came with another request before."""

    code = "idempotency-conflict"

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used before with a different request")
