"""The Vercel AI SDK, versions 3 to 6."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from sidecar.core import semconv
from sidecar.core.semconv.names import VERCEL
from sidecar.core.span import SpanEvent
from tests.core.semconv.telling import AT_NS, facts, said, span, wild


def test_a_tools_span_is_an_act() -> None:
    told = {
        "ai.operationId": "ai.toolCall",
        "ai.toolCall.name": "mail",
        "ai.toolCall.id": "c1",
        "ai.toolCall.args": '{"to":"a"}',
        "ai.toolCall.result": '"sent"',
        "ai.telemetry.functionId": "clerk",
        "ai.telemetry.metadata.sessionId": "s",
    }
    found = facts(span(told))
    assert (found.kind, found.tool, found.call_id, found.arguments, found.result) == (
        "tool",
        "mail",
        "c1",
        {"to": "a"},
        "sent",
    )
    assert (found.agent_name, found.session, found.withheld) == ("clerk", "s", ())


def test_a_result_that_is_structure_stays_structure() -> None:
    told = {"ai.toolCall.name": "find", "ai.toolCall.args": "{}", "ai.toolCall.result": '{"hits":[1,2]}'}
    found = facts(span(told))
    assert (found.arguments, found.result) == ({}, {"hits": [1, 2]})


def test_content_that_is_not_recorded_is_withheld() -> None:
    found = facts(span({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "mail"}))
    assert (found.withheld, found.unscored) == (("arguments", "result"), ("withheld",))
    found = facts(span({"ai.operationId": "ai.streamText.doStream", "ai.response.finishReason": "tool-calls"}))
    assert (found.kind, found.withheld, found.finish) == ("model", ("inputs", "outputs"), ("tool-calls",))


def test_a_tool_that_fails_tells_its_error() -> None:
    told = span(
        {"ai.operationId": "ai.toolCall", "ai.toolCall.name": "mail", "ai.toolCall.args": "{}"},
        status=2,
        events=[("exception", {"exception.message": "no such mailbox"})],
    )
    found = facts(told)
    assert (found.failed, found.result, found.withheld) == (True, "no such mailbox", ())
    assert told.events == (SpanEvent("exception", AT_NS, {"exception.message": "no such mailbox"}),)


NEW = [{"type": "tool-call", "toolCallId": "c1", "toolName": "mail", "input": {"to": "a"}}]
OLD = [{"type": "tool-call", "toolCallId": "c1", "toolName": "mail", "args": {"to": "a"}}]


@pytest.mark.parametrize(
    ("calls", "answer"),
    [
        (OLD, {"type": "tool-result", "toolCallId": "c1", "toolName": "mail", "result": "sent"}),
        (
            NEW,
            {
                "type": "tool-result",
                "toolCallId": "c1",
                "toolName": "mail",
                "output": {"type": "text", "value": "sent"},
            },
        ),
        (
            NEW,
            {
                "type": "tool-result",
                "toolCallId": "c1",
                "output": {"type": "content", "value": [{"type": "text", "text": "sent"}]},
            },
        ),
        (NEW, {"type": "tool-result", "toolCallId": "c1", "output": {"type": "error-text", "value": "sent"}}),
    ],
)
def test_a_models_span_tells_the_conversation(calls: Any, answer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": calls},
        {"role": "tool", "content": [answer]},
    ]
    told = {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.prompt.messages": json.dumps(messages),
        "ai.prompt.tools": ['{"type":"function","name":"mail"}'],
        "ai.response.text": "Done.",
        "ai.response.reasoning": "Hm.",
        "ai.response.finishReason": "stop",
        "gen_ai.response.model": "m",
        "ai.usage.promptTokens": 3,
        "ai.usage.completionTokens": 4,
    }
    found = facts(span(told))
    assert (found.kind, found.model, found.finish, found.tools) == ("model", "m", ("stop",), ("mail",))
    assert (found.input_tokens, found.output_tokens, found.withheld) == (3, 4, ())
    assert said(found.inputs) == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", ("mail", {"to": "a"}, "c1")),
        ("tool", ("c1", "sent")),
    ]
    assert said(found.outputs) == [("assistant", ("reasoning", "Hm."), "Done.")]


@pytest.mark.parametrize("key", ["ai.response.toolCalls", "ai.result.toolCalls"])
@pytest.mark.parametrize("arguments", [{"args": '{"to":"a"}'}, {"input": '{"to":"a"}'}, {"input": {"to": "a"}}])
def test_a_model_that_calls_tools_says_so(key: str, arguments: Any) -> None:
    calls = json.dumps([{"toolCallType": "function", "toolCallId": "c1", "toolName": "mail", **arguments}])
    found = facts(span({"ai.operationId": "ai.streamText.doStream", key: calls}))
    assert said(found.outputs) == [("assistant", ("mail", {"to": "a"}, "c1"))]


@pytest.mark.parametrize(
    "prompt",
    [
        {"system": "Be brief.", "prompt": "Hello"},
        {"system": "Be brief.", "messages": [{"role": "user", "content": "Hello"}]},
        {"system": "Be brief.", "prompt": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]},
    ],
)
def test_a_run_tells_what_was_asked_and_answered(prompt: Any) -> None:
    told = {"ai.operationId": "ai.generateText", "ai.prompt": json.dumps(prompt), "ai.response.text": "Done."}
    found = facts(span(told))
    assert (found.kind, found.system, found.withheld) == ("agent", ("Be brief.",), ())
    assert (said(found.inputs), said(found.outputs)) == ([("user", "Hello")], [("assistant", "Done.")])


def test_an_object_is_an_answer() -> None:
    told = {
        "ai.operationId": "ai.generateObject",
        "ai.prompt": '{"prompt":"Hello"}',
        "ai.response.object": '{"ok":true}',
    }
    assert said(facts(span(told)).outputs) == [("assistant", '{"ok":true}')]


def test_embedding_is_no_act() -> None:
    assert facts(span({"ai.operationId": "ai.embed.doEmbed", "ai.values": ["x"]})).kind == "context"


@settings(max_examples=200)
@given(wild(VERCEL))
def test_nothing_in_the_attributes_breaks_it(attributes: dict[str, Any]) -> None:
    semconv.read(span(attributes))
