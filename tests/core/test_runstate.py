"""Run states: the table, and any history of commands against the rules of reliability §3.1."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.core.commands import Acknowledge, Cause, Observed, Pause, Resume, Terminate, Transition
from sidecar.core.events import SessionKey
from sidecar.core.runstate import CONFIRM_NS, FOLLOWS, NEXT, Run, RunStates, held_by
from sidecar.errors import ControlError

KEY = SessionKey("r", "s")


def pause(runs: RunStates, pause_id: str = "p", *, key: SessionKey = KEY, at_ns: int = 0, enforced: bool = True,
          findings: tuple[str, ...] = ()) -> Transition:  # fmt: skip
    cause = Cause(pause_id, "detector", "d", "why", at_ns, findings)
    return runs.pause(Pause(key, cause), enforced=enforced)


def resume(runs: RunStates, *, key: SessionKey = KEY, clears: tuple[str, ...] = ()) -> Transition:
    run = runs.get(key)
    return runs.plan_resume(Resume(key, run.pause_id, run.epoch, "ann", "looked at it", 1, clears))


def terminate(runs: RunStates, key: SessionKey = KEY) -> Transition:
    return runs.plan_terminate(Terminate(key, "ann", "enough", 1))


def in_state(state: str) -> RunStates:
    runs = RunStates()
    if state == "paused":
        pause(runs)
    elif state == "terminated":
        runs.apply(terminate(runs))
    return runs


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("state", ["running", "paused", "terminated"])
@pytest.mark.parametrize("command", ["pause", "resume", "terminate"])
def test_a_command_leads_where_the_table_says_or_is_refused(state: str, command: str) -> None:
    runs = in_state(state)
    before = runs.get(KEY).epoch
    does: dict[str, Any] = {
        "pause": lambda: pause(runs, "q"),
        "resume": lambda: runs.apply(resume(runs)),
        "terminate": lambda: runs.apply(terminate(runs)),
    }
    after = NEXT.get((state, command))  # type: ignore[call-overload]
    if after is None:
        with pytest.raises(ControlError) as refused:
            does[command]()
        assert refused.value.code == "FAILED_PRECONDITION"
        assert (runs.get(KEY).desired, runs.get(KEY).epoch) == (state, before)
        return
    transition = does[command]()
    assert (transition.before, transition.after) == (state, after)
    assert runs.get(KEY).desired == after
    assert transition.epoch == runs.get(KEY).epoch == before + 1


def test_nothing_leads_out_of_terminated() -> None:
    assert not [command for state, command in NEXT if state == "terminated"]


@pytest.mark.parametrize("before", sorted(FOLLOWS))
@pytest.mark.parametrize("told", sorted(FOLLOWS))
def test_an_agent_follows_a_pause_as_the_table_says(before: Observed, told: Observed) -> None:
    runs = RunStates()
    runs.restore(KEY, Run(desired="paused", epoch=4, observed=before, pause_id="p"))
    transition = runs.acknowledge(Acknowledge(KEY, 4, told, 9, ("c1",)))
    if told in FOLLOWS[before]:
        assert transition is not None
        assert (runs.get(KEY).observed, runs.get(KEY).in_flight) == (told, ("c1",))
        assert transition.epoch == 4, "an acknowledgement is no control change"
    else:
        assert transition is None
        assert runs.get(KEY).observed == before


def test_an_acknowledgement_of_an_older_epoch_says_nothing() -> None:
    runs = RunStates()
    pause(runs, "p")
    pause(runs, "q")
    assert runs.acknowledge(Acknowledge(KEY, 1, "quiesced", 5)) is None
    assert runs.get(KEY).observed == "requested"
    assert runs.acknowledge(Acknowledge(SessionKey("r", "nobody"), 1, "quiesced", 5)) is None


def test_a_pause_nobody_acknowledges_is_unconfirmed_once() -> None:
    runs = RunStates()
    pause(runs, at_ns=100)
    assert runs.overdue(100 + CONFIRM_NS - 1) == []
    assert runs.overdue(100 + CONFIRM_NS) == [KEY]
    assert runs.overdue(100 + 2 * CONFIRM_NS) == []
    assert runs.get(KEY).observed == "unconfirmed"


@pytest.mark.parametrize("answered", ["acknowledged", "quiesced"])
def test_a_pause_that_is_acknowledged_is_not_overdue(answered: Observed) -> None:
    runs = RunStates()
    pause(runs)
    runs.acknowledge(Acknowledge(KEY, 1, answered, 50))
    assert runs.overdue(10 * CONFIRM_NS) == []
    assert runs.get(KEY).confirmed_ns == 50


def test_a_pause_where_nobody_can_hold_the_agent_is_unenforced_at_once() -> None:
    runs = RunStates()
    assert pause(runs, enforced=False).observed == "unenforced"
    assert runs.overdue(10 * CONFIRM_NS) == []


def test_a_resumed_session_is_not_overdue() -> None:
    runs = RunStates()
    pause(runs)
    runs.apply(resume(runs))
    assert runs.overdue(10 * CONFIRM_NS) == []


# ---------------------------------------------------------------- pausing and resuming


def test_a_session_nobody_paused_is_running_at_epoch_zero() -> None:
    run = RunStates().get(KEY)
    assert (run.desired, run.epoch, run.observed) == ("running", 0, "running")


@pytest.mark.parametrize(("pause_id", "epoch"), [("p", 2), ("q", 1), ("other", 2), ("", 2), ("q", 3)])
def test_a_resume_that_answers_another_pause_is_refused(pause_id: str, epoch: int) -> None:
    runs = RunStates()
    pause(runs, "p")
    pause(runs, "q")
    with pytest.raises(ControlError, match="older pause"):
        runs.plan_resume(Resume(KEY, pause_id, epoch, "ann", "", 1))
    assert runs.get(KEY).desired == "paused"


def test_a_resume_names_all_that_holds_the_session() -> None:
    runs = RunStates()
    pause(runs, "p", findings=("f1",))
    pause(runs, "q", findings=("f2", "f3"))
    for clears in ((), ("f1",), ("f2", "f3"), ("f1", "f2")):
        with pytest.raises(ControlError, match="not cleared"):
            resume(runs, clears=clears)
    after = runs.apply(resume(runs, clears=("f1", "f2", "f3")))
    assert (after.after, after.causes) == ("running", ())


def test_a_resume_holds_only_once_it_is_applied() -> None:
    runs = RunStates()
    pause(runs)
    planned = resume(runs)
    assert (planned.after, planned.cleared) == ("running", ("p",))
    assert runs.is_held(KEY)
    runs.apply(planned)
    assert not runs.is_held(KEY)


@pytest.mark.parametrize("pause_id", ["q", "p"], ids=["another pause", "the same pause asked for again"])
def test_a_pause_while_the_resume_is_being_stored_still_holds(pause_id: str) -> None:
    runs = RunStates()
    pause(runs, "p")
    planned = resume(runs)
    between = pause(runs, pause_id, findings=("new",))
    assert between.epoch > planned.epoch
    after = runs.apply(planned)
    assert (after.after, runs.get(KEY).desired) == ("paused", "paused")
    assert [cause.pause_id for cause in after.causes] == [pause_id]
    assert after.epoch == between.epoch
    assert runs.apply(resume(runs, clears=("new",))).after == "running"


def test_a_resume_stored_after_a_termination_changes_nothing() -> None:
    runs = RunStates()
    pause(runs)
    planned = resume(runs)
    runs.apply(terminate(runs))
    assert runs.apply(planned).after == "terminated"


def test_a_termination_stored_after_a_resume_is_final() -> None:
    runs = RunStates()
    pause(runs)
    first, second = resume(runs), terminate(runs)
    runs.apply(first)
    assert runs.apply(second).after == "terminated"
    assert second.epoch > first.epoch


def test_a_pause_restored_after_a_restart_is_answered_by_its_own_epoch() -> None:
    runs = RunStates()
    cause = Cause("p", "operator", "ann", "", 0)
    runs.restore(KEY, Run(desired="paused", epoch=7, observed="requested", causes={"p": cause}, pause_id="p"))
    assert runs.is_held(KEY)
    after = runs.apply(resume(runs))
    assert (after.after, after.epoch) == ("running", 8)


def test_a_pause_nobody_had_confirmed_before_a_restart_is_unconfirmed_after_it() -> None:
    runs = RunStates()
    cause = Cause("p", "operator", "ann", "", 0)
    for observed in ("requested", "acknowledged", "unenforced"):
        key = SessionKey("r", observed)
        run = Run(desired="paused", epoch=1, observed=observed, causes={"p": cause}, pause_id="p", requested_ns=9)
        runs.restore(key, run)
    assert runs.overdue(9 + CONFIRM_NS - 1) == []
    assert [key.id for key in runs.overdue(9 + CONFIRM_NS)] == ["requested"]


def test_who_knows_a_later_state_makes_the_next_one_later_still() -> None:
    runs = RunStates()
    runs.outrun(KEY, 41)
    assert pause(runs).epoch == 42


def test_how_many_are_held() -> None:
    runs = RunStates()
    for name in "abc":
        pause(runs, key=SessionKey("r", name))
    runs.apply(resume(runs, key=SessionKey("r", "a")))
    runs.apply(terminate(runs, SessionKey("r", "b")))
    assert runs.held() == 1


def test_who_holds_is_said_in_words() -> None:
    by = [("1", "operator", "ann"), ("2", "detector", "flow"), ("3", "operator", "ann")]
    causes = [Cause(pause_id, who, actor, "", 0) for pause_id, who, actor in by]  # type: ignore[arg-type]
    assert held_by(causes) == "operator ann, detector flow"
    assert held_by([]) == "nobody"


# ---------------------------------------------------------------- renaming


@pytest.mark.parametrize("old", ["none", "running", "paused", "terminated"])
@pytest.mark.parametrize("new", ["none", "running", "paused", "terminated"])
def test_the_stronger_of_two_states_wins_and_the_epoch_grows(old: str, new: str) -> None:
    runs, rank = RunStates(), {"none": 0, "running": 0, "paused": 1, "terminated": 2}
    keys = {"old": SessionKey("r", "old"), "new": SessionKey("r", "new")}
    for name, state in (("old", old), ("new", new)):
        if state != "none":
            pause(runs, f"p-{name}", key=keys[name])
        if state == "running":
            runs.apply(resume(runs, key=keys[name]))
        elif state == "terminated":
            runs.apply(terminate(runs, keys[name]))
    highest = max(runs.get(key).epoch for key in keys.values())
    moved = runs.rename(keys["old"], keys["new"], 9)
    run = runs.get(keys["new"])
    expected = max((old, new), key=rank.__getitem__)
    assert run.desired == ("running" if expected == "none" else expected)
    assert (moved is None) == (old == "none")
    assert run.epoch == (highest if old == "none" else highest + 1)
    assert runs.get(keys["old"]).desired == "running"
    if expected == "paused":
        held = {f"p-{name}" for name, state in (("old", old), ("new", new)) if state == "paused"}
        assert set(run.causes) == held
        assert run.pause_id in held


def test_an_unconfirmed_pause_stays_so_under_its_new_name() -> None:
    runs = RunStates()
    pause(runs, key=SessionKey("r", "old"), at_ns=5)
    runs.rename(SessionKey("r", "old"), KEY, 6)
    assert runs.overdue(5 + CONFIRM_NS) == [KEY]


# ---------------------------------------------------------------- any history


class Model:
    """One session as reliability §3.1 has it: a set of pauses, an epoch that grows, an end."""

    def __init__(self) -> None:
        self.causes: dict[str, tuple[str, ...]] = {}
        self.epoch = 0
        self.pause_id = ""
        self.ended = False

    @property
    def state(self) -> str:
        return "terminated" if self.ended else "paused" if self.causes else "running"


names = st.sampled_from("aaabc")
findings = st.lists(st.sampled_from(["f1", "f2", "f3"]), max_size=2, unique=True).map(tuple)


class Histories(RuleBasedStateMachine):
    """Commands in any order, plans applied late or never, sessions renamed; a lost plan changes nothing."""

    @initialize()
    def begin(self) -> None:
        self.runs = RunStates()
        self.models = {name: Model() for name in "abc"}
        self.plans: list[tuple[str, Transition, tuple[tuple[str, int], ...]]] = []
        self.aliases: dict[str, str] = {}
        self.asked: dict[tuple[str, str], int] = {}
        self.epochs: dict[str, int] = dict.fromkeys("abc", 0)
        self.count = 0

    def model(self, name: str) -> tuple[str, Model]:
        while name in self.aliases:
            name = self.aliases[name]
        return name, self.models[name]

    @rule(name=names, pause_id=st.sampled_from(["p", "p", "q"]), found=findings, enforced=st.booleans())
    def pause(self, name: str, pause_id: str, found: tuple[str, ...], enforced: bool) -> None:
        name, model = self.model(name)
        self.count += 1
        command = Pause(SessionKey("r", name), Cause(pause_id, "detector", "d", "", self.count, found))
        if model.ended:
            with pytest.raises(ControlError):
                self.runs.pause(command, enforced=enforced)
            return
        told = self.runs.pause(command, enforced=enforced)
        assert told.after == "paused"
        assert told.epoch > model.epoch
        model.causes[pause_id] = found
        model.epoch, model.pause_id = told.epoch, pause_id
        self.asked[name, pause_id] = self.count

    @rule(name=names, clears=st.just(("f1", "f2", "f3")) | findings, late=st.sampled_from([0, 0, 0, 1]))
    def plan_resume(self, name: str, clears: tuple[str, ...], late: int) -> None:
        name, model = self.model(name)
        command = Resume(SessionKey("r", name), model.pause_id, model.epoch - late, "ann", "", self.count, clears)
        needed = {finding for found in model.causes.values() for finding in found}
        if model.state != "paused" or late or not needed <= set(clears):
            with pytest.raises(ControlError):
                self.runs.plan_resume(command)
            return
        told = self.runs.plan_resume(command)
        assert told.epoch > model.epoch
        answered = tuple((pause_id, self.asked[name, pause_id]) for pause_id in model.causes)
        self.plans.append((name, told, answered))

    @rule(name=names)
    def plan_terminate(self, name: str) -> None:
        name, model = self.model(name)
        command = Terminate(SessionKey("r", name), "ann", "", self.count)
        if model.ended:
            with pytest.raises(ControlError):
                self.runs.plan_terminate(command)
            return
        self.plans.append((name, self.runs.plan_terminate(command), ()))

    @precondition(lambda self: any(plan.cleared for _, plan, _ in self.plans))
    @rule(found=findings)
    def pause_again_meanwhile(self, found: tuple[str, ...]) -> None:
        name, plan, _ = next(entry for entry in self.plans if entry[1].cleared)
        self.pause(name, plan.cleared[0], found, True)

    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        if not self.plans:
            return
        name, plan, answered = self.plans.pop(data.draw(st.integers(0, len(self.plans) - 1)))
        if name in self.aliases:
            return  # the pipeline takes a plan to where its session went; see test_pipeline
        model = self.models[name]
        told = self.runs.apply(plan)
        if plan.after == "terminated":
            model.ended, model.causes = True, {}
        else:
            for pause_id, asked in answered:
                if self.asked[name, pause_id] == asked:
                    model.causes.pop(pause_id, None)
        model.epoch = max(model.epoch, plan.epoch)
        assert (told.after, told.epoch) == (model.state, model.epoch)

    @rule()
    def lose_a_plan(self) -> None:
        if self.plans:
            self.plans.pop()

    @rule(name=names, told=st.sampled_from(["acknowledged", "quiesced", "running"]), late=st.integers(0, 2))
    def acknowledge(self, name: str, told: Observed, late: int) -> None:
        name, model = self.model(name)
        self.runs.acknowledge(Acknowledge(SessionKey("r", name), model.epoch - late, told, self.count))

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        (old, was), (new, model) = self.model(old), self.model(new)
        if old == new:
            return
        moved = self.runs.rename(SessionKey("r", old), SessionKey("r", new), self.count)
        self.aliases[old] = new
        for pause_id, found in was.causes.items():
            model.causes[pause_id] = found
            self.count += 1
            self.asked[new, pause_id] = self.count
        if was.causes and not (model.causes.keys() - was.causes.keys()):
            model.pause_id = was.pause_id
        model.ended |= was.ended
        if model.ended:
            model.causes = {}
        if moved is not None:
            assert moved.epoch > max(model.epoch, was.epoch)
            model.epoch = moved.epoch
        self.plans = [plan for plan in self.plans if plan[0] not in (old, new)]
        model.pause_id = self.runs.get(SessionKey("r", new)).pause_id

    @invariant()
    def the_runs_are_as_the_model_has_them(self) -> None:
        for name, model in self.models.items():
            if name in self.aliases:
                continue
            run = self.runs.get(SessionKey("r", name))
            assert run.desired == model.state, name
            assert run.epoch == model.epoch
            assert run.epoch >= self.epochs[name], "an epoch never goes back"
            self.epochs[name] = run.epoch
            if model.state == "paused":
                assert {p: c.findings for p, c in run.causes.items()} == model.causes
                assert run.pause_id in run.causes or model.pause_id not in model.causes


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase
