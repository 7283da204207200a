"""Brings a restarted sidecar back to where it was: the last checkpoint, then the rows that came after it.

Two lanes of rows are told apart. Telemetry is read again in order; a question that was asked at the gate is asked again
at the point of the telemetry at which it was asked (`Row.after`), so that the core sees what it saw.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable

from sidecar.core.alerts import Decision
from sidecar.core.events import Agent, SessionKey
from sidecar.core.snapshot import restore
from sidecar.core.span import LOCAL
from sidecar.errors import SidecarError
from sidecar.service import Question, Service
from sidecar.sources import Row
from sidecar.sources.decode import Limits, decode
from sidecar.sources.feeder import QueueFeeder
from sidecar.storage import Checkpoint, ControlReader, TelemetryStore

log = logging.getLogger("sidecar.recovery")

CHUNK = 64
MAX_RECORDS = 100_000
SLACK_NS = 60 * 10**9
MAX_NAME, MAX_TOLD = 256, 64

ReadQuestion = Callable[[Row], Question]


async def recover(
    service: Service, telemetry: TelemetryStore, feeder: QueueFeeder, limits: Limits, read_question: ReadQuestion
) -> Checkpoint:
    """Restores and catches up; yields to the loop between rows, so that the gate can answer `restoring` meanwhile.

    Returns:
        The checkpoint it started from; what of it was refused starts cold.
    """
    checkpoint = await telemetry.load_checkpoint()
    refused = restore(service.pipeline, checkpoint.blobs)
    for name, reason in (*checkpoint.refused, *refused):
        log.warning("a part of the last snapshot is not used", extra={"part": name, "reason": reason})
        service.cold[name] = reason
    _tell_cold(service, time.time_ns())
    service.pipeline.known_pauses = _pauses_since(service.control, checkpoint.created_ns)
    row, index, asked = (int(checkpoint.cursor.get(key, 0)) for key in ("row", "index", "asked"))
    questions = await asyncio.to_thread(_questions, telemetry, row, asked)
    service.asked_row = max(asked, *(seq for _, seq in questions), 0)
    last = row
    while rows := await asyncio.to_thread(telemetry.read, last, CHUNK):
        for seq, found in rows:
            last = seq
            if found.kind not in ("traces", "logs"):
                continue
            try:
                spans = decode(found.kind, found.body, found.encoding, limits).spans
            except SidecarError as error:  # it was decoded before it was stored: the limits have changed since
                log.error("a stored request cannot be read any more", extra={"row": seq, "reason": str(error)})
                continue
            for number, span in enumerate(spans):
                while questions and questions[0][0] <= (seq, number):
                    _ask_again(service, telemetry, questions.popleft()[1], read_question)
                if (seq, number) >= (row + 1, index):
                    feeder.feed(span, found, (seq, number))
            feeder.fed_row = seq
            await asyncio.sleep(0)
    while questions:
        _ask_again(service, telemetry, questions.popleft()[1], read_question)
    feeder.fed_row = max(feeder.fed_row, last)
    return checkpoint


def _tell_cold(service: Service, now_ns: int) -> None:
    """Says by alerts what of the last snapshot was refused: each agent's model, and what else there was of a realm."""
    others: dict[str, Counter[str]] = {}
    told = 0
    for name, why in service.cold.items():
        kind, _, rest = name.partition("/")
        realm, _, identity = rest.partition("\0")
        reason = why.partition(":")[0]
        if kind == "a" and identity and told < MAX_TOLD:
            told += 1
            agent = Agent(realm[:MAX_NAME], name=identity[:MAX_NAME])
            text = f"what was learned of this agent is refused ({reason}) and set aside: its models start cold"
            key = SessionKey(agent.realm, "")
            service.settle(service.pipeline.announce("cold_start", key, agent, text, now_ns, about=f"{now_ns} {name}"))
        else:
            others.setdefault(realm[:MAX_NAME] if identity else LOCAL.realm, Counter())[reason] += 1
    for realm, reasons in others.items():
        parts = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
        text = f"parts of the last snapshot are refused ({parts}) and set aside: what they held is forgotten"
        outcome = service.pipeline.announce("cold_start", SessionKey(realm, ""), Agent(realm), text, now_ns)
        service.settle(outcome)


def _pauses_since(control: ControlReader, since_ns: int) -> frozenset[str]:
    """Ids of the pauses on record since the snapshot: a person may have ended one, so none may come about again."""
    found = set()
    seq = max(0, control.head().seq - MAX_RECORDS)
    while records := control.audit_after(seq, 1000):
        seq = records[-1].seq
        for record in records:
            entry = record.entry
            if entry.action == "pause" and entry.at.at_ns >= since_ns - SLACK_NS:
                found.add(str(entry.detail.get("pause_id", "")))
    return frozenset(found)


def _questions(telemetry: TelemetryStore, row: int, asked: int) -> deque[tuple[tuple[int, int], int]]:
    """(where the telemetry stood, row number) of the questions that the snapshot does not hold, in order."""
    found = []
    last = row
    while rows := telemetry.read(last, CHUNK):
        for seq, one in rows:
            last = seq
            if one.kind == "asked" and seq > asked:
                found.append((one.after, seq))
    return deque(sorted(found))


def _ask_again(service: Service, telemetry: TelemetryStore, seq: int, read_question: ReadQuestion) -> Decision | None:
    rows = telemetry.read(seq - 1, 1)
    if not rows or rows[0][0] != seq:
        return None
    try:
        return service.ask_again(read_question(rows[0][1]), rows[0][1].arrived_ns)
    except SidecarError as error:
        log.error("a stored question cannot be read any more", extra={"row": seq, "reason": type(error).__name__})
        return None
