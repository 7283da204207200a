"""The sidecar that is killed: the shipped one, or for a control the shipped one without the line that protects.

    python -m tests.faults.victim CONFIG WITHOUT FAULT DIES LOG

``WITHOUT`` is one of `LINES`, ``FAULT`` one of `FAULTS`, ``DIES`` one of `POINTS` with a number: ``checkpoint_half:2``
kills the process in the middle of its second checkpoint. All may be empty.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import os
import signal
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import river.anomaly  # noqa: F401  # what a sidecar imports behind its start need not be imported by each that is forked
from msgspec.structs import replace

from sidecar import app
from sidecar.cli.commands import run as run_command
from sidecar.core.commands import Resume
from sidecar.core.runstate import RunStates
from sidecar.service import Service
from sidecar.sources import feeder
from sidecar.sources.intake import Intake
from sidecar.sources.losses import Losses
from sidecar.storage import ControlStore, sealed, telemetry
from sidecar.storage.telemetry import TelemetryStore
from tests.contracts import forbid

gc.freeze()  # a forked sidecar need not look through what it was forked with

LAZY_S = 0.05
"""How much later than it says a careless sidecar stores; the store's own groups may take 20 ms."""


LATER_S = 0.2
"""How much later a careless sidecar stores orders; more than a round's window."""


class Arguments(NamedTuple):
    config: str
    without: str
    fault: str
    dies: str
    log: str


# ------------------------------------------------------------ protecting lines, taken out


def without_waiting_for_the_disk(later_s: float = LAZY_S) -> None:
    """A request is acknowledged before it is durable."""
    commit, under_way = Intake._commit, set[Any]()

    async def careless(intake: Intake, *request: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(later_s)
            await commit(intake, *request)

        task = asyncio.ensure_future(later())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    Intake._commit = careless  # type: ignore[method-assign]


def without_ending_in_order() -> None:
    """A request is acknowledged before it is durable, and the end does not wait for those."""
    without_waiting_for_the_disk(later_s=5.0)

    async def careless(intake: Intake) -> None:
        """Waits for nothing."""

    Intake.close = careless  # type: ignore[method-assign]


def without_one_transaction() -> None:
    """How far the engine has read is stored before what it has read."""

    async def careless(store: TelemetryStore, cursor: Any, upserts: Any, deletes: Any = ()) -> None:
        await save(store, cursor, {}, ())
        await save(store, cursor, upserts, deletes)

    save = TelemetryStore.save_checkpoint
    TelemetryStore.save_checkpoint = careless  # type: ignore[method-assign]


def without_committing_before_the_answer() -> None:
    """An order is answered before it is on the disk."""
    commit, under_way = ControlStore.commit, set[Any]()

    async def careless(store: ControlStore, batch: Any, *, durable: bool) -> None:
        async def later() -> None:
            await asyncio.sleep(LATER_S)
            await commit(store, batch, durable=durable)

        task = asyncio.ensure_future(later())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    ControlStore.commit = careless  # type: ignore[method-assign]


def without_asking_which_pause() -> None:
    """A Resume ends whatever pause there is."""
    plan = RunStates.plan_resume

    def careless(runs: RunStates, command: Resume) -> Any:
        run = runs.get(command.session)
        return plan(runs, replace(command, pause_id=run.pause_id, epoch=run.epoch))

    RunStates.plan_resume = careless  # type: ignore[method-assign]


def without_counting() -> None:
    """Refusals are answered, and nobody is told."""

    def silent(losses: Losses, *what: Any, **amounts: Any) -> None:
        """Counts nothing."""

    Losses.refused = silent  # type: ignore[method-assign]


def without_a_bounded_feeder() -> None:
    """All that waits for the core is kept in memory."""
    feeder.MAX_BYTES = feeder.MAX_SPANS = sys.maxsize


def without_a_keyed_hash() -> None:
    """Blobs are believed whoever wrote them."""
    sealed.hmac = SimpleNamespace(new=hmac.new, compare_digest=lambda one, other: True)  # type: ignore[attr-defined]


LINES: dict[str, Callable[[], None]] = {
    "wait_for_disk": without_waiting_for_the_disk,
    "ending_in_order": without_ending_in_order,
    "commit_before_answer": without_committing_before_the_answer,
    "answers_its_pause": without_asking_which_pause,
    "counting": without_counting,
    "bounded_feeder": without_a_bounded_feeder,
    "keyed_hash": without_a_keyed_hash,
    "one_transaction": without_one_transaction,
}

# ------------------------------------------------------------ faults


def slow_core() -> None:
    """Each span takes the core 20 ms more."""
    feed = Service.feed

    def slow(*what: Any) -> None:
        time.sleep(0.02)
        feed(*what)

    Service.feed = slow  # type: ignore[method-assign]


def re2_alone() -> None:
    """Nothing is compiled for hyperscan, which takes a start most of its time: RE2 judges, as it does until then."""
    app._compile = lambda patterns, loop: None


def forbidding() -> None:
    """Whoever makes code of data dies of it."""
    forbid.install()


FAULTS: dict[str, Callable[[], None]] = {"forbidding": forbidding, "slow_core": slow_core, "re2_alone": re2_alone}

# ------------------------------------------------------------ points to die at


def _die(number: int, of: list[int]) -> None:
    of[0] += 1
    if of[0] == number:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


def _in_checkpoint(step: int) -> Callable[[int], None]:
    """Before, between or after the statements of a checkpoint in which sessions have changed."""

    def arm(number: int) -> None:
        save, seen = telemetry._save, [0]

        def dying(cursor: Any, blobs: Any, deletes: Any, connection: Any) -> int:
            if not any(name.startswith("s/") for name, _ in blobs):
                return save(cursor, blobs, deletes, connection)
            if step == 0:
                _die(number, seen)
            if step == 1:
                connection.executemany("INSERT OR REPLACE INTO blobs (name, blob) VALUES (?, ?)", blobs[::2])
                _die(number, seen)
            used = save(cursor, blobs, deletes, connection)
            if step == 2:
                _die(number, seen)
            return used

        telemetry._save = dying

    return arm


def _after_checkpoint(number: int) -> None:
    save, seen = TelemetryStore.save_checkpoint, [0]

    async def dying(store: TelemetryStore, cursor: Any, upserts: Any, deletes: Any = ()) -> None:
        await save(store, cursor, upserts, deletes)
        if any(name.startswith("s/") for name in upserts):
            _die(number, seen)

    TelemetryStore.save_checkpoint = dying  # type: ignore[method-assign]


POINTS: dict[str, Callable[[int], None]] = {
    "checkpoint_begun": _in_checkpoint(0),
    "checkpoint_half": _in_checkpoint(1),
    "checkpoint_written": _in_checkpoint(2),
    "checkpoint_stored": _after_checkpoint,
}


def run(arguments: Arguments) -> None:
    """Becomes the sidecar."""
    arguments = Arguments(*arguments)
    log = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if arguments.dies:
        name, _, number = arguments.dies.partition(":")
        POINTS[name](int(number or 1))
    if arguments.fault:
        FAULTS[arguments.fault]()
    if arguments.without:
        LINES[arguments.without]()
    sys.exit(run_command(["run", "-c", arguments.config]))


if __name__ == "__main__":
    run(Arguments(*sys.argv[1:]))
