"""Runs of characters that encode bytes or letters, each with the decoders that may read it.

A decoder gives readings of a run, the likeliest first, and never raises; bytes that come out are compressed layers or
text, which `read` tells.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import io
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import zstandard
from msgspec import Struct, structs

from sidecar.core.text import regex
from sidecar.core.text.language import legible

Reading = tuple[tuple[str, ...], bytes | str]
Decode = Callable[[bytes], Iterator[Reading]]

_STRETCH: Final = 24  # printable bytes in a row that chance does not make
_LEAST: Final = 16  # characters of a run that is decoded
_LEAST_PLAIN: Final = 32  # where letters alone, or digits alone, may be words or numbers
_LARGE: Final = 384  # bytes of a run that may hold stretches of text behind a beginning that is none
_LAYERS: Final = 3  # compressed layers inside one another, opened as one

# --- bytes as text


def read(data: bytes, limit: int) -> tuple[str, tuple[str, ...], bool]:
    """Bytes as text, through compressed layers.

    Returns:
        The text, "" when nothing in the bytes reads as text; the layers' names; whether all of it was read, which takes
        at most `limit` bytes of each layer.
    """
    how: tuple[str, ...] = ()
    complete = True
    for _ in range(_LAYERS):
        if not data.startswith(_MAGIC):
            break
        packer = next(one for one in _PACKERS if data.startswith(one[1]))
        try:
            data, whole = packer[2](data, limit)
        except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError):
            break
        how += (packer[0],)
        complete &= whole
    return _text_of(data), how, complete


_TEXT_BYTES: Final = bytes(code for code in range(256) if code >= 32 or code in b"\t\n\f\r").replace(b"\x7f", b"")
_STRETCHES: Final = regex.latin1(rf"[\t\r\n -~]{{{_STRETCH},}}")


def _text_of(data: bytes) -> str:
    """`data` as text if it is text in UTF-8 or UTF-16; else its long printable stretches, line by line."""
    if len(data) < 4:
        return ""
    if len(data) < _STRETCH:  # so few bytes must be without fault
        return data.decode() if data.isascii() and data.decode().isprintable() else _short(data)
    if data[1::2].count(0) * 3 > len(data) or data[::2].count(0) * 3 > len(data):
        little = data[1::2].count(0) >= data[::2].count(0)
        text = data.decode("utf-16-le" if little else "utf-16-be", "replace")
        return text if _reads(text) else ""
    controls = len(data.translate(None, _TEXT_BYTES))
    if controls * 20 <= len(data):
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            cut = error.start >= len(data) - 3 and error.reason == "unexpected end of data"
            text = data[: error.start].decode() if cut else ""
        if text and _reads(text):
            return text
    return "\n".join(match.group().decode("ascii") for match in _STRETCHES.finditer(data))


def _short(data: bytes) -> str:
    """A few bytes as text if they are words of any script, in UTF-8 or UTF-16."""
    wide = data.count(0) * 3 > len(data)
    try:
        text = data.decode(("utf-16-le" if data[1] == 0 else "utf-16-be") if wide else "utf-8")
    except UnicodeDecodeError:
        return ""
    return (
        text if all(char.isalpha() or char in " \t\r\n.,-'" or (wide and char.isprintable()) for char in text) else ""
    )


def _reads(text: str) -> bool:
    """Whether nearly all characters can be printed."""
    if text.isprintable():
        return True
    sample = text[:2048]
    odd = sum(not (char.isprintable() or char in "\t\r\n\f") for char in sample)
    return odd * 20 <= len(sample)


def _inflate(data: bytes, limit: int) -> tuple[bytes, bool]:
    opened = zlib.decompressobj(wbits=47)  # gzip or zlib, by its header
    out = opened.decompress(data, max(limit, 1))
    return out, opened.eof or len(out) < limit


def _bunzip(data: bytes, limit: int) -> tuple[bytes, bool]:
    opened = bz2.BZ2Decompressor()
    out = opened.decompress(data, max(limit, 1))
    return out, opened.eof or len(out) < limit


def _unxz(data: bytes, limit: int) -> tuple[bytes, bool]:
    opened = lzma.LZMADecompressor(memlimit=64 << 20)
    out = opened.decompress(data, max(limit, 1))
    return out, opened.eof or len(out) < limit


def _unzstd(data: bytes, limit: int) -> tuple[bytes, bool]:
    with zstandard.ZstdDecompressor(max_window_size=8 << 20).stream_reader(io.BytesIO(data)) as opened:
        out = opened.read(max(limit, 1))
    return out, len(out) < limit


def _unzip(data: bytes, limit: int) -> tuple[bytes, bool]:
    """The members of an archive one after another, by their local headers (PKWARE APPNOTE 4.3.7)."""
    out, at = b"", 0
    while data[at : at + 4] == b"PK\x03\x04" and len(out) < limit:
        method, flags = int.from_bytes(data[at + 8 : at + 10], "little"), data[at + 6]
        packed = int.from_bytes(data[at + 18 : at + 22], "little")
        name_size = int.from_bytes(data[at + 26 : at + 28], "little")
        body = at + 30 + name_size + int.from_bytes(data[at + 28 : at + 30], "little")
        out += data[at + 30 : at + 30 + name_size] + b"\n"
        if method == 8:
            opened = zlib.decompressobj(wbits=-15)
            out += opened.decompress(data[body:], max(limit - len(out), 1)) + b"\n"
            at = len(data) - len(opened.unused_data)
        else:
            out += (data[body : body + packed] if method == 0 else b"")[:limit] + b"\n"
            at = body + packed
        if flags & 8:  # the sizes stand behind the member
            at = max(data.find(b"PK\x03\x04", at), at)
    return out, len(out) < limit


Unpack = Callable[[bytes, int], tuple[bytes, bool]]
_PACKERS: Final[tuple[tuple[str, tuple[bytes, ...], Unpack], ...]] = (
    ("gzip", (b"\x1f\x8b\x08",), _inflate),
    ("zlib", (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), _inflate),
    ("bzip2", (b"BZh",), _bunzip),
    ("xz", (b"\xfd7zXZ\x00",), _unxz),
    ("zstd", (b"\x28\xb5\x2f\xfd",), _unzstd),
    ("zip", (b"PK\x03\x04",), _unzip),
)
_MAGIC: Final = tuple(magic for _, magics, _ in _PACKERS for magic in magics)


_SEPARATORS: Final = b"= \t\r\n.,:;|-_\\"
_SPACED: Final = bytes.maketrans(_SEPARATORS, b" " * len(_SEPARATORS))
_HEX: Final = b"0123456789abcdefABCDEF"
_BASE32: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_LETTERS: Final = bytes(range(65, 91)) + bytes(range(97, 123))
_BASE64: Final = _LETTERS + b"0123456789+/=_-"
_NOT_DIGITS: Final = bytes(code for code in range(256) if code not in b"0123456789")
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def _token(run: bytes) -> Iterator[Reading]:
    """One unbroken run of the base64 alphabet, which those of base16, base32 and bits are parts of."""
    plain = run.rstrip(b"=")
    letters = plain.translate(None, b"-_/+")
    if letters.isalpha() and (letters.islower() or letters.isupper()):
        if len(letters) == len(plain):
            yield from _base32(plain)
        return  # words joined by dashes or slashes
    yield from _based(plain)
    if not plain.translate(None, _HEX + b"-_"):
        return
    for sign in (b"/", b"_", b"-"):
        if sign in plain:
            for part in sorted(plain.split(sign), key=len, reverse=True)[:4]:
                if len(part) >= _LEAST:
                    yield from _based(part)


def _based(plain: bytes) -> Iterator[Reading]:
    digits = plain.translate(None, b"-_")
    if not digits.translate(None, _HEX):
        if not digits.translate(None, b"01"):
            yield ("bits",), _bits(digits)
        yield from _base16(digits)
        return
    yield from _base32(plain)
    yield from _base64(plain)


def _bits(digits: bytes) -> bytes:
    rows = np.frombuffer(digits[: len(digits) // 8 * 8], np.uint8).reshape(-1, 8) & 1
    return np.packbits(rows, axis=1).tobytes()


def _base16(digits: bytes) -> Iterator[Reading]:
    if digits.isdigit() and len(digits) < _LEAST_PLAIN:
        return
    for start in (0, 1):
        body = digits[start : start + (len(digits) - start) // 2 * 2]
        if _worth(len(body) // 2, start, binascii.unhexlify(body[:64])):
            yield ("base16",), binascii.unhexlify(body)


def _base32(plain: bytes) -> Iterator[Reading]:
    upper = plain.upper()
    if upper.translate(None, _BASE32) or not (plain.islower() or plain.isupper()):
        return
    if plain.isalpha() and len(plain) < _LEAST_PLAIN:
        return
    if _worth(0, 0, base64.b32decode(upper[: min(64, len(upper) // 8 * 8)])):
        whole = upper[: len(upper) - (1 if len(upper) % 8 in (1, 3, 6) else 0)]
        yield ("base32",), base64.b32decode(whole + b"=" * (-len(whole) % 8))


def _base64(plain: bytes) -> Iterator[Reading]:
    plain = plain.translate(_URL_SAFE)
    for start in range(4):  # letters in front shift everything
        body = plain[start:]
        if _worth(len(body) * 3 // 4, start, _a2b_base64(body[:64])):
            yield ("base64",), _a2b_base64(body)


def _a2b_base64(body: bytes) -> bytes:
    if len(body) % 4 == 1:
        body = body[:-1]
    return binascii.a2b_base64(body + b"=" * (-len(body) % 4))


def _worth(size: int, start: int, sample: bytes) -> bool:
    """Whether a run whose decoded beginning is `sample` is worth decoding: it may be text, or large."""
    if sample.startswith(_MAGIC) or (start == 0 and size >= _LARGE):
        return True
    if len(sample.translate(None, _TEXT_BYTES)) * 12 > len(sample):
        return sample[1::2].count(0) * 3 > len(sample) or sample[::2].count(0) * 3 > len(sample)
    if sample.isascii():
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(sample) - 3
    return True


def _chunks(run: bytes) -> Iterator[Reading]:
    """Runs with separators in between: joined, they are one run. Words at either end may only look like part of it."""
    plain = (run if run[0] in _BASE64 else run[1:]).replace(b"\\r", b" ").replace(b"\\n", b" ")
    groups = plain.translate(_SPACED).split()
    for first, last in ((0, 0), (0, 1), (1, 0), (1, 1)):
        joined = b"".join(groups[first : len(groups) - last])
        if len(joined) >= _LEAST:
            yield from _based(joined)
    if b"-" in run or b"_" in run:
        yield from _base64(plain.translate(None, b"= \t\r\n.,:;|\\"))


def _prefixed(run: bytes) -> Iterator[Reading]:
    r"""0x76, 0x61 ...; \x76 is an escape."""
    digits = run.lower().replace(b"0x", b"").translate(None, _SEPARATORS)
    yield ("base16",), binascii.unhexlify(digits[: len(digits) // 2 * 2])


def _codes(run: bytes) -> Iterator[Reading]:
    """Character codes, in decimals or octals."""
    numbers = run.lstrip(_NOT_DIGITS).translate(bytes.maketrans(b",;:-|/\t\r\n", b" " * 9)).split()[:20_000]
    for base in (10, 8):
        try:
            codes = [int(number, base) for number in numbers]
        except ValueError:
            continue
        if max(codes) < 256:
            yield (("decimal",) if base == 10 else ("octal",)), bytes(codes)


_MORSE: Final = {
    ".-": "a", "-...": "b", "-.-.": "c", "-..": "d", ".": "e", "..-.": "f", "--.": "g", "....": "h", "..": "i",
    ".---": "j", "-.-": "k", ".-..": "l", "--": "m", "-.": "n", "---": "o", ".--.": "p", "--.-": "q", ".-.": "r",
    "...": "s", "-": "t", "..-": "u", "...-": "v", ".--": "w", "-..-": "x", "-.--": "y", "--..": "z",
    "-----": "0", ".----": "1", "..---": "2", "...--": "3", "....-": "4", ".....": "5", "-....": "6", "--...": "7",
    "---..": "8", "----.": "9", ".-.-.-": ".", "--..--": ",", "..--..": "?", "-....-": "-", ".--.-.": "@",
}  # fmt: skip


def _morse(run: bytes) -> Iterator[Reading]:
    words = run.decode().replace("|", "/").replace("   ", "/").split("/")
    read = [[_MORSE.get(sign, "?") for sign in word.split()] for word in words]
    text = " ".join("".join(word) for word in read if word)
    if text.count("?") * 5 <= len(text) and len(set(text)) > 4:
        yield ("morse",), text


def _spaced(run: bytes) -> Iterator[Reading]:
    """Letters set apart: a wider gap, or a space among other separators, ends a word."""
    text = run.decode()
    mixed = " " in text and not set(text[1::2]) <= {" "} and any(sign in text for sign in "._-*")
    for sign in "._-*":
        text = text.replace(sign, "\0")
    words = text.split(" ") if mixed else text.replace("\0", " ").split("  ")
    yield ("spaced",), " ".join(word.replace(" ", "").replace("\0", "") for word in words)


def _base85(run: bytes) -> Iterator[Reading]:
    body = run.removeprefix(b"<~").removesuffix(b"~>")
    if len(body) == len(run) and (len(run.translate(None, _BASE64)) < 3 or b"://" in run):
        return  # unframed, it must hold what the narrower alphabets do not
    for name, alphabet, decode in _BASE85:
        if body[:40].translate(None, alphabet):
            continue
        try:
            if _worth(0, 0, decode(body[:40])):
                yield (name,), decode(body)
        except ValueError:
            continue


_BASE85: Final = (
    ("ascii85", bytes(range(33, 118)) + b" z\r\n", base64.a85decode),
    ("base85", _LETTERS + b"0123456789!#$%&()*+-;<=>?@^_`{|}~", base64.b85decode),
)
_LEET: Final = str.maketrans("0134578@$!|+", "oieastbasiit")


def _leet(run: bytes) -> Iterator[Reading]:
    """Digits for letters: three words with digits among their letters, and what comes out looks like a language."""
    text = run.decode()
    told = text.translate(_LEET)
    if legible(told[:4096]) < 0.45:
        return
    mixed = (word for word in text[:4096].split(" ") if _is_leet(word) and _MIXED.search(word.encode()) is not None)
    if len(list(itertools.islice(mixed, 3))) == 3:
        yield ("leet",), told


def _is_leet(word: str) -> bool:
    core = word.strip(".,;:?!\"'()")
    letters = sum(map(str.isalpha, core))
    return 2 <= len(core) <= 24 and 0 < letters < len(core) and core.translate(_LEET).isalpha()


_MIXED: Final = regex.compiled_bytes("[A-Za-z][013457@$]+[A-Za-z]|[013457@$][A-Za-z]+[013457@$]")  # not 3rd, 7pm, b04
_RUN: Final = "[A-Za-z0-9+/]"
_GAP: Final = r"(?:[ ,.:;|_-] ?|\r?\n)"
_LEET_WORD: Final = "(?:[A-Za-z]+[013457@$]|[013457@$]+[A-Za-z])[A-Za-z013457@$]*"
_BETWEEN: Final = "[ ,.;:!?']+"


class Decoder(Struct, frozen=True):
    """What a kind of encoded run looks like, and what may be read in it.

    Attributes:
        found: Where it is, in a text that was made ASCII; a first character that no run has is not part of it.
        margin: Characters around it that belong to its reading.
        claims: What it reads, no later decoder needs to.
    """

    regex: str
    decode: Decode
    margin: int = 0
    claims: bool = False
    found: Any = None


_KINDS: Final = (
    # Runs of one length between separators. That they begin at a boundary keeps the automaton small.
    Decoder(
        "(?:^|[^A-Za-z0-9+/])(?:"
        + "|".join(
            f"(?:{_RUN}{{{size}}}{_GAP}){{{least},}}{_RUN}{{1,{size}}}"
            for size, least in ((1, 15), (2, 8), (3, 8), (4, 5), (5, 5), (6, 4), (8, 3), (10, 3))
        )
        + ")={0,2}",
        _chunks,
        claims=True,
    ),
    Decoder(
        r"(?:^|[^A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{12,}={0,2}[ \t]*(?:[,.:;|]|\r?\n|\\n)[ \t]*)+"
        "[A-Za-z0-9+/_-]+={0,2}",
        _chunks,
        claims=True,
    ),
    Decoder("[A-Za-z0-9+/_-]{16,}={0,2}", _token),
    Decoder("(?:0[xX][0-9A-Fa-f]{2}[ ,;]{0,2}){6,}", _prefixed),
    Decoder("(?:^|[^0-9])(?:[0-9]{2,3}(?:[ ,;:|/-] ?)){7,}[0-9]{2,3}", _codes),
    Decoder(r"(?:[.-]{1,6}(?: |/| / |   | \| )){8,}[.-]{1,6}", _morse),
    Decoder("(?:[A-Za-z0-9][ ._*-]{1,3}){6,}[A-Za-z0-9]", _spaced),
    Decoder(r"<~[!-z \r\n]{8,}~>|[0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]{25,}|[!-u]{40,}", _base85),
    Decoder(f"(?:{_LEET_WORD}{_BETWEEN}(?:[A-Za-z0-9']+{_BETWEEN}){{0,3}}){{2,}}{_LEET_WORD}", _leet, margin=120),
)
DECODERS: Final = tuple(structs.replace(kind, found=regex.compiled_bytes(kind.regex)) for kind in _KINDS)

# Looked for in groups, each of which makes a small automaton on any text; all in one would make a large one.
# The last two want three signs that prose has few of.
_GROUPS: Final = tuple(
    (regex.compiled_set([_KINDS[number].regex for number in group]), group, signs)
    for group, signs in (((0,), b""), ((1, 2, 3, 4, 5, 6), b""), ((7,), b"!#$%&()*;<>?@^`{|}~"), ((8,), b"013457@$"))
)


def candidates(data: bytes, among: Sequence[int] | None = None) -> list[int]:
    """Numbers of the decoders for which there is something in `data`.

    Args:
        among: Those of a text that this is a part of, to be spared looking for more.
    """
    hits: list[int] = []
    for found, group, signs in _GROUPS:
        if among is not None and not any(number in among for number in group):
            continue
        if not signs or len(data) - len(data.translate(None, signs)) >= 3:
            hits.extend(group[hit] for hit in found.Match(data) or ())
    return sorted(hits)
