"""Four clients pause, resume, terminate and ask at once; what they hear fits the state model (P6)."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from sidecar.control.client import session as one
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.runstate import RunStates
from sidecar.errors import ControlError
from sidecar.storage import ControlStore
from tests.shells.control.histories import Call, violations
from tests.shells.control.kit import Raw, Sidecar, asked, opened

CLIENTS, OPERATIONS, SESSIONS = 4, 80, 3
STATE = {pb.RUN_STATE_RUNNING: "running", pb.RUN_STATE_PAUSED: "paused", pb.RUN_STATE_TERMINATED: "terminated"}


def played(sidecar: Sidecar, seed: int) -> list[Call]:
    """A history of `CLIENTS` clients."""
    calls: list[Call] = []
    known: dict[str, tuple[str, int]] = {}
    guard = threading.Lock()
    with Raw(sidecar.address) as raw:
        for number in range(SESSIONS):
            opened(raw, f"s{number}")

    def client(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        with Raw(sidecar.address) as raw, sidecar.people() as people:
            for step in range(OPERATIONS):
                session = f"s{chance.randrange(SESSIONS)}"
                roll = chance.random()
                kind = "pause" if roll < 0.3 else "resume" if roll < 0.6 else "terminate" if roll < 0.603 else "ask"
                answers = known.get(session, ("", 0))
                began_s = time.monotonic()
                fields = {}
                try:
                    if kind == "ask":
                        told = asked(raw, session, arguments={"n": f"{number}/{step}"})
                        fields = {"epoch": told.state.epoch, "state": STATE[told.state.state],
                                  "allowed": told.answer == pb.ANSWER_ALLOWED}  # fmt: skip
                    else:
                        if kind == "pause":
                            [view] = people.pause(one(session), "history")
                        elif kind == "resume":
                            [view] = people.resume(one(session), "history", pause_id=answers[0], epoch=answers[1])
                        else:
                            [view] = people.terminate(one(session), "history")
                        fields = {"epoch": view.epoch, "state": STATE[view.state], "pause_id": view.pause_id}
                except ControlError as error:
                    if error.code != "FAILED_PRECONDITION":
                        raise
                ended_s = time.monotonic()
                with guard:
                    if kind == "resume" and fields.get("epoch") == answers[1]:
                        continue  # it ran already, and nothing changed
                    calls.append(Call(kind, session, began_s, ended_s, answers=answers, **fields))
                    if kind != "ask" and fields and fields["epoch"] > known.get(session, ("", 0))[1]:
                        known[session] = (fields["pause_id"], fields["epoch"])

    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client, number) for number in range(CLIENTS)]:
            done.result(120)
    return calls


@pytest.fixture
def jittery(monkeypatch):
    """Commits take their time, before and after they are on the disk."""
    commit, chance = ControlStore.commit, random.Random(7)

    async def slow(store, batch, *, durable):
        await commit(store, batch, durable=durable)
        await asyncio.sleep(chance.random() * 0.004)

    monkeypatch.setattr(ControlStore, "commit", slow)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_histories_fit_the_state_model(start, jittery, seed):
    sidecar = start()
    calls = played(sidecar, seed)
    assert violations(calls) == []
    kinds = {kind: sum(c.kind == kind and c.epoch > 0 for c in calls) for kind in ("pause", "resume", "ask")}
    assert all(kinds.values()), kinds
    with sidecar.people() as people:
        before = {v.session_id: (v.state, v.epoch, v.pause_id) for v in people.sessions()}
    sidecar.__exit__()
    sidecar.__enter__()
    with sidecar.people() as people:
        held = {v.session_id: (v.state, v.epoch, v.pause_id) for v in people.sessions()}
    assert held == {name: view for name, view in before.items() if view[0] != pb.RUN_STATE_RUNNING}


def test_history_that_cannot_be_is_found_out(start, jittery, monkeypatch):
    """The control: without the check of pause id and epoch, resumes answer pauses that nobody looked at."""
    plan = RunStates.plan_resume

    def careless(runs, command):
        run = runs.get(command.session)
        return plan(runs, replace(command, pause_id=run.pause_id, epoch=run.epoch))

    monkeypatch.setattr(RunStates, "plan_resume", careless)
    assert violations(played(start(), 1))


RIGHT = [
    Call("pause", "s", 1, 2, epoch=1, state="paused", pause_id="p1"),
    Call("ask", "s", 3, 4, epoch=1, state="paused"),
    Call("resume", "s", 5, 6, epoch=2, state="running", answers=("p1", 1)),
    Call("ask", "s", 7, 8, epoch=2, state="running", allowed=True),
    Call("terminate", "s", 9, 10, epoch=3, state="terminated"),
]


@pytest.mark.parametrize(
    "wrong",
    [
        [Call("ask", "s", 3, 4, epoch=1, state="paused", allowed=True)],
        [Call("ask", "s", 3, 4, epoch=0, state="running", allowed=True)],
        [Call("ask", "s", 0.1, 0.2, epoch=2, state="running")],
        [Call("ask", "s", 3, 4, epoch=1, state="running")],
        [Call("pause", "s", 11, 12, epoch=4, state="paused", pause_id="p2")],
        [Call("pause", "s", 11, 12, epoch=2, state="paused", pause_id="p2")],
        [Call("resume", "s", 11, 12, epoch=4, state="running", answers=("p1", 3))],
    ],
    ids=["allowed while paused", "state of before", "state of later", "odd state", "after the end", "epoch twice",
         "resume of the ended"],
)  # fmt: skip
def test_check_of_histories_finds(wrong):
    assert violations(RIGHT) == []
    assert violations(RIGHT + wrong)
