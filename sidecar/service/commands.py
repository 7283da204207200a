"""What people command: pause, resume, terminate, by session and by scope; verdicts on alerts and on held acts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Sequence

from msgspec.structs import replace

from sidecar.core.alerts import Alert
from sidecar.core.commands import By, Cause, Resume, Terminate, Transition
from sidecar.core.digests import event_id
from sidecar.core.events import SessionKey
from sidecar.core.pipeline import Outcome
from sidecar.errors import ControlError
from sidecar.service.approvals import Approvals
from sidecar.service.recording import Receipt
from sidecar.storage import (
    Approval,
    ControlBatch,
    Request,
    SavedScope,
)


class Commands(Approvals):
    """Commands of operators and detectors: a pause holds at once, all else once it is on the disk."""

    _orders: asyncio.Lock
    """Resumes, terminations and decisions are planned, stored and applied one after another; pauses never wait."""

    async def pause(
        self, keys: Iterable[SessionKey], actor: str, reason: str, request_id: str, *,
        by: By = "operator", receipt: Receipt | None = None,
    ) -> list[Transition]:  # fmt: skip
        """Holds sessions at once; comes back when that is on the disk.

        Raises:
            ControlError: A session is terminated, or about to be.
            StorageError: The pause holds, but could not be stored.
        """
        now_ns = self._clock_ns()
        outcome = Outcome()
        keys = list(keys)
        if any(key in self._ending for key in keys):
            raise ControlError("FAILED_PRECONDITION", "the session is being terminated")
        for key in keys:
            # A detector that repeats itself renews its one cause; each pause by a person is one of its own.
            name = (by, actor, request_id) if by == "operator" else (by, actor)
            cause = Cause(event_id(key.realm, *name), by, actor, reason, now_ns)
            part = self.pipeline.pause(key, cause, now_ns)
            outcome.transitions.extend(part.transitions)
        await self._settle_durably(outcome, actor, request_id, receipt=receipt)
        return outcome.transitions

    async def pause_scope(
        self, scope: str, actor: str, reason: str, request_id: str, *, receipt: Receipt | None = None
    ) -> list[Transition]:
        """Holds a role (``role:NAME``) or the ``fleet``, and what opens later; the sessions held."""
        now_ns = self._clock_ns()
        cause = Cause(event_id("", "operator", actor, request_id), "operator", actor, reason, now_ns, scope=scope)
        outcome = self.pipeline.pause_scope(scope, cause, now_ns)
        saved = _saved_scope(scope, self.pipeline.scope_causes(scope), cause.pause_id, now_ns)
        await self._settle_durably(outcome, actor, request_id, scopes=[saved], receipt=receipt)
        return outcome.transitions

    async def resume(
        self, key: SessionKey, pause_id: str, epoch: int, actor: str, reason: str, clears: Sequence[str],
        request_id: str, *, tree: bool = False, approvals: Sequence[Approval] = (), receipt: Receipt | None = None,
    ) -> list[Transition]:  # fmt: skip
        """Lets a session go on once that is on the disk.

        Args:
            tree: Sessions that it started go on, too, where nothing holds them but what held it.
            approvals: Changes that are stored with it.
        Raises:
            ControlError: It answers an older pause, or something that holds the session is not named.
            StorageError: It could not be stored; the session stays held.
        """
        async with self._orders:
            return await self._resume(
                key, pause_id, epoch, actor, reason, clears, request_id, tree=tree, approvals=approvals, receipt=receipt
            )

    async def _resume(
        self, key: SessionKey, pause_id: str, epoch: int, actor: str, reason: str, clears: Sequence[str],
        request_id: str, *, tree: bool = False, approvals: Sequence[Approval] = (), receipt: Receipt | None = None,
    ) -> list[Transition]:  # fmt: skip
        now_ns = self._clock_ns()
        causes = set(self.pipeline.runs.get(key).causes)
        planned = [self.pipeline.runs.plan_resume(Resume(key, pause_id, epoch, actor, reason, now_ns, tuple(clears)))]
        for child in self.pipeline.tree(key)[1:] if tree else ():
            run = self.pipeline.runs.get(child)
            if run.desired == "paused" and causes.issuperset(run.causes):
                command = Resume(child, run.pause_id, run.epoch, actor, reason, now_ns, tuple(clears))
                planned.append(self.pipeline.runs.plan_resume(command))
        await self._commit(planned, [], actor, request_id, approvals=approvals, receipt=receipt)
        for approval in approvals:
            self._close(approval)
        return self._apply(planned, actor, request_id)

    async def resume_scope(
        self, scope: str, pause_id: str, actor: str, reason: str, request_id: str, *, receipt: Receipt | None = None
    ) -> list[Transition]:
        """Takes back a scope's pauses: for what opens later, and for every session that nothing else holds.

        Raises:
            ControlError: The scope is not paused, or was paused again since.
            StorageError: It could not be stored; everything stays held.
        """
        async with self._orders:
            now_ns = self._clock_ns()
            causes = self.pipeline.scope_causes(scope)
            if not causes:
                raise ControlError("FAILED_PRECONDITION", f"{scope} is not paused")
            if causes[-1].pause_id != pause_id:
                raise ControlError("FAILED_PRECONDITION", "the state has changed: this answers an older pause")
            ids = {cause.pause_id for cause in causes}
            planned = []
            for key in self.pipeline.in_scope(scope):
                run = self.pipeline.runs.get(key)
                if run.desired == "paused" and all(self._is_lifted(cause, ids) for cause in run.causes.values()):
                    planned.append(
                        self.pipeline.runs.plan_resume(Resume(key, run.pause_id, run.epoch, actor, reason, now_ns))
                    )
            saved = _saved_scope(scope, (), pause_id, now_ns)
            await self._commit(planned, [], actor, request_id, scopes=[saved], receipt=receipt)
            later = [cause for cause in self.pipeline.scope_causes(scope) if cause.pause_id not in ids]
            self.pipeline.resume_scope(scope)
            for cause in later:  # paused again while this was being stored
                self.pipeline.restore_scope(scope, cause)
            return self._apply(planned, actor, request_id)

    def _is_lifted(self, cause: Cause, ids: Container[str]) -> bool:
        """Whether a cause is one of `ids`, or came from a scope that has been resumed since."""
        if cause.pause_id in ids or not cause.scope:
            return cause.pause_id in ids
        return all(cause.pause_id != standing.pause_id for standing in self.pipeline.scope_causes(cause.scope))

    async def terminate(
        self, keys: Iterable[SessionKey], actor: str, reason: str, request_id: str, *, receipt: Receipt | None = None
    ) -> list[Transition]:
        """Ends sessions for good, once that is on the disk.

        Raises:
            ControlError: One of them is terminated already.
            StorageError: It could not be stored.
        """
        async with self._orders:
            now_ns = self._clock_ns()
            planned = [self.pipeline.runs.plan_terminate(Terminate(key, actor, reason, now_ns)) for key in keys]
            self._ending = {transition.session: None for transition in planned}
            try:
                await self._commit(planned, [], actor, request_id, receipt=receipt)
            except BaseException:
                self._hold_unended(now_ns)
                raise
            finally:
                self._ending = {}
            return self._apply(planned, actor, request_id)

    def _hold_unended(self, now_ns: int) -> None:
        """What was to be ended and could not be is held; a pause that came meanwhile is stored with it."""
        ending, self._ending = self._ending, {}
        outcome = Outcome()
        for key in ending:
            cause = Cause(event_id(key.realm, "unended", key.id, str(now_ns)), "policy", "sidecar",
                          "its termination could not be stored", now_ns)  # fmt: skip
            outcome.transitions.extend(self.pipeline.pause(key, cause, now_ns).transitions)
        self.settle(outcome)

    def _apply(self, planned: Sequence[Transition], actor: str, request_id: str) -> list[Transition]:
        """Lets what has been stored take effect, and stores what that has changed in turn."""
        now_ns = self._clock_ns()
        applied: list[Transition] = []
        for transition in planned:
            outcome = self.pipeline.applied(transition, now_ns)
            applied += outcome.transitions
            if outcome.alerts:
                self._commit_soon(ControlBatch(alerts=list(outcome.alerts)))
            now = outcome.transitions[-1]
            if (now.after, now.epoch) != (transition.after, transition.epoch):  # a pause has come in between
                self._commit_soon(self._batch([now], [], actor, request_id))
            self._tell(outcome)
            self._close_approvals(transition, actor)
        return applied

    def _close_approvals(self, transition: Transition, actor: str) -> None:
        """Ends what waited for a person about a session that goes on, or has ended."""
        ended = transition.after == "terminated"
        for approval in list(self.approvals.values()) if ended else map(self.approvals.get, transition.cleared):
            if approval is None or approval.state != "open" or approval.session != transition.session:
                continue
            word = "the session was ended" if ended else "the session was resumed"
            self._close_approval(approval, "denied" if ended else "approved", actor, word)

    async def review(
        self, alert: Alert, verdict: str, actor: str, reason: str, request_id: str, *,
        receipt: Callable[[Alert], Request] | None = None,
    ) -> Alert:  # fmt: skip
        """Closes an alert with a reviewer's verdict; acts like those of one that is right stay refused."""
        now_ns = self._clock_ns()
        closed = self.pipeline.alerts.closed(alert, verdict, now_ns)
        entry = replace(
            self._entry("review", alert.session, actor=actor, request_id=request_id),
            detail={"alert": alert.fingerprint, "verdict": verdict, "reason": reason[:256]},
        )
        batch = ControlBatch(alerts=[closed], audit=[entry], requests=[receipt(closed)] if receipt else [])
        await self._store(batch)
        closed = self.pipeline.alerts.close(alert, verdict, now_ns)
        if verdict == "true_positive":
            self.pipeline.confirm(closed)
        self._alerts_changed([closed])
        return closed

    async def decide(
        self, decision_id: str, *, approve: bool, actor: str, reason: str, request_id: str,
        receipt: Callable[[Approval], Request] | None = None,
    ) -> Approval:  # fmt: skip
        """A person decides about a held act, or about an escalation: approving that lets its session go on.

        Raises:
            ControlError: ``NOT_FOUND``, or ``FAILED_PRECONDITION`` when it is decided already, or when something else
                holds the session of an escalation, too.
        """
        async with self._orders:
            approval = self._open_approval(decision_id)
            decided = replace(
                approval,
                state="approved" if approve else "denied",
                decided_by=actor,
                decided_ns=self._clock_ns(),
                reason=reason,
            )
            requests = [receipt(decided)] if receipt else []
            if not (approve and approval.tool == "escalate"):
                entry = self._entry(
                    "approve" if approve else "deny", approval.session, actor=actor, request_id=request_id
                )
                entry = replace(entry, decision_id=decision_id)
                batch = ControlBatch(approvals=[decided], audit=[entry], requests=requests)
                await self._store(batch)
                if self.approvals[decision_id].state == "open":
                    self._close(decided)
                return decided
            run = self.run_of(approval.session)
            if set(run.causes) != {decision_id}:
                raise ControlError("FAILED_PRECONDITION", "something else holds the session, too: resume it")
            await self._resume(
                approval.session, run.pause_id, run.epoch, actor, reason, (), request_id,
                approvals=[decided], receipt=(lambda _: requests[0]) if requests else None,
            )  # fmt: skip
            return self.approvals.get(decision_id, decided)


def _saved_scope(scope: str, causes: tuple[Cause, ...], pause_id: str, now_ns: int) -> SavedScope:
    kind, _, name = scope.partition(":")
    return SavedScope(
        "fleet" if kind == "fleet" else "role", name, "paused" if causes else "running",
        epoch=now_ns, at_ns=now_ns, pause_id=pause_id, causes=causes,
    )  # fmt: skip
