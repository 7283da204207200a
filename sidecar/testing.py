"""Fakes that fail on demand, for the tests of agents and of this project."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sidecar.control.v1 import control_pb2 as pb
from sidecar.control.v1 import control_pb2_grpc

T = TypeVar("T")
Script = pb.AuthorizeResponse | Callable[[pb.AuthorizeRequest], pb.AuthorizeResponse]


class FakeSidecar(control_pb2_grpc.AgentServiceServicer, trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """A sidecar that answers as it is told, over real gRPC on loopback: control and OTLP on one port.

    It allows every act until told otherwise::

        with FakeSidecar() as fake:
            agent = sidecar.agent.connect("me", control=fake.address, otlp=fake.address)
            fake.answers["send_mail"] = fake.refused()
            fake.pause("my-session")

    What it was asked and told stands in `opened`, `asked`, `waited_for`, `hung_up` (waits that the client gave up),
    `outcomes`, `acknowledged`, `escalations` (those it failed, too), `watched` (the messages of Watch streams),
    `exports` and `metadata`; `until` waits for it without sleeping.

    Attributes:
        answers: By tool name: an answer, or a function of the question.
        effects: By tool name: what `OpenSession` says of it.
        delay_s: Every answer is this late.
        fails_with: Status code of every answer, None for none; by method name in `fails`.
        heartbeats: False: the streams stay open and say nothing (half-open).
        takes_streams: False: Watch is refused as UNAVAILABLE.
        lease_ms, deadline_ms: As told to clients; 0 tells nothing.
        rejects_spans: How many spans of an export are answered as rejected.
    """

    def __init__(
        self,
        *,
        address: str = "127.0.0.1:0",
        lease_ms: int = 0,
        deadline_ms: int = 0,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.address, self._credentials = address, credentials
        self.lease_ms, self.deadline_ms = lease_ms, deadline_ms
        self.answers: dict[str, Script] = {}
        self.effects: dict[str, pb.ToolEffect] = {}
        self.delay_s = 0.0
        self.fails_with: grpc.StatusCode | None = None
        self.fails: dict[str, grpc.StatusCode] = {}
        self.heartbeats, self.takes_streams = True, True
        self.rejects_spans = 0
        self.opened: list[pb.OpenSessionRequest] = []
        self.asked: list[pb.AuthorizeRequest] = []
        self.waited_for: list[pb.AwaitDecisionRequest] = []
        self.hung_up: list[pb.AwaitDecisionRequest] = []
        self.outcomes: list[pb.ReportOutcomeRequest] = []
        self.acknowledged: list[pb.AcknowledgeRequest] = []
        self.escalations: list[pb.EscalateRequest] = []
        self.watched: list[pb.WatchRequest] = []
        self.exports: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.metadata: list[tuple[str, dict[str, str | bytes]]] = []
        self._states: dict[str, pb.SessionState] = {}
        self._decisions: dict[str, pb.AwaitDecisionResponse] = {}
        self._streams: dict[int, queue.SimpleQueue[pb.WatchResponse | None]] = {}
        self._changed = threading.Condition()
        self._going = threading.Event()
        self._going.set()
        self._server: grpc.Server | None = None

    # ------------------------------------------------------------ life

    def start(self) -> FakeSidecar:
        """Serves; after `stop`, on the same port as before."""
        server = grpc.server(ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
        control_pb2_grpc.add_AgentServiceServicer_to_server(self, server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        if self._credentials is not None:
            port = server.add_secure_port(self.address, self._credentials)
        else:
            port = server.add_insecure_port(self.address)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        """Goes away at once, as if killed; what it knows stays."""
        self.drop_streams()
        self._going.set()
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------ faults

    def stall(self) -> None:
        """Nothing is answered and no heartbeat sent any more, while connections stay open; until `go`."""
        self._going.clear()

    def go(self) -> None:
        """Ends `stall`."""
        self._going.set()

    def drop_streams(self) -> None:
        """Ends all Watch streams."""
        with self._changed:
            for stream in self._streams.values():
                stream.put(None)

    # ------------------------------------------------------------ orders

    def pause(self, session_id: str) -> pb.SessionState:
        """Pauses a session, and tells the watchers."""
        return self.say(session_id, pb.RUN_STATE_PAUSED, pause_id=f"p-{uuid.uuid4().hex[:8]}")

    def resume(self, session_id: str) -> pb.SessionState:
        """Resumes a session, and tells the watchers."""
        return self.say(session_id, pb.RUN_STATE_RUNNING)

    def terminate(self, session_id: str) -> pb.SessionState:
        """Ends a session for good, and tells the watchers."""
        return self.say(session_id, pb.RUN_STATE_TERMINATED)

    def say(
        self, session_id: str, state: pb.RunState, *, epoch: int | None = None, pause_id: str = ""
    ) -> pb.SessionState:
        """Sets a session's run state and tells the watchers; `epoch` is the next one unless given."""
        with self._changed:
            before = self._states.get(session_id)
            epoch = (before.epoch if before else 0) + 1 if epoch is None else epoch
            told = pb.SessionState(session_id=session_id, state=state, epoch=epoch, pause_id=pause_id)
            self._states[session_id] = told
            for stream in self._streams.values():
                stream.put(pb.WatchResponse(states=[told], lease_ms=self.lease_ms))
        return told

    def forget(self) -> None:
        """Loses all run states, as a sidecar does whose disk is gone."""
        with self._changed:
            self._states.clear()

    def decide(self, decision_id: str, *, approve: bool = True, session_id: str = "") -> None:
        """A person decides; acts and escalations that wait for `decision_id` hear of it."""
        answer = pb.ANSWER_ALLOWED if approve else pb.ANSWER_REFUSED
        with self._changed:
            response = pb.AwaitDecisionResponse(answer=answer)
            if session_id:
                response.state.CopyFrom(self.state(session_id))
            self._decisions[decision_id] = response
            self._changed.notify_all()

    def state(self, session_id: str) -> pb.SessionState:
        """A session's run state as this sidecar has it."""
        return self._states.setdefault(
            session_id, pb.SessionState(session_id=session_id, state=pb.RUN_STATE_RUNNING, epoch=1)
        )

    # ------------------------------------------------------------ answers to script

    @staticmethod
    def allowed() -> pb.AuthorizeResponse:
        """The act may run."""
        grant = pb.Grant(grant_id=uuid.uuid4().hex)
        return pb.AuthorizeResponse(answer=pb.ANSWER_ALLOWED, judged=True, grant=grant)

    @staticmethod
    def refused(decision_id: str = "d-refused") -> pb.AuthorizeResponse:
        """The act will not be allowed."""
        return pb.AuthorizeResponse(answer=pb.ANSWER_REFUSED, judged=True, decision_id=decision_id)

    @staticmethod
    def held(decision_id: str) -> pb.AuthorizeResponse:
        """A person decides."""
        return pb.AuthorizeResponse(answer=pb.ANSWER_WAIT, judged=True, decision_id=decision_id)

    @staticmethod
    def busy(retry_after_ms: int = 10) -> pb.AuthorizeResponse:
        """A system refusal: nobody could judge."""
        return pb.AuthorizeResponse(answer=pb.ANSWER_WAIT, judged=False, retry_after_ms=retry_after_ms)

    # ------------------------------------------------------------ looking

    def until(self, look: Callable[[], T], timeout_s: float = 10.0) -> T:
        """Waits until `look` gives something true, and returns it.

        Raises:
            TimeoutError: It never did.
        """
        end = time.monotonic() + timeout_s
        with self._changed:
            while not (found := look()):
                if time.monotonic() >= end:
                    raise TimeoutError("what was waited for did not happen")
                self._changed.wait(0.02)  # what `look` looks at may lie outside this fake
        return found

    @property
    def spans(self) -> list[Span]:
        """All spans exported so far, in order of arrival."""
        return [span for export in list(self.exports) for span in spans_of(export)]

    # ------------------------------------------------------------ the services

    def OpenSession(self, request: pb.OpenSessionRequest, context: Any) -> pb.OpenSessionResponse:  # noqa: N802
        self._take("OpenSession", self.opened, request, context)
        return pb.OpenSessionResponse(
            state=self.state(request.session_id),
            tools={name: effect for name, effect in self.effects.items() if name in {t.name for t in request.tools}},
            deadline_ms=self.deadline_ms,
            lease_ms=self.lease_ms,
        )

    def Authorize(self, request: pb.AuthorizeRequest, context: Any) -> pb.AuthorizeResponse:  # noqa: N802
        self._take("Authorize", self.asked, request, context)
        script = self.answers.get(request.tool)
        state = self.state(request.session_id)
        response = pb.AuthorizeResponse(state=state)
        if script is None and state.state != pb.RUN_STATE_RUNNING:
            response.answer, response.judged = pb.ANSWER_PAUSED, True
        else:
            response.MergeFrom(script(request) if callable(script) else script or self.allowed())
        response.call_id = response.call_id or request.call_id
        return response

    def AwaitDecision(self, request: pb.AwaitDecisionRequest, context: Any) -> pb.AwaitDecisionResponse:  # noqa: N802
        self._take("AwaitDecision", self.waited_for, request, context)
        context.add_callback(self._look_again)
        with self._changed:
            self._changed.wait_for(
                lambda: request.decision_id in self._decisions or not context.is_active(), request.timeout_ms / 1000
            )
            if not context.is_active():
                self.hung_up.append(request)
            return self._decisions.get(request.decision_id, pb.AwaitDecisionResponse(answer=pb.ANSWER_WAIT))

    def ReportOutcome(self, request: pb.ReportOutcomeRequest, context: Any) -> pb.ReportOutcomeResponse:  # noqa: N802
        self._take("ReportOutcome", self.outcomes, request, context)
        return pb.ReportOutcomeResponse()

    def Acknowledge(self, request: pb.AcknowledgeRequest, context: Any) -> pb.AcknowledgeResponse:  # noqa: N802
        self._take("Acknowledge", self.acknowledged, request, context)
        return pb.AcknowledgeResponse()

    def Escalate(self, request: pb.EscalateRequest, context: Any) -> pb.EscalateResponse:  # noqa: N802
        with self._changed:
            self.escalations.append(request)
        self._check("Escalate", context)
        return pb.EscalateResponse(decision_id=f"e-{request.request_id}", state=self.pause(request.session_id))

    def Watch(self, requests: Iterator[pb.WatchRequest], context: Any) -> Iterator[pb.WatchResponse]:  # noqa: N802
        self._check("Watch", context)
        if not self.takes_streams:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no streams now")
        stream: queue.SimpleQueue[pb.WatchResponse | None] = queue.SimpleQueue()
        threading.Thread(target=self._read_stream, args=(requests, stream), daemon=True).start()
        with self._changed:
            self._streams[id(stream)] = stream
            stream.put(pb.WatchResponse(states=list(self._states.values()), lease_ms=self.lease_ms))
        try:
            while context.is_active():
                try:
                    response = stream.get(timeout=(self.lease_ms or 3000) / 3000)
                except queue.Empty:
                    response = pb.WatchResponse(lease_ms=self.lease_ms)
                if response is None:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "stream dropped")
                self._going.wait()
                if self.heartbeats and response is not None:
                    yield response
        finally:
            with self._changed:
                self._streams.pop(id(stream), None)
                self._changed.notify_all()

    def Export(  # noqa: N802
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self._take("Export", self.exports, request, context)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if self.rejects_spans:
            response.partial_success.rejected_spans = self.rejects_spans
            response.partial_success.error_message = "scripted"
        return response

    # ------------------------------------------------------------ inside

    def _take(self, method: str, book: list[Any], request: Any, context: Any) -> None:
        self._check(method, context)
        with self._changed:
            book.append(request)
            self._changed.notify_all()

    def _check(self, method: str, context: Any) -> None:
        with self._changed:
            self.metadata.append((method, {entry.key: entry.value for entry in context.invocation_metadata()}))
        self._going.wait()
        if self.delay_s:
            time.sleep(self.delay_s)
        if code := self.fails.get(method, self.fails_with):
            context.abort(code, "scripted")

    def _look_again(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _read_stream(self, requests: Iterator[pb.WatchRequest], stream: queue.SimpleQueue[Any]) -> None:
        try:
            for request in requests:
                with self._changed:
                    self.watched.append(request)
                    self._changed.notify_all()
        except Exception:  # the client is gone; gRPC raises a bare Exception here
            stream.put(None)


def spans_of(request: trace_service_pb2.ExportTraceServiceRequest | bytes) -> list[Span]:
    """The spans of one OTLP request, in its order."""
    if isinstance(request, bytes):
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(request)
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


def attributes_of(span: Span) -> dict[str, Any]:
    """A span's attributes as plain values; lists of texts as lists."""
    plain: dict[str, Any] = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        if kind == "array_value":
            plain[item.key] = [entry.string_value for entry in item.value.array_value.values]
        else:
            plain[item.key] = getattr(item.value, kind) if kind else None
    return plain
