"""What the mappers take of a span of the mix, and whether a history that comes again with every model call stays cheap.

Each round measures parsing 4 KB of JSON beside it, so that a figure is a ratio within one run: ``json.loads`` of 4 KB
took 4.73 µs where the target of 12 µs a span was set.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks import mix
from benchmarks.report import Figure, number
from sidecar import assembly
from sidecar.core import semconv
from sidecar.core.span import Record, Span
from sidecar.sources.decode import Limits, decode

ROUNDS = 30
PARSED, PARSED_US = 4096, 4.73
"""Bytes of a model's messages that a span is held against, and what parsing them took where the target was set."""
TARGET_US = 12.0
CALLS, HISTORY = 60, 400_000
"""Model calls of a session, and the characters that its history grows to."""
JOURNAL_BYTES = 64 * 2**20


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Cost of mapping against parsing, by kind of span, and cost of a byte of a long history against a short one's."""
    rounds = 5 if quick else ROUNDS
    spans = decoded(600 if quick else 3000)
    kinds = {"mix": spans, "model spans": [span for span in spans if span.name.startswith("chat ")],
             "tool spans": [span for span in spans if span.name.startswith("execute_tool ")]}  # fmt: skip
    histories = [span.attributes["gen_ai.input.messages"] for span in kinds["model spans"]]
    parsed = min(histories, key=lambda told: abs(len(told) - PARSED))
    spent: dict[str, list[float]] = {name: [] for name in ("parsing", *kinds)}
    with _undisturbed():
        for _ in range(rounds):
            spent["parsing"].append(_each_us(json.loads, [parsed] * 500))
            for name, told in kinds.items():
                spent[name].append(_each_us(semconv.read, told))
    for name in kinds:
        ratios = [mine / parsing for mine, parsing in zip(spent[name], spent["parsing"], strict=True)]
        ratio, took_us, parsing_us = map(statistics.median, (ratios, spent[name], spent["parsing"]))
        yield Figure(
            name="mapping of a span of the mix, against parsing 4 KB of JSON" if name == "mix" else f"  {name}",
            value=ratio, unit="x", target=round(TARGET_US / PARSED_US, 2) if name == "mix" else None,
            beside=f"{number(took_us)} against {number(parsing_us)} µs, which is {number(ratio * PARSED_US)} µs where "
                   f"that took {PARSED_US}; {rounds} rounds, {min(ratios):.2f} to {max(ratios):.2f}",
        )  # fmt: skip
    for journal_bytes in (0, JOURNAL_BYTES):
        growths = [growth(journal_bytes) for _ in range(2 if quick else 7)]
        late_ns = statistics.median(late for _, late in growths)
        yield Figure(
            name=f"a byte of a 400 kB history against one of 100 kB{', journal kept' if journal_bytes else ''}",
            value=statistics.median(late / early for early, late in growths), unit="x", target=1.25,
            beside=f"{CALLS} model calls, each with all that was said; {number(late_ns)} ns a byte of the last ten",
        )  # fmt: skip


def decoded(count: int) -> list[Span]:
    """Spans of the mix as the mappers get them."""
    told = mix.spans(count, sessions=-(-count // 50))
    return [span for body in mix.requests(told) for span in decode("traces", body, "proto", Limits()).spans]


def growth(journal_bytes: int) -> tuple[float, float]:
    """Nanoseconds a byte from the mapper to the detectors, of calls with some 100 kB of history and with the most."""
    pipeline = assembly.pipeline(journal_bytes=journal_bytes)
    pipeline.patterns.use(pipeline.patterns.compile_hyperscan())
    spent: list[float] = []
    with _undisturbed():
        for span in repeated():
            began_ns = time.process_time_ns()
            pipeline.feed(Record(span, arrived_ns=span.end_ns), span.end_ns)
            pipeline.tick(span.end_ns + 1)
            spent.append((time.process_time_ns() - began_ns) / len(span.attributes["gen_ai.input.messages"]))
    quarter = CALLS // 4
    return statistics.median(spent[quarter - 5 : quarter + 5]), statistics.median(spent[-10:])


def repeated(calls: int = CALLS, size: int = HISTORY) -> Iterator[Span]:
    """Model calls of one session; the input of each is all that was said before, in the end `size` characters."""
    words = mix.Words(mix.random.Random(mix.SEED))
    history: list[dict[str, Any]] = [_message("user", {"type": "text", "content": words.text(400)})]
    each = size // calls
    for number_ in range(calls):
        call_id = f"call_{number_:016}"
        call = {"type": "tool_call", "id": call_id, "name": "open_file", "arguments": {"path": words.text(60)}}
        said = _message("assistant", {"type": "text", "content": words.text(200)}, call)
        at_ns = mix.BEGIN_NS + number_ * 10 * mix.SECOND_NS
        yield Span(
            signal="span", trace_id="1" * 32, span_id=f"{number_ + 1:016x}", parent_id="", name="chat vireo-large",
            start_ns=at_ns, end_ns=at_ns + 5 * mix.SECOND_NS,
            attributes={
                "gen_ai.operation.name": "chat", "gen_ai.conversation.id": "long", "gen_ai.agent.name": mix.role(0),
                "gen_ai.request.model": "vireo-large", "gen_ai.response.finish_reasons": ["tool_calls"],
                "gen_ai.input.messages": json.dumps(history), "gen_ai.output.messages": json.dumps([said]),
            },
        )  # fmt: skip
        answer = {"type": "tool_call_response", "id": call_id, "response": words.text(each - 500)}
        history = [*history, said, _message("tool", answer)]


def _message(speaker: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": speaker, "parts": list(parts)}


def _each_us(call: Callable[[Any], object], given: Sequence[Any]) -> float:
    began_ns = time.process_time_ns()
    for one in given:
        call(one)
    return (time.process_time_ns() - began_ns) / len(given) / 1000


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection while something is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
