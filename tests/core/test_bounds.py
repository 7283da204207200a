"""Every memory has a bound: thousands of anything are fed, and sizes are looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core import acts, binding, runstate, sessions
from sidecar.core import engine as engine_module
from sidecar.core import pipeline as pipeline_module
from sidecar.core.events import Agent, SessionKey
from sidecar.core.snapshot import Snapshots
from sidecar.core.span import Speaker
from sidecar.core.triage import alerts
from tests.core import kit
from tests.core.kit import Diary, Loom, Marked, Stage, assistant, call, chat, details, text, thought, tool, turn, user

MANY = 3000


def feed_acts(loom: Loom, number: int) -> None:
    loom.take(tool("t", {"n": number}, "ok", start=number, session="s", call_id=f"call-{number:012}"))


def feed_wishes(loom: Loom, number: int) -> None:
    calls = [call(f"call-{number}-{one}", "t", {"n": number}) for one in range(5)]
    loom.take(chat([user(f"go {number}")], [assistant(*calls)], start=number, session="s"))


def feed_texts(loom: Loom, number: int) -> None:
    said = [assistant(*(f"answer {number}-{one}" for one in range(5)), thought(f"hm {number}"))]
    loom.take(chat([turn("system", f"rule {number}"), user(f"q {number}")], said, start=number, session="s"))


def feed_unseen(loom: Loom, number: int) -> None:
    loom.take(chat(finish=["tool_calls"], start=number, session="s", attributes={"n": number}))


def feed_logs(loom: Loom, number: int) -> None:
    loom.take(details(chat([user(f"q {number}")], [assistant(f"a {number}")], start=number, session="s"), trace=False))


def feed_traces_of_one_session(loom: Loom, number: int) -> None:
    loom.take(tool("t", {"n": number}, start=number, trace=f"T{number}"))
    loom.take(chat([user(f"q {number}")], [assistant(f"a {number}")], start=number, trace=f"T{number}"))
    loom.take(kit.run(start=number, end=number + 1, trace=f"T{number}", session="s"))


def feed_asked(loom: Loom, number: int) -> None:
    loom.ask("s", "t", {"n": number}, f"call-{number:012}", seconds=number)


def feed_wide_trace(loom: Loom, number: int) -> None:
    loom.take(kit.run(end=number + 1, session=f"s{number % 7}", word=f"r{number}", parent=f"r{number - 1}"))
    loom.take(kit.other(f"w{number}", parent=f"r{number}"))
    loom.take(tool("t", {"n": number}, start=number, parent=f"w{number}", session="s" if not number else ""))


@pytest.mark.parametrize("feed", [
    feed_acts, feed_wishes, feed_texts, feed_unseen, feed_logs, feed_traces_of_one_session, feed_asked, feed_wide_trace,
])  # fmt: skip
def test_what_is_remembered_of_a_session_is_bounded(
    feed: Callable[[Loom, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "MAX_TRACES", 500)
    monkeypatch.setattr(binding, "MAX_SPANS_OF_TRACE", 500)
    monkeypatch.setattr(binding, "MAX_THREADS", 500)
    monkeypatch.setattr(acts, "MAX_NAMED_CALLS", 500)
    loom = Loom(aliases=500)
    for number in range(MANY // 2):
        feed(loom, number)
        loom.events.clear()
    session, weaver = loom.session("s"), loom.weaver
    sizes = {
        name: (len(getattr(session, name)), limit)
        for name, limit in {
            "acts": sessions.MAX_ACTS, "texts": sessions.MAX_TEXTS, "intents": sessions.MAX_INTENTS,
            "chains": sessions.MAX_CHAINS, "calls": sessions.MAX_CALLS, "unseen": sessions.MAX_UNSEEN,
            "aliases": sessions.MAX_ALIASES, "unscored": 9,
        }.items()
    }  # fmt: skip
    sizes |= {
        "traces": (len(weaver.bindings.traces), 500),
        "threads": (len(weaver.bindings.threads), 500),
        "named calls": (len(weaver.acts.named_calls), 500),
        "aliases of all": (len(loom.table._aliases), 500),
        "waiting": (len(weaver._waiting), len(loom.table)),
        "claims": (max((len(trace.claims) for trace in weaver.bindings.traces.values()), default=0), 500),
        "parents": (max((len(trace.parents) for trace in weaver.bindings.traces.values()), default=0), 500),
        "ended": (max((len(trace.ended) for trace in weaver.bindings.traces.values()), default=0), 500),
    }
    assert {name: size for name, size in sizes.items() if size[0] > size[1]} == {}


def test_a_memory_above_its_limit_shrinks_to_it() -> None:
    from sidecar.core.digests import remember

    memory = dict.fromkeys(range(100))
    remember(memory, "new", None, 10)
    assert list(memory) == [*range(91, 100), "new"]


def test_sessions_are_bounded_and_fair() -> None:
    loom = Loom(capacity=100)
    quiet = Speaker("agent:quiet", "authenticated", "quiet")
    loom.take(tool("t", {}, session="mine"), speaker=quiet)
    for number in range(MANY):
        loom.take(tool("t", {}, start=number, trace=f"T{number}"))
    assert len(loom.table) == 100
    assert loom.table.get(SessionKey("agent:quiet", "mine")) is not None


def test_roles_are_bounded_and_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever invents many names of roles must not make another's baseline go."""
    monkeypatch.setattr(engine_module, "MAX_AGENTS", 50)
    stage = Stage(Diary)
    quiet = Speaker("agent:quiet", "authenticated", "quiet")
    stage.feed(tool("t", {}, session="mine"), speaker=quiet)
    for number in range(500):
        stage.feed(tool("t", {}, start=number, session="s", agent=f"role {number}"))
    agents = stage.core.engine.agents
    assert len(agents) == 50
    assert ("agent:quiet", "quiet") in agents
    assert ("local", "role 499") in agents


def test_the_role_that_was_quiet_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_AGENTS", 3)
    stage = Stage(Diary)
    for name in ("a", "b", "c", "a", "d"):
        stage.feed(tool("t", {}, session=name, agent=name, trace=name))
    assert [role for _, role in stage.core.engine.agents] == ["c", "a", "d"]


def test_what_waits_to_be_learned_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_PENDING", 100)
    stage = Stage(Diary)
    for number in range(500):
        stage.feed(tool("t", {"n": number}, start=number / 10, session="s", agent="a"))
    assert len(stage.core.engine.agents["local", "a"].pending) == 100


def test_the_book_of_alerts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MAX_FIRING", 50)
    stage = Stage(Marked)
    last = None
    for number in range(300):
        last = stage.feed(tool("t", {"mark": "medium"}, start=number, session=f"s{number}", trace=f"T{number}"))
    assert len(stage.core.alerts) == len(list(stage.core.alerts)) == 50
    assert last is not None
    assert [(alert.session.id, alert.state) for alert in last.alerts] == [("s249", "resolved"), ("s299", "firing")]


def test_one_alert_keeps_few_of_its_findings_and_counts_all() -> None:
    stage = Stage(Marked)
    for number in range(100):
        stage.feed(tool("t", {"mark": "medium", "n": number}, start=number, session="s"))
    (alert,) = stage.core.alerts.of(SessionKey("local", "s"))
    assert (alert.count, len(alert.findings)) == (100, alerts.KEPT_FINDINGS)


def test_what_the_pipeline_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "MAX_DECISIONS", 100)
    monkeypatch.setattr(pipeline_module, "MAX_PARENTS", 100)
    stage = Stage(Marked, capacity=200)
    for number in range(1000):
        stage.feed(tool("t", {}, start=number, session=f"s{number}", trace=f"T{number}",
                        attributes={"sidecar.session.parent_id": f"parent {number}"}))  # fmt: skip
        stage.ask("asker", "send_mail", {"mark": "high", "n": number}, f"call-{number:012}")
    core = stage.core
    session = stage.session("asker")
    assert len(core._answers) == 100
    assert len(core.held) == 100
    assert len(core._children) <= 100
    assert len(core.sessions) == 200
    assert len(session.kinds) <= sessions.MAX_KINDS


def test_causes_of_one_session_are_bounded() -> None:
    stage = Stage(Marked)
    for number in range(100):
        stage.ask("s", "send_mail", {"mark": "critical", "n": number}, f"call-{number:012}")
    assert len(stage.core.runs.get(SessionKey("local", "s")).causes) <= pipeline_module.MAX_CAUSES


def test_run_states_are_bounded_and_never_forget_who_is_held_or_ended() -> None:
    from sidecar.core.commands import Cause, Pause, Resume, Terminate

    runs = runstate.RunStates(capacity=20)

    def pause(number: int) -> SessionKey:
        key = SessionKey("r", str(number))
        runs.pause(Pause(key, Cause(f"p{number}", "operator", "ann", "", number)), enforced=True)
        return key

    held, ended = pause(0), pause(1)
    runs.apply(runs.plan_terminate(Terminate(ended, "ann", "", 1)))
    for number in range(2, 500):
        key = pause(number)
        run = runs.get(key)
        runs.apply(runs.plan_resume(Resume(key, run.pause_id, run.epoch, "ann", "", number)))
    assert len(list(runs)) == 20
    assert (runs.get(held).desired, runs.get(ended).desired) == ("paused", "terminated")


def test_an_epoch_given_after_a_run_state_was_forgotten_is_higher_than_before() -> None:
    """An agent's client follows the highest epoch it knows: a pause with a lower one would be nothing to it."""
    from sidecar.core.commands import Cause, Pause, Resume

    runs = runstate.RunStates(capacity=5)

    def pause(name: str) -> int:
        key = SessionKey("r", name)
        return runs.pause(Pause(key, Cause("p", "operator", "ann", "", 0)), enforced=True).epoch

    highest = 0
    for _ in range(10):
        key = SessionKey("r", "old")
        epoch = pause("old")
        highest = runs.apply(runs.plan_resume(Resume(key, "p", epoch, "ann", "", 0))).epoch
    for number in range(50):
        name = f"new {number}"
        runs.apply(runs.plan_resume(Resume(SessionKey("r", name), "p", pause(name), "ann", "", 0)))
    assert SessionKey("r", "old") not in dict(runs)
    assert pause("old") > highest


def test_what_is_forgotten_leaves_the_snapshot_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every trace there ever was would be stored for good, and read at each start."""
    monkeypatch.setattr(binding, "MAX_TRACES", 10)
    monkeypatch.setattr(engine_module, "MAX_AGENTS", 10)
    stage = Stage(Diary, capacity=10)
    snapshots = Snapshots(stage.core)
    stored: dict[str, Any] = {}
    for number in range(300):
        stage.feed(tool("t", {}, start=number, session=f"s{number}", trace=f"T{number}", agent=f"a{number}"))
        if number % 7 == 0:
            snapshots.begin()
            while snapshots.step():
                pass
            upserts, deletes = snapshots.take()
            stored |= upserts
            for name in deletes:
                stored.pop(name, None)
    kinds = [name.partition("/")[0] for name in stored]
    assert {kind: kinds.count(kind) for kind in ("s", "a", "t")} == {"s": 10, "a": 10, "t": 10}


def test_mentions_and_own_domains_are_bounded() -> None:
    from sidecar.assembly import pipeline
    from sidecar.core.span import LOCAL, Record

    core = pipeline()
    for number in range(600):
        words = f"ask p{number}@d{number}.example and q{number}@e{number}.example"
        span = chat([turn("system", words)], [], start=number, session="s", agent="a")
        core.feed(Record(span, LOCAL, span.end_ns), span.end_ns)
    session = next(iter(core.sessions))
    assert len(session.mentions) == sessions.MAX_MENTIONS
    assert len(session.own_domains) == sessions.MAX_OWN_DOMAINS


def test_a_message_with_a_million_parts_is_cut_and_said_so() -> None:
    loom = Loom()
    loom.take(chat([{"role": "user", "parts": [text(f"p{n}") for n in range(20_000)]}], [], session="s"))
    assert len(loom.said) <= 4096
    assert [event.unscored for event in loom.events if event.unscored] == [("cut",)]


def test_agents_share_no_memory() -> None:
    """Each role learns what it did itself."""
    stage = Stage(Diary)
    stage.feed(tool("t", {}, session="one", agent="a", trace="A"))
    stage.feed(tool("t", {}, session="two", agent="b", trace="B"))
    states = stage.core.engine.agents
    assert [key.id for _, key, _ in states["local", "a"].pending] == ["one"]
    assert [key.id for _, key, _ in states["local", "b"].pending] == ["two"]
    assert Agent("local", "", "a") == states["local", "a"].agent
