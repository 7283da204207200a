"""How much a session's findings add up to: 0..1, comparable across sessions."""

from __future__ import annotations

from sidecar.core.findings import Finding, Severity
from sidecar.core.sessions import Session

WEIGHT = {
    Severity.INFO: 0.03,
    Severity.LOW: 0.10,
    Severity.MEDIUM: 0.35,
    Severity.HIGH: 0.70,
    Severity.CRITICAL: 0.95,
}
"""What the surest finding of a severity adds to a session's risk; argued in docs/decisions/risk.md."""


def weigh(finding: Finding) -> float:
    """A finding's part in the risk of its session, 0..1."""
    return WEIGHT[finding.severity] * finding.score


def add(session: Session, finding: Finding) -> None:
    """Counts a finding. Within a family only the gravest counts: its detectors look at the same thing."""
    weight = weigh(finding)
    if weight > session.suspicion.get(finding.family, 0.0):
        session.suspicion[finding.family] = weight
    if session.peak is None or finding.severity > session.peak:
        session.peak = finding.severity
