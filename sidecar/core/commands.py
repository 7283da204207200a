"""What can be asked of a session's run state, and what came of it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from sidecar.core.events import SessionKey

By = Literal["detector", "policy", "operator", "escalation", "successor"]
State = Literal["running", "paused", "terminated"]
Observed = Literal["running", "requested", "acknowledged", "quiesced", "unconfirmed", "unenforced"]


class Cause(Struct, frozen=True):
    """One reason why a session is held.

    Attributes:
        pause_id: Names this pause; a resume answers one.
        by, actor: What sort of party asked, and which: a detector's name or an authenticated person.
        findings: Ids of the findings that led to it; a resume names them to clear them.
        not_before_ns: A resume by anything but a person is refused before then (escalations).
        scope: ``role:NAME`` or ``fleet`` where it was not asked for this session alone.
    """

    pause_id: str
    by: By
    actor: str
    reason: str
    at_ns: int
    findings: tuple[str, ...] = ()
    not_before_ns: int = 0
    scope: str = ""


class Pause(Struct, frozen=True):
    """Hold a session before its next act."""

    session: SessionKey
    cause: Cause


class Resume(Struct, frozen=True):
    """Let a session go on; holds only if `pause_id` and `epoch` are the current ones."""

    session: SessionKey
    pause_id: str
    epoch: int
    actor: str
    reason: str
    at_ns: int
    clears: tuple[str, ...] = ()


class Terminate(Struct, frozen=True):
    """End a session for good."""

    session: SessionKey
    actor: str
    reason: str
    at_ns: int


class Acknowledge(Struct, frozen=True):
    """The agent's process says how far it has followed."""

    session: SessionKey
    epoch: int
    observed: Observed
    at_ns: int
    in_flight: tuple[str, ...] = ()


class Move(Struct, frozen=True):
    """The session `old` turned out to be `session`; what holds the one holds the other."""

    session: SessionKey
    old: SessionKey
    at_ns: int


Command = Pause | Resume | Terminate | Acknowledge | Move


class Transition(Struct, frozen=True):
    """One change of a session's run state, to be stored, audited and told to the agent.

    Attributes:
        before, after: Desired state.
        epoch: After the change; grows by one at each control change and never goes back.
        observed: What is known of the agent after it.
        causes: What holds the session after it.
        cleared: Pause ids that a resume ended.
    """

    session: SessionKey
    command: Command
    before: State
    after: State
    epoch: int
    observed: Observed
    at_ns: int
    pause_id: str = ""
    causes: tuple[Cause, ...] = ()
    cleared: tuple[str, ...] = ()
