"""OTLP in protobuf: counted and cut into records on the wire, then parsed record by record."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.common.v1 import common_pb2 as common
from opentelemetry.proto.logs.v1 import logs_pb2 as logs
from opentelemetry.proto.resource.v1 import resource_pb2 as resources
from opentelemetry.proto.trace.v1 import trace_pb2 as traces

from sidecar.core.span import Span, SpanEvent
from sidecar.errors import SpanError
from sidecar.sources import wire
from sidecar.sources.decoding import DEEPEST, TOO_DEEP, About, Decoding, link_of

_LARGE = 16 * 1024  # bytes of a record above which it is measured before it is parsed, and read in steps
_STEP = 32  # values read between two stops

_UNKNOWN = 1_000  # fields that nobody knows in one record: the parser is slow with them

T = TypeVar("T")
Steps = Generator[None, None, T]


class Protobuf(Decoding):
    def _count(self) -> Iterator[None]:
        limits = self._limits
        found = yield from wire.split(self._body, most_records=limits.spans, most_fields=8 * limits.spans)
        if found.unknown:
            self.notes["unknown_field"] = found.unknown
        self.total, self._resources = found.count, found.resources
        if self.signal is None and found.resources:
            self.signal = wire.signal(self._body, *found.resources[0].scopes[0].records[0]) or "traces"

    def _spans(self) -> Iterator[Span | None]:
        kind: Any = traces.Span
        read: Callable[[Any, About], Steps[Span | None]] = self._read_span
        fields, number = wire.SPAN, 9
        if self.signal == "logs":
            kind, fields, number, read = logs.LogRecord, wire.LOG, 6, self._read_log
        limits = self._limits
        for part in self._resources:
            resource, marks = yield from self._read_resource(part)
            for scope in part.scopes:
                about = yield from self._read_scope(scope, resource, marks, part.schema)
                for at, stop in scope.records:
                    unknown = -1
                    if stop - at > _LARGE:
                        direct, seen, unknown = yield from wire.measure(
                            self._body,
                            at,
                            stop,
                            fields,
                            attributes=number,
                            most_attributes=limits.attributes,
                            most_fields=limits.span_nodes,
                        )
                        if direct > limits.attributes or seen > limits.span_nodes or unknown > _UNKNOWN:
                            self._reject("too_many_attributes" if direct > limits.attributes else "too_many_nodes")
                            yield None
                            continue
                    self._large = stop - at > limits.text
                    message = yield from self._parse(kind, self._body[at:stop], fields)
                    if len(message.attributes) > limits.attributes:
                        self._reject("too_many_attributes")
                        yield None
                        continue
                    if unknown > 0 or (unknown < 0 and len(UnknownFieldSet(message))):
                        self._marks.append("unknown_field")
                    yield (yield from read(message, about))

    def _parse(self, kind: Any, body: bytes, fields: wire.Message) -> Steps[Any]:
        try:
            return kind.FromString(body)
        except DecodeError:
            # Where the reason is that values are nested deeper than the parser goes, what lies too deep is left out.
            mark = common.AnyValue(string_value=TOO_DEEP).SerializeToString()
            shallow = yield from wire.pruned(body, fields, depth=self._limits.depth, most=DEEPEST, instead=mark)
            if shallow == body:
                raise
            self._marks.append("too_deep")
            return kind.FromString(shallow)

    def _read_resource(self, part: wire.Resource) -> Steps[tuple[dict[str, Any], tuple[str, ...]]]:
        yield from self._measure(part.message, wire.RESOURCE, 1)
        resource = yield from self._parse(resources.Resource, part.message, wire.RESOURCE)
        return self._end((yield from self._attributes(resource.attributes)))

    def _read_scope(
        self, part: wire.Scope, resource: dict[str, Any], marks: tuple[str, ...], schema: bytes
    ) -> Steps[About]:
        yield from self._measure(part.message, wire.SCOPE, 3)
        scope = yield from self._parse(common.InstrumentationScope, part.message, wire.SCOPE)
        rest: dict[str, Any] = {}
        if schemas := [address.decode() for address in (schema, part.schema) if address]:
            rest["schema_url"] = schemas
        if scope.attributes:
            rest["scope_attributes"] = yield from self._attributes(scope.attributes)
        rest, more = self._end(rest)
        return About(resource, self._cut(scope.name), rest, marks + more)

    def _measure(self, message: bytes, fields: wire.Message, attributes: int) -> Steps[None]:
        self._large = len(message) > self._limits.text
        most = self._limits.span_nodes
        if len(message) > _LARGE:
            _, seen, _ = yield from wire.measure(
                message, 0, len(message), fields, attributes=attributes, most_attributes=most, most_fields=most
            )
            if seen > most:
                raise SpanError("too_many_nodes", "more values than a resource or scope may hold")

    def _read_span(self, span: traces.Span, about: About) -> Steps[Span | None]:
        limits = self._limits
        attributes = yield from self._attributes(span.attributes)
        events = []
        if span.events:
            for number, event in enumerate(self._first(span.events, limits.events), 1):
                told = yield from self._attributes(event.attributes)
                events.append(SpanEvent(event.name, self._time(event.time_unix_nano), told))
                if number % _STEP == 0:
                    yield
        rest: dict[str, Any] = {}
        if span.trace_state:
            rest["trace_state"] = span.trace_state
        if span.links:
            rest["links"] = []
            for number, link in enumerate(self._first(span.links, limits.links), 1):
                told = yield from self._attributes(link.attributes)
                rest["links"].append(link_of(link.trace_id, link.span_id, link.trace_state, told))
                if number % _STEP == 0:
                    yield
        status = (span.status.code, span.status.message) if span.HasField("status") else (0, "")
        return self._span(
            about,
            (span.trace_id, span.span_id, span.parent_span_id),
            span.name,
            (span.start_time_unix_nano, span.end_time_unix_nano),
            attributes,
            tuple(events),
            status,
            span.dropped_attributes_count,
            rest,
        )

    def _read_log(self, log: logs.LogRecord, about: About) -> Steps[Span]:
        attributes = yield from self._attributes(log.attributes)
        body = (yield from self._value(log.body, 0)) if log.HasField("body") else None
        return self._log(
            about,
            (log.trace_id, log.span_id),
            log.event_name,
            log.time_unix_nano or log.observed_time_unix_nano,
            attributes,
            body,
            log.dropped_attributes_count,
            {"severity_text": log.severity_text} if log.severity_text else {},
        )

    def _attributes(self, items: Sequence[common.KeyValue]) -> Steps[dict[str, Any]]:
        attributes: dict[str, Any] = {}
        for first in range(0, len(items), _STEP):
            if first:
                yield
            for item in items[first : first + _STEP]:
                value = item.value
                # Nearly all values are texts, and asking for the text is cheaper than asking what there is.
                content = value.string_value or (yield from self._value(value, 0))
                if content is not None:
                    key = item.key
                    if key in attributes:
                        self._keep(attributes, key, content)
                    else:
                        attributes[key] = content
        return attributes

    def _value(self, value: common.AnyValue, depth: int) -> Steps[Any]:
        kind = value.WhichOneof("value")
        if kind != "array_value" and kind != "kvlist_value":
            return self._plain(value, kind)
        if depth >= self._limits.depth:
            self._marks.append("too_deep")
            return TOO_DEEP
        items: Sequence[Any] = value.array_value.values if kind == "array_value" else value.kvlist_value.values
        self._enter(len(items))
        listed: list[Any] = []
        members: dict[str, Any] = {}
        for number, item in enumerate(items, 1):
            inner = item if kind == "array_value" else item.value
            content = inner.string_value or (yield from self._value(inner, depth + 1))
            if kind == "array_value":
                listed.append(content)
            else:
                self._keep(members, item.key, content)
            if number % _STEP == 0:
                yield
        return listed if kind == "array_value" else members

    def _plain(self, value: common.AnyValue, kind: str | None) -> Any:
        if kind == "double_value":
            return self._double(value.double_value)
        if kind == "string_value_strindex":
            self._marks.append("unknown_value")
            return None
        return getattr(value, kind) if kind else None
