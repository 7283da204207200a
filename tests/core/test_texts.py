"""A text is told once, however often the history repeats it; what a person says twice is told twice."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from sidecar.core.events import ModelCall, Reasoning
from sidecar.core.span import Span
from tests.core import kit
from tests.core.kit import Loom, assistant, chat, details, text, thought, turn, user


def conversation(turns: int, **more: object) -> list[Span]:
    """Model calls, each of which repeats all that was said before."""
    history: list[dict[str, object]] = [user("question 0")]
    spans = []
    for number in range(turns):
        answer = assistant(f"answer {number}")
        spans.append(chat(history, [answer], start=2 * number, **more))  # type: ignore[arg-type]
        history = [*history, answer, user(f"question {number + 1}")]
    return spans


SAID = [(way, f"{what} {number}") for number in range(4) for way, what in (("inbound", "question"),
                                                                         ("outbound", "answer"))]  # fmt: skip


def test_a_history_that_is_repeated_is_told_once() -> None:
    loom = Loom()
    loom.take(*conversation(4, session="s"))
    assert loom.said == SAID


def test_a_history_repeated_as_log_records_is_told_once() -> None:
    loom = Loom()
    loom.take(*map(details, conversation(4, session="s")))
    assert loom.said == SAID


@pytest.mark.parametrize("logs_first", [False, True])
def test_logs_beside_spans_tell_nothing_twice(logs_first: bool) -> None:
    loom = Loom()
    for span in conversation(4, session="s"):
        loom.take(*((details(span), span) if logs_first else (span, details(span))))
    assert loom.said == SAID
    assert len(loom.of(ModelCall)) == 4


def test_content_that_only_the_log_holds_is_told() -> None:
    loom = Loom()
    for number, span in enumerate(conversation(4, session="s")):
        bare = chat(start=2 * number, session="s", word=f"chat {number}")
        told = replace(details(span), span_id=bare.span_id)
        loom.take(bare, told)
    assert loom.said == SAID
    assert len(loom.of(ModelCall)) == 4


@pytest.mark.parametrize("run_first", [False, True])
def test_a_run_and_its_model_call_tell_a_text_once(run_first: bool) -> None:
    loom = Loom()
    around = kit.run([user("hello")], [assistant("hi")], start=0, end=3, session="s")
    within = chat([user("hello")], [assistant("hi")], start=1, session="s")
    loom.take(*((around, within) if run_first else (within, around)))
    assert loom.said == [("inbound", "hello"), ("outbound", "hi")]


def test_a_person_who_says_yes_twice_is_heard_twice() -> None:
    loom = Loom()
    history = [user("yes")]
    loom.take(chat(history, [assistant("sure?")], session="s", start=0))
    history = [*history, assistant("sure?"), user("yes")]
    loom.take(chat(history, [assistant("done")], session="s", start=2))
    assert loom.said == [("inbound", "yes"), ("outbound", "sure?"), ("inbound", "yes"), ("outbound", "done")]


def test_an_agent_that_says_the_same_twice_is_heard_twice() -> None:
    loom = Loom()
    loom.take(chat([user("a")], [assistant("Done.")], session="s", start=0))
    history = [user("a"), assistant("Done."), user("b")]
    loom.take(chat(history, [assistant("Done.")], session="s", start=2))
    assert [words for way, words in loom.said if way == "outbound"] == ["Done.", "Done."]


def test_inputs_that_hold_only_what_is_new_are_taken_whole() -> None:
    loom = Loom()
    for number, words in enumerate(("first", "second", "second")):
        loom.take(chat([user(words)], [assistant(f"answer {number}")], session="s", start=2 * number))
    assert [words for way, words in loom.said if way == "inbound"] == ["first", "second", "second"]


def test_the_assistants_answer_split_otherwise_in_the_history_is_the_same() -> None:
    loom = Loom()
    loom.take(chat([user("go")], [assistant("one", "two")], session="s", start=0))
    history = [user("go"), assistant("two"), assistant("one"), user("on")]
    loom.take(chat(history, [assistant("three")], session="s", start=2))
    assert [words for _, words in loom.said] == ["go", "one", "two", "on", "three"]


def test_reasoning_is_told_once_and_need_not_come_back() -> None:
    loom = Loom()
    loom.take(chat([user("go")], [assistant(thought("hmm"), "ok")], session="s", start=0))
    loom.take(chat([user("go"), assistant("ok"), user("on")], [assistant("fine")], session="s", start=2))
    with_it = [user("go"), assistant(thought("hmm"), "ok"), user("on"), assistant("fine"), user("and")]
    loom.take(chat(with_it, [assistant("good")], session="s", start=4))
    assert [event.text for event in loom.of(Reasoning)] == ["hmm"]  # type: ignore[attr-defined]


def test_instructions_are_told_once_wherever_they_stand() -> None:
    loom = Loom()
    loom.take(chat([turn("system", "be kind"), user("a")], [assistant("b")], session="s"))
    history = [turn("system", "be kind"), user("a"), assistant("b"), user("c")]
    loom.take(chat(history, [assistant("d")], system=["be kind"], session="s", start=2))
    assert [words for _, words in loom.said].count("be kind") == 1


def test_a_history_cut_at_its_front_tells_only_what_is_new() -> None:
    """Clients drop the oldest turns when the context is full."""
    loom = Loom()
    spans = conversation(4, session="s")
    loom.take(*spans[:3])
    cut = [assistant("answer 1"), user("question 2"), assistant("answer 2"), user("question 3")]
    loom.take(chat(cut, [assistant("answer 3")], session="s", start=9))
    assert loom.said == SAID


def test_shuffled_model_calls_tell_each_text_once() -> None:
    """Four calls in all orders: later calls repeat what earlier ones said, whichever comes first."""
    for order in itertools.permutations(conversation(3, session="s")):
        loom = Loom()
        loom.take(*order)
        assert sorted(loom.said) == sorted(SAID[:6]), [span.start_ns for span in order]


def test_two_sessions_may_say_the_same() -> None:
    loom = Loom()
    loom.take(
        chat([user("hello")], [assistant("hi")], session="s1"), chat([user("hello")], [assistant("hi")], session="s2")
    )
    assert len(loom.said) == 4


def test_bare_text_messages_and_strings_are_read() -> None:
    loom = Loom()
    loom.take(
        chat(session="s", attributes={"gen_ai.input.messages": "just words", "gen_ai.output.messages": "an answer"})
    )
    assert loom.said == [("inbound", "just words"), ("outbound", "an answer")]


def test_a_role_nobody_knows_speaks_inbound() -> None:
    loom = Loom()
    loom.take(chat([turn("developer", "be kind"), {"role": "narrator", "parts": [text("once")]}], session="s"))
    assert loom.said == [("inbound", "be kind"), ("inbound", "once")]
