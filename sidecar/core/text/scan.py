"""Pattern sets: which of many patterns match a text, with the same answer from RE2 and from Hyperscan.

RE2 is there at once and names the places. Hyperscan, compiled apart, then takes over "which patterns": it does not slow
down on dense text. Both run on UTF-8 with ASCII meanings of `\\w`, `\\d` and `\\b`; patterns in which the two engines
differ are refused when they are loaded (`check`).
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from msgspec import Struct

from sidecar.core.text import normalise, regex
from sidecar.errors import ConfigError

try:
    import hyperscan
except ImportError:  # pragma: no cover - no wheel for this processor; RE2 goes on judging
    hyperscan = None  # type: ignore[assignment]

REGEX_MAX_BYTES: Final = 4096
PROGRAM_MAX: Final = 2000  # RE2 instructions; beyond, one pattern costs Hyperscan 0.1 s and more to compile
SPANS_MAX: Final = 256


class Pattern(Struct, frozen=True):
    """A named regular expression.

    Attributes:
        languages: Languages whose words it knows, as ISO 639-1; empty for any.
        tags: Free words for whoever selects patterns.
    """

    name: str
    regex: str
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class Engine(Protocol):
    """Tells which patterns match. `of` says which patterns it was made from."""

    name: str
    of: tuple[str, ...]

    def scan(self, data: bytes) -> list[int]:
        """Numbers of the patterns that match the UTF-8 text, ascending."""


class PatternSet:
    """Patterns that are matched together.

    Used by one thread at a time; `clone` gives another thread its own. Memory: RE2's cache of states, at most 64 MiB,
    and 4 MiB for each pattern whose places were asked for.

    Args:
        patterns: They are checked first.
        engine: ``re2`` or ``hyperscan``.
        folded: They will be matched on folded text, so that what no folded text can hold is refused.
    Raises:
        ConfigError: A pattern is refused, or the engine is not installed.
    """

    def __init__(self, patterns: Iterable[Pattern], *, engine: str = "re2", folded: bool = True) -> None:
        self.patterns = tuple(sorted(patterns, key=lambda pattern: pattern.name))
        check(self.patterns, folded=folded)
        self._names = tuple(pattern.name for pattern in self.patterns)
        self._of = tuple(pattern.regex for pattern in self.patterns)
        self._places: dict[str, Any] = {}
        self._engine: Engine
        if engine == "re2":
            self._engine = Re2Engine(self._of)
        elif engine == "hyperscan":
            self._engine = self.compile_hyperscan()
        else:
            raise ConfigError(f"no pattern engine {engine!r}: it is re2 or hyperscan")

    @property
    def engine(self) -> str:
        return self._engine.name

    def match(self, text: str) -> tuple[str, ...]:
        """Names of the patterns that match anywhere in `text`, sorted. A lone surrogate counts as U+FFFD."""
        hits = self._engine.scan(_encoded(text))
        return tuple([self._names[hit] for hit in hits])

    def find(self, name: str, text: str, *, limit: int = SPANS_MAX) -> list[tuple[int, int]]:
        """Where the pattern `name` matches: the first `limit` places, as character offsets, leftmost first."""
        found = self._places.get(name)
        if found is None:
            found = self._places[name] = regex.compiled(self._of[self._names.index(name)])
        spans = []
        for match in found.finditer(normalise.well_formed(text)):
            spans.append(match.span())
            if len(spans) >= limit:
                break
        return spans

    def compile_hyperscan(self) -> Engine:
        """A Hyperscan engine of these patterns. Takes milliseconds a pattern and may be called from another thread.

        Raises:
            ConfigError: Hyperscan is not installed, or refuses a pattern that RE2 takes; the pattern is named.
        """
        return HyperscanEngine(self._of, self._names)

    def use(self, engine: Engine) -> None:
        """Lets `engine` judge from now on."""
        if engine.of != self._of:
            raise ValueError("that engine was made from other patterns")
        self._engine = engine

    def clone(self) -> PatternSet:
        """The same set for another thread."""
        twin = object.__new__(PatternSet)
        twin.patterns, twin._names, twin._of, twin._places = self.patterns, self._names, self._of, {}
        twin._engine = self._engine.clone() if isinstance(self._engine, HyperscanEngine) else Re2Engine(self._of)
        return twin


class Re2Engine:
    """RE2's set matching: linear time, but 2 to 20 times slower on dense text than on prose."""

    name = "re2"

    def __init__(self, of: tuple[str, ...]) -> None:
        self.of = of
        self._set = regex.compiled_set(list(of)) if of else None

    def scan(self, data: bytes) -> list[int]:
        if self._set is None:
            return []
        return sorted(self._set.Match(data) or ())


class HyperscanEngine:
    """Hyperscan in block mode, without start of match: about the same time for any text of one size."""

    name = "hyperscan"

    def __init__(self, of: tuple[str, ...], names: Sequence[str]) -> None:
        if hyperscan is None:
            raise ConfigError("hyperscan is not installed, or has no build for this processor; use re2")
        self.of = of
        self._database = _database(of, names) if of else None
        self._scratch = self._database.scratch if self._database is not None else None

    def scan(self, data: bytes) -> list[int]:
        if self._database is None or not data:  # no pattern matches the empty text, and Hyperscan is not asked
            return []
        hits: list[int] = []
        self._database.scan(data, match_event_handler=lambda hit, *_: hits.append(hit), scratch=self._scratch)
        return sorted(hits)

    def clone(self) -> HyperscanEngine:
        twin = object.__new__(HyperscanEngine)
        twin.of, twin._database = self.of, self._database
        twin._scratch = self._scratch.clone() if self._scratch is not None else None
        return twin


def _database(of: tuple[str, ...], names: Sequence[str]) -> Any:
    flags = hyperscan.HS_FLAG_UTF8 | hyperscan.HS_FLAG_SINGLEMATCH
    try:
        made = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        made.compile(expressions=[one.encode() for one in of], ids=list(range(len(of))), flags=[flags] * len(of))
    except hyperscan.error as error:
        if len(of) > 1:  # find the one to name
            for one, name in zip(of, names, strict=True):
                _database((one,), (name,))
        raise ConfigError(f"Hyperscan refuses it: {error}", key=names[0] if len(of) == 1 else "") from error
    return made


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return normalise.well_formed(text).encode()


def is_anchored(regex: str) -> bool:
    """Whether a match may depend on where the text begins or ends, so that a text tells nothing of its parts."""
    return "^" in regex.replace("[^", "") or "\\A" in regex or "\\z" in regex


def check(patterns: Iterable[Pattern], *, folded: bool = True) -> None:
    """Refuses patterns that an engine cannot take, that the engines read differently, or that match every text.

    Raises:
        ConfigError: `key` is the pattern's name.
    """
    seen: set[str] = set()
    for pattern in patterns:
        reason = "two patterns have this name" if pattern.name in seen else _objection(pattern.regex, folded)
        if reason:
            raise ConfigError(reason, key=pattern.name)
        seen.add(pattern.name)


_NEARLY_ALL = (("a", "7", " ", ".", "é"), tuple("etaoin"))
"""A pattern that matches each of these alone matches nearly every text: of any kind, or of English."""


def _objection(text: str, folded: bool) -> str:
    """Why a regular expression is refused, "" if it is not."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it holds half a surrogate pair, which no text can match"
    if size > REGEX_MAX_BYTES:
        return f"it is {size} bytes long, more than {REGEX_MAX_BYTES}"
    try:
        _Reader(text, folded).read()
        made = regex.compiled_bytes(text)
    except _RefusedError as refused:
        return str(refused)
    except regex.RegexError as error:
        told = error.args[0] if error.args else error
        return f"RE2 refuses it: {told.decode(errors='replace') if isinstance(told, bytes) else told}"
    if made.search(b"") is not None:
        return "it matches the empty text, and so every text"
    if any((match := made.search(probe)) is not None and match.start() == match.end() for probe in (b".", b"b", b"7")):
        return "it matches a place without a character, and so nearly every text"
    if any(all(made.search(probe.encode()) for probe in probes) for probes in _NEARLY_ALL):
        return "it matches nearly every text"
    if made.programsize > PROGRAM_MAX:
        return (
            f"it compiles to {made.programsize} steps, more than {PROGRAM_MAX}; repeat less often, "
            "or a narrower class: [a-z ]{0,80} is a quarter of .{0,80}"
        )
    return ""


class _RefusedError(Exception):
    """Why a construct is refused."""


_ADVICE: Final = {
    "s": r"write [ \t\r\n]: the engines differ on the vertical tab",
    "S": r"write [^ \t\r\n]: the engines differ on the vertical tab",
    "v": r"write \x0b: the engines differ on it",
    "Z": r"write \z",
    "p": "name the letters: the engines know different versions of Unicode",
    "P": "name the letters: the engines know different versions of Unicode",
    "C": "it would split a character",
    "Q": "write the text with its special characters escaped",
    "E": "write the text with its special characters escaped",
}


class _Group:
    """An open group: what came before it, and what was found in it so far."""

    def __init__(self, consumed: bool, ended: bool) -> None:
        self.consumed, self.ended = consumed, ended
        self.anchored = self.ends = False


class _Reader:
    """Reads a regular expression in the part of the syntax that RE2 and Hyperscan read alike.

    Hyperscan follows PCRE: `$` also matches before a last line feed, `\\s` and `\\v` mean more than RE2's, and it knows
    an older Unicode, which shows in `\\p` and in case folding beyond ASCII. It takes `^` only where a match may begin.
    """

    def __init__(self, text: str, folded: bool) -> None:
        self.text, self.at = text, 0
        self.folded, self.caseless, self.foreign = folded, False, False
        self.last = ""  # what came last: "", "atom", "repeat", "anchor", "word edge"
        self.last_foreign = False  # it was a literal or a class that is not ASCII
        self.last_anchored = False  # it was a group with ^ or \z
        self.consumed = self.ended = False  # on this branch: a character before here; the end of the text before here
        self.groups = [_Group(False, False)]

    def read(self) -> None:
        if self.text.startswith(("(?i)", "(?s)", "(?is)", "(?si)")):
            flags = self.text[2 : self.text.index(")")]
            self.at, self.caseless = len(flags) + 3, "i" in flags
        while self.at < len(self.text):
            self._token()
        if len(self.groups) > 1:
            raise _RefusedError("a group is not closed by )")
        if self.caseless and self.foreign:
            raise _RefusedError("(?i) with letters beyond ASCII: the engines know different versions of Unicode")

    def _token(self) -> None:
        char = self.text[self.at]
        if char == "\\":
            self._escape()
        elif char == "[":
            self._class()
        elif char in "*+?{":
            self._repeat()
        elif char == "(":
            self._open()
        elif char == ")":
            self._close()
        elif char == "|":
            self.at += 1
            self.consumed, self.ended, self.last = self.groups[-1].consumed, self.groups[-1].ended, ""
        elif char == "^":
            self._start()
            self.at += 1
        elif char == "$":
            raise _RefusedError(r"write \z instead of $: the engines differ before a last line feed")
        else:
            self.at += 1
            self._atom(char)

    def _atom(self, *chars: str) -> None:
        """A character or a class; `chars` are those that it names."""
        if self.ended:
            raise _RefusedError(r"nothing can follow \z")
        foreign = any(ord(char) > 127 for char in chars)
        if foreign and self.last == "word edge":
            raise _RefusedError(r"\b knows only ASCII letters and digits; leave it out beside other letters")
        for char in chars:
            if self.folded and not self.caseless and not normalise.is_settled(char):
                told = normalise.fold(char).text
                raise _RefusedError(f"no folded text holds {char!r}" + (f"; write {told!r}" if told else ""))
        self.foreign |= foreign
        self.last, self.last_foreign, self.last_anchored, self.consumed = "atom", foreign, False, True

    def _start(self) -> None:
        if self.consumed:
            raise _RefusedError("^ can stand only where a match may begin")
        self.last, self.groups[-1].anchored = "anchor", True

    def _escape(self) -> None:
        char = self.text[self.at + 1 : self.at + 2]
        if char in ("w", "W", "d", "D"):
            self.at += 2
            self._atom()
        elif char in ("b", "B"):
            self.at += 2
            if self.last == "atom" and self.last_foreign:
                raise _RefusedError(r"\b knows only ASCII letters and digits; leave it out beside other letters")
            self.last = "word edge"
        elif char == "A":
            self.at += 2
            self._start()
        elif char == "z":
            self.at += 2
            self.last, self.ended = "anchor", True
            self.groups[-1].anchored = self.groups[-1].ends = True
        else:
            self._atom(self._escaped())

    def _escaped(self) -> str:
        """The one character that an escape stands for."""
        char = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if char in ("n", "r", "t", "f", "a"):
            return {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "a": "\a"}[char]
        if char == "x":
            return self._hexadecimal()
        if char and char in string.punctuation:
            return char
        advice = _ADVICE.get(char, "back-references are not linear" if char.isdigit() else "it is not an escape here")
        raise _RefusedError(f"\\{char}: {advice}")

    def _hexadecimal(self) -> str:
        if self.text[self.at : self.at + 1] == "{":
            end = self.text.find("}", self.at)
            digits = self.text[self.at + 1 : max(end, self.at)]
            self.at = end + 1
        else:
            digits = self.text[self.at : self.at + 2].ljust(2, "?")
            self.at += 2
        if not digits or len(digits) > 6 or any(digit not in string.hexdigits for digit in digits):
            raise _RefusedError(r"write \x41 or \x{1F600}")
        code = int(digits, 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise _RefusedError(f"\\x{{{digits}}} is no character")
        return chr(code)

    def _class(self) -> None:
        self.at += 1
        negated = self.text[self.at : self.at + 1] == "^"
        self.at += negated
        chars: list[str] = []
        members = 0
        while True:
            char = self.text[self.at : self.at + 1]
            if not char:
                raise _RefusedError("a class is not closed by ]")
            if char == "]":
                break
            if char == "[":
                raise _RefusedError(r"write \[ inside a class")
            members += 1
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ("w", "W", "d", "D"):
                self.at += 2
            elif char == "\\":
                chars.append(self._escaped())
            else:
                self.at += 1
                chars.append(char)
        self.at += 1
        if not members:
            raise _RefusedError(r"an empty class; write \] for the bracket")
        # What a negated class leaves out need not occur, and so need not be in folded form.
        self._atom(*(char for char in chars if not negated or (ord(char) > 127 and normalise.is_settled(char))))

    def _repeat(self) -> None:
        if self.last != "atom":
            raise _RefusedError(f"{self.text[self.at]} repeats nothing; escape it with \\ if it is meant as text")
        if self.last_anchored:
            raise _RefusedError(r"a group with ^ or \z cannot be repeated")
        if self.text[self.at] == "{":
            end = self.text.find("}", self.at)
            low, _, high = self.text[self.at + 1 : max(end, self.at + 1)].partition(",")
            if not (low.isascii() and low.isdigit()) or (high and not (high.isascii() and high.isdigit())):
                raise _RefusedError(r"write {2}, {2,} or {2,5}; escape the brace with \ if it is meant as text")
            self.at = end
        self.at += 1
        if self.text[self.at : self.at + 1] == "?":
            self.at += 1  # the same texts match; only the places are shorter
        self.last = "repeat"

    def _open(self) -> None:
        if self.text[self.at + 1 : self.at + 2] == "?":
            if self.text[self.at : self.at + 3] != "(?:":
                raise _RefusedError("only (...) and (?:...) here, and (?i) or (?s) in front")
            self.at += 2
        self.at += 1
        if self.ended:
            raise _RefusedError(r"nothing can follow \z")
        self.groups.append(_Group(self.consumed, self.ended))
        if self.last != "word edge":
            self.last = ""

    def _close(self) -> None:
        if len(self.groups) == 1:
            raise _RefusedError(") closes nothing")
        self.at += 1
        closed = self.groups.pop()
        self.groups[-1].anchored |= closed.anchored
        self.groups[-1].ends |= closed.ends
        self.last, self.last_foreign, self.last_anchored = "atom", False, closed.anchored
        self.consumed, self.ended = True, closed.ends
