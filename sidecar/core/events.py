"""What an agent did: the events that detectors judge.

An event says each thing once, whatever number of spans and log records told it. A content field that is None is
named in `withheld` (the sender has it and does not tell) or in `absent` (there is none).
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from sidecar.core.reading import NOTHING_READ, Reading

Unscored = Literal[
    "withheld", "cut", "overflow", "opaque", "unknown_act", "evicted", "uninspectable", "detector_failed", "dropped"
]
UNSCORED: tuple[str, ...] = Unscored.__args__  # type: ignore[attr-defined]


class SessionKey(Struct, frozen=True, order=True, gc=False):
    """A session: the realm it belongs to (`span.Speaker.realm`) and its id within it."""

    realm: str
    id: str

    def __str__(self) -> str:
        return f"{self.realm}/{self.id}"


class Agent(Struct, frozen=True, gc=False):
    """An agent role and the version of it that is running.

    Attributes:
        realm: As in `SessionKey`.
        id: What the agent calls itself by id, else by name; "" where the telemetry names none.
        name: Its name: the role that policy, posture and baselines go by.
        version: Model, version and the like, as told; part of the evidence, not of the identity.
    """

    realm: str = "local"
    id: str = ""
    name: str = ""
    version: str = ""

    @property
    def role(self) -> str:
        """What baselines and postures are keyed by: the name, else the id, else ``unnamed``."""
        return self.name or self.id or "unnamed"


NO_AGENT = Agent()


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """What all events share. Nothing that an event holds can hold the event: no collector of cycles needs to look.

    Attributes:
        event_id: 32 hexadecimal digits, the same whenever the same telemetry is read again.
        at_ns: When it happened, by the sender's clock, Unix nanoseconds.
        spans: Where it was told: ``trace_id:span_id``, the best evidence first.
        unscored: Why detectors could not see all of it; empty when they could.
    """

    event_id: str
    session: SessionKey
    agent: Agent = NO_AGENT
    at_ns: int
    spans: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unscored: tuple[str, ...] = ()
    reading: Reading = NOTHING_READ


class ToolCall(Event, frozen=True, kw_only=True, tag="tool_call"):
    """A tool call about to run (`started`) or done (`ended`); both phases have one `event_id`.

    Attributes:
        tool: Its name as told; `reading.effect.tool` has the name without a framework's decoration.
        arguments: An object (dict), or the text of a single argument; None when withheld or absent.
        result: What it returned, or the error's text; None until ended.
        failed: Whether it ended in an error.
        gated: Whether the gate was asked before it ran.
        duration_ns: How long it ran; 0 until ended.
    """

    phase: Literal["started", "ended"]
    tool: str
    call_id: str = ""
    arguments: Any = None
    result: Any = None
    failed: bool = False
    gated: bool = False
    duration_ns: int = 0


class Message(Event, frozen=True, kw_only=True, tag="message"):
    """A text that reached the agent or left it.

    Attributes:
        role: ``system``, ``user``, ``assistant``, or ``agent`` for another agent's words.
    """

    direction: Literal["inbound", "outbound"]
    role: str
    text: str | None


class Reasoning(Event, frozen=True, kw_only=True, tag="reasoning"):
    """A text that the model wrote for itself."""

    text: str | None


class ModelCall(Event, frozen=True, kw_only=True, tag="model_call"):
    """One call of a language model; its content has become messages, reasoning and tool calls.

    Attributes:
        input_tokens, output_tokens: -1 where not told.
        duration_ns: From the span.
    """

    model: str = ""
    input_tokens: int = -1
    output_tokens: int = -1
    duration_ns: int = 0
    failed: bool = False


class Lifecycle(Event, frozen=True, kw_only=True, tag="lifecycle"):
    """A run of the agent began or ended, or a session was opened or closed."""

    phase: Literal["started", "ended"]
    failed: bool = False


AnyEvent = ToolCall | Message | Reasoning | ModelCall | Lifecycle
KIND: dict[type[Event], str] = {kind: kind.__struct_config__.tag for kind in AnyEvent.__args__}
"""Type of event → its name in files."""
