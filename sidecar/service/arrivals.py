"""Which spans have come, for questions that wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sidecar.core.digests import remember


class Arrivals:
    """Which spans the core has been given, for questions that wait for one.

    Memory: ids of the latest `KEPT` spans of each of `REALMS` realms, those that questions come from.
    """

    KEPT, REALMS = 8192, 256

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, None]] = {}
        self._waiting: dict[tuple[str, str], list[asyncio.Future[None]]] = {}

    def listen(self, realm: str) -> None:
        """From now on, spans of this realm are remembered."""
        if realm not in self._seen:
            remember(self._seen, realm, {}, self.REALMS)

    def arrived(self, realm: str, trace_id: str, span_id: str) -> None:
        """A span has been given to the core."""
        seen = self._seen.get(realm)
        if seen is None:
            return
        place = f"{trace_id}:{span_id}"
        remember(seen, place, None, self.KEPT)
        for waiter in self._waiting.pop((realm, place), ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, realm: str, places: Iterable[str], timeout_s: float) -> bool:
        """Whether all of `places` (``trace_id:span_id``) have arrived, or do so within `timeout_s`."""
        self.listen(realm)
        missing = [place for place in dict.fromkeys(places) if place not in self._seen[realm]]
        if not missing:
            return True
        loop = asyncio.get_running_loop()
        waiters = {(realm, place): loop.create_future() for place in missing}
        for key, waiter in waiters.items():
            self._waiting.setdefault(key, []).append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*waiters.values())
        except TimeoutError:
            return False
        finally:
            for key, waiter in waiters.items():
                if (others := self._waiting.get(key)) is not None:
                    others.remove(waiter)
                    if not others:
                        del self._waiting[key]
        return True
