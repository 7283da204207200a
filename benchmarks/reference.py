"""The same sidecar as one would first write it: what the pipeline is measured against, spans a second of one core.

It is row A of performance.md §8 in full: `MessageToDict` of the whole request, a pydantic model of every span and of
every event, `json.loads`, every pattern searched by itself with the standard library's `re` (on arguments, results and
messages), river's half-space trees as they come, a labelled metric an event. How acts are woven, and what detectors and
policy conclude, is the sidecar's own code, so that findings and decisions are the same; that can only narrow the gap.

For measuring alone: with `re`, a text can be made to take for ever.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry, Counter, Histogram
from pydantic import BaseModel, ConfigDict, Field
from river.anomaly import HalfSpaceTrees as RiverTrees

from sidecar import assembly
from sidecar.core.detectors import SHIPPED, half_space_trees
from sidecar.core.events import KIND, Event
from sidecar.core.features.behaviour import NAMES
from sidecar.core.features.forest import HEIGHT, SEED, TREES, WINDOW, Vector
from sidecar.core.pipeline import Outcome
from sidecar.core.span import Record, Span, SpanEvent
from sidecar.core.text.scan import SPANS_MAX, Pattern

CONTENT = (
    "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.system_instructions", "gen_ai.input.messages",
    "gen_ai.output.messages",
)  # fmt: skip
"""Attributes that hold JSON."""


class Reference:
    """Takes export requests one after another; `outcomes` of each are the pipeline's, in the same order."""

    def __init__(self) -> None:
        detectors = tuple(Trees if d is half_space_trees.HalfSpaceTrees else d for d in SHIPPED)
        self.pipeline = assembly.pipeline(detectors=detectors, pattern_set=Patterns(assembly.patterns()))  # type: ignore[arg-type]
        self._metrics = Metrics()

    def take(self, body: bytes, now_ns: int) -> list[Outcome]:
        """Everything that is done about one request that came at `now_ns`."""
        outcomes = []
        for span in spans(body):
            began_s = time.perf_counter()
            outcome = self.pipeline.feed(Record(span, arrived_ns=now_ns), now_ns)
            outcomes.append(outcome)
            for event in outcome.events:
                told = event_model(event)
                self._metrics.events.labels(kind=told.kind, agent=told.agent).inc()
            for finding in outcome.findings:
                self._metrics.findings.labels(detector=finding.detector, severity=finding.severity.word).inc()
            for decision in outcome.decisions:
                self._metrics.decisions.labels(answer=decision.answer, state=decision.state).inc()
            self._metrics.seconds.labels(agent=span.resource["service.name"]).observe(time.perf_counter() - began_s)
        outcomes.append(self.pipeline.tick(now_ns))
        return outcomes


class Metrics:
    """One registry, one `labels()` a thing counted."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.events = Counter("events", "Events by kind.", ["kind", "agent"], registry=registry)
        self.findings = Counter("findings", "Findings.", ["detector", "severity"], registry=registry)
        self.decisions = Counter("decisions", "Decisions.", ["answer", "state"], registry=registry)
        self.seconds = Histogram("span_seconds", "Time spent on a span.", ["agent"], registry=registry)


# ---------------------------------------------------------------- decoding: protobuf → dicts → pydantic


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Values(_Model):
    values: list[Value] = Field(default_factory=list)


class Members(_Model):
    values: list[Attribute] = Field(default_factory=list)


class Value(_Model):
    """An attribute's value; one of the fields is set. 64-bit numbers come as text, bytes in base64."""

    stringValue: str | None = None  # noqa: N815 - as protobuf's JSON names it
    intValue: int | None = None  # noqa: N815
    doubleValue: float | None = None  # noqa: N815
    boolValue: bool | None = None  # noqa: N815
    bytesValue: str | None = None  # noqa: N815
    arrayValue: Values | None = None  # noqa: N815
    kvlistValue: Members | None = None  # noqa: N815

    def plain(self) -> Any:
        if self.arrayValue is not None:
            return [value.plain() for value in self.arrayValue.values]
        if self.kvlistValue is not None:
            return plain(self.kvlistValue.values)
        if self.bytesValue is not None:
            return base64.b64decode(self.bytesValue)
        for value in (self.stringValue, self.intValue, self.doubleValue, self.boolValue):
            if value is not None:
                return value
        return None


class Attribute(_Model):
    key: str = ""
    value: Value = Field(default_factory=Value)


class Remark(_Model):
    name: str = ""
    timeUnixNano: int = 0  # noqa: N815
    attributes: list[Attribute] = Field(default_factory=list)


class Status(_Model):
    code: str = "STATUS_CODE_UNSET"
    message: str = ""


class OtlpSpan(_Model):
    """A span as `MessageToDict` gives it."""

    traceId: str  # noqa: N815
    spanId: str  # noqa: N815
    parentSpanId: str = ""  # noqa: N815
    name: str = ""
    startTimeUnixNano: int = 0  # noqa: N815
    endTimeUnixNano: int = 0  # noqa: N815
    attributes: list[Attribute] = Field(default_factory=list)
    events: list[Remark] = Field(default_factory=list)
    status: Status = Field(default_factory=Status)
    droppedAttributesCount: int = 0  # noqa: N815


def spans(body: bytes) -> Iterator[Span]:
    """Spans of a request, their content parsed."""
    told = MessageToDict(ExportTraceServiceRequest.FromString(body))
    for resource_spans in told.get("resourceSpans", []):
        about = resource_spans.get("resource", {}).get("attributes", [])
        resource = plain([Attribute.model_validate(attribute) for attribute in about])
        for scope_spans in resource_spans.get("scopeSpans", []):
            scope = scope_spans.get("scope", {}).get("name", "")
            for span in scope_spans.get("spans", []):
                yield _span(OtlpSpan.model_validate(span), resource, scope)


def _span(told: OtlpSpan, resource: dict[str, Any], scope: str) -> Span:
    attributes = plain(told.attributes)
    for key in CONTENT:
        if key in attributes:
            attributes[key] = loaded(attributes[key])
    return Span(
        "span",
        _hexadecimal(told.traceId),
        _hexadecimal(told.spanId),
        _hexadecimal(told.parentSpanId),
        told.name,
        told.startTimeUnixNano,
        told.endTimeUnixNano,
        attributes,
        None,
        tuple(SpanEvent(event.name, event.timeUnixNano, plain(event.attributes)) for event in told.events),
        {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}.get(told.status.code, 0),
        told.status.message,
        told.droppedAttributesCount,
        resource,
        scope,
    )


def plain(attributes: Iterable[Attribute]) -> dict[str, Any]:
    return {attribute.key: attribute.value.plain() for attribute in attributes}


def loaded(text: Any) -> Any:
    """The JSON that a text holds, the text itself where it holds none."""
    if not isinstance(text, str) or not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _hexadecimal(told: str) -> str:
    return base64.b64decode(told).hex()


# ---------------------------------------------------------------- events, as pydantic has them


class Place(_Model):
    kind: str
    address: str
    relation: str


class EventModel(_Model):
    """An event, checked."""

    event_id: str
    kind: str
    session: str
    agent: str
    at_ns: int
    spans: list[str]
    unscored: list[str]
    hits: list[str]
    destinations: list[Place]
    tool: str = ""
    phase: str = ""
    arguments: Any = None
    result: Any = None
    text: str | None = None
    role: str = ""


def event_model(event: Event) -> EventModel:
    """One event, validated from a dictionary."""
    told: dict[str, Any] = {
        "event_id": event.event_id,
        "kind": KIND[type(event)],
        "session": event.session.id,
        "agent": event.agent.role,
        "at_ns": event.at_ns,
        "spans": list(event.spans),
        "unscored": list(event.unscored),
        "hits": list(event.reading.hits),
        "destinations": [
            {"kind": where.kind, "address": where.address, "relation": where.relation}
            for where in event.reading.destinations
        ],
    }
    for field in ("tool", "phase", "arguments", "result", "text", "role"):
        if (value := getattr(event, field, None)) is not None:
            told[field] = value
    return EventModel.model_validate(told)


# ---------------------------------------------------------------- patterns and trees


class Patterns:
    """Each pattern by itself, with `re`; stands in for `text.scan.PatternSet`."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(sorted(patterns, key=lambda pattern: pattern.name))
        self._compiled = {pattern.name: re.compile(_as_re(pattern.regex), re.ASCII) for pattern in self.patterns}

    def match(self, text: str) -> tuple[str, ...]:
        return tuple([name for name, compiled in self._compiled.items() if compiled.search(text)])

    def find(self, name: str, text: str, *, limit: int = SPANS_MAX) -> list[tuple[int, int]]:
        found = []
        for match in self._compiled[name].finditer(text):
            found.append(match.span())
            if len(found) >= limit:
                break
        return found


def _as_re(regex: str) -> str:
    """RE2's spelling as Python's, where they differ."""
    regex = re.sub(r"\\x\{([0-9A-Fa-f]+)\}", lambda code: re.escape(chr(int(code[1], 16))), regex)
    return re.sub(r"(?<!\\)((?:\\\\)*)\\z", r"\1\\Z", regex)


class Trees(half_space_trees.HalfSpaceTrees):
    """The detector, with a forest that is river's and nothing else."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.forest = RiverForest()  # type: ignore[assignment]


class RiverForest:
    """River's trees by river's verbs; stands in for `features.forest.Forest`."""

    def __init__(self) -> None:
        self._trees = RiverTrees(n_trees=TREES, height=HEIGHT, window_size=WINDOW, seed=SEED)
        self.learned = 0

    @property
    def is_warm(self) -> bool:
        return self.learned >= WINDOW

    def score(self, vector: Vector) -> float:
        return float(self._trees.score_one(dict(zip(NAMES, vector, strict=True)))) if self.is_warm else 0.0

    def learn(self, vector: Vector) -> None:
        self.learned += 1
        self._trees.learn_one(dict(zip(NAMES, vector, strict=True)))
