"""What of each agent the sidecar can see: arguments, results, texts, sessions, counted as told, withheld or absent.

`Coverage` hears two sides. From (record, facts) pairs it learns what the telemetry is made of: who sends it, which span
names the session, what is withheld, cut or dropped. From the events that a pipeline makes of the same records it
learns what was understood: each act and each text once, however often it was told. What follows from a report is said
by `blind_spots` (what cannot be detected) and `switches` (what turns it on).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from msgspec import Struct, field

from sidecar.core import semconv
from sidecar.core.digests import remember
from sidecar.core.events import Event, Message, ModelCall, Reasoning, SessionKey, ToolCall
from sidecar.core.semconv.content import is_marker
from sidecar.core.semconv.facts import Facts
from sidecar.core.sessions import Session, clean_id
from sidecar.core.span import Record

MAX_ACTS, MAX_PLACES, MAX_HEARD, MAX_TRACES = 200_000, 500_000, 100_000, 100_000
MAX_LIBRARIES, MAX_ACTS_OF_TRACE = 64, 4096

State = Literal["told", "inferred", "withheld", "absent"]
Status = Literal["seen", "inferred", "partly", "withheld", "absent", "nothing"]


class Input(Struct, frozen=True):
    """Something that detectors, or people who look at what they found, want to know.

    Attributes:
        words: What it is, for people.
        of: What is counted: ``act``, ``session``, ``model call`` or ``span``.
        needed: Whether its absence makes something undetectable; the others only help.
        inferring: Whether an inferred value is as good as one that is told.
        optional: Whether its absence may only say that there is none.
    """

    words: str
    of: str
    needed: bool = False
    inferring: bool = False
    optional: bool = False


INPUTS: dict[str, Input] = {
    "acts": Input("tool calls, by name", "act", needed=True),
    "arguments": Input("their arguments", "act", needed=True),
    "results": Input("their results", "act", needed=True),
    "user_texts": Input("what the user asked for", "session", needed=True),
    "answers": Input("what the agent answered", "session", needed=True),
    "session": Input("which conversation it is", "session", needed=True),
    "agent_name": Input("which agent it is", "session", needed=True, inferring=True),
    "system_prompt": Input("the agent's instructions", "session"),
    "reasoning": Input("what the model thought", "session", optional=True),
    "user": Input("who the user is", "session"),
    "call_ids": Input("ids of tool calls", "act"),
    "agent_version": Input("which version of the agent", "session"),
    "model_calls": Input("calls of the model", "session"),
    "tokens": Input("tokens used", "model call"),
    "parent_session": Input("which session started it", "session", optional=True),
}
"""The closed list of inputs, in the order in which they are shown."""

SESSION_AT = ("tool span", "another span", "a later span", "history", "nowhere")
"""Where the session of an act is told: by its own span, by one that ended before it or with it (an ancestor, a
sibling), only by one that ends later, by nothing but the history of messages that it repeats, or not at all."""


class Count(Struct):
    """How often an input was told, worked out, withheld (the sender has it and keeps it) or absent.

    `seen_at` and `missing_at` are examples, ``trace_id:span_id``; "" where there is none.
    """

    told: int = 0
    inferred: int = 0
    withheld: int = 0
    absent: int = 0
    seen_at: str = ""
    missing_at: str = ""

    def add(self, state: State, place: str = "", times: int = 1) -> None:
        """Counts one more."""
        setattr(self, state, getattr(self, state) + times)
        if state in ("told", "inferred"):
            self.seen_at = self.seen_at or place
        else:
            self.missing_at = self.missing_at or place

    @property
    def total(self) -> int:
        return self.told + self.inferred + self.withheld + self.absent

    @property
    def status(self) -> Status:
        """The counts in one word; ``nothing`` where there was nothing to tell."""
        if not self.total:
            return "nothing"
        if self.told + self.inferred == self.total:
            return "inferred" if self.inferred else "seen"
        if self.told or self.inferred:
            return "partly"
        return "withheld" if self.withheld else "absent"


class Fault(Struct):
    """How many spans have something wrong with them, and one of them."""

    spans: int = 0
    example: str = ""

    def add(self, place: str) -> None:
        self.spans += 1
        self.example = self.example or place


FAULTS = {
    "dropped": "the SDK dropped attributes, the oldest first (identity goes before content)",
    "cut": "content is cut",
    "opaque": "content that cannot be read: images, files, references",
    "markers": "a redaction marker stands for content",
    "orphans": "the parent span never came: sampling, a lost batch, or another exporter",
}
"""What may be wrong with a span, in words."""


class AgentReport(Struct):
    """What is seen of one agent role.

    Attributes:
        others: Names of other agents that acted in its sessions.
        libraries: Instrumentation scope → records of it that say something of the agent.
        conventions: Vocabulary, as `semconv` reads it → records that speak it.
        inputs: By name (`INPUTS`).
        session_at: Acts by where their session is told (`SESSION_AT`).
        tool_spans, model_spans: Records of acts and of model calls; a call that several libraries tell counts for each.
        faults: By name (`FAULTS`).
    """

    realm: str
    role: str
    others: tuple[str, ...] = ()
    sessions: int = 0
    spans: int = 0
    logs: int = 0
    tool_spans: int = 0
    model_spans: int = 0
    libraries: dict[str, int] = {}
    conventions: dict[str, int] = {}
    inputs: dict[str, Count] = {}
    session_at: dict[str, int] = {}
    faults: dict[str, Fault] = {}

    @property
    def missing(self) -> tuple[str, ...]:
        """Needed inputs that are not, or not always, seen."""
        return tuple(name for name in INPUTS if INPUTS[name].needed and not self.has(name))

    def has(self, name: str) -> bool:
        """Whether an input is always there. What there was no occasion to tell is not missing."""
        status, about = self.inputs[name].status, INPUTS[name]
        if status == "absent" and about.optional:
            return True
        return status in ("seen", "nothing") or (status == "inferred" and about.inferring)


class _Act(Struct):
    """An act as its events have told it so far."""

    tool: str
    place: str
    call_id: str = ""
    arguments: State = "absent"
    result: State = "absent"
    actor: str = ""


class _Heard(Struct):
    """What the events of one session have told."""

    acts: dict[str, _Act] = {}
    texts: dict[str, str] = {}
    withheld: dict[str, str] = {}
    tokens: Count = field(default_factory=Count)
    place: str = ""


class _Read(Struct):
    """What the records of one trace, or of one session that they name, have told."""

    spans: int = 0
    logs: int = 0
    tool_spans: int = 0
    model_spans: int = 0
    libraries: dict[str, int] = {}
    conventions: dict[str, int] = {}
    withheld: dict[str, str] = {}
    faults: dict[str, Fault] = {}


class Coverage:
    """Counts what is seen. Memory: `MAX_HEARD` sessions, `MAX_ACTS` acts, `MAX_TRACES` traces, `MAX_PLACES` spans.

    Attributes:
        records, mapped: Records noted, and how many of them say something of an agent.
        left_out: Acts beyond `MAX_ACTS` and sessions beyond `MAX_HEARD`, which the reports lack.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self.records = 0
        self.mapped = 0
        self._read: dict[tuple[str, str] | SessionKey, _Read] = {}
        self._heard: dict[SessionKey, _Heard] = {}
        self._acts = 0
        self._session_of: dict[tuple[str, str], SessionKey] = {}
        self._named_ns: dict[tuple[str, str], int] = {}
        self._ends: dict[tuple[str, str], dict[str, int]] = {}
        self._names_itself: dict[str, None] = {}
        self._places: dict[str, None] = {}
        self._orphans: dict[str, tuple[tuple[str, str] | SessionKey, str]] = {}

    # ------------------------------------------------------------ records

    def note(self, record: Record, facts: Facts | None) -> None:
        """One record, and what `semconv.read` makes of it; each record once."""
        span, realm = record.span, record.speaker.realm
        self.records += 1
        place = f"{span.trace_id}:{span.span_id}"
        trace = (realm, span.trace_id)
        if span.signal == "span":
            remember(self._places, place, None, MAX_PLACES)
            self._orphans.pop(place, None)
        if facts is None:
            return
        self.mapped += 1
        key: tuple[str, str] | SessionKey = trace
        if facts.session:
            key = SessionKey(realm, clean_id(facts.session))
            remember(self._named_ns, trace, min(self._named_ns.get(trace, span.end_ns), span.end_ns), MAX_TRACES)
            if trace not in self._session_of:
                remember(self._session_of, trace, key, MAX_TRACES)
            if facts.kind == "tool":
                remember(self._names_itself, place, None, MAX_PLACES)
        if span.signal == "span" and span.parent_id:
            parent = f"{span.trace_id}:{span.parent_id}"
            if parent not in self._places and parent not in self._orphans:
                remember(self._orphans, parent, (key, place), MAX_PLACES)
        read = self._read.get(key) or _Read()
        remember(self._read, key, read, MAX_TRACES)
        self._count(read, record, facts, place)
        if facts.kind == "tool":
            ends = self._ends.get(trace) or {}
            remember(ends, place, span.end_ns, MAX_ACTS_OF_TRACE)
            remember(self._ends, trace, ends, MAX_TRACES)

    @staticmethod
    def _count(read: _Read, record: Record, facts: Facts, place: str) -> None:
        span = record.span
        read.spans += span.signal == "span"
        read.logs += span.signal == "log"
        read.tool_spans += facts.kind == "tool" and span.signal == "span"
        read.model_spans += facts.kind == "model" and span.signal == "span"
        _more(read.libraries, span.scope)
        for mapper in semconv.MAPPERS:
            if mapper.claims(span):
                _more(read.conventions, mapper.__name__.rpartition(".")[2])
        if facts.kind in ("model", "agent"):
            for side in facts.withheld:
                read.withheld.setdefault(side, place)
        wrong = {
            "dropped": bool(span.dropped),
            "cut": "cut" in facts.unscored,
            "opaque": facts.opaque,
            "markers": any(map(is_marker, span.attributes.values())),
        }
        for name, is_so in wrong.items():
            if is_so:
                read.faults.setdefault(name, Fault()).add(place)

    # ------------------------------------------------------------ events

    def hear(self, events: Iterable[Event]) -> None:
        """Events that a pipeline has made of the records."""
        for event in events:
            heard = self._heard.get(event.session)
            if heard is None:
                heard = _Heard()
                self.left_out += len(self._heard) >= MAX_HEARD
                remember(self._heard, event.session, heard, MAX_HEARD)
            self._take(heard, event)

    def hear_again(self, key: SessionKey, events: Iterable[Event]) -> None:
        """All events of a session that was told anew, instead of what was heard of it so far."""
        if (old := self._heard.pop(key, None)) is not None:
            self._acts -= len(old.acts)
        self.hear(events)

    def _take(self, heard: _Heard, event: Event) -> None:
        place = event.spans[0] if event.spans else ""
        trace_id = place.partition(":")[0]
        if trace_id:
            remember(self._session_of, (event.session.realm, trace_id), event.session, MAX_TRACES)
        heard.place = heard.place or place
        if isinstance(event, ToolCall):
            self._take_act(heard, event, place)
        elif isinstance(event, Message):
            name = _FIELD.get((event.role, event.direction))
            if name is not None and event.text is not None:
                heard.texts.setdefault(name, place)
            elif name is not None and event.withheld:
                heard.withheld.setdefault(name, place)
        elif isinstance(event, Reasoning) and event.text is not None:
            heard.texts.setdefault("reasoning", place)
        elif isinstance(event, ModelCall):
            heard.texts.setdefault("model_calls", place)
            heard.tokens.add("told" if event.input_tokens >= 0 or event.output_tokens >= 0 else "absent", place)

    def _take_act(self, heard: _Heard, event: ToolCall, place: str) -> None:
        act = heard.acts.get(event.event_id)
        if act is None:
            if self._acts >= MAX_ACTS:
                self.left_out += event.phase == "started"
                return
            self._acts += 1
            act = heard.acts[event.event_id] = _Act(event.tool, place)
        act.call_id = act.call_id or event.call_id
        act.actor = event.agent.role
        act.arguments = _better(act.arguments, _state(event.arguments, "arguments" in event.withheld))
        act.result = _better(act.result, _state(event.result, "result" in event.withheld))

    # ------------------------------------------------------------ what it comes to

    def report(
        self, sessions: Iterable[Session], resolve: Callable[[SessionKey], SessionKey]
    ) -> tuple[AgentReport, ...]:
        """One report an agent role, by realm and role.

        Args:
            sessions: The sessions of the pipeline that made the events.
            resolve: The key under which a session is kept now (`SessionTable.resolve`).
        """
        for key, place in self._orphans.values():
            self._read.setdefault(key, _Read()).faults.setdefault("orphans", Fault()).add(place)
        self._orphans.clear()
        heard = _folded(((resolve(key), one) for key, one in self._heard.items()), _join_heard)
        read = _folded(((self._key(key, resolve), one) for key, one in self._read.items()), _join_read)
        traces: dict[SessionKey, dict[str, None]] = {}
        for (_, trace_id), key in self._session_of.items():
            traces.setdefault(resolve(key), {})[trace_id] = None
        reports: dict[tuple[str, str], AgentReport] = {}
        for session in sessions:
            told, records = heard.get(session.key), read.get(session.key)
            if told is None and records is None:
                continue
            who = (session.key.realm, session.agent.role)
            if who not in reports:
                reports[who] = AgentReport(*who, inputs={name: Count() for name in INPUTS})
            self._session(
                reports[who], session, told or _Heard(), records or _Read(), len(traces.get(session.key, ())) > 1
            )
        return tuple(reports[who] for who in sorted(reports))

    def _key(self, key: tuple[str, str] | SessionKey, resolve: Callable[[SessionKey], SessionKey]) -> SessionKey | None:
        if isinstance(key, SessionKey):
            return resolve(key)
        session = self._session_of.get(key)
        return None if session is None else resolve(session)

    def _session(self, report: AgentReport, session: Session, heard: _Heard, read: _Read, many_traces: bool) -> None:
        """Counts one session of the agent."""
        report.sessions += 1
        for name in ("spans", "logs", "tool_spans", "model_spans"):
            setattr(report, name, getattr(report, name) + getattr(read, name))
        _add_up(report.libraries, read.libraries)
        _add_up(report.conventions, read.conventions)
        _join_faults(report.faults, read.faults)
        for act in heard.acts.values():
            if act.result == "absent" and "inputs" in read.withheld:
                act.result = "withheld"  # it stands in the next input, where no span of its own tells it
            self._act(report, act, session, many_traces)
        silent = [place for place, at_ns in session.unseen.items() if not at_ns]
        for name in ("acts", "arguments", "results"):
            for place in silent:
                report.inputs[name].add("withheld", place)
        withheld = {_SIDE[side]: place for side, place in read.withheld.items() if side in _SIDE} | heard.withheld
        for side, name in (("user_texts", "system_prompt"), ("answers", "reasoning")):
            if side in withheld and side not in heard.texts:
                withheld.setdefault(name, withheld[side])
        for name in ("user_texts", "answers", "system_prompt", "reasoning", "model_calls"):
            if name in heard.texts:
                report.inputs[name].add("told", heard.texts[name])
            else:
                report.inputs[name].add("withheld" if name in withheld else "absent", withheld.get(name, heard.place))
        _join_count(report.inputs["tokens"], heard.tokens)
        states: dict[str, State] = {
            "session": _session_state(session, many_traces),
            "agent_name": _name_state(session),
            "agent_version": "told" if session.agent.version else "absent",
            "user": "told" if session.user else "absent",
            "parent_session": "told" if session.parent is not None else "absent",
        }
        for name, state in states.items():
            report.inputs[name].add(state, heard.place)

    def _act(self, report: AgentReport, act: _Act, session: Session, many_traces: bool) -> None:
        report.inputs["acts"].add("told" if act.tool else "absent", act.place)
        report.inputs["arguments"].add(act.arguments, act.place)
        report.inputs["results"].add(act.result, act.place)
        report.inputs["call_ids"].add("told" if act.call_id else "absent", act.place)
        if act.actor not in (report.role, session.agent.role, "") and len(report.others) < MAX_LIBRARIES:
            report.others = tuple(dict.fromkeys((*report.others, act.actor)))
        _more(report.session_at, self._session_at(act, session, many_traces))

    def _session_at(self, act: _Act, session: Session, many_traces: bool) -> str:
        if session.key.id.startswith("trace:"):
            return "history" if many_traces else "nowhere"
        if act.place in self._names_itself:
            return "tool span"
        trace = (session.key.realm, act.place.partition(":")[0])
        named_ns = self._named_ns.get(trace)
        if named_ns is None:
            return "history"
        return "another span" if named_ns <= self._ends.get(trace, {}).get(act.place, named_ns) else "a later span"


_FIELD: dict[tuple[str, str], str] = {
    ("user", "inbound"): "user_texts",
    ("system", "inbound"): "system_prompt",
    ("assistant", "outbound"): "answers",
}
_SIDE = {"inputs": "user_texts", "outputs": "answers", "system": "system_prompt"}
_RANK: dict[State, int] = {"absent": 0, "withheld": 1, "inferred": 2, "told": 3}


def _state(value: Any, is_withheld: bool) -> State:
    return "told" if value is not None else "withheld" if is_withheld else "absent"


def _better(one: State, other: State) -> State:
    return max(one, other, key=_RANK.__getitem__)


def _session_state(session: Session, many_traces: bool) -> State:
    if not session.key.id.startswith("trace:"):
        return "told"
    return "inferred" if many_traces else "absent"


def _name_state(session: Session) -> State:
    """A service's name will do for a role, where it is one."""
    agent = session.agent
    if not (agent.name or agent.id) or agent.role.startswith("unknown_service"):
        return "absent"
    return "told" if session.agent_rank else "inferred"


def _more(counts: dict[str, int], name: str, times: int = 1) -> None:
    if name in counts or len(counts) < MAX_LIBRARIES:
        counts[name] = counts.get(name, 0) + times


def _add_up(mine: dict[str, int], theirs: dict[str, int]) -> None:
    for name, times in theirs.items():
        _more(mine, name, times)


def _join_faults(mine: dict[str, Fault], theirs: dict[str, Fault]) -> None:
    for name, fault in theirs.items():
        known = mine.setdefault(name, Fault())
        known.spans += fault.spans
        known.example = known.example or fault.example


def _join_count(mine: Count, theirs: Count) -> None:
    for state in _RANK:
        setattr(mine, state, getattr(mine, state) + getattr(theirs, state))
    mine.seen_at = mine.seen_at or theirs.seen_at
    mine.missing_at = mine.missing_at or theirs.missing_at


def _join_heard(mine: _Heard, theirs: _Heard) -> None:
    for event_id, act in theirs.acts.items():
        known = mine.acts.setdefault(event_id, act)
        known.call_id = known.call_id or act.call_id
        known.arguments = _better(known.arguments, act.arguments)
        known.result = _better(known.result, act.result)
    mine.texts = theirs.texts | mine.texts
    mine.withheld = theirs.withheld | mine.withheld
    _join_count(mine.tokens, theirs.tokens)
    mine.place = mine.place or theirs.place


def _join_read(mine: _Read, theirs: _Read) -> None:
    for name in ("spans", "logs", "tool_spans", "model_spans"):
        setattr(mine, name, getattr(mine, name) + getattr(theirs, name))
    _add_up(mine.libraries, theirs.libraries)
    _add_up(mine.conventions, theirs.conventions)
    mine.withheld = theirs.withheld | mine.withheld
    _join_faults(mine.faults, theirs.faults)


def _folded(pairs: Iterator[tuple[SessionKey | None, Any]], join: Callable[[Any, Any], None]) -> dict[SessionKey, Any]:
    """What is known under several keys of one session, as one."""
    whole: dict[SessionKey, Any] = {}
    for key, one in pairs:
        if key is None:
            continue
        if key in whole:
            join(whole[key], one)
        else:
            join(whole.setdefault(key, type(one)()), one)
    return whole
