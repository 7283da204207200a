"""Names for texts, acts and events that stay the same whoever tells of them, and dictionaries that forget."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_encode = msgspec.json.Encoder(order="deterministic").encode


def text_digest(text: str) -> bytes:
    """16 bytes that stand for a text, blank space at its ends aside."""
    return blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()


def act_digest(tool: str, arguments: Any) -> bytes:
    """16 bytes that stand for a tool call, whatever the order of its arguments."""
    return blake2b(
        bare(tool).encode("utf-8", "surrogatepass") + b"\0" + arguments_digest(arguments), digest_size=16
    ).digest()


def arguments_digest(arguments: Any) -> bytes:
    """16 bytes that stand for a call's arguments, whatever their order; b"" for None, which is not known."""
    if arguments is None:
        return b""
    try:
        body = arguments.encode("utf-8", "surrogatepass") if isinstance(arguments, str) else _encode(arguments)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        body = repr(arguments).encode("utf-8", "backslashreplace")
    return blake2b(body, digest_size=16).digest()


def bare(tool: str) -> str:
    """A tool's name without what frameworks put in front: the last of its dotted or double-underscored parts."""
    return tool.rsplit("__", 1)[-1].rsplit(".", 1)[-1].strip().lower()


def is_same_tool(one: str, other: str) -> bool:
    """Whether two names are one tool's, of which one may bear a plugin's or a server's name in front."""
    one, other = bare(one), bare(other)
    if one == other:
        return True
    if len(one) < len(other):
        one, other = other, one
    return len(other) > 2 and one.endswith(other) and one[-len(other) - 1] in "-/:"


def event_id(*parts: str) -> str:
    """32 hexadecimal digits that name an event for good."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def remember(memory: dict[Any, Any], key: Any, value: Any, limit: int) -> None:
    """Sets `memory[key]`, as the newest; the oldest entry goes when there are more than `limit`."""
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > limit:
        del memory[next(iter(memory))]


class Known:
    """Gives what is equal as one object: a name that all sessions have is kept once. Memory: `limit` values."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._values: dict[Any, Any] = {}

    def __call__(self, value: T) -> T:
        values = self._values
        if len(values) >= self._limit:
            values.clear()
        same: T = values.setdefault(value, value)
        return same
