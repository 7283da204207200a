"""From a span's sending to the pause on the agent's own stream: OTLP/gRPC unbatched in, Watch out.

A session reads a key, and later posts it to a host outside. The clock runs from before the export of that one span
until the client's Watch stream has said that the session is paused: decoding, the durable row, detectors and the way
back are in between. Sender and watcher are one process, so both times are of one clock.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from benchmarks import mix
from benchmarks.conversations import encoded
from benchmarks.report import Figure, number, quantile
from benchmarks.running import Sidecar, empty_call
from sidecar.control.v1 import control_pb2 as pb

ROUNDS, WARM_UP = 500, 30
PATIENCE_S = 30.0
SERVICE = "/sidecar.control.v1.AgentService/"
INSTANCE = "latency"


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """One session a round."""
    rounds, warm_up = (40, 10) if quick else (ROUNDS, WARM_UP)
    with Sidecar() as sidecar, sidecar.channel(sidecar.otlp) as otlp, empty_call() as empty:
        export = otlp.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        took, bare = [], []
        with Watcher(sidecar) as watcher:
            for number_ in range(rounds + warm_up):
                leak = Leak(number_)
                watcher.open(leak)
                export(leak.reads)
                began_ns = time.perf_counter_ns()
                sent = export.future(leak.posts)
                took.append(watcher.paused_ns(leak.id) - began_ns)
                sent.result()
                began_ns = time.perf_counter_ns()
                empty(b"")
                bare.append(time.perf_counter_ns() - began_ns)
        took, bare = took[warm_up:], bare[warm_up:]
    yield Figure(
        name="latency: span sent to pause on the agent's stream, unbatched, p99",
        value=quantile(took, 0.99) / 1e6, unit="ms", target=10.0,
        beside=f"p50 {number(quantile(took, 0.5) / 1e6)} ms, longest {number(max(took) / 1e6)} ms of {len(took)}",
    )  # fmt: skip
    yield Figure(
        name="  its p50 against that of an empty grpc.aio call",
        value=quantile(took, 0.5) / quantile(bare, 0.5), unit="x",
        beside=f"an empty call takes {number(quantile(bare, 0.5) / 1000)} µs",
    )  # fmt: skip


class Leak:
    """A session that reads a key and posts it elsewhere: two export requests."""

    def __init__(self, number_: int) -> None:
        begins_ns = time.time_ns() - 20 * mix.SECOND_NS
        session = mix._Session(f"leak {number_}", number_ % mix.AGENTS, begins_ns)
        read, post = mix.secret_posted(session)[:2]
        self.id, self.agent = session.id, mix.role(session.agent)
        trace = random.Random(f"leak {number_}").randbytes(16)
        self.reads, self.posts = (
            encoded(self.agent, [sent.span for sent in session._tools(trace, session._id("call").hex(), act)])
            for act in (read, post)
        )


class Watcher:
    """A client with a Watch stream, which says when its sessions are paused."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._channel_of = sidecar.channel()
        self._heard: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._to_send: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        channel = self._channel_of.__enter__()
        self._open = channel.unary_unary(f"{SERVICE}OpenSession")
        self._to_send.put(pb.WatchRequest(instance_id=INSTANCE).SerializeToString())
        stream = channel.stream_stream(f"{SERVICE}Watch")(iter(self._to_send.get, None))
        self._thread = threading.Thread(target=self._watch, args=(stream,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._to_send.put(None)
        self._channel_of.__exit__(None, None, None)

    def open(self, leak: Leak) -> None:
        """Announces a session."""
        agent = pb.AgentIdentity(name=leak.agent)
        request = pb.OpenSessionRequest(session_id=leak.id, agent=agent, instance_id=INSTANCE)
        self._open(request.SerializeToString())

    def paused_ns(self, session_id: str) -> int:
        """When the stream said that this session is paused, by `time.perf_counter_ns`.

        Raises:
            queue.Empty: It has not said so within `PATIENCE_S`.
        """
        while True:
            name, at_ns = self._heard.get(timeout=PATIENCE_S)
            if name == session_id:
                return at_ns

    def _watch(self, stream: Any) -> None:
        try:
            for body in stream:
                at_ns = time.perf_counter_ns()
                for state in pb.WatchResponse.FromString(body).states:
                    if state.state == pb.RUN_STATE_PAUSED:
                        self._heard.put((state.session_id, at_ns))
        except Exception as error:
            if "CANCELLED" not in repr(error):
                raise
