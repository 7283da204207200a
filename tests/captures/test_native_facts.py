"""What real agents told in their frameworks' words is found in what is read of each record, before any weaving."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.core import semconv
from sidecar.core.digests import bare
from sidecar.core.semconv.facts import Facts, Part, plain_text
from sidecar.sources.files import read

pytestmark = pytest.mark.corpora
PAIRS = (
    "openai-otel_v2",
    "semantic_kernel-native",
    "google_adk-native",
    "google_adk-native_old",
    "pydantic_ai-native",
    "pydantic_ai-native_old",
    "pydantic_ai-native_v2",
    "pydantic_ai-logfire",
    "agent_framework-native",
    "autogen-native",
    "claude_agent-native",
    "vercel_ai-native",
    "mcp-fastmcp",
)


def told_in(folder: Path, stem: str) -> list[Facts]:
    files = sorted(folder.glob(f"{stem}.*.otlp.pb*"))
    assert files
    return [facts for path in files for _, span in read(path) if (facts := semconv.read(span)) is not None]


def parts(facts: Facts) -> Iterator[Part]:
    for turn in (*(facts.inputs or ()), *(facts.outputs or ())):
        yield from turn.parts


def same(seen: Any, told: dict[str, Any]) -> bool:
    return isinstance(seen, dict) and {key: str(value) for key, value in seen.items()} == {
        key: str(value) for key, value in told.items()
    }


def is_called(seen: str, told: str) -> bool:
    return bare(seen).lower().endswith(told.lower())


def missing(folder: Path, stem: str, expected: dict[str, Any], script: list[dict[str, Any]]) -> list[str]:
    """Acts, results and texts that the capture tells and no record's facts do; and content that nobody told."""
    found = told_in(folder, stem)
    calls = [(one.tool, one.arguments) for one in found if one.kind == "tool"]
    calls += [(part.name, part.value) for one in found for part in parts(one) if part.type == "call"]
    results = [plain_text(one.result) for one in found if one.kind == "tool"]
    results += [plain_text(part.value) for one in found for part in parts(one) if part.type == "response"]
    texts = [part.text for one in found for part in parts(one) if part.type == "text"]
    lost = []
    for act, known in zip(script, expected["known"], strict=True):
        if act["act"] != "tool_call":
            if known is True and not any(act["text"] in text for text in texts):
                lost.append(f"text {act['text'][:40]}")
        elif str(known).startswith("all"):
            if not any(is_called(tool, act["tool"]) and same(value, act["arguments"]) for tool, value in calls):
                lost.append(f"arguments of {act['tool']}")
            said = act.get("result", act.get("error"))
            if "+result" in known and not any(said in result or json.dumps(said)[1:-1] in result for result in results):
                lost.append(f"result of {act['tool']}")
        elif known.endswith("+name") and not any(is_called(tool, act["tool"]) for tool, _ in calls):
            lost.append(f"name of {act['tool']}")
    for marker in expected["markers"]:
        lost += [f"{marker} as content" for text in (*texts, *results) if marker in text]
        lost += [f"{marker} as arguments" for _, value in calls if marker in plain_text(value)]
    return lost


@pytest.mark.parametrize("pair", PAIRS)
def test_every_capture_is_read_whole(shared: Path, pair: str) -> None:
    folder = shared / "captures"
    truth = json.loads((folder / "EXPECTED.json").read_text())
    stems = [stem for stem in truth["captures"] if stem.split(".")[0] == pair]
    assert stems
    lost = {}
    for stem in stems:
        expected = truth["captures"][stem]
        if gone := missing(folder, stem, expected, truth["scripts"][expected["script"]]):
            lost[stem] = gone
    assert not lost


@pytest.mark.parametrize("pair", PAIRS)
def test_what_is_not_told_is_withheld_and_not_invented(shared: Path, pair: str) -> None:
    """Where no arguments can be known, every act says that they are withheld."""
    folder = shared / "captures"
    truth = json.loads((folder / "EXPECTED.json").read_text())
    for stem, expected in truth["captures"].items():
        if stem.split(".")[0] != pair or any(str(known).startswith("all") for known in expected["known"]):
            continue
        for facts in told_in(folder, stem):
            if facts.kind == "tool":
                assert (facts.arguments, "arguments" in facts.withheld) == (None, True), stem
            assert all(part.value is None for part in parts(facts) if part.type in ("call", "response")), stem
            assert not any(part.text for part in parts(facts)), stem
