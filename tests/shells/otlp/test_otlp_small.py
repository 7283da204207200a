"""Small plain requests are read in another way, with the same result; all others are left to the one that reads all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.conversations import Conversation
from sidecar.control.v1 import control_pb2 as pb
from sidecar.sources.decode import Limits, begin
from sidecar.sources.otlp_small import SMALL, Small
from tests.shells.otlp.kit import AT, TRACE, field, pairs, span, traces
from tests.shells.otlp.test_decode_properties import CHANGES, LIMITS, changed, span_requests

PLAIN = [("text", "said"), ("none", ""), ("n", 3), ("yes", True), ("x", 0.5), ("raw", b"\0"), ("list", ["a", "b"])]


def both(body: bytes, limits: Limits) -> tuple[Any, Any]:
    """What either way of reading makes of it; None for what is not for the quick one."""
    small = Small("traces", body, limits)
    quick = small.read()
    if quick is None:
        return None, None
    whole = begin("traces", body, "proto", limits)
    list(whole.count())
    spans = [one for one in whole.spans() if one is not None]
    return (quick, small.rejected, small.notes), (spans, whole.rejected, whole.notes)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(span_requests(), st.sampled_from([LIMITS, Limits()]))
def test_both_ways_of_reading_say_the_same(request: ExportTraceServiceRequest, limits: Limits) -> None:
    quick, whole = both(request.SerializeToString(), limits)
    assert quick == whole


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES)
def test_both_say_the_same_of_changed_bytes(changes: Any) -> None:
    request = traces(span(1, PLAIN), span(2, PLAIN, span_id=b"\x02" * 8))
    quick, whole = both(changed(request.SerializeToString(), changes), LIMITS)
    assert quick == whole


def test_what_a_question_carries_is_read_the_quick_way() -> None:
    questions = [pb.AuthorizeRequest.FromString(asked.body) for asked in Conversation(1).questions(5)]
    carried = [body for question in questions for body in question.carried]
    assert len(carried) == 9
    for body in carried:
        quick, whole = both(body, Limits())
        assert quick is not None
        assert quick == whole


def test_plain_values_are_kept_as_they_are() -> None:
    quick, whole = both(traces(span(1, PLAIN)).SerializeToString(), Limits())
    assert quick == whole
    assert quick[0][0].attributes == dict(PLAIN)


def odd(**fields: Any) -> ExportTraceServiceRequest:
    return traces(span(1, PLAIN, **fields))


def with_event() -> ExportTraceServiceRequest:
    request = odd()
    request.resource_spans[0].scope_spans[0].spans[0].events.add(name="e", time_unix_nano=AT)
    return request


def with_link() -> ExportTraceServiceRequest:
    request = odd()
    request.resource_spans[0].scope_spans[0].spans[0].links.add(trace_id=TRACE)
    return request


def with_scope_attributes() -> ExportTraceServiceRequest:
    request = odd()
    request.resource_spans[0].scope_spans[0].scope.attributes.extend(pairs(PLAIN))
    return request


@pytest.mark.parametrize(
    "body",
    [
        with_event().SerializeToString(),
        with_link().SerializeToString(),
        with_scope_attributes().SerializeToString(),
        odd(trace_state="a=b").SerializeToString(),
        traces(span(1, [("a", "1"), ("a", "2")])).SerializeToString(),
        traces(span(1, [("a", float("nan"))])).SerializeToString(),
        traces(span(1, [("a", {"b": 1})])).SerializeToString(),
        traces(span(1, [("a", [1])])).SerializeToString(),
        traces(span(1, [("a", "x" * SMALL)])).SerializeToString(),
        odd().SerializeToString() + field(99, b"new"),
        odd().SerializeToString()[:-1],
    ],
    ids=[
        "event",
        "link",
        "scope attributes",
        "trace state",
        "key twice",
        "nan",
        "map",
        "numbers",
        "large",
        "newer",
        "cut",
    ],
)
def test_what_is_not_plain_is_left_to_the_other(body: bytes) -> None:
    assert Small("traces", body, Limits()).read() is None
