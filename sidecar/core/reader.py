"""Reads an event's content once, for all detectors: what the tool does, its texts, pattern hits, destinations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core.digests import remember
from sidecar.core.organisation import Organisation
from sidecar.core.reading import NOTHING_READ, Destination, Effect, Piece, Reading
from sidecar.core.sessions import MAX_MENTIONS, MAX_OWN_DOMAINS, Session
from sidecar.core.text.decode import views
from sidecar.core.text.decode import worthwhile as codes_in
from sidecar.core.text.extract import Pass, extract, may_be, worthwhile
from sidecar.core.text.normalise import bare, fold, hidden, is_plain
from sidecar.core.text.scan import PatternSet, is_anchored

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


MAX_GLANCED = 4000
"""A longer text is looked at by itself."""


class _Glance(Struct, frozen=True):
    """What there may be in some texts: matches of patterns, destinations, codes; None is whatever there is."""

    matches: bool = True
    places: Sequence[Pass] | None = None
    codes: Sequence[int] | None = None


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
        self._is_local = not any(is_anchored(pattern.regex) for pattern in patterns.patterns)

    def arguments(self, session: Session, tool: str, description: str, arguments: Any) -> Reading:
        """Reading of an act that is about to run."""
        effect = self.catalogue.effect(tool, arguments, description)
        if arguments is None:
            return Reading(effect=effect)
        found: dict[tuple[str, str], Destination] = {}
        pieces: list[Piece] = []
        leaves, complete = _leaves(arguments)
        glance, room = self._glance(leaves), self._views
        for field, text in leaves:
            is_short = _is_short(text)
            if is_short and not glance.matches:
                pieces.append(Piece(field, text, text.lower()))
            else:
                pieces.extend(self._pieces(field, text))
            places = glance.places if is_short else None
            if places is None or places or may_be(field, text):
                named = extract(field, text, among=places)
                complete &= named.complete
                for where in named.destinations:
                    found.setdefault((where.kind, where.address), self._placed(session, where))
            codes = glance.codes if is_short else None
            if codes is None or codes:
                looked = text if len(text) <= MAX_VIEWED else text[: MAX_VIEWED // 2] + text[-MAX_VIEWED // 2 :]
                complete &= looked is text
                decoded = views(looked, budget=max(room, 0), among=codes)
                complete &= decoded.complete
                room -= len(decoded.views)
                for view in decoded.views:
                    told = looked[view.start : view.end]
                    pieces.extend(self._pieces(field, view.text, told=told, how=view.how))
                for within in hidden(text):
                    pieces.extend(self._pieces(field, within, "", ("hidden",)))
        return Reading(effect, tuple(pieces), _all_hits(pieces), tuple(found.values()), complete)

    def _glance(self, leaves: list[tuple[str, str]]) -> _Glance:
        """What there is in the short plain texts of an act, looked at together: most acts have nothing."""
        whole = "\n".join([text for _, text in leaves if _is_short(text)])
        if not is_plain(whole):
            return _Glance()
        matches = not self._is_local or bool(self.patterns.match(whole.lower()))
        return _Glance(matches, worthwhile(whole), codes_in(whole))

    def text(self, session: Session, field: str, text: str, role: str) -> Reading:
        """Reading of a text somebody said; remembers which destinations it names, and how far the speaker counts."""
        if not text:
            return NOTHING_READ
        pieces = self._pieces(field, text)
        for within in hidden(text):
            pieces.extend(self._pieces(field, within, "", ("hidden",)))
        rank = RANKS.get(role, 1)
        extracted = extract(field, text)
        named = extracted.destinations
        if rank == RANKS["user"] and (len(text) > MAX_SAID or len(named) > MAX_ADDRESSED):
            rank = DATA
        for where in named:
            for name in (where.address, where.domain):
                if name and session.mentions.get(name, 0) < rank:
                    remember(session.mentions, name, rank, MAX_MENTIONS)
            own = rank == RANKS["system"] and where.kind == "mail" and where.domain
            if own and not self.organisation.is_personal(where.domain):
                remember(session.own_domains, where.domain, None, MAX_OWN_DOMAINS)
        placed = tuple([self._placed(session, where) for where in named])
        return Reading(pieces=tuple(pieces), hits=_all_hits(pieces), destinations=placed, complete=extracted.complete)

    def _pieces(self, field: str, text: str, told: str | None = None, how: tuple[str, ...] = ()) -> list[Piece]:
        """A text as a piece; as two where patterns match it without its accents that do not match it with them."""
        told = text if told is None else told
        folded = fold(text).text
        hits = self.patterns.match(folded)
        pieces = [Piece(field, told, folded, hits, how)]
        if not folded.isascii() and (unaccented := bare(folded)) != folded:
            more = self.patterns.match(unaccented)
            if not set(more) <= set(hits):
                pieces.append(Piece(field, told, unaccented, more, (*how, "unaccented")))
        return pieces

    def _placed(self, session: Session, where: Destination) -> Destination:
        mentions = session.mentions
        rank = max(mentions.get(where.address, 0), mentions.get(where.domain, 0) if where.kind != "mail" else 0)
        return replace(where, relation=self.organisation.relation(where, session.own_domains), named_by=rank)


def _all_hits(pieces: list[Piece]) -> tuple[str, ...]:
    if not any(piece.hits for piece in pieces):
        return ()
    return tuple(sorted({name for piece in pieces for name in piece.hits}))


def _leaves(value: Any) -> tuple[list[tuple[str, str]], bool]:
    """Texts of nested arguments with their dotted paths, in order, and whether these are all.

    Keys that hold text count as texts, too. More than `MAX_LEAVES`, or what is nested deeper than `MAX_DEPTH`, is
    left out.
    """
    leaves: list[tuple[str, str]] = []
    stack: list[tuple[str, Any, int]] = [("arguments", value, 0)]
    complete = True
    while stack:
        path, item, depth = stack.pop()
        if isinstance(item, str):
            if item:
                leaves.append((path, item))
        elif isinstance(item, (int, float)):
            if not isinstance(item, bool):
                leaves.append((path, str(item)))
        elif isinstance(item, (dict, list, tuple)) and depth >= MAX_DEPTH:
            complete &= not item
        elif isinstance(item, dict):
            stack.extend([(f"{path}.{str(key)[:MAX_KEY]}", item[key], depth + 1) for key in reversed(item)])
            leaves.extend([(f"{path}.(key)", key) for key in item if isinstance(key, str) and len(key) > MAX_KEY])
        elif isinstance(item, (list, tuple)):
            stack.extend([(f"{path}.{index}", item[index], depth + 1) for index in reversed(range(len(item)))])
        elif isinstance(item, bytes):
            leaves.append((path, item.decode("utf-8", "replace")))
        if len(leaves) > MAX_LEAVES:
            return leaves[:MAX_LEAVES], False
    return leaves, complete


def _is_short(text: str) -> bool:
    return len(text) <= MAX_GLANCED and text.isascii()
