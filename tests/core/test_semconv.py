"""What a span says is read out of it, whatever stands in its attributes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import semconv
from sidecar.core.semconv.content import structured
from sidecar.core.semconv.facts import plain_text
from sidecar.core.semconv.genai import DETAILS_EVENT
from sidecar.core.semconv.names import GENAI as NAMES
from tests.core.kit import Loom, assistant, call, chat, details, response, span, text, tool, user

KEYS = sorted({name for names in NAMES.values() for name in names} | {"anthropic.message.stop_reason", "error.type"})

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=8)
    | st.sampled_from(["chat", "execute_tool", "invoke_agent", "retrieval", "search_memory", "[", '{"a', "user", "text",
                       "tool_call", "tool_call_response", '[{"role":"user","parts":[{"type":"text"}]}]']),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["role", "parts", "type", "content", "id", "name", "arguments", "response"]) | st.text(),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), values, max_size=8),
    st.sampled_from(["span", "log"]),
    st.sampled_from(["chat", "execute_tool", "invoke_agent", "retrieval", "create_memory", None]),
)
def test_no_attributes_break_the_weaving(attributes: dict[str, object], signal: str, operation: str | None) -> None:
    if operation:
        attributes["gen_ai.operation.name"] = operation
    told = span(attributes, 0, 1)
    if signal == "log":
        told = details(told)
    loom = Loom()
    loom.take(told)
    loom.end()
    for event in loom.events:
        assert set(event.unscored) <= set(semconv_reasons())


def semconv_reasons() -> tuple[str, ...]:
    from sidecar.core.events import UNSCORED

    return UNSCORED


@pytest.mark.parametrize("finish", [5, True, 1.5, float("nan"), {"a": 1}, [None, {}], "[", ["TOOL_CALLS"], '["stop"]'])
def test_finish_reasons_of_any_shape_are_taken(finish: object) -> None:
    facts = semconv.read(chat(attributes={"gen_ai.response.finish_reasons": finish}))
    assert facts is not None
    assert all(isinstance(reason, str) and reason == reason.lower() for reason in facts.finish)


@pytest.mark.parametrize("finish", ["tool_calls", ["tool_calls"], '["tool_calls"]', ["TOOL_CALLS"]])
def test_a_wish_to_call_tools_is_read_in_every_shape(finish: object) -> None:
    facts = semconv.read(chat(attributes={"gen_ai.response.finish_reasons": finish}))
    assert facts is not None
    assert facts.finish == ("tool_calls",)


def test_a_span_of_no_convention_says_nothing() -> None:
    assert semconv.read(span({"http.method": "GET"}, 0, 1)) is None


def test_a_log_record_counts_only_if_it_is_the_details_event() -> None:
    record = details(chat([user("a")], [assistant("b")]))
    assert semconv.read(record) is not None
    from msgspec.structs import replace

    assert semconv.read(replace(record, name="gen_ai.something")) is None
    named = replace(record, name="", attributes=record.attributes | {"event.name": DETAILS_EVENT})
    assert semconv.read(named) is not None


def test_arguments_come_as_json_or_as_structure() -> None:
    for told in ('{"to": "a"}', {"to": "a"}):
        facts = semconv.read(tool("t", attributes={"gen_ai.tool.call.arguments": told}))
        assert facts is not None
        assert facts.arguments == {"to": "a"}


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**62), 2**62) | st.lists(st.text()), max_size=5))
def test_json_is_read_back_and_what_is_cut_is_said(value: dict[str, object]) -> None:
    whole = json.dumps(value)
    assert structured(whole) == (value, False)
    for length in range(3, len(whole)):
        got, cut = structured(whole[:length])
        assert got == whole[:length]
        if whole[1] == '"' and whole[length - 1] not in "}] ":
            assert cut


@pytest.mark.parametrize("words", ["{not json}", "[x] done", "{ }} ", "text", "", "[", "{"])
def test_a_text_that_is_no_json_stays_a_text(words: str) -> None:
    assert structured(words) in ((words, False), (words, True))
    assert structured(words)[1] is False


@given(values)
def test_anything_has_a_text(value: object) -> None:
    assert isinstance(plain_text(value), str)


@pytest.mark.parametrize("message", [
    {"role": "user", "content": "hello"},
    {"role": "user", "parts": [text("hello")]},
    {"role": "user", "parts": ["hello"]},
    {"role": "user", "content": ["hello"]},
    {"role": "user", "content": [{"type": "text", "text": "hello"}]},
])  # fmt: skip
def test_messages_are_read_in_every_shape(message: dict[str, object]) -> None:
    loom = Loom()
    loom.take(chat([message], [], session="s"))
    assert loom.said == [("inbound", "hello")]


def test_parts_keep_their_meaning() -> None:
    facts = semconv.read(chat([user("q", response("c1", {"a": 1}))], [assistant("w", call("c2", "t", '{"b": 2}'))]))
    assert facts is not None
    assert facts.inputs is not None
    assert facts.outputs is not None
    assert [(part.type, part.id, part.value) for part in facts.inputs[0].parts] == [
        ("text", "", None), ("response", "c1", {"a": 1})]  # fmt: skip
    assert [(part.type, part.name, part.value) for part in facts.outputs[0].parts] == [
        ("text", "", None), ("call", "t", {"b": 2})]  # fmt: skip


def test_memory_and_retrieval_are_tools_that_the_framework_calls() -> None:
    loom = Loom()
    loom.take(span({"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.query.text": "salaries",
                    "gen_ai.retrieval.documents": '["Ada 61200"]'}, 0, 1, session="s"))  # fmt: skip
    (act,) = loom.acts
    assert (act.tool, act.arguments, act.result) == ("retrieval", {"retrieval.query.text": "salaries"}, ["Ada 61200"])


def test_the_librarys_call_id_goes_before_the_models() -> None:
    facts = semconv.read(tool("t", {}, call_id="c1", attributes={"sidecar.call.id": "sc-1"}))
    assert facts is not None
    assert facts.call_id == "sc-1"


@pytest.mark.parametrize("count", [-1, 2**53, True, "7", 1.5, None])
def test_a_count_of_tokens_that_is_none_is_not_told(count: object) -> None:
    facts = semconv.read(chat(attributes={"gen_ai.usage.input_tokens": count}))
    assert facts is not None
    assert facts.input_tokens == -1
