"""What is in a sidecar's inbox, read with nothing of the sidecar: plain SQL and OTLP's own messages."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import apsw
from msgspec import Struct, field
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Inbox(Struct):
    """The spans that were found so far, each with how often; `read` goes on where it ended.

    Attributes:
        last: Number of the last row read.
    """

    file: Path
    spans: Counter[bytes] = field(default_factory=Counter)
    last: int = 0

    def read(self) -> None:
        """Takes in the rows that are new."""
        with connection(self.file) as found:
            for seq, encoding, body in found.execute(
                "SELECT seq, encoding, body FROM inbox WHERE seq > ? AND kind = 'traces' ORDER BY seq", (self.last,)
            ):
                self.last = seq
                self.spans.update(_ids(encoding, body))


class connection:
    """A read-only connection, closed at the end of the block."""

    def __init__(self, file: Path) -> None:
        self._connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        self._connection.set_busy_timeout(5000)

    def __enter__(self) -> apsw.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close(force=True)


def stored_by_realm(file: Path) -> Counter[str]:
    """Spans in the inbox, each as often as it is there, by the realm of who sent them."""
    found: Counter[str] = Counter()
    with connection(file) as inbox:
        for speaker, encoding, body in inbox.execute("SELECT speaker, encoding, body FROM inbox WHERE kind = 'traces'"):
            found[json.loads(speaker)["realm"]] += len(_ids(encoding, body))
    return found


def integrity(file: Path) -> str:
    """What SQLite says of a file: ``ok``, or what is wrong."""
    with connection(file) as found:
        return str(found.pragma("integrity_check"))


def _ids(encoding: str, body: bytes) -> list[bytes]:
    if encoding == "json":
        return [
            bytes.fromhex(span["spanId"])
            for resource in json.loads(body)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
    request = ExportTraceServiceRequest.FromString(body)
    scopes = (scope for resource in request.resource_spans for scope in resource.scope_spans)
    return [span.span_id for scope in scopes for span in scope.spans]
