"""Whom an agent writes to: new to it, or outside its organisation. Good evidence beside others, weak on its own."""

from __future__ import annotations

from typing import Any

from sidecar.core.digests import remember
from sidecar.core.events import Event, ToolCall
from sidecar.core.examples import Example, mail, system, user
from sidecar.core.findings import Evidence, Finding, Severity, finding
from sidecar.core.reader import RANKS
from sidecar.core.reading import Destination

MOST = 1_000_000


def addressed(event: Event) -> tuple[Destination, ...]:
    """Destinations that an act about to run sends something to; none for an act that only reads."""
    if not isinstance(event, ToolCall) or event.phase != "started":
        return ()
    effect = event.reading.effect
    if effect.reads and not (effect.sends or effect.changes or effect.runs):
        return ()
    return tuple(where for where in event.reading.destinations if where.kind in ("mail", "phone", "handle", "account"))


def evidence_of(event: Event, where: Destination) -> Evidence:
    """Where in the act a destination stands; an address is no secret and is shown."""
    return Evidence(event.spans[0] if event.spans else "", where.field, where.start, where.end, where.address[:160])


class NovelRecipient:
    """Share of an act's recipients that are new to the agent role, 0..1.

    Silent for the first `warm_up` messages; remembers at most `capacity` addresses. A recipient whom the operator or
    the user has named is not new.
    """

    name = "novel_recipient"
    family = "recipients"
    severity = Severity.LOW
    scope = "agent"
    mode = "alert"
    sees = (ToolCall,)
    patterns = ()
    tags = ("AML.T0086",)

    def __init__(self, *, warm_up: int = 20, capacity: int = 4096) -> None:
        if not (0 <= warm_up <= MOST and 1 <= capacity <= MOST):
            raise ValueError(f"warm_up is 0 to {MOST}, capacity 1 to {MOST}")
        self._to_learn, self._capacity = warm_up, capacity
        self._known: dict[str, None] = {}

    @property
    def is_mature(self) -> bool:
        return self._to_learn <= 0

    def score(self, event: Event) -> Finding | None:
        if self._to_learn > 0:
            return None
        to = addressed(event)
        new = [w for w in to if w.address not in self._known and w.named_by < RANKS["user"] and w.relation != "inside"]
        if not new:
            return None
        text = f"first message of this agent to {new[0].address[:120]}"
        return finding(self, event, len(new) / len(to), text, evidence=tuple(evidence_of(event, w) for w in new[:8]))

    def learn(self, event: Event) -> None:
        to = addressed(event)
        if to:
            self._to_learn -= 1
            for where in to:
                remember(self._known, where.address, None, self._capacity)

    def dump(self) -> dict[str, Any]:
        return {"to_learn": self._to_learn, "known": list(self._known)}

    def load(self, state: dict[str, Any]) -> None:
        self._to_learn, self._known = int(state["to_learn"]), dict.fromkeys(map(str, state["known"]))

    _USUAL = (mail("amy@corp.example", "The report is ready."),)
    examples = (
        Example("outsider", after=_USUAL, repeat=20, learn=True, event=mail("x@rival.example", "Hello")),
        Example("colleague", after=_USUAL, repeat=20, learn=True, event=mail("amy@corp.example", "Hi"), flagged=False),
        Example("still learning", event=mail("x@rival.example", "Hello"), flagged=False),
    )


class OutsideRecipient:
    """An act that sends to a mailbox outside the organisation, or to a personal one, that nobody in charge named."""

    name = "outside_recipient"
    family = "recipients"
    severity = Severity.LOW
    scope = "session"
    mode = "alert"
    sees = (ToolCall,)
    patterns = ()
    tags = ("AML.T0086",)

    __slots__ = ()

    def score(self, event: Event) -> Finding | None:
        out = [
            where
            for where in addressed(event)
            if where.relation in ("outside", "personal") and where.named_by < RANKS["user"]
        ]
        if not out:
            return None
        where = min(out, key=lambda w: (w.named_by, w.relation != "personal", w.address))
        whose = "a personal mailbox" if where.relation == "personal" else "outside the organisation"
        said = "named by nobody before" if where.named_by == 0 else "named only by what the agent has read"
        score = (0.8 if where.relation == "personal" else 0.6) + (0.2 if where.named_by == 0 else 0.0)
        text = f"{where.address[:120]} is {whose}, {said}"
        return finding(self, event, score, text, evidence=tuple(evidence_of(event, w) for w in out[:8]))

    _OFFICE = (system("You sort the mail of the desk. Ask desk@corp.example when in doubt."),)
    examples = (
        Example("outside", after=_OFFICE, event=mail("buyer@elsewhere.example", "The list")),
        Example("personal", event=mail("someone.77@gmail.com", "The list")),
        Example("inside", after=_OFFICE, event=mail("amy@corp.example", "The list"), flagged=False),
        Example("asked for", after=(*_OFFICE, user("Send the list to buyer@elsewhere.example, please")),
                event=mail("buyer@elsewhere.example", "The list"), flagged=False),
        Example("organisation not known", event=mail("buyer@elsewhere.example", "The list"), flagged=False),
    )  # fmt: skip
