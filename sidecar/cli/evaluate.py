"""`sidecar evaluate`: how good the detectors are on labelled recordings, with a report."""

from __future__ import annotations

import json
import math
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from sidecar.cli.terminal import OK, Terminal
from sidecar.core.triage.policy import Posture
from sidecar.errors import ConfigError
from sidecar.evaluate import Scores, Share, judge, rows

DELAYS_S = (0.0, 0.2, 5.0)
"""Export delays at which `prevented` is told: carried with the question, the library's exporter, the SDK's default."""


def evaluate(
    terminal: Terminal,
    files: list[Path],
    labels: list[Path],
    *,
    out: Path | None,
    report_json: Path | None,
    report_html: Path | None,
    posture: Posture,
    without: frozenset[str],
    jobs: int,
) -> int:
    """Plays each file alone from a cold start and judges it by its labels; the exit code."""
    pairs = _paired(files, labels)
    with tempfile.TemporaryDirectory() as scratch:
        base = out or Path(scratch)
        work = [(file, label, base / corpus_name(file), posture, without) for file, label in pairs]
        results: list[tuple[Scores, dict[str, str]]] = []
        with terminal.progress("evaluate", unit="corpora") as progress, ProcessPoolExecutor(jobs) as pool:
            for count, result in enumerate(pool.map(_one, work), 1):
                results.append(result)
                progress(count)
    document = [_document(scores, prevented) for scores, prevented in results]
    if report_json is not None:
        report_json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if report_html is not None:
        from sidecar.cli.report import render

        report_html.write_text(render(results, posture), encoding="utf-8")
    _print(terminal, results, document)
    return OK


def corpus_name(file: Path) -> str:
    """``insider`` for ``insider.otlp.jsonl.gz``."""
    return file.name.split(".otlp.", 1)[0].split(".", 1)[0]


def _paired(files: list[Path], labels: list[Path]) -> list[tuple[Path, Path]]:
    by_name = {label.name.removesuffix(".labels.jsonl"): label for label in labels}
    pairs = []
    for file in files:
        label = by_name.get(corpus_name(file)) or (labels[0] if len(files) == len(labels) == 1 else None)
        if label is None:
            raise ConfigError(f"no --labels file is called {corpus_name(file)}.labels.jsonl", file=str(file))
        pairs.append((file, label))
    return pairs


def _one(work: tuple[Path, Path, Path, Posture, frozenset[str]]) -> tuple[Scores, dict[str, str]]:
    """One corpus, in a process of its own: the figures, and what was prevented at each export delay."""
    from sidecar.cli.replay import cold, play

    file, label, out, posture, without = work
    truth, acts = rows(label), acts_of(file)
    prevented = {}
    scores = None
    with tempfile.TemporaryDirectory() as scratch:
        for delay in DELAYS_S:
            folder = out if delay == 0.0 else Path(scratch) / f"{delay}"
            reasoning = "reasoning" not in without
            play(cold(posture, without), [str(file)], folder, export_delay_s=delay, reasoning=reasoning)
            found = judge(truth, acts, folder, name=corpus_name(file))
            prevented[f"{delay:g}"] = str(found.prevented)
            scores = scores or found
    assert scores is not None
    return scores, prevented


def acts_of(file: Path) -> frozenset[str]:
    """Span ids of a recording's tool calls, from the recording itself: what counts does not depend on our output."""
    from sidecar.core import semconv
    from sidecar.sources.files import read

    found = set()
    for _, span in read(file):
        facts = semconv.read(span)
        if facts is not None and facts.kind == "tool":
            found.add(span.span_id)
    return frozenset(found)


def _document(scores: Scores, prevented: dict[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(scores)
    for name in ("paused", "stopped", "prevented", "prevented_write"):
        share: Share = getattr(scores, name)
        document[name] = {"hits": share.hits, "n": share.n, "rate": share.rate, "interval": share.interval}
    document["prevented_at_delay"] = prevented
    return _finite(document)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    """NaN is no JSON; a figure that does not exist is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _print(terminal: Terminal, results: list[tuple[Scores, dict[str, str]]], document: Any) -> None:
    columns = ("corpus", "bad", "benign", "AUC (95 %)", "spans' AUC", "TPR 1 %", "TPR 5 %", "prevented 0 s", "0.2 s",
               "5 s", "first write", "holds/1000", "pauses/100", "unscored")  # fmt: skip
    table = [
        (
            s.name, s.malicious, s.benign, f"{_f(s.auc)} ({_f(s.auc_interval[0])}-{_f(s.auc_interval[1])})",
            _f(s.span_count_auc), _f(s.tpr_1), _f(s.tpr_5), *p.values(), str(s.prevented_write),
            f"{s.holds_per_1000:.1f}", f"{s.false_pauses_per_100:.1f}", _f(s.unscored),
        )
        for s, p in results
    ]  # fmt: skip
    terminal.table("", columns, table, document)
    for scores, _ in results:
        if scores.not_prevented:
            terminal.say(f"\n{scores.name}: not prevented ({len(scores.not_prevented)})")
            terminal.say("  " + ", ".join(scores.not_prevented[:12]) + (" …" if len(scores.not_prevented) > 12 else ""))
        if scores.false_pauses:
            terminal.say(f"\n{scores.name}: false pauses ({len(scores.false_pauses)})")
            terminal.say("  " + ", ".join(scores.false_pauses[:12]))


def _f(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


__all__ = ["acts_of", "corpus_name", "evaluate"]
