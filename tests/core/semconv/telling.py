"""Spans and log records in any convention's words, and what was read of them, for the tests of the mappers."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from sidecar.core import semconv
from sidecar.core.semconv.facts import Facts, Turn
from sidecar.core.span import Span, SpanEvent

AT_NS = 1_800_000_000 * 10**9


def span(attributes: dict[str, Any], *, events: list[tuple[str, dict[str, Any]]] | None = None, **fields: Any) -> Span:
    """A span of 1 ms; `events` are (name, attributes)."""
    told = tuple(SpanEvent(name, AT_NS, more) for name, more in events or [])
    given = {"name": "step", "parent_id": "", "start_ns": AT_NS, "end_ns": AT_NS + 10**6, **fields}
    return Span(signal="span", trace_id="1" * 32, span_id="2" * 16, attributes=attributes, events=told, **given)


def log(name: str, body: Any = None, attributes: dict[str, Any] | None = None) -> Span:
    """A log record of a span."""
    return Span(
        signal="log",
        trace_id="1" * 32,
        span_id="2" * 16,
        parent_id="",
        name=name,
        start_ns=0,
        end_ns=AT_NS,
        attributes=attributes or {},
        body=body,
    )


def facts(told: Span) -> Facts:
    """What `told` says; it says something."""
    found = semconv.read(told)
    assert found is not None
    return found


def said(turns: tuple[Turn, ...] | None) -> list[tuple[Any, ...]]:
    """Turns in short: the role, then its parts: a text, (tool, arguments, id) of a call, (id, content) of an answer."""
    short: list[tuple[Any, ...]] = []
    for turn in turns or ():
        parts: list[Any] = []
        for part in turn.parts:
            if part.type == "call":
                parts.append((part.name, part.value, part.id))
            elif part.type == "response":
                parts.append((part.id, part.value))
            else:
                parts.append(part.text if part.type == "text" else (part.type, part.text))
        short.append((turn.role, *parts))
    return short


WORDS = [
    "[",
    "{}",
    '{"a',
    "[{}]",
    '{"content": {"parts": [{"text": 1}]}}',
    '[{"role": "user", "content": [{"type": 5}]}]',
    '{"messages": [[[]]]}',
    "<REDACTED>",
    "execute_tool",
    "chat",
    "tools/call",
    "tool",
    "interaction",
    "llm_request",
    "ai.toolCall",
    "ai.generateText",
    "ai.generateText.doGenerate",
    "gen_ai.choice",
    "gen_ai.user.message",
    '{"mcp_tool_name": [], "mcp_server_name": {}}',
    '[{"event.name": "gen_ai.choice", "message": 3}]',
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.binary(max_size=8)
    | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "parts",
                    "type",
                    "content",
                    "id",
                    "name",
                    "arguments",
                    "response",
                    "message",
                    "messages",
                    "contents",
                    "config",
                    "tool_calls",
                    "finish_reason",
                    "event.name",
                    "value",
                    "error",
                    "labels",
                    "text",
                    "output",
                    "function",
                    "tools",
                    "system_instruction",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
"""Whatever an attribute, or JSON in one, may hold."""


def wild(names: dict[str, tuple[str, ...]], *more: str) -> st.SearchStrategy[dict[str, Any]]:
    """Attributes of a convention with anything at all in them."""
    keys = sorted({name for each in names.values() for name in each} | set(more))
    return st.dictionaries(st.sampled_from(keys), values, max_size=7)


def decoded(text: str) -> Any:
    """JSON as the mappers decode it.

    Raises:
        ValueError: They do not.
    """
    return msgspec.json.decode(text)
