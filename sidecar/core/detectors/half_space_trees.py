"""Acts that are unlike what this agent role usually does: half-space trees over behaviour features."""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from sidecar.core.digests import remember
from sidecar.core.events import Event, SessionKey, ToolCall
from sidecar.core.examples import Example, act
from sidecar.core.features.behaviour import NAMES, Tempo, text_size, vector
from sidecar.core.features.forest import WINDOW, Forest, grow
from sidecar.core.features.habits import Habits
from sidecar.core.findings import Finding, Severity, finding

MATURE = 2 * WINDOW
"""Acts learned before anything is said: one window to build the reference mass, one to calibrate against."""
CALIBRATION = 1000
MAX_WAITING = 100_000


_PACK = struct.Struct(f"{len(NAMES)}d")


class _Waiting(Struct, frozen=True, gc=False):
    """An act that waits to be learned; `numbers` is its vector, packed, since so many numbers would be half a KB."""

    numbers: bytes
    before: str
    tool: str
    places: tuple[str, ...]

    @property
    def vector(self) -> tuple[float, ...]:
        return _PACK.unpack(self.numbers)


class HalfSpaceTrees:
    """p-value of an act's oddness against the agent's own past; a finding where it is at most `alpha`.

    Silent until `MATURE` acts of cleared sessions have been learned, and so many scores are there that one act in all
    of them could be as rare as `alpha`. Scores are turned into conformal p-values against the scores that cleared acts
    had before they were learned. Memory: a forest (40 KB), `CALIBRATION` scores,
    `waiting` vectors and as many sessions' tempo.
    """

    name = "half_space_trees"
    family = "behaviour"
    severity = Severity.MEDIUM
    scope = "agent"
    mode = "pause"
    sees = (ToolCall,)
    patterns = ()
    tags = ("AML.T0053",)

    def __init__(self, *, alpha: float = 0.002, waiting: int = 4096, grow: Callable[[], Any] = grow) -> None:
        if not 1.0 / CALIBRATION <= alpha < 1.0:  # fewer scores than that cannot tell so rare a thing
            raise ValueError(f"alpha is {1.0 / CALIBRATION} to 1")
        if not 1 <= waiting <= MAX_WAITING:
            raise ValueError(f"waiting is 1 to {MAX_WAITING}")
        self._alpha, self._limit = alpha, waiting
        self.habits, self.forest = Habits(), Forest(grow)
        self._tempos: dict[SessionKey, Tempo] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    @property
    def is_mature(self) -> bool:
        scores = len(self._sorted)
        return self.forest.learned >= MATURE and scores >= WINDOW and (scores + 1) * self._alpha >= 1.0

    def observe(self, event: Event) -> None:
        assert isinstance(event, ToolCall)
        tempo = self._tempos.get(event.session)
        if tempo is None:
            tempo = Tempo()
            remember(self._tempos, event.session, tempo, self._limit)
        if event.phase == "ended":
            tempo.end(event, text_size(event.result))
            return
        size = text_size(event.arguments)
        numbers = vector(event, tempo, self.habits, size)
        tool = event.reading.effect.tool or event.tool
        places = tuple(where.address for where in event.reading.destinations[:32])
        remember(self._waiting, event.event_id, _Waiting(_PACK.pack(*numbers), tempo.tool, tool, places), self._limit)
        tempo.begin(event, size)

    def score(self, event: Event) -> Finding | None:
        assert isinstance(event, ToolCall)
        if event.phase != "started" or not self.is_mature:
            return None
        waiting = self._waiting[event.event_id]
        numbers = waiting.vector
        p = self._p_value(self.forest.score(numbers))
        if p > self._alpha:
            return None
        odd = sorted(zip(numbers, NAMES, strict=True), reverse=True)[:3]
        text = f"unlike the last {len(self._sorted)} acts of this agent (p = {p:.4f}); highest: " + ", ".join(
            f"{name} {value:.2f}" for value, name in odd
        )
        severity = Severity.HIGH if p <= self._alpha / 2 else Severity.MEDIUM
        return finding(self, event, 1.0 - p, text, severity=severity)

    def learn(self, event: Event) -> None:
        assert isinstance(event, ToolCall)
        if event.phase != "started" or (waiting := self._waiting.pop(event.event_id, None)) is None:
            return
        numbers = waiting.vector
        if self.forest.is_warm:
            self._calibrate(self.forest.score(numbers))
        self.forest.learn(numbers)
        self.habits.learn(waiting.before, waiting.tool, waiting.places)

    def _p_value(self, score: float) -> float:
        """Conformal: the share of calibration scores at least as high, with the act itself counted in."""
        higher = len(self._sorted) - bisect_left(self._sorted, score)
        return (higher + 1) / (len(self._sorted) + 1)

    def _calibrate(self, score: float) -> None:
        self._recent.append(score)
        insort(self._sorted, score)
        if len(self._recent) > CALIBRATION:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def dump(self) -> dict[str, Any]:
        return {"habits": self.habits.dump(), "forest": self.forest.dump(), "recent": list(self._recent)}

    def load(self, state: dict[str, Any]) -> None:
        self.habits.load(state["habits"])
        self.forest.load(state["forest"])
        self._recent = deque(map(float, state["recent"]))
        self._sorted = sorted(self._recent)

    _DULL = (
        act("read_ticket", {"id": "1"}, after_s=4), act("search_docs", {"query": "printer"}, after_s=5),
        act("update_ticket", {"id": "1", "note": "fixed"}, after_s=6), act("read_ticket", {"id": "2"}, after_s=30),
    )  # fmt: skip
    examples = (
        Example("a tool never used, at once and with much text", after=_DULL, repeat=400, learn=True,
                event=act("export_database", {"query": "x" * 60_000}, after_s=0.01)),
        Example("the usual", after=_DULL, repeat=400, learn=True, flagged=False,
                event=act("read_ticket", {"id": "3"}, after_s=4)),
        Example("too little learned to say", after=_DULL, repeat=20, learn=True, flagged=False,
                event=act("export_database", {"query": "x" * 60_000}, after_s=0.01)),
    )  # fmt: skip
