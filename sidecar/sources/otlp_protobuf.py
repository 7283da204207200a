"""OTLP in protobuf: counted and cut into records on the wire, then parsed record by record."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

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
_STEP = 64  # attributes read between two stops


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
        read: Callable[[Any, dict[str, Any], About], Span | None] = self._read_span
        fields, number = wire.SPAN, 9
        if self.signal == "logs":
            kind, fields, number, read = logs.LogRecord, wire.LOG, 6, self._read_log
        limits = self._limits
        for part in self._resources:
            resource, marks = yield from self._read_resource(part)
            for scope in part.scopes:
                about = yield from self._read_scope(scope, resource, marks, part.schema)
                for at, stop in scope.records:
                    large = stop - at > _LARGE
                    if large:
                        direct, seen = yield from wire.measure(
                            self._body,
                            at,
                            stop,
                            fields,
                            attributes=number,
                            most_attributes=limits.attributes,
                            most_fields=limits.span_nodes,
                        )
                        if direct > limits.attributes or seen > limits.span_nodes:
                            self._reject("too_many_attributes" if direct > limits.attributes else "too_many_nodes")
                            yield None
                            continue
                    self._large = stop - at > limits.text
                    message = self._parse(kind, self._body[at:stop], fields)
                    items = message.attributes
                    attributes: dict[str, Any] = {}
                    if large:
                        for first in range(0, len(items), _STEP):
                            self._read_attributes(items[first : first + _STEP], attributes)
                            yield None
                    elif len(items) > limits.attributes:
                        self._reject("too_many_attributes")
                        yield None
                        continue
                    else:
                        self._read_attributes(items, attributes)
                    if len(UnknownFieldSet(message)):
                        self._marks.append("unknown_field")
                    yield read(message, attributes, about)

    def _parse(self, kind: Any, body: bytes, fields: wire.Message) -> Any:
        try:
            return kind.FromString(body)
        except DecodeError:
            # Where the reason is that values are nested deeper than the parser goes, what lies too deep is left out.
            mark = common.AnyValue(string_value=TOO_DEEP).SerializeToString()
            shallow = wire.pruned(body, fields, depth=self._limits.depth, most=DEEPEST, instead=mark)
            if shallow == body:
                raise
            self._marks.append("too_deep")
            return kind.FromString(shallow)

    def _read_resource(self, part: wire.Resource) -> Generator[None, None, tuple[dict[str, Any], tuple[str, ...]]]:
        yield from self._measure(part.message, wire.RESOURCE, 1)
        told: dict[str, Any] = {}
        self._read_attributes(self._parse(resources.Resource, part.message, wire.RESOURCE).attributes, told)
        return self._end(told)

    def _read_scope(
        self, part: wire.Scope, resource: dict[str, Any], marks: tuple[str, ...], schema: bytes
    ) -> Generator[None, None, About]:
        yield from self._measure(part.message, wire.SCOPE, 3)
        scope = self._parse(common.InstrumentationScope, part.message, wire.SCOPE)
        rest: dict[str, Any] = {}
        if schemas := [address.decode() for address in (schema, part.schema) if address]:
            rest["schema_url"] = schemas
        if scope.attributes:
            rest["scope_attributes"] = self._attributes(scope.attributes)
        rest, more = self._end(rest)
        return About(resource, self._cut(scope.name), rest, marks + more)

    def _measure(self, message: bytes, fields: wire.Message, attributes: int) -> Iterator[None]:
        self._large = len(message) > self._limits.text
        most = self._limits.span_nodes
        if len(message) > _LARGE:
            _, seen = yield from wire.measure(
                message, 0, len(message), fields, attributes=attributes, most_attributes=most, most_fields=most
            )
            if seen > most:
                raise SpanError("too_many_nodes", "more values than a resource or scope may hold")

    def _read_span(self, span: traces.Span, attributes: dict[str, Any], about: About) -> Span | None:
        limits = self._limits
        events: tuple[SpanEvent, ...] = ()
        if span.events:
            events = tuple(
                SpanEvent(event.name, self._time(event.time_unix_nano), self._attributes(event.attributes))
                for event in self._first(span.events, limits.events)
            )
        rest: dict[str, Any] = {}
        if span.trace_state:
            rest["trace_state"] = span.trace_state
        if span.links:
            rest["links"] = [
                link_of(link.trace_id, link.span_id, link.trace_state, self._attributes(link.attributes))
                for link in self._first(span.links, limits.links)
            ]
        status = (span.status.code, span.status.message) if span.HasField("status") else (0, "")
        return self._span(
            about,
            (span.trace_id, span.span_id, span.parent_span_id),
            span.name,
            (span.start_time_unix_nano, span.end_time_unix_nano),
            attributes,
            events,
            status,
            span.dropped_attributes_count,
            rest,
        )

    def _read_log(self, log: logs.LogRecord, attributes: dict[str, Any], about: About) -> Span:
        return self._log(
            about,
            (log.trace_id, log.span_id),
            log.event_name,
            log.time_unix_nano or log.observed_time_unix_nano,
            attributes,
            self._value(log.body, 0) if log.HasField("body") else None,
            log.dropped_attributes_count,
            {"severity_text": log.severity_text} if log.severity_text else {},
        )

    def _attributes(self, items: Iterable[common.KeyValue]) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        self._read_attributes(items, attributes)
        return attributes

    def _read_attributes(self, items: Iterable[common.KeyValue], into: dict[str, Any]) -> None:
        for item in items:
            value = item.value
            # Nearly all values are texts, and asking for the text is cheaper than asking what there is.
            content = value.string_value or self._value(value, 0)
            if content is None:
                continue
            key = item.key
            if key in into:
                self._keep(into, key, content)
            else:
                into[key] = content

    def _value(self, value: common.AnyValue, depth: int) -> Any:
        kind = value.WhichOneof("value")
        if kind is None:
            return None
        if kind == "double_value":
            return self._double(value.double_value)
        if kind == "array_value" or kind == "kvlist_value":
            if depth >= self._limits.depth:
                self._marks.append("too_deep")
                return TOO_DEEP
            depth += 1
            if kind == "array_value":
                items = value.array_value.values
                self._enter(len(items))
                return [item.string_value or self._value(item, depth) for item in items]
            pairs = value.kvlist_value.values
            self._enter(len(pairs))
            members: dict[str, Any] = {}
            for pair in pairs:
                self._keep(members, pair.key, pair.value.string_value or self._value(pair.value, depth))
            return members
        if kind == "string_value_strindex":
            self._marks.append("unknown_value")
            return None
        return getattr(value, kind)
