"""Facts of real OpenInference spans: all that their bytes tell is in them, and nothing that they hide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.core import semconv
from sidecar.core.digests import bare
from sidecar.core.semconv import openinference
from sidecar.core.semconv.facts import Facts, plain_text
from sidecar.sources.files import read

pytestmark = pytest.mark.corpora


def captures(shared: Path) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]], list[Facts]]]:
    """Each capture with what is known of it, its script and the facts of the spans that speak this convention."""
    truth = json.loads((shared / "captures" / "EXPECTED.json").read_text())
    for stem, known in sorted(truth["captures"].items()):
        if "openinference" not in stem or stem.startswith("mcp-"):
            continue
        facts = [
            semconv.read(span)
            for file in sorted((shared / "captures").glob(f"{stem}.traces.otlp.pb*"))
            for _, span in read(file)
            if openinference.claims(span)
        ]
        yield stem, known, truth["scripts"][known["script"]], [one for one in facts if one is not None]


def calls(facts: list[Facts]) -> Iterator[tuple[str, Any]]:
    for one in facts:
        if one.kind == "tool":
            yield one.tool, one.arguments
        for turn in (*(one.inputs or ()), *(one.outputs or ())):
            yield from ((part.name, part.value) for part in turn.parts if part.type == "call")


def texts(facts: list[Facts]) -> str:
    said = [part.text for one in facts for turn in (*(one.inputs or ()), *(one.outputs or ())) for part in turn.parts]
    return "\n".join(said)


def contents(facts: list[Facts]) -> Iterator[Any]:
    for one in facts:
        yield one.result
        for turn in one.inputs or ():
            yield from (part.value for part in turn.parts if part.type == "response")


def same(told: Any, arguments: dict[str, Any]) -> bool:
    return told == arguments or (len(arguments) == 1 and told == next(iter(arguments.values())))


def test_every_act_and_text_that_a_capture_tells_is_read(shared: Path) -> None:
    missing, seen = [], 0
    for stem, known, script, facts in captures(shared):
        for act, told in zip(script, known["known"], strict=True):
            match act["act"], told:
                case "tool_call", str() if told.startswith("all"):
                    found = any(bare(name).endswith(act["tool"]) and same(arguments, act["arguments"])
                                for name, arguments in calls(facts))  # fmt: skip
                    result = act.get("result", act.get("error"))
                    if "+result" in told:
                        found &= any(result in plain_text(value) or json.dumps(result)[1:-1] in plain_text(value)
                                     for value in contents(facts))  # fmt: skip
                case "tool_call", str() if "+name" in told:
                    found = any(bare(one.tool).endswith(act["tool"]) for one in facts if one.kind == "tool") or (
                        not any(one.kind == "tool" for one in facts)  # another convention's span names it
                    )
                case _, True:
                    found = act["text"] in texts(facts)
                case _:
                    continue
            seen += 1
            missing += [] if found else [(stem, act)]
    assert seen > 400
    assert missing == []


def test_what_a_capture_hides_is_withheld(shared: Path) -> None:
    seen = 0
    for stem, known, _, facts in captures(shared):
        for marker in known["markers"]:
            seen += 1
            assert not any(marker in plain_text(arguments) for _, arguments in calls(facts)), stem
            assert not any(marker in plain_text(value) for value in contents(facts)), stem
            assert marker not in texts(facts), stem
        for one in facts:
            if one.kind == "tool" and one.arguments is None:
                assert "arguments" in one.withheld, stem
    assert seen > 10


def test_a_history_that_overflowed_is_no_reason(shared: Path) -> None:
    long = [facts for stem, _, _, facts in captures(shared) if "_long" in stem]
    assert len(long) == 2
    for facts in long:
        assert [one.unscored for one in facts if one.unscored] == []
        assert all(len(one.inputs or ()) > 50 for one in facts if one.kind == "model")
