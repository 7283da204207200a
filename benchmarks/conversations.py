"""What gated agents ask and carry: dull conversations, each act asked for with what has ended since the last question.

A turn is a model call that wants a tool, the question whether it may run, and the act. So what a question carries is
the span of the act before it (2 KB) and that of the model call (4 KB), encoded as they ended.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks import mix
from sidecar.control.v1 import control_pb2 as pb

TURNS = 20
READS = ("read_mail", "search_documents", "open_file", "get_ticket")
SECOND_NS = 10**9


class Asked(Struct, frozen=True):
    """One question, ready to be sent; `carried_bytes` is what of it is spans."""

    session_id: str
    body: bytes
    carried_bytes: int


class Conversation:
    """One session of one agent; `questions` are its turns.

    Args:
        number: Conversations of different numbers have nothing in common but the agent's manner of speaking.
        tools: What it does, in turn.
        carries: Whether its spans go along with the questions; else nobody tells of them.
    """

    def __init__(self, number: int, tools: tuple[str, ...] = READS, *, carries: bool = True) -> None:
        self.chance = random.Random(f"{mix.SEED} conversation {number} {tools}")
        self.words = mix.Words(self.chance)
        self.agent = mix.role(number % mix.AGENTS)
        self.id = _digest("conversation", number, tools).hex()
        self._tools, self._carries = tools, carries
        self._at_ns = time.time_ns() - 10 * SECOND_NS  # a clock that is wrong by a minute makes irreversible acts wait
        self._trace = _digest("trace", number, tools)
        self._count = 0

    def opening(self) -> bytes:
        """The request that opens the session."""
        return pb.OpenSessionRequest(
            session_id=self.id, agent=pb.AgentIdentity(name=self.agent, id=f"{self.agent}-1"), instance_id=self.instance
        ).SerializeToString()

    @property
    def instance(self) -> str:
        return f"instance-{self.agent}"

    def questions(self, turns: int = TURNS) -> Iterator[Asked]:
        """The questions at the gate, each with what has ended since the one before."""
        system = f"You are {self.agent} at Nimbral. {self.words.text(260)} Be brief and exact."
        history: list[dict[str, Any]] = [_message("user", {"type": "text", "content": self.words.text(500)})]
        ended: list[bytes] = []
        for turn in range(turns):
            tool = self._tools[turn % len(self._tools)]
            call_id, arguments = _digest(self.id, "call", turn).hex(), self._arguments(tool)
            call = {"type": "tool_call", "id": call_id, "name": tool, "arguments": arguments}
            said = _message("assistant", {"type": "text", "content": self.words.text(120)}, call)
            ended.append(self._model_span(system, history, said))
            carried = ended if self._carries else []
            yield Asked(self.id, self._question(tool, arguments, call_id, carried), sum(map(len, carried)))
            result = '{"status": "sent"}' if tool == "send_mail" else self.words.text(900)
            ended = [self._act_span(tool, arguments, call_id, result)]
            response = {"type": "tool_call_response", "id": call_id, "response": result}
            history = [history[0], _message("assistant", call), _message("tool", response)]

    def _arguments(self, tool: str) -> dict[str, Any]:
        words = self.words
        if tool == "send_mail":
            return {"to": [words.address(mix.HOME)], "subject": words.text(36), "body": words.text(380)}
        if tool == "open_file":
            return {"path": f"/srv/{words.word()}/{words.word()}.txt", "why": words.text(400)}
        return {"query": words.text(90), "limit": 20, "why": words.text(340)}

    def _question(self, tool: str, arguments: Any, call_id: str, carried: list[bytes]) -> bytes:
        question = pb.AuthorizeRequest(
            session_id=self.id, instance_id=self.instance, tool=tool, arguments_json=json.dumps(arguments),
            call_id=call_id, carried=carried, agent=pb.AgentIdentity(name=self.agent, id=f"{self.agent}-1"),
        )  # fmt: skip
        question.asked_at.FromNanoseconds(self._at_ns)
        return question.SerializeToString()

    def _model_span(self, system: str, history: list[dict[str, Any]], said: dict[str, Any]) -> bytes:
        return self._span("chat vireo-large", 2.0, {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "vireo", "gen_ai.request.model": "vireo-large",
            "gen_ai.response.model": "vireo-large-2026-05", "gen_ai.request.max_tokens": 4096,
            "gen_ai.request.temperature": 0.2, "gen_ai.usage.input_tokens": 900, "gen_ai.usage.output_tokens": 280,
            "gen_ai.response.finish_reasons": ["tool_calls"],
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": system}]),
            "gen_ai.input.messages": json.dumps(history), "gen_ai.output.messages": json.dumps([said]),
        })  # fmt: skip

    def _act_span(self, tool: str, arguments: Any, call_id: str, result: str) -> bytes:
        return self._span(f"execute_tool {tool}", 0.2, {
            "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool, "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call_id, "sidecar.call.id": call_id, "sidecar.gated": True,
            "sidecar.instance.id": self.instance, "gen_ai.tool.call.arguments": json.dumps(arguments),
            "gen_ai.tool.call.result": result,
        })  # fmt: skip

    def _span(self, name: str, lasts_s: float, told: dict[str, Any]) -> bytes:
        self._count += 1
        start_ns, self._at_ns = self._at_ns, self._at_ns + int(lasts_s * SECOND_NS)
        about = {"gen_ai.conversation.id": self.id, "gen_ai.agent.name": self.agent}
        span = Span(
            trace_id=self._trace, span_id=_digest(self.id, "span", self._count)[:8], parent_span_id=self._trace[:8],
            name=name, start_time_unix_nano=start_ns, end_time_unix_nano=self._at_ns,
            attributes=_attributes(told | about),
        )  # fmt: skip
        return encoded(self.agent, [span])


def encoded(agent: str, spans: list[Span]) -> bytes:
    """An export request as the SDK of one agent's process makes it."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.extend(
        _attributes({
            "telemetry.sdk.language": "python", "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": "1.45.2", "service.name": agent,
        })
    )  # fmt: skip
    scope = resource.scope_spans.add()
    scope.scope.name = "bench.instrumentation"
    scope.spans.extend(spans)
    return request.SerializeToString()


def _attributes(told: dict[str, Any]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(bool_value=value)) if isinstance(value, bool) else mix._attribute(key, value)
        for key, value in told.items()
    ]


def _message(speaker: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": speaker, "parts": list(parts)}


def _digest(*told: Any) -> bytes:
    return blake2b("\0".join(map(str, told)).encode(), digest_size=16).digest()
