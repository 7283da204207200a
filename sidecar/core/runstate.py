"""Run state of sessions: what we want of the agent and what we know of it, as tables.

Desired state and epoch follow `NEXT`; how far the agent has followed a pause follows `FOLLOWS`. Every control change
raises the epoch by one, and it never goes back (reliability.md §3.1). A pause holds as soon as it is asked for; a
resume and a termination are planned here, stored by the shell, and only then applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.commands import (
    Acknowledge,
    Cause,
    Command,
    Move,
    Observed,
    Pause,
    Resume,
    State,
    Terminate,
    Transition,
)
from sidecar.core.events import SessionKey
from sidecar.errors import ControlError

NEXT: dict[tuple[State, str], State] = {
    ("running", "pause"): "paused",
    ("paused", "pause"): "paused",
    ("paused", "resume"): "running",
    ("running", "terminate"): "terminated",
    ("paused", "terminate"): "terminated",
}
"""(state, command) → state. What is not here is refused; nothing leads out of `terminated`."""

FOLLOWS: dict[Observed, tuple[Observed, ...]] = {
    "requested": ("acknowledged", "quiesced", "unconfirmed"),
    "unconfirmed": ("acknowledged", "quiesced"),
    "unenforced": ("acknowledged", "quiesced"),
    "acknowledged": ("quiesced",),
    "quiesced": (),
    "running": (),
}
"""How far an agent has followed a pause → what it may report next."""

CONFIRM_NS = 3 * 10**9
"""How long a pause may go unacknowledged before it counts as unconfirmed: the lease (reliability.md M20)."""


class Run(Struct):
    """Run state of one session.

    Attributes:
        causes: Pauses that hold it, oldest first; all must be cleared.
        pause_id: The newest of them, or the last one once it runs again.
        promised: Highest epoch given to a change that is being stored.
        asked: Pause id → epoch at which it was last asked for.
        in_flight: Call ids of acts that had begun when the pause came.
    """

    desired: State = "running"
    epoch: int = 0
    observed: Observed = "running"
    causes: dict[str, Cause] = {}
    pause_id: str = ""
    promised: int = 0
    in_flight: tuple[str, ...] = ()
    requested_ns: int = 0
    confirmed_ns: int = 0
    asked: dict[str, int] = {}


RUNNING = Run()


class RunStates:
    """Run states by session. A session without an entry is running at epoch 0.

    Memory: one entry a session that was ever paused or terminated, at most `capacity`; beyond it the oldest entry of a
    session that runs goes (the store keeps it), and no epoch given later is as low as one that was forgotten.
    """

    def __init__(self, *, capacity: int = 200_000) -> None:
        self._runs: dict[SessionKey, Run] = {}
        self._capacity = capacity
        self._unconfirmed: dict[SessionKey, int] = {}
        self._forgotten = 0

    def __iter__(self) -> Iterator[tuple[SessionKey, Run]]:
        return iter(self._runs.items())

    def get(self, key: SessionKey) -> Run:
        """The session's run state; not to be changed by the caller."""
        return self._runs.get(key, RUNNING)

    def is_held(self, key: SessionKey) -> bool:
        return self.get(key).desired != "running"

    def held(self) -> int:
        """How many sessions are paused now."""
        return sum(run.desired == "paused" for run in self._runs.values())

    def restore(self, key: SessionKey, run: Run) -> None:
        """Puts back a stored state; a pause that nobody has confirmed is waited for as before."""
        run.promised = max(run.promised, run.epoch)
        self._runs[key] = run
        if run.desired == "paused" and run.observed == "requested":
            self._unconfirmed[key] = run.requested_ns

    def pause(self, command: Pause, *, enforced: bool) -> Transition:
        """Holds a session, at once.

        Args:
            enforced: Whether somebody is there who can hold this agent.
        Raises:
            ControlError: ``FAILED_PRECONDITION``: the session is terminated.
        """
        key, cause = command.session, command.cause
        run = self._own(key)
        before, after = run.desired, self._next(run, "pause")
        run.causes[cause.pause_id] = cause
        run.pause_id = cause.pause_id
        run.epoch = run.promised = max(run.promised, run.epoch) + 1
        run.asked[cause.pause_id] = run.epoch
        run.desired = after
        if before != "paused":
            run.observed = "requested" if enforced else "unenforced"
            run.requested_ns, run.confirmed_ns = cause.at_ns, 0
            if enforced:
                self._unconfirmed[key] = cause.at_ns
        return self._transition(key, run, command, before, cause.at_ns)

    def plan_resume(self, command: Resume) -> Transition:
        """What a resume will change once it is stored.

        Raises:
            ControlError: ``FAILED_PRECONDITION``: not the current pause or epoch, not paused, or something that holds
                the session is not named in `clears`.
        """
        run = self.get(command.session)
        after = self._next(run, "resume")
        if (command.pause_id, command.epoch) != (run.pause_id, run.epoch):
            raise ControlError("FAILED_PRECONDITION", "the state has changed: this answers an older pause")
        left = sorted(f for cause in run.causes.values() for f in cause.findings if f not in command.clears)
        if left:
            raise ControlError("FAILED_PRECONDITION", f"not cleared by this resume: {', '.join(left[:8])}")
        run.promised = max(run.promised, run.epoch) + 1
        planned = replace(run, desired=after, epoch=run.promised, observed="running", causes={}, in_flight=())
        planned_change = self._transition(command.session, planned, command, run.desired, command.at_ns)
        return replace(planned_change, cleared=tuple(run.causes))

    def plan_terminate(self, command: Terminate) -> Transition:
        """What a termination will change once it is stored.

        Raises:
            ControlError: ``FAILED_PRECONDITION``: the session is terminated already.
        """
        run = self._own(command.session)
        after = self._next(run, "terminate")
        run.promised = max(run.promised, run.epoch) + 1
        planned = replace(run, desired=after, epoch=run.promised)
        return self._transition(command.session, planned, command, run.desired, command.at_ns)

    def apply(self, transition: Transition) -> Transition:
        """Lets a stored resume or termination take effect; what has happened since is kept.

        Returns:
            What is true now: a pause that came in between still holds the session.
        """
        key, command = transition.session, transition.command
        run = self._own(key)
        before = run.desired
        for pause_id in transition.cleared:  # unless it was asked for again meanwhile
            if isinstance(command, Resume) and run.asked.get(pause_id, 0) <= command.epoch:
                run.causes.pop(pause_id, None)
                run.asked.pop(pause_id, None)
        if transition.after == "terminated":
            run.causes, run.asked, run.desired = {}, {}, "terminated"
        elif run.desired != "terminated" and not run.causes:
            run.desired, run.observed, run.in_flight = "running", "running", ()
            self._unconfirmed.pop(key, None)
        run.epoch = max(run.epoch, transition.epoch)
        return self._transition(key, run, command, before, transition.at_ns)

    def acknowledge(self, command: Acknowledge) -> Transition | None:
        """Takes down how far the agent has followed; None when it says nothing new or speaks of an older state."""
        run = self._runs.get(command.session)
        if run is None or command.epoch < run.epoch or command.observed not in FOLLOWS[run.observed]:
            return None
        before = run.observed
        run.observed, run.in_flight = command.observed, command.in_flight
        if before in ("requested", "unconfirmed", "unenforced"):
            run.confirmed_ns = command.at_ns
            self._unconfirmed.pop(command.session, None)
        return self._transition(command.session, run, command, run.desired, command.at_ns)

    def outrun(self, key: SessionKey, epoch: int) -> None:
        """Makes the next change of a session later than `epoch`: somebody knows a state that we have lost."""
        run = self._own(key)
        run.promised = max(run.promised, epoch)

    def overdue(self, now_ns: int) -> list[SessionKey]:
        """Sessions whose pause nobody has acknowledged in time; each is named once."""
        late = [key for key, since in self._unconfirmed.items() if now_ns - since >= CONFIRM_NS]
        for key in late:
            del self._unconfirmed[key]
            self._runs[key].observed = "unconfirmed"
        return late

    def rename(self, old: SessionKey, new: SessionKey, now_ns: int) -> Transition | None:
        """Moves a held session's state to its new id; the stronger of both states wins."""
        run = self._runs.pop(old, None)
        if run is None:
            return None
        since = self._unconfirmed.pop(old, None)
        target = self._own(new)
        before = target.desired
        target.epoch = target.promised = max(target.promised, run.promised, target.epoch, run.epoch) + 1
        target.causes |= run.causes
        for pause_id, epoch in run.asked.items():
            target.asked[pause_id] = max(epoch, target.asked.get(pause_id, 0))
        if "terminated" in (target.desired, run.desired):
            target.desired = "terminated"
        elif "paused" in (target.desired, run.desired):
            target.desired = "paused"
        if before != "paused" and target.desired == "paused":
            target.pause_id, target.observed, target.requested_ns = run.pause_id, run.observed, run.requested_ns
            if since is not None:
                self._unconfirmed[new] = since
        return self._transition(new, target, Move(new, old, now_ns), before, now_ns)

    def _own(self, key: SessionKey) -> Run:
        run = self._runs.get(key)
        if run is None:
            if len(self._runs) >= self._capacity:
                for old, state in self._runs.items():
                    if state.desired == "running":
                        self._forgotten = max(self._forgotten, state.epoch, state.promised)
                        del self._runs[old]
                        break
            run = self._runs[key] = Run(promised=self._forgotten)
        return run

    @staticmethod
    def _next(run: Run, command: str) -> State:
        after = NEXT.get((run.desired, command))
        if after is None:
            raise ControlError("FAILED_PRECONDITION", f"a session that is {run.desired} cannot take: {command}")
        return after

    @staticmethod
    def _transition(key: SessionKey, run: Run, command: Command, before: State, at_ns: int) -> Transition:
        return Transition(
            session=key,
            command=command,
            before=before,
            after=run.desired,
            epoch=run.epoch,
            observed=run.observed,
            at_ns=at_ns,
            pause_id=run.pause_id,
            causes=tuple(run.causes.values()),
        )


def held_by(causes: Iterable[Cause]) -> str:
    """Who holds a session, in a few words for a person."""
    return ", ".join(dict.fromkeys(f"{cause.by} {cause.actor}".strip() for cause in causes)) or "nobody"
