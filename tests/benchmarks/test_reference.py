"""The reference that the pipeline is measured against finds and decides what the pipeline does, and is the slow way."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from benchmarks import mix, reference
from benchmarks.shipped import Shipped
from sidecar.core.pipeline import Outcome
from sidecar.core.text.scan import Pattern

SCENES = 6 * len(mix.SCENES)
"""So many sessions hold each scene once."""
KNOWN = mix.agent_of(6 * mix.SCENES.index(mix.secret_posted) + 3)
"""The agent whose models know it, so that they can find something odd."""


def told(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    return [(outcome.findings, outcome.decisions, len(outcome.events)) for outcome in outcomes]


@pytest.fixture(scope="module")
def played() -> tuple[list[Outcome], list[Outcome], float]:
    """All outcomes of both on a cut of the mix with every scene in it, and how much more time the reference took."""
    shipped, slow = Shipped(), reference.Reference()
    spent = [0, 0]
    outcomes: tuple[list[Outcome], list[Outcome]] = ([], [])
    known = mix.requests(mix.warm_up(800, agents=[KNOWN]))
    for body in [*known, *mix.requests(mix.spans(50 * SCENES, sessions=SCENES))]:
        now_ns = mix.arrival_ns(body)
        for number, side in enumerate((shipped, slow)):
            began_ns = time.process_time_ns()
            outcomes[number].extend(side.take(body, now_ns))
            spent[number] += time.process_time_ns() - began_ns
    return *outcomes, spent[1] / spent[0]


def test_both_come_to_the_same_findings_and_decisions(played: tuple[list[Outcome], list[Outcome], float]) -> None:
    shipped, slow, _ = played
    assert told(shipped) == told(slow)


def test_the_cut_has_findings_of_every_family_that_the_mix_is_to_have(
    played: tuple[list[Outcome], list[Outcome], float],
) -> None:
    shipped, _, _ = played
    kinds = Counter(finding.detector for outcome in shipped for finding in outcome.findings)
    assert {"sensitive_flow", "leverage", "outside_recipient", "half_space_trees", "conflicting_duplicate"} <= set(
        kinds
    )


def test_patterns_match_with_re_where_re2_matches() -> None:
    patterns = reference.Patterns([Pattern("end", r"abc\z"), Pattern("mark", r"a\x{2B}b"), Pattern("back", r"\\z")])
    assert patterns.match("xabc") == ("end",)
    assert patterns.match("abc\n") == ()
    assert patterns.match("a+b") == ("mark",)
    assert patterns.match("\\z") == ("back",)
    assert patterns.find("mark", "a+b a+b", limit=1) == [(0, 3)]
