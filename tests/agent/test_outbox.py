"""Spans between their end and their export: each is exported, told, carried, pending or counted as dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.agent.outbox import Outbox


def key(n):
    return (1, n)


def test_newest_spans_are_carried_first_and_stand_in_order():
    outbox = Outbox(carried_bytes=100)
    for n, size in enumerate([60, 50, 30, 10]):
        outbox.add(key(n), "s", bytes([n]) * size)
    carried = outbox.carry("s")
    assert [part[0] for part in carried.encoded] == [1, 2, 3]
    assert carried.pending == [f"{1:032x}:{0:016x}"]


def test_span_bigger_than_all_room_is_pending_and_does_not_push_others_out():
    outbox = Outbox(carried_bytes=100)
    outbox.add(key(1), "s", b"a" * 50)
    outbox.add(key(2), "s", b"b" * 101)
    carried = outbox.carry("s")
    assert carried.keys == [key(1)]
    assert carried.pending == [f"{1:032x}:{2:016x}"]


def test_full_outbox_drops_and_counts():
    outbox = Outbox(capacity=2)
    assert [outbox.add(key(n), "s", b"x") for n in range(3)] == [True, True, False]
    assert outbox.dropped == 1


def test_bytes_are_bounded_too():
    outbox = Outbox(capacity_bytes=10)
    assert outbox.add(key(1), "s", b"x" * 10)
    assert not outbox.add(key(2), "s", b"x")


def test_span_that_was_told_is_not_dropped_when_its_export_fails():
    outbox = Outbox()
    outbox.add(key(1), "s", b"x")
    outbox.add(key(2), "s", b"x")
    outbox.told([key(1)])
    outbox.gave_up([key(1), key(2)])
    assert outbox.dropped == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "carry", "told", "export", "give up", "untell"]), st.integers(0, 2), st.integers(0, 60)
    ),
    max_size=60,
)


@given(STEPS)
def test_every_span_is_somewhere_and_only_once(steps):
    outbox = Outbox(capacity=20, capacity_bytes=400, carried_bytes=100)
    waiting: dict[tuple[int, int], str] = {}
    told: set[tuple[int, int]] = set()
    dropped = 0
    for n, (step, session, size) in enumerate(steps):
        name = f"s{session}"
        if step == "add":
            if outbox.add(key(n), name, b"x" * size):
                waiting[key(n)] = name
            else:
                dropped += 1
        elif step == "untell":
            outbox.untell()
            told.clear()
        else:
            carried = outbox.carry(name)
            mine = [k for k, owner in waiting.items() if owner == name and k not in told]
            names = [f"{a:032x}:{b:016x}" for a, b in mine if (a, b) not in carried.keys]
            assert carried.keys == [k for k in mine if k in carried.keys]
            assert carried.pending == names
            assert sum(map(len, carried.encoded)) <= 100
            first = list(waiting)[:3]
            if step == "told":
                outbox.told(carried.keys)
                told |= set(carried.keys)
            elif step == "export":
                outbox.exported(first)
            elif step == "give up":
                outbox.gave_up(first)
                dropped += sum(1 for k in first if k not in told)
            if step in ("export", "give up"):
                for k in first:
                    del waiting[k]
        assert len(outbox) == len(waiting) <= 20
        assert outbox.dropped == dropped
