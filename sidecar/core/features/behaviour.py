"""The feature vector of an act: what it is, against what its agent usually does. Every number is within 0..1.

Texts do not enter: what an act says is the content detectors' matter.
"""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from sidecar.core.events import ToolCall
from sidecar.core.features.habits import Habits
from sidecar.core.features.scaling import clip, squash

NAMES = (
    "tool_surprise",  # bits, half at 4
    "step_surprise",  # bits of this tool after the one before, half at 4
    "new_places",  # share of destinations never sent to
    "outward",  # share of destinations outside the organisation
    "places",  # number of destinations, half at 3
    "gap",  # seconds since the act before, half at 10
    "pace",  # acts of the last complete minute, half at 20
    "arguments",  # characters of arguments, half at 1,000
    "depth",  # acts so far in this session, half at 20
    "taken_in",  # characters read so far, half at 20,000
    "sent_out",  # characters sent so far, half at 5,000
    "failures",  # share of the last acts that failed, fading
    "irreversible",  # 0 or 1
    "hour_sine",  # time of day, UTC
    "hour_cosine",
)
SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS


class Tempo(Struct, gc=False):
    """What one session has done so far, as far as features need it."""

    last_ns: int = 0
    tool: str = ""
    acts: int = 0
    minute: int = 0
    this_minute: int = 0
    last_minute: int = 0
    taken_in: int = 0
    sent_out: int = 0
    failures: float = 0.0

    def begin(self, event: ToolCall, size: int) -> None:
        """An act starts; `size` is the length of its arguments in characters."""
        minute = event.at_ns // (60 * SECOND_NS)
        if minute != self.minute:
            self.last_minute = self.this_minute if minute == self.minute + 1 else 0
            self.minute, self.this_minute = minute, 0
        self.this_minute += 1
        self.acts += 1
        self.last_ns, self.tool = event.at_ns, event.reading.effect.tool or event.tool
        if event.reading.effect.sends:
            self.sent_out += size

    def end(self, event: ToolCall, size: int) -> None:
        """An act has ended with `size` characters of result."""
        self.taken_in += size
        self.failures = 0.9 * self.failures + (0.1 if event.failed else 0.0)


def vector(event: ToolCall, tempo: Tempo, habits: Habits, size: int) -> tuple[float, ...]:
    """The act's features in the order of `NAMES`, before `tempo.begin` has taken it in."""
    tool = event.reading.effect.tool or event.tool
    places = event.reading.destinations
    count = len(places)
    new = sum(not habits.knows(where.address) for where in places)
    outward = sum(where.relation in ("outside", "personal") for where in places)
    angle = 2.0 * math.pi * (event.at_ns % DAY_NS) / DAY_NS
    gap_s = (event.at_ns - tempo.last_ns) / SECOND_NS if tempo.last_ns else 0.0
    numbers = (
        squash(habits.tool_surprise(tool), 4.0),
        squash(habits.step_surprise(tempo.tool, tool), 4.0),
        new / count if count else 0.0,
        outward / count if count else 0.0,
        squash(count, 3.0),
        squash(gap_s, 10.0),
        squash(tempo.last_minute, 20.0),
        squash(size, 1000.0),
        squash(tempo.acts, 20.0),
        squash(tempo.taken_in, 20_000.0),
        squash(tempo.sent_out, 5_000.0),
        tempo.failures,
        0.0 if event.reading.effect.reversible else 1.0,
        0.5 + 0.5 * math.sin(angle),
        0.5 + 0.5 * math.cos(angle),
    )
    return tuple(map(clip, numbers))


def text_size(value: Any) -> int:
    """Characters of arguments or a result, without building a text of them."""
    size, stack = 0, [value]
    for _ in range(4096):
        if not stack:
            break
        item = stack.pop()
        if isinstance(item, str | bytes):
            size += len(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif item is not None:
            size += 4
    return size
