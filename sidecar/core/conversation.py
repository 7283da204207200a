"""What was said: model calls and runs of agents → messages, reasoning and wishes for tool calls, each once.

A text is told again with every model call that repeats the history, by runs around model calls, and by log records
beside spans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core import oddities
from sidecar.core.acts import Acts
from sidecar.core.binding import is_unnamed
from sidecar.core.digests import arguments_digest, event_id, is_same_tool, remember, text_digest
from sidecar.core.events import Agent, Event, Lifecycle, ModelCall, Reasoning
from sidecar.core.history import ASSISTANT, ending, walk
from sidecar.core.semconv.facts import Facts, Part, Turn, plain_text
from sidecar.core.sessions import MAX_CALLS, MAX_CHAINS, MAX_TEXTS, MAX_UNSEEN, Session, Told
from sidecar.core.span import Span
from sidecar.core.telling import Telling

if TYPE_CHECKING:
    from sidecar.core.weave import Weaver

TOOL_FINISH = frozenset(("tool_calls", "tool_call", "tool_use", "tool-calls", "function_call"))


class Conversation:
    """What sessions were told in words. It remembers nothing itself: what is known of a session is in the session."""

    def __init__(self, weaver: Weaver, acts: Acts) -> None:
        self._weaver, self._acts = weaver, acts

    def model_call(
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
        if any(part.type == "call" for turn in facts.outputs or () for part in turn.parts):
            session.unseen.clear()  # what earlier calls withheld, the history has told by now, or never will
        elif TOOL_FINISH.intersection(facts.finish):
            self._wait_for_acts(session, place, span.end_ns)
        say = Telling(self._weaver, session, agent, place, start_ns, span.end_ns, events)
        say.system(facts.system or ())
        for turn, part in self._new_parts(session, facts):
            say.part(turn.role, part, told_before=True)
        for turn in facts.outputs or ():
            for part in turn.parts:
                say.part(turn.role or "assistant", part, told_before=False)

    def _wait_for_acts(self, session: Session, place: str, at_ns: int) -> None:
        remember(session.unseen, place, at_ns, MAX_UNSEEN)
        self._weaver.expect(session)

    def _new_parts(self, session: Session, facts: Facts) -> list[tuple[Turn, Part]]:
        """Parts of the input that this session has not been told before, and the history remembered.

        A history that continues a known one is new from there on. Inputs that hold only what is new (no word of the
        assistant in them) are taken whole; of any other, what has been told before is left out text by text.
        """
        inputs, ended = facts.inputs or (), ending(facts)
        if ended is not None:
            later = self._weaver.bindings.ends(session.key.realm, ended, session.key)
            later = None if later is None else self._weaver.table.resolve(later)
            if later is not None and later != session.key and is_unnamed(later):
                self._weaver.bind(later, session.key, session.last_ns)
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
                act = self._acts.called(session, part.id)
                return part.id in session.intents or (act is not None and bool(act.digest))
            digest = arguments_digest(part.value)
            return any(act.digest == digest and is_same_tool(act.tool, part.name) for act in session.acts.values())
        if part.type == "response" and part.id:
            act = self._acts.called(session, part.id)
            return act is not None and act.ended and bool(act.result)
        return False

    def is_retold(self, session: Session, facts: Facts) -> bool:
        """Whether a span that came again says a text that its session does not know."""
        if len(session.texts) >= MAX_TEXTS:  # it may have known it
            return False
        turns = (*(facts.inputs or ()), *(facts.outputs or ()))
        return any(
            (part.text or part.type == "call") and not self._told(session, part)
            for turn in turns
            for part in turn.parts
        )

    def begin_run(
        self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event]
    ) -> None:
        # Instructions are there before the run begins, wherever its span tells of them.
        start_ns = span.start_ns or span.end_ns
        Telling(self._weaver, session, agent, place, start_ns, start_ns, events, by_agent=True).system(
            facts.system or ()
        )
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

    def end_run(
        self, session: Session, agent: Agent, span: Span, facts: Facts, place: str, events: list[Event]
    ) -> None:
        if not (session.saw_tool_span or session.saw_model or session.gated):
            self._wait_for_acts(session, place, span.end_ns)
        start_ns = span.start_ns or span.end_ns
        say = Telling(self._weaver, session, agent, place, start_ns, span.end_ns, events, by_agent=True)
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

    def look_at(
        self, session: Session, agent: Agent, told: Span, span: Span, facts: Facts, arrived_ns: int, place: str,
        events: list[Event],
    ) -> None:  # fmt: skip
        """What is odd in a span itself."""
        if "nonfinite" in span.notes:
            self._acts.notice("nonfinite", session, agent, span.end_ns, place, "", "a number in a span is not finite")
        if not session.skewed and oddities.is_skewed(told, arrived_ns):
            session.skewed = True
            text = "the sender's clock and ours differ by more than a minute, or a span's times make no sense"
            self._acts.notice("clock_skew", session, agent, span.end_ns, place, "", text)
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
            reading = self._acts.read_text(session, field, text, "agent")
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


def _says(facts: Facts, text: str) -> bool:
    """Whether a span's own content is that text, so that it is read in its place."""
    if facts.result is not None and plain_text(facts.result) in (text, text.strip()):
        return True
    turns = (*(facts.inputs or ()), *(facts.outputs or ()))
    return any(part.text == text for turn in turns for part in turn.parts if part.text)
