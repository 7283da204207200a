"""What one span or log record says, in one vocabulary, before it is woven into a session's events."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

MAX_PARTS = 4096
"""Parts read from one list of messages; more are a history no model takes."""


class Part(Struct, frozen=True):
    """A piece of a message.

    Attributes:
        type: What it is; ``opaque`` is content nobody here can read (an image, a file reference).
        text: The words of ``text`` and ``reasoning``.
        id: Call id of ``call`` and ``response``.
        name: Tool of a ``call``.
        value: Arguments of a ``call`` (dict or text), content of a ``response``; None where withheld.
        cut: Whether a limit cut the arguments.
    """

    type: Literal["text", "reasoning", "call", "response", "opaque"]
    text: str = ""
    id: str = ""
    name: str = ""
    value: Any = None
    cut: bool = False


class Turn(Struct, frozen=True):
    """One message of a model's input or output; `role` is ``system``, ``user``, ``assistant``, ``tool`` or as told."""

    role: str
    parts: tuple[Part, ...]


class Facts(Struct, kw_only=True):
    """What one span or log record says.

    A content field is None when the span does not tell it; whether that means withheld or absent is the mapper's
    knowledge of its convention and stands in `withheld`.

    Attributes:
        kind: ``tool``, ``model`` (a call of a language model), ``agent`` (a run of the whole agent), or ``context``
            (no act and no text of its own: a step of a workflow, a request, a span that only says whose it is).
        piece: One message of a model call that other records of the same span id tell the rest of (log events); its
            one turn stands in `inputs` or `outputs`, and pieces are joined in the order of time.
        session: The session id the span names, "" where none.
        withheld: Content fields (``arguments``, ``result``, ``inputs``, ``outputs``) that the sender has and does not
            tell: the convention has a name for them and the span does not bear it, or bears a redaction marker.
        cut: Content fields whose end is missing.
        opaque: Whether some content cannot be read: an image, a reference, a blob.
        unscored: Reasons from `events.UNSCORED` that follow from the above; `semconv.read` works them out.
        tools: Names of the tools the model was offered; None where not told.
        walked: What `core.history.walk` has worked out of `inputs`, once.
        finish: Finish reasons, lower-case.
    """

    kind: Literal["tool", "model", "agent", "context"]
    piece: bool = False
    session: str = ""
    parent_session: str = ""
    agent_name: str = ""
    agent_id: str = ""
    agent_version: str = ""
    user: str = ""
    tool: str = ""
    description: str = ""
    call_id: str = ""
    arguments: Any = None
    result: Any = None
    failed: bool = False
    gated: bool = False
    inputs: tuple[Turn, ...] | None = None
    outputs: tuple[Turn, ...] | None = None
    system: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    model: str = ""
    finish: tuple[str, ...] = ()
    input_tokens: int = -1
    output_tokens: int = -1
    withheld: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    opaque: bool = False
    unscored: tuple[str, ...] = ()
    walked: Any = None


def plain_text(value: Any) -> str:
    """Content of any shape as text: a text itself, else its JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return repr(value)
