"""Reads an event's content once, for all detectors: what the tool does, its texts, pattern hits, destinations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from msgspec.structs import replace

from sidecar.core.digests import remember
from sidecar.core.organisation import Organisation
from sidecar.core.reading import NOTHING_READ, Destination, Effect, Piece, Reading
from sidecar.core.sessions import MAX_MENTIONS, MAX_OWN_DOMAINS, Session
from sidecar.core.text.decode import views
from sidecar.core.text.extract import destinations
from sidecar.core.text.normalise import fold, hidden
from sidecar.core.text.scan import PatternSet

RANKS = {"system": 4, "user": 3, "assistant": 1, "agent": 1, "tool": 1}
"""Whose words count, highest first (design §5): what a session's destinations were named by."""

DATA = 2
"""Rank of what a person hands over as material rather than says: a long text, or one with many addresses in it."""
MAX_SAID, MAX_ADDRESSED = 4000, 8

MAX_LEAVES, MAX_DEPTH = 256, 32
MAX_KEY = 40
"""A longer key is no name but content."""
MAX_VIEWED = 20_000
"""Characters of a text that decoders look at; of a longer one its head and its tail, and the act is `uninspectable`."""


class Catalogue(Protocol):
    """What tools do (`core.tools.ToolCatalogue`)."""

    def effect(self, tool: str, arguments: Any, description: str = "") -> Effect: ...


class Reader:
    """Reads arguments and texts for one process.

    Args:
        patterns: All detectors' patterns.
        organisation: What is inside and what is outside.
        decode_views: How many decoded views one act may have.
    """

    def __init__(
        self, catalogue: Catalogue, patterns: PatternSet, organisation: Organisation, *, decode_views: int = 32
    ) -> None:
        self.catalogue, self.patterns, self.organisation = catalogue, patterns, organisation
        self._views = decode_views

    def arguments(self, session: Session, tool: str, description: str, arguments: Any) -> Reading:
        """Reading of an act that is about to run."""
        effect = self.catalogue.effect(tool, arguments, description)
        if arguments is None:
            return Reading(effect=effect)
        found: dict[tuple[str, str], Destination] = {}
        pieces: list[Piece] = []
        complete, room = True, self._views
        leaves = _leaves(arguments)
        for count, (field, text) in enumerate(leaves):
            if count >= MAX_LEAVES:
                complete = False
                break
            if text is None:
                complete = False
                continue
            pieces.append(self._piece(field, text))
            for where in destinations(field, text):
                found.setdefault((where.kind, where.address), self._placed(session, where))
            looked = text if len(text) <= MAX_VIEWED else text[: MAX_VIEWED // 2] + text[-MAX_VIEWED // 2 :]
            complete &= looked is text
            decoded = views(looked, budget=max(room, 0))
            complete &= decoded.complete
            room -= len(decoded.views)
            pieces.extend(
                self._piece(field, view.text, told=looked[view.start : view.end], how=view.how)
                for view in decoded.views
            )
            pieces.extend(self._piece(field, within, "", ("hidden",)) for within in hidden(text))
        return Reading(effect, tuple(pieces), _all_hits(pieces), tuple(found.values()), complete)

    def text(self, session: Session, field: str, text: str, role: str) -> Reading:
        """Reading of a text somebody said; remembers which destinations it names, and how far the speaker counts."""
        if not text:
            return NOTHING_READ
        piece = self._piece(field, text)
        pieces = [piece, *(self._piece(field, within, "", ("hidden",)) for within in hidden(text))]
        rank = RANKS.get(role, 1)
        named = destinations(field, text)
        if rank == RANKS["user"] and (len(text) > MAX_SAID or len(named) > MAX_ADDRESSED):
            rank = DATA
        for where in named:
            for name in (where.address, where.domain):
                if name and session.mentions.get(name, 0) < rank:
                    remember(session.mentions, name, rank, MAX_MENTIONS)
            own = rank == RANKS["system"] and where.kind == "mail" and where.domain
            if own and not self.organisation.is_personal(where.domain):
                remember(session.own_domains, where.domain, None, MAX_OWN_DOMAINS)
        placed = tuple(self._placed(session, where) for where in named)
        return Reading(pieces=tuple(pieces), hits=_all_hits(pieces), destinations=placed)

    def _piece(self, field: str, text: str, told: str | None = None, how: tuple[str, ...] = (), at: int = 0) -> Piece:
        folded = fold(text).text
        return Piece(field, text if told is None else told, folded, self.patterns.match(folded), how, at)

    def _placed(self, session: Session, where: Destination) -> Destination:
        mentions = session.mentions
        rank = max(mentions.get(where.address, 0), mentions.get(where.domain, 0) if where.kind != "mail" else 0)
        return replace(where, relation=self.organisation.relation(where, session.own_domains), named_by=rank)


def _all_hits(pieces: list[Piece]) -> tuple[str, ...]:
    if not any(piece.hits for piece in pieces):
        return ()
    return tuple(sorted({name for piece in pieces for name in piece.hits}))


def _leaves(value: Any) -> Iterator[tuple[str, str | None]]:
    """Texts of nested arguments with their dotted paths, in order; keys that hold text count as texts, too.

    None stands for what is nested deeper than `MAX_DEPTH`.
    """
    stack: list[tuple[str, Any, int]] = [("arguments", value, 0)]
    while stack:
        path, item, depth = stack.pop()
        if isinstance(item, str):
            if item:
                yield path, item
        elif isinstance(item, Mapping | list | tuple) and depth >= MAX_DEPTH:
            if item:
                yield path, None
        elif isinstance(item, Mapping):
            stack.extend((f"{path}.{str(key)[:MAX_KEY]}", item[key], depth + 1) for key in reversed(item))
            for key in item:
                if isinstance(key, str) and len(key) > MAX_KEY:
                    yield f"{path}.(key)", key
        elif isinstance(item, list | tuple):
            stack.extend((f"{path}.{index}", item[index], depth + 1) for index in reversed(range(len(item))))
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield path, str(item)
        elif isinstance(item, bytes):
            yield path, item.decode("utf-8", "replace")
