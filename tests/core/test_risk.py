"""A session's risk: 0..1, comparable across sessions, moved by findings and by people, and by nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import risk
from sidecar.core.commands import Resume
from sidecar.core.events import Agent, SessionKey
from sidecar.core.findings import FAMILIES, Finding, Severity
from sidecar.core.sessions import Session
from tests.core.kit import Marked, Odd, Stage, tool

KEY = SessionKey("local", "s")

FOUND = st.builds(
    lambda family, severity, score, n: Finding(
        f"d{n}", family, severity, score, "", f"e{n}", KEY, Agent(name="clerk"), 0
    ),
    st.sampled_from(FAMILIES), st.sampled_from(list(Severity)), st.floats(0, 1), st.integers(0, 9),
)  # fmt: skip


def after(findings: list[Finding]) -> Session:
    session = Session(KEY, 0, 0)
    for found in findings:
        risk.add(session, found)
    return session


@given(st.lists(FOUND, max_size=30))
def test_risk_is_within_bounds_and_never_falls_by_a_finding(findings: list[Finding]) -> None:
    session, last = Session(KEY, 0, 0), 0.0
    for found in findings:
        risk.add(session, found)
        assert last <= session.risk <= 1.0
        last = session.risk
    assert session.peak == max((found.severity for found in findings), default=None)
    assert len(session.suspicion) <= len(FAMILIES)


@given(st.lists(FOUND, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_findings_does_not_matter(findings: list[Finding], chance: object) -> None:
    shuffled = list(findings)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert after(findings).risk == pytest.approx(after(shuffled).risk)
    assert after(findings).peak == after(shuffled).peak


@given(FOUND, st.integers(2, 50))
def test_the_same_finding_many_times_weighs_as_one(found: Finding, times: int) -> None:
    """A detector that repeats itself must not add up to a certainty."""
    assert after([found] * times).risk == after([found]).risk == pytest.approx(risk.weigh(found))


def test_two_families_weigh_more_than_one() -> None:
    def one(family: str) -> Finding:
        return Finding("d", family, Severity.MEDIUM, 1.0, "", "e", KEY, Agent(), 0)  # type: ignore[arg-type]

    alone, both = after([one("leverage")]).risk, after([one("leverage"), one("exfiltration")]).risk
    assert alone < both < 1.0
    assert after([one("leverage"), one("leverage")]).risk == alone


def test_a_graver_severity_weighs_more_and_a_single_finding_is_never_certainty() -> None:
    weights = [risk.WEIGHT[severity] for severity in sorted(Severity)]
    assert all(lower < higher for lower, higher in pairwise(weights))
    assert weights[0] > 0
    assert weights[-1] < 1


def test_a_session_of_which_nothing_is_found_has_no_risk() -> None:
    stage = Stage(Marked)
    stage.feed(tool("send_mail", {}, "ok", session="s"))
    assert (stage.session("s").risk, stage.session("s").peak) == (0.0, None)


@pytest.mark.parametrize("grave", ["low", "medium"])
def test_a_resume_takes_out_what_it_clears_and_leaves_the_rest(grave: str) -> None:
    """Also what was only recorded, of which no alert tells."""
    stage = Stage(Marked, Odd)
    (kept,) = stage.ask("s", "read_file", {"odd": grave}).findings
    (cleared,) = stage.ask("s", "send_mail", {"mark": "critical"}).findings
    run = stage.core.runs.get(KEY)
    resume = Resume(KEY, run.pause_id, run.epoch, "ann", "fine", stage.now_ns, (cleared.id,))
    stage.core.applied(stage.core.runs.plan_resume(resume), stage.now_ns)
    assert stage.session("s").risk == pytest.approx(risk.weigh(kept))
    assert stage.session("s").peak == Severity.CRITICAL, "what there was stays on record"
