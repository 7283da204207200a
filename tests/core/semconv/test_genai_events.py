"""Messages told one event each, in log records and on spans, and prompts in attributes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import semconv
from sidecar.core.semconv import genai_events
from sidecar.core.semconv.genai_events import ROLES
from sidecar.core.semconv.names import EVENTS
from tests.core.semconv.telling import facts, log, said, span, values, wild

CALL = {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": '{"to": "a"}'}}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("gen_ai.system.message", {"content": "Be brief."}, [("system", "Be brief.")]),
        ("gen_ai.user.message", {"content": "Hello"}, [("user", "Hello")]),
        ("gen_ai.user.message", {"content": [{"type": "text", "text": "Hello"}]}, [("user", "Hello")]),
        ("gen_ai.user.message", {"content": {"role": "user", "parts": [{"text": "Hello"}]}}, [("user", "Hello")]),
        ("gen_ai.assistant.message", {"tool_calls": [CALL]}, [("assistant", ("mail", {"to": "a"}, "call_1"))]),
        (
            "gen_ai.assistant.message",
            {"role": "model", "content": [{"function_call": {"name": "mail", "args": {}}}]},
            [("assistant", ("mail", {}, ""))],
        ),
        ("gen_ai.tool.message", {"content": "sent", "id": "call_1"}, [("tool", ("call_1", "sent"))]),
        (
            "gen_ai.tool.message",
            {"role": "tool", "content": "sent", "tool_call_id": "call_1"},
            [("tool", ("call_1", "sent"))],
        ),
        (
            "gen_ai.tool.message",
            {"role": "user", "id": "x", "content": {"content": '{"degrees": 35}'}},
            [("tool", ("x", {"degrees": 35}))],
        ),
    ],
)
def test_a_log_record_is_one_message_to_the_model(name: str, body: Any, expected: Any) -> None:
    for told in (log(name, body), log(name, json.dumps(body)), log("", json.dumps(body), {"event.name": name})):
        found = facts(told)
        assert (found.kind, found.piece, found.outputs, found.withheld) == ("model", True, None, ())
        assert said(found.inputs) == expected


@pytest.mark.parametrize(
    "body",
    [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": "On it.", "tool_calls": [CALL]},
        },
        {
            "index": 0,
            "finish_reason": "FinishReason.TOOL_CALLS",
            "message": {"content": "On it."},
            "tool_calls": [CALL],
        },
        {
            "finish_reason": ["tool_calls"],
            "content": {
                "role": "model",
                "parts": [{"text": "On it."}, {"function_call": {"id": "call_1", "name": "mail", "args": {"to": "a"}}}],
            },
        },
    ],
)
def test_a_choice_is_what_the_model_answered(body: Any) -> None:
    found = facts(log("gen_ai.choice", body))
    assert (found.piece, found.inputs, found.finish) == (True, None, ("tool_calls",))
    assert said(found.outputs) == [("assistant", "On it.", ("mail", {"to": "a"}, "call_1"))]


def test_a_bare_text_is_the_message() -> None:
    assert said(facts(log("gen_ai.user.message", "Hello {you}")).inputs) == [("user", "Hello {you}")]


def test_the_name_of_an_event_may_stand_in_the_body() -> None:
    assert said(facts(log("", "gen_ai.user.message", {"content": "Hello"})).inputs) == [("user", "Hello")]


@pytest.mark.parametrize(
    "body", [None, {}, {"role": "user"}, {"content": "<REDACTED>"}, {"content": [{"kind": "text"}]}]
)
def test_a_message_without_its_content_is_withheld(body: Any) -> None:
    found = facts(log("gen_ai.user.message", body))
    assert found.withheld == ("inputs",)
    assert said(found.inputs) == [("user",)]


def test_a_call_without_its_arguments_is_still_a_call() -> None:
    body = {"message": {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "mail"}}]}}
    found = facts(log("gen_ai.choice", body))
    assert said(found.outputs) == [("assistant", ("mail", None, "call_1"))]
    assert found.withheld == ("outputs",)


def test_an_empty_answer_is_not_withheld() -> None:
    assert facts(log("gen_ai.choice", {"message": {"content": ""}, "finish_reason": "stop"})).withheld == ()


def test_foreign_log_lines_say_nothing() -> None:
    assert semconv.read(log("", "Calling mail function with args: {}", {"code.line.number": 12})) is None
    assert semconv.read(log("gen_ai.evaluation.result", {"score": 1})) is None


def test_an_image_is_content_that_cannot_be_read() -> None:
    found = facts(log("gen_ai.user.message", {"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}))
    assert (found.opaque, found.unscored, found.withheld) == (True, ("opaque",), ())


def test_events_of_a_span_hold_their_message_as_json() -> None:
    """Azure AI: the whole message in `gen_ai.event.content`."""
    told = span(
        CHAT,
        events=[
            ("gen_ai.system.message", {"gen_ai.event.content": '{"role": "system", "content": "Be brief."}'}),
            ("gen_ai.user.message", {"gen_ai.event.content": '{"role": "user", "content": "Hello"}'}),
            (
                "gen_ai.assistant.message",
                {"gen_ai.event.content": json.dumps({"role": "assistant", "tool_calls": [CALL]})},
            ),
            ("gen_ai.tool.message", {"gen_ai.event.content": '{"tool_call_id": "call_1", "content": "sent"}'}),
            ("gen_ai.choice", {"gen_ai.event.content": '{"message": {"content": "Done."}, "finish_reason": "stop"}'}),
        ],
    )
    found = facts(told)
    assert (found.kind, found.piece, found.finish, found.withheld) == ("model", False, ("stop",), ())
    assert said(found.inputs) == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", ("mail", {"to": "a"}, "call_1")),
        ("tool", ("call_1", "sent")),
    ]
    assert said(found.outputs) == [("assistant", "Done.")]


def test_events_of_a_span_hold_a_key_each() -> None:
    """Strands: lists of Bedrock's blocks as JSON in `content` and `message`."""
    told = span(
        CHAT,
        events=[
            ("gen_ai.user.message", {"content": '[{"text": "Hello"}]'}),
            (
                "gen_ai.assistant.message",
                {"content": '[{"toolUse": {"toolUseId": "t1", "name": "mail", "input": {"to": "a"}}}]'},
            ),
            (
                "gen_ai.tool.message",
                {"content": '[{"toolResult": {"toolUseId": "t1", "content": [{"text": "sent"}]}}]'},
            ),
            ("gen_ai.choice", {"finish_reason": "end_turn", "message": '[{"text": "Done."}]'}),
        ],
    )
    found = facts(told)
    assert said(found.inputs) == [
        ("user", "Hello"),
        ("assistant", ("mail", {"to": "a"}, "t1")),
        ("tool", ("t1", "sent")),
    ]
    assert (said(found.outputs), found.finish) == ([("assistant", "Done.")], ("end_turn",))


def test_events_of_a_tool_span_are_its_arguments_and_its_result() -> None:
    told = span(
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "mail", "gen_ai.tool.status": "success"},
        events=[
            ("gen_ai.tool.message", {"role": "tool", "content": '{"to": "a"}', "id": "t1"}),
            ("gen_ai.choice", {"message": '[{"text": "sent"}]', "id": "t1"}),
        ],
    )
    found = facts(told)
    assert (found.kind, found.tool, found.call_id, found.failed) == ("tool", "mail", "t1", False)
    assert (found.arguments, found.result, found.withheld) == ({"to": "a"}, "sent", ())


def test_the_details_event_may_be_an_event_of_the_span() -> None:
    inputs = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}])
    outputs = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "Done."}]}])
    name = "gen_ai.client.inference.operation.details"
    told = span(CHAT, events=[(name, {"gen_ai.input.messages": inputs}), (name, {"gen_ai.output.messages": outputs})])
    found = facts(told)
    assert (said(found.inputs), said(found.outputs)) == ([("user", "Hello")], [("assistant", "Done.")])
    assert found.withheld == ()
    call = [{"role": "tool", "parts": [{"type": "tool_call", "name": "mail", "id": "t1", "arguments": {"to": "a"}}]}]
    answer = [{"role": "tool", "parts": [{"type": "tool_call_response", "id": "t1", "response": [{"text": "sent"}]}]}]
    told = span(
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "mail"},
        events=[(name, {"gen_ai.input.messages": call}), (name, {"gen_ai.output.messages": answer})],
    )
    found = facts(told)
    assert (found.arguments, found.result, found.call_id) == ({"to": "a"}, "sent", "t1")


def test_events_of_an_agents_span_are_the_runs() -> None:
    told = span(
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "clerk"},
        events=[("gen_ai.user.message", {"content": "Hello"}), ("gen_ai.choice", {"message": "Done."})],
    )
    found = facts(told)
    assert (found.kind, found.agent_name) == ("agent", "clerk")
    assert (said(found.inputs), said(found.outputs)) == ([("user", "Hello")], [("assistant", "Done.")])


def test_the_oldest_events_hold_whole_prompts() -> None:
    prompt = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    told = span(
        CHAT,
        events=[
            ("gen_ai.content.prompt", {"gen_ai.prompt": prompt}),
            ("gen_ai.content.completion", {"gen_ai.completion": "Done."}),
        ],
    )
    found = facts(told)
    assert said(found.inputs) == [("system", "Be brief."), ("user", "Hello")]
    assert said(found.outputs) == [("assistant", "Done.")]


@pytest.mark.parametrize(
    "prompt", ["Hello", '[{"role": "user", "content": "Hello"}]', '{"messages": [["user", "Hello"]]}']
)
def test_prompts_in_attributes_are_read_if_no_other_convention_claims_them(prompt: str) -> None:
    attributes = {"gen_ai.prompt": prompt, "gen_ai.completion": "Done."}
    found = facts(span(attributes))
    assert (found.kind, said(found.inputs), said(found.outputs)) == (
        "model",
        [("user", "Hello")],
        [("assistant", "Done.")],
    )
    assert not genai_events.claims(span({**attributes, "langsmith.span.kind": "chain"}))


def test_a_cut_message_is_not_called_whole() -> None:
    found = facts(span({**CHAT, "gen_ai.prompt": '[{"role": "user", "content": "Hel'}))
    assert "inputs" in found.cut
    assert "cut" in found.unscored


@settings(max_examples=200)
@given(
    st.sampled_from([*ROLES, "gen_ai.client.inference.operation.details", ""]), values, wild(EVENTS, "event.name", "id")
)
def test_nothing_in_an_event_breaks_it(name: str, body: Any, attributes: dict[str, Any]) -> None:
    semconv.read(log(name, body, attributes))
    semconv.read(span(attributes, events=[(name, attributes)]))
    semconv.read(span({"gen_ai.operation.name": "execute_tool"}, events=[(name, attributes)]))
