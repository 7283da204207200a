"""Memory of 10,000 live sessions beyond the models of their agents, in a process that holds the core alone."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import mix
from benchmarks.report import Figure, number
from benchmarks.running import child

SESSIONS, SPANS_EACH, AT_ONCE = 10_000, 5, 500
MIB = 2**20


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """What the process grows by as the sessions come, each with a model span, its two acts, and so on."""
    sessions = SESSIONS // 50 if quick else SESSIONS
    with child(_fill, sessions) as pipe:
        models, before, after, known, events = pipe.recv()
    per_10k = (after - before) * 10_000 / sessions / MIB
    yield Figure(
        name="memory: 10,000 live sessions beyond models",
        value=per_10k, unit="MB", target=60.0,
        beside=f"{known:,} sessions known with {SPANS_EACH} spans each, {events:,} events wait to be learned; "
               f"{number((after - before) / sessions)} B a session",
    )  # fmt: skip
    yield Figure(name="  20 agents' models, and the core itself", value=models / MIB, unit="MB")


def resident_bytes() -> int:
    """What of this process is resident and its own, after all that can be given back is given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _fill(pipe: Connection, sessions: int) -> None:
    from benchmarks.shipped import Shipped

    empty = resident_bytes()
    shipped = Shipped()
    for body in mix.requests(mix.warm_up(acts=33)):
        shipped.take(body, mix.arrival_ns(body))
    before = resident_bytes()
    for first in range(0, sessions, AT_ONCE):
        for body in mix.requests(_spans(first, min(AT_ONCE, sessions - first))):
            shipped.take(body, mix.arrival_ns(body))
    after = resident_bytes()
    pipeline = shipped.pipeline
    waiting = sum(len(agent.pending) for agent in pipeline.engine.agents.values())
    pipe.send((before - empty, before, after, len(pipeline.sessions), waiting))


def _spans(first: int, count: int) -> list[mix.Sent]:
    """The first spans of `count` dull sessions."""
    return [sent for number_ in range(first, first + count) for sent in islice(_session(number_).spans(), SPANS_EACH)]


def _session(number_: int) -> mix._Session:
    return mix._Session(f"live {number_}", mix.agent_of(number_), mix.BEGIN_NS + number_ * 10**6)
