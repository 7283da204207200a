"""Bulk work takes turns, so that the loop's other work waits for one slice a pass, however much there is to do."""

from __future__ import annotations

import asyncio

from sidecar.sources import turns
from sidecar.sources.turns import SLICE_NS, Turn, clear_way, make_way


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


async def work(name: str, slices: int, done: list[str]) -> None:
    turn = Turn(Clock())
    for _ in range(slices):
        await turn.next()
        done.append(name)


async def passes(of: asyncio.Future, done: list[str]) -> list[int]:
    """How many slices were done in each pass of the loop."""
    seen = []
    while not of.done():
        before = len(done)
        await asyncio.sleep(0)
        seen.append(len(done) - before)
    return seen


async def test_one_slice_a_pass_however_many_wait():
    done: list[str] = []
    everybody = asyncio.gather(*(work(name, 5, done) for name in "abcd"))
    assert max(await passes(everybody, done)) == 1
    assert sorted(done) == sorted("abcd" * 5)


async def test_turns_go_round():
    done: list[str] = []
    await asyncio.gather(*(work(name, 3, done) for name in "abc"))
    assert "".join(done) == "abc" * 3


async def test_who_leaves_while_waiting_holds_up_nobody():
    done: list[str] = []
    leaving = asyncio.ensure_future(work("x", 10, done))
    staying = asyncio.ensure_future(work("a", 10, done))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait_for(staying, 10)
    assert done.count("a") == 10
    await asyncio.wait_for(work("b", 2, done), 10)  # nor the next one, once nobody waits any more
    assert done[-2:] == ["b", "b"]


async def test_no_slice_begins_while_something_urgent_is_under_way(monkeypatch):
    monkeypatch.setattr(turns, "WAY_NS", 2**62)
    done: list[str] = []
    working = asyncio.ensure_future(work("a", 100, done))
    for _ in range(20):
        await asyncio.sleep(0)
    make_way()
    at = len(done)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(done) <= at + 1  # one had been let in already
    clear_way()
    await asyncio.wait_for(working, 10)


async def test_bulk_work_goes_on_when_what_was_urgent_never_ends():
    done: list[str] = []
    make_way()
    await asyncio.wait_for(work("a", 3, done), 10)
    assert done == ["a"] * 3


async def test_bulk_work_has_its_share_beside_one_urgent_call_after_another():
    done: list[str] = []
    working = asyncio.ensure_future(work("a", 3, done))
    while not working.done():
        make_way()
        await asyncio.sleep(0)
    assert done == ["a"] * 3


async def test_slice_begins_when_it_is_let_in():
    clock = Clock()
    turn = Turn(clock)
    assert not turn.is_over()
    clock.now_ns += SLICE_NS
    assert turn.is_over()
    await turn.next()
    assert not turn.is_over()
