"""A snapshot is one moment, however long its writing takes; who goes on from it was never interrupted."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.events import SessionKey
from sidecar.core.pipeline import Pipeline
from sidecar.core.snapshot import Snapshots, restore
from sidecar.core.span import Speaker
from tests.core.kit import LOCAL, Diary, Marked, Stage, tool
from tests.core.stories import Step, encoded, fresh, play, story

SEEDS = st.integers(0, 10**6)
SLOW = settings(max_examples=30)


class Store:
    """What a snapshot store keeps, and what control.db and the alerts' table keep beside it."""

    def __init__(self, core: Pipeline) -> None:
        self.core, self.snapshots = core, Snapshots(core)
        self.blobs: dict[str, bytes] = {}

    def take(self) -> None:
        """A whole snapshot, at once."""
        self.snapshots.begin()
        while self.snapshots.step():
            pass
        self.keep()

    def keep(self) -> None:
        upserts, deletes = self.snapshots.take()
        for name in deletes:
            self.blobs.pop(name, None)
        self.blobs |= upserts

    def restarted(self) -> Store:
        """Another process, with what was stored."""
        core = fresh()
        for key, run in self.core.runs:
            core.runs.restore(key, msgspec.msgpack.decode(msgspec.msgpack.encode(run), type=type(run)))
        for alert in sorted(self.core.alerts, key=lambda one: (one.opened_ns, one.fingerprint)):
            core.alerts.restore(alert)
        assert restore(core, self.blobs) == []
        twin = Store(core)
        twin.blobs = dict(self.blobs)
        return twin


def whole(core: Pipeline) -> dict[str, bytes]:
    """Everything the pipeline knows, as a fresh snapshot would hold it."""
    store = Store(core)
    for session in core.sessions:
        core.sessions.touched(session)
    for agent in core.engine.agents.values():
        core.engine.touched(agent)
    for key in core.weaver.bindings.traces:
        core.weaver.bindings.touched(key)
    store.take()
    return store.blobs


# ---------------------------------------------------------------- going on from it


@SLOW
@given(SEEDS, st.sets(st.integers(0, 60), max_size=4))
def test_who_goes_on_from_a_snapshot_was_never_interrupted(seed: int, cuts: set[int]) -> None:
    steps = story(seed)
    reference, store = fresh(), Store(fresh())
    for number, step in enumerate(steps):
        if number in cuts:
            store.take()
            store = store.restarted()
        assert encoded(play(store.core, step)) == encoded(play(reference, step)), (number, step.do)
    assert whole(store.core) == whole(reference)
    assert dict(store.core.runs) == dict(reference.runs)
    assert {a.fingerprint: a for a in store.core.alerts} == {a.fingerprint: a for a in reference.alerts}


@SLOW
@given(SEEDS, st.integers(0, 30), st.integers(1, 30))
def test_telemetry_that_is_fed_again_after_a_crash_comes_to_the_same_end(seed: int, cut: int, gap: int) -> None:
    """The snapshot is older than the crash; run states and alerts are on record up to it."""
    steps = [step for step in story(seed, gated=0) if step.do in ("feed", "tick")]
    reference = fresh()
    for step in steps:
        play(reference, step)
    store = Store(fresh())
    pauses: set[str] = set()
    for step in steps[:cut]:
        play(store.core, step)
    store.take()
    for step in steps[cut : cut + gap]:
        pauses |= {change.pause_id for change in play(store.core, step).transitions}
    store = store.restarted()
    store.core.known_pauses = frozenset(pauses)
    for step in steps[cut:]:
        play(store.core, step)
    assert whole(store.core) == whole(reference)
    assert _states(store.core) == _states(reference)
    assert {alert.fingerprint for alert in store.core.alerts} == {alert.fingerprint for alert in reference.alerts}


def _states(core: Pipeline) -> dict[SessionKey, tuple[str, tuple[str, ...]]]:
    return {key: (run.desired, tuple(sorted(run.causes))) for key, run in core.runs}


# ---------------------------------------------------------------- one moment


@SLOW
@given(SEEDS, st.integers(0, 40), st.randoms(use_true_random=False))
def test_a_snapshot_that_is_written_while_work_goes_on_holds_the_moment_it_began(
    seed: int, moment: int, chance: random.Random
) -> None:
    steps = story(seed)
    moment = min(moment, len(steps))
    slow, at_once = Store(fresh()), Store(fresh())
    for step in steps[:moment]:
        play(slow.core, step)
        play(at_once.core, step)
    at_once.take()
    slow.snapshots.begin()
    more = True
    for step in steps[moment:]:
        for _ in range(chance.randrange(3)):
            more = more and slow.snapshots.step()
        play(slow.core, step)
    while slow.snapshots.step():
        pass
    slow.keep()
    assert slow.blobs == at_once.blobs


@SLOW
@given(SEEDS, st.lists(st.booleans(), min_size=60, max_size=60))
def test_what_changed_since_the_last_snapshots_adds_up_to_the_whole(seed: int, taken: list[bool]) -> None:
    store = Store(fresh())
    for step, take in zip(story(seed), taken, strict=False):
        play(store.core, step)
        if take:
            store.take()
    store.take()
    assert store.blobs == whole(store.core)


@SLOW
@given(SEEDS, st.integers(1, 20))
def test_a_snapshot_that_could_not_be_stored_is_made_up_for_by_the_next(seed: int, every: int) -> None:
    store = Store(fresh())
    for number, step in enumerate(story(seed)):
        play(store.core, step)
        if number % every == 0:
            store.snapshots.begin()
            while store.snapshots.step():
                pass
            store.snapshots.failed(*store.snapshots.take())
    store.take()
    assert store.blobs == whole(store.core)


def test_nothing_has_changed_where_nothing_has_happened() -> None:
    store = Store(fresh())
    _play_all(store.core, story(1))
    store.take()
    store.snapshots.begin()
    while store.snapshots.step():
        pass
    upserts, deletes = store.snapshots.take()
    assert (list(upserts), deletes) == (["held"], [])


# ---------------------------------------------------------------- what it holds, and what cannot be used


def test_a_held_act_waits_for_its_person_across_a_restart() -> None:
    stage = Stage(Marked)
    decision = stage.ask("s", "send_mail", {"mark": "high"}, "call-000000000001").decision
    assert decision is not None
    store = Store(stage.core)
    store.take()
    after = Stage(Marked)
    assert restore(after.core, store.blobs) == []
    released = after.core.release(decision.event_id, stage.now_ns)
    assert released is not None
    assert released.answer == "allow"


def test_what_is_not_learned_yet_is_learned_after_a_restart() -> None:
    Diary.pages.clear()
    stage = Stage(Diary)
    stage.ask("s", "read_file")
    store = Store(stage.core)
    stage.core.engine.touched(stage.core.engine.agents["local", "clerk"])
    stage.core.sessions.touched(stage.session("s"))
    store.take()
    after = Stage(Diary)
    assert restore(after.core, store.blobs) == []
    after.tick(10_000)
    assert [verb for verb, _ in Diary.pages].count("learn") == 1
    Diary.pages.clear()


def _play_all(core: Pipeline, steps: Iterable[Step]) -> None:
    for step in steps:
        play(core, step)


@cache
def blobs() -> dict[str, bytes]:
    """A snapshot of some stories."""
    core = fresh()
    for seed in range(6):
        _play_all(core, story(seed))
    return whole(core)


@SLOW
@given(st.data())
def test_a_damaged_piece_is_named_and_the_others_are_used(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(blobs())))
    blob = bytearray(blobs()[name])
    where = data.draw(st.integers(0, len(blob) - 1))
    blob[where] ^= data.draw(st.integers(1, 255))
    core = fresh()
    refused = restore(core, blobs() | {name: bytes(blob)})
    assert {one for one, _ in refused} <= {name}
    assert len(core.sessions) >= sum(one.startswith("s/") for one in blobs()) - 1


@pytest.mark.parametrize(
    "blob", [b"", b"\x80", b"\xc1", b"cos\nsystem\n(S'id'\ntR.", b"\x93\x01\x02\x03", b"\x90"],
    ids=["empty", "an empty map", "never used", "a pickle", "numbers", "an empty list"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["s/local\0x", "a/local\0x", "t/local\0x", "held", "z/what", ""])
def test_junk_in_the_place_of_a_piece_stops_nothing(name: str, blob: bytes) -> None:
    core = fresh()
    refused = restore(core, blobs() | {name: blob})
    assert name in {one for one, _ in refused} or (name, blob) in (("held", b"\x90"), ("t/local\0x", b"\x80"))
    assert len(core.sessions) == sum(one.startswith("s/") for one in blobs())


def test_a_detector_that_is_not_there_any_more_is_left_out_and_the_session_kept() -> None:
    core = fresh()
    _play_all(core, story(3))
    after = Stage(Marked)
    assert restore(after.core, whole(core)) == []
    assert len(after.core.sessions) == len(core.sessions)
    assert all(not session.states for session in after.core.sessions)
    assert after.answer(next(iter(after.core.sessions)).key.id, "read_file") in ("allow", "deny")


def test_states_of_two_realms_are_told_apart() -> None:
    stage = Stage(Marked)
    store = Store(stage.core)
    for realm in ("agent:a", "agent:b"):
        stage.feed(tool("read_file", {}, session="same", agent="clerk", word=realm), Speaker(realm, "authenticated"))
    stage.feed(tool("read_file", {}, session="same", agent="clerk", word="local"), LOCAL)
    store.take()
    after = Stage(Marked)
    assert restore(after.core, store.blobs) == []
    assert {session.key for session in after.core.sessions} == {session.key for session in stage.core.sessions}
    assert len(after.core.sessions) == 3
