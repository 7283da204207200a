"""A history that comes again with every model call: each text is read once, a byte costs the same in every call."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sidecar.core import history
from sidecar.core.events import Message, ToolCall
from sidecar.core.journal import Journals
from sidecar.core.reading import Effect, Reading
from sidecar.core.sessions import SessionTable
from sidecar.core.span import Record, Span
from sidecar.core.weave import Weaver
from tests.core.kit import assistant, call, chat, response, turn, user

CALLS, ANSWER = 60, 6_500


class Counting(Weaver):
    """A weaver that counts how often each text and each act is read for detectors."""

    def __init__(self, journal_bytes: int) -> None:
        self.reads: Counter[str] = Counter()
        super().__init__(
            SessionTable(), read_arguments=self._arguments, read_text=self._text,
            journals=Journals(journal_bytes, lambda session: b""),
        )  # fmt: skip

    def _arguments(self, session: Any, tool: str, description: str, arguments: Any) -> Reading:
        self.reads[f"arguments {arguments}"] += 1
        return Reading(effect=Effect(tool=tool))

    def _text(self, session: Any, field: str, text: str, role: str) -> Reading:
        self.reads[text] += 1
        return Reading()


def conversation() -> list[Span]:
    """Model calls, each with all that was said before: a question, then calls, their answers and remarks on them."""
    told: list[Span] = []
    said: list[dict[str, Any]] = [user("please look into these")]
    for n in range(CALLS):
        answer = assistant(f"remark {n}", call(f"call_{n:016}", "open_file", {"path": f"/files/{n}"}))
        told.append(chat(said, [answer], start=10.0 * n, session="long", word=f"call {n}"))
        said = [*said, answer, turn("tool", response(f"call_{n:016}", f"file {n}: " + "words " * (ANSWER // 6)))]
    return told


def size(span: Span) -> int:
    return len(span.attributes["gen_ai.input.messages"]) + len(span.attributes["gen_ai.output.messages"])


@pytest.mark.parametrize("journal_bytes", [0, 1 << 26], ids=["live", "journal kept"])
def test_each_text_and_each_act_is_read_once_however_often_it_is_repeated(journal_bytes):
    weaver = Counting(journal_bytes)
    events = [
        event for span in conversation() for event in weaver.take(Record(span, arrived_ns=span.end_ns), span.end_ns)
    ]
    assert set(weaver.reads.values()) == {1}
    texts = [event for event in events if isinstance(event, Message)]
    ended = [event for event in events if isinstance(event, ToolCall) and event.phase == "ended"]
    assert (len(texts), len(ended)) == (1 + CALLS, CALLS - 1)
    assert sum(map(len, weaver.reads)) > 0.9 * size(conversation()[-1])


@pytest.mark.parametrize("journal_bytes", [0, 1 << 26], ids=["live", "journal kept"])
def test_a_call_digests_what_it_holds_once_and_nothing_of_the_calls_before(journal_bytes, monkeypatch):
    digested = 0

    def counted(text: str) -> bytes:
        nonlocal digested
        digested += len(text)
        return original(text)

    original = history.text_digest
    monkeypatch.setattr(history, "text_digest", counted)
    weaver, shares = Counting(journal_bytes), []
    for span in conversation():
        digested = 0
        weaver.take(Record(span, arrived_ns=span.end_ns), span.end_ns)
        shares.append(digested / size(span))
    assert max(shares) <= 1.0
    assert min(shares[10:]) > 0.8  # or nothing was counted


def test_journal_of_a_session_keeps_a_repeated_history_once():
    weaver = Counting(1 << 26)
    told = conversation()
    for span in told[:40]:
        weaver.take(Record(span, arrived_ns=span.end_ns), span.end_ns)
    assert weaver.journals.size_bytes < 2 * size(told[39])
