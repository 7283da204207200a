"""The agent library against the real service: what a person decides is what the agent's act meets."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import sidecar.agent as library
from sidecar.control.client import session as one
from sidecar.control.v1 import control_pb2 as pb


@pytest.fixture
def soon():
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def act(session, tool="send_email", ran=None, **arguments):
    with session.act(tool, {"to": "amy@corp.example", **arguments}) as under_way:
        under_way.result = "done"
        if ran is not None:
            ran.set()
    return "done"


def view(people, session_id):
    [found] = people.sessions(session_id=session_id)
    return found


def held(running, people, state="open"):
    running.wait(lambda: any(a.state == state for a in running.service.approvals.values()))
    return next(a for a in people.approvals(decided=True) if a.state == state)


def test_allowed_act_runs_and_is_on_record_before_it_does(running, connect):
    with connect().session("s1") as session, session.act("send_email", {"to": "amy@corp.example"}) as under_way:
        assert under_way.permit.grant.grant_id
        assert [record.action for record in running.audit()][-1] == "allow"
    running.wait(lambda: ("asked", "allow", "none") in running.tally.seen)


def test_reversible_act_runs(running, connect):
    with connect().session("s1") as session:
        assert act(session, "read_file") == "done"
    assert [(r.actor, r.action) for r in running.audit()] == [("sidecar", "allow")]


def test_tools_are_told_what_the_catalogue_says(connect):
    agent = connect()

    @agent.tool
    def read_file(path: str) -> str:
        """Reads a file."""
        return path

    @agent.tool
    def send_email(to: str) -> str:
        """Sends mail."""
        return to

    with agent.session("s1") as session:
        assert session.client.is_reversible("s1", "read_file", None)
        assert not session.client.is_reversible("s1", "send_email", True)


def test_tool_that_the_operator_lets_fail_open_may_go_on_without_an_answer(running, connect):
    running.service.fail_open = frozenset({"send_email"})
    agent = connect()

    @agent.tool
    def send_email(to: str) -> str:
        return to

    with agent.session("s1") as session:
        assert session.client.is_reversible("s1", "send_email", None)
        assert not session.client.is_reversible("s1", "delete_file", None)


def test_held_act_runs_once_a_person_approves(running, connect, people, soon):
    with connect().session("s1") as session:
        under_way = soon(act, session, trip="hold")
        approval = held(running, people)
        assert (approval.tool, approval.session_id, approval.agent) == ("send_email", "s1", "mail-helper")
        assert [reason.detector for reason in approval.reasons] == ["tripwire"]
        assert not under_way.done()
        people.decide(approval.decision_id, approve=True, reason="known recipient")
        assert under_way.result(10) == "done"
        running.wait(lambda: running.agents._reported)
    assert [r.action for r in running.audit() if r.session_id == "s1"] == ["hold", "approve", "allow", "outcome"]


def test_held_act_is_refused_when_a_person_denies(running, connect, people, soon):
    with connect().session("s1") as session:
        under_way = soon(act, session, trip="hold")
        people.decide(held(running, people).decision_id, approve=False, reason="no")
        with pytest.raises(library.ActRefused) as refusal:
            under_way.result(10)
        assert refusal.value.judged


def test_pause_while_an_act_waits_for_approval_is_met_at_its_release(running, connect, people, soon):
    with connect().session("s1", on_pause="raise") as session:
        under_way = soon(act, session, trip="hold")
        approval = held(running, people)
        people.pause(one("s1"), "wait")
        people.decide(approval.decision_id, approve=True, reason="fine")
        with pytest.raises(library.SessionPaused):
            under_way.result(10)


def test_act_that_pauses_its_session_does_not_run_and_blocks_until_resumed(running, connect, people, soon):
    ran = threading.Event()
    with connect().session("s1") as session:
        under_way = soon(act, session, ran=ran, trip="pause")
        running.wait(lambda: running.service.pipeline.runs.held())
        paused = view(people, "s1")
        assert (paused.state, paused.causes[0].by, paused.causes[0].actor) == (
            pb.RUN_STATE_PAUSED, "detector", "tripwire")  # fmt: skip
        assert not ran.is_set()
        clears = [name for cause in paused.causes for name in cause.finding_ids]
        people.resume(one("s1"), "it is a drill", pause_id=paused.pause_id, epoch=paused.epoch, clears=clears)
        assert under_way.result(20) == "done"


def test_paused_session_blocks_and_quiesces_and_goes_on(running, connect, people, soon):
    with connect().session("s1") as session:
        act(session)
        people.pause(one("s1"), "a look at it")
        running.wait(lambda: all(run.observed == "quiesced" for _, run in running.service.pipeline.runs))
        assert view(people, "s1").observed == pb.OBSERVED_QUIESCED
        under_way = soon(act, session)
        with pytest.raises(TimeoutError):
            under_way.result(0.3)
        paused = view(people, "s1")
        people.resume(one("s1"), "fine", pause_id=paused.pause_id, epoch=paused.epoch)
        assert under_way.result(10) == "done"
    assert running.tally.seen["confirmed",] == 1


def test_act_in_flight_at_the_pause_is_named(running, connect, people, soon):
    go_on = threading.Event()
    with connect().session("s1") as session:

        def slow():
            with session.act("send_email", {"to": "amy@corp.example"}, call_id="call-in-flight-1"):
                assert go_on.wait(10)

        under_way = soon(slow)
        running.wait(lambda: running.tally.seen["asked", "allow", "none"])
        running.wait(lambda: session.client.roster._standings["s1"].in_flight)
        people.pause(one("s1"), "a look at it")
        running.wait(lambda: any(run.observed == "acknowledged" for _, run in running.service.pipeline.runs))
        assert list(view(people, "s1").in_flight) == ["call-in-flight-1"]
        go_on.set()
        under_way.result(10)
        running.wait(lambda: any(run.observed == "quiesced" for _, run in running.service.pipeline.runs))


def test_terminated_session_stays_so(connect, people):
    with connect().session("s1") as session:
        act(session)
        people.terminate(one("s1"), "enough")
        with pytest.raises(library.SessionTerminated):
            act(session)
        assert view(people, "s1").state == pb.RUN_STATE_TERMINATED


def test_pause_reaches_the_sessions_that_a_session_started(running, connect, people):
    agent = connect()
    with agent.session("parent"), agent.session("child", parent="parent") as child:
        people.pause(one("parent"), "all of it")
        running.wait(lambda: all(run.observed == "quiesced" for _, run in running.service.pipeline.runs))
        assert child.state == "paused"
    with agent.session("later", parent="parent", on_pause="raise") as later, pytest.raises(library.SessionPaused):
        act(later)


def test_escalation_pauses_until_a_reviewer_has_looked(running, connect, people, soon):
    with connect().session("s1") as session:
        escalation = session.escalate("I was told to do something that I think is wrong")
        assert session.state == "paused"
        outcome = soon(escalation.outcome, 20)
        approval = held(running, people)
        assert (approval.tool, approval.arguments) == ("escalate", "I was told to do something that I think is wrong")
        people.decide(approval.decision_id, approve=True, reason="looked at it")
        assert outcome.result(20) == "resumed"
        assert act(session) == "done"


@pytest.mark.parametrize("ends", ["resume", "terminate", "decide"])
def test_escalation_hears_how_the_reviewer_left_the_session(running, connect, people, soon, ends):
    with connect().session("s1") as session:
        escalation = session.escalate("please look", at_least_s=1)
        outcome = soon(escalation.outcome, 20)
        state = view(people, "s1")
        if ends == "resume":
            people.resume(one("s1"), "looked", pause_id=state.pause_id, epoch=state.epoch)
        elif ends == "terminate":
            people.terminate(one("s1"), "looked")
        else:
            people.decide(escalation.decision_id, approve=False, reason="it stays as it is")
        expected = {"resume": "resumed", "terminate": "terminated", "decide": "paused"}
        assert outcome.result(20) == expected[ends]


def test_approving_an_escalation_does_not_lift_another_pause(connect, people):
    with connect().session("s1") as session:
        escalation = session.escalate("please look")
        people.pause(one("s1"), "another reason")
        with pytest.raises(Exception, match="something else holds the session") as refusal:
            people.decide(escalation.decision_id, approve=True, reason="looked")
        assert refusal.value.code == "FAILED_PRECONDITION"
        assert view(people, "s1").state == pb.RUN_STATE_PAUSED


def test_work_of_a_paused_session_starts_held_under_another_name(connect, people):
    agent = connect()
    with agent.session("s1", task_key="ticket-7"):
        people.pause(one("s1"), "wait")
    with agent.session("s2", task_key="ticket-7", on_pause="raise") as session, pytest.raises(library.SessionPaused):
        act(session)
    assert view(people, "s2").causes[0].by == "successor"


def test_work_stays_held_under_another_name_through_a_restart_and_a_third_session(running, connect, people):
    agent = connect()
    with agent.session("s1", task_key="ticket-7"), agent.session("s2", task_key="ticket-7"):
        people.pause(one("s1"), "wait")  # while another session does the same work and runs
    running.__exit__()
    running.__enter__()
    third = connect().session("s3", task_key="ticket-7", on_pause="raise")
    with third as session, pytest.raises(library.SessionPaused):
        act(session)


def test_agent_survives_a_restart_of_the_sidecar(running, connect):
    with connect().session("s1") as session:
        act(session)
        port = running.servers.ports["agents"]
        running.__exit__()
        running._options["agents"] = f"127.0.0.1:{port}"
        running.__enter__()
        assert act(session) == "done"


def test_spans_that_a_question_carries_are_known_before_it_is_answered(running, connect):
    with connect().session("s1") as session:
        session.message("user", "please write to amy")
        running.feeder.held = True
        act(session)
        [known] = list(running.service.pipeline.sessions)
        assert known.span_count >= 1
        running.feeder.go()
