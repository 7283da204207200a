"""While telemetry of an agent is missing its irreversible acts wait, and one alert that grows says so."""

from __future__ import annotations

import pytest

from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.span import LOCAL
from sidecar.sources.losses import Losses
from tests.shells.control.kit import Raw, Tally, asked, opened


@pytest.fixture
def losing(start):
    """A sidecar that can be told of losses, by the posture of its agents."""

    def made(posture: str = "guard"):
        sidecar = start(policy={"posture": posture})
        sidecar.service.losses = Losses(Tally())
        return sidecar

    return made


def lose(sidecar, spans):
    sidecar.loop.call(lambda: sidecar.service.losses.note(LOCAL, "rate_spans", requests=1, spans=spans))


def alerts(sidecar):
    with sidecar.people() as people:
        return [alert for alert in people.alerts() if alert.detector == "telemetry_dropped"]


@pytest.mark.parametrize("posture", ["guard", "enforce"])
def test_irreversible_act_waits_and_a_reversible_one_does_not(losing, posture):
    sidecar = losing(posture)
    with Raw(sidecar.address) as raw:
        opened(raw, "s")
        assert asked(raw, "s").answer == pb.ANSWER_ALLOWED
        lose(sidecar, 7)
        waits = asked(raw, "s")
        assert (waits.answer, waits.judged, bool(waits.retry_after_ms)) == (pb.ANSWER_WAIT, False, True)
        assert asked(raw, "s", "search_documents", {"query": "order"}).answer == pb.ANSWER_ALLOWED


def test_posture_observe_denies_nothing(losing):
    sidecar = losing("observe")
    with Raw(sidecar.address) as raw:
        opened(raw, "s")
        lose(sidecar, 7)
        assert asked(raw, "s").answer == pb.ANSWER_ALLOWED


def test_one_alert_says_how_much_is_missing(losing):
    sidecar = losing()
    with Raw(sidecar.address) as raw:
        opened(raw, "s")
        lose(sidecar, 7)
        sidecar.wait(lambda: len(sidecar.service.pipeline.alerts) == 1)
        [alert] = alerts(sidecar)
        assert (alert.session_id, alert.realm) == ("", "local")
        assert "rate_spans: 1 requests, 7 spans" in alert.text
        with sidecar.people() as people:
            [view] = people.sessions(session_id="s")
            assert "dropped" in view.unscored
            closed = people.review(alert.fingerprint, "true_positive", reason="seen")
            assert closed.state == "resolved"
