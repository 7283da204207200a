"""What goes on record: what the core says is stored and told, at once where somebody waits, else within 20 ms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec.structs import replace

from sidecar.control.grants import Minted
from sidecar.core.alerts import Alert, Decision
from sidecar.core.commands import Move, Pause, Resume, Terminate, Transition
from sidecar.core.events import NO_AGENT, SessionKey
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.runstate import Run
from sidecar.errors import StorageError
from sidecar.sources import Row
from sidecar.storage import (
    Approval,
    ControlBatch,
    ControlStore,
    Entry,
    Instant,
    Request,
    SavedRun,
    SavedScope,
    TelemetryStore,
)

log = logging.getLogger("sidecar.service")

SOON_S = 0.01
"""What need not be stored before the answer waits so long for company; the store itself takes 20 ms at most."""


class Watcher(Protocol):
    """Hears of run states, held acts and alerts as they change; must not block."""

    def run_changed(self, key: SessionKey, run: Run) -> None: ...

    def alert_changed(self, alert: Alert) -> None: ...

    def approval_changed(self, approval: Approval) -> None: ...


class Meter(Protocol):
    """Counts what came of an input; see `observe.metrics`."""

    def outcome(self, outcome: Outcome) -> None: ...

    def confirmed(self, seconds: float) -> None: ...

    def decided(self, seconds: float) -> None: ...


Receipt = Callable[[Sequence[Transition]], Request]
"""What is about to change → the answered request that is stored with it."""


class Recording:
    """The core, the stores, and those who hear of changes.

    Args:
        clock_ns: Wall clock, Unix nanoseconds.
    """

    def __init__(
        self, pipeline: Pipeline, control: ControlStore, telemetry: TelemetryStore, meter: Meter,
        clock_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        self.pipeline, self.control, self.telemetry = pipeline, control, telemetry
        self._meter, self._clock_ns = meter, clock_ns
        self.watchers: list[Watcher] = []
        self.restoring = True
        self.asked_row = 0
        """The last row of the inbox that holds a question; all up to it are known to the core."""
        self._rows: list[Row] = []
        self._soon = ControlBatch()
        self._appending: dict[asyncio.Future[Any], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ending: dict[SessionKey, None] = {}
        """Sessions whose end is on its way to the disk."""

    def settle(self, outcome: Outcome) -> None:
        """Stores what changed and tells whom it concerns, without waiting for the disk."""
        if outcome.transitions or outcome.alerts or outcome.renamed:
            batch = self._batch(outcome.transitions, outcome.alerts, "sidecar", "")
            batch.moves = list(outcome.renamed)
            self._commit_soon(batch)
        self._tell(outcome)

    async def _settle_durably(
        self, outcome: Outcome, actor: str, request_id: str, *, scopes: Sequence[SavedScope] = (),
        approvals: Sequence[Approval] = (), receipt: Receipt | None = None,
    ) -> None:  # fmt: skip
        self._tell(outcome)
        await self._commit(
            outcome.transitions, outcome.alerts, actor, request_id,
            scopes=scopes, approvals=approvals, receipt=receipt,
        )  # fmt: skip

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
        scopes: Sequence[SavedScope] = (), approvals: Sequence[Approval] = (),
        receipt: Receipt | None = None,
    ) -> None:  # fmt: skip
        batch = self._batch(transitions, alerts, actor, request_id)
        batch.scopes, batch.approvals = list(scopes), list(approvals)
        for scope in scopes:
            detail: dict[str, str | int | bool] = {
                "scope": scope.kind,
                "name": scope.name[:256],
                "state": scope.desired,
            }
            batch.audit.append(replace(self._entry("scope", None, actor=actor, request_id=request_id), detail=detail))
        if receipt is not None:
            batch.requests = [receipt(transitions)]
        await self._store(batch)

    def note(self, batch: ControlBatch) -> None:
        """Puts something on record within 20 ms, for nobody to wait for."""
        self._commit_soon(batch)

    async def _store(self, batch: ControlBatch) -> None:
        self.flush()  # a grant given before a pause must be there when the pause makes it void
        await self.control.commit(batch, durable=True)

    def _commit_soon(self, batch: ControlBatch) -> None:
        self.flush()
        self._post(batch)

    def _post(self, batch: ControlBatch) -> None:
        try:
            self.control.post(batch)
        except StorageError as error:  # the store counts it, and goes out of service by itself
            log.error("a record could not be stored", extra={"reason": type(error).__name__})

    def _append_soon(self, row: Row, entry: Entry | None = None, grant: Minted | None = None) -> None:
        """Stores what nobody waits for, together with what else comes within `SOON_S`; rows keep the gate's order."""
        self._rows.append(row)
        if entry is not None:
            self._soon.audit.append(entry)
        if grant is not None:
            self._soon.grants.append(grant.row)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SOON_S, self.flush)

    def flush(self) -> None:
        """Gives the stores what was put off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rows, self._rows = self._rows, []
        for row in rows:
            self._append(row)
        batch, self._soon = self._soon, ControlBatch()
        if batch.audit or batch.grants:
            self._post(batch)

    def _append(self, row: Row) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(self.telemetry.append(row))
        self._appending[task] = None
        task.add_done_callback(self._appended)
        return task

    def _appended(self, task: asyncio.Future[Any]) -> None:
        self._appending.pop(task, None)
        swallow(task)
        if not task.cancelled() and task.exception() is None:
            self.asked_row = max(self.asked_row, task.result())

    async def close(self) -> None:
        """Waits until all that was put off is given to the stores; they are to be closed after it."""
        self.flush()
        await asyncio.gather(*self._appending, return_exceptions=True)

    def _batch(
        self, transitions: Sequence[Transition], alerts: Sequence[Alert], actor: str, request_id: str
    ) -> ControlBatch:
        newest = {alert.fingerprint: alert for alert in alerts}
        if self.restoring:  # what came about again may have been resolved before the restart
            newest = {mark: alert for mark, alert in newest.items() if not self._is_resolved(alert)}
        batch = ControlBatch(alerts=list(newest.values()))
        for transition in transitions:
            batch.audit.append(self._entry_of(transition, actor, request_id))
            if transition.session in self._ending and transition.after != "terminated":
                continue  # its end is on its way to the disk, and nothing may follow that
            session = self.pipeline.sessions.get(transition.session)
            batch.runs.append(
                SavedRun.after(
                    transition,
                    in_flight=self.pipeline.runs.get(transition.session).in_flight,
                    aliases=() if session is None else tuple(alias.id for alias in session.aliases),
                    agent=NO_AGENT if session is None else session.agent,
                    work=(session.task,) if session is not None and session.task else (),
                    parent="" if session is None or session.parent is None else session.parent.id,
                )
            )
        return batch

    def _is_resolved(self, alert: Alert) -> bool:
        stored = self.control.alert(alert.fingerprint)
        if stored is None or stored.state == "firing" or alert.state == "resolved":
            return False
        self.pipeline.alerts.close(alert, stored.verdict, stored.resolved_ns)
        return True

    def _entry_of(self, transition: Transition, actor: str, request_id: str) -> Entry:
        command = transition.command
        detail: dict[str, str | int | bool] = {"state": transition.after, "observed": transition.observed}
        if isinstance(command, Pause):
            actor = command.cause.actor if command.cause.by != "operator" else actor
            detail |= {"pause_id": command.cause.pause_id, "by": command.cause.by}
            if command.cause.by == "operator":  # of other causes the reason may hold an agent's words
                detail |= {"reason": command.cause.reason[:256]}
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
            epoch=0 if session is None else self.pipeline.runs.get(session).epoch,
            request_id=request_id,
            decision_id="" if decision is None else decision.event_id,
            policy_digest=self.pipeline.policy.digest,
            detail={} if decision is None else {"tool": decision.tool[:128]},
        )


def swallow(task: asyncio.Future[Any]) -> None:
    """A write that nobody waits for has failed: the store counts it and goes out of service by itself."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a record could not be stored", extra={"reason": type(error).__name__})
