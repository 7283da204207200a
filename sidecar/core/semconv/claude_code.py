"""Coding agents that tell of themselves: Claude Code's spans (`span.type`) and its log events, and their like.

A call is told in two halves that its id joins: the log event `tool_result` has the arguments, the span's event
`tool.output` has the result. Codex and Gemini CLI log under the same names with other prefixes and keys.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.semconv.content import is_marker, structured
from sidecar.core.semconv.facts import MAX_PARTS, Facts, Part, Turn
from sidecar.core.semconv.genai import converse, count, finished, tell
from sidecar.core.semconv.names import CLAUDE_CODE as NAMES
from sidecar.core.semconv.names import event_name, first, text
from sidecar.core.span import Span

KEYS = frozenset(("span.type",))
SPANS = frozenset(("interaction", "llm_request", "tool", "tool.execution", "tool.blocked_on_user"))
PROMPT, ANSWER = "user_prompt", "assistant_response"
CALLS = frozenset(("tool_result", "tool_call"))
EVENTS = ("claude_code.", "codex.", "gemini_cli.")
"""How the names of their log events begin; those that are no act (a decision, a request's cost) are context."""
SOME_MCP_TOOL = "mcp_tool"
"""What log events call every tool of a server; its own name stands in `tool_parameters`, if anywhere."""
_INPUT_HEAD = "[TOOL INPUT"


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    attributes = span.attributes
    if span.signal == "span":
        return "span.type" in attributes and text(attributes["span.type"]) in SPANS
    if (isinstance(span.body, str) and span.body.startswith(EVENTS)) or event_name(span).startswith(EVENTS):
        return True
    return _event(span) != ""


def read(span: Span) -> Facts | None:
    """Facts of `span`."""
    get = span.attributes.get
    if span.signal == "log":
        event = _event(span)
        if event in CALLS:
            return _logged_call(span)
        if event == PROMPT:
            return _words("inputs", "user", first(get, NAMES["prompt"]))
        if event == ANSWER:
            return _words("outputs", "assistant", first(get, NAMES["answer"]))
        return Facts(kind="context")
    kind = text(first(get, NAMES["kind"]))
    if kind == "interaction":
        return _words("inputs", "user", first(get, NAMES["prompt"]))
    if kind == "llm_request":
        return _model(span)
    if kind == "tool" or (kind == "tool.execution" and first(get, NAMES["error"]) is not None):
        return _tool(span)
    return Facts(kind="context")


def _event(span: Span) -> str:
    """Which of the events that tell something a log record is, "" where none; told by its name and its keys."""
    attributes = span.attributes
    event = event_name(span).rpartition(".")[2]
    if event in CALLS:
        return event if "tool_name" in attributes or "function_name" in attributes else ""
    key = {PROMPT: "prompt", ANSWER: "response"}.get(event)
    return event if key is not None and key in attributes else ""


def _words(field: str, role: str, told: Any) -> Facts:
    facts = Facts(kind="agent")
    if not isinstance(told, str) or is_marker(told):
        facts.withheld = (field,)
    else:
        setattr(facts, field, (Turn(role, (Part("text", told),)),) if told else ())
    return facts


def _model(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(kind="model", model=text(first(get, NAMES["model"])))
    facts.failed = span.status == 2 or _is_no(get("success"))
    converse(facts, inputs=None, outputs=first(get, NAMES["output"]))
    facts.finish = finished(first(get, NAMES["finish"]))
    facts.input_tokens = count(first(get, NAMES["input_tokens"]))
    facts.output_tokens = count(first(get, NAMES["output_tokens"]))
    return facts


def _tool(span: Span) -> Facts:
    """A tool's span; its arguments are there only in detailed tracing, its result in an event."""
    get = span.attributes.get
    facts = Facts(kind="tool", tool=text(first(get, NAMES["tool"])), call_id=text(first(get, NAMES["call_id"])))
    arguments = first(get, NAMES["arguments"])
    if isinstance(arguments, str) and arguments.startswith(_INPUT_HEAD):
        arguments = arguments.partition("\n")[2]
    said = [
        event.attributes.get("output", event.attributes.get("content", event.attributes.get("diff")))
        for event in span.events[:MAX_PARTS]
        if event.name == "tool.output"
    ]
    said = [words for words in said if words is not None]
    result = "\n".join(map(text, said)) if len(said) > 1 else said[0] if said else None
    tell(facts, arguments=arguments, result=result)
    _fail(facts, span)
    return facts


def _logged_call(span: Span) -> Facts:
    """A tool's log event, after it has run."""
    get = span.attributes.get
    name = text(first(get, NAMES["tool"]))
    parameters, _ = structured(first(get, NAMES["parameters"]))
    arguments = first(get, NAMES["arguments"])
    if isinstance(parameters, dict):
        if name == SOME_MCP_TOOL and (inner := text(parameters.get("mcp_tool_name"))):
            name = f"mcp__{text(parameters.get('mcp_server_name'))}__{inner}"
        elif arguments is None:  # older versions tell a command there
            arguments = {key: value for key, value in parameters.items() if not key.startswith("mcp_")} or None
    facts = Facts(kind="tool", tool=name, call_id=text(first(get, NAMES["call_id"])))
    tell(facts, arguments=arguments, result=first(get, NAMES["result"]))
    _fail(facts, span)
    return facts


def _fail(facts: Facts, span: Span) -> None:
    get = span.attributes.get
    error = first(get, NAMES["error"])
    facts.failed = span.status == 2 or _is_no(get("success")) or "error_type" in span.attributes or error is not None
    if error is not None and facts.result is None and not is_marker(error):
        facts.result = text(error)
        facts.withheld = tuple(field for field in facts.withheld if field != "result")


def _is_no(told: Any) -> bool:
    """Whether a yes or no is a no; log attributes are texts."""
    return told is False or (isinstance(told, str) and told.lower() == "false")
