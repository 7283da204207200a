"""Examples that detectors carry: their first tests, and their page in the reference.

Builders make events as short as the thought: ``act("send_mail", {"to": "x@rival.example"})``. What an example says
is read by the real reader (`core.reader`), so an example proves patterns and extraction too.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class Step(Struct, frozen=True):
    """One thing that happens in an example.

    Attributes:
        say: ``act`` (about to run), ``result`` (of the act before it), ``user``, ``system``, ``answer`` (the agent's
            text to its user), ``reasoning``.
        after_s: Seconds since the step before.
        session: Which of the example's sessions.
    """

    say: Literal["act", "result", "user", "system", "answer", "reasoning"]
    text: str = ""
    tool: str = ""
    arguments: Any = None
    after_s: float = 1.0
    session: str = "s"


class Example(Struct, frozen=True):
    """A situation and whether the detector flags its last step.

    Attributes:
        after: What happened before; none of it may be flagged by this detector, unless `flagged_before`.
        learn: Whether what happened before has been learned as normal (its delay has passed).
        repeat: How often `after` happens, each time as a session of its own when `learn` is set.
    """

    name: str
    event: Step
    after: tuple[Step, ...] = ()
    flagged: bool = True
    learn: bool = False
    repeat: int = 1
    flagged_before: bool = False
    own_domains: tuple[str, ...] = ()


def act(tool: str, arguments: Any = None, **more: Any) -> Step:
    """The agent is about to call a tool."""
    return Step("act", tool=tool, arguments={} if arguments is None else arguments, **more)


def result(text: str, **more: Any) -> Step:
    """What the last call returned."""
    return Step("result", text, **more)


def read(text: str, tool: str = "read_mail", **more: Any) -> tuple[Step, Step]:
    """The agent reads something: a call and what it returned."""
    return act(tool, **more), result(text)


def user(text: str, **more: Any) -> Step:
    """A person asks for something."""
    return Step("user", text, **more)


def system(text: str, **more: Any) -> Step:
    """The operator's instructions."""
    return Step("system", text, **more)


def answer(text: str, **more: Any) -> Step:
    """The agent's words to its user."""
    return Step("answer", text, **more)


def mail(to: str, body: str, subject: str = "", **more: Any) -> Step:
    """The agent is about to send a mail."""
    return act("send_mail", {"to": to, "subject": subject, "body": body}, **more)
