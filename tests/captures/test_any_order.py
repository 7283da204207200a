"""Whole events are equal in whatever order a capture's records come, how often, how late, and in how many words.

`SIDECAR_PERMUTATIONS=500` (`make permutations`) plays so many arrivals of every capture; without it a few.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.captures import any_order
from tests.captures.any_order import KINDS

pytestmark = pytest.mark.corpora
PERMUTATIONS = int(os.environ.get("SIDECAR_PERMUTATIONS", "0"))
FAMILIES = 8
"""Parts that all captures are cut into, so that a failure is seen early and parts can run beside each other."""


@pytest.mark.timeout(120 + 60 * PERMUTATIONS)
@pytest.mark.parametrize("part", range(FAMILIES))
def test_whole_events_are_equal_however_they_come(shared: Path, part: int) -> None:
    """Shuffled, cut anywhere, replayed, the session named last, late, told by two libraries, contradicted."""
    played, wrong = dict.fromkeys(KINDS, 0), {}
    for n, stem in enumerate(any_order.stems(shared)[part::FAMILIES]):
        spans = any_order.load(shared, stem)
        if len(spans) < 2:
            continue
        for seed in range(PERMUTATIONS or 1):
            kind = KINDS[(n + seed) % len(KINDS)]
            found = any_order.violations(spans, f"{stem} {seed}", kind)
            if found is None:
                kind = "shuffled"
                found = any_order.violations(spans, f"{stem} {seed}", kind)
            played[kind] += 1
            if found:
                wrong[f"{stem} {seed} {kind}"] = found
    assert not wrong, f"{len(wrong)} arrivals differ, such as {list(wrong.items())[:3]}"
    assert all(played.values()) or not PERMUTATIONS, played
    assert sum(played.values()) >= 20 * max(1, PERMUTATIONS)
