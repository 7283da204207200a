"""From starting the process until the gate answers, with an empty control.db and with one that has grown."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Self

from benchmarks.report import Figure, number
from benchmarks.running import Sidecar
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.commands import Cause
from sidecar.core.events import SessionKey
from sidecar.storage import ControlBatch, ControlStore, Entry, Instant, SavedRun, StorageSettings

ROUNDS = 7
RUNS, ENTRIES = 2_000, 50_000
"""Sessions that are held, and records of the audit log, in a control.db that has grown."""
SERVICE = "/sidecar.control.v1.AgentService/"


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Rounds of: an interpreter that imports gRPC alone, a first start, a start with what has grown."""
    rounds = 2 if quick else ROUNDS
    took: dict[str, list[float]] = {"fresh": [], "grown": [], "bare": []}
    with grown(RUNS // 10 if quick else RUNS, ENTRIES // 10 if quick else ENTRIES) as old:
        until_answer_s(old)  # as an installation is compiled when it is made
        old.stop()
        for _ in range(rounds):
            began_s = time.monotonic()
            subprocess.run([sys.executable, "-c", "import grpc.aio"], check=True)
            took["bare"].append(time.monotonic() - began_s)
            took["grown"].append(until_answer_s(old))
            old.stop()
            new = Sidecar()
            took["fresh"].append(until_answer_s(new))
            new.__exit__()
        size = (old.data / "control.db").stat().st_size
    bare_s = statistics.median(took["bare"])
    beside = {"fresh": "an empty control.db", "grown": f"a control.db of {size / 2**20:.0f} MB"}
    for kind, told in beside.items():
        value = statistics.median(took[kind])
        yield Figure(
            name=f"start: from exec to the gate's first answer, {told}", value=value, unit="s", target=0.5,
            beside=f"{value / bare_s:.1f} x an interpreter that imports grpc.aio ({number(bare_s)} s); "
                   f"{min(took[kind]):.2f} to {max(took[kind]):.2f} s",
        )  # fmt: skip


def until_answer_s(sidecar: Sidecar) -> float:
    """Starts a sidecar; seconds until a question at the gate had its answer."""
    began_ns = sidecar.start()
    host, port = sidecar.control.split(":")
    while True:  # gRPC itself would wait longer between two attempts than the start takes
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            break
        except OSError:
            if time.monotonic_ns() - began_ns > 60e9:
                raise
            time.sleep(0.002)
    with sidecar.channel() as channel:
        agent = pb.AgentIdentity(name="starter")
        channel.unary_unary(f"{SERVICE}OpenSession")(
            pb.OpenSessionRequest(session_id="start", agent=agent).SerializeToString(), timeout=30
        )
        asked = pb.AuthorizeRequest(
            session_id="start", tool="read_file", arguments_json=json.dumps({"path": "/srv/a.txt"}), agent=agent
        )
        answer = pb.AuthorizeResponse.FromString(
            channel.unary_unary(f"{SERVICE}Authorize")(asked.SerializeToString(), timeout=30)
        )
    took_s = (time.monotonic_ns() - began_ns) / 1e9
    if answer.answer != pb.ANSWER_ALLOWED:
        raise RuntimeError(f"the first answer was {answer.answer}")
    return took_s


class _Grown(Sidecar):
    """A sidecar that is started by hand, on a control.db that has something in it."""

    def __init__(self, runs: int, entries: int) -> None:
        super().__init__()
        asyncio.run(_grow(StorageSettings(data_dir=self.data), runs, entries))

    def __enter__(self) -> Self:
        return self


def grown(runs: int, entries: int) -> _Grown:
    """A sidecar that knows `runs` held sessions and has `entries` records in its audit log; not started."""
    return _Grown(runs, entries)


async def _grow(settings: StorageSettings, runs: int, entries: int) -> None:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = ControlStore.open(settings, create=True)
    now = Instant.now()
    for first in range(0, max(runs, entries), 500):
        held = [_held(number_, now.at_ns) for number_ in range(first, min(first + 500, runs))]
        audit = [
            Entry(at=now, actor="sidecar", action="allow", realm="local", session=f"s{number_}", policy_digest="0" * 64,
                  detail={"tool": "send_mail"})
            for number_ in range(first, min(first + 500, entries))
        ]  # fmt: skip
        await store.commit(ControlBatch(runs=held, audit=audit), durable=True)
    await store.close()


def _held(number_: int, at_ns: int) -> SavedRun:
    cause = Cause(f"pause-{number_}", "operator", "ann", "held while it is looked at", at_ns)
    return SavedRun(
        session=SessionKey("local", f"held-{number_}"), desired="paused", epoch=number_ + 1, observed="requested",
        pause_id=cause.pause_id, causes=(cause,), at_ns=at_ns,
    )  # fmt: skip
