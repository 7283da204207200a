"""Where the time of the pipeline goes: each stage's own time, without that of the stages within it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

POINTS = (
    ("benchmarks.shipped:decode", "decode"),
    ("sidecar.core.semconv:read", "map"),
    ("sidecar.core.weave:Weaver.weave", "weave"),
    ("sidecar.core.weave:Weaver.due", "weave"),
    ("sidecar.core.reader:Reader.arguments", "read"),
    ("sidecar.core.reader:Reader.text", "read"),
    ("sidecar.core.reader:fold", "read: fold"),
    ("sidecar.core.reader:hidden", "read: hidden characters"),
    ("sidecar.core.reader:worthwhile", "read: destinations"),
    ("sidecar.core.reader:codes_in", "read: encoded views"),
    ("sidecar.core.reader:views", "read: encoded views"),
    ("sidecar.core.reader:extract", "read: destinations"),
    ("sidecar.core.text.scan:PatternSet.match", "read: patterns"),
    ("sidecar.core.tools:ToolCatalogue.effect", "read: tool catalogue"),
    ("sidecar.core.engine:Engine.step", "engine"),
    ("sidecar.core.engine:Engine.learn", "engine"),
    ("sidecar.core.features.forest:Forest.score", "forest"),
    ("sidecar.core.features.forest:Forest.learn", "forest"),
    ("sidecar.core.pipeline:Pipeline.feed", "rest: decide, alerts"),
    ("sidecar.core.pipeline:Pipeline.tick", "rest: decide, alerts"),
    ("sidecar.observe.metrics:Metrics.outcome", "rest: metrics"),
)
"""Functions that begin a stage; `detectors` are added from the catalogue."""


class Stages:
    """Own time of each stage in nanoseconds, what measuring itself takes left out."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self._own_ns: dict[str, int] = {}
        self._inner: dict[str, int] = {}
        self._stack: list[list[int]] = [[0]]

    def timed(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """`call`, its time put down to `stage`."""
        clock, stack, calls, own, inner = time.perf_counter_ns, self._stack, self.calls, self._own_ns, self._inner
        calls.setdefault(stage, 0)
        own.setdefault(stage, 0)
        inner.setdefault(stage, 0)

        def measured(*given: Any, **named: Any) -> Any:
            within = [0, 0]
            stack.append(within)
            began = clock()
            try:
                return call(*given, **named)
            finally:
                whole = clock() - began
                stack.pop()
                above = stack[-1]
                above[0] += whole
                if len(above) > 1:
                    above[1] += 1
                calls[stage] += 1
                own[stage] += whole - within[0]
                inner[stage] += within[1]

        return measured

    def clear(self) -> None:
        """Begins anew."""
        for counts in (self.calls, self._own_ns, self._inner):
            counts.update(dict.fromkeys(counts, 0))

    def own_us(self) -> dict[str, float]:
        """Microseconds by stage."""
        inside_ns, outside_ns = _costs()
        return {
            stage: max(0.0, own - self.calls[stage] * inside_ns - self._inner[stage] * outside_ns) / 1000
            for stage, own in self._own_ns.items()
        }


def _costs(rounds: int = 20_000) -> tuple[float, float]:
    """Nanoseconds that measuring one call adds: to the call itself, and to the stage around it."""
    stages = Stages()
    inner = stages.timed(lambda: None, "inner")

    def calls(times: int) -> None:
        for _ in range(times):
            inner()

    def loop(times: int) -> None:
        for _ in range(times):
            pass

    stages.timed(calls, "outer")(rounds)
    stages.timed(loop, "empty")(rounds)
    own = stages._own_ns
    return own["inner"] / rounds, (own["outer"] - own["empty"]) / rounds


@contextmanager
def watched(detectors: tuple[type[Any], ...]) -> Iterator[Stages]:
    """Measures the stages for as long as the block lasts."""
    stages = Stages()
    restore: list[tuple[Any, str, Any]] = []

    def watch(owner: Any, name: str, stage: str) -> None:
        original = owner.__dict__[name]
        restore.append((owner, name, original))
        setattr(owner, name, stages.timed(original, stage))

    try:
        for point, stage in POINTS:
            watch(*_owner(point), stage)
        for detector in detectors:
            for verb in ("observe", "score", "learn"):
                if verb in detector.__dict__:
                    watch(detector, verb, f"detector: {detector.name}")
        yield stages
    finally:
        for owner, name, original in reversed(restore):
            setattr(owner, name, original)


def _owner(point: str) -> tuple[Any, str]:
    module, _, path = point.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    if name not in owner.__dict__:
        raise AttributeError(f"{point} is gone: say in {__name__} what has taken its place")
    return owner, name
