"""OpenInference: what Arize's instrumentors and everybody who writes for Phoenix emit.

Specification: Arize-ai/openinference, ``spec/semantic_conventions.md``. Lists are flattened into indexed attributes
(``llm.input_messages.3.message.tool_calls.0.tool_call.id``), so a long history overflows an SDK's attribute limit: what
is left is read in order. Content is on by default; ``__REDACTED__`` stands for what a sender hides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.core.semconv.content import arguments_of, is_marker, literal, result_of, structured
from sidecar.core.semconv.facts import MAX_PARTS, Facts, Part, Turn, plain_text
from sidecar.core.semconv.genai import count, failure, finished, offered
from sidecar.core.semconv.messages import turns
from sidecar.core.semconv.names import IDENTITY, first, text
from sidecar.core.semconv.names import OPENINFERENCE as NAMES
from sidecar.core.span import Span

KIND = "openinference.span.kind"
MAX_METADATA = 65_536
"""Characters of a span's metadata that are searched for whose it is."""
MAX_DIGITS = 6
"""Digits of an index; more are nobody's message."""
MAX_DEPTH = 4
"""Layers round the text of an agent's input or output that are opened."""

_INPUTS, _OUTPUTS, _TOOLS = "llm.input_messages.", "llm.output_messages.", "llm.tools."
_PROMPTS, _CHOICES = "llm.prompts.", "llm.choices."
_DOCUMENTS = "retrieval.documents."
# The specification's kind is required, and still the first to go when attributes overflow: it may have been set first.
_LATE = ("llm.output_messages.0.message.role", "llm.model_name", "llm.input_messages.0.message.role")

KEYS = frozenset((KIND, "tool.name", *_LATE))


def claims(span: Span) -> bool:
    """Whether `span` speaks this convention."""
    attributes = span.attributes
    if KIND in attributes:
        return span.signal == "span"
    if span.signal != "span":
        return False
    return any(name in attributes for name in _LATE) or ("tool.name" in attributes and "input.value" in attributes)


def read(span: Span) -> Facts | None:
    """Facts of `span`; a kind nobody knows is context."""
    kind = text(span.attributes.get(KIND)).upper()
    if kind == "TOOL" or (kind in ("", "LLM") and _is_tool(span, kind)):
        facts = _tool(span)
    elif kind == "LLM" or not kind:
        facts = _model(span)
    elif kind == "AGENT" or (kind == "CHAIN" and (not span.parent_id or "crew_tasks" in span.attributes)):
        facts = _run(span, kind)
    elif kind == "RETRIEVER":
        facts = _retrieval(span)
    else:
        facts = Facts(kind="context", failed=span.status == 2)
    _identity(span, facts, kind)
    return facts


# ---------------------------------------------------------------- tools


def _is_tool(span: Span, kind: str) -> bool:
    """Whether a span without a kind, or one that a converter calls a model's whatever it is, is a tool's."""
    if span.attributes.get("gen_ai.operation.name") == "execute_tool":
        return True
    return not kind and "tool.name" in span.attributes and "llm.model_name" not in span.attributes


def _tool(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(
        kind="tool",
        tool=text(first(get, NAMES["tool"])) or span.name.removesuffix(".__call__"),
        description=text(first(get, NAMES["description"])),
        call_id=text(first(get, NAMES["call_id"])),
        failed=span.status == 2,
        gated=get("sidecar.gated") is True,
    )
    _arguments(facts, first(get, NAMES["inputs"]), get("tool.parameters"))
    if isinstance(facts.arguments, dict) and (schema := get("tool.json_schema")) is not None:
        facts.arguments = _unwrapped(facts.arguments, schema)
    if _is_final_answer(facts.tool, facts.arguments, get("tool.parameters")):
        return Facts(kind="context", tool=facts.tool)  # smolagents; the model's call and the run tell the answer
    told = first(get, NAMES["outputs"])
    if told is not None and not is_marker(told):
        _result(facts, told)
    elif facts.failed and told is None and (words := failure(span)) is not None:
        facts.result = words
    else:
        facts.withheld += ("result",)
    return facts


def _arguments(facts: Facts, told: Any, parameters: Any) -> None:
    """`parameters` are the arguments in some instrumentors, the schema of them in others."""
    if told is not None and not is_marker(told):
        value, cut = arguments_of(told)
        if isinstance(value, dict) and value.keys() == {"kwargs"} and isinstance(value["kwargs"], dict):
            value = value["kwargs"]  # LlamaIndex
        if isinstance(value, str) and (parameters := _values(parameters)):
            value, cut = parameters, False
    elif parameters := _values(parameters):
        value, cut = parameters, False
    else:
        value, cut = None, False
    if value is None or is_marker(value):
        facts.withheld += ("arguments",)
        return
    facts.arguments = value
    facts.cut += ("arguments",) if cut else ()


def _unwrapped(arguments: dict[str, Any], schema: Any) -> dict[str, Any]:
    """Arguments without what a framework's own call puts round them, where the tool's schema tells the two apart."""
    told = structured(schema)[0]
    known = told.get("properties") if isinstance(told, dict) else None
    if not isinstance(known, dict) or not known or not known.keys().isdisjoint(arguments):
        return arguments
    inner = [
        value for value in arguments.values() if isinstance(value, dict) and value and value.keys() <= known.keys()
    ]
    return inner[0] if len(inner) == 1 else arguments


def _values(parameters: Any) -> dict[str, Any] | None:
    """What ``tool.parameters`` holds if these are the arguments of a call, None if it is a schema or nothing."""
    if is_marker(parameters):
        return None
    value = arguments_of(parameters)[0]
    if not isinstance(value, dict) or not value or any(is_marker(item) for item in value.values()):
        return None
    if isinstance(value.get("properties"), dict) or "$schema" in value or "json_schema" in value:
        return None
    if value.get("type") in ("object", "function"):
        return None
    if all(isinstance(item, dict) and ("type" in item or "anyOf" in item or "$ref" in item) for item in value.values()):
        return None
    return value


def _result(facts: Facts, told: Any) -> None:
    value, _ = structured(told)
    for _ in range(MAX_DEPTH):
        if not isinstance(value, dict):
            break
        if not facts.call_id:
            facts.call_id = text(value.get("tool_call_id"))
        if value.get("status") == "error" or value.get("isError") is True or value.get("is_error") is True:
            facts.failed = True
        if "content" in value and value.keys() <= _TOOL_MESSAGE:
            value = value["content"]
            break
        if isinstance(value.get("data"), dict) and "content" in value["data"] and "type" in value:
            value = value["data"]  # LangChain: {"type": "tool", "data": {"content": …, "tool_call_id": …}}
        elif isinstance(value.get("kwargs"), dict) and value.get("lc") is not None:
            value = value["kwargs"]
        elif "raw_output" in value and "tool_name" in value:
            value = value.get("content") or value["raw_output"]  # LlamaIndex: ToolOutput
        elif "response" in value and value.keys() <= _RESPONSE:
            value = value["response"]  # Gemini: {"id": …, "name": …, "response": {…}}
        elif value.keys() <= {"output", "tool_call_id"} and isinstance(value.get("output"), (dict, str)):
            value = structured(value["output"])[0]
        else:
            break
    if isinstance(value, str) and value.startswith("content=") and not facts.call_id:
        facts.call_id = value.rpartition("tool_call_id='")[2].partition("'")[0] if "tool_call_id='" in value else ""
    value = result_of(value)
    facts.result = None if is_marker(value) else value
    if facts.result is None:
        facts.withheld += ("result",)


_TOOL_MESSAGE = {"content", "status", "type", "name", "id", "tool_call_id", "toolUseId", "artifact", "isError",
                 "is_error", "additional_kwargs", "response_metadata"}  # fmt: skip
_RESPONSE = {"id", "name", "response", "will_continue", "scheduling", "parts"}


def _is_final_answer(tool: str, arguments: Any, parameters: Any) -> bool:
    """Whether a call is the way in which smolagents' agents say their last word."""
    if tool != "final_answer":
        return False
    if isinstance(arguments, dict):
        return arguments.keys() <= {"answer", "args"}
    told = structured(parameters)[0]
    return isinstance(arguments, str) or (isinstance(told, dict) and told.keys() == {"answer"})


def _retrieval(span: Span) -> Facts:
    """A retrieval is a tool that the framework calls for the agent."""
    attributes = span.attributes
    facts = Facts(kind="tool", tool="retrieval", failed=span.status == 2)
    _arguments(facts, attributes.get("input.value"), None)
    documents: dict[int, str] = {}
    for key, value in attributes.items():
        if not (key.startswith(_DOCUMENTS) and key.endswith(".document.content")):
            continue
        if (number := _index(key[len(_DOCUMENTS) :].partition(".")[0])) is not None:
            documents[number] = text(value)
    told = attributes.get("output.value")
    if documents and not all(map(is_marker, documents.values())):
        facts.result = [documents[number] for number in sorted(documents) if not is_marker(documents[number])]
    elif told is not None and not is_marker(told):
        facts.result = result_of(told)
    elif facts.failed and (words := failure(span)) is not None:
        facts.result = words
    else:
        facts.withheld += ("result",)
    return facts


# ---------------------------------------------------------------- models


def _model(span: Span) -> Facts:
    get = span.attributes.get
    facts = Facts(
        kind="model",
        model=text(first(get, NAMES["model"])),
        finish=finished(first(get, NAMES["finish"])),
        input_tokens=count(first(get, NAMES["input_tokens"])),
        output_tokens=count(first(get, NAMES["output_tokens"])),
        failed=span.status == 2,
    )
    inputs, outputs, tools = _messages(span, facts)
    if inputs is None:
        inputs = _raw(facts, "inputs", get("input.value"))
    if outputs is None:
        outputs = _raw(facts, "outputs", get("output.value"))
    _converse(facts, inputs, outputs)
    if facts.failed and get("output.value") is None:
        facts.withheld = tuple(field for field in facts.withheld if field != "outputs")  # there is none
    if tools:
        facts.tools = offered(tools)
    return facts


def _converse(facts: Facts, inputs: tuple[Turn, ...] | None, outputs: tuple[Turn, ...] | None) -> None:
    facts.inputs, facts.outputs = inputs, outputs
    for field, said in (("inputs", inputs), ("outputs", outputs)):
        if said is None:
            facts.withheld += () if field in facts.withheld else (field,)
        else:
            facts.opaque |= any(part.type == "opaque" for turn in said for part in turn.parts)


def _messages(span: Span, facts: Facts) -> tuple[tuple[Turn, ...] | None, tuple[Turn, ...] | None, list[Any]]:
    """Model input, model output and offered tools as the indexed attributes tell them, None where they tell none."""
    inputs: dict[int, dict[str, Any]] = {}
    late: dict[int, dict[str, Any]] = {}
    early: dict[int, dict[str, Any]] = {}
    tools: dict[int, Any] = {}
    for key, value in span.attributes.items():
        if not key.startswith("llm."):
            continue
        if key.startswith(_INPUTS):
            _take(inputs, key[len(_INPUTS) :], value)
        elif key.startswith(_OUTPUTS):
            _take(late if inputs else early, key[len(_OUTPUTS) :], value)
        elif key.startswith(_TOOLS):
            number, _, rest = key[len(_TOOLS) :].partition(".")
            if (at := _index(number)) is not None and rest in ("tool.name", "tool.json_schema"):
                tools[at] = value if rest == "tool.name" or at not in tools else tools[at]
        elif key.startswith(_PROMPTS) and key.endswith(".prompt.text"):
            _take(inputs, key[len(_PROMPTS) :].partition(".")[0] + ".message.content", value)
        elif key.startswith(_CHOICES) and key.endswith(".completion.text"):
            _take(late, key[len(_CHOICES) :].partition(".")[0] + ".message.content", value)
    # Attributes that are set again move to the end. Output both before and after the input is therefore of a span that
    # told several model calls, one over the other (google_adk): what stands before is of a call that is over.
    outputs = early | {at: early.get(at, {}) | message if not message.keys() & _BODY else message
                       for at, message in late.items()}  # fmt: skip
    said = [_said(span, facts, "inputs", "user", inputs), _said(span, facts, "outputs", "assistant", outputs)]
    for at, (field, role) in enumerate((("inputs", "user"), ("outputs", "assistant"))):
        told = span.attributes.get("llm.input_messages" if at == 0 else "llm.output_messages")
        if said[at] is None and told is not None and not is_marker(told):
            said[at], whole = turns(told, role)
            facts.cut += () if whole else (field,)
    prompts = span.attributes.get("llm.prompts")
    if said[0] is None and isinstance(prompts, (list, str)) and prompts and not is_marker(prompts):
        said[0] = turns(prompts, "user")[0]
    return said[0], said[1], [tools[at] for at in sorted(tools)]


_BODY = {"content", "contents", "tool_calls"}


def _take(messages: dict[int, dict[str, Any]], path: str, value: Any) -> None:
    """Puts one attribute where it belongs: `path` is what follows ``llm.input_messages.``."""
    keys = path.split(".", 8)
    at = _index(keys[0])
    if at is None or len(keys) < 3 or keys[1] != "message":
        return
    message = messages.get(at)
    if message is None:
        message = messages[at] = {}
    field = keys[2]
    if field in ("contents", "tool_calls") or (field == "content" and len(keys) > 3):
        number = _index(keys[3]) if len(keys) > 3 else None
        if number is None:
            if field == "contents":
                message["content"] = value
            return
        blocks = message.setdefault(field if field != "content" else "contents", {})
        if field == "content":
            blocks[number] = {"type": "text", "text": value}
        else:
            _block(blocks.setdefault(number, {}), keys[4:], value)
    else:
        message[field] = value


def _block(block: dict[str, Any], keys: list[str], value: Any) -> None:
    if len(keys) < 2:
        return
    if keys[0] == "tool_call" or keys[1] == "tool_call":
        inner = keys[1:] if keys[0] == "tool_call" else keys[2:]
        if inner:
            block[{"id": "id", "name": "name", "arguments": "input"}.get(inner[-1], inner[-1])] = value
    elif keys[0] == "message_content":
        if keys[-1] == "transcript":
            block.update(type="text", text=value)
        elif keys[1] in ("type", "text", "id", "tool_call_id", "tool_use_id"):
            block.setdefault(keys[1], value)
        else:
            block.setdefault("type", keys[1])


def _index(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS and digits.isascii() and digits.isdigit() else None


def _said(
    span: Span, facts: Facts, field: str, role: str, messages: dict[int, dict[str, Any]]
) -> tuple[Turn, ...] | None:
    if not messages:
        return None
    order = sorted(messages)
    head = messages[order[0]]
    if span.dropped and "role" not in head:
        # What overflow left of a message: nobody can tell whose words these are.
        if len(order) > 1 and field == "inputs":
            del order[0]
        else:
            facts.cut += (field,)
            head["role"] = "agent" if field == "inputs" else "assistant"
    elif span.dropped and field == "outputs" and order[0] > 0:
        facts.cut += (field,)
    if len(order) > MAX_PARTS:
        del order[:-MAX_PARTS]
        facts.cut += (field,)
    said: list[Turn] = []
    before: dict[str, Any] = {}  # the last message, where it may still grow
    answered = False
    for at in order:
        told = messages[at]
        if (turn := _spoken(told)) is not None:
            said += _turned(facts, field, role, before)
            said.append(turn)
            before, answered = {}, False
            continue
        message, final = _message(told, role)
        if any(is_marker(words) for words in _words(told)) and field not in facts.withheld:
            facts.withheld += (field,)
        if message["role"] == "tool":
            facts.opaque |= any(block.get("type") not in _READABLE for block in _listed(message["content"]))
            if answered:
                answered = False
                continue  # the echo of smolagents' last word
            if not message["tool_call_id"] and len(calls := before.get("tool_calls", ())) == 1:
                message["tool_call_id"] = calls[0].get("id")
        answered = final
        if message.pop("joins") and before.get("role") == "assistant":  # text and calls of one output, told apart
            before["content"] = [*_listed(before["content"]), *_listed(message["content"])]
            before["tool_calls"] += message["tool_calls"]
        else:
            said += _turned(facts, field, role, before)
            before = message
    return (*said, *_turned(facts, field, role, before))


def _spoken(told: dict[str, Any]) -> Turn | None:
    """A message that is one text and nothing else, as most of a long history are, without further ado."""
    if len(told) != 2 or (role := told.get("role")) not in _SPEAKERS:
        return None
    words = told.get("content")
    if not isinstance(words, str) or not words or words[0] == "[" or is_marker(words):
        return None
    return Turn(role, (Part("text", words),))


_READABLE = ("text", "tool_result", "reasoning", "json", None)
_SPEAKERS = ("user", "assistant", "system")


def _turned(facts: Facts, field: str, role: str, message: dict[str, Any]) -> tuple[Turn, ...]:
    if not message:
        return ()
    said, whole = turns([message], role)
    facts.cut += () if whole or field in facts.cut else (field,)
    return said


def _listed(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []


def _words(message: Mapping[str, Any]) -> list[Any]:
    return [message.get("content"), *(block.get("text") for block in message.get("contents", {}).values())]


def _message(told: dict[str, Any], role: str) -> tuple[dict[str, Any], bool]:
    """One message as anybody else would write it, and whether it is smolagents' last word, a ``final_answer``."""
    name = text(told.get("role")).rpartition(".")[2].lower()  # llama_index: MessageRole.USER
    if not name:
        name = "tool" if "tool_call_id" in told else "assistant" if "tool_calls" in told else role
    blocks = [told["contents"][at] for at in sorted(told["contents"])] if "contents" in told else []
    content = told.get("content")
    if isinstance(content, str) and blocks and any(block.get("text") == content for block in blocks):
        content = None
    answers = told.get("tool_call_id")
    if answers and name not in ("tool", "assistant", "tool-response"):  # a result may come back as the user's (Bedrock)
        if content is None:
            content, blocks = blocks, []
        blocks.append({"type": "tool_result", "tool_use_id": answers, "content": content})
    elif isinstance(content, (list, tuple)):
        blocks.extend(
            item if isinstance(item, dict) else {"type": "text", "text": plain_text(item)} for item in content
        )
    elif content is not None and content != "":
        blocks.append({"type": "text", "text": content if isinstance(content, str) else plain_text(content)})
    calls = [told["tool_calls"][at] for at in sorted(told["tool_calls"])] if "tool_calls" in told else []
    if called := told.get("message.function_call_name", told.get("function_call_name")):
        calls.append({"name": called, "input": told.get("function_call_arguments_json")})
    message: dict[str, Any] = {"role": name, "name": told.get("name"), "tool_call_id": told.get("tool_call_id")}
    message["joins"] = False
    if name in ("tool-call", "tool_call"):
        words = "\n".join(text(block.get("text")) for block in blocks)
        listed = literal(words.partition("\n")[2])
        if isinstance(listed, list):
            blocks, calls = [], [item for item in listed if isinstance(item, dict)]
        message.update(role="assistant", joins=True)
    elif name in ("tool-response", "tool_response"):
        words = "\n".join(text(block.get("text")) for block in blocks)
        if words.startswith("Call id: "):
            message["tool_call_id"], _, words = words[9:].partition("\n")
        blocks = [{"type": "text", "text": words.removeprefix("Observation:\n")}]
        message["role"] = "tool"
    elif name == "user" and blocks and text(blocks[0].get("text")).startswith("New task:\n"):
        blocks[0] = blocks[0] | {"text": blocks[0]["text"].removeprefix("New task:\n")}  # smolagents' words
    final = bool(calls)
    for at, item in enumerate(calls):
        inner = item["function"] if isinstance(item.get("function"), dict) else item
        value = arguments_of(inner.get("input", inner.get("arguments")))[0]
        if inner.get("name") == "final_answer" and _is_final_answer("final_answer", value, None):
            answer = value.get("answer", "") if isinstance(value, dict) else value
            blocks.append({"type": "text", "text": answer if isinstance(answer, str) else plain_text(answer)})
            calls[at] = {}
        else:
            final = False
    message["content"] = blocks[0]["text"] if _is_plain(blocks) else blocks
    message["tool_calls"] = [item for item in calls if item]
    return message, final


def _is_plain(blocks: list[dict[str, Any]]) -> bool:
    """Whether a message is one text and nothing else."""
    return len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and isinstance(blocks[0]["text"], str) and (
        blocks[0]["type"] == "text"
    )  # fmt: skip


def _raw(facts: Facts, field: str, told: Any) -> tuple[Turn, ...] | None:
    """Messages from the raw request or response, where the span has no other."""
    if told is None or is_marker(told):
        return None
    value, cut = structured(told)
    role = "user" if field == "inputs" else "assistant"
    facts.cut += (field,) if cut else ()
    return _request(value) if field == "inputs" else _answer(value, role, MAX_DEPTH)


def _request(value: Any) -> tuple[Turn, ...]:
    if not isinstance(value, dict):
        return turns(value, "user")[0]
    key = next((key for key in ("messages", "contents", "input", "prompt", "prompts", "inputs") if key in value), "")
    said = turns(value[key], "user")[0] if key else _plain(value, "user")
    system = value.get("system", value.get("instructions"))
    return (turns(system, "system")[0] + said) if system else said


def _answer(value: Any, role: str, depth: int) -> tuple[Turn, ...]:
    """An answer in a provider's own shape: OpenAI, Anthropic, Gemini, Bedrock, LangChain."""
    if not isinstance(value, dict) or not depth:
        return turns(value, role)[0]
    for key in ("choices", "generations", "candidates"):
        if isinstance(items := value.get(key), list):
            if len(items) == 1 and isinstance(items[0], list):
                items = items[0]
            return tuple(turn for item in items for turn in _answer(item, role, depth - 1))
    if value.get("lc") is None and "role" not in value:
        for key in ("message", "output", "content", "text", "completion", "response"):
            if isinstance(inner := value.get(key), (dict, list, str)) and inner:
                return _answer(inner, role, depth - 1)
        return _plain(value, role)
    return turns(value, role)[0]


def _plain(value: Any, role: str) -> tuple[Turn, ...]:
    return (Turn(role, (Part("text", plain_text(value)),)),) if value else ()


# ---------------------------------------------------------------- runs of an agent


def _run(span: Span, kind: str) -> Facts:
    """What a person said to an agent and what it answered, as the span of the whole run tells it."""
    get = span.attributes.get
    facts = Facts(kind="agent", model=text(first(get, NAMES["model"])), failed=span.status == 2)
    inputs, outputs = (None, None) if kind == "CHAIN" else _messages(span, facts)[:2]
    if inputs is None:
        inputs = _heard(get)
    if outputs is None and (answer := _words_of(get("output.value"), _ANSWERS, MAX_DEPTH)):
        outputs = _last(turns(answer, "assistant")[0], True)
    if kind == "CHAIN" and not inputs and not outputs:
        return Facts(kind="context", failed=facts.failed)
    _converse(facts, inputs, outputs)
    return facts


def _heard(get: Any) -> tuple[Turn, ...] | None:
    task = _words_of(get("input.value"), _TASKS, MAX_DEPTH)
    if not task and isinstance(tasks := structured(get("crew_tasks"))[0], list):
        task = [{"role": "user", "content": item["description"]} for item in tasks
                if isinstance(item, dict) and isinstance(item.get("description"), str)]  # fmt: skip
    if not task and isinstance(done := structured(get("output.value"))[0], dict) and "raw" in done:
        task = done.get("description")  # crewai: a task is told with its result
    if not task and not is_marker(given := get("smolagents.task")):
        task = given  # of the run before, where this run's own is hidden
    return _last(turns(task, "user")[0], False) if task else None


_TASKS = ("task", "new_message", "messages", "contents", "user_input", "user_message", "user_msg", "input_message",
          "query", "question", "input", "inputs", "prompt", "message", "msg", "text", "content", "parts")  # fmt: skip
_ANSWERS = ("raw", "messages", "final_output", "final_answer", "answer", "output", "outputs", "response", "result",
            "reply", "message", "text", "content", "parts")  # fmt: skip


def _words_of(told: Any, keys: tuple[str, ...], depth: int) -> Any:
    """The words in an agent's input or output, or messages of any shape; None where nobody can tell them."""
    if told is None or is_marker(told) or not depth:
        return None
    value, _ = structured(told)
    if isinstance(value, str):
        return None if is_marker(value) else value
    if isinstance(value, list):
        return value if value and all(isinstance(item, (dict, str)) for item in value) else None
    if not isinstance(value, dict):
        return None
    if "role" in value or value.get("lc") is not None or isinstance(value.get("parts"), list):
        return [value]
    for key in keys:
        if (inner := value.get(key)) and (words := _words_of(inner, keys, depth - 1)):
            return words
    return None


def _last(said: tuple[Turn, ...], by_agent: bool) -> tuple[Turn, ...] | None:
    """Of a history the words that are new: a person's after the agent's last, or the agent's after all others'."""
    at = len(said)
    while at and (said[at - 1].role == "assistant") == by_agent:
        at -= 1
    texts = []
    for turn in said[at:]:
        if by_agent or turn.role in ("user", ""):
            parts = tuple(part for part in turn.parts if part.type in ("text", "opaque"))
            texts += [Turn(turn.role, parts)] if parts else []
    return tuple(texts) or None


# ---------------------------------------------------------------- whose it is


def _identity(span: Span, facts: Facts, kind: str) -> None:
    """Session, user and agent where only the metadata or the graph name them."""
    get = span.attributes.get
    if kind == "AGENT" and first(get, IDENTITY["agent_name"]) is None:
        facts.agent_name = text(get("graph.node.name")) or _unless_random(text(get("graph.node.id")))
    told = get("metadata")
    if not isinstance(told, str) or len(told) > MAX_METADATA or ("_id" not in told and "agent_name" not in told):
        return
    metadata = structured(told)[0]
    if not isinstance(metadata, dict):
        return
    facts.session = _named(metadata, ("session_id", "thread_id", "conversation_id", "chat_id"))
    facts.user = "" if "user.id" in span.attributes else _named(metadata, ("user_id",))
    if not facts.agent_name and first(get, IDENTITY["agent_name"]) is None:
        facts.agent_name = _named(metadata, ("lc_agent_name", "agent_name"))


def _unless_random(name: str) -> str:
    """A name, "" for one that is made anew for each run: with eight hexadecimal digits in a row, numbers among them."""
    run = digits = 0
    for letter in name[:256]:
        run, digits = (run + 1, digits + letter.isdigit()) if letter in "0123456789abcdefABCDEF" else (0, 0)
        if run >= 8 and digits:
            return ""
    return name


def _named(metadata: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        if isinstance(value := metadata.get(name), (str, int)) and not isinstance(value, bool) and value != "":
            return text(value)
    return ""
