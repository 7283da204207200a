"""Findings become alerts: grouped, named once for good, alive from the first finding to the quiet after the last."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.alerts import ACTIONS, Action, Alert, fingerprint
from sidecar.core.commands import Resume
from sidecar.core.events import Agent, SessionKey
from sidecar.core.findings import Finding, Severity
from sidecar.core.triage.alerts import KEPT_FINDINGS, QUIET_NS, AlertBook
from sidecar.core.triage.budget import MINUTE_NS, PER_MINUTE, BlastRadius
from tests.core.kit import AGENT, SECOND_NS, Marked, Odd, Said, Stage, assistant, at, call, chat, tool

KEY = SessionKey("local", "s")


def found(
    event: str = "e", severity: str = "medium", detector: str = "d", *, session: SessionKey = KEY, seconds: float = 0.0,
    score: float = 0.9,
) -> Finding:  # fmt: skip
    return Finding(
        detector, "leverage", Severity[severity.upper()], score, f"{severity} {event}", event, session,
        Agent(name="clerk"), at(seconds),
    )  # fmt: skip


def add(book: AlertBook, finding: Finding, action: Action) -> list[Alert]:
    """Takes in a finding at the moment that it is about."""
    return book.add(finding, action, finding.at_ns)


def nobody(key: SessionKey) -> bool:
    return False


def everybody(key: SessionKey) -> bool:
    return True


# ---------------------------------------------------------------- groups


def test_findings_of_one_detector_in_one_session_are_one_alert() -> None:
    book = AlertBook()
    add(book, found("e1"), "alert")
    (changed,) = add(book, found("e2", seconds=5), "alert")
    assert book.of(KEY) == (changed,)
    assert (changed.count, changed.opened_ns, changed.last_ns) == (2, at(0), at(5))
    assert [one.event_id for one in changed.findings] == ["e1", "e2"]


@pytest.mark.parametrize(
    "other",
    [
        found("e2", detector="another"), found("e2", session=SessionKey("local", "another")),
        found("e2", session=SessionKey("another", "s")),
    ],
    ids=["detector", "session", "realm"],
)  # fmt: skip
def test_another_detector_session_or_realm_is_another_alert(other: Finding) -> None:
    book = AlertBook()
    add(book, found("e1"), "alert")
    add(book, other, "alert")
    assert len(book) == len({alert.fingerprint for alert in book}) == 2


def test_a_finding_told_again_is_counted_once() -> None:
    book = AlertBook()
    add(book, found("e1"), "alert")
    (again,) = add(book, found("e1"), "hold")
    assert (again.count, len(again.findings)) == (1, 1)
    assert again.action == "hold", "what policy did the second time is not forgotten"


# ---------------------------------------------------------------- names


def test_a_fingerprint_names_realm_detector_and_the_act_that_opened_it() -> None:
    names = {fingerprint(*parts) for parts in itertools.product(("r1", "r2"), ("d1", "d2"), ("e1", "e2"))}
    assert len(names) == 8
    assert fingerprint("ab", "c", "d") != fingerprint("a", "bc", "d")
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in names)


def test_a_fingerprint_stays_whatever_joins_the_alert_later() -> None:
    book = AlertBook()
    (opened,) = add(book, found("e1", "low"), "alert")
    for number, severity in enumerate(("critical", "info", "high")):
        add(book, found(f"later {number}", severity, seconds=-number), "pause")
    book.rename(KEY, SessionKey("local", "bound"))
    (now,) = book
    assert now.fingerprint == opened.fingerprint == fingerprint("local", "d", "e1")
    assert now.session.id == "bound"


GRAVE = {"mark": "medium"}
TELLINGS = {
    "gate": lambda stage: stage.ask("s", "send_mail", GRAVE, "call-000000000001", seconds=0),
    "span": lambda stage: stage.feed(
        tool("send_mail", GRAVE, "sent", call_id="call-000000000001", session="s", agent="clerk", word="act")
    ),
    "message": lambda stage: stage.feed(
        chat(None, [assistant(call("call-000000000001", "send_mail", GRAVE))], session="s", word="chat", end=0)
    ),
}


ORDERS = [order for order in itertools.permutations(TELLINGS) if order.index("gate") < order.index("span")]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_an_act_has_one_alert_of_one_name_in_whatever_order_it_is_told(order: tuple[str, ...]) -> None:
    stage = Stage(Marked)
    for one in order:
        TELLINGS[one](stage)
    stage.tick(10, last=True)
    (alert,) = stage.core.alerts.of(KEY)
    (reference,) = _reference().core.alerts.of(KEY)
    assert alert.fingerprint == reference.fingerprint
    assert alert.count == 1


def _reference() -> Stage:
    stage = Stage(Marked)
    TELLINGS["span"](stage)
    return stage


def test_an_alert_that_was_stored_goes_on_under_its_name() -> None:
    before = AlertBook()
    add(before, found("e1"), "alert")
    after = AlertBook()
    for alert in before:
        after.restore(alert)
    for book in (before, after):
        add(book, found("e2", "high", seconds=9), "hold")
        add(book, found("e1"), "alert")  # telemetry that is read again after the restart
    assert list(after) == list(before)


def test_alerts_of_two_sessions_that_are_one_are_joined_and_the_older_name_stays() -> None:
    book, other = AlertBook(), SessionKey("local", "bound")
    add(book, found("young", "critical", seconds=5, session=other), "pause")
    add(book, found("old", "low", seconds=1), "alert")
    resolved, joined = book.rename(KEY, other)
    assert (resolved.state, resolved.fingerprint) == ("resolved", fingerprint("local", "d", "young"))
    assert (joined.state, joined.fingerprint) == ("firing", fingerprint("local", "d", "old"))
    assert (joined.severity, joined.action, joined.count, joined.session) == (Severity.CRITICAL, "pause", 2, other)
    assert list(book) == [joined]


# ---------------------------------------------------------------- what an alert holds

FINDINGS = st.lists(
    st.builds(
        found, st.integers(0, 60).map(str), st.sampled_from(["info", "low", "medium", "high", "critical"]),
        seconds=st.integers(-100, 100), score=st.floats(0, 1),
    ),
    min_size=1, max_size=80,
)  # fmt: skip


@given(FINDINGS, st.data())
def test_an_alert_never_becomes_weaker_and_its_evidence_is_bounded(
    findings: list[Finding], data: st.DataObject
) -> None:
    book = AlertBook()
    severity, action, last_ns = Severity.INFO, 0, 0
    kept: tuple[Finding, ...] = ()
    alert = None
    for one in findings:
        act: Action = data.draw(st.sampled_from(ACTIONS))
        joins = all(one.id != known.id for known in kept)
        (alert,) = add(book, one, act)
        kept = alert.findings
        action = max(action, ACTIONS.index(act))
        if joins:
            severity, last_ns = max(severity, one.severity), max(last_ns, one.at_ns)
        assert (alert.severity, alert.action, alert.last_ns) == (severity, ACTIONS[action], last_ns)
        assert len(alert.findings) <= KEPT_FINDINGS
        assert alert.count >= len(alert.findings)
    assert alert is not None
    assert alert.findings[0] == findings[0], "what opened it can always be shown"
    assert any(one.severity == alert.severity for one in alert.findings), "so can the gravest"
    assert alert.opened_ns == findings[0].at_ns


def test_the_words_are_those_of_the_gravest() -> None:
    book = AlertBook()
    for event, severity in (("a", "low"), ("b", "critical"), ("c", "high")):
        add(book, found(event, severity), "alert")
    assert [alert.text for alert in book] == ["critical b"]


# ---------------------------------------------------------------- its life


def test_an_alert_fires_until_it_has_been_quiet_for_an_hour() -> None:
    book = AlertBook()
    add(book, found("e1"), "alert")
    add(book, found("e2", seconds=100), "alert")
    assert book.quiet(at(100) + QUIET_NS - 1, nobody) == []
    (resolved,) = book.quiet(at(100) + QUIET_NS, nobody)
    assert (resolved.state, resolved.resolved_ns, resolved.count) == ("resolved", at(100) + QUIET_NS, 2)
    assert list(book) == []
    assert book.quiet(at(10**6), nobody) == [], "once"


def test_what_comes_after_the_quiet_is_a_new_alert() -> None:
    book = AlertBook()
    (first,) = add(book, found("e1"), "alert")
    book.quiet(at(0) + QUIET_NS, nobody)
    (second,) = add(book, found("e2", seconds=4000), "alert")
    assert (second.count, second.state) == (1, "firing")
    assert second.fingerprint != first.fingerprint


def test_the_alerts_of_a_held_session_go_on_firing() -> None:
    book = AlertBook()
    add(book, found(), "pause")
    assert book.quiet(at(10**6), everybody) == []
    assert len(book.quiet(at(10**6), nobody)) == 1


def test_alerts_that_stay_do_not_keep_the_others_firing() -> None:
    """Of held sessions, and of clocks that run a year ahead: many of them, and before all others."""
    book = AlertBook()
    held = [SessionKey("local", f"held {number}") for number in range(700)]
    for key in held:
        add(book, found(key.id, session=key), "pause")
    for number in range(700):
        key = SessionKey("local", f"ahead {number}")
        add(book, found(key.id, session=key, seconds=366 * 86_400), "alert")
    add(book, found("plain"), "alert")
    resolved: list[Alert] = []
    for step in range(20):
        resolved += book.quiet(at(4000 + step), set(held).__contains__)
    assert [alert.session.id for alert in resolved] == ["s"]
    assert len(book) == 1400


@given(st.permutations(range(40)))
def test_in_whatever_order_alerts_are_put_back_they_end(order: list[int]) -> None:
    book = AlertBook()
    for number in order:
        key = SessionKey("local", str(number))
        book.restore(
            Alert("f" * 32, "d", "leverage", Severity.LOW, key, AGENT, opened_ns=at(0), last_ns=at(number * 60))
        )
    resolved: list[Alert] = []
    for minute in range(200):
        resolved += book.quiet(at(minute * 60), nobody)
    assert sorted(int(alert.session.id) for alert in resolved) == list(range(40))


def test_a_person_who_clears_all_findings_of_an_alert_ends_it() -> None:
    book = AlertBook()
    add(book, found("e1"), "hold")
    add(book, found("e2"), "hold")
    add(book, found("e1", detector="another"), "hold")
    assert book.clear(KEY, frozenset({"d@e1"}), at(9)) == []
    (ended,) = book.clear(KEY, frozenset({"d@e1", "d@e2"}), at(9))
    assert (ended.state, ended.resolved_ns, ended.detector) == ("resolved", at(9), "d")
    assert [alert.detector for alert in book] == ["another"]


def test_a_reviewer_closes_an_alert_and_its_name_only() -> None:
    book = AlertBook()
    (first,) = add(book, found("e1"), "alert")
    closed = book.close(first, "benign_expected", at(5))
    assert (closed.state, closed.verdict, closed.resolved_ns) == ("resolved", "benign_expected", at(5))
    (second,) = add(book, found("e2"), "alert")
    late = book.close(closed, "true_positive", at(9))
    assert (late.verdict, late.resolved_ns) == ("true_positive", at(5)), "that one had ended already"
    assert list(book) == [second]


# ---------------------------------------------------------------- in the pipeline


def test_an_alert_opens_changes_and_ends_and_each_is_told() -> None:
    stage = Stage(Marked)
    (opened,) = stage.feed(tool("read_file", {"mark": "medium"}, session="s", start=0)).alerts
    (changed,) = stage.feed(tool("read_file", {"mark": "high"}, session="s", start=60)).alerts
    assert [(one.state, one.count, one.severity.word) for one in (opened, changed)] == [
        ("firing", 1, "medium"), ("firing", 2, "high"),
    ]  # fmt: skip
    assert stage.tick(QUIET_NS / SECOND_NS - 1).alerts == []
    (ended,) = stage.tick(2).alerts
    assert (ended.state, ended.fingerprint) == ("resolved", opened.fingerprint)


def test_what_is_only_recorded_opens_no_alert() -> None:
    stage = Stage(Marked, Said)
    stage.feed(tool("send_mail", {"mark": "low"}, session="s"))
    stage.feed(chat(None, [assistant("info: all is well")], session="s", start=1))
    assert len(stage.findings) == 2
    assert len(stage.core.alerts) == 0


def test_the_alert_of_a_resumed_session_ends_with_the_resume_that_clears_it() -> None:
    stage = Stage(Marked)
    (finding,) = stage.ask("s", "send_mail", {"mark": "critical"}).findings
    stage.tick(2 * QUIET_NS / SECOND_NS)
    (alert,) = stage.core.alerts.of(KEY)
    run = stage.core.runs.get(KEY)
    resume = Resume(KEY, run.pause_id, run.epoch, "ann", "fine", stage.now_ns, (finding.id,))
    (ended,) = stage.core.applied(stage.core.runs.plan_resume(resume), stage.now_ns).alerts
    assert (ended.state, ended.fingerprint) == ("resolved", alert.fingerprint)


# ---------------------------------------------------------------- the blast radius


@given(st.lists(st.integers(0, 3 * MINUTE_NS), max_size=60), st.integers(0, 200))
def test_no_minute_has_more_statistical_pauses_than_the_radius(moments: list[int], live: int) -> None:
    radius, taken = BlastRadius(), []
    for now_ns in sorted(moments):
        if radius.allows(now_ns, live):
            radius.take(now_ns)
            taken.append(now_ns)
    most = max(PER_MINUTE, live / 10)
    for now_ns in taken:
        assert sum(now_ns - MINUTE_NS < other <= now_ns for other in taken) < most + 1
    if len(moments) <= PER_MINUTE:
        assert len(taken) == len(moments)


@pytest.mark.parametrize(("sessions", "most"), [(1, PER_MINUTE), (50, PER_MINUTE), (70, 7)])
def test_beyond_the_radius_models_hold_and_content_still_pauses(sessions: int, most: int) -> None:
    stage = Stage(Marked, Odd, posture="enforce")
    for number in range(sessions):
        stage.ask(f"live{number}", "read_file", seconds=0)
    names = [f"odd{number}" for number in range(most + 3)]
    random.Random(1).shuffle(names)
    answers = []
    for name in names:
        stage.core.sessions.drop(SessionKey("local", f"live{len(answers)}"))  # so that as many stay alive
        answers.append(stage.answer(name, "send_mail", {"odd": "critical"}, seconds=0.01))
    assert answers == ["deny"] * most + ["hold"] * 3
    assert stage.answer("content", "send_mail", {"mark": "critical"}, seconds=0) == "deny"
    stage.now_ns += MINUTE_NS
    assert stage.answer("later", "send_mail", {"odd": "critical"}) == "deny"
