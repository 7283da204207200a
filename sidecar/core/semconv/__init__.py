"""Spans and log records of one convention or another → facts, chosen by the keys that are present.

The list is the catalogue: each mapper fills in what the ones before it left open, so that a span that speaks two
conventions gives one set of facts.
"""

from __future__ import annotations

from sidecar.core.semconv import genai
from sidecar.core.semconv.facts import Facts
from sidecar.core.span import Span

MAPPERS = (genai,)


def session_of(span: Span) -> str:
    """The session that `span` itself names, "" where it names none."""
    for mapper in MAPPERS:
        for name in mapper.NAMES["session"]:
            if isinstance(told := span.attributes.get(name), str):
                return told
    return ""


def read(span: Span) -> Facts | None:
    """What `span` says of an agent, or None when no convention knows it."""
    facts: Facts | None = None
    for mapper in MAPPERS:
        if mapper.claims(span):
            facts = mapper.read(span, facts)
    return facts
