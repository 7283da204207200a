"""Who may use the loop when: bulk work takes turns, one slice a pass of the loop, so that a question at the gate waits
for one slice wherever it has to wait, however many requests are being decoded and fed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

SLICE_NS = 100_000


class Turn:
    """One piece of bulk work's share of its loop: slices of `SLICE_NS`, each after all others have had theirs.

    A question at the gate takes some five passes of the loop. Were each piece of work to come again by itself in every
    pass, the question would wait for five slices of every one of them.
    """

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


class _Lane:
    """Those who wait for a slice of one loop, in order."""

    def __init__(self) -> None:
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

    def _let_one_in(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # nobody has cancelled it
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
