"""One finished span or log record as it came, and who sent it."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Grade = Literal["authenticated", "attested", "declared"]


class Speaker(Struct, frozen=True):
    """Who sent a record, as far as the door it came through knows (design §5, "who speaks").

    Attributes:
        realm: What its sessions and agents belong to: ``agent:NAME`` for an agent's own credential or one that a
            forwarder may speak for, ``forwarder:NAME`` for the rest of a forwarder's telemetry, else the tenant
            (``local`` on loopback without a credential). Two realms never share a session, an agent or a baseline.
        grade: How well the realm is known.
        agent: The agent's name where the credential fixes it, else None.
        speaks_for: Agents a forwarder is trusted to name; ``("*",)`` is all of them. Empty for everybody else.
    """

    realm: str = "local"
    grade: Grade = "declared"
    agent: str | None = None
    speaks_for: tuple[str, ...] = ()


LOCAL = Speaker()


class SpanEvent(Struct, frozen=True):
    """A span event: a name, a time in Unix nanoseconds, and attributes."""

    name: str
    at_ns: int
    attributes: dict[str, Any]


class Span(Struct, frozen=True):
    """One finished span, or one log record, decoded and otherwise untouched.

    Times are Unix nanoseconds. Attribute values are str, bool, int, float, bytes, list or dict.

    Attributes:
        signal: ``span`` or ``log``.
        trace_id: 32 lower-case hexadecimal digits; "" for a log record outside any trace.
        span_id: 16 lower-case hexadecimal digits; "" likewise.
        parent_id: The same, "" at a root.
        name: The span's name; for a log record its event name.
        start_ns: 0 for log records.
        end_ns: For a log record its time, else its observed time.
        body: A log record's body.
        status: OTLP status code: 0 unset, 1 ok, 2 error.
        dropped: Attributes that the sender's SDK dropped.
        notes: What decoding had to change, each a reason from `sources.decode.NOTES`.
        rest: The remaining fields that hold text, by their OTLP name, where they are not empty: ``trace_state``,
            ``schema_url``, ``severity_text``, ``scope_attributes``, ``links``. Kept because whatever an agent wrote
            has to be scanned. Spans of one scope may share it.
    """

    signal: Literal["span", "log"]
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    body: Any = None
    events: tuple[SpanEvent, ...] = ()
    status: int = 0
    status_message: str = ""
    dropped: int = 0
    resource: dict[str, Any] = {}
    scope: str = ""
    notes: tuple[str, ...] = ()
    rest: dict[str, Any] = {}


CUTS = frozenset(("cut", "too_deep", "duplicate_key"))
"""Notes which say that a part of the span's content was left out."""


def is_cut(span: Span) -> bool:
    """Whether decoding had to leave out some of a span's content."""
    return not CUTS.isdisjoint(span.notes)


class Record(Struct, frozen=True):
    """A span with what only the door knew about it.

    Attributes:
        position: Where it stands in the inbox, (row, index within the row); kept as evidence.
        arrived_ns: When the request that held it arrived, Unix nanoseconds.
    """

    span: Span
    speaker: Speaker = LOCAL
    arrived_ns: int = 0
    position: tuple[int, int] = (0, 0)
