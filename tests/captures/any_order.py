"""A capture as it may arrive: in any order, in requests cut anywhere, late, twice, and told by two libraries at once.

    told = load(shared, stem)
    came = play(arrival(told, random.Random(seed)))
    assert not differences(play(at_once(told)), came)

An arrival is a list of `Request`; `play` feeds them to a live core without detectors and gives the `Account` that a
reader has of it in the end.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sidecar.core import semconv
from sidecar.core.events import Event, Lifecycle, SessionKey, ToolCall
from sidecar.core.pipeline import Outcome, Pipeline
from sidecar.core.semconv.facts import Facts, plain_text
from sidecar.core.span import LOCAL, Record, Span
from sidecar.core.text.scan import PatternSet
from sidecar.core.tools import ToolCatalogue
from sidecar.core.triage.policy import Policy, PolicyDocument
from sidecar.sources.files import read

SECOND_NS = 10**9
JOURNAL_BYTES = 1 << 28
MAX_PAUSE_NS = 10 * SECOND_NS
MAX_CUTS = 12
MAX_DELAY_NS = 600 * SECOND_NS - 1
"""How late a record may come and still be put in order (`journal.GRACE_NS`)."""
CLOCK_NS = 60 * SECOND_NS
"""Beyond this between its end and its arrival, a record is told of as one of a clock that is wrong."""
NESTED_NS = 20_000
NOTHING_TO_FIND = PatternSet(())


class Request(Struct, frozen=True):
    """Records that come together, `after_ns` after those before."""

    after_ns: int
    spans: tuple[Span, ...]


class Account(Struct):
    """What a reader knows of a stream in the end.

    Attributes:
        events: Event id (and phase of a run) → all fields of the whole event.
        sessions: Session id → what is known of it.
        notices: Kinds of what is odd about the telemetry itself, each with the act or span it is about.
        retold: How often a session was told anew.
    """

    events: dict[str, dict[str, Any]] = {}
    sessions: dict[str, dict[str, Any]] = {}
    notices: list[tuple[str, str]] = []
    retold: int = 0


# ---------------------------------------------------------------- captures


def stems(shared: Path) -> list[str]:
    """All captures."""
    return sorted(json.loads((shared / "captures" / "EXPECTED.json").read_text())["captures"])


@lru_cache(maxsize=256)
def load(shared: Path, stem: str) -> tuple[Span, ...]:
    """Spans and log records of a capture, in order of their ends."""
    files = sorted((shared / "captures").glob(f"{stem}.*.otlp.pb*"))
    assert files, f"no capture {stem}"
    return in_order(span for file in files for _, span in read(str(file)))


def in_order(spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(sorted(spans, key=lambda span: (span.end_ns, span.trace_id, span.span_id)))


# ---------------------------------------------------------------- playing


def core(**more: Any) -> Pipeline:
    """A live core that judges nothing."""
    more = {"patterns": NOTHING_TO_FIND, "journal_bytes": JOURNAL_BYTES} | more
    return Pipeline((), Policy(PolicyDocument(), {}), ToolCatalogue(), **more)


class Reader:
    """Keeps whole events: sessions that are told anew stand in the place of what was told of them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.account = Account()

    def take(self, outcome: Outcome) -> None:
        for key, events in outcome.retold:
            self.account.retold += 1
            gone = [
                name for name, event in self.account.events.items() if self._now(event["session"]) == self._now(key)
            ]
            for name in gone:
                del self.account.events[name]
            self._add(events)
        self._add(outcome.events)
        self.account.notices += [(finding.detector, finding.event_id) for finding in outcome.findings]

    def _now(self, key: SessionKey) -> SessionKey:
        return self._pipeline.sessions.resolve(key)

    def _add(self, events: Iterable[Event]) -> None:
        for event in events:
            row = {"kind": type(event).__name__, **{name: getattr(event, name) for name in event.__struct_fields__}}
            if isinstance(event, ToolCall):
                self._add_act(event, row)
            else:
                phase = event.phase if isinstance(event, Lifecycle) else ""
                self.account.events[event.event_id + phase] = row

    def _add_act(self, event: ToolCall, row: dict[str, Any]) -> None:
        """Its beginning as told last, and its end as told last."""
        whole = self.account.events.setdefault(event.event_id, {})
        for name in ("at_ns", "spans", "withheld", "absent", "unscored", "reading"):
            row[f"{event.phase} {name}"] = row.pop(name)
        left_out = ("result", "failed", "duration_ns") if event.phase == "started" else ("arguments", "tool")
        del row["phase"]
        whole |= {name: value for name, value in row.items() if name not in left_out}

    def finish(self) -> Account:
        """The account, with ids of sessions as they are in the end."""
        for event in self.account.events.values():
            event["session"] = self._now(event["session"]).id
        for session in self._pipeline.sessions:
            self.account.sessions[session.key.id] = {
                "agent": session.agent, "user": session.user, "told": session.told,
                "parent": session.parent and self._now(session.parent).id,
                "spans": session.span_count, "acts": session.act_count, "reasons": sorted(session.reasons),
            }  # fmt: skip
        return self.account


def play(requests: Sequence[Request], pipeline: Pipeline | None = None) -> Account:
    """All that comes of an arrival. The first record comes when the last one has ended: none comes before its end."""
    pipeline = pipeline or core()
    reader = Reader(pipeline)
    now_ns = max(span.end_ns for request in requests for span in request.spans)
    for request in requests:
        now_ns += request.after_ns
        if request.after_ns:
            reader.take(pipeline.tick(now_ns))
        for span in request.spans:
            reader.take(pipeline.feed(Record(span, LOCAL, now_ns), now_ns))
    reader.take(pipeline.tick(now_ns + SECOND_NS))
    reader.take(pipeline.tick(now_ns + 20 * SECOND_NS, last=True))
    return reader.finish()


def differences(one: Account, other: Account) -> list[str]:
    """Where two accounts of the same telemetry differ, in words; empty when every field of every event is equal."""
    found = []
    for name, event in one.events.items():
        if (theirs := other.events.get(name)) is None:
            found.append(f"missing {name}: {_short(event)}")
            continue
        found += [
            f"{event['kind']} {name} {field}: {_short(event.get(field))} | {_short(theirs.get(field))}"
            for field in sorted({*event, *theirs})
            if event.get(field) != theirs.get(field)
        ]
    found += [f"extra {name}: {_short(event)}" for name, event in other.events.items() if name not in one.events]
    for key in sorted({*one.sessions, *other.sessions}):
        mine, theirs = one.sessions.get(key), other.sessions.get(key)
        if mine != theirs:
            found.append(f"session {key}: {mine} | {theirs}")
    return found


def _short(value: object) -> str:
    if isinstance(value, dict) and "kind" in value:
        value = {name: value.get(name) for name in ("kind", "tool", "arguments", "text", "session", "spans")}
    return repr(value)[:300]


# ---------------------------------------------------------------- arrivals


def at_once(spans: Sequence[Span]) -> list[Request]:
    """In order, in one request."""
    return [Request(0, tuple(spans))]


def binds(span: Span) -> bool:
    """Whether a span says whose it is: it names a session or an agent."""
    facts = semconv.read(span)
    return facts is not None and bool(facts.session or facts.agent_name or facts.agent_id)


def arrival(spans: Sequence[Span], chance: random.Random) -> list[Request]:
    """Records in any order, cut into requests anywhere, with pauses of up to 10 s, and one request replayed.

    One time in two those that bind a session come last, when all others have been waited for.
    """
    shuffled = list(spans)
    chance.shuffle(shuffled)
    if chance.random() < 0.5:
        shuffled.sort(key=binds)
    cuts = sorted(chance.sample(range(1, len(shuffled)), chance.randint(0, min(len(shuffled) - 1, MAX_CUTS))))
    parts = [tuple(shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
    replayed = chance.randrange(len(parts))
    parts.insert(chance.randint(replayed + 1, len(parts)), parts[replayed])
    return [Request(chance.choice((0, 0, chance.randrange(MAX_PAUSE_NS))), part) for part in parts]


def late(spans: Sequence[Span], chance: random.Random) -> list[Request]:
    """Each record on its own, with up to ten minutes between its end and its arrival."""
    delayed = sorted((chance.randrange(MAX_DELAY_NS), n) for n in range(len(spans)))
    requests, before_ns = [], 0
    for at_ns, n in delayed:
        requests.append(Request(at_ns - before_ns, (spans[n],)))
        before_ns = at_ns
    return requests


def then(requests: Sequence[Request], span: Span, chance: random.Random, *, after: Span) -> list[Request]:
    """`span` comes, too, in a request of its own, some time after `after`."""
    came = next(n for n, request in enumerate(requests) if any(one is after for one in request.spans))
    requests = list(requests)
    requests.insert(chance.randint(came + 1, len(requests)), Request(chance.randrange(MAX_PAUSE_NS), (span,)))
    return requests


# ---------------------------------------------------------------- told by another library


def tools(spans: Iterable[Span]) -> list[tuple[Span, Facts]]:
    """Tools' spans that tell arguments and result."""
    told = ((span, semconv.read(span)) for span in spans if span.signal == "span")
    return [
        (span, facts) for span, facts in told
        if facts is not None and facts.kind == "tool" and facts.arguments is not None and facts.result is not None
    ]  # fmt: skip


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _genai(facts: Facts) -> dict[str, Any]:
    named = {"gen_ai.tool.call.id": facts.call_id} if facts.call_id else {}
    return {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": facts.tool, **named,
        "gen_ai.tool.call.arguments": _as_json(facts.arguments), "gen_ai.tool.call.result": plain_text(facts.result),
    }  # fmt: skip


def _openinference(facts: Facts) -> dict[str, Any]:
    named = {"tool_call.id": facts.call_id} if facts.call_id else {}
    return {
        "openinference.span.kind": "TOOL", "tool.name": facts.tool, **named,
        "input.value": _as_json(facts.arguments), "input.mime_type": "application/json",
        "output.value": plain_text(facts.result), "output.mime_type": "text/plain",
    }  # fmt: skip


def _traceloop(facts: Facts) -> dict[str, Any]:
    return {
        "traceloop.span.kind": "tool", "traceloop.entity.name": facts.tool,
        "traceloop.entity.input": _as_json(facts.arguments), "traceloop.entity.output": plain_text(facts.result),
    }  # fmt: skip


def _vercel(facts: Facts) -> dict[str, Any]:
    named = {"ai.toolCall.id": facts.call_id} if facts.call_id else {}
    return {
        "operation.name": "ai.toolCall", "ai.operationId": "ai.toolCall", "ai.toolCall.name": facts.tool, **named,
        "ai.toolCall.args": _as_json(facts.arguments), "ai.toolCall.result": plain_text(facts.result),
    }  # fmt: skip


DIALECTS = {"gen_ai.": _genai, "openinference.": _openinference, "traceloop.": _traceloop, "ai.": _vercel}
"""How a key of the convention begins → the same call in its names."""
SPAN_NAMES = {"gen_ai.": "execute_tool {}", "openinference.": "{}", "traceloop.": "{}.tool", "ai.": "ai.toolCall"}


def dialects_of(span: Span) -> list[str]:
    """Conventions that a span does not speak."""
    return [begin for begin in DIALECTS if not any(key.startswith(begin) for key in span.attributes)]


def in_other_words(span: Span, facts: Facts, dialect: str, *, within: bool) -> Span:
    """The same call told by another instrumentation, whose span stands within this one or beside it."""
    return replace(
        span,
        span_id=f"{int(span.span_id, 16) ^ 0xD1A1EC7:016x}",
        parent_id=span.span_id if within else span.parent_id,
        name=SPAN_NAMES[dialect].format(facts.tool),
        start_ns=min(span.start_ns + NESTED_NS, span.end_ns),
        end_ns=max(span.end_ns - NESTED_NS, min(span.start_ns + NESTED_NS, span.end_ns)),
        attributes=DIALECTS[dialect](facts),
        status=2 if facts.failed else span.status,
        events=(), scope="another.instrumentation", rest={}, body=None,
    )  # fmt: skip


CONTENT = ("arguments", "result", "failed", "text", "role", "direction", "tool", "session", "agent", "model")


def contents(account: Account) -> list[str]:
    """What was done and said, without who told it and when: equal where a library more changes nothing."""
    told = [
        repr([(name, event.get(name)) for name in ("kind", *CONTENT) if name in event])
        for event in account.events.values()
    ]
    return sorted(told)


def contradicting(span: Span, facts: Facts) -> Span | None:
    """A span with the id of this one that tells other content; None where no single word of it can be changed."""
    words = sorted(
        _words(plain_text(facts.result)) | _words(_as_json(facts.arguments)), key=lambda word: (-len(word), word)
    )
    for word in words[:8]:
        for key, value in span.attributes.items():
            if not (isinstance(value, str) and word in value):
                continue
            other = replace(span, attributes=span.attributes | {key: value.replace(word, "contradiction")})
            read = semconv.read(other)
            if read is not None and read.kind == "tool" and read.tool == facts.tool and (
                read.arguments != facts.arguments or read.result != facts.result
            ):  # fmt: skip
                return other
    return None


def _words(text: str) -> set[str]:
    return set("".join(letter if letter.isalnum() and letter.isascii() else " " for letter in text).split())


# ---------------------------------------------------------------- what is claimed


KINDS = ("shuffled", "late", "twice told", "contradicted")


def violations(spans: Sequence[Span], seed: str, kind: str) -> list[str] | None:
    """What is wrong with one arrival of a capture, in words; None where the capture has nothing to make it of.

    Args:
        seed: Names the arrival.
        kind: One of `KINDS`: as `arrival` has it, as `late` has it, with a tool call that another library tells, too,
            or with a span that comes again and tells something else.
    """
    chance = random.Random(f"{seed} {kind}")
    expected = Counter[str]()
    if kind in ("twice told", "contradicted"):
        if not (told := tools(spans)):
            return None
        span, facts = chance.choice(told)
    if kind == "twice told":
        dialect = chance.choice(dialects_of(span))
        alone = reference(tuple(spans))
        spans = in_order([*spans, in_other_words(span, facts, dialect, within=chance.random() < 0.5)])
    in_time = reference(tuple(spans))
    requests = late(spans, chance) if kind == "late" else arrival(spans, chance)
    if kind == "contradicted":
        if (other := contradicting(span, facts)) is None:
            return None
        requests = then(requests, other, chance, after=span)
        expected["conflicting_duplicate"] = 1
    came = play(requests)
    wrong = differences(in_time, came)
    if kind == "twice told" and (one := contents(alone)) != (two := contents(in_time)):
        wrong.append(
            f"a library more tells another story: {Counter(one) - Counter(two)} | {Counter(two) - Counter(one)}"
        )
    if sum(request.after_ns for request in requests) > CLOCK_NS:  # then the sender's clock may be wrong
        came.notices = [notice for notice in came.notices if notice[0] != "clock_skew"]
    if (notices := Counter(notice for notice, _ in came.notices)) != expected:
        wrong.append(f"notices {dict(notices)}, not {dict(expected)}")
    return wrong


_REFERENCES: dict[tuple[int, ...], tuple[tuple[Span, ...], Account]] = {}


def reference(spans: tuple[Span, ...]) -> Account:
    """The account of spans that come in order, at once; kept for the latest few."""
    name = tuple(map(id, spans))
    if name not in _REFERENCES:
        while len(_REFERENCES) >= 4:
            del _REFERENCES[next(iter(_REFERENCES))]
        _REFERENCES[name] = (spans, play(at_once(spans)))
    return _REFERENCES[name][1]
