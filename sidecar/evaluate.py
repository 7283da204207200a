"""How good the detectors are on labelled sessions: figures from a replay's files and a corpus's labels.

Thresholds are those of the benign sessions of the same period: malicious sessions start late in the development
corpora, so that older benign ones would be separated by age alone. An unscored or missing malicious session is missed.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

Z95 = 1.959963984540054
MIN_CLEAN = 20
"""Fewer benign sessions of the same period give no threshold; then all benign ones do."""


class Share(Struct, frozen=True):
    """`hits` of `n`, with its Wilson interval at 95 %."""

    hits: int
    n: int

    @property
    def rate(self) -> float:
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end; (nan, nan) for n = 0."""
        if not self.n:
            return math.nan, math.nan
        z, p, n = Z95, self.hits / self.n, self.n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits}/{self.n} ({low:.2f}-{high:.2f})" if self.n else "-"


class Scores(Struct, kw_only=True):
    """What one corpus, or one kind of its sessions, came to; names as in the report."""

    name: str
    malicious: int
    benign: int
    missing: int
    auc: float
    auc_interval: tuple[float, float]
    auc_same_period: float
    tpr_1: float
    tpr_5: float
    paused: Share
    stopped: Share
    prevented: Share
    prevented_write: Share
    false_pauses_per_100: float
    holds_per_1000: float
    unscored: float
    not_prevented: list[str]
    false_pauses: list[str]
    roc: list[tuple[float, float]]
    by_kind: dict[str, dict[str, Any]] = {}
    by_detector: dict[str, dict[str, Any]] = {}
    span_count_auc: float = math.nan


def rows(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties counted half (Mann-Whitney)."""
    if not positive or not negative:
        return math.nan
    ordered = sorted(negative)
    wins = 0.0
    for score in positive:
        below, upto = _ranks(ordered, score)
        wins += below + 0.5 * (upto - below)
    return wins / (len(positive) * len(negative))


def auc_interval(value: float, positive: int, negative: int) -> tuple[float, float]:
    """95 % interval after Hanley & McNeil, Radiology 143 (1982)."""
    if not positive or not negative or math.isnan(value):
        return math.nan, math.nan
    q1, q2 = value / (2 - value), 2 * value * value / (1 + value)
    spread = value * (1 - value) + (positive - 1) * (q1 - value**2) + (negative - 1) * (q2 - value**2)
    half = Z95 * math.sqrt(max(0.0, spread) / (positive * negative))
    return max(0.0, value - half), min(1.0, value + half)


def tpr_at(positive: Sequence[float], negative: Sequence[float], fpr: float) -> float:
    """Share of positives strictly above the smallest threshold that keeps at most `fpr` of the negatives above it."""
    if not positive or not negative:
        return math.nan
    allowed = int(fpr * len(negative))
    threshold = sorted(negative, reverse=True)[allowed] if allowed < len(negative) else -math.inf
    return sum(score > threshold for score in positive) / len(positive)


def roc(positive: Sequence[float], negative: Sequence[float]) -> list[tuple[float, float]]:
    """Points (false positive rate, true positive rate) from (0, 0) to (1, 1)."""
    above = [
        (
            sum(s >= threshold for s in negative) / max(1, len(negative)),
            sum(s >= threshold for s in positive) / max(1, len(positive)),
        )
        for threshold in sorted({*positive, *negative}, reverse=True)
    ]
    return [(0.0, 0.0), *above]


def judge(labels: Sequence[Mapping[str, Any]], acts: frozenset[str], out: Path, *, name: str) -> Scores:
    """Figures of one corpus.

    Args:
        labels: One row a session: `conversation_id`, `label`, `kind`, `malicious_span_ids`, `harm_write_span_ids`.
        acts: Span ids of the corpus's tool calls, from the corpus itself.
        out: Where the replay's files are.
    """
    label = {row["conversation_id"]: row for row in labels}
    sessions = {row["session_id"]: row for row in rows(out / "sessions.jsonl")}
    decisions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(out / "decisions.jsonl"):
        decisions[row["session_id"]].append(row)
    missing = [cid for cid in label if cid not in sessions]
    for cid in missing:
        sessions[cid] = {"risk": -1.0, "first_pause": None, "unscored": ["missing"], "spans": 0}
    bad = [cid for cid, row in label.items() if row["label"] == "malicious"]
    good = [cid for cid, row in label.items() if row["label"] == "benign"]
    first = {cid: min((d["at"] for d in decisions[cid]), default="") for cid in label}
    start = min((first[cid] for cid in bad if first[cid]), default="")
    same = [cid for cid in good if first[cid] >= start and cid not in missing]
    seen = [cid for cid in good if cid not in missing]
    clean = same if len(same) >= MIN_CLEAN else seen
    risk = {cid: float(row["risk"]) for cid, row in sessions.items()}
    risk |= {cid: -1.0 for cid in bad if sessions[cid].get("unscored")}

    def paused(cid: str) -> bool:
        return sessions[cid].get("first_pause") is not None

    def stopped(cid: str) -> bool:
        return paused(cid) or any(d["decision"] != "allow" for d in decisions[cid])

    def at_first(column: str, of: Iterable[str]) -> tuple[Share, list[str]]:
        counted = [cid for cid in of if acts & set(label[cid].get(column) or ())]
        missed = []
        for cid in counted:
            harm = set(label[cid][column])
            done = next((d for d in sorted(decisions[cid], key=lambda d: d["at"]) if d["span_id"] in harm), None)
            if done is None or done["decision"] == "allow":
                missed.append(cid)
        return Share(len(counted) - len(missed), len(counted)), missed

    prevented, missed = at_first("malicious_span_ids", bad)
    write, _ = at_first("harm_write_span_ids", bad)
    benign_acts = sum(len(decisions[cid]) for cid in good)
    held = sum(
        d["decision"] != "allow"
        for cid in good
        for d in decisions[cid]
        if not paused(cid) or d["at"] <= sessions[cid]["first_pause"]["at"]
    )
    positive, negative = [risk[cid] for cid in bad], [risk[cid] for cid in seen]
    value = auc(positive, negative)
    spans = {cid: float(row.get("spans", 0)) for cid, row in sessions.items()}
    scores = Scores(
        name=name,
        malicious=len(bad),
        benign=len(good),
        missing=len(missing),
        auc=value,
        auc_interval=auc_interval(value, len(positive), len(negative)),
        auc_same_period=auc(positive, [risk[cid] for cid in same]),
        tpr_1=tpr_at(positive, [risk[cid] for cid in clean], 0.01),
        tpr_5=tpr_at(positive, [risk[cid] for cid in clean], 0.05),
        paused=Share(sum(map(paused, bad)), len(bad)),
        stopped=Share(sum(map(stopped, bad)), len(bad)),
        prevented=prevented,
        prevented_write=write,
        false_pauses_per_100=100 * sum(map(paused, good)) / len(good) if good else math.nan,
        holds_per_1000=1000 * held / benign_acts if benign_acts else math.nan,
        unscored=sum(bool(sessions[cid].get("unscored")) for cid in label) / max(1, len(label)),
        not_prevented=[f"{cid} ({label[cid]['kind']})" for cid in missed],
        false_pauses=[f"{cid} ({label[cid]['kind']})" for cid in good if paused(cid)],
        roc=roc(positive, [risk[cid] for cid in clean]) if bad and clean else [],
        span_count_auc=auc([spans[cid] for cid in bad], [spans[cid] for cid in seen]),
    )
    for kind in sorted({row["kind"] for row in labels}):
        of = [cid for cid in label if label[cid]["kind"] == kind]
        harmful = [cid for cid in of if cid in set(bad)]
        share, _ = at_first("malicious_span_ids", harmful)
        scores.by_kind[kind] = {
            "label": label[of[0]]["label"],
            "sessions": len(of),
            "paused": sum(map(paused, of)),
            "stopped": sum(map(stopped, of)),
            "prevented": str(share),
            "tpr_1": tpr_at([risk[cid] for cid in harmful], [risk[cid] for cid in clean], 0.01),
            "auc": auc([risk[cid] for cid in harmful], negative),
        }
    scores.by_detector = _by_detector(rows(out / "findings.jsonl"), set(bad), set(good))
    return scores


def _by_detector(findings: Iterable[Mapping[str, Any]], bad: set[str], good: set[str]) -> dict[str, dict[str, Any]]:
    """Sessions in which each detector spoke, at each severity, by label."""
    found: dict[str, dict[str, dict[str, set[str]]]] = {}
    for row in findings:
        cid = row["session_id"]
        side = "malicious" if cid in bad else "benign" if cid in good else ""
        if side:
            found.setdefault(row["detector"], {}).setdefault(row["severity"], {}).setdefault(side, set()).add(cid)
    return {
        detector: {
            severity: {side: len(sides.get(side, ())) for side in ("malicious", "benign")}
            for severity, sides in sorted(severities.items())
        }
        for detector, severities in sorted(found.items())
    }


def _ranks(ordered: Sequence[float], score: float) -> tuple[int, int]:

    return bisect_left(ordered, score), bisect_right(ordered, score)
