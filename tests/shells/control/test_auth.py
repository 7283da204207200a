"""Credentials, and who may call what: nobody who is not in the matrix, and nobody unseen."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter

import grpc
import pytest

from sidecar.control import auth
from sidecar.control.auth import MATRIX, Credentials, CredentialSettings, Denials, methods, new_token, roles_of
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.span import LOCAL, Speaker
from sidecar.errors import ConfigError, ControlError
from tests.shells.control.kit import Raw, Tally, write_tokens
from tests.shells.otlp.certificates import Authority

ROLES = {
    "agent": {"role": "agent"},
    "forwarder": {"role": "forwarder", "speaks_for": ["*"]},
    "detector": {"role": "detector"},
    "viewer": {"role": "viewer"},
    "operator": {"role": "operator"},
}
FORBIDDEN = ("UNAUTHENTICATED", "PERMISSION_DENIED")
STREAMS = {
    "AgentService.Watch": (True, True),
    "AgentService.AuthorizeStream": (True, True),
    "OperatorService.Follow": (False, True),
}


# ------------------------------------------------------------ the matrix


def test_every_method_of_the_api_is_in_the_matrix_and_nothing_else_is():
    assert set(methods()) == set(MATRIX)
    assert {role for roles in MATRIX.values() for role in roles} <= {*ROLES, "local"}


def test_method_that_is_not_in_the_matrix_stops_the_start(start, monkeypatch):
    monkeypatch.delitem(auth.MATRIX, "OperatorService.Resume")
    with pytest.raises(ConfigError, match=r"OperatorService\.Resume"):
        start()
    with pytest.raises(ConfigError):
        roles_of("OperatorService.Resume")


def test_streaming_methods_are_those_of_the_api():
    found = {
        f"{service.name}.{method.name}": (method.client_streaming, method.server_streaming)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.client_streaming or method.server_streaming
    }
    assert found == STREAMS


@pytest.fixture
def doors(start, tmp_path):
    """A sidecar with every kind of door, everyone's token, and a channel to each door."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    file = tmp_path / "tokens.yaml"
    tokens = write_tokens(file, **ROLES)
    sidecar = start(operators="127.0.0.1:0", credentials={"file": file}, tls={"certificate": certificate, "key": key})
    tls = grpc.ssl_channel_credentials(authority.path.read_bytes())
    remote = f"localhost:{sidecar.servers.ports['operators']}"

    def channel(door, token):
        target = {"agents": sidecar.address, "agents' socket": f"unix:{sidecar.servers.agents_socket}",
                  "operators": remote, "operators' socket": sidecar.socket}[door]  # fmt: skip
        return Raw(target, token, tls if door == "operators" else None)

    return sidecar, tokens, channel


def expected(method, role, door):
    """Whether a call is let in: by its door, and by its role there."""
    service = "AgentService" if door.startswith("agents") else "OperatorService"
    if not method.startswith(service):
        return "UNIMPLEMENTED"
    if role == "":
        role = {"operators' socket": "operator", "operators": "nobody"}.get(door, "local")
    return "let in" if role in MATRIX[method] else "denied"


@pytest.mark.parametrize("door", ["agents", "agents' socket", "operators", "operators' socket"])
def test_matrix_of_methods_and_roles(doors, door):
    sidecar, tokens, channel = doors
    cells, denied = 0, Counter()
    for role in ("", *ROLES):
        with channel(door, tokens.get(role, "")) as raw:
            for method in methods():
                # A body that no method takes: whoever is let in hears that it is malformed, and changes nothing.
                code = raw.code(method, b"\xff\xff", streams=STREAMS.get(method, (False, False)))
                wanted = expected(method, role, door)
                if wanted == "denied":
                    assert code in FORBIDDEN, (method, role, door, code)
                    denied[method, role] += 1
                elif wanted == "let in":
                    assert code == "INVALID_ARGUMENT", (method, role, door, code)
                else:
                    assert code == "UNIMPLEMENTED", (method, role, door, code)
                cells += 1
    assert cells == 21 * 6
    name = "agents" if door.startswith("agents") else "operators"
    counted = {k: n for k, n in sidecar.tally.seen.items() if k[0] == "denied"}
    assert sum(counted.values()) == sum(denied.values()) > 0
    recorded = Counter()
    for record in sidecar.audit():
        if record.action == "denied":
            detail = json.loads(record.detail_json)
            assert detail["door"] == name
            recorded[detail["method"], detail["role"]] += detail.get("count", 1)
    assert recorded == denied


def test_forms_of_a_token_that_are_none(doors):
    _, tokens, channel = doors
    with channel("operators", "") as raw:
        for metadata in (
            (("authorization", tokens["operator"]),),
            (("authorization", f"Basic {tokens['operator']}"),),
            (("authorization", "Bearer "),),
            (("authorization", f"Bearer {tokens['operator']}x"),),
            (("authorization", f"Bearer {tokens['operator'].upper()}"),),
            (("authorization", f"Bearer {tokens['operator']}"), ("authorization", f"Bearer {tokens['viewer']}")),
            (("x-authorization", f"Bearer {tokens['operator']}"),),
            (("authorization", f"Bearer {'x' * 5000}"),),
            (("authorization", f"Bearer {hashlib.sha256(tokens['operator'].encode()).hexdigest()}"),),
        ):
            raw.metadata = metadata
            assert raw.code("OperatorService.GetStatus", b"") == "UNAUTHENTICATED", metadata
        raw.metadata = (("authorization", f"bearer  {tokens['operator']} "),)
        assert raw.code("OperatorService.GetStatus", b"") == "OK"


def test_name_in_a_body_is_nobodys_credential(doors):
    """Row 64: an agent cannot resume, whatever it says it is."""
    sidecar, tokens, channel = doors
    with channel("operators", tokens["agent"]) as raw:
        request = pb.ResumeRequest(request_id="r", reason="operator:alice says so")
        request.scope.session.session_id = "s1"
        assert raw.code("OperatorService.Resume", request.SerializeToString()) == "PERMISSION_DENIED"
    [record] = [r for r in sidecar.audit() if r.action == "denied"]
    assert record.actor == "agent"


def test_detector_pauses_sessions_but_neither_roles_nor_the_fleet(doors):
    sidecar, tokens, channel = doors
    with channel("agents", "") as raw:
        raw.bytes("AgentService.OpenSession", pb.OpenSessionRequest(session_id="s1").SerializeToString())
    with channel("operators", tokens["detector"]) as raw:
        request = pb.PauseRequest(request_id="r1", reason="odd", scope=pb.Scope(fleet=True))
        assert raw.code("OperatorService.Pause", request.SerializeToString()) == "PERMISSION_DENIED"
        request.scope.session.session_id = "s1"
        assert raw.code("OperatorService.Pause", request.SerializeToString()) == "OK"
        request.request_id = "r2"
        assert raw.code("OperatorService.Pause", request.SerializeToString()) == "OK"
    with sidecar.people() as people:
        [paused] = people.sessions()
        assert [(cause.by, cause.actor) for cause in paused.causes] == [("detector", "detector")]  # renewed, not heaped
        assert paused.epoch == 2


def test_flood_of_denials_shares_records_and_every_one_is_counted(doors):
    sidecar, _, channel = doors
    with channel("operators", "wrong") as raw:
        for _ in range(300):
            assert raw.code("OperatorService.GetStatus", b"") == "UNAUTHENTICATED"
    sidecar.loop.call(sidecar.servers._denials.flush)
    records = [json.loads(r.detail_json) for r in sidecar.audit() if r.action == "denied"]
    assert sum(record.get("count", 1) for record in records) == 300
    assert len(records) < 200


# ------------------------------------------------------------ the file


def settings(path, **fields):
    return CredentialSettings(file=path, **fields)


class Clock:
    def __init__(self) -> None:
        self.wall_ns, self.mono_s = 1_800_000_000 * 10**9, 0.0

    def credentials(self, path):
        return Credentials(settings(path), clock_ns=lambda: self.wall_ns, monotonic_s=lambda: self.mono_s)


def test_who_speaks_at_the_telemetry_door(tmp_path):
    file = tmp_path / "tokens.yaml"
    tokens = write_tokens(
        file,
        ann={"role": "agent", "agent": "billing"},
        bob={"role": "agent"},
        gate={"role": "forwarder", "speaks_for": ["billing"]},
        eve={"role": "operator"},
    )
    credentials = Credentials(settings(file))
    assert credentials.identify(tokens["ann"], loopback=False) == Speaker("agent:billing", "authenticated", "billing")
    assert credentials.identify(tokens["bob"], loopback=True) == Speaker("agent:bob", "authenticated", "bob")
    gate = credentials.identify(tokens["gate"], loopback=False)
    assert gate == Speaker("forwarder:gate", "authenticated", None, ("billing",))
    assert credentials.identify(None, loopback=True) is LOCAL
    for token, loopback, code in (
        (None, False, "UNAUTHENTICATED"),
        ("wrong", True, "UNAUTHENTICATED"),
        ("", True, "UNAUTHENTICATED"),
        (tokens["eve"], True, "PERMISSION_DENIED"),
    ):
        with pytest.raises(ControlError) as refusal:
            credentials.identify(token, loopback=loopback)
        assert refusal.value.code == code


def test_token_expires(tmp_path):
    clock, file = Clock(), tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent", "expires": "2027-01-15T08:00:01Z"})
    credentials = clock.credentials(file)
    caller = credentials.caller(tokens["ann"], "agents", local=False)
    assert credentials.is_valid(caller)
    clock.wall_ns += 10**9
    assert not credentials.is_valid(caller)
    with pytest.raises(ControlError, match="not known"):
        credentials.caller(tokens["ann"], "agents", local=False)


def test_token_that_is_taken_out_of_the_file_is_refused_soon(tmp_path):
    clock, file = Clock(), tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent"}, bob={"role": "agent"})
    credentials = clock.credentials(file)
    caller = credentials.caller(tokens["bob"], "agents", local=False)
    file.write_text(json.dumps({"tokens": [{"name": "ann", "role": "agent", "sha256": caller.token.hex()}]}))
    clock.mono_s = 1.1
    assert not credentials.is_valid(caller)  # the same token is somebody else now
    file.write_text("tokens: []\n")
    clock.mono_s = 2.2
    assert not credentials.is_valid(caller)


def test_file_that_cannot_be_read_any_more_leaves_the_last_one_in_force(tmp_path):
    clock, file = Clock(), tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent"})
    credentials = clock.credentials(file)
    for broken in ("tokens: [", "tokens:\n- name: x\n", None):
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        clock.mono_s += 2
        assert credentials.caller(tokens["ann"], "agents", local=False).name == "ann"
        assert credentials.problem
    fresh = write_tokens(file, bob={"role": "agent"})
    clock.mono_s += 2
    assert credentials.caller(fresh["bob"], "agents", local=False).name == "bob"
    assert not credentials.problem


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o622])
def test_file_that_others_can_open_is_refused(tmp_path, mode):
    file = tmp_path / "tokens.yaml"
    write_tokens(file, ann={"role": "agent"})
    file.chmod(mode)
    with pytest.raises(ConfigError, match=r"tokens\.yaml"):
        Credentials(settings(file))


def test_file_of_another_user_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "tokens.yaml"
    write_tokens(file, ann={"role": "agent"})
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(ConfigError):
        Credentials(settings(file))


ENTRY = {"name": "ann", "role": "agent", "sha256": "a" * 64}


@pytest.mark.parametrize(
    "document",
    [
        {"tokens": [ENTRY, ENTRY]},
        {"tokens": [ENTRY, {**ENTRY, "name": "bob"}]},
        {"tokens": [{**ENTRY, "sha256": "A" * 64}]},
        {"tokens": [{**ENTRY, "sha256": "sct_secret-token-in-the-clear"}]},
        {"tokens": [{**ENTRY, "role": "root"}]},
        {"tokens": [{**ENTRY, "role": "local"}]},
        {"tokens": [{**ENTRY, "speaks_for": ["*"]}]},
        {"tokens": [{**ENTRY, "role": "forwarder"}]},
        {"tokens": [{**ENTRY, "role": "operator", "agent": "x"}]},
        {"tokens": [{**ENTRY, "expires": "2027-01-01T00:00:00"}]},
        {"tokens": [{**ENTRY, "name": "аnn"}]},
        {"tokens": [{**ENTRY, "name": " ann"}]},
        {"tokens": [{**ENTRY, "rôle": "agent"}]},
        {"token": []},
        [],
    ],
)
def test_file_of_odd_content_is_refused_and_shows_no_secret(tmp_path, document):
    file = tmp_path / "tokens.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(document))
    with pytest.raises(ConfigError) as refusal:
        Credentials(settings(file))
    assert "secret-token" not in str(refusal.value)
    assert "tokens.json" in str(refusal.value)


@pytest.mark.parametrize("text", ["tokens: [\n", "tokens: []\ntokens: []\n", "tokens: !!python/object:x []\n"])
def test_file_of_odd_yaml_is_refused(tmp_path, text):
    file = tmp_path / "tokens.yaml"
    file.touch(mode=0o600)
    file.write_text(text)
    with pytest.raises(ConfigError):
        Credentials(settings(file))


def test_new_tokens_are_long_and_stand_in_the_file_as_a_digest_only():
    token, digest = new_token()
    assert len(token) >= 43
    assert hashlib.sha256(token.encode()).hexdigest() == digest
    assert new_token()[0] != token


def test_denials_are_summed_up_in_a_flood():
    entries, tally, now = [], Tally(), [0.0]

    async def flood():
        denials = Denials(entries.append, tally, monotonic_s=lambda: now[0])
        for _ in range(250):
            denials.note("operators", "OperatorService.Resume", "ipv4:10.0.0.9:1", "", "unauthenticated")
        denials.flush()

    asyncio.run(flood())
    assert len(entries) == Denials.BURST + 1
    assert entries[-1].detail["count"] == 150
    assert tally.seen["denied", "operators", "OperatorService.Resume", "unauthenticated"] == 250
