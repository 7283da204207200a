"""Semantic Kernel's log line before each call, the only place that tells arguments where content is off.

The rest of what it tells is OpenTelemetry GenAI's, and one event a message in its log records.
"""

from __future__ import annotations

from sidecar.core.semconv.content import is_marker
from sidecar.core.semconv.facts import Facts
from sidecar.core.semconv.genai import tell
from sidecar.core.semconv.names import SEMANTIC_KERNEL as NAMES
from sidecar.core.semconv.names import first
from sidecar.core.span import Span

KEYS: frozenset[str] = frozenset()
WRITER = "invoke_function_call"
"""The function that writes the line, as the log record's attribute names it."""
HEAD, MIDDLE = "Calling ", " function with args: "


def claims(span: Span) -> bool:
    """Whether `span` is that line."""
    if span.signal != "log" or not isinstance(span.body, str) or not span.body.startswith(HEAD):
        return False
    return first(span.attributes.get, NAMES["writer"]) == WRITER and MIDDLE in span.body


def read(span: Span) -> Facts | None:
    """The call that is about to run; the line knows neither its id nor its result."""
    name, _, told = str(span.body).removeprefix(HEAD).partition(MIDDLE)
    facts = Facts(kind="tool", tool=name.strip())
    arguments = "{}" if told.strip() in ("", "None") else told
    tell(facts, arguments=None if is_marker(told) else arguments, result=None)
    facts.withheld = tuple(field for field in facts.withheld if field != "result")
    return facts
