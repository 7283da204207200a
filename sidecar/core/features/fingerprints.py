"""Fingerprints of texts by which a piece is known again, whatever stands between its letters.

Letters and digits of the folded text are hashed in windows of `WINDOW`; of the hashes those are kept whose low bits
are zero, so that the same passage keeps the same ones wherever it stands (Manber, "Finding similar files", 1994).
"""

from __future__ import annotations

from array import array

import numpy as np

WINDOW = 20
"""Letters and digits a window spans: shorter than a bank account number with its holder, longer than a common word."""
KEEP_ONE_IN = 4
"""A power of two."""
MAX_CHARACTERS = 65_536
MAX_KEPT = 4096

_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_MIX = np.uint64(0xFF51AFD7ED558CCD)


def _powers(count: int, base: np.uint64) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    out = np.empty(count, np.uint64)
    out[0] = 1
    with np.errstate(over="ignore"):
        np.multiply.accumulate(np.full(count - 1, base, np.uint64), out=out[1:])
    return out


_POWER = _powers(4 * MAX_CHARACTERS + WINDOW, _BASE)
_INVERSE = _powers(4 * MAX_CHARACTERS + WINDOW, np.uint64(pow(int(_BASE), -1, 2**64)))


def fingerprints(letters: str) -> array[int]:
    """Ascending 64-bit fingerprints of a text that holds letters and digits only; at most `MAX_KEPT`.

    Args:
        letters: `text.normalise.separator_free` of a folded text; of more than `MAX_CHARACTERS` the head and the tail.
    """
    if len(letters) > MAX_CHARACTERS:
        letters = letters[: MAX_CHARACTERS // 2] + letters[-MAX_CHARACTERS // 2 :]
    raw = np.frombuffer(letters.encode("utf-8", "replace"), np.uint8).astype(np.uint64)
    if raw.size < WINDOW:
        return array("Q")
    with np.errstate(over="ignore"):
        sums = np.zeros(raw.size + 1, np.uint64)
        np.cumsum(raw * _POWER[: raw.size], out=sums[1:])
        hashes = (sums[WINDOW:] - sums[:-WINDOW]) * _INVERSE[: raw.size - WINDOW + 1] * _MIX
    hashes ^= hashes >> np.uint64(33)
    kept = np.unique(hashes[(hashes & np.uint64(KEEP_ONE_IN - 1)) == 0])
    if kept.size > MAX_KEPT:
        kept = np.sort(kept[np.argsort(kept * _MIX, kind="stable")[:MAX_KEPT]])
    return array("Q", kept.tobytes())
