"""Half-space trees as river grows them, kept flat: scores are river's to the last bit, at a fraction of the time.

The trees' shape depends on the seed alone and is shared by all forests; what a forest learns are counts, one for each
leaf. Its masses depend on the last one to two windows of what it learned (reliability.md M13): a forest is stored as
those vectors and made again by learning them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from msgspec import Struct

from sidecar.core.features.behaviour import NAMES

TREES, HEIGHT, WINDOW, SEED = 10, 8, 250, 42
"""The paper's and river's defaults: Tan, Ting & Liu, "Fast Anomaly Detection for Streaming Data", IJCAI 2011."""
LEAVES = 2**HEIGHT
_ENOUGH = 0.1 * WINDOW
"""Mass of a node below which the search for a score ends there (the paper's SizeLimit)."""
LARGEST: int = TREES * WINDOW * (2 ** (HEIGHT + 1) - 1)

Vector = Sequence[float]


class Shape(Struct, frozen=True):
    """Where trees divide space. A node is (feature, threshold, below, at or above); at the bottom stand the leaves'
    numbers, counted through all trees."""

    trees: tuple[Any, ...]

    def leaves(self, vector: Vector) -> list[int]:
        """The leaf of each tree that `vector` falls into."""
        found = []
        for node in self.trees:
            for _ in range(HEIGHT):
                feature, threshold, below, above = node
                node = below if vector[feature] < threshold else above
            found.append(node)
        return found


@cache
def grow() -> Shape:
    """The trees that river grows from `SEED`. Takes about 13 ms once, and imports river."""
    from river.anomaly import HalfSpaceTrees

    forest: Any = HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=WINDOW, seed=SEED)
    forest.learn_one(dict.fromkeys(NAMES, 0.0))  # river grows the trees when the first vector is learned
    places = {name: place for place, name in enumerate(NAMES)}

    def flat(node: Any, first: int, count: int) -> Any:
        if count == 1:
            return first
        below, above = node.children
        half = count // 2
        return places[node.feature], node.threshold, flat(below, first, half), flat(above, first + half, half)

    return Shape(tuple(flat(tree, number * LEAVES, LEAVES) for number, tree in enumerate(forest.trees)))


class Forest:
    """Half-space trees over `behaviour.NAMES`, 0..1 each. Memory: two numbers a leaf, 40 KB, and 2 * `WINDOW` vectors.

    Args:
        grow: Gives the trees, or None when they are not ready yet; what is learned meanwhile waits (at most two
            windows of it) and is learned as soon as they are.
    """

    def __init__(self, grow: Callable[[], Any] = grow) -> None:
        self._grow = grow
        self._shape: Shape | None = None
        self._counts: list[int] = []
        self._scores: list[int] = []
        self._before: list[Vector] = []
        self._now: list[Vector] = []
        self._placed: tuple[Vector, list[int]] = ((), [])
        self.learned = 0

    @property
    def is_warm(self) -> bool:
        """Whether a whole window has been learned, so that scores mean something."""
        return self._shape is not None and bool(self._before)

    def score(self, vector: Vector) -> float:
        """0..1, higher is odder; 0 until warm."""
        if not self.is_warm:
            return 0.0
        scores = self._scores
        mass: int = sum([scores[leaf] for leaf in self._leaves(vector)])
        return 1.0 - mass / LARGEST

    def learn(self, vector: Vector) -> None:
        """Takes in one vector."""
        self.learned += 1
        self._now.append(tuple(vector))
        if self._shape is None:
            self._start()
        else:
            for leaf in self._leaves(vector):
                self._counts[leaf] += 1
        if len(self._now) >= WINDOW:
            self._before, self._now = self._now, []
            self._turn()

    def dump(self) -> dict[str, Any]:
        """Plain data that `load` makes the same forest of."""
        return {"names": NAMES, "before": self._before, "now": self._now, "learned": self.learned}

    def load(self, state: dict[str, Any]) -> None:
        """Takes back a dump.

        Raises:
            ValueError: It was made with other features, or a number in it is not within 0..1.
        """
        if tuple(state["names"]) != NAMES:
            raise ValueError("the forest was stored with other features")
        rows: list[Vector] = [tuple(map(float, row)) for row in (*state["before"], *state["now"])]
        if any(len(row) != len(NAMES) or not all(0.0 <= x <= 1.0 for x in row) for row in rows):
            raise ValueError("a stored feature is not within 0..1")
        cut = len(state["before"])
        if cut not in (0, WINDOW) or len(state["now"]) >= WINDOW:
            raise ValueError("the stored windows are incomplete")
        self._before, self._now, self.learned = rows[:cut], rows[cut:], int(state["learned"])
        self._start()

    def _start(self) -> None:
        self._shape = self._grow()
        if self._shape is None:
            return
        self._counts, self._scores = [0] * (TREES * LEAVES), [0] * (TREES * LEAVES)
        for vector in self._before:
            self._count(vector)
        if self._before:
            self._turn()
        for vector in self._now:
            self._count(vector)

    def _count(self, vector: Vector) -> None:
        for leaf in self._leaves(vector):
            self._counts[leaf] += 1

    def _leaves(self, vector: Vector) -> list[int]:
        """A vector is scored and then learned: the second time its leaves are known."""
        assert self._shape is not None
        if self._placed[0] is not vector:
            self._placed = (vector, self._shape.leaves(vector))
        return self._placed[1]

    def _turn(self) -> None:
        """A window is full: what was counted becomes the masses that scores are made of, leaf by leaf."""
        if self._shape is None:
            return
        masses = [np.array(self._counts, np.int64).reshape(TREES, LEAVES)]
        for _ in range(HEIGHT):
            masses.append(masses[-1].reshape(TREES, -1, 2).sum(axis=2))
        score = np.zeros((TREES, 1), np.int64)
        deep = np.ones((TREES, 1), np.bool_)  # whether the search for a score comes so far
        for depth, mass in enumerate(reversed(masses)):
            if depth:
                score, deep = np.repeat(score, 2, axis=1), np.repeat(deep, 2, axis=1)
            score = score + np.where(deep, mass << depth, 0)
            deep = deep & (mass >= _ENOUGH)
        self._scores = score.ravel().tolist()
        self._counts = [0] * (TREES * LEAVES)
