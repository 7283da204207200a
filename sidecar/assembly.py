"""Puts the core together from settings: the one place where detectors, catalogue, policy and patterns meet.

Used by the service, by replay and evaluation, and by examples, so that all of them judge alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sidecar.core.detectors import SHIPPED
from sidecar.core.engine import all_patterns
from sidecar.core.events import SessionKey
from sidecar.core.evidence import unkeyed
from sidecar.core.organisation import Organisation
from sidecar.core.pipeline import Pipeline
from sidecar.core.text.hosts import registrable
from sidecar.core.text.scan import Pattern, PatternSet
from sidecar.core.tools import ToolCatalogue
from sidecar.core.triage.policy import Policy, PolicyDocument


def patterns(detectors: Iterable[type[Any]] = SHIPPED, *, without_cues: bool = False) -> tuple[Pattern, ...]:
    """All patterns of the detectors; `without_cues` leaves out the wording of known attack templates."""
    found = all_patterns(detectors)
    return tuple(p for p in found if "cue" not in p.tags) if without_cues else found


def pipeline(
    document: PolicyDocument | None = None,
    *,
    detectors: Iterable[type[Any]] = SHIPPED,
    pattern_set: PatternSet | None = None,
    catalogue: ToolCatalogue | None = None,
    organisation: Organisation | None = None,
    options: dict[str, dict[str, Any]] | None = None,
    closed: bool = False,
    capacity: int = 50_000,
    present: Callable[[SessionKey], bool] = lambda key: True,
    sign: Callable[[str], str] = unkeyed,
    session_attributes: tuple[str, ...] = (),
    journal_bytes: int = 0,
) -> Pipeline:
    """A pipeline with the shipped policy, catalogue and detectors where nothing else is given."""
    registrable("example.com")  # reads the Public Suffix List now: the first questions would time out waiting for it
    detectors = tuple(detectors)
    return Pipeline(
        detectors,
        Policy(document or PolicyDocument(), modes(detectors)),
        catalogue or ToolCatalogue(),
        patterns=pattern_set or PatternSet(patterns(detectors)),
        organisation=organisation,
        options=options,
        closed=closed,
        capacity=capacity,
        present=present,
        sign=sign,
        session_attributes=session_attributes,
        journal_bytes=journal_bytes,
    )


def modes(detectors: Iterable[type[Any]]) -> dict[str, str]:
    """Detector → mode it comes with, for `Policy`."""
    return {detector.name: detector.mode for detector in detectors}
