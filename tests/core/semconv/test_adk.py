"""Google's ADK in its own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from sidecar.core import semconv
from sidecar.core.semconv.names import ADK
from tests.core.semconv.telling import facts, said, span, wild

TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "mail", "gen_ai.tool.call.id": "adk-1"}


def tool(arguments: Any, result: Any, **more: Any) -> Any:
    told = {"gcp.vertex.agent.tool_call_args": arguments, "gcp.vertex.agent.tool_response": result, **more}
    return facts(span({**TOOL, "gcp.vertex.agent.llm_request": "{}", "gcp.vertex.agent.llm_response": "{}", **told}))


def test_a_tools_span_tells_arguments_and_result() -> None:
    found = tool('{"to": "a"}', '{"result": "sent"}')
    assert (found.kind, found.tool, found.call_id, found.failed) == ("tool", "mail", "adk-1", False)
    assert (found.arguments, found.result, found.withheld) == ({"to": "a"}, "sent", ())
    assert tool("{}", '{"status": "sent"}').result == {"status": "sent"}


def test_an_error_is_a_failure() -> None:
    found = tool('{"to": "a"}', '{"error": "no such mailbox"}')
    assert (found.failed, found.result) == (True, "no such mailbox")
    assert not tool("{}", '{"error": "none", "ok": true}').failed


def test_empty_objects_on_both_sides_are_redaction_and_on_one_side_content() -> None:
    found = tool("{}", "{}")
    assert (found.arguments, found.result, found.withheld) == (None, None, ("arguments", "result"))
    assert found.unscored == ("withheld",)
    found = tool("{}", '{"result": "ok"}')
    assert (found.arguments, found.withheld) == ({}, ())
    found = tool('{"to": "a"}', "{}")
    assert (found.result, found.withheld) == ({}, ())


@pytest.mark.parametrize("untold", ["N/A", "<not specified>", "<not serializable>"])
def test_what_could_not_be_written_is_no_content(untold: str) -> None:
    found = tool(untold, untold)
    assert (found.arguments, found.result) == (None, None)


def test_a_span_that_repeats_the_results_of_several_tools_is_no_act() -> None:
    merged = {"gen_ai.tool.name": "(merged tools)", "gen_ai.tool.call.id": "event"}
    assert tool("N/A", '{"content": {"parts": []}}', **merged).kind == "context"
    new = {"gen_ai.operation.name": "execute_tool", "gcp.vertex.agent.event_id": "e", **merged}
    assert facts(span(new)).kind == "context"


def model(request: Any, response: Any) -> Any:
    attributes = {
        "gcp.vertex.agent.session_id": "s",
        "gcp.vertex.agent.llm_request": request,
        "gcp.vertex.agent.llm_response": response,
        "gen_ai.usage.input_tokens": 12,
    }
    return facts(span(attributes, name="call_llm"))


def test_a_models_span_tells_geminis_contents() -> None:
    request = {
        "model": "m",
        "config": {
            "system_instruction": "Be brief.",
            "labels": {"adk_agent_name": "clerk"},
            "tools": [{"function_declarations": [{"name": "mail"}, {"name": "post"}]}],
        },
        "contents": [
            {"role": "user", "parts": [{"text": "Hello"}]},
            {"role": "model", "parts": [{"function_call": {"name": "mail", "args": {"to": "a"}}}]},
            {"role": "user", "parts": [{"function_response": {"name": "mail", "response": {"result": "sent"}}}]},
        ],
    }
    response = {
        "content": {"role": "model", "parts": [{"text": "Hm.", "thought": True}, {"text": "Done."}]},
        "finish_reason": "STOP",
    }
    found = model(json.dumps(request), json.dumps(response))
    assert (found.kind, found.session, found.agent_name, found.withheld) == ("model", "s", "clerk", ())
    assert said(found.inputs) == [("user", "Hello"), ("assistant", ("mail", {"to": "a"}, "")), ("user", ("", "sent"))]
    assert said(found.outputs) == [("assistant", ("reasoning", "Hm."), "Done.")]
    assert (found.system, found.tools, found.finish) == (("Be brief.",), ("mail", "post"), ("stop",))
    assert found.input_tokens == 12


def test_a_models_redaction_is_withheld() -> None:
    found = model("{}", "{}")
    assert (found.kind, found.inputs, found.outputs, found.withheld) == ("model", None, None, ("inputs", "outputs"))


def test_an_answer_without_content_is_not_told() -> None:
    found = model('{"contents": []}', '{"error_code": "500", "finish_reason": "OTHER"}')
    assert (found.inputs, found.outputs, found.withheld) == ((), None, ("outputs",))


def test_a_cut_request_is_not_called_whole() -> None:
    assert "inputs" in model('{"contents": [{"role": "user", "par', "{}").cut


def test_what_a_live_session_sends_is_the_users() -> None:
    data = json.dumps([{"role": "user", "parts": [{"text": "Hello"}]}])
    found = facts(span({"gcp.vertex.agent.data": data, "gcp.vertex.agent.event_id": "e"}))
    assert (found.kind, said(found.inputs), found.withheld) == ("agent", [("user", "Hello")], ())


def test_a_place_in_a_message_is_no_id_of_a_call() -> None:
    """ADK 2 names a call of Gemini, which has no id, by its tool and its place, and the answer by another place."""
    messages = [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "find_file_2", "name": "find_file", "arguments": {"q": "a"}}],
        },
        {
            "role": "user",
            "parts": [{"type": "tool_call_response", "id": "find_file_0", "response": {"result": "none"}}],
        },
    ]
    told = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.input.messages": messages,
        "gcp.vertex.agent.event_id": "e",
    }
    first, second = facts(span(told)).inputs or ()
    assert (first.parts[0].id, first.parts[0].name) == ("", "find_file")
    assert (second.parts[0].id, second.parts[0].name, second.parts[0].value) == ("", "find_file", "none")


@settings(max_examples=200)
@given(wild(ADK, "gen_ai.operation.name", "gen_ai.tool.name", "gcp.vertex.agent.event_id"))
def test_nothing_in_the_attributes_breaks_it(attributes: dict[str, Any]) -> None:
    semconv.read(span(attributes))
