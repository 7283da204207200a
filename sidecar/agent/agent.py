"""`connect`, and the agent that it gives."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider

from sidecar.agent.client import SESSION_ID, Client
from sidecar.agent.options import OnHold, Options
from sidecar.agent.session import Session, SessionBase, declare
from sidecar.agent.tracing import SESSION

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=SessionBase)


class AgentBase:
    """What the blocking and the asyncio agent share."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client.identity.name} at {self.client.options.control}>"

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
        """Puts the gate before a function, plain or async; it keeps its signature and runs in the context's session.

        Called, it asks first; then it runs, and what it returned or raised is told as a span and reported. It raises a
        `SidecarRefusal` where it must not run. In a thread without a session of its own it runs in the only open one. A
        plain function blocks its thread while it waits, an event loop's too: gate coroutine functions there.

        Args:
            function: What to gate; left out when the decorator is given arguments.
            name: What the tool is called; the function's name.
            reversible: Whether it may go on when nobody answers. None: as the sidecar's catalogue says, else no.
            description: What the model is told of it; the docstring.
            schema: JSON Schema of its arguments as the model is given it; else made from the signature.
        """
        return declare(self.client, function, self.client.current, "", **declared)

    @property
    def dropped_spans(self) -> int:
        """Spans that the sidecar did not get and will not get, since the start."""
        return self.client.outbox.dropped

    def _new(self, kind: Callable[..., S], session_id: str, parent: SessionBase | str | None, task_key: str,
             on_hold: OnHold | None, on_pause: OnHold | None) -> S:  # fmt: skip
        session_id = session_id or uuid.uuid4().hex
        if parent is None:
            around: Any = otel_context.get_value(SESSION)
            parent_id = around.id if around is not None and around.id != session_id else ""
        else:
            parent_id = parent if isinstance(parent, str) else parent.id
        for name in (session_id, parent_id):
            if name and not SESSION_ID.fullmatch(name):
                raise ValueError("a session id is 1 to 128 of A-Z a-z 0-9 . _ : -")
        return kind(self.client, session_id, parent_id, task_key, on_hold, on_pause)


class Agent(AgentBase):
    """A blocking agent's connection to its sidecar; `connect` makes it. Safe to use from any thread."""

    def session(
        self,
        session_id: str = "",
        *,
        parent: SessionBase | str | None = None,
        task_key: str = "",
        on_hold: OnHold | None = None,
        on_pause: OnHold | None = None,
    ) -> Session:
        """One piece of work, held and resumed as one; use it with ``with``.

        Args:
            session_id: 1 to 128 of ``A-Za-z0-9._:-``, for instance the conversation's id; made up where "".
            parent: The session that started this one; the session around it where None, "" for none.
            task_key: What the work is, in your own terms (a ticket, a queue item): a pause sticks to it.
            on_hold, on_pause: As in `connect`, for this session.
        Raises:
            ValueError: An id of odd form.
        """
        return self._new(Session, session_id, parent, task_key, on_hold, on_pause)

    def current(self) -> Session:
        """The session of the present context; in a thread that has none, the only open one.

        Raises:
            SidecarMisconfigured: There is none, or several.
        """
        return cast("Session", self.client.current())

    def close(self) -> None:
        """Gets spans and reports out, as far as `flush_s` reaches, and disconnects; also done when the process ends."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def connect(
    name: str,
    *,
    id: str = "",  # noqa: A002
    version: str = "",
    control: str | None = None,
    otlp: str | None = None,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    tracer_provider: TracerProvider | None = None,
    on_hold: OnHold | None = None,
    on_pause: OnHold | None = None,
    block_s: float | None = None,
    patience_s: float | None = None,
    deadline_s: float | None = None,
    lease_s: float | None = None,
    flush_s: float | None = None,
) -> Agent:
    """An agent that asks its sidecar before it acts.

    Nothing is sent before the first session. A process may fork until then; afterwards the child must connect anew, and
    acts in it are refused until it does.

    Args:
        name: The agent's role: policy, posture and baselines go by it.
        id, version: This deployment of it, and what runs in it (model, prompt).
        control: The sidecar's door for agents, ``host:port`` or ``unix:/path``; ``SIDECAR_CONTROL``, 127.0.0.1:4320.
        otlp: Where spans go; ``SIDECAR_OTLP``, 127.0.0.1:4317.
        token, token_file: The agent's credential; ``SIDECAR_TOKEN``, ``SIDECAR_TOKEN_FILE``.
        ca, cert, key: PEM files for TLS; ``SIDECAR_CA``, ``SIDECAR_CERT``, ``SIDECAR_KEY``.
        state_dir: A folder where the highest epoch of each session survives this process; ``SIDECAR_STATE_DIR``.
        tracer_provider: Where spans are made; the application's, else one of our own, which becomes the process's.
        on_hold, on_pause: ``"block"`` (default) waits for the person, ``"raise"`` raises `ActHeld`, `SessionPaused`.
        block_s: The longest wait for a person, seconds; for ever.
        patience_s: How long a question that the sidecar cannot judge now is asked again, seconds; 5.
        deadline_s: No answer within it is a denial, seconds; 0.25.
        lease_s: No heartbeat within it puts sessions on hold, seconds; 3.
        flush_s: How long `close` waits, seconds; 2.
    Raises:
        SidecarMisconfigured: A setting makes no sense, a file cannot be read, a token would travel in the clear.
    """
    options = Options.gather(
        control=control,
        otlp=otlp,
        token=token,
        token_file=token_file,
        ca=ca,
        cert=cert,
        key=key,
        state_dir=state_dir,
        on_hold=on_hold,
        on_pause=on_pause,
        block_s=block_s,
        patience_s=patience_s,
        deadline_s=deadline_s,
        lease_s=lease_s,
        flush_s=flush_s,
    )
    return Agent(Client(name, agent_id=id, version=version, options=options, tracer_provider=tracer_provider))
