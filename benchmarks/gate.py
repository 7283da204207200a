"""The gate: what a question costs beyond an empty `grpc.aio` call, at rest and while ingest runs flat out beside it.

One caller, on loopback, in a process of its own; real `sidecar run`, real databases, every allow of an irreversible act
committed before it is given. All sides take turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import apsw
import grpc

from benchmarks import mix
from benchmarks.conversations import READS, TURNS, Asked, Conversation
from benchmarks.report import Figure, number, quantile
from benchmarks.running import Sidecar, child, empty_call
from sidecar.control.v1 import control_pb2 as pb

ROUNDS, BLOCK, WARM_UP = 2000, 100, 200
IN_FLIGHT, SPARE = 4, 12
"""Export requests that the flood keeps under way; and how often it has the mix ready, 10,000 spans each."""
SERVICE = "/sidecar.control.v1.AgentService/"

Call = Callable[[bytes], bytes]


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """At rest, then under ingest."""
    rounds, warm_up = (200, 50) if quick else (ROUNDS, WARM_UP)
    with Sidecar() as sidecar, Caller(sidecar) as caller, empty_call() as empty, committing() as commit:
        yield from _at_rest(caller, empty, commit, rounds, warm_up)
        yield from _under_ingest(sidecar, caller, rounds // 2, turns=1 if quick else SPARE)


class Caller:
    """A connection to a sidecar, and questions of each kind to ask on it."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._opened = contextlib.ExitStack()
        self._sidecar = sidecar
        self._numbers = iter(range(10**9))

    def __enter__(self) -> Self:
        channel = self._opened.enter_context(self._sidecar.channel())
        self._open = channel.unary_unary(f"{SERVICE}OpenSession")
        self.authorize: Call = channel.unary_unary(f"{SERVICE}Authorize")
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def questions(self, count: int, tools: tuple[str, ...], *, carries: bool = True) -> list[Asked]:
        """Questions in sessions that are open."""
        conversations = [Conversation(next(self._numbers), tools, carries=carries) for _ in range(-(-count // TURNS))]
        for conversation in conversations:
            self._open(conversation.opening())
        return list(islice(chain.from_iterable(one.questions() for one in conversations), count))


class Timed:
    """Calls in turns, each with its times in nanoseconds."""

    def __init__(self, *sides: str) -> None:
        self.took: dict[str, list[int]] = {side: [] for side in sides}

    def call(self, side: str, call: Callable[..., Any], *given: Any) -> Any:
        """One call, timed."""
        began = time.perf_counter_ns()
        result = call(*given)
        self.took[side].append(time.perf_counter_ns() - began)
        return result

    def us(self, side: str, share: float = 0.5) -> float:
        """A quantile of a side's times, microseconds."""
        return quantile(self.took[side], share) / 1000

    def paired(self, side: str, base: str) -> list[float]:
        """Ratios of medians, block by block."""
        blocks = range(0, len(self.took[side]), BLOCK)
        medians = [[statistics.median(self.took[one][at : at + BLOCK]) for at in blocks] for one in (side, base)]
        return [mine / theirs for mine, theirs in zip(*medians, strict=True)]


def _at_rest(caller: Caller, empty: Call, commit: Callable[[], None], rounds: int, warm_up: int) -> Iterator[Figure]:
    kinds = {
        "reversible": caller.questions(rounds + warm_up, READS),
        "irreversible": caller.questions(rounds + warm_up, ("send_mail",)),
        "nothing carried": caller.questions(rounds + warm_up, READS, carries=False),
    }
    timed = Timed("empty", "as large", "commit", *kinds)
    answers: dict[str, list[bytes]] = {kind: [] for kind in kinds}
    gc.collect()
    gc.freeze()
    order = list(timed.took)
    for turn in range(rounds + warm_up):
        if turn == warm_up:
            timed = Timed(*order)
        random.shuffle(order)  # what comes before leaves its mark on what comes next
        for side in order:
            if side in kinds:
                answers[side].append(timed.call(side, caller.authorize, kinds[side][turn].body))
            elif side == "commit":
                timed.call(side, commit)
            else:
                timed.call(side, empty, b"" if side == "empty" else kinds["reversible"][turn].body)
    gc.unfreeze()
    for kind, given in answers.items():
        must_allow(kind, given)
    carried = statistics.median(asked.carried_bytes for asked in kinds["reversible"][warm_up:])
    ratios = timed.paired("reversible", "empty")
    bare = timed.us("empty")
    yield Figure(
        name="gate: reversible act, 6 KB carried, p50 against an empty grpc.aio call",
        value=statistics.median(ratios), unit="x", target=1.4,
        beside=f"{number(timed.us('reversible'))} against {number(bare)} µs; {number(carried)} B carried; "
               f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} blocks",
    )  # fmt: skip
    allowed_us = 1.4 * bare + timed.us("commit")
    yield Figure(
        name="gate: irreversible allow, 6 KB carried, p50 against 1.4 empty calls and a FULL commit",
        value=timed.us("irreversible") / allowed_us, unit="x", target=1.0,
        beside=f"{number(timed.us('irreversible'))} against {number(allowed_us)} µs; a FULL commit takes "
               f"{number(timed.us('commit'))} µs",
    )  # fmt: skip
    for name, kind in (("reversible act, nothing carried", "nothing carried"), ("the same bytes, empty", "as large")):
        yield Figure(
            name=f"  {name}", value=statistics.median(timed.paired(kind, "empty")), unit="x",
            beside=f"{number(timed.us(kind))} µs",
        )  # fmt: skip
    yield Figure(
        name="  p99 of a reversible act against that of the empty call",
        value=timed.us("reversible", 0.99) / timed.us("empty", 0.99), unit="x",
        beside=f"{number(timed.us('reversible', 0.99))} against {number(timed.us('empty', 0.99))} µs",
    )  # fmt: skip


def _under_ingest(sidecar: Sidecar, caller: Caller, rounds: int, *, turns: int) -> Iterator[Figure]:
    kinds = {"reversible": caller.questions(rounds, READS), "irreversible": caller.questions(rounds, ("send_mail",))}
    with child(_flood, sidecar.otlp, turns) as pipe:
        pipe.recv()  # it has made what it is going to send
        pipe.send("begin")
        sidecar.until(lambda: sidecar.count("sidecar_spans_fed_total") > 0)
        timed = Timed(*kinds)
        answers: list[bytes] = []
        fed, cpu_s, began_s = sidecar.count("sidecar_spans_fed_total"), sidecar.cpu_s(), time.monotonic()
        for turn in range(rounds):
            for kind, questions in kinds.items():
                answers.append(timed.call(kind, caller.authorize, questions[turn].body))
            if pipe.poll():
                break  # it has nothing more to send
        lasted_s = time.monotonic() - began_s
        busy = (sidecar.cpu_s() - cpu_s) / lasted_s
        spans_per_s = (sidecar.count("sidecar_spans_fed_total") - fed) / lasted_s
    must_allow("under ingest", answers)
    took = list(chain.from_iterable(timed.took.values()))
    yield Figure(
        name="gate: p99 while ingest runs flat out in the same process",
        value=quantile(took, 0.99) / 1e6, unit="ms", target=5.0,
        beside=f"p50 {number(quantile(took, 0.5) / 1e6)} ms, longest {number(max(took) / 1e6)} ms of {len(took)}; "
               f"{number(spans_per_s)} spans/s fed meanwhile, {busy:.2f} cores used",
    )  # fmt: skip


def must_allow(kind: str, answers: Sequence[bytes]) -> None:
    """What was measured is what was meant.

    Raises:
        RuntimeError: An answer was not "allowed".
    """
    told = [pb.AuthorizeResponse.FromString(answer).answer for answer in answers]
    if others := [answer for answer in told if answer != pb.ANSWER_ALLOWED]:
        raise RuntimeError(f"{kind}: {len(others)} of {len(told)} answers are not ALLOWED, e.g. {others[0]}")


@contextlib.contextmanager
def committing() -> Iterator[Callable[[], None]]:
    """One durable commit (WAL, `synchronous=FULL`) of a row of 600 B, on the disk that the sidecar is on."""
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as folder:
        database = apsw.Connection(str(Path(folder) / "commit.db"))
        database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE audit (seq INTEGER PRIMARY KEY, record BLOB NOT NULL)")
        record = bytes(600)

        def commit() -> None:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO audit (record) VALUES (?)", (record,))
            database.execute("COMMIT")

        yield commit
        database.close()


def _flood(pipe: Connection, target: str, turns: int) -> None:
    """Sends the mix as fast as it is taken, until told to stop; says when there is no more of it."""
    bodies = [body for turn in range(turns) for body in mix.requests(mix.spans(turn=turn + 1))]
    with grpc.insecure_channel(target) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        pipe.send("ready")
        pipe.recv()
        under_way: list[Any] = []
        for body in bodies:
            if pipe.poll():
                return
            while len(under_way) >= IN_FLIGHT:
                with contextlib.suppress(grpc.RpcError):  # the inbox is full: so be it, it is to be
                    under_way.pop(0).result()
            under_way.append(export.future(body))
        pipe.send("all sent")
        with contextlib.suppress(EOFError):
            pipe.recv()
