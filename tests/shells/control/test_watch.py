"""Watch: the latest state of each session, soon, to the newest streams; and what a client says of itself."""

from __future__ import annotations

import asyncio
import queue
import threading
import time

import grpc
import pytest

from sidecar.control import agents as agents_module
from sidecar.control import watch
from sidecar.control.client import session as one
from sidecar.control.v1 import control_pb2 as pb
from sidecar.control.watch import Watches
from sidecar.core.commands import Cause
from sidecar.core.events import SessionKey
from tests.shells.control.kit import Raw, asked, opened, write_tokens


class Watcher:
    """A Watch stream that is read in a thread."""

    def __init__(self, raw, instance="i1", known=(), dropped=0) -> None:
        self._to_send: queue.SimpleQueue = queue.SimpleQueue()
        self.heard: queue.SimpleQueue = queue.SimpleQueue()
        self.ended = threading.Event()
        self.error = None
        self.instance = instance
        self.say(known, dropped)
        self._call = raw.both("AgentService.Watch", iter(self._to_send.get, None), timeout_s=60)
        threading.Thread(target=self._read, daemon=True).start()

    def say(self, known=(), dropped=0, instance=None):
        request = pb.WatchRequest(instance_id=instance or self.instance, known=known, dropped_spans=dropped)
        self._to_send.put(request.SerializeToString())

    def _read(self):
        try:
            for body in self._call:
                self.heard.put(pb.WatchResponse.FromString(body))
        except grpc.RpcError as error:
            self.error = error
        self.ended.set()

    def state(self, session_id, timeout_s=10.0):
        """The next state told of a session."""
        while True:
            for state in self.heard.get(timeout=timeout_s).states:
                if state.session_id == session_id:
                    return state

    def heartbeat(self):
        while self.heard.get(timeout=10).states:
            pass

    def half_close(self):
        self._to_send.put(None)

    def close(self):
        self._call.cancel()
        self._to_send.put(None)


@pytest.fixture
def watching():
    watchers = []

    def watching(*args, **fields):
        watchers.append(Watcher(*args, **fields))
        return watchers[-1]

    yield watching
    for each in watchers:
        each.close()


def test_state_of_an_open_session_is_told_at_once_and_when_it_changes(raw, people, watching):
    opened(raw, "s1", instance_id="i1")
    stream = watching(raw)
    first = stream.state("s1")
    assert (first.state, first.epoch, first.pause_id) == (pb.RUN_STATE_RUNNING, 0, "")
    [paused] = people.pause(one("s1"), "wait")
    told = stream.state("s1")
    assert (told.state, told.epoch, told.pause_id) == (pb.RUN_STATE_PAUSED, 1, paused.pause_id)
    people.resume(one("s1"), "go on", pause_id=paused.pause_id, epoch=paused.epoch)
    told = stream.state("s1")
    assert (told.state, told.epoch, told.pause_id) == (pb.RUN_STATE_RUNNING, 2, "")


def test_session_opened_later_or_named_by_the_client_is_watched(raw, people, watching):
    opened(raw, "other")  # by a process that named none
    stream = watching(raw, known=[pb.SessionState(session_id="other")])
    assert stream.state("other").state == pb.RUN_STATE_RUNNING
    opened(raw, "later", instance_id="i1")
    people.pause(one("later"), "wait")
    assert stream.state("later").state == pb.RUN_STATE_PAUSED
    opened(raw, "asked")
    asked(raw, "asked", instance_id="i1")
    people.pause(one("asked"), "wait")
    assert stream.state("asked").state == pb.RUN_STATE_PAUSED


def test_another_instance_is_told_nothing(raw, people, watching):
    opened(raw, "s1", instance_id="i1")
    stream = watching(raw, "i2")
    people.pause(one("s1"), "wait")
    stream.heartbeat()
    stream.heartbeat()


def test_session_of_another_realm_cannot_be_watched(start, tmp_path, watching):
    file = tmp_path / "tokens.yaml"
    tokens = write_tokens(file, ann={"role": "agent"}, bob={"role": "agent"})
    sidecar = start(credentials={"file": file}, lease=0.3)
    with Raw(sidecar.address, tokens["ann"]) as ann, Raw(sidecar.address, tokens["bob"]) as bob:
        opened(ann, "s1", instance_id="i1")
        stream = watching(bob, "i1", [pb.SessionState(session_id="s1")])
        with sidecar.people() as people:
            people.pause(one("s1"), "wait")
        for _ in range(3):
            assert not stream.heard.get(timeout=10).states


def test_heartbeats_come_and_name_the_lease(start, watching):
    sidecar = start(lease=0.6)
    with Raw(sidecar.address) as raw:
        stream = watching(raw)
        assert stream.heard.get(timeout=10).lease_ms == 600
        for _ in range(5):
            stream.heartbeat()


def test_only_the_latest_state_is_told(running, raw, people, watching):
    """Level-triggered: what changed while nobody could be told is told as it is now."""
    opened(raw, "s1", instance_id="i1")
    stream = watching(raw)
    stream.state("s1")

    def pause_often():
        for number in range(50):
            cause = Cause(f"p{number}", "policy", "test", "again", time.time_ns())
            running.service.settle(running.service.pipeline.pause(SessionKey("local", "s1"), cause, time.time_ns()))

    running.loop.call(pause_often)
    assert stream.state("s1").epoch == 50


def test_newest_two_streams_of_an_instance_stay(running, raw, watching):
    opened(raw, "s1", instance_id="i1")
    streams = []
    for _ in range(5):
        streams.append(watching(raw))
        streams[-1].state("s1")
    for old in streams[:3]:
        assert old.ended.wait(10)
        assert old.error.code() is grpc.StatusCode.ABORTED
    assert not any(new.ended.is_set() for new in streams[3:])
    assert running.agents.streams == 2


def test_newest_streams_of_a_credential_stay(start, watching):
    sidecar = start(streams=3)
    with Raw(sidecar.address) as raw:
        streams = []
        for number in range(5):
            streams.append(watching(raw, f"i{number}"))
            streams[-1].heard.get(timeout=10)
        assert [stream.ended.wait(10) for stream in streams[:2]] == [True, True]
        assert not any(stream.ended.is_set() for stream in streams[2:])


def test_500_streams_of_one_instance_do_not_stop_the_gate(running, raw, watching):
    opened(raw, "s1", instance_id="i1")
    request = pb.WatchRequest(instance_id="i1").SerializeToString()
    going = threading.Event()

    def once():
        yield request
        going.wait(30)

    calls = [raw.both("AgentService.Watch", once()) for _ in range(500)]
    try:
        assert asked(raw, "s1").answer == pb.ANSWER_ALLOWED
        running.wait(lambda: running.agents.streams == 2)
        assert asked(raw, "s1").answer == pb.ANSWER_ALLOWED
    finally:
        going.set()
        for call in calls:
            call.cancel()


def test_client_that_does_not_read_costs_no_memory_and_is_closed(start, monkeypatch):
    monkeypatch.setattr(agents_module, "PATIENCE_LEASES", 0.5)
    sidecar = start(lease=0.3)
    with Raw(sidecar.address) as raw:
        names = [f"s{number:04d}{'x' * 120}" for number in range(200)]
        for name in names:
            opened(raw, name, instance_id="i1")
        go_on = threading.Event()

        def sent():
            yield pb.WatchRequest(instance_id="i1").SerializeToString()
            go_on.wait(30)

        call = raw.both("AgentService.Watch", sent(), timeout_s=60)  # never read
        sidecar.wait(lambda: sidecar.agents.streams)
        [stream] = next(iter(sidecar.agents._watches._open.values()))

        def change_all():
            for name in names:
                stream.note(name)
            return len(stream._untold) <= len(names) and sidecar.agents.streams == 0

        try:
            sidecar.wait(change_all, 60)
        finally:
            go_on.set()
            call.cancel()


def test_half_closed_stream_is_still_told(raw, people, watching):
    opened(raw, "s1", instance_id="i1")
    stream = watching(raw)
    stream.state("s1")
    stream.half_close()
    people.pause(one("s1"), "wait")
    assert stream.state("s1").state == pb.RUN_STATE_PAUSED


@pytest.mark.parametrize(
    "request_",
    [
        pb.WatchRequest(),
        pb.WatchRequest(instance_id="a b"),
        pb.WatchRequest(instance_id="i1", known=[pb.SessionState(session_id="../x")]),
        pb.WatchRequest(instance_id="i1", known=[pb.SessionState(session_id="s1", state=77)]),
        pb.WatchRequest(instance_id="i1", known=[pb.SessionState(session_id="s1", epoch=2**64 - 1)]),
        pb.WatchRequest(instance_id="i1", known=[pb.SessionState(session_id="s1")] * 5000),
    ],
    ids=["no instance", "odd instance", "odd session", "unknown state", "epoch out of range", "too many"],
)
def test_words_of_odd_form_end_the_stream(raw, request_):
    body = request_.SerializeToString()
    assert raw.code("AgentService.Watch", body, streams=(True, True)) == "INVALID_ARGUMENT"


def test_odd_words_later_on_end_the_stream(raw, watching):
    stream = watching(raw)
    stream.heard.get(timeout=10)
    stream.say(instance="another")
    assert stream.ended.wait(10)
    assert stream.error.code() is grpc.StatusCode.INVALID_ARGUMENT


# ------------------------------------------------------------ what the client knows


@pytest.mark.parametrize("state", [pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_TERMINATED])
def test_client_that_knows_a_later_state_is_believed_as_paused(raw, people, watching, state):
    opened(raw, "s1", instance_id="i1")
    stream = watching(raw, known=[pb.SessionState(session_id="s1", state=state, epoch=7, pause_id="lost")])
    told = stream.state("s1")
    assert (told.state, told.epoch) == (pb.RUN_STATE_PAUSED, 8)
    [held] = people.sessions(session_id="s1")
    assert (held.causes[0].by, held.causes[0].actor) == ("policy", "sidecar")
    people.resume(one("s1"), "looked", pause_id=held.pause_id, epoch=held.epoch)
    assert stream.state("s1").epoch == 9


def test_client_that_knows_a_later_state_of_a_session_yet_to_be_opened_is_believed(raw, watching):
    stream = watching(raw, known=[pb.SessionState(session_id="s1", state=pb.RUN_STATE_RUNNING, epoch=7)])
    stream.heard.get(timeout=10)
    answer = opened(raw, "s1", instance_id="i1")
    assert (answer.state.state, answer.state.epoch) == (pb.RUN_STATE_PAUSED, 8)


def test_client_cannot_resume_by_claiming_to_run(raw, people, watching):
    opened(raw, "s1", instance_id="i1")
    [paused] = people.pause(one("s1"), "wait")
    stream = watching(raw, known=[pb.SessionState(session_id="s1", state=pb.RUN_STATE_RUNNING, epoch=paused.epoch)])
    assert stream.state("s1").state == pb.RUN_STATE_PAUSED
    stream.say([pb.SessionState(session_id="s1", state=pb.RUN_STATE_RUNNING, epoch=paused.epoch + 5)])
    assert stream.state("s1").state == pb.RUN_STATE_PAUSED
    assert asked(raw, "s1").answer == pb.ANSWER_PAUSED


def test_spans_that_the_client_lost_are_counted_and_marked(running, raw, people, watching):
    opened(raw, "s1", instance_id="i1")
    stream = watching(raw, dropped=3)
    stream.state("s1")
    stream.say(dropped=5)
    stream.say(dropped=5)
    running.wait(lambda: running.tally.seen["dropped_spans",] == 5)
    assert list(people.sessions(session_id="s1")[0].unscored) == ["dropped"]


# ------------------------------------------------------------ acknowledging


def acknowledge(raw, observed, epoch=1, in_flight=()):
    request = pb.AcknowledgeRequest(session_id="s1", epoch=epoch, observed=observed, in_flight=in_flight)
    return raw.code("AgentService.Acknowledge", request.SerializeToString())


def test_pause_is_followed_step_by_step(running, raw, people, watching):
    opened(raw, "s1", instance_id="i1")
    watching(raw).state("s1")

    def observed():
        return people.sessions(session_id="s1")[0].observed

    people.pause(one("s1"), "wait")
    assert observed() == pb.OBSERVED_REQUESTED
    assert acknowledge(raw, pb.OBSERVED_ACKNOWLEDGED, epoch=0) == "OK"  # of an older state: nothing is heard
    assert observed() == pb.OBSERVED_REQUESTED
    assert acknowledge(raw, pb.OBSERVED_ACKNOWLEDGED, in_flight=["c1"]) == "OK"
    assert observed() == pb.OBSERVED_ACKNOWLEDGED
    assert list(people.sessions(session_id="s1")[0].in_flight) == ["c1"]
    assert acknowledge(raw, pb.OBSERVED_QUIESCED) == "OK"
    assert observed() == pb.OBSERVED_QUIESCED
    assert acknowledge(raw, pb.OBSERVED_RUNNING) == "OK"
    assert observed() == pb.OBSERVED_QUIESCED
    assert running.tally.seen["confirmed",] == 1


@pytest.mark.parametrize("observed", [0, pb.OBSERVED_REQUESTED, pb.OBSERVED_UNCONFIRMED, pb.OBSERVED_UNENFORCED, 77])
def test_agent_cannot_say_what_is_ours_to_conclude(raw, observed):
    opened(raw, "s1")
    request = pb.AcknowledgeRequest(session_id="s1", observed=observed)
    assert raw.code("AgentService.Acknowledge", request.SerializeToString()) == "INVALID_ARGUMENT"


def test_pause_of_a_session_without_a_process_is_unenforced_until_somebody_acknowledges(raw, people):
    opened(raw, "s1")  # by a process that named none
    [paused] = people.pause(one("s1"), "wait")
    assert paused.observed == pb.OBSERVED_UNENFORCED
    assert acknowledge(raw, pb.OBSERVED_QUIESCED) == "OK"
    assert people.sessions(session_id="s1")[0].observed == pb.OBSERVED_QUIESCED


# ------------------------------------------------------------ bounds


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_process_counts_as_there_with_a_stream_or_for_a_while_after_it_was_heard():
    async def run():
        clock = Clock()
        watches = Watches(streams=10, present_s=6.0, monotonic_s=clock)
        key = SessionKey("local", "s1")
        assert not watches.is_present(key)
        instance = watches.heard("local", "i1")
        watches.attend(instance, "s1", key)
        assert watches.is_present(key)
        stream = watches.open(instance)
        clock.now_s = 100.0
        assert watches.is_present(key)
        watches.end(stream)
        assert not watches.is_present(key)
        watches.heard("local", "i1")
        assert watches.is_present(key)

    asyncio.run(run())


def test_processes_and_sessions_are_forgotten_beyond_their_number(monkeypatch):
    monkeypatch.setattr(watch, "MAX_INSTANCES", 10)
    monkeypatch.setattr(watch, "MAX_SESSIONS", 5)

    async def run():
        watches = Watches(streams=100, present_s=6.0, monotonic_s=Clock())
        kept = watches.heard("local", "kept")
        watches.open(kept)
        for number in range(50):
            instance = watches.heard("local", f"i{number}")
            for each in range(20):
                watches.attend(instance, f"s{each}", SessionKey("local", f"s{each}"))
        assert len(watches._instances) == 10
        assert ("local", "kept") in watches._instances
        assert sorted(watches._watching) == [SessionKey("local", f"s{n}") for n in range(15, 20)]
        assert all(len(names) == 9 for names in watches._watching.values())

    asyncio.run(run())
