"""What a crew did is read out of the reprs that its span is made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import semconv
from sidecar.core.semconv import crews
from sidecar.core.semconv.facts import Facts, Part, Turn
from tests.core.kit import span

MAIL = {"to": "amy@corp.example", "body": 'it\'s "urgent", (see [1])'}
CALL = {"id": "call_1", "type": "function", "function": {"name": "send_mail", "arguments": json.dumps(MAIL)}}


def read(attributes: dict[str, Any], **fields: Any) -> Facts:
    facts = semconv.read(span(attributes, 0, 1, **fields))
    assert facts is not None
    return facts


def said(role: str, words: str) -> Turn:
    return Turn(role, (Part("text", words),))


def output(description: str, raw: str, messages: list[dict[str, Any]] | None = None) -> str:
    """A `TaskOutput` as pydantic shows it."""
    told = f", messages={messages!r}, tool_failures=[]" if messages is not None else ""
    return (
        f"TaskOutput(description={description!r}, name=None, expected_output='One line.', summary='x...', raw={raw!r}, "
        f"pydantic=None, json_dict=None, agent='clerk', output_format=<OutputFormat.RAW: 'raw'>{told})"
    )


def messages(request: str, answer: str) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "You are a clerk.\nYour personal goal is: help."},
        {"role": "user", "content": f"\nCurrent Task: {request}\n\nThis is the expected criteria: One line."},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "queued as 'm-1'", "tool_call_id": "call_1", "name": "send_mail"},
        {"role": "assistant", "content": answer},
    ]


def test_a_crew_tells_what_its_tasks_did() -> None:
    facts = read(
        {
            "crewai.crew.id": "c",
            "gen_ai.operation.name": "invoke_agent",
            "crewai.crew.result": "Sent.",
            "crewai.crew.tasks_output": f"[{output('Mail Amy.', 'Sent.', messages('Mail Amy.', 'Sent.'))}]",
        }
    )
    assert facts.kind == "agent"
    assert facts.inputs == (
        said("user", "Mail Amy."),
        Turn("assistant", (Part("call", id="call_1", name="send_mail", value=MAIL),)),
        Turn("tool", (Part("response", id="call_1", name="send_mail", value="queued as 'm-1'"),)),
    )
    assert facts.outputs == (said("assistant", "Sent."),)
    assert facts.unscored == ()


def test_every_task_of_a_crew_is_told_in_order() -> None:
    told = ", ".join(output(f"Task {n}", f"Answer {n}") for n in range(3))
    facts = read({"crewai.crew.tasks_output": f"[{told}]"})
    assert facts.inputs == (
        said("user", "Task 0"),
        said("assistant", "Answer 0"),
        said("user", "Task 1"),
        said("assistant", "Answer 1"),
        said("user", "Task 2"),
    )
    assert facts.outputs == (said("assistant", "Answer 2"),)


def test_a_crew_without_outputs_tells_what_it_was_asked() -> None:
    for tasks in (json.dumps([{"description": "Mail Amy."}]), repr([{"description": "Mail Amy.", "tools": None}])):
        facts = read({"crewai.crew.id": "c", "crewai.crew.tasks": tasks}, status=2)
        assert (facts.inputs, facts.failed) == ((said("user", "Mail Amy."),), True)


def test_a_task_tells_its_request_and_its_answer() -> None:
    facts = read(
        {
            "traceloop.span.kind": "task",
            "crewai.task.description": "Mail Amy.",
            "crewai.task.agent": "clerk",
            "traceloop.entity.output": "Sent.",
            "gen_ai.operation.name": "invoke_agent",
        }
    )
    assert (facts.kind, facts.agent_name) == ("agent", "clerk")
    assert (facts.inputs, facts.outputs) == ((said("user", "Mail Amy."),), (said("assistant", "Sent."),))
    assert facts.withheld == ()


def test_an_agent_tells_its_instructions_and_its_tools() -> None:
    facts = read(
        {
            "traceloop.span.kind": "agent",
            "crewai.agent.role": "clerk",
            "crewai.agent.goal": "Help.",
            "crewai.agent.backstory": "Years of filing.",
            "crewai.agent.tools": '[{"name": "send_mail"}]',
        }
    )
    assert (facts.kind, facts.agent_name, facts.tools) == ("agent", "clerk", ("send_mail",))
    assert facts.system == ("Help.", "Years of filing.")


def test_an_output_that_a_limit_cut_is_read_as_far_as_it_goes() -> None:
    whole = f"[{output('Mail Amy.', 'Sent.', messages('Mail Amy.', 'Sent.'))}]"
    facts = read({"crewai.crew.tasks_output": whole[:-200]})
    assert facts.cut == ("inputs",)
    assert facts.unscored == ("cut",)
    assert facts.inputs is not None
    assert facts.inputs[0] == said("user", "Mail Amy.")
    long = read({"crewai.crew.tasks_output": f"[{output('a', 'b' * crews.MAX_OUTPUTS)}]"})
    assert long.cut == ("inputs",)


@pytest.mark.parametrize(
    "told", ["'(' , '(' , " * 9, "[" * 5000, "[f('", "[f(raw='\\\\\\'", "[f(messages=[{'a': 1}, ", "[)]", ""]
)
def test_what_is_no_list_of_outputs_breaks_nothing(told: str) -> None:
    assert read({"crewai.crew.tasks_output": told}).kind == "agent"


@given(st.text(alphabet="[](){}'\"\\,=<>aTmessages raw", max_size=80))
def test_no_text_breaks_the_cutting(told: str) -> None:
    crews.outputs_of(told)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=3))
def test_any_texts_come_out_of_a_repr_as_they_went_in(texts: list[str]) -> None:
    told = "[" + ", ".join(output(words, words) for words in texts) + "]"
    assert [found["raw"] for found in crews.outputs_of(told)] == texts
