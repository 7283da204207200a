"""The text of a log record → its fields: JSON, a Python repr, ``key=value``, ReAct's lines, an object in a sentence."""

from __future__ import annotations

from typing import Any

from sidecar.core.semconv.content import literal, structured

MAX_TEXT = 65_536
"""Characters of a log's text that is searched for ``key=value`` and for a call in words; of JSON 16 times as many."""
MAX_PAIRS = 256
REACT = ("Thought:", "Action:")


def fields_of(body: str) -> Any:
    """A log's text as the fields that it holds: JSON, a Python repr, ``key=value``, a call in words."""
    if len(body) > MAX_TEXT * 16:
        return body
    head = body[:64].lstrip()[:1]
    if head in ("{", "["):
        return opened(body)
    if len(body) > MAX_TEXT:
        return body
    if body.startswith(REACT) and "Action Input:" in body:
        return _react(body)
    return _pairs(body) if "=" in body else body


def opened(value: Any) -> Any:
    """What a text is the JSON or the Python repr of; everything else as it is."""
    read, _ = structured(value)
    return literal(read) if isinstance(read, str) else read


def _react(body: str) -> dict[str, Any]:
    """``Thought: … Action: … Action Input: … Observation: …`` as fields."""
    before, _, after = body.partition("Action Input:")
    thought, _, action = before.partition("Action:")
    told, _, observation = after.partition("\nObservation:")
    fields = {"action": action.strip(), "action_input": told.strip()}
    if thought:
        fields["thought"] = thought.removeprefix("Thought:").strip()
    return fields | ({"observation": observation.strip()} if observation else {})


def _pairs(text: str) -> dict[str, Any]:
    """The pairs of ``tool_call tool=send args={"to": "a b"} note="x y"``; the words between them under ``message``."""
    fields: dict[str, Any] = {}
    loose: list[str] = []
    at, equals = 0, text.find("=")
    while at < len(text) and len(fields) < MAX_PAIRS:
        space = text.find(" ", at)
        if 0 <= equals < at:
            equals = text.find("=", at)
        if equals < 0:
            loose.append(text[at:])
            break
        if 0 <= space < equals:
            loose.append(text[at:space])
            at = space + 1
            continue
        key = text[at:equals].strip(" ,;")
        value, at = _value(text, equals + 1)
        if key and len(key) <= 64:
            fields[key] = value
    if words := " ".join(word for word in loose if word).strip():
        fields.setdefault("message", words.rsplit(" - ", 1)[-1])
    return fields


def _value(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at `at`, quoted, bracketed or one word, and where it ends."""
    opening = text[at : at + 1]
    if opening in ("'", '"'):
        end = at + 1
        while (end := text.find(opening, end)) >= 0 and text[end - 1] == "\\":
            end += 1
        if end > 0:
            return text[at + 1 : end].replace("\\" + opening, opening), end + 1
    elif opening in ("{", "["):
        end = _closed(text, at)
        read, _ = structured(text[at:end])
        return (literal(read) if isinstance(read, str) else read), end
    end = text.find(" ", at)
    end = len(text) if end < 0 else end
    return text[at:end].strip(",;"), end + 1


def _closed(text: str, at: int) -> int:
    """Where the object or list that begins at `at` ends; quotes are kept together."""
    depth, quote = 0, ""
    for end in range(at, len(text)):
        letter = text[end]
        if quote:
            if letter == quote and text[end - 1] != "\\":
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in "{[":
            depth += 1
        elif letter in "}]":
            depth -= 1
            if depth == 0:
                return end + 1
    return len(text)


def object_in(text: str) -> Any:
    """The object in a sentence: ``Calling tool send with {"to": …}``; None where it holds none."""
    at = text.find("{", 0, MAX_TEXT)
    if at < 0:
        return None
    read = opened(text[at : _closed(text[:MAX_TEXT], at)])
    return read if isinstance(read, dict) else None
