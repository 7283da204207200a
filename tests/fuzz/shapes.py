"""What every reading of a span must be, whatever the span: the types that `Facts` promises, within its bounds."""

from __future__ import annotations

from typing import Any

from sidecar.core.events import UNSCORED
from sidecar.core.semconv.facts import MAX_PARTS, Facts, Turn, plain_text
from sidecar.core.span import Span

CONTENT = frozenset(("arguments", "result", "inputs", "outputs"))
TEXTS = ("session", "parent_session", "agent_name", "agent_id", "agent_version", "user", "tool", "description",
         "call_id", "model")  # fmt: skip
GROWTH = 16
"""How many times a span's own size its facts may be; JSON within JSON and escapes change the length of a text."""


def check(facts: Facts | None, span: Span) -> None:
    """Fails where `facts` of `span` are not what they promise to be."""
    if facts is None:
        return
    assert facts.kind in ("tool", "model", "agent", "context")
    for field in TEXTS:
        assert type(getattr(facts, field)) is str, field
    for field in ("piece", "failed", "gated", "opaque"):
        assert type(getattr(facts, field)) is bool, field
    for field in ("input_tokens", "output_tokens"):
        assert type(count := getattr(facts, field)) is int, field
        assert -1 <= count < 2**53, field
    for field in ("withheld", "cut"):
        assert CONTENT.issuperset(getattr(facts, field)), field
    assert set(UNSCORED).issuperset(facts.unscored)
    assert all(type(reason) is str for reason in facts.finish)
    for names in (facts.system, facts.tools):
        assert names is None or (type(names) is tuple and all(type(name) is str for name in names))
    for said in (facts.inputs, facts.outputs):
        assert (parts := _parts(said)) <= MAX_PARTS, parts
    for value in (facts.arguments, facts.result):
        assert _is_content(value), type(value)
    assert size(facts.inputs) + size(facts.outputs) + size(facts.system) + size(facts.tools) + size(
        facts.arguments
    ) + size(facts.result) <= GROWTH * (size(span.attributes) + size(span.body) + size(span.name) + sum(
        size(event.attributes) + size(event.name) for event in span.events
    ) + size(span.status_message)) + 4096  # fmt: skip


def _parts(turns: tuple[Turn, ...] | None) -> int:
    if turns is None:
        return 0
    assert type(turns) is tuple
    count = 0
    for turn in turns:
        assert type(turn) is Turn
        assert type(turn.role) is str
        assert type(turn.parts) is tuple
        count += max(1, len(turn.parts))
        for part in turn.parts:
            assert part.type in ("text", "reasoning", "call", "response", "opaque")
            assert all(type(told) is str for told in (part.text, part.id, part.name))
            assert _is_content(part.value), type(part.value)
    return count


def _is_content(value: Any) -> bool:
    """Whether a value can be compared, told as a text and scanned."""
    assert type(plain_text(value)) is str
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
        elif not (item is None or isinstance(item, (str, int, float, bytes))):
            return False
    return True


def size(value: Any) -> int:
    """Characters of all texts in a value, and some for everything else."""
    total, stack = 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, (str, bytes)):
            total += len(item)
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
        elif hasattr(item, "__struct_fields__"):
            stack.extend(getattr(item, field) for field in item.__struct_fields__)
        else:
            total += 8
    return total
