"""Pydantic AI and Logfire: their own keys, before and since 1.0."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from sidecar.core import semconv
from sidecar.core.semconv.names import PYDANTIC_AI
from tests.core.semconv.telling import facts, said, span, wild

CALL = {"id": "c1", "type": "function", "function": {"name": "mail", "arguments": '{"to": "a"}'}}
HISTORY = [
    {"event.name": "gen_ai.system.message", "role": "system", "content": "Be brief."},
    {"event.name": "gen_ai.user.message", "role": "user", "content": "Hello"},
    {"event.name": "gen_ai.assistant.message", "role": "assistant", "content": "On it.", "tool_calls": [CALL]},
    {"event.name": "gen_ai.tool.message", "role": "tool", "id": "c1", "name": "mail", "content": "sent"},
]
SAID = [
    ("system", "Be brief."),
    ("user", "Hello"),
    ("assistant", "On it.", ("mail", {"to": "a"}, "c1")),
    ("tool", ("c1", "sent")),
]
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "model_request_parameters": "{}"}


@pytest.mark.parametrize("more", [{}, {"gen_ai.operation.name": "execute_tool"}])
def test_a_tools_span_has_its_own_names(more: dict[str, Any]) -> None:
    told = {
        "gen_ai.tool.name": "mail",
        "gen_ai.tool.call.id": "c1",
        "tool_arguments": '{"to":"a"}',
        "tool_response": "sent",
    }
    found = facts(span({**told, **more}))
    assert (found.kind, found.tool, found.call_id, found.arguments, found.result) == (
        "tool",
        "mail",
        "c1",
        {"to": "a"},
        "sent",
    )
    assert found.withheld == ()


def test_a_tool_that_fails_tells_its_error() -> None:
    told = {"gen_ai.tool.name": "mail", "tool_arguments": "{}", "logfire.msg": "running tool: mail"}
    found = facts(span(told, status=2, events=[("exception", {"exception.message": "no such mailbox"})]))
    assert (found.failed, found.arguments, found.result, found.withheld) == (True, {}, "no such mailbox", ())


def test_a_models_messages_were_a_list_of_events() -> None:
    choice = {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "Done."}}
    for told in (json.dumps([*HISTORY, choice]), [*HISTORY, choice]):
        found = facts(span({**CHAT, "events": told}))
        assert (found.kind, said(found.inputs), said(found.outputs)) == ("model", SAID, [("assistant", "Done.")])
        assert found.withheld == ()


def test_events_without_content_are_withheld() -> None:
    events = [
        {"event.name": "gen_ai.user.message", "role": "user", "content": {"kind": "text"}},
        {
            "event.name": "gen_ai.choice",
            "message": {
                "role": "assistant",
                "content": [{"kind": "text"}],
                "tool_calls": [{"id": "c1", "function": {"name": "mail"}}],
            },
        },
    ]
    found = facts(span({**CHAT, "events": json.dumps(events)}))
    assert (found.withheld, found.opaque) == (("inputs", "outputs"), False)
    assert said(found.outputs) == [("assistant", ("mail", None, "c1"))]


def test_a_run_was_a_list_of_events() -> None:
    told = {
        "agent_name": "clerk",
        "model_name": "m",
        "all_messages_events": json.dumps(HISTORY),
        "final_result": "Done.",
    }
    found = facts(span(told, name="agent run"))
    assert (found.kind, found.agent_name, found.withheld) == ("agent", "clerk", ())
    assert (said(found.inputs), said(found.outputs)) == (SAID, [("assistant", "Done.")])


def test_a_run_is_a_list_of_messages() -> None:
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": "Hello"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "Done."}]},
    ]
    told = {
        "gen_ai.operation.name": "invoke_agent",
        "agent_name": "clerk",
        "pydantic_ai.all_messages": json.dumps(messages),
    }
    for final in ({}, {"final_result": "Done."}):
        found = facts(span({**told, **final}))
        assert (said(found.inputs), said(found.outputs)) == ([("user", "Hello")], [("assistant", "Done.")])
        assert found.withheld == ()


def test_a_run_whose_result_is_an_object_answers_with_it() -> None:
    found = facts(span({"agent_name": "clerk", "all_messages_events": "[]", "final_result": '{"ok": true}'}))
    assert said(found.outputs) == [("assistant", '{"ok": true}')]


def test_a_run_without_content_is_withheld() -> None:
    messages = [{"role": "user", "parts": [{"type": "text"}]}, {"role": "assistant", "parts": [{"type": "text"}]}]
    found = facts(span({"gen_ai.operation.name": "invoke_agent", "pydantic_ai.all_messages": json.dumps(messages)}))
    assert sorted(found.withheld) == ["inputs", "outputs"]


def test_spans_that_logfire_makes_of_other_things_say_nothing() -> None:
    assert semconv.read(span({"logfire.msg": "GET /", "http.method": "GET"})) is None


@settings(max_examples=200)
@given(wild(PYDANTIC_AI, "agent_name", "model_request_parameters", "gen_ai.tool.name", "gen_ai.operation.name"))
def test_nothing_in_the_attributes_breaks_it(attributes: dict[str, Any]) -> None:
    semconv.read(span(attributes))
