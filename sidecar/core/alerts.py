"""Alerts (findings grouped, with a life) and decisions (what policy concludes, and why)."""

from __future__ import annotations

import hashlib
from typing import Literal

from msgspec import Struct

from sidecar.core.events import Agent, SessionKey
from sidecar.core.findings import Family, Finding, Severity

Action = Literal["record", "alert", "hold", "pause"]
ACTIONS: tuple[Action, ...] = ("record", "alert", "hold", "pause")
Answer = Literal["allow", "hold", "deny", "wait"]
Ground = Literal["none", "judged", "system"]
SYSTEM_REASONS = ("unavailable", "deadline", "restoring", "behind", "degraded", "policy_changed", "limit", "stale")


def fingerprint(realm: str, detector: str, event_id: str) -> str:
    """Names an alert for good: realm, detector and the act that opened it (design §5); 32 hexadecimal digits."""
    return hashlib.blake2b("\0".join((realm, detector, event_id)).encode(), digest_size=16).hexdigest()


class Alert(Struct, frozen=True):
    """Findings of one detector in one session.

    Attributes:
        fingerprint: See `fingerprint`; never changes, also when the session is found to be another.
        action: The strongest thing policy did because of it.
        findings: At most `triage.KEPT_FINDINGS`, the first and the gravest; `count` counts all.
        state: ``firing`` until the session has been quiet, a resume cleared it or a reviewer closed it.
        verdict: A reviewer's word, "" until given.
    """

    fingerprint: str
    detector: str
    family: Family
    severity: Severity
    session: SessionKey
    agent: Agent
    opened_ns: int
    last_ns: int
    action: Action = "alert"
    state: Literal["firing", "resolved"] = "firing"
    resolved_ns: int = 0
    count: int = 1
    score: float = 0.0
    text: str = ""
    findings: tuple[Finding, ...] = ()
    verdict: str = ""


class Reason(Struct, frozen=True):
    """One of the grounds of a decision. `detector` is ``policy`` or ``session`` where no detector spoke."""

    detector: str
    severity: Severity
    score: float
    text: str
    family: str = ""
    finding_id: str = ""


class Decision(Struct, frozen=True):
    """What is concluded about one act, also when that is nothing.

    Attributes:
        span_id: Span of the act, "" where it is not known yet.
        answer: What the gate says. ``wait`` is always a system refusal.
        ground: ``judged`` (a detector or a person), ``system`` (we could not judge) or ``none`` (allowed).
        system: For a system refusal its reason, from `SYSTEM_REASONS`.
        action: The strongest action policy asks for; ``pause`` also changes the session's run state.
        would: The answer that posture ``observe`` did not give.
        state: Run state after the decision.
    """

    event_id: str
    session: SessionKey
    agent: Agent
    tool: str
    at_ns: int
    answer: Answer
    span_id: str = ""
    ground: Ground = "none"
    system: str = ""
    action: Action = "record"
    would: Answer = "allow"
    state: str = "running"
    irreversible: bool = True
    unscored: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    retry_after_ms: int = 0
