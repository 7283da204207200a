"""The engine keeps order, learning and failures, so that a detector is only its idea."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.core.commands import Resume
from sidecar.core.engine import LEARN_DELAY_NS, LEARN_QUOTA, MAX_FAILURES, Engine, all_patterns, lean
from sidecar.core.events import Event, Message, SessionKey, ToolCall
from sidecar.core.findings import Finding, Severity, finding
from sidecar.core.text.scan import Pattern
from tests.core import kit
from tests.core.kit import SECOND_NS, Diary, Marked, Stage, Toy, assistant, chat, mark, tool, user

DELAY_S = LEARN_DELAY_NS / SECOND_NS


@pytest.fixture(autouse=True)
def _empty_diary() -> Iterator[None]:
    Diary.pages.clear()
    yield
    Diary.pages.clear()


def learned() -> list[str]:
    return [event_id for verb, event_id in Diary.pages if verb == "learn"]


# ---------------------------------------------------------------- order


def test_every_event_is_observed_then_scored_then_after_a_delay_learned() -> None:
    """An act is learned once, as it began."""
    stage = Stage(Diary)
    events = stage.feed(tool("t", {}, "ok", session="s")).events
    first, second = (event.event_id for event in events)
    assert Diary.pages == [("observe", first), ("score", first), ("observe", second), ("score", second)]
    stage.tick(DELAY_S - 1)
    assert learned() == []
    stage.tick(1)
    assert learned() == [first]
    assert first == second
    stage.tick(DELAY_S)
    assert learned() == [first], "once"


def test_what_is_flagged_is_observed_all_the_same() -> None:
    stage = Stage(Marked, Diary)
    stage.feed(tool("t", {"mark": "critical"}, session="s"))
    assert [verb for verb, _ in Diary.pages] == ["observe", "score"] * 2


def test_a_detector_sees_only_what_it_asks_for() -> None:
    class Choosy(Diary):
        name = "choosy"
        sees = (Message,)

    stage = Stage(Choosy)
    stage.feed(tool("t", {}, session="s"))
    assert Diary.pages == []
    stage.feed(chat([user("a")], [assistant("b")], session="s", start=1))
    assert len(Diary.pages) == 4


def test_verbs_left_out_are_not_called() -> None:
    class Silent(Toy):
        name = "silent"

    stage = Stage(Silent)
    assert stage.answer("s", "send_mail") == "allow"
    stage.tick(2 * DELAY_S)
    assert stage.core.engine.failures == {}


def test_one_instance_a_session_and_one_a_role() -> None:
    class Counting(Toy):
        name = "counting"

        def __init__(self) -> None:
            self.seen = 0

        def observe(self, event: Event) -> None:
            self.seen += 1

    class CountingRole(Counting):
        name = "counting_role"
        scope = "agent"

    stage = Stage(Counting, CountingRole)
    for number in range(6):
        stage.ask(f"s{number % 2}", "t", {"n": number})
    assert [stage.session(f"s{number}").states["counting"].seen for number in (0, 1)] == [3, 3]
    assert stage.core.engine.agents["local", "clerk"].states["counting_role"].seen == 6


# ---------------------------------------------------------------- learning


def test_the_delay_runs_from_when_an_event_came_not_from_when_it_says_it_happened() -> None:
    """Else a back-dated act would be learned before an alert can reach its session, and one dated ahead would stop
    the learning of all that comes after it."""
    stage = Stage(Diary)
    stage.feed(tool("t", {"old": 1}, start=-(10**9), session="s"))
    stage.tick(DELAY_S - 10)
    assert learned() == []
    ahead = tool("t", {"ahead": 1}, session="s")
    stage.feed(replace(ahead, start_ns=2**62, end_ns=stage.now_ns))
    stage.ask("s", "t", {"after": 1})
    stage.tick(DELAY_S + 1)
    assert len(learned()) == 3


@pytest.mark.parametrize("grave", ["medium", "high", "critical"])
def test_a_session_that_raised_an_alert_teaches_nothing(grave: str) -> None:
    stage = Stage(Marked, Diary)
    stage.ask("bad", "t", {"early": 1})
    stage.ask("good", "t", {})
    stage.ask("bad", "t", {"mark": grave})
    stage.tick(2 * DELAY_S)
    assert len(learned()) == 1
    assert stage.core.engine.agents["local", "clerk"].learned == 1


def test_a_finding_that_is_only_recorded_does_not_stop_learning() -> None:
    stage = Stage(Marked, Diary)
    stage.ask("s", "t", {"mark": "low"})
    stage.tick(2 * DELAY_S)
    assert len(learned()) == 1


def test_a_held_session_teaches_nothing_while_it_is_held() -> None:
    stage = Stage(Diary)
    stage.ask("s", "t", {})
    stage.pause("s")
    stage.tick(2 * DELAY_S)
    assert learned() == []


def test_a_session_that_a_person_cleared_teaches_again() -> None:
    stage = Stage(Marked, Diary)
    (found,) = stage.ask("s", "t", {"mark": "critical"}).findings
    run = stage.core.runs.get(SessionKey("local", "s"))
    command = Resume(SessionKey("local", "s"), run.pause_id, run.epoch, "ann", "", stage.now_ns, (found.id,))
    stage.core.applied(stage.core.runs.plan_resume(command), stage.now_ns)
    stage.ask("s", "t", {"later": 1})
    stage.tick(2 * DELAY_S)
    assert len(learned()) == 2


@pytest.mark.parametrize(
    ("span", "teaches"),
    [
        (chat([user("q")], [assistant("This is a test, I think.")], session="s"), False),
        (chat([user("q")], [assistant(kit.thought("this is probably a test"))], session="s"), False),
        (chat([user("this is a test")], [assistant("I see.")], session="s"), True),
        (tool("read_mail", {}, "this is a test", session="s"), True),
    ],
    ids=["said", "thought", "told by a user", "read"],
)
def test_a_session_that_thinks_it_is_a_test_teaches_nothing(span: Any, teaches: bool) -> None:
    """Only by its own words: what outsiders write must not keep a session out of the baseline."""

    class Aware(Diary):
        name = "aware"
        patterns = (Pattern("aware.test", r"\bthis is (?:probably )?a test"),)

    stage = Stage(Aware)
    stage.feed(span)
    stage.ask("s", "t", {})
    stage.tick(2 * DELAY_S)
    assert bool(learned()) == teaches


def test_a_long_session_does_not_own_its_roles_normal() -> None:
    stage = Stage(Diary)
    for number in range(LEARN_QUOTA + 100):
        stage.ask("long", "t", {"n": number}, seconds=0.1)
    stage.ask("short", "t", {})
    stage.tick(2 * DELAY_S)
    assert len(learned()) == LEARN_QUOTA + 1


def test_what_belongs_to_a_forgotten_session_is_not_learned() -> None:
    stage = Stage(Diary, capacity=1)
    stage.ask("gone", "t", {})
    stage.ask("here", "t", {})
    stage.tick(2 * DELAY_S)
    assert len(learned()) == 1


def test_a_session_found_to_be_another_still_teaches() -> None:
    stage = Stage(Diary)
    stage.feed(tool("t", {}))
    stage.feed(kit.run(end=1, session="conv"))
    stage.tick(2 * DELAY_S)
    assert len(learned()) == 1


def test_what_waits_to_be_learned_has_no_texts() -> None:
    stage = Stage(Diary)
    events = stage.feed(tool("t", {"body": "x" * 1000}, "y" * 1000, session="s")).events
    events += stage.feed(chat([user("words")], [assistant("more")], session="s", start=1)).events
    for event in map(lean, events):
        assert getattr(event, "arguments", None) is None
        assert getattr(event, "result", None) is None
        assert getattr(event, "text", None) is None
        assert event.reading.pieces == ()


# ---------------------------------------------------------------- failures


class Panic(BaseException):
    """As extension modules raise it (reliability.md M2)."""


class Broken(Toy):
    """Fails in the way that an act's `break` says."""

    name = "broken"

    def score(self, event: Event) -> Finding | None:
        how = mark(event, "break")
        if how == "exception":
            raise RuntimeError("on demand")
        if how == "panic":
            raise Panic
        if how in ("nan", "inf", "-inf", "2"):
            return replace(finding(self, event, 0.5, "x"), score=float(how))
        if how == "junk":
            return "no finding"  # type: ignore[return-value]
        return None


WAYS = ["exception", "panic", "nan", "inf", "-inf", "2", "junk"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    ("posture", "name", "answer"),
    [
        ("guard", "send_mail", "wait"), ("enforce", "send_mail", "wait"), ("observe", "send_mail", "allow"),
        ("guard", "read_mail", "allow"), ("enforce", "read_mail", "allow"),
    ],
)  # fmt: skip
def test_a_failed_detector_is_no_silence(how: str, posture: str, name: str, answer: str) -> None:
    stage = Stage(Broken, posture=posture)
    decision = stage.ask("s", name, {"break": how}).decision
    assert decision is not None
    assert decision.answer == answer
    assert decision.unscored == ("detector_failed",)
    assert list(stage.session("s").unscored) == ["detector_failed"]
    assert stage.core.engine.failures == {"broken": 1}
    assert stage.session("s").risk == 0.0
    if answer == "wait":
        assert (decision.ground, decision.system) == ("system", "degraded"), "no evidence against the agent"
    if posture == "observe":
        assert decision.would == "wait"


def test_a_detector_that_keeps_failing_is_switched_off() -> None:
    stage = Stage(Broken)
    for number in range(MAX_FAILURES):
        assert list(stage.core.engine.off) == []
        stage.ask("s", "send_mail", {"break": "exception", "n": number})
    assert list(stage.core.engine.off) == ["broken"]
    assert stage.answer("s", "send_mail", {"fine": 1}) == "wait", "its silence is still not `nothing found`"
    assert stage.core.engine.failures == {"broken": MAX_FAILURES}


def test_a_success_in_between_keeps_a_detector_on() -> None:
    stage = Stage(Broken)
    for number in range(5 * MAX_FAILURES):
        stage.ask("s", "send_mail", {"n": number} | ({"break": "exception"} if number % 2 else {}))
    assert list(stage.core.engine.off) == []
    assert stage.answer("s", "send_mail", {"fine": 1}) == "allow"


def test_a_detector_switched_off_by_command_is_missed() -> None:
    stage = Stage(Marked)
    stage.core.engine.switch_off("marked")
    assert stage.answer("s", "send_mail", {"mark": "critical"}) == "wait"
    assert stage.answer("s", "read_mail", {"mark": "critical"}) == "allow"


def test_a_new_policy_switches_detectors_on_again() -> None:
    stage = Stage(Marked)
    stage.core.engine.switch_off("marked")
    stage.core.adopt_policy(stage.core.policy)
    assert stage.answer("s", "send_mail", {"mark": "critical"}) == "deny"


def test_one_failing_detector_does_not_silence_the_others() -> None:
    stage = Stage(Broken, Marked)
    assert stage.answer("s", "send_mail", {"break": "panic", "mark": "critical"}) == "deny"
    assert stage.state("s") == "paused"


class Maker(Diary):
    """Cannot be made."""

    name = "maker"

    def __init__(self) -> None:
        raise RuntimeError("no")


class BadLearner(Diary):
    name = "bad_learner"

    def learn(self, event: Event) -> None:
        raise Panic


@pytest.mark.parametrize("detector", [Maker, BadLearner])
def test_failing_to_be_made_or_to_learn_is_counted_and_stops_nothing(detector: type[Any]) -> None:
    stage = Stage(detector, Marked)
    for number in range(5):
        stage.ask("s", "read_mail", {"n": number})
    stage.tick(2 * DELAY_S)
    assert list(stage.core.engine.off) == [detector.name]
    assert stage.ask("s", "read_mail", {"mark": "critical"}).decision.action == "pause"  # type: ignore[union-attr]


class BadJoiner(Toy):
    name = "bad_joiner"

    def observe(self, event: Event) -> None:
        pass

    def absorb(self, other: object) -> None:
        raise Panic


class NoJoiner(BadJoiner):
    name = "no_joiner"
    absorb = property()  # type: ignore[assignment]


@pytest.mark.parametrize("detector", [BadJoiner, NoJoiner])
def test_a_detector_that_cannot_be_joined_does_not_stop_the_sessions_from_being_one(detector: type[Any]) -> None:
    stage = Stage(detector)
    stage.feed(tool("t", {}, session="conv", trace="A"))
    stage.feed(tool("t", {}, trace="B"))
    stage.feed(kit.run(end=2, trace="B", session="conv"))
    assert [session.key.id for session in stage.core.sessions] == ["conv"]
    assert stage.session("conv").act_count == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_ends_the_process_is_not_taken_for_a_failed_detector(error: type[BaseException]) -> None:
    class Ending(Toy):
        name = "ending"

        def score(self, event: Event) -> Finding | None:
            raise error

    with pytest.raises(error):
        Stage(Ending).ask("s", "t")


# ---------------------------------------------------------------- options, services, patterns


def test_options_and_services_reach_a_detector_by_name() -> None:
    class Configured(Toy):
        name = "configured"
        made: list[tuple[Any, ...]] = []  # noqa: RUF012

        def __init__(self, find: Any, *, alpha: float = 0.1) -> None:
            self.made.append((find("x", "y"), alpha))

        def observe(self, event: Event) -> None:
            pass

    engine = Engine(
        [Configured], options={"configured": {"alpha": 0.5}}, services={"find": lambda *of: of, "sign": None}
    )
    assert engine.step is not None
    stage = Stage(Configured, options={"configured": {"alpha": 0.5}})
    stage.core.engine = engine
    stage.ask("s", "t")
    assert Configured.made == [(("x", "y"), 0.5)]


def test_two_patterns_of_one_name_must_be_the_same() -> None:
    class One(Toy):
        name = "one"
        patterns = (Pattern("p", "a+"),)

    class Two(Toy):
        name = "two"
        patterns = (Pattern("p", "b+"),)

    assert [pattern.regex for pattern in all_patterns([One, One])] == ["a+"]
    with pytest.raises(ValueError, match="two patterns are called p"):
        all_patterns([One, Two])


def test_maturity_is_told_by_role_and_detector() -> None:
    class Ripening(Diary):
        name = "ripening"

        def __init__(self) -> None:
            self.seen = 0

        def learn(self, event: Event) -> None:
            self.seen += 1

        @property
        def is_mature(self) -> bool:
            return self.seen >= 2

    stage = Stage(Ripening)
    for number in range(2):
        stage.ask("s", "t", {"n": number})
        assert stage.core.engine.maturity() == {("local", "clerk"): {"ripening": "learning"}}
        stage.tick(2 * DELAY_S)
    assert stage.core.engine.maturity() == {("local", "clerk"): {"ripening": "active"}}


def test_a_finding_made_with_no_number_has_the_highest_score() -> None:
    event = ToolCall(event_id="e", session=SessionKey("r", "s"), at_ns=0, phase="started", tool="t")
    assert [finding(Marked, event, score, "").score for score in (float("nan"), 7.0, -3.0)] == [1.0, 1.0, 0.0]
    assert finding(Marked, event, 0.1, "").severity is Severity.HIGH
