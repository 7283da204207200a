"""The doors of the control API: which listens where, with what credentials, and what it serves."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from sidecar.control import agents, operators, sockets
from sidecar.control.agents import AgentService
from sidecar.control.auth import Counts, Credentials, Denials, DoorName, methods, roles_of
from sidecar.control.health import Health
from sidecar.control.operators import OperatorService
from sidecar.control.rpc import Door
from sidecar.control.settings import ControlSettings
from sidecar.errors import ConfigError
from sidecar.sources.otlp import Pem, is_loopback, split_address

MAX_METADATA_BYTES = 16 * 1024


class ControlServers:
    """All doors of the control API; `start` them, then `stop` them. No door serves reflection or channelz.

    Args:
        data_dir: Where sockets of relative path go.
        is_ready: For health probes.
        pem: Certificate, where the settings ask for one (`sources.otlp.read_tls`).
    """

    def __init__(
        self,
        settings: ControlSettings,
        data_dir: Path,
        agent_service: AgentService,
        operator_service: OperatorService,
        credentials: Credentials,
        denials: Denials,
        counts: Counts,
        *,
        is_ready: Callable[[], bool],
        pem: Pem | None = None,
    ) -> None:
        for method in methods():
            roles_of(method)
        self._settings, self._pem = settings, pem
        self._services: dict[DoorName, AgentService | OperatorService] = {
            "agents": agent_service,
            "operators": operator_service,
        }
        self._agents, self._denials = agent_service, denials
        self._door: Callable[[DoorName, bool], Door] = lambda name, local: Door(
            name, credentials, denials, counts, local=local
        )
        self._health: dict[DoorName, Health] = {
            "agents": Health((agents.NAME,), is_ready),
            "operators": Health((operators.NAME,), is_ready),
        }
        self._sockets = {
            "agents": _socket(settings.agents_socket, data_dir),
            "operators": _socket(settings.operators_socket, data_dir),
        }
        self._servers: list[grpc.aio.Server] = []
        self.ports: dict[DoorName, int] = {}

    @property
    def operators_socket(self) -> Path | None:
        """Where operators come by default."""
        return self._sockets["operators"]

    @property
    def agents_socket(self) -> Path | None:
        return self._sockets["agents"]

    async def start(self) -> None:
        """Opens the doors; `ports` then says which ports they have, which is of use where port 0 was asked for.

        Raises:
            ConfigError: A socket's path cannot be used.
            OSError: An address cannot be listened on.
        """
        try:
            for name, address in (("agents", self._settings.agents), ("operators", self._settings.operators)):
                await self._open(name, address)  # type: ignore[arg-type]
        except BaseException:
            await self.stop(0)
            raise

    async def stop(self, grace_s: float = 2.0) -> None:
        """Refuses new calls, ends the streams, and waits up to `grace_s` seconds for calls under way."""
        self._agents.close()
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop(grace_s) for server in servers))
        self._denials.flush()

    async def _open(self, name: DoorName, address: str | None) -> None:
        """Opens what one side comes by: a socket and loopback without credentials, any other address with them."""
        here = address is not None and is_loopback(split_address(address)[0]) and name == "agents"
        local = self._server(name, local=True)
        socket = self._sockets[name]
        if socket is not None:
            mode = 0o600 if name == "operators" else int(self._settings.agents_socket_mode, 8)
            _listen_on_socket(local, socket, mode)
        if here and address is not None:
            self.ports[name] = _listen(local, address, None)
        if socket is not None or here:
            await self._serve(local)
        if address is not None and not here:
            if self._pem is None:
                raise ConfigError("needs a certificate", key=f"control.{name}")
            remote = self._server(name, local=False)
            self.ports[name] = _listen(remote, address, self._pem)
            await self._serve(remote)

    async def _serve(self, server: grpc.aio.Server) -> None:
        await server.start()
        self._servers.append(server)

    def _server(self, name: DoorName, *, local: bool) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            maximum_concurrent_rpcs=settings.calls,
            compression=grpc.Compression.NoCompression,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_message),
                ("grpc.max_send_message_length", settings.max_message),
                ("grpc.max_metadata_size", MAX_METADATA_BYTES // 2),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.max_concurrent_streams", settings.calls),
                ("grpc.max_allowed_incoming_connections", settings.connections),
                ("grpc.server_handshake_timeout_ms", 10_000),
                # A client in trouble pings every 2 s (`agent.options`); with gRPC's own limits that would end its
                # connection as a flood (reliability.md M5). Ours find out who is gone without a word.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.max_ping_strikes", 0),
            ],
        )
        service = self._services[name]
        server.add_generic_rpc_handlers((service.handlers(self._door(name, local)), self._health[name].handlers()))
        return server


def _listen(server: Any, address: str, pem: Pem | None) -> int:
    try:
        if pem is None:
            port: int = server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials(
                [(pem.key, pem.certificate)],
                root_certificates=pem.client_ca,
                require_client_auth=pem.client_ca is not None,
            )
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}") from error
    return port


def _listen_on_socket(server: Any, path: Path, mode: int) -> None:
    """Listens on a socket that nobody else can open, at no time; then lets in whom `mode` says.

    Raises:
        ConfigError: The path is taken by something else, or cannot be made.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError("is there, and is no socket", file=str(path))
    except FileNotFoundError:
        pass
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise ConfigError("cannot be listened on", file=str(path)) from error
    finally:
        os.umask(before)
    path.chmod(mode)


def _socket(path: Path | None, data_dir: Path) -> Path | None:
    if path is None:
        return None
    return sockets.checked((data_dir / path).absolute())
