"""What is missing on Kafka, or cannot be reached there, is a gap in the telemetry of those it speaks for (P21)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidecar import app as app_module
from sidecar.app import AWAY_S, App
from sidecar.config import Config
from sidecar.core.span import Speaker
from sidecar.sources.kafka import Gap, KafkaStatus
from sidecar.sources.losses import Losses
from tests.shells.control.kit import Tally

FLEET = Speaker("forwarder:fleet", "attested", None, ("clerk",))


class Source:
    """A Kafka source that is as it is told to be."""

    def __init__(self) -> None:
        self.speaker, self.status = FLEET, KafkaStatus("reading")

    def turn(self, state: Any) -> None:
        self.status = KafkaStatus(state)


class Clock:
    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(app_module, "time", clock)
    return clock


def sidecar(**sections: Any) -> tuple[Any, Source]:
    """An application with one Kafka source, nothing of which has been started."""
    app: Any = App(Config(**sections))
    source = Source()
    app.losses = Losses(Tally())
    app.scrape = SimpleNamespace(kafka={"fleet": source})
    app.service = SimpleNamespace(degraded={}, away={})
    app._record = lambda action: None
    return app, source


def test_records_lost_on_kafka_are_lost_telemetry_of_whom_the_source_speaks_for() -> None:
    app, _ = sidecar()
    app._gap("fleet", Gap("otlp_spans", 0, 10, 17, "expired"))
    assert app.losses.is_recent("agent:clerk")
    assert not app.losses.is_recent("agent:desk")
    [loss] = app.losses.untold()
    assert "kafka_gap: 7 requests" in loss.text


def test_brokers_out_of_reach_for_long_are_away_until_they_are_back(clock: Clock) -> None:
    app, source = sidecar()
    source.turn("down")
    app._look_at_sources()
    clock.now_s += AWAY_S
    app._look_at_sources()
    assert app.service.away == {}, "not before its time"
    clock.now_s += 1
    app._look_at_sources()
    assert app.service.away == {"kafka fleet": FLEET}
    assert app.service.degraded == {}, "other telemetry still comes"
    source.turn("reading")
    app._look_at_sources()
    assert app.service.away == {}
    source.turn("down")
    app._look_at_sources()
    assert app.service.away == {}, "it counts anew"


def test_sidecar_is_not_ready_where_all_its_telemetry_comes_from_there(clock: Clock) -> None:
    app, source = sidecar(otlp={"grpc": None, "http": None})
    source.turn("down")
    for _ in range(2):
        app._look_at_sources()
        clock.now_s += AWAY_S + 1
    assert list(app.service.degraded) == ["kafka"]
    source.turn("reading")
    app._look_at_sources()
    assert app.service.degraded == {}
