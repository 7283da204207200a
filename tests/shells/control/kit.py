"""A whole sidecar behind its real doors: real stores, the shipped core, gRPC on loopback and sockets."""

from __future__ import annotations

import asyncio
import datetime
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
import yaml

from sidecar import assembly
from sidecar.control.agents import AgentService
from sidecar.control.auth import Credentials, Denials, new_token
from sidecar.control.client import Operators
from sidecar.control.grants import Grants
from sidecar.control.operators import OperatorService
from sidecar.control.servers import ControlServers
from sidecar.control.settings import ControlSettings
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.detectors import SHIPPED
from sidecar.core.events import Event, ToolCall
from sidecar.core.findings import Evidence, Finding, Severity, finding
from sidecar.core.pipeline import Outcome
from sidecar.core.span import Span
from sidecar.core.triage.policy import PolicyDocument
from sidecar.service import Service
from sidecar.sources import Row
from sidecar.sources.intake import Intake
from sidecar.sources.otlp import OtlpSettings, read_tls
from sidecar.sources.otlp_grpc import OtlpGrpc
from sidecar.storage import ControlBatch, ControlStore, Entry, Instant, StorageSettings, TelemetryStore

T = TypeVar("T")
MIB = 2**20


class Tally:
    """Everything that is counted, by what and which; a `Meter`, and the counts of both kinds of doors."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[Any, ...]] = Counter()

    def outcome(self, outcome: Outcome) -> None:
        self.seen["outcome",] += 1

    def confirmed(self, seconds: float) -> None:
        self.seen["confirmed",] += 1

    def asked(self, answer: str, ground: str, seconds: float) -> None:
        self.seen["asked", answer, ground] += 1

    def dropped_spans(self, spans: int) -> None:
        self.seen["dropped_spans",] += spans

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)

        def count(*labels: Any, **amounts: Any) -> None:
            self.seen[(name, *labels)] += 1

        return count


class Tripwire:
    """Says of an act what its argument `trip` asks for: ``hold`` (for irreversible acts) or ``pause``."""

    name = "tripwire"
    family = "conduct"
    severity = Severity.HIGH
    scope = "session"
    mode = "pause"
    sees = (ToolCall,)
    patterns = ()
    tags = ()

    def score(self, event: Event) -> Finding | None:
        if not isinstance(event, ToolCall) or event.phase != "started" or not isinstance(event.arguments, dict):
            return None
        trip = event.arguments.get("trip")
        if trip == "fail":
            raise RuntimeError("on demand")
        if trip not in ("hold", "pause"):
            return None
        severity = Severity.CRITICAL if trip == "pause" else Severity.HIGH
        where = Evidence("0" * 32 + ":" + "0" * 16, "arguments.trip", 0, len(trip), trip, "d" * 32)
        return finding(self, event, 1.0, "the tripwire was touched", severity=severity, evidence=(where,))


class Feeder:
    """Gives spans to the core as soon as they are durable. `held` keeps them back until `go`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.held = False
        self._kept: list[tuple[int, Row, Sequence[Span]]] = []

    def offer(self, seq: int, row: Row, spans: Sequence[Span]) -> None:
        self._kept.append((seq, row, spans))
        if not self.held:
            self.go()

    def go(self) -> None:
        self.held = False
        for seq, row, spans in self._kept:
            for number, span in enumerate(spans):
                self._service.feed(span, row.speaker, row.arrived_ns, (seq, number))
        self._kept.clear()


class Loop:
    """An event loop in a thread of its own, as the sidecar has one and its callers others."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def call(self, work: Callable[[], T]) -> T:
        async def run() -> T:
            return work()

        return self.run(run())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


def write_tokens(path: Path, **entries: dict[str, Any]) -> dict[str, str]:
    """Makes a file of credentials; the tokens by name."""
    tokens, listed = {}, []
    for name, fields in entries.items():
        token, digest = new_token()
        tokens[name] = token
        listed.append({"name": name, "sha256": digest, **fields})
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump({"tokens": listed}))
    return tokens


class Sidecar:
    """Within ``with``, a sidecar on free ports and sockets under `folder`; opened again, it remembers.

    Args:
        options: Settings of `ControlSettings`.
        policy: Settings of `PolicyDocument`.
        closed: Tools that the catalogue does not know are denied.
    """

    def __init__(
        self, folder: Path, *, policy: dict[str, Any] | None = None, closed: bool = False, **options: Any
    ) -> None:
        self.folder = folder
        self._policy, self._closed, self._options = policy or {}, closed, options
        self.tally = Tally()
        self.loop: Loop
        self.service: Service

    def __enter__(self) -> Self:
        self.loop = Loop()
        try:
            self.loop.run(self._start())
        except BaseException:
            self.loop.run(self._close_stores())
            self.loop.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run(self._stop())
        self.loop.close()

    async def _start(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        stored = StorageSettings(data_dir=data, low_water_bytes=MIB, ballast_bytes=MIB)
        self.control, self.telemetry = ControlStore.open(stored), TelemetryStore.open(stored)
        settings = ControlSettings(**{"agents": "127.0.0.1:0", **self._options})
        self.settings = settings
        grants = Grants.load(data, life_s=settings.grant_life)
        policy = PolicyDocument(**self._policy)
        pipeline = assembly.pipeline(
            policy, detectors=(*SHIPPED, Tripwire), closed=self._closed,
            present=lambda key: self.agents.is_present(key),
        )  # fmt: skip
        self.service = Service(
            pipeline, self.control, self.telemetry, self.tally, clock_ns=time.time_ns,
            mint=grants.minter(settings.grants, lambda: pipeline.policy.digest),
        )  # fmt: skip
        self.service.recall(self.control.load(Instant.now()))
        self.service.restoring = False
        self.credentials = Credentials(settings.credentials)
        denials = Denials(self._record, self.tally)
        self.agents = AgentService(self.service, settings, grants, denials, self.tally)
        self.operators = OperatorService(self.service, settings)
        pem = read_tls(settings.tls, datetime.datetime.now(datetime.UTC)) if settings.tls else None
        self.servers = ControlServers(
            settings, data, self.agents, self.operators, self.credentials, denials, self.tally,
            is_ready=lambda: not self.service.restoring, pem=pem,
        )  # fmt: skip
        self.feeder = Feeder(self.service)
        self._intake = Intake(self.telemetry, self.feeder, self.tally)
        otlp = OtlpSettings(grpc="127.0.0.1:0", http=None)
        self._otlp = OtlpGrpc(otlp, self._intake, self.credentials, self.tally)
        await self.servers.start()
        self.otlp = f"127.0.0.1:{await self._otlp.start()}"
        self._ticking = asyncio.ensure_future(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self.service.tick()

    async def _stop(self) -> None:
        self._ticking.cancel()
        await self.servers.stop(0.2)
        await self._otlp.stop(0.1)
        await self._intake.close()
        await self.service.close()
        await self._close_stores()

    async def _close_stores(self) -> None:
        await self.control.close()
        await self.telemetry.close()

    def _record(self, entry: Entry) -> None:
        self.service.note(ControlBatch(audit=[entry]))

    # ------------------------------------------------------------ ways in

    @property
    def address(self) -> str:
        """The agents' door on loopback."""
        return f"127.0.0.1:{self.servers.ports['agents']}"

    @property
    def socket(self) -> str:
        """The operators' door."""
        return f"unix:{self.servers.operators_socket}"

    def people(self, **options: Any) -> Operators:
        """A client of the operators' door."""
        return Operators(self.socket, **options)

    def audit(self) -> list[pb.AuditView]:
        """All of the audit log."""
        self.loop.run(self._flushed())
        with self.people() as people:
            return people.audit(limit=1000)

    async def _flushed(self) -> None:
        self.service.flush()
        await self.control.commit(ControlBatch(), durable=True)

    def wait(self, look: Callable[[], T], timeout_s: float = 10.0) -> T:
        """Waits until `look`, called on the sidecar's loop, gives something true."""

        async def until() -> T:
            async with asyncio.timeout(timeout_s):
                while not (found := look()):  # noqa: ASYNC110  # what is looked at has no event
                    await asyncio.sleep(0.01)
                return found

        return self.loop.run(until(), timeout_s + 5)


class Raw:
    """Calls methods by name with messages or bytes, over one channel."""

    def __init__(self, target: str, token: str = "", credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options)
        else:
            self.channel = grpc.secure_channel(target, credentials, options)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def bytes(self, method: str, body: bytes, timeout_s: float = 10.0) -> bytes:
        """A unary call of ``Service.Method``."""
        return self.channel.unary_unary(path(method))(body, timeout=timeout_s, metadata=self.metadata)

    def call(self, method: str, request: Any, kind: Callable[[], T], timeout_s: float = 10.0) -> T:
        answer: Any = kind()
        answer.ParseFromString(self.bytes(method, request.SerializeToString(), timeout_s))
        return answer

    def both(self, method: str, bodies: Any, timeout_s: float = 10.0) -> Any:
        """A call with streams both ways."""
        return self.channel.stream_stream(path(method))(bodies, timeout=timeout_s, metadata=self.metadata)

    def code(
        self, method: str, body: bytes, *, streams: tuple[bool, bool] = (False, False), timeout_s: float = 10.0
    ) -> str:
        """What a call is answered with: a status name, ``OK`` for an answer."""
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }
        call = kinds[streams](path(method))
        try:
            given: Any = iter([body]) if streams[0] else body
            answer = call(given, timeout=timeout_s, metadata=self.metadata)
            if streams[1]:
                try:
                    next(iter(answer), None)
                finally:
                    answer.cancel()
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def path(method: str) -> str:
    service, _, name = method.partition(".")
    return f"/sidecar.control.v1.{service}/{name}"


def opened(raw: Raw, session_id: str, agent: str = "mail-helper", **fields: Any) -> pb.OpenSessionResponse:
    """Opens a session."""
    request = pb.OpenSessionRequest(session_id=session_id, agent=pb.AgentIdentity(name=agent), **fields)
    return raw.call("AgentService.OpenSession", request, pb.OpenSessionResponse)


def asked(raw: Raw, session_id: str, tool: str = "send_email", arguments: Any = None, **fields: Any) -> Any:
    """Asks at the gate; `arguments` are an object or JSON."""
    given = {"to": "amy@corp.example"} if arguments is None else arguments
    request = pb.AuthorizeRequest(
        session_id=session_id,
        tool=tool,
        arguments_json=given if isinstance(given, str) else json.dumps(given),
        **{"call_id": uuid.uuid4().hex, **fields},
    )
    return raw.call("AgentService.Authorize", request, pb.AuthorizeResponse)
