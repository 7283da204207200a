"""`sidecar exposure`: what agents have shown they can do, granted against used, and an allow-list from it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from sidecar.assembly import patterns, pipeline
from sidecar.cli.terminal import NO, OK, UNSURE, Terminal
from sidecar.config import Config
from sidecar.config import read as read_config
from sidecar.core import semconv
from sidecar.core.exposure import PATTERNS, SHOWN, AgentExposure, Exposure, Proof
from sidecar.core.organisation import Organisation
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.span import Record
from sidecar.core.text.scan import PatternSet
from sidecar.errors import StorageError
from sidecar.replay import SECOND_NS, STREAM_WINDOW_NS, WINDOW_NS, Totals, ordered, rfc3339
from sidecar.sources.files import FileReport, read
from sidecar.storage.recent import received

_FILE_ENDINGS = (".json", ".jsonl", ".pb", ".bin", ".gz", ".otlp")
MAX_SHOWN = 30
"""Rows of a table for people; `--json` has all."""


class Heard(Struct, frozen=True):
    """What telemetry came to; `bad` are requests that could not be read, `forgotten` what found no room."""

    agents: tuple[AgentExposure, ...]
    records: int
    bad: int = 0
    forgotten: int = 0


def exposure(
    terminal: Terminal,
    words: list[str],
    *,
    last_s: float,
    config: Path | None,
    suggest: bool,
    out: Path | None,
) -> int:
    """Reports on recordings, or on what the sidecar of a configuration received lately; the exit code."""
    agent, files = agent_and_files(words)
    settings = read_config(config)
    if files:
        reports = [FileReport() for _ in files]
        heard = of_files(files, reports, settings)
        source = ", ".join(files)
        for file, report in zip(files, reports, strict=True):
            for record in report.named:
                terminal.warn(f"{file}: {record.where}: {record.reason}")
    else:
        directory = settings.storage.data_dir
        heard = of_inbox(directory, time.time_ns() - int(last_s * SECOND_NS), settings)
        source = f"{directory}, the last {last_s / 60:g} minutes"
    chosen = [one for one in heard.agents if agent in (None, one.role)]
    if not chosen:
        if terminal.as_json:
            terminal.show(_document([], heard, source), "")
        terminal.warn(f"sidecar: {_why_nothing(heard, source, agent)}")
        return UNSURE
    if suggest:
        _suggest(terminal, chosen, heard, source, out)
    elif terminal.as_json:
        terminal.show(_document(chosen, heard, source), "")
    else:
        for number, one in enumerate(chosen):
            if number:
                terminal.say("")
            _show(terminal, one)
    return _verdict(terminal, chosen, heard)


def agent_and_files(words: list[str]) -> tuple[str | None, list[str]]:
    """``[AGENT] [FILE...]``: the first is an agent's role, unless there is such a file or it is written like one."""
    if not words:
        return None, []
    first = words[0]
    is_file = first == "-" or "/" in first or first.lower().endswith(_FILE_ENDINGS) or Path(first).exists()
    return (None, words) if is_file else (first, words[1:])


def cannot_tell(agent: AgentExposure) -> str:
    """Why nothing follows from an agent's not having shown more; "" where it does."""
    if not agent.acts:
        return "no act of it was seen"
    if agent.unscored:
        return agent.unknown[0]
    asks = ("what it read", "who asked") if "irreversible_outside" in agent.shown else ("what it read",)
    for words in agent.unknown:
        if words.startswith(asks):
            return words
    return ""


def _verdict(terminal: Terminal, chosen: list[AgentExposure], heard: Heard) -> int:
    if any(one.is_exposed for one in chosen):
        return NO
    if heard.bad or heard.forgotten:
        terminal.warn(
            f"sidecar: cannot tell: {heard.bad} requests could not be read, {heard.forgotten} facts forgotten"
        )
        return UNSURE
    unsure = [one for one in chosen if cannot_tell(one)]
    for one in unsure:
        terminal.warn(f"sidecar: cannot tell of {one.role}: {cannot_tell(one)}")
    return UNSURE if unsure else OK


def _why_nothing(heard: Heard, source: str, agent: str | None) -> str:
    if not heard.records:
        return f"cannot tell: {source}: no telemetry"
    if not heard.agents:
        return f"cannot tell: {source}: {heard.records} records, and none says anything of an agent"
    known = ", ".join(one.role for one in heard.agents[:20])
    return f"cannot tell: {source}: nothing of an agent called {agent!r}; there is {known}"


def _suggest(
    terminal: Terminal, chosen: list[AgentExposure], heard: Heard, source: str, out: Path | None
) -> None:  # fmt: skip
    from sidecar.cli.allow_list import allow_list

    text = allow_list(chosen, heard.agents, source)
    if out is None:
        terminal.show({"yaml": text}, text.rstrip("\n"))
        return
    try:
        out.write_text(text, encoding="ascii")
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror or type(error).__name__}") from error
    terminal.show({"out": str(out)}, f"written to {out}; look it over, then: sidecar check {out}")


# ------------------------------------------------------------ where telemetry is


class _Listener:
    """The whole pipeline with an operator's settings, and what is heard of it."""

    def __init__(self, settings: Config) -> None:
        found = PatternSet((*patterns(), *settings.sensitive.compiled(), *PATTERNS))
        self.core: Pipeline = pipeline(
            settings.policy,
            pattern_set=found,
            catalogue=settings.tools.catalogue(),
            organisation=Organisation(settings.organisation.domains, settings.organisation.partners),
            options=settings.detectors,
            closed=settings.tools.closed,
            capacity=200_000,
            session_attributes=settings.sessions.attributes,
        )
        self.exposure = Exposure(found.find)
        self._tick_ns = 0

    def take(self, outcome: Outcome) -> None:
        self.exposure.hear(outcome.events, outcome.findings)
        for _, events in outcome.retold:
            self.exposure.hear(events)

    def tick(self, now_ns: int) -> None:
        if now_ns - self._tick_ns >= SECOND_NS:
            self._tick_ns = now_ns
            self.take(self.core.tick(now_ns))

    def finish(self, bad: int) -> Heard:
        self.take(self.core.tick(self._tick_ns + 60 * SECOND_NS, last=True))
        agents = self.exposure.report(self.core.sessions, self.core.sessions.resolve)
        return Heard(agents, self.exposure.records, bad, self.exposure.forgotten)


def of_files(files: Iterable[str], reports: list[FileReport] | None = None, settings: Config | None = None) -> Heard:
    """What agents show in recordings, read together as one stream.

    Raises:
        SourceError: A file cannot be read, or is something else.
    """
    files = list(files)
    reports = [FileReport() for _ in files] if reports is None else reports
    listener = _Listener(settings or Config())

    def note(span: Any, facts: Any) -> None:
        listener.exposure.note(span, facts)
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
        listener.take(listener.core.weave(record, moment.facts, now_ns, begin=moment.begin, end=moment.end, asked=True))
    return listener.finish(sum(report.bad for report in reports))


def of_inbox(directory: Path, since_ns: int, settings: Config | None = None) -> Heard:
    """What agents show in what a sidecar has received since then. Its database is only read.

    Raises:
        ConfigError: There is no such database.
        StorageError: It cannot be read.
    """
    listener, bad = _Listener(settings or Config()), 0
    for arrived_ns, records in received(directory, since_ns):
        if records is None:
            bad += 1
            continue
        for record in records:
            listener.exposure.note(record.span, semconv.read(record.span))
            listener.take(listener.core.feed(record, arrived_ns))
        listener.tick(arrived_ns)
    return listener.finish(bad)


# ------------------------------------------------------------ what is shown


def _document(agents: list[AgentExposure], heard: Heard, source: str) -> dict[str, Any]:
    found = []
    for one in agents:
        plain: dict[str, Any] = to_builtins(one)
        plain["exposed"] = one.is_exposed
        plain["cannot_tell"] = cannot_tell(one)
        found.append(plain)
    return {"source": source, "records": heard.records, "bad_records": heard.bad, "forgotten": heard.forgotten,
            "agents": found}  # fmt: skip


def _show(terminal: Terminal, agent: AgentExposure) -> None:
    terminal.say(f"{agent.role} ({agent.realm}): {_many(agent.sessions, 'session')}, {_many(agent.acts, 'act')}")
    if (three := agent.trifecta) is not None:
        where = f"together in {_many(three.sessions, 'session')}" if three.together else "in different sessions"
        terminal.say(f"EXPOSED: private data, untrusted input and a way out, {where}")
        for name, proof in (("private", three.private), ("untrusted", three.untrusted), ("way out", three.out)):
            terminal.say(f"  {name:<9}  {proof.span}  {proof.text}")
    if "unasked_outside" in agent.shown:
        terminal.say("EXPOSED: it acted outside, in a way that cannot be undone, and no user had said anything")
    if not agent.is_exposed:
        reason = cannot_tell(agent)
        terminal.say(
            f"CANNOT TELL: {reason}" if reason else "private data, untrusted input and a way out: not all shown"
        )
    terminal.say("")
    if agent.shown:
        rows = [
            (SHOWN[kind], shown.count, _kinds(shown.classes), _time(shown.first_ns), _time(shown.last_ns),
             _where(shown.proofs))
            for kind, shown in agent.shown.items()
        ]  # fmt: skip
        terminal.table("", ("it has", "n", "kinds", "first", "last", "shown best by"), rows, None)
    else:
        terminal.say("it has shown nothing of note")
    terminal.say(f"\n{_granted(agent)}")
    if agent.never_used:
        terminal.say(f"granted and never used: {_some(agent.never_used)}")
    used = [
        (use.name[:80], use.calls, ", ".join(use_words(use)) or "nothing known", use.flagged or "-", use.span)
        for use in agent.tools[:MAX_SHOWN]
    ]
    if used:
        terminal.table("", ("tool used", "calls", "did", "flagged by", "first"), used, None)
    if agent.places:
        terminal.say("")
        placed = [
            (use.address[:80], use.kind, use.relation, use.acts, use.asked, use.flagged or "-", use.span)
            for use in agent.places[:MAX_SHOWN]
        ]
        columns = ("destination", "kind", "is", "acts", "asked for", "flagged by", "first")
        terminal.table("", columns, placed, None)
    hidden = max(len(agent.tools), len(agent.places)) - MAX_SHOWN
    if hidden > 0:
        terminal.say("and more: --json has all")
    for unknown in agent.unknown:
        terminal.say(f"not known: {unknown}")


def use_words(use: Any) -> list[str]:
    """What a tool did, in words."""
    words = [name for name in ("reads", "sends", "changes", "runs", "standing", "outward") if getattr(use, name)]
    return [*words, *(["irreversible"] if use.irreversible else []), *([] if use.known else ["unknown"])]


def _granted(agent: AgentExposure) -> str:
    used = _many(len(agent.tools), "tool")
    if agent.offered is None:
        return f"{used} used; what it was granted is not told"
    return f"{_many(len(agent.offered), 'tool')} granted, {used} used"


def _where(proofs: list[Proof]) -> str:
    return f"{proofs[0].span} {proofs[0].text[:120]}" if proofs else "-"


def _kinds(classes: dict[str, int]) -> str:
    most = sorted(classes.items(), key=lambda item: (-item[1], item[0]))[:4]
    return ", ".join(f"{name.rsplit('.', 1)[-1].replace('_', ' ')[:40]} {count}" for name, count in most)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(name[:80] for name in names[:MAX_SHOWN]) + more


def _time(at_ns: int) -> str:
    return rfc3339(at_ns)[:19].replace("T", " ") + "Z"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
