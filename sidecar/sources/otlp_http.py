"""OTLP over HTTP/1.1: protobuf and JSON, plain or compressed.

An ASGI application behind uvicorn's httptools protocol, which refuses the requests that are used for smuggling. What
that protocol leaves open is closed here: how large headers may be, and how long a client may take with anything.
"""

from __future__ import annotations

import asyncio
import http
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sized
from typing import Any, Self

import grpc
import httptools
import msgspec
import uvicorn
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from sidecar.core.span import Speaker
from sidecar.errors import OutsideError, SidecarError, SpanError
from sidecar.sources import Doorman, Encoding
from sidecar.sources.decode import Signal
from sidecar.sources.inflate import ENCODINGS, inflate
from sidecar.sources.intake import BusyError, Counts, Intake, Receipt
from sidecar.sources.limits import Room
from sidecar.sources.otlp import (
    METRICS_IGNORED,
    OtlpSettings,
    Pem,
    Refusal,
    identify,
    log_ours,
    refusal,
    response,
    split_address,
)
from sidecar.sources.turns import Turn

log = logging.getLogger(__name__)
_unheard = logging.getLogger(f"{__name__}.uvicorn")  # what it would say of each bad request is counted instead
_unheard.disabled = True

_PATHS: dict[bytes, Signal | None] = {b"/v1/traces": "traces", b"/v1/logs": "logs", b"/v1/metrics": None}
_TYPES: dict[str, Encoding] = {"application/x-protobuf": "proto", "application/json": "json"}
_TYPE = {encoding: name for name, encoding in _TYPES.items()}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    431: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_WORDS = {status: http.HTTPStatus(status).phrase for status in _CODES}
_HEADERS = 100
_HEADER_BYTES = 32 * 1024
_WAITING = 1_000  # requests that wait on one connection for those before them
_DRAINED = 2  # times the largest request: what is read and thrown away so that a sender hears why it was refused

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class OtlpHttp:
    """The HTTP door; `start` it, then `stop` it.

    Memory: `buffered` bytes of bodies, as they come and decompressed; and `_HEADER_BYTES` for each connection.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        intake: Intake,
        doorman: Doorman,
        counts: Counts,
        *,
        pem: Pem | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.settings, self.counts = settings, counts
        self._intake, self._doorman, self._pem, self._wall_ns = intake, doorman, pem, wall_ns
        self._room = Room(settings.buffered)
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Opens the door. Returns the port, which is of use where port 0 was asked for.

        Raises:
            OSError: The address cannot be listened on.
        """
        settings = self.settings
        assert settings.http is not None
        host, port = split_address(settings.http)
        config = uvicorn.Config(
            self,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=int(settings.idle_timeout),
        )
        config.load()
        loop = asyncio.get_running_loop()
        context = _context(settings, self._pem, self.counts) if self._pem else None
        self._server = await loop.create_server(
            lambda: _Connection(self, config, self._state, loop),
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=settings.header_timeout if context else None,
            backlog=256,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float = 2.0) -> None:
        """Refuses new connections, and waits up to `grace_s` seconds for the requests under way."""
        if not self._server:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if tasks := set(self._state.tasks):
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request, as an ASGI application."""
        request = _Request(scope, receive, send)
        try:
            await self._answer(request)
        except _RefusedError as error:
            self.counts.refused("otlp_http", error.refusal.reason, requests=1, spans=0, speaker=request.speaker)
            await self._refuse(request, error.refusal, *error.headers)
        except _GoneError:
            self.counts.refused("otlp_http", "aborted", requests=1, spans=0, speaker=request.speaker)
        except Exception as error:  # counted by the intake, or ours
            if not isinstance(error, SpanError | OutsideError):
                log_ours(log, error)
            await self._refuse(request, refusal(error))

    async def _answer(self, request: _Request) -> None:
        signal = request.signal()
        request.encoding = request.content_type()
        compression = request.compression()
        try:
            told = [value.decode("latin-1") for value in request.headers(b"authorization")]
            host = (request.scope["client"] or ("", 0))[0]
            request.speaker = speaker = identify(self._doorman, told, host=host, anonymous=self.settings.anonymous)
        except SidecarError as error:
            raise _RefusedError(refusal(error), (b"www-authenticate", b"Bearer")) from error
        with _Held(self._room, speaker) as held:
            body = await self._read(request, held)
            if compression != "identity":
                body = await self._inflate(body, compression, held)
            if signal is None:
                self.counts.ignored("otlp_http", "metrics")
                await request.respond(200, _ignored(request.encoding))
                return
            arrived_ns = self._wall_ns()
            receipt = await self._intake.take(signal, body, request.encoding, speaker, arrived_ns, door="otlp_http")
        await request.respond(200, _taken(signal, receipt, request.encoding))

    async def _read(self, request: _Request, held: _Held) -> bytes:
        """The request's body, as it was sent."""
        most = self.settings.max_request
        parts: list[bytes] = []
        size = request.length()
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                while size <= most:
                    part, more = await request.read()
                    held.more(len(part))
                    parts.append(part)
                    size = max(size, held.size)
                    if not more:
                        return b"".join(parts)
        except TimeoutError:
            raise _RefusedError(refusal(SpanError("slow", "the request did not come in time"))) from None
        raise _RefusedError(refusal(SpanError("too_large", f"more than {most} bytes")))

    async def _inflate(self, body: bytes, compression: str, held: _Held) -> bytes:
        turn = Turn(time.monotonic_ns)
        parts = []
        try:
            for part in inflate(body, compression, self.settings.max_request):
                held.more(len(part))
                parts.append(part)
                if turn.is_over():
                    await turn.next()
        except SpanError as error:
            raise _RefusedError(refusal(error)) from error
        return b"".join(parts)

    async def _refuse(self, request: _Request, why: Refusal, *headers: tuple[bytes, bytes]) -> None:
        """Answers with a refusal; the connection is closed where more of the request would have to be awaited."""
        told = list(headers)
        if why.retry_after_s is not None:
            told.append((b"retry-after", why.retry_after.encode()))
        if why.reason == "slow" or not await self._drain(request):
            told.append((b"connection", b"close"))
        body = why.status_json() if request.encoding == "json" else why.status().SerializeToString()
        await request.respond(why.http, body, *told)

    async def _drain(self, request: _Request) -> bool:
        """Reads what is left of a request, if it is not much; whether nothing is left.

        A sender that is cut off while it writes may never read why.
        """
        if request.done:
            return True
        most = _DRAINED * self.settings.max_request
        if not 0 <= request.length() <= most or request.headers(b"expect"):
            return False
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                more = True
                while more:
                    _, more = await request.read()
        except (TimeoutError, _GoneError):
            return False
        return True


class _RefusedError(Exception):
    """This request goes no further; not yet counted."""

    def __init__(self, why: Refusal, *headers: tuple[bytes, bytes]) -> None:
        self.refusal, self.headers = why, headers
        super().__init__(why.reason)


class _Held:
    """The bytes that one request holds, given back at the end of the block."""

    def __init__(self, room: Room, speaker: Speaker) -> None:
        self._room, self._speaker = room, speaker
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.give_back(self._speaker, self.size)

    def more(self, size: int) -> None:
        if not self._room.take(self._speaker, size, self.size):
            raise _RefusedError(refusal(BusyError("too many requests under way")))
        self.size += size


class _GoneError(Exception):
    """The client went away."""


class _Request:
    """One request as the application sees it."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.encoding: Encoding = "proto"
        self.speaker: Speaker | None = None
        self.done = False

    def headers(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.scope["headers"] if key == name]

    def length(self) -> int:
        """What the client says that the body is long; -1 where it does not."""
        told = self.headers(b"content-length")
        return int(told[0]) if told else -1

    def signal(self) -> Signal | None:
        path = self.scope["raw_path"]
        if path not in _PATHS:
            raise _RefusedError(Refusal("unsupported", _CODES[404], 404, _WORDS[404]))
        if self.scope["method"] != "POST":
            raise _RefusedError(Refusal("unsupported", _CODES[405], 405, _WORDS[405]), (b"allow", b"POST"))
        return _PATHS[path]

    def content_type(self) -> Encoding:
        told = self.headers(b"content-type")
        name, _, parameters = told[0].decode("latin-1").lower().partition(";") if len(told) == 1 else ("", "", "")
        encoding = _TYPES.get(name.strip())
        if encoding is None or parameters.strip() not in ("", "charset=utf-8", 'charset="utf-8"'):
            raise _RefusedError(
                refusal(SpanError("unsupported", f"content-type must be one of {', '.join(_TYPES)}, in UTF-8"))
            )
        return encoding

    def compression(self) -> str:
        told = self.headers(b"content-encoding")
        name = told[0].decode("latin-1").lower().strip() if told else "identity"
        if len(told) > 1 or name not in ENCODINGS:
            raise _RefusedError(
                refusal(SpanError("unsupported", f"content-encoding must be one of {', '.join(ENCODINGS)}"))
            )
        return name

    async def read(self) -> tuple[bytes, bool]:
        """The next part of the body, and whether there are more."""
        message = await self._receive()
        if message["type"] != "http.request":
            raise _GoneError
        self.done = not message["more_body"]
        return message["body"], message["more_body"]

    async def respond(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        told = [
            (b"content-type", _TYPE[self.encoding].encode()),
            (b"content-length", str(len(body)).encode()),
            *headers,
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": told})
        await self._send({"type": "http.response.body", "body": body})


class _Flow(FlowControl):
    """Reads nothing more while requests are waiting for their turn, of which there would be no end."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class _Connection(HttpToolsProtocol):
    """One connection: uvicorn's, with bounds on headers, on time and on how many there are."""

    def __init__(
        self, door: OtlpHttp, config: uvicorn.Config, state: ServerState, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(config, state, {}, loop)
        self.logger = _unheard
        self._door = door
        self._between = True  # requests, or within the headers of one
        self._begun = 0  # requests so far
        self._heard = self._told = 0  # bytes and number of this request's headers
        self._refused: tuple[int, str] | None = None
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if len(self.connections) > self._door.settings.connections:
            self._refuse(503, "busy")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._between and self._timer is None:
            self._start_timer()
        begun = self._begun
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "malformed")
        except httptools.HttpParserError:
            self._refuse(*(self._refused or (400, "malformed")))
        else:
            if self._between and self._begun == begun:
                self._hear(len(data))
                if self._refused:
                    self._refuse(*self._refused)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun += 1
        self._heard = self._told = 0
        self._between = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._hear(len(url), stop=True)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._told += 1
        self._hear(len(name) + len(value), stop=True)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():  # its body would not be heard, and be taken for an empty one
            self._refused = (400, "malformed")
            raise ValueError
        if len(self.pipeline) >= _WAITING:
            self._refused = (503, "busy")
            raise ValueError
        self._between = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between = True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_timer()

    def _hear(self, size: int, *, stop: bool = False) -> None:
        self._heard += size
        if self._heard > _HEADER_BYTES or self._told > _HEADERS:
            self._refused = (431, "too_large")
            if stop:
                raise ValueError  # is the only way to stop the parser, and is seen by nobody else

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self._door.settings.header_timeout, self._run_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run_out(self) -> None:
        """The client did not say in time what it wants, or does not read what it is told."""
        if self.flow.write_paused:
            self.transport.abort()
        elif self._begun or self._heard:
            self._refuse(408, "slow")
        else:
            self._door.counts.refused("otlp_http", "slow", requests=1, spans=0)
            self.transport.close()

    def _refuse(self, status: int, reason: str) -> None:
        """Ends the connection for what no application will see, after what it is still owed."""
        self._ended = True
        self._stop_timer()
        self._door.counts.refused("otlp_http", reason, requests=1, spans=0)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or not cycle.more_body:
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        why = Refusal(reason, _CODES[status], status, _WORDS[status], 1.0 if status == 503 else None)
        body = why.status().SerializeToString()
        lines = [
            f"HTTP/1.1 {status} {_WORDS[status]}",
            f"content-type: {_TYPE['proto']}",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        if status == 503:
            lines.append("retry-after: 1")
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()


def _context(settings: OtlpSettings, pem: Pem, counts: Counts) -> ssl.SSLContext:
    """TLS as it is offered here; every handshake that fails is counted."""

    class Counted(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except OSError:
                counts.refused("otlp_http", "tls", requests=1, spans=0)
                raise

    def is_served(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> int | None:
        if name is None or not pem.names or pem.names & {name.lower(), "*." + name.lower().partition(".")[2]}:
            return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    assert settings.tls is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    if pem.client_ca:
        context.load_verify_locations(cadata=pem.client_ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    context.sslobject_class = Counted
    context.sni_callback = is_served
    return context


def _taken(signal: Signal, receipt: Receipt, encoding: Encoding) -> bytes:
    if encoding == "proto":
        return response(signal, receipt).SerializeToString()
    told: dict[str, str] = {}
    if rejected := sum(receipt.rejected.values()):
        told["rejectedSpans" if signal == "traces" else "rejectedLogRecords"] = str(rejected)
    if receipt.message:
        told["errorMessage"] = receipt.message
    return msgspec.json.encode({"partialSuccess": told} if told else {})


def _ignored(encoding: Encoding) -> bytes:
    if encoding == "proto":
        return ExportMetricsServiceResponse(
            partial_success=ExportMetricsPartialSuccess(error_message=METRICS_IGNORED)
        ).SerializeToString()
    return msgspec.json.encode({"partialSuccess": {"errorMessage": METRICS_IGNORED}})
