"""The flat forest is river's: the same trees, the same scores to the last bit, however it came by what it knows."""

from __future__ import annotations

import random
from typing import Any

import pytest
from river.anomaly import HalfSpaceTrees

from sidecar.core.features.behaviour import NAMES
from sidecar.core.features.forest import HEIGHT, SEED, TREES, WINDOW, Forest, Vector, grow


def vectors(count: int) -> list[Vector]:
    """Two kinds of acts, one dense and one anywhere; edges of the range among them."""
    chance = random.Random(7)
    usual = [chance.random() for _ in NAMES]
    return [
        tuple(min(1.0, max(0.0, x + chance.gauss(0, 0.04))) for x in usual)
        if number % 4
        else tuple(chance.choice((0.0, 1.0, chance.random())) for _ in NAMES)
        for number in range(count)
    ]


def rivers() -> Any:
    return HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=WINDOW, seed=SEED)


def test_scores_are_rivers_to_the_last_bit() -> None:
    river, flat, seen = rivers(), Forest(), set()
    for vector in vectors(3 * WINDOW + 20):
        told = dict(zip(NAMES, vector, strict=True))
        assert flat.score(vector) == river.score_one(told)
        seen.add(flat.score(vector))
        river.learn_one(told)
        flat.learn(vector)
    assert len(seen) > 100


@pytest.mark.parametrize("count", [3, WINDOW, WINDOW + 90, 3 * WINDOW - 1])
def test_a_forest_that_was_stored_scores_and_learns_as_before(count: int) -> None:
    first, second = Forest(), Forest()
    *learned, later = vectors(count + 1)
    for vector in learned:
        first.learn(vector)
    second.load(first.dump())
    for vector in [later, *learned[:WINDOW]]:
        assert second.score(vector) == first.score(vector)
        first.learn(vector)
        second.learn(vector)


def test_what_is_learned_before_the_trees_are_there_is_not_lost() -> None:
    waited, ready = Forest(lambda: None), Forest()
    *learned, later = vectors(2 * WINDOW + 31)
    for vector in learned:
        waited.learn(vector)
        ready.learn(vector)
        assert waited.score(vector) == 0.0
    waited._grow = grow
    waited.learn(later)
    ready.learn(later)
    assert waited.score(later) == ready.score(later) > 0.0
