"""How many sessions statistical findings may pause: the pauser's blast radius (design §7)."""

from __future__ import annotations

from collections import deque

PER_MINUTE = 5
SHARE = 0.10
"""At most five pauses a minute, or a tenth of the live sessions, whichever is more."""
MINUTE_NS = 60 * 10**9


class BlastRadius:
    """Counts recent statistical pauses; content findings do not ask it. Memory: the pauses of one minute."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=100_000)

    def allows(self, now_ns: int, live_sessions: int) -> bool:
        """Whether one more pause stays within the radius."""
        while self._recent and now_ns - self._recent[0] >= MINUTE_NS:
            self._recent.popleft()
        return len(self._recent) < max(PER_MINUTE, SHARE * live_sessions)

    def take(self, now_ns: int) -> None:
        """A statistical pause has happened."""
        self._recent.append(now_ns)
