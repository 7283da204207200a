"""What comes late is put in order: sessions are told anew, and people's decisions and findings stay as they were."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from sidecar.core.events import Event, SessionKey, ToolCall
from sidecar.core.findings import Finding, Severity, finding
from sidecar.core.journal import GRACE_NS, MAX_ENTRIES
from sidecar.core.span import LOCAL, Record, Span
from tests.core import kit
from tests.core.kit import SECOND_NS, Stage, Toy, assistant, call, chat, response, tool, turn, user

JOURNAL = 1 << 24


class Leak(Toy):
    """Finds a send that comes after a read of the same session."""

    name = "leak"
    scope = "session"
    severity = Severity.HIGH
    sees = (ToolCall,)

    def __init__(self) -> None:
        self.has_read = False

    def observe(self, event: Event) -> None:
        self.has_read |= isinstance(event, ToolCall) and event.tool == "read_mail"

    def score(self, event: Event) -> Finding | None:
        if isinstance(event, ToolCall) and event.phase == "started" and event.tool == "send" and self.has_read:
            return finding(self, event, 0.9, "sends after it has read")
        return None

    def dump(self) -> Any:
        return self.has_read

    def load(self, state: Any) -> None:
        self.has_read = state


def stage(**more: Any) -> Stage:
    return Stage(Leak, journal_bytes=JOURNAL, **more)


READ = tool("read_mail", {"n": 1}, "secret", start=1, session="s", word="read", call_id="call-read-000001")
SEND = tool("send", {"to": "x"}, "ok", start=2, session="s", word="send", call_id="call-send-000001")


def found(one: Stage) -> list[str]:
    return [finding.detector for finding in one.findings]


def test_a_send_that_came_before_the_read_it_follows_is_found_when_the_read_comes() -> None:
    in_order, late = stage(), stage()
    in_order.feed(READ), in_order.feed(SEND), in_order.tick()
    late.feed(SEND), late.feed(READ)
    assert found(late) == []
    late.tick()
    assert found(late) == found(in_order) == ["leak"]
    assert late.session("s").act_count == in_order.session("s").act_count == 2


def test_without_a_journal_it_is_judged_where_it_comes() -> None:
    one = Stage(Leak)
    one.feed(SEND), one.feed(READ), one.tick()
    assert found(one) == []


def test_what_was_found_is_not_found_again_when_the_session_is_told_anew() -> None:
    one = stage()
    one.feed(READ), one.feed(SEND)
    assert found(one) == ["leak"]
    one.feed(tool("look", {}, "x", start=0.5, session="s")), one.tick(), one.tick()
    assert found(one) == ["leak"]
    assert one.session("s").act_count == 3


def test_a_read_that_comes_late_counts_before_the_gate_answers() -> None:
    one = stage()
    one.feed(tool("look", {}, "x", start=3, session="s"))
    one.feed(READ)
    assert one.ask("s", "send", {"to": "x"}, "call-ask-0000001").findings[0].detector == "leak"


def test_an_act_asked_at_the_gate_is_one_act_still_when_its_session_is_told_anew() -> None:
    one = stage()
    decision = one.ask("s", "look", {"n": 1}, "call-look-00001").decision
    assert decision is not None
    asked_at_s = (one.now_ns - kit.START_NS) / SECOND_NS
    ran = tool("look", {"n": 1}, "ok", start=asked_at_s + 0.1, session="s", call_id="call-look-00001", word="look",
               attributes={"sidecar.gated": True})  # fmt: skip
    one.feed(ran)
    one.feed(replace(READ, start_ns=kit.START_NS - SECOND_NS, end_ns=kit.START_NS - SECOND_NS // 2))
    one.tick(), one.tick()
    session = one.session("s")
    assert session.act_count == 2
    assert [act.event_id for act in session.acts.values() if act.gated] == [decision.event_id]
    assert "ungated_act" not in found(one)  # the read was over before the session was gated


def test_what_ran_before_its_session_was_gated_is_no_ungated_act_when_it_is_told_anew() -> None:
    one = stage()
    one.feed(SEND)
    one.ask("s", "look", {"n": 1}, "call-look-00001")
    one.feed(tool("look", {"n": 0}, "x", start=0.5, session="s", attributes={"sidecar.gated": True})), one.tick()
    assert "ungated_act" not in found(one)
    assert one.session("s").act_count == 3


def test_a_pause_and_what_a_reviewer_cleared_stay() -> None:
    one = stage()
    one.feed(SEND)
    session = one.session("s")
    session.cleared["kind"] = None
    one.pause("s")
    one.feed(READ), one.tick()
    assert one.state("s") == "paused"
    assert one.session("s").cleared == {"kind": None}


def test_a_session_told_within_another_is_told_there_when_that_comes_to_light() -> None:
    """A span's ancestor names the session, and comes last."""
    one = stage()
    one.feed(tool("read_mail", {"n": 1}, "secret", start=1, word="inner", parent="sub", trace="T"))
    one.feed(tool("look", {}, "x", start=2, session="main", trace="T", parent="root"))
    one.feed(kit.run(start=0.5, end=3, word="sub", parent="root", session="side", trace="T"))
    one.tick()
    assert [act.tool for act in one.session("side").acts.values()] == ["read_mail"]
    assert [act.tool for act in one.session("main").acts.values()] == ["look"]
    assert one.session("side").parent is None or one.session("side").parent.id == "main"


def test_acts_are_the_nearest_agents_when_the_runs_that_name_them_come_last() -> None:
    one = stage()
    outcomes = [
        one.feed(tool("look", {}, "x", start=1, word="a", parent="sub", trace="T", session="s")),
        one.feed(tool("read_mail", {}, "x", start=2, word="b", parent="root", trace="T", session="s")),
        one.feed(kit.run(start=0.5, end=1.5, word="sub", parent="root", agent="helper", trace="T", session="s")),
        one.feed(kit.run(start=0, end=3, word="root", agent="boss", trace="T", session="s")),
    ]
    outcomes.append(one.tick())
    told = {event.tool: event.agent.name for _, events in outcomes[-1].retold for event in events
            if isinstance(event, ToolCall)}  # fmt: skip
    assert told == {"look": "helper", "read_mail": "boss"}
    assert one.session("s").agent.name == "boss"


def history(upto: int) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [user("go on")]
    for n in range(upto):
        said += [assistant(call(f"call-{n:012}", "look", {"n": n})), turn("tool", response(f"call-{n:012}", f"r{n}"))]
    return said


def test_a_conversation_of_a_trace_a_call_is_one_session_in_any_order() -> None:
    calls = [
        chat(history(n), [assistant(call(f"call-{n:012}", "look", {"n": n}))], start=n, trace=f"T{n}", word=f"c{n}")
        for n in range(5)
    ]
    for order in ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 3, 1)):
        one = stage()
        for n in order:
            one.feed(calls[n])
        one.tick(), one.tick(20, last=True)
        assert len(one.core.sessions) == 1
        session = next(iter(one.core.sessions))
        assert session.key == SessionKey("local", f"trace:{calls[0].trace_id}")
        assert session.act_count == 5


# ---------------------------------------------------------------- bounds


def act(n: int, *, session: str = "s", size: int = 10) -> Span:
    return tool("look", {"n": n, "text": "x" * size}, "ok", start=n, session=session, word=f"{session} {n}")


def test_journals_are_bounded_by_entries_bytes_and_time() -> None:
    one = Stage(Leak, journal_bytes=200_000)
    journals = one.core.journals
    for n in range(3 * MAX_ENTRIES):
        one.feed(act(n))
    assert len(journals.entries(SessionKey("local", "s"))) <= MAX_ENTRIES
    for n in range(50):
        one.feed(act(n, session=f"s{n}", size=20_000))
    assert journals.size_bytes <= 200_000 + 30_000
    one.now_ns += 2 * GRACE_NS
    one.tick()
    assert len(journals) == 0
    assert journals.size_bytes == 0


def test_a_long_session_is_put_in_order_from_where_its_journal_begins() -> None:
    one = stage()
    for n in range(MAX_ENTRIES + 20):
        one.feed(act(n))
    count = one.session("s").act_count
    late = replace(act(MAX_ENTRIES + 15), span_id=kit.hexed("late", 16))
    one.feed(replace(late, attributes=late.attributes | {"gen_ai.tool.call.arguments": '{"n": -1}'}))
    one.tick()
    assert one.session("s").act_count == count + 1


def test_a_record_that_comes_after_its_session_was_forgotten_from_the_journal_is_woven_where_it_comes() -> None:
    one = stage()
    one.feed(SEND)
    one.core.journals.drop(SessionKey("local", "s"))
    one.feed(READ), one.tick()
    assert one.session("s").act_count == 2
    assert found(one) == []


def test_the_core_without_a_journal_keeps_nothing() -> None:
    one = Stage(Leak)
    one.core.feed(Record(SEND, LOCAL, SEND.end_ns), SEND.end_ns)
    assert len(one.core.journals) == 0


def test_whoever_sends_out_of_order_on_purpose_does_not_keep_the_core_busy() -> None:
    """A session is told anew once a second, and a realm's sessions no more than so much; all of them in the end."""
    one = stage()
    told = 0
    for n in range(8):
        for k in range(200):
            one.feed(act(200 - k, session=f"s{n}"))
    for _ in range(3):
        told_now = sum(len(one.core.journals.entries(key)) for key, _ in one.tick(0.4).retold)
        told += told_now
        assert told_now <= 512
    assert told == 400
    for _ in range(10):
        told += sum(len(one.core.journals.entries(key)) for key, _ in one.tick(1).retold)
    assert told == 1600
    assert one.core.journals.dirty() == []


def test_the_gate_tells_only_the_session_anew_that_asks() -> None:
    one = stage()
    for session in ("s", "other"):
        for n in (3, 2):
            one.feed(act(n, session=session))
    outcome = one.ask("s", "look", {"n": 9}, "call-ask-0000001")
    assert [key.id for key, _ in outcome.retold] == ["s"]
    assert one.core.journals.dirty() == [SessionKey("local", "other")]
