"""A fake sidecar, and agents of both kinds that are closed again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import sidecar.agent as blocking
from sidecar.agent import aio
from sidecar.testing import FakeSidecar


@pytest.fixture
def fake() -> Iterator[FakeSidecar]:
    with FakeSidecar() as fake:
        yield fake


class Kind:
    """One way to use the library, so that a test can be said once for both."""

    def __init__(self, name: str, fake: FakeSidecar) -> None:
        self.name, self._fake, self._agents = name, fake, []
        self._library: Any = blocking if name == "blocking" else aio
        self._pool = ThreadPoolExecutor(16)

    def connect(self, name: str = "mail-helper", **options: Any) -> Any:
        """An agent with a tracer provider of its own, unless it is given one."""
        defaults = {"control": self._fake.address, "otlp": self._fake.address, "flush_s": 1.0,
                    "tracer_provider": options.pop("tracer_provider", None) or TracerProvider()}  # fmt: skip
        agent = self._library.connect(name, **(defaults | options))
        self._agents.append(agent)
        return agent

    def wait(self, answer: Any) -> Any:
        """The value of a call, waited_for where it is a coroutine."""
        return asyncio.run(_value(answer)) if asyncio.iscoroutine(answer) else answer

    def open(self, agent: Any, *args: Any, **options: Any) -> Any:
        """A session, opened."""
        return self.wait(agent.session(*args, **options).open())

    def act(self, session: Any, tool: str, body: Callable[[], Any] = lambda: "done", /, **options: Any) -> Any:
        """One act, its result that of `body`."""
        arguments = options.pop("arguments", {"n": 1})
        if self.name == "blocking":
            with session.act(tool, arguments, **options) as act:
                act.result = body()
            return act.result

        async def run() -> Any:
            async with session.act(tool, arguments, **options) as act:
                act.result = await asyncio.to_thread(body)
            return act.result

        return asyncio.run(run())

    def soon(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Runs `call` in a thread; a future."""
        return self._pool.submit(call, *args, **options)

    def close(self) -> None:
        self._fake.go()
        for agent in self._agents:
            self.wait(agent.close())
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _value(answer: Any) -> Any:
    return await answer


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest, fake: FakeSidecar) -> Iterator[Kind]:
    kind = Kind(request.param, fake)
    yield kind
    kind.close()


@pytest.fixture
def plain(fake: FakeSidecar) -> Iterator[Kind]:
    """The blocking kind alone, where both would test the same lines."""
    kind = Kind("blocking", fake)
    yield kind
    kind.close()
