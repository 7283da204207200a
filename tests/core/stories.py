"""Stories for whole pipelines: what the detectors' own examples say, told by spans and at the gate, mixed at random.

A story is a list of steps; `play` plays one step on a pipeline. The same story is the same however often it is told.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sidecar.assembly import patterns, pipeline
from sidecar.core.commands import Cause, Resume
from sidecar.core.detectors import SHIPPED
from sidecar.core.events import Agent, SessionKey
from sidecar.core.examples import Example
from sidecar.core.organisation import Organisation
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.span import LOCAL, Record, Span
from sidecar.core.text.scan import PatternSet
from sidecar.core.triage.policy import PolicyDocument
from sidecar.core.weave import Asked
from sidecar.errors import ControlError
from tests.core import kit
from tests.core.kit import at

EXAMPLES: tuple[Example, ...] = tuple(example for detector in SHIPPED for example in detector.examples)
AGENT = Agent("local", "", "clerk")


class Step(Struct, frozen=True):
    """One thing that reaches a pipeline, `seconds` after the story began.

    Attributes:
        do: ``feed`` (a span), ``ask`` (the gate), ``tick``, ``pause``, ``resume`` (naming all that holds it), ``open``.
    """

    do: Literal["feed", "ask", "tick", "pause", "resume", "open"]
    seconds: float
    span: Span | None = None
    session: str = ""
    tool: str = ""
    arguments: Any = None
    call_id: str = ""
    parent: str = ""


@cache
def shared_patterns() -> PatternSet:
    """The shipped patterns, compiled once for all stories."""
    return PatternSet(patterns())


def fresh(posture: str = "enforce") -> Pipeline:
    """A pipeline with everything that is shipped."""
    return pipeline(
        PolicyDocument(posture=posture),  # type: ignore[arg-type]
        pattern_set=shared_patterns(),
        organisation=Organisation(("corp.example",)),
        capacity=1000,
    )


def story(seed: int, *, examples: int = 3, gated: float = 0.4) -> list[Step]:
    """A story of some sessions at once; the same seed is the same story."""
    chance = random.Random(seed)
    clock = itertools.count(1)
    threads = [
        _told(chance.choice(EXAMPLES), f"s{seed}-{number}", chance, gated=chance.random() < gated)
        for number in range(examples)
    ]
    told: list[Step] = []
    while threads:
        thread = chance.choice(threads)
        step = next(thread, None)
        if step is None:
            threads.remove(thread)
            continue
        told.append(replace(step, seconds=float(next(clock))))
        if chance.random() < 0.15:
            told.append(Step("tick", next(clock) + chance.choice((0.0, 0.5))))
        if chance.random() < 0.05:
            told.append(Step(chance.choice(("pause", "resume")), float(next(clock)), session=step.session))
    return [_timed(step) for step in told]


def _timed(step: Step) -> Step:
    if step.span is None:
        return step
    end_ns = at(step.seconds)
    start_ns = end_ns - (step.span.end_ns - step.span.start_ns)
    return replace(step, span=replace(step.span, start_ns=start_ns, end_ns=end_ns))


def _told(example: Example, name: str, chance: random.Random, *, gated: bool) -> Iterator[Step]:
    """An example as telemetry. Some sessions are bound late, and some spans come twice."""
    late = not gated and chance.random() < 0.3
    trace = f"trace {name}"
    last: tuple[str, Any, str] = ("", None, "")
    if gated:
        yield Step("open", 0, session=name)
    for count, part in enumerate((*example.after, example.event), 1):
        word = f"{name} {count}"
        more = {"word": word, "trace": trace, "session": "" if late and count < 3 else name, "agent": "clerk"}
        if part.say == "act":
            last = (part.tool, part.arguments, f"call-{kit.hexed(word, 16)}")
            if gated:
                yield Step("ask", 0, session=name, tool=last[0], arguments=last[1], call_id=last[2])
            else:
                span = kit.tool(last[0], last[1], call_id=last[2], **more)
                yield Step("feed", 0, span=span, session=name)
        elif part.say == "result":
            span = kit.tool(last[0], last[1], part.text, call_id=last[2], **more)
            yield Step("feed", 0, span=span, session=name)
            if chance.random() < 0.2:
                yield Step("feed", 0, span=span, session=name)
        elif part.say == "system":
            yield Step("feed", 0, span=kit.chat([], [], system=[part.text], **more), session=name)
        elif part.say == "user":
            yield Step("feed", 0, span=kit.chat([kit.user(part.text)], [], **more), session=name)
        else:
            said = kit.thought(part.text) if part.say == "reasoning" else part.text
            yield Step("feed", 0, span=kit.chat(None, [kit.assistant(said)], **more), session=name)


def play(core: Pipeline, step: Step) -> Outcome:
    """One step; what came of it."""
    now_ns = at(step.seconds)
    key = SessionKey("local", step.session)
    if step.do == "feed":
        assert step.span is not None
        return core.feed(Record(step.span, LOCAL, now_ns), now_ns)
    if step.do == "ask":
        return core.authorize(Asked(key, step.tool, step.arguments, step.call_id, now_ns, AGENT), now_ns)
    if step.do == "open":
        return core.open_session(key, AGENT, now_ns)
    if step.do == "tick":
        return core.tick(now_ns)
    key = core.sessions.resolve(key)
    run = core.runs.get(key)
    if step.do == "pause":
        return core.pause(key, Cause(f"p{step.seconds}", "operator", "ann", "", now_ns), now_ns)
    if run.desired != "paused":
        return Outcome()
    clears = tuple(finding for cause in run.causes.values() for finding in cause.findings)
    try:
        planned = core.runs.plan_resume(Resume(key, run.pause_id, run.epoch, "ann", "", now_ns, clears))
    except ControlError:
        return Outcome()
    return core.applied(planned, now_ns)


def encoded(outcome: Outcome) -> bytes:
    """All that came of a step, to the byte."""
    return msgspec.json.encode(outcome)
