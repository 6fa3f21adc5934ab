"""The follower behind `statsapi tail` against the service in one process, with a network that fails in between."""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from statsapi.app import create_app
from statsapi.cli.tailing import Follower
from statsapi.client import Unavailable
from statsapi.config import Settings
from statsapi.model import SECOND_US
from tests.client_service import InProcess, client_of
from tests.fakes import FakeClock

LATE_S = 300
# What comes: events of a few times and values, so that some are equal; how late they are; how often somebody looks.
EVENT = st.tuples(
    st.just("event"), st.sampled_from([0, 0, 1, 4, 5, 6, 60, 290, -30]), st.integers(0, 2), st.sampled_from("ab")
)
LOOK = st.tuples(st.just("look"), st.sampled_from([0, 1, 3, 7]), st.integers(0, 5), st.booleans())


@given(steps=st.lists(st.one_of(EVENT, LOOK), max_size=40))
def test_each_event_is_given_once(steps: list[tuple[str, int, int, object]]) -> None:
    """Whatever is late, equal, ahead of the clock, or asked for in vain: as many as were recorded, no more, no less."""
    clock = FakeClock()
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    transport = InProcess(app)
    client = client_of(transport, clock, give_up_after_s=0.0)
    posts = app.test_client()
    follower = Follower(client, {"series": None}, timedelta(seconds=LATE_S))
    recorded: Counter[tuple[datetime, str, float]] = Counter()
    given_out: Counter[tuple[datetime, str, float]] = Counter()
    try:
        given_out.update(
            follower.look()
        )  # it follows from here on: what is older than `late` at the first look is past
        for kind, seconds, number, what in steps:
            if kind == "event":
                ts_us = clock.now_us - seconds * SECOND_US
                at = datetime.fromtimestamp(ts_us // SECOND_US, UTC) + timedelta(microseconds=ts_us % SECOND_US)
                event = {"timestamp": at.isoformat(), "value": number, "series": what}
                assert posts.post("/event", json=event).status_code == 200
                recorded[at, str(what), float(number)] += 1
                continue
            clock.advance(seconds * SECOND_US)
            if what:  # the request of that number is lost
                transport.faults = [*([None] * number), "lost"]
            with contextlib.suppress(Unavailable):
                given_out.update(follower.look())
            transport.faults = []
            assert given_out <= recorded
        given_out.update(follower.look())
        assert given_out == recorded
    finally:
        app.extensions["statsapi"].close()


@given(ages_s=st.lists(st.integers(0, 3_900), max_size=30), most=st.integers(1, 12))
def test_the_last_events_are_shown_however_old(ages_s: list[int], most: int) -> None:
    """`--last` shows the newest raw events from before the followed span."""
    clock = FakeClock()
    app = create_app(Settings(journal="memory://"), clock_us=clock, background=False)
    follower = Follower(client_of(InProcess(app), clock), {"series": None}, timedelta(seconds=LATE_S))
    try:
        for number, age_s in enumerate(ages_s):
            event = {"timestamp": clock.now_us / 1e6 - age_s, "value": number, "series": "ab"[number % 2]}
            assert app.test_client().post("/event", json=event).status_code == 200
        recent = follower.look()
        older = follower.before(most)
        values = [int(value) for _, _, value in older + recent]
        assert len(recent) == sum(age_s <= LATE_S for age_s in ages_s)
        held = sorted((age_s for age_s in ages_s if age_s > LATE_S), reverse=True)[-most:]
        assert sorted((ages_s[value] for value in values[: len(older)]), reverse=True) == held
    finally:
        app.extensions["statsapi"].close()
