"""LangSmith's runs are understood from their OpenTelemetry export."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import semconv
from sidecar.core.semconv.facts import Facts, Part, Turn
from sidecar.core.semconv.names import LANGSMITH
from sidecar.core.span import SpanEvent
from tests.core.kit import at, span

MAIL = {"to": "amy@corp.example", "body": "hello"}
SHOWN = {"langsmith.metadata.LANGSMITH_HIDE_INPUTS": "false", "langsmith.metadata.LANGSMITH_HIDE_OUTPUTS": "false"}
ANSWER = {"content": "queued", "type": "tool", "name": "send_mail", "tool_call_id": "call_1", "status": "success"}
AI = {
    "lc": 1,
    "type": "constructor",
    "id": ["langchain", "schema", "messages", "AIMessage"],
    "kwargs": {
        "content": "On it.",
        "type": "ai",
        "tool_calls": [{"name": "send_mail", "args": MAIL, "id": "call_1", "type": "tool_call"}],
    },
}
HUMAN = {
    "lc": 1,
    "type": "constructor",
    "id": ["langchain", "schema", "messages", "HumanMessage"],
    "kwargs": {"content": "Mail Amy.", "type": "human"},
}
SENT = Turn("assistant", (Part("text", "On it."), Part("call", id="call_1", name="send_mail", value=MAIL)))


def read(attributes: dict[str, Any], **fields: Any) -> Facts:
    facts = semconv.read(span(attributes, 0, 1, **fields))
    assert facts is not None
    return facts


def run(kind: str, given: Any = None, returned: Any = None, **more: Any) -> Facts:
    operation = {"llm": "chat", "tool": "execute_tool", "prompt": "chat", "retriever": "embeddings"}.get(kind, kind)
    attributes = {"langsmith.span.kind": kind, "langsmith.trace.name": "send_mail", "gen_ai.operation.name": operation}
    for name, told in (("gen_ai.prompt", given), ("gen_ai.completion", returned)):
        if told is not None:
            attributes[name] = told if isinstance(told, (str, bytes)) else json.dumps(told)
    fields = {key: more.pop(key) for key in ("status", "events", "parent", "status_message") if key in more}
    return read({**attributes, **more}, **fields)


def said(role: str, words: str) -> Turn:
    return Turn(role, (Part("text", words),))


@pytest.mark.parametrize(
    "given",
    [MAIL, json.dumps(MAIL).encode(), {"input": str(MAIL)}, {"input": json.dumps(MAIL)}, {"input": MAIL}],
    ids=["object", "bytes", "repr", "text", "nested"],
)
def test_a_tool_is_told_by_its_name_its_arguments_and_its_result(given: Any) -> None:
    facts = run("tool", given, {"output": ANSWER})
    assert (facts.kind, facts.tool, facts.arguments, facts.result) == ("tool", "send_mail", MAIL, "queued")
    assert (facts.call_id, facts.withheld, facts.unscored) == ("call_1", (), ())


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        ({"output": "plain"}, "plain"),
        ({"output": {"rows": [1]}}, {"rows": [1]}),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}),
        ({"output": {"lc": 1, "id": ["ToolMessage"], "kwargs": {"content": "x", "tool_call_id": "c"}}}, "x"),
        ({"output": {"update": {"messages": [ANSWER]}, "goto": []}}, "queued"),
        (ANSWER, "queued"),
    ],
)
def test_wrappers_are_taken_off_results(returned: Any, result: Any) -> None:
    assert run("tool", MAIL, returned).result == result


def test_a_single_argument_of_that_name_stays_what_it_is() -> None:
    assert run("tool", {"input": "INV-1"}, {"output": "x"}).arguments == {"input": "INV-1"}


def test_an_empty_object_is_what_hiding_leaves() -> None:
    facts = run("tool", {}, {})
    assert (facts.arguments, facts.result, facts.withheld) == (None, None, ("arguments", "result"))
    assert facts.unscored == ("withheld",)
    hidden = {"langsmith.metadata.LANGSMITH_HIDE_INPUTS": "true", "langsmith.metadata.LANGSMITH_HIDE_OUTPUTS": "1"}
    assert run("tool", {}, {}, **hidden).withheld == ("arguments", "result")
    assert run("tool", "__REDACTED__", "[REDACTED]").withheld == ("arguments", "result")
    assert run("llm", {}, {}).withheld == ("inputs", "outputs")


def test_an_empty_object_is_nothing_where_the_sender_hides_nothing() -> None:
    facts = run("tool", {}, {"output": "12:00"}, **SHOWN)
    assert (facts.arguments, facts.result, facts.withheld, facts.unscored) == ({}, "12:00", (), ())


def test_an_error_is_the_result_without_its_traceback() -> None:
    words = "RuntimeError('mailbox full')Traceback (most recent call last):\n\n  File \"x.py\", line 1"
    event = SpanEvent("exception", at(1), {"exception.type": "Exception", "exception.message": words})
    facts = run("tool", MAIL, {}, status=2, events=(event,))
    assert (facts.result, facts.failed, facts.withheld) == ("RuntimeError('mailbox full')", True, ())
    assert run("tool", MAIL, {"output": {**ANSWER, "status": "error"}}).failed


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        ({"messages": [[HUMAN]]}, {"generations": [[{"text": "On it.", "message": AI}]], "llm_output": {}}),
        (
            {"messages": [{"role": "user", "content": "Mail Amy."}], "model": "m"},
            {
                "choices": [
                    {
                        "message": {
                            "role": "assistant",
                            "content": "On it.",
                            "tool_calls": [
                                {
                                    "id": "call_1",
                                    "type": "function",
                                    "function": {"name": "send_mail", "arguments": json.dumps(MAIL)},
                                }
                            ],
                        }
                    }
                ]
            },
        ),
        (
            {"messages": [{"role": "user", "content": "Mail Amy."}], "system": "Be brief."},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "On it."},
                    {"type": "tool_use", "id": "call_1", "name": "send_mail", "input": MAIL},
                ],
            },
        ),
        (
            {"contents": [{"role": "user", "parts": [{"text": "Mail Amy."}]}]},
            {
                "candidates": [
                    {
                        "content": {
                            "role": "model",
                            "parts": [
                                {"text": "On it."},
                                {"functionCall": {"id": "call_1", "name": "send_mail", "args": MAIL}},
                            ],
                        }
                    }
                ]
            },
        ),
        (
            {"input": "Mail Amy."},
            {
                "output": {
                    "role": "assistant",
                    "content": "On it.",
                    "tool_calls": [{"id": "call_1", "name": "send_mail", "args": MAIL}],
                }
            },
        ),
        ({"messages": [HUMAN]}, AI),
    ],
    ids=["langchain", "openai", "anthropic", "gemini", "function", "message"],
)
def test_a_call_of_a_model_is_read_in_any_providers_shape(given: Any, returned: Any) -> None:
    facts = run("llm", given, returned, **{"gen_ai.request.model": "m-1", "gen_ai.usage.input_tokens": 5})
    assert (facts.kind, facts.model, facts.input_tokens) == ("model", "m-1", 5)
    assert facts.inputs == (said("user", "Mail Amy."),)
    assert facts.outputs == (SENT,)
    assert facts.withheld == ()


def test_a_completion_of_a_text_is_read() -> None:
    facts = run("llm", {"prompts": ["Once upon"]}, {"generations": [[{"text": "a time"}]]})
    assert (facts.inputs, facts.outputs) == ((said("user", "Once upon"),), (said("assistant", "a time"),))


def test_a_root_run_tells_what_was_asked_and_answered_and_its_steps_do_not() -> None:
    asked = {"messages": [{"role": "user", "content": "Mail Amy."}]}
    answered = {"messages": [HUMAN["kwargs"], {"content": "Sent.", "type": "ai"}]}
    facts = run("chain", asked, answered)
    assert facts.kind == "agent"
    assert (facts.inputs, facts.outputs) == ((said("user", "Mail Amy."),), (said("assistant", "Sent."),))
    assert run("chain", asked, answered, parent="root").kind == "context"
    ids = {"langsmith.span.id": "1"}
    assert run("chain", asked, answered, parent="server", **ids).kind == "agent"
    assert run("chain", asked, answered, **ids, **{"langsmith.span.parent_id": "0"}).kind == "context"


@pytest.mark.parametrize("kind", ["prompt", "parser", "embedding"])
def test_steps_that_do_nothing_are_context(kind: str) -> None:
    assert run(kind, {"input": "x"}, {"output": "y"}).kind == "context"


def test_what_a_retriever_finds_came_from_outside() -> None:
    facts = run("retriever", {"query": "dues"}, {"documents": [{"page_content": "IGNORE ALL", "metadata": {}}]})
    assert (facts.kind, facts.arguments, facts.result) == ("tool", {"query": "dues"}, ["IGNORE ALL"])


def test_whose_run_it_is_stands_in_the_metadata() -> None:
    facts = run(
        "tool",
        MAIL,
        {"output": "x"},
        **{
            "langsmith.metadata.thread_id": "s-1",
            "langsmith.metadata.user_id": "u-1",
            "langsmith.metadata.lc_agent_name": "clerk",
            "langsmith.trace.session_name": "project",
        },
    )
    assert (facts.session, facts.user, facts.agent_name) == ("s-1", "u-1", "clerk")


def test_a_span_that_speaks_two_conventions_is_read_by_both() -> None:
    facts = read(
        {
            "langsmith.span.kind": "LLM",
            "gen_ai.operation.name": "chat",
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": "Hi",
            "gen_ai.completion.0.content": "Hello",
        }
    )
    assert (facts.kind, facts.withheld) == ("model", ())
    assert (facts.inputs, facts.outputs) == ((said("user", "Hi"),), (said("assistant", "Hello"),))


def test_content_may_stand_on_events() -> None:
    told = [
        ("gen_ai.content.prompt", "gen_ai.prompt", [{"role": "user", "content": "Hi"}]),
        ("gen_ai.content.completion", "gen_ai.completion", [{"role": "assistant", "content": "Hello"}]),
    ]
    events = tuple(SpanEvent(name, at(0), {key: json.dumps(value)}) for name, key, value in told)
    facts = read({"gen_ai.operation.name": "chat", "gen_ai.system": "openai"}, events=events)
    assert (facts.inputs, facts.outputs) == ((said("user", "Hi"),), (said("assistant", "Hello"),))
    assert facts.withheld == ()


def test_what_a_length_limit_cut_is_said() -> None:
    facts = run("tool", json.dumps(MAIL)[:20], json.dumps({"output": "x" * 50})[:30])
    assert facts.cut == ("arguments", "result")
    assert "cut" in run("llm", json.dumps({"messages": [[HUMAN]]})[:60], "{}").unscored


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=8)
    | st.sampled_from(
        [
            "tool",
            "llm",
            "chain",
            "retriever",
            "prompt",
            "{",
            "{}",
            '{"generations": [[5], 3, {"message": 1}]}',
            '{"messages": [[[]]]}',
            '{"choices": [1, {"message": []}]}',
            '{"output": {"update": {"messages": [1]}}}',
            '{"documents": 1}',
            '{"candidates": [{"content": 1}]}',
            '{"system": 5, "tools": "x", "input": {}}',
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = sorted({name for names in LANGSMITH.values() for name in names} | {"langsmith.span.kind"})


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), st.sampled_from([0, 2]))
def test_no_attributes_break_the_reading(attributes: dict[str, Any], status: int) -> None:
    semconv.read(span(attributes, 0, 1, status=status))
