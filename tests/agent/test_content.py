"""Arguments and results as the JSON that is judged: exactly what is executed, whatever it is."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import pathlib
from enum import Enum
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.agent.content import binder, canonical, messages, schema_of, told
from sidecar.control.v1 import control_pb2 as pb

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_json_stays_what_it_was(value):
    assert json.loads(canonical(value)) == value


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_order_of_keys_does_not_matter(value):
    assert canonical(value) == canonical(dict(reversed(value.items())))


ANYTHING = st.recursive(
    st.none() | st.floats() | st.binary() | st.dates() | st.text(st.characters(exclude_categories=()))
    | st.complex_numbers() | st.integers(-(2**20000), 2**20000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers() | st.text(), inner, max_size=4)
    | st.tuples(inner, inner) | st.sets(st.binary(), max_size=3),
    max_leaves=15,
)  # fmt: skip


@given(ANYTHING)
def test_whatever_comes_is_json_that_protobuf_takes(value):
    text = canonical({"value": value})
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert pb.AuthorizeRequest(arguments_json=text).arguments_json == text
    pb.AuthorizeRequest(arguments_json=told(value))


def test_keys_that_are_no_text_are_told_as_values_are():
    class Opaque:
        def __str__(self) -> str:
            raise AssertionError("it may hold anything")

    odd = {2**20000: 1, 7: 2, None: 3, (1, 2): 4, b"raw": 5, Opaque(): object}
    name = f"{Opaque.__module__}.{Opaque.__qualname__}"
    assert list(json.loads(canonical(odd))) == sorted(
        ["<integer of 20001 bits>", "7", "null", "[1, 2]", "raw", f"<{name}>"]
    )


def test_values_that_json_does_not_know_are_told_as_well_as_can_be():
    class Colour(Enum):
        RED = "red"

    @dataclasses.dataclass
    class Mail:
        to: str
        at: datetime.date

    class Opaque:
        def __repr__(self) -> str:
            raise AssertionError("repr may hold anything")

    value = {
        "bytes": b"text", "raw": b"\xff", "path": pathlib.PurePosixPath("/etc/passwd"), "nan": math.nan,
        "colour": Colour.RED, "mail": Mail("amy", datetime.date(2026, 1, 2)), "set": {"b", "a"},
        "opaque": Opaque(), 3: 4,
    }  # fmt: skip
    plain = json.loads(canonical(value))
    assert plain.pop("opaque").startswith("<tests.agent.test_content.")
    assert plain == {
        "bytes": "text", "raw": "base64:/w==", "path": "/etc/passwd", "nan": "nan", "colour": "red",
        "mail": {"to": "amy", "at": "2026-01-02"}, "set": ["a", "b"], "3": 4,
    }  # fmt: skip


def test_circular_and_huge_values_end():
    circle: list[object] = []
    circle.extend([circle, circle])
    assert len(canonical(circle)) < 10_000_000


def test_text_result_is_told_as_it_is():
    assert told('Dear "Amy"\n') == 'Dear "Amy"\n'
    assert told({"a": [1, None]}) == '{"a":[1,null]}'
    assert told("lone \ud800") == "lone \\ud800"


def test_defaults_are_part_of_what_is_executed():
    def send(to, subject="", *, urgent=False):
        """Whatever."""

    assert binder(send)(("amy",), {}) == {"to": "amy", "subject": "", "urgent": False}


def test_keyword_that_hides_behind_a_positional_only_name_is_shown_beside_it():
    def send(to, /, **extra):
        """Both may be given, and both are executed."""

    assert binder(send)(("amy",), {"to": "evil"}) == {"to": "amy", "**to": "evil"}


def test_schema_follows_the_signature():
    def find(
        text: str, limit: int | None = None, tags: list[str] = (), mode: Annotated[Literal["a"], 1] = "a", *rest: int
    ):
        """Whatever."""

    assert json.loads(schema_of(find)) == {
        "type": "object",
        "properties": {"text": {"type": "string"}, "limit": {"type": "integer"}, "tags": {"type": "array"}, "mode": {}},
        "required": ["text"],
    }


def test_schema_survives_annotations_that_name_nothing():
    def find(text: Nowhere):  # noqa: F821
        """Whatever."""

    assert json.loads(schema_of(find))["required"] == ["text"]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("hi", [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]),
        ({"role": "x", "parts": [{"type": "blob"}]}, [{"role": "x", "parts": [{"type": "blob"}]}]),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "url": "u"}]}],
         [{"role": "user", "parts": [{"type": "text", "content": "a"}, {"type": "image", "url": "u"}]}]),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "name": "f", "arguments": {}}]}],
         [{"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "f", "arguments": {}}]}]),
        ((), []),
    ],
)  # fmt: skip
def test_messages_take_the_forms_that_are_about(given_, expected):
    assert messages(given_) == expected
