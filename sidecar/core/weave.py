"""Facts → events: whose a span is, and what comes of it.

`binding` knows which session and agent a span belongs to, `acts` which tellings are of one tool call, `conversation`
which words are new; the weaver brings them together, answers questions at the gate, and looks after what is awaited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core import oddities, semconv
from sidecar.core.acts import MAX_NAMED_CALLS, Acts, ReadArguments, ReadText, unscored_of
from sidecar.core.binding import MAX_NAME, UNIQUE_CALL_ID, Bindings, Named, is_unnamed
from sidecar.core.conversation import Conversation
from sidecar.core.digests import Known, arguments_digest, bare, event_id, remember
from sidecar.core.events import NO_AGENT, Agent, Event, SessionKey, ToolCall
from sidecar.core.journal import Journals
from sidecar.core.places import Report, assemble
from sidecar.core.semconv.facts import Facts, plain_text
from sidecar.core.sessions import MAX_TOLD, TOLD, Act, Session, SessionTable, clean_id
from sidecar.core.span import Record, Span, Speaker
from sidecar.core.telling import name_act

MAX_PLACES, MAX_PIECES = 4096, 1024
INTENT_WAIT_NS = 5 * 10**9
"""How long a model's tool call waits for a span or a question at the gate before it counts as run. Tool spans start
0.4-6 ms after the model span ends (telemetry.md §0); 5 s is the batch delay of the SDK."""

NOTICES = (
    "conflicting_duplicate", "ungated_act", "ran_unanswered", "identity_mismatch", "nonfinite", "clock_skew",
)  # fmt: skip


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


class Weaver:
    """Makes events of records. Memory: that of `Bindings` and `Acts`, `MAX_PLACES` model calls of which messages have
    come but no end, and the session table.

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
        self.bindings = Bindings()
        self._same = Known()
        self.acts = Acts(table, self.bindings, read_arguments=read_arguments, read_text=read_text, same=self._same)
        self._conversation = Conversation(self, self.acts)
        self._pieces: dict[tuple[str, str], list[Report]] = {}
        self._waiting: dict[SessionKey, None] = {}
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
        if not facts.piece and (key not in self._pieces or self.bindings.has_come(key[0], record.span)):
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
        place = f"{span.trace_id}:{span.span_id}"
        what = self._same(f"{facts.kind} {bare(facts.tool)}") if facts.kind == "tool" else facts.kind
        if end and not again and span.signal == "span" and not self.bindings.is_new(realm, span, what):
            self.duplicates += 1
            if self.bindings.came_as(realm, span) not in ("", what):
                self.acts.conflict(session, session.agent, span, place, "")
                return []
            if self.journals.has(session.key, span, facts):
                return []
            if facts.kind == "tool":
                self.acts.check_duplicate(session, session.agent, span, facts, place)
            elif self._conversation.is_retold(session, facts):
                self.acts.conflict(session, session.agent, span, place, "")
            return []
        agent = self._agent_of(session, record.speaker, span)
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
            self._conversation.look_at(session, agent, told, span, facts, record.arrived_ns, place, events)
        if facts.kind == "tool":
            act = None
            if begin:
                act = self.acts.begin(session, agent, span, facts, place, events)
                if act.source == "message" and not again:
                    self.journals.stir(
                        session.key
                    )  # it was taken for run before its span came: told anew, it is the span's
            if end and (span.signal == "span" or facts.result is not None or facts.failed):
                self.acts.end(session, agent, span, facts, place, events, act)
        elif facts.kind == "model":
            if end:
                self._conversation.model_call(session, agent, span, facts, place, events)
        elif facts.kind == "agent":
            if begin:
                self._conversation.begin_run(session, agent, span, facts, place, events)
            if end:
                self._conversation.end_run(session, agent, span, facts, place, events)
        return events

    def ask(self, asked: Asked, now_ns: int, named: str = "") -> tuple[Session, ToolCall, bool]:
        """The act in question as an event, and whether it is new (False: asked before, or already seen).

        Args:
            named: The act's id, where the question is told anew.
        """
        session = self.table.open(asked.session, now_ns)
        session.gated_ns = session.gated_ns if session.gated else asked.at_ns
        session.gated = True
        if asked.agent != NO_AGENT:
            self._plays(session, asked.agent)
        digest = arguments_digest(asked.arguments)
        intent = self.acts.take_intent(session, asked.call_id, digest, asked.tool)
        act = self.acts.find(session, asked.call_id, digest, asked.tool, asked.at_ns, "gate")
        new = act is None
        if act is None:
            act = self.acts.remember(
                session,
                Act(
                    event_id=named
                    or self.acts.name(
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
        reading = self.acts.read_arguments(session, asked.tool, "", asked.arguments)
        event = ToolCall(
            event_id=act.event_id,
            session=session.key,
            agent=session.agent,
            at_ns=asked.at_ns,
            spans=(act.span,) if act.span else (),
            unscored=unscored_of(("cut",) if asked.cut else (), reading),
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
                    self.acts.derive(session, intent, events)
            for place, at_ns in list(session.unseen.items()):
                if at_ns and (all_of_them or now_ns - at_ns >= INTENT_WAIT_NS):
                    session.unseen[place] = 0
            if session.gated or not (session.intents or any(session.unseen.values())):
                del self._waiting[key]
        return events

    @property
    def has_pieces(self) -> bool:
        """Whether messages wait for the end of their model call."""
        return bool(self._pieces)

    def pieces_due(self, now_ns: int, *, all_of_them: bool = False) -> list[Event]:
        """What the messages of model calls tell that came one a record and of which no end has come in time."""
        events: list[Event] = []
        for began, reports in list(self._pieces.items()):
            if all_of_them or now_ns - reports[0][0].arrived_ns >= INTENT_WAIT_NS:
                del self._pieces[began]
                events += self.weave_all(reports, now_ns)
        return events

    def weave_pieces(self, realm: str, now_ns: int) -> list[Event]:
        """Events of what waits in a realm for the end of its model call, before it has come: a question is asked."""
        waiting = [key for key in self._pieces if key[0] == realm]
        return [event for key in waiting for event in self.weave_all(self._pieces.pop(key), now_ns)]

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
                remember(self.acts.named_calls, act.event_id, session.key, MAX_NAMED_CALLS)
        if session.intents or session.unseen:
            self.expect(session)

    def bind(self, old: SessionKey, new: SessionKey, now_ns: int) -> Session:
        """Two ids are one session: all that the first has done moves to the second."""
        old, into = self.table.resolve(old), self.table.resolve(new)
        is_whole = old == into or self.journals.join(old, into, self.table.get(old), self.table.get(into))
        session = self.table.rename(old, new, now_ns)
        if not is_whole:
            self.journals.rebase(session)
        if old != session.key:
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
            if session.agent_rank < 3 or not name.startswith("agent"):
                setattr(session, name, getattr(fresh, name))

    def name_by_first(self, session: Session, now_ns: int) -> None:
        """A session that nobody names goes by its first trace, whichever came first."""
        entries = self.journals.entries(session.key)
        if is_unnamed(session.key) and entries:
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
            before = None if trace.session is None else self.table.resolve(trace.session)
            if before is not None and is_unnamed(before):
                self.bind(before, claim, now_ns)
            elif before is not None:
                self.journals.stir(before)  # it was taken for another's by its content: only this trace moves
            trace.session, trace.claimed = claim, True
        key = bindings.claim_of(realm, span) or trace.session or bindings.host_session(realm, span)
        if key is None or not trace.claimed:
            told = bindings.by_calls(realm, facts, None, span.end_ns)
            if (heard := bindings.thread(realm, facts)) is not None:
                told.append(heard)
            thread = told[0] if told else None
            for other in map(self.table.resolve, told[1:]):  # what these calls are of is one session
                if is_unnamed(other) and other != self.table.resolve(told[0]):
                    self.bind(other, told[0], now_ns)
            if key is None:
                self.unbound += thread is None
                key = trace.session = thread or SessionKey(realm, f"trace:{span.trace_id}")
            elif thread is not None and is_unnamed(mine := self.table.resolve(key)):
                if self.table.resolve(thread) != mine:
                    self.bind(key, thread, now_ns)
                key = trace.session = thread
            if facts.kind == "model":
                bindings.by_calls(realm, facts, key, span.end_ns)
                if thread is None:
                    bindings.continues(realm, facts, key)
        if facts.kind == "tool" and facts.session and facts.arguments and not span.parent_id:
            heard = bindings.did(realm, facts, key, span.end_ns)
            if heard is not None and is_unnamed(self.table.resolve(heard)):
                self.bind(heard, key, now_ns)
        owner, impostor = oddities.claims(self.table, key, speaker) if facts.session else (None, None)
        session = self.table.open(key, now_ns)
        session.grade = speaker.grade
        if facts.session and not session.told and session.key.id.startswith("h:"):
            session.told = facts.session[:MAX_TOLD]
        if (accused := impostor if owner is None else session) is not None:
            agent = accused.agent if accused is impostor else Agent(realm, "", speaker.agent or "")
            place, text = f"{span.trace_id}:{span.span_id}", "it names a session that belongs to another's credential"
            self.acts.notice("identity_mismatch", accused, agent, span.end_ns, place, "", text)
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
                service = span.resource.get("service.name", span.resource.get("declared.service.name"))
                name = service[:MAX_NAME] if isinstance(service, str) else ""
                self._plays(session, Agent(speaker.realm, "", name), rank=0)
            return session.agent
        agent = _agent(speaker, named, known)
        rank = 3 if speaker.agent else 2 if named.is_run and is_outermost else 1
        start_ns = span.start_ns or span.end_ns
        outer = rank == session.agent_rank == 2 and start_ns < session.agent_since_ns
        if rank > session.agent_rank or outer or (agent.role == known.role and agent != known) or known == NO_AGENT:
            self._plays(session, agent, rank=max(rank, session.agent_rank))
            session.agent_since_ns = start_ns
        return self._same(agent)

    def _plays(self, session: Session, agent: Agent, *, rank: int = 3) -> None:
        if agent.role != session.agent.role:
            self.table.opened.append(session.key)  # what holds the role holds it
        session.agent, session.agent_rank = self._same(agent), rank

    # ------------------------------------------------------------ acts

    # ------------------------------------------------------------ model calls

    # ------------------------------------------------------------ runs of an agent


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
