"""What is seen of an agent, what that hides from detectors, and what turns it on: counted by telling small stories."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.assembly import pipeline
from sidecar.core import semconv
from sidecar.core.blind_spots import FAMILIES, NEEDS, blind_spots
from sidecar.core.coverage import FAULTS, INPUTS, SESSION_AT, AgentReport, Count, Coverage
from sidecar.core.detectors import SHIPPED
from sidecar.core.span import LOCAL, Record, Span, Speaker
from sidecar.core.switches import FAULTS as MENDS
from sidecar.core.switches import LIBRARIES, library_of, switches
from sidecar.core.text.scan import PatternSet
from tests.core.kit import (
    SECOND_NS,
    assistant,
    call,
    chat,
    details,
    other,
    response,
    run,
    tool,
    turn,
    user,
)

FAMILY = {detector.name: detector.family for detector in SHIPPED}
NAMED = {"gen_ai.conversation.id": "s-1", "gen_ai.agent.name": "clerk", "user.id": "dana"}
ASK, DONE = [user("File the report.")], [assistant("It is filed.")]
ARGUMENTS = {"name": "report"}


def told(*spans: Span, speaker: Speaker = LOCAL) -> tuple[AgentReport, ...]:
    """The reports on telemetry that comes in this order."""
    core, coverage, now_ns = pipeline(detectors=(), pattern_set=PatternSet(())), Coverage(), 0

    def hear(outcome: Any) -> None:
        coverage.hear(outcome.events)
        for key, events in outcome.retold:
            coverage.hear_again(core.sessions.resolve(key), events)

    for one in spans:
        now_ns = max(now_ns, one.end_ns)
        record, facts = Record(one, speaker, now_ns), semconv.read(one)
        coverage.note(record, facts)
        hear(core.weave(record, facts, now_ns, begin=True, end=True, asked=False))
    hear(core.tick(now_ns + 60 * SECOND_NS, last=True))
    return coverage.report(core.sessions, core.sessions.resolve)


def one(*spans: Span) -> AgentReport:
    [report] = told(*spans)
    return report


def counts(report: AgentReport, name: str) -> tuple[int, int, int, int]:
    count = report.inputs[name]
    return count.told, count.inferred, count.withheld, count.absent


def scoped(scope: str, *spans: Span) -> list[Span]:
    return [replace(span, scope=scope) for span in spans]


def whole() -> list[Span]:
    return [
        tool("file_it", ARGUMENTS, "filed", call_id="c-1", start=1, attributes=NAMED, word="act", parent="run"),
        chat(ASK, DONE, start=2, attributes=NAMED, word="chat", parent="run", system=["You file."]),
        run(ASK, DONE, start=0, end=3, session="s-1", agent="clerk", word="run"),
    ]


# ---------------------------------------------------------------- what is seen


def test_all_that_is_told_is_seen() -> None:
    report = one(*whole())
    assert (report.role, report.sessions, report.spans, report.tool_spans, report.model_spans) == ("clerk", 1, 3, 1, 1)
    seen = {name for name in INPUTS if report.inputs[name].status == "seen"}
    assert seen >= {name for name in INPUTS if INPUTS[name].needed}
    assert seen >= {"user", "call_ids", "system_prompt", "model_calls"}
    assert report.missing == ()
    assert report.session_at == {"tool span": 1}
    assert report.faults == {}
    assert set(report.inputs) == set(INPUTS)


@pytest.mark.parametrize(
    ("field", "name"),
    [("gen_ai.tool.call.arguments", "arguments"), ("gen_ai.tool.call.result", "results")],
)
def test_content_that_a_tool_span_keeps_is_withheld_with_an_example(field: str, name: str) -> None:
    spans = whole()
    del spans[0].attributes[field]
    report = one(*spans)
    assert counts(report, name) == (0, 0, 1, 0)
    assert report.inputs[name].missing_at == f"{spans[0].trace_id}:{spans[0].span_id}"
    assert report.missing == (name,)


def test_a_model_call_that_keeps_its_messages_withholds_texts_instructions_and_thoughts() -> None:
    report = one(
        chat(None, None, attributes=NAMED), tool("file_it", ARGUMENTS, "filed", call_id="c-1", attributes=NAMED)
    )
    for name in ("user_texts", "answers", "system_prompt", "reasoning"):
        assert report.inputs[name].status == "withheld", name
    assert {"user_texts", "answers"} <= set(report.missing)


def test_texts_are_seen_where_any_record_tells_them() -> None:
    """A bare span beside a full log record, a bare run around a full model call."""
    bare = chat(None, None, attributes=NAMED, word="chat")
    full = details(chat(ASK, DONE, attributes=NAMED, word="chat"))
    report = one(bare, full, run(None, None, start=0, end=3, session="s-1", agent="clerk", word="run"))
    assert report.inputs["user_texts"].status == "seen"
    assert report.inputs["answers"].status == "seen"
    assert report.logs == 1


def test_acts_that_a_model_asked_for_and_nobody_tells_are_withheld() -> None:
    report = one(chat(None, None, finish=["tool_calls"], attributes=NAMED))
    for name in ("acts", "arguments", "results"):
        assert counts(report, name) == (0, 0, 1, 0), name


def test_acts_in_messages_alone_are_seen() -> None:
    wish = [assistant(call("call_000000001", "file_it", ARGUMENTS))]
    again = [*ASK, *wish, turn("tool", response("call_000000001", "filed"))]
    report = one(
        chat(ASK, wish, start=0, finish=["tool_calls"], attributes=NAMED, word="one"),
        chat(again, DONE, start=2, attributes=NAMED, word="two"),
    )
    for name in ("acts", "arguments", "results", "call_ids"):
        assert counts(report, name) == (1, 0, 0, 0), name
    assert report.tool_spans == 0


def test_an_act_that_is_told_twice_counts_once() -> None:
    first = tool("file_it", ARGUMENTS, None, call_id="c-1", start=1, attributes=NAMED, word="inner", parent="outer")
    second = tool("file_it", None, "filed", call_id="c-1", start=0.9, end=1.2, attributes=NAMED, word="outer")
    report = one(first, second)
    assert counts(report, "arguments") == (1, 0, 0, 0)
    assert counts(report, "results") == (1, 0, 0, 0)
    assert report.tool_spans == 2


# ---------------------------------------------------------------- sessions and agents


def test_where_the_session_of_an_act_is_told() -> None:
    act = tool("file_it", ARGUMENTS, "filed", call_id="c-1", start=1, word="act", parent="run")
    named = {"gen_ai.conversation.id": "s-1"}
    assert one(act, run(start=0, end=3, word="run", session="s-1")).session_at == {"a later span": 1}
    before = chat(ASK, DONE, start=0, attributes=named, word="chat", parent="run")
    assert one(before, act, run(start=0, end=3, word="run")).session_at == {"another span": 1}
    assert one(act).session_at == {"nowhere": 1}
    assert one(act).inputs["session"].status == "absent"


def test_a_session_that_only_its_history_holds_together_is_guessed() -> None:
    wish = [assistant(call("call_000000001", "file_it", ARGUMENTS))]
    again = [*ASK, *wish, turn("tool", response("call_000000001", "filed"))]
    report = one(chat(ASK, wish, start=0, finish=["tool_calls"], trace="t1"), chat(again, DONE, start=2, trace="t2"))
    assert counts(report, "session") == (0, 1, 0, 0)
    assert report.session_at == {"history": 1}
    assert report.missing == ("session", "agent_name")


def test_a_service_stands_in_for_a_name_and_nothing_for_none() -> None:
    act = tool("file_it", ARGUMENTS, "filed", call_id="c-1")
    assert one(replace(act, resource={"service.name": "desk"})).inputs["agent_name"].status == "inferred"
    assert "agent_name" not in one(replace(act, resource={"service.name": "desk"})).missing
    assert one(replace(act, resource={"service.name": "unknown_service"})).inputs["agent_name"].status == "absent"
    assert one(act).inputs["agent_name"].status == "absent"


def test_agents_and_realms_are_told_apart_in_order() -> None:
    def act(name: str, trace: str) -> Span:
        return tool(
            "file_it", ARGUMENTS, "filed", call_id=f"c-{name}", trace=trace, attributes={"gen_ai.agent.name": name}
        )

    assert [report.role for report in told(act("b", "t2"), act("a", "t1"))] == ["a", "b"]
    [report] = told(act("a", "t1"), speaker=Speaker(realm="agent:a"))
    assert report.realm == "agent:a"


def test_agents_within_a_session_are_named_with_it() -> None:
    inner = tool("file_it", ARGUMENTS, "filed", call_id="c-1", start=1, word="act", parent="inner")
    hand = run(start=0.5, end=2, word="inner", parent="run", session="s-1", agent="helper")
    report = one(run(ASK, DONE, start=0, end=3, session="s-1", agent="clerk", word="run"), hand, inner)
    assert report.role == "clerk"
    assert report.others == ("helper",)


# ---------------------------------------------------------------- what is wrong with spans


def test_faults_are_counted_with_an_example() -> None:
    act = tool("file_it", '{"name": "rep', "filed", call_id="c-1", attributes=NAMED, word="act", parent="lost")
    act = replace(act, dropped=58)
    hidden = chat(attributes=NAMED | {"input.value": "__REDACTED__", "openinference.span.kind": "LLM"}, word="chat")
    report = one(act, hidden)
    assert {name: fault.spans for name, fault in report.faults.items()} == {
        "dropped": 1, "cut": 1, "orphans": 1, "markers": 1,
    }  # fmt: skip
    assert report.faults["dropped"].example == f"{act.trace_id}:{act.span_id}"
    assert set(report.faults) <= set(FAULTS) == set(MENDS)


def test_a_parent_that_comes_later_or_belongs_to_no_agent_is_not_missing() -> None:
    act = tool("file_it", ARGUMENTS, "filed", call_id="c-1", start=1, attributes=NAMED, word="act", parent="wrapper")
    assert one(act, other("wrapper", end=3)).faults == {}
    assert one(other("wrapper", end=3), act).faults == {}


def test_what_says_nothing_of_an_agent_is_counted_and_makes_no_report() -> None:
    coverage = Coverage()
    coverage.note(Record(other("web")), None)
    assert (coverage.records, coverage.mapped) == (1, 0)
    assert told(other("web")) == ()


# ---------------------------------------------------------------- in any order, of any form


@given(st.randoms(use_true_random=False))
def test_the_report_is_the_same_in_any_order(chance: random.Random) -> None:
    spans = whole()
    chance.shuffle(spans)
    report = one(*spans)
    assert report.missing == ()
    assert {name: counts(report, name) for name in INPUTS} == {name: counts(one(*whole()), name) for name in INPUTS}


JUNK = st.dictionaries(
    st.sampled_from(["gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.conversation.id", "gen_ai.input.messages",
                     "openinference.span.kind", "input.value", "traceloop.span.kind", "x"]),
    st.one_of(st.text(max_size=20), st.integers(), st.booleans(), st.just("execute_tool"), st.just("chat"),
              st.just(json.dumps(ASK))),
)  # fmt: skip


@given(st.lists(JUNK, max_size=6))
def test_any_telemetry_has_a_report(attributes: list[dict[str, Any]]) -> None:
    spans = [
        replace(tool("t", word=f"{n}", trace=f"t{n % 2}"), attributes=given_, scope=str(given_.get("x", "")))
        for n, given_ in enumerate(attributes)
    ]
    for report in told(*spans):
        for name in INPUTS:
            assert report.inputs[name].total >= 0
        assert len(blind_spots(report, FAMILY)) == len(SHIPPED)
        assert set(report.session_at) <= set(SESSION_AT)
        for advice in switches(report):
            assert advice.inputs
            assert advice.switch


# ---------------------------------------------------------------- what cannot be detected


def test_every_shipped_detector_says_what_it_lives_on_and_no_other() -> None:
    assert list(NEEDS) == [detector.name for detector in SHIPPED], "a new detector is entered in blind_spots.NEEDS"
    assert {detector.family for detector in SHIPPED} <= set(FAMILIES)
    for need in NEEDS.values():
        assert set(need.needs) | set(need.better) <= set(INPUTS)
        assert not set(need.needs) & set(need.better)
        assert all(INPUTS[name].needed for name in need.needs)


def sights(report: AgentReport) -> dict[str, str]:
    return {spot.detector: spot.sight for spot in blind_spots(report, FAMILY)}


def test_without_arguments_content_detectors_are_blind_and_behaviour_is_not() -> None:
    spans = whole()
    del spans[0].attributes["gen_ai.tool.call.arguments"]
    seen = sights(one(*spans))
    assert seen == {
        "novel_recipient": "blind", "outside_recipient": "blind", "sensitive_flow": "blind", "leverage": "blind",
        "half_space_trees": "weaker",
    }  # fmt: skip


def test_without_results_no_flow_is_seen_and_leverage_errs() -> None:
    spans = whole()
    del spans[0].attributes["gen_ai.tool.call.result"]
    report = one(*spans)
    assert (sights(report)["sensitive_flow"], sights(report)["leverage"]) == ("blind", "weaker")
    [spot] = [spot for spot in blind_spots(report, FAMILY) if spot.detector == "sensitive_flow"]
    assert spot.missing == ("results",)
    assert spot.words == "cannot find secrets and private texts that were read and then go out: no results"


def test_where_some_acts_are_withheld_it_says_partly() -> None:
    bare = tool("file_it", None, None, call_id="c-2", start=1.5, attributes=NAMED, word="bare", parent="run")
    assert sights(one(*whole(), bare))["leverage"] == "partly"
    assert set(sights(one(*whole())).values()) == {"sees"}


def test_where_there_was_no_act_it_does_not_guess() -> None:
    report = one(chat(ASK, DONE, attributes=NAMED))
    assert set(sights(report).values()) == {"unused"}


def test_a_model_without_reasoning_is_not_a_fault() -> None:
    report = one(*whole())
    assert report.inputs["reasoning"].status == "absent"
    assert sights(report)["leverage"] == "sees"


# ---------------------------------------------------------------- switches


def test_the_longest_name_of_a_scope_decides_and_only_up_to_a_dot() -> None:
    def name(scope: str) -> str:
        library = library_of(scope)
        return "" if library is None else library.name

    assert name("opentelemetry.instrumentation.genai.openai") == "OpenTelemetry GenAI for a model's client"
    assert name("opentelemetry.instrumentation.genai.openai_agents") == "OpenTelemetry GenAI for the OpenAI Agents SDK"
    assert name("opentelemetry.instrumentation.genai.weather") == "OpenTelemetry GenAI"
    assert name("opentelemetry.instrumentation.openai.v1") == "OpenLLMetry for a model's client"
    assert name("opentelemetry.instrumentation.openai_v2") == "opentelemetry-instrumentation-openai-v2"
    assert name("ai") == "Vercel AI SDK"
    assert name("aiohttp") == name("airflow.ai") == name("") == ""


def test_every_library_says_something_about_inputs_that_there_are() -> None:
    names = [library.name for library in LIBRARIES]
    assert len(set(names)) == len(names)
    scopes = [scope for library in LIBRARIES for scope in library.scopes]
    assert len(set(scopes)) == len(scopes)
    for library in LIBRARIES:
        assert library.content or library.never, library.name
        assert (set(library.more) | set(library.never)) <= set(INPUTS), library.name
        assert not set(library.more) & set(library.never), library.name
        assert library_of(library.scopes[0]) is library


def test_a_missing_input_has_the_switch_of_its_library() -> None:
    spans = whole()
    del spans[0].attributes["gen_ai.tool.call.arguments"]
    [advice] = [a for a in switches(one(*scoped("gcp.vertex.agent", *spans))) if "arguments" in a.inputs]
    assert (advice.library, advice.possible) == ("Google ADK", True)
    assert "ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS=true" in advice.switch


def test_what_a_library_cannot_tell_has_another_way_unless_one_beside_it_can() -> None:
    act = tool("file_it", None, None, call_id="c-1", attributes=NAMED, word="act")
    [advice] = [a for a in switches(one(*scoped("autogen-core", act))) if "arguments" in a.inputs]
    assert not advice.possible
    assert "openinference-instrumentation-openai" in advice.switch
    beside = scoped("openinference.instrumentation.openai", chat(None, None, attributes=NAMED, word="chat"))
    ways = [a for a in switches(one(*scoped("autogen-core", act), *beside)) if "arguments" in a.inputs]
    assert [way.possible for way in ways] == [True]


def test_an_unknown_library_has_advice_for_all_that_is_missing() -> None:
    report = one(*scoped("home.made", tool("file_it", None, None)))
    advised = {name for advice in switches(report) for name in advice.inputs}
    assert advised == {name for name in INPUTS if not report.has(name)}
    assert {advice.library for advice in switches(report)} == {""}
    assert {"arguments", "session"} <= advised


def test_nothing_is_advised_where_nothing_is_missing_that_is_needed() -> None:
    advised = [advice for advice in switches(one(*whole())) if any(INPUTS[name].needed for name in advice.inputs)]
    assert advised == []


@pytest.mark.parametrize(
    ("count", "status"),
    [
        (Count(), "nothing"), (Count(told=2), "seen"), (Count(told=1, inferred=1), "inferred"),
        (Count(inferred=1), "inferred"), (Count(told=1, absent=1), "partly"), (Count(inferred=1, absent=1), "partly"),
        (Count(withheld=1, absent=3), "withheld"), (Count(absent=1), "absent"),
    ],
)  # fmt: skip
def test_counts_in_a_word(count: Count, status: str) -> None:
    assert count.status == status
