"""Where telemetry of a session is missing: agents that have gone silent, acts nobody told of, clocks that are wrong.

A session with a gap is *degraded*: what it does cannot be judged by what is known of it, so its irreversible acts wait
(reliability.md, P21). Silence alone proves nothing of an agent without the agent library, which may just be idle; the
library says three times a lease that it is there, and one that stops saying so without a goodbye is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from sidecar.core.digests import remember
from sidecar.core.events import SessionKey

UNTOLD_NS = 30 * 10**9
"""How long an act may be under way, or be over, without a word of telemetry."""
LEASES = 2
"""A library that has been silent for so many leases is lost; its sessions have been on hold for one of them."""
GONE_NS = 2**62
LISTED_NS = 3600 * 10**9
"""A gap that has been there for longer is not listed any more; its session still is not wholly seen."""
MAX_SESSIONS, MAX_LIBRARIES, MAX_OPEN, MAX_OF_SESSION = 20_000, 20_000, 64, 4

LOOKED_AT = 2_000
"""Sessions looked at in one go, a few milliseconds."""

REASONS = ("library", "outcome", "span", "clock")
"""Why a session is degraded: its library is lost; an act was allowed and nobody tells how it ends; an act is over and
no span tells of it; its clock is wrong by more than a minute."""


class Seen(Struct):
    """What is known of how well one session is seen.

    Attributes:
        libraries: Processes with the agent library that run it.
        open: Acts that were allowed → when, until their outcome or any span of the session has come.
        over_ns: When an act was over of which no span has come yet; 0 where there is none.
        skewed_ns: When a span came with a wrong clock, and no other since; 0 where the clock is right.
        spans: Spans of the session when it was last looked at.
        since_ns: Since when it is degraded; 0 where it is not.
        told: Reasons that `look` has told.
    """

    libraries: dict[tuple[str, str], None] = {}
    open: dict[str, int] = {}
    over_ns: int = 0
    skewed_ns: int = 0
    spans: int = 0
    since_ns: int = 0
    told: tuple[str, ...] = ()


class Gaps:
    """Who is degraded, and why. Memory: `MAX_SESSIONS` sessions of `MAX_OPEN` acts, `MAX_LIBRARIES` processes; those
    of which nothing has come for longest go first.

    Attributes:
        listed: Sessions that were degraded when last looked at, for no longer than `LISTED_NS`, and why.

    Args:
        lease_ns: How often an agent library must be heard.
        spans_of: How many spans of a session have come.
    """

    def __init__(self, *, lease_ns: int, spans_of: Callable[[SessionKey], int]) -> None:
        self._silent_ns, self._spans_of = LEASES * lease_ns, spans_of
        self._sessions: dict[SessionKey, Seen] = {}
        self._heard: dict[tuple[str, str], int] = {}
        self._skewed: dict[SessionKey, None] = {}
        self._to_look_at: list[SessionKey] = []
        self.listed: dict[SessionKey, tuple[str, ...]] = {}

    # ------------------------------------------------------------ what happens

    def heard(self, realm: str, library: str, now_ns: int) -> None:
        """A process with the agent library has said something."""
        remember(self._heard, (realm, library), now_ns, MAX_LIBRARIES)

    def attended(self, key: SessionKey, library: str) -> None:
        """A process with the agent library runs a session."""
        seen = self._seen(key)
        remember(seen.libraries, (key.realm, library), None, MAX_OF_SESSION)

    def left(self, realm: str, library: str) -> None:
        """A process with the agent library has said goodbye: from now on its silence proves nothing."""
        remember(self._heard, (realm, library), GONE_NS, MAX_LIBRARIES)

    def granted(self, key: SessionKey, act: str, now_ns: int) -> None:
        """An act has been allowed."""
        seen = self._seen(key)
        self._take_in(key, seen)
        if act not in seen.open:
            remember(seen.open, act, now_ns, MAX_OPEN)

    def ended(self, key: SessionKey, act: str, now_ns: int) -> None:
        """Somebody has told how an act ended."""
        seen = self._sessions.get(key)
        if seen is None:
            return
        self._take_in(key, seen)
        if seen.open.pop(act, 0):
            seen.over_ns = seen.over_ns or now_ns

    def dated(self, key: SessionKey, now_ns: int, *, is_skewed: bool) -> None:
        """A span has come, with a clock that is right or not; of right ones to be called while `minds_clock`."""
        if is_skewed:
            self._seen(key).skewed_ns = now_ns
            self._skewed[key] = None
        elif key in self._skewed:
            del self._skewed[key]
            self._seen(key).skewed_ns = 0

    @property
    def minds_clock(self) -> bool:
        """Whether some session's clock is wrong, so that it matters when it is right again."""
        return bool(self._skewed)

    def renamed(self, old: SessionKey, new: SessionKey) -> None:
        """Two ids are one session."""
        seen = self._sessions.pop(old, None)
        if seen is None:
            return
        self.listed.pop(old, None)
        mine = self._seen(new)
        mine.libraries |= seen.libraries
        mine.open |= seen.open
        mine.over_ns = mine.over_ns or seen.over_ns
        if self._skewed.pop(old, 0) is None:
            self.dated(new, seen.skewed_ns, is_skewed=True)

    # ------------------------------------------------------------ what follows

    def reasons(self, key: SessionKey, now_ns: int) -> tuple[str, ...]:
        """Why a session is degraded, of `REASONS`; () where it is not."""
        seen = self._sessions.get(key)
        if seen is None:
            return ()
        self._take_in(key, seen)
        found = []
        if seen.libraries and not any(self._is_there(library, now_ns) for library in seen.libraries):
            found.append("library")
        if seen.libraries or seen.spans:  # who never tells anything but asks at the gate is not expected to
            if any(now_ns - at_ns > UNTOLD_NS for at_ns in seen.open.values()):
                found.append("outcome")
            if seen.over_ns and now_ns - seen.over_ns > UNTOLD_NS:
                found.append("span")
        if seen.skewed_ns:
            found.append("clock")
        if not found:
            seen.since_ns = 0
        elif not seen.since_ns:
            seen.since_ns = now_ns
        return tuple(found)

    def look(self, now_ns: int, *, most: int = LOOKED_AT) -> dict[SessionKey, tuple[str, ...]]:
        """Looks at the next sessions, at most so many, and keeps `listed` up to date.

        Returns:
            Of those that are degraded, the reasons that are new since they were last looked at.
        """
        found: dict[SessionKey, tuple[str, ...]] = {}
        if not self._to_look_at:
            self._to_look_at = list(self._sessions)
        keys, self._to_look_at = self._to_look_at[:most], self._to_look_at[most:]
        for key in keys:
            if (seen := self._sessions.get(key)) is None:
                self.listed.pop(key, None)
                continue
            reasons = self.reasons(key, now_ns)
            if reasons and now_ns - seen.since_ns <= LISTED_NS:
                self.listed[key] = reasons
            else:
                self.listed.pop(key, None)
            if new := tuple(reason for reason in reasons if reason not in seen.told):
                found[key] = new
            seen.told = reasons
        return found

    # ------------------------------------------------------------ inside

    def _seen(self, key: SessionKey) -> Seen:
        seen = self._sessions.pop(key, None)
        if seen is None:
            seen = Seen(spans=self._spans_of(key))
        if len(self._sessions) >= MAX_SESSIONS:
            oldest = next(iter(self._sessions))
            del self._sessions[oldest]
            self._skewed.pop(oldest, None)
            self.listed.pop(oldest, None)
        self._sessions[key] = seen
        return seen

    def _take_in(self, key: SessionKey, seen: Seen) -> None:
        """Spans have come since: whoever lets us know one thing has not fallen silent."""
        if (spans := self._spans_of(key)) != seen.spans:
            seen.spans, seen.over_ns = spans, 0
            seen.open.clear()

    def _is_there(self, library: tuple[str, str], now_ns: int) -> bool:
        return now_ns - self._heard.get(library, GONE_NS) <= self._silent_ns
