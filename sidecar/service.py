"""The running sidecar: takes what the doors bring to the core, and what the core says to the stores and to the agents.

One event loop owns the core. A pause holds as soon as the core says so; everything else that changes a run state, and
every allow of an irreversible act, is on the disk before anybody is told (design §7).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from sidecar.control.grants import Minted, digest
from sidecar.core.alerts import Alert, Decision, Reason
from sidecar.core.commands import Acknowledge, By, Cause, Move, Observed, Pause, Resume, Terminate, Transition
from sidecar.core.digests import event_id, remember
from sidecar.core.events import NO_AGENT, Agent, SessionKey
from sidecar.core.findings import Severity
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.runstate import RUNNING, Run
from sidecar.core.span import Record, Span, Speaker
from sidecar.core.weave import Asked
from sidecar.errors import ControlError, StorageError
from sidecar.sources import Row
from sidecar.sources.losses import RECENT_NS, Loss, Losses
from sidecar.sources.turns import clear_way
from sidecar.storage import (
    Approval,
    ControlBatch,
    ControlState,
    ControlStore,
    Entry,
    Instant,
    Request,
    SavedRun,
    SavedScope,
    TelemetryStore,
)

log = logging.getLogger("sidecar.service")

HOLD_NS = 15 * 60 * 10**9
SOON_S = 0.01
"""What need not be stored before the answer waits so long for company; the store itself takes 20 ms at most."""
ALLOW_S = 1.0
"""How long the disk may take to store an allow; then the answer is a system refusal, and no grant is handed out."""
BEHIND_S = 0.1
"""How long a question about an irreversible act waits for spans that the agent has ended and we have not got."""
MAX_RELEASES = 1024


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


class Question(Struct, frozen=True):
    """What is asked at the gate, as it came.

    Attributes:
        carried: Spans that the agent's process had when it asked.
        pending: Ended spans that it could not carry, ``trace_id:span_id``.
        uninspectable: The arguments could not be read, and stand in `asked` as the text that they are.
    """

    speaker: Speaker
    asked: Asked
    carried: tuple[Span, ...] = ()
    pending: tuple[str, ...] = ()
    body: bytes = b""
    uninspectable: bool = False


class Verdict(Struct, frozen=True):
    """The answer to a question, and the grant that goes with an allow where somebody redeems it."""

    decision: Decision
    grant: Minted | None = None


Mint = Callable[[Decision, Any], Minted | None]
"""(an act that is allowed, its arguments) → a grant, None where nobody redeems one."""

Receipt = Callable[[Sequence[Transition]], Request]
"""What is about to change → the answered request that is stored with it."""


class Service:
    """The core with its stores and its listeners.

    Args:
        clock_ns: Wall clock, Unix nanoseconds.
        owner_of: Agent role → who owns it, "" where the configuration does not say.
        mint: Makes grants.
        hold_ns: How long a held act waits for a person before it is denied.
        fail_open: Tools whose acts agents may run when nobody answers, though they are irreversible.
        losses: Telemetry that was refused or lost at the doors.
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
        mint: Mint = lambda decision, arguments: None,
        hold_ns: int = HOLD_NS,
        fail_open: frozenset[str] = frozenset(),
        losses: Losses | None = None,
    ) -> None:
        self.pipeline, self.control, self.telemetry = pipeline, control, telemetry
        self._meter, self._clock_ns, self._owner_of, self._mint = meter, clock_ns, owner_of, mint
        self._hold_ns, self.fail_open = hold_ns, fail_open
        self.losses = losses
        self.arrivals = Arrivals()
        self.watchers: list[Watcher] = []
        self.restoring = True
        self.degraded: dict[str, None] = {}
        self.cold: dict[str, str] = {}
        self.asked_row = 0
        self.fed: tuple[int, int] = (0, 0)
        self.approvals: dict[str, Approval] = {}
        self._decided: dict[str, asyncio.Event] = {}
        self._rows: list[Row] = []
        self._soon = ControlBatch()
        self._appending: dict[asyncio.Future[Any], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._releases: dict[str, asyncio.Future[Verdict | None]] = {}
        self._orders = asyncio.Lock()
        """Resumes, terminations and decisions are planned, stored and applied one after another; pauses never wait."""
        self._ending: dict[SessionKey, None] = {}
        self._works: dict[str, SessionKey] = {}

    # ------------------------------------------------------------ telemetry

    def feed(self, span: Span, speaker: Speaker, arrived_ns: int, position: tuple[int, int]) -> None:
        """Gives one durable span to the core."""
        outcome = self.pipeline.feed(Record(span, speaker, arrived_ns, position), arrived_ns)
        self.fed = (position[0], position[1] + 1)
        self.settle(outcome)
        self.arrivals.arrived(speaker.realm, span.trace_id, span.span_id)

    def tick(self) -> None:
        """Time has passed; called about once a second."""
        now_ns = self._clock_ns()
        self.settle(self.pipeline.tick(now_ns))
        for approval in [a for a in self.approvals.values() if a.state == "open" and now_ns >= a.deadline_ns]:
            self._close_approval(approval, "expired", "sidecar", "nobody decided in time")
        if self.losses is not None:
            for loss in self.losses.untold():
                self._tell_of(loss, now_ns)

    def _tell_of(self, loss: Loss, now_ns: int) -> None:
        """Telemetry of an identity is missing: one alert that grows, and a mark on its sessions that are under way."""
        realm, amount = loss.speaker.realm, loss.amount
        agent = Agent(realm, name=loss.speaker.agent or "")
        about, score = f"{loss.told_ns}", amount / (amount + 1)
        key = SessionKey(realm, "")
        self.settle(
            self.pipeline.announce("telemetry_dropped", key, agent, loss.text, now_ns, about=about, score=score)
        )
        self._note_unscored(self.pipeline.sessions.latest(realm, now_ns - RECENT_NS), "dropped")

    # ------------------------------------------------------------ the gate

    async def authorize(self, question: Question) -> Verdict:
        """Answers a question; an allow of an irreversible act is on the disk before it is given."""
        asked = question.asked
        observed = self._is_observed(asked)
        if question.pending and not observed and await self._is_behind(question):
            return Verdict(_refused(asked, "behind", 200))
        now_ns, began_s = self._clock_ns(), time.perf_counter()
        for span in question.carried:
            self.settle(self.pipeline.feed(Record(span, question.speaker, now_ns), now_ns))
        row = Row("asked", question.body, now_ns, "proto", question.speaker, self.fed)
        outcome = self.pipeline.authorize(asked, now_ns)
        self._meter.decided(time.perf_counter() - began_s)
        decision = outcome.decision
        assert decision is not None
        if question.uninspectable:
            decision = _uninspectable(decision, observed=observed)
            self._note_unscored([decision.session], "uninspectable")
            outcome.decisions = [decision if d.event_id == decision.event_id else d for d in outcome.decisions]
            outcome.decision = decision
        self.settle(outcome)
        if decision.answer == "allow":
            minted = self._mint(decision, asked.arguments)
            if decision.irreversible:
                return await self._allow_durably(decision, minted, row)
            self._append_soon(row, self._entry("allow", decision.session, decision=decision), minted)
            return Verdict(decision, minted)
        if decision.answer == "hold":
            if decision.irreversible and self.restoring:
                return Verdict(_system(decision, "restoring", 500))
            self._hold(decision, asked, now_ns)
        denied = decision.answer == "deny"
        self._append_soon(row, self._entry("refuse", decision.session, decision=decision) if denied else None)
        return Verdict(decision)

    def _is_observed(self, asked: Asked) -> bool:
        agent = asked.agent
        if agent == NO_AGENT and (session := self.pipeline.sessions.get(asked.session)) is not None:
            agent = session.agent
        return self.pipeline.policy.posture(agent.role) == "observe"

    async def _is_behind(self, question: Question) -> bool:
        """Whether spans that bear on an irreversible act have not come in time."""
        asked = question.asked
        if self.pipeline.reader.catalogue.effect(asked.tool, asked.arguments).reversible:
            return False
        if await self.arrivals.wait(question.speaker.realm, question.pending, BEHIND_S):
            return False
        return self.run_of(asked.session).desired == "running"  # a paused session is told so

    def ask_again(self, question: Question, asked_ns: int) -> Decision | None:
        """Takes in a question from before a restart; its answer was given then."""
        for span in question.carried:
            self.settle(self.pipeline.feed(Record(span, question.speaker, asked_ns), asked_ns))
        outcome = self.pipeline.authorize(question.asked, asked_ns)
        self.settle(outcome)
        return outcome.decision

    async def _allow_durably(self, decision: Decision, minted: Minted | None, row: Row | None) -> Verdict:
        """Puts an allow and its grant on the disk together, and looks again at what has happened meanwhile."""
        observed = self.pipeline.policy.posture(decision.agent.role) == "observe"
        if self.restoring and not observed:
            return Verdict(_system(decision, "restoring", 500))
        if not observed and self.losses is not None and self.losses.is_recent(decision.session.realm):
            return Verdict(_system(decision, "degraded", 1000))
        epoch = self.run_of(decision.session).epoch
        batch = ControlBatch(
            grants=[] if minted is None else [minted.row],
            audit=[self._entry("allow", decision.session, decision=decision)],
        )
        clear_way()
        self.flush()  # rows keep the gate's order
        appended = None if row is None else asyncio.ensure_future(self.telemetry.append(row))
        try:
            async with asyncio.timeout(ALLOW_S):
                await self._store(batch)
                if appended is not None:
                    await asyncio.gather(appended, return_exceptions=True)
        except (StorageError, TimeoutError) as error:
            reason = "deadline" if isinstance(error, TimeoutError) else "unavailable"
            return Verdict(decision if observed else _system(decision, reason, 1000))
        run = self.run_of(decision.session)
        if run.epoch == epoch:
            return Verdict(decision, minted)
        if run.desired == "running":  # paused and resumed again: the grant went with the pause
            return Verdict(_system(decision, "stale", 0))
        return Verdict(replace(decision, answer="deny", ground="judged", state=run.desired))

    def run_of(self, key: SessionKey) -> Run:
        """A session's run state, by whatever id it is or was known."""
        return self.pipeline.runs.get(self.pipeline.sessions.resolve(key))

    def find(self, session_id: str, realm: str = "") -> list[SessionKey]:
        """Sessions of that id, which several realms may have; those that are only known as held, too."""
        if realm:
            realms = {realm: None}
        else:
            realms = dict.fromkeys(self.pipeline.sessions.realms())
            realms |= dict.fromkeys(key.realm for key, _ in self.pipeline.runs)
        found: dict[SessionKey, None] = {}
        for name in realms:
            key = self.pipeline.sessions.resolve(SessionKey(name, session_id))
            if self.knows(key):
                found[key] = None
        return list(found)

    def knows(self, key: SessionKey) -> bool:
        """Whether there is such a session, or was one that is held or ended."""
        return self.pipeline.sessions.get(key) is not None or self.pipeline.runs.get(key) is not RUNNING

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
            task = asyncio.ensure_future(self.telemetry.append(row))
            self._appending[task] = None
            task.add_done_callback(self._appended)
        batch, self._soon = self._soon, ControlBatch()
        if batch.audit or batch.grants:
            self._post(batch)

    def _appended(self, task: asyncio.Future[Any]) -> None:
        self._appending.pop(task, None)
        _swallow(task)

    async def close(self) -> None:
        """Waits until all that was put off is given to the stores; they are to be closed after it."""
        self.flush()
        await asyncio.gather(*self._appending, return_exceptions=True)

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

    def believe(self, key: SessionKey, epoch: int) -> None:
        """An agent's process knows a later state of its session than we do: it is held until a person has looked."""
        now_ns = self._clock_ns()
        key = self.pipeline.sessions.resolve(key)
        if self.pipeline.runs.get(key).desired == "terminated":
            return
        cause = Cause(
            pause_id=event_id(key.realm, "lost", key.id, str(epoch)),
            by="policy",
            actor="sidecar",
            reason="the agent knows a later state of this session than the sidecar does",
            at_ns=now_ns,
        )
        self.pipeline.runs.outrun(key, epoch)
        self.settle(self.pipeline.pause(key, cause, now_ns))

    def spans_dropped(self, speaker: Speaker, keys: Iterable[SessionKey], spans: int) -> None:
        """The process that runs these sessions has lost spans of them."""
        self._note_unscored(keys, "dropped")
        if self.losses is not None:
            self.losses.note(speaker, "dropped_by_agent", requests=0, spans=spans)

    def _note_unscored(self, keys: Iterable[SessionKey], reason: str) -> None:
        for key in keys:
            if (session := self.pipeline.sessions.get(key)) is not None:
                self.pipeline.sessions.touched(session)
                session.note_unscored((reason,))

    # ------------------------------------------------------------ commands of people

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
            now_ns = self._clock_ns()
            causes = set(self.pipeline.runs.get(key).causes)
            planned = [
                self.pipeline.runs.plan_resume(Resume(key, pause_id, epoch, actor, reason, now_ns, tuple(clears)))
            ]
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
        closed = self.pipeline.alerts.close(alert, verdict, now_ns)
        entry = replace(
            self._entry("review", alert.session, actor=actor, request_id=request_id),
            detail={"alert": alert.fingerprint, "verdict": verdict, "reason": reason[:256]},
        )
        batch = ControlBatch(alerts=[closed], audit=[entry], requests=[receipt(closed)] if receipt else [])
        await self._store(batch)
        if verdict == "true_positive":
            self.pipeline.confirm(closed)
        self._alerts_changed([closed])
        return closed

    # ------------------------------------------------------------ held acts and escalations

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
        await self.resume(
            approval.session, run.pause_id, run.epoch, actor, reason, (), request_id,
            approvals=[decided], receipt=(lambda _: requests[0]) if requests else None,
        )  # fmt: skip
        return self.approvals.get(decision_id, decided)

    def _open_approval(self, decision_id: str) -> Approval:
        approval = self.approvals.get(decision_id)
        if approval is None:
            raise ControlError("NOT_FOUND", "no such decision")
        if approval.state != "open":
            raise ControlError("FAILED_PRECONDITION", f"it is {approval.state} already")
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

    async def release(self, decision_id: str) -> Verdict | None:
        """The answer to an act that a person has approved, judged again; the same to everyone who asks for it.

        Returns:
            None when the act is not held any more: then it is to be asked for at the gate again.
        """
        known = self._releases.get(decision_id)
        if known is None:
            known = asyncio.ensure_future(self._release(decision_id))
            known.add_done_callback(_swallow)
            remember(self._releases, decision_id, known, MAX_RELEASES)
        verdict = await asyncio.shield(known)
        if verdict is None:
            return None
        decision, minted = verdict.decision, verdict.grant
        if decision.answer != "allow":
            self._releases.pop(decision_id, None)  # it may be asked for, and held, again
            return verdict
        run = self.run_of(decision.session)
        if run.desired != "running":
            return Verdict(replace(decision, answer="deny", ground="judged", state=run.desired))
        if minted is not None and Instant.now().boot_ns >= minted.row.expires.boot_ns:
            return None
        return verdict

    async def _release(self, decision_id: str) -> Verdict | None:
        held = self.pipeline.held.get(decision_id)
        decision = self.pipeline.release(decision_id, self._clock_ns())
        if held is None or decision is None:
            return None
        if decision.answer != "allow":
            return Verdict(decision)
        return await self._allow_durably(decision, self._mint(decision, held.event.arguments), None)

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

    # ------------------------------------------------------------ what the core said

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
                for cause in scope.causes:
                    self.pipeline.restore_scope(name, cause)
        for alert in state.alerts:
            self.pipeline.alerts.restore(alert)
        self.approvals = {approval.decision_id: approval for approval in state.approvals}
        self.pipeline.known_pauses = frozenset(cause.pause_id for saved in state.runs for cause in saved.causes)
        for name in state.unreadable:
            log.warning("control.db: a row could not be read", extra={"row": name})


def _system(decision: Decision, reason: str, retry_after_ms: int) -> Decision:
    return replace(decision, answer="wait", ground="system", system=reason, retry_after_ms=retry_after_ms)


def _refused(asked: Asked, reason: str, retry_after_ms: int) -> Decision:
    """A system refusal of a question that the core has not seen: nothing is said, or remembered, of the agent."""
    decision = Decision("", asked.session, asked.agent, asked.tool, asked.at_ns, "wait")
    return _system(decision, reason, retry_after_ms)


def _uninspectable(decision: Decision, *, observed: bool) -> Decision:
    """What cannot be read is not allowed (reliability.md, bad input 72)."""
    reason = Reason("policy", Severity.MEDIUM, 0.5, "the arguments cannot be inspected")
    unscored = tuple(dict.fromkeys((*decision.unscored, "uninspectable")))
    decision = replace(decision, reasons=(*decision.reasons, reason), unscored=unscored)
    if observed or decision.answer == "deny":
        return decision if decision.answer == "deny" else replace(decision, would="deny")
    return replace(decision, answer="deny", would="deny", ground="judged", system="")


def _saved_scope(scope: str, causes: tuple[Cause, ...], pause_id: str, now_ns: int) -> SavedScope:
    kind, _, name = scope.partition(":")
    return SavedScope(
        "fleet" if kind == "fleet" else "role", name, "paused" if causes else "running",
        epoch=now_ns, at_ns=now_ns, pause_id=pause_id, causes=causes,
    )  # fmt: skip


def _swallow(task: asyncio.Future[Any]) -> None:
    """A write that nobody waits for has failed: the store counts it and goes out of service by itself."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a record could not be stored", extra={"reason": type(error).__name__})


class Arrivals:
    """Which spans the core has been given, for questions that wait for one.

    Memory: ids of the latest `KEPT` spans of each of `REALMS` realms, those that questions come from.
    """

    KEPT, REALMS = 8192, 256

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, None]] = {}
        self._waiting: dict[tuple[str, str], list[asyncio.Future[None]]] = {}

    def listen(self, realm: str) -> None:
        """From now on, spans of this realm are remembered."""
        if realm not in self._seen:
            remember(self._seen, realm, {}, self.REALMS)

    def arrived(self, realm: str, trace_id: str, span_id: str) -> None:
        """A span has been given to the core."""
        seen = self._seen.get(realm)
        if seen is None:
            return
        place = f"{trace_id}:{span_id}"
        remember(seen, place, None, self.KEPT)
        for waiter in self._waiting.pop((realm, place), ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, realm: str, places: Iterable[str], timeout_s: float) -> bool:
        """Whether all of `places` (``trace_id:span_id``) have arrived, or do so within `timeout_s`."""
        self.listen(realm)
        missing = [place for place in dict.fromkeys(places) if place not in self._seen[realm]]
        if not missing:
            return True
        loop = asyncio.get_running_loop()
        waiters = {(realm, place): loop.create_future() for place in missing}
        for key, waiter in waiters.items():
            self._waiting.setdefault(key, []).append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*waiters.values())
        except TimeoutError:
            return False
        finally:
            for key, waiter in waiters.items():
                if (others := self._waiting.get(key)) is not None:
                    others.remove(waiter)
                    if not others:
                        del self._waiting[key]
        return True
