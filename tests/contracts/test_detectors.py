"""Every detector keeps its word: examples, purity, bounds, dump and load. A new one is tested by being in the list."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.assembly import patterns
from sidecar.core.detectors import SHIPPED
from sidecar.core.engine import EVENT_TYPES, MODES
from sidecar.core.examples import Example
from sidecar.core.findings import FAMILIES, Severity
from sidecar.core.text.scan import PatternSet
from sidecar.examples import Stage

EXAMPLES = [pytest.param(d, e, id=f"{d.name}-{e.name}") for d in SHIPPED for e in d.examples]


@pytest.fixture(scope="module")
def pattern_set() -> PatternSet:
    return PatternSet(patterns())


@pytest.mark.parametrize(("detector", "example"), EXAMPLES)
def test_example_is_judged_as_it_says(detector: type[Any], example: Example, pattern_set: PatternSet) -> None:
    stage = Stage(detector, pattern_set, own_domains=example.own_domains)
    before = stage.play_before(example)
    assert example.flagged_before or not before, f"flagged before its last step: {before[0].text}"
    found = stage.play(example.event)
    assert bool(found) == example.flagged, found


@pytest.mark.parametrize("detector", SHIPPED, ids=lambda d: d.name)
def test_detector_says_what_it_is(detector: type[Any]) -> None:
    assert detector.family in FAMILIES
    assert detector.mode in MODES
    assert isinstance(detector.severity, Severity)
    assert detector.scope in ("session", "agent")
    assert set(detector.sees) <= set(EVENT_TYPES)
    assert detector.__doc__
    flagged = [example.flagged for example in detector.examples]
    assert any(flagged)
    assert not all(flagged), "what it leaves alone matters as much"


@pytest.mark.parametrize(("detector", "example"), EXAMPLES)
def test_dump_and_load_keep_the_judgement(detector: type[Any], example: Example, pattern_set: PatternSet) -> None:
    if not hasattr(detector, "dump"):
        pytest.fail("a detector with state must dump it") if detector.__init__ is not object.__init__ else None
        return
    stage = Stage(detector, pattern_set, own_domains=example.own_domains)
    stage.play_before(example)
    twin = stage.thawed()
    assert [f.score for f in twin.play(example.event)] == [f.score for f in stage.play(example.event)]


@pytest.mark.parametrize("detector", SHIPPED, ids=lambda d: d.name)
def test_session_scoped_state_can_be_merged(detector: type[Any], pattern_set: PatternSet) -> None:
    """Two ids may turn out to be one session; what both knew must then count."""
    if detector.scope != "session" or not hasattr(detector, "dump"):
        return
    example = next(e for e in detector.examples if e.flagged and e.after)
    apart = Stage(detector, pattern_set)
    apart.play_before(example, session="other")
    apart.merge("other", "s")
    assert apart.play(example.event), "what was read under the other id was forgotten"
