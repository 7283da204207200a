"""A sender in a process of its own, with a ledger: what it sent, and what it was told is durable.

    python -m tests.faults.exporter GRPC_PORT HTTP_PORT SEED SENDERS PAD

Senders take turns at the doors (gRPC, HTTP with protobuf, HTTP with JSON). Like a good exporter each sends a request
until it is acknowledged. On standard output stands every try: number, when it began, when it ended (monotonic
nanoseconds) and how (``ok``, or ``no`` for a refusal and for no answer). It ends when its standard input is closed:
then each sender still sees its request through.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.shells.otlp.kit import as_json, span, traces

BATCH, ACTS = 5, 100
"""Spans of a request, and acts of a session: fewer than any memory for duplicates holds."""
REST_S = 0.002
RETRY_S = 0.02
DOORS = ("grpc", "http", "json")
KIND = {"http": "application/x-protobuf", "json": "application/json"}
PATH = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def span_id(seed: int, number: int, index: int) -> bytes:
    """Id of a span of a request."""
    return hashlib.blake2b(f"{seed}/{number}/{index}".encode(), digest_size=8).digest()


def session_of(seed: int, number: int) -> str:
    """The session that a request's spans are of."""
    return f"x{seed}-{number * BATCH // ACTS}"


def request(seed: int, number: int, pad: int = 0) -> Any:
    """Request `number`: `BATCH` tool calls of one session; `pad` more bytes in each."""
    session = session_of(seed, number)
    trace_id = hashlib.blake2b(session.encode(), digest_size=16).digest()
    now_ns = time.time_ns()
    return traces(
        *(
            span(
                attributes=[
                    ("gen_ai.operation.name", "execute_tool"),
                    ("gen_ai.tool.name", "search_documents"),
                    ("gen_ai.tool.call.id", f"call-{seed}-{number}-{index}"),
                    ("gen_ai.tool.call.arguments", f'{{"query": "order {number} part {index}"}}'),
                    ("gen_ai.conversation.id", session),
                    *([("app.blob", bytes(pad))] if pad else []),
                ],
                trace_id=trace_id,
                span_id=span_id(seed, number, index),
                name="execute_tool search_documents",
                start_time_unix_nano=now_ns + index * 1000,
                end_time_unix_nano=now_ns + index * 1000 + 500,
            )
            for index in range(BATCH)
        ),
        resource=[("service.name", "clerk")],
    )


class Grpc:
    """Sends over gRPC."""

    def __init__(self, port: int) -> None:
        options = [(f"grpc.{name}_reconnect_backoff_ms", 20) for name in ("initial", "min", "max")]
        options += [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self._call = grpc.insecure_channel(f"127.0.0.1:{port}", options).unary_unary(PATH)

    def send(self, body: bytes) -> bool:
        try:
            answer = ExportTraceServiceResponse.FromString(self._call(body, timeout=10))
        except grpc.RpcError:
            return False
        return not answer.partial_success.rejected_spans


class Http:
    """Sends over HTTP."""

    def __init__(self, port: int, kind: str) -> None:
        self._port, self._kind = port, kind
        self._connection: http.client.HTTPConnection | None = None

    def send(self, body: bytes) -> bool:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            self._connection.request("POST", "/v1/traces", body, {"Content-Type": self._kind})
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return False
        return answer.status == 200 and b"rejectedSpans" not in content


def send_all(arguments: Sequence[int]) -> None:
    """Sends until standard input ends."""
    grpc_port, http_port, seed, senders, pad = arguments
    numbers, ending, says = itertools.count(), threading.Event(), threading.Lock()

    def say(number: int, began_ns: int, word: str) -> None:
        with says:
            sys.stdout.write(f"{number} {began_ns} {time.monotonic_ns()} {word}\n")
            sys.stdout.flush()

    def sender(door: str) -> None:
        way: Grpc | Http = Grpc(grpc_port) if door == "grpc" else Http(http_port, KIND[door])
        while not ending.is_set():
            number = next(numbers)
            made = request(seed, number, pad)
            body = as_json(made) if door == "json" else made.SerializeToString()
            while True:
                say(number, time.monotonic_ns(), "try")
                began_ns = time.monotonic_ns()
                if way.send(body):
                    say(number, began_ns, "ok")
                    break
                say(number, began_ns, "no")
                time.sleep(RETRY_S)
            time.sleep(REST_S)

    threads = [threading.Thread(target=sender, args=(DOORS[index % len(DOORS)],)) for index in range(senders)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ending.set()
    for thread in threads:
        thread.join()


class Try(NamedTuple):
    """One attempt to send a request."""

    number: int
    began_ns: int
    ended_ns: int
    ok: bool


class Exporter:
    """The sender as its parent sees it; within ``with`` it sends.

    Attributes:
        tries: Attempts that have ended, in order of ending.
        began: Requests that were begun.
    """

    def __init__(self, ports: dict[str, int], seed: int, *, senders: int = 6, pad: int = 0) -> None:
        self.seed, self.tries, self.began = seed, list[Try](), dict[int, None]()
        self._arguments = [ports["grpc"], ports["http"], seed, senders, pad]
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.exporter", *map(str, self._arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def finish(self, timeout_s: float = 60.0) -> None:
        """Sees the requests that were begun through."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout_s)
        self._reader.join(timeout_s)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, began_ns, ended_ns, word = line.split()
            with self._changed:
                if word == "try":
                    self.began[int(number)] = None
                else:
                    self.tries.append(Try(int(number), int(began_ns), int(ended_ns), word == "ok"))
                self._changed.notify_all()

    def first(self, after_ns: int, lives: Callable[[], bool], timeout_s: float = 60.0) -> Try | None:
        """Waits for the first request that is acknowledged after a moment; None where the sidecar ends before that.

        Raises:
            TimeoutError: It lives, and acknowledges nothing.
        """
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while not (found := self._ok(after_ns)):
                if not lives():
                    return None
                if time.monotonic() > end_s:
                    raise TimeoutError("no request was acknowledged")
                self._changed.wait(0.05)
            return found[0]

    def _ok(self, after_ns: int) -> list[Try]:
        found = []
        for one in reversed(self.tries):
            if one.ended_ns < after_ns:
                break
            if one.ok:
                found.append(one)
        return found[::-1]

    def settled(self, at_ns: int) -> None:
        """Waits until all that was heard up to a moment is in the ledger."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self.tries) and self.tries[-1].ended_ns > at_ns, 30)

    def in_flight(self, at_ns: int) -> int:
        """Attempts that were under way at a moment (and have ended since)."""
        with self._changed:
            return sum(one.began_ns < at_ns < one.ended_ns for one in self.tries[-1000:])

    def acknowledged(self) -> set[bytes]:
        """Ids of the spans that the sender was told are durable."""
        with self._changed:
            numbers = [one.number for one in self.tries if one.ok]
        return {span_id(self.seed, number, index) for number in numbers for index in range(BATCH)}

    def acts(self) -> Counter[str]:
        """Acts by session, of the requests that were acknowledged."""
        with self._changed:
            return Counter(session_of(self.seed, one.number) for one in self.tries if one.ok for _ in range(BATCH))


if __name__ == "__main__":
    send_all([int(argument) for argument in sys.argv[1:]])
