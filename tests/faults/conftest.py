"""Fault tests: each injects a real fault into whole processes and counts what of a promise did not hold.

Short forms run with all tests; ``pytest tests/faults --full-rounds -s`` runs them at the round counts of the promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.process import Sidecar
from tests.faults.report import Report

HERE = Path(__file__).parent
LONGEST_S = 6 * 3600


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-rounds", action="store_true", help="fault tests at the round counts of the promises")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
            if config.getoption("--full-rounds", default=False):
                item.add_marker(pytest.mark.timeout(LONGEST_S))


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the round counts of the promises are asked for."""
    return bool(request.config.getoption("--full-rounds", default=False))


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[Report], None]:
    """Prints a report's line, whatever is captured."""

    def printed(report: Report) -> None:
        with capsys.disabled():
            print("\n" + report.line(), flush=True)

    return printed


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Callable[..., Sidecar]]:
    """Makes sidecars, each on a data directory of its own."""
    made: list[Sidecar] = []

    def make(name: str = "sidecar", **options: object) -> Sidecar:
        folder = tmp_path / name
        folder.mkdir()
        one = Sidecar(folder, **options)
        made.append(one)
        return one

    try:
        yield make
    finally:
        for one in made:
            one.kill()
