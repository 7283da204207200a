"""The running sidecar: takes what the doors bring to the core, and what the core says to the stores and to the agents.

One event loop owns the core. A pause holds as soon as the core says so; everything else that changes a run state, and
every allow of an irreversible act, is on the disk before anybody is told (design §7).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.alerts import Alert, Decision
from sidecar.core.commands import Acknowledge, Cause, Move, Observed, Pause, Resume, Terminate, Transition
from sidecar.core.digests import event_id
from sidecar.core.events import NO_AGENT, Agent, SessionKey
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.runstate import Run
from sidecar.core.span import Record, Span, Speaker
from sidecar.core.weave import Asked
from sidecar.errors import ControlError, StorageError
from sidecar.sources import Row
from sidecar.storage import (
    Approval,
    ControlBatch,
    ControlState,
    ControlStore,
    Entry,
    Instant,
    SavedRun,
    SavedScope,
    TelemetryStore,
)

log = logging.getLogger("sidecar.service")

HOLD_NS = 15 * 60 * 10**9
"""How long a held act waits for a person before it is denied."""


class Watcher(Protocol):
    """Hears of run states, held acts and alerts as they change; must not block."""

    def run_changed(self, key: SessionKey, run: Run) -> None: ...

    def alert_changed(self, alert: Alert) -> None: ...

    def approval_changed(self, approval: Approval) -> None: ...


class Meter(Protocol):
    """Counts what came of an input; see `observe.metrics`."""

    def outcome(self, outcome: Outcome) -> None: ...

    def confirmed(self, seconds: float) -> None: ...


class Question(Struct, frozen=True):
    """What is asked at the gate, as it came.

    Attributes:
        carried: Spans that the agent's process had when it asked.
        pending: Ended spans that it could not carry, ``trace_id:span_id``.
    """

    speaker: Speaker
    asked: Asked
    carried: tuple[Span, ...] = ()
    pending: tuple[str, ...] = ()
    body: bytes = b""


class Service:
    """The core with its stores and its listeners.

    Args:
        clock_ns: Wall clock, Unix nanoseconds.
        owner_of: Agent role → who owns it, "" where the configuration does not say.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        control: ControlStore,
        telemetry: TelemetryStore,
        meter: Meter,
        *,
        clock_ns: Callable[[], int],
        owner_of: Callable[[str], str] = lambda role: "",
    ) -> None:
        self.pipeline, self.control, self.telemetry = pipeline, control, telemetry
        self._meter, self._clock_ns, self._owner_of = meter, clock_ns, owner_of
        self.watchers: list[Watcher] = []
        self.restoring = True
        self.degraded: dict[str, None] = {}
        self.fed: tuple[int, int] = (0, 0)
        self.approvals: dict[str, Approval] = {}
        self._decided: dict[str, asyncio.Event] = {}
        self._works: dict[str, SessionKey] = {}

    # ------------------------------------------------------------ telemetry

    def feed(self, span: Span, speaker: Speaker, arrived_ns: int, position: tuple[int, int]) -> None:
        """Gives one durable span to the core."""
        outcome = self.pipeline.feed(Record(span, speaker, arrived_ns, position), arrived_ns)
        self.fed = (position[0], position[1] + 1)
        self.settle(outcome)

    def tick(self) -> None:
        """Time has passed; called about once a second."""
        now_ns = self._clock_ns()
        self.settle(self.pipeline.tick(now_ns))
        for approval in [a for a in self.approvals.values() if a.state == "open" and now_ns >= a.deadline_ns]:
            self._close_approval(approval, "expired", "sidecar", "nobody decided in time")

    # ------------------------------------------------------------ the gate

    async def authorize(self, question: Question) -> Decision:
        """Answers a question; an allow of an irreversible act is on the disk before it is given."""
        now_ns = self._clock_ns()
        asked = question.asked
        session = self.pipeline.sessions.resolve(asked.session)
        for span in question.carried:
            outcome = self.pipeline.feed(Record(span, question.speaker, now_ns), now_ns)
            self.settle(outcome)
        row = Row("asked", question.body, now_ns, "proto", question.speaker, self.fed)
        outcome = self.pipeline.authorize(asked, now_ns)
        decision = outcome.decision
        assert decision is not None
        self.settle(outcome)
        if decision.irreversible and decision.answer in ("allow", "hold") and self.restoring:
            return _system(decision, "restoring", 500)
        if decision.irreversible and decision.answer == "allow":
            epoch = self.pipeline.runs.get(session).epoch
            try:
                await self._allow_durably(decision, row)
            except StorageError:
                return _system(decision, "unavailable", 1000)
            run = self.pipeline.runs.get(self.pipeline.sessions.resolve(session))
            if run.epoch != epoch and run.desired != "running":  # a pause came while the allow was being stored
                return replace(decision, answer="deny", ground="judged", state=run.desired)
            return decision
        if decision.answer == "hold":
            self._hold(decision, asked, now_ns)
        self._append_soon(row)
        return decision

    async def _allow_durably(self, decision: Decision, row: Row) -> None:
        batch = ControlBatch(audit=[self._entry("allow", decision.session, decision=decision)])
        appended = asyncio.ensure_future(self.telemetry.append(row))
        try:
            await self.control.commit(batch, durable=True)
        finally:
            await asyncio.gather(appended, return_exceptions=True)

    def _append_soon(self, row: Row) -> None:
        task = asyncio.ensure_future(self.telemetry.append(row))
        task.add_done_callback(_swallow)

    # ------------------------------------------------------------ sessions

    def open_session(
        self, speaker: Speaker, session_id: str, agent: Agent, *, parent: str = "", task: str = ""
    ) -> SessionKey:
        """A gated session announces itself."""
        key = SessionKey(speaker.realm, session_id)
        parent_key = SessionKey(speaker.realm, parent) if parent else None
        now_ns = self._clock_ns()
        self.settle(self.pipeline.open_session(key, agent, now_ns, parent=parent_key, task=task))
        key = self.pipeline.sessions.resolve(key)
        if task:
            self._inherit_work(key, f"{speaker.realm}\0{agent.role}\0{task}", now_ns)
        return key

    def _inherit_work(self, key: SessionKey, work: str, now_ns: int) -> None:
        """A pause sticks to the work: a new session with a paused one's task starts held, as its successor."""
        before = self._works.get(work)
        self._works[work] = key
        if len(self._works) > 50_000:
            del self._works[next(iter(self._works))]
        if before is None or before == key or self.pipeline.runs.get(before).desired != "paused":
            return
        cause = Cause(
            pause_id=event_id(key.realm, "successor", key.id, before.id),
            by="successor",
            actor=before.id,
            reason="the same work as a session that is paused",
            at_ns=now_ns,
        )
        if self.pipeline.runs.get(key).desired == "running":
            self.settle(self.pipeline.pause(key, cause, now_ns))

    def acknowledge(self, key: SessionKey, epoch: int, observed: Observed, in_flight: Sequence[str]) -> None:
        """An agent's process says how far it has followed."""
        now_ns = self._clock_ns()
        key = self.pipeline.sessions.resolve(key)
        command = Acknowledge(key, epoch, observed, now_ns, tuple(in_flight[:64]))
        requested_ns = self.pipeline.runs.get(key).requested_ns
        before = self.pipeline.runs.get(key).observed
        transition = self.pipeline.runs.acknowledge(command)
        if transition is None:
            return
        if before in ("requested", "unconfirmed", "unenforced") and requested_ns:
            self._meter.confirmed((now_ns - requested_ns) / 1e9)
        self.settle(Outcome(transitions=[transition]))

    # ------------------------------------------------------------ commands of people

    async def pause(self, keys: Iterable[SessionKey], actor: str, reason: str, request_id: str) -> None:
        """Holds sessions at once; comes back when that is on the disk.

        Raises:
            ControlError: A session is terminated.
            StorageError: The pause holds, but could not be stored.
        """
        now_ns = self._clock_ns()
        outcome = Outcome()
        for key in keys:
            cause = Cause(event_id(key.realm, "operator", request_id), "operator", actor, reason, now_ns)
            part = self.pipeline.pause(key, cause, now_ns)
            outcome.transitions.extend(part.transitions)
        await self._settle_durably(outcome, actor, request_id)

    async def pause_scope(self, scope: str, actor: str, reason: str, request_id: str) -> list[SessionKey]:
        """Holds a role (``role:NAME``) or the ``fleet``, and what opens later; the sessions held."""
        now_ns = self._clock_ns()
        cause = Cause(event_id("", "operator", request_id), "operator", actor, reason, now_ns)
        outcome = self.pipeline.pause_scope(scope, cause, now_ns)
        await self._settle_durably(outcome, actor, request_id, scopes=[_saved_scope(scope, "paused", cause, now_ns)])
        return [transition.session for transition in outcome.transitions]

    async def resume(
        self, key: SessionKey, pause_id: str, epoch: int, actor: str, reason: str, clears: Sequence[str],
        request_id: str,
    ) -> None:  # fmt: skip
        """Lets a session go on once that is on the disk.

        Raises:
            ControlError: It answers an older pause, or something that holds the session is not named.
            StorageError: It could not be stored; the session stays held.
        """
        now_ns = self._clock_ns()
        command = Resume(key, pause_id, epoch, actor, reason, now_ns, tuple(clears))
        planned = self.pipeline.runs.plan_resume(command)
        await self._commit([planned], [], actor, request_id, durable=True)
        self._tell(self.pipeline.applied(planned, self._clock_ns()))

    async def resume_scope(self, scope: str, actor: str, reason: str, request_id: str) -> list[SessionKey]:
        """Takes back a scope's pause: for what opens later, and for every session that nothing else holds."""
        now_ns = self._clock_ns()
        cause = self.pipeline.scope_cause(scope)
        if cause is None:
            raise ControlError("FAILED_PRECONDITION", f"{scope} is not paused")
        planned = []
        for key in self.pipeline.in_scope(scope):
            run = self.pipeline.runs.get(key)
            if run.desired == "paused" and set(run.causes) == {cause.pause_id}:
                planned.append(
                    self.pipeline.runs.plan_resume(Resume(key, run.pause_id, run.epoch, actor, reason, now_ns))
                )
        saved = _saved_scope(scope, "running", cause, now_ns)
        await self._commit(planned, [], actor, request_id, durable=True, scopes=[saved])
        self.pipeline.resume_scope(scope)
        for transition in planned:
            self._tell(self.pipeline.applied(transition, self._clock_ns()))
        return [transition.session for transition in planned]

    async def terminate(self, keys: Iterable[SessionKey], actor: str, reason: str, request_id: str) -> None:
        """Ends sessions for good, once that is on the disk."""
        now_ns = self._clock_ns()
        planned = [self.pipeline.runs.plan_terminate(Terminate(key, actor, reason, now_ns)) for key in keys]
        await self._commit(planned, [], actor, request_id, durable=True)
        for transition in planned:
            self._tell(self.pipeline.applied(transition, self._clock_ns()))

    async def review(self, alert: Alert, verdict: str, actor: str, reason: str, request_id: str) -> Alert:
        """Closes an alert with a reviewer's verdict."""
        now_ns = self._clock_ns()
        closed = self.pipeline.alerts.close(alert, verdict, now_ns)
        entry = replace(
            self._entry("review", alert.session, actor=actor, request_id=request_id),
            detail={"alert": alert.fingerprint, "verdict": verdict, "reason": reason[:256]},
        )
        await self.control.commit(ControlBatch(alerts=[closed], audit=[entry]), durable=True)
        self._alerts_changed([closed])
        return closed

    # ------------------------------------------------------------ held acts and escalations

    def escalate(self, key: SessionKey, reason: str, at_least_ns: int, request_id: str) -> Approval:
        """The agent asks for a person: its session is held until a reviewer ends it, at least as long as stated."""
        now_ns = self._clock_ns()
        cause = Cause(
            pause_id=event_id(key.realm, "escalation", key.id, request_id),
            by="escalation",
            actor="agent",
            reason="the agent asks for an independent review",
            at_ns=now_ns,
            not_before_ns=now_ns + at_least_ns,
        )
        known = self.approvals.get(cause.pause_id)
        if known is not None:
            return known
        session = self.pipeline.sessions.get(key)
        agent = NO_AGENT if session is None else session.agent
        approval = Approval(
            decision_id=cause.pause_id,
            session=key,
            agent=agent,
            tool="escalate",
            digest=hashlib.sha256(reason.encode("utf-8", "replace")).digest(),
            asked_ns=now_ns,
            deadline_ns=2**62,
            arguments=reason[:1024],
            independence=self._independence(agent),
        )
        self.settle(self.pipeline.pause(key, cause, now_ns))
        self._keep_approval(approval, "escalate")
        return approval

    async def decide(self, decision_id: str, *, approve: bool, actor: str, reason: str, request_id: str) -> Approval:
        """A person decides about a held act.

        Raises:
            ControlError: ``NOT_FOUND``, or ``FAILED_PRECONDITION`` when it is decided already.
        """
        approval = self.approvals.get(decision_id)
        if approval is None:
            raise ControlError("NOT_FOUND", "no such decision")
        if approval.state != "open":
            raise ControlError("FAILED_PRECONDITION", f"it is {approval.state} already")
        decided = replace(
            approval,
            state="approved" if approve else "denied",
            decided_by=actor,
            decided_ns=self._clock_ns(),
            reason=reason,
        )
        entry = self._entry("approve" if approve else "deny", approval.session, actor=actor, request_id=request_id)
        entry = replace(entry, decision_id=decision_id)
        await self.control.commit(ControlBatch(approvals=[decided], audit=[entry]), durable=True)
        if self.approvals[decision_id].state == "open":
            self._close(decided)
        return decided

    async def wait(self, decision_id: str, timeout_s: float) -> Approval | None:
        """The decision about a held act; still open when nobody has decided in time; None when it is not known."""
        approval = self.approvals.get(decision_id)
        if approval is None or approval.state != "open":
            return approval
        event = self._decided.setdefault(decision_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout_s)
        return self.approvals.get(decision_id)

    def _hold(self, decision: Decision, asked: Asked, now_ns: int) -> None:
        if decision.event_id in self.approvals:
            return
        approval = Approval(
            decision_id=decision.event_id,
            session=decision.session,
            agent=decision.agent,
            tool=decision.tool,
            digest=_digest(asked),
            asked_ns=now_ns,
            deadline_ns=now_ns + HOLD_NS,
            call_id=asked.call_id,
            arguments=", ".join(sorted(map(str, asked.arguments)))[:256] if isinstance(asked.arguments, dict) else "",
            reasons=decision.reasons,
            independence=self._independence(decision.agent),
        )
        self._keep_approval(approval, "hold")

    def _keep_approval(self, approval: Approval, action: str) -> None:
        self.approvals[approval.decision_id] = approval
        if len(self.approvals) > 20_000:
            oldest = next((k for k, a in self.approvals.items() if a.state != "open"), next(iter(self.approvals)))
            del self.approvals[oldest]
        entry = replace(self._entry(action, approval.session), decision_id=approval.decision_id)
        self._commit_soon(ControlBatch(approvals=[approval], audit=[entry]))
        for watcher in self.watchers:
            watcher.approval_changed(approval)

    def _close_approval(self, approval: Approval, state: str, actor: str, reason: str) -> None:
        closed = replace(
            approval,
            state=state,
            decided_by=actor,
            decided_ns=self._clock_ns(),
            reason=reason,
        )
        entry = replace(self._entry(state, approval.session, actor=actor), decision_id=approval.decision_id)
        self._commit_soon(ControlBatch(approvals=[closed], audit=[entry]))
        self._close(closed)

    def _close(self, approval: Approval) -> None:
        self.approvals[approval.decision_id] = approval
        if (event := self._decided.pop(approval.decision_id, None)) is not None:
            event.set()
        for watcher in self.watchers:
            watcher.approval_changed(approval)

    def _independence(self, agent: Agent) -> str:
        owner = self._owner_of(agent.role)
        return f"owned by {owner}" if owner else "independence not asserted"

    # ------------------------------------------------------------ what the core said

    def settle(self, outcome: Outcome) -> None:
        """Stores what changed and tells whom it concerns, without waiting for the disk."""
        if outcome.transitions or outcome.alerts or outcome.renamed:
            batch = self._batch(outcome.transitions, outcome.alerts, "sidecar", "")
            batch.moves = list(outcome.renamed)
            self._commit_soon(batch)
        self._tell(outcome)

    async def _settle_durably(
        self, outcome: Outcome, actor: str, request_id: str, scopes: Sequence[SavedScope] = ()
    ) -> None:
        self._tell(outcome)
        await self._commit(outcome.transitions, outcome.alerts, actor, request_id, durable=True, scopes=scopes)

    def _tell(self, outcome: Outcome) -> None:
        self._meter.outcome(outcome)
        if outcome.transitions:
            for key in dict.fromkeys(transition.session for transition in outcome.transitions):
                run = self.pipeline.runs.get(key)
                for watcher in self.watchers:
                    watcher.run_changed(key, run)
        if outcome.alerts:
            self._alerts_changed(outcome.alerts)

    def _alerts_changed(self, alerts: Sequence[Alert]) -> None:
        for alert in {alert.fingerprint: alert for alert in alerts}.values():
            for watcher in self.watchers:
                watcher.alert_changed(alert)

    async def _commit(
        self, transitions: Sequence[Transition], alerts: Sequence[Alert], actor: str, request_id: str, *,
        durable: bool, scopes: Sequence[SavedScope] = (),
    ) -> None:  # fmt: skip
        batch = self._batch(transitions, alerts, actor, request_id)
        batch.scopes = list(scopes)
        if scopes and not batch.audit:
            batch.audit.append(self._entry("scope", None, actor=actor, request_id=request_id))
        await self.control.commit(batch, durable=durable)

    def _commit_soon(self, batch: ControlBatch) -> None:
        task = asyncio.ensure_future(self.control.commit(batch, durable=False))
        task.add_done_callback(_swallow)

    def _batch(
        self, transitions: Sequence[Transition], alerts: Sequence[Alert], actor: str, request_id: str
    ) -> ControlBatch:
        batch = ControlBatch(alerts=list({alert.fingerprint: alert for alert in alerts}.values()))
        for transition in transitions:
            session = self.pipeline.sessions.get(transition.session)
            batch.runs.append(
                SavedRun.after(
                    transition,
                    in_flight=self.pipeline.runs.get(transition.session).in_flight,
                    aliases=() if session is None else tuple(alias.id for alias in session.aliases),
                    agent=NO_AGENT if session is None else session.agent,
                    parent="" if session is None or session.parent is None else session.parent.id,
                )
            )
            batch.audit.append(self._entry_of(transition, actor, request_id))
        return batch

    def _entry_of(self, transition: Transition, actor: str, request_id: str) -> Entry:
        command = transition.command
        detail: dict[str, str | int | bool] = {"state": transition.after, "observed": transition.observed}
        if isinstance(command, Pause):
            actor = command.cause.actor if command.cause.by != "operator" else actor
            detail |= {"pause_id": command.cause.pause_id, "by": command.cause.by}
        elif isinstance(command, Resume):
            detail |= {"pause_id": command.pause_id, "cleared": len(command.clears), "reason": command.reason[:256]}
        elif isinstance(command, Terminate):
            detail |= {"reason": command.reason[:256]}
        elif isinstance(command, Move):
            detail |= {"old": command.old.id}
        entry = self._entry(type(command).__name__.lower(), transition.session, actor=actor, request_id=request_id)
        return replace(entry, epoch=transition.epoch, detail=detail)

    def _entry(
        self, action: str, session: SessionKey | None, *, actor: str = "sidecar", request_id: str = "",
        decision: Decision | None = None,
    ) -> Entry:  # fmt: skip
        return Entry(
            at=Instant.now(),
            actor=actor,
            action=action,
            realm="" if session is None else session.realm,
            session="" if session is None else session.id,
            request_id=request_id,
            decision_id="" if decision is None else decision.event_id,
            policy_digest=self.pipeline.policy.digest,
            detail={} if decision is None else {"tool": decision.tool[:128]},
        )

    # ------------------------------------------------------------ start

    def recall(self, state: ControlState) -> None:
        """Takes back what control.db holds: who is paused stays paused, before anybody is answered."""
        for key, epoch in state.epochs.items():
            self.pipeline.runs.restore(key, Run(epoch=epoch))
        for saved in state.runs:
            run = Run(
                desired=saved.desired,
                epoch=saved.epoch,
                observed=saved.observed if saved.observed != "running" else "requested",
                causes={cause.pause_id: cause for cause in saved.causes},
                pause_id=saved.pause_id,
                in_flight=saved.in_flight,
                requested_ns=saved.at_ns,
            )
            self.pipeline.runs.restore(saved.session, run)
        for scope in state.scopes:
            if scope.desired == "paused" and scope.causes:
                name = "fleet" if scope.kind == "fleet" else f"role:{scope.name}"
                self.pipeline.restore_scope(name, scope.causes[-1])
        for alert in state.alerts:
            self.pipeline.alerts.restore(alert)
        self.approvals = {approval.decision_id: approval for approval in state.approvals}
        self.pipeline.known_pauses = frozenset(cause.pause_id for saved in state.runs for cause in saved.causes)
        for name in state.unreadable:
            log.warning("control.db: a row could not be read", extra={"row": name})


def _digest(asked: Asked) -> bytes:
    body = msgspec.json.encode([asked.tool, asked.arguments, asked.session.id], order="deterministic")
    return hashlib.sha256(body).digest()


def _system(decision: Decision, reason: str, retry_after_ms: int) -> Decision:
    return replace(decision, answer="wait", ground="system", system=reason, retry_after_ms=retry_after_ms)


def _saved_scope(scope: str, desired: str, cause: Cause, now_ns: int) -> SavedScope:
    kind, _, name = scope.partition(":")
    held = desired == "paused"
    return SavedScope(
        "fleet" if kind == "fleet" else "role", name, desired,  # type: ignore[arg-type]
        epoch=now_ns, at_ns=now_ns, pause_id=cause.pause_id, causes=(cause,) if held else (),
    )  # fmt: skip


def _swallow(task: asyncio.Task[Any]) -> None:
    """A write that nobody waits for has failed: the store counts it and goes out of service by itself."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a record could not be stored", extra={"reason": type(error).__name__})
