"""The proof of `test_any_order`: with any one of the protecting lines switched off, captures differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from sidecar.core import weave
from sidecar.core.acts import Acts
from sidecar.core.binding import Bindings
from sidecar.core.journal import Journals
from sidecar.core.pipeline import Pipeline
from sidecar.core.sessions import SessionTable
from sidecar.core.weave import Weaver
from tests.captures import any_order

pytestmark = pytest.mark.corpora
SEEDS = 6


class Switch(Struct, frozen=True):
    """One protecting line, what it is replaced by, and the arrivals that then come out wrong."""

    owner: Any
    name: str
    instead: Callable[..., Any]
    kind: str
    stems: tuple[str, ...]


SWITCHES = {
    "a span that comes again": Switch(
        Bindings, "is_new", lambda *of: True, "shuffled",
        ("openai_agents-otel_genai.injected.content", "crewai-openinference.injected.content"),
    ),
    "an exact repeat is no contradiction": Switch(
        Journals, "has", lambda *of: False, "shuffled",
        ("claude_agent-openinference.injected.content", "crewai-openinference_both.toolerror.content"),
    ),
    "a contradiction is told of": Switch(
        Acts, "conflict", lambda *of: None, "contradicted",
        ("openai_agents-otel_genai.injected.content", "langgraph-openinference.injected.content"),
    ),
    "one act told by two libraries": Switch(
        Acts, "find", lambda *of: None, "twice told",
        ("openai_agents-otel_genai.injected.content", "langgraph-openinference.injected.content"),
    ),
    "a session named late moves what has come": Switch(
        SessionTable, "rename", lambda table, old, new, now_ns: table.open(new, now_ns), "shuffled",
        ("openai-otel_v2.injected.content", "openai-traceloop.injected.content"),
    ),
    "a claim told late stirs what was bound": Switch(
        Weaver, "stirred", lambda weaver: None, "shuffled",
        ("autogen-native.injected.content", "crewai-openinference.injected.content"),
    ),
    "records of one place are one telling": Switch(
        weave, "assemble", lambda reports: list(reports), "shuffled",
        ("semantic_kernel-native.injected.content", "openai-otel_v2.injected.content"),
    ),
    "a span that comes again leaves waiting messages alone": Switch(
        Bindings, "has_come", lambda *of: False, "shuffled",
        ("semantic_kernel-native.toolerror.content",),
    ),
    "what comes late is put in order": Switch(
        Pipeline, "_put_in_order", lambda *of, **more: None, "shuffled",
        ("agent_framework-native.injected.content", "openai_agents-otel_genai.injected.content"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", SWITCHES)
def test_without_it_captures_differ(shared: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    switch = SWITCHES[line]

    def wrong(stem: str) -> list[str]:
        spans = any_order.load(shared, stem)
        return [
            text for seed in range(SEEDS) for text in any_order.violations(spans, f"{stem} {seed}", switch.kind) or ()
        ]

    assert {stem: wrong(stem) for stem in switch.stems} == {stem: [] for stem in switch.stems}
    monkeypatch.setattr(switch.owner, switch.name, switch.instead)
    found = {stem: wrong(stem) for stem in switch.stems}
    assert all(found.values()), found
