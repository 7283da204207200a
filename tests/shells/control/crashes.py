"""Kills a sidecar around the commit of a pause or a resume, starts it again, and looks at what it remembers (P6)."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from sidecar.control.client import Operators
from sidecar.control.client import session as one
from sidecar.control.v1 import control_pb2 as pb
from sidecar.errors import ControlError
from sidecar.storage import ControlStore
from tests.shells.control.kit import Raw, Sidecar, asked, opened

WINDOW_S = 0.05
"""The kill falls this soon after the order was sent, at most."""
LAZY_S = 0.2


def serve(folder: Path, lazy: bool, ready: Any) -> None:
    """The victim: a sidecar that serves until it is killed. `lazy` is the control: it says stored before it is."""
    if lazy:
        commit, promised = ControlStore.commit, []

        async def promise(store: ControlStore, batch: Any, *, durable: bool) -> None:
            async def later() -> None:
                await asyncio.sleep(LAZY_S)
                await commit(store, batch, durable=durable)

            promised.append(asyncio.ensure_future(later()))

        ControlStore.commit = promise  # type: ignore[method-assign]
    with Sidecar(folder, agents=None):
        ready.send(True)
        signal.pause()


class Victim:
    """A sidecar in a process of its own."""

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(["tests.shells.control.crashes"])

    def __init__(self, folder: Path, *, lazy: bool) -> None:
        ready, told = self._context.Pipe(duplex=False)
        self._process = self._context.Process(target=serve, args=(folder, lazy, told), daemon=True)
        self._process.start()
        told.close()
        if not ready.poll(60) or not ready.recv():
            raise RuntimeError("it did not start")

    def kill(self) -> None:
        os.kill(self._process.pid or 0, signal.SIGKILL)
        self._process.join(30)


def storm(folder: Path, rounds: int, *, seed: int, lazy: bool = False) -> Counter[str]:
    """Rounds of order, kill and restart, on one data directory.

    Returns:
        ``rounds``; ``armed``: rounds in which the kill fell within `WINDOW_S` of the order; ``in_flight``: of those,
        the ones in which it had not been answered yet; ``violations`` by name.
    """
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    sockets = {name: f"unix:{folder / 'data' / name}.sock" for name in ("agents", "operators")}
    victim = Victim(folder, lazy=lazy)
    for number in range(rounds):
        session = f"s{number}"
        seen["rounds"] += 1
        with Raw(sockets["agents"]) as raw, Operators(sockets["operators"]) as people, ThreadPoolExecutor(1) as pool:
            opened(raw, session)
            grant = asked(raw, session).grant
            resuming = number % 2 == 1
            first = people.pause(one(session), "first")[0] if resuming else None
            if resuming and lazy:
                time.sleep(2 * LAZY_S)  # the first pause is on the disk, even so
            began_s = time.monotonic()
            order = pool.submit(_order, people, session, first)
            time.sleep(chance.random() ** 3 * WINDOW_S)  # most of them early, where the commit is
            in_flight, waited_s = not order.done(), time.monotonic() - began_s
            victim.kill()
            seen["armed"] += in_flight or waited_s < 2 * WINDOW_S
            seen["in_flight"] += in_flight
            answered = _outcome(order)
        victim = Victim(folder, lazy=lazy)
        with Raw(sockets["agents"]) as raw, Operators(sockets["operators"]) as people:
            seen.update(_violations(raw, people, session, grant, resuming=resuming, answered=answered))
    victim.kill()
    return seen


def _order(people: Operators, session: str, first: pb.SessionView | None) -> None:
    if first is None:
        people.pause(one(session), "the order")
    else:
        people.resume(one(session), "the order", pause_id=first.pause_id, epoch=first.epoch)


def _outcome(order: Future[None]) -> bool:
    """Whether the order was answered before the sidecar died."""
    try:
        order.result(30)
    except (ControlError, grpc.RpcError):
        return False
    return True


def _violations(raw: Raw, people: Operators, session: str, grant: pb.Grant, *, resuming: bool, answered: bool) -> Any:
    found: Counter[str] = Counter()
    views = people.sessions(session_id=session)
    state, epoch = (views[0].state, views[0].epoch) if views else (pb.RUN_STATE_RUNNING, 0)
    paused = state == pb.RUN_STATE_PAUSED
    if not resuming:
        found["a pause that was answered is lost"] += answered and not paused
        found["an epoch went back"] += answered and epoch < 1
    else:
        found["paused and running again by itself"] += not paused and epoch < 2
        found["a resume that was answered is lost"] += answered and paused
        found["an epoch went back"] += epoch < 1
    opened(raw, session)
    told = asked(raw, session)
    if paused:
        found["allowed while paused"] += told.answer != pb.ANSWER_PAUSED
    if paused or resuming:
        request = pb.RedeemGrantRequest(
            grant=grant, session_id=session, tool="send_email", arguments_json='{"to": "amy@corp.example"}'
        )
        redeemed = raw.call("AgentService.RedeemGrant", request, pb.RedeemGrantResponse).redeemed
        found["a grant outlived a pause"] += redeemed
    return Counter({f"violation: {name}": count for name, count in found.items() if count})
