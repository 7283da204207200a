"""Claude Code's spans and log events, and those of its like."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import semconv
from sidecar.core.semconv.names import CLAUDE_CODE
from sidecar.core.span import Span
from tests.core.semconv.telling import facts, log, said, span, values, wild


def event(name: str, **attributes: Any) -> Span:
    """A log record as Claude Code writes it: the body is the event's full name, its attribute the short one."""
    return log("", f"claude_code.{name}", {"session.id": "s", "event.name": name, **attributes})


TOOL = {
    "span.type": "tool",
    "tool_name": "mcp__office__mail",
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "mail",
    "tool_use_id": "toolu_1",
    "gen_ai.tool.call.id": "toolu_1",
}


def test_a_tools_span_tells_the_result_and_its_log_event_the_arguments() -> None:
    found = facts(span(TOOL, events=[("tool.output", {"output": "sent"})]))
    assert (found.kind, found.tool, found.call_id) == ("tool", "mail", "toolu_1")
    assert (found.arguments, found.result, found.withheld) == (None, "sent", ("arguments",))
    found = facts(
        event(
            "tool_result",
            tool_name="mcp_tool",
            tool_use_id="toolu_1",
            success="true",
            tool_parameters='{"mcp_server_name":"office","mcp_tool_name":"mail"}',
            tool_input='{"to":"a"}',
        )
    )
    assert (found.kind, found.tool, found.call_id, found.session) == ("tool", "mcp__office__mail", "toolu_1", "s")
    assert (found.arguments, found.result, found.withheld, found.failed) == ({"to": "a"}, None, ("result",), False)


def test_detailed_tracing_tells_the_arguments_on_the_span() -> None:
    told = {
        "span.type": "tool",
        "tool_name": "Bash",
        "tool_use_id": "t",
        "tool_input": '[TOOL INPUT: Bash]\n{"command": "ls"}',
    }
    found = facts(span(told))
    assert (found.tool, found.arguments) == ("Bash", {"command": "ls"})


def test_several_outputs_are_one_result() -> None:
    found = facts(span(TOOL, events=[("tool.output", {"output": "a"}), ("tool.output", {"content": "b"}), ("x", {})]))
    assert found.result == "a\nb"


def test_without_details_the_act_is_named_as_far_as_it_is_told() -> None:
    found = facts(event("tool_result", tool_name="mcp_tool", tool_use_id="toolu_1", success="true"))
    assert (found.tool, found.withheld, found.unscored) == ("mcp_tool", ("arguments", "result"), ("withheld",))


def test_older_versions_tell_a_command_among_the_parameters() -> None:
    found = facts(event("tool_result", tool_name="Bash", success="true", tool_parameters='{"bash_command":"ls"}'))
    assert (found.tool, found.arguments) == ("Bash", {"bash_command": "ls"})


def test_a_failure_tells_its_error() -> None:
    found = facts(event("tool_result", tool_name="Bash", tool_use_id="t", success="false", error="exit 1"))
    assert (found.failed, found.result, found.withheld) == (True, "exit 1", ("arguments",))
    told = {"span.type": "tool.execution", "tool_use_id": "t", "success": False, "error": "exit 1"}
    found = facts(span(told))
    assert (found.kind, found.tool, found.call_id, found.failed, found.result) == ("tool", "", "t", True, "exit 1")


@pytest.mark.parametrize(
    "told",
    [
        span({"span.type": "tool.execution", "tool_use_id": "t", "success": True}),
        span({"span.type": "tool.blocked_on_user", "decision": "accept"}),
        event(
            "tool_decision",
            tool_name="mcp_tool",
            tool_use_id="t",
            decision="accept",
            tool_parameters='{"mcp_server_name":"office","mcp_tool_name":"mail"}',
        ),
        event("api_request", model="m", input_tokens=3, prompt="x"),
        event("plugin_loaded"),
    ],
)
def test_what_only_goes_with_an_act_is_context(told: Span) -> None:
    assert facts(told).kind == "context"


@pytest.mark.parametrize(
    "told", [event("user_prompt", prompt="Hello"), span({"span.type": "interaction", "user_prompt": "Hello"})]
)
def test_a_prompt_is_the_users(told: Span) -> None:
    found = facts(told)
    assert (found.kind, said(found.inputs), found.outputs) == ("agent", [("user", "Hello")], None)


def test_a_response_is_the_agents() -> None:
    found = facts(event("assistant_response", response="Done."))
    assert (found.kind, said(found.outputs), found.withheld) == ("agent", [("assistant", "Done.")], ())


@pytest.mark.parametrize(
    ("told", "field"),
    [
        (event("user_prompt", prompt="<REDACTED>", prompt_text="<REDACTED>"), "inputs"),
        (event("assistant_response", response="<REDACTED>"), "outputs"),
        (span({"span.type": "interaction", "user_prompt": "<REDACTED>"}), "inputs"),
    ],
)
def test_a_marker_is_never_content(told: Span, field: str) -> None:
    found = facts(told)
    assert (found.inputs, found.outputs, found.withheld) == (None, None, (field,))


def test_a_models_span_tells_its_model_and_how_it_ended() -> None:
    told = {
        "span.type": "llm_request",
        "model": "m",
        "input_tokens": 3,
        "output_tokens": 4,
        "success": True,
        "stop_reason": "tool_use",
    }
    found = facts(span(told))
    assert (found.kind, found.model, found.finish, found.input_tokens, found.output_tokens) == (
        "model",
        "m",
        ("tool_use",),
        3,
        4,
    )
    assert found.withheld == ("inputs", "outputs")
    assert said(facts(span({**told, "response.model_output": "Done."})).outputs) == [("assistant", "Done.")]


def test_others_log_under_their_own_prefix() -> None:
    codex = {
        "event.name": "codex.tool_result",
        "conversation.id": "s",
        "tool_name": "shell",
        "call_id": "c",
        "arguments": '{"command":["ls"]}',
        "output": "a.txt",
        "success": "true",
    }
    found = facts(log("", None, codex))
    assert (found.tool, found.call_id, found.arguments, found.result) == ("shell", "c", {"command": ["ls"]}, "a.txt")
    assert found.session == "s"
    gemini = {
        "event.name": "gemini_cli.tool_call",
        "function_name": "shell",
        "function_args": '{"command":"ls"}',
        "success": True,
    }
    assert facts(log("", "Tool call: shell.", gemini)).arguments == {"command": "ls"}
    assert said(facts(log("codex.user_prompt", None, {"prompt": "Hello"})).inputs) == [("user", "Hello")]


def test_another_kind_of_span_type_is_not_ours() -> None:
    assert semconv.read(span({"span.type": "web", "http.method": "GET"})) is None


@settings(max_examples=200)
@given(
    wild(CLAUDE_CODE, "success", "event.name"),
    st.sampled_from(["tool_result", "user_prompt", "assistant_response", "tool"]),
    values,
)
def test_nothing_in_the_attributes_breaks_it(attributes: dict[str, Any], name: str, body: Any) -> None:
    semconv.read(span(attributes, events=[("tool.output", attributes)]))
    semconv.read(span({**attributes, "span.type": name}))
    semconv.read(log(f"claude_code.{name}", body, attributes))
    semconv.read(log("", body, {**attributes, "event.name": name}))
