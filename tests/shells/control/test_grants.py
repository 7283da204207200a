"""A grant covers one exact act, once, for a short time, under one policy, in a session that runs (P8)."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.control.client import fleet, role
from sidecar.control.client import session as one
from sidecar.control.grants import Grants, digest
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.alerts import Decision
from sidecar.core.events import NO_AGENT, SessionKey
from sidecar.core.triage.policy import Policy, PolicyDocument
from sidecar.errors import ConfigError
from sidecar.storage import Instant
from tests.shells.control.kit import Raw, asked, opened

ARGUMENTS = {"to": "amy@corp.example", "amount": 12.5, "note": "straße", "tags": ["a", "b"]}


def granted(raw, tool="send_email", arguments=None):
    answer = asked(raw, "s1", tool, ARGUMENTS if arguments is None else arguments)
    assert answer.answer == pb.ANSWER_ALLOWED
    return answer.grant


def redeems(raw, grant, tool="send_email", arguments=None, session_id="s1"):
    text = arguments if isinstance(arguments, str) else json.dumps(ARGUMENTS if arguments is None else arguments)
    request = pb.RedeemGrantRequest(grant=grant, session_id=session_id, tool=tool, arguments_json=text)
    return raw.call("AgentService.RedeemGrant", request, pb.RedeemGrantResponse).redeemed


@pytest.fixture
def ready(running, raw):
    opened(raw, "s1")
    return raw


def test_grant_is_redeemed_once(ready, running):
    grant = granted(ready)
    assert redeems(ready, grant)
    assert not redeems(ready, grant)
    assert [r.action for r in running.audit()] == ["allow", "redeem"]


def test_order_of_keys_does_not_matter_and_every_character_does(ready):
    turned = json.dumps(dict(reversed(ARGUMENTS.items())), indent=2, ensure_ascii=False)
    assert redeems(ready, granted(ready), arguments=turned)


@pytest.mark.parametrize(
    "change",
    [
        {"to": "amy@corp.examplе"},  # ends in a Cyrillic letter
        {"to": "Amy@corp.example"},
        {"note": "stras\u0301e"},
        {"note": "straße\u200b"},
        {"amount": 12.500000000000002},
        {"amount": "12.5"},
        {"tags": ["b", "a"]},
        {"cc": None},
    ],
)
def test_grant_does_not_cover_other_arguments(ready, change):
    grant = granted(ready)
    assert not redeems(ready, grant, arguments=ARGUMENTS | change)
    assert redeems(ready, grant)  # the attempt has not used it up


def test_unicode_equal_arguments_are_other_arguments(ready):
    composed, decomposed = {"note": "\u00e9"}, {"note": "e\u0301"}
    assert not redeems(ready, granted(ready, arguments=composed), arguments=decomposed)


@pytest.mark.parametrize("text", ['{"to":"a","to":"amy@corp.example"}', "", "[]", '{"amount":NaN}'])
def test_grant_does_not_cover_what_cannot_be_read(ready, text):
    assert not redeems(ready, granted(ready), arguments=text)


def test_grant_does_not_cover_another_tool_or_session(ready):
    opened(ready, "s2")
    grant = granted(ready)
    assert not redeems(ready, grant, tool="send_email ")
    assert not redeems(ready, grant, tool="delete_file")
    assert not redeems(ready, grant, session_id="s2")


@pytest.mark.parametrize("field", ["grant_id", "digest", "expires_at", "signature"])
def test_grant_that_was_changed_is_none(ready, running, field):
    grant = granted(ready)
    if field == "expires_at":
        grant.expires_at.seconds += 3600
    elif field == "grant_id":
        grant.grant_id = grant.grant_id[:-1] + ("0" if grant.grant_id[-1] != "0" else "1")
    else:
        value = bytearray(getattr(grant, field))
        value[5] ^= 1
        setattr(grant, field, bytes(value))
    assert not redeems(ready, grant)
    assert running.tally.seen["denied", "agents", "AgentService.RedeemGrant", "grant"] == 1


def test_grant_of_another_installation_is_none(ready):
    decision = Decision("e", SessionKey("local", "s1"), NO_AGENT, "send_email", 1, "allow")
    forged = Grants(os.urandom(32)).mint(decision, ARGUMENTS, "p", Instant.now()).signed
    grant = pb.Grant(grant_id=forged.grant_id, digest=forged.digest, signature=forged.signature)
    grant.expires_at.FromNanoseconds(forged.expires_ns)
    assert not redeems(ready, grant)


@pytest.mark.parametrize("scope", [one("s1"), role("mail-helper"), fleet()], ids=["session", "role", "fleet"])
def test_pause_makes_a_grant_void_for_good(ready, people, scope):
    grant = granted(ready)
    [paused] = people.pause(scope, "stop")
    assert not redeems(ready, grant)
    people.resume(scope, "go on", pause_id=paused.pause_id, epoch=paused.epoch)
    assert not redeems(ready, grant)
    assert redeems(ready, granted(ready))


def test_new_policy_makes_a_grant_void(ready, running):
    grant = granted(ready)
    stricter = Policy(PolicyDocument(posture="enforce"), {})
    running.loop.call(lambda: running.service.pipeline.adopt_policy(stricter))
    assert not redeems(ready, grant)


def test_grant_expires_by_the_clock_since_boot(ready, monkeypatch):
    grant = granted(ready)
    now = Instant.now()

    def later(seconds):
        return lambda: Instant(now.at_ns - 10**18, now.boot_ns + int(seconds * 1e9), now.boot_id)

    monkeypatch.setattr(Instant, "now", staticmethod(later(61)))
    assert not redeems(ready, grant)
    monkeypatch.setattr(Instant, "now", staticmethod(later(30)))  # the wall clock is 30 years back
    assert redeems(ready, grant)


def test_grant_of_an_earlier_boot_is_void(ready, monkeypatch):
    grant = granted(ready)
    now = Instant.now()
    monkeypatch.setattr(Instant, "now", staticmethod(lambda: Instant(now.at_ns, 1, "another-boot")))
    assert not redeems(ready, grant)


def test_grant_survives_a_restart(tmp_path, start):
    first = start()
    with Raw(first.address) as raw:
        opened(raw, "s1")
        grant = granted(raw)
    first.__exit__()
    first.__enter__()
    with Raw(first.address) as raw:
        opened(raw, "s1")
        assert redeems(raw, grant)
        assert not redeems(raw, grant)


def test_many_who_race_for_a_grant_redeem_it_once(ready, running):
    grants = [granted(ready, arguments={"n": n}) for n in range(20)]
    with ThreadPoolExecutor(8) as pool:
        for number, grant in enumerate(grants):
            tries = [pool.submit(redeems, ready, grant, "send_email", {"n": number}) for _ in range(8)]
            assert sum(each.result(10) for each in tries) == 1


def test_reversible_acts_get_a_grant_only_where_asked_for(start):
    sidecar = start(grants="every")
    with Raw(sidecar.address) as raw:
        opened(raw, "s1")
        grant = granted(raw, "read_file")
        assert redeems(raw, grant, "read_file")
        later = granted(raw, "read_file", {"path": "/b"})
        with sidecar.people() as people:
            people.pause(one("s1"), "stop")
        rows = sidecar.control._rows("SELECT void FROM grants WHERE grant_id = ?", (later.grant_id,))
        assert rows == [(1,)]


@pytest.mark.parametrize("which", ["none", "irreversible"])
def test_reversible_acts_get_no_grant_by_default(start, which):
    sidecar = start(grants=which)
    with Raw(sidecar.address) as raw:
        opened(raw, "s1")
        assert not asked(raw, "s1", "read_file").HasField("grant")
        assert asked(raw, "s1").HasField("grant") == (which == "irreversible")


def test_approved_act_gets_one_grant_however_often_it_is_asked_for(ready, running, people):
    held = asked(ready, "s1", arguments={"trip": "hold"})
    people.decide(held.decision_id, approve=True, reason="fine")
    request = pb.AwaitDecisionRequest(decision_id=held.decision_id, timeout_ms=1)
    with ThreadPoolExecutor(4) as pool:
        ways = [
            pool.submit(ready.call, "AgentService.AwaitDecision", request, pb.AwaitDecisionResponse) for _ in range(4)
        ]
        answers = [way.result(10) for way in ways]
    assert {answer.answer for answer in answers} == {pb.ANSWER_ALLOWED}
    assert len({answer.grant.grant_id for answer in answers}) == 1
    assert redeems(ready, answers[0].grant, arguments={"trip": "hold"})


def test_approval_under_another_policy_is_asked_for_again(ready, running, people):
    held = asked(ready, "s1", arguments={"trip": "hold"})
    stricter = Policy(PolicyDocument(posture="enforce"), {})
    running.loop.call(lambda: running.service.pipeline.adopt_policy(stricter))
    people.decide(held.decision_id, approve=True, reason="fine")
    request = pb.AwaitDecisionRequest(decision_id=held.decision_id, timeout_ms=1).SerializeToString()
    assert ready.code("AgentService.AwaitDecision", request) == "NOT_FOUND"


def test_key_is_made_once_for_its_owner_alone(tmp_path):
    first, second = Grants.load(tmp_path), Grants.load(tmp_path)
    assert first.public_key == second.public_key
    assert (tmp_path / "grants.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "grants.key").chmod(0o644)
    with pytest.raises(ConfigError):
        Grants.load(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4), st.dictionaries(st.text(), JSON, max_size=4))
def test_digest_is_the_same_for_the_same_act_only(one_act, other):
    def of(arguments, tool="t", session="s", policy="p"):
        return digest(tool, arguments, SessionKey("r", session), policy)

    again = json.loads(json.dumps(one_act), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert of(again) == of(one_act)
    same = json.dumps(one_act, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (of(one_act) == of(other)) == same
    assert len({of(one_act), of(one_act, tool="u"), of(one_act, session="x"), of(one_act, policy="q")}) == 4
