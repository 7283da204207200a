"""The gRPC door, opened for real: rows 1-30 of the catalogue of bad inputs, as far as a door has to do with them."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
import zlib
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

from sidecar.core.span import LOCAL, Speaker
from sidecar.errors import StorageError
from sidecar.sources import InboxFullError
from tests.shells.otlp.certificates import Authority
from tests.shells.otlp.conftest import OpenDoor, Opened
from tests.shells.otlp.http2 import END_HEADERS, END_STREAM, EXPORT, RST, Client
from tests.shells.otlp.kit import FakeDoorman, field, logs, record, span, traces, value

ALICE = Speaker("agent:alice", "authenticated", "alice")
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
PROFILES = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
Code = grpc.StatusCode


class Sender:
    """A client that sends bytes and tells what came of it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def __call__(self, body: bytes, *, path: str = EXPORT, **how: Any) -> Any:
        """The answer's bytes, or the error."""
        try:
            return await self._channel.unary_unary(path)(body, timeout=30, **how)
        except grpc.aio.AioRpcError as error:
            return error


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    channels = []

    def connected(door: Opened, credentials: grpc.ChannelCredentials | None = None) -> Sender:
        options = [("grpc.max_send_message_length", -1), ("grpc.ssl_target_name_override", "localhost")]
        address = f"127.0.0.1:{door.port}"
        if credentials:
            channel = grpc.aio.secure_channel(address, credentials, options)
        else:
            channel = grpc.aio.insecure_channel(address, options[:1])
        channels.append(channel)
        return Sender(channel)

    yield connected
    for channel in channels:
        await channel.close()


def partial(answer: bytes) -> tuple[int, str]:
    told = ExportTraceServiceResponse.FromString(answer).partial_success
    return told.rejected_spans, told.error_message


def retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    """What the error's `RetryInfo` says; None where it has none."""
    metadata = dict(error.trailing_metadata() or ())
    if (details := metadata.get("grpc-status-details-bin")) is None:
        return None
    status = Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    return info.retry_delay.seconds + info.retry_delay.nanos / 1e9


async def test_spans_and_log_records_are_taken_and_nothing_more_is_said(open_grpc: OpenDoor, connect: Any) -> None:
    door = await open_grpc()
    send = connect(door)
    assert await send(traces(span(1), span(2)).SerializeToString()) == b""
    assert await send(logs().SerializeToString(), path=LOGS, compression=grpc.Compression.Gzip) == b""
    assert [(row.kind, row.encoding, row.speaker) for row in door.inbox.rows] == [
        ("traces", "proto", LOCAL),
        ("logs", "proto", LOCAL),
    ]
    assert door.inbox.rows[1].body == logs().SerializeToString()
    assert door.tally.doors == {"otlp_grpc"}


async def test_the_sdks_own_exporter_is_served(open_grpc: OpenDoor) -> None:
    door = await open_grpc()
    exporter = OTLPSpanExporter(endpoint=f"127.0.0.1:{door.port}", insecure=True)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def work() -> None:
        with provider.get_tracer("t").start_as_current_span("execute_tool x") as told:
            told.set_attribute("gen_ai.tool.name", "x")
        provider.shutdown()

    await asyncio.to_thread(work)
    assert [(got.name, got.attributes) for got in door.feeder.spans] == [("execute_tool x", {"gen_ai.tool.name": "x"})]


async def test_row_1_a_message_one_byte_above_the_limit_is_refused_and_the_connection_kept(
    open_grpc: OpenDoor, connect: Any
) -> None:
    base = traces(span(1, [("pad", "")])).SerializeToString()
    most = 100_000

    def sized(size: int) -> bytes:
        pad = size - len(base)
        while len(body := traces(span(1, [("pad", "x" * pad)])).SerializeToString()) > size:
            pad -= 1
        return body

    door = await open_grpc(max_request=most)
    send = connect(door)
    body = sized(most)
    assert len(body) == most
    assert await send(body) == b""
    for compression in (None, grpc.Compression.Gzip):
        error = await send(sized(most + 1), compression=compression)
        assert (error.code(), retry_after_s(error)) == (Code.RESOURCE_EXHAUSTED, None)
    assert await send(body) == b""
    assert len(door.inbox.rows) == 2
    assert door.tally.reasons == {"aborted": 2}


CHILD = """
import asyncio
from sidecar.sources.intake import Intake
from sidecar.sources.otlp import OtlpSettings
from sidecar.sources.otlp_grpc import OtlpGrpc
from tests.shells.otlp.kit import FakeDoorman, FakeFeeder, FakeInbox, Tally

async def main():
    tally = Tally()
    intake = Intake(FakeInbox(), FakeFeeder(), tally)
    door = OtlpGrpc(OtlpSettings(grpc="127.0.0.1:0"), intake, FakeDoorman(), tally)
    print(await door.start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def peak_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells memory by /proc")
async def test_row_2_a_gibibyte_in_a_megabyte_of_gzip_is_refused_and_costs_little_memory(connect: Any) -> None:
    stream = zlib.compressobj(9, wbits=31)
    bomb = b"".join(stream.compress(bytes(2**20)) for _ in range(1024)) + stream.flush()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, stdout=PIPE)
    assert child.stdout is not None
    try:
        port = int(await child.stdout.readline())
        warm = await Client.connect(port)
        stream_ = warm.ask(("grpc-encoding", "gzip"))
        warm.send(stream_, zlib.compress(b"", wbits=31), compressed=True)
        assert await warm.status(stream_) == 0
        before = peak_mib(child.pid)
        client = await Client.connect(port)
        number = client.ask(("grpc-encoding", "gzip"))
        assert await client.send_large(number, bomb, compressed=True) == Code.RESOURCE_EXHAUSTED.value[0]
        assert peak_mib(child.pid) - before < 32  # twice the largest message; 18 were measured
    finally:
        child.kill()
        await child.wait()


@pytest.mark.parametrize("encoding", ["snappy", "br", "zstd"])
async def test_row_3_an_unknown_compression_is_refused_for_good(open_grpc: OpenDoor, encoding: str) -> None:
    door = await open_grpc()
    client = await Client.connect(door.port)
    stream = client.ask(("grpc-encoding", encoding))
    client.send(stream, b"anything", compressed=True)
    # gRPC's own answer, given before we hear of it: it does not keep the name of an encoding that it does not know.
    assert await client.status(stream) in (Code.UNIMPLEMENTED.value[0], Code.INTERNAL.value[0])
    assert door.inbox.rows == []
    client.close()


def nested(levels: int) -> bytes:
    inner = value("leaf").SerializeToString()
    for _ in range(levels):
        inner = field(5, field(1, inner))
    attribute = field(9, field(1, b"a") + field(2, inner))
    return field(1, field(2, field(2, span(1).SerializeToString() + attribute)))


FLOOD = field(1, field(2, field(2, span(1).SerializeToString() + field(9, b"") * 1_000_000)))
ODD_UTF8 = field(1, field(2, field(2, span(1).SerializeToString() + field(5, b"\xff"))))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(field(1, field(2, field(2, b"") * 400_000)), Code.RESOURCE_EXHAUSTED, id="row 4, 400,000 spans"),
        pytest.param(FLOOD, (1, "rejected 1: too_many_attributes"), id="row 5, 1,000,000 attributes"),
        pytest.param(nested(50), (0, "changed 1: too_deep"), id="row 6, 50 deep"),
        pytest.param(nested(60), Code.INVALID_ARGUMENT, id="row 6, 60 deep"),
        pytest.param(traces(span(1, [("a", 1), ("a", 2)])), (0, "changed 1: duplicate_key"), id="row 7"),
        pytest.param(traces(span(1, [("a", "x" * 3 * 2**20)])), (0, ""), id="row 8, 3 MiB of text"),
        pytest.param(ODD_UTF8, Code.INVALID_ARGUMENT, id="row 9, invalid UTF-8"),
        pytest.param(traces(span(1, [("a", "\0\ufffe")])), (0, ""), id="row 10"),
        pytest.param(traces(span(1, [("a", float("nan"))])), (0, "changed 1: nonfinite"), id="row 11"),
        pytest.param(traces(span(1, end_time_unix_nano=2**64 - 1)), (0, ""), id="row 12"),
        pytest.param(traces(span(1, trace_id=b"x" * 15), span(2)), (1, "rejected 1: invalid_id"), id="row 13"),
        pytest.param(traces(span(1, span_id=b"")), (0, ""), id="row 14"),
        pytest.param(traces(span(1, [("session.id", "../\n\x1b[2J" + "x" * 2**20)])), (0, ""), id="row 17"),
        pytest.param(traces(span(1, start_time_unix_nano=0, end_time_unix_nano=0)), (0, ""), id="row 18"),
        pytest.param(traces(span(1)).SerializeToString() + field(99, b"new"), (0, ""), id="row 21"),
        pytest.param(b"", (0, ""), id="row 23, empty"),
        pytest.param(field(1, b""), (0, ""), id="row 23, no scopes"),
        pytest.param(b"\xff\xff", Code.INVALID_ARGUMENT, id="no protobuf"),
        pytest.param(b"{}", Code.INVALID_ARGUMENT, id="JSON"),
    ],
)
async def test_rows_4_to_23_have_the_answer_they_name(
    open_grpc: OpenDoor, connect: Any, body: Any, expected: Any
) -> None:
    door = await open_grpc()
    send = connect(door)
    answer = await send(body if isinstance(body, bytes) else body.SerializeToString())
    if isinstance(expected, Code):
        assert (answer.code(), retry_after_s(answer)) == (expected, None)
        assert "leaf" not in answer.details()
        assert door.inbox.rows == []
    else:
        assert partial(answer) == expected
    assert await send(traces(span(9)).SerializeToString()) == b""


async def test_row_20_a_batch_sent_again_is_taken_again_for_the_engine_to_know(
    open_grpc: OpenDoor, connect: Any
) -> None:
    door = await open_grpc()
    send = connect(door)
    body = traces().SerializeToString()
    assert await asyncio.gather(*(send(body) for _ in range(100))) == [b""] * 100
    assert len(door.inbox.rows) == 100


async def test_row_24_too_many_new_sessions_are_told_when_to_come_again(open_grpc: OpenDoor, connect: Any) -> None:
    door = await open_grpc(intake={"rates": {"sessions_per_s": 1, "burst": 5}})
    send = connect(door)
    answers = [await send(traces(span(1, [("session.id", str(n))])).SerializeToString()) for n in range(8)]
    assert answers[:5] == [b""] * 5
    assert answers[-1].code() == Code.RESOURCE_EXHAUSTED
    assert 0 < (retry_after_s(answers[-1]) or 0) <= 1


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), Code.UNAUTHENTICATED),
        ((("authorization", "Bearer expired"),), Code.UNAUTHENTICATED),
        ((("authorization", "Basic good"),), Code.UNAUTHENTICATED),
        ((("authorization", "good"),), Code.UNAUTHENTICATED),
        ((("authorization", "Bearer "),), Code.UNAUTHENTICATED),
        ((("authorization", "Bearer good"), ("authorization", "Bearer good")), Code.UNAUTHENTICATED),
        ((("x-authorization", "Bearer good"), ("token", "good")), Code.UNAUTHENTICATED),
        ((("authorization", "Bearer good"),), None),
        ((("authorization", "bearer good"),), None),
    ],
)
async def test_row_26_whoever_needs_a_credential_and_shows_none_that_holds_is_refused(
    open_grpc: OpenDoor, connect: Any, metadata: Any, code: Code | None
) -> None:
    door = await open_grpc(FakeDoorman({"good": ALICE}, asks=True))
    for path in (EXPORT, LOGS, METRICS):
        body = {EXPORT: traces(), LOGS: logs()}.get(path)
        answer = await connect(door)(body.SerializeToString() if body else b"", path=path, metadata=metadata)
        if code:
            assert answer.code() == code
            assert "good" not in answer.details()
        else:
            assert isinstance(answer, bytes)
    assert [row.speaker for row in door.inbox.rows] == ([] if code else [ALICE, ALICE])
    assert door.tally.reasons == ({"unauthenticated": 3} if code else {})


async def test_row_26_a_header_in_the_wrong_case_is_no_credential(open_grpc: OpenDoor) -> None:
    door = await open_grpc(FakeDoorman({"good": ALICE}, asks=True))
    client = await Client.connect(door.port)
    stream = client.ask(("Authorization", "Bearer good"))
    client.send(stream, traces().SerializeToString())
    assert await client.status(stream) != 0
    assert door.inbox.rows == []
    client.close()


async def test_row_26_on_loopback_without_a_token_one_is_local(open_grpc: OpenDoor, connect: Any) -> None:
    door = await open_grpc()
    await connect(door)(traces().SerializeToString())
    assert door.doorman.asked == [(None, True)]
    assert door.inbox.rows[0].speaker == LOCAL


async def test_row_26_over_tls_only_clients_of_the_right_authority_are_let_in(
    open_grpc: OpenDoor, connect: Any, tmp_path: Path
) -> None:
    ours, theirs = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = ours.issue("localhost")
    tls = {"certificate": certificate, "key": key, "client_ca": ours.path}
    door = await open_grpc(tls=tls)

    def shown(authority: Authority | None) -> grpc.ChannelCredentials:
        if authority is None:
            return grpc.ssl_channel_credentials(ours.path.read_bytes())
        shown_certificate, shown_key = authority.issue("client")
        return grpc.ssl_channel_credentials(
            ours.path.read_bytes(), shown_key.read_bytes(), shown_certificate.read_bytes()
        )

    body = traces().SerializeToString()
    assert await connect(door, shown(ours))(body) == b""
    for wrong in (theirs, None):
        assert (await connect(door, shown(wrong))(body)).code() == Code.UNAVAILABLE
    assert (await connect(door)(body)).code() == Code.UNAVAILABLE
    assert len(door.inbox.rows) == 1


async def test_row_27_64_kib_of_metadata_are_refused(open_grpc: OpenDoor, connect: Any) -> None:
    door = await open_grpc()
    send = connect(door)
    body = traces().SerializeToString()
    answer = await send(body, metadata=(("x", "y" * 65536),))
    assert answer.code() == Code.RESOURCE_EXHAUSTED
    assert await send(body) == b""
    assert len(door.inbox.rows) == 1


async def test_row_28_a_request_that_does_not_come_in_time_is_ended(open_grpc: OpenDoor) -> None:
    door = await open_grpc(body_timeout=0.3)
    silent, trickling = [await Client.connect(door.port) for _ in range(2)]
    body = traces().SerializeToString()

    async def trickle(stream: int) -> None:
        for byte in b"\0" + len(body).to_bytes(4, "big") + body:
            trickling.frame(0, 0, stream, bytes([byte]))
            await asyncio.sleep(0.1)

    slowly = asyncio.create_task(trickle(stream := trickling.ask()))
    assert await silent.status(silent.ask()) == Code.DEADLINE_EXCEEDED.value[0]
    assert await trickling.status(stream) == Code.DEADLINE_EXCEEDED.value[0]
    slowly.cancel()
    assert door.tally.reasons["slow"] == 2
    assert door.inbox.rows == []
    silent.close()
    trickling.close()


async def test_row_28_one_identitys_slow_requests_keep_no_other_waiting(open_grpc: OpenDoor, connect: Any) -> None:
    bob = Speaker("agent:bob", "authenticated", "bob")
    door = await open_grpc(FakeDoorman({"a": ALICE, "b": bob}, asks=True))
    slow = await Client.connect(door.port)
    for _ in range(20):
        slow.ask(("authorization", "Bearer a"))
    send, body = connect(door), traces().SerializeToString()
    for _ in range(5):
        assert await send(body, metadata=(("authorization", "Bearer b"),)) == b""
    assert len([asked for asked in door.doorman.asked if asked[0] == "a"]) == 20
    assert [row.speaker for row in door.inbox.rows] == [bob] * 5
    slow.close()


async def test_row_28_a_stream_that_never_ends_is_answered_after_its_first_message(open_grpc: OpenDoor) -> None:
    door = await open_grpc()
    client = await Client.connect(door.port)
    stream = client.ask()
    client.send(stream, traces().SerializeToString(), end=False)
    assert await client.status(stream) == 0
    assert len(door.inbox.rows) == 1
    client.close()


async def test_row_28_a_connection_that_says_nothing_is_ended(open_grpc: OpenDoor) -> None:
    door = await open_grpc(header_timeout=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    async with asyncio.timeout(20):
        while await reader.read(100):
            pass
    writer.close()


async def test_row_29_connections_are_capped(open_grpc: OpenDoor) -> None:
    door = await open_grpc(connections=5, header_timeout=1)
    clients = [await Client.connect(door.port) for _ in range(5)]
    body = traces().SerializeToString()
    for client in clients:
        stream = client.ask()
        client.send(stream, body)
        assert await client.status(stream) == 0
    extra = [await Client.connect(door.port) for _ in range(20)]
    async with asyncio.timeout(20):
        assert all(await asyncio.gather(*(client.is_closed() for client in extra)))
    clients.pop().close()
    async with asyncio.timeout(20):
        while True:  # until gRPC has seen that there is room again
            later = await Client.connect(door.port)
            stream = later.ask()
            later.send(stream, body)
            if await later.status(stream) == 0:
                break
            later.close()
    for client in [*clients, *extra, later]:
        client.close()


async def test_row_29_streams_that_are_reset_at_once_do_not_keep_others_from_being_served(
    open_grpc: OpenDoor, connect: Any
) -> None:
    door = await open_grpc()
    attacker = await Client.connect(door.port)

    async def attack() -> None:
        for _ in range(5000):
            stream = attacker.ask(flags=END_HEADERS | END_STREAM)
            attacker.frame(RST, 0, stream, (8).to_bytes(4, "big"))
            if stream % 101 == 0:
                await attacker.drain()

    attacking = asyncio.create_task(attack())
    send = connect(door)
    body = traces().SerializeToString()
    assert [await send(body) for _ in range(30)] == [b""] * 30
    await asyncio.wait([attacking], timeout=20)
    attacking.cancel()
    assert await send(body) == b""
    attacker.close()


async def test_row_30_metrics_are_counted_and_said_to_be_unused_and_profiles_are_unknown(
    open_grpc: OpenDoor, connect: Any
) -> None:
    door = await open_grpc()
    send = connect(door)
    told = ExportMetricsServiceResponse.FromString(await send(b"", path=METRICS)).partial_success
    assert (told.rejected_data_points, told.error_message) == (0, "metrics are not used here")
    assert door.tally.requests == {("metrics", "ignored"): 1}
    assert (await send(b"", path=PROFILES)).code() == Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("failure", "code", "retry"),
    [
        (InboxFullError(7.5), Code.UNAVAILABLE, 7.5),
        (StorageError("disk of x@y"), Code.UNAVAILABLE, 1.0),
        (RuntimeError("secret"), Code.INTERNAL, None),
    ],
)
async def test_a_commit_that_fails_is_told_with_when_to_come_again(
    open_grpc: OpenDoor, connect: Any, failure: Exception, code: Code, retry: float | None
) -> None:
    door = await open_grpc()
    door.inbox.fails_with = failure
    send = connect(door)
    answer = await send(traces().SerializeToString())
    assert (answer.code(), retry_after_s(answer)) == (code, retry)
    assert str(failure) not in answer.details()
    door.inbox.fails_with = None
    assert await send(traces().SerializeToString()) == b""


async def test_the_sdks_exporter_comes_again_when_the_inbox_was_full(open_grpc: OpenDoor) -> None:
    door = await open_grpc()
    door.inbox.fails_with = InboxFullError(0.2)
    exporter = OTLPSpanExporter(endpoint=f"127.0.0.1:{door.port}", insecure=True)
    with TracerProvider().get_tracer("t").start_as_current_span("s") as told:
        pass

    exporting = asyncio.create_task(asyncio.to_thread(exporter.export, [told]))  # type: ignore[list-item]
    await door.inbox.asked.wait()
    door.inbox.fails_with = None
    assert await exporting == SpanExportResult.SUCCESS
    assert len(door.inbox.rows) == 1
    exporter.shutdown()


async def test_a_refused_request_is_not_kept_until_the_next_garbage_collection(
    open_grpc: OpenDoor, connect: Any
) -> None:
    door = await open_grpc(intake={"rates": {"bytes_per_s": 1, "burst": 1}})
    send = connect(door)
    body = traces(span(1, [("a", "x" * 2**20)])).SerializeToString()
    await send(body)
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(8):
            assert (await send(body)).code() == Code.RESOURCE_EXHAUSTED
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < 3 * 2**20


async def test_rejected_log_records_are_told_by_their_own_field(open_grpc: OpenDoor, connect: Any) -> None:
    door = await open_grpc(intake={"limits": {"attributes": 1}})
    body = logs(record([("a", 1), ("b", 2)]), record()).SerializeToString()
    told = ExportLogsServiceResponse.FromString(await connect(door)(body, path=LOGS)).partial_success
    assert (told.rejected_log_records, told.error_message) == (1, "rejected 1: too_many_attributes")


async def test_a_client_that_leaves_while_its_row_is_committed_leaves_a_whole_row(
    open_grpc: OpenDoor, connect: Any
) -> None:
    door = await open_grpc()
    door.inbox.open.clear()
    send = asyncio.create_task(connect(door)(traces().SerializeToString()))
    await door.inbox.asked.wait()
    send.cancel()
    await asyncio.wait([send])
    door.inbox.open.set()
    await door.intake.close()
    assert (len(door.inbox.rows), door.tally.spans) == (1, {"stored": 1})
