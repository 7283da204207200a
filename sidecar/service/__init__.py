"""The running sidecar: takes what the doors bring to the core, and what the core says to the stores and to the agents.

One event loop owns the core. A pause holds as soon as the core says so; everything else that changes a run state, and
every allow of an irreversible act, is on the disk before anybody is told (design §7). `Service` is made in layers, each
a module: what goes on record, sessions, held acts, commands, the gate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from sidecar.core.events import Agent, SessionKey
from sidecar.core.gaps import Gaps
from sidecar.core.pipeline import Pipeline
from sidecar.core.runstate import Run
from sidecar.core.span import Record, Span, Speaker
from sidecar.service.arrivals import Arrivals
from sidecar.service.gate import Gate, Mint, Question, Verdict
from sidecar.service.recording import Meter, Receipt, Watcher
from sidecar.service.sessions import work_of
from sidecar.sources.losses import RECENT_NS, Loss, Losses
from sidecar.storage import (
    ControlState,
    ControlStore,
    TelemetryStore,
)

log = logging.getLogger("sidecar.service")

HOLD_NS = 15 * 60 * 10**9
LEASE_NS = 3 * 10**9
TOLD_AS = {
    "library": "the agent library is gone without a goodbye",
    "span": "no span has come of an act that is over",
    "clock": "the clock is wrong",
}


class Service(Gate):
    """The core with its stores and its listeners.

    Args:
        clock_ns: Wall clock, Unix nanoseconds.
        owner_of: Agent role → who owns it, "" where the configuration does not say.
        mint: Makes grants.
        hold_ns: How long a held act waits for a person before it is denied.
        fail_open: Tools whose acts agents may run when nobody answers, though they are irreversible.
        losses: Telemetry that was refused or lost at the doors.
        lease_ns: Within which agents' processes let themselves be heard.
        monotonic_ns: A monotonic clock.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        control: ControlStore,
        telemetry: TelemetryStore,
        meter: Meter,
        *,
        clock_ns: Callable[[], int],
        owner_of: Callable[[str], str] = lambda role: "",
        mint: Mint = lambda decision, arguments: None,
        hold_ns: int = HOLD_NS,
        fail_open: frozenset[str] = frozenset(),
        losses: Losses | None = None,
        lease_ns: int = LEASE_NS,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(pipeline, control, telemetry, meter, clock_ns)
        self._owner_of, self._mint, self._hold_ns, self.fail_open = owner_of, mint, hold_ns, fail_open
        self.losses = losses
        self.gaps = Gaps(lease_ns=lease_ns, spans_of=self._spans_of)
        self._monotonic_ns = monotonic_ns
        self.arrivals = Arrivals()
        self.degraded: dict[str, None] = {}
        self.away: dict[str, Speaker] = {}
        self.cold: dict[str, str] = {}
        self.fed = (0, 0)
        self.approvals, self._decided, self._releases, self._works = {}, {}, {}, {}
        self._orders = asyncio.Lock()

    def feed(self, span: Span, speaker: Speaker, arrived_ns: int, position: tuple[int, int]) -> None:
        """Gives one durable span to the core."""
        try:
            outcome = self.pipeline.feed(Record(span, speaker, arrived_ns, position), arrived_ns)
        except Exception:  # ours; what this span tells is missing, and is announced like any that was refused
            if self.losses is not None:
                self.losses.note(speaker, "internal", requests=0, spans=1)
            raise
        finally:
            self.fed = (position[0], position[1] + 1)
        self.settle(outcome)
        self._look_at_clock(span, speaker, arrived_ns)
        self.arrivals.arrived(speaker.realm, span.trace_id, span.span_id)

    def tick(self) -> None:
        """Time has passed; called about once a second."""
        now_ns = self._clock_ns()
        self.settle(self.pipeline.tick(now_ns))
        for approval in [a for a in self.approvals.values() if a.state == "open" and now_ns >= a.deadline_ns]:
            self._close_approval(approval, "expired", "sidecar", "nobody decided in time")
        if self.losses is not None:
            for loss in self.losses.untold():
                self._tell_of(loss, now_ns)
        self._look_for_gaps(now_ns)

    def _spans_of(self, key: SessionKey) -> int:
        session = self.pipeline.sessions.get(key)
        return 0 if session is None else session.span_count

    def _look_for_gaps(self, now_ns: int) -> None:
        """Sessions that are not wholly seen any more: one alert for each identity, and a mark where spans are missing.

        An act that takes long and tells nothing may be just that: its session waits, and nobody is called.
        """
        looked_ns, found = self._monotonic_ns(), dict[str, Counter[str]]()
        for key, reasons in self.gaps.look(looked_ns).items():
            found.setdefault(key.realm, Counter()).update(reason for reason in reasons if reason != "outcome")
            if "span" in reasons:
                self._note_unscored([key], "dropped")
        for realm, counted in found.items():
            if parts := [f"{TOLD_AS[reason]}: {counted[reason]} sessions" for reason in sorted(counted)]:
                text = f"telemetry may be missing ({'; '.join(parts)}); irreversible acts of these sessions wait"
                agent = Agent(realm, name=realm.removeprefix("agent:") if realm.startswith("agent:") else "")
                about = f"gap {looked_ns}"
                self.settle(
                    self.pipeline.announce(
                        "telemetry_dropped", SessionKey(realm, ""), agent, text, now_ns, about=about, score=0.5
                    )
                )

    def _tell_of(self, loss: Loss, now_ns: int) -> None:
        """Telemetry of an identity is missing: one alert that grows, and a mark on its sessions that are under way."""
        realm, amount = loss.speaker.realm, loss.amount
        agent = Agent(realm, name=loss.speaker.agent or "")
        about, score = f"{loss.told_ns}", amount / (amount + 1)
        key = SessionKey(realm, "")
        self.settle(
            self.pipeline.announce("telemetry_dropped", key, agent, loss.text, now_ns, about=about, score=score)
        )
        for name in self.pipeline.sessions.realms():
            if name == realm or loss.concerns(name):
                self._note_unscored(self.pipeline.sessions.latest(name, now_ns - RECENT_NS), "dropped")

    def recall(self, state: ControlState) -> None:
        """Takes back what control.db holds: who is paused stays paused, before anybody is answered."""
        for key, epoch in state.epochs.items():
            self.pipeline.runs.restore(key, Run(epoch=epoch))
        for saved in state.runs:
            run = Run(
                desired=saved.desired,
                epoch=saved.epoch,
                observed=saved.observed if saved.observed != "running" else "requested",
                causes={cause.pause_id: cause for cause in saved.causes},
                pause_id=saved.pause_id,
                in_flight=saved.in_flight,
                requested_ns=saved.at_ns,
            )
            self.pipeline.runs.restore(saved.session, run)
            for task in saved.work:
                self._works[work_of(saved.session, saved.agent, task)] = saved.session
        for scope in state.scopes:
            if scope.desired == "paused" and scope.causes:
                name = "fleet" if scope.kind == "fleet" else f"role:{scope.name}"
                for cause in scope.causes:
                    self.pipeline.restore_scope(name, cause)
        for alert in state.alerts:
            self.pipeline.alerts.restore(alert)
        self.approvals = {approval.decision_id: approval for approval in state.approvals}
        self.pipeline.known_pauses = frozenset(cause.pause_id for saved in state.runs for cause in saved.causes)
        for name in state.unreadable:
            log.warning("control.db: a row could not be read", extra={"row": name})


__all__ = ["Gate", "Meter", "Mint", "Question", "Receipt", "Service", "Verdict", "Watcher"]
