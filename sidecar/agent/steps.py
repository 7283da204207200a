"""What the flow of an act asks the outside world to do; the flow itself does no I/O.

A flow is a generator that yields steps and is sent their results. Two small drivers perform steps, one blocking, one in
asyncio (`wire.Wire.drive`, `adrive`); tests perform them by hand.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """Make one unary call of `AgentService`; its answer comes back, or `NoAnswer` is thrown in."""

    method: str
    request: Any
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Changed:
    """Wait until the roster's version is no longer `version`, at most `timeout_s`."""

    version: int
    timeout_s: float


Step = Call | Sleep | Changed
Steps = Generator[Step, Any, T]


class NoAnswer(Exception):  # noqa: N818
    """A call failed. `code` is the gRPC status name, `details` the server's words."""

    LOST = frozenset(("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"))
    REJECTED = frozenset(("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "UNIMPLEMENTED"))

    def __init__(self, code: str, details: str = "") -> None:
        super().__init__(code)
        self.code, self.details = code, details

    @property
    def is_lost(self) -> bool:
        """Whether nobody answered, as against an answer that is an error."""
        return self.code in self.LOST

    @property
    def is_rejected(self) -> bool:
        """Whether the door refuses this caller or request, so that asking again cannot help."""
        return self.code in self.REJECTED
