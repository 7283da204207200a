"""OTLP over gRPC.

Handlers take raw bytes, since generated ones answer UNKNOWN where a request is malformed. They take a stream although
clients send one message: so the credential is asked for before the message is read, and how long it may take is ours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from sidecar.core.span import Speaker
from sidecar.errors import OutsideError, SidecarError, SpanError
from sidecar.sources import Doorman
from sidecar.sources.decode import Signal
from sidecar.sources.intake import Counts, Intake
from sidecar.sources.limits import Turns
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

log = logging.getLogger(__name__)

_PACKAGE = "opentelemetry.proto.collector"
_METADATA_BYTES = 16 * 1024
_READ = 8  # messages that are read at a time; half of them may be one identity's
_AHEAD = 256 * 1024

Handler = Callable[[AsyncIterator[bytes], "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


class OtlpGrpc:
    """The gRPC door; `start` it, then `stop` it.

    Memory: `_READ` messages of `max_request` bytes that are being read, and what each of `connections` connections may
    send before it is read, `_AHEAD` bytes.
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
        self._settings, self._intake, self._doorman, self._counts = settings, intake, doorman, counts
        self._pem, self._wall_ns = pem, wall_ns
        self._reading = Turns(_READ, _READ // 2)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Opens the door. Returns the port, which is of use where port 0 was asked for.

        Raises:
            OSError: The address cannot be listened on.
        """
        settings = self._settings
        assert settings.grpc is not None
        server = grpc.aio.server(
            maximum_concurrent_rpcs=4 * settings.connections,
            compression=grpc.Compression.NoCompression,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_request),
                ("grpc.http2.lookahead_bytes", _AHEAD),
                ("grpc.http2.bdp_probe", 0),
                ("grpc.max_metadata_size", _METADATA_BYTES // 2),
                ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
                ("grpc.max_concurrent_streams", settings.streams),
                ("grpc.max_allowed_incoming_connections", settings.connections),
                ("grpc.server_handshake_timeout_ms", int(settings.header_timeout * 1000)),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.max_connection_idle_ms", 600_000),
            ],
        )
        for service, handler in (
            ("trace.v1.TraceService", self._exporter("traces")),
            ("logs.v1.LogsService", self._exporter("logs")),
            ("metrics.v1.MetricsService", self._ignore_metrics),
        ):
            method = grpc.stream_unary_rpc_method_handler(handler)
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"{_PACKAGE}.{service}", {"Export": method}),)
            )
        try:
            if self._pem:
                credentials = grpc.ssl_server_credentials(
                    [(self._pem.key, self._pem.certificate)],
                    root_certificates=self._pem.client_ca,
                    require_client_auth=self._pem.client_ca is not None,
                )
                port: int = server.add_secure_port(settings.grpc, credentials)
            else:
                port = server.add_insecure_port(settings.grpc)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {settings.grpc}") from error
        await server.start()
        self._server = server
        return port

    async def stop(self, grace_s: float = 2.0) -> None:
        """Refuses new requests, and waits up to `grace_s` seconds for those under way."""
        if self._server:
            await self._server.stop(grace_s)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=grace_s)  # for what gRPC has cancelled to end

    def _exporter(self, signal: Signal) -> Handler:
        async def export(_: AsyncIterator[bytes], context: Any) -> bytes:
            if task := asyncio.current_task():
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            # What aborts a call is kept for a while, with all that its frames hold: the request is not in this one.
            answer = await self._answer(signal, context)
            return answer if isinstance(answer, bytes) else await self._abort(context, answer)

        return export

    async def _answer(self, signal: Signal, context: Any) -> bytes | Refusal:
        try:
            speaker = self._speaker(context)
            body = await self._read(context, speaker)
            receipt = await self._intake.take(signal, body, "proto", speaker, self._wall_ns(), door="otlp_grpc")
        except Exception as error:
            if not isinstance(error, SpanError | OutsideError):
                log_ours(log, error)
            return refusal(error)
        return response(signal, receipt).SerializeToString()

    async def _ignore_metrics(self, _: AsyncIterator[bytes], context: Any) -> bytes:
        why = None
        try:
            self._speaker(context)
        except SidecarError as error:
            why = refusal(error)
        if why:
            return await self._abort(context, why)
        self._counts.ignored("otlp_grpc", "metrics")
        ignored = ExportMetricsServiceResponse()
        ignored.partial_success.error_message = METRICS_IGNORED
        return ignored.SerializeToString()

    def _speaker(self, context: Any) -> Speaker:
        try:
            told = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
            return identify(self._doorman, told, host=_host(context.peer()), anonymous=self._settings.anonymous)
        except SidecarError as error:
            self._counts.refused("otlp_grpc", refusal(error).reason, requests=1, spans=0)
            raise

    async def _read(self, context: Any, speaker: Speaker) -> bytes:
        try:
            async with self._reading.of(speaker), asyncio.timeout(self._settings.body_timeout):
                # Not by the iterator: it would keep the message until the next garbage collection.
                message = await context.read()
                if isinstance(message, bytes):
                    return message
        except asyncio.CancelledError:
            self._counts.refused("otlp_grpc", "aborted", requests=1, spans=0, speaker=speaker)
            raise
        except TimeoutError:
            self._counts.refused("otlp_grpc", "slow", requests=1, spans=0, speaker=speaker)
            raise SpanError("slow", "the request did not come in time") from None
        # gRPC itself has answered a message that is too large, or the client went away: nobody hears this.
        self._counts.refused("otlp_grpc", "aborted", requests=1, spans=0, speaker=speaker)
        raise SpanError("malformed", "no request")

    async def _abort(self, context: Any, why: Refusal) -> NoReturn:
        details: tuple[tuple[str, bytes], ...] = ()
        if why.retry_after_s is not None:
            details = (("grpc-status-details-bin", why.status().SerializeToString()),)
        await context.abort(why.code, why.message, details)
        raise AssertionError("abort raises")


def _host(peer: str) -> str:
    """The address in gRPC's name for a peer, such as ``ipv4:127.0.0.1:40312`` or ``ipv6:%5B::1%5D:40312``."""
    kind, _, address = unquote(peer).partition(":")
    return split_address(address)[0] if kind in ("ipv4", "ipv6") else ""
