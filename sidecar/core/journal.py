"""What sessions were told of late, so that it can be put in order when something comes that belongs before it.

Spans arrive when they have ended, from several processes, in batches; what names a session or an agent often comes
last. Events are made at once, of whatever has come. Where that was out of order, the session is told anew from here,
and what detectors then see is what they would have seen in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.binding import Named
from sidecar.core.digests import arguments_digest, remember
from sidecar.core.events import Event, SessionKey, ToolCall
from sidecar.core.places import Report
from sidecar.core.semconv.facts import Facts, Part, Turn
from sidecar.core.sessions import Session
from sidecar.core.span import Record, Span

GRACE_NS = 600 * 10**9
"""How long after its last record a session's journal is kept (reliability.md P9: ten minutes)."""
MAX_ENTRIES, MAX_BYTES_OF_SESSION = 256, 1 << 20
MAX_TOLD_EVENTS = 16_384
MAX_RETOLD, MAX_RETOLD_OF_REALM = 1024, 512
"""Tellings told anew within `PERIOD_NS`, of all sessions and of one realm's: whoever sends out of order on purpose must
not keep the core busy. A session is told anew once in that time."""
BYTES_AS_TELLING = 4096
PERIOD_NS = 10**9
SHARED_TEXT = 64
"""Characters from which a text that comes again is kept once."""
_RANKS = {"tool": 0, "model": 1, "agent": 2, "context": 2}

Order = tuple[int, int, str, str]


class Entry(Struct, frozen=True):
    """One telling: `facts` of `record`, and the agent that its trace named when it was woven."""

    order: Order
    record: Record
    facts: Facts
    named: Named | None


class Question(Struct, frozen=True):
    """A question at the gate, and the id of its act."""

    order: Order
    asked: Any
    event_id: str


class Journal(Struct):
    """What one session was told since `base`, the state of the session before (None: it began with these).

    Attributes:
        told: Events that detectors have seen: `name_of` each.
        last: The latest `Entry.order` that was woven in order.
    """

    base: bytes | None = None
    entries: list[Entry] = []
    questions: list[Question] = []
    told: dict[str, None] = {}
    parts: dict[str, Part] = {}
    last: Order = (0, 0, "", "")
    last_ns: int = 0
    retold_ns: int = 0
    size_bytes: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.entries) + len(self.questions) >= MAX_ENTRIES or self.size_bytes >= MAX_BYTES_OF_SESSION

    @property
    def overflows(self) -> bool:
        """Whether it is so full that what comes cannot be kept."""
        return len(self.entries) + len(self.questions) >= 2 * MAX_ENTRIES or self.size_bytes >= 2 * MAX_BYTES_OF_SESSION


def name_of(event: Event) -> str:
    """An event by its id, phase and content: the same event may come again with more, or with other content."""
    if isinstance(event, ToolCall):
        content = event.arguments if event.phase == "started" else event.result
        return f"{event.event_id}{event.phase}{arguments_digest(content).hex()}"
    return event.event_id + getattr(event, "phase", "")


class Journals:
    """Journals of sessions, the quietest first; together about `budget_bytes` of content, none with 0.

    Args:
        dump: A session as bytes, with its detectors' states.
    """

    def __init__(self, budget_bytes: int, dump: Callable[[Session], bytes]) -> None:
        self._budget_bytes, self._dump = budget_bytes, dump
        self._journals: dict[SessionKey, Journal] = {}
        self._by_trace: dict[tuple[str, str], dict[SessionKey, None]] = {}
        self._dirty: dict[SessionKey, None] = {}
        self._retold: dict[str, int] = {}
        self._period_ns = 0
        self.size_bytes = 0
        self.late = 0

    def __len__(self) -> int:
        return len(self._journals)

    @property
    def is_kept(self) -> bool:
        return self._budget_bytes > 0

    def note(
        self, session: Session, record: Record, facts: Facts, named: Named | None, at_ns: int, now_ns: int
    ) -> None:
        """Takes down a telling of `at_ns` that is woven now; one that belongs before others makes the session dirty."""
        span = record.span
        order = (at_ns, _RANKS[facts.kind], span.trace_id, span.span_id)
        journal = self._of(session, now_ns)
        facts, size_bytes = _slim(facts, journal.parts)
        journal.entries.append(Entry(order, _bare(record), facts, named))
        journal.size_bytes += size_bytes
        self.size_bytes += size_bytes
        self._by_trace.setdefault((session.key.realm, span.trace_id), {})[session.key] = None
        self._place(session, journal, order)

    def ask(self, session: Session, asked: Any, event_id: str, at_ns: int, now_ns: int) -> None:
        """Takes down a question at the gate."""
        journal = self._of(session, now_ns)
        if any(known.event_id == event_id for known in journal.questions):
            return
        order = (at_ns, 3, "", event_id)
        journal.questions.append(Question(order, asked, event_id))
        self._place(session, journal, order)

    def _place(self, session: Session, journal: Journal, order: Order) -> None:
        if order < journal.last:
            self.late += 1
            if journal.base is None or (journal.entries and order >= journal.entries[0].order):
                self._dirty[session.key] = None
        else:
            journal.last = order
        while self.size_bytes > self._budget_bytes and len(self._journals) > 1:
            self.drop(next(iter(self._journals)))

    def _of(self, session: Session, now_ns: int) -> Journal:
        journal = self._journals.pop(session.key, None)
        if journal is None:
            journal = Journal(base=self._dump(session) if _has_history(session) else None)
        elif journal.is_full and (session.key not in self._dirty or journal.overflows):
            # All is in order up to here, or so much came out of order that it stays where it came.
            self._dirty.pop(session.key, None)
            self._release(session.key, journal)
            journal = Journal(base=self._dump(session), last=journal.last)
        self._journals[session.key] = journal
        journal.last_ns = max(journal.last_ns, now_ns)
        return journal

    def tell(self, key: SessionKey, event: Event) -> bool:
        """Takes down that detectors see an event; whether they have seen it before."""
        journal = self._journals.get(key)
        if journal is None:
            return False
        name = name_of(event)
        if name in journal.told:
            return True
        remember(journal.told, name, None, MAX_TOLD_EVENTS)
        return False

    def has(self, key: SessionKey, span: Span, facts: Facts) -> bool:
        """Whether a span that bears this one's id has told just that."""
        facts = replace(facts, walked=None)
        return any(
            entry.record.span.span_id == span.span_id
            and entry.record.span.trace_id == span.trace_id
            and replace(entry.facts, walked=None) == facts
            for entry in self.entries(key)
        )

    def stir(self, key: SessionKey) -> None:
        """The session is to be told anew."""
        if key in self._journals:
            self._dirty[key] = None

    def sessions_of(self, trace: tuple[str, str]) -> tuple[SessionKey, ...]:
        """Sessions that have an entry of that trace."""
        return tuple(self._by_trace.get(trace, ()))

    def entries(self, key: SessionKey) -> list[Entry]:
        journal = self._journals.get(key)
        return [] if journal is None else journal.entries

    def dirty(self) -> list[SessionKey]:
        return list(self._dirty)

    def is_dirty(self, key: SessionKey) -> bool:
        return key in self._dirty

    def may_retell(self, key: SessionKey, now_ns: int) -> bool:
        """Whether a session may be told anew now; if so, it counts."""
        journal = self._journals.get(key)
        if journal is None:
            return True
        if now_ns - self._period_ns >= PERIOD_NS:
            self._period_ns = now_ns
            self._retold.clear()
        count = len(journal.entries) + journal.size_bytes // BYTES_AS_TELLING
        before = self._retold.get(key.realm, 0)
        if journal.retold_ns and now_ns - journal.retold_ns < PERIOD_NS:
            return False
        if before and (before + count > MAX_RETOLD_OF_REALM or sum(self._retold.values()) + count > MAX_RETOLD):
            return False
        self._retold[key.realm] = before + count
        return True

    def take(self, key: SessionKey, now_ns: int) -> Journal | None:
        """The journal of a session that is told anew; what is told goes into a new one, which knows what was seen."""
        self._dirty.pop(key, None)
        journal = self._journals.pop(key, None)
        if journal is not None:
            self._release(key, journal)
            self._journals[key] = Journal(
                base=journal.base,
                told=journal.told,
                last_ns=journal.last_ns,
                retold_ns=now_ns,
            )
        return journal

    def join(self, old: SessionKey, new: SessionKey, source: Session | None, target: Session | None) -> bool:
        """Two sessions are about to be one: what both were told is put in order together.

        Returns:
            False when of one of them too little is known to tell it anew: then `rebase` it when they are one.
        """
        mine, other = self._journals.get(new), self._journals.pop(old, None)
        was_dirty = self._dirty.pop(old, 0) is None
        if other is not None:
            self._release(old, other)
        elif source is not None and _has_history(source):
            return False
        if other is None:
            return True
        if mine is None and target is not None and _has_history(target):
            mine = self._journals[new] = Journal(base=self._dump(target))
        if mine is None:
            mine = self._journals[new] = other
        elif mine.base is not None and other.base is not None:
            return False
        else:
            was_dirty |= bool(other.entries and (mine.entries or mine.base is not None))
            mine.base = mine.base or other.base
            mine.entries = mine.entries + other.entries
            mine.questions = mine.questions + other.questions
            mine.told |= other.told
            mine.last = max(mine.last, other.last)
            mine.last_ns = max(mine.last_ns, other.last_ns)
            mine.size_bytes += other.size_bytes
        self.size_bytes += other.size_bytes
        for entry in other.entries:
            self._by_trace.setdefault((new.realm, entry.record.span.trace_id), {})[new] = None
        if was_dirty:
            self._dirty[new] = None
        return True

    def rebase(self, session: Session) -> None:
        """What a session was told so far stays as it was judged; it can be told anew from here on."""
        journal = self._journals.get(session.key)
        self.drop(session.key)
        if self.is_kept:
            fresh = Journal(base=self._dump(session))
            if journal is not None:
                fresh.last, fresh.last_ns = journal.last, journal.last_ns
            self._journals[session.key] = fresh

    def drop(self, key: SessionKey) -> None:
        """Forgets a journal: what comes late from now on is woven where it comes."""
        self._dirty.pop(key, None)
        journal = self._journals.pop(key, None)
        if journal is not None:
            self._release(key, journal)

    def expire(self, now_ns: int) -> None:
        """Forgets journals of sessions that have been quiet for `GRACE_NS`."""
        while self._journals:
            key, journal = next(iter(self._journals.items()))
            if now_ns - journal.last_ns < GRACE_NS:
                break
            self.drop(key)

    def _release(self, key: SessionKey, journal: Journal) -> None:
        self.size_bytes -= journal.size_bytes
        for entry in journal.entries:
            trace = (key.realm, entry.record.span.trace_id)
            sessions = self._by_trace.get(trace)
            if sessions is not None:
                sessions.pop(key, None)
                if not sessions:
                    del self._by_trace[trace]


def arranged(journal: Journal) -> Iterator[list[Report] | Question]:
    """What was told and asked, in order; what tells of one model call is told at once, when it ended."""
    ready: list[tuple[Order, list[Report] | Question]] = [(one.order, one) for one in journal.questions]
    places: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(journal.entries, key=lambda entry: entry.order):
        if entry.facts.kind == "model":
            span = entry.record.span
            places.setdefault((span.trace_id, span.span_id), []).append(entry)
        else:
            ready.append((entry.order, [(entry.record, entry.facts)]))
    for entries in places.values():
        order = next((entry.order for entry in entries if entry.record.span.signal == "span"), entries[-1].order)
        ready.append((order, [(entry.record, entry.facts) for entry in entries]))
    ready.sort(key=lambda one: one[0])
    for _, telling in ready:
        yield telling


def _slim(facts: Facts, parts: dict[str, Part]) -> tuple[Facts, int]:
    """Facts whose long texts are kept once in a session, and how many bytes are new."""
    size_bytes = 512 + _size(facts.arguments) + _size(facts.result)

    def shared(turns: tuple[Turn, ...] | None) -> tuple[Turn, ...] | None:
        nonlocal size_bytes
        if turns is None:
            return None
        slim = []
        for turn in turns:
            kept = []
            for part in turn.parts:
                words = part.text or (part.value if isinstance(part.value, str) else "")
                size_bytes += 64
                if len(words) >= SHARED_TEXT:
                    known = parts.get(words)
                    if known is None or known != part:
                        parts[words] = known = part
                        size_bytes += len(words)
                    kept.append(known)
                else:
                    size_bytes += len(words) + (0 if isinstance(part.value, str) else _size(part.value))
                    kept.append(part)
            slim.append(Turn(turn.role, tuple(kept)))
        return tuple(slim)

    if facts.inputs is None and facts.outputs is None:
        return facts, size_bytes
    return replace(facts, inputs=shared(facts.inputs), outputs=shared(facts.outputs), walked=None), size_bytes


def _has_history(session: Session) -> bool:
    return bool(session.span_count or session.act_count or session.texts)


def _size(value: object) -> int:
    """About how many bytes a value takes, however deep it is."""
    size_bytes, stack = 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            size_bytes += len(item)
        elif isinstance(item, dict):
            size_bytes += 64 + sum(map(len, map(str, item)))
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            size_bytes += 64
            stack.extend(item)
        else:
            size_bytes += 16
    return size_bytes


def _bare(record: Record) -> Record:
    """A record without the content that its facts hold already."""
    span = record.span
    kept = {name: value for name, value in span.attributes.items() if name.startswith("sidecar.")}
    return replace(record, span=replace(span, attributes=kept, body=None))
