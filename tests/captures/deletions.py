"""A capture without one attribute: what may change, and what must be said.

The rule, for an attribute of one span (`broken` says in words what breaks it):

1. What no mapper reads changes nothing at all.
2. What only says whose the span is changes whose events are, and nothing that was done or said. Where nothing else
   joins the span's trace to the session, what both tell is told of both.
3. Anything else changes only events that name the span as evidence before or after. What an address was called before
   (`reading`) is not held against it: that follows from all texts of a session. An act that the span told of together
   with others, by its id or its tool, may be told of by those.
4. There is never an act more, unless what went was a call's own id, tool or arguments, or that the span tells a call:
   then two tellings cannot be known to be of one act, and both stand. An act too many is looked at; one too few is not.
5. Arguments or results that nothing tells any more leave a reason on the session, or the act says `withheld`, unless
   what went is part of a message of which the rest is there: that it was ever longer nobody can know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import asdict, replace

from sidecar.core import semconv
from sidecar.core.digests import is_same_tool
from sidecar.core.semconv.facts import Facts
from sidecar.core.span import Span
from tests.captures.any_order import Account, at_once, play, reference

WHOSE = frozenset(("session", "parent_session", "agent_name", "agent_id", "agent_version", "user"))
CALL = frozenset(("kind", "tool", "call_id", "arguments", "result", "piece", "withheld"))
OF_OTHERS = frozenset(("session", "agent", "started reading", "ended reading", "reading"))


def attributes(spans: Sequence[Span]) -> Iterator[tuple[int, str]]:
    """(index of a span, name) of every attribute."""
    return ((index, name) for index, span in enumerate(spans) for name in span.attributes)


def without(span: Span, name: str) -> Span:
    return replace(span, attributes={key: value for key, value in span.attributes.items() if key != name})


def broken(spans: Sequence[Span], index: int, name: str) -> list[str]:
    """Which parts of the rule a deletion breaks, in words."""
    span = spans[index]
    rest = without(span, name)
    before, after = semconv.read(span), semconv.read(rest)
    base = reference(tuple(spans))
    came = play(at_once([*spans[:index], rest, *spans[index + 1 :]]))
    if before == after:
        return [] if came == base else ["1: it is not read, and something changes"]
    fields = _changed(before, after)
    if fields <= WHOSE:
        mine, theirs = _done(base), _done(came)
        if not mine - theirs and (not theirs - mine or _stands_alone(spans, span)):
            return []
        return ["2: it only says whose, and something else changes"]
    found = []
    is_call = bool(fields & CALL) or _calls(before) != _calls(after)
    touched = _names(before, after) if is_call else set()
    place = f"{span.trace_id}:{span.span_id}"
    for event_id, event in base.events.items():
        other = came.events.get(event_id)
        same = other is not None and _own(event) == _own(other)
        if not same and place not in _evidence(event) | _evidence(other or {}) and not _is_of(event, touched):
            found.append(f"3: changes {event['kind']} {event.get('tool') or event.get('text')!r:.80}")
    if _acts(came) > _acts(base) and not is_call:
        found.append("4: one act more")
    said = any(one["reasons"] for one in came.sessions.values())
    for field in ("arguments", "result"):
        for tool, value in _told(base, field):
            if any(value == other for _, other in _told(came, field)) or said or _is_said(came, tool):
                continue
            if not (_is_part(before, after) or _is_text(came, value)):
                found.append(f"5: {field} of {tool} are lost, and nothing says so")
    return found


def _stands_alone(spans: Sequence[Span], span: Span) -> bool:
    """Whether no other span of its trace names a session."""
    return not any(
        semconv.session_of(other) for other in spans if other.trace_id == span.trace_id and other is not span
    )


def _changed(before: Facts | None, after: Facts | None) -> set[str]:
    mine, theirs = asdict(before) if before else {}, asdict(after) if after else {}
    return {name for name in {*mine, *theirs} - {"walked"} if mine.get(name) != theirs.get(name)}


def _parts(facts: Facts | None) -> list[Any]:
    turns = () if facts is None else (*(facts.inputs or ()), *(facts.outputs or ()))
    return [part for turn in turns for part in turn.parts]


def _calls(facts: Facts | None) -> list[Any]:
    return [part for part in _parts(facts) if part.type in ("call", "response")]


def _names(before: Facts | None, after: Facts | None) -> set[str]:
    """Ids and tools of calls that one of the two tells and the other does not."""
    mine, theirs = _calls(before), _calls(after)
    names = {
        name for part in (*mine, *theirs) if part not in mine or part not in theirs for name in (part.id, part.name)
    }
    for facts in (before, after):
        names |= set() if facts is None else {facts.tool, facts.call_id}
    return names - {""}


def _is_of(event: dict[str, Any], names: set[str]) -> bool:
    """Whether an event is an act that one of these ids or tools is of."""
    return _is_act(event) and (
        event["call_id"] in names or any(is_same_tool(event.get("tool", ""), name) for name in names)
    )


def _is_part(before: Facts | None, after: Facts | None) -> bool:
    """Whether messages are there still, of which something is gone."""
    return bool(_parts(after)) and _parts(before) != _parts(after)


def _own(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in OF_OTHERS}


def _evidence(event: dict[str, Any]) -> set[str]:
    return {span for name in ("spans", "started spans", "ended spans") for span in event.get(name, ())}


def _is_act(event: dict[str, Any]) -> bool:
    return bool(event["kind"] == "ToolCall")


def _acts(account: Account) -> int:
    return sum(map(_is_act, account.events.values()))


def _told(account: Account, field: str) -> list[tuple[str, Any]]:
    acts = filter(_is_act, account.events.values())
    return [(act.get("tool", ""), act[field]) for act in acts if act.get(field) is not None]


def _is_said(account: Account, tool: str) -> bool:
    """Whether an act of that tool says that content of it is withheld."""
    acts = (event for event in account.events.values() if _is_act(event) and event.get("tool", "") in (tool, ""))
    return any(act.get("started withheld") or act.get("ended withheld") or act.get("started unscored") for act in acts)


def _is_text(account: Account, value: Any) -> bool:
    """Whether it is told as a text."""
    return any(event.get("text") and str(value) in event["text"] for event in account.events.values())


def _done(account: Account) -> Counter[str]:
    names = ("kind", "tool", "arguments", "result", "failed", "direction", "role", "text", "model")
    return Counter(repr([event.get(name) for name in names]) for event in account.events.values())
