"""An act is one event, whoever tells of it, how often, and in whatever order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from sidecar.core import semconv
from sidecar.core.events import SessionKey, ToolCall
from sidecar.core.span import LOCAL, Record, Span, SpanEvent
from tests.core.kit import Loom, assistant, at, call, chat, details, response, tool, turn, user

MAIL = {"to": "ada@corp.example", "body": "as agreed"}
ID = "call_0123456789"


def one_act(loom: Loom) -> ToolCall:
    assert len(loom.acts) == 1, [(act.tool, act.arguments, act.call_id) for act in loom.acts]
    return loom.acts[0]


def asks(call_id: str = ID, arguments: object = MAIL, *, start: float = 0.0, **more: object) -> Span:
    """The model wants the mail sent."""
    return chat([user("send it")], [assistant(call(call_id, "send_mail", arguments))], start=start, **more)  # type: ignore[arg-type]


def hears(call_id: str = ID, arguments: object = MAIL, *, start: float = 3.0, **more: object) -> Span:
    """The model is told what came of it."""
    history = [user("send it"), assistant(call(call_id, "send_mail", arguments)), turn("tool", response(call_id, "ok"))]
    return chat(history, [assistant("done")], start=start, **more)  # type: ignore[arg-type]


# ---------------------------------------------------------------- every order


def _gate(loom: Loom) -> None:
    loom.ask("s", "send_mail", MAIL, ID, seconds=0.9)


TELLINGS: dict[str, Callable[[Loom], object]] = {
    "gate": _gate,
    "wish": lambda loom: loom.take(asks(session="s", word="chat 1")),
    "span": lambda loom: loom.take(
        tool("send_mail", MAIL, "ok", start=1, call_id=ID, session="s", attributes={"sidecar.gated": True})
    ),
    "history": lambda loom: loom.take(hears(session="s", word="chat 2")),
}


@pytest.mark.parametrize("order", list(itertools.permutations(("wish", "span", "history"))), ids="-".join)
def test_span_and_messages_are_one_act_in_every_order(order: tuple[str, ...]) -> None:
    loom = Loom()
    for name in order:
        TELLINGS[name](loom)
    loom.end()
    act = one_act(loom)
    assert (act.tool, act.arguments, act.result) == ("send_mail", MAIL, "ok")
    assert loom.session("s").act_count == 1


@pytest.mark.parametrize("order", list(itertools.permutations(("wish", "span", "history"))), ids="-".join)
def test_what_was_asked_at_the_gate_is_the_same_act_in_every_order(order: tuple[str, ...]) -> None:
    loom = Loom()
    _gate(loom)
    for name in order:
        TELLINGS[name](loom)
    loom.end()
    act = one_act(loom)
    assert (act.arguments, act.result, act.gated) == (MAIL, "ok", True)
    assert loom.notices == []


@pytest.mark.parametrize("call_id", ["", ID, "sc-7"], ids=["no id", "the model's id", "the library's own id"])
@pytest.mark.parametrize("first", ["wish", "gate"])
def test_gate_and_messages_alone_are_one_act_whatever_the_gate_calls_it(call_id: str, first: str) -> None:
    loom = Loom()
    steps = {"wish": TELLINGS["wish"], "gate": lambda to: to.ask("s", "send_mail", MAIL, call_id, seconds=0.9)}
    for name in (first, *(other for other in steps if other != first)):
        steps[name](loom)
    TELLINGS["history"](loom)
    loom.end()
    assert one_act(loom).result == "ok"
    assert loom.notices == []


def test_an_act_asked_for_with_defaults_filled_in_is_the_one_that_the_model_wanted() -> None:
    loom = Loom()
    loom.take(asks(session="s"))
    loom.ask("s", "send_mail", MAIL | {"priority": "normal"}, "sc-7", seconds=0.9)
    loom.take(hears(session="s"))
    act = one_act(loom)
    assert act.result == "ok"
    told = [event.arguments for event in loom.of(ToolCall) if event.phase == "started"]  # type: ignore[attr-defined]
    assert told == [MAIL | {"priority": "normal"}, MAIL], "content that differs is judged again"
    assert loom.notices == []


def test_the_gate_asked_twice_about_one_call_is_one_act() -> None:
    loom = Loom()
    _, first, new = loom.ask("s", "send_mail", MAIL, ID)
    _, second, again = loom.ask("s", "send_mail", MAIL, ID, seconds=2)
    assert (new, again) == (True, False)
    assert first.event_id == second.event_id


def test_the_gate_asked_again_after_the_act_has_run_is_another_act() -> None:
    loom = Loom()
    _, first, _ = loom.ask("s", "send_mail", MAIL, ID)
    TELLINGS["span"](loom)
    _, second, new = loom.ask("s", "send_mail", MAIL, ID, seconds=5)
    assert new
    assert first.event_id != second.event_id


# ---------------------------------------------------------------- messages only


def test_a_wish_that_nobody_else_tells_of_becomes_an_act_after_five_seconds() -> None:
    loom = Loom()
    loom.take(asks(session="s"))
    assert loom.wait(4.4) == []
    assert one_act_after(loom, 0.6).arguments == MAIL


def one_act_after(loom: Loom, seconds: float) -> ToolCall:
    loom.wait(seconds)
    return one_act(loom)


def test_a_wish_becomes_an_act_as_soon_as_its_answer_is_seen() -> None:
    loom = Loom()
    loom.take(asks(session="s"), hears(session="s"))
    act = one_act(loom)
    assert (act.arguments, act.result) == (MAIL, "ok")
    assert act.at_ns == at(0.5), "when the model asked for it"


def test_answers_without_ids_go_to_the_calls_in_their_order() -> None:
    loom = Loom()
    calls = [call("", "read_mail", {"n": 1}), call("", "read_mail", {"n": 2})]
    loom.take(chat([user("read")], [assistant(*calls)], session="s"))
    answers = turn("tool", response("", "first"), response("", "second"))
    loom.take(chat([user("read"), assistant(*calls), answers], [assistant("ok")], session="s", start=2))
    loom.end()
    assert [(act.arguments["n"], act.result) for act in loom.acts] == [(1, "first"), (2, "second")]


def test_answers_under_the_role_user_are_answers() -> None:
    """telemetry.md §0, 5: tool results come back as role `user` in several instrumentations."""
    loom = Loom()
    history = [user("send it"), assistant(call(ID, "send_mail", MAIL)), turn("user", response(ID, "ok"))]
    loom.take(asks(session="s"), chat(history, [assistant("done")], session="s", start=3))
    assert one_act(loom).result == "ok"
    assert loom.said == [("inbound", "send it"), ("outbound", "done")]


def test_a_history_met_in_its_middle_tells_its_acts_once() -> None:
    loom = Loom()
    loom.take(hears(session="s"), hears(session="s", start=5, word="again"))
    loom.end()
    assert one_act(loom).result == "ok"


# ---------------------------------------------------------------- arguments withheld


@pytest.mark.parametrize("call_id", ["", ID], ids=["no id on the span", "id on the span"])
@pytest.mark.parametrize("order", list(itertools.permutations(("wish", "span", "history"))), ids="-".join)
def test_arguments_that_the_span_withholds_are_taken_from_the_message(order: tuple[str, ...], call_id: str) -> None:
    loom = Loom()
    steps = TELLINGS | {"span": lambda to: to.take(tool("send_mail", start=1, call_id=call_id, session="s"))}
    for name in order:
        steps[name](loom)
    loom.end()
    act = one_act(loom)
    assert (act.arguments, act.result, act.unscored) == (MAIL, "ok", ())


def test_an_act_whose_arguments_nobody_tells_is_withheld_not_absent() -> None:
    loom = Loom()
    loom.take(tool("send_mail", session="s"))
    act = one_act(loom)
    assert (act.arguments, act.withheld, act.unscored) == (None, ("arguments",), ("withheld",))


def test_an_act_without_arguments_is_not_withheld() -> None:
    loom = Loom()
    loom.take(tool("stop", {}, "ok", session="s"))
    assert (one_act(loom).withheld, one_act(loom).unscored) == ((), ())


# ---------------------------------------------------------------- instrumentations


@pytest.mark.parametrize("call_id", ["", ID])
@pytest.mark.parametrize("gated", [False, True])
def test_two_instrumentations_of_one_call_tell_one_act(call_id: str, gated: bool) -> None:
    loom = Loom()
    if gated:
        loom.ask("s", "send_mail", MAIL, call_id, seconds=0.8)
    inner = tool("send_mail", MAIL, "ok", start=1, end=2, call_id=call_id, session="s", scope="b",
                 attributes={"sidecar.gated": True})  # fmt: skip
    outer = tool("mcp__office__send_mail", MAIL, "ok", start=0.9, end=2.1, call_id=call_id, session="s", scope="a")
    loom.take(inner, outer)
    assert one_act(loom).result == "ok"
    assert loom.notices == []


def test_what_a_second_instrumentation_tells_otherwise_is_judged_too() -> None:
    """Else whoever sends a harmless telling first could hide what was done."""
    loom = Loom()
    loom.take(tool("send_mail", {"to": "ada@corp.example"}, "ok", start=1, end=2, call_id=ID, session="s", scope="b"))
    loom.take(tool("send_mail", {"to": "x@rival.example"}, "ok", start=0.9, end=2.1, call_id=ID, session="s"))
    begun = [event.arguments["to"] for event in loom.of(ToolCall) if event.phase == "started"]  # type: ignore[attr-defined]
    assert begun == ["ada@corp.example", "x@rival.example"]
    assert one_act(loom).session.id == "s"


def test_the_same_call_made_twice_is_two_acts() -> None:
    loom = Loom()
    loom.take(tool("send_mail", MAIL, "ok", start=1, session="s"), tool("send_mail", MAIL, "ok", start=2, session="s"))
    assert len(loom.acts) == 2


def test_two_calls_at_the_same_time_are_two_acts() -> None:
    loom = Loom()
    loom.take(tool("read", {"n": 1}, "a", start=1, end=3, session="s"))
    loom.take(tool("read", {"n": 1}, "b", start=1, end=3, session="s"))
    assert sorted(act.result for act in loom.acts) == ["a", "b"]


@pytest.mark.parametrize("call_id", ["call_1", ID])
def test_a_call_id_used_again_is_another_act(call_id: str) -> None:
    loom = Loom()
    for number in range(3):
        loom.take(tool("send_mail", {"n": number}, "ok", start=number, call_id=call_id, session="s"))
    assert [act.arguments["n"] for act in loom.acts] == [0, 1, 2]
    assert len({act.event_id for act in loom.acts}) == 3


def test_a_call_id_used_again_by_messages_is_another_act() -> None:
    loom = Loom()
    first = [user("one"), assistant(call("c", "send_mail", {"n": 1})), turn("tool", response("c", "ok 1"))]
    second = [*first, assistant("sent"), user("two"), assistant(call("c", "send_mail", {"n": 2}))]
    loom.take(chat(first[:1], first[1:2], session="s", start=0), chat(first, [assistant("sent")], session="s", start=1))
    loom.take(chat(second[:-1], second[-1:], session="s", start=2))
    loom.take(chat([*second, turn("tool", response("c", "ok 2"))], [assistant("sent too")], session="s", start=3))
    loom.end()
    assert [(act.arguments["n"], act.result) for act in loom.acts] == [(1, "ok 1"), (2, "ok 2")]


@pytest.mark.parametrize("call_id", ["", "call_1", ID])
def test_the_same_question_in_two_sessions_is_two_acts(call_id: str) -> None:
    """One id for two acts would let a person's yes to the one release the other."""
    loom = Loom()
    _, one, _ = loom.ask("s1", "send_mail", MAIL, call_id)
    _, two, _ = loom.ask("s2", "send_mail", MAIL, call_id)
    assert one.event_id != two.event_id


def test_an_act_keeps_its_id_whenever_the_same_telemetry_is_read() -> None:
    ids = []
    for _ in range(2):
        loom = Loom()
        loom.take(asks(session="s", word="w1"), tool("send_mail", MAIL, "ok", start=1, session="s", word="w2"))
        ids.append([event.event_id for event in loom.events])
    assert ids[0] == ids[1]


# ---------------------------------------------------------------- duplicates


def test_a_span_that_comes_again_changes_nothing() -> None:
    loom = Loom()
    sent = tool("send_mail", MAIL, "ok", session="s")
    loom.take(sent)
    assert [loom.take(sent) for _ in range(100)] == [[]] * 100
    assert loom.session("s").span_count == 1
    assert loom.weaver.duplicates == 100
    assert loom.notices == []


@pytest.mark.parametrize(
    ("arguments", "result"), [({"to": "x@rival.example"}, "ok"), (MAIL, "refused")], ids=["arguments", "result"]
)
def test_a_span_that_comes_again_with_other_content_is_told(arguments: object, result: str) -> None:
    loom = Loom()
    loom.take(tool("send_mail", MAIL, "ok", session="s", word="same"))
    assert loom.take(tool("send_mail", arguments, result, session="s", word="same")) == []
    assert loom.notices == ["conflicting_duplicate"]
    assert one_act(loom).arguments == MAIL


def test_a_log_record_that_comes_again_changes_nothing() -> None:
    loom = Loom()
    record = details(asks(session="s"))
    loom.take(record)
    assert loom.take(record) == []


# ---------------------------------------------------------------- the gate passed by


def test_an_act_that_ran_without_asking_in_a_gated_session_is_told() -> None:
    loom = Loom()
    loom.ask("s", "read_mail", {}, "sc-1")
    loom.take(tool("send_mail", MAIL, "ok", start=1, session="s"))
    assert loom.notices == ["ungated_act"]


def test_an_act_told_only_by_messages_that_did_not_ask_is_told() -> None:
    loom = Loom()
    loom.ask("s", "read_mail", {}, "sc-1")
    loom.take(asks(session="s"), hears(session="s"))
    assert loom.notices == ["ungated_act"]


def test_an_act_that_ran_because_the_gate_did_not_answer_is_told_as_such() -> None:
    loom = Loom()
    loom.ask("s", "read_mail", {}, "sc-1")
    loom.take(tool("read_mail", {"n": 2}, "ok", start=1, session="s", attributes={"sidecar.ungated": True}))
    assert loom.notices == ["ran_unanswered"]


def test_an_act_that_ran_with_other_arguments_than_asked_is_told_and_judged() -> None:
    loom = Loom()
    loom.ask("s", "send_mail", MAIL, ID)
    came = loom.take(tool("send_mail", {"to": "x@rival.example"}, "ok", start=1, call_id=ID, session="s"))
    assert loom.notices == ["conflicting_duplicate"]
    assert [event.arguments for event in came if isinstance(event, ToolCall) and event.phase == "started"] == [
        {"to": "x@rival.example"}
    ]


def test_acts_of_a_session_without_a_gate_are_no_finding() -> None:
    loom = Loom()
    loom.take(tool("send_mail", MAIL, "ok", session="s"))
    assert loom.notices == []


# ---------------------------------------------------------------- results and errors


def test_an_act_tells_its_errors_words() -> None:
    loom = Loom()
    raised = SpanEvent("exception", at(1), {"exception.message": "no such mailbox"})
    loom.take(tool("send_mail", MAIL, session="s", status=2, status_message="Error", events=(raised,)))
    ended = loom.of(ToolCall)[-1]
    assert (ended.result, ended.failed) == ("no such mailbox", True)  # type: ignore[attr-defined]


def test_beginning_and_end_told_apart_are_one_act() -> None:
    loom = Loom()
    span = tool("send_mail", MAIL, "ok", start=1, end=2, session="s")
    facts = semconv.read(span)
    for begin, now in ((True, at(1)), (False, at(2))):
        loom.events += loom.weaver.weave(Record(span, LOCAL), facts, now, begin=begin, end=not begin)
    assert [event.phase for event in loom.of(ToolCall)] == ["started", "ended"]  # type: ignore[attr-defined]
    assert one_act(loom).result == "ok"


def test_shuffled_telemetry_of_many_turns_tells_each_act_once() -> None:
    """P9: order, lateness and duplicates do not change what was done."""
    spans: list[Span] = []
    history = [user("go")]
    for number in range(6):
        wish = assistant(call(f"call-{number:012}", "send_mail", {"n": number}))
        spans.append(chat(history, [wish], start=3 * number, session="s"))
        spans.append(tool("send_mail", {"n": number}, f"ok {number}", start=3 * number + 1, session="s",
                          call_id=f"call-{number:012}"))  # fmt: skip
        history = [*history, wish, turn("tool", response(f"call-{number:012}", f"ok {number}"))]
    for seed in range(30):
        shuffled = spans * 3
        random.Random(seed).shuffle(shuffled)
        loom = Loom()
        loom.take(*shuffled)
        loom.end()
        told = sorted((act.arguments["n"], act.result) for act in loom.acts)
        assert told == [(number, f"ok {number}") for number in range(6)], f"seed {seed}"
        assert {event.session for event in loom.events} == {SessionKey("local", "s")}


def test_the_same_call_by_the_same_id_made_again_by_messages_is_another_act() -> None:
    loom = Loom()
    history = [user("go")]
    for number in range(3):
        wish, answer = assistant(call("call_1", "send_mail", MAIL)), turn("tool", response("call_1", f"ok {number}"))
        loom.take(chat(history, [wish], session="s", start=4 * number))
        loom.take(chat([*history, wish, answer], [assistant("sent")], session="s", start=4 * number + 2))
        history = [*history, wish, answer, assistant("sent"), user("again")]
    loom.end()
    assert [act.result for act in loom.acts] == ["ok 0", "ok 1", "ok 2"]
