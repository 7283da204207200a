"""CrewAI as OpenLLMetry tells it: crews, tasks and agents as attributes ``crewai.*``, values as Python reprs.

There are no spans of tools or models: what a crew did stands in the messages of its tasks' outputs, on the crew's span.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.semconv.content import is_marker, literal, structured
from sidecar.core.semconv.facts import Facts, Part, Turn
from sidecar.core.semconv.genai import offered
from sidecar.core.semconv.messages import turns
from sidecar.core.semconv.names import CREWAI as NAMES
from sidecar.core.semconv.names import first, text
from sidecar.core.span import Span

MAX_OUTPUTS = 131_072
"""Characters of a crew's outputs that are read; walking and reading them takes about 0.2 ms for each thousand."""
_TASK, _AGENT = "crewai.task.description", "crewai.agent.role"
KEYS = frozenset((_TASK, _AGENT, "crewai.crew.tasks_output", "crewai.crew.result", "crewai.crew.tasks",
                  "crewai.crew.id"))  # fmt: skip


def claims(span: Span) -> bool:
    """Whether `span` is of a crew, a task or an agent."""
    return not KEYS.isdisjoint(span.attributes)


def read(span: Span) -> Facts:
    """Facts of `span`: words of a task, or what the tasks of a crew did."""
    get = span.attributes.get
    facts = Facts(kind="agent", failed=span.status == 2, agent_name=text(first(get, NAMES["agent_name"])))
    if _TASK in span.attributes:
        facts.inputs = _said("user", get(_TASK))
        facts.outputs = _said("assistant", first(get, NAMES["answer"]))
        if facts.outputs is None and not facts.failed:
            facts.withheld += ("outputs",)
    elif _AGENT in span.attributes:
        facts.system = tuple(words for name in NAMES["system"] if (words := text(get(name))))
    else:
        _transcript(facts, get("crewai.crew.tasks_output"), get("crewai.crew.tasks"))
        if facts.outputs is None:
            facts.outputs = _said("assistant", get("crewai.crew.result"))
    if (told := first(get, NAMES["tools"])) is not None:
        facts.tools = offered(told)
    return facts


def _said(role: str, words: Any) -> tuple[Turn, ...] | None:
    if not isinstance(words, str) or not words.strip() or is_marker(words):
        return None
    return (Turn(role, (Part("text", words),)),)


def _transcript(facts: Facts, told: Any, tasks: Any) -> None:
    """Every task's request, what its agent then did, and what it answered. The agent's prompt, which repeats the
    request with the framework's own words round it, is left out."""
    if not isinstance(told, str):
        requests = [task.get("description") for task in _listed(tasks) if isinstance(task, dict)]
        said = [turn for words in requests for turn in _said("user", words) or ()]
        facts.inputs = tuple(said) or None
        return
    found: list[Turn] = []
    for output in outputs_of(told[:MAX_OUTPUTS]):
        found += _said("user", output.get("description")) or ()
        messages = output.get("messages")
        answer = output.get("raw")
        for turn in turns(messages, "user")[0] if isinstance(messages, list) else ():
            parts = tuple(part for part in turn.parts if part.type != "text" or part.text != answer)
            if turn.role not in ("user", "system") and parts:
                found.append(Turn(turn.role, parts))
        found += _said("assistant", answer) or ()
    if found and found[-1].role == "assistant" and all(part.type == "text" for part in found[-1].parts):
        facts.outputs = (found.pop(),)
    facts.inputs = tuple(found) or None
    if len(told) > MAX_OUTPUTS or told.rstrip()[-1:] != "]":
        facts.cut += ("inputs",)


def _listed(value: Any) -> list[Any]:
    value = literal(structured(value)[0])
    return value if isinstance(value, list) else []


def outputs_of(told: str) -> list[dict[str, Any]]:
    """Fields of each ``TaskOutput(description='…', raw='…', messages=[…], …)`` in a repr of a list of them.

    Such a repr is not Python (it holds ``<OutputFormat.RAW: 'raw'>``): its fields are cut out by brackets and quotes,
    and only the ones that are asked for are read, one message at a time.
    """
    found: list[dict[str, Any]] = []
    for start, end in _pieces(told, told.find("[") + 1):
        opening = told.find("(", start, end)
        if opening < 0:
            continue
        output: dict[str, Any] = {}
        for at, to in _pieces(told, opening + 1, end):
            name, _, value = told[at:to].partition("=")
            name = name.strip()
            if name in ("description", "raw"):
                output[name] = _text_of(value)
            elif name == "messages" and value[:1] == "[":
                whole = (literal(value[a:b].strip()) for a, b in _pieces(value, 1))
                output[name] = [message for message in whole if isinstance(message, dict)]
        found.append(output)
    return found


def _text_of(shown: str) -> Any:
    read = literal(f"[{shown}]")
    return read[0] if isinstance(read, list) and len(read) == 1 else None


def _pieces(told: str, start: int, end: int | None = None) -> list[tuple[int, int]]:
    """Where the comma-separated pieces from `start` to the bracket that closes them, or to `end`, begin and end."""
    pieces: list[tuple[int, int]] = []
    depth, at, begun, size = 0, start, start, len(told) if end is None else end
    while at < size:
        char = told[at]
        if char in "'\"":
            at = _end_of_quote(told, at)
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            if depth == 0:
                break
            depth -= 1
        elif char == "," and depth == 0:
            pieces.append((begun, at))
            begun = at + 1
        at += 1
    if begun < min(at, size):
        pieces.append((begun, min(at, size)))
    return pieces


def _end_of_quote(told: str, at: int) -> int:
    """Where the quoted text that begins at `at` ends; the end of all where nothing closes it."""
    quote, seek = told[at], at + 1
    while (end := told.find(quote, seek)) >= 0:
        behind = end - 1
        while behind > at and told[behind] == "\\":
            behind -= 1
        if (end - 1 - behind) % 2 == 0:
            return end
        seek = end + 1
    return len(told)
