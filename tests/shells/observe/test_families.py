"""Counters and gauges as dictionaries: what they show, and what bounds them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.families import MAX_AT_START, OTHER, Family, Label, Names, is_name

FATE = Label("fate", ("in", "out"))
ROLE = Label("role", bound="roles")


def shown(family: Family, now_s: float = 0.0) -> dict[tuple[str, ...], float]:
    names = [label.name for label in family.labels]
    samples = family.metric(now_s).samples
    assert len(samples) == len({tuple(sample.labels.items()) for sample in samples}), "a label set is told twice"
    return {tuple(sample.labels[name] for name in names): sample.value for sample in samples}


def test_a_counter_of_closed_labels_shows_all_of_them_from_the_start():
    family = Family("things", "counter", "Things.", FATE, first_zero_s=20)
    assert shown(family) == {("in",): 0, ("out",): 0}
    family[("in",)] += 3
    assert shown(family) == {("in",): 3, ("out",): 0}


def test_a_label_set_that_is_new_shows_zero_before_its_count():
    family = Family("things", "counter", "Things.", ROLE, first_zero_s=20)
    family[("mailer",)] += 3
    assert shown(family, 100) == {("mailer",): 0}
    family[("mailer",)] += 1
    assert shown(family, 119.9) == {("mailer",): 0}
    assert shown(family, 120) == {("mailer",): 4}
    family[("mailer",)] += 1
    assert shown(family, 121) == {("mailer",): 5}


def test_a_gauge_says_at_once_what_there_is_and_nothing_of_what_was():
    family = Family("things", "gauge", "Things.", ROLE, first_zero_s=20)
    family.replace({("mailer",): 3})
    assert shown(family) == {("mailer",): 3}
    family.replace({("planner",): 1})
    assert shown(family) == {("planner",): 1}


def test_what_is_not_on_a_closed_list_is_other():
    family = Family("things", "counter", "Things.", FATE)
    family[("sideways",)] += 2
    family[('"}\n',)] += 3
    assert shown(family)[(OTHER,)] == 5


def test_what_is_shown_from_the_start_is_bounded():
    family = Family("things", "counter", "Things.", ROLE)
    family.expect((str(number),) for number in range(10_000))
    assert len(shown(family)) == MAX_AT_START


@given(st.lists(st.tuples(st.sampled_from(["in", "out", "x"]), st.integers(0, 9), st.booleans())))
def test_counts_add_up_however_they_are_scraped(steps):
    family = Family("things", "counter", "Things.", FATE, first_zero_s=1)
    before: dict[tuple[str, ...], float] = {}
    for now_s, (fate, count, scraped) in enumerate(steps):
        family[(fate,)] += count
        if scraped:
            after = shown(family, now_s)
            assert all(after[labels] >= value for labels, value in before.items()), "a counter went back"
            before = after
    shown(family, len(steps))
    assert sum(shown(family, len(steps) + 1).values()) == sum(count for _, count, _ in steps)


def test_only_so_many_names_get_a_label():
    names = Names(always=("billing",), capacity=3)
    assert [names(f"agent-{n}") for n in range(5)] == ["agent-0", "agent-1", "agent-2", OTHER, OTHER]
    assert names("agent-1") == "agent-1"
    assert names("billing") == "billing"


def test_a_name_that_is_another_thing_gets_no_label_and_no_place():
    names = Names(capacity=1)
    assert names("s-12", never="s-12") == OTHER
    assert names("s-12") == "s-12"


@pytest.mark.parametrize(
    "name", ["mailer", "Support Agent", "a", "weather_bot.v2", "acme/planner:1", "deadbeef", "café"[:3]]
)
def test_what_looks_like_a_name(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", OTHER, "a" * 65, "a\nb", 'a"b', "a{b}", "a\\b", "naïve", "a\u202eb", "a\x00b", "<script>", "=1+1",
     "123e4567-e89b-12d3-a456-426614174000", "0123456789abcdef0123456789abcdef", "a@b.c", "$role", "a;b"],
)  # fmt: skip
def test_what_does_not(name):
    assert not is_name(name)
    assert Names(capacity=10)(name) == OTHER


def test_what_the_operator_names_is_a_label_whatever_it_is():
    assert Names(always=("客服 (東京)",))("客服 (東京)") == "客服 (東京)"
