"""Whose words a span is: what a credential says, and what a forwarder may say for others."""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import replace

from sidecar.core.span import Span, Speaker

AGENT_KEYS = ("gen_ai.agent.name", "service.name")
"""Resource attributes by which a forwarder names the agent that a span came from, the more telling first."""

_LONGEST_NAME = 128


def realm_of(span: Span, speaker: Speaker) -> Speaker:
    """Who said `span`, which came from `speaker`.

    An agent listed in a forwarder's credential speaks as itself, ``attested``. What else a forwarder sends is its own
    word about others: ``declared``, in the forwarder's own realm. Everybody else is who the credential says.
    """
    if not speaker.speaks_for:
        return speaker
    for key in AGENT_KEYS:
        name = span.resource.get(key)
        if isinstance(name, str) and _may_name(speaker.speaks_for, name):
            return _attested(name)
    return _declared(speaker)


def _may_name(speaks_for: tuple[str, ...], name: str) -> bool:
    if name in speaks_for:
        return name != "*"
    return "*" in speaks_for and 0 < len(name) <= _LONGEST_NAME and name.isprintable()


@lru_cache(maxsize=4096)
def _attested(name: str) -> Speaker:
    return Speaker(f"agent:{name}", "attested", name)


@lru_cache(maxsize=256)
def _declared(forwarder: Speaker) -> Speaker:
    return replace(forwarder, grade="declared", agent=None, speaks_for=())
