"""The Watch stream: pauses and acknowledgements, epochs, the lease, and coming back."""

from __future__ import annotations

import threading

import pytest

import sidecar.agent as sidecar
from sidecar.control.v1 import control_pb2 as pb
from sidecar.testing import FakeSidecar
from tests.agent.test_gate import never


def acknowledgements(fake, epoch):
    return [pb.Observed.Name(a.observed)[9:].lower() for a in fake.acknowledged if a.epoch == epoch]


def test_pause_of_an_idle_session_is_acknowledged_and_quiesced(kind, fake):
    session = kind.open(kind.connect())
    pause = fake.pause(session.id)
    fake.until(lambda: len(acknowledgements(fake, pause.epoch)) == 2)
    assert acknowledgements(fake, pause.epoch) == ["acknowledged", "quiesced"]


def test_act_that_runs_when_the_pause_comes_is_reported_in_flight_and_quiesced_at_its_end(kind, fake):
    session = kind.open(kind.connect())
    running, finish = threading.Event(), threading.Event()

    def body():
        running.set()
        assert finish.wait(10)
        return "sent"

    act = kind.soon(kind.act, session, "send_mail", body, call_id="call-7")
    assert running.wait(10)
    pause = fake.pause(session.id)
    [acknowledged] = fake.until(lambda: fake.acknowledged)
    assert (acknowledged.epoch, acknowledged.observed) == (pause.epoch, pb.OBSERVED_ACKNOWLEDGED)
    assert list(acknowledged.in_flight) == ["call-7"]
    assert session.state == "paused"
    finish.set()
    assert act.result(10) == "sent"
    fake.until(lambda: acknowledgements(fake, pause.epoch) == ["acknowledged", "quiesced"])
    assert [outcome.call_id for outcome in fake.outcomes] == ["call-7"]


def test_resume_is_acknowledged(kind, fake):
    session = kind.open(kind.connect())
    fake.pause(session.id)
    fake.until(lambda: fake.acknowledged)
    resume = fake.resume(session.id)
    fake.until(lambda: acknowledgements(fake, resume.epoch) == ["running"])


def test_pause_that_is_told_again_is_acknowledged_again(plain, fake):
    session = plain.open(plain.connect())
    pause = fake.pause(session.id)
    fake.until(lambda: len(acknowledgements(fake, pause.epoch)) == 2)
    fake.say(session.id, pb.RUN_STATE_PAUSED, epoch=pause.epoch, pause_id=pause.pause_id)
    fake.until(lambda: len(acknowledgements(fake, pause.epoch)) == 4)


def test_pause_of_a_session_that_has_closed_is_acknowledged(plain, fake):
    agent = plain.connect()
    with agent.session() as session:
        plain.act(session, "send_mail")
    pause = fake.pause(session.id)
    fake.until(lambda: acknowledgements(fake, pause.epoch) == ["acknowledged", "quiesced"])


def test_lower_epoch_is_ignored(kind, fake):
    session = kind.open(kind.connect(on_pause="raise"))
    fake.pause(session.id)
    pause = fake.pause(session.id)
    fake.until(lambda: acknowledgements(fake, pause.epoch))
    fake.say(session.id, pb.RUN_STATE_RUNNING, epoch=pause.epoch - 1)
    other = kind.open(kind.connect())  # its state comes by the same road, after the lower epoch was sent
    kind.act(other, "send_mail")
    with pytest.raises(sidecar.SessionPaused):
        kind.act(session, "send_mail", never)
    fake.say(session.id, pb.RUN_STATE_RUNNING, epoch=pause.epoch + 1)
    fake.until(lambda: acknowledgements(fake, pause.epoch + 1) == ["running"])
    assert kind.act(session, "send_mail") == "done"


def test_one_stream_serves_all_sessions_of_a_client(plain, fake):
    agent = plain.connect()
    first, second = plain.open(agent), plain.open(agent)
    plain.act(first, "send_mail")
    pauses = [fake.pause(first.id), fake.pause(second.id)]
    fake.until(lambda: {a.session_id for a in fake.acknowledged} == {first.id, second.id})
    assert sum(method == "Watch" for method, _ in fake.metadata) == 1
    assert pauses[0].epoch == pauses[1].epoch == 2


def test_pause_reaches_only_its_session(plain, fake):
    agent = plain.connect(on_pause="raise")
    paused, other = plain.open(agent), plain.open(agent)
    fake.pause(paused.id)
    fake.until(lambda: fake.acknowledged)
    assert plain.act(other, "send_mail") == "done"
    with pytest.raises(sidecar.SessionPaused):
        plain.act(paused, "send_mail", never)


# ---------------------------------------------------------------- lease and reconnection


def test_lost_lease_puts_the_session_on_hold_until_its_state_is_told(kind, fake):
    """Half-open: the stream lives and questions would be answered, but no heartbeat comes."""
    session = kind.open(kind.connect(lease_s=0.3))
    kind.act(session, "send_mail")
    fake.heartbeats = False
    fake.takes_streams = False
    fake.until(lambda: session.state == "hold")
    asked = len(fake.asked)
    with pytest.raises(sidecar.SidecarUnavailable, match="on hold"):
        kind.act(session, "send_mail", never)
    assert len(fake.asked) == asked
    assert kind.act(session, "read_mail", reversible=True) == "done"
    fake.heartbeats = fake.takes_streams = True
    fake.until(lambda: session.state == "running")
    assert kind.act(session, "send_mail") == "done"


def test_half_open_stream_is_replaced(plain, fake):
    session = plain.open(plain.connect(lease_s=0.3))
    plain.act(session, "send_mail")
    fake.heartbeats = False
    fake.until(lambda: sum(method == "Watch" for method, _ in fake.metadata) >= 2)
    fake.heartbeats = True
    fake.until(lambda: session.state == "running")


def test_reconnection_starts_on_hold(kind, fake):
    session = kind.open(kind.connect())
    kind.act(session, "send_mail")
    fake.until(lambda: fake.watched)
    fake.takes_streams = False
    fake.drop_streams()
    fake.until(lambda: session.state == "hold")
    with pytest.raises(sidecar.SidecarUnavailable, match="on hold"):
        kind.act(session, "send_mail", never)
    fake.takes_streams = True
    fake.until(lambda: session.state == "running")
    assert kind.act(session, "send_mail") == "done"


def test_reconnection_names_the_epochs_that_are_known(plain, fake):
    session = plain.open(plain.connect())
    pause = fake.pause(session.id)
    fake.until(lambda: acknowledgements(fake, pause.epoch))
    fake.drop_streams()
    [known] = fake.until(lambda: [known for request in fake.watched for known in request.known if known.epoch == 2])
    assert (known.session_id, known.state, known.pause_id) == (session.id, pb.RUN_STATE_PAUSED, pause.pause_id)


def test_pause_during_an_outage_is_found_on_return(kind, fake):
    session = kind.open(kind.connect(on_pause="raise"))
    kind.act(session, "send_mail")
    fake.stop()
    pause = fake.pause(session.id)
    fake.start()
    fake.until(lambda: acknowledgements(fake, pause.epoch))
    with pytest.raises(sidecar.SessionPaused):
        kind.act(session, "send_mail", never)


def test_session_that_a_new_sidecar_does_not_know_is_named_to_it(kind, fake):
    session = kind.open(kind.connect(lease_s=0.3))
    kind.act(session, "send_mail")
    fake.stop()
    fake.until(lambda: session.state == "hold")
    fake.forget()
    opened = len(fake.opened)
    fake.start()
    fake.until(lambda: session.state == "running")
    assert len(fake.opened) > opened
    assert kind.act(session, "send_mail") == "done"


def test_short_stall_costs_no_pause_and_ends_by_itself(kind, fake):
    session = kind.open(kind.connect(lease_s=0.3, deadline_s=0.1))
    kind.act(session, "send_mail")
    fake.stall()
    fake.until(lambda: session.state == "hold")
    with pytest.raises(sidecar.SidecarUnavailable):
        kind.act(session, "send_mail", never)
    fake.go()
    fake.until(lambda: session.state == "running")
    assert kind.act(session, "send_mail") == "done"
    assert not fake.acknowledged


def test_client_reports_the_spans_it_dropped(plain, fake):
    agent = plain.connect(lease_s=0.3)
    session = plain.open(agent)
    fake.rejects_spans = 1
    plain.act(session, "send_mail")
    fake.until(lambda: fake.exports)
    fake.until(lambda: any(request.dropped_spans for request in fake.watched))
    assert agent.dropped_spans >= 1


# ---------------------------------------------------------------- what survives a restart


def test_pause_survives_a_restart_of_the_client(kind, fake, tmp_path):
    agent = kind.connect(state_dir=str(tmp_path / "state"))
    session = kind.open(agent, "conversation-1")
    pause = fake.pause(session.id)
    fake.until(lambda: acknowledgements(fake, pause.epoch))
    kind.wait(agent.close())
    with FakeSidecar() as forgetful:  # its states start at epoch 1, running
        again = kind.connect(
            control=forgetful.address, otlp=forgetful.address, state_dir=str(tmp_path / "state"), on_pause="raise"
        )
        session = kind.open(again, "conversation-1")
        with pytest.raises(sidecar.SessionPaused) as refusal:
            kind.act(session, "send_mail", never)
        assert refusal.value.decision_id == pause.pause_id
        [known] = forgetful.until(lambda: [known for request in forgetful.watched for known in request.known])
        assert (known.epoch, known.state) == (pause.epoch, pb.RUN_STATE_PAUSED)
        kind.wait(again.close())


def test_restart_without_the_sidecar_stays_paused(plain, fake, tmp_path):
    agent = plain.connect(state_dir=str(tmp_path))
    session = plain.open(agent, "conversation-1")
    fake.pause(session.id)
    fake.until(lambda: fake.acknowledged)
    agent.close()
    fake.stop()
    again = plain.connect(state_dir=str(tmp_path), on_pause="raise")
    with pytest.raises(sidecar.SessionPaused):
        plain.act(plain.open(again, "conversation-1"), "read_mail", never, reversible=True)


def test_damaged_state_file_leaves_the_session_on_hold_until_the_sidecar_speaks(plain, fake, tmp_path):
    agent = plain.connect(state_dir=str(tmp_path))
    session = plain.open(agent, "conversation-1")
    fake.pause(session.id)
    fake.until(lambda: fake.acknowledged)
    agent.close()
    [kept] = tmp_path.glob("*.json")
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_bytes(b'{"epoch": ')
    again = plain.connect(state_dir=str(tmp_path), on_pause="raise")
    with pytest.raises(sidecar.SessionPaused):
        plain.act(plain.open(again, "conversation-1"), "send_mail", never)


# ---------------------------------------------------------------- many at once


def test_many_threads_share_a_session_and_none_acts_after_the_pause(plain, fake):
    session = plain.open(plain.connect(on_pause="raise"))
    runs: list[bool] = []  # whether each began after the pause was acknowledged
    acknowledged = threading.Event()

    def loop():
        for _ in range(200):
            before = acknowledged.is_set()
            try:
                plain.act(session, "send_mail", lambda late=before: runs.append(late))
            except sidecar.SessionPaused:
                return "paused"
        return "never paused"

    loops = [plain.soon(loop) for _ in range(8)]
    fake.until(lambda: len(fake.asked) > 20)
    fake.pause(session.id)
    fake.until(lambda: fake.acknowledged)
    acknowledged.set()
    assert {one.result(30) for one in loops} == {"paused"}
    assert runs
    assert not any(runs)
    fake.until(lambda: acknowledgements(fake, 2)[-1] == "quiesced")
    fake.until(lambda: len(fake.outcomes) == len(runs))


async def test_many_tasks_share_a_session(fake):
    import asyncio

    from opentelemetry.sdk.trace import TracerProvider

    from sidecar.agent import aio

    async with aio.connect("many", control=fake.address, otlp=fake.address, tracer_provider=TracerProvider()) as agent:

        @agent.tool
        async def look_up(n: int) -> int:
            await asyncio.sleep(0)
            return n * n

        async with agent.session():
            assert await asyncio.gather(*(look_up(n) for n in range(50))) == [n * n for n in range(50)]
    assert len({question.call_id for question in fake.asked}) == 50


async def test_cancelled_task_lets_go_of_its_question(fake):
    import asyncio

    from opentelemetry.sdk.trace import TracerProvider

    from sidecar.agent import aio

    fake.answers["wire_money"] = fake.held("d-1")
    options = {"control": fake.address, "otlp": fake.address, "tracer_provider": TracerProvider()}
    async with aio.connect("one", **options) as agent, agent.session() as session:
        task = asyncio.create_task(session.act("wire_money").begin())
        await asyncio.to_thread(fake.until, lambda: fake.waited_for)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(fake.until, lambda: fake.hung_up)
        async with session.act("read_mail") as act:
            act.result = 1
