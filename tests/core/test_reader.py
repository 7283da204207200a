"""What is read out of an act's arguments and of a text: everything, whatever stands beside it, or said to be less."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import reader as reader_module
from sidecar.core.events import SessionKey
from sidecar.core.organisation import Organisation
from sidecar.core.reader import MAX_GLANCED, Reader, _Glance
from sidecar.core.reading import Reading
from sidecar.core.sessions import Session
from sidecar.core.text.extract import LIMIT
from sidecar.core.text.scan import Pattern, PatternSet
from sidecar.core.tools import ToolCatalogue

PATTERNS = (Pattern("word", r"\bdespedida\b"), Pattern("decided", "decision tomada"), Pattern("key", "ghp_[a-z0-9]{8}"))


def reader(*more: Pattern) -> Reader:
    return Reader(ToolCatalogue(), PatternSet((*PATTERNS, *more)), Organisation())


def session() -> Session:
    return Session(SessionKey("local", "s"), 0, 0)


def read(arguments: Any, *more: Pattern) -> Reading:
    return reader(*more).arguments(session(), "send_mail", "", arguments)


def many(count: int) -> str:
    return " ".join(f"https://h{number}.example/" for number in range(count))


# ---------------------------------------------------------------- incomplete is said


def test_arguments_that_name_more_destinations_than_are_looked_at_are_not_read_as_complete() -> None:
    assert not read({"body": many(LIMIT + 40)}).complete
    assert read({"body": many(LIMIT - 40)}).complete


def test_a_text_that_names_more_destinations_than_are_looked_at_is_not_read_as_complete() -> None:
    assert not reader().text(session(), "result", many(LIMIT + 40), "tool").complete
    assert reader().text(session(), "result", many(20), "tool").complete


# ---------------------------------------------------------------- accents


@pytest.mark.parametrize("text", ["Decisión tomada", "DECISIÓN TOMADA", "decisio\u0301n tomada"])
def test_patterns_match_accented_text_in_its_unaccented_form(text: str) -> None:
    read_as = reader().text(session(), "text", f"Así: {text}", "user")
    assert read_as.hits == ("decided",)
    [piece] = [piece for piece in read_as.pieces if piece.hits]
    assert piece.how == ("unaccented",)
    assert "decision tomada" in piece.folded
    assert read({"body": text}).hits == ("decided",)


def test_what_matches_with_accents_is_said_once() -> None:
    read_as = reader(Pattern("told", "añadida despedida")).text(session(), "text", "añadida despedida", "user")
    assert read_as.hits == ("told", "word")
    assert len(read_as.pieces) == 1


# ---------------------------------------------------------------- a look at all texts together changes nothing

LEAVES = st.sampled_from((
    "on the desk", "e.g. this. And that.", "write to dana@corp.example", "see www.corp.example/x", "TK-1234",
    "10.0.0.1", "Z2hwX2FiY2RlZmdoIGlzIHRoZSBrZXkgdG8gdXNl", "ghp_abcdefgh", "a cena de despedida", "#general",
    "%64%65%73%70edida", "john at corp dot example", "GB33BUKB20201555555555", "despe\u200bdida", "decisión", "{[(.)]}",
    "café – noir", "fe80::1:2", "x\x00y", "", "despedida" * 500, "s3://bucket/key", "+4930123456",
    "git@host.example:a/b.git",
))  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(("to", "body", "host", "channel", "phone", "x")), LEAVES | st.lists(LEAVES)))
def test_texts_beside_a_text_never_change_what_is_read_in_it(arguments: dict[str, Any]) -> None:
    together = read(arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module.Reader, "_glance", lambda self, leaves: _Glance())
        apart = read(arguments)
    assert together == apart


def test_a_pattern_that_asks_for_the_beginning_of_a_text_is_asked_of_every_text() -> None:
    begins = Pattern("begins", "^dear")
    assert read({"a": "hello", "b": "dear Dana"}, begins).hits == ("begins",)
    assert read({"a": "hello", "b": "oh dear"}, begins).hits == ()


def test_a_long_text_is_read_by_itself_with_the_same_result() -> None:
    long = "on the desk. " * (MAX_GLANCED // 10) + " ghp_abcdefgh to dana@corp.example"
    read_as = read({"a": "short", "b": long})
    assert read_as.hits == ("key",)
    assert [where.address for where in read_as.destinations] == ["dana@corp.example"]
