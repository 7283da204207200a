"""What Prometheus is shown: the counts, and what stands at the moment, read from the running parts.

On the event loop only references are taken; they are counted, and all is written out, in a thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from sidecar.core.alerts import Alert
from sidecar.core.events import SessionKey
from sidecar.core.gaps import REASONS as GAPS
from sidecar.core.runstate import Run
from sidecar.core.sessions import Session
from sidecar.observe.families import Family
from sidecar.observe.health import Health
from sidecar.observe.metrics import KAFKA_STATES, UNREADY, Metrics
from sidecar.observe.settings import ObserveSettings
from sidecar.service import Service

if TYPE_CHECKING:
    from sidecar.sources.kafka import KafkaSource

LIVE_NS = 300 * 10**9
"""A session seen within this time is live."""


class _Taken(Struct):
    """References taken on the event loop, to be counted elsewhere."""

    now_ns: int
    sessions: list[Session]
    runs: list[tuple[SessionKey, Run]]
    alerts: list[Alert]
    maturity: dict[tuple[str, str], dict[str, str]]


class Scrape:
    """Answers `/metrics`.

    Args:
        inbox: Rows that wait for the core, and the age of the oldest in seconds.
        data_dir: Where the databases are, for the free space there.
        clock_ns: Wall clock, Unix nanoseconds, as the service has it.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        metrics: Metrics,
        service: Service,
        health: Health,
        *,
        inbox: Callable[[], tuple[int, float]] = lambda: (0, 0.0),
        data_dir: Path | None = None,
        settings: ObserveSettings | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._registry, self._metrics, self._service, self._health = registry, metrics, service, health
        self._inbox, self._data_dir, self._clock_ns = inbox, data_dir, clock_ns
        self._stale_ns = int((settings or ObserveSettings()).held_stale * 1e9)
        self.kafka: dict[str, KafkaSource] = {}
        """Sources by their names in the configuration."""
        self._one_by_one = asyncio.Lock()
        ProcessCollector(registry=registry)
        pipeline = service.pipeline
        metrics.expect((detector.name for detector in pipeline.engine.detectors), pipeline.alerts)
        self._writers = {"control": service.control.writer, "telemetry": service.telemetry.writer}
        for name, writer in self._writers.items():
            writer.timed = metrics.commit[name].observe

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """What is said to Prometheus, and its content type, by what it accepts."""
        async with self._one_by_one:
            taken = self._take()
            return await asyncio.to_thread(self._write, taken, accept)

    def _take(self) -> _Taken:
        """On the event loop: numbers that are at hand, and lists of what must be counted."""
        metrics, service, pipeline = self._metrics, self._service, self._service.pipeline
        engine, weaver = pipeline.engine, pipeline.weaver
        rows, age_s = self._inbox()
        metrics.inbox_rows[()], metrics.inbox_age[()] = rows, age_s
        metrics.spans_unmapped[()], metrics.spans_duplicate[()] = weaver.unmapped, weaver.duplicates
        metrics.spans_unbound[()], metrics.spans_cyclic[()] = weaver.unbound, weaver.bindings.cycles
        metrics.sessions_forgotten[()] = pipeline.sessions.evicted
        for name, failures in engine.failures.items():
            metrics.detector_failures[(metrics.detector_label(name),)] = failures
        metrics.detector_off.replace(
            {(metrics.detector_label(d.name),): d.name in engine.off for d in engine.detectors}
        )
        reasons = self._health.reasons()
        metrics.ready[()] = not reasons
        metrics.unready.replace({(reason,): reason in reasons for reason in UNREADY})
        gaps = Counter(reason for reasons in service.gaps.listed.values() for reason in reasons)
        metrics.sessions_degraded.replace({(reason,): gaps[reason] for reason in GAPS})
        metrics.approvals_open[()] = sum(a.state == "open" for a in list(service.approvals.values()))
        self._read_storage()
        self._read_kafka()
        return _Taken(
            now_ns=self._clock_ns(),
            sessions=list(pipeline.sessions),
            runs=list(pipeline.runs),
            alerts=list(pipeline.alerts),
            maturity=engine.maturity(),
        )

    def _read_storage(self) -> None:
        metrics = self._metrics
        for name, writer in self._writers.items():
            metrics.storage_lost[(name,)] = writer.lost
            metrics.storage_failed[(name,)] = bool(writer.failure)
            metrics.storage_low[(name,)] = writer.is_low
            metrics.storage_wal[(name,)] = writer.wal_pages
        metrics.storage_used[()] = self._service.telemetry.used_bytes
        metrics.storage_purged[()] = self._service.telemetry.purged_rows

    def _read_kafka(self) -> None:
        metrics = self._metrics
        metrics.kafka_lag.clear()
        metrics.kafka_position.clear()
        for name, source in self.kafka.items():
            counts, status = source.counts, source.status
            for state in KAFKA_STATES:
                metrics.kafka_state[name, state] = state == status.state
            if status.lag is not None:
                metrics.kafka_lag[(name,)] = status.lag
            for (topic, partition), offset in source.position().items():
                metrics.kafka_position[name, topic, str(partition)] = offset
            fates = {
                "taken": counts.taken, "put_aside": sum(counts.put_aside.values()), "unkept": counts.unkept,
                "tombstone": counts.tombstones, "gap": counts.gaps,
            }  # fmt: skip
            for fate, messages in fates.items():
                metrics.kafka_messages[name, fate] = messages
            troubles = {"wait": counts.waits, "commit_failed": counts.commit_failures, "reconnect": counts.reconnects}
            for trouble, times in troubles.items():
                metrics.kafka_troubles[name, trouble] = times

    def _write(self, taken: _Taken, accept: str) -> tuple[bytes, str]:
        metrics = self._metrics
        live = sum(session.last_ns >= taken.now_ns - LIVE_NS for session in taken.sessions)
        metrics.sessions.replace({("known",): len(taken.sessions), ("live",): live})
        held: dict[tuple[str, ...], float] = {
            (observed, age): 0 for label in metrics.sessions_held.labels[:1] for observed in label.values
            for age in ("fresh", "stale")
        }  # fmt: skip
        for _, run in taken.runs:
            if run.desired == "paused":
                age = "stale" if taken.now_ns - run.requested_ns >= self._stale_ns else "fresh"
                held[run.observed, age] = held.get((run.observed, age), 0) + 1
        metrics.sessions_held.replace(held)
        _tally(metrics.alerts_firing, (metrics.alert_labels(alert) for alert in taken.alerts))
        _tally(
            metrics.models,
            (
                (metrics.detector_label(detector), state)
                for states in taken.maturity.values()
                for detector, state in states.items()
            ),
        )
        if self._data_dir is not None:
            free = os.statvfs(self._data_dir)
            metrics.disk_free[()] = free.f_bavail * free.f_frsize
        if "application/openmetrics-text" in accept:
            body = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return body, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4


def _tally(family: Family, labels: Iterable[tuple[str, ...]]) -> None:
    counted: dict[tuple[str, ...], float] = {}
    for key in labels:
        counted[key] = counted.get(key, 0) + 1
    family.replace(counted)
