"""What people see and order: once for each request, for the state they looked at, on record."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.control import client, operators
from sidecar.control.client import Operators, fleet, role, tree
from sidecar.control.client import session as one
from sidecar.control.v1 import control_pb2 as pb
from sidecar.errors import ConfigError, ControlError, StorageError
from sidecar.storage import ControlStore
from tests.shells.control.kit import Raw, asked, opened, write_tokens


def view(people, session_id, realm=""):
    [found] = people.sessions(session_id=session_id, realm=realm)
    return found


def refused(code):
    return pytest.raises(ControlError, check=lambda error: error.code == code)


@pytest.fixture
def ready(running, raw):
    opened(raw, "s1")
    return raw


# ------------------------------------------------------------ resume answers one pause


def test_resume_names_the_pause_and_epoch_it_answers(ready, people):
    [paused] = people.pause(one("s1"), "first")
    for pause_id, epoch in ((paused.pause_id, paused.epoch - 1), (paused.pause_id, paused.epoch + 1),
                            ("another", paused.epoch), ("", paused.epoch)):  # fmt: skip
        with refused("FAILED_PRECONDITION"):
            people.resume(one("s1"), "fine", pause_id=pause_id, epoch=epoch)
    [resumed] = people.resume(one("s1"), "fine", pause_id=paused.pause_id, epoch=paused.epoch)
    assert (resumed.state, resumed.epoch) == (pb.RUN_STATE_RUNNING, paused.epoch + 1)


def test_resume_does_not_answer_a_later_pause(ready, people):
    [first] = people.pause(one("s1"), "first")
    [second] = people.pause(one("s1"), "second")
    assert second.epoch == first.epoch + 1
    with refused("FAILED_PRECONDITION"):
        people.resume(one("s1"), "fine", pause_id=first.pause_id, epoch=first.epoch)
    [resumed] = people.resume(one("s1"), "fine", pause_id=second.pause_id, epoch=second.epoch)
    assert resumed.state == pb.RUN_STATE_RUNNING
    with refused("FAILED_PRECONDITION"):  # a recorded resume, played again under another id
        people.resume(one("s1"), "fine", pause_id=second.pause_id, epoch=second.epoch)


def test_resume_of_another_sessions_pause_is_refused(ready, people):
    opened(ready, "s2")
    [paused] = people.pause(one("s1"), "first")
    people.pause(one("s2"), "other")
    with refused("FAILED_PRECONDITION"):
        people.resume(one("s2"), "fine", pause_id=paused.pause_id, epoch=paused.epoch)


def test_resume_names_every_finding_that_holds_the_session(ready, people):
    asked(ready, "s1", arguments={"trip": "pause"})
    paused = view(people, "s1")
    [finding] = [name for cause in paused.causes for name in cause.finding_ids]
    for clears in ((), ("another@finding",)):
        with refused("FAILED_PRECONDITION"):
            people.resume(one("s1"), "fine", pause_id=paused.pause_id, epoch=paused.epoch, clears=clears)
    people.resume(one("s1"), "a drill", pause_id=paused.pause_id, epoch=paused.epoch, clears=[finding])
    assert asked(ready, "s1", arguments={"trip": "pause", "again": 1}).answer == pb.ANSWER_ALLOWED


def test_cleared_alert_stays_closed_after_a_restart(running, people, ready):
    asked(ready, "s1", arguments={"trip": "pause"})
    paused = view(people, "s1")
    clears = [name for cause in paused.causes for name in cause.finding_ids]
    people.resume(one("s1"), "a drill", pause_id=paused.pause_id, epoch=paused.epoch, clears=clears)
    assert not people.alerts()
    running.__exit__()
    running.__enter__()
    with running.people() as again:
        assert not again.alerts()
        assert [alert.state for alert in again.alerts(resolved=True)] == ["resolved"]


def test_resume_of_what_runs_changes_nothing(ready, people):
    [same] = people.resume(one("s1"), "fine", pause_id="", epoch=0)
    assert (same.state, same.epoch) == (pb.RUN_STATE_RUNNING, 0)


def test_nothing_leads_out_of_terminated(ready, people):
    [ended] = people.terminate(one("s1"), "enough")
    assert ended.state == pb.RUN_STATE_TERMINATED
    for order in (
        lambda: people.resume(one("s1"), "go on", pause_id=ended.pause_id, epoch=ended.epoch),
        lambda: people.pause(one("s1"), "wait"),
        lambda: people.terminate(one("s1"), "again"),
    ):
        with refused("FAILED_PRECONDITION"):
            order()


# ------------------------------------------------------------ once for each request


def test_same_request_has_the_same_answer_and_happens_once(ready, running, people):
    orders = {
        "pause": lambda people: people.pause(one("s1"), "wait", request_id="r-1"),
        "resume": lambda people: people.resume(
            one("s1"), "go on", pause_id=paused.pause_id, epoch=paused.epoch, request_id="r-2"
        ),
        "terminate": lambda people: people.terminate(one("s1"), "end", request_id="r-3"),
    }
    for name, order in orders.items():
        [first], [second] = order(people), order(people)
        assert first == second, name
        paused = first
    assert [r.action for r in running.audit() if r.actor == "unix:root" or r.actor.startswith("unix:")] == [
        "pause", "resume", "terminate"]  # fmt: skip
    running.__exit__()
    running.__enter__()
    with running.people() as again:
        assert orders["terminate"](again) == [paused]


def test_same_id_for_another_request_is_refused(ready, people):
    people.pause(one("s1"), "wait", request_id="r-1")
    for order in (
        lambda: people.pause(one("s1"), "wait, please", request_id="r-1"),
        lambda: people.terminate(one("s1"), "wait", request_id="r-1"),
        lambda: people.pause(fleet(), "wait", request_id="r-1"),
    ):
        with refused("ALREADY_EXISTS"):
            order()
    assert view(people, "s1").epoch == 1


def test_same_request_at_the_same_time_happens_once(ready, running, people):
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(people.pause, one("s1"), "wait", request_id="r-1") for _ in range(16)]
        views = [answer.result(10) for answer in answers]
    assert all(found == views[0] for found in views)
    assert view(people, "s1").epoch == 1
    assert not running.operators._asked


def test_two_people_who_order_at_once_get_one_order(ready, running, people):
    for number in range(10):
        [paused] = people.pause(one("s1"), "wait")
        with ThreadPoolExecutor(2) as pool:
            tries = [
                pool.submit(people.resume, one("s1"), f"go on {n}", pause_id=paused.pause_id, epoch=paused.epoch)
                for n in range(2)
            ]
            errors = [t.exception(10) for t in tries]
        assert [e.code for e in errors if e] == ["FAILED_PRECONDITION"], number
    epochs = [r.epoch for r in running.audit() if r.action in ("pause", "resume")]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == len(epochs) == 20


def test_resume_that_cannot_be_stored_leaves_the_session_held(ready, people, monkeypatch):
    [paused] = people.pause(one("s1"), "wait")
    commit = ControlStore.commit

    async def refuse(store, batch, *, durable):
        raise StorageError("no room")

    monkeypatch.setattr(ControlStore, "commit", refuse)
    with refused("UNAVAILABLE"):
        people.resume(one("s1"), "go on", pause_id=paused.pause_id, epoch=paused.epoch, request_id="r")
    assert asked(ready, "s1").answer == pb.ANSWER_PAUSED
    monkeypatch.setattr(ControlStore, "commit", commit)
    [resumed] = people.resume(one("s1"), "go on", pause_id=paused.pause_id, epoch=paused.epoch, request_id="r")
    assert resumed.state == pb.RUN_STATE_RUNNING


def test_pause_that_cannot_be_stored_holds_all_the_same(ready, people, monkeypatch):
    async def refuse(store, batch, *, durable):
        raise StorageError("no room")

    monkeypatch.setattr(ControlStore, "commit", refuse)
    with refused("UNAVAILABLE"):
        people.pause(one("s1"), "wait")
    assert asked(ready, "s1").answer == pb.ANSWER_PAUSED


def test_pause_that_comes_while_a_resume_is_stored_wins(ready, running, people, monkeypatch):
    [paused] = people.pause(one("s1"), "first")
    commit, storing, go_on = ControlStore.commit, asyncio.Event(), asyncio.Event()

    async def slow(store, batch, *, durable):
        await commit(store, batch, durable=durable)
        if any(entry.action == "resume" for entry in batch.audit):
            storing.set()
            await go_on.wait()

    monkeypatch.setattr(ControlStore, "commit", slow)
    with ThreadPoolExecutor(1) as pool:
        resume = pool.submit(people.resume, one("s1"), "go on", pause_id=paused.pause_id, epoch=paused.epoch)
        running.wait(storing.is_set)
        people.pause(one("s1"), "second")
        running.loop.call(go_on.set)
        resume.result(10)
    held = view(people, "s1")
    assert (held.state, [cause.reason for cause in held.causes]) == (pb.RUN_STATE_PAUSED, ["second"])
    assert asked(ready, "s1").answer == pb.ANSWER_PAUSED
    running.__exit__()
    monkeypatch.undo()
    running.__enter__()
    with running.people() as again:
        held = view(again, "s1")
        assert (held.state, [cause.reason for cause in held.causes]) == (pb.RUN_STATE_PAUSED, ["second"])


class Stalled:
    """Holds back what a batch with such an entry answers, or has it fail."""

    def __init__(self, monkeypatch, action: str, *, fails: bool = False) -> None:
        commit = ControlStore.commit
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

        async def stalled(store, batch, *, durable):
            if not any(entry.action == action for entry in batch.audit):
                await commit(store, batch, durable=durable)
                return
            if not fails:
                await commit(store, batch, durable=durable)
            self.reached.set()
            await self.go_on.wait()
            if fails:
                raise StorageError("no room")

        monkeypatch.setattr(ControlStore, "commit", stalled)


def test_pause_that_comes_while_a_termination_is_stored_is_refused(ready, running, people, monkeypatch):
    opened(ready, "s2")
    disk = Stalled(monkeypatch, "terminate")
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(people.terminate, one("s1"), "enough")
        running.wait(disk.reached.is_set)
        with refused("FAILED_PRECONDITION"):
            people.pause(one("s1"), "wait")
        people.pause(fleet(), "all of them")  # one that ends must not keep the others' pause from being stored
        running.loop.call(disk.go_on.set)
        end.result(10)
    expected = {"s1": pb.RUN_STATE_TERMINATED, "s2": pb.RUN_STATE_PAUSED}
    assert {v.session_id: v.state for v in people.sessions()} == expected
    running.__exit__()
    running.__enter__()
    with running.people() as again:
        assert {v.session_id: v.state for v in again.sessions()} == expected


def test_session_whose_termination_cannot_be_stored_is_held(ready, running, people, monkeypatch):
    disk = Stalled(monkeypatch, "terminate", fails=True)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(people.terminate, one("s1"), "enough")
        running.wait(disk.reached.is_set)
        running.loop.call(disk.go_on.set)
        assert end.exception(10).code == "UNAVAILABLE"
    held = view(people, "s1")
    assert (held.state, held.causes[0].by) == (pb.RUN_STATE_PAUSED, "policy")
    monkeypatch.undo()
    assert people.terminate(one("s1"), "enough")[0].state == pb.RUN_STATE_TERMINATED


# ------------------------------------------------------------ scopes


def test_scope_covers_sessions_that_open_later_until_it_is_resumed(ready, people):
    [paused] = people.pause(role("mail-helper"), "all of them")
    assert opened(ready, "s2").state.state == pb.RUN_STATE_PAUSED
    assert opened(ready, "other", agent="billing").state.state == pb.RUN_STATE_RUNNING
    [scope] = people.status().held_scopes
    assert (scope.scope, scope.causes[-1].pause_id) == ("role:mail-helper", paused.pause_id)
    resumed = people.resume(role("mail-helper"), "fine", pause_id=paused.pause_id)
    assert sorted(each.session_id for each in resumed) == ["s1", "s2"]
    assert opened(ready, "s3").state.state == pb.RUN_STATE_RUNNING
    assert not people.status().held_scopes


def test_fleet_can_be_held_before_it_has_a_session(running, people, raw):
    assert people.pause(fleet(), "stop") == []
    assert opened(raw, "s1").state.state == pb.RUN_STATE_PAUSED
    running.__exit__()
    running.__enter__()
    with running.people() as again, Raw(running.address) as fresh:
        assert opened(fresh, "s2").state.state == pb.RUN_STATE_PAUSED
        [scope] = again.status().held_scopes
        again.resume(fleet(), "go on", pause_id=scope.causes[-1].pause_id)
        assert asked(fresh, "s2").answer == pb.ANSWER_ALLOWED


def test_resume_of_a_scope_answers_its_newest_pause_and_clears_all(ready, people):
    first = people.pause(fleet(), "one")[0].pause_id
    second = people.pause(fleet(), "two")[0].pause_id
    with refused("FAILED_PRECONDITION"):
        people.resume(fleet(), "go on", pause_id=first)
    assert [each.state for each in people.resume(fleet(), "go on", pause_id=second)] == [pb.RUN_STATE_RUNNING]
    with refused("FAILED_PRECONDITION"):
        people.resume(fleet(), "go on", pause_id=second)


def test_resume_of_a_scope_leaves_what_something_else_holds(ready, people):
    opened(ready, "s2")
    people.pause(one("s1"), "this one")
    pause_id = people.pause(fleet(), "all")[0].pause_id
    assert [each.session_id for each in people.resume(fleet(), "go on", pause_id=pause_id)] == ["s2"]
    assert view(people, "s1").state == pb.RUN_STATE_PAUSED


def test_two_scopes_resumed_one_after_the_other_leave_nothing_held(ready, people):
    people.pause(role("mail-helper"), "the role")
    people.pause(fleet(), "and all")
    for scope, name in ((role("mail-helper"), "role:mail-helper"), (fleet(), "fleet")):
        assert view(people, "s1").state == pb.RUN_STATE_PAUSED
        [held] = [each for each in people.status().held_scopes if each.scope == name]
        people.resume(scope, "go on", pause_id=held.causes[-1].pause_id)
    assert view(people, "s1").state == pb.RUN_STATE_RUNNING


def test_resume_of_a_tree_whose_root_runs_says_that_a_child_is_held(ready, people):
    opened(ready, "c1", parent_session_id="s1")
    people.pause(one("c1"), "the child")
    root = view(people, "s1")
    with refused("FAILED_PRECONDITION"):
        people.resume(tree("s1"), "go on", pause_id=root.pause_id, epoch=root.epoch)


def test_an_act_that_a_reviewer_found_right_stays_refused_after_the_resume(ready, people):
    act = {"to": "amy@corp.example", "trip": "pause"}
    assert asked(ready, "s1", "send_email", act).answer == pb.ANSWER_PAUSED
    [alert] = people.alerts()
    people.review(alert.fingerprint, "true_positive", reason="it is a threat")
    held = view(people, "s1")
    clears = [finding for cause in held.causes for finding in cause.finding_ids]
    people.resume(one("s1"), "go on without it", pause_id=held.pause_id, epoch=held.epoch, clears=clears)
    assert asked(ready, "s1", "send_email", act).answer == pb.ANSWER_REFUSED
    assert view(people, "s1").state == pb.RUN_STATE_RUNNING


def test_tree_is_resumed_where_nothing_else_holds_it(ready, people):
    for child, parent in (("c1", "s1"), ("c2", "s1"), ("g1", "c1")):
        opened(ready, child, parent_session_id=parent)
    people.pause(one("c2"), "this one, too")
    people.pause(tree("s1"), "all of it")
    root = view(people, "s1")
    resumed = people.resume(tree("s1"), "go on", pause_id=root.pause_id, epoch=root.epoch)
    assert sorted(each.session_id for each in resumed) == ["c1", "g1", "s1"]
    assert view(people, "c2").state == pb.RUN_STATE_PAUSED


def test_tree_is_terminated_whole(ready, people):
    opened(ready, "c1", parent_session_id="s1")
    opened(ready, "c2", parent_session_id="s1")
    people.terminate(one("c1"), "first")
    assert sorted(each.session_id for each in people.terminate(tree("s1"), "all")) == ["c2", "s1"]
    assert {v.state for v in people.sessions()} == {pb.RUN_STATE_TERMINATED}


def test_id_that_several_realms_have_must_be_told_apart(start, tmp_path):
    file = tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent"}, bob={"role": "agent"})
    sidecar = start(credentials={"file": file})
    for name in ("ann", "bob"):
        with Raw(sidecar.address, tokens[name]) as raw:
            opened(raw, "s1", agent=name)
    with sidecar.people() as people:
        assert [v.realm for v in people.sessions(session_id="s1")] == ["agent:ann", "agent:bob"]
        with pytest.raises(ControlError, match="agent:ann, agent:bob") as refusal:
            people.pause(one("s1"), "which")
        assert refusal.value.code == "INVALID_ARGUMENT"
        people.pause(one("s1", realm="agent:bob"), "this")
        assert view(people, "s1", "agent:ann").state == pb.RUN_STATE_RUNNING
        assert view(people, "s1", "agent:bob").state == pb.RUN_STATE_PAUSED


def test_session_nobody_knows_is_not_found(people):
    for order in (
        lambda: people.pause(one("s9"), "x"),
        lambda: people.resume(one("s9"), "x", pause_id="p"),
        lambda: people.terminate(tree("s9"), "x"),
        lambda: people.evidence("0" * 32),
        lambda: people.decide("0" * 32, approve=True, reason="x"),
        lambda: people.review("0" * 32, "true_positive"),
    ):
        with refused("NOT_FOUND"):
            order()


@pytest.mark.parametrize(
    "scope",
    [pb.Scope(), pb.Scope(fleet=False), pb.Scope(role=""), pb.Scope(role="x" * 300), one(""), tree("")],
    ids=["none", "no fleet", "no role", "long role", "no session", "no tree"],
)
def test_scope_of_odd_form_is_an_invalid_argument(people, scope):
    for order in (
        lambda: people.pause(scope, "x"),
        lambda: people.resume(scope, "x", pause_id="p"),
        lambda: people.terminate(scope, "x"),
    ):
        with refused("INVALID_ARGUMENT"):
            order()


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 4097, "é" * 2049])
def test_reason_is_needed_and_short(ready, people, reason):
    with refused("INVALID_ARGUMENT"):
        people.pause(one("s1"), reason)
    with refused("INVALID_ARGUMENT"):
        people.terminate(one("s1"), reason)


@pytest.mark.parametrize("request_id", ["x" * 129, "a b", "a\n", "é"])
def test_request_id_of_odd_form_is_an_invalid_argument(ready, people, request_id):
    with refused("INVALID_ARGUMENT"):
        people.pause(one("s1"), "wait", request_id=request_id)


def test_reason_is_kept_on_one_line_of_characters_that_print(ready, running, people):
    people.pause(one("s1"), "first\nsecond \x1b[31mred\u202e \u200b")
    [cause] = view(people, "s1").causes
    assert cause.reason == "first\\nsecond \\x1b[31mred\\u202e \\u200b"
    [record] = [r for r in running.audit() if r.action == "pause"]
    assert json.loads(record.detail_json)["reason"] == cause.reason


# ------------------------------------------------------------ looking


def test_sessions_are_found_by_state_held_ones_first(ready, people):
    for name in ("s2", "s3"):
        opened(ready, name)
    people.pause(one("s2"), "wait")
    assert next(iter(people.sessions())).session_id == "s2"
    assert [v.session_id for v in people.sessions(states=[pb.RUN_STATE_PAUSED])] == ["s2"]
    assert {v.session_id for v in people.sessions(states=[pb.RUN_STATE_RUNNING])} == {"s1", "s3"}
    assert len(people.sessions(limit=2)) == 2
    assert not people.sessions(realm="agent:nobody")
    with refused("INVALID_ARGUMENT"):
        people.sessions(states=[77])


def test_session_shows_what_led_to_its_state(ready, people):
    opened(ready, "c1", parent_session_id="s1")
    asked(ready, "c1", arguments={"trip": "pause"})
    found = view(people, "c1")
    assert (found.agent, found.tier, found.parent_session_id, found.acts) == ("mail-helper", "T0", "s1", 1)
    assert (found.peak_severity, found.risk > 0.5, found.observed) == ("critical", True, pb.OBSERVED_UNENFORCED)
    assert [(cause.by, cause.actor) for cause in found.causes] == [("detector", "tripwire")]


def test_held_session_is_listed_after_a_restart_before_its_agent_comes_back(ready, running, people):
    people.pause(one("s1"), "wait")
    running.__exit__()
    running.__enter__()
    with running.people() as again:
        [held] = again.sessions()
        assert (held.session_id, held.agent, held.state) == ("s1", "mail-helper", pb.RUN_STATE_PAUSED)
        again.resume(one("s1"), "go on", pause_id=held.pause_id, epoch=held.epoch)
        assert view(again, "s1").state == pb.RUN_STATE_RUNNING


def test_evidence_of_an_alert(ready, people):
    asked(ready, "s1", arguments={"trip": "pause"})
    [alert] = people.alerts()
    assert (alert.detector, alert.severity, alert.state, alert.session_id) == (
        "tripwire", "critical", "firing", "s1")  # fmt: skip
    shown = people.evidence(alert.fingerprint)
    assert shown.alert == alert
    assert [(e.field, e.excerpt, e.end) for e in shown.evidence] == [("arguments.trip", "pause", 5)]
    assert not people.alerts(session_id="s2")
    assert not people.alerts(realm="agent:nobody")
    assert people.alerts(session_id="s1", resolved=True) == [alert]


def test_review_closes_an_alert_once(ready, running, people):
    asked(ready, "s1", arguments={"trip": "pause"})
    [alert] = people.alerts()
    with refused("INVALID_ARGUMENT"):
        people.review(alert.fingerprint, "fine")
    closed = people.review(alert.fingerprint, "false_positive", reason="a drill", request_id="r")
    assert (closed.state, closed.verdict) == ("resolved", "false_positive")
    assert people.review(alert.fingerprint, "false_positive", reason="a drill", request_id="r") == closed
    assert not people.alerts()
    assert people.evidence(alert.fingerprint).evidence  # it is still to be looked at
    [record] = [r for r in running.audit() if r.action == "review"]
    assert json.loads(record.detail_json) == {
        "alert": alert.fingerprint, "verdict": "false_positive", "reason": "a drill"}  # fmt: skip


def test_review_of_an_old_alert_leaves_a_new_one_firing(ready, people):
    asked(ready, "s1", arguments={"trip": "pause"})
    [old] = people.alerts()
    paused = view(people, "s1")
    clears = [name for cause in paused.causes for name in cause.finding_ids]
    people.resume(one("s1"), "fine", pause_id=paused.pause_id, epoch=paused.epoch, clears=clears)
    asked(ready, "s1", "delete_file", {"trip": "pause"})
    [new] = people.alerts()
    people.review(old.fingerprint, "false_positive")
    assert people.alerts() == [new]


def test_decision_is_made_once(ready, people):
    held = asked(ready, "s1", arguments={"trip": "hold"})
    decided = people.decide(held.decision_id, approve=False, reason="no", request_id="r")
    assert (decided.state, decided.independence) == ("denied", "independence not asserted")
    assert people.decide(held.decision_id, approve=False, reason="no", request_id="r") == decided
    with refused("FAILED_PRECONDITION"):
        people.decide(held.decision_id, approve=True, reason="yes")
    assert people.approvals() == []
    assert people.approvals(decided=True) == [decided]


def test_audit_log_is_read_in_pages_and_names_who_did_what(ready, running, people):
    people.pause(one("s1"), "wait", request_id="r-7")
    records = running.audit()
    assert [r.seq for r in records] == list(range(1, len(records) + 1))
    pause = next(r for r in records if r.action == "pause")
    assert (pause.session_id, pause.epoch, pause.request_id) == ("s1", 1, "r-7")
    assert pause.actor.startswith("unix:")
    assert len(pause.hash) == 64
    assert people.audit(after_seq=pause.seq - 1, limit=1) == [pause]
    assert running.control.verify_audit().state == "ok"


def test_status(ready, running, people):
    people.pause(one("s1"), "wait")
    status = people.status()
    assert (status.ready, status.sessions, status.held) == (True, 1, 1)
    assert status.policy_digest == running.service.pipeline.policy.digest
    running.service.degraded["storage"] = None
    running.service.restoring = True
    status = people.status()
    assert (status.ready, list(status.degraded)) == (False, ["storage"])


# ------------------------------------------------------------ following


def test_what_happens_is_told_as_it_happens(ready, people):
    happenings = people.follow()
    people.pause(one("s1"), "wait")
    told = next(happenings)
    assert (told.session.session_id, told.session.state) == ("s1", pb.RUN_STATE_PAUSED)
    opened(ready, "s2")
    asked(ready, "s2", arguments={"trip": "hold"})
    kinds = [next(happenings).WhichOneof("happened") for _ in range(2)]
    assert kinds == ["alert", "approval"]
    happenings.close()


def test_follower_that_does_not_read_is_cut_off_and_holds_nobody_up(ready, running, people, monkeypatch):
    monkeypatch.setattr(operators, "MAX_QUEUED", 3)
    happenings = people.follow()
    running.wait(lambda: running.operators._followers)
    alert = pb.AlertView(text="x" * 100_000)
    for _ in range(1000):  # until the transport, too, takes no more in advance
        running.loop.call(lambda: running.operators._tell(pb.FollowResponse(alert=alert)))
        if not running.operators._followers:
            break
    assert not running.operators._followers
    assert asked(ready, "s1").answer == pb.ANSWER_ALLOWED
    with refused("RESOURCE_EXHAUSTED"):
        for _ in happenings:
            pass


def test_only_so_many_may_follow(start):
    sidecar = start(followers=1)
    with sidecar.people() as people:
        first = people.follow()
        sidecar.wait(lambda: sidecar.operators._followers)
        with refused("RESOURCE_EXHAUSTED"):
            next(people.follow())
        first.close()
        sidecar.wait(lambda: not sidecar.operators._followers)


# ------------------------------------------------------------ the client


def test_client_says_when_nobody_is_there(tmp_path):
    with (
        Operators(f"unix:{tmp_path / 'none.sock'}", timeout_s=2) as people,
        pytest.raises(client.UnreachableError) as refusal,
    ):
        people.status()
    assert refusal.value.retriable


def test_client_looks_where_it_is_told_to(monkeypatch, tmp_path, running):
    monkeypatch.setenv(client.ENVIRONMENT, str(running.servers.operators_socket))
    with Operators() as people:
        assert people.target == running.socket
        assert people.status().ready
    monkeypatch.delenv(client.ENVIRONMENT)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert client.default_target() == f"unix:{tmp_path}/agent-sidecar/operators.sock"
    with pytest.raises(ConfigError):
        Operators(f"unix:/{'x' * 200}")
    with pytest.raises(ConfigError):
        Operators("localhost:4321", ca=str(Path(tmp_path, "none.pem")))
