"""What one detector says of one event."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from msgspec import Struct

from sidecar.core.events import Agent, Event, SessionKey

Family = Literal[
    "recipients", "leverage", "exfiltration", "self_preservation", "oversight", "omission", "hijack", "conduct",
    "behaviour", "telemetry",
]  # fmt: skip
FAMILIES: tuple[str, ...] = Family.__args__  # type: ignore[attr-defined]


class Severity(IntEnum):
    """How bad it would be if the finding is right."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def word(self) -> str:
        return self.name.lower()


class Evidence(Struct, frozen=True):
    """Where a finding rests.

    Attributes:
        span_id: ``trace_id:span_id`` of the span that holds the text.
        field: Dotted path of the content field.
        start, end: Character offsets in that field's text.
        excerpt: A redacted piece of it, at most 160 characters, safe to show.
        digest: Keyed hash (BLAKE2b, 32 hexadecimal digits) of the exact text, so that equal texts can be told.
    """

    span_id: str
    field: str
    start: int = 0
    end: int = 0
    excerpt: str = ""
    digest: str = ""


class Finding(Struct, frozen=True):
    """One detector's statement about one event.

    Attributes:
        score: 0..1, higher is odder or surer.
        text: One plain sentence a reviewer understands, with nothing of the agent's text but redacted excerpts.
        tags: MITRE ATLAS and OWASP ids.
    """

    detector: str
    family: Family
    severity: Severity
    score: float
    text: str
    event_id: str
    session: SessionKey
    agent: Agent
    at_ns: int
    evidence: tuple[Evidence, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Names this finding for good: a detector says at most one thing about an event."""
        return f"{self.detector}@{self.event_id}"


def finding(
    detector: object,
    event: Event,
    score: float,
    text: str,
    *,
    severity: Severity | None = None,
    evidence: tuple[Evidence, ...] = (),
) -> Finding:
    """A finding of `detector` on `event`; name, family, severity and tags are the detector's unless given."""
    return Finding(
        detector=detector.name,  # type: ignore[attr-defined]
        family=detector.family,  # type: ignore[attr-defined]
        severity=detector.severity if severity is None else severity,  # type: ignore[attr-defined]
        score=min(max(score, 0.0), 1.0) if score == score else 1.0,  # NaN is the highest score, never the lowest
        text=text,
        event_id=event.event_id,
        session=event.session,
        agent=event.agent,
        at_ns=event.at_ns,
        evidence=evidence,
        tags=getattr(detector, "tags", ()),
    )
