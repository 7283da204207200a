"""Pydantic AI's and Logfire's own keys beside `gen_ai.*`: arguments and results of tools, lists of events, whole runs.

Before 1.0 the messages of a model call are one JSON list in `events`, of a run in `all_messages_events`, each with the
name that the event would have had; since then those of a run are in `pydantic_ai.all_messages`.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.semconv import genai_events
from sidecar.core.semconv.content import is_marker, structured
from sidecar.core.semconv.facts import MAX_PARTS, Facts, Part, Turn, plain_text
from sidecar.core.semconv.genai import tell, tells
from sidecar.core.semconv.messages import turns
from sidecar.core.semconv.names import GENAI, first, text
from sidecar.core.semconv.names import PYDANTIC_AI as NAMES
from sidecar.core.span import Span

KEYS = frozenset(("model_request_parameters", "tool_arguments", "tool_response", "all_messages_events",
                  "pydantic_ai.all_messages", "final_result"))  # fmt: skip


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    attributes = span.attributes
    return (
        "model_request_parameters" in attributes
        or ("gen_ai.tool.name" in attributes and ("tool_arguments" in attributes or "tool_response" in attributes))
        or "all_messages_events" in attributes
        or "pydantic_ai.all_messages" in attributes
        or ("final_result" in attributes and "agent_name" in attributes)
    )


def read(span: Span) -> Facts | None:
    """Facts of `span`."""
    get = span.attributes.get
    if "gen_ai.tool.name" in span.attributes or first(get, NAMES["arguments"]) is not None:
        return _tool(span)
    if first(get, NAMES["all_messages"]) is not None or first(get, NAMES["final"]) is not None:
        return _run(span)
    if "gen_ai.request.model" in span.attributes:
        return _model(span)
    if "agent_name" in span.attributes and "model_name" in span.attributes:
        return Facts(kind="agent", withheld=("inputs", "outputs"), failed=span.status == 2)
    return Facts(kind="context")


def _tool(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(kind="tool", tool=text(first(get, GENAI["tool"])), call_id=text(first(get, GENAI["call_id"])))
    facts.failed = span.status == 2
    tell(facts, arguments=first(get, NAMES["arguments"]), result=first(get, NAMES["result"]))
    return facts


def _model(span: Span) -> Facts:
    facts = Facts(kind="model", model=text(first(span.attributes.get, NAMES["model"])), failed=span.status == 2)
    _listed(facts, first(span.attributes.get, NAMES["events"]))
    return facts


def _run(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(kind="agent", failed=span.status == 2)
    told = first(get, NAMES["all_messages"])
    if get("pydantic_ai.all_messages") is not None:
        found, whole = turns(told, "user")
        cut = next((at for at in range(len(found), 0, -1) if found[at - 1].role != "assistant"), 0)
        facts.inputs, facts.outputs = found[:cut], found[cut:] or None
        facts.cut = () if whole else ("inputs",)
        facts.withheld = () if tells(facts.inputs) or not facts.inputs else ("inputs",)
    else:
        _listed(facts, told)
        found = facts.inputs or ()
        if found and found[-1].role == "assistant":  # the answer, told as one more message
            facts.inputs, facts.outputs = found[:-1], found[-1:]
    final = first(get, NAMES["final"])
    if final is not None and not is_marker(final):
        facts.outputs = (Turn("assistant", (Part("text", plain_text(final)),)),)
    elif facts.outputs is None or not tells(facts.outputs):
        facts.outputs = None
    facts.withheld = tuple(field for field in facts.withheld if field != "outputs")
    facts.withheld += ("outputs",) if facts.outputs is None else ()
    return facts


def _listed(facts: Facts, told: Any) -> None:
    """Takes a list of events, each with its name among its keys."""
    events, cut = structured(told)
    if not isinstance(events, list):
        facts.withheld += ("inputs", "outputs")
        facts.cut += ("inputs", "outputs") if cut else ()
        return
    found: dict[str, list[Turn]] = {"inputs": [], "outputs": []}
    whole = len(events) <= MAX_PARTS
    for event in events[:MAX_PARTS]:
        name = text(event.get("event.name")) if isinstance(event, dict) else ""
        if name not in genai_events.ROLES:
            continue
        said, bare, complete = genai_events.said(name, event)
        field = "outputs" if name == genai_events.CHOICE else "inputs"
        found[field].extend(said)
        facts.withheld += (field,) if bare and field not in facts.withheld else ()
        facts.opaque |= any(part.type == "opaque" for turn in said for part in turn.parts)
        whole &= complete
    facts.inputs = tuple(found["inputs"])
    facts.outputs = tuple(found["outputs"]) or None
    facts.cut += () if whole else ("inputs",)
