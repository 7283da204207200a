"""The HTTP door, opened for real and spoken to over raw sockets: rows 31-48 of the catalogue of bad inputs."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import ssl
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import httptools
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from msgspec import Struct
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sidecar.core.span import LOCAL, Speaker
from sidecar.errors import StorageError
from sidecar.sources import InboxFullError
from tests.shells.otlp.certificates import Authority
from tests.shells.otlp.conftest import OpenDoor, Opened
from tests.shells.otlp.kit import ID, TRACE, FakeDoorman, as_json, logs, span, traces

ALICE = Speaker("agent:alice", "authenticated", "alice")
PROTO, JSON = "application/x-protobuf", "application/json"
BODY = traces().SerializeToString()


class Answer(Struct):
    status: int
    headers: dict[str, str]
    body: bytes


class _Parsed:
    """Collects the answers on a connection."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._headers: dict[str, str] = {}
        self._body = b""
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, content: bytes) -> None:
        self._headers[name.decode().lower()] = content.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.answers.append(Answer(self.parser.get_status_code(), self._headers, self._body))
        self._headers, self._body = {}, b""


class Talk:
    """One connection to a door."""

    def __init__(self, door: Opened) -> None:
        self._door = door

    async def __aenter__(self) -> Self:
        self._reader, self.writer = await asyncio.open_connection("127.0.0.1", self._door.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def say(self, *parts: bytes, pause_s: float = 0.0) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(pause_s)

    async def hear(self, count: int = 1) -> list[Answer]:
        """Answers, until there are `count` of them or the door closes."""
        parsed = _Parsed()
        async with asyncio.timeout(20):
            while len(parsed.answers) < count and (more := await self._reader.read(65536)):
                parsed.parser.feed_data(more)
        return parsed.answers

    async def is_closed(self) -> bool:
        """Waits until the door closes the connection."""
        async with asyncio.timeout(20):
            try:
                while await self._reader.read(65536):
                    pass
            except ConnectionError:
                pass
        return True


def head(
    length: int | None = None,
    *,
    path: str = "/v1/traces",
    kind: str = PROTO,
    method: str = "POST",
    more: Iterable[str] = (),
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-type: {kind}", *more]
    if length is not None:
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(body: bytes = BODY, **how: Any) -> bytes:
    return head(len(body), **how) + body


async def once(door: Opened, request: bytes) -> Answer:
    """The one answer to a request on a connection of its own."""
    async with Talk(door) as talk:
        await talk.say(request)
        (answer,) = await talk.hear()
        return answer


def told(answer: Answer) -> Status:
    """What an error says of itself, in the form the client speaks."""
    if answer.headers["content-type"] == PROTO:
        return Status.FromString(answer.body)
    content = json.loads(answer.body)
    return Status(code=content["code"], message=content["message"])


@pytest.mark.parametrize(
    ("request_", "kind", "encoding"),
    [
        (post(), "traces", "proto"),
        (post(as_json(traces()), kind=JSON), "traces", "json"),
        (post(as_json(traces()), kind="application/json; charset=utf-8"), "traces", "json"),
        (post(logs().SerializeToString(), path="/v1/logs"), "logs", "proto"),
        (post(as_json(logs()), path="/v1/logs", kind=JSON), "logs", "json"),
        (post(gzip.compress(BODY), more=["Content-Encoding: GZIP"]), "traces", "proto"),
        (post(zstandard.compress(BODY), more=["content-encoding: zstd"]), "traces", "proto"),
        (post(more=["content-encoding: identity"]), "traces", "proto"),
        (head(more=["transfer-encoding: chunked"]) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), "traces", "proto"),
    ],
)
async def test_telemetry_is_taken_in_every_form_and_nothing_more_is_said(
    open_http: OpenDoor, request_: bytes, kind: str, encoding: str
) -> None:
    door = await open_http()
    answer = await once(door, request_)
    assert (answer.status, answer.body) == (200, b"" if encoding == "proto" else b"{}")
    assert answer.headers["content-type"] == (PROTO if encoding == "proto" else JSON)
    (row,) = door.inbox.rows
    assert (row.kind, row.encoding, row.speaker) == (kind, encoding, LOCAL)
    assert row.body in (BODY, as_json(traces()), logs().SerializeToString(), as_json(logs()))
    assert len(door.feeder.spans) == 1


async def test_what_is_not_taken_is_told_in_the_form_of_the_request(open_http: OpenDoor) -> None:
    door = await open_http()
    request = traces(span(1), span(2, trace_id=b"x" * 15))
    answer = await once(door, post(request.SerializeToString()))
    partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert (answer.status, partial.rejected_spans, partial.error_message) == (200, 1, "rejected 1: invalid_id")
    answer = await once(door, post(as_json(request), kind=JSON))
    assert json.loads(answer.body) == {
        "partialSuccess": {"rejectedSpans": "1", "errorMessage": "rejected 1: invalid_id"}
    }


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(head(10_000_000_000), 413, id="10 GB"),
        pytest.param(head(more=["content-length: -1"]), 400, id="negative"),
        pytest.param(head(more=["content-length: 99999999999999999999999"]), 400, id="beyond 64 bits"),
        pytest.param(head(5, more=["content-length: 6"]) + b"hello!", 400, id="two lengths"),
        pytest.param(head(5, more=["content-length: 5"]) + b"hello", 400, id="the same length twice"),
        pytest.param(head(5, more=["transfer-encoding: chunked"]) + b"0\r\n\r\n", 400, id="length and chunked"),
    ],
)
async def test_row_31_lengths_that_cannot_be(open_http: OpenDoor, request_: bytes, status: int) -> None:
    door = await open_http()
    async with Talk(door) as talk:
        await talk.say(request_)
        (answer,) = await talk.hear()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert told(answer).code > 0
        assert await talk.is_closed()
    assert door.inbox.rows == []


async def test_a_body_a_little_too_long_is_read_to_its_end_so_that_the_sender_hears_why(open_http: OpenDoor) -> None:
    door = await open_http(max_request=100_000)
    async with Talk(door) as talk:
        await talk.say(post(bytes(150_000)), post())
        refused, taken = await talk.hear(2)
    assert (refused.status, taken.status) == (413, 200)
    async with Talk(door) as talk:
        await talk.say(head(more=["transfer-encoding: chunked"]), *[b"8000\r\n" + bytes(0x8000) + b"\r\n"] * 4)
        (answer,) = await talk.hear()
    assert answer.status == 413


@pytest.mark.parametrize(
    "parts", [[head(more=["transfer-encoding: chunked"]), b"5\r\nhe"], [head(1000), b"x"], [head(1000)]]
)
async def test_row_32_a_body_that_never_ends_times_out(open_http: OpenDoor, parts: list[bytes]) -> None:
    door = await open_http(body_timeout=0.3)
    async with Talk(door) as talk:
        await talk.say(*parts)
        (answer,) = await talk.hear()
        assert (answer.status, told(answer).code) == (408, 4)
        assert await talk.is_closed()
    assert door.tally.reasons == {"slow": 1}


async def test_row_32_a_body_that_trickles_times_out_too(open_http: OpenDoor) -> None:
    door = await open_http(body_timeout=0.4)
    async with Talk(door) as talk:
        talking = asyncio.create_task(talk.say(head(1000), *[b"x"] * 100, pause_s=0.05))
        (answer,) = await talk.hear()
        talking.cancel()
    assert answer.status == 408


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """One GiB of zeros in one MiB of gzip."""
    stream = zlib.compressobj(9, wbits=31)
    return b"".join(stream.compress(bytes(2**20)) for _ in range(1024)) + stream.flush()


async def test_row_33_a_gzip_bomb_is_refused_when_it_passes_the_limit(open_http: OpenDoor, bomb: bytes) -> None:
    door = await open_http()
    answer = await once(door, post(bomb, more=["content-encoding: gzip"]))
    assert (answer.status, told(answer).code) == (413, 8)
    for size in (bytes(2**24 + 1), bytes(2**28)):
        squeezed = zstandard.ZstdCompressor(write_content_size=False).compress(size)
        assert (await once(door, post(squeezed, more=["content-encoding: zstd"]))).status == 413


def in_window(log: int) -> bytes:
    stream = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=log)
    ).compressobj()
    return stream.compress(BODY) + stream.flush()


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(gzip.compress(BODY)), "gzip", 400),
        (gzip.compress(BODY)[:-1], "gzip", 400),
        (gzip.compress(BODY) + b"junk", "gzip", 400),
        (gzip.compress(BODY) + gzip.compress(b""), "gzip", 400),
        (BODY, "gzip", 400),
        (b"", "gzip", 400),
        (gzip.compress(BODY), "identity, gzip", 415),
        (gzip.compress(BODY), "gzip, gzip", 415),
        (zstandard.compress(BODY)[:-1], "zstd", 400),
        (zstandard.compress(BODY) + b"x", "zstd", 400),
        (zstandard.compress(BODY) * 2, "zstd", 400),
        (BODY, "zstd", 400),
        (in_window(27), "zstd", 400),
        (gzip.compress(b""), "gzip", 200),
    ],
)
async def test_row_33_one_layer_whole_and_nothing_after_it(
    open_http: OpenDoor, body: bytes, encoding: str, status: int
) -> None:
    door = await open_http()
    assert (await once(door, post(body, more=[f"content-encoding: {encoding}"]))).status == status
    assert door.inbox.rows == []


@pytest.mark.parametrize("encoding", ["deflate", "br", "snappy", "lz4", "x-gzip", "gzip;q=1", "*"])
async def test_row_34_other_compressions_are_not_supported(open_http: OpenDoor, encoding: str) -> None:
    door = await open_http()
    answer = await once(door, post(more=[f"content-encoding: {encoding}"]))
    assert (answer.status, told(answer).message) == (415, "content-encoding must be one of identity, gzip, zstd")


@pytest.mark.parametrize(
    "lines",
    [
        ["content-type: text/plain"],
        [],
        ["content-type: application/json; charset=utf-16"],
        ["content-type: application/json; charset=utf-7"],
        ["content-type: application/x-protobuf, application/json"],
        ["content-type: application/json", "content-type: application/x-protobuf"],
        ["content-type: application/grpc"],
        ["content-type: "],
        ["content-type: \xff"],
    ],
)
async def test_row_35_other_types_and_charsets_are_not_supported(open_http: OpenDoor, lines: list[str]) -> None:
    door = await open_http()
    request = "\r\n".join(["POST /v1/traces HTTP/1.1", "host: x", *lines, f"content-length: {len(BODY)}", "", ""])
    assert (await once(door, request.encode("latin-1") + BODY)).status == 415
    assert door.inbox.rows == []


def record(members: str) -> bytes:
    return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}'.encode()


IDS = f'"traceId":"{TRACE.hex()}","spanId":"{ID.hex()}"'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"[" * 100_000, 400, id="row 36"),
        pytest.param(record(IDS + ',"x":' + "[" * 50_000 + "]" * 50_000), 400, id="row 36, balanced"),
        pytest.param(record(IDS + ',"x":NaN'), 400, id="row 37, NaN"),
        pytest.param(record(IDS + ',"x":1e999'), 400, id="row 37, 1e999"),
        pytest.param(record(IDS + ',"x":' + "9" * 5000), 400, id="row 37, 5,000 digits"),
        pytest.param(b"\xef\xbb\xbf" + record(IDS), 400, id="row 37, BOM"),
        pytest.param(record(IDS + ',"name":"\\ud800"'), 400, id="row 37, lone surrogate"),
        pytest.param(record(IDS + ',"name":"a","name":"b"'), 200, id="row 37, duplicate keys"),
        pytest.param(record(IDS), 200, id="row 38"),
        pytest.param(record(IDS.replace(TRACE.hex(), TRACE.hex().upper())), 200, id="row 38, upper case"),
        pytest.param(record(IDS.replace(TRACE.hex(), "AQIDBAUGBwgJCgsMDQ4PEA==")), 400, id="row 38, base64"),
        pytest.param(record(IDS.replace(TRACE.hex(), TRACE.hex()[:-1])), 400, id="row 38, odd length"),
        pytest.param(record(IDS + ',"kind":3,"status":{"code":9}'), 200, id="row 39, enums as integers"),
        pytest.param(record(IDS + ',"kind":"SPAN_KIND_CLIENT"'), 400, id="row 39, enum as text"),
        pytest.param(record(IDS + ',"startTimeUnixNano":"1","endTimeUnixNano":2'), 200, id="row 39, 64 bits both ways"),
        pytest.param(record(IDS + ',"trace_id":[],"new":{}'), 200, id="row 39, unknown fields"),
        pytest.param(b'{"resourceSpans":{}}', 400, id="row 40, object for array"),
        pytest.param(record(IDS + ',"status":[]'), 400, id="row 40, array for object"),
        pytest.param(record(IDS + ',"name":null,"attributes":null,"status":null'), 200, id="row 40, nulls"),
    ],
)  # fmt: skip
async def test_rows_36_to_40_have_the_answer_they_name(open_http: OpenDoor, body: bytes, status: int) -> None:
    door = await open_http()
    answer = await once(door, post(body, kind=JSON))
    assert (answer.status, answer.headers["content-type"]) == (status, JSON)
    assert len(door.inbox.rows) == (status == 200)
    if status == 400:
        assert told(answer).code == 3
    for got in door.feeder.spans:
        assert (got.trace_id, got.span_id) == (TRACE.hex(), ID.hex())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (head(method="GET"), 405), (head(0, method="PUT"), 405), (head(method="TRACE"), 405),
        (head(method="HEAD"), 405), (head(method="OPTIONS"), 405), (post(path="/v1/traces/../control"), 404),
        (post(path="/v1/traces%2e%2e"), 404), (post(path="/v1%2ftraces"), 404), (post(path="/v1//traces"), 404),
        (post(path="//v1/traces"), 404), (post(path="/v1/traces/"), 404), (post(path="/V1/TRACES"), 404),
        (post(path="/"), 404), (post(path="*"), 404), (post(path="/v1development/profiles"), 404),
        (post(path="/v1/traces?x=1"), 200),
    ],
)  # fmt: skip
async def test_row_41_other_methods_and_paths(open_http: OpenDoor, request_: bytes, status: int) -> None:
    door = await open_http()
    async with Talk(door) as talk:
        await talk.say(request_)
        if request_.startswith(b"HEAD"):
            assert (await talk._reader.readline()).startswith(b"HTTP/1.1 405")
            return
        answers = await talk.hear()
    assert [answer.status for answer in answers] in ([status], [400] if status == 404 else [])
    if status == 405:
        assert answers[0].headers["allow"] == "POST"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(head(6, more=["transfer-encoding: chunked"]) + b"0\r\n\r\nG", id="CL.TE"),
        pytest.param(head(more=["transfer-encoding: chunked", "content-length: 4"]) + b"5c\r\nG", id="TE.CL"),
        pytest.param(head(more=["transfer-encoding: xchunked"]) + b"0\r\n\r\n", id="unknown transfer coding"),
        pytest.param(head(more=["transfer-encoding: chunked, identity"]) + b"0\r\n\r\n", id="chunked not last"),
        pytest.param(head(more=["transfer-encoding : chunked"]) + b"0\r\n\r\n", id="space before the colon"),
        pytest.param(head(more=["x: a\r\n b", "content-length: 0"]), id="obs-fold"),
        pytest.param(post().replace(b"\r\n", b"\n", 3), id="LF only"),
        pytest.param(head(more=["transfer-encoding: chunked"]) + b"0\n\n", id="LF in a chunk"),
        pytest.param(head(more=["transfer-encoding: chunked"]) + b"-1\r\n\r\n", id="negative chunk"),
        pytest.param(head(more=["transfer-encoding: chunked"]) + b"fffffffffffffffff\r\n", id="chunk beyond 64 bits"),
        pytest.param(head(more=["content-length: +5"]) + b"hello", id="signed length"),
        pytest.param(head(more=["content-length: 5, 5"]) + b"hello", id="list of lengths"),
        pytest.param(b"POST /v1/traces HTTP/1.1 HTTP/1.1\r\n\r\n", id="two versions"),
        pytest.param(b"POST /v1/traces HTTP/9.9\r\nhost: x\r\n\r\n", id="unknown version"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS to a plain port"),
        pytest.param(post(more=["connection: upgrade", "upgrade: h2c"]), id="upgrade, whose body would be lost"),
        pytest.param(b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", id="CONNECT"),
    ],
)
async def test_row_42_requests_used_for_smuggling_are_refused_and_the_connection_closed(
    open_http: OpenDoor, request_: bytes
) -> None:
    door = await open_http()
    async with Talk(door) as talk:
        await talk.say(request_)
        answers = await talk.hear(2)
        assert await talk.is_closed()
    assert [answer.status for answer in answers] == [400]
    assert told(answers[0]).code == 3
    assert door.inbox.rows == []


async def test_row_42_what_follows_a_good_request_is_refused_after_its_answer(open_http: OpenDoor) -> None:
    door = await open_http()
    async with Talk(door) as talk:
        await talk.say(post() + b"GARBAGE\r\n\r\n")
        answers = await talk.hear(2)
        assert await talk.is_closed()
    assert [answer.status for answer in answers] == [200]
    assert door.tally.reasons == {"malformed": 1}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (head(0, more=["x: " + "y" * 65536]), 431),
        (head(0, more=["x: y"] * 1000), 431),
        (head(0, path="/" + "y" * 65536), 431),
        (head(0, more=["x" * 65536 + ": y"]), 431),
        (head(0, more=["x: a\0b"]), 400),
        (head(0, more=["x\0: b"]), 400),
        (head(0, more=["x: a\rb"]), 400),
        (post(more=["x: " + "y" * 20_000]), 200),
    ],
)
async def test_row_43_headers_are_bounded(open_http: OpenDoor, request_: bytes, status: int) -> None:
    door = await open_http()
    assert (await once(door, request_)).status == status


async def test_row_43_headers_that_come_in_pieces_are_bounded_too(open_http: OpenDoor) -> None:
    door = await open_http()
    async with Talk(door) as talk:
        talking = asyncio.create_task(talk.say(head()[:-2] + b"x: ", *[b"y" * 8192] * 40, pause_s=0.005))
        (answer,) = await talk.hear()
        talking.cancel()
    assert answer.status == 431


async def test_row_44_forged_addresses_change_nothing(open_http: OpenDoor) -> None:
    door = await open_http()
    forged = [
        "x-forwarded-for: 203.0.113.9",
        "forwarded: for=203.0.113.9",
        "x-forwarded-proto: https",
        "x-real-ip: 1.1.1.1",
    ]
    answer = await once(door, post(more=[*forged, "host: evil.example"]).replace(b"host: x", b"host: evil.example"))
    assert answer.status == 200
    assert door.doorman.asked == [(None, True)]


async def test_row_45_expect_100_continue_and_then_nothing_times_out(open_http: OpenDoor) -> None:
    door = await open_http(body_timeout=0.3)
    async with Talk(door) as talk:
        await talk.say(head(100, more=["expect: 100-continue"]))
        going_on, answer = await talk.hear(2)
        assert (going_on.status, answer.status) == (100, 408)
    async with Talk(door) as talk:
        await talk.say(head(100, more=["expect: 100-continue"], kind="text/plain"))
        (answer,) = await talk.hear()
        assert answer.status == 415
        assert await talk.is_closed()


@pytest.mark.parametrize("said", [b"", b"POST /v1/tr", head()[:-2], b"\r\n"])
async def test_a_client_that_does_not_say_what_it_wants_is_cut_off(open_http: OpenDoor, said: bytes) -> None:
    door = await open_http(header_timeout=0.3)
    async with Talk(door) as talk:
        await talk.say(said)
        answers = await talk.hear()
        assert await talk.is_closed()
    assert [answer.status for answer in answers] in ([], [408])
    assert door.tally.reasons == {"slow": 1}


async def test_headers_that_trickle_are_cut_off_on_a_connection_already_used(open_http: OpenDoor) -> None:
    door = await open_http(header_timeout=0.4)
    async with Talk(door) as talk:
        await talk.say(post())
        assert [answer.status for answer in await talk.hear()] == [200]
        talking = asyncio.create_task(talk.say(*[bytes([byte]) for byte in post()], pause_s=0.05))
        (answer,) = await talk.hear()
        talking.cancel()
    assert answer.status == 408


async def test_an_idle_connection_is_closed(open_http: OpenDoor) -> None:
    door = await open_http(idle_timeout=1)
    async with Talk(door) as talk:
        await talk.say(post())
        assert [answer.status for answer in await talk.hear()] == [200]
        assert await talk.is_closed()


async def test_row_46_http_1_0_is_answered_and_closed(open_http: OpenDoor) -> None:
    door = await open_http()
    async with Talk(door) as talk:
        await talk.say(post(more=["connection: keep-alive"]).replace(b"HTTP/1.1", b"HTTP/1.0"))
        (answer,) = await talk.hear()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await talk.is_closed()


async def test_row_46_a_thousand_pipelined_requests_are_answered_in_order(open_http: OpenDoor) -> None:
    door = await open_http()
    bodies = [traces(span(n)).SerializeToString() if n % 3 else b"\xff" for n in range(1, 1001)]
    async with Talk(door) as talk:
        talking = asyncio.create_task(talk.say(b"".join(map(post, bodies))))
        answers = await talk.hear(1000)
        await talking
    assert [answer.status for answer in answers] == [200 if n % 3 else 400 for n in range(1, 1001)]
    assert [got.span_id for got in door.feeder.spans] == [f"{n:016x}" for n in range(1, 1001) if n % 3]


async def test_row_47_a_page_in_a_browser_cannot_send_and_is_not_invited(open_http: OpenDoor) -> None:
    door = await open_http()
    origin = ["origin: https://evil.example"]
    simple = await once(door, post(as_json(traces()), kind="text/plain", more=origin))
    asked = [*origin, "access-control-request-method: POST", "access-control-request-headers: content-type"]
    preflight = await once(door, head(method="OPTIONS", more=asked))
    assert (simple.status, preflight.status) == (415, 405)
    for answer in (simple, preflight):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert door.inbox.rows == []


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 401), (["authorization: Bearer expired"], 401), (["authorization: Basic good"], 401),
        (["authorization: Bearer good", "authorization: Bearer good"], 401), (["authorization:"], 401),
        (["x-authorization: Bearer good"], 401), (["AUTHORIZATION: bearer good"], 200),
        (["authorization: Bearer " + "x" * 10_000], 401),
    ],
)  # fmt: skip
async def test_credentials_are_asked_for(open_http: OpenDoor, lines: list[str], status: int) -> None:
    for path, body in (("/v1/traces", BODY), ("/v1/metrics", b"")):
        door = await open_http(FakeDoorman({"good": ALICE}, asks=True))
        answer = await once(door, post(body, path=path, more=lines))
        assert answer.status == status
        if status == 401:
            assert (answer.headers["www-authenticate"], told(answer).code) == ("Bearer", 16)
            assert door.tally.reasons == {"unauthenticated": 1}
        else:
            assert [row.speaker for row in door.inbox.rows] == [ALICE] * (path == "/v1/traces")


@pytest.mark.parametrize("kind", [PROTO, JSON])
async def test_metrics_are_counted_and_said_to_be_unused(open_http: OpenDoor, kind: str) -> None:
    door = await open_http()
    answer = await once(door, post(b"" if kind == PROTO else b"{}", path="/v1/metrics", kind=kind))
    if kind == PROTO:
        message = ExportMetricsServiceResponse.FromString(answer.body).partial_success.error_message
    else:
        message = json.loads(answer.body)["partialSuccess"]["errorMessage"]
    assert (answer.status, message) == (200, "metrics are not used here")
    assert door.tally.requests == {("metrics", "ignored"): 1}


@pytest.mark.parametrize("kind", [PROTO, JSON])
@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [(InboxFullError(7.2), 503, "8"), (StorageError("disk"), 503, "1"), (RuntimeError("secret"), 500, None)],
)
async def test_a_commit_that_fails_is_told_with_when_to_come_again(
    open_http: OpenDoor, kind: str, failure: Exception, status: int, retry_after: str | None
) -> None:
    door = await open_http()
    door.inbox.fails_with = failure
    request = post(BODY if kind == PROTO else as_json(traces()), kind=kind)
    answer = await once(door, request)
    assert (answer.status, answer.headers.get("retry-after"), answer.headers["content-type"]) == (
        status,
        retry_after,
        kind,
    )
    assert str(failure) not in told(answer).message
    if kind == JSON and retry_after == "8":
        assert json.loads(answer.body)["details"][0]["retryDelay"] == "7.200s"
    door.inbox.fails_with = None
    assert (await once(door, request)).status == 200


async def test_a_mistake_of_ours_is_logged_once_and_without_its_words(
    open_http: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    door = await open_http()
    door.inbox.fails_with = LookupError("what the agent wrote")
    for _ in range(5):
        assert (await once(door, post())).status == 500
    assert len([said for said in caplog.messages if "LookupError" in said]) == 1
    assert "what the agent wrote" not in caplog.text


async def test_whoever_sends_more_than_they_may_is_told_when_to_come_again(open_http: OpenDoor) -> None:
    door = await open_http(intake={"rates": {"spans_per_s": 1, "burst": 1}})
    assert (await once(door, post())).status == 200
    answer = await once(door, post())
    assert (answer.status, answer.headers["retry-after"], told(answer).code) == (429, "1", 8)


async def test_bodies_on_their_way_in_are_bounded_all_together(open_http: OpenDoor) -> None:
    door = await open_http(buffered=150_000)
    async with Talk(door) as first, Talk(door) as second:
        await first.say(head(100_001) + bytes(100_000), pause_s=0.1)
        await second.say(post(bytes(100_000)))
        (answer,) = await second.hear()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        await first.say(b"\0")
        assert [answer.status for answer in await first.hear()] == [400]
    assert (await once(door, post())).status == 200


async def test_connections_are_capped(open_http: OpenDoor) -> None:
    door = await open_http(connections=3)
    talks = [await Talk(door).__aenter__() for _ in range(3)]
    for talk in talks:
        await talk.say(post())
        assert [answer.status for answer in await talk.hear()] == [200]
    answer = (await (await Talk(door).__aenter__()).hear())[0]
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    talks.pop().writer.close()
    async with asyncio.timeout(20):
        while (await once(door, post())).status != 200:
            pass
    for talk in talks:
        talk.writer.close()


async def test_a_client_that_reads_no_answers_is_cut_off(open_http: OpenDoor) -> None:
    door = await open_http(header_timeout=0.5)
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, ("127.0.0.1", door.port))

        async def talk() -> None:
            while True:
                await loop.sock_sendall(deaf, head(0) * 1000)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(talk(), 30)
    assert (await once(door, post())).status == 200


async def test_a_client_that_goes_away_within_its_body_is_counted(open_http: OpenDoor) -> None:
    door = await open_http()
    async with Talk(door) as talk:
        await talk.say(head(1000) + b"x", pause_s=0.1)
    for _ in range(100):  # answered one after another: by then the door has seen it
        await once(door, post())
    assert door.tally.reasons == {"aborted": 1}


def client_context(authority: Authority, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    for name, version in versions.items():
        setattr(context, name, version)
    return context


async def test_row_48_tls_takes_the_right_name_and_version_and_counts_the_others(
    open_http: OpenDoor, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    door = await open_http(tls={"certificate": certificate, "key": key})

    async def hello(context: ssl.SSLContext, name: str = "localhost") -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=context, server_hostname=name)
        writer.write(post())
        line = await reader.readline()
        writer.close()
        return int(line.split()[1])

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert await hello(client_context(authority, minimum_version=version, maximum_version=version)) == 200

    careless = client_context(authority)
    careless.check_hostname = False
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await hello(careless, "other.example")
    old = client_context(authority, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await hello(old)
    async with Talk(door) as talk:
        await talk.say(post())
        assert await talk.is_closed()
    assert door.tally.reasons["tls"] == 3
    assert len(door.inbox.rows) == 2


async def test_only_clients_of_the_right_authority_are_let_in_where_one_is_named(
    open_http: OpenDoor, tmp_path: Path
) -> None:
    ours, theirs = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = ours.issue("localhost")
    door = await open_http(tls={"certificate": certificate, "key": key, "client_ca": ours.path})
    for authority, status in ((ours, b"200"), (theirs, b""), (None, b"")):
        context = client_context(ours)
        if authority:
            context.load_cert_chain(*authority.issue("client"))
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", door.port, ssl=context, server_hostname="localhost"
            )
            writer.write(post())
            heard = await reader.readline()
            writer.close()
        except (ssl.SSLError, ConnectionError):
            heard = b""
        assert heard.split()[1:2] == ([status] if status else [])
    assert len(door.inbox.rows) == 1


async def test_random_bytes_never_break_the_door(open_http: OpenDoor) -> None:
    door = await open_http(header_timeout=0.2, body_timeout=0.2)
    for _ in range(30):
        async with Talk(door) as talk:
            await talk.say(os.urandom(300))
            assert await talk.is_closed()
    assert (await once(door, post())).status == 200
