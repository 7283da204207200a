"""What is odd in a span before anybody asks what it says: its clock, texts where none belong, whose id it names."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from sidecar.core.events import SessionKey
from sidecar.core.semconv.facts import plain_text
from sidecar.core.sessions import Session, SessionTable
from sidecar.core.span import Span, Speaker

AHEAD_NS = 60 * 10**9
"""A clock that runs further ahead than this is not believed: nothing ends before it comes."""
BEHIND_NS = 24 * 3600 * 10**9
"""Nor is one further behind; less may be an exporter that had to wait."""
FLAGGED_NS = 60 * 10**9
LONG_TEXT = 40
"""Characters from which a text in a field that is not for content is read; identifiers are shorter."""
MAX_SIDE_TEXTS = 16
UNIQUE_SESSION_ID = 16
"""Shortest session id that two agents will not both come up with."""

_TOLD_ELSEWHERE = frozenset(("exception.message", "exception.stacktrace", "exception.type"))


def date(session: Session, span: Span, arrived_ns: int) -> Span:
    """`span` with times that can be believed: by its sender's clock, else by its arrival.

    A session whose clock is wrong keeps one offset, so that the order of its spans stays as told.
    """
    if not arrived_ns:
        return span
    start_ns, end_ns = span.start_ns, span.end_ns
    if "bad_time" in span.notes:
        start_ns = end_ns = max(start_ns, end_ns)
    if not is_believable(end_ns, arrived_ns):
        if not is_believable(end_ns + session.offset_ns, arrived_ns):
            session.offset_ns = arrived_ns - end_ns
        lasted_ns = min(max(0, end_ns - start_ns), BEHIND_NS)
        end_ns += session.offset_ns
        start_ns = end_ns - lasted_ns
    elif start_ns == span.start_ns and end_ns == span.end_ns:
        return span
    return replace(span, start_ns=start_ns if span.signal == "span" else 0, end_ns=end_ns)


def is_believable(at_ns: int, arrived_ns: int) -> bool:
    """Whether something that came at `arrived_ns` can have ended at `at_ns`."""
    return -BEHIND_NS <= at_ns - arrived_ns <= AHEAD_NS


def is_skewed(span: Span, arrived_ns: int) -> bool:
    """Whether a span's own clock and ours differ by more than a minute, or its times make no sense."""
    if not arrived_ns:
        return False
    return "bad_time" in span.notes or "time_clamped" in span.notes or abs(arrived_ns - span.end_ns) > FLAGGED_NS


def side_texts(span: Span) -> Iterator[tuple[str, str]]:
    """(field, text) of long texts where a span has none that anybody reads; `MAX_SIDE_TEXTS` of them are enough."""
    return ((field, text) for field, text in _texts(span) if len(text) >= LONG_TEXT)


def _texts(span: Span) -> Iterator[tuple[str, str]]:
    if span.status_message:
        yield "status.message", span.status_message
    for name, value in span.rest.items():
        yield name, plain_text(value)
    for event in span.events:
        yield "events.name", event.name
        for name, value in event.attributes.items():
            if name not in _TOLD_ELSEWHERE and not name.startswith("gen_ai."):
                yield f"events.{name}", plain_text(value)


def owner(table: SessionTable, key: SessionKey, speaker: Speaker) -> Session | None:
    """The session of another's credential that bears the id which `speaker` names for the first time.

    Realms never share a session, so nothing of the other's is touched; but nobody comes upon a long id by chance. Who
    names it later is taken for who copied it, unless the other calls itself by the name of `speaker`: naming sessions
    of an agent in advance must not be a way to have that agent accused.
    """
    if speaker.grade == "declared" or len(key.id) < UNIQUE_SESSION_ID or table.get(key) is not None:
        return None
    others = (session for session in table.others(key) if session.grade != "declared")
    return next((session for session in others if not poses(session, speaker)), None)


def claims(table: SessionTable, key: SessionKey, speaker: Speaker) -> tuple[Session | None, Session | None]:
    """The `owner` of the session that `speaker` names for the first time, and who named it before in its name."""
    if speaker.grade == "declared" or len(key.id) < UNIQUE_SESSION_ID or table.get(key) is not None:
        return None, None
    others = (session for session in table.others(key) if session.grade != "declared" and poses(session, speaker))
    return owner(table, key, speaker), next(others, None)


def poses(session: Session, speaker: Speaker) -> bool:
    """Whether the agent of `session` calls itself by the name of `speaker`, which is not the name of its credential."""
    told = session.agent.id
    return bool(told) and told == speaker.agent != session.agent.name
