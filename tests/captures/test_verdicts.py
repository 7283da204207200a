"""P9: whatever the order, lateness and duplicates, content rules find all that they find in order.

Recorded agents, the shipped detectors and policy. Findings are held against each other by (detector, act): arrival in
order against shuffled, up to ten minutes late, three times over, cut at every boundary, and parents after children.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pytest

from sidecar.assembly import patterns, pipeline
from sidecar.core.findings import Finding
from sidecar.core.organisation import Organisation
from sidecar.core.span import LOCAL, Record, Span
from sidecar.core.text.scan import PatternSet
from sidecar.core.triage.policy import PolicyDocument
from sidecar.sources.files import read
from tests.captures import any_order
from tests.captures.any_order import JOURNAL_BYTES, SECOND_NS, Request

pytestmark = pytest.mark.corpora
FOUND = PatternSet(patterns())
WINDOWS = frozenset(("behaviour", "telemetry"))
"""Families that go by counts and times, not by content: listed apart."""
CORPORA = {"agentdojo_replay": 4, "insider": 1, "bloom_glm": 4}
"""Corpus → how many of its first sessions with something to find are played."""

HOME = Organisation(("home.example",))
"""An operator who has said what is inside: whom an agent writes to is then judged, too."""
MAX_SPANS = 80
Verdict = set[tuple[str, str, str]]


def verdict(requests: Sequence[Request]) -> Verdict:
    """(detector, session, act or text) of what content rules find.

    A finding names the agent as it was known by then: by its service, where the run that names it has not ended.
    """
    core = pipeline(PolicyDocument(), pattern_set=FOUND, journal_bytes=JOURNAL_BYTES, organisation=HOME)
    found: list[Finding] = []
    now_ns = max(span.end_ns for request in requests for span in request.spans)
    for request in requests:
        now_ns += request.after_ns
        found += core.tick(now_ns).findings
        for span in request.spans:
            found += core.feed(Record(span, LOCAL, now_ns), now_ns).findings
    found += core.tick(now_ns + SECOND_NS).findings
    found += core.tick(now_ns + 20 * SECOND_NS, last=True).findings
    return {
        (one.detector, core.sessions.resolve(one.session).id, one.event_id)
        for one in found
        if one.family not in WINDOWS
    }


def arrivals(spans: Sequence[Span]) -> Iterator[tuple[str, list[Request]]]:
    """The ways of P9 for one recording to come."""
    chance = random.Random(len(spans))
    shuffled = chance.sample(list(spans), len(spans))
    yield "shuffled", [Request(0, tuple(shuffled))]
    yield "up to ten minutes late", any_order.late(spans, chance)
    yield "three times over", [Request(SECOND_NS, tuple(chance.sample(list(spans), len(spans)))) for _ in range(3)]
    yield "cut at every boundary", [Request(SECOND_NS // 10, (span,)) for span in shuffled]
    yield "parents after children", [Request(0, tuple(reversed(spans)))]
    yield "parents before children", [Request(0, tuple(sorted(spans, key=lambda span: span.start_ns or span.end_ns)))]


def wrong_verdicts(spans: Sequence[Span]) -> tuple[Verdict, list[str]]:
    """What is found in order, and what other arrivals make of it that they must not.

    A rule that speaks once a session speaks of the act that came first; what it then says of the first act in order
    stands beside that. So an act more may be named where the same rule has found something in the same session.
    """
    in_order, wrong = verdict(any_order.at_once(spans)), []
    for way, requests in arrivals(spans):
        found = verdict(requests)
        wrong += [f"{way}: misses {one}" for one in sorted(in_order - found)]
        wrong += [f"{way}: makes up {one}" for one in sorted(found) if one[:2] not in {known[:2] for known in in_order}]
    return in_order, wrong


def test_verdicts_on_captured_agents_do_not_depend_on_arrival(shared: Path) -> None:
    stems = [stem for stem in any_order.stems(shared) if stem.endswith(".injected.content")]
    judged = {stem: wrong_verdicts(any_order.load(shared, stem)) for stem in stems}
    wrong = {stem: told for stem, (_, told) in judged.items() if told}
    assert sum(bool(found) for found, _ in judged.values()) >= 20, "the injected mail is found where it is told"
    assert not wrong, f"{len(wrong)}: {list(wrong.items())[:3]}"


def sessions(shared: Path, corpus: str) -> Iterator[tuple[Span, ...]]:
    """Its sessions; one line, one session."""
    told = read(str(shared / "corpora" / f"{corpus}.otlp.jsonl.gz"))
    for _, spans in groupby((span for _, span in told), key=lambda span: span.trace_id):
        yield any_order.in_order(spans)


@pytest.mark.parametrize("corpus", CORPORA)
def test_verdicts_on_corpora_do_not_depend_on_arrival(shared: Path, corpus: str) -> None:
    found, wrong = 0, {}
    for spans in sessions(shared, corpus):
        if not 1 < len(spans) <= MAX_SPANS or not verdict(any_order.at_once(spans)):
            continue
        found += 1
        wrong[spans[0].trace_id] = wrong_verdicts(spans)[1]
        if found == CORPORA[corpus]:
            break
    assert not any(wrong.values()), f"{sum(map(bool, wrong.values()))} of {found}: {list(wrong.items())[:3]}"
    assert found == CORPORA[corpus]
