"""Plays detectors' examples through the real reader, engine and weaver: for tests and for the reference page."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from sidecar.assembly import pipeline
from sidecar.core.engine import LEARN_DELAY_NS
from sidecar.core.events import Agent, Event, Message, Reasoning, SessionKey, ToolCall
from sidecar.core.examples import Example, Step
from sidecar.core.findings import Finding
from sidecar.core.organisation import Organisation
from sidecar.core.sessions import Session
from sidecar.core.snapshot import Snapshots, restore
from sidecar.core.text.scan import PatternSet
from sidecar.core.triage.policy import PolicyDocument

START_NS = 1_800_000_000 * 10**9
AGENT = Agent("local", "example", "example")
SPEAKER = {"user": ("inbound", "user"), "system": ("inbound", "system"), "answer": ("outbound", "assistant")}


class Stage:
    """One detector alone, on sessions of one agent."""

    def __init__(self, detector: type[Any], patterns: PatternSet, *, own_domains: tuple[str, ...] = ()) -> None:
        self._detector, self._patterns, self._own = detector, patterns, own_domains
        self.core = pipeline(
            PolicyDocument(modes={detector.name: "shadow"}),
            detectors=(detector,),
            pattern_set=patterns,
            organisation=Organisation(own_domains),
        )
        self._now_ns, self._count = START_NS, 0
        self._last: dict[str, ToolCall] = {}

    def play_before(self, example: Example, session: str | None = None) -> list[Finding]:
        """Plays what happened before an example's last step; its findings."""
        found: list[Finding] = []
        for turn in range(example.repeat):
            for step in example.after:
                name = session or (f"{step.session}{turn}" if example.learn else step.session)
                found += self.play(replace(step, session=name))
        if example.learn:
            self._now_ns += 2 * LEARN_DELAY_NS
            self.core.engine.learn(self._now_ns, self.core.sessions.get)
        return found

    def play(self, step: Step) -> list[Finding]:
        """Plays one step; its findings."""
        self._now_ns += int(step.after_s * 1e9)
        session = self.core.sessions.open(SessionKey("local", step.session), self._now_ns)
        session.agent = AGENT
        event = self._event(step, session)
        return self.core.engine.step(session, event, self._now_ns).findings

    def merge(self, old: str, new: str) -> None:
        """The session `old` turns out to be `new`."""
        self.core.sessions.rename(SessionKey("local", old), SessionKey("local", new), self._now_ns)

    def thawed(self) -> Stage:
        """The same stage after its state has been written down and read again."""
        snapshots = Snapshots(self.core)
        for session in self.core.sessions:
            self.core.sessions.touched(session)
        for agent in self.core.engine.agents.values():
            self.core.engine.touched(agent)
        snapshots.begin()
        while snapshots.step():
            pass
        twin = Stage(self._detector, self._patterns, own_domains=self._own)
        refused = restore(twin.core, snapshots.take()[0])
        if refused:
            raise ValueError(f"its own snapshot is refused: {refused}")
        twin._now_ns, twin._count, twin._last = self._now_ns, self._count, self._last
        return twin

    def _event(self, step: Step, session: Session) -> Event:
        self._count += 1
        reader = self.core.reader
        common: dict[str, Any] = {
            "event_id": f"{self._count:032x}", "session": session.key, "agent": AGENT, "at_ns": self._now_ns,
            "spans": (f"{'0' * 32}:{self._count:016x}",),
        }  # fmt: skip
        if step.say == "act":
            reading = reader.arguments(session, step.tool, "", step.arguments)
            event = ToolCall(phase="started", tool=step.tool, arguments=step.arguments, reading=reading, **common)
            self._last[step.session] = event
            return event
        if step.say == "result":
            act = self._last[step.session]
            reading = reader.text(session, "result", step.text, "tool")
            return replace(act, phase="ended", result=step.text, arguments=None, reading=reading, at_ns=self._now_ns)
        if step.say == "reasoning":
            return Reasoning(text=step.text, reading=reader.text(session, "text", step.text, "assistant"), **common)
        direction, role = SPEAKER[step.say]
        reading = reader.text(session, "text", step.text, role)
        return Message(direction=direction, role=role, text=step.text, reading=reading, **common)  # type: ignore[arg-type]
