"""The Engine protocol: what is asked of an engine by the journal's URL, before or without opening the journal.

A Journal (protocol.py) is what one process has open. An engine has what there is once for the journal, however many
processes use it: what such a journal can do, how it is opened, and the work on it while the service is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from statsapi.errors import JournalDamaged
from statsapi.journal.protocol import START, Clock, Fsync, Journal, wall_clock_us


class Options(NamedTuple):
    """What `open_journal` takes beside the URL."""

    fsync: Fsync = "interval"
    clock_us: Clock = wall_clock_us
    create: bool = True
    wait_replicas: int = 0


class LimitStorage(NamedTuple):
    """Where to count requests against rate limits: a storage of the `limits` library, and options of that storage.

    per_worker: each worker counts its own requests alone.
    """

    uri: str
    options: Mapping[str, Any] = {}
    per_worker: bool = False


class Engine(Protocol):
    """The engine of one journal. It is made with the journal's URL, and making it costs nothing: nothing is checked,
    opened or asked. Any thread may call any method; it has no state but the URL.
    """

    kind: ClassVar[str]
    """Its name, and a scheme of its URLs: "sqlite". Messages call such a journal sqlite://, as the whole URL may hold a
    password.
    """

    single_process: ClassVar[bool]
    """Whether a second process would see another journal, so that the service must not run in two."""

    is_kept: ClassVar[bool]
    """Whether the journal is there again after the last process that had it open has ended."""

    is_file: ClassVar[bool]
    """Whether the journal is a file of this machine: only then `backup`, `salvage` and `compact` have something to do.
    The copies that they make are such journals too: KIND:///PATH opens one.
    """

    is_remote: ClassVar[bool]
    """Whether the journal lives in a server that may be away while this machine is well."""

    has_replicas: ClassVar[bool]
    """Whether an append can wait for replicas (Options.wait_replicas)."""

    def check_url(self) -> None:
        """ConfigError where no journal could ever be opened by the URL. Nothing is opened or asked."""

    def open(self, options: Options) -> Journal:
        """See `open_journal`, which checks the options first."""

    def shares_limits(self) -> LimitStorage | None:
        """Where all processes that share the journal can count requests; None where there is no such place."""

    def find_damage(self) -> Iterator[str]:
        """Read all of the journal and give one sentence for each thing in it that is not what was written.

        It may run beside the service. JournalRefused and JournalUnavailable where the journal cannot be read at all.
        """

    def salvage(self, target: str) -> str:
        """Save all undamaged data of the journal to a new file, and say what was saved.

        JournalRefused where it cannot be saved, and from an engine whose journal is no file: it says what to do
        instead.
        """

    def compact(self) -> tuple[int, int]:
        """Give the space of what is no longer kept back to the disk: the journal's bytes before and after.

        JournalRefused where somebody uses the journal, and from an engine whose journal is no file, as for `salvage`.
        """

    def put_away(self) -> None:
        """After the last process that used the journal: leave it ready to be copied or replaced. Raises as `open`."""


def damage_by_reading(journal: Journal, check_answers: Callable[[], None]) -> Iterator[str]:
    """For `find_damage`: read all of an open journal and then its kept answers, and give the first damage that is met.

    `check_answers` raises JournalDamaged where a kept answer is damaged. The journal is closed at the end.
    """
    try:
        checkpoint = journal.read_checkpoint()
        mark = checkpoint.mark if checkpoint else START
        if checkpoint:
            journal.read_pieces(checkpoint.id, -(1 << 62), 1 << 62)
        while (segment := journal.read(mark)).records:
            mark = segment.mark
        check_answers()
    except JournalDamaged as error:
        yield f"{error.what}: {error.why}"
    finally:
        journal.close()
