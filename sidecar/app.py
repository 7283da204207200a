"""Wires the sidecar's parts together and runs them in one process.

The order of the start is the order of what must not wait: who is paused is known before any door opens; the gate
answers before the last snapshot is restored (irreversible acts get `restoring`); telemetry is taken once it can be
kept; river and hyperscan are loaded behind it all.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from sidecar import assembly
from sidecar.config import Config
from sidecar.control.agents import AgentService
from sidecar.control.auth import Credentials, Denials
from sidecar.control.convert import read_question
from sidecar.control.grants import Grants
from sidecar.control.operators import OperatorService
from sidecar.control.servers import ControlServers
from sidecar.core.organisation import Organisation
from sidecar.core.snapshot import Snapshots
from sidecar.core.text.scan import PatternSet
from sidecar.observe.health import TICK_S, Health
from sidecar.observe.logs import configure
from sidecar.observe.metrics import Metrics
from sidecar.observe.scrape import Scrape
from sidecar.recovery import recover
from sidecar.service import Service
from sidecar.sources.claims import Claims
from sidecar.sources.feeder import QueueFeeder
from sidecar.sources.intake import Intake
from sidecar.sources.losses import Losses
from sidecar.sources.otlp import read_tls
from sidecar.sources.otlp_grpc import OtlpGrpc
from sidecar.sources.turns import Turn
from sidecar.storage import ControlBatch, ControlStore, Entry, Instant, TelemetryStore
from sidecar.storage.sealed import load_key

log = logging.getLogger("sidecar.app")

SWITCH_S = 1e-4
"""How often threads take turns: the gate shares the interpreter with writers and compilers (performance.md §12)."""
SPARE_FORESTS = 2
RETAIN_S = 60.0
COLLECT_S = 900.0
"""How often cycles among what has lived for long are looked for: that stops everything for some 0.1 s with 10,000
sessions (performance.md §0.10), so Python is not to do it whenever there is a quarter more."""
YOUNG = (2000, 10, 10**9)
"""Thresholds of the collections that remain: of what is young, a millisecond at most."""
AWAY_S = 30.0
"""How long brokers may be out of reach before their agents' irreversible acts wait."""
KEY_FILE = "evidence.key"


class App:
    """One sidecar. `start` it, wait until it `ended`, then `stop` it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, config.observe)
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stoppers: list[Callable[[], Any]] = []
        self._forests = _Forests()
        self._down_s: dict[str, float] = {}
        self.failed = ""

    async def start(self) -> None:
        """Opens all doors; comes back when the sidecar is ready.

        Raises:
            ConfigError: A setting cannot be used here (a file, an address, a database).
        """
        config, data_dir = self.config, self.config.storage.data_dir
        sys.setswitchinterval(SWITCH_S)
        control = ControlStore.open(config.storage, create=True)
        self._stoppers.append(control.close)
        telemetry = TelemetryStore.open(config.storage)
        self._stoppers.append(telemetry.close)

        patterns = PatternSet((*assembly.patterns(), *config.sensitive.compiled()))
        key = load_key(data_dir / KEY_FILE)
        pipeline = assembly.pipeline(
            config.policy,
            pattern_set=patterns,
            catalogue=config.tools.catalogue(),
            organisation=Organisation(config.organisation.domains, config.organisation.partners),
            options={"half_space_trees": {"grow": self._forests.take}} | config.detectors,
            closed=config.tools.closed,
            present=lambda key: agents.is_present(key),
            sign=lambda text: hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16, key=key).hexdigest(),
            session_attributes=config.sessions.attributes,
            journal_bytes=config.sessions.journal,
        )
        grants = Grants.load(data_dir, life_s=config.control.grant_life)
        self.losses = Losses(self.metrics)
        self.service = service = Service(
            pipeline,
            control,
            telemetry,
            self.metrics,
            clock_ns=time.time_ns,
            owner_of=config.owner_of,
            mint=grants.minter(config.control.grants, lambda: pipeline.policy.digest),
            hold_ns=int(config.gate.hold * 1e9),
            fail_open=frozenset(config.gate.i_accept_fail_open_for),
            losses=self.losses,
            lease_ns=int(config.control.lease * 1e9),
        )
        self._stoppers.append(service.close)  # after the doors, and before the stores that it gives the rest to
        service.watchers.append(self.metrics)
        telemetry.policy = pipeline.policy.digest
        service.recall(control.load(Instant.now()))
        snapshots = Snapshots(pipeline)

        credentials = Credentials(config.control.credentials)
        denials = Denials(lambda entry: service.note(ControlBatch(audit=[entry])), self.metrics.control)
        agents = AgentService(service, config.control, grants, denials, self.metrics.control)
        operators = OperatorService(service, config.control)
        self.health = Health(service, self.metrics)
        pem = _pem(config.control.tls)
        self.control_doors = ControlServers(
            config.control, data_dir, agents, operators, credentials, denials, self.metrics.control,
            is_ready=lambda: not self.health.reasons(), pem=pem,
        )  # fmt: skip
        await self.control_doors.start()
        self._stoppers.append(self.control_doors.stop)
        self._record("start")

        feeder = QueueFeeder(telemetry, service, config.intake.limits, meter=self.metrics)
        self.feeder = feeder
        self._serve_http(service, feeder, data_dir)
        self._spawn(self._look_after(control, telemetry), "look after the stores")
        await recover(
            service, telemetry, feeder, config.intake.limits,
            lambda row: read_question(row.body, row.speaker, row.arrived_ns),
        )  # fmt: skip
        service.restoring = False
        _collect()

        self._spawn(feeder.run(), "feed")
        self._spawn(self._tick(), "tick")
        self._spawn(self._checkpoint(snapshots, telemetry, feeder), "checkpoint")
        self._spawn(self._retain(control, telemetry), "retain")
        self._spawn(_collect_at_times(), "collect")
        threading.Thread(target=self._forests.grow, daemon=True, name="forests").start()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_compile, args=(patterns, loop), daemon=True, name="hyperscan").start()

        claims = Claims(pipeline, service.settle, time.time_ns)
        intake = Intake(telemetry, feeder, self.losses, config.intake, is_false=claims.are_false)
        self._stoppers.append(intake.close)
        for door in self._otlp_doors(intake, credentials):
            await door.start()
            self._stoppers.append(door.stop)
        self._read_kafka(intake, data_dir)
        log.info("ready", extra={"data_dir": str(data_dir), "policy": pipeline.policy.digest[:12]})

    async def ended(self) -> None:
        """Waits for a signal, or for something that the sidecar cannot go on without."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ending.set)
        await self._ending.wait()

    async def stop(self) -> None:
        """Closes the doors, writes a last checkpoint, and lets go of the files."""
        if self._tasks:  # else the start has failed, which is to be heard
            self._record("stop")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stop in reversed(self._stoppers):
            with contextlib.suppress(Exception):
                done = stop()
                if asyncio.iscoroutine(done):
                    await done

    # ------------------------------------------------------------ doors

    def _otlp_doors(self, intake: Intake, credentials: Credentials) -> list[Any]:
        settings = self.config.otlp
        pem = _pem(settings.tls)
        doors: list[Any] = []
        if settings.grpc is not None:
            doors.append(OtlpGrpc(settings, intake, credentials, self.losses, pem=pem))
        if settings.http is not None:
            from sidecar.sources.otlp_http import OtlpHttp  # what the gate needs not is loaded once it answers

            doors.append(OtlpHttp(settings, intake, credentials, self.losses, pem=pem))
        return doors

    def _serve_http(self, service: Service, feeder: QueueFeeder, data_dir: Path) -> None:
        settings = self.config.observe
        self.scrape = Scrape(
            self.registry, self.metrics, service, self.health, data_dir=data_dir, settings=settings,
            inbox=lambda: (feeder.backlog, _age_s(feeder.waiting_since_ns)),
        )  # fmt: skip
        if settings.http is not None:
            from sidecar.observe.http import Door as HttpDoor
            from sidecar.observe.http import app as http_app

            door = HttpDoor(http_app(self.scrape, self.health), settings.http)
            door.start()
            self._stoppers.append(door.close)

    def _read_kafka(self, intake: Intake, data_dir: Path) -> None:
        if not self.config.kafka:
            return
        from sidecar.sources.deadletters import DeadLetters
        from sidecar.sources.kafka import KafkaSource

        for settings in self.config.kafka:
            letters = DeadLetters(data_dir / f"deadletters-{settings.name}.jsonl")
            source = KafkaSource(settings, intake, dead_letter=letters, gap=partial(self._gap, settings.name))
            self.scrape.kafka[settings.name] = source
            self._spawn(source.run(), f"kafka {settings.name}")
            self._stoppers.append(source.close)

    def _gap(self, name: str, gap: Any) -> None:
        log.error("records of a Kafka topic are missing", extra={"topic": gap.topic, "reason": gap.reason})
        self._record("kafka_gap")
        messages = max(1, gap.after - gap.first)  # how many spans they held nobody knows
        self.losses.note(self.scrape.kafka[name].speaker, "kafka_gap", requests=messages, spans=0)

    def _look_at_sources(self) -> None:
        """Brokers that have been out of reach for long: whose telemetry comes from there is not seen meanwhile."""
        now_s = time.monotonic()
        for name, source in self.scrape.kafka.items():
            if source.status.state != "down":
                self._down_s.pop(name, None)
                self.service.away.pop(f"kafka {name}", None)
            elif now_s - self._down_s.setdefault(name, now_s) > AWAY_S:
                self.service.away[f"kafka {name}"] = source.speaker
        other_doors = self.config.otlp.grpc or self.config.otlp.http
        if self.service.away and not other_doors and len(self.service.away) == len(self.scrape.kafka):
            self.service.degraded["kafka"] = None
        else:
            self.service.degraded.pop("kafka", None)

    # ------------------------------------------------------------ what goes on

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._ending.is_set():
            return
        error = task.exception()
        self._fail(f"{task.get_name()}: {type(error).__name__ if error else 'ended'}")

    def _fail(self, reason: str) -> None:
        """The sidecar cannot go on: clients fall into HOLD by their lease, and a supervisor starts it again."""
        log.critical("out of service", extra={"reason": reason})
        self.failed = self.failed or reason
        self._ending.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.health.beat()
            self._look_at_sources()
            self.service.tick()

    async def _look_after(self, control: ControlStore, telemetry: TelemetryStore) -> None:
        waits = [asyncio.create_task(store.writer.failed.wait()) for store in (control, telemetry)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        self._fail("a database is out of service")
        await asyncio.Event().wait()

    async def _checkpoint(self, snapshots: Snapshots, telemetry: TelemetryStore, feeder: QueueFeeder) -> None:
        try:
            while True:
                await asyncio.sleep(self.config.storage.checkpoint_interval_s)
                await _save(snapshots, telemetry, self.service, feeder, slices=True)
        except asyncio.CancelledError:
            await _save(snapshots, telemetry, self.service, feeder, slices=False)
            raise

    async def _retain(self, control: ControlStore, telemetry: TelemetryStore) -> None:
        while True:
            await asyncio.sleep(RETAIN_S)
            await telemetry.retain(time.time_ns())
            await control.prune(Instant.now())

    def _record(self, action: str) -> None:
        self.service.note(
            ControlBatch(
                audit=[
                    Entry(
                        at=Instant.now(),
                        actor="sidecar",
                        action=action,
                        policy_digest=self.service.pipeline.policy.digest,
                        detail={"fail_open": ", ".join(self.config.gate.i_accept_fail_open_for)[:256]},
                    )
                ]
            )
        )


class _Forests:
    """Half-space trees grown ahead of time in a thread: growing one takes 13 ms, and importing river a second."""

    def __init__(self) -> None:
        self._ready: deque[Any] = deque()
        self._wanted = threading.Event()
        self._wanted.set()

    def take(self) -> Any:
        """A fresh forest, or None when none is ready yet."""
        self._wanted.set()
        return self._ready.popleft() if self._ready else None

    def grow(self) -> None:
        """Keeps `SPARE_FORESTS` ready, for ever."""
        from sidecar.core.features.forest import grow

        while True:
            self._wanted.wait()
            self._wanted.clear()
            while len(self._ready) < SPARE_FORESTS:
                self._ready.append(grow())


def _collect() -> None:
    """Looks for cycles everywhere, and leaves what is alive out of every collection until the next time."""
    gc.set_threshold(*YOUNG)
    gc.enable()
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def _collect_at_times() -> None:
    while True:
        await asyncio.sleep(COLLECT_S)
        _collect()


async def _save(
    snapshots: Snapshots, telemetry: TelemetryStore, service: Service, feeder: QueueFeeder, *, slices: bool
) -> None:
    """Writes down what has changed, with the place in the inbox up to which it was known."""
    row, index = service.fed
    whole = feeder.fed_row
    cursor = {"row": whole, "index": index if row == whole + 1 else 0, "asked": service.asked_row}
    snapshots.begin()
    turn = Turn(time.monotonic_ns)
    while snapshots.step():
        if slices:
            await turn.next()
    upserts, deletes = snapshots.take()
    try:
        await telemetry.save_checkpoint(cursor, upserts, deletes)
    except Exception as error:
        snapshots.failed(upserts, deletes)
        log.warning("no checkpoint could be stored", extra={"reason": type(error).__name__})


def _compile(patterns: PatternSet, loop: asyncio.AbstractEventLoop) -> None:
    """Compiles hyperscan's database beside the running gate; RE2 judges until then, with the same answers."""
    engine = patterns.compile_hyperscan()
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(patterns.use, engine)


def _pem(tls: Any) -> Any:
    import datetime

    return None if tls is None else read_tls(tls, datetime.datetime.now(datetime.UTC))


def _age_s(since_ns: int) -> float:
    return max(0.0, (time.time_ns() - since_ns) / 1e9) if since_ns else 0.0


async def run(config: Config) -> int:
    """Runs a sidecar until a signal ends it; the exit code."""
    configure(config.observe)
    app = App(config)
    try:
        await app.start()
        await app.ended()
    finally:
        await app.stop()
    return 1 if app.failed else 0
