"""What control.db keeps, as plain values, and what is changed together."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from sidecar.core.alerts import Alert, Reason
from sidecar.core.commands import Cause, Observed, State, Transition
from sidecar.core.events import NO_AGENT, Agent, SessionKey
from sidecar.errors import StorageError
from sidecar.storage.audit import Entry, Instant

T = TypeVar("T", bound=Struct)


class SavedRun(Struct, frozen=True):
    """A session's run state (`core.runstate`), as it must be after a restart.

    Attributes:
        parent: The session that started it, in the same realm; "" at the root of a tree.
        aliases: Ids the same session was known by before it was bound.
        work: What a successor of this session would be known by (its task key), where it has any.
    """

    session: SessionKey
    desired: State
    epoch: int
    at_ns: int
    observed: Observed = "running"
    pause_id: str = ""
    causes: tuple[Cause, ...] = ()
    in_flight: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    work: tuple[str, ...] = ()
    agent: Agent = NO_AGENT
    parent: str = ""

    @classmethod
    def after(cls, transition: Transition, **known: Any) -> SavedRun:
        """The run state that `transition` leads to; `known` are the fields that it does not tell."""
        return cls(
            session=transition.session,
            desired=transition.after,
            epoch=transition.epoch,
            at_ns=transition.at_ns,
            observed=transition.observed,
            pause_id=transition.pause_id,
            causes=transition.causes,
            **known,
        )


class SavedScope(Struct, frozen=True):
    """Run state of a role or of the fleet (then `name` is "")."""

    kind: Literal["role", "fleet"]
    name: str
    desired: State
    epoch: int
    at_ns: int
    pause_id: str = ""
    causes: tuple[Cause, ...] = ()


class Approval(Struct, frozen=True):
    """A held act and what a person said of it.

    Attributes:
        digest: SHA-256 of the exact act; what is approved is this and nothing else.
        arguments: Redacted, for people.
        row: Row of the inbox in which the act was asked.
        independence: What is known of the approver's independence from the agent's owner.
    """

    decision_id: str
    session: SessionKey
    agent: Agent
    tool: str
    digest: bytes
    asked_ns: int
    deadline_ns: int
    call_id: str = ""
    row: int = 0
    arguments: str = ""
    reasons: tuple[Reason, ...] = ()
    state: Literal["open", "approved", "denied", "expired"] = "open"
    decided_by: str = ""
    decided_ns: int = 0
    reason: str = ""
    independence: str = ""


class Grant(Struct, frozen=True):
    """Permission for one exact act, once, until `expires` (by its `boot_ns`; `at_ns` is for people)."""

    grant_id: str
    digest: bytes
    session: SessionKey
    expires: Instant
    role: str = ""
    decision_id: str = ""


class Request(Struct, frozen=True):
    """An answered request: who asked, the digest of what was asked, and the answer's bytes."""

    actor: str
    request_id: str
    digest: bytes
    answer: bytes
    at_ns: int


class RequestExistsError(StorageError):
    """The actor has used this request id before; nothing of the batch was kept. `request` is the earlier one."""

    retriable = False

    def __init__(self, request: Request) -> None:
        self.request = request
        super().__init__("this request id was used before")


class ControlBatch(Struct):
    """What changes together. Values replace earlier ones of the same key; audit entries are appended in order.

    A change of run state, a grant or a decision without an audit entry is refused: what cannot be put on record does
    not happen.

    Attributes:
        moves: (old, new) sessions that turned out to be one: the old one's run state goes (its successor is in `runs`),
            its grants become the new one's.
    """

    moves: list[tuple[SessionKey, SessionKey]] = []
    runs: list[SavedRun] = []
    scopes: list[SavedScope] = []
    alerts: list[Alert] = []
    approvals: list[Approval] = []
    grants: list[Grant] = []
    requests: list[Request] = []
    audit: list[Entry] = []

    @property
    def is_vital(self) -> bool:
        """Whether it holds or ends a session; then it may use the space reserved for that."""
        return any(run.desired != "running" for run in self.runs) or any(
            scope.desired != "running" for scope in self.scopes
        )


class ControlState(Struct, frozen=True):
    """What a start needs to know, all of one moment.

    Attributes:
        runs: Sessions that are not running.
        epochs: Highest epoch of every session on record, running ones included.
        scopes: Roles and the fleet, where not running.
        alerts: Firing ones.
        approvals: Open ones.
        grants: Neither redeemed, void nor expired.
        unreadable: Rows that could not be read, by table and key. A run state or scope among them is in `runs` or
            `scopes` anyway, with what could be: damage never ends a pause.
    """

    runs: list[SavedRun]
    epochs: dict[SessionKey, int]
    scopes: list[SavedScope]
    alerts: list[Alert]
    approvals: list[Approval]
    grants: list[Grant]
    unreadable: list[str]


def fit(value: T) -> tuple[T, str]:
    """`value` such that its JSON reads back as the same, and that JSON.

    Text that is no Unicode is escaped; a score that is no finite number is the highest, never the lowest.
    """
    try:
        encoded = msgspec.json.encode(value)
        if b"null" not in encoded:  # what NaN and infinity become
            return value, encoded.decode()
    except UnicodeEncodeError:
        pass
    value = msgspec.convert(_plain(msgspec.to_builtins(value)), type(value))
    return value, msgspec.json.encode(value).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else 1.0
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
