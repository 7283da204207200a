"""The policy: from findings to record, alert, hold or pause.

What people write is a pydantic model; what the engine runs is `Policy`, compiled from it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from sidecar.core.alerts import ACTIONS, Action
from sidecar.core.findings import FAMILIES, Finding, Severity
from sidecar.core.text.globs import fits

Posture = Literal["observe", "guard", "enforce"]
ModeName = Literal["shadow", "alert", "hold", "pause"]
SeverityName = Literal["info", "low", "medium", "high", "critical"]
FamilyName = Literal[
    "recipients", "leverage", "exfiltration", "self_preservation", "oversight", "omission", "hijack", "conduct",
    "behaviour", "telemetry",
]  # fmt: skip
_RANK = {action: rank for rank, action in enumerate(ACTIONS)}
_CEILING: dict[str, Action] = {"shadow": "record", "alert": "alert", "hold": "hold", "pause": "pause"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Verdict(_Strict):
    """One line of the table; all that is given must match, and the first line that matches decides."""

    action: Literal["record", "alert", "hold", "pause"]
    """What to do."""
    detector: str | None = None
    """Name of a detector, or a pattern such as ``flow_*``."""
    family: FamilyName | None = None
    """Family of detectors."""
    severity: SeverityName | None = None
    """This severity or a graver one."""
    reversible: bool | None = None
    """Whether the act can be undone."""
    posture: Posture | None = None
    """Posture of the agent's role."""


class Role(_Strict):
    """Settings of the agent roles that a pattern names; the first that matches decides."""

    role: Annotated[str, Field(min_length=1, max_length=128)]
    """Agent role, or a pattern such as ``billing-*``."""
    posture: Posture
    """``observe``: nothing is held, what would have been is recorded. ``guard``: content and flow findings hold and
    pause from the first event, online models only alert. ``enforce``: mature online models hold and pause, too."""
    unscored: Literal["alert", "hold"] | None = None
    """What an act that could not be judged does; the policy's own setting when left out."""


DEFAULT_VERDICTS = (
    Verdict(severity="critical", action="pause"),
    Verdict(severity="high", reversible=False, action="hold"),
    Verdict(severity="medium", action="alert"),
)


class PolicyDocument(_Strict):
    """What is done about findings."""

    version: Literal[1] = 1
    """Format of this section."""
    posture: Posture = "guard"
    """Posture of every role that `roles` does not name."""
    roles: tuple[Role, ...] = ()
    """Settings by agent role."""
    verdicts: Annotated[tuple[Verdict, ...], Field(max_length=500)] = DEFAULT_VERDICTS
    """From findings to actions; the first line that matches decides, and what matches none is recorded."""
    modes: dict[str, ModeName] = Field(default_factory=dict)
    """Detector → how far policy may go because of it: ``shadow`` records, ``alert``, ``hold``, ``pause``."""
    unscored: Literal["alert", "hold"] = "alert"
    """What an irreversible act that detectors could not see whole does."""


class Policy:
    """A compiled policy.

    Args:
        shipped_modes: Detector → the mode it comes with.
    Raises:
        ValueError: `document` names a detector in `modes` that `shipped_modes` does not have.
    """

    def __init__(self, document: PolicyDocument, shipped_modes: dict[str, str]) -> None:
        unknown = sorted(set(document.modes) - set(shipped_modes))
        if unknown:
            raise ValueError(f"modes: no detector is called {unknown[0]!r}")
        self.document = document
        self._modes = shipped_modes | dict(document.modes)
        self._postures: dict[str, Role] = {}
        self.digest = hashlib.sha256(msgspec.json.encode(document.model_dump(mode="json"), order="sorted")).hexdigest()

    def role(self, role: str) -> Role:
        """Settings of an agent role."""
        found = self._postures.get(role)
        if found is None:
            document = self.document
            found = next(
                (entry for entry in document.roles if fits(entry.role, role)),
                Role.model_construct(role=role, posture=document.posture),  # roles come from telemetry: of any form
            )
            if len(role) <= 128 and len(self._postures) < 10_000:
                self._postures[role] = found
        return found

    def posture(self, role: str) -> Posture:
        return self.role(role).posture

    def unscored(self, role: str) -> Literal["alert", "hold"]:
        """What an irreversible act that could not be judged does."""
        return self.role(role).unscored or self.document.unscored

    def mode(self, detector: str) -> str:
        """How far policy may go because of a detector."""
        return self._modes.get(detector, "alert")

    def action(self, finding: Finding, posture: Posture, *, reversible: bool, acts: bool) -> Action:
        """What one finding leads to.

        Args:
            reversible: Whether the act it is about can be undone.
            acts: Whether it is about something the agent does; what outsiders write only alerts (design §6).
        """
        action: Action = "record"
        for verdict in self.document.verdicts:
            if _matches(verdict, finding, posture, reversible):
                action = verdict.action
                break
        ceiling = _CEILING[self.mode(finding.detector)]
        if not acts or (finding.family == "behaviour" and posture != "enforce"):
            ceiling = weaker(ceiling, "alert")
        return weaker(action, ceiling)


def _matches(verdict: Verdict, finding: Finding, posture: Posture, reversible: bool) -> bool:
    return (
        (verdict.severity is None or finding.severity >= Severity[verdict.severity.upper()])
        and (verdict.reversible is None or verdict.reversible == reversible)
        and (verdict.family is None or verdict.family == finding.family)
        and (verdict.posture is None or verdict.posture == posture)
        and (verdict.detector is None or fits(verdict.detector, finding.detector))
    )


def stronger(*actions: Action) -> Action:
    """The strongest of the actions; ``record`` when there is none."""
    return max(actions, key=_RANK.__getitem__, default="record")


def weaker(one: Action, other: Action) -> Action:
    """The weaker of two actions."""
    return one if _RANK[one] <= _RANK[other] else other


def warnings(document: PolicyDocument, detectors: Iterable[str]) -> list[str]:
    """What is allowed and probably not meant: lines that can never be reached, patterns that name nobody."""
    found = []
    names = tuple(detectors)
    for index, verdict in enumerate(document.verdicts):
        if verdict.detector is not None and not any(fits(verdict.detector, name) for name in names):
            found.append(f"verdicts[{index}]: no detector matches {verdict.detector!r}")
        for earlier_index, earlier in enumerate(document.verdicts[:index]):
            if _covers(earlier, verdict):
                found.append(f"verdicts[{index}]: never reached, verdicts[{earlier_index}] matches all that it does")
                break
    return found


def _covers(earlier: Verdict, later: Verdict) -> bool:
    graver = earlier.severity is None or (
        later.severity is not None and Severity[later.severity.upper()] >= Severity[earlier.severity.upper()]
    )
    return graver and all(
        getattr(earlier, field) in (None, getattr(later, field))
        for field in ("detector", "family", "reversible", "posture")
    )


assert set(FAMILIES) == set(FamilyName.__args__)  # type: ignore[attr-defined]
