"""What this process knows of its sessions' run states, and which acts are under way. No I/O; time is an argument.

Three rules (reliability.md §3.1): the highest epoch is believed and a lower one never; after a (re)connect, or when the
heartbeat stays away for a lease, a session is in HOLD until its state is told again; a pause is acknowledged with the
acts that had begun, and again when the last of them is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from sidecar.agent.options import LEASE_BOUNDS_S
from sidecar.control.v1 import control_pb2 as pb

Condition = Literal["running", "hold", "paused", "terminated"]

MAX_CLOSED = 1024
"""Sessions remembered after they were closed, so that a late pause can be acknowledged."""

_TIGHTNESS = {pb.RUN_STATE_UNSPECIFIED: 0, pb.RUN_STATE_RUNNING: 1, pb.RUN_STATE_TERMINATED: 3}
_PAUSED = 2
"""Tightness of a pause, and of any state that this library is too old to know."""


@dataclass(frozen=True, slots=True)
class Posture:
    """How a session stands at one moment.

    Attributes:
        version: Grows with each change in the roster; `steps.Changed` waits on it.
        pause_id: The newest pause, "" while running.
    """

    condition: Condition
    epoch: int
    pause_id: str
    version: int


class _Standing:
    """One session: its run state as told, whether that is current, and acts in flight by call id."""

    __slots__ = ("epoch", "fresh", "in_flight", "opened", "pause_id", "state")

    def __init__(self) -> None:
        self.state: pb.RunState = pb.RUN_STATE_UNSPECIFIED
        self.epoch, self.pause_id = 0, ""
        self.fresh = False
        self.opened = 0
        self.in_flight: dict[str, int] = {}

    @property
    def held(self) -> bool:
        return _tightness(self.state) >= _PAUSED


class Roster:
    """All sessions of one client. Safe to use from any thread.

    Memory: the open sessions with their acts in flight, and `MAX_CLOSED` closed ones.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._alive_until = float("-inf")
        self._standings: dict[str, _Standing] = {}
        self._changed = threading.Condition()
        self._listeners: dict[int, Callable[[], None]] = {}
        self.version = 0

    # ------------------------------------------------------------ sessions

    def open(self, session_id: str, remembered: pb.SessionState | None = None) -> None:
        """Begins to keep a session, in HOLD. `remembered` is its `SessionState` from before a restart."""
        with self._changed:
            standing = self._standings.pop(session_id, None) or _Standing()
            self._standings[session_id] = standing
            standing.opened += 1
            if remembered is not None and remembered.epoch > standing.epoch:
                standing.epoch, standing.state = remembered.epoch, remembered.state
                standing.pause_id = remembered.pause_id

    def close(self, session_id: str) -> None:
        """Ends what `open` began; the oldest closed sessions are forgotten beyond `MAX_CLOSED`."""
        with self._changed:
            if standing := self._standings.get(session_id):
                standing.opened = max(0, standing.opened - 1)
            closed = [name for name, s in self._standings.items() if not s.opened and not s.in_flight]
            for name in closed[: max(0, len(closed) - MAX_CLOSED)]:
                del self._standings[name]

    # ------------------------------------------------------------ what the sidecar says

    def learn(self, state: pb.SessionState, *, watched: bool) -> tuple[bool, list[pb.AcknowledgeRequest]]:
        """Takes in one `SessionState`.

        Args:
            state: As told in an answer or by Watch.
            watched: True where it tells the session's present state (Watch, OpenSession): it ends HOLD, and a pause
                told again is acknowledged again. False for an answer at the gate, which may be older than Watch.
        Returns:
            Whether the run state changed, and the acknowledgements to send.
        """
        with self._changed:
            standing = self._standings.get(state.session_id)
            if standing is None:
                return False, self._acknowledge_unknown(state) if watched else []
            if not self._believes(standing, state):
                return False, []
            changed = (state.epoch, state.state) != (standing.epoch, standing.state)
            was_held = standing.held
            standing.epoch, standing.state, standing.pause_id = state.epoch, state.state, state.pause_id
            woken = changed
            if watched:
                woken |= not standing.fresh
                standing.fresh = True
            acknowledgements: list[pb.AcknowledgeRequest] = []
            if standing.held and (changed or watched):
                acknowledgements = self._acknowledge_pause(state.session_id, standing)
            elif was_held and changed:
                acknowledgements = [self._acknowledge(state.session_id, standing, pb.OBSERVED_RUNNING)]
            if woken:
                self._wake()
        if woken:
            self._tell()
        return changed, acknowledgements

    def renew(self, now: float, lease_ms: int = 0) -> bool:
        """The sidecar is alive. Returns False when the lease had already run out: all sessions are in HOLD then."""
        with self._changed:
            if lease_ms:
                low, high = LEASE_BOUNDS_S
                self._lease_s = min(high, max(low, lease_ms / 1000))
            in_time = now <= self._alive_until
            self._alive_until = now + self._lease_s
        if not in_time:
            self.lose(now, until=now + self._lease_s)
        return in_time

    def lose(self, now: float, *, until: float = float("-inf")) -> None:
        """The stream is gone or the lease ran out: every session is in HOLD until its state is told again."""
        with self._changed:
            self._alive_until = until
            for standing in self._standings.values():
                standing.fresh = False
            self._wake()
        self._tell()

    # ------------------------------------------------------------ acts

    def posture(self, session_id: str, now: float) -> Posture:
        """How a session stands now; HOLD where its lease has run out, even if nobody has noticed yet."""
        with self._changed:
            standing = self._standings.get(session_id)
            if standing is None:
                return Posture("hold", 0, "", self.version)
            return Posture(self._condition(standing, now), standing.epoch, standing.pause_id, self.version)

    def begin(self, session_id: str, call_id: str, epoch: int | None) -> bool:
        """The last look before an act runs, and its entry among the acts in flight, as one.

        Args:
            epoch: The epoch that the permission was given in; None where it named none.
        Returns:
            False where the session is held meanwhile, or the permission is older than its present epoch.
        """
        with self._changed:
            standing = self._standings.get(session_id)
            if standing is None or standing.held or (epoch is not None and epoch < standing.epoch):
                return False
            standing.in_flight[call_id] = standing.in_flight.get(call_id, 0) + 1
            return True

    def end(self, session_id: str, call_id: str) -> list[pb.AcknowledgeRequest]:
        """An act is over. Returns the acknowledgements to send: QUIESCED with the last one of a paused session."""
        with self._changed:
            standing = self._standings.get(session_id)
            if standing is None:
                return []
            count = standing.in_flight.pop(call_id, 1) - 1
            if count > 0:
                standing.in_flight[call_id] = count
            if standing.held and not standing.in_flight:
                return [self._acknowledge(session_id, standing, pb.OBSERVED_QUIESCED)]
            return []

    # ------------------------------------------------------------ for the driver

    @property
    def lease_s(self) -> float:
        """The lease in force, seconds."""
        return self._lease_s

    def stale(self) -> list[str]:
        """Open sessions whose present state has not been told."""
        with self._changed:
            return [name for name, standing in self._standings.items() if standing.opened and not standing.fresh]

    def known(self) -> list[pb.SessionState]:
        """Open sessions as `SessionState`s, for the first message of a Watch stream."""
        with self._changed:
            return [
                pb.SessionState(session_id=name, state=s.state, epoch=s.epoch, pause_id=s.pause_id)
                for name, s in self._standings.items()
                if s.opened
            ]

    def wait(self, version: int, timeout_s: float) -> None:
        """Blocks until something changed since `version`."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, timeout_s)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener`, from any thread, at each change; returns how to stop that."""
        key = id(listener)
        with self._changed:
            self._listeners[key] = listener

        def stop() -> None:
            with self._changed:
                self._listeners.pop(key, None)

        return stop

    # ------------------------------------------------------------ within the lock

    def _believes(self, standing: _Standing, state: pb.SessionState) -> bool:
        if state.state == pb.RUN_STATE_UNSPECIFIED or state.epoch < standing.epoch:
            return False
        if state.epoch == standing.epoch or standing.state == pb.RUN_STATE_TERMINATED:
            return _tightness(state.state) >= _tightness(standing.state)
        return True

    def _condition(self, standing: _Standing, now: float) -> Condition:
        if standing.state == pb.RUN_STATE_TERMINATED:
            return "terminated"
        if standing.held:
            return "paused"
        return "running" if standing.fresh and now <= self._alive_until else "hold"

    def _acknowledge_pause(self, session_id: str, standing: _Standing) -> list[pb.AcknowledgeRequest]:
        acknowledged = [self._acknowledge(session_id, standing, pb.OBSERVED_ACKNOWLEDGED)]
        if not standing.in_flight:
            acknowledged.append(self._acknowledge(session_id, standing, pb.OBSERVED_QUIESCED))
        return acknowledged

    def _acknowledge(self, session_id: str, standing: _Standing, observed: pb.Observed) -> pb.AcknowledgeRequest:
        return _acknowledgement(session_id, standing.epoch, observed, standing.in_flight)

    def _acknowledge_unknown(self, state: pb.SessionState) -> list[pb.AcknowledgeRequest]:
        """A session that this process does not run (any more): nothing of it is in flight here."""
        if _tightness(state.state) < _PAUSED:
            return []
        return [
            _acknowledgement(state.session_id, state.epoch, observed, ())
            for observed in (pb.OBSERVED_ACKNOWLEDGED, pb.OBSERVED_QUIESCED)
        ]

    def _wake(self) -> None:
        self.version += 1
        self._changed.notify_all()

    def _tell(self) -> None:
        for listener in list(self._listeners.values()):
            listener()


def _tightness(state: pb.RunState) -> int:
    return _TIGHTNESS.get(state, _PAUSED)


def _acknowledgement(
    session_id: str, epoch: int, observed: pb.Observed, in_flight: Iterable[str]
) -> pb.AcknowledgeRequest:
    return pb.AcknowledgeRequest(session_id=session_id, epoch=epoch, observed=observed, in_flight=in_flight)
