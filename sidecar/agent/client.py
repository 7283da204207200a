"""One agent's connection to the sidecar: its options, sessions, tools, spans, and the flows on them.

`Client` is what the blocking and the asyncio front share; it is not part of the public API.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import re
import threading
import time
import uuid
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

import sidecar
from sidecar.agent import tracing
from sidecar.agent.admission import Admission, Permit, deadline
from sidecar.agent.epochs import EpochStore
from sidecar.agent.errors import SidecarMisconfigured
from sidecar.agent.options import Credential, Options
from sidecar.agent.outbox import Outbox
from sidecar.agent.roster import Roster
from sidecar.agent.steps import Call, NoAnswer, Sleep, Steps
from sidecar.agent.wire import Wire
from sidecar.control.v1 import control_pb2 as pb

if TYPE_CHECKING:
    from sidecar.agent.session import SessionBase

log = logging.getLogger("sidecar.agent")

SESSION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
OPEN_S, ESCALATE_S = 1.0, 1.0


@dataclass(frozen=True)
class Tool:
    """A tool as the agent declares it. `reversible` None: what the sidecar's catalogue says."""

    name: str
    reversible: bool | None = None
    description: str = ""
    schema_json: str = ""


@dataclass
class Record:
    """One open session, however many `Session` objects stand for it; `session` is the newest of them."""

    session: SessionBase
    parent_id: str = ""
    task_key: str = ""
    users: int = 0
    tried: bool = False
    is_open: bool = False
    tools: dict[str, Tool] = field(default_factory=dict)
    told_tools: frozenset[str] = frozenset()
    effects: dict[str, pb.ToolEffect] = field(default_factory=dict)


class Client:
    """Everything of one `connect`."""

    def __init__(
        self, name: str, *, agent_id: str, version: str, options: Options, tracer_provider: TracerProvider | None
    ) -> None:
        if not name or len(name) > 256:
            raise SidecarMisconfigured("an agent needs a name of 1 to 256 characters")
        self.identity = pb.AgentIdentity(name=name, id=agent_id, version=version)
        self.options = options
        self.instance_id = uuid.uuid4().hex
        self.outbox = Outbox()
        self.roster = Roster(options.lease_s)
        self.tools: dict[str, Tool] = {}
        self._records: dict[str, Record] = {}
        self._lock = threading.Lock()
        self._epochs = EpochStore(options.state_dir) if options.state_dir else None
        self._deadline_s = options.deadline_s
        self._warned: set[str] = set()
        credential = Credential(options)
        credential.metadata()  # what cannot be read is found here, not at the first act
        options.check_files()
        self.wire = Wire(options, credential, self.roster, self)
        self.admission = Admission(
            options,
            self.roster,
            self.outbox,
            agent=self.identity,
            instance_id=lambda: self.instance_id,
            learn=lambda state: self.learn(state, watched=False),
            reopen=self.opening,
            deadline_s=lambda: self._deadline_s,
            clock=time.monotonic,
            now_ns=time.time_ns,
            jitter=random.random,
        )
        self._delivery = tracing.SpanDelivery(options, credential, self.outbox)
        self._tap = tracing.SpanTap(self.outbox, self._delivery, lambda: self.instance_id, self._records.__contains__)
        tracers = tracing.provider(tracer_provider, name, version)
        tracers.add_span_processor(self._tap)
        self.tracer: Tracer = tracers.get_tracer("sidecar.agent", sidecar.__version__)
        self.is_closed = False
        _CLIENTS.add(self)

    @property
    def span_attributes(self) -> dict[str, str]:
        """What names this agent on its own spans."""
        named = {
            "gen_ai.agent.name": self.identity.name,
            "gen_ai.agent.id": self.identity.id,
            "gen_ai.agent.version": self.identity.version,
        }
        return {key: value for key, value in named.items() if value}

    # ------------------------------------------------------------ sessions

    def enter(self, session: SessionBase, parent_id: str, task_key: str) -> None:
        """Begins to keep a session; the flow `opening` names it to the sidecar."""
        remembered = self._epochs.load(session.id) if self._epochs else None
        with self._lock:
            record = self._records.setdefault(session.id, Record(session, parent_id, task_key))
            record.session = session
            record.users += 1
        self.roster.open(session.id, remembered)

    def leave(self, session_id: str) -> None:
        """Ends one use of a session."""
        with self._lock:
            record = self._records.get(session_id)
            if record is not None:
                record.users -= 1
                if record.users <= 0:
                    del self._records[session_id]
        self.roster.close(session_id)

    def current(self) -> SessionBase:
        """The session of the present context; in a thread that has none, the only open one.

        Raises:
            SidecarMisconfigured: There is none, or several.
        """
        session: Any = otel_context.get_value(tracing.SESSION)
        if session is not None and session.client is self:
            return cast("SessionBase", session)
        with self._lock:
            if len(self._records) == 1:
                return next(iter(self._records.values())).session
            count = len(self._records)
        raise SidecarMisconfigured(
            f"{count or 'no'} sessions are open and none belongs to this context: call the tool within "
            "`with agent.session():`, or gate it with that session's own `session.tool`. It did not run."
        )

    def opening(self, session_id: str) -> Steps[None]:
        """Names a session to the sidecar. One that is away is no error: the session stays in HOLD until it is back.

        Raises:
            SidecarMisconfigured: The sidecar does not accept us, or not this id.
        """
        record = self._records.get(session_id)
        if record is None:
            return
        tools = {**self.tools, **record.tools}
        request = pb.OpenSessionRequest(
            session_id=session_id,
            agent=self.identity,
            parent_session_id=record.parent_id,
            task_key=record.task_key,
            instance_id=self.instance_id,
            tools=[pb.Tool(name=t.name, description=t.description, schema_json=t.schema_json) for t in tools.values()],
        )
        try:
            answer = yield Call("OpenSession", request, OPEN_S)
        except NoAnswer as error:
            record.tried = True
            if error.is_rejected:
                raise SidecarMisconfigured(
                    f"the sidecar refused to open the session ({error.code}): {error.details[:300]}"
                ) from None
            log.debug("session %s could not be opened yet: %s", session_id, error.code)
            return
        self._deadline_s = deadline(self.options.deadline_s, answer.deadline_ms)
        record.effects = dict(answer.tools.items())
        record.told_tools, record.tried, record.is_open = frozenset(tools), True, True
        self.roster.renew(time.monotonic(), answer.lease_ms)
        if answer.HasField("state") and answer.state.session_id == session_id:
            self.learn(answer.state, watched=True)

    def declare(self, tool: Tool, session_id: str = "") -> None:
        """A tool of one session, or of all where `session_id` is ""; sessions that are open are told soon."""
        record = self._records.get(session_id) if session_id else None
        (record.tools if record else self.tools)[tool.name] = tool
        self.wire.wake()

    def is_reversible(self, session_id: str, tool: str, said: bool | None) -> bool:
        """Whether an act may go on when nobody answers: as declared, else as the sidecar's catalogue says, else no.

        What the operator's catalogue knows to be irreversible is so, whatever the code says.
        """
        record = self._records.get(session_id)
        if said is None:
            declared = (record.tools.get(tool) if record else None) or self.tools.get(tool)
            said = declared.reversible if declared else None
        effect = record.effects.get(tool) if record else None
        if effect is not None and effect.known and not effect.reversible:
            return False
        return bool(effect is not None and effect.reversible) if said is None else said

    # ------------------------------------------------------------ acts

    def end_act(self, session_id: str, tool: str, call_id: str, permit: Permit, *, failed: bool) -> None:
        """An act is over: its outcome is reported, and a pause that waited for it hears that nothing runs any more."""
        if self.wire.is_forked:
            return
        acknowledgements = self.roster.end(session_id, call_id)
        outcome = pb.ReportOutcomeRequest(
            session_id=session_id,
            call_id=call_id,
            decision_id=permit.decision_id,
            failed=failed,
            ungated=permit.ungated,
            tool=tool,
        )
        self.wire.report("ReportOutcome", outcome)
        self._acknowledge(acknowledgements)

    def escalating(self, session_id: str, reason: str, at_least_s: float) -> Steps[str]:
        """Asks for a person; the decision's id. Sent again, as one request, until it is taken or patience ends.

        Raises:
            NoAnswer: Nobody took it.
        """
        request = pb.EscalateRequest(
            session_id=session_id, reason=reason, at_least_ms=round(at_least_s * 1000), request_id=uuid.uuid4().hex
        )
        until, wait_s = time.monotonic() + self.options.patience_s, 0.05
        while True:
            try:
                answer = yield Call("Escalate", request, ESCALATE_S)
            except NoAnswer as error:
                wait_s *= 2
                if error.is_rejected or time.monotonic() + wait_s > until:
                    raise
                if error.code == "NOT_FOUND":
                    yield from self.opening(session_id)
                yield Sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311
                continue
            if answer.HasField("state") and answer.state.session_id == session_id:
                self.learn(answer.state, watched=False)
            return str(answer.decision_id)

    # ------------------------------------------------------------ what the wire tells and asks

    def heard(self, response: pb.WatchResponse) -> None:
        """A message of Watch: a heartbeat, and perhaps states."""
        self.roster.renew(time.monotonic(), response.lease_ms)
        for state in response.states:
            self.learn(state, watched=True)

    def lost(self, now: float) -> None:
        """Watch is gone: every session is in HOLD, and what the sidecar was told may have to be told again."""
        self.roster.lose(now)
        self.outbox.untell()

    def watch_request(self, *, first: bool) -> pb.WatchRequest:
        """The first message names the epochs we know; later ones are our own heartbeat."""
        return pb.WatchRequest(
            instance_id=self.instance_id,
            known=self.roster.known() if first else (),
            dropped_spans=self.outbox.dropped,
        )

    def chores(self) -> None:
        """Names to the sidecar what it has not heard of: sessions it does not know, and tools declared since."""
        stale = set(self.roster.stale()) if self.wire.is_watching else set()
        with self._lock:
            records = list(self._records.items())
        for session_id, record in records:
            untold = (self.tools.keys() | record.tools.keys()) - record.told_tools
            if record.tried and (not record.is_open or untold or session_id in stale):
                try:
                    self.wire.drive(self.opening(session_id))
                except SidecarMisconfigured as error:
                    log.error("%s", error)
                if not record.is_open:
                    return  # nobody is there; the others wait for the next look

    def learn(self, state: pb.SessionState, *, watched: bool) -> None:
        """Takes in a session's state, keeps it, and acknowledges a pause."""
        changed, acknowledgements = self.roster.learn(state, watched=watched)
        if changed and self._epochs is not None:
            self._epochs.save(state)
        self._acknowledge(acknowledgements)

    def warn_once(self, words: str) -> None:
        """Logs `words` the first time."""
        if words not in self._warned:
            self._warned.add(words)
            log.warning("%s", words)

    def _acknowledge(self, acknowledgements: list[pb.AcknowledgeRequest]) -> None:
        for one in reversed([a for a in acknowledgements if a.observed == pb.OBSERVED_ACKNOWLEDGED]):
            self.wire.report("Acknowledge", one, urgent=True)
        for one in acknowledgements:
            if one.observed != pb.OBSERVED_ACKNOWLEDGED:
                self.wire.report("Acknowledge", one)

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """Gets spans and reports out, as far as `flush_s` reaches, and disconnects. Acts asked after it are refused."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
        _CLIENTS.discard(self)
        if self.wire.is_forked:
            return
        self._delivery.close()
        self._tap.force_flush()
        self.wire.close(self.options.flush_s)
        self._tap.shutdown()
        if self.outbox.dropped:
            log.warning("%d spans did not reach the sidecar", self.outbox.dropped)

    def _after_fork(self) -> None:
        if self.wire.has_started:
            self.wire.is_forked = self._tap.is_closed = True
        else:
            self.instance_id = uuid.uuid4().hex


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for client in list(_CLIENTS):
        client.close()


def _after_fork() -> None:
    for client in list(_CLIENTS):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
