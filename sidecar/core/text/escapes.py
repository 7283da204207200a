"""Characters written as escapes: percent, HTML, backslash, quoted-printable."""

from __future__ import annotations

import binascii
import html.entities
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from sidecar.core.text import regex

_MARGIN: Final = 64  # characters around the escapes that belong to their view

_ESCAPED: Final = regex.compiled(
    r"\\(?:u\{[0-9A-Fa-f]{1,6}\}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|[0-3][0-7]{2})"
)
_ENTITY: Final = regex.compiled(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30};)")
_PERCENT: Final = regex.compiled(r"%[0-9A-Fa-f]{2}")
_QUOTED: Final = regex.compiled(
    r"(?:=[0-9A-F]{2}){2}|[a-z]=[2-7][0-9A-F][a-z][^=\n]{0,40}[a-z]=[2-7][0-9A-F][a-z]|[^= ]=\r?\n[^ \r\n]"
)


class Unescaped(Struct, frozen=True):
    """The part of a text that holds escapes, with all of them resolved, and where it was."""

    text: str
    how: tuple[str, ...]
    start: int
    end: int


def may_hold(text: str) -> bool:
    """Whether `text`, or a text that it is a part of, may hold escapes."""
    return any(sign in text and found.search(text) is not None for _, sign, found, _ in _ESCAPES)


def unescaped(text: str) -> Unescaped | None:
    """All escapes of `text` resolved in one reading, None where there are none."""
    start, end, how = len(text), 0, []
    for name, sign, found, _ in _ESCAPES:
        if sign in text and (first := found.search(text)) is not None:
            how.append(name)
            start, end = min(start, first.start()), max(end, text.rfind(sign) + 1)
    if not how:
        return None
    before = text[max(start - _MARGIN, 0) : end + _MARGIN]
    after = before
    for name, _, _, resolve in _ESCAPES:
        if name in how:
            after = resolve(after)
    return Unescaped(after, tuple(how), start, min(end + 11, len(text))) if after != before else None


def _resolve_percent(text: str) -> str:
    plus = text.replace("+", " ") if "%20" not in text else text
    return unquote_to_bytes(plus).decode(errors="replace")


def _resolve_entities(text: str) -> str:
    first, *rest = text.split("&")
    out = [first]
    for part in rest:
        char, used = _entity(part)
        out.append(char + part[used:])
    return "".join(out)


def _entity(part: str) -> tuple[str, int]:
    """The character that the text behind an ampersand stands for, and how much of it says so."""
    end = part.find(";", 0, 33)
    if part.startswith("#"):
        base, digits = (16, part[2:9]) if part[1:2] in ("x", "X") else (10, part[1:9])
        allowed = "0123456789abcdefABCDEF" if base == 16 else "0123456789"
        size = len(digits) - len(digits.lstrip(allowed))
        code = int(digits[:size], base) if size else 0
        used = size + (2 if base == 16 else 1)
        if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000:
            return chr(code), used + (part[used : used + 1] == ";")
    elif end > 0 and (char := html.entities.html5.get(part[: end + 1])):
        return char, end + 1
    return "&", 0


def _resolve_backslashes(text: str) -> str:
    first, *rest = text.split("\\")
    out, skip = [first], False
    for part in rest:
        char, used = ("\\", 0) if skip else _escape(part)
        skip = not skip and not part  # two backslashes are one, and escape nothing
        out.append(char + part[used:])
    text = "".join(out)
    # Escapes may have spelled a character as two surrogates.
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _escape(part: str) -> tuple[str, int]:
    sizes = {"u": 4, "U": 8, "x": 2}
    head = part[:1]
    if head == "u" and part[1:2] == "{" and (end := part.find("}", 0, 9)) > 2:
        digits, used = part[2:end], end + 1
    elif head in sizes:
        used = sizes[head] + 1
        digits = part[1:used].ljust(sizes[head], "?")
    elif len(part) >= 3 and head in "0123" and not part[:3].strip("01234567"):
        return chr(int(part[:3], 8)), 3
    else:
        return "\\", 0
    if digits.strip("0123456789abcdefABCDEF"):
        return "\\", 0
    code = int(digits, 16)
    return (chr(code), used) if code < 0x110000 else ("\\", 0)


def _resolve_quoted(text: str) -> str:
    return binascii.a2b_qp(text.encode(errors="replace")).decode(errors="replace")


_ESCAPES: Final = (
    ("quoted-printable", "=", _QUOTED, _resolve_quoted),
    ("html", "&", _ENTITY, _resolve_entities),
    ("escape", "\\", _ESCAPED, _resolve_backslashes),
    ("percent", "%", _PERCENT, _resolve_percent),
)
