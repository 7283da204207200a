"""Spans and log records of any kind: reading never fails, says only what facts can say, and costs no more.

`tests/fuzz` does the same with coverage-guided inputs for an hour; what it found is tested here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import semconv
from sidecar.core.events import Event
from sidecar.core.semconv.facts import MAX_PARTS
from sidecar.core.semconv.messages import turns
from sidecar.core.span import Record, Span, SpanEvent
from tests.core.semconv import telling
from tests.core.semconv.telling import AT_NS
from tests.fuzz.harness import pipeline
from tests.fuzz.program import EVENTS, KEYS, PARTS, TITLES, WORDS
from tests.fuzz.shapes import check

INDICES = ("0", "1", "2", "17", "4096", "999999", "1000000000", "-1", "x", "", "٣", "1.2")
any_text = st.text(st.characters(exclude_categories=()), max_size=20)
words = st.sampled_from(WORDS) | any_text
places = st.sampled_from(INDICES) | st.integers(0, 5).map(str)


def _filled(template: str, number: str, word: str) -> str:
    return template.replace("{n}", number).replace("{w}", word).replace("{j}", "{}")


keys = st.builds(_filled, st.sampled_from(KEYS), places, words) | any_text
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=8) | words
    | st.sampled_from([10**400, -(2**63), float("nan"), float("-inf"), "1" * 5000])
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(PARTS) | any_text, inner, max_size=5),
    max_leaves=12,
)


def _json(value: Any) -> str:
    return json.dumps(value, default=repr)


def _cut(told: str, share: float) -> str:
    return told[: int(len(told) * share)]


def _deep(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"content": value}
    return value


texts_of_trees = trees.map(_json) | trees.map(repr) | trees.map(lambda value: json.dumps(_json(value)))
values = (
    trees
    | texts_of_trees
    | st.builds(_cut, texts_of_trees, st.floats(0, 1))
    | st.builds(_deep, trees, st.integers(1, 30)).map(_json)
    | st.integers(1, 100_000).map(lambda depth: "[" * depth)
    | st.builds(lambda told, times: told * times, texts_of_trees, st.sampled_from([1, 10, 1000]))
)
attributes = st.dictionaries(keys, values, max_size=10)
span_ids = st.sampled_from(["", *(f"{n:016x}" for n in range(1, 7))])
titles = st.builds(_filled, st.sampled_from(TITLES), places, words) | any_text
times = st.integers(0, 2**63 - 1) | st.integers(AT_NS, AT_NS + 10**10)
spans = st.builds(
    Span,
    signal=st.sampled_from(["span", "log"]),
    trace_id=st.sampled_from(["", "1" * 32, "2" * 32]),
    span_id=span_ids,
    parent_id=span_ids,
    name=titles,
    start_ns=times,
    end_ns=times,
    attributes=attributes,
    body=values,
    events=st.lists(
        st.builds(SpanEvent, st.builds(_filled, st.sampled_from(EVENTS), places, words), times, attributes), max_size=3
    ).map(tuple),
    status=st.integers(0, 2),
    status_message=words,
    dropped=st.integers(0, 3),
    notes=st.sampled_from([(), ("cut",), ("nonfinite", "duplicate_key")]),
    scope=words,
)


@settings(max_examples=120)
@given(spans)
def test_whatever_a_span_holds_its_facts_are_whole(told: Span) -> None:
    check(semconv.read(told), told)


@settings(max_examples=60)
@given(st.lists(spans, max_size=6), st.booleans())
def test_whatever_is_told_in_whatever_order_is_woven(told: list[Span], keeps_journal: bool) -> None:
    core = pipeline(journal_bytes=1 << 20 if keeps_journal else 0)
    events: list[Event] = []
    for span in told:
        events += core.feed(Record(span, arrived_ns=AT_NS), AT_NS).events
    events += core.tick(AT_NS + 10**10, last=True).events
    assert all(event.session == core.sessions.resolve(event.session) or event.session.id for event in events)


# ---------------------------------------------------------------- many and large


@pytest.mark.parametrize("name", [key for key in KEYS if "{n}" in key])
def test_thousands_of_numbered_attributes_are_bounded(name: str) -> None:
    many = {_filled(name.replace("{n}", str(n), 1), "0", "w"): "x" for n in range(3 * MAX_PARTS)}
    told = telling.span({**many, "gen_ai.operation.name": "chat", "openinference.span.kind": "LLM"})
    check(semconv.read(told), told)


@pytest.mark.parametrize("field", ["gen_ai.input.messages", "gen_ai.prompt", "traceloop.entity.input", "ai.prompt",
                                   "crewai.crew.tasks_output", "input.value", "all_messages_events"])  # fmt: skip
def test_of_lists_of_tens_of_thousands_of_messages_so_many_are_read(field: str) -> None:
    many = _json([{"role": "user", "content": "x", "event.name": "gen_ai.user.message"}] * 10 * MAX_PARTS)
    told = telling.span({field: many, "gen_ai.operation.name": "chat", "openinference.span.kind": "LLM",
                         "gen_ai.request.model": "m", "traceloop.span.kind": "workflow",
                         "ai.operationId": "ai.generateText"})  # fmt: skip
    check(semconv.read(told), told)


def test_events_with_long_lists_each_are_bounded_together() -> None:
    content = _json([{"role": "user", "content": "x"}] * MAX_PARTS)
    events = [("gen_ai.content.prompt", {"gen_ai.prompt": content})] * 8
    told = telling.span({"gen_ai.operation.name": "chat"}, events=events)
    check(semconv.read(told), told)


LONG: dict[str, Callable[[int], str]] = {
    "brackets": lambda size: "[" * size,
    "braces": lambda size: '{"a":' * (size // 5),
    "closed": lambda size: "[" * (size // 2) + "]" * (size // 2),
    "quotes": lambda size: "'" * size,
    "escapes": lambda size: "'" + "\\" * (size - 1),
    "escaped quotes": lambda size: "['" + "\\'" * (size // 2),
    "pairs": lambda size: "tool=x " * (size // 7),
    "equals": lambda size: "=" * size,
    "equal braces": lambda size: "a={ " * (size // 4),
    "words": lambda size: "calling tool " * (size // 13),
    "outputs": lambda size: "[" + "TaskOutput(messages=[{'a': 1}]), " * (size // 33) + "]",
    "open outputs": lambda size: "[TaskOutput(" * (size // 12),
    "react": lambda size: "Thought: " + "Action: x Action Input: {" * (size // 25),
    "nested text": lambda size: json.dumps(json.dumps(json.dumps("{" * (size // 8)))),
    "repr": lambda size: repr([{"role": "user", "content": "x"}] * (size // 36)),
    "messages": lambda size: _json([{"role": "user", "content": "x"}] * (size // 36)),
    "names": lambda size: "tool_" * (size // 5),
}
HOMES = {
    "a tool's arguments": lambda text: telling.span({"gen_ai.tool.name": "x", "gen_ai.tool.call.arguments": text}),
    "a tool's result": lambda text: telling.span({"gen_ai.tool.name": "x", "gen_ai.tool.call.result": text}),
    "a model's input": lambda text: telling.span({"gen_ai.operation.name": "chat", "gen_ai.input.messages": text}),
    "a prompt": lambda text: telling.span({"gen_ai.prompt": text, "langsmith.span.kind": "llm"}),
    "OpenInference": lambda text: telling.span({"openinference.span.kind": "TOOL", "input.value": text,
                                                "output.value": text}),
    "Traceloop": lambda text: telling.span({"traceloop.span.kind": "tool", "traceloop.entity.input": text,
                                            "traceloop.entity.output": text}),
    "a crew": lambda text: telling.span({"crewai.crew.tasks_output": text, "crewai.crew.id": "c"}),
    "nobody's": lambda text: telling.span({"tool.name": "x", "tool.args": text, "tool.result": text, "prompt": text}),
    "a log": lambda text: telling.log("", text),
    "a name": lambda text: telling.span({"tool.name": text}, name=text),
}  # fmt: skip


def lines(told: Span) -> int:
    """Lines of Python that reading a span takes."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        semconv.read(told)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("shape", LONG)
def test_work_grows_no_faster_than_the_text(shape: str, home: str) -> None:
    small, large = (lines(HOMES[home](LONG[shape](size))) for size in (1_000, 8_000))
    assert large <= 8 * 1.3 * small + 2_000


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("shape", LONG)
def test_megabyte_of_anything_is_read(shape: str, home: str) -> None:
    told = HOMES[home](LONG[shape](1_000_000))
    check(semconv.read(told), told)


# ---------------------------------------------------------------- the short way of the standard's own messages

standard_parts = (
    st.fixed_dictionaries({"type": st.sampled_from(["text", "reasoning"]), "content": words})
    | st.fixed_dictionaries({"type": st.just("tool_call"), "name": words},
                            optional={"id": st.none() | words, "arguments": trees | texts_of_trees})
    | st.fixed_dictionaries({"type": st.just("tool_call_response")},
                            optional={"id": st.none() | words, "response": trees | texts_of_trees})
)  # fmt: skip
standard_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "developer", ""]),
     "parts": st.lists(standard_parts, max_size=4)},
    optional={"finish_reason": st.just("stop")},
)  # fmt: skip


@given(
    st.lists(standard_messages, max_size=4) | st.lists(standard_parts, max_size=4), st.sampled_from(["user", "tool"])
)
def test_messages_of_the_standard_shape_are_read_alike_from_text_and_from_structure(told: list[Any], role: str) -> None:
    text = json.dumps(told, default=repr)
    try:
        structure = telling.decoded(text)
    except ValueError:
        return
    assert repr(turns(text, role)) == repr(turns(structure, role))


# ---------------------------------------------------------------- what was found


@pytest.mark.parametrize("told", ["{'a': 0x" + "f" * 8000 + "}", "[0b" + "1" * 20_000 + "]"])
def test_number_of_thousands_of_digits_in_a_repr_is_left_as_a_text(told: str) -> None:
    span = telling.span({"gen_ai.tool.name": "x", "gen_ai.tool.call.arguments": told})
    check(semconv.read(span), span)
    assert telling.facts(span).arguments == told


def test_half_a_character_in_a_text_that_looks_like_json_is_only_text() -> None:
    told = '{"a": "\ud800"}'
    span = telling.span({"gen_ai.tool.name": "x", "gen_ai.tool.call.arguments": told, "gen_ai.tool.call.result": told})
    check(semconv.read(span), span)
