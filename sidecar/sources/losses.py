"""Telemetry that was refused or lost: by identity and reason, until a person has been told.

An identity of which telemetry is missing is looked at with one eye shut: for as long as its loss is `is_recent` its
irreversible acts wait (`degraded`; reliability.md, attack 4), and the loss is one alert (`telemetry_dropped`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from msgspec import Struct, field

from sidecar.core.digests import remember
from sidecar.core.span import Speaker
from sidecar.core.triage.alerts import QUIET_NS
from sidecar.sources.intake import LATER, Counts

RECENT_NS = 30 * 10**9
"""How long after the last loss an identity counts as not wholly seen."""
AGAIN_NS = 5 * 10**9
"""A loss that goes on is told again at most this often; the first of it at the next tick."""
MAX_IDENTITIES = 1_024


class Loss(Struct):
    """What one identity has lost; of requests that nobody could read the spans are not counted.

    Attributes:
        requests, spans: By reason, all that counts as one alert so far.
        last_ns, told_ns: A monotonic clock: the last loss, and when it was last told.
        told: The `amount` that was told then.
    """

    speaker: Speaker
    last_ns: int
    told_ns: int = 0
    told: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    spans: Counter[str] = field(default_factory=Counter)

    def concerns(self, realm: str) -> bool:
        """Whether telemetry of that realm may be among what was lost."""
        return concerns(self.speaker, realm)

    @property
    def amount(self) -> int:
        """Spans, and requests of unknown spans."""
        return self.requests.total() + self.spans.total()

    @property
    def text(self) -> str:
        """What a reviewer reads: reasons and numbers, nothing that was sent."""
        parts = [
            f"{reason}: {self.requests[reason]} requests, {self.spans[reason]} spans"
            for reason in sorted(self.requests.keys() | self.spans.keys())
        ]
        return f"telemetry was refused or lost ({'; '.join(parts)}); what the agent did meanwhile may be missing"


class Losses:
    """Passes all counts on, and keeps what was lost. Memory: `MAX_IDENTITIES` identities, the oldest forgotten first.

    Args:
        clock_ns: A monotonic clock.
    """

    def __init__(self, counts: Counts, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._counts, self._clock_ns = counts, clock_ns
        self._losses: dict[str, Loss] = {}

    # ------------------------------------------------------------ sources.intake.Counts

    def stored(self, door: str, kind: str, spans: int) -> None:
        self._counts.stored(door, kind, spans)

    def refused(self, door: str, reason: str, *, requests: int, spans: int, speaker: Speaker | None = None) -> None:
        self._counts.refused(door, reason, requests=requests, spans=spans, speaker=speaker)
        if speaker is None or (reason in LATER and (door == "kafka" or speaker.speaks_for)):
            return  # nobody we know; or one who keeps what it carries, and comes again
        self.note(speaker, reason, requests=requests, spans=spans)

    def lost(self, door: str, spans: int, *, speaker: Speaker | None = None) -> None:
        self._counts.lost(door, spans, speaker=speaker)
        if speaker is not None:
            self.note(speaker, "aborted", requests=1, spans=spans)

    def noted(self, door: str, note: str, spans: int) -> None:
        self._counts.noted(door, note, spans)

    def ignored(self, door: str, kind: str) -> None:
        self._counts.ignored(door, kind)

    # ------------------------------------------------------------ what follows

    def note(self, speaker: Speaker, reason: str, *, requests: int, spans: int) -> None:
        """Telemetry of an identity is missing."""
        now_ns = self._clock_ns()
        loss = self._losses.get(speaker.realm)
        if loss is None or now_ns - loss.last_ns > QUIET_NS:  # its alert has resolved
            loss = Loss(speaker, now_ns)
        loss.last_ns = now_ns
        loss.requests[reason] += requests
        loss.spans[reason] += spans
        remember(self._losses, speaker.realm, loss, MAX_IDENTITIES)

    def untold(self) -> Iterator[Loss]:
        """What is to be told now: first losses at once, those that go on every `AGAIN_NS`."""
        now_ns = self._clock_ns()
        for loss in self._losses.values():
            if loss.amount > loss.told and (not loss.told or now_ns - loss.told_ns >= AGAIN_NS):
                loss.told, loss.told_ns = loss.amount, now_ns
                yield loss

    def is_recent(self, realm: str) -> bool:
        """Whether telemetry of that realm, or of who may speak for it, was lost of late."""
        now_ns = self._clock_ns()
        return any(now_ns - loss.last_ns <= RECENT_NS and loss.concerns(realm) for loss in self._losses.values())


def concerns(speaker: Speaker, realm: str) -> bool:
    """Whether telemetry of that realm may come from `speaker`: it is its own, or that of who it speaks for."""
    if not realm.startswith("agent:") or speaker.realm == realm:
        return speaker.realm == realm
    return realm.removeprefix("agent:") in speaker.speaks_for or "*" in speaker.speaks_for
