"""`sidecar replay`: recorded telemetry, played as if live."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sidecar.assembly import patterns, pipeline
from sidecar.cli.terminal import OK, UNSURE, Terminal
from sidecar.core.pipeline import Pipeline
from sidecar.core.text.scan import PatternSet
from sidecar.core.triage.policy import PolicyDocument, Posture
from sidecar.replay import SECOND_NS, STREAM_WINDOW_NS, WINDOW_NS, Player, Totals, ordered
from sidecar.sources.files import FileReport, read


def replay(
    terminal: Terminal,
    files: list[str],
    out: Path,
    *,
    posture: Posture,
    without: frozenset[str],
    export_delay_s: float,
    gate: bool,
    events: bool,
    strict: bool,
) -> int:
    """Plays files and writes what came of them; the exit code."""
    core = cold(posture, without)
    with terminal.progress("replay", unit="spans") as progress:
        totals, reports = play(
            core, files, out, export_delay_s=export_delay_s, gate=gate, events=events, strict=strict,
            reasoning="reasoning" not in without, progress=progress,
        )  # fmt: skip
    bad = sum(report.bad for report in reports)
    terminal.show(
        {name: getattr(totals, name) for name in totals.__struct_fields__} | {"bad_records": bad},
        f"{totals.spans} spans, {totals.sessions} sessions, {totals.acts} acts: {totals.held} held, "
        f"{totals.denied} denied, {totals.paused} pauses, {totals.unscored} sessions unscored → {out}",
    )
    for file, report in zip(files, reports, strict=True):
        for record in report.named:
            terminal.warn(f"{file}: {record.where}: {record.reason}")
        if report.bad > len(report.named):
            terminal.warn(f"{file}: {report.bad - len(report.named)} more bad records")
    if totals.late:
        terminal.warn(f"{totals.late} spans came later than the reorder window")
    return UNSURE if bad else OK


def cold(posture: Posture, without: frozenset[str] = frozenset()) -> Pipeline:
    """A pipeline that has learned nothing, with the shipped policy."""
    document = PolicyDocument(posture=posture)
    return pipeline(document, pattern_set=_compiled("cues" in without), capacity=200_000)


@cache
def _compiled(without_cues: bool) -> PatternSet:
    """The shipped patterns, compiled once a process: they remember nothing of what they matched."""
    found = PatternSet(patterns(without_cues=without_cues))
    found.use(found.compile_hyperscan())
    return found


def play(
    core: Pipeline,
    files: list[str],
    out: Path,
    *,
    export_delay_s: float = 0.0,
    gate: bool = True,
    events: bool = False,
    strict: bool = False,
    reasoning: bool = True,
    progress: object = None,
) -> tuple[Totals, list[FileReport]]:
    """Plays files together as one stream."""
    reports = [FileReport() for _ in files]
    streams = [
        (span for _, span in read(file, strict=strict, report=report))
        for file, report in zip(files, reports, strict=True)
    ]
    player = Player(core, out, gate=gate, events=events)
    stream = ordered(
        streams,
        window_ns=STREAM_WINDOW_NS if files == ["-"] else WINDOW_NS,
        totals=player.totals,
        gate=gate,
        delay_ns=int(export_delay_s * SECOND_NS),
        reasoning=reasoning,
        note=core.note,
    )
    return player.play(stream, progress or (lambda n: None)), reports  # type: ignore[arg-type]
