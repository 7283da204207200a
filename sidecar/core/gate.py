"""The authorise decision: findings, run state and policy → allow, hold, deny or wait."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.alerts import Action, Answer, Decision, Reason
from sidecar.core.commands import State
from sidecar.core.events import ToolCall
from sidecar.core.findings import Finding, Severity
from sidecar.core.runstate import Run, held_by
from sidecar.core.triage.policy import Policy, stronger

ANSWER: dict[Action, Answer] = {"record": "allow", "alert": "allow", "hold": "hold", "pause": "deny"}


def decide(
    event: ToolCall,
    findings: Sequence[Finding],
    failed: Sequence[str],
    run: Run,
    policy: Policy,
    *,
    closed: bool = False,
    spared: frozenset[str] = frozenset(),
    refused: frozenset[str] = frozenset(),
) -> tuple[Decision, dict[str, Action]]:
    """What is concluded about one act.

    Args:
        failed: Detectors that could not judge it.
        run: The session's run state before this act.
        closed: Whether tools that the catalogue does not know are denied (`tools.closed`).
        spared: Ids of findings that may not pause: the pauser has used up its blast radius.
        refused: Ids of findings on a kind of act that a person has refused in this session: it is denied, and the
            session need not wait for that person again.
    Returns:
        The decision, and for each finding (by id) the action it asks for.
    """
    reversible = event.reading.effect.reversible
    posture = policy.posture(event.agent.role)
    actions: dict[str, Action] = {}
    for finding in findings:
        action = policy.action(finding, posture, reversible=reversible, acts=True)
        if action == "pause" and finding.id in spared:
            action = "alert" if reversible else "hold"
        if finding.id in refused:
            action = "alert"
        actions[finding.id] = action
    reasons = [reason_of(finding) for finding in findings]
    action = stronger(*actions.values())
    answer, ground, system = ANSWER[action], "judged", ""
    if event.unscored and not reversible and policy.unscored(event.agent.role) == "hold" and answer == "allow":
        action, answer = "hold", "hold"
        reasons.append(Reason("policy", Severity.MEDIUM, 0.5, f"could not be judged: {', '.join(event.unscored)}"))
    if closed and not event.reading.effect.known:
        action, answer = stronger(action, "hold"), "deny"
        reasons.append(Reason("policy", Severity.MEDIUM, 0.5, "the tool is not in the catalogue, and tools are closed"))
    if refused and answer != "deny":
        answer = "deny"
        reasons.append(Reason("session", Severity.HIGH, 1.0, "a reviewer has refused acts like this in this session"))
    if failed and not reversible and answer == "allow":
        answer, ground, system = "wait", "system", "degraded"
        reasons.append(Reason("policy", Severity.LOW, 0.0, f"detectors that could not judge: {', '.join(failed)}"))
    if run.desired != "running":
        answer, ground, system = "deny", "judged", ""
        text = f"the session is {run.desired} by {held_by(run.causes.values())}"
        reasons.append(Reason("session", Severity.HIGH, 1.0, text))
    would = answer
    state: State = run.desired
    if posture == "observe" and state == "running":  # what a person has paused stays paused in every posture
        answer, system = "allow", ""
    elif action == "pause" and state == "running":
        state = "paused"
    if answer == "allow":
        ground = "none"
    decision = Decision(
        event_id=event.event_id,
        session=event.session,
        agent=event.agent,
        tool=event.tool,
        at_ns=event.at_ns,
        answer=answer,
        span_id=event.spans[0] if event.spans else "",
        ground=ground,  # type: ignore[arg-type]
        system=system,
        action=action,
        would=would,
        state=state,
        irreversible=not reversible,
        unscored=tuple(dict.fromkeys((*event.unscored, *(("detector_failed",) if failed else ())))),
        reasons=tuple(reasons),
    )
    return decision, actions


def reason_of(finding: Finding) -> Reason:
    """A finding as a ground of a decision."""
    return Reason(finding.detector, finding.severity, finding.score, finding.text, finding.family, finding.id)
