"""Ended spans that the sidecar does not have yet: what a question at the gate carries, and what has been lost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

CARRIED_BYTES = 256 * 1024
"""Most that one question carries; what does not fit is named as pending."""

CAPACITY = 8192
"""Spans waiting for export; the SDK's own queue holds 2,048 and drops without a word (reliability.md M21)."""

CAPACITY_BYTES = 64 * 2**20
"""Encoded spans held for questions."""

Key = tuple[int, int]
"""(trace id, span id)."""


@dataclass(slots=True)
class _Ended:
    session_id: str
    encoded: bytes | None
    size_bytes: int
    told: bool = False


@dataclass(frozen=True, slots=True)
class Carried:
    """What goes along with one question; `keys` are the spans in `encoded`."""

    encoded: list[bytes] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)


class Outbox:
    """Spans from their end until they are exported. Safe to use from any thread.

    A span that went along with a question which was then judged is *told*: it need not go along again, unless the
    connection broke (a sidecar that restarted within the moment may have lost it). A span that can no longer be
    exported and was never told is *dropped*, and counted.

    Memory: `capacity` spans and `capacity_bytes` of encoded ones.
    """

    def __init__(
        self, *, capacity: int = CAPACITY, capacity_bytes: int = CAPACITY_BYTES, carried_bytes: int = CARRIED_BYTES
    ) -> None:
        self._capacity, self._capacity_bytes, self._carried_bytes = capacity, capacity_bytes, carried_bytes
        self._lock = threading.Lock()
        self._ended: dict[Key, _Ended] = {}
        self._of_session: dict[str, dict[Key, _Ended]] = {}
        self._size_bytes = 0
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Spans lost since the start: neither exported nor told."""
        return self._dropped

    def __len__(self) -> int:
        return len(self._ended)

    def add(self, key: Key, session_id: str, encoded: bytes | None) -> bool:
        """A span has ended. `encoded` is its OTLP request, None for spans outside any session.

        Returns:
            Whether to export it; False when there is no room, and it is dropped.
        """
        size = len(encoded or b"")
        with self._lock:
            if len(self._ended) >= self._capacity or self._size_bytes + size > self._capacity_bytes:
                self._dropped += 1
                return False
            span = _Ended(session_id, encoded if size <= self._carried_bytes else None, size)
            self._ended[key] = span
            self._size_bytes += size
            if session_id:
                self._of_session.setdefault(session_id, {})[key] = span
            return True

    def carry(self, session_id: str) -> Carried:
        """What a question takes along: its session's newest spans that fit, in order of ending; the rest by name."""
        carried = Carried()
        room = self._carried_bytes
        with self._lock:
            for key, span in reversed((self._of_session.get(session_id) or {}).items()):
                if span.told:
                    continue
                if span.encoded is not None and span.size_bytes <= room:
                    room -= span.size_bytes
                    carried.encoded.append(span.encoded)
                    carried.keys.append(key)
                else:
                    carried.pending.append(f"{key[0]:032x}:{key[1]:016x}")
        carried.encoded.reverse()
        carried.keys.reverse()
        carried.pending.reverse()
        return carried

    def told(self, keys: list[Key]) -> None:
        """The question that carried these was judged with them in view."""
        with self._lock:
            for key in keys:
                if span := self._ended.get(key):
                    span.told = True

    def untell(self) -> None:
        """The connection broke; the sidecar may have lost what it was told."""
        with self._lock:
            for span in self._ended.values():
                span.told = False

    def exported(self, keys: list[Key]) -> None:
        """The sidecar has stored these."""
        with self._lock:
            for key in keys:
                self._remove(key)

    def gave_up(self, keys: list[Key], rejected: int | None = None) -> None:
        """These will not be exported.

        Args:
            keys: A batch.
            rejected: How many of them were refused, where the answer said a number but no names; None: all.
        """
        with self._lock:
            untold = sum(1 for key in keys if (span := self._remove(key)) and not span.told)
            self._dropped += untold if rejected is None else min(rejected, len(keys))

    def _remove(self, key: Key) -> _Ended | None:
        span = self._ended.pop(key, None)
        if span is not None:
            self._size_bytes -= span.size_bytes
            if (of_session := self._of_session.get(span.session_id)) is not None:
                of_session.pop(key, None)
                if not of_session:
                    del self._of_session[span.session_id]
        return span
