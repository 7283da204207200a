"""What is special to other frameworks that otherwise speak OpenTelemetry GenAI, and proposals that are no act."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import semconv
from tests.core.semconv.telling import facts, log, said, span, values

WRITTEN = {"code.function.name": "invoke_function_call"}


@pytest.mark.parametrize(
    ("told", "arguments"), [('{"to": "a"}', {"to": "a"}), ("{'to': 'a'}", {"to": "a"}), ("None", {})]
)
def test_semantic_kernels_line_before_a_call_tells_its_arguments(told: str, arguments: Any) -> None:
    found = facts(log("", f"Calling mail function with args: {told}", WRITTEN))
    assert (found.kind, found.tool, found.call_id, found.arguments) == ("tool", "mail", "", arguments)
    assert (found.result, found.withheld) == (None, ())


def test_the_same_words_of_another_writer_are_no_act() -> None:
    for attributes in ({}, {"code.function.name": "handle"}):
        assert semconv.read(log("", 'Calling mail function with args: {"to": "a"}', attributes)) is None
    assert semconv.read(log("", "Calling the bank", WRITTEN)) is None


@given(values, values)
def test_no_log_line_breaks_it(body: Any, writer: Any) -> None:
    semconv.read(log("", body, {"code.function.name": writer}))
    if isinstance(body, str):
        semconv.read(log("", f"Calling {body} function with args: {writer}", WRITTEN))


@given(st.text(max_size=20))
def test_any_name_and_arguments_of_that_line_are_taken_as_told(name: str) -> None:
    found = facts(log("", f'Calling tool{name.replace(" function", "")} function with args: {{"a": 1}}', WRITTEN))
    assert (found.kind, found.arguments) == ("tool", {"a": 1})


def test_semantic_kernel_tells_an_empty_input_and_its_own_finish_reasons() -> None:
    told = {"gen_ai.operation.name": "invoke_agent", "gen_ai.input.messages": "[]"}
    found = facts(span(told))
    assert (found.inputs, found.withheld) == ((), ("outputs",))
    told = {"gen_ai.operation.name": "chat.completions", "gen_ai.response.finish_reason": "FinishReason.TOOL_CALLS"}
    found = facts(span(told))
    assert (found.kind, found.finish) == ("model", ("tool_calls",))


def test_a_plugins_name_stays_with_the_tools() -> None:
    told = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "Office-mail", "gen_ai.tool.call.id": "c"}
    assert facts(span(told)).tool == "Office-mail"


def test_autogen_tells_a_tools_name_and_id_alone() -> None:
    told = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.system": "autogen",
        "gen_ai.tool.name": "mail",
        "gen_ai.tool.call.id": "c",
        "gen_ai.tool.description": "Send.",
    }
    found = facts(span(told))
    assert (found.tool, found.call_id, found.withheld, found.unscored) == (
        "mail",
        "c",
        ("arguments", "result"),
        ("withheld",),
    )


def test_creating_an_agent_is_no_run() -> None:
    found = facts(span({"gen_ai.operation.name": "create_agent", "gen_ai.agent.name": "clerk"}))
    assert (found.kind, found.agent_name, found.withheld) == ("context", "clerk", ())


@pytest.mark.parametrize(
    "operation", ["apply_guardrail", "run_guardrail", "evaluate", "handoff", "embeddings", "gate_action"]
)
def test_what_only_watches_an_act_is_context(operation: str) -> None:
    """Proposals in flux; a guardrail's span may name the tool that it guards."""
    told = {
        "gen_ai.operation.name": operation,
        "gen_ai.tool.name": "mail",
        "gen_ai.guardrail.result": "deny",
        "gen_ai.security.verdict": "block",
        "gen_ai.conversation.id": "s",
    }
    found = facts(span(told))
    assert (found.kind, found.session, found.tool) == ("context", "s", "")


def test_a_wrapped_result_is_the_text_in_it() -> None:
    told = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "mail",
        "gen_ai.tool.call.result": '{"result": "sent"}',
    }
    assert facts(span(told)).result == "sent"
    told["gen_ai.tool.call.result"] = '{"result": "sent", "id": 7}'
    assert facts(span(told)).result == {"result": "sent", "id": 7}


def test_a_details_event_without_an_operation_is_a_model_call() -> None:
    told = {
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}],
        "user.id": "u",
    }
    found = facts(log("gen_ai.client.inference.operation.details", None, told))
    assert (found.kind, found.piece, said(found.inputs), found.user) == ("model", False, [("user", "Hello")], "u")


def test_roles_without_words_are_withheld() -> None:
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text"}]}]',
        "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"tool_call","id":"c","name":"mail"}]}]',
    }
    found = facts(span(told))
    assert (found.withheld, found.opaque) == (("inputs", "outputs"), False)
    assert said(found.outputs) == [("assistant", ("mail", None, "c"))]


def test_an_error_is_the_result_only_where_no_convention_tells_one() -> None:
    told = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "mail", "tool_arguments": "{}"}
    events = [("exception", {"exception.message": "no such mailbox"})]
    assert facts(span(told, status=2, events=events)).result == "no such mailbox"
    assert facts(span({**told, "tool_response": "Try again."}, status=2, events=events)).result == "Try again."
    hidden = facts(span({**told, "tool_response": "<REDACTED>"}, status=2, events=events))
    assert (hidden.result, hidden.failed, hidden.withheld) == (None, True, ("result",))
