"""Doors that are really open, on loopback and a free port."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sidecar.sources.intake import Intake, IntakeSettings
from sidecar.sources.otlp import OtlpSettings, read_tls
from sidecar.sources.otlp_grpc import OtlpGrpc
from sidecar.sources.otlp_http import OtlpHttp
from tests.shells.otlp.kit import AT, FakeDoorman, FakeFeeder, FakeInbox, Tally


class Opened:
    """An open door and what stands behind it."""

    def __init__(
        self, kind: type[OtlpGrpc | OtlpHttp], doorman: FakeDoorman, intake: Any, otlp: dict[str, Any]
    ) -> None:
        self.inbox, self.feeder, self.tally, self.doorman = FakeInbox(), FakeFeeder(), Tally(), doorman
        settings = OtlpSettings(**{"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", **otlp})
        pem = read_tls(settings.tls, datetime.datetime.now(datetime.UTC)) if settings.tls else None
        self.intake = Intake(self.inbox, self.feeder, self.tally, IntakeSettings(**intake))
        self.door = kind(settings, self.intake, doorman, self.tally, pem=pem, wall_ns=lambda: AT)
        self.port = 0

    async def open(self) -> None:
        self.port = await self.door.start()


OpenDoor = Callable[..., Awaitable[Opened]]


@pytest.fixture
async def open_grpc() -> AsyncIterator[OpenDoor]:
    """Opens gRPC doors with the settings given: those of `OtlpSettings` by name, `IntakeSettings` as `intake`."""
    async for opener in _opener(OtlpGrpc):
        yield opener


@pytest.fixture
async def open_http() -> AsyncIterator[OpenDoor]:
    """Opens HTTP doors likewise."""
    async for opener in _opener(OtlpHttp):
        yield opener


async def _opener(kind: type[OtlpGrpc | OtlpHttp]) -> AsyncIterator[OpenDoor]:
    opened: list[Opened] = []

    async def opener(doorman: FakeDoorman | None = None, *, intake: Any = None, **otlp: Any) -> Opened:
        door = Opened(kind, doorman or FakeDoorman(), intake or {}, otlp)
        await door.open()
        opened.append(door)
        return door

    yield opener
    for door in opened:
        await door.door.stop(0.1)
