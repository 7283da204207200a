"""Whatever the bytes, decoding ends in spans or a `SpanError`; and both forms of a request give the same spans."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.errors import SpanError
from sidecar.sources import wire
from sidecar.sources.decode import NOTES, REFUSED, REJECTED, Limits, begin, decode
from tests.shells.otlp.kit import AT, ID, TRACE, as_json, field, length, logs, pairs, record, span, traces

LIMITS = Limits(spans=50, attributes=20, events=3, links=3, depth=4, text=1024, span_nodes=500, nodes=300)
SAME = Limits(attributes=20, events=3, links=3, depth=4, text=1024)  # how much is in a request is counted in two ways

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | texts | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
attributes = st.lists(st.tuples(texts | st.sampled_from(["a", "b"]), values), max_size=4)
ids = st.sampled_from([TRACE, ID, b"", b"x", bytes(16), bytes(8)])
times = st.sampled_from([0, 1, AT, 2**63, 2**64 - 1])


@st.composite
def span_requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    spans = []
    for number in range(draw(st.integers(0, 3))):
        made = span(
            number + 1,
            draw(attributes),
            trace_id=draw(st.just(TRACE) | ids),
            span_id=draw(st.just(ID) | ids),
            parent_span_id=draw(ids),
            name=draw(texts),
            trace_state=draw(texts),
            start_time_unix_nano=draw(times),
            end_time_unix_nano=draw(times),
            dropped_attributes_count=draw(st.integers(0, 9)),
        )
        made.status.code, made.status.message = draw(st.integers(0, 2)), draw(texts)
        for _ in range(draw(st.integers(0, 4))):
            made.events.add(name=draw(texts), time_unix_nano=draw(times)).attributes.extend(pairs(draw(attributes)))
            made.links.add(trace_id=draw(ids)).attributes.extend(pairs(draw(attributes)))
        spans.append(made)
    request = traces(*spans, resource=draw(attributes))
    request.resource_spans[0].schema_url = draw(texts)
    request.resource_spans[0].scope_spans[0].scope.attributes.extend(pairs(draw(attributes)))
    return request


@st.composite
def log_requests(draw: st.DrawFn) -> ExportLogsServiceRequest:
    records = [
        record(
            draw(attributes),
            draw(values),
            trace_id=draw(ids),
            span_id=draw(ids),
            time_unix_nano=draw(times),
            event_name=draw(texts),
            severity_text=draw(texts),
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    return logs(*records)


def outcome(signal: Any, body: bytes, form: str, limits: Limits = LIMITS) -> Any:
    """What a request came to, and that it came to it by the rules."""
    try:
        decoded = decode(signal, body, form, limits)  # type: ignore[arg-type]
    except SpanError as refused:
        reason = refused.reason
    else:
        reason = ""
    if reason:
        assert reason in REFUSED
        return reason
    assert set(decoded.notes) <= set(NOTES)
    assert set(decoded.rejected) <= set(REJECTED)
    counting = begin(signal, body, form, limits)  # type: ignore[arg-type]
    list(counting.count())
    assert counting.total == len(decoded.spans) + sum(decoded.rejected.values())
    assert all(set(got.notes) <= set(NOTES) for got in decoded.spans)
    assert all(len(got.trace_id) in (32, 0) and len(got.span_id) in (16, 0) for got in decoded.spans)
    assert all(0 <= at < 2**63 for got in decoded.spans for at in (got.start_ns, got.end_ns))
    return decoded.spans, decoded.rejected, decoded.notes


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(span_requests())
def test_spans_are_the_same_in_both_forms(request: ExportTraceServiceRequest) -> None:
    assert outcome("traces", request.SerializeToString(), "proto", SAME) == outcome(
        "traces", as_json(request), "json", SAME
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(log_requests())
def test_log_records_are_the_same_in_both_forms(request: ExportLogsServiceRequest) -> None:
    assert outcome("logs", request.SerializeToString(), "proto", SAME) == outcome(
        "logs", as_json(request), "json", SAME
    )


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat", "truncate"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=6),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=4,
)


def changed(body: bytes, changes: list[tuple[str, float, bytes, int]]) -> bytes:
    for kind, where, junk, size in changes:
        at = int(where * len(body))
        match kind:
            case "flip":
                body = body[:at] + junk + body[at + len(junk) :]
            case "cut":
                body = body[:at] + body[at + size :]
            case "insert":
                body = body[:at] + junk + body[at:]
            case "repeat":
                body = body[:at] + body[at : at + size] * 3 + body[at + size :]
            case _:
                body = body[: max(at, 1)]
    return body


def made_up() -> list[tuple[str, bytes]]:
    """Requests with something of everything in them."""
    odd = [("a", [1, {"b": [2.5, None]}]), ("t", "x" * 2000), ("a", "again"), ("n", float("nan")), ("raw", b"\0")]
    sent = span(1, odd, parent_span_id=ID)
    sent.events.add(name="e").attributes.extend(pairs(odd))
    sent.links.add(trace_id=TRACE).attributes.extend(pairs(odd))
    large = span(2, [(str(n), "y" * 1000) for n in range(18)])
    deep = field(9, field(1, b"d") + field(2, field(5, field(1, field(5, b""))) * 3))
    newer = field(1, field(2, field(2, span(3).SerializeToString() + deep + field(99, b"new"))))
    return [
        ("traces", traces(sent, large).SerializeToString() + newer),
        ("logs", logs(record(odd, {"role": ["user"]})).SerializeToString()),
    ]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(made_up()), CHANGES)
def test_changed_protobuf_ends_in_spans_or_a_span_error(request: tuple[str, bytes], changes: Any) -> None:
    outcome(request[0], changed(request[1], changes), "proto")
    outcome(None, changed(request[1], changes), "proto")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([as_json(traces(span(1, [("a", [1, {"b": 2.5}]), ("k", "text")]))), as_json(logs())]), CHANGES)
def test_changed_json_ends_in_spans_or_a_span_error(body: bytes, changes: Any) -> None:
    outcome(None, changed(body, changes), "json")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_end_in_spans_or_a_span_error(body: bytes) -> None:
    for form in ("proto", "json"):
        outcome(None, body, form)


@given(st.integers(0, 2**64 - 1))
def test_a_number_is_read_as_it_is_written(number: int) -> None:
    assert wire.varint(length(number), 0) == (number, len(length(number)))


def requests(path: Path) -> list[bytes]:
    body, at, found = gzip.decompress(path.read_bytes()), 0, []
    while at < len(body):
        size, at = wire.varint(body, at)
        found.append(body[at : at + size])
        at += size
    return found


@pytest.mark.corpora
def test_captured_requests_are_understood_whole_and_alike_in_both_forms(shared: Path) -> None:
    paths = sorted((shared / "captures").glob("*.pb.gz"))
    assert len(paths) > 200
    for path in paths[::4]:
        signal = "logs" if ".logs." in path.name else "traces"
        kind = ExportLogsServiceRequest if signal == "logs" else ExportTraceServiceRequest
        for body in requests(path):
            request = kind.FromString(body)
            found = decode(None, body, "proto", Limits())
            named = request.resource_logs if signal == "logs" else request.resource_spans
            scopes = [scope for part in named for scope in (part.scope_logs if signal == "logs" else part.scope_spans)]
            expected = sum(len(scope.log_records if signal == "logs" else scope.spans) for scope in scopes)
            assert (found.signal, len(found.spans), found.rejected) == (signal, expected, {}), path.name
            assert decode(None, as_json(request), "json", Limits()).spans == found.spans, path.name


@pytest.mark.corpora
def test_captured_requests_with_changed_bytes_end_in_spans_or_a_span_error(shared: Path) -> None:
    bodies = [body for path in sorted((shared / "captures").glob("*.pb.gz"))[::40] for body in requests(path)[:1]]

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(bodies), CHANGES)
    def check(body: bytes, changes: Any) -> None:
        outcome(None, changed(body, changes), "proto")

    check()
