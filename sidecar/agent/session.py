"""A session: one piece of an agent's work, held and resumed as one."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, overload

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from sidecar.agent.acts import Act, gated
from sidecar.agent.client import Client, Tool
from sidecar.agent.content import MAX_ATTRIBUTE_CHARS, canonical, messages, schema_of, told
from sidecar.agent.errors import SidecarMisconfigured, SidecarUnavailable
from sidecar.agent.options import OnHold
from sidecar.agent.roster import Condition
from sidecar.agent.steps import Call, NoAnswer, Sleep, Steps
from sidecar.agent.tracing import SESSION
from sidecar.control.v1 import control_pb2 as pb

P = ParamSpec("P")
R = TypeVar("R")

Outcome = Literal["resumed", "paused", "terminated"]
"""How a reviewer left the session."""

Messages = str | Mapping[str, Any] | Iterable[Any]
"""A text, a message, or several, as `content.messages` takes them."""


class ModelCall:
    """A call of the model under way; give it what came back."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def output(
        self,
        said: Messages,
        *,
        model: str = "",
        finish_reason: str = "",
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        """What the model answered: a text, or messages with tool calls and reasoning."""
        attributes = {
            "gen_ai.output.messages": canonical(messages(said, "assistant")),
            "gen_ai.response.model": model or None,
            "gen_ai.response.finish_reasons": [finish_reason] if finish_reason else None,
            "gen_ai.usage.input_tokens": input_tokens,
            "gen_ai.usage.output_tokens": output_tokens,
        }
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})


class Run:
    """One turn of the agent under way; give it what the agent answered."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def output(self, said: Messages) -> None:
        """What the agent answered to whoever asked it."""
        self._span.set_attribute("gen_ai.output.messages", canonical(messages(said, "assistant")))


class SessionBase:
    """What the blocking and the asyncio session share. Made by `Agent.session`.

    Attributes:
        id: Its id, `gen_ai.conversation.id` on every span that begins within it.
    """

    def __init__(
        self,
        client: Client,
        session_id: str,
        parent_id: str,
        task_key: str,
        on_hold: OnHold | None,
        on_pause: OnHold | None,
    ) -> None:
        self.client, self.id = client, session_id
        self._parent_id, self._task_key = parent_id, task_key
        changed = {"on_hold": on_hold, "on_pause": on_pause}
        self.options = dataclasses.replace(client.options, **{k: v for k, v in changed.items() if v is not None})  # type: ignore[arg-type]
        self.span_attributes = {"gen_ai.conversation.id": session_id, "sidecar.instance.id": client.instance_id}
        if parent_id:
            self.span_attributes["sidecar.session.parent_id"] = parent_id
        self._token: Any = None
        self._is_entered = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self.client.identity.name}>"

    @property
    def state(self) -> Condition:
        """``running``, ``hold`` (the sidecar is out of reach), ``paused`` or ``terminated``."""
        return self.client.roster.posture(self.id, time.monotonic()).condition

    # ------------------------------------------------------------ what the agent hears, thinks and says

    def message(self, role: str, text: str) -> None:
        """A text that reached the agent or left it: `role` is user, assistant, system, or whoever speaks."""
        side = "gen_ai.output.messages" if role == "assistant" else "gen_ai.input.messages"
        said = told(text)[:MAX_ATTRIBUTE_CHARS]
        span = self.start_span(
            f"invoke_agent {self.client.identity.name}",
            {"gen_ai.operation.name": "invoke_agent", side: canonical(messages(said, role))},
        )
        if len(text) > MAX_ATTRIBUTE_CHARS:
            span.set_attribute("sidecar.cut", [side])
        span.end()

    @contextlib.contextmanager
    def run(self, task: Messages = ()) -> Iterator[Run]:
        """One turn of the agent, around all that it does in it; `task` is what it was asked."""
        attributes = {"gen_ai.operation.name": "invoke_agent"}
        if asked := messages(task):
            attributes["gen_ai.input.messages"] = canonical(asked)
        with self._spanning(f"invoke_agent {self.client.identity.name}", attributes, SpanKind.INTERNAL) as span:
            yield Run(span)

    @contextlib.contextmanager
    def model_call(
        self,
        model: str = "",
        *,
        provider: str = "",
        input: Messages = (),  # noqa: A002  # the conventions' own word
        system: str = "",
        tools: Iterable[Any] = (),
    ) -> Iterator[ModelCall]:
        """One call of a language model.

        Args:
            model: As the provider names it.
            provider: For instance ``openai``.
            input: The messages given to the model.
            system: Its instructions, where they stand apart from the messages.
            tools: The tools it was offered, as given to it.
        """
        attributes: dict[str, Any] = {"gen_ai.operation.name": "chat"}
        if provider:
            attributes["gen_ai.provider.name"] = provider
        if model:
            attributes["gen_ai.request.model"] = model
        if given := messages(input):
            attributes["gen_ai.input.messages"] = canonical(given)
        if system:
            attributes["gen_ai.system_instructions"] = canonical([{"type": "text", "content": system}])
        if offered := list(tools):
            attributes["gen_ai.tool.definitions"] = canonical(offered)
        with self._spanning(f"chat {model}".strip(), attributes, SpanKind.CLIENT) as span:
            yield ModelCall(span)

    # ------------------------------------------------------------ tools

    @overload
    def tool(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def tool(
        self,
        /,
        *,
        name: str = "",
        reversible: bool | None = None,
        description: str = "",
        schema: str | Mapping[str, Any] = "",
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def tool(self, function: Any = None, /, **declared: Any) -> Any:
        """Puts the gate before a function, for this session; see `Agent.tool`."""
        return declare(self.client, function, lambda: self, self.id, **declared)

    # ------------------------------------------------------------ inside

    def start_span(self, name: str, attributes: Mapping[str, Any], kind: SpanKind = SpanKind.INTERNAL) -> Span:
        """A span of this session, whatever session its context has."""
        every = {**self.client.span_attributes, **self.span_attributes, **attributes}
        span = self.client.tracer.start_span(name, kind=kind, attributes=every)
        if not span.is_recording():
            self.client.warn_once(
                "the application's sampler drops spans, so the sidecar cannot see what this agent does"
            )
        return span

    def enter_span(self, span: Span) -> Any:
        """Makes `span` and this session those of the context; what begins within belongs to both.

        Returns:
            The token that `opentelemetry.context.detach` ends it with.
        """
        return otel_context.attach(otel_context.set_value(SESSION, self, set_span_in_context(span)))

    @contextlib.contextmanager
    def _spanning(self, name: str, attributes: Mapping[str, Any], kind: SpanKind) -> Iterator[Span]:
        span = self.start_span(name, attributes, kind)
        token = self.enter_span(span)
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR, told(str(error))[:1000]))
            raise
        finally:
            otel_context.detach(token)
            span.end()

    def _enter(self) -> None:
        if self._is_entered:
            raise RuntimeError("this session is open already; make another with agent.session()")
        self._is_entered = True
        self.client.enter(self, self._parent_id, self._task_key)

    def _leave(self) -> None:
        if self._is_entered:
            self._is_entered = False
            self.client.leave(self.id)

    def _attach(self) -> None:
        """Makes this the session of the present context: what begins in it, in tasks and threads too, belongs to it."""
        self._token = otel_context.attach(otel_context.set_value(SESSION, self))

    def _detach(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            otel_context.detach(token)

    def _escalating(self, reason: str, at_least_s: float) -> Steps[str]:
        if not 0 <= at_least_s <= 7 * 86400:
            raise ValueError("at_least_s must be 0 to 604800 (a week)")
        try:
            return (yield from self.client.escalating(self.id, reason, at_least_s))
        except NoAnswer as error:
            if error.is_rejected:
                raise SidecarMisconfigured(f"the sidecar refused the escalation ({error.code})") from None
            raise SidecarUnavailable(
                "The sidecar could not be reached, so nobody has been asked. Try again.",
                retry_after_s=1.0,
                session_id=self.id,
            ) from None

    def _awaiting(self, decision_id: str, timeout_s: float | None) -> Steps[Outcome]:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            rest_s = 20.0 if until is None else max(0.0, min(20.0, until - time.monotonic()))
            request = pb.AwaitDecisionRequest(decision_id=decision_id, timeout_ms=max(1, round(rest_s * 1000)))
            asked = time.monotonic()
            try:
                answer = yield Call("AwaitDecision", request, rest_s + 1.0)
                if answer.answer not in (pb.ANSWER_WAIT, pb.ANSWER_UNSPECIFIED):
                    self.client.learn(answer.state, watched=False)
                    return _OUTCOMES.get(answer.state.state, "paused")
            except NoAnswer as error:
                if error.is_rejected or error.code == "NOT_FOUND":
                    raise SidecarMisconfigured(f"the sidecar knows no such decision ({error.code})") from None
            if until is not None and time.monotonic() >= until:
                raise TimeoutError("no reviewer has decided yet")
            if time.monotonic() - asked < 0.1:
                yield Sleep(0.2)


_OUTCOMES: dict[int, Outcome] = {pb.RUN_STATE_RUNNING: "resumed", pb.RUN_STATE_TERMINATED: "terminated"}


class Escalation:
    """A call for a person that has been taken: the session is paused until a reviewer has looked at it."""

    def __init__(self, session: Session, decision_id: str) -> None:
        self._session, self.decision_id = session, decision_id

    def outcome(self, timeout_s: float | None = None) -> Outcome:
        """Waits for the reviewer.

        Raises:
            TimeoutError: Nobody decided within `timeout_s`.
        """
        return self._session.client.wire.drive(self._session._awaiting(self.decision_id, timeout_s))


class Session(SessionBase):
    """A session of a blocking agent, open within ``with``."""

    def open(self) -> Self:
        """Names the session to the sidecar. If that is away, the session is on hold until it is back.

        ``with`` does that and also makes it the session of the context, which spans of frameworks and functions gated
        with `Agent.tool` go by.

        Raises:
            SidecarMisconfigured: The sidecar does not accept this process, or not this id.
        """
        self._enter()
        try:
            self.client.wire.drive(self.client.opening(self.id))
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
    ) -> Act:
        """One act, for a loop that calls its tools by itself::

            with session.act("send_mail", arguments, call_id=call.id) as act:
                act.result = send_mail(**arguments)

        Args:
            tool: The tool's name.
            arguments: As they will be executed.
            call_id: The model's id of this call, made up where "".
            reversible: Whether it may go on when nobody answers; None: as declared, or as the sidecar knows.
        """
        return Act(self, tool, arguments, call_id=call_id, reversible=reversible)

    def escalate(self, reason: str, at_least_s: float = 1800.0) -> Escalation:
        """The agent itself asks for a person: its session is paused for at least that long, ended only by a reviewer.

        Raises:
            SidecarUnavailable: Nobody took it within the patience; nobody has been asked.
        """
        return Escalation(self, self.client.wire.drive(self._escalating(reason, at_least_s)))

    def __enter__(self) -> Self:
        self.open()
        self._attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._detach()
        self.close()


def declare(
    client: Client,
    function: Callable[..., Any] | None,
    session: Callable[[], SessionBase],
    session_id: str,
    *,
    name: str = "",
    reversible: bool | None = None,
    description: str = "",
    schema: str | Mapping[str, Any] = "",
) -> Any:
    """The decorator behind `Agent.tool` and `Session.tool`."""

    def put(function: Callable[P, R]) -> Callable[P, R]:
        called = name or getattr(function, "__name__", "")
        if not called or len(called) > 256:
            raise ValueError("a tool needs a name of 1 to 256 characters; give name=")
        words = description or inspect.getdoc(function) or ""
        shape = schema if isinstance(schema, str) else canonical(schema)
        client.declare(Tool(called, reversible, words, shape or schema_of(function)), session_id)
        return gated(function, called, words, reversible, session)

    return put if function is None else put(function)
