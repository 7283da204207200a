"""The reference that the pipeline is measured against finds and decides what the pipeline does, and is the slow way."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest

from benchmarks import mix, reference
from benchmarks.shipped import Shipped
from sidecar.core.pipeline import Outcome
from sidecar.core.text.scan import Pattern

SCENES = 6 * len(mix.SCENES)
"""So many sessions hold each scene once."""
KNOWN = mix.agent_of(3)
"""The agent whose models know it, so that they judge it."""


class Played(NamedTuple):
    """A cut of the mix with every scene in it, played to both."""

    shipped: Shipped
    slow: reference.Reference
    outcomes: tuple[list[Outcome], list[Outcome]]


@pytest.fixture(scope="module")
def played() -> Played:
    played = Played(Shipped(), reference.Reference(), ([], []))
    known = mix.requests(mix.warm_up(800, agents=[KNOWN]))
    for body in [*known, *mix.requests(mix.spans(50 * SCENES, sessions=SCENES))]:
        now_ns = mix.arrival_ns(body)
        for side, outcomes in zip((played.shipped, played.slow), played.outcomes, strict=True):
            outcomes.extend(side.take(body, now_ns))
    return played


def told(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    return [(outcome.findings, outcome.decisions, len(outcome.events)) for outcome in outcomes]


def scores(side: Shipped | reference.Reference) -> list[float]:
    """What the forest of the agent that is known gave its acts before it learned them."""
    [state] = [state for (_, role), state in side.pipeline.engine.agents.items() if role == mix.role(KNOWN)]
    assert state.states["half_space_trees"].is_mature
    return list(state.states["half_space_trees"]._recent)


def test_both_come_to_the_same_findings_and_decisions(played: Played) -> None:
    shipped, slow = played.outcomes
    assert told(shipped) == told(slow)


def test_their_forests_give_the_same_scores_to_the_last_bit(played: Played) -> None:
    assert scores(played.shipped) == scores(played.slow)
    assert len(set(scores(played.slow))) > 100


def test_the_cut_has_findings_of_every_kind_of_content(played: Played) -> None:
    kinds = Counter(finding.detector for outcome in played.outcomes[0] for finding in outcome.findings)
    assert {"sensitive_flow", "leverage", "outside_recipient", "conflicting_duplicate"} <= set(kinds)


def test_patterns_match_with_re_where_re2_matches() -> None:
    patterns = reference.Patterns([Pattern("end", r"abc\z"), Pattern("mark", r"a\x{2B}b"), Pattern("back", r"\\z")])
    assert patterns.match("xabc") == ("end",)
    assert patterns.match("abc\n") == ()
    assert patterns.match("a+b") == ("mark",)
    assert patterns.match("\\z") == ("back",)
    assert patterns.find("mark", "a+b a+b", limit=1) == [(0, 3)]
