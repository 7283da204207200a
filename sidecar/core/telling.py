"""Turns the parts of one span's messages into events, each text once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from sidecar.core.digests import arguments_digest, event_id, is_same_tool, remember, text_digest
from sidecar.core.events import Agent, Event, Message, Reasoning
from sidecar.core.history import ASSISTANT
from sidecar.core.reading import Reading
from sidecar.core.semconv.facts import Part, plain_text
from sidecar.core.sessions import MAX_INTENTS, MAX_TEXTS, Act, Intent, Session, Told

if TYPE_CHECKING:
    from sidecar.core.weave import Weaver

JOIN_NS = 600 * 10**9
"""How far apart two tellings of one call without a call id may be."""


MIN_QUOTED = 12
"""Shortest text of a run that is looked for in the prompts which a framework has made of it."""


class Telling:
    """What one span tells in its messages; `events` receives what is new."""

    def __init__(
        self, weaver: Weaver, session: Session, agent: Agent, place: str, start_ns: int, end_ns: int,
        events: list[Event], *, by_agent: bool = False,
    ) -> None:  # fmt: skip
        self._weaver, self._session, self._agent, self._place = weaver, session, agent, place
        self._start_ns, self._end_ns, self._events, self._by_agent = start_ns, end_ns, events, by_agent
        self._said: dict[str, int] = {}

    def system(self, texts: Iterable[str]) -> None:
        for text in texts:
            digest = text_digest(text)
            if text and digest not in self._session.texts:
                remember(self._session.texts, digest, Told(self._start_ns, self._end_ns, False), MAX_TEXTS)
                self._message("inbound", "system", text)

    def part(self, role: str, part: Part, *, told_before: bool) -> None:
        """One part. `told_before`: it stands in a model's input, so it was said before this call ended."""
        session = self._session
        if part.type == "call":
            self._call(part, in_history=told_before)
        elif part.type == "response":
            self._response(part)
        elif part.type == "opaque":
            session.note_unscored(("opaque",))
        elif part.type == "reasoning":
            if self._first_time(part.text):
                reading = self._read(part.text, "assistant")
                self._events.append(
                    Reasoning(
                        text=part.text,
                        reading=reading,
                        unscored=_unscored(reading),
                        **self._common("reasoning", part.text),
                    )
                )
        elif role == "system":
            self.system((part.text,))
        elif part.text and self._first_time(part.text, always=told_before and role in ("user", "human")):
            outbound = role in ASSISTANT
            self._message("outbound" if outbound else "inbound", "assistant" if outbound else role, part.text)

    def _first_time(self, text: str, *, always: bool = False) -> bool:
        """Whether `text` is said for the first time, or said again (a person may say "yes" twice)."""
        digest = text_digest(text)
        told = self._session.texts.get(digest)
        if told is None and self._by_agent and len(text) >= MIN_QUOTED:
            within = self._session.quoted(text.strip())
            told = None if within is None else self._session.texts.get(text_digest(within))
        if told is not None:
            if self._by_agent and told.end_ns >= self._start_ns:
                return False  # a model call within this run told it
            if told.by_agent and told.start_ns <= self._end_ns <= told.end_ns:
                return False  # the run around this model call told it
            if not always and not self._by_agent and told.end_ns >= self._start_ns:
                return False
        remember(self._session.texts, digest, Told(self._start_ns, self._end_ns, self._by_agent), MAX_TEXTS)
        return True

    def _message(self, direction: Literal["inbound", "outbound"], role: str, text: str) -> None:
        reading = self._read(text, role)
        if role == "user":
            self._session.hear(text)
        self._events.append(
            Message(
                direction=direction,
                role=role,
                text=text,
                reading=reading,
                unscored=_unscored(reading),
                **self._common(f"{direction}:{role}", text),
            )
        )

    def _call(self, part: Part, *, in_history: bool) -> None:
        session, weaver = self._session, self._weaver
        call_id = part.id or event_id("", part.name, plain_text(part.value), self._place)
        intent = Intent(call_id, part.name, part.value, self._end_ns, self._place, part.cut, bool(part.id))
        known = weaver.acts.called(session, call_id)
        if known is not None and known.ended and known.ended_ns < self._start_ns and not in_history:
            known = None  # an id used again: that act was over before the model wanted this one
        digest = b"" if known is not None and in_history else arguments_digest(part.value)
        if known is not None and (in_history or known.digest in (digest, b"") or not known.ended):
            if not known.digest:
                weaver.acts.tell_arguments(session, known, intent, self._events)
            return
        if call_id in session.intents and (in_history or session.intents[call_id].arguments == part.value):
            return
        if not part.id:  # no name to know it by: the first such call that no message has told of
            for one in session.acts.values():
                same = is_same_tool(one.tool, part.name) and one.digest in (digest, b"")
                if same and not one.wished and one.source != "message" and abs(one.started_ns - self._end_ns) < JOIN_NS:
                    one.wished = True
                    weaver.acts.tell_arguments(session, one, intent, self._events)
                    return
        if (act := name_act(session, intent)) is not None:  # told first, by one who does not know this call id
            weaver.acts.tell_arguments(session, act, intent, self._events)
            return
        remember(session.intents, call_id, intent, MAX_INTENTS)
        weaver.expect(session)

    def _response(self, part: Part) -> None:
        session, weaver = self._session, self._weaver
        call_id = part.id or self._oldest_call(part.name)
        intent = session.intents.pop(call_id, None)
        act: Act | None
        if intent is not None:
            act = self._gated_act(intent) or weaver.acts.derive(session, intent, self._events)
        else:
            act = weaver.acts.called(session, call_id) if call_id else self._oldest_act(part.name)
        if act is None or (act.ended and (act.result or part.value is None)):
            return
        weaver.acts.ended(session, self._agent, act, part.value, False, self._start_ns, (), self._place, self._events)

    def _oldest_call(self, tool: str) -> str:
        """The call that a response without an id answers, "" where none waits for one."""
        for intent in self._session.intents.values():
            if not tool or is_same_tool(intent.tool, tool):
                return intent.call_id
        return ""

    def _oldest_act(self, tool: str) -> Act | None:
        """The act whose result a response without an id tells, if the tool is named and one waits for it."""
        acts = self._session.acts.values() if tool else ()
        return next((act for act in acts if not act.result and is_same_tool(act.tool, tool)), None)

    def _gated_act(self, intent: Intent) -> Act | None:
        """The act that the gate was asked about with other arguments than the model's: defaults added, types made."""
        for act in self._session.acts.values() if self._session.gated else ():
            if act.source == "gate" and is_same_tool(act.tool, intent.tool) and _is_unnamed(act, intent):
                _name(self._session, act, intent.call_id)
                self._weaver.acts.tell_arguments(self._session, act, intent, self._events)
                return act
        return None

    def _read(self, text: str, role: str) -> Reading:
        return self._weaver.acts.read_text(self._session, "text", text, role)

    def _common(self, kind: str, text: str) -> dict[str, Any]:
        """What all events have; the id names the text and where it was told, and how often before in that place."""
        name = f"{kind}\0{text_digest(text).hex()}"
        count = self._said[name] = self._said.get(name, -1) + 1
        return {
            "event_id": event_id(self._session.key.realm, name, self._place, str(count) if count else ""),
            "session": self._session.key,
            "agent": self._agent,
            "at_ns": self._end_ns,
            "spans": (self._place,),
        }


def name_act(session: Session, intent: Intent) -> Act | None:
    """The act that a model's wish is about and that no message has told of, called by the wish's id from now on."""
    digest = arguments_digest(intent.arguments)
    for act in session.acts.values():
        if is_same_tool(act.tool, intent.tool) and act.digest in (digest, b"") and _is_unnamed(act, intent):
            _name(session, act, intent.call_id)
            return act
    return None


def _is_unnamed(act: Act, intent: Intent) -> bool:
    """Whether no message has told of an act yet, which has no id, or one that the gate's client made."""
    mine = act.source == "gate" if act.call_id else act.source != "message"
    return mine and not act.asked_as and abs(act.started_ns - intent.at_ns) < JOIN_NS


def _name(session: Session, act: Act, call_id: str) -> None:
    """From now on messages call `act` so."""
    if act.call_id:
        act.asked_as = call_id
    else:
        act.call_id = call_id
        session.acts[call_id] = session.acts.pop(act.event_id)


def _unscored(reading: Reading) -> tuple[str, ...]:
    return () if reading.complete else ("uninspectable",)
