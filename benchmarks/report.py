"""What a benchmark says: figures, each a ratio within one run where there is one, with its absolute value beside it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from msgspec import Struct


class Figure(Struct, frozen=True, kw_only=True):
    """One line of the report.

    Attributes:
        value: What the target is about: a ratio where that is possible.
        target: The bound, None for a figure that is stated and not judged.
        at_least: Whether `value` is to reach the target; else it must not exceed it.
        beside: The absolute values that belong to it.
    """

    name: str
    value: float
    unit: str = ""
    target: float | None = None
    at_least: bool = False
    beside: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or ``""`` where nothing is asked."""
        if self.target is None:
            return ""
        good = self.value >= self.target if self.at_least else self.value <= self.target
        return "met" if good else "missed"

    @property
    def wanted(self) -> str:
        """The target in words."""
        if self.target is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {number(self.target)} {self.unit}".rstrip()


def number(value: float) -> str:
    """A figure with as many digits as it deserves."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": {name: version(name) for name in ("grpcio", "protobuf", "hyperscan", "river", "apsw", "msgspec")},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as told:
            return next(line.split(":", 1)[1].strip() for line in told if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
