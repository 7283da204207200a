"""The traffic that figures are taken on is what it says it is."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks import mix
from sidecar import assembly
from sidecar.core.findings import Finding, Severity
from sidecar.core.span import Record
from sidecar.sources.decode import Limits, decode

DENSE = re.compile(r"[A-Za-z0-9+/_=-]{120}")


@pytest.fixture(scope="module")
def sent() -> list[mix.Sent]:
    return mix.spans()


def content(sent: mix.Sent) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in sent.span.attributes}


def test_it_is_ten_thousand_spans_of_twenty_agents_in_two_hundred_sessions(sent: list[mix.Sent]) -> None:
    assert len(sent) == 10_000
    assert len({one.agent for one in sent}) == 20
    assert len({content(one)["gen_ai.conversation.id"] for one in sent}) == 200


def test_a_third_are_model_spans_and_both_kinds_have_their_size(sent: list[mix.Sent]) -> None:
    chats = [one.span.ByteSize() for one in sent if one.span.name.startswith("chat ")]
    tools = [one.span.ByteSize() for one in sent if one.span.name.startswith("execute_tool ")]
    assert 0.32 <= len(chats) / len(sent) <= 0.36
    assert len(chats) + len(tools) == len(sent)
    assert 4_500 <= sum(chats) / len(chats) <= 5_000
    assert 1_840 <= sum(tools) / len(tools) <= 2_000


def test_model_spans_repeat_the_history(sent: list[mix.Sent]) -> None:
    by_item: dict[bytes, list[Any]] = {}
    for one in sent:
        if one.span.name.startswith("chat "):
            by_item.setdefault(one.span.trace_id, []).append(json.loads(content(one)["gen_ai.input.messages"]))
    continued = [
        later[: len(earlier)] == earlier for told in by_item.values() for earlier, later in itertools.pairwise(told)
    ]
    assert len(continued) > 1_000
    assert all(continued)


def test_a_tenth_of_the_acts_themselves_hold_base64_like_content(sent: list[mix.Sent]) -> None:
    dense = sum(
        one.span.name.startswith("execute_tool ") and any(map(DENSE.search, content(one).values())) for one in sent
    )
    assert dense / len(sent) >= 0.10


def test_batches_hold_a_hundred_spans_and_lose_none(sent: list[mix.Sent]) -> None:
    bodies = mix.requests(sent)
    told = [
        [span for resource in ExportTraceServiceRequest.FromString(body).resource_spans
         for scope in resource.scope_spans for span in scope.spans]
        for body in bodies
    ]  # fmt: skip
    assert {len(spans) for spans in told} == {100}
    assert sum(map(len, told)) == len(sent)


def test_it_is_the_same_every_time_and_a_later_turn_differs_in_ids_and_times_only(sent: list[mix.Sent]) -> None:
    assert mix.requests(mix.spans(500)) == mix.requests(mix.spans(500))
    first, second = mix.spans(500), mix.spans(500, turn=1)
    assert not {one.span.trace_id for one in first} & {one.span.trace_id for one in second}
    for one, other in zip(first, second, strict=True):
        assert other.end_ns - one.end_ns == mix.DAY_NS
        assert content(one).get("gen_ai.tool.call.result") == content(other).get("gen_ai.tool.call.result")


def test_a_twentieth_lead_to_findings_of_many_kinds_and_most_sessions_stay_clean(sent: list[mix.Sent]) -> None:
    pipeline = assembly.pipeline()
    pipeline.patterns.use(pipeline.patterns.compile_hyperscan())
    found: list[Finding] = []
    with_findings = 0
    for body in mix.requests(sent):
        spans = decode("traces", body, "proto", Limits()).spans
        now_ns = max(span.end_ns for span in spans)
        for span in spans:
            findings = pipeline.feed(Record(span, arrived_ns=now_ns), now_ns).findings
            with_findings += bool(findings)
            found.extend(findings)
    kinds = Counter(finding.detector for finding in found)
    assert with_findings / len(sent) >= 0.05
    assert len(kinds) >= 4, kinds
    assert {finding.severity for finding in found} >= {Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL}
    paused = sum(run.desired == "paused" for _, run in pipeline.runs)
    assert 0.05 <= paused / mix.SESSIONS <= 0.2
