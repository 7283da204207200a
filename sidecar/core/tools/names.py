"""Names of tools as frameworks, servers and attackers write them: undecorated, and in plain letters."""

from __future__ import annotations

import functools
from typing import Final

from sidecar.core.text.normalise import bare, clean
from sidecar.core.tools.words import VERBS, parted, split

MAX_NAME: Final = 256
"""Characters of a tool's name; a longer one is cut, and odd."""

_PREFIXES: Final = (
    "execute_tool ", "tools/call ", "call_tool ", "tool_call ", "run_tool ", "invoke_tool ", "running tool: ",
    "running tool ", "function call ", "function ", "tool: ", "tool ",
)  # fmt: skip
_SUFFIXES: Final = (
    ".tool", ".run", ".arun", ".invoke", ".ainvoke", ".execute", ".call", ".acall", ".task", ".workflow", ".step",
)  # fmt: skip
_INVISIBLE: Final = "\u200b\u200c\u200d\u2060\ufeff\u00ad\0"


def bare_name(tool: str) -> str:
    """A tool's name without what frameworks put around it: `mcp__office__send_email` is `send_email`.

    At most `MAX_NAME` characters; "" only for a blank name. Letters stay as told.
    """
    name = _trimmed(tool[: 2 * MAX_NAME])[:MAX_NAME]
    for _ in range(4):
        shorter = _trimmed(_undecorated(name))
        if not shorter or shorter == name:
            break
        name = shorter
    return name


def is_odd(tool: str) -> bool:
    """Whether a name is not plain ASCII, has blanks at its ends or control characters, or is too long."""
    return not tool.isascii() or not tool.isprintable() or tool != tool.strip() or len(tool) > MAX_NAME


@functools.lru_cache(maxsize=4096)
def latin(text: str) -> str:
    """A short text in plain letters: look-alikes and accents folded, what cannot be seen left out; case kept."""
    return text if text.isascii() else bare(clean(text).text)


def words_of(name: str) -> list[str]:
    """The words of a name as `core.tools.words` lists them."""
    return [part for word in split(latin(name)) for part in parted(word)]


def _trimmed(name: str) -> str:
    return name.strip().strip(_INVISIBLE).strip()


def _undecorated(name: str) -> str:
    low = name.lower()
    for prefix in _PREFIXES:
        if low.startswith(prefix):
            return name[len(prefix) :]
    if low.startswith("mcp__"):
        return name.split("__", 2)[-1]
    for suffix in _SUFFIXES:
        if low.endswith(suffix):
            return name[: -len(suffix)]
    for sign in ("/", "::", ":", "."):
        before, found, after = name.rpartition(sign)
        if found:
            return before if not after.strip() or _is_version(after) else after
    plugin, hyphen, function = name.partition("-")
    is_plugin = hyphen and plugin.isalnum() and plugin.lower() not in VERBS
    if is_plugin and "-" not in function and ("_" in function or len(split(function)) > 1):
        return function
    return name


def _is_version(text: str) -> bool:
    return text.lstrip("vV").translate({ord(sign): None for sign in "._-"}).isdigit()
