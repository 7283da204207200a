"""From a finding to record, alert, hold or pause; from all of them to an answer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from sidecar.core import gate
from sidecar.core.alerts import ACTIONS, SYSTEM_REASONS
from sidecar.core.commands import Cause
from sidecar.core.events import Agent, SessionKey, ToolCall
from sidecar.core.findings import FAMILIES, Finding, Severity
from sidecar.core.reading import Effect, Reading
from sidecar.core.runstate import RUNNING, Run
from sidecar.core.triage.policy import Policy, PolicyDocument, Verdict, stronger, warnings, weaker

MODES = {"content": "pause", "model": "pause", "shy": "shadow", "loud": "alert", "firm": "hold"}
RANK = {action: rank for rank, action in enumerate(ACTIONS)}


def policy(**document: object) -> Policy:
    return Policy(PolicyDocument.model_validate(document), MODES)


def found(severity: str = "high", detector: str = "content", family: str = "leverage") -> Finding:
    return Finding(detector, family, Severity[severity.upper()], 0.9, "why", "e", SessionKey("r", "s"),  # type: ignore[arg-type]
                   Agent(name="clerk"), 0)  # fmt: skip


def act(
    *, reversible: bool = False, known: bool = True, unscored: tuple[str, ...] = (), role: str = "clerk"
) -> ToolCall:
    return ToolCall(
        event_id="e", session=SessionKey("r", "s"), agent=Agent(name=role), at_ns=5, phase="started", tool="t",
        unscored=unscored, reading=Reading(effect=Effect(tool="t", reversible=reversible, known=known)),
        spans=("trace:span",),
    )  # fmt: skip


# ---------------------------------------------------------------- the table of verdicts


@pytest.mark.parametrize(
    ("severity", "irreversible", "reversible"),
    [("critical", "pause", "pause"), ("high", "hold", "alert"), ("medium", "alert", "alert"),
     ("low", "record", "record"), ("info", "record", "record")],
)  # fmt: skip
def test_the_shipped_table(severity: str, irreversible: str, reversible: str) -> None:
    shipped = policy()
    assert shipped.action(found(severity), "guard", reversible=False, acts=True) == irreversible
    assert shipped.action(found(severity), "guard", reversible=True, acts=True) == reversible


def test_the_first_line_that_matches_decides() -> None:
    table = policy(verdicts=[
        {"detector": "con*", "severity": "high", "action": "record"},
        {"family": "leverage", "action": "hold"},
        {"action": "alert"},
    ])  # fmt: skip
    assert table.action(found("critical"), "guard", reversible=False, acts=True) == "record"
    assert table.action(found("low"), "guard", reversible=False, acts=True) == "hold"
    assert table.action(found("low", family="hijack"), "guard", reversible=False, acts=True) == "alert"


def test_what_matches_no_line_is_recorded() -> None:
    assert policy(verdicts=[]).action(found("critical"), "guard", reversible=False, acts=True) == "record"


@given(
    st.lists(
        st.builds(
            Verdict, action=st.sampled_from(ACTIONS), detector=st.sampled_from([None, "content", "m*", "*"]),
            family=st.sampled_from([None, *FAMILIES]), severity=st.sampled_from([None, "low", "high", "critical"]),
            reversible=st.sampled_from([None, True, False]), posture=st.sampled_from([None, "observe", "guard"]),
        ), max_size=6,
    ),
    st.sampled_from(["info", "low", "medium", "high", "critical"]), st.sampled_from(["content", "model"]),
    st.sampled_from(FAMILIES), st.booleans(), st.sampled_from(["observe", "guard", "enforce"]),
)  # fmt: skip
def test_any_table_is_read_from_its_top(
    verdicts: list[Verdict], severity: str, detector: str, family: str, reversible: bool, posture: str
) -> None:
    """Against a reading of the table in plain words; the ceilings of modes and families aside."""
    finding, expected = found(severity, detector, family), "record"
    for verdict in verdicts:
        fits = {
            "detector": verdict.detector in (None, "*", detector) or (verdict.detector == "m*" and detector == "model"),
            "family": verdict.family in (None, family),
            "severity": verdict.severity is None or finding.severity >= Severity[verdict.severity.upper()],
            "reversible": verdict.reversible in (None, reversible),
            "posture": verdict.posture in (None, posture),
        }
        if all(fits.values()):
            expected = verdict.action
            break
    if family == "behaviour" and posture != "enforce":
        expected = min(expected, "alert", key=RANK.__getitem__)
    table = Policy(PolicyDocument(verdicts=tuple(verdicts)), MODES)
    assert table.action(finding, posture, reversible=reversible, acts=True) == expected  # type: ignore[arg-type]


# ---------------------------------------------------------------- modes and postures


@pytest.mark.parametrize(
    ("detector", "highest"),
    [("shy", "record"), ("loud", "alert"), ("firm", "hold"), ("content", "pause"), ("unheard_of", "alert")],
)
def test_a_detectors_mode_is_how_far_policy_may_go(detector: str, highest: str) -> None:
    assert policy().action(found("critical", detector), "enforce", reversible=False, acts=True) == highest


def test_the_operators_mode_goes_before_the_shipped_one() -> None:
    table = policy(modes={"content": "alert", "shy": "pause"})
    assert table.action(found("critical"), "guard", reversible=False, acts=True) == "alert"
    assert table.action(found("critical", "shy"), "guard", reversible=False, acts=True) == "pause"


def test_a_mode_for_a_detector_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no detector is called 'contnt'"):
        policy(modes={"contnt": "alert"})


@pytest.mark.parametrize(("posture", "action"), [("observe", "alert"), ("guard", "alert"), ("enforce", "pause")])
def test_online_models_only_alert_below_enforce(posture: str, action: str) -> None:
    model = found("critical", "model", "behaviour")
    assert policy().action(model, posture, reversible=False, acts=True) == action  # type: ignore[arg-type]


@pytest.mark.parametrize("posture", ["observe", "guard", "enforce"])
def test_what_outsiders_write_only_alerts(posture: str) -> None:
    assert policy().action(found("critical"), posture, reversible=False, acts=False) == "alert"  # type: ignore[arg-type]


def test_the_first_role_that_fits_gives_the_posture() -> None:
    table = policy(posture="guard", roles=[
        {"role": "billing-eu", "posture": "observe"}, {"role": "billing-*", "posture": "enforce", "unscored": "hold"},
    ])  # fmt: skip
    assert [table.posture(role) for role in ("billing-eu", "billing-us", "clerk", "")] == [
        "observe", "enforce", "guard", "guard"]  # fmt: skip
    assert [table.unscored(role) for role in ("billing-eu", "billing-us", "clerk")] == ["alert", "hold", "alert"]


@pytest.mark.parametrize("role", ["r" * 129, "r" * 10**6, "", "\0", "a/b*?[", "Ü" * 500, "\ud800"])
def test_a_role_of_any_form_has_a_posture(role: str) -> None:
    assert policy(posture="enforce").posture(role) == "enforce"


def test_roles_that_telemetry_invents_are_not_all_remembered() -> None:
    table = policy()
    for number in range(12_000):
        table.posture(f"role {number}")
    assert len(table._postures) <= 10_000


def test_the_digest_names_the_whole_policy() -> None:
    assert policy().digest == policy().digest
    assert policy().digest != policy(posture="enforce").digest
    assert policy(verdicts=[{"action": "hold"}]).digest != policy(verdicts=[{"action": "alert"}]).digest


def test_a_line_that_can_never_be_reached_is_warned_of() -> None:
    document = PolicyDocument.model_validate({"verdicts": [
        {"severity": "medium", "action": "alert"}, {"severity": "critical", "action": "pause"},
        {"severity": "low", "detector": "nobody*", "action": "alert"},
    ]})  # fmt: skip
    assert warnings(document, MODES) == [
        "verdicts[1]: never reached, verdicts[0] matches all that it does",
        "verdicts[2]: no detector matches 'nobody*'",
    ]
    assert warnings(PolicyDocument(), MODES) == []


@pytest.mark.parametrize("wrong", [
    {"verdicts": [{"action": "terminate"}]}, {"verdicts": [{}]}, {"posture": "off"}, {"version": 2}, {"extra": 1},
    {"roles": [{"role": "", "posture": "guard"}]}, {"verdicts": [{"action": "hold", "severity": "awful"}]},
    {"verdicts": [{"action": "hold"}] * 501}, {"unscored": "ignore"},
])  # fmt: skip
def test_a_wrong_policy_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PolicyDocument.model_validate(wrong)


@given(st.lists(st.sampled_from(ACTIONS)))
def test_the_stronger_and_the_weaker_of_actions(actions: list[str]) -> None:
    assert stronger(*actions) == max(actions, key=RANK.__getitem__, default="record")  # type: ignore[arg-type]
    for one, other in itertools.pairwise(actions):
        assert weaker(one, other) == min(one, other, key=RANK.__getitem__)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the answer


PAUSED = Run(desired="paused", causes={"p": Cause("p", "operator", "ann", "", 0)})
ENDED = Run(desired="terminated")


@pytest.mark.parametrize(
    ("severity", "reversible", "answer", "ground", "state"),
    [
        ("critical", False, "deny", "judged", "paused"), ("critical", True, "deny", "judged", "paused"),
        ("high", False, "hold", "judged", "running"), ("high", True, "allow", "none", "running"),
        ("medium", False, "allow", "none", "running"), ("low", False, "allow", "none", "running"),
    ],
)  # fmt: skip
def test_what_a_finding_does_to_an_act(severity: str, reversible: bool, answer: str, ground: str, state: str) -> None:
    decision, actions = gate.decide(act(reversible=reversible), [found(severity)], (), RUNNING, policy())
    assert (decision.answer, decision.ground, decision.state) == (answer, ground, state)
    assert decision.irreversible is not reversible
    assert [reason.detector for reason in decision.reasons] == ["content"]
    assert list(actions) == [found(severity).id]
    assert decision.span_id == "trace:span"


def test_nothing_found_is_allowed_without_a_ground() -> None:
    decision, actions = gate.decide(act(), [], (), RUNNING, policy())
    assert (decision.answer, decision.ground, decision.reasons, actions) == ("allow", "none", (), {})


def test_the_strongest_of_several_findings_decides_and_all_are_named() -> None:
    findings = [found("low"), found("critical", "firm"), found("high")]
    decision, actions = gate.decide(act(), findings, (), RUNNING, policy())
    assert (decision.answer, decision.action) == ("hold", "hold")
    assert [reason.detector for reason in decision.reasons] == ["content", "firm", "content"]
    assert set(actions.values()) <= {"record", "hold"}


@pytest.mark.parametrize(("run", "word"), [(PAUSED, "paused by operator ann"), (ENDED, "terminated by nobody")])
@pytest.mark.parametrize("posture", ["observe", "guard", "enforce"])
@pytest.mark.parametrize("reversible", [False, True])
def test_an_act_in_a_session_that_is_held_is_denied(run: Run, word: str, posture: str, reversible: bool) -> None:
    decision, _ = gate.decide(act(reversible=reversible), [], (), run, policy(posture=posture))
    assert (decision.answer, decision.ground, decision.state) == ("deny", "judged", run.desired)
    assert word in decision.reasons[-1].text


def test_a_held_session_is_a_judged_no_even_where_a_detector_failed() -> None:
    decision, _ = gate.decide(act(), [], ("broken",), PAUSED, policy())
    assert (decision.answer, decision.ground, decision.system) == ("deny", "judged", "")


@pytest.mark.parametrize("severity", ["critical", "high"])
def test_observe_allows_and_says_what_it_would_have_answered(severity: str) -> None:
    decision, _ = gate.decide(act(), [found(severity)], (), RUNNING, policy(posture="observe"))
    assert (decision.answer, decision.ground, decision.state) == ("allow", "none", "running")
    assert decision.would == {"critical": "deny", "high": "hold"}[severity]


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("setting", ["alert", "hold"])
def test_what_could_not_be_judged_is_held_where_that_is_chosen(reversible: bool, setting: str) -> None:
    event = act(reversible=reversible, unscored=("withheld",))
    decision, _ = gate.decide(event, [], (), RUNNING, policy(unscored=setting))
    assert decision.answer == ("hold" if setting == "hold" and not reversible else "allow")
    assert decision.unscored == ("withheld",)


def test_unscored_acts_do_not_weaken_a_finding() -> None:
    decision, _ = gate.decide(act(unscored=("cut",)), [found("critical")], (), RUNNING, policy(unscored="hold"))
    assert (decision.answer, decision.action) == ("deny", "pause")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("reversible", [True, False])
def test_closed_tools_deny_what_the_catalogue_does_not_know(known: bool, reversible: bool) -> None:
    event = act(known=known, reversible=reversible)
    decision, _ = gate.decide(event, [], (), RUNNING, policy(), closed=True)
    assert decision.answer == ("allow" if known else "deny")
    observed, _ = gate.decide(event, [], (), RUNNING, policy(posture="observe"), closed=True)
    assert (observed.answer, observed.would) == ("allow", decision.answer)


def test_a_failed_detector_refuses_an_irreversible_act_as_a_system_refusal() -> None:
    decision, _ = gate.decide(act(), [], ("broken",), RUNNING, policy())
    assert (decision.answer, decision.ground, decision.system) == ("wait", "system", "degraded")
    assert decision.system in SYSTEM_REASONS
    assert decision.unscored == ("detector_failed",)


def test_a_finding_goes_before_a_failed_detector() -> None:
    decision, _ = gate.decide(act(), [found("high")], ("broken",), RUNNING, policy())
    assert (decision.answer, decision.ground, decision.system) == ("hold", "judged", "")
    assert decision.unscored == ("detector_failed",)


@pytest.mark.parametrize(("reversible", "answer"), [(False, "hold"), (True, "allow")])
def test_a_finding_beyond_the_blast_radius_holds_only_what_cannot_be_undone(reversible: bool, answer: str) -> None:
    finding = replace(found("critical", "model", "behaviour"))
    decision, actions = gate.decide(
        act(reversible=reversible), [finding], (), RUNNING, policy(posture="enforce"), spared=frozenset({finding.id})
    )
    assert decision.answer == answer
    assert decision.state == "running"
    assert actions[finding.id] == ("hold" if answer == "hold" else "alert")


@given(
    st.lists(st.builds(found, st.sampled_from(["info", "low", "medium", "high", "critical"]),
                       st.sampled_from(sorted(MODES)), st.sampled_from(FAMILIES)), max_size=4),
    st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([RUNNING, PAUSED, ENDED]),
    st.sampled_from(["observe", "guard", "enforce"]), st.sampled_from(["alert", "hold"]),
)  # fmt: skip
def test_every_answer_is_consistent(
    findings: list[Finding], failed: bool, reversible: bool, unscored: bool, closed: bool, run: Run, posture: str,
    setting: str,
) -> None:  # fmt: skip
    event = act(reversible=reversible, unscored=("cut",) if unscored else ())
    decision, _ = gate.decide(
        event, findings, ("broken",) if failed else (), run, policy(posture=posture, unscored=setting), closed=closed
    )
    assert (decision.ground == "system") == (decision.answer == "wait")
    assert bool(decision.system) == (decision.answer == "wait")
    assert (decision.ground == "none") == (decision.answer == "allow")
    assert decision.answer == "allow" or decision.reasons
    if run.desired != "running":
        assert decision.answer == "deny"
    elif posture == "observe":
        assert decision.answer == "allow"
    if decision.answer == "wait":
        assert not reversible
        assert failed
