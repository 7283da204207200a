"""The agents' service: sessions, questions at the gate, decisions, grants, and run states as they change.

What an agent is told never says which rule spoke, how odd its act was, or who decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from sidecar.control import convert, rpc
from sidecar.control.auth import Caller, Counts, Denials
from sidecar.control.convert import invalid
from sidecar.control.grants import Grants, digest
from sidecar.control.rates import Rate
from sidecar.control.rpc import Context, Door
from sidecar.control.settings import ControlSettings
from sidecar.control.v1 import control_pb2 as pb
from sidecar.control.watch import Instance, Stream, Watches
from sidecar.core.alerts import Alert
from sidecar.core.digests import remember
from sidecar.core.events import SessionKey
from sidecar.core.runstate import Run
from sidecar.errors import ControlError
from sidecar.service import Service, Verdict
from sidecar.sources.turns import clear_way
from sidecar.storage import Approval, ControlBatch, Entry, Instant

NAME = "sidecar.control.v1.AgentService"
LONGEST_AWAIT_S = 60.0
LONGEST_ESCALATION_MS = 7 * 86_400_000
MAX_IN_FLIGHT = 1024
MAX_REPORTED = 20_000
RETRY_MS = 500
FIRST_WORD_S = 10.0
CUT_S = 0.05
"""Who ends its side of Watch and is still there after so long has said goodbye; its library waits for our answer."""
PATIENCE_LEASES = 4
"""A stream whose reader takes nothing for so many leases is closed."""


class AgentService:
    """Answers agents. A `service.Watcher`.

    Args:
        grants: Checks grants that are redeemed.
        clock_ns: Wall clock, Unix nanoseconds.
    """

    def __init__(
        self,
        service: Service,
        settings: ControlSettings,
        grants: Grants,
        denials: Denials,
        counts: Counts,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self._grants, self._denials, self._counts = service, grants, denials, counts
        self._clock_ns, self._monotonic_s = clock_ns, monotonic_s
        self._lease_s, self._lease_ms = settings.lease, round(settings.lease * 1000)
        self._deadline_ms = round(settings.deadline * 1000)
        self._questions, self._others = Rate(settings.questions_per_s), Rate(settings.questions_per_s)
        self._sessions = Rate(settings.sessions_per_s)
        self._waits, self._waiting = settings.waits, Counter[str]()
        self._watches = Watches(streams=settings.streams, present_s=2 * settings.lease, monotonic_s=monotonic_s)
        self._reported: dict[tuple[SessionKey, str], None] = {}
        service.watchers.append(self)

    def handlers(self, door: Door) -> Any:
        """The service as it is served at one door."""

        def unary(name: str, kind: Callable[[], Message], call: rpc.Unary) -> Any:
            return door.unary(f"AgentService.{name}", kind, self._limited(call))

        return rpc.service(
            NAME,
            {
                "OpenSession": unary("OpenSession", pb.OpenSessionRequest, self._open_session),
                "Watch": door.both_streams("AgentService.Watch", Watching(self, door).run),
                "Authorize": door.unary("AgentService.Authorize", pb.AuthorizeRequest, self._authorize),
                "AuthorizeStream": door.both_streams(
                    "AgentService.AuthorizeStream", lambda caller, context: self._authorize_all(door, caller, context)
                ),
                "AwaitDecision": unary("AwaitDecision", pb.AwaitDecisionRequest, self._await_decision),
                "RedeemGrant": unary("RedeemGrant", pb.RedeemGrantRequest, self._redeem_grant),
                "ReportOutcome": unary("ReportOutcome", pb.ReportOutcomeRequest, self._report_outcome),
                "Acknowledge": unary("Acknowledge", pb.AcknowledgeRequest, self._acknowledge),
                "Escalate": unary("Escalate", pb.EscalateRequest, self._escalate),
            },
            urgent=("Authorize",),
        )

    def _limited(self, call: rpc.Unary) -> rpc.Unary:
        """All calls but questions share a rate of their own, so that neither starves the other."""

        async def limited(caller: Caller, request: Any, body: bytes, context: Context) -> Any:
            if wait_s := self._others.wait_s(caller.speaker.realm, self._monotonic_s()):
                raise ControlError("RESOURCE_EXHAUSTED", f"too many calls; retry after {wait_s:.1f} s")
            return await call(caller, request, body, context)

        return limited

    @contextlib.contextmanager
    def _one_of_many(self, realm: str) -> Iterator[bool]:
        """Whether one more call of a realm may last."""
        self._waiting[realm] += 1
        try:
            yield self._waiting[realm] <= self._waits
        finally:
            self._waiting[realm] -= 1
            if not self._waiting[realm]:
                del self._waiting[realm]

    def is_present(self, key: SessionKey) -> bool:
        """Whether a process is there that can hold this session; for `Pipeline`."""
        return self._watches.is_present(key)

    @property
    def streams(self) -> int:
        """Watch streams that are open."""
        return len(self._watches)

    def close(self) -> None:
        """Ends all Watch streams."""
        self._watches.close(ControlError("UNAVAILABLE", "the sidecar is going down"))

    # ------------------------------------------------------------ Watcher

    def run_changed(self, key: SessionKey, run: Run) -> None:
        self._watches.changed(key)

    def alert_changed(self, alert: Alert) -> None:
        """Agents hear of no alert."""

    def approval_changed(self, approval: Approval) -> None:
        """Agents ask for decisions (`AwaitDecision`)."""

    # ------------------------------------------------------------ sessions

    async def _open_session(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        speaker = caller.speaker
        name = convert.session_id(request.session_id)
        parent = request.parent_session_id
        if parent and convert.session_id(parent, what="parent_session_id") == name:
            raise invalid("parent_session_id: a session is not its own parent")
        task = convert.short(request.task_key, convert.MAX_TASK, "task_key")
        agent = convert.agent(request.agent, speaker)
        tools = convert.tools(request.tools)
        instance = self._heard(caller, request.instance_id)
        if self._service.pipeline.sessions.get(SessionKey(speaker.realm, name)) is None and (
            wait_s := self._sessions.wait_s(speaker.realm, self._monotonic_s())
        ):
            raise ControlError("RESOURCE_EXHAUSTED", f"too many new sessions; retry after {wait_s:.1f} s")
        key = self._service.open_session(speaker, name, agent, parent=parent, task=task)
        if instance is not None:
            self._attend(instance, name, key)
            if (claimed := instance.claims.pop(name, 0)) > self._service.run_of(key).epoch:
                self._service.believe(key, claimed)
        effects = {}
        for count, tool in enumerate(tools):
            if count % 16 == 15:
                await asyncio.sleep(0)
            effects[tool.name] = self._effect(tool)
        return pb.OpenSessionResponse(
            state=self._state(key, name), tools=effects, deadline_ms=self._deadline_ms, lease_ms=self._lease_ms
        )

    def _effect(self, tool: pb.Tool) -> pb.ToolEffect:
        """What the client may let go on when nobody answers: what the gate, which sees no description, holds, too."""
        if tool.name in self._service.fail_open:
            return pb.ToolEffect(reversible=True, known=True)
        catalogue = self._service.pipeline.reader.catalogue
        alone = catalogue.effect(tool.name, None)
        described = catalogue.effect(tool.name, None, tool.description) if tool.description else alone
        return pb.ToolEffect(reversible=alone.reversible and described.reversible, known=alone.known or described.known)

    async def _acknowledge(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        key = self._known(caller, request.session_id)
        observed = convert.REPORTED.get(request.observed)
        if observed is None:
            raise invalid("observed: expected RUNNING, ACKNOWLEDGED or QUIESCED")
        if request.epoch > convert.MAX_EPOCH:
            raise invalid("epoch: out of range")
        if len(request.in_flight) > MAX_IN_FLIGHT:
            raise invalid(f"in_flight: at most {MAX_IN_FLIGHT}")
        in_flight = [convert.short(call, convert.MAX_CALL_ID, "in_flight") for call in request.in_flight]
        self._service.acknowledge(key, request.epoch, observed, in_flight)
        return pb.AcknowledgeResponse()

    async def _escalate(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        key = self._known(caller, request.session_id)
        why = convert.reason(request.reason)
        if request.at_least_ms > LONGEST_ESCALATION_MS:
            raise invalid("at_least_ms: at most a week")
        asked = convert.request_id(request.request_id)
        approval = await self._service.escalate(key, why, request.at_least_ms * 10**6, asked)
        return pb.EscalateResponse(decision_id=approval.decision_id, state=self._state(key, request.session_id))

    # ------------------------------------------------------------ the gate

    async def _authorize(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        try:
            return await self._answer_question(caller, request, body)
        finally:
            clear_way()

    async def _answer_question(self, caller: Caller, request: Any, body: bytes) -> Any:
        started_s = self._monotonic_s()
        question = convert.question(request, body, caller.speaker, self._clock_ns())
        asked = question.asked
        if self._service.pipeline.sessions.get(asked.session) is None:
            raise _no_session()
        if request.instance_id and (instance := self._heard(caller, request.instance_id)) is not None:
            self._attend(instance, asked.session.id, asked.session)
        if wait_s := self._questions.wait_s(caller.speaker.realm, started_s):
            self._counts.asked("wait", "limit", 0.0)
            return pb.AuthorizeResponse(
                answer=pb.ANSWER_WAIT,
                retry_after_ms=math.ceil(wait_s * 1000),
                state=self._state(asked.session, asked.session.id),
                call_id=asked.call_id,
            )
        verdict = await self._service.authorize(question)
        decision = verdict.decision
        self._counts.asked(decision.answer, decision.system or decision.ground, self._monotonic_s() - started_s)
        return self._answer(verdict, asked.session, asked.call_id)

    async def _authorize_all(self, door: Door, caller: Caller, context: Context) -> None:
        with self._one_of_many(caller.speaker.realm) as may_last:
            if not may_last:
                raise ControlError("RESOURCE_EXHAUSTED", "too many streams of questions")
            await self._authorize_each(door, caller, context)

    async def _authorize_each(self, door: Door, caller: Caller, context: Context) -> None:
        while (body := await context.read()) is not grpc.aio.EOF:
            _still(door, caller)
            answer = await self._authorize(caller, convert.parse(pb.AuthorizeRequest, body), body, context)
            await context.write(answer.SerializeToString())

    def _answer(self, verdict: Verdict, key: SessionKey, call_id: str) -> pb.AuthorizeResponse:
        decision = verdict.decision
        run = self._service.run_of(key)
        response = pb.AuthorizeResponse(
            state=convert.session_state(key.id, run), judged=decision.ground != "system", call_id=call_id
        )
        if decision.answer == "allow":
            response.answer = pb.ANSWER_ALLOWED
            if verdict.grant is not None:
                response.grant.CopyFrom(convert.grant(verdict.grant.signed))
        elif decision.answer == "wait":
            response.answer = pb.ANSWER_WAIT
            response.retry_after_ms = decision.retry_after_ms or RETRY_MS
        elif decision.answer == "deny" and run.desired != "running":
            response.answer = pb.ANSWER_PAUSED
        else:
            response.answer = pb.ANSWER_WAIT if decision.answer == "hold" else pb.ANSWER_REFUSED
            response.decision_id = decision.event_id
        return response

    async def _await_decision(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        decision_id = request.decision_id
        approval = self._service.approvals.get(decision_id)
        if approval is None or approval.session.realm != caller.speaker.realm:
            raise _no_decision()
        with self._one_of_many(caller.speaker.realm) as may_last:
            wait_s = min(request.timeout_ms / 1000, LONGEST_AWAIT_S) if may_last else 0.0
            approval = await self._service.wait(decision_id, wait_s)
        if approval is None:
            raise _no_decision()
        key = approval.session
        response = pb.AwaitDecisionResponse(answer=pb.ANSWER_WAIT)
        if approval.state in ("denied", "expired"):
            response.answer = pb.ANSWER_REFUSED
        elif approval.state == "approved" and approval.tool == "escalate":
            response.answer = pb.ANSWER_ALLOWED
        elif approval.state == "approved":
            verdict = await self._service.release(decision_id)
            if verdict is None or verdict.decision.answer == "wait":
                raise _no_decision()  # it is to be asked for at the gate again
            if verdict.decision.answer == "allow":
                response.answer = pb.ANSWER_ALLOWED
                if verdict.grant is not None:
                    response.grant.CopyFrom(convert.grant(verdict.grant.signed))
            else:
                held = self._service.run_of(key).desired != "running"
                response.answer = pb.ANSWER_PAUSED if held else pb.ANSWER_REFUSED
        response.state.CopyFrom(self._state(key, key.id))
        return response

    async def _redeem_grant(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        key = self._known(caller, request.session_id)
        told = convert.read_grant(request.grant)
        service = self._service
        if not self._is_exact(told.digest, request, key) or not self._grants.is_genuine(told):
            self._denials.note("agents", "AgentService.RedeemGrant", caller.name, caller.role, "grant")
            return pb.RedeemGrantResponse(redeemed=False)
        if service.restoring or service.run_of(key).desired != "running":
            return pb.RedeemGrantResponse(redeemed=False)
        service.flush()  # the grant may not have been given to the store yet
        now = Instant.now()
        policy = service.pipeline.policy.digest
        entry = Entry(now, caller.name, "redeem", key.realm, key.id, policy_digest=policy,
                      detail={"grant": told.grant_id, "tool": request.tool[:128]})  # fmt: skip
        redeemed = await service.control.consume_grant(told.grant_id, now, entry)
        # A pause that came while this was being stored holds it all the same.
        return pb.RedeemGrantResponse(redeemed=redeemed and service.run_of(key).desired == "running")

    def _is_exact(self, told: bytes, request: pb.RedeemGrantRequest, key: SessionKey) -> bool:
        """Whether a digest stands for this act, in this session, under the policy now in force."""
        try:
            given = convert.arguments(request.arguments_json)
        except ValueError:
            return False
        session = self._service.pipeline.sessions.resolve(key)
        return hmac.compare_digest(told, digest(request.tool, given, session, self._service.pipeline.policy.digest))

    async def _report_outcome(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        key = self._known(caller, request.session_id)
        call_id = convert.short(request.call_id, convert.MAX_CALL_ID, "call_id")
        tool = convert.short(request.tool, convert.MAX_NAME, "tool")
        decision_id = convert.short(request.decision_id, convert.MAX_CALL_ID, "decision_id")
        session = self._service.pipeline.sessions.get(key)
        act = None if session is None else session.acts.get(call_id)
        once = (key, call_id)
        if once in self._reported or not (request.ungated or (act is not None and act.gated)):
            return pb.ReportOutcomeResponse()
        remember(self._reported, once, None, MAX_REPORTED)
        self._service.ended(key, call_id)
        if request.ungated or not self._service.pipeline.reader.catalogue.effect(tool, None).reversible:
            entry = Entry(Instant.now(), caller.name, "outcome", key.realm, key.id, decision_id=decision_id,
                          detail={"call": call_id, "tool": tool[:128], "failed": request.failed,
                                  "ungated": request.ungated})  # fmt: skip
            self._service.note(ControlBatch(audit=[entry]))
        return pb.ReportOutcomeResponse()

    # ------------------------------------------------------------ inside

    def _heard(self, caller: Caller, instance_id: str) -> Instance | None:
        if not instance_id:
            return None
        instance = self._watches.heard(caller.speaker.realm, convert.instance_id(instance_id))
        self._service.heard(instance.realm, instance.name)
        return instance

    def _attend(self, instance: Instance, name: str, key: SessionKey) -> None:
        """A process runs a session, which it calls `name`."""
        self._watches.attend(instance, name, key)
        self._service.attended(key, instance.name)

    def _known(self, caller: Caller, told: str) -> SessionKey:
        """A session of the caller's own; another's is as unknown as one that never was."""
        key = SessionKey(caller.speaker.realm, convert.session_id(told))
        if not self._service.knows(self._service.pipeline.sessions.resolve(key)):
            raise _no_session()
        return key

    def _state(self, key: SessionKey, name: str) -> pb.SessionState:
        return convert.session_state(name, self._service.run_of(key))


class Watching:
    """Serves Watch at one door."""

    def __init__(self, agents: AgentService, door: Door) -> None:
        self._agents, self._door = agents, door

    async def run(self, caller: Caller, context: Context) -> None:
        agents = self._agents
        try:
            async with asyncio.timeout(FIRST_WORD_S):
                body = await context.read()
        except TimeoutError:
            raise ControlError("DEADLINE_EXCEEDED", "no message came") from None
        if body is grpc.aio.EOF:
            raise invalid("expected a message")
        request = convert.parse(pb.WatchRequest, body)
        instance = self._take(caller, request)
        stream = agents._watches.open(instance)
        reader = asyncio.ensure_future(self._read(caller, instance, stream, context))
        try:
            while True:
                names = stream.take()
                await self._write(context, names, instance)
                await stream.wait(agents._lease_s / 3)
                _still(self._door, caller)
                if stream.closed:
                    raise stream.closed
        finally:
            reader.cancel()
            agents._watches.end(stream)

    async def _write(self, context: Context, names: list[str], instance: Instance) -> None:
        agents = self._agents
        states = [agents._state(key, name) for name in names if (key := instance.sessions.get(name)) is not None]
        response = pb.WatchResponse(states=states, lease_ms=agents._lease_ms)
        try:
            async with asyncio.timeout(PATIENCE_LEASES * agents._lease_s):
                await context.write(response.SerializeToString())
        except TimeoutError:
            raise ControlError("RESOURCE_EXHAUSTED", "this stream is not being read") from None

    async def _read(self, caller: Caller, instance: Instance, stream: Stream, context: Context) -> None:
        """Takes in what the client says; one that says no more is still told."""
        try:
            while (body := await context.read()) is not grpc.aio.EOF:
                request = convert.parse(pb.WatchRequest, body)
                if request.instance_id != instance.name:
                    raise invalid("instance_id: a stream belongs to one instance")
                self._take(caller, request)
                for known in request.known:
                    stream.note(known.session_id)
            await asyncio.sleep(CUT_S)  # a stream that was cut ends likewise, and this with it
            self._agents._service.left(instance.realm, instance.name)
            stream.answer_goodbye()
        except ControlError as error:
            stream.close(error)

    def _take(self, caller: Caller, request: pb.WatchRequest) -> Instance:
        agents, service = self._agents, self._agents._service
        instance = agents._heard(caller, request.instance_id)
        if instance is None:
            raise invalid("instance_id: must not be empty")
        if len(request.known) > convert.MAX_KNOWN:
            raise invalid(f"known: at most {convert.MAX_KNOWN}")
        for known in request.known:
            if known.epoch > convert.MAX_EPOCH or known.state not in pb.RunState.values():
                raise invalid("known: out of range")
            key = SessionKey(caller.speaker.realm, convert.session_id(known.session_id, what="known.session_id"))
            if not service.knows(service.pipeline.sessions.resolve(key)):
                agents._watches.claim(instance, [(known.session_id, known.epoch)])
                continue
            agents._attend(instance, known.session_id, key)
            if known.epoch > service.run_of(key).epoch:
                service.believe(key, known.epoch)
        self._note_dropped(caller, instance, request.dropped_spans)
        return instance

    def _note_dropped(self, caller: Caller, instance: Instance, dropped: int) -> None:
        if dropped > instance.dropped:
            more = min(dropped - instance.dropped, 2**32)
            self._agents._counts.dropped_spans(more)
            self._agents._service.spans_dropped(caller.speaker, instance.sessions.values(), more)
        instance.dropped = dropped


def _still(door: Door, caller: Caller) -> None:
    if not door.credentials.is_valid(caller):
        raise ControlError("UNAUTHENTICATED", "this credential is not valid any more")


def _no_session() -> ControlError:
    return ControlError("NOT_FOUND", "no such session")


def _no_decision() -> ControlError:
    return ControlError("NOT_FOUND", "no such decision")
