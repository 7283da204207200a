"""What the gate says: the whole table of answers, and what an answer means for the session that asked."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.assembly import pipeline
from sidecar.core import gate
from sidecar.core.commands import Cause
from sidecar.core.events import Agent, Event, SessionKey, ToolCall
from sidecar.core.findings import Finding, Severity, finding
from sidecar.core.reading import Effect, Reading
from sidecar.core.runstate import RUNNING, Run
from sidecar.core.triage.policy import Policy, PolicyDocument
from sidecar.core.weave import Asked
from tests.core.kit import Marked, Odd, Stage, Toy, mark, tool

KEY = SessionKey("r", "s")

TABLE = """
                      critical         high            medium
  content  pause      deny   deny      hold   allow    allow  allow
  content  hold       hold   hold      hold   allow    allow  allow
  content  alert      allow  allow     allow  allow    allow  allow
  content  shadow     allow  allow     allow  allow    allow  allow
  model    pause      deny   deny      hold   allow    allow  allow
  model    hold       hold   hold      hold   allow    allow  allow
  model    alert      allow  allow     allow  allow    allow  allow
  model    shadow     allow  allow     allow  allow    allow  allow
"""
"""Answers in `enforce`: (what found it, its mode) × severity × (cannot be undone, can be undone)."""


def cells() -> list[tuple[str, str, str, str, bool, str]]:
    """(posture, family, mode, severity, reversible, answer): in `guard` models never hold, `observe` never does."""
    out = []
    head, *rows = TABLE.strip().splitlines()
    for posture, row in itertools.product(("observe", "guard", "enforce"), rows):
        source, mode, *answers = row.split()
        family = "behaviour" if source == "model" else "leverage"
        for (severity, reversible), answer in zip(
            itertools.product(head.split(), (False, True)), answers, strict=True
        ):  # fmt: skip
            quiet = posture == "guard" and source == "model"
            out.append((posture, family, mode, severity, reversible, "allow" if quiet else answer))
    return out


@pytest.mark.parametrize(("posture", "family", "mode", "severity", "reversible", "answer"), cells())
def test_the_table_of_answers(
    posture: str, family: Any, mode: str, severity: str, reversible: bool, answer: str
) -> None:  # fmt: skip
    policy = Policy(PolicyDocument.model_validate({"posture": posture, "modes": {"d": mode}}), {"d": "pause"})
    found = Finding("d", family, Severity[severity.upper()], 0.9, "why", "e", KEY, Agent(name="clerk"), 0)
    decision, actions = gate.decide(_act(reversible), [found], (), RUNNING, policy)
    if posture == "observe":
        would = answer if family == "leverage" else "allow"
        assert (decision.answer, decision.would, decision.state) == ("allow", would, "running")
        return
    assert (decision.answer, decision.would) == (answer, answer)
    assert decision.ground == ("none" if answer == "allow" else "judged")
    assert decision.state == ("paused" if answer == "deny" else "running")
    assert set(actions) == {found.id}
    assert [reason.finding_id for reason in decision.reasons] == [found.id]


def test_shadow_is_recorded_and_nobody_is_told() -> None:
    policy = Policy(PolicyDocument(modes={"d": "shadow"}, posture="enforce"), {"d": "pause"})
    found = Finding("d", "leverage", Severity.CRITICAL, 0.9, "why", "e", KEY, Agent(name="clerk"), 0)
    decision, actions = gate.decide(_act(False), [found], (), RUNNING, policy)
    assert (actions[found.id], decision.action) == ("record", "record")
    assert decision.reasons, "the record has its reason all the same"


CAUSES = {"p": Cause("p", "operator", "ann", "", 0)}


@given(
    st.sampled_from(["observe", "guard", "enforce"]), st.booleans(), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from(["alert", "hold"]), st.booleans(), st.lists(st.sampled_from(list(Severity)), max_size=3),
)  # fmt: skip
def test_a_refusal_always_says_why_in_words(
    posture: Any, reversible: bool, known: bool, closed: bool, failed: bool, unscored: Any, held: bool,
    severities: list[Severity],
) -> None:  # fmt: skip
    policy = Policy(PolicyDocument(posture=posture, unscored=unscored), {})
    findings = [
        Finding(f"d{n}", "leverage", severity, 0.5, f"found {n}", "e", KEY, Agent(name="clerk"), 0)
        for n, severity in enumerate(severities)
    ]
    run = Run(desired="paused", causes=CAUSES) if held else RUNNING
    decision, _ = gate.decide(
        _act(reversible, known=known, unscored=("cut",)), findings, ("broken",) if failed else (), run, policy,
        closed=closed,
    )  # fmt: skip
    if "allow" not in (decision.answer, decision.would):
        blamed = [reason for reason in decision.reasons if reason.detector in ("policy", "session")]
        grave = [severity for severity in severities if severity >= Severity.HIGH]
        assert blamed or grave
    assert all(reason.text for reason in decision.reasons)
    assert {reason.finding_id for reason in decision.reasons} >= {one.id for one in findings}


def _act(reversible: bool, *, known: bool = True, unscored: tuple[str, ...] = ()) -> ToolCall:
    return ToolCall(
        event_id="e", session=KEY, agent=Agent(name="clerk"), at_ns=5, phase="started", tool="t", unscored=unscored,
        reading=Reading(effect=Effect(tool="t", reversible=reversible, known=known)),
    )  # fmt: skip


# ---------------------------------------------------------------- judged and system refusals


class Flaky(Toy):
    """Cannot judge while `ill`."""

    name = "flaky"
    ill = False

    def score(self, event: Event) -> Finding | None:
        if Flaky.ill:
            raise RuntimeError("on demand")
        return finding(self, event, 0.9, "x") if mark(event, "find") else None


@pytest.fixture(autouse=True)
def _well() -> Any:
    Flaky.ill = False
    yield
    Flaky.ill = False


def test_a_judged_refusal_is_evidence_against_the_session() -> None:
    stage = Stage(Marked)
    outcome = stage.ask("s", "send_mail", {"mark": "high"})
    assert outcome.decision is not None
    assert (outcome.decision.answer, outcome.decision.ground) == ("hold", "judged")
    session = stage.session("s")
    assert session.risk > 0
    assert session.flagged
    assert len(outcome.alerts) == 1


def test_a_system_refusal_is_none_and_asking_again_is_judged_again() -> None:
    stage = Stage(Flaky)
    Flaky.ill = True
    decision = stage.ask("s", "send_mail", {"n": 1}, "call-000000000001").decision
    assert decision is not None
    assert (decision.answer, decision.ground, decision.system) == ("wait", "system", "degraded")
    session = stage.session("s")
    assert (session.risk, session.flagged, len(stage.core.alerts), session.peak) == (0.0, False, 0, None)
    Flaky.ill = False
    assert stage.answer("s", "send_mail", {"n": 1}, "call-000000000001") == "allow"
    assert session.act_count == 1
    assert list(session.unscored) == ["detector_failed"], "it stays on record that this act was once not judged"


def test_every_act_has_a_decision_asked_or_not() -> None:
    stage = Stage(Marked)
    asked = stage.ask("s", "read_file", {"n": 1})
    ran = stage.feed(tool("read_file", {"n": 2}, "ok", session="other", agent="clerk"))
    assert [len(outcome.decisions) for outcome in (asked, ran)] == [1, 1]
    assert asked.decision is asked.decisions[0]
    assert ran.decision is None


@pytest.mark.parametrize(
    ("grave", "name", "state", "action"),
    [
        ("critical", "send_mail", "paused", "pause"), ("critical", "read_file", "paused", "pause"),
        ("high", "send_mail", "paused", "hold"), ("high", "read_file", "running", "alert"),
        ("medium", "send_mail", "running", "alert"),
    ],
)  # fmt: skip
def test_what_ran_unasked_cannot_be_held_so_its_session_is(grave: str, name: str, state: str, action: str) -> None:
    stage = Stage(Marked)
    (decision,) = stage.feed(tool(name, {"mark": grave}, "ok", session="s", agent="clerk")).decisions
    assert (decision.answer, decision.ground) == ("allow", "none"), "it has run"
    assert (decision.state, decision.action) == (state, action)
    assert decision.would == {"pause": "deny", "hold": "hold", "alert": "allow"}[action]
    assert stage.state("s") == state
    assert decision.reasons


def test_observe_watches_alerts_and_never_stops() -> None:
    stage = Stage(Marked, Odd, posture="observe")
    for number, grave in enumerate(("critical", "high", "medium")):
        assert stage.answer("s", "send_mail", {"mark": grave, "n": number}) == "allow"
        assert stage.answer("s", "send_mail", {"odd": grave, "n": number}) == "allow"
        stage.feed(tool("send_mail", {"mark": grave, "ran": number}, session="s", start=number))
    assert stage.state("s") == "running"
    assert stage.transitions == []
    assert {alert.detector for alert in stage.core.alerts} >= {"marked", "odd"}


def test_each_role_has_its_posture_under_one_policy() -> None:
    roles = [{"role": "old-*", "posture": "observe"}, {"role": "mature", "posture": "enforce", "unscored": "hold"}]
    document = PolicyDocument.model_validate({"roles": roles})
    stage = Stage(Marked, Odd, document=document)
    answers = {
        role: [
            stage.answer(f"{role} {what}", "send_mail", {what: "high"}, agent=Agent("local", "", role))
            for what in ("mark", "odd")
        ]
        for role in ("old-clerk", "clerk", "mature")
    }
    assert answers == {"old-clerk": ["allow", "allow"], "clerk": ["hold", "allow"], "mature": ["hold", "hold"]}
    deep: Any = "x"
    for _ in range(80):
        deep = [deep]
    real = pipeline(document)
    for role, answer in (("clerk", "allow"), ("mature", "hold")):
        key = SessionKey("local", f"deep {role}")
        decision = real.authorize(Asked(key, "send_mail", {"x": deep}, "", 1, Agent("local", "", role)), 1).decision
        assert decision is not None
        assert (decision.answer, "uninspectable" in decision.unscored) == (answer, True), role
