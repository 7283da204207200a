"""What is refused or lost is told of: by identity and reason, at once, and then not too often."""

from __future__ import annotations

import pytest

from sidecar.core.span import Speaker
from sidecar.sources.losses import AGAIN_NS, RECENT_NS, Losses
from tests.shells.otlp.kit import Tally

CLERK = Speaker("agent:clerk", "authenticated", "clerk")
COLLECTOR = Speaker("forwarder:all", "authenticated", None, ("*",))


class Clock:
    now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def losses(clock: Clock) -> Losses:
    return Losses(Tally(), clock_ns=clock)


def refuse(
    losses: Losses, speaker: Speaker | None = CLERK, reason: str = "rate_spans", door: str = "otlp_grpc"
) -> None:
    losses.refused(door, reason, requests=1, spans=7, speaker=speaker)


def test_first_loss_is_told_at_once_and_what_goes_on_every_few_seconds(losses: Losses, clock: Clock) -> None:
    refuse(losses)
    [loss] = losses.untold()
    assert (loss.speaker, dict(loss.requests), dict(loss.spans)) == (CLERK, {"rate_spans": 1}, {"rate_spans": 7})
    assert loss.text.startswith("telemetry was refused or lost (rate_spans: 1 requests, 7 spans)")
    refuse(losses)
    assert list(losses.untold()) == []
    clock.now_ns += AGAIN_NS
    assert [loss.spans.total() for loss in losses.untold()] == [14]
    clock.now_ns += AGAIN_NS
    assert list(losses.untold()) == []


def test_identity_is_not_wholly_seen_for_a_while_and_no_other_is(losses: Losses, clock: Clock) -> None:
    refuse(losses)
    assert losses.is_recent("agent:clerk")
    assert not losses.is_recent("agent:amy")
    clock.now_ns += RECENT_NS + 1
    assert not losses.is_recent("agent:clerk")


def test_what_a_forwarder_loses_is_missing_of_whom_it_speaks_for(losses: Losses) -> None:
    refuse(losses, COLLECTOR, "malformed")
    assert losses.is_recent("agent:clerk")
    assert losses.is_recent("forwarder:all")
    assert not losses.is_recent("local")


@pytest.mark.parametrize(("speaker", "door"), [(COLLECTOR, "otlp_grpc"), (CLERK, "kafka"), (None, "otlp_http")])
def test_who_keeps_it_and_comes_again_has_lost_nothing(losses: Losses, speaker: Speaker | None, door: str) -> None:
    refuse(losses, speaker, "busy", door)
    assert list(losses.untold()) == []


def test_counts_are_passed_on(clock: Clock) -> None:
    counts = Tally()
    losses = Losses(counts, clock_ns=clock)
    losses.stored("otlp_grpc", "traces", 3)
    refuse(losses)
    losses.lost("otlp_http", 2, speaker=CLERK)
    [loss] = losses.untold()
    assert loss.amount == 1 + 7 + 1 + 2
    assert counts.spans["stored"] == 3
