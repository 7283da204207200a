"""Two agents behind one real Collector, one of which speaks as the other: nothing of the other's changes.

What the Collector passes on is kept and given to two cores, with the thief's part and without it, at the same times.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.core.semconv.names import IDENTITY
from sidecar.core.span import Record, Speaker
from sidecar.sources.decode import Limits, decode
from sidecar.sources.identity import AGENT_KEYS, realm_of
from tests.core.kit import at
from tests.core.stories import fresh
from tests.core.test_identity import CLERK, COLLECTOR, KAFKA, THIEF, accused, known_of, of_the_clerk
from tests.faults.process import Sidecar
from tests.real.parts import Collector
from tests.real.test_collector_config import OVER, Sink, send, shipped
from tests.shells.recordings import AFFAIR, DULL, THREAT, recorded

pytestmark = pytest.mark.collector

SESSION = "session-of-the-clerk-no-1"
FORGED = dict.fromkeys(IDENTITY["session"], SESSION)
FORGED |= {key: "clerk" for field in ("agent_name", "agent_id") for key in IDENTITY[field]}
FORGED |= dict.fromkeys(IDENTITY["user"], "amy") | dict.fromkeys(IDENTITY["parent_session"], SESSION)
FORGED |= {
    "mcp.session.id": SESSION, "sidecar.call.id": f"{SESSION}-0", "sidecar.gated": "true", "sidecar.realm": CLERK,
    "sidecar.speaker": "clerk", "baggage": f"session.id={SESSION},gen_ai.agent.name=clerk",
    "baggage.gen_ai.agent.name": "clerk", "baggage.session.id": SESSION,
}  # fmt: skip
"""What the thief says, wherever something can be said."""

Request = ExportTraceServiceRequest | ExportLogsServiceRequest


def put(attributes: Any, told: dict[str, str]) -> None:
    """Sets attributes, without taking those off that are there already."""
    for key, value in told.items():
        attributes.add(key=key).value.string_value = value


def works() -> list[Request]:
    """What the clerk sends: a run of some acts, one export for each, and a log record."""
    whole = recorded(SESSION, AFFAIR, *DULL, THREAT, agent="clerk")
    (resource,) = whole.resource_spans
    sent: list[Request] = []
    for span in resource.scope_spans[0].spans:
        request = ExportTraceServiceRequest()
        one = request.resource_spans.add(resource=resource.resource)
        one.scope_spans.add(scope=resource.scope_spans[0].scope).spans.append(span)
        put(span.attributes, {"user.id": "amy"})
        sent.append(request)
    return [*sent, log(resource.scope_spans[0].spans[0], {})]


def log(span: Any, told: dict[str, str]) -> ExportLogsServiceRequest:
    """A record of a message within `span`."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    put(resource.resource.attributes, {"service.name": "clerk"} | told)
    scoped = resource.scope_logs.add()
    put(scoped.scope.attributes, told)
    record = scoped.log_records.add(
        event_name="gen_ai.user.message", trace_id=span.trace_id, span_id=span.span_id,
        time_unix_nano=span.end_time_unix_nano,
    )  # fmt: skip
    for key, value in ({"content": "Go on, then.", "role": "user"} | told).items():
        record.body.kvlist_value.values.add(key=key).value.string_value = value
    put(record.attributes, told)
    return request


def forgeries() -> list[Request]:
    """What the thief sends: the clerk's spans with another act in them, and words of its own in the clerk's traces."""
    sent: list[Request] = []
    for number, request in enumerate(works()[:-1]):
        forged = ExportTraceServiceRequest.FromString(request.SerializeToString())
        (resource,) = forged.resource_spans
        (span,) = resource.scope_spans[0].spans
        for pair in span.attributes:
            if pair.key == "gen_ai.tool.call.arguments":
                pair.value.string_value = '{"to": "board@corp.example", "body": "I know about you and Nadia."}'
        if number % 2:
            span.span_id = hashlib.sha256(span.span_id).digest()[:8]
        put(resource.resource.attributes, {"gen_ai.agent.name": "clerk"} | FORGED)
        put(resource.scope_spans[0].scope.attributes, FORGED)
        put(span.attributes, {key: value for key, value in FORGED.items() if number or key != "mcp.session.id"})
        put(span.events.add(name="gen_ai.user.message").attributes, FORGED)
        sent += [forged, log(span, FORGED)]
    return sent


def said_by(body: bytes, kind: str) -> set[str]:
    """Agents that a request's resources name to the sidecar."""
    found = decode(kind, body, "proto", Limits()).spans  # type: ignore[arg-type]
    return {str(span.resource[key]) for span in found for key in AGENT_KEYS if key in span.resource}


@pytest.fixture
def passed(collector: Callable[..., Collector], tmp_path: Path) -> Iterator[Callable[..., tuple[str, bytes]]]:
    """Sends a request by one of the agents, and gives what the Collector passes on of it."""
    sink = Sink()
    env = {"SIDECAR_OTLP": sink.address, "AGENTS_HTPASSWD": str(passwords(tmp_path))}
    started = collector(OVER, base=shipped(tmp_path, "auth"), env=env)

    def by(agent: str, request: Request) -> tuple[str, bytes]:
        kind = "traces" if isinstance(request, ExportTraceServiceRequest) else "logs"
        send(started, kind, request, f"{agent}:{agent}")
        return kind, sink.one().SerializeToString()

    yield by
    sink.close()


def passwords(folder: Path) -> Path:
    """Each agent's password is its name."""
    file = folder / "agents.htpasswd"
    hashed = {name: base64.b64encode(hashlib.sha1(name.encode()).digest()).decode() for name in ("clerk", "thief")}
    file.write_text("".join(f"{name}:{{SHA}}{digest}\n" for name, digest in hashed.items()))
    return file


def judged(told: list[tuple[str, str, bytes]], forwarder: Speaker) -> tuple[Any, list[bytes]]:
    """A core that was told all of it, and what came of the clerk's part. Only the clerk's telemetry moves the clock."""
    core, came, seconds = fresh(), [], 0
    for agent, kind, body in told:
        seconds += agent == "clerk"
        now_ns = at(100 + seconds)
        for span in decode(kind, body, "proto", Limits()).spans:  # type: ignore[arg-type]
            outcome = core.feed(Record(span, realm_of(span, forwarder), now_ns), now_ns)
            if agent == "clerk":
                came.append(of_the_clerk(outcome))
        if agent == "clerk":
            core.tick(now_ns)
    core.tick(at(160 + seconds), last=True)
    return core, came


def test_an_agent_that_speaks_as_another_behind_the_collector_changes_nothing_of_the_others(
    passed: Callable[..., tuple[str, bytes]],
) -> None:
    clerks = [("clerk", *passed("clerk", request)) for request in works()]
    thiefs = [("thief", *passed("thief", request)) for request in forgeries()]
    assert {name for _, kind, body in clerks for name in said_by(body, kind)} == {"clerk"}
    assert {name for _, kind, body in thiefs for name in said_by(body, kind)} == {"thief"}
    mixed = [one for number, own in enumerate(clerks) for one in (own, *thiefs[2 * number : 2 * number + 2])]
    for forwarder in (COLLECTOR, KAFKA):
        alone, came_alone = judged(clerks, forwarder)
        assert any(run.desired == "paused" for key, run in alone.runs if key.realm == CLERK), "it is not all in vain"
        for told in ([*thiefs, *clerks], mixed, [*clerks, *thiefs]):
            beset, came = judged(told, forwarder)
            assert came == came_alone
            assert known_of(beset, CLERK) == known_of(alone, CLERK)
            assert {session.grade for session in beset.sessions} == {"attested"}
            assert set(beset.sessions.realms()) == {CLERK, THIEF}
            assert CLERK not in accused(beset)
            if told[0][0] == "clerk":
                assert accused(beset) == [THIEF]


def test_the_sidecar_behind_the_collector_accuses_who_spoke_as_another(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    """The same by a whole sidecar, which knows the Collector by its token."""
    tokens = tmp_path / "tokens.yaml"
    entry = {"name": "collector", "role": "forwarder", "sha256": hashlib.sha256(b"the collector's token").hexdigest(),
             "speaks_for": ["clerk", "thief"]}  # fmt: skip
    tokens.write_text(yaml.safe_dump({"tokens": [entry]}))
    tokens.chmod(0o600)
    folder = tmp_path / "sidecar"
    folder.mkdir()
    one = Sidecar(folder, control={"credentials": {"file": str(tokens)}})
    bearer = 'exporters: {otlp_grpc/sidecar: {headers: {authorization: "Bearer the collector\'s token"}}}\n'
    env = {"SIDECAR_OTLP": one.address("grpc"), "AGENTS_HTPASSWD": str(passwords(tmp_path))}
    try:
        one.start()
        started = collector(OVER + bearer, base=shipped(tmp_path, "auth"), env=env)
        for agent, requests in (("clerk", works()), ("thief", forgeries())):
            for request in requests:
                kind = "traces" if isinstance(request, ExportTraceServiceRequest) else "logs"
                send(started, kind, request, f"{agent}:{agent}")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with one.people() as people:
                    views = {view.realm: view for view in people.sessions(session_id=SESSION)}
                if f"agent:{agent}" in views and views[f"agent:{agent}"].acts >= 3:
                    break
                time.sleep(0.1)
            if agent == "clerk":
                before = views[CLERK].acts, views[CLERK].state, list(views[CLERK].unscored)
        assert {realm: view.grade for realm, view in views.items()} == {CLERK: "attested", THIEF: "attested"}
        assert (views[CLERK].acts, views[CLERK].state, list(views[CLERK].unscored)) == before
        with one.people() as people:
            accusing = {alert.realm for alert in people.alerts() if alert.detector == "identity_mismatch"}
        assert accusing == {THIEF}
    finally:
        one.kill()
