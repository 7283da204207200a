"""What a sidecar has received lately, read from its inbox beside it: never written, never locked.

for arrived_ns, records in recent.received(data_dir, since_ns):
    if records is None: ...        # a request that cannot be read any more
    for record in records: ...     # record.span, record.speaker, record.arrived_ns
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar.control.convert import read_question
from sidecar.core.span import Record
from sidecar.errors import SidecarError
from sidecar.sources.decode import decode
from sidecar.sources.files import LIMITS
from sidecar.storage.telemetry import rows_since

MAX_SEEN = 500_000
"""Spans remembered, so that one that comes again is given once."""


def received(directory: Path, since_ns: int) -> Iterator[tuple[int, list[Record] | None]]:
    """(arrival time, records) of each request since then, in the order of arrival; None for one that cannot be read.

    Spans that an agent carried to the gate count as received, and each span is given once. Memory: one request, and
    the names of `MAX_SEEN` spans.

    Args:
        directory: The data directory (`storage.data_dir`).

    Raises:
        ConfigError: There is no such database.
        StorageError: It cannot be read.
    """
    seen: dict[tuple[str, str, str, int], None] = {}
    for _, row in rows_since(directory, since_ns):
        try:
            if row.kind == "asked":
                spans = list(read_question(row.body, row.speaker, row.arrived_ns).carried)
            elif row.kind in ("traces", "logs"):
                spans = decode(row.kind, row.body, row.encoding, LIMITS).spans
            else:
                continue
        except SidecarError:
            yield row.arrived_ns, None
            continue
        fresh = _new(spans, row.speaker.realm, seen)
        yield row.arrived_ns, [Record(span, row.speaker, row.arrived_ns) for span in fresh]


def _new(spans: list[Any], realm: str, seen: dict[tuple[str, str, str, int], None]) -> list[Any]:
    """Spans that have not come before: what the gate was told of is often exported, too."""
    fresh = []
    for span in spans:
        key = (realm, span.trace_id, span.span_id, span.end_ns)
        if span.signal == "span" and span.span_id:
            if key in seen:
                continue
            seen[key] = None
            if len(seen) > MAX_SEEN:
                del seen[next(iter(seen))]
        fresh.append(span)
    return fresh
