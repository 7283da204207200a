"""`sidecar evaluate`: how good the detectors are on labelled recordings, with a report."""

from __future__ import annotations

import json
import math
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from sidecar.cli.terminal import OK, UNSURE, Terminal
from sidecar.core.triage.policy import Posture
from sidecar.errors import ConfigError
from sidecar.evaluate import Corpus, Kind, Scores, Share, judge, read_labels

DELAYS_S = (0.0, 0.2, 5.0)
"""Export delays at which `prevented` is told: carried with the question, the library's exporter, the SDK's default."""
LABELS = ".labels.jsonl"
NAMED = 12
"""Misses that are named on a terminal; the report and the JSON name all."""


class Play(Struct, frozen=True):
    """One corpus to be played at one export delay."""

    file: Path
    labels: Path
    out: Path
    delay_s: float
    posture: Posture
    without: frozenset[str]


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
    """Plays each file alone from a cold start and judges it by its labels; the exit code.

    It is 2 where records could not be read or labelled sessions did not show: the figures count them as missed.
    """
    pairs = paired(files, labels)
    for _, path in pairs:  # what is wrong is said before the long work
        read_labels(path)
    for target in (report_json, report_html):
        if target is not None and not target.absolute().parent.is_dir():
            raise ConfigError("its folder does not exist", file=str(target))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:  # workers may write still
        kept = {DELAYS_S[0]: out} if out else {}
        plays = [
            Play(file, path, kept.get(delay, Path(scratch) / str(delay)) / corpus_name(file), delay, posture, without)
            for file, path in pairs
            for delay in DELAYS_S
        ]
        corpora, bad = _played(terminal, plays, jobs)
    document = [_document(corpus) for corpus in corpora]
    whole = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if report_json is not None and str(report_json) != "-":
        report_json.write_text(whole, encoding="utf-8")
    if report_html is not None:
        from sidecar.cli.report import render

        report_html.write_text(render(corpora, posture), encoding="utf-8")
    if str(report_json) == "-":
        Terminal(as_json=True).show(document, "")
    else:
        _print(terminal, corpora)
    for name, records in bad.items():
        terminal.warn(f"{name}: {records} records could not be read")
    unseen = {corpus.scores.name: corpus.scores.missing for corpus in corpora if corpus.scores.missing}
    for name, sessions in unseen.items():
        terminal.warn(f"{name}: {sessions} labelled sessions are not in the recording")
    return UNSURE if bad or unseen else OK


def corpus_name(file: Path) -> str:
    """``insider`` for ``insider.otlp.jsonl.gz``."""
    return file.name.split(".otlp.", 1)[0].split(".", 1)[0]


def paired(files: Sequence[Path], labels: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Recordings, each with its labels; ``NAME.labels.jsonl`` among the files counts as labels.

    Raises:
        ConfigError: A recording has no labels, labels have no recording, or two recordings have one name.
    """
    labels = [*labels, *(file for file in files if file.name.endswith(LABELS))]
    files = [file for file in files if not file.name.endswith(LABELS)]
    by_name = {label.name.removesuffix(LABELS): label for label in labels}
    alone = len(files) == len(labels) == 1
    pairs: dict[str, tuple[Path, Path]] = {}
    for file in files:
        name = corpus_name(file)
        label = labels[0] if alone else by_name.pop(name, None)
        if name in pairs:
            raise ConfigError(f"another recording is called {name}, too", file=str(file))
        if label is None:
            raise ConfigError(f"no --labels file is called {name}{LABELS}", file=str(file))
        pairs[name] = (file, label)
    if not files:
        raise ConfigError("there is no recording to evaluate")
    if by_name and not alone:
        unused = next(iter(by_name.values()))
        raise ConfigError(f"no recording is called {unused.name.removesuffix(LABELS)}.otlp.jsonl", file=str(unused))
    return list(pairs.values())


def _played(terminal: Terminal, plays: list[Play], jobs: int) -> tuple[list[Corpus], dict[str, int]]:
    """All corpora, in the order asked, and how many records of each could not be read."""
    with (
        terminal.progress("evaluate", unit="runs", total=len(plays)) as progress,
        ProcessPoolExecutor(min(jobs, len(plays)), initializer=_die_of_interrupts) as pool,
    ):
        work = [pool.submit(_play, play) for play in plays]
        try:
            for count, done in enumerate(as_completed(work), 1):
                done.result()
                progress(count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found: dict[str, dict[str, Scores]] = {}
    unread: dict[str, int] = {}
    for play, done in zip(plays, work, strict=True):
        scores, bad = done.result()
        found.setdefault(scores.name, {})[f"{play.delay_s:g}"] = scores
        if bad:
            unread[scores.name] = bad
    return [Corpus(delays) for delays in found.values()], unread


def _die_of_interrupts() -> None:
    """A worker ends without words when the whole command is interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _play(play: Play) -> tuple[Scores, int]:
    """One corpus at one delay, in a process of its own: the figures, and how many records could not be read."""
    from sidecar.cli import replay

    core = replay.cold(play.posture, play.without)
    reasoning = "reasoning" not in play.without
    _, reports = replay.play(core, [str(play.file)], play.out, export_delay_s=play.delay_s, reasoning=reasoning)
    scores = judge(read_labels(play.labels), acts_of(play.file), play.out, name=corpus_name(play.file))
    return scores, sum(report.bad for report in reports)


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


def _document(corpus: Corpus) -> dict[str, Any]:
    document: dict[str, Any] = _plain(corpus.scores)
    document["prevented_at_delay"] = _plain(corpus.prevented)
    for row in document["kinds"]:
        row["prevented_at_delay"] = _plain(corpus.prevented_of_kind.get(row["kind"], {}))
    return document


def _plain(value: Any) -> Any:
    """What JSON can say; a figure that does not exist is null."""
    if isinstance(value, Share):
        return {"hits": value.hits, "n": value.n, "rate": _plain(value.rate), "interval": _plain(value.interval)}
    if isinstance(value, Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return msgspec.to_builtins(value)


def _print(terminal: Terminal, corpora: list[Corpus]) -> None:
    delays = [f"prevented {delay} s" for delay in corpora[0].delays]
    columns = ("corpus", "bad", "benign", "AUC (95 %)", "spans' AUC", "TPR 1 %", "TPR 5 %", *delays, "first write",
               "holds/1000", "pauses/100", "unscored")  # fmt: skip
    table = [
        (
            s.name, s.malicious, s.benign, _interval(s), _figure(s.span_count_auc), _figure(s.tpr_1), _figure(s.tpr_5),
            *corpus.prevented.values(), s.prevented_write, _figure(s.holds_per_1000, 1),
            _figure(s.false_pauses_per_100, 1), _figure(s.unscored),
        )
        for corpus in corpora
        for s in (corpus.scores,)
    ]  # fmt: skip
    terminal.table("", columns, table, None)
    columns = ("corpus", "kind", "label", "sessions", "AUC (95 %)", "TPR 1 %", "TPR 5 %", *delays, "stopped",
               "holds/1000", "pauses/100", "unscored")  # fmt: skip
    table = [
        (
            corpus.scores.name, row.kind, row.label, row.sessions, _interval(row), _figure(row.tpr_1),
            _figure(row.tpr_5), *map(_of, corpus.prevented_of_kind.get(row.kind, dict.fromkeys(delays)).values()),
            _of(row.stopped), _figure(row.holds_per_1000, 1), _figure(row.pauses_per_100, 1), _figure(row.unscored),
        )
        for corpus in corpora
        for row in corpus.scores.kinds
    ]  # fmt: skip
    terminal.say("")
    terminal.table("", columns, table, None)
    for corpus in corpora:
        s = corpus.scores
        for what, names in (("not prevented", s.not_prevented), ("false pauses", s.false_pauses),
                            ("benign and held", s.false_stops)):  # fmt: skip
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                terminal.say(f"\n{s.name}: {what} ({len(names)})\n  {', '.join(names[:NAMED])}{more}")


def _of(share: Share | None) -> str:
    return f"{share.hits}/{share.n}" if share is not None and share.n else "-"


def _interval(row: Scores | Kind) -> str:
    low, high = row.auc_interval
    return "-" if math.isnan(row.auc) else f"{row.auc:.2f} ({low:.2f}-{high:.2f})"


def _figure(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


__all__ = ["acts_of", "corpus_name", "evaluate", "paired"]
