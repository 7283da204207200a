"""A sidecar, its people, and an agent's raw channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import sidecar.agent
from sidecar.control.client import Operators
from tests.shells.control.kit import Raw, Sidecar


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Sidecar]:
    with Sidecar(tmp_path) as sidecar:
        yield sidecar


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Sidecar]]:
    """Starts a sidecar with settings of the test's own."""
    started: list[Sidecar] = []

    def start(**options: Any) -> Sidecar:
        started.append(Sidecar(tmp_path, **options).__enter__())
        return started[-1]

    yield start
    for one in started:
        one.__exit__()


@pytest.fixture
def people(running: Sidecar) -> Iterator[Operators]:
    with running.people() as people:
        yield people


@pytest.fixture
def raw(running: Sidecar) -> Iterator[Raw]:
    with Raw(running.address) as raw:
        yield raw


@pytest.fixture
def connect(running: Sidecar) -> Iterator[Callable[..., Any]]:
    """Connects agents through the real library."""
    agents: list[Any] = []

    def connect(name: str = "mail-helper", **options: Any) -> Any:
        settings = {"control": running.address, "otlp": running.otlp, "tracer_provider": TracerProvider()}
        agents.append(sidecar.agent.connect(name, **(settings | options)))
        return agents[-1]

    yield connect
    for agent in agents:
        agent.close()
