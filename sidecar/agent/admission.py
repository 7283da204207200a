"""May this act run? The whole flow from the question to the permission, without I/O.

ALLOWED runs. REFUSED raises. WAIT without judgement is asked again within the caller's patience; WAIT with a decision
waits for the person, or raises. PAUSED waits for the resume, or raises. No answer: irreversible acts fail closed,
reversible ones go on and are recorded as ungated. Whatever was answered, a pause that arrived meanwhile is seen in the
last look before the act runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.agent.errors import (
    ActHeld,
    ActRefused,
    SessionPaused,
    SessionTerminated,
    SidecarMisconfigured,
    SidecarRefusal,
    SidecarUnavailable,
)
from sidecar.agent.options import DEADLINE_BOUNDS_S, Options
from sidecar.agent.outbox import Key, Outbox
from sidecar.agent.roster import Posture, Roster
from sidecar.agent.steps import Call, Changed, NoAnswer, Sleep, Steps
from sidecar.control.v1 import control_pb2 as pb

log = logging.getLogger("sidecar.agent")

AWAIT_S, LOOK_S = 20.0, 5.0
"""One AwaitDecision waits this long at the server; a blocked act looks at its session at least this often."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.02, 2.0


@dataclass(frozen=True, slots=True)
class Question:
    """One act that wants to run; `reversible` is looked up at each try, since the sidecar's catalogue may come late."""

    session_id: str
    tool: str
    arguments_json: str
    call_id: str
    reversible: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Permit:
    """The act may run, and stands among the acts in flight until it is ended.

    Attributes:
        decision_id: What a person decided, "" where nobody was asked.
        ungated: Nobody answered; the act runs because it is reversible.
        grant: The signed grant, for a tool proxy that redeems it; None where there is none.
    """

    decision_id: str = ""
    ungated: bool = False
    grant: pb.Grant | None = None


class Admission:
    """What the flow needs to know of its client.

    Args:
        agent: This agent's `AgentIdentity`.
        instance_id: This process's id at the sidecar.
        learn: Takes in a `SessionState` that came with an answer.
        reopen: Flow that names the session to a sidecar that does not know it (any more).
        deadline_s: The deadline of a question in force.
        clock: Monotonic seconds.
        now_ns: Unix nanoseconds, for the question's own time.
        jitter: 0..1, spreads waiting.
    """

    def __init__(
        self,
        options: Options,
        roster: Roster,
        outbox: Outbox,
        *,
        agent: pb.AgentIdentity,
        instance_id: Callable[[], str],
        learn: Callable[[pb.SessionState], None],
        reopen: Callable[[str], Steps[None]],
        deadline_s: Callable[[], float],
        clock: Callable[[], float],
        now_ns: Callable[[], int],
        jitter: Callable[[], float],
    ) -> None:
        self.options = options
        self._roster, self._outbox = roster, outbox
        self._agent, self._instance_id = agent, instance_id
        self._learn, self._reopen, self._deadline_s = learn, reopen, deadline_s
        self._clock, self._now_ns, self._jitter = clock, now_ns, jitter

    def ask(self, question: Question, options: Options) -> Steps[Permit]:
        """The flow of one act.

        Raises:
            SidecarRefusal: The act must not run.
            SidecarMisconfigured: The sidecar does not accept this process.
        """
        return _Flow(self, question, options).run()


class _Flow:
    """One run of `Admission.ask`."""

    def __init__(self, admission: Admission, question: Question, options: Options) -> None:
        self._a, self._q, self._options = admission, question, options
        self._started = admission._clock()
        self._hold_until: float | None = None
        self._blocked_since: float | None = None
        self._system_refusals = 0
        self._reopened = False
        self._announced = False

    def run(self) -> Steps[Permit]:
        a, q = self._a, self._q
        while True:
            posture = a._roster.posture(q.session_id, a._clock())
            if posture.condition == "terminated":
                raise SessionTerminated("This session has been ended by its operators.", **self._names())
            if posture.condition == "paused":
                yield from self._wait_for_resume(posture)
                continue
            if posture.condition == "hold" and not q.reversible():
                yield from self._wait_for_state(posture)
                continue
            self._hold_until = None
            request, keys = self._request()
            try:
                answer = yield Call("Authorize", request, a._deadline_s())
            except NoAnswer as error:
                if (permit := (yield from self._unanswered(error))) is not None:
                    return permit
                continue
            if (permit := (yield from self._answered(answer, keys))) is not None:
                return permit

    # ------------------------------------------------------------ answers

    def _answered(self, answer: pb.AuthorizeResponse, keys: list[Key]) -> Generator[Any, Any, Permit | None]:
        a, q = self._a, self._q
        known = answer.HasField("state") and answer.state.session_id == q.session_id
        if known:
            a._learn(answer.state)
        if answer.call_id not in ("", q.call_id):  # an answer to somebody else's question permits nothing
            return (yield from self._try_again(0.0))
        if answer.answer == pb.ANSWER_ALLOWED:
            a._outbox.told(keys)
            epoch = answer.state.epoch if known else None
            return (yield from self._admit(Permit(answer.decision_id, False, _grant(answer)), epoch))
        if answer.answer == pb.ANSWER_REFUSED:
            raise ActRefused(
                "This act is not allowed. Asking again in other words will not change that.",
                judged=answer.judged,
                decision_id=answer.decision_id,
                retry_after_s=answer.retry_after_ms / 1000,
                **self._names(),
            )
        if answer.answer == pb.ANSWER_PAUSED:
            yield from self._paused(answer)
            return None
        if answer.answer == pb.ANSWER_WAIT and answer.decision_id:
            a._outbox.told(keys)
            permit = yield from self._held(answer.decision_id)
            self._started = a._clock()  # patience is for the system, not for people
            return permit
        busy = answer.answer == pb.ANSWER_WAIT
        return (yield from self._try_again(answer.retry_after_ms / 1000, reversible_go_on=busy))

    def _admit(self, permit: Permit, epoch: int | None) -> Generator[Any, Any, Permit | None]:
        """The last look. None: the session has moved on since the answer was given; look again."""
        if self._a._roster.begin(self._q.session_id, self._q.call_id, epoch):
            return permit
        condition = self._a._roster.posture(self._q.session_id, self._a._clock()).condition
        if condition in ("paused", "terminated"):
            return None
        return (yield from self._try_again(0.0))

    def _paused(self, answer: pb.AuthorizeResponse) -> Generator[Any, Any, None]:
        """The gate says paused; where Watch has not said so yet, its word is awaited."""
        posture = self._a._roster.posture(self._q.session_id, self._a._clock())
        if posture.condition in ("paused", "terminated"):
            return
        if self._options.on_pause == "raise":
            raise self._pause(answer.state.pause_id, judged=answer.judged)
        self._announce("paused")
        self._check_block(lambda: self._pause(answer.state.pause_id, judged=answer.judged))
        yield Changed(posture.version, self._rest(max(answer.retry_after_ms / 1000, 0.5)))

    def _held(self, decision_id: str) -> Generator[Any, Any, Permit | None]:
        """A person decides. None: ask the gate again."""
        a, q = self._a, self._q
        if self._options.on_hold == "raise":
            raise self._hold(decision_id)
        self._announce("held", decision_id)
        failures = 0
        while True:
            self._check_block(lambda: self._hold(decision_id))
            wait_s = self._rest(AWAIT_S)
            request = pb.AwaitDecisionRequest(decision_id=decision_id, timeout_ms=max(1, round(wait_s * 1000)))
            asked = a._clock()
            try:
                answer = yield Call("AwaitDecision", request, wait_s + 1.0)
            except NoAnswer as error:
                if error.code in ("NOT_FOUND", "FAILED_PRECONDITION"):
                    return None
                if error.is_rejected:
                    raise self._misconfigured(error) from None
                failures += 1
                yield Sleep(self._rest(self._spread(0.1 * 2 ** min(failures, 5))))
                continue
            known = answer.HasField("state") and answer.state.session_id == q.session_id
            if known:
                a._learn(answer.state)
            if answer.answer == pb.ANSWER_ALLOWED:
                epoch = answer.state.epoch if known else None
                return (yield from self._admit(Permit(decision_id, False, _grant(answer)), epoch))
            if answer.answer == pb.ANSWER_REFUSED:
                raise ActRefused("This act was reviewed and is not allowed.", decision_id=decision_id, **self._names())
            if answer.answer == pb.ANSWER_PAUSED:
                return None
            if a._clock() - asked < 0.1:  # a server that does not wait is not to be asked in a hot loop
                yield Sleep(self._rest(0.2))

    # ------------------------------------------------------------ no answer

    def _unanswered(self, error: NoAnswer) -> Generator[Any, Any, Permit | None]:
        if error.code == "NOT_FOUND" and not self._reopened:
            self._reopened = True
            yield from self._a._reopen(self._q.session_id)
            return None
        if error.is_rejected:
            raise self._misconfigured(error) from None
        if error.is_lost:
            return self._without_answer("The sidecar did not answer", 1.0)
        return (yield from self._try_again(0.1, f"The sidecar could not judge this act ({error.code})"))

    def _try_again(
        self, after_s: float, why: str = "The sidecar could not judge this act", *, reversible_go_on: bool = False
    ) -> Generator[Any, Any, Permit | None]:
        """A system refusal: asked again, later and later, within the caller's patience.

        Args:
            after_s: When the sidecar would like to be asked again; 0 where it did not say.
            why: The words of the refusal at the end.
            reversible_go_on: Whether the sidecar is only too busy. Errors and answers that cannot be believed stop
                reversible acts too: whoever can provoke them must gain nothing by it.
        """
        self._system_refusals += 1
        wait_s = max(after_s, SHORTEST_WAIT_S * 2 ** min(self._system_refusals, 7))
        wait_s = self._spread(min(max(after_s, LONGEST_WAIT_S), wait_s))
        if self._a._clock() + wait_s - self._started > self._options.patience_s:
            if not reversible_go_on:
                raise self._unavailable(why, max(after_s, 0.1))
            return self._without_answer(why, max(after_s, 0.1))
        yield Sleep(wait_s)
        return None

    def _without_answer(self, why: str, retry_after_s: float) -> Permit | None:
        """Nobody judged: reversible acts go on and are recorded, all others fail closed. None: look again."""
        if not self._q.reversible():
            raise self._unavailable(why, retry_after_s)
        if self._a._roster.begin(self._q.session_id, self._q.call_id, None):
            return Permit(ungated=True)
        return None

    def _wait_for_state(self, posture: Posture) -> Generator[Any, Any, None]:
        """HOLD: the state may come within a deadline, else the act fails closed."""
        now = self._a._clock()
        if self._hold_until is None:
            self._hold_until = now + self._a._deadline_s()
        if now >= self._hold_until:
            raise self._unavailable("The sidecar is out of reach, and this session is on hold until it is back", 1.0)
        yield Changed(posture.version, self._hold_until - now)

    # ------------------------------------------------------------ waiting for people

    def _wait_for_resume(self, posture: Posture) -> Generator[Any, Any, None]:
        if self._options.on_pause == "raise":
            raise self._pause(posture.pause_id)
        self._announce("paused")
        self._check_block(lambda: self._pause(posture.pause_id))
        yield Changed(posture.version, self._rest(LOOK_S))
        self._started = self._a._clock()  # patience is for the system, not for people

    def _check_block(self, refusal: Callable[[], SidecarRefusal]) -> None:
        now = self._a._clock()
        self._blocked_since = now if self._blocked_since is None else self._blocked_since
        if self._options.block_s is not None and now - self._blocked_since >= self._options.block_s:
            raise refusal()

    def _rest(self, wait_s: float) -> float:
        """`wait_s`, but not beyond the longest wait for a person."""
        block_s, since = self._options.block_s, self._blocked_since
        if block_s is None or since is None:
            return wait_s
        return min(wait_s, max(0.0, since + block_s - self._a._clock()))

    def _announce(self, what: Literal["held", "paused"], decision_id: str = "") -> None:
        if not self._announced:
            self._announced = True
            about = f" (decision {decision_id})" if decision_id else ""
            log.warning("session %s: %s is %s until a person decides%s", self._q.session_id, self._q.tool, what, about)

    # ------------------------------------------------------------ words

    def _request(self) -> tuple[pb.AuthorizeRequest, list[Key]]:
        q = self._q
        carried = self._a._outbox.carry(q.session_id)
        request = pb.AuthorizeRequest(
            session_id=q.session_id,
            instance_id=self._a._instance_id(),
            tool=q.tool,
            arguments_json=q.arguments_json,
            call_id=q.call_id,
            carried=carried.encoded,
            pending=carried.pending,
            agent=self._a._agent,
        )
        request.asked_at.FromNanoseconds(self._a._now_ns())
        return request, carried.keys

    def _spread(self, wait_s: float) -> float:
        return wait_s * (0.75 + 0.5 * self._a._jitter())

    def _names(self) -> dict[str, Any]:
        return {"session_id": self._q.session_id, "tool": self._q.tool}

    def _pause(self, pause_id: str, *, judged: bool = True) -> SessionPaused:
        return SessionPaused(
            "This session is paused. Nothing runs until a person resumes it.",
            judged=judged,
            decision_id=pause_id,
            **self._names(),
        )

    def _hold(self, decision_id: str) -> ActHeld:
        return ActHeld(
            "This act waits for a person's decision.", decision_id=decision_id, retry_after_s=5.0, **self._names()
        )

    def _unavailable(self, why: str, retry_after_s: float) -> SidecarUnavailable:
        return SidecarUnavailable(
            f"{why}. The act did not run; this says nothing about the act itself and may be tried again.",
            retry_after_s=retry_after_s,
            **self._names(),
        )

    def _misconfigured(self, error: NoAnswer) -> SidecarMisconfigured:
        return SidecarMisconfigured(f"the sidecar refused the question ({error.code}): {error.details[:300]}")


def deadline(own_s: float, told_ms: int) -> float:
    """The deadline in force: the server may shorten ours, within bounds, never lengthen it."""
    return min(own_s, max(DEADLINE_BOUNDS_S[0], told_ms / 1000)) if told_ms else own_s


def _grant(answer: pb.AuthorizeResponse | pb.AwaitDecisionResponse) -> pb.Grant | None:
    return answer.grant if answer.HasField("grant") else None
