"""The standard gRPC health service (`grpc.health.v1.Health`), so that probes need no client of ours.

Its two messages are a string and a number. They are written out here: the package that has them generated is made for
newer protobuf than we ask for, and two copies of one message do not get along in one process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from sidecar.control import rpc
from sidecar.errors import SpanError
from sidecar.sources.wire import LEN, fields

NAME = "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
LOOK_S = 1.0
MAX_WATCHERS = 64
_SERVICE = 1


class Health:
    """Says whether a door's services are served. Open to everybody: it tells nothing else.

    Args:
        services: Names of the services at this door; "" stands for all.
        is_ready: Whether they are served now.
    """

    def __init__(self, services: tuple[str, ...], is_ready: Callable[[], bool]) -> None:
        self._services, self._is_ready = ("", *services), is_ready
        self._watchers = 0

    def handlers(self) -> Any:
        """The service, for `grpc.aio.Server.add_generic_rpc_handlers`."""
        return rpc.service(
            NAME,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
            },
        )

    async def _check(self, body: bytes, context: Any) -> bytes:
        state = self._state(await _asked(body, context))
        if state == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _response(state)

    async def _watch(self, body: bytes, context: Any) -> None:
        service = await _asked(body, context)
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        self._watchers += 1
        try:
            told = 0
            while True:
                if (state := self._state(service)) != told:
                    await context.write(_response(state))
                    told = state
                await asyncio.sleep(LOOK_S)
        finally:
            self._watchers -= 1

    def _state(self, service: str) -> int:
        if service not in self._services:
            return SERVICE_UNKNOWN
        return SERVING if self._is_ready() else NOT_SERVING


async def _asked(body: bytes, context: Any) -> str:
    """The service that a `HealthCheckRequest` names."""
    service = b""
    try:
        for number, kind, start, end in fields(body, 0, len(body)):
            if (number, kind) == (_SERVICE, LEN):
                service = body[start:end]
        return service.decode()
    except (ValueError, SpanError):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is malformed")
        raise


def _response(state: int) -> bytes:
    """A `HealthCheckResponse`: field 1, a number below 128."""
    return bytes((_SERVICE << 3, state))
