"""A process to be killed: stores as fast as it can and says over a pipe what it was told is stored.

    python -m tests.shells.storage.child telemetry|control|early DIRECTORY SEED

``early`` says so before the commit: what must never be done.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from sidecar.core.events import SessionKey
from sidecar.sources import Row
from sidecar.storage import ControlBatch, ControlStore, Entry, Instant, SavedRun, StorageSettings, TelemetryStore

NOW = Instant(1, 1, "boot")


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def body(name: str) -> bytes:
    """A body that can be told from its name alone: 100 bytes to 20 kB."""
    return random.Random(name).randbytes(random.Random(name).randrange(100, 20_000))


async def keep_busy(work: Callable[[str], Awaitable[None]], seed: str) -> None:
    """Twenty at a time, for ever."""
    numbers = itertools.count()
    running: set[asyncio.Task[None]] = set()
    while True:
        while len(running) < 20:
            running.add(asyncio.ensure_future(work(f"{seed}-{next(numbers)}")))
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def telemetry(settings: StorageSettings, seed: str, *, early: bool) -> None:
    store = TelemetryStore.open(settings)

    async def append(name: str) -> None:
        say(f"sent {name}")
        if early:
            say(f"stored {name}")
        await store.append(Row("asked" if name.endswith("7") else "traces", name.encode() + b"\n" + body(name), 1))
        if not early:
            say(f"stored {name}")

    async def save() -> None:
        while True:
            row = store.backlog(0)
            await store.save_checkpoint({"row": row}, {"row": str(row).encode(), "big": bytes(100_000)})

    await asyncio.gather(keep_busy(append, seed), save())


async def control(settings: StorageSettings, seed: str) -> None:
    store = ControlStore.open(settings)

    async def pause(name: str) -> None:
        key = SessionKey("local", name)
        run = SavedRun(key, "paused", 1, 1, pause_id=name)
        say(f"sent {name}")
        await store.commit(ControlBatch(runs=[run], audit=[Entry(NOW, "policy", "pause", "local", name)]), durable=True)
        say(f"stored {name}")

    await keep_busy(pause, seed)


def main() -> None:
    kind, directory, seed = sys.argv[1:]
    settings = StorageSettings(data_dir=Path(directory), low_water_bytes=2**20, ballast_bytes=2**20)
    if kind == "control":
        asyncio.run(control(settings, seed))
    else:
        asyncio.run(telemetry(settings, seed, early=kind == "early"))


if __name__ == "__main__":
    main()
