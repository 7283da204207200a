"""OpenTelemetry's GenAI semantic conventions: spans, and the event `gen_ai.client.inference.operation.details`.

Home of the conventions: open-telemetry/semantic-conventions-genai (status Development). Content attributes are
opt-in there, so a missing one is withheld, not absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sidecar.core.semconv.content import arguments_of, is_marker, result_of, structured
from sidecar.core.semconv.facts import Facts, Turn
from sidecar.core.semconv.messages import turns
from sidecar.core.semconv.names import GENAI as NAMES
from sidecar.core.semconv.names import event_name, first, text
from sidecar.core.span import Span

KEYS = frozenset(("gen_ai.operation.name", "gen_ai.tool.name"))
MODEL_OPERATIONS = frozenset(("chat", "generate_content", "text_completion", "fetch_response",
                              "chat.completions", "text.completions"))  # fmt: skip
AGENT_OPERATIONS = frozenset(("invoke_agent", "invoke_workflow", "plan"))
MERGED_TOOLS = "(merged tools)"
"""Name of a span that tells once more, together, the results of tools that ran side by side (Google ADK)."""
DETAILS_EVENT = "gen_ai.client.inference.operation.details"

_MEMORY = "_memory"
_WATCHING = frozenset(("guardrail", "guardrails", "gate", "security", "approval", "evaluate", "evaluation", "handoff",
                       "embeddings", "create"))  # fmt: skip
"""Words of operations that are no act themselves."""


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    if span.signal == "log":
        return event_name(span) == DETAILS_EVENT
    return "gen_ai.operation.name" in span.attributes or "gen_ai.tool.name" in span.attributes


def read(span: Span) -> Facts | None:
    """Facts of `span`, None where this convention does not know its operation.

    One that is no act (a guardrail, an evaluation, a handoff; some are proposals) is context.
    """
    attributes = span.attributes
    operation = text(attributes.get("gen_ai.operation.name"))
    if attributes.get("langsmith.span.kind") == "prompt":  # LangSmith calls the filling of a template "chat"
        return Facts(kind="context")
    if operation in MODEL_OPERATIONS or (not operation and span.signal == "log"):
        return _model(span)
    if operation in AGENT_OPERATIONS:
        facts = Facts(kind="agent", model=text(first(attributes.get, NAMES["model"])), failed=span.status == 2)
        _conversation(span, facts)
        return facts
    if operation == "execute_tool" or (not operation and "gen_ai.tool.name" in attributes):
        return _tool(span) if attributes.get("gen_ai.tool.name") != MERGED_TOOLS else Facts(kind="context")
    if operation == "retrieval" or operation.endswith((_MEMORY, "_memory_store")):
        return _retrieval(span, operation)
    return Facts(kind="context") if not _WATCHING.isdisjoint(operation.split("_")) else None


def _tool(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(
        kind="tool",
        tool=text(first(get, NAMES["tool"])) or span.name.removeprefix("execute_tool ").strip(),
        description=text(first(get, NAMES["description"])),
        call_id=text(first(get, NAMES["call_id"])),
        failed=span.status == 2 or "error.type" in span.attributes,
        gated=get("sidecar.gated") is True,
    )
    tell(facts, arguments=first(get, NAMES["arguments"]), result=first(get, NAMES["result"]))
    return facts


def tell(facts: Facts, *, arguments: Any, result: Any) -> None:
    """Takes content of a tool call as its convention tells it; None and redaction markers are withheld."""
    if arguments is None or is_marker(arguments):
        facts.withheld += ("arguments",)
    else:
        facts.arguments, cut = arguments_of(arguments)
        facts.cut += ("arguments",) if cut else ()
    if result is None or is_marker(result):
        facts.withheld += ("result",)
    else:
        facts.result = result_of(result)


def failure(span: Span) -> str | None:
    """The words of an error: the exception's message, else the status message; its type alone says too little."""
    for event in span.events:
        if event.name == "exception" and (said := event.attributes.get("exception.message")):
            return text(said)
    return span.status_message or None


def _retrieval(span: Span, operation: str) -> Facts:
    """Memory and retrieval are tools that the framework calls for the agent."""
    documents, cut = structured(first(span.attributes.get, NAMES["documents"]))
    arguments = {name.removeprefix("gen_ai."): value for name, value in span.attributes.items()
                 if name.startswith(("gen_ai.memory.", "gen_ai.retrieval.query", "gen_ai.data_source."))}  # fmt: skip
    facts = Facts(kind="tool", tool=operation, arguments=arguments or None, result=documents, failed=span.status == 2)
    if not arguments:
        facts.withheld += ("arguments",)
    if cut:
        facts.cut += ("result",)
    return facts


def _model(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(kind="model", model=text(first(get, NAMES["model"])), failed=span.status == 2)
    _conversation(span, facts)
    facts.finish = finished(first(get, NAMES["finish"]) or get("anthropic.message.stop_reason"))
    facts.input_tokens = count(first(get, NAMES["input_tokens"]))
    facts.output_tokens = count(first(get, NAMES["output_tokens"]))
    return facts


def finished(told: Any) -> tuple[str, ...]:
    """Finish reasons, lower-case, however they are told: a list, JSON of one, a text, ``FinishReason.STOP``."""
    told, _ = structured(told)
    reasons = told if isinstance(told, (list, tuple)) else () if told is None else (told,)
    return tuple(text(reason).rsplit(".", 1)[-1].lower() for reason in reasons if reason)


def _conversation(span: Span, facts: Facts) -> None:
    get = span.attributes.get
    converse(facts, inputs=first(get, NAMES["inputs"]), outputs=first(get, NAMES["outputs"]),
             system=first(get, NAMES["system"]), tools=first(get, NAMES["tools"]))  # fmt: skip


def converse(facts: Facts, *, inputs: Any, outputs: Any, system: Any = None, tools: Any = None) -> None:
    """Takes messages as their convention tells them; None and redaction markers are withheld."""
    for field, role, told in (("inputs", "user", inputs), ("outputs", "assistant", outputs)):
        if told is None or is_marker(told):
            facts.withheld += (field,)
            continue
        said, whole = turns(told, role)
        if not whole:
            facts.cut += (field,)
        elif field == "outputs" and not said and told in _NONE:  # a model always answers something
            facts.withheld += (field,)
            continue
        facts.opaque |= is_opaque(said)
        if said and not tells(said):  # roles and names without their content
            facts.withheld += (field,)
        setattr(facts, field, said)
    if system is not None:
        facts.system = tuple(part.text for turn in turns(system, "system")[0] for part in turn.parts if part.text)
    if tools is not None:
        facts.tools = offered(tools)


_NONE: Final[tuple[Any, ...]] = ([], (), "[]")


def tells(said: Iterable[Turn]) -> bool:
    """Whether messages have content: a text, arguments, a result, or something that cannot be read."""
    for turn in said:
        for part in turn.parts:
            if part.text or part.value is not None or part.type == "opaque":
                return True
    return False


def is_opaque(said: Iterable[Turn]) -> bool:
    """Whether some part of messages is content that nobody here can read."""
    for turn in said:  # a long history comes with every call of a model
        for part in turn.parts:
            if part.type == "opaque":
                return True
    return False


def offered(told: Any) -> tuple[str, ...]:
    """Names of the tools in a list of definitions, whatever shape they have."""
    value, _ = structured(told)
    if isinstance(value, dict):
        value = value.get("tools", [value])
    names = []
    for item in value if isinstance(value, (list, tuple)) else ():
        item = structured(item)[0]
        if isinstance(item, dict):
            inner = item.get("function", item.get("toolSpec"))
            name = (inner if isinstance(inner, dict) else item).get("name")
            if isinstance(name, str):
                names.append(name)
        elif isinstance(item, str):
            names.append(item)
    return tuple(names)


def count(value: Any) -> int:
    """A number of tokens, -1 where there is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else -1
