"""OpenLLMetry (Traceloop): its SDK's decorators and its instrumentations, with messages numbered attribute by attribute
(up to 0.4x) or with the GenAI convention's content (since then; `genai` reads that part).

Source: traceloop/openllmetry, packages/traceloop-sdk/traceloop/sdk/decorators/base.py and
packages/opentelemetry-instrumentation-*. Content is on by default there, so a field that is missing was switched off.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from sidecar.core.semconv.content import arguments_of, is_marker, literal, result_of, structured, unquoted
from sidecar.core.semconv.facts import Facts, Part, Turn
from sidecar.core.semconv.genai import converse, count, failure, finished, offered
from sidecar.core.semconv.messages import turns
from sidecar.core.semconv.names import GENAI, IDENTITY, first, text
from sidecar.core.semconv.names import TRACELOOP as NAMES
from sidecar.core.span import Span

STORES = frozenset(("chroma", "chromadb", "pinecone", "qdrant", "milvus", "weaviate", "marqo", "lancedb"))
"""Values of `db.system` that are stores of documents an agent is given to read."""
MODEL_REQUESTS = frozenset(("chat", "completion"))
OTHER_REQUESTS = frozenset(("embedding", "embeddings", "rerank", "moderation"))
"""Values of `llm.request.type`: requests that a model answers with words, and such that it does not."""
REQUEST_KEYS = ("input", "query", "question", "prompt", "user_input", "user_message", "user_msg", "user_query",
                "message", "request", "text", "chat_input", "human_input", "query_str",
                "str_or_query_bundle")  # fmt: skip
"""What a workflow's parameter is called when it holds the words of the person who started it."""
ANSWER_KEYS = ("output", "answer", "response", "result", "final_output", "final_answer", "text", "content", "reply")
MAX_SEARCHED = 262_144
"""Characters of a step's output in which a tool's output is looked for."""
FAILURES = frozenset(("failure", "failed", "error"))

_PROMPTS = ("gen_ai.prompt.", "llm.prompts.")
_COMPLETIONS = ("gen_ai.completion.", "llm.completions.")
_FUNCTIONS = "llm.request.functions."
_NUMBERED = (*_PROMPTS, *_COMPLETIONS, _FUNCTIONS)
_CLAIMED = frozenset((
    "traceloop.span.kind", "traceloop.entity.input", "traceloop.entity.output", "gen_ai.task.kind", "gen_ai.task.name",
    "llm.request.type", "llm.usage.total_tokens", "gen_ai.prompt.0.role", "gen_ai.prompt.0.content",
    "gen_ai.prompt.0.user", "gen_ai.completion.0.role", "gen_ai.completion.0.content",
    "gen_ai.completion.0.finish_reason", "gen_ai.completion.role", "gen_ai.completion.content", "llm.prompts.0.role",
    "llm.prompts.0.content", "llm.prompts.0.user", "llm.completions.0.role", "llm.completions.0.content",
))  # fmt: skip
KEYS = _CLAIMED | {"db.system"}
_SPEAKERS = {"user": "user", "human": "user", "system": "system", "assistant": "assistant"}
_MESSAGE_KEYS = ("content", "tool_call_id", "function_call", "name", "reasoning", "reasoning_content")
MAX_FIELD_NAME = 96
"""Longest name of a numbered attribute; the places of 4096 such names are remembered."""
CALLS = "tool_calls."
"""Where the calls of a message that are numbered themselves are gathered; no field's name has a dot."""
_CALLBACK = frozenset(("tags", "metadata", "inputs", "kwargs"))
_SESSION_KEYS = ("session_id", "conversation_id", "thread_id", "chat_id")

Numbered = dict[int, dict[str, Any]]


class _Callback(Struct):
    """LangChain's wrapper round inputs, as far as it says whose they are; the rest is skipped, not built."""

    metadata: dict[str, Any] | None = None


_callback = msgspec.json.Decoder(_Callback).decode


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    if span.signal != "span":
        return False
    attributes = span.attributes
    if not _CLAIMED.isdisjoint(attributes):
        return True
    if span.dropped and any(name.startswith(_NUMBERED) for name in attributes):
        return True
    return "db.system" in attributes and _is_store(span)


def read(span: Span) -> Facts | None:
    """Facts of `span`."""
    attributes = span.attributes
    kind = attributes.get("traceloop.span.kind")
    if kind == "tool" or ("tool.arguments" in attributes and "tool.name" in attributes) or _is_tool_output(span):
        return _tool(span)
    request = text(attributes.get("llm.request.type"))
    numbers = _numbered(attributes)
    if request in MODEL_REQUESTS or (request not in OTHER_REQUESTS and (numbers[0] or numbers[1])):
        return _model(span, numbers)
    if _is_store(span):
        return _store(span)
    if kind in ("workflow", "agent"):
        return _run(span, kind)
    facts = Facts(kind="context")
    _whose(span, facts)
    return facts


# ------------------------------------------------------------ tools


def _tool(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(
        kind="tool",
        tool=text(first(get, NAMES["tool"])) or span.name.removesuffix(".tool").strip(),
        description=text(first(get, NAMES["description"])),
        call_id=text(first(get, GENAI["call_id"])),
        failed=span.status == 2 or "error.type" in span.attributes or text(get("gen_ai.task.status")) in FAILURES,
        gated=get("sidecar.gated") is True,
    )
    arguments, result = first(get, NAMES["arguments"]), first(get, NAMES["result"])
    if arguments is None or is_marker(arguments):
        facts.withheld += ("arguments",)
    else:
        _take_arguments(facts, arguments)
    if result is not None and not is_marker(result):
        _take_result(facts, result)
    elif facts.failed and (words := failure(span)) is not None:
        facts.result = words
    else:
        facts.withheld += ("result",)
    return facts


def _is_tool_output(span: Span) -> bool:
    """Whether a step of a workflow returned what LlamaIndex's tools return; its span calls it a task."""
    told = span.attributes.get("traceloop.entity.output")
    return isinstance(told, str) and len(told) <= MAX_SEARCHED and "raw_output" in told and "tool_name" in told


def _take_arguments(facts: Facts, told: Any) -> None:
    """Arguments without the wrapper of whoever called: LangChain's callback, an MCP client, a decorated function."""
    value, cut = structured(told)
    if isinstance(value, dict):
        if any(is_marker(value.get(name)) for name in ("kwargs", "inputs", "input_str", "arguments")):
            facts.withheld += ("arguments",)
            return
        if "input_str" in value and not _CALLBACK.isdisjoint(value):
            more = value.get("kwargs")
            if isinstance(more, dict) and not facts.call_id:
                facts.call_id = text(more.get("tool_call_id"))
            _take_metadata(facts, value.get("metadata"))
            inputs, words = value.get("inputs"), value.get("input_str")
            if isinstance(inputs, dict) and (inputs or words in ("", "{}", None)):
                facts.arguments = inputs
                return
        elif value.get("tool_name") == facts.tool and value.keys() <= {"tool_name", "arguments"}:
            value = value.get("arguments") if value.get("arguments") is not None else {}
    if is_marker(value):
        facts.withheld += ("arguments",)
        return
    facts.arguments, cut_within = arguments_of(value)
    if cut or cut_within:
        facts.cut += ("arguments",)
    if isinstance(facts.arguments, dict) and facts.arguments.keys() == {"args"}:  # one positional argument
        positional = facts.arguments["args"]
        if isinstance(positional, list) and len(positional) == 1 and isinstance(positional[0], str):
            facts.arguments = positional[0]
    if is_marker(facts.arguments):
        facts.arguments = None
        facts.withheld += ("arguments",)


def _take_result(facts: Facts, told: Any) -> None:
    value, cut = structured(unquoted(told))
    if cut:
        facts.cut += ("result",)
    if isinstance(value, dict):
        if "output" in value and value.keys() <= {"output", "kwargs"}:
            value = value["output"]
        elif "result" in value and value.keys() <= {"result", "is_error"}:
            facts.failed |= value.get("is_error") is True
            value = value["result"]
        elif "tool_name" in value and "raw_output" in value:
            _take_tool_output(facts, value)
            return
    elif isinstance(value, str) and value.strip() == "null":  # a function that returns nothing
        return
    update = value.get("update") if isinstance(value, dict) else None
    said = update.get("messages") if isinstance(update, dict) else None
    if isinstance(said, list) and said:  # LangGraph's Command: what the tool says stands in the state's new messages
        value = said[-1]
    message = value.get("kwargs") if isinstance(value, dict) and value.get("lc") is not None else value
    if isinstance(message, dict) and "tool_call_id" in message:
        facts.call_id = facts.call_id or text(message["tool_call_id"])
        facts.failed |= message.get("status") == "error"
    if isinstance(value, list) and value and all(_is_words(item) for item in value):
        value = "\n".join(item["content"] for item in value)
    value = result_of(value)
    if is_marker(value):
        facts.withheld += ("result",)
    else:
        facts.result = value


def _take_tool_output(facts: Facts, value: dict[str, Any]) -> None:
    """LlamaIndex's `ToolOutput`: the tool's name, what it was given and what it said."""
    facts.tool = text(value["tool_name"]) or facts.tool
    given = value.get("raw_input")
    if isinstance(given, dict) and not is_marker(value.get("content")):
        facts.arguments, _ = arguments_of(given)
        facts.withheld = tuple(field for field in facts.withheld if field != "arguments")
    said = value.get("content")
    facts.result = result_of(said if said is not None else value.get("blocks", value["raw_output"]))
    facts.failed |= value.get("is_error") is True


def _is_words(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("content"), str)


# ------------------------------------------------------------ calls of models


def _numbered(attributes: dict[str, Any]) -> tuple[Numbered, Numbered, Numbered]:
    """Prompts, completions and functions by their numbers.

    A field is ``N.role``, ``N.content``, ``N.tool_calls.M.arguments``…; an instrumentation that knows of one answer
    only leaves the number out.
    """
    found: tuple[Numbered, Numbered, Numbered] = ({}, {}, {})
    for name, value in attributes.items():
        if not name.startswith(_NUMBERED) or len(name) > MAX_FIELD_NAME or (place := _place(name)) is None:
            continue
        which, number, field, call = place
        message = found[which].setdefault(number, {})
        if call < 0:
            message[field] = value
        else:
            message.setdefault(CALLS, {}).setdefault(call, {})[field] = value
    return found


@lru_cache(maxsize=4096)  # the same few hundred names come with every call of every model
def _place(name: str) -> tuple[int, int, str, int] | None:
    """What a numbered attribute is: of a prompt, a completion or a function (0, 1, 2); its number; its field; and the
    number of the call within the message that it is a field of, -1 for none. None where it is no such attribute."""
    which = 0 if name.startswith(_PROMPTS) else 2 if name.startswith(_FUNCTIONS) else 1
    words = name.split(".")[3 if which == 2 else 2 :]
    if words in (["role"], ["content"]):
        words.insert(0, "0")
    number = _number(words[0])
    if number < 0 or len(words) < 2:
        return None
    if len(words) == 2:
        return which, number, words[1], -1
    if words[1] == "tool_calls" and len(words) > 3 and (call := _number(words[2])) >= 0:
        return which, number, words[-1], call
    return (which, number, words[-1], 0) if words[1] == "function_call" else None


def _number(word: str) -> int:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 6 else -1


def _messages(found: Numbered, *, headless: bool) -> list[dict[str, Any]]:
    """Numbered fields as messages in order. `headless`: the first may have lost fields; then it is left out if nobody
    knows whose words they are."""
    said: list[dict[str, Any]] = []
    for place, number in enumerate(sorted(found)):
        fields = found[number]
        message = {key: fields[key] for key in _MESSAGE_KEYS if key in fields}
        role = fields.get("role")
        if role is None:
            for key, speaker in _SPEAKERS.items():
                if key in fields:
                    role, message["content"] = speaker, fields[key]
                    break
        calls = fields.get("tool_calls")
        if (numbered := fields.get(CALLS)) is not None:
            calls = [_call(numbered[at]) for at in sorted(numbered)]
        if calls is not None:
            message["tool_calls"] = calls
        if role is None and headless and place == 0:
            if "tool_call_id" not in fields and calls is None:
                continue
            role = "tool" if "tool_call_id" in fields else "assistant"
        if role is not None:
            message["role"] = role
        if role in ("thinking", "reasoning") and isinstance(thought := fields.get("content"), str):
            message = {"role": "assistant", "parts": [{"type": "reasoning", "content": thought}]}
        else:
            message["content"] = _content(message.get("content"), role)
        said.append({"role": "", **message})
    return said


def _call(fields: dict[str, Any]) -> dict[str, Any]:
    """A call whose name and arguments may stand together in one JSON text, ``function``."""
    told = fields.get("function")
    return {**fields, "function": structured(told)[0]} if isinstance(told, str) else fields


def _content(told: Any, role: Any) -> Any:
    """Content that is JSON of a text or of blocks as that. What a person says never holds calls, whatever it says."""
    if not isinstance(told, str) or told[:2] not in ("[{", "[ ", "[]"):
        return unquoted(told)
    blocks, _ = structured(told)
    if not (isinstance(blocks, list) and all(_is_block(item) for item in blocks)):
        return told
    if role in ("user", "human") and any("toolUse" in item or item.get("type") == "tool_use" for item in blocks):
        return told
    return blocks


def _is_block(item: Any) -> bool:
    return isinstance(item, dict) and not _BLOCK_KEYS.isdisjoint(item)


_BLOCK_KEYS = frozenset(("type", "text", "toolUse", "toolResult", "image", "document"))


def _model(span: Span, numbers: tuple[Numbered, Numbered, Numbered]) -> Facts:
    get = span.attributes.get
    prompts, completions, functions = numbers
    facts = Facts(kind="model", model=text(first(get, NAMES["model"])), failed=span.status == 2)
    asked = _messages(prompts, headless=bool(span.dropped))
    answered = _messages(completions, headless=False)
    converse(facts, inputs=_told(asked), outputs=_told(answered))
    if facts.failed and facts.outputs is None:
        facts.withheld = tuple(field for field in facts.withheld if field != "outputs")
    reasons = [completions[number]["finish_reason"] for number in sorted(completions)
               if completions[number].get("finish_reason")]  # fmt: skip
    facts.finish = finished(reasons or first(get, NAMES["finish"]))
    facts.input_tokens = count(first(get, NAMES["input_tokens"]))
    facts.output_tokens = count(first(get, NAMES["output_tokens"]))
    named = [functions[number].get("name") for number in sorted(functions)]
    if named:
        facts.tools = tuple(name for name in named if isinstance(name, str))
    elif (told := first(get, NAMES["tools"])) is not None:
        facts.tools = offered(told)
    if span.dropped:
        facts.cut += _missing(prompts, completions)
    _whose(span, facts)
    return facts


def _told(said: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """None where nothing is told, or nothing but redaction markers."""
    if not said or all(is_marker(message.get("content")) and "tool_calls" not in message for message in said):
        return None
    return said


def _missing(prompts: Numbered, completions: Numbered) -> tuple[str, ...]:
    """Which content fields lack more than the oldest messages of the history, with which an SDK that is out of room
    begins: the numbers of what is left must have no gap, and no answer or call of an answer may be missing."""
    gaps: tuple[str, ...] = ()
    if prompts and len(prompts) != max(prompts) - min(prompts) + 1:
        gaps += ("inputs",)
    calls = [message[CALLS] for message in completions.values() if CALLS in message]
    if any(found and len(found) != max(found) + 1 for found in (completions, *calls)):
        gaps += ("outputs",)
    return gaps


# ------------------------------------------------------------ workflows, agents, tasks


def _run(span: Span, kind: str) -> Facts:
    """A workflow or an agent: who asked for what, and what came of it.

    An entity within another one is handed its words by the program, not by a person: its input is left alone.
    """
    get = span.attributes.get
    facts = Facts(kind="agent", failed=span.status == 2)
    if kind == "agent" and "gen_ai.agent.name" not in span.attributes:
        facts.agent_name = text(get("traceloop.entity.name"))
    told, answer = get("traceloop.entity.input"), get("traceloop.entity.output")
    if told is None and answer is None and kind == "workflow":
        return Facts(kind="context")
    value, cut = structured(told)
    if told is None or is_marker(told):
        facts.withheld += ("inputs",)
    else:
        if isinstance(value, dict) and "inputs" in value:
            _take_metadata(facts, value.get("metadata"))
            value = value["inputs"]
        if not get("traceloop.entity.path"):
            facts.inputs = request_of(arguments_of(value)[0] if isinstance(value, dict) else value)
            facts.cut += ("inputs",) if cut else ()
    if answer is None or is_marker(answer):
        facts.withheld += ("outputs",) if not facts.failed else ()
    else:
        value, cut = structured(answer)
        if isinstance(value, dict) and "outputs" in value:
            value = value["outputs"]
        facts.outputs = answer_of(value)
        facts.cut += ("outputs",) if cut else ()
    return facts


def request_of(value: Any) -> tuple[Turn, ...] | None:
    """The words with which a run was started, None where none can be told from its parameters."""
    if isinstance(value, dict):
        if isinstance(told := value.get("messages"), (list, dict)):
            value = told
        elif isinstance(told := value.get("args"), list) and len(told) == 1:
            value = told[0]
            if isinstance(value, dict):
                return request_of({key: item for key, item in value.items() if key != "args"})
        else:
            value = next((value[key] for key in REQUEST_KEYS if isinstance(value.get(key), (str, dict))), None)
            value = value.get("query_str", value.get("content")) if isinstance(value, dict) else value
    if isinstance(value, str):
        if not value.strip() or is_marker(value):
            return None
        return (Turn("user", (Part("text", value),)),)
    if not isinstance(value, list) or not all(isinstance(item, (dict, list)) for item in value):
        return None
    said = turns(value, "user")[0]
    since = 1 + max((at for at, turn in enumerate(said) if turn.role == "assistant"), default=-1)
    return tuple(turn for turn in said[since:] if turn.role in ("user", "system")) or None


def answer_of(value: Any) -> tuple[Turn, ...] | None:
    """What a run answered, None where no text can be told from what it returned."""
    value = result_of(value)
    if isinstance(value, dict):
        if isinstance(told := value.get("messages"), list):
            value = told
        else:
            value = next((value[key] for key in ANSWER_KEYS if isinstance(value.get(key), str)), None)
    if isinstance(value, list):
        said = turns(value[-1:], "assistant")[0]
        last = tuple(part for turn in said if turn.role == "assistant" for part in turn.parts if part.type == "text")
        return (Turn("assistant", last),) if last else None
    if not isinstance(value, str) or not value.strip() or value == "null" or is_marker(value):
        return None
    return (Turn("assistant", (Part("text", value),)),)


def _whose(span: Span, facts: Facts) -> None:
    """Session and user where only the wrapper round an input tells of them."""
    get = span.attributes.get
    facts.user = facts.user or text(first(get, NAMES["user"]))
    told = get("traceloop.entity.input")
    if not isinstance(told, str) or '"metadata"' not in told or first(get, IDENTITY["session"]) is not None:
        return
    try:
        _take_metadata(facts, _callback(told).metadata)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return


def _take_metadata(facts: Facts, metadata: Any) -> None:
    if not isinstance(metadata, dict):
        return
    if not facts.session and isinstance(told := first(metadata.get, _SESSION_KEYS), str):
        facts.session = told
    facts.user = facts.user or text(metadata.get("user_id"))
    facts.agent_name = facts.agent_name or text(metadata.get("lc_agent_name"))


# ------------------------------------------------------------ stores of documents


def _is_store(span: Span) -> bool:
    system = span.attributes.get("db.system")
    return isinstance(system, str) and system in STORES


def _store(span: Span) -> Facts:
    """A read of a store that tells what it found is a tool's: what it found are words of the outside. Deleting is an
    act too. What is put in, and reads that tell nothing, are not."""
    get = span.attributes.get
    operation = text(get("db.operation")) or span.name.rsplit(".", 1)[-1]
    found = [
        {name.rsplit(".", 1)[-1]: literal(value) for name, value in event.attributes.items()
         if not name.endswith((".vector", ".score", ".distance"))}
        for event in span.events if event.name in ("db.query.result", "db.search.result")
    ]  # fmt: skip
    if not found and not operation.startswith(("delete", "drop", "remove")):
        return Facts(kind="context")
    system = text(get("db.system"))
    facts = Facts(kind="tool", tool=f"{system}.{operation}", failed=span.status == 2, result=found or None)
    told = {name.rsplit(".", 1)[-1]: value for name, value in span.attributes.items()
            if name.startswith((f"db.{system}.", f"{system}.", "db.vector."))}  # fmt: skip
    facts.arguments = told or None
    if facts.failed and not found:
        facts.result = failure(span)
    return facts
