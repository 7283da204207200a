"""What clients of the control API did and heard, and whether that can have happened (reliability.md §3.1).

Every change of a session's run state has an epoch of its own, so the changes of a session stand in one order. A history
is right when that order is one that the state model allows, when it agrees with the time at which calls began and
ended, and when every answer at the gate fits the state that it names.
"""

from __future__ import annotations

from msgspec import Struct


class Call(Struct, frozen=True):
    """One call, as its caller saw it. Times are of one monotonic clock.

    Attributes:
        kind: ``pause``, ``resume``, ``terminate`` or ``ask``.
        answers: For a resume, the (pause id, epoch) that it answers.
        epoch, state, pause_id: As the answer told them; -1 where the call was refused.
        allowed: Whether an ``ask`` was allowed.
    """

    kind: str
    session: str
    began_s: float
    ended_s: float
    epoch: int = -1
    state: str = ""
    pause_id: str = ""
    answers: tuple[str, int] = ("", 0)
    allowed: bool = False


AFTER = {"pause": "paused", "resume": "running", "terminate": "terminated"}


def violations(calls: list[Call]) -> list[str]:
    """What in a history cannot have happened, in words; empty for one that is right."""
    found: list[str] = []
    for session in sorted({call.session for call in calls}):
        found += _of_session([call for call in calls if call.session == session])
    return found


def _of_session(calls: list[Call]) -> list[str]:
    found: list[str] = []
    changes = sorted((c for c in calls if c.kind != "ask" and c.epoch >= 0), key=lambda c: c.epoch)
    state, pause_id = {0: "running"}, ""
    for number, change in enumerate(changes, 1):
        before = state[number - 1]
        where = f"{change.session} epoch {change.epoch}: {change.kind}"
        if change.epoch != number:
            return [*found, f"{where}: the epoch should be {number}"]
        if before == "terminated":
            found.append(f"{where} after it was terminated")
        if change.kind == "resume":
            if before != "paused":
                found.append(f"{where} while {before}")
            if change.answers != (pause_id, number - 1):
                found.append(f"{where} answers {change.answers}, not {(pause_id, number - 1)}")
        if change.kind == "pause":
            pause_id = change.pause_id
        state[number] = AFTER[change.kind]
        if change.state != state[number]:
            found.append(f"{where} told as {change.state}")
    found += [
        f"{one.session}: epoch {one.epoch} was over before epoch {other.epoch} began"
        for one in changes
        for other in changes
        if one.ended_s < other.began_s and one.epoch > other.epoch
    ]
    for ask in (c for c in calls if c.kind == "ask" and c.epoch >= 0):
        found += _of_ask(ask, changes, state)
    return found


def _of_ask(ask: Call, changes: list[Call], state: dict[int, str]) -> list[str]:
    where = f"{ask.session}: an answer of epoch {ask.epoch}"
    found = []
    if ask.state != state.get(ask.epoch):
        found.append(f"{where} says {ask.state}, which it was not")
    if ask.allowed and state.get(ask.epoch) != "running":
        found.append(f"{where} allows while {state.get(ask.epoch)}")
    for change in changes:
        if change.ended_s < ask.began_s and change.epoch > ask.epoch:
            found.append(f"{where} was given after epoch {change.epoch} had been told")
        if change.began_s > ask.ended_s and change.epoch <= ask.epoch:
            found.append(f"{where} was given before that epoch began")
    return found
