"""Acts that wait for a person, and agents that ask for one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable

from msgspec.structs import replace

from sidecar.control.grants import digest
from sidecar.core.alerts import Decision
from sidecar.core.commands import Cause
from sidecar.core.digests import event_id
from sidecar.core.events import NO_AGENT, Agent, SessionKey
from sidecar.core.weave import Asked
from sidecar.errors import ControlError
from sidecar.service.sessions import Sessions
from sidecar.storage import (
    Approval,
    ControlBatch,
)


class Approvals(Sessions):
    """Held acts and escalations, from being asked until somebody has decided or nobody has in time."""

    approvals: dict[str, Approval]
    _decided: dict[str, asyncio.Event]
    _owner_of: Callable[[str], str]
    _hold_ns: int

    async def escalate(self, key: SessionKey, reason: str, at_least_ns: int, request_id: str) -> Approval:
        """The agent asks for a person: its session is held until a reviewer ends it, at least as long as stated.

        Raises:
            ControlError: The session is terminated.
            StorageError: The session is held, but that could not be stored.
        """
        now_ns = self._clock_ns()
        cause = Cause(
            pause_id=event_id(key.realm, "escalation", key.id, request_id),
            by="escalation",
            actor="agent",
            reason="the agent asks for an independent review",
            at_ns=now_ns,
            not_before_ns=now_ns + at_least_ns,
        )
        for known in (cause.pause_id, *self.run_of(key).causes):  # a session waits for one review at a time
            waiting = self.approvals.get(known)
            if waiting is None or waiting.session != key:
                continue
            if known == cause.pause_id or waiting.state == "open":
                return waiting
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
        outcome = self.pipeline.pause(key, cause, now_ns)
        self._remember_approval(approval)
        await self._settle_durably(outcome, "agent", request_id, approvals=[approval])
        return approval

    async def wait(self, decision_id: str, timeout_s: float) -> Approval | None:
        """The decision about a held act; still open when nobody has decided in time; None when it is not known."""
        approval = self.approvals.get(decision_id)
        if approval is None or approval.state != "open":
            return approval
        event = self._decided.setdefault(decision_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout_s)
        return self.approvals.get(decision_id)

    def _open_approval(self, decision_id: str) -> Approval:
        approval = self.approvals.get(decision_id)
        if approval is None:
            raise ControlError("NOT_FOUND", "no such decision")
        if approval.state != "open":
            raise ControlError("FAILED_PRECONDITION", f"it is {approval.state} already")
        return approval

    def _hold(self, decision: Decision, asked: Asked, now_ns: int) -> None:
        if decision.event_id in self.approvals:
            return
        approval = Approval(
            decision_id=decision.event_id,
            session=decision.session,
            agent=decision.agent,
            tool=decision.tool,
            digest=digest(asked.tool, asked.arguments, asked.session, self.pipeline.policy.digest),
            asked_ns=now_ns,
            deadline_ns=now_ns + self._hold_ns,
            call_id=asked.call_id,
            arguments=", ".join(sorted(map(str, asked.arguments)))[:256] if isinstance(asked.arguments, dict) else "",
            reasons=decision.reasons,
            independence=self._independence(decision.agent),
        )
        self._keep_approval(approval, "hold")

    def _keep_approval(self, approval: Approval, action: str) -> None:
        self._remember_approval(approval)
        entry = replace(self._entry(action, approval.session), decision_id=approval.decision_id)
        self._commit_soon(ControlBatch(approvals=[approval], audit=[entry]))

    def _remember_approval(self, approval: Approval) -> None:
        self.approvals[approval.decision_id] = approval
        if len(self.approvals) > 20_000:
            oldest = next((k for k, a in self.approvals.items() if a.state != "open"), next(iter(self.approvals)))
            del self.approvals[oldest]
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
