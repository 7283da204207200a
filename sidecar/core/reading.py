"""What was read out of an event's content, once, for all detectors: effect, texts, pattern hits, destinations."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Effect(Struct, frozen=True, gc=False):
    """What a tool does, as the tool catalogue (`core.tools`) sees it.

    Attributes:
        tool: The tool's name without a framework's decoration.
        reads, sends, changes, runs: Brings content in; takes content out to someone; alters state; executes code.
        reversible: Whether it can be undone. What is unknown is irreversible.
        standing: Its effect outlives the act (a schedule, a mail rule, a key, a share); irreversible.
        known: Whether a rule of the catalogue or the operator recognised it.
        outward: It reaches a server outside (web, DNS, search engine): what its arguments hold goes there, even where
            it only reads.
        odd_name: The name as told is not plain ASCII, has blanks or control characters, or is too long; then it is
            judged as the name it looks like, and is not `known`.
        recipient_fields: Dotted paths of the arguments that name whom or where it goes, for instance
            ``arguments.to``; a path stands for everything below it.
        content_fields: Likewise what goes there or is written.
    """

    tool: str = ""
    reads: bool = False
    sends: bool = False
    changes: bool = False
    runs: bool = False
    reversible: bool = False
    standing: bool = False
    known: bool = False
    outward: bool = False
    odd_name: bool = False
    recipient_fields: tuple[str, ...] = ()
    content_fields: tuple[str, ...] = ()


class Destination(Struct, frozen=True, order=True, gc=False):
    """Somewhere content can go, found in an act's arguments.

    Attributes:
        kind: What sort of address it is.
        address: Canonical form: lower-case mailbox, host in ASCII (IDNA), IBAN without blanks, E.164-like digits.
        domain: Registrable domain (public suffix + 1) of mail and URL destinations, else "".
        field: Dotted path of the argument that names it.
        start, end: Character offsets in that argument's text.
        relation: To the agent's own organisation; ``personal`` is a public mail provider, ``unknown`` where nothing
            says what the organisation is.
        named_by: Rank of the most trusted who named it in this session before (`core.reader.RANKS`), 0 for nobody.
    """

    kind: Literal["mail", "url", "host", "account", "phone", "handle", "channel", "bucket", "repository"]
    address: str
    domain: str = ""
    field: str = ""
    start: int = 0
    end: int = 0
    relation: Literal["inside", "outside", "personal", "unknown"] = "unknown"
    named_by: int = 0


class Piece(Struct, frozen=True, gc=False):
    """One text of an event, with the patterns that match it.

    Attributes:
        field: Dotted path, for instance ``arguments.body``, ``result`` or ``text``.
        text: As told.
        folded: As matched: `core.text.normalise.fold` of it, or a decoded view of it.
        hits: Names of the patterns that match `folded`, sorted.
        how: Decoders that led from `text` to `folded`, outermost first; empty for the plain view.
        at: Character offset of `text` in the field.
    """

    field: str
    text: str
    folded: str
    hits: tuple[str, ...] = ()
    how: tuple[str, ...] = ()
    at: int = 0


class Reading(Struct, frozen=True, gc=False):
    """All that detectors need of an event's content.

    Attributes:
        hits: Names of all patterns that match any piece, sorted.
        complete: False when a budget ended the reading early; then the act is `uninspectable`.
    """

    effect: Effect = Effect()
    pieces: tuple[Piece, ...] = ()
    hits: tuple[str, ...] = ()
    destinations: tuple[Destination, ...] = ()
    complete: bool = True

    def hit(self, prefix: str) -> tuple[str, ...]:
        """Names of the matching patterns that begin with `prefix`, for instance ``leverage.``."""
        return tuple(name for name in self.hits if name.startswith(prefix))


NOTHING_READ = Reading()
