"""The HTTP port: `/metrics` for Prometheus, `/healthz` and `/readyz` for probes. Nothing of the operators' is here.

The console's routes may be added where it is wanted; in an agent's pod they are not.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar.errors import ConfigError
from sidecar.observe.health import Health
from sidecar.observe.scrape import Scrape
from sidecar.sources.otlp import split_address

CONNECTIONS = 64
"""Open at a time; further ones are closed at once, so that nobody here uses up the gate's file descriptors."""
REQUEST_S = 10.0
"""How long a connection may take to send its first request."""
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def app(scrape: Scrape, health: Health, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application; `more` are routes of others that share the port."""

    async def metrics(request: Request) -> Response:
        body, content_type = await scrape.render(request.headers.get("accept", ""))
        return Response(body, headers=_HEADERS | {"Content-Type": content_type})

    async def healthz(request: Request) -> Response:
        alive = health.is_alive()
        words = "ok\n" if alive else "the clock is stuck\n"
        return PlainTextResponse(words, status_code=200 if alive else 503, headers=_HEADERS)

    async def readyz(request: Request) -> Response:
        reasons = health.reasons()
        return JSONResponse(
            {"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200, headers=_HEADERS
        )

    routes = [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]
    return Starlette(routes=[*routes, *more])


class Door:
    """Serves an application on one address, within a running event loop.

    Attributes:
        address: ``host:port`` that it listens on, the port being the real one where 0 was asked for.
    """

    def __init__(self, application: Starlette, address: str) -> None:
        """Takes the address.

        Raises:
            ConfigError: It cannot be had.
        """
        self._socket = _listen(address)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        config = uvicorn.Config(
            application,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=16 * 1024,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Serves from now on."""
        self._serving = asyncio.create_task(self._server.serve([self._socket]), name="http")

    async def close(self) -> None:
        """Lets go of the address; requests under way have a second."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._socket.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the application's


class _Connection(H11Protocol):
    """A connection that is one of few, and whose client does not take for ever."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(REQUEST_S, self._close_unless_asked)

    def _close_unless_asked(self) -> None:
        if self.cycle is None:
            self.transport.abort()  # type: ignore[unreachable]


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(128)
    except OSError as error:
        made.close()
        raise ConfigError(f"cannot listen on {address}: {error.strerror}", key="observe.http") from error
    made.setblocking(False)
    return made
