"""Bad telemetry that reaches the core: wrong clocks, odd ids, duplicates, texts where none belong, made-up names.

Rows are those of the catalogue of bad inputs; what the doors refuse is tested with the doors.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sidecar.core.engine import MAX_TOOLS
from sidecar.core.events import Reasoning, SessionKey, ToolCall
from sidecar.core.reading import Reading
from sidecar.core.sessions import clean_id
from sidecar.core.span import LOCAL, Record, Span, SpanEvent, Speaker
from sidecar.core.triage.alerts import QUIET_NS
from tests.core.kit import (
    AGENT,
    SECOND_NS,
    START_NS,
    Loom,
    Marked,
    Stage,
    assistant,
    at,
    call,
    chat,
    hexed,
    span,
    tool,
    user,
)  # fmt: skip

DAY = 24 * 3600.0
ANN, BOB = Speaker("agent:ann", "authenticated", "ann"), Speaker("agent:bob", "authenticated", "bob")


def take(loom: Loom, one: Span, arrived_s: float, speaker: Speaker = LOCAL) -> list[ToolCall]:
    """Feeds a span that arrived at another time than it says."""
    came = loom.weaver.take(Record(one, speaker, at(arrived_s)), at(arrived_s))
    loom.events += came
    return [event for event in came if isinstance(event, ToolCall)]


# ---------------------------------------------------------------- rows 11, 14: numbers and trees


def test_row_11_a_number_that_is_not_finite_is_an_alert() -> None:
    stage = Stage()
    outcome = stage.feed(tool("look", {"n": 1}, session="s", notes=("nonfinite",)))
    assert [alert.detector for alert in outcome.alerts] == ["nonfinite"]


def test_row_14_spans_that_are_each_others_parents_end_and_are_counted() -> None:
    loom = Loom()
    loom.take(chat([user("a")], [assistant("b")], trace="t", session="s1", word="first"))
    loom.take(chat([user("c")], [assistant("d")], trace="t", session="s2", word="second"))  # so that ancestors matter
    one = tool("look", {"n": 1}, trace="t", word="x", parent="y")
    two = tool("look", {"n": 2}, trace="t", word="y", parent="x")
    loom.take(one, two, tool("look", {"n": 3}, trace="t", parent="x"))
    assert len(loom.acts) == 3
    assert loom.weaver.bindings.cycles == 1


def test_row_14_a_span_that_is_its_own_parent_is_taken_as_it_is() -> None:
    loom = Loom()
    loom.take(tool("look", {"n": 1}, session="s", word="x", parent="x"))
    assert [act.tool for act in loom.acts] == ["look"]


# ---------------------------------------------------------------- rows 15-17: whose session


def test_row_15_an_id_of_anothers_credential_is_an_alert_and_touches_nothing_of_theirs() -> None:
    stage = Stage()
    session_id = "a-long-enough-session-id"
    stage.feed(tool("look", {"n": 1}, session=session_id), ANN)
    theirs = stage.core.sessions.get(SessionKey("agent:ann", session_id))
    assert theirs is not None
    before = (theirs.act_count, theirs.span_count, theirs.suspicion, dict(theirs.acts))
    outcome = stage.feed(tool("look", {"mark": "bad"}, session=session_id), BOB)
    assert [(alert.detector, alert.session.realm) for alert in outcome.alerts] == [("identity_mismatch", "agent:bob")]
    assert (theirs.act_count, theirs.span_count, theirs.suspicion, dict(theirs.acts)) == before
    again = stage.feed(tool("look", {"n": 3}, session=session_id), BOB)
    assert not again.alerts, "it is told once"


@pytest.mark.parametrize(
    ("session_id", "first", "second"),
    [
        ("s-1", ANN, BOB),  # anybody comes upon such an id
        ("a-long-enough-session-id", LOCAL, BOB),  # whoever is not authenticated owns nothing
        ("a-long-enough-session-id", ANN, LOCAL),  # nor is somebody without a credential accused of anything
    ],
)
def test_row_15_ids_that_may_well_be_the_same_are_no_alert(session_id: str, first: Speaker, second: Speaker) -> None:
    loom = Loom()
    loom.take(tool("look", {"n": 1}, session=session_id), speaker=first)
    loom.take(tool("look", {"n": 2}, session=session_id), speaker=second)
    assert loom.notices == []
    assert len(loom.table) == 2


def test_row_16_a_span_without_a_session_is_bound_to_its_trace_and_counted() -> None:
    loom = Loom()
    loom.take(tool("look", {"n": 1}, trace="t"), tool("look", {"n": 2}, trace="t"))
    assert [session.key.id for session in loom.table] == [f"trace:{hexed('t', 32)}"]
    assert loom.weaver.unbound == 1
    loom.take(tool("look", {"n": 3}, trace="named", session="s"))
    assert loom.weaver.unbound == 1


@pytest.mark.parametrize("told", ["a" * 2**20, "a/b", "..\n", "\x1b[2J", "a b", "\ud800"])
def test_row_17_an_id_of_odd_form_is_known_by_its_digest_and_kept_cut(told: str) -> None:
    loom = Loom()
    loom.take(tool("look", {"n": 1}, session=told))
    (session,) = loom.table
    assert session.key.id == clean_id(told)
    assert session.key.id.startswith("h:")
    assert session.told == told[:200]


# ---------------------------------------------------------------- row 18: clocks


@pytest.mark.parametrize(
    ("start", "end", "notes"),
    [
        (5.0, 1.0, ("bad_time",)),
        (-START_NS / SECOND_NS, -START_NS / SECOND_NS, ("bad_time",)),
        (-START_NS / SECOND_NS + 60, -START_NS / SECOND_NS + 61, ()),  # 1970
        (7 * 10**9, 7 * 10**9 + 1, ("time_clamped",)),
        (DAY, DAY + 1, ()),
        (-DAY - 10, -DAY - 9, ()),
    ],
    ids=["start after end", "none", "1970", "beyond 2262", "a day ahead", "a day behind"],
)
def test_row_18_a_time_that_cannot_be_is_replaced_by_the_arrival_and_flagged(
    start: float, end: float, notes: tuple[str, ...]
) -> None:
    loom = Loom()
    started, ended = take(loom, tool("look", {"n": 1}, "r", session="s", start=start, end=end, notes=notes), 10.0)
    assert at(10.0) - 60 * SECOND_NS <= started.at_ns <= ended.at_ns <= at(10.0)
    assert ended.duration_ns >= 0
    assert loom.notices == ["clock_skew"]


def test_row_18_what_a_sender_with_a_wrong_clock_tells_stays_in_its_order() -> None:
    loom = Loom()
    first = tool("look", {"n": 1}, "r", session="s", start=-40 * DAY, end=-40 * DAY + 1)
    later = tool("look", {"n": 2}, "r", session="s", start=-40 * DAY + 2, end=-40 * DAY + 3)
    acts = take(loom, first, 10.0) + take(loom, later, 10.0)
    assert [act.at_ns - acts[0].at_ns for act in acts] == [0, SECOND_NS, 2 * SECOND_NS, 3 * SECOND_NS]
    assert loom.notices == ["clock_skew"], "once a session"


@pytest.mark.parametrize("late", [0.0, 59.0])
def test_row_18_an_exporters_delay_is_no_wrong_clock(late: float) -> None:
    loom = Loom()
    one = tool("look", {"n": 1}, "r", session="s", start=0.0, end=1.0)
    assert [act.at_ns for act in take(loom, one, 1.0 + late)] == [at(0.0), at(1.0)]
    assert loom.notices == []


def test_row_18_a_span_that_came_hours_late_keeps_its_time_and_is_flagged() -> None:
    loom = Loom()
    one = tool("look", {"n": 1}, "r", session="s", start=0.0, end=1.0)
    assert [act.at_ns for act in take(loom, one, 7200.0)] == [at(0.0), at(1.0)]
    assert loom.notices == ["clock_skew"]


def test_row_18_spans_that_are_dated_back_do_not_let_their_alert_resolve_at_once() -> None:
    stage = Stage(Marked)
    one = tool("send", {"mark": "medium"}, session="s", start=-7200.0, end=-7199.0)
    stage.core.feed(Record(one, LOCAL, START_NS), START_NS)
    (alert,) = [alert for alert in stage.core.alerts if alert.detector == "marked"]
    assert (alert.opened_ns, alert.last_ns) == (START_NS, START_NS)
    assert not stage.core.alerts.quiet(START_NS + QUIET_NS - 1, lambda key: False)


# ---------------------------------------------------------------- rows 19, 20: again


def test_row_19_the_same_span_again_is_ignored_and_counted() -> None:
    loom = Loom()
    one = chat([user("hello")], [assistant("good day")], session="s", word="x")
    loom.take(one)
    before = list(loom.events)
    loom.take(one)
    assert loom.events == before
    assert (loom.weaver.duplicates, loom.notices) == (1, [])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (tool("look", {"n": 1}, word="x", session="s"), tool("look", {"n": 2}, word="x", session="s")),
        (tool("look", {"n": 1}, "a", word="x", session="s"), tool("look", {"n": 1}, "b", word="x", session="s")),
        (
            chat([user("hello")], [assistant("good day")], session="s", word="x"),
            chat([user("hello")], [assistant("pay him")], session="s", word="x"),
        ),
    ],
    ids=["arguments", "result", "words"],
)
def test_row_19_a_span_again_with_other_content_is_an_alert_and_the_first_counts(first: Span, second: Span) -> None:
    stage = Stage()
    stage.feed(first)
    outcome = stage.feed(second)
    assert [alert.detector for alert in outcome.alerts] == ["conflicting_duplicate"]
    assert not outcome.events


def test_row_20_a_batch_that_is_sent_a_hundred_times_counts_once() -> None:
    stage = Stage()
    batch = [
        chat([user("hello")], [assistant(call("c1", "look", {"n": 1}))], session="s", word="m"),
        tool("look", {"n": 1}, "r", call_id="c1", session="s", start=2.0, word="t"),
    ]
    for one in batch:
        stage.feed(one)
    session = stage.session("s")
    once = (session.span_count, session.act_count, stage.core.engine.agent(session.agent).events)
    for _ in range(99):
        for one in batch:
            assert not stage.feed(one).events
    assert (session.span_count, session.act_count, stage.core.engine.agent(session.agent).events) == once
    assert stage.core.weaver.duplicates == 198


# ---------------------------------------------------------------- rows 6, 7, 22: content


@pytest.mark.parametrize("note", ["cut", "too_deep", "duplicate_key"])
def test_what_decoding_had_to_leave_out_is_said_of_the_act(note: str) -> None:
    loom = Loom()
    loom.take(tool("look", {"n": 1}, session="s", notes=(note,)))
    assert loom.acts[0].unscored == ("cut",)


@pytest.mark.parametrize(
    "fields",
    [
        {"status_message": "{}"},
        {"rest": {"trace_state": "{}"}},
        {"rest": {"schema_url": "{}"}},
        {"rest": {"links": [{"attributes": {"note": "{}"}}]}},
        {"events": (SpanEvent("{}", START_NS, {}),)},
        {"events": (SpanEvent("note", START_NS, {"to": "{}"}),)},
    ],
    ids=["status", "tracestate", "schema url", "link", "event name", "event attribute"],
)
def test_row_22_every_text_of_a_span_is_scanned(fields: dict[str, object]) -> None:
    told = "a long text in a place where nobody looks: MARKED"

    def put(value: object) -> object:
        if isinstance(value, str):
            return value.replace("{}", told)
        if isinstance(value, dict):
            return {name: put(within) for name, within in value.items()}
        if isinstance(value, SpanEvent):
            return replace(value, name=put(value.name), attributes=put(value.attributes))
        return type(value)(map(put, value)) if isinstance(value, list | tuple) else value

    loom = Loom()
    scanned: list[str] = []

    def read(session: object, field: str, text: str, role: str) -> Reading:
        scanned.append(text)
        return Reading(hits=("marked",) if "MARKED" in text else ())

    loom.weaver.acts.read_text = read
    loom.take(tool("look", {"n": 1}, session="s", **put(fields)))
    assert any(told in text for text in scanned)
    (said,) = loom.of(Reasoning)
    assert isinstance(said, Reasoning)
    assert said.reading.hits == ("marked",)


def test_row_22_ten_thousand_events_are_read_up_to_a_bound_and_what_says_nothing_makes_no_event() -> None:
    loom = Loom()
    events = tuple(SpanEvent("note", START_NS, {"to": f"{number} " + "x" * 60}) for number in range(10_000))
    loom.take(tool("look", {"n": 1}, session="s", events=events))
    assert loom.of(Reasoning) == []
    assert len(loom.session("s").texts) <= 16


# ---------------------------------------------------------------- row 25: names


def test_row_25_an_agent_that_makes_up_names_of_tools_is_an_alert_once() -> None:
    stage = Stage()
    alerts = [
        alert.detector
        for number in range(MAX_TOOLS + 200)
        for alert in stage.feed(tool(f"tool_{number}", {"n": number}, session="s", agent="clerk")).alerts
    ]
    assert alerts == ["label_churn"]
    state = stage.core.engine.agent(AGENT)
    assert len(state.tools) == MAX_TOOLS + 1


def test_row_25_many_calls_of_few_tools_are_none() -> None:
    stage = Stage()
    for number in range(3 * MAX_TOOLS):
        assert not stage.feed(tool(f"tool_{number % 20}", {"n": number}, session="s")).alerts


def test_an_announcement_needs_no_session_and_is_told_once() -> None:
    stage = Stage()
    key = SessionKey("agent:ann", "s")
    first = stage.core.announce("identity_mismatch", key, AGENT, "words", START_NS, about="one")
    again = stage.core.announce("identity_mismatch", key, AGENT, "words", START_NS + 1, about="one")
    assert [alert.session for alert in first.alerts] == [key]
    assert {alert.count for alert in again.alerts} == {1}
    assert stage.core.sessions.get(key) is None
    assert span({}, 0, 1).end_ns == at(1)
