"""A session of which telemetry is missing waits with what cannot be undone, and people are told (P21)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.events import SessionKey
from sidecar.core.gaps import LEASES, UNTOLD_NS
from sidecar.service import LEASE_NS
from tests.shells.control.kit import Raw, Sidecar, asked, opened
from tests.shells.otlp.kit import span, traces

KEY = SessionKey("local", "s")
LOST_NS = LEASES * LEASE_NS
READ = ("search_documents", {"query": "order"})


class Clock:
    """The service's monotonic clock, which can be put forward."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._ahead_ns, self._loop = 0, sidecar.loop
        sidecar.service._monotonic_ns = lambda: time.monotonic_ns() + self._ahead_ns

    def forward(self, ns: int) -> None:
        def move() -> None:
            self._ahead_ns += ns

        self._loop.call(move)


@pytest.fixture
def clock(running: Sidecar) -> Clock:
    return Clock(running)


def is_allowed(raw: Raw, **fields: Any) -> bool:
    """Whether an irreversible act is allowed; else the sidecar must say that it cannot judge."""
    answer = asked(raw, "s", **fields)
    if answer.answer != pb.ANSWER_ALLOWED:
        assert (answer.answer, answer.judged, bool(answer.retry_after_ms)) == (pb.ANSWER_WAIT, False, True)
    return bool(answer.answer == pb.ANSWER_ALLOWED)


def tell(running: Sidecar, *, late_s: float = 0.0, number: int = 1) -> None:
    """The session's telemetry has a span, which ended so long ago."""
    end_ns = time.time_ns() - int(late_s * 1e9)
    about = [("gen_ai.conversation.id", "s"), ("gen_ai.operation.name", "execute_tool"), ("gen_ai.tool.name", "look")]
    one = span(number, about, start_time_unix_nano=end_ns - 1, end_time_unix_nano=end_ns)
    with Raw(running.otlp) as door:
        export = door.channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            response_deserializer=ExportTraceServiceResponse.FromString,
        )
        assert not export(traces(one).SerializeToString(), timeout=10).partial_success.rejected_spans


def report(raw: Raw, call_id: str) -> None:
    request = pb.ReportOutcomeRequest(session_id="s", call_id=call_id, tool="send_email")
    raw.call("AgentService.ReportOutcome", request, pb.ReportOutcomeResponse)


def degraded(running: Sidecar) -> list[str]:
    with running.people() as people:
        return list(people.status().degraded)


def alerts(running: Sidecar) -> list[Any]:
    with running.people() as people:
        return [alert for alert in people.alerts() if alert.detector == "telemetry_dropped"]


def test_lost_library_makes_irreversible_acts_wait_until_it_is_back(running: Sidecar, raw: Raw, clock: Clock) -> None:
    opened(raw, "s", instance_id="i1")
    assert is_allowed(raw, instance_id="i1")
    clock.forward(LOST_NS)
    assert not is_allowed(raw), "somebody asks in its place"
    assert asked(raw, "s", *READ).answer == pb.ANSWER_ALLOWED
    assert running.wait(lambda: dict(running.service.gaps.listed)) == {KEY: ("library",)}
    assert degraded(running) == ["local/s: library"]
    [alert] = alerts(running)
    assert (alert.realm, alert.session_id) == ("local", "")
    assert is_allowed(raw, instance_id="i1"), "it is back"
    running.wait(lambda: not running.service.gaps.listed)
    assert degraded(running) == []


def test_library_that_says_goodbye_is_not_missed(
    running: Sidecar, raw: Raw, connect: Callable[..., Any], clock: Clock
) -> None:
    agent = connect()
    with agent.session("s"):
        running.wait(lambda: len(running.agents._watches) == 1)
    agent.close()
    running.wait(lambda: len(running.agents._watches) == 0)
    clock.forward(100 * LOST_NS)
    assert is_allowed(raw)


def test_library_that_is_killed_is_missed(
    running: Sidecar, raw: Raw, connect: Callable[..., Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the above: without the goodbye the same end is a loss."""
    monkeypatch.setattr("sidecar.agent.wire.Wire._say_goodbye", lambda wire: None)
    agent = connect()
    with agent.session("s"):
        running.wait(lambda: len(running.agents._watches) == 1)
    agent.close()
    running.wait(lambda: len(running.agents._watches) == 0)
    clock.forward(LOST_NS)
    assert not is_allowed(raw)


def test_act_of_which_no_span_comes_makes_the_next_one_wait(running: Sidecar, raw: Raw, clock: Clock) -> None:
    opened(raw, "s", instance_id="i1")
    assert is_allowed(raw, instance_id="i1", call_id="the-first-call-of-it")
    report(raw, "the-first-call-of-it")
    assert is_allowed(raw, instance_id="i1", call_id="the-second-call-of-it"), "not before its time"
    clock.forward(UNTOLD_NS)
    assert not is_allowed(raw, instance_id="i1")
    assert running.wait(lambda: dict(running.service.gaps.listed)) == {KEY: ("outcome", "span")}
    assert alerts(running)
    with running.people() as people:
        [view] = people.sessions(session_id="s")
        assert "dropped" in view.unscored
    tell(running)
    assert is_allowed(raw, instance_id="i1"), "its telemetry has come"


def test_wrong_clock_makes_irreversible_acts_wait_until_it_is_right(running: Sidecar, raw: Raw) -> None:
    opened(raw, "s")
    tell(running, late_s=30.0)
    assert is_allowed(raw)
    tell(running, late_s=61.0, number=2)
    assert not is_allowed(raw)
    assert running.wait(lambda: dict(running.service.gaps.listed)) == {KEY: ("clock",)}
    tell(running, number=3)
    assert is_allowed(raw)


def test_agent_without_the_library_may_be_silent_for_a_day(running: Sidecar, raw: Raw, clock: Clock) -> None:
    opened(raw, "s")
    tell(running)
    clock.forward(24 * 3600 * 10**9)
    assert is_allowed(raw)
    assert degraded(running) == []


def test_sources_out_of_reach_make_those_wait_whose_telemetry_they_bring(running: Sidecar, raw: Raw) -> None:
    from sidecar.core.span import Speaker

    opened(raw, "s")
    running.loop.call(
        lambda: running.service.away.update({"kafka fleet": Speaker("forwarder:fleet", "attested", None, ("*",))})
    )
    assert is_allowed(raw), "a forwarder speaks for agents, not for whoever is on loopback"
    running.loop.call(lambda: running.service.away.update({"kafka local": Speaker("local")}))
    assert not is_allowed(raw)
    assert degraded(running) == ["kafka fleet", "kafka local"]
    running.loop.call(running.service.away.clear)
    assert is_allowed(raw)


def test_posture_observe_denies_nothing(start: Callable[..., Sidecar]) -> None:
    running = start(policy={"posture": "observe"})
    clock = Clock(running)
    with Raw(running.address) as raw:
        opened(raw, "s", instance_id="i1")
        clock.forward(LOST_NS)
        assert is_allowed(raw)
