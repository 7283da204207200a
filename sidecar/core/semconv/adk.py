"""Google's Agent Development Kit, native: `gcp.vertex.agent.*` (1.x tells all content there, 2.x only what is new).

With content off, ADK writes `{}` where content would stand. A tool without parameters has the arguments `{}` too, so
`{}` is withheld only where the result is `{}` as well.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.semconv.content import structured
from sidecar.core.semconv.facts import Facts
from sidecar.core.semconv.genai import MERGED_TOOLS, converse, count, finished, tell
from sidecar.core.semconv.names import ADK as NAMES
from sidecar.core.semconv.names import GENAI, first, text
from sidecar.core.span import Span

UNTOLD = frozenset(("N/A", "<not specified>", "<not serializable>", "null", ""))
"""What stands where there was nothing to write, or where it could not be written."""
KEYS = frozenset(("gcp.vertex.agent.llm_request", "gcp.vertex.agent.tool_call_args", "gcp.vertex.agent.tool_response",
                  "gcp.vertex.agent.data", "gcp.vertex.agent.event_id"))  # fmt: skip


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    return not KEYS.isdisjoint(span.attributes)


def read(span: Span) -> Facts | None:
    """Facts of `span`."""
    get = span.attributes.get
    operation = text(get("gen_ai.operation.name"))
    if operation == "execute_tool" or first(get, NAMES["arguments"]) is not None:
        return _tool(span)
    if first(get, NAMES["sent"]) is not None:
        facts = Facts(kind="agent")
        converse(facts, inputs=_told(first(get, NAMES["sent"])), outputs=None)
        facts.withheld = tuple(field for field in facts.withheld if field == "inputs")
        return facts
    if not operation and first(get, NAMES["request"]) is not None:
        # A tool's answer of 0.x says which event it is, and `{}` for the model that was not asked.
        return _model(span) if first(get, NAMES["result"]) is None else Facts(kind="context")
    return Facts(kind="context")


def _told(value: Any) -> Any:
    return None if isinstance(value, str) and (value in UNTOLD or value == "{}") else value


def _tool(span: Span) -> Facts:
    get = span.attributes.get
    name = text(first(get, GENAI["tool"]))
    if name == MERGED_TOOLS:
        return Facts(kind="context")
    arguments, result = first(get, NAMES["arguments"]), first(get, NAMES["result"])
    if arguments == "{}" == result:
        arguments = result = None
    if isinstance(arguments, str) and arguments in UNTOLD:
        arguments = None
    if isinstance(result, str) and result in UNTOLD:
        result = None
    facts = Facts(kind="tool", tool=name or span.name.removeprefix("execute_tool ").strip(), failed=span.status == 2)
    facts.call_id = text(first(get, GENAI["call_id"]))
    tell(facts, arguments=arguments, result=result)
    error = facts.result
    if isinstance(error, dict) and len(error) == 1 and isinstance(words := error.get("error"), str):
        facts.failed, facts.result = True, words
    return facts


def _model(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(kind="model", model=text(first(get, GENAI["model"])), failed=span.status == 2)
    request, cut_request = structured(_told(first(get, NAMES["request"])))
    response, cut_response = structured(_told(first(get, NAMES["response"])))
    system = tools = None
    inputs, outputs = request, response
    if isinstance(request, dict):
        inputs = request.get("contents")
        config = request.get("config")
        if isinstance(config, dict):
            system, tools = config.get("system_instruction"), _declared(config.get("tools"))
            labels = config.get("labels")
            facts.agent_name = text(labels.get("adk_agent_name")) if isinstance(labels, dict) else ""
    if isinstance(response, dict):
        outputs = response.get("content", [])  # an error or a mere sign of the end has none
        facts.finish = finished(response.get("finish_reason"))
    converse(facts, inputs=inputs, outputs=outputs, system=system, tools=tools)
    for field, cut in (("inputs", cut_request), ("outputs", cut_response)):
        facts.cut += (field,) if cut and field not in facts.cut else ()
    facts.finish = facts.finish or finished(first(get, GENAI["finish"]))
    facts.input_tokens = count(first(get, GENAI["input_tokens"]))
    facts.output_tokens = count(first(get, GENAI["output_tokens"]))
    return facts


def _declared(tools: Any) -> list[Any] | None:
    """The functions of Gemini's lists of lists of functions."""
    if not isinstance(tools, list):
        return None
    found: list[Any] = []
    for item in tools:
        inner = item.get("function_declarations", item.get("functionDeclarations")) if isinstance(item, dict) else None
        found.extend(inner if isinstance(inner, list) else [item])
    return found
