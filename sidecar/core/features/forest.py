"""River's half-space trees, made ahead of time and kept as plain data.

The trees' shape depends on the seed alone, and their masses on the last one to two windows of what they learned
(reliability.md M13): a forest is stored as those vectors and made again by learning them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sidecar.core.features.behaviour import NAMES

TREES, HEIGHT, WINDOW, SEED = 10, 8, 250, 42
"""The paper's and river's defaults: Tan, Ting & Liu, "Fast Anomaly Detection for Streaming Data", IJCAI 2011."""

Vector = Sequence[float]


def grow() -> Any:
    """A forest that has its trees and has learned nothing: takes about 13 ms, and imports river the first time.

    River grows the trees when the first vector is learned; that one is taken out again.
    """
    from river.anomaly import HalfSpaceTrees

    forest: Any = HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=WINDOW, seed=SEED)
    forest.learn_one(dict.fromkeys(NAMES, 0.0))
    for tree in forest.trees:
        for node in tree.iter_dfs():
            node.l_mass = 0
    forest.counter = 0
    return forest


class Forest:
    """Half-space trees over `behaviour.NAMES`, 0..1 each. Memory: 1.1 MB of trees and 2 * `WINDOW` vectors.

    Args:
        grow: Gives a fresh forest, or None when none is ready yet; what is learned meanwhile waits (at most two
            windows of it) and is learned as soon as there is one.
    """

    def __init__(self, grow: Callable[[], Any] = grow) -> None:
        self._grow = grow
        self._trees: Any = None
        self._before: list[Vector] = []
        self._now: list[Vector] = []
        self.learned = 0

    @property
    def is_warm(self) -> bool:
        """Whether a whole window has been learned, so that scores mean something."""
        return self._trees is not None and bool(self._before)

    def score(self, vector: Vector) -> float:
        """0..1, higher is odder; 0 until warm."""
        if not self.is_warm:
            return 0.0
        return float(self._trees.score_one(dict(zip(NAMES, vector, strict=True))))

    def learn(self, vector: Vector) -> None:
        """Takes in one vector."""
        self.learned += 1
        self._now.append(tuple(vector))
        if self._trees is None:
            self._start()
        else:
            self._trees.learn_one(dict(zip(NAMES, vector, strict=True)))
        if len(self._now) >= WINDOW:
            self._before, self._now = self._now, []

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
        if (trees := self._grow()) is None:
            return
        for vector in (*self._before, *self._now):
            trees.learn_one(dict(zip(NAMES, vector, strict=True)))
        self._trees = trees
