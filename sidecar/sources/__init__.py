"""Where spans come from, and the seams between a door, the inbox and the engine.

A door (`otlp_grpc`, `otlp_http`, `kafka`) hands each request to the `Intake`, which decodes and checks it, makes its
bytes durable in the `Inbox` and only then answers. The feeder takes rows out of the inbox in order and gives their
spans to the pipeline; after a restart it goes on where the last checkpoint stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from sidecar.core.span import LOCAL, Span, Speaker
from sidecar.errors import OutsideError

Kind = Literal["traces", "logs", "asked", "command"]
Encoding = Literal["proto", "json"]


class Row(Struct, frozen=True):
    """One row of the inbox: what arrived, whole, when, and from whom.

    Attributes:
        kind: ``traces`` and ``logs`` are OTLP export requests; ``asked`` is a question at the gate with the spans it
            carried, ``command`` something else the engine's state depends on.
        after: For rows that jumped the queue (`asked`, `command`): how far the engine had read the telemetry rows
            when it took this one, (row, index of the next span). Replaying both lanes by it gives the same state.
    """

    kind: Kind
    body: bytes
    arrived_ns: int
    encoding: Encoding = "proto"
    speaker: Speaker = LOCAL
    after: tuple[int, int] = (0, 0)


class InboxFullError(OutsideError):
    """The inbox takes nothing more for now; nothing of the request was kept."""

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"inbox is full, retry after {retry_after_s:g} s")


class Inbox(Protocol):
    """Durable rows in order of arrival."""

    async def append(self, row: Row) -> int:
        """Commits `row`; its sequence number, once it is durable.

        Raises:
            InboxFullError: The backlog or the disk is over its mark.
            StorageError: The commit failed; the row must not be acknowledged.
        """
        ...

    def read(self, after: int, limit: int = 64) -> Sequence[tuple[int, Row]]:
        """Rows with a sequence number above `after`, ascending, at most `limit`."""
        ...


class Feeder(Protocol):
    """Takes the spans of committed rows to the engine."""

    def offer(self, seq: int, row: Row, spans: Sequence[Span]) -> None:
        """Says that `row` is durable as number `seq`; `spans` are what was decoded from it."""
        ...


class Doorman(Protocol):
    """Knows credentials."""

    def identify(self, token: str | None, *, loopback: bool) -> Speaker:
        """Who speaks.

        Raises:
            ControlError: ``UNAUTHENTICATED``: unknown, expired or missing where one is needed.
        """
        ...
