"""Bytes → an OTLP request of a few odd spans or log records, so that a fuzzer's mutations stay telemetry.

Each byte chooses: a name that some convention knows, a value that one of them would have there, or something else in
its place; the text that values are cut from follows in the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from sidecar.core.semconv import crews, fallback, genai, genai_events, names, openinference, traceloop

MAX_SPANS, MAX_ATTRIBUTES, MAX_WORDS = 6, 24, 400
AT_NS = 1_800_000_000 * 10**9

_tables = [table for table in vars(names).values() if isinstance(table, dict) and table]
KEYS = tuple(
    dict.fromkeys([
        *(name for table in _tables for told in table.values() if isinstance(told, tuple) for name in told),
        *sorted(traceloop._CLAIMED), *sorted(crews.KEYS), *openinference._LATE, openinference.KIND,
        "gen_ai.system", "gen_ai.prompt.{n}.role", "gen_ai.prompt.{n}.content", "gen_ai.completion.{n}.content",
        "gen_ai.prompt.{n}.tool_calls.{n}.name", "gen_ai.completion.{n}.tool_calls.{n}.arguments",
        "gen_ai.completion.{n}.tool_calls.{n}.id", "gen_ai.completion.{n}.finish_reason",
        "llm.request.functions.{n}.name", "llm.input_messages.{n}.message.role",
        "llm.input_messages.{n}.message.content", "llm.input_messages.{n}.message.contents.{n}.message_content.text",
        "llm.input_messages.{n}.message.contents.{n}.message_content.type",
        "llm.output_messages.{n}.message.tool_calls.{n}.tool_call.function.name",
        "llm.output_messages.{n}.message.tool_calls.{n}.tool_call.function.arguments",
        "llm.input_messages.{n}.message.tool_call_id", "llm.output_messages.{n}.message.content",
        "llm.tools.{n}.tool.json_schema", "llm.prompts.{n}.prompt.text", "llm.choices.{n}.completion.text",
        "retrieval.documents.{n}.document.content", "mcp.request.argument.{w}", "tool.parameters", "metadata",
        "span.type", "event.name", "db.system", "db.operation", "gen_ai.task.status", "traceloop.entity.path",
        "langsmith.span.kind", "langsmith.span.parent_id", "smolagents.task", "crew_tasks", "graph.node.id",
        "model_request_parameters", "error.type", "sidecar.gated", "sidecar.duplicates", "crewai.crew.tasks_output",
        # of nobody's convention
        "tool", "app.tool.args", "args", "input", "output", "role", "content", "text", "kind", "type", "event",
        "question", "answer", "prompt", "completion", "messages", "llm.messages.{n}.role", "llm.messages.{n}.content",
        "thought", "action", "action_input", "observation", "status", "success", "{w}", "{w}.{w}.{n}",
    ])
)  # fmt: skip
EVENTS = (*genai_events.ROLES, genai.DETAILS_EVENT, "exception", "tool.output", "db.query.result", "tool_call", "{w}")
TITLES = ("chat {w}", "execute_tool {w}", "invoke_agent {w}", "tools/call {w}", "{w}.tool", "{w}.workflow", "tool: {w}",
          "Calling tool {w} with {j}", "claude_code.tool_result", "codex.tool_result", "user_prompt", "run {w}",
          *genai_events.ROLES, *fallback._SAYINGS[:6], "{w}", "")  # fmt: skip
WORDS = ("chat", "execute_tool", "invoke_agent", "tool", "llm", "TOOL", "LLM", "AGENT", "CHAIN", "RETRIEVER", "agent",
         "workflow", "completion", "tools/call", "ai.toolCall", "ai.generateText", "ai.streamText.doStream",
         "interaction", "llm_request", "retriever", "chain", "prompt", "user", "assistant", "system", "tool_call",
         "tool_result", "pinecone", "{}", "null", "__REDACTED__", "[REDACTED]", "final_answer", "(merged tools)",
         "stop", "tool_calls", "final", "send_mail", "call_1", "s-1", "true", "False", "N/A",
         "invoke_function_call")  # fmt: skip
NUMBERS = (0, 1, 2, 3, 7, 10**9, 999_999, -1, 4095, 4096)


class Bytes:
    """Reads choices and texts off the fuzzer's bytes; zeros follow their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def pick(self, among: tuple[Any, ...]) -> Any:
        count = len(among)
        return among[(self.byte() if count <= 256 else self.byte() << 8 | self.byte()) % count]

    def text(self) -> str:
        """Up to 255 of the bytes as they come; sometimes many times over."""
        size = self.byte()
        taken, self._at = self._data[self._at : self._at + size], self._at + size
        words = taken.decode("utf-8", "replace")
        return words * (2 ** (self.byte() % 12)) if size % 16 == 15 else words


def request(data: bytes) -> tuple[str, bytes]:
    """The signal and the request that `data` is a program of."""
    told = Bytes(data)
    if told.byte() % 4:
        traces = ExportTraceServiceRequest()
        scope = traces.resource_spans.add().scope_spans.add()
        for number in range(1 + told.byte() % MAX_SPANS):
            span = scope.spans.add()
            span.trace_id, span.span_id = bytes([told.byte() % 2 + 1] * 16), bytes([number + 1] * 8)
            if parent := told.byte() % (MAX_SPANS + 2):  # another one, itself, one that comes later: all of them odd
                span.parent_span_id = bytes([parent] * 8)
            span.name = _filled(told.pick(TITLES), told)[:5000]
            span.start_time_unix_nano = AT_NS + told.byte() * 10**8
            span.end_time_unix_nano = span.start_time_unix_nano + told.byte() * 10**7
            span.status.code = told.byte() % 3
            span.dropped_attributes_count = told.byte() % 2
            span.attributes.extend(_attributes(told))
            for _ in range(told.byte() % 4):
                event = span.events.add(name=_filled(told.pick(EVENTS), told), time_unix_nano=AT_NS)
                event.attributes.extend(_attributes(told))
            if told.is_over:
                break
        return "traces", traces.SerializeToString()
    logs = ExportLogsServiceRequest()
    into = logs.resource_logs.add().scope_logs.add()
    for _ in range(1 + told.byte() % MAX_SPANS):
        log = into.log_records.add()
        log.trace_id, log.span_id = bytes([told.byte() % 2 + 1] * 16), bytes([told.byte() % MAX_SPANS + 1] * 8)
        log.time_unix_nano = AT_NS + told.byte() * 10**8
        log.event_name = _filled(told.pick(TITLES), told)
        log.body.CopyFrom(_value(told, 0))
        log.attributes.extend(_attributes(told))
        if told.is_over:
            break
    return "logs", logs.SerializeToString()


def _attributes(told: Bytes) -> list[KeyValue]:
    found: dict[str, AnyValue] = {}
    for _ in range(told.byte() % MAX_ATTRIBUTES):
        name = _filled(told.pick(KEYS), told)
        many = told.byte()
        value = _value(told, 0)
        found[name] = value
        if many == 255 and any(digit.isdigit() for digit in name):  # a long history, attribute by attribute
            for number in range(200 * (1 + told.byte() % 8)):
                found["".join(str(number) if letter.isdigit() else letter for letter in name)] = value
        if told.is_over:
            break
    return [KeyValue(key=key, value=value) for key, value in found.items()]


def _filled(name: str, told: Bytes) -> str:
    while "{n}" in name:
        name = name.replace("{n}", str(told.pick(NUMBERS)), 1)
    while "{w}" in name:
        name = name.replace("{w}", told.pick(WORDS) if told.byte() % 2 else told.text(), 1)
    return name.replace("{j}", _json(told, 0)) if "{j}" in name else name


def _value(told: Bytes, depth: int) -> AnyValue:
    match told.byte() % 10:
        case 0:
            return AnyValue(string_value=told.pick(WORDS))
        case 1:
            return AnyValue(string_value=told.text())
        case 2 | 3 | 4:
            words = _json(told, 0)
            cut = told.byte()
            return AnyValue(string_value=words[: len(words) * cut // 256] if cut % 5 == 4 else words)
        case 5:
            return AnyValue(int_value=int(told.pick(NUMBERS)) * (1 << (told.byte() % 32)))
        case 6:
            return AnyValue(bool_value=bool(told.byte() % 2))
        case 7:
            return AnyValue(double_value=float(told.pick(("nan", "inf", "0.5", "-1e300", "1"))))
        case 8:
            return AnyValue(bytes_value=_json(told, 0).encode() if told.byte() % 2 else told.text().encode())
        case _:
            if depth > 3:
                return AnyValue()
            inner = [_value(told, depth + 1) for _ in range(told.byte() % 4)]
            if told.byte() % 2:
                return AnyValue(array_value=ArrayValue(values=inner))
            named = [KeyValue(key=_filled(told.pick(KEYS), told), value=value) for value in inner]
            return AnyValue(kvlist_value=KeyValueList(values=named))


PARTS = ("type", "text", "content", "role", "parts", "tool_calls", "function", "name", "arguments", "args", "input",
         "id", "tool_call_id", "response", "result", "output", "messages", "message", "choices", "candidates",
         "generations", "lc", "kwargs", "data", "kind", "input_str", "inputs", "metadata", "tags", "raw_output",
         "raw_input", "tool_name", "functionCall", "functionResponse", "toolUse", "toolResult", "contents", "config",
         "tools", "system_instruction", "session_id", "reasoning", "thinking", "finish_reason", "outputs", "update",
         "query", "prompt", "documents", "value", "is_error", "_raw", "properties", "description", "raw")  # fmt: skip


def _json(told: Bytes, depth: int) -> str:
    """JSON of some messages or arguments, or the repr of the same; JSON within JSON."""
    value = _tree(told, depth)
    match told.byte() % 8:
        case 0:
            return repr(value)
        case 1:
            return json.dumps(json.dumps(value))
        case 2:
            return f"[TaskOutput(description={value!r}, raw={told.text()!r}, messages=[{value!r}])]"
        case 3:
            return " ".join(f"{name}={json.dumps(value)}" for name in (told.pick(PARTS), told.pick(PARTS)))
        case _:
            return json.dumps(value)


def _tree(told: Bytes, depth: int) -> Any:
    match told.byte() % 8:
        case 0 | 1 | 2 if depth < 6:
            return {told.pick(PARTS): _tree(told, depth + 1) for _ in range(told.byte() % 6)}
        case 3 | 4 if depth < 6:
            return [_tree(told, depth + 1) for _ in range(told.byte() % 5)]
        case 5:
            return told.text()
        case 6:
            return told.pick((None, True, False, 0, -1, 10**30, 1e308, "", "{}", "[", "'", "\\", "\x00", "\u202e"))
        case _:
            return told.pick(WORDS)
