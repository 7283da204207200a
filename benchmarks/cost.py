"""What watching costs on disk: bytes per 10^6 spans, plain and compressed, and bytes per alert (promise P23).

The mix is sent to a real sidecar; after it has ended, SQLite is asked which pages belong to what. What a span costs the
processor is in `pipeline`, what a session costs in memory in `memory`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import grpc

from benchmarks import mix
from benchmarks.report import Figure, number
from benchmarks.running import Sidecar

MIB = 2**20
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Disk for spans, for the snapshot that goes with them, and for alerts."""
    spans = mix.SPANS // 10 if quick else mix.SPANS
    for name, zstd in (("", False), (", with telemetry_zstd", True)):
        sent_bytes, pages, control, alerts = _stored(spans, zstd=zstd)
        per_million = pages.get("inbox", 0) * 1e6 / spans
        yield Figure(
            name=f"disk: 10^6 spans{name}",
            value=per_million / MIB, unit="MB",
            beside=f"{number(per_million / 1e6)} B a span; {number(sent_bytes / spans)} B a span were sent",
        )  # fmt: skip
        if zstd:
            continue
        yield Figure(
            name=f"  the snapshot beside them, {mix.SESSIONS} sessions of {mix.AGENTS} agents",
            value=pages.get("blobs", 0) / MIB, unit="MB", beside="does not grow with the spans, but with sessions kept",
        )  # fmt: skip
        kept = sum(size for table, size in control.items() if "alerts" in table)
        yield Figure(
            name="disk: one alert, its findings, evidence and indexes",
            value=kept / max(alerts, 1), unit="B",
            beside=f"{alerts:,} alerts of {spans:,} spans; "
                   f"all of control.db, audit log included, {number(sum(control.values()) / MIB)} MB",
        )  # fmt: skip


def _stored(spans: int, *, zstd: bool) -> tuple[int, dict[str, int], dict[str, int], int]:
    """Bytes sent; bytes by table and index, of pages in telemetry.db and of content in control.db; number of alerts."""
    bodies = mix.requests(mix.spans(spans))
    sidecar = Sidecar(storage={"telemetry_zstd": zstd})
    with sidecar:
        with grpc.insecure_channel(sidecar.otlp) as channel:
            export = channel.unary_unary(EXPORT)
            for body in bodies:
                export(body, timeout=60)
        sidecar.until(lambda: sidecar.count("sidecar_spans_fed_total") >= spans)
        sidecar.stop()
        telemetry = _bytes(sidecar.data / "telemetry.db", "pgsize")
        control = _bytes(sidecar.data / "control.db", "payload")  # they are few: most of their pages are empty still
        alerts = _one(sidecar.data / "control.db", "SELECT count(*) FROM alerts")
    return sum(map(len, bodies)), telemetry, control, alerts


def _bytes(file: Path, of: str) -> dict[str, int]:
    """Bytes of each table and index: ``pgsize`` of its pages, ``payload`` of what is in them."""
    connection = apsw.Connection(str(file))
    try:
        return {
            str(name): int(size)  # type: ignore[arg-type]
            for name, size in connection.execute(f"SELECT name, sum({of}) FROM dbstat GROUP BY name")
        }
    finally:
        connection.close()


def _one(file: Path, sql: str) -> int:
    connection = apsw.Connection(str(file))
    try:
        return int(connection.execute(sql).get)  # type: ignore[call-overload]
    finally:
        connection.close()
