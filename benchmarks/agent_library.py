"""What the agent library adds to an act: at the question, at a span's end, and for what is carried.

Run as ``python -m benchmarks.agent_library``; prints one JSON line a figure. Times are microseconds on this machine;
read the ratios. The sidecar is a bare gRPC server in another process, so that its work is not ours.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import grpc
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider

import sidecar.agent as sidecar
from sidecar.control.v1 import control_pb2 as pb
from sidecar.testing import FakeSidecar

ROUNDS, WARM_UP = 2000, 50


class Figure(NamedTuple):
    """Microseconds a call: wall clock median and 99th percentile, and processor time of the thread that called."""

    p50_us: float
    p99_us: float
    cpu_us: float


def measured(*calls: Callable[[], Any], rounds: int = ROUNDS, warm_up: int = WARM_UP) -> list[Figure]:
    """Figures of `calls`, taken in turns so that whatever else this machine does hits all alike."""
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
        Figure(statistics.median(wall), statistics.quantiles(wall, n=100)[98], statistics.median(cpu))
        for wall, cpu in zip(walls, cpus, strict=True)
    ]


def show(figure: str, value: Figure, **more: Any) -> None:
    """One line of the report."""
    told = {name: round(number, 1) for name, number in value._asdict().items()}
    print(json.dumps({"figure": figure, **told, **more}), flush=True)


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


def main() -> None:
    """All figures."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    if not ours.poll(20):
        raise SystemExit("the server did not start")
    target = f"127.0.0.1:{ours.recv()}"

    provider = TracerProvider()
    two_kb = span_of_size(provider, 2048)
    encoded = encode_spans([two_kb]).SerializeToString()
    [at_end] = measured(lambda: encode_spans([two_kb]).SerializeToString())
    show("encode one span at its end", at_end, bytes=len(encoded))

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

        process = time.process_time_ns()
        bare, gated = measured(lambda: ask([]), act)
        process = (time.process_time_ns() - process) / 1000 / (ROUNDS + WARM_UP)
        show("bare gRPC question, nothing else", bare)
        show(
            "gated act over gRPC, with its span", gated, over_bare_us=round(gated.p50_us - bare.p50_us, 1),
            both_with_all_threads_cpu_us=round(process, 1),
        )  # fmt: skip

        # The same bytes, encoded as the spans ended and encoded at the question.
        three, parts = [two_kb] * 3, [encoded] * 3
        nothing, before, at_it = measured(
            lambda: ask([]),
            lambda: ask(parts),
            lambda: ask([encode_spans([span]).SerializeToString() for span in three]),
        )
        show("question that carries nothing", nothing)
        size = sum(map(len, parts))
        for words, figure in (("before", before), ("at it", at_it)):
            show(
                f"question with 6 KB encoded {words}",
                figure,
                bytes=size,
                over=round(figure.p50_us / nothing.p50_us - 1, 3),
            )

        answer = pb.AuthorizeResponse(answer=pb.ANSWER_ALLOWED, judged=True)
        client.wire._methods = client.wire._methods | {"Authorize": lambda *_, **__: answer}
        [asked, constant] = measured(lambda: session.act("send_mail", arguments).begin(), act)
        show("until the act may run, answered by a constant", asked)
        show("gated act, answered by a constant: what the library costs the caller", constant)
        client._tap.is_closed = True
        [unkept] = measured(act)
        show("the same, its span neither kept nor exported", unkept)
        client._tap.is_closed = False
    ours.send(None)
    server.join(5)

    with FakeSidecar() as fake:
        agent = sidecar.connect("bench", control=fake.address, otlp=fake.address, tracer_provider=TracerProvider())
        with agent, agent.session() as session:
            fake.stall()

            def denied() -> None:
                with contextlib.suppress(sidecar.SidecarUnavailable):
                    session.act("send_mail", {}).begin()

            [denial] = measured(denied, rounds=10, warm_up=0)
            show("denial while the sidecar stalls, deadline 250 ms", denial)
            fake.go()


if __name__ == "__main__":
    main()
