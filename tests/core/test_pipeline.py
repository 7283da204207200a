"""The core as one object: what comes first counts first, a pause counts at once, a resume clears what it names."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.assembly import pipeline
from sidecar.core.commands import Cause, Resume, Terminate, Transition
from sidecar.core.events import Agent, Event, Message, SessionKey, ToolCall
from sidecar.core.pipeline import Outcome
from sidecar.core.runstate import CONFIRM_NS
from sidecar.core.triage.policy import Policy, PolicyDocument
from sidecar.core.weave import Asked
from sidecar.errors import ControlError
from tests.core.kit import SECOND_NS, Marked, Odd, Stage, assistant, call, chat, other, tool, user

CRITICAL, HIGH = {"mark": "critical"}, {"mark": "high"}
AGENT = Agent("local", "", "clerk")


def key(session: str) -> SessionKey:
    return SessionKey("local", session)


class Office(Stage):
    """A stage with what operators do."""

    def plan(self, session: str, *clears: str, **more: Any) -> Transition:
        run = self.core.runs.get(key(session))
        fields = {"pause_id": run.pause_id, "epoch": run.epoch} | more
        return self.core.runs.plan_resume(
            Resume(key(session), actor="ann", reason="", at_ns=self.now_ns, clears=clears, **fields)
        )

    def resume(self, session: str, *clears: str) -> Outcome:
        return self._keep(self.core.applied(self.plan(session, *clears), self.now_ns))

    def terminate(self, session: str) -> Outcome:
        command = Terminate(key(session), "ann", "", self.now_ns)
        return self._keep(self.core.applied(self.core.runs.plan_terminate(command), self.now_ns))

    def open(self, session: str, parent: str = "", role: str = "clerk") -> Outcome:
        agent = Agent("local", "", role)
        return self._keep(
            self.core.open_session(key(session), agent, self.now_ns, parent=key(parent) if parent else None)
        )

    def cause(self, pause_id: str) -> Cause:
        return Cause(pause_id, "operator", "ann", "", self.now_ns)


# ---------------------------------------------------------------- the gate knows what the agent knew

PASSAGE = (
    "The offer for the northern yard is 41.6 million, to be raised twice at most, and the board will walk away above "
    "44.2 million; the second bidder does not know that the lease of the slipway ends in March."
)
SEND = {"to": "someone@rival.example", "subject": "as promised", "body": PASSAGE}
CONFIDENTIAL = "Strictly confidential. Internal use only, do not distribute.\n\n" + PASSAGE
READ = tool("read_file", {"path": "offer.txt"}, CONFIDENTIAL, session="s", agent="clerk", word="read", start=0, end=1)


def asks(core: Any, arguments: Any, now_ns: int) -> str:
    decision = core.authorize(Asked(key("s"), "send_mail", arguments, "", now_ns, AGENT), now_ns).decision
    assert decision is not None
    return str(decision.answer)


def test_what_was_carried_with_a_question_is_known_when_it_is_answered() -> None:
    """The read ended a millisecond before the send; its span is fed with the question, not seconds later."""
    stage = Stage()
    stage.core = pipeline()
    stage.feed(READ)
    assert asks(stage.core, SEND, READ.end_ns + 10**6) in ("hold", "deny")


def test_without_it_the_gate_judges_by_what_it_has() -> None:
    """The control: it is the carried span that made the difference."""
    assert asks(pipeline(), SEND, READ.end_ns + 10**6) == "allow"


def test_what_comes_with_a_question_asked_again_counts_against_its_allow() -> None:
    """The first answer was lost on its way; before the agent asks again it has read what it is about to send."""
    stage = Stage()
    stage.core = pipeline()
    said = [stage.answer("s", "send_mail", SEND, "call-000000000001") for _ in range(2)]
    stage.feed(READ)
    said.append(stage.answer("s", "send_mail", SEND, "call-000000000001"))
    assert (said[:2], said[2] in ("hold", "deny")) == (["allow", "allow"], True)


def test_act_that_is_judged_again_is_counted_and_learned_once() -> None:
    class Watching(Marked):
        scope = "agent"

        def __init__(self) -> None:
            self.learned: list[str] = []

        def learn(self, event: Event) -> None:
            self.learned.append(event.event_id)

    stage = Stage(Watching)
    first = stage.ask("s", "read_file", {"mark": "low"}, "call-000000000001")
    stage.feed(tool("read_file", {}, "x", session="s", agent="clerk"))
    again = stage.ask("s", "read_file", {"mark": "low"}, "call-000000000001")
    assert [len(outcome.decisions) for outcome in (first, again)] == [1, 1], "it was judged twice"
    assert [len(outcome.findings) for outcome in (first, again)] == [1, 0], "and found once"
    assert [len(outcome.events) for outcome in (first, again)] == [1, 0]
    [agent] = stage.core.engine.agents.values()
    assert [event.event_id for _, _, event in agent.pending].count(first.decision.event_id) == 1


def test_a_carried_span_that_the_exporter_sends_again_changes_nothing() -> None:
    stage = Stage(Marked)
    first = stage.feed(tool("read_file", HIGH, "x", session="s", agent="clerk", word="carried"))
    again = stage.feed(tool("read_file", HIGH, "x", session="s", agent="clerk", word="carried"))
    assert (len(first.findings), again.findings, again.events, again.decisions) == (1, [], [], [])


# ---------------------------------------------------------------- one question, one answer


def test_the_same_question_has_the_same_answer_and_is_judged_once() -> None:
    stage = Stage(Marked)
    first = stage.ask("s", "send_mail", HIGH, "call-000000000001")
    again = stage.ask("s", "send_mail", HIGH, "call-000000000001")
    assert again.decision == first.decision
    assert (again.decisions, again.findings, again.events) == ([], [], [])


def test_an_answer_does_not_outlive_the_state_it_was_given_in() -> None:
    stage = Office(Marked)
    assert stage.answer("s", "send_mail", {}, "call-000000000001") == "allow"
    stage.pause("s")
    assert stage.answer("s", "send_mail", {}, "call-000000000001") == "deny"
    stage.resume("s")
    assert stage.answer("s", "send_mail", {}, "call-000000000001") == "allow"


def test_a_new_policy_counts_from_the_next_question_on() -> None:
    stage = Stage(Marked)
    assert stage.answer("s", "send_mail", HIGH, "call-000000000001") == "hold"
    stage.core.adopt_policy(Policy(PolicyDocument(verdicts=()), {"marked": "pause"}))
    assert stage.answer("s", "send_mail", HIGH, "call-000000000001") == "allow"


# ---------------------------------------------------------------- a pause


def test_a_pause_counts_from_the_very_next_question() -> None:
    stage = Office(Marked)
    assert stage.answer("s", "read_file") == "allow"
    outcome = stage.pause("s")
    assert [(change.before, change.after, change.epoch) for change in outcome.transitions] == [("running", "paused", 1)]
    decision = stage.ask("s", "read_file", seconds=0).decision
    assert decision is not None
    assert (decision.answer, decision.state, decision.ground) == ("deny", "paused", "judged")
    assert "operator ann" in decision.reasons[-1].text
    assert stage.answer("another", "read_file") == "allow"


def test_the_act_that_pauses_its_session_is_denied_itself() -> None:
    stage = Stage(Marked)
    outcome = stage.ask("s", "send_mail", CRITICAL)
    assert outcome.decision is not None
    assert (outcome.decision.answer, outcome.decision.state) == ("deny", "paused")
    (change,) = outcome.transitions
    (cause,) = change.causes
    assert (cause.by, cause.actor) == ("detector", "marked")
    assert cause.findings == tuple(finding.id for finding in outcome.findings)


def test_a_session_nobody_can_hold_is_unenforced_at_once() -> None:
    stage = Stage(Marked)
    (change,) = stage.feed(tool("send_mail", CRITICAL, session="s", agent="clerk")).transitions
    assert change.observed == "unenforced"
    stage = Stage(Marked, present=lambda key: False)
    (change,) = stage.ask("s", "send_mail", CRITICAL).transitions
    assert change.observed == "unenforced"


def test_a_pause_nobody_confirms_is_told_once() -> None:
    stage = Stage(Marked)
    stage.ask("s", "send_mail", CRITICAL)
    assert stage.tick(CONFIRM_NS / SECOND_NS - 0.1).transitions == []
    (late,) = stage.tick(0.2).transitions
    assert (late.observed, late.after) == ("unconfirmed", "paused")
    assert stage.tick(60).transitions == []


def test_a_pause_that_was_ended_by_a_person_does_not_come_again_from_the_same_act() -> None:
    """After a restart the telemetry since the snapshot is read again; the pause it led to is on record."""
    stage = Stage(Marked)
    one = tool("send_mail", CRITICAL, session="s", agent="clerk", word="act")
    (change,) = stage.feed(one).transitions
    after = Stage(Marked)
    after.core.known_pauses = frozenset({change.pause_id})
    assert after.feed(one).transitions == []
    assert after.feed(tool("send_mail", CRITICAL | {"n": 2}, session="s", agent="clerk", start=9)).transitions


# ---------------------------------------------------------------- a resume


def test_a_resume_clears_the_kind_of_act_it_names_and_nothing_else() -> None:
    stage = Office(Marked, Odd, posture="enforce")
    home, away = {"to": "amy@corp.example"}, {"to": "bob@rival.example"}
    (found,) = stage.ask("s", "send_mail", CRITICAL | home).findings
    stage.resume("s", found.id)
    assert stage.answer("s", "send_mail", CRITICAL | home | {"body": "again"}) == "allow", "the same to the same"
    assert stage.answer("s", "send_mail", {"odd": "high"} | home) == "hold", "another detector"
    assert stage.answer("t", "send_mail", HIGH | home) == "hold", "another session"
    assert stage.answer("s", "post_message", HIGH | home) == "hold", "another tool"
    assert stage.answer("s", "send_mail", CRITICAL | away) == "deny", "to somebody else"


def test_what_a_reviewer_found_right_stays_refused_when_the_session_goes_on() -> None:
    stage = Office(Marked, Odd, posture="enforce")
    home, away = {"to": "amy@corp.example"}, {"to": "bob@rival.example"}
    (found,) = stage.ask("s", "send_mail", CRITICAL | home).findings
    (alert,) = stage.core.alerts
    stage.core.confirm(stage.core.alerts.close(alert, "true_positive", stage.now_ns))
    stage.resume("s", found.id)
    again = stage.ask("s", "send_mail", CRITICAL | home | {"body": "again"})
    assert again.decision is not None
    assert (again.decision.answer, again.decision.ground, again.transitions) == ("deny", "judged", [])
    assert "a reviewer has refused" in again.decision.reasons[-1].text
    assert stage.state("s") == "running", "it goes on without that act"
    assert stage.answer("s", "read_file", {"path": "notes"}) == "allow"
    assert stage.answer("s", "send_mail", CRITICAL | away) == "deny"
    assert stage.state("s") == "paused", "to somebody else: another kind"


def test_a_verdict_that_comes_after_the_resume_takes_back_what_was_cleared() -> None:
    stage = Office(Marked, posture="enforce")
    home = {"to": "amy@corp.example"}
    (found,) = stage.ask("s", "send_mail", CRITICAL | home).findings
    (alert,) = stage.core.alerts
    stage.resume("s", found.id)
    assert stage.answer("s", "send_mail", CRITICAL | home | {"n": 1}) == "allow"
    stage.core.confirm(alert)
    assert stage.answer("s", "send_mail", CRITICAL | home | {"n": 2}) == "deny"


def test_a_resume_has_to_name_all_that_holds_the_session() -> None:
    stage = Office(Marked, Odd, posture="enforce")
    (first,) = stage.ask("s", "send_mail", CRITICAL).findings
    (second,) = stage.ask("s", "send_mail", {"odd": "critical"}).findings
    stage.pause("s", "by hand")
    assert len(stage.core.runs.get(key("s")).causes) == 3
    for clears in ((), (first.id,), (second.id,)):
        with pytest.raises(ControlError, match="not cleared by this resume"):
            stage.plan("s", *clears)
    stage.resume("s", first.id, second.id)
    assert stage.state("s") == "running"
    assert len(stage.core.alerts) == 0
    assert not stage.session("s").flagged


def test_what_a_resume_leaves_is_what_was_read() -> None:
    """Taint and labelled reads stay: the next send of the same passage elsewhere is stopped again."""
    stage = Office()
    stage.core = pipeline()
    stage.feed(READ)
    assert asks(stage.core, SEND, stage.now_ns) in ("hold", "deny")
    stage.pause("s")
    run = stage.core.runs.get(key("s"))
    stage.resume("s", *[finding for cause in run.causes.values() for finding in cause.findings])
    assert asks(stage.core, SEND | {"to": "third@elsewhere.example"}, stage.now_ns) in ("hold", "deny")


def test_a_resume_takes_effect_only_when_it_is_stored() -> None:
    stage = Office(Marked)
    stage.pause("s")
    planned = stage.plan("s")
    assert stage.answer("s", "read_file") == "deny"
    stage.core.applied(planned, stage.now_ns)
    assert stage.answer("s", "read_file") == "allow"


def test_a_resume_finds_the_session_though_it_was_renamed_while_being_stored() -> None:
    stage = Office(Marked)
    stage.feed(tool("read_file", {}, session="", agent="clerk", trace="T", word="root"))
    (session,) = stage.core.sessions
    trace = session.key.id
    assert trace.startswith("trace:")
    stage.pause(trace)
    planned = stage.plan(trace)
    stage.feed(tool("read_file", {"n": 2}, session="bound", agent="clerk", trace="T", start=5))
    assert stage.state("bound") == "paused"
    stage.core.applied(planned, stage.now_ns)
    assert stage.state("bound") == "running"


# ---------------------------------------------------------------- trees, roles, the fleet


def test_a_pause_holds_all_that_a_session_started_and_what_it_starts_later() -> None:
    stage = Office(Marked)
    for session, parent in (("child", "root"), ("grandchild", "child"), ("stranger", "")):
        stage.open(session, parent)
    stage.pause("root", "p")
    stage.open("late", "grandchild")
    states = {name: stage.state(name) for name in ("root", "child", "grandchild", "late", "stranger")}
    assert states == {"root": "paused", "child": "paused", "grandchild": "paused", "late": "paused",
                      "stranger": "running"}  # fmt: skip
    assert stage.answer("late", "read_file") == "deny"
    assert {cause.pause_id for cause in stage.core.runs.get(key("late")).causes.values()} == {"p"}


def test_a_child_told_only_by_telemetry_is_held_before_its_first_act_is_judged() -> None:
    stage = Office(Marked)
    stage.pause("root")
    (decision,) = stage.feed(
        tool("read_file", {}, session="child", agent="clerk", attributes={"sidecar.session.parent_id": "root"})
    ).decisions
    assert decision.state == "paused"


def test_sessions_that_start_each_other_are_a_tree_all_the_same() -> None:
    stage = Office(Marked)
    stage.open("a", "b")
    stage.open("b", "a")
    stage.pause("a")
    assert (stage.state("a"), stage.state("b")) == ("paused", "paused")
    assert sorted(k.id for k in stage.core.tree(key("a"))) == ["a", "b"]


@pytest.mark.parametrize(("scope", "held"), [("role:clerk", ["c1", "c2"]), ("fleet", ["c1", "c2", "w1"])])
def test_a_scope_holds_who_is_there_and_who_comes(scope: str, held: list[str]) -> None:
    stage = Office(Marked)
    stage.open("c1")
    stage.open("w1", role="writer")
    stage.core.pause_scope(scope, stage.cause("s1"), stage.now_ns)
    stage.open("c2")
    assert [name for name in ("c1", "c2", "w1") if stage.state(name) == "paused"] == held
    assert stage.core.scopes() == (scope,)
    stage.core.resume_scope(scope)
    stage.open("c3")
    assert stage.state("c3") == "running"
    assert stage.state("c1") == "paused", "those that are held are resumed one by one"


def test_an_unknown_agent_that_turns_out_to_be_of_a_held_role_is_held() -> None:
    stage = Office(Marked)
    stage.core.pause_scope("role:clerk", stage.cause("s1"), stage.now_ns)
    stage.feed(tool("read_file", {}, session="s"))
    assert stage.state("s") == "running"
    (decision,) = stage.feed(tool("read_file", {"n": 2}, session="s", agent="clerk", start=2)).decisions
    assert decision.state == "paused"


def test_a_terminated_session_stays_so_and_its_alerts_end() -> None:
    stage = Office(Marked)
    stage.ask("s", "send_mail", CRITICAL)
    outcome = stage.terminate("s")
    assert [alert.state for alert in outcome.alerts] == ["resolved"]
    assert stage.answer("s", "read_file") == "deny"
    with pytest.raises(ControlError):
        stage.pause("s")
    stage.ask("s", "send_mail", CRITICAL | {"n": 2})
    assert stage.state("s") == "terminated"
    stage.core.pause_scope("fleet", stage.cause("all"), stage.now_ns)
    assert stage.state("s") == "terminated"


# ---------------------------------------------------------------- a held act that is released


def held(stage: Stage) -> str:
    decision = stage.ask("s", "send_mail", HIGH, "call-000000000001").decision
    assert decision is not None
    assert decision.answer == "hold"
    return decision.event_id


def test_an_approved_act_is_allowed_once() -> None:
    stage = Stage(Marked)
    event = held(stage)
    released = stage.core.release(event, stage.now_ns)
    assert released is not None
    assert (released.answer, released.ground) == ("allow", "judged")
    assert stage.answer("s", "send_mail", HIGH, "call-000000000001") == "allow", "asked again, it is that answer"
    assert stage.core.release(event, stage.now_ns) is None
    assert stage.core.release("no such act", stage.now_ns) is None


def test_an_approved_act_of_a_session_that_was_paused_meanwhile_is_denied() -> None:
    stage = Stage(Marked)
    event = held(stage)
    stage.pause("s")
    released = stage.core.release(event, stage.now_ns)
    assert released is not None
    assert (released.answer, released.state) == ("deny", "paused")


def test_an_approval_under_another_policy_is_asked_for_again() -> None:
    stage = Stage(Marked)
    event = held(stage)
    stage.core.adopt_policy(Policy(PolicyDocument(unscored="hold"), {"marked": "pause"}))
    released = stage.core.release(event, stage.now_ns)
    assert released is not None
    assert (released.answer, released.ground, released.system) == ("wait", "system", "policy_changed")
    assert stage.answer("s", "send_mail", HIGH, "call-000000000001") == "hold"


# ---------------------------------------------------------------- outcomes


def test_an_outcome_tells_of_sessions_that_are_one() -> None:
    stage = Stage(Marked)
    stage.feed(tool("read_file", {}, trace="T", agent="clerk"))
    outcome = stage.feed(tool("read_file", {"n": 2}, trace="T", session="bound", agent="clerk", start=2))
    ((old, new),) = outcome.renamed
    assert (old.id.startswith("trace:"), new) == (True, key("bound"))


def test_the_end_of_the_stream_brings_out_what_was_waited_for() -> None:
    stage = Stage(Marked)
    wish = chat(None, [assistant(call("c1", "send_mail", CRITICAL))], session="s", agent="clerk")
    assert stage.feed(wish).decisions == []
    outcome = stage.tick(0, last=True)
    assert [decision.action for decision in outcome.decisions] == ["pause"]


def test_feeding_a_record_of_no_agent_says_nothing() -> None:
    stage = Stage(Marked)
    assert stage.feed(replace(other("web"), name="GET /")) == Outcome()
    assert stage.core.weaver.unmapped == 1


# ------------------------------------------------------------ what must not be lost


def test_approving_one_held_act_lets_that_one_run_and_no_other() -> None:
    stage = Office(Marked, posture="enforce")
    home = {"to": "amy@corp.example"}
    held = stage.ask("s", "send_mail", HIGH | home, "c1").decision
    assert held is not None
    assert held.answer == "hold"
    released = stage.core.release(held.event_id, stage.now_ns)
    assert released is not None
    assert released.answer == "allow"
    assert stage.answer("s", "send_mail", CRITICAL | home | {"n": 2}, "c2") == "deny"


def test_a_verdict_does_not_weaken_what_is_done_about_acts_that_were_not_asked() -> None:
    stage = Office(Marked)
    first = stage.feed(tool("send_mail", CRITICAL, session="s", agent="clerk"))
    (alert,) = [alert for alert in first.alerts if alert.detector == "marked"]
    stage.core.confirm(alert)
    stage.resume("s", *[finding.id for finding in first.findings])
    assert stage.state("s") == "running"
    stage.feed(tool("send_mail", CRITICAL | {"n": 2}, session="s", agent="clerk", start=9))
    assert stage.state("s") == "paused"


def test_an_act_that_was_refused_and_ran_is_an_alert() -> None:
    stage = Office(Marked)
    assert stage.answer("s", "send_mail", CRITICAL, "a-call-of-its-own") == "deny"
    ran = stage.feed(
        tool("send_mail", CRITICAL, "sent", session="s", agent="clerk", call_id="a-call-of-its-own", start=5)
    )
    assert [alert.detector for alert in ran.alerts] == ["ran_refused"]
    assert stage.answer("t", "read_file", {"path": "x"}, "another-call-id-1") == "allow"
    fine = stage.feed(
        tool("read_file", {"path": "x"}, "text", session="t", agent="clerk", call_id="another-call-id-1", start=9)
    )
    assert fine.alerts == []


def test_a_detector_that_fails_while_reading_marks_the_session() -> None:
    class Fragile(Marked):
        name = "fragile"
        sees = (ToolCall, Message)

        def observe(self, event: Event) -> None:
            if isinstance(event, Message):
                raise RuntimeError("a mistake of ours")

    stage = Stage(Fragile)
    stage.feed(chat([user("hello")], [assistant("good day")], session="s"))
    assert "detector_failed" in stage.session("s").unscored
