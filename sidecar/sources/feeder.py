"""Takes committed rows to the core, in order, in slices of some 0.1 ms, so that the gate need not wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.span import Span, Speaker
from sidecar.sources import Inbox, Row
from sidecar.sources.decode import Limits, decode
from sidecar.sources.identity import realm_of
from sidecar.sources.turns import Turn

log = logging.getLogger("sidecar.feeder")

MAX_SPANS, MAX_BYTES = 50_000, 64 * 2**20
"""Decoded spans, and bytes of the requests that they came in, kept in memory while they wait; what comes on top is
decoded again from the inbox."""


class Core(Protocol):
    """What takes the spans (`service.Service`)."""

    def feed(self, span: Span, speaker: Speaker, arrived_ns: int, position: tuple[int, int]) -> None:
        """Takes in one durable span; `position` is (row, index within the row)."""
        ...


class Meter(Protocol):
    """Counts what was fed."""

    def fed(self, spans: int, lag_s: float) -> None:
        """A row is fed: its spans, and the seconds since it arrived."""
        ...


class _Waiting(Struct, frozen=True):
    seq: int
    row: Row  # without its body
    spans: Sequence[Span] | None
    size_bytes: int = 0


class QueueFeeder:
    """Feeds rows to the core in the order they became durable. Memory: `MAX_SPANS` spans of requests of `MAX_BYTES`
    (decoded some three times that), and 200 B a waiting row.

    Attributes:
        fed_row: The last row whose spans have all been fed.
        failures: Spans that the core could not take; each is logged without its content.
    """

    def __init__(
        self,
        inbox: Inbox,
        core: Core,
        limits: Limits,
        *,
        meter: Meter | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        fed_row: int = 0,
    ) -> None:
        self._meter, self._wall_ns = meter, wall_ns
        self._inbox, self._core, self._limits, self._clock_ns = inbox, core, limits, clock_ns
        self._waiting: deque[_Waiting] = deque()
        self._kept = self._bytes = 0
        self._ready, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self.fed_row, self.failures = fed_row, 0

    def offer(self, seq: int, row: Row, spans: Sequence[Span]) -> None:
        """Says that `row` is durable as number `seq`."""
        size_bytes = len(row.body)
        keep = self._kept + len(spans) <= MAX_SPANS and (not self._kept or self._bytes + size_bytes <= MAX_BYTES)
        if keep:
            self._kept, self._bytes = self._kept + len(spans), self._bytes + size_bytes
        self._waiting.append(_Waiting(seq, replace(row, body=b""), spans if keep else None, size_bytes))
        self._idle.clear()
        self._ready.set()

    @property
    def backlog(self) -> int:
        """Rows that are durable and not fed yet."""
        return len(self._waiting)

    @property
    def waiting_since_ns(self) -> int:
        """Arrival of the oldest row that is not fed yet; 0 when there is none."""
        return self._waiting[0].row.arrived_ns if self._waiting else 0

    async def drained(self) -> None:
        """Waits until all that was offered has been fed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Feeds until cancelled."""
        turn = Turn(self._clock_ns)
        while True:
            await self._ready.wait()
            while self._waiting:
                await self._feed(self._waiting[0], turn)
                self._waiting.popleft()
            self._ready.clear()
            self._idle.set()

    async def _feed(self, waiting: _Waiting, turn: Turn) -> None:
        spans = waiting.spans
        if spans is None:
            spans = await asyncio.to_thread(self._again, waiting.seq)
        else:
            self._kept, self._bytes = self._kept - len(spans), self._bytes - waiting.size_bytes
        for index, span in enumerate(spans):
            if turn.is_over():
                await turn.next()
            self.feed(span, waiting.row, (waiting.seq, index))
        self.fed_row = waiting.seq
        if self._meter is not None:
            self._meter.fed(len(spans), max(0.0, (self._wall_ns() - waiting.row.arrived_ns) / 1e9))

    def feed(self, span: Span, row: Row, position: tuple[int, int]) -> None:
        """Gives one span to the core; a span that breaks it must not stop the others."""
        try:
            self._core.feed(span, realm_of(span, row.speaker), row.arrived_ns, position)
        except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
            raise
        except BaseException as error:  # extension modules panic with BaseException (reliability.md M2)
            self.failures += 1
            log.error("a span could not be judged", extra={"row": position[0], "reason": type(error).__name__})

    def _again(self, seq: int) -> Sequence[Span]:
        rows = self._inbox.read(seq - 1, 1)
        if not rows or rows[0][0] != seq:
            return ()
        row = rows[0][1]
        return decode(row.kind, row.body, row.encoding, self._limits).spans  # type: ignore[arg-type]
