"""Evaluates on all corpora of the shared folder, and holds every figure against the independent scorer's.

    python -m scripts.evaluate [--out DIR] [--jobs N] [CORPUS...]

Cold, with the shipped policy and no setting made for a corpus. Writes ``figures.json``, ``report.html`` and replay's
files under DIR. Exit codes: 0 fine, 1 a figure is not the scorer's, 2 it could not be done.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.cli.evaluate import LABELS, evaluate
from sidecar.cli.terminal import NO, OK, UNSURE, Terminal
from sidecar.errors import SidecarError
from sidecar.evaluate import Share

SAME_NAME = ("malicious", "benign", "missing", "auc", "auc_same_period", "tpr_1", "tpr_5", "prevented",
             "prevented_write", "false_pauses_per_100", "holds_per_1000", "unscored")  # fmt: skip
OURS = {name: name for name in SAME_NAME} | {"paused_mal": "paused", "stopped_mal": "stopped", "corpus": "name"}
"""The scorer's figures, and what ours are called."""


def differences(ours: Mapping[str, Any], scored: Mapping[str, Any]) -> list[str]:
    """Figures of one corpus that are not the scorer's, a sentence each.

    Args:
        ours: The corpus's entry in the JSON that `sidecar evaluate` writes.
        scored: What ``score.py --json`` says of the same files.
    """
    found = []
    for name, theirs in scored.items():
        if name not in OURS:
            found.append(f"{name}: the scorer says {theirs}, and we do not tell it")
        elif _as_scored(ours[OURS[name]]) != (None if theirs != theirs else theirs):
            found.append(f"{name}: {_as_scored(ours[OURS[name]])}, the scorer says {theirs}")
    return found


def _as_scored(value: Any) -> Any:
    """A figure as the scorer writes it; None where there is none."""
    if isinstance(value, dict):
        return str(Share(value["hits"], value["n"]))
    return None if isinstance(value, float) and math.isnan(value) else value


def score(scorer: Path, labels: Path, out: Path) -> dict[str, Any]:
    """What the independent scorer makes of a replay's files."""
    argv = [sys.executable, str(scorer), str(labels), str(out), "--json"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def compare(terminal: Terminal, shared: Path, out: Path) -> int:
    """Says whether the scorer agrees on each corpus; the exit code."""
    agreed = True
    for entry in json.loads((out / "figures.json").read_text("utf-8")):
        name = entry["name"]
        scored = score(shared / "checks" / "score.py", shared / "corpora" / f"{name}{LABELS}", out / name)
        differ = differences(entry, scored)
        agreed &= not differ
        terminal.say(f"{name}: " + ("; ".join(differ) or f"all {len(scored) - 1} figures are the scorer's"))
    return OK if agreed else NO


def main(arguments: list[str]) -> int:
    """Runs it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", metavar="CORPUS", help="names; all if left out")
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    asked = parser.parse_args(arguments)
    terminal = Terminal()
    shared = Path(os.environ.get("SIDECAR_SHARED", "../shared"))
    found = {file.name.removesuffix(LABELS): file for file in sorted((shared / "corpora").glob(f"*{LABELS}"))}
    unknown = [name for name in asked.corpora if name not in found]
    if not found or unknown:
        where = shared / "corpora"
        terminal.warn(
            f"no corpus {', '.join(unknown)} in {where}" if found else f"no corpora in {where}: SIDECAR_SHARED"
        )
        return UNSURE
    labels = [found[name] for name in asked.corpora or found]
    files = [next(path.parent.glob(path.name.replace(LABELS, ".otlp.jsonl*"))) for path in labels]
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        done = evaluate(
            terminal, files, labels, out=asked.out, report_json=asked.out / "figures.json",
            report_html=asked.out / "report.html", posture="enforce", without=frozenset(), jobs=asked.jobs,
        )  # fmt: skip
        terminal.say("")
        return max(done, compare(terminal, shared, asked.out))
    except (SidecarError, OSError, subprocess.CalledProcessError) as error:
        terminal.warn(str(error))
        return UNSURE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
