"""Spans and log records of one convention or another → facts, chosen by the keys that are present.

The list is the catalogue: each mapper fills in what the ones before it left open, so that a span that speaks two
conventions gives one set of facts.
"""

from __future__ import annotations

from sidecar.core.semconv import genai
from sidecar.core.semconv.facts import Facts
from sidecar.core.span import Span

MAPPERS = (genai,)


def read(span: Span) -> Facts | None:
    """What `span` says of an agent, or None when no convention knows it."""
    facts: Facts | None = None
    for mapper in MAPPERS:
        if mapper.claims(span):
            facts = mapper.read(span, facts)
    return facts
