"""Sessions as agents' processes tell of them: opening, following a pause, losing spans, coming back later than us."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sidecar.core.commands import Acknowledge, Cause, Observed
from sidecar.core.digests import event_id, remember
from sidecar.core.events import Agent, SessionKey
from sidecar.core.gaps import Gaps
from sidecar.core.oddities import is_skewed
from sidecar.core.pipeline import Outcome
from sidecar.core.runstate import RUNNING, Run
from sidecar.core.span import Span, Speaker
from sidecar.service.recording import Recording
from sidecar.sources.losses import Losses, concerns

MAX_WORKS = 50_000


class Sessions(Recording):
    """Whom we know, and what their processes say of themselves."""

    losses: Losses | None
    gaps: Gaps
    away: dict[str, Speaker]
    """Sources of telemetry that cannot be reached, by name, and for whom they speak."""
    _monotonic_ns: Callable[[], int]
    _works: dict[str, SessionKey]
    """Work → the latest session that did it."""

    def run_of(self, key: SessionKey) -> Run:
        """A session's run state, by whatever id it is or was known."""
        return self.pipeline.runs.get(self.pipeline.sessions.resolve(key))

    def find(self, session_id: str, realm: str = "") -> list[SessionKey]:
        """Sessions of that id, which several realms may have; those that are only known as held, too."""
        if realm:
            realms = {realm: None}
        else:
            realms = dict.fromkeys(self.pipeline.sessions.realms())
            realms |= dict.fromkeys(key.realm for key, _ in self.pipeline.runs)
        found: dict[SessionKey, None] = {}
        for name in realms:
            key = self.pipeline.sessions.resolve(SessionKey(name, session_id))
            if self.knows(key):
                found[key] = None
        return list(found)

    def knows(self, key: SessionKey) -> bool:
        """Whether there is such a session, or was one that is held or ended."""
        return self.pipeline.sessions.get(key) is not None or self.pipeline.runs.get(key) is not RUNNING

    def open_session(
        self, speaker: Speaker, session_id: str, agent: Agent, *, parent: str = "", task: str = ""
    ) -> SessionKey:
        """A gated session announces itself."""
        key = SessionKey(speaker.realm, session_id)
        parent_key = SessionKey(speaker.realm, parent) if parent else None
        now_ns = self._clock_ns()
        self.settle(self.pipeline.open_session(key, agent, now_ns, parent=parent_key, task=task))
        key = self.pipeline.sessions.resolve(key)
        self._vouch(key, speaker)
        if task:
            self._inherit_work(key, work_of(key, agent, task), now_ns)
        return key

    def _vouch(self, key: SessionKey, speaker: Speaker) -> None:
        """The door knows who runs this session: nobody else may name it (`core.oddities.owner`)."""
        session = self.pipeline.sessions.get(key)
        if session is not None and session.grade == "declared" != speaker.grade:
            self.pipeline.sessions.touched(session)
            session.grade = speaker.grade

    def _inherit_work(self, key: SessionKey, work: str, now_ns: int) -> None:
        """A pause sticks to the work: a new session with a paused one's task starts held, as its successor."""
        before = self._works.get(work)
        if before is None or before == key or self.pipeline.runs.get(before).desired != "paused":
            remember(self._works, work, key, MAX_WORKS)
            return
        cause = Cause(
            pause_id=event_id(key.realm, "successor", key.id, before.id),
            by="successor",
            actor=before.id,
            reason="the same work as a session that is paused",
            at_ns=now_ns,
        )
        if self.pipeline.runs.get(key).desired == "running":
            self.settle(self.pipeline.pause(key, cause, now_ns))

    def acknowledge(self, key: SessionKey, epoch: int, observed: Observed, in_flight: Sequence[str]) -> None:
        """An agent's process says how far it has followed."""
        now_ns = self._clock_ns()
        key = self.pipeline.sessions.resolve(key)
        command = Acknowledge(key, epoch, observed, now_ns, tuple(in_flight[:64]))
        requested_ns = self.pipeline.runs.get(key).requested_ns
        before = self.pipeline.runs.get(key).observed
        transition = self.pipeline.runs.acknowledge(command)
        if transition is None:
            return
        if before in ("requested", "unconfirmed", "unenforced") and requested_ns:
            self._meter.confirmed((now_ns - requested_ns) / 1e9)
        self.settle(Outcome(transitions=[transition]))

    def believe(self, key: SessionKey, epoch: int) -> None:
        """An agent's process knows a later state of its session than we do: it is held until a person has looked."""
        now_ns = self._clock_ns()
        key = self.pipeline.sessions.resolve(key)
        if self.pipeline.runs.get(key).desired == "terminated":
            return
        cause = Cause(
            pause_id=event_id(key.realm, "lost", key.id, str(epoch)),
            by="policy",
            actor="sidecar",
            reason="the agent knows a later state of this session than the sidecar does",
            at_ns=now_ns,
        )
        self.pipeline.runs.outrun(key, epoch)
        self.settle(self.pipeline.pause(key, cause, now_ns))

    # ------------------------------------------------------------ whether they are wholly seen

    def heard(self, realm: str, library: str) -> None:
        """A process with the agent library has said something."""
        self.gaps.heard(realm, library, self._monotonic_ns())

    def attended(self, key: SessionKey, library: str) -> None:
        """A process with the agent library runs a session."""
        self.gaps.attended(self.pipeline.sessions.resolve(key), library)

    def left(self, realm: str, library: str) -> None:
        """A process with the agent library has said goodbye."""
        self.gaps.left(realm, library)

    def ended(self, key: SessionKey, call_id: str) -> None:
        """An act is over; its span is to come."""
        self.gaps.ended(self.pipeline.sessions.resolve(key), call_id, self._monotonic_ns())

    def _look_at_clock(self, span: Span, speaker: Speaker, arrived_ns: int) -> None:
        wrong = is_skewed(span, arrived_ns)
        if wrong or self.gaps.minds_clock:
            bindings, realm = self.pipeline.weaver.bindings, speaker.realm
            trace = bindings.traces.get((realm, span.trace_id))
            key = bindings.claim_of(realm, span) or (None if trace is None else trace.session)
            if key is not None:
                key = self.pipeline.sessions.resolve(key)
                self.gaps.dated(key, self._monotonic_ns(), is_skewed=wrong)

    def is_degraded(self, key: SessionKey) -> bool:
        """Whether telemetry of a session is missing, so that nothing irreversible may be allowed in it now."""
        if self.losses is not None and self.losses.is_recent(key.realm):
            return True
        if self.away:
            session = self.pipeline.sessions.get(key)
            of_others = session is not None and session.grade != "authenticated"  # it may have come that way
            if of_others and any(concerns(speaker, key.realm) for speaker in self.away.values()):
                return True
        return bool(self.gaps.reasons(self.pipeline.sessions.resolve(key), self._monotonic_ns()))

    def settle(self, outcome: Outcome) -> None:
        for old, new in outcome.renamed:
            self.gaps.renamed(old, new)
        super().settle(outcome)

    def spans_dropped(self, speaker: Speaker, keys: Iterable[SessionKey], spans: int) -> None:
        """The process that runs these sessions has lost spans of them."""
        self._note_unscored(keys, "dropped")
        if self.losses is not None:
            self.losses.note(speaker, "dropped_by_agent", requests=0, spans=spans)

    def _note_unscored(self, keys: Iterable[SessionKey], reason: str) -> None:
        for key in keys:
            if (session := self.pipeline.sessions.get(key)) is not None:
                self.pipeline.sessions.touched(session)
                session.note_unscored((reason,))


def work_of(key: SessionKey, agent: Agent, task: str) -> str:
    """Names a piece of work: who does it, and what its sender calls it."""
    return f"{key.realm}\0{agent.role}\0{task}"
