"""An agent that sends at a steady pace, in a process of its own, and counts what it was answered.

    python -m tests.faults.flood PORT TOKEN NAME SPANS_PER_S SECONDS REQUESTS SPANS PAD IN_FLIGHT

It does not try again: what is refused is gone. On standard output stand the moment of its first refusal (monotonic
nanoseconds), and at the end the counts of spans, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.faults.exporter import PATH
from tests.shells.otlp.kit import span, traces

REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT)


def request(name: str, number: int, spans: int, pad: int) -> bytes:
    """Tool calls of one session after the other."""
    session, now_ns = f"{name}-{number // 20}", time.time_ns()
    made = traces(
        *(
            span(
                attributes=[
                    ("gen_ai.operation.name", "execute_tool"),
                    ("gen_ai.tool.name", "search_documents"),
                    ("gen_ai.tool.call.id", f"{name}-{number}-{index}"),
                    ("gen_ai.tool.call.arguments", f'{{"query": "{number} {index}"}}'),
                    ("gen_ai.conversation.id", session),
                    *([("app.blob", bytes(pad))] if pad else []),
                ],
                trace_id=hashlib.blake2b(session.encode(), digest_size=16).digest(),
                span_id=hashlib.blake2b(f"{name}/{number}/{index}".encode(), digest_size=8).digest(),
                start_time_unix_nano=now_ns,
                end_time_unix_nano=now_ns + 1000,
            )
            for index in range(spans)
        ),
        resource=[("service.name", name)],
    )
    return bytes(made.SerializeToString())


def send_all(arguments: Sequence[str]) -> None:
    """Sends for so long, at most so many requests, then waits for the answers."""
    port, token, name = arguments[:3]
    spans_per_s, seconds = float(arguments[3]), float(arguments[4])
    requests, spans, pad, in_flight = map(int, arguments[5:])
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    call = grpc.insecure_channel(f"127.0.0.1:{port}", options).unary_unary(PATH)
    metadata = (("authorization", f"Bearer {token}"),)
    counts: Counter[str] = Counter()
    room, told = threading.Semaphore(in_flight), threading.Lock()

    def answered(future: Any) -> None:
        try:
            refused = ExportTraceServiceResponse.FromString(future.result()).partial_success.rejected_spans
            fate, lost = "taken", refused
        except grpc.RpcError as error:
            fate, lost = ("refused", spans) if error.code() in REFUSED else (f"unanswered ({error.code().name})", 0)
        with told:
            if lost and not counts["refused"]:
                print(f"first {time.monotonic_ns()}", flush=True)
            counts[fate] += spans
            if fate == "taken":
                counts["taken"] -= lost
                counts["refused"] += lost
        room.release()

    begin_s = time.monotonic()
    number = 0
    while (now_s := time.monotonic()) < begin_s + seconds and number < requests:
        if (wait_s := begin_s + number * spans / spans_per_s - now_s) > 0:
            time.sleep(wait_s)
        room.acquire()
        call.future(request(name, number, spans, pad), timeout=30, metadata=metadata).add_done_callback(answered)
        counts["sent"] += spans
        number += 1
    for _ in range(in_flight):
        room.acquire()
    print(f"counts {json.dumps(counts)}", flush=True)


class Flood:
    """The sender as its parent sees it; it begins within ``with``.

    Attributes:
        first_ns: When it heard its first refusal; 0 where it has not.
        counts: Spans sent, taken and refused, once it has ended.
        spans: How many a request has.
    """

    def __init__(
        self, port: int, token: str, name: str, *, spans_per_s: float, seconds: float, spans: int,
        requests: int = 10**9, pad: int = 0, in_flight: int = 64,
    ) -> None:  # fmt: skip
        self.name, self.first_ns, self.counts, self.spans = name, 0, Counter[str](), spans
        self._arguments = [port, token, name, spans_per_s, seconds, requests, spans, pad, in_flight]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.flood", *map(str, self._arguments)], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    @property
    def is_over(self) -> bool:
        return not self._reader.is_alive()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, rest = line.partition(" ")
            if word == "first":
                self.first_ns = self.first_ns or int(rest)
            else:
                self.counts = Counter(json.loads(rest))


if __name__ == "__main__":
    send_all(sys.argv[1:])
