"""Takes what a door received: decodes and checks it, makes it durable, and only then lets it be acknowledged.

The doors share a thread with the gate, so a request is decoded in slices of some 0.1 ms with the loop's turn between
them. What is kept is the request's bytes, whole; what it held is decoded again after a restart, with the same result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct
from pydantic import Field

from sidecar.core.span import Span, Speaker
from sidecar.errors import ControlError, OutsideError, SpanError
from sidecar.settings import Bytes, Settings
from sidecar.sources import Encoding, Feeder, Inbox, InboxFullError, Kind, Row
from sidecar.sources.decode import Decoded, Limits, Signal, begin, decode
from sidecar.sources.limits import FORWARDER, Limiter, OverLimitError, Rates, Turns
from sidecar.sources.turns import Turn

Door = Literal["otlp_grpc", "otlp_http", "kafka"]

REASONS = (
    *("malformed", "too_deep", "too_many_spans", "too_many_nodes", "too_large"),  # the whole request cannot be taken
    *("invalid_id", "too_many_attributes"),  # this span cannot (`too_many_nodes` can be either)
    *("rate_bytes", "rate_spans", "rate_sessions", "busy", "inbox_full", "storage"),  # not now
    *("unauthenticated", "forbidden", "unsupported", "slow", "aborted", "tls"),  # counted by the doors
    "internal",  # our mistake
)
"""Why something was refused: with `Door`, all the labels that `Counts.refused` ever sees."""

LATER = frozenset(("rate_bytes", "rate_spans", "rate_sessions", "busy", "inbox_full", "storage"))
"""Of these, what a sender is asked to come again after."""

_THREADED = 8 * 1024  # bytes of JSON above which it is read in a thread: its parser cannot be stopped between records
_WARNED = ("cut", "duplicate_key", "nonfinite", "too_deep")  # what a sender should know of, though nothing was refused


class IntakeSettings(Settings):
    """What may come in, and how much of it."""

    limits: Limits = Limits()
    """What one request may hold."""
    rates: Rates = Rates()
    """What one identity may send."""
    forwarders: Rates = FORWARDER
    """What one forwarder may send, that is an identity which speaks for agents."""
    in_flight: Bytes = Field(default=64 * 2**20, ge=1)
    """Bytes of requests that are decoded or stored at the same time; beyond, senders are asked to come again."""


class Counts(Protocol):
    """What came in, counted; so that for the spans of understood requests sent = stored + refused + lost."""

    def stored(self, door: str, kind: str, spans: int) -> None:
        """One request and its spans are durable."""
        ...

    def refused(self, door: str, reason: str, *, requests: int, spans: int, speaker: Speaker | None = None) -> None:
        """A whole request was refused (`spans` is 0 where nobody counted them), or some spans of one that was taken.

        `speaker` is None where it was not known yet.
        """
        ...

    def lost(self, door: str, spans: int, *, speaker: Speaker | None = None) -> None:
        """The sender went away before its request was durable."""
        ...

    def noted(self, door: str, note: str, spans: int) -> None:
        """Decoding had to change something; `note` is one of `decode.NOTES`."""
        ...

    def ignored(self, door: str, kind: str) -> None:
        """A request that is accepted and not looked at, that is metrics."""
        ...


class Receipt(Struct, frozen=True):
    """What became of a request that was taken.

    Attributes:
        accepted: Spans that are durable.
        rejected: Spans that are not, by reason.
        message: What the sender should know in words; "" when there is nothing. Holds nothing that was sent.
    """

    accepted: int
    rejected: dict[str, int]
    message: str = ""


class BusyError(OutsideError):
    """More requests are on their way in than may be at a time; nothing of this one was kept."""

    retry_after_s = 1.0


class Intake:
    """The one way in for telemetry, whichever door it came through.

    Memory: the bodies under way (at most `in_flight` bytes and one request more) and what is decoded from them; and
    that of its `Limiter`.

    Args:
        is_false: (speaker, its spans) → whether they claim what is another's (`claims.Claims`).
    """

    def __init__(
        self,
        inbox: Inbox,
        feeder: Feeder,
        counts: Counts,
        settings: IntakeSettings | None = None,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        is_false: Callable[[Speaker, Sequence[Span]], bool] = lambda speaker, spans: False,
    ) -> None:
        self._is_false = is_false
        self._inbox, self._feeder, self._counts = inbox, feeder, counts
        self._settings = settings or IntakeSettings()
        self._clock_ns = clock_ns
        self._limiter = Limiter(self._settings.rates, self._settings.forwarders)
        self._under_way = 0
        self._reading = Turns(most=1, each=1)
        self._commits: set[asyncio.Task[None]] = set()

    async def take(
        self,
        kind: Kind,
        body: bytes,
        encoding: Encoding,
        speaker: Speaker,
        arrived_ns: int,
        *,
        door: Door = "kafka",
    ) -> Receipt:
        """Returns once the request is durable; an empty one, or one of which nothing is taken, leaves no row.

        Args:
            kind: ``traces`` or ``logs``.
            arrived_ns: Wall clock, Unix nanoseconds.
        Raises:
            SpanError: The request cannot be understood; trying again is no use.
            ControlError: It names a session of another's credential.
            OverLimitError, BusyError, InboxFullError: Not now; they say when.
            StorageError: It could not be made durable.
        """
        if kind != "traces" and kind != "logs":
            raise ValueError(f"no telemetry: {kind}")
        under_way = _UnderWay(door, kind, speaker)
        if self._under_way and self._under_way + len(body) > self._settings.in_flight:
            self._counts.refused(door, "busy", requests=1, spans=0, speaker=speaker)
            raise BusyError("too many requests under way")
        self._under_way += len(body)
        try:
            return await self._take(under_way, Row(kind, body, arrived_ns, encoding, speaker))
        except (SpanError, OutsideError) as error:
            self._counts.refused(door, _reason(error), requests=1, spans=under_way.spans, speaker=speaker)
            raise
        except asyncio.CancelledError:
            commit, under_way.left = under_way.commit, True
            if commit is None or (commit.done() and commit.exception()):
                self._counts.lost(door, under_way.spans, speaker=speaker)
            raise
        except Exception:  # ours; the sender is told so, and the sum of spans still comes out
            self._counts.refused(door, "internal", requests=1, spans=under_way.spans, speaker=speaker)
            raise
        finally:
            self._under_way -= len(body)

    async def _take(self, under_way: _UnderWay, row: Row) -> Receipt:
        self._limiter.admit_bytes(row.speaker, len(row.body), self._clock_ns())
        if row.encoding == "json" and len(row.body) > _THREADED:
            async with self._reading.of(row.speaker):
                decoded = await asyncio.to_thread(decode, under_way.kind, row.body, "json", self._settings.limits)
            under_way.spans = len(decoded.spans) + sum(decoded.rejected.values())
            self._limiter.admit_spans(row.speaker, under_way.spans, self._clock_ns())
        else:
            decoded = await self._decode(under_way, row)
        self._limiter.admit_sessions(row.speaker, decoded.spans, self._clock_ns())
        if self._is_false(row.speaker, decoded.spans):
            raise ControlError("PERMISSION_DENIED", "a session of another's credential")
        if decoded.spans:
            under_way.commit = commit = asyncio.create_task(self._commit(under_way, row, decoded))
            self._commits.add(commit)
            commit.add_done_callback(self._commits.discard)
            await asyncio.shield(commit)  # a sender that leaves now must not leave a row that nobody was told of
        else:
            self._count(under_way, decoded)
        return Receipt(len(decoded.spans), decoded.rejected, _message(decoded))

    async def _decode(self, under_way: _UnderWay, row: Row) -> Decoded:
        decoding = begin(under_way.kind, row.body, row.encoding, self._settings.limits)
        turn = Turn(self._clock_ns)
        for _ in decoding.count():
            if turn.is_over():
                await turn.next()
        under_way.spans = decoding.total
        self._limiter.admit_spans(row.speaker, decoding.total, self._clock_ns())
        spans: list[Span] = []
        for span in decoding.spans():
            if span is not None:
                spans.append(span)
            if turn.is_over():
                await turn.next()
        return Decoded(decoding.signal, spans, decoding.rejected, decoding.notes)

    async def _commit(self, under_way: _UnderWay, row: Row, decoded: Decoded) -> None:
        try:
            seq = await self._inbox.append(row)
        except Exception:
            if not under_way.left:
                raise
            self._counts.lost(under_way.door, under_way.spans, speaker=under_way.speaker)
            return
        self._counts.stored(under_way.door, under_way.kind, len(decoded.spans))
        self._count(under_way, decoded)
        self._feeder.offer(seq, row, decoded.spans)

    def _count(self, under_way: _UnderWay, decoded: Decoded) -> None:
        for reason, spans in decoded.rejected.items():
            self._counts.refused(under_way.door, reason, requests=0, spans=spans, speaker=under_way.speaker)
        for note, spans in decoded.notes.items():
            self._counts.noted(under_way.door, note, spans)

    async def close(self) -> None:
        """Waits for the commits that their senders did not wait for."""
        await asyncio.gather(*self._commits, return_exceptions=True)


class _UnderWay(Struct):
    """How far a request has come: for the counts, when it ends early."""

    door: Door
    kind: Signal
    speaker: Speaker
    spans: int = 0
    commit: asyncio.Task[None] | None = None
    left: bool = False


def _reason(error: SpanError | OutsideError) -> str:
    if isinstance(error, SpanError | OverLimitError):
        return error.reason
    if isinstance(error, ControlError):
        return "forbidden"
    return "inbox_full" if isinstance(error, InboxFullError) else "storage"


def _message(decoded: Decoded) -> str:
    parts = [f"rejected {spans}: {reason}" for reason, spans in decoded.rejected.items()]
    parts += [f"changed {decoded.notes[note]}: {note}" for note in _WARNED if note in decoded.notes]
    return "; ".join(parts)
