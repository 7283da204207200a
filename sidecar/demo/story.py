"""The demo from beginning to end: what happened, in an order and a form that can be shown, or tested."""

from __future__ import annotations

import queue
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from sidecar.control.client import Operators
from sidecar.control.v1 import control_pb2 as pb
from sidecar.demo.agents import FLEET, TURNS
from sidecar.demo.post import PostOffice
from sidecar.demo.processes import AgentProcess, SidecarProcess
from sidecar.demo.scenes import scene
from sidecar.errors import ControlError

Gate = Literal["in", "out", "sidecar stopped"]
"""How the agent that turns is gated: as it should be; its tools called directly; asking a sidecar that is not there."""

PATIENCE_S = 120.0
"""The longest wait for anything to happen."""
LOOK_S = 0.05


@dataclass(frozen=True)
class Act:
    """One answer about one act.

    Attributes:
        answer: ``allowed``, ``not asked``, or the name of the refusal.
        judged: False for a system refusal: nobody could judge it.
        ms: From the question, sent with the spans that the session had not exported yet, to the answer.
        span: Its span's id in hexadecimal, "" where it did not run.
    """

    agent: str
    tool: str
    arguments: dict[str, Any]
    answer: str
    at_s: float
    judged: bool = True
    ms: float = 0.0
    words: str = ""
    span: str = ""

    @property
    def ran(self) -> bool:
        """Whether it went ahead."""
        return bool(self.span) or self.answer == "not asked"


@dataclass(frozen=True)
class Evidence:
    """One piece; offsets are characters of the field.

    Attributes:
        span: A span's id in hexadecimal.
        act: The act that the span is of, "" for one that never ran.
    """

    span: str
    field: str
    start: int
    end: int
    excerpt: str
    act: str


@dataclass(frozen=True)
class Ground:
    """One alert that held the session."""

    alert: str
    detector: str
    severity: str
    action: str
    text: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Stop:
    """How an operator finds the session that was stopped."""

    session: str
    state: str
    observed: str
    stressors: tuple[str, ...]
    held_by: tuple[str, ...]
    grounds: tuple[Ground, ...]


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        acts: In the order in which they were told of.
        ends: Agent → why it ended; who has not is not in it.
        refusal: What the agent that turns was answered last, None where that act went ahead.
        stop: None where nothing holds its session, or no sidecar is there to say so.
        since_read_s: From the read that the evidence rests on to the refusal, by the agents' clock.
    """

    gate: Gate
    tone: str
    ready_s: float = 0.0
    acts: list[Act] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    refusal: Act | None = None
    stop: Stop | None = None
    since_read_s: float = 0.0
    delivered: dict[str, int] = field(default_factory=dict)

    def answers(self, *agents: str) -> Counter[str]:
        """How often each answer was given to these agents."""
        return Counter(act.answer for act in self.acts if act.agent in agents)

    @property
    def healthy(self) -> list[str]:
        """The agents that do not turn."""
        return [name for name in FLEET if name != TURNS]

    @property
    def held_wrongly(self) -> list[Act]:
        """Acts of healthy agents that a detector or a person stopped. That nobody answered in time is no judgement."""
        return [act for act in self.acts if act.agent != TURNS and act.judged and not act.ran]

    @property
    def as_expected(self) -> bool:
        """Whether it went as it should for this gate, and all healthy agents finished unhindered."""
        fine = all(self.ends.get(name) == "done" for name in self.healthy) and not self.held_wrongly
        gone = TURNS in self.delivered
        if self.gate == "out":
            return fine and gone
        if self.gate == "in":
            return fine and not gone and self.stop is not None and self.stop.state == "paused"
        return fine and not gone and self.refusal is not None and not self.refusal.judged

    def plain(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | {"as_expected": self.as_expected}


class Demo:
    """The fleet, its sidecar and its mail server; use it within ``with``.

    Args:
        tone: The scene, one of `scenes.tones`.
        pace_s: Between two acts of an agent.
        post: Where mail goes; one of its own where left out.
        tell: Called with each thing that happens: an `Act`, or who has ended, an agent's name or ``the sidecar``.
    """

    def __init__(
        self, tone: str, gate: Gate = "in", *, pace_s: float = 0.2, post: PostOffice | None = None,
        tell: Callable[[Act | str], None] = lambda happened: None,
    ) -> None:  # fmt: skip
        self.scene, self.outcome = scene(tone), Outcome(gate, tone)
        self._pace_s, self._post, self._tell = pace_s, post, tell
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._agents: dict[str, AgentProcess] = {}
        self._spans: dict[str, Act] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-demo-")))
            self.post = stack.enter_context(PostOffice()) if self._post is None else self._post
            self.sidecar = stack.enter_context(SidecarProcess(self.folder))
            self.outcome.ready_s = self.sidecar.ready_s
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        self._stack.close()

    def play(self) -> Outcome:
        """Starts the fleet; comes back when every agent has ended, but for the one that is held.

        Raises:
            ControlError: Nothing happened for `PATIENCE_S`.
        """
        for name in FLEET:
            self._start(name)
        outcome, waits = self.outcome, False
        for told in self._happenings(PATIENCE_S):
            if told["kind"] == "up" and len(outcome.sessions) == len(FLEET):
                self.sidecar.settle()
                for agent in self._agents.values():
                    agent.go()
            elif told["kind"] == "cue":
                waits = True
            elif told["kind"] == "act" and told["agent"] == TURNS:
                outcome.refusal = None if outcome.acts[-1].ran else outcome.acts[-1]
            if waits and all(name in outcome.ends for name in outcome.healthy):
                waits = False
                self.sidecar.stop()
                self._tell("the sidecar")
                self._agents[TURNS].go()
            over = [name for name in FLEET if name in outcome.ends or (name == TURNS and self._is_held())]
            if len(over) == len(FLEET):
                break
        if self._is_held():
            outcome.stop = self._look()
        self._count()
        return outcome

    def follow(self) -> Iterator[Act | str]:
        """What happens from now on, until the agent that was held has ended."""
        for told in self._happenings(None):
            self._count()
            if told["kind"] == "act":
                yield self.outcome.acts[-1]
            elif told["kind"] == "end":
                yield told["agent"]
                return

    # ------------------------------------------------------------ the parts

    def _start(self, name: str) -> None:
        arguments = ["--tone", self.outcome.tone, "--smtp", str(self.post.port), "--pace", str(self._pace_s)]
        if name == TURNS and self.outcome.gate == "out":
            arguments.append("--ungated")
        if name == TURNS and self.outcome.gate == "sidecar stopped":
            arguments += ["--cue", "send_mail", "--tries", "3"]
        where = {"SIDECAR_CONTROL": self.sidecar.at["control"], "SIDECAR_OTLP": self.sidecar.at["otlp"]}
        agent = AgentProcess(name, self.folder, arguments, where, self._told)
        self._stack.callback(agent.stop)
        self._agents[name] = agent

    def _happenings(self, patience_s: float | None) -> Iterator[dict[str, Any]]:
        """What the agents tell, taken down; "gone" ends an agent that did not say why."""
        while True:
            try:
                told = self._told.get(timeout=patience_s)
            except queue.Empty:
                raise ControlError("DEADLINE_EXCEEDED", "nothing happens any more in the demo") from None
            kind, name = told.pop("kind"), told["agent"]
            outcome = self.outcome
            if kind == "up":
                outcome.sessions[name] = told["session"]
            elif kind == "act":
                act = Act(at_s=time.monotonic(), **told)
                outcome.acts.append(act)
                self._spans[act.span] = act
                self._tell(act)
            elif kind == "end" or (kind == "gone" and name not in outcome.ends):
                outcome.ends[name] = told["why"]
                self._tell(name)
            yield {"kind": kind, **told}

    def _is_held(self) -> bool:
        refusal = self.outcome.refusal
        return refusal is not None and refusal.judged and TURNS not in self.outcome.ends

    def _count(self) -> None:
        self.outcome.delivered = dict(self.post.senders())

    # ------------------------------------------------------------ what an operator sees

    def _look(self) -> Stop:
        """The session as the operators' door shows it, once the alerts that hold it are on record.

        Raises:
            ControlError: They do not come within `PATIENCE_S`.
        """
        session, refusal = self.outcome.sessions[TURNS], self.outcome.refusal
        assert refusal is not None
        end_s = time.monotonic() + PATIENCE_S
        with Operators(self.sidecar.operators) as operators:
            while True:
                views = operators.sessions(session_id=session)
                alerts = [alert for alert in operators.alerts(session_id=session) if alert.action in ("pause", "hold")]
                if views and alerts and _has_settled(views[0], refusal):
                    break
                if time.monotonic() > end_s:
                    raise ControlError("DEADLINE_EXCEEDED", "an act was refused, and no alert says why")
                time.sleep(LOOK_S)
            grounds = tuple(self._ground(operators.evidence(alert.fingerprint)) for alert in alerts)
        read = [self._spans[e.span].at_s for ground in grounds for e in ground.evidence if e.span in self._spans]
        self.outcome.since_read_s = refusal.at_s - max(read, default=refusal.at_s)
        view = views[0]
        return Stop(
            session=session,
            state=pb.RunState.Name(view.state).removeprefix("RUN_STATE_").lower(),
            observed=pb.Observed.Name(view.observed).removeprefix("OBSERVED_").lower(),
            stressors=tuple(view.stressors),
            held_by=tuple(f"{cause.by} {cause.actor}: {cause.reason}" for cause in view.causes),
            grounds=grounds,
        )

    def _ground(self, shown: pb.GetEvidenceResponse) -> Ground:
        alert = shown.alert
        evidence = []
        for piece in shown.evidence:
            span = piece.span_id.rpartition(":")[2]
            act = self._spans.get(span)
            about = "" if act is None else self._about(act)
            evidence.append(Evidence(span, piece.field, piece.start, piece.end, piece.excerpt, about))
        return Ground(alert.fingerprint, alert.detector, alert.severity, alert.action, alert.text, tuple(evidence))

    def _about(self, act: Act) -> str:
        if act.tool != "read_mail":
            return act.tool
        mail = self.scene.inbox[act.arguments["number"] - 1]
        return f"{act.tool} of {mail.sender}"


def _has_settled(view: pb.SessionView, refusal: Act) -> bool:
    """Whether the agent has followed the pause; an act that is held leaves its session running."""
    return refusal.answer == "ActHeld" or view.observed in (pb.OBSERVED_QUIESCED, pb.OBSERVED_ACKNOWLEDGED)
