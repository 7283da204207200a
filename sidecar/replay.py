"""Plays recorded telemetry as if live: in event time, the gate asked before each act.

Spans come out of files in any order and are put into the order of time within a window; each becomes up to two moments,
its beginning and its end. What the pipeline says of them is written as JSON lines (design §9).
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from msgspec import Struct

from sidecar.core import semconv
from sidecar.core.alerts import Decision
from sidecar.core.commands import Pause
from sidecar.core.digests import remember
from sidecar.core.events import KIND, Event, Message, Reasoning, SessionKey, ToolCall
from sidecar.core.findings import Finding
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.places import Report, assemble
from sidecar.core.semconv.facts import Facts, Turn
from sidecar.core.sessions import Session
from sidecar.core.span import Record, Span
from sidecar.errors import StorageError

SECOND_NS = 10**9
WINDOW_NS = 3600 * SECOND_NS
STREAM_WINDOW_NS = 60 * SECOND_NS
MAX_WAITING = 400_000
"""Moments held back for order; beyond, the earliest is played though its window has not passed."""
TICK_NS = SECOND_NS
MAX_TOLD = 100_000
"""Events whose row in `events.jsonl` is written; what is told of one of them later changes it no more."""
FILES = ("decisions", "findings", "sessions", "events")

Answer = Literal["allow", "hold", "deny"]


class Moment(Struct, frozen=True):
    """A span's beginning, its end, or both."""

    span: Span
    facts: Facts | None
    begin: bool
    end: bool


class _Call(Struct):
    """A model call as its records come: all of them are one moment, at the end of its span or of the last record."""

    reports: list[Report] = []
    at_ns: int = 0
    has_span: bool = False
    version: int = 0


class Totals(Struct):
    """What a replay came to."""

    spans: int = 0
    late: int = 0
    sessions: int = 0
    acts: int = 0
    held: int = 0
    denied: int = 0
    findings: int = 0
    paused: int = 0
    unscored: int = 0
    unmapped: int = 0


def moments(span: Span, facts: Facts | None, *, gate: bool, delay_ns: int) -> Iterator[tuple[int, int, Moment]]:
    """When a span counts: (time, rank among equals, moment). Ended comes before message, message before started."""
    kind = None if facts is None else facts.kind
    if span.signal == "log" and kind == "tool":
        yield span.end_ns + delay_ns, 0, Moment(span, facts, begin=True, end=True)
    elif span.signal == "span" and kind in ("tool", "agent") and gate and span.end_ns + delay_ns <= span.start_ns:
        # By a coarse clock it ends with its beginning, or before it; it begins first all the same.
        yield span.start_ns, 3, Moment(span, facts, begin=True, end=True)
    elif span.signal == "span" and kind in ("tool", "agent") and gate:
        yield span.start_ns, 3, Moment(span, facts, begin=True, end=False)
        yield span.end_ns + delay_ns, 0 if kind == "tool" else 2, Moment(span, facts, begin=False, end=True)
    else:
        yield span.end_ns + delay_ns, 1, Moment(span, facts, begin=True, end=True)


def _read(span: Span, *, reasoning: bool) -> Facts | None:
    facts = semconv.read(span)
    if facts is not None and not reasoning:
        facts.inputs, facts.outputs = _without_reasoning(facts.inputs), _without_reasoning(facts.outputs)
    return facts


def _without_reasoning(turns: tuple[Turn, ...] | None) -> tuple[Turn, ...] | None:
    if turns is None:
        return None
    return tuple(Turn(turn.role, tuple(p for p in turn.parts if p.type != "reasoning")) for turn in turns)


def ordered(
    sources: Iterable[Iterable[Span]],
    *,
    window_ns: int,
    totals: Totals,
    gate: bool = True,
    delay_ns: int = 0,
    reasoning: bool = True,
    note: Callable[[Span, Facts | None], None] = lambda span, facts: None,
) -> Iterator[tuple[int, Moment]]:
    """Moments of several streams of spans in the order of time, as far as `window_ns` and `MAX_WAITING` reach.

    A moment that comes after a later one has been played is played at once and counted as late. What several records
    tell of one model call is one moment. `note` hears of each span when it is read, so that what a later one says of
    its session and its agent is known when an earlier one is played.
    """
    streams = {index: (iter(source), 0) for index, source in enumerate(sources)}
    waiting: list[tuple[int, int, str, str, int, Moment | None, _Call | None, int]] = []
    calls: dict[tuple[str, str], _Call] = {}
    played = count = 0

    def play(until_ns: int) -> Iterator[tuple[int, Moment]]:
        nonlocal played
        while waiting and (waiting[0][0] <= until_ns or len(waiting) > MAX_WAITING):
            at_ns, _, trace_id, span_id, _, moment, call, version = heapq.heappop(waiting)
            if call is not None and call.version != version:
                continue  # more of it has come
            played = max(played, at_ns)
            if moment is not None:
                yield played, moment
            elif call is not None:
                calls.pop((trace_id, span_id), None)
                for record, facts in assemble(call.reports):
                    yield played, Moment(record.span, facts, begin=True, end=True)

    while streams:
        index = min(streams, key=lambda i: (streams[i][1], i))  # the stream that lags behind
        stream, newest = streams[index]
        span = next(stream, None)
        if span is None:
            del streams[index]
        else:
            totals.spans += 1
            count += 1
            facts = _read(span, reasoning=reasoning)
            note(span, facts)
            if facts is not None and facts.kind == "model" and span.trace_id and span.span_id:
                call = calls.setdefault((span.trace_id, span.span_id), _Call())
                call.reports.append((Record(span, position=(0, count)), facts))
                at_ns = span.end_ns + delay_ns
                is_span = span.signal == "span"
                call.at_ns = at_ns if is_span else call.at_ns if call.has_span else max(call.at_ns, at_ns)
                call.has_span |= is_span
                call.version += 1
                totals.late += call.at_ns < played
                heapq.heappush(waiting, (call.at_ns, 1, span.trace_id, span.span_id, count, None, call, call.version))
            else:
                for at_ns, rank, moment in moments(span, facts, gate=gate, delay_ns=delay_ns):
                    totals.late += at_ns < played
                    heapq.heappush(waiting, (at_ns, rank, span.trace_id, span.span_id, count, moment, None, 0))
            streams[index] = (stream, max(newest, span.end_ns))
        yield from play(min((newest for _, newest in streams.values()), default=2**63) - window_ns)
    yield from play(2**63)


class Player:
    """Plays moments into a pipeline and writes what comes of them.

    Args:
        out: Folder for the files; made if it is not there.
        gate: Whether the gate is asked before each act; without it every act has run already (tier T−).
        events: Whether `events.jsonl` is written.
    """

    def __init__(self, pipeline: Pipeline, out: Path, *, gate: bool = True, events: bool = False) -> None:
        self.pipeline, self._gate, self._out = pipeline, gate, out
        self.totals = Totals()
        self._files: dict[str, IO[str]] = {}
        self._names = [name for name in FILES if events or name != "events"]
        self._open: dict[str, dict[str, Any]] = {}
        self._told: dict[str, None] = {}
        self._first_pause: dict[SessionKey, dict[str, Any]] = {}
        self._renamed: dict[str, str] = {}
        self._tick_ns = 0
        self._now_ns = 0

    def play(self, stream: Iterable[tuple[int, Moment]], progress: Callable[[int], None] = lambda n: None) -> Totals:
        """Plays everything to its end and writes all files; `progress` hears how many moments were played.

        Raises:
            StorageError: What comes of it cannot be written.
        """
        try:
            return self._play(stream, progress)
        except OSError as error:
            raise StorageError(f"{self._out}: cannot be written: {error.strerror or type(error).__name__}") from error

    def _play(self, stream: Iterable[tuple[int, Moment]], progress: Callable[[int], None]) -> Totals:
        self._out.mkdir(parents=True, exist_ok=True)
        self._files = {name: (self._out / f"{name}.jsonl.part").open("w", encoding="utf-8") for name in self._names}
        try:
            self.pipeline.sessions.dropped = self._session_row
            for count, (now_ns, moment) in enumerate(stream, 1):
                self._moment(now_ns, moment)
                if count % 1000 == 0:
                    progress(count)
            self._note(self.pipeline.tick(self._now_ns + 10 * SECOND_NS, last=True))
            for session in self.pipeline.sessions:
                self._session_row(session)
            self._flush(everything=True)
        finally:
            for file in self._files.values():
                file.close()
        self.totals.unmapped = self.pipeline.weaver.unmapped
        for name in self._names:
            self._finish(name)
        return self.totals

    def _moment(self, now_ns: int, moment: Moment) -> None:
        self._now_ns = now_ns
        if now_ns - self._tick_ns >= TICK_NS:
            self._tick_ns = now_ns
            self._note(self.pipeline.tick(now_ns))
        record = Record(moment.span, arrived_ns=now_ns)
        self._note(
            self.pipeline.weave(record, moment.facts, now_ns, begin=moment.begin, end=moment.end, asked=self._gate)
        )

    # ------------------------------------------------------------ rows

    def _note(self, outcome: Outcome) -> None:
        for old, new in outcome.renamed:
            self._renamed[old.id] = new.id
            if (pause := self._first_pause.pop(old, None)) is not None:
                self._first_pause[new] = min(pause, self._first_pause.get(new, pause), key=lambda p: p["at"])
        for decision in outcome.decisions:
            self._write("decisions", _decision_row(decision))
            self.totals.acts += 1
            self.totals.held += decision.answer == "hold"
            self.totals.denied += decision.answer in ("deny", "wait")
        spans = {event.event_id: event.spans[0] for event in outcome.events if event.spans}
        for found in outcome.findings:
            self.totals.findings += 1
            self._write("findings", _finding_row(found, spans.get(found.event_id, "")))
        for transition in outcome.transitions:
            command = transition.command
            if isinstance(command, Pause) and transition.before == "running":
                self.totals.paused += 1
                span = next((f.evidence[0].span_id for f in outcome.findings if f.id in command.cause.findings
                             and f.evidence), "")  # fmt: skip
                span = next((d.span_id for d in outcome.decisions if d.action == "pause"), span)
                self._first_pause.setdefault(
                    transition.session,
                    {"span_id": _span(span), "at": rfc3339(self._now_ns), "detector": command.cause.actor},
                )
        if "events" in self._files:
            for event in outcome.events:
                self._event_row(event)

    def _event_row(self, event: Event) -> None:
        if isinstance(event, ToolCall):
            row = self._open.get(event.event_id)
            if row is None:
                if event.event_id in self._told:
                    return
                row = _event_head(event) | {
                    "tool": event.tool, "call_id": event.call_id or None, "arguments": None, "result": None,
                }  # fmt: skip
                self._open[event.event_id] = row
            field = "arguments" if event.phase == "started" else "result"
            row[field] = getattr(event, field)
            for missing in ("withheld", "absent"):
                row[missing] = [*(name for name in row[missing] if name != field), *getattr(event, missing)]
            # What is not told here may be told by a message, or by another record of the call.
            row["ended"] = row["result"] is not None and "arguments" not in row["withheld"]
            self._flush()
            return
        if event.event_id in self._open or event.event_id in self._told:
            return  # the end of a run
        row = _event_head(event)
        if isinstance(event, Message):
            row |= {"direction": event.direction, "role": event.role, "text": event.text}
        elif isinstance(event, Reasoning):
            row |= {"text": event.text}
        row["ended"] = True
        self._open[event.event_id] = row
        self._flush()

    def _flush(self, *, everything: bool = False) -> None:
        """Writes rows in the order of beginning; one that has not ended holds back what comes after it for a while."""
        while self._open:
            first = next(iter(self._open))
            row = self._open[first]
            if not (everything or row.get("ended") or len(self._open) > 20_000):
                return
            del self._open[first]
            remember(self._told, first, None, MAX_TOLD)
            row.pop("ended", None)
            if row["kind"] == "tool_call" and row["result"] is None and "result" not in row["withheld"]:
                row["absent"] = list(dict.fromkeys((*row["absent"], "result")))
            self._write("events", row)

    def _session_row(self, session: Session) -> None:
        self.totals.sessions += 1
        self.totals.unscored += bool(session.reasons)
        run = self.pipeline.runs.get(session.key)
        self._write(
            "sessions",
            {
                "session_id": session.key.id,
                "agent_id": session.agent.id or session.agent.role,
                "risk": round(session.risk, 6),
                "peak_severity": None if session.peak is None else session.peak.word,
                "state": run.desired,
                "first_pause": self._first_pause.pop(session.key, None),
                "unscored": list(session.reasons),
                "spans": session.span_count,
                "acts": session.act_count,
            },
        )

    def _write(self, name: str, row: dict[str, Any]) -> None:
        try:
            line = json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
        except ValueError:  # NaN and infinity are no JSON
            line = json.dumps(_finite(row), ensure_ascii=False, default=str)
        self._files[name].write(line + "\n")

    def _finish(self, name: str) -> None:
        """Gives a file its name; rows of sessions that were renamed later get the id they ended with."""
        part, whole = self._out / f"{name}.jsonl.part", self._out / f"{name}.jsonl"
        if self._renamed and name != "sessions":
            again = self._out / f"{name}.jsonl.again"
            with part.open(encoding="utf-8") as rows, again.open("w", encoding="utf-8") as out:
                for line in rows:
                    row = json.loads(line)
                    if (newer := self._final(row["session_id"])) != row["session_id"]:
                        row["session_id"] = newer
                        line = json.dumps(row, ensure_ascii=False) + "\n"
                    out.write(line)
            part.unlink()
            part = again
        part.replace(whole)

    def _final(self, session_id: str) -> str:
        for _ in range(16):
            if (newer := self._renamed.get(session_id)) is None:
                break
            session_id = newer
        return session_id


def _decision_row(decision: Decision) -> dict[str, Any]:
    return {
        "session_id": decision.session.id,
        "span_id": _span(decision.span_id),
        "agent_id": decision.agent.id or decision.agent.role,
        "tool": decision.tool,
        "at": rfc3339(decision.at_ns),
        "decision": "deny" if decision.answer == "wait" else decision.answer,
        "state": decision.state,
        "unscored": list(decision.unscored),
        "reasons": [
            {"detector": r.detector, "severity": r.severity.word, "score": round(r.score, 6), "text": r.text}
            for r in decision.reasons
        ],
    }


def _finding_row(found: Finding, span: str) -> dict[str, Any]:
    return {
        "session_id": found.session.id,
        "span_id": _span(span or (found.evidence[0].span_id if found.evidence else "")),
        "agent_id": found.agent.id or found.agent.role,
        "at": rfc3339(found.at_ns),
        "detector": found.detector,
        "family": found.family,
        "severity": found.severity.word,
        "score": round(found.score, 6),
        "text": found.text,
        "evidence": [
            {"span_id": _span(e.span_id), "field": e.field, "start": e.start, "end": e.end} for e in found.evidence
        ],
    }


def _event_head(event: Event) -> dict[str, Any]:
    return {
        "session_id": event.session.id,
        "agent_id": event.agent.id or event.agent.role,
        "span_id": _span(event.spans[0] if event.spans else ""),
        "at": rfc3339(event.at_ns),
        "kind": KIND[type(event)],
        "withheld": list(event.withheld),
        "absent": list(event.absent),
    }


def _finite(value: Any) -> Any:
    """`value` with its numbers that are none, or infinite, as texts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _span(place: str) -> str:
    """The span id of ``trace_id:span_id``."""
    return place.rsplit(":", 1)[-1]


def rfc3339(at_ns: int) -> str:
    """A time in UTC with nine decimals and ``Z``; what no calendar holds becomes its nearest end."""
    seconds, rest = divmod(max(0, min(at_ns, 253_402_300_799 * SECOND_NS)), SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


__all__ = ["Moment", "Player", "Totals", "moments", "ordered", "rfc3339"]
