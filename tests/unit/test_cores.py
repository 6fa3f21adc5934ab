"""Which core a worker gets, and which worker a connection."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statsapi.metrics import CounterTable
from statsapi.server import hooks, pinning, worker
from statsapi.server.board import Board, Load, freer_than
from statsapi.server.pinning import choose_core
from statsapi.server.worker import START_PATIENCE_S, FairThreadWorker


def start(living: list[tuple[int, int]], workers: int, age: int) -> int:
    """Add that many workers to the living, as the arbiter does; gives the age of the newest."""
    for _ in range(workers):
        age += 1
        core = choose_core("auto", living)
        assert core is not None
        living.append((age, core))
    return age


@given(st.integers(1, 6), st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_workers_that_outnumber_the_cores_share_them_evenly(cores: int, starts: list[int]) -> None:
    """No core has two workers more than another one: after a start, after reloads with other numbers of workers, while
    old and new workers run, and after the old ones have gone.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinning, "allowed_cores", lambda: list(range(cores)))
        patch.setattr(pinning, "cpu_limit", lambda: float("inf"))
        living: list[tuple[int, int]] = []
        age = 0
        for workers in starts:
            old = len(living)
            age = start(living, workers, age)
            for some in (living, living[old:]):
                crowds = Counter(core for _, core in some)
                assert max(crowds.values()) - min(crowds[core] for core in range(cores)) <= 1
            del living[:old]


@pytest.mark.parametrize(("limit", "pinned"), [(1.5, False), (2.0, True), (float("inf"), True)])
def test_cores_are_not_chosen_under_a_quota(monkeypatch: pytest.MonkeyPatch, limit: float, pinned: bool) -> None:
    """`auto` leaves workers free where CPU time is limited to less than the cores that can be seen."""
    monkeypatch.setattr(pinning, "allowed_cores", lambda: [0, 1])
    monkeypatch.setattr(pinning, "cpu_limit", lambda: limit)
    assert (choose_core("auto", []) is not None) is pinned
    assert choose_core("on", []) == 0


def naive_freer(slot: int, loads: dict[int, Load]) -> set[int]:
    """One worker after another, by the sentence in freer_than's docstring."""

    def open_on_core_of(load: Load) -> int:
        if load.core is None:
            return load.connections
        return sum(other.connections for other in loads.values() if other.core == load.core)

    own = loads[slot]
    return {
        other
        for other, load in loads.items()
        if load.starting < own.starting
        or (
            load.starting == own.starting
            and (
                load.connections < own.connections
                or (load.connections == own.connections and open_on_core_of(load) < open_on_core_of(own))
            )
        )
    }


loads_of_workers = st.dictionaries(
    st.integers(0, 9),
    st.builds(Load, st.integers(0, 3), st.integers(0, 9), st.none() | st.integers(0, 2), st.booleans()),
    min_size=1,
)


@given(loads_of_workers)
def test_some_worker_takes_each_connection(loads: dict[int, Load]) -> None:
    """Who is freer is what the naive twin says, and at least one worker leaves a connection to nobody."""
    freer = {slot: freer_than(slot, loads) for slot in loads}
    assert freer == {slot: naive_freer(slot, loads) for slot in loads}
    assert set() in freer.values()


@given(st.integers(1, 4), st.integers(1, 12), st.data())
def test_few_connections_are_spread_over_the_cores(cores: int, workers: int, data: st.DataObject) -> None:
    """A worker takes a connection while no other is freer: as many connections as cores are on as many cores, and no
    worker has two more than another one.
    """
    loads = {slot: Load(0, 0, slot % cores, starting=False) for slot in range(workers)}
    for count in range(1, 3 * workers + 1):
        free = [slot for slot in loads if not freer_than(slot, loads)]
        slot = data.draw(st.sampled_from(free))
        loads[slot] = loads[slot]._replace(connections=loads[slot].connections + 1)
        used = {load.core for load in loads.values() if load.connections}
        assert len(used) == min(count, cores, workers)
        open_now = [load.connections for load in loads.values()]
        assert max(open_now) - min(open_now) <= 1


def test_a_slot_keeps_its_core_while_its_worker_shows_its_load() -> None:
    """What the arbiter noted of the core stays beside what the worker shows, and the next worker's takes its place."""
    board, last = Board(), Board.SLOTS - 1
    board.take(last, 0)
    board.take(0, 3)
    assert board.loads() == {}
    assert board.starting() == {0, last}
    board.show(last, 2, 5)
    board.show(0, 0, 1)
    board.started(0)
    assert board.starting() == {last}
    assert board.loads() == {0: Load(0, 1, 3, starting=False), last: Load(2, 5, 0, starting=True)}
    board.clear(0)
    board.take(last, None)
    board.show(last, 1, 1)
    assert board.loads() == {last: Load(1, 1, None, starting=True)}
    board.clear(last)  # it ended while it started
    assert board.starting() == set()
    board.take(last, None)
    board.stop()
    assert board.starting() == set()  # nobody waits for a worker that starts while the server stops
    assert board.loads() == {}


def test_the_arbiter_notes_the_core_of_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fork the worker's core is on the board, so that the others can count the connections of that core."""
    board = Board()
    monkeypatch.setattr(hooks, "board", board)
    monkeypatch.setattr(hooks, "counters", CounterTable(Board.SLOTS))
    monkeypatch.setattr(hooks, "open_lifeline", lambda: None)
    monkeypatch.setattr(pinning, "allowed_cores", lambda: [2, 5])
    monkeypatch.setenv("STATSAPI_PIN_WORKERS", "on")
    server = SimpleNamespace(WORKERS={}, num_workers=3)
    for age in (1, 2, 3):
        new = SimpleNamespace(age=age, slot=None, core=None)
        hooks.pre_fork(server, new)
        server.WORKERS[age] = new
        board.show(new.slot, 0, 0)
    assert [load.core for load in board.loads().values()] == [2, 5, 2]
    assert board.starting() == set()  # workers of another class: none of them would ever say that it has started


def test_a_stop_leaves_out_the_reloads_that_were_asked_for_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arbiter queues signals. Each of eight HUPs kept a stop waiting for a second, and Docker kills after ten."""
    board, queued, reloads = Board(), list[int](), list[bool]()
    monkeypatch.setattr(hooks, "board", board)
    board.take(0, None)
    server = SimpleNamespace(signal=lambda number, frame: queued.append(number), reload=lambda: reloads.append(True))
    hooks._hear_stops_at_once(server)
    for number in (signal.SIGHUP, signal.SIGHUP):
        server.signal(number, None)
    server.reload()
    assert board.starting() == {0}
    server.signal(signal.SIGTERM, None)
    server.reload()
    assert queued == [signal.SIGHUP, signal.SIGHUP, signal.SIGTERM]
    assert reloads == [True]
    assert board.starting() == set()


def accepting(
    monkeypatch: pytest.MonkeyPatch, board: Board, clock_s: Callable[[], float], *, shares: int, began_at: float
) -> FairThreadWorker:
    """The worker of slot 0, of `shares` on that board, without a poll loop."""
    monkeypatch.setattr(worker, "board", board)
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=clock_s))
    monkeypatch.setattr(FairThreadWorker, "set_accept_enabled", lambda self, enabled: None)
    made = FairThreadWorker.__new__(FairThreadWorker)
    made.__dict__.update(slot=0, shares=shares, nr_conns=0, _began_at=began_at, _stuck={}, _waiting_since=None)
    return made


def test_a_worker_that_replays_leaves_connections_longer_to_one_that_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """For START_PATIENCE_S, as whoever comes to it waits for the replay. A ready one that has not turned is stuck."""
    board, now_s = Board(), 100.0
    new = accepting(monkeypatch, board, lambda: now_s, shares=2, began_at=0.0)
    board.take(0, None)
    board.show(0, 0, 1)
    board.show(1, 7, 1)
    assert new._leave_to_others(0)
    now_s += START_PATIENCE_S - 0.01
    assert new._leave_to_others(0)
    now_s += 0.02
    assert not new._leave_to_others(0)
    assert not new._leave_to_others(0)
    board.show(1, 7, 2)
    assert new._leave_to_others(0)
    board.started(0)  # from now on only a worker with fewer connections is waited for
    assert not new._leave_to_others(0)
    new.nr_conns = 8
    board.show(0, 8, 2)
    assert new._leave_to_others(0)
    now_s += worker.PATIENCE_S
    assert not new._leave_to_others(0)


def test_a_new_worker_leaves_all_but_its_first_connection_to_those_that_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """For START_PATIENCE_S, or until its siblings accept connections: the first of two took all that waited."""
    board, now_s = Board(), 100.0
    first = accepting(monkeypatch, board, lambda: now_s, shares=3, began_at=100.0)
    board.show(0, 0, 1)
    assert not first._leave_to_others(0)
    first.nr_conns = 1
    assert first._leave_to_others(0)
    board.show(1, 1, 1)
    assert first._leave_to_others(0)  # the third one is still to come
    now_s += START_PATIENCE_S
    assert not first._leave_to_others(0)
    now_s -= 0.01
    assert first._leave_to_others(0)
    board.show(2, 1, 1)
    assert not first._leave_to_others(0)
