"""RE2, the regular expressions that may see agents' text: linear time, bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sidecar.errors import ConfigError

try:
    import re2
except ImportError as error:  # pragma: no cover - the server extra always brings it
    raise ConfigError("google-re2 is not installed; install agent-sidecar[server]") from error

# What one expression may hold in compiled form and in its cache of states. A set of many needs more: its states are
# combinations of theirs, and with too few it forgets and rebuilds them on dense text (measured: 8 MiB are 2 to 10
# times slower there than 64).
ONE_MAX_MEM: Final = 4 << 20
SET_MAX_MEM: Final = 64 << 20

RegexError: Any = re2.error


def options(max_mem: int) -> Any:
    made = re2.Options()
    made.max_mem = max_mem
    made.log_errors = False
    made.never_capture = True  # groups would cost RE2 its automaton; only whole matches are asked for
    return made


def compiled(regex: str, *, max_mem: int = ONE_MAX_MEM) -> Any:
    """A compiled expression; on `str` its offsets are characters, on `bytes` they are bytes.

    Raises:
        RegexError: RE2 refuses it.
    """
    return re2.compile(regex, options(max_mem))


def compiled_bytes(regex: str, *, max_mem: int = ONE_MAX_MEM) -> Any:
    """The same for UTF-8 bytes: faster, since nothing is encoded and no offset is turned into characters."""
    return re2.compile(regex.encode(), options(max_mem))


def compiled_set(regexes: list[str], *, max_mem: int = SET_MAX_MEM) -> Any:
    """A set; `Match(bytes)` is the list of those that match anywhere, in any order, and None where none does."""
    return _set(regexes, options(max_mem))


def latin1(regex: str) -> Any:
    """A compiled expression over raw bytes, each a character of its own."""
    return re2.compile(regex.encode("latin-1"), _latin1(ONE_MAX_MEM))


def latin1_set(regexes: list[str]) -> Any:
    """A set of such expressions; whether any matches it tells faster than one expression finds its place."""
    return _set([regex.encode("latin-1") for regex in regexes], _latin1(SET_MAX_MEM))


def _set(regexes: Iterable[str | bytes], how: Any) -> Any:
    made = re2.Set.SearchSet(how)
    for regex in regexes:
        made.Add(regex)
    made.Compile()
    return made


def _latin1(max_mem: int) -> Any:
    made = options(max_mem)
    made.encoding = re2.Options.Encoding.LATIN1
    return made
