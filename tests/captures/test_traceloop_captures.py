"""What OpenLLMetry's and LangSmith's spans say is read out of real captures, whatever the weaver then makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.core import semconv
from sidecar.core.semconv.content import MARKERS
from sidecar.core.semconv.facts import Facts, plain_text
from sidecar.sources.files import read

pytestmark = pytest.mark.corpora
FAMILY = ("-traceloop", "-langsmith")


def captures(shared: Path) -> dict[str, tuple[dict[str, Any], list[Facts]]]:
    """By stem: what is expected, and the facts of its spans."""
    folder = shared / "captures"
    expected = json.loads((folder / "EXPECTED.json").read_text())
    found = {}
    for stem, told in expected["captures"].items():
        if any(part in stem for part in FAMILY):
            spans = [span for file in sorted(folder.glob(f"{stem}.*.otlp.pb*")) for _, span in read(file)]
            facts = [facts for span in spans if (facts := semconv.read(span)) is not None]
            found[stem] = ({**told, "acts": expected["scripts"][told["script"]]}, facts)
    return found


def test_every_act_and_text_that_the_bytes_tell_is_among_the_facts(shared: Path) -> None:
    missing = []
    for stem, (expected, facts) in captures(shared).items():
        calls, results, texts, names = [], [], [], []
        for one in facts:
            calls.append(one.arguments)
            results.append(plain_text(one.result))
            names.append(one.tool)
            for turn in (*(one.inputs or ()), *(one.outputs or ())):
                for part in turn.parts:
                    calls.append(part.value if part.type == "call" else None)
                    results.append(plain_text(part.value) if part.type == "response" else "")
                    texts.append((turn.role, part.text))
        for act, known in zip(expected["acts"], expected["known"], strict=True):
            if act["act"] != "tool_call":
                role = "user" if act["act"] == "user_message" else "assistant"
                if known is True and (role, act["text"]) not in texts:
                    missing.append((stem, act["text"]))
                continue
            if known.startswith("all") and act["arguments"] not in calls:
                missing.append((stem, act["tool"]))
            if known.endswith("+result") and not any(act.get("result", act.get("error")) in told for told in results):
                missing.append((stem, act["tool"], "result"))
            if known.endswith("+name") and act["tool"] not in names:
                missing.append((stem, act["tool"], "name"))
    assert missing == []


def test_what_is_switched_off_is_withheld_and_never_a_marker(shared: Path) -> None:
    quiet = 0
    for stem, (expected, facts) in captures(shared).items():
        for one in facts:
            assert one.arguments is None or plain_text(one.arguments) not in MARKERS
            assert plain_text(one.result) not in MARKERS
            if one.kind == "tool" and not any(str(known).startswith("all") for known in expected["known"]):
                assert one.arguments is None, stem
                assert {"arguments", "result"} <= set(one.withheld), stem
                quiet += 1
    assert quiet > 20
