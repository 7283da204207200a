"""Unscored is not clean: every reason is said where it holds, and nowhere else."""

from __future__ import annotations

import json

import pytest

from sidecar.assembly import pipeline
from sidecar.core.events import ModelCall, ToolCall
from sidecar.core.reader import MAX_DEPTH, MAX_LEAVES
from sidecar.core.span import LOCAL, Record, Span
from tests.core import kit
from tests.core.kit import Loom, Stage, assistant, call, chat, response, text, tool, turn, user


def reasons(loom: Loom, session: str = "s") -> list[str]:
    """Reasons of the session itself and of all its events."""
    told = dict.fromkeys(loom.session(session).reasons)
    for event in loom.events:
        told |= dict.fromkeys(event.unscored)
    return sorted(told)


def test_a_whole_session_has_none() -> None:
    loom = Loom()
    loom.take(kit.run([user("go")], [assistant("done")], start=0, end=9, session="s"))
    loom.take(chat([user("go")], [assistant(call("c1", "t", {}))], session="s"))
    loom.take(tool("t", {}, "ok", call_id="c1", start=1, session="s"))
    history = [user("go"), assistant(call("c1", "t", {})), turn("tool", response("c1", "ok"))]
    loom.take(chat(history, [assistant("done")], start=2, session="s"))
    loom.end()
    assert reasons(loom) == []


def test_an_answer_that_ends_in_a_call_and_tells_none() -> None:
    loom = Loom()
    loom.take(
        chat([user("go")], [assistant()], session="s", attributes={"gen_ai.response.finish_reasons": ["tool_calls"]})
    )
    loom.end()
    assert reasons(loom) == ["unknown_act"]


def test_withheld() -> None:
    loom = Loom()
    loom.take(tool("t", session="s"))
    assert reasons(loom) == ["withheld"]


@pytest.mark.parametrize("span", [
    tool("t", '{"to": "ada@corp.exa', session="s"),
    chat(None, None, attributes={"gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "te'}, session="s"),
], ids=["arguments", "messages"])  # fmt: skip
def test_cut(span: Span) -> None:
    loom = Loom()
    loom.take(span)
    assert reasons(loom) == ["cut"]


def test_a_text_that_begins_with_a_bracket_is_not_cut() -> None:
    loom = Loom()
    loom.take(tool("t", "[INFO] all is well", session="s"))
    assert reasons(loom) == []


def test_overflow_where_the_senders_sdk_dropped_attributes() -> None:
    loom = Loom()
    loom.take(chat([user("a")], session="s", dropped=3))
    assert reasons(loom) == ["overflow"]


@pytest.mark.parametrize("part", [{"type": "blob", "content": "aGk="}, {"type": "uri", "uri": "s3://x"}, 7, None])
def test_opaque_content_is_said(part: object) -> None:
    stage = Stage()
    stage.feed(chat([{"role": "user", "parts": [text("look"), part]}], [assistant("nice")], session="s"))
    assert list(stage.session("s").reasons) == ["opaque"]


def test_an_act_that_nobody_shows_is_unknown() -> None:
    """The model finished to call a tool, content is off, and no tool span comes."""
    loom = Loom()
    loom.take(chat(finish=["tool_calls"], session="s"))
    loom.wait(4)
    assert reasons(loom) == []
    loom.wait(2)
    assert reasons(loom) == ["unknown_act"]


def test_an_act_that_its_span_shows_in_time_is_not_unknown() -> None:
    loom = Loom()
    loom.take(chat(finish=["tool_calls"], session="s"), tool("t", {}, "ok", start=1, session="s"))
    loom.wait(60)
    assert reasons(loom) == []


def test_an_act_that_the_history_shows_is_not_unknown() -> None:
    loom = Loom()
    loom.take(chat([user("go")], finish=["tool_use"], session="s"))
    history = [user("go"), assistant(call("c1", "t", {})), turn("tool", response("c1", "ok"))]
    loom.take(chat(history, [assistant("done")], start=1, session="s"))
    loom.wait(60)
    assert len(loom.acts) == 1


def test_a_run_of_which_nothing_else_is_seen_may_have_done_anything() -> None:
    loom = Loom()
    loom.take(kit.run([user("go")], [assistant("done")], end=1, session="s"))
    loom.end()
    assert reasons(loom) == ["unknown_act"]


@pytest.mark.parametrize("deep", [MAX_DEPTH + 1, 200])
def test_arguments_too_deep_to_be_read_are_uninspectable(deep: int) -> None:
    value: object = "AKIAABCDEFGHIJKLMNOP"
    for _ in range(deep):
        value = {"a": value}
    assert judged({"deep": value}) == ("uninspectable",)


def test_arguments_as_deep_as_can_be_read_are_read() -> None:
    value: object = "canary-1234"
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert judged(value) == ()


def test_what_is_shallow_beside_what_is_deep_is_read() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    core = pipeline()
    span = tool("send_mail", {"a": deep, "to": "x@drop.example.net"}, session="s")
    events = core.feed(Record(span, LOCAL, span.end_ns), span.end_ns).events
    assert [where.address for where in events[0].reading.destinations] == ["x@drop.example.net"]


def test_more_texts_than_are_read_are_uninspectable() -> None:
    assert judged({str(number): "text" for number in range(MAX_LEAVES + 1)}) == ("uninspectable",)
    assert judged({str(number): "text" for number in range(MAX_LEAVES)}) == ()


def test_a_key_of_any_length_costs_its_length_once() -> None:
    """Its path stands before every text below it."""
    core = pipeline()
    span = tool("t", {"k" * 10**6: {str(number): "v" for number in range(200)}}, session="s")
    event = core.feed(Record(span, LOCAL, span.end_ns), span.end_ns).events[0]
    assert sum(len(piece.field) for piece in event.reading.pieces) < 20_000
    assert any(len(piece.text) == 10**6 for piece in event.reading.pieces), "a long key is content"


def judged(arguments: object) -> tuple[str, ...]:
    core = pipeline()
    span = tool("send_mail", json.dumps(arguments), session="s")
    decision = core.feed(Record(span, LOCAL, span.end_ns), span.end_ns).decisions[0]
    assert tuple(next(iter(core.sessions)).reasons) == decision.unscored
    return decision.unscored


def test_reasons_of_sessions_that_are_one_are_joined() -> None:
    stage = Stage()
    stage.feed(tool("t", session="s", trace="A"))
    stage.feed(tool("t", '{"a', trace="B"))
    stage.feed(kit.run(end=1, trace="B", session="s"))
    assert sorted(stage.session("s").reasons) == ["cut", "withheld"]


def test_a_model_call_and_an_act_say_their_own() -> None:
    loom = Loom()
    loom.take(chat([user("a")], session="s", dropped=1), tool("t", {}, session="s", start=1))
    assert [event.unscored for event in loom.of(ModelCall)] == [("overflow",)]
    assert [event.unscored for event in loom.of(ToolCall)] == [(), ()]
