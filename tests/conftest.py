"""What all tests share: the folder of shared material, and an honest account of what was skipped.

A test that needs something this machine has not got is skipped with a reason that names it, and the names are counted
at the end. Under ``CI=true`` a skip fails the run, with one exception: the shared folder lies outside the repository,
so its absence is named and counted and fails nothing. Reasons for that begin with `NO_SHARED`.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# A deadline would be an absolute time; under CI every run is the same.
settings.register_profile("here", deadline=None, derandomize=os.environ.get("CI", "").lower() == "true")
settings.load_profile("here")

pytest_plugins = ["tests.real.parts"]

NO_SHARED = "shared folder"
NO_PART = "real part not to be had here: "


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of captures and corpora; tests that want it are skipped where there is none."""
    folder = Path(os.environ.get("SIDECAR_SHARED", "../shared"))
    if not (folder / "captures").is_dir():
        pytest.skip(f"{NO_SHARED}: no SIDECAR_SHARED")
    return folder.resolve()


class Skips:
    """Counts skipped tests by reason."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test, or its set-up."""
        self._count(report, hasattr(report, "wasxfail"))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A whole module."""
        self._count(report, False)

    def _count(self, report: pytest.TestReport | pytest.CollectReport, was_expected: bool) -> None:
        if report.skipped and not was_expected:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons[reason.removeprefix("Skipped: ")] += 1

    def failing(self) -> Counter[str]:
        """Those that CI does not let pass."""
        return Counter({reason: n for reason, n in self.reasons.items() if not reason.startswith(NO_SHARED)})


SKIPS = pytest.StashKey[Skips]()


def pytest_configure(config: pytest.Config) -> None:
    """Starts counting."""
    config.stash[SKIPS] = Skips()
    config.pluginmanager.register(config.stash[SKIPS], "sidecar-skips")


def is_ci() -> bool:
    """Whether a skip is a failure."""
    return os.environ.get("CI", "").lower() == "true"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI, makes a run with skips a failed one."""
    if is_ci() and session.exitstatus == pytest.ExitCode.OK and session.config.stash[SKIPS].failing():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says by name what was not there."""
    skips = config.stash[SKIPS]

    def told(reasons: Counter[str]) -> str:
        return "; ".join(f"{reason} ({n} {'test' if n == 1 else 'tests'})" for reason, n in sorted(reasons.items()))

    parts = Counter({why.removeprefix(NO_PART): n for why, n in skips.reasons.items() if why.startswith(NO_PART)})
    if parts:
        terminalreporter.write_line(f"real parts not to be had here: {told(parts)}", yellow=True)
    if others := Counter({why: n for why, n in skips.reasons.items() if not why.startswith(NO_PART)}):
        terminalreporter.write_line(f"skipped: {told(others)}", yellow=True)
    if is_ci() and (failing := skips.failing()):
        terminalreporter.write_line(f"CI=true: {sum(failing.values())} skipped, which fails the run", red=True)
