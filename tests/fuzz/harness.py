"""Fuzzes the way of telemetry from bytes to events: decoded, read by the mappers, woven into sessions.

Not part of the suite; it needs `atheris` beside the project's own libraries:

    python -m tests.fuzz.harness DIR --seeds          writes the first inputs, made by code
    python -m tests.fuzz.harness DIR -max_total_time=3600 -timeout=20 -max_len=4096

The first byte of an input says what follows it: an export request as it is (protobuf or JSON), or a `program` of one.
An input that fails is written to the working directory and goes into `tests/core/semconv/test_fuzz.py` once mended.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

with atheris.instrument_imports(include=["sidecar"]) if atheris else contextlib.nullcontext():
    from sidecar.core import semconv
    from sidecar.core.pipeline import Pipeline
    from sidecar.core.semconv.facts import Facts
    from sidecar.core.span import Record
    from sidecar.core.text.scan import PatternSet
    from sidecar.core.tools import ToolCatalogue
    from sidecar.core.triage.policy import Policy, PolicyDocument
    from sidecar.errors import SpanError
    from sidecar.sources.decode import Limits, decode

from tests.fuzz.program import AT_NS, KEYS, request
from tests.fuzz.shapes import check

LIMITS, CATALOGUE, PATTERNS = Limits(), ToolCatalogue(), PatternSet(())
POLICY = Policy(PolicyDocument(), {})
MAX_BODY = 4 << 20
"""Bytes of a request that is taken: reading texts costs time by the byte, and a program can say large things."""
KINDS = ("proto", "json", "program", "program")


def pipeline(journal_bytes: int = 1 << 20) -> Pipeline:
    """A pipeline without detectors, which puts late telemetry in order if it keeps a journal."""
    return Pipeline((), POLICY, CATALOGUE, patterns=PATTERNS, capacity=64, journal_bytes=journal_bytes)


def run(data: bytes) -> int:
    """Takes one input; how many records it held.

    Raises:
        Exception: Something is wrong with us, whatever the bytes.
    """
    kind, body = KINDS[data[0] % len(KINDS)] if data else "proto", data[1:]
    signal = ("traces", "logs")[data[0] // len(KINDS) % 2] if data else "traces"
    encoding = "json" if kind == "json" else "proto"
    if kind == "program":
        signal, body = request(body)
    if len(body) > MAX_BODY:
        return 0
    try:
        spans = decode(signal, body, encoding, LIMITS).spans
    except SpanError:
        return 0
    core, now_ns = pipeline(), AT_NS + 600 * 10**9
    for span in spans[:64]:
        check(semconv.read(span), span)
        core.feed(Record(span, arrived_ns=now_ns), now_ns)
    core.tick(now_ns)
    core.tick(now_ns + 10**10, last=True)
    return len(spans)


def seeds() -> list[bytes]:
    """Inputs to begin with: each known name once, in a program and as JSON; a few texts of every shape."""
    made = [bytes([2, 1, 0, 1, 0, 0, 0, 0, 9, 1, *bytes(12)])]
    for at in range(0, len(KEYS), 4):
        chosen = b"".join(bytes([at_ >> 8, at_ & 255, 0, 2, *range(8)]) for at_ in range(at, min(at + 4, len(KEYS))))
        made.append(bytes([2, 1, 0, 1, 0, at % 24, 0, 0, 0, 9, 0, 4]) + chosen)
        made.append(bytes([2, 0, 0, 1, 1, 0, at % 24, 3, 1, 2, 4]) + chosen)
        attributes = [{"key": key, "value": {"stringValue": _example(key)}} for key in KEYS[at : at + 4]]
        span = {"traceId": "1" * 32, "spanId": "2" * 16, "name": "chat x", "startTimeUnixNano": str(AT_NS),
                "endTimeUnixNano": str(AT_NS + 1), "attributes": attributes}  # fmt: skip
        told = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
        made.append(b"\1" + json.dumps(told).encode())
    return made


def _example(key: str) -> str:
    if key.endswith(("arguments", "input", "args", "inputs")):
        return '{"args": [], "kwargs": {"to": "a@example.com"}}'
    if key.endswith(("messages", "prompt", "completion", "content", "value")):
        return '[{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]'
    return "tool"


class Slowest:
    """Keeps the input that took longest, and how many there were."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._worst_s, self.count, self._records = directory, 0.0, 0, 0

    def __call__(self, data: bytes) -> None:
        began_s = time.process_time()
        self._records += run(data)
        took_s = time.process_time() - began_s
        self.count += 1
        if took_s > self._worst_s:
            self._worst_s = took_s
            (self._directory / "slowest").write_bytes(data)
            print(f"slowest: {took_s * 1000:.0f} ms, {len(data)} bytes, after {self.count} inputs", flush=True)
        if self.count % 50_000 == 0:
            print(f"{self.count} inputs, {self._records} records", flush=True)


def main(arguments: list[str]) -> None:
    corpus = Path(arguments[1])
    corpus.mkdir(parents=True, exist_ok=True)
    if "--seeds" in arguments:
        for number, seed in enumerate(seeds()):
            (corpus / f"seed-{number:03}").write_bytes(seed)
        return
    if atheris is None:
        raise SystemExit("atheris is not installed here")
    one = Slowest(corpus.parent)
    atheris.Setup(arguments, one)
    atheris.Fuzz()


__all__: list[Any] = ["Facts", "main", "pipeline", "run", "seeds"]

if __name__ == "__main__":
    main(sys.argv)
