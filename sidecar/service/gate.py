"""The gate: questions, and acts that a person has let go; an allow that cannot be taken back is on the disk first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sidecar.control.grants import Minted
from sidecar.core.alerts import Decision, Reason
from sidecar.core.digests import remember
from sidecar.core.events import NO_AGENT
from sidecar.core.findings import Severity
from sidecar.core.span import Record, Span, Speaker
from sidecar.core.weave import Asked
from sidecar.errors import StorageError
from sidecar.service.arrivals import Arrivals
from sidecar.service.commands import Commands
from sidecar.service.recording import swallow
from sidecar.sources import Row
from sidecar.sources.turns import clear_way
from sidecar.storage import (
    ControlBatch,
    Instant,
)

ALLOW_S = 1.0
"""How long the disk may take to store an allow; then the answer is a system refusal, and no grant is handed out."""
BEHIND_S = 0.1
"""How long a question about an irreversible act waits for spans that the agent has ended and we have not got."""
MAX_RELEASES = 1024


class Question(Struct, frozen=True):
    """What is asked at the gate, as it came.

    Attributes:
        carried: Spans that the agent's process had when it asked.
        pending: Ended spans that it could not carry, ``trace_id:span_id``.
        uninspectable: The arguments could not be read, and stand in `asked` as the text that they are.
    """

    speaker: Speaker
    asked: Asked
    carried: tuple[Span, ...] = ()
    pending: tuple[str, ...] = ()
    body: bytes = b""
    uninspectable: bool = False


class Verdict(Struct, frozen=True):
    """The answer to a question, and the grant that goes with an allow where somebody redeems it."""

    decision: Decision
    grant: Minted | None = None


Mint = Callable[[Decision, Any], Minted | None]
"""(an act that is allowed, its arguments) → a grant, None where nobody redeems one."""


class Gate(Commands):
    """Answers questions."""

    arrivals: Arrivals
    fed: tuple[int, int]
    """Where the telemetry stands: row, and index within it."""
    _mint: Mint
    _releases: dict[str, asyncio.Future[Verdict | None]]

    async def authorize(self, question: Question) -> Verdict:
        """Answers a question; an allow of an irreversible act is on the disk before it is given."""
        asked = question.asked
        observed = self._is_observed(asked)
        if question.pending and not observed and await self._is_behind(question):
            return Verdict(_refused(asked, "behind", 200))
        now_ns, began_s = self._clock_ns(), time.perf_counter()
        for span in question.carried:
            self.settle(self.pipeline.feed(Record(span, question.speaker, now_ns), now_ns))
            self._look_at_clock(span, question.speaker, now_ns)
        row = Row("asked", question.body, now_ns, "proto", question.speaker, self.fed)
        outcome = self.pipeline.authorize(asked, now_ns)
        self._meter.decided(time.perf_counter() - began_s)
        decision = outcome.decision
        assert decision is not None
        if question.uninspectable:
            decision = _uninspectable(decision, observed=observed)
            self._note_unscored([decision.session], "uninspectable")
            outcome.decisions = [decision if d.event_id == decision.event_id else d for d in outcome.decisions]
            outcome.decision = decision
        self.settle(outcome)
        if decision.answer == "allow":
            minted = self._mint(decision, asked.arguments)
            if decision.irreversible:
                verdict = await self._allow_durably(decision, minted, row)
                if verdict.decision.answer == "allow":
                    self._granted(decision, asked.call_id)
                return verdict
            self._granted(decision, asked.call_id)
            self._append_soon(row, self._entry("allow", decision.session, decision=decision), minted)
            return Verdict(decision, minted)
        if decision.answer == "hold":
            if decision.irreversible and self.restoring:
                return Verdict(_system(decision, "restoring", 500))
            self._hold(decision, asked, now_ns)
        denied = decision.answer == "deny"
        self._append_soon(row, self._entry("refuse", decision.session, decision=decision) if denied else None)
        return Verdict(decision)

    def _is_observed(self, asked: Asked) -> bool:
        agent = asked.agent
        if agent == NO_AGENT and (session := self.pipeline.sessions.get(asked.session)) is not None:
            agent = session.agent
        return self.pipeline.policy.posture(agent.role) == "observe"

    async def _is_behind(self, question: Question) -> bool:
        """Whether spans that bear on an irreversible act have not come in time."""
        asked = question.asked
        if self.pipeline.reader.catalogue.effect(asked.tool, asked.arguments).reversible:
            return False
        if await self.arrivals.wait(question.speaker.realm, question.pending, BEHIND_S):
            return False
        return self.run_of(asked.session).desired == "running"  # a paused session is told so

    def ask_again(self, question: Question, asked_ns: int) -> Decision | None:
        """Takes in a question from before a restart; its answer was given then."""
        for span in question.carried:
            self.settle(self.pipeline.feed(Record(span, question.speaker, asked_ns), asked_ns))
        outcome = self.pipeline.authorize(question.asked, asked_ns)
        self._vouch(question.asked.session, question.speaker)
        self.settle(outcome)
        return outcome.decision

    def _granted(self, decision: Decision, call_id: str) -> None:
        key = self.pipeline.sessions.resolve(decision.session)
        self.gaps.granted(key, call_id or decision.event_id, self._monotonic_ns())

    async def _allow_durably(self, decision: Decision, minted: Minted | None, row: Row | None) -> Verdict:
        """Puts an allow and its grant on the disk together, and looks again at what has happened meanwhile."""
        observed = self.pipeline.policy.posture(decision.agent.role) == "observe"
        if self.restoring and not observed:
            return Verdict(_system(decision, "restoring", 500))
        if not observed and self.is_degraded(decision.session):
            return Verdict(_system(decision, "degraded", 1000))
        epoch = self.run_of(decision.session).epoch
        batch = ControlBatch(
            grants=[] if minted is None else [minted.row],
            audit=[self._entry("allow", decision.session, decision=decision)],
        )
        clear_way()
        self.flush()  # rows keep the gate's order
        appended = None if row is None else self._append(row)
        try:
            async with asyncio.timeout(ALLOW_S):
                await self._store(batch)
                if appended is not None:
                    await asyncio.gather(appended, return_exceptions=True)
        except (StorageError, TimeoutError) as error:
            reason = "deadline" if isinstance(error, TimeoutError) else "unavailable"
            return Verdict(decision if observed else _system(decision, reason, 1000))
        run = self.run_of(decision.session)
        if run.epoch == epoch:
            return Verdict(decision, minted)
        if run.desired == "running":  # paused and resumed again: the grant went with the pause
            return Verdict(_system(decision, "stale", 0))
        return Verdict(replace(decision, answer="deny", ground="judged", state=run.desired))

    async def release(self, decision_id: str) -> Verdict | None:
        """The answer to an act that a person has approved, judged again; the same to everyone who asks for it.

        Returns:
            None when the act is not held any more: then it is to be asked for at the gate again.
        """
        known = self._releases.get(decision_id)
        if known is None:
            known = asyncio.ensure_future(self._release(decision_id))
            known.add_done_callback(swallow)
            remember(self._releases, decision_id, known, MAX_RELEASES)
        try:
            verdict = await asyncio.shield(known)
        except BaseException:
            if known.done():
                self._releases.pop(decision_id, None)  # whoever asks next is to be judged, not told the same mistake
            raise
        if verdict is None:
            return None
        decision, minted = verdict.decision, verdict.grant
        if decision.answer != "allow":
            self._releases.pop(decision_id, None)  # it may be asked for, and held, again
            return verdict
        run = self.run_of(decision.session)
        if run.desired != "running":
            return Verdict(replace(decision, answer="deny", ground="judged", state=run.desired))
        if minted is not None and Instant.now().boot_ns >= minted.row.expires.boot_ns:
            return None
        return verdict

    async def _release(self, decision_id: str) -> Verdict | None:
        held = self.pipeline.held.get(decision_id)
        decision = self.pipeline.release(decision_id, self._clock_ns())
        if held is None or decision is None:
            return None
        if decision.answer != "allow":
            return Verdict(decision)
        verdict = await self._allow_durably(decision, self._mint(decision, held.event.arguments), None)
        if verdict.decision.answer == "allow":
            self._granted(decision, held.event.call_id)
        return verdict


def _system(decision: Decision, reason: str, retry_after_ms: int) -> Decision:
    return replace(decision, answer="wait", ground="system", system=reason, retry_after_ms=retry_after_ms)


def _refused(asked: Asked, reason: str, retry_after_ms: int) -> Decision:
    """A system refusal of a question that the core has not seen: nothing is said, or remembered, of the agent."""
    decision = Decision("", asked.session, asked.agent, asked.tool, asked.at_ns, "wait")
    return _system(decision, reason, retry_after_ms)


def _uninspectable(decision: Decision, *, observed: bool) -> Decision:
    """What cannot be read is not allowed (reliability.md, bad input 72)."""
    reason = Reason("policy", Severity.MEDIUM, 0.5, "the arguments cannot be inspected")
    unscored = tuple(dict.fromkeys((*decision.unscored, "uninspectable")))
    decision = replace(decision, reasons=(*decision.reasons, reason), unscored=unscored)
    if observed or decision.answer == "deny":
        return decision if decision.answer == "deny" else replace(decision, would="deny")
    return replace(decision, answer="deny", would="deny", ground="judged", system="")
