"""The benchmark of the mappers measures what it says; its ratios hold with room for a busy machine."""

from __future__ import annotations

import itertools
import json

from benchmarks import mapping
from benchmarks.report import Figure


def test_history_is_told_anew_with_every_call_and_grows_to_its_size():
    told = [json.loads(span.attributes["gen_ai.input.messages"]) for span in mapping.repeated(calls=12, size=60_000)]
    assert all(later[: len(earlier)] == earlier for earlier, later in itertools.pairwise(told))
    sizes = [len(json.dumps(history)) for history in told]
    assert sizes == sorted(sizes)
    assert 50_000 < sizes[-1] < 60_000


def test_mapping_and_long_histories_cost_no_multiple_of_their_targets():
    figures = [figure for figure in mapping.figures(quick=True) if figure.target is not None]
    assert len(figures) == 3
    assert all(figure.value <= 3 * (figure.target or 0) for figure in figures), [*map(_told, figures)]


def _told(figure: Figure) -> str:
    return f"{figure.name}: {figure.value:.2f}"
