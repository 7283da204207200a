"""What a real core does is what is counted."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from sidecar.control.auth import Counts as ControlApiCounts
from sidecar.core.alerts import SYSTEM_REASONS
from sidecar.core.events import Agent, SessionKey
from sidecar.observe.metrics import KAFKA_STATES, VERDICTS, Metrics
from sidecar.observe.settings import ObserveSettings
from sidecar.service import Meter, Watcher
from sidecar.sources.intake import REASONS, Counts
from sidecar.sources.kafka import KafkaStatus
from sidecar.storage import Approval
from tests.shells.observe.scene import Scene

HOSTILE = (
    "<script>alert(1)</script>", '"} 1\nsidecar_ready 1\n#', "a\x1b]0;x\x07", "\u202egnp", "{{7*7}}", "%n%s", "=cmd()",
    "a\x00b", "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"), "x" * 100_000, "'; DROP TABLE a;--",
    "123e4567-e89b-12d3-a456-426614174000", "naïve", "\r\n\r\n", "\\", "$(id)",
)  # fmt: skip


def test_it_fits_the_seams_that_it_is_made_for():
    metrics = Metrics(CollectorRegistry())
    meter: Meter = metrics
    watcher: Watcher = metrics
    counts: Counts = metrics
    control: ControlApiCounts = metrics.control
    for seam in (Meter, Watcher, Counts, ControlApiCounts):
        for name in [name for name in vars(seam) if not name.startswith("_")]:
            wanted = inspect.signature(getattr(seam, name)).parameters
            given = inspect.signature(getattr(type(control if seam is ControlApiCounts else metrics), name)).parameters
            assert list(wanted) == list(given), name
    assert meter is watcher is counts


async def test_what_the_control_api_tells_is_counted(scene):
    control = scene.metrics.control
    control.denied("agents", "AgentService.Watch", "forbidden")
    control.refused("AgentService.Authorize", "NOT_FOUND")
    control.dropped_spans(7)
    for reason in SYSTEM_REASONS:
        control.asked("wait", reason, 0.001)
    control.asked("hold", "judged", 0.001)
    assert await scene.value("sidecar_control_denied_total", method="AgentService.Watch", reason="forbidden") == 1
    assert await scene.value("sidecar_control_refused_total", method="AgentService.Authorize", code="NOT_FOUND") == 1
    assert await scene.value("sidecar_agents_dropped_spans_total") == 7
    assert await scene.value("sidecar_gate_answers_total", answer="wait", ground="system") == len(SYSTEM_REASONS)
    assert await scene.value("sidecar_gate_refusals_total", reason="behind") == 1
    assert await scene.value("sidecar_gate_answers_total", answer="hold", ground="judged") == 1


def test_closed_lists_are_those_of_the_parts_that_tell():
    states = typing.get_type_hints(KafkaStatus)["state"]
    assert set(typing.get_args(states)) == set(KAFKA_STATES)
    proto = (Path(__file__).parents[3] / "proto/sidecar/control/v1/control.proto").read_text()
    assert all(f'"{verdict}"' in proto for verdict in VERDICTS)


async def test_what_a_session_goes_through_is_counted(scene):
    scene.open("s1", "mailer")
    scene.ask("s1", "mailer", "read", seconds=0.004, deciding_s=0.001)
    scene.ask("s1", "mailer", "send", mark="high")
    scene.ask("s1", "mailer", "send", mark="critical")
    scene.now_s = 0.5
    scene.acknowledge("s1")
    scene.ask("s1", "mailer", "read")
    value = scene.value
    assert await value("sidecar_acts_total", role="mailer", asked="yes", scored="yes") == 4
    assert await value("sidecar_findings_total", detector="marked", severity="critical") == 1
    assert await value("sidecar_alerts_opened_total") == 1
    assert await value("sidecar_alerts_firing", detector="marked", severity="critical", role="mailer") == 1
    assert await value("sidecar_gate_answers_total", answer="allow", ground="none") == 1
    assert await value("sidecar_gate_answers_total", answer="hold", ground="judged") == 1
    assert await value("sidecar_gate_answers_total", answer="deny", ground="judged") == 2
    assert await value("sidecar_gate_seconds_count") == 4
    assert await value("sidecar_pauses_total", by="detector", detector="marked", severity="critical") == 1
    assert await value("sidecar_pauses_total") == 1
    assert await value("sidecar_pauses_unenforced_total") == 0
    assert await value("sidecar_pause_confirm_seconds_sum") == 0.5
    assert await value("sidecar_pause_reports_total", observed="acknowledged") == 1
    assert await value("sidecar_sessions_held", observed="acknowledged", age="fresh") == 1
    assert await value("sidecar_sessions_held") == 1


async def test_a_pause_that_nobody_confirms_is_told_once(scene):
    scene.open("s1", "mailer")
    scene.pause("s1")
    for scene.now_s in (2.0, 4.0, 6.0):
        scene.service.tick()
    assert await scene.value("sidecar_pause_reports_total", observed="unconfirmed") == 1
    assert await scene.value("sidecar_sessions_held", observed="unconfirmed") == 1
    scene.acknowledge("s1")
    assert await scene.value("sidecar_sessions_held", observed="unconfirmed") == 0
    assert await scene.value("sidecar_pause_confirm_seconds_count") == 1


async def test_all_sessions_of_a_tree_are_paused_and_found_out_once(scene):
    scene.open("parent", "planner")
    for child in ("a", "b"):
        scene.open(child, "planner", parent="parent")
    scene.act("parent", "planner", "send", mark="critical", late_s=2.0)
    assert await scene.value("sidecar_pauses_total", by="detector", severity="critical") == 3
    assert await scene.value("sidecar_detection_lag_seconds_count") == 1
    assert await scene.value("sidecar_detection_lag_seconds_sum") == pytest.approx(2.0)
    scene.pause("parent")  # held already
    assert await scene.value("sidecar_pauses_total") == 3


async def test_a_sender_whose_clock_is_ahead_detects_nothing_before_it_happens(scene):
    scene.act("s1", "mailer", "send", mark="critical", late_s=-3600.0)
    assert await scene.value("sidecar_detection_lag_seconds_count") == 1
    assert await scene.value("sidecar_detection_lag_seconds_sum") == 0


async def test_acts_that_could_not_be_judged_leave_no_denominator(scene):
    scene.act("s1", "mailer", "read")
    scene.act("s1", "mailer", "read", dropped=1)
    scene.act("s1", "mailer", "read", dropped=1, **{"break": 1})
    assert await scene.value("sidecar_acts_total", role="mailer", scored="no") == 2
    assert await scene.value("sidecar_acts_total", role="mailer") == 3
    assert await scene.value("sidecar_acts_unscored_total", reason="overflow") == 2
    assert await scene.value("sidecar_acts_unscored_total", reason="detector_failed") == 1
    assert await scene.value("sidecar_detector_failures_total", detector="broken") == 1


async def test_a_detector_that_is_off_is_told_and_makes_the_sidecar_not_ready(scene):
    assert await scene.value("sidecar_ready") == 1
    for _ in range(3):
        scene.ask("s1", "mailer", "read", **{"break": 1})
    assert await scene.value("sidecar_detector_off", detector="broken") == 1
    assert await scene.value("sidecar_ready") == 0
    assert await scene.value("sidecar_unready", reason="detector_off") == 1
    assert scene.health.reasons() == {"detector_off": ["broken"]}


async def test_fail_open_is_counted_and_so_is_what_did_not_ask(scene):
    scene.open("s1", "mailer")
    scene.ran_unanswered("s1", "mailer")
    scene.act("s1", "mailer", "read")
    assert await scene.value("sidecar_acts_fail_open_total") == 1
    assert await scene.value("sidecar_findings_total", detector="ran_unanswered") == 1
    assert await scene.value("sidecar_findings_total", detector="ungated_act") == 1
    assert await scene.value("sidecar_acts_total", asked="no") == 2


async def test_models_are_told_by_maturity(scene):
    for role, acts in (("mailer", 5), ("planner", 1)):
        for _ in range(acts):
            scene.act(f"s-{role}", role, "read")
    assert await scene.value("sidecar_models", detector="habit", state="active") == 1
    assert await scene.value("sidecar_models", detector="habit", state="learning") == 1


async def test_what_was_open_before_a_restart_is_not_opened_again(tmp_path):
    first = Scene(tmp_path / "one", ObserveSettings(first_zero=0))
    first.act("s1", "mailer", "send", mark="medium")
    (alert,) = first.pipeline.alerts
    await first.close()
    metrics = Metrics(CollectorRegistry(), ObserveSettings(first_zero=0))
    metrics.expect(["marked"], [alert])
    metrics._alerted([alert, replace(alert, count=2)])
    assert sum(metrics.alerts_opened.values()) == 0
    metrics._alerted([replace(alert, fingerprint="another")])
    assert sum(metrics.alerts_opened.values()) == 1


async def test_people_are_counted(scene):
    scene.act("s1", "mailer", "send", mark="medium")
    (alert,) = scene.pipeline.alerts
    scene.metrics.alert_changed(alert)
    scene.metrics.alert_changed(replace(alert, verdict="false_positive"))
    assert await scene.value("sidecar_reviews_total", detector="marked", verdict="false_positive") == 1
    assert await scene.value("sidecar_reviews_total") == 1
    approval = Approval("d1", SessionKey("local", "s1"), Agent(), "send", b"", 0, 2**62)
    scene.service.approvals["d1"] = approval
    scene.metrics.approval_changed(approval)
    assert await scene.value("sidecar_approvals_open") == 1
    assert await scene.value("sidecar_review_seconds_count") == 0
    scene.service.approvals["d1"] = decided = replace(approval, state="approved", decided_ns=40 * 10**9)
    scene.metrics.approval_changed(decided)
    assert await scene.value("sidecar_approvals_open") == 0
    assert await scene.value("sidecar_review_seconds_sum", outcome="approved") == 40


async def test_what_is_held_for_long_is_stale(scene):
    scene.pause("s1")
    scene.now_s = 3599.0
    assert await scene.value("sidecar_sessions_held", age="stale") == 0
    scene.now_s = 3600.0
    assert await scene.value("sidecar_sessions_held", age="stale", observed="unenforced") == 1


async def test_sessions_that_were_seen_lately_are_live(scene):
    scene.act("s1", "mailer", "read")
    scene.now_s = 301.0
    scene.act("s2", "mailer", "read")
    assert await scene.value("sidecar_sessions", state="known") == 2
    assert await scene.value("sidecar_sessions", state="live") == 1


async def test_a_commit_of_a_real_database_is_timed(scene):
    scene.pause("s1")
    await scene.control.writer.submit(lambda connection: None, urgent=True)
    assert await scene.value("sidecar_storage_commit_seconds_count", database="control") >= 1


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0", "*/*;q=x, \x7f;;"])
async def test_nothing_of_an_agents_text_reaches_the_page(scene, accept):
    for number, text in enumerate(HOSTILE):
        scene.act(f"{text}{number}", text, text, mark="medium", late_s=0.1, **{text[:50]: text})
        scene.open(text, text)
        scene.ask(text, text, f"send{text}", mark="high", text=text)
    page = await scene.page(accept)
    families = list((openmetrics if "openmetrics" in accept else plain)(page))
    assert sum(family.name.startswith("sidecar_") for family in families) > 40
    values = {value for family in families for sample in family.samples for value in sample.labels.values()}
    assert not [text for text in HOSTILE for value in values if text in value]
    assert not [
        character
        for character in page
        if not character.isascii() or (not character.isprintable() and character != "\n")
    ]
    assert await scene.value("sidecar_ready") == 1
    assert {sample.labels["role"] for f in families for sample in f.samples if "role" in sample.labels} == {"other"}


async def test_a_flood_of_roles_and_sessions_makes_no_flood_of_series(tmp_path):
    scene = Scene(tmp_path / "data", ObserveSettings(first_zero=0, max_roles=5, roles=("billing",)))
    for number in range(300):
        scene.act(f"session-{number}", f"agent-{number}", f"tool-{number}", mark="medium")
        scene.act(f"own-{number}", f"own-{number}", "read")  # an agent that calls itself as its session
    scene.act("s", "billing", "send", mark="medium")
    roles = {labels[0] for labels in scene.metrics.acts}
    assert roles == {*(f"agent-{number}" for number in range(5)), "billing", "other"}
    assert len((await scene.page()).splitlines()) < 1200
    assert await scene.value("sidecar_acts_total", role="other") == 300 - 5 + 300
    await scene.close()


DOORS = ("otlp_grpc", "otlp_http", "kafka")


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("stored"), st.sampled_from(DOORS), st.integers(0, 999)),
            st.tuples(st.just("lost"), st.sampled_from(DOORS), st.integers(0, 999)),
            st.tuples(st.sampled_from(REASONS), st.sampled_from(DOORS), st.integers(0, 999)),
        )
    )
)
def test_sent_is_stored_and_refused_and_lost(told):
    """P7: nothing that comes in goes uncounted."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, ObserveSettings(first_zero=0))
    for fate, door, spans in told:
        if fate == "stored":
            metrics.stored(door, "traces", spans)
        elif fate == "lost":
            metrics.lost(door, spans)
        else:
            metrics.refused(door, fate, requests=1, spans=spans)
    for door in DOORS:
        sent = sum(spans for _, at, spans in told if at == door)
        counted = sum(
            sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name in ("sidecar_spans_stored_total", "sidecar_spans_refused_total", "sidecar_spans_lost_total")
            and sample.labels["door"] == door
        )
        assert counted == sent
