"""Evidence: where a finding rests, with an excerpt that is safe to show."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from sidecar.core.events import Event
from sidecar.core.findings import Evidence
from sidecar.core.reading import Piece
from sidecar.core.text.normalise import fold

Find = Callable[[str, str], list[tuple[int, int]]]
Sign = Callable[[str], str]

MAX_EXCERPT = 160
_DIGITS = str.maketrans("0123456789", "##########")


def unkeyed(text: str) -> str:
    """A hash without a key: for examples and replays, where nothing is kept."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def cite(event: Event, piece: Piece, start: int, end: int, sign: Sign, *, secret: bool = False) -> Evidence:
    """Evidence for a passage of a piece.

    Args:
        start, end: Character offsets in `piece.folded`.
        secret: The passage itself must not be shown, only its first two characters and its length.
    """
    if piece.how:  # what was matched is a decoded view: the evidence is the encoded text as a whole
        first, last = piece.at, piece.at + len(piece.text)
        shown = f"({' of '.join(piece.how)}) {piece.folded[start:end]}"
    else:
        folded = fold(piece.text)
        first, last = piece.at + folded.original(start), piece.at + folded.original(end)
        shown = piece.text[first - piece.at : last - piece.at]
    excerpt = f"{shown[:2]}… ({len(shown)} characters)" if secret else redact(shown)
    place = event.spans[0] if event.spans else ""
    return Evidence(place, piece.field, first, last, excerpt, sign(piece.folded[start:end]))


def redact(text: str) -> str:
    """`text` on one line, at most `MAX_EXCERPT` characters, digits and long tokens masked, controls made visible."""
    words = []
    for word in text[: 4 * MAX_EXCERPT].split():
        masked = word.translate(_DIGITS)
        if len(word) >= 20 and "://" not in word and "@" not in word:
            masked = f"{masked[:4]}…"
        words.append("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in masked))
    line = " ".join(words)
    return line if len(line) <= MAX_EXCERPT else line[: MAX_EXCERPT - 1] + "…"
