"""What is believed of a session's run state: tables, and a model over any order of messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.agent.roster import MAX_CLOSED, Roster
from sidecar.control.v1 import control_pb2 as pb

RUNNING, PAUSED, TERMINATED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_TERMINATED


def state(state, epoch, session_id="s", pause_id=""):
    return pb.SessionState(session_id=session_id, state=state, epoch=epoch, pause_id=pause_id)


def roster(*states, lease_s=3.0, now=0.0):
    made = Roster(lease_s)
    made.open("s")
    made.renew(now)
    for one in states:
        made.learn(one, watched=True)
    return made


def condition(made, now=0.0):
    return made.posture("s", now).condition


def test_session_starts_on_hold():
    assert condition(roster()) == "hold"
    assert condition(roster(state(RUNNING, 1))) == "running"


def test_equal_epoch_may_tighten_and_never_loosen():
    made = roster(state(RUNNING, 4), state(PAUSED, 4))
    assert condition(made) == "paused"
    made.learn(state(RUNNING, 4), watched=True)
    assert condition(made) == "paused"


def test_state_that_is_unknown_holds():
    """A newer sidecar may know states that this library does not."""
    assert condition(roster(state(RUNNING, 1), state(7, 2))) == "paused"
    assert not roster(state(7, 2)).begin("s", "c", None)


def test_unspecified_state_says_nothing():
    assert condition(roster(state(RUNNING, 1), state(pb.RUN_STATE_UNSPECIFIED, 9))) == "running"


def test_answer_at_the_gate_does_not_end_hold():
    made = roster(state(RUNNING, 1))
    made.lose(1.0)
    made.renew(1.0)
    made.learn(state(RUNNING, 1), watched=False)
    assert condition(made, 1.0) == "hold"
    made.learn(state(RUNNING, 1), watched=True)
    assert condition(made, 1.0) == "running"


def test_lease_runs_out_by_the_clock_alone():
    made = roster(state(RUNNING, 1), lease_s=3.0)
    assert condition(made, 3.0) == "running"
    assert condition(made, 3.1) == "hold"


def test_heartbeat_after_the_lease_does_not_end_hold():
    made = roster(state(RUNNING, 1), lease_s=3.0)
    assert made.renew(2.9)
    assert condition(made, 5.0) == "running"
    assert not made.renew(9.0)
    assert condition(made, 9.0) == "hold"
    made.learn(state(RUNNING, 1), watched=True)
    assert condition(made, 9.0) == "running"


def test_lease_follows_the_server_within_bounds():
    made = roster()
    made.renew(0.0, lease_ms=1)
    assert made.lease_s == 0.3
    made.renew(0.0, lease_ms=5000)
    assert made.lease_s == 5.0
    made.renew(0.0, lease_ms=3_600_000)
    assert made.lease_s == 10.0


def test_remembered_epoch_counts():
    made = Roster(3.0)
    made.open("s", state(PAUSED, 5, pause_id="p"))
    made.renew(0.0)
    made.learn(state(RUNNING, 4), watched=True)
    assert condition(made) == "paused"
    made.learn(state(RUNNING, 6), watched=True)
    assert condition(made) == "running"


def test_last_look_refuses_what_a_pause_overtook():
    made = roster(state(RUNNING, 1))
    assert made.begin("s", "c1", 1)
    made.learn(state(PAUSED, 2), watched=True)
    assert not made.begin("s", "c2", 1)
    assert not made.begin("s", "c2", 2)
    made.learn(state(RUNNING, 3), watched=True)
    assert not made.begin("s", "c2", 1)
    assert made.begin("s", "c2", 3)


def test_same_call_twice_in_flight_is_counted():
    made = roster(state(RUNNING, 1))
    made.begin("s", "c", None)
    made.begin("s", "c", None)
    made.learn(state(PAUSED, 2), watched=True)
    assert made.end("s", "c") == []
    [quiesced] = made.end("s", "c")
    assert quiesced.observed == pb.OBSERVED_QUIESCED


def test_closed_sessions_are_forgotten_beyond_the_bound():
    made = Roster(3.0)
    for n in range(MAX_CLOSED + 50):
        made.open(f"s{n}")
        made.close(f"s{n}")
    assert len(made._standings) == MAX_CLOSED


def test_session_opened_twice_stays_until_both_are_closed():
    made = roster(state(RUNNING, 1))
    made.open("s")
    made.close("s")
    assert [known.session_id for known in made.known()] == ["s"]
    made.close("s")
    assert made.known() == []


MESSAGES = st.lists(
    st.one_of(
        st.tuples(
            st.just("state"), st.sampled_from([0, RUNNING, PAUSED, TERMINATED, 9]), st.integers(0, 6), st.booleans()
        ),
        st.tuples(st.just("begin"), st.integers(0, 3), st.none() | st.integers(0, 6)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("lose")),
        st.tuples(st.just("renew")),
    ),
    max_size=40,
)


@given(MESSAGES)
def test_no_order_of_messages_breaks_the_model(messages):
    """Epochs never fall, the end is final, nothing begins while held, and QUIESCED is said only of what is quiet."""
    made = Roster(3.0)
    made.open("s")
    now, epoch, ended, flying = 0.0, 0, False, []
    for message in messages:
        now += 1.0
        said = []
        if message[0] == "state":
            _, told, at, watched = message
            _, said = made.learn(state(told, at), watched=watched)
        elif message[0] == "begin":
            before = condition(made, now)
            if made.begin("s", f"c{message[1]}", message[2]):
                assert before not in ("paused", "terminated")
                assert message[2] is None or message[2] >= epoch
                flying.append(f"c{message[1]}")
        elif message[0] == "end" and f"c{message[1]}" in flying:
            flying.remove(f"c{message[1]}")
            said = made.end("s", f"c{message[1]}")
        elif message[0] == "lose":
            made.lose(now)
            assert condition(made, now) != "running"
        elif message[0] == "renew":
            made.renew(now)
        posture = made.posture("s", now)
        assert posture.epoch >= epoch
        assert not ended or posture.condition == "terminated"
        epoch, ended = posture.epoch, posture.condition == "terminated"
        for acknowledgement in said:
            assert acknowledgement.epoch == epoch
            assert acknowledgement.observed != pb.OBSERVED_QUIESCED or not flying
            assert set(acknowledgement.in_flight) == set(flying)
