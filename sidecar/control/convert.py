"""Protobuf ↔ the core's values. What comes in is checked here, once, so that nobody behind it meets a surprise."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.control.grants import SignedGrant
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.alerts import Alert, Reason
from sidecar.core.commands import Cause, Observed
from sidecar.core.events import NO_AGENT, Agent, SessionKey
from sidecar.core.findings import Severity
from sidecar.core.runstate import Run
from sidecar.core.sessions import Session
from sidecar.core.span import Span, Speaker
from sidecar.core.weave import Asked
from sidecar.errors import ControlError, SpanError
from sidecar.service import Question
from sidecar.sources.decode import Limits, decode
from sidecar.storage import Approval, Record

MAX_REASON_BYTES = 4096
MAX_NAME, MAX_CALL_ID, MAX_TASK = 256, 256, 1024
MAX_TOOLS, MAX_DESCRIPTION, MAX_SCHEMA = 512, 64 * 1024, 256 * 1024
MAX_ARGUMENTS_BYTES = 2**20
"""Longer arguments are not inspected, so the act is refused (reliability.md, bad input 72)."""
SEEN_OF_UNREADABLE = 64 * 1024
"""Characters of arguments that cannot be read which detectors are still shown."""
MAX_DEPTH = 64
MAX_CARRIED, MAX_CARRIED_BYTES, MAX_PENDING, MAX_KNOWN = 4096, 4 * 2**20, 8192, 4096
MAX_EPOCH = 2**53
SKEW_NS = 24 * 3600 * 10**9
"""A question that claims to be from further away than this was asked when it came."""

CARRIED_LIMITS = Limits(spans=MAX_CARRIED, nodes=200_000)

_SESSION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_RESERVED = ("trace:", "h:")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_PENDING = re.compile(r"[0-9a-f]{32}:[0-9a-f]{16}")

STATES: dict[str, pb.RunState] = {
    "running": pb.RUN_STATE_RUNNING,
    "paused": pb.RUN_STATE_PAUSED,
    "terminated": pb.RUN_STATE_TERMINATED,
}
OBSERVED: dict[Observed, pb.Observed] = {
    "running": pb.OBSERVED_RUNNING,
    "requested": pb.OBSERVED_REQUESTED,
    "acknowledged": pb.OBSERVED_ACKNOWLEDGED,
    "quiesced": pb.OBSERVED_QUIESCED,
    "unconfirmed": pb.OBSERVED_UNCONFIRMED,
    "unenforced": pb.OBSERVED_UNENFORCED,
}
REPORTED: dict[int, Observed] = {
    pb.OBSERVED_RUNNING: "running",
    pb.OBSERVED_ACKNOWLEDGED: "acknowledged",
    pb.OBSERVED_QUIESCED: "quiesced",
}
"""What an agent may say of itself; the rest is ours to conclude."""

M = TypeVar("M", bound=Message)


def parse(kind: Callable[[], M], body: bytes) -> M:
    """Raises:
    ControlError: ``INVALID_ARGUMENT``: these bytes are no such message.
    """
    message = kind()
    try:
        message.ParseFromString(body)
    except (DecodeError, ValueError):  # nothing of what was sent is repeated
        raise invalid("the message is malformed") from None
    return message


def invalid(words: str) -> ControlError:
    return ControlError("INVALID_ARGUMENT", words)


# ------------------------------------------------------------ fields


def session_id(told: str, *, what: str = "session_id") -> str:
    """A session's id as agents give it.

    Raises:
        ControlError: ``INVALID_ARGUMENT``: of odd form, or of a form that we make ourselves.
    """
    if not _SESSION_ID.fullmatch(told):
        raise invalid(f"{what}: expected 1 to 128 of A-Z a-z 0-9 . _ : -")
    if told.startswith(_RESERVED):
        raise invalid(f"{what}: must not begin with {' or '.join(_RESERVED)}")
    return told


def instance_id(told: str) -> str:
    if not _SESSION_ID.fullmatch(told):
        raise invalid("instance_id: expected 1 to 128 of A-Z a-z 0-9 . _ : -")
    return told


def request_id(told: str) -> str:
    if not _REQUEST_ID.fullmatch(told):
        raise invalid("request_id: expected 1 to 128 of A-Z a-z 0-9 . _ : / + = -")
    return told


def reason(told: str, *, required: bool = True) -> str:
    """A person's or agent's reason, with every character that does not print escaped."""
    if len(told.encode()) > MAX_REASON_BYTES:
        raise invalid(f"reason: at most {MAX_REASON_BYTES} bytes")
    if required and not told.strip():
        raise invalid("reason: must not be empty")
    return inert(told)


def inert(text: str) -> str:
    """`text` on one line: characters that do not print, invisible ones and line ends among them, are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(told: str, limit: int, what: str) -> str:
    if len(told) > limit:
        raise invalid(f"{what}: at most {limit} characters")
    return told


def moment_ns(told: Timestamp, now_ns: int) -> int:
    """Unix nanoseconds; `now_ns` for one that is absent or a day off.

    Raises:
        ControlError: ``INVALID_ARGUMENT``: outside what a timestamp may be.
    """
    if not told.seconds and not told.nanos:
        return now_ns
    if not (-62_135_596_800 <= told.seconds <= 253_402_300_799 and 0 <= told.nanos < 10**9):
        raise invalid("asked_at: out of range")
    at_ns = told.seconds * 10**9 + told.nanos
    return at_ns if abs(at_ns - now_ns) <= SKEW_NS else now_ns


def agent(told: pb.AgentIdentity, speaker: Speaker) -> Agent:
    """Whom a request is from: where the credential fixes the agent's name, that is it."""
    name = speaker.agent or short(told.name, MAX_NAME, "agent.name")
    version = short(told.version, MAX_NAME, "agent.version")
    agent_id = short(told.id, MAX_NAME, "agent.id")
    return Agent(speaker.realm, agent_id, name, version) if name or agent_id else NO_AGENT


def tools(told: Sequence[pb.Tool]) -> Sequence[pb.Tool]:
    if len(told) > MAX_TOOLS:
        raise invalid(f"tools: at most {MAX_TOOLS}")
    for tool in told:
        if not 0 < len(tool.name) <= MAX_NAME:
            raise invalid(f"tools: a name has 1 to {MAX_NAME} characters")
        if len(tool.description) > MAX_DESCRIPTION or len(tool.schema_json) > MAX_SCHEMA:
            raise invalid("tools: a description or schema is too long")
    return told


# ------------------------------------------------------------ questions


class UnreadableError(ValueError):
    """Arguments that have no one meaning: a key twice, a number that is none, too deep, too large, no object."""


def arguments(text: str) -> dict[str, Any]:
    """A call's arguments, read strictly: what another program would read otherwise is not read at all.

    Raises:
        UnreadableError: See there.
    """
    if not text:
        return {}
    if len(text) > MAX_ARGUMENTS_BYTES or (not text.isascii() and len(text.encode()) > MAX_ARGUMENTS_BYTES):
        raise UnreadableError("too large")
    try:
        value = _decode(text)
    except RecursionError:
        raise UnreadableError("too deep") from None
    if type(value) is not dict:
        raise UnreadableError("no object")
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise UnreadableError("too deep")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise UnreadableError("a key stands twice")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UnreadableError("a number is too large")
    return value


def _no_constant(name: str) -> Any:
    raise UnreadableError(f"{name} is no JSON")


_decode = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_no_constant).decode


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            waiting.extend((inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item))
    return deepest


def question(request: pb.AuthorizeRequest, body: bytes, speaker: Speaker, now_ns: int) -> Question:
    """A question at the gate, whether it comes from the door or is read again from the inbox.

    Args:
        now_ns: When it arrived.
    Raises:
        ControlError: ``INVALID_ARGUMENT``.
    """
    key = SessionKey(speaker.realm, session_id(request.session_id))
    tool = request.tool
    if not tool:
        raise invalid("tool: must not be empty")
    text = request.arguments_json
    given: Any
    try:
        given, readable = arguments(text), True
    except ValueError:
        given, readable = text[:SEEN_OF_UNREADABLE], False
    asked = Asked(
        session=key,
        tool=short(tool, MAX_NAME, "tool"),
        arguments=given,
        call_id=short(request.call_id, MAX_CALL_ID, "call_id"),
        at_ns=moment_ns(request.asked_at, now_ns),
        agent=agent(request.agent, speaker),
        cut=not readable and len(text) > SEEN_OF_UNREADABLE,
    )
    return Question(
        speaker=speaker,
        asked=asked,
        carried=carried(request.carried) if request.carried else (),
        pending=pending(request.pending) if request.pending else (),
        body=body,
        uninspectable=not readable,
    )


def read_question(body: bytes, speaker: Speaker, arrived_ns: int) -> Question:
    """A question as its row of the inbox holds it."""
    return question(parse(pb.AuthorizeRequest, body), body, speaker, arrived_ns)


def carried(bodies: Iterable[bytes]) -> tuple[Span, ...]:
    """The spans that came along with a question."""
    spans: list[Span] = []
    size_bytes = 0
    for body in bodies:
        size_bytes += len(body)
        if size_bytes > MAX_CARRIED_BYTES or len(spans) > MAX_CARRIED:
            raise invalid("carried: too much")
        try:
            spans += decode("traces", body, "proto", CARRIED_LIMITS).spans
        except SpanError as error:
            raise invalid(f"carried: {error.reason}") from None
    return tuple(spans)


def pending(told: Iterable[str]) -> tuple[str, ...]:
    places = tuple(told)
    if len(places) > MAX_PENDING or not all(map(_PENDING.fullmatch, places)):
        raise invalid("pending: expected trace_id:span_id in hexadecimal")
    return places


# ------------------------------------------------------------ to agents


def session_state(name: str, run: Run) -> pb.SessionState:
    """A session's run state under the id that its agent knows."""
    held = run.desired != "running"
    return pb.SessionState(
        session_id=name, state=STATES[run.desired], epoch=run.epoch, pause_id=run.pause_id if held else ""
    )


def grant(signed: SignedGrant) -> pb.Grant:
    return pb.Grant(
        grant_id=signed.grant_id,
        digest=signed.digest,
        expires_at=timestamp(signed.expires_ns),
        signature=signed.signature,
    )


def read_grant(told: pb.Grant) -> SignedGrant:
    return SignedGrant(
        grant_id=told.grant_id,
        digest=told.digest,
        expires_ns=max(0, told.expires_at.seconds * 10**9 + told.expires_at.nanos),
        signature=told.signature,
    )


# ------------------------------------------------------------ to people


def plain(text: str) -> str:
    """`text` such that protobuf takes it: what is no Unicode is escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def timestamp(at_ns: int) -> Timestamp | None:
    """None for "never"."""
    if not at_ns:
        return None
    seconds, nanos = divmod(at_ns, 10**9)
    return Timestamp(seconds=seconds, nanos=nanos)


def cause(held: Cause) -> pb.Cause:
    return pb.Cause(
        pause_id=held.pause_id,
        by=held.by,
        actor=plain(held.actor),
        reason=plain(held.reason),
        finding_ids=held.findings,
        at=timestamp(held.at_ns),
    )


def session_view(key: SessionKey, run: Run, session: Session | None, role: Agent = NO_AGENT) -> pb.SessionView:
    """A session as operators see it.

    Args:
        session: None for one that is only known as held.
        role: Its agent, in that case.
    """
    view = pb.SessionView(
        realm=key.realm,
        session_id=key.id,
        state=STATES[run.desired],
        observed=OBSERVED[run.observed],
        epoch=run.epoch,
        pause_id=run.pause_id,
        causes=[cause(held) for held in run.causes.values()],
        in_flight=run.in_flight,
    )
    if session is None:
        view.agent, view.agent_version = plain(role.role), plain(role.version)
        return view
    view.agent, view.agent_version = plain(session.agent.role), plain(session.agent.version)
    view.grade = session.grade
    view.risk = session.risk
    view.peak_severity = "" if session.peak is None else Severity(session.peak).word
    view.unscored.extend(session.reasons)
    view.acts = session.act_count
    view.last_seen.CopyFrom(timestamp(session.last_ns) or Timestamp())
    view.stressors.extend(map(plain, session.stressors))
    view.parent_session_id = "" if session.parent is None else session.parent.id
    view.tier = "T0" if session.gated else "T-"
    return view


def alert_view(alert: Alert) -> pb.AlertView:
    return pb.AlertView(
        fingerprint=alert.fingerprint,
        detector=alert.detector,
        family=alert.family,
        severity=Severity(alert.severity).word,
        realm=alert.session.realm,
        session_id=alert.session.id,
        agent=plain(alert.agent.role),
        state=alert.state,
        action=alert.action,
        text=plain(alert.text),
        count=min(alert.count, 2**32 - 1),
        opened_at=timestamp(alert.opened_ns),
        last_at=timestamp(alert.last_ns),
        resolved_at=timestamp(alert.resolved_ns),
        verdict=alert.verdict,
        score=alert.score,
    )


def evidence_views(alert: Alert) -> list[pb.EvidenceView]:
    """What an alert rests on; excerpts are redacted where they are made."""
    return [
        pb.EvidenceView(
            finding_id=finding.id,
            text=plain(finding.text),
            span_id=rests.span_id,
            field=plain(rests.field),
            start=rests.start,
            end=rests.end,
            excerpt=plain(rests.excerpt),
            digest=rests.digest,
            at=timestamp(finding.at_ns),
        )
        for finding in alert.findings
        for rests in finding.evidence
    ]


def reason_view(ground: Reason) -> pb.ReasonView:
    return pb.ReasonView(
        detector=ground.detector,
        family=ground.family,
        severity=Severity(ground.severity).word,
        score=ground.score,
        text=plain(ground.text),
    )


def approval_view(approval: Approval) -> pb.ApprovalView:
    return pb.ApprovalView(
        decision_id=approval.decision_id,
        realm=approval.session.realm,
        session_id=approval.session.id,
        agent=plain(approval.agent.role),
        tool=plain(approval.tool),
        arguments=plain(approval.arguments),
        reasons=[reason_view(ground) for ground in approval.reasons],
        asked_at=timestamp(approval.asked_ns),
        deadline=timestamp(approval.deadline_ns if approval.deadline_ns < 2**62 else 0),
        state=approval.state,
        independence=plain(approval.independence),
    )


def audit_view(record: Record) -> pb.AuditView:
    entry = record.entry
    return pb.AuditView(
        seq=record.seq,
        at=timestamp(entry.at.at_ns),
        actor=entry.actor,
        action=entry.action,
        realm=entry.realm,
        session_id=entry.session,
        epoch=entry.epoch,
        request_id=entry.request_id,
        detail_json=json.dumps(entry.detail, sort_keys=True),
        hash=record.hash.hex(),
    )
