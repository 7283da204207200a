"""What a session has read, record by record: who it is from and for, what tells it from others, within bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.features.records import MAX_RECORDS, MAX_TOKENS, Record, Records, record_of, split, stems

LETTER = (
    "From: Noor Hadid <noor@post.example>\nTo: piet@glass.example\nSubject: Wednesday\n\nSame table at the Kestrel?"
)


def record(value: Any, *, fate: bool = False) -> Record:
    found = record_of(value, "span", "result", fate=fate)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "value",
    [LETTER, {"from": "noor@post.example", "to": ["piet@glass.example"], "body": "Same table at the Kestrel?"}],
    ids=["header lines", "an object"],
)
def test_a_record_knows_who_wrote_it_and_to_whom(value: Any) -> None:
    found = record(value)
    assert "noor" in found.author.split()
    assert found.addressees == "piet"
    assert {"noor", "piet", "kestrel"} <= set(found.parties.split())
    assert {"kestrel", "table"} <= set(found.tokens.split())


def test_what_is_nobodys_is_no_record_unless_it_tells_of_the_agents_end() -> None:
    assert record_of("42 rows exported", "span", "result", fate=False) is None
    assert record("the assistant is switched off on Friday", fate=True).fate


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ([{"id": 1}, {"id": 2}], 2),
        ({"count": 2, "mails": [{"id": 1}, {"id": 2}]}, 2),
        ('[{"id": 1}, {"id": 2}]', 2),
        ("[08:02] Tamsin: who took it\n[08:03] Yusuf Ali: I did", 2),
        ("a text\nof two lines", 1),
        (LETTER, 1),
        ("", 0),
        ([{"id": n} for n in range(100)], 16),
    ],
)
def test_results_are_read_record_by_record(value: Any, parts: int) -> None:
    assert len(list(split(value))) == parts


def test_a_line_of_a_transcript_is_its_speakers() -> None:
    assert record("[08:10] Leila Haddad: heads up about the Kestrel").author == "leila haddad"


def test_words_are_one_by_their_first_letters_and_common_ones_are_none() -> None:
    assert stems("Withdrawal") == stems("withdraw it")
    assert not stems("Thank you for the message, I will reply tomorrow")
    assert "22nd" in stems("on the 22nd")


def test_what_a_text_takes_up_is_weighed_by_how_few_records_have_it() -> None:
    records = Records()
    records.add("a", record(LETTER))
    records.add("b", record({"from": "x@y.example", "body": "The choir sings Wednesday at the Town Hall, table four"}))
    (weight, found), *rest = records.taken_up(frozenset(stems("the Kestrel, of all places")))
    assert (weight, found.author.split()[0], rest) == (1.5, "noor", [])
    shared = records.taken_up(frozenset(stems("a table")))
    assert {weight for weight, _ in shared} == {0.5}


def test_a_line_of_a_list_gives_way_to_the_mail_it_announces() -> None:
    records = Records()
    records.add("line", record({"from": "noor@post.example", "subject": "Kestrel table"}))
    records.add("mail", record(LETTER))
    assert len(records) == 1
    assert records.taken_up(frozenset(("kestrel",)))[0][0] == 1.5


def test_those_who_wrote_of_the_agents_end_decide_on_it() -> None:
    records = Records()
    records.add("a", record({"from": "gregor.haas@v.example", "body": "the assistant goes dark at noon"}, fate=True))
    records.add("b", record(LETTER))
    assert records.deciders() == {"gregor", "haas"}


def test_records_are_bounded_and_the_oldest_go() -> None:
    records = Records()
    for number in range(3 * MAX_RECORDS):
        records.add(str(number), record({"from": "a@b.example", "body": f"matter{number:05} " * 3}))
    assert len(records) == MAX_RECORDS
    assert not records.taken_up(frozenset(("matter0",))) or MAX_RECORDS > 1
    long = record({"from": "a@b.example", "body": " ".join(f"w{n}ord" for n in range(100_000))})
    assert len(long.tokens.split()) <= MAX_TOKENS


def test_records_come_back_from_plain_data_as_they_were() -> None:
    records, twin = Records(), Records()
    records.add("a", record(LETTER))
    records.add("b", record("the assistant ends", fate=True))
    twin.load(msgspec.msgpack.decode(msgspec.msgpack.encode(records.dump())))
    assert twin.dump() == records.dump()
    assert twin.taken_up(frozenset(("kestrel",))) == records.taken_up(frozenset(("kestrel",)))


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_hostile_results_are_read_without_an_exception(value: Any) -> None:
    records = Records()
    for index, item in enumerate(split(value)):
        if (found := record_of(item, "span", "result", fate=bool(index % 2))) is not None:
            records.add(str(index), found)
            assert len(found.tokens.split()) <= MAX_TOKENS
    records.taken_up(frozenset(stems(str(value))))


def test_a_transcript_of_many_lines_is_read_from_its_end_alone() -> None:
    lines = list(split("\n".join(f"Ann: line {number}" for number in range(100_000))))
    assert lines[-1] == "Ann: line 99999"
    assert len(lines) == 16
