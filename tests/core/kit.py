"""Telemetry in few words, a weaver without detectors, a core with toy detectors: what these tests tell stories with.

Times are seconds after `START_NS`. Span ids are made from a counter or a short word, so that a failing test reads well.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, ClassVar

from msgspec.structs import replace

from sidecar.core.commands import Cause, Transition
from sidecar.core.events import Agent, Event, Message, Reasoning, SessionKey, ToolCall
from sidecar.core.examples import Example
from sidecar.core.findings import Finding, Severity, finding
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.reading import Effect, Reading
from sidecar.core.sessions import Session, SessionTable
from sidecar.core.span import LOCAL, Record, Span, Speaker
from sidecar.core.text.scan import Pattern
from sidecar.core.triage.policy import Policy, PolicyDocument
from sidecar.core.weave import Asked, Weaver

START_NS = 1_800_000_000 * 10**9
SECOND_NS = 10**9
SCOPE = "instrumentation.a"


def at(seconds: float) -> int:
    """Unix nanoseconds of a moment of the story."""
    return START_NS + round(seconds * SECOND_NS)


def hexed(word: str, digits: int) -> str:
    """An id made from a word; the same word is the same id."""
    return blake2b(word.encode(), digest_size=digits // 2).hexdigest()


# ---------------------------------------------------------------- parts of messages


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "content": words}


def thought(words: str) -> dict[str, Any]:
    return {"type": "reasoning", "content": words}


def call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    part = {"type": "tool_call", "name": name, "arguments": arguments}
    return part | ({"id": call_id} if call_id else {})


def response(call_id: str, value: Any) -> dict[str, Any]:
    part = {"type": "tool_call_response", "response": value}
    return part | ({"id": call_id} if call_id else {})


def turn(role: str, *parts: dict[str, Any] | str) -> dict[str, Any]:
    return {"role": role, "parts": [text(part) if isinstance(part, str) else part for part in parts]}


def user(*parts: dict[str, Any] | str) -> dict[str, Any]:
    return turn("user", *parts)


def assistant(*parts: dict[str, Any] | str) -> dict[str, Any]:
    return turn("assistant", *parts)


# ---------------------------------------------------------------- spans and log records

_numbers = itertools.count(1)


def span(
    attributes: dict[str, Any],
    start: float,
    end: float,
    *,
    trace: str = "trace",
    name: str = "",
    parent: str = "",
    scope: str = SCOPE,
    session: str = "",
    agent: str = "",
    word: str = "",
    **fields: Any,
) -> Span:
    """One span; `word` makes its id, a fresh one when left out."""
    attributes = dict(attributes)
    if session:
        attributes["gen_ai.conversation.id"] = session
    if agent:
        attributes["gen_ai.agent.name"] = agent
    return Span(
        signal="span",
        trace_id=hexed(trace, 32) if trace else "",
        span_id=hexed(word or f"span {next(_numbers)}", 16),
        parent_id=hexed(parent, 16) if parent else "",
        name=name or str(attributes.get("gen_ai.operation.name", "span")),
        start_ns=at(start),
        end_ns=at(end),
        attributes=attributes,
        scope=scope,
        **fields,
    )


def tool(
    name: str, arguments: Any = None, result: Any = None, *, start: float = 0.0, end: float | None = None,
    call_id: str = "", **more: Any,
) -> Span:  # fmt: skip
    """A tool's span; arguments and result that are None are not told."""
    attributes: dict[str, Any] = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
    if call_id:
        attributes["gen_ai.tool.call.id"] = call_id
    if arguments is not None:
        attributes["gen_ai.tool.call.arguments"] = arguments if isinstance(arguments, str) else json.dumps(arguments)
    if result is not None:
        attributes["gen_ai.tool.call.result"] = result
    attributes |= more.pop("attributes", {})
    return span(attributes, start, start + 0.1 if end is None else end, **more)


def chat(
    inputs: Sequence[dict[str, Any]] | None = None, outputs: Sequence[dict[str, Any]] | None = None, *,
    start: float = 0.0, end: float | None = None, system: Sequence[str] = (), finish: Sequence[str] = (), **more: Any,
) -> Span:  # fmt: skip
    """A model call's span; messages that are None are not told."""
    attributes: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1"}
    if inputs is not None:
        attributes["gen_ai.input.messages"] = json.dumps(list(inputs))
    if outputs is not None:
        attributes["gen_ai.output.messages"] = json.dumps(list(outputs))
    if system:
        attributes["gen_ai.system_instructions"] = json.dumps([text(words) for words in system])
    if finish:
        attributes["gen_ai.response.finish_reasons"] = list(finish)
    attributes |= more.pop("attributes", {})
    return span(attributes, start, start + 0.5 if end is None else end, **more)


def run(
    inputs: Sequence[dict[str, Any]] | None = None, outputs: Sequence[dict[str, Any]] | None = None, *,
    start: float = 0.0, end: float, **more: Any,
) -> Span:  # fmt: skip
    """The span of an agent's whole run."""
    attributes: dict[str, Any] = {"gen_ai.operation.name": "invoke_agent"}
    if inputs is not None:
        attributes["gen_ai.input.messages"] = json.dumps(list(inputs))
    if outputs is not None:
        attributes["gen_ai.output.messages"] = json.dumps(list(outputs))
    return span(attributes, start, end, **more)


def details(of: Span, *, trace: bool = True) -> Span:
    """The log record that tells what a model call's span tells."""
    return replace(
        of,
        signal="log",
        name="gen_ai.client.inference.operation.details",
        start_ns=0,
        trace_id=of.trace_id if trace else "",
        span_id=of.span_id if trace else "",
        parent_id="",
    )


def other(word: str, *, parent: str = "", trace: str = "trace", start: float = 0.0, end: float = 1.0) -> Span:
    """A span of no agent: a web request, a wrapper."""
    return span({}, start, end, word=word, parent=parent, trace=trace, name="wrapper")


# ---------------------------------------------------------------- weaving alone


class Loom:
    """A weaver whose readings are empty, and everything it has said."""

    def __init__(self, *, capacity: int = 50_000, aliases: int = 200_000) -> None:
        self.table = SessionTable(capacity=capacity, aliases=aliases)
        self.weaver = Weaver(
            self.table, read_arguments=lambda *of: Reading(effect=Effect(tool=of[1])), read_text=lambda *of: Reading()
        )
        self.events: list[Event] = []
        self.now_ns = START_NS

    def take(self, *spans: Span, speaker: Speaker = LOCAL) -> list[Event]:
        """Feeds whole spans as live telemetry, each when it has ended; what came of them."""
        came: list[Event] = []
        for one in spans:
            self.now_ns = max(self.now_ns, one.end_ns)
            came += self.weaver.take(Record(one, speaker, one.end_ns), self.now_ns)
        self.events += came
        return came

    def ask(
        self, session: str, name: str, arguments: Any, call_id: str = "", *, seconds: float = 0.0,
        realm: str = "local",
    ) -> tuple[Session, ToolCall, bool]:  # fmt: skip
        self.now_ns = max(self.now_ns, at(seconds))
        answer = self.weaver.ask(Asked(SessionKey(realm, session), name, arguments, call_id, at(seconds)), self.now_ns)
        self.events.append(answer[1])
        return answer

    def wait(self, seconds: float) -> list[Event]:
        """Time passes."""
        self.now_ns += round(seconds * SECOND_NS)
        came = self.weaver.due(self.now_ns)
        self.events += came
        return came

    def end(self) -> list[Event]:
        """Nothing more will come."""
        came = self.weaver.due(self.now_ns, all_of_them=True)
        self.events += came
        return came

    def session(self, session_id: str, realm: str = "local") -> Session:
        found = self.table.get(SessionKey(realm, session_id))
        assert found is not None, f"no session {session_id}, only {[str(s.key) for s in self.table]}"
        return found

    @property
    def acts(self) -> list[ToolCall]:
        """One event an act: its beginning as told last, with the result it came to."""
        known: dict[str, ToolCall] = {}
        for event in self.events:
            if isinstance(event, ToolCall):
                before = known.get(event.event_id)
                if before is None or event.phase == "started":
                    known[event.event_id] = event
                else:
                    known[event.event_id] = replace(before, result=event.result, failed=event.failed)
        return list(known.values())

    @property
    def said(self) -> list[tuple[str, str | None]]:
        """(direction, text) of all messages, in order; the model's reasoning as ``reasoning``."""
        return [
            (event.direction, event.text) if isinstance(event, Message) else ("reasoning", event.text)
            for event in self.events
            if isinstance(event, Message | Reasoning)
        ]

    @property
    def notices(self) -> list[str]:
        return [notice.kind for notice in self.weaver.acts.notices]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


# ---------------------------------------------------------------- a core with toy detectors


class Toy:
    """What the toy detectors share."""

    family: ClassVar[str] = "leverage"
    severity = Severity.HIGH
    scope = "session"
    mode = "pause"
    sees: ClassVar[tuple[type[Event], ...]] = (ToolCall,)
    patterns: ClassVar[tuple[Pattern, ...]] = ()
    examples: ClassVar[tuple[Example, ...]] = ()
    tags = ()


def mark(event: Event, key: str) -> Any:
    """The argument by which a story tells a toy detector what to do."""
    if isinstance(event, ToolCall) and event.phase == "started" and isinstance(event.arguments, dict):
        return event.arguments.get(key)
    return None


class Marked(Toy):
    """Finds what an act's `mark` says, as grave as it says."""

    name = "marked"

    def score(self, event: Event) -> Finding | None:
        if (grave := mark(event, "mark")) is None:
            return None
        return finding(self, event, 0.9, "marked", severity=Severity[str(grave).upper()])


class Odd(Toy):
    """A statistical detector: finds what an act's `odd` says."""

    name = "odd"
    family = "behaviour"
    scope = "agent"

    def score(self, event: Event) -> Finding | None:
        if (grave := mark(event, "odd")) is None:
            return None
        return finding(self, event, 0.9, "odd", severity=Severity[str(grave).upper()])


class Said(Toy):
    """Finds messages that begin with the name of a severity."""

    name = "said"
    sees = (Message, Reasoning)

    def score(self, event: Event) -> Finding | None:
        words = (getattr(event, "text", "") or "").split(":")[0].upper()
        return finding(self, event, 0.9, "said so", severity=Severity[words]) if words in Severity.__members__ else None


class Diary(Toy):
    """Writes down what is asked of it, in order; finds nothing."""

    name = "diary"
    scope = "agent"
    sees = (ToolCall, Message)
    pages: ClassVar[list[tuple[str, str]]] = []

    def observe(self, event: Event) -> None:
        self.pages.append(("observe", event.event_id))

    def score(self, event: Event) -> Finding | None:
        self.pages.append(("score", event.event_id))
        return None

    def learn(self, event: Event) -> None:
        self.pages.append(("learn", event.event_id))


class Tools:
    """A catalogue of tools whose names say what they are: ``read_…`` is reversible, ``odd_…`` is not known."""

    def effect(self, name: str, arguments: Any, description: str = "") -> Effect:
        reads = name.startswith("read_")
        return Effect(tool=name, reads=reads, sends=not reads, reversible=reads, known=not name.startswith("odd_"))


def core(
    *detectors: type[Any], document: PolicyDocument | None = None, posture: str = "guard", **more: Any
) -> Pipeline:  # fmt: skip
    """A core with toy detectors (`Marked` when none is given) and the default policy."""
    detectors = detectors or (Marked,)
    policy = Policy(document or PolicyDocument(posture=posture), {d.name: d.mode for d in detectors})
    return Pipeline(detectors, policy, Tools(), **more)


AGENT = Agent("local", "", "clerk")


class Stage:
    """Plays a story on a core and keeps what came of it."""

    def __init__(self, *detectors: type[Any], **more: Any) -> None:
        self.core = core(*detectors, **more)
        self.now_ns = START_NS
        self.transitions: list[Transition] = []
        self.findings: list[Finding] = []

    def _keep(self, outcome: Outcome) -> Outcome:
        self.transitions += outcome.transitions
        self.findings += outcome.findings
        return outcome

    def feed(self, one: Span, speaker: Speaker = LOCAL) -> Outcome:
        self.now_ns = max(self.now_ns, one.end_ns)
        return self._keep(self.core.feed(Record(one, speaker, one.end_ns), self.now_ns))

    def ask(
        self, session: str, name: str, arguments: Any = None, call_id: str = "", *, seconds: float = 1.0,
        agent: Agent = AGENT, realm: str = "local",
    ) -> Outcome:  # fmt: skip
        """Asks at the gate, `seconds` after what happened last."""
        self.now_ns += round(seconds * SECOND_NS)
        asked = Asked(SessionKey(realm, session), name, arguments or {}, call_id, self.now_ns, agent)
        return self._keep(self.core.authorize(asked, self.now_ns))

    def answer(self, session: str, name: str, arguments: Any = None, call_id: str = "", **more: Any) -> str:
        decision = self.ask(session, name, arguments, call_id, **more).decision
        assert decision is not None
        return decision.answer

    def tick(self, seconds: float = 1.0, **more: Any) -> Outcome:
        self.now_ns += round(seconds * SECOND_NS)
        return self._keep(self.core.tick(self.now_ns, **more))

    def pause(self, session: str, pause_id: str = "p", **more: Any) -> Outcome:
        cause = Cause(pause_id, "operator", "ann", "to look at it", self.now_ns, **more)
        return self._keep(self.core.pause(SessionKey("local", session), cause, self.now_ns))

    def state(self, session: str) -> str:
        return self.core.runs.get(self.core.sessions.resolve(SessionKey("local", session))).desired

    def session(self, session: str) -> Session:
        found = self.core.sessions.get(SessionKey("local", session))
        assert found is not None
        return found
