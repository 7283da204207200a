"""`sidecar doctor`: what of each agent can be seen, what that makes undetectable, and what turns it on."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from sidecar.assembly import pipeline
from sidecar.cli.terminal import NO, OK, UNSURE, Terminal
from sidecar.core import semconv
from sidecar.core.blind_spots import FAMILIES, blind_spots
from sidecar.core.coverage import FAULTS, INPUTS, AgentReport, Coverage
from sidecar.core.detectors import SHIPPED
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.span import Record
from sidecar.core.switches import FAULTS as MENDS
from sidecar.core.switches import library_of, switches
from sidecar.core.text.scan import PatternSet
from sidecar.replay import SECOND_NS, STREAM_WINDOW_NS, WINDOW_NS, Totals, ordered
from sidecar.sources.files import FileReport, read
from sidecar.storage.recent import received

WIDTH = 118
"""Characters of a line of prose."""
NAMES = {detector.name: detector.family for detector in SHIPPED}
"""Shipped detector → its family."""
Progress = Callable[[int], None]


class Heard(Struct, frozen=True):
    """What telemetry came to.

    Attributes:
        records: Spans and log records, and how many of them say something of an agent (`mapped`).
        bad: Requests that could not be read.
        left_out: Acts and sessions that were too many to be counted.
    """

    agents: tuple[AgentReport, ...]
    records: int
    mapped: int
    bad: int = 0
    left_out: int = 0


def doctor(terminal: Terminal, files: list[str], *, agent: str | None, last_s: float, config: Path | None) -> int:
    """Reports on recorded telemetry, or on what the sidecar of a configuration has received lately; the exit code."""
    if files:
        reports = [FileReport() for _ in files]
        with terminal.progress("doctor", unit="records") as progress:
            heard = of_files(files, reports, progress)
        source = ", ".join(files)
        for file, report in zip(files, reports, strict=True):
            for record in report.named:
                terminal.warn(f"{file}: {record.where}: {record.reason}")
    else:
        from sidecar.config import read as read_config

        directory = read_config(config).storage.data_dir
        with terminal.progress("doctor", unit="records") as progress:
            heard = of_inbox(directory, since_ns=time.time_ns() - int(last_s * SECOND_NS), progress=progress)
        source = f"{directory}, the last {last_s / 60:g} minutes"
    chosen = [one for one in heard.agents if agent in (None, one.role, *one.others)]
    if terminal.as_json:
        terminal.show(
            {"source": source, "records": heard.records, "mapped": heard.mapped, "bad_records": heard.bad,
             "left_out": heard.left_out, "agents": [document(one) for one in chosen]}, "",
        )  # fmt: skip
    elif chosen:
        for number, one in enumerate(chosen):
            if number:
                terminal.say("")
            _show(terminal, one)
    if not chosen:
        terminal.warn(f"sidecar: {_why_nothing(heard, source, agent)}")
        return UNSURE
    if heard.left_out:
        terminal.warn(f"sidecar: {heard.left_out} acts or sessions were too many, and are not in the counts")
    if heard.bad:
        terminal.warn(f"sidecar: {heard.bad} requests could not be read")
        return UNSURE
    if all(one.inputs["acts"].status == "nothing" for one in chosen):
        terminal.warn("sidecar: no act was seen, and none was asked for: let the agent use a tool, then ask again")
        return UNSURE
    return NO if any(one.missing or _is_lossy(one) for one in chosen) else OK


def _is_lossy(report: AgentReport) -> bool:
    return any(name in report.faults for name in ("dropped", "cut"))


def _why_nothing(heard: Heard, source: str, agent: str | None) -> str:
    if not heard.records:
        return f"{source}: no telemetry"
    if not heard.agents:
        return f"{source}: {heard.records} records, and none says anything of an agent"
    known = ", ".join(one.role for one in heard.agents[:20])
    return f"{source}: nothing of an agent called {agent!r}; there is {known}"


# ------------------------------------------------------------ where telemetry is


class _Listener:
    """A pipeline without detectors, and what of its telemetry is seen."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.core: Pipeline = pipeline(detectors=(), pattern_set=PatternSet(()), capacity=200_000)
        self.coverage = Coverage()
        self._tick_ns = 0

    def take(self, outcome: Outcome) -> None:
        self.coverage.hear(outcome.events)
        for key, events in outcome.retold:
            self.coverage.hear_again(self.core.sessions.resolve(key), events)

    def tick(self, now_ns: int) -> None:
        if now_ns - self._tick_ns >= SECOND_NS:
            self._tick_ns = now_ns
            self.take(self.core.tick(now_ns))
            self._progress(self.coverage.records)

    def finish(self, bad: int) -> Heard:
        self.take(self.core.tick(self._tick_ns + 60 * SECOND_NS, last=True))
        reports = self.coverage.report(self.core.sessions, self.core.sessions.resolve)
        return Heard(reports, self.coverage.records, self.coverage.mapped, bad, self.coverage.left_out)


def of_files(
    files: Iterable[str], reports: list[FileReport] | None = None, progress: Progress = lambda records: None
) -> Heard:
    """What recordings, read together as one stream, let see.

    Raises:
        SourceError: A file cannot be read, or is something else.
    """
    files = list(files)
    reports = [FileReport() for _ in files] if reports is None else reports
    listener = _Listener(progress)

    def note(span: Any, facts: Any) -> None:
        listener.coverage.note(Record(span), facts)
        listener.core.note(span, facts)

    stream = ordered(
        [(span for _, span in read(file, report=report)) for file, report in zip(files, reports, strict=True)],
        window_ns=STREAM_WINDOW_NS if files == ["-"] else WINDOW_NS,
        totals=Totals(),
        note=note,
    )
    for now_ns, moment in stream:
        listener.tick(now_ns)
        record = Record(moment.span, arrived_ns=now_ns)
        listener.take(
            listener.core.weave(record, moment.facts, now_ns, begin=moment.begin, end=moment.end, asked=False)
        )
    return listener.finish(sum(report.bad for report in reports))


def of_inbox(directory: Path, *, since_ns: int, progress: Progress = lambda records: None) -> Heard:
    """What the telemetry that a sidecar has received since then lets see. Its database is only read.

    Raises:
        ConfigError: There is no such database.
        StorageError: It cannot be read.
    """
    listener, bad = _Listener(progress), 0
    for arrived_ns, records in received(directory, since_ns):
        if records is None:
            bad += 1
            continue
        for record in records:
            facts = semconv.read(record.span)
            listener.coverage.note(record, facts)
            listener.take(listener.core.weave(record, facts, arrived_ns, begin=True, end=True, asked=False))
        listener.tick(arrived_ns)
    return listener.finish(bad)


# ------------------------------------------------------------ what is shown


def document(report: AgentReport) -> dict[str, Any]:
    """A report with all that follows from it, as plain data."""
    found: dict[str, Any] = to_builtins(report)
    for name, count in report.inputs.items():
        found["inputs"][name]["status"] = count.status
    found["missing"] = list(report.missing)
    found["detectors"] = [to_builtins(spot) for spot in blind_spots(report, NAMES)]
    found["without_detector"] = _families_without()
    found["switches"] = [to_builtins(advice) for advice in switches(report)]
    found["mends"] = {name: MENDS[name] for name in FAULTS if name in report.faults}
    return found


def _families_without() -> list[str]:
    return [family for family in FAMILIES if family not in NAMES.values()]


def _show(terminal: Terminal, report: AgentReport) -> None:
    libraries = ", ".join(f"{scope or 'no scope'} ({_known(scope)})" for scope in report.libraries)
    acted = f"; in its sessions {', '.join(report.others)} acted, too" if report.others else ""
    terminal.say(
        f"{report.role} ({report.realm}): {_many(report.sessions, 'session')}, {_many(report.spans, 'span')}, "
        f"{_many(report.logs, 'log record')}"
        f"{acted}"
    )
    terminal.say(f"told by {libraries or 'nothing'}; it speaks {', '.join(report.conventions) or 'nothing we know'}\n")
    rows = []
    for name, about in INPUTS.items():
        count = report.inputs[name]
        shown = (count.missing_at or count.seen_at).rpartition(":")[2]
        rows.append(
            (
                about.words,
                _SAID[count.status],
                f"{about.of}s",
                count.told,
                count.inferred,
                count.withheld,
                count.absent,
                shown,
            )
        )
    terminal.table("", ("what", "is", "of", "told", "inferred", "withheld", "absent", "example"), rows, None)
    if report.session_at:
        where = ", ".join(f"{acts} by {place}" if place != "nowhere" else f"{acts} nowhere"
                          for place, acts in report.session_at.items())  # fmt: skip
        terminal.say(f"\nthe session of acts is told: {where}")
    for name, words in FAULTS.items():
        if (fault := report.faults.get(name)) is not None:
            told = f"{_many(fault.spans, 'record')}: {words}, e.g. {fault.example.rpartition(':')[2]}"
            _say(terminal, f"{told}; to mend it: {MENDS[name]}", "", 2)
    terminal.say("\nwhat can be detected")
    for spot in blind_spots(report, NAMES):
        _say(terminal, f"{_MARK[spot.sight]}  {spot.family}, {spot.detector}: {spot.words}", "  ", 12)
    if without := _families_without():
        terminal.say(f"  -----    no detector is shipped yet for {', '.join(without)}")
    if advice := switches(report):
        terminal.say("\nwhat would turn it on")
        for one in advice:
            inputs = ", ".join(INPUTS[name].words for name in one.inputs)
            _say(terminal, inputs, "  ", 2)
            _say(terminal, f"{one.library + ': ' if one.library else ''}{one.switch}", "    ", 4)


def _say(terminal: Terminal, words: str, indent: str, hang: int) -> None:
    for line in textwrap.wrap(words, WIDTH, initial_indent=indent, subsequent_indent=" " * hang,
                              break_long_words=False, break_on_hyphens=False):  # fmt: skip
        terminal.say(line)


_SAID = {
    "seen": "seen",
    "inferred": "guessed",
    "partly": "PARTLY",
    "withheld": "WITHHELD",
    "absent": "absent",
    "nothing": "-",
}
_MARK = {"sees": "finds   ", "weaker": "weaker  ", "partly": "PARTLY  ", "blind": "BLIND   ", "unused": "unused  "}


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _known(scope: str) -> str:
    library = library_of(scope)
    return "not known by name" if library is None else library.name
