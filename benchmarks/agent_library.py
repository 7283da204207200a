"""What the agent library adds to an act: at the question, at a span's end, and for what is carried.

Times are microseconds on this machine; read the ratios. The sidecar is a bare gRPC server in another process, so that
its work is not ours.
"""

from __future__ import annotations

import contextlib
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import grpc
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider

import sidecar.agent as sidecar
from benchmarks.report import Figure, number
from benchmarks.running import child
from sidecar.control.v1 import control_pb2 as pb
from sidecar.testing import FakeSidecar

ROUNDS, WARM_UP = 2000, 50


class Taken(NamedTuple):
    """Microseconds a call: wall clock median and 99th percentile, and processor time of the thread that called."""

    p50_us: float
    p99_us: float
    cpu_us: float

    def figure(self, name: str, base: Taken | None = None, more: str = "") -> Figure:
        """As a line of the report: its p50 as a ratio to that of `base`, or as it is."""
        told = f"p50 {number(self.p50_us)}, p99 {number(self.p99_us)}, processor {number(self.cpu_us)} µs"
        value, unit = (self.p50_us, "µs") if base is None else (self.p50_us / base.p50_us, "x")
        return Figure(name=name, value=value, unit=unit, beside=f"{told}; {more}" if more else told)


def measured(*calls: Callable[[], Any], rounds: int = ROUNDS, warm_up: int = WARM_UP) -> list[Taken]:
    """Times of `calls`, taken in turns so that whatever else this machine does hits all alike."""
    for call in calls * warm_up:
        call()
    gc.collect()
    walls: list[list[float]] = [[] for _ in calls]
    cpus: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, wall, cpu in zip(calls, walls, cpus, strict=True):
            began, began_cpu = time.perf_counter_ns(), time.thread_time_ns()
            call()
            cpu.append((time.thread_time_ns() - began_cpu) / 1000)
            wall.append((time.perf_counter_ns() - began) / 1000)
    return [
        Taken(statistics.median(wall), statistics.quantiles(wall, n=100)[98], statistics.median(cpu))
        for wall, cpu in zip(walls, cpus, strict=True)
    ]


def serve(pipe: Connection) -> None:
    """A server that allows everything and reads nothing."""
    allowed = pb.AuthorizeResponse(answer=pb.ANSWER_ALLOWED, judged=True).SerializeToString()
    running = pb.SessionState(state=pb.RUN_STATE_RUNNING, epoch=1)

    def opened(body: bytes, _: Any) -> bytes:
        running.session_id = pb.OpenSessionRequest.FromString(body).session_id
        return pb.OpenSessionResponse(state=running).SerializeToString()

    def watch(requests: Any, context: Any) -> Any:
        while context.is_active():
            yield pb.WatchResponse().SerializeToString()
            time.sleep(0.5)

    def nothing(*_: Any) -> bytes:
        return b""

    unary = {"Authorize": lambda *_: allowed, "OpenSession": opened, "ReportOutcome": nothing, "Acknowledge": nothing}
    methods = {name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in unary.items()}
    methods["Watch"] = grpc.stream_stream_rpc_method_handler(watch)
    server = grpc.server(ThreadPoolExecutor(8))
    exports = {"Export": grpc.unary_unary_rpc_method_handler(nothing)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("sidecar.control.v1.AgentService", methods),
            grpc.method_handlers_generic_handler("opentelemetry.proto.collector.trace.v1.TraceService", exports),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(port)
    pipe.recv()
    server.stop(0)


def span_of_size(provider: TracerProvider, size_bytes: int) -> Any:
    """An ended tool span whose OTLP request has about this size."""
    span = provider.get_tracer("benchmark").start_span("execute_tool read_mail", attributes={
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "read_mail", "gen_ai.tool.call.id": "a" * 32,
        "sidecar.call.id": "a" * 32, "gen_ai.conversation.id": "c" * 32, "gen_ai.agent.name": "mail-helper",
        "gen_ai.tool.call.arguments": '{"id":7}', "sidecar.gated": True, "sidecar.instance.id": "b" * 32,
        "gen_ai.tool.call.result": "x" * (size_bytes - 750),
    })  # fmt: skip
    span.end()
    return span


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """All figures."""
    rounds = 50 if quick else ROUNDS
    with child(serve) as pipe:
        if not pipe.poll(20):
            raise RuntimeError("the server did not start")
        yield from _against(f"127.0.0.1:{pipe.recv()}", rounds)
    yield _denial()


def _against(target: str, rounds: int) -> Iterator[Figure]:
    provider = TracerProvider()
    two_kb = span_of_size(provider, 2048)
    encoded = encode_spans([two_kb]).SerializeToString()
    [at_end] = measured(lambda: encode_spans([two_kb]).SerializeToString(), rounds=rounds)
    yield at_end.figure("library: encode one span of 2 KB at its end")

    agent = sidecar.connect("bench", control=target, otlp=target, tracer_provider=provider)
    with agent, agent.session() as session:
        client, arguments = agent.client, {"to": "amy@corp.example", "subject": "Lunch", "body": "x" * 300}
        question = client.wire._methods["Authorize"]
        arguments_json = json.dumps(arguments)

        def ask(carried: list[bytes]) -> None:
            request = pb.AuthorizeRequest(session_id=session.id, tool="send_mail", carried=carried)
            request.arguments_json = arguments_json
            question(request, timeout=0.25)

        def act() -> None:
            with session.act("send_mail", arguments) as sent:
                sent.result = "ok"

        bare, gated = measured(lambda: ask([]), act, rounds=rounds)
        yield gated.figure("library: gated act with its span, against a bare question", bare)

        # The same bytes, encoded as the spans ended and encoded at the question.
        three, parts = [two_kb] * 3, [encoded] * 3
        nothing, before, at_it = measured(
            lambda: ask([]),
            lambda: ask(parts),
            lambda: ask([encode_spans([span]).SerializeToString() for span in three]),
            rounds=rounds,
        )
        size = f"{sum(map(len, parts)):,} B"
        yield before.figure("library: question with 6 KB encoded before, against one without", nothing, size)
        yield at_it.figure("  the same, encoded at the question", nothing, size)

        answer = pb.AuthorizeResponse(answer=pb.ANSWER_ALLOWED, judged=True)
        client.wire._methods = client.wire._methods | {"Authorize": lambda *_, **__: answer}
        asked, constant = measured(lambda: session.act("send_mail", arguments).begin(), act, rounds=rounds)
        yield asked.figure("library: until the act may run, answered by a constant")
        yield constant.figure("library: gated act, answered by a constant")
        client._tap.is_closed = True
        [unkept] = measured(act, rounds=rounds)
        yield unkept.figure("  the same, its span neither kept nor exported", constant)
        client._tap.is_closed = False


def _denial() -> Figure:
    with FakeSidecar() as fake:
        agent = sidecar.connect("bench", control=fake.address, otlp=fake.address, tracer_provider=TracerProvider())
        with agent, agent.session() as session:
            fake.stall()

            def denied() -> None:
                with contextlib.suppress(sidecar.SidecarUnavailable):
                    session.act("send_mail", {}).begin()

            [denial] = measured(denied, rounds=10, warm_up=0)
            fake.go()
    return denial.figure("library: denial while the sidecar stalls, deadline 250 ms")
