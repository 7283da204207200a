"""Patterns of `*` and `?` over names that agents give: linear work, no regular expression behind them."""

from __future__ import annotations


def fits(glob: str, name: str) -> bool:
    """Whether a pattern of `*` and `?` fits the whole name, in at most the product of their lengths."""
    at = place = 0
    star, after = -1, 0
    while place < len(name):
        if at < len(glob) and glob[at] == "*":
            star, after = at, place
            at += 1
        elif at < len(glob) and glob[at] in ("?", name[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            after += 1
            at, place = star + 1, after
        else:
            return False
    return not glob[at:].strip("*")
