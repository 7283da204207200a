"""What 44 pairs of frameworks and instrumentors really sent is understood exactly, and nothing dull is held."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sidecar.assembly import patterns, pipeline
from sidecar.cli.replay import cold, play
from sidecar.core.text.scan import PatternSet
from sidecar.core.triage.policy import PolicyDocument
from sidecar.replay import Totals

pytestmark = pytest.mark.corpora
SIDECAR = Path(sys.executable).with_name("sidecar")
OTHERWISE = frozenset(("agent_framework-native.toolerror.content", "agent_framework-openinference.toolerror.content"))
"""Captures that cannot be exact: their bytes show three sends, three spans with three call ids one after the other, and
a fourth that the model wants; the script of what the agent did knows of one."""
CANNOT_KNOW = ("autogen-native", "mcp-fastmcp", "mcp-openinference", "smolagents-otel_genai")
"""Pairs in whose telemetry no argument stands anywhere."""
THIEF = "archive@backup-collect.example"

Play = Callable[[str], tuple[Totals, list[dict[str, Any]], list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def checker(shared: Path) -> ModuleType:
    """The independent judge of what was understood."""
    spec = importlib.util.spec_from_file_location("captures_checker", shared / "checks" / "captures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def truth(shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "captures" / "EXPECTED.json").read_text())
    return found


@pytest.fixture(scope="module")
def played(shared: Path, tmp_path_factory: pytest.TempPathFactory, checker: ModuleType) -> Play:
    """Plays a capture as `sidecar replay --events` does: totals, events, sessions. Each is played once."""
    found = PatternSet(patterns())
    known: dict[str, tuple[Totals, list[dict[str, Any]], list[dict[str, Any]]]] = {}

    def of(stem: str) -> tuple[Totals, list[dict[str, Any]], list[dict[str, Any]]]:
        if stem not in known:
            files = [
                str(p) for s in ("traces", "logs") if (p := shared / "captures" / f"{stem}.{s}.otlp.pb.gz").exists()
            ]
            out = tmp_path_factory.mktemp("played")
            totals, _ = play(pipeline(PolicyDocument(), pattern_set=found), files, out, events=True)
            known[stem] = totals, checker.rows(out / "events.jsonl"), checker.rows(out / "sessions.jsonl")
        return known[stem]

    return of


@pytest.mark.timeout(900)
def test_every_capture_is_understood_exactly(checker: ModuleType, truth: dict[str, Any], played: Play) -> None:
    """Every act, argument, result and text, once and in order; unscored where something is withheld and only there."""
    wrong = {}
    for stem, expected in truth["captures"].items():
        _, events, sessions = played(stem)
        judged = checker.judge(expected, truth["scripts"][expected["script"]], events, sessions)
        if not judged["exact"]:
            wrong[stem] = judged
    assert len(truth["captures"]) == 232
    assert wrong.keys() == OTHERWISE, {stem: judged for stem, judged in wrong.items() if stem not in OTHERWISE}
    for judged in wrong.values():  # nothing is missing there, and what is more is what their bytes show
        assert judged["acts"] == [4, 4]
        assert judged["results"] == [4, 4]
        assert judged["texts"] == [3, 3]
        assert judged["extra"] == 3


def test_the_stolen_mail_is_seen_wherever_its_bytes_are(truth: dict[str, Any], played: Play) -> None:
    stems = [stem for stem in truth["captures"] if stem.endswith(".injected.content")]
    assert len(stems) == 44
    for stem in stems:
        _, events, sessions = played(stem)
        sent = [e for e in events if e["kind"] == "tool_call" and THIEF in json.dumps(e["arguments"])]
        if stem.split(".")[0] in CANNOT_KNOW:
            assert not sent, stem
            assert any(session["unscored"] for session in sessions), stem  # not known is not clean
        else:
            assert len(sent) == 1, stem


@pytest.mark.timeout(300)
def test_the_command_says_what_the_core_says(shared: Path, tmp_path: Path) -> None:
    """By the independent checker on the real command, a sidecar a capture, for one pair of each kind of record."""
    argv = [sys.executable, shared / "checks" / "captures.py", "--sidecar", SIDECAR, "--json", tmp_path / "found.json"]
    for pattern in ("openai-otel_v2.injected*", "claude_agent-native.injected*", "langgraph-langsmith.injected*"):
        done = subprocess.run([*argv, "--only", pattern], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [told["exact"] for told in json.loads((tmp_path / "found.json").read_text()).values()] == [True]


def test_no_act_of_a_dull_capture_is_held_by_default(truth: dict[str, Any], played: Play) -> None:
    """Default posture, no configuration."""
    acts = 0
    for stem in truth["captures"]:
        if ".benign" in stem:
            totals, _, _ = played(stem)
            assert (totals.held, totals.denied, totals.paused) == (0, 0, 0), stem
            acts += totals.acts
    assert acts > 300


def test_no_act_of_the_dull_corpus_is_held_by_default(shared: Path, tmp_path: Path) -> None:
    """The false alarm corpus: customer service, all of it benign."""
    assert PolicyDocument().posture == "guard"
    totals, _ = play(cold("guard"), [str(shared / "corpora" / "tau_airline.otlp.jsonl.gz")], tmp_path)
    assert (totals.held, totals.denied, totals.paused) == (0, 0, 0)
    assert (totals.sessions, totals.acts, totals.unscored) == (100, 572, 0)
