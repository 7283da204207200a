"""OTLP requests for spans that are small and plain, read in one go: what comes with a question is nothing else.

Whatever is not plain is left to `otlp_protobuf`, which reads everything, and says the same of these at twice the cost:
cutting a request up on the wire pays for itself only where it has to be read in steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.common.v1 import common_pb2 as common
from opentelemetry.proto.trace.v1 import trace_pb2 as traces

from sidecar.core.span import Span
from sidecar.sources.decoding import About
from sidecar.sources.otlp_protobuf import Protobuf

SMALL = 16 * 1024
"""Bytes; reading so much takes some 0.1 ms."""

_PLAIN = frozenset(("string_value", "int_value", "bool_value", "bytes_value"))

Value = str | int | bool | float | bytes | list[str]


class Small(Protobuf):
    """One such request; `rejected` and `notes` are as in `Decoded`."""

    def read(self) -> list[Span] | None:
        """The spans that are taken; None where this is not for us."""
        body, limits = self._body, self._limits
        if len(body) > min(SMALL, limits.text, limits.nodes, 8 * limits.spans):
            return None
        try:
            request = traces.TracesData.FromString(body)
        except DecodeError:
            return None
        if len(UnknownFieldSet(request)):
            return None
        spans: list[Span] = []
        for part in request.resource_spans:
            resource = _attributes(part.resource.attributes)
            if resource is None or len(UnknownFieldSet(part)):
                return None
            for scope in part.scope_spans:
                if scope.scope.attributes or len(UnknownFieldSet(scope)):
                    return None
                schemas = [address for address in (part.schema_url, scope.schema_url) if address]
                about = About(resource, scope.scope.name, {"schema_url": schemas} if schemas else {}, ())
                self.total += len(scope.spans)
                for told in scope.spans:
                    if told.events or told.links or told.trace_state or len(told.attributes) > limits.attributes:
                        return None
                    attributes = _attributes(told.attributes)
                    if attributes is None or len(UnknownFieldSet(told)):
                        return None
                    span = self._span(
                        about,
                        (told.trace_id, told.span_id, told.parent_span_id),
                        told.name,
                        (told.start_time_unix_nano, told.end_time_unix_nano),
                        attributes,
                        (),
                        (told.status.code, told.status.message),
                        told.dropped_attributes_count,
                        {},
                    )
                    if span is not None:
                        spans.append(span)
        return None if self.total > limits.spans else spans


def _attributes(items: Sequence[common.KeyValue]) -> dict[str, Value] | None:
    """Attributes, None where one is told twice or is not plain."""
    attributes: dict[str, Value] = {}
    for item in items:
        value = item.value
        content: Value | None = value.string_value
        if not content:
            kind = value.WhichOneof("value")
            if kind in _PLAIN:
                content = getattr(value, kind)
            elif kind == "double_value" and isfinite(value.double_value):
                content = value.double_value
            elif kind == "array_value":
                texts = [inner.string_value for inner in value.array_value.values]
                if not all(texts):  # something else than texts, or an empty one
                    return None
                content = texts
            elif kind is not None:
                return None
            else:
                continue
        key = item.key
        if key in attributes:
            return None
        attributes[key] = content
    return attributes
