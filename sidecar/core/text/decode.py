"""Readings of a text that was encoded to pass unseen: a tree of decoders, bounded in work and never in time.

Each node of the tree is a text. Characters that are written as escapes are resolved in one view of the text; runs that
look encoded are decoded one by one, with separators or without; compressed bytes are opened up to the bound; what is
left is a view if it reads as text, or holds stretches of text. Views are searched again, down to `depth` layers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from sidecar.core.text import decoders, escapes, normalise

_ATTEMPTS: Final = 64  # decodings tried for each view of the budget
_APART: Final = 8  # pieces of one decoder that stay views of their own; more are joined
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


def views(text: str, *, budget: int = 32, depth: int = 3, size: int = 20_000) -> Views:
    """Decoded readings of `text`, the plain text itself not among them.

    Args:
        budget: Most views; also bounds the decodings tried (64 a view) and the bytes decoded (`size` a view).
        depth: Most layers inside one another.
        size: Most characters of a view; a longer reading becomes several that overlap.
    """
    plain = normalise.clean(text)
    search = _Search(budget, depth, size)
    try:
        search.walk(plain.text)
    except _SpentError:
        search.complete = False
    found = search.found
    if plain.text != text:
        found = [View(v.text, v.how, plain.original(v.start), plain.original(v.end - 1) + 1) for v in found]
    return Views(tuple(found), search.complete)


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

    def __init__(self, budget: int, depth: int, size: int) -> None:
        self.budget, self.depth, self.size = budget, depth, size
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
            for piece in self.pieces(node.text):
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

    def pieces(self, text: str) -> Iterator[View]:
        """What can be decoded in one text and was not read before, not yet cut into views."""
        told = escapes.unescaped(text)
        if told is not None and told.text not in self._seen:
            yield View(told.text, told.how, told.start, told.end)
        data = bytearray(text.encode("ascii", "replace"))  # one byte a character, so that offsets are the same
        for number in decoders.candidates(bytes(data)):
            for piece in _joined(self._runs(number, data), self.size):
                if piece.text not in self._seen:
                    yield piece

    def _runs(self, number: int, data: bytearray) -> Iterator[View]:
        decoder = decoders.DECODERS[number]
        within = bytes(data)
        for match in decoder.found.finditer(within):
            start, end = match.span(1)
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
    best = int((_TURNED @ _pairs(text[:4096])).argmax())
    if best not in (0, 13):
        out.append(View(text.translate(_ROTATED[best]), ("atbash",) if best == 26 else (f"rot{best}",), *whole))
    return tuple(out)


_ABC: Final = "abcdefghijklmnopqrstuvwxyz"
_ROTATED: Final = [
    str.maketrans(_ABC + _ABC.upper(), _ABC[turn:] + _ABC[:turn] + (_ABC[turn:] + _ABC[:turn]).upper())
    for turn in range(26)
] + [str.maketrans(_ABC + _ABC.upper(), _ABC[::-1] + _ABC[::-1].upper())]

# Pairs of letters that are common in English, Spanish, French, German, Italian, Portuguese or Dutch.
_PAIRS: Final = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic "
    "ne ea ra ce li ch ll be ma si om ur la el ei ie di ge un os ad ue ci us qu ai do ss ta no so da em ee ij sc il lo "
    "ns pa pe po pr mi am tr ca et ut su wa we wh yo fo by my up if go ke ki ac id ol oo ow"
)


_ABC_AT: Final = np.full(256, -1, np.int16)
for _at, _letter in enumerate(_ABC):
    _ABC_AT[ord(_letter)] = _ABC_AT[ord(_letter.upper())] = _at
_COMMON: Final = np.zeros((26, 26))
for _pair in _PAIRS.split():
    _COMMON[_ABC_AT[ord(_pair[0])], _ABC_AT[ord(_pair[1])]] = 1
# Which pairs are common once they are rotated by 0 to 25, and mirrored.
_TURNED: Final = np.array(
    [np.roll(_COMMON, (-turn, -turn), (0, 1)).ravel() for turn in range(26)] + [_COMMON[::-1, ::-1].ravel()]
)


def _pairs(text: str) -> npt.NDArray[np.int64]:
    """How often each pair of ASCII letters stands in `text`, 26 by 26."""
    letters = _ABC_AT[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]
    both = (letters[:-1] >= 0) & (letters[1:] >= 0)
    return np.bincount(letters[:-1][both] * 26 + letters[1:][both], minlength=676)


def legible(text: str) -> float:
    """Share of its neighbouring ASCII letters that are a common pair in a European language, 0..1.

    About 0.7 for prose and 0.2 for shuffled or rotated letters; 1 where there are fewer than 8 such pairs to judge.
    """
    pairs = _pairs(text)
    count = int(pairs.sum())
    return float((_COMMON.ravel() @ pairs) / count) if count >= 8 else 1.0


# --- dense text


_COMMON_OR_NOT: Final = np.pad(_COMMON, (0, 1)).astype(np.bool_)  # index -1: no letter
_BLOCK: Final = 128  # half a window
_SEGMENT: Final = 65_536  # characters looked at in one go, which bounds memory
_LEAST_DENSE: Final = 32  # symbols in a window that say anything
_IS_GAP: Final = np.array([code <= 32 or code == 127 or chr(code) in ",.:;|-_\"'" for code in range(256)])


def density(text: str) -> float:
    """How much the densest 256 characters look like encoded or enciphered bytes, 0..1.

    How even the symbols are used, times the share of neighbours that no language makes common, times the share that is
    no gap. Letters beyond ASCII do not count, since any two may be language. Measured: prose 0.2 to 0.4, code, JSON,
    tables and URLs 0.3 to 0.65, base16, base32, base64 and base85 0.8 to 1.
    """
    data = text.encode("ascii", "ignore")
    return max((_densest(data[at : at + _SEGMENT + _BLOCK]) for at in range(0, len(data), _SEGMENT)), default=0.0)


def _densest(data: bytes) -> float:
    codes = np.frombuffer(data, np.uint8)
    if len(codes) < _LEAST_DENSE:
        return 0.0
    letters = _ABC_AT[codes]
    block = np.arange(len(codes)) // _BLOCK
    blocks = int(block[-1]) + 1
    used = np.bincount(block * 256 + codes, minlength=blocks * 256).reshape(blocks, 256)
    common = np.zeros(len(codes), np.bool_)
    common[1:] = _COMMON_OR_NOT[letters[:-1], letters[1:]]
    known = np.bincount(block, weights=common, minlength=blocks)
    size = np.bincount(block, minlength=blocks)
    if blocks > 1:  # a window is two neighbouring blocks
        used, known, size = used[:-1] + used[1:], known[:-1] + known[1:], size[:-1] + size[1:]
    used = used[:, ~_IS_GAP]
    symbols = used.sum(axis=1)
    share = used / np.maximum(symbols, 1)[:, None]
    entropy = -(share * np.log2(share, out=np.zeros_like(share), where=share > 0)).sum(axis=1)
    even = entropy / np.log2(np.maximum((used > 0).sum(axis=1), 2)) * np.minimum(entropy / 3, 1)
    dense = even * (1 - known / np.maximum(symbols, 1)) * symbols / size
    return float(np.clip(dense[symbols >= _LEAST_DENSE], 0, 1).max(initial=0.0))
