"""Spans and log records of one convention or another → facts, chosen by the keys that are present.

`MAPPERS` is the catalogue, the most exact first. A span that speaks several conventions is read by each of them, and
what they say is merged into one: what an earlier one left open, a later one fills in. What none of them reads is left
to `fallback`, which goes by what keys and values mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType

from msgspec import Struct

from sidecar.core.semconv import (
    adk,
    claude_code,
    crews,
    fallback,
    genai,
    genai_events,
    langsmith,
    mcp,
    openinference,
    pydantic_ai,
    semantic_kernel,
    traceloop,
    vercel,
)
from sidecar.core.semconv.content import is_marker
from sidecar.core.semconv.facts import MAX_PARTS, Facts, Turn
from sidecar.core.semconv.names import IDENTITY, first, text
from sidecar.core.span import Span, is_cut

# Each mapper's `KEYS`: a span that it claims has one of these, unless the span has events or lost attributes.
MAPPERS = (
    langsmith,
    traceloop,
    crews,
    genai,
    adk,
    vercel,
    claude_code,
    semantic_kernel,
    mcp,
    pydantic_ai,
    genai_events,
    openinference,
)

MAX_SHAPES, MAX_SHAPE_KEYS, MAX_SHAPE_KEY = 512, 64, 128
"""Sets of keys that are remembered, at most some 6 MB, and which are: of so many keys, each so long."""

_CONTENT = ("arguments", "result", "inputs", "outputs", "system", "tools")
_SCALARS = ("tool", "description", "call_id", "model", *IDENTITY)


class Shape(Struct, frozen=True):
    """What follows from a span's keys, whatever their values.

    Attributes:
        mappers: Those that may claim a span with these keys and nothing else.
        session: Keys that may name its session, the first first.
        owners: Other fields of `IDENTITY`, with the keys that may tell them.
    """

    mappers: tuple[ModuleType, ...]
    session: tuple[str, ...]
    owners: tuple[tuple[str, tuple[str, ...]], ...]


_shapes: dict[tuple[str, ...], Shape] = {}


def _shape(span: Span) -> Shape:
    keys = tuple(span.attributes)
    if (shape := _shapes.get(keys)) is None:
        told = span.attributes
        owners = ((field, tuple(name for name in names if name in told)) for field, names in IDENTITY.items())
        known = {field: names for field, names in owners if names}
        mappers = tuple(mapper for mapper in MAPPERS if not mapper.KEYS.isdisjoint(told))
        shape = Shape(mappers, known.pop("session", ()), tuple(known.items()))
        if len(keys) <= MAX_SHAPE_KEYS and all(len(key) <= MAX_SHAPE_KEY for key in keys):
            if len(_shapes) >= MAX_SHAPES:
                _shapes.clear()
            _shapes[keys] = shape
    return shape


def session_of(span: Span) -> str:
    """The session that `span` itself names, "" where it names none."""
    return _named(span, _shape(span).session)


def _named(span: Span, names: Iterable[str]) -> str:
    for name in names:
        if isinstance(told := span.attributes[name], str) and told:
            return told
    return ""


def read(span: Span) -> Facts | None:
    """What `span` says of an agent, or None when it says nothing at all."""
    shape = _shape(span)
    mappers = MAPPERS if span.signal == "log" or span.events or span.dropped else shape.mappers
    told = [facts for mapper in mappers if mapper.claims(span) and (facts := mapper.read(span)) is not None]
    # A reading that takes a tool for context knows that tool.
    if all(facts.kind == "context" and not facts.tool for facts in told) and fallback.claims(span):
        facts = fallback.overrules(span) if told else fallback.read(span)
        told = [facts, *told] if facts is not None else told
    session = _named(span, shape.session)
    if not told:
        if not session:
            return None
        told = [Facts(kind="context")]
    facts = told[0] if len(told) == 1 else merged(told)
    if facts.kind == "tool":
        if _is_wanting(facts) and fallback.claims(span):
            fallback.filled(facts, span)
        if facts.failed and facts.result is None:
            _excuse(facts, span)
    get = span.attributes.get
    for field, names in shape.owners:
        if not getattr(facts, field) and (value := first(get, names)) is not None:
            setattr(facts, field, text(value))
    facts.session = session or facts.session
    for field in ("inputs", "outputs"):
        said = getattr(facts, field)
        if said is not None and sum([len(turn.parts) or 1 for turn in said]) > MAX_PARTS:
            setattr(facts, field, _newest(said))
            facts.cut += (field,) if field not in facts.cut else ()
    return judged(facts, span)


def _newest(said: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The last messages of a list that is too long: `MAX_PARTS` parts."""
    kept: list[Turn] = []
    room = MAX_PARTS
    for turn in reversed(said):
        if room <= 0:
            break
        kept.append(turn if len(turn.parts) <= room else Turn(turn.role, turn.parts[-room:]))
        room -= len(turn.parts) or 1
    return tuple(reversed(kept))


def _excuse(facts: Facts, span: Span) -> None:
    """The words of a tool's error are its result where no convention tells one, unless its sender hides content."""
    if not any(map(is_marker, span.attributes.values())) and (words := genai.failure(span)) is not None:
        facts.result = words
        facts.withheld = tuple(field for field in facts.withheld if field != "result")


def _is_wanting(facts: Facts) -> bool:
    """Whether a tool call lacks what other keys of its span may tell: whose call it is, its arguments."""
    return not (facts.tool or facts.call_id) or (facts.arguments is None and "arguments" in facts.withheld)


def merged(told: Sequence[Facts]) -> Facts:
    """Several readings of one span as one; the first has the say, the others fill in what it leaves open.

    A field is withheld only if none tells it, and cut only if none tells the whole of it.
    """
    whole, *others = told
    whole.walked = None
    withheld = [
        field
        for field in dict.fromkeys(field for one in told for field in one.withheld)
        if not any(field not in one.withheld and getattr(one, field) is not None for one in told)
    ]
    for other in others:
        if whole.kind == "context" and other.kind != "context":
            whole.kind, whole.piece = other.kind, other.piece
        for field in _SCALARS:
            if (theirs := getattr(other, field)) and not getattr(whole, field):
                setattr(whole, field, theirs)
        for field in _CONTENT:
            if (theirs := getattr(other, field)) is None:
                continue
            mine = getattr(whole, field)
            better = field not in other.cut
            bare = field in whole.withheld and field not in other.withheld  # mine are roles and names without content
            if mine is None or bare or (field in whole.cut and better):
                setattr(whole, field, theirs)
                if field in whole.withheld:
                    whole.withheld = tuple(name for name in whole.withheld if name != field)
                if field in whole.cut:
                    whole.cut = tuple(name for name in whole.cut if name != field)
                if not better:
                    whole.cut += (field,)
            elif field == "arguments" and isinstance(mine, str) and isinstance(theirs, dict) and better:
                whole.arguments = theirs
        whole.finish = whole.finish or other.finish
        whole.failed |= other.failed
        whole.gated |= other.gated
        whole.opaque |= other.opaque
        if whole.input_tokens < 0:
            whole.input_tokens = other.input_tokens
        if whole.output_tokens < 0:
            whole.output_tokens = other.output_tokens
    whole.withheld = tuple(withheld)
    return whole


def judged(facts: Facts, span: Span) -> Facts:
    """The same facts, with the reasons why detectors cannot see all of them."""
    reasons: list[str] = []
    if facts.kind == "tool" and facts.arguments is None and "arguments" in facts.withheld:
        reasons.append("withheld")
    if facts.cut or (span.notes and is_cut(span)):
        reasons.append("cut")
    if facts.opaque:
        reasons.append("opaque")
    if span.dropped and not _is_told(facts):
        reasons.append("overflow")
    facts.unscored = tuple(reasons)
    return facts


def _is_told(facts: Facts) -> bool:
    """Whether what a span's SDK dropped was the beginning of a history: the oldest attributes go first.

    The newest messages stand at the end, and what is missing of them is in `Facts.cut`.
    """
    return facts.kind == "model" and facts.inputs is not None and facts.outputs is not None
