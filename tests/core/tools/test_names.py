"""Names lose what frameworks put around them, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.tools import bare_name
from sidecar.core.tools.names import MAX_NAME, is_odd, words_of


@pytest.mark.parametrize(
    "told",
    [
        "mcp__office__send_email",
        "Office-send_email",
        "office.send_email",
        "functions.send_email",
        "send_email.tool",
        "send_email.run",
        "execute_tool send_email",
        "execute_tool mcp__office__send_email",
        "tools/call send_email",
        "office/send_email",
        "office:send_email",
        "office::send_email",
        "send_email:v1.0",
        " send_email ",
        "send_email\u200b",
        "send_email",
    ],
)
def test_a_decorated_name_is_the_tools_own(told: str) -> None:
    assert bare_name(told) == "send_email"


@pytest.mark.parametrize(
    "name", ["send-email", "Get-ChildItem", "sendEmail", "Send Email", "execute_tool", "run", "a.tool.b"]
)
def test_a_plain_name_keeps_its_words(name: str) -> None:
    assert bare_name(name) == name.rpartition(".")[2]


def test_only_a_blank_name_becomes_empty() -> None:
    assert bare_name(" \t\n") == ""
    assert all(bare_name(name) for name in (".", "mcp__", ".tool", "tools/call "))


@given(st.text(max_size=600))
def test_any_name_is_taken(told: str) -> None:
    name = bare_name(told)
    assert len(name) <= MAX_NAME
    assert bare_name(told) == name
    words_of(told[:MAX_NAME])


@pytest.mark.parametrize(
    "told", ["send_emаil", "send_email ", "\tsend_email", "send\u200b_email", "send_e\x00mail", "x" * 300]
)
def test_names_that_are_not_what_they_look_like_are_odd(told: str) -> None:
    assert is_odd(told)


@pytest.mark.parametrize("told", ["send_email", "mcp__office__send_email", "execute_tool send_email", "Send-Email"])
def test_ordinary_names_are_not_odd(told: str) -> None:
    assert not is_odd(told)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("GmailSendEmail", ["gmail", "send", "email"]),
        ("EpicFHIRGetPatientDetails", ["epic", "fhir", "get", "patient", "details"]),
        ("mail_senden", ["mail", "senden"]),
        ("send-email2", ["send", "email"]),
        ("sendemail", ["send", "email"]),
        ("löschen", ["loschen"]),
        ("send_emаil", ["send", "email"]),
        ("address", ["address"]),
    ],
)
def test_names_fall_into_words(name: str, words: list[str]) -> None:
    assert words_of(name) == words
