"""What the core knows, as blobs: written down piece by piece while it goes on working.

A snapshot holds the state of one moment. `begin` fixes the moment; what has changed since the last snapshot is then
encoded in small steps, and whatever is about to change first is encoded before it does (copy on write).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.binding import Trace
from sidecar.core.engine import AgentState
from sidecar.core.events import Agent, AnyEvent, SessionKey
from sidecar.core.pipeline import Held, Pipeline
from sidecar.core.sessions import Session

_encode = msgspec.msgpack.Encoder().encode


class _Agent(Struct):
    agent: Agent
    states: dict[str, Any]
    pending: list[tuple[int, SessionKey, AnyEvent]]
    events: int
    learned: int
    versions: list[str]
    tools: list[str] = []


class Snapshots:
    """Takes snapshots of one pipeline and keeps track of what has changed. Memory: the names of what has changed."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._changed: dict[str, Callable[[], bytes | None]] = {}
        self._pending: dict[str, Callable[[], bytes | None]] = {}
        self._gone: dict[str, None] = {}
        self._upserts: dict[str, bytes] = {}
        self._deletes: list[str] = []
        pipeline.sessions.touched = self._touch_session
        pipeline.sessions.gone = self._session_gone
        pipeline.engine.touched = self._touch_agent
        pipeline.engine.gone = lambda key: self._forget(f"a/{key[0]}\0{key[1]}")
        pipeline.weaver.bindings.touched = self._touch_trace
        pipeline.weaver.bindings.gone = lambda key: self._forget(f"t/{key[0]}\0{key[1]}")

    def begin(self) -> None:
        """Fixes the moment; what an unfinished snapshot had left to do becomes part of this one."""
        self._pending |= self._changed
        self._changed = {}
        held = list(self._pipeline.held.items())
        self._pending["held"] = lambda: _encode(held)
        for name in self._gone:
            self._upserts.pop(name, None)
        self._deletes = list(dict.fromkeys((*self._deletes, *self._gone)))
        self._gone = {}

    def step(self) -> bool:
        """Encodes one piece; False when the snapshot is whole."""
        if not self._pending:
            return False
        self._write(next(iter(self._pending)))
        return bool(self._pending)

    def take(self) -> tuple[dict[str, bytes], list[str]]:
        """The pieces that changed and the names of those that are gone."""
        upserts, self._upserts = self._upserts, {}
        deletes, self._deletes = self._deletes, []
        return upserts, [name for name in deletes if name not in upserts]

    def failed(self, upserts: Mapping[str, bytes], deletes: Iterable[str] = ()) -> None:
        """A snapshot could not be stored: what it held counts as changed again, and what it named as gone, as gone."""
        self._gone |= {name: None for name in deletes if name not in self._changed and name not in self._pending}
        for name in upserts:
            kind, _, rest = name.partition("/")
            realm, _, identity = rest.partition("\0")
            if kind == "s" and (session := self._pipeline.sessions.get(SessionKey(realm, identity))) is not None:
                self._touch_session(session)
            elif kind == "a" and (agent := self._pipeline.engine.agents.get((realm, identity))) is not None:
                self._touch_agent(agent)
            elif kind == "t":
                self._touch_trace((realm, identity))

    def _write(self, name: str) -> None:
        blob = self._pending.pop(name)()
        if blob is not None:
            self._upserts[name] = blob

    def _touch(self, name: str, write: Callable[[], bytes | None]) -> None:
        if name in self._pending:
            self._write(name)
        self._changed[name] = write
        self._gone.pop(name, None)

    def _touch_session(self, session: Session) -> None:
        self._touch(f"s/{session.key.realm}\0{session.key.id}", lambda: self._session(session))

    def _session_gone(self, key: SessionKey) -> None:
        self._forget(f"s/{key.realm}\0{key.id}")

    def _forget(self, name: str) -> None:
        self._changed.pop(name, None)
        if name in self._pending:
            self._write(name)
        self._gone[name] = None

    def _touch_agent(self, state: AgentState) -> None:
        self._touch(f"a/{state.agent.realm}\0{state.agent.role}", lambda: _agent(state))

    def _touch_trace(self, key: tuple[str, str]) -> None:
        self._touch(f"t/{key[0]}\0{key[1]}", lambda: self._trace(key))

    def _session(self, session: Session) -> bytes:
        states = {name: state.dump() for name, state in session.states.items() if hasattr(state, "dump")}
        return _encode(replace(session, states=states))

    def _trace(self, key: tuple[str, str]) -> bytes | None:
        trace = self._pipeline.weaver.bindings.traces.get(key)
        return None if trace is None else _encode(trace)


def restore(pipeline: Pipeline, blobs: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Puts a snapshot back into a fresh pipeline.

    Returns:
        Names of pieces that could not be used, with the reason; what they held starts cold.
    """
    refused = []
    for name in sorted(blobs):
        try:
            _restore(pipeline, name, blobs[name])
        except Exception as error:  # a damaged piece must never stop the start
            refused.append((name, f"{type(error).__name__}: {error}"[:200]))
    return refused


def _restore(pipeline: Pipeline, name: str, blob: bytes) -> None:
    kind, _, rest = name.partition("/")
    realm, _, identity = rest.partition("\0")
    if kind == "s":
        session = msgspec.msgpack.decode(blob, type=Session)
        session.states = pipeline.engine.revive(session.states, by_session=True)
        pipeline.sessions.put(session)
        pipeline.weaver.revive(session)
        pipeline.adopt(session)
    elif kind == "a":
        saved = msgspec.msgpack.decode(blob, type=_Agent)
        state = AgentState(saved.agent, events=saved.events, learned=saved.learned)
        state.states = pipeline.engine.revive(saved.states, by_session=False)
        state.pending.extend(saved.pending)
        state.versions = dict.fromkeys(saved.versions)
        state.tools = dict.fromkeys(saved.tools)
        pipeline.engine.put((realm, identity), state)
    elif kind == "t":
        pipeline.weaver.bindings.traces[(realm, identity)] = msgspec.msgpack.decode(blob, type=Trace)
    elif name == "held":
        pipeline.held.update(msgspec.msgpack.decode(blob, type=list[tuple[str, Held]]))
    else:
        raise ValueError("no piece of a snapshot is called so")


def _agent(state: AgentState) -> bytes:
    return _encode(
        _Agent(
            agent=state.agent,
            states={name: instance.dump() for name, instance in state.states.items() if hasattr(instance, "dump")},
            pending=list(state.pending),  # type: ignore[arg-type]
            events=state.events,
            learned=state.learned,
            versions=list(state.versions),
            tools=list(state.tools),
        )
    )
