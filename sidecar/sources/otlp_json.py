"""OTLP/JSON: its messages as types, and what a text must be before it is read.

The rules are those of the OTLP specification and not of protobuf's own JSON form, which reads hexadecimal ids as base64
and gives 24 bytes for 16. Enums are integers, 64-bit integers are numbers or strings, `null` is as good as absent, and
fields that are not known are ignored.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from sidecar.core.span import Span as CoreSpan
from sidecar.core.span import SpanEvent as CoreEvent
from sidecar.errors import SpanError
from sidecar.sources.decoding import DUPLICATES_KEPT, TOO_DEEP, About, Decoding, link_of

_WITH_TEXTS = 4  # times as many values may seem to be in a text, since commas within its strings count too
_RICH = 10  # requests that hold this many times what a span may hold are measured span by span


class Array(Struct):
    values: list[Value | None] | None = None


class Pairs(Struct):
    values: list[KeyValue | None] | None = None


class Value(Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | int | str | None = None
    array_value: Array | None = None
    kvlist_value: Pairs | None = None
    bytes_value: str | None = None


class KeyValue(Struct):
    key: str | None = None
    value: Value | None = None


class Resource(Struct):
    attributes: list[KeyValue | None] | None = None


class Scope(Struct):
    name: str | None = None
    attributes: list[KeyValue | None] | None = None


class Scoped(Struct, rename="camel"):
    scope: Scope | None = None
    spans: list[Any] | None = None
    log_records: list[Any] | None = None
    schema_url: str | None = None


class Resourced(Struct, rename="camel"):
    resource: Resource | None = None
    scope_spans: list[Scoped | None] | None = None
    scope_logs: list[Scoped | None] | None = None
    schema_url: str | None = None


class Request(Struct, rename="camel"):
    resource_spans: list[Resourced | None] | None = None
    resource_logs: list[Resourced | None] | None = None


class SpanEvent(Struct, rename="camel"):
    time_unix_nano: int | str | None = None
    name: str | None = None
    attributes: list[KeyValue | None] | None = None


class SpanLink(Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    attributes: list[KeyValue | None] | None = None


class Status(Struct):
    code: int | None = None
    message: str | None = None


class Span(Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    parent_span_id: str | None = None
    flags: int | None = None
    name: str | None = None
    kind: int | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[KeyValue | None] | None = None
    dropped_attributes_count: int | None = None
    events: list[SpanEvent | None] | None = None
    dropped_events_count: int | None = None
    links: list[SpanLink | None] | None = None
    dropped_links_count: int | None = None
    status: Status | None = None


class LogRecord(Struct, rename="camel"):
    time_unix_nano: int | str | None = None
    observed_time_unix_nano: int | str | None = None
    severity_number: int | None = None
    severity_text: str | None = None
    body: Value | None = None
    attributes: list[KeyValue | None] | None = None
    dropped_attributes_count: int | None = None
    flags: int | None = None
    trace_id: str | None = None
    span_id: str | None = None
    event_name: str | None = None


class Json(Decoding):
    def _count(self) -> Iterator[None]:
        self._large = len(self._body) > self._limits.text
        self._tree, self._twice = parse(self._body, most_nodes=_WITH_TEXTS * self._limits.nodes)
        request = msgspec.convert(self._tree, Request)
        if self.signal is None and request.resource_spans is not None and request.resource_logs is not None:
            raise SpanError("malformed", "spans and log records in one request")
        if self.signal is None:
            self.signal = "logs" if request.resource_logs else "traces" if request.resource_spans else None
        self._resources: list[tuple[Resourced, list[tuple[Scoped, list[Any]]]]] = []
        named = request.resource_logs if self.signal == "logs" else request.resource_spans
        for resourced in filter(None, named or ()):
            scopes = resourced.scope_logs if self.signal == "logs" else resourced.scope_spans
            groups = []
            for scoped in filter(None, scopes or ()):
                records = scoped.log_records if self.signal == "logs" else scoped.spans
                taken = [record for record in records or () if record is not None]
                if taken:
                    groups.append((scoped, taken))
                self.total += len(taken)
                if self.total > self._limits.spans:
                    raise SpanError("too_many_spans", f"more than {self._limits.spans} records in a request")
            if groups:
                self._resources.append((resourced, groups))
        yield

    def _spans(self) -> Iterator[CoreSpan | None]:
        known = _SPAN_FIELDS
        kind: Any = Span
        read: Callable[[Any, dict[str, Any], About], CoreSpan | None] = self._read_span
        if self.signal == "logs":
            known, kind, read = _LOG_FIELDS, LogRecord, self._read_log
        earlier = self._earlier_in_records() if self._twice else {}
        around = self._set_aside(take_earlier(self._tree)) if self._twice else []
        rich = is_rich(self._body, _RICH * self._limits.span_nodes)
        number = 0
        for resourced, groups in self._resources:
            resource, marks = self._end(self._attributes(resourced.resource.attributes if resourced.resource else None))
            for scoped, records in groups:
                about = self._read_scope(scoped, resource, marks, resourced.schema_url)
                for raw in records:
                    number += 1
                    if not isinstance(raw, dict):
                        raise SpanError("malformed", "a record that is no object")
                    record = None if rich and _is_larger(raw, self._limits.span_nodes) else msgspec.convert(raw, kind)
                    if record is None or len(record.attributes or ()) > self._limits.attributes:
                        self._reject("too_many_attributes" if record else "too_many_nodes")
                        yield None
                        continue
                    if self._twice and (again := [*earlier.get(number, ()), *around]):
                        self._marks.append("duplicate_key")
                        self._again += again
                    if not known.issuperset(raw):
                        self._marks.append("unknown_field")
                    yield read(record, self._attributes(record.attributes), about)

    def _earlier_in_records(self) -> dict[int, list[dict[str, Any]]]:
        """What was told twice within each record, by its number."""
        every = (record for _, groups in self._resources for _, records in groups for record in records)
        return {n: self._set_aside(take_earlier(record)) for n, record in enumerate(every, 1)}

    def _set_aside(self, earlier: list[tuple[str, Any]]) -> list[dict[str, Any]]:
        return [{"key": key, "value": _as_text(value)} for key, value in earlier[:DUPLICATES_KEPT]]

    def _read_scope(
        self, scoped: Scoped, resource: dict[str, Any], marks: tuple[str, ...], schema: str | None
    ) -> About:
        scope = scoped.scope or Scope()
        rest: dict[str, Any] = {}
        if schemas := [address for address in (schema, scoped.schema_url) if address]:
            rest["schema_url"] = schemas
        if scope.attributes:
            rest["scope_attributes"] = self._attributes(scope.attributes)
        rest, more = self._end(rest)
        return About(resource, self._cut(scope.name or ""), rest, marks + more)

    def _read_span(self, span: Span, attributes: dict[str, Any], about: About) -> CoreSpan | None:
        events = tuple(
            CoreEvent(event.name or "", self._time(_uint64(event.time_unix_nano)), self._attributes(event.attributes))
            for event in self._first([event for event in span.events or () if event], self._limits.events)
        )
        rest: dict[str, Any] = {}
        if span.trace_state:
            rest["trace_state"] = span.trace_state
        if span.links:
            links = self._first([link for link in span.links if link], self._limits.links)
            rest["links"] = [
                link_of(
                    _hex(link.trace_id), _hex(link.span_id), link.trace_state or "", self._attributes(link.attributes)
                )
                for link in links
            ]
        status = span.status or Status()
        return self._span(
            about,
            (_hex(span.trace_id), _hex(span.span_id), _hex(span.parent_span_id)),
            span.name or "",
            (_uint64(span.start_time_unix_nano), _uint64(span.end_time_unix_nano)),
            attributes,
            events,
            (status.code or 0, status.message or ""),
            span.dropped_attributes_count or 0,
            rest,
        )

    def _read_log(self, log: LogRecord, attributes: dict[str, Any], about: About) -> CoreSpan:
        return self._log(
            about,
            (_hex(log.trace_id), _hex(log.span_id)),
            log.event_name or "",
            _uint64(log.time_unix_nano) or _uint64(log.observed_time_unix_nano),
            attributes,
            self._value(log.body, 0),
            log.dropped_attributes_count or 0,
            {"severity_text": log.severity_text} if log.severity_text else {},
        )

    def _attributes(self, items: list[KeyValue | None] | None) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for item in items or ():
            if item is not None and (content := self._value(item.value, 0)) is not None:
                self._keep(attributes, item.key or "", content)
        return attributes

    def _value(self, value: Value | None, depth: int) -> Any:
        if value is None:
            return None
        told = msgspec.structs.astuple(value)
        if len(told) - told.count(None) > 1:
            raise SpanError("malformed", "a value of two types")
        if (text := value.string_value) is not None:
            return text
        if value.array_value is not None or value.kvlist_value is not None:
            if depth >= self._limits.depth:
                self._marks.append("too_deep")
                return TOO_DEEP
            depth += 1
            if value.array_value is not None:
                items = value.array_value.values or []
                self._enter(len(items))
                return [self._value(item, depth) for item in items]
            members: dict[str, Any] = {}
            for pair in value.kvlist_value.values or () if value.kvlist_value else ():
                if pair is not None:
                    self._keep(members, pair.key or "", self._value(pair.value, depth))
            return members
        if value.int_value is not None:
            return _whole(value.int_value, -(2**63), 2**63 - 1)
        if value.double_value is not None:
            number = value.double_value
            if isinstance(number, str) and number not in ("NaN", "Infinity", "-Infinity"):
                return _finite(number)
            return self._double(float(number))
        if value.bytes_value is not None:
            return _base64(value.bytes_value)
        return value.bool_value


_SPAN_FIELDS = frozenset(Span.__struct_encode_fields__)
_LOG_FIELDS = frozenset(LogRecord.__struct_encode_fields__)


class Twice(dict[str, Any]):
    """An object some of whose members were told more than once: it has the last of each, `earlier` the others."""

    earlier: list[tuple[str, Any]]


def parse(text: bytes, *, most_nodes: int) -> tuple[dict[str, Any], bool]:
    """The object that `text` is, and whether there are `Twice` in it; lists told twice are joined, as in protobuf.

    The standard parser is used because it alone shows every member of an object, and because it lets other threads run
    between objects, which a faster one holds up for as long as it takes.

    Raises:
        SpanError: ``malformed``, ``too_deep`` or ``too_many_nodes``.
    """
    if is_rich(text, most_nodes):
        raise SpanError("too_many_nodes", "more values than a request may hold")
    twice = False

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        twice = True
        return _join(pairs)

    try:
        if b"\\ud" in text or b"\\uD" in text:
            msgspec.json.decode(text)  # refuses half a surrogate pair, which the parser below takes
        tree = json.loads(
            text.decode(),
            object_pairs_hook=read,
            parse_constant=_refused,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError as error:
        raise SpanError("too_deep", "JSON is nested too deep") from error
    except ValueError as error:
        raise SpanError("malformed", "not valid JSON") from error
    if not isinstance(tree, dict):
        raise SpanError("malformed", "not a JSON object")
    return tree, twice


def is_rich(text: bytes, most: int) -> bool:
    """Whether a JSON text may hold more than `most` values; those that stand within its strings count too."""
    return len(text) > most and len(text) - len(text.translate(None, b",[{")) > most


def take_earlier(tree: Any) -> list[tuple[str, Any]]:
    """What was told earlier anywhere in `tree`; asked again, nothing."""
    found = []
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Twice):
            found += node.earlier
            node.earlier = []
        if isinstance(node, dict):
            stack += reversed(node.values())
        elif isinstance(node, list):
            stack += reversed(node)
    return found


def _join(pairs: list[tuple[str, Any]]) -> Twice:
    told = Twice()
    told.earlier = []
    for name, value in pairs:
        before = told.get(name)
        if isinstance(before, list) and isinstance(value, list):
            before.extend(value)
            continue
        if name in told:
            told.earlier.append((name, before))
        told[name] = value
    return told


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError("a number beyond a double")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number beyond 64 bits")
    return int(digits)


def _refused(_: str) -> None:
    raise ValueError("not a number of JSON")


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError:
        return TOO_DEEP


def _is_larger(tree: Any, most: int) -> bool:
    """Whether an object holds more than `most` values."""
    seen = 0
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            stack += node.values()
            seen += len(node)
        elif isinstance(node, list):
            stack += node
            seen += len(node)
        if seen > most:
            return True
    return False


def _hex(text: str | None) -> bytes:
    if not text:
        return b""
    if len(text) % 2 or not text.isalnum():
        raise ValueError("an id that is not hexadecimal")
    return bytes.fromhex(text)


def _uint64(value: int | str | None) -> int:
    return 0 if value is None else _whole(value, 0, 2**64 - 1)


def _whole(value: int | str, least: int, most: int) -> int:
    if isinstance(value, str):
        if not (value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 20):
            raise ValueError("not a whole number")
        value = int(value)
    if not least <= value <= most:
        raise ValueError("a number beyond 64 bits")
    return value


def _base64(text: str) -> bytes:
    text = text.translate(_STANDARD).rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


_STANDARD = str.maketrans("-_", "+/")
