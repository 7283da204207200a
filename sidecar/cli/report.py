"""The evaluation's report as one HTML page: tables, ROC curves and detectors' shares; no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from sidecar.evaluate import Corpus, Scores

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .7rem;border-bottom:1px solid #d8dee4;text-align:right}
td:first-child,th:first-child{text-align:left}h2{margin-top:3rem}svg{background:#f6f8fa;border:1px solid #d8dee4}
.bad{fill:#cf222e}.good{fill:#0969da}.small{color:#57606a;font-size:13px}
"""
SIZE = 260


def render(results: Sequence[Corpus], posture: str) -> str:
    """The page for all corpora, misses first."""
    parts = [
        "<!doctype html><meta charset=utf-8><title>Agent Sidecar: evaluation</title>",
        f"<style>{STYLE}</style><h1>Evaluation</h1>",
        f"<p class=small>Shipped policy, posture {escape(posture)}, cold start, no setting made for a corpus. "
        "Thresholds are those of the benign sessions of the same period; intervals are Wilson's or "
        "Hanley &amp; McNeil's at 95 %. "
        "An unscored malicious session is a miss.</p>",
        _overview(results),
    ]
    parts += [_corpus(corpus) for corpus in results]
    return "\n".join(parts) + "\n"


def _overview(results: Sequence[Corpus]) -> str:
    head = ("corpus", "malicious", "benign", "AUC", "95 %", "AUC, same period", "AUC of span counts", "TPR at 1 %",
            "TPR at 5 %", "paused", "held or paused", "holds per 1,000 benign acts", "pauses per 100 benign sessions",
            "unscored")  # fmt: skip
    body = [
        (
            s.name, s.malicious, s.benign, _n(s.auc), f"{_n(s.auc_interval[0])}-{_n(s.auc_interval[1])}",
            _n(s.auc_same_period), _n(s.span_count_auc), _n(s.tpr_1), _n(s.tpr_5), s.paused, s.stopped,
            _n(s.holds_per_1000, 1), _n(s.false_pauses_per_100, 1), _n(s.unscored),
        )
        for s in (corpus.scores for corpus in results)
    ]  # fmt: skip
    return _table(head, body)


def _corpus(corpus: Corpus) -> str:
    scores = corpus.scores
    parts = [f"<h2>{escape(scores.name)}</h2>"]
    for title, names in (("Not prevented", scores.not_prevented), ("False pauses", scores.false_pauses),
                         ("Benign and held, not paused", scores.false_stops)):  # fmt: skip
        if names:
            parts.append(f"<p><b>{title}</b> ({len(names)}): <span class=small>{escape(', '.join(names))}</span></p>")
    at = "; ".join(f"export delay {delay} s: {share}" for delay, share in corpus.prevented.items())
    parts.append(f"<p>First labelled act prevented: {escape(at)}; first write or send: {scores.prevented_write}</p>")
    if scores.roc:
        parts.append(_roc(scores))
    if scores.by_detector:
        parts.append(_detectors(scores))
    head = ("kind", "label", "sessions", "paused", "held or paused", *(f"prevented at {d} s" for d in corpus.delays),
            "AUC", "95 %", "TPR at 1 %", "TPR at 5 %", "holds per 1,000 acts", "pauses per 100 sessions",
            "unscored")  # fmt: skip
    rows = [
        (
            row.kind, row.label, row.sessions, row.paused, row.stopped,
            *corpus.prevented_of_kind.get(row.kind, dict.fromkeys(corpus.delays, "-")).values(), _n(row.auc),
            f"{_n(row.auc_interval[0])}-{_n(row.auc_interval[1])}", _n(row.tpr_1), _n(row.tpr_5),
            _n(row.holds_per_1000, 1), _n(row.pauses_per_100, 1), _n(row.unscored),
        )
        for row in scores.kinds
    ]  # fmt: skip
    parts.append(_table(head, rows))
    return "\n".join(parts)


def _roc(scores: Scores) -> str:
    points = " ".join(f"{SIZE * x:.1f},{SIZE * (1 - y):.1f}" for x, y in scores.roc)
    return (
        f'<svg width={SIZE} height={SIZE} viewBox="0 0 {SIZE} {SIZE}" role=img aria-label="ROC">'
        f'<line x1=0 y1={SIZE} x2={SIZE} y2=0 stroke="#8c959f" stroke-dasharray=4 />'
        f'<polyline points="{points}" fill=none stroke="#0969da" stroke-width=2 />'
        f"<text x=150 y=245 font-size=13>AUC {_n(scores.auc_same_period)}</text></svg>"
    )


def _detectors(scores: Scores) -> str:
    rows = [
        (detector, severity, sides["malicious"], sides["benign"])
        for detector, severities in scores.by_detector.items()
        for severity, sides in severities.items()
    ]
    height, most = 22 * len(rows) + 10, max((max(m, b) for _, _, m, b in rows), default=1) or 1
    bars = []
    for index, (detector, severity, bad, good) in enumerate(rows):
        y = 22 * index + 8
        bars.append(
            f"<text x=4 y={y + 11} font-size=12>{escape(detector)}, {escape(severity)}</text>"
            f"<rect class=bad x=230 y={y} width={360 * bad / most:.1f} height=7 />"
            f"<rect class=good x=230 y={y + 8} width={360 * good / most:.1f} height=7 />"
            f"<text x={236 + 360 * max(bad, good) / most:.1f} y={y + 12} font-size=11>{bad} / {good}</text>"
        )
    return (
        "<p class=small>Sessions in which each detector spoke: malicious (red) and benign (blue).</p>"
        f'<svg width=680 height={height} role=img aria-label="findings by detector">{"".join(bars)}</svg>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _n(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
