"""Both older generations of OpenTelemetry GenAI: one event a message, and prompts in attributes.

An event is a log record (OpenAI's and Microsoft's instrumentations) or an event of the span (Azure AI, Strands). The
names: `gen_ai.{system,user,assistant,tool}.message` and `gen_ai.choice`; before them `gen_ai.content.prompt` and
`gen_ai.content.completion`, and the attributes `gen_ai.prompt` and `gen_ai.completion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.core.semconv.content import is_marker, result_of, structured
from sidecar.core.semconv.facts import MAX_PARTS, Facts, Turn
from sidecar.core.semconv.genai import DETAILS_EVENT, MERGED_TOOLS, MODEL_OPERATIONS, converse, finished, tell, tells
from sidecar.core.semconv.messages import turns
from sidecar.core.semconv.names import EVENTS as NAMES
from sidecar.core.semconv.names import GENAI, event_name, first, text
from sidecar.core.span import Span

CHOICE, TOOL = "gen_ai.choice", "gen_ai.tool.message"
PROMPT, COMPLETION = "gen_ai.content.prompt", "gen_ai.content.completion"
ROLES = {
    "gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant",
    TOOL: "tool", CHOICE: "assistant", PROMPT: "user", COMPLETION: "assistant",
}  # fmt: skip
KEYS = frozenset(("gen_ai.prompt", "gen_ai.completion"))
_SPAN_EVENTS = frozenset((*ROLES, DETAILS_EVENT))
_OTHERS = frozenset(("langsmith.span.kind", "langsmith.trace.name", "openinference.span.kind", "traceloop.span.kind"))
"""Conventions that use `gen_ai.prompt` in their own way."""


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    if span.signal == "log":
        return event_name(span) in ROLES
    if span.events and any(event.name in _SPAN_EVENTS for event in span.events):
        return True
    return not KEYS.isdisjoint(span.attributes) and _OTHERS.isdisjoint(span.attributes)


def read(span: Span) -> Facts | None:
    """Facts of `span`; one message of a log record is a piece of its model call."""
    if span.signal == "log":
        return _piece(event_name(span), _body(span))
    if _kind(span) == "tool":
        return _tool(span)
    return _conversation(span)


def said(name: str, message: Mapping[str, Any]) -> tuple[tuple[Turn, ...], bool, bool]:
    """The message that an event called `name` tells.

    Returns:
        Its turns (usually one), whether its content is withheld, and whether all of it could be read.
    """
    role, inner = ROLES[name], message
    if name == CHOICE:
        told = message.get("message")
        if isinstance(told, dict):
            inner = {**{key: message[key] for key in ("tool_calls",) if key in message}, **told}
        elif told is not None:
            inner = {"content": told, **{key: message[key] for key in ("tool_calls",) if key in message}}
    content = inner.get("content")
    if isinstance(content, str):
        content = _opened(content)
    elif role == "tool" and isinstance(content, dict):
        content = result_of(content)
    found, whole = turns([{**inner, "role": role, "content": content}], role)
    empty = isinstance(content, str) and not is_marker(content)  # an answer without words is told
    return found, not (empty or tells(found)), whole


def _opened(content: str) -> Any:
    """The parts that a text is the JSON of; attributes hold no structure."""
    told, _ = structured(content)
    if isinstance(told, list) and told and all(isinstance(item, dict) and not _PARTS.isdisjoint(item) for item in told):
        return told
    return content


_PARTS = frozenset(("text", "toolUse", "toolResult", "type", "image", "document", "video", "reasoningContent"))


def _body(span: Span) -> Mapping[str, Any]:
    """A log record's message: its body, a body of JSON, a bare text, or else the attributes."""
    body = span.body
    if isinstance(body, str) and body and body != event_name(span):
        body, _ = structured(body)
        return body if isinstance(body, dict) else {"content": body}
    if isinstance(body, (dict, list)) and body:
        return body if isinstance(body, dict) else {"content": body}
    return _whole(span.attributes.get)


def _whole(get: Callable[[str], Any]) -> Mapping[str, Any]:
    """The message in attributes: as JSON in one of them, or a key each."""
    told, _ = structured(first(get, NAMES["whole"]))
    if isinstance(told, dict):
        return told
    if told is not None:
        return {"content": told}
    keys = ("id", "name", "tool_calls", "finish_reason", "tool_call_id")
    message = {key: value for key in keys if (value := get(key)) is not None}
    if (content := first(get, NAMES["content"])) is not None:
        message["content"] = content
    return message


def _piece(name: str, message: Mapping[str, Any]) -> Facts:
    facts = Facts(kind="model", piece=True)
    field = "outputs" if name in (CHOICE, COMPLETION) else "inputs"
    found, withheld, whole = said(name, message)
    setattr(facts, field, found)
    facts.withheld = (field,) if withheld else ()
    facts.cut = () if whole else (field,)
    facts.opaque = any(part.type == "opaque" for turn in found for part in turn.parts)
    if name == CHOICE:
        facts.finish = finished(message.get("finish_reason"))
    return facts


def _kind(span: Span) -> str:
    operation = text(span.attributes.get("gen_ai.operation.name"))
    tool = span.attributes.get("gen_ai.tool.name")
    if (operation == "execute_tool" or (tool is not None and not operation)) and tool != MERGED_TOOLS:
        return "tool"
    return "model" if not operation or operation in MODEL_OPERATIONS else "agent"


def _tool(span: Span) -> Facts:
    """A tool's span: the message to it is its arguments, the choice its result."""
    get = span.attributes.get
    arguments, result = first(get, NAMES["inputs"]), first(get, NAMES["outputs"])
    facts = Facts(kind="tool", tool=text(first(get, GENAI["tool"])), call_id=text(first(get, GENAI["call_id"])))
    for event in span.events[:MAX_PARTS]:
        if event.name in (TOOL, CHOICE):
            message = _whole(event.attributes.get)
            facts.call_id = facts.call_id or text(message.get("id"))
            if event.name == TOOL:
                arguments = message.get("content")
            else:
                result = message.get("message", message.get("content"))
        elif event.name == DETAILS_EVENT:
            for part in (part for turn in _details(event.attributes) for part in turn.parts):
                facts.call_id = facts.call_id or part.id
                if part.type == "call" and part.value is not None:
                    arguments = part.value
                elif part.type == "response" and part.value is not None:
                    result = part.value
    tell(facts, arguments=arguments, result=result)
    facts.failed = span.status == 2 or get("gen_ai.tool.status") == "error"
    return facts


def _details(attributes: Mapping[str, Any]) -> tuple[Turn, ...]:
    inputs = turns(first(attributes.get, GENAI["inputs"]), "tool")[0]
    return inputs + turns(first(attributes.get, GENAI["outputs"]), "tool")[0]


def _conversation(span: Span) -> Facts:
    """A model's or an agent's span: its events are the messages, in their order."""
    get = span.attributes.get
    facts = Facts(kind="model" if _kind(span) == "model" else "agent", failed=span.status == 2)
    facts.model = text(first(get, GENAI["model"]))
    found: dict[str, list[Turn]] = {"inputs": [], "outputs": []}
    withheld = {"inputs": False, "outputs": False}
    for event in span.events[:MAX_PARTS]:
        if event.name == DETAILS_EVENT:
            _tell_details(facts, event.attributes)
        if event.name not in ROLES:
            continue
        field = "outputs" if event.name in (CHOICE, COMPLETION) else "inputs"
        if event.name in (PROMPT, COMPLETION):
            said_here, whole = turns(
                first(event.attributes.get, (*NAMES["whole"], *NAMES["content"])), ROLES[event.name]
            )
            bare = not said_here
        else:
            message = _whole(event.attributes.get)
            said_here, bare, whole = said(event.name, message)
            facts.finish = facts.finish or finished(message.get("finish_reason"))
        found[field].extend(said_here)
        withheld[field] |= bare
        facts.cut += () if whole or field in facts.cut else (field,)
    for field, told in found.items():
        if told and getattr(facts, field) is None:
            setattr(facts, field, tuple(told))
            facts.withheld += (field,) if withheld[field] else ()
    rest = Facts(kind="context")
    converse(rest, inputs=first(get, NAMES["inputs"]), outputs=first(get, NAMES["outputs"]))
    for field in found:
        if getattr(facts, field) is None:
            setattr(facts, field, getattr(rest, field))
            facts.withheld += (field,) if field in rest.withheld else ()
            facts.cut += (field,) if field in rest.cut and field not in facts.cut else ()
    facts.opaque = any(
        part.type == "opaque"
        for turns_ in (facts.inputs, facts.outputs)
        for turn in turns_ or ()
        for part in turn.parts
    )
    return facts


def _tell_details(facts: Facts, attributes: Mapping[str, Any]) -> None:
    """The newest convention's event, told on the span; inputs and outputs may come in an event each."""
    told = Facts(kind="context")
    converse(told, inputs=first(attributes.get, GENAI["inputs"]), outputs=first(attributes.get, GENAI["outputs"]),
             system=first(attributes.get, GENAI["system"]), tools=first(attributes.get, GENAI["tools"]))  # fmt: skip
    for field in ("inputs", "outputs", "system", "tools"):
        if getattr(facts, field) is None:
            setattr(facts, field, getattr(told, field))
    facts.cut += tuple(field for field in told.cut if field not in facts.cut)
