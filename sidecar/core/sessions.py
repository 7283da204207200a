"""The sessions that are being watched: what is remembered of each, bounded, and which id means which session."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Any, Literal

from msgspec import Struct

from sidecar.core.digests import remember
from sidecar.core.events import NO_AGENT, Agent, SessionKey
from sidecar.core.findings import Severity
from sidecar.core.span import Grade

ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-")
MAX_ID, MAX_TOLD = 128, 200
MAX_ACTS, MAX_TEXTS, MAX_ALIASES, MAX_MENTIONS, MAX_OWN_DOMAINS = 256, 256, 256, 1024, 32
MAX_PLACES_OF_ACT, MAX_HEARD, MAX_HEARD_TEXT, MAX_FOUND = 16, 4, 4096, 1024
MAX_INTENTS, MAX_CHAINS, MAX_CALLS, MAX_UNSEEN, MAX_KINDS = 64, 64, 64, 64, 64


TOLD = (
    "acts", "intents", "chains", "texts", "heard", "calls", "unseen", "states", "mentions", "own_domains",
    "span_count", "act_count", "saw_tool_span", "saw_model", "aware", "user", "agent", "agent_rank", "agent_since_ns",
)  # fmt: skip
"""Fields of a `Session` that follow from what it was told; the others are people's, or hold for good."""


def clean_id(told: str) -> str:
    """A session id as told, or ``h:<sha256>`` of one of odd form (design §5); "" stays ""."""
    if not told or (len(told) <= MAX_ID and ID_CHARACTERS.issuperset(told)):
        return told
    return "h:" + hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


class Act(Struct, gc=False):
    """What is remembered of one tool call, so that it counts once however often it is told.

    Attributes:
        digest: Of bare tool name and arguments; b"" when the arguments are not known.
        asked_as: The model's own id of the call, where the gate or the span has another.
        wished: Whether a message that gives it no id has told of it.
        source: Who told of it first: the gate, a tool span, or a model's message.
        span: ``trace_id:span_id`` of its best evidence.
        places: All spans that told of it, the latest `MAX_PLACES_OF_ACT`.
        scope: Instrumentation scope of its span, "" at the gate.
        result: Digest of the result, b"" until one is known.
    """

    event_id: str
    tool: str
    call_id: str
    digest: bytes
    started_ns: int
    source: Literal["gate", "span", "message"]
    span: str = ""
    places: tuple[str, ...] = ()
    scope: str = ""
    ended: bool = False
    ended_ns: int = 0
    result: bytes = b""
    gated: bool = False
    asked_as: str = ""
    wished: bool = False

    def told_by(self, place: str) -> None:
        """Remembers that the span `place` has told of it."""
        if place not in self.places:
            self.places = (*self.places, place)[-MAX_PLACES_OF_ACT:]


class Intent(Struct, frozen=True):
    """A tool call that a model asked for; it becomes an act when somebody says that it ran.

    `has_id`: whether `call_id` is what the model's message calls it; else it was made up here.
    """

    call_id: str
    tool: str
    arguments: Any
    at_ns: int
    span: str
    cut: bool = False
    has_id: bool = True


class Told(Struct, frozen=True, gc=False):
    """Where a text was first told: the interval of that span, and whether it was an agent's run."""

    start_ns: int
    end_ns: int
    by_agent: bool


class Session(Struct):
    """All that is remembered of one session. Every container has a bound, `MAX_…` of this module.

    Attributes:
        aliases: Ids it was known by before, oldest first.
        chains: Digest of a message history that is known → whether a model call ended with it; newest last.
        texts: Digest of a text → where it was told.
        heard: The latest texts of users, `MAX_HEARD` of them and none beyond `MAX_HEARD_TEXT` characters: frameworks
            put what a person said into a prompt of their own, and tell both.
        unseen: Model calls and runs whose acts are not known yet: span → time; 0 where that should have come by now.
        states: Detector name → that detector's instance for this session.
        suspicion: Family → the gravest weighted score so far, 0..1.
        unscored: Reasons, in order of appearance (a dict used as an ordered set).
        kinds: Id of a finding that held or paused → what kind of act it was about (`pipeline.kind_of`).
        found: Ids of findings that have been counted, the latest → severity and score, as one number that grows with
            both; a session that is told anew counts none twice.
        cleared: Kinds of acts that a reviewer cleared.
        refused: Kinds of acts that a reviewer found to be what an alert said; they are denied, also after a resume.
        mentions: Address or domain → the highest rank (`core.reader.RANKS`) of those who named it.
        own_domains: Registrable domains that trusted words show to be the agent's own organisation.
        agent_rank: How well `agent` is known: 0 by the service's name, 1 named by a span, 2 by the outermost run of an
            agent, 3 by a credential or at the control door.
        agent_since_ns: When the span began that named it; of two outermost runs the earlier names the session's agent.
        told: The id as it was told, cut to `MAX_TOLD` characters, where it was of odd form; else "".
        offset_ns: What its sender's clock is wrong by, where that is beyond what can be believed (`core.oddities`).
    """

    key: SessionKey
    created_ns: int
    last_ns: int
    agent: Agent = NO_AGENT
    grade: Grade = "declared"
    parent: SessionKey | None = None
    aliases: tuple[SessionKey, ...] = ()
    provisional: bool = False
    task: str = ""
    user: str = ""

    acts: dict[str, Act] = {}
    intents: dict[str, Intent] = {}
    chains: dict[bytes, bool] = {}
    texts: dict[bytes, Told] = {}
    heard: tuple[str, ...] = ()
    calls: dict[str, bool] = {}
    unseen: dict[str, int] = {}

    states: dict[str, Any] = {}
    suspicion: dict[str, float] = {}
    unscored: dict[str, None] = {}
    cleared: dict[str, None] = {}
    refused: dict[str, None] = {}
    mentions: dict[str, int] = {}
    own_domains: dict[str, None] = {}
    kinds: dict[str, str] = {}
    found: dict[str, float] = {}
    agent_rank: int = 0
    agent_since_ns: int = 0
    told: str = ""
    offset_ns: int = 0
    skewed: bool = False
    peak: Severity | None = None
    span_count: int = 0
    act_count: int = 0
    learned: int = 0
    saw_tool_span: bool = False
    saw_model: bool = False
    gated: bool = False
    gated_ns: int = 0
    flagged: bool = False
    aware: bool = False

    def note_unscored(self, reasons: tuple[str, ...]) -> None:
        for reason in reasons:
            self.unscored[reason] = None

    def hear(self, text: str) -> None:
        """Remembers what a user said."""
        if len(text) <= MAX_HEARD_TEXT:
            self.heard = (*self.heard, text)[-MAX_HEARD:]

    def quoted(self, text: str) -> str | None:
        """The latest text of a user that holds `text` and more."""
        return next((said for said in reversed(self.heard) if len(said) > len(text) and text in said), None)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why detectors have not seen all of it: what was noted, and what nobody has told so far."""
        found = dict(self.unscored)
        if "withheld" not in found and any(not act.digest for act in self.acts.values()):
            found["withheld"] = None
        if "unknown_act" not in found and any(not at_ns for at_ns in self.unseen.values()):
            found["unknown_act"] = None
        return tuple(found)

    @property
    def stressors(self) -> tuple[str, ...]:
        """What its agent was told that presses models to misbehave, as its detectors recognise it."""
        told = (name for state in self.states.values() for name in getattr(state, "stressors", ()))
        return tuple(dict.fromkeys(told))

    @property
    def risk(self) -> float:
        """0..1, comparable across sessions: one minus the product of what each family leaves open."""
        rest = 1.0
        for score in self.suspicion.values():
            rest *= 1.0 - score
        return 1.0 - rest

    def absorb(self, other: Session) -> None:
        """Takes over all that `other` knows; used when two ids turn out to be one session."""
        self.created_ns = min(self.created_ns, other.created_ns)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.aliases = (*self.aliases, *other.aliases, other.key)[-MAX_ALIASES:]
        if self.agent == NO_AGENT or other.agent_rank > self.agent_rank:
            self.agent, self.agent_rank, self.agent_since_ns = other.agent, other.agent_rank, other.agent_since_ns
        self.parent = self.parent or other.parent
        self.user = self.user or other.user
        for address, rank in self.mentions.items():
            other.mentions[address] = max(rank, other.mentions.get(address, 0))
        memories: tuple[tuple[dict[Any, Any], dict[Any, Any], int], ...] = (
            (self.acts, other.acts, MAX_ACTS), (self.intents, other.intents, MAX_INTENTS),
            (self.chains, other.chains, MAX_CHAINS), (self.texts, other.texts, MAX_TEXTS),
            (self.calls, other.calls, MAX_CALLS), (self.unseen, other.unseen, MAX_UNSEEN),
            (self.unscored, other.unscored, MAX_KINDS),
            (self.cleared, other.cleared, MAX_KINDS), (self.refused, other.refused, MAX_KINDS),
            (self.kinds, other.kinds, MAX_KINDS), (self.found, other.found, MAX_FOUND),
            (self.own_domains, other.own_domains, MAX_OWN_DOMAINS), (self.mentions, other.mentions, MAX_MENTIONS),
        )  # fmt: skip
        for mine, theirs, limit in memories:
            for name, value in theirs.items():
                if name not in mine or mine is self.mentions:
                    remember(mine, name, value, limit)
        for family, score in other.suspicion.items():
            self.suspicion[family] = max(score, self.suspicion.get(family, 0.0))
        if other.peak is not None:
            self.peak = other.peak if self.peak is None else max(self.peak, other.peak)
        self.span_count += other.span_count
        self.act_count += other.act_count
        self.learned += other.learned
        self.saw_tool_span |= other.saw_tool_span
        self.saw_model |= other.saw_model
        if other.gated:
            self.gated_ns = min(self.gated_ns, other.gated_ns) if self.gated else other.gated_ns
        self.gated |= other.gated
        self.flagged |= other.flagged
        self.aware |= other.aware
        self.told = self.told or other.told
        self.heard = self.heard or other.heard
        self.offset_ns = self.offset_ns or other.offset_ns
        self.skewed |= other.skewed


class SessionTable:
    """Sessions by key, the least recently seen first; at most `capacity`, shared fairly between realms.

    Args:
        opened: Sessions that are new, or newly have a parent or a role, since the caller last emptied the list.
        gone: Called when a key means nothing any more (its session was forgotten or renamed).
        dropped: Called when a session is forgotten for want of room.
        joined: Called to join the detectors' states of a session that turned out to be another into those of that one.
        touched: Called before a session may change (a snapshot that is being taken writes it down first).
        capacity: Sessions kept. When it is reached, the realm with the most sessions loses its quietest one; a
            session for which `held(key)` is true is never lost.
        aliases: Former ids kept, oldest forgotten first.
    """

    def __init__(self, *, capacity: int = 50_000, aliases: int = 200_000) -> None:
        self._capacity, self._alias_capacity = capacity, aliases
        self._realms: dict[str, dict[SessionKey, Session]] = {}
        self._aliases: dict[SessionKey, SessionKey] = {}
        self._count = 0
        self.opened: list[SessionKey] = []
        self.evicted = 0
        self.held: Callable[[SessionKey], bool] = lambda key: False
        self.touched: Callable[[Session], None] = lambda session: None
        self.gone: Callable[[SessionKey], None] = lambda key: None
        self.joined: Callable[[dict[str, Any], dict[str, Any]], None] = lambda states, others: None
        self.dropped: Callable[[Session], None] = lambda session: None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Session]:
        for sessions in self._realms.values():
            yield from sessions.values()

    def realms(self) -> tuple[str, ...]:
        """Realms that have a session."""
        return tuple(self._realms)

    def resolve(self, key: SessionKey) -> SessionKey:
        """The key under which the session that was once called `key` is kept now."""
        for _ in range(8):
            if (newer := self._aliases.get(key)) is None:
                break
            key = newer
        return key

    def get(self, key: SessionKey) -> Session | None:
        key = self.resolve(key)
        sessions = self._realms.get(key.realm)
        return None if sessions is None else sessions.get(key)

    def others(self, key: SessionKey) -> Iterator[Session]:
        """Sessions of the same id in other realms."""
        for realm, sessions in self._realms.items():
            if realm != key.realm and (session := sessions.get(SessionKey(realm, key.id))) is not None:
                yield session

    def latest(self, realm: str, since_ns: int, limit: int = 1024) -> list[SessionKey]:
        """Sessions of a realm that were seen since then, the latest first."""
        newest = islice(reversed(self._realms.get(realm, {}).values()), limit)
        return [session.key for session in takewhile(lambda session: session.last_ns >= since_ns, newest)]

    def open(self, key: SessionKey, now_ns: int) -> Session:
        """The session of that key, made if need be, and marked as the latest seen."""
        key = self.resolve(key)
        sessions = self._realms.get(key.realm)
        if sessions is None:
            sessions = self._realms[key.realm] = {}
        session = sessions.pop(key, None)
        if session is not None:
            self.touched(session)
        else:
            if self._count >= self._capacity:
                self._evict()
                sessions = self._realms.setdefault(key.realm, {})
            session = Session(key, now_ns, now_ns)
            self._count += 1
            self.opened.append(key)
            self.touched(session)
        sessions[key] = session
        if now_ns > session.last_ns:
            session.last_ns = now_ns
        return session

    def put(self, session: Session) -> None:
        """Restores a session from a snapshot."""
        sessions = self._realms.setdefault(session.key.realm, {})
        self._count += session.key not in sessions
        sessions[session.key] = session
        for alias in session.aliases:
            self._aliases[alias] = session.key

    def rename(self, old: SessionKey, new: SessionKey, now_ns: int) -> Session:
        """Makes the session `old` known as `new`, whatever either has done so far; returns it."""
        old, new = self.resolve(old), self.resolve(new)
        if old == new:
            return self.open(new, now_ns)
        source = self.get(old)
        self.drop(old)
        target = self.open(new, now_ns)
        if source is not None:
            for alias in source.aliases:  # so that the way from an old id to the session is always one step
                self._aliases[alias] = new
            target.absorb(source)
            self.joined(target.states, source.states)
        self._aliases[old] = new
        while len(self._aliases) > self._alias_capacity:
            del self._aliases[next(iter(self._aliases))]
        return target

    def free(self, alias: SessionKey) -> None:
        """A former id means nothing any more; it is about to be a session's id again."""
        self._aliases.pop(alias, None)

    def drop(self, key: SessionKey) -> None:
        """Forgets a session."""
        sessions = self._realms.get(key.realm, {})
        if sessions.pop(key, None) is not None:
            self._count -= 1
            self.gone(key)
            if not sessions:
                del self._realms[key.realm]

    def _evict(self) -> None:
        largest = max(self._realms.values(), key=len)
        for key in largest:
            if not self.held(key):
                break
        else:  # all of them are held: the quietest goes all the same, its run state is kept elsewhere
            key = next(iter(largest))
        self.dropped(largest[key])
        self.drop(key)
        self.evicted += 1
