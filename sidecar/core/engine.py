"""Runs the detectors: owns their state, order, learning and failures, so that a detector is only its idea.

For each event every detector that wants to see it observes, then scores; what is cleared is learned later. A detector
that raises is counted and, after repeats, switched off; its silence is `unscored: detector_failed`, never "nothing
found".
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from msgspec import Struct, field
from msgspec.structs import replace

from sidecar.core.events import NO_AGENT, Agent, Event, Lifecycle, Message, ModelCall, Reasoning, SessionKey, ToolCall
from sidecar.core.examples import Example
from sidecar.core.findings import Family, Finding, Severity
from sidecar.core.reading import Effect, Reading
from sidecar.core.sessions import Session
from sidecar.core.text.scan import Pattern
from sidecar.errors import DetectorError

Mode = Literal["shadow", "alert", "hold", "pause"]
MODES: tuple[Mode, ...] = ("shadow", "alert", "hold", "pause")
EVENT_TYPES: tuple[type[Event], ...] = (ToolCall, Message, Reasoning, ModelCall, Lifecycle)

MAX_FAILURES = 3
"""A detector that fails so often, without a success between, is switched off until the policy is loaded again."""
LEARN_DELAY_NS = 300 * 10**9
"""An event is learned at the earliest this long after it came, so that an alert can still reach its session."""
LEARN_QUOTA = 100
"""Events of one session that any baseline learns, an act being one; one long session must not own its agent's normal.
"""
MAX_PENDING = 4096
MAX_AGENTS = 2000
MAX_TOOLS = 256
"""Names of tools that a role may use before the names themselves are suspect (`AgentState.churns`)."""


@runtime_checkable
class Detector(Protocol):
    """One idea about events. All verbs are optional; what is missing is not called.

    Attributes:
        scope: Whether there is one instance a session or one an agent role.
        sees: Types of event it wants; nothing else is given to it.
        mode: How far policy may go because of it, as shipped.
        patterns: Patterns it wants matched on every text; hits are in `event.reading`.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    severity: ClassVar[Severity]
    scope: ClassVar[Literal["session", "agent"]]
    mode: ClassVar[Mode]
    sees: ClassVar[tuple[type[Event], ...]]
    patterns: ClassVar[tuple[Pattern, ...]]
    examples: ClassVar[tuple[Example, ...]]

    def observe(self, event: Event) -> None:
        """Takes in facts; always, once per event, flagged or not."""

    def score(self, event: Event) -> Finding | None:
        """Judges; changes nothing."""

    def learn(self, event: Event) -> None:
        """Moves a baseline; only events that are cleared, without their texts (see `lean`), an act as it began."""

    def dump(self) -> Any:
        """State as plain data: dicts, lists, numbers, texts, bytes."""

    def load(self, state: Any) -> None:
        """Takes back what `dump` gave."""

    def absorb(self, other: Any) -> None:
        """Takes over the state of a session that turned out to be this one; only with scope `session`."""


class AgentState(Struct):
    """What is kept of one agent role: its detectors' instances and the events that wait to be learned."""

    agent: Agent
    states: dict[str, Any] = {}
    pending: deque[tuple[int, SessionKey, Event]] = field(default_factory=deque)
    events: int = 0
    learned: int = 0
    versions: dict[str, None] = {}
    tools: dict[str, None] = {}

    def churns(self, tool: str) -> bool:
        """Whether `tool` is the one name too many; true once."""
        tools = self.tools
        if tool in tools or len(tools) > MAX_TOOLS:
            return False
        tools[tool[:128]] = None
        return len(tools) > MAX_TOOLS


class Judgement(Struct):
    """What the detectors said of one event; `failed` names those that could not."""

    findings: list[Finding]
    failed: tuple[str, ...] = ()
    churns: bool = False


class _Plan(Struct):
    """One detector, prepared: which verbs it has, and how an instance is made."""

    name: str
    make: Callable[[], Any]
    sees: tuple[type[Event], ...]
    by_session: bool
    observes: bool
    scores: bool
    learns: bool


class Engine:
    """All detectors over all sessions.

    Args:
        detectors: Classes, in order of running.
        options: Detector name → keyword arguments of its constructor.
        touched: Called before an agent's state may change.
        services: What a detector's constructor may ask for by parameter name: ``find`` (pattern name, folded text →
            character spans) and ``sign`` (text → keyed hash in hexadecimal).
        is_held: Whether a session is paused; such a session teaches nothing.
    """

    def __init__(
        self,
        detectors: Sequence[type[Any]],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        services: Mapping[str, Any] | None = None,
        is_held: Callable[[SessionKey], bool] = lambda key: False,
    ) -> None:
        self.detectors = tuple(detectors)
        self._is_held = is_held
        self._failures: dict[str, int] = {}
        self.off: dict[str, None] = {}
        self.failures: dict[str, int] = {}
        self.agents: dict[tuple[str, str], AgentState] = {}
        self.touched: Callable[[AgentState], None] = lambda agent: None
        self.gone: Callable[[tuple[str, str]], None] = lambda key: None
        self._roles: dict[str, int] = {}
        plans = [
            self._plan(detector, _wanted(detector, services or {}) | dict((options or {}).get(detector.name, {})))
            for detector in self.detectors
        ]
        self._plans = {plan.name: plan for plan in plans}
        self._by_type = {kind: tuple(plan for plan in plans if kind in plan.sees) for kind in EVENT_TYPES}
        self._learners = {kind: tuple(p for p in those if p.learns) for kind, those in self._by_type.items()}

    @staticmethod
    def _plan(detector: type[Any], options: dict[str, Any]) -> _Plan:
        return _Plan(
            name=detector.name,
            make=lambda: detector(**options),
            sees=detector.sees,
            by_session=detector.scope == "session",
            observes=hasattr(detector, "observe"),
            scores=hasattr(detector, "score"),
            learns=hasattr(detector, "learn"),
        )

    def step(self, session: Session, event: Event, now_ns: int, *, again: bool = False) -> Judgement:
        """Has all detectors observe and score one event, and keeps it for learning.

        Args:
            again: It has been judged before. It is observed again, since detectors work out there what they score, but
                neither counted nor learned twice.
        """
        agent = self.agent(event.agent)
        self.touched(agent)
        agent.events += not again
        findings: list[Finding] = []
        failed: tuple[str, ...] = ()
        learnable = False
        for plan in self._by_type[type(event)]:
            if plan.name in self.off:
                failed += (plan.name,)
                continue
            states = session.states if plan.by_session else agent.states
            try:
                instance = states.get(plan.name)
                if instance is None:
                    instance = states[plan.name] = plan.make()
                if plan.observes:
                    instance.observe(event)
                if plan.scores and (found := instance.score(event)) is not None:
                    findings.append(_sound(found))
            except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
                raise
            except BaseException:  # extension modules panic with BaseException (reliability.md M2)
                failed += (plan.name,)
                self._failed(plan.name)
            else:
                learnable |= plan.learns
                if self._failures:
                    self._failures.pop(plan.name, None)
        if learnable and not again and not (isinstance(event, ToolCall) and event.phase == "ended"):
            agent.pending.append((now_ns + LEARN_DELAY_NS, session.key, lean(event)))
            if len(agent.pending) > MAX_PENDING:
                agent.pending.popleft()
        return Judgement(findings, failed, isinstance(event, ToolCall) and agent.churns(event.tool))

    def learn(self, now_ns: int, sessions: Callable[[SessionKey], Session | None]) -> int:
        """Gives what has waited long enough and is cleared to the baselines; returns how many events were learned.

        Never learned: events of sessions that raised an alert, are held, or spoke of being tested; what exceeds the
        session's quota; what belongs to a session that is not known any more.
        """
        count = 0
        for agent in self.agents.values():
            pending = agent.pending
            if pending and pending[0][0] <= now_ns:
                self.touched(agent)
            while pending and pending[0][0] <= now_ns:
                _, key, event = pending.popleft()
                session = sessions(key)
                if session is None or session.flagged or session.aware or self._is_held(session.key):
                    continue
                if session.learned >= LEARN_QUOTA:
                    continue
                session.learned += 1
                agent.learned += 1
                count += 1
                for plan in self._learners[type(event)]:
                    if plan.name in self.off:
                        continue
                    states = session.states if plan.by_session else agent.states
                    try:
                        if (instance := states.get(plan.name)) is None:
                            instance = states[plan.name] = plan.make()
                        instance.learn(event)
                    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
                        raise
                    except BaseException:
                        self._failed(plan.name)
        return count

    def agent(self, agent: Agent) -> AgentState:
        """State of the role that `agent` plays; beyond `MAX_AGENTS` the realm that has most loses its quietest."""
        key = (agent.realm, agent.role)
        state = self.agents.pop(key, None)
        if state is None:
            if len(self.agents) >= MAX_AGENTS:
                self._forget_one()
            state = AgentState(agent)
            self._roles[agent.realm] = self._roles.get(agent.realm, 0) + 1
        self.agents[key] = state
        if agent.version and agent.version not in state.versions and len(state.versions) < 64:
            state.versions[agent.version] = None
        return state

    def put(self, key: tuple[str, str], state: AgentState) -> None:
        """Restores a role from a snapshot."""
        self._roles[key[0]] = self._roles.get(key[0], 0) + (key not in self.agents)
        self.agents[key] = state

    def _forget_one(self) -> None:
        """Names of roles come from telemetry: whoever invents many must not make the others' baselines go."""
        largest = max(self._roles, key=self._roles.__getitem__)
        key = next(key for key in self.agents if key[0] == largest)
        del self.agents[key]
        self._roles[largest] -= 1
        if not self._roles[largest]:
            del self._roles[largest]
        self.gone(key)

    def absorb(self, states: dict[str, Any], others: Mapping[str, Any]) -> None:
        """Joins detectors' states of two sessions that turned out to be one; the first keeps what cannot be joined."""
        for name, other in others.items():
            mine = states.setdefault(name, other)
            if mine is other or not hasattr(mine, "absorb"):
                continue
            try:
                mine.absorb(other)
            except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
                raise
            except BaseException:
                self._failed(name)

    def revive(self, dumps: Mapping[str, Any], *, by_session: bool) -> dict[str, Any]:
        """Detectors' instances from what their `dump` gave; what is not registered any more is left out.

        Raises:
            Exception: Whatever a detector's `load` raises on a dump it cannot use.
        """
        states = {}
        for name, dump in dumps.items():
            plan = self._plans.get(name)
            if plan is not None and plan.by_session == by_session:
                states[name] = plan.make()
                states[name].load(dump)
        return states

    def switch_off(self, name: str) -> None:
        """Takes a detector out of service (a slow one, by a recorded command)."""
        self.off[name] = None

    def maturity(self) -> dict[tuple[str, str], dict[str, str]]:
        """(realm, role) → detector → ``learning`` or ``active``, for detectors that have such a thing."""
        return {
            key: {
                name: "active" if instance.is_mature else "learning"
                for name, instance in state.states.items()
                if hasattr(instance, "is_mature")
            }
            for key, state in self.agents.items()
        }

    def _failed(self, name: str) -> None:
        self.failures[name] = self.failures.get(name, 0) + 1
        self._failures[name] = self._failures.get(name, 0) + 1
        if self._failures[name] >= MAX_FAILURES:
            self.off[name] = None


def _sound(found: Any) -> Finding:
    if not isinstance(found, Finding) or not 0.0 <= found.score <= 1.0:
        raise DetectorError("what it says is no finding with a score within 0..1")
    return found


def _wanted(detector: type[Any], services: Mapping[str, Any]) -> dict[str, Any]:
    asked = inspect.signature(detector).parameters
    return {name: service for name, service in services.items() if name in asked}


def lean(event: Event) -> Event:
    """The event without its texts: what a baseline may learn from costs little memory while it waits."""
    reading = event.reading
    if reading.hits or reading.destinations:
        slim = Reading(effect=reading.effect, hits=reading.hits, destinations=reading.destinations)
    else:
        slim = _only(reading.effect)
    if isinstance(event, ToolCall):
        return replace(event, reading=slim, arguments=None, result=None, spans=())
    if isinstance(event, Message | Reasoning):
        return replace(event, reading=slim, text=None, spans=())
    return event


@lru_cache(maxsize=1024)
def _only(effect: Effect) -> Reading:
    """One reading for all waiting events that did this and held nothing else of note."""
    return Reading(effect=effect)


def all_patterns(detectors: Iterable[type[Any]]) -> tuple[Pattern, ...]:
    """Patterns of all detectors, for one scan of each text; the same pattern may be wanted twice."""
    found: dict[str, Pattern] = {}
    for detector in detectors:
        for pattern in getattr(detector, "patterns", ()):
            if found.setdefault(pattern.name, pattern) != pattern:
                raise ValueError(f"two patterns are called {pattern.name}")
    return tuple(found.values())


__all__ = ["NO_AGENT", "AgentState", "Detector", "Engine", "Judgement", "Mode", "all_patterns", "lean"]
