"""Questions at the gate as bytes: what cannot be read, what has not come yet, and what happens in between."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.control.client import session as one
from sidecar.control.convert import read_question
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.events import SessionKey
from sidecar.core.span import LOCAL
from sidecar.errors import StorageError
from sidecar.service import gate as service_module
from sidecar.storage import ControlStore
from tests.shells.control.kit import Raw, asked, opened, write_tokens
from tests.shells.otlp import kit as otlp

KEY = SessionKey("local", "s1")
UNREADABLE = {
    "a key twice": '{"to":"amy@corp.example","to":"eve@rival.example"}',
    "a key twice, deep": '{"a":[{"b":1,"b":2}]}',
    "NaN": '{"amount":NaN}',
    "infinity": '{"amount":-Infinity}',
    "1e400": '{"amount":1e400}',
    "5,000 digits": '{"amount":' + "9" * 5000 + "}",
    "too deep": '{"a":' * 70 + "1" + "}" * 70,
    "far too deep": "[" * 100_000,
    "too large": json.dumps({"body": "x" * 4 * 2**20}),
    "no object": '["amy@corp.example"]',
    "no JSON": "{'to': 1}",
    "more than one value": "{} {}",
}


@pytest.fixture
def soon():
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


@pytest.mark.parametrize("arguments", UNREADABLE.values(), ids=UNREADABLE)
def test_arguments_that_cannot_be_read_are_refused(running, raw, arguments):
    opened(raw, "s1")
    answer = asked(raw, "s1", arguments=arguments)
    assert (answer.answer, answer.judged) == (pb.ANSWER_REFUSED, True)
    assert asked(raw, "s1", "read_file", arguments).answer == pb.ANSWER_REFUSED
    [session] = list(running.service.pipeline.sessions)
    assert "uninspectable" in session.unscored


def test_reading_what_cannot_be_read_only_records_in_observe(start):
    sidecar = start(policy={"posture": "observe"})
    with Raw(sidecar.address) as raw:
        opened(raw, "s1")
        assert asked(raw, "s1", arguments='{"a":1,"a":2}').answer == pb.ANSWER_ALLOWED
        assert asked(raw, "s1", arguments={"trip": "pause"}).answer == pb.ANSWER_ALLOWED


def test_same_question_has_the_same_answer(running, raw):
    opened(raw, "s1")
    first, second = (asked(raw, "s1", arguments={"trip": "hold"}, call_id="call-0123456789") for _ in range(2))
    assert first.decision_id == second.decision_id != ""
    assert len(running.service.approvals) == 1


def test_answer_says_nothing_of_rules_scores_or_people(raw):
    opened(raw, "s1")
    for trip in ("hold", "pause"):
        answer = asked(raw, "s1", arguments={"trip": trip})
        told = {field.name for field, _ in answer.ListFields()}
        assert told <= {"answer", "decision_id", "state", "judged", "call_id"}
        assert b"tripwire" not in answer.SerializeToString()


def test_detector_that_fails_makes_an_irreversible_act_wait(raw):
    opened(raw, "s1")
    answer = asked(raw, "s1", arguments={"trip": "fail"})
    assert (answer.answer, answer.judged) == (pb.ANSWER_WAIT, False)
    assert answer.retry_after_ms > 0
    assert asked(raw, "s1", "read_file", {"trip": "fail"}).answer == pb.ANSWER_ALLOWED


def test_tool_nobody_knows_is_denied_where_tools_are_closed(start):
    sidecar = start(closed=True)
    with Raw(sidecar.address) as raw:
        opened(raw, "s1")
        assert asked(raw, "s1", "frobnicate", {}).answer == pb.ANSWER_REFUSED
        assert asked(raw, "s1", "read_file", {}).answer == pb.ANSWER_ALLOWED


@pytest.mark.parametrize("method", ["Authorize", "Acknowledge", "Escalate", "RedeemGrant", "ReportOutcome"])
def test_session_of_another_is_as_unknown_as_one_that_never_was(start, tmp_path, method):
    file = tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent"}, bob={"role": "agent"})
    sidecar = start(credentials={"file": file})
    bodies = {
        "Authorize": lambda name: pb.AuthorizeRequest(session_id=name, tool="send_email"),
        "Acknowledge": lambda name: pb.AcknowledgeRequest(session_id=name, observed=pb.OBSERVED_QUIESCED),
        "Escalate": lambda name: pb.EscalateRequest(session_id=name, reason="x", request_id="r"),
        "RedeemGrant": lambda name: pb.RedeemGrantRequest(session_id=name),
        "ReportOutcome": lambda name: pb.ReportOutcomeRequest(session_id=name),
    }
    with Raw(sidecar.address, tokens["ann"]) as ann, Raw(sidecar.address, tokens["bob"]) as bob:
        opened(ann, "of-ann")
        words = []
        for name in ("of-ann", "of-nobody"):
            with pytest.raises(Exception, match="no such session") as refusal:
                bob.bytes(f"AgentService.{method}", bodies[method](name).SerializeToString())
            words.append((refusal.value.code(), refusal.value.details()))
        assert words[0] == words[1]
        assert words[0][0].name == "NOT_FOUND"


def test_decision_of_another_is_unknown(start, tmp_path):
    file = tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent"}, bob={"role": "agent"})
    sidecar = start(credentials={"file": file})
    with Raw(sidecar.address, tokens["ann"]) as ann, Raw(sidecar.address, tokens["bob"]) as bob:
        opened(ann, "s1")
        decision_id = asked(ann, "s1", arguments={"trip": "hold"}).decision_id
        body = pb.AwaitDecisionRequest(decision_id=decision_id, timeout_ms=1).SerializeToString()
        assert bob.code("AgentService.AwaitDecision", body) == "NOT_FOUND"
        assert ann.code("AgentService.AwaitDecision", body) == "OK"


def test_credential_names_the_agent_whatever_the_message_says(start, tmp_path):
    file = tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent", "agent": "billing"})
    policy = {"roles": [{"role": "tester", "posture": "observe"}]}
    sidecar = start(credentials={"file": file}, policy=policy)
    with Raw(sidecar.address, tokens["ann"]) as ann:
        opened(ann, "s1", agent="tester")
        answer = asked(ann, "s1", arguments={"trip": "pause"}, agent=pb.AgentIdentity(name="tester"))
        assert answer.answer == pb.ANSWER_PAUSED
    with sidecar.people() as people:
        assert people.sessions()[0].agent == "billing"


# ------------------------------------------------------------ what the agent's process had


def trace(number):
    attributes = [("gen_ai.operation.name", "chat"), ("gen_ai.conversation.id", "s1"), ("gen_ai.agent.name", "bot")]
    now_ns = time.time_ns()
    times = {"start_time_unix_nano": now_ns - 1000, "end_time_unix_nano": now_ns}
    return otlp.traces(otlp.span(number, attributes, name="chat m", **times))


def place(number):
    return f"{otlp.TRACE.hex()}:{number:016x}"


def test_carried_spans_are_fed_before_the_question(running, raw):
    opened(raw, "s1")
    carried = [trace(number).SerializeToString() for number in (1, 2)]
    assert asked(raw, "s1", carried=carried).answer == pb.ANSWER_ALLOWED
    [session] = list(running.service.pipeline.sessions)
    assert session.span_count == 2


@pytest.mark.parametrize(
    "carried",
    [[b"\xff\xff"], [b"\x0a\x05abc"], [trace(1).SerializeToString()[:-3]], [b"\0" * 10]],
    ids=["bytes", "cut", "truncated", "field 0"],
)
def test_carried_bytes_of_odd_form_are_an_invalid_argument(raw, carried):
    opened(raw, "s1")
    body = pb.AuthorizeRequest(session_id="s1", tool="send_email", carried=carried).SerializeToString()
    assert raw.code("AgentService.Authorize", body) == "INVALID_ARGUMENT"


def test_irreversible_act_waits_for_a_pending_span_and_goes_on_when_it_comes(running, raw, soon, monkeypatch):
    monkeypatch.setattr(service_module, "BEHIND_S", 10.0)
    opened(raw, "s1")
    answer = soon(asked, raw, "s1", pending=[place(1), place(2)])
    running.wait(lambda: len(running.service.arrivals._waiting) == 2)
    with grpc.insecure_channel(running.otlp) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        export(trace(1).SerializeToString(), timeout=10)
        assert not answer.done()
        export(trace(2).SerializeToString(), timeout=10)
    assert answer.result(10).answer == pb.ANSWER_ALLOWED
    assert asked(raw, "s1", pending=[place(1)]).answer == pb.ANSWER_ALLOWED  # it has come; nothing waits
    assert not running.service.arrivals._waiting


def test_irreversible_act_is_told_to_wait_while_the_sidecar_is_behind(running, raw):
    opened(raw, "s1")
    answer = asked(raw, "s1", pending=[place(1)])
    assert (answer.answer, answer.judged) == (pb.ANSWER_WAIT, False)
    assert answer.retry_after_ms > 0
    assert not answer.decision_id
    assert not running.service.approvals
    assert running.tally.seen["asked", "wait", "behind"] == 1
    assert not running.service.arrivals._waiting


def test_reversible_act_does_not_wait_for_spans(raw):
    opened(raw, "s1")
    assert asked(raw, "s1", "read_file", pending=[place(1)]).answer == pb.ANSWER_ALLOWED


def test_paused_session_is_told_so_though_spans_are_missing(raw, people):
    opened(raw, "s1")
    people.pause(one("s1"), "wait")
    assert asked(raw, "s1", pending=[place(1)]).answer == pb.ANSWER_PAUSED


@pytest.mark.parametrize("pending", ["x", f"{'0' * 32}:{'0' * 15}", f"{'A' * 32}:{'0' * 16}", ""])
def test_pending_of_odd_form_is_an_invalid_argument(raw, pending):
    opened(raw, "s1")
    body = pb.AuthorizeRequest(session_id="s1", tool="send_email", pending=[pending]).SerializeToString()
    assert raw.code("AgentService.Authorize", body) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (Timestamp(seconds=253_402_300_800), "INVALID_ARGUMENT"),
        (Timestamp(seconds=1, nanos=-1), "INVALID_ARGUMENT"),
        (Timestamp(seconds=1, nanos=10**9), "INVALID_ARGUMENT"),
        (Timestamp(seconds=253_402_300_799), "OK"),
        (Timestamp(seconds=-62_135_596_800), "OK"),
    ],
)
def test_times_of_odd_form(running, raw, told, code):
    opened(raw, "s1")
    body = pb.AuthorizeRequest(session_id="s1", tool="send_email", asked_at=told).SerializeToString()
    before = time.time_ns()
    assert raw.code("AgentService.Authorize", body) == code
    if code == "OK":  # a day off: it was asked when it came
        [session] = list(running.service.pipeline.sessions)
        [act] = session.acts.values()
        assert before <= act.started_ns <= time.time_ns()


# ------------------------------------------------------------ what happens in between


class SlowDisk:
    """Holds back what is to be committed durably, until told to go on."""

    def __init__(self, monkeypatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        commit = ControlStore.commit

        async def slow(store, batch, *, durable):
            if durable and any(entry.action == "allow" for entry in batch.audit):
                storing = asyncio.ensure_future(commit(store, batch, durable=durable))
                await asyncio.sleep(0)  # it has its place in the order
                self.reached.set()
                while not self.go_on.is_set():  # noqa: ASYNC110  # told from another thread
                    await asyncio.sleep(0.005)
                await storing
            else:
                await commit(store, batch, durable=durable)

        monkeypatch.setattr(ControlStore, "commit", slow)


def test_pause_while_an_allow_is_being_stored_leaves_no_grant(running, raw, people, soon, monkeypatch):
    monkeypatch.setattr(service_module, "ALLOW_S", 30.0)
    disk = SlowDisk(monkeypatch)
    opened(raw, "s1")
    answer = soon(asked, raw, "s1")
    assert disk.reached.wait(10)
    people.pause(one("s1"), "stop it")
    disk.go_on.set()
    told = answer.result(10)
    assert told.answer == pb.ANSWER_PAUSED
    assert not told.HasField("grant")
    rows = running.control._rows("SELECT void, consumed_ns FROM grants")
    assert rows == [(1, 0)]


def test_allow_that_was_overtaken_by_pause_and_resume_is_asked_again(running, raw, people, soon, monkeypatch):
    monkeypatch.setattr(service_module, "ALLOW_S", 30.0)
    disk = SlowDisk(monkeypatch)
    opened(raw, "s1")
    answer = soon(asked, raw, "s1", call_id="call-0123456789")
    assert disk.reached.wait(10)
    [paused] = people.pause(one("s1"), "stop it")
    people.resume(one("s1"), "go on", pause_id=paused.pause_id, epoch=paused.epoch)
    disk.go_on.set()
    told = answer.result(10)
    assert (told.answer, told.judged, told.HasField("grant")) == (pb.ANSWER_WAIT, False, False)
    assert asked(raw, "s1", call_id="call-0123456789").answer == pb.ANSWER_ALLOWED


def test_answer_that_comes_too_late_is_no_grant(running, raw, soon, monkeypatch):
    monkeypatch.setattr(service_module, "ALLOW_S", 0.05)
    disk = SlowDisk(monkeypatch)
    opened(raw, "s1")
    told = asked(raw, "s1")
    disk.go_on.set()
    assert (told.answer, told.judged, told.HasField("grant")) == (pb.ANSWER_WAIT, False, False)
    assert running.tally.seen["asked", "wait", "deadline"] == 1


def test_disk_that_refuses_makes_irreversible_acts_wait_and_reversible_ones_go_on(raw, monkeypatch):
    opened(raw, "s1")

    async def refuse(store, batch, *, durable):
        raise StorageError("no room")

    monkeypatch.setattr(ControlStore, "commit", refuse)
    told = asked(raw, "s1")
    assert (told.answer, told.judged) == (pb.ANSWER_WAIT, False)
    assert asked(raw, "s1", "read_file").answer == pb.ANSWER_ALLOWED


def test_nothing_irreversible_is_allowed_while_the_state_is_restored(running, raw):
    opened(raw, "s1")
    running.loop.call(lambda: setattr(running.service, "restoring", True))
    assert asked(raw, "s1").answer == pb.ANSWER_WAIT
    assert asked(raw, "s1", arguments={"trip": "hold"}).answer == pb.ANSWER_WAIT
    assert asked(raw, "s1", "read_file").answer == pb.ANSWER_ALLOWED


def test_too_many_questions_wait(start):
    sidecar = start(questions_per_s=1)
    with Raw(sidecar.address) as raw:
        opened(raw, "s1")
        answers = [asked(raw, "s1", "read_file") for _ in range(15)]
        assert answers[0].answer == pb.ANSWER_ALLOWED
        assert (answers[-1].answer, answers[-1].judged) == (pb.ANSWER_WAIT, False)
        assert 0 < answers[-1].retry_after_ms <= 1000


def test_too_many_new_sessions_are_refused_and_known_ones_are_not(start):
    sidecar = start(sessions_per_s=1)
    with Raw(sidecar.address) as raw:
        bodies = [pb.OpenSessionRequest(session_id=f"s{n}").SerializeToString() for n in range(15)]
        codes = [raw.code("AgentService.OpenSession", body) for body in bodies]
        assert (codes[0], codes[-1]) == ("OK", "RESOURCE_EXHAUSTED")
        assert raw.code("AgentService.OpenSession", bodies[0]) == "OK"


def test_other_calls_have_a_rate_of_their_own(start):
    sidecar = start(questions_per_s=1)
    report = pb.ReportOutcomeRequest(session_id="s1", call_id="c").SerializeToString()
    with Raw(sidecar.address) as raw:
        opened(raw, "s1")
        codes = [raw.code("AgentService.ReportOutcome", report) for _ in range(15)]
        assert (codes[0], codes[-1]) == ("OK", "RESOURCE_EXHAUSTED")
        assert asked(raw, "s1").answer == pb.ANSWER_ALLOWED


def test_only_so_many_calls_of_a_credential_wait(start, soon):
    sidecar = start(waits=2)
    with Raw(sidecar.address) as raw, sidecar.people() as people:
        opened(raw, "s1")
        decision_id = asked(raw, "s1", arguments={"trip": "hold"}).decision_id
        request = pb.AwaitDecisionRequest(decision_id=decision_id, timeout_ms=20_000)
        waiting = [soon(raw.call, "AgentService.AwaitDecision", request, pb.AwaitDecisionResponse) for _ in range(2)]
        sidecar.wait(lambda: sidecar.agents._waiting["local"] == 2)
        third = raw.call("AgentService.AwaitDecision", request, pb.AwaitDecisionResponse, 5)
        assert third.answer == pb.ANSWER_WAIT  # at once: it did not wait
        body = pb.AuthorizeRequest(session_id="s1", tool="t").SerializeToString()
        assert raw.code("AgentService.AuthorizeStream", body, streams=(True, True)) == "RESOURCE_EXHAUSTED"
        people.decide(decision_id, approve=True, reason="fine")
        assert [each.result(10).answer for each in waiting] == [pb.ANSWER_ALLOWED] * 2
        assert not sidecar.agents._waiting


def test_session_waits_for_one_review_at_a_time(running, raw):
    opened(raw, "s1")
    opened(raw, "c1", parent_session_id="s1")

    def escalate(session, request_id):
        request = pb.EscalateRequest(session_id=session, reason="look", request_id=request_id)
        return raw.call("AgentService.Escalate", request, pb.EscalateResponse)

    first = escalate("s1", "r1")
    assert (first.state.state, first.state.epoch) == (pb.RUN_STATE_PAUSED, 1)
    assert escalate("s1", "r1") == escalate("s1", "r2") == first
    child = escalate("c1", "r1")
    assert child.decision_id != first.decision_id
    assert len(running.service.approvals) == 2


# ------------------------------------------------------------ on a stream, and in the inbox


def test_answers_on_a_stream_come_in_the_order_of_the_questions(raw):
    opened(raw, "s1")
    questions = [
        pb.AuthorizeRequest(session_id="s1", tool=tool, arguments_json=f'{{"n":{n}}}', call_id=f"c{n}")
        for n, tool in enumerate(["read_file", "send_email", "read_file", "send_email"])
    ]
    stream = raw.both("AgentService.AuthorizeStream", iter([q.SerializeToString() for q in questions]))
    answers = [pb.AuthorizeResponse.FromString(body) for body in stream]
    assert [(a.call_id, a.answer) for a in answers] == [(f"c{n}", pb.ANSWER_ALLOWED) for n in range(4)]


def test_malformed_question_ends_its_stream(raw):
    assert raw.code("AgentService.AuthorizeStream", b"\xff\xff", streams=(True, True)) == "INVALID_ARGUMENT"


def test_question_is_a_row_of_the_inbox_and_can_be_read_again(running, raw):
    opened(raw, "s1")
    for tool in ("read_file", "send_email", "read_file"):
        asked(raw, "s1", tool, {"n": tool}, carried=[trace(1).SerializeToString()])
    running.loop.run(running.service.close())
    rows = [row for _, row in running.telemetry.read(0) if row.kind == "asked"]
    questions = [read_question(row.body, row.speaker, row.arrived_ns) for row in rows]
    assert [q.asked.tool for q in questions] == ["read_file", "send_email", "read_file"]
    assert all((q.speaker, q.asked.session, len(q.carried)) == (LOCAL, KEY, 1) for q in questions)


def test_outcomes_of_irreversible_acts_are_on_record_once(running, raw):
    opened(raw, "s1")
    asked(raw, "s1", call_id="c1")
    asked(raw, "s1", "read_file", call_id="c2")
    for call, tool in (("c1", "send_email"), ("c1", "send_email"), ("c2", "read_file"), ("never", "send_email")):
        report = pb.ReportOutcomeRequest(session_id="s1", call_id=call, tool=tool, failed=True)
        raw.call("AgentService.ReportOutcome", report, pb.ReportOutcomeResponse)
    outcomes = [json.loads(r.detail_json) for r in running.audit() if r.action == "outcome"]
    assert outcomes == [{"call": "c1", "tool": "send_email", "failed": True, "ungated": False}]
