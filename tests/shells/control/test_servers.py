"""Which door is where, who gets in, and what else is served there: nothing."""

from __future__ import annotations

import os
import random
import socket
import stat
import threading

import grpc
import pytest
from pydantic import ValidationError

from sidecar.control.client import Operators
from sidecar.control.client import session as one
from sidecar.control.settings import ControlSettings
from sidecar.control.v1 import control_pb2 as pb
from sidecar.errors import ConfigError, ControlError
from tests.shells.control.kit import Raw, Sidecar, asked, opened, write_tokens
from tests.shells.otlp.certificates import Authority

STREAMS = {
    "AgentService.Watch": (True, True),
    "AgentService.AuthorizeStream": (True, True),
    "OperatorService.Follow": (False, True),
}


# ------------------------------------------------------------ where


def test_doors_stand_on_loopback_and_sockets_by_default():
    settings = ControlSettings()
    assert settings.agents == "127.0.0.1:4320"
    assert settings.operators is None
    assert (str(settings.agents_socket), str(settings.operators_socket)) == ("agents.sock", "operators.sock")


@pytest.mark.parametrize(
    "options",
    [{"agents": "0.0.0.0:4320"}, {"agents": "[::]:4320"}, {"agents": "10.0.0.5:4320"}, {"operators": "127.0.0.1:4321"},
     {"operators": "10.0.0.5:4321"}],
)  # fmt: skip
def test_door_to_the_network_needs_tls_and_credentials(tmp_path, options):
    tls, credentials = {"certificate": tmp_path / "c", "key": tmp_path / "k"}, {"file": tmp_path / "tokens"}
    for given in ({}, {"tls": tls}, {"credentials": credentials}):
        with pytest.raises(ValidationError, match="set tls and credentials"):
            ControlSettings(**options, **given)
    ControlSettings(**options, tls=tls, credentials=credentials)


def test_operators_socket_is_its_owners_alone(running):
    status = running.servers.operators_socket.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.geteuid()


@pytest.mark.parametrize("mode", ["0666", "660", "0600"])
def test_agents_socket_lets_in_whom_its_mode_says(start, mode):
    sidecar = start(agents=None, agents_socket_mode=mode)
    path = sidecar.servers.agents_socket
    assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
    with Raw(f"unix:{path}") as raw:
        opened(raw, "s1")
        assert asked(raw, "s1").answer == pb.ANSWER_ALLOWED


def test_socket_left_behind_is_taken_over_and_anything_else_is_not(start, tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(data / "operators.sock"))
    left.close()
    with Sidecar(tmp_path) as sidecar, sidecar.people() as people:
        assert people.status().ready
    (tmp_path / "file.sock").write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        start(operators_socket=tmp_path / "file.sock")
    assert (tmp_path / "file.sock").read_text() == "mine"


def test_path_that_is_too_long_for_a_socket_is_named(start, tmp_path):
    with pytest.raises(ConfigError, match="longer than"):
        start(operators_socket=tmp_path / ("x" * 120))


def test_address_that_is_taken_is_named(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=address):
            start(agents=address)


@pytest.fixture
def network(start, tmp_path):
    """A sidecar whose doors face the network: TLS and tokens."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    file = tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent"}, alice={"role": "operator"}, vic={"role": "viewer"})
    sidecar = start(
        agents="0.0.0.0:0", operators="127.0.0.1:0", credentials={"file": file},
        tls={"certificate": certificate, "key": key},
    )  # fmt: skip
    return sidecar, tokens, authority


def test_operators_find_authority_and_token_in_the_environment(network, monkeypatch):
    sidecar, tokens, authority = network
    monkeypatch.setenv("SIDECAR_CA", str(authority.path))
    monkeypatch.setenv("SIDECAR_OPERATOR_TOKEN", tokens["alice"])
    with Operators(f"localhost:{sidecar.servers.ports['operators']}") as alice:
        assert alice.status() is not None


def test_agents_from_the_network_need_tls_and_a_token(network):
    sidecar, tokens, authority = network
    port = sidecar.servers.ports["agents"]
    tls = grpc.ssl_channel_credentials(authority.path.read_bytes())
    with Raw(f"localhost:{port}", tokens["ann"], tls) as raw:
        opened(raw, "s1")
        assert asked(raw, "s1").answer == pb.ANSWER_ALLOWED
    body = pb.OpenSessionRequest(session_id="s2").SerializeToString()
    with Raw(f"localhost:{port}", "", tls) as raw:  # from loopback, too: who is behind it cannot be told
        assert raw.code("AgentService.OpenSession", body) == "UNAUTHENTICATED"
    with Raw(f"127.0.0.1:{port}") as raw:
        assert raw.code("AgentService.OpenSession", body) == "UNAVAILABLE"
    with Raw(f"unix:{sidecar.servers.agents_socket}") as raw:
        assert raw.code("AgentService.OpenSession", body) == "OK"
    with sidecar.people() as people:
        assert {v.realm for v in people.sessions()} == {"agent:ann", "local"}


def test_operators_from_the_network_are_named_in_the_audit_log(network):
    sidecar, tokens, authority = network
    with Raw(f"unix:{sidecar.servers.agents_socket}") as raw:
        opened(raw, "s1")
    target, ca = f"localhost:{sidecar.servers.ports['operators']}", str(authority.path)
    with Operators(target, token=tokens["alice"], ca=ca) as alice, Operators(target, token=tokens["vic"], ca=ca) as vic:
        alice.pause(one("s1"), "wait", request_id="r-1")
        vic_sees = vic.sessions(session_id="s1")[0]
        assert vic_sees.causes[0].actor == "alice"
        with pytest.raises(ControlError) as refusal:
            vic.resume(one("s1"), "go on", pause_id=vic_sees.pause_id, epoch=vic_sees.epoch)
        assert refusal.value.code == "PERMISSION_DENIED"
    with Operators(target, token="", ca=ca) as nobody, pytest.raises(ControlError) as refusal:
        nobody.status()
    assert refusal.value.code == "UNAUTHENTICATED"
    assert [r.actor for r in sidecar.audit() if r.action == "pause"] == ["alice"]


def test_request_ids_of_two_people_do_not_meet(network):
    sidecar, tokens, authority = network
    with Raw(f"unix:{sidecar.servers.agents_socket}") as raw:
        opened(raw, "s1")
    target, ca = f"localhost:{sidecar.servers.ports['operators']}", str(authority.path)
    with Operators(target, token=tokens["alice"], ca=ca) as alice, sidecar.people() as local:
        first = alice.pause(one("s1"), "wait", request_id="r-1")
        second = local.pause(one("s1"), "wait, too", request_id="r-1")
        assert first[0].pause_id != second[0].pause_id
        assert len(second[0].causes) == 2


# ------------------------------------------------------------ what is served


def health(channel, service, timeout_s=10):
    body = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
    return channel.unary_unary("/grpc.health.v1.Health/Check")(body, timeout=timeout_s)


def test_health_is_open_to_probes_and_follows_readiness(running):
    for target, service in (
        (running.address, "sidecar.control.v1.AgentService"),
        (running.socket, "sidecar.control.v1.OperatorService"),
    ):
        with grpc.insecure_channel(target) as channel:
            assert health(channel, "") == health(channel, service) == b"\x08\x01"
            with pytest.raises(grpc.RpcError) as refusal:
                health(channel, "some.Other")
            assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
            with pytest.raises(grpc.RpcError) as refusal:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a\xff", timeout=10)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with grpc.insecure_channel(running.address) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
        assert next(watch) == b"\x08\x01"
        running.service.restoring = True
        assert next(watch) == b"\x08\x02"
        assert health(channel, "") == b"\x08\x02"
        watch.cancel()


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/grpc.health.v1.Health/List",
        "/sidecar.control.v1.AgentService/Nothing",
    ],
)
def test_nothing_else_is_served(running, method):
    for target in (running.address, running.socket):
        with grpc.insecure_channel(target) as channel:
            with pytest.raises(grpc.RpcError) as refusal:
                list(channel.stream_stream(method)(iter([b""]), timeout=10))
            assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_message_above_the_limit_is_refused_and_the_connection_kept(start):
    sidecar = start(max_message=64 * 1024)
    with Raw(sidecar.address) as raw:
        opened(raw, "s1")
        body = pb.AuthorizeRequest(session_id="s1", tool="x" * 65 * 1024).SerializeToString()
        assert raw.code("AgentService.Authorize", body) == "RESOURCE_EXHAUSTED"
        assert asked(raw, "s1").answer == pb.ANSWER_ALLOWED


def test_metadata_above_the_limit_is_refused(raw):
    raw.metadata = (("x-much", "y" * 64 * 1024),)
    assert raw.code("AgentService.OpenSession", b"") == "RESOURCE_EXHAUSTED"


def test_client_that_pings_often_is_not_cut_off(running):
    """Row M5: with gRPC's own limits, the keepalive of a client in trouble ends its connection."""
    options = [("grpc.keepalive_time_ms", 50), ("grpc.keepalive_timeout_ms", 1000),
               ("grpc.http2.max_pings_without_data", 0), ("grpc.keepalive_permit_without_calls", 1),
               ("grpc.http2.min_time_between_pings_ms", 50)]  # fmt: skip
    request = pb.WatchRequest(instance_id="i1").SerializeToString()
    go_on = threading.Event()

    def sent():
        yield request
        go_on.wait(20)

    with grpc.insecure_channel(running.address, options) as channel:
        call = channel.stream_stream("/sidecar.control.v1.AgentService/Watch")(sent(), timeout=20)
        for _ in range(4):  # a second each
            next(call)
        go_on.set()
        call.cancel()


def test_stop_ends_streams_and_is_quick(start):
    sidecar = start()
    with Raw(sidecar.address) as raw, sidecar.people() as people:
        opened(raw, "s1", instance_id="i1")
        watch = raw.both("AgentService.Watch", iter([pb.WatchRequest(instance_id="i1").SerializeToString()]))
        next(watch)
        follow = people.follow()
        sidecar.loop.run(sidecar.servers.stop(0.1), 10)
        with pytest.raises(grpc.RpcError):
            next(watch)
        with pytest.raises(ControlError):
            next(follow)


# ------------------------------------------------------------ whatever bytes

VALID = {
    "AgentService.OpenSession": pb.OpenSessionRequest(
        session_id="s1", agent=pb.AgentIdentity(name="a"), tools=[pb.Tool(name="t", schema_json="{}")], instance_id="i"
    ),
    "AgentService.Watch": pb.WatchRequest(instance_id="i", known=[pb.SessionState(session_id="s1", epoch=1)]),
    "AgentService.Authorize": pb.AuthorizeRequest(session_id="s1", tool="t", arguments_json="{}", call_id="c"),
    "AgentService.AuthorizeStream": pb.AuthorizeRequest(session_id="s1", tool="t", arguments_json="{}"),
    "AgentService.AwaitDecision": pb.AwaitDecisionRequest(decision_id="d", timeout_ms=1),
    "AgentService.RedeemGrant": pb.RedeemGrantRequest(
        session_id="s1", tool="t", arguments_json="{}", grant=pb.Grant(grant_id="g", digest=b"d", signature=b"s")
    ),
    "AgentService.ReportOutcome": pb.ReportOutcomeRequest(session_id="s1", call_id="c", tool="t"),
    "AgentService.Acknowledge": pb.AcknowledgeRequest(session_id="s1", observed=3, in_flight=["c"]),
    "AgentService.Escalate": pb.EscalateRequest(session_id="s9", reason="r", request_id="r"),
    "OperatorService.GetStatus": pb.GetStatusRequest(),
    "OperatorService.ListSessions": pb.ListSessionsRequest(session_id="s1", states=[1], limit=3),
    "OperatorService.ListAlerts": pb.ListAlertsRequest(realm="local", all=True, limit=3),
    "OperatorService.GetEvidence": pb.GetEvidenceRequest(fingerprint="f"),
    "OperatorService.Pause": pb.PauseRequest(request_id="r", reason="r", scope=one("s9")),
    "OperatorService.Resume": pb.ResumeRequest(request_id="r", reason="r", scope=one("s9"), pause_id="p", epoch=1),
    "OperatorService.Terminate": pb.TerminateRequest(request_id="r", reason="r", scope=one("s9")),
    "OperatorService.ListApprovals": pb.ListApprovalsRequest(all=True),
    "OperatorService.Decide": pb.DecideRequest(request_id="r", decision_id="d", reason="r"),
    "OperatorService.Review": pb.ReviewRequest(request_id="r", fingerprint="f", verdict="true_positive"),
    "OperatorService.ListAudit": pb.ListAuditRequest(after_seq=2**64 - 1, limit=2**32 - 1),
    "OperatorService.Follow": pb.FollowRequest(),
}
EXPECTED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED"}


def mutated(body, chance):
    """A message with bytes changed, cut, doubled or put in."""
    body = bytearray(body or b"\x08\x01")
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(4):
            case 0 if at < len(body):
                body[at] = chance.randrange(256)
            case 1:
                del body[at:]
            case 2:
                body[at:at] = body[: chance.randrange(16)]
            case _:
                body[at:at] = chance.randbytes(chance.randrange(6))
        if not body:
            break
    return bytes(body)


@pytest.mark.parametrize("method", VALID)
def test_no_bytes_are_more_than_an_error_of_the_callers(running, method):
    chance = random.Random(method)
    target = running.address if method.startswith("Agent") else running.socket
    with Raw(target) as raw, Raw(running.address) as agent:
        opened(agent, "s1")
        valid = VALID[method].SerializeToString()
        streams = STREAMS.get(method, (False, False))
        bodies = [valid, b"\xff", b"\0", b"\x0a", b"\x0a\x02\xc3\x28", chance.randbytes(64)]
        bodies += [mutated(valid, chance) for _ in range(3 if streams[1] else 120)]
        quiet = method == "OperatorService.Follow"  # one that is let in hears nothing, until its time is up
        codes = {raw.code(method, body, streams=streams, timeout_s=0.5 if quiet else 10) for body in bodies}
    assert codes - ({"DEADLINE_EXCEEDED"} if quiet else set()) <= EXPECTED
    assert not [k for k in running.tally.seen if k[0] == "refused" and k[-1] in ("INTERNAL", "UNKNOWN")]


def test_every_method_of_the_api_is_tried_with_odd_bytes():
    assert set(VALID) == {
        f"{service.name}.{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
