"""The same for asyncio: ``async with agent.session()`` and ``session.act(...)``, ``await session.escalate(...)``.

Tools are gated alike in both: `tool` makes a coroutine function of a coroutine function and a plain one of a plain one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, Self, cast

from sidecar.agent import agent as blocking
from sidecar.agent.acts import AsyncAct
from sidecar.agent.options import OnHold
from sidecar.agent.session import Outcome, SessionBase

__all__ = ["Agent", "AsyncAct", "Escalation", "Session", "connect"]

P = ParamSpec("P")


class Escalation:
    """A call for a person that has been taken: the session is paused until a reviewer has looked at it."""

    def __init__(self, session: Session, decision_id: str) -> None:
        self._session, self.decision_id = session, decision_id

    async def outcome(self, timeout_s: float | None = None) -> Outcome:
        """Waits for the reviewer.

        Raises:
            TimeoutError: Nobody decided within `timeout_s`.
        """
        return await self._session.client.wire.adrive(self._session._awaiting(self.decision_id, timeout_s))


class Session(SessionBase):
    """A session of an asyncio agent, open within ``async with``."""

    async def open(self) -> Self:
        """As `sidecar.agent.Session.open`."""
        self._enter()
        try:
            await self.client.wire.adrive(self.client.opening(self.id))
        except BaseException:
            self._leave()
            raise
        return self

    def close(self) -> None:
        """Ends the session here; what it has not exported still goes out."""
        self._leave()

    def act(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        call_id: str = "",
        reversible: bool | None = None,
    ) -> AsyncAct:
        """As `sidecar.agent.Session.act`, with ``async with``."""
        return AsyncAct(self, tool, arguments, call_id=call_id, reversible=reversible)

    async def escalate(self, reason: str, at_least_s: float = 1800.0) -> Escalation:
        """As `sidecar.agent.Session.escalate`."""
        return Escalation(self, await self.client.wire.adrive(self._escalating(reason, at_least_s)))

    async def __aenter__(self) -> Self:
        await self.open()
        self._attach()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._detach()
        self.close()


class Agent(blocking.AgentBase):
    """An asyncio agent's connection to its sidecar; `connect` makes it. Not bound to an event loop."""

    def session(
        self,
        session_id: str = "",
        *,
        parent: SessionBase | str | None = None,
        task_key: str = "",
        on_hold: OnHold | None = None,
        on_pause: OnHold | None = None,
    ) -> Session:
        """As `sidecar.agent.Agent.session`, with ``async with``."""
        return self._new(Session, session_id, parent, task_key, on_hold, on_pause)

    def current(self) -> Session:
        """As `sidecar.agent.Agent.current`."""
        return cast("Session", self.client.current())

    async def close(self) -> None:
        """As `sidecar.agent.Agent.close`; the loop goes on meanwhile."""
        await asyncio.to_thread(self.client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()


def _for_asyncio(connect: Callable[P, blocking.Agent]) -> Callable[P, Agent]:
    @wraps(connect)
    def connect_for_asyncio(*args: P.args, **kwargs: P.kwargs) -> Agent:
        return Agent(connect(*args, **kwargs).client)

    return connect_for_asyncio


connect = _for_asyncio(blocking.connect)
