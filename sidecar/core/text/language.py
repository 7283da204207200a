"""What letters tell of language without knowing any: neighbours that are common, and text too dense to be one."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

ABC: Final = "abcdefghijklmnopqrstuvwxyz"

# Pairs of letters that are common in English, Spanish, French, German, Italian, Portuguese or Dutch.
_PAIRS: Final = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic "
    "ne ea ra ce li ch ll be ma si om ur la el ei ie di ge un os ad ue ci us qu ai do ss ta no so da em ee ij sc il lo "
    "ns pa pe po pr mi am tr ca et ut su wa we wh yo fo by my up if go ke ki ac id ol oo ow"
)


_AT: Final = np.full(256, -1, np.int16)
for _place, _letter in enumerate(ABC):
    _AT[ord(_letter)] = _AT[ord(_letter.upper())] = _place
_COMMON: Final = np.zeros((26, 26))
for _pair in _PAIRS.split():
    _COMMON[_AT[ord(_pair[0])], _AT[ord(_pair[1])]] = 1
# Which pairs are common once they are rotated by 0 to 25, and mirrored.
_TURNED: Final = np.array(
    [np.roll(_COMMON, (-turn, -turn), (0, 1)).ravel() for turn in range(26)] + [_COMMON[::-1, ::-1].ravel()]
)


def _pairs(text: str) -> npt.NDArray[np.int64]:
    """How often each pair of ASCII letters stands in `text`, 26 by 26."""
    letters = _AT[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]
    both = (letters[:-1] >= 0) & (letters[1:] >= 0)
    return np.bincount(letters[:-1][both] * 26 + letters[1:][both], minlength=676)


def legible(text: str) -> float:
    """Share of its neighbouring ASCII letters that are a common pair in a European language, 0..1.

    About 0.7 for prose and 0.2 for shuffled or rotated letters; 1 where there are fewer than 8 such pairs to judge.
    """
    pairs = _pairs(text)
    count = int(pairs.sum())
    return float((_COMMON.ravel() @ pairs) / count) if count >= 8 else 1.0


def likeliest_turn(text: str) -> int:
    """By how many letters the alphabet must be turned for `text` to look most like a language; 26 is its mirror."""
    return int((_TURNED @ _pairs(text[:4096])).argmax())


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
    letters = _AT[codes]
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
