"""OTLP export requests → `core.span.Span`s: protobuf and OTLP/JSON, spans and log records.

The work comes in steps of some 0.1 ms, so that a caller that shares its thread with the gate can stop between any two.
Nothing but `SpanError` leaves here, whatever the bytes.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.span import Span
from sidecar.sources import Encoding
from sidecar.sources.decoding import DUPLICATES, NOTES, REFUSED, REJECTED, TOO_DEEP, Decoding, Limits, Signal
from sidecar.sources.otlp_json import Json
from sidecar.sources.otlp_protobuf import Protobuf
from sidecar.sources.otlp_small import Small

__all__ = [
    "DUPLICATES",
    "NOTES",
    "REFUSED",
    "REJECTED",
    "TOO_DEEP",
    "Decoded",
    "Decoding",
    "Limits",
    "Signal",
    "begin",
    "decode",
]


class Decoded(Struct):
    """What a request held.

    Attributes:
        signal: ``traces`` or ``logs``; None where the request was empty and nobody said.
        spans: The records that were taken, in order.
        rejected: How many were not, by reason (`REJECTED`).
        notes: How many of `spans` carry which note.
    """

    signal: Signal | None
    spans: list[Span]
    rejected: dict[str, int]
    notes: dict[str, int]


def decode(signal: Signal | None, body: bytes, encoding: Encoding, limits: Limits) -> Decoded:
    """Decodes a request in one go.

    Args:
        signal: What the request holds; None where its content is to tell.
    Raises:
        SpanError: The request as a whole is refused; the reason is one of `REFUSED`.
    """
    if signal == "traces" and encoding == "proto":
        small = Small(signal, body, limits)
        if (plain := small.read()) is not None:
            return Decoded(signal, plain, small.rejected, small.notes)
    decoding = begin(signal, body, encoding, limits)
    for _ in decoding.count():
        pass
    spans = [span for span in decoding.spans() if span is not None]
    return Decoded(decoding.signal, spans, decoding.rejected, decoding.notes)


def begin(signal: Signal | None, body: bytes, encoding: Encoding, limits: Limits) -> Decoding:
    """Begins to decode a request; its `count` and then its `spans` do the work. Arguments as for `decode`."""
    return (Json if encoding == "json" else Protobuf)(signal, body, limits)
