"""The Vercel AI SDK: `ai.*`, in the spellings of its versions 3 to 6.

`ai.generateText` and its like are a run; `….doGenerate` and `….doStream` within are the calls of the model.
`recordInputs: false` and `recordOutputs: false` leave content out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.core.semconv.content import is_marker, structured, unquoted
from sidecar.core.semconv.facts import Facts
from sidecar.core.semconv.genai import converse, count, finished, tell
from sidecar.core.semconv.names import VERCEL as NAMES
from sidecar.core.semconv.names import first, text
from sidecar.core.span import Span

KEYS = frozenset(("ai.operationId", "ai.toolCall.name"))
_RUNS = ("ai.generate", "ai.stream")


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    return not KEYS.isdisjoint(span.attributes)


def read(span: Span) -> Facts | None:
    """Facts of `span`."""
    operation = text(first(span.attributes.get, NAMES["operation"]))
    if operation == "ai.toolCall" or "ai.toolCall.name" in span.attributes:
        return _tool(span)
    if not operation.startswith(_RUNS):
        return Facts(kind="context")
    get = span.attributes.get
    if operation.endswith((".doGenerate", ".doStream")):
        facts = Facts(kind="model", model=text(first(get, NAMES["model"])), failed=span.status == 2)
        inputs, system, tools = first(get, NAMES["messages"]), None, first(get, NAMES["tools"])
        facts.input_tokens = count(first(get, NAMES["input_tokens"]))
        facts.output_tokens = count(first(get, NAMES["output_tokens"]))
    else:
        facts, tools = Facts(kind="agent", failed=span.status == 2), None
        inputs, system = _asked(first(get, NAMES["prompt"]))
    if inputs is None:
        inputs = _asked(first(get, NAMES["prompt"]))[0] or first(get, NAMES["messages"])
    converse(facts, inputs=inputs, outputs=_answer(get), system=system, tools=tools)
    facts.finish = finished(first(get, NAMES["finish"]))
    return facts


def _tool(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(
        kind="tool",
        tool=text(first(get, NAMES["tool"])),
        call_id=text(first(get, NAMES["call_id"])),
        failed=span.status == 2,
    )
    tell(facts, arguments=first(get, NAMES["arguments"]), result=first(get, NAMES["result"]))
    return facts


def _asked(prompt: Any) -> tuple[Any, Any]:
    """Messages and system prompt of a run's `{"system"?, "prompt" | "messages"}`."""
    told, _ = structured(prompt)
    if not isinstance(told, dict):
        return told, None
    system = told.get("system", told.get("instructions"))
    messages = told.get("messages")
    said = told.get("prompt")
    if isinstance(messages, list) and messages:
        return messages, system
    return (said if said is not None else messages), system


def _answer(get: Callable[[str], Any]) -> list[dict[str, Any]] | None:
    """One message of what came back, None where nothing of it is told."""
    parts: list[dict[str, Any]] = []
    told = False
    if isinstance(thought := first(get, NAMES["reasoning"]), str) and not is_marker(thought):
        parts.append({"type": "reasoning", "text": thought})
    words, made = first(get, NAMES["text"]), first(get, NAMES["object"])
    for said in (words, made if words is None else None):
        if isinstance(said, str) and not is_marker(said):
            told = True
            parts.append({"type": "text", "text": said})
    calls, _ = structured(unquoted(first(get, NAMES["calls"])))
    if isinstance(calls, list):
        told = True
        parts.extend({**call, "type": "tool-call"} for call in calls if isinstance(call, dict))
    return [{"role": "assistant", "content": parts}] if told or parts else None
