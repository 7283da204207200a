"""What doctor says of real frameworks is what the coverage page says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import make_coverage_page

pytestmark = pytest.mark.corpora


def test_the_figures_of_the_coverage_page_are_those_of_the_captures(shared: Path) -> None:
    now = make_coverage_page.measure(shared / "captures")
    kept = make_coverage_page.figures()
    assert list(now) == list(kept)
    changed = {pair: (kept[pair], now[pair]) for pair in now if kept[pair] != now[pair]}
    assert not changed, "python -m scripts.make_coverage_page --captures"
    assert make_coverage_page.written(now) == make_coverage_page.FIGURES.read_text("utf-8")
