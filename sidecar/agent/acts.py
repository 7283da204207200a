"""One act: asked at the gate, run, told as a span, reported."""

from __future__ import annotations

import functools
import inspect
import logging
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode

from sidecar.agent.admission import Permit, Question
from sidecar.agent.content import MAX_ATTRIBUTE_CHARS, binder, canonical, told
from sidecar.agent.errors import SidecarRefusal
from sidecar.agent.steps import Steps

if TYPE_CHECKING:
    from sidecar.agent.session import SessionBase

log = logging.getLogger("sidecar.agent")

P = ParamSpec("P")
R = TypeVar("R")

NOTHING: Any = object()
"""Stands for a result that was never given, since None is one."""


class _Act:
    """What the blocking and the asyncio act share.

    Attributes:
        result: Set it to what the act returned; it is told on the span, as text or JSON.
        permit: The permission, once it was given: `grant` is for a tool proxy that redeems it.
    """

    def __init__(
        self,
        session: SessionBase,
        tool: str,
        arguments: Mapping[str, Any] | None,
        *,
        call_id: str = "",
        reversible: bool | None = None,
        description: str = "",
    ) -> None:
        self.tool, self.call_id = tool, call_id or uuid.uuid4().hex
        self.arguments_json = canonical(dict(arguments or {}))
        self.result: Any = NOTHING
        self.permit: Permit | None = None
        self._session, self._reversible, self._description = session, reversible, description
        self._span: Span | None = None
        self._cut: list[str] = []
        self._token: Any = None

    def _asking(self) -> Steps[None]:
        client, session_id = self._session.client, self._session.id
        question = Question(
            session_id,
            self.tool,
            self.arguments_json,
            self.call_id,
            lambda: client.is_reversible(session_id, self.tool, self._reversible),
        )
        try:
            self.permit = yield from client.admission.ask(question, self._session.options)
        except SidecarRefusal as refusal:
            trace.get_current_span().add_event(
                "sidecar.refused",
                {"gen_ai.tool.name": self.tool, "sidecar.call.id": self.call_id, "error.type": type(refusal).__name__},
            )
            raise
        self._span = self._start_span(self.permit)

    def _start_span(self, permit: Permit) -> Span:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": self.tool,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": self.call_id,
            "sidecar.call.id": self.call_id,
            "sidecar.ungated" if permit.ungated else "sidecar.gated": True,
        }
        if self._description:
            attributes["gen_ai.tool.description"] = self._description
        span = self._session.start_span(f"execute_tool {self.tool}", attributes)
        self._tell_text(span, "gen_ai.tool.call.arguments", self.arguments_json)
        return span

    def end(self, *, result: Any = NOTHING, error: BaseException | None = None) -> None:
        """The act is over: its span ends, its outcome is reported. A second call does nothing.

        Args:
            result: What it returned; `self.result` where not given.
            error: What it raised.
        """
        span, permit = self._span, self.permit
        if span is None or permit is None:
            return
        self._span = None
        try:
            self._tell(span, self.result if result is NOTHING else result, error)
            span.end()
        finally:
            self._session.client.end_act(self._session.id, self.tool, self.call_id, permit, failed=error is not None)

    def _tell(self, span: Span, result: Any, error: BaseException | None) -> None:
        """Puts the end of the act on its span. The act has happened: what cannot be told must not undo it."""
        try:
            if error is not None:
                span.record_exception(error)
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR, told(str(error))[:1000]))
            elif result is not NOTHING:
                self._tell_text(span, "gen_ai.tool.call.result", told(result))
        except Exception as failed:  # the result's own code, or the error's, ran to be told
            log.warning("the end of an act of %s cannot be told: %s", self.tool, type(failed).__name__)
            span.set_attribute("sidecar.cut", ["gen_ai.tool.call.result"])

    def _tell_text(self, span: Span, name: str, text: str) -> None:
        span.set_attribute(name, text[:MAX_ATTRIBUTE_CHARS])
        if len(text) > MAX_ATTRIBUTE_CHARS:
            self._cut.append(name)
            span.set_attribute("sidecar.cut", self._cut)

    def _enter_span(self) -> None:
        if self._span is not None:
            self._token = self._session.enter_span(self._span)

    def _exit_span(self, error: BaseException | None) -> None:
        if self._token is not None:
            otel_context.detach(self._token)
            self._token = None
        self.end(error=error)


class Act(_Act):
    """An act of a blocking agent.

    Use it as a context manager around the act; or, where the framework calls before and after, `begin` and `end`.
    """

    def begin(self) -> None:
        """Asks; returns when the act may run.

        Raises:
            SidecarRefusal: It must not run.
        """
        self._session.client.wire.drive(self._asking())

    def __enter__(self) -> Self:
        self.begin()
        self._enter_span()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._exit_span(error)


class AsyncAct(_Act):
    """An act of an asyncio agent: ``async with``, or ``await begin()`` and `end`."""

    async def begin(self) -> None:
        """Asks; returns when the act may run.

        Raises:
            SidecarRefusal: It must not run.
        """
        await self._session.client.wire.adrive(self._asking())

    async def __aenter__(self) -> Self:
        await self.begin()
        self._enter_span()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._exit_span(error)


def gated(
    function: Callable[P, R], name: str, description: str, reversible: bool | None, session: Callable[[], SessionBase]
) -> Callable[P, R]:
    """`function` with the gate before it: of the same signature, and a coroutine function if it is one.

    Raises:
        TypeError: A generator; its acts happen while it is consumed, so that one question cannot cover them.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} is a generator; ask for each of its acts with session.act() inside it")
    bind = binder(function)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            act = AsyncAct(session(), name, bind(args, kwargs), reversible=reversible, description=description)
            async with act:
                act.result = await function(*args, **kwargs)
                return act.result

        return cast("Callable[P, R]", run_async)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with Act(session(), name, bind(args, kwargs), reversible=reversible, description=description) as act:
            act.result = result = function(*args, **kwargs)
            return result

    return run
