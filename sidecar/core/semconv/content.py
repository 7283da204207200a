"""Content as frameworks send it → structure: JSON in texts, Python reprs, wrappers round arguments and results.

Everything here is hostile text: bounded, and never an exception.
"""

from __future__ import annotations

import ast
from typing import Any

import msgspec

MARKERS = frozenset(("__REDACTED__", "<REDACTED>", "[REDACTED]", "REDACTED", "[REDACTED BY POLICY]", "<redacted>",
                     "[redacted]", "__redacted__"))  # fmt: skip
"""Texts that stand for content which the sender keeps to itself."""
MAX_REPR = 65_536
"""Characters of a Python repr that is read; `ast` takes about a microsecond for each ten of them."""
MAX_BITS = 1024
"""Of a number in a repr."""
MAX_NESTED = 3
"""JSON within JSON texts that is opened, layers."""

_decode = msgspec.json.Decoder().decode


def is_marker(value: Any) -> bool:
    """Whether a value stands for content that is withheld."""
    return isinstance(value, str) and len(value) <= 32 and value.strip() in MARKERS


def structured(value: Any) -> tuple[Any, bool]:
    """A content attribute as structure: JSON text of an object or a list is parsed, structure stays.

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
    except (ValueError, RecursionError):  # of bad JSON, of half a character
        # A text may begin with a bracket; JSON that an attribute limit cut has its last bracket missing.
        looks_json = value.lstrip()[1:2] in ('"', "{", "[", "]", "}")
        return value, looks_json and value.rstrip()[-1:] not in ("}", "]")


def unquoted(value: Any) -> Any:
    """A text that is itself a JSON text (``"\\"queued\\""``) without that layer; everything else as it is."""
    for _ in range(MAX_NESTED):
        if not (isinstance(value, str) and len(value) >= 2 and value[0] == '"' == value[-1]):
            break
        try:
            inner = _decode(value)
        except (ValueError, RecursionError):
            break
        if not isinstance(inner, str):
            break
        value = inner
    return value


def literal(value: Any) -> Any:
    """The dict or list that a text is the Python repr of; everything else as it is."""
    if not isinstance(value, str) or len(value) > MAX_REPR:
        return value
    told = value.strip()
    if told[:1] not in ("{", "[") or told[-1:] not in ("}", "]"):
        return value
    try:
        read = ast.literal_eval(told)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    return read if isinstance(read, (dict, list)) and _is_plain(read) else value


def _is_plain(value: Any) -> bool:
    """Whether a value is what JSON could hold; a repr may hold sets, bytes, complex numbers, and ``0x…`` as long as it
    likes, which Python refuses to write down."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if not _is_text(item):
                return False
        elif isinstance(item, dict):
            if not all(isinstance(key, str) and _is_text(key) for key in item):
                return False
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, int):
            if item.bit_length() > MAX_BITS:
                return False
        elif not (item is None or isinstance(item, float)):
            return False
    return True


def _is_text(value: str) -> bool:
    """Whether a text can be written down; a repr may hold half of a character."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def arguments_of(value: Any) -> tuple[Any, bool]:
    """Arguments of a call without the layers that frameworks put round them, and whether a limit cut them.

    An object stays an object; a text of a single argument stays a text; ``{"args": [], "kwargs": {…}}`` is its
    kwargs, ``{"input_str": "…"}`` what the text says.
    """
    value, cut = structured(value)
    if isinstance(value, str):
        value = literal(unquoted(value))
        if isinstance(value, str):
            value, cut_within = structured(value)
            cut |= cut_within
    for _ in range(MAX_NESTED):
        if not isinstance(value, dict):
            break
        inner = value.get("kwargs")
        if isinstance(inner, dict) and isinstance(value.get("args"), (list, tuple)) and _is_layer(value, "args"):
            positional = value["args"]
            value = {
                key: item for key, item in inner.items()
                if key != "sanitize_inputs_outputs" or not isinstance(item, bool)
            }  # fmt: skip
            if positional:
                if not value and len(positional) == 1 and isinstance(positional[0], dict):
                    value = positional[0]
                else:
                    value = {"args": list(positional), **value}
            break
        inner = value.get("input_str")
        if isinstance(inner, str) and len(value) > 1 and value.keys() <= _CALLBACK_KEYS:
            if isinstance(given := value.get("inputs"), dict) and given:  # the same, not as a repr
                return given, cut
            value, cut_within = structured(literal(inner))
            cut |= cut_within
            continue
        if "_raw" in value and len(value) == 1:  # OpenLLMetry's wrapper round what is no JSON object
            value = value["_raw"]
        break
    return value, cut


_CALLBACK_KEYS = frozenset(("input_str", "tags", "metadata", "kwargs", "inputs"))
_EMPTY: tuple[Any, ...] = (None, "", False, True, [], {}, ())
_BESIDE = {
    "args": ("kwargs",),
    "content": ("isError", "is_error", "type", "name", "tool_call_id", "toolCallId", "id", "status", "role"),
    "text": ("type", "id", "index"),
    "kwargs": ("lc", "type", "id"),
    "value": ("type",),
}
"""What a layer round content is called → keys beside it that tell nothing; others may only be empty or a yes or no.
With anything else in it, it is no mere layer: what stands there is read, too."""


_VALUE_TYPES = ("text", "json", "error-text", "error-json", "content")
"""Kinds of the results of the Vercel AI SDK, `{"type": …, "value": …}`."""


def result_of(value: Any) -> Any:
    """A result without the layers that frameworks put round it.

    Lists of text blocks become their text, LangChain's serialised messages and MCP's call results their content,
    ``{"result": "…"}`` (what an API that takes only objects makes of a text) the text.
    """
    value, _ = structured(value)
    if isinstance(value, str):
        return unquoted(value)
    for _ in range(MAX_NESTED):
        if isinstance(value, list):
            if value and all(
                isinstance(item, dict) and isinstance(item.get("text"), str) and _is_layer(item, "text")
                for item in value
            ):
                return "\n".join(item["text"] for item in value)
            return value
        if not isinstance(value, dict):
            break
        inner = value.get("kwargs")
        if value.get("lc") is not None and isinstance(inner, dict) and _is_layer(value, "kwargs"):
            value = inner
            if not ("content" in value and _is_layer(value, "content")):
                break
        elif "content" in value and _is_layer(value, "content"):
            value = value["content"]
        elif "value" in value and value.get("type") in _VALUE_TYPES and _is_layer(value, "value"):
            value = value["value"]
        elif len(value) == 1 and isinstance(inner := value.get("result", value.get("output")), str):
            value = inner
        else:
            break
        if isinstance(value, str):
            return unquoted(value)
    return value


def _is_layer(value: dict[str, Any], name: str) -> bool:
    """Whether a value is nothing but a layer round `value[name]`."""
    beside = _BESIDE[name]
    return all(key == name or key in beside or item in _EMPTY for key, item in value.items())
