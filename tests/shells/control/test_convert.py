"""What comes in is checked once, strictly; what goes out is text that every reader takes."""

from __future__ import annotations

import json
import math
import string

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.control import convert
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.alerts import Alert
from sidecar.core.commands import Cause
from sidecar.core.events import Agent, SessionKey
from sidecar.core.findings import Evidence, Finding, Severity
from sidecar.core.runstate import Run
from sidecar.core.span import LOCAL, Speaker
from sidecar.errors import ControlError
from sidecar.storage import Approval, Entry, Instant, Record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=5))
@example({"\ud800": "\udfff", "": None})
def test_objects_are_read_as_they_were_written(value):
    assert convert.arguments(json.dumps(value)) == value
    bare = json.dumps(value, ensure_ascii=False)
    if not any("\ud800" <= character <= "\udfff" for character in bare):  # else protobuf could not carry it
        assert convert.arguments(bare) == value


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet=string.printable) | st.text() | st.text(alphabet='{}[]":,0123456789eE+-.aNIfinty\\u '))
def test_what_cannot_be_read_is_an_unreadable_error_and_nothing_else(text):
    try:
        value = convert.arguments(text)
    except ValueError:
        return
    assert type(value) is dict
    assert _is_finite(value)
    assert json.loads(text or "{}") == value


def _is_finite(value):
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("depth", [1, convert.MAX_DEPTH, convert.MAX_DEPTH + 1, 5000])
def test_depth_has_a_bound(depth):
    text = '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)
    if depth <= convert.MAX_DEPTH:
        convert.arguments(text)
    else:
        with pytest.raises(ValueError, match="too deep"):
            convert.arguments(text)


def test_many_shallow_lists_are_not_deep():
    assert len(convert.arguments(json.dumps({"a": [[]] * 1000}))["a"]) == 1000


def test_size_is_counted_in_bytes():
    convert.arguments(json.dumps({"a": "é" * (convert.MAX_ARGUMENTS_BYTES // 2 - 20)}, ensure_ascii=False))
    with pytest.raises(ValueError, match="too large"):
        convert.arguments(json.dumps({"a": "é" * (convert.MAX_ARGUMENTS_BYTES // 2)}, ensure_ascii=False))


@pytest.mark.parametrize(
    "told", ["", "a/b", "..\n", "a b", "x" * 129, "é", "a\x1b[31m", "trace:" + "0" * 32, "h:" + "0" * 64, "a\0"]
)
def test_session_ids_of_odd_form_are_refused(told):
    with pytest.raises(ControlError) as refusal:
        convert.session_id(told)
    assert refusal.value.code == "INVALID_ARGUMENT"
    assert told not in str(refusal.value) or told in ("", "h:", "trace:")


@pytest.mark.parametrize("told", ["a", "x" * 128, "A.b_c:d-9", "trace", "h"])
def test_session_ids_of_good_form_are_taken(told):
    assert convert.session_id(told) == told


def test_times_that_are_absent_or_a_day_off_are_now():
    now = 1_800_000_000 * 10**9

    def at(seconds, nanos=0):
        return convert.moment_ns(Timestamp(seconds=seconds, nanos=nanos), now)

    assert at(0) == now
    assert at(1_800_000_000 - 3600, 5) == now - 3600 * 10**9 + 5
    assert at(1_800_000_000 - 86_401) == now
    assert at(1_800_000_000 + 86_401) == now
    for seconds, nanos in ((253_402_300_800, 0), (-62_135_596_801, 0), (1, -1), (1, 10**9)):
        with pytest.raises(ControlError):
            at(seconds, nanos)


def test_agent_is_whom_the_credential_names():
    told = pb.AgentIdentity(name="root", id="r-1", version="2")
    assert convert.agent(told, LOCAL) == Agent("local", "r-1", "root", "2")
    known = Speaker("agent:billing", "authenticated", "billing")
    assert convert.agent(told, known) == Agent("agent:billing", "r-1", "billing", "2")
    assert convert.agent(pb.AgentIdentity(), known) == Agent("agent:billing", "", "billing", "")


@pytest.mark.parametrize("field", ["name", "id", "version"])
def test_names_have_a_length(field):
    with pytest.raises(ControlError):
        convert.agent(pb.AgentIdentity(**{field: "x" * 257}), LOCAL)


@given(st.text())
@example("\u202egnp.exe")
@example("a\u200bb\r\n\x1b]0;x\x07\ue0001\ud800")
def test_reasons_are_one_line_that_prints(text):
    shown = convert.inert(text)
    assert shown.isprintable()
    assert convert.inert(shown) == shown


HOSTILE = "\ud800 <script> \x1b[31m"


def test_text_that_is_no_unicode_is_shown_escaped():
    """What an agent sent over OTLP/JSON may hold lone surrogates, which protobuf does not take."""
    key, agent = SessionKey("local", "s1"), Agent("local", "", HOSTILE, HOSTILE)
    finding = Finding("d", "conduct", Severity.HIGH, 1.0, HOSTILE, "e", key, agent, 1,
                      (Evidence("t:s", HOSTILE, 0, 1, HOSTILE, "x"),))  # fmt: skip
    alert = Alert("f", "d", "conduct", Severity.HIGH, key, agent, 1, 1, text=HOSTILE, findings=(finding,))
    run = Run(desired="paused", epoch=1, causes={"p": Cause("p", "detector", "d", HOSTILE, 1)}, pause_id="p")
    approval = Approval("d", key, agent, HOSTILE, b"", 1, 2, arguments=HOSTILE)
    views = [
        convert.session_view(key, run, None, agent),
        convert.alert_view(alert),
        *convert.evidence_views(alert),
        convert.approval_view(approval),
    ]
    for view in views:
        assert b"\\ud800" in view.SerializeToString()


def test_audit_records_are_shown_whole():
    entry = Entry(Instant(5, 6, "b"), "alice", "pause", "local", "s1", 7, "r", "d", "p", detail={"b": 1, "a": "x"})
    view = convert.audit_view(Record(3, entry, b"body", b"\x01\x02"))
    assert (view.seq, view.actor, view.action, view.epoch, view.request_id, view.hash) == (
        3, "alice", "pause", 7, "r", "0102")  # fmt: skip
    assert view.detail_json == '{"a": "x", "b": 1}'
    assert view.at.ToNanoseconds() == 5
