"""Tool calls: which tellings are of one act, and what each adds to it.

An act may be told by the gate, by tool spans, by messages, by several instrumentations, in any order; it is one act,
with one id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from sidecar.core.binding import UNIQUE_CALL_ID, Bindings
from sidecar.core.digests import Known, arguments_digest, event_id, is_same_tool, remember, text_digest
from sidecar.core.events import Agent, Event, SessionKey, ToolCall
from sidecar.core.reading import NOTHING_READ, Reading
from sidecar.core.semconv.facts import Facts, plain_text
from sidecar.core.sessions import MAX_ACTS, Act, Intent, Session, SessionTable
from sidecar.core.span import Span
from sidecar.core.telling import JOIN_NS

MAX_NAMED_CALLS = 50_000
MAX_AROUND = 32
"""Latest acts of which it is asked whether a span stands within them, or round them."""

ReadArguments = Callable[[Session, str, str, Any], Reading]
ReadText = Callable[[Session, str, str, str], Reading]


class Notice(Struct, frozen=True):
    """Something about the telemetry itself that a person should know; `kind` is one of `weave.NOTICES`."""

    kind: str
    session: SessionKey
    agent: Agent
    at_ns: int
    span: str
    event_id: str
    text: str


class Acts:
    """The acts of all sessions. Memory: `MAX_NAMED_CALLS` ids of calls; what is known of an act is in its session.

    Args:
        table: The sessions.
        bindings: Which span stands within which.
        read_arguments: (session, tool, description, arguments) → reading of an act about to run.
        read_text: (session, field, text, role) → reading of a text.
        same: Keeps what is equal once.
    """

    def __init__(
        self,
        table: SessionTable,
        bindings: Bindings,
        *,
        read_arguments: ReadArguments,
        read_text: ReadText,
        same: Known,
    ) -> None:
        self._table, self._bindings, self._same = table, bindings, same
        self.read_arguments, self.read_text = read_arguments, read_text
        self.named_calls: dict[str, SessionKey] = {}
        self.notices: list[Notice] = []

    def begin(self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event]) -> Act:
        session.saw_tool_span = True
        start_ns = span.start_ns or span.end_ns
        session.unseen.clear()
        digest = arguments_digest(facts.arguments)
        call_id = facts.call_id
        intent = self.take_intent(session, call_id, digest, facts.tool)
        if intent is not None and intent.has_id and not call_id:
            call_id = intent.call_id
        act = self.of_span(session, place) if span.signal == "span" else None
        act = act or self.find(session, call_id, digest, facts.tool, start_ns, span.scope, span)
        if act is None:
            told_at = place if span.signal == "span" else f"{place}:{facts.tool}:{digest.hex()}:{start_ns}"
            act = self.remember(
                session,
                Act(
                    event_id=self.name(session, call_id, told_at),
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
            if session.gated and not facts.gated and start_ns >= session.gated_ns:
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
                    self.notice("conflicting_duplicate", session, agent, start_ns, place, act.event_id, text)
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
        reading = self.read_arguments(session, act.tool, description, arguments)
        events.append(
            ToolCall(
                event_id=act.event_id,
                session=session.key,
                agent=agent,
                at_ns=act.started_ns,
                spans=(act.span,) if act.span else (),
                withheld=tuple(field for field in withheld if field == "arguments"),
                unscored=unscored_of(unscored, reading),
                reading=reading,
                phase="started",
                tool=act.tool,
                call_id=act.call_id,
                arguments=arguments,
                gated=act.gated,
            )
        )

    def end(
        self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event], act: Act | None
    ) -> None:
        if act is None:
            digest = arguments_digest(facts.arguments)
            act = self.of_span(session, place) or self.find(
                session, facts.call_id, digest, facts.tool, span.start_ns or span.end_ns, span.scope, span
            )
            if act is None:  # its beginning was forgotten
                act = self.begin(session, agent, span, facts, place, events)
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
                unscored=unscored_of((), reading),
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
        act = self.remember(
            session,
            Act(
                event_id=self.name(session, intent.call_id, f"{intent.span}:{intent.call_id}"),
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
        if session.gated and act.started_ns >= session.gated_ns:
            self._ungated(session, session.agent, act, answered=True)
        return act

    def name(self, session: Session, call_id: str, otherwise: str) -> str:
        """Names an act by its call id if no other act has it, in this session or another, else by where it was told."""
        if len(call_id) >= UNIQUE_CALL_ID and call_id not in session.acts:
            named = event_id(session.key.realm, "call", call_id)
            owner = self.named_calls.get(named)
            if owner is None or self._table.resolve(owner) == session.key:
                remember(self.named_calls, named, session.key, MAX_NAMED_CALLS)
                return named
        return event_id(session.key.realm, "span", otherwise)

    def remember(self, session: Session, act: Act) -> Act:
        session.act_count += 1
        if len(session.acts) >= MAX_ACTS and not next(iter(session.acts.values())).digest:
            session.note_unscored(("withheld",))  # what nobody has told by now stays unknown
        key = act.call_id if act.call_id and act.call_id not in session.acts else act.event_id
        remember(session.acts, key, act, MAX_ACTS)
        return act

    def find(
        self, session: Session, call_id: str, digest: bytes, tool: str, at_ns: int, scope: str, span: Span | None = None
    ) -> Act | None:
        """The act that this telling is about, if it is known already."""
        act = session.acts.get(call_id) if call_id else None
        if act is not None and (
            self._is_within(session, act, call_id, digest, tool, span) or not _another(act, digest, scope, span)
        ):
            return act
        for n, act in enumerate(reversed(session.acts.values())):
            if n < MAX_AROUND and self._is_within(session, act, call_id, digest, tool, span):
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

    def of_span(self, session: Session, place: str) -> Act | None:
        for act in reversed(session.acts.values()):
            if place in act.places:
                return act
        return None

    def _is_within(self, session: Session, act: Act, call_id: str, digest: bytes, tool: str, span: Span | None) -> bool:
        """Whether a span stands within one that told of `act`, or round it, and is about the same call: a wrapper, or
        the other side of it."""
        if span is None or (digest and act.digest and digest != act.digest):
            return False
        if call_id and act.call_id and call_id not in (act.call_id, act.asked_as):
            return False
        if tool and act.tool and not is_same_tool(tool, act.tool):
            return False
        host = self._bindings.host_place(session.key.realm, span)
        return any(
            place == host or self._bindings.is_nested(session.key.realm, span, place) for place in act.places[-2:]
        )

    def called(self, session: Session, call_id: str) -> Act | None:
        """The act that a model's message calls so."""
        act = session.acts.get(call_id)
        if act is None and call_id:
            act = next((known for known in session.acts.values() if known.asked_as == call_id), None)
        return act

    def take_intent(self, session: Session, call_id: str, digest: bytes, tool: str) -> Intent | None:
        """The model's wish that an act fulfils: by id, else by content, else, where that is withheld, by the tool."""
        if call_id and (intent := session.intents.pop(call_id, None)) is not None:
            return intent
        for intent in session.intents.values():
            if not is_same_tool(intent.tool, tool):
                continue
            if arguments_digest(intent.arguments) == digest if digest else not call_id:
                return session.intents.pop(intent.call_id)
        return None

    def check_duplicate(self, session: Session, agent: Agent, span: Span, facts: Facts, place: str) -> None:
        act = self.of_span(session, place)
        if act is None:
            return
        digest = arguments_digest(facts.arguments)
        result = b"" if facts.result is None else text_digest(plain_text(facts.result))
        if (digest and act.digest and digest != act.digest) or (result and act.result and result != act.result):
            self.conflict(session, agent, span, place, act.event_id)

    def conflict(self, session: Session, agent: Agent, span: Span, place: str, about: str) -> None:
        text = "a span came twice with the same id and other content; the first one counts"
        self.notice("conflicting_duplicate", session, agent, span.end_ns, place, about, text)

    def _ungated(self, session: Session, agent: Agent, act: Act, *, answered: bool) -> None:
        kind, text = "ungated_act", "an act ran without asking the gate, in a session that is gated"
        if not answered:
            kind, text = "ran_unanswered", "a reversible act ran while the gate could not answer"
        self.notice(kind, session, agent, act.started_ns, act.span, act.event_id, text)

    def notice(self, kind: str, session: Session, agent: Agent, at_ns: int, place: str, about: str, text: str) -> None:
        about = about or event_id(session.key.realm, kind, place)
        self.notices.append(Notice(kind, session.key, agent, at_ns, place, about, text))


def _another(act: Act, digest: bytes, scope: str, span: Span | None) -> bool:
    """Whether a telling that bears the call id of `act` is about another call: clients use ids again, attackers too."""
    if span is None:  # the gate asks twice about one call only if it is the same call, and has not run
        return act.ended or bool(act.digest and act.digest != digest and act.source != "message")
    told_here = act.span == f"{span.trace_id}:{span.span_id}"
    return bool(act.scope) and not told_here and (act.scope == scope or (act.ended and span.start_ns > act.ended_ns))


def unscored_of(reasons: tuple[str, ...], reading: Reading) -> tuple[str, ...]:
    return reasons if reading.complete else (*reasons, "uninspectable")
