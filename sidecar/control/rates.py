"""How often one credential may do something."""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.digests import remember

BURST_S = 10.0


class _Bucket(Struct):
    left: float
    at_s: float


class Rate:
    """At most `per_s` times a second and realm, with `BURST_S` seconds' worth at once.

    Memory: `realms` realms, the one not heard of for longest forgotten first.
    """

    def __init__(self, per_s: float, *, realms: int = 1024) -> None:
        self._per_s, self._realms = per_s, realms
        self._buckets: dict[str, _Bucket] = {}

    def wait_s(self, realm: str, now_s: float) -> float:
        """Seconds to wait; 0 when it may be done now, which is charged then.

        Args:
            now_s: A monotonic clock.
        """
        most = self._per_s * BURST_S
        bucket = self._buckets.get(realm)
        if bucket is None:
            bucket = _Bucket(most, now_s)
            remember(self._buckets, realm, bucket, self._realms)
        bucket.left = min(most, bucket.left + (now_s - bucket.at_s) * self._per_s)
        bucket.at_s = now_s
        if bucket.left < 1:
            return (1 - bucket.left) / self._per_s
        bucket.left -= 1
        return 0.0
