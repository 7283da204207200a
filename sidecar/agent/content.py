"""Arguments, results and messages as the JSON that the sidecar reads: what is shown is what is executed."""

from __future__ import annotations

import base64
import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

MAX_ATTRIBUTE_CHARS = 2**20
"""A longer result or message is cut on its span, and the span says so in `sidecar.cut`."""

MAX_DEPTH, MAX_NODES, MAX_INTEGER_BITS = 64, 200_000, 8192

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", tuple: "array",
               set: "array", frozenset: "array", dict: "object", type(None): "null"}  # fmt: skip


def canonical(value: Any) -> str:
    """`value` as JSON with sorted keys, no spaces, and nothing that JSON does not know.

    What JSON cannot say is told as well as it can be: bytes as their text (else ``base64:…``), dates, paths and the
    like as text, dataclasses and pydantic models as objects, NaN and infinities as text, anything else as
    ``<module.Class>``, which shows nothing of it.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(_Plain()(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, which protobuf refuses and JSON may escape
            text = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    return text


def told(value: Any) -> str:
    """`value` for a span attribute: a text as it is, all else as JSON."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    return canonical(value)


class _Plain:
    """Turns one value into what JSON knows; deep, circular and huge values end in a note, so the work is bounded."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def __call__(self, value: Any, depth: int = MAX_DEPTH) -> Any:
        self._left -= 1
        if depth <= 0 or self._left <= 0:
            return "<too deep or too large>"
        if isinstance(value, Enum):
            return self(value.value, depth - 1)
        if value is None or isinstance(value, str | bool):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= MAX_INTEGER_BITS else f"<integer of {value.bit_length()} bits>"
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return _bytes(bytes(value))
        if isinstance(value, Mapping):
            return {self._key(k, depth): self(v, depth - 1) for k, v in value.items()}
        if isinstance(value, set | frozenset):
            return sorted((self(item, depth - 1) for item in value), key=canonical)
        if isinstance(value, list | tuple):
            return [self(item, depth - 1) for item in value]
        return self._object(value, depth)

    def _key(self, key: Any, depth: int) -> str:
        """A key as text, as `json` writes one."""
        plain = self(key, depth - 1)
        return plain if isinstance(plain, str) else json.dumps(plain)

    def _object(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind.__module__ in ("datetime", "pathlib", "decimal", "uuid", "ipaddress", "fractions"):
            return str(value)
        if not isinstance(value, type):
            if dataclasses.is_dataclass(value):
                return {f.name: self(getattr(value, f.name), depth - 1) for f in dataclasses.fields(value)}
            if callable(dump := getattr(value, "model_dump", None)):
                return self(dump(), depth - 1)
        return f"<{kind.__module__}.{kind.__qualname__}>"


def _bytes(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()


# ---------------------------------------------------------------- functions as tools


def binder(function: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """How a call of `function` becomes its arguments by name, defaults included, as they will be executed.

    ``**kwargs`` are merged in; ``*args`` stay a list under their name; a leading ``self`` or ``cls`` is left out.
    """
    signature = inspect.signature(function)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    receiver = next((name for name in kinds if name in ("self", "cls")), None)
    receiver = receiver if receiver == next(iter(kinds), None) else None

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name == receiver:
                continue
            if kinds[name] is inspect.Parameter.VAR_KEYWORD:
                named |= {key if key not in named else f"**{key}": item for key, item in value.items()}
            elif kinds[name] is not inspect.Parameter.VAR_POSITIONAL or value:
                named[name] = value
        return named

    return bind


def schema_of(function: Callable[..., Any]) -> str:
    """A plain JSON Schema of `function`'s arguments, from its signature."""
    try:
        hints = get_type_hints(function)
    except Exception:  # an annotation that names what is not there; the schema is then only poorer
        hints = {}
    properties: dict[str, Any] = {}
    required = []
    kinds = inspect.Parameter
    for position, (name, parameter) in enumerate(inspect.signature(function).parameters.items()):
        if parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD) or (position == 0 and name in ("self", "cls")):
            continue
        hint = hints.get(name)
        kind = _JSON_TYPES.get(get_origin(hint) or hint)  # type: ignore[arg-type]
        if kind is None and type(None) in get_args(hint):
            kind = next(
                (_JSON_TYPES[arg] for arg in get_args(hint) if arg in _JSON_TYPES and arg is not type(None)), None
            )
        properties[name] = {"type": kind} if kind else {}
        if parameter.default is kinds.empty:
            required.append(name)
    return canonical({"type": "object", "properties": properties, "required": required})


# ---------------------------------------------------------------- messages


def messages(given: str | Mapping[str, Any] | Iterable[Any], role: str = "user") -> list[dict[str, Any]]:
    """Messages in the form of the GenAI conventions: ``[{"role", "parts": [{"type", ...}]}]``.

    Takes a text, one message, or many; each a text, ``{"role", "content"}`` as chat APIs have it (with ``tool_calls``,
    ``tool_call_id``, ``reasoning_content``), or the conventions' own form, which is left as it is.
    """
    if isinstance(given, str | Mapping):
        given = [given]
    return [_message(item, role) for item in given]


def _message(item: Any, role: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        return {
            "role": role,
            "parts": [{"type": "text", "content": item if isinstance(item, str) else canonical(item)}],
        }
    if "parts" in item:
        return dict(item)
    role = item.get("role") or role
    parts: list[dict[str, Any]] = []
    if isinstance(thought := item.get("reasoning_content"), str):
        parts.append({"type": "reasoning", "content": thought})
    content = item.get("content")
    if call_id := item.get("tool_call_id"):
        parts.append({"type": "tool_call_response", "id": call_id, "response": content})
    elif isinstance(content, str):
        parts.append({"type": "text", "content": content})
    else:
        parts.extend(_part(part) for part in content or ())
    for call in item.get("tool_calls") or ():
        function = call.get("function", call)
        parts.append(
            {
                "type": "tool_call",
                "id": call.get("id"),
                "name": function.get("name"),
                "arguments": function.get("arguments"),
            }
        )
    return {"role": role, "parts": parts}


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, Mapping):
        return {"type": "text", "content": part["text"]} if isinstance(part.get("text"), str) else dict(part)
    return {"type": "text", "content": part if isinstance(part, str) else canonical(part)}
