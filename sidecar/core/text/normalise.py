"""The canonical view of a text that patterns are matched on, and what was hidden in it.

A text is folded character by character with tables, so that each folded character still knows where it came from:

- what cannot be seen is dropped: format characters, variation selectors, fillers, unassigned and private code points;
- marks are composed with their letter where Unicode has a letter for it, and dropped from it where it has none;
- compatibility forms, case, quotes, dashes, blanks, digits, small capitals and flag letters become plain;
- letters that look like Latin ones become Latin, word by word. A word that mixes Latin with look-alikes is folded. A
  word made wholly of look-alikes is folded where the words around it are rather Latin than genuinely of its script, so
  that Russian or Greek prose stays what it is, and a single disguised word in English prose does not.

Accents that have a letter of their own stay (`bare` removes them). Source of the steps: Unicode UAX 15, UTS 39.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from sidecar.core.text import look_alikes

Points = npt.NDArray[np.int32]

_MARKS_KEPT: Final = 4  # vowel signs that a letter of an Indic or Semitic script may carry
_FLAGS: Final = 4  # flags spelled in tags that a text may show; what more there are is rather a text in pieces
_NEIGHBOURS: Final = 8  # words on either side that tell in which script a passage is written
_BEYOND: Final = 0x32400  # behind the last ideograph: only tags, variation selectors, private, unassigned

# What a character is. From LATIN to LETTER they make words.
(_OTHER, _LATIN, _KIN, _ALIKE, _LOOSE, _STRAY, _LETTER, _DIGIT, _SIGN, _MARK, _BLANK, _HIDDEN, _VOID) = range(13)

_HIDDEN_MORE: Final = {0x034F, 0x115F, 0x1160, 0x180B, 0x180C, 0x180D, 0x180F, 0x17B4, 0x17B5, *range(0xFE00, 0xFE10)}
_BLANKS: Final = {0x3164, 0xFFA0, 0x2800}
_PLAIN: Final = {
    "'": "‘’‚‛′ʼʹ´ʻˈ",
    '"': "“”„‟″«»〝〞",
    "-": "‐‑‒–—―−⁃˗",
    ".": "。",
    "/": "⁄∕",
    ":": "∶꞉",
    "*": "∗",
    "|": "∣",
    "\\": "∖",
    "~": "∼",
    " ": "\u1680",
    "\n": "\u0085\u2028\u2029",
}
# Diacritics that belong to no one script; the kana voicing marks compose like them.
_GENERIC_MARKS: Final = (
    (0x0300, 0x0370), (0x0483, 0x048A), (0x1AB0, 0x1B00), (0x1DC0, 0x1E00), (0x20D0, 0x2100), (0x3099, 0x309B),
    (0xFE20, 0xFE30),
)  # fmt: skip
_CONTROLS: Final = bytes(code for code in (*range(32), 127) if code not in b"\t\n\v\f\r")
_LOWER: Final = bytes(range(256)).lower()
_ASCII: Final = bytes(range(128))
_NOT_ALNUM: Final = bytes(code for code in range(128) if not chr(code).isalnum())
_FEW: Final = 16  # kinds of characters beyond ASCII that are looked at one by one: arrays have their price
_FEW_BYTES: Final = 1024


class Folded(Struct, frozen=True):
    """A folded text.

    Attributes:
        text: The folded text; it has no surrogates.
        size: Characters in the original.
        invisible: Invisible characters where no script and no emoji calls for them.
        mixed: Words of three letters or more that mix Latin with look-alike scripts.
        marks: Marks that no letter carries.
        overrides: Characters that turn the direction of plain letters round.
    """

    text: str
    size: int
    invisible: int = 0
    mixed: int = 0
    marks: int = 0
    overrides: int = 0
    source: Any = None

    def original(self, offset: int) -> int:
        """The place in the original of the character at `offset` of the folded text; its end for the end."""
        if offset >= len(self.text):
            return self.size
        return offset if self.source is None else int(self.source[max(offset, 0)])


def fold(text: str) -> Folded:
    """The view of `text` that patterns are matched on."""
    if text.isascii():
        return _fold_ascii(text, _LOWER)
    return _mapped(text, _LOWER) or _fold(text, _FOLDED, _LOOK)


def clean(text: str) -> Folded:
    """The same view with upper case kept, for what must be decoded next."""
    if text.isascii():
        return _fold_ascii(text, None)
    return _mapped(text, None) or _fold(text, _CLEANED, _LOOK_CASED)


def visible(text: str) -> Folded:
    """The view that `clean` gives, with look-alikes left as they are: in addresses they make a difference."""
    if text.isascii():
        return _fold_ascii(text, None)
    return _mapped(text, None) or _fold(text, _CLEANED, None)


@lru_cache(maxsize=4096)
def skeleton(name: str) -> str:
    """What a name looks like at a glance: look-alikes as Latin letters, no accents, `rn` as `m`, `1` and `i` as `l`.

    Two names with one skeleton can be taken for one another (UTS 39). Not for prose.
    """
    seen = fold(name[:256]).text
    if not seen.isascii():
        points = _points(seen)
        look = _LOOK.take(points, mode="clip")
        seen = _text(_BARE.take(np.where(look > 0, look, points), mode="clip"))
    return seen.translate(_GLANCE).replace("rn", "m").replace("vv", "w").replace("cl", "d")


def bare(folded: str) -> str:
    """A folded text without the accents of its letters, as long as it was."""
    if folded.isascii():
        return folded
    if (chars := _few_beyond(folded)) is not None and all(_bare_of(_bare_of(char)) == _bare_of(char) for char in chars):
        for char in chars:
            folded = folded.replace(char, _bare_of(char))
        return folded
    return _text(_BARE.take(_points(folded), mode="clip"))


def separator_free(folded: str) -> str:
    """Only the letters and digits of a folded text."""
    if folded.isascii():
        return folded.encode().translate(None, _NOT_ALNUM).decode()
    points = _points(folded)
    kind = _KIND.take(points, mode="clip")
    return _text(points[(kind >= _LATIN) & (kind <= _DIGIT)])


def shape(text: str) -> bytes:
    """One byte a character: ASCII as it is, other letters, digits and marks as 0xE0, the rest as 0x80."""
    if text.isascii():
        return text.encode()
    if (chars := _few_beyond(text)) is not None:
        for char in chars:
            text = text.replace(char, "\xe0" if _LATIN <= _kind_of(char) <= _MARK else "\x80")
        return text.encode("latin-1")
    points = _points(text)
    kind = _KIND.take(points, mode="clip")
    other = np.where((kind >= _LATIN) & (kind <= _MARK), 0xE0, 0x80)
    return np.where(points < 128, points, other).astype(np.uint8).tobytes()


def is_plain(text: str) -> bool:
    """Whether `text` is ASCII and holds nothing invisible: every view of it is itself, but for case."""
    return text.isascii() and len(text.encode().translate(None, _CONTROLS)) == len(text)


def is_settled(char: str) -> bool:
    """Whether folding leaves this one character as it is, so that a pattern may ask for it."""
    return int(_FOLDED[min(ord(char), _BEYOND)]) == ord(char)


def well_formed(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD, so that it can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        points = _points(text)
        return _text(np.where((points >= 0xD800) & (points < 0xE000), 0xFFFD, points))
    return text


def _points(text: str) -> Points:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<i4"))


def _text(points: npt.NDArray[Any]) -> str:
    return points.astype("<i4", copy=False).tobytes().decode("utf-32-le")


def _fold_ascii(text: str, case: bytes | None) -> Folded:
    raw = text.encode()
    kept = raw.translate(case, _CONTROLS)
    if len(kept) == len(raw):
        return Folded(kept.decode() if case else text, len(text))
    codes = np.frombuffer(raw, np.uint8)
    source = np.flatnonzero(~np.isin(codes, np.frombuffer(_CONTROLS, np.uint8))).astype(np.int32)
    return Folded(text=kept.decode(), size=len(text), invisible=len(raw) - len(kept), source=source)


def _few_beyond(text: str) -> dict[str, None] | None:
    """The characters beyond ASCII, each once; None where they are many, or half a surrogate pair."""
    try:
        beyond = text.encode().translate(None, _ASCII)
    except UnicodeEncodeError:
        return None
    chars = dict.fromkeys(beyond.decode()) if len(beyond) <= _FEW_BYTES else {}
    return chars if 0 < len(chars) <= _FEW else None


def _mapped(text: str, case: bytes | None) -> Folded | None:
    """The view of a text whose few characters beyond ASCII stand for one other each, whatever is around them."""
    if (chars := _few_beyond(text)) is None:
        return None
    raw = text.encode()
    kept = raw.translate(case, _CONTROLS)
    if len(kept) < len(raw):
        return None
    mapped = kept.decode()
    for char in chars:
        if not (to := _stands_for(char, cased=case is None)):
            return None
        if to != char:
            mapped = mapped.replace(char, to)
    return Folded(mapped, len(text))


@lru_cache(maxsize=4096)
def _stands_for(char: str, *, cased: bool) -> str:
    """The settled character that `char` folds to, "" where that is none, or depends on what is around it."""
    table = _CLEANED if cased else _FOLDED
    to = int(table[min(ord(char), _BEYOND)])
    settled = to >= 0 and int(table[min(to, _BEYOND)]) == to
    return chr(to) if settled and _kind_of(char) in (_OTHER, _LATIN, _LETTER, _DIGIT) else ""


@lru_cache(maxsize=4096)
def _bare_of(char: str) -> str:
    return chr(int(_BARE[min(ord(char), _BEYOND)]))


@lru_cache(maxsize=4096)
def _kind_of(char: str) -> int:
    return int(_KIND[min(ord(char), _BEYOND)])


def _fold(text: str, table: Points, look: npt.NDArray[np.uint8] | None) -> Folded:
    points = _points(text)
    index, kind, folded = points, _KIND.take(points, mode="clip"), table.take(points, mode="clip")
    source: Points | None = None
    invisible = mixed = marks = overrides = 0
    seen = np.bincount(kind, minlength=13)
    if seen[_SIGN:].any():
        if seen[_HIDDEN:].any() or seen[_BLANK]:
            invisible, overrides = _count_hidden(points, kind)
            keep = _drop_hidden(kind, folded)
            source = np.flatnonzero(keep).astype(np.int32)
            index, kind, folded = index[keep], kind[keep], folded[keep]
        if seen[_SIGN] or seen[_MARK]:
            keep, marks = _compose_marks(kind, folded)
            source = np.flatnonzero(keep).astype(np.int32) if source is None else source[keep]
            index, kind, folded = index[keep], kind[keep], folded[keep]
    if look is not None and seen[_KIN:_LETTER].any():
        mixed = _fold_look_alikes(kind, folded, look.take(index, mode="clip"))
    if (folded < 0).any():
        folded, source = _expand(folded, source)
    return Folded(_text(folded), len(text), invisible, mixed, marks, overrides, source)


def _drop_hidden(kind: npt.NDArray[np.uint8], folded: Points) -> npt.NDArray[np.bool_]:
    """What stays. A blank stays as a space, unless blanks part single letters."""
    keep = kind < _BLANK
    blank = kind == _BLANK
    if blank.any():
        parting = np.zeros(len(kind), np.bool_)
        parting[2:] |= blank[:-2]
        parting[:-2] |= blank[2:]
        spaces = blank & ~parting
        folded[spaces], kind[spaces] = 32, _OTHER
        keep |= spaces
    return keep


def _count_hidden(points: Points, kind: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Invisible characters that nothing calls for, and direction overrides."""
    blanks = int((kind == _BLANK).sum())
    at = np.flatnonzero(kind == _HIDDEN)
    if not len(at):
        return blanks, 0
    places = np.arange(len(kind))
    visible = kind != _HIDDEN
    before = np.maximum.accumulate(np.where(visible, places, -1))[at]
    after = np.minimum.accumulate(np.where(visible, places, len(kind))[::-1])[::-1][at]
    padded_kind = np.append(kind, _OTHER)  # index -1 and len(kind): nothing there
    padded = np.append(points, 0)
    what, kind_before, kind_after = points[at], padded_kind[before], padded_kind[after]
    point_before, distance = padded[before], at - before
    latin = (kind_before >= _LATIN) & (kind_before < _LETTER) & (kind_after >= _LATIN) & (kind_after < _LETTER)
    scripted = (kind_before == _LETTER) | (kind_before == _SIGN) | (kind_after == _LETTER)
    symbol = ((kind_before == _OTHER) & (point_before >= 0xA9)) | (kind_before == _VOID)
    keycap = (padded[after] == 0x20E3) & _KEYCAP.take(point_before, mode="clip")
    selector = ((what >= 0xFE00) & (what < 0xFE10)) | (what >= 0xE0100)
    joins, directs = (what == 0x200C) | (what == 0x200D), _DIRECTS.take(what, mode="clip")
    called_for = (joins | directs) & scripted & (distance <= 2)
    called_for |= directs & ~latin & (kind == _LETTER).any()
    called_for |= (what == 0x200D) & symbol
    called_for |= selector & (distance == 1) & (symbol | keycap | (kind_before == _LETTER))
    called_for |= (point_before == 0x1F3F4) & (what >= 0xE0020) & (what <= 0xE007F) & (distance <= 7)
    called_for |= (what == 0xFEFF) & (at == 0)
    called_for |= (what >= _BEYOND) & ((what < 0xE0000) | (what >= 0xE0200))  # not to be read, but seen
    overrides = int(((what == 0x202D) | (what == 0x202E)).sum())
    return blanks + int((~called_for).sum()), overrides


def _compose_marks(kind: npt.NDArray[np.uint8], folded: Points) -> tuple[npt.NDArray[np.bool_], int]:
    """Puts marks into the letters before them. Returns what stays, and how many marks no letter carries."""
    size = len(kind)
    mark = (kind == _SIGN) | (kind == _MARK)
    places = np.arange(size)
    base = np.maximum.accumulate(np.where(mark, -1, places))
    first = np.flatnonzero(mark & (places - base == 1) & (base >= 0))
    bases = base[first]
    follows = np.append(mark, [False, False])
    second, third = follows[first + 1], follows[first + 2]
    padded = np.append(folded, 0)
    one = _compose(folded[bases], folded[first])
    two = np.where(second, _compose(np.where(one > 0, one, folded[bases]), padded[first + 1]), one)
    whole = (one > 0) & (two > 0) & ~(second & third)
    folded[bases[whole]] = two[whole]
    native = ((kind[bases] == _LETTER) | (kind[bases] == _STRAY)) & ~whole
    fate = np.full(size + 1, 2, np.uint8)  # of a base's marks: 0 composed, 1 kept, 2 dropped; last for "no base"
    fate[bases[whole]], fate[bases[native]] = 0, 1
    lost = mark & ((fate[base] == 2) | (places - base > _MARKS_KEPT))
    return ~(lost | (mark & (fate[base] == 0))), int(lost.sum())


def _compose(base: npt.NDArray[Any], mark: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The letter that is `base` with `mark`, 0 where there is none; marks may come in any order."""
    letter = _pair(base, mark)
    rest = np.flatnonzero((letter == 0) & (base > 0))
    if len(rest):
        at = np.minimum(np.searchsorted(_COMPOSED, base[rest]), len(_COMPOSED) - 1)
        inner = _pair(np.where(_COMPOSED[at] == base[rest], _COMPOSED_BASE[at], 0), mark[rest])
        letter[rest] = np.where(inner > 0, _pair(inner, _COMPOSED_MARK[at]), 0)
    return letter


def _pair(base: npt.NDArray[Any], mark: npt.NDArray[Any]) -> npt.NDArray[Any]:
    key = (base.astype(np.int64) << 21) | np.maximum(mark, 0)
    at = np.minimum(np.searchsorted(_PAIRS, key), len(_PAIRS) - 1)
    return np.where(_PAIRS[at] == key, _PAIRED[at], 0)


def _fold_look_alikes(kind: npt.NDArray[np.uint8], folded: Points, look: npt.NDArray[np.uint8]) -> int:
    """Writes Latin letters over their look-alikes. Returns how many words mix scripts."""
    size = len(kind)
    inside = np.zeros(size + 2, np.bool_)
    inside[1:-1] = kind - 1 < _MARK  # unsigned: _OTHER wraps round
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    made_of = np.bitwise_or.reduceat(_BIT.take(kind), starts)
    latin = made_of & 1 > 0
    mixed = latin & (made_of & 0b11110 > 0)
    genuine = ~latin & (made_of & 0b01010 > 0)
    alike = (made_of & 0b00100 > 0) & (made_of & 0b111011 == 0)
    mixed_or_alike = mixed | (alike & _among_latin(latin, genuine)) if alike.any() else mixed
    if mixed_or_alike.any():
        turns = np.zeros(size + 1, np.int8)
        turns[starts[mixed_or_alike]] += 1
        turns[ends[mixed_or_alike]] -= 1
        change = (np.cumsum(turns[:-1]) > 0) & (look > 0)
        folded[change] = look[change]
    if not mixed.any():
        return 0
    letters = np.concatenate(([0], np.cumsum((kind >= _LATIN) & (kind <= _LETTER))))
    return int((mixed & (made_of & 0b00110 > 0) & (letters[ends] - letters[starts] >= 3)).sum())


def _among_latin(latin: npt.NDArray[np.bool_], genuine: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """For each word, whether the words around it are rather Latin than genuinely of a script of look-alikes."""
    if not genuine.any() or not latin.any():
        return np.full(len(latin), not genuine.any())
    words = np.arange(len(latin))
    low, high = np.maximum(words - _NEIGHBOURS, 0), np.minimum(words + _NEIGHBOURS + 1, len(words))
    balance = np.concatenate(([0], np.cumsum(latin.astype(np.int32) - genuine.astype(np.int32))))
    around = balance[high] - balance[low]
    return around >= 0


def _expand(folded: Points, source: Points | None) -> tuple[Points, Points]:
    """Spells out the characters that fold to several."""
    many = folded < 0
    which = -folded[many] - 1
    lengths = np.ones(len(folded), np.int64)
    lengths[many] = _SPELLED_SIZE[which]
    source = np.arange(len(folded), dtype=np.int32) if source is None else source
    out = np.repeat(folded, lengths)
    first = (np.cumsum(lengths) - lengths)[many]
    for step in range(int(_SPELLED_SIZE[which].max())):
        has = _SPELLED_SIZE[which] > step
        out[first[has] + step] = _SPELLED[_SPELLED_AT[which[has]] + step]
    return out, np.repeat(source, lengths)


def hidden(text: str) -> tuple[str, ...]:
    """Texts that are told in characters nobody sees, in the order tags, variation selectors, zero-width bits.

    Emoji sequences, flags, ideographic variants and the joiners of Arabic, Hebrew, Persian and Indic text tell nothing.
    """
    if text.isascii():
        return ()
    if (chars := _few_beyond(text)) and not any(_kind_of(char) in (_HIDDEN, _BLANK) for char in chars):
        raw = text.encode()
        if len(raw.translate(None, _CONTROLS)) == len(raw):
            return ()
    points = _points(text)
    kind = _KIND.take(points, mode="clip")
    if not ((kind == _HIDDEN) | (kind == _BLANK)).any():
        return ()
    return tuple(told for told in (_tags(points), _selectors(points, kind), _bits(points, kind)) if told)


def _tags(points: Points) -> str:
    tag = (points >= 0xE0020) & (points <= 0xE007F)
    for flag in np.flatnonzero(points[:-1] == 0x1F3F4)[:_FLAGS].tolist():
        letters = "".join(map(chr, (points[flag + 1 : flag + 8] & 0x7F).tolist()))
        name, end, _ = letters.partition("\x7f")
        if end and len(name) >= 3 and name.isalnum() and tag[flag + 1 : flag + 2 + len(name)].all():
            tag[flag + 1 : flag + 2 + len(name)] = False  # England, Scotland, Texas
    return _text(points[tag & (points < 0xE007F)] - 0xE0000)


def _selectors(points: Points, kind: npt.NDArray[np.uint8]) -> str:
    selector = ((points >= 0xFE00) & (points < 0xFE10)) | ((points >= 0xE0100) & (points < 0xE01F0))
    if not selector.any():
        return ""
    after = np.append(False, selector[:-1])  # follows a selector: no script writes two
    before = np.append(selector[1:], False)
    carrier = np.append(_OTHER, kind[:-1])
    carried_by = np.append(0, points[:-1])
    plain = (carrier >= _LATIN) & (carrier < _LETTER) | (carried_by < 128) & ~_KEYCAP.take(carried_by, mode="clip")
    taken = points[selector & (after | before | plain)]
    values = np.where(taken < 0xFE10, taken - 0xFE00, taken - 0xE0100 + 16)
    return _readable(values.astype(np.uint8).tobytes(), least=2)


def _bits(points: Points, kind: npt.NDArray[np.uint8]) -> str:
    """A text in two to five kinds of invisible characters: eight or seven bits a letter, pairs of bits, or parted."""
    silent = points[((kind == _HIDDEN) | (kind == _BLANK)) & ((points < 0xFE00) | (points == 0xFEFF))]
    symbols = np.unique(silent)
    if len(silent) < 24 or not 2 <= len(symbols) <= 5:
        return ""
    digits = np.searchsorted(symbols, silent).astype(np.uint8)
    likeliest, told = 0.7, ""
    for bits in _readings(digits, len(symbols)):
        for width in (8, 7):
            whole = len(bits) // width * width
            octets = np.packbits(bits[:whole].reshape(-1, width), axis=1)[:, 0] >> (8 - width)
            text = _readable(octets.tobytes(), least=3)
            words = sum(char.isalnum() or char == " " for char in text) / max(len(text), 1)
            if words > likeliest:
                likeliest, told = words, text
    return told


def _readings(digits: npt.NDArray[np.uint8], symbols: int) -> Any:
    """The ways to read a row of symbols as bits: any two of them with the others as separators, or two bits each."""
    for zero, one in itertools.permutations(range(symbols), 2):
        row = digits[(digits == zero) | (digits == one)]
        if len(row) >= 24 and len(row) * 2 >= len(digits):
            yield (row == one).astype(np.uint8)
    if symbols == 4:
        for order in itertools.permutations(range(4)):
            pairs = np.array(order, np.uint8)[digits]
            yield np.stack((pairs >> 1, pairs & 1), axis=1).ravel()


def _readable(data: bytes, *, least: int) -> str:
    """`data` as text if all of it can be read, else ""."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    if len(text) < least or not all(char.isprintable() or char in "\t\r\n" for char in text):
        return ""
    return text


_DIRECTS: Final = np.zeros(0x2070, np.bool_)  # marks and isolates of direction, embeddings; overrides are odd anywhere
_DIRECTS[[0x061C, 0x200E, 0x200F, 0x202A, 0x202B, 0x202C, 0x2066, 0x2067, 0x2068, 0x2069]] = True
_KEYCAP: Final = np.zeros(129, np.bool_)
_KEYCAP[[ord(char) for char in "#*0123456789"]] = True
_BIT: Final = np.array([0, 1, 2, 4, 8, 16, 32, 0, 0, 0, 0, 0, 0], np.uint8)

# Where characters have a case, a compatibility form or marks; ideographs and Hangul have not.
_FOLDABLE: Final = (
    (0, 0x3400), (0xA000, 0xAC00), (0xD7B0, 0xD800), (0xF900, 0x17000), (0x1AFF0, 0x20000), (0x2F800, 0x2FA20),
)  # fmt: skip
_IDEOGRAPHS: Final = ((0x17000, 0x1AFF0), (0x20000, _BEYOND))
_LATIN_BLOCKS: Final = (
    (0, 0x02B0), (0x1D00, 0x1DC0), (0x1E00, 0x1F00), (0x2C60, 0x2C80), (0xA720, 0xA800), (0xAB30, 0xAB70),
)  # fmt: skip
_KIN_BLOCKS: Final = (
    (0x0370, 0x0590), (0x10A0, 0x1100), (0x13A0, 0x1680), (0x16A0, 0x1700), (0x1C80, 0x1CC0), (0x1F00, 0x2000),
    (0x2C80, 0x2E00), (0xA4D0, 0xA500), (0xA640, 0xA700), (0xAB70, 0xABC0), (0x10280, 0x10330), (0x10400, 0x10530),
    (0x118A0, 0x11900), (0x16F00, 0x16FA0),
)  # fmt: skip
_GLANCE: Final = str.maketrans("01i|5", "ollls")
_STROKED: Final = dict(zip("øłđħŧƀɨʉȼɍɏɇⱥⱦȿɀ", "oldhtbiucryeatsz", strict=True))


class _Tables:
    """What the interpreter's Unicode data and `look_alikes` say of each character, as arrays."""

    def __init__(self) -> None:
        self.kind = bytearray([_LETTER]) * (_BEYOND + 1)
        for blocks, letters in ((_LATIN_BLOCKS, _LATIN), (_KIN_BLOCKS, _KIN)):
            for first, end in blocks:
                self.kind[first:end] = bytes([letters]) * (end - first)
        self._generic = {code for first, end in _GENERIC_MARKS for code in range(first, end)}
        self.folded = np.arange(_BEYOND + 1, dtype=np.int32)
        self.cleaned, self.bare = self.folded.copy(), self.folded.copy()
        self.look, self.look_cased = bytearray(_BEYOND + 1), bytearray(_BEYOND + 1)
        self.spelled: dict[str, int] = {}
        self.composed: dict[int, tuple[int, int]] = {}
        self._alike: dict[str, tuple[int, str]] = {}
        for group, kind in ((look_alikes.STRAY, _STRAY), (look_alikes.LOOSE, _LOOSE), (look_alikes.KIN, _ALIKE)):
            self._alike |= {char: (kind, letter) for letter, chars in group.items() for char in chars}
        self._plain = {char: to for part in (_PLAIN, look_alikes.LATIN) for to, chars in part.items() for char in chars}
        special = {*map(chr, (*_HIDDEN_MORE, *_BLANKS, 0x20E3)), *self._plain, *self._alike}
        for code, char, category in _categories(_FOLDABLE):
            if char in special or category not in ("Cn", "Co", "Lo") or unicodedata.decomposition(char):
                self._enter(code, char, category)
            elif category != "Lo":  # most characters are letters that fold to themselves, or are none at all
                self.kind[code] = _VOID
        for code, _, category in _categories(_IDEOGRAPHS):
            if category == "Cn":
                self.kind[code] = _VOID
        self.kind[0x4DC0:0x4E00] = bytes([_OTHER]) * 0x40  # hexagrams
        self.kind[0xD800:0xF900] = bytes([_OTHER]) * 0x800 + bytes([_VOID]) * 0x1900
        self.kind[_BEYOND] = _HIDDEN
        self.folded[0xD800:0xE000] = self.cleaned[0xD800:0xE000] = 0xFFFD

    def _enter(self, code: int, char: str, category: str) -> None:
        kind = self.kind[code] = self._kind(code, category)
        parts = unicodedata.decomposition(char)
        if kind in (_LETTER, _OTHER, _VOID) and not parts and char not in self._plain and char not in self._alike:
            return  # most characters fold to themselves
        compatible = unicodedata.normalize("NFKC", char) if category != "Nd" else str(unicodedata.decimal(char))
        if char in self._plain and self._plain[char].isalnum():
            self.kind[code] = _LATIN if self._plain[char].isalpha() else _DIGIT
        elif alike := self._alike.get(char) or self._alike.get(compatible):
            self.kind[code], letter = alike
            self.look[code] = ord(letter)
            self.look_cased[code] = ord(letter.upper() if category == "Lu" else letter)
        to = self._plain.get(char) or "".join(self._plain.get(part, part) for part in compatible)
        self.cleaned[code] = self._spell(to.upper() if category == "Lu" and char in self._plain else to)
        self.folded[code] = self._spell(unicodedata.normalize("NFKC", to.casefold()))
        if parts and not parts.startswith("<"):
            self._decompose(code, char, parts)
        elif char in _STROKED:
            self.bare[code] = ord(_STROKED[char])

    def _kind(self, code: int, category: str) -> int:
        if code in _BLANKS:
            return _BLANK
        if category == "Cf" or code in _HIDDEN_MORE or (category == "Cc" and not 9 <= code <= 13 and code != 0x85):
            return _HIDDEN
        if category in ("Cn", "Co") or code == 0x20E3:  # the keycap's frame says nothing
            return _VOID
        if category[0] == "M":
            return _MARK if code in self._generic else _SIGN
        if category[0] == "L":
            return self.kind[code]
        return _DIGIT if category == "Nd" else _OTHER

    def _spell(self, to: str) -> int:
        """A character as its code, a text of several as -1, -2 ... into `spelled`."""
        return ord(to) if len(to) == 1 else -self.spelled.setdefault(to, len(self.spelled)) - 1

    def _decompose(self, code: int, char: str, parts: str) -> None:
        if " " in parts and unicodedata.normalize("NFC", char) == char:
            base, mark = (int(part, 16) for part in parts.split())
            self.composed[code] = (base, mark)
        letter = unicodedata.normalize("NFD", char)[0]
        if self.kind[code] != _LETTER and unicodedata.category(letter)[0] == "L":
            self.bare[code] = ord(letter)


def _categories(blocks: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, str, str]]:
    """Code, character and category, all at once: one by one they take most of the start of a process."""
    for block in blocks:
        codes = range(*block)
        chars = list(map(chr, codes))
        yield from zip(codes, chars, map(unicodedata.category, chars), strict=True)


_TABLES: Final = _Tables()
_KIND: Final = np.frombuffer(bytes(_TABLES.kind), np.uint8)
_FOLDED, _CLEANED, _BARE = _TABLES.folded, _TABLES.cleaned, _TABLES.bare
_LOOK: Final = np.frombuffer(bytes(_TABLES.look), np.uint8)
_LOOK_CASED: Final = np.frombuffer(bytes(_TABLES.look_cased), np.uint8)
_SPELLED_SIZE: Final = np.array([len(to) for to in _TABLES.spelled], np.int64)
_SPELLED_AT: Final = np.cumsum(_SPELLED_SIZE) - _SPELLED_SIZE
_SPELLED: Final = np.array([ord(char) for to in _TABLES.spelled for char in to], np.int32)
_COMPOSED: Final = np.array(sorted(_TABLES.composed), np.int32)
_COMPOSED_BASE: Final = np.array([_TABLES.composed[code][0] for code in _COMPOSED.tolist()], np.int32)
_COMPOSED_MARK: Final = np.array([_TABLES.composed[code][1] for code in _COMPOSED.tolist()], np.int32)
_ORDER: Final = np.argsort((_COMPOSED_BASE.astype(np.int64) << 21) | _COMPOSED_MARK)
_PAIRS: Final = ((_COMPOSED_BASE.astype(np.int64) << 21) | _COMPOSED_MARK)[_ORDER]
_PAIRED: Final = _COMPOSED[_ORDER]
