"""Patterns over names, against the standard library's, which must not see agents' text."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.text.globs import fits

letters = st.text(alphabet="ab.\n", max_size=12)


@given(st.text(alphabet="ab.*?\n", max_size=10), letters)
def test_a_pattern_fits_what_the_standard_library_says(glob: str, name: str) -> None:
    assert fits(glob, name) == fnmatch.fnmatchcase(name, glob)


@given(letters, letters)
def test_brackets_mean_themselves(before: str, after: str) -> None:
    assert fits("*[x]*", f"{before}[x]{after}")
    assert not fits("[x]", "x")


@pytest.mark.parametrize(("glob", "name", "does"), [
    ("", "", True), ("", "a", False), ("*", "", True), ("billing-*", "billing-", True),
    ("billing-*", "Billing-eu", False),
])  # fmt: skip
def test_edges(glob: str, name: str, does: bool) -> None:
    assert fits(glob, name) is does


def test_a_pattern_of_many_stars_is_no_trap() -> None:
    assert not fits("*a" * 30 + "b", "a" * 128)
