"""Whether this process lives, and whether it may judge."""

from __future__ import annotations

import time
from collections.abc import Callable

from sidecar.observe.metrics import Metrics
from sidecar.service import Service

TICK_S = 1.0
"""How often the application calls `Service.tick` and `Health.beat`."""
STUCK_S = 10.0
"""A clock that has not ticked for so long is stuck: pauses are not followed up, alerts do not resolve."""


class Health:
    """Looks after one service; `beat` is called every `TICK_S`."""

    def __init__(self, service: Service, metrics: Metrics, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._service, self._metrics, self._clock_s = service, metrics, clock_s
        self._beat_s = clock_s()

    def beat(self) -> None:
        """The clock has ticked; how late it came is how long the event loop was busy."""
        now_s = self._clock_s()
        self._metrics.loop_lag.observe(max(now_s - self._beat_s - TICK_S, 0.0))
        self._beat_s = now_s

    def is_alive(self) -> bool:
        """Whether the clock ticks; when even this is not answered, the event loop is stuck."""
        return self._clock_s() - self._beat_s < STUCK_S

    def reasons(self) -> dict[str, list[str]]:
        """Why nothing irreversible may be allowed now: `metrics.UNREADY`, each with what it is about; {} when ready."""
        service = self._service
        writers = {"control.db": service.control.writer, "telemetry.db": service.telemetry.writer}
        found = {
            "restoring": ["the state before the start"] if service.restoring else [],
            "degraded": sorted(service.degraded),
            "detector_off": sorted(service.pipeline.engine.off),
            "storage_failed": [name for name, writer in writers.items() if writer.failure],
            "disk_full": [name for name, writer in writers.items() if writer.is_low],
            "stuck": [] if self.is_alive() else ["the clock"],
        }
        return {reason: about for reason, about in found.items() if about}
