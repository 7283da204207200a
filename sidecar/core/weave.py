"""Facts → events: binds spans to sessions, and says each act and each text once, however often it is told.

An act may be told by the gate, by a tool span, by a model's message, by several instrumentations, in any order. A text
is told again with every model call that repeats the history. `Weaver` remembers, within bounds, what each session has
already said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core import oddities, semconv
from sidecar.core.binding import MAX_NAME, UNIQUE_CALL_ID, Bindings, Named
from sidecar.core.digests import Known, arguments_digest, event_id, is_same_tool, remember, text_digest
from sidecar.core.events import (
    NO_AGENT,
    Agent,
    Event,
    Lifecycle,
    ModelCall,
    Reasoning,
    SessionKey,
    ToolCall,
)
from sidecar.core.history import ASSISTANT, ending, walk
from sidecar.core.journal import Journals
from sidecar.core.places import Report, assemble
from sidecar.core.reading import NOTHING_READ, Reading
from sidecar.core.semconv.facts import Facts, Part, Turn, plain_text
from sidecar.core.sessions import (
    MAX_ACTS,
    MAX_CALLS,
    MAX_CHAINS,
    MAX_TEXTS,
    MAX_TOLD,
    MAX_UNSEEN,
    TOLD,
    Act,
    Intent,
    Session,
    SessionTable,
    Told,
    clean_id,
)
from sidecar.core.span import Record, Span, Speaker
from sidecar.core.telling import JOIN_NS, Telling, name_act

MAX_NAMED_CALLS, MAX_PLACES, MAX_PIECES = 50_000, 4096, 1024
INTENT_WAIT_NS = 5 * 10**9
"""How long a model's tool call waits for a span or a question at the gate before it counts as run. Tool spans start
0.4-6 ms after the model span ends (telemetry.md §0); 5 s is the batch delay of the SDK."""

TOOL_FINISH = frozenset(("tool_calls", "tool_call", "tool_use", "tool-calls", "function_call"))
NOTICES = (
    "conflicting_duplicate", "ungated_act", "ran_unanswered", "identity_mismatch", "nonfinite", "clock_skew",
)  # fmt: skip


class Notice(Struct, frozen=True):
    """Something about the telemetry itself that a person should know; `kind` is one of `NOTICES`."""

    kind: str
    session: SessionKey
    agent: Agent
    at_ns: int
    span: str
    event_id: str
    text: str


class Asked(Struct, frozen=True):
    """A question at the gate: may this act run?

    Attributes:
        arguments: The decoded JSON object.
        call_id: The caller's own id of this call.
    """

    session: SessionKey
    tool: str
    arguments: Any
    call_id: str
    at_ns: int
    agent: Agent = NO_AGENT
    cut: bool = False


ReadArguments = Callable[[Session, str, str, Any], Reading]
ReadText = Callable[[Session, str, str, str], Reading]


class Weaver:
    """Makes events of records. Memory: that of `Bindings`, `MAX_NAMED_CALLS` ids of calls, `MAX_PLACES` model calls of
    which messages have come but no end, and the session table.

    Args:
        table: The sessions; shared with the engine.
        read_arguments: (session, tool, description, arguments) → reading of an act about to run.
        read_text: (session, field, text, role) → reading of a text.
        journals: What sessions were told, where they are to be told anew if it was out of order.
    """

    def __init__(
        self, table: SessionTable, *, read_arguments: ReadArguments, read_text: ReadText,
        journals: Journals | None = None,
    ) -> None:  # fmt: skip
        self.table = table
        self.journals = Journals(0, lambda session: b"") if journals is None else journals
        self._read_arguments, self.read_text = read_arguments, read_text
        self.bindings = Bindings()
        self._named_calls: dict[str, SessionKey] = {}
        self._pieces: dict[tuple[str, str], list[Report]] = {}
        self._waiting: dict[SessionKey, None] = {}
        self._same = Known()
        self.notices: list[Notice] = []
        self.renamed: list[tuple[SessionKey, SessionKey]] = []
        self.unmapped = 0
        self.duplicates = 0
        self.unbound = 0

    # ------------------------------------------------------------ what comes in

    def take(self, record: Record, now_ns: int) -> list[Event]:
        """All events of one record that had both begun and ended when it came (live telemetry)."""
        return self.weave(record, semconv.read(record.span), now_ns, begin=True, end=True)

    def weave(self, record: Record, facts: Facts | None, now_ns: int, *, begin: bool, end: bool) -> list[Event]:
        """Events of a span's beginning, of its end, or of both."""
        span = record.span
        self.unmapped += facts is None and end
        if not (span.trace_id and span.span_id):
            span = _placed(span)
            record = replace(record, span=span)
        self.bindings.note(record.speaker.realm, span, facts)
        if facts is None or facts.kind == "context":
            return []
        for guest, host in self.bindings.take_joined():
            self._join(guest, host, now_ns)
        if span.signal == "log" and not facts.piece and not self.bindings.is_new(record.speaker.realm, span):
            self.duplicates += 1
            return []
        if facts.kind != "model" or not end:
            return self._weave(record, facts, now_ns, begin=begin, end=end)
        return self.weave_all(self._complete(record, facts), now_ns)

    def _join(self, guest: tuple[str, str], host: tuple[str, str], now_ns: int) -> None:
        """A trace of its own turns out to tell what a span of another tells."""
        mine, other = self.bindings.traces.get(guest), self.bindings.traces.get(host)
        if mine is None or mine.session is None or mine.claimed or other is None:
            return
        session = other.session or SessionKey(host[0], f"trace:{host[1]}")
        other.session = session
        bound = self.bind(mine.session, session, now_ns)
        self.journals.stir(bound.key)

    def _complete(self, record: Record, facts: Facts) -> list[Report]:
        """All that is told of a model call that is complete now: messages that come one a record wait for its end."""
        key = (record.speaker.realm, f"{record.span.trace_id}:{record.span.span_id}")
        if not facts.piece and key not in self._pieces:
            return [(record, facts)]
        reports = self._pieces.pop(key, [])
        reports.append((record, facts))
        if not facts.piece or facts.outputs is not None or len(reports) >= MAX_PIECES:
            return reports
        self._pieces[key] = reports
        return self._pieces.pop(next(iter(self._pieces))) if len(self._pieces) > MAX_PLACES else []

    def weave_all(self, reports: list[Report], now_ns: int, *, again: bool = False) -> list[Event]:
        """Events of reports that bear one span id; `again` when they were woven before, in a session told anew."""
        if len(reports) == 1 and not reports[0][1].piece:
            return self._weave(*reports[0], now_ns, begin=True, end=True, again=again)
        events: list[Event] = []
        for record, facts in assemble(reports):
            events += self._weave(record, facts, now_ns, begin=True, end=True, again=again, raw=reports)
            reports = []
        return events

    def _weave(
        self, record: Record, facts: Facts, now_ns: int, *, begin: bool, end: bool, again: bool = False,
        raw: Sequence[Report] | None = None,
    ) -> list[Event]:  # fmt: skip
        span, realm = record.span, record.speaker.realm
        if facts.kind == "model" and self.bindings.host_place(realm, span):
            self.duplicates += end and not again
            return []
        session = self._session_of(record.speaker, span, facts, now_ns)
        told, span = span, oddities.date(session, span, record.arrived_ns)
        agent = self._agent_of(session, record.speaker, span)
        place = f"{span.trace_id}:{span.span_id}"
        if end and not again and span.signal == "span" and not self.bindings.is_new(realm, span):
            self.duplicates += 1
            if facts.kind == "tool":
                self._check_duplicate(session, agent, span, facts, place)
            elif self._is_retold(session, facts):
                self._conflict(session, agent, span, place, "")
            return []
        events: list[Event] = []
        if begin and end and self.journals.is_kept:
            named, _ = self.bindings.agent_of(realm, span)
            if facts.kind == "model" and place in session.calls:
                self.journals.stir(session.key)  # what tells of it already is to be one with this
            if raw is None:
                self.journals.note(session, replace(record, span=told), facts, named, span.end_ns, now_ns)
            for one, said in raw or ():
                self.journals.note(session, one, said, named, one.span.end_ns, now_ns)
        if end:
            session.span_count += span.signal == "span"
            self._look_at(session, agent, told, span, facts, record.arrived_ns, place, events)
        if facts.kind == "tool":
            act = None
            if begin:
                act = self._begin_act(session, agent, span, facts, place, events)
            if end and (span.signal == "span" or facts.result is not None or facts.failed):
                self._end_act(session, agent, span, facts, place, events, act)
        elif facts.kind == "model":
            if end:
                self._model_call(session, agent, span, facts, place, events)
        elif facts.kind == "agent":
            if begin:
                self._begin_run(session, agent, span, facts, place, events)
            if end:
                self._end_run(session, agent, span, facts, place, events)
        return events

    def ask(self, asked: Asked, now_ns: int, named: str = "") -> tuple[Session, ToolCall, bool]:
        """The act in question as an event, and whether it is new (False: asked before, or already seen).

        Args:
            named: The act's id, where the question is told anew.
        """
        session = self.table.open(asked.session, now_ns)
        session.gated = True
        if asked.agent != NO_AGENT:
            self._plays(session, asked.agent)
        digest = arguments_digest(asked.arguments)
        intent = self._take_intent(session, asked.call_id, digest, asked.tool)
        act = self._find_act(session, asked.call_id, digest, asked.tool, asked.at_ns, "gate")
        new = act is None
        if act is None:
            act = self._remember_act(
                session,
                Act(
                    event_id=named
                    or self._event_id(
                        session, asked.call_id, f"gate:{session.key.id}:{session.act_count}:{digest.hex()}"
                    ),
                    tool=self._same(asked.tool),
                    call_id=asked.call_id,
                    digest=digest,
                    started_ns=asked.at_ns,
                    source="gate",
                    span=intent.span if intent else "",
                ),
            )
        act.gated = True
        if self.journals.is_kept:
            self.journals.ask(session, asked, act.event_id, asked.at_ns, now_ns)
        if intent is not None and intent.call_id != act.call_id:
            act.asked_as = intent.call_id
        reading = self._read_arguments(session, asked.tool, "", asked.arguments)
        event = ToolCall(
            event_id=act.event_id,
            session=session.key,
            agent=session.agent,
            at_ns=asked.at_ns,
            spans=(act.span,) if act.span else (),
            unscored=_unscored(("cut",) if asked.cut else (), reading),
            reading=reading,
            phase="started",
            tool=asked.tool,
            call_id=asked.call_id,
            arguments=asked.arguments,
            gated=True,
        )
        return session, event, new

    def due(self, now_ns: int, *, all_of_them: bool = False) -> list[Event]:
        """Acts that a model asked for and nobody else told of in time; `all_of_them` at the end of a stream."""
        events = self.pieces_due(now_ns, all_of_them=all_of_them)
        for key in sorted(self._waiting):  # the same order after a restart
            session = self.table.get(key)
            if session is None:
                del self._waiting[key]
                continue
            self.table.touched(session)
            for intent in () if session.gated else list(session.intents.values()):
                if all_of_them or now_ns - intent.at_ns >= INTENT_WAIT_NS:
                    del session.intents[intent.call_id]
                    self.derive(session, intent, events)
            for place, at_ns in list(session.unseen.items()):
                if at_ns and (all_of_them or now_ns - at_ns >= INTENT_WAIT_NS):
                    session.unseen[place] = 0
            if session.gated or not (session.intents or any(session.unseen.values())):
                del self._waiting[key]
        return events

    def pieces_due(self, now_ns: int, *, all_of_them: bool = False) -> list[Event]:
        """What the messages of model calls tell that came one a record and of which no end has come in time."""
        events: list[Event] = []
        for began, reports in list(self._pieces.items()):
            if all_of_them or now_ns - reports[-1][0].arrived_ns >= INTENT_WAIT_NS:
                del self._pieces[began]
                events += self.weave_all(reports, now_ns)
        return events

    def expect(self, session: Session) -> None:
        """Somebody should tell of an act of this session; `due` looks after it."""
        self._waiting[session.key] = None

    def revive(self, session: Session) -> None:
        """Takes in a session from a snapshot: its histories are known, its open intents are waited for."""
        for chain, is_thread in session.chains.items():
            if is_thread:
                self.bindings.ends(session.key.realm, chain, session.key)
        for act in session.acts.values():
            if len(act.call_id) >= UNIQUE_CALL_ID:
                remember(self._named_calls, act.event_id, session.key, MAX_NAMED_CALLS)
        if session.intents or session.unseen:
            self.expect(session)

    def bind(self, old: SessionKey, new: SessionKey, now_ns: int) -> Session:
        """Two ids are one session: all that the first has done moves to the second."""
        old = self.table.resolve(old)
        session = self.table.rename(old, new, now_ns)
        if old != session.key:
            self.journals.move(old, session.key)
            self.renamed.append((old, session.key))
            for intent in list(session.intents.values()):
                if name_act(session, intent) is not None:
                    session.intents.pop(intent.call_id, None)
            if self._waiting.pop(old, 0) is None:
                self._waiting[session.key] = None
        return session

    def stirred(self) -> None:
        """Marks the sessions of which spans would be another's, or another agent's, by what has come since."""
        for trace in self.bindings.take_stirred():
            for key in self.journals.sessions_of(trace):
                for entry in self.journals.entries(key):
                    span = entry.record.span
                    if span.trace_id != trace[1]:
                        continue
                    claim = self.bindings.claim_of(trace[0], span)
                    moved = claim is not None and self.table.resolve(claim) != key
                    if moved or self.bindings.agent_of(trace[0], span)[0] != entry.named:
                        self.journals.stir(key)
                        break

    def forget(self, session: Session) -> None:
        """Empties what a session remembers of its telemetry: it is about to be told anew."""
        fresh = Session(session.key, session.created_ns, session.last_ns)
        for name in TOLD:
            setattr(session, name, getattr(fresh, name))
        if session.agent_rank < 3:
            session.agent, session.agent_rank = NO_AGENT, 0

    def name_by_first(self, session: Session, now_ns: int) -> None:
        """A session that nobody names goes by its first trace, whichever came first."""
        entries = self.journals.entries(session.key)
        if session.key.id.startswith("trace:") and entries:
            first = min(entries, key=lambda entry: entry.order).record.span.trace_id
            name = SessionKey(session.key.realm, f"trace:{first}")
            if name != session.key and self.table.get(name) in (None, session):
                self.table.free(name)
                self.bind(session.key, name, now_ns)

    # ------------------------------------------------------------ sessions and agents

    def _session_of(self, speaker: Speaker, span: Span, facts: Facts, now_ns: int) -> Session:
        realm, bindings = speaker.realm, self.bindings
        trace = bindings.trace((realm, span.trace_id))
        if not trace.claimed and (claim := bindings.first_claim(realm, span)) is not None:
            if trace.session is not None:
                self.bind(trace.session, claim, now_ns)
            trace.session, trace.claimed = claim, True
        key = bindings.claim_of(realm, span) or trace.session or bindings.host_session(realm, span)
        if key is None or not trace.claimed:
            told = bindings.by_calls(realm, facts, None, span.end_ns)
            thread = told[0] if told else bindings.thread(realm, facts)
            if len(told) > 1 and self.table.resolve(told[1]).id.startswith("trace:"):
                self.bind(told[1], told[0], now_ns)  # the calls before this one are of the session that is named now
            if key is None:
                self.unbound += thread is None
                key = trace.session = thread or SessionKey(realm, f"trace:{span.trace_id}")
            elif thread is not None and self.table.resolve(thread) != self.table.resolve(key):
                self.bind(key, thread, now_ns)
                key = trace.session = thread
            if facts.kind == "model":
                bindings.by_calls(realm, facts, key, span.end_ns)
                if thread is None:
                    bindings.continues(realm, facts, key)
        if facts.kind == "tool" and facts.session and facts.arguments and not span.parent_id:
            bindings.did(realm, facts, key, span.end_ns)
        forged = bool(facts.session) and oddities.owner(self.table, key, speaker) is not None
        session = self.table.open(key, now_ns)
        session.grade = speaker.grade
        if facts.session and not session.told and session.key.id.startswith("h:"):
            session.told = facts.session[:MAX_TOLD]
        if forged:
            place, text = f"{span.trace_id}:{span.span_id}", "it names a session that belongs to another's credential"
            self._notice("identity_mismatch", session, session.agent, span.end_ns, place, "", text)
        if session.parent is None and facts.session:
            parent = SessionKey(realm, clean_id(facts.parent_session)) if facts.parent_session else None
            self._descends(session, parent or bindings.parent_of(realm, span))
        if session.parent is None and not span.parent_id and "links" in span.rest:
            self._descends(session, bindings.linked_from(realm, span))
        if facts.user and not session.user:
            session.user = facts.user[:MAX_TOLD]
        return session

    def _descends(self, session: Session, parent: SessionKey | None) -> None:
        if parent is not None and self.table.resolve(parent) != session.key:
            session.parent = parent
            self.table.opened.append(session.key)

    def _agent_of(self, session: Session, speaker: Speaker, span: Span) -> Agent:
        """Who acts: whoever the span or its nearest ancestor names, else the session's agent.

        A session's agent is the outermost that its spans name. A name that the credential fixes is the role, whatever
        spans say: posture goes by it.
        """
        named, is_outermost = self.bindings.agent_of(speaker.realm, span)
        known = session.agent
        if named is None or not (speaker.agent or named.name or named.id):
            if speaker.agent and not known.name:
                self._plays(session, Agent(speaker.realm, "", speaker.agent))
            elif known == NO_AGENT:
                service = span.resource.get("service.name")
                name = service[:MAX_NAME] if isinstance(service, str) else ""
                self._plays(session, Agent(speaker.realm, "", name), rank=0)
            return session.agent
        agent = _agent(speaker, named, known)
        rank = 3 if speaker.agent else 2 if named.is_run and is_outermost else 1
        if rank > session.agent_rank or (agent.role == known.role and agent != known) or known == NO_AGENT:
            self._plays(session, agent, rank=max(rank, session.agent_rank))
        return self._same(agent)

    def _plays(self, session: Session, agent: Agent, *, rank: int = 3) -> None:
        if agent.role != session.agent.role:
            self.table.opened.append(session.key)  # what holds the role holds it
        session.agent, session.agent_rank = self._same(agent), rank

    def _event_id(self, session: Session, call_id: str, otherwise: str) -> str:
        """Names an act by its call id if no other act has it, in this session or another, else by where it was told."""
        if len(call_id) >= UNIQUE_CALL_ID and call_id not in session.acts:
            named = event_id(session.key.realm, "call", call_id)
            owner = self._named_calls.get(named)
            if owner is None or self.table.resolve(owner) == session.key:
                remember(self._named_calls, named, session.key, MAX_NAMED_CALLS)
                return named
        return event_id(session.key.realm, "span", otherwise)

    # ------------------------------------------------------------ acts

    def _begin_act(
        self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event]
    ) -> Act:
        session.saw_tool_span = True
        session.unseen.clear()
        start_ns = span.start_ns or span.end_ns
        digest = arguments_digest(facts.arguments)
        call_id = facts.call_id
        intent = self._take_intent(session, call_id, digest, facts.tool)
        if intent is not None and not call_id:
            call_id = intent.call_id
        act = self._act_of_span(session, place) if span.signal == "span" else None
        act = act or self._find_act(session, call_id, digest, facts.tool, start_ns, span.scope, span)
        if act is None:
            told_at = place if span.signal == "span" else f"{place}:{facts.tool}:{digest.hex()}:{start_ns}"
            act = self._remember_act(
                session,
                Act(
                    event_id=self._event_id(session, call_id, told_at),
                    tool=self._same(facts.tool),
                    call_id=call_id,
                    digest=digest,
                    started_ns=start_ns,
                    source="span",
                    span=place,
                    places=(place,) if span.signal == "span" else (),
                    scope=self._same(span.scope),
                    gated=facts.gated,
                ),
            )
            if session.gated and not facts.gated:
                self._ungated(session, agent, act, answered=span.attributes.get("sidecar.ungated") is not True)
            arguments, withheld, unscored = facts.arguments, facts.withheld, facts.unscored
            if arguments is None and intent is not None and intent.arguments is not None:
                arguments = intent.arguments  # the model's message tells what the span withholds
                act.digest = arguments_digest(arguments)
                withheld = tuple(field for field in withheld if field != "arguments")
                unscored = tuple(reason for reason in unscored if reason != "withheld")
            self._started(session, agent, act, arguments, facts.description, withheld, unscored, events)
        else:
            if not act.span or act.source != "span" or (digest and not act.digest):
                act.span = place
            act.scope = self._same(span.scope)
            if span.signal == "span":
                act.told_by(place)
            if facts.tool and not act.tool:
                act.tool = self._same(facts.tool)
                if not digest:
                    self._started(session, agent, act, None, facts.description, facts.withheld, (), events)
            if digest and act.digest != digest:
                if act.digest and act.source == "gate":
                    text = "the act that ran has other arguments than the one that was asked for"
                    self._notice("conflicting_duplicate", session, agent, start_ns, place, act.event_id, text)
                act.digest = digest
                self._started(session, agent, act, facts.arguments, facts.description, (), facts.unscored, events)
            elif not act.digest and intent is not None and intent.arguments is not None:
                self.tell_arguments(session, act, intent, events)
        if intent is not None and intent.call_id != act.call_id:
            act.asked_as = intent.call_id
        return act

    def _started(
        self, session: Session, agent: Agent, act: Act, arguments: Any, description: str,
        withheld: tuple[str, ...], unscored: tuple[str, ...], events: list[Event],
    ) -> None:  # fmt: skip
        reading = self._read_arguments(session, act.tool, description, arguments)
        events.append(
            ToolCall(
                event_id=act.event_id,
                session=session.key,
                agent=agent,
                at_ns=act.started_ns,
                spans=(act.span,) if act.span else (),
                withheld=tuple(field for field in withheld if field == "arguments"),
                unscored=_unscored(unscored, reading),
                reading=reading,
                phase="started",
                tool=act.tool,
                call_id=act.call_id,
                arguments=arguments,
                gated=act.gated,
            )
        )

    def _end_act(
        self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event], act: Act | None
    ) -> None:
        if act is None:
            digest = arguments_digest(facts.arguments)
            act = self._act_of_span(session, place) or self._find_act(
                session, facts.call_id, digest, facts.tool, span.start_ns or span.end_ns, span.scope, span
            )
            if act is None:  # its beginning was forgotten
                act = self._begin_act(session, agent, span, facts, place, events)
        if act.ended and (act.result or facts.result is None):
            return
        self.ended(session, agent, act, facts.result, facts.failed, span.end_ns, facts.withheld, place, events)

    def ended(
        self, session: Session, agent: Agent, act: Act, result: Any, failed: bool, at_ns: int,
        withheld: tuple[str, ...], place: str, events: list[Event],
    ) -> None:  # fmt: skip
        act.ended, act.ended_ns = True, at_ns
        reading = NOTHING_READ
        if result is not None:
            text = plain_text(result)
            act.result, reading = text_digest(text), self.read_text(session, "result", text, "tool")
        hidden = tuple(field for field in withheld if field == "result")
        events.append(
            ToolCall(
                event_id=act.event_id,
                session=session.key,
                agent=agent,
                at_ns=at_ns,
                spans=tuple(dict.fromkeys((act.span or place, place))),
                withheld=hidden,
                absent=("result",) if result is None and not hidden else (),
                unscored=_unscored((), reading),
                reading=reading,
                phase="ended",
                tool=act.tool,
                call_id=act.call_id,
                result=result,
                failed=failed,
                gated=act.gated,
                duration_ns=max(0, at_ns - act.started_ns),
            )
        )

    def tell_arguments(self, session: Session, act: Act, intent: Intent, events: list[Event]) -> None:
        """A model's message tells the arguments of an act; they are judged unless they are known already."""
        digest = arguments_digest(intent.arguments)
        if intent.arguments is not None and digest != act.digest:
            act.digest = digest
            unscored = ("cut",) if intent.cut else ()
            self._started(session, session.agent, act, intent.arguments, "", (), unscored, events)

    def derive(self, session: Session, intent: Intent, events: list[Event]) -> Act:
        """A model's tool call that no span tells of has run all the same: its answer came back, or time has passed."""
        act = self._remember_act(
            session,
            Act(
                event_id=self._event_id(session, intent.call_id, f"{intent.span}:{intent.call_id}"),
                tool=self._same(intent.tool),
                call_id=intent.call_id,
                digest=arguments_digest(intent.arguments),
                started_ns=intent.at_ns,
                source="message",
                span=intent.span,
            ),
        )
        withheld = ("arguments",) if intent.arguments is None else ()
        unscored = (("withheld",) if withheld else ()) + (("cut",) if intent.cut else ())
        self._started(session, session.agent, act, intent.arguments, "", withheld, unscored, events)
        if session.gated:
            self._ungated(session, session.agent, act, answered=True)
        return act

    def _ungated(self, session: Session, agent: Agent, act: Act, *, answered: bool) -> None:
        kind, text = "ungated_act", "an act ran without asking the gate, in a session that is gated"
        if not answered:
            kind, text = "ran_unanswered", "a reversible act ran while the gate could not answer"
        self._notice(kind, session, agent, act.started_ns, act.span, act.event_id, text)

    def _remember_act(self, session: Session, act: Act) -> Act:
        session.act_count += 1
        if len(session.acts) >= MAX_ACTS and not next(iter(session.acts.values())).digest:
            session.note_unscored(("withheld",))  # what nobody has told by now stays unknown
        key = act.call_id if act.call_id and act.call_id not in session.acts else act.event_id
        remember(session.acts, key, act, MAX_ACTS)
        return act

    def _act_of_span(self, session: Session, place: str) -> Act | None:
        for act in reversed(session.acts.values()):
            if place in act.places:
                return act
        return None

    def _find_act(
        self, session: Session, call_id: str, digest: bytes, tool: str, at_ns: int, scope: str, span: Span | None = None
    ) -> Act | None:
        """The act that this telling is about, if it is known already."""
        act = session.acts.get(call_id) if call_id else None
        if act is not None and (
            self._is_within(session, act, digest, tool, span) or not _another(act, digest, scope, span)
        ):
            return act
        for act in reversed(session.acts.values()):
            if self._is_within(session, act, digest, tool, span):
                return act
            if call_id and act.call_id and act.call_id != call_id:
                continue
            answers = span is not None and span.signal == "log" and not digest and not act.ended
            if act.scope and (span is None or act.scope == scope) and not answers:
                continue  # one instrumentation tells a call once, and the gate is asked before: this is another call
            same = is_same_tool(act.tool, tool) if act.tool and tool else answers
            same = same and (not act.digest or not digest or act.digest == digest)
            if not same or abs(at_ns - act.started_ns) > JOIN_NS:
                continue
            if act.ended and (span is None or at_ns > act.ended_ns):
                continue  # began after the other had ended: the same call made again
            return act
        return None

    def _is_within(self, session: Session, act: Act, digest: bytes, tool: str, span: Span | None) -> bool:
        """Whether a span stands within one that told of `act`, or round it, and is about the same call: a wrapper, or
        the other side of it."""
        if span is None or (digest and act.digest and digest != act.digest):
            return False
        if tool and act.tool and not is_same_tool(tool, act.tool):
            return False
        host = self.bindings.host_place(session.key.realm, span)
        return any(
            place == host or self.bindings.is_nested(session.key.realm, span, place) for place in act.places[-2:]
        )

    def act_called(self, session: Session, call_id: str) -> Act | None:
        """The act that a model's message calls so."""
        act = session.acts.get(call_id)
        if act is None and call_id:
            act = next((known for known in session.acts.values() if known.asked_as == call_id), None)
        return act

    def _take_intent(self, session: Session, call_id: str, digest: bytes, tool: str) -> Intent | None:
        """The model's wish that an act fulfils: by id, else by content, else, where that is withheld, by the tool."""
        if call_id and (intent := session.intents.pop(call_id, None)) is not None:
            return intent
        for intent in session.intents.values():
            if not is_same_tool(intent.tool, tool):
                continue
            if arguments_digest(intent.arguments) == digest if digest else not call_id:
                return session.intents.pop(intent.call_id)
        return None

    def _check_duplicate(self, session: Session, agent: Agent, span: Span, facts: Facts, place: str) -> None:
        act = self._act_of_span(session, place)
        if act is None:
            return
        digest = arguments_digest(facts.arguments)
        result = b"" if facts.result is None else text_digest(plain_text(facts.result))
        if (digest and act.digest and digest != act.digest) or (result and act.result and result != act.result):
            self._conflict(session, agent, span, place, act.event_id)

    def _is_retold(self, session: Session, facts: Facts) -> bool:
        """Whether a span that came again says a text that its session does not know."""
        if len(session.texts) >= MAX_TEXTS:  # it may have known it
            return False
        turns = (*(facts.inputs or ()), *(facts.outputs or ()))
        return any(
            part.type in ("text", "reasoning") and part.text and not self._told(session, part)
            for turn in turns
            for part in turn.parts
        )

    def _conflict(self, session: Session, agent: Agent, span: Span, place: str, about: str) -> None:
        text = "a span came twice with the same id and other content; the first one counts"
        self._notice("conflicting_duplicate", session, agent, span.end_ns, place, about, text)

    def _look_at(
        self, session: Session, agent: Agent, told: Span, span: Span, facts: Facts, arrived_ns: int, place: str,
        events: list[Event],
    ) -> None:  # fmt: skip
        """What is odd in a span itself."""
        if "nonfinite" in span.notes:
            self._notice("nonfinite", session, agent, span.end_ns, place, "", "a number in a span is not finite")
        if not session.skewed and oddities.is_skewed(told, arrived_ns):
            session.skewed = True
            text = "the sender's clock and ours differ by more than a minute, or a span's times make no sense"
            self._notice("clock_skew", session, agent, span.end_ns, place, "", text)
        if not (span.rest or span.events or span.status_message):
            return
        for index, (field, text) in enumerate(oddities.side_texts(span)):
            if index == oddities.MAX_SIDE_TEXTS:
                session.note_unscored(("uninspectable",))
                break
            digest = text_digest(text)
            if digest in session.texts or _says(facts, text):
                continue
            remember(session.texts, digest, Told(span.start_ns, span.end_ns, False), MAX_TEXTS)
            reading = self.read_text(session, field, text, "agent")
            if not reading.complete:
                session.note_unscored(("uninspectable",))
            if not reading.hits:
                continue
            events.append(
                Reasoning(
                    event_id=event_id(session.key.realm, field, place, str(index)),
                    session=session.key,
                    agent=agent,
                    at_ns=span.end_ns,
                    spans=(place,),
                    text=text,
                    reading=reading,
                )
            )

    # ------------------------------------------------------------ model calls

    def _model_call(
        self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event]
    ) -> None:
        session.saw_model = True
        told = session.calls.get(place)
        start_ns = span.start_ns or span.end_ns
        if told is None:
            events.append(
                ModelCall(
                    event_id=event_id(session.key.realm, "model", place),
                    session=session.key,
                    agent=agent,
                    at_ns=span.end_ns,
                    spans=(place,),
                    unscored=facts.unscored,
                    model=facts.model,
                    input_tokens=facts.input_tokens,
                    output_tokens=facts.output_tokens,
                    duration_ns=span.end_ns - start_ns,
                    failed=facts.failed,
                )
            )
        content = facts.outputs is not None or facts.inputs is not None
        remember(session.calls, place, bool(told or content), MAX_CALLS)
        if not content:
            ends_unknown = not facts.finish and not facts.failed and not session.saw_tool_span
            if not told and (ends_unknown or TOOL_FINISH.intersection(facts.finish)):
                self._wait_for_acts(session, place, span.end_ns)
            return
        if told:
            return
        session.unseen.pop(place, None)
        if facts.outputs is None and TOOL_FINISH.intersection(facts.finish):
            self._wait_for_acts(session, place, span.end_ns)
        elif facts.outputs is not None and any(part.type == "call" for turn in facts.outputs for part in turn.parts):
            session.unseen.clear()  # what earlier calls withheld, the history has told by now, or never will
        say = Telling(self, session, agent, place, start_ns, span.end_ns, events)
        say.system(facts.system or ())
        for turn, part in self._new_parts(session, facts):
            say.part(turn.role, part, told_before=True)
        for turn in facts.outputs or ():
            for part in turn.parts:
                say.part(turn.role or "assistant", part, told_before=False)

    def _wait_for_acts(self, session: Session, place: str, at_ns: int) -> None:
        remember(session.unseen, place, at_ns, MAX_UNSEEN)
        self.expect(session)

    def _new_parts(self, session: Session, facts: Facts) -> list[tuple[Turn, Part]]:
        """Parts of the input that this session has not been told before, and the history remembered.

        A history that continues a known one is new from there on. Inputs that hold only what is new (no word of the
        assistant in them) are taken whole; of any other, what has been told before is left out text by text.
        """
        inputs, ended = facts.inputs or (), ending(facts)
        if ended is not None:
            later = self.bindings.ends(session.key.realm, ended, session.key)
            if later is not None and self.table.resolve(later) != session.key:
                self.bind(later, session.key, session.last_ns)
        new: list[tuple[Turn, Part]] = []
        chain, matched, replies = b"", False, False
        walked: list[bytes] = []
        for step, chain, is_output in walk(facts):
            if chain in session.chains:
                new, matched, walked = [], True, []
                continue
            replies |= is_output
            new.extend(step)
            walked.append(chain)
        if replies and not matched:
            new = [(turn, part) for turn, part in new if not self._told(session, part)]
        if inputs and (matched or replies or not session.chains):
            for link in walked or (chain,):  # calls between this one and the last known may come later
                remember(session.chains, link, session.chains.get(link, False), MAX_CHAINS)
        if ended is not None:
            remember(session.chains, ended, True, MAX_CHAINS)
        return new

    def _told(self, session: Session, part: Part) -> bool:
        if part.type in ("text", "reasoning"):
            return text_digest(part.text) in session.texts
        if part.type == "call":
            if part.id:
                act = self.act_called(session, part.id)
                return part.id in session.intents or (act is not None and bool(act.digest))
            digest = arguments_digest(part.value)
            return any(act.digest == digest and is_same_tool(act.tool, part.name) for act in session.acts.values())
        if part.type == "response" and part.id:
            act = self.act_called(session, part.id)
            return act is not None and act.ended and bool(act.result)
        return False

    # ------------------------------------------------------------ runs of an agent

    def _begin_run(
        self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event]
    ) -> None:
        # Instructions are there before the run begins, wherever its span tells of them.
        start_ns = span.start_ns or span.end_ns
        Telling(self, session, agent, place, start_ns, start_ns, events, by_agent=True).system(facts.system or ())
        if span.signal == "log":
            return
        events.append(
            Lifecycle(
                event_id=event_id(session.key.realm, "run", place),
                session=session.key,
                agent=agent,
                at_ns=span.start_ns,
                spans=(place,),
                phase="started",
            )
        )

    def _end_run(
        self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event]
    ) -> None:
        if not (session.saw_tool_span or session.saw_model or session.gated):
            self._wait_for_acts(session, place, span.end_ns)
        start_ns = span.start_ns or span.end_ns
        say = Telling(self, session, agent, place, start_ns, span.end_ns, events, by_agent=True)
        say.system(facts.system or ())
        turns = (*(facts.inputs or ()), *(facts.outputs or ()))
        if any(part.type == "call" for turn in turns for part in turn.parts):
            session.unseen.clear()
        is_history = len(turns) > 2 or any(turn.role in ASSISTANT for turn in facts.inputs or ())
        for turn in turns:
            for part in turn.parts:
                if part.type == "reasoning" or (is_history and self._told(session, part)):
                    continue
                say.part(turn.role, part, told_before=part.type in ("call", "response"))
        if span.signal == "log":
            return
        events.append(
            Lifecycle(
                event_id=event_id(session.key.realm, "run", place),
                session=session.key,
                agent=agent,
                at_ns=span.end_ns,
                spans=(place,),
                phase="ended",
                failed=facts.failed,
            )
        )

    def _notice(self, kind: str, session: Session, agent: Agent, at_ns: int, place: str, about: str, text: str) -> None:
        about = about or event_id(session.key.realm, kind, place)
        self.notices.append(Notice(kind, session.key, agent, at_ns, place, about, text))


def _agent(speaker: Speaker, named: Named, known: Agent) -> Agent:
    """An agent as it is named, with what is known of it already and not said again."""
    told, agent_id = named.name, named.id
    name = speaker.agent or told or known.name
    same = name == known.name
    agent_id = agent_id or (told if told != name else "") or (known.id if same else "")
    return Agent(speaker.realm, agent_id, name, named.version or (known.version if same else ""))


def _placed(span: Span) -> Span:
    """A record outside any trace, or any span, in one of its own: it must not share a session with all others such."""
    content = plain_text(span.attributes), plain_text(span.body)
    name = event_id("placed", span.name, str(span.end_ns), *content)
    return replace(span, trace_id=span.trace_id or name, span_id=span.span_id or name[:16])


def _says(facts: Facts, text: str) -> bool:
    """Whether a span's own content is that text, so that it is read in its place."""
    if facts.result is not None and plain_text(facts.result) in (text, text.strip()):
        return True
    turns = (*(facts.inputs or ()), *(facts.outputs or ()))
    return any(part.text == text for turn in turns for part in turn.parts if part.text)


def _another(act: Act, digest: bytes, scope: str, span: Span | None) -> bool:
    """Whether a telling that bears the call id of `act` is about another call: clients use ids again, attackers too."""
    if span is None:  # the gate asks twice about one call only if it is the same call, and has not run
        return act.ended or bool(act.digest and act.digest != digest and act.source != "message")
    told_here = act.span == f"{span.trace_id}:{span.span_id}"
    return bool(act.scope) and not told_here and (act.scope == scope or (act.ended and span.start_ns > act.ended_ns))


def _unscored(reasons: tuple[str, ...], reading: Reading) -> tuple[str, ...]:
    return reasons if reading.complete else (*reasons, "uninspectable")
