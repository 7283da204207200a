"""Readings of a text that was encoded to pass unseen: a tree of decoders, bounded in work and never in time.

Each node of the tree is a text. Characters that are written as escapes are resolved in one view of the text; runs that
look encoded are decoded one by one, with separators or without; compressed bytes are opened up to the bound; what is
left is a view if it reads as text, or holds stretches of text. Views are searched again, down to `depth` layers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from sidecar.core.text import decoders, escapes, normalise
from sidecar.core.text.language import ABC, density, legible, likeliest_turn

__all__ = ["View", "Views", "density", "legible", "shifted", "views"]

_ATTEMPTS: Final = 64  # decodings tried for each view of the budget
_APART: Final = 8  # pieces of one decoder that stay views of their own; more are joined
_ESCAPES: Final = -1  # in the place of a decoder's number
_OVERLAP: Final = 256  # characters that two slices of one long view share


class View(Struct, frozen=True):
    """A reading of a part of a text.

    Attributes:
        text: What it says.
        how: Decoders, outermost first.
        start, end: The part of the original text that it was read from, in characters.
    """

    text: str
    how: tuple[str, ...]
    start: int
    end: int


class Views(Struct, frozen=True):
    """The readings found.

    Attributes:
        complete: False when budget, depth or size ended the search early: then more may be hidden.
    """

    views: tuple[View, ...] = ()
    complete: bool = True


_NONE: Final = Views()


def views(
    text: str, *, budget: int = 32, depth: int = 3, size: int = 20_000, among: Sequence[int] | None = None
) -> Views:
    """Decoded readings of `text`, the plain text itself not among them.

    Args:
        among: What `worthwhile` said of a text that this is a part of, to be spared looking for more.
        budget: Most views; also bounds the decodings tried (64 a view) and the bytes decoded (`size` a view).
        depth: Most layers inside one another.
        size: Most characters of a view; a longer reading becomes several that overlap.
    """
    plain = normalise.clean(text)
    among = worthwhile(plain.text, among)
    if not among:
        return _NONE
    search = _Search(budget, depth, size, among)
    try:
        search.walk(plain.text)
    except _SpentError:
        search.complete = False
    found = search.found
    if plain.text != text:
        found = [View(v.text, v.how, plain.original(v.start), plain.original(v.end - 1) + 1) for v in found]
    return Views(tuple(found), search.complete)


def worthwhile(text: str, among: Sequence[int] | None = None) -> list[int]:
    """Decoders that may find something in `text` or in a part of it; `text` holds nothing invisible."""
    found = decoders.candidates(text.encode("ascii", "replace"), among)
    if (among is None or _ESCAPES in among) and escapes.may_hold(text):
        found.append(_ESCAPES)
    return found


class _SpentError(Exception):
    """The budget ends here."""


class _Node(Struct, frozen=True):
    """A text to search, and the part of the original that it comes from once it is a view."""

    text: str
    how: tuple[str, ...] = ()
    start: int = 0
    end: int = 0
    layer: int = 0


class _Search:
    """What one call of `views` may still spend, and what it found."""

    def __init__(self, budget: int, depth: int, size: int, first: list[int]) -> None:
        self.budget, self.depth, self.size, self.first = budget, depth, size, first
        self.attempts = max(budget, 1) * _ATTEMPTS
        self.room = max(budget, 1) * size
        self.complete = True
        self.found: list[View] = []
        self._seen: set[str] = set()
        self._tried: dict[tuple[int, bytes], bool] = {}

    def walk(self, text: str) -> None:
        """Reads `text` and what comes of it, layer by layer."""
        nodes = deque([_Node(text)])
        while nodes:
            node = nodes.popleft()
            for piece in self.pieces(node.text, None if node.layer else self.first):
                if node.layer == self.depth:
                    self.complete = False  # there is more below than we may look at
                    break
                for part in self.slices(piece.text):
                    start, end = (node.start, node.end) if node.layer else (piece.start, piece.end)
                    view = View(part, node.how + piece.how, start, end)
                    self.found.append(view)
                    nodes.append(_Node(normalise.clean(part).text, view.how, start, end, node.layer + 1))

    def slices(self, text: str) -> Iterator[str]:
        """`text` in parts of at most `size`, as far as the budget goes."""
        self._seen.add(text)
        for start in range(0, max(len(text) - _OVERLAP, 1), max(self.size - _OVERLAP, 1)):
            part = text[start : start + self.size]
            if len(self.found) >= self.budget or len(part) > self.room:
                raise _SpentError
            self.room -= len(part)
            yield part

    def pieces(self, text: str, known: Sequence[int] | None) -> Iterator[View]:
        """What can be decoded in one text and was not read before, not yet cut into views; `known`: by which."""
        told = escapes.unescaped(text)
        if told is not None and told.text not in self._seen:
            yield View(told.text, told.how, told.start, told.end)
        data = bytearray(text.encode("ascii", "replace"))  # one byte a character, so that offsets are the same
        for number in decoders.candidates(bytes(data)) if known is None else known:
            if number == _ESCAPES:
                continue
            for piece in _joined(self._runs(number, data), self.size):
                if piece.text not in self._seen:
                    yield piece

    def _runs(self, number: int, data: bytearray) -> Iterator[View]:
        decoder = decoders.DECODERS[number]
        within = bytes(data)
        for match in decoder.found.finditer(within):
            start, end = match.span()
            start, end = max(start - decoder.margin, 0), min(end + decoder.margin, len(within))
            run = within[start:end]
            known = self._tried.get((number, run))
            if known is None:
                if self.attempts <= 0:
                    raise _SpentError
                self.attempts -= 1
                view = self._reading(decoder, run, start, end)
                known = self._tried[number, run] = view is not None
                if view is not None:
                    yield view
            if known and decoder.claims:
                data[start:end] = b" " * (end - start)

    def _reading(self, decoder: decoders.Decoder, run: bytes, start: int, end: int) -> View | None:
        for how, decoded in decoder.decode(run):
            text, packed = self._read(decoded)
            if text:
                return View(text, how + packed, start, end)
        return None

    def _read(self, decoded: bytes | str) -> tuple[str, tuple[str, ...]]:
        if isinstance(decoded, str):
            return decoded, ()
        text, packed, whole = decoders.read(decoded, self.room)
        self.complete &= whole
        return text, packed


def _joined(pieces: Iterator[View], size: int) -> Iterator[View]:
    """The first few pieces as they are; the rest joined, so that a text of many small tokens costs few views."""
    held: list[View] = []
    length = count = 0
    for piece in pieces:
        count += 1
        if count <= _APART or len(piece.text) >= size:
            yield piece
            continue
        if length + len(piece.text) >= size:
            yield _join(held)
            held, length = [], 0
        held.append(piece)
        length += len(piece.text) + 1
    if held:
        yield _join(held)


def _join(pieces: list[View]) -> View:
    return View("\n".join(piece.text for piece in pieces), pieces[0].how, pieces[0].start, pieces[-1].end)


def shifted(text: str) -> tuple[View, ...]:
    """`text` read backwards, by ROT13, and by the alphabet's shift or mirror that looks most like a language.

    Any text has such readings: match them against known secrets only, or where `legible` says that the text is none.
    """
    whole = (0, len(text))
    out = [View(text[::-1], ("reversed",), *whole), View(text.translate(_ROTATED[13]), ("rot13",), *whole)]
    best = likeliest_turn(text)
    if best not in (0, 13):
        out.append(View(text.translate(_ROTATED[best]), ("atbash",) if best == 26 else (f"rot{best}",), *whole))
    return tuple(out)


_ROTATED: Final = [
    str.maketrans(ABC + ABC.upper(), ABC[turn:] + ABC[:turn] + (ABC[turn:] + ABC[:turn]).upper()) for turn in range(26)
] + [str.maketrans(ABC + ABC.upper(), ABC[::-1] + ABC[::-1].upper())]
