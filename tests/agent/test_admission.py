"""The flow of an act, its steps performed by hand: no server, no clock."""

from __future__ import annotations

import pytest

import sidecar.agent as sidecar
from sidecar.agent.admission import Admission, Question
from sidecar.agent.options import Options
from sidecar.agent.outbox import Outbox
from sidecar.agent.roster import Roster
from sidecar.agent.steps import Call, Changed, NoAnswer, Sleep
from sidecar.control.v1 import control_pb2 as pb

RUNNING = pb.SessionState(session_id="s", state=pb.RUN_STATE_RUNNING, epoch=1)
ALLOWED = pb.AuthorizeResponse(answer=pb.ANSWER_ALLOWED, judged=True)
BUSY = pb.AuthorizeResponse(answer=pb.ANSWER_WAIT, retry_after_ms=100)


class World:
    """A client with a clock that moves by what is waited for, and a script of answers."""

    def __init__(self, *answers, state=RUNNING, reversible=False, **options):
        self.now, self.answers, self.steps = 0.0, list(answers), []
        self.options = Options(**options)
        self.roster, self.outbox = Roster(3.0), Outbox()
        self.roster.open("s")
        self.roster.renew(0.0)
        if state is not None:
            self.roster.learn(state, watched=True)
        self.reversible = reversible
        self.reopened = 0
        self.admission = Admission(
            self.options, self.roster, self.outbox, agent=pb.AgentIdentity(name="a"), instance_id=lambda: "i",
            learn=lambda state: self.roster.learn(state, watched=False), reopen=self._reopen,
            deadline_s=lambda: 0.25, clock=lambda: self.now, now_ns=lambda: int(self.now * 1e9), jitter=lambda: 0.5,
        )  # fmt: skip

    def _reopen(self, session_id):
        self.reopened += 1
        yield Sleep(0.0)

    def ask(self):
        question = Question("s", "send_mail", "{}", "c1", lambda: self.reversible)
        steps = self.admission.ask(question, self.options)
        result = error = None
        try:
            while True:
                step = steps.throw(error) if error else steps.send(result)
                self.steps.append(step)
                result = error = None
                if isinstance(step, Call):
                    answer = self.answers.pop(0)
                    answer = answer(self) if callable(answer) else answer
                    if isinstance(answer, NoAnswer):
                        error = answer
                    result = answer
                else:
                    self.now += step.seconds if isinstance(step, Sleep) else step.timeout_s
        except StopIteration as done:
            return done.value

    @property
    def calls(self):
        return [step for step in self.steps if isinstance(step, Call)]


def test_question_carries_the_deadline():
    world = World(ALLOWED)
    assert not world.ask().ungated
    assert [step.deadline_s for step in world.calls] == [0.25]


def test_waiting_for_a_busy_sidecar_follows_its_word_and_ends_with_patience():
    world = World(*[BUSY] * 100, patience_s=1.0)
    with pytest.raises(sidecar.SidecarUnavailable):
        world.ask()
    assert 0.5 <= world.now <= 1.0
    assert all(step.seconds >= 0.1 for step in world.steps if isinstance(step, Sleep))


def test_hold_is_waited_out_for_one_deadline_only():
    world = World(state=None)
    with pytest.raises(sidecar.SidecarUnavailable):
        world.ask()
    assert world.now == 0.25
    assert not world.calls


def test_hold_that_ends_in_time_asks():
    world = World(ALLOWED, state=None)
    question = Question("s", "send_mail", "{}", "c1", lambda: False)
    steps = world.admission.ask(question, world.options)
    assert isinstance(next(steps), Changed)
    world.roster.learn(RUNNING, watched=True)
    assert isinstance(steps.send(None), Call)


def test_reversible_act_asks_even_on_hold():
    world = World(NoAnswer("DEADLINE_EXCEEDED"), state=None, reversible=True)
    assert world.ask().ungated
    assert len(world.calls) == 1


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"])
def test_no_answer_is_one_try_for_an_irreversible_act(code):
    world = World(NoAnswer(code))
    with pytest.raises(sidecar.SidecarUnavailable):
        world.ask()
    assert world.now == 0.0


def test_unanswered_reversible_act_does_not_run_when_a_pause_arrived_meanwhile():
    def pause(world):
        world.roster.learn(pb.SessionState(session_id="s", state=pb.RUN_STATE_PAUSED, epoch=2), watched=True)
        return NoAnswer("UNAVAILABLE")

    world = World(pause, reversible=True, on_pause="raise")
    with pytest.raises(sidecar.SessionPaused):
        world.ask()


def test_unknown_session_is_named_again_once():
    world = World(NoAnswer("NOT_FOUND"), ALLOWED)
    world.ask()
    assert world.reopened == 1
    world = World(*[NoAnswer("NOT_FOUND")] * 100, patience_s=0.5)
    with pytest.raises(sidecar.SidecarUnavailable):
        world.ask()
    assert world.reopened == 1


def test_patience_is_not_used_up_by_people():
    """A day's hold, then a busy sidecar: the question is still asked again."""
    held = pb.AuthorizeResponse(answer=pb.ANSWER_WAIT, decision_id="d", judged=True)

    def decided(world):
        world.now += 86_400
        world.roster.renew(world.now)
        world.roster.learn(RUNNING, watched=True)
        return pb.AwaitDecisionResponse(answer=pb.ANSWER_PAUSED)

    world = World(held, decided, BUSY, ALLOWED, patience_s=1.0)
    assert world.ask().decision_id == ""


def test_decision_that_was_lost_is_asked_for_anew():
    held = pb.AuthorizeResponse(answer=pb.ANSWER_WAIT, decision_id="d", judged=True)
    world = World(held, NoAnswer("NOT_FOUND"), ALLOWED)
    world.ask()
    assert [step.method for step in world.calls] == ["Authorize", "AwaitDecision", "Authorize"]


def test_server_that_answers_wait_at_once_is_not_asked_in_a_hot_loop():
    held = pb.AuthorizeResponse(answer=pb.ANSWER_WAIT, decision_id="d", judged=True)
    world = World(held, *[pb.AwaitDecisionResponse(answer=pb.ANSWER_WAIT)] * 1000, block_s=10.0)
    with pytest.raises(sidecar.ActHeld):
        world.ask()
    assert len(world.calls) <= 52


def test_paused_answer_without_a_state_waits_and_asks_again():
    paused = pb.AuthorizeResponse(answer=pb.ANSWER_PAUSED, judged=True)
    world = World(paused, paused, ALLOWED)
    world.ask()
    assert world.now >= 1.0


def test_longest_wait_for_a_resume_is_kept():
    paused = pb.SessionState(session_id="s", state=pb.RUN_STATE_PAUSED, epoch=2, pause_id="p")
    world = World(state=paused, block_s=12.0)
    with pytest.raises(sidecar.SessionPaused):
        world.ask()
    assert 12.0 <= world.now < 12.5


def test_state_of_another_session_in_an_answer_is_not_taken_in():
    foreign = pb.AuthorizeResponse(answer=pb.ANSWER_ALLOWED, judged=True)
    foreign.state.session_id, foreign.state.state, foreign.state.epoch = "other", pb.RUN_STATE_PAUSED, 9
    world = World(foreign)
    world.ask()
    assert world.roster.posture("s", 0.0).epoch == 1


def test_refusal_without_judgement_says_so():
    world = World(pb.AuthorizeResponse(answer=pb.ANSWER_REFUSED, judged=False, retry_after_ms=1500))
    with pytest.raises(sidecar.ActRefused) as refusal:
        world.ask()
    assert not refusal.value.judged
    assert refusal.value.retry_after_s == 1.5
