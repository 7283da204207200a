"""OpenTelemetry's GenAI semantic conventions: spans, and the event `gen_ai.client.inference.operation.details`.

Home of the conventions: open-telemetry/semantic-conventions-genai (status Development). Content attributes are
opt-in there, so a missing one is withheld, not absent. What the names meant earlier stands in `NAMES`, one line a
field: a renamed attribute is a change of that line.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.semconv.facts import MAX_PARTS, Facts, Part, Turn, structured
from sidecar.core.span import Span, is_cut

NAMES: dict[str, tuple[str, ...]] = {
    "operation": ("gen_ai.operation.name",),
    "session": ("gen_ai.conversation.id",),
    "parent_session": ("sidecar.session.parent_id",),
    "agent_name": ("gen_ai.agent.name",),
    "agent_id": ("gen_ai.agent.id",),
    "agent_version": ("gen_ai.agent.version",),
    "user": ("user.id", "enduser.id"),
    "tool": ("gen_ai.tool.name",),
    "description": ("gen_ai.tool.description",),
    "call_id": ("sidecar.call.id", "gen_ai.tool.call.id"),
    "arguments": ("gen_ai.tool.call.arguments",),
    "result": ("gen_ai.tool.call.result",),
    "inputs": ("gen_ai.input.messages",),
    "outputs": ("gen_ai.output.messages",),
    "system": ("gen_ai.system_instructions",),
    "tools": ("gen_ai.tool.definitions",),
    "model": ("gen_ai.response.model", "gen_ai.request.model"),
    "finish": ("gen_ai.response.finish_reasons",),
    "input_tokens": ("gen_ai.usage.input_tokens",),
    "output_tokens": ("gen_ai.usage.output_tokens",),
    "query": ("gen_ai.retrieval.query.text",),
    "documents": ("gen_ai.retrieval.documents",),
}
MODEL_OPERATIONS = frozenset(("chat", "generate_content", "text_completion", "fetch_response"))
AGENT_OPERATIONS = frozenset(("invoke_agent", "create_agent", "invoke_workflow", "plan"))
DETAILS_EVENT = "gen_ai.client.inference.operation.details"

_MEMORY = "_memory"
_PARTS = {"text": "text", "reasoning": "reasoning", "thinking": "reasoning", "tool_call": "call",
          "server_tool_call": "call", "tool_call_response": "response", "server_tool_call_response": "response",
          "compaction": "text", "blob": "opaque", "file": "opaque", "uri": "opaque"}  # fmt: skip


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    attributes = span.attributes
    if "gen_ai.operation.name" in attributes or "gen_ai.tool.name" in attributes:
        return span.signal == "span" or span.name == DETAILS_EVENT or attributes.get("event.name") == DETAILS_EVENT
    return False


def read(span: Span, facts: Facts | None) -> Facts | None:
    """Facts of `span`; those found already by an earlier mapper stay."""
    if facts is not None:
        return facts
    get = span.attributes.get
    operation = _text(get("gen_ai.operation.name"))
    if operation in MODEL_OPERATIONS:
        facts = _model(span)
    elif operation in AGENT_OPERATIONS:
        facts = _agent(span)
    elif operation == "execute_tool" or "gen_ai.tool.name" in span.attributes:
        facts = _tool(span)
    elif operation == "retrieval" or operation.endswith((_MEMORY, "_memory_store")):
        facts = _retrieval(span, operation)
    else:
        return None
    facts.session = _text(_first(get, "session"))
    facts.parent_session = _text(_first(get, "parent_session"))
    facts.agent_name = _text(_first(get, "agent_name"))
    facts.agent_id = _text(_first(get, "agent_id"))
    facts.agent_version = _text(_first(get, "agent_version"))
    facts.user = _text(_first(get, "user"))
    if span.dropped:
        facts.unscored += ("overflow",)
    if span.notes and is_cut(span):
        facts.unscored += ("cut",)
    return facts


def _first(get: Any, field: str) -> Any:
    for name in NAMES[field]:
        if (value := get(name)) is not None:
            return value
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _tool(span: Span) -> Facts:
    get = span.attributes.get
    arguments, cut = structured(_first(get, "arguments"))
    result, _ = structured(_first(get, "result"))
    facts = Facts(
        kind="tool",
        tool=_text(_first(get, "tool")) or span.name.removeprefix("execute_tool ").strip(),
        description=_text(_first(get, "description")),
        call_id=_text(_first(get, "call_id")),
        arguments=arguments,
        result=result,
        failed=span.status == 2 or "error.type" in span.attributes,
        gated=get("sidecar.gated") is True,
    )
    if cut:
        facts.unscored += ("cut",)
    if facts.failed and result is None:
        facts.result = failure(span)
    if arguments is None:
        facts.withheld += ("arguments",)
        facts.unscored += ("withheld",)
    if facts.result is None and arguments is None:
        facts.withheld += ("result",)
    return facts


def failure(span: Span) -> str | None:
    """The words of an error: the exception's message, else the status message, else the error's type."""
    for event in span.events:
        if event.name == "exception" and (said := event.attributes.get("exception.message")):
            return _text(said)
    return span.status_message or _text(span.attributes.get("error.type")) or None


def _retrieval(span: Span, operation: str) -> Facts:
    """Memory and retrieval are tools that the framework calls for the agent."""
    get = span.attributes.get
    documents, cut = structured(_first(get, "documents"))
    arguments = {name.removeprefix("gen_ai."): value for name, value in span.attributes.items()
                 if name.startswith(("gen_ai.memory.", "gen_ai.retrieval.query", "gen_ai.data_source."))}  # fmt: skip
    facts = Facts(kind="tool", tool=operation, arguments=arguments or None, result=documents, failed=span.status == 2)
    if not arguments:
        facts.withheld += ("arguments",)
        facts.unscored += ("withheld",)
    if cut:
        facts.unscored += ("cut",)
    return facts


def _model(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(kind="model", model=_text(_first(get, "model")), failed=span.status == 2)
    _conversation(span, facts)
    finish = _first(get, "finish")
    if isinstance(finish, str):
        finish, _ = structured(finish)
    if isinstance(finish, str):
        finish = [finish]
    facts.finish = tuple(_text(f).lower() for f in finish) if isinstance(finish, list) else ()
    if not facts.finish:  # the Anthropic SDK's own spans
        facts.finish = tuple(_text(f).lower() for f in (get("anthropic.message.stop_reason"),) if f)
    facts.input_tokens = _count(_first(get, "input_tokens"))
    facts.output_tokens = _count(_first(get, "output_tokens"))
    return facts


def _agent(span: Span) -> Facts:
    facts = Facts(kind="agent", model=_text(_first(span.attributes.get, "model")), failed=span.status == 2)
    _conversation(span, facts)
    return facts


def _conversation(span: Span, facts: Facts) -> None:
    get = span.attributes.get
    for field in ("inputs", "outputs"):
        told = _first(get, field)
        if told is None:
            facts.withheld += (field,)
            continue
        value, cut = structured(told)
        turns, whole = _turns(value, "user" if field == "inputs" else "assistant")
        if cut or not whole:
            facts.unscored += ("cut" if cut else "opaque",)
        setattr(facts, field, turns)
    told = _first(get, "system")
    if told is not None:
        value, _ = structured(told)
        facts.system = tuple(part.text for turn in _turns(value, "system")[0] for part in turn.parts if part.text)
    told = _first(get, "tools")
    if told is not None:
        value, _ = structured(told)
        facts.tools = (
            tuple(_text(item.get("name")) for item in value if isinstance(item, dict))
            if isinstance(value, list)
            else ()
        )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else -1


def _turns(value: Any, role: str) -> tuple[tuple[Turn, ...], bool]:
    """Messages as turns, and whether all of it could be read.

    Takes ``[{role, parts: [...]}]``, ``[{role, content}]``, a bare list of parts, one message, or a bare text.
    """
    if isinstance(value, str):
        return ((Turn(role, (Part("text", value),)),) if value else ()), True
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return (), value is None
    turns: list[Turn] = []
    loose: list[Part] = []
    whole, room = True, MAX_PARTS
    for item in value:
        if isinstance(item, dict) and ("parts" in item or "role" in item):
            told = item.get("parts", item.get("content"))
            if isinstance(told, str):
                told = [told]
            parts = tuple(map(part, told[:room])) if isinstance(told, list) else ()
            whole &= (isinstance(told, list) and len(told) <= room) or told is None
            room -= len(parts)
            turns.append(Turn(_text(item.get("role")) or role, parts))
        elif room > 0:
            loose.append(part(item))
            room -= 1
        if room <= 0:
            return tuple(turns), False
    if loose:
        turns.append(Turn(role, tuple(loose)))
    return tuple(turns), whole


def part(item: Any) -> Part:
    """One part of a message, whatever convention's names it uses."""
    if isinstance(item, str):
        return Part("text", item)
    if not isinstance(item, dict):
        return Part("opaque")
    kind = _PARTS.get(_text(item.get("type")), "")
    if not kind:
        kind = "text" if isinstance(item.get("content", item.get("text")), str) else "opaque"
    if kind in ("text", "reasoning"):
        words = item.get("content", item.get("text", item.get("thinking")))
        return Part(kind, words) if isinstance(words, str) else Part("opaque")  # type: ignore[arg-type]
    if kind == "call":
        arguments, cut = structured(item.get("arguments"))
        return Part("call", id=_text(item.get("id")), name=_text(item.get("name")), value=arguments, cut=cut)
    if kind == "response":
        answer = item.get("response", item.get("result"))
        return Part("response", id=_text(item.get("id")), name=_text(item.get("name")), value=structured(answer)[0])
    return Part("opaque")
