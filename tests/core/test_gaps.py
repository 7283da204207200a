"""Gaps in telemetry are noticed in time and end with what made them; whoever is merely idle has none (P21)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import gaps
from sidecar.core.events import SessionKey
from sidecar.core.gaps import LEASES, LISTED_NS, REASONS, UNTOLD_NS, Gaps

SECOND_NS = 10**9
LEASE_NS = 3 * SECOND_NS
LOST_NS = LEASES * LEASE_NS
DAY_S = 24 * 3600
REALM = "agent:clerk"
KEY = SessionKey(REALM, "s")


class World:
    """Agents, their sessions and the time; a session of somebody with the library is told of by `library`."""

    def __init__(self, **options: int) -> None:
        self.now_ns = 10**18
        self.spans: Counter[SessionKey] = Counter()
        self.gaps = Gaps(lease_ns=options.get("lease_ns", LEASE_NS), spans_of=self.spans.__getitem__)

    def beat(self, library: str = "i") -> None:
        self.gaps.heard(REALM, library, self.now_ns)

    def attend(self, key: SessionKey = KEY, library: str = "i") -> None:
        self.beat(library)
        self.gaps.attended(key, library)

    def grant(self, act: str = "a", key: SessionKey = KEY) -> None:
        self.gaps.granted(key, act, self.now_ns)

    def end(self, act: str = "a", key: SessionKey = KEY) -> None:
        self.gaps.ended(key, act, self.now_ns)

    def span(self, key: SessionKey = KEY, *, is_skewed: bool = False) -> None:
        self.spans[key] += 1
        if is_skewed or self.gaps.minds_clock:
            self.gaps.dated(key, self.now_ns, is_skewed=is_skewed)

    def wait(self, ns: int, *, beats: str = "i") -> None:
        """Time passes, with a heartbeat each third of a lease from `beats`, "" for none."""
        until_ns = self.now_ns + ns
        while beats and self.now_ns + LEASE_NS // 3 < until_ns:
            self.now_ns += LEASE_NS // 3
            self.beat(beats)
        self.now_ns = until_ns
        if beats:
            self.beat(beats)

    def why(self, key: SessionKey = KEY) -> tuple[str, ...]:
        return self.gaps.reasons(key, self.now_ns)


# ---------------------------------------------------------------- who is healthy


def test_idle_agents_are_never_degraded_in_a_day_with_the_library_and_without() -> None:
    """24 simulated hours of 20 agents of each kind: heartbeats and nothing else, nothing at all; some work at first."""
    world = World()
    here = [SessionKey(REALM, f"with-{number}") for number in range(20)]
    bare = [SessionKey("agent:bare", f"without-{number}") for number in range(20)]
    for number, key in enumerate(here):
        world.attend(key, f"i{number}")
    for number, key in enumerate((*here, *bare)):
        for act in range(number % 3):  # a third of them has never done a thing
            world.grant(f"a{act}", key)
            if key in here and number % 2:
                world.end(f"a{act}", key)
            world.span(key)
            if key in here:  # its outcome may come first, or its span
                world.end(f"a{act}", key)
    false = 0
    for second in range(0, DAY_S, 2):
        world.now_ns += 2 * SECOND_NS
        for number in range(20):
            world.beat(f"i{number}")
        if second % 10 == 0:
            world.gaps.look(world.now_ns)
            false += len(world.gaps.listed)
    assert false == 0
    assert not any(world.why(key) for key in (*here, *bare))


def test_agent_that_works_all_day_is_never_degraded() -> None:
    world = World()
    world.attend()
    for number in range(2000):
        world.grant(f"a{number}")
        world.wait(SECOND_NS * (number % 20))
        world.end(f"a{number}")
        world.wait(SECOND_NS // 5)
        world.span()
        assert world.why() == ()
        world.wait(SECOND_NS * (number % 40))
        assert world.why() == ()


def test_long_act_within_which_things_are_told_is_no_gap() -> None:
    world = World()
    world.attend()
    world.grant()
    for _ in range(20):
        world.wait(UNTOLD_NS - SECOND_NS)
        world.span()
        assert world.why() == ()


def test_agent_that_says_goodbye_is_not_missed() -> None:
    world = World()
    world.attend()
    world.gaps.left(REALM, "i")
    world.wait(DAY_S * SECOND_NS, beats="")
    assert world.why() == ()


def test_session_that_goes_on_in_another_process_is_not_missed() -> None:
    world = World()
    world.attend(library="i")
    world.attend(library="j")
    world.wait(10 * LOST_NS, beats="j")
    assert world.why() == ()
    world.wait(10 * LOST_NS, beats="")
    assert world.why() == ("library",)


def test_session_that_only_asks_and_never_tells_is_not_expected_to() -> None:
    world = World()
    world.grant()
    world.wait(10 * UNTOLD_NS, beats="")
    assert world.why() == ()


# ---------------------------------------------------------------- each fault, and its end


def lost_library(world: World) -> Callable[[], None]:
    world.attend()
    world.wait(LOST_NS, beats="")
    return world.beat


def act_nobody_tells_of(world: World) -> Callable[[], None]:
    world.attend()
    world.span()
    world.grant()
    world.wait(UNTOLD_NS)
    return world.span


def act_without_the_library(world: World) -> Callable[[], None]:
    world.span()
    world.grant()
    world.wait(UNTOLD_NS, beats="")
    return world.span


def exporter_that_stopped(world: World) -> Callable[[], None]:
    """Tools go on, and their outcomes are told; their spans are not."""
    world.attend()
    world.grant("first")
    world.end("first")
    for number in range(UNTOLD_NS // SECOND_NS):
        world.wait(SECOND_NS)
        world.grant(f"a{number}")
        world.end(f"a{number}")
    return world.span


def wrong_clock(world: World) -> Callable[[], None]:
    world.attend()
    world.now_ns -= 1
    world.span(is_skewed=True)
    return world.span


FAULTS = {
    lost_library: ("library", LOST_NS),
    act_nobody_tells_of: ("outcome", UNTOLD_NS),
    act_without_the_library: ("outcome", UNTOLD_NS),
    exporter_that_stopped: ("span", UNTOLD_NS),
    wrong_clock: ("clock", 0),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_fault_degrades_in_time_not_before_and_its_end_ends_it(fault: Callable[[World], Callable[[], None]]) -> None:
    world = World()
    reason, _ = FAULTS[fault]
    mend = fault(world)
    if reason != "clock":
        assert world.why() == (), "not before its time"
    world.now_ns += 1
    assert world.why() == (reason,)
    assert world.gaps.look(world.now_ns) == {KEY: (reason,)}
    assert world.gaps.listed == {KEY: (reason,)}
    assert world.gaps.look(world.now_ns) == {}, "it is told once"
    mend()
    assert world.why() == ()
    assert world.gaps.look(world.now_ns) == {}
    assert world.gaps.listed == {}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_without_its_limit_a_fault_would_go_unnoticed(
    fault: Callable[[World], Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with the line that notices it taken out, nothing is noticed."""
    monkeypatch.setattr(gaps, "UNTOLD_NS", 2**62)
    monkeypatch.setattr(Gaps, "dated", lambda *_, **__: None)
    world = World(lease_ns=2**61)
    fault(world)
    world.now_ns += 1
    assert world.why() == ()


def test_gap_that_ended_and_comes_again_is_told_again() -> None:
    world = World()
    world.attend()
    told = []
    for _ in range(3):
        world.wait(LOST_NS + 1, beats="")
        told.append(world.gaps.look(world.now_ns))
        world.beat()
        assert world.gaps.look(world.now_ns) == {}
    assert told == 3 * [{KEY: ("library",)}]


def test_gap_of_long_ago_is_not_listed_and_still_one() -> None:
    world = World()
    world.attend()
    world.wait(LOST_NS + 1, beats="")
    world.gaps.look(world.now_ns)
    world.wait(LISTED_NS + 1, beats="")
    world.gaps.look(world.now_ns)
    assert (world.gaps.listed, world.why()) == ({}, ("library",))


def test_gap_moves_with_its_session() -> None:
    world = World()
    named = SessionKey(REALM, "named")
    world.attend()
    world.span(is_skewed=True)
    world.gaps.look(world.now_ns)
    world.gaps.renamed(KEY, named)
    world.spans[named] = world.spans.pop(KEY)
    world.wait(LOST_NS + 1, beats="")
    assert (world.why(), world.why(named)) == ((), ("library", "clock"))
    world.gaps.look(world.now_ns)
    assert list(world.gaps.listed) == [named]


def test_one_of_two_sessions_does_not_speak_for_the_other() -> None:
    world = World()
    other = SessionKey(REALM, "other")
    world.attend()
    world.attend(other)
    world.grant()
    world.wait(UNTOLD_NS + 1)
    world.span(other)
    assert (world.why(), world.why(other)) == (("outcome",), ())


# ---------------------------------------------------------------- bounds


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in {"MAX_SESSIONS": 8, "MAX_LIBRARIES": 8, "MAX_OPEN": 4, "MAX_OF_SESSION": 2}.items():
        monkeypatch.setattr(gaps, name, limit)
    world = World()
    for number in range(100):
        key = SessionKey(REALM, f"s{number}")
        for part in range(10):
            world.attend(key, f"i{number}-{part}")
            world.grant(f"a{part}", key)
        world.span(key, is_skewed=True)
        world.gaps.look(world.now_ns)
    known = world.gaps
    assert (len(known._sessions), len(known._heard)) == (8, 8)
    assert max(len(known._skewed), len(known.listed)) <= 8
    assert {len(seen.libraries) for seen in known._sessions.values()} == {2}
    assert max(len(seen.open) for seen in known._sessions.values()) <= 4


def test_look_takes_so_many_at_a_time_and_comes_round() -> None:
    world = World()
    keys = [SessionKey(REALM, f"s{number}") for number in range(10)]
    for key in keys:
        world.attend(key)
    world.wait(LOST_NS + 1, beats="")
    told = [world.gaps.look(world.now_ns, most=4) for _ in range(4)]
    assert [len(one) for one in told] == [4, 4, 2, 0]
    assert set(world.gaps.listed) == set(keys)


STEPS = st.lists(st.tuples(st.sampled_from(("beat", "attend", "grant", "end", "span", "skewed", "wait", "look")),
                           st.integers(0, 2), st.integers(0, 40)), max_size=60)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_whatever_happens_who_is_heard_tells_and_has_nothing_open_is_whole(
    steps: list[tuple[str, int, int]],
) -> None:
    world = World()
    keys = [SessionKey(REALM, f"s{number}") for number in range(3)]
    for step, which, much in steps:
        key = keys[which]
        if step == "beat":
            world.beat(f"i{which}")
        elif step == "attend":
            world.attend(key, f"i{much % 3}")
        elif step in ("grant", "end"):
            getattr(world, step)(f"a{much % 3}", key)
        elif step in ("span", "skewed"):
            world.span(key, is_skewed=step == "skewed")
        elif step == "wait":
            world.now_ns += much * SECOND_NS
        else:
            world.gaps.look(world.now_ns)
        assert all(set(world.why(key)) <= set(REASONS) for key in keys)
    for number in range(3):
        world.beat(f"i{number}")
    for key in keys:
        world.span(key)
    assert not any(world.why(key) for key in keys)
    world.gaps.look(world.now_ns)
    assert world.gaps.listed == {}
