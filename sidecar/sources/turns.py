"""Who may use the loop when: bulk work takes turns, one slice a pass of the loop, and gives way to what is urgent.

A question at the gate takes some five passes of the loop from its arrival to its answer. Were each request that is
decoded or fed to come again by itself in every pass, it would wait for five slices of every one of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

SLICE_NS = 100_000
WAY_NS = 5_000_000
"""How long bulk work gives way, and how long it does so at most when there is one urgent call after another."""
GAP, BUSY_NS = 2, 1_000_000_000
"""Passes between two slices while urgent calls come (in the last second one did): gRPC takes that many to say that
there is another, and only then can way be made for it."""


class Turn:
    """One piece of bulk work's share of its loop: slices of `SLICE_NS`, each after all others have had theirs."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._until_ns = clock_ns() + SLICE_NS

    def is_over(self) -> bool:
        """Whether this slice is used up."""
        return self._clock_ns() >= self._until_ns

    async def next(self) -> None:
        """Lets the loop go on, and waits for the next slice."""
        await _lane().slice()
        self._until_ns = self._clock_ns() + SLICE_NS


def make_way() -> None:
    """Something urgent has come: no slice begins until `clear_way`, or for `WAY_NS`."""
    lane, now_ns = _lane(), time.monotonic_ns()
    lane.way_until_ns, lane.busy_until_ns = now_ns + WAY_NS, now_ns + BUSY_NS


def clear_way() -> None:
    """It is done, or waits for something else than the loop."""
    _lane().go_on()


class _Lane:
    """Those who wait for a slice of one loop, in order."""

    def __init__(self) -> None:
        self.way_until_ns = self.busy_until_ns = self._let_in_ns = 0
        self._gap = 0
        self._later: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_open = False

    async def slice(self) -> None:
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if not self._is_open:
            self._is_open = True
            loop.call_soon(self._let_one_in, loop)
        await mine

    def go_on(self) -> None:
        self.way_until_ns = 0
        if self._later is not None:
            self._later.cancel()
            self._later = None
            loop = asyncio.get_running_loop()
            loop.call_soon(self._let_one_in, loop)

    def _let_one_in(self, loop: asyncio.AbstractEventLoop) -> None:
        self._later = None
        self._gap -= 1
        if self._gap >= 0:
            loop.call_soon(self._let_one_in, loop)
            return
        now_ns = time.monotonic_ns()
        if (wait_ns := min(self.way_until_ns, self._let_in_ns + WAY_NS) - now_ns) > 0:
            # The loop goes on with what is urgent, and sleeps until it hears of it: gRPC's threads need a core, too.
            self._later = loop.call_later(wait_ns / 1e9, self._let_one_in, loop)
            return
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # nobody has cancelled it
                self._let_in_ns = now_ns
                self._gap = GAP if now_ns < self.busy_until_ns else 0
                first.set_result(None)  # it runs in the loop's next pass, and who is let in next in the one after
                loop.call_soon(self._let_one_in, loop)
                return
        self._is_open = False


_lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane] = WeakKeyDictionary()


def _lane() -> _Lane:
    loop = asyncio.get_running_loop()
    lane = _lanes.get(loop)
    if lane is None:
        lane = _lanes[loop] = _Lane()
    return lane
