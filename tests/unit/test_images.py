"""Images: what one view writes, another maps, and both answer the same as one that knows of no image."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.engine.chunk import Chunk
from statsapi.engine.packed import pack, unpack
from statsapi.engine.sealed import Place
from statsapi.engine.store import Store
from statsapi.errors import JournalDamaged
from statsapi.journal import Journal, Mark, Proposal, open_journal
from statsapi.journal.protocol import SharedFolder
from statsapi.model import DAY_US, HOUR_US, MINUTE_US, Deletion, EventBatch, Part, Retention, Span
from statsapi.service import sharing
from statsapi.service.images import Images
from statsapi.service.sharing import Sharing
from statsapi.service.view import View
from tests.fakes import FakeClock

KEPT = Retention(HOUR_US, DAY_US)
PS = (0, Fraction(25, 2), 50, 99)


class Worker:
    """One process's view of the journal at `path`, and what it shares."""

    def __init__(self, path: Path, clock: FakeClock, retention: Retention = KEPT) -> None:
        self.journal: Journal = open_journal(f"sqlite:///{path}", clock_us=clock)
        folder = self.journal.shared_folder()
        assert folder is not None
        self.folder = Path(folder.path)
        self.images = Images(folder.path, retention)
        self.view = View(self.journal, retention, begin=self.images.begin)
        self.now_s = 0.0
        self.sharing = Sharing(self.view, self.images, lambda: self.now_s)

    def record(self, ts_us: Any, values: Any, series: str = "default") -> None:
        part = Part(series, np.array(ts_us, np.int64), np.array(values, np.float64))
        self.journal.append(Proposal(EventBatch((part,))))

    def share(self) -> Store:
        """Catch up, share once nothing has come for long, and give the store."""
        self.view.catch_up()
        self.sharing.share()
        return self.share_after(10_000.0)

    def share_after(self, seconds: float) -> Store:
        """Share that much later, and give the store."""
        self.now_s += seconds
        self.sharing.share()
        return self.view.last_caught_up()

    def close(self) -> None:
        self.journal.close()
        self.images.close()


@pytest.fixture
def worker(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes workers of one journal, who share from the first chunk on."""
    monkeypatch.setattr(sharing, "SHARED_FROM_EVENTS", 1)
    made: list[Worker] = []

    def make(retention: Retention = KEPT) -> Worker:
        made.append(Worker(tmp_path / "events.db", clock, retention))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., Worker]


def held(store: Store) -> dict[str, list[tuple[int, float]]]:
    """All raw events, each series in order of time and arrival."""
    return {
        part.series: list(zip(part.ts_us.tolist(), part.values.tolist(), strict=True))
        for part in store.contents.live_events().parts
    }


def answers(store: Store, clock: FakeClock, names: tuple[str, ...] = ("default",)) -> list[Any]:
    """What is said of several spans, some of which cut chunks."""
    now_us = clock()
    spans = [Span(now_us - back_us, end) for back_us in (DAY_US, HOUR_US, 2_000, 77) for end in (now_us, now_us + 900)]
    spans = [
        Span(start_us if start_us > now_us - HOUR_US else start_us - start_us % HOUR_US, end) for start_us, end in spans
    ]
    return [store.statistics(name, spans, now_us, PS, ends=True) for name in names]


def batch(clock: FakeClock, n: int, seed: int = 1) -> tuple[Any, Any]:
    """n events of the last second, nearly in order."""
    random = np.random.default_rng(seed)
    ts_us = np.sort(clock() - random.integers(0, 1_000_000, n))
    return ts_us + random.integers(-50, 50, n), np.round(random.lognormal(3, 2, n), 3)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=400), st.integers(0, 99))
def test_a_chunk_is_the_same_from_its_bytes(values: list[float], stagger: int) -> None:
    """Columns, sums at every place, buckets, sample and when it merges: all are those of the chunk that was packed."""
    column = np.array(values)
    chunk = Chunk.seal(np.arange(len(values)), column, stagger, 256)
    data = b"".join([b"12345678", *pack(chunk.sealed_columns())])
    assert len(data) % 8 == 0
    again = Chunk.of(unpack(memoryview(data), 8), Place("part", 8))
    assert again.whole() == chunk.whole()
    assert again.merge_at == chunk.merge_at
    for a, b in zip(again.frozen().columns(), chunk.frozen().columns(), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(again.sealed.column.sample, chunk.sealed.column.sample)
    assert again.sealed.sampled_from == chunk.sealed.sampled_from
    assert np.array_equal(again.sealed.buckets(), chunk.sealed.buckets())
    assert [again.sealed.sums_before(k) for k in range(len(values) + 1)] == [
        chunk.sealed.sums_before(k) for k in range(len(values) + 1)
    ]


def test_a_view_takes_what_another_shared(worker: Make, clock: FakeClock) -> None:
    """Afterwards both map the same part, hold nothing that is not shared but tails, and say what a third one says."""
    leader, other = worker(), worker()
    leader.record(*batch(clock, 30_000))
    leader.record([clock(), clock() - 5], [1.5, -2.0], "few")
    other.view.catch_up()
    assert leader.share().contents.unshared_events() == 0
    clock.advance(5_000_000)
    leader.record(*batch(clock, 30_000, seed=2))
    leader.record([clock()], [7.0], "few")
    stores = [leader.view.catch_up(), other.share(), View(leader.journal, KEPT).catch_up()]
    assert other.images.leads() is False
    for store in stores:
        store.check_invariants()
        assert held(store) == held(stores[2])
        assert answers(store, clock, ("default", "few", "none")) == answers(
            stores[2], clock, ("default", "few", "none")
        )
    chunks = stores[1]._held.timelines.opened["default"]._chunks.chunks
    shared = [chunk.sealed.place for chunk in chunks if chunk.sealed.place]
    assert {place.file for place in shared} == {path.name for path in leader.folder.glob("*.part")}


def test_late_events_that_wait_in_chunks_are_in_an_image(worker: Make, clock: FakeClock) -> None:
    """They are not sealed into their chunks yet. Whoever begins with the image has them, also behind those of the same
    instant.
    """
    first = worker()
    ts_us, values = batch(clock, 30_000)
    first.record(ts_us, values)
    first.view.catch_up()
    first.record(ts_us[::97], values[::97] + 1)
    expected = held(first.share())
    chunks = first.view.last_caught_up()._held.timelines.opened["default"]._chunks.chunks
    assert sum(chunk.late.n for chunk in chunks if chunk.late) > 100
    store = worker().view.catch_up()
    store.check_invariants()
    assert store.contents.unshared_events() == 0
    assert held(store) == expected
    assert answers(store, clock) == answers(first.view.last_caught_up(), clock)


def test_a_restart_begins_with_the_image(worker: Make, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that the image has are not applied again, those after it are; roll-ups and late arrivals are there."""
    first = worker()
    first.record([clock() - 2 * HOUR_US - i * MINUTE_US for i in range(90)], range(90))
    first.record(*batch(clock, 30_000))
    first.view.catch_up()
    first.view.last_caught_up().settle(clock())
    first.view.last_caught_up().expire()
    store = first.share()
    assert store.sizes.rollup_bytes() > 0
    first.record([clock()], [3.0])
    store = first.view.catch_up()
    first.close()
    again = worker()
    applied: list[Mark] = []
    read = again.journal.read

    def noted(after: Mark, **options: Any) -> Any:
        applied.append(after)
        return read(after, **options)

    monkeypatch.setattr(again.journal, "read", noted)
    begun = again.view.catch_up()
    assert min(mark.position for mark in applied) == 2
    assert held(begun) == held(store)
    assert answers(begun, clock) == answers(store, clock)
    assert begun.contents.rolled_up() == store.contents.rolled_up()
    assert begun.held("default", clock() - HOUR_US, 100, late_only=True) == store.held(
        "default", clock() - HOUR_US, 100, late_only=True
    )
    begun.check_invariants()


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["record", "record", "record", "late", "delete", "share", "other shares", "expire"]),
            st.integers(0, 2**31),
        ),
        max_size=14,
    )
)
def test_whatever_is_done_in_between_views_agree(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Records, deletions and folding, shared by two views at any moment: both answer as the view without images."""
    clock = FakeClock()
    path = tmp_path_factory.mktemp("images") / "events.db"
    leader, other = Worker(path, clock), Worker(path, clock)
    plain = View(leader.journal, KEPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "SHARED_FROM_EVENTS", 1)
        for step, seed in steps:
            clock.advance(seed % 90 * 1_000_000)
            if step in ("record", "late"):
                ts_us, values = batch(clock, 9_000 + seed % 9_000, seed)
                leader.record(ts_us - (seed % 1_800_000_000 if step == "late" else 0), values)
            elif step == "delete":
                end_us = clock() - clock() % MINUTE_US
                leader.journal.append(Proposal(Deletion("default", end_us - seed % 30 * MINUTE_US, end_us)))
            elif step == "share":
                leader.share()
            elif step == "other shares":
                other.share()
            else:
                for view in (leader.view, other.view, plain):
                    store = view.catch_up()
                    store.settle(clock())
                    store.expire()
    expected = plain.catch_up()
    for one in (leader, other):
        store = one.view.catch_up()
        store.check_invariants()
        assert answers(store, clock) == answers(expected, clock)
        assert held(store) == held(expected)
        one.close()


@pytest.mark.parametrize("what", ["image", "part"])
def test_a_flipped_bit_is_never_used(
    worker: Make, clock: FakeClock, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """A view that finds a damaged image or part says so, and builds its own."""
    first = worker()
    first.record(*batch(clock, 20_000))
    expected = held(first.share())
    (path,) = first.folder.glob("image" if what == "image" else "*.part")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    second = worker()
    assert held(second.view.catch_up()) == expected
    assert "checksum" in caplog.text
    assert second.view.last_caught_up().contents.unshared_events() > 0


@pytest.mark.parametrize("body", [b"\x07", b"\x80", b"\xc1", b"\x90", b"\x81\xa1a\x01", b""])
def test_an_image_of_another_shape_is_not_used(
    worker: Make, clock: FakeClock, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    """Although its checksum is right: a view says so, and builds its own."""
    first = worker()
    first.record(*batch(clock, 20_000))
    expected = held(first.share())
    (first.folder / "image").write_bytes(crc32(body).to_bytes(4, "little") + body)
    assert held(worker().view.catch_up()) == expected
    assert "is not used" in caplog.text


@pytest.mark.parametrize("what", ["image", "part"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_read(worker: Make, clock: FakeClock, what: str, make: Callable[[Path], None]) -> None:
    """A pipe would block, and a device never end."""
    first = worker()
    first.record(*batch(clock, 20_000))
    expected = held(first.share())
    (path,) = first.folder.glob("image" if what == "image" else "*.part")
    path.unlink()
    make(path)
    assert held(worker().view.catch_up()) == expected


def test_an_image_names_no_part_that_is_gone(worker: Make, clock: FakeClock) -> None:
    """Another leader may have removed it, or a person: the next image has all events again."""
    first = worker()
    first.record(*batch(clock, 20_000))
    first.share()
    for path in first.folder.glob("*.part"):
        path.unlink()
    first.record(*batch(clock, 20_000, seed=3))
    expected = held(first.share())
    begun = worker().view.catch_up()
    assert held(begun) == expected
    assert begun.contents.unshared_events() == 0


def test_a_link_in_the_folder_is_not_written_through(worker: Make, clock: FakeClock, tmp_path: Path) -> None:
    """What a process left half written is replaced, whatever it is; a folder that others may write is not used."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    first = worker()
    first.folder.mkdir(mode=0o700)
    (first.folder / "image.new").symlink_to(precious)
    first.record(*batch(clock, 20_000))
    first.share()
    assert first.images.events
    assert (first.folder / "image").is_file()
    assert not (first.folder / "image").is_symlink()
    assert precious.read_text() == "mine"
    shared = first.images.events
    first.folder.chmod(0o777)
    first.record(*batch(clock, 20_000, seed=3))
    first.share()
    assert first.images.events == shared


def test_an_image_of_another_history_is_not_used(worker: Make, clock: FakeClock) -> None:
    """Where the journal was replaced by another, or its end is gone, what was shared of the old one does not count."""
    first = worker()
    first.record(*batch(clock, 20_000))
    first.share()
    path = Path(str(first.folder).removesuffix("-views"))
    first.close()
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}-mark")):
        name.unlink(missing_ok=True)
    second = worker()
    second.record([clock()], [1.0])
    assert held(second.view.catch_up()) == {"default": [(clock(), 1.0)]}


def test_an_image_whose_mark_is_gone_is_not_used(
    worker: Make, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file seems to be the same one: the record at the mark must stand."""
    first = worker()
    first.record(*batch(clock, 20_000))
    first.share()
    second = worker()
    image = second.images.begin(second.journal)
    assert image is not None
    monkeypatch.setattr("statsapi.service.images.Mark", lambda position, record_id: Mark(position, bytes(16)))
    assert second.images.begin(second.journal) is None


@pytest.mark.parametrize("changed", ["retention", "file", "folder"])
def test_an_image_that_is_not_for_this_view_is_left_alone(worker: Make, clock: FakeClock, changed: str) -> None:
    """One of another retention, of another file in the journal's place, or in a folder that others can write to."""
    first = worker()
    first.record(*batch(clock, 20_000))
    expected = held(first.share())
    second = worker(Retention(HOUR_US + MINUTE_US, DAY_US) if changed == "retention" else KEPT)
    if changed == "file":
        folder = second.journal.shared_folder()
        assert folder is not None
        second.journal.shared_folder = lambda: SharedFolder(folder.path, folder.journal + 1)  # type: ignore[method-assign]
    elif changed == "folder":
        first.folder.chmod(0o770)
    store = second.view.catch_up()
    assert held(store) == expected
    assert store.contents.unshared_events() > 0
    assert second.images.leads() is False


def test_one_leads_and_another_follows_when_it_has_gone(worker: Make, clock: FakeClock) -> None:
    """Leading is for one at a time; who comes after removes what the one before left behind."""
    first, second = worker(), worker()
    first.record(*batch(clock, 20_000))
    first.share()
    assert (first.images.leads(), second.images.leads()) == (True, False)
    (first.folder / "0123456789abcdef.part.new").write_bytes(b"half")
    first.close()
    second.share()
    assert second.images.leads()
    second.record(*batch(clock, 20_000, seed=3))
    assert second.share().contents.unshared_events() == 0
    assert not (first.folder / "0123456789abcdef.part.new").exists()


def test_what_has_gone_is_let_go_of(worker: Make, clock: FakeClock) -> None:
    """A part of which most was deleted is removed from the disk; whoever maps it keeps it."""
    one = worker()
    one.record(*batch(clock, 40_000))
    one.share()
    (before,) = one.folder.glob("*.part")
    reader = one.view.last_caught_up().snapshot(["default"], Span(0, clock() + 1_000))
    end_us = clock() - clock() % MINUTE_US + MINUTE_US
    one.journal.append(Proposal(Deletion("default", end_us - HOUR_US, end_us)))
    one.share()
    assert list(one.folder.glob("*.part")) == []
    assert not before.exists()
    assert sum(len(ts_us) for _, walk in reader for ts_us, _ in walk) == 40_000


def test_a_full_disk_costs_no_answer(
    worker: Make, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be written is said once and leaves nothing; the view holds all in its own memory, as without."""
    one = worker()
    one.record(*batch(clock, 20_000))

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    rename = os.rename
    monkeypatch.setattr("statsapi.service.image_folder.os.rename", full)
    for _ in range(2):
        store = one.share()
    assert one.share_after(9.0).contents.unshared_events() > 0  # not at once again
    assert store.contents.unshared_events() > 0
    assert len(held(store)["default"]) == 20_000
    assert caplog.text.count("No space left on device") == 1
    assert sorted(path.name for path in one.folder.iterdir()) == ["leader"]

    def full_for_the_image(source: str, target: str) -> None:
        rename(source, target) if target.endswith(".part") else full(source, target)

    monkeypatch.setattr("statsapi.service.image_folder.os.rename", full_for_the_image)
    one.share()
    assert sorted(path.name for path in one.folder.iterdir()) == ["leader"]


def test_a_part_that_is_gone_is_written_again(worker: Make, clock: FakeClock) -> None:
    """Somebody removed it: who begins then builds its own, and shares that."""
    first = worker()
    first.record(*batch(clock, 20_000))
    expected = held(first.share())
    first.close()
    for path in first.folder.glob("*.part"):
        path.unlink()
    second = worker()
    assert second.view.catch_up().contents.unshared_events() > 0
    assert second.share().contents.unshared_events() == 0
    third = worker()
    assert held(third.view.catch_up()) == expected
    assert third.view.last_caught_up().contents.unshared_events() == 0


def test_files_are_for_this_user_alone(worker: Make, clock: FakeClock) -> None:
    """Nobody else can read or change them, whatever the umask is."""
    one = worker()
    one.record(*batch(clock, 20_000))
    was = os.umask(0)
    try:
        one.share()
    finally:
        os.umask(was)
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in one.folder.iterdir()} == {0o600}


def test_many_series_or_few_events_are_not_shared(
    worker: Make, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of many series would be taken under the lock; for few events sharing gains nothing."""
    one = worker()
    one.record(*batch(clock, 20_000))
    monkeypatch.setattr(sharing, "MAX_SERIES", 0)
    assert one.share().contents.unshared_events() > 0
    monkeypatch.undo()
    assert one.share().contents.unshared_events() > 0
    assert not one.folder.exists()


def test_no_image_is_written_in_a_burst(worker: Make, clock: FakeClock) -> None:
    """The image is written once no more records come in."""
    one = worker()
    unshared = []
    for seed in range(4):
        one.record(*batch(clock, 20_000, seed))
        one.view.catch_up()
        unshared += [one.share_after(0.5).contents.unshared_events()]
    assert all(unshared)
    assert one.share_after(0.5).contents.unshared_events() > 0
    assert one.share_after(0.5).contents.unshared_events() == 0


def test_while_records_come_in_images_are_far_apart(worker: Make, clock: FakeClock) -> None:
    """Where records go on coming in, the first image is written after ten seconds, and the next ones each ten seconds
    or later.
    """
    one = worker()
    shared_at_s = []
    for seed in range(70):
        one.record(*batch(clock, 10_000, seed))
        one.view.catch_up()
        if not one.share_after(0.5).contents.unshared_events():
            shared_at_s.append(one.now_s)
    assert shared_at_s == [10.5, 20.5, 30.5]


def test_records_that_keep_coming_do_not_keep_a_view_from_an_image(
    worker: Make, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the image catches up with the view, the view moves on: it is chased without the lock, then under it."""
    leader, other = worker(), worker()
    leader.record(*batch(clock, 20_000))
    other.view.catch_up()
    leader.share()
    leader.record([clock()], [1.0])
    other.view.catch_up()
    read, reads = other.journal.read, 0

    def read_while_more_come_in(after: Mark, **options: Any) -> Any:
        nonlocal reads
        if not other.view._catching_up.locked():
            reads += 1
            segment = read(after, **options)
            leader.record([clock()], [1.0 + reads])
            other.view.catch_up()
            return segment
        return read(after, **options)

    with monkeypatch.context() as patch:
        patch.setattr(other.journal, "read", read_while_more_come_in)
        other.sharing.share()
    store = other.view.last_caught_up()
    assert reads > 2
    assert store.contents.unshared_events() == 0
    assert held(store) == held(View(leader.journal, KEPT).catch_up())


def test_a_history_that_changes_on_the_way_leaves_the_view_as_it_is(
    worker: Make, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal reports the change while the image's own store follows it; the view meets it at its next catch-up."""
    leader, other = worker(), worker()
    leader.record(*batch(clock, 20_000))
    leader.share()
    image = other.images.begin(other.journal)
    assert image is not None
    leader.record([clock()], [1.0])
    before = other.view.catch_up()
    damaged = JournalDamaged("the journal's record 2", "it is missing")

    def read(after: Mark, **options: Any) -> Any:
        raise damaged

    with monkeypatch.context() as patch:
        patch.setattr(other.journal, "read", read)
        with pytest.raises(JournalDamaged):
            other.view.change_to(image[0], image[1])
    assert other.view.last_caught_up() is before
    other.view.change_to(image[0], Mark(1, bytes(16)))
    assert other.view.last_caught_up() is before


def test_what_is_not_ours_is_left(worker: Make, clock: FakeClock) -> None:
    """Of a folder's files only parts go, and what a process left half written."""
    first = worker()
    first.record(np.arange(20_000) + clock.now_us - MINUTE_US, np.arange(20_000.0))
    first.folder.mkdir(mode=0o700)
    left = [first.folder / name for name in ("0123456789abcdef.part", "0123456789abcdef.part.new", "image.new")]
    others = [first.folder / name for name in ("id_rsa", "notes.part", "0123456789abcdef.parts", "a.new")]
    for path in (*left, *others):
        path.write_text("x")
    for name in "0123456789abcde":
        (first.folder / f"{name * 16}.part").mkdir()
    first.share()
    assert first.images.events
    assert not any(path.exists() for path in left)
    assert [path.read_text() for path in others] == ["x"] * len(others)


def test_a_link_is_not_followed(
    worker: Make, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one to a folder of this user's: nothing is written there or taken from it, and the log says so."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    first = worker()
    first.record(np.arange(20_000) + clock.now_us - MINUTE_US, np.arange(20_000.0))
    first.folder.symlink_to(elsewhere)
    assert first.share().sizes.event_count() == 20_000
    assert not first.images.events
    assert os.listdir(elsewhere) == []
    assert "is a link or a file: remove it" in caplog.text
