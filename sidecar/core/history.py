"""Which part of a model's input is new: histories as chains of digests.

Every model call repeats what was said before. A chain digest stands for a history up to a point; a history that
continues a known chain is new from there on.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from sidecar.core.digests import act_digest, text_digest
from sidecar.core.semconv.facts import Facts, Part, Turn, plain_text

ASSISTANT = frozenset(("assistant", "model", "ai"))


def steps(turns: tuple[Turn, ...], chain: bytes = b"") -> Iterator[tuple[list[tuple[Turn, Part]], bytes, bool]]:
    """Walks a history: parts of each step, the digest of all up to there, and whether the step is the assistant's.

    A step is one part of anybody else's message, or all that the assistant said in a row, in whatever order and split;
    its reasoning does not count, nor what it said beside a tool call, since many clients do not send these back.
    """
    said: list[tuple[Turn, Part]] = []
    for turn in turns:
        if turn.role in ASSISTANT:
            said.extend((turn, part) for part in turn.parts)
            continue
        if said:
            chain = _link(chain, said)
            yield said, chain, True
            said = []
        for part in turn.parts:
            step = [(turn, part)]
            chain = _link(chain, step)
            yield step, chain, False
    if said:
        chain = _link(chain, said)
        yield said, chain, True


Step = tuple[list[tuple[Turn, Part]], bytes, bool]


def walk(facts: Facts) -> list[Step]:
    """The steps of a model call's input; worked out once, since a history may be long."""
    if facts.walked is None:
        facts.walked = list(steps(facts.inputs or ()))
    walked: list[Step] = facts.walked
    return walked


def ending(facts: Facts) -> bytes | None:
    """The chain digest after a model call, None where its input or output is not told."""
    if facts.outputs is None or not facts.inputs:
        return None
    walked = walk(facts)
    return extend(facts.outputs, walked[-1][1] if walked else b"")


def _link(chain: bytes, step: list[tuple[Turn, Part]]) -> bytes:
    parts = [part for _, part in step if part.type != "reasoning"]
    if any(part.type == "call" for part in parts):
        parts = [part for part in parts if part.type == "call"]
    digests = sorted(map(_part_digest, parts))
    return blake2b(chain + b"".join(digests), digest_size=16).digest()


def _part_digest(part: Part) -> bytes:
    if part.type == "text":
        return text_digest(part.text)
    if part.type == "call":
        return act_digest(part.name, part.value)
    return text_digest(f"{part.type}\0{part.id}\0{plain_text(part.value)}")


def extend(turns: tuple[Turn, ...], chain: bytes) -> bytes:
    """The chain digest after `turns` have been added to a history that ends in `chain`."""
    for _, link, _ in steps(turns, chain):
        chain = link
    return chain
