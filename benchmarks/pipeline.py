"""The pipeline against the idiomatic reference: microseconds of one core a span, on the same 10,000 spans.

Both run in processes of their own, so that neither's garbage is the other's, pinned to one core; they take turns of
1,000 spans, so that whatever else the machine does meets both. A round is the whole mix; the figure is the median of
the rounds' ratios. Each round both must have come to the same findings and decisions.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol, Self

import msgspec

from benchmarks import mix, stages
from benchmarks.report import Figure, number
from sidecar.core.detectors import SHIPPED
from sidecar.core.pipeline import Outcome

ROUNDS, TURN = 10, 10
"""Rounds of the mix, and requests between two changes of side."""


class Side(Protocol):
    """What is measured."""

    def take(self, body: bytes, now_ns: int) -> list[Outcome]: ...


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """The ratio, and what a span costs by stages."""
    rounds = 3 if quick else ROUNDS
    with Players() as players:
        ratios, spent = [], {"shipped": [], "reference": []}  # type: ignore[var-annotated]
        for turn in range(1, rounds + 1):
            took = players.play(turn)
            for side, spent_us in took.items():
                spent[side].append(spent_us)
            ratios.append(took["reference"] / took["shipped"])
        shipped, slow = (statistics.median(spent[side]) for side in ("shipped", "reference"))
        yield Figure(
            name="pipeline against the idiomatic reference, per core",
            value=statistics.median(ratios), unit="x", target=10.0, at_least=True,
            beside=f"{number(shipped)} against {number(slow)} µs a span, {number(1e6 / shipped)} spans/s a core; "
                   f"{rounds} rounds, {min(ratios):.2f} to {max(ratios):.2f}; {players.found}",
        )  # fmt: skip
        parts = players.stages(rounds + 1)
    whole = sum(parts.values())
    for stage, spent_us in sorted(parts.items(), key=lambda part: -part[1]):
        yield Figure(name=f"  {stage}", value=spent_us / whole, unit="of a span", beside=f"{number(spent_us)} µs")


class Players:
    """Both sides, each in a process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        core = max(os.sched_getaffinity(0))
        self._pipes: dict[str, Connection] = {}
        self._processes = []
        self.found = ""
        for side in ("shipped", "reference"):
            ours, theirs = context.Pipe()
            process = context.Process(target=_play, args=(theirs, side, core), daemon=True)
            process.start()
            self._pipes[side] = ours
            self._processes.append(process)
        for pipe in self._pipes.values():
            pipe.recv()  # knows its agents

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in self._pipes.values():
            pipe.send(None)
        for process in self._processes:
            process.join(10)

    def play(self, turn: int) -> dict[str, float]:
        """One round; microseconds of processor time a span, by side."""
        spent = dict.fromkeys(self._pipes, 0)
        requests = mix.SPANS // mix.BATCH
        for first in range(0, requests, TURN):
            order = list(self._pipes) if first // TURN % 2 else list(self._pipes)[::-1]
            for side in order:
                spent[side] += self._ask(side, ("take", turn, first, first + TURN))
        ends = {side: self._ask(side, ("end", turn)) for side in self._pipes}
        if len({digest for digest, _ in ends.values()}) != 1:
            raise SystemExit(f"round {turn}: the reference did not find and decide what the pipeline did: {ends}")
        self.found = ends["shipped"][1]
        return {side: took / 1000 / mix.SPANS for side, took in spent.items()}

    def stages(self, turn: int) -> dict[str, float]:
        """Microseconds a span by stage of the pipeline, of one that is made for it."""
        return self._ask("shipped", ("stages", turn))  # type: ignore[no-any-return]

    def _ask(self, side: str, what: tuple[Any, ...]) -> Any:
        self._pipes[side].send(what)
        return self._pipes[side].recv()


def _play(pipe: Connection, which: str, core: int) -> None:
    os.sched_setaffinity(0, {core})
    side = _warm(which)
    pipe.send("ready")
    turn, bodies = 0, []
    outcomes: list[Outcome] = []
    while (asked := pipe.recv()) is not None:
        if asked[0] == "take":
            if turn != asked[1]:
                turn, bodies, outcomes = asked[1], _bodies(asked[1]), []
                gc.collect()
                gc.freeze()
            began_ns = time.process_time_ns()
            for body, now_ns in bodies[asked[2] : asked[3]]:
                outcomes.extend(side.take(body, now_ns))
            pipe.send(time.process_time_ns() - began_ns)
        elif asked[0] == "end":
            pipe.send(_told(outcomes))
        else:
            pipe.send(_by_stage(asked[1]))


def _warm(which: str) -> Side:
    from benchmarks.reference import Reference
    from benchmarks.shipped import Shipped

    side: Side = Shipped() if which == "shipped" else Reference()
    for body in mix.requests(mix.warm_up()):
        side.take(body, mix.arrival_ns(body))
    return side


def _bodies(turn: int) -> list[tuple[bytes, int]]:
    return [(body, mix.arrival_ns(body)) for body in mix.requests(mix.spans(turn=turn))]


def _told(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """A digest of all findings and decisions, and how many there were."""
    told = [[outcome.findings, outcome.decisions] for outcome in outcomes]
    findings, decisions = (sum(len(both[part]) for both in told) for part in (0, 1))
    digest = hashlib.sha256(msgspec.json.encode(told)).hexdigest()
    return digest, f"{findings} findings and {decisions} decisions, the same in both"


def _by_stage(turn: int) -> dict[str, float]:
    with stages.watched(SHIPPED) as watch:
        side = _warm("shipped")
        bodies = _bodies(turn)
        gc.collect()
        gc.freeze()
        watch.clear()
        for body, now_ns in bodies:
            side.take(body, now_ns)
        return {stage: spent_us / mix.SPANS for stage, spent_us in watch.own_us().items()}
