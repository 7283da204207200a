"""Refuses an agent's own telemetry that names the session of another's credential, and says so by an alert.

Realms keep what two credentials tell apart, so nothing of the other's could be touched; but nobody comes upon a long id
by chance. Forwarders are not asked: they name agents whom their credential lists (`sources.identity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidecar.core import semconv
from sidecar.core.events import Agent, SessionKey
from sidecar.core.oddities import owner
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.sessions import clean_id
from sidecar.core.span import Span, Speaker

TEXT = "it sent telemetry that names a session of another's credential; that telemetry was refused"


class Claims:
    """Compares the sessions that spans name with those that are known.

    Args:
        settle: Takes the outcome of an alert.
        clock_ns: Wall clock, Unix nanoseconds.
    """

    def __init__(self, pipeline: Pipeline, settle: Callable[[Outcome], None], clock_ns: Callable[[], int]) -> None:
        self._pipeline, self._settle, self._clock_ns = pipeline, settle, clock_ns

    def are_false(self, speaker: Speaker, spans: Sequence[Span]) -> bool:
        """Whether any of `spans`, all from `speaker`, names a session that is another's."""
        if speaker.grade != "authenticated" or speaker.speaks_for:
            return False
        for told in dict.fromkeys(map(semconv.session_of, spans)):
            key = SessionKey(speaker.realm, clean_id(told))
            if owner(self._pipeline.sessions, key, speaker) is not None:
                agent = Agent(speaker.realm, "", speaker.agent or "")
                self._settle(
                    self._pipeline.announce("identity_mismatch", key, agent, TEXT, self._clock_ns(), about=key.id)
                )
                return True
        return False
