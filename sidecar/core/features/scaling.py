"""Squashes numbers into 0..1 by fixed ranges, so that one extreme value cannot move the scale (reliability.md M1)."""

from __future__ import annotations

import math


def squash(value: float, half: float) -> float:
    """``value / (value + half)``: 0 at 0, 0.5 at `half`, 1 at infinity; what is negative or no number is 0."""
    if not value > 0.0:
        return 0.0
    return 1.0 if math.isinf(value) else value / (value + half)


def clip(value: float) -> float:
    """`value` within 0..1; what is no number is 1, the oddest."""
    if value != value:
        return 1.0
    return 0.0 if value < 0.0 else min(value, 1.0)
