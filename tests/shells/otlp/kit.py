"""Requests to send, and what stands behind a door in these tests: an inbox in memory, a feeder, counts, a doorman."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire

from sidecar.core.span import LOCAL, Span, Speaker
from sidecar.errors import ControlError, OutsideError
from sidecar.sources import Row
from sidecar.sources.decode import NOTES
from sidecar.sources.intake import REASONS

AT = 1_700_000_000_000_000_000
TRACE, ID = bytes(range(1, 17)), bytes(range(1, 9))


def value(told: Any) -> AnyValue:
    """A Python value as OTLP has it; None is an empty value."""
    match told:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=told)
        case int():
            return AnyValue(int_value=told)
        case float():
            return AnyValue(double_value=told)
        case str():
            return AnyValue(string_value=told)
        case bytes():
            return AnyValue(bytes_value=told)
        case list():
            nested = AnyValue()
            nested.array_value.SetInParent()
            nested.array_value.values.extend(map(value, told))
            return nested
        case _:
            nested = AnyValue()
            nested.kvlist_value.SetInParent()
            nested.kvlist_value.values.extend(pairs(told.items()))
            return nested


def pairs(told: Iterable[tuple[str, Any]]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value(item)) for key, item in told]


def span(number: int = 1, attributes: Sequence[tuple[str, Any]] = (), **fields: Any) -> Wire:
    """A span of good form; `number` makes its id."""
    told = {
        "trace_id": TRACE,
        "span_id": number.to_bytes(8, "big"),
        "name": "execute_tool send",
        "start_time_unix_nano": AT,
        "end_time_unix_nano": AT + 1000,
        **fields,
    }
    return Wire(attributes=pairs(attributes), **told)


def record(attributes: Sequence[tuple[str, Any]] = (), body: Any = None, **fields: Any) -> LogRecord:
    """A log record of good form."""
    told = {"trace_id": TRACE, "span_id": ID, "observed_time_unix_nano": AT, "event_name": "gen_ai.choice", **fields}
    log = LogRecord(attributes=pairs(attributes), **told)
    if body is not None:
        log.body.CopyFrom(value(body))
    return log


def traces(
    *spans: Wire, resource: Sequence[tuple[str, Any]] = (("service.name", "mailer"),)
) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    about = request.resource_spans.add()
    about.resource.attributes.extend(pairs(resource))
    scope = about.scope_spans.add()
    scope.scope.name = "tests"
    scope.spans.extend(spans or (span(),))
    return request


def logs(*records: LogRecord) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.extend(records or (record(),))
    return request


def tree(request: Any) -> dict[str, Any]:
    """A request as the object that its OTLP/JSON is."""
    told = MessageToDict(request, use_integers_for_enums=True)
    stack: list[Any] = [told]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            for key in ("traceId", "spanId", "parentSpanId"):
                if isinstance(node.get(key), str):
                    node[key] = base64.b64decode(node[key]).hex()
            stack += node.values()
        elif isinstance(node, list):
            stack += node
    return told


def as_json(request: Any) -> bytes:
    return msgspec.json.encode(tree(request))


def length(size: int) -> bytes:
    """A varint."""
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


def field(number: int, content: bytes) -> bytes:
    """A field that holds bytes or a message."""
    return length(number << 3 | 2) + length(len(content)) + content


def delimited(*requests: bytes) -> bytes:
    return b"".join(length(len(request)) + request for request in requests)


class FakeInbox:
    """Rows in memory. It fails with `fails_with` while that is set, and waits for `open` before it commits."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.fails_with: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    async def append(self, row: Row) -> int:
        self.asked.set()
        await self.open.wait()
        if self.fails_with:
            raise self.fails_with
        self.rows.append(row)
        return len(self.rows)

    def read(self, after: int, limit: int = 64) -> Sequence[tuple[int, Row]]:
        return list(enumerate(self.rows, 1))[after : after + limit]


class FakeFeeder:
    """Remembers what it was offered."""

    def __init__(self) -> None:
        self.offered: list[tuple[int, list[Span]]] = []

    def offer(self, seq: int, row: Row, spans: Sequence[Span]) -> None:
        self.offered.append((seq, list(spans)))

    @property
    def spans(self) -> list[Span]:
        return [span for _, spans in self.offered for span in spans]


class Tally:
    """Counts, kept as they come."""

    def __init__(self) -> None:
        self.spans: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.doors: set[str] = set()

    def stored(self, door: str, kind: str, spans: int) -> None:
        self.doors.add(door)
        self.spans["stored"] += spans
        self.requests[kind, "stored"] += 1

    def refused(self, door: str, reason: str, *, requests: int, spans: int, speaker: Speaker | None = None) -> None:
        assert reason in REASONS
        self.doors.add(door)
        self.spans["refused"] += spans
        self.reasons[reason] += requests or spans

    def lost(self, door: str, spans: int, *, speaker: Speaker | None = None) -> None:
        self.doors.add(door)
        self.spans["lost"] += spans

    def noted(self, door: str, note: str, spans: int) -> None:
        assert note in NOTES
        self.notes[note] += spans

    def ignored(self, door: str, kind: str) -> None:
        self.requests[kind, "ignored"] += 1


class FakeDoorman:
    """Knows the tokens it is given; on loopback without one everybody is local."""

    def __init__(self, known: dict[str, Speaker] | None = None, *, asks: bool = False) -> None:
        self.known, self.asks = known or {}, asks
        self.asked: list[tuple[str | None, bool]] = []

    def identify(self, token: str | None, *, loopback: bool) -> Speaker:
        self.asked.append((token, loopback))
        if token in self.known:
            return self.known[token]
        if token is None and loopback and not self.asks:
            return LOCAL
        raise ControlError("UNAUTHENTICATED", "no such token")


class Broken(OutsideError):
    """A failure that says nothing about itself."""
