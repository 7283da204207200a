"""Requests of the Model Context Protocol and of A2A."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from sidecar.core import semconv
from sidecar.core.semconv.names import MCP
from tests.core.semconv.telling import facts, span, wild


@pytest.mark.parametrize(
    "method", ["initialize", "tools/list", "prompts/get", "resources/read", "server/discover", "ping"]
)
def test_only_a_call_of_a_tool_is_an_act(method: str) -> None:
    assert facts(span({"mcp.method.name": method}, name=method)).kind == "context"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("tools/call mail", {}),
        ("MCP send tools/call mail", {}),
        ("tools/call", {"gen_ai.tool.name": "mail"}),
        ("tools/call mail", {"gen_ai.tool.name": "mail", "gen_ai.operation.name": "execute_tool"}),
        ("call", {"mcp.tool.name": "mail"}),
    ],
)
def test_both_sides_name_the_tool_in_their_ways(name: str, more: dict[str, Any]) -> None:
    found = facts(span({"mcp.method.name": "tools/call", "mcp.session.id": "m", **more}, name=name))
    assert (found.kind, found.tool, found.session) == ("tool", "mail", "")
    assert (found.withheld, found.unscored) == (("arguments", "result"), ("withheld",))


@pytest.mark.parametrize(
    "more",
    [
        {"gen_ai.tool.call.arguments": '{"to": "a"}'},
        {"mcp.request.argument.to": "a"},
        {"mcp.tool.arguments": {"to": "a"}},
    ],
)
def test_arguments_are_read_where_they_are_told(more: dict[str, Any]) -> None:
    told = {
        "mcp.method.name": "tools/call",
        "gen_ai.tool.name": "mail",
        **more,
        "gen_ai.tool.call.result": '{"content": [{"type": "text", "text": "sent"}], "isError": false}',
    }
    found = facts(span(told))
    assert (found.arguments, found.result, found.withheld) == ({"to": "a"}, "sent", ())


def test_an_error_of_the_tool_is_a_failure() -> None:
    told = span(
        {"mcp.method.name": "tools/call", "gen_ai.tool.name": "mail", "error.type": "tool_error"},
        status=2,
        status_message="no such mailbox",
    )
    found = facts(told)
    assert (found.failed, found.result, found.withheld) == (True, "no such mailbox", ("arguments",))


def test_requests_between_agents_are_context() -> None:
    found = facts(span({"a2a.method.name": "message/send", "gen_ai.conversation.id": "s"}))
    assert (found.kind, found.session) == ("context", "s")


@settings(max_examples=200)
@given(wild(MCP, "mcp.request.argument.to", "error.type", "mcp.tool.is_error"))
def test_nothing_in_the_attributes_breaks_it(attributes: dict[str, Any]) -> None:
    semconv.read(span(attributes))
