"""What an agent role usually does, as fading counts: tools, which follows which, destinations."""

from __future__ import annotations

import math
from typing import Any

MAX_TOOLS, MAX_PAIRS, MAX_PLACES = 512, 4096, 4096
FADE = 0.999
"""Weight of the past per learned act: half of it is forgotten after about 700 acts."""
SMOOTH = 0.5
"""Pseudo-count of an outcome that was never seen (Krichevsky-Trofimov)."""


class Habits:
    """Fading counts of one agent role. Memory: `MAX_TOOLS` + `MAX_PAIRS` + `MAX_PLACES` entries.

    Counts fade by growing the weight of what is new, so that a step costs the same whatever is remembered.
    """

    def __init__(self) -> None:
        self._weight = 1.0
        self._tools: dict[str, float] = {}
        self._pairs: dict[str, float] = {}
        self._from: dict[str, float] = {}
        self._places: dict[str, float] = {}
        self._total = 0.0
        self.learned = 0

    def tool_surprise(self, tool: str) -> float:
        """Bits by which this tool surprises, >= 0."""
        return _bits(self._tools.get(tool, 0.0), self._total, len(self._tools), self._weight)

    def step_surprise(self, before: str, tool: str) -> float:
        """Bits by which `tool` surprises after `before`; backs off to the tool alone where the pair is unknown."""
        seen = self._from.get(before, 0.0)
        if seen <= 0.0:
            return self.tool_surprise(tool)
        return _bits(self._pairs.get(f"{before}\0{tool}", 0.0), seen, len(self._tools), self._weight)

    def knows(self, place: str) -> bool:
        """Whether content has gone there before."""
        return place in self._places

    def learn(self, before: str, tool: str, places: tuple[str, ...]) -> None:
        """Takes in one act."""
        self.learned += 1
        self._weight /= FADE
        if self._weight > 1e12:
            self._rescale()
        weight = self._weight
        _add(self._tools, tool, weight, MAX_TOOLS)
        _add(self._pairs, f"{before}\0{tool}", weight, MAX_PAIRS)
        _add(self._from, before, weight, MAX_TOOLS)
        self._total += weight
        for place in places:
            _add(self._places, place, weight, MAX_PLACES)

    def _rescale(self) -> None:
        for counts in (self._tools, self._pairs, self._from, self._places):
            for name in counts:
                counts[name] /= self._weight
        self._total /= self._weight
        self._weight = 1.0

    def dump(self) -> dict[str, Any]:
        return {
            "weight": self._weight, "tools": self._tools, "pairs": self._pairs, "from": self._from,
            "places": self._places, "total": self._total, "learned": self.learned,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        self._weight, self._total, self.learned = float(state["weight"]), float(state["total"]), int(state["learned"])
        self._tools, self._pairs = dict(state["tools"]), dict(state["pairs"])
        self._from, self._places = dict(state["from"]), dict(state["places"])


def _bits(count: float, total: float, outcomes: int, weight: float) -> float:
    smooth = SMOOTH * weight
    return -math.log2((count + smooth) / (total + smooth * (outcomes + 1)))


def _add(counts: dict[str, float], name: str, weight: float, limit: int) -> None:
    counts[name] = counts.pop(name, 0.0) + weight
    if len(counts) > limit:
        del counts[next(iter(counts))]
