"""What a fault test says of a promise: one JSON line, with how often the fault fell where it was meant to fall."""

from __future__ import annotations

import json
import math
import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
from msgspec import Struct, field


class Report(Struct, kw_only=True):
    """Figures of one promise.

    Attributes:
        runs: Rounds with the fault.
        armed: Of these, rounds in which the fault fell inside the window that the promise is about.
        violations: What did not hold, by name, in those rounds.
        control_runs: Rounds with the protecting line off.
        control: What did not hold in those; a promise counts only where something did not.
        of: What `samples` are of, with their unit; p50, p99 and max are taken from them.
        figures: Whatever else the promise has to report.
    """

    promise: str
    runs: int = 0
    armed: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    control_runs: int = 0
    control: Counter[str] = field(default_factory=Counter)
    of: str = ""
    samples: list[float] = []
    figures: dict[str, Any] = {}

    def add(self, more: Report) -> None:
        """Takes in the rounds of another report of the same kind; figures that are numbers are added up."""
        self.runs, self.armed = self.runs + more.runs, self.armed + more.armed
        self.violations += more.violations
        self.of, self.samples = self.of or more.of, self.samples + more.samples
        for name, figure in more.figures.items():
            self.figures[name] = self.figures.get(name, 0) + figure if isinstance(figure, int) else figure

    def line(self) -> str:
        """The report, as JSON."""
        told = {
            "promise": self.promise,
            "runs": self.runs,
            "armed": self.armed,
            "control": {"runs": self.control_runs, "violations": self.control.total(), "by": dict(+self.control)},
            "violations": self.violations.total(),
            "by": dict(+self.violations),
            "of": self.of,
            "p50": percentile(self.samples, 50),
            "p99": percentile(self.samples, 99),
            "max": percentile(self.samples, 100),
            **self.figures,
            "machine": machine(),
        }
        return json.dumps(told, default=str)


def percentile(samples: Sequence[float], percent: float) -> float | None:
    """The sample that `percent` of them do not exceed; None of none."""
    if not samples:
        return None
    return round(sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)], 5)


def machine() -> str:
    """Where it ran."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores of {model}, {memory_gib:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}, load {os.getloadavg()[0]:.1f}"
    )
