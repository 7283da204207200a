"""Requests between programs: the Model Context Protocol's spans, of its clients and its servers, and A2A's.

Only `tools/call` is an act. One call is told by both sides and often by several layers of each; they are joined later.
`mcp.session.id` is a transport's and names no session of an agent.
"""

from __future__ import annotations

from sidecar.core.semconv.facts import Facts
from sidecar.core.semconv.genai import tell
from sidecar.core.semconv.names import MCP as NAMES
from sidecar.core.semconv.names import first, text
from sidecar.core.span import Span

KEYS = frozenset(("mcp.method.name", "mcp.method", "mcp.tool.name", "a2a.method.name", "a2a.task.id"))
CALL = "tools/call"
MAX_ARGUMENTS = 256
_ARGUMENT = "mcp.request.argument."


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    return not KEYS.isdisjoint(span.attributes)


def read(span: Span) -> Facts | None:
    """Facts of `span`."""
    get = span.attributes.get
    method = text(first(get, NAMES["method"]))
    if method != CALL and (method or "mcp.tool.name" not in span.attributes):
        return Facts(kind="context")
    name = text(first(get, NAMES["tool"])) or _called(span.name)
    failed = span.status == 2 or "error.type" in span.attributes or get("mcp.tool.is_error") is True
    facts = Facts(kind="tool", tool=name, call_id=text(first(get, NAMES["call_id"])), failed=failed)
    arguments = first(get, NAMES["arguments"])
    if arguments is None:
        each = {
            key.removeprefix(_ARGUMENT): value for key, value in span.attributes.items() if key.startswith(_ARGUMENT)
        }
        arguments = each if each and len(each) <= MAX_ARGUMENTS else None
    tell(facts, arguments=arguments, result=first(get, NAMES["result"]))
    return facts


def _called(name: str) -> str:
    """The tool in a span's name such as `tools/call NAME` or `MCP send tools/call NAME`."""
    return name.rpartition(CALL)[2].strip() if CALL in name else ""
