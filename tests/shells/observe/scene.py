"""A real core with real stores and toy detectors, all metrics and a clock that is set: what is counted is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from sidecar.core.commands import Cause
from sidecar.core.events import Agent, Event, SessionKey, ToolCall
from sidecar.core.examples import Example
from sidecar.core.findings import Finding, Severity, finding
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.reading import Effect
from sidecar.core.span import LOCAL, Span
from sidecar.core.text.scan import Pattern
from sidecar.core.triage.policy import Policy, PolicyDocument
from sidecar.core.weave import Asked
from sidecar.observe.health import Health
from sidecar.observe.metrics import Metrics
from sidecar.observe.scrape import Scrape
from sidecar.observe.settings import ObserveSettings
from sidecar.service import Service
from sidecar.storage import ControlStore, StorageSettings, TelemetryStore

START_S = 1_790_000_000
"""When a scene begins: whole minutes, for Prometheus' sake 15 s apart."""
MIB = 2**20


class Toy:
    """What the toy detectors share."""

    family: ClassVar[str] = "leverage"
    severity = Severity.HIGH
    scope = "session"
    mode = "pause"
    sees: ClassVar[tuple[type[Event], ...]] = (ToolCall,)
    patterns: ClassVar[tuple[Pattern, ...]] = ()
    examples: ClassVar[tuple[Example, ...]] = ()


class Marked(Toy):
    """Finds what the act's `mark` says, as grave as it says."""

    name = "marked"

    def score(self, event: Event) -> Finding | None:
        if not isinstance(event, ToolCall) or event.phase != "started" or not isinstance(event.arguments, dict):
            return None
        mark = event.arguments.get("mark")
        if mark is None:
            return None
        return finding(self, event, 0.9, "marked", severity=Severity[str(mark).upper()])


class Broken(Toy):
    """Raises on acts with `break`."""

    name = "broken"

    def score(self, event: Event) -> Finding | None:
        if isinstance(event, ToolCall) and isinstance(event.arguments, dict) and "break" in event.arguments:
            raise RuntimeError("on demand")
        return None


class Habit(Toy):
    """A model that is mature once it has seen three acts."""

    name = "habit"
    family = "behaviour"
    scope = "agent"

    def __init__(self) -> None:
        self._seen = 0

    def observe(self, event: Event) -> None:
        self._seen += 1

    @property
    def is_mature(self) -> bool:
        return self._seen >= 3


class ToyCatalogue:
    """Tools that send are irreversible."""

    def effect(self, tool: str, arguments: Any, description: str = "") -> Effect:
        return Effect(tool=tool, reversible=not tool.startswith("send"), known=True)


class Scene:
    """Everything, on one clock: `now_s` seconds after `START_S`, moved by assignment.

    Attributes:
        rows, age_s: What the inbox is said to hold.
    """

    def __init__(
        self, folder: Path, settings: ObserveSettings | None = None, detectors: Sequence[type[Any]] = ()
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.now_s = 0.0
        self.rows, self.age_s = 0, 0.0
        self.settings = settings or ObserveSettings()
        storage = StorageSettings(data_dir=folder, low_water_bytes=MIB, ballast_bytes=MIB)
        detectors = tuple(detectors) or (Marked, Broken, Habit)
        self.pipeline = Pipeline(
            detectors, Policy(PolicyDocument(), {d.name: d.mode for d in detectors}), ToyCatalogue()
        )
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, self.settings, clock_s=lambda: self.now_s)
        self.control, self.telemetry = ControlStore.open(storage), TelemetryStore.open(storage)
        self.service = Service(self.pipeline, self.control, self.telemetry, self.metrics, clock_ns=self.clock_ns)
        self.service.restoring = False
        self.service.watchers.append(self.metrics)
        self.health = Health(self.service, self.metrics, clock_s=lambda: self.now_s)
        self.scrape = Scrape(
            self.registry,
            self.metrics,
            self.service,
            self.health,
            inbox=lambda: (self.rows, self.age_s),
            data_dir=folder,
            settings=self.settings,
            clock_ns=self.clock_ns,
        )
        self._told = 0

    def clock_ns(self) -> int:
        """The wall clock."""
        return int((START_S + self.now_s) * 1e9)

    async def close(self) -> None:
        await self.control.close()
        await self.telemetry.close()

    # --- what agents do

    def open(self, session: str, role: str, parent: str = "") -> SessionKey:
        """A gated session announces itself."""
        return self.service.open_session(LOCAL, session, Agent(name=role), parent=parent)

    def span(self, session: str, role: str, tool: str, *, late_s: float = 0.0, dropped: int = 0, **more: Any) -> Span:
        """A tool span as telemetry tells it, its act `late_s` before now; `more` are arguments."""
        self._told += 1
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.call.id": f"call-{self._told:012}",
            "gen_ai.conversation.id": session,
            "gen_ai.agent.name": role,
            "gen_ai.tool.call.arguments": dict(more),
        }
        at_ns = self.clock_ns() - int(late_s * 1e9)
        return Span(
            "span", f"{self._told:032x}", f"{self._told:016x}", "", f"execute_tool {tool}", at_ns, at_ns, attributes,
            dropped=dropped,
        )  # fmt: skip

    def tell(self, span: Span) -> Span:
        """A span arrives and is fed at once."""
        self.service.feed(span, LOCAL, self.clock_ns(), (0, self._told))
        return span

    def act(self, session: str, role: str, tool: str, **more: Any) -> Span:
        """An act nobody asked about; see `span`."""
        return self.tell(self.span(session, role, tool, **more))

    def ran_unanswered(self, session: str, role: str) -> None:
        """A reversible act that ran because the gate did not answer."""
        span = self.span(session, role, "read")
        span.attributes["sidecar.ungated"] = True
        self.tell(span)

    def ask(
        self, session: str, role: str, tool: str, *, seconds: float = 0.004, deciding_s: float = 0.0009, **more: Any
    ) -> Outcome:
        """A question at the gate and its answer."""
        self._told += 1
        key = SessionKey("local", session)
        asked = Asked(key, tool, dict(more), f"call-{self._told:012}", self.clock_ns(), Agent(name=role))
        outcome = self.pipeline.authorize(asked, self.clock_ns())
        self.service.settle(outcome)
        decision = outcome.decision
        assert decision is not None
        self.metrics.control.asked(decision.answer, decision.system or decision.ground, seconds)
        self.metrics.decided(deciding_s)
        return outcome

    def pause(self, session: str) -> None:
        """An operator pauses."""
        cause = Cause(f"p-{session}", "operator", "amy", "", self.clock_ns())
        self.service.settle(self.pipeline.pause(SessionKey("local", session), cause, self.clock_ns()))

    def acknowledge(self, session: str, observed: Any = "acknowledged") -> None:
        """The agent's process confirms what holds it."""
        key = SessionKey("local", session)
        self.service.acknowledge(key, self.pipeline.runs.get(key).epoch, observed, ())

    # --- what is seen

    async def page(self, accept: str = "") -> str:
        """What `/metrics` says now."""
        body, _ = await self.scrape.render(accept)
        return body.decode()

    async def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name and of at least those labels, as scraped."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(await self.page())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
