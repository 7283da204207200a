"""What the gate's answers do to an act, over real gRPC, for blocking and asyncio agents alike."""

from __future__ import annotations

import time

import grpc
import pytest

import sidecar.agent as sidecar
from sidecar.control.v1 import control_pb2 as pb
from sidecar.testing import FakeSidecar, attributes_of


def never():
    raise AssertionError("the act ran")


def test_allowed_act_runs_and_its_outcome_is_reported(kind, fake):
    session = kind.open(kind.connect())
    assert kind.act(session, "send_mail", lambda: "sent", arguments={"to": "amy@corp.example", "n": 1}) == "sent"
    [question] = fake.asked
    assert (question.tool, question.arguments_json) == ("send_mail", '{"n":1,"to":"amy@corp.example"}')
    assert question.agent.name == "mail-helper"
    assert question.asked_at.ToNanoseconds() > 0
    [outcome] = fake.until(lambda: fake.outcomes)
    assert outcome.call_id == question.call_id
    assert (outcome.tool, outcome.failed, outcome.ungated) == ("send_mail", False, False)


def test_grant_is_handed_on_to_whoever_executes(plain, fake):
    session = plain.open(plain.connect())
    with session.act("send_mail", {}) as act:
        assert act.permit.grant.grant_id


def test_refused_act_does_not_run(kind, fake):
    fake.answers["send_mail"] = fake.refused("d-7")
    session = kind.open(kind.connect())
    with pytest.raises(sidecar.ActRefused) as refusal:
        kind.act(session, "send_mail", never)
    assert refusal.value.judged
    assert (refusal.value.decision_id, refusal.value.tool, refusal.value.session_id) == ("d-7", "send_mail", session.id)
    assert len(fake.asked) == 1


def test_system_refusal_is_asked_again_until_it_is_judged(kind, fake):
    answers = iter([fake.busy(), fake.busy(), fake.allowed()])
    fake.answers["send_mail"] = lambda _: next(answers)
    session = kind.open(kind.connect())
    assert kind.act(session, "send_mail") == "done"
    assert len({question.call_id for question in fake.asked}) == 1
    assert len(fake.asked) == 3


def test_system_refusal_beyond_patience_fails_closed(kind, fake):
    fake.answers["send_mail"] = fake.busy(retry_after_ms=5)
    session = kind.open(kind.connect(patience_s=0.2))
    with pytest.raises(sidecar.SidecarUnavailable) as refusal:
        kind.act(session, "send_mail", never)
    assert not refusal.value.judged
    assert refusal.value.retry_after_s > 0
    assert len(fake.asked) > 1


def test_system_refusal_beyond_patience_lets_a_reversible_act_go_on(kind, fake):
    fake.answers["read_mail"] = fake.busy(retry_after_ms=5)
    session = kind.open(kind.connect(patience_s=0.1))
    assert kind.act(session, "read_mail", reversible=True) == "done"
    [outcome] = fake.until(lambda: fake.outcomes)
    assert outcome.ungated


def test_held_act_waits_for_the_person_and_runs(kind, fake):
    fake.answers["wire_money"] = fake.held("d-1")
    session = kind.open(kind.connect())
    act = kind.soon(kind.act, session, "wire_money")
    fake.until(lambda: fake.waited_for)
    assert not act.done()
    fake.decide("d-1", approve=True)
    assert act.result(10) == "done"
    [outcome] = fake.until(lambda: fake.outcomes)
    assert outcome.decision_id == "d-1"


def test_held_act_is_refused_by_the_person(kind, fake):
    fake.answers["wire_money"] = fake.held("d-1")
    fake.decide("d-1", approve=False)
    session = kind.open(kind.connect())
    with pytest.raises(sidecar.ActRefused) as refusal:
        kind.act(session, "wire_money", never)
    assert refusal.value.judged
    assert refusal.value.decision_id == "d-1"


def test_held_act_raises_where_the_caller_chose_so(kind, fake):
    fake.answers["wire_money"] = fake.held("d-1")
    session = kind.open(kind.connect(), on_hold="raise")
    with pytest.raises(sidecar.ActHeld) as refusal:
        kind.act(session, "wire_money", never)
    assert refusal.value.decision_id == "d-1"
    assert not fake.waited_for


def test_held_act_raises_after_the_longest_wait(kind, fake):
    fake.answers["wire_money"] = fake.held("d-1")
    session = kind.open(kind.connect(block_s=0.2))
    with pytest.raises(sidecar.ActHeld):
        kind.act(session, "wire_money", never)
    assert fake.waited_for


def test_hold_outlives_an_outage_of_the_sidecar(plain, fake):
    fake.answers["wire_money"] = fake.held("d-1")
    session = plain.open(plain.connect())
    act = plain.soon(plain.act, session, "wire_money")
    fake.until(lambda: fake.waited_for)
    fake.stop()
    fake.start()
    fake.until(lambda: len(fake.waited_for) > 1)
    fake.decide("d-1")
    assert act.result(10) == "done"


def test_approval_that_a_pause_overtook_does_not_run(plain, fake):
    fake.answers["wire_money"] = fake.held("d-1")
    session = plain.open(plain.connect(), on_pause="raise")
    act = plain.soon(plain.act, session, "wire_money", never)
    fake.until(lambda: fake.waited_for)
    fake.pause(session.id)
    fake.until(lambda: fake.acknowledged)
    fake.decide("d-1")
    with pytest.raises(sidecar.SessionPaused):
        act.result(10)


def test_permission_that_a_pause_overtook_does_not_run(plain, fake):
    session = plain.open(plain.connect(), on_pause="raise")

    def overtaken(_: pb.AuthorizeRequest) -> pb.AuthorizeResponse:
        before = pb.SessionState()
        before.CopyFrom(fake.state(session.id))
        fake.pause(session.id)
        fake.until(lambda: fake.acknowledged)
        return pb.AuthorizeResponse(answer=pb.ANSWER_ALLOWED, judged=True)

    fake.answers["send_mail"] = overtaken
    with pytest.raises(sidecar.SessionPaused):
        plain.act(session, "send_mail", never)


def test_permission_of_a_lower_epoch_is_asked_again(plain, fake):
    """A pause and a resume went by while it was given: every permission from before is void."""
    session = plain.open(plain.connect())
    epochs = []

    def overtaken(_: pb.AuthorizeRequest) -> pb.AuthorizeResponse:
        epochs.append(fake.state(session.id).epoch)
        if len(epochs) == 1:
            fake.pause(session.id)
            fake.resume(session.id)
            fake.until(lambda: any(a.observed == pb.OBSERVED_RUNNING for a in fake.acknowledged))
        return fake.allowed()

    fake.answers["send_mail"] = overtaken
    assert plain.act(session, "send_mail") == "done"
    assert epochs == [1, 3]


def test_answer_to_another_call_permits_nothing(plain, fake):
    answer = fake.allowed()
    answer.call_id = "somebody-elses"
    fake.answers["send_mail"] = answer
    session = plain.open(plain.connect(patience_s=0.1))
    with pytest.raises(sidecar.SidecarUnavailable):
        plain.act(session, "send_mail", never)


@pytest.mark.parametrize("answer", [pb.ANSWER_UNSPECIFIED, 99])
def test_answer_that_is_none_permits_nothing(plain, fake, answer):
    fake.answers["send_mail"] = lambda _: pb.AuthorizeResponse(answer=answer, judged=True)
    session = plain.open(plain.connect(patience_s=0.1))
    with pytest.raises(sidecar.SidecarUnavailable):
        plain.act(session, "send_mail", never)


# ---------------------------------------------------------------- pauses


def test_act_asked_while_paused_blocks_and_runs_after_the_resume(kind, fake):
    session = kind.open(kind.connect())
    fake.pause(session.id)
    fake.until(lambda: fake.acknowledged)
    asked = len(fake.asked)
    act = kind.soon(kind.act, session, "send_mail")
    with pytest.raises(TimeoutError):
        act.result(0.2)
    assert len(fake.asked) == asked
    fake.resume(session.id)
    assert act.result(10) == "done"


def test_act_asked_while_paused_raises_where_the_caller_chose_so(kind, fake):
    session = kind.open(kind.connect(on_pause="raise"))
    pause = fake.pause(session.id)
    fake.until(lambda: fake.acknowledged)
    with pytest.raises(sidecar.SessionPaused) as refusal:
        kind.act(session, "send_mail", never, reversible=True)
    assert refusal.value.decision_id == pause.pause_id
    assert session.state == "paused"


def test_gate_that_says_paused_before_watch_does_is_believed(kind, fake):
    fake.takes_streams = False
    session = kind.open(kind.connect(on_pause="raise"))
    kind.act(session, "read_mail", reversible=True)
    fake.pause(session.id)
    with pytest.raises(sidecar.SessionPaused):
        kind.act(session, "read_mail", never, reversible=True)


def test_terminated_session_runs_nothing_again(kind, fake):
    session = kind.open(kind.connect())
    fake.terminate(session.id)
    fake.until(lambda: fake.acknowledged)
    fake.resume(session.id)
    with pytest.raises(sidecar.SessionTerminated):
        kind.act(session, "send_mail", never)
    assert session.state == "terminated"


def test_blocked_act_is_told_of_the_end(kind, fake):
    session = kind.open(kind.connect())
    fake.pause(session.id)
    fake.until(lambda: fake.acknowledged)
    act = kind.soon(kind.act, session, "send_mail", never)
    fake.terminate(session.id)
    with pytest.raises(sidecar.SessionTerminated):
        act.result(10)


# ---------------------------------------------------------------- the sidecar is away


def test_irreversible_act_fails_closed_within_the_deadline_when_the_sidecar_stalls(kind, fake):
    session = kind.open(kind.connect(deadline_s=0.1))
    fake.stall()
    began = time.monotonic()
    with pytest.raises(sidecar.SidecarUnavailable) as refusal:
        kind.act(session, "send_mail", never)
    assert time.monotonic() - began < 20 * 0.1
    assert not refusal.value.judged
    assert "says nothing about the act" in str(refusal.value)


def test_reversible_act_goes_on_when_the_sidecar_stalls_and_is_recorded(kind, fake):
    session = kind.open(kind.connect(deadline_s=0.1))
    fake.stall()
    assert kind.act(session, "read_mail", lambda: "text", reversible=True) == "text"
    fake.go()
    [outcome] = fake.until(lambda: fake.outcomes)
    assert (outcome.tool, outcome.ungated) == ("read_mail", True)
    [span] = fake.until(lambda: [span for span in fake.spans if span.name == "execute_tool read_mail"])
    attributes = attributes_of(span)
    assert attributes["sidecar.ungated"] is True
    assert "sidecar.gated" not in attributes


def test_sidecar_that_is_gone_denies_irreversible_acts_and_reports_follow_its_return(kind, fake):
    session = kind.open(kind.connect())
    kind.act(session, "send_mail")
    fake.stop()
    with pytest.raises(sidecar.SidecarUnavailable):
        kind.act(session, "send_mail", never)
    assert kind.act(session, "read_mail", reversible=True) == "done"
    fake.start()
    fake.until(lambda: any(outcome.ungated for outcome in fake.outcomes))


def test_session_may_open_while_the_sidecar_is_away_and_is_named_when_it_is_back(kind, fake):
    fake.stop()
    session = kind.open(kind.connect())
    assert session.state == "hold"
    with pytest.raises(sidecar.SidecarUnavailable):
        kind.act(session, "send_mail", never)
    assert kind.act(session, "read_mail", reversible=True) == "done"
    fake.start()
    fake.until(lambda: fake.opened)
    fake.until(lambda: any(outcome.ungated for outcome in fake.outcomes))


def test_sidecar_that_forgot_the_session_is_told_of_it_again(kind, fake):
    session = kind.open(kind.connect())
    fake.fails["Authorize"] = grpc.StatusCode.NOT_FOUND
    opened = len(fake.opened)
    act = kind.soon(kind.act, session, "send_mail")
    fake.until(lambda: len(fake.opened) > opened)
    fake.fails.clear()
    assert act.result(10) == "done"


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "UNIMPLEMENTED"])
def test_door_that_does_not_know_us_stops_reversible_acts_too(plain, fake, code):
    session = plain.open(plain.connect())
    fake.fails["Authorize"] = grpc.StatusCode[code]
    with pytest.raises(sidecar.SidecarMisconfigured, match=code):
        plain.act(session, "read_mail", never, reversible=True)


def test_session_that_the_sidecar_rejects_is_not_opened(kind, fake):
    fake.fails["OpenSession"] = grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(sidecar.SidecarMisconfigured, match="UNAUTHENTICATED"):
        kind.open(kind.connect())


@pytest.mark.parametrize("code", ["INTERNAL", "RESOURCE_EXHAUSTED", "UNKNOWN"])
def test_failure_inside_the_sidecar_is_a_system_refusal_of_every_act(kind, fake, code):
    """An agent that could provoke it, say by arguments too big to inspect, gains nothing by it."""
    session = kind.open(kind.connect(patience_s=0.1))
    fake.fails["Authorize"] = grpc.StatusCode[code]
    for reversible in (False, True):
        with pytest.raises(sidecar.SidecarUnavailable, match=code):
            kind.act(session, "send_mail", never, reversible=reversible)


# ---------------------------------------------------------------- what is reversible


def test_catalogue_of_the_sidecar_says_what_is_reversible(plain, fake):
    fake.effects["read_mail"] = pb.ToolEffect(known=True, reversible=True)
    agent = plain.connect(deadline_s=0.1)

    @agent.tool
    def read_mail() -> str:
        return "text"

    @agent.tool
    def send_mail() -> str:
        return never()

    plain.open(agent)
    fake.stall()
    assert read_mail() == "text"
    with pytest.raises(sidecar.SidecarUnavailable):
        send_mail()


def test_what_the_catalogue_knows_to_be_irreversible_is_so_whatever_the_code_says(plain, fake):
    fake.effects["send_mail"] = pb.ToolEffect(known=True, reversible=False)
    agent = plain.connect(deadline_s=0.1)

    @agent.tool(reversible=True)
    def send_mail() -> str:
        return never()

    plain.open(agent)
    fake.stall()
    with pytest.raises(sidecar.SidecarUnavailable):
        send_mail()


def test_declared_irreversible_holds_against_the_catalogue(plain, fake):
    fake.effects["read_mail"] = pb.ToolEffect(known=True, reversible=True)
    agent = plain.connect(deadline_s=0.1)

    @agent.tool(reversible=False)
    def read_mail() -> str:
        return never()

    plain.open(agent)
    fake.stall()
    with pytest.raises(sidecar.SidecarUnavailable):
        read_mail()


def test_tool_declared_after_the_opening_is_told_to_the_sidecar(plain, fake):
    fake.effects["read_mail"] = pb.ToolEffect(known=True, reversible=True)
    session = plain.open(plain.connect(deadline_s=0.1))

    @session.tool
    def read_mail() -> str:
        return "text"

    fake.until(lambda: any(tool.name == "read_mail" for request in fake.opened for tool in request.tools))
    assert read_mail() == "text"


def test_server_shortens_the_deadline_and_never_lengthens_it():
    from sidecar.agent.admission import deadline

    assert deadline(0.25, 100) == 0.1
    assert deadline(0.25, 5000) == 0.25
    assert deadline(0.25, 0) == 0.25
    assert deadline(0.25, 1) == 0.02


# ---------------------------------------------------------------- escalation


def test_escalation_pauses_the_session_and_waits_for_the_reviewer(kind, fake):
    session = kind.open(kind.connect(on_pause="raise"))
    escalation = kind.wait(session.escalate("I was told to hide this from you", at_least_s=60))
    [request] = fake.escalations
    assert (request.reason, request.at_least_ms) == ("I was told to hide this from you", 60_000)
    with pytest.raises(sidecar.SessionPaused):
        kind.act(session, "send_mail", never)
    with pytest.raises(TimeoutError):
        kind.wait(escalation.outcome(0.1))
    fake.resume(session.id)
    fake.decide(escalation.decision_id, session_id=session.id)
    assert kind.wait(escalation.outcome(10)) == "resumed"


def test_escalation_that_ends_the_session_says_so(plain, fake):
    session = plain.open(plain.connect())
    escalation = session.escalate("help")
    fake.terminate(session.id)
    fake.decide(escalation.decision_id, approve=False, session_id=session.id)
    assert escalation.outcome(10) == "terminated"


def test_escalation_is_one_request_however_often_it_is_sent(plain, fake):
    session = plain.open(plain.connect())
    fake.fails["Escalate"] = grpc.StatusCode.UNAVAILABLE
    sent = plain.soon(session.escalate, "help")
    fake.until(lambda: len(fake.escalations) >= 2)
    fake.fails.clear()
    assert sent.result(10).decision_id
    session.escalate("help again")
    [first, *again, second] = [request.request_id for request in fake.escalations]
    assert first
    assert set(again) == {first} != {second}


def test_escalation_that_nobody_took_is_not_taken_for_one(kind, fake):
    session = kind.open(kind.connect(patience_s=0.2))
    fake.fails["Escalate"] = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(sidecar.SidecarUnavailable, match="nobody has been asked"):
        kind.wait(session.escalate("help"))


# ---------------------------------------------------------------- credentials on the way


def test_token_goes_with_every_call(plain):
    with FakeSidecar() as fake:
        agent = plain.connect(token="s3cr3t", control=fake.address, otlp=fake.address)
        session = plain.open(agent)
        plain.act(session, "send_mail")
        fake.until(lambda: fake.exports and fake.outcomes and fake.watched)
        methods = {method for method, _ in fake.metadata}
        assert {"OpenSession", "Authorize", "Watch", "ReportOutcome", "Export"} <= methods
        assert {metadata.get("authorization") for _, metadata in fake.metadata} == {"Bearer s3cr3t"}
        agent.close()
