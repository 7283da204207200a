"""Leverage on texts that are made to be slow: the work grows with their length, not with its square."""

from __future__ import annotations

from typing import Any

from sidecar.core.detectors.leverage import _near


class Place(tuple[int, int]):
    """A place that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __getitem__(self, index: Any) -> Any:
        Place.looks += 1
        return super().__getitem__(index)


def test_many_matches_far_apart_are_compared_in_one_pass() -> None:
    ends = [Place((at, at + 1)) for at in range(0, 4_000, 2)]
    selves = [Place((at, at + 1)) for at in range(50_000, 54_000, 2)]
    Place.looks = 0
    assert not _near({"end": ends, "self": selves}, "end", "self")
    assert 0 < Place.looks <= 4 * (len(ends) + len(selves))


def test_matches_are_near_whichever_comes_first_and_in_whatever_order_they_are_told() -> None:
    assert _near({"a": [(900, 905), (10, 12)], "b": [(100, 103)]}, "a", "b")
    assert _near({"a": [(100, 103)], "b": [(10, 12)]}, "a", "b", within=90)
    assert not _near({"a": [(100, 103)], "b": [(10, 12)]}, "a", "b", within=89)
    assert not _near({"a": [(100, 103)]}, "a", "b")
