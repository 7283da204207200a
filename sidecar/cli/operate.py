"""`sidecar sessions`, `alerts`, `approvals`, `pause`, `resume`, `terminate`: an operator at work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict

from sidecar.cli.terminal import NO, OK, Terminal
from sidecar.control import client
from sidecar.control.client import Operators
from sidecar.control.v1 import control_pb2 as pb
from sidecar.errors import ControlError

STATES = {
    pb.RUN_STATE_RUNNING: "running", pb.RUN_STATE_PAUSED: "paused", pb.RUN_STATE_TERMINATED: "terminated",
}  # fmt: skip
OBSERVED = {
    pb.OBSERVED_RUNNING: "running", pb.OBSERVED_REQUESTED: "requested", pb.OBSERVED_ACKNOWLEDGED: "acknowledged",
    pb.OBSERVED_QUIESCED: "quiesced", pb.OBSERVED_UNCONFIRMED: "UNCONFIRMED", pb.OBSERVED_UNENFORCED: "UNENFORCED",
}  # fmt: skip


def sessions(terminal: Terminal, target: str | None, session_id: str | None, *, held: bool) -> int:
    """Sessions, the held ones first; one with all that holds it."""
    states = [pb.RUN_STATE_PAUSED] if held else []
    with Operators(target) as operators:
        found = operators.sessions(session_id=session_id or "", states=states, limit=200)
    document = [_plain(view) for view in found]
    if session_id is not None:
        if not found:
            terminal.warn(f"no session is called {session_id!r}")
            return NO
        terminal.show(document, "\n\n".join(_session_words(view) for view in found))
        return OK
    rows = [
        (
            view.session_id, view.agent, STATES.get(view.state, "?"), OBSERVED.get(view.observed, "?"),
            f"{view.risk:.2f}", view.peak_severity or "-", view.acts, ", ".join(view.unscored) or "-",
            _time(view.last_seen),
        )
        for view in found
    ]  # fmt: skip
    columns = ("session", "agent", "state", "observed", "risk", "peak", "acts", "unscored", "last seen")
    terminal.table("", columns, rows, document)
    return OK


def alerts(terminal: Terminal, target: str | None, fingerprint: str | None, *, resolved: bool) -> int:
    """Alerts, the newest first; one with its evidence."""
    with Operators(target) as operators:
        if fingerprint is not None:
            shown = operators.evidence(_whole(operators, fingerprint))
            terminal.show(_plain(shown), _evidence_words(shown))
            return OK
        found = operators.alerts(resolved=resolved)
    rows = [
        (
            view.fingerprint[:12], view.severity, view.detector, view.session_id, view.agent, view.action, view.state,
            view.count, _time(view.last_at), view.text,
        )
        for view in found
    ]  # fmt: skip
    columns = ("alert", "severity", "detector", "session", "agent", "action", "state", "n", "last", "why")
    terminal.table("", columns, rows, [_plain(view) for view in found])
    return OK


def review(terminal: Terminal, target: str | None, fingerprint: str, verdict: str, reason: str) -> int:
    """Closes an alert with a verdict."""
    with Operators(target) as operators:
        view = operators.review(_whole(operators, fingerprint), verdict, reason=reason)
    terminal.show(_plain(view), f"{view.fingerprint[:12]}: {view.verdict}")
    return OK


def approvals(
    terminal: Terminal, target: str | None, decision_id: str | None, *, approve: bool | None, reason: str, decided: bool
) -> int:
    """Held acts; decides about one."""
    with Operators(target) as operators:
        if decision_id is None:
            found = operators.approvals(decided=decided)
            rows = [
                (
                    view.decision_id[:12], view.session_id, view.agent, view.tool, view.arguments, view.state,
                    _time(view.deadline), "; ".join(ground.text for ground in view.reasons),
                )
                for view in found
            ]  # fmt: skip
            columns = ("decision", "session", "agent", "tool", "arguments", "state", "until", "why")
            terminal.table("", columns, rows, [_plain(view) for view in found])
            return OK
        if approve is None:
            terminal.warn("say --approve or --deny")
            return NO
        whole = _one(decision_id, [v.decision_id for v in operators.approvals(decided=True)], "decision")
        view = operators.decide(whole, approve=approve, reason=reason)
    terminal.show(_plain(view), f"{view.tool} of {view.session_id}: {view.state}")
    return OK


def pause(terminal: Terminal, target: str | None, scope: pb.Scope, reason: str) -> int:
    """Holds sessions."""
    with Operators(target) as operators:
        return _changed(terminal, operators.pause(scope, reason), "paused")


def terminate(terminal: Terminal, target: str | None, scope: pb.Scope, reason: str) -> int:
    """Ends sessions."""
    with Operators(target) as operators:
        return _changed(terminal, operators.terminate(scope, reason), "terminated")


def resume(terminal: Terminal, target: str | None, scope: pb.Scope, reason: str, clears: list[str] | None) -> int:
    """Lets sessions go on: shows what held them, and clears exactly that."""
    with Operators(target) as operators:
        if scope.WhichOneof("scope") in ("role", "fleet"):
            name = "fleet" if scope.fleet else f"role:{scope.role}"
            held = [cause for view in operators.status().held_scopes if view.scope == name for cause in view.causes]
            newest = held[-1].pause_id if held else ""
            return _changed(terminal, operators.resume(scope, reason, pause_id=newest), "running")
        inner = scope.session if scope.WhichOneof("scope") == "session" else scope.tree
        found = operators.sessions(session_id=inner.session_id, realm=inner.realm)
        if not found:
            raise ControlError("NOT_FOUND", f"no session is called {inner.session_id!r}")
        view = found[0]
        named = [finding for cause in view.causes for finding in cause.finding_ids]
        changed = operators.resume(
            scope, reason, pause_id=view.pause_id, epoch=view.epoch, clears=named if clears is None else clears
        )
        return _changed(terminal, changed, "running")


def scope_of(session: str | None, *, realm: str, role: str | None, fleet: bool, tree: bool) -> pb.Scope:
    """What a command is meant for; exactly one of session, role and fleet.

    Raises:
        ControlError: None or several were named.
    """
    if (session is not None) + (role is not None) + fleet != 1:
        raise ControlError("INVALID_ARGUMENT", "name one of: a session, --role NAME, --fleet")
    if fleet:
        return client.fleet()
    if role is not None:
        return client.role(role)
    assert session is not None
    return client.tree(session, realm=realm) if tree else client.session(session, realm=realm)


def _changed(terminal: Terminal, views: list[pb.SessionView], wanted: str) -> int:
    words = [f"{v.session_id}: {STATES.get(v.state, '?')}, agent {OBSERVED.get(v.observed, '?')}" for v in views]
    terminal.show([_plain(view) for view in views], "\n".join(words) or "no session is open; later ones will be held")
    return OK if all(STATES.get(view.state) == wanted for view in views) else NO


def _whole(operators: Operators, prefix: str) -> str:
    if len(prefix) == 32:
        return prefix
    return _one(prefix, [view.fingerprint for view in operators.alerts(resolved=True)], "alert")


def _one(prefix: str, names: list[str], what: str) -> str:
    found = [name for name in dict.fromkeys(names) if name.startswith(prefix)]
    if len(found) != 1:
        raise ControlError(
            "NOT_FOUND", f"{len(found) or 'no'} {what}{'s' if len(found) > 1 else ''} begin with {prefix!r}"
        )
    return found[0]


def _session_words(view: pb.SessionView) -> str:
    lines = [
        f"{view.session_id} of {view.agent} ({view.realm}, {view.grade}): {STATES.get(view.state, '?')}, "
        f"agent {OBSERVED.get(view.observed, '?')}, epoch {view.epoch}",
        f"risk {view.risk:.2f}, gravest finding {view.peak_severity or 'none'}, {view.acts} acts, "
        f"unscored: {', '.join(view.unscored) or 'no'}, tier {view.tier or '?'}",
    ]
    if view.stressors:
        lines.append(f"it was told of: {', '.join(view.stressors)}")
    if view.in_flight:
        lines.append(f"in flight at the pause: {', '.join(view.in_flight)}")
    lines.extend(f"held by {c.by} {c.actor} since {_time(c.at)}: {c.reason}" for c in view.causes)
    return "\n".join(lines)


def _evidence_words(shown: pb.GetEvidenceResponse) -> str:
    view = shown.alert
    lines = [
        f"{view.fingerprint}  {view.severity} {view.detector}, {view.state}, {view.count} findings, {view.action}",
        f"{view.session_id} of {view.agent}, {_time(view.opened_at)} to {_time(view.last_at)}",
        view.text,
    ]
    for piece in shown.evidence:
        where = f"{piece.span_id} {piece.field}[{piece.start}:{piece.end}]"
        lines.append(f"  {_time(piece.at)}  {where}\n    {piece.excerpt}")
    return "\n".join(lines)


def _time(stamp: Any) -> str:
    if not stamp.seconds:
        return "-"
    return datetime.fromtimestamp(stamp.seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _plain(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found
