"""Which session and which agent a span belongs to, whenever and wherever in its trace that is told.

A span belongs to the session that it names, else to the one that its nearest ancestor names, else to its trace's; a
trace that names none belongs to the session whose history its model calls continue, else it is one of its own. What
one span tells counts for spans that came before it, too: `Bindings` is asked again when a trace is `stirred`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from sidecar.core.digests import act_digest, bare, event_id, remember
from sidecar.core.events import SessionKey
from sidecar.core.history import walk
from sidecar.core.semconv.facts import Facts, plain_text
from sidecar.core.sessions import clean_id
from sidecar.core.span import Span

MAX_TRACES, MAX_SPANS_OF_TRACE, MAX_THREADS = 50_000, 4096, 50_000
MAX_STRANGERS, MAX_SPANS_OF_STRANGER = 10_000, 64
MAX_ANCESTORS = 64
DID_NS = 60 * 10**9
"""How far apart a tool's span and a message about the same call may be that neither an id nor a trace joins."""
MAX_HOSTS, MAX_HOSTS_OF_NAME, MAX_LINKS = 4096, 32, 4
UNIQUE_CALL_ID = 12
"""Shortest call id that is taken for unique; shorter ones (`call_1`) name a call only within its session."""
MAX_NAME = 128
"""Longest name, id or version of an agent; of a longer one the head."""


def is_unnamed(key: SessionKey) -> bool:
    """Whether a session's id is only that of its first trace: such a session may turn out to be another."""
    return key.id.startswith("trace:")


class Named(Struct, frozen=True):
    """An agent as a span names it; `is_run` where the span is a run of that agent."""

    name: str
    id: str
    version: str
    is_run: bool


class Host(Struct, frozen=True):
    """A span that tells all of a call; another library's span of the same call may stand within its time, in a trace of
    its own."""

    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    resource: dict[str, Any]


class Trace(Struct):
    """What is known of one trace.

    Attributes:
        session: What its spans belong to that neither name a session nor have an ancestor that does.
        claimed: Whether a span named `session`; else it is a thread's, or the trace's own.
        claims: Span → session that it names.
        parents: Span → parent.
        agents: Span → agent that it names.
        ended: Spans that have come → what they were.
    """

    session: SessionKey | None = None
    claimed: bool = False
    claims: dict[str, SessionKey] = {}
    parents: dict[str, str] = {}
    agents: dict[str, Named] = {}
    ended: dict[str, str | None] = {}


class Bindings:
    """Memory: `MAX_TRACES` traces of `MAX_SPANS_OF_TRACE` spans, `MAX_STRANGERS` traces in which no agent has been
    seen (their parents lead from an agent's spans to its ancestors), `MAX_THREADS` histories, continuations and calls,
    `MAX_HOSTS` names of hosts and guests.

    `touched` is called with a trace's key before that trace may change, `gone` when it is forgotten.
    """

    def __init__(self) -> None:
        self.traces: dict[tuple[str, str], Trace] = {}
        self._strangers: dict[tuple[str, str], dict[str, str]] = {}
        self.threads: dict[tuple[str, bytes], SessionKey] = {}
        self._continued: dict[tuple[str, bytes], SessionKey] = {}
        self._calls: dict[tuple[str, str, bytes], SessionKey] = {}
        self._did: dict[tuple[str, bytes], tuple[SessionKey | None, int]] = {}
        self._heard: dict[tuple[str, bytes], tuple[SessionKey | None, int]] = {}
        self._hosts: dict[tuple[str, str], dict[str, Host]] = {}
        self._lonely: dict[tuple[str, str], dict[str, Host]] = {}
        self._joined: list[tuple[tuple[str, str], tuple[str, str]]] = []
        self._guests: dict[tuple[str, str], Host] = {}
        self.stirred: dict[tuple[str, str], None] = {}
        self.touched: Callable[[tuple[str, str]], None] = lambda key: None
        self.gone: Callable[[tuple[str, str]], None] = lambda key: None
        self.cycles = 0

    def note(self, realm: str, span: Span, facts: Facts | None) -> None:
        """Takes down what a span says of itself: its parent, its session, its agent."""
        if not (span.trace_id and span.span_id):
            return
        key = (realm, span.trace_id)
        if facts is None:
            if span.parent_id:
                self._note_stranger(key, span)
            return
        trace = self.trace(key)
        place = span.span_id
        stirs = bool(trace.ended)
        if span.parent_id and trace.parents.get(place) != span.parent_id:
            self.cycles += place != span.parent_id and place in _above(trace, span.parent_id)
            remember(trace.parents, place, span.parent_id, MAX_SPANS_OF_TRACE)
            if stirs and facts.kind == "context":
                self._stir(key)
        if facts.kind in ("tool", "model") and span.signal == "span":
            self._note_host(realm, span, facts)
        if facts.session:
            claim = SessionKey(realm, clean_id(facts.session))
            if place not in trace.claims:
                remember(trace.claims, place, claim, MAX_SPANS_OF_TRACE)
                if stirs:
                    self._stir(key)
        if facts.agent_name or facts.agent_id:
            named = Named(facts.agent_name[:MAX_NAME], facts.agent_id[:MAX_NAME], facts.agent_version[:MAX_NAME],
                          facts.kind == "agent")  # fmt: skip
            if place not in trace.agents or (named.is_run and not trace.agents[place].is_run):
                remember(trace.agents, place, named, MAX_SPANS_OF_TRACE)
                if stirs:
                    self._stir(key)

    def _note_host(self, realm: str, span: Span, facts: Facts) -> None:
        """A root that tells no content is the guest of the one span of the same process which does and is about the
        same call, if there is one: two libraries in one process, each with traces of its own."""
        name = (realm, bare(facts.tool) if facts.kind == "tool" else f"model {facts.model} {facts.output_tokens}")
        is_told = facts.arguments is not None if facts.kind == "tool" else facts.outputs is not None
        mine = Host(span.trace_id, span.span_id, span.start_ns, span.end_ns, span.resource)
        hosts = self._hosts.get(name)
        if is_told:
            hosts = {} if hosts is None else hosts
            remember(hosts, span.span_id, mine, MAX_HOSTS_OF_NAME)
            remember(self._hosts, name, hosts, MAX_HOSTS)
            for guest in list(self._lonely.get(name, {}).values()):
                if _is_around(mine, guest):
                    self._take_in(realm, name, guest, mine)
        elif facts.kind == "model" and (facts.output_tokens < 0 or facts.inputs or facts.system or facts.failed):
            return  # it says too little to be known as the same call, or something of its own
        elif (
            not span.parent_id and not facts.session and (realm, f"{mine.trace_id}:{mine.span_id}") not in self._guests
        ):
            around = [host for host in (hosts or {}).values() if _is_around(host, mine)]
            if len({host.trace_id for host in around}) == 1:  # of several that tell one call, the innermost
                self._take_in(
                    realm, name, mine, min(around, key=lambda host: (host.end_ns - host.start_ns, host.span_id))
                )
            elif not around:
                lonely = self._lonely.get(name, {})
                remember(lonely, span.span_id, mine, MAX_HOSTS_OF_NAME)
                remember(self._lonely, name, lonely, MAX_HOSTS)

    def _take_in(self, realm: str, name: tuple[str, str], guest: Host, host: Host) -> None:
        if self._lonely.get(name, {}).pop(guest.span_id, None) is not None:
            self._joined.append(((realm, guest.trace_id), (realm, host.trace_id)))
        remember(self._guests, (realm, f"{guest.trace_id}:{guest.span_id}"), host, MAX_HOSTS)

    def take_joined(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """(guest's trace, host's trace) where the guest came before its host; emptied by asking."""
        if not self._joined:
            return []
        joined, self._joined = self._joined, []
        return joined

    def host_place(self, realm: str, span: Span) -> str:
        """The span that tells what `span` keeps to itself, as ``trace_id:span_id``; "" where there is none."""
        host = self._guests.get((realm, f"{span.trace_id}:{span.span_id}")) if self._guests else None
        return "" if host is None else f"{host.trace_id}:{host.span_id}"

    def host_session(self, realm: str, span: Span) -> SessionKey | None:
        """The session of the span that `host_place` names, where it is known."""
        host = self._guests.get((realm, f"{span.trace_id}:{span.span_id}")) if self._guests else None
        trace = None if host is None else self.traces.get((realm, host.trace_id))
        if host is None or trace is None:
            return None
        places = (host.span_id, *_above(trace, trace.parents.get(host.span_id, "")))
        return next((trace.claims[place] for place in places if place in trace.claims), trace.session)

    def _note_stranger(self, key: tuple[str, str], span: Span) -> None:
        trace = self.traces.get(key)
        if trace is not None:
            if trace.parents.get(span.span_id) != span.parent_id:
                self.touched(key)
                remember(trace.parents, span.span_id, span.parent_id, MAX_SPANS_OF_TRACE)
                self._stir(key)
            return
        parents = self._strangers.get(key, {})
        remember(parents, span.span_id, span.parent_id, MAX_SPANS_OF_STRANGER)
        remember(self._strangers, key, parents, MAX_STRANGERS)

    def take_stirred(self) -> list[tuple[str, str]]:
        """Traces of which more is known since spans of theirs were bound; emptied by asking."""
        stirred = list(self.stirred)
        self.stirred.clear()
        return stirred

    def _stir(self, key: tuple[str, str]) -> None:
        remember(self.stirred, key, None, MAX_TRACES)

    def trace(self, key: tuple[str, str]) -> Trace:
        """The trace of that key, about to change."""
        trace = self.traces.get(key)
        if trace is None:
            if len(self.traces) >= MAX_TRACES:
                oldest = next(iter(self.traces))
                del self.traces[oldest]
                self.stirred.pop(oldest, None)
                self.gone(oldest)
            trace = self.traces[key] = Trace(parents=self._strangers.pop(key, {}))
        self.touched(key)
        return trace

    def is_new(self, realm: str, span: Span, what: str = "") -> bool:
        """Whether a span or log record comes for the first time; from then on it has come."""
        ended, name = self.trace((realm, span.trace_id)).ended, span.span_id
        if span.signal == "log":
            told = plain_text(span.attributes) + plain_text(span.body)
            name = f"{name}:{span.end_ns}:{event_id(span.scope, span.name, told)}"
        if name in ended:
            return False
        remember(ended, name, what, MAX_SPANS_OF_TRACE)
        return True

    def came_as(self, realm: str, span: Span) -> str:
        """What `is_new` was told that a span was when it came first."""
        trace = self.traces.get((realm, span.trace_id))
        return "" if trace is None else trace.ended.get(span.span_id) or ""

    def has_come(self, realm: str, span: Span) -> bool:
        """Whether a span with that id has come."""
        trace = self.traces.get((realm, span.trace_id))
        return trace is not None and span.span_id in trace.ended

    # ------------------------------------------------------------ whose

    def claim_of(self, realm: str, span: Span) -> SessionKey | None:
        """The session that `span` or its nearest ancestor names."""
        trace = self.traces.get((realm, span.trace_id))
        if trace is None or not trace.claims:
            return None
        if (claim := trace.claims.get(span.span_id)) is not None:
            return claim
        return next((trace.claims[place] for place in self._ancestors(trace, span) if place in trace.claims), None)

    def first_claim(self, realm: str, span: Span) -> SessionKey | None:
        """The session that the trace of `span` is about: what its outermost span that names one says."""
        trace = self.traces.get((realm, span.trace_id))
        if trace is None or not trace.claims:
            return None
        places = list(trace.claims)
        if len(set(trace.claims.values())) == 1:
            return trace.claims[places[0]]
        roots = [p for p in places if not any(a in trace.claims for a in _above(trace, trace.parents.get(p, "")))]
        return trace.claims[min(roots or places)]

    def parent_of(self, realm: str, span: Span) -> SessionKey | None:
        """The session within which `span` names another."""
        trace = self.traces.get((realm, span.trace_id))
        if trace is None or (mine := trace.claims.get(span.span_id)) is None:
            return None
        claims = (trace.claims[place] for place in self._ancestors(trace, span) if place in trace.claims)
        return next((claim for claim in claims if claim != mine), None)

    def linked_from(self, realm: str, span: Span) -> SessionKey | None:
        """The session that has started the one of a root span: that of another trace which the span links to."""
        links = span.rest.get("links")
        for link in links[:MAX_LINKS] if isinstance(links, list) else ():
            trace = self.traces.get((realm, str(link.get("trace_id", "")))) if isinstance(link, dict) else None
            if trace is not None and link.get("trace_id") != span.trace_id:
                places = (str(link.get("span_id", "")), *_above(trace, trace.parents.get(str(link.get("span_id")), "")))
                claim = next((trace.claims[place] for place in places if place in trace.claims), trace.session)
                if claim is not None:
                    return claim
        return None

    def agent_of(self, realm: str, span: Span) -> tuple[Named | None, bool]:
        """The agent that `span` or its nearest ancestor names, and whether no other agent stands above that one."""
        trace = self.traces.get((realm, span.trace_id))
        if trace is None or not trace.agents:
            return None, True
        found = trace.agents.get(span.span_id)
        for place in self._ancestors(trace, span):
            above = trace.agents.get(place)
            if found is None:
                found = above
            elif above is not None and above.name and found.name and above.name != found.name:
                return found, False
        return found, True

    def is_nested(self, realm: str, span: Span, other: str) -> bool:
        """Whether of `span` and the one whose place is `other` (``trace_id:span_id``) one stands within the other."""
        trace_id, _, place = other.partition(":")
        trace = self.traces.get((realm, span.trace_id))
        if trace is None or trace_id != span.trace_id:
            return False
        return place in self._ancestors(trace, span) or span.span_id in _above(trace, trace.parents.get(place, ""))

    @staticmethod
    def _ancestors(trace: Trace, span: Span) -> Iterator[str]:
        return _above(trace, span.parent_id or trace.parents.get(span.span_id, ""))

    # ------------------------------------------------------------ histories

    def by_calls(self, realm: str, facts: Facts, session: SessionKey | None, now_ns: int) -> list[SessionKey]:
        """The sessions in which a tool call of these messages was told before: by a span that names its session, and
        by messages, with the same id, tool and arguments.

        For clients that send only the end of a history, or whose instrumentation keeps only that. With `session`, the
        calls are its own from now on.
        """
        found: dict[SessionKey, None] = {}
        claimed = None
        said_before = len(facts.inputs or ())
        for n, turn in enumerate((*(facts.inputs or ()), *(facts.outputs or ()))):
            for part in turn.parts:
                if part.type == "call" and len(part.id) >= UNIQUE_CALL_ID and part.value is not None:
                    name = (realm, part.id, act_digest(part.name, part.value))
                    if (known := self._calls.get(name)) is not None:
                        found[known] = None
                    if session is not None and name not in self._calls:
                        remember(self._calls, name, session, MAX_THREADS)
                    if session is not None and n < said_before:
                        self._note_call(self._heard, (realm, name[2]), session, now_ns)
                    did, at_ns = self._did.get((realm, name[2]), (None, 0)) if self._did else (None, 0)
                    claimed = did if did is not None and abs(now_ns - at_ns) <= DID_NS else claimed
        return list(found if claimed is None else {claimed: None} | found)

    def did(self, realm: str, facts: Facts, session: SessionKey, now_ns: int) -> SessionKey | None:
        """A span has told of a tool call in `session`, which names itself: messages without a session may be of it.
        The session of such messages that came before, if any.

        Where two sessions make the same call at about the same time, it says nothing.
        """
        name = (realm, act_digest(facts.tool, facts.arguments))
        whose = self._note_call(self._did, name, session, now_ns)
        heard, at_ns = self._heard.get(name, (None, 0))
        return heard if whose is not None and abs(now_ns - at_ns) <= DID_NS else None

    @staticmethod
    def _note_call(
        calls: dict[tuple[str, bytes], tuple[SessionKey | None, int]], name: tuple[str, bytes], session: SessionKey,
        now_ns: int,
    ) -> SessionKey | None:  # fmt: skip
        known, at_ns = calls.get(name, (session, now_ns))
        whose = session if known == session or now_ns - at_ns > DID_NS else None
        remember(calls, name, (whose, now_ns), MAX_THREADS)
        return whose

    def thread(self, realm: str, facts: Facts) -> SessionKey | None:
        """The session whose history this model call continues, for clients whose every call is a trace of its own."""
        if facts.kind != "model" or not facts.inputs:
            return None
        known = None
        for _, chain, is_output in walk(facts):
            if is_output:
                known = self.threads.get((realm, chain), known)
        return known

    def continues(self, realm: str, facts: Facts, session: SessionKey) -> None:
        """Remembers the history that a call of `session` continues: the call before it may come later."""
        last = None
        for _, chain, is_output in walk(facts):
            last = chain if is_output else last
        if last is not None and (realm, last) not in self.threads:
            remember(self._continued, (realm, last), session, MAX_THREADS)

    def ends(self, realm: str, chain: bytes, session: SessionKey) -> SessionKey | None:
        """A call of `session` has ended with this history; the session that has gone on from there already, if any."""
        remember(self.threads, (realm, chain), session, MAX_THREADS)
        return self._continued.pop((realm, chain), None)


def _is_around(host: Host, guest: Host) -> bool:
    within = host.start_ns <= guest.start_ns and guest.end_ns <= host.end_ns
    return within and host.trace_id != guest.trace_id and host.resource == guest.resource


def _above(trace: Trace, place: str) -> Iterator[str]:
    """A span and what stands above it, the nearest first; a circle of parents ends after `MAX_ANCESTORS` steps."""
    for _ in range(MAX_ANCESTORS):
        if not place:
            return
        yield place
        place = trace.parents.get(place, "")
