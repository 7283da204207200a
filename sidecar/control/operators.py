"""The operators' service: what is going on, and what people decide about it.

Every change is asked under a request id. The answer is stored together with the change, so that whoever asks again,
with the same id and the same words, hears the same answer and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from google.protobuf.message import Message
from msgspec.structs import replace

import sidecar
from sidecar.control import convert, rpc
from sidecar.control.auth import Caller
from sidecar.control.convert import invalid
from sidecar.control.rpc import Context, Door
from sidecar.control.settings import ControlSettings
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.alerts import Alert
from sidecar.core.commands import By, Transition
from sidecar.core.events import NO_AGENT, SessionKey
from sidecar.core.runstate import Run
from sidecar.errors import ControlError
from sidecar.service import Receipt, Service
from sidecar.storage import Approval, ControlBatch, Request, RequestExistsError

NAME = "sidecar.control.v1.OperatorService"
VERDICTS = ("true_positive", "false_positive", "benign_expected")
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_QUEUED = 1000
"""Happenings that a follower may be behind; one that is further behind is cut off."""
MAX_CHANGED = 1000
MAX_GAPPED = 100
"""Sessions that an answer to a change lists."""
SLICE = 500
"""Sessions looked at between two turns of the loop."""


class OperatorService:
    """Answers people and their tools. A `service.Watcher`."""

    def __init__(
        self, service: Service, settings: ControlSettings, *, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._service, self._clock_ns = service, clock_ns
        self._most_followers = settings.followers
        self._followers: dict[asyncio.Queue[pb.FollowResponse], None] = {}
        self._changes: dict[asyncio.Future[Message], None] = {}
        self._asked: dict[tuple[str, str], _Asking] = {}
        service.watchers.append(self)

    def handlers(self, door: Door) -> Any:
        """The service as it is served at one door."""

        def unary(name: str, kind: Callable[[], Message], call: rpc.Unary) -> Any:
            return door.unary(f"OperatorService.{name}", kind, call)

        async def pause(caller: Caller, request: Any, body: bytes, context: Context) -> Any:
            return await self._pause(door, caller, request)

        return rpc.service(
            NAME,
            {
                "GetStatus": unary("GetStatus", pb.GetStatusRequest, self._get_status),
                "ListSessions": unary("ListSessions", pb.ListSessionsRequest, self._list_sessions),
                "ListAlerts": unary("ListAlerts", pb.ListAlertsRequest, self._list_alerts),
                "GetEvidence": unary("GetEvidence", pb.GetEvidenceRequest, self._get_evidence),
                "Pause": unary("Pause", pb.PauseRequest, pause),
                "Resume": unary("Resume", pb.ResumeRequest, self._resume),
                "Terminate": unary("Terminate", pb.TerminateRequest, self._terminate),
                "ListApprovals": unary("ListApprovals", pb.ListApprovalsRequest, self._list_approvals),
                "Decide": unary("Decide", pb.DecideRequest, self._decide),
                "Review": unary("Review", pb.ReviewRequest, self._review),
                "ListAudit": unary("ListAudit", pb.ListAuditRequest, self._list_audit),
                "Follow": door.server_stream("OperatorService.Follow", pb.FollowRequest, self._follow_at(door)),
            },
        )

    # ------------------------------------------------------------ Watcher

    def run_changed(self, key: SessionKey, run: Run) -> None:
        if self._followers:
            self._tell(pb.FollowResponse(session=self._view(key, run)))

    def alert_changed(self, alert: Alert) -> None:
        if self._followers:
            self._tell(pb.FollowResponse(alert=convert.alert_view(alert)))

    def approval_changed(self, approval: Approval) -> None:
        if self._followers:
            self._tell(pb.FollowResponse(approval=convert.approval_view(approval)))

    def _tell(self, happened: pb.FollowResponse) -> None:
        for queue in list(self._followers):
            if queue.full():
                del self._followers[queue]  # its reader finds out when it has read what is left
            else:
                queue.put_nowait(happened)

    # ------------------------------------------------------------ looking

    async def _get_status(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        service, pipeline = self._service, self._service.pipeline
        return pb.GetStatusResponse(
            version=sidecar.__version__,
            policy_digest=pipeline.policy.digest,
            ready=not service.restoring,
            degraded=[*service.degraded, *service.away, *_gapped(service.gaps.listed)],
            sessions=len(pipeline.sessions),
            held=pipeline.runs.held(),
            held_scopes=[
                pb.HeldScope(scope=convert.plain(name), causes=map(convert.cause, pipeline.scope_causes(name)))
                for name in pipeline.scopes()
            ],
        )

    async def _list_sessions(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        limit = _limit(request.limit)
        if any(state not in pb.RunState.values() for state in request.states):
            raise invalid("states: not a run state")
        wanted = {state for state in request.states if state != pb.RUN_STATE_UNSPECIFIED}
        if request.session_id:
            found = self._service.find(request.session_id, request.realm)
        else:
            found = await self._sessions(request.realm, wanted, limit)
        views = []
        for key in found:
            run = self._service.run_of(key)
            if not wanted or convert.STATES[run.desired] in wanted:
                views.append(self._view(key, run))
        return pb.ListSessionsResponse(sessions=views[:limit])

    async def _sessions(self, realm: str, wanted: set[int], limit: int) -> list[SessionKey]:
        """Sessions that are held first, then those seen last first; in turns, for there may be many."""
        pipeline = self._service.pipeline
        held: list[tuple[int, SessionKey]] = []
        for count, (key, run) in enumerate(list(pipeline.runs)):
            if count % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            is_wanted = not wanted or convert.STATES[run.desired] in wanted
            if is_wanted and run.desired != "running" and realm in ("", key.realm):
                held.append((run.requested_ns, key))
        rest: list[tuple[int, SessionKey]] = []
        if not wanted or pb.RUN_STATE_RUNNING in wanted:
            for count, session in enumerate(list(pipeline.sessions)):
                if count % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                if realm in ("", session.key.realm) and not pipeline.runs.is_held(session.key):
                    rest.append((session.last_ns, session.key))
        newest = sorted(held, reverse=True)[:limit] + sorted(rest, reverse=True)[:limit]
        return [key for _, key in newest][:limit]

    async def _list_alerts(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        limit = _limit(request.limit)
        book = self._service.pipeline.alerts
        keys = self._service.find(request.session_id, request.realm) if request.session_id else None
        known: dict[str, Alert] = {}
        if request.all:
            control = self._service.control
            for key in (None,) if keys is None else keys:
                most = limit if not request.realm or key is not None else MAX_LIMIT * 10
                stored = await asyncio.to_thread(control.alerts, session=key, resolved=True, limit=most)
                known |= {alert.fingerprint: alert for alert in stored}
        for alert in list(book) if keys is None else [alert for key in keys for alert in book.of(key)]:
            known[alert.fingerprint] = alert
        chosen = [alert for alert in known.values() if request.realm in ("", alert.session.realm)]
        chosen.sort(key=lambda alert: (-alert.opened_ns, alert.fingerprint))
        return pb.ListAlertsResponse(alerts=map(convert.alert_view, chosen[:limit]))

    async def _get_evidence(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        alert = await self._alert(request.fingerprint)
        return pb.GetEvidenceResponse(alert=convert.alert_view(alert), evidence=convert.evidence_views(alert))

    async def _list_approvals(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        known: dict[str, Approval] = {}
        if request.all:
            stored = await asyncio.to_thread(self._service.control.approvals, decided=True, limit=MAX_LIMIT)
            known = {approval.decision_id: approval for approval in stored}
        for approval in self._service.approvals.values():
            if request.all or approval.state == "open":
                known[approval.decision_id] = approval
        chosen = sorted(known.values(), key=lambda a: (a.state != "open", -a.asked_ns, a.decision_id))
        return pb.ListApprovalsResponse(approvals=map(convert.approval_view, chosen[:MAX_LIMIT]))

    async def _list_audit(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        after = min(request.after_seq, 2**62)
        records = await asyncio.to_thread(self._service.control.audit_after, after, _limit(request.limit))
        return pb.ListAuditResponse(records=map(convert.audit_view, records))

    def _follow_at(self, door: Door) -> rpc.ServerStream:
        async def follow(
            caller: Caller, request: Any, body: bytes, context: Context
        ) -> AsyncIterator[pb.FollowResponse]:
            if len(self._followers) >= self._most_followers:
                raise ControlError("RESOURCE_EXHAUSTED", "too many follow already")
            queue: asyncio.Queue[pb.FollowResponse] = asyncio.Queue(MAX_QUEUED)
            self._followers[queue] = None
            await context.send_initial_metadata(())  # the caller knows now that nothing from here on is missed
            try:
                while queue in self._followers or not queue.empty():
                    try:
                        async with asyncio.timeout(1.0):
                            happened = await queue.get()
                    except TimeoutError:
                        if not door.credentials.is_valid(caller):
                            raise ControlError("UNAUTHENTICATED", "this credential is not valid any more") from None
                        continue
                    yield happened
            finally:
                self._followers.pop(queue, None)
            raise ControlError("RESOURCE_EXHAUSTED", "too far behind: look again, and follow anew")

        return follow

    # ------------------------------------------------------------ changing

    async def _pause(self, door: Door, caller: Caller, request: pb.PauseRequest) -> Any:
        why = convert.reason(request.reason)
        is_person = caller.role == "operator"
        kind = request.scope.WhichOneof("scope")
        if not is_person and kind in ("role", "fleet"):
            door.deny("OperatorService.Pause", caller)
        by: By = "operator" if is_person else "detector"

        async def pause(receipt: Receipt) -> None:
            if scope := _wide(request.scope):
                await self._service.pause_scope(scope, caller.name, why, request.request_id, receipt=receipt)
            else:
                key = self._one(request.scope)
                await self._service.pause([key], caller.name, why, request.request_id, by=by, receipt=receipt)

        return await self._change(caller, request, pause)

    async def _resume(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        why = convert.reason(request.reason)
        if len(request.clears) > 1000 or len(request.pause_id) > 256:
            raise invalid("clears: too many")

        async def resume(receipt: Receipt) -> None:
            if scope := _wide(request.scope):
                await self._service.resume_scope(
                    scope, request.pause_id, caller.name, why, request.request_id, receipt=receipt
                )
                return
            key = self._one(request.scope)
            run = self._service.run_of(key)
            if run.desired == "running" and (request.pause_id, request.epoch) in (
                (run.pause_id, run.epoch),
                ("", run.epoch),
            ):
                below = self._service.pipeline.tree(key)[1:] if request.scope.WhichOneof("scope") == "tree" else []
                if any(self._state(child) == "paused" for child in below):
                    text = "it runs already; sessions that it started are held by themselves: resume each"
                    raise ControlError("FAILED_PRECONDITION", text)
                await self._store(receipt, ())  # it runs already, and the caller knows
                return
            await self._service.resume(
                key, request.pause_id, request.epoch, caller.name, why, tuple(request.clears), request.request_id,
                tree=request.scope.WhichOneof("scope") == "tree", receipt=receipt,
            )  # fmt: skip

        return await self._change(caller, request, resume)

    async def _terminate(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        why = convert.reason(request.reason)

        async def terminate(receipt: Receipt) -> None:
            pipeline = self._service.pipeline
            if scope := _wide(request.scope):
                keys = [key for key in pipeline.in_scope(scope) if self._state(key) != "terminated"]
            else:
                root = self._one(request.scope)
                below = pipeline.tree(root)[1:] if request.scope.WhichOneof("scope") == "tree" else []
                keys = [root, *(key for key in below if self._state(key) != "terminated")]
            await self._service.terminate(keys, caller.name, why, request.request_id, receipt=receipt)

        return await self._change(caller, request, terminate)

    async def _decide(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        why = convert.reason(request.reason)

        async def decide(receipt: Callable[[Message], Request]) -> None:
            await self._service.decide(
                request.decision_id, approve=request.approve, actor=caller.name, reason=why,
                request_id=request.request_id,
                receipt=lambda decided: receipt(pb.DecideResponse(approval=convert.approval_view(decided))),
            )  # fmt: skip

        return await self._once(caller, request, pb.DecideResponse, decide)

    async def _review(self, caller: Caller, request: Any, body: bytes, context: Context) -> Any:
        why = convert.reason(request.reason, required=False)
        if request.verdict not in VERDICTS:
            raise invalid(f"verdict: expected {', '.join(VERDICTS)}")

        async def review(receipt: Callable[[Message], Request]) -> None:
            await self._service.review(
                await self._alert(request.fingerprint), request.verdict, caller.name, why, request.request_id,
                receipt=lambda alert: receipt(pb.ReviewResponse(alert=convert.alert_view(alert))),
            )  # fmt: skip

        return await self._once(caller, request, pb.ReviewResponse, review)

    # ------------------------------------------------------------ once

    async def _change(self, caller: Caller, request: Any, change: Callable[[Receipt], Awaitable[None]]) -> Any:
        """A change of run states; the answer shows the sessions as the change leaves them."""

        async def run(receipt: Callable[[Message], Request]) -> None:
            def taken(transitions: Sequence[Transition]) -> Request:
                latest = {transition.session: transition for transition in transitions}
                views = [self._view_after(transition) for transition in list(latest.values())[:MAX_CHANGED]]
                if not views and not _wide(request.scope):
                    key = self._one(request.scope)
                    views = [self._view(key, self._service.run_of(key))]
                return receipt(pb.ChangeResponse(sessions=views))

            await change(taken)

        return await self._once(caller, request, pb.ChangeResponse, run)

    async def _once(
        self,
        caller: Caller,
        request: Any,
        kind: Callable[[], Message],
        run: Callable[[Callable[[Message], Request]], Awaitable[None]],
    ) -> Message:
        """Runs a change, or gives the answer that it had before.

        Args:
            run: Makes the change; it asks for the receipt of its answer, once, and stores it with the change.
        Raises:
            ControlError: ``ALREADY_EXISTS``: the id stands for another request.
        """
        convert.request_id(request.request_id)
        asked = hashlib.sha256(
            request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True)
        ).digest()
        who = (caller.name, request.request_id)
        answers: list[Message] = []

        def receipt(answer: Message) -> Request:
            answers.append(answer)
            return Request(*who, asked, answer.SerializeToString(), self._clock_ns())

        async def once() -> Message:
            async with self._alone(who):
                if (before := self._service.control.request(*who)) is not None:
                    return _same(before, asked, kind)
                try:
                    await run(receipt)
                except RequestExistsError as error:
                    return _same(error.request, asked, kind)
            return answers[-1]

        # A caller that leaves must not leave a change that is on the disk and not in force.
        change = asyncio.ensure_future(once())
        self._changes[change] = None
        change.add_done_callback(self._changed)
        return await asyncio.shield(change)

    def _changed(self, change: asyncio.Future[Message]) -> None:
        self._changes.pop(change, None)
        if not change.cancelled():
            change.exception()  # its caller may have left; otherwise it is told

    @contextlib.asynccontextmanager
    async def _alone(self, who: tuple[str, str]) -> AsyncIterator[None]:
        """One request of an id at a time."""
        asking = self._asked.setdefault(who, _Asking())
        asking.users += 1
        try:
            async with asking.lock:
                yield
        finally:
            asking.users -= 1
            if not asking.users:
                del self._asked[who]

    async def _store(self, receipt: Receipt, transitions: Sequence[Transition]) -> None:
        await self._service.control.commit(ControlBatch(requests=[receipt(transitions)]), durable=True)

    # ------------------------------------------------------------ inside

    def _one(self, scope: pb.Scope) -> SessionKey:
        """The one session that is meant.

        Raises:
            ControlError: ``INVALID_ARGUMENT`` when several realms have it, or none is named; ``NOT_FOUND``.
        """
        kind = scope.WhichOneof("scope")
        if kind not in ("session", "tree"):
            raise invalid("scope: expected session, tree, role or fleet")
        told = scope.session if kind == "session" else scope.tree
        if not told.session_id:
            raise invalid("scope: session_id must not be empty")
        found = self._service.find(told.session_id, told.realm)
        if not found:
            raise ControlError("NOT_FOUND", "no such session")
        if len(found) > 1:
            realms = ", ".join(sorted(key.realm for key in found)[:16])
            raise invalid(f"scope: several realms have that session; name one of {convert.inert(realms)}")
        return found[0]

    def _state(self, key: SessionKey) -> str:
        return self._service.pipeline.runs.get(key).desired

    def _view(self, key: SessionKey, run: Run) -> pb.SessionView:
        session = self._service.pipeline.sessions.get(key)
        role = NO_AGENT
        if session is None and (saved := self._service.control.run(key)) is not None:
            role = saved.agent
        return convert.session_view(key, run, session, role)

    def _view_after(self, transition: Transition) -> pb.SessionView:
        """A session as a change leaves it, also when that has yet to be stored."""
        key = transition.session
        run = replace(
            self._service.pipeline.runs.get(key),
            desired=transition.after,
            epoch=transition.epoch,
            observed=transition.observed,
            pause_id=transition.pause_id,
            causes={cause.pause_id: cause for cause in transition.causes},
        )
        return self._view(key, run)

    async def _alert(self, fingerprint: str) -> Alert:
        for alert in self._service.pipeline.alerts:
            if alert.fingerprint == fingerprint:
                return alert
        stored = await asyncio.to_thread(self._service.control.alert, fingerprint)
        if stored is None:
            raise ControlError("NOT_FOUND", "no such alert")
        return stored


class _Asking:
    """A request id that is being worked on."""

    def __init__(self) -> None:
        self.lock, self.users = asyncio.Lock(), 0


def _wide(scope: pb.Scope) -> str:
    """A role or the fleet as the core calls it; "" for single sessions."""
    kind = scope.WhichOneof("scope")
    if kind == "fleet":
        if not scope.fleet:
            raise invalid("scope: fleet is either true or not there")
        return "fleet"
    if kind == "role":
        if not scope.role or len(scope.role) > convert.MAX_NAME:
            raise invalid(f"scope: a role has 1 to {convert.MAX_NAME} characters")
        return f"role:{scope.role}"
    return ""


def _gapped(listed: Mapping[SessionKey, Sequence[str]]) -> list[str]:
    """Sessions of which telemetry is missing, and why: at most `MAX_GAPPED`, and how many more there are."""
    told = [f"{key.realm}/{key.id}: {', '.join(reasons)}" for key, reasons in islice(listed.items(), MAX_GAPPED)]
    return [*told, f"{len(listed) - MAX_GAPPED} more sessions"] if len(listed) > MAX_GAPPED else told


def _limit(told: int) -> int:
    return min(told or DEFAULT_LIMIT, MAX_LIMIT)


def _same(before: Request, asked: bytes, kind: Callable[[], Message]) -> Message:
    if before.digest != asked:
        raise ControlError("ALREADY_EXISTS", "this request id stands for another request")
    answer = kind()
    answer.ParseFromString(before.answer)
    return answer
