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
        value: Arguments of a ``call`` (dict or text), content of a ``response``.
    """

    type: Literal["text", "reasoning", "call", "response", "opaque"]
    text: str = ""
    id: str = ""
    name: str = ""
    value: Any = None
    cut: bool = False


class Turn(Struct, frozen=True):
    """One message of a model's input or output."""

    role: str
    parts: tuple[Part, ...]


class Facts(Struct, kw_only=True):
    """What one span or log record says.

    A content field is None when the span does not tell it; whether that means withheld or absent is the mapper's
    knowledge of its convention and stands in `withheld`.

    Attributes:
        kind: ``tool``, ``model`` (a call of a language model) or ``agent`` (a run of the whole agent).
        session: The session id the span names, "" where none.
        unscored: Reasons from `events.UNSCORED` that this span itself gives.
        tools: Names of the tools the model was offered; None where not told.
        finish: Finish reasons, lower-case.
    """

    kind: Literal["tool", "model", "agent"]
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
    unscored: tuple[str, ...] = ()


_decode = msgspec.json.Decoder().decode


def structured(value: Any) -> tuple[Any, bool]:
    """A content attribute as structure: JSON text is parsed, structure stays.

    Returns:
        The value, and whether it is JSON that ends too early (an attribute length limit cut it).
    """
    if not isinstance(value, str):
        return value, False
    head = value[:64].lstrip()[:1]
    if head not in ("{", "["):
        return value, False
    try:
        return _decode(value), False
    except (msgspec.DecodeError, RecursionError):
        # A text may begin with a bracket; JSON that an attribute limit cut has its last bracket missing.
        looks_json = value.lstrip()[1:2] in ('"', "{", "[", "]", "}")
        return value, looks_json and value.rstrip()[-1:] not in ("}", "]")


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
