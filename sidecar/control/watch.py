"""Who watches which session: the agents' processes, their streams, and what each stream has yet to be told.

Telling is level-triggered: a stream remembers which sessions have changed, not how, and is told their latest state. So
a slow reader costs a name a session, and misses nothing but what is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from msgspec import Struct

from sidecar.core.digests import remember
from sidecar.core.events import SessionKey
from sidecar.errors import ControlError

STREAMS_OF_INSTANCE = 2
MAX_SESSIONS, MAX_INSTANCES = 4096, 10_000
STATES_AT_ONCE = 256
"""States in one message."""


class Stream:
    """One Watch stream: sessions that it has not been told the latest state of.

    Attributes:
        closed: Why it is to end, None while it is not.
    """

    __slots__ = ("_answers", "_changed", "_untold", "closed", "instance")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.closed: ControlError | None = None
        self._untold: dict[str, None] = {}
        self._answers = False
        self._changed = asyncio.Event()

    def note(self, session_id: str) -> None:
        """A session has changed."""
        self._untold[session_id] = None
        self._changed.set()

    def close(self, why: ControlError) -> None:
        self.closed = self.closed or why
        self._changed.set()

    def answer_goodbye(self) -> None:
        """The process will say no more on it; a heartbeat tells it that this has been heard."""
        self._answers = True
        self._changed.set()

    def take(self) -> list[str]:
        """Sessions to tell of now, the longest untold first."""
        names = list(self._untold)[:STATES_AT_ONCE]
        for name in names:
            del self._untold[name]
        return names

    async def wait(self, timeout_s: float) -> None:
        """Until there is something to do, or time for a heartbeat."""
        if not self._untold and not self.closed and not self._answers:
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
        self._answers = False


class Instance(Struct, eq=False):
    """One process of an agent.

    Attributes:
        sessions: Id → key, the latest used last.
        claims: Id → an epoch that the process knows and we do not, of sessions that it has not opened here yet.
        heard_s: When it last said something, monotonic seconds.
        dropped: Spans that it says its SDK has lost.
    """

    realm: str
    name: str
    sessions: dict[str, SessionKey] = {}
    streams: list[Stream] = []
    claims: dict[str, int] = {}
    heard_s: float = 0.0
    dropped: int = 0


class Watches:
    """All processes that are connected, or were lately.

    Memory: `MAX_INSTANCES` processes, those without a stream that were heard of longest ago forgotten first, with
    `MAX_SESSIONS` sessions and `STREAMS_OF_INSTANCE` streams each; `streams` streams for each credential.

    Args:
        streams: Streams that one realm may have; the newest stay.
        present_s: How long a process without a stream counts as there after it was last heard.
    """

    def __init__(self, *, streams: int, present_s: float, monotonic_s: Callable[[], float]) -> None:
        self._streams, self._present_s, self._monotonic_s = streams, present_s, monotonic_s
        self._instances: dict[tuple[str, str], Instance] = {}
        self._watching: dict[SessionKey, dict[tuple[str, str], None]] = {}
        self._open: dict[str, dict[Stream, None]] = {}

    def __len__(self) -> int:
        """Streams that are open."""
        return sum(map(len, self._open.values()))

    def heard(self, realm: str, name: str) -> Instance:
        """A process has said something; it is made known if need be."""
        key = (realm, name)
        instance = self._instances.pop(key, None)
        if instance is None:
            if len(self._instances) >= MAX_INSTANCES:
                idle = (name for name, other in self._instances.items() if not other.streams)
                self._forget(next(idle, next(iter(self._instances))))
            instance = Instance(realm, name)
        self._instances[key] = instance
        instance.heard_s = self._monotonic_s()
        return instance

    def attend(self, instance: Instance, session_id: str, key: SessionKey) -> None:
        """A process runs a session."""
        known = instance.sessions.pop(session_id, None)
        instance.sessions[session_id] = key
        if known is None:
            self._watching.setdefault(key, {})[instance.realm, instance.name] = None
            if len(instance.sessions) > MAX_SESSIONS:
                self._leave(instance, next(iter(instance.sessions)))

    def watchers(self, key: SessionKey) -> list[Instance]:
        """Processes that run a session."""
        return [self._instances[name] for name in self._watching.get(key, ())]

    def is_present(self, key: SessionKey) -> bool:
        """Whether a process is there that can hold this session."""
        now_s = self._monotonic_s()
        return any(i.streams or now_s - i.heard_s <= self._present_s for i in self.watchers(key))

    def changed(self, key: SessionKey) -> None:
        """A session's run state has changed."""
        for instance in self.watchers(key):
            for stream in instance.streams:
                stream.note(key.id)

    def open(self, instance: Instance) -> Stream:
        """A new stream; older ones of the process, or of the credential, that are too many are closed."""
        stream = Stream(instance)
        instance.streams.append(stream)
        of_realm = self._open.setdefault(instance.realm, {})
        of_realm[stream] = None
        for old in instance.streams[:-STREAMS_OF_INSTANCE]:
            old.close(ControlError("ABORTED", "newer streams of this instance have taken its place"))
            self.end(old)
        for old in list(of_realm)[: max(0, len(of_realm) - self._streams)]:
            old.close(ControlError("ABORTED", "newer streams of this credential have taken its place"))
            self.end(old)
        for session_id in instance.sessions:
            stream.note(session_id)
        return stream

    def end(self, stream: Stream) -> None:
        """A stream has ended."""
        instance = stream.instance
        if stream in instance.streams:
            instance.streams.remove(stream)
        of_realm = self._open.get(instance.realm, {})
        of_realm.pop(stream, None)
        if not of_realm:
            self._open.pop(instance.realm, None)

    def close(self, why: ControlError) -> None:
        """Ends all streams."""
        for stream in [stream for of_realm in self._open.values() for stream in of_realm]:
            stream.close(why)

    def claim(self, instance: Instance, claims: Iterable[tuple[str, int]]) -> None:
        """Keeps what a process says of sessions that we do not know."""
        for session_id, epoch in claims:
            if epoch:
                remember(instance.claims, session_id, epoch, MAX_SESSIONS)

    def _forget(self, key: tuple[str, str]) -> None:
        instance = self._instances.pop(key)
        for session_id in list(instance.sessions):
            self._leave(instance, session_id)
        for stream in list(instance.streams):
            stream.close(ControlError("RESOURCE_EXHAUSTED", "too many instances"))
            self.end(stream)

    def _leave(self, instance: Instance, session_id: str) -> None:
        key = instance.sessions.pop(session_id)
        watching = self._watching.get(key, {})
        watching.pop((instance.realm, instance.name), None)
        if not watching:
            self._watching.pop(key, None)
