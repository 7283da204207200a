"""What real agents of the OpenTelemetry GenAI instrumentations did is understood exactly, and nothing dull is held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.assembly import patterns, pipeline
from sidecar.cli.replay import cold, play
from sidecar.core.text.scan import PatternSet
from sidecar.core.triage.policy import PolicyDocument

pytestmark = pytest.mark.corpora
SIDECAR = Path(sys.executable).with_name("sidecar")
GENAI = "*otel_genai*"


@pytest.mark.timeout(900)  # a sidecar is started for each
def test_every_capture_is_understood_exactly(shared: Path, tmp_path: Path) -> None:
    """By the independent checker, on the real command: every act, argument, result and text, once and in order."""
    argv = [sys.executable, shared / "checks" / "captures.py", "--sidecar", SIDECAR, "--only", GENAI]
    done = subprocess.run([*argv, "--json", tmp_path / "found.json"], capture_output=True, text=True, check=False)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) > 20
    wrong = {stem: told for stem, told in found.items() if not told["exact"]}
    assert not wrong, done.stdout
    assert done.stdout.rstrip().endswith("failed 0")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_act_of_a_dull_capture_is_held_by_default(shared: Path, tmp_path: Path) -> None:
    """Default posture, no configuration."""
    stems = sorted(
        stem for stem in json.loads((shared / "captures" / "EXPECTED.json").read_text())["captures"]
        if "otel_genai" in stem and ".benign" in stem
    )  # fmt: skip
    found = PatternSet(patterns())
    acts = 0
    for stem in stems:
        files = sorted(map(str, (shared / "captures").glob(f"{stem}.*.otlp.pb*")))
        totals, _ = play(pipeline(PolicyDocument(), pattern_set=found), files, tmp_path / stem)
        assert (totals.held, totals.denied, totals.paused) == (0, 0, 0), stem
        acts += totals.acts
    assert len(stems) > 10
    assert acts > 20


def test_no_act_of_the_dull_corpus_is_held_by_default(shared: Path, tmp_path: Path) -> None:
    """The false alarm corpus: customer service, all of it benign."""
    assert PolicyDocument().posture == "guard"
    totals, _ = play(cold("guard"), [str(shared / "corpora" / "tau_airline.otlp.jsonl.gz")], tmp_path)
    assert (totals.held, totals.denied, totals.paused) == (0, 0, 0)
    assert (totals.sessions, totals.acts, totals.unscored) == (100, 572, 0)
