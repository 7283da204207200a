"""What decoding a request has in common, whichever form it came in: limits, notes, and what makes a record whole."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct
from pydantic import Field

from sidecar.core.span import Span, SpanEvent
from sidecar.errors import SpanError
from sidecar.settings import Bytes, Count, Settings

NOTES = (
    "bad_time",  # ends before it starts, or has no time at all
    "bad_tree",  # no span id (one was made from the content), its own parent, or a parent id of odd form
    "cut",  # more events or links than are kept, or a text longer than is kept
    "duplicate_key",  # a key told more than once; what was not used stands in the attribute `DUPLICATES`
    "invalid_id",  # a log record's ids of odd form, taken as none
    "nonfinite",  # NaN or an infinity, kept as a text
    "time_clamped",  # a time beyond 2262, which 63 bits cannot hold
    "too_deep",  # values nested deeper than is kept, replaced by `TOO_DEEP`
    "unknown_field",  # fields of a newer protocol, ignored
    "unknown_value",  # a value of a newer protocol, taken as none
)
REJECTED = ("invalid_id", "too_many_attributes", "too_many_nodes")
"""Why one record is not taken, while the others of its request are."""

REFUSED = ("malformed", "too_deep", "too_many_spans", "too_many_nodes")
"""Why a whole request is not taken: the reasons of the `SpanError`s raised here."""

DUPLICATES = "sidecar.duplicates"
"""Attribute with up to 64 values that another value of the same key displaced: a list of {"key", "value"}."""

TOO_DEEP = "[too deep]"

DEEPEST = 50
"""Lists and maps within each other that refuse the request when there are more: protobuf itself ends about there."""

DUPLICATES_KEPT = 64
_LATEST_NS = 2**63 - 1
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)

Signal = Literal["traces", "logs"]


class Limits(Settings):
    """What one request may hold. Changing these does not change what was already taken in, but does change replays."""

    spans: Count = 20_000
    """Spans or log records in a request; one with more is refused."""
    attributes: Count = 8_192
    """Attributes of a span; one with more is rejected, the others of its request are taken."""
    events: int = Field(default=1_024, ge=0, le=10**9)
    """Events of a span that are kept."""
    links: int = Field(default=1_024, ge=0, le=10**9)
    """Links of a span that are kept."""
    depth: int = Field(default=32, ge=1, le=DEEPEST)
    """Lists and maps within each other that are kept; what lies deeper is replaced by a mark."""
    text: Bytes = Field(default=4 * 2**20, ge=1024)
    """Characters of one text that are kept."""
    span_nodes: Count = 50_000
    """Values, keys and other fields of one span; one with more is rejected."""
    nodes: Count = 500_000
    """Values in lists and maps of a whole request; one with more is refused."""


class Decoding(ABC):
    """One request being decoded: first `count`, then `spans`, each to its end; every turn is one small step.

    Attributes:
        total: Records in the request, once counted.
        signal, rejected, notes: As in `Decoded`, growing.
    """

    def __init__(self, signal: Signal | None, body: bytes, limits: Limits) -> None:
        self.signal = signal
        self.total = 0
        self.rejected: dict[str, int] = {}
        self.notes: dict[str, int] = {}
        self._body, self._limits = body, limits
        self._nodes = 0
        self._marks: list[str] = []  # of the record being read
        self._again: list[dict[str, Any]] = []  # likewise: values that another of the same key displaced
        self._large = False  # likewise: whether it could hold a text that is too long

    def count(self) -> Iterator[None]:
        """Splits the request into records. For JSON this is one step, of some 10 us a span."""
        return _refusing(self._count())

    def spans(self) -> Iterator[Span | None]:
        """The records that are taken; None after a step that gave none."""
        return _refusing(self._spans())

    @abstractmethod
    def _count(self) -> Iterator[None]: ...

    @abstractmethod
    def _spans(self) -> Iterator[Span | None]: ...

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        self._marks, self._again = [], []

    def _keep(self, into: dict[str, Any], key: str, value: Any) -> None:
        """Adds an attribute; the first of a key counts, the others are set aside."""
        if key not in into:
            into[key] = value
            return
        self._marks.append("duplicate_key")
        if len(self._again) < DUPLICATES_KEPT:
            self._again.append({"key": key, "value": value})

    def _enter(self, items: int) -> None:
        """Counts what a list or a map is about to hold."""
        self._nodes += items
        if self._nodes > self._limits.nodes:
            raise SpanError("too_many_nodes", "more values than a request may hold")

    def _double(self, value: float) -> float | str:
        if math.isfinite(value):
            return value
        self._marks.append("nonfinite")
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def _time(self, at_ns: int) -> int:
        if at_ns > _LATEST_NS:
            self._marks.append("time_clamped")
            return _LATEST_NS
        return at_ns

    def _first(self, items: Sequence[Any], most: int) -> Sequence[Any]:
        if len(items) > most:
            self._marks.append("cut")
            return items[:most]
        return items

    def _cut(self, value: Any) -> Any:
        """`value` without the ends of texts that are too long."""
        if isinstance(value, str | bytes):
            if len(value) > self._limits.text:
                self._marks.append("cut")
            return value[: self._limits.text]
        if isinstance(value, list):
            return [self._cut(item) for item in value]
        if isinstance(value, dict):
            return {self._cut(key): self._cut(item) for key, item in value.items()}
        return value

    def _end(self, told: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Ends the reading of a resource or a scope: what it told, and its marks."""
        if self._large:
            told = self._cut(told)
        if self._again:
            told[DUPLICATES] = self._again
        marks = tuple(self._marks)
        self._marks, self._again = [], []
        return told, marks

    def _span(
        self,
        about: About,
        ids: tuple[bytes, bytes, bytes],
        name: str,
        times: tuple[int, int],
        attributes: dict[str, Any],
        events: tuple[SpanEvent, ...],
        status: tuple[int, str],
        dropped: int,
        rest: dict[str, Any],
    ) -> Span | None:
        """Ends the reading of a span, whichever form it came in."""
        trace_id, span_id, parent_id = ids
        if len(trace_id) != 16 or trace_id == _NO_TRACE or (span_id and len(span_id) != 8) or span_id == _NO_SPAN:
            self._reject("invalid_id")
            return None
        start_ns, end_ns = self._time(times[0]), self._time(times[1])
        if start_ns > end_ns or not start_ns:
            self._marks.append("bad_time")
        if parent_id and (len(parent_id) != 8 or parent_id == span_id):
            self._marks.append("bad_tree")
            parent_id = b""
        elif parent_id == _NO_SPAN:
            parent_id = b""
        status_message = status[1]
        if self._large:
            name, attributes, status_message, rest = map(self._cut, (name, attributes, status_message, rest))
            events = tuple(
                SpanEvent(self._cut(event.name), event.at_ns, self._cut(event.attributes)) for event in events
            )
        if not span_id:
            self._marks.append("bad_tree")
            span_id = _digest(trace_id.hex(), parent_id.hex(), name, start_ns, end_ns, attributes, events)
        return Span(
            "span",
            trace_id.hex(),
            span_id.hex(),
            parent_id.hex(),
            name,
            start_ns,
            end_ns,
            self._with_duplicates(attributes),
            None,
            events,
            status[0],
            status_message,
            dropped,
            about.resource,
            about.scope,
            self._noted(about),
            about.rest | rest if rest else about.rest,
        )

    def _log(
        self,
        about: About,
        ids: tuple[bytes, bytes],
        name: str,
        at_ns: int,
        attributes: dict[str, Any],
        body: Any,
        dropped: int,
        rest: dict[str, Any],
    ) -> Span:
        """Ends the reading of a log record, whichever form it came in."""
        trace_id, span_id = ids
        if not (len(trace_id) in (0, 16) and len(span_id) in (0, 8)):
            self._marks.append("invalid_id")
            trace_id, span_id = trace_id if len(trace_id) == 16 else b"", span_id if len(span_id) == 8 else b""
        at_ns = self._time(at_ns)
        if not at_ns:
            self._marks.append("bad_time")
        if self._large:
            name, attributes, body, rest = map(self._cut, (name, attributes, body, rest))
        return Span(
            "log",
            "" if trace_id == _NO_TRACE else trace_id.hex(),
            "" if span_id == _NO_SPAN else span_id.hex(),
            "",
            name,
            0,
            at_ns,
            self._with_duplicates(attributes),
            body,
            (),
            0,
            "",
            dropped,
            about.resource,
            about.scope,
            self._noted(about),
            about.rest | rest if rest else about.rest,
        )

    def _with_duplicates(self, attributes: dict[str, Any]) -> dict[str, Any]:
        if self._again:
            if DUPLICATES in attributes:
                self._again.insert(0, {"key": DUPLICATES, "value": attributes[DUPLICATES]})
            attributes[DUPLICATES], self._again = self._again, []
        return attributes

    def _noted(self, about: About) -> tuple[str, ...]:
        if not self._marks and not about.marks:
            return ()
        notes = tuple(sorted({*self._marks, *about.marks}))
        self._marks = []
        for note in notes:
            self.notes[note] = self.notes.get(note, 0) + 1
        return notes


class About(Struct):
    """What the spans of one scope have in common."""

    resource: dict[str, Any]
    scope: str
    rest: dict[str, Any]
    marks: tuple[str, ...]


def link_of(trace_id: bytes, span_id: bytes, trace_state: str, attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "trace_id": trace_id.hex(),
        "span_id": span_id.hex(),
        "trace_state": trace_state,
        "attributes": attributes,
    }


T = TypeVar("T")


def _refusing(steps: Iterator[T]) -> Iterator[T]:
    """The same steps; whatever bad bytes make them raise becomes a `SpanError`."""
    try:
        yield from steps
    except RecursionError as error:
        raise SpanError("too_deep", "nested too deep") from error
    except (DecodeError, ValueError, OverflowError) as error:
        raise SpanError("malformed", "not an OTLP export request") from error


def _digest(*content: Any) -> bytes:
    """An id for a span without one, the same whenever the same span comes again."""
    return hashlib.sha256(msgspec.json.encode(content)).digest()[:8]
