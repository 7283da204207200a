"""Which spans are one session: claimed ids, traces bound late, histories that go on, and realms that never mix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.events import SessionKey
from sidecar.core.sessions import MAX_ALIASES, SessionTable, clean_id
from sidecar.core.span import Speaker
from tests.core import kit
from tests.core.kit import Loom, Stage, assistant, call, chat, details, hexed, response, tool, turn, user

TRACE = f"trace:{hexed('trace', 32)}"


def sessions(loom: Loom) -> list[str]:
    return sorted(session.key.id for session in loom.table)


# ---------------------------------------------------------------- ids


@pytest.mark.parametrize("told", ["conv-1", "A.b_c:d-9", "x" * 128])
def test_an_id_of_good_form_is_kept(told: str) -> None:
    assert clean_id(told) == told


@pytest.mark.parametrize(
    "told", ["x" * 129, "a/b", "..\n", "a b", "\x1b[31m", "ünïcode", "a\0b", "x" * 2**20, "сonv-1", "\ud800"]
)
def test_an_id_of_odd_form_becomes_its_hash(told: str) -> None:
    cleaned = clean_id(told)
    assert cleaned.startswith("h:")
    assert clean_id(cleaned) == cleaned
    assert len(cleaned) == 66


@given(st.text(), st.text())
def test_two_ids_are_one_only_if_they_were_told_alike(one: str, other: str) -> None:
    if clean_id(one) == clean_id(other):
        assert one == other or clean_id(one) in (one, other), "only who tells a hash can meet it"


def test_no_id_stays_none() -> None:
    assert clean_id("") == ""


# ---------------------------------------------------------------- binding


def test_a_claimed_id_names_the_session() -> None:
    loom = Loom()
    loom.take(tool("t", {}, session="conv-1"))
    assert sessions(loom) == ["conv-1"]


def test_a_span_without_an_id_belongs_to_its_trace() -> None:
    loom = Loom()
    loom.take(tool("t", {"n": 1}), tool("t", {"n": 2}))
    assert sessions(loom) == [TRACE]


def test_a_trace_is_bound_whenever_any_of_its_spans_tells_the_id() -> None:
    loom = Loom()
    loom.take(chat([user("hello")], [assistant("hi")]), tool("t", {}), kit.run(end=2, session="conv-1"))
    loom.take(tool("t", {"late": True}))
    assert sessions(loom) == ["conv-1"]
    session = loom.session("conv-1")
    assert session.act_count == 2
    assert session.aliases == (SessionKey("local", TRACE),)
    assert loom.table.get(SessionKey("local", TRACE)) is session


def test_texts_told_before_the_binding_are_not_told_again_after_it() -> None:
    loom = Loom()
    loom.take(chat([user("hello")], [assistant("hi")]), kit.run([user("hello")], [assistant("hi")], end=2, session="c"))
    assert loom.said == [("inbound", "hello"), ("outbound", "hi")]


def test_several_traces_of_one_id_are_one_session() -> None:
    loom = Loom()
    for turn_number in range(4):
        loom.take(tool("t", {"n": turn_number}, trace=f"T{turn_number}"))
        loom.take(kit.run(end=turn_number + 1, trace=f"T{turn_number}", session="conv-1"))
    assert sessions(loom) == ["conv-1"]
    assert loom.session("conv-1").act_count == 4


def test_the_transport_id_of_mcp_is_never_a_session() -> None:
    loom = Loom()
    for number in range(3):
        loom.take(tool("t", {"n": number}, attributes={"mcp.session.id": f"mcp-{number}"}))
    assert sessions(loom) == [TRACE]


def test_a_plain_client_with_a_trace_a_call_is_one_session_by_its_history() -> None:
    loom = Loom()
    history = [user("what is in my inbox?")]
    for number in range(5):
        answer = assistant(f"answer {number}")
        loom.take(chat(history, [answer], trace=f"T{number}", start=number))
        history = [*history, answer, user(f"and then {number}?")]
    assert len(loom.table) == 1
    assert [text for _, text in loom.said][-1] == "answer 4"
    assert len(loom.said) == 10


def test_a_history_of_tool_calls_is_followed_too() -> None:
    loom = Loom()
    asked = [user("send it"), assistant(call("c1", "send_mail", {"to": "a@b.example"}))]
    loom.take(chat([user("send it")], asked[1:], trace="T1", start=0))
    loom.take(chat([*asked, turn("tool", response("c1", "sent"))], [assistant("done")], trace="T2", start=2))
    assert len(loom.table) == 1
    assert [(act.tool, act.result) for act in loom.acts] == [("send_mail", "sent")]


def test_two_conversations_that_share_no_answer_stay_two() -> None:
    loom = Loom()
    loom.take(chat([user("hello")], [assistant("hi Ada")], trace="T1"))
    loom.take(chat([user("hello")], [assistant("hi Bo")], trace="T2"))
    loom.take(chat([user("hello"), assistant("hi Bo"), user("more")], [assistant("ok")], trace="T3", start=2))
    assert len(loom.table) == 2
    assert loom.table.get(SessionKey("local", f"trace:{hexed('T3', 32)}")) is None


def test_an_inbound_text_alone_continues_no_history() -> None:
    """A system prompt and a greeting are the same in thousands of conversations."""
    loom = Loom()
    for number in range(3):
        loom.take(chat([turn("system", "be kind"), user("hello")], [assistant(f"hi {number}")], trace=f"T{number}"))
    assert len(loom.table) == 3


def test_two_conversations_in_one_trace_are_told_apart_by_their_ancestors() -> None:
    loom = Loom()
    loom.take(kit.run(end=9, session="one", word="run one"), kit.run(end=9, session="two", word="run two"))
    loom.take(kit.other("wrap", parent="run two", end=9))
    loom.take(tool("t", {"of": "one"}, parent="run one"), tool("t", {"of": "two"}, parent="wrap"))
    assert loom.session("one").act_count == 1
    assert loom.session("two").act_count == 1
    assert {act.arguments["of"]: act.session.id for act in loom.acts} == {"one": "one", "two": "two"}


def test_a_circle_of_parents_ends() -> None:
    loom = Loom()
    loom.take(kit.run(end=1, session="one", word="r1"), kit.run(end=1, session="two", word="r2"))
    loom.take(kit.other("a", parent="b"), kit.other("b", parent="a"))
    loom.take(tool("t", {}, parent="a"))
    assert loom.session("one").act_count == 1


def test_realms_share_neither_session_nor_trace_nor_history() -> None:
    loom = Loom()
    ann, bob = Speaker("agent:ann", "authenticated", "ann"), Speaker("agent:bob", "authenticated", "bob")
    for speaker in (ann, bob):
        loom.take(tool("t", {}, session="conv", call_id="call-0123456789"), speaker=speaker)
        loom.take(tool("u", {}, trace="T"), speaker=speaker)
        loom.take(chat([user("q")], [assistant("a")], trace="H1", start=1), speaker=speaker)
    loom.take(chat([user("q"), assistant("a"), user("r")], [assistant("b")], trace="H2", start=3), speaker=ann)
    assert {session.key.realm for session in loom.table} == {"agent:ann", "agent:bob"}
    assert len(loom.table) == 6
    assert len({act.event_id for act in loom.acts}) == 4


def test_a_name_that_the_credential_fixes_is_the_role_whatever_the_span_says() -> None:
    loom = Loom()
    clerk = Speaker("agent:clerk", "authenticated", "clerk")
    loom.take(tool("t", {}, session="s", agent="lenient-agent"), speaker=clerk)
    agent = loom.session("s", "agent:clerk").agent
    assert (agent.role, agent.id) == ("clerk", "lenient-agent")


def test_an_agent_that_is_not_named_goes_by_its_service() -> None:
    loom = Loom()
    loom.take(tool("t", {}, session="s", resource={"service.name": "mailer"}))
    assert loom.session("s").agent.role == "mailer"


def test_the_id_of_one_agent_is_not_put_down_to_another() -> None:
    loom = Loom()
    loom.take(tool("t", {}, session="s", agent="triage", attributes={"gen_ai.agent.id": "a-1"}))
    loom.take(tool("t", {"n": 2}, session="s", agent="billing"))
    assert [(act.agent.name, act.agent.id) for act in loom.acts] == [("triage", "a-1"), ("billing", "")]


def test_names_of_any_length_are_cut() -> None:
    loom = Loom()
    loom.take(tool("t", {}, session="s", agent="n" * 10**6, attributes={"gen_ai.agent.id": "i" * 10**6}))
    agent = loom.session("s").agent
    assert max(map(len, (agent.name, agent.id))) == 128


# ---------------------------------------------------------------- records outside any trace


def test_records_outside_any_trace_share_no_session() -> None:
    loom = Loom()
    for number in range(3):
        loom.take(details(chat([user(f"q{number}")], [assistant(f"a{number}")], start=number), trace=False))
    assert len(loom.table) == 3
    assert len(loom.said) == 6


def test_records_outside_any_trace_of_one_id_tell_all_they_hold() -> None:
    loom = Loom()
    for number in range(3):
        record = chat([user(f"q{number}")], [assistant(f"a{number}")], start=number, session="conv")
        loom.take(details(record, trace=False))
        loom.take(details(record, trace=False))  # delivered twice
    assert sessions(loom) == ["conv"]
    assert [text for _, text in loom.said] == ["q0", "a0", "q1", "a1", "q2", "a2"]


# ---------------------------------------------------------------- what moves with a binding


def test_pause_and_alert_move_to_the_id_that_comes_late_and_keep_their_fingerprint() -> None:
    stage = Stage()
    opened = stage.feed(tool("send_mail", {"mark": "critical"})).alerts[-1]
    assert stage.state(TRACE) == "paused"
    before = stage.core.runs.get(SessionKey("local", TRACE)).epoch
    came = stage.feed(kit.run(start=2, end=3, session="conv-1"))
    assert came.renamed == [(SessionKey("local", TRACE), SessionKey("local", "conv-1"))]
    moved = came.alerts[-1]
    assert (moved.fingerprint, moved.session.id, moved.state) == (opened.fingerprint, "conv-1", "firing")
    assert stage.state("conv-1") == stage.state(TRACE) == "paused"
    assert stage.core.runs.get(SessionKey("local", "conv-1")).epoch > before
    assert stage.core.runs.get(SessionKey("local", TRACE)).desired == "running", "nothing is left under the old id"


def test_an_act_in_the_very_span_that_binds_a_paused_trace_is_judged_as_paused() -> None:
    stage = Stage()
    stage.feed(tool("send_mail", {"mark": "critical"}))
    came = stage.feed(tool("send_mail", {"dull": 1}, start=2, session="conv-1"))
    assert came.decisions[0].state == "paused"
    assert any("paused" in reason.text for reason in came.decisions[0].reasons)


def test_alerts_of_two_sessions_that_are_one_become_one_and_the_older_name_stays() -> None:
    stage = Stage()
    first = stage.feed(tool("send_mail", {"mark": "medium"}, session="conv-1", trace="A")).alerts[-1]
    second = stage.feed(tool("send_mail", {"mark": "high"}, start=1, trace="B")).alerts[-1]
    came = stage.feed(kit.run(start=2, end=3, trace="B", session="conv-1"))
    ended, kept = came.alerts
    assert (ended.fingerprint, ended.state) == (second.fingerprint, "resolved")
    assert (kept.fingerprint, kept.state, kept.count) == (first.fingerprint, "firing", 2)
    assert kept.severity == second.severity


def test_two_sessions_with_states_of_every_shipped_detector_can_be_joined() -> None:
    from sidecar.assembly import pipeline
    from sidecar.core.span import LOCAL, Record

    core = pipeline()
    act = {"to": "box@drop.example.net", "body": "as promised"}
    for span in (
        tool("send_mail", act, session="conv-1", trace="A"),
        chat([user("hello")], [assistant("hi")], trace="B", start=1),
        tool("send_mail", act, start=1, trace="B"),
        kit.run(start=1, end=3, trace="B", session="conv-1"),
    ):
        core.feed(Record(span, LOCAL, span.end_ns), span.end_ns)
    assert [session.key.id for session in core.sessions] == ["conv-1"]
    assert core.engine.failures == {}


# ---------------------------------------------------------------- the table


def test_a_former_id_of_a_former_id_leads_to_the_session() -> None:
    table = SessionTable()
    for number in range(40):
        table.rename(SessionKey("r", f"s{number}"), SessionKey("r", f"s{number + 1}"), number)
    assert {table.resolve(SessionKey("r", f"s{number}")).id for number in range(41)} == {"s40"}


def test_renaming_back_and_forth_ends() -> None:
    table = SessionTable()
    one, two = SessionKey("r", "one"), SessionKey("r", "two")
    table.open(one, 1)
    assert table.rename(one, two, 2).key == two
    assert table.rename(two, one, 3).key == two
    assert len(table) == 1


def test_the_realm_with_the_most_sessions_loses_its_quietest() -> None:
    table = SessionTable(capacity=10)
    kept = [table.open(SessionKey("small", str(number)), number).key for number in range(3)]
    for number in range(100):
        table.open(SessionKey("flood", str(number)), 10 + number)
    assert len(table) == 10
    assert all(table.get(key) is not None for key in kept)
    assert table.get(SessionKey("flood", "99")) is not None
    assert table.evicted == 93


def test_a_session_that_is_held_is_not_forgotten_before_others() -> None:
    table = SessionTable(capacity=5)
    held = SessionKey("r", "held")
    table.held = lambda key: key == held
    table.open(held, 0)
    for number in range(50):
        table.open(SessionKey("r", str(number)), number)
    assert table.get(held) is not None
    assert len(table) == 5


def test_what_is_forgotten_is_said_first() -> None:
    table = SessionTable(capacity=2)
    dropped: list[str] = []
    table.dropped = lambda session: dropped.append(session.key.id)
    for number in range(4):
        table.open(SessionKey("r", str(number)), number)
    assert dropped == ["0", "1"]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh"), st.booleans()), max_size=60))
def test_any_binding_leaves_each_id_one_session_and_the_count_right(steps: list[tuple[str, str, bool]]) -> None:
    table = SessionTable()
    groups = {letter: {letter} for letter in "abcdefgh"}
    acts = dict.fromkeys(groups, 0)
    for number, (one, other, binds) in enumerate(steps):
        if binds:
            table.rename(SessionKey("r", one), SessionKey("r", other), number)
            merged = groups[one] | groups[other]
            for letter in merged:
                groups[letter] = merged
        else:
            table.open(SessionKey("r", one), number).act_count += 1
            acts[one] += 1
    for one, group in groups.items():
        found = {table.resolve(SessionKey("r", letter)) for letter in group}
        assert len(found) == 1
        session = table.get(SessionKey("r", one))
        assert (session.act_count if session else 0) == sum(acts[letter] for letter in group)
    assert len(table) == len(list(table)) == len({id(session) for session in table})
    assert all(len(session.aliases) <= MAX_ALIASES for session in table)


def test_a_configured_attribute_names_the_session() -> None:
    stage = Stage(session_attributes=("shop.dialogue",))
    stage.feed(tool("t", {}, trace="A", attributes={"shop.dialogue": "d-77"}))
    stage.feed(kit.span({"shop.dialogue": "d-77"}, 0, 2, trace="B", name="request"))
    stage.feed(tool("t", {}, trace="B", start=1))
    assert [session.key.id for session in stage.core.sessions] == ["d-77"]
    assert stage.session("d-77").act_count == 2


def test_a_session_descends_from_the_one_that_its_root_links_to() -> None:
    """A hand-off through a queue: another trace, linked to the span that sent it off."""
    loom = Loom()
    loom.take(
        kit.run(end=3, word="boss", trace="A", session="s-boss"),
        tool("hand_off", {}, trace="A", parent="boss", word="off"),
    )
    link = {"trace_id": kit.hexed("A", 32), "span_id": kit.hexed("off", 16)}
    loom.take(kit.run(start=2, end=4, trace="B", session="s-helper", rest={"links": [link]}))
    assert loom.session("s-helper").parent == SessionKey("local", "s-boss")
    assert loom.session("s-boss").parent is None


def test_a_conversation_within_anothers_span_descends_from_it() -> None:
    loom = Loom()
    loom.take(tool("look", {}, start=1, session="s-sub", parent="call", word="sub", trace="A"))
    loom.take(kit.run(end=3, word="boss", trace="A", session="s-boss"))
    loom.take(tool("ask_helper", {}, trace="A", parent="boss", word="call", start=0.5, end=2))
    loom.take(tool("look", {"n": 2}, start=1.5, session="s-sub", parent="call", trace="A"))
    assert loom.session("s-sub").parent == SessionKey("local", "s-boss")


def test_the_outermost_run_names_the_sessions_agent_although_it_ends_last() -> None:
    loom = Loom()
    loom.take(kit.run(start=1, end=2, word="helper", parent="boss", session="s", agent="helper"))
    assert loom.session("s").agent.name == "helper"
    loom.take(kit.run(start=0, end=3, word="boss", session="s", agent="boss"))
    assert loom.session("s").agent.name == "boss"
