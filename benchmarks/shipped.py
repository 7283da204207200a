"""The sidecar's own way from a request's bytes to outcomes, as the service takes it, without doors and stores."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from sidecar import assembly
from sidecar.core.pipeline import Outcome
from sidecar.core.span import LOCAL, Record
from sidecar.observe.metrics import Metrics
from sidecar.observe.settings import ObserveSettings
from sidecar.sources.decode import Limits, decode
from sidecar.sources.identity import realm_of


class Shipped:
    """Takes export requests one after another; hyperscan judges from the first on."""

    def __init__(self) -> None:
        self.pipeline = assembly.pipeline()
        self.pipeline.patterns.use(self.pipeline.patterns.compile_hyperscan())
        self._limits = Limits()
        self._metrics = Metrics(CollectorRegistry(), ObserveSettings())

    def take(self, body: bytes, now_ns: int) -> list[Outcome]:
        """Everything that is done about one request that came at `now_ns`, but for storing it."""
        outcomes = []
        for span in decode("traces", body, "proto", self._limits).spans:
            outcome = self.pipeline.feed(Record(span, realm_of(span, LOCAL), now_ns), now_ns)
            self._metrics.outcome(outcome)
            outcomes.append(outcome)
        outcome = self.pipeline.tick(now_ns)
        self._metrics.outcome(outcome)
        outcomes.append(outcome)
        return outcomes
