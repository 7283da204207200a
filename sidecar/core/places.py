"""What several records say of one model call → one telling: its span, its log record, its messages one by one."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sidecar.core.semconv import merged
from sidecar.core.semconv.facts import Facts, Turn
from sidecar.core.span import Record

Report = tuple[Record, Facts]


MAX_SAME = 16
"""Records before one that are looked at for the same one."""


def assemble(reports: Sequence[Report]) -> list[Report]:
    """Tellings of model calls that bear one span id, as one for each call, in the order of time.

    Messages that came one a record are put together. Where they hold several calls (records of a span that is no
    model call's own), an input after an output begins the next one.
    """
    whole = [report for report in reports if not report[1].piece]
    pieces = sorted(
        (report for report in reports if report[1].piece),
        key=lambda report: (report[0].span.end_ns, report[1].inputs is None, report[0].position),
    )
    whole.sort(key=lambda report: (report[0].span.signal == "log", report[0].span.end_ns))
    calls: list[list[Report]] = []
    for n, report in enumerate(pieces):
        if any(_is_same(report, other) for other in pieces[max(0, n - MAX_SAME) : n]):
            continue  # it came twice
        if not calls or (report[1].inputs is not None and calls[-1][-1][1].inputs is None):
            calls.append([])
        calls[-1].append(report)
    told = [_joined(call) for call in calls]
    if whole:
        (record, facts), *more = whole
        again = [report for report in more if report[0].span.signal == "span"]  # came twice: not ours to judge
        others = [replace(other) for one, other in (*more, *told[-1:]) if one.span.signal == "log"]
        return [*_numbered(told[:-1]), (record, _told(merged([replace(facts), *others]))), *again]
    return _numbered(told)


def _is_same(one: Report, other: Report) -> bool:
    return one[0].span.end_ns == other[0].span.end_ns and one[1] == other[1]


def _numbered(calls: list[Report]) -> list[Report]:
    """Calls that share a span id, each with one of its own; the last one keeps it."""
    named = []
    for n, (record, facts) in enumerate(calls, 1):
        if n < len(calls):
            record = replace(record, span=replace(record.span, span_id=f"{record.span.span_id}.{n}"))
        named.append((record, facts))
    return named


def _joined(pieces: Sequence[Report]) -> Report:
    record = pieces[-1][0]
    inputs: list[Turn] = []
    outputs: list[Turn] = []
    for _, facts in pieces:
        inputs.extend(facts.inputs or ())
        outputs.extend(facts.outputs or ())
    said = {"inputs": tuple(inputs) if any(f.inputs is not None for _, f in pieces) else None,
            "outputs": tuple(outputs) if any(f.outputs is not None for _, f in pieces) else None}  # fmt: skip
    first = merged([replace(facts, inputs=None, outputs=None) for _, facts in (pieces[-1], *pieces[:-1])])
    return record, _told(replace(first, piece=False, **said))


def _told(facts: Facts) -> Facts:
    facts.withheld = tuple(field for field in facts.withheld if getattr(facts, field) is None)
    facts.unscored = tuple(reason for reason in facts.unscored if reason != "cut" or facts.cut)
    return facts
