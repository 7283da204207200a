"""How much one identity may send: bytes, spans and new sessions a second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from msgspec import Struct
from pydantic import Field

from sidecar.core.span import Span, Speaker
from sidecar.errors import OutsideError
from sidecar.settings import Bytes, Count, Seconds, Settings

SESSION_KEYS = ("gen_ai.conversation.id", "session.id")
"""What the door takes for a session's name; where a span has none of these, its trace is counted instead."""


class OverLimitError(OutsideError):
    """An identity sends more than it may; nothing of the request was kept.

    Attributes:
        reason: One of ``rate_bytes``, ``rate_spans``, ``rate_sessions``.
    """

    def __init__(self, reason: str, retry_after_s: float) -> None:
        self.reason, self.retry_after_s = reason, retry_after_s
        super().__init__(f"{reason}, retry after {retry_after_s:.1f} s")


class Rates(Settings):
    """What one identity may send."""

    bytes_per_s: Bytes = Field(default=20 * 2**20, ge=1)
    """Bytes a second, decompressed."""
    spans_per_s: Count = 5_000
    """Spans and log records a second."""
    sessions_per_s: Count = 100
    """Sessions a second that were not seen before."""
    burst: Seconds = Field(default=10.0, ge=1)
    """How much of a pause may be made up for: this many seconds' worth at once."""
    sessions: Count = 4_096
    """Sessions remembered as seen; beyond, the one not heard of for longest counts as new again."""


FORWARDER = Rates(bytes_per_s=200 * 2**20, spans_per_s=50_000, sessions_per_s=2_000, sessions=65_536)


class Turns:
    """Lets `most` in at a time and `each` of one identity.

    Who waits for a place of its own identity stands in nobody else's way: a flood waits behind itself.
    """

    def __init__(self, most: int, each: int) -> None:
        self._all, self._each = asyncio.Semaphore(most), each
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, speaker: Speaker) -> AsyncIterator[None]:
        """Waits for a place, and keeps it for the block."""
        own = self._own.get(speaker.realm)
        if own is None:
            own = self._own[speaker.realm] = asyncio.Semaphore(self._each)
        async with own, self._all:
            yield


class Room:
    """Bytes that may be held at a time: `most` in all, and half of them for one identity."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._by_identity: dict[str, int] = {}

    def take(self, speaker: Speaker, size: int, already: int) -> bool:
        """Takes `size` bytes for a request that holds `already`; False when there is no room.

        A request that is alone always finds room: what is larger than that could never come in.
        """
        own = self._by_identity.get(speaker.realm, 0) + size
        if self._held > already and (self._held + size > self._most or own > self._most // 2):
            return False
        self._by_identity[speaker.realm] = own
        self._held += size
        return True

    def give_back(self, speaker: Speaker, size: int) -> None:
        """Gives back what was taken."""
        self._held -= size
        left = self._by_identity.pop(speaker.realm, 0) - size
        if left:
            self._by_identity[speaker.realm] = left


class _Bucket(Struct):
    """Tokens that come back at `rate` a second, up to `most`.

    A cost above `most` is let through when the bucket is full and leaves it in debt, so that nothing waits for ever.
    """

    rate: float
    most: float
    tokens: float
    at_ns: int = 0

    def wait_s(self, cost: float, now_ns: int) -> float:
        """Seconds until `cost` can be paid; 0 when it can be now."""
        self.tokens = min(self.most, self.tokens + max(0, now_ns - self.at_ns) * self.rate / 1e9)
        self.at_ns = now_ns
        return max(0.0, (min(cost, self.most) - self.tokens) / self.rate)


class _Account:
    """What one identity has left."""

    def __init__(self, rates: Rates, now_ns: int) -> None:
        def bucket(rate: float) -> _Bucket:
            return _Bucket(rate, rate * rates.burst, rate * rates.burst, now_ns)

        self.bytes, self.spans, self.sessions = map(
            bucket, (rates.bytes_per_s, rates.spans_per_s, rates.sessions_per_s)
        )
        self.seen: OrderedDict[int, None] = OrderedDict()
        self.most_seen = rates.sessions


class Limiter:
    """Holds identities to their rates.

    Memory: `identities` accounts, the one not heard of for longest forgotten first, and in each as many sessions as its
    rates say, some 100 bytes a session. A forgotten identity starts with full buckets; who has many credentials to
    change between has them from us.
    """

    def __init__(self, rates: Rates, forwarders: Rates, *, identities: int = 1_024) -> None:
        self._rates, self._forwarders, self._most = rates, forwarders, identities
        self._accounts: OrderedDict[tuple[str, bool], _Account] = OrderedDict()

    def admit_bytes(self, speaker: Speaker, size: int, now_ns: int) -> None:
        """Charges `size` bytes to be decoded, whatever becomes of them.

        Args:
            now_ns: A monotonic clock.
        Raises:
            OverLimitError: ``rate_bytes``; nothing was charged.
        """
        account = self._account(speaker, now_ns)
        _charge(account.bytes, size, now_ns, "rate_bytes")

    def admit_spans(self, speaker: Speaker, count: int, now_ns: int) -> None:
        """Charges `count` spans likewise.

        Raises:
            OverLimitError: ``rate_spans``.
        """
        _charge(self._account(speaker, now_ns).spans, count, now_ns, "rate_spans")

    def admit_sessions(self, speaker: Speaker, spans: Iterable[Span], now_ns: int) -> None:
        """Charges those sessions of `spans` that are new, and remembers them.

        Raises:
            OverLimitError: ``rate_sessions``; none is remembered.
        """
        account = self._account(speaker, now_ns)
        seen = account.seen
        told = dict.fromkeys(map(_session, spans))
        if new := sum(session not in seen for session in told):
            _charge(account.sessions, new, now_ns, "rate_sessions")
        for session in told:
            seen[session] = None
            seen.move_to_end(session)
        while len(seen) > account.most_seen:
            seen.popitem(last=False)

    def _account(self, speaker: Speaker, now_ns: int) -> _Account:
        forwards = bool(speaker.speaks_for)
        account = self._accounts.get((speaker.realm, forwards))
        if account is None:
            account = _Account(self._forwarders if forwards else self._rates, now_ns)
            self._accounts[speaker.realm, forwards] = account
            if len(self._accounts) > self._most:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end((speaker.realm, forwards))
        return account


def _charge(bucket: _Bucket, cost: int, now_ns: int, reason: str) -> None:
    if wait_s := bucket.wait_s(cost, now_ns):
        raise OverLimitError(reason, wait_s)
    bucket.tokens -= cost


def _session(span: Span) -> int:
    for key in SESSION_KEYS:
        if value := span.attributes.get(key):
            return hash(value) if isinstance(value, str) else hash(str(value))
    return hash(span.trace_id)
