"""LangSmith's OpenTelemetry export: runs as spans, ``gen_ai.prompt`` and ``gen_ai.completion`` as one JSON each.

Source: langchain-ai/langsmith-sdk, python/langsmith/_internal/otel/_otel_exporter.py. The same two names stand on the
span events ``gen_ai.content.prompt`` and ``gen_ai.content.completion`` of the GenAI conventions before 1.28.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.semconv.content import arguments_of, is_marker, literal, result_of, structured
from sidecar.core.semconv.facts import Facts
from sidecar.core.semconv.genai import converse, count, failure, finished, offered
from sidecar.core.semconv.names import LANGSMITH as NAMES
from sidecar.core.semconv.names import first, text
from sidecar.core.semconv.traceloop import answer_of, request_of
from sidecar.core.span import Span

KEYS = frozenset(("langsmith.span.kind", "gen_ai.prompt", "gen_ai.completion"))
CONTENT_EVENTS = frozenset(("gen_ai.content.prompt", "gen_ai.content.completion"))
TRACEBACK = "Traceback (most recent call last)"
"""LangSmith glues an error's traceback to its words."""

_MODEL_HINTS = ("gen_ai.request.model", "gen_ai.response.model", "gen_ai.system", "gen_ai.provider.name")


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    if span.signal != "span":
        return False
    if not KEYS.isdisjoint(span.attributes):
        return True
    return bool(span.events) and any(event.name in CONTENT_EVENTS for event in span.events)


def read(span: Span) -> Facts | None:
    """Facts of `span`."""
    get = span.attributes.get
    kind = text(get("langsmith.span.kind")).lower()
    if not kind:
        operation = get("gen_ai.operation.name")
        if operation == "execute_tool" or "gen_ai.tool.name" in span.attributes:
            kind = "tool"
        elif operation in (None, "chat", "text_completion", "generate_content") and any(
            name in span.attributes for name in _MODEL_HINTS
        ):
            kind = "llm"
    if kind == "tool":
        return _tool(span)
    if kind == "llm":
        return _model(span)
    if kind == "retriever":
        return _retriever(span)
    if kind == "chain" and _is_root(span):
        return _run(span)
    return Facts(kind="context")


def _content(span: Span, field: str) -> tuple[Any, bool]:
    """What a run took or returned, None where it is withheld, and whether its end is missing.

    An empty object is what hiding leaves; only a sender who says that nothing is hidden has really taken nothing.
    """
    told = first(span.attributes.get, NAMES[field])
    if told is None:
        name, key = ("gen_ai.content.prompt", "gen_ai.prompt") if field == "input" else (
            "gen_ai.content.completion", "gen_ai.completion")  # fmt: skip
        told = next((event.attributes.get(key) for event in span.events if event.name == name), None)
    if isinstance(told, (bytes, bytearray)):  # the SDK hands its encoded JSON over as it is
        told = bytes(told).decode("utf-8", "replace")
    if told is None or is_marker(told):
        return None, False
    value, cut = structured(told)
    hidden = text(first(span.attributes.get, NAMES[f"hidden_{field}"])).lower()
    if value in ({}, "{}") and hidden not in ("false", "0", "no"):
        return None, False
    return value, cut


def _only(value: Any, *keys: str) -> Any:
    """What a dict holds under the one key it has, if that is one of `keys`; every other value as it is."""
    if isinstance(value, dict) and len(value) == 1:
        for key in keys:
            if key in value:
                return value[key]
    return value


def _tool(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(
        kind="tool",
        tool=text(first(get, NAMES["tool"])) or span.name,
        description=text(get("gen_ai.tool.description")),
        call_id=text(first(get, NAMES["call_id"])),
        failed=span.status == 2,
    )
    value, cut = _content(span, "input")
    if value is None:
        facts.withheld += ("arguments",)
    else:
        single = literal(_only(value, "input", "input_str"))
        facts.arguments, cut_within = arguments_of(single if isinstance(single, dict) else value)
        facts.cut += ("arguments",) if cut or cut_within else ()
    value, cut = _content(span, "output")
    if facts.failed and not value:
        facts.result = _failure(span)
    elif value is None:
        facts.withheld += ("result",)
    else:
        _take_result(facts, value)
        facts.cut += ("result",) if cut else ()
    return facts


def _take_result(facts: Facts, value: Any) -> None:
    value = _only(value, "output")
    update = value.get("update") if isinstance(value, dict) else None
    if isinstance(update, dict) and isinstance(said := update.get("messages"), list) and said:
        value = said[-1]
    message = value.get("kwargs") if isinstance(value, dict) and value.get("lc") is not None else value
    if isinstance(message, dict) and "tool_call_id" in message:
        facts.call_id = facts.call_id or text(message["tool_call_id"])
        facts.failed |= message.get("status") == "error"
    value = result_of(value)
    if is_marker(value):
        facts.withheld += ("result",)
    else:
        facts.result = value


def _failure(span: Span) -> str | None:
    said = failure(span)
    return said.partition(TRACEBACK)[0].strip() or said if said else None


def _retriever(span: Span) -> Facts:
    """A retriever is a tool that the framework calls for the agent: what it finds are words of the outside."""
    facts = _tool(span)
    found = facts.result.get("documents") if isinstance(facts.result, dict) else facts.result
    if isinstance(found, list):
        facts.result = [document.get("page_content", document) if isinstance(document, dict) else document
                        for document in found]  # fmt: skip
    return facts


def _model(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(kind="model", model=text(first(get, NAMES["model"])), failed=span.status == 2)
    asked, cut_input = _content(span, "input")
    answered, cut_output = _content(span, "output")
    tools = first(get, NAMES["tools"])
    system = None
    if isinstance(asked, dict):
        tools = asked.get("tools") if tools is None else tools
        system = asked.get("system", asked.get("instructions"))
        asked = next((asked[key] for key in ("messages", "input", "contents", "prompts", "prompt", "inputs")
                      if asked.get(key) is not None), asked)  # fmt: skip
    if isinstance(answered, dict):
        answered = _answers(answered)
    converse(facts, inputs=asked, outputs=answered, system=system, tools=None)
    if isinstance(tools, (str, list, dict, tuple)):
        facts.tools = offered(tools)
    if facts.failed and facts.outputs is None:
        facts.withheld = tuple(field for field in facts.withheld if field != "outputs")
    facts.cut += (("inputs",) if cut_input else ()) + (("outputs",) if cut_output else ())
    facts.finish = finished(first(get, NAMES["finish"]))
    facts.input_tokens = count(first(get, NAMES["input_tokens"]))
    facts.output_tokens = count(first(get, NAMES["output_tokens"]))
    return facts


def _answers(told: dict[str, Any]) -> Any:
    """The messages of an answer: LangChain's generations, a provider's own response, or what a function returned."""
    generations = told.get("generations")
    if isinstance(generations, list):
        flat = [one for batch in generations for one in (batch if isinstance(batch, list) else [batch])]
        return [one.get("message") or {"role": "assistant", "content": one.get("text")}
                for one in flat if isinstance(one, dict)]  # fmt: skip
    choices = told.get("choices")
    if isinstance(choices, list):
        return [one.get("message") or {"role": "assistant", "content": one.get("text")}
                for one in choices if isinstance(one, dict)]  # fmt: skip
    candidates = told.get("candidates")
    if isinstance(candidates, list):
        return [one.get("content") for one in candidates if isinstance(one, dict)]
    if "role" in told or "lc" in told:
        return [told]
    names = ("output", "message", "messages", "content", "text")
    return next((told[name] for name in names if told.get(name) is not None), told)


def _is_root(span: Span) -> bool:
    """Whether a run is nobody's child: by the export's own ids where it has them, else by the span's."""
    if "langsmith.span.id" in span.attributes or "langsmith.span.dotted_order" in span.attributes:
        return "langsmith.span.parent_id" not in span.attributes
    return not span.parent_id


def _run(span: Span) -> Facts:
    """A root run: who asked for what, and what came of it."""
    facts = Facts(kind="agent", failed=span.status == 2)
    asked, cut_input = _content(span, "input")
    answered, cut_output = _content(span, "output")
    if asked is None:
        facts.withheld += ("inputs",)
    else:
        facts.inputs = request_of(asked)
        facts.cut += ("inputs",) if cut_input else ()
    if answered is None:
        facts.withheld += ("outputs",) if not facts.failed else ()
    else:
        facts.outputs = answer_of(answered)
        facts.cut += ("outputs",) if cut_output else ()
    return facts
